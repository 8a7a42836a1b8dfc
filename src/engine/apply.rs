//! Applying: the steps of what was planned, sent ahead, waited for only where a decision needs
//! an answer (DESIGN 8.4).

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::diagnostic::{Failure, FailureClass};
use crate::engine::answers::{Queued, SentStep};
use crate::engine::failure::step_failure;
use crate::engine::host::{HostRun, session_failure};
use crate::engine::plan::{self, Decision, TaskPlan};
use crate::engine::program::{Step as Node, TaskIndex, tasks_in};
use crate::engine::recover::Once;
use crate::engine::{journal, survive};
use crate::event::{EventKind, Outcome};
use crate::resource::ResourceId;
use crate::resource::observe::Pending;
use crate::resource::plan::{Effect, Plan, Step};
use crate::shell::Script;
use crate::transport::Frame;

/// How many bytes of a step's output are kept.
const KEEP_OUTPUT: usize = 64 << 10;

/// A walk over nodes, or an operation, under way on a host.
pub type Walk<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

impl HostRun {
    /// Applies one play: everything before its handlers, then its handlers.
    ///
    /// # Errors
    /// The host's failure.
    pub async fn apply_play(&mut self, play: usize, gates: &crate::engine::gate::Gates) -> Result<(), Failure> {
        let Some(position) = self.program.plays.iter().position(|candidate| candidate.index == play) else { return Ok(()) };
        self.refresh_plan().await?;
        self.refusals()?;
        if !self.changed {
            self.as_saved()?;
        }
        self.unlock().await?;
        self.read_diffs_for_apply().await?;
        let nodes = self.program.plays[position].nodes.clone();
        self.send_validators(&nodes).await?;
        let walked = self.walk(&nodes, position, gates).await;
        let walked = match walked {
            Ok(()) => self.drain().await,
            failed => failed,
        };
        walked?;
        self.run_handlers(position).await
    }

    async fn read_diffs_for_apply(&mut self) -> Result<(), Failure> {
        if self.job.diff && self.diffs.is_empty() {
            let paths = plan::paths_for_diffs(self.plans.values());
            self.diffs = self.contents(&paths).await?;
        }
        Ok(())
    }

    /// The validators of everything that will change run before the first step (DESIGN 8.15), in
    /// the same block, so that a failed one skips every step. Those that need a tool which this
    /// run still installs run before their own step instead.
    async fn send_validators(&mut self, nodes: &[Node]) -> Result<(), Failure> {
        let mut installs = false;
        let mut script = Script::new();
        for index in tasks_in(nodes) {
            let Some(plans) = self.plans.get(&index) else { continue };
            for (resource, decision) in self.program.tasks[index].resources.iter().zip(plans) {
                let Decision::Known(plan) = decision else { continue };
                if let (Some(validate), false) = (&plan.validate, installs) {
                    script = script.then("(\n", &[]).append(validate.clone()).then(
                        "\n) || { r=$?; printf '%s\\n' {} >&2; exit $r; }\n",
                        &[&format!("{} is invalid; nothing was changed", resource.id())],
                    );
                    self.validated.insert((index, resource.id()));
                }
                installs |= plan.effects.iter().any(|effect| matches!(effect, Effect::Package(_) | Effect::Docker));
            }
        }
        if script.is_empty() {
            return Ok(());
        }
        let session = self.session()?;
        let frame = Frame { deadline: Duration::from_secs(120), ..Frame::new(script) };
        let output = session.run(frame).await.map_err(|error| session_failure("validating", &error))?;
        if output.status == 0 { Ok(()) } else { Err(step_failure("validate", &ResourceId::new("plan", &self.name), &output)) }
    }

