//! Makes sessions: the only way into the transport.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::access::{Access, Link};
use super::dial::{self, Clock, Gates, NoConnection, Until};
use super::hop::{self, Route, Surroundings};
use super::keys::{self, Ask, Keys};
use super::session::Opening;
use super::ssh_config::SshConfigs;
use super::{Frame, PendingReply, Session, Target, frame, sudo};
use crate::diagnostic::{Failure, FailureClass};

/// How often a connection is tried that the server drops before the login is done.
const TRIES: u32 = 4;
/// How many locked keys are asked for at most, for one host.
const QUESTIONS: usize = 3;

/// What a [`Connector`] takes from the controller. [`Controller::here`] is the real one.
pub struct Controller {
    /// Where `.ssh` is.
    pub home: PathBuf,
    /// The user who runs this, for hosts that name none.
    pub user: String,
    /// The socket of the user's ssh agent.
    pub agent: Option<PathBuf>,
    /// Where answers of `ssh -G` are kept between runs.
    pub cache: Option<PathBuf>,
    /// Asks the user for a passphrase.
    pub ask: Ask,
}

impl Controller {
    /// As the environment says: `HOME`, `USER`, `SSH_AUTH_SOCK`, `XDG_CACHE_HOME`.
    #[must_use]
    pub fn here() -> Self {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME").unwrap_or_else(|| PathBuf::from("/"));
        Self {
            user: ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_else(|| "root".to_owned()),
            agent: path("SSH_AUTH_SOCK"),
            cache: Some(path("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"))),
            home,
            ask: Arc::new(keys::ask_on_terminal),
        }
    }
}

/// Makes connections; holds what they share: keys, what `ssh -G` said, limits of logins at a
/// time. Cheap to clone.
#[derive(Clone)]
pub struct Connector(Arc<Inner>);

struct Inner {
    around: Surroundings,
    configs: SshConfigs,
    keys: Keys,
    gates: Gates,
}

impl Default for Connector {
    fn default() -> Self {
        Self::new(Controller::here())
    }
}

impl Connector {
    /// A connector for a run.
    #[must_use]
    pub fn new(controller: Controller) -> Self {
        let Controller { home, user, agent, cache, ask } = controller;
        let configs = SshConfigs::new(&home, cache.as_deref());
        let around = Surroundings { home, local_user: user, agent };
        Self(Arc::new(Inner { around, configs, keys: Keys::new(ask), gates: Gates::default() }))
    }

    /// Connects, logs in, becomes root, and waits for the shell's greeting: within the target's
    /// `connect_timeout`, not counting how long logins to one address wait for each other.
    ///
    /// # Errors
    /// One of the classes of an unreachable host, or [`FailureClass::Sudo`].
    pub async fn connect(&self, target: &Target) -> Result<Session, Failure> {
        Ok(self.open(target, None).await?.0)
    }

    /// As [`Connector::connect`], and sends a first frame, together with the command that starts
    /// the shell where that saves a round trip (root and plain logins). The frame may hold no
    /// secrets.
    ///
    /// # Errors
    /// As for [`Connector::connect`].
    pub async fn connect_with(&self, target: &Target, first: Frame) -> Result<(Session, PendingReply), Failure> {
        match self.open(target, Some(first)).await? {
            (session, Some(reply)) => Ok((session, reply)),
            (_, None) => Err(Failure::new(FailureClass::Bug, "the first frame was not sent")),
        }
    }

    /// Lets a host show its key and treats that as the target says (with
    /// [`AcceptNew`](super::HostKeyPolicy::AcceptNew): pins it), then hangs up. No key, password
    /// or user name is given to the host; jump hosts are logged in to.
    ///
    /// # Errors
    /// The host cannot be reached, or its key is refused.
    pub async fn learn_host_key(&self, target: &Target) -> Result<(), Failure> {
        let inner = &self.0;
        let route = hop::route(target, &inner.around, &inner.configs).await?;
        let clock = Clock::new(target.connect_timeout);
        let work = async {
            match dial::connect(&route, &inner.keys, &inner.gates, &clock, Until::HostKey).await {
                Ok(connection) => connection.disconnect().await,
                Err(NoConnection::Failed(failure) | NoConnection::Dropped(failure)) => return Err(failure),
                Err(NoConnection::Locked(path)) => {
                    return Err(Failure::new(FailureClass::Auth, format!("`{}` is encrypted", path.display()))
                        .hint("add the key to the agent: `ssh-add`"));
                }
            }
            Ok(())
        };
        clock.limit(work).await
    }

    async fn open(&self, target: &Target, first: Option<Frame>) -> Result<(Session, Option<PendingReply>), Failure> {
        let opening = Opening::new(first)?;
        if target.local {
            let access = Access::new(Link::Local, target.privilege.clone(), rustix::process::geteuid().is_root());
            return tokio::time::timeout(target.connect_timeout, opening.open(access))
                .await
                .unwrap_or_else(|_| Err(sudo::silent(target.connect_timeout)));
        }
        let inner = &self.0;
        let route = hop::route(target, &inner.around, &inner.configs).await?;
        let mut asked = 0;
        loop {
            let clock = Clock::new(target.connect_timeout);
            match clock.limit(inner.attempt(&route, target, opening.clone(), &clock)).await? {
                Attempt::Open(session, reply) => return Ok((*session, reply)),
                // Outside the time limit: people type slowly.
                Attempt::Locked(path) if asked < QUESTIONS => {
                    asked += 1;
                    inner.keys.unlock(&path).await;
                }
                Attempt::Locked(path) => {
                    return Err(Failure::new(FailureClass::Auth, format!("`{}` stays encrypted", path.display())));
                }
            }
        }
    }
}

enum Attempt {
    Open(Box<Session>, Option<PendingReply>),
    Locked(PathBuf),
}

impl Inner {
    async fn attempt(&self, route: &Route, target: &Target, opening: Opening, clock: &Clock) -> Result<Attempt, Failure> {
        let Some(last) = route.hops.last() else { return Err(Failure::new(FailureClass::Bug, "a way of no hops")) };
        let mut tries = 1;
        let connection = loop {
            match dial::connect(route, &self.keys, &self.gates, clock, Until::LoggedIn).await {
                Ok(connection) => break connection,
                Err(NoConnection::Locked(path)) => return Ok(Attempt::Locked(path)),
                Err(NoConnection::Failed(failure)) => return Err(failure),
                Err(NoConnection::Dropped(failure)) if tries >= TRIES => return Err(failure),
                Err(NoConnection::Dropped(failure)) => {
                    tracing::debug!("{failure}: once more");
                    tokio::time::sleep(jitter(tries)).await;
                    tries += 1;
                }
            }
        };
        clock.logged_in(last);
        let access = Access::new(Link::Ssh(connection), target.privilege.clone(), last.user == "root");
        let (session, reply) = opening.open(access).await?;
        Ok(Attempt::Open(Box::new(session), reply))
    }
}

/// Between 100 and 300 ms the first time, twice that each time after: hosts of one run that were
/// dropped together do not come back together.
fn jitter(tries: u32) -> Duration {
    let random = frame::nonce().bytes().fold(0_u64, |sum, byte| sum * 31 % 201 + u64::from(byte));
    Duration::from_millis((100 + random % 201) << (tries - 1))
}
