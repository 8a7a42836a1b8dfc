//! A file whose content is declared, and how it is compared, planned and written. `copy` and
//! `template` are little else; kinds that keep a file of their own (a unit, a timer, a kernel
//! setting) use it as a part. What is in the file is theirs to say.

use std::path::PathBuf;
use std::sync::Arc;

use crate::resource::argument::{Account, octal, parent};
use crate::resource::fragment::{self, Expect, Write};
use crate::resource::marks;
use crate::resource::observe::{PathKind, PathState, Question, View};
use crate::resource::plan::{Change, Effect, Plan, Shown, Step, Undecided, Upload};
use crate::secret::{SecretName, Text, sha256};
use crate::shell::Script;

/// What a file is to contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Text, perhaps with secrets.
    Text(Text),
    /// Up to 1 MiB of something else.
    Bytes(Arc<[u8]>),
    /// More: sent ahead, on a channel of its own.
    Upload {
        /// On the controller.
        source: PathBuf,
        /// In hex.
        sha256: String,
        /// In bytes.
        size: u64,
    },
}

impl Body {
    /// Bytes as text if they are text, so that a plan can show how they differ.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Self::Text(Text::plain(text)),
            Ok(text) => Self::Bytes(text.into_bytes().into()),
            Err(error) => Self::Bytes(error.into_bytes().into()),
        }
    }

    /// The SHA-256 in hex; `None` for what holds secrets.
    #[must_use]
    pub fn sha256(&self) -> Option<String> {
        match self {
            Self::Text(text) => text.as_plain().map(|text| sha256(text.as_bytes())),
            Self::Bytes(bytes) => Some(sha256(bytes)),
            Self::Upload { sha256, .. } => Some(sha256.clone()),
        }
    }

    /// Secrets in it.
    #[must_use]
    pub fn secrets(&self) -> Vec<SecretName> {
        match self {
            Self::Text(text) => text.secrets(),
            Self::Bytes(_) | Self::Upload { .. } => Vec::new(),
        }
    }

    fn change(&self, path: &str, exists: bool) -> Change {
        let size = match self {
            Self::Text(text) => return Change::content(path, exists, text.clone()),
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Upload { size, .. } => *size,
        };
        let before = if exists { Shown::Plain("other bytes".to_owned()) } else { Shown::Absent };
        let digest = self.sha256().unwrap_or_default();
        let after = Shown::Plain(format!("{size} bytes, sha256 {}", digest.get(..12).unwrap_or_default()));
        Change { field: "content".to_owned(), before, after }
    }
}

/// A file with declared content.
#[derive(Clone, Debug)]
pub struct ManagedFile {
    /// Where, on the host.
    pub path: String,
    /// What it contains.
    pub body: Body,
    /// Permission bits.
    pub mode: u32,
    /// Its owner.
    pub owner: Account,
    /// Its group; `None`: the owner's, not compared.
    pub group: Option<Account>,
    /// A command that must accept the new file before it takes the old one's place; `%s` is its path.
    pub validate: Option<String>,
    /// Keep the old file beside the new one.
    pub backup: bool,
    /// Create the directory if need be.
    pub make_parent: bool,
}

impl ManagedFile {
    /// A root-owned file that everybody may read.
    #[must_use]
    pub fn new(path: impl Into<String>, body: Body) -> Self {
        Self {
            path: path.into(),
            body,
            mode: 0o644,
            owner: Account::root(),
            group: Some(Account::root()),
            validate: None,
            backup: false,
            make_parent: false,
        }
    }

