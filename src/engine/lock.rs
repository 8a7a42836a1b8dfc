//! The host's lock and what the host remembers of earlier runs.
//!
//! The lock is a `flock` that the privileged shell holds on descriptor 9, so a dead holder's lock
//! dies with its shell, plus a record that says who holds it. Steps run with the descriptor closed.

use std::collections::BTreeMap;

use crate::diagnostic::{Failure, FailureClass, printable};
use crate::shell::Script;

/// Where a host keeps the lock, the journal, guards and records of secret files.
pub const STATE_DIR: &str = "/var/lib/soc-provision";

/// Who takes a lock.
#[derive(Clone, Debug)]
pub struct Holder {
    pub run: String,
    pub who: String,
    pub from: String,
    /// Seconds since the epoch.
    pub since: i64,
}

/// What the host said about its lock and its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// The record of whoever holds the lock now: who, from, since.
    pub held_by: Option<BTreeMap<String, String>>,
    /// Handlers that an earlier run owed and did not run.
    pub owed: Vec<String>,
    /// A hold: reason, until, who.
    pub hold: BTreeMap<String, String>,
    /// The last apply: run, who, when, revision, playbook, result.
    pub last: BTreeMap<String, String>,
    /// Stacks pinned by a rollback: name -> who and when.
    pub pins: BTreeMap<String, String>,
    /// What was in owned places when the project took the host over: place -> (seconds since the epoch, who) and names.
    pub baseline: BTreeMap<String, (String, Vec<String>)>,
}

/// What came of taking a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is ours.
    Ours,
    /// A step of an earlier run goes on by itself, in this unit; it ends on its own.
    Busy(String),
    /// The holder's controller is gone, and its shell ends once the step under way does.
    Orphan,
    /// Somebody held it, and had let go by the time we asked who: worth another try.
    Freed,
    /// The holder is this very run's shell of a connection that was lost, within a step that must not
    /// be run twice. Nothing behind that step is begun any more.
    Finishing,
}

/// Takes the lock in the privileged shell itself; prints `taken`, `held`, `orphan`, `busy UNIT` or
/// `nostate`. An orphan is a login's first process that nobody holds any more: its parent is 1.
/// The same run may take its own lock over after a reconnect, under the same `name` of the host: under
/// another it is the same machine twice, and one would end the other's shell (`twin NAME`). What the holder's shell still runs
/// ends with it: two steps must never work on one host at once.
#[must_use]
pub fn take(holder: &Holder, name: &str, break_lock: bool) -> Script {
    let by = format!("run {} of {} from {}", holder.run, holder.who, holder.from);
    let since = holder.since.to_string();
    let force = if break_lock { "yes" } else { "no" };
    let words = [&holder.run, name, force, &by, &holder.who, &holder.from, &since];
    Script::sh("mine={} as={} force={} by={} who={} from={} since={}\n", &words).then(include_str!("lock/take.sh"), &[])
}

/// Reads who holds the lock, what is owed, held and pinned; changes nothing.
#[must_use]
pub fn look() -> Script {
    Script::sh(
        r#"d=/var/lib/soc-provision
show() { [ -r "$1" ] && while IFS= read -r l || [ -n "$l" ]; do printf '%s\n' "$l"; done <"$1"; }
echo '##lock'; if [ -e $d/lock ] && command -v flock >/dev/null && ! flock -n -s $d/lock true; then show $d/lock.holder; fi
echo '##owed'; for f in $d/owed/*; do [ -f "$f" ] && show "$f"; done
echo '##hold'; show $d/hold
echo '##last'; show $d/last
echo '##pins'; for f in $d/stacks/*/pin; do [ -f "$f" ] && { n=${f%/pin}; printf '%s ' "${n##*/}"; read -r l <"$f"; printf '%s\n' "$l"; }; done
echo '##baseline'; for f in $d/baseline/*; do [ -f "$f" ] && { printf '@%s ' "${f##*/}"; show "$f"; }; done
echo '##end'
"#,
        &[],
    )
}

/// Reads what [`look`] printed. `ours`: the lock is held by this very run.
///
/// # Errors
/// A sentence if the output is not the script's.
pub fn parse(output: &str, ours: bool) -> Result<HostState, String> {
    let mut state = HostState::default();
    let mut section = "";
    let mut place_of = String::new();
    let mut lock = BTreeMap::new();
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("##") {
            section = name;
            continue;
        }
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let pair = (printable(key), printable(value));
        match section {
            "lock" => drop(lock.insert(pair.0, pair.1)),
            "owed" => state.owed.push(line.to_owned()),
            "hold" => drop(state.hold.insert(pair.0, pair.1)),
            "last" => drop(state.last.insert(pair.0, pair.1)),
            "pins" => drop(state.pins.insert(pair.0, pair.1)),
            "baseline" => {
                if let Some((place, head)) = line.strip_prefix('@').and_then(|line| line.split_once(' ')) {
                    place.clone_into(&mut place_of);
                    state.baseline.insert(place.to_owned(), (printable(head), Vec::new()));
                } else if let Some((_, names)) = state.baseline.get_mut(&place_of) {
                    names.push(line.to_owned());
                }
            }
            _ => {}
        }
    }
    if section != "end" {
        return Err("the host's state could not be read whole".to_owned());
    }
    if !lock.is_empty() && !ours {
        state.held_by = Some(lock);
    }
    state.owed.sort();
    state.owed.dedup();
    Ok(state)
}

