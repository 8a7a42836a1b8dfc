//! Labs and runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How many rounds of a long series to go through: a few in `make test`, all under `make prove`.
#[allow(dead_code, reason = "not every test crate has a long series")]
pub(crate) fn series(quick: u32, full: u32) -> u32 {
    if std::env::var_os("SOC_PROVE").is_some() { full } else { quick }
}

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A lab of throw-away hosts, gone when dropped.
pub(crate) struct Lab {
    pub(crate) name: String,
}

impl Lab {
    /// Containers, if we are root; `None`, said aloud, if not and this is not CI.
    pub(crate) fn containers(hosts: u32, options: &[&str]) -> Option<Self> {
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
        if !is_root {
            assert!(std::env::var_os("CI").is_none(), "CI must run as root: systemd containers need it");
            eprintln!("not run: systemd containers need root");
            return None;
        }
        Some(Self::up("container", hosts, options))
    }

    /// Virtual machines.
    #[allow(dead_code, reason = "used by tests/vm")]
    pub(crate) fn machines(hosts: u32, options: &[&str]) -> Self {
        Self::up("vm", hosts, options)
    }

    fn up(kind: &str, hosts: u32, options: &[&str]) -> Self {
        let name = format!("t{}x{}", std::process::id() % 10_000, NEXT.fetch_add(1, Ordering::SeqCst));
        let lab = Self { name };
        let out = Command::new(root().join("lab/up"))
            .args(["--kind", kind, "--name", &lab.name])
            .args(options)
            .arg(hosts.to_string())
            .output()
            .expect("lab/up starts");
        assert!(out.status.success(), "lab/up: {}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        lab
    }

    /// What `lab/ssh --name` takes.
    #[allow(dead_code, reason = "not every test crate feeds archives")]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn inventory(&self) -> PathBuf {
        root().join(".lab").join(&self.name).join("inventory.yml")
    }

    /// A host's address, as the inventory has it.
    #[allow(dead_code, reason = "not every test crate asks")]
    pub(crate) fn address(&self, host: &str) -> String {
        let text = std::fs::read_to_string(self.inventory()).unwrap();
        let mut lines = text.lines().skip_while(|line| line.trim() != format!("{host}:"));
        lines.find_map(|line| line.trim().strip_prefix("ansible_host: ")).expect("the host is in the inventory").to_owned()
    }

    pub(crate) fn key(&self) -> PathBuf {
        root().join(".lab").join(&self.name).join("id_ed25519")
    }

    /// Runs a command as root on a host and gives its stdout.
    pub(crate) fn sh(&self, host: &str, script: &str) -> String {
        let out = self.ssh(host, "root", script);
        assert!(out.status.success(), "{host}: {script}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
    }

    pub(crate) fn ssh(&self, host: &str, user: &str, script: &str) -> Output {
        Command::new(root().join("lab/ssh")).args(["--name", &self.name, "--user", user, host, script]).output().expect("lab/ssh starts")
    }

    /// Runs a long script as root on a host, from its standard input, and gives its stdout.
    #[allow(dead_code, reason = "not every test crate takes fingerprints")]
    pub(crate) fn feed(&self, host: &str, script: &str) -> String {
        use std::io::Write as _;
        let mut child = Command::new(root().join("lab/ssh"))
            .args(["--name", &self.name, "--user", "root", host, "sh -s"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("lab/ssh starts");
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }

    /// Waits until code on the host succeeds.
    #[allow(dead_code, reason = "not every test crate waits for a host")]
    pub(crate) fn until(&self, host: &str, code: &str) {
        let end = Instant::now() + Duration::from_secs(90);
        while !self.ssh(host, "root", code).status.success() {
            assert!(Instant::now() < end, "never on {host}: {code}");
        }
    }

    /// A fresh file system; address and host keys stay.
    #[allow(dead_code, reason = "not every test crate resets hosts")]
    pub(crate) fn reset(&self, host: &str) {
        let out = Command::new(root().join("lab/reset")).args(["--name", &self.name, host]).output().expect("lab/reset starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    pub(crate) fn power(&self, host: &str, what: &str) {
        let out = Command::new(root().join("lab/power")).args(["--name", &self.name, host, what]).output().expect("lab/power starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new(root().join("lab/down")).args(["--name", &self.name]).output();
    }
}

/// A project in a temporary directory.
pub(crate) struct Project {
    pub(crate) dir: tempfile::TempDir,
}

impl Project {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let project = Self { dir: tempfile::tempdir().unwrap() };
        for (name, text) in files {
            project.write(name, text);
        }
        project
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// How a run ended.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }

    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// The command, in a directory.
pub(crate) fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_soc-provision"));
    command.args(arguments).current_dir(dir).env_remove("SSH_AUTH_SOCK").env("HOME", dir).stdin(std::process::Stdio::null());
    command.env_remove("SOC_PROVISION_HISTORY").env_remove("XDG_STATE_HOME");
    if dir == root() {
        // The history of runs on this very project must not lie in its repository.
        command.env("XDG_STATE_HOME", root().join(".lab/state"));
    }
    command
}

/// Runs the binary in a directory.
pub(crate) fn soc(dir: &Path, arguments: &[&str]) -> Run {
    let out = command(dir, arguments).output().expect("the binary starts");
    Run {
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// One number of a host's recap in a JSON document.
pub(crate) fn recap(document: &Value, host: &str, field: &str) -> u64 {
    document["hosts"][host]["recap"][field].as_u64().unwrap_or_else(|| panic!("no {field} of {host} in {document:#}"))
}
