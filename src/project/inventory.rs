//! The inventory: hosts, groups, and which variables each host gets from them.
//!
//! Formats: YAML here, INI in `inventory_ini.rs`, executables in `inventory_script.rs`, host lists
//! (`-i web1,web2`). All of them add to one [`Inventory`], as Ansible's do.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use super::files::Files;
use super::hosts::{self, Names};
use super::lower::Problems;
use super::source::{Key, Node};
use super::{inventory_ini, inventory_script};
use crate::diagnostic::{Diagnostic, Location};

/// Variables by name, unrendered, in the order of the file.
pub type VarMap = IndexMap<Arc<str>, Arc<Node>>;

/// Hosts and groups.
#[derive(Debug, Default)]
pub struct Inventory {
    hosts: IndexMap<String, Host>,
    groups: IndexMap<String, Group>,
    /// Files, scripts and lists that were read.
    pub sources: Vec<PathBuf>,
    members: HashMap<String, Vec<usize>>,
    /// The controller itself, where a play names it and the inventory does not.
    implicit: Option<String>,
}

/// One host.
#[derive(Debug, Default)]
pub struct Host {
    /// Its variables from the inventory itself.
    pub vars: Arc<VarMap>,
    /// Its groups, those that win last: parents before children, then by `ansible_group_priority`
    /// and name. `all` comes first.
    pub groups: Vec<String>,
    /// Index into [`Inventory::sources`].
    pub source: usize,
}

/// One group.
#[derive(Debug, Default)]
pub struct Group {
    /// Its variables from the inventory itself.
    pub vars: Arc<VarMap>,
    pub children: Vec<String>,
    /// Hosts named in it directly.
    pub hosts: Vec<String>,
    priority: i64,
    depth: usize,
}

impl Inventory {
    /// Reads inventories in order; later ones add to earlier ones.
    pub fn load(files: &Files, inventories: &[String], problems: &mut Problems) -> Self {
        let mut inventory = Self::default();
        for typed in inventories {
            inventory.read(files, typed, problems);
        }
        inventory.finish(problems);
        inventory
    }

