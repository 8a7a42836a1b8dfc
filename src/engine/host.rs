//! One host's way through a run: connect, gather, resolve, probe, plan. What follows is in
//! `apply`, `guarded` and `verify`.

mod refusal;
mod secrets;
mod showing;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::diagnostic::{Failure, FailureClass, printable};
use crate::engine::answers::Queued;
use crate::engine::condition;
use crate::engine::lock::HostState;
use crate::engine::plan::{self, Diffs, Planner, TaskPlan};
use crate::engine::preflight::{self, Preflight};
use crate::engine::program::{Program, TaskIndex};
use crate::engine::recover::{Ended, Moment};
use crate::engine::undeclared::{self, Login};
use crate::engine::{Job, Mode};
use crate::event::{EventKind, Finding, HostReport, Recap};
use crate::facts::Facts;
use crate::resource::observe::Observations;
use crate::resource::{Claim, ResourceId, interview};
use crate::secret::{Masker, Vault};
use crate::transport::{Frame, Output, PendingReply, Session, SessionError, Target};

/// How long the facts, a probe or a look at the lock may take.
pub(super) const READ_DEADLINE: Duration = Duration::from_secs(120);
/// A plan older than this is made anew before it is acted on (DESIGN 8.7).
const PLAN_KEEPS: Duration = Duration::from_secs(60);

/// One host in a run.
pub struct HostRun {
    pub(super) job: Arc<Job>,
    pub name: String,
    pub(super) target: Target,
    pub(super) session: Option<Arc<Session>>,
    /// The first frame, which travelled with the login.
    pub(super) first: Option<PendingReply>,
    /// Round trips of sessions that are gone.
    pub(super) trips_before: usize,
    pub facts: Facts,
    pub state: HostState,
    pub program: Program,
    pub plans: HashMap<TaskIndex, TaskPlan>,
    pub(super) observations: Observations,
    pub(super) planned_at: Instant,
    pub(super) prepared: bool,
    pub recap: Recap,
    pub failure: Option<Failure>,
    pub(super) notified: BTreeSet<String>,
    /// Tasks whose handlers ran inside their guard's window.
    pub(super) handled: BTreeSet<TaskIndex>,
    pub(super) queue: VecDeque<Queued>,
    pub(super) block: u32,
    /// Something on the host was changed in this run.
    pub changed: bool,
    pub(super) reconnects: u32,
    pub(super) role_seconds: BTreeMap<String, f64>,
    /// When the last task was reported: tasks are sent ahead, so that their times overlap.
    pub(super) reported_at: Instant,
    pub(super) started: Instant,
    pub(super) pending: u32,
    pub(super) checked: bool,
    /// What the user's command printed (`Mode::Exec`).
    pub said: Option<Output>,
    /// How the host is not as declared (`Mode::Drift`), worst first.
    pub findings: Vec<Finding>,
    /// The right to be worked on; given up while waiting for other hosts.
    pub(super) permit: Option<tokio::sync::OwnedSemaphorePermit>,
    /// Why the host's later plays do not come.
    pub(super) stopped: Option<String>,
    /// The secrets that this host's steps need.
    pub(super) vault: Arc<Vault>,
    /// Masks every secret that the host may send back, needed or not.
    pub(super) masker: Masker,
    /// Old contents of files that will change, when diffs are wanted.
    pub(super) diffs: Diffs,
    /// What the host's roles and stacks require, against what it has.
    pub preflight: Preflight,
    /// Resources whose validators ran before the first step.
    pub(super) validated: HashSet<(TaskIndex, ResourceId)>,
    /// How many steps were sent whose effect cannot be observed.
    pub(super) sent_once: usize,
    /// What became of those that were under way when a connection died.
    pub(super) recorded: HashMap<Moment, Ended>,
    /// How long such a step of a connection that died is waited for.
    pub(super) patience: Option<Duration>,
}

