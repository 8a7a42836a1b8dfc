//! Files from the controller to the host: by SFTP, or `cat` where there is none, verified there.
//! Not for secrets: they travel in frames.
//!
//! Where `sudo` is between the login and root, the login user writes into a directory of its own,
//! and root copies from there: a copy, since the login user could still write to a moved file.

use std::path::Path;
use std::time::Duration;

use russh_sftp::client::{Config, SftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::access::Link;
use super::connection::Connection;
use super::session::Session;
use super::shell_channel::{Chunk, ShellChannel};
use super::{Frame, SessionError, frame};
use crate::diagnostic::{Failure, FailureClass, printable};
use crate::resource::plan::Upload;
use crate::secret::hex;
use crate::shell::Script;

/// Writes in flight and their size in bytes: 410-485 MB/s on loopback, 47 MB/s at 20 ms.
const WRITES: usize = 64;
const WRITE: u32 = 262_000;
/// A request waits behind all those in flight: 16 MB, which a slow line takes minutes for.
const REQUEST_SECONDS: u64 = 900;
/// Slowest disk and digest that are waited for, in bytes a second.
const SLOWEST: u64 = 5 << 20;
/// How a digest is made: whichever of these the host has. 127 if none.
const DIGEST: &str = "if command -v sha256sum >/dev/null; then s=$(sha256sum <{}); \
     elif command -v openssl >/dev/null; then s=$(openssl dgst -sha256 -r <{}); \
     elif command -v shasum >/dev/null; then s=$(shasum -a 256 <{}); else exit 127; fi; printf %s \"${s%% *}\"";

impl Session {
    /// Sends a file by SFTP (or `cat`, where there is none) and verifies it on the host. It is
    /// there with mode 0600 and root's, or not at all. `progress` is told how many bytes were
    /// sent so far.
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
            let Some(sftp) = sftp(connection).await? else { return self.by_cat(connection).await };
            if !self.session.access.needs_staging() {
                return self.write(&sftp, &self.upload.destination).await;
            }
            let dir = self.staging_by_sftp(&sftp).await?;
            let staged = format!("{dir}/file");
            let sent = self.write(&sftp, &staged).await;
            let copied = if sent.is_ok() { self.copy(&staged, &dir).await } else { Ok(()) };
            if sent.is_err() || copied.is_err() {
                self.remove(&dir).await;
            }
            sent.and(copied)
        };
        tokio::select! {
            done = work => done,
            () = self.session.ended() => Err(lost("the connection was lost during an upload")),
        }
    }

    /// Makes a directory that only the login user can enter. It fails where one of the name is
    /// there already, so nobody can have prepared it.
    async fn staging_by_sftp(&self, sftp: &SftpSession) -> Result<String, Failure> {
        let name = format!("soc-upload-{}", frame::nonce());
        let mut problem = String::new();
        for parent in ["/var/tmp", "/tmp"] {
            let dir = format!("{parent}/{name}");
            let attributes = FileAttributes { permissions: Some(0o700), ..FileAttributes::empty() };
            let made = match sftp.create_dir(dir.as_str()).await {
                Ok(()) => sftp.set_metadata(dir.as_str(), attributes).await,
                Err(error) => Err(error),
            };
            match made {
                Ok(()) => return Ok(dir),
                Err(error) => problem = error.to_string(),
            }
        }
        Err(Failure::new(FailureClass::StepFailed, "the login user can write neither to /var/tmp nor to /tmp").because(problem))
    }

    async fn write(&self, sftp: &SftpSession, path: &str) -> Result<(), Failure> {
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let attributes = FileAttributes { permissions: Some(0o600), ..FileAttributes::empty() };
        let _ = sftp.remove_file(path).await;
        let opened = sftp.open_with_flags_and_attributes(path, flags, attributes).await;
        let mut file = opened.map_err(|error| self.unwritten(path, &error.to_string()))?;
        let mut source = Source::open(self.upload).await?;
        let mut sent = 0;
        loop {
            let bytes = source.next().await?;
            if bytes.is_empty() {
                break;
            }
            if let Err(error) = file.write_all(bytes).await {
                return Err(self.no_room(path, &error.to_string()).await);
            }
            sent += bytes.len() as u64;
            (self.progress)(sent);
        }
        if let Err(error) = file.close().await {
            return Err(self.no_room(path, &error.to_string()).await);
        }
        source.finish()
    }

    /// Without SFTP: the login user's shell takes the bytes on its standard input.
    async fn by_cat(&self, connection: &Connection) -> Result<(), Failure> {
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

    /// SFTP says `Failure` for a full disk and for anything else: ask the disk.
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
        Ok(Self { upload, file, hash: Sha256::new(), buffer: vec![0; WRITE as usize] })
    }

    /// The next bytes, none at the end.
    async fn next(&mut self) -> Result<&[u8], Failure> {
        let read = self.file.read(&mut self.buffer).await.map_err(|error| unreadable(&self.upload.source, &error))?;
        self.hash.update(&self.buffer[..read]);
        Ok(&self.buffer[..read])
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

/// An SFTP session on a channel of its own; `None` if the server has none.
async fn sftp(connection: &Connection) -> Result<Option<SftpSession>, Failure> {
    let channel = connection.handle.channel_open_session().await.map_err(|error| connection.no_channel(&error))?;
    channel.request_subsystem(true, "sftp").await.map_err(|error| connection.no_channel(&error))?;
    let config =
        Config { max_concurrent_writes: WRITES, max_write_packet_len: WRITE, request_timeout_secs: REQUEST_SECONDS, ..Config::default() };
    let session = tokio::time::timeout(Duration::from_secs(20), SftpSession::new_with_config(channel.into_stream(), config)).await;
    match session {
        Ok(Ok(session)) => Ok(Some(session)),
        problem => {
            tracing::debug!("no sftp: {:?}", problem.map(|session| session.err().map(|error| error.to_string())));
            Ok(None)
        }
    }
}

fn lost(why: &str) -> Failure {
    Failure::new(FailureClass::Tcp, why)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FailureClass::StepFailed, format!("cannot read `{}` on the controller", path.display())).because(error.to_string())
}
