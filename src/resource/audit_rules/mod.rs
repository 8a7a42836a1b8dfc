//! The `audit_rules` kind: what the kernel records.
//!
//! It owns a file in `/etc/audit/rules.d`, the file that lets loading go on past a rule that cannot
//! be loaded, and a unit that loads the rules again once Docker is up. Whether a rule is loaded is
//! read from `auditctl -l` and nothing else: `augenrules --check` says "No change" after a load
//! that stopped half-way. It leaves alone auditd's own configuration and other rule files.

mod rule;

use std::collections::BTreeSet;

use crate::facts::Facts;
use crate::resource::argument::{IfMissing, Presence};
use crate::resource::audit_rules::rule::{Watch, check_key, check_line, normal};
use crate::resource::own_file::OwnFile;
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Question, Resource, ResourceId, Severity, View, source_text};
use crate::shell::Script;

/// Rules of the audit system, each verified as really loaded.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditRules {
    /// The rule file's name, and the key of watches that give none.
    name: String,
    /// Paths to watch for every access.
    #[serde(default)]
    paths: Vec<String>,
    /// Paths to watch, with permissions and keys of their own.
    #[serde(default)]
    watches: Vec<Watch>,
    /// Other rules, as `auditctl(8)` takes them.
    #[serde(default)]
    rules: Vec<String>,
    /// `absent` removes the file and its rules.
    #[serde(default)]
    state: Presence,
    /// On a host whose kernel has no audit system for it (a container): `fail`, or `warn` and go on.
    #[serde(default)]
    if_missing: IfMissing,
}

impl Kind for AuditRules {
    const NAME: &'static str = "audit_rules";
    const EXAMPLE: &'static str = "\
audit_rules:
  name: docker
  paths: [/etc/docker, /usr/bin/dockerd]
  watches: [{path: /etc/passwd, permissions: wa, key: identity}]
  rules: [\"-a always,exit -F arch=b64 -S mount -k mounts\"]
";

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        source_text::file_name(&self.name)?;
        check_key(&self.name).map_err(|message| BuildError::field("name", message))?;
        let mut lines = Vec::new();
        let mut watched = Vec::new();
        let paths = self.paths.iter().map(|path| Watch { path: path.clone(), permissions: rule::all_permissions(), key: None });
        for (index, watch) in paths.chain(self.watches.iter().cloned()).enumerate() {
            let field = if index < self.paths.len() { format!("paths[{index}]") } else { format!("watches[{}]", index - self.paths.len()) };
            watch.check().map_err(|message| BuildError::field(&field, message))?;
            lines.push(watch.line(&self.name));
            watched.push(watch.path);
        }
        for (index, line) in self.rules.iter().enumerate() {
            check_line(line).map_err(|message| BuildError::field(&format!("rules[{index}]"), message))?;
            lines.push(line.clone());
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = lines.iter().find(|line| !seen.insert(normal(line))) {
            return Err(BuildError::from(format!("`{twice}` is listed twice")));
        }
        let wanted = self.state == Presence::Present;
        if wanted && lines.is_empty() {
            return Err(BuildError::from("there are neither `paths` nor `watches` nor `rules`".to_owned()));
        }
        Ok(vec![Box::new(RuleSet { name: self.name, lines, watched, wanted, if_missing: self.if_missing })])
    }
}

/// One rule file on a host.
#[derive(Debug)]
struct RuleSet {
    name: String,
    lines: Vec<String>,
    /// Paths of watches.
    watched: Vec<String>,
    wanted: bool,
    if_missing: IfMissing,
}

const UNIT: &str = "soc-provision-audit-reload.service";

/// `-i`: without it, loading stops at the first rule that cannot be loaded, and at boot there
/// always is one: directories below `/run` are not there yet. It has to sort first.
fn go_on() -> OwnFile {
    OwnFile::readable("/etc/audit/rules.d/00-soc-provision.rules", "-i\n")
}

/// Loads the rules again when Docker has made its directories.
fn reload_unit() -> OwnFile {
    let content = "\
[Unit]
Description=Audit rules for what Docker creates when it starts (soc-provision)
Documentation=man:augenrules(8)
After=auditd.service audit-rules.service containerd.service docker.service
ConditionSecurity=audit

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/augenrules --load

[Install]
WantedBy=multi-user.target
";
    OwnFile::readable(format!("/etc/systemd/system/{UNIT}"), content)
}

/// What the probe printed.
#[derive(Debug, Default)]
struct Probed {
    missing: bool,
    /// `auditctl -s`: 0 off, 1 on, 2 locked until the next boot.
    enabled: Option<u8>,
    unit_enabled: bool,
    /// Watched paths whose parent directory is not on the host.
    no_parent: Vec<String>,
    loaded: BTreeSet<BTreeSet<String>>,
}

impl Probed {
    fn parse(output: &str) -> Self {
        let mut probed = Self::default();
        for line in output.lines() {
            if let Some(mark) = line.strip_prefix("##") {
                match mark.split_once(' ') {
                    None => probed.missing |= mark == "missing",
                    Some(("unit", state)) => probed.unit_enabled = state == "enabled",
                    Some(("enabled", value)) => probed.enabled = value.parse().ok(),
                    Some(("parent", path)) => probed.no_parent.push(path.to_owned()),
                    Some(_) => {}
                }
            } else if line.starts_with('-') {
                probed.loaded.insert(normal(line));
            }
        }
        probed
    }
}

impl RuleSet {
    fn file(&self) -> OwnFile {
        OwnFile { path: format!("/etc/audit/rules.d/50-soc-{}.rules", self.name), mode: 0o640, content: self.lines.join("\n") + "\n" }
    }

