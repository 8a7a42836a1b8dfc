//! The files of a project: each is read once and parsed once per run, and counted in the digest.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::source::{self, Node};
use crate::diagnostic::{Diagnostic, Location};

/// Reads files below, and beside, a project's root.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    texts: Mutex<BTreeMap<PathBuf, Arc<str>>>,
    parsed: Mutex<HashMap<PathBuf, Result<Arc<Node>, Diagnostic>>>,
    digests: Mutex<BTreeMap<PathBuf, [u8; 32]>>,
    /// Binary files that many hosts ask for.
    small: Mutex<HashMap<PathBuf, Arc<[u8]>>>,
}

/// Largest file whose bytes are kept for the next host.
const KEPT: usize = 1 << 20;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves a cache, at worst, without an entry.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    /// Files of the project at a directory.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, texts: Mutex::default(), parsed: Mutex::default(), digests: Mutex::default(), small: Mutex::default() }
    }

    /// The project's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path as messages show it: relative to the project where it lies in it.
    #[must_use]
    pub fn shown(&self, path: &Path) -> PathBuf {
        let path = normal(path);
        path.strip_prefix(&self.root).map_or_else(|_| path.clone(), Path::to_path_buf)
    }

    /// The first character of a file, for problems of the file as a whole.
    #[must_use]
    pub fn start(&self, path: &Path) -> Location {
        Location { file: Arc::new(self.shown(path)), line: 1, column: 1, length: 1 }
    }

    /// A file's text.
    ///
    /// # Errors
    /// That it cannot be read, or is not UTF-8.
    pub fn text(&self, path: &Path) -> Result<Arc<str>, Diagnostic> {
        let path = normal(path);
        if let Some(text) = lock(&self.texts).get(&path) {
            return Ok(Arc::clone(text));
        }
        let shown = self.shown(&path);
        let bytes = std::fs::read(&path).map_err(|error| Diagnostic::error(format!("cannot read `{}`: {error}", shown.display())))?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        lock(&self.digests).insert(path.clone(), digest);
        let text = String::from_utf8(bytes).map_err(|_| {
            Diagnostic::error(format!("`{}` is not UTF-8 text", shown.display())).hint("put binary files into `files/` and use `copy`")
        })?;
        let text: Arc<str> = text.strip_prefix('\u{feff}').unwrap_or(&text).into();
        lock(&self.texts).insert(path, Arc::clone(&text));
        Ok(text)
    }

    /// A file as YAML (JSON is YAML too).
    ///
    /// # Errors
    /// That it cannot be read, or what is wrong with it.
    pub fn yaml(&self, path: &Path) -> Result<Arc<Node>, Diagnostic> {
        let path = normal(path);
        if let Some(result) = lock(&self.parsed).get(&path) {
            return result.clone();
        }
        let file = Arc::new(self.shown(&path));
        let result = self.text(&path).and_then(|text| source::parse(&text, &file)).map(Arc::new);
        lock(&self.parsed).insert(path, result.clone());
        result
    }

    /// A file's bytes; small ones are kept.
    ///
    /// # Errors
    /// That it cannot be read.
    pub fn bytes(&self, path: &Path) -> Result<Vec<u8>, Diagnostic> {
        let path = normal(path);
        let bytes =
            std::fs::read(&path).map_err(|error| Diagnostic::error(format!("cannot read `{}`: {error}", self.shown(&path).display())))?;
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        if bytes.len() <= KEPT {
            lock(&self.small).insert(path.clone(), bytes.as_slice().into());
        }
        lock(&self.digests).insert(path, digest);
        Ok(bytes)
    }

    /// The text of a file that was read, by its shown path; for rendering diagnostics.
    #[must_use]
    pub fn seen(&self, shown: &Path) -> Option<Arc<str>> {
        let texts = lock(&self.texts);
        texts.get(&normal(&self.root.join(shown))).or_else(|| texts.get(shown)).cloned()
    }

    /// Counts a file in the digest without keeping it.
    pub fn count(&self, path: &Path) {
        let path = normal(path);
        if !lock(&self.digests).contains_key(&path) {
            let _ = self.bytes(&path);
        }
    }

    /// SHA-256, in hex, over the path and the content of every file that was read so far.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (path, digest) in lock(&self.digests).iter() {
            hash.update(self.shown(path).to_string_lossy().as_bytes());
            hash.update([0]);
            hash.update(digest);
        }
        hex(&hash.finalize())
    }

    /// The same over only those files that are wanted.
    #[must_use]
    pub fn digest_of(&self, wanted: impl Fn(&Path) -> bool) -> String {
        let mut hash = Sha256::new();
        for (path, digest) in lock(&self.digests).iter().filter(|(path, _)| wanted(path)) {
            hash.update(self.shown(path).to_string_lossy().as_bytes());
            hash.update([0]);
            hash.update(digest);
        }
        hex(&hash.finalize())
    }

    /// The first of several names that exists as a file in a directory.
    #[must_use]
    pub fn first(&self, directory: &Path, names: &[&str]) -> Option<PathBuf> {
        names.iter().map(|name| directory.join(name)).find(|path| path.is_file())
    }

    /// All files below a directory, sorted; links to directories are not followed.
    #[must_use]
    pub fn below(&self, directory: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut pending = vec![directory.to_path_buf()];
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                    Ok(_) if entry.path().is_file() => found.push(entry.path()),
                    _ => {}
                }
            }
        }
        found.sort();
        found
    }
}

/// Lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// The path without `.` and `..`, by its text alone.
#[must_use]
pub fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}
