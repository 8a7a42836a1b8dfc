//! What a finished run found, resource by resource: the fold that history, comparisons and pages
//! are made of, so that they cannot disagree with the recap.

use serde::{Deserialize, Serialize};

use crate::event::{ChangeReport, FailureReport, Finding as Drifted, FindingState, Outcome, ResourceReport, TaskReport};
use crate::report::json::{Document, Host};
use crate::resource::Severity;

/// Longest summary that is kept, in characters.
const LONGEST: usize = 400;

/// How something stands, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Ok,
    /// Changed by the run: as declared now.
    Changed,
    /// Not as declared.
    Drift,
    /// The host could not tell.
    Unknown,
    Failed,
    /// The host was not reached, so nothing about it is known.
    Unreachable,
}

impl State {
    /// All, best first.
    pub const ALL: [Self; 6] = [Self::Ok, Self::Changed, Self::Drift, Self::Unknown, Self::Failed, Self::Unreachable];

    /// The word in reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Changed => "changed",
            Self::Drift => "drift",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
        }
    }

    /// Whether something is to be done about it.
    #[must_use]
    pub fn is_bad(self) -> bool {
        self >= Self::Drift
    }

    /// What an outcome means.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Ok | Outcome::Skipped { .. } | Outcome::Ignored { .. } => Self::Ok,
            Outcome::Changed => Self::Changed,
            Outcome::WouldChange | Outcome::KnownAfter { .. } => Self::Drift,
            Outcome::Unknown { .. } => Self::Unknown,
            Outcome::Failed { .. } => Self::Failed,
        }
    }
}

/// One resource, or one health check, that is not simply as declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub host: String,
    /// `file[/etc/x]`, or `check[title]`.
    pub resource: String,
    /// The role it belongs to; empty if none.
    pub role: String,
    pub severity: Severity,
    pub state: State,
    /// One line for people.
    pub summary: String,
}

/// A role on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub role: String,
    pub state: State,
    /// How many resources are not simply as declared.
    pub count: u32,
    pub milliseconds: u64,
}

/// Everything that a run found, host by host, in the order of the tasks.
#[must_use]
pub fn findings(document: &Document) -> Vec<Finding> {
    document.hosts.iter().flat_map(|(name, host)| of_host(name, host)).collect()
}

/// What a run found on one host.
#[must_use]
pub fn of_host(name: &str, host: &Host) -> Vec<Finding> {
    if !host.findings.is_empty() {
        return host.findings.iter().filter(|found| found.accepted.is_none()).map(|found| of_drift(name, found)).collect();
    }
    let mut out = Vec::new();
    for task in &host.tasks {
        let role = task.role.clone().unwrap_or_default();
        for resource in &task.resources {
            let state = State::of(&resource.outcome);
            // A handler that would run is a consequence, not a finding.
            if state == State::Ok || (task.handler && state == State::Drift) {
                continue;
            }
            out.push(Finding {
                host: name.to_owned(),
                resource: resource.id.to_string(),
                role: role.clone(),
                severity: resource.severity,
                state,
                summary: summary(resource),
            });
        }
        if let (Outcome::Failed { failure }, true) = (&task.outcome, task.resources.iter().all(|resource| !is_failed(&resource.outcome))) {
            out.push(Finding {
                host: name.to_owned(),
                resource: format!("task[{}]", task.title),
                role,
                severity: Severity::Availability,
                state: State::Failed,
                summary: bounded(&failure_line(failure)),
            });
        }
    }
    for check in host.checks.iter().filter(|check| !check.passed) {
        out.push(Finding {
            host: name.to_owned(),
            resource: format!("check[{}]", check.title),
            role: check.role.clone().unwrap_or_default(),
            severity: Severity::Availability,
            state: State::Failed,
            summary: bounded(&check.detail),
        });
    }
    out
}

/// A finding of drift, which knows more than the tasks: what nobody declared, the host's condition.
fn of_drift(name: &str, found: &Drifted) -> Finding {
    let changes = found.changes.iter().map(change).collect::<Vec<_>>().join("; ");
    let line = [changes, found.detail.clone()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
    Finding {
        host: name.to_owned(),
        resource: found.id.to_string(),
        role: found.role.clone().unwrap_or_default(),
        severity: found.severity,
        state: drifted(found.state),
        summary: bounded(&if found.state == FindingState::Undeclared { format!("nobody declared it: {line}") } else { line }),
    }
}

fn drifted(state: FindingState) -> State {
    if state == FindingState::Unknown { State::Unknown } else { State::Drift }
}

fn is_failed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { .. })
}

/// How a host came out of a run, over all its roles.
#[must_use]
pub fn host_state(host: &Host) -> State {
    match &host.report.failure {
        Some(failure) if failure.class.is_unreachable() => State::Unreachable,
        Some(_) => State::Failed,
        None => cells(host).iter().map(|cell| cell.state).max().unwrap_or(State::Ok),
    }
}

