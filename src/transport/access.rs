//! How shells are opened on a host: the first one, and further ones to stop or kill what the
//! first one runs. Owns the connection; knows nothing of frames.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zeroize::Zeroizing;

use super::Privilege;
use super::connection::Connection;
use super::shell_channel::ShellChannel;
use super::sudo::{self, Greeting, Refusal, Start};
use crate::diagnostic::{Failure, FailureClass};

/// How long stopping and killing may take to get a shell of their own.
const SECOND_SHELL: Duration = Duration::from_secs(10);

/// Where shells run.
pub(super) enum Link {
    /// On the controller.
    Local,
    /// On a host.
    Ssh(Connection),
}

/// A host that can be worked on.
pub(super) struct Access {
    pub(super) link: Link,
    privilege: Privilege,
    /// The user that logs in is root.
    pub(super) root_login: bool,
    /// `sudo` insists on a terminal here.
    terminal: AtomicBool,
}

/// A shell that has said hello.
pub(super) struct Opened {
    pub(super) shell: ShellChannel,
    pub(super) greeting: Greeting,
}

impl Access {
    pub(super) fn new(link: Link, privilege: Privilege, root_login: bool) -> Self {
        Self { link, privilege, root_login, terminal: AtomicBool::new(false) }
    }

    /// Whether the login user cannot write what the shell can.
    pub(super) fn needs_staging(&self) -> bool {
        !self.root_login && matches!(self.privilege, Privilege::Sudo { .. })
    }

    /// Opens a shell and waits for its greeting. `ahead` is written with the command where nobody
    /// can take it for a password, else right after the greeting.
    ///
    /// # Errors
    /// No channel, no shell, no privilege.
    pub(super) async fn open(&self, ahead: &Zeroizing<String>, merged_ahead: &Zeroizing<String>) -> Result<Opened, Failure> {
        loop {
            let terminal = self.terminal.load(Ordering::Relaxed);
            match self.try_open(terminal, if terminal { merged_ahead } else { ahead }).await {
                Ok(opened) => return Ok(opened),
                Err(Refusal::NeedsTerminal) if !terminal && matches!(self.link, Link::Ssh(_)) => {
                    self.terminal.store(true, Ordering::Relaxed);
                }
                Err(Refusal::NeedsTerminal) => {
                    return Err(Failure::new(FailureClass::Sudo, "`sudo` insists on a terminal")
                        .hint("remove `requiretty` for this user from the host's sudoers"));
                }
                Err(Refusal::Failed(failure)) => return Err(failure),
            }
        }
    }

    async fn try_open(&self, terminal: bool, ahead: &Zeroizing<String>) -> Result<Opened, Refusal> {
        let start = Start::new(&self.privilege, self.root_login);
        let mut shell = match &self.link {
            Link::Local => ShellChannel::local(&start.command())
                .map_err(|error| Refusal::Failed(Failure::new(FailureClass::Bug, format!("cannot start `/bin/sh`: {error}"))))?,
            Link::Ssh(connection) => connection.shell(&start.command(), terminal).await.map_err(Refusal::Failed)?,
        };
        let early = !start.may_prompt();
        if early {
            write(&mut shell, ahead).await?;
        }
        let greeting = start.greet(&mut shell).await?;
        if !early {
            write(&mut shell, ahead).await?;
        }
        Ok(Opened { shell, greeting })
    }

    /// Why the shell is gone, as far as anyone said.
    pub(super) async fn why_lost(&self, ending: Option<&str>) -> String {
        if let Link::Ssh(connection) = &self.link
            && let Some(reason) = connection.why_closed().await
        {
            return reason;
        }
        ending.map_or_else(|| "the shell ended".to_owned(), |ending| format!("the shell ended with {ending}"))
    }

    /// Closes the connection.
    pub(super) async fn disconnect(&self) {
        if let Link::Ssh(connection) = &self.link {
            connection.disconnect().await;
        }
    }

    /// Runs a line in a shell of its own, with the same privilege. Best effort: the connection may
    /// be the reason why it is needed.
    pub(super) async fn aside(&self, line: &str) -> Result<(), Failure> {
        let line = Zeroizing::new(line.to_owned());
        let work = async {
            let mut opened = self.open(&line, &line).await?;
            opened.shell.writer.end().await;
            while opened.shell.reader.next().await.is_some() {}
            Ok(())
        };
        tokio::time::timeout(SECOND_SHELL, work).await.unwrap_or_else(|_| Err(sudo::silent(SECOND_SHELL)))
    }
}

/// Writes to a shell whose greeting may never come: a small text fits any window, so this does not
/// wait, and a shell that is gone is reported by its end.
async fn write(shell: &mut ShellChannel, text: &str) -> Result<(), Refusal> {
    if !text.is_empty() && shell.writer.send(text.as_bytes()).await.is_err() {
        tracing::debug!("the shell closed its input");
    }
    Ok(())
}
