//! The store of secrets: age files in the project, opened only when a host needs what is in them.
//!
//! `secrets/` holds `recipients.txt` (public keys), `*.yml.age` (maps of names to values),
//! `NAME.age` (one secret a file), `commands.yml` (secrets that a command prints), and
//! `digests.yml` with `digest-key.age`, from which plan and drift learn whether a secret changed
//! without any private key. A directory with a `LAB-ONLY` file brings its own private key and is
//! refused where the inventory does not say that it is a lab.
//!
//! Running commands and asking for passphrases is the caller's part: see [`Access`].

mod agefile;
mod audit;
mod certificate;
mod error;
mod identity;
mod index;
mod map;
mod opener;
mod stream;
mod unlock;
mod write;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::secret::{KeyedDigests, SecretName, sha256};

pub use agefile::{Recipients, Stanza, stanzas};
pub use certificate::{authority_certificate, new_authority};
pub use error::VaultError;
pub use identity::{Ask, IDENTITY_VAR, Identities, IdentitySources, Keyring, configured_identity, generate};
pub use opener::{Opener, OwnedRun, describe};
pub use stream::{Sealing, Spool, open_file};
pub use unlock::{Access, Run, Unlocked};
pub use write::{InitKeys, RekeyDigests, write_atomically};

use index::Index;

/// Marks a directory of secrets whose private key is committed.
pub const LAB_MARKER: &str = "LAB-ONLY";
/// The private key of a lab-only directory.
pub const LAB_IDENTITY: &str = "identity.txt";
/// Public keys.
pub const RECIPIENTS: &str = "recipients.txt";
/// Secrets that commands print.
pub const COMMANDS: &str = "commands.yml";

/// What an age file of the store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A map of names to values, `*.yml.age`.
    Map,
    /// One secret: the file's bytes.
    Single(SecretName),
}

/// Secrets of a project, closed.
pub struct Store {
    dir: PathBuf,
    recipients: Recipients,
    commands: BTreeMap<SecretName, Vec<String>>,
    /// Paths relative to the directory, with `/`.
    files: BTreeMap<String, FileKind>,
    index: Index,
    lab_only: bool,
    errors: Vec<VaultError>,
    warnings: Vec<Diagnostic>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandEntry {
    command: Vec<String>,
}

impl Store {
    /// The store of a project: its `secrets/` directory. Never fails: a missing directory is an
    /// empty store, and what is wrong is told by [`Store::problems`].
    #[must_use]
    pub fn open(root: &Path) -> Self {
        Self::open_dir(&root.join("secrets"))
    }

    /// The store that an inventory chooses by its variable `soc_secrets`: `secrets/` without it,
    /// `secrets/VALUE/` with it.
    ///
    /// # Errors
    /// [`VaultError::LabOnly`] if the secrets are for labs and the inventory does not say so.
    pub fn select(root: &Path, soc_secrets: Option<&str>) -> Result<Self, VaultError> {
        let Some(name) = soc_secrets else {
            let store = Self::open(root);
            return if store.lab_only { Err(VaultError::LabOnly { dir: store.dir }) } else { Ok(store) };
        };
        let dir = root.join("secrets").join(name);
        let fine = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !fine || !dir.is_dir() {
            let reason = "`soc_secrets` must name a directory in `secrets/`".to_owned();
            return Err(VaultError::Io { what: "use", file: dir, reason });
        }
        Ok(Self::open_dir(&dir))
    }

    /// The store in a directory.
    #[must_use]
    pub fn open_dir(dir: &Path) -> Self {
        let mut store = Self {
            dir: dir.to_owned(),
            recipients: Recipients::default(),
            commands: BTreeMap::new(),
            files: BTreeMap::new(),
            index: Index::default(),
            lab_only: dir.join(LAB_MARKER).exists(),
            errors: Vec::new(),
            warnings: Vec::new(),
        };
        store.scan(dir, "");
        store.read_texts();
        store.find_doubles();
        store.refuse_lab_keys();
        store
    }

