//! `verify`: health only; with `--smoke`, whether what goes in at one end comes out at the other.

use crate::cli::verify::VerifyArgs;
use crate::command::drive;
use crate::command::run::{JobOptions, load, prepare};
use crate::diagnostic::Exit;
use crate::engine::Mode;

/// The name under which smoke tests run.
pub(super) const SMOKE: &str = "smoke";

/// Runs the health checks of a playbook.
pub(super) fn run(arguments: &VerifyArgs) -> Exit {
    let run = &arguments.run;
    let loaded = match load(&run.playbook, &run.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let command = if arguments.smoke { SMOKE } else { "verify" };
    let options = JobOptions { mode: Mode::Verify, command, diff: false, break_lock: false, retry_release: false };
    match prepare(&loaded, run, &options) {
        Ok(prepared) => drive::run(&prepared, run.connect.format, |_, exit| exit).1,
        Err(exit) => exit,
    }
}
