//! `timer`: a command that systemd runs at times.
//!
//! Writes `NAME.service` and `NAME.timer`, and keeps the timer enabled and running. What the
//! command does is its own affair.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::resource::argument::{Account, Presence, Words, check_name};
use crate::resource::systemd_unit::UnitSet;
use crate::resource::{BuildContext, BuildError, Kind, Resource};
use crate::secret::Text;
use crate::shell::Script;

/// Runs a command at times.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Timer {
    /// Name of the timer and of its service.
    name: String,
    /// What to run, as in `ExecStart=`: a program's absolute path and arguments, no shell.
    #[serde(default)]
    command: Option<String>,
    /// When, as in `OnCalendar=`: `daily`, `*-*-* 03:30:00`. One or several.
    #[serde(default)]
    on_calendar: Words,
    /// How long after boot, as in `OnBootSec=`: `10min`.
    #[serde(default)]
    on_boot: Option<String>,
    /// How long after the last run began, as in `OnUnitActiveSec=`.
    #[serde(default)]
    every: Option<String>,
    /// Catch up on a run that was missed while the host was off.
    #[serde(default = "yes")]
    persistent: bool,
    /// Spread the start over this long, as in `RandomizedDelaySec=`.
    #[serde(default)]
    randomized_delay: Option<String>,
    /// User that the command runs as; root unless given.
    #[serde(default)]
    user: Option<Account>,
    /// Variables for its environment. Everybody on the host can read them.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// How long the command may take, as in `TimeoutStartSec=`.
    #[serde(default)]
    timeout: Option<String>,
    /// What it is for.
    #[serde(default)]
    description: Option<String>,
    /// More lines for the service's `[Service]` section, such as sandboxing.
    #[serde(default)]
    service_options: BTreeMap<String, String>,
    /// `absent` stops the timer and removes its files.
    #[serde(default)]
    state: Presence,
}

fn yes() -> bool {
    true
}

impl Kind for Timer {
    const NAME: &'static str = "timer";
    const EXAMPLE: &'static str = "timer:
  name: aide-check
  command: /usr/bin/aide --check --config /etc/aide/aide.conf
  on_calendar: \"*-*-* 04:10:00\"
  randomized_delay: 30min
";

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let name = self.name.strip_suffix(".timer").unwrap_or(&self.name).to_owned();
        check_name("name", "timer", &name, "@:_.-")?;
        let (service, timer) = if self.state == Presence::Present {
            self.check()?;
            (self.service()?, self.timer(&name)?)
        } else {
            (String::new(), String::new())
        };
        let path = |end: &str| format!("/etc/systemd/system/{name}.{end}");
        let calendars = &self.on_calendar.0;
        let check = calendars.iter().fold(Script::sh("systemd-analyze calendar --", &[]), |script, time| script.then(" {}", &[time]));
        Ok(vec![Box::new(UnitSet {
            kind: Self::NAME,
            unit: format!("{name}.timer"),
            files: vec![(path("service"), Text::plain(service)), (path("timer"), Text::plain(timer))],
            name,
            presence: self.state,
            enabled: Some(true),
            running: Some(true),
            // A running timer reads its times only when it starts.
            restart: true,
            check: (!calendars.is_empty()).then(|| check.then(" >/dev/null\n", &[])),
        })])
    }
}

impl Timer {
    fn check(&self) -> Result<(), BuildError> {
        let command = self.command.as_deref().unwrap_or_default();
        if !command.trim_start_matches(['-', '@', ':', '+', '!']).starts_with('/') {
            return Err(BuildError::field("command", "`command` must begin with a program's absolute path")
                .hint("for shell code write `/bin/sh -c '...'`"));
        }
        if self.on_calendar.0.is_empty() && self.on_boot.is_none() && self.every.is_none() {
            return Err(BuildError::field("on_calendar", "`on_calendar`, `on_boot` or `every` is needed"));
        }
        Ok(())
    }

