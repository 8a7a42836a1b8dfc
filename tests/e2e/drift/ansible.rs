//! The same mutations against Ansible's `--check` of the same host: `bench/drift/run` asks for it,
//! `make test` and `make prove` do not. Both tools look at each group of mutations in turn.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::mutations::{Cure, Mutation};
use super::{Field, chosen, fits, groups};
use crate::harness::root;

/// Files that kinds of ours write, as they are on the host.
const FILES: &[&str] = &[
    "/etc/soc/agent.key",
    "/etc/sudoers.d/soc",
    "/etc/ssh/sshd_config.d/10-soc-provision.conf",
    "/etc/systemd/system/probe.service",
    "/etc/systemd/system/soc-purge.service",
    "/etc/systemd/system/soc-purge.timer",
    "/etc/systemd/system/soc-provision-firewall.service",
    "/etc/cron.d/soc-rotate",
    "/etc/soc-provision/firewall.nft",
    "/etc/soc-provision/seccomp/web.json",
    "/etc/docker/daemon.json",
];

/// Ansible, with its playbook, and the files that it copies.
struct Ansible {
    program: PathBuf,
    have: tempfile::TempDir,
    inventory: PathBuf,
    ssh_config: PathBuf,
}

impl Ansible {
    /// Makes the host Ansible's too: Python on it, and one real run.
    fn ready(program: PathBuf, field: &Field) -> Self {
        field.lab.sh("h1", "apt-get -y install python3 python3-apt python3-requests >/dev/null 2>&1");
        let have = tempfile::tempdir().unwrap();
        let keep = |path: &str| {
            let text = field.lab.sh("h1", &format!("base64 -w0 {path}"));
            let out = Command::new("base64").arg("-d").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn();
            let mut child = out.unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
            let name = path.rsplit('/').next().unwrap().to_owned();
            std::fs::write(have.path().join(&name), child.wait_with_output().unwrap().stdout).unwrap();
            name
        };
        for path in FILES {
            keep(path);
        }
        let listing =
            "cd /var/lib/soc-provision/stacks/mut && stat -c '%a %u %g %n' $PWD/current/compose.yml $PWD/files/*/* $PWD/secrets/*/token";
        let stack: Vec<Value> = field
            .lab
            .sh("h1", listing)
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let mode = format!("{:0>4}", words[0]);
                json!({"path": words[3], "name": keep(words[3]), "mode": mode, "owner": words[1], "group": words[2]})
            })
            .collect();
        let vars = json!({"have": have.path(), "stack_files": stack});
        std::fs::write(have.path().join("vars.json"), vars.to_string()).unwrap();
        let ssh_config = field.inventory.with_file_name("ssh_config");
        let ansible = Self { program, have, inventory: field.inventory.clone(), ssh_config };
        let first = ansible.play(&[]);
        assert!(!first.is_empty(), "Ansible did not run");
        eprintln!("Ansible's first run changed {:?}", touched(&first));
        assert_eq!(touched(&ansible.play(&["--check"])), Vec::<String>::new(), "Ansible's check of an unchanged host");
        ansible
    }

    /// Runs the playbook: tasks by name, and whether one of that name changed or failed.
    fn play(&self, more: &[&str]) -> BTreeMap<String, bool> {
        let out = Command::new(&self.program)
            .arg("-i")
            .arg(&self.inventory)
            .arg("-e")
            .arg(format!("@{}", self.have.path().join("vars.json").display()))
            .args(more)
            .arg(root().join("bench/drift/site.yml"))
            .env("ANSIBLE_STDOUT_CALLBACK", "ansible.posix.json")
            .env("ANSIBLE_PIPELINING", "1")
            .env("ANSIBLE_HOME", self.have.path().join("home"))
            .env("ANSIBLE_SSH_ARGS", format!("-F {} -o ControlMaster=auto -o ControlPersist=120s", self.ssh_config.display()))
            .output()
            .expect("ansible-playbook starts");
        let text = String::from_utf8_lossy(&out.stdout);
        let document: Value = text.find('{').and_then(|at| serde_json::from_str(&text[at..]).ok()).unwrap_or_default();
        let mut tasks = BTreeMap::new();
        for task in document["plays"][0]["tasks"].as_array().into_iter().flatten() {
            let host = &task["hosts"]["h1"];
            let found = host["changed"] == true || host["failed"] == true || host["unreachable"] == true;
            if found && std::env::var_os("SOC_VERBOSE").is_some() {
                eprintln!("{}: {host}", task["task"]["name"]);
            }
            *tasks.entry(task["task"]["name"].as_str().unwrap_or_default().to_owned()).or_default() |= found;
        }
        assert!(!tasks.is_empty(), "{text}{}", String::from_utf8_lossy(&out.stderr));
        tasks
    }
}

