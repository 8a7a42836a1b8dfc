//! What can be asked of a host, what it can answer, and a resource's view of the answers.
//!
//! The engine asks each kind of question once per host (one `stat`, one `sha256sum`, one
//! `dpkg-query`, ...), so resources ask as often as they like.

use std::collections::HashMap;

use crate::facts::Facts;
use crate::resource::ResourceId;
use crate::resource::plan::{Effect, Undecided};
use crate::secret::{Fingerprint, KeyedDigests, Text};
use crate::shell::Script;

/// One thing to read from a host. Reading changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// `lstat` of a path -> [`Answer::Path`].
    Path(String),
    /// SHA-256 of a regular file -> [`Answer::Digest`].
    Digest(String),
    /// A file's bytes, up to 1 MiB, where a kind must read it (`lineinfile`) -> [`Answer::Content`].
    Content(String),
    /// A file that holds secrets: which fingerprint was recorded when it was written, and whether
    /// it still is what was written. The comparison happens on the host -> [`Answer::SecretFile`].
    SecretFile(String),
    /// A package by name -> [`Answer::Package`].
    Package(String),
    /// A systemd unit -> [`Answer::Unit`].
    Unit(String),
    /// A user -> [`Answer::User`].
    User(String),
    /// A group -> [`Answer::Group`].
    Group(String),
    /// A kernel setting by its dotted name, as it is at run time -> [`Answer::Line`].
    Sysctl(String),
    /// A kernel module: whether it is loaded or built in -> [`Answer::Line`] (`loaded`).
    Module(String),
    /// `docker info` -> [`Answer::Json`].
    DockerInfo,
    /// All containers, `docker inspect`, environment values hashed -> [`Answer::Json`] (a list).
    Containers,
    /// A Docker image by reference -> [`Answer::Json`] (its `docker image inspect`).
    Image(String),
    /// A Docker network by name -> [`Answer::Json`].
    Network(String),
    /// A Docker volume by name -> [`Answer::Json`].
    Volume(String),
    /// Listening sockets, `ss -H -ltunp` -> [`Answer::Line`] (all lines).
    Listening,
    /// A read-only shell fragment -> [`Answer::Raw`]. For what no other question covers.
    Raw { key: String, script: Script },
}

/// What a host answered. `None` inside means: not there.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Path(Option<PathState>),
    Digest(Option<String>),
    Content(Option<Vec<u8>>),
    SecretFile(Option<SecretFileState>),
    Package(Option<PackageState>),
    Unit(Option<UnitState>),
    User(Option<UserState>),
    Group(Option<GroupState>),
    Line(Option<String>),
    Json(Option<serde_json::Value>),
    Raw(RawOutput),
    /// Could not be determined: why.
    Failed(String),
}

/// What sort of thing a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    File,
    Directory,
    Link,
    Other,
}

/// A path's `lstat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathState {
    pub kind: PathKind,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    pub owner: String,
    pub group: String,
    pub uid: u32,
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// A link's target.
    pub target: Option<String>,
    /// How many names the file has.
    pub names: u64,
    /// What a file or directory carries besides, as far as the host's tools tell.
    pub marks: Vec<Mark>,
}

/// Something on a path that neither its owner nor its mode shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// An access list, or a default one.
    Acl,
    /// Capabilities that its process gets, as `getcap` prints them.
    Capabilities(String),
    /// Nobody can change it.
    Immutable,
    /// It can only grow.
    AppendOnly,
}

/// A file that holds secrets, compared on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFileState {
    /// The fingerprint recorded when soc-provision wrote it, if it did.
    pub recorded: Option<String>,
    /// Whether the bytes are still those that were written.
    pub intact: bool,
}

/// A package as dpkg has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageState {
    pub version: String,
    /// dpkg's three letters, `ii ` when all is well, `iF ` when half-configured, `hi ` when held.
    pub abbrev: String,
}

impl PackageState {
    /// Unpacked and configured.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        self.abbrev.as_bytes().get(1) == Some(&b'i') && self.abbrev.as_bytes().get(2).is_none_or(|&b| b == b' ')
    }

    /// Held back from upgrades.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.abbrev.starts_with('h')
    }
}

/// A unit as `systemctl show` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `masked`, ...
    pub load: String,
    /// `active`, `inactive`, `failed`, ...
    pub active: String,
    /// `running`, `exited`, ...
    pub sub: String,
    /// `enabled`, `disabled`, `static`, ...
    pub file: String,
    /// The unit file changed on disk since systemd read it.
    pub needs_reload: bool,
}

/// A line of `getent passwd`, and the user's groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserState {
    pub uid: u32,
    pub gid: u32,
    pub comment: String,
    pub home: String,
    pub shell: String,
    /// Name of the primary group.
    pub group: String,
    /// Supplementary groups, sorted.
    pub groups: Vec<String>,
    /// The day from which nobody can log in as it, counted from 1970-01-01.
    pub expires: Option<i64>,
    /// Whether that day has come, by the host's clock.
    pub expired: bool,
}

