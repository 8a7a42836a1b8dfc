//! Whether the host that answers is the one that is meant: asks `known_hosts.rs`, applies the
//! policy, pins new keys, and words the refusals.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey, PublicKeyOrCertificate};

use super::HostKeyPolicy;
use super::known_hosts::{HostName, KnownHosts, Place, Verdict};
use crate::diagnostic::{Failure, FailureClass};

/// Hosts whose new key was learnt in this process ([`HostKeyPolicy::ExpectNew`]).
static LEARNT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// What one connection needs to check its host's key.
pub(super) struct HostCheck {
    name: HostName,
    known: KnownHosts,
    policy: HostKeyPolicy,
    /// Where new keys are pinned, and where the advice says to.
    pins: Option<PathBuf>,
    refusal: Mutex<Option<Failure>>,
}

impl HostCheck {
    /// `files` in the order in which they are searched; new keys go to the first.
    pub(super) fn new(host: &str, port: u16, files: &[PathBuf], policy: HostKeyPolicy) -> Self {
        Self {
            name: HostName::new(host, port),
            known: KnownHosts::load(files),
            policy,
            pins: files.first().cloned(),
            refusal: Mutex::new(None),
        }
    }

    /// Host key algorithms, those of known keys first.
    pub(super) fn algorithms(&self, legacy: bool) -> Vec<Algorithm> {
        let rsa = |hash| Algorithm::Rsa { hash };
        let mut all: Vec<Algorithm> = Vec::new();
        for known in self.known.algorithms(&self.name) {
            match known {
                Algorithm::Rsa { .. } => all.extend([rsa(Some(HashAlg::Sha512)), rsa(Some(HashAlg::Sha256))]),
                other => all.push(other),
            }
        }
        all.push(Algorithm::Ed25519);
        all.extend([EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521].map(|curve| Algorithm::Ecdsa { curve }));
        all.extend([rsa(Some(HashAlg::Sha512)), rsa(Some(HashAlg::Sha256))]);
        all.extend(legacy.then_some(rsa(None)));
        let mut seen = Vec::new();
        all.retain(|algorithm| {
            !seen.contains(algorithm) && {
                seen.push(algorithm.clone());
                true
            }
        });
        all
    }

    /// Algorithms of host certificates, if an authority is known for the host.
    pub(super) fn certificate_algorithms(&self) -> Vec<Algorithm> {
        if self.known.has_authority(&self.name) { self.algorithms(false) } else { Vec::new() }
    }

    /// Whether to go on with a server that proved to have this key.
    pub(super) fn accepts(&self, key: &PublicKeyOrCertificate) -> bool {
        let checked = match key {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.check(key),
            PublicKeyOrCertificate::Certificate(certificate) => {
                self.known.judge_certificate(&self.name, certificate).map_err(|(why, place)| {
                    let mut failure = self.refused("shows a certificate that is not trusted").because(why);
                    failure.causes.extend(place.map(|place| place.to_string()));
                    failure.hint("let the right authority sign a certificate for this name, or correct the `@cert-authority` line")
                })
            }
        };
        match checked {
            Ok(()) => true,
            Err(failure) => {
                *self.refusal.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(failure);
                false
            }
        }
    }

