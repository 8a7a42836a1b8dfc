//! Answers: what was sent ahead is waited for in order, judged, and ends its task. What a
//! connection that died leaves open is for `recover`.

use std::time::Instant;

use crate::diagnostic::{Failure, FailureClass};
use crate::engine::failure::step_failure;
use crate::engine::host::{HostRun, session_failure};
use crate::engine::program::TaskIndex;
use crate::engine::recover::{Lost, Once};
use crate::event::{EventKind, Outcome, ResourceReport, TaskReport};
use crate::resource::ResourceId;
use crate::transport::{Output, PendingReply, SessionError};

/// A task whose steps were sent and whose answers were not all read.
pub struct Queued {
    pub(super) task: TaskIndex,
    pub(super) reports: Vec<ResourceReport>,
    pub(super) replies: Vec<SentStep>,
    pub(super) started: Instant,
    pub(super) handler: bool,
    /// Reported already: a step of it failed, and the failure was ignored.
    pub(super) over: bool,
}

impl Queued {
    pub(super) fn new(task: TaskIndex, handler: bool) -> Self {
        Self { task, reports: Vec::new(), replies: Vec::new(), started: Instant::now(), handler, over: false }
    }
}

pub(super) struct SentStep {
    pub(super) resource: usize,
    pub(super) title: String,
    pub(super) reply: PendingReply,
    /// Set if the step must not be run a second time.
    pub(super) once: Option<Once>,
}

impl HostRun {
    /// Waits for the answers of a task that is not queued yet.
    pub(super) async fn flush(&mut self, queued: &mut Queued) -> Result<(), Failure> {
        self.drain().await?;
        let index = queued.task;
        for SentStep { resource, title, reply, .. } in std::mem::take(&mut queued.replies) {
            let id = self.program.tasks[index].resources[resource].id();
            let output = reply.wait().await.map_err(|error| session_failure(&title, &error))?;
            if let Some(failure) = judge(queued, resource, &title, &id, &output) {
                return self.end_task(queued, failure);
            }
            self.changed = true;
        }
        Ok(())
    }

    /// Reports tasks at the front of the queue that need no answers.
    pub(super) fn settle_quiet(&mut self) {
        while self.queue.front().is_some_and(|queued| queued.replies.is_empty()) {
            if let Some(queued) = self.queue.pop_front() {
                self.finish_task(queued);
            }
        }
    }

    /// Waits for every answer that is still out, in order.
    pub(super) async fn drain(&mut self) -> Result<(), Failure> {
        while let Some(mut queued) = self.queue.pop_front() {
            let mut replies = std::mem::take(&mut queued.replies).into_iter();
            let (mut failed, mut lost) = (None, Lost::default());
            while let Some(SentStep { resource, title, reply, once }) = replies.next() {
                let id = self.program.tasks[queued.task].resources[resource].id();
                match reply.wait().await {
                    Err(SessionError::Lost(why)) => {
                        lost.tasks.push(queued.task);
                        lost.once.extend(once.into_iter().chain(replies.filter_map(|sent| sent.once)));
                        for later in self.queue.drain(..) {
                            lost.tasks.push(later.task);
                            lost.once.extend(later.replies.into_iter().filter_map(|sent| sent.once));
                        }
                        return Box::pin(self.recover(lost, &why)).await;
                    }
                    Err(error) => failed = failed.or(Some(session_failure(&title, &error))),
                    Ok(output) => {
                        self.changed |= output.status == 0 && !output.skipped;
                        lost.answered.extend(once.filter(|_| output.status == 0 && !output.skipped).map(|once| once.place));
                        failed = failed.or(judge(&mut queued, resource, &title, &id, &output));
                    }
                }
            }
            match failed {
                None => self.finish_task(queued),
                Some(failure) => {
                    let ignored = self.program.tasks[queued.task].ignore_errors;
                    let result = self.fail_task(queued, None, failure);
                    if !ignored {
                        // What was sent behind it was skipped on the host.
                        for later in self.queue.drain(..) {
                            for sent in later.replies {
                                let _ = sent.reply.wait().await;
                            }
                        }
                    }
                    result?;
                }
            }
        }
        Ok(())
    }

