//! The hardening overlay of a stack and the lint that goes with it: what is added to services by
//! itself, what must not be there, and the exceptions, each with its reason.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::model::{Model, items};
use super::stack::binds;
use crate::diagnostic::nearest;

/// How much is asked of services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Everything: non-root, no capabilities, read-only root, limits, pinned tags.
    Strict,
    /// No new privileges, a limit of processes and of logs, and nothing that opens the host.
    #[default]
    Baseline,
    /// As written.
    Off,
}

/// A level as written; `off` without quotes is YAML's word for false.
///
/// # Errors
/// It is no level.
pub fn level<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Level, D::Error> {
    use serde::Deserialize as _;
    use serde::de::Error as _;
    match Value::deserialize(deserializer)? {
        Value::Bool(false) => Ok(Level::Off),
        other => Level::deserialize(other).map_err(D::Error::custom),
    }
}

/// What a service may do although the level forbids it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// Why; shown in every plan.
    pub reason: String,
    /// What, in the words of the refusal: `privileged`, `host-network`, `cap:NET_ADMIN`, `host-path:/sys`, ...
    pub allow: Vec<String>,
}

/// Words of exceptions; those that end in a colon are followed by a name.
const WORDS: &[&str] = &[
    "all-caps",
    "apparmor-unconfined",
    "cap:",
    "device:",
    "docker-socket",
    "host-ipc",
    "host-network",
    "host-path:",
    "host-pid",
    "host-userns",
    "latest",
    "new-privileges",
    "no-limits",
    "privileged",
    "root",
    "seccomp-unconfined",
    "writable-root",
];
/// Docker's default capabilities but for `NET_RAW`: a service may name them without an exception.
const PLAIN_CAPABILITIES: &[&str] =
    &["AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID"];
/// Directories of the host that give a container power over it, or sight of everything.
const HOST_PATHS: &[&str] = &[
    "/",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/usr",
    "/var",
    "/var/lib",
    "/var/lib/docker",
    "/var/run",
];
/// Processes that a container may have unless it says otherwise.
const PIDS: u64 = 512;

/// What one service violates: the word of the exception and a sentence.
type Findings = BTreeMap<String, String>;

/// Applies the overlay.
///
/// # Errors
/// What the level forbids and no exception allows; unknown services and words in exceptions.
pub fn harden(model: &mut Model, level: Level, exceptions: &BTreeMap<String, Exception>) -> Result<Vec<String>, Vec<String>> {
    let (mut notes, mut problems) = (Vec::new(), Vec::new());
    check_exceptions(model, exceptions, &mut problems);
    for (name, service) in model.services_mut() {
        let exception = exceptions.get(name);
        let allowed = |word: &str| exception.is_some_and(|exception| exception.allow.iter().any(|allowed| covers(allowed, word)));
        let findings = if level == Level::Off { Findings::new() } else { lint(service, level) };
        let mut used = BTreeSet::new();
        for (word, sentence) in findings {
            if allowed(&word) {
                used.insert(word);
            } else if level == Level::Baseline && matches!(word.as_str(), "root" | "latest" | "no-limits") {
                notes.push(format!("service `{name}` {sentence}"));
            } else {
                problems.push(format!("service `{name}` {sentence}: change it, or allow `{word}` in `exceptions.{name}` with a reason"));
            }
        }
        overlay(service, level, &allowed, &mut used);
        if let Some(exception) = exception.filter(|_| level != Level::Off) {
            // Whatever its profiles: seen in /proc/PID/status and /proc/PID/attr/current before and after a reboot.
            let unfiltered = if exception.allow.iter().any(|word| word == "privileged") {
                " (so Docker gives it no seccomp filter, and no AppArmor profile once it was restarted)"
            } else {
                ""
            };
            notes.push(format!("exception: service `{name}` has {}{unfiltered}: {}", exception.allow.join(", "), exception.reason));
            let idle = exception.allow.iter().filter(|allowed| !used.iter().any(|word| covers(allowed, word)));
            notes.extend(idle.map(|word| format!("exception `{word}` of service `{name}` is not needed")));
        }
    }
    if level == Level::Off {
        notes.push("hardening is off for this stack".to_owned());
    }
    if problems.is_empty() { Ok(notes) } else { Err(problems) }
}

fn covers(allowed: &str, word: &str) -> bool {
    allowed == word || allowed.strip_prefix("cap:CAP_").is_some_and(|cap| word.strip_prefix("cap:") == Some(cap))
}

