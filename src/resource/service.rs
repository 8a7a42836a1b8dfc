//! A systemd unit's state: started or stopped, enabled or disabled, masked. `restarted` and
//! `reloaded` always act; they are for handlers. Leaves unit files to `systemd_unit`.

use std::time::Duration;

use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::observe::View;
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Kind, Question, Resource, ResourceId, Severity};
use crate::shell::Script;

/// How long starting a service may take: systemd's own default is 90 s.
const START_DEADLINE: Duration = Duration::from_secs(180);

/// A systemd unit's state.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// The unit; `.service` may be left out.
    name: String,
    /// `started`, `stopped`, `restarted` or `reloaded`; the last two always act and belong into handlers.
    state: Option<State>,
    /// Whether it starts at boot.
    enabled: Option<bool>,
    /// Whether it cannot be started at all.
    masked: Option<bool>,
    /// Make systemd read its unit files anew first.
    #[serde(default)]
    daemon_reload: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    Started,
    Stopped,
    Restarted,
    Reloaded,
}

impl Kind for ServiceSpec {
    const NAME: &'static str = "service";
    const EXAMPLE: &'static str = "service:\n  name: chrony\n  state: started\n  enabled: true\n";

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "@._-:\\".contains(c);
        if self.name.is_empty() || self.name.starts_with('-') || !self.name.chars().all(fine) {
            return Err(BuildError::field("name", format!("`{}` is not the name of a unit", self.name.escape_debug())));
        }
        if self.state.is_none() && self.enabled.is_none() && self.masked.is_none() && !self.daemon_reload {
            return Err(BuildError::from(format!("nothing is asked of `{}`", self.name)).hint("give `state`, `enabled` or `masked`"));
        }
        let unit = if self.name.contains('.') { self.name.clone() } else { format!("{}.service", self.name) };
        Ok(vec![Box::new(Service { unit, state: self.state, enabled: self.enabled, masked: self.masked, daemon_reload: self.daemon_reload })])
    }
}

/// A unit's desired state; for composites too.
#[derive(Debug)]
pub struct Service {
    unit: String,
    state: Option<State>,
    enabled: Option<bool>,
    masked: Option<bool>,
    daemon_reload: bool,
}

impl Service {
    /// A unit that runs, now and after a reboot.
    #[must_use]
    pub fn running(unit: &str) -> Self {
        Self { unit: unit.to_owned(), state: Some(State::Started), enabled: Some(true), masked: None, daemon_reload: false }
    }
}

impl Resource for Service {
    fn id(&self) -> ResourceId {
        ResourceId::new("service", self.unit.trim_end_matches(".service"))
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        vec![Question::Unit(self.unit.clone())]
    }

    fn severity(&self) -> Severity {
        Severity::Availability
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        if !view.facts.has_systemd() {
            return Err(Undecided::Refused("the host does not run systemd".to_owned()));
        }
        let acts = matches!(self.state, Some(State::Restarted | State::Reloaded));
        let Some(seen) = view.unit(&self.unit)? else {
            if self.state == Some(State::Stopped) && self.enabled != Some(true) {
                return Ok(Plan::in_sync());
            }
            return Err(Undecided::Refused(format!("the host has no unit `{}`", self.unit)));
        };
        let mut plan = Plan::default();
        let mut script = Script::new();
        if self.daemon_reload || seen.needs_reload {
            script = script.then("systemctl daemon-reload || exit\n", &[]);
            if seen.needs_reload && !acts {
                plan.changes.push(Change::of("unit file", "changed on disk", "read again"));
            }
        }
        let is_masked = seen.load == "masked" || seen.file == "masked";
        if let Some(masked) = self.masked.filter(|masked| *masked != is_masked) {
            plan.changes.push(Change::of("masked", is_masked.to_string(), masked.to_string()));
            script = if masked { script.then("systemctl mask --now {} || exit\n", &[&self.unit]) } else { script.then("systemctl unmask {} || exit\n", &[&self.unit]) };
        }
        let is_enabled = matches!(seen.file.as_str(), "enabled" | "enabled-runtime" | "static" | "alias" | "indirect" | "generated");
        if let Some(enabled) = self.enabled.filter(|enabled| *enabled != is_enabled && !(is_masked && !*enabled)) {
            plan.changes.push(Change::of("enabled", seen.file.clone(), if enabled { "enabled" } else { "disabled" }));
            script = if enabled { script.then("systemctl enable --quiet {} || exit\n", &[&self.unit]) } else { script.then("systemctl disable --quiet {} || exit\n", &[&self.unit]) };
        }
        let is_up = matches!(seen.active.as_str(), "active" | "reloading" | "activating");
        let (change, act) = match self.state {
            Some(State::Started) if !is_up => (Some("started"), "systemctl start {}"),
            Some(State::Stopped) if is_up => (Some("stopped"), "systemctl stop {}"),
            Some(State::Restarted) => (Some("restarted"), "systemctl restart {}"),
            Some(State::Reloaded) => (Some("reloaded"), "systemctl reload-or-restart {}"),
            _ => (None, ""),
        };
        if let Some(word) = change {
            plan.changes.push(Change::of("state", seen.active.clone(), word));
            script = script.then(act, &[&self.unit]).then(
                " || { r=$?; systemctl status --no-pager --lines=15 {} >&2; exit $r; }\n",
                &[&self.unit],
            );
        }
        if plan.changes.is_empty() {
            return Ok(plan);
        }
        let title = change.map_or_else(|| format!("set up {}", self.unit), |word| format!("{} {}", word.trim_end_matches("ed"), self.unit));
        plan.effects.push(Effect::Unit(self.unit.clone()));
        Ok(plan.step(Step::new(title, script).deadline(START_DEADLINE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::observe::{Answer, Observations, Pending, UnitState};
    use crate::secret::KeyedDigests;

    fn decide(service: &Service, unit: Option<UnitState>, pending: &Pending) -> Result<Plan, Undecided> {
        let mut seen = Observations::default();
        seen.insert(Question::Unit(service.unit.clone()), Answer::Unit(unit));
        service.plan(&View::new(&Facts::placeholder("h"), &KeyedDigests::default(), &seen, pending))
    }

    fn unit(active: &str, file: &str) -> Option<UnitState> {
        Some(UnitState { load: "loaded".into(), active: active.into(), sub: String::new(), file: file.into(), needs_reload: false })
    }

    #[test]
    fn a_running_enabled_unit_is_in_sync() {
        let service = Service::running("chrony.service");
        assert!(decide(&service, unit("active", "enabled"), &Pending::default()).unwrap().is_in_sync());
        let plan = decide(&service, unit("inactive", "disabled"), &Pending::default()).unwrap();
        assert_eq!(plan.changes.len(), 2);
        assert!(plan.steps[0].script.shown().contains("systemctl start chrony.service"));
    }

    #[test]
    fn an_absent_unit_waits_for_packages() {
        let service = Service::running("chrony.service");
        let mut pending = Pending::default();
        assert!(matches!(decide(&service, None, &pending), Err(Undecided::Refused(_))));
        let package = ResourceId::new("package", "chrony");
        pending.add(&package, &[Effect::Package("chrony".into())]);
        assert_eq!(decide(&service, None, &pending).unwrap_err(), Undecided::After(package));
    }
}
