//! What a service of a Compose file declares, as far as a running container can be compared with
//! it: image, replicas, restart policy, limits, networks, published ports, dependencies.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::model::{Model, items, names};
use super::units;

/// A service in base units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its key.
    pub name: String,
    /// Image reference; of a service that is only built, the name that Compose gives it.
    pub image: String,
    /// How many containers.
    pub replicas: u32,
    /// Ends by itself, and has succeeded when it exits with 0.
    pub one_shot: bool,
    /// Restart policy's name and, for `on-failure`, how many times.
    pub restart: (String, u64),
    /// Limits; `None` is unlimited. Bytes, thousand-millionths of a processor, processes.
    pub memory: Option<u64>,
    pub nano_cpus: Option<u64>,
    pub pids: Option<u64>,
    /// Reservations in the same units.
    pub reserved_memory: u64,
    pub reserved_nano_cpus: u64,
    /// Names of its networks on the host.
    pub networks: BTreeSet<String>,
    /// `network_mode`, if it has one.
    pub network_mode: Option<String>,
    /// Ports it publishes on the host.
    pub ports: BTreeSet<Port>,
    /// Its `container_name`.
    pub container_name: Option<String>,
    /// Services it depends on, with Compose's condition.
    pub depends_on: BTreeMap<String, String>,
    /// Services whose containers it lives in (`network_mode: service:x`, ...) or that it wants
    /// to be restarted with (`depends_on.x.restart`).
    pub follows: BTreeSet<String>,
    /// Architecture that it asks for, `linux/amd64`.
    pub platform: Option<String>,
}

/// A port published on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// On the host.
    pub host: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The host's address that it is bound to; empty for all.
    pub address: String,
    /// In the container.
    pub container: u16,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.address.contains(':') {
            write!(f, "[{}]:", self.address)?;
        } else if !self.address.is_empty() {
            write!(f, "{}:", self.address)?;
        }
        write!(f, "{}->{}/{}", self.host, self.container, self.protocol)
    }
}

impl Service {
    /// All services of a model, in dependency order: what others depend on comes first.
    ///
    /// # Errors
    /// Every problem found.
    pub fn all(project: &str, model: &Model) -> Result<Vec<Self>, Vec<String>> {
        let mut problems = Vec::new();
        let mut services: Vec<Self> = model.services().map(|(name, map)| Self::read(project, name, map, model, &mut problems)).collect();
        let completed: BTreeSet<String> = services
            .iter()
            .flat_map(|service| service.depends_on.iter())
            .filter(|(_, condition)| *condition == "service_completed_successfully")
            .map(|(name, _)| name.clone())
            .collect();
        for service in &mut services {
            service.one_shot = completed.contains(&service.name);
        }
        match in_order(services) {
            Ok(services) if problems.is_empty() => Ok(services),
            Ok(_) => Err(problems),
            Err(cycle) => {
                problems.push(cycle);
                Err(problems)
            }
        }
    }

    fn read(project: &str, name: &str, map: &Map<String, Value>, model: &Model, problems: &mut Vec<String>) -> Self {
        let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
        let at = |path: &[&str]| path.iter().skip(1).fold(map.get(path[0]), |value, key| value?.get(key)).filter(|value| !value.is_null());
        let mut quantity = |path: &[&str], short: Option<&str>, read: fn(&Value) -> Option<u64>| {
            let value = at(path).or_else(|| short.and_then(|short| map.get(short)))?;
            let number = read(value);
            if number.is_none() {
                problems.push(format!("`{value}` is not an amount, in `services.{name}.{}`", path.join(".")));
            }
            number.filter(|&number| number > 0)
        };
        let memory = quantity(&["deploy", "resources", "limits", "memory"], Some("mem_limit"), units::bytes);
        let nano_cpus = quantity(&["deploy", "resources", "limits", "cpus"], Some("cpus"), units::nano_cpus);
        let pids = at(&["deploy", "resources", "limits", "pids"]).or_else(|| map.get("pids_limit")).and_then(Value::as_i64);
        let reserved_memory = quantity(&["deploy", "resources", "reservations", "memory"], Some("mem_reservation"), units::bytes);
        let reserved_nano_cpus = quantity(&["deploy", "resources", "reservations", "cpus"], None, units::nano_cpus);
        let replicas = at(&["scale"]).or_else(|| at(&["deploy", "replicas"])).and_then(Value::as_u64).unwrap_or(1);
        let network_mode = text("network_mode");
        let mut follows: BTreeSet<String> = ["network_mode", "pid", "ipc"]
            .iter()
            .filter_map(|key| text(key)?.strip_prefix("service:").map(str::to_owned))
            .chain(items(map.get("volumes_from")).iter().filter_map(|item| Some(item.as_str()?.split(':').next()?.to_owned())))
            .collect();
        let mut depends_on = BTreeMap::new();
        for needed in names(map.get("depends_on")) {
            let entry = map.get("depends_on").and_then(|all| all.get(&needed));
            let condition = entry.and_then(|entry| entry.get("condition")).and_then(Value::as_str).unwrap_or("service_started");
            if entry.and_then(|entry| entry.get("restart")).and_then(Value::as_bool) == Some(true) {
                follows.insert(needed.clone());
            }
            depends_on.insert(needed, condition.to_owned());
        }
        for followed in &follows {
            depends_on.entry(followed.clone()).or_insert_with(|| "service_started".to_owned());
        }
        let ports = ports(name, map.get("ports"), problems);
        let container_name = text("container_name");
        if replicas > 1 && (container_name.is_some() || !ports.is_empty()) {
            problems.push(format!("service `{name}` cannot have {replicas} containers: it has a container name or a fixed host port"));
        }
        Self {
            image: text("image").unwrap_or_else(|| format!("{project}-{name}")),
            replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
            one_shot: false,
            restart: restart(map),
            memory,
            nano_cpus,
            pids: pids.and_then(|pids| u64::try_from(pids).ok()).filter(|&pids| pids > 0),
            reserved_memory: reserved_memory.unwrap_or(0),
            reserved_nano_cpus: reserved_nano_cpus.unwrap_or(0),
            networks: networks(project, map, model, network_mode.as_deref()),
            network_mode,
            ports,
            container_name,
            depends_on,
            follows,
            platform: text("platform"),
            name: name.to_owned(),
        }
    }

