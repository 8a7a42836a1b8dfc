//! `rebuild`: tear down, apply again, verify, and say how long it took.
//!
//! Two runs of the engine: one that takes down, one that applies. A host remembers in between how
//! far it came, so that a rebuild that was killed goes on where it was.

mod down;

use std::io::{BufRead as _, Write as _};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::Format;
use crate::cli::rebuild::RebuildArgs;
use crate::command::apply::protected_hosts;
use crate::command::report::columns;
use crate::command::run::{JobOptions, Loaded, Prepared, load, prepare};
use crate::command::{complain, drive, print};
use crate::diagnostic::Exit;
use crate::engine::{Hosts, Mode};
use crate::resource::Teardown;
use crate::transport::HostKeyPolicy;
use down::Down;

/// How long to wait for another run, unless the user says.
const STEP_ENDS: Duration = Duration::from_secs(300);

/// Rebuilds the hosts of a playbook.
pub(super) fn run(arguments: &RebuildArgs) -> Exit {
    let loaded = match load(&arguments.run.playbook, &arguments.run.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let protected = protected_hosts(&loaded);
    if !protected.is_empty() {
        complain(&format!(
            "error: {} protected: `rebuild` never tears down hosts with `protected: true`\nhint: leave them out with `-l`, or take `protected` away in the inventory",
            listed(&protected)
        ));
        return Exit::Usage;
    }
    if let Some(unknown) = arguments.expect_new_host_key.iter().find(|host| !loaded.project.hosts().contains(&host.as_str())) {
        complain(&format!("error: `--expect-new-host-key {unknown}`: the playbook has no such host"));
        return Exit::Usage;
    }
    let wish = Teardown { wipe_data: arguments.wipe_data, images: arguments.images, docker: arguments.docker };
    if !arguments.yes && !confirmed(&loaded, wish) {
        return Exit::Usage;
    }
    let started = Instant::now();
    let down = Arc::new(Down::new(wish, arguments.fresh, loaded.project.digest()));
    let (torn, exit) = match tear_down(arguments, &loaded, &down) {
        Ok(done) => done,
        Err(exit) => return exit,
    };
    let took_down = started.elapsed().as_secs_f64();
    let ready: Vec<String> = torn.iter().filter(|(_, host)| !host.is_out()).map(|(name, _)| name.clone()).collect();
    if ready.is_empty() || exit == Exit::Interrupted {
        return exit;
    }
    let (applied, prepared, worse) = match apply(arguments, &loaded, &ready) {
        Ok(done) => done,
        Err(other) => return exit.max(other),
    };
    if arguments.run.connect.format == Format::Text {
        print(&table(&torn, &applied, &prepared, &down, (took_down, started.elapsed().as_secs_f64())));
    }
    exit.max(worse)
}

fn listed(hosts: &[String]) -> String {
    let names = hosts.iter().map(|host| format!("`{host}`")).collect::<Vec<_>>().join(", ");
    format!("{names} {}", if hosts.len() == 1 { "is" } else { "are" })
}

/// Asks for the playbook's name: a habit of typing `y` must not cost a lab its data.
fn confirmed(loaded: &Loaded, wish: Teardown) -> bool {
    let playbook = loaded.project.playbook.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let hosts = loaded.project.hosts();
    let mut what = vec!["stacks and their networks"];
    what.extend(wish.wipe_data.then_some("volumes WITH THEIR DATA"));
    what.extend(wish.images.then_some("images"));
    what.extend(wish.docker.then_some("Docker itself"));
    let shown = hosts.iter().take(10).copied().collect::<Vec<_>>().join(", ");
    let more = if hosts.len() > 10 { format!(" and {} more", hosts.len() - 10) } else { String::new() };
    complain(&format!("this takes down, on {} hosts ({shown}{more}): {}", hosts.len(), what.join(", ")));
    let _ = write!(std::io::stderr(), "type the playbook's name, `{playbook}`, to go on: ");
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    let answer = answer.trim();
    let fine = !answer.is_empty() && (answer == playbook || Some(answer) == playbook.strip_suffix(".yml"));
    if !fine {
        complain("\nerror: not confirmed; nothing was touched\nhint: `--yes` does not ask");
    }
    fine
}

fn options(arguments: &RebuildArgs, mode: Mode, command: &'static str) -> JobOptions {
    JobOptions { mode, command, diff: arguments.diff, break_lock: arguments.break_lock, retry_release: arguments.retry_release }
}

/// What both runs share: new host keys, holds.
fn adjust(prepared: &mut Prepared, arguments: &RebuildArgs) -> Result<(), Exit> {
    let job = Arc::get_mut(&mut prepared.job).ok_or(Exit::Bug)?;
    job.override_hold = arguments.override_hold;
    // A step of a rebuild that was killed may still go on.
    job.wait = arguments.run.connect.wait.unwrap_or(STEP_ENDS);
    for (name, target) in &mut job.hosts {
        if arguments.expect_new_host_key.contains(name) {
            target.host_keys = HostKeyPolicy::ExpectNew;
        }
    }
    Ok(())
}

fn tear_down(arguments: &RebuildArgs, loaded: &Loaded, down: &Arc<Down>) -> Result<(Hosts, Exit), Exit> {
    let mut prepared = prepare(loaded, &arguments.run, &options(arguments, Mode::Operate, "teardown"))?;
    adjust(&mut prepared, arguments)?;
    Arc::get_mut(&mut prepared.job).ok_or(Exit::Bug)?.operation = Some(down.clone());
    // One document: that of the run which applies. What was torn down is in the history.
    Ok(drive::run(&prepared, Format::Text, |_, exit| exit))
}

fn apply(arguments: &RebuildArgs, loaded: &Loaded, ready: &[String]) -> Result<(Hosts, Prepared, Exit), Exit> {
    let mut prepared = prepare(loaded, &arguments.run, &options(arguments, Mode::Apply, "rebuild"))?;
    adjust(&mut prepared, arguments)?;
    let job = Arc::get_mut(&mut prepared.job).ok_or(Exit::Bug)?;
    // A host that was not taken down is not rebuilt: it must not be called so.
    job.hosts.retain(|(name, _)| ready.contains(name));
    for batch in job.plays.iter_mut().flat_map(|play| &mut play.batches) {
        batch.retain(|name| ready.contains(name));
    }
    let (hosts, exit) = drive::run(&prepared, arguments.run.connect.format, |_, exit| exit);
    Ok((hosts, prepared, exit))
}

/// Host by host, role by role, and the one line that counts.
fn table(torn: &Hosts, applied: &Hosts, prepared: &Prepared, down: &Down, (took_down, total): (f64, f64)) -> String {
    let captured = prepared.captured.lock().unwrap_or_else(PoisonError::into_inner);
    let continued = down.continued();
    let seconds = |seconds: f64| format!("{seconds:.1} s");
    let mut rows = vec![["HOST", "TORN DOWN", "APPLIED", "ENDED"].map(str::to_owned)];
    for name in torn.keys() {
        let took = down.seconds(name).map_or_else(|| "-".to_owned(), seconds);
        let took = if continued.contains(name) { "before".to_owned() } else { took };
        let report = captured.document.hosts.get(name).map(|host| &host.report);
        let failure = torn[name].failure.as_ref().or_else(|| applied.get(name).and_then(|host| host.failure.as_ref()));
        rows.push([
            name.clone(),
            took,
            report.map_or_else(|| "-".to_owned(), |report| seconds(report.seconds)),
            failure.map_or_else(|| "healthy".to_owned(), |failure| failure.message.clone()),
        ]);
    }
    let mut out = format!("\n{}", columns(&rows));
    let mut roles: Vec<(String, f64, String)> = Vec::new();
    for (name, host) in &captured.document.hosts {
        for (role, spent) in &host.report.roles {
            match roles.iter_mut().find(|(known, ..)| known == role) {
                Some((_, slowest, on)) if *slowest < *spent => (*slowest, *on) = (*spent, name.clone()),
                Some(_) => {}
                None => roles.push((role.clone(), *spent, name.clone())),
            }
        }
    }
    roles.sort_by(|a, b| b.1.total_cmp(&a.1));
    let heads = ["ROLE", "SLOWEST", "ON"].map(str::to_owned);
    if !roles.is_empty() {
        let rows = roles.into_iter().map(|(role, spent, on)| [role, seconds(spent), on]);
        out.push_str(&format!("\n{}", columns(&std::iter::once(heads).chain(rows).collect::<Vec<_>>())));
    }
    let healthy = torn.keys().filter(|name| applied.get(*name).is_some_and(|host| !host.is_out())).count();
    out.push_str(&format!(
        "\n{healthy} of {} hosts from bare to healthy in {:.1} s (torn down in {took_down:.1} s)\n",
        torn.len(),
        total - took_down
    ));
    out
}
