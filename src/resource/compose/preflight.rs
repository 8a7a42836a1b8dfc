//! What must hold before anything of a stack is stopped: every reason why it would not come up.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::compare::subnets;
use super::container::Container;
use super::service::{Service, host_name, is_external};
use super::stack::Stack;
use crate::facts::Facts;

/// The oldest Docker that `docker compose up --wait`, `start_interval` and the rest work with.
pub const DOCKER: (u32, u32) = (20, 10);
/// The oldest Compose: 1.x is another program, with another file format and other labels.
pub const COMPOSE: (u32, u32) = (2, 20);

/// Ports that the stack publishes and somebody else has. `listening` is what `ss -H -ltunp`
/// prints; a published port without a proxy has no socket, so other containers are looked at too.
#[must_use]
pub fn ports(stack: &Stack, containers: &[Container], listening: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut taken: BTreeSet<(u16, String, String)> = BTreeSet::new();
    for service in &stack.services {
        for port in &service.ports {
            let key = |address: &str| (port.host, port.protocol.clone(), address.to_owned());
            let twice = taken
                .iter()
                .any(|(number, protocol, address)| (*number, protocol) == (port.host, &port.protocol) && overlap(address, &port.address));
            if twice {
                reasons.push(format!("port {}/{} is published twice in the stack (service `{}`)", port.host, port.protocol, service.name));
            }
            taken.insert(key(&port.address));
            let same = |other: &super::service::Port| {
                other.host == port.host && other.protocol == port.protocol && overlap(&other.address, &port.address)
            };
            let ours = containers.iter().any(|container| container.project() == stack.name && container.bound.iter().any(same));
            let other = containers
                .iter()
                .find(|container| container.project() != stack.name && container.state == "running" && container.bound.iter().any(same));
            if let Some(other) = other {
                reasons.push(format!(
                    "port {}/{} of service `{}` is published by container `{}`",
                    port.host, port.protocol, service.name, other.name
                ));
            } else if !ours && let Some(process) = listener(listening, port.host, &port.protocol, &port.address) {
                reasons.push(format!("port {}/{} of service `{}` is taken by {process}", port.host, port.protocol, service.name));
            }
        }
    }
    reasons
}

/// Subnets of the stack's new networks that overlap with a route of the host. `routes` is
/// `/proc/net/route`; networks that exist already are not asked about.
#[must_use]
pub fn networks(stack: &Stack, existing: &BTreeSet<String>, routes: &str) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut seen: Vec<(String, (u32, u8))> = Vec::new();
    for (key, declared) in stack.model.section("networks") {
        let name = host_name(&stack.name, key, Some(declared));
        for subnet in subnets(declared) {
            if subnet.contains(':') {
                continue;
            }
            let Some(range) = cidr(&subnet) else {
                reasons.push(format!("`{subnet}` of network `{key}` is not a subnet"));
                continue;
            };
            if let Some((other, _)) = seen.iter().find(|(_, other)| overlaps(*other, range)) {
                reasons.push(format!("subnet {subnet} of network `{key}` overlaps with that of `{other}`"));
            }
            seen.push((key.clone(), range));
            if is_external(Some(declared)) || existing.contains(&name) {
                continue;
            }
            if let Some(route) = clash(&subnet, routes) {
                reasons.push(format!("subnet {subnet} of network `{key}` overlaps with {route}"));
            }
        }
    }
    reasons
}

/// The route of the host that a subnet overlaps with, in words.
#[must_use]
pub fn clash(subnet: &str, routes: &str) -> Option<String> {
    let range = cidr(subnet)?;
    let (interface, (base, length)) = routes.lines().skip(1).filter_map(route).find(|(_, other)| other.1 > 0 && overlaps(*other, range))?;
    Some(format!("{}/{length} on `{}`", std::net::Ipv4Addr::from(base), interface.escape_debug()))
}

/// Services for another architecture than the host's. What services need of memory, processors and
/// disk is summed over all stacks of a host, and so not looked at here.
#[must_use]
pub fn platforms(stack: &Stack, facts: &Facts) -> Vec<String> {
    stack.services.iter().filter_map(|service| platform(service, facts)).collect()
}