    fn service(&self) -> Result<String, BuildError> {
        let description = self.description.as_deref().unwrap_or(&self.name);
        let mut out = Section::new("Unit");
        out.line("description", "Description", description)?;
        out.section("Service");
        out.line("command", "Type", "oneshot")?;
        out.line("command", "ExecStart", self.command.as_deref().unwrap_or_default())?;
        if let Some(user) = &self.user {
            out.line("user", "User", &user.0)?;
        }
        if let Some(timeout) = &self.timeout {
            out.line("timeout", "TimeoutStartSec", timeout)?;
        }
        for (name, value) in &self.environment {
            check_name("environment", "variable", name, "_")?;
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
            out.line("environment", "Environment", &format!("\"{name}={value}\""))?;
        }
        for (name, value) in &self.service_options {
            check_name("service_options", "setting", name, "")?;
            out.line("service_options", name, value)?;
        }
        Ok(out.0)
    }

    fn timer(&self, name: &str) -> Result<String, BuildError> {
        let description = self.description.as_deref().unwrap_or(name);
        let mut out = Section::new("Unit");
        out.line("description", "Description", description)?;
        out.section("Timer");
        for time in &self.on_calendar.0 {
            out.line("on_calendar", "OnCalendar", time)?;
        }
        let spans = [
            ("on_boot", "OnBootSec", &self.on_boot),
            ("every", "OnUnitActiveSec", &self.every),
            ("randomized_delay", "RandomizedDelaySec", &self.randomized_delay),
        ];
        for (field, key, value) in spans {
            if let Some(value) = value {
                out.line(field, key, value)?;
            }
        }
        if !self.on_calendar.0.is_empty() {
            out.line("persistent", "Persistent", if self.persistent { "true" } else { "false" })?;
        }
        out.section("Install");
        out.line("name", "WantedBy", "timers.target")?;
        Ok(out.0)
    }
}

/// A unit file under construction.
struct Section(String);

impl Section {
    fn new(name: &str) -> Self {
        Self(format!("# Managed by soc-provision.\n[{name}]\n"))
    }

    fn section(&mut self, name: &str) {
        self.0.extend(["\n[", name, "]\n"]);
    }

    fn line(&mut self, field: &str, key: &str, value: &str) -> Result<(), BuildError> {
        if value.chars().any(char::is_control) || value.ends_with('\\') {
            return Err(BuildError::field(field, format!("`{field}` must be one line")));
        }
        self.0.extend([key, "=", value, "\n"]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Claim;
    use crate::resource::testing::{Bench, absent};

    #[test]
    fn two_files_and_a_running_timer() {
        let bench = Bench::default();
        let resource = bench.build(Timer::EXAMPLE);
        let plan = bench.plan(&*resource, &absent(&*resource)).unwrap();
        let titles: Vec<&str> = plan.steps.iter().map(|step| step.title.as_str()).collect();
        assert_eq!(titles.len(), 5, "{titles:?}");
        assert_eq!(titles[4], "systemctl start aide-check.timer");
        let text = plan.steps[1].script.shown();
        assert!(text.contains("OnCalendar=*-*-* 04:10:00\nRandomizedDelaySec=30min\nPersistent=true\n"), "{text}");
        assert!(plan.validate.unwrap().shown().contains("'*-*-* 04:10:00'"));
        assert!(resource.claims().contains(&Claim::Timer("aide-check.timer".into())));
        let gone = bench.build("timer: {name: aide-check, state: absent}");
        assert!(bench.plan(&*gone, &absent(&*gone)).unwrap().is_in_sync());
    }

    #[test]
    fn lines_cannot_be_smuggled_in() {
        let bench = Bench::default();
        let bad = |field: &str, value: &str| {
            let mut task = serde_json::json!({ "name": "x", "command": "/bin/true", "on_calendar": "daily" });
            task[field] = value.into();
            bench.try_build(&serde_json::json!({ "timer": task }).to_string()).unwrap_err().field
        };
        assert_eq!(bad("command", "/bin/true\nUser=root").as_deref(), Some("command"));
        assert_eq!(bad("command", "true").as_deref(), Some("command"));
        assert_eq!(bad("on_calendar", "daily\n[Service]").as_deref(), Some("on_calendar"));
        assert!(bench.try_build("timer: {name: x, command: /bin/true}").is_err());
    }
}
