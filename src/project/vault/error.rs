//! What can be wrong with the secrets of a project, in the words the user sees.

use std::path::PathBuf;

use crate::diagnostic::Diagnostic;
use crate::secret::{MIN_SECRET_LEN, SecretName};

/// One thing wrong with the store of secrets, or with the key that should open it. Always found
/// before a host is touched, so exit code 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// No private key to open secrets with.
    #[error("no identity found to open secrets with; searched {}", searched.join(", "))]
    NoIdentity {
        /// Each place, and why it gave nothing.
        searched: Vec<String>,
    },
    /// A private key that cannot be read or used.
    #[error("cannot use the identity `{}`: {reason}", path.display())]
    UnreadableIdentity { path: PathBuf, reason: String, hint: Option<String> },
    /// The passphrase of a private key was wrong or not given.
    #[error("cannot unlock the identity `{}`: {reason}", path.display())]
    LockedIdentity { path: PathBuf, reason: String },
    /// None of the private keys opens the file.
    #[error("`{}` is not encrypted to any of your identities ({})", file.display(), tried.join(", "))]
    WrongIdentity { file: PathBuf, tried: Vec<String> },
    /// The file is no whole age file.
    #[error("`{}` is corrupted or truncated: {reason}", file.display())]
    Corrupted { file: PathBuf, reason: String },
    /// `recipients.txt` is missing, empty or wrong.
    #[error("cannot encrypt: `{}` {reason}", file.display())]
    Recipients { file: PathBuf, reason: String },
    /// The decrypted content is not what the file's name promises.
    #[error("`{}`: {reason}", file.display())]
    Content { file: PathBuf, reason: String },
    /// A value too short to be masked.
    #[error("secret `{name}` in `{}` is shorter than {MIN_SECRET_LEN} characters and could not be masked in output", file.display())]
    TooShort { name: SecretName, file: PathBuf },
    /// The name stands in two places.
    #[error("secret `{name}` is defined twice: in `{}` and in `{}`", first.display(), second.display())]
    Twice { name: SecretName, first: PathBuf, second: PathBuf },
    /// Nobody defines the name.
    #[error("secret `{name}` is not in `{}`", dir.display())]
    Unknown { name: SecretName, dir: PathBuf, near: Option<String> },
    /// The command that should print the secret did not.
    #[error("the command of secret `{name}` failed: {reason}")]
    Command { name: SecretName, reason: String },
    /// The key of the keyed digests is not there.
    #[error("`{}`, the key of the digests in `digests.yml`, is missing", file.display())]
    NoDigestKey { file: PathBuf },
    /// A file could not be read or written.
    #[error("cannot {what} `{}`: {reason}", file.display())]
    Io { what: &'static str, file: PathBuf, reason: String },
    /// Lab secrets where nobody said that this is a lab.
    #[error("`{}` holds lab-only secrets, whose key everybody has, and the inventory is not marked as a lab", dir.display())]
    LabOnly { dir: PathBuf },
}

impl VaultError {
    /// An input or output error about a file.
    pub(crate) fn io(what: &'static str, file: impl Into<PathBuf>, error: &std::io::Error) -> Self {
        Self::Io { what, file: file.into(), reason: error.to_string() }
    }

    /// What to do now.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoIdentity { .. } => {
                "make a key with `soc-provision secrets keygen`, have its public half added to `recipients.txt`, \
                 and `soc-provision secrets rekey` run by somebody who can open the secrets"
            }
            Self::UnreadableIdentity { hint, .. } => return hint.clone(),
            Self::LockedIdentity { .. } => "give the passphrase at the prompt, or name another key with `--identity`",
            Self::WrongIdentity { .. } => {
                "have your public key added to `recipients.txt` and `soc-provision secrets rekey` run by somebody who can open the file, \
                 or name the right key with `--identity`"
            }
            Self::Corrupted { .. } => "restore the file from version control, or write the secret again with `soc-provision secrets set`",
            Self::Recipients { .. } => {
                "put one public key (`age1...` or `ssh-ed25519 ...`) on a line; `soc-provision secrets init` starts the file"
            }
            Self::Content { .. } => "correct it with `soc-provision secrets edit`",
            Self::TooShort { .. } => "choose a longer one: `soc-provision secrets set NAME --generate 32`",
            Self::Twice { .. } => "remove one of the two",
            Self::Unknown { name, near, .. } => {
                return Some(match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("add it with `soc-provision secrets set {name}`"),
                });
            }
            Self::Command { .. } => "run the command by hand; it is in `commands.yml` and its stdout is the value",
            Self::NoDigestKey { .. } => {
                "restore it from version control; if it is lost, `soc-provision secrets rekey --new-digest-key` makes another"
            }
            Self::Io { .. } => return None,
            Self::LabOnly { .. } => {
                "use secrets of your own (`soc-provision secrets init`), or say `soc_secrets: lab` in the inventory's `all: vars:` if it is one"
            }
        };
        Some(hint.to_owned())
    }
}

impl From<VaultError> for Diagnostic {
    fn from(error: VaultError) -> Self {
        let diagnostic = Self::error(error.to_string());
        match error.hint() {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        }
    }
}
