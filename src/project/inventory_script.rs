//! Executable inventories: a program that prints Ansible's JSON for `--list` (and `--host NAME`).
//!
//! The one place of the project phase that starts a process.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::files::Files;
use super::inventory::Inventory;
use super::lower::Problems;
use super::source::{MAX_BYTES, Node, is_reserved};
use crate::diagnostic::{Diagnostic, Location};

/// How long the program may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Whether a file is a program rather than an inventory: executable, and starting with `#!`
/// or an ELF header.
pub(super) fn is_script(path: &Path) -> bool {
    let executable = path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
    let mut head = [0; 4];
    executable
        && std::fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut head).is_ok())
        && (head.starts_with(b"#!") || &head == b"\x7fELF")
}

/// Runs the program and adds what it printed to the inventory.
pub(super) fn read(inventory: &mut Inventory, files: &Files, path: &Path, problems: &mut Problems) {
    let at = files.start(path);
    files.count(path);
    let Some(list) = problems.keep(run(path, &["--list"], &at)) else { return };
    let Some(groups) = list.as_object() else {
        return problems.error(&at, "the inventory program did not print a JSON object for `--list`");
    };
    for (name, body) in groups.iter().filter(|(name, _)| *name != "_meta") {
        group(inventory, name, body, &at, problems);
    }
    let meta = groups.get("_meta").and_then(|meta| meta.get("hostvars")).and_then(Value::as_object);
    match meta {
        Some(hostvars) => {
            for (host, vars) in hostvars {
                host_vars(inventory, host, vars, &at, problems);
            }
        }
        None => {
            let hosts: Vec<String> = inventory.iter().map(|(name, _)| name.to_owned()).collect();
            for host in hosts {
                if let Some(vars) = problems.keep(run(path, &["--host", &host], &at)) {
                    host_vars(inventory, &host, &vars, &at, problems);
                }
            }
        }
    }
}

fn group(inventory: &mut Inventory, name: &str, body: &Value, at: &Location, problems: &mut Problems) {
    inventory.group(name);
    let texts =
        |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect() };
    if body.is_array() {
        for host in texts(body) {
            inventory.add_hosts(name, &host, at, problems);
        }
        return;
    }
    for host in body.get("hosts").map(texts).unwrap_or_default() {
        inventory.add_hosts(name, &host, at, problems);
    }
    for child in body.get("children").map(texts).unwrap_or_default() {
        inventory.add_child(name, &child);
    }
    for (var, value) in object(body.get("vars")) {
        inventory.set_group_var(name, var, Node::from_json(value, at));
    }
}

fn host_vars(inventory: &mut Inventory, host: &str, vars: &Value, at: &Location, problems: &mut Problems) {
    if inventory.host(host).is_none() {
        inventory.add_hosts("ungrouped", host, at, problems);
    }
    for (name, value) in object(Some(vars)) {
        inventory.set_host_var(host, name, Node::from_json(value, at));
    }
}

fn object(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn run(path: &Path, arguments: &[&str], at: &Location) -> Result<Value, Diagnostic> {
    let failed = |message: String| Diagnostic::error(format!("the inventory program {message}")).at(at.clone());
    let mut child = Command::new(path)
        .args(arguments)
        .current_dir(path.parent().unwrap_or(Path::new(".")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reader = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut out = Vec::new();
            if let Some(stream) = stream {
                let _ = stream.take(MAX_BYTES as u64 + 1).read_to_end(&mut out);
            }
            out
        })
    };
    let out = reader(stdout.map(|stream| Box::new(stream) as _));
    let err = reader(stderr.map(|stream| Box::new(stream) as _));
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() > DEADLINE => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(format!("did not end within {} s", DEADLINE.as_secs())));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(failed(format!("was lost: {error}"))),
        }
    };
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    if !status.success() {
        let last = String::from_utf8_lossy(&err).lines().last().unwrap_or_default().to_owned();
        return Err(failed(format!("failed ({status}): {}", crate::diagnostic::printable(&last))));
    }
    let text = String::from_utf8_lossy(&out);
    if out.len() > MAX_BYTES || text.contains(is_reserved) {
        return Err(failed("printed too much, or reserved characters".to_owned()));
    }
    serde_json::from_str(&text).map_err(|error| failed(format!("printed something else than JSON for `{}`: {error}", arguments.join(" "))))
}

#[cfg(test)]
mod tests {
    use super::super::hosts::Names as _;
    use super::*;

    #[test]
    fn a_program_that_prints_json_is_an_inventory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        let json = r#"{"web": {"hosts": ["w1"], "vars": {"a": 1}}, "all": {"children": ["web"]}, "_meta": {"hostvars": {"w1": {"ansible_host": "10.0.0.1"}}}}"#;
        std::fs::write(&path, format!("#!/bin/sh\n[ \"$1\" = --list ] || exit 3\ncat <<'EOT'\n{json}\nEOT\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let files = Files::new(directory.path().to_path_buf());
        let mut problems = Problems::default();
        let inventory = Inventory::load(&files, &["hosts".to_owned()], &mut problems);
        assert_eq!(problems.into_vec(), []);
        assert_eq!(inventory.members("web").unwrap(), ["w1"]);
        assert_eq!(inventory.host("w1").unwrap().vars["ansible_host"].to_json(), "10.0.0.1");
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        std::fs::write(&path, "#!/bin/sh\necho no token >&2\nexit 4\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut problems = Problems::default();
        Inventory::load(&Files::new(directory.path().to_path_buf()), &["hosts".to_owned()], &mut problems);
        assert!(problems.into_vec()[0].message.contains("no token"));
    }
}
