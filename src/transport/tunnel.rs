//! TCP connections for health checks: from the host, of ports that only it can reach, and from outside of it.

use std::time::Duration;

use super::Stream;
use super::access::Link;
use super::session::Session;
use crate::diagnostic::{Failure, FailureClass};

impl Session {
    /// A TCP connection from the host.
    ///
    /// # Errors
    /// Nobody answers there, or the server forbids forwarding.
    pub async fn tunnel(&self, address: &str, port: u16) -> Result<Box<dyn Stream>, Failure> {
        match &self.access.link {
            Link::Local => match tokio::net::TcpStream::connect((address, port)).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) => Err(unanswered(address, port).because(error.to_string())),
            },
            Link::Ssh(connection) => {
                let open = connection.handle.channel_open_direct_tcpip(address, u32::from(port), "127.0.0.1", 0);
                let channel = tokio::select! {
                    channel = open => channel,
                    () = self.ended() => return Err(Failure::new(FailureClass::Tcp, "the connection was lost")),
                };
                match channel {
                    Ok(channel) => Ok(Box::new(channel.into_stream())),
                    Err(russh::Error::ChannelOpenFailure(russh::ChannelOpenFailure::AdministrativelyProhibited)) => {
                        Err(unanswered(address, port)
                            .because("the server forbids forwarding")
                            .hint("set `AllowTcpForwarding local` for this user in the host's sshd_config"))
                    }
                    Err(error) => Err(unanswered(address, port).because(error.to_string())),
                }
            }
        }
    }

    /// A TCP connection from outside of the host: from its jump host, if there is one, since the controller may have
    /// no way to its network; otherwise from the controller.
    ///
    /// # Errors
    /// Why there is none, within five seconds.
    pub async fn from_outside(&self, address: &str, port: u16) -> Result<Box<dyn Stream>, String> {
        let jump = match &self.access.link {
            Link::Ssh(connection) => connection.jump.as_ref().map(|(handle, _)| handle),
            Link::Local => None,
        };
        let connecting = async {
            let stream: Box<dyn Stream> = match jump {
                Some(jump) => {
                    let channel = jump.channel_open_direct_tcpip(address, u32::from(port), "127.0.0.1", 0).await;
                    Box::new(channel.map_err(|error| format!("from the jump host: {error}"))?.into_stream())
                }
                None => Box::new(tokio::net::TcpStream::connect((address, port)).await.map_err(|error| error.to_string())?),
            };
            Ok(stream)
        };
        tokio::time::timeout(PATIENCE, connecting).await.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
    }
}

/// How long a connection from outside may take.
const PATIENCE: Duration = Duration::from_secs(5);

fn unanswered(address: &str, port: u16) -> Failure {
    Failure::new(FailureClass::Unhealthy, format!("no TCP connection from the host to `{address}:{port}`"))
}
