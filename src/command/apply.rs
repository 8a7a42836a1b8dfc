//! `apply`: plan, apply, verify. With a saved plan: exactly that, or a refusal.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::cli::{ApplyArgs, PlanArgs};
use crate::command::run::{JobOptions, Loaded, Prepared, load, prepare};
use crate::command::{complain, drive, plan, saved};
use crate::diagnostic::Exit;
use crate::engine::{Mode, SavedHosts};

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
    let mut shown = None;
    if !arguments.yes && (arguments.ask || (!protected.is_empty() && std::io::stdin().is_terminal())) {
        match ask(arguments, &loaded, &protected) {
            Ok(plan) => shown = Some(plan),
            Err(exit) => return exit,
        }
    }
    apply(arguments, &loaded, shown)
}

/// Applies; if a plan was shown, exactly that one: a host that moved on meanwhile is refused.
fn apply(arguments: &ApplyArgs, loaded: &Loaded, only: Option<SavedHosts>) -> Exit {
    let mut prepared = match job(arguments, loaded) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    match std::sync::Arc::get_mut(&mut prepared.job) {
        Some(job) => job.only = only,
        None => return Exit::Bug,
    }
    drive::run(&prepared, arguments.run.connect.format, |_, exit| exit).1
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

/// Shows the plan and asks; gives what was shown, or the exit code if there is nothing to apply or
/// the answer is no.
fn ask(arguments: &ApplyArgs, loaded: &Loaded, protected: &[String]) -> Result<SavedHosts, Exit> {
    // Before anything is connected to.
    if !std::io::stdin().is_terminal() {
        complain("error: `--ask` needs a terminal to ask on\nhint: look at `plan --out plan.json`, then `apply plan.json`");
        return Err(Exit::Usage);
    }
    let options =
        JobOptions { mode: Mode::Plan, command: "plan", diff: arguments.diff, break_lock: false, retry_release: arguments.retry_release };
    let prepared = prepare(loaded, &arguments.run, &options)?;
    let (hosts, exit) = drive::run(&prepared, arguments.run.connect.format, |_, exit| exit);
    if exit > Exit::Drift {
        return Err(exit);
    }
    let planned = hosts.iter().map(|(name, host)| (name.clone(), host.planned())).collect();
    if hosts.values().all(|host| host.pending_tasks() == 0) {
        return Ok(planned);
    }
    if !protected.is_empty() {
        complain(&format!("protected hosts: {}", protected.join(", ")));
    }
    let _ = write!(std::io::stderr(), "apply this plan? [y/N] ");
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(planned);
    }
    complain("not applied: nothing was touched");
    Err(Exit::Usage)
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
    apply(&arguments, &loaded, Some(saved.hosts.clone()))
}
