//! From nothing to a connection that is logged in: names, TCP, jump hosts, the SSH handshake.
//!
//! All of it within one time limit, which stands still only while this program makes its own
//! logins wait for each other.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::client::{self, Handle};
use russh::{Preferred, cipher, kex, mac};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Stream;
use super::auth::{self, NoLogin};
use super::connection::{Client, Connection, Ending};
use super::counted::{Counted, Sent};
use super::hop::{Hop, Route};
use super::host_keys::HostCheck;
use super::keys::Keys;
use crate::diagnostic::{Failure, FailureClass, printable};

/// Logins under way at a time to one address: OpenSSH starts to drop them beyond ten.
const LOGINS: usize = 4;
/// How long an address may keep the next one waiting (RFC 8305, "happy eyeballs").
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// Keepalives break a connection whose peer is gone: after three of them, or four if it takes no bytes.
const KEEPALIVES: u32 = 3;

/// How far a connection has come, for the message if time runs out.
#[derive(Clone, Debug)]
enum Stage {
    Name(String),
    Tcp(String),
    Handshake(String),
    Login(String),
    Shell(String),
}

/// The time limit of one connection.
pub(super) struct Clock {
    given: Duration,
    state: Mutex<(Instant, Stage)>,
}

impl Clock {
    pub(super) fn new(given: Duration) -> Self {
        Self { given, state: Mutex::new((Instant::now() + given, Stage::Name(String::new()))) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, (Instant, Stage)> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn enter(&self, stage: Stage) {
        self.state().1 = stage;
    }

    /// The login is done, the shell is to come.
    pub(super) fn logged_in(&self, hop: &Hop) {
        self.enter(Stage::Shell(hop.to_string()));
    }

    /// Runs something within the limit.
    ///
    /// # Errors
    /// Its own, or what was not done in time.
    pub(super) async fn limit<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::pin!(work);
        loop {
            let until = self.state().0;
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep_until(until) => if self.state().0 <= Instant::now() {
                    return Err(self.late());
                },
            }
        }
    }

    /// Waits for something that is not the host's fault.
    async fn aside<T>(&self, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let done = work.await;
        self.state().0 += start.elapsed();
        done
    }

    fn late(&self) -> Failure {
        let seconds = self.given.as_secs_f32();
        let tcp = |message: String| Failure::new(FailureClass::Tcp, message);
        match self.state().1.clone() {
            Stage::Name(name) => Failure::new(FailureClass::Dns, format!("no answer about the name `{name}` within {seconds} s"))
                .hint("look at the controller's /etc/resolv.conf, or set `ansible_host` to an address"),
            Stage::Tcp(place) => tcp(format!("no connection to `{place}` within {seconds} s"))
                .hint("is the host up, and does a firewall drop the port? `ansible_timeout` gives it longer"),
            Stage::Handshake(place) => tcp(format!("`{place}` accepts connections and says nothing for {seconds} s"))
                .hint("is it an SSH server (`ansible_port`), and is it overloaded?"),
            Stage::Login(place) => Failure::new(FailureClass::Auth, format!("the login to `{place}` was not done within {seconds} s"))
                .hint("the host's PAM or DNS may be slow (`UseDNS no`); `ansible_timeout` gives it longer"),
            Stage::Shell(place) => Failure::new(FailureClass::Sudo, format!("`{place}` let us in, but gave no shell within {seconds} s"))
                .hint("log in by hand and see what the login shell or `sudo` waits for; `ansible_timeout` gives it longer"),
        }
    }
}

/// Limits the logins under way, for each address.
#[derive(Default)]
pub(super) struct Gates(Mutex<HashMap<String, Arc<Semaphore>>>);