/// A line of `getent group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    pub gid: u32,
    pub members: Vec<String>,
}

/// What a raw probe printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawOutput {
    pub status: i32,
    /// Without trailing newlines.
    pub stdout: String,
}

/// All answers of a host.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    answers: HashMap<Question, Answer>,
}

impl Observations {
    /// Records an answer; a later one replaces an earlier one.
    pub fn insert(&mut self, question: Question, answer: Answer) {
        self.answers.insert(question, answer);
    }

    /// The answer to a question, if it was asked.
    #[must_use]
    pub fn get(&self, question: &Question) -> Option<&Answer> {
        self.answers.get(question)
    }

    /// The answer to a question, to be added to.
    pub fn get_mut(&mut self, question: &Question) -> Option<&mut Answer> {
        self.answers.get_mut(question)
    }

    /// Takes over all answers of another round.
    pub fn merge(&mut self, other: Self) {
        self.answers.extend(other.answers);
    }
}

/// What resources earlier in the run are going to touch, and have not yet.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    effects: Vec<(Effect, ResourceId)>,
}

impl Pending {
    /// Records what a planned resource will touch.
    pub fn add(&mut self, id: &ResourceId, effects: &[Effect]) {
        self.effects.extend(effects.iter().map(|effect| (effect.clone(), id.clone())));
    }

    fn find(&self, touches: impl Fn(&Effect) -> bool) -> Option<&ResourceId> {
        self.effects.iter().rev().find(|(effect, _)| touches(effect)).map(|(_, id)| id)
    }
}

/// A resource's view of its host while it plans: facts, answers, and what is still to come.
///
/// Every reader returns `Ok(Some(state))` for present, `Ok(None)` for absent, and an
/// [`Undecided`] that `?` passes on for what cannot be known yet or at all.
pub struct View<'a> {
    /// The host's facts.
    pub facts: &'a Facts,
    /// Keyed digests of the project's secrets.
    pub digests: &'a KeyedDigests,
    observations: &'a Observations,
    pending: &'a Pending,
}

/// Unwraps the answer of the expected kind.
macro_rules! expect {
    ($view:expr, $question:expr, $variant:path) => {{
        let question = $question;
        match $view.answer(&question)? {
            $variant(state) => Ok(state.as_ref()),
            other => Err(mismatch(&question, other)),
        }
    }};
}
impl<'a> View<'a> {
    /// A view for one planning pass.
    #[must_use]
    pub fn new(facts: &'a Facts, digests: &'a KeyedDigests, observations: &'a Observations, pending: &'a Pending) -> Self {
        Self { facts, digests, observations, pending }
    }

    /// A text's fingerprint.
    ///
    /// # Errors
    /// [`Undecided::Refused`] if a secret in it is not known to the project.
    pub fn fingerprint(&self, text: &Text) -> Result<Fingerprint, Undecided> {
        text.fingerprint(self.digests)
            .map_err(|missing| Undecided::Refused(format!("{missing}; add it with `soc-provision secrets set {}`", missing.0)))
    }

