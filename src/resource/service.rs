//! `service` (also `systemd`): whether a unit runs, and whether it starts at boot.
//!
//! Reads the unit with `systemctl show`. Leaves unit files alone: that is `systemd_unit`'s.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::check_name;
use crate::resource::observe::{Question, UnitState, View};
use crate::resource::package::verify;
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Kind, Resource, ResourceId, Severity};
use crate::shell::Script;

/// Starts, stops, enables or masks a systemd unit.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// The unit; `.service` may be left out.
    #[serde(alias = "unit", alias = "service")]
    name: String,
    /// `started` or `stopped`; `restarted` and `reloaded` act every time and are for handlers.
    #[serde(default)]
    state: Option<RunState>,
    /// Whether it starts at boot.
    #[serde(default)]
    enabled: Option<bool>,
    /// Whether it is masked: cannot be started by anything.
    #[serde(default)]
    masked: Option<bool>,
    /// Make systemd read unit files again before anything else is done with the unit.
    #[serde(default)]
    daemon_reload: bool,
}

/// The same as `service`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SystemdSpec {
    /// The unit; `.service` may be left out. Without one only `daemon_reload` is done.
    #[serde(default, alias = "unit", alias = "service")]
    name: Option<String>,
    /// `started` or `stopped`; `restarted` and `reloaded` act every time and are for handlers.
    #[serde(default)]
    state: Option<RunState>,
    /// Whether it starts at boot.
    #[serde(default)]
    enabled: Option<bool>,
    /// Whether it is masked: cannot be started by anything.
    #[serde(default)]
    masked: Option<bool>,
    /// Make systemd read unit files again before anything else is done with the unit.
    #[serde(default)]
    daemon_reload: bool,
}

/// Whether a unit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RunState {
    Started,
    Stopped,
    Restarted,
    Reloaded,
}

/// Units may take systemd's own 90 seconds to start and as long to stop.
pub(super) const DEADLINE: Duration = Duration::from_secs(300);

impl Kind for ServiceSpec {
    const NAME: &'static str = "service";
    const EXAMPLE: &'static str = "service:
  name: nftables
  state: started
  enabled: true
";

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let unit = unit_name("name", &self.name)?;
        if self.state.is_none() && self.enabled.is_none() && self.masked.is_none() && !self.daemon_reload {
            return Err(BuildError::from("`service` has nothing to do".to_owned()).hint("give `state`, `enabled` or `masked`"));
        }
        if self.masked == Some(true) && (self.enabled == Some(true) || matches!(self.state, Some(state) if state != RunState::Stopped)) {
            return Err(BuildError::field("masked", "a masked unit can be neither started nor enabled"));
        }
        Ok(vec![Box::new(Service { unit, spec: self })])
    }
}

impl Kind for SystemdSpec {
    const NAME: &'static str = "systemd";
    const EXAMPLE: &'static str = "systemd:
  name: docker
  state: restarted
  daemon_reload: true
";

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let Self { name, state, enabled, masked, daemon_reload } = self;
        match name {
            Some(name) => ServiceSpec { name, state, enabled, masked, daemon_reload }.build(context),
            None if daemon_reload => Ok(vec![Box::new(Reload)]),
            None => Err(BuildError::field("name", "`name` is missing")),
        }
    }
}

/// A unit's full name.
///
/// # Errors
/// A sentence if it is not one.
pub(super) fn unit_name(field: &str, name: &str) -> Result<String, BuildError> {
    check_name(field, "unit", name, "@:_.-\\")?;
    let suffixes = [".service", ".socket", ".timer", ".target", ".mount", ".path", ".slice", ".scope", ".automount", ".swap", ".device"];
    let full = suffixes.iter().any(|suffix| name.ends_with(suffix));
    Ok(if full { name.to_owned() } else { format!("{name}.service") })
}

/// A unit that is to run or not; for composites too.
#[derive(Debug)]
pub struct Service {
    unit: String,
    spec: ServiceSpec,
}

impl Service {
    /// A unit that runs, now and after a reboot.
    #[must_use]
    pub fn running(unit: &str) -> Self {
        let spec =
            ServiceSpec { name: unit.to_owned(), state: Some(RunState::Started), enabled: Some(true), masked: None, daemon_reload: false };
        Self { unit: unit.to_owned(), spec }
    }
}

