//! The commands on a project in a temporary directory.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use clap::Parser as _;

use super::editor::Editor;
use super::*;

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    secrets: SecretsArgs,
}

struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let project = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(project.path("")).unwrap();
        let key = project.key();
        project.run(&["keygen", "-o", key.to_str().unwrap()]).unwrap();
        project.run(&["init"]).unwrap();
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("project").join(name)
    }

    /// Outside the project, as it should be.
    fn key(&self) -> PathBuf {
        self.dir.path().join("key")
    }

    fn session(&self) -> Session {
        let sources = IdentitySources { flags: vec![self.key()], ..IdentitySources::default() };
        Session { dir: self.path("secrets"), sources }
    }

    fn run(&self, words: &[&str]) -> Result<(), Vec<String>> {
        let key = self.key();
        let words = ["secrets", "--identity", key.to_str().unwrap()].into_iter().chain(words.iter().copied());
        let arguments = Arguments::try_parse_from(words).map_err(|error| vec![error.to_string()])?;
        dispatch(&arguments.secrets, &self.path("")).map_err(|found| found.into_iter().map(|diagnostic| diagnostic.message).collect())
    }

    fn value(&self, name: &str) -> String {
        let session = self.session();
        let store = session.store();
        let keyring = session.keyring(&store);
        store.reveal(&SecretName::parse(name).unwrap(), access(&keyring)).unwrap().to_string()
    }

    fn edit(&self, file: &str, script: &str, places: &[PathBuf]) -> Result<bool, Vec<Diagnostic>> {
        let editor = self.path("editor.sh");
        fs::write(&editor, format!("#!/bin/sh\n{script}\n")).unwrap();
        // Run by the shell: a script that was just written may still be open elsewhere (ETXTBSY).
        let editor = Editor { program: "/bin/sh".into(), arguments: vec![editor.to_str().unwrap().to_owned()], known: true };
        let session = self.session();
        let mut store = session.store();
        let keyring = session.keyring(&store);
        edit::edit(&mut store, file, &keyring, &editor, places, || false)
    }
}

fn shm() -> Vec<PathBuf> {
    vec![PathBuf::from("/dev/shm")]
}

#[test]
fn keygen_makes_a_private_file_and_overwrites_none() {
    let project = Project::new();
    let key = project.key();
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let again = project.run(&["keygen", "-o", key.to_str().unwrap()]).unwrap_err();
    assert!(again[0].contains("not overwritten"), "{again:?}");
    // Where it would be looked for, which is the file that `--identity` names.
    assert_eq!(project.run(&["keygen"]).unwrap_err(), again);
    assert!(project.run(&["init"]).is_err());
}

#[test]
fn values_are_generated_read_from_files_and_from_commands() {
    let project = Project::new();
    project.run(&["set", "db", "--generate", "40"]).unwrap();
    assert_eq!(project.value("db").len(), 40);
    assert!(project.value("db").bytes().all(|byte| byte.is_ascii_alphanumeric()));
    fs::write(project.path("pem"), "line one\nline two\n").unwrap();
    project.run(&["set", "tls/key", "--file", project.path("pem").to_str().unwrap(), "--into", "tls.yml.age"]).unwrap();
    assert_eq!(project.value("tls/key"), "line one\nline two\n");
    project.run(&["set", "pass", "--from-command", "--", "printf", "from the store\n"]).unwrap();
    assert_eq!(project.value("pass"), "from the store");
    assert!(project.run(&["set", "x", "--from-command", "--", "false"]).unwrap_err()[0].contains("failed"));
    assert!(project.run(&["set", "x", "--generate", "3"]).is_err());
    assert!(project.run(&["set", "x y", "--generate"]).is_err());
    project.run(&["rekey", "--new-digest-key"]).unwrap();
    project.run(&["check"]).unwrap();
    let list = project.session().list();
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(!list.contains("no digest"), "{list}");
}

#[test]
fn edit_changes_what_the_editor_wrote_and_leaves_nothing() {
    let project = Project::new();
    let seen = project.path("seen");
    let script = format!(
        "pwd > {0}; stat -c %a . >> {0}; stat -c %a \"$1\" >> {0}; cp \"$1\" backup~; echo 'db: \"new-value\"' > \"$1\"",
        seen.display()
    );
    assert!(project.edit("all.yml.age", &script, &shm()).unwrap());
    assert_eq!(project.value("db"), "new-value");
    let seen = fs::read_to_string(seen).unwrap();
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines[1..], ["700", "600"]);
    assert!(lines[0].starts_with("/dev/shm/soc-provision-") && !PathBuf::from(lines[0]).exists(), "{seen}");
    assert!(!project.edit("all.yml.age", "true", &shm()).unwrap());
}

#[test]
fn edit_refuses_bad_content_a_failing_editor_and_a_disk() {
    let project = Project::new();
    assert!(project.edit("all.yml.age", "echo 'db: short' > \"$1\"", &shm()).is_err());
    assert!(project.edit("all.yml.age", "echo 'db: \"new-value\"' > \"$1\"; exit 1", &shm()).is_err());
    assert!(!project.path("secrets/all.yml.age").exists());
    let errors = project.edit("all.yml.age", "true", &[PathBuf::from("/proc"), project.path("none")]).unwrap_err();
    assert!(errors[0].message.contains("refusing to edit"), "{errors:?}");
}

#[test]
fn check_finds_leaks_but_not_what_is_ignored_or_allowed() {
    let project = Project::new();
    let word = "password";
    fs::write(project.path("conf.yml"), format!("user: x\n{word}: Hunter2-value\n")).unwrap();
    fs::write(project.path("fixture.yml"), format!("{word}: Hunter2-value\n")).unwrap();
    fs::write(project.path("scratch.yml"), format!("{word}: Hunter2-value\n")).unwrap();
    fs::write(project.path("fake.age"), "plain").unwrap();
    fs::write(project.path(".gitignore"), "scratch.yml\n").unwrap();
    fs::write(
        project.path("secrets/allow.yml"),
        "- {path: fixture.yml, reason: made up for a test}\n- {path: none.yml, reason: covers nothing}\n",
    )
    .unwrap();
    // Once as git lists the files, once without git.
    for with_git in [false, true] {
        if with_git {
            let made = std::process::Command::new("git").args(["init", "-q"]).current_dir(project.path("")).status().unwrap();
            assert!(made.success());
        }
        let found = project.run(&["check"]).unwrap_err();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("`conf.yml:2` looks like a value of `password`"), "{found:?}");
        assert!(found[1].contains("fake.age"), "{found:?}");
        assert!(found[2].contains("`none.yml`"), "{found:?}");
        assert!(!found.concat().contains("Hunter2"));
    }
}

#[test]
fn a_lab_store_needs_no_key_of_ones_own() {
    let project = Project::new();
    project.run(&["--dir", "secrets/lab", "init", "--lab"]).unwrap();
    let session = Session { dir: project.path("secrets/lab"), sources: IdentitySources::default() };
    let store = session.store();
    let mut store = store;
    let keyring = session.keyring(&store);
    store.set(&SecretName::parse("db").unwrap(), "lab-value", None, &keyring).unwrap();
    project.run(&["--dir", "secrets/lab", "check"]).unwrap();
    project.run(&["check"]).unwrap();
}
