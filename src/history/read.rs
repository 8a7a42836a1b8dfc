//! Reading: lists, single runs as the documents that they printed, what is needed for comparisons.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;

use rusqlite::{Row, params};
use serde::Serialize;

use super::{History, HistoryError};
use crate::event::RunInfo;
use crate::report::findings::{Cell, Finding, State};
use crate::report::json::{Document, Host, SCHEMA};

/// A run as lists show it.
#[derive(Clone, Debug, Serialize)]
pub struct RunRow {
    #[serde(skip)]
    pub seq: i64,
    #[serde(flatten)]
    pub info: RunInfo,
    /// `None` while it goes on, or if it was killed.
    pub exit: Option<u8>,
    pub seconds: Option<f64>,
    /// How many hosts came out how.
    pub states: BTreeMap<&'static str, u32>,
    #[serde(skip)]
    pub pid: Option<u32>,
    #[serde(skip)]
    warnings: String,
}

/// A host of a run.
#[derive(Clone, Debug, Serialize)]
pub struct HostRow {
    pub host: String,
    pub state: State,
    pub failure: Option<String>,
    pub seconds: f64,
}

/// Which runs are meant.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub playbook: Option<String>,
    pub command: Option<String>,
    pub host: Option<String>,
    /// Seconds since the epoch.
    pub after: Option<i64>,
    pub newest: Option<usize>,
}

/// Since when each finding has been there: (host, resource) -> seconds since the epoch.
pub type Since = HashMap<(String, String), i64>;

/// A run's cells: host -> roles.
pub type Aggregate = BTreeMap<String, Vec<Cell>>;

impl History {
    /// Runs, newest first.
    ///
    /// # Errors
    /// That the file cannot be read.
    pub fn runs(&self, filter: &Filter) -> Result<Vec<RunRow>, HistoryError> {
        self.query_runs(filter).map_err(|error| self.failed(&error))
    }

    fn query_runs(&self, filter: &Filter) -> rusqlite::Result<Vec<RunRow>> {
        let mut statement = self.db.prepare(
            "SELECT seq, id, command, playbook, root, project, inventory, revision, who, source, started, partial, shard, exit, seconds,
                    pid, warnings
             FROM runs
             WHERE (?1 IS NULL OR playbook = ?1 OR playbook = 'playbooks/' || ?1 OR playbook = 'playbooks/' || ?1 || '.yml')
               AND (?2 IS NULL OR command = ?2)
               AND (?3 IS NULL OR started >= ?3)
               AND (?4 IS NULL OR EXISTS (SELECT 1 FROM hosts WHERE run = seq AND host = ?4))
             ORDER BY started DESC, seq DESC LIMIT ?5",
        )?;
        let newest = filter.newest.and_then(|count| i64::try_from(count).ok()).unwrap_or(-1);
        let rows = statement.query_map(params![filter.playbook, filter.command, filter.after, filter.host, newest], run_row)?;
        let mut runs = rows.collect::<Result<Vec<_>, _>>()?;
        let mut states = self.db.prepare("SELECT host, state FROM hosts WHERE run = ?1 ORDER BY host")?;
        for run in &mut runs {
            for host in states.query_map([run.seq], |row| Ok((row.get::<_, String>(0)?, state(row.get(1)?))))? {
                let (name, state) = host?;
                run.info.hosts.push(name);
                *run.states.entry(state.word()).or_default() += 1;
            }
        }
        Ok(runs)
    }

    /// The run that a user means: an id, the start or the end of one, `last`, `last~2`.
    ///
    /// # Errors
    /// That there is none, or several.
    pub fn find(&self, wanted: &str, filter: &Filter) -> Result<RunRow, String> {
        let mut runs = self.runs(filter).map_err(|error| error.to_string())?;
        if runs.is_empty() {
            return Err("there are no such runs in the history".to_owned());
        }
        let back = match wanted {
            "last" => Some(0),
            _ => wanted.strip_prefix("last~").map(|count| count.parse::<usize>().unwrap_or(usize::MAX)),
        };
        if let Some(back) = back {
            return if back < runs.len() { Ok(runs.swap_remove(back)) } else { Err(format!("there are only {} runs", runs.len())) };
        }
        let matches = |run: &RunRow| run.info.run == wanted || run.info.run.starts_with(wanted) || run.info.run.ends_with(wanted);
        let mut found: Vec<RunRow> = runs.into_iter().filter(|run| !wanted.is_empty() && matches(run)).collect();
        match found.len() {
            0 => Err(format!("there is no run `{wanted}`; `soc-provision report list` shows them")),
            1 => Ok(found.swap_remove(0)),
            _ => {
                let ids: Vec<&str> = found.iter().take(5).map(|run| run.info.run.as_str()).collect();
                Err(format!("`{wanted}` may mean {}: write more of it", ids.join(", ")))
            }
        }
    }

    /// A run as the document that it printed.
    ///
    /// # Errors
    /// That the file cannot be read, or is damaged.
    pub fn document(&self, run: &RunRow) -> Result<Document, HistoryError> {
        let rows = self.query_bodies(run.seq).map_err(|error| self.failed(&error))?;
        let mut hosts = BTreeMap::new();
        for (name, body) in rows {
            let host = unpacked(&body)
                .map_err(|why| HistoryError { path: self.path.clone(), why: format!("run `{}`, host `{name}`: {why}", run.info.run) })?;
            hosts.insert(name, host);
        }
        Ok(Document {
            schema: SCHEMA.to_owned(),
            run: run.info.clone(),
            exit: run.exit.unwrap_or_default(),
            seconds: run.seconds.unwrap_or_default(),
            warnings: serde_json::from_str(&run.warnings).unwrap_or_default(),
            hosts,
            ..Document::default()
        })
    }

