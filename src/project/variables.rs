//! Variables before rendering: where they come from and which source wins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::Files;
use super::inventory::{Inventory, VarMap};
use super::lower::Problems;
use super::source::{Map, Node, Val};
use crate::diagnostic::{Diagnostic, Location, nearest};

/// Sources of variables, the weakest first. This list is the precedence: scopes are sorted by it,
/// and the docs are made from it. It is Ansible's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    PlayRoleDefaults,
    RoleDefaults,
    InventoryAll,
    InventoryGroup,
    GroupVarsAllInventory,
    GroupVarsAllPlaybook,
    GroupVarsInventory,
    GroupVarsPlaybook,
    InventoryHost,
    HostVarsInventory,
    HostVarsPlaybook,
    Facts,
    PlayVars,
    VarsFiles,
    PlayRoleVars,
    RoleVars,
    BlockVars,
    TaskVars,
    IncludeVars,
    SetFact,
    RoleParams,
    Extra,
    Magic,
    Loop,
}

/// The precedence with a description of each source, for the docs.
pub const PRECEDENCE: &[(Layer, &str)] = &[
    (Layer::PlayRoleDefaults, "`defaults/main.yml` of the play's other roles"),
    (Layer::RoleDefaults, "`defaults/main.yml` of the task's role"),
    (Layer::InventoryAll, "`vars` of the group `all` in the inventory"),
    (Layer::InventoryGroup, "`vars` of groups in the inventory, children over parents"),
    (Layer::GroupVarsAllInventory, "`group_vars/all` beside the inventory"),
    (Layer::GroupVarsAllPlaybook, "`group_vars/all` beside the playbook"),
    (Layer::GroupVarsInventory, "`group_vars/GROUP` beside the inventory, children over parents"),
    (Layer::GroupVarsPlaybook, "`group_vars/GROUP` beside the playbook, children over parents"),
    (Layer::InventoryHost, "variables of the host in the inventory"),
    (Layer::HostVarsInventory, "`host_vars/HOST` beside the inventory"),
    (Layer::HostVarsPlaybook, "`host_vars/HOST` beside the playbook"),
    (Layer::Facts, "facts"),
    (Layer::PlayVars, "`vars` of the play"),
    (Layer::VarsFiles, "`vars_files` of the play"),
    (Layer::PlayRoleVars, "`vars/main.yml` of the play's other roles"),
    (Layer::RoleVars, "`vars/main.yml` of the task's role"),
    (Layer::BlockVars, "`vars` of blocks, inner over outer"),
    (Layer::TaskVars, "`vars` of the task"),
    (Layer::IncludeVars, "`include_vars`"),
    (Layer::SetFact, "`set_fact`"),
    (Layer::RoleParams, "parameters of the role, `vars` of `include_role` and `include_tasks`"),
    (Layer::Extra, "`-e`"),
    (Layer::Magic, "names that the tool sets (`inventory_hostname`, ...)"),
    (Layer::Loop, "`item` and the other names of a loop"),
];

/// One source with its variables.
#[derive(Clone, Debug)]
pub struct Source {
    pub layer: Layer,
    pub vars: Arc<VarMap>,
}

/// Variables of a mapping.
#[must_use]
pub fn from_map(map: &Map) -> VarMap {
    map.iter().map(|(key, node)| (Arc::clone(&key.name), Arc::new(node.clone()))).collect()
}

/// Variables of a whole file.
pub fn from_file(files: &Files, path: &Path, problems: &mut Problems) -> Arc<VarMap> {
    let Some(node) = problems.keep(files.yaml(path)) else { return Arc::default() };
    Arc::new(problems.map(&node, "a file of variables").map(from_map).unwrap_or_default())
}

/// `group_vars` and `host_vars` of one directory: names to files, each directory read once.
#[derive(Debug, Default)]
struct Beside {
    names: BTreeMap<String, Vec<PathBuf>>,
}

impl Beside {
    fn read(files: &Files, directory: &Path) -> Self {
        let mut names: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        let mut entries: Vec<PathBuf> = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for entry in entries {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if entry.is_dir() && !name.starts_with('.') {
                let below = files.below(&entry).into_iter().filter(|path| stem(path).is_some());
                names.entry(name).or_default().extend(below);
            } else if let Some(stem) = stem(&entry) {
                names.entry(stem).or_default().push(entry);
            }
        }
        Self { names }
    }

    fn load(&self, files: &Files, name: &str, layer: Layer, problems: &mut Problems, out: &mut Vec<Source>) {
        for path in self.names.get(name).into_iter().flatten() {
            let vars = from_file(files, path, problems);
            if !vars.is_empty() {
                out.push(Source { layer, vars });
            }
        }
    }
}

/// The name that a file of variables is for, if it is one.
fn stem(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    if name.starts_with('.') || name.ends_with('~') {
        return None;
    }
    let stem = [".yml", ".yaml", ".json"].iter().find_map(|end| name.strip_suffix(end));
    // A host's name has dots, so only the known endings are taken off.
    match stem {
        Some(stem) => Some(stem.to_owned()),
        None => (![".md", ".txt", ".orig", ".bak", ".age", ".j2", ".hbs"].iter().any(|end| name.ends_with(end))).then(|| name.into_owned()),
    }
}

