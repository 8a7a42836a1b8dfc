//! `report`: earlier runs, from the controller's history.

mod compare;
mod controls;
mod list;
mod merge;
mod page;
mod show;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::cli::ConnectOptions;
use crate::cli::report::{ReportArgs, ReportCommand, Which};
use crate::command::complain;
use crate::diagnostic::Exit;
use crate::event::{Listener, RunInfo};
use crate::history::{self, Filter, History, Recorder, RunRow, Since};
use crate::project::settings::{self, Settings};
use crate::report::capture::Captured;

pub(in crate::command) use list::columns;

/// Commands that only look at where things are, whose runs nobody asks for later.
const NOT_KEPT: [&str; 3] = ["facts", "holds", "status"];

/// Runs `report`.
pub(super) fn run(arguments: &ReportArgs) -> Exit {
    if let ReportCommand::Merge(merge) = &arguments.command {
        return merge::run(arguments, merge);
    }
    let mut history = match open(arguments) {
        Ok(history) => history,
        Err(exit) => return exit,
    };
    match &arguments.command {
        ReportCommand::List(list) => list::run(&history, list),
        ReportCommand::Show(show) => show::run(&history, show),
        ReportCommand::Compare(compare) => compare::run(&history, compare),
        ReportCommand::Merge(_) => Exit::Bug,
        ReportCommand::Html(html) => page::run(&history, html),
        ReportCommand::Controls(controls) => controls::run(&history, controls),
        ReportCommand::Prune(prune) => list::prune(&mut history, prune),
    }
}

/// Where the history is: the flag, the project's settings, the user's own; `None` for none.
fn place(flag: Option<&PathBuf>, settings: &Settings) -> Option<PathBuf> {
    let path = flag.cloned().or_else(|| settings.history.clone()).or_else(history::default_path)?;
    (path.as_os_str() != "none").then_some(path)
}

/// Where the history is for a command without a playbook.
fn place_here(arguments: &ReportArgs) -> Option<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    place(arguments.history.as_ref(), &settings::nearest(&here))
}

fn open(arguments: &ReportArgs) -> Result<History, Exit> {
    let Some(path) = place_here(arguments) else {
        complain(
            "error: no history is kept here\nhint: take `history: none` out of `soc-provision.yml`, or name one with `--history FILE`",
        );
        return Err(Exit::Usage);
    };
    History::existing(&path).map_err(|error| {
        complain(&format!("error: {error}\nhint: every run on a playbook is kept; name another history with `--history FILE`"));
        Exit::Usage
    })
}

/// Since when what a run found has been so, as far as the history knows.
pub(super) fn since(connect: &ConnectOptions, settings: &Settings, info: &RunInfo) -> Since {
    let history = place(connect.history.as_ref(), settings).and_then(|path| History::existing(&path).ok());
    history.and_then(|history| history.since(&info.root, &info.playbook).ok()).unwrap_or_default()
}

/// What keeps a run in the history; none if the user wants none, or it cannot be (that is said).
pub(super) fn recorder(
    connect: &ConnectOptions,
    settings: &Settings,
    command: &str,
    captured: &Arc<Mutex<Captured>>,
) -> Option<Box<dyn Listener>> {
    if NOT_KEPT.contains(&command) {
        return None;
    }
    let path = place(connect.history.as_ref(), settings)?;
    match History::open(&path) {
        Ok(history) => Some(Box::new(Recorder::new(history, captured.clone(), complain))),
        Err(error) => {
            complain(&format!("warning: this run is not kept in the history: {error}"));
            None
        }
    }
}

fn filter(which: &Which) -> Filter {
    Filter { playbook: which.playbook.clone(), command: which.command.clone(), host: which.host.clone(), ..Filter::default() }
}

/// The run that is named, or the last that looked at a whole playbook.
fn latest(history: &History, wanted: Option<&str>, which: &Which) -> Result<RunRow, String> {
    if let Some(wanted) = wanted {
        return history.find(wanted, &filter(which));
    }
    let runs = history.runs(&filter(which)).map_err(|error| error.to_string())?;
    let whole = |run: &RunRow| {
        matches!(run.info.command.as_str(), "apply" | "drift" | "plan" | "rebuild")
            && run.exit.is_some()
            && !run.info.partial
            && !run.states.is_empty()
    };
    runs.into_iter().find(whole).ok_or_else(|| "no run on a whole playbook is in the history: run `drift` first".to_owned())
}

/// Says what is wrong with a question to the history.
fn wrong(why: impl std::fmt::Display) -> Exit {
    complain(&format!("error: {why}"));
    Exit::Usage
}

/// A time as lists show it: local, to the minute.
fn local_time(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string()
}

/// How a run ended, in words.
fn ending(exit: Option<u8>, pid: Option<u32>) -> String {
    match exit {
        Some(0) => "fine".to_owned(),
        Some(1) => "nothing touched".to_owned(),
        Some(2) => "failed".to_owned(),
        Some(3) => "differs".to_owned(),
        Some(4) => "unreachable".to_owned(),
        Some(5) => "reverted".to_owned(),
        Some(99) => "interrupted".to_owned(),
        Some(code) => format!("exit {code}"),
        None if pid.is_some_and(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists()) => "running".to_owned(),
        None => "killed".to_owned(),
    }
}
