//! Playbooks: a list of plays, as written, and the hosts they stand for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ansible::{self, Place, Support};
use super::files::Files;
use super::inventory::VarMap;
use super::lower::Problems;
use super::source::{Map, Node, Val};
use super::task::{self, Common, Item, RoleUse};
use crate::diagnostic::{Diagnostic, Location, nearest};

/// One play.
#[derive(Debug)]
pub struct Play {
    /// As shown; the pattern of hosts where it has no name.
    pub name: String,
    pub common: Common,
    /// The pattern, rendered.
    pub pattern: String,
    /// Matched, and within `--limit`, in the order of the inventory.
    pub hosts: Vec<String>,
    /// Matched, regardless of `--limit`.
    pub hosts_all: Vec<String>,
    pub rollout: Rollout,
    pub login: Login,
    pub vars_files: Vec<Node>,
    pub pre_tasks: Vec<Item>,
    pub roles: Vec<RoleUse>,
    pub tasks: Vec<Item>,
    pub post_tasks: Vec<Item>,
    pub handlers: Vec<Item>,
}

/// How a play reaches its hosts, where their variables do not say.
#[derive(Clone, Debug, Default)]
pub struct Login {
    pub connection: Option<Node>,
    pub remote_user: Option<Node>,
    pub port: Option<Node>,
}

/// How a play goes over its hosts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rollout {
    /// Sizes of batches; the last repeats. Empty: all hosts at once.
    pub serial: Vec<Size>,
    /// The play stops if more than this share of a batch fails.
    pub max_fail_percentage: Option<f64>,
    /// The play stops if more hosts than this are unreachable.
    pub max_unreachable: Option<Size>,
    /// The play stops for all hosts at the first failure.
    pub any_errors_fatal: bool,
    /// `gate: health`: the next play starts only if the play's checks pass on all hosts.
    pub gate: bool,
}

/// A number of hosts, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    Hosts(usize),
    /// Of 100.
    Percent(f64),
}

impl Size {
    /// The number of hosts of a total; a share is rounded down, but is 1 at least.
    #[must_use]
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Hosts(count) => count,
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "numbers of hosts are small"
            )]
            Self::Percent(share) => (((total as f64) * share / 100.0) as usize).max(1),
        }
    }
}

impl Rollout {
    /// The batches of some hosts.
    #[must_use]
    pub fn batches<'a>(&self, hosts: &'a [String]) -> Vec<&'a [String]> {
        let mut sizes = self.serial.iter();
        let mut size = sizes.next().map_or(hosts.len(), |size| size.of(hosts.len())).max(1);
        let mut out = Vec::new();
        let mut rest = hosts;
        while !rest.is_empty() {
            let (batch, tail) = rest.split_at(size.min(rest.len()));
            out.push(batch);
            rest = tail;
            size = sizes.next().map_or(size, |size| size.of(hosts.len())).max(1);
        }
        out
    }
}

/// Reads a playbook and what it imports.
pub(super) fn load(files: &Files, path: &Path, extra: &VarMap, problems: &mut Problems) -> Vec<Play> {
    let mut reader = Reader { files, extra, open: Vec::new(), plays: Vec::new(), problems };
    reader.read(path, &Imported::default());
    reader.plays
}

/// A play without tasks over a pattern.
pub(super) fn of_pattern(pattern: &str, extra: &VarMap, problems: &mut Problems) -> Vec<Play> {
    let at = Location { file: Arc::new(PathBuf::from("command line")), line: 1, column: 1, length: 1 };
    let node = Node::from_json(&serde_json::json!({ "hosts": pattern }), &at);
    node.as_map().and_then(|map| play(map, &node, &Imported::default(), extra, problems)).into_iter().collect()
}

/// What `import_playbook` hands to every play that it brings.
#[derive(Clone, Default)]
struct Imported {
    vars: VarMap,
    tags: Vec<String>,
    when: Vec<Node>,
}

