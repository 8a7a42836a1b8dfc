//! `soc-provision.yml`: a project's defaults.

use std::path::{Path, PathBuf};

use super::files::Files;
use super::images::{self, Images};
use super::lower::Problems;

/// Defaults that a project sets; flags override them.
#[derive(Debug, Default)]
pub struct Settings {
    /// Inventories where the playbook has none of its own name.
    pub inventory: Vec<String>,
    /// Hosts at a time.
    pub forks: Option<usize>,
    /// Seconds.
    pub connect_timeout: Option<u64>,
    /// The SSH key, relative to the project.
    pub private_key: Option<PathBuf>,
    /// The login user.
    pub remote_user: Option<String>,
    /// The age identity that opens the project's secrets, relative to the project.
    pub identity: Option<PathBuf>,
    /// The history of runs, relative to the project; `none` for no history.
    pub history: Option<PathBuf>,
    /// `images:`, until the project takes it.
    pub images: Images,
}

const KNOWN: &[&str] = &["inventory", "forks", "connect_timeout", "private_key", "remote_user", "identity", "history", "images"];

/// The settings of the project that a directory is in, for commands without a playbook; problems
/// of the file are for those that have one.
#[must_use]
pub fn nearest(directory: &Path) -> Settings {
    let has = |directory: &&Path| ["soc-provision.yml", "soc-provision.yaml"].iter().any(|name| directory.join(name).is_file());
    directory.ancestors().find(has).map_or_else(Settings::default, |root| load(&Files::new(root.to_owned()), &mut Problems::default()))
}

/// Reads the settings of a project, if it has any.
pub(super) fn load(files: &Files, problems: &mut Problems) -> Settings {
    let mut settings = Settings::default();
    let Some(path) = files.first(files.root(), &["soc-provision.yml", "soc-provision.yaml"]) else { return settings };
    let Some(node) = problems.keep(files.yaml(&path)) else { return settings };
    let Some(map) = problems.map(&node, "soc-provision.yml") else { return settings };
    problems.only(map, KNOWN, "soc-provision.yml");
    for (key, node) in map.iter() {
        match &*key.name {
            "inventory" => settings.inventory = problems.texts(node, "`inventory`", false),
            "forks" => {
                settings.forks =
                    problems.number(node, "`forks`").and_then(|number| usize::try_from(number).ok()).filter(|&number| number > 0)
            }
            "connect_timeout" => settings.connect_timeout = problems.number(node, "`connect_timeout`"),
            "private_key" => settings.private_key = problems.text(node, "`private_key`").map(|path| relative(files.root(), &path)),
            "remote_user" => settings.remote_user = problems.text(node, "`remote_user`"),
            "identity" => settings.identity = problems.text(node, "`identity`").map(|path| relative(files.root(), &path)),
            "images" => settings.images = images::settings(node, problems),
            "history" => {
                settings.history = problems
                    .text(node, "`history`")
                    .map(|path| if path == "none" { PathBuf::from(path) } else { relative(files.root(), &path) })
            }
            _ => {}
        }
    }
    settings
}

/// A path as the user means it: `~/` is the home directory, the rest is relative to the project.
#[must_use]
pub fn relative(root: &Path, path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => root.join(path),
    }
}
