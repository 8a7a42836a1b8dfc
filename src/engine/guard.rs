//! Guards: no change can cut the controller off for longer than its window (DESIGN 8.1, 8.2).
//!
//! Before a guarded step a timer on the host is armed that puts the old state back. Only a new
//! login over the same path disarms it. For files that are the persistence themselves a boot
//! unit restores them too, should the host reboot inside the window.

use crate::engine::lock::STATE_DIR;
use crate::resource::plan::{Guard, GuardKind};
use crate::shell::Script;

/// The unit that restores at boot what a guard left unconfirmed.
pub(super) const BOOT_UNIT: &str = "[Unit]
Description=Restore what soc-provision changed and nobody confirmed
DefaultDependencies=no
After=local-fs.target
Before=network-pre.target ssh.service sshd.service docker.service sysinit.target
ConditionPathExistsGlob=/var/lib/soc-provision/guard/*/restore-at-boot

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'for g in /var/lib/soc-provision/guard/*/; do [ -e \"$g/restore-at-boot\" ] && BOOT=1 /bin/sh \"$g/revert.sh\"; done; exit 0'

[Install]
WantedBy=sysinit.target
";

/// Saves the old state and arms the timer. Exits 69 if the host has no systemd to arm one.
#[must_use]
pub fn arm(id: &str, guard: &Guard) -> Script {
    let seconds = guard.window.as_secs().max(5).to_string();
    let script = Script::sh(
        "umask 077; [ -d /run/systemd/system ] || { echo 'no systemd: nothing here can revert the change' >&2; exit 69; }\nGUARD={}; export GUARD\nfor g in {}/*/; do [ ! -e \"$g/reverted\" ] || rm -rf -- \"$g\"; done\nrm -rf \"$GUARD\"; mkdir -p \"$GUARD/files\" && cat /proc/sys/kernel/random/boot_id >\"$GUARD/boot\" || exit 74\n",
        &[&directory(id), &format!("{STATE_DIR}/guard")],
    );
    let (script, body) = match &guard.kind {
        GuardKind::Runtime { save, revert, .. } => {
            let script = script.then("(\n", &[]).append(save.clone()).then("\n) || exit 1\n", &[]);
            (script, revert.clone())
        }
        GuardKind::Files { paths, reload } => save_files(script, paths, reload),
    };
    script
        .then("{ cat <<'SOC-PROVISION-REVERT'\n", &[])
        .append(revert_script(id, body))
        .then(
            "\nSOC-PROVISION-REVERT\n} >\"$GUARD/revert.sh\" || exit 74\n: >\"$GUARD/armed\"; sync \"$GUARD/revert.sh\" \"$GUARD\" 2>/dev/null\nu=soc-provision-guard-{}\nsystemctl stop \"$u.timer\" \"$u.service\" 2>/dev/null; systemctl reset-failed \"$u.service\" 2>/dev/null\nsystemd-run --quiet --unit=\"$u\" --on-active={} --timer-property=AccuracySec=500ms /bin/sh \"$GUARD/revert.sh\"\n",
            &[id, &seconds],
        )
}

fn save_files(script: Script, paths: &[String], reload: &Script) -> (Script, Script) {
    let mut save = script;
    let mut restore = Script::new();
    for (number, path) in paths.iter().enumerate() {
        let number = number.to_string();
        save = save.then("if [ -e {} ] || [ -L {} ]; then cp -a -- {} \"$GUARD/files/{}\" || exit 74; fi\n", &[path, path, path, &number]);
        restore = restore.then(
            "if [ -e \"$GUARD/files/{}\" ] || [ -L \"$GUARD/files/{}\" ]; then rm -rf -- {}.soc-guard; cp -a -- \"$GUARD/files/{}\" {}.soc-guard && rm -rf -- {} && mv -fT -- {}.soc-guard {}; else rm -rf -- {}; fi\n",
            &[&number, &number, path, &number, path, path, path, path, path],
        );
    }
    let save = save
        .then("unit=/etc/systemd/system/soc-provision-guard.service\nprintf %s {} >\"$unit.new\" && chmod 0644 \"$unit.new\"", &[BOOT_UNIT])
        .then(
            "\nif cmp -s \"$unit.new\" \"$unit\"; then rm -f \"$unit.new\"; else mv -f \"$unit.new\" \"$unit\"; systemctl daemon-reload; fi\nsystemctl enable --quiet soc-provision-guard.service || exit 1\n: >\"$GUARD/restore-at-boot\"; sync\n",
            &[],
        );
    let restore = restore.then("sync\nif [ -z \"$BOOT\" ]; then\n", &[]).append(reload.clone()).then("\n:\nfi\n", &[]);
    (save, restore)
}

/// What the timer runs: under a lock against the confirming login, and at most once.
fn revert_script(id: &str, body: Script) -> Script {
    Script::sh(
        "GUARD={}; export GUARD; PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH\nexec 8>>\"$GUARD/lock\"; flock 8\n[ -e \"$GUARD/armed\" ] || exit 0\n(\n",
        &[&directory(id)],
    )
    .append(body)
    .then("\n)\nmv -f \"$GUARD/armed\" \"$GUARD/reverted\"; rm -f \"$GUARD/restore-at-boot\"\n", &[])
}

/// Run over the confirming login: disarms, unless the timer was first. Prints `confirmed` or
/// `reverted`; persists what a reboot would forget. A host that rebooted since is put back whole.
#[must_use]
pub fn confirm(id: &str, guard: &Guard) -> Script {
    // No directory: an earlier try got through, and only its answer was lost.
    let script = Script::sh("GUARD={}; export GUARD\n[ -d \"$GUARD\" ] || { echo confirmed; exit 0; }\n", &[&directory(id)])
        .then(REBOOTED, &[])
        .then("if [ -e \"$GUARD/armed\" ] && [ -n \"$rebooted\" ]; then /bin/sh \"$GUARD/revert.sh\"; fi\n", &[])
        .then(
            "if ( exec 8>>\"$GUARD/lock\"; flock 8; [ -e \"$GUARD/confirmed\" ] || mv \"$GUARD/armed\" \"$GUARD/confirmed\" 2>/dev/null ); then\n  rm -f \"$GUARD/restore-at-boot\"; u=soc-provision-guard-{}; systemctl stop \"$u.timer\" 2>/dev/null; systemctl reset-failed \"$u.service\" 2>/dev/null\n(\n",
            &[id],
        );
    let script = match &guard.kind {
        GuardKind::Runtime { persist, .. } => script.append(persist.clone()),
        GuardKind::Files { .. } => script,
    };
    script.then("\n:\n) && { rm -rf \"$GUARD\"; echo confirmed; }\nelse echo reverted; fi\n", &[])
}

/// Sets `$rebooted` if the host was started anew since the guard was armed.
const REBOOTED: &str = "read -r now </proc/sys/kernel/random/boot_id; was=; [ ! -r \"$GUARD/boot\" ] || read -r was <\"$GUARD/boot\"; rebooted=; [ \"$now\" = \"$was\" ] || rebooted=1\n";

/// Reads how a guard ended, over whatever connection there is: `armed`, `reverted`, `rebooted`
/// (reverted by that), `unpersisted` (confirmed, but not kept for the next boot) or `gone`.
#[must_use]
pub fn state(id: &str) -> Script {
    Script::sh("GUARD={}\n", &[&directory(id)]).then(REBOOTED, &[]).then(
        "if [ -e \"$GUARD/reverted\" ]; then if [ -n \"$rebooted\" ]; then echo rebooted; else echo reverted; fi\nelif [ -e \"$GUARD/armed\" ]; then echo armed; elif [ -e \"$GUARD/confirmed\" ]; then echo unpersisted; else echo gone; fi\n",
        &[],
    )
}

/// Puts the old state back at once, because a step failed inside the window.
#[must_use]
pub fn revert_now(id: &str) -> Script {
    Script::sh("u=soc-provision-guard-{}; systemctl stop \"$u.timer\" 2>/dev/null; /bin/sh {}/revert.sh\n", &[id, &directory(id)])
}

fn directory(id: &str) -> String {
    format!("{STATE_DIR}/guard/{id}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::secret::Vault;

    fn guard(kind: GuardKind) -> Guard {
        Guard { what: "sshd".into(), window: Duration::from_secs(30), kind, handlers: true, hint: String::new() }
    }

    #[test]
    fn scripts_are_valid_shell() {
        let files = guard(GuardKind::Files { paths: vec!["/etc/ssh/it's".into()], reload: Script::sh("systemctl reload ssh", &[]) });
        let runtime = guard(GuardKind::Runtime {
            save: Script::sh("nft list ruleset >\"$GUARD/prev\"", &[]),
            revert: Script::sh("nft -f \"$GUARD/prev\"", &[]),
            persist: Script::sh("true", &[]),
        });
        for script in
            [arm("g1", &files), arm("g2", &runtime), confirm("g1", &files), confirm("g2", &runtime), revert_now("g1"), state("g1")]
        {
            let text = script.fill(&Vault::default()).unwrap();
            let out = std::process::Command::new("/bin/sh").args(["-n", "-c"]).arg(&*text).output().unwrap();
            assert!(out.status.success(), "{}\n{}", &*text, String::from_utf8_lossy(&out.stderr));
        }
    }
}
