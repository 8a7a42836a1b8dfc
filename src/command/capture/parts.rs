//! What is taken of a host and of its containers, in the order in which it goes away: what lives
//! in memory first. Every script only reads.

use serde_json::Value;

use super::archive::safe;
use crate::shell::Script;

/// Something to take.
pub(super) struct Part {
    /// Its name in the archive.
    pub(super) name: String,
    pub(super) what: &'static str,
    pub(super) script: Script,
    /// Gone soon: taken before anything else, and before a container leaves its networks.
    pub(super) volatile: bool,
    /// The capture is incomplete without it.
    pub(super) needed: bool,
}

/// A container, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) project: String,
    pub(super) service: String,
    pub(super) running: bool,
    pub(super) pid: u64,
    pub(super) network_mode: String,
    pub(super) restart: String,
    pub(super) networks: Vec<crate::resource::compose::contained::Network>,
    /// Named volumes.
    pub(super) volumes: Vec<String>,
}

impl Target {
    /// Reads one entry of `docker inspect`'s list.
    pub(super) fn read(inspect: &Value) -> Self {
        let text = |pointer: &str| inspect.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let id = text("/Id");
        let label =
            |name: &str| inspect.pointer("/Config/Labels").and_then(|labels| labels.get(name)?.as_str()).unwrap_or_default().to_owned();
        let restart =
            match (text("/HostConfig/RestartPolicy/Name").as_str(), inspect.pointer("/HostConfig/RestartPolicy/MaximumRetryCount")) {
                ("", _) => "no".to_owned(),
                ("on-failure", Some(count)) if count.as_u64().is_some_and(|count| count > 0) => format!("on-failure:{count}"),
                (name, _) => name.to_owned(),
            };
        let networks = inspect.pointer("/NetworkSettings/Networks").and_then(Value::as_object).into_iter().flatten();
        let mounts = inspect.pointer("/Mounts").and_then(Value::as_array).into_iter().flatten();
        Self {
            name: text("/Name").trim_start_matches('/').to_owned(),
            project: label("com.docker.compose.project"),
            service: label("com.docker.compose.service"),
            running: text("/State/Status") == "running" || text("/State/Status") == "paused",
            pid: inspect.pointer("/State/Pid").and_then(Value::as_u64).unwrap_or_default(),
            network_mode: text("/HostConfig/NetworkMode"),
            restart,
            networks: networks.map(|(name, endpoint)| network(name, endpoint, &id)).collect(),
            volumes: mounts
                .filter(|mount| mount.get("Type").and_then(Value::as_str) == Some("volume"))
                .filter_map(|mount| Some(mount.get("Name")?.as_str()?.to_owned()))
                .collect(),
            id,
        }
    }
}

fn network(name: &str, endpoint: &Value, id: &str) -> crate::resource::compose::contained::Network {
    let text = |pointer: &str| endpoint.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let aliases = endpoint.get("Aliases").and_then(Value::as_array).into_iter().flatten();
    crate::resource::compose::contained::Network {
        name: name.to_owned(),
        // Docker adds the short id by itself.
        aliases: aliases.filter_map(Value::as_str).filter(|alias| !id.starts_with(*alias)).map(str::to_owned).collect(),
        ipv4: text("/IPAMConfig/IPv4Address"),
        ipv6: text("/IPAMConfig/IPv6Address"),
    }
}

