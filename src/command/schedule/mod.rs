//! `schedule`: drift every night. Installs a systemd service and timer on the controller; one
//! night's work is `--now`: drift, remember, tell only what changed, write metrics.

mod night;
mod notify;
mod units;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::RunArgs;
use crate::cli::schedule::ScheduleArgs;
use crate::command::complain;
use crate::diagnostic::Exit;
use crate::project::{LoadOptions, Project};

/// What a schedule is; kept on the controller, 0600, because an address to notify may be a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Schedule {
    pub(super) name: String,
    /// The project's directory; drift runs there.
    pub(super) root: PathBuf,
    /// What comes behind `soc-provision drift`.
    pub(super) arguments: Vec<String>,
    pub(super) command: Option<String>,
    pub(super) webhook: Option<String>,
    pub(super) mail: Option<String>,
    pub(super) metrics: Option<PathBuf>,
}

/// Installs, shows, removes a schedule, or does one night's work.
pub(super) fn run(arguments: &ScheduleArgs) -> Exit {
    let outcome = if arguments.remove { remove(arguments) } else { schedule(arguments) };
    outcome.unwrap_or_else(|why| {
        complain(&format!("error: {why}"));
        Exit::Usage
    })
}

fn schedule(arguments: &ScheduleArgs) -> Result<Exit, String> {
    let place = state_directory()?;
    if arguments.installed {
        let schedule = read(&place, &arguments.run.playbook)?;
        return night::run(&schedule, &place);
    }
    let schedule = make(arguments)?;
    if arguments.now {
        return night::run(&schedule, &place);
    }
    if let Ok(other) = read(&place, &schedule.name) {
        if other.root != schedule.root {
            return Err(format!(
                "there is a schedule `{}` for `{}` already\nhint: give this one another name with `--name`",
                other.name,
                other.root.display()
            ));
        }
    }
    units::install(&schedule, &place, arguments)
}

fn remove(arguments: &ScheduleArgs) -> Result<Exit, String> {
    let place = state_directory()?;
    let stem = Path::new(&arguments.run.playbook).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = arguments.name.clone().or(stem).unwrap_or_default();
    let schedule = read(&place, &name)?;
    units::remove(&schedule, &place, arguments)
}

/// The schedule that the arguments ask for; the project must load, so that the first night does not
/// find out that it does not.
fn make(arguments: &ScheduleArgs) -> Result<Schedule, String> {
    let cwd = std::env::current_dir().map_err(|error| format!("no current directory: {error}"))?;
    let inventory = &arguments.run.inventory;
    let options = LoadOptions {
        cwd: cwd.clone(),
        playbook: arguments.run.playbook.clone(),
        inventories: inventory.inventory.clone(),
        limit: inventory.limit.clone(),
        extra_vars: inventory.extra_vars.clone(),
        ..LoadOptions::default()
    };
    let project = Project::load(&options).map_err(|diagnostics| {
        crate::command::run::show(&diagnostics, None);
        "the playbook does not load, so nothing was scheduled".to_owned()
    })?;
    let stem = project.playbook.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = arguments.name.clone().unwrap_or(stem);
    let fine = !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !fine || name.starts_with('.') {
        return Err(format!("`{name}` cannot be a schedule's name: letters, digits, `-`, `_` and `.`; give one with `--name`"));
    }
    let webhook = arguments.notify_webhook.as_ref().map(|text| address(text)).transpose()?;
    if let Some(address) = arguments.notify_mail.as_ref().filter(|address| !address.contains('@') || address.contains(char::is_whitespace))
    {
        return Err(format!("`{address}` is not a mail address"));
    }
    Ok(Schedule {
        name,
        root: project.root.clone(),
        arguments: drift_arguments(&arguments.run, &project.playbook, &cwd),
        command: arguments.notify_command.clone(),
        webhook,
        mail: arguments.notify_mail.clone(),
        metrics: arguments.metrics.as_ref().map(|path| cwd.join(path)),
    })
}

fn address(text: &str) -> Result<String, String> {
    let url = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).map_err(|error| format!("`{file}` cannot be read: {error}"))?.trim().to_owned(),
        None => text.to_owned(),
    };
    if url.starts_with("https://") || url.starts_with("http://") {
        Ok(url)
    } else {
        Err("`--notify-webhook` wants an http or https address".to_owned())
    }
}

/// The arguments of the nightly drift, with paths that hold from anywhere.
fn drift_arguments(run: &RunArgs, playbook: &Path, cwd: &Path) -> Vec<String> {
    let path = |path: &Path| cwd.join(path).display().to_string();
    let mut out = vec![playbook.display().to_string()];
    let mut add = |flag: &str, value: String| out.extend([flag.to_owned(), value]);
    for inventory in &run.inventory.inventory {
        add("-i", if inventory.contains(',') { inventory.clone() } else { path(Path::new(inventory)) });
    }
    for (flag, value) in [("-l", &run.inventory.limit), ("-u", &run.connect.user), ("--shard", &run.shard)] {
        if let Some(value) = value {
            add(flag, value.clone());
        }
    }
    for variables in &run.inventory.extra_vars {
        add("-e", variables.strip_prefix('@').map_or_else(|| variables.clone(), |file| format!("@{}", path(Path::new(file)))));
    }
    for (flag, tags) in [("-t", &run.tags), ("--skip-tags", &run.skip_tags)] {
        if !tags.is_empty() {
            add(flag, tags.join(","));
        }
    }
    for (flag, file) in [
        ("--become-password-file", &run.connect.become_password_file),
        ("--private-key", &run.connect.private_key),
        ("--history", &run.connect.history),
    ] {
        if let Some(file) = file {
            add(flag, if file.as_os_str() == "none" { "none".to_owned() } else { path(file) });
        }
    }
    if let Some(forks) = run.connect.forks {
        add("-f", forks.to_string());
    }
    if let Some(seconds) = run.connect.timeout {
        add("-T", seconds.to_string());
    }
    if let Some(wait) = run.connect.wait {
        add("--wait", format!("{}s", wait.as_secs()));
    }
    if run.connect.r#become {
        out.push("-b".to_owned());
    }
    out
}

/// Where schedules are kept: beside the history.
fn state_directory() -> Result<PathBuf, String> {
    let history = crate::history::default_path().ok_or("neither XDG_STATE_HOME nor HOME is set")?;
    Ok(history.with_file_name("schedules"))
}

fn read(place: &Path, name: &str) -> Result<Schedule, String> {
    if name.is_empty() || name.contains(['/', '\0']) {
        return Err(format!("`{name}` is not a schedule"));
    }
    let path = place.join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no schedule `{name}` (it would be `{}`)", path.display()),
        _ => format!("`{}` cannot be read: {error}", path.display()),
    })?;
    serde_json::from_str(&text).map_err(|error| format!("`{}` is damaged: {error}\nhint: install the schedule again", path.display()))
}
