//! Bytes from a host: what scripts print, exactly as it is, streamed with bounded memory and with
//! its digest taken on both sides. Goes through a shell of its own, one script after the other, so
//! that the session's frames are not held up.
//!
//! A host decides what the bytes are and nothing else: where they go is the caller's sink.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::access::{Access, Opened};
use super::pump::{self, ShellInfo};
use super::session::Session;
use super::shell_channel::Chunk;
use super::{frame, sudo};
use crate::diagnostic::{Failure, FailureClass, printable};
use crate::secret::{Vault, hex};
use crate::shell::{Script, quote};

/// How much a script's complaints are kept, in bytes.
const COMPLAINTS: usize = 8 << 10;
/// Longest rest of a trailer behind its mark: a status and a digest.
const TRAILER: usize = 96;
/// How long the shell may take to open.
const OPENING: Duration = Duration::from_secs(60);
/// How long killing what runs may take.
const KILLING: Duration = Duration::from_secs(15);

/// A shell on a host whose output is taken byte for byte.
pub struct Download {
    access: Arc<Access>,
    opened: Opened,
    info: ShellInfo,
    nonce: String,
    seq: u64,
    closed: watch::Receiver<bool>,
}

/// What arrived, and what the host says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The script's exit status.
    pub status: i32,
    pub bytes: u64,
    /// Of what arrived; the host made the same of what it sent.
    pub sha256: String,
    /// The last of what the script said on stderr; empty where `sudo` insists on a terminal.
    pub stderr: String,
}

/// Takes the bytes, in order.
pub type Sink<'a> = dyn FnMut(&[u8]) -> std::io::Result<()> + Send + 'a;

/// Why not everything arrived. The shell is gone then: open another one to go on.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("the connection was lost: {0}")]
    Lost(String),
    #[error("nothing came for {} s", .0.as_secs())]
    Idle(Duration),
    #[error("it is longer than the limit of {0} bytes")]
    TooLong(u64),
    #[error("it cannot be written on the controller: {0}")]
    Sink(std::io::Error),
    #[error("what arrived (sha256 {arrived}) is not what the host sent (sha256 {sent})")]
    Differs { arrived: String, sent: String },
    #[error("the host has no `sha256sum`")]
    NoDigest,
}

impl Session {
    /// Opens a shell for downloads, with the session's privilege.
    ///
    /// # Errors
    /// No further channel, or no privilege.
    pub async fn open_download(&self) -> Result<Download, Failure> {
        let access = self.access.clone();
        let opened = tokio::time::timeout(OPENING, access.open(&"")).await.unwrap_or_else(|_| Err(sudo::silent(OPENING)))?;
        let info = ShellInfo { pid: opened.greeting.pid, merged: opened.shell.merged };
        let mut download = Download { access, opened, info, nonce: frame::nonce(), seq: 0, closed: self.closing() };
        let quiet = if download.info.merged { "exec 2>/dev/null\n" } else { "" };
        let words = format!("{}{quiet}exec 4>&1\n{}", frame::prologue(&frame::nonce()), download.trailer("0 -"));
        let lost = |error: DownloadError| Failure::new(FailureClass::Tcp, "no shell for a download").because(printable(&error.to_string()));
        download.send(&words).await.map_err(lost)?;
        download.receive(u64::MAX, OPENING, &mut |_| Ok(())).await.map_err(lost)?;
        Ok(download)
    }
}

impl Download {
    /// Runs a script and hands what it prints to the sink. `limit` bounds the bytes, `idle` the
    /// time in which none come. The script must hold no secrets.
    ///
    /// # Errors
    /// Anything but the script's own failure, which is its status.
    pub async fn fetch(&mut self, script: &Script, limit: u64, idle: Duration, sink: &mut Sink<'_>) -> Result<Received, DownloadError> {
        let code = script.fill(&Vault::default()).map_err(|missing| DownloadError::Lost(missing.to_string()))?;
        self.seq += 1;
        // The script's output goes to us by descriptor 4 and, by a pipe that `tee` opens by its
        // name, to the digest; its status and the digest are what `r` captures.
        let words = format!(
            "r=$( {{ {{ {{ ( eval {} ) </dev/null 3>&- 4>&- 5>&- 6>&-; echo \"$?\" >&5; }} | tee /dev/fd/3 >&4; }} 3>&1 5>&6 | sha256sum; }} 6>&1 )\n\
             set -- $r - -\n{}",
            quote(&code),
            self.trailer("$1 $2")
        );
        let outcome = match self.send(&words).await {
            Ok(()) => self.receive(limit, idle, sink).await,
            Err(error) => Err(error),
        };
        if matches!(outcome, Err(DownloadError::Idle(_) | DownloadError::TooLong(_) | DownloadError::Sink(_))) {
            self.kill().await;
        }
        outcome
    }

    /// Kills what runs. What it still sends must be read meanwhile: an unread channel stops every
    /// other one of its connection, the one that kills too.
    async fn kill(&mut self) {
        let reader = &mut self.opened.shell.reader;
        let drain = async { while reader.next().await.is_some() {} };
        let both = async { tokio::join!(pump::kill(&self.access, &self.info), drain) };
        let _ = tokio::time::timeout(KILLING, both).await;
    }

    /// Ends the shell.
    pub async fn close(mut self) {
        self.opened.shell.writer.end().await;
    }