fn check_exceptions(model: &Model, exceptions: &BTreeMap<String, Exception>, problems: &mut Vec<String>) {
    for (name, exception) in exceptions {
        if model.service(name).is_none() {
            let known = model.section("services").keys().map(String::as_str);
            let hint = nearest(name, known).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            problems.push(format!("exception for `{name}`, which is no service{hint}"));
        }
        if exception.reason.trim().is_empty() {
            problems.push(format!("the exception for `{name}` gives no reason"));
        }
        for word in &exception.allow {
            let fits = WORDS
                .iter()
                .any(|known| if known.ends_with(':') { word.starts_with(known) && word.len() > known.len() } else { word == known });
            if !fits {
                let hint = nearest(word, WORDS.iter().copied()).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                problems.push(format!("`{word}` in the exception for `{name}` is not something that can be allowed{hint}"));
            }
        }
    }
}

fn lint(service: &Map<String, Value>, level: Level) -> Findings {
    let mut out = Findings::new();
    let text = |key: &str| service.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut find = |word: &str, sentence: String| {
        out.insert(word.to_owned(), sentence);
    };
    if service.get("privileged").and_then(Value::as_bool) == Some(true) {
        find("privileged", "is privileged".to_owned());
    }
    for (key, word) in [("network_mode", "host-network"), ("pid", "host-pid"), ("ipc", "host-ipc"), ("userns_mode", "host-userns")] {
        if text(key) == "host" {
            find(word, format!("has `{key}: host`"));
        }
    }
    for option in items(service.get("security_opt")).iter().filter_map(Value::as_str) {
        match option.replace('=', ":").as_str() {
            "seccomp:unconfined" => find("seccomp-unconfined", "runs without a seccomp filter".to_owned()),
            "apparmor:unconfined" => find("apparmor-unconfined", "runs without an AppArmor profile".to_owned()),
            "no-new-privileges:false" => find("new-privileges", "may gain privileges".to_owned()),
            _ => {}
        }
    }
    for capability in items(service.get("cap_add")).iter().filter_map(Value::as_str) {
        let capability = capability.trim_start_matches("CAP_").to_uppercase();
        if !PLAIN_CAPABILITIES.contains(&capability.as_str()) {
            find(&format!("cap:{capability}"), format!("adds the capability {capability}"));
        }
    }
    for device in items(service.get("devices")) {
        let path = device.as_str().or_else(|| device.get("source").and_then(Value::as_str)).unwrap_or_default();
        let path = path.split(':').next().unwrap_or_default();
        find(&format!("device:{path}"), format!("has the host's device `{path}`"));
    }
    for source in binds(service).filter_map(|bind| bind.get("source").and_then(Value::as_str)) {
        let source = if source == "/" { source } else { source.trim_end_matches('/') };
        if source.ends_with("/docker.sock") || source.ends_with("/containerd.sock") {
            find("docker-socket", format!("mounts `{source}`, which is root on the host"));
        } else if HOST_PATHS.contains(&source) || source.starts_with("/etc/") || source.starts_with("/proc/") {
            find(&format!("host-path:{source}"), format!("mounts the host's `{source}`"));
        }
    }
    let image = text("image");
    let tag = image.rsplit('/').next().unwrap_or(image);
    if !image.is_empty() && !image.contains('@') && (!tag.contains(':') || tag.ends_with(":latest")) {
        find("latest", format!("runs `{image}`, whatever that is today"));
    }
    let user = service.get("user").map(|user| user.as_str().map_or_else(|| user.to_string(), str::to_owned)).unwrap_or_default();
    if matches!(user.split(':').next(), Some("" | "0" | "root")) {
        find("root", if user.is_empty() { "does not say which `user` it runs as".to_owned() } else { "runs as root".to_owned() });
    }
    let limits = service.get("deploy").and_then(|deploy| deploy.pointer("/resources/limits"));
    let limited = |key: &str, short: &str| limits.is_some_and(|limits| limits.get(key).is_some()) || service.contains_key(short);
    if !limited("memory", "mem_limit") || !limited("cpus", "cpus") {
        find("no-limits", "has no limit of memory and processors".to_owned());
    }
    if level == Level::Strict && service.get("read_only").and_then(Value::as_bool) == Some(false) {
        find("writable-root", "has a writable root".to_owned());
    }
    out
}

