//! A Compose file as declared: parsed, checked for what Compose accepts and means differently,
//! interpolated, without the services of inactive profiles.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::interpolate;
use crate::diagnostic::nearest;
use crate::secret::Text;

/// A service's keys, from the Compose specification.
const SERVICE_KEYS: &[&str] = &[
    "annotations",
    "attach",
    "blkio_config",
    "build",
    "cap_add",
    "cap_drop",
    "cgroup",
    "cgroup_parent",
    "command",
    "configs",
    "container_name",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "cpu_shares",
    "cpus",
    "cpuset",
    "credential_spec",
    "depends_on",
    "deploy",
    "develop",
    "device_cgroup_rules",
    "devices",
    "dns",
    "dns_opt",
    "dns_search",
    "domainname",
    "entrypoint",
    "env_file",
    "environment",
    "expose",
    "external_links",
    "extra_hosts",
    "gpus",
    "group_add",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "ipc",
    "isolation",
    "label_file",
    "labels",
    "links",
    "logging",
    "mac_address",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "network_mode",
    "networks",
    "oom_kill_disable",
    "oom_score_adj",
    "pid",
    "pids_limit",
    "platform",
    "ports",
    "post_start",
    "pre_stop",
    "privileged",
    "profiles",
    "pull_policy",
    "read_only",
    "restart",
    "runtime",
    "scale",
    "secrets",
    "security_opt",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "storage_opt",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "user",
    "userns_mode",
    "uts",
    "volumes",
    "volumes_from",
    "working_dir",
];

/// A file's top-level keys.
const TOP_KEYS: &[&str] = &["configs", "name", "networks", "secrets", "services", "version", "volumes"];

/// A Compose file.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Sections that may be absent in the file are empty maps.
    sections: BTreeMap<&'static str, Map<String, Value>>,
}

impl Model {
    /// Reads a rendered Compose file. `variables` are what `${NAME}` may name; `profiles` are
    /// those that are active.
    ///
    /// # Errors
    /// Every problem found, as sentences.
    pub fn parse(text: &str, variables: &BTreeMap<String, String>, profiles: &[String]) -> Result<Self, Vec<String>> {
        let root: Value = serde_yaml::from_str(text).map_err(|error| vec![format!("the Compose file is not valid YAML: {error}")])?;
        Self::from_value(root, variables, profiles)
    }

    /// The same from a mapping that was written in the playbook.
    ///
    /// # Errors
    /// As [`Model::parse`].
    pub fn from_value(mut root: Value, variables: &BTreeMap<String, String>, profiles: &[String]) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        refuse_markers(&root, "", &mut problems);
        interpolate::tree(&mut root, variables, "", &mut problems);
        let Value::Object(root) = root else {
            return Err(vec!["the Compose file is not a mapping".to_owned()]);
        };
        let mut sections = BTreeMap::new();
        for (key, value) in root {
            if key.starts_with("x-") || key == "version" || key == "name" {
                continue;
            }
            match TOP_KEYS.iter().copied().find(|known| *known == key) {
                Some(known) => {
                    sections.insert(known, section(known, value, &mut problems));
                }
                None => problems.push(unknown("top-level key", &key, TOP_KEYS)),
            }
        }
        let mut model = Self { sections };
        model.drop_inactive(profiles);
        model.check(&mut problems);
        if problems.is_empty() { Ok(model) } else { Err(problems) }
    }

    /// A section: `services`, `networks`, `volumes`, `secrets`, `configs`.
    #[must_use]
    pub fn section(&self, name: &str) -> &Map<String, Value> {
        static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        self.sections.get(name).unwrap_or(&EMPTY)
    }

    /// A section, to change it.
    pub fn section_mut(&mut self, name: &'static str) -> &mut Map<String, Value> {
        self.sections.entry(name).or_default()
    }

    /// A service's mapping.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Map<String, Value>> {
        self.section("services").get(name).and_then(Value::as_object)
    }

    /// Names and mappings of all services, in the file's order.
    pub fn services(&self) -> impl Iterator<Item = (&String, &Map<String, Value>)> {
        self.section("services").iter().filter_map(|(name, value)| Some((name, value.as_object()?)))
    }

    /// All services' mappings, to change them.
    pub fn services_mut(&mut self) -> impl Iterator<Item = (&String, &mut Map<String, Value>)> {
        self.section_mut("services").iter_mut().filter_map(|(name, value)| Some((name, value.as_object_mut()?)))
    }

    /// The whole as one value, keys sorted, empty sections left out.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let root = self.sections.iter().filter(|(_, section)| !section.is_empty());
        canonical(&Value::Object(root.map(|(name, section)| ((*name).to_owned(), Value::Object(section.clone()))).collect()))
    }

    fn drop_inactive(&mut self, active: &[String]) {
        self.section_mut("services").retain(|_, service| {
            let profiles = service.get("profiles").and_then(Value::as_array);
            profiles.is_none_or(|profiles| {
                profiles.is_empty() || profiles.iter().any(|profile| active.iter().any(|active| profile.as_str() == Some(active)))
            })
        });
        for (_, service) in self.services_mut() {
            service.remove("profiles");
        }
    }

    fn check(&self, problems: &mut Vec<String>) {
        if self.section("services").is_empty() {
            problems.push("the Compose file declares no service (none is active)".to_owned());
        }
        for (name, service) in self.services() {
            for key in service.keys().filter(|key| !key.starts_with("x-")) {
                if key == "extends" {
                    problems.push(format!("`extends` in service `{name}` is not supported: use a YAML anchor or a template"));
                } else if !SERVICE_KEYS.contains(&key.as_str()) {
                    problems.push(format!("{} in service `{name}`", unknown("key", key, SERVICE_KEYS)));
                }
            }
            if !service.contains_key("image") && !service.contains_key("build") {
                problems.push(format!("service `{name}` has neither `image` nor `build`"));
            }
            let fine = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
            if !fine {
                problems.push(format!("`{}` is not a service's name", name.escape_debug()));
            }
            self.check_references(name, service, problems);
        }
    }

    /// Networks, volumes, secrets, configs and services that a service names must be declared;
    /// Compose finds some of these only while it changes the host.
    fn check_references(&self, name: &str, service: &Map<String, Value>, problems: &mut Vec<String>) {
        let mut missing = |what: &str, section: &str, wanted: &str| {
            let known = self.section(section);
            if !known.contains_key(wanted) {
                let hint =
                    nearest(wanted, known.keys().map(String::as_str)).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                problems.push(format!("{what} `{wanted}` of service `{name}` is not declared under `{section}`{hint}"));
            }
        };
        for network in names(service.get("networks")).iter().filter(|network| *network != "default") {
            missing("network", "networks", network);
        }
        for needed in names(service.get("depends_on")) {
            missing("dependency", "services", &needed);
        }
        for volume in items(service.get("volumes")) {
            if let Some(volume) = named_volume(volume) {
                missing("volume", "volumes", &volume);
            }
        }
    }
}

