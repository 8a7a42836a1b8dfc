//! `check`: the whole project offline, all errors at once; and what of it would run where.

use crate::cli::CheckArgs;
use crate::command::run::{What, open, show, store};
use crate::command::{complain, outline, print};
use crate::diagnostic::{Exit, Level};
use crate::project::Project;
use crate::resolve::RunOptions;

/// Checks playbooks: loads them and resolves every host with placeholder facts.
pub(super) fn run(arguments: &CheckArgs) -> Exit {
    let playbooks = if arguments.playbooks.is_empty() { all_playbooks() } else { arguments.playbooks.clone() };
    if playbooks.is_empty() {
        complain("error: no playbook named, and none under `playbooks/`\nhint: start with `soc-provision init`");
        return Exit::Usage;
    }
    let exits: Vec<Exit> = playbooks.iter().map(|playbook| check_one(playbook, arguments)).collect();
    exits.into_iter().max().unwrap_or(Exit::Fine)
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
    let (project, found, _) = match open(&What::Playbook(playbook), &arguments.inventory) {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let Ok(store) = store(&project) else { return Exit::Usage };
    let options = RunOptions {
        check_mode: true,
        known_secrets: Some(store.names()),
        offline: true,
        tags: arguments.tags.clone(),
        skip_tags: arguments.skip_tags.clone(),
        ..RunOptions::default()
    };
    let wanted: Vec<String> = arguments.tags.iter().chain(&arguments.skip_tags).cloned().collect();
    show(&crate::resolve::unknown_tags(&project, &wanted), Some(&project));
    let listing = arguments.list_hosts || arguments.list_tasks || arguments.list_tags;
    if listing && Project::only_warnings(&found) {
        show(&found, Some(&project));
        return list(playbook, &project, arguments, &options);
    }
    let problems = crate::resolve::check(&project, &found, &options);
    show(&problems, Some(&project));
    let count = |level: Level| problems.iter().filter(|problem| problem.level == level).count();
    let (errors, warnings) = (counted(count(Level::Error), "error"), counted(count(Level::Warning), "warning"));
    if count(Level::Error) > 0 {
        complain(&format!("\n{playbook}: {errors}, {warnings}"));
        return Exit::Usage;
    }
    let hosts = counted(project.hosts().len(), "host");
    print(&format!("{playbook}: {hosts}, no errors{}\n", if count(Level::Warning) > 0 { format!(", {warnings}") } else { String::new() }));
    Exit::Fine
}

/// `1 error`, `2 errors`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn list(playbook: &str, project: &Project, arguments: &CheckArgs, options: &RunOptions) -> Exit {
    let parts = outline::Parts { hosts: arguments.list_hosts, tasks: arguments.list_tasks, tags: arguments.list_tags };
    match outline::render(playbook, project, &parts, options) {
        Ok(text) => {
            print(&text);
            Exit::Fine
        }
        Err(problems) => {
            show(&problems, Some(project));
            Exit::Usage
        }
    }
}
