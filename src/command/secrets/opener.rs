//! Opening secrets for a run: identities from the flags, the environment and `soc-provision.yml`,
//! passphrases from the terminal; each file is opened and each command run once, whatever the
//! number of hosts.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use super::{ask_terminal, run_command};
use crate::diagnostic::Diagnostic;
use crate::project::Project;
use crate::project::vault::{self, IdentitySources, Store, describe};
use crate::secret::{KeyedDigests, Masker, SecretName, Vault};

/// What a run needs to open secrets.
pub(in crate::command) struct Opener {
    sources: IdentitySources,
    /// Made with the first use, for the store that is then given.
    inner: OnceLock<vault::Opener>,
}

impl Opener {
    /// An opener that has read nothing yet.
    pub(in crate::command) fn new(project: &Project, flags: &[PathBuf]) -> Self {
        Self { sources: IdentitySources::from_environment(flags, project.settings.identity.as_deref()), inner: OnceLock::new() }
    }

    fn inner(&self, store: &Store) -> &vault::Opener {
        self.inner.get_or_init(|| vault::Opener::new(store.keyring(self.sources.clone(), Some(ask_terminal())), Box::new(run_command)))
    }

    /// A vault that holds these secrets.
    ///
    /// # Errors
    /// Everything that is wrong, for people.
    pub(in crate::command) fn open(&self, store: &Store, names: &[SecretName]) -> Result<Arc<Vault>, String> {
        self.inner(store).unlock(store, names).map(|unlocked| Arc::new(unlocked.vault)).map_err(|errors| describe(&errors))
    }

    /// Masks those of the secrets that open without asking anybody.
    pub(in crate::command) fn masker(&self, store: &Store, names: &[SecretName]) -> Masker {
        let known = self.inner(store).known(store, names);
        if names.iter().all(|name| known.contains(name)) { known.masker() } else { known.masker().blinded() }
    }

    /// One value, for a login or `sudo`.
    ///
    /// # Errors
    /// Everything that is wrong, for people.
    pub(in crate::command) fn reveal(&self, store: &Store, name: &SecretName) -> Result<Zeroizing<String>, String> {
        self.inner(store).reveal(store, name).map_err(|errors| describe(&errors))
    }

    /// Keyed digests of all secrets, those without a stored one computed if an identity is there.
    pub(in crate::command) fn digests(&self, store: &Store) -> (KeyedDigests, Vec<Diagnostic>) {
        self.inner(store).digests(store)
    }
}