struct Reader<'a> {
    files: &'a Files,
    extra: &'a VarMap,
    /// Playbooks that are being read, outermost first.
    open: Vec<PathBuf>,
    plays: Vec<Play>,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn read(&mut self, path: &Path, outer: &Imported) {
        let Some(node) = self.problems.keep(self.files.yaml(path)) else { return };
        if node.is_null() {
            return self.problems.error_hint(&node.at, "the playbook is empty", "a playbook is a list of plays: `- hosts: all`");
        }
        self.open.push(super::files::normal(path));
        for entry in self.problems.seq(&node, "a playbook") {
            let Some(map) = self.problems.map(entry, "a play") else { continue };
            match map.entry("import_playbook").or_else(|| map.entry("ansible.builtin.import_playbook")) {
                Some((key, import)) => self.import(path, map, &key.name, import, outer),
                None => self.plays.extend(play(map, entry, outer, self.extra, self.problems)),
            }
        }
        self.open.pop();
    }

    fn import(&mut self, path: &Path, map: &Map, key: &str, import: &Node, outer: &Imported) {
        self.problems.only(map, &[key, "name", "vars", "tags", "when"], "an `import_playbook`");
        let common = task::common(map, &import.at, Place::Play, self.problems);
        let Some(name) = self.problems.text(import, "`import_playbook`") else { return };
        let mut inner = outer.clone();
        inner.tags.extend(common.tags);
        inner.when.extend(common.when);
        // The outermost import wins.
        for (name, value) in common.vars.iter() {
            inner.vars.entry(Arc::clone(name)).or_insert_with(|| Arc::clone(value));
        }
        let target = super::files::normal(&path.parent().unwrap_or(Path::new(".")).join(&name));
        if self.open.contains(&target) || self.open.len() > 32 {
            self.problems.error(&import.at, format!("`{name}` imports itself"));
        } else if target.is_file() {
            self.read(&target, &inner);
        } else {
            self.problems.error(&import.at, format!("there is no playbook `{}`", self.files.shown(&target).display()));
        }
    }
}

fn play(map: &Map, node: &Node, outer: &Imported, extra: &VarMap, problems: &mut Problems) -> Option<Play> {
    for (key, _) in map.iter() {
        match ansible::lookup(Place::Play, &key.name) {
            Some(Support::Refused(hint)) => problems.error_hint(&key.at, format!("`{}` is not supported", key.name), hint),
            Some(_) => {}
            None => {
                let diagnostic = Diagnostic::error(format!("unknown key `{}` in a play", key.name)).at(key.at.clone());
                problems.push(match nearest(&key.name, ansible::accepted(Place::Play)) {
                    Some(name) => diagnostic.hint(format!("did you mean `{name}`?")),
                    None if ansible::lookup(Place::Task, &key.name).is_some() => {
                        diagnostic.hint("this is a key of tasks: put it below `tasks:`")
                    }
                    None => diagnostic,
                });
            }
        }
    }
    let mut common = task::common(map, &node.at, Place::Play, problems);
    Arc::make_mut(&mut common.vars).extend(outer.vars.iter().map(|(name, value)| (Arc::clone(name), Arc::clone(value))));
    common.tags.extend(outer.tags.iter().cloned());
    common.when.splice(0..0, outer.when.iter().cloned());
    if let Some((key, _)) = map.entry("environment") {
        problems.push(Diagnostic::warning("the play's `environment` reaches its `command` tasks only").at(key.at.clone()));
    }
    let Some(hosts) = map.get("hosts") else {
        problems.error_hint(&common.at, "this play has no `hosts`", "add `hosts: all`, or a group's name");
        return None;
    };
    let pattern = pattern(hosts, &common.vars, extra, problems)?;
    let list = |name: &str, problems: &mut Problems| {
        map.get(name).map(|node| task::items(node, &format!("`{name}`"), problems)).unwrap_or_default()
    };
    let roles = map.get("roles").map(|node| problems.seq(node, "`roles`")).unwrap_or_default();
    let vars_files = match map.get("vars_files") {
        Some(node) => node.as_seq().map_or_else(|| vec![node.clone()], <[Node]>::to_vec),
        None => Vec::new(),
    };
    Some(Play {
        name: common.name.as_ref().and_then(Node::as_str).map_or_else(|| pattern.clone(), str::to_owned),
        hosts: Vec::new(),
        hosts_all: Vec::new(),
        rollout: rollout(map, problems),
        login: Login {
            connection: map.get("connection").cloned(),
            remote_user: map.get("remote_user").cloned(),
            port: map.get("port").cloned(),
        },
        vars_files,
        pre_tasks: list("pre_tasks", problems),
        roles: roles.iter().filter_map(|node| task::role_use(node, problems)).collect(),
        tasks: list("tasks", problems),
        post_tasks: list("post_tasks", problems),
        handlers: list("handlers", problems),
        pattern,
        common,
    })
}

