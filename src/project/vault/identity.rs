//! Identities: the private keys that open secrets, where they are looked for, and unlocking them.
//!
//! A key with a passphrase is unlocked once, and only when a file is encrypted to it. Reading
//! terminals is left to the caller: it gives [`Keyring::new`] a function that asks.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use zeroize::Zeroizing;

use super::agefile::{Stanza, ssh_tag};
use super::error::VaultError;

/// Environment variable that names an identity file.
pub const IDENTITY_VAR: &str = "SOC_PROVISION_IDENTITY";

/// Where identities are looked for. The first of flag, environment and configuration that is given
/// is the only one used; without any, the two files of the home directory are. A lab-only store
/// adds its own.
#[derive(Clone, Debug, Default)]
pub struct IdentitySources {
    /// `--identity`, each.
    pub flags: Vec<PathBuf>,
    /// `SOC_PROVISION_IDENTITY`.
    pub variable: Option<PathBuf>,
    /// `identity:` of `soc-provision.yml`, absolute or relative to the project.
    pub config: Option<PathBuf>,
    /// The committed identity of a lab-only store.
    pub lab: Option<PathBuf>,
    /// The user's home directory.
    pub home: Option<PathBuf>,
}

impl IdentitySources {
    /// The flags and the configuration as given, the rest from the environment.
    #[must_use]
    pub fn from_environment(flags: &[PathBuf], config: Option<&Path>) -> Self {
        Self {
            flags: flags.to_vec(),
            variable: std::env::var_os(IDENTITY_VAR).filter(|value| !value.is_empty()).map(PathBuf::from),
            config: config.map(Path::to_owned),
            lab: None,
            home: std::env::var_os("HOME").filter(|value| !value.is_empty()).map(PathBuf::from),
        }
    }

    /// Where `secrets keygen` puts a new key: where it will be looked for, which is
    /// `~/.config/soc-provision/identity.txt` unless another file is named.
    #[must_use]
    pub fn default_file(&self) -> Option<PathBuf> {
        let named = self.flags.first().or(self.variable.as_ref()).or(self.config.as_ref());
        match named {
            Some(named) => Some(self.expand(named)),
            None => self.home.as_ref().map(|home| home.join(".config/soc-provision/identity.txt")),
        }
    }

    /// The files to read and whether each must exist.
    fn candidates(&self) -> Vec<(PathBuf, Needed)> {
        let mut files: Vec<(PathBuf, Needed)> = if !self.flags.is_empty() {
            self.flags.iter().map(|path| (self.expand(path), Needed::Yes)).collect()
        } else if let Some(given) = self.variable.as_ref().or(self.config.as_ref()) {
            vec![(self.expand(given), Needed::Yes)]
        } else {
            let home = self.home.iter().flat_map(|home| [home.join(".config/soc-provision/identity.txt"), home.join(".ssh/id_ed25519")]);
            home.map(|path| (path, Needed::IfThere)).collect()
        };
        // Beside whatever else is given: a lab must run on the machine of somebody who has set up keys of their own.
        files.extend(self.lab.iter().map(|path| (path.clone(), Needed::IfThere)));
        files
    }

    fn expand(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.to_owned(),
        }
    }

    /// Every place, for the message that nothing was found.
    fn described(&self) -> Vec<String> {
        let mut out = vec![
            "`--identity` (not given)".to_owned(),
            format!("`{IDENTITY_VAR}` (not set)"),
            "`identity:` in `soc-provision.yml` (not set)".to_owned(),
        ];
        let files = self.candidates();
        out.extend(files.iter().map(|(path, _)| format!("`{}` (not there)", path.display())));
        if self.home.is_none() {
            out.push("the home directory (`HOME` is not set)".to_owned());
        }
        out
    }

    /// Reads the identities.
    ///
    /// # Errors
    /// If there is none, or one that was named is unreadable.
    pub fn load(&self) -> Result<Identities, VaultError> {
        let mut identities = Identities::default();
        let mut trouble = None;
        for (path, needed) in self.candidates() {
            match std::fs::read(&path).map(Zeroizing::new) {
                Ok(bytes) => match identities.add(&path, &bytes) {
                    Ok(()) => {}
                    Err(error) if needed == Needed::Yes => return Err(error),
                    Err(error) => trouble = trouble.or(Some(error)),
                },
                Err(error) if needed == Needed::IfThere && error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let hint = (error.kind() == std::io::ErrorKind::PermissionDenied)
                        .then(|| format!("make it yours: `chown $USER {0} && chmod 600 {0}`", path.display()));
                    let error = VaultError::UnreadableIdentity { path, reason: error.to_string(), hint };
                    if needed == Needed::Yes {
                        return Err(error);
                    }
                    trouble = trouble.or(Some(error));
                }
            }
        }
        match (identities.is_empty(), trouble) {
            (true, Some(error)) => Err(error),
            (true, None) => Err(VaultError::NoIdentity { searched: self.described() }),
            (false, _) => Ok(identities),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needed {
    Yes,
    IfThere,
}

/// The identity file that `soc-provision.yml` names, relative to the project unless absolute.
///
/// # Errors
/// If the file cannot be read.
pub fn configured_identity(root: &Path) -> Result<Option<PathBuf>, VaultError> {
    #[derive(serde::Deserialize)]
    struct Config {
        identity: Option<PathBuf>,
    }
    let path = root.join("soc-provision.yml");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(VaultError::io("read", path, &error)),
    };
    let config: Option<Config> =
        serde_yaml::from_str(&text).map_err(|error| VaultError::Io { what: "read", file: path, reason: error.to_string() })?;
    Ok(config.and_then(|config| config.identity).map(|identity| if identity.starts_with("~") { identity } else { root.join(identity) }))
}

