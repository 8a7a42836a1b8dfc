//! The Docker daemon's configuration and the daemon that runs with it: `daemon.json` validated,
//! swapped, the daemon restarted (or told to reload) and asked, or the old file put back. What
//! users write is `composite/docker_engine.rs`; installing Docker is the packages' business.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::facts::Facts;
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{Claim, Question, Resource, ResourceId, Severity, View};
use crate::secret::{Text, sha256};
use crate::shell::Script;

/// The daemon's configuration.
pub const FILE: &str = "/etc/docker/daemon.json";
/// SHA-256 of the configuration that the running daemon was started with.
const APPLIED: &str = "/var/lib/soc-provision/docker/applied";
/// Where whoever may write is as good as root.
const SOCKET: &str = "/run/docker.sock";
const UNIT: &str = "docker.service";
/// Keys that dockerd takes over on SIGHUP (its documentation, "configuration reload behavior").
const RELOADABLE: &[&str] = &[
    "authorization-plugins",
    "debug",
    "default-runtime",
    "features",
    "insecure-registries",
    "labels",
    "live-restore",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "registry-mirrors",
    "runtimes",
    "shutdown-timeout",
];

/// The daemon with its configuration.
#[derive(Debug)]
pub struct DockerDaemon {
    /// The content of `daemon.json`.
    pub config: Map<String, Value>,
    /// User namespaces may be switched on or off although there is data, which then is out of sight.
    pub allow_remap_change: bool,
    /// Packages of another source, with which Docker must not be mixed.
    pub foreign: Vec<String>,
    /// Said in every plan.
    pub notes: Vec<String>,
}

impl DockerDaemon {
    /// The file as it is written.
    #[must_use]
    pub fn text(&self) -> String {
        let sorted: std::collections::BTreeMap<_, _> = self.config.iter().collect();
        serde_json::to_string_pretty(&sorted).unwrap_or_default() + "\n"
    }

    fn remap(&self) -> Option<&str> {
        self.config.get("userns-remap").and_then(Value::as_str).filter(|user| !user.is_empty())
    }

    /// Why the change of user namespaces must not be made.
    fn remap_conflicts(&self, info: &Value, containers: &[Value]) -> Vec<String> {
        let on = security_options(info).any(|option| option.contains("name=userns"));
        if on == self.remap().is_some() {
            return Vec::new();
        }
        let mut reasons = Vec::new();
        let count = |key: &str| info.get(key).and_then(Value::as_u64).unwrap_or(0);
        if count("Images") + count("Containers") > 0 && !self.allow_remap_change {
            reasons.push(format!(
                "`userns-remap` would be switched {} on a host with {} images and {} containers: Docker keeps separate data for each, so all of them, and all volumes, would be out of sight; decide it at the first installation, or say `allow_remap_change: true`",
                if on { "off" } else { "on" },
                count("Images"),
                count("Containers")
            ));
        }
        if !on {
            reasons.extend(containers.iter().filter_map(remap_conflict));
        }
        reasons
    }

    /// Whether what differs needs only a signal.
    fn reloads(&self, old: Option<&[u8]>) -> bool {
        let Some(old) = old.and_then(|bytes| serde_json::from_slice::<Map<String, Value>>(bytes).ok()) else { return false };
        let keys: BTreeSet<&String> = old.keys().chain(self.config.keys()).collect();
        keys.into_iter().filter(|key| old.get(*key) != self.config.get(*key)).all(|key| RELOADABLE.contains(&key.as_str()))
    }

    fn swap(&self, old: Option<&String>, reload: bool) -> Step {
        let text = self.text();
        let live = self.config.get("live-restore").and_then(Value::as_bool) == Some(true);
        let script = Script::sh(
            "file={} applied={} old={} new={} how={} live={}\n",
            &[
                FILE,
                APPLIED,
                old.map_or("", String::as_str),
                &sha256(text.as_bytes()),
                if reload { "reload" } else { "restart" },
                if live { "true" } else { "" },
            ],
        )
        .then("umask 022; mkdir -p /etc/docker \"${applied%/*}\" || exit 1\n", &[])
        .payload(&Text::plain(text))
        .then(" >\"$file.soc-new\" || exit 1\n", &[])
        .then(SWAP, &[]);
        let title = if reload { "have Docker reload its configuration" } else { "restart Docker with its configuration" };
        Step::new(title, script).deadline(Duration::from_secs(420)).surviving()
    }
}

