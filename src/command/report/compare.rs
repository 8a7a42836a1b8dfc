//! `report compare`: what is new, gone and still there from one run to another.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::cli::report::{CompareArgs, Plain};
use crate::command::print;
use crate::command::report::show::severity;
use crate::command::report::{filter, local_time, wrong};
use crate::diagnostic::{Exit, printable};
use crate::history::{History, HistoryError, HostRow, RunRow};
use crate::report::findings::{Finding, State};

/// From one run to another.
#[derive(Debug, Default, Serialize)]
pub(super) struct Comparison {
    /// Whether both saw the same files of the project and the same inventory.
    same_project: bool,
    same_inventory: bool,
    pub(super) new: Vec<Finding>,
    pub(super) gone: Vec<Finding>,
    /// There before, but otherwise: as it is now.
    pub(super) other: Vec<Finding>,
    still: usize,
    /// Hosts that only the later, only the earlier run had.
    hosts_new: Vec<String>,
    hosts_gone: Vec<String>,
    /// Host -> its state before and after, where they differ.
    hosts_changed: BTreeMap<String, (State, State)>,
    /// Host -> seconds before and after, where that is a third more or less and over a second.
    times: BTreeMap<String, (f64, f64)>,
}

/// Compares two runs.
pub(super) fn run(history: &History, arguments: &CompareArgs) -> Exit {
    let (before, after) = match which(history, arguments) {
        Ok(runs) => runs,
        Err(why) => return wrong(why),
    };
    let comparison = match compare(history, &before, &after) {
        Ok(comparison) => comparison,
        Err(error) => return wrong(error),
    };
    match arguments.format {
        Plain::Text => print(&text(&before, &after, &comparison)),
        _ => print(&format!(
            "{}\n",
            serde_json::to_string_pretty(&serde_json::json!({ "before": before, "after": after, "comparison": comparison }))
                .unwrap_or_default()
        )),
    }
    if arguments.exit_code && !comparison.new.is_empty() { Exit::Drift } else { Exit::Fine }
}

/// The two runs that are meant. Those that are not named look at a whole playbook.
fn which(history: &History, arguments: &CompareArgs) -> Result<(RunRow, RunRow), String> {
    let filter = filter(&arguments.which);
    let runs = history.runs(&filter).map_err(|error| error.to_string())?;
    let looked =
        |run: &&RunRow| matches!(run.info.command.as_str(), "apply" | "drift" | "plan" | "rebuild" | "verify") && run.exit.is_some();
    let before = arguments.before.as_ref().map(|wanted| history.find(wanted, &filter)).transpose()?;
    let after = match (&arguments.after, &before) {
        (Some(wanted), _) => history.find(wanted, &filter)?,
        (None, Some(before)) => {
            let later = runs.iter().filter(looked).find(|run| run.seq != before.seq && run.info.playbook == before.info.playbook);
            later.cloned().ok_or_else(|| format!("there is no other run on `{}`", before.info.playbook))?
        }
        (None, None) => runs.iter().find(looked).cloned().ok_or("there is no run on a playbook in the history")?,
    };
    let before = match before {
        Some(before) => before,
        None => {
            let same = |run: &&RunRow| {
                let (one, other) = (&run.info, &after.info);
                (one.command.as_str(), one.playbook.as_str(), one.root.as_str())
                    == (other.command.as_str(), other.playbook.as_str(), other.root.as_str())
            };
            let earlier = runs.iter().filter(looked).skip_while(|run| run.seq != after.seq).skip(1).find(same);
            earlier
                .cloned()
                .ok_or_else(|| format!("there is no `{}` of `{}` before {}", after.info.command, after.info.playbook, after.info.run))?
        }
    };
    Ok((before, after))
}