/// `hosts:` as one pattern. It is needed before there is any host, so of templates only
/// `{{name}}` works, with a name of `-e` or of the play's `vars`.
fn pattern(node: &Node, vars: &Arc<VarMap>, extra: &VarMap, problems: &mut Problems) -> Option<String> {
    let mut pattern = problems.texts(node, "`hosts`", false).join(",");
    while let Some(open) = pattern.find("{{") {
        let Some(length) = pattern[open..].find("}}") else { break };
        let inner = pattern[open + 2..open + length].trim().to_owned();
        let words = shlex::split(&inner).unwrap_or_default();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let find = |name: &str| extra.get(name).or_else(|| vars.get(name)).and_then(|node| node.as_str().map(str::to_owned));
        let value = match words[..] {
            [name] => find(name),
            ["default", name, fallback] => find(name).or_else(|| Some(fallback.to_owned())),
            _ => None,
        };
        match value.filter(|value| !value.contains("{{")) {
            Some(value) => pattern.replace_range(open..open + length + 2, &value),
            None => {
                problems.error_hint(
                    &node.at,
                    format!("`{{{{{inner}}}}}` in `hosts` is not known before there are hosts"),
                    "give the name with `-e`, or write `{{default NAME \"all\"}}`",
                );
                return None;
            }
        }
    }
    Some(pattern)
}

fn rollout(map: &Map, problems: &mut Problems) -> Rollout {
    let serial = match map.get("serial") {
        None => Vec::new(),
        Some(node) => match node.as_seq() {
            Some(items) => items.iter().filter_map(|item| size(item, "`serial`", problems)).collect(),
            None => size(node, "`serial`", problems).into_iter().collect(),
        },
    };
    // `serial: 0` is Ansible's way to say: all at once.
    let serial: Vec<Size> = serial.into_iter().filter(|size| !matches!(size, Size::Hosts(0))).collect();
    let max_fail_percentage = map.get("max_fail_percentage").and_then(|node| {
        let share = match &node.value {
            Val::Number(number) => number.as_f64(),
            Val::Str(text) => text.trim_end_matches('%').parse().ok(),
            _ => None,
        };
        if !share.is_some_and(|share| (0.0..=100.0).contains(&share)) {
            problems.error(&node.at, "`max_fail_percentage` must be a number from 0 to 100");
        }
        share
    });
    Rollout {
        serial,
        max_fail_percentage,
        max_unreachable: map.get("max_unreachable").and_then(|node| size(node, "`max_unreachable`", problems)),
        any_errors_fatal: map.get("any_errors_fatal").and_then(|node| problems.boolean(node, "`any_errors_fatal`")).unwrap_or_default(),
        gate: map.get("gate").is_some_and(|node| task::gate(node, problems)),
    }
}

fn size(node: &Node, what: &str, problems: &mut Problems) -> Option<Size> {
    let size = match &node.value {
        Val::Number(number) => number.as_u64().and_then(|number| usize::try_from(number).ok()).map(Size::Hosts),
        Val::Str(text) => match text.strip_suffix('%') {
            Some(share) => share.trim().parse().ok().filter(|share| (0.0..=100.0).contains(share)).map(Size::Percent),
            None => text.parse().ok().map(Size::Hosts),
        },
        _ => None,
    };
    if size.is_none() {
        problems.error(&node.at, format!("{what} must be a number of hosts or a share such as `30%`"));
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_follow_serial() {
        let hosts: Vec<String> = (0..10).map(|number| format!("h{number}")).collect();
        let sizes = |serial: Vec<Size>| -> Vec<usize> {
            Rollout { serial, ..Rollout::default() }.batches(&hosts).iter().map(|batch| batch.len()).collect()
        };
        assert_eq!(sizes(vec![]), [10]);
        assert_eq!(sizes(vec![Size::Hosts(1), Size::Hosts(4)]), [1, 4, 4, 1]);
        assert_eq!(sizes(vec![Size::Percent(30.0)]), [3, 3, 3, 1]);
        assert_eq!(sizes(vec![Size::Percent(1.0)]), [1; 10]);
    }
}
