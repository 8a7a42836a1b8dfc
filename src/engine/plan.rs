//! Planning: (resources, what was observed) -> what would change. Pure; plan, apply and drift
//! all come through here, which is why what plan prints is what apply does.

use std::collections::HashMap;

use crate::engine::lockout;
use crate::engine::program::{Program, TaskIndex};
use crate::event::{ChangeReport, Outcome, ResourceReport, TaskReport};
use crate::facts::Facts;
use crate::resource::observe::{Answer, Observations, Pending};
use crate::resource::plan::{Change, Plan, Shown, Undecided};
use crate::resource::{Question, Resource, ResourceId, View};
use crate::secret::KeyedDigests;

/// What planning one resource came to.
#[derive(Clone, Debug)]
pub enum Decision {
    /// In sync, or what to change.
    Known(Plan),
    /// Known once the other was applied.
    After(ResourceId),
    /// The host could not tell.
    Unknown(String),
    /// Must not be done.
    Refused(String),
}

/// The plans of a task's resources, in their order.
pub type TaskPlan = Vec<Decision>;

/// What a host's plan is made from.
pub struct Planner<'a> {
    pub facts: &'a Facts,
    pub digests: &'a KeyedDigests,
    pub observations: &'a Observations,
    /// `drift --fix`: what cannot be told, or must not be put right without a decision, is left
    /// alone instead of stopping the rest.
    pub fix: bool,
    /// Whether there is a login that a change could cut off.
    pub remote: bool,
}

impl Planner<'_> {
    /// Plans one resource after what is pending, and adds what it will touch.
    pub fn decide(&self, resource: &dyn Resource, pending: &mut Pending) -> Decision {
        let view = View::new(self.facts, self.digests, self.observations, pending);
        let guarded = |plan: Plan| match self.remote {
            true => lockout::weigh(&resource.id(), plan, self.facts).map_err(Undecided::Refused),
            false => Ok(plan),
        };
        match resource.plan(&view).and_then(guarded) {
            Ok(plan) if self.fix && plan.unchecked => left_alone("it cannot be checked"),
            Ok(plan) => {
                pending.add(&resource.id(), &plan.effects);
                Decision::Known(plan)
            }
            Err(Undecided::After(id)) => Decision::After(id),
            Err(Undecided::Unknown(reason) | Undecided::Refused(reason)) if self.fix => left_alone(&reason),
            Err(Undecided::Unknown(reason)) => Decision::Unknown(reason),
            Err(Undecided::Refused(reason)) => Decision::Refused(reason),
        }
    }

    /// What a file held when it was looked at: a plan that replaces it was made on that.
    fn content(&self, question: &Question) -> Option<String> {
        match (question, self.observations.get(question)) {
            (Question::Digest(path) | Question::SecretFile(path), Some(answer)) => Some(format!("{path} was {answer:?}")),
            (Question::Content(path), Some(Answer::Content(Some(bytes)))) => Some(format!("{path} was {}", crate::secret::sha256(bytes))),
            _ => None,
        }
    }

    /// Plans everything that a run without failures goes through.
    #[must_use]
    pub fn all(&self, program: &Program) -> HashMap<TaskIndex, TaskPlan> {
        let mut pending = Pending::default();
        let mut plans = HashMap::new();
        for (_, index) in program.straight() {
            let task = &program.tasks[index];
            let plan = task.resources.iter().map(|resource| self.decide(resource.as_ref(), &mut pending)).collect();
            plans.insert(index, plan);
        }
        plans
    }
}

fn left_alone(reason: &str) -> Decision {
    Decision::Known(Plan::in_sync().note(format!("left alone: {reason}")))
}

