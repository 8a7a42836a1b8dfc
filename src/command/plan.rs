//! `plan`: what apply would do.

use crate::cli::PlanArgs;
use crate::command::run::{JobOptions, load, prepare};
use crate::command::{complain, drive, saved};
use crate::diagnostic::Exit;
use crate::engine::Mode;

/// Shows, and perhaps saves, the plan of a playbook.
pub(super) fn run(arguments: &PlanArgs) -> Exit {
    let loaded = match load(&arguments.run.playbook, &arguments.run.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let options = JobOptions { mode: Mode::Plan, command: "plan", diff: arguments.diff, break_lock: false, retry_release: false };
    let prepared = match prepare(&loaded, &arguments.run, &options) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let (hosts, exit) = drive::run(&prepared, arguments.run.connect.format, |hosts, exit| {
        let pending = hosts.values().any(|host| host.pending_tasks() > 0);
        if arguments.exit_code && pending { exit.max(Exit::Drift) } else { exit }
    });
    if let Some(path) = &arguments.out {
        if exit > Exit::Drift {
            complain("error: the plan was not saved: a host failed or was unreachable");
            return exit;
        }
        let saved = saved::SavedPlan::of(&loaded, &arguments.run, &prepared.job, &hosts);
        if let Err(error) = saved.write(path) {
            complain(&format!("error: {}: {error}", path.display()));
            return Exit::Usage;
        }
    }
    exit
}
