//! The store as its users see it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use zeroize::Zeroizing;

use super::*;

struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    /// A store encrypted to a new age key.
    fn new() -> Self {
        let project = Self { dir: tempfile::tempdir().unwrap() };
        let public = project.age_key("me");
        Store::init(&project.secrets(), InitKeys::Recipients(vec![format!("{public} me")])).unwrap();
        project
    }

    fn secrets(&self) -> PathBuf {
        self.dir.path().join("secrets")
    }

    fn store(&self) -> Store {
        Store::open(self.dir.path())
    }

    fn age_key(&self, name: &str) -> String {
        let (text, public) = generate("now");
        fs::write(self.dir.path().join(name), &*text).unwrap();
        public
    }

    fn ssh_key(&self, name: &str, passphrase: &str) -> String {
        let path = self.dir.path().join(name);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-C", "user@host", "-N", passphrase, "-f"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(made.success());
        fs::read_to_string(path.with_extension("pub")).unwrap().trim().to_owned()
    }

    fn keyring(&self, key: &str) -> Keyring {
        self.keyring_asking(key, None)
    }

    fn keyring_asking(&self, key: &str, ask: Option<Ask>) -> Keyring {
        self.store().keyring(IdentitySources { flags: vec![self.dir.path().join(key)], ..IdentitySources::default() }, ask)
    }

    fn set(&self, name: &str, value: &str, into: Option<&str>) -> Result<String, Vec<VaultError>> {
        self.store().set(&secret(name), value, into, &self.keyring("me"))
    }

    fn get(&self, name: &str, key: &str) -> Result<String, VaultError> {
        let keyring = self.keyring(key);
        let store = self.store();
        let unlocked = store.unlock(&[secret(name)], access(&keyring)).map_err(|mut errors| errors.remove(0))?;
        let value = store.reveal(&secret(name), access(&keyring)).unwrap();
        // What the vault holds shows in what its masker hides.
        assert_eq!(unlocked.vault.masker().mask(&value), crate::secret::Masker::STARS);
        Ok(value.to_string())
    }

    fn rekey(&self, key: &str, digests: RekeyDigests) -> Result<usize, Vec<VaultError>> {
        let keyring = self.keyring(key);
        self.store().rekey(access(&keyring), digests)
    }

    fn audit(&self, key: Option<&str>) -> Vec<String> {
        let keyring = key.map(|key| self.keyring(key));
        let found = self.store().audit(keyring.as_ref().map(access));
        found.iter().map(|diagnostic| diagnostic.message.clone()).collect()
    }

    fn add_recipient(&self, line: &str) {
        let path = self.secrets().join(RECIPIENTS);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{text}{line}\n")).unwrap();
    }
}

fn secret(name: &str) -> SecretName {
    SecretName::parse(name).unwrap()
}

fn access(keyring: &Keyring) -> Access<'_> {
    Access {
        keyring,
        run: &|command| {
            if command[0] == "fail" { Err("exit status 3".into()) } else { Ok(Zeroizing::new(format!("{}\n", command[1]).into_bytes())) }
        },
    }
}

#[test]
fn values_come_back_and_nothing_on_disk_shows_them() {
    let project = Project::new();
    assert_eq!(project.set("db", "first-value", None).unwrap(), "db.age");
    assert_eq!(project.set("waf/admin", "second-value", Some("web.yml.age")).unwrap(), "web.yml.age");
    assert_eq!(project.set("waf/admin", "third-value", None).unwrap(), "web.yml.age");
    assert_eq!(project.get("db", "me").unwrap(), "first-value");
    assert_eq!(project.get("waf/admin", "me").unwrap(), "third-value");
    for entry in fs::read_dir(project.secrets()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("-value"));
    }
    assert_eq!(project.audit(Some("me")), Vec::<String>::new());
}

#[test]
fn names_and_digests_need_no_identity() {
    let project = Project::new();
    project.set("db", "first-value", None).unwrap();
    project.set("waf/admin", "second-value", Some("web.yml.age")).unwrap();
    let keyring = project.keyring("me");
    project.store().set_command(&secret("from-command"), vec!["echo".into(), "third-value".into()], access(&keyring)).unwrap();
    fs::remove_file(project.dir.path().join("me")).unwrap();
    let store = project.store();
    assert_eq!(store.names(), [secret("db"), secret("from-command"), secret("waf/admin")]);
    assert_eq!(store.digests().names().count(), 3);
    assert_eq!(store.undigested(&store.names()), []);
    assert_eq!(store.place(&secret("waf/admin")).as_deref(), Some("web.yml.age"));
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    // No name: no identity is asked for.
    let none = Keyring::new(IdentitySources::default(), None);
    assert!(store.unlock(&[], access(&none)).is_ok());
}

