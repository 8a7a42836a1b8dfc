//! `report show`: one run, told again.

use crate::cli::report::{Plain, ShowArgs};
use crate::command::print;
use crate::command::report::{ending, filter, local_time, wrong};
use crate::diagnostic::{Exit, printable};
use crate::history::{Filter, History, RunRow};
use crate::report::findings;
use crate::report::json::{Document, Host};
use crate::report::recap;

/// Shows a run.
pub(super) fn run(history: &History, arguments: &ShowArgs) -> Exit {
    let run = match history.find(&arguments.run, &filter(&arguments.which)) {
        Ok(run) => run,
        Err(why) => return wrong(why),
    };
    let mut document = match history.document(&run) {
        Ok(document) => document,
        Err(error) => return wrong(error),
    };
    if let Some(wanted) = &arguments.which.host {
        document.hosts.retain(|name, _| name == wanted);
    }
    match arguments.format {
        Plain::Json => print(&format!("{}\n", document.render())),
        Plain::Jsonl => {
            for (name, host) in &document.hosts {
                print(&format!("{}\n", serde_json::json!({ "host": name, "report": host })));
            }
        }
        Plain::Text => print(&text(history, &run, &document, arguments.diff)),
    }
    Exit::Fine
}

fn text(history: &History, run: &RunRow, document: &Document, diff: bool) -> String {
    let info = &run.info;
    let mut out = format!("{} {} on {}\n", info.run, info.command, printable(&info.playbook));
    out.push_str(&format!("  started   {} by {}\n", local_time(info.started), printable(&format!("{}@{}", info.who, info.from))));
    out.push_str(&format!("  project   {}\n", printable(&info.root)));
    let digest = |text: &str| text.chars().take(12).collect::<String>();
    out.push_str(&format!(
        "  revision  {}, files {}, inventory {}\n",
        printable(info.revision.as_deref().unwrap_or("none")),
        digest(&info.project),
        digest(&info.inventory)
    ));
    let took = run.seconds.map_or_else(String::new, |seconds| format!(" after {seconds:.1} s"));
    out.push_str(&format!("  ended     {}{took}\n", ending(run.exit, run.pid)));
    for warning in &document.warnings {
        out.push_str(&format!("  warning: {}\n", printable(warning)));
    }
    let since = history.since(&info.root, &info.playbook).unwrap_or_default();
    let newest = history.runs(&Filter { newest: Some(1), ..Filter::default() }).is_ok_and(|runs| runs.iter().any(|one| one.seq == run.seq));
    for (name, host) in &document.hosts {
        out.push_str(&format!("\n{}\n", recap::line(name, &host.report.recap, false)));
        if let Some(failure) = &host.report.failure {
            out.push_str(&format!("  {}\n", findings::bounded(&findings::failure_line(failure))));
        }
        for found in findings::of_host(name, host) {
            let age = since.get(&(name.clone(), found.resource.clone())).filter(|_| newest && found.state.is_bad());
            let age = age.map_or_else(String::new, |seconds| format!(" (since {})", local_time(*seconds)));
            out.push_str(&format!(
                "  {} {} ({}): {}{age}\n",
                found.state.word(),
                printable(&found.resource),
                severity(&found),
                found.summary
            ));
        }
        if diff {
            out.push_str(&diffs(host));
        }
        out.push_str(&timings(host));
    }
    out
}

/// The severity in a word.
pub(super) fn severity(found: &findings::Finding) -> String {
    format!("{:?}", found.severity).to_lowercase()
}

fn diffs(host: &Host) -> String {
    let mut out = String::new();
    for resource in host.tasks.iter().flat_map(|task| &task.resources) {
        for diff in resource.changes.iter().filter_map(|change| change.diff.as_ref()) {
            out.push_str(&format!("  {}\n", printable(&resource.id.to_string())));
            printable(diff).lines().for_each(|line| out.push_str(&format!("    {line}\n")));
        }
    }
    out
}

fn timings(host: &Host) -> String {
    let mut roles: Vec<(&String, &f64)> = host.report.roles.iter().filter(|(_, seconds)| **seconds >= 0.05).collect();
    roles.sort_by(|a, b| b.1.total_cmp(a.1));
    let roles: Vec<String> = roles.iter().map(|(role, seconds)| format!("{role} {seconds:.1} s")).collect();
    let roles = if roles.is_empty() { String::new() } else { format!(": {}", roles.join(", ")) };
    format!("  {:.1} s, {} round trips{roles}\n", host.report.seconds, host.report.round_trips)
}
