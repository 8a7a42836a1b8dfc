//! Files from the controller to the host, on a channel of their own, verified there. Not for
//! secrets: they travel in frames.
//!
//! The bytes go to the standard input of `cat` in a second privileged shell, as they are while the
//! line keeps up with us, and compressed from where it turns out to be slower than the compressor.
//! A large file whose transfer was cut off is continued by the next one: what of it is on the host
//! is kept if its digest is that of the file's beginning.
//!
//! Where `sudo` insists on a terminal, which binary data does not survive, the login user writes
//! into a directory of its own, and root copies from there: a copy, since the login user could
//! still write to a moved file.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

use super::access::Link;
use super::connection::Connection;
use super::session::Session;
use super::shell_channel::{Chunk, ShellChannel};
use super::{Frame, SessionError, frame};
use crate::diagnostic::{Failure, FailureClass, printable};
use crate::resource::plan::Upload;
use crate::secret::{Vault, hex};
use crate::shell::Script;

/// How much is read and sent at once, in bytes.
const PIECE: usize = 256 << 10;
/// How much OpenSSH takes of a channel before it waits for the program behind it (channels.h,
/// `CHAN_SES_WINDOW_DEFAULT`): a line's speed shows only after it.
const WINDOW: u64 = 2 << 20;
/// How long a line is watched before it is judged, and anew after that.
const WATCHED: Duration = Duration::from_millis(500);
/// Compressed that is at least this much smaller, in per cent, or not at all.
const WORTH: usize = 10;
/// Files from this size on are continued where a transfer of theirs was cut off, in bytes.
const RESUMED: u64 = 4 << 20;
/// Size and digest of what is left of a transfer, if it may be written to: a file of ours, in
/// directories in which nobody else could put another in its place.
const LEFT: &str = "f={}; u=$(id -u); [ -f \"$f\" ] && [ ! -L \"$f\" ] && [ \"$(stat -c %u:%a -- \"$f\")\" = \"$u:600\" ] || exit 3
d=$f; while [ \"$d\" != / ]; do d=$(dirname -- \"$d\"); case $(stat -c '%u %A' -- \"$d\") in
\"0 d\"????-??-?|\"0 d\"????????[tT]|\"$u d\"????-??-?) ;;
*) exit 3 ;; esac; done
stat -c %s -- \"$f\"; sha256sum <\"$f\"\n";
/// Slowest disk and digest that are waited for, in bytes a second.
const SLOWEST: u64 = 5 << 20;
/// How much of what a program on the host says is kept, in bytes.
const SAID: usize = 8 << 10;
/// How a digest is made: whichever of these the host has. 127 if none.
const DIGEST: &str = "if command -v sha256sum >/dev/null; then s=$(sha256sum <{}); \
     elif command -v openssl >/dev/null; then s=$(openssl dgst -sha256 -r <{}); \
     elif command -v shasum >/dev/null; then s=$(shasum -a 256 <{}); else exit 127; fi; printf %s \"${s%% *}\"";

impl Session {
    /// Sends a file and verifies it on the host. It is there with mode 0600 and root's, or not at
    /// all. `progress` is told how many bytes were sent so far.
    ///
    /// # Errors
    /// The file cannot be read or changed meanwhile, the host has no room, or the connection was lost.
    pub async fn upload(&self, upload: &Upload, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<(), Failure> {
        let size = std::fs::metadata(&upload.source).map_err(|error| unreadable(&upload.source, &error))?.len();
        let deadline = Duration::from_secs(60 + size / SLOWEST);
        let sending = Sending { session: self, upload, progress, size, deadline };
        match &self.access.link {
            Link::Local => {
                let source = upload.source.to_string_lossy();
                sending.copy(&source, "").await?;
                progress(size);
            }
            Link::Ssh(connection) => sending.over(connection).await?,
        }
        sending.verify().await
    }
}

struct Sending<'a> {
    session: &'a Session,
    upload: &'a Upload,
    progress: &'a (dyn Fn(u64) + Send + Sync),
    size: u64,
    deadline: Duration,
}

