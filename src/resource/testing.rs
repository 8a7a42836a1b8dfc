//! What tests of kinds share: building from YAML, answers, planning, and running steps for real.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::facts::Facts;
use crate::resource::observe::{Answer, Observations, Pending, Question, RawOutput, View};
use crate::resource::plan::{Effect, Plan, Undecided};
use crate::resource::{BuildContext, BuildError, KINDS, KindEntry, Resource, ResourceId, Sources, interview};
use crate::secret::{KeyedDigests, SecretName, Text, Vault, sha256};
use crate::shell::Script;

/// A role's files in memory, and a project's secrets.
#[derive(Default)]
pub(crate) struct Bench {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) templates: BTreeMap<String, String>,
    pub(crate) vault: Vault,
    pub(crate) digests: KeyedDigests,
    pub(crate) pending: Pending,
}

impl Sources for Bench {
    fn file(&self, name: &str) -> Result<Vec<u8>, String> {
        self.files.get(name).cloned().ok_or_else(|| format!("no `{name}`"))
    }
    fn file_path(&self, name: &str) -> Result<PathBuf, String> {
        self.files.get(name).ok_or_else(|| format!("no `{name}`"))?;
        let path = std::env::temp_dir().join(format!("soc-bench-{}-{}", std::process::id(), sha256(name.as_bytes())));
        std::fs::write(&path, &self.files[name]).map_err(|error| error.to_string())?;
        Ok(path)
    }
    fn tree(&self, name: &str) -> Result<Vec<String>, String> {
        let prefix = format!("{name}/");
        Ok(self.files.keys().filter_map(|file| file.strip_prefix(&prefix)).map(str::to_owned).collect())
    }
    fn template(&self, name: &str) -> Result<Text, String> {
        self.templates.get(name).map(|text| Text::parse(text)).ok_or_else(|| format!("no `{name}`"))
    }
}

/// The entry of the kind that a task's YAML names, and its arguments.
pub(crate) fn read(yaml: &str) -> (&'static KindEntry, serde_json::Value) {
    let task: serde_json::Map<String, serde_json::Value> = serde_yaml::from_str(yaml).unwrap();
    let (name, arguments) = task.into_iter().next().unwrap();
    let entry = KINDS.iter().find(|entry| entry.name == name).unwrap_or_else(|| panic!("no kind `{name}`"));
    (entry, arguments)
}

impl Bench {
    pub(crate) fn secret(&mut self, name: &str, value: &str) {
        let name = SecretName::parse(name).unwrap();
        self.digests.insert(name.clone(), sha256(value.as_bytes()));
        self.vault.insert(name, zeroize::Zeroizing::new(value.to_owned()));
    }

    pub(crate) fn pending(mut self, effect: Effect) -> Self {
        self.pending.add(&ResourceId::new("test", "earlier"), &[effect]);
        self
    }

    pub(crate) fn try_build(&self, yaml: &str) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let (entry, arguments) = read(yaml);
        let facts = Facts::placeholder("h");
        let context = BuildContext { facts: &facts, sources: self, host: "h", role: None, become_user: None };
        (entry.decode)(arguments, &context)
    }

    pub(crate) fn build(&self, yaml: &str) -> Box<dyn Resource> {
        self.try_build(yaml).unwrap_or_else(|error| panic!("{yaml}: {error:?}")).remove(0)
    }

    /// Asks this machine.
    pub(crate) fn observe(&self, resource: &dyn Resource) -> Observations {
        let questions = resource.questions(&Facts::placeholder("h"));
        let output = run(&interview::script(&questions, "n0123456789"), &self.vault).1;
        interview::parse(&questions, "n0123456789", &output)
    }

    pub(crate) fn plan(&self, resource: &dyn Resource, observed: &Observations) -> Result<Plan, Undecided> {
        let mut facts = Facts::placeholder("h").vars().clone();
        facts.insert("ansible_service_mgr".into(), "systemd".into());
        resource.plan(&View::new(&Facts::from_vars(facts), &self.digests, observed, &self.pending))
    }

    /// Runs a plan's steps on this machine until one fails: its exit status and stderr.
    pub(crate) fn apply(&self, plan: &Plan) -> (i32, String) {
        for step in &plan.steps {
            for upload in &step.uploads {
                std::fs::copy(&upload.source, &upload.destination).unwrap();
            }
            let (status, _, stderr) = run(&step.script, &self.vault);
            if status != 0 {
                return (status, stderr);
            }
        }
        (0, String::new())
    }

    /// Plans on this machine, applies, and plans again, which must find nothing. Returns the
    /// first plan.
    pub(crate) fn converge(&self, yaml: &str) -> Plan {
        let resource = self.build(yaml);
        let plan = self.plan(&*resource, &self.observe(&*resource)).unwrap_or_else(|error| panic!("{yaml}: {error:?}"));
        assert!(!plan.is_in_sync(), "nothing to do for {yaml}");
        assert_eq!(self.apply(&plan), (0, String::new()), "{yaml}");
        let again = self.plan(&*resource, &self.observe(&*resource)).unwrap();
        assert!(again.is_in_sync(), "{yaml}: still {:?}", again.changes);
        plan
    }
}