    fn question(&self) -> Question {
        let mut script = Script::sh(
            "export LC_ALL=C; PATH=$PATH:/usr/sbin\ncommand -v auditctl >/dev/null 2>&1 || { echo '##missing'; exit 0; }\nprintf '##unit %s\\n' \"$(systemctl is-enabled {} 2>/dev/null)\"\n",
            &[UNIT],
        );
        for path in &self.watched {
            script = script.then("p={}; [ -d \"${p%/*}/\" ] || printf '##parent %s\\n' \"$p\"\n", &[path]);
        }
        script = script.then("auditctl -s 2>/dev/null | while read -r k v _; do [ \"$k\" != enabled ] || printf '##enabled %s\\n' \"$v\"; done\nauditctl -l 2>/dev/null || :\n", &[]);
        Question::Raw { key: format!("audit_rules {}", self.name), script }
    }

    fn without_audit(&self) -> Result<Plan, Undecided> {
        let reason = format!(
            "the host's kernel records nothing for it (`auditctl -s` fails, as in a container): audit rules `{}` cannot be loaded",
            self.name
        );
        match self.if_missing {
            IfMissing::Warn => Ok(Plan::in_sync().note(reason)),
            IfMissing::Fail => Err(Undecided::Refused(format!("{reason}; set `if_missing: warn` to go on without"))),
        }
    }

    fn plan_present(&self, probed: &Probed, view: &View<'_>) -> Result<Plan, Undecided> {
        let mut plan = Plan::in_sync();
        let mut write = Script::new();
        for file in [go_on(), self.file(), reload_unit()] {
            let changes = file.changes(view)?;
            if !changes.is_empty() {
                write = write.append(file.write(view)?);
                plan.effects.push(Effect::Path(file.path));
            }
            plan.changes.extend(changes);
        }
        if !probed.unit_enabled {
            plan.changes.push(Change::of(format!("{UNIT} enabled"), "no", "yes"));
        }
        for line in &self.lines {
            let rule = normal(line);
            let unloadable = probed.no_parent.iter().find(|path| rule.contains(&format!("path={path}")));
            match unloadable {
                Some(path) => plan.notes.push(format!("`{path}` is not watched: the directory that it would be in is not on the host")),
                None if !probed.loaded.contains(&rule) => plan.changes.push(Change::add("loaded", line)),
                None => {}
            }
        }
        if plan.changes.is_empty() {
            return Ok(plan);
        }
        refuse_locked(probed)?;
        plan.effects.extend([Effect::Raw(format!("audit_rules {}", self.name)), Effect::Unit(UNIT.to_owned())]);
        let load = write.append(self.load());
        Ok(plan.step(Step::new(format!("load audit rules {}", self.name), load)))
    }

    /// Loads all rule files, and proves it by looking each watch of this one up.
    fn load(&self) -> Script {
        let mut script = Script::sh(
            "PATH=$PATH:/usr/sbin\nsystemctl daemon-reload && systemctl enable --quiet {} || exit 1\naugenrules --load >/dev/null || exit 1\nlist=$(auditctl -l) || exit 1\nrc=0\n",
            &[UNIT],
        );
        for path in &self.watched {
            script = script.then(
                "p={}; if [ -d \"${p%/*}/\" ]; then case $list in *\" $p \"*|*\"=$p \"*) ;; *) echo \"not loaded: watch on $p\" >&2; rc=1;; esac; fi\n",
                &[path],
            );
        }
        script.then("exit $rc\n", &[])
    }