    /// Names of the containers that Compose gives the service, if it has just one.
    #[must_use]
    pub fn usual_name(&self, project: &str) -> String {
        self.container_name.clone().unwrap_or_else(|| format!("{project}-{}-1", self.name))
    }
}

/// Docker's name of a network or volume that a file declares under `key`.
#[must_use]
pub fn host_name(project: &str, key: &str, declared: Option<&Value>) -> String {
    let given = declared.and_then(|value| value.get("name")).and_then(Value::as_str);
    match given {
        Some(name) => name.to_owned(),
        None if is_external(declared) => key.to_owned(),
        None => format!("{project}_{key}"),
    }
}

/// Whether a declared network or volume is somebody else's.
#[must_use]
pub fn is_external(declared: Option<&Value>) -> bool {
    declared.and_then(|value| value.get("external")).is_some_and(|external| external.as_bool() == Some(true) || external.is_object())
}

fn networks(project: &str, map: &Map<String, Value>, model: &Model, mode: Option<&str>) -> BTreeSet<String> {
    match mode {
        Some(mode) if mode == "host" || mode == "none" => BTreeSet::from([mode.to_owned()]),
        Some(_) => BTreeSet::new(),
        None => {
            let mut keys = names(map.get("networks"));
            if keys.is_empty() {
                keys.insert("default".to_owned());
            }
            keys.iter().map(|key| host_name(project, key, model.section("networks").get(key))).collect()
        }
    }
}

/// `restart: on-failure:5`, or `deploy.restart_policy`, as Docker keeps it.
fn restart(map: &Map<String, Value>) -> (String, u64) {
    if let Some(text) = map.get("restart").and_then(Value::as_str) {
        let (name, count) = text.split_once(':').unwrap_or((text, "0"));
        return (name.to_owned(), count.parse().unwrap_or(0));
    }
    let Some(policy) = map.get("deploy").and_then(|deploy| deploy.get("restart_policy")) else {
        return ("no".to_owned(), 0);
    };
    let name = match policy.get("condition").and_then(Value::as_str).unwrap_or("any") {
        "none" => "no",
        "on-failure" => "on-failure",
        _ => "always",
    };
    (name.to_owned(), policy.get("max_attempts").and_then(Value::as_u64).unwrap_or(0))
}

fn ports(service: &str, value: Option<&Value>, problems: &mut Vec<String>) -> BTreeSet<Port> {
    let mut all = BTreeSet::new();
    for entry in items(value) {
        match port(entry) {
            Some(ports) => {
                for port in ports {
                    if !all.insert(port.clone()) {
                        problems.push(format!("service `{service}` publishes {port} twice"));
                    }
                }
            }
            None => problems.push(format!("`{entry}` is not a port, in service `{service}`")),
        }
    }
    all
}