/// The inventory's variables of every host, weakest source first.
pub fn of_hosts(files: &Files, inventory: &Inventory, playbook_dir: &Path, problems: &mut Problems) -> BTreeMap<String, Vec<Source>> {
    let mut beside: Vec<PathBuf> = Vec::new();
    for source in &inventory.sources {
        let directory = if source.is_dir() { Some(source.clone()) } else { source.parent().map(Path::to_path_buf) };
        if let Some(directory) = directory.filter(|directory| *directory != playbook_dir && !beside.contains(directory)) {
            beside.push(directory);
        }
    }
    let read = |directory: &Path, name: &str| Beside::read(files, &directory.join(name));
    let groups: Vec<Beside> = beside.iter().map(|directory| read(directory, "group_vars")).collect();
    let hosts: Vec<Beside> = beside.iter().map(|directory| read(directory, "host_vars")).collect();
    let (play_groups, play_hosts) = (read(playbook_dir, "group_vars"), read(playbook_dir, "host_vars"));
    warn_unknown(files, &groups, &play_groups, &|name| inventory.find_group(name).is_some(), "group", inventory, problems);
    warn_unknown(files, &hosts, &play_hosts, &|name| inventory.host(name).is_some(), "host", inventory, problems);

    let mut of_group: BTreeMap<&str, Vec<Source>> = BTreeMap::new();
    for (name, group) in inventory.iter_groups() {
        let all = name == "all";
        let mut sources = Vec::new();
        if !group.vars.is_empty() {
            sources.push(Source { layer: if all { Layer::InventoryAll } else { Layer::InventoryGroup }, vars: Arc::clone(&group.vars) });
        }
        let (inside, beside) = if all {
            (Layer::GroupVarsAllInventory, Layer::GroupVarsAllPlaybook)
        } else {
            (Layer::GroupVarsInventory, Layer::GroupVarsPlaybook)
        };
        groups.iter().for_each(|directory| directory.load(files, name, inside, problems, &mut sources));
        play_groups.load(files, name, beside, problems, &mut sources);
        of_group.insert(name, sources);
    }
    inventory
        .iter()
        .map(|(name, host)| {
            let mut sources: Vec<Source> =
                host.groups.iter().flat_map(|group| of_group.get(group.as_str()).into_iter().flatten().cloned()).collect();
            if !host.vars.is_empty() {
                sources.push(Source { layer: Layer::InventoryHost, vars: Arc::clone(&host.vars) });
            }
            hosts.iter().for_each(|directory| directory.load(files, name, Layer::HostVarsInventory, problems, &mut sources));
            play_hosts.load(files, name, Layer::HostVarsPlaybook, problems, &mut sources);
            // Stable: groups of one layer stay in the order in which they win.
            sources.sort_by_key(|source| source.layer);
            (name.to_owned(), sources)
        })
        .collect()
}

fn warn_unknown(
    files: &Files,
    beside: &[Beside],
    playbook: &Beside,
    known: &dyn Fn(&str) -> bool,
    what: &str,
    inventory: &Inventory,
    problems: &mut Problems,
) {
    let names: Vec<&str> = match what {
        "group" => inventory.iter_groups().map(|(name, _)| name).collect(),
        _ => inventory.iter().map(|(name, _)| name).collect(),
    };
    for (name, paths) in beside.iter().chain([playbook]).flat_map(|directory| &directory.names) {
        // Other inventories of the project have other names; only a near miss is worth a word.
        if let (false, Some(path), Some(near)) = (known(name), paths.first(), nearest(name, names.iter().copied())) {
            if name.len() > 3 {
                let message = format!("`{}` belongs to no {what} of this inventory", files.shown(path).display());
                problems.push(Diagnostic::warning(message).hint(format!("did you mean `{near}`?")));
            }
        }
    }
}

/// Variables of `-e`, in order: `k=v` (always text, as Ansible has it), JSON, YAML, `@file`.
pub fn extra(files: &Files, arguments: &[String], problems: &mut Problems) -> VarMap {
    let mut vars = VarMap::new();
    for argument in arguments {
        let at = Location { file: Arc::new(PathBuf::from("-e")), line: 1, column: 1, length: 1 };
        let argument = argument.trim();
        if let Some(path) = argument.strip_prefix('@') {
            vars.extend(
                from_file(files, &files.root().join(path), problems).iter().map(|(name, node)| (Arc::clone(name), Arc::clone(node))),
            );
        } else if argument.starts_with(['{', '[']) || (argument.contains(": ") && !argument.contains('=')) {
            match super::source::parse(argument, &at.file) {
                Ok(node) => vars.extend(problems.map(&node, "`-e`").map(from_map).unwrap_or_default()),
                Err(diagnostic) => problems.push(diagnostic),
            }
        } else {
            let Some(words) = shlex::split(argument) else {
                problems.push(Diagnostic::error(format!("the quotes of `-e {argument}` do not match")));
                continue;
            };
            for word in words {
                match word.split_once('=') {
                    Some((name, value)) => {
                        vars.insert(name.into(), Arc::new(Node { value: Val::Str(value.into()), at: at.clone() }));
                    }
                    None => problems.push(
                        Diagnostic::error(format!("`{word}` after `-e` is not `name=value`"))
                            .hint("write `-e name=value`, `-e '{\"name\": 1}'` or `-e @file.yml`"),
                    ),
                }
            }
        }
    }
    vars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_the_layers() {
        assert!(PRECEDENCE.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(PRECEDENCE.last().unwrap().0, Layer::Loop);
    }

    #[test]
    fn extra_vars_come_in_four_forms() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("x.yml"), "f: [1]\n").unwrap();
        let files = Files::new(directory.path().to_path_buf());
        let mut problems = Problems::default();
        let arguments = ["a=1 b='x y'", "{\"c\": true}", "d: 4", "@x.yml", "bad"].map(str::to_owned);
        let vars = extra(&files, &arguments, &mut problems);
        let json: serde_json::Map<_, _> = vars.iter().map(|(name, node)| (name.to_string(), node.to_json())).collect();
        assert_eq!(serde_json::Value::from(json), serde_json::json!({"a": "1", "b": "x y", "c": true, "d": 4, "f": [1]}));
        assert_eq!(problems.into_vec().len(), 1);
    }
}