fn overlay(service: &mut Map<String, Value>, level: Level, allowed: &dyn Fn(&str) -> bool, used: &mut BTreeSet<String>) {
    if level == Level::Off {
        return;
    }
    let mut unless = |word: &str| {
        let allowed = allowed(word);
        if allowed {
            used.insert(word.to_owned());
        }
        !allowed
    };
    if unless("new-privileges") {
        let options = service.entry("security_opt").or_insert_with(|| json!([]));
        if let Value::Array(options) = options
            && !options.iter().any(|option| option.as_str().is_some_and(|option| option.starts_with("no-new-privileges")))
        {
            options.push(json!("no-new-privileges:true"));
        }
    }
    service.entry("logging").or_insert_with(|| json!({"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}));
    let limited = service.get("deploy").is_some_and(|deploy| deploy.pointer("/resources/limits/pids").is_some());
    if !limited && !service.contains_key("pids_limit") {
        // Compose refuses `pids_limit` beside other limits under `deploy` unless both agree.
        if service.get("deploy").is_some_and(|deploy| deploy.pointer("/resources/limits").is_some_and(Value::is_object)) {
            service["deploy"]["resources"]["limits"]["pids"] = json!(PIDS);
        } else {
            service.insert("pids_limit".to_owned(), json!(PIDS));
        }
    }
    if level == Level::Baseline {
        return;
    }
    let privileged = service.get("privileged").and_then(Value::as_bool) == Some(true);
    if unless("all-caps") && !privileged {
        service.entry("cap_drop").or_insert_with(|| json!(["ALL"]));
    }
    if unless("writable-root") {
        service.insert("read_only".to_owned(), json!(true));
        if !has_mount(service, "/tmp") {
            // Without a mode, a tmpfs takes that of the image's directory.
            let tmpfs = service.entry("tmpfs").or_insert_with(|| json!([]));
            if let Value::String(one) = tmpfs {
                *tmpfs = json!([one.clone()]);
            }
            if let Value::Array(list) = tmpfs {
                list.push(json!("/tmp:mode=1777,size=64m"));
            }
        }
    }
}

fn has_mount(service: &Map<String, Value>, target: &str) -> bool {
    let volumes = items(service.get("volumes")).iter().any(|entry| match entry {
        Value::String(text) => text.split(':').nth(1) == Some(target),
        other => other.get("target").and_then(Value::as_str) == Some(target),
    });
    volumes || items(service.get("tmpfs")).iter().any(|entry| entry.as_str().is_some_and(|text| text.split(':').next() == Some(target)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::compose::stack::normalise;

    fn run(text: &str, level: Level, exceptions: &[(&str, &[&str])]) -> (Model, Result<Vec<String>, Vec<String>>) {
        let mut model = Model::parse(text, &BTreeMap::new(), &[]).unwrap();
        normalise(&mut model, &BTreeMap::new()).unwrap();
        let exceptions = exceptions
            .iter()
            .map(|(name, allow)| {
                (
                    (*name).to_owned(),
                    Exception { reason: "needs it".to_owned(), allow: allow.iter().map(|word| (*word).to_owned()).collect() },
                )
            })
            .collect();
        let result = harden(&mut model, level, &exceptions);
        (model, result)
    }

    #[test]
    fn strict_adds_what_it_can_and_asks_for_the_rest() {
        let good = "services:\n  web: {image: 'web:1', user: '1000', deploy: {resources: {limits: {memory: 64M, cpus: '0.5'}}}}\n";
        let (model, result) = run(good, Level::Strict, &[]);
        assert_eq!(result.unwrap(), Vec::<String>::new());
        let web = model.service("web").unwrap();
        assert_eq!((&web["read_only"], &web["cap_drop"]), (&json!(true), &json!(["ALL"])));
        assert_eq!(web["security_opt"], json!(["no-new-privileges:true"]));
        assert_eq!(web["tmpfs"], json!(["/tmp:mode=1777,size=64m"]));
        assert_eq!(web["deploy"]["resources"]["limits"]["pids"], json!(512));
        let problems = run("services:\n  web: {image: web}\n", Level::Strict, &[]).1.unwrap_err().join("\n");
        for word in ["`latest`", "`root`", "`no-limits`"] {
            assert!(problems.contains(word), "{problems}");
        }
    }

    #[test]
    fn the_seeds_cadvisor_needs_its_exceptions_named() {
        let cadvisor = "services:\n  cadvisor:\n    image: 'cadvisor:1'\n    privileged: true\n    devices: [/dev/kmsg]\n    volumes: ['/:/rootfs:ro', '/var/run/docker.sock:/s', '/sys:/sys:ro']\n    pid: host\n    cap_add: [SYS_ADMIN, CHOWN]\n";
        let problems = run(cadvisor, Level::Baseline, &[]).1.unwrap_err();
        let words = ["privileged", "device:/dev/kmsg", "host-path:/", "docker-socket", "host-path:/sys", "host-pid", "cap:SYS_ADMIN"];
        assert_eq!(problems.len(), words.len(), "{problems:?}");
        let notes = run(cadvisor, Level::Baseline, &[("cadvisor", &words)]).1.unwrap();
        assert!(notes.iter().any(|note| note.starts_with("exception: service `cadvisor` has privileged")), "{notes:?}");
    }

    #[test]
    fn bad_exceptions_are_named() {
        let problems = run("services:\n  web: {image: 'a:1'}\n", Level::Baseline, &[("wed", &["privilegd"])]).1.unwrap_err().join("\n");
        assert!(problems.contains("did you mean `web`") && problems.contains("did you mean `privileged`"), "{problems}");
    }
}