impl Gates {
    async fn pass(&self, address: &str, clock: &Clock) -> Option<OwnedSemaphorePermit> {
        let gate = {
            let mut gates = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            gates.entry(address.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(LOGINS))).clone()
        };
        clock.aside(gate.acquire_owned()).await.ok()
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoConnection {
    Failed(Failure),
    Locked(std::path::PathBuf),
    /// Closed before the login was done, as servers do that have too many at a time: worth
    /// another try.
    Dropped(Failure),
}

impl From<Failure> for NoConnection {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// How far to go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The host has proved to have its key; nothing was offered to it.
    HostKey,
    LoggedIn,
}

/// Takes the whole way.
///
/// # Errors
/// [`NoConnection`].
pub(super) async fn connect(route: &Route, keys: &Keys, gates: &Gates, clock: &Clock, until: Until) -> Result<Connection, NoConnection> {
    let mut carriers: Vec<Box<dyn std::any::Any + Send + Sync>> = Vec::new();
    let sent = Sent::default();
    let mut jump: Option<(Handle<Client>, Ending)> = None;
    let mut before: Option<(Handle<Client>, Ending, String)> = None;
    for (index, hop) in route.hops.iter().enumerate() {
        let place = format!("{}:{}", hop.address, hop.port);
        let via = before.as_ref().map_or(String::new(), |(.., place)| format!("{place}>"));
        let permit = gates.pass(&format!("{via}{place}"), clock).await;
        let stream: Box<dyn Stream> = match (before.take(), &route.command) {
            (Some((handle, ending, name)), _) => {
                clock.enter(Stage::Tcp(place.clone()));
                let stream = through(&handle, hop, &name).await?;
                if let Some(earlier) = jump.replace((handle, ending)) {
                    carriers.push(Box::new(earlier));
                }
                stream
            }
            (None, Some(command)) => {
                clock.enter(Stage::Tcp(place.clone()));
                let (stream, child) = proxy(command)?;
                carriers.push(Box::new(child));
                stream
            }
            (None, None) => Box::new(Counted::new(tcp(hop, &place, clock).await?, sent.clone())),
        };
        clock.enter(Stage::Handshake(place.clone()));
        let ending = Ending::default();
        let mut handle = handshake(stream, hop, &place, &ending).await?;
        if until == Until::HostKey && index + 1 == route.hops.len() {
            return Ok(Connection { handle, ending, jump, carriers, sent });
        }
        clock.enter(Stage::Login(hop.to_string()));
        match auth::login(&mut handle, hop, keys).await {
            Ok(()) => {}
            Err(NoLogin::Locked(path)) => return Err(NoConnection::Locked(path)),
            Err(NoLogin::Failed(failure)) => return Err(NoConnection::Failed(failure)),
            Err(NoLogin::Dropped) => {
                let why = ending.get().unwrap_or_else(|| "it closed the connection".to_owned());
                return Err(NoConnection::Dropped(
                    Failure::new(FailureClass::Auth, format!("`{hop}` ended the login"))
                        .because(printable(&why))
                        .hint("the host's log says why: `journalctl -u ssh`"),
                ));
            }
        }
        drop(permit);
        before = Some((handle, ending, place));
    }
    let Some((handle, ending, _)) = before else {
        return Err(NoConnection::Failed(Failure::new(FailureClass::Bug, "a way of no hops")));
    };
    Ok(Connection { handle, ending, jump, carriers, sent })
}

/// A connection through a jump host.
async fn through(handle: &Handle<Client>, hop: &Hop, jump: &str) -> Result<Box<dyn Stream>, Failure> {
    match handle.channel_open_direct_tcpip(&hop.address, u32::from(hop.port), "127.0.0.1", 0).await {
        Ok(channel) => Ok(Box::new(channel.into_stream())),
        Err(error) => {
            let failure = Failure::new(FailureClass::Tcp, format!("the jump host `{jump}` cannot reach `{}:{}`", hop.address, hop.port))
                .because(error.to_string());
            Err(match error {
                russh::Error::ChannelOpenFailure(russh::ChannelOpenFailure::AdministrativelyProhibited) => {
                    failure.hint("set `AllowTcpForwarding yes` in the jump host's sshd_config")
                }
                _ => failure.hint("is the host up, and is its name known on the jump host?"),
            })
        }
    }
}

/// A command whose standard input and output are the connection.
fn proxy(command: &str) -> Result<(Box<dyn Stream>, tokio::process::Child), Failure> {
    let failed = |why: String| Failure::new(FailureClass::Tcp, format!("the proxy command `{command}` does not start")).because(why);
    let mut child = tokio::process::Command::new("/bin/sh")
        .args(["-c", &format!("exec {command}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    match (child.stdout.take(), child.stdin.take()) {
        (Some(out), Some(input)) => Ok((Box::new(tokio::io::join(out, input)), child)),
        _ => Err(failed("it has no standard input and output".to_owned())),
    }
}

/// Resolves a name and tries its addresses, each a little after the one before.
async fn tcp(hop: &Hop, place: &str, clock: &Clock) -> Result<TcpStream, Failure> {
    clock.enter(Stage::Name(hop.address.clone()));
    let unknown = |why: String| {
        Failure::new(FailureClass::Dns, format!("the name `{}` is not known", hop.address))
            .because(why)
            .hint("correct the host's name, or set `ansible_host` to an address")
    };
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host((hop.address.as_str(), hop.port)).await.map_err(|error| unknown(error.to_string()))?.collect();
    clock.enter(Stage::Tcp(place.to_owned()));
    let mut attempts = tokio::task::JoinSet::new();
    let (mut rest, mut problems) = (interleaved(found).into_iter(), Vec::new());
    loop {
        match rest.next() {
            Some(address) => {
                let keepalive = hop.keepalive;
                drop(attempts.spawn(async move { (address, dial(address, keepalive).await) }));
            }
            None if attempts.is_empty() => break,
            None => {}
        }
        let wait = if rest.len() > 0 { NEXT_ADDRESS } else { Duration::from_secs(86_400) };
        match tokio::time::timeout(wait, attempts.join_next()).await {
            Ok(Some(Ok((_, Ok(stream))))) => return Ok(stream),
            Ok(Some(Ok((address, Err(error))))) => problems.push(format!("{address}: {error}")),
            Ok(Some(Err(_)) | None) | Err(_) => {}
        }
    }
    if problems.is_empty() {
        return Err(unknown("it has no address".to_owned()));
    }
    let mut failure = Failure::new(FailureClass::Tcp, format!("no connection to `{place}`"))
        .hint("is the host up, does `sshd` run there, and is the port right (`ansible_port`)?");
    failure.causes = problems;
    Err(failure)
}

/// IPv6 and IPv4 in turn, in the resolver's order.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut out = Vec::new();
    loop {
        match (one.next(), other.next()) {
            (None, None) => return out,
            (a, b) => out.extend(a.into_iter().chain(b)),
        }
    }
}

async fn dial(address: SocketAddr, keepalive: Duration) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Small frames must not wait for each other's acknowledgement.
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
    let limit = u32::try_from((keepalive * (KEEPALIVES + 1)).as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, limit);
    Ok(stream)
}

async fn handshake(stream: Box<dyn Stream>, hop: &Hop, place: &str, ending: &Ending) -> Result<Handle<Client>, NoConnection> {
    let check = Arc::new(HostCheck::new(&hop.key_name, hop.port, &hop.known_hosts, hop.host_keys));
    let config = Arc::new(config(hop, &check));
    let client = Client { ending: ending.clone(), check: check.clone() };
    let error = match client::connect_stream(config, stream, client).await {
        Ok(handle) => return Ok(handle),
        Err(error) => error,
    };
    if let Some(refusal) = check.refusal() {
        return Err(NoConnection::Failed(refusal));
    }
    let tcp = |message: &str| Failure::new(FailureClass::Tcp, format!("`{place}` {message}"));
    Err(match error {
        russh::Error::NoCommonAlgo { kind, theirs, .. } => NoConnection::Failed(
            tcp(&format!("and this program know no {kind:?} algorithm in common"))
                .because(format!("it offers {}", printable(&theirs.join(", "))))
                .hint("upgrade the host's OpenSSH, or allow old algorithms for this host"),
        ),
        russh::Error::Version => NoConnection::Failed(tcp("is not an SSH server").hint("is the port right (`ansible_port`)?")),
        russh::Error::IO(_) | russh::Error::HUP | russh::Error::Disconnect => NoConnection::Dropped(
            tcp("closes the connection before a login is possible")
                .because(error.to_string())
                .hint("too many logins at a time (`MaxStartups`), a ban (fail2ban), or something else than an SSH server"),
        ),
        error => NoConnection::Failed(tcp("breaks the SSH protocol").because(error.to_string())),
    })
}

fn config(hop: &Hop, check: &HostCheck) -> client::Config {
    let mut preferred = Preferred {
        key: check.algorithms(hop.legacy).into(),
        host_key_certificates: check.certificate_algorithms().into(),
        // With AES in hardware half the work of ChaCha20.
        cipher: vec![
            cipher::AES_256_GCM,
            cipher::AES_128_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_CTR,
            cipher::AES_192_CTR,
            cipher::AES_128_CTR,
        ]
        .into(),
        compression: vec![russh::compression::NONE].into(),
        ..Preferred::DEFAULT
    };
    if hop.legacy {
        let old = [kex::ECDH_SHA2_NISTP256, kex::ECDH_SHA2_NISTP384, kex::DH_GEX_SHA1, kex::DH_G14_SHA1];
        preferred.kex = preferred.kex.iter().copied().chain(old).collect::<Vec<_>>().into();
        preferred.mac = preferred.mac.iter().copied().chain([mac::HMAC_SHA1_ETM, mac::HMAC_SHA1]).collect::<Vec<_>>().into();
    }
    client::Config {
        client_id: russh::SshId::Standard(concat!("SSH-2.0-soc-provision_", env!("CARGO_PKG_VERSION")).into()),
        window_size: 4 << 20,
        preferred,
        keepalive_interval: Some(hop.keepalive),
        keepalive_max: KEEPALIVES as usize,
        inactivity_timeout: Some(hop.keepalive * (KEEPALIVES + 1)),
        nodelay: true,
        ..client::Config::default()
    }
}
