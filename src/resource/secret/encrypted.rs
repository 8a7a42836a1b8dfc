//! A secret of which the disk holds only ciphertext.
//!
//! `/etc/soc-provision/credentials/FILE.cred` is made by `systemd-creds encrypt` from a file that is
//! in memory already; `soc-secrets.service` mounts a ramfs (never swapped) on `/run/soc-secrets` at
//! boot, before Docker, and installs each file there with its consumer's owner and mode. One drop-in
//! of the unit belongs to each secret, so that secrets do not share a file. The unit itself is the
//! same for all; the first of a run writes it.
//!
//! No digest of the value is on disk either: a look compares on the host what the ciphertext opens
//! to with what is in memory. The unit is never restarted: restarting it would put new files under
//! the mounts of every consumer, so a rotation writes the one file and `notify` restarts the one
//! consumer.

use super::{Access, WithKey};
use crate::facts::Facts;
use crate::resource::argument::{Presence, octal, parent};
use crate::resource::interview::{SECRET_RECORDS, secret_record};
use crate::resource::observe::{PathKind, Question, SecretFileState, View};
use crate::resource::own_file::OwnFile;
use crate::resource::plan::{Change, Effect, Plan, Shown, Step, Undecided};
use crate::resource::{BuildError, Claim, Resource, ResourceId, Severity};
use crate::secret::{SecretName, Text};
use crate::shell::Script;

/// Where the plaintext is: a ramfs that only root can enter; Docker mounts single files from it.
pub(super) const RAM: &str = "/run/soc-secrets";
/// Where the ciphertext is.
const CREDENTIALS: &str = "/etc/soc-provision/credentials";
const UNIT: &str = "soc-secrets.service";
const UNIT_FILE: &str = "/etc/systemd/system/soc-secrets.service";

/// Mounts the memory file system unless it is there.
const MOUNT: &str = "mountpoint -q /run/soc-secrets || { mkdir -p -m 0700 /run/soc-secrets && mount -t ramfs -o mode=0700,nosuid,nodev,noexec ramfs /run/soc-secrets; }";

/// One secret, encrypted at rest.
#[derive(Clone, Debug)]
pub(super) struct EncryptedSecret {
    /// Name of its file in [`RAM`], and of its credential.
    pub(super) file: String,
    pub(super) name: SecretName,
    pub(super) access: Access,
    pub(super) with_key: WithKey,
    pub(super) state: Presence,
}

/// The file's name if the path is directly in [`RAM`] and fit for a credential's name.
pub(super) fn file_in_memory(path: &str) -> Result<String, BuildError> {
    let file = path.strip_prefix(RAM).and_then(|rest| rest.strip_prefix('/'));
    let well_named =
        |file: &&str| !file.starts_with(['.', '-']) && file.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let file = file.filter(well_named).ok_or_else(|| {
        BuildError::field("path", format!("`{path}` is not a file directly in `{RAM}`"))
            .hint("with `at_rest: encrypted` the plaintext is in memory only; mount it from there")
    })?;
    Ok(file.to_owned())
}

impl Resource for EncryptedSecret {
    fn id(&self) -> ResourceId {
        ResourceId::new("secret", self.path())
    }

