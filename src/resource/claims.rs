//! Looks at everything a host's resources claim, together: what two of them cannot both have.

use std::collections::BTreeMap;

use crate::resource::{Claim, ResourceId};

/// Reasons to refuse a host's plan: a host port published twice, subnets that overlap, a path
/// that two resources write.
#[must_use]
pub fn cross_check(claims: &[(ResourceId, Claim)]) -> Vec<String> {
    let mut problems = ports(claims);
    problems.extend(subnets(claims));
    problems.extend(kernel(claims));
    problems
}

/// Kernel settings that a declared file contradicts and, being read later, wins over at boot. Each
/// run would silence the line, and then write the file again.
fn kernel(claims: &[(ResourceId, Claim)]) -> Vec<String> {
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let mut problems = Vec::new();
    for (id, claim) in claims {
        let Claim::KernelSetting { name, value, path } = claim else { continue };
        for (other_id, other) in claims {
            match other {
                Claim::KernelLine { name: n, value: v, path: p } if n == name && v != value && base(p) > base(path) => problems.push(
                    format!("{id}: it is to be `{value}`, and {other_id}, which is read later at boot, says `{v}`: each run would change what the other wrote; take it out of one of them"),
                ),
                _ => {}
            }
        }
    }
    problems
}

fn ports(claims: &[(ResourceId, Claim)]) -> Vec<String> {
    let mut by_port: BTreeMap<(u16, &str), Vec<(&ResourceId, &str, &str)>> = BTreeMap::new();
    for (id, claim) in claims {
        if let Claim::PublishedPort { address, port, protocol, owner } = claim {
            by_port.entry((*port, protocol)).or_default().push((id, address, owner));
        }
    }
    let any = |address: &str| matches!(address, "" | "0.0.0.0" | "::" | "*");
    let mut problems = Vec::new();
    for ((port, protocol), users) in by_port {
        for (index, (id, address, owner)) in users.iter().enumerate() {
            let other = users[..index].iter().find(|(_, other, _)| other == address || any(other) || any(address));
            if let Some((other_id, _, other_owner)) = other {
                problems
                    .push(format!("{id}: host port {port}/{protocol} of `{owner}` is already published by `{other_owner}` of {other_id}"));
            }
        }
    }
    problems
}

fn subnets(claims: &[(ResourceId, Claim)]) -> Vec<String> {
    let nets: Vec<(&ResourceId, &str, (u32, u32))> = claims
        .iter()
        .filter_map(|(id, claim)| match claim {
            Claim::Subnet { cidr, owner } => Some((id, owner.as_str(), range(cidr)?)),
            _ => None,
        })
        .collect();
    let mut problems = Vec::new();
    for (index, (id, owner, (from, to))) in nets.iter().enumerate() {
        let clash = nets[..index].iter().find(|(_, other, (start, end))| other != owner && from <= end && start <= to);
        if let Some((other_id, other, _)) = clash {
            problems.push(format!("{id}: the subnet of network `{owner}` overlaps that of `{other}` of {other_id}"));
        }
    }
    problems
}

/// First and last address of an IPv4 subnet.
fn range(cidr: &str) -> Option<(u32, u32)> {
    let (address, bits) = cidr.split_once('/')?;
    let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or_default();
    let base = u32::from(address.parse::<std::net::Ipv4Addr>().ok()?) & mask;
    Some((base, base | !mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: &str, port: u16, owner: &str) -> (ResourceId, Claim) {
        (
            ResourceId::new("compose_stack", owner),
            Claim::PublishedPort { address: address.into(), port, protocol: "tcp".into(), owner: owner.into() },
        )
    }

    #[test]
    fn a_port_published_twice_is_named() {
        let problems = cross_check(&[port("0.0.0.0", 443, "siem"), port("127.0.0.1", 443, "waf"), port("0.0.0.0", 80, "web")]);
        assert_eq!(problems, ["compose_stack[waf]: host port 443/tcp of `waf` is already published by `siem` of compose_stack[siem]"]);
        assert!(cross_check(&[port("127.0.0.1", 1, "a"), port("127.0.0.2", 1, "b")]).is_empty());
    }

    #[test]
    fn a_kernel_setting_that_a_later_file_contradicts_is_named() {
        let set = |value: &str| {
            let claim = Claim::KernelSetting { name: "vm/x".into(), value: value.into(), path: "/etc/sysctl.d/60-soc.conf".into() };
            (ResourceId::new("sysctl", "vm.x"), claim)
        };
        let line = |path: &str| {
            let path = format!("/etc/sysctl.d/{path}");
            (ResourceId::new("copy", &path), Claim::KernelLine { name: "vm/x".into(), value: "0".into(), path })
        };
        let problems = cross_check(&[set("1"), line("99-y.conf")]);
        assert!(problems.len() == 1 && problems[0].starts_with("sysctl[vm.x]: ") && problems[0].contains("copy[/etc/sysctl.d/99-y.conf]"));
        assert!(cross_check(&[set("0"), line("99-y.conf")]).is_empty() && cross_check(&[set("1"), line("10-y.conf")]).is_empty());
    }

    #[test]
    fn overlapping_subnets_are_named() {
        let net =
            |cidr: &str, owner: &str| (ResourceId::new("compose_stack", owner), Claim::Subnet { cidr: cidr.into(), owner: owner.into() });
        assert_eq!(cross_check(&[net("172.20.0.0/24", "a"), net("172.20.0.128/25", "b"), net("172.21.0.0/24", "c")]).len(), 1);
    }
}
