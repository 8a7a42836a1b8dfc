//! Things on a host that nobody declared, in places that the project owns (DESIGN 8.10).
//!
//! Pure: questions for the probe, and a comparison of the answers with what the host's resources
//! claim. Nothing is ever removed from here.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::diagnostic::printable;
use crate::resource::observe::{Answer, Observations, Question};
use crate::resource::{Claim, Place, ResourceId, Severity};
use crate::shell::Script;

/// Something that nobody declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undeclared {
    /// `container[rogue]`, `user[eve]`, ...
    pub id: ResourceId,
    pub severity: Severity,
    /// What is known of it.
    pub detail: String,
}

fn raw(key: &str, code: &'static str) -> Question {
    Question::Raw { key: format!("undeclared/{key}"), script: Script::sh(code, &[]) }
}

fn question(place: &Place) -> Question {
    match place {
        Place::Containers => Question::Containers,
        Place::Ports => Question::Listening,
        Place::Networks => raw(
            "networks",
            "command -v docker >/dev/null || exit 0; docker network ls --format '{{.Name}} {{.Label \"com.docker.compose.project\"}}'",
        ),
        Place::Volumes => raw(
            "volumes",
            "command -v docker >/dev/null || exit 0; docker volume ls --format '{{.Name}} {{.Label \"com.docker.compose.project\"}}'",
        ),
        Place::Users => raw(
            "users",
            "while IFS=: read -r n x u g c h s; do case $s in */nologin|*/false|*/sync|'') ;; *) echo \"$n $u $s\";; esac; done </etc/passwd",
        ),
        Place::AuthorizedKeys => raw(
            "keys",
            "while IFS=: read -r n x u g c h s; do for f in \"$h\"/.ssh/authorized_keys \"$h\"/.ssh/authorized_keys2; do [ -r \"$f\" ] && while IFS= read -r l || [ -n \"$l\" ]; do printf '%s %s\\n' \"$n\" \"$l\"; done <\"$f\"; done; done </etc/passwd; :",
        ),
        Place::Cron => raw(
            "cron",
            "for f in /etc/cron.d/* /var/spool/cron/crontabs/*; do [ -f \"$f\" ] || continue; case $f in */.placeholder) continue;; /etc/cron.d/*) dpkg -S \"$f\" >/dev/null 2>&1 && continue;; esac; printf '%s\\n' \"$f\"; done",
        ),
        Place::Timers => raw(
            "timers",
            "for f in /etc/systemd/system/*.timer; do [ -f \"$f\" ] && [ ! -L \"$f\" ] && printf '%s\\n' \"${f##*/}\"; done; :",
        ),
        Place::NftTables => raw("nft", "command -v nft >/dev/null || exit 0; nft -j list tables"),
        Place::Sudoers => {
            raw("sudoers", "for f in /etc/sudoers.d/*; do [ -f \"$f\" ] && [ \"${f##*/}\" != README ] && printf '%s\\n' \"$f\"; done; :")
        }
        Place::Directory(path) => Question::Raw {
            key: format!("undeclared/directory/{path}"),
            script: Script::sh(
                "[ -d {} ] || exit 0; find {} -mindepth 1 -maxdepth 6 ! -type d -printf '%p\\n' | head -n 10000",
                &[path, path],
            ),
        },
    }
}

/// What must be asked for the places that are owned.
#[must_use]
pub fn questions(claims: &[(ResourceId, Claim)]) -> Vec<Question> {
    places(claims).iter().map(question).collect()
}

fn places(claims: &[(ResourceId, Claim)]) -> BTreeSet<Place> {
    claims
        .iter()
        .filter_map(|(_, claim)| match claim {
            Claim::Owns(place) => Some(place.clone()),
            _ => None,
        })
        .collect()
}

/// Everything found that nobody declared and nobody accepted. `login`: the user of this very
/// login, who is declared by the inventory. `today`: ISO date, for acceptances that ran out.
/// The second list: places that could not be looked at, with the reason.
#[must_use]
pub fn find(claims: &[(ResourceId, Claim)], seen: &Observations, login: &str, today: &str) -> (Vec<Undeclared>, Vec<String>) {
    let (mut found, mut blind) = (Vec::new(), Vec::new());
    let all: Vec<&Claim> = claims.iter().map(|(_, claim)| claim).collect();
    for place in places(claims) {
        match seen.get(&question(&place)) {
            Some(Answer::Failed(reason)) => blind.push(format!("{place:?}: {reason}")),
            Some(Answer::Raw(output)) if output.status != 0 => blind.push(format!("{place:?}: status {}", output.status)),
            Some(answer) => found.extend(compare(&place, answer, &all, login)),
            None => blind.push(format!("{place:?}: not asked")),
        }
    }
    let accepted = |item: &Undeclared| {
        all.iter().any(|claim| {
            matches!(claim, Claim::Accepts { what, until, .. }
                if *what == item.id.to_string() && until.as_deref().is_none_or(|until| today <= until))
        })
    };
    found.retain(|item| !accepted(item));
    (found, blind)
}

