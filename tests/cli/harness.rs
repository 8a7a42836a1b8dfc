//! Projects in temporary directories, and runs of the binary in them.

use std::path::Path;
use std::process::Command;

/// Two groups, five hosts; what most playbooks here run on.
pub(crate) const HOSTS: &str = "all:
  vars: {site: lab, port: 80}
  children:
    web:
      vars: {tier: front}
      hosts:
        w1: {n: 1}
        w2: {n: 2}
        w3: {n: 3}
    db:
      hosts:
        d1:
        d2:
";

/// A project on disk.
pub(crate) struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let project = Self { dir: tempfile::tempdir().unwrap() };
        files.iter().for_each(|(name, text)| project.write(name, text));
        project
    }

    /// With `HOSTS`, and this playbook as `site.yml`.
    pub(crate) fn with_playbook(playbook: &str, files: &[(&str, &str)]) -> Self {
        let project = Self::new(&[("inventory/site.yml", HOSTS), ("playbooks/site.yml", playbook)]);
        files.iter().for_each(|(name, text)| project.write(name, text));
        project
    }

    /// One play on `web` with these tasks.
    pub(crate) fn with_tasks(tasks: &str, files: &[(&str, &str)]) -> Self {
        let tasks: String = tasks.lines().map(|line| format!("    {line}\n")).collect();
        Self::with_playbook(&format!("- hosts: web\n  tasks:\n{tasks}"), files)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        run(self.path(), arguments)
    }

    /// The problems that `check` finds; at least one.
    pub(crate) fn problems(&self) -> String {
        let run = self.run(&["check", "site.yml"]);
        assert_eq!(run.code, 1, "{}{}", run.out, run.err);
        run.err
    }

    /// Titles of the tasks that would run on one host, in order; `debug` shows its message there.
    pub(crate) fn tasks(&self, host: &str, more: &[&str]) -> Vec<String> {
        let run = self.run(&[&["check", "site.yml", "--list-tasks", "-l", host], more].concat());
        assert_eq!(run.code, 0, "{}{}", run.out, run.err);
        let line = |line: &str| {
            line.split_once("\tTAGS:").filter(|(title, _)| title.starts_with("      ")).map(|(title, _)| title.trim().to_owned())
        };
        run.out.lines().filter_map(line).collect()
    }
}

/// How a run ended.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs the binary somewhere.
pub(crate) fn run(directory: &Path, arguments: &[&str]) -> Run {
    let out = Command::new(env!("CARGO_BIN_EXE_soc-provision"))
        .args(arguments)
        .current_dir(directory)
        .env("HOME", directory)
        .env_remove("SSH_AUTH_SOCK")
        .env_remove("SOC_PROVISION_IDENTITY")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    Run { code: out.status.code().unwrap_or(-1), out: String::from_utf8(out.stdout).unwrap(), err: String::from_utf8(out.stderr).unwrap() }
}
