//! One night's work: drift, what is new since the last time, metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::command::schedule::{Schedule, notify, units};
use crate::command::{complain, print, whole_file};
use crate::diagnostic::Exit;
use crate::report::findings::{self, Finding, State};
use crate::report::json::Document;

/// What was found the last time, so that only what changed is told.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory {
    pub(super) exit: u8,
    /// Everything that was not as declared: `host resource`.
    pub(super) bad: BTreeSet<String>,
    pub(super) last_run: i64,
    /// The last night on which every host gave an answer.
    pub(super) last_success: Option<i64>,
}

/// Does one night's work; exits as drift did.
pub(super) fn run(schedule: &Schedule, place: &Path) -> Result<Exit, String> {
    units::make_directory(place)?;
    let lock_path = place.join(format!("{}.lock", schedule.name));
    let lock = std::fs::OpenOptions::new().create(true).append(true).open(&lock_path);
    let lock = lock.map_err(|error| format!("`{}` cannot be opened: {error}", lock_path.display()))?;
    if lock.try_lock().is_err() {
        return Err(format!("the run of `{}` before this one still goes on; this one was not begun", schedule.name));
    }
    let state_path = place.join(format!("{}.state", schedule.name));
    let before: Option<Memory> = std::fs::read_to_string(&state_path).ok().and_then(|text| serde_json::from_str(&text).ok());
    let now = jiff::Timestamp::now().as_second();
    let (code, document) = drift(schedule)?;
    let found = document.as_ref().map(findings::findings).unwrap_or_default();
    let bad = bad(&found, document.as_ref(), code);
    let answered = document.is_some() && matches!(code, 0 | 3);
    let last_success = if answered { Some(now) } else { before.as_ref().and_then(|before| before.last_success) };
    let after = Memory { exit: code, bad, last_run: now, last_success };
    print(&summary(schedule, &after, &found));
    let mut problems = Vec::new();
    if let Some(path) = &schedule.metrics {
        problems.extend(write_metrics(path, schedule, &after, &found, document.as_ref()).err());
    }
    let changed = before.as_ref().map_or(after.exit != 0, |before| before.exit != after.exit || before.bad != after.bad);
    if changed {
        let news = notify::News::new(schedule, before.as_ref(), &after, &found);
        problems.extend(notify::tell(schedule, &news));
    }
    // What could not be told is told again the next night.
    if problems.is_empty() || !changed {
        let text = serde_json::to_string(&after).map_err(|error| error.to_string())?;
        whole_file(&state_path, text.as_bytes()).map_err(|error| format!("`{}` cannot be written: {error}", state_path.display()))?;
    }
    for problem in &problems {
        complain(&format!("error: {problem}"));
    }
    Ok(exit_of(code))
}

/// Runs drift as a process of its own, so that nothing of it can take the night's work with it.
fn drift(schedule: &Schedule) -> Result<(u8, Option<Document>), String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find out where this program is: {error}"))?;
    let out = Command::new(program)
        .arg("drift")
        .args(&schedule.arguments)
        .args(["--format", "json"])
        .current_dir(&schedule.root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("drift did not start: {error}"))?;
    let code = out.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(Exit::Bug.code());
    Ok((code, serde_json::from_slice(&out.stdout).ok()))
}

fn bad(found: &[Finding], document: Option<&Document>, code: u8) -> BTreeSet<String> {
    let mut out: BTreeSet<String> =
        found.iter().filter(|found| found.state.is_bad()).map(|found| format!("{} {}", found.host, found.resource)).collect();
    for (name, host) in document.iter().flat_map(|document| &document.hosts) {
        if let Some(failure) = &host.report.failure {
            out.insert(format!(
                "{name} {}",
                serde_json::to_value(failure.class).ok().and_then(|class| class.as_str().map(str::to_owned)).unwrap_or_default()
            ));
        }
    }
    if document.is_none() {
        out.insert(format!("- no answer at all (exit {code})"));
    }
    out
}