    fn query_bodies(&self, run: i64) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
        let mut statement = self.db.prepare("SELECT host, body FROM hosts WHERE run = ?1")?;
        statement.query_map([run], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }

    /// The hosts of a run.
    ///
    /// # Errors
    /// That the file cannot be read.
    pub fn hosts(&self, run: i64) -> Result<Vec<HostRow>, HistoryError> {
        let query = || -> rusqlite::Result<Vec<HostRow>> {
            let mut statement = self.db.prepare("SELECT host, state, failure, seconds FROM hosts WHERE run = ?1 ORDER BY host")?;
            let host =
                |row: &Row<'_>| Ok(HostRow { host: row.get(0)?, state: state(row.get(1)?), failure: row.get(2)?, seconds: row.get(3)? });
            statement.query_map([run], host)?.collect()
        };
        query().map_err(|error| self.failed(&error))
    }

    /// The roles of a run's hosts.
    ///
    /// # Errors
    /// That the file cannot be read.
    pub fn cells(&self, run: i64) -> Result<Aggregate, HistoryError> {
        let query = || -> rusqlite::Result<Aggregate> {
            let mut statement = self
                .db
                .prepare_cached("SELECT host, role, state, count, milliseconds FROM cells WHERE run = ?1 ORDER BY host, position")?;
            let mut out = Aggregate::new();
            let cell = |row: &Row<'_>| {
                let milliseconds = u64::try_from(row.get::<_, i64>(4)?).unwrap_or_default();
                Ok((row.get::<_, String>(0)?, Cell { role: row.get(1)?, state: state(row.get(2)?), count: row.get(3)?, milliseconds }))
            };
            for row in statement.query_map([run], cell)? {
                let (host, cell) = row?;
                out.entry(host).or_default().push(cell);
            }
            Ok(out)
        };
        query().map_err(|error| self.failed(&error))
    }

    /// What a run found.
    ///
    /// # Errors
    /// That the file cannot be read.
    pub fn findings(&self, run: i64) -> Result<Vec<Finding>, HistoryError> {
        let query = || -> rusqlite::Result<Vec<Finding>> {
            let mut statement = self.db.prepare_cached(
                "SELECT host, resource, role, severity, state, summary FROM findings WHERE run = ?1 ORDER BY host, rowid",
            )?;
            let finding = |row: &Row<'_>| {
                let severity: String = row.get(3)?;
                Ok(Finding {
                    host: row.get(0)?,
                    resource: row.get(1)?,
                    role: row.get(2)?,
                    severity: serde_json::from_value(severity.into()).unwrap_or(crate::resource::Severity::Config),
                    state: state(row.get(4)?),
                    summary: row.get(5)?,
                })
            };
            statement.query_map([run], finding)?.collect()
        };
        query().map_err(|error| self.failed(&error))
    }

    /// Since when what is not as declared now has been so, over the runs on a playbook that looked
    /// at everything. A host that was not reached, and a run on some tags only, say nothing.
    ///
    /// # Errors
    /// That the file cannot be read.
    pub fn since(&self, root: &str, playbook: &str) -> Result<Since, HistoryError> {
        let filter = Filter { playbook: Some(playbook.to_owned()), ..Filter::default() };
        let mut since = Since::new();
        for run in self.runs(&filter)?.into_iter().rev() {
            let looked = matches!(run.info.command.as_str(), "apply" | "drift" | "plan" | "rebuild");
            if !looked || run.info.partial || run.info.root != root || run.exit.is_none() {
                continue;
            }
            let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for finding in self.findings(run.seq)?.into_iter().filter(|finding| finding.state.is_bad()) {
                found.entry(finding.host).or_default().push(finding.resource);
            }
            for host in self.hosts(run.seq)?.into_iter().filter(|host| host.failure.is_none()) {
                let now = found.remove(&host.host).unwrap_or_default();
                since.retain(|(name, resource), _| *name != host.host || now.contains(resource));
                for resource in now {
                    since.entry((host.host.clone(), resource)).or_insert(run.info.started);
                }
            }
        }
        Ok(since)
    }
}

fn run_row(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow {
        seq: row.get(0)?,
        info: RunInfo {
            run: row.get(1)?,
            command: row.get(2)?,
            playbook: row.get(3)?,
            root: row.get(4)?,
            project: row.get(5)?,
            inventory: row.get(6)?,
            revision: row.get(7)?,
            who: row.get(8)?,
            from: row.get(9)?,
            started: row.get(10)?,
            partial: row.get(11)?,
            shard: row.get(12)?,
            hosts: Vec::new(),
        },
        exit: row.get(13)?,
        seconds: row.get(14)?,
        pid: row.get(15)?,
        warnings: row.get(16)?,
        states: BTreeMap::new(),
    })
}

fn state(number: i64) -> State {
    usize::try_from(number).ok().and_then(|number| State::ALL.get(number).copied()).unwrap_or(State::Unknown)
}

fn unpacked(body: &[u8]) -> Result<Host, String> {
    let mut text = Vec::new();
    // A host's report is some megabytes at most; a file that claims more is not ours.
    let limit = 256 << 20;
    flate2::read::GzDecoder::new(body).take(limit).read_to_end(&mut text).map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}
