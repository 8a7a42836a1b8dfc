//! The interview's script: one command for each kind of question.

use super::{Topics, secret_record};
use crate::shell::Script;

/// Longest list of names for one command, in bytes: the kernel takes 128 KiB for certain.
const MAX_NAMES: usize = 96 << 10;

/// What every section needs: plain messages, and stdout kept apart from a command's stderr.
const PROLOGUE: &str = "LC_ALL=C; export LC_ALL; unset POSIXLY_CORRECT; exec 3>&1\n";

/// Whether Docker answers. Asking its socket would start a stopped daemon where systemd listens
/// for it, and a probe changes nothing, so the daemon's process is looked for.
const DOCKER_UP: &str = "d=; if command -v docker >/dev/null; then d=1; if [ -d /run/systemd/system ]; then d=; \
    p=; if [ -r /run/docker.pid ]; then read -r p </run/docker.pid || :; fi; \
    if [ -n \"$p\" ] && [ -d \"/proc/$p\" ]; then d=1; fi; fi; fi\n";

pub(super) fn script(topics: &Topics<'_>, nonce: &str) -> Script {
    let body = files(topics, nonce).append(system(topics, nonce)).append(docker(topics, nonce)).append(raw(topics, nonce));
    if body.is_empty() {
        return body;
    }
    Script::sh(PROLOGUE, &[]).append(body).then("printf '\\n%s end\\n' {}\n", &[nonce])
}

/// A section: what a command prints, then its status and what it said on stderr. In a command
/// substitution the shell becomes its only command, so this costs one process, not two.
fn section(name: &str, nonce: &str, command: Script) -> Script {
    Script::sh("printf '\\n%s %s\\n' {} {}; e=$(", &[nonce, name])
        .append(command)
        .then(" 2>&1 >&3); printf '\\n%s/ %s %d\\n%s' {} {} $? \"$e\"\n", &[nonce, name])
}

/// Code with a list of names behind it.
fn listing(before: &'static str, names: &[&str]) -> Script {
    names.iter().fold(Script::sh(before, &[]), |script, name| script.then(" {}", &[name]))
}

/// What paths carry besides owner and mode: a line of `ls` for each that has an access list, one of
/// `lsattr` for each that is locked, one of `getcap` for each that has capabilities. A host that
/// lacks a tool has nothing to say; what has none of these costs no line.
const MARKS: &str = "; PATH=$PATH:/usr/sbin:/sbin; { ls -dlU --quoting-style=c -- \"$@\"; \
    if command -v lsattr >/dev/null; then lsattr -d -- \"$@\"; fi; if command -v getcap >/dev/null; then getcap \"$@\"; fi; } 2>/dev/null \
    | grep -a -e '^[^ /]*+ ' -e '^[^ /]*[ia][^ /]* /' -e '^/'; :; }";

/// What stands for the found paths in `find -exec`.
const FOUND: &str = "{}";

/// Names in groups that fit a command line.
pub(super) fn batches<'n, 'a>(names: &'n [&'a str]) -> Vec<&'n [&'a str]> {
    let mut out = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (index, name) in names.iter().enumerate() {
        if size + name.len() > MAX_NAMES && index > start {
            out.push(&names[start..index]);
            (start, size) = (index, 0);
        }
        size += name.len() + 1;
    }
    if start < names.len() {
        out.push(&names[start..]);
    }
    out
}

