//! The inventory as `ansible-inventory` prints it, and single variables of hosts before facts.

use serde_json::{Map, Value, json};

use super::helpers;
use super::resolver::{Resolver, RunOptions};
use crate::project::Project;
use crate::secret::Text;

/// One variable of a host as the inventory has it, as text: without facts, without a play.
/// `None` if there is none, or it cannot be rendered yet.
#[must_use]
pub fn plain_variable(project: &Project, host: &str, name: &str) -> Option<String> {
    let options = RunOptions::default();
    helpers::text(&Resolver::new(project, &options).hostvar(host, name, 0)?).ok()
}

/// All variables of a host from the inventory, rendered where that is possible without facts;
/// secrets show as their names.
#[must_use]
pub fn host_json(project: &Project, host: &str) -> Value {
    let options = RunOptions::default();
    Value::Object(host_map(&Resolver::new(project, &options), host))
}

fn host_map(resolver: &Resolver<'_>, host: &str) -> Map<String, Value> {
    let mut out = Map::new();
    for source in resolver.project.host_vars(host) {
        for (name, node) in source.vars.iter() {
            let mut value = resolver.hostvar(host, name, 0).unwrap_or_else(|| node.to_json());
            hide(&mut value);
            out.insert(name.to_string(), value);
        }
    }
    out
}

fn hide(value: &mut Value) {
    match value {
        Value::String(text) if Text::is_marked(text) => *text = Text::parse(text).to_string(),
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(map) => map.values_mut().for_each(hide),
        _ => {}
    }
}

/// The whole inventory in the form of `ansible-inventory --list`.
#[must_use]
pub fn inventory_json(project: &Project) -> Value {
    let options = RunOptions::default();
    let resolver = Resolver::new(project, &options);
    let hostvars: Map<String, Value> =
        project.inventory.iter().map(|(host, _)| (host.to_owned(), Value::Object(host_map(&resolver, host)))).collect();
    let mut out = Map::from_iter([("_meta".to_owned(), json!({ "hostvars": hostvars }))]);
    let children: Vec<&str> = {
        let inner: Vec<&str> = project
            .inventory
            .iter_groups()
            .flat_map(|(name, group)| if name == "all" { Vec::new() } else { group.children.iter().map(String::as_str).collect() })
            .collect();
        let top = project.inventory.iter_groups().map(|(name, _)| name);
        let top = top.filter(|name| !matches!(*name, "all" | "ungrouped") && !inner.contains(name));
        std::iter::once("ungrouped").chain(top).collect()
    };
    out.insert("all".to_owned(), json!({ "children": children }));
    for (name, group) in project.inventory.iter_groups().filter(|(name, _)| *name != "all") {
        let mut entry = Map::new();
        if !group.hosts.is_empty() {
            entry.insert("hosts".to_owned(), json!(group.hosts));
        }
        if !group.children.is_empty() {
            entry.insert("children".to_owned(), json!(group.children));
        }
        if !entry.is_empty() {
            out.insert(name.to_owned(), Value::Object(entry));
        }
    }
    Value::Object(out)
}
