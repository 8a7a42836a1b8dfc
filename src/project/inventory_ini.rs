//! Ansible's INI inventories: `[group]`, `[group:children]`, `[group:vars]`, `name:port key=value`.

use std::collections::HashSet;

use super::inventory::Inventory;
use super::lower::Problems;
use super::source::Node;
use crate::diagnostic::Location;

enum Section {
    Hosts(String),
    Children(String),
    Vars(String),
}

/// Adds what the text says to the inventory.
pub(super) fn read(inventory: &mut Inventory, text: &str, start: &Location, problems: &mut Problems) {
    let mut section = Section::Hosts("ungrouped".to_owned());
    let known: HashSet<String> = inventory.iter_groups().map(|(name, _)| name.to_owned()).collect();
    let (mut sections, mut children) = (HashSet::new(), Vec::new());
    for (index, raw) in text.lines().enumerate() {
        let line = raw.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let indent = raw.len() - raw.trim_start().len();
        let at = Location {
            line: u32::try_from(index + 1).unwrap_or(u32::MAX),
            column: u32::try_from(indent + 1).unwrap_or(1),
            length: u32::try_from(line.chars().count()).unwrap_or(1),
            ..start.clone()
        };
        if line.starts_with('[') && !line.contains('=') && line.split('#').next().unwrap_or(line).trim_end().ends_with(']') {
            match header(line) {
                Some(next) => section = next,
                None => {
                    problems.error_hint(&at, format!("`{line}` is not a section"), "write `[group]`, `[group:children]` or `[group:vars]`")
                }
            }
            match &section {
                Section::Hosts(name) | Section::Children(name) | Section::Vars(name) => {
                    inventory.group(name);
                    sections.insert(name.clone());
                }
            }
            continue;
        }
        match &section {
            Section::Hosts(group) => host_line(inventory, group, line, &at, problems),
            Section::Children(group) => {
                let child = line.split('#').next().unwrap_or(line).trim();
                inventory.add_child(group, child);
                children.push((child.to_owned(), at));
            }
            Section::Vars(group) => match line.split_once('=') {
                Some((name, value)) => inventory.set_group_var(group, name.trim(), literal(value.trim(), &at)),
                None => problems.error(&at, format!("`{line}` is not `name=value`")),
            },
        }
    }
    for (child, at) in children.iter().filter(|(child, _)| !sections.contains(child) && !known.contains(child)) {
        let near = crate::diagnostic::nearest(child, sections.iter().map(String::as_str));
        let hint = near.map_or_else(|| format!("add a section `[{child}]`, or remove the line"), |near| format!("did you mean `{near}`?"));
        problems.error_hint(at, format!("there is no group `{child}`"), hint);
    }
}

fn header(line: &str) -> Option<Section> {
    let inner = line.split('#').next()?.trim().strip_prefix('[')?.strip_suffix(']')?;
    match inner.split_once(':') {
        None if !inner.is_empty() => Some(Section::Hosts(inner.to_owned())),
        Some((name, "children")) => Some(Section::Children(name.to_owned())),
        Some((name, "vars")) => Some(Section::Vars(name.to_owned())),
        Some((name, "hosts")) => Some(Section::Hosts(name.to_owned())),
        _ => None,
    }
}

fn host_line(inventory: &mut Inventory, group: &str, line: &str, at: &Location, problems: &mut Problems) {
    let Some(words) = shlex::split(line) else {
        return problems.error(at, "the quotes of this line do not match");
    };
    let Some((name, vars)) = words.split_first() else { return };
    let (name, port) = split_port(name);
    // `[2001:db8::1]:2222`: the brackets are not the name's.
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).filter(|name| name.parse::<std::net::Ipv6Addr>().is_ok());
    let name = inner.unwrap_or(name);
    for host in inventory.add_hosts(group, name, at, problems) {
        if let Some(port) = port {
            inventory.set_host_var(&host, "ansible_port", Node::from_json(&port.into(), at));
        }
        for word in vars {
            match word.split_once('=') {
                Some((key, value)) => inventory.set_host_var(&host, key, literal(value, at)),
                None => {
                    problems.error_hint(at, format!("`{word}` is not `name=value`"), "one host a line; variables follow it as `name=value`")
                }
            }
        }
    }
}