/// What differs between two runs. Of a host that one of them did not reach, nothing is new or gone.
pub(super) fn compare(history: &History, before: &RunRow, after: &RunRow) -> Result<Comparison, HistoryError> {
    let hosts = |run: &RunRow| -> Result<BTreeMap<String, HostRow>, HistoryError> {
        Ok(history.hosts(run.seq)?.into_iter().map(|host| (host.host.clone(), host)).collect())
    };
    let (old_hosts, new_hosts) = (hosts(before)?, hosts(after)?);
    let names = |hosts: &BTreeMap<String, HostRow>| hosts.keys().cloned().collect::<BTreeSet<String>>();
    let (old_names, new_names) = (names(&old_hosts), names(&new_hosts));
    let mut out = Comparison {
        same_project: before.info.project == after.info.project,
        same_inventory: before.info.inventory == after.info.inventory,
        hosts_new: new_names.difference(&old_names).cloned().collect(),
        hosts_gone: old_names.difference(&new_names).cloned().collect(),
        ..Comparison::default()
    };
    let mut seen = BTreeSet::new();
    for name in old_names.intersection(&new_names) {
        let (old, new) = (&old_hosts[name], &new_hosts[name]);
        if old.state != new.state {
            out.hosts_changed.insert(name.clone(), (old.state, new.state));
        }
        let slower = (new.seconds - old.seconds).abs();
        if slower > 1.0 && slower > old.seconds / 3.0 {
            out.times.insert(name.clone(), (old.seconds, new.seconds));
        }
        if old.state != State::Unreachable && new.state != State::Unreachable {
            seen.insert(name.clone());
        }
    }
    let bad = |run: &RunRow| -> Result<BTreeMap<(String, String), Finding>, HistoryError> {
        let found = history.findings(run.seq)?.into_iter().filter(|found| found.state.is_bad());
        Ok(found.map(|found| ((found.host.clone(), found.resource.clone()), found)).collect())
    };
    let (mut old, new) = (bad(before)?, bad(after)?);
    for (key, found) in new {
        match old.remove(&key) {
            None if seen.contains(&key.0) || out.hosts_new.contains(&key.0) => out.new.push(found),
            None => {}
            Some(was) if was.summary == found.summary && was.state == found.state => out.still += 1,
            Some(_) => out.other.push(found),
        }
    }
    out.gone = old.into_values().filter(|found| seen.contains(&found.host)).collect();
    Ok(out)
}

fn text(before: &RunRow, after: &RunRow, comparison: &Comparison) -> String {
    let head = |word: &str, run: &RunRow| {
        let revision = run.info.revision.clone().unwrap_or_else(|| "no revision".to_owned());
        let what = format!("{} {} of {}, {revision}", run.info.run, run.info.command, run.info.playbook);
        format!("{word:<7} {}  {}\n", local_time(run.info.started), printable(&what))
    };
    let mut out = head("before", before) + &head("after", after);
    for (same, what) in [(comparison.same_project, "the project's files"), (comparison.same_inventory, "the inventory")] {
        if !same {
            out.push_str(&format!("{what} changed in between\n"));
        }
    }
    for (word, hosts) in [("new host", &comparison.hosts_new), ("host gone", &comparison.hosts_gone)] {
        hosts.iter().for_each(|host| out.push_str(&format!("{word}: {}\n", printable(host))));
    }
    for (host, (was, now)) in &comparison.hosts_changed {
        out.push_str(&format!("[{}] {} -> {}\n", printable(host), was.word(), now.word()));
    }
    for (word, list) in [("new", &comparison.new), ("other", &comparison.other), ("gone", &comparison.gone)] {
        for found in list {
            let resource = printable(&found.resource);
            out.push_str(&format!(
                "{word}: [{}] {} {resource} ({}): {}\n",
                printable(&found.host),
                found.state.word(),
                severity(found),
                found.summary
            ));
        }
    }
    for (host, (was, now)) in &comparison.times {
        out.push_str(&format!("[{}] took {was:.1} s -> {now:.1} s\n", printable(host)));
    }
    let counts = (comparison.new.len(), comparison.gone.len(), comparison.other.len(), comparison.still);
    out.push_str(&format!("{} new, {} gone, {} otherwise, {} as before\n", counts.0, counts.1, counts.2, counts.3));
    out
}
