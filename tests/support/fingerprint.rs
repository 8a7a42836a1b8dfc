//! Whether two hosts are identical (DESIGN 8.21): one line for everything that counts, by its
//! place; two hosts are identical if they have the same lines. What is left out is in
//! [`EXCEPTIONS`], each with its reason, and nowhere else.

use std::collections::BTreeMap;

/// Everything that counts, by place: `file /etc/x` -> `f 644 root:root 12 SHA256`.
pub(crate) type Fingerprint = BTreeMap<String, String>;

/// Paths that differ between hosts that were told the same, and why that is right. Reviewed:
/// a path comes in here only with a reason that holds on every host.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("/etc/machine-id", "names the host"),
    ("/etc/hostname", "names the host"),
    ("/etc/hosts", "names the host"),
    ("/etc/resolv.conf", "the lab's, not ours"),
    ("/etc/ssh/ssh_host_*", "the host's own keys"),
    ("/etc/passwd-", "a copy from before somebody's last change: how many there were is no state"),
    ("/etc/group-", "as passwd-"),
    ("/etc/shadow-", "as passwd-"),
    ("/etc/gshadow-", "as passwd-"),
    ("/etc/subuid-", "as passwd-"),
    ("/etc/subgid-", "as passwd-"),
    ("/etc/shadow", "salts and days of change; the accounts are compared by `user`"),
    ("/etc/.updated", "systemd's stamp of when it looked at /etc"),
    ("/etc/soc-lab", "the lab's, not ours"),
    ("/var/lib/soc-provision/journal", "names runs"),
    ("/var/lib/soc-provision/last", "names the run"),
    ("/var/lib/soc-provision/lock", "empty, and may be any host's first file"),
    ("/var/lib/soc-provision/lock.holder", "names the run"),
    ("/var/lib/soc-provision/reserve", "room for the journal, made by the first run that finds room"),
    ("/var/lib/systemd", "seeds, stamps of timers, clocks"),
    ("/var/lib/dbus/machine-id", "names the host"),
    ("/var/lib/apt/lists", "what the archive said at that time"),
    ("/var/lib/apt/periodic", "stamps"),
    ("/var/lib/apt/extended_states", "order of entries; the packages are compared by `package`"),
    ("/var/lib/dpkg/*-old", "a copy from before the last change"),
    ("/var/lib/dpkg/status", "order of entries; the packages are compared by `package`"),
    ("/var/lib/dpkg/available", "what dpkg has seen on the way"),
    ("/var/lib/dpkg/lock*", "empty"),
    ("/var/lib/dpkg/triggers/Lock", "empty"),
    ("/var/lib/ucf/*.[0-9]", "copies from before the last changes"),
    ("/var/lib/containerd", "compared as `docker`"),
    ("/var/lib/docker", "compared as `docker`"),
    ("/var/lib/logrotate", "stamps"),
    ("/var/lib/private", "the services' own"),
    ("/var/lib/nftables", "compared as `nft`"),
    ("/var/lib/sudo/lectured", "who was told"),
    ("/root/.ssh", "the lab's keys"),
];

/// Where files count.
const ROOTS: &str = "/etc /usr/local /opt /srv /root /home /var/lib /var/spool/cron";

/// The code that prints the fingerprint: `PLACE<tab>WORDS` a line. Needs root.
fn script() -> String {
    let tests: Vec<String> = EXCEPTIONS.iter().map(|(path, _)| format!("-path '{path}'")).collect();
    format!(
        r#"LC_ALL=C; export LC_ALL; cd /
find {ROOTS} -xdev \( {tests} \) -prune -o ! -type f -printf 'file %p\t%y %m %u:%g %l\n' 2>/dev/null
find {ROOTS} -xdev \( {tests} \) -prune -o -type f -printf 'file %p\t%y %m %u:%g %s\n' 2>/dev/null
find {ROOTS} -xdev \( {tests} \) -prune -o -type f -print0 2>/dev/null | xargs -0r sha256sum | while read -r d p; do printf 'content %s\t%s\n' "$p" "$d"; done
dpkg-query -W -f 'package ${{Package}}:${{Architecture}}\t${{Version}} ${{db:Status-Abbrev}}\n'
apt-mark showmanual | while read -r p; do printf 'manual %s\tyes\n' "$p"; done
getent passwd | while IFS=: read -r n x r; do printf 'user %s\t%s\n' "$n" "$r"; done
getent group | while IFS=: read -r n x r; do printf 'group %s\t%s\n' "$n" "$r"; done
while IFS=: read -r n p r; do case $p in '!'*|'*'*) p=locked;; '') p=empty;; *) p=set;; esac; printf 'password %s\t%s\n' "$n" "$p"; done </etc/shadow
systemctl list-unit-files --no-legend --no-pager | while read -r u s x; do [ "$s" = transient ] || printf 'enabled %s\t%s\n' "$u" "$s"; done
systemctl list-units --all --no-legend --no-pager --plain --type=service,timer,socket,mount | while read -r u l a s x; do
  case $u in run-*|user@*|user-runtime*|session-*|ssh@*|soc-provision-step-*|systemd-*|apt-daily*|dpkg-*|e2scrub*|getty@*|console-getty*|container-getty*|*.mount) continue;; esac
  [ "$l" = loaded ] || continue
  case $s in elapsed|exited|dead) s=dead;; waiting|running|listening) s=up;; esac
  printf 'unit %s\t%s %s\n' "$u" "$a" "$s"; done
