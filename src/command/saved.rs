//! Saved plans: ids and digests of what would change, no scripts and no secrets (DESIGN 8.8).

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cli::RunArgs;
use crate::command::complain;
use crate::command::run::Loaded;
use crate::diagnostic::Exit;
use crate::engine::{Hosts, Job, SavedHosts};

/// How a saved plan is known.
const FORMAT: &str = "soc-provision plan 2";
/// How often the digest of variables is folded: guessing a value from it must cost something.
const ROUNDS: u32 = 50_000;

/// A plan as a file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedPlan {
    format: String,
    /// The soc-provision that made it.
    version: String,
    playbook: String,
    inventory: Vec<String>,
    limit: Option<String>,
    /// `-e @FILE`, whose content counts in the project's digest.
    extra_files: Vec<String>,
    /// Names only of what else `-e` set, as values may be secrets; with a salted digest of them.
    extra_names: Vec<String>,
    extra_salt: String,
    extra_digest: String,
    tags: Vec<String>,
    skip_tags: Vec<String>,
    shard: Option<String>,
    /// Digest of the project that it was made of.
    pub(super) project: String,
    made_by: String,
    made_at: i64,
    /// Host -> what would change: place and digest.
    pub(super) hosts: SavedHosts,
    /// Over everything above: a plan that was edited or damaged is not taken for one.
    #[serde(default)]
    seal: String,
}

/// The saved plan in a file, if that is what the file is.
pub(super) fn read(path: &str) -> Option<Result<SavedPlan, Exit>> {
    let text = std::fs::read_to_string(path).ok()?;
    // A playbook is YAML, and JSON is YAML too: only what begins as a plan does is one.
    let start: String = text.chars().take(200).filter(|c| !c.is_whitespace()).collect();
    if !start.starts_with("{\"format\":\"soc-provisionplan") {
        return None;
    }
    Some(parse(&text).map_err(|why| {
        complain(&format!("error: `{path}` {why}\nhint: plan again, look at it, and apply that"));
        Exit::Usage
    }))
}

fn parse(text: &str) -> Result<SavedPlan, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("is not a whole plan: {error}"))?;
    let format = value.get("format").and_then(serde_json::Value::as_str).unwrap_or_default();
    if format != FORMAT {
        return Err(format!(
            "is a plan of another version (`{}`, this soc-provision knows `{FORMAT}`)",
            crate::diagnostic::printable(format)
        ));
    }
    let plan: SavedPlan = serde_json::from_value(value).map_err(|error| format!("is not a whole plan: {error}"))?;
    if plan.sealed() != plan.seal {
        return Err("was changed since it was made: its seal does not fit".to_owned());
    }
    if plan.version != env!("CARGO_PKG_VERSION") {
        return Err(format!(
            "was made by soc-provision {}, this is {}",
            crate::diagnostic::printable(&plan.version),
            env!("CARGO_PKG_VERSION")
        ));
    }
    Ok(plan)
}

/// Whether an argument of `-e` names a file.
fn is_file(argument: &str) -> bool {
    argument.trim_start().starts_with('@')
}

/// What `-e` set besides files, salted and folded.
fn folded(salt: &str, extra: &[String]) -> String {
    let values: Vec<&str> = extra.iter().map(String::as_str).filter(|argument| !is_file(argument)).collect();
    let mut digest = crate::secret::sha256(format!("{salt}\n{}", values.join("\n")).as_bytes());
    for _ in 0..ROUNDS {
        digest = crate::secret::sha256(format!("{salt}{digest}").as_bytes());
    }
    digest
}

impl SavedPlan {
    /// The plan of a finished planning run.
    pub(super) fn of(loaded: &Loaded, run: &RunArgs, job: &Job, hosts: &Hosts) -> Self {
        let extra = &run.inventory.extra_vars;
        let salt = job.nonce();
        let file = |argument: &String| match argument.trim().strip_prefix('@') {
            Some(path) => format!("@{}", loaded.cwd.join(path).display()),
            None => argument.clone(),
        };
        let mut plan = Self {
            format: FORMAT.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            playbook: loaded.project.playbook.display().to_string(),
            inventory: absolute(loaded, &run.inventory.inventory),
            limit: run.inventory.limit.clone(),
            extra_files: extra.iter().filter(|argument| is_file(argument)).map(file).collect(),
            extra_names: names(extra),
            extra_digest: folded(&salt, extra),
            extra_salt: salt,
            shard: run.shard.clone(),
            tags: run.tags.clone(),
            skip_tags: run.skip_tags.clone(),
            project: loaded.project.digest(),
            made_by: format!("{}@{}", job.info.who, job.info.from),
            made_at: job.info.started,
            hosts: hosts.iter().map(|(name, host)| (name.clone(), host.planned())).collect(),
            seal: String::new(),
        };
        plan.seal = plan.sealed();
        plan
    }

    /// Digest over everything but the seal.
    fn sealed(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(map) = value.as_object_mut() {
            map.remove("seal");
        }
        crate::secret::sha256(value.to_string().as_bytes())
    }

    /// Writes the file, whole or not at all.
    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        crate::command::whole_file(path, format!("{}\n", serde_json::to_string_pretty(self)?).as_bytes())
    }

    /// Gives a run the arguments that the plan was made with.
    ///
    /// # Errors
    /// Variables of `-e` must be given again, and are not, or not the same.
    pub(super) fn restore(&self, run: &mut RunArgs) -> Result<(), String> {
        if folded(&self.extra_salt, &run.inventory.extra_vars) != self.extra_digest {
            return Err(match self.extra_names.is_empty() {
                true => "the plan was made without `-e`: leave it out".to_owned(),
                false => format!(
                    "the plan was made with `-e` for {}: give exactly the same again (a plan keeps no values, they may be secrets)",
                    self.extra_names.join(", ")
                ),
            });
        }
        run.inventory.extra_vars.extend(self.extra_files.iter().cloned());
        run.shard.clone_from(&self.shard);
        run.playbook.clone_from(&self.playbook);
        run.inventory.inventory.clone_from(&self.inventory);
        run.inventory.limit.clone_from(&self.limit);
        run.tags.clone_from(&self.tags);
        run.skip_tags.clone_from(&self.skip_tags);
        Ok(())
    }
}

/// Names of the variables that `-e` sets inline.
fn names(extra: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    for argument in extra.iter().filter(|argument| !is_file(argument)) {
        match serde_json::from_str::<serde_json::Value>(argument) {
            Ok(serde_json::Value::Object(map)) => out.extend(map.keys().cloned()),
            _ => out.extend(argument.split_whitespace().filter_map(|pair| Some(pair.split_once(['=', ':'])?.0.to_owned()))),
        }
    }
    out
}

fn absolute(loaded: &Loaded, inventories: &[String]) -> Vec<String> {
    let full = |text: &String| if text.contains(',') { text.clone() } else { loaded.cwd.join(text).display().to_string() };
    inventories.iter().map(full).collect()
}