    fn plan_absent(&self, probed: &Probed, view: &View<'_>) -> Result<Plan, Undecided> {
        let file = self.file();
        if view.path(&file.path)?.is_none() {
            return Ok(Plan::in_sync());
        }
        refuse_locked(probed)?;
        let script =
            file.remove().then("PATH=$PATH:/usr/sbin\n! command -v augenrules >/dev/null 2>&1 || augenrules --load >/dev/null\n", &[]);
        let plan = Plan::in_sync().change(Change::remove("file", &file.path)).step(Step::new(format!("remove {}", file.path), script));
        Ok(plan.effect(Effect::Path(file.path)).effect(Effect::Raw(format!("audit_rules {}", self.name))))
    }
}

fn refuse_locked(probed: &Probed) -> Result<(), Undecided> {
    // auditctl(8), `-e 2`.
    if probed.enabled == Some(2) {
        return Err(Undecided::Refused(
            "the audit rules are locked until the next boot (`-e 2` in a rule file): reboot the host, or take the lock out first"
                .to_owned(),
        ));
    }
    Ok(())
}

impl Resource for RuleSet {
    fn id(&self) -> ResourceId {
        ResourceId::new(AuditRules::NAME, &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let mut questions = vec![self.question(), Question::Package("auditd".to_owned())];
        questions.extend([go_on(), self.file(), reload_unit()].iter().flat_map(OwnFile::questions));
        questions
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let probed = Probed::parse(&view.raw(&self.question())?.stdout);
        if !self.wanted {
            return self.plan_absent(&probed, view);
        }
        if probed.missing {
            view.package("auditd")?;
            return Err(Undecided::Refused("`auditctl` is not on the host; install package `auditd` before its rules".to_owned()));
        }
        if probed.enabled.is_none() {
            return self.without_audit();
        }
        self.plan_present(&probed, view)
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        if !self.wanted {
            return Vec::new();
        }
        [go_on(), self.file(), reload_unit()].into_iter().map(|file| Claim::Path(file.path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::own_file::testing::{bare, plan, present};
    use crate::resource::source_text::testing::{build, refusal};

    fn docker() -> Box<dyn Resource> {
        build::<AuditRules>(serde_json::json!({
            "name": "docker", "paths": ["/etc/docker", "/etc/sysconfig/docker"], "rules": ["-a always,exit -F arch=b64 -S mount -k mounts"],
        }))
        .unwrap()
    }

    const LOADED: &str = "##unit enabled\n##parent /etc/sysconfig/docker\n##enabled 1\n-w /etc/docker -p rwxa -k docker\n-a always,exit -F arch=b64 -S mount -F key=mounts\n";
    const FILE: &str =
        "-w /etc/docker -p rwxa -k docker\n-w /etc/sysconfig/docker -p rwxa -k docker\n-a always,exit -F arch=b64 -S mount -k mounts\n";

    #[test]
    fn every_rule_is_looked_up_in_what_is_loaded() {
        let resource = docker();
        let with = |raw: &str| {
            let mut observed = bare(&*resource, raw);
            present(&mut observed, "/etc/audit/rules.d/50-soc-docker.rules", 0o640, FILE);
            present(&mut observed, &go_on().path, 0o644, "-i\n");
            present(&mut observed, &reload_unit().path, 0o644, &reload_unit().content);
            plan(&*resource, &observed)
        };
        let same = with(LOADED).unwrap();
        assert!(same.is_in_sync() && same.notes[0].contains("`/etc/sysconfig/docker` is not watched"), "{same:?}");
        let stopped = with("##unit enabled\n##enabled 1\n-w /etc/docker -p rwxa -k docker\n").unwrap();
        assert_eq!(stopped.changes.len(), 2, "{:?}", stopped.changes);
        let locked = with("##unit enabled\n##enabled 2\n");
        assert!(matches!(locked, Err(Undecided::Refused(reason)) if reason.contains("locked until the next boot")));
        assert_eq!(plan(&*resource, &bare(&*resource, LOADED)).unwrap().steps.len(), 1);
    }

    #[test]
    fn a_host_without_audit_fails_closed() {
        let resource = docker();
        assert!(
            matches!(plan(&*resource, &bare(&*resource, "##missing")), Err(Undecided::Refused(reason)) if reason.contains("install package"))
        );
        assert!(
            matches!(plan(&*resource, &bare(&*resource, "##unit \n")), Err(Undecided::Refused(reason)) if reason.contains("as in a container"))
        );
        let warn = build::<AuditRules>(serde_json::json!({ "name": "d", "paths": ["/etc"], "if_missing": "warn" })).unwrap();
        assert_eq!(plan(&*warn, &bare(&*warn, "##unit \n")).unwrap().notes.len(), 1);
    }

    #[test]
    fn mistakes_name_their_field() {
        assert!(refusal::<AuditRules>(serde_json::json!({ "name": "d", "paths": ["etc"] })).starts_with("paths[0]: "));
        assert!(
            refusal::<AuditRules>(serde_json::json!({ "name": "d", "paths": ["/a"], "watches": [{ "path": "/b", "permissions": "z" }] }))
                .starts_with("watches[0]: ")
        );
        assert!(refusal::<AuditRules>(serde_json::json!({ "name": "d", "paths": ["/a", "/a"] })).contains("listed twice"));
        assert!(refusal::<AuditRules>(serde_json::json!({ "name": "d" })).contains("neither"));
    }
}
