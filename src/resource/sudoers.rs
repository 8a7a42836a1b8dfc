//! The `sudoers` kind: who may become whom.
//!
//! It owns a file of its own in `/etc/sudoers.d`. It leaves alone `/etc/sudoers`; that the whole
//! stays valid is checked by `visudo`, and a change is guarded: the old file comes back unless a
//! new login that becomes root again confirms it.

use std::time::Duration;

use crate::facts::Facts;
use crate::resource::argument::{GuardTimeout, Presence};
use crate::resource::own_file::OwnFile;
use crate::resource::plan::{Change, Effect, Guard, GuardKind, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Question, Resource, ResourceId, Severity, View, source_text};
use crate::secret::Text;
use crate::shell::Script;

/// A file in `/etc/sudoers.d`, validated before it counts. A change is undone by the host itself
/// unless a new login, as root again, confirms it.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sudoers {
    /// The file's name. sudo skips names with a dot.
    name: String,
    /// The rules.
    content: Option<String>,
    /// A file of the role.
    src: Option<String>,
    /// A template of the role.
    template: Option<String>,
    /// `absent` removes the file.
    #[serde(default)]
    state: Presence,
    /// Seconds that the host waits for the confirming login before it puts the old file back.
    #[serde(default)]
    guard_timeout: GuardTimeout,
}

impl Kind for Sudoers {
    const NAME: &'static str = "sudoers";
    const EXAMPLE: &'static str = "sudoers: {name: deploy, content: \"deploy ALL=(ALL) NOPASSWD: ALL\"}\n";

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        source_text::file_name(&self.name)?;
        let window = self.guard_timeout.window()?;
        let wanted = self.state == Presence::Present;
        let content = if wanted {
            let text = source_text::text(self.content, self.src.as_deref(), self.template.as_deref(), context.sources)?;
            if text.ends_with('\n') { text } else { text + "\n" }
        } else {
            String::new()
        };
        let file = OwnFile { path: format!("/etc/sudoers.d/{}", self.name), mode: 0o440, content };
        Ok(vec![Box::new(SudoersFile { file, wanted, window })])
    }
}

/// One file on a host.
#[derive(Debug)]
struct SudoersFile {
    file: OwnFile,
    wanted: bool,
    window: Duration,
}

/// Asks visudo about the text alone.
fn validate(text: &str) -> Script {
    Script::sh("PATH=$PATH:/usr/sbin; ", &[]).payload(&Text::plain(text)).then(" | visudo -c -q -f -\n", &[])
}

/// Asks visudo about everything that sudo reads; puts nothing back, which the guard does.
fn whole() -> Script {
    Script::sh("PATH=$PATH:/usr/sbin; visudo -c -q\n", &[])
}

impl SudoersFile {
    fn guarded(&self, mut plan: Plan) -> Plan {
        plan.effects = vec![Effect::Path(self.file.path.clone())];
        plan.guard = Some(Guard {
            what: "sudo's rules".to_owned(),
            window: self.window,
            kind: GuardKind::Files { paths: vec![self.file.path.clone()], reload: Script::sh(":\n", &[]) },
            handlers: true,
            hint: "keep a rule that lets the login user become root the way the inventory says".to_owned(),
        });
        plan
    }
}

impl Resource for SudoersFile {
    fn id(&self) -> ResourceId {
        ResourceId::new(Sudoers::NAME, &self.file.path)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let mut questions = self.file.questions().to_vec();
        questions.extend([Question::Path("/usr/sbin/visudo".to_owned()), Question::Package("sudo".to_owned())]);
        questions
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        if !self.wanted {
            if view.path(&self.file.path)?.is_none() {
                return Ok(Plan::in_sync());
            }
            let plan = Plan::in_sync().change(Change::remove("file", &self.file.path));
            return Ok(self.guarded(plan.step(Step::new(format!("remove {}", self.file.path), self.file.remove()))));
        }
        if view.path("/usr/sbin/visudo")?.is_none() {
            view.package("sudo")?;
            return Err(Undecided::Refused("`visudo` is not on the host; install package `sudo` before its rules".to_owned()));
        }
        let changes = self.file.changes(view)?;
        if changes.is_empty() {
            return Ok(Plan::in_sync());
        }
        let mut plan = Plan { changes, validate: Some(validate(&self.file.content)), ..Plan::default() };
        plan.steps.push(Step::new(format!("write {}", self.file.path), self.file.write(view)?));
        plan.steps.push(Step::new("check all of sudo's rules", whole()));
        Ok(self.guarded(plan))
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        if self.wanted { vec![Claim::Path(self.file.path.clone())] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::own_file::testing::{bare, plan, present, run};
    use crate::resource::source_text::testing::{build, refusal};

    #[test]
    fn a_change_is_validated_and_guarded() {
        let resource = build::<Sudoers>(serde_json::json!({ "name": "deploy", "content": "deploy ALL=(ALL) ALL" })).unwrap();
        let mut observed = bare(&*resource, "");
        assert!(matches!(plan(&*resource, &observed), Err(Undecided::Refused(reason)) if reason.contains("install package `sudo`")));
        present(&mut observed, "/usr/sbin/visudo", 0o755, "");
        let planned = plan(&*resource, &observed).unwrap();
        assert!(planned.validate.is_some() && planned.guard.is_some() && planned.steps.len() == 2);
        present(&mut observed, "/etc/sudoers.d/deploy", 0o440, "deploy ALL=(ALL) ALL\n");
        assert!(plan(&*resource, &observed).unwrap().is_in_sync());
        let gone = build::<Sudoers>(serde_json::json!({ "name": "deploy", "state": "absent" })).unwrap();
        assert!(plan(&*gone, &observed).unwrap().guard.is_some());
        assert!(refusal::<Sudoers>(serde_json::json!({ "name": "a.conf", "content": "x" })).contains("cannot be the name"));
    }

    #[test]
    fn visudo_says_what_is_wrong() {
        if !std::path::Path::new("/usr/sbin/visudo").exists() {
            eprintln!("skipped: needs visudo");
            return;
        }
        assert_eq!(run(&validate("deploy ALL=(ALL) NOPASSWD: ALL\n")).0, 0);
        assert_ne!(run(&validate("deploy ALL=(ALL NOPASSWD\n")).0, 0);
    }
}