    pub(super) fn walk<'a>(&'a mut self, nodes: &'a [Node], play: usize, gates: &'a crate::engine::gate::Gates) -> Walk<'a> {
        Box::pin(async move {
            for node in nodes {
                if self.job.interrupted() {
                    self.drain().await?;
                    return Err(Failure::new(FailureClass::Interrupted, "interrupted before the next step"));
                }
                match node {
                    Node::Task(index) => self.apply_task(*index, false).await?,
                    Node::FlushHandlers => {
                        self.drain().await?;
                        self.run_handlers(play).await?;
                    }
                    Node::Gate(role) => {
                        self.drain().await?;
                        self.run_handlers(play).await?;
                        self.pass_gate(play, role, gates).await?;
                    }
                    Node::Block { name, body, rescue, always } => self.walk_block(name, body, rescue, always, play, gates).await?,
                }
            }
            Ok(())
        })
    }

    async fn walk_block(
        &mut self,
        name: &str,
        body: &[Node],
        rescue: &[Node],
        always: &[Node],
        play: usize,
        gates: &crate::engine::gate::Gates,
    ) -> Result<(), Failure> {
        if rescue.is_empty() && always.is_empty() {
            return self.walk(body, play, gates).await;
        }
        self.drain().await?;
        let mut outcome = match self.walk(body, play, gates).await {
            Ok(()) => self.drain().await,
            failed => failed,
        };
        let rescuable = |failure: &Failure| !failure.class.is_unreachable() && failure.class != FailureClass::Interrupted;
        if outcome.as_ref().is_err_and(rescuable) && !rescue.is_empty() {
            self.new_block()?;
            self.doing(format!("rescuing {name}"));
            self.replan(&tasks_in(rescue)).await?;
            outcome = match self.walk(rescue, play, gates).await {
                Ok(()) => self.drain().await,
                failed => failed,
            };
            if outcome.is_ok() {
                self.recap.rescued += 1;
            }
        }
        if !always.is_empty() && !outcome.as_ref().is_err_and(|failure| failure.class.is_unreachable()) {
            if outcome.is_err() || self.changed {
                self.new_block()?;
                self.replan(&tasks_in(always)).await?;
            }
            let ended = match self.walk(always, play, gates).await {
                Ok(()) => self.drain().await,
                failed => failed,
            };
            outcome = outcome.and(ended);
        }
        outcome
    }

    pub(super) fn new_block(&mut self) -> Result<(), Failure> {
        self.block = self.session()?.new_block();
        Ok(())
    }

    /// Probes and plans some tasks anew: one round trip. Nothing is pending any more.
    pub(super) async fn replan(&mut self, tasks: &[TaskIndex]) -> Result<(), Failure> {
        let observations = self.probe(tasks).await?;
        let mut pending = Pending::default();
        for &index in tasks {
            let planner = self.planner(&observations);
            let resources = &self.program.tasks[index].resources;
            let plan = resources.iter().map(|resource| planner.decide(resource.as_ref(), &mut pending)).collect();
            self.plans.insert(index, plan);
        }
        Ok(())
    }

    /// Sends what one task needs; its answers are read later, unless something must be decided.
    pub(super) async fn apply_task(&mut self, index: TaskIndex, handler: bool) -> Result<(), Failure> {
        if self.program.tasks[index].skipped.is_some() {
            self.queue.push_back(Queued::new(index, handler));
            self.settle_quiet();
            return Ok(());
        }
        if !self.plans.contains_key(&index) {
            self.drain().await?;
            self.replan(&[index]).await?;
        }
        let after = |plans: &TaskPlan| plans.iter().any(|decision| matches!(decision, Decision::After(_)));
        if self.plans.get(&index).is_some_and(after) {
            self.drain().await?;
            self.replan(&self.waiting_from(index)).await?;
        }
        let plans = self.plans.remove(&index).unwrap_or_default();
        let mut queued = Queued::new(index, handler);
        for (position, decision) in plans.into_iter().enumerate() {
            let resource = self.program.tasks[index].resources[position].as_ref();
            let mut report = plan::resource_report(resource, &decision, &self.diffs);
            let id = resource.id();
            match decision {
                Decision::Known(plan) if plan.is_in_sync() => {}
                Decision::Known(plan) => {
                    report.outcome = Outcome::Changed;
                    queued.reports.push(report);
                    self.send_plan(&mut queued, position, &id, plan).await?;
                    if queued.over {
                        return Ok(());
                    }
                    continue;
                }
                Decision::After(other) => {
                    // Probed again just now, and a part of the same task is still to come.
                    return Box::pin(self.apply_rest(queued, index, position, &other)).await;
                }
                Decision::Unknown(reason) => {
                    self.drain().await?;
                    return self.fail_task(
                        queued,
                        report,
                        Failure::new(FailureClass::StepFailed, format!("the state of {id} could not be determined")).because(reason),
                    );
                }
                Decision::Refused(reason) => {
                    self.drain().await?;
                    return self.fail_task(
                        queued,
                        report,
                        Failure::new(FailureClass::Refused, format!("{id} was refused")).because(reason),
                    );
                }
            }
            queued.reports.push(report);
        }
        self.queue.push_back(queued);
        self.settle_quiet();
        Ok(())
    }

    /// A composite's later parts are known only after its earlier ones: they are probed and
    /// applied one by one.
    async fn apply_rest(&mut self, mut queued: Queued, index: TaskIndex, from: usize, _after: &ResourceId) -> Result<(), Failure> {
        for position in from..self.program.tasks[index].resources.len() {
            self.flush(&mut queued).await?;
            if queued.over {
                return Ok(());
            }
            let resource = &self.program.tasks[index].resources[position];
            let id = resource.id();
            let observations = self.probe(&[index]).await?;
            let planner = self.planner(&observations);
            let decision = planner.decide(resource.as_ref(), &mut Pending::default());
            let mut report = plan::resource_report(resource.as_ref(), &decision, &self.diffs);
            match decision {
                Decision::Known(plan) if plan.is_in_sync() => queued.reports.push(report),
                Decision::Known(plan) => {
                    report.outcome = Outcome::Changed;
                    queued.reports.push(report);
                    self.send_plan(&mut queued, position, &id, plan).await?;
                    if queued.over {
                        return Ok(());
                    }
                }
                Decision::After(other) => {
                    let failure = Failure::new(FailureClass::StepFailed, format!("{id} still waits for {other}, which was applied"));
                    return self.fail_task(queued, report, failure);
                }
                Decision::Unknown(reason) | Decision::Refused(reason) => {
                    let failure = Failure::new(FailureClass::Refused, format!("{id} cannot be applied")).because(reason);
                    return self.fail_task(queued, report, failure);
                }
            }
        }
        self.queue.push_back(queued);
        self.drain().await
    }

    /// Tasks from this one on whose turn to be probed again has come: everything that waits.
    fn waiting_from(&self, index: TaskIndex) -> Vec<TaskIndex> {
        let mut out = vec![index];
        let later = self.program.straight().into_iter().map(|(_, task)| task).skip_while(|&task| task != index).skip(1);
        for task in later {
            let Some(plans) = self.plans.get(&task) else { continue };
            let waits = plans.iter().any(|decision| matches!(decision, Decision::After(_)));
            let acts = plans.iter().any(|decision| matches!(decision, Decision::Known(plan) if !plan.is_in_sync()));
            if waits && !acts {
                out.push(task);
            } else if acts {
                break;
            }
        }
        out
    }

    /// Sends a resource's steps, in order, without waiting where nothing must be decided.
    async fn send_plan(&mut self, queued: &mut Queued, position: usize, id: &ResourceId, plan: Plan) -> Result<(), Failure> {
        let notify = self.program.tasks[queued.task].notify.clone();
        let ignore = self.program.tasks[queued.task].ignore_errors;
        if let Some(guard) = plan.guard.clone() {
            self.flush(queued).await?;
            return self.apply_guarded(queued.task, id, &guard, plan, &notify).await;
        }
        // What comes after a guarded change of the same task is not in what its handlers saw.
        self.handled.remove(&queued.task);
        let block = if ignore { self.session()?.new_block() } else { self.block };
        let mut first = Some(journal::before_step(&self.job.holder.run, id, &notify));
        if let (Some(validate), false) = (&plan.validate, self.validated.contains(&(queued.task, id.clone()))) {
            first = Some(
                Script::sh("(\n", &[]).append(validate.clone()).then("\n) || exit $?\n", &[]).append(first.take().unwrap_or_default()),
            );
        }
        for (number, step) in plan.steps.iter().enumerate() {
            if queued.over {
                return Ok(());
            }
            match self.settled((queued.task, position, number), id, &step.title) {
                None => {}
                Some(Ok(())) => continue,
                Some(Err(failure)) => {
                    self.flush(queued).await?;
                    return self.end_resource(queued, position, failure);
                }
            }
            if !step.uploads.is_empty() {
                self.flush(queued).await?;
                if queued.over {
                    return Ok(());
                }
                match self.send_uploads(step).await {
                    // The host is as before this step, so its task failed and not the host.
                    Err(failure) if !failure.class.is_unreachable() => return self.end_resource(queued, position, failure),
                    sent => sent?,
                }
            }
            if step.user.is_some() {
                // Only root writes the journal.
                self.send_journal(queued, position, block, first.take()).await?;
            }
            let key = format!("{}-{position}-{number}", queued.task);
            let mut frame = self.frame(step, first.take(), &key, block, self.program.tasks[queued.task].timeout);
            let once = step.once.then(|| {
                self.sent_once += 1;
                let name = format!("{}-{key}-{}", self.job.holder.run, self.sent_once);
                Once { place: (queued.task, position, number), name, deadline: frame.deadline }
            });
            frame.record = once.as_ref().map(|once| once.name.clone());
            self.doing(step.title.clone());
            let session = self.session()?;
            let reply = session.submit(frame).await.map_err(|error| session_failure(&step.title, &error))?;
            queued.replies.push(SentStep { resource: position, title: step.title.clone(), reply, once });
            if step.reboots {
                self.flush(queued).await.or_else(|failure| if failure.class == FailureClass::Tcp { Ok(()) } else { Err(failure) })?;
                self.wait_for_reboot(step.deadline).await?;
            } else if step.survives {
                self.wait_surviving(queued, step, &key, block).await?;
            }
        }
        Ok(())
    }

    /// Sends the journal's lines ahead of a step that runs as another user.
    async fn send_journal(&mut self, queued: &mut Queued, resource: usize, block: u32, lines: Option<Script>) -> Result<(), Failure> {
        let Some(lines) = lines else { return Ok(()) };
        let title = "write the journal".to_owned();
        let frame = Frame { block: Some(block), ..Frame::new(lines) };
        let reply = self.session()?.submit(frame).await.map_err(|error| session_failure(&title, &error))?;
        queued.replies.push(SentStep { resource, title, reply, once: None });
        Ok(())
    }

    /// The frame of a step: the journal's lines, then the script.
    pub(super) fn frame(&self, step: &Step, before: Option<Script>, key: &str, block: u32, timeout: Option<u64>) -> Frame {
        let body = if step.survives { survive::wrap(&self.job.holder.run, key, &step.script) } else { step.script.clone() };
        let script = before.map_or_else(|| body.clone(), |before| before.append(body.clone()));
        Frame {
            deadline: timeout.map_or(step.deadline, Duration::from_secs),
            block: Some(block),
            user: step.user.clone(),
            keep: KEEP_OUTPUT,
            ..Frame::new(script)
        }
    }

    pub(super) async fn send_uploads(&mut self, step: &Step) -> Result<(), Failure> {
        let session = self.session()?;
        for upload in &step.uploads {
            let total = std::fs::metadata(&upload.source).map_or(0, |data| data.len());
            let name = upload.source.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let (events, host) = (self.job.events.clone(), self.name.clone());
            let progress = move |done: u64| events.emit(Some(&host), EventKind::Upload { name: name.clone(), done, total });
            session.upload(upload, &progress).await?;
        }
        Ok(())
    }

    /// Runs the play's handlers that were notified, or are owed by an earlier run, in their order.
    pub(super) async fn run_handlers(&mut self, play: usize) -> Result<(), Failure> {
        let handlers = self.program.plays[play].handlers.clone();
        for handler in handlers {
            let names: Vec<String> = handler.names.iter().filter(|name| self.notified.contains(*name)).cloned().collect();
            if names.is_empty() {
                continue;
            }
            for name in &names {
                self.notified.remove(name);
            }
            self.replan(&[handler.task]).await?;
            self.apply_task(handler.task, true).await?;
            self.drain().await?;
            let frame = Frame { unstoppable: true, ..Frame::new(journal::paid(&names)) };
            self.session()?.submit(frame).await.map_err(|error| session_failure("noting that a handler ran", &error))?;
        }
        Ok(())
    }
}