/// Replaces the file and restarts; goes back if the daemon does not answer, or not as told.
const SWAP: &str = r#"sum() { if [ -f "$1" ]; then sha256sum <"$1" | cut -d' ' -f1; fi; }
[ "$(sum "$file.soc-new")" = "$new" ] || { echo "what arrived is not what was sent" >&2; exit 1; }
now=$(sum "$file")
[ "$now" = "$old" ] || [ "$now" = "$new" ] || { rm -f "$file.soc-new"; echo "$file is not what it was when the plan was made" >&2; exit 97; }
PATH=$PATH:/usr/sbin:/sbin
command -v dockerd >/dev/null || { rm -f "$file.soc-new"; echo "dockerd is not installed" >&2; exit 1; }
if ! said=$(dockerd --validate --config-file "$file.soc-new" 2>&1); then
  rm -f "$file.soc-new"; printf 'the configuration is not valid: %s\n' "$said" >&2; exit 95
fi
keep=${applied%/*}/daemon.json.before
if [ "$now" != "$new" ]; then
  rm -f "$keep"; [ -z "$now" ] || cp -p "$file" "$keep" || exit 1
fi
chmod 0644 "$file.soc-new" && sync "$file.soc-new" && mv -f "$file.soc-new" "$file" || exit 1
answers() {
  n=0
  while [ $n -lt 60 ]; do
    if [ "$(docker info -f '{{.LiveRestoreEnabled}}' 2>/dev/null)" = "${live:-false}" ]; then return 0; fi
    systemctl is-failed --quiet docker.service && return 1
    n=$((n + 1)); sleep 1
  done
  return 1
}
again() {
  systemctl reset-failed docker.service docker.socket 2>/dev/null
  systemctl enable --quiet docker.service containerd.service 2>/dev/null
  timeout 150 systemctl "$1" docker.service
}
if systemctl is-active --quiet docker.service; then :; else how=restart; fi
if again "$how" && answers; then echo "$new" >"$applied"; exit 0; fi
{ echo "Docker does not come up with the new configuration:"; journalctl -u docker.service -n 15 --no-pager -o cat 2>/dev/null; } >&2
[ "$now" != "$new" ] || exit 1
if [ -f "$keep" ]; then cp -p "$keep" "$file.soc-new" && mv -f "$file.soc-new" "$file"; else rm -f "$file"; fi
live=; if grep -q '"live-restore" *: *true' "$file" 2>/dev/null; then live=true; fi
if again restart && answers; then echo "the old configuration is back and Docker answers" >&2; exit 96; fi
echo "the old configuration is back, but Docker does not answer" >&2
exit 1
"#;

impl Resource for DockerDaemon {
    fn id(&self) -> ResourceId {
        ResourceId::new("docker_daemon", FILE)
    }

    fn questions(&self, _facts: &Facts) -> Vec<Question> {
        let mut out = vec![
            Question::Path(SOCKET.to_owned()),
            Question::Unit(UNIT.to_owned()),
            Question::Digest(FILE.to_owned()),
            Question::Content(FILE.to_owned()),
            Question::Content(APPLIED.to_owned()),
            Question::DockerInfo,
            Question::Containers,
        ];
        out.extend(self.foreign.iter().cloned().map(Question::Package));
        out
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        for name in &self.foreign {
            if view.package(name)?.is_some_and(|state| state.abbrev.starts_with("ii")) {
                return Err(Undecided::Refused(format!(
                    "package `{name}` is installed, and Docker from another source conflicts with it: keep that source, or remove the package (containers stop, data stays) and apply again"
                )));
            }
        }
        let mut plan = Plan { notes: self.notes.clone(), ..Plan::default() };
        let wanted = sha256(self.text().as_bytes());
        let old = view.digest(FILE)?;
        let content = view.content(FILE)?.map(Vec::as_slice);
        let info = view.docker_info()?;
        let mut reload = info.is_some() && self.reloads(content);
        if old != Some(&wanted) {
            plan = plan.change(Change::content(FILE, old.is_some(), Text::plain(self.text())));
        }
        match info {
            None => {
                plan = plan.change(Change::of("docker", "not running", "running"));
            }
            Some(info) => {
                let reasons = self.remap_conflicts(info, view.containers()?);
                if !reasons.is_empty() {
                    return Err(Undecided::Refused(reasons.join("\n- ")));
                }
                let applied = view.content(APPLIED)?.map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
                let differing = self.running_differs(info);
                if old == Some(&wanted) && (applied.as_ref() != Some(&wanted) || !differing.is_empty()) {
                    reload = false;
                    plan = plan.change(Change::of(
                        "running configuration",
                        differing.first().map_or("older than the file", String::as_str),
                        "as in the file",
                    ));
                }
                let live = info.get("LiveRestoreEnabled").and_then(Value::as_bool) == Some(true);
                let running = info.get("ContainersRunning").and_then(Value::as_u64).unwrap_or(0);
                if !plan.changes.is_empty() && !live && !reload && running > 0 {
                    plan = plan.note(format!("{running} running containers stop while Docker restarts, since live-restore is not on yet"));
                }
            }
        }
        // Of a daemon that is still to come there is nothing to say yet.
        let lax = match Self::lax(view) {
            Err(Undecided::After(_)) => Plan::in_sync(),
            known => known?,
        };
        if plan.changes.is_empty() {
            return Ok(plan.and(lax));
        }
        let plan = plan.and(lax).step(self.swap(old, reload)).effect(Effect::Path(FILE.to_owned()));
        Ok(if reload { plan } else { plan.effect(Effect::Docker).effect(Effect::Unit("docker.service".to_owned())) })
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::Path(FILE.to_owned())]
    }
}

impl DockerDaemon {
    /// The daemon's socket open to everybody, who then is root; a daemon that the next boot leaves out.
    fn lax(view: &View<'_>) -> Result<Plan, Undecided> {
        let mut plan = Plan::in_sync();
        if let Some(socket) = view.path(SOCKET)?.filter(|socket| socket.mode & 0o007 != 0) {
            let (is, wanted) = (format!("{:04o}", socket.mode), format!("{:04o}", socket.mode & !0o007));
            let step = Step::new(format!("close {SOCKET}"), Script::sh("chmod o= -- {}\n", &[SOCKET]));
            plan = plan.change(Change::of(format!("{SOCKET} mode"), is, wanted)).step(step).effect(Effect::Path(SOCKET.to_owned()));
        }
        if view.unit(UNIT)?.is_some_and(|unit| matches!(unit.file.as_str(), "disabled" | "masked" | "masked-runtime")) {
            let enable = Script::sh("systemctl unmask -- {} 2>/dev/null; systemctl enable --quiet -- {} docker.socket\n", &[UNIT, UNIT]);
            plan = plan.change(Change::of("started at boot", "no", "yes")).step(Step::new(format!("enable {UNIT}"), enable));
            plan = plan.effect(Effect::Unit(UNIT.to_owned()));
        }
        Ok(plan)
    }

    /// What the daemon itself says that is not as configured, in words.
    fn running_differs(&self, info: &Value) -> Vec<String> {
        let mut out = Vec::new();
        let flag = |key: &str| self.config.get(key).and_then(Value::as_bool);
        let says = |key: &str| info.get(key).and_then(Value::as_bool).unwrap_or(false);
        if flag("live-restore").is_some_and(|wanted| wanted != says("LiveRestoreEnabled")) {
            out.push("live-restore is not as configured".to_owned());
        }
        if let Some(driver) = self.config.get("log-driver").and_then(Value::as_str)
            && info.get("LoggingDriver").and_then(Value::as_str).is_some_and(|running| running != driver)
        {
            out.push("the log driver is not as configured".to_owned());
        }
        let has = |name: &str| security_options(info).any(|option| option.contains(name));
        if flag("no-new-privileges").is_some_and(|wanted| wanted != has("name=no-new-privileges")) {
            out.push("no-new-privileges is not as configured".to_owned());
        }
        out
    }
}

/// No daemon's configuration, on a host that Docker leaves. What is in its data directory stays.
#[derive(Debug)]
pub struct AbsentDaemon;

impl Resource for AbsentDaemon {
    fn id(&self) -> ResourceId {
        ResourceId::new("docker_daemon", FILE)
    }

    fn questions(&self, _facts: &Facts) -> Vec<Question> {
        vec![Question::Path(FILE.to_owned()), Question::Containers]
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        // Stacks that go before it in the same run take their containers with them.
        if let Some(id) = view.pending(|effect| matches!(effect, Effect::Project(_))) {
            return Err(Undecided::After(id.clone()));
        }
        let name = |inspect: &Value| inspect.get("Name").and_then(Value::as_str).unwrap_or("?").trim_start_matches('/').to_owned();
        let names: Vec<String> = view.containers()?.iter().map(name).collect();
        if !names.is_empty() {
            return Err(Undecided::Refused(format!(
                "Docker is not taken away while it has containers ({}): remove their stacks first (`compose_stack` with `state: absent`)",
                names.join(", ")
            )));
        }
        if view.path(FILE)?.is_none() {
            return Ok(Plan::in_sync());
        }
        let step = Step::new(format!("remove {FILE}"), Script::sh("rm -f -- {} {} || exit 1\n", &[FILE, APPLIED]));
        Ok(Plan::in_sync().change(Change::remove("file", FILE)).step(step).effect(Effect::Path(FILE.to_owned())))
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }
}

fn security_options(info: &Value) -> impl Iterator<Item = &str> {
    info.get("SecurityOptions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Why a container cannot run with user namespaces; each was tried with Docker 26.
fn remap_conflict(inspect: &Value) -> Option<String> {
    let name = inspect.get("Name").and_then(Value::as_str).unwrap_or_default().trim_start_matches('/');
    let host = inspect.get("HostConfig")?;
    let text = |key: &str| host.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("UsernsMode") == "host" {
        return None;
    }
    let what = if host.get("Privileged").and_then(Value::as_bool) == Some(true) {
        "is privileged"
    } else if text("NetworkMode") == "host" {
        "uses the host's network"
    } else if text("PidMode") == "host" {
        "uses the host's processes"
    } else if host.get("Binds").is_some_and(|binds| binds.to_string().contains("docker.sock")) {
        "mounts docker.sock, which is not its root's under user namespaces"
    } else {
        return None;
    };
    Some(format!("container `{name}` {what}: with `userns-remap` it needs `userns_mode: host`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn daemon(config: Value) -> DockerDaemon {
        let Value::Object(config) = config else { unreachable!() };
        DockerDaemon { config, allow_remap_change: false, foreign: Vec::new(), notes: Vec::new() }
    }

    #[test]
    fn user_namespaces_are_decided_once() {
        let info = json!({"SecurityOptions": ["name=seccomp,profile=builtin"], "Images": 3, "Containers": 1});
        let containers = [
            json!({"Name": "/cadvisor", "HostConfig": {"Privileged": true}}),
            json!({"Name": "/zeek", "HostConfig": {"NetworkMode": "host", "UsernsMode": "host"}}),
        ];
        let reasons = daemon(json!({"userns-remap": "default"})).remap_conflicts(&info, &containers);
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert!(reasons[0].contains("3 images") && reasons[1].contains("`cadvisor` is privileged"));
        assert!(daemon(json!({})).remap_conflicts(&info, &containers).is_empty());
    }

    #[test]
    fn only_some_keys_are_reloaded() {
        let new = daemon(json!({"debug": true, "icc": false}));
        assert!(new.reloads(Some(br#"{"icc": false}"#)));
        assert!(!new.reloads(Some(br#"{"debug": true}"#)));
        assert!(!new.reloads(None));
    }

    #[test]
    fn the_swap_is_posix_sh() {
        let mut child = std::process::Command::new("sh").arg("-n").stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), SWAP.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}