    fn questions(&self, _facts: &Facts) -> Vec<Question> {
        let mut questions =
            vec![Question::Path(self.path()), Question::SecretFile(self.credential()), Question::Unit(UNIT.to_owned()), self.comparison()];
        questions.extend(unit().questions());
        questions.extend(self.drop_in().questions());
        questions
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let path = view.path(&self.path())?;
        let credential = view.secret_file(&self.credential())?;
        let comparison = view.raw(&self.comparison())?.stdout.trim();
        if self.state == Presence::Absent {
            let there = path.is_some() || credential.is_some() || view.path(&self.drop_in().path)?.is_some();
            return Ok(if there {
                self.effects(Plan::default().change(Change::remove("state", "present")).step(self.removal()))
            } else {
                Plan::in_sync()
            });
        }
        if comparison == "no systemd-creds" {
            return Err(Undecided::Refused(
                "the host has no `systemd-creds` (systemd 250 or later) to encrypt with; use `at_rest: plain` there".to_owned(),
            ));
        }
        if let Some(state) = path.filter(|state| state.kind != PathKind::File) {
            return Err(Undecided::Refused(format!(
                "`{}` is no file ({:?}); a container that was started without the secret may have made it: remove both",
                self.path(),
                state.kind
            )));
        }
        let text = Text::secret(self.name.clone());
        let fingerprint = view.fingerprint(&text)?;
        let mut plan = Plan::default();
        let stored = credential.is_some_and(|state| state.intact && state.recorded.as_deref() == Some(fingerprint.as_str()));
        if !stored {
            let before = if credential.is_some() { Shown::Hidden } else { Shown::Absent };
            plan.changes.push(Change { field: "credential".to_owned(), before, after: Shown::Content(text.clone()) });
        }
        if path.is_none() || comparison != "same" {
            plan.changes.push(Change {
                before: if path.is_some() { Shown::Hidden } else { Shown::Absent },
                ..Change::content(&self.path(), false, text.clone())
            });
        }
        let rewrite = !plan.changes.is_empty();
        plan.changes.extend(path.map(|state| self.access.changes(state)).unwrap_or_default());
        let permissions = !rewrite && !plan.changes.is_empty();
        let units = self.plan_units(view, &mut plan)?;
        if rewrite {
            plan.steps.push(Step::new(
                format!("encrypt {} and put it into memory", self.name),
                expect(&self.credential(), credential).append(self.write(&text, fingerprint.as_str())),
            ));
        } else if permissions {
            let script = Script::sh(
                "chown {} {} && chmod {} {} || exit 1\n",
                &[&self.access.who(), &self.path(), &octal(self.access.mode), &self.path()],
            );
            plan.steps.push(Step::new(format!("set owner and mode of {}", self.path()), script));
        }
        plan.steps.extend(units);
        Ok(if plan.is_in_sync() { plan } else { self.effects(plan) })
    }

    fn secrets(&self) -> Vec<SecretName> {
        if self.state == Presence::Present { vec![self.name.clone()] } else { Vec::new() }
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        match self.state {
            Presence::Absent => Vec::new(),
            Presence::Present => vec![
                Claim::Path(self.path()),
                Claim::Path(self.credential()),
                Claim::Path(self.drop_in().path),
                Claim::Path(UNIT_FILE.to_owned()),
            ],
        }
    }
}

