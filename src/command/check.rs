//! `check`: the whole project offline, all errors at once.

use crate::cli::CheckArgs;
use crate::command::run::{load, show};
use crate::command::{complain, print};
use crate::diagnostic::{Diagnostic, Exit, Level};
use crate::facts::Facts;
use crate::project::Project;
use crate::resolve::{RunOptions, resolve};

/// Checks playbooks: loads them and resolves every host with placeholder facts.
pub(super) fn run(arguments: &CheckArgs) -> Exit {
    let playbooks = if arguments.playbooks.is_empty() { all_playbooks() } else { arguments.playbooks.clone() };
    if playbooks.is_empty() {
        complain("error: no playbook named, and none under `playbooks/`\nhint: start with `soc-provision init`");
        return Exit::Usage;
    }
    let mut exit = Exit::Fine;
    for playbook in &playbooks {
        exit = exit.max(check_one(playbook, arguments));
    }
    exit
}

fn all_playbooks() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("playbooks") else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml"))
        .map(|path| path.display().to_string())
        .collect();
    names.sort();
    names
}

fn check_one(playbook: &str, arguments: &CheckArgs) -> Exit {
    let loaded = match load(playbook, &arguments.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let project = &loaded.project;
    if arguments.list_hosts {
        for play in &project.plays {
            print(&format!("{}\n", play.name));
            for host in &play.hosts {
                print(&format!("  {host}\n"));
            }
        }
        return Exit::Fine;
    }
    let options = RunOptions { check_mode: true, known_secrets: Some(loaded.store.names()), offline: true, ..RunOptions::default() };
    if arguments.list_tasks {
        return list_tasks(project, &options);
    }
    // Warnings of loading were shown already.
    let problems: Vec<Diagnostic> =
        crate::resolve::check(project, &options).into_iter().filter(|problem| !project.warnings.contains(problem)).collect();
    show(&problems, Some(project));
    let errors = problems.iter().filter(|problem| problem.level == Level::Error).count();
    if errors > 0 {
        complain(&format!("{playbook}: {errors} errors"));
        return Exit::Usage;
    }
    print(&format!("{playbook}: {} hosts, no errors\n", project.hosts().len()));
    Exit::Fine
}

fn list_tasks(project: &Project, options: &RunOptions) -> Exit {
    for host in project.hosts() {
        match resolve(project, host, &Facts::placeholder(host), options) {
            Ok(program) => {
                for task in program.tasks() {
                    print(&format!("{host}: {} ({}:{})\n", task.title, task.location.file.display(), task.location.line));
                }
            }
            Err(diagnostics) => {
                show(&diagnostics, Some(project));
                return Exit::Usage;
            }
        }
    }
    Exit::Fine
}