/// All questions of some tasks, each once; those that only drift asks too, if this is drift.
#[must_use]
pub fn questions(program: &Program, tasks: impl IntoIterator<Item = TaskIndex>, facts: &Facts, drift: bool) -> Vec<Question> {
    let mut seen = std::collections::HashSet::new();
    let mut out = Vec::new();
    let resources = tasks.into_iter().flat_map(|index| program.tasks[index].resources.iter());
    let more = |resource: &dyn Resource| if drift { resource.drift_questions(facts) } else { Vec::new() };
    for question in resources.flat_map(|resource| resource.questions(facts).into_iter().chain(more(resource.as_ref()))) {
        if seen.insert(question.clone()) {
            out.push(question);
        }
    }
    out
}

/// A planned task for reports: what would happen.
#[must_use]
pub fn report(program: &Program, play: usize, index: TaskIndex, plan: &TaskPlan, diffs: &Diffs) -> TaskReport {
    let task = &program.tasks[index];
    let resources: Vec<ResourceReport> =
        task.resources.iter().zip(plan).map(|(resource, decision)| resource_report(resource.as_ref(), decision, diffs)).collect();
    let outcome = match &task.skipped {
        Some(reason) => Outcome::Skipped { reason: reason.clone() },
        None => worst(&resources),
    };
    TaskReport {
        play,
        title: task.title.clone(),
        role: task.role.clone(),
        place: Some(task.place()),
        handler: false,
        outcome,
        resources,
        milliseconds: 0,
    }
}

/// The task's outcome from its resources': failure, then unknown, then a change, then known-after.
fn worst(resources: &[ResourceReport]) -> Outcome {
    let rank = |outcome: &Outcome| match outcome {
        Outcome::Failed { .. } => 5,
        Outcome::Unknown { .. } => 4,
        Outcome::WouldChange | Outcome::Changed => 3,
        Outcome::KnownAfter { .. } => 2,
        Outcome::Ignored { .. } | Outcome::Skipped { .. } => 1,
        Outcome::Ok => 0,
    };
    resources.iter().map(|resource| &resource.outcome).max_by_key(|outcome| rank(outcome)).cloned().unwrap_or(Outcome::Ok)
}

/// One resource's decision for reports.
#[must_use]
pub fn resource_report(resource: &dyn Resource, decision: &Decision, diffs: &Diffs) -> ResourceReport {
    let mut report = ResourceReport {
        id: resource.id(),
        severity: resource.severity(),
        outcome: Outcome::Ok,
        changes: Vec::new(),
        notes: Vec::new(),
        unchecked: false,
    };
    match decision {
        Decision::Known(plan) => {
            report.changes = plan.changes.iter().map(|change| change_report(change, diffs)).collect();
            report.notes.clone_from(&plan.notes);
            report.unchecked = plan.unchecked;
            report.severity = plan.severity.map_or(report.severity, |severity| severity.min(report.severity));
            if !plan.is_in_sync() {
                report.outcome = Outcome::WouldChange;
            }
        }
        Decision::After(id) => report.outcome = Outcome::KnownAfter { resource: id.to_string() },
        Decision::Unknown(reason) => report.outcome = Outcome::Unknown { reason: reason.clone() },
        Decision::Refused(reason) => {
            let failure = crate::diagnostic::Failure::new(crate::diagnostic::FailureClass::Refused, reason.clone());
            report.outcome = Outcome::Failed { failure: (&failure).into() };
        }
    }
    report
}

/// A handler's resource in a plan: it runs if it comes to that, and what it does is known then.
#[must_use]
pub fn notified(resource: &dyn Resource) -> ResourceReport {
    ResourceReport {
        id: resource.id(),
        severity: resource.severity(),
        outcome: Outcome::WouldChange,
        changes: Vec::new(),
        notes: Vec::new(),
        unchecked: false,
    }
}

/// The old contents of files that would change, for diffs; empty when none were asked for.
pub type Diffs = HashMap<String, Option<Vec<u8>>>;

