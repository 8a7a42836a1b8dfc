//! What resolving all hosts of a run shares: options, groups, other hosts' variables.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::HostProgram;
use super::host::HostRun;
use super::sources;
use super::template::{self, Compiled, OMIT, Trouble};
use super::variables::{Frame, Scope, Sourced, Values, World};
use crate::diagnostic::Diagnostic;
use crate::facts::Facts;
use crate::project::Project;
use crate::project::hosts::Names as _;
use crate::project::source::is_reserved;
use crate::project::variables::Layer;
use crate::secret::SecretName;

/// Options of a run that bear on what it does.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// `--tags`; empty for all.
    pub tags: Vec<String>,
    /// `--skip-tags`.
    pub skip_tags: Vec<String>,
    /// What `ansible_check_mode` is.
    pub check_mode: bool,
    /// Names of the project's secrets, if they are to be checked.
    pub known_secrets: Option<Vec<SecretName>>,
    /// `--retry-release`: apply a release that was rolled back; for the kinds that release.
    pub retry_release: bool,
    /// The facts are placeholders: an `assert` or `fail` that depends on them proves nothing.
    pub offline: bool,
    /// Smoke tests of the roles, too (`verify --smoke`).
    pub smoke: bool,
}

/// Resolves hosts of one project. Make one for a run: hosts share what it computes once.
pub struct Resolver<'p> {
    pub(super) project: &'p Project,
    pub(super) options: &'p RunOptions,
    groups: Arc<Value>,
    hostvars: Mutex<HashMap<(String, String), Option<Value>>>,
}

/// Resolves one host of a project; see [`Resolver`] for many.
///
/// # Errors
/// Every problem found, with its place.
pub fn resolve(project: &Project, host: &str, facts: &Facts, options: &RunOptions) -> Result<HostProgram, Vec<Diagnostic>> {
    Resolver::new(project, options).resolve(host, facts)
}

impl<'p> Resolver<'p> {
    /// A resolver for a run.
    #[must_use]
    pub fn new(project: &'p Project, options: &'p RunOptions) -> Self {
        let inventory = &project.inventory;
        let groups: Map<String, Value> = inventory
            .iter_groups()
            .map(|(name, _)| (name.to_owned(), inventory.members(name).unwrap_or_default().into_iter().map(Value::from).collect()))
            .collect();
        Self { project, options, groups: Arc::new(Value::Object(groups)), hostvars: Mutex::default() }
    }

    /// Resolves a host.
    ///
    /// # Errors
    /// Every problem found, with its place.
    pub fn resolve(&self, host: &str, facts: &Facts) -> Result<HostProgram, Vec<Diagnostic>> {
        HostRun::new(self, host, facts).run()
    }

    /// Variables that the tool sets for a host, the same in all plays.
    pub(super) fn magic(&self, host: &str) -> Values {
        let project = self.project;
        let mut values = Values::new();
        let mut set = |name: &str, value: Value| drop(values.insert(name.into(), Arc::new(value)));
        set("inventory_hostname", json!(host));
        set("inventory_hostname_short", json!(host.split('.').next().unwrap_or(host)));
        set("playbook_dir", json!(project.playbook_dir()));
        set("ansible_check_mode", json!(self.options.check_mode));
        set("ansible_managed", json!("This file is managed by soc-provision: changes made here are lost."));
        set("omit", json!(OMIT));
        let found = project.inventory.host(host);
        let groups = found.map(|host| host.groups.iter().filter(|name| *name != "all").cloned().collect::<Vec<_>>()).unwrap_or_default();
        let mut groups = groups;
        groups.sort();
        set("group_names", json!(groups));
        if let Some((directory, file)) = found.map(|host| project.inventory.origin(host)) {
            set("inventory_dir", json!(directory));
            set("inventory_file", json!(file));
        }
        values.insert("groups".into(), Arc::clone(&self.groups));
        values
    }

    /// The inventory's layers of a host, with what is weaker than all of them.
    pub(super) fn inventory_layers(&self, host: &str) -> Vec<Sourced> {
        let fallback = Values::from([("ansible_host".into(), Arc::new(Value::from(host)))]);
        let mut layers = vec![Sourced::values(Layer::PlayRoleDefaults, fallback)];
        layers.extend(self.project.host_vars(host).iter().map(|source| Sourced::nodes(source.layer, &source.vars)));
        layers.push(Sourced::nodes(Layer::Extra, &self.project.extra));
        layers
    }

