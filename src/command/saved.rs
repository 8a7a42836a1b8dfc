//! Saved plans: ids and digests of what would change, no scripts and no secrets (DESIGN 8.8).

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cli::RunArgs;
use crate::command::complain;
use crate::command::run::Loaded;
use crate::diagnostic::Exit;
use crate::engine::{Hosts, Job, plan};

/// How a saved plan is known.
const FORMAT: &str = "soc-provision plan 1";

/// A plan as a file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedPlan {
    format: String,
    playbook: String,
    inventory: Vec<String>,
    limit: Option<String>,
    extra_vars: Vec<String>,
    tags: Vec<String>,
    skip_tags: Vec<String>,
    /// Digest of the project that it was made of.
    pub(super) project: String,
    made_by: String,
    made_at: i64,
    /// Host -> what would change: place and digest.
    pub(super) hosts: BTreeMap<String, Vec<(String, String)>>,
}

/// The saved plan in a file, if that is what the file is.
pub(super) fn read(path: &str) -> Option<Result<SavedPlan, Exit>> {
    let text = std::fs::read_to_string(path).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    let format = value.get("format")?.as_str()?.to_owned();
    if format != FORMAT {
        let known = format.starts_with("soc-provision plan");
        return known.then(|| {
            complain(&format!("error: `{path}` is a plan of another version (`{format}`); plan again"));
            Err(Exit::Usage)
        });
    }
    Some(serde_json::from_value(value).map_err(|error| {
        complain(&format!("error: `{path}` is not a whole plan: {error}"));
        Exit::Usage
    }))
}

impl SavedPlan {
    /// The plan of a finished planning run.
    pub(super) fn of(loaded: &Loaded, run: &RunArgs, job: &Job, hosts: &Hosts) -> Self {
        Self {
            format: FORMAT.to_owned(),
            playbook: loaded.project.playbook.display().to_string(),
            inventory: absolute(loaded, &run.inventory.inventory),
            limit: run.inventory.limit.clone(),
            extra_vars: run.inventory.extra_vars.clone(),
            tags: run.tags.clone(),
            skip_tags: run.skip_tags.clone(),
            project: loaded.project.digest(),
            made_by: format!("{}@{}", job.info.who, job.info.from),
            made_at: job.info.started,
            hosts: hosts.iter().map(|(name, host)| (name.clone(), plan::digest(&host.program, &host.plans, &job.digests))).collect(),
        }
    }

    /// Writes the file, whole or not at all.
    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        use std::io::Write as _;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Gives a run the arguments that the plan was made with.
    pub(super) fn restore(&self, run: &mut RunArgs) {
        run.playbook.clone_from(&self.playbook);
        run.inventory.inventory.clone_from(&self.inventory);
        run.inventory.limit.clone_from(&self.limit);
        run.inventory.extra_vars.clone_from(&self.extra_vars);
        run.tags.clone_from(&self.tags);
        run.skip_tags.clone_from(&self.skip_tags);
    }
}

fn absolute(loaded: &Loaded, inventories: &[String]) -> Vec<String> {
    let full = |text: &String| if text.contains(',') { text.clone() } else { loaded.cwd.join(text).display().to_string() };
    inventories.iter().map(full).collect()
}
