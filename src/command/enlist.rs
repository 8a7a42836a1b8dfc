//! Adds a host to an inventory that people wrote, without touching the rest of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::project::source;

/// The address in the inventory of a new project; documentation's, so nobody's.
const PLACEHOLDER: &str = "192.0.2.10";

/// A new host.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) address: &'a str,
    pub(super) port: u16,
    pub(super) user: &'a str,
    pub(super) key: Option<&'a Path>,
}

impl Entry<'_> {
    /// The lines of the host, the name indented by so many blanks.
    pub(super) fn lines(&self, indent: usize) -> String {
        let (outer, inner) = (" ".repeat(indent), " ".repeat(indent + 2));
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) && !text.is_empty();
        let word = |text: &str| if plain(text) { text.to_owned() } else { quoted(text) };
        let mut out = format!("{outer}{}:\n{inner}ansible_host: {}\n", word(self.name), word(self.address));
        if self.port != 22 {
            out.push_str(&format!("{inner}ansible_port: {}\n", self.port));
        }
        out.push_str(&format!("{inner}ansible_user: {}\n{inner}ansible_become: true\n", word(self.user)));
        if let Some(key) = self.key {
            out.push_str(&format!("{inner}ansible_ssh_private_key_file: {}\n", quoted(&key.display().to_string())));
        }
        out
    }
}

/// What became of it.
#[derive(Debug, PartialEq)]
pub(super) enum Enlisted {
    Added(String),
    /// The inventory has a host of this name or address.
    Present,
    /// The file has no place that is sure to be right.
    Unclear,
}

/// The inventory with the host in it.
pub(super) fn enlist(text: &str, entry: &Entry<'_>) -> Enlisted {
    let text = without_placeholder(text);
    let here = |line: &str| {
        let line = line.split(" #").next().unwrap_or(line).trim();
        let value = |text: &str| text.trim().trim_matches(['"', '\'']) == entry.address;
        line.trim_end_matches(':').trim_matches('"') == entry.name && line.ends_with(':')
            || line.strip_prefix("ansible_host:").is_some_and(value)
    };
    if text.lines().any(here) {
        return Enlisted::Present;
    }
    let Some((at, indent)) = place(&text) else { return Enlisted::Unclear };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let head = lines.remove(at).replace("{}", "");
    lines.insert(at, head.trim_end().to_owned());
    lines.insert(at + 1, entry.lines(indent + 2).trim_end().to_owned());
    let new = format!("{}\n", lines.join("\n"));
    // A look at the result is better than trust in the way to it.
    let read = source::parse(&new, &Arc::new(PathBuf::from("inventory")));
    let found = read.ok().is_some_and(|node| !node.to_json()["all"]["hosts"][entry.name].is_null());
    if found { Enlisted::Added(new) } else { Enlisted::Unclear }
}

/// The line `hosts:` below `all:`, and its indentation.
fn place(text: &str) -> Option<(usize, usize)> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| line.trim_end() != "all:").skip(1);
    let mut level = None;
    lines.by_ref().take_while(|(_, line)| line.trim().is_empty() || line.starts_with([' ', '#'])).find_map(|(at, line)| {
        if line.trim().is_empty() || line.trim().starts_with('#') {
            return None;
        }
        let level = *level.get_or_insert(indent(line));
        let words = line.split(" #").next().unwrap_or(line).trim();
        (indent(line) == level && matches!(words, "hosts:" | "hosts: {}")).then_some((at, level))
    })
}

/// The text without the host that `init` wrote as an example.
fn without_placeholder(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let Some(start) = lines.iter().position(|line| line.trim() == "host1:") else { return text.to_owned() };
    let inner = lines[start + 1..].iter().take_while(|line| indent(line) > indent(lines[start]) && !line.trim().is_empty()).count();
    let block = &lines[start..=start + inner];
    if !block.iter().any(|line| line.trim() == format!("ansible_host: {PLACEHOLDER}")) {
        return text.to_owned();
    }
    let rest: Vec<&str> = lines[..start].iter().chain(&lines[start + inner + 1..]).copied().collect();
    format!("{}\n", rest.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry<'_> {
        Entry { name, address: "10.0.0.1", port: 22, user: "deploy", key: None }
    }

    #[test]
    fn a_host_takes_the_place_of_the_example() {
        let Enlisted::Added(text) = enlist(include_str!("init/inventory.yml"), &entry("web1")) else { panic!("not added") };
        assert!(
            text.ends_with("  hosts:\n    web1:\n      ansible_host: 10.0.0.1\n      ansible_user: deploy\n      ansible_become: true\n"),
            "{text}"
        );
        let Enlisted::Added(more) = enlist(&text, &Entry { address: "10.0.0.2", port: 2222, ..entry("web2") }) else { panic!("not added") };
        assert!(more.contains("web1:") && more.contains("ansible_port: 2222"), "{more}");
        assert_eq!(enlist(&more, &entry("other")), Enlisted::Present);
        assert_eq!(enlist(&more, &Entry { address: "10.0.0.3", ..entry("web1") }), Enlisted::Present);
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        for text in
            ["web:\n  hosts:\n    a:\n", "all: {hosts: {a: }}\n", "[web]\na\n", "all:\n  children:\n    web:\n      hosts:\n        a:\n"]
        {
            assert_eq!(enlist(text, &entry("x")), Enlisted::Unclear, "{text}");
        }
        assert!(matches!(enlist("all:\n    hosts: {}\n    vars: {a: 1}\n", &entry("x")), Enlisted::Added(_)));
    }
}