#[test]
fn rekey_lets_a_colleague_in_and_keeps_the_digests() {
    let project = Project::new();
    project.set("db", "first-value", None).unwrap();
    project.set("web", "second-value", Some("web.yml.age")).unwrap();
    let before = fs::read_to_string(project.secrets().join("digests.yml")).unwrap();
    let secrets_of = |text: &str| text.split("files:").next().unwrap().to_owned();
    let ssh = project.ssh_key("colleague", "");
    assert!(matches!(project.get("db", "colleague"), Err(VaultError::WrongIdentity { .. })));
    project.add_recipient(&ssh);
    let found = project.audit(None);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].contains("not encrypted to user@host"), "{found:?}");
    assert_eq!(project.rekey("me", RekeyDigests::Keep).unwrap(), 3);
    assert_eq!(project.get("db", "colleague").unwrap(), "first-value");
    assert_eq!(project.get("web", "colleague").unwrap(), "second-value");
    let after = fs::read_to_string(project.secrets().join("digests.yml")).unwrap();
    assert_eq!(secrets_of(&before), secrets_of(&after));
    assert_eq!(project.audit(Some("colleague")), Vec::<String>::new());
    project.rekey("colleague", RekeyDigests::New).unwrap();
    assert_ne!(secrets_of(&after), secrets_of(&fs::read_to_string(project.secrets().join("digests.yml")).unwrap()));
    assert_eq!(project.get("db", "me").unwrap(), "first-value");
}

#[test]
fn a_removed_recipient_is_found_until_rekey_and_then_locked_out() {
    let project = Project::new();
    let gone = project.age_key("gone");
    project.add_recipient(&gone);
    project.set("db", "first-value", None).unwrap();
    project.rekey("me", RekeyDigests::Keep).unwrap();
    assert_eq!(project.get("db", "gone").unwrap(), "first-value");
    let path = project.secrets().join(RECIPIENTS);
    let text = fs::read_to_string(&path).unwrap().replace(&gone, "");
    fs::write(path, text).unwrap();
    assert!(project.audit(None).iter().all(|line| line.contains("encrypted to 2 keys where `recipients.txt` has 1")));
    assert_eq!(project.audit(None).len(), 2);
    project.rekey("me", RekeyDigests::Keep).unwrap();
    assert!(matches!(project.get("db", "gone"), Err(VaultError::WrongIdentity { .. })));
}

#[test]
fn a_key_with_a_passphrase_is_asked_for_once_and_only_when_needed() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    let project = Project::new();
    let ssh = project.ssh_key("locked", "correct horse");
    project.add_recipient(&ssh);
    project.rekey("me", RekeyDigests::Keep).unwrap();
    project.set("a", "first-value", None).unwrap();
    project.set("b", "second-value", None).unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let counter = asked.clone();
    let ask: Ask = Box::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Some(Zeroizing::new("correct horse".to_owned()))
    });
    let keyring = project.keyring_asking("locked", Some(ask));
    assert!(project.store().unlock(&[secret("a"), secret("b")], access(&keyring)).is_ok());
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let wrong = project.keyring_asking("locked", Some(Box::new(|_| Some(Zeroizing::new("wrong".to_owned())))));
    let errors = project.store().unlock(&[secret("a")], access(&wrong)).err().unwrap();
    assert!(matches!(&errors[..], [VaultError::LockedIdentity { .. }]), "{errors:?}");
    assert!(project.get("a", "locked").unwrap_err().to_string().contains("no terminal"));
}

