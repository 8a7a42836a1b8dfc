//! `verify`: health only.

use crate::cli::RunArgs;
use crate::command::drive;
use crate::command::run::{JobOptions, load, prepare};
use crate::diagnostic::Exit;
use crate::engine::Mode;

/// Runs the health checks of a playbook.
pub(super) fn run(arguments: &RunArgs) -> Exit {
    let loaded = match load(&arguments.playbook, &arguments.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let options = JobOptions { mode: Mode::Verify, command: "verify", diff: false, break_lock: false, retry_release: false };
    match prepare(&loaded, arguments, &options) {
        Ok(prepared) => drive::run(&prepared, arguments.connect.format, |_, exit| exit).1,
        Err(exit) => exit,
    }
}
