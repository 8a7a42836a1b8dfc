//! The two tasks of a session: one writes frames, one reads until the shell ends, so that nothing
//! ever waits unread. They share [`Shared`] with the session: who waits for which answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::SessionError;
use super::access::Access;
use super::capture::Capture;
use super::frame::{self, Part, Raw, Scanner};
use super::shell_channel::{Chunk, Reader, Writer};
use super::sudo::Greeting;

/// Most frames that are unanswered at a time (DESIGN 8.4).
pub(super) const FRAMES_AHEAD: usize = 8;
/// Most bytes that are unanswered at a time (DESIGN 8.4).
pub(super) const BYTES_AHEAD: u32 = 256 << 10;

/// A frame that was sent, or is about to be, and is not answered.
pub(super) struct Waiting {
    pub(super) seq: u64,
    pub(super) keep: usize,
    pub(super) deadline: Duration,
    pub(super) answer: oneshot::Sender<Result<Raw, SessionError>>,
    /// Given back with the answer.
    pub(super) _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    pub(super) stdout: Option<(String, Capture)>,
    pub(super) stderr: Option<Capture>,
}

/// What the session and its tasks know.
pub(super) struct State {
    pub(super) waiting: VecDeque<Waiting>,
    /// Since when the first waiting frame has been the shell's to run.
    turn: Instant,
    /// Why the session is over.
    pub(super) over: Option<SessionError>,
    pub(super) trips: usize,
    /// Frames below this number were sent before the last wait that counted had ended.
    pub(super) counted_below: u64,
    pub(super) next_seq: u64,
    pub(super) next_block: u32,
    pub(super) stopped: bool,
    /// A last frame was sent whose answer nobody waits for: the connection's count of bytes that
    /// says that it is on its way.
    pub(super) parted: Option<u64>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    /// The first waiting frame is another one.
    turned: Notify,
    pub(super) frames: Arc<Semaphore>,
    pub(super) bytes: Arc<Semaphore>,
    /// True once the session is over: tasks end, writers stop waiting.
    pub(super) closed: watch::Sender<bool>,
    /// Held while what the shell runs is killed: the connection is needed until then.
    pub(super) killing: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(super) fn new() -> Self {
        let state = State {
            waiting: VecDeque::new(),
            turn: Instant::now(),
            over: None,
            trips: 0,
            counted_below: 0,
            next_seq: 1,
            next_block: 1,
            stopped: false,
            parted: None,
        };
        Self {
            state: Mutex::new(state),
            turned: Notify::new(),
            frames: Arc::new(Semaphore::new(FRAMES_AHEAD)),
            bytes: Arc::new(Semaphore::new(BYTES_AHEAD as usize)),
            closed: watch::Sender::new(false),
            killing: tokio::sync::Mutex::new(()),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Numbers a frame that is about to be sent and adds it to those that wait, unless the run
    /// was stopped.
    pub(super) fn expect(&self, mut waiting: Waiting, unstoppable: bool) -> Option<u64> {
        let mut state = self.state();
        if state.stopped && !unstoppable {
            return None;
        }
        if state.waiting.is_empty() {
            state.turn = Instant::now();
            self.turned.notify_one();
        }
        let seq = state.next_seq;
        state.next_seq += 1;
        waiting.seq = seq;
        state.waiting.push_back(waiting);
        Some(seq)
    }

    /// Ends the session: the first waiting frame gets `first`, the others and all later ones `rest`.
    pub(super) fn end(&self, first: &SessionError, rest: &SessionError) {
        let waiting = {
            let mut state = self.state();
            if state.over.is_some() {
                return;
            }
            state.over = Some(rest.clone());
            std::mem::take(&mut state.waiting)
        };
        self.frames.close();
        self.bytes.close();
        for (index, frame) in waiting.into_iter().enumerate() {
            let _ = frame.answer.send(Err(if index == 0 { first.clone() } else { rest.clone() }));
        }
        self.closed.send_replace(true);
    }

    /// Ends the session because the connection or the shell is gone.
    pub(super) fn lose(&self, why: &str) {
        let lost = SessionError::Lost(why.to_owned());
        self.end(&lost, &lost);
    }

    /// A frame was handed over whole: its time begins now, if it is its turn.
    fn written(&self, seq: u64) {
        let mut state = self.state();
        if state.waiting.front().is_some_and(|front| front.seq == seq) {
            state.turn = Instant::now();
            self.turned.notify_one();
        }
    }

    fn keep_of(&self, seq: u64) -> Option<usize> {
        self.state().waiting.iter().find(|frame| frame.seq == seq).map(|frame| frame.keep)
    }

    fn store(&self, part: Part, out: bool) {
        let mut state = self.state();
        let Some(frame) = state.waiting.iter_mut().find(|frame| frame.seq == part.seq) else { return };
        if out {
            frame.stdout = Some((part.status, part.capture));
        } else {
            frame.stderr = Some(part.capture);
        }
    }

    /// Hands out the answers that are complete.
    fn answer(&self, merged: bool) {
        let mut state = self.state();
        while state.waiting.front().is_some_and(|front| front.stdout.is_some() && (merged || front.stderr.is_some())) {
            let Some(Waiting { answer, stdout: Some((status, stdout)), stderr, .. }) = state.waiting.pop_front() else { return };
            let _ = answer.send(Ok(Raw { status, stdout, stderr: stderr.unwrap_or_else(|| Capture::new(0)) }));
            state.turn = Instant::now();
            self.turned.notify_one();
        }
    }

    /// When the first waiting frame's time is up, and how long it was given.
    fn due(&self) -> Option<(Instant, Duration)> {
        let state = self.state();
        state.waiting.front().map(|front| (state.turn + front.deadline, front.deadline))
    }
}

/// Something for the writer to write.
pub(super) enum Outgoing {
    Frame(u64, Zeroizing<String>),
    /// Something without an answer, then the end of input.
    End(String),
}

/// Writes until the session is over. Never outlives it, even if the peer takes nothing any more.
pub(super) async fn write(mut writer: Writer, mut outgoing: mpsc::UnboundedReceiver<Outgoing>, shared: Arc<Shared>) {
    let mut closed = shared.closed.subscribe();
    let work = async {
        while let Some(next) = outgoing.recv().await {
            match next {
                Outgoing::Frame(seq, text) => match writer.send(text.as_bytes()).await {
                    Ok(()) => shared.written(seq),
                    // The reader knows more about why, and comes to it in a moment.
                    Err(why) => {
                        tokio::time::sleep(Duration::from_secs(2)).await;
                        shared.lose(&why);
                        return;
                    }
                },
                Outgoing::End(last) => {
                    let _ = writer.send(last.as_bytes()).await;
                    writer.end().await;
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = over(&mut closed) => {}
    }
}

/// Reads until the shell ends or a frame's time is up; then the session is over.
pub(super) async fn read(
    mut reader: Reader,
    greeting: Greeting,
    (mut out, mut err): (Scanner, Scanner),
    shared: Arc<Shared>,
    access: Arc<Access>,
    shell: ShellInfo,
) {
    let mut closed = shared.closed.subscribe();
    let take = |scanner: &mut Scanner, bytes: &[u8], is_out| {
        scanner.push(bytes, |seq| shared.keep_of(seq)).into_iter().for_each(|part| shared.store(part, is_out));
        shared.answer(shell.merged);
    };
    take(&mut out, &greeting.out, true);
    take(&mut err, &greeting.err, false);
    loop {
        let due = shared.due();
        tokio::select! {
            chunk = reader.next() => match chunk {
                Some(Chunk::Out(bytes)) => take(&mut out, &bytes, true),
                Some(Chunk::Err(bytes)) => take(&mut err, &bytes, false),
                Some(Chunk::Refused) => {}
                None => {
                    shared.lose(&access.why_lost(reader.ending()).await);
                    return;
                }
            },
            () = sleep_until(due) => {
                let Some((at, given)) = shared.due() else { continue };
                if at <= Instant::now() {
                    let _killing = shared.killing.lock().await;
                    let rest = format!("closed, because an earlier command took longer than {} s", given.as_secs());
                    shared.end(&SessionError::Deadline(given), &SessionError::Lost(rest));
                    kill(&access, &shell).await;
                    return;
                }
            }
            () = shared.turned.notified() => {}
            () = over(&mut closed) => return,
        }
    }
}

/// What is fixed about a session's shell.
#[derive(Clone)]
pub(super) struct ShellInfo {
    pub(super) pid: u32,
    pub(super) merged: bool,
}

/// Kills what the shell runs, and the shell.
pub(super) async fn kill(access: &Access, shell: &ShellInfo) {
    if let Err(failure) = access.aside(&frame::kill_group(shell.pid)).await {
        tracing::warn!("could not kill what still runs on the host: {failure}");
    }
}

/// Waits until the session is over.
pub(super) async fn over(closed: &mut watch::Receiver<bool>) {
    let _ = closed.wait_for(|closed| *closed).await;
}

async fn sleep_until(due: Option<(Instant, Duration)>) {
    match due {
        Some((at, _)) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
