//! `status`: where each host of a playbook stands. Read-only.

mod expiry;
mod look;
mod show;

use std::sync::{Arc, PoisonError};

use crate::cli::{Format, RunArgs};
use crate::command::run::{JobOptions, load, prepare};
use crate::command::{drive, print};
use crate::diagnostic::Exit;
use crate::engine::Mode;
use look::Look;

/// Shows where hosts stand.
pub(super) fn run(arguments: &RunArgs) -> Exit {
    let loaded = match load(&arguments.playbook, &arguments.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let options = JobOptions { mode: Mode::Inspect, command: "status", diff: false, break_lock: false, retry_release: false };
    // The run's own output would only repeat it.
    let mut quiet = arguments.clone();
    quiet.connect.format = Format::Json;
    let mut prepared = match prepare(&loaded, &quiet, &options) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let look = Arc::new(Look::default());
    match Arc::get_mut(&mut prepared.job) {
        Some(job) => job.operation = Some(look.clone()),
        None => return Exit::Bug,
    }
    let (hosts, exit) = drive::run(&prepared, Format::Text, |_, exit| exit);
    let mut standings = look.found.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, host) in &hosts {
        if let Some(failure) = &host.failure {
            standings.entry(name.clone()).or_default().failure = Some(failure.message.clone());
        }
    }
    let now = jiff::Timestamp::now().as_second();
    match arguments.connect.format {
        Format::Text => print(&show::text(&standings, now)),
        Format::Jsonl => {
            for (host, standing) in standings.iter() {
                print(&format!("{}\n", serde_json::json!({ "host": host, "status": standing })));
            }
        }
        _ => print(&format!("{}\n", serde_json::to_string_pretty(&*standings).unwrap_or_default())),
    }
    exit
}
