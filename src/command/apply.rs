//! `apply`: plan, apply, verify. With a saved plan: exactly that, or a refusal.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::cli::{ApplyArgs, PlanArgs};
use crate::command::run::{JobOptions, Loaded, Prepared, load, prepare};
use crate::command::{complain, drive, plan, saved};
use crate::diagnostic::Exit;
use crate::engine::Mode;

/// Applies a playbook or a saved plan.
pub(super) fn run(arguments: &ApplyArgs) -> Exit {
    if arguments.check {
        return plan::run(&PlanArgs { run: arguments.run.clone(), diff: arguments.diff, exit_code: false, out: None });
    }
    if let Some(saved) = saved::read(&arguments.run.playbook) {
        return saved.map_or_else(|exit| exit, |saved| apply_saved(arguments, &saved));
    }
    let loaded = match load(&arguments.run.playbook, &arguments.run.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let protected = protected_hosts(&loaded);
    if arguments.ask || (!protected.is_empty() && std::io::stdin().is_terminal()) {
        if let Some(exit) = ask(arguments, &loaded, &protected) {
            return exit;
        }
    } else if !protected.is_empty() && !arguments.yes && std::io::stdin().is_terminal() {
        return Exit::Usage;
    }
    match job(arguments, &loaded) {
        Ok(prepared) => drive::run(&prepared, arguments.run.connect.format, |_, exit| exit).1,
        Err(exit) => exit,
    }
}

fn job(arguments: &ApplyArgs, loaded: &Loaded) -> Result<Prepared, Exit> {
    let options = JobOptions {
        mode: Mode::Apply,
        command: "apply",
        diff: arguments.diff,
        break_lock: arguments.break_lock,
        retry_release: arguments.retry_release,
    };
    let mut prepared = prepare(loaded, &arguments.run, &options)?;
    if let Some(job) = std::sync::Arc::get_mut(&mut prepared.job) {
        job.override_hold = arguments.override_hold;
    }
    Ok(prepared)
}

pub(super) fn protected_hosts(loaded: &Loaded) -> Vec<String> {
    let project = &loaded.project;
    let is = |host: &&str| crate::resolve::plain_variable(project, host, "protected").as_deref() == Some("true");
    project.hosts().into_iter().filter(is).map(str::to_owned).collect()
}

/// Shows the plan and asks; gives the exit code if the answer is no.
fn ask(arguments: &ApplyArgs, loaded: &Loaded, protected: &[String]) -> Option<Exit> {
    if arguments.yes {
        return None;
    }
    // Before anything is connected to.
    if !std::io::stdin().is_terminal() {
        complain("error: `--ask` needs a terminal to ask on\nhint: look at `plan --out plan.json`, then `apply plan.json`");
        return Some(Exit::Usage);
    }
    let options =
        JobOptions { mode: Mode::Plan, command: "plan", diff: arguments.diff, break_lock: false, retry_release: arguments.retry_release };
    let prepared = match prepare(loaded, &arguments.run, &options) {
        Ok(prepared) => prepared,
        Err(exit) => return Some(exit),
    };
    let (_, exit) = drive::run(&prepared, arguments.run.connect.format, |_, exit| exit);
    if exit > Exit::Drift {
        return Some(exit);
    }
    if !protected.is_empty() {
        complain(&format!("protected hosts: {}", protected.join(", ")));
    }
    let _ = write!(std::io::stderr(), "apply this plan? [y/N] ");
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return None;
    }
    complain("not applied: nothing was touched");
    Some(Exit::Usage)
}

/// Plans again and compares with what was saved; applies only if nothing differs.
fn apply_saved(arguments: &ApplyArgs, saved: &saved::SavedPlan) -> Exit {
    let mut arguments = arguments.clone();
    if let Err(why) = saved.restore(&mut arguments.run) {
        complain(&format!("error: {why}"));
        return Exit::Usage;
    }
    let loaded = match load(&arguments.run.playbook, &arguments.run.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    if loaded.project.digest() != saved.project {
        complain(
            "error: the project is not the one that the plan was made of: files of it changed since\nhint: plan again, look at it, and apply that",
        );
        return Exit::Failed;
    }
    let mut prepared = match job(&arguments, &loaded) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    match std::sync::Arc::get_mut(&mut prepared.job) {
        Some(job) => job.only = Some(saved.hosts.clone()),
        None => return Exit::Bug,
    }
    drive::run(&prepared, arguments.run.connect.format, |_, exit| exit).1
}