impl Sending<'_> {
    async fn over(&self, connection: &Connection) -> Result<(), Failure> {
        let work = async {
            if self.session.access.needs_terminal() {
                return self.staged(connection).await;
            }
            match self.straight().await {
                Err(Trouble::Here(failure)) => Err(failure),
                Err(Trouble::There(said)) => {
                    // It may be what fills the disk.
                    self.remove(&self.upload.destination).await;
                    Err(self.no_room(&self.upload.destination, &said).await)
                }
                Ok(()) => Ok(()),
            }
        };
        tokio::select! {
            done = work => done,
            () = self.session.ended() => Err(lost("the connection was lost during an upload")),
        }
    }

    /// Writes the destination from a second shell of the same privilege.
    async fn straight(&self) -> Result<(), Trouble> {
        let to = self.upload.destination.as_str();
        let plain = Script::sh("umask 077; rm -f -- {}; set -C; : >{} && set +C && echo ready && exec cat >>{}\n", &[to, to, to]);
        let (mut source, mut sent, script) = match self.left().await? {
            Some((source, there)) => (source, there, Script::sh("echo ready; exec cat >>{}\n", &[to])),
            None => (Source::open(self.upload).await?, 0, plain),
        };
        let mut pipe = self.pipe(script).await?;
        let (mut line, mut squeezing) = (Line::default(), false);
        (self.progress)(sent);
        loop {
            let bytes = source.next().await?;
            if bytes.is_empty() {
                break;
            }
            let ahead = self.size.saturating_sub(sent);
            if !squeezing && ahead > 2 * WINDOW && line.is_slower_than_compressing(bytes) {
                pipe.finish().await?;
                let script = Script::sh(
                    "if command -v gzip >/dev/null; then echo ready; exec gzip -dc >>{}; fi; echo ready; exec cat >>{}\n",
                    &[to, to],
                );
                pipe = self.pipe(script).await?;
                squeezing = true;
            }
            if squeezing {
                pipe.send(&squeezed(bytes)).await?;
            } else {
                pipe.send(bytes).await?;
                line.took(bytes.len());
            }
            sent += bytes.len() as u64;
            (self.progress)(sent);
        }
        pipe.finish().await?;
        Ok(source.finish()?)
    }

    /// The source behind what the host has of it already, from a transfer that was cut off, and how
    /// much that is.
    async fn left(&self) -> Result<Option<(Source<'_>, u64)>, Failure> {
        if self.size < RESUMED {
            return Ok(None);
        }
        let output = self.run(Script::sh(LEFT, &[&self.upload.destination])).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = said.split_whitespace();
        let size = words.next().and_then(|word| word.parse::<u64>().ok()).filter(|size| *size > 0 && *size <= self.size);
        let (Some(size), Some(digest), 0) = (size, words.next(), output.status) else { return Ok(None) };
        let mut source = Source::open(self.upload).await?;
        if source.skip(size).await? != digest {
            return Ok(None);
        }
        tracing::info!("`{}` goes on after {size} of {} bytes", self.upload.source.display(), self.size);
        Ok(Some((source, size)))
    }

    /// A second privileged shell that has begun to read its standard input.
    async fn pipe(&self, script: Script) -> Result<Pipe, Trouble> {
        let words = script.fill(&Vault::default()).map_err(|missing| lost(&missing.to_string()))?;
        let opened = self.session.access.open(&words.as_str()).await?;
        let mut pipe = Pipe { shell: opened.shell, said: Vec::new() };
        pipe.until("ready").await?;
        Ok(pipe)
    }

    /// By the login user's own shell, which needs no terminal.
    async fn staged(&self, connection: &Connection) -> Result<(), Failure> {
        let name = format!("soc-upload-{}", frame::nonce());
        let take = format!(
            "exec /bin/sh -c 'umask 077; d=/var/tmp/{name}; mkdir $d 2>/dev/null || {{ d=/tmp/{name}; mkdir $d || exit 1; }}; \
             cat >$d/file || exit 1; echo; echo at $d'"
        );
        let mut shell = connection.shell(&take, false).await?;
        let mut source = Source::open(self.upload).await?;
        let mut sent = 0;
        loop {
            let bytes = source.next().await?;
            if bytes.is_empty() {
                break;
            }
            shell.writer.send(bytes).await.map_err(|error| self.unwritten("a temporary file", &error))?;
            sent += bytes.len() as u64;
            (self.progress)(sent);
        }
        source.finish()?;
        shell.writer.end().await;
        let dir = staged_at(&mut shell, &name).await.map_err(|said| self.unwritten("a temporary file", &said))?;
        let copied = self.copy(&format!("{dir}/file"), &dir).await;
        if copied.is_err() {
            self.remove(&dir).await;
        }
        copied
    }

    /// Copies on the host, by the privileged shell, and removes the directory that held the source.
    async fn copy(&self, from: &str, remove: &str) -> Result<(), Failure> {
        let to = &self.upload.destination;
        let script = Script::sh("umask 077; rm -f -- {} && set -C && cat <{} >{}", &[to, from, to]);
        let script = if remove.is_empty() { script } else { script.then(" && rm -rf -- {}", &[remove]) };
        let output = self.run(script).await?;
        if output.status == 0 {
            return Ok(());
        }
        Err(self.no_room(to, String::from_utf8_lossy(&output.stderr).trim()).await)
    }

    async fn remove(&self, dir: &str) {
        let _ = self.run(Script::sh("rm -rf -- {}", &[dir])).await;
    }

    async fn verify(&self) -> Result<(), Failure> {
        let to = self.upload.destination.as_str();
        let output = self.run(Script::sh(DIGEST, &[to, to, to])).await?;
        let digest = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status == 127 {
            return Err(Failure::new(FailureClass::MissingTool, "the host has no `sha256sum` to verify an upload with")
                .hint("install coreutils on the host"));
        }
        if digest == self.upload.sha256 {
            return Ok(());
        }
        let _ = self.run(Script::sh("rm -f -- {}", &[to])).await;
        Err(Failure::new(FailureClass::StepFailed, format!("`{to}` arrived with another content than it was sent with"))
            .because(format!("sha256 is {}, not {}", printable(&digest), self.upload.sha256))
            .hint("run it again; if it happens again, look at the host's disk and memory"))
    }

    async fn run(&self, script: Script) -> Result<super::Output, Failure> {
        let frame = Frame { deadline: self.deadline, unstoppable: true, ..Frame::new(script) };
        self.session.run(frame).await.map_err(|error| match error {
            SessionError::Deadline(after) => {
                Failure::new(FailureClass::Deadline, format!("`{}` was not written after {} s", self.upload.destination, after.as_secs()))
            }
            error => lost(&error.to_string()),
        })
    }

    fn unwritten(&self, path: &str, why: &str) -> Failure {
        Failure::new(FailureClass::StepFailed, format!("cannot write `{path}` on the host for `{}`", self.upload.source.display()))
            .because(printable(why))
    }

    /// A program that cannot write says so in many words: ask the disk whether it is full.
    async fn no_room(&self, path: &str, why: &str) -> Failure {
        let dir = Path::new(path).parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
        let free = self.run(Script::sh("df -Pk -- {} | tail -n 1 | while read -r a b c d e; do echo \"$d\"; done", &[&dir])).await;
        let free = free.ok().and_then(|output| String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().ok());
        match free {
            Some(free) if free * 1024 < self.size => {
                Failure::new(FailureClass::DiskFull, format!("no space for `{}` in `{dir}` on the host", self.upload.source.display()))
                    .because(format!("{} bytes are needed, {} are free", self.size, free * 1024))
                    .hint("make room on the host, then run it again")
            }
            _ => self.unwritten(path, why),
        }
    }
}

