//! `command`: code that the user wrote, for what no other kind does.
//!
//! Whether it must run is decided by `creates`, `removes`, `unless` and `onlyif`. The last two run
//! in every plan, so they must only read: that is their author's promise, and plans list it.
//! Without any of the four the command runs in every apply and is never counted as in sync.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::{absolute, check_name};
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Change, Effect, Plan, STEP_DEADLINE, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Kind, Resource, ResourceId};
use crate::secret::{SecretName, Text};
use crate::shell::Script;

/// Runs a command.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandSpec {
    /// POSIX shell code.
    #[serde(default)]
    cmd: Option<String>,
    /// Program and arguments, each taken as it is, instead of `cmd`.
    #[serde(default)]
    argv: Option<Vec<String>>,
    /// Not run if this path is there.
    #[serde(default)]
    creates: Option<String>,
    /// Not run if this path is not there.
    #[serde(default)]
    removes: Option<String>,
    /// Not run if this shell code ends with 0. It runs in every plan and must change nothing.
    #[serde(default)]
    unless: Option<String>,
    /// Run only if this shell code ends with 0. It runs in every plan and must change nothing.
    #[serde(default)]
    onlyif: Option<String>,
    /// Directory to run it in.
    #[serde(default)]
    chdir: Option<String>,
    /// User to run it as; root unless given.
    #[serde(default)]
    user: Option<String>,
    /// Variables for its environment. No secrets: others on the host can see an environment.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// Text for its standard input. May hold secrets.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    stdin: Option<Text>,
    /// Seconds that it may take. A minute unless given.
    #[serde(default)]
    timeout: Option<u64>,
}

impl Kind for CommandSpec {
    const NAME: &'static str = "command";
    const EXAMPLE: &'static str = "command:
  cmd: aideinit -y -f
  creates: /var/lib/aide/aide.db.new
  timeout: 900
";
    const SHORTHAND: Option<&'static str> = Some("cmd");
    const SECRET_FIELDS: &'static [&'static str] = &["stdin"];

    fn build(mut self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        match (&self.cmd, &self.argv) {
            (Some(_), Some(_)) => return Err(BuildError::field("argv", "`cmd` and `argv` exclude each other")),
            (None, None) => return Err(BuildError::field("cmd", "`cmd` is missing")),
            (Some(cmd), None) if cmd.trim().is_empty() => return Err(BuildError::field("cmd", "`cmd` is empty")),
            (None, Some(argv)) if argv.is_empty() => return Err(BuildError::field("argv", "`argv` is empty")),
            _ => {}
        }
        let codes = [&self.cmd, &self.unless, &self.onlyif, &self.chdir];
        let words = codes.into_iter().flatten().chain(self.argv.iter().flatten()).chain(self.environment.values());
        if words.into_iter().any(|word| word.contains('\0')) {
            return Err(BuildError::from("a command cannot hold a zero byte".to_owned()));
        }
        for name in self.environment.keys() {
            check_name("environment", "variable", name, "_")?;
            if name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(BuildError::field("environment", format!("`{name}` is not the name of a variable")));
            }
        }
        for (field, path) in [("creates", &mut self.creates), ("removes", &mut self.removes), ("chdir", &mut self.chdir)] {
            if let Some(text) = path {
                *text = absolute(field, text)?;
            }
        }
        self.user = self.user.or_else(|| context.become_user.map(str::to_owned));
        Ok(vec![Box::new(self)])
    }
}

impl CommandSpec {
    /// As people see it: one line.
    fn title(&self) -> String {
        let text = match (&self.cmd, &self.argv) {
            (Some(cmd), _) => cmd.trim().to_owned(),
            (None, argv) => argv.iter().flatten().map(|word| crate::shell::quote(word)).collect::<Vec<_>>().join(" "),
        };
        let first = text.lines().next().unwrap_or_default();
        let short: String = first.chars().take(80).collect();
        if short.len() < text.len() { format!("{short}...") } else { short }
    }

    /// The directory and the environment, for the command and for its conditions.
    fn setting(&self) -> Script {
        let mut script = Script::new();
        if let Some(chdir) = &self.chdir {
            script = script.then("cd -- {} || exit 1\n", &[chdir]);
        }
        for (name, value) in &self.environment {
            script = script.then("export {}\n", &[&format!("{name}={value}")]);
        }
        script
    }

    fn condition(&self, what: &str, code: Option<&String>) -> Option<Question> {
        let code = code?;
        let mut script = self.setting();
        script = match &self.user {
            // The shell of another user reads the code from a pipe, so that it is in no argument list.
            Some(user) => {
                let inner = Text::plain(format!("{}\n{code}\n", self.setting().shown()));
                Script::new().payload(&inner).then(" | runuser -u {} -- /bin/sh\n", &[user])
            }
            None => script.user_code(code),
        };
        Some(Question::Raw { key: format!("command:{what}:{}", self.id().name), script })
    }

    fn unless(&self) -> Option<Question> {
        self.condition("unless", self.unless.as_ref())
    }

    fn onlyif(&self) -> Option<Question> {
        self.condition("onlyif", self.onlyif.as_ref())
    }

