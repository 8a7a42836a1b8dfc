//! A release against what runs: the differences for people, and what is to be done about each
//! service. Covers what `docker compose up` itself does not see: limits changed by `docker
//! update`, a network that was disconnected, content of what is mounted, strangers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use serde_json::Value;

use super::contained::Mark;
use super::container::Container;
use super::render::{CONFIG, INPUTS, Release};
use super::runtime;
use super::service::{Service, host_name, is_external};
use super::stack::Stack;
use crate::resource::plan::Change;

/// What is to be done about a service, in the order of dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create what is missing, start what is stopped, leave what is right.
    Start(String),
    /// Replace all of its containers.
    Recreate(String),
    /// Replace these containers one by one, each new one healthy before an old one goes.
    Roll(String, Vec<String>),
    /// Let it take its new files.
    Reload(String),
}

/// The whole comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub changes: Vec<Change>,
    pub actions: Vec<Action>,
    /// Containers to remove: id.
    pub strangers: Vec<String>,
    /// Networks to make anew: name on the host.
    pub networks: Vec<String>,
}

/// What is compared.
pub struct Observed<'a> {
    pub containers: &'a [Container],
    /// Ids of images on the host, by reference.
    pub images: &'a BTreeMap<String, String>,
    /// `docker network inspect` of declared networks that exist, by name on the host.
    pub networks: &'a BTreeMap<String, &'a Value>,
    /// Services that must take new files, and why.
    pub reloads: &'a BTreeMap<String, String>,
    /// Services whose mounted files were changed on the host.
    pub tampered: &'a BTreeMap<String, String>,
    /// `docker image inspect` of images on the host, by reference.
    pub inspected: &'a BTreeMap<String, &'a Value>,
    /// Files that were written into containers, by container id.
    pub written: &'a BTreeMap<String, Vec<String>>,
    /// Containers that were contained: they and their services are left alone.
    pub contained: &'a [Mark],
}

impl Observed<'_> {
    fn is_contained(&self, service: &str) -> bool {
        self.contained.iter().any(|mark| mark.service == service)
    }
}

impl Action {
    /// The service.
    #[must_use]
    pub fn service(&self) -> &str {
        match self {
            Self::Start(name) | Self::Recreate(name) | Self::Roll(name, _) | Self::Reload(name) => name,
        }
    }
}

/// Compares a release with what was observed.
#[must_use]
pub fn compare(stack: &Stack, release: &Release, observed: &Observed<'_>) -> Difference {
    let mut difference = Difference::default();
    let broken = networks(stack, observed, &mut difference);
    let compose: Value = serde_json::from_str(&release.compose).unwrap_or_default();
    let declared = runtime::Declared { compose: &compose, stack: &stack.name };
    let mut replaced = BTreeSet::new();
    for service in stack.services.iter().filter(|service| !observed.is_contained(&service.name)) {
        let mut changes = Vec::new();
        let action = one(stack, service, release, observed, &declared, &broken, &replaced, &mut changes);
        if matches!(action, Some(Action::Recreate(_) | Action::Roll(..))) {
            replaced.insert(service.name.clone());
        }
        difference.changes.append(&mut changes);
        difference.actions.extend(action);
    }
    strangers(stack, observed, &mut difference);
    difference
}

