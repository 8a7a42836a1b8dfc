//! `--format json`: one document at the end of the run, of a documented and versioned schema
//! (docs/json.md), or the raw events, one a line (`--format jsonl`).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::{CheckReport, Event, EventKind, HostReport, RunInfo, TaskReport};

/// Version of the document's schema: the first number changes when something is taken away.
pub const SCHEMA: &str = "1.0";

/// The document.
#[derive(Default, Serialize)]
pub struct Document {
    schema: &'static str,
    run: RunInfo,
    exit: u8,
    seconds: f64,
    warnings: Vec<String>,
    hosts: BTreeMap<String, Host>,
}

#[derive(Default, Serialize)]
struct Host {
    #[serde(flatten)]
    report: HostReport,
    tasks: Vec<TaskReport>,
    checks: Vec<CheckReport>,
}

impl Document {
    /// An empty document.
    #[must_use]
    pub fn new() -> Self {
        Self { schema: SCHEMA, ..Self::default() }
    }

    /// Takes one event.
    pub fn event(&mut self, event: &Event) {
        match (&event.host, &event.kind) {
            (_, EventKind::RunStarted(info)) => self.run = info.clone(),
            (_, EventKind::Warning { text }) => self.warnings.push(text.clone()),
            (_, EventKind::RunFinished { exit, seconds }) => (self.exit, self.seconds) = (*exit, *seconds),
            (Some(host), EventKind::Task(task)) => self.host(host).tasks.push(task.clone()),
            (Some(host), EventKind::Check(check)) => self.host(host).checks.push(check.clone()),
            (Some(host), EventKind::HostFinished(report)) => self.host(host).report = report.clone(),
            _ => {}
        }
    }

    fn host(&mut self, name: &str) -> &mut Host {
        self.hosts.entry(name.to_owned()).or_default()
    }

    /// The document as text.
    #[must_use]
    pub fn render(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}
