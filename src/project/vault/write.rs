//! Changing the store: every file is replaced in one step, and the index after the files.
//!
//! A crash in between leaves whole files and an index that `secrets check` finds stale; writing the
//! same again, or `secrets rekey`, mends it.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::VaultError;
use super::identity::{Keyring, generate};
use super::index::{self, DigestKey, FileRecord, Index};
use super::unlock::Access;
use super::{COMMANDS, FileKind, LAB_IDENTITY, LAB_MARKER, RECIPIENTS, Store, agefile, map};
use crate::secret::{SecretName, sha256};

/// A file written beside its destination, to be moved there.
struct Staged {
    temporary: tempfile::NamedTempFile,
    destination: PathBuf,
}

impl Staged {
    /// Writes and syncs the content under a temporary name.
    fn new(destination: &Path, content: &[u8], mode: u32) -> Result<Self, VaultError> {
        let fail = |error: std::io::Error| VaultError::io("write", destination, &error);
        let dir = destination.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).map_err(fail)?;
        // Its name ends in no `.age`, so that one left by a crash is never taken for a secret.
        let mut temporary = tempfile::Builder::new().prefix(".soc-provision-").suffix(".tmp").tempfile_in(dir).map_err(fail)?;
        temporary.write_all(content).map_err(fail)?;
        temporary.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).map_err(fail)?;
        temporary.as_file().sync_all().map_err(fail)?;
        Ok(Self { temporary, destination: destination.to_owned() })
    }

    /// Moves it into place.
    fn commit(self) -> Result<(), VaultError> {
        let destination = self.destination;
        self.temporary.persist(&destination).map_err(|error| VaultError::io("write", &destination, &error.error))?;
        let dir = destination.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| VaultError::io("sync", dir, &error))
    }
}

/// Replaces a file's content in one step, with this mode.
///
/// # Errors
/// If it cannot be written; the old content is then still there.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), VaultError> {
    Staged::new(path, content, mode)?.commit()
}

/// Whose keys a new store is encrypted to.
pub enum InitKeys {
    /// These public keys, each a line of `recipients.txt`.
    Recipients(Vec<String>),
    /// A new private key, committed with the store, which is marked as for labs only.
    Lab,
}

impl Store {
    /// Starts a store in a directory: recipients, the digest key and an empty index.
    ///
    /// # Errors
    /// If there is one already, or it cannot be written.
    pub fn init(dir: &Path, keys: InitKeys) -> Result<Self, VaultError> {
        let recipients_file = dir.join(RECIPIENTS);
        if recipients_file.exists() {
            return Err(VaultError::Io { what: "start", file: recipients_file, reason: "it is there already".to_owned() });
        }
        let mut text = String::from("# Who can open the secrets: a public key a line. After a change run `soc-provision secrets rekey`.\n");
        match keys {
            InitKeys::Recipients(lines) => lines.iter().for_each(|line| {
                text.push_str(line);
                text.push('\n');
            }),
            InitKeys::Lab => {
                let (identity, public) = generate("for labs only");
                write_atomically(
                    &dir.join(LAB_MARKER),
                    b"The private key of these secrets is beside them: everybody has it. For throw-away hosts only.\n",
                    0o644,
                )?;
                write_atomically(&dir.join(LAB_IDENTITY), &identity, 0o600)?;
                text.push_str(&public);
                text.push_str(" lab-only\n");
            }
        }
        let recipients = agefile::Recipients::parse(&text, &recipients_file).map_err(|mut errors| errors.remove(0))?;
        let key_file = dir.join(index::KEY_FILE);
        let encrypted = recipients.encrypt(DigestKey::generate(&key_file)?.text().as_bytes(), &recipients_file)?;
        write_atomically(&recipients_file, text.as_bytes(), 0o644)?;
        write_atomically(&key_file, &encrypted, 0o644)?;
        let mut store = Self::open_dir(dir);
        store.index = Index::default();
        store.index.set_file(index::KEY_FILE, store.record(&encrypted), Vec::new());
        store.write_index()?;
        Ok(store)
    }

    fn record(&self, ciphertext: &[u8]) -> FileRecord {
        FileRecord { recipients: self.recipients.digest(), ciphertext: sha256(ciphertext) }
    }

