//! Becoming root: the command that starts a shell, and the first words with it, up to its
//! greeting. The password is sent only once `sudo` has asked for it, and only once.

use base64::Engine as _;
use zeroize::Zeroizing;

use super::shell_channel::{Chunk, ShellChannel};
use super::{Privilege, frame};
use crate::diagnostic::{Failure, FailureClass, printable};

/// How much is kept of what comes before the greeting, in bytes of each stream. What the first
/// frame prints may come with it.
const NOISE: usize = 256 << 10;
/// How much of it is shown in messages, in lines.
const SHOWN: usize = 12;

/// Most code that travels inside the command, in bytes: far from any login shell's limits.
const INSIDE: usize = 32 << 10;

/// How a shell is started on a host.
pub(super) struct Start {
    /// Marks the prompt and the greeting. It is in an argument list, so it is not the frames'.
    nonce: String,
    password: Option<Zeroizing<String>>,
    sudo: bool,
}

impl Start {
    /// A shell with this privilege. Root needs no `sudo`, which may not even be installed.
    pub(super) fn new(privilege: &Privilege, user_is_root: bool) -> Self {
        let (sudo, password) = match privilege {
            Privilege::Sudo { password } if !user_is_root => (true, password.clone()),
            _ => (false, None),
        };
        Self { nonce: frame::nonce(), password, sudo }
    }

    /// The command in plain words: any login shell (bash, dash, fish, tcsh) takes it alike.
    ///
    /// `first` is code to run at once: OpenSSH takes no input before the command has started, so
    /// what travels inside the command saves a round trip. `sudo` would write it to its log, so
    /// there it stays an argument of the shell around `sudo`, and root reads it from `/proc`. The
    /// greeting says how much of it has come (a host may lack `base64`). On a terminal the shell
    /// gets a pipe, since it would be interactive else.
    pub(super) fn command(&self, first: Option<&str>, terminal: bool) -> String {
        let nonce = &self.nonce;
        let sudo = match (self.sudo, &self.password) {
            (false, _) => String::new(),
            (true, None) => "sudo -H -n ".to_owned(),
            (true, Some(_)) => format!("sudo -H -S -p {nonce}: "),
        };
        let shell = if terminal { "cat | /bin/sh" } else { "exec /bin/sh" };
        let greet = |read: &str| format!("{read}echo; echo {nonce} hello $$ ${{#c}}; eval \"$c\"; {shell}");
        let Some(code) = first.filter(|code| code.len() <= INSIDE) else {
            return format!("exec {sudo}/bin/sh -c 'echo; echo {nonce} hello $$ 0; {shell}'");
        };
        let code = base64::engine::general_purpose::STANDARD.encode(code);
        if !self.sudo {
            return format!("exec /bin/sh -c '{}'", greet(&format!("c=$(echo {code} | base64 -d); ")));
        }
        let read = format!("c=$(tail -c {} /proc/$1/cmdline | head -c {} | base64 -d); ", code.len() + 1, code.len());
        format!("exec /bin/sh -c '{sudo}/bin/sh -c \"$1\" sh $$; exit $?' sh '{}' {code}", greet(&read))
    }

    /// Reads up to the greeting and answers `sudo`.
    ///
    /// # Errors
    /// No privilege, a login shell that starts nothing, or the end of the connection.
    pub(super) async fn greet(&self, shell: &mut ShellChannel) -> Result<Greeting, Refusal> {
        let mut heard = Heard::default();
        let mut asked = 0;
        loop {
            match shell.reader.next().await {
                Some(Chunk::Out(bytes)) => heard.push(&bytes, true),
                Some(Chunk::Err(bytes)) => heard.push(&bytes, false),
                Some(Chunk::Refused) => return Err(Refusal::Failed(refused(&heard))),
                None => return Err(self.ended(&heard, shell.reader.ending())),
            }
            if let Some((pid, inside, end)) = self.hello(&heard.out) {
                return Ok(Greeting { pid, inside, out: heard.out.split_off(end), err: heard.err });
            }
            let prompts = heard.count(&format!("{}:", self.nonce));
            if prompts > asked {
                asked = prompts;
                let Some(password) = self.password.as_ref().filter(|_| asked == 1) else {
                    return Err(Refusal::Failed(wrong_password()));
                };
                let line = Zeroizing::new(format!("{}\n", password.as_str()));
                shell.writer.send(line.as_bytes()).await.map_err(|error| Refusal::Failed(Failure::new(FailureClass::Sudo, error)))?;
            }
        }
    }

