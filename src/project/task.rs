//! Tasks, blocks and role entries as written: typed, located, unrendered.

use std::sync::Arc;

use super::ansible::{self, Place, Support};
use super::free_form;
use super::inventory::VarMap;
use super::lower::Problems;
use super::source::{Key, Map, Node, Val};
use super::variables::from_map;
use crate::diagnostic::{Diagnostic, Location, nearest};

/// What tasks, blocks, roles and plays have in common.
#[derive(Clone, Debug)]
pub struct Common {
    /// The first line of it.
    pub at: Location,
    pub name: Option<Node>,
    pub vars: Arc<VarMap>,
    pub tags: Vec<String>,
    /// All must hold.
    pub when: Vec<Node>,
    pub r#become: Option<Node>,
    pub become_user: Option<Node>,
    pub ignore_errors: Option<Node>,
    pub timeout: Option<Node>,
    pub environment: Option<Node>,
    pub notify: Vec<Node>,
}

/// An entry of a list of tasks.
#[derive(Clone, Debug)]
pub enum Item {
    Task(Box<TaskDef>),
    Block(Box<BlockDef>),
}

/// `block` / `rescue` / `always`.
#[derive(Clone, Debug)]
pub struct BlockDef {
    pub common: Common,
    pub body: Vec<Item>,
    pub rescue: Vec<Item>,
    pub always: Vec<Item>,
}

/// A task or handler.
#[derive(Clone, Debug)]
pub struct TaskDef {
    pub common: Common,
    pub action: Action,
    pub looped: Option<Loop>,
    pub listen: Vec<String>,
    /// `apply` of an include: what its tasks have in common.
    pub apply: Option<Common>,
    /// What `register` names: refused, so that nothing more needs to be said about its uses.
    pub registered: Option<String>,
}

/// What a task does.
#[derive(Clone, Debug)]
pub enum Action {
    /// A kind of resource, or several keys of which one should be a kind.
    Module {
        candidates: Vec<(Key, Node)>,
        args: Option<Node>,
    },
    SetFact(Node),
    IncludeVars(Node),
    Assert {
        that: Vec<Node>,
        message: Option<Node>,
    },
    Fail(Option<Node>),
    Debug {
        message: Option<Node>,
        var: Option<Node>,
    },
    Meta(Meta),
    IncludeTasks(Node),
    IncludeRole(Box<RoleUse>),
    /// Accepted, and without effect.
    Nothing,
}

/// `meta:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    FlushHandlers,
    EndHost,
    Noop,
}

/// `loop`, `with_items`, `with_list`, `with_dict`.
#[derive(Clone, Debug)]
pub struct Loop {
    pub items: Node,
    pub flavour: Flavour,
    pub var: Arc<str>,
    pub index_var: Option<Arc<str>>,
}

/// How items become a loop's items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// As they are.
    List,
    /// Lists within the list are opened, one level.
    Flattened,
    /// A mapping as `{key, value}`.
    Dict,
}

/// An entry of `roles:`, of `dependencies:`, or an `include_role`.
#[derive(Clone, Debug)]
pub struct RoleUse {
    pub common: Common,
    pub name: Node,
    pub params: Arc<VarMap>,
    pub tasks_from: Option<Node>,
    /// `gate: health`.
    pub gate: bool,
}

/// Lowers a list of tasks.
pub fn items(node: &Node, what: &str, problems: &mut Problems) -> Vec<Item> {
    problems.seq(node, what).iter().filter_map(|node| item(node, problems)).collect()
}

fn item(node: &Node, problems: &mut Problems) -> Option<Item> {
    let Some(map) = node.as_map() else {
        problems.error_hint(
            &node.at,
            format!("a task must be a mapping, not {}", node.sort()),
            "write `- name: ...` and the module below it",
        );
        return None;
    };
    if map.get("block").is_some() {
        let common = common(map, &node.at, Place::Block, problems);
        keywords(map, Place::Block, problems, "a block");
        let mut part = |name: &str| map.get(name).map(|node| items(node, &format!("`{name}`"), problems)).unwrap_or_default();
        let (body, rescue, always) = (part("block"), part("rescue"), part("always"));
        return Some(Item::Block(Box::new(BlockDef { common, body, rescue, always })));
    }
    task(map, &node.at, problems).map(|task| Item::Task(Box::new(task)))
}

