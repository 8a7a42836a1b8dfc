//! `drift`: read-only; everything that differs from the repository, and what nobody declared in
//! places that a role owns.

use crate::cli::{Format, PlanArgs};
use crate::command::run::{JobOptions, load, prepare};
use crate::command::{drive, print};
use crate::diagnostic::Exit;
use crate::engine::{Hosts, Mode};

/// Looks for drift.
pub(super) fn run(arguments: &PlanArgs) -> Exit {
    let loaded = match load(&arguments.run.playbook, &arguments.run.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let options = JobOptions { mode: Mode::Drift, command: "drift", diff: arguments.diff, break_lock: false, retry_release: false };
    let prepared = match prepare(&loaded, &arguments.run, &options) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let format = arguments.run.connect.format;
    let (hosts, exit) = drive::run(&prepared, format, |hosts, exit| if drifted(hosts) { exit.max(Exit::Drift) } else { exit });
    if format == Format::Text {
        print(&undeclared(&hosts));
        print(if drifted(&hosts) { "drift: hosts differ from the repository\n" } else { "drift: none\n" });
    }
    exit
}

fn drifted(hosts: &Hosts) -> bool {
    hosts.values().any(|host| host.pending_tasks() > 0 || !host.undeclared.0.is_empty() || !host.undeclared.1.is_empty())
}

/// What nobody declared, worst first, and places that could not be looked at.
fn undeclared(hosts: &Hosts) -> String {
    let mut out = String::new();
    for (name, host) in hosts {
        let mut found: Vec<_> = host.undeclared.0.iter().collect();
        found.sort_by_key(|item| (item.severity, item.id.clone()));
        for item in found {
            out.push_str(&format!("undeclared: [{name}] {} ({:?}): {}\n", item.id, item.severity, item.detail));
        }
        for place in &host.undeclared.1 {
            out.push_str(&format!("unknown: [{name}] {place}\n"));
        }
    }
    out
}
