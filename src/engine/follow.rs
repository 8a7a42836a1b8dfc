//! Steps that go on without us: package installs that outlive a connection, and reboots.

use std::time::{Duration, Instant};

use crate::diagnostic::{Failure, FailureClass};
use crate::engine::answers::{Queued, judge};
use crate::engine::failure::step_failure;
use crate::engine::host::{HostRun, session_failure};
use crate::engine::survive::{self, Said};
use crate::event::EventKind;
use crate::resource::plan::Step;
use crate::transport::{Frame, Output, SessionError};

impl HostRun {
    /// Follows a step that goes on without us: if the connection dies, makes it again and sends
    /// the same frame, which picks the step up.
    pub(super) async fn wait_surviving(&mut self, queued: &mut Queued, step: &Step, key: &str, block: u32) -> Result<(), Failure> {
        let Some(sent) = queued.replies.pop() else { return Ok(()) };
        let id = self.program.tasks[queued.task].resources[sent.resource].id();
        let timeout = self.program.tasks[queued.task].timeout;
        let mut answer = sent.reply.wait().await;
        let mut frame = self.frame(step, None, key, block, timeout);
        let output = loop {
            match self.follow(step, frame, answer).await {
                Err(SessionError::Lost(why)) => {
                    self.reconnect(&why).await?;
                    self.new_block()?;
                    frame = self.frame(step, None, key, self.block, timeout);
                    answer = self.session()?.run(frame.clone()).await;
                }
                other => break other.map_err(|error| session_failure(&step.title, &error))?,
            }
        };
        if output.status == 0 && !output.skipped {
            self.changed = true;
            return Ok(());
        }
        let earlier = std::mem::take(&mut queued.replies);
        for sent in earlier {
            let output = sent.reply.wait().await.map_err(|error| session_failure(&sent.title, &error))?;
            if output.status != 0 && !output.skipped {
                let id = self.program.tasks[queued.task].resources[sent.resource].id();
                return Err(step_failure(&sent.title, &id, &output));
            }
        }
        // Skipped means that something sent before it failed: that is the failure to report.
        if output.skipped {
            self.drain().await?;
        }
        let Some(failure) = judge(queued, sent.resource, &step.title, &id, &output) else { return Ok(()) };
        self.end_task(queued, failure)
    }

    /// Runs a step's frame and follows the step to its end.
    ///
    /// # Errors
    /// As [`crate::transport::Session::run`].
    pub(super) async fn run_step(&self, step: &Step, frame: Frame) -> Result<Output, SessionError> {
        let session = self.session().map_err(|failure| SessionError::Lost(failure.message))?;
        let answer = session.run(frame.clone()).await;
        if step.survives { self.follow(step, frame, answer).await } else { answer }
    }

    /// Sends the frame of a surviving step again as long as the step goes on, within its deadline,
    /// and tells what it says meanwhile.
    async fn follow(&self, step: &Step, frame: Frame, first: Result<Output, SessionError>) -> Result<Output, SessionError> {
        let until = Instant::now() + frame.deadline;
        let (mut answer, mut last) = (first, String::new());
        loop {
            let line = match survive::said(answer?) {
                Said::Done(output) => return Ok(output),
                Said::Still(line) => line,
            };
            if line != last {
                self.doing(format!("{}: {line}", step.title));
                if line.starts_with("waiting for ") {
                    self.emit(EventKind::Warning { text: format!("{}: {line}", self.name) });
                }
                last = line;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(SessionError::Deadline(frame.deadline));
            }
            let session = self.session().map_err(|failure| SessionError::Lost(failure.message))?;
            answer = session.run(Frame { deadline: left, ..frame.clone() }).await;
        }
    }

    pub(super) async fn wait_for_reboot(&mut self, deadline: Duration) -> Result<(), Failure> {
        let before = self.facts.boot();
        let until = Instant::now() + deadline;
        self.doing("rebooting");
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            if let Some(session) = self.session.take() {
                self.trips_before += session.round_trips();
                session.close().await;
            }
            self.reconnects = 0;
            let back = self.reconnect("the host reboots").await;
            if back.is_ok() && self.facts.boot() != before {
                self.changed = true;
                return self.new_block();
            }
            if Instant::now() > until {
                return Err(Failure::new(
                    FailureClass::Deadline,
                    format!("the host did not come back within {} s of its reboot", deadline.as_secs()),
                ));
            }
        }
    }
}