/// A part of the host: its name, what it is, and the code that prints it, in which `{}` stands for
/// how far to look back.
type Line = (&'static str, &'static str, &'static str);

/// What is gone with the next reboot, or sooner.
const MEMORY: &[Line] = &[
    (
        "time.txt",
        "the host's clock, uptime and boot",
        "date -u +%Y-%m-%dT%H:%M:%S.%NZ; cat /proc/uptime /proc/loadavg /proc/sys/kernel/random/boot_id; uname -a; cat /proc/cmdline",
    ),
    (
        "sockets.txt",
        "sockets with their processes",
        "command -v ss >/dev/null || { echo 'no ss on this host: see net.txt and fds.txt' >&2; exit 127; }; ss -tunapoe; ss -xap",
    ),
    (
        "net.txt",
        "the kernel's tables of sockets, neighbours and routes",
        "cd /proc/net && for f in tcp tcp6 udp udp6 raw raw6 unix packet arp route ipv6_route dev; do [ -r $f ] && { echo \"## $f\"; cat $f; }; done; :",
    ),
    (
        "processes.txt",
        "processes",
        "if command -v ps >/dev/null; then ps -ewwo pid,ppid,pgid,user:32,lstart,stat,args; else grep -as . /proc/[0-9]*/cmdline | tr '\\0' ' '; fi",
    ),
    ("commands.bin", "command lines, exactly", "grep -as . /proc/[0-9]*/cmdline; :"),
    (
        "programs.txt",
        "programs and working directories of processes",
        "ls -ld /proc/[0-9]*/exe /proc/[0-9]*/cwd /proc/[0-9]*/root 2>/dev/null; :",
    ),
    ("fds.txt", "open files of processes", "ls -l /proc/[0-9]*/fd 2>/dev/null; :"),
    ("cgroups.txt", "which process belongs to which container", "grep -s . /proc/[0-9]*/cgroup; :"),
    (
        "network.txt",
        "addresses, routes, neighbours",
        "command -v ip >/dev/null || exit 0; ip addr; ip rule; ip route show table all; ip neigh",
    ),
    (
        "firewall.txt",
        "loaded rules",
        "command -v nft >/dev/null && nft list ruleset; command -v iptables-save >/dev/null && iptables-save; :",
    ),
    (
        "logins.txt",
        "who is and was logged in",
        "command -v who >/dev/null && who -a; command -v last >/dev/null && last -Faiwn 1000; command -v lastb >/dev/null && lastb -Faiwn 1000; :",
    ),
    ("modules.txt", "kernel modules and mounts", "cat /proc/modules /proc/1/mountinfo; :"),
    ("kernel.txt", "the kernel's messages", "dmesg 2>/dev/null; :"),
    ("docker/ps.json", "containers", "command -v docker >/dev/null || exit 0; docker ps -a --no-trunc --format '{{json .}}'"),
    (
        "docker/events.json",
        "what happened to containers",
        "command -v docker >/dev/null || exit 0; docker events --since {} --until \"$(date +%s)\" --format '{{json .}}'",
    ),
];

/// What stays.
const DISK: &[Line] = &[
    (
        "docker/info.json",
        "the Docker engine",
        "command -v docker >/dev/null || exit 0; docker info --format '{{json .}}'; docker version --format '{{json .}}'; cat /etc/docker/daemon.json 2>/dev/null; :",
    ),
    (
        "docker/networks.json",
        "networks",
        "command -v docker >/dev/null || exit 0; docker network ls -q --no-trunc | xargs -r docker network inspect",
    ),
    ("docker/volumes.json", "volumes", "command -v docker >/dev/null || exit 0; docker volume ls -q | xargs -r docker volume inspect"),
    ("docker/images.json", "images", "command -v docker >/dev/null || exit 0; docker images -a --no-trunc --digests --format '{{json .}}'"),
    (
        "journal.txt",
        "the system's journal",
        "command -v journalctl >/dev/null || exit 0; journalctl --no-pager --utc -o short-iso-precise --since -{}",
    ),
    (
        "logs.tar",
        "logs outside of the journal",
        "cd /var/log && tar --warning=no-file-changed --atime-preserve=system --ignore-failed-read --exclude=./journal -cf - $(ls -d ./auth.log* ./syslog* ./audit ./sudo.log* ./wtmp* ./btmp* 2>/dev/null) /dev/null 2>/dev/null; :",
    ),
    (
        "accounts.txt",
        "users, groups, who may become root",
        "cat /etc/passwd /etc/group; cat /etc/sudoers /etc/sudoers.d/* 2>/dev/null; cut -d: -f1,3- /etc/shadow",
    ),
    (
        "authorized_keys.txt",
        "keys that let somebody in",
        "cut -d: -f6 /etc/passwd | sort -u | while IFS= read -r h; do for f in \"$h\"/.ssh/authorized_keys \"$h\"/.ssh/authorized_keys2; do [ -r \"$f\" ] && { echo \"## $f\"; cat \"$f\"; }; done; done; :",
    ),
    (
        "schedules.txt",
        "timers, cron and units",
        "command -v systemctl >/dev/null && { systemctl list-timers --all --no-pager; systemctl list-units --all --no-pager; }; for f in /etc/crontab /etc/cron.*/* /var/spool/cron/crontabs/*; do [ -f \"$f\" ] && { echo \"## $f\"; cat \"$f\"; }; done; :",
    ),
    ("etc.txt", "digests of /etc and of programs", "find /etc /usr/local -xdev -type f -print0 | xargs -0 -r sha256sum 2>/dev/null; :"),
    ("packages.txt", "packages", "command -v dpkg-query >/dev/null && dpkg-query -W; :"),
    (
        "soc-provision.tar",
        "what soc-provision noted on the host, without secrets",
        "cd /var/lib/soc-provision 2>/dev/null || exit 0; tar --atime-preserve=system --exclude=secrets --exclude=reserve --exclude='stacks/*/files' -cf - .",
    ),
];

/// The host itself.
pub(super) fn host(since: &str) -> Vec<Part> {
    let part = |line: &Line, volatile| Part {
        name: format!("host/{}", line.0),
        what: line.1,
        script: if line.2.contains("{}") { Script::sh(line.2, &[since]) } else { Script::sh(line.2, &[]) },
        volatile,
        needed: false,
    };
    MEMORY.iter().map(|line| part(line, true)).chain(DISK.iter().map(|line| part(line, false))).collect()
}

/// One container.
pub(super) fn container(target: &Target, export: bool) -> Vec<Part> {
    let place = format!("containers/{}", safe(&target.name));
    let id = target.id.as_str();
    let part = |name: &str, what, volatile, needed, script| Part { name: format!("{place}/{name}"), what, script, volatile, needed };
    let mut out = vec![part("inspect.json", "everything that Docker knows of it", true, true, Script::sh("docker inspect {}", &[id]))];
    if target.running {
        let pid = target.pid.to_string();
        out.push(part("top.txt", "its processes", true, true, Script::sh("docker top {} -ewwo pid,ppid,user:32,lstart,stat,args", &[id])));
        out.push(part(
            "sockets.txt",
            "the kernel's tables of its sockets, seen from outside of it",
            true,
            true,
            Script::sh("cd /proc/{}/net && for f in tcp tcp6 udp udp6 raw raw6 unix packet arp route ipv6_route dev; do [ -r $f ] && { echo \"## $f\"; cat $f; }; done; command -v nsenter >/dev/null && command -v ss >/dev/null && nsenter -t {} -n ss -tunapoe; :", &[&pid, &pid]),
        ));
        out.push(part(
            "processes.txt",
            "status, command line, environment, memory map, links and limits of its processes",
            true,
            false,
            Script::sh(
                "cd /proc || exit 1; for p in $(grep -ls {} [0-9]*/cgroup); do p=${p%/cgroup}; for f in status cmdline environ maps limits mountinfo cgroup; do printf '## %s/%s\\n' \"$p\" $f; cat \"$p/$f\" 2>/dev/null; echo; done; ls -l \"$p\" \"$p/fd\" 2>/dev/null; done; :",
                &[id],
            ),
        ));
    }
    out.push(part("diff.txt", "paths that differ from its image", false, true, Script::sh("docker diff {}", &[id])));
    out.push(part("logs.txt", "its logs", false, true, Script::sh("docker logs --timestamps {} 2>&1", &[id])));
    if export {
        out.push(part("filesystem.tar", "its file system", false, true, Script::sh("docker export {}", &[id])));
    }
    out
}

/// One volume, read without touching its files' times.
pub(super) fn volume(name: &str) -> Part {
    let script = Script::sh(
        "m=$(docker volume inspect -f '{{if .Options}}{{.Options.device}}{{end}}' {}) && { [ -n \"$m\" ] && [ \"$m\" != '<no value>' ] && [ -d \"$m\" ] || m=$(docker volume inspect -f '{{.Mountpoint}}' {}); } && tar --numeric-owner --xattrs --acls --atime-preserve=system -C \"$m\" -cf - .",
        &[name, name],
    );
    Part { name: format!("volumes/{}.tar", safe(name)), what: "a volume", script, volatile: false, needed: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_is_read_and_hostile_names_stay_names() {
        let target = Target::read(&json!({
            "Id": "0123456789abcdef", "Name": "/../../evil name", "State": {"Status": "running", "Pid": 77},
            "Config": {"Labels": {"com.docker.compose.project": "waf", "com.docker.compose.service": "app"}},
            "HostConfig": {"NetworkMode": "waf_net", "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 5}},
            "NetworkSettings": {"Networks": {"waf_net": {"Aliases": ["app", "0123456789ab"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}}}},
            "Mounts": [{"Type": "bind", "Source": "/x"}, {"Type": "volume", "Name": "data"}]
        }));
        assert_eq!((target.restart.as_str(), target.pid, target.running), ("on-failure:5", 77, true));
        assert_eq!((target.networks[0].aliases.as_slice(), target.networks[0].ipv4.as_str()), (["app".to_owned()].as_slice(), "10.0.0.9"));
        assert_eq!(target.volumes, ["data"]);
        let names: Vec<_> = container(&target, true).into_iter().map(|part| part.name).collect();
        assert!(names.iter().all(|name| name.starts_with("containers/_.._evil_name-")), "{names:?}");
    }

    #[test]
    fn every_script_is_shell_and_every_name_is_its_own() {
        let target = Target { id: "ab".into(), name: "web".into(), running: true, ..Target::default() };
        let mut parts = host("48h");
        parts.extend(container(&target, true));
        parts.push(volume("it's data"));
        let mut names: Vec<_> = parts.iter().map(|part| part.name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), parts.len());
        for part in parts {
            let code = part.script.fill(&crate::secret::Vault::default()).unwrap();
            let out = std::process::Command::new("/bin/sh").args(["-n", "-c"]).arg(&*code).output().unwrap();
            assert!(out.status.success(), "{}: {}", part.name, String::from_utf8_lossy(&out.stderr));
        }
    }
}
