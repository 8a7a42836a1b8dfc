//! `sysctl`: a kernel setting, now and after a reboot.
//!
//! Reads the setting from `/proc/sys` and the digest of its file in `/etc/sysctl.d`, one file a
//! setting. A network setting that can cut the controller off is guarded: changed at run time,
//! confirmed by a new login, and only then written to its file.

pub(super) mod boot;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::facts::Facts;
use crate::resource::argument::{Presence, check_name};
use crate::resource::managed::{Body, ManagedFile, remove_file};
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Change, Effect, Guard, GuardKind, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Resource, ResourceId, Severity};
use crate::secret::Text;
use crate::shell::Script;

/// Sets a kernel parameter.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SysctlSpec {
    /// The setting's name: `vm.max_map_count`.
    #[serde(alias = "key")]
    name: String,
    /// Its value: text or a number.
    #[serde(default, deserialize_with = "scalar", alias = "val")]
    #[schemars(with = "Option<String>")]
    value: Option<String>,
    /// `absent` removes its file; the running kernel keeps the value until it restarts.
    #[serde(default)]
    state: Presence,
}

/// A string, a number, or true and false as 1 and 0.
fn scalar<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => Ok(Some(text)),
        serde_json::Value::Number(number) => Ok(Some(number.to_string())),
        serde_json::Value::Bool(on) => Ok(Some(u8::from(on).to_string())),
        other => Err(de::Error::custom(format!("`{other}` is not a setting's value"))),
    }
}

/// Last parts of names that, wrongly set, drop the packets of the login.
const CUTTING: &[&str] =
    &["disable_ipv6", "accept_ra", "forwarding", "ip_forward", "rp_filter", "arp_filter", "arp_ignore", "arp_announce"];

/// Beginnings and last parts of names that protect the host.
const PROTECTING: &[&str] = &[
    "kernel.kptr",
    "kernel.dmesg",
    "kernel.yama",
    "kernel.unprivileged",
    "kernel.randomize",
    "kernel.kexec",
    "kernel.perf",
    "fs.protected",
    "fs.suid",
    "net.",
    "dev.tty",
    "user.max",
];

impl Kind for SysctlSpec {
    const NAME: &'static str = "sysctl";
    const EXAMPLE: &'static str = "sysctl:
  name: vm.max_map_count
  value: 262144
";

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        check_name("name", "kernel setting", &self.name, "_-./:@")?;
        if self.name.split(['.', '/']).any(str::is_empty) {
            return Err(BuildError::field("name", format!("`{}` is not the name of a kernel setting", self.name)));
        }
        let value = self.value.as_deref().map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "));
        if self.state == Presence::Present && value.is_none() {
            return Err(BuildError::field("value", "`value` is missing"));
        }
        if value.as_ref().is_some_and(|value| value.chars().any(char::is_control)) {
            return Err(BuildError::field("value", "a value is one line"));
        }
        let path = format!("/etc/sysctl.d/60-soc-provision-{}.conf", self.name.replace('/', "."));
        let value = value.filter(|_| self.state == Presence::Present);
        let late = format!("/etc/sysctl.d/zz-soc-provision-{}.conf", self.name.replace('/', "."));
        let file = |path: &str| {
            value.as_ref().map(|value| {
                let text = format!("# Managed by soc-provision.\n{} = {value}\n", self.name);
                ManagedFile { make_parent: true, ..ManagedFile::new(path, Body::Text(Text::plain(text))) }
            })
        };
        let (file, late_file) = (file(&path), file(&late));
        Ok(vec![Box::new(Setting { name: self.name, value, path, file, late, late_file })])
    }
}

/// One kernel setting.
#[derive(Debug)]
struct Setting {
    name: String,
    value: Option<String>,
    path: String,
    file: Option<ManagedFile>,
    /// The same again, under a name that comes after those of packages: made only where one of theirs
    /// would win.
    late: String,
    late_file: Option<ManagedFile>,
}

impl Setting {
    /// The setting's file under `/proc/sys`.
    fn proc(&self) -> String {
        crate::resource::interview::sysctl_path(&self.name)
    }

