//! Opening the store: each file once, only those that hold what is asked for.

use std::collections::{BTreeMap, BTreeSet};

use zeroize::Zeroizing;

use super::error::VaultError;
use super::identity::Keyring;
use super::index::{self, DigestKey};
use super::map::{self, Values};
use super::{COMMANDS, FileKind, Store, agefile};
use crate::diagnostic::{Diagnostic, nearest};
use crate::secret::{KeyedDigests, SecretName, Vault, login};

/// Runs a command of `commands.yml` on the controller: its stdout, or why it failed.
pub type Run<'a> = &'a (dyn Fn(&[String]) -> Result<Zeroizing<Vec<u8>>, String> + Sync);

/// What opening secrets needs from outside.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// The private keys.
    pub keyring: &'a Keyring,
    /// Runs a secret's command.
    pub run: Run<'a>,
}

/// What was opened so far.
#[derive(Default)]
pub(super) struct Opened {
    key: Option<DigestKey>,
    files: BTreeMap<String, Values>,
    printed: Values,
}

/// Secrets, opened.
pub struct Unlocked {
    /// The values, for the transport.
    pub vault: Vault,
    /// Keyed digests of all secrets of the store, those of the opened ones computed afresh.
    pub digests: KeyedDigests,
    /// Stored digests that were not those of the values.
    pub warnings: Vec<Diagnostic>,
}

impl Store {
    /// Opens secrets. Nothing is read, and no identity needed, if there are no names.
    ///
    /// # Errors
    /// Everything that is wrong, not just the first.
    pub fn unlock(&self, names: &[SecretName], access: Access<'_>) -> Result<Unlocked, Vec<VaultError>> {
        self.unlock_with(names, access, &mut Opened::default())
    }

    /// The same, with what was opened before.
    pub(super) fn unlock_with(&self, names: &[SecretName], access: Access<'_>, opened: &mut Opened) -> Result<Unlocked, Vec<VaultError>> {
        let mut digests = self.digests();
        let mut vault = Vault::default();
        let mut warnings = Vec::new();
        if names.is_empty() {
            return Ok(Unlocked { vault, digests, warnings });
        }
        if opened.key.is_none() {
            opened.key = Some(self.digest_key(access.keyring).map_err(|error| vec![error])?);
        }
        let (made, stored): (Vec<SecretName>, Vec<SecretName>) = names.iter().cloned().partition(|name| name.origin().1.is_some());
        self.issue(&made, access, opened, &mut vault)?;
        for (name, value) in self.values(&stored, access, opened)? {
            let Some(key) = &opened.key else { break };
            let digest = key.digest(&name, &value);
            if digests.get(&name).is_some_and(|stored| stored != digest) && !self.commands.contains_key(&name) {
                let text = format!("the digest of secret `{name}` in `{}` is not that of its value", self.dir.join(index::FILE).display());
                warnings.push(Diagnostic::warning(text).hint("write it anew with `soc-provision secrets rekey`"));
            }
            digests.insert(name.clone(), digest);
            vault.insert(name, value);
        }
        Ok(Unlocked { vault, digests, warnings })
    }

    /// One secret's value, for `secrets get` and logins alone.
    ///
    /// # Errors
    /// As [`Store::unlock`].
    pub fn reveal(&self, name: &SecretName, access: Access<'_>) -> Result<Zeroizing<String>, Vec<VaultError>> {
        self.reveal_with(name, access, &mut Opened::default())
    }

    /// The same, with what was opened before.
    pub(super) fn reveal_with(
        &self,
        name: &SecretName,
        access: Access<'_>,
        opened: &mut Opened,
    ) -> Result<Zeroizing<String>, Vec<VaultError>> {
        if let (password, Some(user)) = (name.origin().0, name.origin().1.and_then(login::user)) {
            return Ok(login::line(user, &self.reveal_with(&password, access, opened)?));
        }
        let mut values = self.values(std::slice::from_ref(name), access, opened)?;
        values.remove(name).ok_or_else(|| vec![self.unknown(name)])
    }

