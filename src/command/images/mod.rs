//! `images`: which images the stacks of a playbook use, locked by digest once a gate has looked at them.

mod gate;
mod lock;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
use crate::resource::{Claim, Question, docker_image, image_name};
use crate::shell::Script;

/// Runs a subcommand.
pub(super) fn run(arguments: &ImagesArgs) -> Exit {
    match &arguments.command {
        ImagesCommand::Lock(arguments) => lock::run(arguments),
        ImagesCommand::List(arguments) => list(arguments),
    }
}

/// How long a pull may take.
const PULL: Duration = Duration::from_secs(1800);

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
    /// What the registries have counts, where an image comes from one.
    pull: bool,
    /// Digests that are locked now.
    locked: BTreeMap<String, Option<String>>,
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
        let mut pulled: BTreeMap<&String, Value> = BTreeMap::new();
        for (_, claim) in &claims {
            // A digest that the playbook gives is no tag's; that of the lock file is.
            if let Claim::Pulled { reference, digest } = claim
                && self.pull
                && (digest.is_none() || self.locked.get(reference) == Some(digest))
                && !pulled.contains_key(reference)
            {
                pulled.insert(reference, pull(host, reference).await?);
            }
        }
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
            let answer = match answer {
                Some(Answer::Json(Some(inspect))) => Some(inspect),
                _ => None,
            };
            let Some(inspect) = pulled.get(&reference).or(answer) else {
                entry.missing.insert(host.name.clone());
                continue;
            };
            if entry.archive.is_some() {
                continue;
            }
            entry.ids.extend(inspect.get("Id").and_then(Value::as_str).map(str::to_owned));
            entry.digests.extend(image_name::digests(inspect, &reference).map(str::to_owned));
            if self.gate.is_some() && entry.sarif.is_none() && !to_scan.contains(&reference) {
                to_scan.push(reference);
            }
        }
        let Some(gate) = &self.gate else { return Ok(()) };
        for reference in to_scan {
            let name = pulled.get(&reference).and_then(|inspect| pinned(inspect, &reference)).unwrap_or_else(|| reference.clone());
            let script = Script::sh("IMAGE={}; export IMAGE\n", &[&name]).user_code(&gate.command);
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

/// A reference by digest, if the image came from its registry.
fn pinned(inspect: &Value, reference: &str) -> Option<String> {
    image_name::digests(inspect, reference).next().map(|digest| format!("{}@{digest}", image_name::bare(reference)))
}

/// Has the host pull what a tag means now, and gives what Docker says of it. The tag is put back to
/// what it was on the host, so that nothing there changes before the next apply.
async fn pull(host: &mut HostRun, reference: &str) -> Result<Value, Failure> {
    let script = Script::new()
        .then(docker_image::PULL, &[])
        .then("name={}\nbefore=$(docker image inspect -f '{{.Id}}' \"$name\" 2>/dev/null)\n", &[reference])
        .then(
            "pull \"$name\" || exit 1\ndocker image inspect \"$name\" && { [ -z \"$before\" ] || docker tag \"$before\" \"$name\"; }\n",
            &[],
        );
    let output = host.script(&format!("pulling {reference}"), script, PULL).await?;
    let found = serde_json::from_slice::<Value>(&output.stdout).ok().and_then(|mut list| list.get_mut(0).map(Value::take));
    found.filter(|_| output.status == 0).ok_or_else(|| {
        let why = String::from_utf8_lossy(&output.stderr);
        let why = if why.trim().is_empty() { "Docker does not say why" } else { why.trim() };
        Failure::new(FailureClass::StepFailed, format!("image `{}` cannot be pulled", printable(reference))).because(printable(why))
    })
}

/// Asks the playbook's hosts what they use and have.
pub(super) fn survey(loaded: &Loaded, run: &RunArgs, gate: Option<Gate>, pull: bool) -> Result<(Images, Exit), Exit> {
    let mut run = run.clone();
    run.connect.format = Format::Json;
    let options = JobOptions { mode: Mode::Inspect, command: "images", diff: false, break_lock: false, retry_release: true };
    let mut prepared = prepare(loaded, &run, &options)?;
    let locked = loaded.project.images.locked.iter().map(|(reference, lock)| (reference.clone(), lock.digest.clone())).collect();
    let operation = Arc::new(Survey { gate, pull, locked, found: Mutex::default() });
    Arc::get_mut(&mut prepared.job).ok_or(Exit::Bug)?.operation = Some(operation.clone());
    let (_, exit) = drive::run(&prepared, Format::Text, |_, exit| exit);
    let found = operation.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((found, exit))
}

fn list(arguments: &RunArgs) -> Exit {
    let loaded = match load(&arguments.playbook, &arguments.inventory).map(Loaded::unrequired) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let (found, exit) = match survey(&loaded, arguments, None, false) {
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
