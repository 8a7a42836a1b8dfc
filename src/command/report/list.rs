//! `report list` and `report prune`.

use crate::cli::report::{ListArgs, Plain, PruneArgs};
use crate::command::print;
use crate::command::report::{ending, filter, local_time, wrong};
use crate::diagnostic::{Exit, printable};
use crate::history::{Filter, History, RunRow};

/// Lists runs, newest first.
pub(super) fn run(history: &History, arguments: &ListArgs) -> Exit {
    let newest = (arguments.newest > 0).then_some(arguments.newest);
    let runs = match history.runs(&Filter { newest, ..filter(&arguments.which) }) {
        Ok(runs) => runs,
        Err(error) => return wrong(error),
    };
    match arguments.format {
        Plain::Json => print(&format!("{}\n", serde_json::to_string_pretty(&runs).unwrap_or_default())),
        Plain::Jsonl => runs.iter().for_each(|run| print(&format!("{}\n", serde_json::to_string(run).unwrap_or_default()))),
        Plain::Text => print(&table(&runs)),
    }
    Exit::Fine
}

fn table(runs: &[RunRow]) -> String {
    if runs.is_empty() {
        return "no runs\n".to_owned();
    }
    let heads = ["RUN", "STARTED", "COMMAND", "PLAYBOOK", "REVISION", "BY", "TOOK", "ENDED", "HOSTS"].map(str::to_owned);
    let rows = runs.iter().map(|run| {
        let states: Vec<String> = run.states.iter().map(|(word, count)| format!("{count} {word}")).collect();
        let shard = run.info.shard.as_ref().map_or_else(String::new, |shard| format!(" ({shard})"));
        let tags = if run.info.partial { " (some tags)" } else { "" };
        [
            run.info.run.clone(),
            local_time(run.info.started),
            run.info.command.clone(),
            format!("{}{shard}{tags}", run.info.playbook),
            run.info.revision.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{}@{}", run.info.who, run.info.from),
            run.seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s")),
            ending(run.exit, run.pid),
            if states.is_empty() { "-".to_owned() } else { states.join(", ") },
        ]
    });
    columns(&std::iter::once(heads).chain(rows).collect::<Vec<_>>())
}

/// Rows as aligned columns.
pub(in crate::command) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.clone().map(|cell| printable(&cell).replace('\n', " "))).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// Forgets old runs.
pub(super) fn prune(history: &mut History, arguments: &PruneArgs) -> Exit {
    let text = arguments.keep.trim();
    let (keep, before) = match text.parse::<usize>() {
        Ok(count) => (Some(count), None),
        Err(_) => match crate::command::moment::ago(text) {
            Ok(before) => (None, Some(before)),
            Err(why) => return wrong(format!("`--keep {text}`: {why}\nhint: a number of runs (`200`), or a time (`90d`, `12w`)")),
        },
    };
    match history.prune(keep, before, arguments.dry_run) {
        Ok(gone) => {
            if arguments.dry_run {
                gone.iter().for_each(|run| print(&format!("{run}\n")));
            }
            print(&format!("{} runs {}\n", gone.len(), if arguments.dry_run { "would be forgotten" } else { "forgotten" }));
            Exit::Fine
        }
        Err(error) => wrong(error),
    }
}