#[test]
fn broken_files_and_keys_are_told_apart() {
    let project = Project::new();
    project.set("db", "first-value", None).unwrap();
    let path = project.secrets().join("db.age");
    let whole = fs::read(&path).unwrap();
    for length in [0, 10, 60, whole.len() / 2, whole.len() - 70, whole.len() - 30] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = project.get("db", "me").unwrap_err();
        assert!(matches!(error, VaultError::Corrupted { .. }), "{length}: {error:?}");
    }
    // Each changed byte of the armored text is found.
    for index in (40..whole.len() - 40).step_by(7) {
        let mut changed = whole.clone();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        fs::write(&path, &changed).unwrap();
        let error = project.get("db", "me").unwrap_err();
        assert!(matches!(error, VaultError::Corrupted { .. } | VaultError::WrongIdentity { .. }), "{index}: {error:?}");
    }
    fs::write(&path, "first-value in clear, under an age name").unwrap();
    assert!(project.audit(None)[0].contains("db.age` is corrupted or truncated"), "{:?}", project.audit(None));
    fs::write(&path, &whole).unwrap();
    fs::write(project.dir.path().join("junk"), "not a key\n").unwrap();
    fs::write(project.dir.path().join("pub"), "ssh-ed25519 AAAA x\n").unwrap();
    fs::write(project.dir.path().join("empty"), "# nothing\n").unwrap();
    fs::write(project.dir.path().join("cut"), "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n").unwrap();
    for key in ["junk", "pub", "empty", "cut", "absent"] {
        let error = project.get("db", key).unwrap_err();
        assert!(matches!(error, VaultError::UnreadableIdentity { .. }), "{key}: {error:?}");
    }
}

#[test]
fn without_identity_every_place_is_named() {
    let project = Project::new();
    project.set("db", "first-value", None).unwrap();
    let sources = IdentitySources { home: Some(project.dir.path().join("home")), ..IdentitySources::default() };
    let keyring = Keyring::new(sources, None);
    let errors = project.store().unlock(&[secret("db")], access(&keyring)).err().unwrap();
    assert_eq!(errors.len(), 1);
    let text = errors[0].to_string();
    for place in ["--identity", "SOC_PROVISION_IDENTITY", "soc-provision.yml", ".config/soc-provision/identity.txt", ".ssh/id_ed25519"] {
        assert!(text.contains(place), "{place}: {text}");
    }
    let home = project.dir.path().join("home/.config/soc-provision");
    fs::create_dir_all(&home).unwrap();
    fs::copy(project.dir.path().join("me"), home.join("identity.txt")).unwrap();
    let sources = IdentitySources { home: Some(project.dir.path().join("home")), ..IdentitySources::default() };
    assert!(project.store().unlock(&[secret("db")], access(&Keyring::new(sources, None))).is_ok());
}

#[test]
fn recipients_must_be_there_and_well() {
    let project = Project::new();
    let path = project.secrets().join(RECIPIENTS);
    fs::write(&path, "# nobody\n").unwrap();
    let errors = project.set("db", "first-value", None).unwrap_err();
    assert!(matches!(&errors[..], [VaultError::Recipients { .. }]), "{errors:?}");
    fs::write(&path, "ssh-rsa AAAA x\nage1junk\nAGE-SECRET-KEY-1ABC\n").unwrap();
    let problems = project.store().problems();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(!problems[2].message.contains("1ABC"), "{problems:?}");
}

#[test]
fn short_values_doubles_and_unknown_names_are_refused() {
    let project = Project::new();
    assert!(matches!(&project.set("db", "short", None).unwrap_err()[..], [VaultError::TooShort { .. }]));
    assert!(!project.secrets().join("db.age").exists());
    project.set("db_password", "first-value", None).unwrap();
    assert!(matches!(&project.set("db_password", "second-value", Some("x.yml.age")).unwrap_err()[..], [VaultError::Twice { .. }]));
    let keyring = project.keyring("me");
    let errors = project.store().replace_file("x.yml.age", b"db_password: 'second-value'\n", &keyring).unwrap_err();
    assert!(matches!(&errors[..], [VaultError::Twice { .. }]), "{errors:?}");
    let Err(VaultError::Unknown { near, .. }) = project.get("db_pasword", "me") else { panic!() };
    assert_eq!(near.as_deref(), Some("db_password"));
    for file in ["../x.yml.age", "/x.yml.age", "digest-key.age", "x.txt", "a/../b.yml.age"] {
        assert!(project.store().replace_file(file, b"a: 'first-value'\n", &keyring).is_err(), "{file}");
    }
}

#[test]
fn a_file_written_with_the_age_tool_is_found_and_used() {
    let project = Project::new();
    let store = project.store();
    let foreign = store.recipients().encrypt(b"other: 'foreign-value'\n", Path::new("r")).unwrap();
    fs::write(project.secrets().join("foreign.yml.age"), foreign).unwrap();
    assert_eq!(project.get("other", "me").unwrap(), "foreign-value");
    assert!(project.audit(None)[0].contains("was not written by soc-provision"), "{:?}", project.audit(None));
    project.rekey("me", RekeyDigests::Keep).unwrap();
    assert_eq!(project.audit(Some("me")), Vec::<String>::new());
    let changed = project.store().recipients().encrypt(b"other: 'changed-value'\n", Path::new("r")).unwrap();
    fs::write(project.secrets().join("foreign.yml.age"), changed).unwrap();
    assert!(project.audit(None)[0].contains("changed by other means"));
    assert!(project.audit(Some("me")).iter().any(|line| line.contains("the digest of secret `other` is not that of its value")));
    let keyring = project.keyring("me");
    let unlocked = project.store().unlock(&[secret("other")], access(&keyring)).unwrap();
    assert_eq!(unlocked.warnings.len(), 1);
    assert_ne!(unlocked.digests.get(&secret("other")), project.store().digests().get(&secret("other")));
}

