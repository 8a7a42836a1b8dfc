//! Where things are: the playbook that was typed, the project around it, its inventory.

use std::path::{Path, PathBuf};

use super::files::normal;
use super::inventory::Inventory;
use super::lower::Problems;
use super::settings::Settings;
use crate::diagnostic::{Diagnostic, nearest};

/// The playbook: as typed, then under `playbooks/`; the ending may be left out.
pub(super) fn playbook(cwd: &Path, typed: &str) -> Result<PathBuf, Diagnostic> {
    let directories = [cwd.to_path_buf(), cwd.join("playbooks")];
    for directory in &directories {
        for ending in ["", ".yml", ".yaml"] {
            let path = directory.join(format!("{typed}{ending}"));
            if path.is_file() {
                return Ok(normal(&path));
            }
        }
    }
    let known: Vec<String> = directories
        .iter()
        .flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten().flatten())
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "yml" || end == "yaml"))
        .filter(|name| Path::new(name).file_stem().is_some_and(|stem| stem != "soc-provision"))
        .collect();
    let near =
        nearest(typed, known.iter().map(String::as_str)).or_else(|| nearest(&format!("{typed}.yml"), known.iter().map(String::as_str)));
    let hint = match near {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "run it in a project, or make one with `soc-provision init`".to_owned(),
        None => format!("playbooks here: {}", known.join(", ")),
    };
    Err(Diagnostic::error(format!("there is no playbook `{typed}`, here or under `playbooks/`")).hint(hint))
}

/// The project that a directory is in, without a playbook to go by; else the directory itself.
pub(super) fn project(cwd: &Path) -> PathBuf {
    let is_project = |path: &&Path| path.join("soc-provision.yml").is_file() || path.join("playbooks").is_dir();
    normal(cwd.ancestors().take(5).find(is_project).unwrap_or(cwd))
}

/// The project that a playbook belongs to: the nearest directory above it that has a
/// `soc-provision.yml`, else the one that holds `playbooks/`, else the playbook's own.
pub(super) fn root(playbook: &Path, cwd: &Path) -> PathBuf {
    let directory = playbook.parent().unwrap_or(cwd);
    if let Some(root) = directory.ancestors().take(5).find(|path| path.join("soc-provision.yml").is_file()) {
        return normal(root);
    }
    if directory.file_name().is_some_and(|name| name == "playbooks") {
        return normal(directory.parent().unwrap_or(directory));
    }
    normal(directory)
}

/// Where inventories are searched.
pub(super) struct Search<'a> {
    pub(super) root: &'a Path,
    pub(super) cwd: &'a Path,
    pub(super) playbook: &'a Path,
    /// Whether it is an error that there is none.
    pub(super) needed: bool,
    /// Whether there is no playbook whose name would tell: then a lone one is meant.
    pub(super) adhoc: bool,
}

impl Search<'_> {
    /// The inventories: those typed, else the one of the playbook's name, else the settings'.
    pub(super) fn inventories(&self, typed: &[String], settings: &Settings, problems: &mut Problems) -> Vec<String> {
        if !typed.is_empty() {
            return self.existing(self.cwd, typed, problems);
        }
        let name = self.playbook.file_stem().unwrap_or_default().to_string_lossy();
        let own = candidates(self.root, &name);
        if let Some(path) = own.iter().find(|path| path.is_file()) {
            return vec![path.to_string_lossy().into_owned()];
        }
        if !settings.inventory.is_empty() {
            return self.existing(self.root, &settings.inventory, problems);
        }
        let lone = self.all();
        if let ([only], true) = (lone.as_slice(), self.adhoc) {
            return vec![only.to_string_lossy().into_owned()];
        }
        if self.needed {
            let shown = |path: &PathBuf| format!("`{}`", path.strip_prefix(self.root).unwrap_or(path).display());
            let names: Vec<String> = lone.iter().map(shown).collect();
            let there = if names.is_empty() { String::new() } else { format!(" (there is {})", names.join(", ")) };
            let (message, add) = match self.adhoc {
                true => ("which inventory is meant?".to_owned(), ""),
                false => (format!("there is no inventory {}", shown(&own[0])), "add it, "),
            };
            problems
                .push(Diagnostic::error(message).hint(format!("{add}name one with `-i`{there}, or set `inventory` in soc-provision.yml")));
        }
        Vec::new()
    }

    /// All inventories under `inventory/`.
    fn all(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.root.join("inventory")).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut found: Vec<PathBuf> = entries
            .filter(|path| {
                path.extension().is_some_and(|end| end == "yml" || end == "yaml" || end == "ini") || path.join("hosts.yml").is_file()
            })
            .collect();
        found.sort();
        found
    }

    fn existing(&self, base: &Path, names: &[String], problems: &mut Problems) -> Vec<String> {
        let mut out = Vec::new();
        for name in names {
            if name.contains(',') {
                out.push(name.clone());
                continue;
            }
            // A bare name may mean one of the project's: `-i lab` is `inventory/lab.yml`.
            let places = [vec![base.join(name)], candidates(self.root, name)].concat();
            match places.iter().find(|path| path.exists()) {
                Some(path) => out.push(normal(path).to_string_lossy().into_owned()),
                None => problems.push(
                    Diagnostic::error(format!("there is no inventory `{name}`"))
                        .hint("a list of hosts ends with a comma: `-i host1,host2,`"),
                ),
            }
        }
        out
    }
}

/// Where an inventory of this name would be.
fn candidates(root: &Path, name: &str) -> Vec<PathBuf> {
    let directory = root.join("inventory");
    let inside = ["hosts.yml", "hosts.yaml", "hosts.ini", "hosts"].map(|file| directory.join(name).join(file));
    let beside = [".yml", ".yaml", ".ini", ".json", ""].map(|ending| directory.join(format!("{name}{ending}")));
    beside.into_iter().chain(inside).collect()
}

/// `known_hosts` beside each inventory.
pub(super) fn known_hosts(inventory: &Inventory) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = Vec::new();
    for source in inventory.sources.iter().filter(|source| !source.to_string_lossy().contains(',')) {
        let path = source.parent().unwrap_or(source).join("known_hosts");
        if !out.contains(&path) {
            out.push(path);
        }
    }
    out
}