    /// What must be asked.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        let content =
            if self.body.sha256().is_some() { Question::Digest(self.path.clone()) } else { Question::SecretFile(self.path.clone()) };
        let mut questions = vec![Question::Path(self.path.clone()), content];
        if !self.make_parent {
            questions.push(Question::Path(parent(&self.path).to_owned()));
        }
        questions
    }

    /// What differs and how it is put right.
    ///
    /// # Errors
    /// As [`View::path`]; refused if something else than a file is in the way.
    pub fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let state = view.path(&self.path)?;
        match state.map(|state| state.kind) {
            Some(PathKind::Directory) => {
                return Err(Undecided::Refused(format!("`{0}` is a directory: remove it, or name a file in it, as `{0}/NAME`", self.path)));
            }
            Some(PathKind::Other) => {
                return Err(Undecided::Refused(format!("`{}` is neither a file nor a link: remove it first", self.path)));
            }
            None if !self.make_parent => check_parent(view, &self.path)?,
            _ => {}
        }
        let (same, expect) = self.content(view, state)?;
        // A package that comes first may bring the file: what it brings is replaced.
        let expect = if view.pending(|effect| matches!(effect, Effect::Package(_))).is_some() { Expect::Anything } else { expect };
        let mut plan = Plan::default();
        if !same {
            plan = plan.change(self.body.change(&self.path, state.is_some_and(|state| state.kind == PathKind::File)));
        }
        plan.changes.extend(self.attribute_changes(state));
        if plan.changes.is_empty() {
            return Ok(plan);
        }
        let effect = Effect::Path(self.path.clone());
        // A new file has no access list and no capabilities, whatever tools the host lacks.
        let plain = state.is_some_and(|state| state.kind == PathKind::File && state.marks.is_empty() && !self.leaks(state));
        let mut step = if same && plain { self.adjust() } else { self.write(view, &expect)? };
        if let Some(state) = state {
            step.script = marks::unlock(&self.path, state).append(step.script);
        }
        Ok(plan.step(step).effect(effect))
    }

    /// Whether the content is as declared, and what the write relies on.
    fn content(&self, view: &View<'_>, state: Option<&PathState>) -> Result<(bool, Expect), Undecided> {
        let Some(state) = state else { return Ok((false, Expect::Absent)) };
        let link = state.kind == PathKind::Link;
        if let (Some(wanted), false) = (self.body.sha256(), link) {
            let digest = view.digest(&self.path)?;
            return Ok((digest == Some(&wanted), digest.map_or(Expect::Anything, |digest| Expect::Digest(digest.clone()))));
        }
        let Body::Text(text) = &self.body else { return Ok((false, Expect::Anything)) };
        if link {
            return Ok((false, Expect::Anything));
        }
        let wanted = view.fingerprint(text)?;
        let intact = view.secret_file(&self.path)?.filter(|seen| seen.intact);
        let same = intact.is_some_and(|seen| seen.recorded.as_deref() == Some(wanted.as_str()));
        Ok((same, if intact.is_some() { Expect::AsRecorded } else { Expect::Anything }))
    }

    fn attribute_changes(&self, state: Option<&PathState>) -> Vec<Change> {
        let Some(state) = state else {
            let odd = self.mode != 0o644;
            return odd.then(|| Change::add("mode", octal(self.mode))).into_iter().collect();
        };
        if state.kind == PathKind::Link {
            return vec![Change::of("type", format!("link to {}", state.target.as_deref().unwrap_or("?")), "file")];
        }
        let mut changes = Vec::new();
        if state.mode != self.mode {
            changes.push(Change::of("mode", octal(state.mode), octal(self.mode)));
        }
        if !self.owner.is(&state.owner, state.uid) {
            changes.push(Change::of("owner", &state.owner, &self.owner.0));
        }
        if let Some(group) = self.group.as_ref().filter(|group| !group.is(&state.group, state.gid)) {
            changes.push(Change::of("group", &state.group, &group.0));
        }
        if self.leaks(state) {
            changes.push(Change::of("names", format!("{}: the secret can be read by another one", state.names), "1"));
        }
        changes.extend(marks::changes(state));
        changes
    }

    /// A hard link keeps what a secret's file holds, wherever that is.
    fn leaks(&self, state: &PathState) -> bool {
        state.kind == PathKind::File && state.names > 1 && !self.body.secrets().is_empty()
    }

    fn adjust(&self) -> Step {
        let group = self.group.as_ref().map(|group| group.0.as_str());
        let script = fragment::attributes(&self.path, Some(&self.owner.0), group, Some(self.mode));
        Step::new(format!("set owner and mode of {}", self.path), script)
    }

    /// Code that writes the file whatever is there: for content that is made anew although what is
    /// declared is the same.
    ///
    /// # Errors
    /// As [`View::fingerprint`].
    pub fn rewrite(&self, view: &View<'_>) -> Result<Script, Undecided> {
        Ok(self.write(view, &Expect::Anything)?.script)
    }

    fn write(&self, view: &View<'_>, expect: &Expect) -> Result<Step, Undecided> {
        let fingerprint = match &self.body {
            Body::Text(text) if !text.secrets().is_empty() => Some(view.fingerprint(text)?),
            _ => None,
        };
        let write = Write {
            path: &self.path,
            body: &self.body,
            mode: self.mode,
            owner: &self.owner.0,
            group: self.group.as_ref().map(|group| group.0.as_str()),
            expect,
            validate: self.validate.as_deref(),
            backup: self.backup,
            make_parent: self.make_parent,
            record: fingerprint.as_ref(),
        };
        let step = Step::new(format!("write {}", self.path), write.script());
        Ok(match &self.body {
            Body::Upload { source, sha256, size } => {
                let upload = Upload { source: source.clone(), destination: fragment::upload_path(&self.path), sha256: sha256.clone() };
                // A slow line does a megabyte in ten seconds.
                let seconds = 120 + size / (100 << 10);
                step.upload(upload).deadline(std::time::Duration::from_secs(seconds))
            }
            _ => step,
        })
    }
}

