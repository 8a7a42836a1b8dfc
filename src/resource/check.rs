//! Health checks: what must hold once everything was applied.

use std::time::Duration;

use crate::shell::Script;

/// One health check.
#[derive(Clone, Debug)]
pub struct Check {
    /// What it is called in reports: `http[https://localhost:9200/]`.
    pub id: String,
    /// What it looks at.
    pub kind: CheckKind,
    /// How long to keep trying before it has failed.
    pub within: Duration,
    /// How long between tries.
    pub every: Duration,
    /// How long one try may take before it is ended and counts as failed.
    pub each: Duration,
}

impl Check {
    /// How long one try may take unless the check says otherwise.
    pub const EACH: Duration = Duration::from_secs(15);
}

/// Where a network check connects from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vantage {
    /// Through the SSH connection, from the host to itself or to what it reaches.
    Host,
    /// From the controller, straight at the host's address.
    Outside,
}

/// What a check looks at.
#[derive(Clone, Debug)]
pub enum CheckKind {
    /// An HTTP or HTTPS GET.
    Http {
        url: String,
        /// Accepted status codes.
        status: Vec<u16>,
        /// Text that the body must contain.
        contains: Option<String>,
        /// For HTTPS: whether the certificate is verified (`false`, or by the CA in PEM).
        verify_tls: bool,
        ca_pem: Option<String>,
        from: Vantage,
    },
    /// A TCP connection that is accepted.
    Tcp { address: String, port: u16, from: Vantage },
    /// A TCP connection that must not be accepted.
    PortClosed { address: String, port: u16, from: Vantage },
    /// A command on the host that exits 0 (and prints the text, if one is given).
    Command { script: Script, contains: Option<String> },
    /// A container, or all services of a Compose project, that run and are healthy where they
    /// have a health check.
    ContainerHealthy { project: Option<String>, container: Option<String> },
}
