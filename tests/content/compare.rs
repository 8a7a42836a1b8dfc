//! Brings a service, as the seeds or a rendered Compose file write it, into one flat form: field ->
//! text. Two services are the same where their flat forms are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A service's fields.
pub(crate) type Flat = BTreeMap<String, String>;

/// Flattens a service.
pub(crate) fn flat(service: &Value) -> Flat {
    let mut out = Flat::new();
    let Some(map) = service.as_object() else { return out };
    for (key, value) in map {
        match key.as_str() {
            "image" | "hostname" | "container_name" | "restart" | "user" | "pid" | "network_mode" | "privileged" | "read_only" => {
                out.insert(key.clone(), scalar(value));
            }
            "command" => drop(out.insert(key.clone(), words(value).join(" "))),
            "cap_add" | "cap_drop" | "devices" => drop(out.insert(key.clone(), set(words(value)))),
            "security_opt" => drop(out.insert(key.clone(), set(words(value)))),
            "networks" | "depends_on" => drop(out.insert(key.clone(), set(names(value)))),
            "tmpfs" => {
                for entry in words(value) {
                    let (path, options) = entry.split_once(':').unwrap_or((&entry, ""));
                    let options = options.split(',').filter(|option| !option.starts_with("size=")).collect::<Vec<_>>().join(",");
                    out.insert(format!("tmpfs.{path}"), options);
                }
            }
            "ports" => drop(out.insert(key.clone(), set(words(value).iter().map(|port| unbound(port)).collect()))),
            "secrets" => drop(out.insert(key.clone(), set(words(value)))),
            "environment" => {
                for entry in words(value) {
                    let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
                    out.insert(format!("environment.{name}"), value.to_owned());
                }
            }
            "volumes" => volumes(value, &mut out),
            "healthcheck" => {
                for (part, value) in value.as_object().into_iter().flatten() {
                    let text = if part == "test" { words(value).join(" ") } else { scalar(value) };
                    out.insert(format!("healthcheck.{part}"), text);
                }
            }
            "ulimits" => {
                for (name, limit) in value.as_object().into_iter().flatten() {
                    out.insert(format!("ulimits.{name}"), limit.to_string());
                }
            }
            "deploy" => {
                for part in ["limits", "reservations"] {
                    amounts(part, value.pointer(&format!("/resources/{part}")), &mut out);
                }
            }
            "limits" | "reservations" => amounts(key, Some(value), &mut out),
            "build" => drop(out.insert("build".to_owned(), value.to_string())),
            // Words of the seeds' table itself, and what has no counterpart in it.
            "source" | "alternative_to" | "health" | "working_dir" | "scale" | "logging" => {}
            other => panic!("field `{other}` is not compared: teach compare.rs"),
        }
    }
    out
}

fn amounts(part: &str, value: Option<&Value>, out: &mut Flat) {
    for (name, amount) in value.and_then(Value::as_object).into_iter().flatten() {
        let text = scalar(amount);
        let text = text.parse::<f64>().map_or(text, |number| number.to_string());
        out.insert(format!("{part}.{name}"), text);
    }
}

/// Volumes by where they are mounted: the named volume, `own` for a file of the stack, or the host's
/// path; and whether it can be written.
fn volumes(value: &Value, out: &mut Flat) {
    for entry in words(value) {
        let parts: Vec<&str> = entry.split(':').collect();
        let source = if parts[0].starts_with('.') { "own" } else { parts[0].trim_end_matches(|c| c == '/' && parts[0].len() > 1) };
        let mode = parts.get(2).copied().unwrap_or("rw");
        out.insert(format!("volumes.{}", parts[1].trim_end_matches('/')), format!("{source}:{mode}"));
    }
}

/// A published port without the address that it is bound to.
fn unbound(port: &str) -> String {
    let parts: Vec<&str> = port.split(':').collect();
    parts[parts.len().saturating_sub(2)..].join(":")
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A list's items, or a command line's words.
pub(crate) fn words(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().map(scalar).collect(),
        Value::String(text) => vec![text.clone()],
        Value::Null => Vec::new(),
        other => panic!("not a list: {other}"),
    }
}

/// Names in a list or keys of a mapping.
pub(crate) fn names(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map.keys().cloned().collect(),
        other => words(other),
    }
}

fn set(items: Vec<String>) -> String {
    items.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
}

/// Fields in which two services differ: field, in the seeds, here.
pub(crate) fn differences(seed: &Flat, ours: &Flat) -> Vec<(String, String, String)> {
    let fields: BTreeSet<&String> = seed.keys().chain(ours.keys()).collect();
    let side = |flat: &Flat, field: &String| flat.get(field).cloned().unwrap_or_else(|| "-".to_owned());
    let both = fields.into_iter().map(|field| (field.clone(), side(seed, field), side(ours, field)));
    both.filter(|(_, seed, ours)| seed != ours).collect()
}
