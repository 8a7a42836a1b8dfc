//! A privileged shell on a host, as the engine sees it: frames go in, answers come out, in order.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use zeroize::Zeroizing;

use super::access::{Access, FirstWords, Opened};
use super::frame::{Raw, Scanner};
use super::pump::{self, BYTES_AHEAD, Outgoing, Shared, ShellInfo, Waiting};
use super::{Frame, Output, SessionError, frame};
use crate::diagnostic::Failure;
use crate::secret::{Masker, Vault};

/// How long closing waits for the shell to end by itself.
const CLOSING: Duration = Duration::from_secs(2);

/// A privileged shell on a host. Dropping it closes the connection; what runs on the host then
/// ends on its own or goes on: [`Session::kill`] ends it.
pub struct Session {
    pub(super) access: Arc<Access>,
    shared: Arc<Shared>,
    shell: ShellInfo,
    /// The frames' secret mark.
    nonce: String,
    /// Names the stop flag.
    stop: String,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    /// Held while a frame finds its place, so that the order of calls is the order on the host.
    order: Mutex<()>,
    secrets: Arc<RwLock<(Arc<Vault>, Masker)>>,
}

/// A frame that was sent and not answered yet.
pub struct PendingReply {
    seq: u64,
    answer: Answer,
    shared: Arc<Shared>,
    secrets: Arc<RwLock<(Arc<Vault>, Masker)>>,
}

enum Answer {
    Sent(oneshot::Receiver<Result<Raw, SessionError>>),
    /// Not sent, because the run was stopped.
    Skipped,
}

impl PendingReply {
    /// Waits for the answer.
    ///
    /// # Errors
    /// The connection was lost, or the frame (or one before it) took longer than its deadline.
    pub async fn wait(self) -> Result<Output, SessionError> {
        let masker = self.secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner).1.clone();
        self.finish(&masker).await
    }

    /// As [`PendingReply::wait`], with nothing masked: for probes, whose output is compared and
    /// never shown. Whoever shows a part of it masks that part.
    ///
    /// # Errors
    /// As for [`PendingReply::wait`].
    pub async fn wait_unmasked(self) -> Result<Output, SessionError> {
        self.finish(&Masker::default()).await
    }

    async fn finish(self, masker: &Masker) -> Result<Output, SessionError> {
        let Answer::Sent(answer) = self.answer else { return Ok(Output { skipped: true, ..Output::default() }) };
        let raw = answer.await.unwrap_or_else(|_| Err(SessionError::Lost("the session was closed".to_owned())));
        {
            let mut state = self.shared.state();
            if self.seq >= state.counted_below {
                state.trips += 1;
                state.counted_below = state.next_seq;
            }
        }
        raw.map(|raw| raw.finish(masker))
    }
}

/// A shell that is about to be opened.
#[derive(Clone)]
pub(super) struct Opening {
    /// The frames' mark. The first frame has another, if it travels where others can see it.
    nonce: String,
    public: String,
    stop: String,
    first: Option<(Frame, Zeroizing<String>)>,
}

impl FirstWords for Opening {
    fn inside(&self) -> Option<Zeroizing<String>> {
        let (first, script) = self.first.as_ref()?;
        let mut text = Zeroizing::new(frame::prologue(&self.stop));
        text.push_str(&frame::mark(&self.public, false));
        text.push_str(&frame::text(first, script, &self.public, 1, false));
        Some(text)
    }

    fn after(&self, merged: bool, inside: bool) -> Zeroizing<String> {
        let mut text = Zeroizing::new(frame::prologue(&self.stop));
        if !inside {
            text.push_str(&frame::mark(&self.nonce, merged));
            if let Some((first, script)) = &self.first {
                text.push_str(&frame::text(first, script, &self.nonce, 1, merged));
            }
        }
        text
    }
}

impl Opening {
    /// # Errors
    /// The first frame holds secrets.
    pub(super) fn new(first: Option<Frame>) -> Result<Self, Failure> {
        let first = match first {
            Some(first) => {
                let script = first.script.fill(&Vault::default()).map_err(|missing| bug(&missing))?;
                Some((first, script))
            }
            None => None,
        };
        Ok(Self { nonce: frame::nonce(), public: frame::nonce(), stop: frame::nonce(), first })
    }

