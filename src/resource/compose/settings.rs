//! The smaller settings of a container against what its service declares: whom it finds under which
//! name, what of the kernel is hidden from it, its devices, its health check, what it may use. What
//! the daemon decides where a service says nothing (logs, limits of files) is compared only where
//! the service does say something.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::container::Container;
use super::model::items;
use super::runtime::{command, digest, flag, list, shown, text, words};
use super::service::Service;
use super::units;

/// What takes a field, what was observed and what is declared, and keeps them if they differ.
type Differ<'a> = &'a mut dyn FnMut(&str, String, String);

/// Sets of words, none unless declared.
const SETS: &[(&str, &str)] = &[
    ("dns", "/HostConfig/Dns"),
    ("dns_search", "/HostConfig/DnsSearch"),
    ("dns_opt", "/HostConfig/DnsOptions"),
    ("device_cgroup_rules", "/HostConfig/DeviceCgroupRules"),
];

/// Off unless declared; the last two have no word in a Compose file.
const FLAGS: &[(&str, &str)] = &[
    ("init", "/HostConfig/Init"),
    ("oom_kill_disable", "/HostConfig/OomKillDisable"),
    ("publish_all_ports", "/HostConfig/PublishAllPorts"),
    ("auto_remove", "/HostConfig/AutoRemove"),
];

/// Text that something else decides unless it is declared.
const TEXTS: &[(&str, &str)] = &[
    ("hostname", "/Config/Hostname"),
    ("domainname", "/Config/Domainname"),
    ("runtime", "/HostConfig/Runtime"),
    ("cgroup", "/HostConfig/CgroupnsMode"),
    ("cgroup_parent", "/HostConfig/CgroupParent"),
];

/// Every such setting in which a container differs. `image`: as `docker image inspect` has it.
pub(super) fn settings(
    service: &Service,
    stack: &str,
    map: &Map<String, Value>,
    image: Option<&Value>,
    container: &Container,
    differ: Differ<'_>,
) {
    let inspect = &container.raw;
    for (key, pointer) in SETS {
        differ(key, list(words(inspect.pointer(pointer))), list(words(map.get(*key))));
    }
    for (key, pointer) in FLAGS {
        differ(key, flag(inspect.pointer(pointer)).to_string(), flag(map.get(*key)).to_string());
    }
    for (key, pointer) in TEXTS {
        let declared = text(map.get(*key));
        if !declared.is_empty() {
            differ(key, text(inspect.pointer(pointer)), declared);
        }
    }
    differ("extra_hosts", list(hosts(inspect.pointer("/HostConfig/ExtraHosts"))), list(hosts(map.get("extra_hosts"))));
    differ("sysctls", list(pairs(inspect.pointer("/HostConfig/Sysctls"))), list(pairs(map.get("sysctls"))));
    differ("tmpfs", list(in_memory(inspect.pointer("/HostConfig/Tmpfs"))), list(in_memory(map.get("tmpfs"))));
    system_paths(map, inspect, differ);
    if let Some(logging) = map.get("logging") {
        let driver = text(logging.get("driver"));
        if !driver.is_empty() {
            differ("log driver", text(inspect.pointer("/HostConfig/LogConfig/Type")), driver);
        }
        differ("log options", list(pairs(inspect.pointer("/HostConfig/LogConfig/Config"))), list(pairs(logging.get("options"))));
    }
    amounts(service, map, inspect, differ);
    of_image(map, image, inspect, differ);
    health(map, image, inspect, differ);
    if container.state == "running" && service.network_mode.is_none() {
        differ("aliases", list(foreign_names(service, stack, map, container)), "none".to_owned());
        let own = names(inspect).contains(&service.name);
        differ("name on its networks", if own { &service.name } else { "none" }.to_owned(), service.name.clone());
    }
}

/// `NAME:ADDRESS`, however it is spelt.
fn hosts(value: Option<&Value>) -> BTreeSet<String> {
    let entry = |name: &str, address: &str| format!("{name}:{}", address.trim_matches(['[', ']']));
    match value {
        Some(Value::Object(map)) => {
            map.iter().flat_map(|(name, all)| items(Some(all)).iter().map(move |one| entry(name, &text(Some(one))))).collect()
        }
        other => words(other)
            .iter()
            .map(|line| line.split_once(['=', ':']).map_or(line.clone(), |(name, address)| entry(name, address)))
            .collect(),
    }
}

/// `NAME=VALUE`, of a mapping or a list.
fn pairs(value: Option<&Value>) -> BTreeSet<String> {
    match value {
        Some(Value::Object(map)) => map.iter().map(|(name, value)| format!("{name}={}", text(Some(value)))).collect(),
        other => words(other),
    }
}