    /// Why the command need not run, if it need not.
    fn settled(&self, view: &View<'_>) -> Result<bool, Undecided> {
        if let Some(path) = &self.creates
            && view.path(path)?.is_some()
        {
            return Ok(true);
        }
        if let Some(path) = &self.removes
            && view.path(path)?.is_none()
        {
            return Ok(true);
        }
        for (question, stops) in [(self.unless(), true), (self.onlyif(), false)] {
            let Some(question) = question else { continue };
            // What it looks at may be what an earlier resource is about to change.
            if let Some(id) = view.pending(|_| true) {
                return Err(Undecided::After(id.clone()));
            }
            if (view.raw(&question)?.status == 0) == stops {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn script(&self) -> Script {
        let code = match (&self.cmd, &self.argv) {
            (Some(cmd), _) => Script::new().user_code(cmd),
            (None, argv) => {
                let words = argv.iter().flatten();
                words.fold(Script::sh("command --", &[]), |script, word| script.then(" {}", &[word])).then("\n", &[])
            }
        };
        match &self.stdin {
            Some(text) => self.setting().payload(text).then(" | ( ", &[]).eval(code).then(" )\n", &[]),
            None => self.setting().append(code),
        }
    }
}

impl Resource for CommandSpec {
    fn id(&self) -> ResourceId {
        ResourceId::new(Self::NAME, self.title())
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let paths = self.creates.iter().chain(&self.removes).cloned().map(Question::Path);
        paths.chain(self.unless()).chain(self.onlyif()).collect()
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let promises = [("unless", &self.unless), ("onlyif", &self.onlyif)];
        let mut notes: Vec<String> = Vec::new();
        for (word, code) in promises {
            notes.extend(code.as_ref().map(|code| format!("taken to change nothing: {word} `{}`", code.trim())));
        }
        if self.settled(view)? {
            return Ok(Plan { notes, ..Plan::default() });
        }
        let unchecked = self.creates.is_none() && self.removes.is_none() && self.unless.is_none() && self.onlyif.is_none();
        let deadline = self.timeout.map_or(STEP_DEADLINE, Duration::from_secs);
        let mut step = Step::new(format!("run {}", self.title()), self.script()).deadline(deadline);
        step.user.clone_from(&self.user);
        step.once = unchecked;
        let mut plan = Plan { notes, unchecked, ..Plan::default() }.change(Change::add("command", self.title())).step(step);
        for path in self.creates.iter().chain(&self.removes) {
            plan = plan.effect(Effect::Path(path.clone()));
        }
        // Nobody can list what else it touches.
        Ok(plan.effect(Effect::Raw(format!("command:{}", self.title()))))
    }

    fn secrets(&self) -> Vec<SecretName> {
        self.stdin.as_ref().map(Text::secrets).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::{Bench, absent, raw, shown};

    #[test]
    fn creates_and_removes_decide_for_real() {
        let dir = tempfile::tempdir().unwrap();
        let path = format!("{}/made here", dir.path().display());
        let bench = Bench::default();
        let json = |fields: serde_json::Value| serde_json::json!({ "command": fields }).to_string();
        let chdir = dir.path().to_str().unwrap();
        let make = json(
            serde_json::json!({ "cmd": "echo \"$WHAT\" >'made here'", "creates": path, "chdir": chdir, "environment": { "WHAT": "it's $HOME" } }),
        );
        bench.converge(&make);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "it's $HOME\n");
        bench.converge(&json(serde_json::json!({ "argv": ["rm", "--", path], "removes": path })));
        bench.converge(&json(serde_json::json!({ "cmd": "touch a", "chdir": chdir, "unless": "[ -e a ]" })));
        bench.converge(&json(serde_json::json!({ "cmd": "rm a", "chdir": chdir, "onlyif": "[ -e a ]" })));
    }

    #[test]
    fn without_a_condition_it_is_not_checkable() {
        let bench = Bench::default();
        let resource = bench.build("command: echo hello");
        let plan = bench.plan(&*resource, &absent(&*resource)).unwrap();
        assert!(plan.unchecked && plan.steps.len() == 1);
        assert_eq!(shown(&plan), ["command: - -> echo hello"]);
    }

    #[test]
    fn conditions_are_promises_and_wait_for_what_comes_first() {
        let bench = Bench::default();
        let resource = bench.build("command: {cmd: \"x\", unless: \"test -e /a\"}");
        let mut observed = absent(&*resource);
        let plan = bench.plan(&*resource, &observed).unwrap();
        assert!(!plan.unchecked && plan.notes[0].contains("unless `test -e /a`"));
        raw(&mut observed, &*resource, "command:unless", 0, "");
        let plan = bench.plan(&*resource, &observed).unwrap();
        assert!(plan.is_in_sync() && plan.notes.len() == 1);
        let later = Bench::default().pending(Effect::Package("a".into()));
        assert!(matches!(later.plan(&*resource, &observed), Err(Undecided::After(_))));
    }

    #[test]
    fn secrets_go_to_standard_input_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = format!("{}/out", dir.path().display());
        let mut bench = Bench::default();
        bench.secret("token", "s3cret-t'oken");
        let marker = SecretName::parse("token").unwrap().marker();
        let yaml = serde_json::json!({ "command": { "cmd": format!("cat >{path}"), "creates": path, "stdin": marker } }).to_string();
        let plan = bench.converge(&yaml);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "s3cret-t'oken");
        assert!(!plan.steps[0].script.shown().contains("s3cret"));
        assert!(bench.try_build("command: {}").is_err() && bench.try_build("command: {cmd: x, environment: {\"A B\": c}}").is_err());
    }
}
