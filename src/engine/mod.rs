//! The engine: runs a job on its hosts. Files are named after the phases, in their order:
//! `host` (connect, gather, probe), `lock`, `plan`, `apply`, `guard` and `guarded`, `gate`,
//! `verify`, `journal`. Everything it has to say goes out as events.

pub mod answers;
pub mod apply;
mod baseline;
pub mod condition;
mod connect;
mod failure;
pub mod findings;
mod follow;
pub mod gate;
pub mod guard;
mod guarded;
pub mod hold;
pub mod host;
pub mod http;
pub mod journal;
pub mod lock;
mod lockout;
pub mod operate;
pub mod plan;
pub mod preflight;
pub mod program;
pub mod prune;
mod recover;
pub mod survive;
pub mod undeclared;
pub mod verify;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::{Mutex, Semaphore, watch};

use crate::diagnostic::{Exit, Failure, FailureClass};
use crate::event::{EventKind, Events, RunInfo};
use crate::facts::Facts;
use crate::resolve::HostProgram;
use crate::resource::{Claim, ResourceId};
use crate::secret::{KeyedDigests, Masker, SecretName, Vault};
use crate::transport::{Connector, Frame, Session, Target};
use gate::Gates;
use host::HostRun;
use lock::Holder;

/// What a run does with its hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Facts and the host's memory only.
    Gather,
    /// Show what apply would do.
    Plan,
    /// Change what differs, then verify.
    Apply,
    /// Health checks only.
    Verify,
    /// One command of the user's.
    Exec,
    /// A command's own work on planned hosts, read-only: see [`operate::Operation`].
    Inspect,
    /// A command's own work on planned hosts, under the lock.
    Operate,
    /// As plan, and what nobody declared.
    Drift,
}

impl Mode {
    /// Whether the run takes the host's lock.
    #[must_use]
    pub fn takes_lock(self) -> bool {
        matches!(self, Self::Apply | Self::Exec | Self::Operate)
    }

    /// Whether the run changes hosts, or plans to.
    #[must_use]
    pub fn changes(self) -> bool {
        matches!(self, Self::Apply | Self::Plan | Self::Drift | Self::Operate)
    }
}

/// Resolves a host's program from its facts; the error is rendered for people.
pub type Resolve = Box<dyn Fn(&str, &Facts) -> Result<HostProgram, String> + Send + Sync>;
/// Decrypts secrets; the error is for people.
pub type Unlock = Box<dyn Fn(&[SecretName]) -> Result<Arc<Vault>, String> + Send + Sync>;
/// Masks those of the secrets that open without asking anybody.
pub type MaskerOf = Box<dyn Fn(&[SecretName]) -> Masker + Send + Sync>;
/// Looks over everything that a host's resources claim, together; gives reasons to refuse.
pub type CrossCheck = Box<dyn Fn(&[(ResourceId, Claim)]) -> Vec<String> + Send + Sync>;

/// Everything a run needs to know.
pub struct Job {
    pub mode: Mode,
    pub info: RunInfo,
    pub plays: Vec<PlayPlan>,
    pub hosts: Vec<(String, Target)>,
    /// How many hosts are worked on at a time.
    pub forks: Arc<Semaphore>,
    /// Sessions that are open, so that Ctrl-C reaches hosts whose own task is busy.
    pub live: std::sync::Mutex<BTreeMap<String, Weak<Session>>>,
    pub diff: bool,
    /// Apply only what can be told to have drifted (`drift --fix`).
    pub fix: bool,
    /// Only some tasks were resolved, so that what nobody declared cannot be told.
    pub partial: bool,
    pub break_lock: bool,
    /// Releases that were rolled back may be applied again.
    pub retry_release: bool,
    /// How long to wait for another run on the same host to end.
    pub wait: std::time::Duration,
    /// Work on hosts that are on hold, too.
    pub override_hold: bool,
    pub holder: Holder,
    pub last: journal::Last,
    pub digests: KeyedDigests,
    pub resolve: Resolve,
    pub unlock: Unlock,
    pub masker: MaskerOf,
    pub cross_check: CrossCheck,
    /// The same for what is only told.
    pub remarks: CrossCheck,
    pub connector: Connector,
    pub events: Events,
    pub cancel: Arc<Cancel>,
    /// A saved plan: host -> exactly what may change.
    pub only: Option<SavedHosts>,
    /// What `Mode::Exec` runs.
    pub exec: Option<Frame>,
    /// What `Mode::Inspect` and `Mode::Operate` do with each host once it is planned.
    pub operation: Option<Arc<dyn operate::Operation>>,
    /// Makes probe nonces unpredictable to hosts.
    pub seed: u128,
    pub counter: AtomicU64,
}

