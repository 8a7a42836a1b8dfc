//! `hold`: a soft lock on hosts, with a reason and an end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::cli::hold::HoldArgs;
use crate::cli::{Format, RunArgs};
use crate::command::run::{JobOptions, prepare};
use crate::command::{adhoc, complain, drive, moment, print};
use crate::diagnostic::{Exit, Failure, FailureClass, printable};
use crate::engine::Mode;
use crate::engine::apply::Walk;
use crate::engine::hold::Hold;
use crate::engine::host::HostRun;
use crate::engine::operate::Operation;

/// Longest reason, in characters.
const LONGEST: usize = 300;

enum Wish {
    Show,
    Set(Hold),
    Release,
}

/// What is done with each host. A hold may be set while a run is under way: it is for the next one.
struct Holder {
    wish: Wish,
    said: Mutex<BTreeMap<String, String>>,
}

impl Operation for Holder {
    fn run<'a>(&'a self, host: &'a mut HostRun) -> Walk<'a> {
        Box::pin(async move {
            let had = Hold::read(&host.state.hold);
            let (script, line) = match &self.wish {
                Wish::Show => (None, host.hold().map_or_else(|| "no hold".to_owned(), |hold| hold.describe())),
                Wish::Set(hold) => (Some(hold.set()), hold.describe()),
                Wish::Release => {
                    let was = had.map_or_else(|| "was not on hold".to_owned(), |hold| format!("released; was {}", hold.describe()));
                    (Some(Hold::release()), was)
                }
            };
            if let Some(script) = script {
                let output = host.script("noting the hold", script, Duration::from_secs(30)).await?;
                if output.status != 0 {
                    let why = printable(&String::from_utf8_lossy(&output.stderr));
                    return Err(Failure::new(FailureClass::StepFailed, "the hold could not be noted on the host").because(why));
                }
            }
            self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(host.name.clone(), line);
            Ok(())
        })
    }
}

/// Sets, ends or shows holds.
pub(super) fn run(arguments: &HoldArgs) -> Exit {
    let wish = match wish(arguments) {
        Ok(wish) => wish,
        Err(why) => {
            complain(&format!("error: {why}"));
            return Exit::Usage;
        }
    };
    let loaded = match adhoc::load(&arguments.pattern, &arguments.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let mut connect = arguments.connect.clone();
    // Its own lines say it; the run's would say nothing more.
    connect.format = Format::Json;
    let run = RunArgs {
        playbook: String::new(),
        inventory: arguments.inventory.clone(),
        connect,
        tags: Vec::new(),
        skip_tags: Vec::new(),
        shard: None,
    };
    let command = if matches!(wish, Wish::Show) { "holds" } else { "hold" };
    let options = JobOptions { mode: Mode::Inspect, command, diff: false, break_lock: false, retry_release: false };
    let mut prepared = match prepare(&loaded, &run, &options) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let Some(job) = Arc::get_mut(&mut prepared.job) else { return Exit::Bug };
    let wish = match wish {
        Wish::Set(hold) => Wish::Set(Hold { who: job.info.who.clone(), from: job.info.from.clone(), since: job.info.started, ..hold }),
        other => other,
    };
    let holder = Arc::new(Holder { wish, said: Mutex::default() });
    job.operation = Some(holder.clone());
    let (_, exit) = drive::run(&prepared, Format::Text, |_, exit| exit);
    let said = holder.said.lock().unwrap_or_else(PoisonError::into_inner);
    match arguments.connect.format {
        Format::Text => said.iter().for_each(|(host, line)| print(&format!("[{host}] {}\n", printable(line)))),
        _ => print(&format!("{}\n", serde_json::to_string_pretty(&*said).unwrap_or_default())),
    }
    exit
}

fn wish(arguments: &HoldArgs) -> Result<Wish, String> {
    if arguments.release {
        return Ok(Wish::Release);
    }
    let Some(reason) = &arguments.reason else { return Ok(Wish::Show) };
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > LONGEST || reason.chars().any(char::is_control) {
        return Err(format!("`--reason` is one line of 1 to {LONGEST} characters"));
    }
    let until = arguments.until.as_ref().map(|text| moment::until(text, jiff::Timestamp::now())).transpose();
    let until = until.map_err(|why| format!("`--until`: {why}"))?;
    Ok(Wish::Set(Hold { reason: reason.to_owned(), until, ..Hold::default() }))
}
