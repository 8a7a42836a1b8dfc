//! `--format json`: one document at the end of the run, of a documented and versioned schema
//! (docs/json.md), or the raw events, one a line (`--format jsonl`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{CheckReport, Event, EventKind, Finding, HostReport, RunInfo, TaskReport};
use crate::report::drift::Removal;

/// Version of the document's schema: the first number changes when something is taken away.
pub const SCHEMA: &str = "1.0";

/// The document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    pub schema: String,
    pub run: RunInfo,
    pub exit: u8,
    pub seconds: f64,
    pub warnings: Vec<String>,
    pub hosts: BTreeMap<String, Host>,
    /// What `drift --fix` put right: host and resource.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed: Vec<(String, String)>,
    /// What `drift --prune` removed, or failed to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Removal>,
}

/// One host of the document.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Host {
    #[serde(flatten)]
    pub report: HostReport,
    #[serde(default)]
    pub tasks: Vec<TaskReport>,
    #[serde(default)]
    pub checks: Vec<CheckReport>,
    /// How the host differs from the repository, worst first (drift).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            run: RunInfo::default(),
            exit: 0,
            seconds: 0.0,
            warnings: Vec::new(),
            hosts: BTreeMap::new(),
            fixed: Vec::new(),
            removed: Vec::new(),
        }
    }
}

impl Document {
    /// Takes one event.
    pub fn event(&mut self, event: &Event) {
        match (&event.host, &event.kind) {
            (_, EventKind::RunStarted(info)) => self.run = info.clone(),
            (_, EventKind::Warning { text }) => self.warnings.push(text.clone()),
            (_, EventKind::RunFinished { exit, seconds }) => (self.exit, self.seconds) = (*exit, *seconds),
            (Some(host), EventKind::Task(task)) => self.host(host).tasks.push(task.clone()),
            (Some(host), EventKind::Finding(finding)) => self.host(host).findings.push(finding.clone()),
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
        text(self)
    }
}

/// Any value as JSON that is safe to look at on a terminal: what JSON itself lets stand (C1
/// controls, marks that turn the direction of text) is escaped, so the value is the same.
#[must_use]
pub fn text(value: &impl Serialize) -> String {
    escaped(&serde_json::to_string_pretty(value).unwrap_or_default())
}

fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || crate::diagnostic::is_printable(c) {
            out.push(c);
        } else {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    out
}

/// `--format jsonl`: each event as it happens, one JSON object a line.
pub struct Lines;

impl crate::event::Listener for Lines {
    fn event(&mut self, event: &Event) {
        if let Ok(line) = serde_json::to_string(event) {
            super::output::write(&(escaped(&line) + "\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_stays_the_same_value() {
        let hostile = "a\u{1b}[2J\u{9b}31m\u{202e}\u{7f}ü\n\0";
        let shown = text(&hostile);
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), hostile);
        assert!(shown.contains('ü') && shown.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{shown:?}");
    }
}
