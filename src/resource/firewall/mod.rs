//! The `firewall` kind: what reaches the host and the container ports that it publishes.
//!
//! It owns the nftables table `inet soc_provision`, its file `/etc/soc-provision/firewall.nft` and
//! the unit that loads it at boot, before the network and before Docker. It leaves alone every other
//! table, Docker's above all, and never flushes the rule set; a host on which something else would
//! do so (nftables.service, ufw, firewalld) is refused.

pub mod address;
mod crosscheck;
mod host;
pub mod rules;

use std::time::Duration;

use crate::facts::Facts;
use crate::resource::argument::{GuardTimeout, Presence};
use crate::resource::firewall::address::{Network, Ports, interface};
use crate::resource::firewall::host::{Probed, probe, unit_file};
use crate::resource::firewall::rules::{Opening, Policy, Protocol, Rules, Way};
use crate::resource::own_file::OwnFile;
use crate::resource::plan::{Change, Effect, Guard, GuardKind, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Question, Resource, ResourceId, Severity, View};

pub use crosscheck::cross_check;

/// Allow lists for what reaches the host and its published container ports, IPv4 and IPv6. All
/// else is dropped. A change is undone by the host itself unless a new login confirms it.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Firewall {
    /// `absent` removes the table, its file and its unit.
    #[serde(default)]
    state: Presence,
    /// What happens to what no rule lets in: `drop`, or `accept` to count it only.
    #[serde(default)]
    policy: Policy,
    /// Who may log in.
    #[serde(default)]
    ssh: Ssh,
    /// Ports that containers publish, by their number on the host.
    #[serde(default)]
    published: Vec<Port>,
    /// Ports of the host's own services and of containers on the host's network.
    #[serde(default)]
    host: Vec<Port>,
    /// Other traffic: from a container to the host, or routed through it.
    #[serde(default)]
    flows: Vec<Flow>,
    /// Whether ping and all other ICMP is answered. What IPv6 cannot live without always is.
    #[serde(default = "yes")]
    allow_icmp: bool,
    /// Bridges whose containers may open connections. `br-*` are Compose's, and any other bridge
    /// so named; an exact list is safer where networks name their bridges.
    #[serde(default = "docker_bridges")]
    docker_bridges: Vec<String>,
    /// What to do where ufw is active: refuse, or keep it for the input side and govern only
    /// published ports.
    #[serde(default)]
    ufw_input: UfwInput,
    /// Whether what is dropped goes to the kernel's log, 30 lines a minute at most.
    #[serde(default)]
    log_dropped: bool,
    /// Seconds that the host waits for the confirming login before it puts the old rules back.
    #[serde(default)]
    guard_timeout: GuardTimeout,
}

/// What to do about an active ufw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum UfwInput {
    #[default]
    Refuse,
    Keep,
}

/// Who may log in.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ssh {
    /// Addresses and networks; empty: any.
    #[serde(default)]
    from: Vec<String>,
    /// Ports that sshd listens on.
    #[serde(default = "ssh_ports")]
    ports: Vec<Ports>,
}

impl Default for Ssh {
    fn default() -> Self {
        Self { from: Vec::new(), ports: ssh_ports() }
    }
}

/// A port that is let in.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Port {
    /// A port, or a range such as `8000-8010`.
    port: Ports,
    /// `tcp` or `udp`.
    #[serde(default)]
    protocol: Protocol,
    /// Addresses and networks; empty: any.
    #[serde(default)]
    from: Vec<String>,
    /// Only on this interface; may end in `*`.
    interface: Option<String>,
}

/// Other traffic that is let through.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Flow {
    /// `host`: to the host itself; `forward`: routed through it.
    #[serde(default)]
    chain: FlowChain,
    /// The interface that it comes in on.
    in_interface: Option<String>,
    /// The interface that it leaves by.
    out_interface: Option<String>,
    /// Source addresses and networks; empty: any.
    #[serde(default)]
    from: Vec<String>,
    /// Destination addresses and networks; empty: any.
    #[serde(default)]
    to: Vec<String>,
    /// `tcp` or `udp`.
    #[serde(default)]
    protocol: Protocol,
    /// Destination port or range; without one, every protocol and port.
    port: Option<Ports>,
}

/// Where a flow ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum FlowChain {
    Host,
    #[default]
    Forward,
}

