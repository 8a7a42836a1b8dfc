//! `facts` and `exec`: hosts without a playbook.

use std::sync::PoisonError;

use crate::cli::{ConnectOptions, ExecArgs, FactsArgs, InventoryOptions, RunArgs};
use crate::command::adhoc;
use crate::command::run::{JobOptions, prepare};
use crate::command::{drive, print};
use crate::diagnostic::{Exit, printable};
use crate::engine::Mode;
use crate::shell::Script;
use crate::transport::Frame;

/// Prints the facts of hosts as JSON.
pub(super) fn run(arguments: &FactsArgs) -> Exit {
    let prepared = match adhoc_job(&arguments.pattern, &arguments.inventory, &arguments.connect, "facts", None) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let (hosts, exit) = drive::run(&prepared, crate::cli::Format::Text, |_, exit| exit);
    let all: serde_json::Map<String, serde_json::Value> =
        hosts.iter().filter(|(_, host)| !host.is_out()).map(|(name, host)| (name.clone(), host.facts.vars().clone().into())).collect();
    print(&format!("{}\n", crate::report::json::text(&all)));
    exit
}

/// Runs a command on hosts and prints what each said.
pub(super) fn exec(arguments: &ExecArgs) -> Exit {
    let frame = Frame {
        deadline: std::time::Duration::from_secs(arguments.deadline),
        ..Frame::new(Script::new().user_code(&arguments.command.join(" ")))
    };
    let prepared = match adhoc_job(&arguments.pattern, &arguments.inventory, &arguments.connect, "exec", Some(frame)) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let (hosts, exit) = drive::run(&prepared, crate::cli::Format::Text, |_, exit| exit);
    let mut failed = false;
    for (name, host) in &hosts {
        let Some(output) = &host.said else { continue };
        failed |= output.status != 0;
        let word = if output.status == 0 { "CHANGED" } else { "FAILED" };
        print(&format!("{name} | {word} | rc={} >>\n", output.status));
        for (mark, bytes) in [("", &output.stdout), ("stderr: ", &output.stderr)] {
            for line in printable(&String::from_utf8_lossy(bytes)).lines() {
                print(&format!("{mark}{line}\n"));
            }
        }
    }
    drop(prepared.captured.lock().unwrap_or_else(PoisonError::into_inner));
    if failed { exit.max(Exit::Failed) } else { exit }
}

fn adhoc_job(
    pattern: &str,
    inventory: &InventoryOptions,
    connect: &ConnectOptions,
    command: &'static str,
    frame: Option<Frame>,
) -> Result<crate::command::run::Prepared, Exit> {
    let loaded = adhoc::load(pattern, inventory)?;
    let run = RunArgs {
        playbook: String::new(),
        inventory: inventory.clone(),
        connect: connect.clone(),
        tags: Vec::new(),
        skip_tags: Vec::new(),
        shard: None,
    };
    let mode = if frame.is_some() { Mode::Exec } else { Mode::Gather };
    let options = JobOptions { mode, command, diff: false, break_lock: false, retry_release: false };
    let mut prepared = prepare(&loaded, &run, &options)?;
    if let Some(job) = std::sync::Arc::get_mut(&mut prepared.job) {
        job.exec = frame;
    }
    Ok(prepared)
}