/// `web1:2222` is `web1` at port 2222; ranges and IPv6 addresses keep their colons.
fn split_port(name: &str) -> (&str, Option<u16>) {
    match name.rsplit_once(':') {
        Some((head, port)) if !head.contains(':') || head.ends_with(']') => match port.parse() {
            Ok(port) => (head, Some(port)),
            Err(_) => (name, None),
        },
        _ => (name, None),
    }
}

/// A value as Python would read it, as Ansible does here; anything else is text. A comment ends
/// such a value, but not text.
fn literal(value: &str, at: &Location) -> Node {
    let whole = python(value);
    let json = match (&whole, value.split_once(" #")) {
        (serde_json::Value::String(_), Some((head, _))) => {
            let head = head.trim_end();
            let read = python(head);
            if read == head { whole } else { read }
        }
        _ => whole,
    };
    Node::from_json(&json, at)
}

fn python(value: &str) -> serde_json::Value {
    use serde_json::Value;
    match value {
        "True" | "true" => Value::Bool(true),
        "False" | "false" => Value::Bool(false),
        "None" => Value::Null,
        _ => number(value).unwrap_or_else(|| {
            let quoted = |mark: char| value.len() > 1 && value.starts_with(mark) && value.ends_with(mark);
            if quoted('"') || quoted('\'') {
                return Value::String(value[1..value.len() - 1].to_owned());
            }
            if value.starts_with(['[', '{']) && !value.starts_with("{{") {
                if let Ok(json) = serde_json::from_str(value).or_else(|_| serde_json::from_str(&value.replace('\'', "\""))) {
                    return json;
                }
            }
            Value::String(value.to_owned())
        }),
    }
}

fn number(value: &str) -> Option<serde_json::Value> {
    if value.len() > 1 && value.trim_start_matches('-').starts_with('0') && !value.contains('.') {
        return None;
    }
    value.parse::<i64>().ok().map(Into::into).or_else(|| {
        let plain = value.contains('.') && value.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-'));
        value.parse::<f64>().ok().filter(|_| plain).and_then(serde_json::Number::from_f64).map(Into::into)
    })
}

#[cfg(test)]
mod tests {
    use super::super::files::Files;
    use super::super::hosts::Names as _;
    use super::*;

    #[test]
    fn an_ini_inventory_loads() {
        let directory = tempfile::tempdir().unwrap();
        let text = "lone ansible_host=10.0.0.1\n\n[web]\nweb[1:2]:2222 a='x y' b=True # no comment\n[prod:children]\nweb\n[web:vars]\nn=7\nmode=0644\nlist=['a', 'b']\n";
        std::fs::write(directory.path().join("hosts"), text.replace(" # no comment", "")).unwrap();
        let files = Files::new(directory.path().to_path_buf());
        let mut problems = Problems::default();
        let inventory = Inventory::load(&files, &["hosts".to_owned()], &mut problems);
        assert_eq!(problems.into_vec(), []);
        assert_eq!(inventory.members("prod").unwrap(), ["web1", "web2"]);
        assert_eq!(inventory.members("ungrouped").unwrap(), ["lone"]);
        let vars = &inventory.host("web2").unwrap().vars;
        assert_eq!(vars["ansible_port"].to_json(), 2222);
        assert_eq!(vars["a"].to_json(), "x y");
        assert_eq!(vars["b"].to_json(), true);
        let group = &inventory.find_group("web").unwrap().vars;
        assert_eq!((group["n"].to_json(), group["mode"].to_json()), (7.into(), "0644".into()));
        assert_eq!(group["list"].to_json(), serde_json::json!(["a", "b"]));
    }
}
