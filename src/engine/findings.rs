//! Drift: (plans, what was found in owned places, the host's condition) -> findings. Pure.

use std::collections::HashMap;

use crate::engine::plan::{Decision, Diffs, TaskPlan, resource_report};
use crate::engine::program::{Program, TaskIndex};
use crate::engine::undeclared::{Target, Undeclared};
use crate::event::{Finding, FindingState, Outcome};
use crate::resource::pattern::fits;
use crate::resource::{Claim, Place, Resource, ResourceId, Severity};

/// Every resource that is not as declared, in the order of the playbook.
#[must_use]
pub fn of_plans(program: &Program, plans: &HashMap<TaskIndex, TaskPlan>, diffs: &Diffs) -> Vec<Finding> {
    let mut out = Vec::new();
    for (_, index) in program.straight() {
        let (task, Some(plan)) = (&program.tasks[index], plans.get(&index)) else { continue };
        if task.skipped.is_some() {
            continue;
        }
        for (resource, decision) in task.resources.iter().zip(plan) {
            out.extend(of_decision(resource.as_ref(), decision, diffs).map(|finding| Finding {
                role: task.role.clone(),
                task: Some(task.title.clone()),
                ..finding
            }));
        }
    }
    out
}

fn of_decision(resource: &dyn Resource, decision: &Decision, diffs: &Diffs) -> Option<Finding> {
    let report = resource_report(resource, decision, diffs);
    let finding = Finding {
        id: report.id,
        severity: report.severity,
        state: FindingState::Differs,
        role: None,
        task: None,
        changes: report.changes,
        detail: String::new(),
        prune: None,
        since: None,
        accepted: None,
    };
    match (decision, report.outcome) {
        (Decision::Known(plan), _) if plan.is_in_sync() => None,
        (Decision::Known(plan), _) if plan.unchecked => Some(Finding {
            state: FindingState::Unknown,
            severity: Severity::Info,
            detail: "it cannot be checked: give the command `creates`, `unless` or `onlyif`".to_owned(),
            ..finding
        }),
        (Decision::Known(_), _) => Some(finding),
        (Decision::After(id), _) => {
            Some(Finding { state: FindingState::Later, detail: format!("known only once {id} is as declared"), ..finding })
        }
        (Decision::Unknown(reason), _) => Some(Finding { state: FindingState::Unknown, detail: reason.clone(), ..finding }),
        (Decision::Refused(reason), Outcome::Failed { .. }) => {
            Some(Finding { state: FindingState::Refused, detail: reason.clone(), ..finding })
        }
        (Decision::Refused(_), _) => None,
    }
}

/// Things that nobody declared, and places that could not be looked at.
#[must_use]
pub fn of_places(found: &[Undeclared], blind: &[(Place, String)]) -> Vec<Finding> {
    let plain = |id: ResourceId, severity, state, detail: &str| Finding {
        id,
        severity,
        state,
        role: None,
        task: None,
        changes: Vec::new(),
        detail: detail.to_owned(),
        prune: None,
        since: None,
        accepted: None,
    };
    let strangers = found.iter().map(|item| Finding {
        prune: (item.target != Target::None).then(|| item.place.word().to_owned()),
        ..plain(item.id.clone(), item.severity, FindingState::Undeclared, &item.detail)
    });
    let unseen = blind
        .iter()
        .map(|(place, reason)| plain(ResourceId::new("owned", place.word()), Severity::Security, FindingState::Unknown, reason));
    strangers.chain(unseen).collect()
}

/// Marks what the project accepts until today, and weighs what it weighs otherwise; worst first.
pub fn weigh(findings: &mut [Finding], claims: &[(ResourceId, Claim)], today: &str) {
    for finding in findings.iter_mut() {
        let id = finding.id.to_string();
        for (_, claim) in claims {
            match claim {
                Claim::Weighs { what, severity } if fits(what, &id) => finding.severity = *severity,
                Claim::Accepts { what, reason, until } if fits(what, &id) => match until {
                    Some(until) if until.as_str() < today => {
                        let note = format!("it was accepted until {until} ({reason})");
                        finding.detail = if finding.detail.is_empty() { note } else { format!("{}; {note}", finding.detail) };
                    }
                    Some(until) => finding.accepted = Some(format!("until {until}: {reason}")),
                    None => finding.accepted = Some(reason.clone()),
                },
                _ => {}
            }
        }
    }
    // Stable, so that what came first in the playbook stays first among equals.
    findings.sort_by_key(|finding| (finding.accepted.is_some(), finding.severity, finding.state == FindingState::Later));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, severity: Severity) -> Finding {
        let item = Undeclared {
            id: ResourceId::new("user", name),
            severity,
            detail: "x".into(),
            place: Place::Users,
            target: Target::Name(name.into()),
        };
        of_places(&[item], &[]).remove(0)
    }

    #[test]
    fn an_acceptance_ends_after_its_day() {
        let accept = |until: &str| Claim::Accepts { what: "user[e*]".into(), reason: "r".into(), until: Some(until.into()) };
        let weighed = |claim: Claim| {
            let mut findings = vec![one("ann", Severity::Config), one("eve", Severity::Config)];
            weigh(&mut findings, &[(ResourceId::new("owned", "x"), claim)], "2026-01-01");
            findings
        };
        let kept = weighed(accept("2026-01-01"));
        assert_eq!((kept[0].id.name.as_str(), kept[1].accepted.as_deref()), ("ann", Some("until 2026-01-01: r")));
        let over = weighed(accept("2025-12-31"));
        assert!(over.iter().all(|finding| finding.accepted.is_none()) && over[1].detail.contains("was accepted until 2025-12-31"));
        let worse = weighed(Claim::Weighs { what: "user[eve]".into(), severity: Severity::Security });
        assert_eq!((worse[0].id.name.as_str(), worse[0].severity), ("eve", Severity::Security));
    }

    #[test]
    fn patterns_have_stars() {
        assert!(fits("user[*]", "user[eve]") && fits("*", "x") && fits("a*c*e", "abcde") && fits("abc", "abc"));
        assert!(!fits("user[a*]", "user[eve]") && !fits("abc", "abcd") && !fits("a*c", "ab"));
    }
}
