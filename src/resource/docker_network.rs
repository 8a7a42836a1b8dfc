//! A Docker network that stacks share (`external: true` in their Compose files).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::facts::Facts;
use crate::resource::argument::Presence;
use crate::resource::compose::compare::network_changes;
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Question, Resource, ResourceId, Teardown, View};
use crate::shell::Script;

/// A Docker network.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerNetwork {
    /// The network's name.
    pub name: String,
    /// `bridge` unless said otherwise.
    #[serde(default = "bridge")]
    pub driver: String,
    /// `172.20.0.0/24`; without one Docker takes the next of its pools.
    #[serde(default)]
    pub subnet: Option<String>,
    /// Address of the gateway in the subnet; Docker's choice unless given.
    #[serde(default)]
    pub gateway: Option<String>,
    /// No way out of it.
    #[serde(default)]
    pub internal: bool,
    /// Give containers IPv6 addresses too.
    #[serde(default)]
    pub ipv6: bool,
    /// The driver's options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// `absent` removes the network.
    #[serde(default)]
    pub state: Presence,
}

fn bridge() -> String {
    "bridge".to_owned()
}

/// Whether a word may name a Docker network or volume: these rules are Docker's own.
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

impl Kind for DockerNetwork {
    const NAME: &'static str = "docker_network";
    const EXAMPLE: &'static str = "docker_network:\n  name: siem-backend\n  subnet: 172.20.0.0/24\n  internal: true\n";
    const SHORTHAND: Option<&'static str> = Some("name");

    fn build(self, _context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        if !is_name(&self.name) {
            return Err(BuildError::field("name", format!("`{}` is not a network's name", self.name.escape_debug())));
        }
        Ok(vec![Box::new(self)])
    }
}

const SHOWN: &str = "{{.Driver}} {{.Internal}} {{range .IPAM.Config}}{{.Subnet}} {{end}}";

impl DockerNetwork {
    /// In Compose's words, which the comparison reads.
    fn declared(&self) -> Value {
        json!({
            "driver": self.driver,
            "internal": self.internal,
            "ipam": {"config": self.subnet.iter().map(|subnet| json!({"subnet": subnet})).collect::<Vec<_>>()},
            "driver_opts": self.options,
        })
    }

    fn create(&self) -> Script {
        // Where Docker did not run when this was planned, nobody could see what networks there are.
        let found = Script::sh("if x=$(docker network inspect -f {} {} 2>/dev/null); then\n", &[SHOWN, &self.name]);
        let subnet = self.subnet.as_ref().map(|subnet| format!("{subnet} ")).unwrap_or_default();
        let wanted = format!("{} {} {subnet}", self.driver, self.internal);
        let found = found.then(
            "case $x in {}*) exit 0;; esac; echo 'there is a network of this name already, and it is another one' >&2; exit 97\nfi\n",
            &[&wanted],
        );
        let mut script = found.then("docker network create --driver {} --label soc.network={}", &[&self.driver, &self.name]);
        for (flag, value) in [(" --subnet {}", &self.subnet), (" --gateway {}", &self.gateway)] {
            if let Some(value) = value {
                script = script.then(flag, &[value]);
            }
        }
        if self.internal {
            script = script.then(" --internal", &[]);
        }
        if self.ipv6 {
            script = script.then(" --ipv6", &[]);
        }
        for (key, value) in &self.options {
            script = script.then(" --opt {}", &[&format!("{key}={value}")]);
        }
        script.then(" {} >/dev/null\n", &[&self.name])
    }
}

impl Resource for DockerNetwork {
    fn id(&self) -> ResourceId {
        ResourceId::new(Self::NAME, &self.name)
    }

    fn teardown(&self, _wish: Teardown) -> Option<Box<dyn Resource>> {
        Some(Box::new(Self { state: Presence::Absent, ..self.clone() }))
    }

    fn questions(&self, _facts: &Facts) -> Vec<Question> {
        vec![Question::Network(self.name.clone())]
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let found = view.network(&self.name)?;
        let effect = Effect::Network(self.name.clone());
        match (self.state, found) {
            (Presence::Absent, None) => Ok(Plan::in_sync()),
            (Presence::Absent, Some(_)) => {
                let step =
                    Step::new(format!("remove network {}", self.name), Script::sh("docker network rm {} >/dev/null\n", &[&self.name]));
                Ok(Plan::in_sync().change(Change::remove("network", self.name.clone())).step(step).effect(effect))
            }
            (Presence::Present, None) => {
                let shown = self.subnet.clone().unwrap_or_else(|| self.driver.clone());
                let step = Step::new(format!("create network {}", self.name), self.create());
                Ok(Plan::in_sync().change(Change::add("network", shown)).step(step).effect(effect))
            }
            (Presence::Present, Some(found)) => {
                let mut plan = Plan::in_sync();
                for (field, before, after) in network_changes(&self.declared(), found) {
                    plan = plan.change(Change::of(field, before, after));
                }
                if plan.changes.is_empty() {
                    return Ok(plan);
                }
                let users = found.get("Containers").and_then(Value::as_object).into_iter().flatten();
                let users: Vec<&str> = users.filter_map(|(_, container)| container.get("Name")?.as_str()).collect();
                if !users.is_empty() {
                    return Err(Undecided::Refused(format!(
                        "network `{}` cannot be changed while containers are on it ({}): take their stacks down first",
                        self.name,
                        users.join(", ")
                    )));
                }
                let script = Script::sh("docker network rm {} >/dev/null || exit 1\n", &[&self.name]).append(self.create());
                Ok(plan.step(Step::new(format!("make network {} anew", self.name), script)).effect(effect))
            }
        }
    }

    fn claims(&self) -> Vec<Claim> {
        let subnet = self.subnet.iter().map(|cidr| Claim::Subnet { cidr: cidr.clone(), owner: self.name.clone() });
        let itself = (self.state == Presence::Present).then(|| Claim::DockerObject(self.name.clone()));
        subnet.chain(itself).collect()
    }
}