#[expect(clippy::too_many_arguments, reason = "all of it is what one service is compared with")]
fn one(
    stack: &Stack,
    service: &Service,
    release: &Release,
    observed: &Observed<'_>,
    declared: &runtime::Declared<'_>,
    broken: &BTreeSet<String>,
    replaced: &BTreeSet<String>,
    changes: &mut Vec<Change>,
) -> Option<Action> {
    let name = &service.name;
    let mine: Vec<&Container> = observed.containers.iter().filter(|container| belongs(container, &stack.name, name)).collect();
    if mine.is_empty() {
        let count = if service.replicas == 1 { String::new() } else { format!(" x {}", service.replicas) };
        changes.push(Change::add(format!("{name}.container"), format!("{}{count}", service.image)));
        return Some(Action::Start(name.clone()));
    }
    let mut stale = Vec::new();
    let mut start = false;
    for container in &mine {
        let before = changes.len();
        let at = |field: &str| if mine.len() > 1 { format!("{}.{field}", container.name) } else { format!("{name}.{field}") };
        differing(service, release, observed.images, container, &at, changes);
        let claims =
            release.labels.get(name).is_some_and(|(config, inputs)| container.label(CONFIG) == config && container.label(INPUTS) == inputs);
        if claims {
            // The labels say that it is the right one; whether it is, it must show itself.
            let written = observed.written.get(&container.id).map_or(&[][..], Vec::as_slice);
            let image = observed.inspected.get(&service.image).copied();
            let differences = runtime::differences(service, declared, image, container, written);
            changes.extend(differences.into_iter().map(|(field, seen, wanted)| Change::of(at(&field), seen, wanted)));
        }
        if let Some(network) = service.networks.iter().find(|network| broken.contains(*network)) {
            changes.push(Change::of(at("network"), format!("{network} as it was"), format!("{network} made anew")));
        }
        if let Some(followed) = service.follows.iter().find(|followed| replaced.contains(*followed)) {
            changes.push(Change::of(at("container"), format!("with the old {followed}"), format!("with the new {followed}")));
        }
        if let Some(file) = observed.tampered.get(name) {
            changes.push(Change::of(at("mounted file"), format!("{file} was changed on the host"), format!("{file} as declared")));
        }
        if changes.len() > before {
            stale.push(container.id.clone());
        } else if !settled(service, container) {
            changes.push(Change::of(at("state"), container.condition(), if service.one_shot { "exited (0)" } else { "running" }));
            start = true;
        }
    }
    let count = u32::try_from(mine.len()).unwrap_or(u32::MAX);
    if count != service.replicas {
        changes.push(Change::of(format!("{name}.containers"), count.to_string(), service.replicas.to_string()));
        start = true;
    }
    if !stale.is_empty() {
        let rolling = service.replicas > 1 && broken.is_disjoint(&service.networks) && service.follows.is_disjoint(replaced);
        return Some(if rolling { Action::Roll(name.clone(), stale) } else { Action::Recreate(name.clone()) });
    }
    if start {
        return Some(Action::Start(name.clone()));
    }
    let why = observed.reloads.get(name)?;
    changes.push(Change::of(format!("{name}.files"), "as loaded", format!("{why}, reloaded")));
    Some(Action::Reload(name.clone()))
}

/// What can only be put right by another container.
fn differing(
    service: &Service,
    release: &Release,
    images: &BTreeMap<String, String>,
    container: &Container,
    at: &dyn Fn(&str) -> String,
    changes: &mut Vec<Change>,
) {
    let mut differ = |field: &str, before: String, after: String| {
        if before != after {
            changes.push(Change::of(at(field), before, after));
        }
    };
    let (config, inputs) = release.labels.get(&service.name).cloned().unwrap_or_default();
    for (field, before, after) in changed_inputs(container.label(INPUTS), &inputs) {
        differ(&field, before, after);
    }
    if container.label(INPUTS) == inputs {
        differ("definition", shortened(container.label(CONFIG)), shortened(&config));
    }
    if let Some(id) = images.get(&service.image) {
        differ("image", format!("{} ({})", service.image, shortened(&container.image)), format!("{} ({})", service.image, shortened(id)));
    }
    if container.label(CONFIG) != config {
        return; // the rest differs because the definition does
    }
    differ("restart", policy(&container.restart), policy(&service.restart));
    differ("memory", limit(container.memory), limit(service.memory));
    differ("cpus", limit(container.nano_cpus), limit(service.nano_cpus));
    differ("pids", limit(container.pids), limit(service.pids));
    let mode = service.network_mode.as_deref();
    if mode.is_none() {
        differ("networks", list(&container.networks), list(&service.networks));
    }
    differ("ports", list(&container.ports), list(&service.ports));
    if container.state == "running" && mode.is_none() && container.ports == service.ports {
        differ("bound ports", list(&container.bound.intersection(&service.ports).cloned().collect()), list(&service.ports));
    }
    if container.health.as_deref() == Some("unhealthy") {
        differ("health", "unhealthy".to_owned(), "healthy".to_owned());
    }
}

/// Inputs by name: which of them differ.
fn changed_inputs(before: &str, after: &str) -> Vec<(String, String, String)> {
    let read = |text: &str| -> BTreeMap<String, String> {
        text.split(' ').filter_map(|pair| pair.rsplit_once('=')).map(|(name, digest)| (name.to_owned(), digest.to_owned())).collect()
    };
    let (before, after) = (read(before), read(after));
    let names: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    let get = |map: &BTreeMap<String, String>, name: &String| map.get(name).map_or("none".to_owned(), |digest| shortened(digest));
    names.into_iter().map(|name| (name.clone(), get(&before, &name), get(&after, &name))).collect()
}

