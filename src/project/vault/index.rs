//! `digests.yml`: what is known about the secrets without opening them, and the key it is made with.
//!
//! Holds, for each secret, the file it lies in and the keyed digest of its value (DESIGN 8.11), and
//! for each file the digest of its ciphertext and of the recipients it was encrypted to. The file is
//! committed, so plan and drift need no identity; the key lies beside it, encrypted.

use std::collections::BTreeMap;
use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::error::VaultError;
use crate::secret::{SecretName, hex};

/// Name of the index in the store's directory.
pub(super) const FILE: &str = "digests.yml";
/// Name of the encrypted key in the store's directory.
pub(super) const KEY_FILE: &str = "digest-key.age";

/// What is known of one secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// The file relative to the store, or `commands.yml`.
    pub(super) file: String,
    /// The keyed digest of its value, 64 hex digits.
    pub(super) hmac: String,
}

/// What is known of one file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileRecord {
    /// Digest of the recipients it was encrypted to.
    pub(super) recipients: String,
    /// SHA-256 of its bytes.
    pub(super) ciphertext: String,
}

/// The content of `digests.yml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) secrets: BTreeMap<SecretName, Entry>,
    pub(super) files: BTreeMap<String, FileRecord>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct OnDisk {
    #[serde(default)]
    secrets: BTreeMap<String, Entry>,
    #[serde(default)]
    files: BTreeMap<String, FileRecord>,
}

impl Index {
    /// Reads the index.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.lines().any(|line| line.starts_with("<<<<<<<")) {
            return Err("it holds the marks of a merge conflict".to_owned());
        }
        let on_disk: OnDisk = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        let mut secrets = BTreeMap::new();
        for (name, entry) in on_disk.secrets {
            if entry.hmac.len() != 64 || !entry.hmac.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(format!("the digest of `{name}` is not 64 hex digits"));
            }
            secrets.insert(SecretName::parse(&name)?, entry);
        }
        Ok(Self { secrets, files: on_disk.files })
    }

    /// The file's text: sorted, so that it merges line by line.
    pub(super) fn render(&self) -> String {
        use std::fmt::Write as _;
        let mut out = String::from(
            "# Written by `soc-provision secrets`; holds no secret. After a merge conflict run `soc-provision secrets rekey`.\nsecrets:\n",
        );
        for (name, Entry { file, hmac }) in &self.secrets {
            let _ = writeln!(out, "  \"{name}\": {{ file: {}, hmac: \"{hmac}\" }}", serde_json::Value::from(file.as_str()));
        }
        out.push_str("files:\n");
        for (file, FileRecord { recipients, ciphertext }) in &self.files {
            let _ = writeln!(
                out,
                "  {}: {{ recipients: \"{recipients}\", ciphertext: \"{ciphertext}\" }}",
                serde_json::Value::from(file.as_str())
            );
        }
        if self.secrets.is_empty() {
            out = out.replace("secrets:\n", "secrets: {}\n");
        }
        if self.files.is_empty() {
            out = out.replace("files:\n", "files: {}\n");
        }
        out
    }

    /// Replaces everything known of a file.
    pub(super) fn set_file(&mut self, file: &str, record: FileRecord, digests: Vec<(SecretName, String)>) {
        self.secrets.retain(|_, entry| entry.file != file);
        self.files.insert(file.to_owned(), record);
        self.secrets.extend(digests.into_iter().map(|(name, hmac)| (name, Entry { file: file.to_owned(), hmac })));
    }
}

/// The project's random key for keyed digests.
pub(super) struct DigestKey(Zeroizing<[u8; 32]>);

impl DigestKey {
    /// A new one.
    ///
    /// # Errors
    /// If the system has no randomness to give.
    pub(super) fn generate(file: &Path) -> Result<Self, VaultError> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *bytes).map_err(|error| VaultError::Io {
            what: "make the key for",
            file: file.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self(bytes))
    }

    /// The key from the decrypted file.
    ///
    /// # Errors
    /// If it is not 64 hex digits.
    pub(super) fn parse(plaintext: &[u8], file: &Path) -> Result<Self, VaultError> {
        let digits = plaintext.trim_ascii();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let mut bytes = Zeroizing::new([0; 32]);
        let well = digits.len() == 64
            && bytes.iter_mut().zip(digits.chunks_exact(2)).all(|(out, pair)| match (digit(pair[0]), digit(pair[1])) {
                (Some(high), Some(low)) => {
                    *out = high << 4 | low;
                    true
                }
                _ => false,
            });
        if well {
            Ok(Self(bytes))
        } else {
            Err(VaultError::Content { file: file.to_owned(), reason: "is not a key of 64 hex digits".to_owned() })
        }
    }

    /// The text to encrypt.
    pub(super) fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(hex(&*self.0))
    }

    /// The keyed digest of a value. The name goes in, so that two secrets with one value do not
    /// show in a committed file.
    pub(super) fn digest(&self, name: &SecretName, value: &str) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&*self.0) else { unreachable!("HMAC takes keys of any length") };
        mac.update(name.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(value.as_bytes());
        hex(&mac.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_survives_being_written_and_read() {
        let mut index = Index::default();
        assert_eq!(Index::parse(&index.render()).unwrap(), index);
        let record = FileRecord { recipients: "r".into(), ciphertext: "c".into() };
        index.set_file(
            "a b.yml.age",
            record,
            vec![(SecretName::parse("true").unwrap(), "0".repeat(64)), (SecretName::parse("1.5/x").unwrap(), "1".repeat(64))],
        );
        assert_eq!(Index::parse(&index.render()).unwrap(), index);
        assert!(Index::parse("<<<<<<< ours\nsecrets: {}\n").unwrap_err().contains("merge conflict"));
        assert!(Index::parse("secrets: {a: {file: x, hmac: short}}").is_err());
    }

    #[test]
    fn a_digest_depends_on_key_name_and_value() {
        let key = DigestKey::parse("00".repeat(32).as_bytes(), Path::new("k")).unwrap();
        let (a, b) = (SecretName::parse("a").unwrap(), SecretName::parse("b").unwrap());
        assert_eq!(key.digest(&a, "value"), key.digest(&a, "value"));
        assert_ne!(key.digest(&a, "value"), key.digest(&b, "value"));
        assert_ne!(key.digest(&a, "value"), key.digest(&a, "other"));
        assert_ne!(key.digest(&a, "value"), DigestKey::generate(Path::new("k")).unwrap().digest(&a, "value"));
        assert!(DigestKey::parse(b"xyz", Path::new("k")).is_err());
    }
}
