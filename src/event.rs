//! What happened: the engine's only output. Plain data; every report is a fold over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Failure, FailureClass};
use crate::resource::{ResourceId, Severity};

/// One thing that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since the run started.
    pub at_ms: u64,
    /// The host it happened on, if on one.
    pub host: Option<String>,
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    RunStarted(RunInfo),
    PlayStarted {
        play: usize,
        name: String,
        hosts: Vec<String>,
    },
    /// The host is being worked on: `connecting`, `probing`, `writing /etc/x`.
    Doing {
        what: String,
    },
    Upload {
        name: String,
        done: u64,
        total: u64,
    },
    /// A task was planned (in plan, check and drift runs) or is finished (in apply).
    Task(TaskReport),
    Check(CheckReport),
    /// One way in which the host is not as the repository says (drift).
    Finding(Finding),
    Warning {
        text: String,
    },
    HostFinished(HostReport),
    RunFinished {
        exit: u8,
        seconds: f64,
    },
}

/// What a run is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunInfo {
    pub run: String,
    pub command: String,
    pub playbook: String,
    /// The project's directory.
    #[serde(default)]
    pub root: String,
    /// Digest of every file of the project that was read.
    pub project: String,
    /// Digest of the inventory: its files and their group and host variables.
    #[serde(default)]
    pub inventory: String,
    pub revision: Option<String>,
    pub who: String,
    pub from: String,
    /// Seconds since the epoch.
    pub started: i64,
    pub hosts: Vec<String>,
    /// Only some of the tasks (`--tags`): what is not mentioned is not known to be in sync.
    #[serde(default)]
    pub partial: bool,
    /// The part of the hosts that this run was for, `2/5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
}

/// How a task came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskReport {
    pub play: usize,
    pub title: String,
    pub role: Option<String>,
    /// Where the task is written: `roles/base/tasks/main.yml:12`. Not for what no file says.
    #[serde(default)]
    pub place: Option<String>,
    pub handler: bool,
    pub outcome: Outcome,
    pub resources: Vec<ResourceReport>,
    pub milliseconds: u64,
}

/// How a task or one of its resources came out.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// As declared.
    Ok,
    /// Changed just now.
    Changed,
    /// Would be changed by apply.
    WouldChange,
    /// Known only once another resource was applied.
    KnownAfter {
        resource: String,
    },
    Skipped {
        reason: String,
    },
    Failed {
        failure: FailureReport,
    },
    /// Failed, and the playbook says to go on.
    Ignored {
        failure: FailureReport,
    },
    /// The host could not tell; counts as not in sync.
    Unknown {
        reason: String,
    },
}

impl Outcome {
    /// Whether the host is, or was, not as declared.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::WouldChange | Self::KnownAfter { .. } | Self::Unknown { .. })
    }
}

/// A failure, for reports.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct FailureReport {
    pub class: FailureClass,
    pub message: String,
    pub causes: Vec<String>,
    pub hint: Option<String>,
    pub stdout: String,
    pub stderr: String,
}

impl From<&Failure> for FailureReport {
    fn from(failure: &Failure) -> Self {
        Self {
            class: failure.class,
            message: failure.message.clone(),
            causes: failure.causes.clone(),
            hint: failure.hint.clone(),
            stdout: failure.stdout.clone(),
            stderr: failure.stderr.clone(),
        }
    }
}

/// How one resource came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResourceReport {
    pub id: ResourceId,
    pub severity: Severity,
    #[serde(flatten)]
    pub outcome: Outcome,
    pub changes: Vec<ChangeReport>,
    pub notes: Vec<String>,
    /// A command that nobody can check: it runs every time.
    pub unchecked: bool,
}

/// One change, for people; secrets are words.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ChangeReport {
    pub field: String,
    pub before: Option<String>,
    pub after: Option<String>,
    /// A unified diff, where one was asked for.
    pub diff: Option<String>,
}

/// One way in which a host is not as the repository says.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Finding {
    pub id: ResourceId,
    pub severity: Severity,
    pub state: FindingState,
    pub role: Option<String>,
    pub task: Option<String>,
    /// `before` is as observed, `after` as declared.
    pub changes: Vec<ChangeReport>,
    /// What is known of it beyond the changes.
    pub detail: String,
    /// What `--prune` would have to name to remove it.
    pub prune: Option<String>,
    /// When it was first seen, in seconds since the epoch, if that is known.
    pub since: Option<i64>,
    /// Why, and until when, the project accepts it.
    pub accepted: Option<String>,
}

/// What sort of drift a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingState {
    /// Not as declared; `--fix` puts it right.
    Differs,
    /// Not as declared, and not to be put right without a decision: the detail says which.
    Refused,
    /// Nobody declared it.
    Undeclared,
    /// The host could not tell; counts as not in sync.
    Unknown,
    /// Known only once something else is as declared.
    Later,
    /// The host's condition: a unit that failed, a reboot that is due.
    Condition,
}

/// How a health check came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckReport {
    pub title: String,
    pub role: Option<String>,
    pub passed: bool,
    /// Why it failed, or what was seen.
    pub detail: String,
    pub milliseconds: u64,
}

/// Ansible's recap of one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recap {
    pub ok: u32,
    pub changed: u32,
    pub unreachable: u32,
    pub failed: u32,
    pub skipped: u32,
    pub rescued: u32,
    pub ignored: u32,
}

/// The end of one host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HostReport {
    pub recap: Recap,
    pub failure: Option<FailureReport>,
    /// Tasks that would change, are known only later, or could not be determined.
    pub pending: u32,
    pub round_trips: usize,
    pub seconds: f64,
    /// Seconds spent in each role's steps.
    pub roles: BTreeMap<String, f64>,
}

/// Takes events from everywhere and hands each to every listener, in order.
#[derive(Clone)]
pub struct Events {
    started: Instant,
    listeners: Arc<Mutex<Vec<Box<dyn Listener>>>>,
}

/// Something that wants to know what happens.
pub trait Listener: Send {
    /// Takes one event.
    fn event(&mut self, event: &Event);
}

impl Events {
    /// A hub with these listeners.
    #[must_use]
    pub fn new(listeners: Vec<Box<dyn Listener>>) -> Self {
        Self { started: Instant::now(), listeners: Arc::new(Mutex::new(listeners)) }
    }

    /// Tells every listener.
    pub fn emit(&self, host: Option<&str>, kind: EventKind) {
        let at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let event = Event { at_ms, host: host.map(str::to_owned), kind };
        // A listener that panicked must not silence the others.
        let mut listeners = self.listeners.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for listener in listeners.iter_mut() {
            listener.event(&event);
        }
    }

    /// Seconds since the run started.
    #[must_use]
    pub fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}
