//! `check`: the whole project offline, all errors at once.

use crate::cli::CheckArgs;
use crate::command::run::{load, show};
use crate::command::{complain, print};
use crate::diagnostic::{Exit, Level};
use crate::facts::Facts;
use crate::resolve::{ConnectionVars, RunOptions, resolve};

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
    let options = RunOptions { check_mode: true, known_secrets: Some(loaded.store.names()), ..RunOptions::default() };
    let mut problems = Vec::new();
    let mut tasks = 0;
    for host in project.hosts() {
        problems.extend(ConnectionVars::of(project, host).err().into_iter().flatten());
        match resolve(project, host, &Facts::placeholder(host), &options) {
            Ok(program) => {
                tasks += program.tasks().count();
                if arguments.list_tasks {
                    for task in program.tasks() {
                        print(&format!("{host}: {} ({}:{})\n", task.title, task.location.file.display(), task.location.line));
                    }
                }
            }
            Err(diagnostics) => problems.extend(diagnostics),
        }
    }
    // The same mistake on every host is one mistake.
    let mut unique: Vec<crate::diagnostic::Diagnostic> = Vec::new();
    for problem in problems {
        if !unique.contains(&problem) {
            unique.push(problem);
        }
    }
    show(&unique, Some(project));
    if unique.iter().any(|problem| problem.level == Level::Error) {
        return Exit::Usage;
    }
    if !arguments.list_tasks {
        print(&format!("{playbook}: {} hosts, {tasks} tasks, no errors\n", project.hosts().len()));
    }
    Exit::Fine
}
