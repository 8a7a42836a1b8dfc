//! Private keys: each file is read and unlocked once a run, and shared. A passphrase is asked for
//! once, on a terminal, never in a pipeline.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use russh::keys::{Certificate, PrivateKey, PublicKey, load_openssh_certificate, ssh_key};
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

/// What became of a key file.
#[derive(Clone, Debug)]
pub(super) enum Loaded {
    Key(Arc<PrivateKey>),
    /// Encrypted; its public half, where it can be known.
    Locked(Option<PublicKey>),
    Missing,
    /// A sentence.
    Unusable(String),
}

/// Asks for a passphrase: the question, then the answer, or none.
pub type Ask = Arc<dyn Fn(&str) -> Option<Zeroizing<String>> + Send + Sync>;

/// The keys of a run.
pub(super) struct Keys {
    files: Mutex<Cells>,
    unlocked: Mutex<Cells>,
    /// One question at a time.
    asking: tokio::sync::Mutex<()>,
    ask: Ask,
}

type Cells = HashMap<PathBuf, Arc<OnceCell<Loaded>>>;

fn cell(cells: &Mutex<Cells>, path: &Path) -> Arc<OnceCell<Loaded>> {
    cells.lock().unwrap_or_else(std::sync::PoisonError::into_inner).entry(path.to_owned()).or_default().clone()
}

impl Keys {
    pub(super) fn new(ask: Ask) -> Self {
        Self { files: Mutex::default(), unlocked: Mutex::default(), asking: tokio::sync::Mutex::default(), ask }
    }

    /// Reads a file.
    pub(super) async fn load(&self, path: &Path) -> Loaded {
        if let Some(loaded) = cell(&self.unlocked, path).get() {
            return loaded.clone();
        }
        cell(&self.files, path).get_or_init(async || blocking(path, read_key).await).await.clone()
    }

    /// Asks for a file's passphrase and unlocks it; once, whatever comes of it. Others who want
    /// the same wait.
    pub(super) async fn unlock(&self, path: &Path) {
        let ask = self.ask.clone();
        let work = async || {
            let _one = self.asking.lock().await;
            blocking(path, move |path| {
                let Some(passphrase) = ask(&format!("passphrase of {}: ", path.display())) else {
                    return Loaded::Unusable("is encrypted, and there is nobody to ask for its passphrase".to_owned());
                };
                match russh::keys::load_secret_key(path, Some(&passphrase)) {
                    Ok(key) => Loaded::Key(Arc::new(key)),
                    Err(_) => Loaded::Unusable("is encrypted, and the passphrase was not right".to_owned()),
                }
            })
            .await
        };
        cell(&self.unlocked, path).get_or_init(work).await;
    }
}

async fn blocking(path: &Path, work: impl FnOnce(&Path) -> Loaded + Send + 'static) -> Loaded {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || work(&path)).await.unwrap_or_else(|error| Loaded::Unusable(error.to_string()))
}

fn read_key(path: &Path) -> Loaded {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Loaded::Missing,
        Err(error) => return Loaded::Unusable(format!("cannot be read: {error}")),
    };
    if let Ok(key) = PrivateKey::from_openssh(text.as_bytes())
        && key.is_encrypted()
    {
        return Loaded::Locked(Some(key.public_key().clone()));
    }
    match russh::keys::decode_secret_key(&text, None) {
        Ok(key) => Loaded::Key(Arc::new(key)),
        Err(russh::keys::Error::KeyIsEncrypted | russh::keys::Error::SshKey(ssh_key::Error::Encrypted)) => {
            Loaded::Locked(russh::keys::load_public_key(beside(path, ".pub")).ok())
        }
        Err(error) => Loaded::Unusable(format!("is not a private key that can be used: {error}")),
    }
}

/// The file whose name is this one's with something added.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The certificates that may belong to a key: the one beside it and those that were named.
pub(super) fn certificates(path: &Path, key: &PublicKey, named: &[PathBuf]) -> Vec<Certificate> {
    let beside = beside(path, "-cert.pub");
    let files = std::iter::once(&beside).chain(named.iter().filter(|file| **file != beside));
    files.filter_map(|file| load_openssh_certificate(file).ok()).filter(|certificate| certificate.public_key() == key.key_data()).collect()
}

/// Asks on the terminal, if there is one and this is no pipeline.
pub(super) fn ask_on_terminal(question: &str) -> Option<Zeroizing<String>> {
    if std::env::var_os("CI").is_some() || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return None;
    }
    rpassword::prompt_password(question).ok().map(Zeroizing::new)
}