impl HostRun {
    /// A host that nothing was done with yet.
    #[must_use]
    pub fn new(job: Arc<Job>, name: String, target: Target) -> Self {
        Self {
            job,
            name,
            target,
            session: None,
            first: None,
            trips_before: 0,
            facts: Facts::default(),
            state: HostState::default(),
            program: Program::default(),
            plans: HashMap::new(),
            observations: Observations::default(),
            planned_at: Instant::now(),
            prepared: false,
            recap: Recap::default(),
            failure: None,
            notified: BTreeSet::new(),
            handled: BTreeSet::new(),
            queue: VecDeque::new(),
            block: 0,
            changed: false,
            reconnects: 0,
            role_seconds: BTreeMap::new(),
            reported_at: Instant::now(),
            started: Instant::now(),
            pending: 0,
            checked: false,
            said: None,
            findings: Vec::new(),
            permit: None,
            stopped: None,
            vault: Arc::new(Vault::default()),
            masker: Masker::default(),
            diffs: Diffs::new(),
            preflight: Preflight::default(),
            validated: HashSet::new(),
            sent_once: 0,
            recorded: HashMap::new(),
            patience: None,
        }
    }

    /// Tells the reports something about this host.
    pub fn emit(&self, kind: EventKind) {
        self.job.events.emit(Some(&self.name), kind);
    }

    /// Says what the host is busy with.
    pub fn doing(&self, what: impl Into<String>) {
        self.emit(EventKind::Doing { what: what.into() });
    }

