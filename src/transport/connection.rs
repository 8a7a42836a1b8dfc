//! One SSH connection: its channels and its end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::client::{self, DisconnectReason, Handle};
use russh::keys::PublicKeyOrCertificate;
use russh::{ChannelOpenFailure, Disconnect, Pty};

use super::counted::Sent;
use super::host_keys::HostCheck;
use super::shell_channel::ShellChannel;
use crate::diagnostic::{Failure, FailureClass};

/// A terminal that passes bytes on as they are: no echo, no line editing (which would limit the
/// length of lines), no signals by bytes, no translation of line ends.
const RAW: &[(Pty, u32)] = &[
    (Pty::ECHO, 0),
    (Pty::ICANON, 0),
    (Pty::ISIG, 0),
    (Pty::IEXTEN, 0),
    (Pty::OPOST, 0),
    (Pty::ICRNL, 0),
    (Pty::INLCR, 0),
    (Pty::IGNCR, 0),
    (Pty::IXON, 0),
    (Pty::IXOFF, 0),
];

/// What a connection is told about its end. Shared with the handler that russh runs.
#[derive(Clone, Default)]
pub(super) struct Ending(Arc<Mutex<Option<String>>>);

impl Ending {
    fn set(&self, why: String) {
        let mut ending = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ending.get_or_insert(why);
    }

    pub(super) fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// What russh calls back.
pub(super) struct Client {
    pub(super) ending: Ending,
    pub(super) check: Arc<HostCheck>,
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(self.check.accepts(key))
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        self.ending.set(match reason {
            DisconnectReason::ReceivedDisconnect(info) => format!("the host closed the connection: {}", info.message),
            DisconnectReason::Error(russh::Error::KeepaliveTimeout | russh::Error::InactivityTimeout) => {
                "the host stopped answering".to_owned()
            }
            DisconnectReason::Error(error) => error.to_string(),
        });
        Ok(())
    }
}

/// A connection that is logged in, with the connections it goes through.
pub(super) struct Connection {
    pub(super) handle: Handle<Client>,
    pub(super) ending: Ending,
    /// The jump host that is the host's neighbour.
    pub(super) jump: Option<(Handle<Client>, Ending)>,
    /// Other jump hosts and proxy commands that carry this one; they live as long.
    pub(super) carriers: Vec<Box<dyn std::any::Any + Send + Sync>>,
    /// What was sent on the way's first stretch.
    pub(super) sent: Sent,
}

impl Connection {
    /// A channel on which a command runs, with or without a terminal. The command is sent at once;
    /// whether the server starts it shows on the channel.
    ///
    /// # Errors
    /// The server opens no channel.
    pub(super) async fn shell(&self, command: &str, terminal: bool) -> Result<ShellChannel, Failure> {
        let channel = self.handle.channel_open_session().await.map_err(|error| self.no_channel(&error))?;
        if terminal {
            channel.request_pty(false, "dumb", 80, 24, 0, 0, RAW).await.map_err(|error| self.no_channel(&error))?;
        }
        channel.exec(true, command).await.map_err(|error| self.no_channel(&error))?;
        Ok(ShellChannel::ssh(channel, terminal))
    }

    pub(super) fn no_channel(&self, error: &russh::Error) -> Failure {
        match error {
            russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited) => {
                Failure::new(FailureClass::Auth, "the server lets the user log in, but opens no channel")
                    .hint("look at `PermitTTY`, `AllowTcpForwarding` and `MaxSessions` in the host's sshd_config")
            }
            russh::Error::ChannelOpenFailure(_) => Failure::new(FailureClass::Tcp, "the server opens no further channel")
                .hint("raise `MaxSessions` in the host's sshd_config to 4 or more"),
            error => {
                Failure::new(FailureClass::Tcp, "the connection was lost").because(self.ending.get().unwrap_or_else(|| error.to_string()))
            }
        }
    }

    /// Why the connection was closed, if it is. The reason may come a moment after the end.
    pub(super) async fn why_closed(&self) -> Option<String> {
        for _ in 0..10 {
            if let Some(reason) = self.ending.get() {
                return Some(reason);
            }
            if !self.handle.is_closed() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        self.ending.get()
    }

    /// Bytes handed to the kernel so far, where nothing but the network lies between it and the host.
    pub(super) fn sent(&self) -> Option<u64> {
        (self.carriers.is_empty() && self.jump.is_none()).then(|| self.sent.bytes())
    }

    /// Says goodbye; does not wait for an answer.
    pub(super) async fn disconnect(&self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "");
        let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
    }
}