/// The file on the controller, its digest taken as it is read.
struct Source<'a> {
    upload: &'a Upload,
    file: tokio::fs::File,
    hash: Sha256,
    buffer: Vec<u8>,
}

impl<'a> Source<'a> {
    async fn open(upload: &'a Upload) -> Result<Self, Failure> {
        let file = tokio::fs::File::open(&upload.source).await.map_err(|error| unreadable(&upload.source, &error))?;
        Ok(Self { upload, file, hash: Sha256::new(), buffer: vec![0; PIECE] })
    }

    /// The next bytes, none at the end.
    async fn next(&mut self) -> Result<&[u8], Failure> {
        let read = self.file.read(&mut self.buffer).await.map_err(|error| unreadable(&self.upload.source, &error))?;
        self.hash.update(&self.buffer[..read]);
        Ok(&self.buffer[..read])
    }

    /// Reads so many bytes, and gives their digest in hex.
    async fn skip(&mut self, bytes: u64) -> Result<String, Failure> {
        let mut left = bytes;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let read = self.file.read(&mut self.buffer[..most]).await.map_err(|error| unreadable(&self.upload.source, &error))?;
            if read == 0 {
                break;
            }
            self.hash.update(&self.buffer[..read]);
            left -= read as u64;
        }
        Ok(hex(&self.hash.clone().finalize()))
    }

    fn finish(self) -> Result<(), Failure> {
        if hex(&self.hash.finalize()) == self.upload.sha256 {
            return Ok(());
        }
        Err(Failure::new(
            FailureClass::MovedOn,
            format!("`{}` changed on the controller while the run went on", self.upload.source.display()),
        )
        .hint("run it again when nobody writes to it"))
    }
}

