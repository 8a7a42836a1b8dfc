//! What `secrets check` finds in a store: files that are not for all recipients, digests that are
//! missing or stale, values too short, plaintext under an `.age` name.

use crate::diagnostic::Diagnostic;
use crate::project::vault::index;

use super::unlock::Access;
use super::{COMMANDS, FileKind, Store, VaultError, stanzas};

const REKEY: &str = "run `soc-provision secrets rekey`";

impl Store {
    /// Everything wrong with the store. Without access it looks at headers and records; with it,
    /// every file is opened, and every digest computed and compared.
    #[must_use]
    pub fn audit(&self, access: Option<Access<'_>>) -> Vec<Diagnostic> {
        let mut found = self.problems();
        if self.recipients.is_empty() && !self.files.is_empty() && self.errors.is_empty() {
            let reason = "names no recipient".to_owned();
            found.push(VaultError::Recipients { file: self.dir.join(super::RECIPIENTS), reason }.into());
        }
        let key_file = self.dir.join(index::KEY_FILE);
        if key_file.exists() {
            found.extend(self.audit_header(index::KEY_FILE));
        } else if !self.files.is_empty() || !self.commands.is_empty() {
            found.push(VaultError::NoDigestKey { file: key_file }.into());
        }
        for file in self.files.keys() {
            found.extend(self.audit_header(file));
        }
        for (name, reason) in self.undigested(&self.names()) {
            let _ = name;
            found.push(Diagnostic::error(reason));
        }
        for (name, entry) in &self.index.secrets {
            let gone = if entry.file == COMMANDS { !self.commands.contains_key(name) } else { !self.files.contains_key(&entry.file) };
            if gone {
                found.push(
                    Diagnostic::error(format!("`{}` has a digest of `{name}`, which is gone from `{}`", index::FILE, entry.file))
                        .hint(REKEY),
                );
            }
        }
        if let Some(access) = access {
            found.extend(self.audit_values(access));
        }
        found
    }

    /// What a file's header and its record tell.
    fn audit_header(&self, file: &str) -> Option<Diagnostic> {
        let path = self.dir.join(file);
        let bytes = match self.read(file) {
            Ok(bytes) => bytes,
            Err(error) => return Some(error.into()),
        };
        let stanzas = match stanzas(&bytes, &path) {
            Ok(stanzas) => stanzas,
            Err(error) => return Some(error.into()),
        };
        let say = |what: &str| Some(Diagnostic::error(format!("`{}` {what}", path.display())).hint(REKEY));
        if let Some(what) = self.recipients.mismatch(&stanzas) {
            return say(&format!("is {what}"));
        }
        match self.index.files.get(file) {
            None => say("was not written by soc-provision: its secrets have no digests"),
            Some(record) if record.recipients != self.recipients.digest() => {
                say("is encrypted to other recipients than those in `recipients.txt`")
            }
            Some(_) if !self.is_indexed(file, &bytes) => say("was changed by other means than soc-provision: its digests may be stale"),
            Some(_) => None,
        }
    }

    /// What only the values tell.
    fn audit_values(&self, access: Access<'_>) -> Vec<Diagnostic> {
        let key = match self.digest_key(access.keyring) {
            Ok(key) => key,
            Err(VaultError::NoDigestKey { .. }) => return Vec::new(),
            Err(error) => return vec![error.into()],
        };
        let mut found = Vec::new();
        let mut stale = |name: &crate::secret::SecretName, value: &str| {
            let entry = self.index.secrets.get(name);
            if entry.is_some_and(|entry| entry.hmac != key.digest(name, value)) {
                found.push(Diagnostic::error(format!("the digest of secret `{name}` is not that of its value")).hint(REKEY));
            }
        };
        let mut errors = Vec::new();
        for file in self.files.keys() {
            let opened = self.plaintext(file, access.keyring).map_err(|error| vec![error]);
            match opened.and_then(|plaintext| self.file_values(file, plaintext)) {
                Ok(values) => values.iter().for_each(|(name, value)| stale(name, value)),
                // A broken file was told already from its header if the header is what is broken.
                Err(more) => errors.extend(more),
            }
        }
        let reported: Vec<_> =
            self.files.keys().filter_map(|file| self.read(file).and_then(|bytes| stanzas(&bytes, &self.dir.join(file))).err()).collect();
        errors.retain(|error| !reported.contains(error));
        found.extend(errors.into_iter().map(Diagnostic::from));
        found
    }

    /// The files whose kind is a map; for `secrets edit`.
    #[must_use]
    pub fn is_map_file(&self, file: &str) -> bool {
        self.files.get(file) == Some(&FileKind::Map)
    }
}