    /// A file that has its way at boot with another value than the declared one.
    fn overridden(&self, view: &View<'_>, wanted: &str) -> Result<Option<Plan>, Undecided> {
        let Some((path, value)) = boot::winner(&view.raw(&boot::question())?.stdout, &self.name) else { return Ok(None) };
        let change = Change::of("at boot", format!("{value}, by {path}"), wanted);
        match &self.late_file {
            // What is in our own file is compared as a file.
            _ if path == self.path => return Ok(None),
            Some(late) if path == self.late => return late.plan(view).map(Some),
            _ if value == wanted => return Ok(None),
            // Packages' files stay as they are.
            Some(late) if path.starts_with("/usr/lib/") => {
                let plan = late.plan(view)?;
                return Ok(Some(Plan { changes: vec![change], ..plan }));
            }
            _ => {}
        }
        let step = Step::new(format!("silence {} in {path}", self.name), boot::silence(&path, &self.name));
        Ok(Some(Plan::in_sync().change(change).step(step).effect(Effect::Path(path))))
    }

    fn guard(&self, persist: Option<Script>) -> Option<Guard> {
        let last = self.name.rsplit(['.', '/']).next().unwrap_or_default();
        if !self.name.starts_with("net") || !CUTTING.contains(&last) {
            return None;
        }
        let proc = self.proc();
        let saved = format!("sysctl-{}", self.name.replace('/', "."));
        Some(Guard {
            what: format!("kernel setting {}", self.name),
            window: Duration::from_secs(60),
            kind: GuardKind::Runtime {
                save: Script::sh("cat -- {} >\"$GUARD\"/{}\n", &[&proc, &saved]),
                revert: Script::sh("cat -- \"$GUARD\"/{} >{}\n", &[&saved, &proc]),
                persist: persist.unwrap_or_default(),
            },
            handlers: true,
            hint: format!("the host cannot be reached with {} = {}", self.name, self.value.as_deref().unwrap_or_default()),
        })
    }
}

