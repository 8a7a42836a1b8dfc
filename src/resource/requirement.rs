//! What a role or a stack requires of its host (`requires:`), for preflight.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::resource::compose::units;

/// What must be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirement {
    /// Processors, in thousandths.
    pub milli_cpus: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes by path.
    pub disk: BTreeMap<String, u64>,
    /// Host ports: number and protocol.
    pub ports: Vec<(u16, String)>,
    /// Kernel settings and their least values.
    pub sysctl: BTreeMap<String, u64>,
    /// Kernel modules that are loaded, built in, or can be loaded.
    pub modules: Vec<String>,
    /// Subnets that must be free, or belong to the host's own Docker networks.
    pub subnets: Vec<String>,
    /// The name of the size that the figures above are of.
    pub profile: Option<String>,
    /// The same figures for every size there is.
    pub profiles: BTreeMap<String, Size>,
}

/// What one size of a role or stack needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Processors, in thousandths.
    pub milli_cpus: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes by path.
    pub disk: BTreeMap<String, u64>,
}

impl Requirement {
    /// Reads rendered arguments.
    ///
    /// # Errors
    /// The key that is wrong, and a sentence.
    pub fn read(value: &Value) -> Result<Self, (String, String)> {
        let mut out = Self::default();
        let Some(map) = value.as_object() else {
            return Err((String::new(), "`requires` must be a mapping".to_owned()));
        };
        for (key, value) in map {
            let wrong = |what: &str| (key.clone(), format!("`{}` is not {what}", shown(value)));
            match key.as_str() {
                "cpu" | "cpus" => {
                    out.milli_cpus =
                        units::nano_cpus(value).ok_or_else(|| wrong("a number of processors, such as `2` or `0.5`"))? / 1_000_000;
                }
                "memory" => out.memory = units::bytes(value).ok_or_else(|| wrong("a size, such as `8G`"))?,
                "disk" => {
                    for (path, size) in value.as_object().ok_or_else(|| wrong("a mapping of paths to sizes"))? {
                        let bytes = units::bytes(size).filter(|_| path.starts_with('/'));
                        let bytes =
                            bytes.ok_or_else(|| (key.clone(), format!("`{path}: {}` is not an absolute path and a size", shown(size))))?;
                        out.disk.insert(path.clone(), bytes);
                    }
                }
                "ports" => {
                    for entry in value.as_array().ok_or_else(|| wrong("a list of ports"))? {
                        out.ports.push(
                            port(entry).ok_or_else(|| (key.clone(), format!("`{}` is not a port, such as `443/tcp`", shown(entry))))?,
                        );
                    }
                }
                "sysctl" => {
                    for (name, least) in value.as_object().ok_or_else(|| wrong("a mapping of kernel settings to their least values"))? {
                        let number = least.as_u64().or_else(|| least.as_str()?.trim().parse().ok());
                        let number = number.ok_or_else(|| (key.clone(), format!("`{name}: {}` is not a number", shown(least))))?;
                        out.sysctl.insert(name.clone(), number);
                    }
                }
                "kernel_modules" | "subnets" => {
                    let mut list = Vec::new();
                    for entry in value.as_array().ok_or_else(|| wrong("a list"))? {
                        let fits = |text: &&str| if key == "subnets" { is_subnet(text) } else { is_module(text) };
                        let text = entry.as_str().filter(fits);
                        let what = if key == "subnets" { "a subnet, such as `172.20.0.0/24`" } else { "the name of a kernel module" };
                        list.push(text.ok_or_else(|| (key.clone(), format!("`{}` is not {what}", shown(entry))))?.to_owned());
                    }
                    *(if key == "subnets" { &mut out.subnets } else { &mut out.modules }) = list;
                }
                "profile" => out.profile = Some(value.as_str().ok_or_else(|| wrong("the name of a size"))?.to_owned()),
                "profiles" => {
                    for (name, figures) in value.as_object().ok_or_else(|| wrong("a mapping of sizes to what they need"))? {
                        out.profiles.insert(name.clone(), Size::read(name, figures).map_err(|message| (key.clone(), message))?);
                    }
                }
                _ => return Err((key.clone(), format!("`{key}` is nothing that can be required"))),
            }
        }
        match &out.profile {
            Some(name) if !out.profiles.contains_key(name) => {
                let known: Vec<&str> = out.profiles.keys().map(String::as_str).collect();
                Err(("profile".to_owned(), format!("there is no profile `{}`; there are {}", name.escape_debug(), known.join(", "))))
            }
            _ => Ok(out),
        }
    }
}

