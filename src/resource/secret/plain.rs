//! A secret as a file on disk. What was written is recorded beside the journal (fingerprint and
//! SHA-256, root's eyes only), so that a later look needs neither the value nor a key.

use super::{Access, State};
use crate::facts::Facts;
use crate::resource::interview::{SECRET_RECORDS, secret_record};
use crate::resource::observe::{PathKind, Question, SecretFileState, View};
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{Claim, Resource, ResourceId, Severity};
use crate::secret::{SecretName, Text};
use crate::shell::Script;

/// One secret in one file.
#[derive(Clone, Debug)]
pub(super) struct SecretFile {
    pub(super) path: String,
    pub(super) name: SecretName,
    pub(super) access: Access,
    pub(super) state: State,
}

impl Resource for SecretFile {
    fn id(&self) -> ResourceId {
        ResourceId::new("secret", &self.path)
    }

    fn questions(&self, _facts: &Facts) -> Vec<Question> {
        vec![Question::Path(self.path.clone()), Question::SecretFile(self.path.clone())]
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let path = view.path(&self.path)?;
        if let Some(state) = path.filter(|state| state.kind != PathKind::File) {
            return Err(Undecided::Refused(format!(
                "`{}` is {} where a secret's file belongs; remove it first",
                self.path,
                kind(state.kind)
            )));
        }
        let observed = view.secret_file(&self.path)?;
        if self.state == State::Absent {
            return Ok(match path {
                None => Plan::in_sync(),
                Some(_) => touching(&self.path, Plan::default().change(Change::remove("state", "present")).step(self.removal())),
            });
        }
        let text = Text::secret(self.name.clone());
        let fingerprint = view.fingerprint(&text)?;
        let mut plan = Plan::default();
        if self.path.starts_with("/run/") {
            plan = plan.note(format!("`{}` is gone after a reboot; `at_rest: encrypted` puts it back at boot", self.path));
        }
        let written = observed.is_some_and(|observed| observed.intact && observed.recorded.as_deref() == Some(fingerprint.as_str()));
        if !written {
            plan = plan.change(Change::content(&self.path, path.is_some(), text.clone()));
        }
        plan.changes.extend(path.map(|state| self.access.changes(state)).unwrap_or_default());
        if plan.changes.is_empty() {
            return Ok(plan);
        }
        let step = if written {
            Step::new(format!("set owner and mode of {}", self.path), expect(&self.path, observed).append(self.permissions()))
        } else {
            Step::new(format!("write {}", self.path), expect(&self.path, observed).append(self.write(&text, fingerprint.as_str())))
        };
        Ok(touching(&self.path, plan.step(step)))
    }

    fn secrets(&self) -> Vec<SecretName> {
        if self.state == State::Present { vec![self.name.clone()] } else { Vec::new() }
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        if self.state == State::Present { vec![Claim::Path(self.path.clone())] } else { Vec::new() }
    }
}

fn touching(path: &str, plan: Plan) -> Plan {
    plan.effect(Effect::Path(path.to_owned()))
}

fn kind(kind: PathKind) -> &'static str {
    match kind {
        PathKind::File => "a file",
        PathKind::Directory => "a directory",
        PathKind::Link => "a link",
        PathKind::Other => "neither file nor directory",
    }
}

/// Code that ends with 97 unless the file and its record are as observed. Leaves `$f` and `$r`.
pub(super) fn expect(path: &str, observed: Option<&SecretFileState>) -> Script {
    let observed = match observed {
        None => "absent".to_owned(),
        Some(state) => format!("{} {}", if state.intact { "same" } else { "differs" }, state.recorded.as_deref().unwrap_or_default()),
    };
    Script::sh("f={}; r={}; a=; s=; have=absent\n", &[path, &secret_record(path)])
        .then("if [ -f \"$f\" ] && [ ! -L \"$f\" ]; then\nif [ -r \"$r\" ]; then { read -r a && read -r s; } <\"$r\" || s=; fi\n", &[])
        .then("h=$(sha256sum <\"$f\"); h=${h%% *}; if [ \"$h\" = \"$s\" ]; then have=\"same $a\"; else have=\"differs $a\"; fi\nfi\n", &[])
        .then("[ \"$have\" = {} ] || { echo 'the file is not as it was when the plan was made' >&2; exit 97; }\n", &[&observed])
}

/// Code that records fingerprint and digest of the file `$t`, which is to become `$f`.
pub(super) fn record(fingerprint: &str) -> Script {
    Script::sh("mkdir -p -m 0755 {} && mkdir -p -m 0700 {} || exit 1\n", &[parent(SECRET_RECORDS), SECRET_RECORDS])
        .then("h=$(sha256sum <\"$t\") && q=$(mktemp \"$r.XXXXXX\") || exit 1\n", &[])
        .then(
            "printf '%s\\n%s\\n' {} \"${h%% *}\" >\"$q\" && sync \"$q\" && mv -fT -- \"$q\" \"$r\" || { rm -f -- \"$q\"; exit 1; }\n",
            &[fingerprint],
        )
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(parent, _)| parent)
}

impl SecretFile {
    fn write(&self, text: &Text, fingerprint: &str) -> Script {
        Script::sh("d=${f%/*}; [ -d \"${d:-/}\" ] || { echo \"the directory $d does not exist\" >&2; exit 1; }\n", &[])
            .then("umask 077; t=$(mktemp \"$d/.soc-provision.XXXXXX\") || exit 1\ntrap 'rm -f -- \"$t\"' EXIT\n{ ", &[])
            .payload(text)
            .then(
                "; } >\"$t\" && chown {} \"$t\" && chmod {} \"$t\" && sync \"$t\" || exit 1\n",
                &[&self.access.who(), &self.access.mode()],
            )
            .append(record(fingerprint))
            .then("mv -fT -- \"$t\" \"$f\" || exit 1\n", &[])
    }

