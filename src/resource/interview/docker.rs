//! Answers about Docker: what `docker ... inspect` prints, with the values of environments hashed.

use serde_json::Value;

use super::ask::batches;
use super::{Section, Sections, Topics};
use crate::resource::observe::{Answer, Observations, Question};
use crate::secret::sha256;

/// Where Docker is not installed or not running, everything is absent.
pub(super) fn answer(topics: &Topics<'_>, sections: &Sections<'_>, out: &mut Observations) {
    if topics.docker_info
        && let Some(section) = sections.get("docker-info")
    {
        out.insert(Question::DockerInfo, info(section));
    }
    if topics.containers
        && let Some(section) = sections.get("containers")
    {
        let answer = match inspected(section) {
            Ok(list) => Answer::Json(list.map(Value::Array)),
            Err(reason) => Answer::Failed(reason),
        };
        out.insert(Question::Containers, answer);
    }
    let each: [(&str, &[&str], Matches, Ask); 3] = [
        ("images", &topics.images, is_image, Question::Image),
        ("networks", &topics.networks, is_named, Question::Network),
        ("volumes", &topics.volumes, is_named, Question::Volume),
    ];
    for (name, all, matches, question) in each {
        for (index, names) in batches(all).into_iter().enumerate() {
            let Some(section) = sections.get(&format!("{name}{index}")) else { continue };
            let list = inspected(section);
            for name in names {
                let answer = match &list {
                    Ok(list) => Answer::Json(list.iter().flatten().find(|found| matches(found, name)).cloned()),
                    Err(reason) => Answer::Failed(reason.clone()),
                };
                out.insert(question((*name).to_owned()), answer);
            }
        }
    }
}

type Matches = fn(&Value, &str) -> bool;
type Ask = fn(String) -> Question;

/// Without a daemon `docker info` still prints what the client knows, and `ServerErrors`.
fn info(section: &Section<'_>) -> Answer {
    if section.stdout == b"none" || down(section) {
        return Answer::Json(None);
    }
    match serde_json::from_slice::<Value>(section.stdout) {
        Ok(value) if value.get("ServerErrors").is_some_and(|errors| !errors.is_null()) => Answer::Json(None),
        Ok(value) if section.status == 0 => Answer::Json(Some(value)),
        _ => Answer::Failed(section.reason("`docker info` failed")),
    }
}

/// Docker has no machine-readable word for this; the sentence has been the same since 2015.
fn down(section: &Section<'_>) -> bool {
    section.status != 0 && section.stderr.contains("Cannot connect to the Docker daemon")
}

/// The objects of one or more JSON lists; `None` without Docker.
fn inspected(section: &Section<'_>) -> Result<Option<Vec<Value>>, String> {
    if section.stdout == b"none" || down(section) {
        return Ok(None);
    }
    let gone = |line: &str| {
        let line = line.to_lowercase();
        line.trim().is_empty() || line.contains("no such") || line.contains("not found")
    };
    if section.status != 0 && (section.stderr.trim().is_empty() || !section.stderr.lines().all(gone)) {
        return Err(section.reason("`docker inspect` failed"));
    }
    let mut objects = Vec::new();
    for list in serde_json::Deserializer::from_slice(section.stdout).into_iter::<Vec<Value>>() {
        objects.extend(list.map_err(|error| format!("`docker inspect` printed something else than JSON: {error}"))?);
    }
    objects.iter_mut().for_each(hide_environment);
    Ok(Some(objects))
}

/// Replaces every `K=V` of every `Env` by `K=sha256:DIGEST`.
fn hide_environment(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                match inner {
                    Value::Array(list) if key == "Env" => list.iter_mut().for_each(hide_variable),
                    other => hide_environment(other),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(hide_environment),
        _ => {}
    }
}

fn hide_variable(variable: &mut Value) {
    if let Some(text) = variable.as_str() {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        *variable = Value::String(format!("{name}=sha256:{}", sha256(value.as_bytes())));
    }
}

fn is_named(found: &Value, name: &str) -> bool {
    ["Name", "Id"].iter().any(|key| found.get(key).and_then(Value::as_str) == Some(name))
}

/// Whether an image is the one that a reference names: by id, tag or digest.
fn is_image(found: &Value, reference: &str) -> bool {
    let has = |key: &str, wanted: &str| {
        let list = found.get(key).and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|name| name.as_str().is_some_and(|name| familiar(name) == wanted)))
    };
    let id = found.get("Id").and_then(Value::as_str).unwrap_or_default();
    let digits = reference.strip_prefix("sha256:").unwrap_or(reference);
    if digits.len() >= 12 && id.strip_prefix("sha256:").is_some_and(|id| id.starts_with(digits)) {
        return true;
    }
    let wanted = familiar(reference);
    match wanted.split_once('@') {
        Some((name, digest)) => has("RepoDigests", &format!("{}@{digest}", untagged(name))),
        None if untagged(&wanted) == wanted => has("RepoTags", &format!("{wanted}:latest")),
        None => has("RepoTags", &wanted),
    }
}

/// A reference as Docker shows it: without its own registry's name.
fn familiar(reference: &str) -> String {
    let short = reference.strip_prefix("docker.io/").or_else(|| reference.strip_prefix("index.docker.io/")).unwrap_or(reference);
    short.strip_prefix("library/").unwrap_or(short).to_owned()
}

fn untagged(name: &str) -> &str {
    let from = name.rfind('/').map_or(0, |at| at + 1);
    name[from..].find(':').map_or(name, |at| &name[..from + at])
}