fn compare(place: &Place, answer: &Answer, claims: &[&Claim], login: &str) -> Vec<Undeclared> {
    let lines: Vec<&str> = match answer {
        Answer::Raw(output) => output.stdout.lines().collect(),
        Answer::Line(Some(text)) => text.lines().collect(),
        _ => Vec::new(),
    };
    let item = |kind: &str, name: &str, severity, detail: String| Undeclared {
        id: ResourceId::new(kind, printable(name)),
        severity,
        detail: printable(&detail),
    };
    let project = |name: &str| claims.iter().any(|claim| matches!(claim, Claim::ComposeProject(project) if project == name));
    let path_claimed = |path: &str| claims.iter().any(|claim| matches!(claim, Claim::Path(claimed) if claimed == path));
    match place {
        Place::Containers => containers(answer, claims),
        Place::Networks | Place::Volumes => {
            let kind = if *place == Place::Networks { "docker_network" } else { "docker_volume" };
            lines
                .iter()
                .filter_map(|line| line.split_once(' '))
                .filter(|(name, owner)| {
                    !matches!(*name, "bridge" | "host" | "none")
                        && !project(owner)
                        && !claims.iter().any(|claim| matches!(claim, Claim::DockerObject(known) if known == name))
                })
                .map(|(name, _)| item(kind, name, Severity::Config, "nobody declared it".into()))
                .collect()
        }
        Place::Ports => lines.iter().filter_map(|line| port(line, claims)).collect(),
        Place::Users => lines
            .iter()
            .filter_map(|line| {
                let mut words = line.split(' ');
                let (name, uid, shell) = (words.next()?, words.next()?, words.next()?);
                let declared = claims.iter().any(|claim| matches!(claim, Claim::User(user) if user == name));
                let system = uid.parse::<u32>().is_ok_and(|uid| uid != 0 && uid < 1000);
                (!declared && name != "root" && name != login && !system)
                    .then(|| item("user", name, Severity::Security, format!("uid {uid}, shell {shell}: nobody declared this login")))
            })
            .collect(),
        Place::AuthorizedKeys => keys(&lines, claims, login),
        Place::Cron => lines
            .iter()
            .filter(|path| !path_claimed(path))
            .map(|path| item("cron", path, Severity::Security, "nobody declared this job".into()))
            .collect(),
        Place::Timers => lines
            .iter()
            .filter(|name| {
                !claims.iter().any(|claim| matches!(claim, Claim::Timer(timer) if timer == **name || format!("{timer}.timer") == **name))
            })
            .filter(|name| !path_claimed(&format!("/etc/systemd/system/{name}")))
            .map(|name| item("timer", name, Severity::Security, "nobody declared this timer".into()))
            .collect(),
        Place::NftTables => tables(&lines.join("\n"), claims),
        Place::Sudoers => lines
            .iter()
            .filter(|path| !path_claimed(path))
            .map(|path| item("sudoers", path, Severity::Security, "nobody declared this file".into()))
            .collect(),
        Place::Directory(_) => lines
            .iter()
            .filter(|path| !path_claimed(path))
            .map(|path| item("file", path, Severity::Config, "nobody declared this file".into()))
            .collect(),
    }
}

fn containers(answer: &Answer, claims: &[&Claim]) -> Vec<Undeclared> {
    let Answer::Json(Some(Value::Array(list))) = answer else { return Vec::new() };
    list.iter()
        .filter_map(|container| {
            let label = container.pointer("/Config/Labels/com.docker.compose.project").and_then(Value::as_str);
            let declared =
                label.is_some_and(|label| claims.iter().any(|claim| matches!(claim, Claim::ComposeProject(project) if project == label)));
            let name = container.get("Name").and_then(Value::as_str).unwrap_or("?").trim_start_matches('/');
            let image = container.pointer("/Config/Image").and_then(Value::as_str).unwrap_or("?");
            (!declared).then(|| Undeclared {
                id: ResourceId::new("container", printable(name)),
                severity: Severity::Security,
                detail: printable(&format!("of image {image}: nobody declared it")),
            })
        })
        .collect()
}

