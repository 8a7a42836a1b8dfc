//! The first steps of a user: a new project, a new host, and both together.

use std::io::Write as _;
use std::process::Stdio;

use crate::harness::{Lab, Project, Run, command, recap, soc};

/// The address and the fingerprint of a host's key, as its console would show them.
fn console(lab: &Lab, host: &str) -> (String, String) {
    let inventory = std::fs::read_to_string(lab.inventory()).unwrap();
    let after = inventory.split(&format!("{host}:")).nth(1).unwrap();
    let address = after.split("ansible_host:").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let line = lab.sh(host, "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub");
    (address, line.split_whitespace().nth(1).unwrap().to_owned())
}

fn with_stdin(dir: &std::path::Path, arguments: &[&str], text: &str) -> Run {
    let mut child = command(dir, arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    Run {
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

#[test]
fn a_new_project_and_a_new_host_work_at_once() {
    let Some(lab) = Lab::containers(1, &[]) else { return };
    let project = Project::new(&[]);
    let dir = project.dir.path();
    soc(dir, &["init"]).ok();
    std::fs::create_dir(dir.join(".ssh")).unwrap();
    let key = dir.join(".ssh/id_ed25519");
    let made =
        std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]).status().unwrap();
    assert!(made.success());
    let (address, fingerprint) = console(&lab, "h1");
    lab.sh("h1", "echo root:first-pw-1 | chpasswd; echo 'PermitRootLogin yes' >/etc/ssh/sshd_config.d/01-first.conf; systemctl reload ssh");
    let login = format!("root@{address}");

    // A key that is not the host's: nothing is sent, nothing is pinned.
    let other = with_stdin(dir, &["bootstrap", &login, "--fingerprint", "SHA256:AAAA"], "first-pw-1\n");
    assert!(other.code == 4 && other.stderr.contains("nothing was sent to it"), "{}", other.stderr);
    assert!(!dir.join("inventory/known_hosts").exists());
    // Nobody there to ask.
    let blind = with_stdin(dir, &["bootstrap", &login], "first-pw-1\n");
    assert!(blind.code == 1 && blind.stderr.contains(&fingerprint) && blind.stderr.contains("--fingerprint"), "{}", blind.stderr);
    let wrong = with_stdin(dir, &["bootstrap", &login, "--fingerprint", &fingerprint], "not-the-pw\n");
    assert!(wrong.code == 4 && wrong.stderr.contains("does not let us in"), "{}", wrong.stderr);

    let first = with_stdin(dir, &["bootstrap", &login, "--name", "web1", "--fingerprint", &fingerprint], "first-pw-1\n").ok();
    assert!(first.stdout.contains("web1: `deploy` logs in with the key and becomes root"), "{}", first.stdout);
    let inventory = std::fs::read_to_string(dir.join("inventory/lab.yml")).unwrap();
    assert!(inventory.contains("web1:") && !inventory.contains("192.0.2.10"), "{inventory}");
    assert!(!first.all().contains("first-pw-1"));
    // Again changes nothing that is there.
    with_stdin(dir, &["bootstrap", &login, "--name", "web1", "--fingerprint", &fingerprint], "first-pw-1\n").ok();
    assert_eq!(std::fs::read_to_string(dir.join("inventory/lab.yml")).unwrap(), inventory);

    soc(dir, &["check"]).ok();
    let applied = soc(dir, &["apply", "lab.yml", "--format", "json"]).ok().json();
    assert!(recap(&applied, "web1", "changed") >= 3, "{applied:#}");
    let again = soc(dir, &["apply", "lab.yml"]).ok();
    assert!(again.stdout.contains("changed=0"), "{}", again.stdout);
    assert!(soc(dir, &["plan", "lab.yml"]).ok().stdout.contains("plan: nothing to change"));
    assert!(lab.sh("h1", "cat /etc/motd").contains("web1: Debian"));

    let facts = soc(dir, &["facts"]).ok().json();
    assert_eq!(facts["web1"]["ansible_os_family"], "Debian");
    let exec = soc(dir, &["exec", "web1", "id -un; echo oops >&2; exit 3"]);
    assert!(
        exec.code == 2 && exec.stdout.starts_with("web1 | FAILED | rc=3 >>\nroot\n") && exec.stdout.contains("stderr: oops"),
        "{}",
        exec.stdout
    );
    let junit = soc(dir, &["verify", "lab.yml", "--format", "junit"]).ok().stdout;
    assert!(junit.contains("<testsuite name=\"web1\"") && junit.contains("failures=\"0\"") && junit.contains("SSH answers"), "{junit}");
    let lines = soc(dir, &["plan", "lab.yml", "--format", "jsonl"]).ok().stdout;
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{lines}");
}
