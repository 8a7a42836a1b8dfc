//! A Docker volume that outlives stacks or is shared by them (`external: true`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::docker_network::is_name;
use crate::facts::Facts;
use crate::resource::argument::Presence;
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Question, Resource, ResourceId, Teardown, View};
use crate::shell::Script;

/// A Docker volume.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerVolume {
    /// The volume's name.
    pub name: String,
    /// `local` unless said otherwise.
    #[serde(default = "local")]
    pub driver: String,
    /// The driver's options, for `local`: `type`, `device`, `o`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// `absent` removes the volume; see `wipe_data`.
    #[serde(default)]
    pub state: Presence,
    /// With `state: absent`: yes, with the data in it.
    #[serde(default)]
    pub wipe_data: bool,
}

fn local() -> String {
    "local".to_owned()
}

impl Kind for DockerVolume {
    const NAME: &'static str = "docker_volume";
    const EXAMPLE: &'static str = "docker_volume:\n  name: wazuh-data\n";
    const SHORTHAND: Option<&'static str> = Some("name");

    fn build(self, _context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        if !is_name(&self.name) {
            return Err(BuildError::field("name", format!("`{}` is not a volume's name", self.name.escape_debug())));
        }
        if self.state == Presence::Absent && !self.wipe_data {
            return Err(BuildError::field("state", format!("removing volume `{}` destroys its data", self.name))
                .hint("say `wipe_data: true` if that is meant"));
        }
        Ok(vec![Box::new(self)])
    }
}

/// An option of a volume that is not declared: it may lead to any directory of the host.
fn extra(found: &Value, declared: &std::collections::BTreeMap<String, String>) -> Option<(String, String)> {
    let options = found.get("Options").and_then(Value::as_object)?;
    let (key, value) = options.iter().find(|(key, _)| !declared.contains_key(*key))?;
    Some((key.clone(), value.as_str().unwrap_or_default().to_owned()))
}

impl Resource for DockerVolume {
    fn id(&self) -> ResourceId {
        ResourceId::new(Self::NAME, &self.name)
    }

    fn teardown(&self, wish: Teardown) -> Option<Box<dyn Resource>> {
        wish.wipe_data.then(|| Box::new(Self { state: Presence::Absent, wipe_data: true, ..self.clone() }) as Box<dyn Resource>)
    }

    fn questions(&self, _facts: &Facts) -> Vec<Question> {
        vec![Question::Volume(self.name.clone())]
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let effect = Effect::Volume(self.name.clone());
        let found = view.volume(&self.name)?;
        match (self.state, found) {
            (Presence::Absent, None) => Ok(Plan::in_sync()),
            (Presence::Absent, Some(_)) => {
                let step = Step::new(format!("remove volume {}", self.name), Script::sh("docker volume rm {} >/dev/null\n", &[&self.name]));
                Ok(Plan::in_sync().change(Change::remove("volume", format!("{} and its data", self.name))).step(step).effect(effect))
            }
            (Presence::Present, None) => {
                let mut script = Script::sh("docker volume create --driver {}", &[&self.driver]);
                for (key, value) in &self.options {
                    script = script.then(" --opt {}", &[&format!("{key}={value}")]);
                }
                let step = Step::new(format!("create volume {}", self.name), script.then(" {} >/dev/null\n", &[&self.name]));
                Ok(Plan::in_sync().change(Change::add("volume", self.driver.clone())).step(step).effect(effect))
            }
            (Presence::Present, Some(found)) => {
                let driver = found.get("Driver").and_then(Value::as_str).unwrap_or_default();
                let option =
                    |key: &String| found.get("Options").and_then(|options| options.get(key)).and_then(Value::as_str).unwrap_or_default();
                let different = self.options.iter().find(|(key, value)| option(key) != value.as_str());
                let difference = match different {
                    _ if driver != self.driver => format!("its driver is `{driver}`, not `{}`", self.driver),
                    Some((key, value)) => format!("its option `{key}` is `{}`, not `{value}`", option(key)),
                    None => match extra(found, &self.options) {
                        Some((key, value)) => format!("it has the option `{key}={value}`, which nobody declared"),
                        None => return Ok(Plan::in_sync()),
                    },
                };
                Err(Undecided::Refused(format!(
                    "volume `{}` exists and {difference}; a volume cannot be changed without losing its data: back it up, remove it, apply, restore",
                    self.name
                )))
            }
        }
    }

    fn claims(&self) -> Vec<Claim> {
        if self.state == Presence::Present { vec![Claim::DockerObject(self.name.clone())] } else { Vec::new() }
    }
}
