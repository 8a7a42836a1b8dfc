//! One host's way through a run: connect, gather, resolve, probe, plan. What follows is in
//! `apply`, `guarded` and `verify`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::diagnostic::{Failure, FailureClass, printable};
use crate::engine::answers::Queued;
use crate::engine::condition;
use crate::engine::findings;
use crate::engine::lock::HostState;
use crate::engine::plan::{self, Decision, Diffs, Planner, TaskPlan};
use crate::engine::preflight::{self, Preflight};
use crate::engine::program::{Program, TaskIndex};
use crate::engine::recover::{Ended, Moment};
use crate::engine::undeclared::{self, Login, Undeclared};
use crate::engine::{Job, Mode};
use crate::event::{EventKind, Finding, HostReport, Outcome, Recap, TaskReport};
use crate::facts::Facts;
use crate::resource::observe::{Answer, Observations};
use crate::resource::{Claim, Place, ResourceId, interview};
use crate::secret::{Masker, SecretName, Vault};
use crate::shell::Script;
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

    /// Gives a session what it fills into scripts, and what it masks in answers.
    pub(super) fn share_secrets(&self, session: &Session) {
        session.set_vault(self.vault.clone(), self.masker.and(&self.vault.masker()));
    }

    /// Every secret that the host's program names; all of the project's for commands that look
    /// further than the program does (logs, evidence).
    fn named_secrets(&self) -> Vec<SecretName> {
        if matches!(self.job.mode, Mode::Gather | Mode::Exec | Mode::Inspect | Mode::Operate) {
            return self.job.digests.names().cloned().collect();
        }
        self.program.tasks.iter().flat_map(|task| task.resources.iter().flat_map(|resource| resource.secrets())).collect()
    }

    /// From here on masks these secrets in whatever the host sends back: it may have them from an
    /// earlier run, and print them although this one changes nothing.
    async fn mask(&mut self, mut names: Vec<SecretName>) -> Result<(), Failure> {
        // Of what is made of a secret anew each time nobody has the earlier value: it is the host's own.
        names.retain(|name| name.origin().1.is_none());
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        let job = self.job.clone();
        self.masker = tokio::task::spawn_blocking(move || (job.masker)(&names)).await.unwrap_or_default();
        let session = self.session()?;
        self.share_secrets(&session);
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

    /// Refuses a distribution that nobody proved this on, before anything is touched.
    fn check_supported(&self) -> Result<(), Failure> {
        const SUPPORTED: [(&str, &str); 4] = [("Debian", "12"), ("Debian", "13"), ("Ubuntu", "22.04"), ("Ubuntu", "24.04")];
        let (name, version) = (self.facts.distribution(), self.facts.version());
        if SUPPORTED.contains(&(name, version)) || !self.job.mode.changes() {
            return Ok(());
        }
        Err(Failure::new(FailureClass::Unsupported, format!("`{name} {version}` is not supported"))
            .hint("supported are Debian 12 and 13, Ubuntu 22.04 and 24.04; nothing was touched"))
    }

    /// Refuses a host without the tools that questions and steps are made of, before anything is touched.
    fn check_tools(&self) -> Result<(), Failure> {
        let missing = self.facts.missing_tools();
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.iter().map(|tool| format!("`{}`", printable(tool))).collect::<Vec<_>>().join(", ");
        Err(Failure::new(FailureClass::MissingTool, format!("the host has no {names}; nothing was touched"))
            .hint("every Debian and Ubuntu has it: put it back (`apt-get install --reinstall coreutils findutils grep libc-bin`)"))
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

    /// Whether the plan is exactly the saved one, if one is applied.
    pub(super) fn as_saved(&self) -> Result<(), Failure> {
        let Some(only) = &self.job.only else { return Ok(()) };
        let now = self.planned();
        let saved = only.get(&self.name).cloned().unwrap_or_default();
        if now == saved {
            return Ok(());
        }
        let mut failure = Failure::new(FailureClass::MovedOn, "the host is not as it was when the plan was saved; nothing was touched")
            .hint("plan again, look at it, and apply that");
        let place = |entry: &(String, String)| entry.0.splitn(3, '/').nth(2).unwrap_or_default().to_owned();
        failure.causes.extend(
            now.iter().filter(|entry| !saved.contains(entry)).map(|entry| format!("{} would change otherwise than planned", place(entry))),
        );
        failure.causes.extend(
            saved
                .iter()
                .filter(|entry| !now.iter().any(|other| other.0 == entry.0))
                .map(|entry| format!("{} needs no change any more", place(entry))),
        );
        Err(failure)
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

    /// Decrypts what this host's changes need, if anything, and hands it to the session.
    ///
    /// # Errors
    /// [`FailureClass::Project`] if a secret cannot be had.
    pub(super) async fn unlock(&mut self) -> Result<(), Failure> {
        let mut names = Vec::new();
        for (index, plans) in &self.plans {
            for (resource, decision) in self.program.tasks[*index].resources.iter().zip(plans) {
                match decision {
                    Decision::Known(plan) => {
                        names.extend(plan.steps.iter().flat_map(|step| step.script.secrets()));
                        names.extend(plan.validate.iter().flat_map(Script::secrets));
                    }
                    Decision::After(_) => names.extend(resource.secrets()),
                    Decision::Unknown(_) | Decision::Refused(_) => {}
                }
            }
        }
        let handlers = self.program.plays.iter().flat_map(|play| &play.handlers);
        names
            .extend(handlers.flat_map(|handler| self.program.tasks[handler.task].resources.iter().flat_map(|resource| resource.secrets())));
        self.unlock_names(names).await
    }

    /// Decrypts secrets by name and hands them to the session.
    pub(super) async fn unlock_names(&mut self, mut names: Vec<SecretName>) -> Result<(), Failure> {
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        self.doing("decrypting secrets");
        let job = self.job.clone();
        let unlocked = tokio::task::spawn_blocking(move || (job.unlock)(&names)).await;
        let vault = unlocked.unwrap_or_else(|error| Err(error.to_string())).map_err(|why| {
            Failure::new(FailureClass::Project, "a secret that this host needs cannot be had; nothing was touched").because(why)
        })?;
        self.vault = vault;
        if self.masker.is_blind() {
            // Somebody gave a passphrase meanwhile.
            self.mask(self.named_secrets()).await?;
        }
        let session = self.session()?;
        self.share_secrets(&session);
        Ok(())
    }

    /// Everything that refuses, before anything is touched: claims that exclude each other, what
    /// the host lacks, and resources that refuse.
    ///
    /// # Errors
    /// One failure that names each.
    pub fn refusals(&self) -> Result<(), Failure> {
        let conflicts = self.job.cross_check(self);
        let mut reasons: Vec<String> = conflicts.into_iter().map(|conflict| self.with_place(conflict)).collect();
        let short = if self.changed { Vec::new() } else { self.preflight.shortages() };
        let only_short = !short.is_empty() && reasons.is_empty();
        reasons.extend(short);
        let before = reasons.len();
        for (_, index) in self.program.straight() {
            let Some(plan) = self.plans.get(&index) else { continue };
            let task = &self.program.tasks[index];
            for (resource, decision) in task.resources.iter().zip(plan) {
                if let Decision::Refused(reason) = decision {
                    let at = &task.location;
                    reasons.push(format!("{} ({}:{}): {reason}", resource.id(), at.file.display(), at.line));
                }
            }
        }
        if reasons.is_empty() {
            return Ok(());
        }
        let mut failure = if only_short && before == reasons.len() {
            Failure::new(FailureClass::Preflight, "the host lacks what the playbook requires; nothing was touched")
                .hint("`soc-provision preflight` shows who needs what; give the host more, move roles to another, or lower `requires`")
        } else {
            Failure::new(FailureClass::Refused, "the plan was refused; nothing was touched")
        };
        failure.causes = reasons;
        Err(failure)
    }

    /// What nobody declared in places that the project owns, and places that could not be looked at.
    #[must_use]
    pub fn undeclared(&self, seen: &Observations) -> (Vec<Undeclared>, Vec<(Place, String)>) {
        if self.job.partial {
            return (Vec::new(), Vec::new());
        }
        undeclared::find(&self.claims(), seen, &self.login())
    }

    /// Marks what is accepted, and weighs what is weighed; worst first.
    pub fn weigh(&self, findings: &mut [Finding], found: &[Undeclared]) {
        self.accept_inherited(findings, found);
        findings::weigh(findings, &self.claims(), &jiff::Zoned::now().date().to_string());
    }

    pub(super) fn login(&self) -> Login {
        Login { user: self.facts.text("ansible_user_id").to_owned(), port: self.target.port.unwrap_or(22) }
    }

    /// This run's id.
    #[must_use]
    pub fn run_id(&self) -> &str {
        &self.job.holder.run
    }

    /// Reports the plan and everything else in which the host differs from the repository.
    ///
    /// # Errors
    /// If the host is lost while contents are read, or the project contradicts itself.
    pub async fn report_drift(&mut self) -> Result<(), Failure> {
        self.report_plan().await?;
        let (found, blind) = self.undeclared(&self.observations);
        let mut all = findings::of_plans(&self.program, &self.plans, &self.diffs);
        all.extend(findings::of_places(&found, &blind));
        all.extend(condition::find(&self.observations, &self.state.owed));
        let ailing = self.ailing().await?;
        all.extend(ailing.into_iter().map(|(title, role, why)| Finding { role, ..condition::finding("health", &title, why) }));
        self.weigh(&mut all, &found);
        for finding in &all {
            self.emit(EventKind::Finding(finding.clone()));
        }
        self.findings = all;
        if let Some(holder) = &self.state.held_by {
            let get = |key: &str| holder.get(key).map_or("unknown", String::as_str);
            let text = format!(
                "{}: run {} of {} from {} is under way, so what drift says may be old already",
                self.name,
                get("run"),
                get("who"),
                get("from")
            );
            self.emit(EventKind::Warning { text });
        }
        let reasons = self.job.cross_check(self);
        if reasons.is_empty() {
            return Ok(());
        }
        let mut failure = Failure::new(FailureClass::Refused, "what the playbook declares contradicts itself");
        failure.causes = reasons.into_iter().map(|reason| self.with_place(reason)).collect();
        Err(failure)
    }

    /// A sentence that begins with a resource's name, with the place of its task.
    fn with_place(&self, sentence: String) -> String {
        let place = self.program.tasks.iter().find_map(|task| {
            let rest = task.resources.iter().find_map(|resource| sentence.strip_prefix(&resource.id().to_string())?.strip_prefix(": "))?;
            Some((task, sentence.len() - rest.len() - 2))
        });
        place.map_or(sentence.clone(), |(task, end)| {
            format!("{} ({}:{}){}", &sentence[..end], task.location.file.display(), task.location.line, &sentence[end..])
        })
    }

    /// Reports the plan, with the old contents of files read first if diffs are wanted.
    ///
    /// # Errors
    /// If the host is lost while contents are read.
    pub async fn report_plan(&mut self) -> Result<(), Failure> {
        let diffs = self.read_for_diffs().await?;
        let mut notified = BTreeSet::new();
        for (play, index) in self.program.straight() {
            let Some(plan) = self.plans.get(&index) else { continue };
            let report = plan::report(&self.program, play, index, plan, &diffs);
            self.count_planned(&report.outcome);
            if report.outcome.is_pending() {
                notified.extend(self.program.tasks[index].notify.iter().cloned());
            }
            self.emit(EventKind::Task(report));
        }
        notified.extend(self.state.owed.iter().cloned());
        for play in &self.program.plays {
            for handler in play.handlers.iter().filter(|handler| handler.names.iter().any(|name| notified.contains(name))) {
                let task = &self.program.tasks[handler.task];
                self.emit(EventKind::Task(TaskReport {
                    play: play.index,
                    title: task.title.clone(),
                    role: task.role.clone(),
                    place: Some(task.place()),
                    handler: true,
                    outcome: Outcome::WouldChange,
                    resources: task.resources.iter().map(|resource| plan::notified(resource.as_ref())).collect(),
                    milliseconds: 0,
                }));
            }
        }
        self.diffs = diffs;
        Ok(())
    }

    fn count_planned(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Skipped { .. } => self.recap.skipped += 1,
            Outcome::Failed { .. } => {}
            Outcome::WouldChange => {
                self.recap.ok += 1;
                self.recap.changed += 1;
            }
            _ => self.recap.ok += 1,
        }
        if outcome.is_pending() {
            self.pending += 1;
        }
    }

    async fn read_for_diffs(&self) -> Result<Diffs, Failure> {
        if !self.job.diff {
            return Ok(Diffs::new());
        }
        self.contents(&plan::paths_for_diffs(self.plans.values())).await
    }

    /// Reads files for diffs, up to 1 MiB each, in one round trip.
    pub(super) async fn contents(&self, paths: &[String]) -> Result<Diffs, Failure> {
        if paths.is_empty() {
            return Ok(Diffs::new());
        }
        let secret = |path: &String| crate::resource::Question::SecretFile(path.clone());
        let mut questions: Vec<_> = paths.iter().cloned().map(crate::resource::Question::Content).collect();
        questions.extend(paths.iter().map(secret));
        let nonce = self.job.nonce();
        let frame = Frame { deadline: READ_DEADLINE, keep: 64 << 20, ..Frame::new(interview::script(&questions, &nonce)) };
        let output = self.session()?.run(frame).await.map_err(|error| session_failure("reading files for diffs", &error))?;
        let seen = interview::parse(&questions, &nonce, &output.stdout);
        let held_secret =
            |path: &String| matches!(seen.get(&secret(path)), Some(Answer::SecretFile(Some(state))) if state.recorded.is_some());
        let content = |(path, question): (&String, &crate::resource::Question)| match seen.get(question) {
            Some(Answer::Content(Some(_))) if held_secret(path) => Some(b"(held a secret: not shown)\n".to_vec()),
            Some(Answer::Content(content)) => content.clone(),
            _ => None,
        };
        Ok(paths.iter().cloned().zip(paths.iter().zip(&questions).map(content)).collect())
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