/// The paths whose old content a diff needs.
#[must_use]
pub fn paths_for_diffs<'a>(plans: impl IntoIterator<Item = &'a TaskPlan>) -> Vec<String> {
    let mut paths: Vec<String> = plans
        .into_iter()
        .flatten()
        .filter_map(|decision| match decision {
            Decision::Known(plan) => Some(&plan.changes),
            _ => None,
        })
        .flatten()
        .filter_map(|change| match (&change.before, &change.after) {
            (Shown::FileOnHost(path), Shown::Content(text)) if text.as_plain().is_some() => Some(path.clone()),
            _ => None,
        })
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

fn change_report(change: &Change, diffs: &Diffs) -> ChangeReport {
    let mut diff = None;
    let before = match &change.before {
        Shown::Absent => None,
        Shown::Plain(value) => Some(value.clone()),
        Shown::Hidden => Some("(hidden)".to_owned()),
        Shown::Content(text) => Some(text.to_string()),
        Shown::FileOnHost(_) => Some("(differs)".to_owned()),
    };
    let after = match &change.after {
        Shown::Absent => None,
        Shown::Plain(value) => Some(value.clone()),
        Shown::Hidden => Some("(hidden)".to_owned()),
        Shown::Content(text) => {
            let old = match &change.before {
                Shown::FileOnHost(path) => diffs.get(path).cloned(),
                _ => Some(None),
            };
            if let (Some(old), false) = (old, diffs.is_empty() && matches!(change.before, Shown::FileOnHost(_))) {
                diff = Some(unified(old.as_deref(), text));
            }
            // Of a text with a secret not even the length is known here.
            Some(text.as_plain().map_or_else(|| "(holds a secret)".to_owned(), |text| format!("({} bytes)", text.len())))
        }
        Shown::FileOnHost(_) => Some("(differs)".to_owned()),
    };
    ChangeReport { field: change.field.clone(), before, after, diff }
}

fn unified(old: Option<&[u8]>, new: &crate::secret::Text) -> String {
    let old = old.map_or_else(|| Some(String::new()), |bytes| String::from_utf8(bytes.to_vec()).ok());
    match (old, new.as_plain()) {
        (Some(old), Some(new)) => {
            let diff = similar::TextDiff::configure()
                .deadline(std::time::Instant::now() + std::time::Duration::from_millis(200))
                .diff_lines(&old, &new);
            diff.unified_diff().context_radius(3).to_string()
        }
        (_, None) => "(holds a secret: not shown)".to_owned(),
        (None, _) => "(not text)".to_owned(),
    }
}

/// A short digest of what a plan would do, for saved plans: ids, fields, before and after.
#[must_use]
pub fn digest(planner: &Planner<'_>, program: &Program, plans: &HashMap<TaskIndex, TaskPlan>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (play, index) in program.straight() {
        let Some(plan) = plans.get(&index) else { continue };
        for (resource, decision) in program.tasks[index].resources.iter().zip(plan) {
            let what = match decision {
                Decision::Known(plan) if plan.is_in_sync() => continue,
                Decision::Known(plan) => {
                    let mut words: Vec<String> = plan.changes.iter().map(|change| shown_digest(change, planner.digests)).collect();
                    words.extend(resource.questions(planner.facts).iter().filter_map(|question| planner.content(question)));
                    crate::secret::sha256(words.join("\n").as_bytes())
                }
                Decision::After(id) => format!("after {id}"),
                Decision::Unknown(_) => "unknown".to_owned(),
                Decision::Refused(_) => "refused".to_owned(),
            };
            out.push((format!("{play}/{index}/{}", resource.id()), what));
        }
    }
    out
}

fn shown_digest(change: &Change, digests: &KeyedDigests) -> String {
    let side = |shown: &Shown| match shown {
        Shown::Absent => "absent".to_owned(),
        Shown::Plain(value) => format!("={value}"),
        Shown::Hidden => "hidden".to_owned(),
        Shown::Content(text) => text.fingerprint(digests).map_or_else(|missing| missing.to_string(), |print| print.as_str().to_owned()),
        Shown::FileOnHost(path) => format!("file {path}"),
    };
    format!("{}:{}->{}", change.field, side(&change.before), side(&change.after))
}
