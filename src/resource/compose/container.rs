//! What `docker inspect` says of a container, as far as it is compared.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::service::Port;

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The long id.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// Id of the image that it was made from.
    pub image: String,
    /// `running`, `exited`, ...
    pub state: String,
    pub exit_code: i64,
    /// `healthy`, `unhealthy`, `starting`; `None` without a health check.
    pub health: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub restart: (String, u64),
    pub memory: Option<u64>,
    pub nano_cpus: Option<u64>,
    pub pids: Option<u64>,
    pub networks: BTreeSet<String>,
    /// As configured, whether the container runs or not.
    pub ports: BTreeSet<Port>,
    /// Ports really bound by a running container.
    pub bound: BTreeSet<Port>,
    /// Sources of its bind mounts.
    pub mounts: Vec<String>,
    /// The whole of it.
    pub raw: Value,
}

impl Container {
    /// Reads one entry of `docker inspect`'s list.
    #[must_use]
    pub fn read(inspect: &Value) -> Self {
        let text = |pointer: &str| inspect.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |pointer: &str| inspect.pointer(pointer).and_then(Value::as_i64).and_then(|number| u64::try_from(number).ok());
        let map = |pointer: &str| inspect.pointer(pointer).and_then(Value::as_object);
        let labels = map("/Config/Labels").into_iter().flatten();
        let health = text("/State/Health/Status");
        let restart = match text("/HostConfig/RestartPolicy/Name") {
            name if name.is_empty() => "no".to_owned(),
            name => name,
        };
        Self {
            id: text("/Id"),
            name: text("/Name").trim_start_matches('/').to_owned(),
            image: text("/Image"),
            state: text("/State/Status"),
            exit_code: inspect.pointer("/State/ExitCode").and_then(Value::as_i64).unwrap_or(0),
            // A stopped container keeps the last word of its health check.
            health: (!health.is_empty() && health != "none" && text("/State/Status") == "running").then_some(health),
            labels: labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
            restart: (restart, number("/HostConfig/RestartPolicy/MaximumRetryCount").unwrap_or(0)),
            memory: number("/HostConfig/Memory").filter(|&bytes| bytes > 0),
            nano_cpus: number("/HostConfig/NanoCpus").filter(|&cpus| cpus > 0),
            pids: number("/HostConfig/PidsLimit").filter(|&pids| pids > 0),
            networks: map("/NetworkSettings/Networks").into_iter().flatten().map(|(name, _)| name.clone()).collect(),
            ports: map("/HostConfig/PortBindings").map(ports).unwrap_or_default(),
            bound: map("/NetworkSettings/Ports").map(ports).unwrap_or_default(),
            mounts: inspect
                .get("Mounts")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter(|mount| mount.get("Type").and_then(Value::as_str) == Some("bind"))
                .filter_map(|mount| Some(mount.get("Source")?.as_str()?.to_owned()))
                .collect(),
            raw: inspect.clone(),
        }
    }

    /// A label's value.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The Compose project it belongs to.
    #[must_use]
    pub fn project(&self) -> &str {
        self.label("com.docker.compose.project")
    }

    /// Its service.
    #[must_use]
    pub fn service(&self) -> &str {
        self.label("com.docker.compose.service")
    }

    /// Made by `docker compose run`, not by `up`.
    #[must_use]
    pub fn is_one_off(&self) -> bool {
        self.label("com.docker.compose.oneoff") == "True"
    }

    /// Its state in a word or two, for people.
    #[must_use]
    pub fn condition(&self) -> String {
        match &self.health {
            _ if self.state == "exited" => format!("exited ({})", self.exit_code),
            Some(health) if self.state == "running" => health.clone(),
            _ => self.state.clone(),
        }
    }
}

/// `{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`; entries for IPv6's "all" are left out,
/// since they come with those for IPv4.
fn ports(map: &serde_json::Map<String, Value>) -> BTreeSet<Port> {
    let mut out = BTreeSet::new();
    for (key, bindings) in map {
        let (container, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
        let Ok(container) = container.parse() else { continue };
        for binding in bindings.as_array().into_iter().flatten() {
            let text = |name: &str| binding.get(name).and_then(Value::as_str).unwrap_or_default();
            let Ok(host) = text("HostPort").parse::<u16>() else { continue };
            let address = match text("HostIp") {
                "0.0.0.0" | "::" => "",
                other => other,
            };
            if host > 0 {
                out.insert(Port { host, protocol: protocol.to_owned(), address: address.to_owned(), container });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_is_read() {
        let container = Container::read(&json!({
            "Id": "abc", "Name": "/hello-web-1", "Image": "sha256:1",
            "State": {"Status": "running", "ExitCode": 0, "Health": {"Status": "healthy"}},
            "Config": {"Labels": {"com.docker.compose.project": "hello", "com.docker.compose.service": "web"}},
            "HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5}, "Memory": 1024, "NanoCpus": 0, "PidsLimit": null,
                "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}},
            "NetworkSettings": {"Networks": {"hello_default": {}},
                "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}], "81/tcp": null}},
            "Mounts": [{"Type": "bind", "Source": "/x"}, {"Type": "volume", "Source": "/y"}]
        }));
        assert_eq!((container.project(), container.service(), container.condition().as_str()), ("hello", "web", "healthy"));
        assert_eq!((container.memory, container.nano_cpus, container.pids), (Some(1024), None, None));
        assert_eq!(container.ports, container.bound);
        assert_eq!(container.ports.iter().map(ToString::to_string).collect::<Vec<_>>(), ["8080->80/tcp"]);
        assert_eq!(container.mounts, ["/x"]);
    }
}
