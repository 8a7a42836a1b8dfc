//! Drift, folded over a run's events: per host what differs, in every format that somebody reads it
//! in. People get `text`; pages of a code host get `sarif`, a CI gets `junit`, a monitor gets
//! `prometheus`, programs get the run's JSON document.

mod junit;
mod prometheus;
mod sarif;
mod text;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::{Event, EventKind, FailureReport, Finding, FindingState, HostReport, Outcome, RunInfo};
use crate::resource::Severity;

pub use junit::junit;
pub use prometheus::prometheus;
pub use sarif::sarif;
pub use text::text;

/// What a drift run found.
#[derive(Clone, Debug, Default)]
pub struct DriftReport {
    pub run: RunInfo,
    pub hosts: BTreeMap<String, HostDrift>,
    /// What `--fix` put right: host and resource.
    pub fixed: Vec<(String, String)>,
    /// What `--prune` removed, or failed to.
    pub removed: Vec<Removal>,
}

/// Something undeclared that was removed, or not.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct Removal {
    pub host: String,
    pub id: String,
    /// Where on the host it is kept.
    pub kept: String,
    /// Why it is still there, if it is.
    pub failure: Option<String>,
}

/// One host.
#[derive(Clone, Debug, Default)]
pub struct HostDrift {
    /// Worst first; accepted ones last.
    pub findings: Vec<Finding>,
    /// Resources that were compared.
    pub checked: usize,
    /// Names of resources that are as declared.
    pub in_sync: Vec<String>,
    pub report: HostReport,
}

impl HostDrift {
    /// Findings that nobody accepted.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.accepted.is_none())
    }

    /// Why the host could not be looked at, if it could not.
    #[must_use]
    pub fn failure(&self) -> Option<&FailureReport> {
        self.report.failure.as_ref()
    }

    /// Whether the host is as the repository says.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        self.failure().is_none() && self.open().next().is_none()
    }
}

impl DriftReport {
    /// The report of a run's events.
    #[must_use]
    pub fn of(events: &[Event]) -> Self {
        let mut report = Self::default();
        for event in events {
            match (&event.host, &event.kind) {
                (_, EventKind::RunStarted(info)) => {
                    report.run = info.clone();
                    report.hosts = info.hosts.iter().map(|host| (host.clone(), HostDrift::default())).collect();
                }
                (Some(host), EventKind::Finding(finding)) => report.host(host).findings.push(finding.clone()),
                (Some(host), EventKind::Task(task)) if !task.handler => {
                    let host = report.host(host);
                    host.checked += task.resources.len();
                    let fine = task.resources.iter().filter(|resource| resource.outcome == Outcome::Ok);
                    host.in_sync.extend(fine.map(|resource| resource.id.to_string()));
                }
                (Some(host), EventKind::HostFinished(finished)) => report.host(host).report = finished.clone(),
                _ => {}
            }
        }
        report
    }

    fn host(&mut self, name: &str) -> &mut HostDrift {
        self.hosts.entry(name.to_owned()).or_default()
    }

    /// Whether every host that could be looked at is as the repository says.
    #[must_use]
    pub fn is_drifted(&self) -> bool {
        self.hosts.values().any(|host| host.open().next().is_some())
    }

    /// Fills in since when each finding is known; `known` gives seconds since the epoch.
    pub fn date(&mut self, known: impl Fn(&str, &str) -> Option<i64>) {
        for (name, host) in &mut self.hosts {
            for finding in &mut host.findings {
                finding.since = known(name, &finding.id.to_string());
            }
        }
    }
}

/// Severities, worst first, with their words.
const SEVERITIES: [(Severity, &str); 4] =
    [(Severity::Security, "security"), (Severity::Availability, "availability"), (Severity::Config, "config"), (Severity::Info, "info")];

fn severity_word(severity: Severity) -> &'static str {
    SEVERITIES.iter().find(|(known, _)| *known == severity).map_or("config", |(_, word)| word)
}

fn state_word(state: FindingState) -> &'static str {
    match state {
        FindingState::Differs => "differs",
        FindingState::Refused => "needs a decision",
        FindingState::Undeclared => "undeclared",
        FindingState::Unknown => "unknown",
        FindingState::Later => "not known yet",
        FindingState::Condition => "condition",
    }
}

/// A finding as lines for people: what is observed, what is declared.
fn lines(finding: &Finding) -> Vec<String> {
    let mut out: Vec<String> = finding
        .changes
        .iter()
        .map(|change| match (&change.before, &change.after) {
            (None, Some(after)) => format!("{}: is missing, should be {after}", change.field),
            (Some(before), None) => format!("{}: is {before}, should not be", change.field),
            (before, after) => {
                let word = |side: &Option<String>| side.clone().unwrap_or_else(|| "?".to_owned());
                format!("{}: is {}, should be {}", change.field, word(before), word(after))
            }
        })
        .map(|line| crate::diagnostic::printable(&line))
        .collect();
    if !finding.detail.is_empty() {
        out.push(crate::diagnostic::printable(&finding.detail));
    }
    out
}

fn when(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::event::ChangeReport;
    use crate::resource::ResourceId;

    pub(super) fn finding(id: (&str, &str), severity: Severity, state: FindingState) -> Finding {
        Finding {
            id: ResourceId::new(id.0, id.1),
            severity,
            state,
            role: Some("base".into()),
            task: Some("base : x".into()),
            changes: Vec::new(),
            detail: String::new(),
            prune: None,
            since: None,
            accepted: None,
        }
    }

    pub(super) fn report() -> DriftReport {
        let mode = ChangeReport { field: "mode".into(), before: Some("0666".into()), after: Some("0644".into()), diff: None };
        let file = Finding { changes: vec![mode], ..finding(("file", "/etc/a"), Severity::Config, FindingState::Differs) };
        let eve = Finding {
            detail: "uid 0 <&> \"x\"".into(),
            prune: Some("users".into()),
            since: Some(0),
            ..finding(("user", "eve"), Severity::Security, FindingState::Undeclared)
        };
        let known = Finding {
            accepted: Some("until 2027-01-01: known".into()),
            ..finding(("port", "1/tcp"), Severity::Security, FindingState::Undeclared)
        };
        let mut report = DriftReport::default();
        report.run.playbook = "playbooks/lab.yml".into();
        for host in ["h1", "h2"] {
            report.hosts.insert(
                host.into(),
                HostDrift {
                    findings: vec![eve.clone(), file.clone(), known.clone()],
                    checked: 7,
                    in_sync: vec!["file[/etc/b]".into()],
                    ..HostDrift::default()
                },
            );
        }
        report.hosts.insert("h3".into(), HostDrift { checked: 7, in_sync: vec!["file[/etc/a]".into()], ..HostDrift::default() });
        report
    }
}
