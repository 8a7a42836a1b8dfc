//! TCP connections from the host, for health checks of ports that only it can reach.

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
}

fn unanswered(address: &str, port: u16) -> Failure {
    Failure::new(FailureClass::Unhealthy, format!("no TCP connection from the host to `{address}:{port}`"))
}