    /// One variable of a host as the inventory has it, without facts.
    pub(super) fn hostvar(&self, host: &str, name: &str, depth: usize) -> Option<Value> {
        let key = (host.to_owned(), name.to_owned());
        let cache = || self.hostvars.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cache().get(&key) {
            return found.clone();
        }
        let mut layers = self.inventory_layers(host);
        layers.push(Sourced::values(Layer::Magic, self.magic(host)));
        let world = Elsewhere { resolver: self, depth: depth + 1 };
        let scope = Scope::new(&world, &Rc::new(Frame::new(layers, None)), &[], &[]);
        // What cannot be rendered without facts, or within a circle of hosts, is not there.
        let value = scope.variable(name).ok().flatten().map(|value| Value::clone(&value));
        cache().insert(key, value.clone());
        value
    }

    /// See [`template::Names::hostvars`].
    pub(super) fn hostvars(&self, host: Option<&str>, name: Option<&str>, depth: usize) -> Value {
        let project = self.project;
        let hosts: Vec<&str> = match host {
            Some(host) => project.inventory.host(host).map(|_| host).into_iter().collect(),
            None => project.inventory.iter().map(|(name, _)| name).collect(),
        };
        let mut out = Map::new();
        for host in hosts {
            let names: Vec<String> = match name {
                Some(name) => vec![name.to_owned()],
                None => {
                    let written = project.host_vars(host).iter().flat_map(|source| source.vars.keys().map(ToString::to_string));
                    let mut names: Vec<String> =
                        written.chain(["inventory_hostname", "group_names", "ansible_host"].map(str::to_owned)).collect();
                    names.sort();
                    names.dedup();
                    names
                }
            };
            let vars: Map<String, Value> = names
                .into_iter()
                .filter_map(|name| {
                    let value = if depth > 4 { None } else { self.hostvar(host, &name, depth) };
                    value.map(|value| (name, value))
                })
                .collect();
            out.insert(host.to_owned(), Value::Object(vars));
        }
        Value::Object(out)
    }

    /// See [`template::Names::partial`].
    pub(super) fn partial(&self, name: &str, role: Option<&str>) -> Result<Arc<Compiled>, Trouble> {
        let trouble = |message: String, hint: Option<&str>| Trouble {
            inner: None,
            message,
            hint: hint.map(str::to_owned),
            place: (1, 1),
            partial: None,
            undefined: false,
        };
        let path = sources::find_partial(self.project, name, role)
            .ok_or_else(|| trouble(format!("there is no partial `{name}`"), Some("a partial is a file under `templates/`")))?;
        let text = self.project.files.text(&path).map_err(|diagnostic| trouble(diagnostic.message, None))?;
        template::compile_partial(name, &text)
    }
}

/// The facts as variables. Hosts are not trusted: characters that stand for secrets are replaced.
pub(super) fn fact_values(facts: &Facts) -> Values {
    let mut values = Values::new();
    let mut short = Map::new();
    for (name, value) in facts.vars() {
        let mut value = value.clone();
        clean(&mut value);
        short.insert(name.strip_prefix("ansible_").unwrap_or(name).to_owned(), value.clone());
        values.insert(name.as_str().into(), Arc::new(value));
    }
    values.insert("ansible_facts".into(), Arc::new(Value::Object(short)));
    values
}

fn clean(value: &mut Value) {
    match value {
        Value::String(text) if text.contains(is_reserved) => *text = text.replace(is_reserved, "\u{fffd}"),
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Object(map) => {
            map.retain(|key, _| !key.contains(is_reserved));
            map.values_mut().for_each(clean);
        }
        _ => {}
    }
}

/// The world as seen from another host, whose variables are asked for.
struct Elsewhere<'a, 'p> {
    resolver: &'a Resolver<'p>,
    depth: usize,
}

impl World for Elsewhere<'_, '_> {
    fn project(&self) -> &Project {
        self.resolver.project
    }

    fn hostvars(&self, host: Option<&str>, name: Option<&str>) -> Value {
        self.resolver.hostvars(host, name, self.depth)
    }

    fn partial(&self, name: &str, role: Option<&str>) -> Result<Arc<Compiled>, Trouble> {
        self.resolver.partial(name, role)
    }
}
