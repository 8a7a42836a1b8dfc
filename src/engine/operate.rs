//! Operations: what a command does with a host besides planning and applying (`rollback`,
//! `capture`, `backup`, ...). The engine connects, takes the lock if the operation changes
//! something, resolves, probes and plans as for any run; then the operation has the host.

use std::time::Duration;

use crate::diagnostic::{Failure, FailureClass, printable};
use crate::engine::apply::Walk;
use crate::engine::failure::step_failure;
use crate::engine::host::{HostRun, session_failure};
use crate::engine::plan::{Decision, Planner};
use crate::engine::{journal, survive};
use crate::event::{EventKind, Outcome, RunInfo, TaskReport};
use crate::resource::observe::{Observations, Pending};
use crate::resource::plan::{Plan, Step};
use crate::resource::{Question, Resource, ResourceId, interview};
use crate::shell::Script;
use crate::transport::{Frame, Output, SessionError};

/// How much of what an operation's script prints is kept, in bytes.
const KEEP: usize = 16 << 20;

/// What a command does with one host. Runs on many hosts at once, so what it finds out it keeps
/// behind a lock of its own, by host name.
pub trait Operation: Send + Sync {
    /// Works on a host that is connected, resolved, probed and planned.
    ///
    /// # Errors
    /// The host's failure, in its class.
    fn run<'a>(&'a self, host: &'a mut HostRun) -> Walk<'a>;
}

impl HostRun {
    /// Runs the job's operation on this host.
    pub(super) async fn operate(&mut self) -> Result<(), Failure> {
        match self.job.operation.clone() {
            Some(operation) => operation.run(self).await,
            None => Ok(()),
        }
    }

    /// Who runs this, from where, and when it began.
    #[must_use]
    pub fn run_info(&self) -> &RunInfo {
        &self.job.info
    }

    /// The host's resources, in order, as the playbook declares them.
    pub fn resources(&self) -> impl Iterator<Item = &dyn Resource> {
        let tasks = self.program.straight().into_iter().map(|(_, index)| &self.program.tasks[index]);
        tasks.flat_map(|task| task.resources.iter().map(AsRef::as_ref))
    }

    /// What the host answered to the run's questions.
    #[must_use]
    pub fn observed(&self) -> &Observations {
        &self.observations
    }