impl Resource for Setting {
    fn id(&self) -> ResourceId {
        ResourceId::new(SysctlSpec::NAME, &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        match &self.file {
            Some(file) => {
                let late = self.late_file.iter().flat_map(ManagedFile::questions);
                file.questions().into_iter().chain(late).chain([Question::Sysctl(self.name.clone()), boot::question()]).collect()
            }
            None => vec![Question::Path(self.path.clone()), Question::Path(self.late.clone())],
        }
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let (Some(file), Some(wanted)) = (&self.file, &self.value) else {
            return Ok(remove_file(view, &self.path)?.and(remove_file(view, &self.late)?));
        };
        let Some(seen) = view.sysctl(&self.name)? else {
            return Err(Undecided::Refused(format!(
                "the host's kernel has no setting `{}`: load the module that brings it with `kernel_module` before this task, or leave the setting out",
                self.name
            )));
        };
        let mut on_disk = file.plan(view)?;
        for change in &mut on_disk.changes {
            change.field = format!("on disk: {}", change.field);
        }
        if let Some(other) = self.overridden(view, wanted)? {
            on_disk = on_disk.and(other);
        }
        if seen == wanted {
            return Ok(on_disk);
        }
        // A value that the kernel does not take is an error of the write, shown as such.
        let set = Script::sh("printf '%s\\n' {} >{}\n", &[wanted, &self.proc()]);
        let mut plan = Plan::in_sync()
            .change(Change::of("value", seen, wanted))
            .step(Step::new(format!("set {} to {wanted}", self.name), set))
            .effect(Effect::Sysctl(self.name.clone()));
        let alone = |script: Script| Script::sh("( ", &[]).append(script).then(") || exit $?\n", &[]);
        let persist = on_disk.steps.iter().map(|step| step.script.clone()).reduce(|first, next| alone(first).append(alone(next)));
        plan.guard = self.guard(persist);
        if plan.guard.is_some() {
            on_disk.steps.clear();
        }
        Ok(plan.and(on_disk))
    }

    fn severity(&self) -> Severity {
        let protects = PROTECTING.iter().any(|start| self.name.starts_with(start));
        if protects { Severity::Security } else { Severity::Config }
    }

    fn claims(&self) -> Vec<Claim> {
        let setting = self.value.iter().map(|value| Claim::KernelSetting {
            name: boot::dotted(&self.name),
            value: value.clone(),
            path: self.path.clone(),
        });
        self.file.iter().chain(&self.late_file).map(|file| Claim::Path(file.path.clone())).chain(setting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::observe::Answer;
    use crate::resource::testing::{Bench, absent, run, shown};

    fn plan(yaml: &str, name: &str, value: Option<&str>) -> Result<Plan, Undecided> {
        let bench = Bench::default();
        let resource = bench.build(yaml);
        let mut observed = absent(&*resource);
        observed.insert(Question::Sysctl(name.into()), Answer::Line(value.map(str::to_owned)));
        bench.plan(&*resource, &observed)
    }

    #[test]
    fn now_and_on_disk() {
        let fresh = plan(SysctlSpec::EXAMPLE, "vm.max_map_count", Some("65530")).unwrap();
        let text = "on disk: content: - -> \"# Managed by soc-provision.\\nvm.max_map_count = 262144\\n\"";
        assert_eq!(shown(&fresh), ["value: 65530 -> 262144", text]);
        assert_eq!((fresh.steps.len(), fresh.guard.is_none()), (2, true));
        assert_eq!(plan(SysctlSpec::EXAMPLE, "vm.max_map_count", Some("262144")).unwrap().steps.len(), 1);
        assert!(matches!(plan(SysctlSpec::EXAMPLE, "vm.max_map_count", None), Err(Undecided::Refused(_))));
        let range = "sysctl: {name: net.ipv4.ip_local_port_range, value: \"1024   65000\"}";
        assert_eq!(plan(range, "net.ipv4.ip_local_port_range", Some("1024 65000")).unwrap().changes.len(), 1);
        for wrong in ["name: a..b, value: 1", "name: a.b", "name: \"a b\", value: 1", "name: ../x, value: 1", "name: a.b, value: []"] {
            assert!(Bench::default().try_build(&format!("sysctl: {{{wrong}}}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_wins_at_boot_is_told_and_overcome() {
        let bench = Bench::default();
        let resource = bench.build(SysctlSpec::EXAMPLE);
        let mut observed = absent(&*resource);
        observed.insert(Question::Sysctl("vm.max_map_count".into()), Answer::Line(Some("262144".into())));
        let mut told = |listing: &str| {
            crate::resource::testing::raw(&mut observed, &*resource, "sysctl-files", 0, listing);
            let plan = bench.plan(&*resource, &observed).unwrap();
            (
                shown(&plan).into_iter().filter(|line| line.starts_with("at boot")).collect::<Vec<_>>(),
                plan.steps.last().unwrap().script.shown(),
            )
        };
        let (changes, script) = told("/usr/lib/sysctl.d/99-p.conf\n/usr/lib/sysctl.d/99-p.conf:vm.max_map_count=1\n");
        assert_eq!(changes, ["at boot: 1, by /usr/lib/sysctl.d/99-p.conf -> 262144"]);
        assert!(script.contains("/etc/sysctl.d/zz-soc-provision-vm.max_map_count.conf"), "{script}");
        let (changes, script) = told("/run/sysctl.d/99-p.conf\n/run/sysctl.d/99-p.conf:vm.max_map_count=1\n");
        assert_eq!(changes, ["at boot: 1, by /run/sysctl.d/99-p.conf -> 262144"]);
        assert!(script.contains("sed -E"), "{script}");
        assert_eq!(told("/run/sysctl.d/99-p.conf\n/run/sysctl.d/99-p.conf:vm.max_map_count=262144\n").0, Vec::<String>::new());
    }

    #[test]
    fn what_can_cut_the_login_is_confirmed_before_it_is_written() {
        let plan =
            plan("sysctl: {name: net.ipv6.conf.all.disable_ipv6, value: true}", "net.ipv6.conf.all.disable_ipv6", Some("0")).unwrap();
        assert_eq!(plan.steps.len(), 1);
        let Some(Guard { kind: GuardKind::Runtime { save, persist, .. }, .. }) = plan.guard else { panic!() };
        assert!(save.shown().contains("/proc/sys/net/ipv6/conf/all/disable_ipv6"));
        assert!(persist.shown().contains("/etc/sysctl.d/60-soc-provision-net.ipv6.conf.all.disable_ipv6.conf"));
    }

    /// Sets a harmless setting to the value that it has.
    #[test]
    fn the_write_works_for_real() {
        let now = std::fs::read_to_string("/proc/sys/kernel/printk_ratelimit").unwrap();
        let yaml = format!("sysctl: {{name: kernel.printk_ratelimit, value: {}}}", now.trim());
        let plan = plan(&yaml, "kernel.printk_ratelimit", Some("0 0")).unwrap();
        let (status, _, stderr) = run(&plan.steps[0].script, &crate::secret::Vault::default());
        if stderr.contains("Read-only") || stderr.contains("ermission") {
            eprintln!("skipped: kernel settings cannot be written here");
            return;
        }
        assert_eq!((status, stderr.as_str()), (0, ""));
        assert_eq!(std::fs::read_to_string("/proc/sys/kernel/printk_ratelimit").unwrap(), now);
    }
}
