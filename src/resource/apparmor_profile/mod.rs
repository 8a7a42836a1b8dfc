//! The `apparmor_profile` kind: what programs and containers may touch.
//!
//! It owns `/etc/apparmor.d/NAME` and what the kernel holds under that name, compared by the digest
//! of the compiled policy, and it looks at what containers really run under. It leaves alone which
//! containers ask for the profile: that is their stack's `security_opt`.

mod host;
mod lint;
mod text;

use crate::facts::Facts;
use crate::resource::apparmor_profile::host::Probed;
use crate::resource::apparmor_profile::lint::{Code, lint};
use crate::resource::apparmor_profile::text::{ProfileText, statements};
use crate::resource::argument::{IfMissing, Presence};
use crate::resource::own_file::OwnFile;
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Question, Resource, ResourceId, Severity, View, running, source_text};

/// An AppArmor profile: linted, compiled before it replaces anything, loaded, and back after a
/// reboot. Containers take it by `security_opt: [apparmor=NAME]`.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppArmorProfile {
    /// The profile's name, and its file's in `/etc/apparmor.d`.
    name: String,
    /// The profile.
    content: Option<String>,
    /// A file of the role.
    src: Option<String>,
    /// A template of the role.
    template: Option<String>,
    /// `enforce`, or `complain` to log only.
    #[serde(default)]
    mode: Mode,
    /// `absent` unloads and removes it; refused while anything runs under it.
    #[serde(default)]
    state: Presence,
    /// On a host without AppArmor, Docker runs the containers *unconfined and says nothing*:
    /// `fail`, or `warn` and go on.
    #[serde(default)]
    if_missing: IfMissing,
    /// Findings of the lint to let pass, by name.
    #[serde(default)]
    accept: Vec<Code>,
}

/// What a breach comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// It is denied.
    #[default]
    Enforce,
    /// It is logged.
    Complain,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Complain => "complain",
        }
    }
}

impl Kind for AppArmorProfile {
    const NAME: &'static str = "apparmor_profile";
    const EXAMPLE: &'static str = "apparmor_profile: {name: docker-waf, src: docker-waf}\n";

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        source_text::file_name(&self.name)?;
        let (mode, if_missing) = (self.mode, self.if_missing);
        let text = if self.state == Presence::Absent {
            None
        } else {
            Some(source_text::text(self.content, self.src.as_deref(), self.template.as_deref(), context.sources)?)
        };
        let text = text.map(|text| checked(&text, &self.name, mode, &self.accept)).transpose()?;
        let file = OwnFile::readable(format!("/etc/apparmor.d/{}", self.name), text.clone().unwrap_or_default());
        Ok(vec![Box::new(AppArmorPolicy { name: self.name, file, wanted: text.is_some(), mode, if_missing })])
    }
}

/// The text as it goes to the host, if the lint has nothing against it.
fn checked(text: &str, name: &str, mode: Mode, accepted: &[Code]) -> Result<String, BuildError> {
    let findings = lint(text, name).map_err(BuildError::from)?;
    let reasons: Vec<String> =
        findings.into_iter().filter(|finding| !accepted.contains(&finding.code)).map(|finding| finding.message).collect();
    if !reasons.is_empty() {
        return Err(BuildError::from(format!("AppArmor profile `{name}` is refused: {}", reasons.join("; ")))
            .hint("start from `roles/apparmor/files/docker-waf`, or accept a finding by its name in `accept`"));
    }
    let Some(profile) = ProfileText::find(&statements(text), name) else {
        return Ok(text.to_owned());
    };
    if let Some(flag) = profile.flags.iter().find(|flag| matches!(flag.as_str(), "complain" | "unconfined" | "default_allow" | "prompt"))
        && mode == Mode::Enforce
    {
        return Err(BuildError::from(format!("line {}: the flag `{flag}` keeps profile `{name}` from being enforced", profile.head.line))
            .hint("take the flag out, or set `mode: complain`"));
    }
    Ok(if mode == Mode::Complain { profile.complaining(text) } else { text.to_owned() })
}

/// One profile on a host.
#[derive(Debug)]
struct AppArmorPolicy {
    name: String,
    file: OwnFile,
    wanted: bool,
    mode: Mode,
    if_missing: IfMissing,
}

impl AppArmorPolicy {
    fn question(&self) -> Question {
        Question::Raw { key: format!("apparmor {}", self.name), script: host::probe(&self.name, &self.file.content) }
    }

    fn effects(&self) -> Vec<Effect> {
        vec![Effect::Path(self.file.path.clone()), Effect::Raw(format!("apparmor {}", self.name))]
    }