    /// The process id in the greeting, whether the code inside the command runs, and where the
    /// greeting ends.
    fn hello(&self, out: &[u8]) -> Option<(u32, bool, usize)> {
        let needle = format!("\n{} hello ", self.nonce);
        let start = out.windows(needle.len()).position(|window| window == needle.as_bytes())? + needle.len();
        let len = out[start..].iter().position(|byte| *byte == b'\n')?;
        let (pid, code) = std::str::from_utf8(&out[start..start + len]).ok()?.trim().split_once(' ')?;
        Some((pid.parse().ok()?, code != "0", start + len + 1))
    }

    /// What to make of a shell that ended without a greeting.
    fn ended(&self, heard: &Heard, ending: Option<&str>) -> Refusal {
        let said = heard.said(&self.nonce);
        let has = |text: &str| said.contains(text);
        if self.sudo && (has("must have a tty") || has("a terminal is required to")) && !has("a password is required") {
            return Refusal::NeedsTerminal;
        }
        if !self.sudo {
            return Refusal::Failed(no_shell(said, ending));
        }
        let (message, hint) = if has("a password is required") || has("no password was provided") {
            ("`sudo` asks for a password, and none was given", "ask for it with `-K`, or set `ansible_become_password` from a secret")
        } else if has("not in the sudoers") || has("may not run sudo") || has("is not allowed to") {
            (
                "the login user may not use `sudo`",
                "add a rule for the user under /etc/sudoers.d on the host, or log in as another user (`-u`)",
            )
        } else if has("incorrect password") || has("Sorry, try again") {
            return Refusal::Failed(wrong_password());
        } else if has("not found") || has("Unknown command") || has("No such file") {
            ("there is no `sudo` on the host", "install it there, or log in as root (`-u root`)")
        } else {
            ("`sudo` gave no shell", "try `sudo -S /bin/sh` by hand on the host")
        };
        let mut failure = Failure::new(FailureClass::Sudo, message).hint(hint);
        failure.causes.extend(ending.map(str::to_owned));
        failure.stderr = said;
        Refusal::Failed(failure)
    }
}

/// A shell has started.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) pid: u32,
    /// The code inside the command arrived whole and runs.
    pub(super) inside: bool,
    /// What came with the greeting and after it.
    pub(super) out: Vec<u8>,
    /// What came meanwhile on the other stream, before and after.
    pub(super) err: Vec<u8>,
}

/// Why there is no privileged shell.
#[derive(Debug)]
pub(super) enum Refusal {
    /// `requiretty`: worth another try on a terminal.
    NeedsTerminal,
    Failed(Failure),
}

/// A failure for a greeting that never came.
pub(super) fn silent(after: std::time::Duration) -> Failure {
    Failure::new(FailureClass::Tcp, format!("logged in, but no shell answered within {} s", after.as_secs()))
        .hint("log in by hand and see what the login shell waits for; `ansible_timeout` gives it longer")
}

fn wrong_password() -> Failure {
    Failure::new(FailureClass::Sudo, "`sudo` did not accept the password")
        .hint("give the right one with `-K` or `ansible_become_password`; it was tried once only, so no account was locked")
}

fn refused(heard: &Heard) -> Failure {
    let mut failure = Failure::new(FailureClass::Auth, "the server lets the user log in, but starts no commands")
        .hint("look for `ForceCommand`, `no-pty` or `command=` for this user or key on the host");
    failure.stderr = heard.said("");
    failure
}

fn no_shell(said: String, ending: Option<&str>) -> Failure {
    let mut failure = Failure::new(FailureClass::Auth, "the user logs in, but gets no shell")
        .hint("give the user a login shell on the host (`chsh -s /bin/sh`), or log in as another user (`-u`)");
    failure.causes.extend(ending.map(str::to_owned));
    failure.stderr = said;
    failure
}

