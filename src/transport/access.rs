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
    /// What could go inside the command did.
    pub(super) inside: bool,
}

/// What is said to a shell first.
pub(super) trait FirstWords {
    /// What may travel inside the command that starts the shell. It holds no secrets.
    fn inside(&self) -> Option<Zeroizing<String>>;
    /// What is written to its standard input: on a terminal (`merged`) or not, and with
    /// [`FirstWords::inside`] done already or not.
    fn after(&self, merged: bool, inside: bool) -> Zeroizing<String>;
}

impl FirstWords for &str {
    fn inside(&self) -> Option<Zeroizing<String>> {
        None
    }

    fn after(&self, _: bool, _: bool) -> Zeroizing<String> {
        Zeroizing::new((*self).to_owned())
    }
}

impl Access {
    pub(super) fn new(link: Link, privilege: Privilege, root_login: bool) -> Self {
        Self { link, privilege, root_login, terminal: AtomicBool::new(false) }
    }

    /// Whether privileged shells are on a terminal here, which changes bytes on their way.
    pub(super) fn needs_terminal(&self) -> bool {
        self.terminal.load(Ordering::Relaxed)
    }

    /// Opens a shell, waits for its greeting, and writes what is to be written first.
    ///
    /// # Errors
    /// No channel, no shell, no privilege.
    pub(super) async fn open(&self, words: &impl FirstWords) -> Result<Opened, Failure> {
        loop {
            let terminal = self.terminal.load(Ordering::Relaxed);
            match self.try_open(terminal, words).await {
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

    async fn try_open(&self, terminal: bool, words: &impl FirstWords) -> Result<Opened, Refusal> {
        let start = Start::new(&self.privilege, self.root_login);
        let command = start.command(words.inside().as_ref().map(|text| text.as_str()), terminal);
        let mut shell = match &self.link {
            Link::Local => ShellChannel::local(&command)
                .map_err(|error| Refusal::Failed(Failure::new(FailureClass::Bug, format!("cannot start `/bin/sh`: {error}"))))?,
            Link::Ssh(connection) => connection.shell(&command, terminal).await.map_err(Refusal::Failed)?,
        };
        let greeting = start.greet(&mut shell).await?;
        let inside = greeting.inside;
        if shell.writer.send(words.after(shell.merged, inside).as_bytes()).await.is_err() {
            tracing::debug!("the shell closed its input");
        }
        Ok(Opened { shell, greeting, inside })
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

    /// Bytes handed to the network so far, where that can be known.
    pub(super) fn sent(&self) -> Option<u64> {
        match &self.link {
            Link::Ssh(connection) => connection.sent(),
            Link::Local => None,
        }
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
        let work = async {
            let mut opened = self.open(&line).await?;
            opened.shell.writer.end().await;
            while opened.shell.reader.next().await.is_some() {}
            Ok(())
        };
        tokio::time::timeout(SECOND_SHELL, work).await.unwrap_or_else(|_| Err(sudo::silent(SECOND_SHELL)))
    }
}
