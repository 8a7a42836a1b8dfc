//! What a place holds against what the host's resources claim.

use serde_json::Value;

use super::{Login, Target, Undeclared};
use crate::diagnostic::printable;
use crate::resource::observe::Answer;
use crate::resource::{Claim, Place, ResourceId, Severity};

/// Everything in a place that nobody claims.
pub(super) fn compare(place: &Place, answer: &Answer, claims: &[&Claim], login: &Login) -> Vec<Undeclared> {
    let lines: Vec<&str> = match answer {
        Answer::Raw(output) => output.stdout.lines().collect(),
        Answer::Line(Some(text)) => text.lines().collect(),
        _ => Vec::new(),
    };
    let file = |kind: &str, severity, what: &str| files(place, &lines, claims, kind, severity, what);
    match place {
        Place::Containers => containers(answer, claims),
        Place::Networks => objects(place, &lines, claims, "docker_network"),
        Place::Volumes => objects(place, &lines, claims, "docker_volume"),
        Place::Ports => lines.iter().filter_map(|line| port(line, claims, login)).collect(),
        Place::Users => users(&lines, claims, login),
        Place::AuthorizedKeys => {
            let mut found = file("sshd_config", Severity::Security, "nobody declared this file of sshd's, which may let others log in");
            found.retain(|item| matches!(&item.target, Target::Path(path) if !is_owned(path, claims)));
            found.extend(keys(&lines, claims, login));
            found
        }
        Place::Cron => file("cron", Severity::Security, "nobody declared this job"),
        Place::Timers => file("timer", Severity::Security, "nobody declared this timer"),
        Place::Units => file("systemd_unit", Severity::Security, "nobody declared this unit or drop-in"),
        Place::NftTables => {
            let mut found = tables(lines.first().copied().unwrap_or_default(), claims);
            found.extend(lines.iter().filter_map(|line| rule(line)));
            found
        }
        Place::Sudoers => file("sudoers", Severity::Security, "nobody declared this file"),
        Place::Repositories => file("repository", Severity::Security, "nobody declared this source, key or setting of apt"),
        Place::PackageConfig => file("package_config", Severity::Config, "it is not as its package brought it, and nobody declared it"),
        Place::Startup => {
            let mut found = file("startup", Severity::Security, "code starts by this file, and nobody declared it");
            let altered = lines.iter().filter_map(|line| line.strip_prefix("! ")).filter(|path| !is_claimed(path, claims));
            let what = "it is not as the system made it: code that starts by itself may hang on it";
            found.extend(altered.map(|path| item(place, "startup", path, Severity::Security, what, Target::None)));
            found
        }
        Place::Setuid => programs(&lines, claims),
        Place::Directory(_) => file("file", Severity::Config, "nobody declared this file"),
    }
}

fn item(place: &Place, kind: &str, name: &str, severity: Severity, detail: &str, target: Target) -> Undeclared {
    let id = ResourceId::new(kind, printable(name));
    Undeclared { id, severity, detail: printable(detail), place: place.clone(), target }
}

/// Whether a path is some resource's.
fn is_claimed(path: &str, claims: &[&Claim]) -> bool {
    claims.iter().any(|claim| matches!(claim, Claim::Path(claimed) if claimed == path))
}