    /// Why the key was not accepted, if that is what happened.
    pub(super) fn refusal(&self) -> Option<Failure> {
        self.refusal.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    fn check(&self, key: &PublicKey) -> Result<(), Failure> {
        match (self.known.judge(&self.name, key), self.policy, &self.pins) {
            (Verdict::Trusted, ..) => Ok(()),
            (Verdict::Revoked(place), ..) => Err(self.revoked(key, &place)),
            (Verdict::Changed(_) | Verdict::Unknown, HostKeyPolicy::ExpectNew, Some(file)) => self.relearn(file, key),
            (Verdict::Changed(place), ..) => Err(self.changed(key, &place)),
            (Verdict::Unknown, HostKeyPolicy::AcceptNew, Some(file)) => self.pin(file, key),
            (Verdict::Unknown, ..) => Err(self.unknown(key)),
        }
    }

    /// Adds a new key to the file, under a lock. Another connection may have been there first.
    fn pin(&self, path: &Path, key: &PublicKey) -> Result<(), Failure> {
        let work = || -> std::io::Result<Verdict> {
            let mut file = std::fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
            file.lock()?;
            let now = KnownHosts::load([&path.to_owned()]).judge(&self.name, key);
            if now != Verdict::Unknown {
                return Ok(now);
            }
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let line = key.to_openssh().map_err(std::io::Error::other)?;
            let words: Vec<&str> = line.split(' ').take(2).collect();
            let start = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            file.write_all(format!("{start}{} {}\n", self.name, words.join(" ")).as_bytes())?;
            file.sync_all()?;
            Ok(Verdict::Trusted)
        };
        match work() {
            Ok(Verdict::Trusted) => {
                tracing::warn!("pinned the host key of `{}`: {} in {}", self.name, shown(key), path.display());
                Ok(())
            }
            Ok(Verdict::Changed(place)) => Err(self.changed(key, &place)),
            Ok(Verdict::Revoked(place)) => Err(self.revoked(key, &place)),
            Ok(Verdict::Unknown) => Err(self.unknown(key)),
            Err(error) => Err(self.refused("has a new key that could not be pinned").because(format!("{}: {error}", path.display()))),
        }
    }

    /// Puts a new key in the place of those that are pinned for the host, once in this process: a
    /// second new key is somebody else's.
    fn relearn(&self, path: &Path, key: &PublicKey) -> Result<(), Failure> {
        let learnt = {
            let mut learnt = LEARNT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            !learnt.insert(self.name.to_string())
        };
        let known_elsewhere = |place: &Place| place.file.as_path() != path;
        match self.known.judge(&self.name, key) {
            Verdict::Changed(place) if learnt || known_elsewhere(&place) => return Err(self.changed(key, &place)),
            Verdict::Unknown if learnt => return Err(self.unknown(key)),
            _ => {}
        }
        let forgotten = std::fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path).and_then(|file| {
            file.lock()?;
            let text = std::fs::read_to_string(path)?;
            let kept = KnownHosts::without(&text, &self.name);
            if kept == text {
                return Ok(());
            }
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut new = tempfile::NamedTempFile::new_in(directory)?;
            new.as_file().set_permissions(file.metadata()?.permissions())?;
            new.write_all(kept.as_bytes())?;
            new.as_file().sync_all()?;
            new.persist(path).map(|_| ()).map_err(|error| error.error)
        });
        match forgotten {
            Ok(()) => self.pin(path, key),
            Err(error) => Err(self.refused("has a new key that could not be pinned").because(format!("{}: {error}", path.display()))),
        }
    }

    fn refused(&self, what: &str) -> Failure {
        Failure::new(FailureClass::HostKey, format!("`{}` {what}", self.name))
    }

    fn unknown(&self, key: &PublicKey) -> Failure {
        let file = self.pins.as_ref().map_or("~/.ssh/known_hosts".to_owned(), |path| path.display().to_string());
        self.refused("is not known").because(format!("it shows the host key {}", shown(key))).hint(format!(
            "compare it with `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` on the host's console, then pin it: `{} >>{file}`",
            self.scan()
        ))
    }

    fn changed(&self, key: &PublicKey, place: &Place) -> Failure {
        self.refused("shows another host key than the one that is pinned")
            .because(format!("pinned at {place}"))
            .because(format!("it shows {}", shown(key)))
            .hint(format!(
                "if the host was rebuilt, run `ssh-keygen -R '{}' -f {}` and pin the new key: `{} >>{}`; if not, somebody may be in between",
                self.name,
                place.file.display(),
                self.scan(),
                place.file.display()
            ))
    }

    fn revoked(&self, key: &PublicKey, place: &Place) -> Failure {
        self.refused("shows a host key that is revoked")
            .because(format!("{} is revoked at {place}", shown(key)))
            .hint("make new host keys on the host (`rm /etc/ssh/ssh_host_*; ssh-keygen -A`) over its console; whoever has the old one can pose as it")
    }

    fn scan(&self) -> String {
        let name = self.name.to_string();
        match name.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:")) {
            Some((host, port)) => format!("ssh-keyscan -p {port} {host}"),
            None => format!("ssh-keyscan {name}"),
        }
    }
}

/// The fingerprint of a line of `known_hosts` as OpenSSH shows it, `SHA256:...`; `None` if the
/// line has no key.
#[must_use]
pub fn fingerprint_of_line(line: &str) -> Option<String> {
    super::known_hosts::key_of_line(line).map(|key| key.fingerprint(HashAlg::Sha256).to_string())
}

fn shown(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}
