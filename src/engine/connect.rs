//! A host's connection: made, made again after it was lost, and round trip 1, which goes with the
//! words that start the shell: the lock, what earlier runs left, facts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::diagnostic::{Failure, FailureClass, printable};
use crate::engine::host::{HostRun, READ_DEADLINE, session_failure, text};
use crate::engine::lock::{self, Taken};
use crate::event::EventKind;
use crate::facts::{self, Facts};
use crate::shell::Script;
use crate::transport::{Frame, Output, SessionError};

/// For how long a lost connection is tried again: six times as long as connecting may take.
const RECONNECT_MIN: Duration = Duration::from_secs(15);
const RECONNECT_MAX: Duration = Duration::from_secs(300);
/// How long a step that an earlier run left behind is waited for: as long as a package may take to
/// install, and as a stack may take to get healthy. Then an orphan's step is killed.
const BUSY: Duration = Duration::from_secs(1200);
const ORPHAN: Duration = Duration::from_secs(600);
/// How long a lock is tried for that somebody else holds, and lets go, whenever we look.
const FREED: Duration = Duration::from_secs(20);

impl HostRun {
    /// Connects; the words that start the shell carry the first frame, which [`HostRun::gather`] reads.
    pub(super) async fn connect(&mut self) -> Result<(), Failure> {
        let first = self.first_frame(self.job.break_lock);
        let (session, answer) = self.job.connector.connect_with(&self.target, first).await?;
        let session = Arc::new(session);
        self.job.alive(&self.name, &session);
        self.session = Some(session);
        self.block = self.session()?.new_block();
        self.first = Some(answer);
        Ok(())
    }

    /// Takes the lock, looks at what earlier runs left, and gathers facts: round trip 1.
    pub(super) async fn gather(&mut self) -> Result<(), Failure> {
        let lost = |error: SessionError| session_failure("gathering facts", &error);
        let answer = match self.first.take() {
            Some(first) => first.wait().await,
            None => self.session()?.run(self.first_frame(self.job.break_lock)).await,
        };
        let mut output = answer.map_err(lost)?;
        let started = Instant::now();
        loop {
            let break_lock = match self.gathered(&output)? {
                Taken::Ours => return Ok(()),
                Taken::Busy(unit) if started.elapsed() > BUSY => return Err(lock::busy(&unit)),
                Taken::Busy(unit) => {
                    self.waiting(started, &format!("a step of an earlier run to end ({unit})"));
                    false
                }
                Taken::Freed if started.elapsed() > FREED => return Err(lock::held(&self.state)),
                Taken::Freed => false,
                Taken::Finishing => {
                    self.waiting(started, "the step under way of the connection that was lost");
                    started.elapsed() > self.patience.unwrap_or(ORPHAN)
                }
                Taken::Orphan => {
                    self.waiting(started, "the step under way of a run whose controller is gone");
                    started.elapsed() > ORPHAN
                }
            };
            tokio::time::sleep(Duration::from_secs(1)).await;
            output = self.session()?.run(self.first_frame(break_lock)).await.map_err(lost)?;
        }
    }

    /// Says, once, what the lock is waited for.
    fn waiting(&self, since: Instant, what: &str) {
        self.doing(format!("waiting for {what}"));
        if since.elapsed() < Duration::from_secs(1) {
            self.emit(EventKind::Warning { text: format!("{}: waiting for {what}", self.name) });
        }
    }

    fn first_frame(&self, break_lock: bool) -> Frame {
        let take = if self.job.mode.takes_lock() { lock::take(&self.job.holder, &self.name, break_lock) } else { Script::new() };
        let script = take
            .then("\n( echo '##look'\n", &[])
            .append(lock::look())
            .then("\necho '##facts'\n", &[])
            .then(facts::SCRIPT, &[])
            .then("\n) 9>&-\n", &[]);
        Frame { deadline: READ_DEADLINE, in_shell: true, ..Frame::new(script) }
    }

    /// Makes the connection again after it was lost, takes the lock back under the same run, and
    /// gives the new shell its secrets.
    ///
    /// # Errors
    /// If it cannot be made again, or was lost too often.
    pub async fn reconnect(&mut self, why: &str) -> Result<(), Failure> {
        if let Some(session) = self.session.take() {
            self.trips_before += session.round_trips();
            session.close().await;
        }
        self.reconnects += 1;
        if self.reconnects > 3 {
            return Err(Failure::new(FailureClass::Tcp, "the connection was lost too often").because(printable(why)));
        }
        self.doing("reconnecting");
        let mut wait = Duration::from_millis(500);
        let until = Instant::now() + (self.target.connect_timeout * 6).clamp(RECONNECT_MIN, RECONNECT_MAX);
        loop {
            match self.connect().await {
                Ok(()) => break,
                Err(mut failure) if Instant::now() > until || !failure.class.is_unreachable() => {
                    failure.message = format!("the connection was lost and could not be made again: {}", failure.message);
                    return Err(failure.because(printable(why)));
                }
                Err(_) => tokio::time::sleep(wait).await,
            }
            wait = (wait * 2).min(Duration::from_secs(5));
        }
        let session = self.session()?;
        self.share_secrets(&session);
        self.gather().await
    }

    /// Reads what the first frame said.
    fn gathered(&mut self, output: &Output) -> Result<Taken, Failure> {
        let bad =
            |what: String| Failure::new(FailureClass::MissingTool, what).because(printable(String::from_utf8_lossy(&output.stderr).trim()));
        if output.skipped {
            return Err(Failure::new(FailureClass::Interrupted, "interrupted before it began"));
        }
        let said = text(output);
        let parts = said.split_once("##look\n").and_then(|(taken, rest)| Some((taken, rest.split_once("##facts\n")?)));
        let Some((taken, (look, gathered))) = parts else { return Err(bad("the host's first answer could not be read whole".to_owned())) };
        let locks = self.job.mode.takes_lock();
        self.state = lock::parse(look, locks).map_err(bad)?;
        if locks {
            let taken = lock::taken(taken, &lock::parse(look, false).unwrap_or_default())?;
            if taken != Taken::Ours {
                return Ok(taken);
            }
            self.notified.extend(self.state.owed.iter().cloned());
        }
        self.facts = Facts::parse(gathered).map_err(bad)?;
        if self.job.retry_release {
            self.facts = std::mem::take(&mut self.facts).with_flag(crate::resource::compose_release::RETRY);
        }
        Ok(Taken::Ours)
    }
}
