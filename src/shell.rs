//! Shell text: the only place that builds it.
//!
//! A [`Script`] is POSIX `sh` code in which every dynamic word has been quoted and every file
//! content travels as base64 (a builtin `printf` feeds it, so it is in no argument list). Secrets
//! are holes in payloads until the transport fills them.

use base64::Engine as _;
use zeroize::Zeroizing;

use crate::secret::{MissingSecret, SecretName, Text, Vault};

/// Quotes one word for POSIX `sh`.
#[must_use]
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '@' | ',' | '+' | '%');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Piece {
    Code(String),
    /// A shell pipeline that prints the text: `printf %s BASE64 | base64 -d`.
    Payload(Text),
    /// The same for bytes that are no text.
    Bytes(Vec<u8>),
    /// `eval '...'`: a script of its own, whose syntax errors stay inside.
    Eval(Script),
    /// `printf %s '...'`: a script as the input of another shell, in no argument list.
    Fed(Script),
}

/// POSIX `sh` code, possibly with payloads that contain secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Script {
    pieces: Vec<Piece>,
}

impl Script {
    /// An empty script.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Fixed code, and each `{}` in it replaced by the next word, quoted.
    ///
    /// # Panics
    /// In debug builds, if the number of `{}` differs from the number of words.
    #[must_use]
    pub fn sh(code: &'static str, words: &[&str]) -> Self {
        Self::new().then(code, words)
    }

    /// Appends code as [`Script::sh`] does.
    #[must_use]
    pub fn then(mut self, code: &'static str, words: &[&str]) -> Self {
        debug_assert_eq!(code.matches("{}").count(), words.len(), "words for `{code}`");
        let mut out = String::with_capacity(code.len() + words.iter().map(|word| word.len() + 2).sum::<usize>());
        let mut words = words.iter();
        for (index, fixed) in code.split("{}").enumerate() {
            if index > 0 {
                out.push_str(&quote(words.next().copied().unwrap_or_default()));
            }
            out.push_str(fixed);
        }
        self.push(out);
        self
    }

    /// Appends code that the user wrote (`command:`), as it is, on lines of its own.
    #[must_use]
    pub fn user_code(mut self, code: &str) -> Self {
        self.push(format!("\n{code}\n"));
        self
    }

    /// Appends a pipeline that prints the text on stdout.
    #[must_use]
    pub fn payload(mut self, text: &Text) -> Self {
        self.pieces.push(Piece::Payload(text.clone()));
        self
    }

