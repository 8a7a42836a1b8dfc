//! A small root-owned file that a kind keeps for itself: a drop-in, a unit, a rule file.
//!
//! It owns how such a file is compared and swapped in whole. It leaves alone everything that users
//! declare with `file`, `copy` or `template`, which are kinds of their own.

use crate::resource::marks;
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Change, Undecided};
use crate::secret::{Text, sha256};
use crate::shell::Script;

/// A root-owned file with plain content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnFile {
    /// Absolute.
    pub(super) path: String,
    /// Permission bits.
    pub(super) mode: u32,
    /// What is in it.
    pub(super) content: String,
}

impl OwnFile {
    /// A file that everybody may read.
    pub(super) fn readable(path: impl Into<String>, content: impl Into<String>) -> Self {
        Self { path: path.into(), mode: 0o644, content: content.into() }
    }

    /// What must be asked before [`OwnFile::changes`] can tell.
    pub(super) fn questions(&self) -> [Question; 2] {
        [Question::Path(self.path.clone()), Question::Digest(self.path.clone())]
    }

    /// How the file on the host differs: content, mode, owner. Nothing if it does not.
    ///
    /// # Errors
    /// As [`View::path`].
    pub(super) fn changes(&self, view: &View<'_>) -> Result<Vec<Change>, Undecided> {
        let Some(state) = view.path(&self.path)? else {
            return Ok(vec![Change { field: self.path.clone(), ..Change::content(&self.path, false, Text::plain(&self.content)) }]);
        };
        let mut changes = Vec::new();
        if view.digest(&self.path)?.is_none_or(|digest| *digest != sha256(self.content.as_bytes())) {
            changes.push(Change { field: self.path.clone(), ..Change::content(&self.path, true, Text::plain(&self.content)) });
        }
        if state.mode != self.mode {
            changes.push(Change::of(format!("{} mode", self.path), format!("{:04o}", state.mode), format!("{:04o}", self.mode)));
        }
        if (state.uid, state.gid) != (0, 0) {
            changes.push(Change::of(format!("{} owner", self.path), format!("{}:{}", state.owner, state.group), "root:root"));
        }
        changes
            .extend(marks::changes(state).into_iter().map(|change| Change { field: format!("{} {}", self.path, change.field), ..change }));
        Ok(changes)
    }

    /// Code that swaps the file in, atomically, if the host still has what was observed (exit
    /// status 97 otherwise). It runs in a subshell of its own, so that several can stand in a row.
    ///
    /// # Errors
    /// As [`View::digest`].
    pub(super) fn write(&self, view: &View<'_>) -> Result<Script, Undecided> {
        let observed = view.digest(&self.path)?.map_or("", String::as_str);
        let unlock = view.path(&self.path)?.map_or_else(Script::new, |state| marks::unlock(&self.path, state));
        Ok(unlock
            .then(
                "( f={}; have=; if [ -e \"$f\" ]; then have=$(sha256sum <\"$f\"); have=${have%% *}; fi\n[ \"$have\" = {} ] || exit 97\n",
                &[&self.path, observed],
            )
            .append(self.swap())
            .then(") || exit $?\n", &[]))
    }

    /// The same without a look at what is there: for scripts that run after a confirmation.
    pub(super) fn overwrite(&self) -> Script {
        Script::sh("( f={}\n", &[&self.path]).append(self.swap()).then(") || exit $?\n", &[])
    }

    fn swap(&self) -> Script {
        Script::sh(
            "d=${f%/*}; mkdir -p -- \"$d\" && t=$(mktemp \"$d/.soc-provision.XXXXXX\") || exit 1\ntrap 'rm -f -- \"$t\"' EXIT\n{ ",
            &[],
        )
        .payload(&Text::plain(&self.content))
        .then(
            "; } >\"$t\" && chmod {} \"$t\" && chown 0:0 \"$t\" && sync \"$t\" && { ! mountpoint -q \"$f\" 2>/dev/null || umount \"$f\"; } && mv -fT -- \"$t\" \"$f\" || exit 1\n",
            &[&format!("{:04o}", self.mode)],
        )
    }

