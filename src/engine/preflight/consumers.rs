//! Who needs what: roles by what they require, stacks by what their services reserve.

use std::collections::BTreeMap;

use crate::engine::host::HostRun;
use crate::resource::Claim;
use crate::resource::compose::host as stack_host;
use crate::resource::observe::{Answer, Observations};
use crate::resource::requirement::Size;

/// A role, or a stack outside of roles, with what it needs.
#[derive(Clone, Default)]
pub(super) struct Consumer {
    pub(super) name: String,
    /// Nothing of it is on the host yet.
    pub(super) fresh: bool,
    pub(super) milli_cpus: u64,
    pub(super) memory: u64,
    pub(super) limits: u64,
    pub(super) disk: BTreeMap<String, u64>,
    /// The name of its size, and what all sizes need.
    pub(super) profile: Option<String>,
    pub(super) profiles: BTreeMap<String, Size>,
}

/// A stack's own figures.
#[derive(Default)]
struct StackNeeds {
    milli_cpus: (u64, u64),
    memory: (u64, u64),
    limits: u64,
    disk: BTreeMap<String, u64>,
    fresh: bool,
}

/// Every role and stack that needs something. A role's own figures and those of its stacks say the
/// same thing in two ways: the larger counts.
pub(super) fn all(run: &HostRun) -> Vec<Consumer> {
    let mut by_role: BTreeMap<String, Vec<StackNeeds>> = BTreeMap::new();
    for (_, index) in run.program.straight() {
        let task = &run.program.tasks[index];
        for resource in &task.resources {
            let claims = resource.claims();
            let needs = stack_needs(&claims, run.observed());
            if let Some(needs) = needs {
                let name = task.role.clone().unwrap_or_else(|| format!("stack {}", resource.id().name));
                by_role.entry(name).or_default().push(needs);
            }
        }
    }
    let never_applied = run.state.last.is_empty();
    let mut out: BTreeMap<String, Consumer> = BTreeMap::new();
    for required in &run.program.requires {
        let consumer = out.entry(required.role.clone()).or_default();
        consumer.milli_cpus += required.needs.milli_cpus;
        consumer.memory += required.needs.memory;
        for (path, bytes) in &required.needs.disk {
            *consumer.disk.entry(path.clone()).or_default() += bytes;
        }
        consumer.fresh = never_applied;
        consumer.profile.clone_from(&required.needs.profile);
        consumer.profiles.clone_from(&required.needs.profiles);
    }
    for (name, stacks) in by_role {
        let consumer = out.entry(name).or_default();
        let sum = |figure: fn(&StackNeeds) -> u64| stacks.iter().map(figure).sum::<u64>();
        consumer.milli_cpus = consumer.milli_cpus.max(sum(|stack| stack.milli_cpus.0.max(stack.milli_cpus.1)));
        consumer.memory = consumer.memory.max(sum(|stack| stack.memory.0.max(stack.memory.1)));
        consumer.limits = sum(|stack| stack.limits);
        consumer.fresh = stacks.iter().any(|stack| stack.fresh);
        let mut disk: BTreeMap<&String, u64> = BTreeMap::new();
        for (path, bytes) in stacks.iter().flat_map(|stack| &stack.disk) {
            *disk.entry(path).or_default() += bytes;
        }
        for (path, bytes) in disk {
            let own = consumer.disk.entry(path.clone()).or_default();
            *own = bytes.max(*own);
        }
    }
    out.into_iter().map(|(name, consumer)| Consumer { name, ..consumer }).collect()
}

fn stack_needs(claims: &[Claim], observations: &Observations) -> Option<StackNeeds> {
    let mut needs = StackNeeds::default();
    let mut is_stack = false;
    for claim in claims {
        match claim {
            Claim::ComposeProject(name) => {
                is_stack = true;
                let answer = observations.get(&stack_host::question(name));
                let state = match answer {
                    Some(Answer::Raw(output)) => stack_host::parse(&output.stdout).ok(),
                    _ => None,
                };
                needs.fresh = state.is_none_or(|state| state.current.is_none());
            }
            Claim::Reservation { milli_cpus, memory, .. } => {
                needs.milli_cpus.0 += milli_cpus;
                needs.memory.0 += memory;
            }
            Claim::Needs { milli_cpus, memory, .. } => {
                needs.milli_cpus.1 += milli_cpus;
                needs.memory.1 += memory;
            }
            Claim::Limit { memory, .. } => needs.limits += memory,
            Claim::Disk { path, bytes, .. } => *needs.disk.entry(path.clone()).or_default() += bytes,
            _ => {}
        }
    }
    is_stack.then_some(needs)
}

/// Who has which share of a figure, the largest first.
pub(super) fn shares(consumers: &[Consumer], figure: impl Fn(&Consumer) -> u64, shown: fn(u64) -> String) -> Vec<String> {
    let mut list: Vec<(u64, &str)> = consumers.iter().map(|consumer| (figure(consumer), consumer.name.as_str())).collect();
    list.retain(|(amount, _)| *amount > 0);
    list.sort_by(|a, b| b.cmp(a));
    list.into_iter().map(|(amount, name)| format!("{name} {}", shown(amount))).collect()
}
