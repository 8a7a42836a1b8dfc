//! Drives a job: the async runtime, Ctrl-C, the outcome.

use std::sync::{Arc, PoisonError};

use crate::cli::Format;
use crate::command::run::Prepared;
use crate::command::{complain, print};
use crate::diagnostic::Exit;
use crate::engine::{self, Cancel, Hosts};
use crate::event::EventKind;

/// As [`run`], and prints nothing at the end: the caller knows more to print.
pub(super) fn quietly(prepared: &Prepared, decide: impl FnOnce(&Hosts, Exit) -> Exit) -> (Hosts, Exit) {
    run(prepared, Format::Text, decide)
}

/// Runs a job to its end; `decide` may still worsen the exit code from what the hosts say.
pub(super) fn run(prepared: &Prepared, format: Format, decide: impl FnOnce(&Hosts, Exit) -> Exit) -> (Hosts, Exit) {
    let job = prepared.job.clone();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("error: no async runtime: {error}"));
            return (Hosts::new(), Exit::Bug);
        }
    };
    let (hosts, exit) = runtime.block_on(async {
        let keys = tokio::spawn(ctrl_c(job.cancel.clone()));
        let outcome = engine::run(job.clone()).await;
        keys.abort();
        outcome
    });
    // Whatever still hangs (a dead peer) must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    let exit = exit.max(decide(&hosts, exit));
    job.events.emit(None, EventKind::RunFinished { exit: exit.code(), seconds: job.events.elapsed() });
    let document = || prepared.captured.lock().unwrap_or_else(PoisonError::into_inner);
    match format {
        Format::Json => print(&format!("{}\n", document().document.render())),
        Format::Junit => print(&crate::report::junit::render(&document().document)),
        Format::Text | Format::Jsonl | Format::Sarif | Format::Prometheus => {}
    }
    (hosts, exit)
}

/// Once: finish the step under way. Twice: stop at once. A third time: the shell's own way.
async fn ctrl_c(cancel: Arc<Cancel>) {
    for told in ["finishing the step under way on each host; press Ctrl-C again to stop at once", "stopping at once"] {
        if tokio::signal::ctrl_c().await.is_err() {
            return;
        }
        complain(&format!("\ninterrupted: {told}"));
        cancel.press();
    }
    let _ = tokio::signal::ctrl_c().await;
    std::process::exit(i32::from(Exit::Interrupted.code()));
}