    fn read(&mut self, files: &Files, typed: &str, problems: &mut Problems) {
        if typed.contains(',') {
            self.sources.push(PathBuf::from(typed));
            let at = Location { file: Arc::new(PathBuf::from("-i")), line: 1, column: 1, length: 1 };
            for name in typed.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                self.add_hosts("ungrouped", name, &at, problems);
            }
            return;
        }
        let path = files.root().join(typed);
        if path.is_dir() {
            let ignored = |name: &str| {
                let skip = ["group_vars", "host_vars", "known_hosts"];
                skip.contains(&name)
                    || name.starts_with('.')
                    || [".orig", ".bak", "~", ".md", ".retry"].iter().any(|end| name.ends_with(end))
            };
            let mut names: Vec<PathBuf> = std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            names.sort();
            for entry in names {
                if entry.is_file() && !ignored(&entry.file_name().unwrap_or_default().to_string_lossy()) {
                    self.read_file(files, &entry, problems);
                }
            }
        } else {
            self.read_file(files, &path, problems);
        }
    }

    fn read_file(&mut self, files: &Files, path: &Path, problems: &mut Problems) {
        self.sources.push(path.to_path_buf());
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if inventory_script::is_script(path) {
            inventory_script::read(self, files, path, problems);
        } else if matches!(extension.as_str(), "yml" | "yaml" | "json") {
            if let Some(node) = problems.keep(files.yaml(path)) {
                self.yaml(&node, problems);
            }
        } else if let Some(text) = problems.keep(files.text(path)) {
            if extension != "ini" && looks_like_yaml(&text) {
                if let Some(node) = problems.keep(files.yaml(path)) {
                    self.yaml(&node, problems);
                }
            } else {
                inventory_ini::read(self, &text, &files.start(path), problems);
            }
        }
    }

    /// `all: {hosts: {...}, vars: {...}, children: {...}}`.
    fn yaml(&mut self, node: &Node, problems: &mut Problems) {
        let Some(map) = problems.map(node, "an inventory") else {
            problems.push(Diagnostic::warning("the inventory is empty").at(node.at.clone()));
            return;
        };
        for (key, body) in map.iter() {
            self.yaml_group(key, body, problems, 0);
        }
    }

    fn yaml_group(&mut self, key: &Key, body: &Node, problems: &mut Problems, depth: usize) {
        self.group(&key.name);
        if depth > 32 {
            return problems.error(&key.at, "groups are nested too deeply");
        }
        let Some(map) = problems.map(body, &format!("group `{}`", key.name)) else { return };
        problems.only(map, &["hosts", "vars", "children"], &format!("group `{}`", key.name));
        if let Some(hosts) = map.get("hosts").and_then(|node| host_entries(node, problems)) {
            for (host, vars) in hosts {
                let names = self.add_hosts(&key.name, &host.name, &host.at, problems);
                let vars = vars.and_then(|node| problems.map(node, &format!("host `{}`", host.name)));
                for name in names {
                    for (var, value) in vars.into_iter().flat_map(super::source::Map::iter) {
                        self.set_host_var(&name, &var.name, value.clone());
                    }
                }
            }
        }
        if let Some(vars) = map.get("vars").and_then(|node| problems.map(node, "`vars`")) {
            for (var, value) in vars.iter() {
                self.set_group_var(&key.name, &var.name, value.clone());
            }
        }
        if let Some(children) = map.get("children").and_then(|node| problems.map(node, "`children`")) {
            for (child, body) in children.iter() {
                self.add_child(&key.name, &child.name);
                self.yaml_group(child, body, problems, depth + 1);
            }
        }
    }

    /// Adds the hosts that a name with ranges stands for to a group.
    pub(super) fn add_hosts(&mut self, group: &str, name: &str, at: &Location, problems: &mut Problems) -> Vec<String> {
        let source = self.sources.len().saturating_sub(1);
        let names = match hosts::expand(name) {
            Ok(names) => names,
            Err(message) => {
                problems.error(at, message);
                return Vec::new();
            }
        };
        for name in &names {
            let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '/' | '\\' | '$' | '`' | '"' | '\'' | '{' | '}');
            if name.is_empty() || name.starts_with('-') || name.contains(odd) {
                problems.error(at, format!("`{}` cannot be the name of a host", name.escape_debug()));
                return Vec::new();
            }
            self.hosts.entry(name.clone()).or_insert_with(|| Host { source, ..Host::default() });
        }
        let members = &mut self.group(group).hosts;
        // Large generated groups repeat no name; a set pays only for them.
        let known: HashSet<String> = members.iter().cloned().collect();
        members.extend(names.iter().filter(|name| !known.contains(*name)).cloned());
        names
    }

    pub(super) fn group(&mut self, name: &str) -> &mut Group {
        self.groups.entry(name.to_owned()).or_default()
    }

    pub(super) fn add_child(&mut self, group: &str, child: &str) {
        self.group(child);
        let children = &mut self.group(group).children;
        if !children.iter().any(|known| known == child) {
            children.push(child.to_owned());
        }
    }

    pub(super) fn set_host_var(&mut self, host: &str, name: &str, value: Node) {
        if let Some(host) = self.hosts.get_mut(host) {
            Arc::make_mut(&mut host.vars).insert(name.into(), Arc::new(value));
        }
    }

    pub(super) fn set_group_var(&mut self, group: &str, name: &str, value: Node) {
        if name == "ansible_group_priority" {
            if let super::source::Val::Number(number) = &value.value {
                self.group(group).priority = number.as_i64().unwrap_or(1);
            }
        }
        Arc::make_mut(&mut self.group(group).vars).insert(name.into(), Arc::new(value));
    }

    /// Computes what follows from the groups as a whole.
    fn finish(&mut self, problems: &mut Problems) {
        self.group("all");
        self.group("ungrouped");
        if let Some(cycle) = self.cycle() {
            problems.push(
                Diagnostic::error(format!("group `{cycle}` is its own child")).hint("remove it from the `children` of the inner group"),
            );
            for group in self.groups.values_mut() {
                group.children.clear();
            }
        }
        self.grouped();
        let order = self.depths();
        let mut host_groups: HashMap<usize, Vec<usize>> = HashMap::new();
        for (index, name) in self.groups.keys().enumerate() {
            let members = if name == "all" { (0..self.hosts.len()).collect() } else { self.walk(name) };
            for &host in &members {
                host_groups.entry(host).or_default().push(index);
            }
            self.members.insert(name.clone(), members);
        }
        for (host, mut groups) in host_groups {
            groups.sort_by_key(|&index| order[index]);
            let names = groups.iter().filter_map(|&index| self.groups.get_index(index)).map(|(name, _)| name.clone()).collect();
            if let Some((_, host)) = self.hosts.get_index_mut(host) {
                host.groups = names;
            }
        }
    }

    /// Puts hosts that are in no group but `all` into `ungrouped`, and the others out of it.
    fn grouped(&mut self) {
        let mut grouped: HashSet<&str> = HashSet::new();
        for (name, group) in &self.groups {
            if name != "all" && name != "ungrouped" {
                grouped.extend(group.hosts.iter().map(String::as_str));
            }
        }
        let rest: Vec<String> = self.hosts.keys().filter(|host| !grouped.contains(host.as_str())).cloned().collect();
        self.group("ungrouped").hosts = rest;
    }

    /// A group that contains itself.
    fn cycle(&self) -> Option<String> {
        fn visit<'a>(inventory: &'a Inventory, name: &'a str, path: &mut Vec<&'a str>, done: &mut HashSet<&'a str>) -> Option<String> {
            if path.contains(&name) {
                return Some(name.to_owned());
            }
            if !done.insert(name) {
                return None;
            }
            path.push(name);
            let found = inventory.groups.get(name)?.children.iter().find_map(|child| visit(inventory, child, path, done));
            path.pop();
            found
        }
        let mut done = HashSet::new();
        self.groups.keys().find_map(|name| visit(self, name, &mut Vec::new(), &mut done))
    }

    /// For each group its rank in the order in which variables are laid over each other.
    fn depths(&mut self) -> Vec<usize> {
        // A child is deeper than each of its parents; there are no cycles, so this settles.
        for _ in 0..self.groups.len() {
            let mut changed = false;
            for index in 0..self.groups.len() {
                let (depth, children) = (self.groups[index].depth, self.groups[index].children.clone());
                for child in children {
                    let group = self.group(&child);
                    if group.depth <= depth {
                        group.depth = depth + 1;
                        changed = true;
                    }
                }
            }
            if !changed {
                break;
            }
        }
        let mut indices: Vec<usize> = (0..self.groups.len()).collect();
        indices.sort_by_key(|&index| {
            let (name, group) = self.groups.get_index(index).map_or(("", None), |(name, group)| (name.as_str(), Some(group)));
            let depth = group.map_or(0, |group| group.depth + 1);
            (if name == "all" { 0 } else { depth + 1 }, group.map_or(1, |group| group.priority), name.to_owned())
        });
        let mut ranks = vec![0; indices.len()];
        for (rank, index) in indices.into_iter().enumerate() {
            ranks[index] = rank;
        }
        ranks
    }

    /// Indices of the hosts in a group and its children, each once.
    fn walk(&self, name: &str) -> Vec<usize> {
        let mut seen = HashSet::new();
        let mut out = Vec::new();
        let mut pending = vec![name];
        while let Some(name) = pending.pop() {
            let Some(group) = self.groups.get(name) else { continue };
            for index in group.hosts.iter().filter_map(|host| self.hosts.get_index_of(host)) {
                if seen.insert(index) {
                    out.push(index);
                }
            }
            pending.extend(group.children.iter().rev().map(String::as_str));
        }
        out
    }

    /// Adds the controller, which is in no group: as in Ansible, `hosts: localhost` needs no
    /// inventory, and `all` does not mean it.
    pub(super) fn add_implicit(&mut self, name: &str) {
        let at = Location { file: Arc::new(PathBuf::from("localhost")), line: 1, column: 1, length: 1 };
        let local = Node { value: super::source::Val::Str("local".into()), at };
        let vars = VarMap::from_iter([("ansible_connection".into(), Arc::new(local))]);
        let host = Host { vars: Arc::new(vars), groups: vec!["all".to_owned()], source: usize::MAX };
        self.hosts.insert(name.to_owned(), host);
        self.implicit = Some(name.to_owned());
    }

    /// A host by name.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.get(name)
    }

    /// All hosts, in the order of the inventory.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Host)> {
        self.hosts.iter().map(|(name, host)| (name.as_str(), host))
    }

    /// All groups with their hosts.
    pub fn iter_groups(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(name, group)| (name.as_str(), group))
    }

    /// A group by name.
    #[must_use]
    pub fn find_group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }

    /// Number of hosts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there is no host.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// The directory and the file of a host's inventory.
    #[must_use]
    pub fn origin(&self, host: &Host) -> (Option<&Path>, Option<&Path>) {
        let source = self.sources.get(host.source).map(PathBuf::as_path).filter(|path| !path.to_string_lossy().contains(','));
        (source.and_then(Path::parent), source)
    }
}

