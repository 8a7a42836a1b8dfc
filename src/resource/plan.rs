//! What a resource wants changed: for people ([`Change`]) and for the host ([`Step`]).

use std::path::PathBuf;
use std::time::Duration;

use crate::resource::{ResourceId, Severity};
use crate::secret::Text;
use crate::shell::Script;

/// What planning one resource came to. No changes means in sync.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What will differ afterwards, for people.
    pub changes: Vec<Change>,
    /// What runs on the host, in order.
    pub steps: Vec<Step>,
    /// Checked, with those of all changed resources of the host, before the first step (DESIGN
    /// 8.15): a script that exits non-zero, and says why on stderr, if the change is invalid.
    pub validate: Option<Script>,
    /// Set if the change can cut the controller off.
    pub guard: Option<Guard>,
    /// What the steps touch, so that later resources know what they cannot know yet.
    pub effects: Vec<Effect>,
    /// Said in every plan, changed or not: exceptions, warnings.
    pub notes: Vec<String>,
    /// How bad what differs is, where it is worse than the kind's own severity.
    pub severity: Option<Severity>,
    /// A `command` without `creates`, `unless` or `onlyif`: shown as not checkable, never in sync.
    pub unchecked: bool,
}

impl Plan {
    /// Nothing to do.
    #[must_use]
    pub fn in_sync() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        self.changes.is_empty() && self.steps.is_empty()
    }

    /// Adds a change.
    #[must_use]
    pub fn change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// Adds a step.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Adds an effect.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    /// Adds all of another plan: a resource that is made of parts plans them one after the other.
    /// Of two guards or validations the first is kept.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.changes.extend(other.changes);
        self.steps.extend(other.steps);
        self.validate = self.validate.or(other.validate);
        self.guard = self.guard.or(other.guard);
        self.effects.extend(other.effects);
        self.notes.extend(other.notes);
        self.severity = self.severity.into_iter().chain(other.severity).min();
        self.unchecked |= other.unchecked;
        self
    }

    /// Adds a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// Why a resource could not be planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// Known only after another resource of this run was applied; then it is probed again.
    After(ResourceId),
    /// The host could not tell: the reason. Counts as not in sync; apply fails on it.
    Unknown(String),
    /// The change must not be made: the reason and what to do. Nothing of the host is touched.
    Refused(String),
}

/// One difference between desired and observed, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What differs: `mode`, `content`, `state`, ...
    pub field: String,
    /// As observed.
    pub before: Shown,
    /// As desired.
    pub after: Shown,
}

impl Change {
    /// A change of a plain value.
    #[must_use]
    pub fn of(field: impl Into<String>, before: impl Into<String>, after: impl Into<String>) -> Self {
        Self { field: field.into(), before: Shown::Plain(before.into()), after: Shown::Plain(after.into()) }
    }

    /// Something that is not there yet.
    #[must_use]
    pub fn add(field: impl Into<String>, after: impl Into<String>) -> Self {
        Self { field: field.into(), before: Shown::Absent, after: Shown::Plain(after.into()) }
    }

    /// Something that goes.
    #[must_use]
    pub fn remove(field: impl Into<String>, before: impl Into<String>) -> Self {
        Self { field: field.into(), before: Shown::Plain(before.into()), after: Shown::Absent }
    }

    /// A file's content. If the text has no secrets the engine reads the old content for a diff.
    #[must_use]
    pub fn content(path: &str, exists: bool, after: Text) -> Self {
        let before = if exists { Shown::FileOnHost(path.to_owned()) } else { Shown::Absent };
        Self { field: "content".to_owned(), before, after: Shown::Content(after) }
    }
}

/// One side of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Not there.
    Absent,
    /// A value that may be shown.
    Plain(String),
    /// Something that contains a secret: shown as a word only.
    Hidden,
    /// The text of a file; secrets in it show as names.
    Content(Text),
    /// The content of this file on the host, read only when a diff is asked for.
    FileOnHost(String),
}