/// Whether a path is below a directory that is a place of its own, where it is told of.
fn is_owned(path: &str, claims: &[&Claim]) -> bool {
    claims.iter().any(|claim| match claim {
        Claim::Owns(Place::Directory(owned)) => path.strip_prefix(owned.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/')),
        _ => false,
    })
}

/// `r FAMILY TABLE CHAIN RULE`: a rule that somebody put into one of Docker's tables.
fn rule(line: &str) -> Option<Undeclared> {
    let name = line.strip_prefix("r ")?;
    let what = "nobody declared this rule in a table of Docker's, whose other rules it may go before";
    Some(item(&Place::NftTables, "nft_rule", name, Severity::Security, what, Target::None))
}

fn files(place: &Place, lines: &[&str], claims: &[&Claim], kind: &str, severity: Severity, what: &str) -> Vec<Undeclared> {
    let claimed = |path: &str| {
        claims.iter().any(|claim| match claim {
            Claim::Path(claimed) => claimed == path,
            // A file of its own in the same place: sshd's drop-ins are a directory that is owned.
            Claim::Timer(timer) => path == format!("/etc/systemd/system/{timer}") || path == format!("/etc/systemd/system/{timer}.timer"),
            _ => false,
        })
    };
    lines
        .iter()
        .filter(|path| path.starts_with('/') && !claimed(path))
        .map(|path| {
            let severity = if SENSITIVE.iter().any(|start| path.starts_with(start)) { Severity::Security } else { severity };
            item(place, kind, path, severity, what, Target::Path((*path).to_owned()))
        })
        .collect()
}

/// Capabilities that packages give to tools of the network.
const USUAL: &[&str] = &["cap_net_raw", "cap_net_admin", "cap_net_bind_service", "cap_sys_nice"];

/// Programs that give more than their caller has.
fn programs(lines: &[&str], claims: &[&Claim]) -> Vec<Undeclared> {
    let place = Place::Setuid;
    let one = |path: &str, what: &str| item(&place, "setuid", path, Severity::Security, what, Target::Path(path.to_owned()));
    let mut out = files(&place, lines, claims, "setuid", Severity::Security, "no package brought this program, which runs as its owner");
    for line in lines {
        match line.split_once(' ') {
            Some(("p", path)) => out.push(one(path, "it runs as its owner or group, and its package is not known to want that")),
            Some((word @ ("c" | "k"), rest)) => {
                let Some((path, capabilities)) = rest.rsplit_once(' ') else { continue };
                let names = capabilities.split(['=', '+']).next().unwrap_or_default();
                let usual = !names.is_empty() && names.split(',').all(|name| USUAL.contains(&name));
                if word == "c" || !usual {
                    out.push(one(path, &format!("whoever runs it has {capabilities}: nobody declared that")));
                }
            }
            _ => {}
        }
    }
    out
}

/// Where a file decides who may do what.
const SENSITIVE: &[&str] = &[
    "/etc/apt/",
    "/etc/audit/",
    "/etc/cron",
    "/etc/docker/",
    "/etc/init.d/",
    "/etc/ld.so",
    "/etc/pam.d/",
    "/etc/profile",
    "/etc/security/",
    "/etc/ssh/",
    "/etc/sudo",
    "/etc/sysctl.d/",
    "/etc/systemd/",
    "/root/",
];

fn objects(place: &Place, lines: &[&str], claims: &[&Claim], kind: &str) -> Vec<Undeclared> {
    let is_project = |name: &str| claims.iter().any(|claim| matches!(claim, Claim::ComposeProject(project) if project == name));
    let anonymous = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mounted = |name: &str| {
        lines
            .iter()
            .filter_map(|line| line.strip_prefix("m ")?.split_once(' '))
            .any(|(project, mounts)| is_project(project) && mounts.split(',').any(|one| one == name))
    };
    let declared = |name: &str| {
        claims.iter().any(|claim| matches!(claim, Claim::DockerObject(known) if known == name)) || (anonymous(name) && mounted(name))
    };
    lines
        .iter()
        .filter(|name| !name.is_empty() && !name.starts_with("m ") && !matches!(**name, "bridge" | "host" | "none") && !declared(name))
        .map(|name| item(place, kind, name, Severity::Config, "nobody declared it", Target::Name((*name).to_owned())))
        .collect()
}

fn containers(answer: &Answer, claims: &[&Claim]) -> Vec<Undeclared> {
    let Answer::Json(Some(Value::Array(list))) = answer else { return Vec::new() };
    list.iter()
        .filter_map(|container| {
            let label = |name: &str| container.pointer("/Config/Labels")?.get(format!("com.docker.compose.{name}"))?.as_str();
            // What `docker compose run` makes is no service's, so the stack itself does not look at it.
            let one_off = label("oneoff") == Some("True");
            let of_stack = |name: &str| claims.iter().any(|claim| matches!(claim, Claim::ComposeProject(project) if project == name));
            let declared = !one_off && label("project").is_some_and(of_stack);
            let name = container.get("Name").and_then(Value::as_str).unwrap_or("?").trim_start_matches('/');
            let image = container.pointer("/Config/Image").and_then(Value::as_str).unwrap_or("?");
            let state = container.pointer("/State/Status").and_then(Value::as_str).unwrap_or("?");
            let more = if container.pointer("/HostConfig/Privileged").and_then(Value::as_bool) == Some(true) { ", privileged" } else { "" };
            let detail = format!("{state} container of image {image}{more}: nobody declared it");
            let id = container.get("Id").and_then(Value::as_str).unwrap_or_default();
            (!declared).then(|| item(&Place::Containers, "container", name, Severity::Security, &detail, Target::Name(id.to_owned())))
        })
        .collect()
}

/// A line of `ss -H -ltunp`: protocol, state, queues, local address, peer, process.
fn port(line: &str, claims: &[&Claim], login: &Login) -> Option<Undeclared> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (protocol, local) = (words.first()?, words.get(4)?);
    let (address, number) = local.rsplit_once(':')?;
    let number: u16 = number.parse().ok()?;
    let address = address.trim_matches(['[', ']']).split('%').next().unwrap_or_default().trim_matches(['[', ']']);
    let process = words.get(6).copied().unwrap_or_default();
    let loopback = address.starts_with("127.") || address.starts_with("[::ffff:127.") || address == "::1";
    let declared = claims.iter().any(|claim| match claim {
        Claim::PublishedPort { port, protocol: declared, .. } | Claim::AllowedPort { port, protocol: declared } => {
            *port == number && declared == protocol
        }
        _ => false,
    });
    // The door we came in by, and the clients of DHCP and NTP, are everyone's.
    let server = process.is_empty() || ["\"sshd", "\"systemd\"", "\"dropbear\""].iter().any(|name| process.contains(name));
    let known = (*protocol == "tcp" && number == login.port && server) || (*protocol == "udp" && matches!(number, 68 | 546 | 123 | 323));
    let who: String = process.split('"').nth(1).map(|name| format!(" by {name}")).unwrap_or_default();
    let shown = if address == "*" || address == "0.0.0.0" || address == "::" { "every address" } else { address };
    let detail = format!("listened on{who}, on {shown}: nobody declared it");
    (!loopback && !declared && !known)
        .then(|| item(&Place::Ports, "port", &format!("{number}/{protocol}"), Severity::Security, &detail, Target::None))
}