    /// Code that prints this script's mark with some words behind it, on both streams.
    fn trailer(&self, words: &str) -> String {
        let (nonce, seq) = (&self.nonce, self.seq);
        format!("printf '\\n%s\\n' \"{nonce} {seq} {words}\"; printf '\\n%s\\n' \"{nonce} {seq} -\" >&2\n")
    }

    async fn send(&mut self, words: &str) -> Result<(), DownloadError> {
        let mut closed = self.closed.clone();
        tokio::select! {
            sent = self.opened.shell.writer.send(words.as_bytes()) => sent.map_err(DownloadError::Lost),
            () = pump::over(&mut closed) => Err(DownloadError::Lost("the session was closed".to_owned())),
        }
    }

    /// Reads up to the trailer of the script under way.
    async fn receive(&mut self, limit: u64, idle: Duration, sink: &mut Sink<'_>) -> Result<Received, DownloadError> {
        let mark = format!("\n{} {} ", self.nonce, self.seq).into_bytes();
        let (mut out, mut err) = (Splitter::new(mark.clone()), Splitter::new(mark));
        let (mut hash, mut bytes, mut complaints) = (Sha256::new(), 0_u64, Vec::new());
        let mut closed = self.closed.clone();
        // What came with the greeting, before anything was asked.
        self.opened.greeting.out.clear();
        while out.trailer.is_none() || (err.trailer.is_none() && !self.info.merged) {
            let chunk = tokio::select! {
                chunk = tokio::time::timeout(idle, self.opened.shell.reader.next()) => chunk.map_err(|_| DownloadError::Idle(idle))?,
                () = pump::over(&mut closed) => return Err(DownloadError::Lost("the session was closed".to_owned())),
            };
            match chunk {
                Some(Chunk::Out(chunk)) => out.push(&chunk, &mut |piece| {
                    bytes += piece.len() as u64;
                    if bytes > limit {
                        return Err(DownloadError::TooLong(limit));
                    }
                    hash.update(piece);
                    sink(piece).map_err(DownloadError::Sink)
                })?,
                Some(Chunk::Err(chunk)) => err.push(&chunk, &mut |piece| {
                    complaints.extend_from_slice(piece);
                    let excess = complaints.len().saturating_sub(COMPLAINTS);
                    complaints.drain(..excess);
                    Ok(())
                })?,
                Some(Chunk::Refused) => return Err(DownloadError::Lost("the server starts no commands".to_owned())),
                None => return Err(DownloadError::Lost(self.access.why_lost(self.opened.shell.reader.ending()).await)),
            }
        }
        let trailer = out.trailer.unwrap_or_default();
        let (status, sent) = trailer.split_once(' ').unwrap_or((&trailer, ""));
        let arrived = hex(&hash.finalize());
        if self.seq > 0 && sent != arrived {
            let no_digest = sent.len() != 64 || !sent.bytes().all(|byte| byte.is_ascii_hexdigit());
            return Err(if no_digest { DownloadError::NoDigest } else { DownloadError::Differs { arrived, sent: sent.to_owned() } });
        }
        let stderr = printable(String::from_utf8_lossy(&complaints).trim());
        Ok(Received { status: status.parse().unwrap_or(-1), bytes, sha256: arrived, stderr })
    }
}

/// Cuts a stream at its trailer and holds back what may be the beginning of one.
struct Splitter {
    mark: Vec<u8>,
    carry: Vec<u8>,
    /// What stands behind the mark, once it came.
    trailer: Option<String>,
}

impl Splitter {
    fn new(mark: Vec<u8>) -> Self {
        Self { mark, carry: Vec::new(), trailer: None }
    }

    fn push(&mut self, bytes: &[u8], emit: &mut dyn FnMut(&[u8]) -> Result<(), DownloadError>) -> Result<(), DownloadError> {
        if self.trailer.is_some() {
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.carry);
        let bytes = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        let mut at = 0;
        while let Some(found) = bytes[at..].iter().position(|byte| *byte == b'\n') {
            at += found;
            let rest = &bytes[at..];
            if let Some(words) = rest.strip_prefix(self.mark.as_slice()) {
                if let Some(end) = words.iter().take(TRAILER).position(|byte| matches!(byte, b'\n' | b'\r')) {
                    self.trailer = Some(String::from_utf8_lossy(&words[..end]).into_owned());
                    return emit(&bytes[..at]);
                }
                if words.len() < TRAILER {
                    self.carry = rest.to_vec();
                    return emit(&bytes[..at]);
                }
            } else if self.mark.starts_with(rest) {
                self.carry = rest.to_vec();
                return emit(&bytes[..at]);
            }
            at += 1;
        }
        emit(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(stream: &[u8], size: usize) -> (Vec<u8>, Option<String>) {
        let (mut splitter, mut out) = (Splitter::new(b"\nabc 1 ".to_vec()), Vec::new());
        for chunk in stream.chunks(size) {
            splitter
                .push(chunk, &mut |piece| {
                    out.extend_from_slice(piece);
                    Ok(())
                })
                .unwrap();
        }
        (out, splitter.trailer)
    }

    #[test]
    fn a_stream_is_cut_at_its_trailer_however_it_comes() {
        let content = b"\n\nab\nabc 2 x\n\0\xff\nabc ";
        let stream = [content.as_slice(), b"\nabc 1 0 digest\n", b"after"].concat();
        for size in 1..=stream.len() {
            assert_eq!(split(&stream, size), (content.to_vec(), Some("0 digest".to_owned())), "in pieces of {size}");
        }
        assert_eq!(split(b"no trailer\nabc 1 ", 3), (b"no trailer".to_vec(), None));
    }
}
