//! The shape of the file and how it came to be: one entry a version, applied in order.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

/// `SOCP`: how the file is known to be ours.
const APPLICATION: i32 = 0x534f_4350;

/// What brings a file from the version before to this one.
const MIGRATIONS: &[&str] = &["
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    command TEXT NOT NULL,
    playbook TEXT NOT NULL,
    root TEXT NOT NULL,
    project TEXT NOT NULL,
    inventory TEXT NOT NULL,
    revision TEXT,
    who TEXT NOT NULL,
    source TEXT NOT NULL,
    started INTEGER NOT NULL,
    partial INTEGER NOT NULL,
    shard TEXT,
    pid INTEGER,
    seconds REAL,
    exit INTEGER,
    warnings TEXT NOT NULL DEFAULT '[]'
);
CREATE INDEX runs_by_time ON runs (started);
CREATE TABLE hosts (
    run INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
    host TEXT NOT NULL,
    state INTEGER NOT NULL,
    failure TEXT,
    seconds REAL NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (run, host)
);
CREATE TABLE cells (
    run INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
    host TEXT NOT NULL,
    role TEXT NOT NULL,
    position INTEGER NOT NULL,
    state INTEGER NOT NULL,
    count INTEGER NOT NULL,
    milliseconds INTEGER NOT NULL,
    PRIMARY KEY (run, host, role)
) WITHOUT ROWID;
CREATE TABLE findings (
    run INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
    host TEXT NOT NULL,
    resource TEXT NOT NULL,
    role TEXT NOT NULL,
    severity TEXT NOT NULL,
    state INTEGER NOT NULL,
    summary TEXT NOT NULL
);
CREATE INDEX findings_by_run ON findings (run, host);
"];

/// Makes a file ready: refuses what is not ours, brings an older one up to date.
pub(super) fn prepare(db: &mut Connection, busy: Duration) -> Result<(), String> {
    let plain = |error: rusqlite::Error| super::plain(&error);
    db.busy_timeout(busy).map_err(plain)?;
    let newest = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    let version = check(db, newest)?;
    // Readers and the writer do not wait for each other. Where the file system cannot do it, the
    // old way stays, which is slower and right.
    let _ = db.pragma_update(None, "journal_mode", "wal");
    db.pragma_update(None, "synchronous", "normal").map_err(plain)?;
    db.pragma_update(None, "foreign_keys", true).map_err(plain)?;
    db.pragma_update(None, "trusted_schema", false).map_err(plain)?;
    if version == newest {
        return Ok(());
    }
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(plain)?;
    // Another process may have been here meanwhile.
    let version = check(&transaction, newest)?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or_default()) {
        transaction.execute_batch(migration).map_err(plain)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(plain)?;
    transaction.pragma_update(None, "user_version", newest).map_err(plain)?;
    transaction.commit().map_err(plain)
}

/// The file's version, if it is ours and not of a later soc-provision.
fn check(db: &Connection, newest: i32) -> Result<i32, String> {
    let number = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).map_err(|error| super::plain(&error));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i32 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(|error| super::plain(&error))?;
    if application != APPLICATION && (tables > 0 || application != 0) {
        return Err("is a database of something else".to_owned());
    }
    if version > newest {
        return Err(format!("was written by a newer soc-provision (its form is {version}, this one knows {newest})"));
    }
    Ok(version)
}