    /// Appends a pipeline that prints these bytes on stdout.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.pieces.push(Piece::Bytes(bytes.to_vec()));
        self
    }

    /// Appends `eval` of another script: a syntax error in it (a user's code) ends the subshell
    /// around it and not the whole script.
    #[must_use]
    pub fn eval(mut self, inner: Self) -> Self {
        self.pieces.push(Piece::Eval(inner));
        self
    }

    /// The same script, killed with all that it started once it has taken that many seconds: its
    /// status is [`Script::ENDED`] then, and only then. A host without `timeout` runs it as it is.
    #[must_use]
    pub fn within(self, seconds: u64) -> Self {
        let own = Self::new()
            .then("( ", &[])
            .eval(self)
            .then(" ) </dev/null; r=$?; case $r in 124|137) echo \"ended with status $r\" >&2; r=1 ;; esac; exit $r\n", &[]);
        let mut out = Self::sh("t={}; command -v timeout >/dev/null 2>&1 || t=; ", &[&format!("timeout -s KILL {seconds}")]);
        out.pieces.push(Piece::Fed(own));
        out.then(" | $t sh; r=$?; [ $r != 137 ] || r=124; (exit $r)\n", &[])
    }

    /// The status of a script that [`Script::within`] ended.
    pub const ENDED: i32 = 124;

    /// Appends another script.
    #[must_use]
    pub fn append(mut self, other: Self) -> Self {
        for piece in other.pieces {
            match piece {
                Piece::Code(code) => self.push(code),
                other => self.pieces.push(other),
            }
        }
        self
    }

    fn push(&mut self, code: String) {
        if let Some(Piece::Code(last)) = self.pieces.last_mut() {
            last.push_str(&code);
        } else {
            self.pieces.push(Piece::Code(code));
        }
    }

    /// Names of the secrets that belong into the script.
    #[must_use]
    pub fn secrets(&self) -> Vec<SecretName> {
        let mut names: Vec<_> = self
            .pieces
            .iter()
            .flat_map(|piece| match piece {
                Piece::Payload(text) => text.secrets(),
                Piece::Eval(script) | Piece::Fed(script) => script.secrets(),
                Piece::Code(_) | Piece::Bytes(_) => Vec::new(),
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Whether there is nothing to run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The code to send to a host. For the transport only.
    ///
    /// # Errors
    /// The name of a secret that the vault does not hold.
    pub fn fill(&self, vault: &Vault) -> Result<Zeroizing<String>, MissingSecret> {
        let mut filled = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            filled.push(match piece {
                Piece::Code(code) => Zeroizing::new(code.clone()),
                Piece::Payload(text) => {
                    let value = vault.fill(text)?;
                    let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(value.as_bytes()));
                    Zeroizing::new(format!("printf %s '{}' | base64 -d", &*encoded))
                }
                Piece::Bytes(bytes) => {
                    Zeroizing::new(format!("printf %s '{}' | base64 -d", base64::engine::general_purpose::STANDARD.encode(bytes)))
                }
                Piece::Eval(script) => {
                    let code = script.fill(vault)?;
                    let quoted = Zeroizing::new(quote(&code));
                    Zeroizing::new(format!("eval {}", &*quoted))
                }
                Piece::Fed(script) => {
                    let code = script.fill(vault)?;
                    let quoted = Zeroizing::new(quote(&code));
                    Zeroizing::new(format!("printf %s {}", &*quoted))
                }
            });
        }
        let mut out = Zeroizing::new(String::with_capacity(filled.iter().map(|part| part.len()).sum()));
        for part in &filled {
            out.push_str(part);
        }
        Ok(out)
    }

    /// The code as people may see it (`-vvv`, snapshots): payloads shown as their text, secrets as names.
    #[must_use]
    pub fn shown(&self) -> String {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Code(code) => code.clone(),
                Piece::Payload(text) => format!("payload <<{text}>>"),
                Piece::Bytes(bytes) => format!("payload of {} bytes", bytes.len()),
                Piece::Eval(script) => format!("eval {}", quote(&script.shown())),
                Piece::Fed(script) => format!("printf %s {}", quote(&script.shown())),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("/etc/x-1.conf"), "/etc/x-1.conf");
        assert_eq!(Script::sh("mv -f -- {} {}", &["a b", "$(id)"]).shown(), "mv -f -- 'a b' '$(id)'");
    }

    fn run(script: &Script) -> (Option<i32>, String) {
        let text = script.fill(&Vault::default()).unwrap();
        let out = std::process::Command::new("/bin/sh").arg("-c").arg(&*text).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap())
    }

    #[test]
    fn a_script_ends_in_time_with_all_that_it_started() {
        // Seconds enough for a busy machine to start something.
        let code = |code: &str| Script::new().user_code(code).within(2);
        assert_eq!(run(&code("echo 'it is'; cat; exit 3")), (Some(3), "it is\n".to_owned()));
        assert_eq!(run(&code("exit 124")).0, Some(1), "only what was ended has the status of what was ended");
        assert_ne!(run(&code("if (")).0, Some(0));
        let dir = tempfile::tempdir().unwrap();
        let (pid, started) = (dir.path().join("pid"), std::time::Instant::now());
        let slow = format!("echo on; trap '' TERM; sleep 60 & echo $! >{}; wait; wait", quote(pid.to_str().unwrap()));
        assert_eq!(run(&code(&slow)), (Some(Script::ENDED), "on\n".to_owned()));
        assert!(started.elapsed() < std::time::Duration::from_secs(40), "it waited for what it should have ended");
        let pid = std::fs::read_to_string(pid).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        let over = || state().is_empty() || state().contains(") Z ");
        // A busy kernel takes a moment to end what was killed.
        let ended = (0..100).any(|_| {
            over() || {
                std::thread::sleep(std::time::Duration::from_millis(50));
                false
            }
        });
        assert!(ended, "what it started still runs: {}", state());
    }

    proptest::proptest! {
        #[test]
        fn any_word_survives_a_real_shell(word in "[^\0]{0,40}") {
            let script = Script::sh("printf %s {}", &[&word]).fill(&Vault::default()).unwrap();
            let out = std::process::Command::new("/bin/sh").arg("-c").arg(&*script).output().unwrap();
            proptest::prop_assert_eq!(out.stdout, word.into_bytes());
        }
    }
}