    /// A host whose kernel does not enforce AppArmor.
    fn without_apparmor(&self) -> Result<Plan, Undecided> {
        let reason =
            format!("AppArmor is off on this host: Docker would run containers that ask for `{}` unconfined, and say nothing", self.name);
        match self.if_missing {
            IfMissing::Warn => Ok(Plan::in_sync().note(reason)),
            IfMissing::Fail => Err(Undecided::Refused(format!(
                "{reason}; boot the host with `apparmor=1 security=apparmor`, or set `if_missing: warn` to go on without"
            ))),
        }
    }

    fn plan_present(&self, probed: &Probed, view: &View<'_>) -> Result<Plan, Undecided> {
        let mut plan = Plan { changes: self.file.changes(view)?, ..Plan::default() };
        match &probed.loaded {
            None => plan.changes.push(Change::add("loaded", self.mode.as_str())),
            Some(loaded) => {
                if loaded.mode != self.mode.as_str() {
                    plan.changes.push(Change::of("mode", &loaded.mode, self.mode.as_str()));
                }
                match &loaded.digest {
                    None => plan
                        .notes
                        .push("the kernel does not give out the digest of the loaded policy: only its mode was compared".to_owned()),
                    Some(digest) if *digest != probed.wanted => {
                        plan.changes.push(Change::of("loaded policy", short(digest), short(&probed.wanted)))
                    }
                    Some(_) => {}
                }
            }
        }
        if !plan.changes.is_empty() {
            plan.validate = Some(host::validate(&self.file.content));
            plan.steps.push(Step::new(format!("load AppArmor profile {}", self.name), host::load(&self.file, self.file.write(view)?)));
            plan.effects = self.effects();
        }
        for (container, label) in self.astray(probed, view)? {
            plan.changes.push(Change::of(format!("container {}", container.name), label, &self.name));
            plan.steps.push(container.restart());
            plan.effects.push(Effect::Raw(format!("apparmor {}", self.name)));
        }
        Ok(plan)
    }

    /// Containers that asked for the profile and run under another, or none: after an unload they
    /// stay unconfined until they are started anew.
    fn astray(&self, probed: &Probed, view: &View<'_>) -> Result<Vec<(running::Container, String)>, Undecided> {
        let asked = running::containers(view)?.into_iter().filter(|container| container.security_option("apparmor") == Some(&self.name));
        let labelled = asked.map(|container| (probed.label(container.pid), container));
        Ok(labelled.filter(|(label, _)| *label != self.name).map(|(label, container)| (container, label)).collect())
    }

    fn plan_absent(&self, probed: &Probed, view: &View<'_>) -> Result<Plan, Undecided> {
        let there = view.path(&self.file.path)?.is_some();
        if !there && probed.loaded.is_none() {
            return Ok(Plan::in_sync());
        }
        let users = probed.pids_under(&self.name);
        if !users.is_empty() {
            let containers = running::containers(view)?;
            let names = users.iter().map(|pid| {
                let container = containers.iter().find(|container| container.pid == *pid);
                container.map_or_else(|| format!("process {pid}"), |container| format!("container `{}`", container.name))
            });
            return Err(Undecided::Refused(format!(
                "AppArmor profile `{}` is in use by {}: without it they would go on unconfined; stop them, or start them without it, first",
                self.name,
                names.collect::<Vec<_>>().join(", ")
            )));
        }
        let mut plan = Plan { effects: self.effects(), ..Plan::default() };
        plan.changes.extend(probed.loaded.as_ref().map(|loaded| Change::remove("loaded", &loaded.mode)));
        plan.changes.extend(there.then(|| Change::remove("file", &self.file.path)));
        Ok(plan.step(Step::new(format!("unload AppArmor profile {}", self.name), host::unload(&self.name, &self.file))))
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

impl Resource for AppArmorPolicy {
    fn id(&self) -> ResourceId {
        ResourceId::new(AppArmorProfile::NAME, &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let mut questions = self.file.questions().to_vec();
        questions.extend([self.question(), host::labels(), Question::Containers, Question::Package("apparmor".to_owned())]);
        questions
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let probed = Probed::parse(&view.raw(&self.question())?.stdout, &view.raw(&host::labels())?.stdout);
        if !self.wanted {
            return self.plan_absent(&probed, view);
        }
        if !probed.enabled {
            return self.without_apparmor();
        }
        if probed.parser_missing {
            view.package("apparmor")?;
            return Err(Undecided::Refused(
                "`apparmor_parser` is not on the host; install package `apparmor` before its profiles".to_owned(),
            ));
        }
        self.plan_present(&probed, view)
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        if self.wanted { vec![Claim::Path(self.file.path.clone())] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests;
