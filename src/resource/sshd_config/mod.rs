//! The `sshd_config` kind: options of the SSH server.
//!
//! It owns the drop-in `/etc/ssh/sshd_config.d/10-soc-provision.conf` and whether its values are
//! the ones in effect, by sshd's own account (`sshd -T`). It leaves alone every other file of sshd;
//! one that says otherwise first is named in the refusal. A change is guarded: the old file comes
//! back unless a new login confirms the new one.

mod options;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::facts::Facts;
use crate::resource::argument::{GuardTimeout, Presence};
use crate::resource::own_file::OwnFile;
use crate::resource::plan::{Change, Effect, Guard, GuardKind, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Question, Resource, ResourceId, Severity, View};
use crate::secret::Text;
use crate::shell::Script;

/// The drop-in: Debian's own file includes the directory first, and sshd takes the first value.
const PATH: &str = "/etc/ssh/sshd_config.d/10-soc-provision.conf";

/// Options of the SSH server, in a drop-in that is validated with the rest of its configuration.
/// A change is undone by the host itself unless a new login confirms it.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SshdConfig {
    /// Options by their names in `sshd_config(5)`; true and false stand for `yes` and `no`.
    #[serde(default)]
    options: Map<String, Value>,
    /// `absent` removes the drop-in: sshd goes by its other files again. It takes no `options`.
    #[serde(default)]
    state: Presence,
    /// Seconds that the host waits for the confirming login before it puts the old file back.
    #[serde(default)]
    guard_timeout: GuardTimeout,
}

impl Kind for SshdConfig {
    const NAME: &'static str = "sshd_config";
    const EXAMPLE: &'static str = "\
sshd_config:
  options: {PermitRootLogin: prohibit-password, PasswordAuthentication: false, AllowTcpForwarding: local}
";

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let wanted = self.state == Presence::Present;
        if wanted && self.options.is_empty() {
            return Err(BuildError::field("options", "names no option"));
        }
        if !wanted && !self.options.is_empty() {
            return Err(BuildError::field("options", "cannot go with `state: absent`, which takes all of them away"));
        }
        let window = self.guard_timeout.window()?;
        // An empty drop-in is to sshd what none is: the probe and the validator need no other way.
        let content = if wanted { options::render(&self.options)? } else { String::new() };
        Ok(vec![Box::new(SshdDropIn { file: OwnFile::readable(PATH, content), keys: options::keys(&self.options), wanted, window })])
    }
}

/// The drop-in on a host.
#[derive(Debug)]
struct SshdDropIn {
    file: OwnFile,
    /// The options' names as `sshd -T` prints them.
    keys: Vec<String>,
    wanted: bool,
    window: Duration,
}

/// Runs code with the candidate in its place, in a mount namespace of its own, where `/run` is
/// private too: sshd wants `/run/sshd`, which is not there while nobody is logged in.
fn with_candidate(content: &str, code: &'static str) -> Script {
    Script::new().payload(&Text::plain(content)).then(" | unshare -m sh -c {} sh 2>&1\n", &[code])
}