/// Runs a script as the transport does: status, stdout, stderr.
pub(crate) fn run(script: &Script, vault: &Vault) -> (i32, Vec<u8>, String) {
    let code = Script::new().then("( ", &[]).eval(script.clone()).then(" ) </dev/null\n", &[]).fill(vault).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), code.as_bytes()).unwrap();
    let output = std::process::Command::new("/bin/sh").arg(file.path()).env("LC_ALL", "C").output().unwrap();
    (output.status.code().unwrap_or(-1), output.stdout, String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
}

/// Answers "not there" to everything that a resource asks; raw questions end with 1.
pub(crate) fn absent(resource: &dyn Resource) -> Observations {
    let mut observed = Observations::default();
    for question in resource.questions(&Facts::placeholder("h")) {
        let answer = match &question {
            Question::Path(_) => Answer::Path(None),
            Question::Digest(_) => Answer::Digest(None),
            Question::Content(_) => Answer::Content(None),
            Question::SecretFile(_) => Answer::SecretFile(None),
            Question::Package(_) => Answer::Package(None),
            Question::Unit(_) => Answer::Unit(None),
            Question::User(_) => Answer::User(None),
            Question::Group(_) => Answer::Group(None),
            Question::Sysctl(_) | Question::Module(_) | Question::Listening => Answer::Line(None),
            Question::Raw { .. } => Answer::Raw(RawOutput { status: 1, stdout: String::new() }),
            _ => Answer::Json(None),
        };
        observed.insert(question, answer);
    }
    observed
}

/// Answers to a resource's raw question whose key has this beginning.
pub(crate) fn raw(observed: &mut Observations, resource: &dyn Resource, key: &str, status: i32, stdout: &str) {
    let questions = resource.questions(&Facts::placeholder("h"));
    let found = questions.into_iter().find(|question| matches!(question, Question::Raw { key: found, .. } if found.starts_with(key)));
    let question = found.unwrap_or_else(|| panic!("no question `{key}`"));
    observed.insert(question, Answer::Raw(RawOutput { status, stdout: stdout.to_owned() }));
}

/// `field: before -> after` of each change.
pub(crate) fn shown(plan: &Plan) -> Vec<String> {
    use crate::resource::plan::Shown;
    let side = |shown: &Shown| match shown {
        Shown::Absent => "-".to_owned(),
        Shown::Plain(text) => text.clone(),
        Shown::Hidden => "***".to_owned(),
        Shown::Content(text) => format!("{:?}", text.to_string()),
        Shown::FileOnHost(path) => format!("<{path}>"),
    };
    plan.changes.iter().map(|change| format!("{}: {} -> {}", change.field, side(&change.before), side(&change.after))).collect()
}

#[test]
fn every_example_decodes_and_every_argument_is_described() {
    let mut bench = Bench::default();
    {
        let name = "nginx.conf";
        bench.templates.insert(name.into(), "x".into());
    }
    for name in ["sshd_config", "tool.asc"] {
        bench.files.insert(name.into(), b"x".to_vec());
    }
    bench.files.insert("example.asc".into(), include_bytes!("testdata/example.asc").to_vec());
    let mut bare = Vec::new();
    for entry in KINDS {
        let (found, arguments) = read(entry.example);
        assert_eq!(found.name, entry.name, "the example of `{}` is one of another kind", entry.name);
        let schema = serde_json::to_value((entry.schema)()).unwrap();
        for (name, property) in schema["properties"].as_object().unwrap() {
            if !property["description"].is_string() {
                bare.push(format!("{}.{name}", entry.name));
            }
        }
        let facts = Facts::placeholder("h");
        let context = BuildContext { facts: &facts, sources: &bench, host: "h", role: None, become_user: None };
        if let Err(error) = (entry.decode)(arguments, &context) {
            assert!(error.message.contains("no `"), "{}: {error:?}", entry.name);
        }
    }
    assert!(bare.is_empty(), "arguments without a description: {bare:?}");
    let unsorted: Vec<&str> = KINDS.windows(2).filter(|pair| pair[0].name >= pair[1].name).map(|pair| pair[1].name).collect();
    assert!(unsorted.is_empty(), "kinds are sorted by name: {unsorted:?}");
}
