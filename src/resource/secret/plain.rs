//! A secret as a file on disk. How it is compared (a record of what was written, root's eyes only)
//! and written whole is [`ManagedFile`]'s.

use crate::facts::Facts;
use crate::resource::argument::Presence;
use crate::resource::managed::{ManagedFile, remove_file};
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Plan, Undecided};
use crate::resource::{Claim, Resource, ResourceId, Severity};
use crate::secret::SecretName;

/// One secret in one file.
#[derive(Clone, Debug)]
pub(super) struct SecretFile {
    pub(super) file: ManagedFile,
    pub(super) state: Presence,
}

impl Resource for SecretFile {
    fn id(&self) -> ResourceId {
        ResourceId::new("secret", &self.file.path)
    }

    fn questions(&self, _facts: &Facts) -> Vec<Question> {
        self.file.questions()
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        if self.state == Presence::Absent {
            return remove_file(view, &self.file.path);
        }
        let plan = self.file.plan(view)?;
        if self.file.path.starts_with("/run/") {
            return Ok(plan.note(format!("`{}` is gone after a reboot; `at_rest: encrypted` puts it back at boot", self.file.path)));
        }
        Ok(plan)
    }

    fn secrets(&self) -> Vec<SecretName> {
        if self.state == Presence::Present { self.file.body.secrets() } else { Vec::new() }
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        if self.state == Presence::Present { vec![Claim::Path(self.file.path.clone())] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use crate::resource::interview::secret_record;
    use crate::resource::testing::Bench;

    /// Writes records of secret files, as apply does: only root can.
    fn is_root() -> bool {
        rustix::process::getuid().is_root()
    }

    #[test]
    fn the_file_is_the_secret_and_each_difference_is_put_right() {
        if !is_root() {
            eprintln!("skipped: only root can write below /var/lib");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db").to_str().unwrap().to_owned();
        let yaml = format!("secret: {{name: db, path: {path}, owner: 1000, group: 1000}}");
        let mut bench = Bench::default();
        bench.secret("db", "it's $(id)\nvalue\n");
        let plan = bench.converge(&yaml);
        assert!(!plan.steps[0].script.shown().contains("value"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "it's $(id)\nvalue\n");
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o7777, std::os::unix::fs::MetadataExt::uid(&metadata)), (0o400, 1000));
        std::fs::write(&path, "tampered").unwrap();
        assert_eq!(bench.converge(&yaml).changes[0].field, "content");
        bench.secret("db", "another value");
        assert_eq!(bench.converge(&yaml).changes[0].field, "content");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another value");
        let absent = format!("secret: {{name: db, path: {path}, state: absent}}");
        assert!(bench.build(&absent).secrets().is_empty());
        bench.converge(&absent);
        assert!(!std::path::Path::new(&secret_record(&path)).exists());
    }
}