/// One play as the roll-out sees it.
#[derive(Clone, Debug, Default)]
pub struct PlayPlan {
    pub index: usize,
    pub name: String,
    /// Hosts in batches (`serial`); without `serial`, one.
    pub batches: Vec<Vec<String>>,
    /// Stop when more than this share of a batch failed.
    pub max_fail_percentage: Option<f64>,
    /// Stop when more than this many hosts, or this share, were unreachable.
    pub max_unreachable: Option<Limit>,
    pub any_errors_fatal: bool,
    /// The next play starts only when this one's health checks pass on every host.
    pub gate: bool,
}

/// A number of hosts, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    Hosts(usize),
    Percent(f64),
}

/// Ctrl-C: once finishes the step under way, twice stops at once.
#[derive(Default)]
pub struct Cancel {
    pressed: AtomicU8,
    changed: watch::Sender<u8>,
}

impl Cancel {
    /// Counts one Ctrl-C.
    pub fn press(&self) {
        let count = self.pressed.fetch_add(1, Ordering::SeqCst) + 1;
        self.changed.send_replace(count);
    }

    /// How often it was pressed.
    #[must_use]
    pub fn count(&self) -> u8 {
        self.pressed.load(Ordering::SeqCst)
    }

    /// Waits until it was pressed this often.
    pub async fn pressed(&self, times: u8) {
        let _ = self.changed.subscribe().wait_for(|count| *count >= times).await;
    }
}

impl Job {
    /// Whether the user wants the run to end.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.cancel.count() > 0
    }

    /// Whether the user wants it to end at once, guards or not: hosts revert by themselves.
    #[must_use]
    pub fn abandons_guards(&self) -> bool {
        self.cancel.count() > 1
    }

    /// A word that no host can guess.
    #[must_use]
    pub fn nonce(&self) -> String {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        crate::secret::sha256(format!("{}-{count}", self.seed).as_bytes())[..32].to_owned()
    }

    /// Notes that a host's session is open.
    fn alive(&self, host: &str, session: &Arc<Session>) {
        let mut live = self.live.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        live.insert(host.to_owned(), Arc::downgrade(session));
    }

    /// The sessions that are open now.
    fn sessions(&self) -> Vec<Arc<Session>> {
        let live = self.live.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        live.values().filter_map(Weak::upgrade).collect()
    }

    fn cross_check(&self, host: &HostRun) -> Vec<String> {
        (self.cross_check)(&host.claims())
    }
}

/// How long killing what runs on the hosts may hold up the end.
const KILLING: std::time::Duration = std::time::Duration::from_secs(5);

/// What a plan says may change: host -> place in the program and digest of what is desired and observed.
pub type SavedHosts = BTreeMap<String, Vec<(String, String)>>;

/// A run's hosts as they are in the end.
pub type Hosts = BTreeMap<String, HostRun>;

/// Runs a job to its end and gives back its hosts.
pub async fn run(job: Arc<Job>) -> (Hosts, Exit) {
    job.events.emit(None, EventKind::RunStarted(job.info.clone()));
    let hosts: BTreeMap<String, Arc<Mutex<HostRun>>> = job
        .hosts
        .iter()
        .map(|(name, target)| (name.clone(), Arc::new(Mutex::new(HostRun::new(job.clone(), name.clone(), target.clone())))))
        .collect();
    let mut stopper = tokio::spawn(stop_on_cancel(job.clone()));
    let forks = job.forks.clone();
    let preparing: Vec<_> = hosts.values().map(|host| tokio::spawn(prepare(host.clone(), forks.clone()))).collect();
    if job.mode == Mode::Apply {
        roll_out(&job, &hosts, &forks).await;
    }
    for task in preparing {
        let _ = task.await;
    }
    if job.abandons_guards() {
        // What runs on the hosts is being killed, over connections that must not be closed yet.
        let _ = tokio::time::timeout(KILLING, &mut stopper).await;
    }
    if matches!(job.mode, Mode::Apply | Mode::Verify) {
        for_each(hosts.values(), &forks, |mut host| async move {
            if !host.is_out() && host.prepared {
                if let Err(failure) = host.verify_all().await {
                    host.fail(failure);
                }
            }
            host.hang_up().await;
        })
        .await;
    }
    stopper.abort();
    finish(&job, hosts).await
}