    /// Opens the shell and makes it a session.
    ///
    /// # Errors
    /// As [`Access::open`].
    pub(super) async fn open(self, access: Access) -> Result<(Session, Option<PendingReply>), Failure> {
        let Opened { shell, greeting, inside } = access.open(&self).await?;
        let info = ShellInfo { pid: greeting.pid, merged: shell.merged };
        let scanner = || Scanner::new(&self.nonce, if inside { Some(&self.public) } else { None });
        let scanners = (scanner(), scanner());
        let shared = Arc::new(Shared::new());
        let access = Arc::new(access);
        let (outgoing, receiver) = mpsc::unbounded_channel();
        let session = Session {
            access: access.clone(),
            shared: shared.clone(),
            shell: info.clone(),
            nonce: self.nonce,
            stop: self.stop,
            outgoing,
            order: Mutex::new(()),
            secrets: Arc::default(),
        };
        let reply = match self.first {
            Some((first, _)) => Some(session.expect(&first, 0).await.map_err(|error| bug(&error))?),
            None => None,
        };
        tokio::spawn(pump::write(shell.writer, receiver, shared.clone()));
        tokio::spawn(pump::read(shell.reader, greeting, scanners, shared, access, info));
        Ok((session, reply))
    }
}

fn bug(error: &impl ToString) -> Failure {
    Failure::new(crate::diagnostic::FailureClass::Bug, error.to_string())
}