/// Asks for a passphrase: takes what it is for, returns `None` if nobody can be asked.
pub type Ask = Box<dyn Fn(&str) -> Option<Zeroizing<String>> + Send + Sync>;

/// A private key that can be used.
pub(super) type OpenKey = Box<dyn age::Identity + Send + Sync>;

/// Private keys, read.
#[derive(Default)]
pub struct Identities {
    open: Mutex<Vec<OpenKey>>,
    /// ssh keys with a passphrase, with their public keys.
    locked: Mutex<Vec<(PathBuf, String, age::ssh::Identity)>>,
    /// Public keys of all, and the files they are from.
    public: Vec<(String, PathBuf)>,
    ask: Option<Ask>,
}

impl Identities {
    fn is_empty(&self) -> bool {
        self.public.is_empty()
    }

    /// Public keys of the identities, as they stand in `recipients.txt`.
    pub fn public_keys(&self) -> impl Iterator<Item = &str> {
        self.public.iter().map(|(key, _)| key.as_str())
    }

    /// Whether using them may ask for a passphrase.
    pub(super) fn may_ask(&self) -> bool {
        !held(&self.locked).is_empty()
    }

    fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<(), VaultError> {
        let fail = |reason: &str, hint: Option<&str>| VaultError::UnreadableIdentity {
            path: path.to_owned(),
            reason: reason.to_owned(),
            hint: hint.map(str::to_owned),
        };
        let text = std::str::from_utf8(bytes).map_err(|_| fail("it is not text", Some("name the file that holds the private key")))?;
        let start = text.trim_start();
        if start.starts_with("ssh-") || start.starts_with("age1") {
            return Err(fail("it is a public key", Some("name the private key, which is the same path without `.pub`")));
        }
        if start.starts_with("-----BEGIN AGE ENCRYPTED FILE") || start.starts_with("age-encryption.org/") {
            return Err(fail("it is encrypted itself", Some("decrypt it with `age -d`, or use an ssh-ed25519 key with a passphrase")));
        }
        if start.starts_with("-----BEGIN") {
            return self.add_ssh(path, bytes);
        }
        let generate = Some("make one with `soc-provision secrets keygen`");
        let mut count = 0;
        for (index, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            // The line itself is never shown: it may be a key with a slip in it.
            let key: age::x25519::Identity = line.parse().map_err(|_| fail(&format!("line {} is no age identity", index + 1), generate))?;
            self.public.push((key.to_public().to_string(), path.to_owned()));
            self.open.get_mut().unwrap_or_else(PoisonError::into_inner).push(Box::new(key));
            count += 1;
        }
        if count == 0 { Err(fail("it holds no key", generate)) } else { Ok(()) }
    }

    fn add_ssh(&mut self, path: &Path, bytes: &[u8]) -> Result<(), VaultError> {
        let fail =
            |reason: String, hint: &str| VaultError::UnreadableIdentity { path: path.to_owned(), reason, hint: Some(hint.to_owned()) };
        let only = "use an ssh-ed25519 key, or make one with `soc-provision secrets keygen`";
        let key = age::ssh::Identity::from_buffer(bytes, Some(path.display().to_string()))
            .map_err(|error| fail(error.to_string(), "the file may be damaged; name another with `--identity`"))?;
        let recipient =
            age::ssh::Recipient::try_from(key.clone()).map_err(|_| fail("its type of key is not supported".to_owned(), only))?;
        let public = recipient.to_string();
        if ssh_tag(&public).is_none() {
            return Err(fail("its type of key is not supported".to_owned(), only));
        }
        self.public.push((public.clone(), path.to_owned()));
        match key {
            age::ssh::Identity::Encrypted(_) => {
                self.locked.get_mut().unwrap_or_else(PoisonError::into_inner).push((path.to_owned(), public, key));
            }
            _ => self.open.get_mut().unwrap_or_else(PoisonError::into_inner).push(Box::new(key)),
        }
        Ok(())
    }