/// `PATH:OPTIONS` of file systems in memory, of a mapping or a list.
fn in_memory(value: Option<&Value>) -> BTreeSet<String> {
    let entry = |path: &str, options: &str| {
        let path = path.trim_end_matches('/');
        if options.is_empty() { path.to_owned() } else { format!("{path}:{options}") }
    };
    match value {
        Some(Value::Object(map)) => map.iter().map(|(path, options)| entry(path, &text(Some(options)))).collect(),
        other => words(other)
            .iter()
            .map(|line| line.split_once(':').map_or_else(|| entry(line, ""), |(path, options)| entry(path, options)))
            .collect(),
    }
}

/// Whether what Docker hides of `/proc` and `/sys` is hidden. A privileged container sees
/// everything, and one that must not be privileged differs in that.
fn system_paths(map: &Map<String, Value>, inspect: &Value, differ: Differ<'_>) {
    if flag(inspect.pointer("/HostConfig/Privileged")) {
        return;
    }
    let has = |pointer: &str, path: &str| words(inspect.pointer(pointer)).contains(path);
    let hidden = has("/HostConfig/MaskedPaths", "/proc/kcore") && has("/HostConfig/ReadonlyPaths", "/proc/sys");
    let open = ["systempaths=unconfined", "systempaths:unconfined"];
    let wanted = !words(map.get("security_opt")).iter().any(|option| open.contains(&option.as_str()));
    let shown = |hidden: bool| if hidden { "hidden" } else { "open" }.to_owned();
    differ("system paths", shown(hidden), shown(wanted));
}

/// What a container may use. A kernel that cannot count something leaves it at nothing, which is no
/// difference.
fn amounts(service: &Service, map: &Map<String, Value>, inspect: &Value, differ: Differ<'_>) {
    let seen = |pointer: &str| inspect.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let declared = |key: &str| map.get(key).map_or(Some(0), Value::as_i64);
    let weight = map.get("blkio_config").and_then(|all| all.get("weight")).map_or(Some(0), Value::as_i64);
    let all = [
        ("mem_reservation", "/HostConfig/MemoryReservation", i64::try_from(service.reserved_memory).ok()),
        ("blkio weight", "/HostConfig/BlkioWeight", weight),
        ("cpu_period", "/HostConfig/CpuPeriod", declared("cpu_period")),
        ("cpu_quota", "/HostConfig/CpuQuota", declared("cpu_quota")),
        ("oom_score_adj", "/HostConfig/OomScoreAdj", declared("oom_score_adj")),
        ("shm_size", "/HostConfig/ShmSize", size(map, "shm_size").or_else(|| Some(seen("/HostConfig/ShmSize")))),
        ("memswap_limit", "/HostConfig/MemorySwap", size(map, "memswap_limit").or_else(|| Some(seen("/HostConfig/MemorySwap")))),
    ];
    for (key, pointer, wanted) in all {
        let (seen, Some(wanted)) = (seen(pointer), wanted) else { continue };
        if seen != 0 {
            differ(key, seen.to_string(), wanted.to_string());
        }
    }
    let limits: BTreeMap<String, (i64, i64)> = items(inspect.pointer("/HostConfig/Ulimits"))
        .iter()
        .filter_map(|one| Some((text(one.get("Name")), (one.get("Soft")?.as_i64()?, one.get("Hard")?.as_i64()?))))
        .collect();
    for (name, value) in map.get("ulimits").and_then(Value::as_object).into_iter().flatten() {
        let number = |value: Option<&Value>| value.and_then(|value| value.as_i64().or_else(|| value.as_str()?.trim().parse().ok()));
        let pair = if value.is_object() {
            (number(value.get("soft")), number(value.get("hard")))
        } else {
            (number(Some(value)), number(Some(value)))
        };
        let (Some(soft), Some(hard)) = pair else { continue };
        let seen = limits.get(name).map_or("none".to_owned(), |(soft, hard)| format!("{soft}:{hard}"));
        differ(&format!("ulimit {name}"), seen, format!("{soft}:{hard}"));
    }
}

fn size(map: &Map<String, Value>, key: &str) -> Option<i64> {
    map.get(key).and_then(units::bytes).and_then(|bytes| i64::try_from(bytes).ok())
}

/// What the image says unless the service does.
fn of_image(map: &Map<String, Value>, image: Option<&Value>, inspect: &Value, differ: Differ<'_>) {
    let wanted = |key: &str, pointer: &str| match (map.get(key).filter(|value| !value.is_null()), image) {
        (Some(value), _) => Some(text(Some(value))),
        (None, Some(image)) => Some(text(image.pointer(pointer))),
        (None, None) => None,
    };
    let directory = |path: &str| format!("/{}", path.trim_matches('/'));
    if let Some(wanted) = wanted("working_dir", "/Config/WorkingDir") {
        differ("working_dir", directory(&text(inspect.pointer("/Config/WorkingDir"))), directory(&wanted));
    }
    let signal = |name: &str| if name.is_empty() { "TERM" } else { name.trim_start_matches("SIG") }.to_owned();
    if let Some(wanted) = wanted("stop_signal", "/Config/StopSignal") {
        differ("stop_signal", signal(&text(inspect.pointer("/Config/StopSignal"))), signal(&wanted));
    }
}

