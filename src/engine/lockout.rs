//! What a login depends on, changed by kinds that know nothing of it: sshd's configuration by a `copy`, the login
//! user's groups by a `user`, sshd stopped by a `service`. Such a change is guarded like those of the kinds that exist
//! for it (DESIGN 8.1), or refused where a new login would succeed now and never again. Pure.

use std::time::Duration;

use crate::facts::Facts;
use crate::resource::ResourceId;
use crate::resource::plan::{Change, Effect, Guard, GuardKind, Plan, Shown, Step};
use crate::resource::sshd_config;
use crate::shell::Script;

/// How long the host waits for a new login.
const WINDOW: Duration = Duration::from_secs(60);
/// Units that let us in, and units that carry us there.
const SSH: [&str; 4] = ["ssh.service", "sshd.service", "ssh.socket", "sshd.socket"];
const NETWORK: [&str; 8] = [
    "networking.service",
    "systemd-networkd.service",
    "NetworkManager.service",
    "nftables.service",
    "ufw.service",
    "firewalld.service",
    "netfilter-persistent.service",
    "iptables.service",
];
/// Groups that make a login root, by the distributions' own rules.
const POWER: [&str; 3] = ["sudo", "wheel", "admin"];
/// Who may log in is in these (passwd(5), shadow(5), group(5), gshadow(5)).
const ACCOUNTS: [&str; 4] = ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"];

/// Who logs in, and where their keys are.
struct Login<'a> {
    user: &'a str,
    home: String,
}

/// Guards a change that can cut the controller off, if its kind did not.
///
/// # Errors
/// The change takes away what no guard brings back, or what is missed only at the next boot: why it is refused.
pub(super) fn weigh(id: &ResourceId, mut plan: Plan, facts: &Facts) -> Result<Plan, String> {
    if plan.is_in_sync() || plan.guard.is_some() {
        return Ok(plan);
    }
    let user = facts.text("ansible_user_id");
    let home = match (facts.text("ansible_user_dir"), user) {
        ("", "root") => "/root".to_owned(),
        ("", user) => format!("/home/{user}"),
        (home, _) => home.to_owned(),
    };
    let login = Login { user, home };
    if let Some(what) = login.loses(id, &plan) {
        return Err(format!("{what}; if it is meant, a `command` does it"));
    }
    let Some((guard, check)) = login.guard(id, &plan) else { return Ok(plan) };
    plan.steps.extend(check);
    plan.guard = Some(guard);
    Ok(plan)
}

