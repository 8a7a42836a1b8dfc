//! Things on a host that nobody declared, in places that the project owns (DESIGN 8.10).
//!
//! Pure: questions for the probe, and a comparison of the answers with what the host's resources
//! claim. Nothing is ever removed from here; `prune.rs` makes the steps for who asks for that.

mod ask;
mod compare;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use ask::question;

use crate::diagnostic::printable;
use crate::resource::observe::{Answer, Observations, Question};
use crate::resource::{Claim, Place, ResourceId, Severity};

/// How a question ends that has more to tell than is looked at; it says so instead.
const TOO_MUCH: i32 = 7;

/// Something that nobody declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undeclared {
    /// `container[rogue]`, `user[eve]`, ...
    pub id: ResourceId,
    pub severity: Severity,
    /// What is known of it.
    pub detail: String,
    /// The place that it is in.
    pub place: Place,
    /// What it is to the host: a path, a name, an id; as the host spells it.
    pub target: Target,
}

/// What would have to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A name or an id of the place's own kind.
    Name(String),
    /// A file.
    Path(String),
    /// A line of a file.
    Line { path: String, line: String },
    /// A user in a group.
    Member { user: String, group: String },
    /// Nothing that could be removed by itself.
    None,
}

/// How this run came in: what it uses itself is no stranger.
#[derive(Clone, Debug, Default)]
pub struct Login {
    pub user: String,
    /// The port of sshd.
    pub port: u16,
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

/// Everything found that nobody declared, worst first. The second list: places that could not be
/// looked at, with the reason.
#[must_use]
pub fn find(claims: &[(ResourceId, Claim)], seen: &Observations, login: &Login) -> (Vec<Undeclared>, Vec<(Place, String)>) {
    let (mut found, mut blind) = (Vec::new(), Vec::new());
    let all: Vec<&Claim> = claims.iter().map(|(_, claim)| claim).collect();
    for place in places(claims) {
        match seen.get(&question(&place)) {
            Some(Answer::Failed(reason)) => blind.push((place, reason.clone())),
            Some(Answer::Raw(output)) if output.status == TOO_MUCH => blind.push((place, printable(output.stdout.trim()))),
            Some(Answer::Raw(output)) if output.status != 0 => {
                blind.push((place, format!("the probe ended with status {}", output.status)))
            }
            Some(answer) => found.extend(compare::compare(&place, answer, &all, login)),
            None => blind.push((place, "it was not asked".to_owned())),
        }
    }
    found.sort_by(|a, b| (a.severity, &a.id).cmp(&(b.severity, &b.id)));
    found.dedup_by(|a, b| a.id == b.id && a.target == b.target);
    (found, blind)
}