/// Prints what sshd goes by now, what it would go by, what the candidate alone comes to, and where
/// else the options are set.
const PROBE: &str = r###"export LC_ALL=C
d=/etc/ssh/sshd_config.d c=10-soc-provision.conf
command -v sshd >/dev/null || PATH=$PATH:/usr/sbin; command -v sshd >/dev/null || { echo "##missing"; exit 0; }
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -m 755 /run/sshd /run/d && cat >/run/c || exit 1
echo "##now"; sshd -T || echo "##invalid"
[ -d $d ] || { echo "##end"; exit 0; }
cp -p $d/* /run/d/ 2>/dev/null; cp /run/c /run/d/$c && mount --bind /run/d $d || exit 1
echo "##then"; sshd -T || echo "##invalid"
echo "##ours"; sshd -T -f /run/c || echo "##invalid"
echo "##set"; grep -nE "^[[:space:]]*[A-Za-z]" /etc/ssh/sshd_config $d/*.conf | grep -v "/$c:"
echo "##end""###;

const VALIDATE: &str = r"d=/etc/ssh/sshd_config.d c=10-soc-provision.conf
PATH=$PATH:/usr/sbin
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -m 755 /run/sshd /run/d && cat >/run/c || exit 1
cp -p $d/* /run/d/ 2>/dev/null; cp /run/c /run/d/$c && mount --bind /run/d $d && sshd -t";

/// Makes a running sshd read its files again. Where systemd listens in its place, the ports are
/// the socket unit's.
pub(crate) fn reload() -> Script {
    Script::sh(
        r"systemctl daemon-reload
if systemctl is-active --quiet ssh.socket; then systemctl restart ssh.socket
elif systemctl cat ssh.service >/dev/null 2>&1; then systemctl reload-or-restart ssh.service
else systemctl reload-or-restart sshd.service; fi
",
        &[],
    )
}

/// An option's values, lines in order, by its name in lower case.
type Effective = BTreeMap<String, Vec<String>>;

/// What the probe printed.
#[derive(Debug, Default)]
struct Probed {
    missing: bool,
    sections: BTreeMap<String, Result<Effective, String>>,
    /// `FILE:LINE:OPTION VALUE` of other files.
    set: Vec<String>,
}

impl Probed {
    fn parse(output: &str) -> Result<Self, Undecided> {
        let mut probed = Self::default();
        let mut lines: BTreeMap<&str, (bool, Vec<&str>)> = BTreeMap::new();
        let mut section = "";
        for line in output.lines() {
            match line.strip_prefix("##") {
                Some("invalid") => lines.entry(section).or_default().0 = true,
                Some(name) => section = name,
                None => lines.entry(section).or_default().1.push(line),
            }
        }
        match section {
            "missing" => probed.missing = true,
            "end" => {}
            _ => {
                return Err(Undecided::Unknown(format!(
                    "sshd's configuration could not be read: {}",
                    output.lines().last().unwrap_or("no output")
                )));
            }
        }
        for (name, (invalid, lines)) in lines {
            if name == "set" {
                probed.set = lines.into_iter().map(str::to_owned).collect();
            } else {
                let section = if invalid { Err(lines.join("; ")) } else { Ok(effective(&lines)) };
                probed.sections.insert(name.to_owned(), section);
            }
        }
        Ok(probed)
    }

    fn section(&self, name: &str) -> Result<&Effective, Undecided> {
        match self.sections.get(name) {
            Some(Ok(effective)) => Ok(effective),
            Some(Err(reason)) => Err(Undecided::Refused(format!("sshd refuses the options: {}", reason.replace("/run/c", PATH)))),
            None => Err(Undecided::Refused("the host has no `/etc/ssh/sshd_config.d`: its sshd is too old for drop-ins".to_owned())),
        }
    }

    /// Where another file sets an option, for messages.
    fn set_elsewhere(&self, key: &str) -> String {
        let sets = |line: &&String| {
            let option = line.splitn(3, ':').nth(2).unwrap_or_default();
            option.split([' ', '\t', '=']).find(|word| !word.is_empty()).is_some_and(|word| word.eq_ignore_ascii_case(key))
        };
        let place = |line: &String| line.splitn(3, ':').take(2).collect::<Vec<_>>().join(":");
        let mut places: Vec<String> = self.set.iter().filter(sets).map(place).collect();
        // Drop-ins are read in order, before the rest of the main file: one ahead of ours is to blame.
        if places.iter().any(|place| place.as_str() < PATH && place.starts_with("/etc/ssh/sshd_config.d/")) {
            places.retain(|place| place.as_str() < PATH && place.starts_with("/etc/ssh/sshd_config.d/"));
        }
        if places.is_empty() { "its configuration does not include the drop-in first".to_owned() } else { places.join(", ") }
    }
}

fn effective(lines: &[&str]) -> Effective {
    let mut effective = Effective::new();
    for line in lines {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        effective.entry(key.to_ascii_lowercase()).or_default().push(value.to_owned());
    }
    effective
}

impl SshdDropIn {
    fn question(&self) -> Question {
        Question::Raw { key: "sshd_config".to_owned(), script: with_candidate(&self.file.content, PROBE) }
    }

    /// Refuses if another file has the say over an option.
    fn refuse_shadowed(&self, probed: &Probed) -> Result<(), Undecided> {
        let (ours, then) = (probed.section("ours")?, probed.section("then")?);
        for key in &self.keys {
            let has = then.get(key).map_or(&[][..], Vec::as_slice);
            let lost = ours.get(key).and_then(|values| values.iter().find(|value| !has.contains(value)));
            if let Some(value) = lost {
                return Err(Undecided::Refused(format!(
                    "sshd would go on with `{key} {}` instead of `{value}`: set first in {}; take it out there",
                    has.join(" "),
                    probed.set_elsewhere(key)
                )));
            }
        }
        Ok(())
    }

    /// How what sshd goes by will differ.
    fn effective_changes(&self, probed: &Probed) -> Result<Vec<Change>, Undecided> {
        let then = probed.section("then")?;
        let Ok(now) = probed.section("now") else {
            return Ok(vec![Change::of("sshd", "its configuration is invalid", "valid")]);
        };
        let shown = |effective: &Effective, key: &String| effective.get(key).map(|values| values.join(" ")).unwrap_or_default();
        // What goes by removal is whatever the drop-in said.
        let all: BTreeSet<&String> = if self.wanted { self.keys.iter().collect() } else { now.keys().chain(then.keys()).collect() };
        let changed = all.into_iter().filter(|key| now.get(*key) != then.get(*key));
        Ok(changed.map(|key| Change::of(key, shown(now, key), shown(then, key))).collect())
    }
}

impl SshdDropIn {
    /// The way back to what sshd's other files say.
    fn removal(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        if view.path(PATH)?.is_none() {
            return Ok(Plan::in_sync());
        }
        let probed = Probed::parse(&view.raw(&self.question())?.stdout)?;
        let mut plan = Plan::in_sync().change(Change::remove("file", PATH));
        if probed.missing {
            // Nothing runs that could be locked out of.
            return Ok(plan.step(Step::new(format!("remove {PATH}"), self.file.remove())).effect(Effect::Path(PATH.to_owned())));
        }
        plan.changes.extend(self.effective_changes(&probed)?);
        plan.steps.push(Step::new(format!("remove {PATH}"), self.file.remove()));
        Ok(self.guarded(plan))
    }

    /// Completes a plan: validated before, reloaded after, undone unless a new login confirms it.
    fn guarded(&self, mut plan: Plan) -> Plan {
        plan.validate = Some(with_candidate(&self.file.content, VALIDATE));
        plan.steps.push(Step::new("reload sshd", reload()));
        plan.effects = vec![Effect::Path(PATH.to_owned()), Effect::Raw("sshd_config".to_owned())];
        plan.guard = Some(Guard {
            what: "sshd's configuration".to_owned(),
            window: self.window,
            kind: GuardKind::Files { paths: vec![PATH.to_owned()], reload: reload() },
            handlers: true,
            hint: "check `Port`, `AllowUsers` and the authentication options against how you log in, or raise `guard_timeout`".to_owned(),
        });
        plan
    }
}

impl Resource for SshdDropIn {
    fn id(&self) -> ResourceId {
        ResourceId::new(SshdConfig::NAME, PATH)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let mut questions = self.file.questions().to_vec();
        questions.extend([self.question(), Question::Package("openssh-server".to_owned())]);
        questions
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        if !self.wanted {
            return self.removal(view);
        }
        let probed = Probed::parse(&view.raw(&self.question())?.stdout)?;
        if probed.missing {
            view.package("openssh-server")?;
            return Err(Undecided::Refused("the host has no `sshd`".to_owned()));
        }
        self.refuse_shadowed(&probed)?;
        let mut plan = Plan { changes: self.effective_changes(&probed)?, ..Plan::default() };
        plan.changes.extend(self.file.changes(view)?);
        if plan.changes.is_empty() {
            return Ok(plan);
        }
        plan.steps.push(Step::new(format!("write {PATH}"), self.file.write(view)?));
        Ok(self.guarded(plan))
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        if self.wanted { vec![Claim::Path(PATH.to_owned())] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests;
