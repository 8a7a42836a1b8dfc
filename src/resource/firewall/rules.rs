//! The rule set as text for `nft -f`.
//!
//! One table of its own with an input *and* a forward chain: packets for a published container
//! port are redirected before routing and never see the input hook, so that a firewall on input
//! alone leaves them open. A drop in any base chain is final and an accept ends only its own
//! chain, so the table can only take away; Docker's tables go on deciding about isolation and are
//! never touched. `ct original proto-dst` is the port as published, not the container's; `ct
//! status dnat` keeps out neighbours that route straight to a container's address.

use std::fmt::{self, Write as _};

use crate::resource::firewall::address::{Network, Ports};

/// The table: family and name.
pub const TABLE: &str = "inet soc_provision";

/// What happens to what no rule lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// It is dropped and counted.
    #[default]
    Drop,
    /// It is only counted: for watching before closing.
    Accept,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port that is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub ports: Ports,
    pub protocol: Protocol,
    /// Empty: from anywhere.
    pub from: Vec<Network>,
    /// `None`: on any interface.
    pub interface: Option<String>,
}

/// Other traffic that is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// To the host itself, rather than routed through it.
    pub to_host: bool,
    pub in_interface: Option<String>,
    pub out_interface: Option<String>,
    pub from: Vec<Network>,
    pub to: Vec<Network>,
    pub service: Option<(Protocol, Ports)>,
}

/// A whole rule set, every value checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub policy: Policy,
    /// Whether the input side is ours; otherwise ufw keeps it.
    pub input: bool,
    pub ssh_from: Vec<Network>,
    pub ssh_ports: Vec<Ports>,
    pub published: Vec<Opening>,
    pub host: Vec<Opening>,
    pub ways: Vec<Way>,
    pub allow_icmp: bool,
    pub bridges: Vec<String>,
    pub log_dropped: bool,
}

/// The openings that need no rule of their own: a set of ports each.
const SETS: [(&str, Protocol, bool); 4] = [
    ("published_tcp", Protocol::Tcp, true),
    ("published_udp", Protocol::Udp, true),
    ("host_tcp", Protocol::Tcp, false),
    ("host_udp", Protocol::Udp, false),
];

impl Rules {
    /// The file for `nft -f`: replaces the table in one transaction, whether or not it is there.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = format!("table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
        for (name, protocol, published) in SETS {
            if published || self.input {
                out.push_str(&self.set(name, protocol, published));
            }
        }
        if self.input {
            out.push_str(&self.chain("input", &self.input_rules()));
        }
        out.push_str(&self.chain("forward", &self.forward_rules()));
        out.push_str("}\n");
        out
    }

    /// Whether a new connection from this address to this port of the host is let in.
    #[must_use]
    pub fn admits_ssh(&self, from: std::net::IpAddr, port: u16) -> bool {
        let by_ssh = self.ssh_ports.iter().any(|ports| ports.contains(port)) && within(&self.ssh_from, from);
        let by_host = |opening: &Opening| opening.protocol == Protocol::Tcp && opening.ports.contains(port) && within(&opening.from, from);
        !self.input || self.policy == Policy::Accept || by_ssh || self.host.iter().chain(&self.published).any(by_host)
    }

    fn openings(&self, published: bool) -> &[Opening] {
        if published { &self.published } else { &self.host }
    }

    fn set(&self, name: &str, protocol: Protocol, published: bool) -> String {
        let plain = |opening: &&Opening| opening.protocol == protocol && opening.from.is_empty() && opening.interface.is_none();
        let ports = Ports::reduce(self.openings(published).iter().filter(plain).map(|opening| opening.ports).collect());
        let elements = if ports.is_empty() { String::new() } else { format!(" elements = {{ {} }};", list(&ports)) };
        format!("\tset {name} {{ type inet_service; flags interval;{elements} }}\n")
    }

    fn chain(&self, hook: &str, rules: &[String]) -> String {
        let policy = match self.policy {
            Policy::Drop => "drop",
            Policy::Accept => "accept",
        };
        let mut out = format!("\tchain {hook} {{\n\t\ttype filter hook {hook} priority filter - 10; policy {policy};\n");
        for rule in rules {
            let _ = writeln!(out, "\t\t{rule}");
        }
        if self.log_dropped {
            let _ = writeln!(out, "\t\tlimit rate 30/minute log prefix \"soc-provision {hook}: \"");
        }
        let _ = writeln!(out, "\t\tcounter comment \"{hook}-rest\"\n\t}}");
        out
    }

    /// What every chain begins with.
    fn established(&self) -> Vec<String> {
        let mut rules = vec!["ct state established,related accept".to_owned()];
        if self.policy == Policy::Drop {
            rules.push("ct state invalid drop".to_owned());
        }
        rules
    }

    fn input_rules(&self) -> Vec<String> {
        let mut rules = vec!["iifname \"lo\" accept".to_owned()];
        rules.extend(self.established());
        if self.allow_icmp {
            rules.push("meta l4proto { icmp, ipv6-icmp } accept".to_owned());
        } else {
            // Without these a host loses its IPv6 neighbours and routers (RFC 4890, 4.4.1).
            rules.push("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert, mld-listener-query } accept".to_owned());
        }
        rules.push("udp sport 67 udp dport 68 accept".to_owned());
        rules.push("ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept".to_owned());
        let ssh = format!("tcp dport {{ {} }} accept", list(&Ports::reduce(self.ssh_ports.clone())));
        rules.extend(sources(&self.ssh_from).into_iter().map(|source| format!("{source}{ssh}")));
        for (name, protocol, _) in SETS {
            rules.push(format!("{protocol} dport @{name} accept"));
        }
        for opening in self.host.iter().chain(&self.published).filter(|opening| opening.is_limited()) {
            rules.extend(opening.rules(|protocol, ports| format!("{protocol} dport {ports} accept")));
        }
        rules.extend(self.ways.iter().filter(|way| way.to_host).flat_map(Way::rules));
        rules
    }

    fn forward_rules(&self) -> Vec<String> {
        let published = |protocol: Protocol, what: &str| {
            format!("ct status dnat ct direction original meta l4proto {protocol} ct original proto-dst {what} accept")
        };
        let mut rules = self.established();
        rules.extend(self.bridges.iter().map(|bridge| format!("iifname \"{bridge}\" accept")));
        rules.push(published(Protocol::Tcp, "@published_tcp"));
        rules.push(published(Protocol::Udp, "@published_udp"));
        for opening in self.published.iter().filter(|opening| opening.is_limited()) {
            rules.extend(opening.rules(|protocol, ports| published(protocol, &ports.to_string())));
        }
        rules.extend(self.ways.iter().filter(|way| !way.to_host).flat_map(Way::rules));
        rules
    }
}