impl Size {
    /// `{cpus, memory, disk}`; a disk without a path is Docker's.
    fn read(name: &str, value: &Value) -> Result<Self, String> {
        let Some(map) = value.as_object() else { return Err(format!("profile `{name}` must be a mapping of `cpus`, `memory` and `disk`")) };
        if let Some(key) = map.keys().find(|key| !["cpu", "cpus", "memory", "disk"].contains(&key.as_str())) {
            return Err(format!("profile `{name}`: unknown key `{key}`; known keys: cpus, memory, disk"));
        }
        let mut map = map.clone();
        if let Some(disk) = map.get("disk").filter(|disk| !disk.is_object()).cloned() {
            map.insert("disk".to_owned(), serde_json::json!({ DOCKER: disk }));
        }
        let read = Requirement::read(&Value::Object(map)).map_err(|(_, message)| format!("profile `{name}`: {message}"))?;
        Ok(Self { milli_cpus: read.milli_cpus, memory: read.memory, disk: read.disk })
    }
}

/// Where Docker keeps what it has.
const DOCKER: &str = "/var/lib";

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| text.escape_debug().to_string())
}

fn port(value: &Value) -> Option<(u16, String)> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let (number, protocol) = text.trim().split_once('/').unwrap_or((text.trim(), "tcp"));
    let number = number.parse().ok().filter(|&number: &u16| number > 0)?;
    matches!(protocol, "tcp" | "udp" | "sctp").then(|| (number, protocol.to_owned()))
}

fn is_subnet(text: &str) -> bool {
    text.split_once('/').is_some_and(|(base, bits)| {
        base.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= if base.contains(':') { 128 } else { 32 })
    })
}

fn is_module(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requirements_are_read_and_nonsense_is_named() {
        let read = Requirement::read(&json!({
            "cpu": "0.5", "memory": "8G", "disk": {"/var/lib": "50G"}, "ports": ["514/udp", 443], "sysctl": {"vm.max_map_count": "262144"},
            "kernel_modules": ["af_packet"], "subnets": ["172.20.0.0/24"]
        }))
        .unwrap();
        assert_eq!((read.milli_cpus, read.memory, read.disk["/var/lib"]), (500, 8 << 30, 50 << 30));
        let sized =
            Requirement::read(&json!({"profile": "lab", "profiles": {"lab": {"cpus": 0.5, "memory": "1G", "disk": "2G"}}})).unwrap();
        assert_eq!(
            sized.profiles["lab"],
            Size { milli_cpus: 500, memory: 1 << 30, disk: BTreeMap::from([("/var/lib".to_owned(), 2 << 30)]) }
        );
        assert_eq!(read.ports, [(514, "udp".to_owned()), (443, "tcp".to_owned())]);
        for (value, key) in [
            (json!({"memory": "lots"}), "memory"),
            (json!({"cpu": "two"}), "cpu"),
            (json!({"disk": {"var": "1G"}}), "disk"),
            (json!({"disk": "1G"}), "disk"),
            (json!({"ports": ["70000/tcp"]}), "ports"),
            (json!({"ports": ["80/icmp"]}), "ports"),
            (json!({"sysctl": {"a": "x"}}), "sysctl"),
            (json!({"kernel_modules": ["a b"]}), "kernel_modules"),
            (json!({"subnets": ["10.0.0.0/33"]}), "subnets"),
            (json!({"ram": 1}), "ram"),
            (json!({"profile": "huge", "profiles": {"lab": {"memory": "1G"}}}), "profile"),
            (json!({"profiles": {"lab": {"ram": "1G"}}}), "profiles"),
            (json!({"profiles": {"lab": {"memory": "much"}}}), "profiles"),
        ] {
            assert_eq!(Requirement::read(&value).unwrap_err().0, key, "{value}");
        }
    }
}