/// Whether the directory that a path is to be in is there, or will be.
///
/// # Errors
/// As [`View::path`]; refused if it is not, and nothing that comes first may bring it.
pub fn check_parent(view: &View<'_>, path: &str) -> Result<(), Undecided> {
    let directory = parent(path);
    match view.path(directory) {
        Ok(Some(state)) if matches!(state.kind, PathKind::File | PathKind::Other) => {
            Err(Undecided::Refused(format!("`{directory}`, where `{path}` belongs, is not a directory")))
        }
        Ok(Some(_)) | Err(Undecided::After(_)) => Ok(()),
        Ok(None) => {
            let brings = |effect: &Effect| match effect {
                Effect::Package(_) | Effect::Raw(_) | Effect::User(_) | Effect::Docker => true,
                Effect::Path(touched) | Effect::Tree(touched) => touched.starts_with(directory) || directory.starts_with(touched.as_str()),
                _ => false,
            };
            if view.pending(brings).is_some() {
                return Ok(());
            }
            Err(Undecided::Refused(format!(
                "there is no directory `{directory}` for `{path}`: add a task `directory: {directory}` before this one"
            )))
        }
        Err(other) => Err(other),
    }
}

/// A plan that removes a file, if it is there.
///
/// # Errors
/// As [`View::path`]; refused for a directory.
pub fn remove_file(view: &View<'_>, path: &str) -> Result<Plan, Undecided> {
    let Some(state) = view.path(path)? else { return Ok(Plan::in_sync()) };
    if state.kind == PathKind::Directory {
        return Err(Undecided::Refused(format!("`{path}` is a directory: remove it with `file` and `state: absent`")));
    }
    let record = crate::resource::interview::secret_record(path);
    let script = marks::unlock(path, state).then("rm -f -- {} && rm -f -- {}\n", &[path, &record]);
    Ok(Plan::in_sync()
        .change(Change::remove("file", path))
        .step(Step::new(format!("remove {path}"), script))
        .effect(Effect::Path(path.to_owned())))
}
