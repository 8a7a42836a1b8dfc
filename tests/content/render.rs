//! Renders roles as the tool would, for one host: role defaults, role vars, a few facts, overrides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use soc_provision::resolve::template::{self, Names, Trouble, Undefined};

/// The stacks' roles.
pub(crate) const STACKS: &[&str] = &["siem", "ai_services", "soar", "monitoring", "network_analysis", "waf"];

/// The project's directory.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A file's text.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file of YAML.
pub(crate) fn yaml(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    parse(&read(path), &path.display().to_string())
}

/// YAML text.
pub(crate) fn parse(text: &str, what: &str) -> Value {
    serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Names of all roles.
pub(crate) fn roles() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(root().join("roles"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| root().join("roles").join(name).join("tasks/main.yml").exists())
        .collect();
    names.sort();
    names
}

/// A host with its variables, unrendered.
pub(crate) struct Host {
    raw: BTreeMap<String, Value>,
    /// Of all roles, for the diagnosis of a name that is nowhere.
    depth: std::cell::Cell<u32>,
}

impl Host {
    /// A host that is in these groups and has these variables besides the roles' own. All six groups
    /// exist in the inventory.
    pub(crate) fn new(groups: &[&str], overrides: &Value) -> Self {
        let mut raw = BTreeMap::new();
        let mut take = |value: Value| raw.extend(value.as_object().cloned().unwrap_or_default());
        for part in ["defaults", "vars"] {
            for role in roles() {
                let path = root().join("roles").join(&role).join(part).join("main.yml");
                if path.exists() {
                    take(yaml(path));
                }
            }
        }
        let all: Map<String, Value> =
            ["siem", "soar", "ai", "monitoring", "sensors", "edge"].iter().map(|name| ((*name).to_owned(), json!(["soc1"]))).collect();
        take(json!({
            "ansible_default_ipv4": {"address": "192.0.2.10", "interface": "ens3"},
            "ansible_virtualization_type": "kvm",
            "inventory_hostname": "soc1", "group_names": groups, "groups": all,
        }));
        take(overrides.clone());
        Self { raw, depth: std::cell::Cell::new(0) }
    }

    /// All groups on one host, the profile whose figures are the seeds'.
    pub(crate) fn all() -> Self {
        Self::new(&["siem", "soar", "ai", "monitoring", "sensors", "edge"], &json!({}))
    }

    /// A variable, rendered.
    pub(crate) fn var(&self, name: &str) -> Value {
        self.render(self.raw.get(name).unwrap_or_else(|| panic!("no variable `{name}`")), name)
    }

    /// `templates/NAME` of a role, rendered; secrets stand as their markers.
    pub(crate) fn template(&self, role: &str, name: &str) -> String {
        let source = read(format!("roles/{role}/templates/{name}"));
        self.text(&source, &format!("roles/{role}/templates/{name}"))
    }

    /// A role's Compose file.
    pub(crate) fn compose(&self, role: &str) -> Value {
        parse(&self.template(role, "compose.yml"), &format!("rendered compose.yml of {role}"))
    }

    /// The tasks of a role, rendered with the host's variables, loops left as they are.
    pub(crate) fn text(&self, source: &str, what: &str) -> String {
        let compiled = template::compile(source).unwrap_or_else(|trouble| panic!("{what}: {trouble:?}"));
        template::text(&compiled, self).unwrap_or_else(|trouble| panic!("{what}: {trouble:?}"))
    }

    /// Renders every string of a value.
    pub(crate) fn render(&self, value: &Value, what: &str) -> Value {
        match value {
            Value::String(text) if template::is_template(text) => {
                self.depth.set(self.depth.get() + 1);
                assert!(self.depth.get() < 64, "`{what}` refers to itself");
                let compiled = template::compile(text).unwrap_or_else(|trouble| panic!("{what}: {trouble:?}"));
                let value = template::value(&compiled, self).unwrap_or_else(|trouble| panic!("{what}: {text}: {trouble:?}"));
                self.depth.set(self.depth.get() - 1);
                value
            }
            Value::Array(items) => items.iter().map(|item| self.render(item, what)).collect(),
            Value::Object(map) => map.iter().map(|(key, item)| (key.clone(), self.render(item, what))).collect(),
            other => other.clone(),
        }
    }
}

impl Names for Host {
    fn value(&self, name: &str) -> Result<Option<Arc<Value>>, Undefined> {
        Ok(self.raw.get(name).map(|value| Arc::new(self.render(value, name))))
    }

    fn hostvars(&self, _: Option<&str>, _: Option<&str>) -> Value {
        json!({})
    }

    fn partial(&self, name: &str) -> Result<Arc<template::Compiled>, Trouble> {
        panic!("no partial `{name}` in the roles")
    }

    fn known(&self) -> Vec<String> {
        self.raw.keys().cloned().collect()
    }
}

/// The `compose_stack` task of a role.
pub(crate) fn stack_task(role: &str) -> Value {
    let tasks = yaml(format!("roles/{role}/tasks/main.yml"));
    let found = tasks.as_array().unwrap().iter().find_map(|task| task.get("compose_stack"));
    found.unwrap_or_else(|| panic!("role `{role}` has no stack")).clone()
}

/// Files that the project ships, as git knows them: path and text, without tests and its own books.
pub(crate) fn shipped() -> Vec<(String, String)> {
    let output = std::process::Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root()).output().unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    names
        .lines()
        .filter(|name| !name.starts_with("tests/") && *name != "Cargo.lock")
        .filter_map(|name| Some((name.to_owned(), std::fs::read_to_string(root().join(name)).ok()?)))
        .collect()
}