/// What was heard so far, at most [`NOISE`] bytes of each stream.
#[derive(Default)]
struct Heard {
    out: Vec<u8>,
    err: Vec<u8>,
    /// Prompts may be seen on either stream: a terminal has only one.
    prompts: usize,
}

impl Heard {
    fn push(&mut self, bytes: &[u8], out: bool) {
        let stream = if out { &mut self.out } else { &mut self.err };
        stream.extend_from_slice(bytes);
        let excess = stream.len().saturating_sub(NOISE);
        stream.drain(..excess);
    }

    /// How often a prompt was seen; never less than before, although noise is forgotten.
    fn count(&mut self, prompt: &str) -> usize {
        let seen = |stream: &[u8]| String::from_utf8_lossy(stream).matches(prompt).count();
        self.prompts = self.prompts.max(seen(&self.out) + seen(&self.err));
        self.prompts
    }

    /// What was said, for a message: the last lines, made safe, without our own prompt.
    fn said(&self, nonce: &str) -> String {
        let both = [self.out.as_slice(), b"\n", &self.err].concat();
        let text = printable(&String::from_utf8_lossy(&both));
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
        if nonce.is_empty() { tail } else { tail.replace(&format!("{nonce}:"), "") }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A `sudo` of our own in a private directory, so that no account of this machine is needed.
    fn fake_sudo(body: &str) -> (tempfile::TempDir, String) {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sudo");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let prefix = format!("PATH={}:$PATH; export PATH; ", dir.path().display());
        (dir, prefix)
    }

    async fn greet(body: &str, password: Option<&str>) -> Result<Greeting, Refusal> {
        let (_dir, prefix) = fake_sudo(body);
        let password = password.map(|text| Zeroizing::new(text.to_owned()));
        let start = Start::new(&Privilege::Sudo { password }, false);
        let mut shell = ShellChannel::local(&(prefix + &start.command(Some("echo first words; : 'it'"), false))).unwrap();
        tokio::time::timeout(Duration::from_secs(20), start.greet(&mut shell)).await.unwrap()
    }

    /// Reads a password the way `sudo -S -p PROMPT` does.
    const ASKS: &str = r#"while [ "$1" != -p ]; do shift; done; prompt=$2; shift 2
        for i in 1 2 3; do printf %s "$prompt" >&2; read -r pw || exit 1; [ "$pw" = right ] && exec "$@"; echo Sorry, try again. >&2; done"#;
    /// Needs no password.
    const FREE: &str = r#"while [ "${1#-}" != "$1" ]; do [ "$1" = -p ] && shift; shift; done; echo noise; exec "$@""#;

    fn failure(result: Result<Greeting, Refusal>) -> Failure {
        match result {
            Err(Refusal::Failed(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_password_is_sent_when_asked_for_and_once() {
        assert!(greet(ASKS, Some("right")).await.unwrap().pid > 1);
        assert!(greet(FREE, Some("right")).await.unwrap().pid > 1);
        let greeting = greet(FREE, None).await.unwrap();
        assert!(greeting.pid > 1 && greeting.inside);
        let wrong = failure(greet(ASKS, Some("wrong")).await);
        assert_eq!((wrong.class, wrong.message.as_str()), (FailureClass::Sudo, "`sudo` did not accept the password"));
    }

    #[tokio::test]
    async fn refusals_say_what_to_do() {
        let needs = failure(greet("echo 'sudo: a password is required' >&2; exit 1", None).await);
        assert!(needs.message.contains("none was given") && needs.hint.unwrap().contains("-K"));
        let barred = failure(greet("echo 'eve is not in the sudoers file.' >&2; exit 1", None).await);
        assert!(barred.message.contains("may not use `sudo`"), "{barred:?}");
        let missing = failure(greet("echo 'sh: sudo: not found' >&2; exit 127", None).await);
        assert!(missing.message.contains("no `sudo`"), "{missing:?}");
        let tty = greet("echo 'sudo: sorry, you must have a tty to run sudo' >&2; exit 1", None).await;
        assert!(matches!(tty, Err(Refusal::NeedsTerminal)), "{tty:?}");
    }
}
