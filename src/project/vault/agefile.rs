//! age files: who they are for, and encrypting and decrypting them in memory.
//!
//! Reads binary and armored files, writes armored ones (they merge and mail better). Passphrase
//! files, plugins and ssh-rsa keys are left alone.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use zeroize::Zeroizing;

use super::error::VaultError;
use super::identity::Identities;
use crate::secret::sha256;

/// The public keys that secrets are encrypted to, from `recipients.txt`.
#[derive(Default)]
pub struct Recipients {
    /// By the key's text without its comment.
    keys: BTreeMap<String, Key>,
}

struct Key {
    key: Box<dyn age::Recipient + Send + Sync>,
    comment: String,
}

impl Recipients {
    /// Reads the lines of a `recipients.txt`: a public key each, blank lines and `#` comments.
    ///
    /// # Errors
    /// Each line that is no key we can encrypt to.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Vec<VaultError>> {
        let mut keys = BTreeMap::new();
        let mut errors = Vec::new();
        let mut above = String::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                line.trim_start_matches('#').trim().clone_into(&mut above);
                continue;
            }
            match parse_key(line) {
                Ok((text, key, comment)) => {
                    let comment = if comment.is_empty() { std::mem::take(&mut above) } else { comment };
                    keys.insert(text, Key { key, comment });
                }
                Err(reason) => {
                    errors.push(VaultError::Recipients { file: file.to_owned(), reason: format!("line {}: {reason}", index + 1) });
                }
            }
        }
        if errors.is_empty() { Ok(Self { keys }) } else { Err(errors) }
    }

    /// Whether there is nobody to encrypt to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Each key with its comment, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.iter().map(|(text, key)| (text.as_str(), key.comment.as_str()))
    }

    /// Whether a public key, without comment, is among them.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// The keys, for age.
    pub(super) fn keys(&self) -> impl Iterator<Item = &dyn age::Recipient> {
        self.keys.values().map(|key| &*key.key as &dyn age::Recipient)
    }

    /// Identifies the set of keys, whatever their order and comments: SHA-256, hex.
    #[must_use]
    pub fn digest(&self) -> String {
        sha256(self.keys.keys().map(String::as_str).collect::<Vec<_>>().join("\n").as_bytes())
    }

    /// Encrypts to all of them.
    ///
    /// # Errors
    /// If there are none, or the encryption fails.
    pub fn encrypt(&self, plaintext: &[u8], recipients_file: &Path) -> Result<Vec<u8>, VaultError> {
        let fail = |reason: String| VaultError::Recipients { file: recipients_file.to_owned(), reason };
        if self.is_empty() {
            return Err(fail("names no recipient".to_owned()));
        }
        let encryptor = age::Encryptor::with_recipients(self.keys()).map_err(|error| fail(format!("cannot be used: {error}")))?;
        let write = || -> std::io::Result<Vec<u8>> {
            let armor = age::armor::ArmoredWriter::wrap_output(Vec::new(), age::armor::Format::AsciiArmor)?;
            let mut writer = encryptor.wrap_output(armor)?;
            writer.write_all(plaintext)?;
            writer.finish()?.finish()
        };
        write().map_err(|error| fail(format!("cannot be used: {error}")))
    }

    /// How an age file's header disagrees with the recipients, as far as a header tells: it names
    /// ssh keys by tag and age keys not at all, so those are counted.
    #[must_use]
    pub fn mismatch(&self, stanzas: &[Stanza]) -> Option<String> {
        let mut missing: Vec<&str> = Vec::new();
        for (text, key) in &self.keys {
            if let Some(tag) = ssh_tag(text)
                && !stanzas.iter().any(|stanza| stanza.kind == "ssh-ed25519" && stanza.tag == tag)
            {
                missing.push(if key.comment.is_empty() { text } else { &key.comment });
            }
        }
        if !missing.is_empty() {
            return Some(format!("not encrypted to {}", missing.join(", ")));
        }
        let ssh = stanzas.iter().filter(|stanza| stanza.kind == "ssh-ed25519").count();
        let x25519 = stanzas.iter().filter(|stanza| stanza.kind == "X25519").count();
        let age_keys = self.keys.keys().filter(|text| text.starts_with("age1")).count();
        if x25519 != age_keys || ssh != self.keys.len() - age_keys {
            return Some(format!("encrypted to {} keys where `recipients.txt` has {}", x25519 + ssh, self.keys.len()));
        }
        None
    }
}

type ParsedKey = (String, Box<dyn age::Recipient + Send + Sync>, String);

