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
}

/// Takes the lock in the privileged shell itself; prints `taken`, `held` or `nostate`.
/// The same run may take its own lock over after a reconnect.
#[must_use]
pub fn take(holder: &Holder, break_lock: bool) -> Script {
    Script::sh(
        r#"d=/var/lib/soc-provision
if ! e=$( (umask 077; mkdir -p $d/owed $d/journal && : >>$d/lock) 2>&1); then echo "nostate $e"
else
  exec 9>>$d/lock
  t=held
  if flock -n 9; then t=taken
  else
    while read -r k v; do case $k in run) hrun=$v;; pid) hpid=$v;; esac; done <$d/lock.holder
    # Nobody above the holder's shell but init: its controller is gone, and it ends with the step under way.
    p=$hpid
    while [ "${p:-0}" -gt 1 ] && read -r c <"/proc/$p/comm"; do
      case $c in sh | dash | bash | sudo | su | runuser | env) ;; *) break ;; esac
      q=; while read -r k v; do [ "$k" = PPid: ] && q=$v; done <"/proc/$p/status"; p=$q
    done 2>/dev/null
    [ "$p" = 1 ] && t="busy shell $hpid"
    if [ "$hrun" = {} ] || [ {} = yes ]; then [ -n "$hpid" ] && kill -9 "$hpid" 2>/dev/null; flock -w 5 9 && t=taken; fi
  fi
  if [ "$t" = taken ]; then
    for u in /run/soc-provision/steps/*.unit; do
      [ -e "$u" ] || continue
      read -r urun uname <"$u"
      if [ "$urun" != {} ] && systemctl is-active --quiet "$uname"; then t="busy $uname"; fi
    done
  fi
  case $t in
    taken) (umask 077; printf 'run %s\nwho %s\nfrom %s\nsince %s\npid %s\n' {} {} {} {} $$ >$d/lock.holder
            [ -e $d/reserve ] || head -c 262144 /dev/zero >$d/reserve) ;;
    *) exec 9>&- ;;
  esac
  echo "$t"
fi
"#,
        &[
            &holder.run,
            if break_lock { "yes" } else { "no" },
            &holder.run,
            &holder.run,
            &holder.who,
            &holder.from,
            &holder.since.to_string(),
        ],
    )
}

/// Reads who holds the lock, what is owed, held and pinned; changes nothing.
#[must_use]
pub fn look() -> Script {
    Script::sh(
        r#"d=/var/lib/soc-provision
show() { [ -r "$1" ] && while IFS= read -r l || [ -n "$l" ]; do printf '%s\n' "$l"; done <"$1"; }
echo '##lock'; if [ -e $d/lock ] && command -v flock >/dev/null && ! flock -n $d/lock true; then show $d/lock.holder; fi
echo '##owed'; for f in $d/owed/*; do [ -f "$f" ] && show "$f"; done
echo '##hold'; show $d/hold
echo '##last'; show $d/last
echo '##pins'; for f in $d/stacks/*/pin; do [ -f "$f" ] && { n=${f%/pin}; printf '%s ' "${n##*/}"; read -r l <"$f"; printf '%s\n' "$l"; }; done
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

/// Turns what [`take`] printed into success or the failure to report.
///
/// # Errors
/// [`FailureClass::LockHeld`], [`FailureClass::DiskFull`] or [`FailureClass::StepFailed`].
pub fn taken(output: &str, state: &HostState) -> Result<(), Failure> {
    let line = output.lines().last().unwrap_or_default();
    if line == "taken" {
        return Ok(());
    }
    if let Some(reason) = line.strip_prefix("nostate") {
        let class = if reason.contains("No space left") { FailureClass::DiskFull } else { FailureClass::StepFailed };
        return Err(Failure::new(class, format!("cannot write {STATE_DIR}")).because(printable(reason.trim())));
    }
    if let Some(unit) = line.strip_prefix("busy ") {
        let stop = unit.strip_prefix("shell ").map_or_else(|| format!("systemctl stop {unit}"), |pid| format!("kill {pid}"));
        return Err(Failure::new(FailureClass::LockHeld, format!("a step of an earlier run still goes on in {}", printable(unit)))
            .hint(format!("wait for it, or stop it with `{}` on the host", printable(&stop))));
    }
    Err(held(state))
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
            parse("##lock\nrun r1\nwho ann\n##owed\nrestart docker\n##hold\n##last\nrun r0\n##pins\nsiem by ann\n##end\n", false).unwrap();
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
        assert_eq!(failure.message, "the host is locked by run r1 of ann from desk since 1970-01-01T00:00:00Z");
    }
}
