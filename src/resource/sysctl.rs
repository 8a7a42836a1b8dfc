//! A kernel setting: its value at run time and in a file of its own under `/etc/sysctl.d`, both
//! compared. Leaves modules to `kernel_module`.

use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::observe::View;
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Question, Resource, ResourceId, Severity};
use crate::secret::sha256;
use crate::shell::Script;

/// A kernel setting.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SysctlSpec {
    /// The dotted name, such as `vm.max_map_count`.
    name: String,
    /// The value; numbers may stand without quotes.
    value: Option<serde_json::Value>,
    /// `present`, or `absent`: the file goes, the value at run time stays.
    #[serde(default)]
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    Present,
    Absent,
}

impl Kind for SysctlSpec {
    const NAME: &'static str = "sysctl";
    const EXAMPLE: &'static str = "sysctl:\n  name: vm.max_map_count\n  value: 262144\n";

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        if !self.name.contains('.') || self.name.contains("..") || !self.name.chars().all(fine) {
            return Err(BuildError::field("name", format!("`{}` is not the name of a kernel setting", self.name.escape_debug())));
        }
        let value = match (&self.value, self.state) {
            (Some(serde_json::Value::String(text)), _) => text.split_whitespace().collect::<Vec<_>>().join(" "),
            (Some(serde_json::Value::Number(number)), _) => number.to_string(),
            (Some(serde_json::Value::Bool(flag)), _) => u8::from(*flag).to_string(),
            (None, State::Absent) => String::new(),
            _ => return Err(BuildError::field("value", "a number or text is needed")),
        };
        Ok(vec![Box::new(Sysctl { name: self.name, value, absent: self.state == State::Absent })])
    }
}

/// A kernel setting; for composites too.
#[derive(Debug)]
pub struct Sysctl {
    name: String,
    value: String,
    absent: bool,
}

impl Sysctl {
    fn file(&self) -> String {
        format!("/etc/sysctl.d/60-soc-provision-{}.conf", self.name.replace(['/', '.'], "-"))
    }

    fn content(&self) -> String {
        format!("{} = {}\n", self.name, self.value)
    }
}

impl Resource for Sysctl {
    fn id(&self) -> ResourceId {
        ResourceId::new("sysctl", &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        vec![Question::Sysctl(self.name.clone()), Question::Digest(self.file())]
    }

    fn severity(&self) -> Severity {
        if self.name.starts_with("net.") || self.name.starts_with("kernel.") { Severity::Security } else { Severity::Config }
    }

    fn claims(&self) -> Vec<Claim> {
        if self.absent { Vec::new() } else { vec![Claim::Path(self.file())] }
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let on_disk = view.digest(&self.file())?;
        if self.absent {
            let gone = Plan::default().change(Change::remove("file", self.file())).step(Step::new("remove the setting", Script::sh("rm -f -- {}", &[&self.file()])));
            return Ok(if on_disk.is_some() { gone } else { Plan::in_sync() });
        }
        let running = view.sysctl(&self.name)?;
        let Some(running) = running else {
            return Err(Undecided::Refused(format!("the host's kernel has no setting `{}`", self.name)));
        };
        let now = running.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut plan = Plan::default();
        if now != self.value {
            plan.changes.push(Change::of("value", &now, &self.value));
        }
        if on_disk.is_none_or(|digest| *digest != sha256(self.content().as_bytes())) {
            plan.changes.push(Change::of("on disk", if on_disk.is_some() { "another value" } else { "absent" }, &self.value));
        }
        if plan.changes.is_empty() {
            return Ok(plan);
        }
        let (file, path) = (self.file(), format!("/proc/sys/{}", self.name.replace('.', "/")));
        let temporary = format!("{file}.soc-new");
        let script = Script::sh(
            "printf '%s\\n' {} >{} || { echo 'the kernel does not take this value' >&2; exit 1; }\numask 022; mkdir -p /etc/sysctl.d && printf %s {} >{} && sync {} && mv -fT -- {} {}",
            &[&self.value, &path, &self.content(), &temporary, &temporary, &temporary, &file],
        );
        plan.effects = vec![Effect::Sysctl(self.name.clone()), Effect::Path(file)];
        Ok(plan.step(Step::new(format!("set {}", self.name), script)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::observe::{Answer, Observations, Pending};
    use crate::secret::KeyedDigests;

    fn plan(running: Option<&str>, disk: Option<&str>) -> Result<Plan, Undecided> {
        let sysctl = Sysctl { name: "net.ipv4.ip_local_port_range".into(), value: "1024 65000".into(), absent: false };
        let mut seen = Observations::default();
        seen.insert(Question::Sysctl(sysctl.name.clone()), Answer::Line(running.map(str::to_owned)));
        seen.insert(Question::Digest(sysctl.file()), Answer::Digest(disk.map(|text| sha256(text.as_bytes()))));
        sysctl.plan(&View::new(&Facts::default(), &KeyedDigests::default(), &seen, &Pending::default()))
    }

    #[test]
    fn both_places_are_compared() {
        let content = "net.ipv4.ip_local_port_range = 1024 65000\n";
        assert!(plan(Some("1024\t65000"), Some(content)).unwrap().is_in_sync());
        assert_eq!(plan(Some("1 2"), Some(content)).unwrap().changes.len(), 1);
        assert_eq!(plan(Some("1024\t65000"), None).unwrap().changes.len(), 1);
        assert!(matches!(plan(None, None), Err(Undecided::Refused(_))));
    }
}