fn settled(service: &Service, container: &Container) -> bool {
    match container.state.as_str() {
        "running" => true,
        "exited" => container.exit_code == 0 && service.one_shot,
        _ => false,
    }
}

fn belongs(container: &Container, project: &str, service: &str) -> bool {
    container.project() == project && container.service() == service && !container.is_one_off()
}

/// Declared networks that exist with another definition. Compose 2.26 leaves them as they are.
fn networks(stack: &Stack, observed: &Observed<'_>, difference: &mut Difference) -> BTreeSet<String> {
    let mut broken = BTreeSet::new();
    for (key, declared) in stack.model.section("networks") {
        let name = host_name(&stack.name, key, Some(declared));
        let Some(found) = observed.networks.get(&name).filter(|_| !is_external(Some(declared))) else { continue };
        let changes = network_changes(declared, found);
        for (field, before, after) in changes {
            difference.changes.push(Change::of(format!("network {name}.{field}"), before, after));
            broken.insert(name.clone());
        }
    }
    difference.networks = broken.iter().cloned().collect();
    broken
}

/// Fields of a network that are declared and differ.
#[must_use]
pub fn network_changes(declared: &Value, found: &Value) -> Vec<(&'static str, String, String)> {
    let mut out = Vec::new();
    let flag = |value: Option<&Value>| value.and_then(Value::as_bool).unwrap_or(false);
    let mut differ = |field, before: String, after: String| {
        if before != after {
            out.push((field, before, after));
        }
    };
    differ("internal", flag(found.get("Internal")).to_string(), flag(declared.get("internal")).to_string());
    if let Some(driver) = declared.get("driver").and_then(Value::as_str) {
        differ("driver", found.get("Driver").and_then(Value::as_str).unwrap_or_default().to_owned(), driver.to_owned());
    }
    let wanted = subnets(declared);
    if !wanted.is_empty() {
        let have = found.pointer("/IPAM/Config").and_then(Value::as_array).into_iter().flatten();
        let have: BTreeSet<String> = have.filter_map(|config| Some(config.get("Subnet")?.as_str()?.to_owned())).collect();
        differ("subnet", list(&have), list(&wanted));
    }
    for (key, value) in declared.get("driver_opts").and_then(Value::as_object).into_iter().flatten() {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let have = found.get("Options").and_then(|options| options.get(key)).map_or("none".to_owned(), text);
        differ("driver_opts", format!("{key}={have}"), format!("{key}={}", text(value)));
    }
    out
}

/// Subnets that a network declares.
#[must_use]
pub fn subnets(declared: &Value) -> BTreeSet<String> {
    let configs = declared.pointer("/ipam/config").and_then(Value::as_array).into_iter().flatten();
    configs.filter_map(|config| Some(config.get("subnet")?.as_str()?.to_owned())).collect()
}

/// Containers of the project that no service declares, and others that hold a service's name.
fn strangers(stack: &Stack, observed: &Observed<'_>, difference: &mut Difference) {
    let expected: BTreeSet<String> = stack.services.iter().map(|service| service.usual_name(&stack.name)).collect();
    let left_alone = |container: &Container| observed.contained.iter().any(|mark| mark.id == container.id);
    for container in observed.containers.iter().filter(|container| !left_alone(container)) {
        let ours = container.project() == stack.name;
        let declared = stack.services.iter().any(|service| service.name == container.service());
        if ours && !declared && !container.is_one_off() {
            difference
                .changes
                .push(Change::remove(format!("container {}", container.name), format!("{}, undeclared", container.condition())));
            difference.strangers.push(container.id.clone());
        } else if !ours && expected.contains(&container.name) {
            let before = format!("{}, not made by this stack", container.condition());
            difference.changes.push(Change::of(format!("container {}", container.name), before, "the stack's own"));
            difference.strangers.push(container.id.clone());
        }
    }
}

fn policy((name, count): &(String, u64)) -> String {
    if *count > 0 { format!("{name}:{count}") } else { name.clone() }
}

fn limit(value: Option<u64>) -> String {
    value.map_or("unlimited".to_owned(), |value| value.to_string())
}

fn list<T: Display>(items: &BTreeSet<T>) -> String {
    if items.is_empty() { "none".to_owned() } else { items.iter().map(T::to_string).collect::<Vec<_>>().join(", ") }
}

fn shortened(digest: &str) -> String {
    let digits = digest.trim_start_matches("sha256:");
    if digits.is_empty() { "none".to_owned() } else { digits.chars().take(12).collect() }
}