/// One call of `systemctl` on a unit; if it fails, what the unit says about it.
pub(super) fn systemctl(verb: &'static str, unit: &str) -> Step {
    let script = Script::sh(
        "systemctl {} -- {} || { r=$?; systemctl status --no-pager --full --lines=20 -- {} >&2; exit $r; }\n",
        &[verb, unit, unit],
    );
    Step::new(format!("systemctl {verb} {unit}"), script).deadline(DEADLINE)
}

/// Makes systemd read its unit files.
pub(super) fn daemon_reload() -> Step {
    Step::new("systemctl daemon-reload", Script::sh("systemctl daemon-reload\n", &[])).deadline(DEADLINE)
}

/// Whether systemd starts a unit at boot, as far as its file has a say. `None`: it has not.
fn is_enabled(state: &UnitState) -> Option<bool> {
    match state.file.as_str() {
        "enabled" | "enabled-runtime" | "alias" => Some(true),
        "static" | "generated" | "transient" | "indirect" => None,
        _ => Some(false),
    }
}

/// What to change so that a unit is enabled or not, and runs or not.
pub(super) fn switch(unit: &str, seen: Option<&UnitState>, enabled: Option<bool>, running: Option<bool>) -> Plan {
    let mut plan = Plan::in_sync();
    let word = |on: bool, yes: &'static str, no: &'static str| if on { yes } else { no };
    if let Some(enabled) = enabled {
        match seen.map_or(Some(false), is_enabled) {
            Some(is) if is != enabled => {
                plan = plan.change(Change::of("enabled", word(is, "yes", "no"), word(enabled, "yes", "no")));
                plan = plan.step(systemctl(if enabled { "enable" } else { "disable" }, unit));
            }
            None if enabled => plan = plan.note(format!("`{unit}` has nothing to enable: it is started by others or by the system")),
            _ => {}
        }
    }
    if let Some(running) = running {
        let active = seen.map_or("inactive", |seen| seen.active.as_str());
        let is = matches!(active, "active" | "activating" | "reloading" | "refreshing");
        if is != running {
            plan = plan.change(Change::of("state", active, word(running, "active", "inactive")));
            plan = plan.step(systemctl(if running { "start" } else { "stop" }, unit));
        }
    }
    plan
}

impl Resource for Service {
    fn id(&self) -> ResourceId {
        ResourceId::new(ServiceSpec::NAME, &self.unit)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        vec![Question::Unit(self.unit.clone())]
    }

    fn drift_questions(&self, _: &Facts) -> Vec<Question> {
        vec![verify::of_unit(&self.unit)]
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let Some(seen) = view.unit(&self.unit)? else {
            let off = matches!(self.spec.state, None | Some(RunState::Stopped))
                && self.spec.enabled != Some(true)
                && self.spec.masked != Some(true);
            if off && view.facts.has_systemd() {
                return Ok(Plan::in_sync().note(format!("there is no unit `{}`", self.unit)));
            }
            let reason = if view.facts.has_systemd() {
                format!("systemd knows no unit `{}`: install its package, or declare it with `systemd_unit`, before this task", self.unit)
            } else {
                format!("`{}` cannot be managed: the host does not run systemd", self.unit)
            };
            return Err(Undecided::Refused(reason));
        };
        let masked = seen.load == "masked" || seen.file.starts_with("masked");
        let mut plan = Plan::in_sync();
        if let Some(mask) = self.spec.masked.filter(|mask| *mask != masked) {
            let word = |on: bool| if on { "yes" } else { "no" };
            plan = plan.change(Change::of("masked", word(masked), word(mask)));
            // A mask until the next boot is another one.
            let unmask = Script::sh("systemctl unmask -- {} && systemctl unmask --runtime -- {}\n", &[&self.unit, &self.unit]);
            let step = if mask { systemctl("mask", &self.unit) } else { Step::new(format!("unmask {}", self.unit), unmask) };
            plan = plan.step(step);
        } else if masked
            && self.spec.masked.is_none()
            && (self.spec.enabled == Some(true) || matches!(self.spec.state, Some(state) if state != RunState::Stopped))
        {
            return Err(Undecided::Refused(format!("`{}` is masked: add `masked: false`", self.unit)));
        }
        let running = match self.spec.state {
            Some(RunState::Started) => Some(true),
            Some(RunState::Stopped) => Some(false),
            _ => None,
        };
        plan = plan.and(switch(&self.unit, Some(seen), self.spec.enabled, running));
        match self.spec.state {
            Some(RunState::Restarted) => {
                plan = plan.change(Change::of("state", &seen.active, "restarted")).step(systemctl("restart", &self.unit));
            }
            Some(RunState::Reloaded) => {
                plan = plan.change(Change::of("state", &seen.active, "reloaded")).step(systemctl("reload-or-restart", &self.unit));
            }
            _ => {}
        }
        if !plan.steps.is_empty() && (self.spec.daemon_reload || seen.needs_reload) {
            plan.steps.insert(0, daemon_reload());
        } else if seen.needs_reload {
            plan = plan.change(Change::of("unit file", "changed on disk", "read")).step(daemon_reload());
        }
        if let Some(told) = view.asked(&verify::of_unit(&self.unit))? {
            plan = verify::plan(&told.stdout).and(plan);
        }
        Ok(if plan.steps.is_empty() { plan } else { plan.effect(Effect::Unit(self.unit.clone())) })
    }

