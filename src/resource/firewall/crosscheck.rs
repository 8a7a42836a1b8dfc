//! What stacks publish against what the firewall lists, over all resources of a host.

use std::collections::{BTreeMap, BTreeSet};

use crate::resource::{Claim, ResourceId};

/// Warnings, sorted: ports published to the world that the firewall does not list (they are closed
/// from outside, which somebody will wonder about), listed ports that nobody publishes, and, on a
/// host without a firewall, ports that are open to everybody.
#[must_use]
pub fn cross_check(claims: &[(ResourceId, Claim)]) -> Vec<String> {
    let guarded = claims.iter().any(|(_, claim)| matches!(claim, Claim::NftTable(table) if table == super::rules::TABLE));
    let mut published: BTreeMap<(u16, &str), BTreeSet<String>> = BTreeMap::new();
    let mut allowed: BTreeSet<(u16, &str)> = BTreeSet::new();
    for (id, claim) in claims {
        match claim {
            Claim::PublishedPort { address, port, protocol, owner } if !is_loopback(address) => {
                published.entry((*port, protocol)).or_default().insert(format!("`{owner}` of {id} on {}", shown(address)));
            }
            Claim::AllowedPort { port, protocol } => {
                allowed.insert((*port, protocol));
            }
            _ => {}
        }
    }
    let mut warnings = Vec::new();
    for ((port, protocol), owners) in &published {
        let owners = owners.iter().cloned().collect::<Vec<_>>().join(", ");
        if !guarded {
            warnings.push(format!(
                "port {port}/{protocol}, published by {owners}, is open to everybody: no `firewall` is declared for the host"
            ));
        } else if !allowed.contains(&(*port, *protocol)) {
            warnings.push(format!(
                "port {port}/{protocol}, published by {owners}, is closed from outside: list it in the firewall's `published`, or publish it on 127.0.0.1"
            ));
        }
    }
    for (port, protocol) in allowed.iter().filter(|key| !published.contains_key(*key)) {
        warnings.push(format!("the firewall's `published` lists {port}/{protocol}, which no stack of the host publishes to the outside"));
    }
    warnings
}

fn is_loopback(address: &str) -> bool {
    address.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn shown(address: &str) -> &str {
    if address.is_empty() { "every address" } else { address }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(address: &str, port: u16) -> (ResourceId, Claim) {
        let claim = Claim::PublishedPort { address: address.into(), port, protocol: "tcp".into(), owner: "web".into() };
        (ResourceId::new("compose_stack", "siem"), claim)
    }

    fn firewall(ports: &[u16]) -> Vec<(ResourceId, Claim)> {
        let id = ResourceId::new("firewall", "x");
        let ports = ports.iter().map(|&port| Claim::AllowedPort { port, protocol: "tcp".into() });
        std::iter::once(Claim::NftTable(crate::resource::firewall::rules::TABLE.into()))
            .chain(ports)
            .map(|claim| (id.clone(), claim))
            .collect()
    }

    #[test]
    fn both_directions_are_found() {
        let mut claims = firewall(&[443, 8080]);
        claims.extend([published("0.0.0.0", 443), published("0.0.0.0", 9200), published("127.0.0.1", 5432), published("[::1]", 5433)]);
        let warnings = cross_check(&claims);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("port 9200/tcp, published by `web` of compose_stack[siem] on 0.0.0.0, is closed from outside"));
        assert!(warnings[1].contains("lists 8080/tcp"));
    }

    #[test]
    fn without_a_firewall_everything_published_is_open() {
        let warnings = cross_check(&[published("", 9200), published("127.0.0.1", 1)]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("on every address, is open to everybody"), "{warnings:?}");
    }
}
