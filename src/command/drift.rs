//! `drift`: everything that differs from the repository, and what nobody declared in places that a
//! role owns. Read-only, unless it is told to put right what differs or to remove what is undeclared.

use std::sync::{Arc, PoisonError};

use crate::cli::Format;
use crate::cli::drift::DriftArgs;
use crate::command::run::{JobOptions, Loaded, Prepared, load, prepare};
use crate::command::{complain, drive, print};
use crate::diagnostic::{Exit, nearest};
use crate::engine::prune::Prune;
use crate::engine::{Hosts, Mode};
use crate::event::{Event, EventKind, Outcome};
use crate::history::Since;
use crate::report::drift::{DriftReport, Removal, junit, prometheus, sarif, text};

/// What `--prune` takes.
const PLACES: &[&str] = &[
    "all",
    "authorized_keys",
    "containers",
    "cron",
    "files",
    "networks",
    "nft_tables",
    "package_config",
    "repositories",
    "setuid",
    "startup",
    "sudoers",
    "timers",
    "units",
    "users",
    "volumes",
];

/// Looks for drift, and does about it what it is told to.
pub(super) fn run(arguments: &DriftArgs) -> Exit {
    if let Err(exit) = known_places(&arguments.prune) {
        return exit;
    }
    let loaded = match load(&arguments.run.playbook, &arguments.run.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    if !arguments.run.tags.is_empty() || !arguments.run.skip_tags.is_empty() {
        complain("warning: with --tags or --skip-tags what nobody declared is not looked for: the tasks left out may declare it");
    }
    let mut acted = Acted::default();
    if arguments.fix || !arguments.prune.is_empty() {
        if let Err(exit) = act(arguments, &loaded, &mut acted) {
            return exit;
        }
    }
    let prepared = match prepare(&loaded, &arguments.run, &options(arguments, Mode::Drift)) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let (hosts, exit) = drive::quietly(&prepared, |hosts, exit| if drifted(hosts) { exit.max(Exit::Drift) } else { exit });
    drop(hosts);
    let since = super::report::since(&arguments.run.connect, &loaded.project.settings, &prepared.job.info);
    show(arguments.run.connect.format, &prepared, acted, &since, exit)
}

fn known_places(places: &[String]) -> Result<(), Exit> {
    let Some(wrong) = places.iter().find(|place| !PLACES.contains(&place.as_str())) else { return Ok(()) };
    let hint = match wrong.as_str() {
        "ports" => "\nhint: a port closes when what listens on it is stopped".to_owned(),
        other => nearest(other, PLACES.iter().copied())
            .map_or_else(|| format!("\nhint: choose from {}", PLACES.join(", ")), |name| format!("\nhint: did you mean `{name}`?")),
    };
    complain(&format!("error: `--prune` does not know `{}`{hint}", crate::diagnostic::printable(wrong)));
    Err(Exit::Usage)
}

fn options(arguments: &DriftArgs, mode: Mode) -> JobOptions {
    JobOptions { mode, command: "drift", diff: arguments.diff, break_lock: arguments.break_lock, retry_release: false }
}

fn drifted(hosts: &Hosts) -> bool {
    hosts.values().any(|host| host.findings.iter().any(|finding| finding.accepted.is_none()))
}

/// What was done before the report.
#[derive(Default)]
struct Acted {
    fixed: Vec<(String, String)>,
    removed: Vec<Removal>,
    /// How it ended.
    exit: Exit,
}

/// Removes, then puts right: what is removed may be what keeps a resource from being as declared.
fn act(arguments: &DriftArgs, loaded: &Loaded, acted: &mut Acted) -> Result<(), Exit> {
    if !arguments.prune.is_empty() {
        let mut prepared = prepare(loaded, &arguments.run, &options(arguments, Mode::Operate))?;
        let prune = Arc::new(Prune { places: arguments.prune.clone(), done: std::sync::Mutex::default() });
        let Some(job) = Arc::get_mut(&mut prepared.job) else { return Err(Exit::Bug) };
        job.operation = Some(prune.clone());
        let (_, exit) = drive::quietly(&prepared, |_, exit| exit);
        acted.exit = acted.exit.max(exit);
        let mut done = std::mem::take(&mut *prune.done.lock().unwrap_or_else(PoisonError::into_inner));
        done.sort_by(|a, b| (&a.host, &a.id).cmp(&(&b.host, &b.id)));
        acted.removed = done.into_iter().map(|one| Removal { host: one.host, id: one.id, kept: one.kept, failure: one.failure }).collect();
    }
    if arguments.fix {
        let mut prepared = prepare(loaded, &arguments.run, &options(arguments, Mode::Apply))?;
        let Some(job) = Arc::get_mut(&mut prepared.job) else { return Err(Exit::Bug) };
        job.fix = true;
        let (_, exit) = drive::quietly(&prepared, |_, exit| exit);
        acted.exit = acted.exit.max(exit);
        let captured = prepared.captured.lock().unwrap_or_else(PoisonError::into_inner);
        acted.fixed = changed(&captured.events);
    }
    if acted.exit == Exit::Interrupted { Err(Exit::Interrupted) } else { Ok(()) }
}

/// Resources that an apply changed.
fn changed(events: &[Event]) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for event in events {
        let (Some(host), EventKind::Task(task)) = (&event.host, &event.kind) else { continue };
        let resources = task.resources.iter().filter(|resource| resource.outcome == Outcome::Changed);
        out.extend(resources.map(|resource| (host.clone(), resource.id.to_string())));
    }
    out
}

/// Prints the report; the exit code is the worst of what was done and what was found.
fn show(format: Format, prepared: &Prepared, acted: Acted, since: &Since, exit: Exit) -> Exit {
    let exit = exit.max(acted.exit);
    let mut captured = prepared.captured.lock().unwrap_or_else(PoisonError::into_inner);
    let known = |host: &str, resource: &str| since.get(&(host.to_owned(), resource.to_owned())).copied();
    if format == Format::Json {
        for (name, host) in &mut captured.document.hosts {
            host.findings.iter_mut().for_each(|finding| finding.since = known(name, &finding.id.to_string()));
        }
        captured.document.fixed = acted.fixed;
        captured.document.removed = acted.removed;
        print(&(captured.document.render() + "\n"));
        return exit;
    }
    let mut report = DriftReport { fixed: acted.fixed, removed: acted.removed, ..DriftReport::of(&captured.events) };
    report.date(known);
    match format {
        Format::Junit => print(&junit(&report)),
        Format::Sarif => print(&sarif(&report)),
        Format::Prometheus => print(&prometheus(&report)),
        Format::Text => print(&text(&report, crate::report::colour_on_stdout())),
        Format::Json | Format::Jsonl => {}
    }
    exit
}