impl Login<'_> {
    /// What the change takes away for good.
    fn loses(&self, id: &ResourceId, plan: &Plan) -> Option<String> {
        let gone = |field: &str| plan.changes.iter().any(|change| change.field == field && change.after == Shown::Absent);
        let becomes = |field: &str, word: &str| {
            plan.changes.iter().any(|change| change.field == field && matches!(&change.after, Shown::Plain(after) if after == word))
        };
        match id.kind.as_str() {
            "package" if gone("package openssh-server") => Some("without `openssh-server` nobody can log in any more".to_owned()),
            "package" if gone("package sudo") && self.user != "root" => {
                Some(format!("without `sudo` the login user `{}` could not become root any more", self.user))
            }
            "user" if id.name == self.user && gone("user") => Some(format!("this run logs in as `{}`", self.user)),
            "service" if SSH.contains(&id.name.as_str()) && (becomes("enabled", "no") || becomes("masked", "yes")) => {
                Some(format!("without `{}` nobody could log in after the next boot", id.name))
            }
            // A tree's removal, or new owners all over it, which take `sudo` its right too.
            _ => plan.effects.iter().find_map(|effect| match effect {
                Effect::Tree(path) if self.is_above(path) && (removes(&plan.changes) || *path != self.home) => {
                    Some(format!("`{path}` holds what a login needs"))
                }
                _ => None,
            }),
        }
    }

    /// Whether a directory has the login user's home, the system's programs or its configuration in it.
    fn is_above(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        SYSTEM.iter().chain([&self.home.as_str()]).any(|kept| is_within(kept, path))
    }

    /// The guard for a change, and what is to be done last inside its window.
    fn guard(&self, id: &ResourceId, plan: &Plan) -> Option<(Guard, Option<Step>)> {
        if id.kind == "authorized_key" {
            let ours = id.name.strip_prefix(self.user).is_some_and(|rest| rest.starts_with(':'));
            let fewer = plan.changes.iter().any(|change| change.before != Shown::Absent);
            let keys = format!("{}/.ssh/authorized_keys", self.home);
            return (ours && fewer).then(|| (files(&format!("keys of `{}`", self.user), vec![keys], nothing(), KEYS), None));
        }
        plan.effects.iter().find_map(|effect| match effect {
            Effect::User(user) if user == self.user || user == "root" => {
                Some((files(&format!("the user `{user}`"), ACCOUNTS.map(str::to_owned).to_vec(), nothing(), ACCOUNT), None))
            }
            Effect::Group(group) if POWER.contains(&group.as_str()) => {
                Some((files(&format!("the group `{group}`"), ACCOUNTS.map(str::to_owned).to_vec(), nothing(), ACCOUNT), None))
            }
            Effect::Unit(unit) if SSH.contains(&unit.as_str()) || NETWORK.contains(&unit.as_str()) => Some((unit_guard(unit), None)),
            Effect::Path(path) if ["directory", "file"].contains(&id.kind.as_str()) && *path != self.home && self.is_above(path) => {
                Some((way_guard(path), None))
            }
            Effect::Path(path) | Effect::Tree(path) => self.file_guard(path),
            _ => None,
        })
    }

    fn file_guard(&self, path: &str) -> Option<(Guard, Option<Step>)> {
        let below = |dirs: &[&str]| dirs.iter().any(|dir| is_within(path, dir));
        let one = || vec![path.to_owned()];
        if below(&["/etc/ssh/ssh_config", "/etc/ssh/ssh_config.d", "/etc/ssh/ssh_known_hosts", "/etc/ssh/moduli"]) {
            return None;
        }
        if below(&["/etc/ssh"]) {
            let check =
                Script::sh("PATH=$PATH:/usr/sbin; command -v sshd >/dev/null || exit 0; mkdir -p /run/sshd; sshd -t || exit 95\n", &[]);
            let step = Step::new("check sshd's configuration and make it read it", check.append(sshd_config::reload()));
            return Some((files("sshd's configuration", one(), sshd_config::reload(), SSHD), Some(step)));
        }
        if below(&["/etc/sudoers", "/etc/sudoers.d", "/etc/sudo.conf"]) {
            let check = Script::sh("PATH=$PATH:/usr/sbin; command -v visudo >/dev/null || exit 0; visudo -c -q || exit 95\n", &[]);
            return Some((files("sudo's rules", one(), nothing(), SUDO), Some(Step::new("check all of sudo's rules", check))));
        }
        if below(&ACCOUNTS) || below(&HOW_USERS_LOG_IN) {
            return Some((files("how users log in", one(), nothing(), ACCOUNT), None));
        }
        if below(&["/etc/network", "/etc/netplan", "/etc/systemd/network", "/etc/systemd/networkd.conf", "/etc/NetworkManager"]) {
            return Some((files("the network's configuration", one(), network(), WAY), None));
        }
        if below(&["/etc/nftables.conf", "/etc/nftables.d"]) {
            return Some((files("the system's own firewall rules", one(), restart_if_active("nftables.service"), WAY), None));
        }
        if let Some(unit) = SSH
            .iter()
            .chain(&NETWORK)
            .find(|unit| below(&[&format!("/etc/systemd/system/{unit}"), &format!("/etc/systemd/system/{unit}.d")]))
        {
            return Some((files(&format!("the unit `{unit}`"), one(), restart_if_active(unit), WAY), None));
        }
        if below(&[&format!("{}/.ssh", self.home)]) {
            return Some((files(&format!("keys of `{}`", self.user), one(), nothing(), KEYS), None));
        }
        if below(&SHELLS_READ)
            || path.strip_prefix(&self.home).is_some_and(|rest| SHELLS_READ_AT_HOME.iter().any(|read| is_within(rest, read)))
        {
            return Some((files(&format!("what the shell of `{}` reads", self.user), one(), nothing(), SHELL), None));
        }
        // sshd's StrictModes: a home that others may write to lets nobody in.
        (path == self.home).then(|| (home_guard(path), None))
    }
}