    fn write_index(&self) -> Result<(), VaultError> {
        write_atomically(&self.dir.join(index::FILE), self.index.render().as_bytes(), 0o644)
    }

    /// Stores a secret: where it is already, or in `into` (a `.yml.age` file, relative to the
    /// store), or in a file of its own. Returns the file.
    ///
    /// # Errors
    /// If the value is too short, the name comes from a command or stands elsewhere than in
    /// `into`, or a file cannot be opened or written.
    pub fn set(&mut self, name: &SecretName, value: &str, into: Option<&str>, keyring: &Keyring) -> Result<String, Vec<VaultError>> {
        let one = |error: VaultError| vec![error];
        let file = match (self.place(name), into) {
            (Some(place), _) if place == COMMANDS => {
                let reason = format!("defines `{name}`; remove it there first");
                return Err(one(VaultError::Content { file: self.dir.join(COMMANDS), reason }));
            }
            (Some(place), Some(into)) if place != into => {
                return Err(one(VaultError::Twice { name: name.clone(), first: self.dir.join(place), second: self.dir.join(into) }));
            }
            (Some(place), _) => place,
            (None, Some(into)) => into.to_owned(),
            (None, None) => format!("{name}.age"),
        };
        if !map::is_long_enough(value) {
            return Err(one(VaultError::TooShort { name: name.clone(), file: self.dir.join(file) }));
        }
        if !is_map(&file) {
            self.replace_file(&file, value.as_bytes(), keyring)?;
            return Ok(file);
        }
        let old = if self.files.contains_key(&file) { self.plaintext(&file, keyring).map_err(one)? } else { Zeroizing::default() };
        let content = |reason: String| VaultError::Content { file: self.dir.join(&file), reason };
        let old = std::str::from_utf8(&old).map_err(|_| one(content("is not UTF-8 text".to_owned())))?;
        let new = map::with_value(old, name, value).map_err(|reasons| reasons.into_iter().map(content).collect::<Vec<_>>())?;
        self.replace_file(&file, new.as_bytes(), keyring)?;
        Ok(file)
    }

    /// Encrypts new content of a file, relative to the store, and records its digests.
    ///
    /// # Errors
    /// If the content is not what the file's name promises, or it cannot be written; then
    /// nothing has changed.
    pub fn replace_file(&mut self, file: &str, plaintext: &[u8], keyring: &Keyring) -> Result<(), Vec<VaultError>> {
        let one = |error: VaultError| vec![error];
        let path = self.dir.join(file);
        let safe = !file.starts_with('/') && file.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
        let kind = match file.strip_suffix(".age") {
            Some(_) if !safe || file == index::KEY_FILE => Err(format!("`{file}` cannot be a file of secrets")),
            Some(_) if is_map(file) => Ok(FileKind::Map),
            Some(stem) => SecretName::parse(stem).map(FileKind::Single),
            None => Err("a file of secrets ends in `.yml.age` or `.age`".to_owned()),
        };
        let kind = kind.map_err(|reason| one(VaultError::Content { file: path.clone(), reason }))?;
        self.files.insert(file.to_owned(), kind);
        let values = self.file_values(file, Zeroizing::new(plaintext.to_vec()));
        let result = values.and_then(|values| {
            let doubles: Vec<_> = values
                .keys()
                .flat_map(|name| self.places(name).into_iter().filter(|place| place != file).map(|place| (name.clone(), place)))
                .collect();
            if !doubles.is_empty() {
                let double =
                    |(name, place): (SecretName, String)| VaultError::Twice { name, first: self.dir.join(place), second: path.clone() };
                return Err(doubles.into_iter().map(double).collect());
            }
            let key = self.digest_key(keyring).map_err(one)?;
            let encrypted = self.recipients.encrypt(plaintext, &self.dir.join(RECIPIENTS)).map_err(one)?;
            let digests = values.iter().map(|(name, value)| (name.clone(), key.digest(name, value))).collect();
            Ok((encrypted, digests))
        });
        if result.is_err() && !path.exists() {
            self.files.remove(file);
        }
        let (encrypted, digests) = result?;
        write_atomically(&path, &encrypted, 0o644).map_err(one)?;
        let record = self.record(&encrypted);
        self.index.set_file(file, record, digests);
        self.write_index().map_err(one)
    }