#[test]
fn commands_give_values_without_their_last_newline() {
    let project = Project::new();
    fs::write(project.secrets().join(COMMANDS), "a: {command: [echo, printed-value]}\nb: {command: [fail]}\n").unwrap();
    assert_eq!(project.get("a", "me").unwrap(), "printed-value");
    let error = project.get("b", "me").unwrap_err();
    assert_eq!(error.to_string(), "the command of secret `b` failed: exit status 3");
    assert_eq!(project.store().undigested(&[secret("a")]).len(), 1);
    fs::write(project.secrets().join(COMMANDS), "a: {command: []}\n").unwrap();
    assert_eq!(project.store().problems().len(), 1);
}

#[test]
fn a_failing_rekey_changes_nothing() {
    let project = Project::new();
    project.set("a", "first-value", None).unwrap();
    project.set("b", "second-value", None).unwrap();
    fs::write(project.secrets().join("b.age"), "broken").unwrap();
    let before = fs::read(project.secrets().join("a.age")).unwrap();
    let errors = project.rekey("me", RekeyDigests::New).unwrap_err();
    assert!(matches!(&errors[..], [VaultError::Corrupted { .. }]), "{errors:?}");
    assert_eq!(fs::read(project.secrets().join("a.age")).unwrap(), before);
    assert_eq!(project.get("a", "me").unwrap(), "first-value");
    let left: Vec<_> = fs::read_dir(project.secrets())
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn lab_secrets_open_by_themselves_and_only_in_a_lab() {
    let project = Project::new();
    let lab = project.secrets().join("lab");
    Store::init(&lab, InitKeys::Lab).unwrap();
    let mut store = Store::select(project.dir.path(), Some("lab")).unwrap();
    let keyring = store.keyring(IdentitySources::default(), None);
    store.set(&secret("db"), "lab-value", None, &keyring).unwrap();
    assert!(store.unlock(&[secret("db")], access(&keyring)).is_ok());
    // The outer store does not see them, and must not be encrypted to their key.
    let outer = Store::select(project.dir.path(), None).unwrap();
    assert!(outer.names().is_empty() && outer.problems().is_empty());
    let key = store.recipients().iter().next().unwrap().0.to_owned();
    project.add_recipient(&key);
    assert!(project.store().problems()[0].message.contains("lab-only key"));
    fs::write(project.secrets().join(LAB_MARKER), "").unwrap();
    assert!(matches!(Store::select(project.dir.path(), None), Err(VaultError::LabOnly { .. })));
    assert!(Store::select(project.dir.path(), Some("../x")).is_err());
}

#[test]
fn an_opener_shared_by_hosts_runs_and_opens_once() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    let project = Project::new();
    project.set("a", "first-value", Some("all.yml.age")).unwrap();
    project.set("b", "second-value", Some("all.yml.age")).unwrap();
    fs::write(project.secrets().join(COMMANDS), "c: {command: [x]}\n").unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let counter = runs.clone();
    let run: OwnedRun = Box::new(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(Zeroizing::new(b"third-value".to_vec()))
    });
    let opener = Opener::new(project.keyring("me"), run);
    let store = project.store();
    let (digests, warnings) = opener.digests(&store);
    assert!(warnings.is_empty());
    assert_eq!(digests.names().count(), 3);
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "c"] {
            let (opener, store) = (&opener, &store);
            scope.spawn(move || assert!(opener.unlock(store, &[secret(name)]).unwrap().vault.contains(&secret(name))));
        }
    });
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    // Once open, the file is not read again.
    fs::remove_file(project.secrets().join("all.yml.age")).unwrap();
    assert!(opener.unlock(&store, &[secret("a"), secret("b")]).is_ok());
    assert_eq!(opener.reveal(&store, &secret("b")).unwrap().as_str(), "second-value");
    let nobody = Opener::new(Keyring::new(IdentitySources::default(), None), Box::new(|_| Err("no".into())));
    assert_eq!(nobody.digests(&store).1.len(), 1);
}
