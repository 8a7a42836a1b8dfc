//! A container as it runs against what its service declares, field by field. Labels say which
//! definition a container claims to be made from; whoever makes one by hand can copy labels, so what
//! it may do is compared itself: privileges, user, environment, mounts, command, and files of its
//! own that were written behind its back.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::container::Container;
use super::model::items;
use super::service::{Service, host_name};
use super::settings;
use super::stack::ROOT;
use crate::resource::Question;
use crate::secret::sha256;
use crate::shell::Script;

/// What differs: field, as observed, as declared.
pub type Differences = Vec<(String, String, String)>;

/// What is needed to compare: the release's Compose file, read.
pub struct Declared<'a> {
    /// The whole file.
    pub compose: &'a Value,
    /// The stack's name.
    pub stack: &'a str,
}

/// Lists files that were written into containers: all of those whose root file system is read-only,
/// and programs and start files of the others. It reads the layer on the host's disk, and only if
/// the daemon runs: asking its socket might start it.
#[must_use]
pub fn changes_question() -> Question {
    let script = Script::sh(
        r#"command -v docker >/dev/null || exit 0
p=; if [ -r /run/docker.pid ]; then read -r p </run/docker.pid || :; fi
if [ -d /run/systemd/system ]; then [ -n "$p" ] && [ -d "/proc/$p" ] || exit 0; fi
i=$(docker ps -q --no-trunc --filter label=com.docker.compose.project) && [ -n "$i" ] || exit 0
docker inspect -f '{{.Id}} {{.HostConfig.ReadonlyRootfs}} {{.GraphDriver.Data.UpperDir}}' $i 2>/dev/null | while read -r id ro up; do
  case $up in /*) [ -d "$up" ] || continue ;; *) continue ;; esac
  cd "$up" || continue
  if [ "$ro" = true ]; then set -- .; else
    set --
    for d in bin sbin usr/bin usr/sbin usr/local/bin usr/local/sbin etc/ld.so.preload etc/cron.d root/.ssh; do [ -e "$d" ] && set -- "$@" "./$d"; done
    [ $# -gt 0 ] || continue
  fi
  find "$@" ! -type d -printf "$id %p\n" 2>/dev/null | head -n 40
done
:
"#,
        &[],
    );
    Question::Raw { key: "container changes".to_owned(), script }
}

/// Paths by container id, of what [`changes_question`] printed.
#[must_use]
pub fn parse_changes(output: &str) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (id, path) in output.lines().filter_map(|line| line.split_once(' ')) {
        out.entry(id.to_owned()).or_default().push(format!("/{}", path.trim_start_matches("./")));
    }
    out
}

/// Everything in which a container is not what its service declares.
#[must_use]
pub fn differences(
    service: &Service,
    declared: &Declared<'_>,
    image: Option<&Value>,
    container: &Container,
    written: &[String],
) -> Differences {
    let empty = Map::new();
    let map = declared.compose.pointer(&format!("/services/{}", service.name)).and_then(Value::as_object).unwrap_or(&empty);
    let inspect = &container.raw;
    let mut out = Vec::new();
    let mut differ = |field: &str, before: String, after: String| {
        if before != after {
            out.push((field.to_owned(), before, after));
        }
    };
    differ("name", name(&container.name, service, declared.stack), usual(service, declared.stack));
    differ("made from", origin(container, declared.stack), "the release's Compose file".to_owned());
    for (field, key, pointer) in
        [("privileged", "privileged", "/HostConfig/Privileged"), ("read_only", "read_only", "/HostConfig/ReadonlyRootfs")]
    {
        differ(field, flag(inspect.pointer(pointer)).to_string(), flag(map.get(key)).to_string());
    }
    for (field, pointer) in [("cap_add", "/HostConfig/CapAdd"), ("cap_drop", "/HostConfig/CapDrop")] {
        differ(field, list(capabilities(inspect.pointer(pointer))), list(capabilities(map.get(field))));
    }
    differ("security_opt", list(options(inspect.pointer("/HostConfig/SecurityOpt"))), list(options(map.get("security_opt"))));
    differ("group_add", list(words(inspect.pointer("/HostConfig/GroupAdd"))), list(words(map.get("group_add"))));
    modes(map, inspect, &mut differ);
    shares(map, inspect, &mut differ);
    differ("devices", list(host_devices(inspect)), list(declared_devices(map)));
    process(map, image, inspect, &mut differ);
    settings::settings(service, declared.stack, map, image, container, &mut differ);
    out.extend(environment(map, image, inspect));
    out.extend(mounts(map, declared, image, inspect));
    let foreign: Vec<&str> = written.iter().map(String::as_str).filter(|path| !is_mounted(inspect, path)).take(3).collect();
    if !foreign.is_empty() {
        out.push(("files".to_owned(), format!("{} written into the container", foreign.join(", ")), "those of the image".to_owned()));
    }
    out
}

/// Compose's names end in a number; another name is not Compose's.
fn name(name: &str, service: &Service, stack: &str) -> String {
    let usual = usual(service, stack);
    let numbered = || {
        let start = format!("{stack}-{}-", service.name);
        name.strip_prefix(&start).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if name == usual || (service.container_name.is_none() && numbered()) { usual } else { name.to_owned() }
}

fn usual(service: &Service, stack: &str) -> String {
    service.usual_name(stack)
}

fn origin(container: &Container, stack: &str) -> String {
    let file = container.label("com.docker.compose.project.config_files");
    let ours = file.starts_with(&format!("{ROOT}/{stack}/releases/")) && !file.contains("..") && !file.contains(',');
    if ours {
        "the release's Compose file".to_owned()
    } else if file.is_empty() {
        "no Compose file".to_owned()
    } else {
        file.to_owned()
    }
}

pub(super) fn flag(value: Option<&Value>) -> bool {
    value.and_then(Value::as_bool).unwrap_or(false)
}

pub(super) fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

pub(super) fn words(value: Option<&Value>) -> BTreeSet<String> {
    items(value).iter().map(|item| text(Some(item))).collect()
}

fn capabilities(value: Option<&Value>) -> BTreeSet<String> {
    words(value).iter().map(|word| word.to_uppercase().trim_start_matches("CAP_").to_owned()).collect()
}

/// Security options in one spelling. A seccomp profile is inline in a container and a path in the
/// Compose file; which one it is the stack's inputs say.
fn options(value: Option<&Value>) -> BTreeSet<String> {
    words(value)
        .iter()
        .map(|word| match word.split_once(['=', ':']) {
            Some(("seccomp", profile)) if profile != "unconfined" => "seccomp:a profile".to_owned(),
            Some((name, value)) => format!("{name}:{value}"),
            None if word == "no-new-privileges" => "no-new-privileges:true".to_owned(),
            None => word.clone(),
        })
        // Docker adds the one by itself to what shares the host's processes, and keeps the other elsewhere.
        .filter(|option| option != "label:disable" && !option.starts_with("systempaths:"))
        .collect()
}

pub(super) fn list(items: BTreeSet<String>) -> String {
    if items.is_empty() { "none".to_owned() } else { items.into_iter().collect::<Vec<_>>().join(", ") }
}

/// Shares of what containers compete for, which `docker update` changes: nothing said is none, and so are no shares;
/// a set of processors may well be `0`.
fn shares(map: &Map<String, Value>, inspect: &Value, differ: &mut impl FnMut(&str, String, String)) {
    for (key, pointer, nothing) in [("cpuset", "/HostConfig/CpusetCpus", ""), ("cpu_shares", "/HostConfig/CpuShares", "0")] {
        let shown = |value: String| if value.is_empty() || value == nothing { "none".to_owned() } else { value };
        differ(key, shown(text(inspect.pointer(pointer))), shown(text(map.get(key))));
    }
}

/// Namespaces that a container shares with the host.
fn modes(map: &Map<String, Value>, inspect: &Value, differ: &mut impl FnMut(&str, String, String)) {
    let shares = |text: String| if text == "host" { "the host's" } else { "its own" }.to_owned();
    let pairs = [
        ("network_mode", "/HostConfig/NetworkMode"),
        ("pid", "/HostConfig/PidMode"),
        ("ipc", "/HostConfig/IpcMode"),
        ("uts", "/HostConfig/UTSMode"),
        ("userns_mode", "/HostConfig/UsernsMode"),
    ];
    for (key, pointer) in pairs {
        differ(key, shares(text(inspect.pointer(pointer))), shares(text(map.get(key))));
    }
}

fn host_devices(inspect: &Value) -> BTreeSet<String> {
    items(inspect.pointer("/HostConfig/Devices")).iter().map(|device| text(device.get("PathOnHost"))).collect()
}

fn declared_devices(map: &Map<String, Value>) -> BTreeSet<String> {
    let source = |item: &Value| match item {
        Value::String(short) => short.split(':').next().unwrap_or_default().to_owned(),
        long => text(long.get("source")),
    };
    items(map.get("devices")).iter().map(source).collect()
}

/// Who runs what: the service's word, else the image's. What neither can tell is not compared.
fn process(map: &Map<String, Value>, image: Option<&Value>, inspect: &Value, differ: &mut impl FnMut(&str, String, String)) {
    let of_image = |key: &str| image.and_then(|image| image.pointer(&format!("/Config/{key}")));
    if map.contains_key("user") || image.is_some() {
        let wanted = map.get("user").or_else(|| of_image("User"));
        differ("user", root(text(inspect.pointer("/Config/User"))), root(text(wanted)));
    }
    let has = |key: &str| map.get(key).filter(|value| !value.is_null());
    let entrypoint = has("entrypoint");
    let program = entrypoint.map(command).or_else(|| image.map(|_| command(of_image("Entrypoint").unwrap_or(&Value::Null))));
    if let Some(Some(words)) = program {
        differ("entrypoint", shown(inspect.pointer("/Config/Entrypoint")), digest(&words));
    }
    let wanted = match (has("command"), entrypoint, image) {
        (Some(declared), _, _) => Some(command(declared)),
        (None, Some(_), _) => Some(Some(Vec::new())),
        (None, None, Some(_)) => Some(command(of_image("Cmd").unwrap_or(&Value::Null))),
        (None, None, None) => None,
    };
    if let Some(Some(words)) = wanted {
        differ("command", shown(inspect.pointer("/Config/Cmd")), digest(&words));
    }
}

fn root(user: String) -> String {
    if matches!(user.as_str(), "" | "0" | "root" | "0:0") { "root".to_owned() } else { user }
}

/// A command's words; `None` if it cannot be told how Compose would take it apart.
pub(super) fn command(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(line) => shlex::split(&line.replace("$$", "$")),
        other => Some(items(Some(other)).iter().map(|word| text(Some(word)).replace("$$", "$")).collect()),
    }
}

/// Words may hold what was once a secret: shown is only how many they are, and their digest.
pub(super) fn digest(words: &[String]) -> String {
    if words.is_empty() {
        "none".to_owned()
    } else {
        format!("{} words, sha256 {}", words.len(), &sha256(words.join("\0").as_bytes())[..12])
    }
}

pub(super) fn shown(value: Option<&Value>) -> String {
    digest(&items(value).iter().map(|word| text(Some(word))).collect::<Vec<_>>())
}

/// Variables, by name; the values of a container are digests already.
fn environment(map: &Map<String, Value>, image: Option<&Value>, inspect: &Value) -> Differences {
    let (Some(image), false) = (image, map.contains_key("env_file")) else { return Vec::new() };
    let pairs = |value: Option<&Value>| -> BTreeMap<String, String> {
        items(value)
            .iter()
            .filter_map(Value::as_str)
            .map(|line| line.split_once('=').unwrap_or((line, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let observed = pairs(inspect.pointer("/Config/Env"));
    let mut wanted: BTreeMap<String, Option<String>> =
        pairs(image.pointer("/Config/Env")).into_iter().map(|(name, value)| (name, Some(value))).collect();
    wanted.extend(declared_environment(map.get("environment")));
    let mut out = Vec::new();
    for (name, value) in &wanted {
        match (observed.get(name), value) {
            (None, Some(_)) => out.push((format!("environment {name}"), "not set".to_owned(), "as declared".to_owned())),
            (Some(seen), Some(value)) if seen != value => {
                out.push((format!("environment {name}"), "another value".to_owned(), "as declared".to_owned()));
            }
            _ => {}
        }
    }
    // Docker's client adds its own proxies.
    let proxy = |name: &str| name.to_lowercase().ends_with("_proxy");
    for name in observed.keys().filter(|name| !wanted.contains_key(*name) && !proxy(name)) {
        out.push((format!("environment {name}"), "set".to_owned(), "not set".to_owned()));
    }
    out
}

/// Names, and digests of values that can be told here: not those that Compose fills in.
fn declared_environment(value: Option<&Value>) -> Vec<(String, Option<String>)> {
    let known = |value: &Value| match value {
        Value::Null => None,
        Value::Number(number) if number.is_f64() => None,
        other => {
            let text = text(Some(other));
            let plain = text.replace("$$", "");
            (!plain.contains('$')).then(|| format!("sha256:{}", sha256(text.replace("$$", "$").as_bytes())))
        }
    };
    match value {
        Some(Value::Object(map)) => map.iter().map(|(name, value)| (name.clone(), known(value))).collect(),
        other => items(other)
            .iter()
            .filter_map(Value::as_str)
            .map(|line| match line.split_once('=') {
                Some((name, value)) => (name.to_owned(), known(&Value::String(value.to_owned()))),
                None => (line.to_owned(), None),
            })
            .collect(),
    }
}

/// A declared mount: destination, source on the host or name of the volume, read-only.
struct Mount {
    target: String,
    source: Option<String>,
    read_only: bool,
}

fn declared_mounts(map: &Map<String, Value>, declared: &Declared<'_>) -> Vec<Mount> {
    let volumes = declared.compose.get("volumes");
    let named = |source: &str| -> String {
        if source.starts_with(['/', '.', '~']) {
            return source.to_owned();
        }
        host_name(declared.stack, source, volumes.and_then(|all| all.get(source)))
    };
    let mut out = Vec::new();
    for item in items(map.get("volumes")) {
        match item {
            Value::String(short) => {
                let parts: Vec<&str> = short.split(':').collect();
                let read_only = parts.get(2).is_some_and(|mode| mode.split(',').any(|word| word == "ro"));
                match parts[..] {
                    [target] => out.push(Mount { target: target.to_owned(), source: None, read_only: false }),
                    [source, target, ..] => out.push(Mount { target: target.to_owned(), source: Some(named(source)), read_only }),
                    [] => {}
                }
            }
            long => {
                let source = long.get("source").and_then(Value::as_str).map(named);
                out.push(Mount { target: text(long.get("target")), source, read_only: flag(long.get("read_only")) });
            }
        }
    }
    for (section, place) in [("secrets", "/run/secrets/"), ("configs", "/")] {
        for item in items(map.get(section)) {
            let (key, target) = match item {
                Value::String(key) => (key.clone(), None),
                long => (text(long.get("source")), long.get("target").and_then(Value::as_str).map(str::to_owned)),
            };
            let source = declared.compose.pointer(&format!("/{section}/{key}/file")).and_then(Value::as_str).map(str::to_owned);
            let target = target.unwrap_or(key);
            let target = if target.starts_with('/') { target } else { format!("{place}{target}") };
            out.push(Mount { target, source, read_only: true });
        }
    }
    out
}

fn mounts(map: &Map<String, Value>, declared: &Declared<'_>, image: Option<&Value>, inspect: &Value) -> Differences {
    if map.contains_key("volumes_from") {
        return Vec::new();
    }
    let wanted = declared_mounts(map, declared);
    let of_image = image.and_then(|image| image.pointer("/Config/Volumes")).and_then(Value::as_object);
    let mut out = Vec::new();
    let observed = items(inspect.get("Mounts"));
    let trimmed = |path: &str| if path.len() > 1 { path.trim_end_matches('/').to_owned() } else { path.to_owned() };
    for mount in observed {
        let (kind, target) = (text(mount.get("Type")), trimmed(&text(mount.get("Destination"))));
        let source = if kind == "volume" { text(mount.get("Name")) } else { text(mount.get("Source")) };
        let Some(expected) = wanted.iter().find(|wanted| trimmed(&wanted.target) == target) else {
            let anonymous = kind == "volume" && of_image.is_some_and(|all| all.keys().any(|path| trimmed(path) == target));
            if !anonymous && (kind == "bind" || image.is_some()) && kind != "tmpfs" {
                out.push((format!("mount {target}"), format!("{kind} {source}"), "none".to_owned()));
            }
            continue;
        };
        if let Some(wanted) = expected.source.as_deref().filter(|wanted| trimmed(wanted) != trimmed(&source) && kind != "tmpfs") {
            out.push((format!("mount {target}"), source, wanted.to_owned()));
        } else if expected.read_only && flag(mount.get("RW")) {
            out.push((format!("mount {target}"), "writable".to_owned(), "read-only".to_owned()));
        }
    }
    let there = |target: &str| observed.iter().any(|mount| trimmed(&text(mount.get("Destination"))) == trimmed(target));
    let in_memory = |target: &str| inspect.pointer("/HostConfig/Tmpfs").and_then(|all| all.get(target)).is_some();
    for mount in wanted.iter().filter(|mount| !there(&mount.target) && !in_memory(&mount.target)) {
        let wanted = mount.source.clone().unwrap_or_else(|| "a volume".to_owned());
        out.push((format!("mount {}", mount.target), "none".to_owned(), wanted));
    }
    out
}

/// Whether a path is where something is mounted: Docker makes an empty file there.
fn is_mounted(inspect: &Value, path: &str) -> bool {
    let below = |target: &str| path == target || path.strip_prefix(target).is_some_and(|rest| rest.starts_with('/'));
    let tmpfs = inspect.pointer("/HostConfig/Tmpfs").and_then(Value::as_object);
    ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/proc", "/sys", "/.dockerenv"].iter().any(|known| below(known))
        || items(inspect.get("Mounts")).iter().any(|mount| below(text(mount.get("Destination")).trim_end_matches('/')))
        || tmpfs.is_some_and(|all| all.keys().any(|target| below(target.trim_end_matches('/'))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compose() -> Value {
        json!({
            "services": {"web": {
                "image": "w:1", "user": "1000", "read_only": true, "cap_drop": ["ALL"], "environment": {"MODE": "strict", "KEY": "${KEY}", "MONEY": "a$$b"},
                "security_opt": ["no-new-privileges:true", "seccomp:/x.json"], "tmpfs": ["/tmp"], "secrets": ["token"], "configs": [{"source": "c", "target": "/etc/c"}],
                "volumes": [{"type": "bind", "source": "/s/web.conf", "target": "/etc/web.conf", "read_only": true}, "data:/data"],
            }},
            "secrets": {"token": {"file": "/s/token"}}, "configs": {"c": {"file": "/s/c"}}, "volumes": {"data": {}},
        })
    }

    fn service() -> Service {
        let model =
            super::super::model::Model::from_value(compose(), &BTreeMap::from([("KEY".to_owned(), "${KEY}".to_owned())]), &[]).unwrap();
        Service::all("mut", &model).unwrap().remove(0)
    }

    fn hashed(value: &str) -> String {
        format!("sha256:{}", sha256(value.as_bytes()))
    }

    fn inspect() -> Value {
        json!({
            "Id": "1", "Name": "/mut-web-1",
            "Config": {
                "User": "1000", "Cmd": null, "Entrypoint": ["/bin/x"],
                "Env": [format!("PATH={}", hashed("/bin")), format!("MODE={}", hashed("strict")), format!("KEY={}", hashed("?")), format!("MONEY={}", hashed("a$b"))],
                "Labels": {"com.docker.compose.project.config_files": format!("{ROOT}/mut/releases/1/compose.yml")},
            },
            "HostConfig": {"Privileged": false, "ReadonlyRootfs": true, "CapAdd": null, "CapDrop": ["ALL"], "NetworkMode": "mut_front", "PidMode": "", "IpcMode": "private",
                "SecurityOpt": ["no-new-privileges:true", "seccomp={\"a\":1}"], "Devices": null, "Tmpfs": {"/tmp": ""},
                "MaskedPaths": ["/proc/kcore"], "ReadonlyPaths": ["/proc/sys"]},
            "Mounts": [
                {"Type": "bind", "Source": "/s/web.conf", "Destination": "/etc/web.conf", "RW": false},
                {"Type": "bind", "Source": "/s/token", "Destination": "/run/secrets/token", "RW": false},
                {"Type": "bind", "Source": "/s/c", "Destination": "/etc/c", "RW": false},
                {"Type": "volume", "Name": "mut_data", "Source": "/v", "Destination": "/data", "RW": true},
            ],
        })
    }

    fn fields(inspect: Value, written: &[&str]) -> Vec<String> {
        let image = json!({"Config": {"User": "", "Env": [format!("PATH={}", hashed("/bin"))], "Entrypoint": ["/bin/x"], "Cmd": null}});
        let compose = compose();
        let written: Vec<String> = written.iter().map(|path| (*path).to_owned()).collect();
        let declared = Declared { compose: &compose, stack: "mut" };
        differences(&service(), &declared, Some(&image), &Container::read(&inspect), &written)
            .into_iter()
            .map(|(field, ..)| field)
            .collect()
    }

    #[test]
    fn a_container_as_declared_has_no_difference() {
        assert_eq!(fields(inspect(), &["/etc/web.conf", "/tmp/x"]), Vec::<String>::new());
        let mut shares = inspect();
        shares["HostConfig"]["SecurityOpt"] = json!(["no-new-privileges:true", "seccomp={}", "label=disable"]);
        assert_eq!(fields(shares, &[]), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_a_hand_made_container_may_do_is_named() {
        let with = |pointer: &str, value: Value| {
            let mut changed = inspect();
            *changed.pointer_mut(pointer).unwrap() = value;
            fields(changed, &[])
        };
        assert_eq!(with("/HostConfig/Privileged", json!(true)), ["privileged"]);
        assert_eq!(with("/HostConfig/ReadonlyRootfs", json!(false)), ["read_only"]);
        assert_eq!(with("/HostConfig/CapAdd", json!(["CAP_SYS_ADMIN"])), ["cap_add"]);
        assert_eq!(with("/HostConfig/SecurityOpt", json!(["seccomp=unconfined"])), ["security_opt"]);
        assert_eq!(with("/HostConfig/PidMode", json!("host")), ["pid"]);
        assert_eq!(with("/HostConfig/NetworkMode", json!("host")), ["network_mode"]);
        assert_eq!(with("/HostConfig/Devices", json!([{"PathOnHost": "/dev/sda"}])), ["devices"]);
        assert_eq!(with("/Config/User", json!("root")), ["user"]);
        assert_eq!(with("/Config/Cmd", json!(["evil"])), ["command"]);
        assert_eq!(with("/Config/Env/1", json!(format!("MODE={}", hashed("lax")))), ["environment MODE"]);
        assert_eq!(with("/Config/Env/1", json!("LD_PRELOAD=x")), ["environment MODE", "environment LD_PRELOAD"]);
        assert_eq!(with("/Mounts/0/RW", json!(true)), ["mount /etc/web.conf"]);
        assert_eq!(with("/Mounts/3/Name", json!("other")), ["mount /data"]);
        assert_eq!(with("/Mounts/3", json!({"Type": "bind", "Source": "/", "Destination": "/host"})), ["mount /host", "mount /data"]);
        assert_eq!(with("/Name", json!("/hidden")), ["name"]);
        assert_eq!(with("/Config/Labels", json!({})), ["made from"]);
        assert_eq!(fields(inspect(), &["/bin/evil"]), ["files"]);
    }

    #[test]
    fn changes_are_read_by_container() {
        assert_eq!(
            parse_changes("ab x y\nab ./etc/z\n\n"),
            BTreeMap::from([("ab".to_owned(), vec!["/x y".to_owned(), "/etc/z".to_owned()])])
        );
        let Question::Raw { script, .. } = changes_question() else { unreachable!() };
        let mut child = std::process::Command::new("sh").arg("-n").stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.shown().as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}
