//! Roles on disk: `tasks/ handlers/ defaults/ vars/ meta/ verify/`, each `main.yml`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use super::files::Files;
use super::inventory::VarMap;
use super::lower::Problems;
use super::source::{Map, Node};
use super::task::{self, Item, RoleUse};
use super::variables;

/// A role as loaded.
#[derive(Debug, Default)]
pub struct Role {
    pub name: String,
    pub directory: PathBuf,
    pub defaults: Arc<VarMap>,
    pub vars: Arc<VarMap>,
    pub tasks: Arc<Vec<Item>>,
    pub handlers: Vec<Item>,
    /// `verify/main.yml`: health checks, written as tasks.
    pub verify: Vec<Item>,
    /// `verify/smoke.yml`: checks that leave a trace (an event, an alert), made only on demand.
    pub smoke: Vec<Item>,
    pub dependencies: Vec<RoleUse>,
    /// Argument specifications by entry point (`main`).
    pub specs: IndexMap<String, Arc<Spec>>,
    /// `requires` of `meta/main.yml`: what a host must have, for preflight.
    pub requires: Option<Node>,
}

/// Arguments that a role, or a part of one, takes.
#[derive(Debug, Default)]
pub struct Spec {
    pub options: Vec<OptionSpec>,
}

/// One argument.
#[derive(Debug)]
pub struct OptionSpec {
    pub name: String,
    pub at: crate::diagnostic::Location,
    pub kind: OptionKind,
    pub required: bool,
    pub default: Option<Node>,
    pub choices: Vec<serde_json::Value>,
    /// Least and greatest value of a number.
    pub range: (Option<f64>, Option<f64>),
    /// What text must match, whole.
    pub pattern: Option<regex::Regex>,
    /// What it is for; shown where it is wrong.
    pub description: Option<String>,
    /// Type of a list's items.
    pub elements: Option<OptionKind>,
    /// Fields of a mapping, or of the mappings in a list.
    pub options: Option<Spec>,
}

/// Type of an argument, by Ansible's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    Str,
    Bool,
    Int,
    Float,
    /// 1 to 65535.
    Port,
    /// `512m`, `8G`, or a number of bytes.
    Size,
    List,
    Dict,
    Path,
    Raw,
}

const KINDS: &[(&str, OptionKind)] = &[
    ("str", OptionKind::Str),
    ("bool", OptionKind::Bool),
    ("int", OptionKind::Int),
    ("float", OptionKind::Float),
    ("port", OptionKind::Port),
    ("size", OptionKind::Size),
    ("list", OptionKind::List),
    ("dict", OptionKind::Dict),
    ("path", OptionKind::Path),
    ("raw", OptionKind::Raw),
    ("any", OptionKind::Raw),
    ("json", OptionKind::Raw),
    ("jsonarg", OptionKind::Raw),
    ("bytes", OptionKind::Str),
    ("bits", OptionKind::Str),
];

/// What `requires` of a role may name; `resource::requirement` reads it once it is rendered.
const REQUIRES: &[&str] = &["cpu", "cpus", "memory", "disk", "ports", "sysctl", "kernel_modules", "subnets", "profile", "profiles"];

/// The names a part's main file may have.
const MAIN: &[&str] = &["main.yml", "main.yaml", "main.json", "main"];

/// Reads a role. Parts that do not exist are empty.
pub(super) fn load(files: &Files, name: &str, directory: &Path, problems: &mut Problems) -> Role {
    let mut role = Role { name: name.to_owned(), directory: directory.to_path_buf(), ..Role::default() };
    role.defaults = vars(files, &directory.join("defaults"), problems);
    role.vars = vars(files, &directory.join("vars"), problems);
    let mut list = |part: &str| match main_file(files, directory, part, problems) {
        Some(node) => task::items(&node, &format!("{part}/main.yml"), problems),
        None => Vec::new(),
    };
    role.tasks = Arc::new(list("tasks"));
    role.handlers = list("handlers");
    role.verify = list("verify");
    let smoke = files.first(&directory.join("verify"), &["smoke.yml", "smoke.yaml"]);
    if let Some(node) = smoke.and_then(|path| problems.keep(files.yaml(&path))) {
        role.smoke = task::items(&node, "verify/smoke.yml", problems);
    }
    if let Some(node) = main_file(files, directory, "meta", problems) {
        meta(&node, &mut role, problems);
    }
    let separate = files.first(&directory.join("meta"), &["argument_specs.yml", "argument_specs.yaml"]);
    if let Some(node) = separate.and_then(|path| problems.keep(files.yaml(&path))) {
        if let Some(specs) = problems.map(&node, "argument specs").and_then(|map| map.get("argument_specs")) {
            argument_specs(specs, &mut role, problems);
        }
    }
    role
}

fn main_file(files: &Files, directory: &Path, part: &str, problems: &mut Problems) -> Option<Arc<Node>> {
    let path = files.first(&directory.join(part), MAIN)?;
    problems.keep(files.yaml(&path))
}