    /// Records that a secret is what a command prints, runs it once and keeps its digest.
    ///
    /// # Errors
    /// If the name stands elsewhere, the command fails, or a file cannot be written.
    pub fn set_command(&mut self, name: &SecretName, command: Vec<String>, access: Access<'_>) -> Result<(), VaultError> {
        if let Some(place) = self.place(name).filter(|place| place != COMMANDS) {
            return Err(VaultError::Twice { name: name.clone(), first: self.dir.join(place), second: self.dir.join(COMMANDS) });
        }
        let key = self.digest_key(access.keyring)?;
        let path = self.dir.join(COMMANDS);
        let line = format!("\"{name}\": {{ command: {} }}\n", serde_json::Value::from(command.clone()));
        self.commands.insert(name.clone(), command);
        let value = self.command_value(name, access.run)?;
        let mut text =
            std::fs::read_to_string(&path).unwrap_or_else(|_| "# Secrets that a command on the controller prints on stdout.\n".to_owned());
        text.push_str(&line);
        if super::parse_commands(&text).is_err() {
            return Err(VaultError::Content {
                file: path,
                reason: format!("has `{name}` already, or is not a plain map; change it by hand"),
            });
        }
        write_atomically(&path, text.as_bytes(), 0o644)?;
        self.index.secrets.insert(name.clone(), index::Entry { file: COMMANDS.to_owned(), hmac: key.digest(name, &value) });
        self.write_index()
    }

    /// Encrypts everything to the present recipients and writes the index anew. All files are
    /// opened and encrypted before the first is replaced. Returns the number of files.
    ///
    /// # Errors
    /// If any file cannot be opened or written, or a secret's command fails.
    pub fn rekey(&mut self, access: Access<'_>, digest_key: RekeyDigests) -> Result<usize, Vec<VaultError>> {
        let one = |error: VaultError| vec![error];
        let recipients_file = self.dir.join(RECIPIENTS);
        let key = match digest_key {
            RekeyDigests::New => DigestKey::generate(&self.dir.join(index::KEY_FILE)),
            RekeyDigests::Keep => self.digest_key(access.keyring),
        };
        let key = key.map_err(one)?;
        let mut errors = Vec::new();
        let mut index = Index::default();
        let mut staged = Vec::new();
        let mut stage = |index: &mut Index, file: &str, plaintext: &[u8], digests| -> Result<(), VaultError> {
            let encrypted = self.recipients.encrypt(plaintext, &recipients_file)?;
            index.set_file(file, self.record(&encrypted), digests);
            staged.push(Staged::new(&self.dir.join(file), &encrypted, 0o644)?);
            Ok(())
        };
        stage(&mut index, index::KEY_FILE, key.text().as_bytes(), Vec::new()).map_err(one)?;
        for file in self.files.keys() {
            let opened = self.plaintext(file, access.keyring).map_err(one).and_then(|plaintext| {
                let values = self.file_values(file, plaintext.clone())?;
                let digests = values.iter().map(|(name, value)| (name.clone(), key.digest(name, value))).collect();
                stage(&mut index, file, &plaintext, digests).map_err(one)
            });
            errors.extend(opened.err().into_iter().flatten());
        }
        for name in self.commands.keys() {
            match self.command_value(name, access.run) {
                Ok(value) => {
                    drop(index.secrets.insert(name.clone(), index::Entry { file: COMMANDS.to_owned(), hmac: key.digest(name, &value) }));
                }
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let count = staged.len();
        staged.into_iter().try_for_each(Staged::commit).map_err(one)?;
        self.index = index;
        self.write_index().map_err(one)?;
        Ok(count)
    }
}

/// Whether a rekey keeps the key of the keyed digests. With a new one every host's record of its
/// secret files is out of date once, and the next apply writes them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RekeyDigests {
    Keep,
    New,
}

fn is_map(file: &str) -> bool {
    file.ends_with(".yml.age") || file.ends_with(".yaml.age")
}