fn yes() -> bool {
    true
}

fn docker_bridges() -> Vec<String> {
    vec!["docker0".to_owned(), "br-*".to_owned()]
}

fn ssh_ports() -> Vec<Ports> {
    vec![Ports::one(22)]
}

impl Kind for Firewall {
    const NAME: &'static str = "firewall";
    const EXAMPLE: &'static str = "\
firewall:
  ssh: {from: [10.0.0.0/8, \"fd00::/8\"], ports: [22]}
  published:
    - {port: 443}
    - {port: 9200, from: [10.0.0.0/8], interface: eth0}
  host:
    - {port: 9100, from: [10.0.0.5]}
";

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let window = self.guard_timeout.window()?;
        let rules = Rules {
            policy: self.policy,
            input: self.ufw_input == UfwInput::Refuse,
            ssh_from: networks(&self.ssh.from, "ssh.from")?,
            ssh_ports: self.ssh.ports.clone(),
            published: openings(&self.published, "published")?,
            host: openings(&self.host, "host")?,
            ways: self.flows.iter().enumerate().map(|(index, flow)| way(flow, index)).collect::<Result<_, _>>()?,
            allow_icmp: self.allow_icmp,
            bridges: self.docker_bridges.clone(),
            log_dropped: self.log_dropped,
        };
        if rules.ssh_ports.is_empty() {
            return Err(
                BuildError::field("ssh.ports", "names no port, so that nobody could log in").hint("list the port that sshd listens on")
            );
        }
        for (index, bridge) in rules.bridges.iter().enumerate() {
            interface(bridge).map_err(|message| BuildError::field(&format!("docker_bridges[{index}]"), message))?;
        }
        Ok(vec![Box::new(FirewallResource { state: self.state, keep_ufw: !rules.input, window, rules })])
    }
}

fn networks(texts: &[String], field: &str) -> Result<Vec<Network>, BuildError> {
    let parse =
        |(index, text): (usize, &String)| Network::parse(text).map_err(|message| BuildError::field(&format!("{field}[{index}]"), message));
    texts.iter().enumerate().map(parse).collect()
}

fn checked_interface(name: Option<&String>, field: &str) -> Result<Option<String>, BuildError> {
    name.map(|name| interface(name).map(|()| name.clone()).map_err(|message| BuildError::field(field, message))).transpose()
}

fn openings(ports: &[Port], field: &str) -> Result<Vec<Opening>, BuildError> {
    let opening = |(index, port): (usize, &Port)| {
        Ok(Opening {
            ports: port.port,
            protocol: port.protocol,
            from: networks(&port.from, &format!("{field}[{index}].from"))?,
            interface: checked_interface(port.interface.as_ref(), &format!("{field}[{index}].interface"))?,
        })
    };
    ports.iter().enumerate().map(opening).collect()
}

fn way(flow: &Flow, index: usize) -> Result<Way, BuildError> {
    let field = |name: &str| format!("flows[{index}].{name}");
    let way = Way {
        to_host: flow.chain == FlowChain::Host,
        in_interface: checked_interface(flow.in_interface.as_ref(), &field("in_interface"))?,
        out_interface: checked_interface(flow.out_interface.as_ref(), &field("out_interface"))?,
        from: networks(&flow.from, &field("from"))?,
        to: networks(&flow.to, &field("to"))?,
        service: flow.port.map(|ports| (flow.protocol, ports)),
    };
    if way.to_host && way.out_interface.is_some() {
        return Err(BuildError::field(&field("out_interface"), "has no meaning for traffic to the host itself"));
    }
    let all_families =
        |list: &[Network]| list.is_empty() || (list.iter().any(Network::is_v4) && list.iter().any(|network| !network.is_v4()));
    if !all_families(&way.from) && !all_families(&way.to) && way.from[0].is_v4() != way.to[0].is_v4() {
        return Err(BuildError::field(&field("to"), "is of another address family than `from`, so that nothing can match"));
    }
    if way.in_interface.is_none() && way.out_interface.is_none() && way.from.is_empty() && way.to.is_empty() && way.service.is_none() {
        return Err(
            BuildError::field(&format!("flows[{index}]"), "would let everything through").hint("name an interface, an address or a port")
        );
    }
    Ok(way)
}

/// The firewall of a host.
#[derive(Debug)]
struct FirewallResource {
    state: Presence,
    rules: Rules,
    keep_ufw: bool,
    window: Duration,
}

impl FirewallResource {
    fn files(&self) -> [OwnFile; 2] {
        [OwnFile::readable(host::RULE_FILE, self.rules.render()), unit_file()]
    }

