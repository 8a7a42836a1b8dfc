//! The three streams of a shell, over SSH or of a child process. Knows nothing of frames.
//!
//! The reader must be read until its end by one task: an unread SSH channel stops every other
//! channel of its connection. The writer may hang if the peer is dead: callers race it against
//! the reader's end. Dropping the writer closes the channel.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// After the shell's end, how long to wait for output that its children may still hold back.
const AFTER_EXIT: Duration = Duration::from_secs(1);
/// The most that is read of a child process at once, in bytes.
const READ: usize = 64 << 10;

/// Something the shell sent.
#[derive(Debug)]
pub(super) enum Chunk {
    Out(Vec<u8>),
    Err(Vec<u8>),
    /// The server does not start commands for this user.
    Refused,
}

/// The shell's output.
pub(super) enum Reader {
    Ssh { half: ChannelReadHalf, ended: Option<String> },
    Local { child: Box<Child>, out: Option<ChildStdout>, err: Option<ChildStderr>, ended: Option<String> },
}

impl Reader {
    /// What comes next; `None` once the shell has ended. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Chunk> {
        match self {
            Self::Ssh { half, ended } => next_ssh(half, ended).await,
            Self::Local { child, out, err, ended } => next_local(child, out, err, ended).await,
        }
    }

    /// How the shell ended, if it said so: `exit status 1`.
    pub(super) fn ending(&self) -> Option<&str> {
        match self {
            Self::Ssh { ended, .. } | Self::Local { ended, .. } => ended.as_deref(),
        }
    }
}

/// OpenSSH sends the exit status before the last output, and holds the channel open as long as
/// any descendant has it: read on for a while after the status.
async fn next_ssh(half: &mut ChannelReadHalf, ended: &mut Option<String>) -> Option<Chunk> {
    loop {
        let message = if ended.is_some() { tokio::time::timeout(AFTER_EXIT, half.wait()).await.ok()? } else { half.wait().await };
        match message? {
            ChannelMsg::Data { data } => return Some(Chunk::Out(data.to_vec())),
            ChannelMsg::ExtendedData { data, .. } => return Some(Chunk::Err(data.to_vec())),
            ChannelMsg::Failure => return Some(Chunk::Refused),
            ChannelMsg::ExitStatus { exit_status } => *ended = Some(format!("exit status {exit_status}")),
            ChannelMsg::ExitSignal { signal_name, .. } => *ended = Some(format!("signal {signal_name:?}")),
            _ => {}
        }
    }
}

async fn next_local(
    child: &mut Child,
    out: &mut Option<ChildStdout>,
    err: &mut Option<ChildStderr>,
    ended: &mut Option<String>,
) -> Option<Chunk> {
    loop {
        let (mut from_out, mut from_err) = (Vec::new(), Vec::new());
        tokio::select! {
            read = read_some(out, &mut from_out) => match read {
                Some(0) | None => *out = None,
                Some(_) => return Some(Chunk::Out(from_out)),
            },
            read = read_some(err, &mut from_err) => match read {
                Some(0) | None => *err = None,
                Some(_) => return Some(Chunk::Err(from_err)),
            },
            status = child.wait(), if ended.is_none() => *ended = Some(describe(status)),
            () = tokio::time::sleep(AFTER_EXIT), if ended.is_some() => return None,
        }
        if out.is_none() && err.is_none() {
            if ended.is_none() {
                *ended = Some(describe(child.wait().await));
            }
            return None;
        }
    }
}

/// Reads what is there; waits forever on a stream that has ended.
async fn read_some(stream: &mut Option<impl tokio::io::AsyncRead + Unpin>, into: &mut Vec<u8>) -> Option<usize> {
    let Some(stream) = stream else { return std::future::pending().await };
    into.reserve(READ);
    stream.read_buf(into).await.ok()
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

/// The shell's standard input.
pub(super) enum Writer {
    Ssh(Option<ChannelWriteHalf<Msg>>),
    Local(Option<ChildStdin>),
}

impl Writer {
    /// Writes everything. May wait without end if the peer is dead.
    ///
    /// # Errors
    /// A sentence, if the shell is gone.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = match self {
            Self::Ssh(Some(half)) => half.data_bytes(bytes.to_vec()).await.map_err(|error| error.to_string()),
            Self::Local(Some(stdin)) => match stdin.write_all(bytes).await {
                Ok(()) => stdin.flush().await,
                Err(error) => Err(error),
            }
            .map_err(|error| error.to_string()),
            Self::Ssh(None) | Self::Local(None) => Err("its input is closed".to_owned()),
        };
        sent.map_err(|error| format!("cannot write to the shell: {error}"))
    }

    /// Ends standard input: the shell exits once it has read the rest.
    pub(super) async fn end(&mut self) {
        match self {
            Self::Ssh(Some(half)) => drop(half.eof().await),
            Self::Ssh(None) => {}
            Self::Local(stdin) => drop(stdin.take()),
        }
    }
}

impl Drop for Writer {
    /// A dropped channel is not closed by russh, and what runs in it would live on: a `sudo` at its
    /// prompt, for one, which blocks the next `sudo` of that user.
    fn drop(&mut self) {
        let Self::Ssh(half) = self else { return };
        if let (Some(half), Ok(runtime)) = (half.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { half.close().await });
        }
    }
}

/// A shell's streams.
pub(super) struct ShellChannel {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    /// A terminal: stdout and stderr are one.
    pub(super) merged: bool,
}

impl ShellChannel {
    /// The streams of an SSH channel on which a command was started.
    pub(super) fn ssh(channel: russh::Channel<Msg>, merged: bool) -> Self {
        let (half, write) = channel.split();
        Self { reader: Reader::Ssh { half, ended: None }, writer: Writer::Ssh(Some(write)), merged }
    }

    /// Starts a command on the controller, in a process group of its own.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(super) fn local(command: &str) -> std::io::Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let (stdin, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok(Self { reader: Reader::Local { child: Box::new(child), out, err, ended: None }, writer: Writer::Local(stdin), merged: false })
    }
}