const SSHD: &str = "sshd must go on to let the login user in, at the port and with the key of the inventory";
const SUDO: &str = "keep a rule that lets the login user become root the way the inventory says";
const ACCOUNT: &str = "the login user needs a shell, its key and its way to become root";
const KEYS: &str = "keep the key that the inventory logs in with";
const WAY: &str = "the controller must still reach sshd, from where it is now";
const SHELL: &str = "what a shell reads when it starts must neither end it nor wait, also where there is no terminal";
/// Directories without which nobody works on a host.
const SYSTEM: [&str; 9] = ["/etc", "/usr/bin", "/usr/sbin", "/usr/lib", "/bin", "/sbin", "/lib", "/dev", "/root"];
/// What bash, zsh, tcsh and fish read of the system's when sshd starts them, and what PAM sets for them.
const SHELLS_READ: [&str; 8] =
    ["/etc/profile", "/etc/profile.d", "/etc/bash.bashrc", "/etc/zsh", "/etc/csh.cshrc", "/etc/csh.login", "/etc/fish", "/etc/environment"];
/// The same below the home.
const SHELLS_READ_AT_HOME: [&str; 11] = [
    "/.bashrc",
    "/.bash_profile",
    "/.bash_login",
    "/.profile",
    "/.zshenv",
    "/.zshrc",
    "/.zprofile",
    "/.cshrc",
    "/.tcshrc",
    "/.config/fish",
    "/.ssh/rc",
];
const HOW_USERS_LOG_IN: [&str; 19] = [
    "/usr/sbin/sshd",
    "/usr/bin/sudo",
    "/usr/bin/sh",
    "/usr/bin/bash",
    "/usr/bin/dash",
    "/bin/sh",
    "/bin/bash",
    "/bin/dash",
    "/etc/ld.so.conf",
    "/etc/pam.d",
    "/etc/pam.conf",
    "/etc/nsswitch.conf",
    "/etc/security/access.conf",
    "/etc/security/time.conf",
    "/etc/security/faillock.conf",
    "/etc/nologin",
    "/etc/ld.so.preload",
    "/etc/hosts.allow",
    "/etc/hosts.deny",
];

