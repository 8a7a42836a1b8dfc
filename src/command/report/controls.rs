//! `report controls`: benchmarks' ids to resources to how they stand.

use std::collections::BTreeSet;

use crate::cli::report::{ControlsArgs, Plain};
use crate::command::print;
use crate::command::report::{columns, latest, local_time, wrong};
use crate::diagnostic::{Exit, printable};
use crate::history::History;
use crate::report::controls::{Standing, standings};
use crate::report::findings::State;

/// Shows how controls stand in the last run on a whole playbook.
pub(super) fn run(history: &History, arguments: &ControlsArgs) -> Exit {
    let document = latest(history, arguments.run.as_deref(), &arguments.which)
        .and_then(|run| history.document(&run).map_err(|error| error.to_string()));
    let document = match document {
        Ok(document) => document,
        Err(why) => return wrong(why),
    };
    let mut all = standings(&document);
    if let Some(framework) = &arguments.framework {
        let wanted = framework.to_lowercase();
        all.retain(|standing| standing.framework.to_lowercase().contains(&wanted));
    }
    if all.is_empty() {
        return wrong("no control fits; frameworks are CIS Docker, CIS Debian and NIST");
    }
    match arguments.format {
        Plain::Text => {
            print(&format!("{} of {}, {}\n\n", document.run.command, printable(&document.run.playbook), local_time(document.run.started)));
            print(&text(&all));
        }
        Plain::Json => print(&format!("{}\n", serde_json::to_string_pretty(&all).unwrap_or_default())),
        Plain::Jsonl => all.iter().for_each(|standing| print(&format!("{}\n", serde_json::to_string(standing).unwrap_or_default()))),
    }
    let bad = all.iter().any(|standing| standing.state.is_some_and(State::is_bad));
    if arguments.exit_code && bad { Exit::Drift } else { Exit::Fine }
}

fn text(all: &[Standing]) -> String {
    let hosts: BTreeSet<&str> = all.iter().map(|standing| standing.host.as_str()).collect();
    let mut seen = BTreeSet::new();
    let mut rows = vec![["FRAMEWORK", "ID", "STATE", "RESOURCES", "CONTROL"].map(str::to_owned)];
    let mut notes = String::new();
    for standing in all.iter().filter(|standing| seen.insert((standing.framework, standing.id))) {
        let same: Vec<&Standing> = all.iter().filter(|other| (other.framework, other.id) == (standing.framework, standing.id)).collect();
        let kept: Vec<State> = same.iter().filter_map(|other| other.state).collect();
        let state = match kept.iter().max() {
            None => "not kept here".to_owned(),
            Some(worst) if worst.is_bad() => {
                let bad = kept.iter().filter(|state| state.is_bad()).count();
                format!("{} on {bad} of {} hosts", worst.word(), hosts.len())
            }
            Some(_) if kept.len() < hosts.len() => format!("ok on {} of {} hosts", kept.len(), hosts.len()),
            Some(_) => "ok".to_owned(),
        };
        let resources = same.iter().map(|other| other.resources).sum::<usize>();
        rows.push([standing.framework.to_owned(), standing.id.to_owned(), state, resources.to_string(), standing.title.to_owned()]);
        for other in same.iter().filter(|other| !other.bad.is_empty()) {
            let list: Vec<String> = other.bad.iter().take(5).map(|id| printable(id)).collect();
            let more = if other.bad.len() > 5 { format!(" and {} more", other.bad.len() - 5) } else { String::new() };
            notes.push_str(&format!("{} {}: [{}] {}{more}\n", standing.framework, standing.id, printable(&other.host), list.join(", ")));
        }
    }
    let gap = if notes.is_empty() { "" } else { "\n" };
    format!("{}{gap}{notes}", columns(&rows))
}