async fn prepare(host: Arc<Mutex<HostRun>>, forks: Arc<Semaphore>) {
    let mut host = host.lock_owned().await;
    let _permit = forks.acquire_owned().await;
    if host.is_out() || host.prepared {
        return;
    }
    let outcome = match host.job.interrupted() {
        true => Err(Failure::new(FailureClass::Interrupted, "interrupted before it began")),
        false => host.prepare().await,
    };
    let outcome = match (outcome, host.job.mode) {
        (Ok(()), Mode::Plan) => host.report_plan().await.and_then(|()| host.refusals()),
        (Ok(()), Mode::Drift) => host.report_drift().await,
        (Ok(()), Mode::Exec) => host.exec().await,
        (Ok(()), Mode::Inspect | Mode::Operate) => host.operate().await,
        (other, _) => other,
    };
    if let Err(failure) = outcome {
        host.fail(failure);
    }
    if !matches!(host.job.mode, Mode::Apply | Mode::Verify) {
        host.hang_up().await;
    }
}

/// Runs something on every host at once, as many at a time as there are forks.
async fn for_each<'a, F, W>(hosts: impl Iterator<Item = &'a Arc<Mutex<HostRun>>>, forks: &Arc<Semaphore>, work: W)
where
    W: Fn(tokio::sync::OwnedMutexGuard<HostRun>) -> F + Send + Sync + Copy + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let tasks: Vec<_> = hosts
        .map(|host| {
            let (host, forks) = (host.clone(), forks.clone());
            tokio::spawn(async move {
                let host = host.lock_owned().await;
                let _permit = forks.acquire_owned().await;
                work(host).await;
            })
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
}

/// Plays in order, batches in order; hosts of a batch at once. Plays and batches are barriers.
async fn roll_out(job: &Arc<Job>, hosts: &BTreeMap<String, Arc<Mutex<HostRun>>>, forks: &Arc<Semaphore>) {
    for play in &job.plays {
        let all: Vec<String> = play.batches.iter().flatten().cloned().collect();
        job.events.emit(None, EventKind::PlayStarted { play: play.index, name: play.name.clone(), hosts: all.clone() });
        for batch in &play.batches {
            if job.interrupted() {
                return;
            }
            apply_batch(job, play, batch, hosts, forks).await;
            if let Some(reason) = too_many_failed(play, batch, hosts).await {
                job.events.emit(None, EventKind::Warning { text: reason.clone() });
                stop_the_rest(hosts, &reason).await;
                return;
            }
        }
        if play.gate {
            if let Some(reason) = gate_shut(play, &all, hosts).await {
                job.events.emit(None, EventKind::Warning { text: reason.clone() });
                stop_the_rest(hosts, &reason).await;
                return;
            }
        }
    }
}

async fn apply_batch(
    job: &Arc<Job>,
    play: &PlayPlan,
    batch: &[String],
    hosts: &BTreeMap<String, Arc<Mutex<HostRun>>>,
    forks: &Arc<Semaphore>,
) {
    let gates = Arc::new(Gates::new(batch));
    let mut tasks = Vec::new();
    for name in batch {
        let Some(host) = hosts.get(name).cloned() else { continue };
        let (gates, forks, play, name, job) = (gates.clone(), forks.clone(), play.clone(), name.clone(), job.clone());
        tasks.push(tokio::spawn(async move {
            let mut host = host.lock_owned().await;
            host.permit = forks.acquire_owned().await.ok();
            if !host.is_out() {
                let outcome = apply_one(&job, &mut host, &play, &gates).await;
                if let Err(failure) = outcome {
                    host.fail(failure);
                }
            }
            gates.leave(&name);
            host.permit = None;
        }));
    }
    for task in tasks {
        let _ = task.await;
    }
}

async fn apply_one(job: &Job, host: &mut HostRun, play: &PlayPlan, gates: &Gates) -> Result<(), Failure> {
    host.prepare().await?;
    tokio::select! {
        outcome = async {
            host.apply_play(play.index, gates).await?;
            if play.gate { host.verify_play(play.index).await?; }
            Ok(())
        } => outcome,
        () = job.cancel.pressed(2) => Err(Failure::new(FailureClass::Interrupted, "stopped at once; the step under way may be half done")
            .hint("run again: the next run finishes the job")),
    }
}

/// The failure policy of a play: unreachable hosts count on their own, never as failed ones.
async fn too_many_failed(play: &PlayPlan, batch: &[String], hosts: &BTreeMap<String, Arc<Mutex<HostRun>>>) -> Option<String> {
    let (mut failed, mut unreachable) = (0_usize, 0_usize);
    for name in batch {
        let Some(host) = hosts.get(name) else { continue };
        match host.lock().await.failure.as_ref().map(|failure| failure.class.is_unreachable()) {
            Some(true) => unreachable += 1,
            Some(false) => failed += 1,
            None => {}
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "numbers of hosts")]
    let share = |count: usize| count as f64 * 100.0 / batch.len().max(1) as f64;
    let stop = |what: String| Some(format!("{what} in play `{}`: the roll-out stops", play.name));
    if play.any_errors_fatal && failed + unreachable > 0 {
        return stop("any error is fatal".to_owned());
    }
    if let Some(limit) = play.max_fail_percentage {
        if share(failed) > limit {
            return stop(format!("{failed} of {} hosts failed, more than {limit} %", batch.len()));
        }
    }
    match play.max_unreachable {
        Some(Limit::Hosts(limit)) if unreachable > limit => stop(format!("{unreachable} hosts were unreachable, more than {limit}")),
        Some(Limit::Percent(limit)) if share(unreachable) > limit => {
            stop(format!("{unreachable} of {} hosts were unreachable, more than {limit} %", batch.len()))
        }
        _ if !batch.is_empty() && failed + unreachable == batch.len() && play.batches.len() > 1 => {
            stop("every host of a batch failed".to_owned())
        }
        _ => None,
    }
}

async fn gate_shut(play: &PlayPlan, all: &[String], hosts: &BTreeMap<String, Arc<Mutex<HostRun>>>) -> Option<String> {
    for name in all {
        let Some(host) = hosts.get(name) else { continue };
        if host.lock().await.is_out() {
            return Some(format!("the gate of play `{}` stays shut: `{name}` is not healthy", play.name));
        }
    }
    None
}

/// Hosts that were fine, but whose turn will not come.
async fn stop_the_rest(hosts: &BTreeMap<String, Arc<Mutex<HostRun>>>, reason: &str) {
    for host in hosts.values() {
        let mut host = host.lock().await;
        if !host.is_out() {
            host.stopped = Some(reason.to_owned());
        }
    }
}

/// Ctrl-C once: every host finishes its step under way and skips the rest. Twice: everything is
/// killed where it is.
async fn stop_on_cancel(job: Arc<Job>) {
    job.cancel.pressed(1).await;
    let sessions = job.sessions();
    let stops = futures::future::join_all(sessions.iter().map(|session| session.stop()));
    tokio::select! {
        _ = stops => {}
        () = job.cancel.pressed(2) => {}
    }
    job.cancel.pressed(2).await;
    let sessions = job.sessions();
    futures::future::join_all(sessions.iter().map(|session| session.kill())).await;
}

async fn finish(job: &Job, hosts: BTreeMap<String, Arc<Mutex<HostRun>>>) -> (Hosts, Exit) {
    let mut exit = Exit::Fine;
    let mut out = Hosts::new();
    let mut left: Vec<(String, HostRun)> = Vec::new();
    for (name, host) in hosts {
        let Ok(host) = Arc::try_unwrap(host) else { continue };
        left.push((name, host.into_inner()));
    }
    // Those that are open still (a play that failed early), all at once.
    futures::future::join_all(left.iter().map(|(_, host)| host.hang_up())).await;
    for (name, mut host) in left {
        host.finish();
        exit = exit.max(host.failure.as_ref().map_or(Exit::Fine, |failure| failure.class.exit()));
        out.insert(name, host);
    }
    if job.interrupted() {
        exit = exit.max(Exit::Interrupted);
    }
    (out, exit)
}
