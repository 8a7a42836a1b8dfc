//! `systemd_unit`: a unit's file and drop-ins in `/etc/systemd/system`, and whether the unit runs.
//!
//! Reads the files' digests and the unit. Tells systemd to read its files again when they changed.
//! `service` is for units that something else brings; `timer` builds on the parts here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::{Presence, check_name};
use crate::resource::managed::{Body, ManagedFile, remove_file};
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Change, Effect, Plan, Undecided};
use crate::resource::service::{daemon_reload, switch, systemctl, unit_name};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Resource, ResourceId, Severity};
use crate::secret::Text;

/// Where an administrator's units are.
const DIRECTORY: &str = "/etc/systemd/system";

/// Declares a systemd unit.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SystemdUnit {
    /// The unit; `.service` may be left out.
    name: String,
    /// The unit file's content. Everybody on the host can read it, so it holds no secrets.
    #[serde(default)]
    content: Option<String>,
    /// A template in the role's `templates/`, instead of `content`.
    #[serde(default)]
    src: Option<String>,
    /// Drop-ins by name: `10-limits` is `NAME.d/10-limits.conf`.
    #[serde(default, alias = "drop_ins")]
    dropins: BTreeMap<String, String>,
    /// Whether it starts at boot.
    #[serde(default)]
    enabled: Option<bool>,
    /// `started` or `stopped`; `absent` stops and disables it and removes its files; `present`
    /// leaves it as it is.
    #[serde(default)]
    state: UnitRun,
    /// Restart the unit if its files change while it runs and `state` is `started`.
    #[serde(default)]
    restart_on_change: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum UnitRun {
    #[default]
    Present,
    Started,
    Stopped,
    Absent,
}

impl Kind for SystemdUnit {
    const NAME: &'static str = "systemd_unit";
    const EXAMPLE: &'static str = "systemd_unit:
  name: forwarder
  content: |
    [Unit]
    Description=Forwards events
    [Service]
    ExecStart=/usr/local/bin/forwarder
    DynamicUser=yes
    [Install]
    WantedBy=multi-user.target
  enabled: true
  state: started
";

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let unit = unit_name("name", &self.name)?;
        let text = match (self.content, self.src) {
            (Some(_), Some(_)) => return Err(BuildError::field("src", "`content` and `src` exclude each other")),
            (Some(content), None) => Some(Text::plain(content)),
            (None, Some(src)) => Some(context.sources.template(&src).map_err(|reason| BuildError::field("src", reason))?),
            (None, None) if self.dropins.is_empty() && self.state != UnitRun::Absent => {
                return Err(BuildError::field("content", "`content`, `src` or `dropins` is needed"));
            }
            (None, None) => None,
        };
        if let Some(secret) = text.as_ref().and_then(|text| text.secrets().into_iter().next()) {
            return Err(BuildError::field("src", format!("the secret `{secret}` would be readable by everybody on the host"))
                .hint("put it in a file with `mode: \"0600\"` and name that in `LoadCredential=`"));
        }
        let mut files: Vec<(String, Text)> = text.into_iter().map(|text| (format!("{DIRECTORY}/{unit}"), text)).collect();
        for (name, content) in self.dropins {
            check_name("dropins", "drop-in", &name, "_-.")?;
            let name = name.strip_suffix(".conf").unwrap_or(&name);
            files.push((format!("{DIRECTORY}/{unit}.d/{name}.conf"), Text::plain(content)));
        }
        let presence = if self.state == UnitRun::Absent { Presence::Absent } else { Presence::Present };
        if presence == Presence::Absent && files.is_empty() {
            files.push((format!("{DIRECTORY}/{unit}"), Text::default()));
        }
        let running = match self.state {
            UnitRun::Started => Some(true),
            UnitRun::Stopped => Some(false),
            UnitRun::Present | UnitRun::Absent => None,
        };
        let restart = self.restart_on_change && running == Some(true);
        let set =
            UnitSet { kind: Self::NAME, name: unit.clone(), unit, files, presence, enabled: self.enabled, running, restart, check: None };
        Ok(vec![Box::new(set)])
    }
}

/// Unit files that belong together, and the unit that is switched on or off.
#[derive(Debug)]
pub(super) struct UnitSet {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) unit: String,
    /// Paths and contents.
    pub(super) files: Vec<(String, Text)>,
    pub(super) presence: Presence,
    pub(super) enabled: Option<bool>,
    pub(super) running: Option<bool>,
    /// Restart a running unit whose files change.
    pub(super) restart: bool,
    /// What must accept the change before anything is done.
    pub(super) check: Option<crate::shell::Script>,
}

impl UnitSet {
    fn managed(&self) -> impl Iterator<Item = ManagedFile> + '_ {
        self.files.iter().map(|(path, text)| ManagedFile { make_parent: true, ..ManagedFile::new(path.clone(), Body::Text(text.clone())) })
    }

    fn remove(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let seen = view.unit(&self.unit)?;
        let mut files = Plan::in_sync();
        for (path, _) in &self.files {
            files = files.and(remove_file(view, path)?);
        }
        if files.is_in_sync() {
            return Ok(files);
        }
        let unit_file = self.files.iter().any(|(path, _)| !path.contains(".d/"));
        let off = if unit_file && seen.is_some() { switch(&self.unit, seen, Some(false), Some(false)) } else { Plan::in_sync() };
        Ok(off.and(files).step(daemon_reload()).effect(Effect::Unit(self.unit.clone())))
    }
}