    fn question(&self) -> Question {
        Question::Raw { key: "firewall".to_owned(), script: probe(&self.rules.render()) }
    }

    fn plan_present(&self, probed: &Probed, view: &View<'_>) -> Result<Plan, Undecided> {
        probed.refuse_rivals(self.keep_ufw)?;
        let wanted = probed.wanted()?;
        let mut plan = Plan { notes: self.notes(probed), ..Plan::default() };
        let changed = probed.live != wanted;
        if changed {
            plan.changes = host::rule_changes(&probed.live, wanted);
        }
        let files = self.files();
        let mut persist = false;
        for file in &files {
            let differs = file.changes(view)?;
            persist |= !differs.is_empty();
            plan.changes.extend(differs);
        }
        if !probed.unit_enabled {
            persist = true;
            plan.changes.push(Change::of(format!("{} enabled", host::UNIT), "no", "yes"));
        }
        if changed {
            plan.validate = Some(host::validate(&self.rules.render()));
            plan.steps.push(Step::new("load the firewall rules", host::load(&self.rules.render(), &probed.live)));
            plan.guard = Some(self.guard(&files, wanted));
        } else if persist {
            plan.steps.push(Step::new("keep the firewall rules for the next boot", host::persist(&files, wanted)));
        }
        if !plan.changes.is_empty() {
            plan.effects = effects();
        }
        Ok(plan)
    }

    fn guard(&self, files: &[OwnFile], wanted: &str) -> Guard {
        Guard {
            what: "firewall rules".to_owned(),
            window: self.window,
            kind: GuardKind::Runtime { save: host::save(), revert: host::revert(), persist: host::persist(files, wanted) },
            handlers: true,
            hint: "list the address that you connect from in `ssh.from`, and sshd's port in `ssh.ports`, or raise `guard_timeout`"
                .to_owned(),
        }
    }

    fn notes(&self, probed: &Probed) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some((address, port)) = probed.ssh
            && !self.rules.admits_ssh(address, port)
        {
            notes.push(format!(
                "these rules do not let in this very connection, from {address} to port {port}: unless another way in is open, the host will put the old rules back"
            ));
        }
        if self.rules.policy == Policy::Accept {
            notes.push("`policy: accept`: what no rule lets in is counted and let in".to_owned());
        }
        if self.keep_ufw {
            notes.push("`ufw_input: keep`: ufw decides about the host's own ports; `ssh` and `host` here have no effect".to_owned());
        }
        notes
    }
}

fn effects() -> Vec<Effect> {
    vec![Effect::Raw("firewall".to_owned()), Effect::Path(host::RULE_FILE.to_owned()), Effect::Unit(host::UNIT.to_owned())]
}

impl Resource for FirewallResource {
    fn id(&self) -> ResourceId {
        ResourceId::new(Firewall::NAME, rules::TABLE)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let mut questions = vec![self.question(), Question::Package("nftables".to_owned())];
        questions.extend(self.files().iter().flat_map(OwnFile::questions));
        questions
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let output = view.raw(&self.question())?;
        let probed = Probed::parse(&output.stdout)?;
        if self.state == Presence::Absent {
            return host::plan_absent(&probed, &self.files(), view);
        }
        if probed.nft_missing {
            view.package("nftables")?;
            return Err(Undecided::Refused("`nft` is not on the host; install package `nftables` before the firewall".to_owned()));
        }
        self.plan_present(&probed, view)
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        if self.state == Presence::Absent {
            return Vec::new();
        }
        let mut claims = vec![Claim::NftTable(rules::TABLE.to_owned()), Claim::Path(host::RULE_FILE.to_owned())];
        claims.push(Claim::Path(host::UNIT_FILE.to_owned()));
        claims.extend(self.rules.published.iter().flat_map(|opening| {
            let protocol = opening.protocol.to_string();
            opening.ports.iter().map(move |port| Claim::AllowedPort { port, protocol: protocol.clone() })
        }));
        claims
    }
}

#[cfg(test)]
mod tests;
