//! Writing: a row when a run begins, everything else in one transaction at its end.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use rusqlite::{OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{History, HistoryError};
use crate::event::{Event, EventKind, Listener, RunInfo};
use crate::report::capture::Captured;
use crate::report::findings::{self, State};
use crate::report::json::{Document, Host};

impl History {
    /// Notes that a run began.
    ///
    /// # Errors
    /// That it cannot be written.
    pub fn begin(&mut self, info: &RunInfo) -> Result<(), HistoryError> {
        let outcome = insert_run(&self.db, info, Some(std::process::id()));
        outcome.map(|_| ()).map_err(|error| self.failed(&error))
    }

    /// Keeps a run with everything that it said; one that is kept already is replaced.
    ///
    /// # Errors
    /// That it cannot be written; then nothing of it is.
    pub fn keep(&mut self, document: &Document) -> Result<(), HistoryError> {
        let outcome = self.db.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
            write(&transaction, document)?;
            transaction.commit()
        });
        outcome.map_err(|error| self.failed(&error))
    }

    /// Forgets runs: all but the newest `keep`, or, with a time, all that began before it.
    /// Gives the ids of what went (or, if `dry`, would).
    ///
    /// # Errors
    /// That it cannot be written.
    pub fn prune(&mut self, keep: Option<usize>, before: Option<i64>, dry: bool) -> Result<Vec<String>, HistoryError> {
        let outcome = self.db.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
            let old: Vec<(i64, String)> = transaction
                .prepare("SELECT seq, id FROM runs ORDER BY started DESC, seq DESC")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            let times: std::collections::HashMap<i64, i64> = transaction
                .prepare("SELECT seq, started FROM runs")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            let goes = |index: usize, seq: i64| match (keep, before) {
                (Some(keep), _) => index >= keep,
                (None, Some(before)) => times.get(&seq).is_some_and(|started| *started < before),
                (None, None) => false,
            };
            let gone: Vec<(i64, String)> =
                old.into_iter().enumerate().filter(|(index, (seq, _))| goes(*index, *seq)).map(|(_, run)| run).collect();
            if !dry {
                let mut delete = transaction.prepare("DELETE FROM runs WHERE seq = ?1")?;
                for (seq, _) in &gone {
                    delete.execute([seq])?;
                }
            }
            transaction.commit()?;
            Ok(gone.into_iter().map(|(_, id)| id).collect::<Vec<_>>())
        });
        let gone = outcome.map_err(|error| self.failed(&error))?;
        if !dry && !gone.is_empty() {
            // Gives the space back; what was deleted is overwritten and not only unlinked.
            let _ = self.db.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
        }
        Ok(gone)
    }
}

fn insert_run(db: &rusqlite::Connection, info: &RunInfo, pid: Option<u32>) -> rusqlite::Result<i64> {
    db.execute(
        "INSERT INTO runs (id, command, playbook, root, project, inventory, revision, who, source, started, partial, shard, pid)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        params![
            info.run,
            info.command,
            info.playbook,
            info.root,
            info.project,
            info.inventory,
            info.revision,
            info.who,
            info.from,
            info.started,
            info.partial,
            info.shard,
            pid
        ],
    )?;
    Ok(db.last_insert_rowid())
}

fn write(transaction: &Transaction<'_>, document: &Document) -> rusqlite::Result<()> {
    let info = &document.run;
    let begun: Option<i64> = transaction.query_row("SELECT seq FROM runs WHERE id = ?1", [&info.run], |row| row.get(0)).optional()?;
    let run = begun.map_or_else(|| insert_run(transaction, info, None), Ok)?;
    for table in ["hosts", "cells", "findings"] {
        transaction.execute(&format!("DELETE FROM {table} WHERE run = ?1"), [run])?;
    }
    let warnings = serde_json::to_string(&document.warnings).unwrap_or_default();
    transaction.execute(
        "UPDATE runs SET seconds = ?2, exit = ?3, warnings = ?4, pid = NULL WHERE seq = ?1",
        params![run, document.seconds, document.exit, warnings],
    )?;
    for (name, host) in &document.hosts {
        write_host(transaction, run, name, host)?;
    }
    Ok(())
}

fn write_host(transaction: &Transaction<'_>, run: i64, name: &str, host: &Host) -> rusqlite::Result<()> {
    let failure = host.report.failure.as_ref().map(|failure| findings::bounded(&findings::failure_line(failure)));
    transaction
        .prepare_cached("INSERT INTO hosts (run, host, state, failure, seconds, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![run, name, number(findings::host_state(host)), failure, host.report.seconds, packed(host)])?;
    let mut insert = transaction.prepare_cached("INSERT INTO cells VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for (position, cell) in (0_i64..).zip(findings::cells(host)) {
        let milliseconds = i64::try_from(cell.milliseconds).unwrap_or(i64::MAX);
        insert.execute(params![run, name, cell.role, position, number(cell.state), cell.count, milliseconds])?;
    }
    let mut insert = transaction.prepare_cached("INSERT INTO findings VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for found in findings::of_host(name, host) {
        let severity = serde_json::to_value(found.severity).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
        insert.execute(params![run, name, found.resource, found.role, severity, number(found.state), found.summary])?;
    }
    Ok(())
}

/// A state as it is stored.
pub(super) fn number(state: State) -> i64 {
    State::ALL.iter().position(|other| *other == state).and_then(|at| i64::try_from(at).ok()).unwrap_or_default()
}

fn packed(host: &Host) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let text = serde_json::to_vec(host).unwrap_or_default();
    // Writing to memory does not fail.
    let _ = encoder.write_all(&text);
    encoder.finish().unwrap_or_default()
}

/// Writes a run as it begins and as it ends. Never fails a run: the first thing that goes wrong is
/// said once, and then it is silent.
pub struct Recorder {
    history: Option<History>,
    captured: Arc<Mutex<Captured>>,
    warn: fn(&str),
}

impl Recorder {
    /// A recorder of a run whose events are captured; must listen after the one that captures.
    #[must_use]
    pub fn new(history: History, captured: Arc<Mutex<Captured>>, warn: fn(&str)) -> Self {
        Self { history: Some(history), captured, warn }
    }
}

impl Listener for Recorder {
    fn event(&mut self, event: &Event) {
        let Some(history) = self.history.as_mut() else { return };
        let outcome = match &event.kind {
            EventKind::RunStarted(info) => history.begin(info),
            EventKind::RunFinished { .. } => history.keep(&self.captured.lock().unwrap_or_else(PoisonError::into_inner).document),
            _ => return,
        };
        if let Err(error) = outcome {
            (self.warn)(&format!("warning: this run is not kept in the history: {error}"));
            self.history = None;
        }
    }
}