/// Where the shell put the bytes, or what it said instead.
async fn staged_at(shell: &mut ShellChannel, name: &str) -> Result<String, String> {
    let mut said = Vec::new();
    while let Some(chunk) = shell.reader.next().await {
        match chunk {
            Chunk::Out(bytes) | Chunk::Err(bytes) if said.len() < 8 << 10 => said.extend_from_slice(&bytes),
            Chunk::Out(_) | Chunk::Err(_) => {}
            Chunk::Refused => return Err("the server starts no commands".to_owned()),
        }
    }
    let said = String::from_utf8_lossy(&said).into_owned();
    let place = ["/var/tmp", "/tmp"].map(|parent| format!("{parent}/{name}"));
    place.into_iter().find(|dir| said.contains(&format!("\nat {dir}\n"))).ok_or(said)
}

/// What went wrong with a pipe: known here, or in the words of the program on the host.
enum Trouble {
    Here(Failure),
    There(String),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

/// A program on the host that takes bytes on its standard input.
struct Pipe {
    shell: ShellChannel,
    said: Vec<u8>,
}

impl Pipe {
    /// Waits until it has said this line.
    async fn until(&mut self, line: &str) -> Result<(), Trouble> {
        while !String::from_utf8_lossy(&self.said).lines().any(|said| said == line) {
            if !self.hears().await {
                return Err(self.trouble());
            }
        }
        Ok(())
    }

    /// Takes what it says next; false at its end.
    async fn hears(&mut self) -> bool {
        match self.shell.reader.next().await {
            Some(chunk) => {
                keep(&mut self.said, chunk);
                true
            }
            None => false,
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        // A program that ended takes nothing any more, and sending to it would wait for ever.
        let sent = tokio::select! {
            sent = self.shell.writer.send(bytes) => sent.is_ok(),
            () = async { while let Some(chunk) = self.shell.reader.next().await { keep(&mut self.said, chunk); } } => false,
        };
        if sent { Ok(()) } else { Err(self.trouble()) }
    }

    /// Ends its input and waits until everything is written.
    async fn finish(&mut self) -> Result<(), Trouble> {
        self.shell.writer.end().await;
        while self.hears().await {}
        if self.shell.reader.ending() == Some("exit status 0") { Ok(()) } else { Err(self.trouble()) }
    }

    fn trouble(&self) -> Trouble {
        Trouble::There(String::from_utf8_lossy(&self.said).replace("ready\n", "").trim().to_owned())
    }
}

/// Keeps the beginning of what a program says.
fn keep(said: &mut Vec<u8>, chunk: Chunk) {
    match chunk {
        Chunk::Out(bytes) | Chunk::Err(bytes) => said.extend_from_slice(&bytes[..bytes.len().min(SAID.saturating_sub(said.len()))]),
        Chunk::Refused => said.extend_from_slice(b"the server starts no commands"),
    }
}

/// How fast a line takes what it is given.
#[derive(Default)]
struct Line {
    since: Option<Instant>,
    taken: u64,
}

impl Line {
    /// Notes that the line took this many bytes.
    fn took(&mut self, bytes: usize) {
        self.taken += bytes as u64;
        // The first bytes go into buffers, at the speed of memory.
        if self.since.is_none() && self.taken >= WINDOW {
            self.since = Some(Instant::now());
            self.taken = 0;
        }
    }

    /// Whether compressing is quicker than the line, and makes this piece smaller.
    fn is_slower_than_compressing(&mut self, piece: &[u8]) -> bool {
        let Some(watched) = self.since.map(|since| since.elapsed()).filter(|watched| *watched >= WATCHED) else { return false };
        let line = per_second(self.taken, watched);
        (self.since, self.taken) = (Some(Instant::now()), 0);
        let started = Instant::now();
        let small = squeezed(piece).len();
        small * 100 <= piece.len() * (100 - WORTH) && per_second(piece.len() as u64, started.elapsed()) > line
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate to compare")]
fn per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(1e-9)
}

/// One member of a gzip stream (RFC 1952): `gzip -dc` takes any number of them.
fn squeezed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    // Writing to memory cannot fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

fn lost(why: &str) -> Failure {
    Failure::new(FailureClass::Tcp, why)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FailureClass::StepFailed, format!("cannot read `{}` on the controller", path.display())).because(error.to_string())
}