impl Opening {
    fn is_limited(&self) -> bool {
        !self.from.is_empty() || self.interface.is_some()
    }

    fn rules(&self, last: impl Fn(Protocol, Ports) -> String) -> Vec<String> {
        let interface = on("iifname", self.interface.as_deref());
        sources(&self.from).into_iter().map(|source| format!("{interface}{source}{}", last(self.protocol, self.ports))).collect()
    }
}

impl Way {
    fn rules(&self) -> Vec<String> {
        let interfaces = on("iifname", self.in_interface.as_deref()) + &on("oifname", self.out_interface.as_deref());
        let service = self.service.map(|(protocol, ports)| format!("{protocol} dport {ports} ")).unwrap_or_default();
        let family = |v4: bool, list: &[Network]| list.is_empty() || list.iter().any(|network| network.is_v4() == v4);
        if self.from.is_empty() && self.to.is_empty() {
            return vec![format!("{interfaces}{service}accept")];
        }
        [true, false]
            .into_iter()
            .filter(|&v4| family(v4, &self.from) && family(v4, &self.to))
            .map(|v4| format!("{interfaces}{}{}{service}accept", matching("saddr", v4, &self.from), matching("daddr", v4, &self.to)))
            .collect()
    }
}

fn on(what: &str, interface: Option<&str>) -> String {
    interface.map(|name| format!("{what} \"{name}\" ")).unwrap_or_default()
}

/// Beginnings of rules that match these sources: one for each family, or one that matches all.
fn sources(from: &[Network]) -> Vec<String> {
    let everything = |v4: bool| from.iter().any(|network| network.is_v4() == v4 && network.is_everything());
    if from.is_empty() || (everything(true) && everything(false)) {
        return vec![String::new()];
    }
    [true, false].into_iter().map(|v4| matching("saddr", v4, from)).filter(|start| !start.is_empty()).collect()
}

fn matching(field: &str, v4: bool, networks: &[Network]) -> String {
    let family: Vec<Network> = Network::reduce(networks.iter().copied().filter(|network| network.is_v4() == v4).collect());
    let keyword = if v4 { "ip" } else { "ip6" };
    if family.is_empty() {
        String::new()
    } else if family[0].is_everything() {
        // `ip saddr 0.0.0.0/0` is dropped from a listing by some versions; the family is not.
        format!("meta nfproto {} ", if v4 { "ipv4" } else { "ipv6" })
    } else {
        format!("{keyword} {field} {{ {} }} ", list(&family))
    }
}

fn within(networks: &[Network], address: std::net::IpAddr) -> bool {
    networks.is_empty() || networks.iter().any(|network| network.contains(address))
}

fn list(items: &[impl fmt::Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
