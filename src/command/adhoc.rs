//! Hosts without a playbook: a play with no tasks over a pattern, so that everything else is the
//! same as for a run.

use std::io::Write as _;
use std::sync::Arc;

use crate::cli::InventoryOptions;
use crate::command::complain;
use crate::command::run::{Loaded, load_in};
use crate::diagnostic::Exit;
use crate::project::locate::around;

/// Loads the inventory with a play over the pattern.
pub(super) fn load(pattern: &str, inventory: &InventoryOptions) -> Result<Loaded, Exit> {
    let mut inventory = inventory.clone();
    if inventory.inventory.is_empty() {
        inventory.inventory.extend(only_inventory());
    }
    if inventory.inventory.is_empty() && !std::path::Path::new("soc-provision.yml").exists() {
        complain("error: which inventory? name one with `-i`, such as `-i prod` for `inventory/prod.yml`");
        return Err(Exit::Usage);
    }
    let quoted = serde_json::Value::from(pattern).to_string();
    let written = tempfile::Builder::new().prefix("adhoc-").suffix(".yml").tempfile().and_then(|mut file| {
        writeln!(file, "- hosts: {quoted}\n  tasks: []")?;
        Ok(file)
    });
    let file = written.map_err(|error| {
        complain(&format!("error: no temporary file: {error}"));
        Exit::Usage
    })?;
    // The project's secrets and settings count here too.
    let root = std::env::current_dir().ok().and_then(|cwd| around(&cwd));
    let loaded = load_in(root, &file.path().display().to_string(), &inventory)?;
    Ok(Loaded { project: Arc::clone(&loaded.project), ..loaded })
}

/// The one inventory under `inventory/`, where there is no question which.
fn only_inventory() -> Option<String> {
    let mut found: Vec<String> = std::fs::read_dir("inventory")
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml" || extension == "ini"))
        .map(|path| path.display().to_string())
        .collect();
    if found.len() == 1 { found.pop() } else { None }
}