impl Resource for UnitSet {
    fn id(&self) -> ResourceId {
        ResourceId::new(self.kind, &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        self.managed().flat_map(|file| file.questions()).chain([Question::Unit(self.unit.clone())]).collect()
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        if !view.facts.has_systemd() {
            return Err(Undecided::Refused(format!("`{}` cannot be managed: the host does not run systemd", self.unit)));
        }
        if self.presence == Presence::Absent {
            return self.remove(view);
        }
        let mut plan = Plan::in_sync();
        for file in self.managed() {
            let mut part = file.plan(view)?;
            for change in &mut part.changes {
                change.field = format!("{} {}", file.path.rsplit('/').next().unwrap_or_default(), change.field);
            }
            plan = plan.and(part);
        }
        let changed = !plan.is_in_sync();
        // The unit is what the files here make it, so its absence is no riddle.
        let seen = match view.unit(&self.unit) {
            Err(Undecided::After(_)) if self.files.iter().any(|(path, _)| !path.contains(".d/")) => None,
            other => other?,
        };
        let stale = seen.is_some_and(|seen| seen.needs_reload);
        // A link to /dev/null in place of our own file goes when the file is written.
        if !changed && seen.is_some_and(|seen| seen.load == "masked") {
            return Err(Undecided::Refused(format!("`{}` is masked: unmask it with `service` and `masked: false`", self.unit)));
        }
        if stale && !changed {
            plan = plan.change(Change::of("unit file", "changed on disk", "read"));
        }
        if changed || stale {
            plan = plan.step(daemon_reload());
        }
        let active = seen.is_some_and(|seen| seen.active == "active");
        plan = plan.and(switch(&self.unit, seen, self.enabled, self.running));
        if changed && active && self.restart {
            plan = plan.change(Change::of("state", "active", "restarted")).step(systemctl("restart", &self.unit));
        }
        if plan.is_in_sync() {
            return Ok(plan);
        }
        plan.validate = self.check.clone().filter(|_| changed);
        Ok(plan.effect(Effect::Unit(self.unit.clone())))
    }

    fn severity(&self) -> Severity {
        Severity::Availability
    }

    fn claims(&self) -> Vec<Claim> {
        if self.presence == Presence::Absent {
            return Vec::new();
        }
        let timer =
            std::path::Path::new(&self.unit).extension().is_some_and(|kind| kind == "timer").then(|| Claim::Timer(self.unit.clone()));
        self.files.iter().map(|(path, _)| Claim::Path(path.clone())).chain(timer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::observe::{Answer, Observations, PathKind, PathState, UnitState};
    use crate::resource::testing::{Bench, absent, shown};
    use crate::secret::sha256;

    fn present(observed: &mut Observations, path: &str, content: &str) {
        let state = PathState {
            kind: PathKind::File,
            mode: 0o644,
            owner: "root".into(),
            group: "root".into(),
            uid: 0,
            gid: 0,
            size: 1,
            target: None,
            names: 1,
            marks: Vec::new(),
        };
        observed.insert(Question::Path(path.into()), Answer::Path(Some(state)));
        observed.insert(Question::Digest(path.into()), Answer::Digest(Some(sha256(content.as_bytes()))));
    }

    fn unit(active: &str, file: &str, needs_reload: bool) -> Answer {
        Answer::Unit(Some(UnitState {
            load: "loaded".into(),
            active: active.into(),
            file: file.into(),
            needs_reload,
            ..UnitState::default()
        }))
    }

    fn titles(plan: &Plan) -> Vec<&str> {
        plan.steps.iter().map(|step| step.title.as_str()).collect()
    }

    #[test]
    fn a_new_unit_is_written_read_enabled_and_started() {
        let bench = Bench::default();
        let resource = bench.build(SystemdUnit::EXAMPLE);
        let plan = bench.plan(&*resource, &absent(&*resource)).unwrap();
        let wanted = [
            "write /etc/systemd/system/forwarder.service",
            "systemctl daemon-reload",
            "systemctl enable forwarder.service",
            "systemctl start forwarder.service",
        ];
        assert_eq!(titles(&plan), wanted);
        assert!(plan.effects.contains(&Effect::Unit("forwarder.service".into())));
    }

    #[test]
    fn drop_ins_changes_and_removal() {
        let bench = Bench::default();
        let yaml = "systemd_unit: {name: x, content: new, dropins: {10-a: b}, state: started, restart_on_change: true}";
        let resource = bench.build(yaml);
        let mut observed = absent(&*resource);
        present(&mut observed, "/etc/systemd/system/x.service", "old");
        present(&mut observed, "/etc/systemd/system/x.service.d/10-a.conf", "b");
        observed.insert(Question::Unit("x.service".into()), unit("active", "enabled", false));
        let plan = bench.plan(&*resource, &observed).unwrap();
        assert_eq!(titles(&plan), ["write /etc/systemd/system/x.service", "systemctl daemon-reload", "systemctl restart x.service"]);
        present(&mut observed, "/etc/systemd/system/x.service", "new");
        assert!(bench.plan(&*resource, &observed).unwrap().is_in_sync());
        observed.insert(Question::Unit("x.service".into()), unit("active", "enabled", true));
        assert_eq!(shown(&bench.plan(&*resource, &observed).unwrap()), ["unit file: changed on disk -> read"]);
        let resource = bench.build("systemd_unit: {name: x, state: absent}");
        let wanted =
            ["systemctl disable x.service", "systemctl stop x.service", "remove /etc/systemd/system/x.service", "systemctl daemon-reload"];
        assert_eq!(titles(&bench.plan(&*resource, &observed).unwrap()), wanted);
        assert!(bench.plan(&*resource, &absent(&*resource)).unwrap().is_in_sync());
        assert!(bench.try_build("systemd_unit: {name: x}").is_err());
    }
}