    /// Lists age files; a directory with recipients of its own is another store.
    fn scan(&mut self, dir: &Path, prefix: &str) {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return self.errors.push(VaultError::io("read", dir, &error)),
        };
        for entry in entries.filter_map(Result::ok) {
            let Ok(file_name) = entry.file_name().into_string() else { continue };
            let relative = format!("{prefix}{file_name}");
            let path = entry.path();
            if path.is_dir() {
                if !path.join(RECIPIENTS).exists() && !file_name.starts_with('.') {
                    self.scan(&path, &format!("{relative}/"));
                }
            } else if file_name.ends_with(".yml.age") || file_name.ends_with(".yaml.age") {
                self.files.insert(relative, FileKind::Map);
            } else if let Some(stem) = relative.strip_suffix(".age").filter(|_| relative != index::KEY_FILE) {
                match SecretName::parse(stem) {
                    Ok(name) => drop(self.files.insert(relative, FileKind::Single(name))),
                    Err(reason) => self.errors.push(VaultError::Content { file: path, reason }),
                }
            }
        }
    }

    /// A text file of the store, if it is there.
    fn text(&mut self, name: &str) -> Option<String> {
        let path = self.dir.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                self.errors.push(VaultError::io("read", path, &error));
                None
            }
        }
    }

    fn read_texts(&mut self) {
        if let Some(text) = self.text(RECIPIENTS) {
            match Recipients::parse(&text, &self.dir.join(RECIPIENTS)) {
                Ok(recipients) => self.recipients = recipients,
                Err(errors) => self.errors.extend(errors),
            }
        }
        if let Some(text) = self.text(COMMANDS) {
            match parse_commands(&text) {
                Ok(commands) => self.commands = commands,
                Err(reason) => self.errors.push(VaultError::Content { file: self.dir.join(COMMANDS), reason }),
            }
        }
        if let Some(text) = self.text(index::FILE) {
            match Index::parse(&text) {
                Ok(index) => self.index = index,
                // Wrong digests make plans wrong, never leak anything: a warning, and none are used.
                Err(reason) => self.warnings.push(
                    Diagnostic::warning(format!("`{}` cannot be used: {reason}", self.dir.join(index::FILE).display()))
                        .hint("write it anew with `soc-provision secrets rekey`"),
                ),
            }
        }
    }

    /// Every file that defines a name, as far as that is known without opening any.
    fn places(&self, name: &SecretName) -> Vec<String> {
        let mut places: Vec<String> = Vec::new();
        if self.commands.contains_key(name) {
            places.push(COMMANDS.to_owned());
        }
        places.extend(
            self.files.iter().filter(|(_, kind)| matches!(kind, FileKind::Single(single) if single == name)).map(|(file, _)| file.clone()),
        );
        if let Some(entry) = self.index.secrets.get(name)
            && self.files.get(&entry.file) == Some(&FileKind::Map)
        {
            places.push(entry.file.clone());
        }
        places
    }

    fn find_doubles(&mut self) {
        for name in self.names() {
            if let [first, second, ..] = self.places(&name).as_slice() {
                let error = VaultError::Twice { name, first: self.dir.join(first), second: self.dir.join(second) };
                self.errors.push(error);
            }
        }
    }

    /// A store that is not for labs must not be readable with the key that everybody has.
    fn refuse_lab_keys(&mut self) {
        if self.lab_only {
            return;
        }
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().filter_map(Result::ok) {
            let Ok(text) = std::fs::read_to_string(entry.path().join(RECIPIENTS)) else { continue };
            if !entry.path().join(LAB_MARKER).exists() {
                continue;
            }
            let Ok(lab) = Recipients::parse(&text, &entry.path()) else { continue };
            if lab.iter().any(|(key, _)| self.recipients.contains(key)) {
                let reason = format!("lists the lab-only key of `{}`, whose private half is committed", entry.path().display());
                self.errors.push(VaultError::Recipients { file: self.dir.join(RECIPIENTS), reason });
            }
        }
    }

    /// What is wrong with the store as far as it shows without opening anything.
    #[must_use]
    pub fn problems(&self) -> Vec<Diagnostic> {
        self.errors.iter().cloned().map(Diagnostic::from).chain(self.warnings.iter().cloned()).collect()
    }

    /// Names of all secrets, sorted, without opening anything. Of a map file that was not written
    /// by soc-provision the names are not known.
    #[must_use]
    pub fn names(&self) -> Vec<SecretName> {
        let singles = self.files.values().filter_map(|kind| match kind {
            FileKind::Single(name) => Some(name.clone()),
            FileKind::Map => None,
        });
        let indexed = self.index.secrets.iter().filter(|(_, entry)| self.files.contains_key(&entry.file)).map(|(name, _)| name.clone());
        let names: BTreeSet<_> = self.commands.keys().cloned().chain(singles).chain(indexed).collect();
        names.into_iter().collect()
    }

    /// The file that a secret comes from, relative to the store; `None` if that is not known
    /// without opening files.
    #[must_use]
    pub fn place(&self, name: &SecretName) -> Option<String> {
        self.places(name).into_iter().next()
    }

    /// Keyed digests of all secrets that have one; needs no identity.
    #[must_use]
    pub fn digests(&self) -> KeyedDigests {
        let mut digests = KeyedDigests::default();
        for name in self.names() {
            if let Some(entry) = self.index.secrets.get(&name) {
                digests.insert(name, entry.hmac.clone());
            }
        }
        digests
    }

    /// Of the names, those that plan and drift cannot compare without an identity, and why.
    #[must_use]
    pub fn undigested(&self, names: &[SecretName]) -> Vec<(SecretName, String)> {
        let digests = self.digests();
        let reason = |name: &SecretName| {
            if self.commands.contains_key(name) {
                format!(
                    "secret `{name}` comes from a command and has no stored digest: without an identity it cannot be compared (store one with `soc-provision secrets rekey`)"
                )
            } else if self.names().contains(name) {
                format!(
                    "secret `{name}` has no stored digest: without an identity it cannot be compared (store one with `soc-provision secrets rekey`)"
                )
            } else {
                format!("secret `{name}` is not in `{}` (add it with `soc-provision secrets set {name}`)", self.dir.display())
            }
        };
        names.iter().filter(|name| digests.get(name).is_none()).map(|name| (name.clone(), reason(name))).collect()
    }

    /// Who the secrets are encrypted to.
    #[must_use]
    pub fn recipients(&self) -> &Recipients {
        &self.recipients
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The age files, relative to the directory, and what they hold.
    pub fn files(&self) -> impl Iterator<Item = (&str, &FileKind)> {
        self.files.iter().map(|(file, kind)| (file.as_str(), kind))
    }

    /// Whether the private key of these secrets is committed and everybody has it.
    #[must_use]
    pub fn is_lab_only(&self) -> bool {
        self.lab_only
    }

    /// A keyring for this store: the sources, and the committed key of a lab-only one.
    #[must_use]
    pub fn keyring(&self, mut sources: IdentitySources, ask: Option<Ask>) -> Keyring {
        sources.lab = self.lab_only.then(|| self.dir.join(LAB_IDENTITY));
        Keyring::new(sources, ask)
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, VaultError> {
        let path = self.dir.join(file);
        std::fs::read(&path).map_err(|error| VaultError::io("read", path, &error))
    }

    /// Whether the file's bytes are those that the index was written for.
    fn is_indexed(&self, file: &str, bytes: &[u8]) -> bool {
        self.index.files.get(file).is_some_and(|record| record.ciphertext == sha256(bytes))
    }
}

/// Reads `commands.yml`: `name: {command: [program, argument, ...]}`.
fn parse_commands(text: &str) -> Result<BTreeMap<SecretName, Vec<String>>, String> {
    let entries: Option<BTreeMap<String, CommandEntry>> = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    entries
        .unwrap_or_default()
        .into_iter()
        .map(|(name, entry)| {
            let name = SecretName::parse(&name)?;
            if entry.command.first().is_none_or(String::is_empty) {
                return Err(format!("the command of `{name}` is empty: write `command: [program, argument]`"));
            }
            Ok((name, entry.command))
        })
        .collect()
}