/// What tells whether it is healthy, and how often it is asked.
fn health(map: &Map<String, Value>, image: Option<&Value>, inspect: &Value, differ: Differ<'_>) {
    let declared = map.get("healthcheck");
    let wanted = match declared.and_then(|check| check.get("test")) {
        _ if declared.is_some_and(|check| flag(check.get("disable"))) => Some(vec!["NONE".to_owned()]),
        Some(Value::String(line)) => Some(vec!["CMD-SHELL".to_owned(), line.replace("$$", "$")]),
        Some(list) => command(list),
        None => image.map(|image| items(image.pointer("/Config/Healthcheck/Test")).iter().map(|word| text(Some(word))).collect()),
    };
    if let Some(wanted) = wanted {
        let none = |shown: String| if shown == digest(&["NONE".to_owned()]) { "none".to_owned() } else { shown };
        differ("healthcheck", none(shown(inspect.pointer("/Config/Healthcheck/Test"))), none(digest(&wanted)));
    }
    for (key, pointer) in [("interval", "/Config/Healthcheck/Interval"), ("timeout", "/Config/Healthcheck/Timeout")] {
        let Some(wanted) = declared.and_then(|check| check.get(key)).and_then(units::seconds).filter(|&seconds| seconds > 0) else {
            continue;
        };
        let seen = inspect.pointer(pointer).and_then(Value::as_u64).unwrap_or(0).div_ceil(1_000_000_000);
        differ(&format!("healthcheck {key}"), format!("{seen} s"), format!("{wanted} s"));
    }
}

/// Names under which others on its networks find a container.
fn names(inspect: &Value) -> BTreeSet<String> {
    let networks = inspect.pointer("/NetworkSettings/Networks").and_then(Value::as_object).into_iter().flatten();
    networks.flat_map(|(_, network)| words(network.get("Aliases"))).collect()
}