    /// Tries `attempt` with the open keys, then unlocks those that the file names and tries again.
    /// The attempt returns `Err(None)` when no key fits.
    pub(super) fn open<T>(
        &self,
        stanzas: &[Stanza],
        file: &Path,
        attempt: impl Fn(&[OpenKey]) -> Result<T, Option<VaultError>>,
    ) -> Result<T, VaultError> {
        loop {
            // Bound first: the keys must not stay locked while another is unlocked.
            let outcome = attempt(&held(&self.open));
            match outcome {
                Ok(value) => return Ok(value),
                Err(Some(error)) => return Err(error),
                Err(None) if self.unlock_one(stanzas)? => {}
                Err(None) => {
                    let tried = self.public.iter().map(|(key, path)| format!("`{}` from `{}`", shortened(key), path.display())).collect();
                    return Err(VaultError::WrongIdentity { file: file.to_owned(), tried });
                }
            }
        }
    }

    /// Unlocks the first locked key that the header names; false if there is none.
    fn unlock_one(&self, stanzas: &[Stanza]) -> Result<bool, VaultError> {
        let mut locked = held(&self.locked);
        let named = |public: &str| {
            ssh_tag(public).is_some_and(|tag| stanzas.iter().any(|stanza| stanza.kind == "ssh-ed25519" && stanza.tag == tag))
        };
        let Some(index) = locked.iter().position(|(_, public, _)| named(public)) else { return Ok(false) };
        let (path, _, key) = locked.remove(index);
        let fail = |reason: &str| VaultError::LockedIdentity { path: path.clone(), reason: reason.to_owned() };
        let asked = self.ask.as_ref().and_then(|ask| ask(&format!("passphrase of `{}`: ", path.display())));
        let passphrase = asked.ok_or_else(|| fail("it has a passphrase and there is no terminal to ask on"))?;
        let age::ssh::Identity::Encrypted(key) = &key else { return Ok(false) };
        let open = key.decrypt(age::secrecy::SecretString::from(passphrase.as_str())).map_err(|_| fail("the passphrase is wrong"))?;
        held(&self.open).push(Box::new(age::ssh::Identity::from(open)));
        Ok(true)
    }
}

/// What a lock holds; a thread that died with it held left it whole.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A public key in a form short enough for a sentence.
fn shortened(key: &str) -> String {
    if key.chars().count() <= 24 {
        return key.to_owned();
    }
    let tail: String = key.chars().skip(key.chars().count() - 8).collect();
    format!("{}...{tail}", key.chars().take(14).collect::<String>())
}

/// Identities that are read when the first file must be opened, and not before: a run without
/// secrets needs no key.
pub struct Keyring {
    sources: IdentitySources,
    ask: Mutex<Option<Ask>>,
    loaded: OnceLock<Result<Identities, VaultError>>,
}

impl Keyring {
    /// A keyring over the sources; `ask` reads passphrases.
    #[must_use]
    pub fn new(sources: IdentitySources, ask: Option<Ask>) -> Self {
        Self { sources, ask: Mutex::new(ask), loaded: OnceLock::new() }
    }

    /// The identities.
    ///
    /// # Errors
    /// As [`IdentitySources::load`].
    pub fn identities(&self) -> Result<&Identities, VaultError> {
        let loaded = self.loaded.get_or_init(|| {
            self.sources.load().map(|mut identities| {
                identities.ask = held(&self.ask).take();
                identities
            })
        });
        loaded.as_ref().map_err(Clone::clone)
    }

    /// Where they are looked for.
    #[must_use]
    pub fn sources(&self) -> &IdentitySources {
        &self.sources
    }
}

/// A new age key: the text of its identity file, and its public key.
#[must_use]
pub fn generate(created: &str) -> (Zeroizing<Vec<u8>>, String) {
    use age::secrecy::ExposeSecret as _;
    let identity = age::x25519::Identity::generate();
    let public = identity.to_public().to_string();
    let mut text = Zeroizing::new(Vec::with_capacity(256));
    // Writing to memory with room for it does not fail.
    let _ = writeln!(text, "# created: {created}\n# public key: {public}");
    text.extend_from_slice(identity.to_string().expose_secret().as_bytes());
    text.push(b'\n');
    (text, public)
}
