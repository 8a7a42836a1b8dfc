//! Where hosts stand, for people: a table, then what needs somebody.

use std::collections::BTreeMap;

use crate::command::report::columns;
use crate::command::status::look::Standing;
use crate::diagnostic::printable;

const DAY: i64 = 86_400;
/// Certificates that end within this time, and backups older than two nights, are pointed out.
const SOON: i64 = 21 * DAY;
const OLD: i64 = 2 * DAY;

/// The table and what needs somebody.
pub(super) fn text(standings: &BTreeMap<String, Standing>, now: i64) -> String {
    let heads = ["HOST", "REVISION", "APPLIED", "BY", "STATE", "HEALTH", "BACKUP", "CERTIFICATE", "HOLD"].map(str::to_owned);
    let rows = standings.iter().map(|(name, standing)| row(name, standing, now));
    let mut out = columns(&std::iter::once(heads).chain(rows).collect::<Vec<_>>());
    let notes: Vec<String> = standings.iter().flat_map(|(name, standing)| notes(name, standing, now)).collect();
    if !notes.is_empty() {
        out.push('\n');
    }
    notes.iter().for_each(|note| out.push_str(&format!("{}\n", printable(note))));
    out
}

fn row(name: &str, standing: &Standing, now: i64) -> [String; 9] {
    let dash = || "-".to_owned();
    if standing.failure.is_some() {
        return [name.to_owned(), dash(), dash(), dash(), "unknown".to_owned(), dash(), dash(), dash(), dash()];
    }
    let last = |key: &str| standing.last.get(key).filter(|value| !value.is_empty()).cloned();
    let applied = last("when").and_then(|when| when.parse::<i64>().ok()).map_or_else(|| "never".to_owned(), |when| ago(now - when));
    let result = last("result").filter(|result| result != "ok").map_or_else(String::new, |result| format!(" ({result})"));
    let state = if standing.pending == 0 { "in sync".to_owned() } else { format!("{} differ", standing.pending) };
    let health = match (standing.checks, standing.unhealthy.len()) {
        (0, _) => "no checks".to_owned(),
        (checks, 0) => format!("{checks} ok"),
        (checks, bad) => format!("{bad} of {checks} bad"),
    };
    let backup = match standing.backup {
        Some(when) => ago(now - when),
        None if standing.backs_up => "none yet".to_owned(),
        None => dash(),
    };
    let certificate = standing
        .certificate
        .as_ref()
        .map_or_else(dash, |(_, end)| if *end <= now { "expired".to_owned() } else { format!("in {}", days(*end - now)) });
    [
        name.to_owned(),
        last("revision").unwrap_or_else(dash),
        format!("{applied}{result}"),
        last("who").unwrap_or_else(dash),
        state,
        health,
        backup,
        certificate,
        standing.hold.as_ref().map_or_else(dash, |hold| hold.who.clone()),
    ]
}

fn notes(name: &str, standing: &Standing, now: i64) -> Vec<String> {
    let mut out = Vec::new();
    let mut note = |text: String| out.push(format!("[{name}] {text}"));
    if let Some(failure) = &standing.failure {
        note(failure.clone());
    }
    if let Some(lock) = &standing.locked {
        let get = |key: &str| lock.get(key).map_or("unknown", String::as_str);
        note(format!("being worked on by run {} of {} from {}", get("run"), get("who"), get("from")));
    }
    if let Some(hold) = &standing.hold {
        note(hold.describe());
    }
    standing.unhealthy.iter().for_each(|check| note(format!("unhealthy: {check}")));
    standing.releases.iter().for_each(|(stack, release)| {
        let pin = standing.pins.get(stack).map_or_else(String::new, |pin| format!(" ({})", rolled_back(pin)));
        note(format!("stack {stack}: release {release}{pin}"));
    });
    if let Some((path, end)) = standing.certificate.as_ref().filter(|(_, end)| *end - now < SOON) {
        let when = jiff::Timestamp::from_second(*end).map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string());
        note(format!("certificate {path} {} {when}", if *end <= now { "ended" } else { "ends" }));
    }
    match standing.backup {
        Some(when) if now - when > OLD => note(format!("the newest backup is {} old", days(now - when))),
        None if standing.backs_up => note("no backup was made yet".to_owned()),
        _ => {}
    }
    if !standing.owed.is_empty() {
        note(format!("an earlier run ended before its handlers: {}; the next apply runs them", standing.owed.join(", ")));
    }
    out
}

/// `RELEASE SECONDS WHO`, as a host keeps it of a release that somebody left by hand.
fn rolled_back(pin: &str) -> String {
    let mut words = pin.splitn(3, ' ');
    let release = words.next().unwrap_or_default();
    let when = words.next().and_then(|seconds| jiff::Timestamp::from_second(seconds.parse().ok()?).ok());
    let when = when.map_or_else(String::new, |when| format!(" at {when}"));
    let who = words.next().map_or_else(String::new, |who| format!(" by {who}"));
    format!("{release} was rolled back{when}{who}")
}

fn ago(seconds: i64) -> String {
    format!("{} ago", days(seconds))
}

fn days(seconds: i64) -> String {
    match seconds.max(0) {
        s if s < 120 => format!("{s} s"),
        s if s < 7200 => format!("{} min", s / 60),
        s if s < 2 * DAY => format!("{} h", s / 3600),
        s => format!("{} d", s / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_rolled_back_what_and_when_is_told_in_words() {
        assert_eq!(rolled_back("2b 1700000000 ann@laptop by hand"), "2b was rolled back at 2023-11-14T22:13:20Z by ann@laptop by hand");
        assert_eq!(rolled_back("2b"), "2b was rolled back");
    }
}