    /// Whether the user wants the run to end.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.job.interrupted()
    }

    /// Asks more questions, in one round trip.
    ///
    /// # Errors
    /// If the host is lost or too slow.
    pub async fn ask(&self, questions: &[Question]) -> Result<Observations, Failure> {
        let nonce = self.job.nonce();
        let frame = Frame { deadline: Duration::from_secs(120), keep: 64 << 20, ..Frame::new(interview::script(questions, &nonce)) };
        let lost = |error| session_failure("probing", &error);
        let output = self.session()?.submit(frame).await.map_err(lost)?.wait_unmasked().await.map_err(lost)?;
        Ok(interview::parse(questions, &nonce, &output.stdout))
    }

    /// Runs a script as root and gives what it printed; its exit status is the caller's business.
    ///
    /// # Errors
    /// If the host is lost or the deadline passes.
    pub async fn script(&mut self, title: &str, script: Script, deadline: Duration) -> Result<Output, Failure> {
        self.doing(title);
        let frame = Frame { deadline, keep: KEEP, ..Frame::new(script) };
        self.session()?.run(frame).await.map_err(|error| session_failure(title, &error))
    }

    /// Probes and plans one resource by itself, in one round trip: for what is not in the program.
    ///
    /// # Errors
    /// If the host is lost, or what the resource asks for cannot be known or must not be done.
    pub async fn plan_alone(&self, resource: &dyn Resource) -> Result<Plan, Failure> {
        let observations = self.ask(&resource.questions(&self.facts)).await?;
        let planner = Planner { fix: false, ..self.planner(&observations) };
        let refused = |reason: String| Failure::new(FailureClass::Refused, format!("{} was refused", resource.id())).because(reason);
        match planner.decide(resource, &mut Pending::default()) {
            Decision::Known(plan) => Ok(plan),
            Decision::After(id) => Err(refused(format!("known only after {id}"))),
            Decision::Unknown(reason) | Decision::Refused(reason) => Err(refused(reason)),
        }
    }

    /// Whether everything that applying needs can be had: nothing is refused, every secret opens.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn can_apply(&mut self) -> Result<(), Failure> {
        self.refusals()?;
        let resources = self.program.tasks.iter().flat_map(|task| &task.resources);
        let names = resources.flat_map(|resource| resource.secrets()).collect();
        self.unlock_names(names).await
    }

    /// Runs a resource's steps in order, each noted in the journal before it; the first that fails
    /// ends it. Decrypts the secrets that they need. A step that survives the connection is picked up
    /// again where the connection is lost.
    ///
    /// # Errors
    /// The failed step, or the host is lost.
    pub async fn steps(&mut self, id: &ResourceId, steps: &[Step]) -> Result<(), Failure> {
        let names = steps.iter().flat_map(|step| step.script.secrets()).collect();
        self.unlock_names(names).await?;
        for step in steps {
            self.send_uploads(step).await?;
            self.doing(step.title.clone());
            // One word, and never the same twice: under it a step is found again after a lost connection.
            let key = format!("operation-{}", &self.job.nonce()[..12]);
            let mut journal = Some(journal::before_step(&self.job.holder.run, id, &[]));
            let output = loop {
                let frame = self.frame(step, journal.take(), &key, self.block, None);
                match self.run_step(step, frame).await {
                    Err(SessionError::Lost(why)) if step.survives => {
                        self.reconnect(&why).await?;
                        self.new_block()?;
                    }
                    other => break other.map_err(|error| session_failure(&step.title, &error))?,
                }
            };
            if output.status != 0 || output.skipped {
                return Err(step_failure(&step.title, id, &output));
            }
            self.changed = true;
        }
        Ok(())
    }

    /// Runs one step and gives what it printed; its exit status is the caller's business. A step
    /// that survives is followed over lost connections.
    ///
    /// # Errors
    /// The host is lost, or the deadline passes.
    pub async fn step_output(&mut self, id: &ResourceId, step: &Step) -> Result<Output, Failure> {
        self.doing(step.title.clone());
        let key = &crate::secret::sha256(format!("{id} {}", step.title).as_bytes())[..12];
        let mut before = Some(journal::before_step(&self.job.holder.run, id, &[]));
        loop {
            let frame = Frame { keep: KEEP, ..self.frame(step, before.take(), key, self.block, None) };
            match self.run_step(step, frame).await {
                Err(SessionError::Lost(why)) if step.survives && !self.job.interrupted() => self.reconnect(&why).await?,
                Ok(output) => {
                    if step.survives {
                        let clean = Frame { unstoppable: true, ..Frame::new(survive::clean(&self.job.holder.run)) };
                        let _ = self.session()?.submit(clean).await;
                    }
                    return Ok(output);
                }
                Err(error) => return Err(session_failure(&step.title, &error)),
            }
        }
    }

    /// Reports a finished piece of work as a task and counts it in the recap.
    pub fn report(&mut self, title: impl Into<String>, outcome: Outcome, since: std::time::Instant) {
        match outcome {
            Outcome::Changed => {
                self.recap.ok += 1;
                self.recap.changed += 1;
            }
            Outcome::Skipped { .. } => self.recap.skipped += 1,
            _ => self.recap.ok += 1,
        }
        self.emit(EventKind::Task(TaskReport {
            play: 0,
            title: printable(&title.into()),
            role: None,
            place: None,
            handler: false,
            outcome,
            resources: Vec::new(),
            milliseconds: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        }));
    }
}