/// Reports every key of the map that is refused or, at this place, unknown.
fn keywords(map: &Map, place: Place, problems: &mut Problems, what: &str) {
    for (key, _) in map.iter() {
        match ansible::lookup(place, &key.name) {
            Some(Support::Refused(hint)) => refused(key, hint, problems),
            Some(_) => {}
            None => unknown(key, place, what, problems),
        }
    }
}

fn unknown(key: &Key, place: Place, what: &str, problems: &mut Problems) {
    let diagnostic = Diagnostic::error(format!("unknown key `{}` in {what}", key.name)).at(key.at.clone());
    problems.push(match nearest(&key.name, ansible::accepted(place)) {
        Some(name) => diagnostic.hint(format!("did you mean `{name}`?")),
        None => diagnostic,
    });
}

fn refused(key: &Key, hint: &str, problems: &mut Problems) {
    problems.error_hint(&key.at, format!("`{}` is not supported", key.name), hint);
}

/// What is common to tasks, blocks, roles and plays.
pub(super) fn common(map: &Map, at: &Location, place: Place, problems: &mut Problems) -> Common {
    let vars = map.get("vars").and_then(|node| problems.map(node, "`vars`")).map(from_map).unwrap_or_default();
    let when = match map.get("when") {
        None => Vec::new(),
        Some(node) => match node.as_seq() {
            Some(items) => items.to_vec(),
            None => vec![node.clone()],
        },
    };
    for node in &when {
        if !matches!(node.value, Val::Str(_) | Val::Bool(_)) {
            problems.error(&node.at, format!("`when` must be an expression such as `eq a \"b\"`, not {}", node.sort()));
        }
    }
    if let Some(method) = map.get("become_method") {
        if method.as_str() != Some("sudo") {
            problems.error_hint(&method.at, "only `sudo` is supported as `become_method`", "remove the line");
        }
    }
    let listed = |node: &Node| node.as_seq().map_or_else(|| vec![node.clone()], <[Node]>::to_vec);
    Common {
        at: map.entries.first().map_or(at, |(key, _)| &key.at).clone(),
        name: map.get("name").filter(|_| place != Place::Role).cloned(),
        vars: Arc::new(vars),
        tags: map.get("tags").map(|node| problems.texts(node, "`tags`", true)).unwrap_or_default(),
        when,
        r#become: map.get("become").cloned(),
        become_user: map.get("become_user").cloned(),
        ignore_errors: map.get("ignore_errors").cloned(),
        timeout: map.get("timeout").cloned(),
        environment: map.get("environment").cloned(),
        notify: map.get("notify").map(listed).unwrap_or_default(),
    }
}

fn task(map: &Map, at: &Location, problems: &mut Problems) -> Option<TaskDef> {
    let common = common(map, at, Place::Task, problems);
    let mut modules: Vec<(Key, Node)> = Vec::new();
    let mut stopped = false;
    for (key, node) in map.iter() {
        let bare = ansible::bare_module(&key.name);
        match ansible::lookup(Place::Task, &key.name) {
            Some(Support::Refused(hint)) => refused(key, hint, problems),
            Some(_) => {}
            None => match ansible::lookup(Place::Module, bare) {
                Some(Support::Refused(hint)) => {
                    stopped = true;
                    refused(key, hint, problems);
                }
                _ if key.name.starts_with("with_") => refused(key, "use `loop`, `with_items` or `with_dict`", problems),
                _ => {
                    let node = free_form::spread(bare, node).unwrap_or_else(|| node.clone());
                    modules.push((Key { name: bare.into(), at: key.at.clone() }, node));
                }
            },
        }
    }
    environment(map, modules.first().map(|(key, _)| &*key.name), problems);
    let action = match (modules.is_empty(), stopped) {
        (false, _) => action(modules, map, problems)?,
        // The task stays, so that a handler keeps its names.
        (true, true) => Action::Nothing,
        (true, false) => {
            problems.error_hint(&common.at, "this task has no module", "add what it should do, such as `package:` or `template:`");
            return None;
        }
    };
    let looped = looped(map, problems);
    let listen = map.get("listen").map(|node| problems.texts(node, "`listen`", false)).unwrap_or_default();
    let registered = map.get("register").and_then(Node::as_str).map(str::to_owned);
    Some(TaskDef { common, apply: apply(map, problems), action, looped, listen, registered })
}