/// Names in a list or keys of a mapping, sorted.
#[must_use]
pub fn names(value: Option<&Value>) -> BTreeSet<String> {
    match value {
        Some(Value::Array(items)) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        Some(Value::Object(map)) => map.keys().cloned().collect(),
        _ => BTreeSet::new(),
    }
}

/// Items of a list, or the one item.
#[must_use]
pub fn items(value: Option<&Value>) -> &[Value] {
    match value {
        Some(Value::Array(items)) => items,
        Some(Value::Null) | None => &[],
        Some(one) => std::slice::from_ref(one),
    }
}

/// The declared volume that an entry of `volumes` uses, if it uses one.
#[must_use]
pub fn named_volume(entry: &Value) -> Option<String> {
    if let Some(text) = entry.as_str() {
        let (source, _) = text.split_once(':')?;
        let named = !source.starts_with(['/', '.', '~']) && !source.is_empty();
        return named.then(|| source.to_owned());
    }
    let volume = entry.get("type")?.as_str()? == "volume";
    volume.then(|| entry.get("source").and_then(Value::as_str).map(str::to_owned)).flatten()
}

/// The same value with all mappings' keys sorted, so that equal values print alike.
#[must_use]
pub fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            Value::Object(sorted.into_iter().map(|(key, item)| (key.clone(), canonical(item))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        other => other.clone(),
    }
}

fn section(name: &str, value: Value, problems: &mut Vec<String>) -> Map<String, Value> {
    match value {
        Value::Object(map) => {
            for (key, entry) in &map {
                if !entry.is_object() && !(entry.is_null() && name != "services") {
                    problems.push(format!("`{name}.{key}` is not a mapping"));
                }
            }
            map
        }
        Value::Null => Map::new(),
        _ => {
            problems.push(format!("`{name}` is not a mapping"));
            Map::new()
        }
    }
}

fn unknown(what: &str, key: &str, known: &[&str]) -> String {
    let hint = nearest(key, known.iter().copied()).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    format!("unknown {what} `{key}`{hint}")
}

/// A secret in the file itself would end up in Docker's own state and in the release; files and
/// declared exceptions are the ways.
fn refuse_markers(value: &Value, path: &str, problems: &mut Vec<String>) {
    match value {
        Value::String(text) if Text::is_marked(text) => problems.push(format!(
            "`{}` holds a secret: give it as a file (`secrets` of the stack) or, if the image reads only its environment, in `env_secrets`",
            path.trim_start_matches('.')
        )),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| refuse_markers(item, &format!("{path}[{index}]"), problems))
        }
        Value::Object(map) => map.iter().for_each(|(key, item)| refuse_markers(item, &format!("{path}.{key}"), problems)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretName;

    fn parse(text: &str) -> Result<Model, Vec<String>> {
        Model::parse(text, &BTreeMap::from([("TAG".to_owned(), "1.0".to_owned())]), &[])
    }

    #[test]
    fn reads_anchors_merges_variables_and_profiles() {
        let model = parse(
            "x-common: &c\n  restart: always\nservices:\n  web:\n    <<: *c\n    image: web:${TAG}\n  dev:\n    image: a\n    profiles: [dev]\n",
        )
        .unwrap();
        assert_eq!(model.service("web").unwrap()["image"], "web:1.0");
        assert_eq!(model.service("web").unwrap()["restart"], "always");
        assert!(model.service("dev").is_none());
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let problems = parse(
            "servises: {}\nservices:\n  web:\n    image: ${NOPE}\n    imagee: x\n    networks: [frontt]\n    volumes: ['data:/d']\n    depends_on: [bd]\n  db: {image: x}\nnetworks:\n  front:\n",
        )
        .unwrap_err()
        .join("\n");
        for part in [
            "unknown top-level key `servises`",
            "`NOPE` is not set",
            "did you mean `image`",
            "did you mean `front`",
            "volume `data`",
            "dependency `bd`",
        ] {
            assert!(problems.contains(part), "{part} in\n{problems}");
        }
    }

    #[test]
    fn a_secret_in_the_file_is_refused() {
        let marker = SecretName::parse("db").unwrap().marker();
        let problems = parse(&format!("services:\n  web:\n    image: x\n    environment:\n      P: '{marker}'\n")).unwrap_err();
        assert!(problems[0].contains("`services.web.environment.P` holds a secret"), "{problems:?}");
    }
}
