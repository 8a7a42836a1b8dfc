//! The inventory's variables of hosts, rendered, for people and for other tools.

use serde_json::{Map, Value, json};

use super::resolver::{Resolver, RunOptions};
use crate::project::Project;

/// One inventory variable of a host as text; `None` if it is not set or cannot be rendered.
#[must_use]
pub fn plain_variable(project: &Project, host: &str, name: &str) -> Option<String> {
    let options = RunOptions::default();
    match Resolver::new(project, &options).hostvar(host, name, 0)? {
        Value::String(text) => Some(text),
        Value::Null => None,
        other => Some(other.to_string()),
    }
}

/// All inventory variables of a host. Secrets show as their names.
#[must_use]
pub fn host_json(project: &Project, host: &str) -> Value {
    let options = RunOptions::default();
    let resolver = Resolver::new(project, &options);
    let mut names: Vec<String> = project.host_vars(host).iter().flat_map(|source| source.vars.keys().map(ToString::to_string)).collect();
    names.sort();
    names.dedup();
    let value = |name: &String| resolver.hostvar(host, name, 0).map(|value| (name.clone(), shown(value)));
    Value::Object(names.iter().filter_map(value).collect())
}

/// The whole inventory as `ansible-inventory --list` prints it.
#[must_use]
pub fn inventory_json(project: &Project) -> Value {
    let mut out = Map::new();
    let hostvars: Map<String, Value> = project.inventory.iter().map(|(name, _)| (name.to_owned(), host_json(project, name))).collect();
    out.insert("_meta".into(), json!({ "hostvars": hostvars }));
    for (name, group) in project.inventory.iter_groups() {
        let mut entry = Map::new();
        if !group.children.is_empty() {
            entry.insert("children".into(), json!(group.children));
        }
        if !group.hosts.is_empty() {
            entry.insert("hosts".into(), json!(group.hosts));
        }
        out.insert(name.to_owned(), Value::Object(entry));
    }
    Value::Object(out)
}

fn shown(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(crate::secret::Text::parse(&text).to_string()),
        Value::Array(list) => list.into_iter().map(shown).collect(),
        Value::Object(map) => Value::Object(map.into_iter().map(|(name, value)| (name, shown(value))).collect()),
        other => other,
    }
}
