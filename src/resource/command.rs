//! A command. With `creates`, `removes`, `unless` or `onlyif` it is checkable: those probes are the
//! author's promise, are read-only, and are listed in the plan. Without them the command runs every
//! time, is shown as not checkable, and never counts as in sync.

use std::time::Duration;

use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::observe::View;
use crate::resource::plan::{Change, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Kind, Question, Resource, ResourceId};
use crate::secret::{SecretName, Text};
use crate::shell::Script;

/// A command.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandSpec {
    /// Shell code.
    cmd: Option<String>,
    /// The words of a command, without a shell's reading of them.
    argv: Option<Vec<String>>,
    /// Not run if this path exists.
    creates: Option<String>,
    /// Only run if this path exists.
    removes: Option<String>,
    /// Not run if this read-only shell code succeeds.
    unless: Option<String>,
    /// Only run if this read-only shell code succeeds.
    onlyif: Option<String>,
    /// Directory to run in.
    chdir: Option<String>,
    /// Text for its stdin; the only place where a secret may go.
    #[schemars(with = "Option<String>")]
    stdin: Option<Text>,
    /// Seconds it may take.
    timeout: Option<u64>,
}

impl Kind for CommandSpec {
    const NAME: &'static str = "command";
    const EXAMPLE: &'static str = "command:\n  cmd: update-ca-certificates\n  unless: test -e /etc/ssl/certs/internal.pem\n";
    const SHORTHAND: Option<&'static str> = Some("cmd");
    const SECRET_FIELDS: &'static [&'static str] = &["stdin"];

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let (code, name) = match (self.cmd, self.argv) {
            (Some(cmd), None) if !cmd.trim().is_empty() => (Script::new().user_code(&cmd), cmd.trim().to_owned()),
            (None, Some(argv)) if !argv.is_empty() => {
                let script = argv.iter().fold(Script::new(), |script, word| script.then("{} ", &[word]));
                (script, argv.join(" "))
            }
            _ => return Err(BuildError::from("give either `cmd` or `argv`".to_owned())),
        };
        Ok(vec![Box::new(Command {
            name: name.lines().next().unwrap_or_default().chars().take(80).collect(),
            code,
            creates: self.creates,
            removes: self.removes,
            unless: self.unless,
            onlyif: self.onlyif,
            chdir: self.chdir,
            stdin: self.stdin,
            deadline: self.timeout.map_or(Duration::from_secs(300), Duration::from_secs),
            user: context.become_user.map(str::to_owned),
        })])
    }
}

#[derive(Debug)]
struct Command {
    name: String,
    code: Script,
    creates: Option<String>,
    removes: Option<String>,
    unless: Option<String>,
    onlyif: Option<String>,
    chdir: Option<String>,
    stdin: Option<Text>,
    deadline: Duration,
    user: Option<String>,
}

impl Command {
    fn guard_question(&self, what: &str, code: &str) -> Question {
        Question::Raw { key: format!("command/{what}/{}/{code}", self.name), script: Script::new().user_code(code).then(">/dev/null 2>&1", &[]) }
    }

    fn script(&self) -> Script {
        let mut script = Script::new();
        if let Some(directory) = &self.chdir {
            script = script.then("cd -- {} || exit\n", &[directory]);
        }
        match &self.stdin {
            Some(text) => script.payload(text).then(" | (\n", &[]).append(self.code.clone()).then("\n)\n", &[]),
            None => script.append(self.code.clone()),
        }
    }
}

impl Resource for Command {
    fn id(&self) -> ResourceId {
        ResourceId::new("command", &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let paths = self.creates.iter().chain(&self.removes).cloned().map(Question::Path);
        let unless = self.unless.iter().map(|code| self.guard_question("unless", code));
        let onlyif = self.onlyif.iter().map(|code| self.guard_question("onlyif", code));
        paths.chain(unless).chain(onlyif).collect()
    }

    fn secrets(&self) -> Vec<SecretName> {
        self.stdin.iter().flat_map(Text::secrets).collect()
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        // What the author's own probes see may be anything that is still to come.
        if self.unless.is_some() || self.onlyif.is_some() {
            if let Some(id) = view.pending(|_| true) {
                return Err(Undecided::After(id.clone()));
            }
        }
        let mut due = true;
        if let Some(path) = &self.creates {
            due &= view.path(path)?.is_none();
        }
        if let Some(path) = &self.removes {
            due &= view.path(path)?.is_some();
        }
        if let Some(code) = &self.unless {
            due &= view.raw(&self.guard_question("unless", code))?.status != 0;
        }
        if let Some(code) = &self.onlyif {
            due &= view.raw(&self.guard_question("onlyif", code))?.status == 0;
        }
        if !due {
            return Ok(Plan::in_sync());
        }
        let promises: Vec<String> = [("creates", &self.creates), ("removes", &self.removes), ("unless", &self.unless), ("onlyif", &self.onlyif)]
            .iter()
            .filter_map(|(word, value)| value.as_ref().map(|value| format!("{word} `{value}`")))
            .collect();
        let mut step = Step::new(format!("run {}", self.name), self.script()).deadline(self.deadline);
        step.user.clone_from(&self.user);
        let mut plan = Plan::default().change(Change::add("run", &self.name)).step(step);
        plan.unchecked = promises.is_empty();
        plan.effects.extend(self.creates.iter().chain(&self.removes).cloned().map(crate::resource::Effect::Path));
        if !promises.is_empty() {
            plan.notes.push(format!("the author's promise: {}", promises.join(", ")));
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::observe::{Answer, Observations, Pending, RawOutput};
    use crate::secret::KeyedDigests;

    fn command(unless: Option<&str>) -> Command {
        Command {
            name: "x".into(),
            code: Script::sh("echo hi", &[]),
            creates: None,
            removes: None,
            unless: unless.map(str::to_owned),
            onlyif: None,
            chdir: None,
            stdin: None,
            deadline: Duration::from_secs(1),
            user: None,
        }
    }

    fn plan(command: &Command, status: i32) -> Plan {
        let mut seen = Observations::default();
        for question in command.questions(&Facts::default()) {
            seen.insert(question, Answer::Raw(RawOutput { status, stdout: String::new() }));
        }
        command.plan(&View::new(&Facts::default(), &KeyedDigests::default(), &seen, &Pending::default())).unwrap()
    }

    #[test]
    fn a_command_without_a_promise_is_never_in_sync() {
        let plan = plan(&command(None), 0);
        assert!(plan.unchecked && !plan.is_in_sync());
    }

    #[test]
    fn unless_decides() {
        assert!(plan(&command(Some("true")), 0).is_in_sync());
        assert!(!plan(&command(Some("false")), 1).is_in_sync());
    }
}