impl Names for Inventory {
    fn hosts(&self) -> Vec<&str> {
        self.hosts.keys().filter(|name| self.implicit.as_ref() != Some(*name)).map(String::as_str).collect()
    }

    fn implicit(&self) -> Option<&str> {
        self.implicit.as_deref()
    }

    fn members(&self, group: &str) -> Option<Vec<&str>> {
        let indices = self.members.get(group)?;
        Some(indices.iter().filter_map(|&index| self.hosts.get_index(index)).map(|(name, _)| name.as_str()).collect())
    }

    fn groups(&self) -> Vec<&str> {
        self.groups.keys().map(String::as_str).collect()
    }
}

/// `hosts:` as a mapping, or, as some write it, one name.
fn host_entries<'a>(node: &'a Node, problems: &mut Problems) -> Option<Vec<(Key, Option<&'a Node>)>> {
    if let Some(name) = node.as_str() {
        return Some(vec![(Key { name: name.into(), at: node.at.clone() }, None)]);
    }
    if let Some(items) = node.as_seq() {
        let first = items.first().map_or(&node.at, |item| &item.at);
        problems.error_hint(first, "`hosts` of a group must be a mapping, not a list", "write `web1:` on a line of its own, without `- `");
        return None;
    }
    let map = problems.map(node, "`hosts`")?;
    Some(map.iter().map(|(key, value)| (key.clone(), Some(value).filter(|value| !value.is_null()))).collect())
}

