//! `preflight`: what roles and stacks require of their hosts against what the hosts have, in one
//! table, and every reason why `apply` would refuse. Touches nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use crate::cli::{Format, RunArgs};
use crate::command::run::{JobOptions, load, prepare};
use crate::command::{drive, print};
use crate::diagnostic::{Exit, Failure, printable};
use crate::engine::Mode;
use crate::engine::apply::Walk;
use crate::engine::host::HostRun;
use crate::engine::operate::Operation;
use crate::engine::preflight::{Row, Verdict};
use crate::report::{Paint, colour_on_stdout, paint};

/// Compares and shows.
pub(super) fn run(arguments: &RunArgs) -> Exit {
    let loaded = match load(&arguments.playbook, &arguments.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let format = arguments.connect.format;
    let mut run = arguments.clone();
    // The table is the answer; there is no recap to it.
    run.connect.format = Format::Json;
    let options = JobOptions { mode: Mode::Inspect, command: "preflight", diff: false, break_lock: false, retry_release: false };
    let mut prepared = match prepare(&loaded, &run, &options) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let operation = Arc::new(Preflight::default());
    match Arc::get_mut(&mut prepared.job) {
        Some(job) => job.operation = Some(operation.clone()),
        None => return Exit::Bug,
    }
    let (_, exit) = drive::run(&prepared, Format::Text, |_, exit| exit);
    let found = operation.found.lock().unwrap_or_else(PoisonError::into_inner);
    if format == Format::Text {
        print(&text(&found, colour_on_stdout()));
    } else {
        let document = json!({ "exit": exit.code(), "hosts": *found });
        print(&format!("{}\n", serde_json::to_string_pretty(&document).unwrap_or_default()));
    }
    exit
}

/// Rows by host.
#[derive(Default)]
struct Preflight {
    found: Mutex<BTreeMap<String, Vec<Row>>>,
}

impl Operation for Preflight {
    fn run<'a>(&'a self, host: &'a mut HostRun) -> Walk<'a> {
        Box::pin(async move {
            let rows = host.preflight.rows.clone();
            self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(host.name.clone(), rows);
            host.refusals().map_err(|failure| Failure { hint: None, ..failure })
        })
    }
}

/// One table over all hosts; columns as wide as their widest word.
fn text(found: &BTreeMap<String, Vec<Row>>, colour: bool) -> String {
    if found.is_empty() {
        return String::new();
    }
    let mut lines: Vec<([String; 6], Option<Verdict>)> = vec![(["HOST", "WHAT", "NEEDED", "AVAILABLE", "", "BY"].map(str::to_owned), None)];
    for (host, rows) in found {
        for row in rows {
            let word = match row.verdict {
                Verdict::Ok => "ok",
                Verdict::Warn => "warning",
                Verdict::Short => "SHORT",
            };
            let cells = [host.as_str(), &row.what, &row.needed, &row.available, word, &row.by.join(", ")].map(printable);
            lines.push((cells, Some(row.verdict)));
        }
        if rows.is_empty() {
            lines.push((
                [host.as_str(), "nothing", "", "", "ok", "no role or stack requires anything"].map(str::to_owned),
                Some(Verdict::Ok),
            ));
        }
    }
    let width = |column: usize| lines.iter().map(|(cells, _)| cells[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut out = String::new();
    for (cells, verdict) in &lines {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let line = format!("{}  {}", padded.join("  "), cells[5]);
        let shade = match verdict {
            Some(Verdict::Short) => Paint::Red,
            Some(Verdict::Warn) => Paint::Yellow,
            Some(Verdict::Ok) => Paint::Green,
            None => Paint::Bold,
        };
        out.push_str(&paint(colour, shade, line.trim_end()));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up() {
        let row = |what: &str, verdict| Row {
            what: what.to_owned(),
            needed: "8 GiB".to_owned(),
            available: "the host has 4 GiB".to_owned(),
            verdict,
            by: vec!["siem 8 GiB".to_owned()],
            at: Vec::new(),
        };
        let found = BTreeMap::from([
            ("h1".to_owned(), vec![row("memory", Verdict::Short), row("disk /", Verdict::Ok)]),
            ("host-two".to_owned(), Vec::new()),
        ]);
        assert_eq!(
            text(&found, false),
            "HOST      WHAT     NEEDED  AVAILABLE                  BY\nh1        memory   8 GiB   the host has 4 GiB  SHORT  siem 8 GiB\nh1        disk /   8 GiB   the host has 4 GiB  ok     siem 8 GiB\nhost-two  nothing                              ok     no role or stack requires anything\n"
        );
    }
}