    /// Whether the host is out of the run.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.failure.is_some()
    }

    /// Takes the host out of the run.
    pub fn fail(&mut self, failure: Failure) {
        if self.failure.is_some() {
            return;
        }
        if failure.class.is_unreachable() {
            self.recap.unreachable += 1;
        } else {
            self.recap.failed += 1;
        }
        self.failure = Some(failure);
    }

    /// Connects, gathers, resolves, probes and plans, once.
    ///
    /// # Errors
    /// The host's failure, in its class.
    pub async fn prepare(&mut self) -> Result<(), Failure> {
        if self.prepared {
            return Ok(());
        }
        self.started = Instant::now();
        self.doing("connecting");
        self.connect().await?;
        self.doing("gathering facts");
        self.gather_in_turn().await?;
        self.check_hold()?;
        if matches!(self.job.mode, Mode::Gather | Mode::Exec) {
            self.mask(self.named_secrets()).await?;
            self.prepared = true;
            return Ok(());
        }
        self.check_supported()?;
        self.check_tools()?;
        self.program = Program::new(
            (self.job.resolve)(&self.name, &self.facts)
                .map_err(|text| Failure::new(FailureClass::Project, "the project cannot be resolved for this host").because(text))?,
        );
        self.mask(self.named_secrets()).await?;
        if self.job.mode != Mode::Verify {
            let tasks: Vec<TaskIndex> = self.program.straight().into_iter().map(|(_, index)| index).collect();
            self.doing("probing");
            self.observations = self.probe(&tasks).await?;
            self.plan_all();
            self.preflight = preflight::compare(self);
        }
        if self.job.mode.changes() {
            for remark in (self.job.remarks)(&self.claims()) {
                self.emit(EventKind::Warning { text: format!("{}: {remark}", self.name) });
            }
        }
        self.prepared = true;
        Ok(())
    }

    /// The session.
    ///
    /// # Errors
    /// [`FailureClass::Tcp`] if there is none.
    pub fn session(&self) -> Result<Arc<Session>, Failure> {
        self.session.clone().ok_or_else(|| Failure::new(FailureClass::Tcp, "not connected"))
    }

    /// Ends the shell and the connection, once the host's part of the run is over. Bounded: a host
    /// that does not answer must not hold up the end.
    pub(super) async fn hang_up(&self) {
        if let Some(session) = &self.session {
            let _ = tokio::time::timeout(Duration::from_secs(2), session.close()).await;
        }
    }

    /// One round trip: asks everything that some tasks want to know.
    pub(super) async fn probe(&self, tasks: &[TaskIndex]) -> Result<Observations, Failure> {
        let drift = self.job.mode == Mode::Drift || self.job.fix;
        let mut questions = plan::questions(&self.program, tasks.iter().copied(), &self.facts, drift);
        if !self.prepared {
            questions.extend(preflight::questions(&self.program));
        }
        if self.job.mode == Mode::Drift {
            if !self.job.partial {
                questions.extend(undeclared::questions(&self.claims()));
            }
            questions.push(condition::question());
        }
        if questions.is_empty() {
            return Ok(Observations::default());
        }
        let nonce = self.job.nonce();
        let frame = Frame { deadline: READ_DEADLINE, keep: 64 << 20, ..Frame::new(interview::script(&questions, &nonce)) };
        let lost = |error: SessionError| session_failure("probing", &error);
        let output = self.session()?.submit(frame).await.map_err(lost)?.wait_unmasked().await.map_err(lost)?;
        Ok(interview::parse(&questions, &nonce, &output.stdout))
    }

    /// What this host's plans are made from, with these answers.
    pub(super) fn planner<'a>(&'a self, observations: &'a Observations) -> Planner<'a> {
        Planner { facts: &self.facts, digests: &self.job.digests, observations, fix: self.job.fix, remote: !self.target.local }
    }

    pub(super) fn plan_all(&mut self) {
        self.plans = self.planner(&self.observations).all(&self.program);
        self.planned_at = Instant::now();
    }

    /// Runs the user's command.
    pub(super) async fn exec(&mut self) -> Result<(), Failure> {
        let Some(frame) = self.job.exec.clone() else { return Ok(()) };
        self.doing("running the command");
        let output = self.session()?.run(frame).await.map_err(|error| session_failure("the command", &error))?;
        self.recap.ok += 1;
        self.said = Some(output);
        Ok(())
    }

    /// Everything that the host's resources claim.
    #[must_use]
    pub fn claims(&self) -> Vec<(ResourceId, Claim)> {
        let resources = self.program.tasks.iter().flat_map(|task| &task.resources);
        resources.flat_map(|resource| resource.claims().into_iter().map(|claim| (resource.id(), claim))).collect()
    }

    /// What would change, place by place, with a digest of what is there and what would be (for saved
    /// plans).
    #[must_use]
    pub fn planned(&self) -> Vec<(String, String)> {
        plan::digest(&self.planner(&self.observations), &self.program, &self.plans)
    }

    /// Plans anew if the plan is old or the host was changed since (DESIGN 8.7).
    pub(super) async fn refresh_plan(&mut self) -> Result<(), Failure> {
        if !self.changed && self.planned_at.elapsed() < PLAN_KEEPS {
            return Ok(());
        }
        let tasks: Vec<TaskIndex> = self.program.straight().into_iter().map(|(_, index)| index).collect();
        self.observations = self.probe(&tasks).await?;
        self.plan_all();
        Ok(())
    }

    pub(super) fn login(&self) -> Login {
        Login { user: self.facts.text("ansible_user_id").to_owned(), port: self.target.port.unwrap_or(22) }
    }

    /// This run's id.
    #[must_use]
    pub fn run_id(&self) -> &str {
        &self.job.holder.run
    }

    /// The host's part of the recap.
    pub fn finish(&mut self) {
        let trips = self.trips_before + self.session.as_ref().map_or(0, |session| session.round_trips());
        self.emit(EventKind::HostFinished(HostReport {
            recap: self.recap,
            failure: self.failure.as_ref().map(Into::into),
            pending: self.pending,
            round_trips: trips,
            seconds: self.started.elapsed().as_secs_f64(),
            roles: self.role_seconds.clone(),
        }));
    }

    /// Tasks that would change, are known only later, or could not be determined.
    #[must_use]
    pub fn pending_tasks(&self) -> u32 {
        self.pending
    }
}

/// A frame's stdout as text.
pub(super) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a session's error means for the host.
pub(super) fn session_failure(doing: &str, error: &SessionError) -> Failure {
    match error {
        SessionError::Lost(why) => {
            Failure::new(FailureClass::Tcp, format!("the connection was lost while {doing}")).because(printable(why))
        }
        SessionError::Deadline(after) => {
            Failure::new(FailureClass::Deadline, format!("{doing} took longer than {} s and was stopped", after.as_secs()))
                .hint("raise the task's `timeout:` if it may take that long")
        }
        SessionError::Missing(missing) => {
            Failure::new(FailureClass::Project, missing.to_string()).hint(format!("add it with `soc-provision secrets set {}`", missing.0))
        }
    }
}