    /// Code that removes the file.
    pub(super) fn remove(&self) -> Script {
        Script::sh("rm -f -- {} || exit 1\n", &[&self.path])
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Answers for plan tests.

    use crate::facts::Facts;
    use crate::resource::Resource;
    use crate::resource::observe::{Answer, Observations, PathKind, PathState, Pending, Question, RawOutput, View};
    use crate::resource::plan::{Plan, Undecided};
    use crate::secret::{KeyedDigests, Vault, sha256};
    use crate::shell::Script;

    /// A root-owned regular file with this content.
    pub(in crate::resource) fn present(observed: &mut Observations, path: &str, mode: u32, content: &str) {
        let state = PathState {
            kind: PathKind::File,
            mode,
            owner: "root".into(),
            group: "root".into(),
            uid: 0,
            gid: 0,
            size: content.len() as u64,
            target: None,
            names: 1,
            marks: Vec::new(),
        };
        observed.insert(Question::Path(path.into()), Answer::Path(Some(state)));
        observed.insert(Question::Digest(path.into()), Answer::Digest(Some(sha256(content.as_bytes()))));
    }

    /// Answers every question of a resource with "not there", and its raw ones with this text.
    pub(in crate::resource) fn bare(resource: &dyn Resource, raw: &str) -> Observations {
        let facts = Facts::placeholder("h");
        let mut observed = Observations::default();
        for question in resource.questions(&facts) {
            let answer = match &question {
                Question::Path(_) => Answer::Path(None),
                Question::Digest(_) => Answer::Digest(None),
                Question::Content(_) => Answer::Content(None),
                Question::Package(_) => Answer::Package(None),
                Question::Unit(_) => Answer::Unit(None),
                Question::Containers => Answer::Json(None),
                Question::Raw { .. } => Answer::Raw(RawOutput { status: 0, stdout: raw.trim_end().to_owned() }),
                other => panic!("no answer for {other:?}"),
            };
            observed.insert(question, answer);
        }
        observed
    }

    /// Plans a resource with these answers.
    pub(in crate::resource) fn plan(resource: &dyn Resource, observed: &Observations) -> Result<Plan, Undecided> {
        let (facts, digests, pending) = (Facts::placeholder("h"), KeyedDigests::default(), Pending::default());
        resource.plan(&View::new(&facts, &digests, observed, &pending))
    }

    /// Runs a script in a real shell: exit status and stdout.
    pub(in crate::resource) fn run(script: &Script) -> (i32, String) {
        let code = script.fill(&Vault::default()).unwrap();
        let out = std::process::Command::new("/bin/sh").arg("-c").arg(&*code).output().unwrap();
        (out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::resource::observe::{Answer, Observations, Pending};
    use crate::secret::KeyedDigests;

    #[test]
    fn it_is_written_whole_and_only_over_what_was_observed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/x.conf");
        let file = OwnFile { path: path.to_str().unwrap().to_owned(), mode: 0o440, content: "it's $(here)\n".to_owned() };
        let mut observed = Observations::default();
        observed.insert(Question::Path(file.path.clone()), Answer::Path(None));
        observed.insert(Question::Digest(file.path.clone()), Answer::Digest(None));
        let (facts, digests, pending) = (Facts::placeholder("h"), KeyedDigests::default(), Pending::default());
        let view = View::new(&facts, &digests, &observed, &pending);
        assert_eq!(file.changes(&view).unwrap().len(), 1);
        assert_eq!(testing::run(&file.write(&view).unwrap()).0, 0);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), file.content);
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o7777, 0o440);
        assert_eq!(testing::run(&file.write(&view).unwrap()).0, 97);
        testing::present(&mut observed, &file.path, 0o440, &file.content);
        assert_eq!(file.changes(&View::new(&facts, &digests, &observed, &pending)).unwrap(), Vec::new());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
