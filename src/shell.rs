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
                Piece::Eval(script) => script.secrets(),
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

    proptest::proptest! {
        #[test]
        fn any_word_survives_a_real_shell(word in "[^\0]{0,40}") {
            let script = Script::sh("printf %s {}", &[&word]).fill(&Vault::default()).unwrap();
            let out = std::process::Command::new("/bin/sh").arg("-c").arg(&*script).output().unwrap();
            proptest::prop_assert_eq!(out.stdout, word.into_bytes());
        }
    }
}