/// `environment` does something for `command` alone.
fn environment(map: &Map, module: Option<&str>, problems: &mut Problems) {
    let Some((key, _)) = map.entry("environment") else { return };
    let language = module.is_some_and(|module| ansible::lookup(Place::Module, module).is_some());
    if module.is_some_and(|module| module != "command") && !language {
        problems.error_hint(
            &key.at,
            "`environment` is read by `command` only",
            "other modules run no program of yours; apt's proxy is a line in `/etc/apt/apt.conf.d`",
        );
    }
}

/// `apply` of `include_tasks` and `include_role`.
fn apply(map: &Map, problems: &mut Problems) -> Option<Common> {
    let body = map.iter().find(|(key, _)| matches!(ansible::bare_module(&key.name), "include_tasks" | "include_role"))?.1;
    let node = body.as_map()?.get("apply")?;
    let apply = problems.map(node, "`apply`")?;
    keywords(apply, Place::Block, problems, "`apply`");
    Some(self::common(apply, &node.at, Place::Block, problems))
}

fn action(modules: Vec<(Key, Node)>, map: &Map, problems: &mut Problems) -> Option<Action> {
    let language = modules.iter().find(|(key, _)| ansible::lookup(Place::Module, &key.name).is_some()).cloned();
    let Some((key, node)) = language else {
        return Some(Action::Module { candidates: modules, args: map.get("args").cloned() });
    };
    for (other, _) in modules.iter().filter(|(other, _)| other.at != key.at) {
        unknown(other, Place::Task, &format!("a task with `{}`", key.name), problems);
    }
    let body = node.as_map();
    if body.is_none() && !node.is_null() && matches!(&*key.name, "assert" | "debug" | "fail") {
        let field = if &*key.name == "assert" { "that" } else { "msg" };
        problems.error_hint(
            &node.at,
            format!("`{}` takes a mapping, not {}", key.name, node.sort()),
            format!("write `{}: {{{field}: ...}}`", key.name),
        );
        return None;
    }
    let field = |name: &str| body.and_then(|map| map.get(name)).cloned();
    let listed = |node: Node| node.as_seq().map_or_else(|| vec![node.clone()], <[Node]>::to_vec);
    let mut only = |known: &[&str]| body.into_iter().for_each(|map| problems.only(map, known, &format!("`{}`", key.name)));
    Some(match &*key.name {
        "set_fact" => {
            problems.map(&node, "`set_fact`")?;
            Action::SetFact(node)
        }
        "include_vars" => {
            only(&["file", "dir", "name"]);
            Action::IncludeVars(node)
        }
        "assert" => {
            only(&["that", "msg", "fail_msg", "success_msg", "quiet"]);
            let Some(that) = field("that") else {
                problems.error(&key.at, "`assert` needs `that`");
                return None;
            };
            Action::Assert { that: listed(that), message: field("fail_msg").or_else(|| field("msg")) }
        }
        "fail" => {
            only(&["msg"]);
            Action::Fail(field("msg"))
        }
        "debug" => {
            only(&["msg", "var", "verbosity"]);
            Action::Debug { message: field("msg"), var: field("var") }
        }
        "meta" => Action::Meta(meta(&node, problems)?),
        "include_tasks" | "import_tasks" => {
            only(&["file", "apply"]);
            Action::IncludeTasks(if body.is_some() { field("file")? } else { node })
        }
        "include_role" | "import_role" => {
            only(&[
                "name",
                "tasks_from",
                "vars_from",
                "defaults_from",
                "handlers_from",
                "apply",
                "public",
                "allow_duplicates",
                "rolespec_validate",
                "gate",
            ]);
            Action::IncludeRole(Box::new(included_role(&key, &node, map, problems)?))
        }
        _ => Action::Nothing,
    })
}

fn meta(node: &Node, problems: &mut Problems) -> Option<Meta> {
    match node.as_str() {
        Some("flush_handlers") => Some(Meta::FlushHandlers),
        Some("end_host") => Some(Meta::EndHost),
        Some("noop" | "clear_host_errors" | "refresh_inventory") => Some(Meta::Noop),
        other => {
            let hint = match other {
                Some("end_play") => "use `meta: end_host` with `when`",
                Some("reset_connection") => "group changes take effect without it: steps run as root",
                _ => "known: `flush_handlers`, `end_host`, `noop`",
            };
            problems.error_hint(&node.at, format!("`meta: {}` is not supported", other.unwrap_or("...")), hint);
            None
        }
    }
}