/// The roles of a host, in the order in which they came.
#[must_use]
pub fn cells(host: &Host) -> Vec<Cell> {
    let mut out: Vec<Cell> = Vec::new();
    for task in &host.tasks {
        let state = if task.handler && State::of(&task.outcome) == State::Drift { State::Ok } else { State::of(&task.outcome) };
        let cell = cell(&mut out, task.role.as_deref());
        cell.milliseconds += task.milliseconds;
        if host.findings.is_empty() {
            cell.state = cell.state.max(state);
            cell.count += count(task);
        }
    }
    for found in host.findings.iter().filter(|found| found.accepted.is_none()) {
        let cell = cell(&mut out, found.role.as_deref());
        cell.state = cell.state.max(drifted(found.state));
        cell.count += 1;
    }
    for check in &host.checks {
        let cell = cell(&mut out, check.role.as_deref());
        if !check.passed {
            cell.state = cell.state.max(State::Failed);
            cell.count += 1;
        }
    }
    out
}

fn cell<'a>(cells: &'a mut Vec<Cell>, role: Option<&str>) -> &'a mut Cell {
    let role = role.unwrap_or_default();
    let index = cells.iter().position(|cell| cell.role == role).unwrap_or_else(|| {
        cells.push(Cell { role: role.to_owned(), state: State::Ok, count: 0, milliseconds: 0 });
        cells.len() - 1
    });
    &mut cells[index]
}

fn count(task: &TaskReport) -> u32 {
    let found = task.resources.iter().filter(|resource| {
        let state = State::of(&resource.outcome);
        state != State::Ok && !(task.handler && state == State::Drift)
    });
    u32::try_from(found.count()).unwrap_or(u32::MAX)
}

/// What is the matter with a resource, in one line.
#[must_use]
pub fn summary(resource: &ResourceReport) -> String {
    let line = match &resource.outcome {
        Outcome::KnownAfter { resource } => format!("known after {resource}"),
        Outcome::Unknown { reason } | Outcome::Skipped { reason } => reason.clone(),
        Outcome::Failed { failure } | Outcome::Ignored { failure } => failure_line(failure),
        _ if resource.changes.is_empty() && resource.unchecked => "not checkable: it runs every time".to_owned(),
        _ => resource.changes.iter().map(change).collect::<Vec<_>>().join("; "),
    };
    bounded(&line)
}

fn change(change: &ChangeReport) -> String {
    let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
    format!("{}: {} -> {}", change.field, side(&change.before), side(&change.after))
}

/// A failure in one line.
#[must_use]
pub fn failure_line(failure: &FailureReport) -> String {
    std::iter::once(&failure.message).chain(&failure.causes).cloned().collect::<Vec<_>>().join(": ")
}

/// One line, safe for a terminal, of a bounded length.
#[must_use]
pub fn bounded(text: &str) -> String {
    let line = crate::diagnostic::printable(&text.replace('\n', "\\n").replace('\t', " "));
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::event::HostReport;
    use crate::resource::ResourceId;

    /// A task of a role with one resource.
    pub(crate) fn task(role: &str, name: &str, outcome: Outcome) -> TaskReport {
        TaskReport {
            play: 0,
            title: format!("{role} : {name}"),
            role: Some(role.to_owned()),
            place: Some(format!("roles/{role}/tasks/main.yml:1")),
            handler: false,
            outcome: outcome.clone(),
            resources: vec![ResourceReport {
                id: ResourceId::new("file", format!("/etc/{name}")),
                severity: Severity::Config,
                outcome,
                changes: vec![ChangeReport {
                    field: "mode".to_owned(),
                    before: Some("0666".to_owned()),
                    after: Some("0644".to_owned()),
                    diff: None,
                }],
                notes: Vec::new(),
                unchecked: false,
            }],
            milliseconds: 5,
        }
    }

    /// A document of one run.
    pub(crate) fn document(run: &str, started: i64, hosts: &[(&str, Vec<TaskReport>)]) -> Document {
        let mut document = Document::default();
        document.run.run = run.to_owned();
        document.run.command = "drift".to_owned();
        document.run.playbook = "playbooks/p.yml".to_owned();
        document.run.started = started;
        for (name, tasks) in hosts {
            document.run.hosts.push((*name).to_owned());
            document.hosts.insert((*name).to_owned(), Host { report: HostReport::default(), tasks: tasks.clone(), ..Host::default() });
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{document, task};
    use super::*;

    #[test]
    fn only_what_is_not_as_declared_is_found_and_cells_take_the_worst() {
        let document = document("r", 1, &[("h1", vec![task("base", "a", Outcome::Ok), task("base", "b", Outcome::WouldChange)])]);
        let found = findings(&document);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].resource.as_str(), found[0].summary.as_str()), ("file[/etc/b]", "mode: 0666 -> 0644"));
        let cells = cells(&document.hosts["h1"]);
        assert_eq!((cells.len(), cells[0].state, cells[0].count, cells[0].milliseconds), (1, State::Drift, 1, 10));
    }

    #[test]
    fn summaries_are_one_bounded_line() {
        let line = bounded(&format!("a\nb\u{1b}[2J{}", "x".repeat(1000)));
        assert!(line.starts_with("a\\nb\\u{1b}[2J") && line.len() < 500, "{line}");
    }

    #[test]
    fn documents_are_read_back() {
        let document = document("r", 1, &[("h1", vec![task("base", "a", Outcome::KnownAfter { resource: "x[y]".to_owned() })])]);
        let text = document.render();
        let back: Document = serde_json::from_str(&text).unwrap();
        assert_eq!(back.render(), text);
    }
}