/// Something to run on the host.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it does, in a few words: `write /etc/x`.
    pub title: String,
    /// The code. Exit status 0 is success; [`MOVED_ON`] says that the host is not as planned on.
    pub script: Script,
    /// How long it may take.
    pub deadline: Duration,
    /// Runs as a transient unit that goes on if the connection dies, and is picked up again.
    /// Its script must hold no secrets.
    pub survives: bool,
    /// Files from the controller, sent before the script runs.
    pub uploads: Vec<Upload>,
    /// Run as this user instead of root.
    pub user: Option<String>,
    /// What it did cannot be observed: if the connection dies before its answer, the host's record of
    /// it is asked, and it is never run a second time blindly.
    pub once: bool,
    /// The script makes the host reboot: the engine waits for a new boot, as long as the deadline says.
    pub reboots: bool,
}

/// Exit status of a step whose precondition does not hold: the host moved on since the plan.
pub const MOVED_ON: i32 = 97;
/// Exit status of a step that failed and put back what was there before.
pub const RESTORED: i32 = 96;
/// Exit status of a step that found its new content invalid and changed nothing.
pub const INVALID: i32 = 95;

/// How long a step may take unless it says otherwise.
pub const STEP_DEADLINE: Duration = Duration::from_secs(60);

impl Step {
    /// A step with the default deadline.
    #[must_use]
    pub fn new(title: impl Into<String>, script: Script) -> Self {
        Self {
            title: title.into(),
            script,
            deadline: STEP_DEADLINE,
            survives: false,
            uploads: Vec::new(),
            user: None,
            once: false,
            reboots: false,
        }
    }

    /// With another deadline.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Made to survive a lost connection.
    #[must_use]
    pub fn surviving(mut self) -> Self {
        self.survives = true;
        self
    }

    /// With a file sent first.
    #[must_use]
    pub fn upload(mut self, upload: Upload) -> Self {
        self.uploads.push(upload);
        self
    }
}

/// A file that goes from the controller to the host, on a channel of its own, never a secret.
#[derive(Clone, Debug)]
pub struct Upload {
    /// On the controller.
    pub source: PathBuf,
    /// On the host: a path that the script then moves or reads; the directory exists.
    pub destination: String,
    /// Verified on the host after the transfer.
    pub sha256: String,
}

/// How a change that can cut the controller off is made safe (DESIGN 8.1).
#[derive(Clone, Debug)]
pub struct Guard {
    /// What is guarded, for messages: `firewall rules`.
    pub what: String,
    /// How long the host waits for the confirming login before it reverts.
    pub window: Duration,
    /// Which of the two kinds.
    pub kind: GuardKind,
    /// Whether handlers that the change notifies make it take effect, and so run inside the window.
    pub handlers: bool,
    /// What to do about it if it is reverted, for the message.
    pub hint: String,
}

/// The two kinds of guard.
#[derive(Clone, Debug)]
pub enum GuardKind {
    /// State that a reboot forgets: apply, confirm, persist last. `save` runs before the change
    /// with `$GUARD` set to a private directory; `revert` runs from there if nobody confirms;
    /// `persist` runs once confirmed.
    Runtime { save: Script, revert: Script, persist: Script },
    /// Files that are the persistence: copies are kept, and restored by the timer or at the next
    /// boot; `reload` makes a running service see the restored files.
    Files { paths: Vec<String>, reload: Script },
}

/// What a resource's steps touch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// A file or directory.
    Path(String),
    /// Everything below a directory.
    Tree(String),
    /// A package; may bring units, users, files and commands that nobody can list beforehand.
    Package(String),
    /// A unit's definition or state.
    Unit(String),
    /// A user or the user's groups.
    User(String),
    /// A group.
    Group(String),
    /// A kernel setting.
    Sysctl(String),
    /// A kernel module.
    Module(String),
    /// Docker itself: its daemon is installed or restarted.
    Docker,
    /// A Docker image.
    Image(String),
    /// A Docker network.
    Network(String),
    /// A Docker volume.
    Volume(String),
    /// A Compose project.
    Project(String),
    /// The answer to a raw question, by its key.
    Raw(String),
}
