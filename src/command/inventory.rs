//! `inventory`: hosts, groups and variables, in Ansible's forms.

use std::collections::HashSet;

use crate::cli::InventoryArgs;
use crate::command::{adhoc, print, run};
use crate::diagnostic::Exit;
use crate::project::Project;

/// Shows the inventory.
pub(super) fn run(arguments: &InventoryArgs) -> Exit {
    let loaded = match &arguments.playbook {
        Some(playbook) => run::load(playbook, &arguments.inventory),
        None => adhoc::load("all", &arguments.inventory),
    };
    let project = match loaded {
        Ok(loaded) => loaded.project,
        Err(exit) => return exit,
    };
    if let Some(host) = &arguments.host {
        return one_host(&project, host);
    }
    if arguments.list {
        print(&format!("{}\n", serde_json::to_string_pretty(&crate::resolve::inventory_json(&project)).unwrap_or_default()));
    } else {
        print(&graph(&project));
    }
    Exit::Fine
}

fn one_host(project: &Project, host: &str) -> Exit {
    if project.inventory.host(host).is_none() {
        let names: Vec<&str> = project.inventory.iter().map(|(name, _)| name).collect();
        let near = crate::diagnostic::nearest(host, names).map_or_else(String::new, |near| format!("\nhint: did you mean `{near}`?"));
        crate::command::complain(&format!("error: `{host}` is not in the inventory{near}"));
        return Exit::Usage;
    }
    print(&format!("{}\n", serde_json::to_string_pretty(&crate::resolve::host_json(project, host)).unwrap_or_default()));
    Exit::Fine
}

/// The tree that `ansible-inventory --graph` prints.
fn graph(project: &Project) -> String {
    let inventory = &project.inventory;
    let inner: HashSet<&str> = inventory
        .iter_groups()
        .filter(|(name, _)| *name != "all")
        .flat_map(|(_, group)| group.children.iter().map(String::as_str))
        .collect();
    let top = inventory.iter_groups().map(|(name, _)| name).filter(|name| !matches!(*name, "all" | "ungrouped") && !inner.contains(name));
    let mut out = "@all:\n".to_owned();
    for name in std::iter::once("ungrouped").chain(top) {
        branch(project, name, 1, &mut out);
    }
    out
}

fn branch(project: &Project, name: &str, depth: usize, out: &mut String) {
    out.push_str(&format!("{}--@{name}:\n", "  |".repeat(depth)));
    let Some(group) = project.inventory.find_group(name) else { return };
    group.children.iter().for_each(|child| branch(project, child, depth + 1, out));
    group.hosts.iter().for_each(|host| out.push_str(&format!("{}--{host}\n", "  |".repeat(depth + 1))));
}
