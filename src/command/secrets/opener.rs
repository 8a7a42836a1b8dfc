//! Opens secrets for a run: identities are read once, and every value opened stays for the hosts
//! that need it later.

use std::path::PathBuf;
use std::sync::Arc;

use super::{ask_terminal, run_command};
use crate::project::Project;
use crate::project::vault::{Access, IdentitySources, Keyring, Store};
use crate::secret::{SecretName, Vault};
use zeroize::Zeroizing;

/// What a run needs to open secrets.
pub(in crate::command) struct Opener {
    sources: IdentitySources,
    keyring: Option<Keyring>,
    opened: Vec<SecretName>,
    vault: Arc<Vault>,
}

impl Opener {
    /// An opener that has read nothing yet.
    pub(in crate::command) fn new(project: &Project, flags: &[PathBuf]) -> Self {
        let sources = IdentitySources::from_environment(flags, project.settings.identity.as_deref());
        Self { sources, keyring: None, opened: Vec::new(), vault: Arc::default() }
    }

    /// A vault that holds at least these secrets.
    ///
    /// # Errors
    /// Everything that is wrong, for people.
    pub(in crate::command) fn open(&mut self, store: &Store, names: &[SecretName]) -> Result<Arc<Vault>, String> {
        if names.iter().all(|name| self.opened.contains(name)) {
            return Ok(self.vault.clone());
        }
        let sources = self.sources.clone();
        let keyring = self.keyring.get_or_insert_with(|| store.keyring(sources, Some(ask_terminal())));
        // Whatever the hosts seen so far need, together: hosts of one run mostly need the same.
        let mut wanted: Vec<SecretName> = self.opened.iter().chain(names).cloned().collect();
        wanted.sort();
        wanted.dedup();
        let unlocked = store.unlock(&wanted, Access { keyring, run: &run_command }).map_err(|errors| {
            let told = |error: &crate::project::vault::VaultError| match error.hint() {
                Some(hint) => format!("{error} ({hint})"),
                None => error.to_string(),
            };
            errors.iter().map(told).collect::<Vec<_>>().join("; ")
        })?;
        self.vault = Arc::new(unlocked.vault);
        self.opened = wanted;
        Ok(self.vault.clone())
    }

    /// One value, for a login or `sudo`.
    ///
    /// # Errors
    /// Everything that is wrong, for people.
    pub(in crate::command) fn reveal(&mut self, store: &Store, name: &SecretName) -> Result<Zeroizing<String>, String> {
        let sources = self.sources.clone();
        let keyring = self.keyring.get_or_insert_with(|| store.keyring(sources, Some(ask_terminal())));
        let told = |errors: Vec<crate::project::vault::VaultError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        store.reveal(name, Access { keyring, run: &run_command }).map_err(told)
    }
}