    fn finish_task(&mut self, queued: Queued) {
        let task = &self.program.tasks[queued.task];
        let changed = queued.reports.iter().any(|report| report.outcome == Outcome::Changed);
        let outcome = match &task.skipped {
            Some(reason) => {
                self.recap.skipped += 1;
                Outcome::Skipped { reason: reason.clone() }
            }
            None if changed => {
                self.recap.ok += 1;
                self.recap.changed += 1;
                Outcome::Changed
            }
            None => {
                self.recap.ok += 1;
                Outcome::Ok
            }
        };
        // What ran inside a guard's window is not run once more.
        if changed && !self.handled.contains(&queued.task) {
            self.notified.extend(task.notify.iter().cloned());
        }
        self.report_task(&queued, outcome);
    }

    fn report_task(&mut self, queued: &Queued, outcome: Outcome) {
        let task = &self.program.tasks[queued.task];
        let spent = queued.started.elapsed();
        let own = queued.started.max(self.reported_at).elapsed();
        self.reported_at = Instant::now();
        if let Some(role) = &task.role {
            *self.role_seconds.entry(role.clone()).or_default() += own.as_secs_f64();
        }
        self.emit(EventKind::Task(TaskReport {
            play: 0,
            title: task.title.clone(),
            role: task.role.clone(),
            place: Some(task.place()),
            handler: queued.handler,
            outcome,
            resources: queued.reports.clone(),
            milliseconds: u64::try_from(spent.as_millis()).unwrap_or(u64::MAX),
        }));
    }

    /// Reports a failed task; an ignored failure lets the walk go on.
    pub(super) fn fail_task(
        &mut self,
        mut queued: Queued,
        last: impl Into<Option<ResourceReport>>,
        failure: Failure,
    ) -> Result<(), Failure> {
        if let Some(mut report) = last.into() {
            report.outcome = Outcome::Failed { failure: (&failure).into() };
            queued.reports.push(report);
        }
        if self.program.tasks[queued.task].ignore_errors && !failure.class.is_unreachable() && failure.class != FailureClass::Interrupted {
            self.recap.ignored += 1;
            self.recap.ok += 1;
            self.report_task(&queued, Outcome::Ignored { failure: (&failure).into() });
            return Ok(());
        }
        self.report_task(&queued, Outcome::Failed { failure: (&failure).into() });
        Err(failure)
    }

    /// Ends the task because of one resource, for a reason that no answer of the host gave.
    pub(super) fn end_resource(&mut self, queued: &mut Queued, resource: usize, failure: Failure) -> Result<(), Failure> {
        if let Some(report) = queued.reports.get_mut(resource) {
            report.outcome = Outcome::Failed { failure: (&failure).into() };
        }
        self.end_task(queued, failure)
    }

    /// Ends a task early: a failed step's report, what was sent behind it being skipped.
    pub(super) fn end_task(&mut self, queued: &mut Queued, failure: Failure) -> Result<(), Failure> {
        queued.over = true;
        let reports = std::mem::take(&mut queued.reports);
        let ended = Queued { reports, replies: Vec::new(), ..*queued };
        self.fail_task(ended, None, failure)
    }
}

/// What an answer means for its resource's report, and the failure if it is one.
pub(super) fn judge(queued: &mut Queued, resource: usize, title: &str, id: &ResourceId, output: &Output) -> Option<Failure> {
    let (outcome, failure) = match output {
        Output { skipped: true, .. } => {
            let failure = Failure::new(FailureClass::Interrupted, format!("`{title}` was not run: the run was stopped"));
            (Outcome::Skipped { reason: "not run: a step before it failed, or the run was stopped".to_owned() }, failure)
        }
        Output { status: 0, .. } => return None,
        _ => {
            let failure = step_failure(title, id, output);
            (Outcome::Failed { failure: (&failure).into() }, failure)
        }
    };
    if let Some(report) = queued.reports.get_mut(resource) {
        report.outcome = outcome;
    }
    Some(failure)
}
