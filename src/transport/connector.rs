//! Makes sessions: the only way into the transport.

use std::sync::Arc;

use super::access::{Access, Link};
use super::session::Opening;
use super::{Frame, PendingReply, Session, Target, sudo};
use crate::diagnostic::{Failure, FailureClass};
use crate::secret::Vault;

/// Makes connections; holds what they share: keys, agent, limits of logins at a time. Cheap to
/// clone.
#[derive(Clone, Default)]
pub struct Connector {}

impl Connector {
    /// Connects, logs in, becomes root, and waits for the shell's greeting.
    ///
    /// # Errors
    /// One of the classes of an unreachable host, or [`FailureClass::Sudo`].
    pub async fn connect(&self, target: &Target) -> Result<Session, Failure> {
        Ok(self.open(target, None).await?.0)
    }

    /// As [`Connector::connect`], and sends a first frame, together with the login where that
    /// saves a round trip (root and plain logins). The frame may need no secrets.
    ///
    /// # Errors
    /// As for [`Connector::connect`].
    pub async fn connect_with(&self, target: &Target, first: Frame) -> Result<(Session, PendingReply), Failure> {
        match self.open(target, Some(first)).await? {
            (session, Some(reply)) => Ok((session, reply)),
            (_, None) => Err(Failure::new(FailureClass::Bug, "the first frame was not sent")),
        }
    }

    async fn open(&self, target: &Target, first: Option<Frame>) -> Result<(Session, Option<PendingReply>), Failure> {
        let opening = Opening::new(first, Arc::new(Vault::default()));
        if target.local {
            let access = Access::new(Link::Local, target.privilege.clone(), rustix::process::geteuid().is_root());
            return tokio::time::timeout(target.connect_timeout, opening.open(access))
                .await
                .unwrap_or_else(|_| Err(sudo::silent(target.connect_timeout)));
        }
        Err(Failure::new(FailureClass::Tcp, "ssh is not there yet"))
    }
}
