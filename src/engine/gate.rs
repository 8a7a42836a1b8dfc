//! Gates: what follows starts, across the hosts of a batch, only when everyone's checks passed.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use crate::diagnostic::{Failure, FailureClass};
use crate::engine::host::HostRun;

/// The gates of one batch of one play. Hosts that leave the run are not waited for.
pub struct Gates {
    state: watch::Sender<State>,
}

#[derive(Default)]
struct State {
    /// Hosts still on their way.
    present: BTreeSet<String>,
    /// Gate -> host -> why it did not pass, if it did not.
    arrived: BTreeMap<String, BTreeMap<String, Option<String>>>,
}

impl Gates {
    /// Gates for these hosts.
    #[must_use]
    pub fn new(hosts: &[String]) -> Self {
        Self { state: watch::Sender::new(State { present: hosts.iter().cloned().collect(), arrived: BTreeMap::new() }) }
    }

    /// The host failed, or is through: nobody waits for it any more.
    pub fn leave(&self, host: &str) {
        self.state.send_modify(|state| {
            state.present.remove(host);
        });
    }

    /// Arrives with the outcome of the host's own checks and waits for everyone else.
    ///
    /// # Errors
    /// Names of the hosts that did not pass, with their reasons.
    pub async fn arrive(&self, gate: &str, host: &str, problem: Option<String>) -> Result<(), Vec<String>> {
        self.state.send_modify(|state| {
            state.arrived.entry(gate.to_owned()).or_default().insert(host.to_owned(), problem);
        });
        let mut watch = self.state.subscribe();
        let done =
            |state: &State| state.present.iter().all(|host| state.arrived.get(gate).is_some_and(|arrived| arrived.contains_key(host)));
        let Ok(state) = watch.wait_for(done).await else { return Ok(()) };
        let failed: Vec<String> = state
            .arrived
            .get(gate)
            .into_iter()
            .flatten()
            .filter_map(|(host, problem)| problem.as_ref().map(|problem| format!("{host}: {problem}")))
            .collect();
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }
}

impl HostRun {
    /// Runs the role's checks and waits until every host of the batch passed its own.
    pub(super) async fn pass_gate(&mut self, play: usize, role: &str, gates: &Gates) -> Result<(), Failure> {
        self.doing(format!("gate: health of {role}"));
        let own = self.verify_where(play, |check_role| check_role == Some(role)).await;
        let problem = own.as_ref().err().map(|failure| failure.causes.join("; "));
        self.permit = None;
        let everyone = gates.arrive(role, &self.name, problem).await;
        self.permit = self.job.forks.clone().acquire_owned().await.ok();
        own?;
        everyone.map_err(|causes| {
            let mut failure =
                Failure::new(FailureClass::Unhealthy, format!("the gate of `{role}` stayed shut: another host is not healthy"));
            failure.causes = causes;
            failure
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_waits_and_one_failure_shuts_the_gate() {
        let gates = Gates::new(&["a".into(), "b".into(), "c".into()]);
        gates.leave("c");
        let (a, b) = tokio::join!(gates.arrive("siem", "a", None), gates.arrive("siem", "b", Some("no".into())));
        assert_eq!(a, Err(vec!["b: no".to_owned()]));
        assert_eq!(b, a);
        let (a, b) = tokio::join!(gates.arrive("soar", "a", None), gates.arrive("soar", "b", None));
        assert_eq!((a, b), (Ok(()), Ok(())));
    }
}