    fn permissions(&self) -> Script {
        Script::sh("chown {} \"$f\" && chmod {} \"$f\" || exit 1\n", &[&self.access.who(), &self.access.mode()])
    }

    fn removal(&self) -> Step {
        let script = Script::sh("rm -f -- {} {} || exit 1\n", &[&self.path, &secret_record(&self.path)]);
        Step::new(format!("remove {}", self.path), script)
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::resource::observe::{Answer, Observations, PathState, Pending};
    use crate::secret::{KeyedDigests, Vault};

    fn resource(path: &str, state: State) -> SecretFile {
        let owner = rustix::process::getuid().as_raw().to_string();
        let group = rustix::process::getgid().as_raw().to_string();
        SecretFile { path: path.to_owned(), name: SecretName::parse("db").unwrap(), access: Access { owner, group, mode: 0o400 }, state }
    }

    fn plan(resource: &SecretFile, path: Option<PathState>, file: Option<SecretFileState>) -> Result<Plan, Undecided> {
        let mut observed = Observations::default();
        observed.insert(Question::Path(resource.path.clone()), Answer::Path(path));
        observed.insert(Question::SecretFile(resource.path.clone()), Answer::SecretFile(file));
        let mut digests = KeyedDigests::default();
        digests.insert(resource.name.clone(), "d".repeat(64));
        resource.plan(&View::new(&Facts::placeholder("h"), &digests, &observed, &Pending::default()))
    }

    fn state(mode: u32, kind: PathKind) -> PathState {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        PathState { kind, mode, owner: "me".into(), group: "me".into(), uid, gid, size: 1, target: None }
    }

    fn fingerprint() -> String {
        let mut digests = KeyedDigests::default();
        digests.insert(SecretName::parse("db").unwrap(), "d".repeat(64));
        Text::secret(SecretName::parse("db").unwrap()).fingerprint(&digests).unwrap().as_str().to_owned()
    }

    fn seen(recorded: &str, intact: bool) -> SecretFileState {
        SecretFileState { recorded: Some(recorded.to_owned()), intact }
    }

    #[test]
    fn what_is_recorded_and_intact_is_in_sync() {
        let resource = resource("/etc/x", State::Present);
        let whole = |mode| Some(state(mode, PathKind::File));
        assert!(plan(&resource, whole(0o400), Some(seen(&fingerprint(), true))).unwrap().is_in_sync());
        for other in [seen(&fingerprint(), false), seen("other", true), SecretFileState { recorded: None, intact: false }] {
            let plan = plan(&resource, whole(0o400), Some(other)).unwrap();
            assert_eq!(plan.changes.iter().map(|change| change.field.as_str()).collect::<Vec<_>>(), ["content"]);
        }
        let plan = plan(&resource, whole(0o644), Some(seen(&fingerprint(), true))).unwrap();
        assert_eq!(plan.changes[0].field, "mode");
        assert!(plan.steps[0].script.secrets().is_empty());
    }

    #[test]
    fn a_directory_in_its_place_is_refused_and_absent_is_absent() {
        assert!(matches!(
            plan(&resource("/etc/x", State::Present), Some(state(0o700, PathKind::Directory)), None),
            Err(Undecided::Refused(_))
        ));
        assert!(plan(&resource("/etc/x", State::Absent), None, None).unwrap().is_in_sync());
        let removal = plan(&resource("/etc/x", State::Absent), Some(state(0o400, PathKind::File)), Some(seen("x", true))).unwrap();
        assert_eq!(removal.steps.len(), 1);
        assert!(resource("/etc/x", State::Absent).secrets().is_empty());
    }

    #[test]
    fn the_script_writes_once_and_only_over_what_was_observed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db").to_str().unwrap().to_owned();
        let resource = resource(&path, State::Present);
        let records = dir.path().join("records");
        let mut vault = Vault::default();
        vault.insert(resource.name.clone(), Zeroizing::new("it's $(id)\nvalue\n".to_owned()));
        let run = |plan: &Plan| {
            let code = plan.steps[0].script.fill(&vault).unwrap().replace(SECRET_RECORDS, records.to_str().unwrap());
            std::process::Command::new("/bin/sh").arg("-c").arg(code).status().unwrap().code().unwrap()
        };
        let first = plan(&resource, None, None).unwrap();
        assert!(!first.steps[0].script.shown().contains("value\n"));
        assert_eq!(run(&first), 0);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "it's $(id)\nvalue\n");
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o7777, 0o400);
        // The host moved on: the file is there now.
        assert_eq!(run(&first), 97);
        let record = records.join(secret_record(&path).rsplit_once('/').unwrap().1);
        let text = std::fs::read_to_string(&record).unwrap();
        assert_eq!(text, format!("{}\n{}\n", fingerprint(), crate::secret::sha256(b"it's $(id)\nvalue\n")));
        let again = plan(&resource, Some(state(0o400, PathKind::File)), Some(seen("other", true))).unwrap();
        assert_eq!(run(&again), 97);
        std::fs::write(&record, text.replace(&fingerprint(), "other")).unwrap();
        assert_eq!(run(&again), 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