/// The ports of one entry, short (`127.0.0.1:8080-8081:80-81/tcp`) or long; none if the host's
/// port is left to Docker.
fn port(entry: &Value) -> Option<Vec<Port>> {
    if entry.is_object() {
        let protocol = entry.get("protocol").and_then(Value::as_str).unwrap_or("tcp").to_owned();
        let address = entry.get("host_ip").and_then(Value::as_str).unwrap_or_default().to_owned();
        let target = scalar(entry.get("target")?)?;
        return match entry.get("published") {
            None => Some(Vec::new()),
            Some(published) => pairs(&scalar(published)?, &target, &protocol, &address),
        };
    }
    let text = scalar(entry)?;
    let (ports, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
    let Some((front, container)) = ports.rsplit_once(':') else {
        return range(ports).map(|_| Vec::new());
    };
    let (address, host) = match front.rsplit_once(':') {
        Some((address, host)) => (address.trim_start_matches('[').trim_end_matches(']'), host),
        None => ("", front),
    };
    if host.is_empty() {
        return Some(Vec::new());
    }
    pairs(host, container, protocol, address)
}

fn pairs(host: &str, container: &str, protocol: &str, address: &str) -> Option<Vec<Port>> {
    let (hosts, containers) = (range(host)?, range(container)?);
    if hosts.len() != containers.len() || !matches!(protocol, "tcp" | "udp" | "sctp") {
        return None;
    }
    // Docker shows an address for "all" in two ways, both of which mean the same to people.
    let address = if address == "0.0.0.0" { "" } else { address };
    let port = |(host, container)| Port { host, protocol: protocol.to_owned(), address: address.to_owned(), container };
    Some(hosts.zip(containers).map(port).collect())
}

fn range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last).then_some(first..=last)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Sorts services so that each comes after those it depends on; otherwise by the file's order.
fn in_order(mut rest: Vec<Service>) -> Result<Vec<Service>, String> {
    let mut done: Vec<Service> = Vec::with_capacity(rest.len());
    while !rest.is_empty() {
        let waits =
            |service: &Service, rest: &[Service]| service.depends_on.keys().any(|needed| rest.iter().any(|other| other.name == *needed));
        let Some(next) = rest.iter().position(|service| !waits(service, &rest)) else {
            let names: Vec<_> = rest.iter().map(|service| format!("`{}`", service.name)).collect();
            return Err(format!("services depend on each other in a circle: {}", names.join(", ")));
        };
        done.push(rest.remove(next));
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Service>, Vec<String>> {
        Service::all("demo", &Model::parse(text, &BTreeMap::new(), &[]).unwrap())
    }

    #[test]
    fn a_service_in_base_units() {
        let services = all(
            "services:\n  web:\n    image: nginx:1\n    restart: on-failure:5\n    depends_on: {db: {condition: service_healthy}}\n    ports: ['127.0.0.1:8080:80', '53:53/udp', '9000-9001:9000-9001', 7000]\n    networks: [front]\n    deploy: {resources: {limits: {cpus: '0.5', memory: 256M, pids: 100}, reservations: {memory: 64M}}}\n  db: {image: db:1}\nnetworks:\n  front: {name: shared, external: true}\n",
        )
        .unwrap();
        assert_eq!(services.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["db", "web"]);
        let web = &services[1];
        assert_eq!((web.memory, web.nano_cpus, web.pids), (Some(256 << 20), Some(500_000_000), Some(100)));
        assert_eq!(web.restart, ("on-failure".to_owned(), 5));
        assert_eq!(web.networks, BTreeSet::from(["shared".to_owned()]));
        let ports: Vec<_> = web.ports.iter().map(Port::to_string).collect();
        assert_eq!(ports, ["53->53/udp", "127.0.0.1:8080->80/tcp", "9000->9000/tcp", "9001->9001/tcp"]);
        assert_eq!(services[0].networks, BTreeSet::from(["demo_default".to_owned()]));
    }

    #[test]
    fn circles_double_ports_and_impossible_scales_are_named() {
        let problems = all(
            "services:\n  a: {image: x, depends_on: [b], ports: ['80:80', '80:80']}\n  b: {image: x, depends_on: [a]}\n  c: {image: x, scale: 2, container_name: c1}\n",
        )
        .unwrap_err()
        .join("\n");
        for part in ["publishes 80->80/tcp twice", "in a circle: `a`, `b`", "`c` cannot have 2 containers"] {
            assert!(problems.contains(part), "{problems}");
        }
    }

    #[test]
    fn a_job_that_others_wait_for_is_one_shot() {
        let services =
            all("services:\n  job: {image: x}\n  app: {image: x, depends_on: {job: {condition: service_completed_successfully}}}\n")
                .unwrap();
        assert!(services[0].one_shot && !services[1].one_shot);
    }
}
