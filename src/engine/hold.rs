//! Holds: a soft lock with a reason, kept on the host, which everything that changes the host as
//! declared respects, and which plans and drift mention. It lasts over runs and controllers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::diagnostic::{Failure, FailureClass};
use crate::engine::Mode;
use crate::engine::host::HostRun;
use crate::engine::lock::{self, STATE_DIR};
use crate::event::EventKind;
use crate::shell::Script;

/// Commands that work on hosts under the lock and are no change of what is declared.
const NOT_BOUND: [&str; 3] = ["backup", "capture", "hold"];

/// A hold on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Hold {
    pub reason: String,
    pub who: String,
    pub from: String,
    /// Seconds since the epoch.
    pub since: i64,
    /// `None`: until somebody releases it.
    pub until: Option<i64>,
}

impl Hold {
    /// What a host remembers, if it is on hold.
    #[must_use]
    pub fn read(remembered: &BTreeMap<String, String>) -> Option<Self> {
        if remembered.is_empty() {
            return None;
        }
        let get = |key: &str| remembered.get(key).cloned().unwrap_or_default();
        Some(Self {
            reason: get("reason"),
            who: get("who"),
            from: get("from"),
            since: get("since").parse().unwrap_or_default(),
            until: get("until").parse().ok(),
        })
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self, now: i64) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let time =
            |seconds: i64| jiff::Timestamp::from_second(seconds).map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string());
        let until = self.until.map_or_else(|| "until it is released".to_owned(), |until| format!("until {}", time(until)));
        format!("on hold by {} from {} since {} {until}: {}", self.who, self.from, time(self.since), self.reason)
    }

    /// Puts a host on hold, or replaces the hold that there is.
    #[must_use]
    pub fn set(&self) -> Script {
        Script::sh(
            "(umask 077; mkdir -p {} && cd {} && printf 'reason %s\\nwho %s\\nfrom %s\\nsince %s\\nuntil %s\\n' {} {} {} {} {} >hold.new && sync hold.new && mv -f hold.new hold) || exit 1\n",
            &[
                STATE_DIR,
                STATE_DIR,
                &self.reason,
                &self.who,
                &self.from,
                &self.since.to_string(),
                &self.until.map_or_else(|| "released".to_owned(), |until| until.to_string()),
            ],
        )
    }

    /// Ends a hold.
    #[must_use]
    pub fn release() -> Script {
        Script::sh("rm -f {}\n", &[&format!("{STATE_DIR}/hold")])
    }
}

/// How long between looks at a lock that somebody else holds.
const LOOK: Duration = Duration::from_secs(3);

impl HostRun {
    /// Round trip 1; where another run holds the host, again until it ends or the time is over that
    /// the user would wait. A run that only looks then goes on and says so.
    pub(super) async fn gather_in_turn(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + self.job.wait;
        let mut told = false;
        loop {
            let outcome = self.gather().await;
            let held = match &outcome {
                Ok(()) => self.state.held_by.is_some(),
                Err(failure) => failure.class == FailureClass::LockHeld,
            };
            if !held || self.job.interrupted() {
                return outcome;
            }
            if Instant::now() >= until {
                if outcome.is_ok() && self.job.mode == Mode::Plan {
                    let text = format!("[{}] {}: what differs may be its work", self.name, lock::held(&self.state).message);
                    self.emit(EventKind::Warning { text });
                }
                return outcome;
            }
            self.doing("waiting for another run to end");
            if !std::mem::replace(&mut told, true) {
                let text =
                    format!("[{}] another run works on the host; waiting for it, for {} s at most", self.name, self.job.wait.as_secs());
                self.emit(EventKind::Warning { text });
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.job.cancel.pressed(1) => {}
            }
        }
    }

    /// The hold that the host is under now.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        Hold::read(&self.state.hold).filter(|hold| !hold.is_over(jiff::Timestamp::now().as_second()))
    }

    /// Refuses a host on hold where its declared state would be changed; mentions it elsewhere.
    pub(super) fn check_hold(&self) -> Result<(), Failure> {
        let Some(hold) = self.hold() else { return Ok(()) };
        let bound = match self.job.mode {
            Mode::Apply => true,
            Mode::Operate => !NOT_BOUND.contains(&self.job.info.command.as_str()),
            Mode::Plan | Mode::Drift => {
                self.emit(EventKind::Warning { text: format!("[{}] {}", self.name, hold.describe()) });
                false
            }
            _ => false,
        };
        if !bound || self.job.override_hold {
            return Ok(());
        }
        Err(Failure::new(FailureClass::Refused, format!("the host is {}; nothing was touched", hold.describe()))
            .hint(format!("ask {}, end it with `soc-provision hold {} --release`, or go on with `--override-hold`", hold.who, self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_read_back_and_ends_in_time() {
        let remembered = [("reason", "disk is being swapped"), ("who", "ann"), ("from", "desk"), ("since", "10"), ("until", "20")];
        let hold = Hold::read(&remembered.map(|(key, value)| (key.to_owned(), value.to_owned())).into()).unwrap();
        assert_eq!(hold.until, Some(20));
        assert!(!hold.is_over(19) && hold.is_over(20));
        assert!(hold.describe().contains("by ann from desk since 1970-01-01T00:00:10Z until 1970-01-01T00:00:20Z: disk is being swapped"));
        assert_eq!(Hold::read(&BTreeMap::new()), None);
        assert!(!Hold { until: None, ..hold }.is_over(i64::MAX));
    }
}