impl Session {
    /// Sends a frame without waiting for its answer; waits only while 8 frames or 256 KiB are
    /// unanswered (DESIGN 8.4). Frames run in the order sent.
    ///
    /// # Errors
    /// The session is over, or a secret is not in the vault.
    pub async fn submit(&self, frame: Frame) -> Result<PendingReply, SessionError> {
        let vault = self.secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner).0.clone();
        let script = frame.script.fill(&vault)?;
        let _order = self.order.lock().await;
        let reply = self.expect(&frame, script.len()).await?;
        if let Answer::Sent(_) = reply.answer {
            let text = frame::text(&frame, &script, &self.nonce, reply.seq, self.shell.merged);
            if self.outgoing.send(Outgoing::Frame(reply.seq, text)).is_err() {
                self.shared.lose("the session was closed");
            }
        }
        Ok(reply)
    }

    /// Registers a frame as the next one, once there is room for it.
    async fn expect(&self, frame: &Frame, len: usize) -> Result<PendingReply, SessionError> {
        let len = u32::try_from(len).unwrap_or(BYTES_AHEAD).min(BYTES_AHEAD);
        let frames = self.permits(&self.shared.frames, 1).await?;
        let bytes = self.permits(&self.shared.bytes, len).await?;
        let (sender, receiver) = oneshot::channel();
        let waiting = Waiting {
            seq: 0,
            keep: frame.keep,
            deadline: frame.deadline,
            answer: sender,
            _permits: (frames, bytes),
            stdout: None,
            stderr: None,
        };
        let seq = self.shared.expect(waiting, frame.unstoppable);
        let answer = if seq.is_some() { Answer::Sent(receiver) } else { Answer::Skipped };
        Ok(PendingReply { seq: seq.unwrap_or(0), answer, shared: self.shared.clone(), secrets: self.secrets.clone() })
    }

    async fn permits(&self, of: &Arc<Semaphore>, count: u32) -> Result<tokio::sync::OwnedSemaphorePermit, SessionError> {
        let over = || self.shared.state().over.clone().unwrap_or_else(|| SessionError::Lost("the session was closed".to_owned()));
        of.clone().acquire_many_owned(count).await.map_err(|_| over())
    }

    /// Sends a frame and waits for its answer.
    ///
    /// # Errors
    /// As [`Session::submit`] and [`PendingReply::wait`].
    pub async fn run(&self, frame: Frame) -> Result<Output, SessionError> {
        self.submit(frame).await?.wait().await
    }

    /// Times the caller waited for the host since the shell was open. Waiting for a frame that
    /// was sent before an earlier wait ended costs nothing: it travelled with that one.
    #[must_use]
    pub fn round_trips(&self) -> usize {
        self.shared.state().trips
    }

    /// The next unused block number.
    #[must_use]
    pub fn new_block(&self) -> u32 {
        let mut state = self.shared.state();
        state.next_block += 1;
        state.next_block - 1
    }

    /// Whether the session can still be used.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.state().over.is_none()
    }

    /// Waits until the session is over, for whatever reason.
    pub(super) async fn ended(&self) {
        pump::over(&mut self.shared.closed.subscribe()).await;
    }

    /// Becomes true once the session is over.
    pub(super) fn closing(&self) -> tokio::sync::watch::Receiver<bool> {
        self.shared.closed.subscribe()
    }

    /// Frames that have not started are skipped from now on; the one under way goes on. Frames
    /// that are `unstoppable` still run.
    pub async fn stop(&self) {
        {
            let mut state = self.shared.state();
            state.stopped = true;
            if state.waiting.len() < 2 || state.over.is_some() {
                return;
            }
        }
        if let Err(failure) = self.access.aside(&frame::set_stop(&self.stop)).await {
            tracing::warn!("could not stop what was already sent: {failure}");
        }
    }

    /// Kills the frame under way and closes.
    pub async fn kill(&self) {
        let _killing = self.shared.killing.lock().await;
        let lost = SessionError::Lost("killed".to_owned());
        self.shared.end(&lost, &lost);
        pump::kill(&self.access, &self.shell).await;
        self.access.disconnect().await;
    }

    /// Holes are filled from this vault from now on, and output is masked with its masker.
    pub fn set_vault(&self, vault: Arc<Vault>, masker: Masker) {
        *self.secrets.write().unwrap_or_else(std::sync::PoisonError::into_inner) = (vault, masker);
    }

    /// What masks the output of this session.
    #[must_use]
    pub fn masker(&self) -> Masker {
        self.secrets.read().unwrap_or_else(std::sync::PoisonError::into_inner).1.clone()
    }

    /// Whether nothing is left for the shell to do.
    fn is_idle(&self) -> bool {
        let state = self.shared.state();
        let local = matches!(self.access.link, super::access::Link::Local);
        state.over.is_some() || (state.waiting.is_empty() && !state.stopped && !local)
    }

    /// Sends a last frame whose answer makes no difference to anyone: [`Session::close`] then waits
    /// until it is on its way, which costs no round trip. Where that cannot be known (through
    /// a jump host) its end is waited for.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn part(&self, frame: Frame) -> Result<(), SessionError> {
        let before = self.access.sent();
        let len = frame.script.shown().len() as u64;
        let reply = self.submit(frame).await?;
        match before {
            Some(before) => self.shared.state().parted = Some(before + len),
            None => drop(reply.wait().await?),
        }
        Ok(())
    }

    /// Waits until the last frame is on its way. False if it is not, or there was none.
    async fn parted(&self) -> bool {
        let Some(enough) = self.shared.state().parted else { return false };
        let on_its_way = || self.access.sent().is_some_and(|sent| sent >= enough);
        let sent = async {
            while self.is_open() && !on_its_way() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(CLOSING, sent).await.is_ok() && on_its_way()
    }

    /// Ends the shell and the connection. Waits for the shell's end only where something is left
    /// for it to do: a goodbye costs no round trip else.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(CLOSING, self.shared.killing.lock()).await;
        // No goodbye, neither now nor when closed again: OpenSSH would drop what came before it and is
        // not passed on yet.
        if self.parted().await {
            self.shared.lose("the session was closed");
            return;
        }
        if self.is_idle() {
            self.shared.lose("the session was closed");
            self.access.disconnect().await;
            return;
        }
        let last = if self.shared.state().stopped { frame::CLEAR_STOP } else { "" };
        let _ = self.outgoing.send(Outgoing::End(last.to_owned()));
        let mut closed = self.shared.closed.subscribe();
        let _ = tokio::time::timeout(CLOSING, pump::over(&mut closed)).await;
        self.shared.lose("the session was closed");
        self.access.disconnect().await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.lose("the session was dropped");
    }
}