/// `vars/main.yml`, or all files of `vars/main/`.
fn vars(files: &Files, directory: &Path, problems: &mut Problems) -> Arc<VarMap> {
    if let Some(path) = files.first(directory, MAIN) {
        return variables::from_file(files, &path, problems);
    }
    let mut vars = VarMap::new();
    for path in files.below(&directory.join("main")) {
        vars.extend(variables::from_file(files, &path, problems).iter().map(|(name, node)| (Arc::clone(name), Arc::clone(node))));
    }
    Arc::new(vars)
}

fn meta(node: &Node, role: &mut Role, problems: &mut Problems) {
    let Some(map) = problems.map(node, "meta/main.yml") else { return };
    problems.only(map, &["dependencies", "argument_specs", "requires", "galaxy_info", "allow_duplicates", "collections"], "meta/main.yml");
    for entry in map.get("dependencies").map(|node| problems.seq(node, "`dependencies`")).unwrap_or_default() {
        role.dependencies.extend(task::role_use(entry, problems));
    }
    if let Some(specs) = map.get("argument_specs") {
        argument_specs(specs, role, problems);
    }
    if let Some(requires) = map.get("requires") {
        if let Some(map) = problems.map(requires, "`requires`") {
            problems.only(map, REQUIRES, "`requires`");
        }
        role.requires = Some(requires.clone());
    }
}

fn argument_specs(node: &Node, role: &mut Role, problems: &mut Problems) {
    let Some(map) = problems.map(node, "`argument_specs`") else { return };
    for (entry, body) in map.iter() {
        let Some(body) = problems.map(body, &format!("entry point `{}`", entry.name)) else { continue };
        problems.only(
            body,
            &["short_description", "description", "author", "version_added", "options", "seealso", "notes"],
            "an entry point",
        );
        let options = body.get("options").map(|node| options(node, problems, 0)).unwrap_or_default();
        role.specs.insert(entry.name.to_string(), Arc::new(options));
    }
}

fn options(node: &Node, problems: &mut Problems, depth: usize) -> Spec {
    let Some(map) = problems.map(node, "`options`") else { return Spec::default() };
    if depth > 16 {
        problems.error(&node.at, "options are nested too deeply");
        return Spec::default();
    }
    let options = map.iter().filter_map(|(key, body)| {
        let empty = Map::default();
        let body = if body.is_null() { Some(&empty) } else { problems.map(body, &format!("option `{}`", key.name)) }?;
        const KNOWN: &[&str] = &[
            "type",
            "required",
            "default",
            "choices",
            "elements",
            "options",
            "description",
            "version_added",
            "aliases",
            "no_log",
            "min",
            "max",
            "pattern",
        ];
        problems.only(body, KNOWN, &format!("option `{}`", key.name));
        let kind = body.get("type").map_or(Some(OptionKind::Str), |node| kind_of(node, problems))?;
        let elements = body.get("elements").and_then(|node| kind_of(node, problems));
        let required = body.get("required").and_then(|node| problems.boolean(node, "`required`")).unwrap_or_default();
        let default = body.get("default").cloned();
        if let (true, Some(default)) = (required, &default) {
            problems.error_hint(&default.at, format!("option `{}` is required and has a default", key.name), "remove one of the two");
        }
        let choices = body.get("choices").map(|node| problems.seq(node, "`choices`")).unwrap_or_default();
        Some(OptionSpec {
            name: key.name.to_string(),
            at: key.at.clone(),
            kind,
            required,
            default,
            choices: choices.iter().map(Node::to_json).collect(),
            elements,
            range: (limit(body, "min", kind, problems), limit(body, "max", kind, problems)),
            pattern: body.get("pattern").and_then(|node| pattern(node, problems)),
            description: body.get("description").and_then(Node::as_str).map(str::to_owned),
            options: body.get("options").map(|node| self::options(node, problems, depth + 1)),
        })
    });
    Spec { options: options.collect() }
}

/// `min` or `max`, which only numbers have.
fn limit(body: &Map, key: &str, kind: OptionKind, problems: &mut Problems) -> Option<f64> {
    let node = body.get(key)?;
    let number = node.to_json().as_f64().filter(|_| matches!(kind, OptionKind::Int | OptionKind::Float));
    if number.is_none() {
        problems.error(&node.at, format!("`{key}` must be a number, and the option of type `int` or `float`"));
    }
    number
}

fn pattern(node: &Node, problems: &mut Problems) -> Option<regex::Regex> {
    let compiled = node.as_str().map(|text| regex::Regex::new(&format!("^(?:{text})$")));
    match compiled {
        Some(Ok(pattern)) => Some(pattern),
        _ => {
            problems.error(&node.at, "this is not a regular expression");
            None
        }
    }
}

fn kind_of(node: &Node, problems: &mut Problems) -> Option<OptionKind> {
    let found = KINDS.iter().find(|(name, _)| Some(*name) == node.as_str());
    if found.is_none() {
        let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).take(10).collect();
        problems.error_hint(&node.at, "this is not a type", format!("types: {}", names.join(", ")));
    }
    found.map(|(_, kind)| *kind)
}
