//! Applying under a guard: arm, change, handlers, a new login, disarm.

use std::time::{Duration, Instant};

use crate::diagnostic::{Failure, FailureClass, printable};
use crate::engine::failure::step_failure;
use crate::engine::host::{HostRun, session_failure, text};
use crate::engine::program::TaskIndex;
use crate::engine::{guard, journal};
use crate::resource::ResourceId;
use crate::resource::plan::{Guard, Plan};
use crate::shell::Script;
use crate::transport::Frame;

impl HostRun {
    /// Applies one resource's steps under its guard.
    pub(super) async fn apply_guarded(
        &mut self,
        task: TaskIndex,
        id: &ResourceId,
        guarded: &Guard,
        plan: Plan,
        notify: &[String],
    ) -> Result<(), Failure> {
        self.drain().await?;
        let guard_id = format!("{}-{task}", self.job.holder.run);
        self.doing(format!("arming a guard for {}", guarded.what));
        self.step(id, "arm the guard", guard::arm(&guard_id, guarded)).await?;
        self.step(id, "write the journal", journal::before_step(&self.job.holder.run, id, notify)).await?;
        for step in &plan.steps {
            self.doing(step.title.clone());
            if let Err(failure) = self.send_uploads(step).await {
                return Err(self.put_back(&guard_id, guarded, failure).await);
            }
            let frame = self.frame(step, None, &format!("g{task}"), self.block, None);
            match self.run_step(step, frame).await {
                Ok(output) if output.status == 0 => self.changed = true,
                Ok(output) => return Err(self.put_back(&guard_id, guarded, step_failure(&step.title, id, &output)).await),
                // Perhaps the change itself cut the connection: the new login decides.
                Err(_) => break,
            }
        }
        let inside = if guarded.handlers { self.guarded_handlers(task, notify).await } else { Ok(()) };
        self.confirm(&guard_id, guarded, inside.err()).await?;
        if guarded.handlers {
            self.handled.insert(task);
        }
        Ok(())
    }

    /// A step failed inside the window: the old state comes back at once, in a block of its own,
    /// since what failed holds back everything else of its block.
    async fn put_back(&self, guard_id: &str, guarded: &Guard, failure: Failure) -> Failure {
        let frame = Frame { unstoppable: true, ..Frame::new(guard::revert_now(guard_id)) };
        let back = match self.session() {
            Ok(session) => session.run(frame).await.is_ok_and(|output| output.status == 0),
            Err(_) => false,
        };
        if back {
            failure.because("the old state was put back")
        } else {
            failure.because(format!("the host puts the old state back within {} s", guarded.window.as_secs()))
        }
    }

    /// Handlers that a guarded change notifies run inside the window (DESIGN 8.1).
    async fn guarded_handlers(&mut self, task: TaskIndex, notify: &[String]) -> Result<(), Failure> {
        let play = self.program.plays.iter().position(|play| {
            crate::engine::program::tasks_in(&play.nodes).contains(&task) || play.handlers.iter().any(|handler| handler.task == task)
        });
        let Some(play) = play else { return Ok(()) };
        let before = std::mem::take(&mut self.notified);
        self.notified.extend(notify.iter().cloned());
        let outcome = Box::pin(self.run_handlers(play)).await;
        self.notified.extend(before);
        outcome
    }

    /// Logs in anew over the same path and disarms, or waits for the host to revert.
    async fn confirm(&mut self, guard_id: &str, guarded: &Guard, handler_failed: Option<Failure>) -> Result<(), Failure> {
        self.doing(format!("confirming {} by a new login", guarded.what));
        let until = Instant::now() + guarded.window;
        let mut refused = false;
        let mut last = handler_failed.map(|failure| failure.message);
        while last.is_none() || Instant::now() < until {
            if self.job.abandons_guards() {
                return Err(Failure::new(FailureClass::Interrupted, "interrupted inside a guard's window: the host reverts by itself"));
            }
            match self.job.connector.connect(&self.target).await {
                Ok(session) => {
                    self.share_secrets(&session);
                    let answer = session.run(Frame::new(guard::confirm(guard_id, guarded))).await;
                    self.trips_before += session.round_trips();
                    session.close().await;
                    match answer {
                        Ok(output) if text(&output).trim_end().ends_with("confirmed") => return self.revive().await,
                        Ok(output) if text(&output).contains("reverted") => break,
                        Ok(output) => last = Some(format!("persisting failed: {}", printable(&String::from_utf8_lossy(&output.stderr)))),
                        Err(error) => last = Some(error.to_string()),
                    }
                }
                Err(failure) => {
                    // sshd makes whoever fails to log in wait the longer (sshd_config(5), PerSourcePenalties).
                    refused = failure.class == FailureClass::Auth;
                    last = Some(failure.message.clone());
                }
            }
            let pause = Duration::from_secs(if refused { 5 } else { 1 });
            if Instant::now() + pause >= until {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        self.await_revert(guard_id, guarded, last).await
    }

    /// The old session may have died with the change although the new login works.
    async fn revive(&mut self) -> Result<(), Failure> {
        let session = self.session()?;
        let alive = tokio::time::timeout(Duration::from_secs(5), session.run(Frame::new(Script::sh("true", &[])))).await;
        if !matches!(alive, Ok(Ok(_))) {
            self.reconnect("the old session ended under a guarded change").await?;
            self.new_block()?;
        }
        Ok(())
    }

    /// Waits until the host has reverted, to be able to say so.
    async fn await_revert(&mut self, guard_id: &str, guarded: &Guard, why: Option<String>) -> Result<(), Failure> {
        self.doing(format!("waiting for the host to revert {}", guarded.what));
        let until = Instant::now() + guarded.window + Duration::from_secs(60);
        let mut state = "unknown".to_owned();
        while Instant::now() < until && !self.job.abandons_guards() {
            if let Ok(Ok(session)) = tokio::time::timeout(Duration::from_secs(15), self.job.connector.connect(&self.target)).await {
                if let Ok(output) = session.run(Frame::new(guard::state(guard_id))).await {
                    text(&output).trim().clone_into(&mut state);
                }
                session.close().await;
                if matches!(state.as_str(), "reverted" | "rebooted" | "unpersisted" | "gone") {
                    break;
                }
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let (what, seconds) = (&guarded.what, guarded.window.as_secs());
        let (class, message) = match state.as_str() {
            "reverted" => (FailureClass::Reverted, format!("{what}: reverted, since no new login came within {seconds} s")),
            "rebooted" => {
                (FailureClass::Reverted, format!("{what}: reverted, since the host rebooted before a new login had confirmed it"))
            }
            "unpersisted" => (FailureClass::StepFailed, format!("{what}: in effect, but not kept for the next boot")),
            _ => (
                FailureClass::Reverted,
                format!("{what}: not confirmed within {seconds} s, and the host has not answered since (its timer reverts by itself)"),
            ),
        };
        let mut failure = Failure::new(class, message);
        failure.causes.extend(why);
        failure.hint = Some(guarded.hint.clone()).filter(|hint| !hint.is_empty());
        Err(failure)
    }

    /// Runs one script of the engine's own and waits for it.
    pub(super) async fn step(&mut self, id: &ResourceId, title: &str, script: Script) -> Result<(), Failure> {
        let frame = Frame { block: Some(self.block), ..Frame::new(script) };
        let output = self.session()?.run(frame).await.map_err(|error| session_failure(title, &error))?;
        if output.status == 0 && !output.skipped { Ok(()) } else { Err(step_failure(title, id, &output)) }
    }
}