    /// A file's plaintext.
    ///
    /// # Errors
    /// If it cannot be read or opened.
    pub fn plaintext(&self, file: &str, keyring: &Keyring) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        agefile::decrypt(&self.read(file)?, &self.dir.join(file), keyring.identities()?)
    }

    /// The key of the keyed digests.
    pub(super) fn digest_key(&self, keyring: &Keyring) -> Result<DigestKey, VaultError> {
        let path = self.dir.join(index::KEY_FILE);
        if !path.exists() {
            return Err(VaultError::NoDigestKey { file: path });
        }
        DigestKey::parse(&self.plaintext(index::KEY_FILE, keyring)?, &path)
    }

    /// Every name and value of a file.
    pub(super) fn file_values(&self, file: &str, plaintext: Zeroizing<Vec<u8>>) -> Result<Values, Vec<VaultError>> {
        let path = self.dir.join(file);
        let content = |reason: String| VaultError::Content { file: path.clone(), reason };
        let text = text_of(plaintext).map_err(|reason| vec![content(reason)])?;
        let values = match self.files.get(file) {
            Some(FileKind::Single(name)) => BTreeMap::from([(name.clone(), text)]),
            Some(FileKind::Map) | None => map::parse(&text).map_err(|reasons| reasons.into_iter().map(content).collect::<Vec<_>>())?,
        };
        let short: Vec<_> = values.iter().filter(|(_, value)| !map::is_long_enough(value)).map(|(name, _)| name.clone()).collect();
        if short.is_empty() {
            return Ok(values);
        }
        Err(short.into_iter().map(|name| VaultError::TooShort { name, file: path.clone() }).collect())
    }

    /// The value that a command prints.
    pub(super) fn command_value(&self, name: &SecretName, run: Run<'_>) -> Result<Zeroizing<String>, VaultError> {
        let fail = |reason: String| VaultError::Command { name: name.clone(), reason };
        let command = self.commands.get(name).ok_or_else(|| self.unknown(name))?;
        let mut value = text_of(run(command).map_err(fail)?).map_err(fail)?;
        if value.ends_with('\n') {
            value.pop();
        }
        if !map::is_long_enough(&value) {
            return Err(VaultError::TooShort { name: name.clone(), file: self.dir.join(COMMANDS) });
        }
        Ok(value)
    }

    fn values(&self, names: &[SecretName], access: Access<'_>, opened: &mut Opened) -> Result<Values, Vec<VaultError>> {
        let mut errors = Vec::new();
        let mut found = Values::new();
        let mut files = BTreeSet::new();
        for name in names {
            match self.places(name).as_slice() {
                [] => {}
                [place] if place == COMMANDS => match self.printed(name, access.run, opened) {
                    Ok(value) => drop(found.insert(name.clone(), value)),
                    Err(error) => errors.push(error),
                },
                [file] => drop(files.insert(file.clone())),
                [first, second, ..] => {
                    errors.push(VaultError::Twice { name: name.clone(), first: self.dir.join(first), second: self.dir.join(second) });
                }
            }
        }
        for file in &files {
            errors.extend(self.take(file, names, access.keyring, &mut found, opened).err().into_iter().flatten());
        }
        if errors.is_empty() && names.iter().any(|name| !found.contains_key(name)) {
            // Files that were written by other means than soc-provision may hold what is missing.
            for file in self.unindexed(&files) {
                errors.extend(self.take(&file, names, access.keyring, &mut found, opened).err().into_iter().flatten());
            }
            errors.extend(names.iter().filter(|name| !found.contains_key(name)).map(|name| self.unknown(name)));
        }
        // One missing identity is one error, however many files it does not open.
        let mut distinct: Vec<VaultError> = Vec::new();
        for error in errors {
            if !distinct.contains(&error) {
                distinct.push(error);
            }
        }
        if distinct.is_empty() { Ok(found) } else { Err(distinct) }
    }

    /// What a command prints, running it once.
    fn printed(&self, name: &SecretName, run: Run<'_>, opened: &mut Opened) -> Result<Zeroizing<String>, VaultError> {
        if let Some(value) = opened.printed.get(name) {
            return Ok(value.clone());
        }
        let value = self.command_value(name, run)?;
        opened.printed.insert(name.clone(), value.clone());
        Ok(value)
    }

    /// Takes from a file what is asked for, opening it once.
    fn take(
        &self,
        file: &str,
        names: &[SecretName],
        keyring: &Keyring,
        found: &mut Values,
        opened: &mut Opened,
    ) -> Result<(), Vec<VaultError>> {
        if !opened.files.contains_key(file) {
            let plaintext = self.plaintext(file, keyring).map_err(|error| vec![error])?;
            opened.files.insert(file.to_owned(), self.file_values(file, plaintext)?);
        }
        let mut doubles = Vec::new();
        for (name, value) in opened.files.get(file).into_iter().flatten().filter(|(name, _)| names.contains(name)) {
            if found.insert(name.clone(), value.clone()).is_some() {
                let first = self.dir.join(self.place(name).unwrap_or_default());
                doubles.push(VaultError::Twice { name: name.clone(), first, second: self.dir.join(file) });
            }
        }
        if doubles.is_empty() { Ok(()) } else { Err(doubles) }
    }

    /// Map files whose names are not known, or no longer.
    fn unindexed(&self, opened: &BTreeSet<String>) -> Vec<String> {
        let maps = self.files.iter().filter(|(file, kind)| **kind == FileKind::Map && !opened.contains(*file)).map(|(file, _)| file);
        maps.filter(|file| self.read(file).is_ok_and(|bytes| !self.is_indexed(file, &bytes))).cloned().collect()
    }

    pub(super) fn unknown(&self, name: &SecretName) -> VaultError {
        let names = self.names();
        let near = nearest(name.as_str(), names.iter().map(SecretName::as_str)).map(str::to_owned);
        VaultError::Unknown { name: name.clone(), dir: self.dir.clone(), near }
    }
}

/// Bytes as text, in the same memory.
fn text_of(mut bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>, String> {
    String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|error| {
        drop(Zeroizing::new(error.into_bytes()));
        "is not UTF-8 text; store binary content as base64".to_owned()
    })
}