/// Code that ends with 97 unless the file and its record are as observed. Leaves `$f` and `$r`.
fn expect(path: &str, observed: Option<&SecretFileState>) -> Script {
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
fn record(fingerprint: &str) -> Script {
    Script::sh("mkdir -p -m 0755 {} && mkdir -p -m 0700 {} || exit 1\n", &[parent(SECRET_RECORDS), SECRET_RECORDS])
        .then("h=$(sha256sum <\"$t\") && q=$(mktemp \"$r.XXXXXX\") || exit 1\n", &[])
        .then(
            "printf '%s\\n%s\\n' {} \"${h%% *}\" >\"$q\" && sync \"$q\" && mv -fT -- \"$q\" \"$r\" || { rm -f -- \"$q\"; exit 1; }\n",
            &[fingerprint],
        )
}

/// The boot unit, the same for every secret.
fn unit() -> OwnFile {
    let content = format!(
        "# Written by soc-provision. Each secret adds a drop-in.\n\
         [Unit]\n\
         Description=Encrypted secrets into memory\n\
         DefaultDependencies=no\n\
         After=local-fs.target systemd-tmpfiles-setup.service\n\
         Before=docker.service docker.socket\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         UMask=0077\n\
         ExecStart=/bin/sh -c '{MOUNT}'\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    );
    OwnFile::readable(UNIT_FILE, content)
}

impl EncryptedSecret {
    fn path(&self) -> String {
        format!("{RAM}/{}", self.file)
    }

    fn credential(&self) -> String {
        format!("{CREDENTIALS}/{}.cred", self.file)
    }

    /// What puts this secret into memory at boot: the same as [`EncryptedSecret::write`] does now.
    fn drop_in(&self) -> OwnFile {
        let file = &self.file;
        let (owner, group) = (&self.access.owner.0, &self.access.group.0);
        let content = format!(
            "# Written by soc-provision.\n\
             [Service]\n\
             LoadCredentialEncrypted={file}:{}\n\
             ExecStart=/bin/sh -c 'install -m {} -o {owner} -g {group} \"$$CREDENTIALS_DIRECTORY/{file}\" {RAM}/.{file} && mv -fT {RAM}/.{file} {RAM}/{file}'\n",
            self.credential(),
            octal(self.access.mode),
        );
        OwnFile::readable(format!("/etc/systemd/system/{UNIT}.d/{file}.conf"), content)
    }

    fn key(&self) -> String {
        format!("soc-secrets {}", self.file)
    }

    /// Whether what the ciphertext opens to is what is in memory; neither leaves the host.
    fn comparison(&self) -> Question {
        let script = Script::sh("if ! command -v systemd-creds >/dev/null; then echo 'no systemd-creds'\n", &[])
            .then("elif [ -f {} ] && [ -f {} ]; then\n", &[&self.credential(), &self.path()])
            .then(
                "if systemd-creds decrypt --name={} {} - 2>/dev/null | cmp -s - {}; then echo same; else echo differs; fi\n",
                &[&self.file, &self.credential(), &self.path()],
            )
            .then("else echo absent; fi\n", &[]);
        Question::Raw { key: self.key(), script }
    }

    /// Changes and steps of the unit and this secret's drop-in. A secret earlier in the run that
    /// is going to write the unit writes the same, so there is nothing to wait for.
    fn plan_units(&self, view: &View<'_>, plan: &mut Plan) -> Result<Option<Step>, Undecided> {
        let mut script = Script::new();
        let drop_in = self.drop_in();
        let changes = drop_in.changes(view)?;
        if !changes.is_empty() {
            script = script.append(drop_in.write(view)?);
            plan.changes.extend(changes);
        }
        if view.pending(|effect| matches!(effect, Effect::Path(path) if path == UNIT_FILE)).is_none() {
            let changes = unit().changes(view)?;
            if !changes.is_empty() {
                script = script.append(unit().write(view)?);
                plan.effects.push(Effect::Path(UNIT_FILE.to_owned()));
                plan.changes.extend(changes);
            }
        }
        if view.pending(|effect| matches!(effect, Effect::Unit(unit) if unit == UNIT)).is_none() {
            let state = view.unit(UNIT)?;
            let (file, active) = state.map_or(("", ""), |state| (state.file.as_str(), state.active.as_str()));
            let mut starts = false;
            for (field, before, wanted) in [("boot unit", file, "enabled"), ("boot unit state", active, "active")] {
                if before != wanted {
                    starts = true;
                    plan.changes.push(Change::of(field, if before.is_empty() { "absent" } else { before }, wanted));
                }
            }
            if starts {
                plan.effects.push(Effect::Unit(UNIT.to_owned()));
                let start =
                    Script::sh("systemctl daemon-reload && systemctl enable --quiet {} && systemctl start {} || exit 1\n", &[UNIT, UNIT]);
                return Ok(Some(Step::new(format!("enable and start {UNIT}"), script.append(start))));
            }
        }
        if script.is_empty() {
            return Ok(None);
        }
        Ok(Some(Step::new(format!("update {UNIT}"), script.then("systemctl daemon-reload || exit 1\n", &[]))))
    }

    /// Plaintext into memory under a dot name, ciphertext from there, opened again to be sure, and
    /// both moved into place. `$f` and `$r` are the credential and its record.
    fn write(&self, text: &Text, fingerprint: &str) -> Script {
        let with_key = match self.with_key {
            WithKey::Auto => "auto",
            WithKey::Host => "host",
            WithKey::Tpm2 => "tpm2",
        };
        Script::sh(MOUNT, &[])
            .then(" || exit 1\nm={}; mkdir -p -m 0755 {} && mkdir -p -m 0700 {} || exit 1\n", &[&self.path(), "/etc/soc-provision", CREDENTIALS])
            .then("umask 077; n={}; t=$(mktemp \"$f.XXXXXX\") || exit 1\ntrap 'rm -f -- \"$t\" \"$n\"' EXIT\n{ ", &[&format!("{RAM}/.{}", self.file)])
            .payload(text)
            .then("; } >\"$n\" && chown {} \"$n\" && chmod {} \"$n\" || exit 1\n", &[&self.access.who(), &octal(self.access.mode)])
            // It refuses to write over a file that is there.
            .then("rm -f -- \"$t\"; systemd-creds encrypt --with-key={} --name={} \"$n\" \"$t\" || exit 1\n", &[with_key, &self.file])
            .then("systemd-creds decrypt --name={} \"$t\" - | cmp -s - \"$n\" || { echo 'what was encrypted does not open again' >&2; exit 1; }\n", &[&self.file])
            .then("chmod 0600 \"$t\" && sync \"$t\" || exit 1\n", &[])
            .append(record(fingerprint))
            .then("mv -fT -- \"$t\" \"$f\" && mv -fT -- \"$n\" \"$m\" || exit 1\n", &[])
    }

    /// Removes this secret; with the last one the unit and the mount go too.
    fn removal(&self) -> Step {
        let script = Script::sh(
            "rm -f -- {} {} {} {} || exit 1\n",
            &[&self.path(), &self.credential(), &secret_record(&self.credential()), &self.drop_in().path],
        )
        .then(
            "if rmdir {} 2>/dev/null; then systemctl disable --quiet --now {} 2>/dev/null; rm -f -- {}\n",
            &[&format!("/etc/systemd/system/{UNIT}.d"), UNIT, UNIT_FILE],
        )
        .then("if mountpoint -q {}; then umount {} || exit 1; fi; fi\nsystemctl daemon-reload || exit 1\n", &[RAM, RAM]);
        Step::new(format!("remove {}", self.path()), script)
    }

    fn effects(&self, plan: Plan) -> Plan {
        plan.effect(Effect::Path(self.path()))
            .effect(Effect::Path(self.credential()))
            .effect(Effect::Path(self.drop_in().path))
            .effect(Effect::Raw(self.key()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::argument::Account;
    use crate::resource::observe::{Answer, Observations, PathState, Pending, RawOutput, SecretFileState, UnitState};
    use crate::resource::own_file::testing::present;
    use crate::secret::KeyedDigests;

    fn resource(file: &str) -> EncryptedSecret {
        let access = Access { owner: Account("1000".into()), group: Account("1000".into()), mode: 0o400 };
        EncryptedSecret {
            file: file.to_owned(),
            name: SecretName::parse("db").unwrap(),
            access,
            with_key: WithKey::Auto,
            state: Presence::Present,
        }
    }

    fn digests() -> KeyedDigests {
        let mut digests = KeyedDigests::default();
        digests.insert(SecretName::parse("db").unwrap(), "d".repeat(64));
        digests
    }

    fn answers(resource: &EncryptedSecret, comparison: &str, there: bool) -> Observations {
        let fingerprint = Text::secret(resource.name.clone()).fingerprint(&digests()).unwrap();
        let state = PathState {
            kind: PathKind::File,
            mode: 0o400,
            owner: String::new(),
            group: String::new(),
            uid: 1000,
            gid: 1000,
            size: 9,
            target: None,
            names: 1,
            marks: Vec::new(),
        };
        let unit_state = UnitState {
            load: "loaded".into(),
            active: "active".into(),
            sub: "exited".into(),
            file: "enabled".into(),
            ..UnitState::default()
        };
        let mut observed = Observations::default();
        for question in resource.questions(&Facts::placeholder("h")) {
            let answer = match &question {
                Question::Path(_) => Answer::Path(None),
                Question::Digest(_) => Answer::Digest(None),
                Question::SecretFile(_) => {
                    Answer::SecretFile(there.then(|| SecretFileState { recorded: Some(fingerprint.as_str().to_owned()), intact: true }))
                }
                Question::Unit(_) => Answer::Unit(there.then(|| unit_state.clone())),
                _ => Answer::Raw(RawOutput { status: 0, stdout: comparison.to_owned() }),
            };
            observed.insert(question, answer);
        }
        if there {
            observed.insert(Question::Path(resource.path()), Answer::Path(Some(state)));
            for file in [unit(), resource.drop_in()] {
                present(&mut observed, &file.path, 0o644, &file.content);
            }
        }
        observed
    }

    fn plan(resource: &EncryptedSecret, observed: &Observations, pending: &Pending) -> Result<Plan, Undecided> {
        resource.plan(&View::new(&Facts::placeholder("h"), &digests(), observed, pending))
    }

    #[test]
    fn a_bare_host_gets_credential_file_drop_in_and_unit() {
        let first = resource("db");
        let planned = plan(&first, &answers(&first, "absent", false), &Pending::default()).unwrap();
        assert_eq!(planned.steps.len(), 2);
        assert_eq!(planned.steps[0].script.secrets(), first.secrets());
        // A second one of the same run needs no second look: the unit will be there.
        let mut pending = Pending::default();
        pending.add(&first.id(), &planned.effects);
        let second = resource("other");
        let planned = plan(&second, &answers(&second, "absent", false), &pending).unwrap();
        let fields: Vec<_> = planned.changes.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(fields, ["credential", "content", "/etc/systemd/system/soc-secrets.service.d/other.conf"]);
        assert!(planned.steps[1].script.shown().contains("daemon-reload"));
    }

    #[test]
    fn what_is_there_is_in_sync_and_each_difference_is_seen() {
        let resource = resource("db");
        let none = Pending::default();
        assert!(plan(&resource, &answers(&resource, "same", true), &none).unwrap().is_in_sync());
        let differs = plan(&resource, &answers(&resource, "differs", true), &none).unwrap();
        assert_eq!(differs.changes.iter().map(|change| change.field.as_str()).collect::<Vec<_>>(), ["content"]);
        let mut other = resource.clone();
        other.access.owner = Account("2000".into());
        let planned = plan(&other, &answers(&resource, "same", true), &none).unwrap();
        assert_eq!(planned.changes[0].field, "owner");
        assert!(planned.steps.iter().all(|step| step.script.secrets().is_empty()));
        assert!(matches!(plan(&resource, &answers(&resource, "no systemd-creds", false), &none), Err(Undecided::Refused(_))));
    }

    #[test]
    fn the_drop_in_is_what_systemd_reads() {
        let text = resource("db").drop_in().content;
        assert!(text.contains("LoadCredentialEncrypted=db:/etc/soc-provision/credentials/db.cred\n"), "{text}");
        assert!(text.contains("-m 0400 -o 1000 -g 1000 \"$$CREDENTIALS_DIRECTORY/db\""), "{text}");
        assert!(unit().content.contains("Before=docker.service docker.socket\n"));
    }

    #[test]
    fn scripts_are_good_shell() {
        let resource = resource("db");
        let text = Text::plain("value");
        let Question::Raw { script: comparison, .. } = resource.comparison() else { panic!() };
        for script in [resource.write(&text, "f"), resource.removal().script, comparison] {
            let code = script.fill(&crate::secret::Vault::default()).unwrap();
            let checked = std::process::Command::new("/bin/sh").args(["-n", "-c", &*code]).output().unwrap();
            assert!(checked.status.success(), "{}\n{}", &*code, String::from_utf8_lossy(&checked.stderr));
        }
    }
}