fn included_role(key: &Key, node: &Node, task: &Map, problems: &mut Problems) -> Option<RoleUse> {
    let map = node.as_map();
    for name in ["vars_from", "defaults_from", "handlers_from"] {
        if let Some((found, _)) = map.and_then(|map| map.entry(name)) {
            refused(found, "split the role in two", problems);
        }
    }
    let name = match map {
        Some(map) => map.get("name").cloned(),
        None => Some(node.clone()).filter(|node| node.as_str().is_some()),
    };
    let Some(name) = name else {
        problems.error(&key.at, format!("`{}` needs `name`", key.name));
        return None;
    };
    let mut common = common(task, &node.at, Place::Task, problems);
    let params = std::mem::take(&mut common.vars);
    // The task that includes the role carries its conditions, tags and so on.
    let common = Common { when: Vec::new(), tags: Vec::new(), notify: Vec::new(), ..common };
    let gate = map.and_then(|map| map.get("gate")).is_some_and(|node| gate(node, problems));
    Some(RoleUse { common, name, params, tasks_from: map.and_then(|map| map.get("tasks_from")).cloned(), gate })
}

/// `gate: health`.
pub(super) fn gate(node: &Node, problems: &mut Problems) -> bool {
    match &node.value {
        Val::Str(text) if &**text == "health" => true,
        Val::Bool(false) => false,
        _ => {
            problems.error_hint(&node.at, "`gate` takes `health` only", "write `gate: health`, or remove the line");
            false
        }
    }
}

fn looped(map: &Map, problems: &mut Problems) -> Option<Loop> {
    let flavours =
        [("loop", Flavour::List), ("with_items", Flavour::Flattened), ("with_list", Flavour::List), ("with_dict", Flavour::Dict)];
    let mut found = flavours.iter().filter_map(|&(name, flavour)| map.entry(name).map(|(key, node)| (key, node, flavour)));
    let (_, items, flavour) = found.next()?;
    if let Some((key, _, _)) = found.next() {
        problems.error(&key.at, "a task has one loop only");
    }
    let mut looped = Loop { items: items.clone(), flavour, var: "item".into(), index_var: None };
    if let Some(control) = map.get("loop_control").and_then(|node| problems.map(node, "`loop_control`")) {
        problems.only(control, &["loop_var", "index_var", "label", "pause", "extended"], "`loop_control`");
        if let Some((key, _)) = control.entry("extended").filter(|(_, node)| !matches!(node.value, Val::Bool(false))) {
            refused(key, "`index_var` counts the items; `len` of the list is their number", problems);
        }
        if let Some(name) = control.get("loop_var").and_then(|node| problems.text(node, "`loop_var`")) {
            looped.var = name.into();
        }
        looped.index_var = control.get("index_var").and_then(|node| problems.text(node, "`index_var`")).map(Into::into);
    }
    Some(looped)
}

/// Lowers an entry of `roles:` or `dependencies:`.
pub(super) fn role_use(node: &Node, problems: &mut Problems) -> Option<RoleUse> {
    let empty = Map::default();
    let (map, name) = match &node.value {
        Val::Str(_) => (&empty, node.clone()),
        Val::Map(map) => match map.get("role").or_else(|| map.get("name")) {
            Some(name) => (map, name.clone()),
            None => {
                problems.error_hint(&node.at, "this entry names no role", "write `- role: NAME`");
                return None;
            }
        },
        _ => {
            problems.error(&node.at, format!("a role must be a name or a mapping with `role`, not {}", node.sort()));
            return None;
        }
    };
    let mut params = VarMap::new();
    for (key, value) in map.iter() {
        match ansible::lookup(Place::Role, &key.name) {
            Some(Support::Refused(hint)) => {
                refused(key, &format!("{hint}; a parameter of this name goes below `vars:`"), problems);
            }
            Some(_) => {}
            None if nearest(&key.name, ansible::accepted(Place::Role)).is_some() && key.name.len() > 3 => {
                unknown(key, Place::Role, "a role's entry", problems);
            }
            None => {
                params.insert(Arc::clone(&key.name), Arc::new(value.clone()));
            }
        }
    }
    let mut common = common(map, &node.at, Place::Role, problems);
    params.extend(std::mem::take(&mut common.vars).iter().map(|(name, value)| (Arc::clone(name), Arc::clone(value))));
    let gate = map.get("gate").is_some_and(|node| gate(node, problems));
    Some(RoleUse { common, name, params: Arc::new(params), tasks_from: None, gate })
}