/// Whether Docker and Compose are new enough, by `docker info`.
#[must_use]
pub fn versions(info: &serde_json::Value) -> Vec<String> {
    let mut reasons = Vec::new();
    let server = info.get("ServerVersion").and_then(serde_json::Value::as_str).unwrap_or_default();
    if version(server).is_some_and(|found| found < DOCKER) {
        reasons.push(format!("Docker {server} is too old: {}.{} or newer is needed", DOCKER.0, DOCKER.1));
    }
    let plugins = info.pointer("/ClientInfo/Plugins").and_then(serde_json::Value::as_array).into_iter().flatten();
    let compose = plugins.into_iter().find(|plugin| plugin.get("Name").and_then(serde_json::Value::as_str) == Some("compose"));
    match compose.and_then(|plugin| plugin.get("Version")).and_then(serde_json::Value::as_str) {
        None => {
            reasons.push("Docker Compose (the plugin, `docker compose`) is not installed: add `docker_engine` before this stack".to_owned())
        }
        Some(found) if version(found).is_some_and(|found| found < COMPOSE) => {
            reasons.push(format!("Docker Compose {found} is too old: {}.{} or newer is needed", COMPOSE.0, COMPOSE.1));
        }
        Some(_) => {}
    }
    reasons
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches('v').split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn platform(service: &Service, facts: &Facts) -> Option<String> {
    let wanted = service.platform.as_deref()?;
    let mut parts = wanted.split('/').skip(1);
    let arch = parts.next()?;
    let have = match facts.deb_architecture() {
        "armhf" => "arm",
        other => other,
    };
    (!have.is_empty() && arch != have).then(|| format!("service `{}` is for {wanted}, the host is linux/{have}", service.name))
}

/// The process that listens on a port, in words.
#[must_use]
pub fn listener(listening: &str, port: u16, protocol: &str, address: &str) -> Option<String> {
    listening.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, _, _, _, local, ..] = words[..] else { return None };
        let (at, number) = local.rsplit_once(':')?;
        if kind != protocol || number.parse() != Ok(port) {
            return None;
        }
        let at = at.split('%').next().unwrap_or(at).trim_start_matches('[').trim_end_matches(']');
        let at = if matches!(at, "*" | "0.0.0.0" | "::") { "" } else { at };
        overlap(at, address).then(|| {
            let process = line.split_once("((\"").and_then(|(_, rest)| rest.split('"').next());
            process.map_or_else(|| "another process".to_owned(), |name| format!("`{}`", name.escape_debug()))
        })
    })
}

/// Whether two addresses to bind to collide; empty is all. A loopback address collides with all.
fn overlap(one: &str, other: &str) -> bool {
    one.is_empty()
        || other.is_empty()
        || one == other
        || matches!((one.parse::<IpAddr>(), other.parse::<IpAddr>()), (Ok(a), Ok(b)) if a == b)
}

fn cidr(text: &str) -> Option<(u32, u8)> {
    let (base, length) = text.split_once('/')?;
    let base: std::net::Ipv4Addr = base.parse().ok()?;
    let length: u8 = length.parse().ok().filter(|&length| length <= 32)?;
    Some((u32::from(base), length))
}

fn overlaps(one: (u32, u8), other: (u32, u8)) -> bool {
    let length = u32::from(one.1.min(other.1));
    let mask = if length == 0 { 0 } else { u32::MAX << (32 - length) };
    one.0 & mask == other.0 & mask
}

/// A line of `/proc/net/route`: interface, base (little-endian hex), and prefix length.
fn route(line: &str) -> Option<(String, (u32, u8))> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| u32::from_str_radix(words.get(index)?, 16).ok().map(u32::swap_bytes);
    let length = u8::try_from(number(7)?.count_ones()).ok()?;
    Some(((*words.first()?).to_owned(), (number(1)?, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ranges_collide_as_the_kernel_sees_them() {
        assert!(overlap("", "127.0.0.1") && overlap("10.0.0.1", "10.0.0.1") && !overlap("10.0.0.1", "10.0.0.2"));
        assert!(overlaps(cidr("172.20.0.0/16").unwrap(), cidr("172.20.5.0/24").unwrap()));
        assert!(!overlaps(cidr("172.20.0.0/24").unwrap(), cidr("172.20.1.0/24").unwrap()));
        assert_eq!(
            route("docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0"),
            Some(("docker0".to_owned(), cidr("172.17.0.0/16").unwrap()))
        );
    }

    #[test]
    fn who_listens_is_named() {
        let lines = "tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:((\"sshd\",pid=1,fd=3))\nudp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:* users:((\"systemd-resolve\",pid=2,fd=3))\ntcp LISTEN 0 1 [::]:80 [::]:*";
        assert_eq!(listener(lines, 22, "tcp", "").as_deref(), Some("`sshd`"));
        assert_eq!(listener(lines, 53, "udp", "").as_deref(), Some("`systemd-resolve`"));
        assert_eq!(listener(lines, 53, "udp", "10.0.0.1"), None);
        assert_eq!(listener(lines, 80, "tcp", "").as_deref(), Some("another process"));
    }

    #[test]
    fn old_versions_are_named() {
        let info =
            serde_json::json!({"ServerVersion": "26.1.5+dfsg1", "ClientInfo": {"Plugins": [{"Name": "compose", "Version": "2.26.1-4"}]}});
        assert!(versions(&info).is_empty());
        let info = serde_json::json!({"ServerVersion": "19.03.1", "ClientInfo": {"Plugins": []}});
        assert_eq!(versions(&info).len(), 2);
    }
}