    fn severity(&self) -> Severity {
        Severity::Availability
    }
}

/// `systemd: {daemon_reload: true}` alone.
#[derive(Debug)]
struct Reload;

impl Resource for Reload {
    fn id(&self) -> ResourceId {
        ResourceId::new(ServiceSpec::NAME, "daemon-reload")
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        Vec::new()
    }

    fn plan(&self, _: &View<'_>) -> Result<Plan, Undecided> {
        Ok(Plan::in_sync().change(Change::add("systemd", "unit files read again")).step(daemon_reload()))
    }

    fn severity(&self) -> Severity {
        Severity::Info
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::observe::Answer;
    use crate::resource::testing::{Bench, absent, shown};

    fn plan(yaml: &str, unit: Option<(&str, &str, &str)>) -> Result<Plan, Undecided> {
        let bench = Bench::default();
        let resource = bench.build(yaml);
        let mut observed = absent(&*resource);
        if let Some((load, active, file)) = unit {
            let state = UnitState { load: load.into(), active: active.into(), file: file.into(), ..UnitState::default() };
            observed.insert(Question::Unit("x.service".into()), Answer::Unit(Some(state)));
        }
        bench.plan(&*resource, &observed)
    }

    #[test]
    fn running_and_enabled() {
        let wanted = "service: {name: x, state: started, enabled: true}";
        assert_eq!(
            shown(&plan(wanted, Some(("loaded", "failed", "disabled"))).unwrap()),
            ["enabled: no -> yes", "state: failed -> active"]
        );
        assert!(plan(wanted, Some(("loaded", "active", "enabled"))).unwrap().is_in_sync());
        let fixed = plan(wanted, Some(("loaded", "active", "static"))).unwrap();
        assert!(fixed.is_in_sync() && fixed.notes.len() == 1);
        assert!(matches!(plan(wanted, None), Err(Undecided::Refused(_))));
        assert!(matches!(plan(wanted, Some(("masked", "inactive", "masked"))), Err(Undecided::Refused(_))));
        let off = "service: {name: x, state: stopped, enabled: false}";
        assert_eq!(plan(off, Some(("loaded", "active", "enabled"))).unwrap().changes.len(), 2);
        assert!(plan(off, None).unwrap().is_in_sync());
    }

    #[test]
    fn handlers_always_act() {
        let titles = |yaml: &str| {
            let plan = plan(yaml, Some(("loaded", "active", "enabled"))).unwrap();
            plan.steps.into_iter().map(|step| step.title).collect::<Vec<_>>()
        };
        assert_eq!(
            titles("systemd: {name: x, state: restarted, daemon_reload: true}"),
            ["systemctl daemon-reload", "systemctl restart x.service"]
        );
        assert_eq!(titles("service: {name: x, state: reloaded}"), ["systemctl reload-or-restart x.service"]);
        assert_eq!(titles("service: {name: x, masked: true}"), ["systemctl mask x.service"]);
    }

    #[test]
    fn what_a_package_brings_is_known_after_it() {
        let bench = Bench::default().pending(Effect::Package("x".into()));
        let resource = bench.build("service: {name: x, state: started}");
        assert!(matches!(bench.plan(&*resource, &absent(&*resource)), Err(Undecided::After(_))));
        assert!(bench.try_build("service: x").is_err() && bench.try_build("service: {name: \"x y\", state: started}").is_err());
        assert!(bench.try_build("service: {name: x, masked: true, enabled: true}").is_err());
    }
}
