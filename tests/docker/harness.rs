//! A small engine for one resource at a time on a lab host with Docker: probe, plan, run the steps
//! over `ssh`. The real engine does the same for whole hosts.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use soc_provision::composite;
use soc_provision::facts::{self, Facts};
use soc_provision::resource::observe::Pending;
use soc_provision::resource::{self, BuildContext, KindEntry, Plan, Resource, Sources, Step, Undecided, View, interview};
use soc_provision::secret::{KeyedDigests, SecretName, Text, Vault, sha256};
use soc_provision::shell::Script;
use zeroize::Zeroizing;

/// A host with Docker: `SOC_LAB_SSH` is the lab's `ssh_config`, `SOC_LAB_HOST` the host (`h1`).
pub(crate) struct Host {
    config: PathBuf,
    name: String,
    pub(crate) facts: Facts,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) secrets: BTreeMap<String, String>,
    pub(crate) directory: tempfile::TempDir,
}

/// What a script came to.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Host {
    /// The host, if the environment names one.
    pub(crate) fn from_environment() -> Option<Self> {
        Self::of("SOC_LAB_SSH")
    }

    /// A host without Docker.
    pub(crate) fn bare() -> Option<Self> {
        Self::of("SOC_LAB_BARE")
    }

    fn of(variable: &str) -> Option<Self> {
        let config = std::env::var_os(variable)?.into();
        let name = std::env::var("SOC_LAB_HOST").unwrap_or_else(|_| "h1".to_owned());
        let directory = tempfile::tempdir().unwrap();
        let mut host = Self { config, name, facts: Facts::default(), files: BTreeMap::new(), secrets: BTreeMap::new(), directory };
        let ran = host.sh(facts::SCRIPT);
        host.facts = Facts::parse(&ran.stdout).unwrap();
        Some(host)
    }

    /// Runs plain shell text as root.
    pub(crate) fn sh(&self, code: &str) -> Ran {
        let mut child = Command::new("ssh")
            .args(["-F".as_ref(), self.config.as_os_str()])
            .args(["-o", "ControlMaster=auto", "-o", "ControlPath=/tmp/soc-docker-%C", "-o", "ControlPersist=60"])
            .args(["-l", "root", &self.name, "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // As one function, so that nothing a script runs can read the rest of it.
        child.stdin.take().unwrap().write_all(format!("main() {{\n:\n{code}\n}}\nmain </dev/null\n").as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        Ran {
            status: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    /// The trimmed output of shell text that must succeed.
    pub(crate) fn ask(&self, code: &str) -> String {
        let ran = self.sh(code);
        assert_eq!(ran.status, 0, "{code}\n{}{}", ran.stdout, ran.stderr);
        ran.stdout.trim().to_owned()
    }

    fn vault(&self) -> Vault {
        let mut vault = Vault::default();
        for (name, value) in &self.secrets {
            vault.insert(SecretName::parse(name).unwrap(), Zeroizing::new(value.clone()));
        }
        vault
    }

    fn script(&self, script: &Script) -> Ran {
        self.sh(&script.fill(&self.vault()).unwrap())
    }

    /// The resources of a task in YAML: `KIND: {...}`.
    pub(crate) fn build(&self, task: &str) -> Result<Vec<Box<dyn Resource>>, String> {
        let task: Value = serde_yaml::from_str(task).unwrap();
        let (kind, arguments) = task.as_object().unwrap().iter().next().unwrap();
        let known = |entry: &&KindEntry| entry.name == kind;
        let entry = resource::KINDS.iter().chain(composite::KINDS).find(known).unwrap();
        let context = BuildContext { facts: &self.facts, sources: self, host: &self.name, role: None, become_user: None };
        (entry.decode)(arguments.clone(), &context).map_err(|error| format!("{error:?}"))
    }

    /// Probes and plans one resource.
    pub(crate) fn plan(&self, resource: &dyn Resource) -> Result<Plan, Undecided> {
        let questions = resource.questions(&self.facts);
        let ran = self.script(&interview::script(&questions, "n0nce"));
        let observations = interview::parse(&questions, "n0nce", ran.stdout.as_bytes());
        let mut digests = KeyedDigests::default();
        for (name, value) in &self.secrets {
            digests.insert(SecretName::parse(name).unwrap(), sha256(value.as_bytes()));
        }
        resource.plan(&View::new(&self.facts, &digests, &observations, &Pending::default()))
    }

    /// Runs a plan's validator and steps; the first that fails ends it.
    pub(crate) fn run(&self, plan: &Plan) -> Ran {
        let mut last = Ran { status: 0, stdout: String::new(), stderr: String::new() };
        if let Some(validate) = &plan.validate {
            last = self.script(validate);
            if last.status != 0 {
                return last;
            }
        }
        self.steps(&plan.steps).unwrap_or(last)
    }

    /// Runs steps; the last one's outcome.
    pub(crate) fn steps(&self, steps: &[Step]) -> Option<Ran> {
        let mut last = None;
        for step in steps {
            for upload in &step.uploads {
                let status = Command::new("scp")
                    .args(["-q".as_ref(), "-F".as_ref(), self.config.as_os_str(), upload.source.as_os_str()])
                    .arg(format!("root@{}:{}", self.name, upload.destination))
                    .status()
                    .unwrap();
                assert!(status.success());
            }
            let ran = self.script(&step.script);
            let failed = ran.status != 0;
            last = Some(ran);
            if failed {
                break;
            }
        }
        last
    }

    /// Brings a task's resources into being; the changes of all of them.
    pub(crate) fn apply(&self, task: &str) -> Vec<String> {
        let mut changes = Vec::new();
        for resource in self.build(task).unwrap() {
            let plan = self.plan(resource.as_ref()).unwrap_or_else(|why| panic!("{}: {why:?}", resource.id()));
            changes.extend(plan.changes.iter().map(|change| change.field.clone()));
            let ran = self.run(&plan);
            assert_eq!(ran.status, 0, "{}: {}{}", resource.id(), ran.stdout, ran.stderr);
        }
        changes
    }

    /// Fields that differ, without doing anything about it.
    pub(crate) fn drift(&self, task: &str) -> Vec<String> {
        let mut changes = Vec::new();
        for resource in self.build(task).unwrap() {
            let plan = self.plan(resource.as_ref()).unwrap_or_else(|why| panic!("{}: {why:?}", resource.id()));
            changes.extend(plan.changes.iter().map(|change| change.field.clone()));
        }
        changes
    }

    /// Short ids of a project's containers by name.
    pub(crate) fn containers(&self, project: &str) -> BTreeMap<String, String> {
        let lines =
            self.ask(&format!("docker ps -a --filter label=com.docker.compose.project={project} --format '{{{{.Names}}}} {{{{.ID}}}}'"));
        lines.lines().filter_map(|line| line.split_once(' ')).map(|(name, id)| (name.to_owned(), id.to_owned())).collect()
    }
}

impl Sources for Host {
    fn file(&self, name: &str) -> Result<Vec<u8>, String> {
        self.files.get(name).cloned().ok_or_else(|| format!("no file `{name}`"))
    }

    fn file_path(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.directory.path().join(name.replace('/', "_"));
        std::fs::write(&path, self.file(name)?).map_err(|error| error.to_string())?;
        Ok(path)
    }

    fn tree(&self, name: &str) -> Result<Vec<String>, String> {
        let below = format!("{name}/");
        Ok(self.files.keys().filter_map(|path| path.strip_prefix(&below).map(str::to_owned)).collect())
    }

    fn template(&self, name: &str) -> Result<Text, String> {
        String::from_utf8(self.file(name)?).map(|text| Text::parse(&text)).map_err(|error| error.to_string())
    }
}
