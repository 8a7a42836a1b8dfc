//! What was in owned places when the project took the host over (`owned: {baseline: true}`). It is
//! recorded on the host by the first apply that owns the place, and accepted from then on: listed,
//! and no drift.

use crate::diagnostic::{Failure, printable};
use crate::engine::Mode;
use crate::engine::host::HostRun;
use crate::engine::undeclared::{self, Undeclared};
use crate::event::Finding;
use crate::resource::{Claim, Place, ResourceId};
use crate::secret::Text;
use crate::shell::Script;

/// How many names one place's record holds; what is beyond stays drift.
const MOST: usize = 2000;

impl HostRun {
    fn inherits(&self) -> Vec<Place> {
        let claims = self.claims().into_iter();
        claims
            .filter_map(|(_, claim)| match claim {
                Claim::Inherits(place) => Some(place),
                _ => None,
            })
            .collect()
    }

    /// Records what is in places that were not recorded yet; one or two round trips, once a place.
    pub(super) async fn take_over(&mut self) -> Result<(), Failure> {
        let new: Vec<Place> = self.inherits().into_iter().filter(|place| !self.state.baseline.contains_key(&place.key())).collect();
        if self.job.mode != Mode::Apply || self.job.partial || new.is_empty() {
            return Ok(());
        }
        self.doing("recording what was here before");
        let only: Vec<(ResourceId, Claim)> = self
            .claims()
            .into_iter()
            .filter(|(_, claim)| match claim {
                Claim::Owns(place) => new.contains(place),
                _ => true,
            })
            .collect();
        let seen = self.ask(&undeclared::questions(&only)).await?;
        let (found, blind) = undeclared::find(&only, &seen, &self.login());
        let head = format!("{} {}@{}", self.job.holder.since, self.job.holder.who, self.job.holder.from);
        let mut script = Script::sh("umask 077; d=/var/lib/soc-provision/baseline; mkdir -p $d || exit 1\n", &[]);
        for place in new.iter().filter(|place| !blind.iter().any(|(unseen, _)| unseen == *place)) {
            let names = found.iter().filter(|item| item.place == *place).take(MOST).map(name);
            let text = std::iter::once(head.clone()).chain(names).collect::<Vec<_>>().join("\n") + "\n";
            let key = place.key();
            script = script.payload(&Text::plain(text)).then(" >$d/{}.new && mv -f $d/{}.new $d/{} || exit 1\n", &[&key, &key, &key]);
        }
        self.script("recording what was here before", script, std::time::Duration::from_secs(60)).await?;
        Ok(())
    }

    /// Accepts what was there before.
    pub(super) fn accept_inherited(&self, findings: &mut [Finding], found: &[Undeclared]) {
        let inherits = self.inherits();
        for finding in findings.iter_mut().filter(|finding| finding.accepted.is_none()) {
            let Some(item) = found.iter().find(|item| item.id == finding.id && inherits.contains(&item.place)) else { continue };
            let Some((head, names)) = self.state.baseline.get(&item.place.key()) else { continue };
            if names.contains(&name(item)) {
                let (when, who) = head.split_once(' ').unwrap_or((head, "?"));
                let day = when.parse().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
                let day = day.map_or_else(|| "?".to_owned(), |time| time.strftime("%Y-%m-%d").to_string());
                finding.accepted = Some(format!("it was here when {who} took the host over on {day}"));
            }
        }
    }
}

/// A name and what is known of it, so that another thing of the same name is no old acquaintance.
fn name(item: &Undeclared) -> String {
    let digest = &crate::secret::sha256(format!("{:?} {}", item.target, steady(&item.detail)).as_bytes())[..12];
    format!("{digest} {}", printable(&item.id.to_string()).replace('\n', " "))
}

/// What of a detail stays the same from day to day: a container's state does not.
fn steady(detail: &str) -> &str {
    detail.split_once(" container of ").map_or(detail, |(_, rest)| rest)
}