cat /etc/sysctl.conf /etc/sysctl.d/*.conf 2>/dev/null | while IFS='= ' read -r k v; do
  case $k in ''|'#'*|';'*|*'*'*) continue;; esac; k=${{k#-}}; printf 'sysctl %s\t%s\n' "$k" "$(sysctl -n "$k" 2>/dev/null)"; done
if command -v nft >/dev/null; then nft -s list ruleset 2>/dev/null | sed -E 's/br-[0-9a-f]{{12}}/br-ID/g' | awk '/^table/ {{ t = $2 " " $3; n = 0 }} {{ n++; printf "nft %s %04d\t%s\n", t, n, $0 }}'; fi
crontab -l 2>/dev/null | awk '{{ printf "cron root %d\t%s\n", NR, $0 }}'
if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
  docker ps -aq | xargs -r docker inspect --format 'docker container{{{{.Name}}}}	{{{{.Config.Image}}}} {{{{.Image}}}} {{{{.State.Status}}}} {{{{if .State.Health}}}}{{{{.State.Health.Status}}}}{{{{end}}}} {{{{json .Config.Env}}}} {{{{json .Config.Cmd}}}} {{{{json .Config.User}}}} {{{{json .HostConfig.Binds}}}} {{{{json .HostConfig.PortBindings}}}} {{{{json .HostConfig.SecurityOpt}}}} {{{{json .HostConfig.CapDrop}}}} {{{{json .HostConfig.Memory}}}} {{{{json .HostConfig.ReadonlyRootfs}}}} {{{{json .HostConfig.RestartPolicy}}}} {{{{index .Config.Labels "com.docker.compose.config-hash"}}}}'
  docker images --no-trunc --format 'docker image {{{{.Repository}}}}:{{{{.Tag}}}}	{{{{.ID}}}}'
  docker network ls -q | xargs -r docker network inspect --format 'docker network {{{{.Name}}}}	{{{{.Driver}}}} {{{{.Internal}}}} {{{{json .IPAM.Config}}}}'
  docker volume ls --format 'docker volume {{{{.Name}}}}	{{{{.Driver}}}}'
fi
"#,
        tests = tests.join(" -o ")
    )
}

/// Takes a host's fingerprint; `sh` runs code as root on it and gives what it prints.
pub(crate) fn take(sh: impl FnOnce(&str) -> String) -> Fingerprint {
    let said = sh(&script());
    let print: Fingerprint = said.lines().filter_map(|line| line.split_once('\t')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    for kind in ["file /etc", "content /etc", "package ", "user root", "enabled ", "unit "] {
        assert!(print.keys().any(|key| key.starts_with(kind)), "nothing of kind `{kind}` was read: {said}");
    }
    print
}

/// Where two hosts differ: `place: one | other`.
pub(crate) fn differences(one: &Fingerprint, other: &Fingerprint) -> Vec<String> {
    let mut places: Vec<&String> = one.keys().chain(other.keys()).collect();
    places.sort();
    places.dedup();
    let shown = |value: Option<&String>| value.map_or("absent", String::as_str).to_owned();
    places
        .into_iter()
        .filter(|place| one.get(*place) != other.get(*place))
        .map(|place| format!("{place}: {} | {}", shown(one.get(place)), shown(other.get(place))))
        .collect()
}