    fn answer(&self, question: &Question) -> Result<&'a Answer, Undecided> {
        match self.observations.get(question) {
            Some(Answer::Failed(reason)) => Err(Undecided::Unknown(reason.clone())),
            Some(answer) => Ok(answer),
            None => Err(Undecided::Unknown(format!("bug: {question:?} was not asked"))),
        }
    }

    fn settled(&self, touches: impl Fn(&Effect) -> bool) -> Result<(), Undecided> {
        match self.pending.find(touches) {
            Some(id) => Err(Undecided::After(id.clone())),
            None => Ok(()),
        }
    }

    /// Whether something earlier in the run is going to touch this.
    #[must_use]
    pub fn pending(&self, touches: impl Fn(&Effect) -> bool) -> Option<&ResourceId> {
        self.pending.find(touches)
    }

    /// A path's status.
    ///
    /// # Errors
    /// [`Undecided`] if an earlier resource touches it or the host could not tell.
    pub fn path(&self, path: &str) -> Result<Option<&'a PathState>, Undecided> {
        self.path_settled(path)?;
        expect!(self, Question::Path(path.to_owned()), Answer::Path)
    }

    /// A file's SHA-256.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn digest(&self, path: &str) -> Result<Option<&'a String>, Undecided> {
        self.path_settled(path)?;
        expect!(self, Question::Digest(path.to_owned()), Answer::Digest)
    }

    /// A file's bytes.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn content(&self, path: &str) -> Result<Option<&'a Vec<u8>>, Undecided> {
        self.path_settled(path)?;
        expect!(self, Question::Content(path.to_owned()), Answer::Content)
    }

    /// A file that holds secrets.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn secret_file(&self, path: &str) -> Result<Option<&'a SecretFileState>, Undecided> {
        self.path_settled(path)?;
        expect!(self, Question::SecretFile(path.to_owned()), Answer::SecretFile)
    }

    fn path_settled(&self, path: &str) -> Result<(), Undecided> {
        self.settled(|effect| match effect {
            Effect::Path(touched) => touched == path,
            Effect::Tree(root) => path.strip_prefix(root.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            _ => false,
        })
    }

    /// A package.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn package(&self, name: &str) -> Result<Option<&'a PackageState>, Undecided> {
        self.settled(|effect| matches!(effect, Effect::Package(touched) if touched == name))?;
        expect!(self, Question::Package(name.to_owned()), Answer::Package)
    }

    /// A systemd unit. One that is absent while packages are still to come is known only after them.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn unit(&self, name: &str) -> Result<Option<&'a UnitState>, Undecided> {
        self.settled(|effect| matches!(effect, Effect::Unit(touched) if touched == name))?;
        let state: Option<&UnitState> = expect!(self, Question::Unit(name.to_owned()), Answer::Unit)?;
        if state.is_none() {
            self.settled(|effect| matches!(effect, Effect::Package(_)))?;
        }
        Ok(state)
    }

    /// A user.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn user(&self, name: &str) -> Result<Option<&'a UserState>, Undecided> {
        self.settled(|effect| matches!(effect, Effect::User(touched) if touched == name))?;
        expect!(self, Question::User(name.to_owned()), Answer::User)
    }

    /// A group.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn group(&self, name: &str) -> Result<Option<&'a GroupState>, Undecided> {
        self.settled(|effect| matches!(effect, Effect::Group(touched) if touched == name))?;
        expect!(self, Question::Group(name.to_owned()), Answer::Group)
    }

    /// A kernel setting at run time.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn sysctl(&self, name: &str) -> Result<Option<&'a String>, Undecided> {
        self.settled(|effect| matches!(effect, Effect::Sysctl(touched) if touched == name))?;
        let value: Option<&String> = expect!(self, Question::Sysctl(name.to_owned()), Answer::Line)?;
        if value.is_none() {
            self.settled(|effect| matches!(effect, Effect::Module(_)))?;
        }
        Ok(value)
    }

    /// Whether a kernel module is loaded.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn module(&self, name: &str) -> Result<bool, Undecided> {
        self.settled(|effect| matches!(effect, Effect::Module(touched) if touched == name))?;
        let line: Option<&String> = expect!(self, Question::Module(name.to_owned()), Answer::Line)?;
        Ok(line.is_some())
    }

    /// `docker info`; absent where Docker does not run.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn docker_info(&self) -> Result<Option<&'a serde_json::Value>, Undecided> {
        self.settled(|effect| matches!(effect, Effect::Docker))?;
        expect!(self, Question::DockerInfo, Answer::Json)
    }

    /// All containers. Where Docker is still to be installed there are none, and that is known.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn containers(&self) -> Result<&'a [serde_json::Value], Undecided> {
        let list: Option<&serde_json::Value> = expect!(self, Question::Containers, Answer::Json)?;
        Ok(list.and_then(serde_json::Value::as_array).map_or(&[], Vec::as_slice))
    }

    /// A Docker image.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn image(&self, reference: &str) -> Result<Option<&'a serde_json::Value>, Undecided> {
        self.settled(|effect| matches!(effect, Effect::Image(touched) if touched == reference))?;
        expect!(self, Question::Image(reference.to_owned()), Answer::Json)
    }

    /// A Docker network.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn network(&self, name: &str) -> Result<Option<&'a serde_json::Value>, Undecided> {
        self.settled(|effect| matches!(effect, Effect::Network(touched) if touched == name))?;
        expect!(self, Question::Network(name.to_owned()), Answer::Json)
    }

    /// A Docker volume.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn volume(&self, name: &str) -> Result<Option<&'a serde_json::Value>, Undecided> {
        self.settled(|effect| matches!(effect, Effect::Volume(touched) if touched == name))?;
        expect!(self, Question::Volume(name.to_owned()), Answer::Json)
    }

    /// Listening sockets as `ss -H -ltunp` prints them.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn listening(&self) -> Result<Option<&'a String>, Undecided> {
        expect!(self, Question::Listening, Answer::Line)
    }

    /// What a question that only drift asks was answered; `None` where it was not asked, or where
    /// something earlier in the run is going to change the answer.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn asked(&self, question: &Question) -> Result<Option<&'a RawOutput>, Undecided> {
        if self.observations.get(question).is_none() {
            return Ok(None);
        }
        self.raw(question).map(Some)
    }

    /// What a raw probe printed; the key and the script are those of the question.
    ///
    /// # Errors
    /// As [`View::path`].
    pub fn raw(&self, question: &Question) -> Result<&'a RawOutput, Undecided> {
        if let Question::Raw { key, .. } = question {
            self.settled(|effect| matches!(effect, Effect::Raw(touched) if touched == key))?;
        }
        match self.answer(question)? {
            Answer::Raw(output) => Ok(output),
            other => Err(mismatch(question, other)),
        }
    }
}

fn mismatch(question: &Question, answer: &Answer) -> Undecided {
    Undecided::Unknown(format!("bug: {question:?} was answered with {answer:?}"))
}
