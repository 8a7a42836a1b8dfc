//! The controller's memory of runs: one SQLite file, written by every run, read by `report`.
//!
//! It holds what reports hold and nothing else: names of secrets, never values. The file is the
//! user's own (0600). Many controllers' processes may write at once: each run is one row while it
//! goes on and one transaction at its end. A history that cannot be written never fails a run.

mod read;
mod schema;
mod write;

pub use read::{Aggregate, Filter, HostRow, RunRow, Since};
pub use write::Recorder;

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// How long a writer waits for another.
const BUSY: Duration = Duration::from_secs(5);

/// The memory, open.
pub struct History {
    db: Connection,
    path: PathBuf,
}

/// Why the memory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{}`: {why}", path.display())]
pub struct HistoryError {
    path: PathBuf,
    why: String,
}

/// Where the memory is unless somebody says otherwise: `$XDG_STATE_HOME/soc-provision/history.db`.
#[must_use]
pub fn default_path() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("soc-provision/history.db"))
}

impl History {
    /// Opens the memory, and makes it if there is none.
    ///
    /// # Errors
    /// That it cannot be made, read, or is not ours.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        let failed = |why: String| HistoryError { path: path.to_owned(), why };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.exists()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| failed(error.to_string()))?;
        }
        // Made by us, so that no other user can read it even for a moment; what SQLite puts beside
        // it takes its permissions.
        let file = std::fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let metadata = file.and_then(|file| file.metadata()).map_err(|error| failed(error.to_string()))?;
        if !metadata.is_file() {
            return Err(failed("is not a file".to_owned()));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|error| failed(error.to_string()))?;
        }
        Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
    }

    /// Opens the memory for reading; there must be one.
    ///
    /// # Errors
    /// That there is none, or it cannot be read.
    pub fn existing(path: &Path) -> Result<Self, HistoryError> {
        if !path.exists() {
            return Err(HistoryError { path: path.to_owned(), why: "there is no history yet".to_owned() });
        }
        Self::open(path)
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, HistoryError> {
        let failed = |why: String| HistoryError { path: path.to_owned(), why };
        let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(|error| failed(plain(&error)))?;
        let mut history = Self { db, path: path.to_owned() };
        schema::prepare(&mut history.db, BUSY).map_err(failed)?;
        Ok(history)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, error: &rusqlite::Error) -> HistoryError {
        HistoryError { path: self.path.clone(), why: plain(error) }
    }
}

/// What SQLite says, in words for somebody who does not know that there is SQLite.
fn plain(error: &rusqlite::Error) -> String {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase, ReadOnly};
    match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked) => "another run writes it and did not end in time".to_owned(),
        Some(DatabaseCorrupt | NotADatabase) => format!("is damaged, or no history at all ({error}); move it away, and a new one is begun"),
        Some(DiskFull) => "the disk is full".to_owned(),
        Some(ReadOnly) => "cannot be written".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
