//! The transport: connections to hosts, one privileged shell on each, scripts on its stdin.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::diagnostic::Failure;
use crate::resource::plan::Upload;
use crate::secret::{Masker, Vault};
use crate::shell::Script;

/// Where a host is and how to get in.
#[derive(Clone, Debug)]
pub struct Target {
    /// The host's name in the inventory.
    pub host: String,
    /// `ansible_connection: local`: a shell on the controller.
    pub local: bool,
    /// Address or name to connect to.
    pub address: String,
    pub port: Option<u16>,
    pub user: Option<String>,
    /// Private keys to try before the agent's and the user's default ones.
    pub identity_files: Vec<PathBuf>,
    /// Login password, if one was given.
    pub password: Option<Zeroizing<String>>,
    /// Jump hosts, in order, `user@host:port`; `None`: as `ssh -G` says.
    pub proxy_jump: Option<Vec<String>>,
    /// A command whose stdin and stdout are the connection.
    pub proxy_command: Option<String>,
    /// The inventory's `known_hosts`, searched before the user's.
    pub known_hosts: Vec<PathBuf>,
    pub host_keys: HostKeyPolicy,
    pub privilege: Privilege,
    pub connect_timeout: Duration,
    /// Whether `ssh -G` is asked for the user's own configuration of this host.
    pub use_ssh_config: bool,
    /// Allow old algorithms (SHA-1, NIST curves).
    pub legacy: bool,
}

/// What to do about a host whose key is in no `known_hosts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKeyPolicy {
    /// Refuse.
    Strict,
    /// Learn it, and pin it in the inventory's `known_hosts`.
    AcceptNew,
}

/// How to become root on the host.
#[derive(Clone, Debug)]
pub enum Privilege {
    /// The login user is used as it is (root, or no `become`).
    AsLogin,
    /// `sudo`, with the password where one is known.
    Sudo { password: Option<Zeroizing<String>> },
}

/// One script to run on a host's privileged shell.
#[derive(Clone, Debug)]
pub struct Frame {
    pub script: Script,
    /// From the moment it is the shell's turn.
    pub deadline: Duration,
    /// Skipped on the host if an earlier frame of the same block failed. `None`: runs regardless.
    pub block: Option<u32>,
    /// Run in the shell itself, not in a subshell: for the lock's descriptor.
    pub in_shell: bool,
    /// Run as this user, by `runuser`.
    pub user: Option<String>,
    /// How much of stdout to keep, in bytes: the head and the tail. More is drained and dropped.
    pub keep: usize,
}

impl Frame {
    /// A frame that runs regardless of others, for 60 seconds at most.
    #[must_use]
    pub fn new(script: Script) -> Self {
        Self { script, deadline: Duration::from_secs(60), block: None, in_shell: false, user: None, keep: 1 << 20 }
    }
}

/// What a frame printed and how it ended.
#[derive(Clone, Debug, Default)]
pub struct Output {
    pub status: i32,
    /// Secrets masked.
    pub stdout: Vec<u8>,
    /// Secrets masked.
    pub stderr: Vec<u8>,
    /// Bytes were dropped from the middle of stdout.
    pub truncated: bool,
    /// Not run, because an earlier frame of its block failed or the run was stopped.
    pub skipped: bool,
}

/// Why a frame has no output.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// The connection is gone; whether the frame ran is not known.
    #[error("connection lost: {0}")]
    Lost(String),
    /// It took longer than its deadline; it was killed, and the session is closed.
    #[error("no end after {0:?}")]
    Deadline(Duration),
    /// A secret is not in the vault.
    #[error(transparent)]
    Missing(#[from] crate::secret::MissingSecret),
}

pub use stub::{Connector, PendingReply, Session};

/// Replaced by the real thing.
mod stub {
    use super::*;

    /// Makes connections; holds what they share: keys, agent, limits of logins at a time.
    #[derive(Default)]
    pub struct Connector {}

    impl Connector {
        /// Connects, logs in, becomes root, and waits for the shell's greeting.
        pub async fn connect(&self, _target: &Target) -> Result<Session, Failure> {
            unimplemented!()
        }
    }

    /// A privileged shell on a host.
    pub struct Session {}

    /// A frame that was sent and not answered yet.
    pub struct PendingReply {}

    impl PendingReply {
        /// Waits for the answer.
        pub async fn wait(self) -> Result<Output, SessionError> {
            unimplemented!()
        }
    }

    impl Session {
        /// Sends a frame without waiting for its answer; waits only while 8 frames or 256 KiB are
        /// unanswered (DESIGN 8.4). Frames run in the order sent.
        pub async fn submit(&self, _frame: Frame) -> Result<PendingReply, SessionError> {
            unimplemented!()
        }

        /// Sends a frame and waits for its answer.
        pub async fn run(&self, frame: Frame) -> Result<Output, SessionError> {
            self.submit(frame).await?.wait().await
        }

        /// Times the caller waited for the host since the shell was open. Waiting for a frame that
        /// was sent before an earlier wait ended costs nothing: it travelled with that one.
        pub fn round_trips(&self) -> usize {
            unimplemented!()
        }

        /// Lets a failed block's later frames run again is never needed: blocks have new numbers.
        /// The next unused block number.
        pub fn new_block(&self) -> u32 {
            unimplemented!()
        }

        /// Sends a file by SFTP (or `cat`, where there is none) and verifies it on the host.
        pub async fn upload(&self, _upload: &Upload, _progress: &(dyn Fn(u64) + Send + Sync)) -> Result<(), Failure> {
            unimplemented!()
        }

        /// A TCP connection from the host.
        pub async fn tunnel(&self, _address: &str, _port: u16) -> Result<Box<dyn Stream>, Failure> {
            unimplemented!()
        }

        /// Frames that have not started are skipped from now on; the one under way goes on.
        pub async fn stop(&self) {
            unimplemented!()
        }

        /// Kills the frame under way and closes.
        pub async fn kill(&self) {
            unimplemented!()
        }

        /// Holes are filled from this vault from now on, and output is masked with its masker.
        pub fn set_vault(&self, _vault: Arc<Vault>, _masker: Masker) {
            unimplemented!()
        }

        /// Ends the shell and the connection.
        pub async fn close(&self) {
            unimplemented!()
        }
    }
}

/// A byte stream in both directions.
pub trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}