fn files(topics: &Topics<'_>, nonce: &str) -> Script {
    let mut script = Script::new();
    for (index, paths) in batches(&topics.paths).into_iter().enumerate() {
        // `%N` in the literal style is the name, ` -> ` and a link's target.
        let stat = r"QUOTING_STYLE=literal stat --printf='%f\0%u\0%g\0%s\0%U\0%G\0%n\0%N\0%h\0' --";
        script = script.append(section(&format!("stat{index}"), nonce, listing(stat, paths)));
        script = script.append(section(&format!("marks{index}"), nonce, listing("{ set --", paths).then(MARKS, &[])));
    }
    for (index, paths) in batches(&topics.digests).into_iter().enumerate() {
        let command = listing("find", paths).then(" -maxdepth 0 -type f -exec sha256sum -z -- {} +", &[FOUND]);
        script = script.append(section(&format!("digest{index}"), nonce, command));
    }
    for (index, paths) in batches(&topics.contents).into_iter().enumerate() {
        // `find` prints the sizes before it runs the rest; the digests prove where to cut.
        let command = listing("find -H", paths)
            .then(r" -maxdepth 0 \( ! -type f -printf 'other\0%s\0%p\0' \) -o \( -size +1048576c -printf 'large\0%s\0%p\0' \)", &[])
            .then(r" -o \( -printf 'file\0%s\0%p\0' -exec sha256sum -z -- {} + -exec cat -- {} + \)", &[FOUND, FOUND]);
        script = script.append(section(&format!("content{index}"), nonce, command));
    }
    for (index, paths) in batches(&topics.secret_files).into_iter().enumerate() {
        script = script.append(secret_files(&format!("secret{index}"), paths, nonce));
    }
    script
}

/// Compares on the host: the digest of a short secret would give it away.
fn secret_files(name: &str, paths: &[&str], nonce: &str) -> Script {
    let digests = listing("find", paths).then(" -maxdepth 0 -type f -exec sha256sum -- {} +", &[FOUND]);
    let script = Script::sh("n='\n'; b=$({ ", &[])
        .append(digests)
        .then("; } 2>&1); b=$n$b$n; w() { f=; s=; if [ -r \"$1\" ]; then { read -r f && read -r s; } <\"$1\" || s=; fi\n", &[])
        .then("case $b in *\"  $2$n\"*) ;; *) printf 'absent\\0\\0'; return;; esac\n", &[])
        .then("case $b in *\"$n$s  $2$n\"*) printf 'same\\0%s\\0' \"$f\";; *) printf 'differs\\0%s\\0' \"$f\";; esac; }\n", &[]);
    let failed = "{ case $b in *\"${n}sha256sum: \"*) echo 'a file cannot be read' >&2;; esac";
    let mut checks = Script::sh(failed, &[]);
    for path in paths {
        checks = checks.then("; w {} {}", &[&secret_record(path), path]);
    }
    script.append(section(name, nonce, checks.then("; }", &[]))).then("b=\n", &[])
}

fn system(topics: &Topics<'_>, nonce: &str) -> Script {
    let mut script = Script::new();
    for (index, names) in batches(&topics.packages).into_iter().enumerate() {
        let query = r"dpkg-query -W -f='${db:Status-Abbrev}\t${Version}\t${Package}:${Architecture}\n' --";
        script = script.append(section(&format!("dpkg{index}"), nonce, listing(query, names)));
    }
    for (index, names) in batches(&topics.units).into_iter().enumerate() {
        let show = "if [ -d /run/systemd/system ]; then systemctl show --no-pager -p LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload --";
        let command = listing(show, names).then("; else printf none; fi", &[]);
        script = script.append(section(&format!("unit{index}"), nonce, command));
    }
    if !topics.users.is_empty() {
        script = script.append(section("passwd", nonce, listing("getent passwd --", &topics.users)));
        // Names and days, no hashes.
        script = script.append(section(
            "expiry",
            nonce,
            Script::sh("{ if [ -r /etc/shadow ]; then date +%s; cut -d: -f1,8 /etc/shadow; fi; }", &[]),
        ));
    }
    if !topics.users.is_empty() || !topics.groups.is_empty() {
        script = script.append(section("group", nonce, Script::sh("getent group", &[])));
    }
    if !topics.sysctls.is_empty() {
        script = script.append(sysctls(&topics.sysctls, nonce));
    }
    if !topics.modules.is_empty() {
        script = script.append(modules(&topics.modules, nonce));
    }
    if topics.listening {
        script = script.append(section("ss", nonce, Script::sh("ss -H -ltunp", &[])));
    }
    script
}