/// Accounts with a shell that packages bring, locked.
const SERVICES: &[&str] = &["postgres", "sync"];

fn users(lines: &[&str], claims: &[&Claim], login: &Login) -> Vec<Undeclared> {
    let declared = |name: &str| claims.iter().any(|claim| matches!(claim, Claim::User(user) if user == name));
    let mut out = Vec::new();
    let mut logins = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split(':').collect();
        if let ["u", name, uid, shell, home, password] = words[..] {
            let no_login = ["/nologin", "/false", "/sync", "/halt", "/shutdown"].iter().any(|end| shell.ends_with(end));
            let known = declared(name) || name == "root" || name == login.user || (SERVICES.contains(&name) && password == "locked");
            if !no_login && (!known || (uid == "0" && name != "root")) {
                logins.push(name);
                let detail = format!("uid {uid}, shell {shell}, home {home}: nobody declared this login");
                out.push(item(&Place::Users, "user", name, Severity::Security, &detail, Target::Name(name.to_owned())));
            } else if password == "none" && !no_login {
                let detail = "it has no password: whoever is on the host can become it";
                out.push(item(&Place::Users, "user", name, Severity::Security, detail, Target::None));
            }
        }
    }
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["f", path, mode, owner] = words[..] {
            let detail = format!("mode {mode}, owner {owner}: others than root may change accounts in it, or read their hashes");
            out.push(item(&Place::Users, "account_file", path, Severity::Security, &detail, Target::None));
        }
        if let [how @ ("g" | "p"), group, user] = words[..] {
            let wanted = claims.iter().any(|claim| matches!(claim, Claim::Member { user: u, group: g } if u == user && g == group));
            if !wanted && user != login.user && user != "root" && !logins.contains(&user) {
                let detail = format!("`{user}` is in group `{group}`, which is as good as root: nobody declared it");
                let member = Target::Member { user: user.to_owned(), group: group.to_owned() };
                // Everybody has a first group: which it should be, nobody said.
                let target = if how == "g" { member } else { Target::None };
                out.push(item(&Place::Users, "group_member", &format!("{group}: {user}"), Severity::Security, &detail, target));
            }
        }
    }
    out
}

fn keys(lines: &[&str], claims: &[&Claim], login: &Login) -> Vec<Undeclared> {
    let mut out = Vec::new();
    for line in lines {
        let mut parts = line.splitn(3, '\t');
        let (Some(user), Some(path), Some(entry)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let words: Vec<&str> = entry.split_whitespace().collect();
        let known = claims
            .iter()
            .any(|claim| matches!(claim, Claim::AuthorizedKey { user: owner, key } if owner == user && words.contains(&key.as_str())));
        let managed = claims.iter().any(|claim| matches!(claim, Claim::AuthorizedKey { user: owner, .. } if owner == user));
        let usual = path.ends_with("/.ssh/authorized_keys");
        // Keys of the login user are the inventory's business unless some are declared.
        if (known && usual) || (user == login.user && !managed && usual) {
            continue;
        }
        let data = words.iter().find(|word| word.starts_with("AAAA")).copied().unwrap_or(entry);
        let tail: String = data.chars().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect();
        let comment = words.last().filter(|last| **last != data).map(|last| format!(" {last}")).unwrap_or_default();
        let name = format!("{user}: ...{tail}{}", comment.chars().take(60).collect::<String>());
        let detail = format!("a key in {path} that nobody declared may log in as `{user}`");
        let target = Target::Line { path: path.to_owned(), line: entry.to_owned() };
        out.push(item(&Place::AuthorizedKeys, "authorized_key", &name, Severity::Security, &detail, target));
    }
    out
}

fn tables(json: &str, claims: &[&Claim]) -> Vec<Undeclared> {
    let parsed: Value = serde_json::from_str(json).unwrap_or_default();
    let list = parsed.get("nftables").and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter()
        .filter_map(|entry| {
            let table = entry.get("table")?;
            let (family, name) = (table.get("family")?.as_str()?, table.get("name")?.as_str()?);
            let full = format!("{family} {name}");
            let dockers = matches!(name, "nat" | "filter" | "raw" | "mangle" | "docker-bridges") && matches!(family, "ip" | "ip6");
            let declared = claims.iter().any(|claim| matches!(claim, Claim::NftTable(table) if *table == full));
            (!dockers && !declared).then(|| {
                item(&Place::NftTables, "nft_table", &full, Severity::Security, "nobody declared this table", Target::Name(full.clone()))
            })
        })
        .collect()
}