fn parse_key(line: &str) -> Result<ParsedKey, String> {
    if line.starts_with("AGE-SECRET-KEY-") || line.contains("PRIVATE KEY") {
        return Err("is a private key; it must not be here, and is burnt if this file was ever committed".to_owned());
    }
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default();
    if first.starts_with("age1") {
        let key: age::x25519::Recipient = first.parse().map_err(|reason| format!("`{first}` is no age key: {reason}"))?;
        let rest: Vec<_> = words.collect();
        return Ok((first.to_owned(), Box::new(key), rest.join(" ").trim_start_matches('#').trim().to_owned()));
    }
    if first == "ssh-ed25519" {
        let key: age::ssh::Recipient = line.parse().map_err(|_| "is no ssh-ed25519 public key".to_owned())?;
        return Ok((key.to_string(), Box::new(key), words.skip(1).collect::<Vec<_>>().join(" ")));
    }
    Err(format!("starts with `{}`; only `age1...` and `ssh-ed25519 ...` are supported", first.escape_debug()))
}

/// The tag by which an age header names an ssh key: base64 of the first four bytes of its SHA-256.
pub(super) fn ssh_tag(public_key: &str) -> Option<String> {
    use sha2::Digest as _;
    let encoded = public_key.strip_prefix("ssh-ed25519 ")?.split_whitespace().next()?;
    let blob = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    Some(base64::engine::general_purpose::STANDARD_NO_PAD.encode(&sha2::Sha256::digest(blob)[..4]))
}

/// One recipient in an age file's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stanza {
    /// `X25519`, `ssh-ed25519`, ...
    pub kind: String,
    /// Its first argument.
    pub tag: String,
}

/// The recipients in an age file's header; nothing is decrypted.
///
/// # Errors
/// If this is no age file.
pub fn stanzas(bytes: &[u8], file: &Path) -> Result<Vec<Stanza>, VaultError> {
    let corrupted = |reason: &str| VaultError::Corrupted { file: file.to_owned(), reason: reason.to_owned() };
    let mut raw = Vec::new();
    // A file cut short still shows its header, which is all that is wanted here.
    let outcome = age::armor::ArmoredReader::new(bytes).read_to_end(&mut raw);
    if !raw.starts_with(b"age-encryption.org/v1\n") {
        return Err(match outcome {
            _ if bytes.is_empty() => corrupted("it is empty"),
            _ if bytes.starts_with(b"<<<<<<<") => corrupted("it holds the marks of a merge conflict"),
            Err(error) => corrupted(&error.to_string()),
            Ok(_) => corrupted("it is no age file"),
        });
    }
    let mut found = Vec::new();
    for line in raw.split(|&byte| byte == b'\n').skip(1) {
        if line.starts_with(b"---") {
            return Ok(found);
        }
        if let Some(rest) = line.strip_prefix(b"-> ") {
            let text = String::from_utf8_lossy(rest);
            let mut words = text.split(' ').map(str::to_owned);
            found.push(Stanza { kind: words.next().unwrap_or_default(), tag: words.next().unwrap_or_default() });
        }
    }
    Err(corrupted("its header ends too early"))
}

/// Decrypts an age file into memory that is zeroed.
///
/// # Errors
/// A wrong identity and a broken file are told apart.
pub(super) fn decrypt(bytes: &[u8], file: &Path, identities: &Identities) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let stanzas = stanzas(bytes, file)?;
    let corrupted = |reason: String| VaultError::Corrupted { file: file.to_owned(), reason };
    identities.open(&stanzas, file, |keys| {
        let decryptor = match age::Decryptor::new_buffered(age::armor::ArmoredReader::new(bytes)) {
            Ok(decryptor) => decryptor,
            Err(error) => return Err(Some(corrupted(plain(&error)))),
        };
        let mut reader = match decryptor.decrypt(keys.iter().map(|key| &**key as &dyn age::Identity)) {
            Ok(reader) => reader,
            Err(age::DecryptError::NoMatchingKeys) => return Err(None),
            Err(error) => return Err(Some(corrupted(plain(&error)))),
        };
        // Plaintext is shorter than the file: sized up front, nothing is left behind by growing.
        let mut plaintext = Zeroizing::new(Vec::with_capacity(bytes.len()));
        match reader.read_to_end(&mut plaintext) {
            Ok(_) => Ok(plaintext),
            Err(error) => Err(Some(corrupted(error.to_string()))),
        }
    })
}

/// An error of age in one sentence without the marks its translations carry.
fn plain(error: &age::DecryptError) -> String {
    match error {
        age::DecryptError::InvalidHeader => "its header is invalid".to_owned(),
        age::DecryptError::InvalidMac => "its header was changed".to_owned(),
        age::DecryptError::DecryptionFailed => "its content was changed".to_owned(),
        age::DecryptError::UnknownFormat => "it is of a newer format of age".to_owned(),
        age::DecryptError::Io(error) => error.to_string(),
        other => other.to_string().replace(['\u{2068}', '\u{2069}'], "").replace('\n', " "),
    }
}
