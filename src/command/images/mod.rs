//! `images`: which images the stacks of a playbook use, locked by digest once a gate has looked at them.

mod gate;
mod lock;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::cli::images::{ImagesArgs, ImagesCommand};
use crate::cli::{Format, RunArgs};
use crate::command::run::{JobOptions, Loaded, load, prepare};
use crate::command::{drive, print};
use crate::diagnostic::{Exit, Failure, FailureClass, printable};
use crate::engine::Mode;
use crate::engine::apply::Walk;
use crate::engine::host::HostRun;
use crate::engine::operate::Operation;
use crate::project::images::Gate;
use crate::resource::observe::Answer;
use crate::resource::{Claim, Question};
use crate::shell::Script;

/// Runs a subcommand.
pub(super) fn run(arguments: &ImagesArgs) -> Exit {
    match &arguments.command {
        ImagesCommand::Lock(arguments) => lock::run(arguments),
        ImagesCommand::List(arguments) => list(arguments),
    }
}

/// An image that stacks use.
#[derive(Clone, Debug, Default)]
pub(super) struct Used {
    /// `HOST/STACK/SERVICE`.
    pub(super) by: BTreeSet<String>,
    /// Ids on the hosts that have it.
    pub(super) ids: BTreeSet<String>,
    /// Registry digests on the hosts that have it.
    pub(super) digests: BTreeSet<String>,
    /// Hosts that need it and do not have it.
    pub(super) missing: BTreeSet<String>,
    /// The archive that the project brings it in. Its ids count then, and no host's.
    pub(super) archive: Option<PathBuf>,
    /// What the gate printed on a host.
    pub(super) sarif: Option<(i32, Vec<u8>, String)>,
}

/// Images by reference.
pub(super) type Images = BTreeMap<String, Used>;

struct Survey {
    /// A gate that runs on hosts.
    gate: Option<Gate>,
    found: Mutex<Images>,
}

impl Operation for Survey {
    fn run<'a>(&'a self, host: &'a mut HostRun) -> Walk<'a> {
        Box::pin(self.one(host))
    }
}

impl Survey {
    async fn one(&self, host: &mut HostRun) -> Result<(), Failure> {
        let claims = host.claims();
        let used = claims.iter().filter_map(|(id, claim)| match claim {
            Claim::Image { reference, owner } => Some((reference.clone(), format!("{}/{}", id.name, owner))),
            _ => None,
        });
        let archives = claims.iter().filter_map(|(_, claim)| match claim {
            Claim::Archive { reference, ids, path } => Some((reference, (ids, path))),
            _ => None,
        });
        let archives: BTreeMap<_, _> = archives.collect();
        let mut to_scan = Vec::new();
        for (reference, owner) in used {
            let answer = host.observed().get(&Question::Image(reference.clone()));
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = found.entry(reference.clone()).or_default();
            entry.by.insert(format!("{}/{owner}", host.name));
            if let Some((ids, path)) = archives.get(&reference) {
                entry.ids.extend(ids.iter().cloned());
                entry.archive = Some((*path).clone());
            }
            let Some(Answer::Json(Some(inspect))) = answer else {
                entry.missing.insert(host.name.clone());
                continue;
            };
            if entry.archive.is_some() {
                continue;
            }
            entry.ids.extend(inspect.get("Id").and_then(Value::as_str).map(str::to_owned));
            let digests = inspect.get("RepoDigests").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            entry.digests.extend(digests.filter_map(|digest| digest.split_once('@').map(|(_, digest)| digest.to_owned())));
            if self.gate.is_some() && entry.sarif.is_none() && !to_scan.contains(&reference) {
                to_scan.push(reference);
            }
        }
        let Some(gate) = &self.gate else { return Ok(()) };
        for reference in to_scan {
            let script = Script::sh("IMAGE={}; export IMAGE\n", &[&reference]).user_code(&gate.command);
            let output = host.script(&format!("looking at {reference}"), script, gate::DEADLINE).await?;
            if output.stdout.is_empty() && output.status == 127 {
                let what = format!("the image gate cannot run on {}: {}", host.name, String::from_utf8_lossy(&output.stderr).trim());
                return Err(Failure::new(FailureClass::MissingTool, printable(&what)));
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.entry(reference).or_default().sarif = Some((output.status, output.stdout.clone(), said));
        }
        Ok(())
    }
}

/// Asks the playbook's hosts what they use and have.
pub(super) fn survey(loaded: &Loaded, run: &RunArgs, gate: Option<Gate>) -> Result<(Images, Exit), Exit> {
    let mut run = run.clone();
    run.connect.format = Format::Json;
    let options = JobOptions { mode: Mode::Inspect, command: "images", diff: false, break_lock: false, retry_release: true };
    let mut prepared = prepare(loaded, &run, &options)?;
    let operation = Arc::new(Survey { gate, found: Mutex::default() });
    Arc::get_mut(&mut prepared.job).ok_or(Exit::Bug)?.operation = Some(operation.clone());
    let (_, exit) = drive::run(&prepared, Format::Text, |_, exit| exit);
    let found = operation.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((found, exit))
}

fn list(arguments: &RunArgs) -> Exit {
    let loaded = match load(&arguments.playbook, &arguments.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let (found, exit) = match survey(&loaded, arguments, None) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    if arguments.connect.format != Format::Text {
        let entry = |(reference, used): (&String, &Used)| {
            let locked = loaded.project.images.locked.contains_key(reference);
            (
                reference.clone(),
                json!({"by": used.by, "ids": used.ids, "digests": used.digests, "missing_on": used.missing, "archive": used.archive, "locked": locked}),
            )
        };
        let images: serde_json::Map<String, Value> = found.iter().map(entry).collect();
        print(&format!("{}\n", serde_json::to_string_pretty(&json!({"exit": exit.code(), "images": images})).unwrap_or_default()));
        return exit;
    }
    for (reference, used) in &found {
        let locked = if loaded.project.images.locked.contains_key(reference) { "locked" } else { "not locked" };
        print(&format!("{} ({locked})\n", printable(reference)));
        for id in &used.ids {
            print(&format!("  id      {}\n", printable(id)));
        }
        if let Some(path) = &used.archive {
            print(&format!("  archive {}\n", path.display()));
        }
        for digest in &used.digests {
            print(&format!("  digest  {}\n", printable(digest)));
        }
        if !used.missing.is_empty() {
            print(&format!("  not on  {}\n", used.missing.iter().cloned().collect::<Vec<_>>().join(", ")));
        }
        print(&format!("  used by {}\n", used.by.iter().cloned().collect::<Vec<_>>().join(", ")));
    }
    exit
}
