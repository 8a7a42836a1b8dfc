//! One opened store for all hosts of a run: each file is opened once, whoever asks.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use super::Store;
use super::error::VaultError;
use super::identity::Keyring;
use super::unlock::{Access, Opened, Unlocked};
use crate::diagnostic::Diagnostic;
use crate::secret::{KeyedDigests, SecretName, Vault};

/// Runs a secret's command on the controller; see [`super::Run`].
pub type OwnedRun = Box<dyn Fn(&[String]) -> Result<Zeroizing<Vec<u8>>, String> + Send + Sync>;

/// The means to open a store, shared by the hosts of a run, and what was opened so far.
pub struct Opener {
    keyring: Keyring,
    /// The same keys, and nobody to ask.
    quiet: Keyring,
    run: OwnedRun,
    opened: Mutex<Opened>,
    /// What could not be opened for the masker, and whether somebody could have been asked: not
    /// tried again for each host, since it may be a command that takes its time.
    unknown: Mutex<(bool, BTreeSet<SecretName>)>,
}

impl Opener {
    /// An opener that has opened nothing yet, for one store.
    #[must_use]
    pub fn new(keyring: Keyring, run: OwnedRun) -> Self {
        let quiet = Keyring::new(keyring.sources().clone(), None);
        Self { keyring, quiet, run, opened: Mutex::default(), unknown: Mutex::default() }
    }

    /// Opens the secrets that a host needs. Blocks: it may decrypt, run commands and ask for a
    /// passphrase, one host at a time.
    ///
    /// # Errors
    /// As [`Store::unlock`].
    pub fn unlock(&self, store: &Store, names: &[SecretName]) -> Result<Unlocked, Vec<VaultError>> {
        let access = Access { keyring: &self.keyring, run: &*self.run };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        store.unlock_with(names, access, &mut opened)
    }

    /// Those of the secrets that open without asking anybody, for the masker: what cannot be opened
    /// is left out.
    #[must_use]
    pub fn known(&self, store: &Store, names: &[SecretName]) -> Vault {
        let asks = self.keyring.identities().is_ok_and(super::Identities::may_ask);
        let access = Access { keyring: if asks { &self.quiet } else { &self.keyring }, run: &*self.run };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.0 != asks {
            *unknown = (asks, BTreeSet::new());
        }
        let mut vault = Vault::default();
        for name in names {
            if unknown.1.contains(name) {
                continue;
            }
            match store.reveal_with(name, access, &mut opened) {
                Ok(value) => vault.insert(name.clone(), value),
                Err(_) => {
                    unknown.1.insert(name.clone());
                }
            }
        }
        vault
    }

    /// One value, for a login.
    ///
    /// # Errors
    /// As [`Store::unlock`].
    pub fn reveal(&self, store: &Store, name: &SecretName) -> Result<Zeroizing<String>, Vec<VaultError>> {
        let access = Access { keyring: &self.keyring, run: &*self.run };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        store.reveal_with(name, access, &mut opened)
    }

    /// Keyed digests of all secrets: the stored ones, and those that are not stored computed now
    /// if an identity opens the secrets. What then still lacks one is told as warnings, which
    /// matter only to hosts that use it.
    #[must_use]
    pub fn digests(&self, store: &Store) -> (KeyedDigests, Vec<Diagnostic>) {
        let names: Vec<_> = store.undigested(&store.names()).into_iter().map(|(name, _)| name).collect();
        if names.is_empty() {
            return (store.digests(), Vec::new());
        }
        match self.unlock(store, &names) {
            Ok(unlocked) => (unlocked.digests, unlocked.warnings),
            Err(_) => (store.digests(), store.undigested(&names).into_iter().map(|(_, why)| Diagnostic::warning(why)).collect()),
        }
    }
}

/// Errors as one text for people, each with its hint.
#[must_use]
pub fn describe(errors: &[VaultError]) -> String {
    let line = |error: &VaultError| match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    };
    errors.iter().map(line).collect::<Vec<_>>().join("\n")
}