/// Whether a file without a telling name is YAML rather than INI.
fn looks_like_yaml(text: &str) -> bool {
    let line = text.lines().map(str::trim_end).find(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with(';'));
    line.is_some_and(|line| {
        line == "---" || line.starts_with('{') || (line.ends_with(':') && !line.contains('=') && !line.starts_with('['))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(yaml: &str) -> (Inventory, Vec<Diagnostic>) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("hosts.yml"), yaml).unwrap();
        let files = Files::new(directory.path().to_path_buf());
        let mut problems = Problems::default();
        let inventory = Inventory::load(&files, &["hosts.yml".to_owned()], &mut problems);
        (inventory, problems.into_vec())
    }

    #[test]
    fn ansibles_yaml_loads_as_it_is() {
        let (inventory, problems) = load(
            "all:\n  hosts:\n    lone: {ansible_host: 10.0.0.9}\n  vars: {a: 1}\n  children:\n    web:\n      hosts:\n        web[01:02]:\n          p: 1\n      vars: {a: 2}\n    prod:\n      children:\n        web:\n",
        );
        assert_eq!(problems, []);
        assert_eq!(inventory.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["lone", "web01", "web02"]);
        assert_eq!(inventory.host("web01").unwrap().groups, ["all", "prod", "web"]);
        assert_eq!(inventory.members("prod").unwrap(), ["web01", "web02"]);
        assert_eq!(inventory.members("ungrouped").unwrap(), ["lone"]);
        assert!(inventory.host("web02").unwrap().vars.contains_key("p"));
    }

    #[test]
    fn mistakes_are_all_reported() {
        let (_, problems) = load("all:\n  hots: {}\n  children:\n    web:\n      hosts: [a, b]\n    db:\n      hosts:\n        d[3:1]:\n");
        let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!(messages.len(), 3, "{messages:?}");
        assert_eq!(problems[0].hint.as_deref(), Some("did you mean `hosts`?"));
    }

    #[test]
    fn a_group_in_itself_is_an_error() {
        let (_, problems) = load("a:\n  children:\n    b:\nb:\n  children:\n    a:\n");
        assert!(problems[0].message.contains("its own child"));
    }
}