fn summary(schedule: &Schedule, memory: &Memory, found: &[Finding]) -> String {
    let mut out = String::new();
    for found in found.iter().filter(|found| found.state.is_bad()) {
        out.push_str(&format!(
            "{}: [{}] {}: {}\n",
            found.state.word(),
            found.host,
            crate::diagnostic::printable(&found.resource),
            found.summary
        ));
    }
    out.push_str(&format!("{}: {} not as declared, exit {}\n", schedule.name, memory.bad.len(), memory.exit));
    out
}

fn exit_of(code: u8) -> Exit {
    let all = [Exit::Fine, Exit::Usage, Exit::Drift, Exit::Unreachable, Exit::Failed, Exit::Reverted, Exit::Interrupted];
    all.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Bug)
}

/// Prometheus' text format; replaced whole, and readable by the collector, which is another user.
fn write_metrics(path: &Path, schedule: &Schedule, memory: &Memory, found: &[Finding], document: Option<&Document>) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |error: std::io::Error| format!("`{}` cannot be written: {error}", path.display());
    whole_file(path, metrics(schedule, memory, found, document).as_bytes()).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).map_err(failed)
}

fn metrics(schedule: &Schedule, memory: &Memory, found: &[Finding], document: Option<&Document>) -> String {
    let label = schedule.name.replace(['\\', '"', '\n'], "_");
    let mut out = String::new();
    let mut gauge = |name: &str, help: &str, values: &[(String, String)]| {
        out.push_str(&format!("# HELP soc_provision_{name} {help}\n# TYPE soc_provision_{name} gauge\n"));
        for (labels, value) in values {
            out.push_str(&format!("soc_provision_{name}{{schedule=\"{label}\"{labels}}} {value}\n"));
        }
    };
    let one = |value: String| vec![(String::new(), value)];
    gauge("last_run_timestamp_seconds", "When drift ran last.", &one(memory.last_run.to_string()));
    if let Some(when) = memory.last_success {
        gauge("last_success_timestamp_seconds", "When drift last had an answer from every host.", &one(when.to_string()));
    }
    gauge("last_exit_code", "How drift ended: 0 in sync, 3 differs, 4 unreachable, 2 failed.", &one(memory.exit.to_string()));
    let mut severities: BTreeMap<String, u32> = ["security", "availability", "config", "info"].map(|word| (word.to_owned(), 0)).into();
    for found in found.iter().filter(|found| found.state.is_bad()) {
        *severities.entry(format!("{:?}", found.severity).to_lowercase()).or_default() += 1;
    }
    let values: Vec<(String, String)> =
        severities.iter().map(|(word, count)| (format!(",severity=\"{word}\""), count.to_string())).collect();
    gauge("findings", "What is not as declared, by severity.", &values);
    let mut states: BTreeMap<&str, u32> =
        State::ALL.iter().filter(|state| **state != State::Changed).map(|state| (state.word(), 0)).collect();
    for host in document.iter().flat_map(|document| document.hosts.values()) {
        *states.entry(findings::host_state(host).word()).or_default() += 1;
    }
    let values: Vec<(String, String)> = states.iter().map(|(word, count)| (format!(",state=\"{word}\""), count.to_string())).collect();
    gauge("hosts", "Hosts by how they stand.", &values);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Outcome;
    use crate::report::findings::testing::{document, task};

    #[test]
    fn metrics_count_findings_and_hosts() {
        let document = document("r", 1, &[("h1", vec![task("base", "a", Outcome::WouldChange)]), ("h2", vec![])]);
        let found = findings::findings(&document);
        let schedule = Schedule { name: "prod".to_owned(), ..Schedule::default() };
        let memory = Memory { exit: 3, last_run: 7, last_success: Some(7), bad: bad(&found, Some(&document), 3) };
        let text = metrics(&schedule, &memory, &found, Some(&document));
        for line in [
            "soc_provision_last_success_timestamp_seconds{schedule=\"prod\"} 7\n",
            "soc_provision_findings{schedule=\"prod\",severity=\"config\"} 1\n",
            "soc_provision_hosts{schedule=\"prod\",state=\"drift\"} 1\n",
            "soc_provision_hosts{schedule=\"prod\",state=\"ok\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert_eq!(memory.bad.len(), 1);
    }
}