/// Turns what [`take`] printed into what came of it, or the failure to report.
///
/// # Errors
/// [`FailureClass::LockHeld`], [`FailureClass::DiskFull`], [`FailureClass::MissingTool`] or
/// [`FailureClass::StepFailed`].
pub fn taken(output: &str, state: &HostState) -> Result<Taken, Failure> {
    let line = output.lines().last().unwrap_or_default();
    if let Some(reason) = line.strip_prefix("nostate") {
        let class = if reason.contains("No space left") { FailureClass::DiskFull } else { FailureClass::StepFailed };
        return Err(Failure::new(class, format!("cannot write {STATE_DIR}; nothing was touched"))
            .because(printable(reason.trim()))
            .hint("make room there, or make it writable, and run again"));
    }
    if let Some(twin) = line.strip_prefix("twin ") {
        return Err(Failure::new(
            FailureClass::LockHeld,
            format!("this machine is in the run already, as `{}`; nothing was touched under this name", printable(twin.trim())),
        )
        .hint("two names of the inventory lead to one machine: leave one out with `--limit`"));
    }
    match line {
        "taken" => Ok(Taken::Ours),
        "orphan" => Ok(Taken::Orphan),
        "finishing" => Ok(Taken::Finishing),
        "noflock" => {
            Err(Failure::new(FailureClass::MissingTool, "the host has no `flock`, which the host's lock needs; nothing was touched")
                .hint("install util-linux on the host"))
        }
        line => match (line.strip_prefix("busy "), line.strip_prefix("broken ")) {
            (Some(unit), _) => Ok(Taken::Busy(printable(unit))),
            (None, Some(by)) => Err(Failure::new(FailureClass::LockHeld, format!("the host's lock was taken away by {}", printable(by)))
                .hint("see what that run did, and run again")),
            (None, None) if line == "held" && state.held_by.is_none() => Ok(Taken::Freed),
            (None, None) => Err(held(state)),
        },
    }
}

/// The failure for an earlier run's step that does not end.
#[must_use]
pub fn busy(unit: &str) -> Failure {
    Failure::new(FailureClass::LockHeld, format!("a step of an earlier run still goes on in {unit}"))
        .hint(format!("wait for it, or stop it with `systemctl stop {unit}` on the host"))
}

/// The failure that names the lock's holder.
#[must_use]
pub fn held(state: &HostState) -> Failure {
    let empty = BTreeMap::new();
    let holder = state.held_by.as_ref().unwrap_or(&empty);
    let get = |key: &str| holder.get(key).map_or("unknown", String::as_str);
    let since = get("since").parse::<i64>().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let since = since.map_or_else(|| "an unknown time".to_owned(), |time| time.to_string());
    Failure::new(
        FailureClass::LockHeld,
        format!("the host is locked by run {} of {} from {} since {since}", get("run"), get("who"), get("from")),
    )
    .hint("wait for that run to end, or take the lock away with `--break-lock`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_read_back() {
        let state =
            parse("##lock\nrun r1\nwho ann\n##owed\nrestart docker\n##hold\n##last\nrun r0\n##pins\nsiem by ann\n##baseline\n@users 5 ann@desk\nuser[x]\n@cron 6 bob\n##end\n", false)
                .unwrap();
        assert_eq!(state.baseline["users"], ("5 ann@desk".to_owned(), vec!["user[x]".to_owned()]));
        assert!(state.baseline["cron"].1.is_empty());
        assert_eq!(state.held_by.unwrap()["who"], "ann");
        assert_eq!(state.owed, ["restart docker"]);
        assert_eq!(state.pins["siem"], "by ann");
        assert!(parse("##lock\n", false).is_err());
    }

    #[test]
    fn a_held_lock_names_its_holder() {
        let state = parse("##lock\nrun r1\nwho ann\nfrom desk\nsince 0\n##end\n", false).unwrap();
        let failure = taken("held\n", &state).unwrap_err();
        assert_eq!(failure.class, FailureClass::LockHeld);
        assert_eq!(taken("held\n", &HostState::default()), Ok(Taken::Freed), "nobody to name");
        assert_eq!(taken("x\ntaken\n", &state), Ok(Taken::Ours));
        assert_eq!(taken("busy a.service\n", &state), Ok(Taken::Busy("a.service".into())));
        assert_eq!(failure.message, "the host is locked by run r1 of ann from desk since 1970-01-01T00:00:00Z");
    }
}