/// A line of `ss -H -ltunp`: protocol, state, queues, local address, peer, process.
fn port(line: &str, claims: &[&Claim]) -> Option<Undeclared> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (protocol, local) = (words.first()?, words.get(4)?);
    let (address, number) = local.rsplit_once(':')?;
    let number: u16 = number.parse().ok()?;
    let address = address.trim_matches(['[', ']']).split('%').next().unwrap_or_default();
    let process = words.get(6).copied().unwrap_or_default();
    let loopback = address.starts_with("127.") || address == "::1";
    let declared = claims.iter().any(|claim| match claim {
        Claim::PublishedPort { port, protocol: declared, .. } | Claim::AllowedPort { port, protocol: declared } => {
            *port == number && declared == protocol
        }
        _ => false,
    });
    // The door we came in by, and the machinery of the network, are everyone's.
    let known = (*protocol == "tcp" && (number == 22 || process.contains("\"sshd\"")))
        || (*protocol == "udp" && matches!(number, 68 | 546 | 123 | 323));
    (!loopback && !declared && !known).then(|| Undeclared {
        id: ResourceId::new("port", format!("{number}/{}", printable(protocol))),
        severity: Severity::Security,
        detail: printable(&format!("listens on {address} {process}: nobody declared it")),
    })
}

fn keys(lines: &[&str], claims: &[&Claim], login: &str) -> Vec<Undeclared> {
    let mut out = Vec::new();
    for line in lines {
        let Some((user, entry)) = line.split_once(' ') else { continue };
        if entry.trim().is_empty() || entry.trim_start().starts_with('#') {
            continue;
        }
        let known = claims
            .iter()
            .any(|claim| matches!(claim, Claim::AuthorizedKey { user: owner, key } if owner == user && entry.contains(key.as_str())));
        let managed = claims.iter().any(|claim| matches!(claim, Claim::AuthorizedKey { user: owner, .. } if owner == user));
        // Keys of the login user are the inventory's business unless some are declared.
        if known || (user == login && !managed) {
            continue;
        }
        let comment: Vec<&str> = entry.split_whitespace().collect();
        let tail = comment.last().copied().unwrap_or_default();
        out.push(Undeclared {
            id: ResourceId::new("authorized_key", printable(&format!("{user} {}", tail.chars().take(60).collect::<String>()))),
            severity: Severity::Security,
            detail: printable(&format!("a key that nobody declared may log in as `{user}`")),
        });
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
            (!dockers && !declared).then(|| Undeclared {
                id: ResourceId::new("nft_table", printable(&full)),
                severity: Severity::Security,
                detail: "nobody declared this table".into(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::observe::RawOutput;

    fn seen(place: &Place, stdout: &str) -> Observations {
        let mut seen = Observations::default();
        let answer = match place {
            Place::Ports => Answer::Line(Some(stdout.to_owned())),
            _ => Answer::Raw(RawOutput { status: 0, stdout: stdout.to_owned() }),
        };
        seen.insert(question(place), answer);
        seen
    }

    fn names(place: Place, stdout: &str, more: Vec<Claim>) -> Vec<String> {
        let seen = seen(&place, stdout);
        let mut claims = vec![(ResourceId::new("owned", "host"), Claim::Owns(place))];
        claims.extend(more.into_iter().map(|claim| (ResourceId::new("x", "y"), claim)));
        find(&claims, &seen, "ops", "2026-01-01").0.iter().map(|item| item.id.to_string()).collect()
    }

    #[test]
    fn a_rogue_user_is_found_and_the_login_is_not() {
        let passwd = "root 0 /bin/bash\nops 1000 /bin/bash\neve 1005 /bin/sh\ntoor 0 /bin/sh\npostgres 110 /bin/bash\nann 1001 /bin/sh";
        assert_eq!(names(Place::Users, passwd, vec![Claim::User("ann".into())]), ["user[eve]", "user[toor]"]);
    }

    #[test]
    fn an_acceptance_ends_on_its_day() {
        let accept = |until: &str| vec![Claim::Accepts { what: "user[eve]".into(), reason: "r".into(), until: Some(until.into()) }];
        assert!(names(Place::Users, "eve 1005 /bin/sh", accept("2026-02-01")).is_empty());
        assert_eq!(names(Place::Users, "eve 1005 /bin/sh", accept("2025-12-31")), ["user[eve]"]);
    }

    #[test]
    fn a_rogue_port_is_found() {
        let ss = "tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:((\"sshd\",pid=1,fd=3))\ntcp LISTEN 0 5 *:4444 *:* users:((\"nc\",pid=9,fd=3))\ntcp LISTEN 0 5 127.0.0.1:631 0.0.0.0:*\ntcp LISTEN 0 5 0.0.0.0:8080 0.0.0.0:*";
        let published = Claim::PublishedPort { address: "0.0.0.0".into(), port: 8080, protocol: "tcp".into(), owner: "web".into() };
        assert_eq!(names(Place::Ports, ss, vec![published]), ["port[4444/tcp]"]);
    }

    #[test]
    fn what_could_not_be_asked_is_said() {
        let claims = vec![(ResourceId::new("owned", "host"), Claim::Owns(Place::Cron))];
        assert_eq!(find(&claims, &Observations::default(), "ops", "2026-01-01").1.len(), 1);
    }
}
