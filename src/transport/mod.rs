//! The transport: connections to hosts, one privileged shell on each, scripts on its stdin.

mod access;
mod auth;
mod capture;
mod connection;
mod connector;
mod counted;
mod dial;
mod download;
mod frame;
mod hop;
mod host_keys;
mod keys;
mod known_hosts;
mod pump;
mod session;
mod shell_channel;
mod ssh_config;
mod sudo;
#[cfg(test)]
mod tests;
mod tunnel;
mod upload;

use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

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
    /// The host was made anew: learn the one key that it shows first, in place of those that are
    /// pinned; after that as [`HostKeyPolicy::Strict`].
    ExpectNew,
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
    /// Runs even after [`Session::stop`]: what a run must still write down.
    pub unstoppable: bool,
    /// Under this name (letters, digits, `-`) the shell records in [`RECORDS`] that the frame began and,
    /// later, its status, so that a connection made anew can tell.
    pub record: Option<String>,
    /// How much of stdout to keep, in bytes: the head and the tail. More is drained and dropped.
    pub keep: usize,
}

/// Where a host keeps what is recorded of frames and of surviving steps, until the next boot.
pub const RECORDS: &str = "/run/soc-provision/steps";

impl Frame {
    /// A frame that runs regardless of others, for 60 seconds at most.
    #[must_use]
    pub fn new(script: Script) -> Self {
        Self {
            script,
            deadline: Duration::from_secs(60),
            block: None,
            in_shell: false,
            user: None,
            unstoppable: false,
            record: None,
            keep: 1 << 20,
        }
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
    /// A secret that it may hold could not be opened and is not masked: for machines only.
    pub unfit_to_show: bool,
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

pub use connector::{Connector, Controller};
pub use download::{Download, DownloadError, Received, Sink};
pub use host_keys::fingerprint_of_line;
pub use keys::Ask;
pub use session::{PendingReply, Session};

/// A byte stream in both directions.
pub trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}