fn touched(tasks: &BTreeMap<String, bool>) -> Vec<String> {
    tasks.iter().filter(|(_, found)| **found).map(|(name, _)| name.clone()).collect()
}

#[test]
fn the_same_mutations_against_ansible() {
    let Some(program) = std::env::var_os("SOC_ANSIBLE") else {
        eprintln!("not run: it is a comparison, which `bench/drift/run ansible` makes");
        return;
    };
    let results = PathBuf::from(std::env::var_os("SOC_ANSIBLE_RESULTS").expect("where the results go"));
    let Some(field) = Field::ready() else { return };
    let ansible = Ansible::ready(program.into(), &field);
    assert_eq!(field.found().0, 0, "Ansible left the host as declared here");
    // What an earlier sitting counted stays counted: the whole takes an hour.
    let mut rows: Vec<Value> = std::fs::read(&results).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let counted = |mutation: &&Mutation| rows.iter().any(|row| row["name"] == mutation.name);
    for group in groups(chosen().into_iter().filter(|mutation| !counted(mutation)).collect()) {
        rows.extend(look(&field, &ansible, &group));
        save(&results, &rows);
    }
}

/// Lets both look at a host with a group of changes on it, and undoes them.
fn look(field: &Field, ansible: &Ansible, group: &[&Mutation]) -> Vec<Value> {
    for mutation in group {
        field.lab.ssh("h1", "root", &format!("( {}\n) </dev/null", mutation.act));
    }
    let document = field.drift(&["--format", "json"]).json();
    // Only Docker's tasks can see what is Docker's.
    let dockers = |id: &str| ["docker_", "compose_stack", "container", "seccomp"].iter().any(|kind| id.starts_with(kind));
    let only = group.iter().all(|mutation| mutation.expect.iter().all(|(id, _)| dockers(id)));
    let words: &[&str] = if only { &["--check", "--tags", "docker"] } else { &["--check"] };
    let theirs = touched(&ansible.play(words));
    for mutation in group {
        if let Cure::Hand(undo) = mutation.cure {
            field.lab.sh("h1", undo);
        }
    }
    let fixed = field.with_identity(&["drift", "site.yml", "--fix", "--prune", "all"]);
    if fixed.code != 0 {
        eprintln!("not put right: {}", fixed.all());
    }
    let findings = document["hosts"]["h1"]["findings"].as_array().cloned().unwrap_or_default();
    let id = |finding: &Value| format!("{}[{}]", finding["id"]["kind"].as_str().unwrap(), finding["id"]["name"].as_str().unwrap());
    let rows: Vec<Value> = group
        .iter()
        .map(|mutation| {
            let wanted = |name: &str| mutation.expect.iter().any(|(pattern, _)| fits(pattern, name));
            let ours = findings.iter().find(|finding| finding["accepted"].is_null() && wanted(&id(finding)));
            // With nothing else on the host, whatever a task says is about this.
            let named: Vec<&String> = theirs.iter().filter(|name| wanted(name) || group.len() == 1).collect();
            json!({
                "name": mutation.name, "ours": ours.is_some(), "ansible": !named.is_empty(), "tasks": named,
                "kind": mutation.expect[0].0.split('[').next(), "state": ours.map(|finding| finding["state"].clone()),
            })
        })
        .collect();
    let known = |name: &String| group.iter().any(|mutation| mutation.expect.iter().any(|(pattern, _)| fits(pattern, name)));
    let strange: Vec<&String> = theirs.iter().filter(|name| group.len() > 1 && !known(name)).collect();
    if !strange.is_empty() {
        eprintln!("in a group of {}: nobody's tasks {strange:?}", group.len());
    }
    rows
}

fn save(results: &Path, rows: &[Value]) {
    std::fs::write(results, serde_json::to_string_pretty(rows).unwrap()).unwrap();
}