/// One `grep` for all: the kernel gives a setting only to a reader that takes it in one piece,
/// and dash's `read` takes one byte at a time. `absent PATH`, or `PATH:VALUE` for each line.
fn sysctls(names: &[&str], nonce: &str) -> Script {
    let mut command = Script::sh("{ for p in", &[]);
    for name in names {
        command = command.then(" {}", &[&sysctl_path(name)]);
    }
    command = command.then("; do if [ ! -e \"$p\" ]; then printf 'absent %s\\n' \"$p\"; fi; done; grep -sH ''", &[]);
    for name in names {
        command = command.then(" {}", &[&sysctl_path(name)]);
    }
    section("sysctl", nonce, command.then("; :; }", &[]))
}

/// The file of a kernel setting. As in sysctl.d(5): if the first separator is a dot, dots separate
/// and slashes stand for dots.
#[must_use]
pub fn sysctl_path(name: &str) -> String {
    let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if slashes { name.to_owned() } else { name.chars().map(swap).collect() };
    format!("/proc/sys/{path}")
}

/// What is loaded is a directory of `/sys/module`; what is built in without parameters is only in
/// the kernel's list.
fn modules(names: &[&str], nonce: &str) -> Script {
    let mut command = Script::sh("{ m() { if [ -d \"/sys/module/$1\" ]; then printf '%s\\0' \"$1\"; fi; }", &[]);
    for name in names {
        command = command.then("; m {}", &[&name.replace('-', "_")]);
    }
    let pattern = names.iter().map(|name| name.replace(['-', '_'], "[-_]")).collect::<Vec<_>>().join("|");
    let pattern = format!("/({pattern})\\.ko");
    let builtin = "; read -r k </proc/sys/kernel/osrelease; k=/lib/modules/$k/modules.builtin; if [ -r \"$k\" ]; then grep -oE -e {} \"$k\"; fi; :; }";
    section("module", nonce, command.then(builtin, &[&pattern]))
}

fn docker(topics: &Topics<'_>, nonce: &str) -> Script {
    let mut script = Script::new();
    let mut ask = |name: &str, command: Script| {
        let command = Script::sh("if [ -n \"$d\" ]; then ", &[]).append(command).then("; else printf none; fi", &[]);
        script = std::mem::take(&mut script).append(section(name, nonce, command));
    };
    if topics.docker_info {
        ask("docker-info", Script::sh("docker info --format {}", &["{{json .}}"]));
    }
    if topics.containers {
        ask("containers", Script::sh("docker ps -aq --no-trunc | xargs -r docker container inspect", &[]));
    }
    let lists = [
        ("images", "docker image inspect", &topics.images),
        ("networks", "docker network inspect", &topics.networks),
        ("volumes", "docker volume inspect", &topics.volumes),
    ];
    for (name, command, list) in lists {
        for (index, names) in batches(list).into_iter().enumerate() {
            ask(&format!("{name}{index}"), listing(command, names));
        }
    }
    if script.is_empty() { script } else { Script::sh(DOCKER_UP, &[]).append(script) }
}

/// Each in a subshell and behind `eval`, so that nothing a fragment does, not even a syntax
/// error, touches the other answers.
fn raw(topics: &Topics<'_>, nonce: &str) -> Script {
    topics.raw.iter().enumerate().fold(Script::new(), |script, (index, (_, fragment))| {
        let name = format!("raw{index}");
        script
            .then("x=$(exec 3>&- </dev/null 2>/dev/null; ", &[])
            .eval((*fragment).clone())
            .then("); s=$?; printf '\\n%s %s\\n%s\\n%s/ %s %d\\n' {} {} \"$x\" {} {} $s\n", &[nonce, &name, nonce, &name])
    })
}