/// Names that are neither Compose's, nor Docker's, nor declared.
fn foreign_names(service: &Service, stack: &str, map: &Map<String, Value>, container: &Container) -> BTreeSet<String> {
    let mut known = BTreeSet::from([
        service.name.clone(),
        service.usual_name(stack),
        container.name.clone(),
        text(container.raw.pointer("/Config/Hostname")),
    ]);
    for (_, network) in map.get("networks").and_then(Value::as_object).into_iter().flatten() {
        known.extend(words(network.get("aliases")));
    }
    let start = format!("{stack}-{}-", service.name);
    let numbered = |name: &str| name.strip_prefix(&start).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    names(&container.raw)
        .into_iter()
        .filter(|name| !known.contains(name) && !numbered(name) && !container.id.starts_with(name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::compose::model::Model;
    use serde_json::json;

    fn compose() -> Value {
        json!({"services": {"web": {
            "image": "w:1", "dns": "192.0.2.1", "extra_hosts": {"siem": "192.0.2.9"}, "sysctls": ["net.core.somaxconn=99"], "tmpfs": ["/run/", "/tmp:size=4m"],
            "ulimits": {"nofile": {"soft": 10, "hard": 20}, "nproc": 5}, "working_dir": "/app/", "logging": {"driver": "json-file", "options": {"max-size": "10m"}}, "shm_size": "1m", "mem_reservation": "8m",
            "healthcheck": {"test": "probe $$X", "interval": "1m30s"}, "networks": {"front": {"aliases": ["www"]}},
        }}, "networks": {"front": {}}})
    }

    fn inspect() -> Value {
        json!({
            "Id": "0123456789abcdef", "Name": "/mut-web-1", "State": {"Status": "running"},
            "Config": {"Hostname": "0123456789ab", "WorkingDir": "/app", "StopSignal": "SIGTERM",
                "Healthcheck": {"Test": ["CMD-SHELL", "probe $X"], "Interval": 90_000_000_000_u64}},
            "HostConfig": {"Dns": ["192.0.2.1"], "DnsSearch": null, "DeviceCgroupRules": null, "ExtraHosts": ["siem:192.0.2.9"], "Init": null, "OomKillDisable": false,
                "PublishAllPorts": false, "AutoRemove": false, "Sysctls": {"net.core.somaxconn": "99"}, "Tmpfs": {"/run": "", "/tmp": "size=4m"},
                "MaskedPaths": ["/proc/kcore", "/proc/keys"], "ReadonlyPaths": ["/proc/sys"], "CpuQuota": 0, "BlkioWeight": 0, "OomScoreAdj": 0,
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}}, "MemoryReservation": 8_388_608, "ShmSize": 1_048_576, "MemorySwap": -1,
                "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}, {"Name": "nproc", "Soft": 5, "Hard": 5}, {"Name": "core", "Soft": 0, "Hard": 0}]},
            "NetworkSettings": {"Networks": {"mut_front": {"Aliases": ["mut-web-1", "web", "www", "0123456789ab"]}}},
        })
    }

    fn fields(inspect: &Value) -> Vec<String> {
        let compose = compose();
        let model = Model::from_value(compose.clone(), &BTreeMap::new(), &[]).unwrap();
        let service = Service::all("mut", &model).unwrap().remove(0);
        let map = compose.pointer("/services/web").and_then(Value::as_object).unwrap();
        let image = json!({"Config": {"WorkingDir": "", "Healthcheck": null}});
        let mut out = Vec::new();
        let mut differ = |field: &str, before: String, after: String| {
            if before != after {
                out.push(field.to_owned());
            }
        };
        settings(&service, "mut", map, Some(&image), &Container::read(inspect), &mut differ);
        out
    }

    #[test]
    fn as_declared_in_whatever_spelling_is_no_difference() {
        assert_eq!(fields(&inspect()), Vec::<String>::new());
        let mut old = inspect();
        old["HostConfig"]["MemoryReservation"] = json!(0);
        assert_eq!(fields(&old), Vec::<String>::new(), "a kernel that cannot count it");
    }

    #[test]
    fn each_setting_of_another_container_is_named() {
        let with = |pointer: &str, value: Value| {
            let mut changed = inspect();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            changed.pointer_mut(parent).unwrap()[key] = value;
            fields(&changed)
        };
        assert_eq!(with("/HostConfig/Dns", json!(["203.0.113.9"])), ["dns"]);
        assert_eq!(with("/HostConfig/DnsSearch", json!(["evil.example"])), ["dns_search"]);
        assert_eq!(with("/HostConfig/ExtraHosts", json!(["siem:203.0.113.9"])), ["extra_hosts"]);
        assert_eq!(with("/HostConfig/DeviceCgroupRules", json!(["b 8:0 rwm"])), ["device_cgroup_rules"]);
        assert_eq!(with("/HostConfig/Sysctls", json!({})), ["sysctls"]);
        assert_eq!(with("/HostConfig/Tmpfs", json!({"/run": "", "/tmp": "exec"})), ["tmpfs"]);
        assert_eq!(with("/HostConfig/MaskedPaths", json!([])), ["system paths"]);
        assert_eq!(with("/HostConfig/ReadonlyPaths", json!(["/proc/bus"])), ["system paths"]);
        assert_eq!(with("/HostConfig/PublishAllPorts", json!(true)), ["publish_all_ports"]);
        assert_eq!(with("/HostConfig/AutoRemove", json!(true)), ["auto_remove"]);
        assert_eq!(with("/HostConfig/Init", json!(true)), ["init"]);
        assert_eq!(with("/HostConfig/MemoryReservation", json!(6_291_456)), ["mem_reservation"]);
        assert_eq!(with("/HostConfig/BlkioWeight", json!(900)), ["blkio weight"]);
        assert_eq!(with("/HostConfig/CpuQuota", json!(1000)), ["cpu_quota"]);
        assert_eq!(with("/HostConfig/OomScoreAdj", json!(-900)), ["oom_score_adj"]);
        assert_eq!(with("/HostConfig/LogConfig", json!({"Type": "none", "Config": {}})), ["log driver", "log options"]);
        assert_eq!(with("/HostConfig/ShmSize", json!(5)), ["shm_size"]);
        assert_eq!(with("/HostConfig/Ulimits", json!([])), ["ulimit nofile", "ulimit nproc"]);
        assert_eq!(with("/Config/WorkingDir", json!("/tmp")), ["working_dir"]);
        assert_eq!(with("/Config/StopSignal", json!("SIGKILL")), ["stop_signal"]);
        assert_eq!(with("/Config/Healthcheck", json!({"Test": ["NONE"], "Interval": 90_000_000_000_u64})), ["healthcheck"]);
        assert_eq!(with("/Config/Healthcheck/Interval", json!(9_000_000_000_000_u64)), ["healthcheck interval"]);
        assert_eq!(with("/NetworkSettings/Networks/mut_front/Aliases", json!(["web", "db"])), ["aliases"]);
        assert_eq!(with("/NetworkSettings/Networks/mut_front/Aliases", json!(null)), ["name on its networks"]);
    }
}