/// Whether a path is a directory or something in it.
fn is_within(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn removes(changes: &[Change]) -> bool {
    changes.iter().any(|change| change.after == Shown::Absent || matches!(&change.after, Shown::Plain(after) if after == "absent"))
}

fn nothing() -> Script {
    Script::sh(":\n", &[])
}

fn restart_if_active(unit: &str) -> Script {
    Script::sh("systemctl daemon-reload; systemctl try-restart -- {}\n", &[unit])
}

fn network() -> Script {
    Script::sh(
        "systemctl daemon-reload; if command -v netplan >/dev/null; then netplan apply; fi\nsystemctl try-restart networking.service systemd-networkd.service NetworkManager.service 2>/dev/null\n",
        &[],
    )
}

fn files(what: &str, paths: Vec<String>, reload: Script, hint: &str) -> Guard {
    // Accounts and rules are in effect once they are written; the others once something was restarted.
    let handlers = [SSHD, WAY].contains(&hint);
    Guard { what: what.to_owned(), window: WINDOW, kind: GuardKind::Files { paths, reload }, handlers, hint: hint.to_owned() }
}

/// Puts a unit back to running or stopped, enabled or disabled, as it was.
fn unit_guard(unit: &str) -> Guard {
    let save = Script::sh(
        "systemctl is-active -- {} >\"$GUARD/active\"; systemctl is-enabled -- {} >\"$GUARD/enabled\" 2>/dev/null\n:\n",
        &[unit, unit],
    );
    let revert = Script::sh(
        "read -r enabled <\"$GUARD/enabled\"; read -r active <\"$GUARD/active\"\ncase $enabled in enabled|disabled|static|indirect|alias|generated) systemctl unmask -- {}; systemctl unmask --runtime -- {};; esac\ncase $enabled in enabled) systemctl enable -- {};; disabled) systemctl disable -- {};; masked) systemctl mask -- {};; esac\nif [ \"$active\" = active ]; then systemctl restart -- {}; else systemctl stop -- {}; fi\n",
        &[unit, unit, unit, unit, unit, unit, unit],
    );
    let kind = GuardKind::Runtime { save, revert, persist: nothing() };
    Guard { what: format!("the unit `{unit}`"), window: WINDOW, kind, handlers: true, hint: WAY.to_owned() }
}

/// Puts a directory's owner and mode back, without what is in it.
fn way_guard(path: &str) -> Guard {
    let save = Script::sh("stat -c '%a %u:%g' -- {} >\"$GUARD/directory\" || exit 74\n", &[path]);
    let revert = Script::sh("read -r mode owner <\"$GUARD/directory\"; chown -- \"$owner\" {}; chmod -- \"$mode\" {}\n", &[path, path]);
    let kind = GuardKind::Runtime { save, revert, persist: nothing() };
    Guard { what: format!("the directory `{path}`"), window: WINDOW, kind, handlers: false, hint: ACCOUNT.to_owned() }
}

/// Puts a home's owner and mode back, and its keys.
fn home_guard(home: &str) -> Guard {
    let save = Script::sh(
        "stat -c '%a %u:%g' -- {} >\"$GUARD/home\" || exit 74; if [ -e {}/.ssh ]; then cp -a -- {}/.ssh \"$GUARD/ssh\"; fi\n",
        &[home, home, home],
    );
    let revert = Script::sh(
        "read -r mode owner <\"$GUARD/home\"; chown -- \"$owner\" {}; chmod -- \"$mode\" {}; if [ -e \"$GUARD/ssh\" ]; then rm -rf -- {}/.ssh; cp -a -- \"$GUARD/ssh\" {}/.ssh; fi\n",
        &[home, home, home, home],
    );
    let kind = GuardKind::Runtime { save, revert, persist: nothing() };
    Guard { what: format!("the login user's home `{home}`"), window: WINDOW, kind, handlers: false, hint: ACCOUNT.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts() -> Facts {
        let vars = json!({"ansible_user_id": "ops", "ansible_user_dir": "/home/ops"});
        Facts::from_vars(vars.as_object().cloned().unwrap_or_default())
    }

    fn weighed(kind: &str, name: &str, change: Change, effect: Effect) -> Result<Option<String>, String> {
        let plan = Plan::in_sync().change(change).step(Step::new("x", nothing())).effect(effect);
        weigh(&ResourceId::new(kind, name), plan, &facts()).map(|plan| plan.guard.map(|guard| guard.what))
    }

    fn edit() -> Change {
        Change::of("content", "a", "b")
    }

    #[test]
    fn what_a_login_depends_on_is_guarded_whatever_changes_it() {
        for (kind, name, effect, what) in [
            ("copy", "x", Effect::Path("/etc/ssh/sshd_config.d/x.conf".into()), "sshd's configuration"),
            ("lineinfile", "x", Effect::Path("/etc/sudoers".into()), "sudo's rules"),
            ("template", "x", Effect::Path("/etc/pam.d/sshd".into()), "how users log in"),
            ("file", "x", Effect::Tree("/home/ops/.ssh/authorized_keys".into()), "keys of `ops`"),
            ("copy", "x", Effect::Path("/etc/netplan/50.yaml".into()), "the network's configuration"),
            ("copy", "x", Effect::Path("/etc/systemd/system/ssh.service.d/x.conf".into()), "the unit `ssh.service`"),
            ("directory", "x", Effect::Path("/home/ops".into()), "the login user's home `/home/ops`"),
            ("directory", "x", Effect::Tree("/home/ops".into()), "the login user's home `/home/ops`"),
            ("directory", "x", Effect::Path("/home".into()), "the directory `/home`"),
            ("file", "x", Effect::Path("/".into()), "the directory `/`"),
            ("copy", "x", Effect::Path("/home/ops/.bashrc".into()), "what the shell of `ops` reads"),
            ("copy", "x", Effect::Path("/etc/profile.d/x.sh".into()), "what the shell of `ops` reads"),
            ("copy", "x", Effect::Path("/usr/bin/sudo".into()), "how users log in"),
            ("user", "ops", Effect::User("ops".into()), "the user `ops`"),
            ("group", "sudo", Effect::Group("sudo".into()), "the group `sudo`"),
            ("service", "ssh.service", Effect::Unit("ssh.service".into()), "the unit `ssh.service`"),
            ("service", "nftables.service", Effect::Unit("nftables.service".into()), "the unit `nftables.service`"),
            ("authorized_key", "ops: abc", Effect::Raw("x".into()), "keys of `ops`"),
        ] {
            assert_eq!(weighed(kind, name, edit(), effect), Ok(Some(what.to_owned())), "{kind} {name}");
        }
    }

    #[test]
    fn everything_else_is_not() {
        for (kind, name, effect) in [
            ("copy", "x", Effect::Path("/etc/ssh/ssh_config.d/x.conf".into())),
            ("copy", "x", Effect::Path("/etc/sshd".into())),
            ("copy", "x", Effect::Path("/home/other/.ssh/authorized_keys".into())),
            ("copy", "x", Effect::Path("/home/ops/.bashrcx".into())),
            ("directory", "x", Effect::Path("/usr/bin/x".into())),
            ("user", "other", Effect::User("other".into())),
            ("group", "docker", Effect::Group("docker".into())),
            ("service", "nginx.service", Effect::Unit("nginx.service".into())),
            ("authorized_key", "opsy: abc", Effect::Raw("x".into())),
        ] {
            assert_eq!(weighed(kind, name, edit(), effect), Ok(None), "{kind} {name}");
        }
        // One more key keeps nobody out.
        assert_eq!(weighed("authorized_key", "ops: abc", Change::add("key", "k"), Effect::Raw("x".into())), Ok(None));
    }

    #[test]
    fn what_no_guard_brings_back_is_refused() {
        let tree = |path: &str| Effect::Tree(path.to_owned());
        let absent = || Change::of("state", "directory", "absent");
        for (kind, name, change, effect) in [
            ("package", "sudo", Change::remove("package sudo", "1"), Effect::Package("sudo".into())),
            ("package", "openssh-server", Change::remove("package openssh-server", "1"), Effect::Package("openssh-server".into())),
            ("user", "ops", Change::remove("user", "ops"), Effect::User("ops".into())),
            ("service", "ssh.service", Change::of("enabled", "yes", "no"), Effect::Unit("ssh.service".into())),
            ("file", "x", absent(), tree("/home/ops")),
            ("file", "x", absent(), tree("/home/")),
            ("file", "x", absent(), tree("/etc")),
        ] {
            assert!(weighed(kind, name, change, effect).is_err(), "{kind} {name}");
        }
        assert!(weighed("directory", "/usr", edit(), tree("/usr")).is_err(), "new owners below");
        assert_eq!(weighed("file", "x", absent(), tree("/home/ops/data")), Ok(None));
        assert_eq!(weighed("package", "nginx", Change::remove("package nginx", "1"), Effect::Package("nginx".into())), Ok(None));
    }
}
