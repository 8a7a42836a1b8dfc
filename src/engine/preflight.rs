//! Preflight: what the roles and stacks of a host require, summed, against what the host has. Pure;
//! `apply` and `plan` refuse on it before anything is touched, `soc-provision preflight` shows it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::engine::host::HostRun;
use crate::engine::plan::Decision;
use crate::engine::program::Program;
use crate::resource::compose::container::Container;
use crate::resource::compose::host as stack_host;
use crate::resource::compose::preflight::listener;
use crate::resource::observe::{Answer, Observations};
use crate::resource::plan::Effect;
use crate::resource::requirement::Size;
use crate::resource::{Claim, Question, ResourceId};
use crate::shell::Script;

/// What a kernel keeps of a machine's memory: one that was bought with 8 GiB reports a little less.
const KERNEL_SHARE: u64 = 16;

/// What was compared.
#[derive(Clone, Debug, Default)]
pub struct Preflight {
    pub rows: Vec<Row>,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Row {
    /// `memory`, `cpu`, `disk /`, `port 443/tcp`, `sysctl vm.max_map_count`, ...
    pub what: String,
    pub needed: String,
    pub available: String,
    pub verdict: Verdict,
    /// Who needs it, and how much.
    pub by: Vec<String>,
    /// Where roles say so: `roles/siem/meta/main.yml:12`.
    pub at: Vec<String>,
}

/// How a comparison came out.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Worth knowing.
    Warn,
    /// Apply refuses.
    Short,
}

impl Preflight {
    /// A sentence for each shortage.
    #[must_use]
    pub fn shortages(&self) -> Vec<String> {
        let short = self.rows.iter().filter(|row| row.verdict == Verdict::Short);
        let sentence = |row: &Row| {
            let at = if row.at.is_empty() { String::new() } else { format!(" ({})", row.at.join(", ")) };
            format!("{}: {} needed, {}; needed by {}{at}", row.what, row.needed, row.available, row.by.join(", "))
        };
        short.map(sentence).collect()
    }
}

/// What must be read from the host for the roles' requirements; nothing where no role has any.
#[must_use]
pub fn questions(program: &Program) -> Vec<Question> {
    let mut out = Vec::new();
    for required in &program.requires {
        let needs = &required.needs;
        out.extend(needs.sysctl.keys().cloned().map(Question::Sysctl));
        out.extend(needs.modules.iter().map(|name| module(name)));
        if !needs.ports.is_empty() {
            out.extend([Question::Listening, Question::Containers]);
        }
        if !needs.subnets.is_empty() {
            out.push(crate::resource::compose_release::routes());
        }
    }
    out
}

/// Whether a kernel module is loaded or can be: prints `loaded`, `loadable`, `missing`, or `unknown`
/// where the host has no modules to look at (a container).
fn module(name: &str) -> Question {
    let script = Script::sh("m={}\n", &[&name.replace('-', "_")]).then(
        r#"if [ -d "/sys/module/$m" ] || grep -q "^$m " /proc/modules 2>/dev/null || { [ "$m" = af_packet ] && [ -e /proc/net/packet ]; }; then echo loaded
elif [ ! -d "/lib/modules/$(uname -r)" ] || ! command -v modprobe >/dev/null; then echo unknown
elif modprobe -nq "$m"; then echo loadable
else echo missing; fi"#,
        &[],
    );
    Question::Raw { key: format!("preflight/module/{name}"), script }
}

/// A role, or a stack outside of roles, with what it needs.
#[derive(Clone, Default)]
struct Consumer {
    name: String,
    /// Nothing of it is on the host yet.
    fresh: bool,
    milli_cpus: u64,
    memory: u64,
    limits: u64,
    disk: BTreeMap<String, u64>,
    /// The name of its size, and what all sizes need.
    profile: Option<String>,
    profiles: BTreeMap<String, Size>,
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

/// Compares. `run` was planned.
#[must_use]
pub fn compare(run: &HostRun) -> Preflight {
    let consumers = consumers(run);
    let mut rows = sizes(run, &consumers);
    if rows.iter().any(|row| row.verdict == Verdict::Short)
        && let Some(advice) = smaller(run, &consumers)
    {
        rows.iter_mut().filter(|row| row.verdict == Verdict::Short).for_each(|row| row.available.push_str(&advice));
    }
    rows.extend(limits(run, &consumers));
    rows.extend(ports(run));
    rows.extend(sysctls(run));
    rows.extend(modules(run));
    rows.extend(subnets(run));
    rows.retain(|row| !row.by.is_empty());
    for row in &mut rows {
        let said = |role: &str| row.by.iter().any(|by| by.split(' ').next() == Some(role));
        let places = run.program.requires.iter().filter(|required| said(&required.role));
        row.at = places.map(|required| format!("{}:{}", required.at.file.display(), required.at.line)).collect();
    }
    Preflight { rows }
}

/// What is summed over all consumers.
fn sizes(run: &HostRun, consumers: &[Consumer]) -> Vec<Row> {
    let mut rows = vec![cpu(run, consumers), memory(run, consumers)];
    rows.extend(disks(run, consumers));
    rows
}

/// What to say of the sizes of the roles where the one they have does not fit: the largest that does.
fn smaller(run: &HostRun, consumers: &[Consumer]) -> Option<String> {
    let (current, known) = consumers.iter().find_map(|consumer| Some((consumer.profile.as_ref()?, &consumer.profiles)))?;
    let resized = |name: &str| -> Vec<Consumer> {
        let one = |consumer: &Consumer| match consumer.profiles.get(name).filter(|_| consumer.profile.as_ref() == Some(current)) {
            Some(size) => Consumer { milli_cpus: size.milli_cpus, memory: size.memory, disk: size.disk.clone(), ..consumer.clone() },
            None => consumer.clone(),
        };
        consumers.iter().map(one).collect()
    };
    let mut others: Vec<(&String, Vec<Consumer>)> =
        known.keys().filter(|name| *name != current).map(|name| (name, resized(name))).collect();
    let memory = |list: &[Consumer]| list.iter().map(|consumer| consumer.memory).sum::<u64>();
    others.sort_by_key(|(_, list)| std::cmp::Reverse(memory(list)));
    let fits = |list: &[Consumer]| sizes(run, list).iter().all(|row| row.verdict != Verdict::Short);
    let fitting = others.iter().find(|(_, list)| fits(list)).map(|(name, _)| format!("profile `{name}` fits"));
    Some(format!(" (profile `{current}`; {})", fitting.unwrap_or_else(|| "no profile fits".to_owned())))
}

/// Every role and stack that needs something. A role's own figures and those of its stacks say the
/// same thing in two ways: the larger counts.
fn consumers(run: &HostRun) -> Vec<Consumer> {
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

fn shares(consumers: &[Consumer], figure: impl Fn(&Consumer) -> u64, shown: fn(u64) -> String) -> Vec<String> {
    let mut list: Vec<(u64, &str)> = consumers.iter().map(|consumer| (figure(consumer), consumer.name.as_str())).collect();
    list.retain(|(amount, _)| *amount > 0);
    list.sort_by(|a, b| b.cmp(a));
    list.into_iter().map(|(amount, name)| format!("{name} {}", shown(amount))).collect()
}

fn verdict(enough: bool) -> Verdict {
    if enough { Verdict::Ok } else { Verdict::Short }
}

fn cpu(run: &HostRun, consumers: &[Consumer]) -> Row {
    let needed: u64 = consumers.iter().map(|consumer| consumer.milli_cpus).sum();
    let have = run.facts.number("ansible_processor_vcpus").unwrap_or(0);
    Row {
        what: "cpu".to_owned(),
        needed: cpus(needed),
        available: format!("the host has {have}"),
        verdict: verdict(have == 0 || needed <= have * 1000),
        by: shares(consumers, |consumer| consumer.milli_cpus, cpus),
        at: Vec::new(),
    }
}

fn memory(run: &HostRun, consumers: &[Consumer]) -> Row {
    let needed: u64 = consumers.iter().map(|consumer| consumer.memory).sum();
    let have = total_memory(run);
    Row {
        what: "memory".to_owned(),
        needed: size(needed),
        available: format!("the host has {}", size(have)),
        verdict: verdict(have == 0 || needed <= have + have / KERNEL_SHARE),
        by: shares(consumers, |consumer| consumer.memory, size),
        at: Vec::new(),
    }
}

fn total_memory(run: &HostRun) -> u64 {
    run.facts.number("ansible_memtotal_mb").unwrap_or(0) << 20
}

/// Limits may exceed what there is; then it depends on luck who is killed.
fn limits(run: &HostRun, consumers: &[Consumer]) -> Option<Row> {
    let sum: u64 = consumers.iter().map(|consumer| consumer.limits).sum();
    let have = total_memory(run);
    (have > 0 && sum > have).then(|| Row {
        what: "memory limits".to_owned(),
        needed: size(sum),
        available: format!("the host has {}", size(have)),
        verdict: Verdict::Warn,
        by: shares(consumers, |consumer| consumer.limits, size),
        at: Vec::new(),
    })
}

/// By file system. Where a role or stack is there already, part of the space is in use by itself:
/// then the whole file system must be large enough, not what is free of it.
fn disks(run: &HostRun, consumers: &[Consumer]) -> Vec<Row> {
    let mounts = mounts(run);
    let mut out = Vec::new();
    for (mount, total, free) in &mounts {
        let on = |consumer: &Consumer| -> u64 {
            let here = consumer.disk.iter().filter(|(path, _)| mount_of(&mounts, path) == Some(mount));
            here.map(|(_, bytes)| bytes).sum()
        };
        let all: u64 = consumers.iter().map(on).sum();
        let new: u64 = consumers.iter().filter(|consumer| consumer.fresh).map(on).sum();
        if all == 0 {
            continue;
        }
        let (fits, enough) = (new <= *free, all <= *total);
        let available =
            if fits && !enough { format!("{} in all", size(*total)) } else { format!("{} free of {}", size(*free), size(*total)) };
        let needed = if fits || new == all { size(all) } else { format!("{} more of {}", size(new), size(all)) };
        out.push(Row {
            what: format!("disk {mount}"),
            needed,
            available,
            verdict: verdict(fits && enough),
            by: shares(consumers, on, size),
            at: Vec::new(),
        });
    }
    out
}

/// Mount point, size, free space.
fn mounts(run: &HostRun) -> Vec<(String, u64, u64)> {
    let list = run.facts.vars().get("ansible_mounts").and_then(|mounts| mounts.as_array()).into_iter().flatten();
    list.filter_map(|mount| {
        let number = |key: &str| mount.get(key)?.as_u64();
        Some((mount.get("mount")?.as_str()?.to_owned(), number("size_total")?, number("size_available")?))
    })
    .collect()
}

fn mount_of<'a>(mounts: &'a [(String, u64, u64)], path: &str) -> Option<&'a String> {
    let inside = |mount: &str| mount == "/" || path.strip_prefix(mount).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    mounts.iter().map(|(mount, ..)| mount).filter(|mount| inside(mount)).max_by_key(|mount| mount.len())
}

/// Ports that roles ask for and no stack of theirs publishes: stacks' own are looked at by the
/// stacks, where they know what is theirs.
fn ports(run: &HostRun) -> Vec<Row> {
    let claims = run.claims();
    let published: BTreeSet<(u16, &str)> = claims
        .iter()
        .filter_map(|(_, claim)| match claim {
            Claim::PublishedPort { port, protocol, .. } => Some((*port, protocol.as_str())),
            _ => None,
        })
        .collect();
    let listening = match run.observed().get(&Question::Listening) {
        Some(Answer::Line(Some(lines))) => lines.as_str(),
        _ => "",
    };
    let bound = match run.observed().get(&Question::Containers) {
        Some(Answer::Json(Some(list))) => list.as_array().into_iter().flatten().map(Container::read).collect(),
        _ => Vec::new(),
    };
    let never_applied = run.state.last.is_empty();
    let mut out: BTreeMap<(u16, &str), Row> = BTreeMap::new();
    for required in &run.program.requires {
        for (port, protocol) in &required.needs.ports {
            if let Some(row) = out.get_mut(&(*port, protocol.as_str())) {
                row.by.push(required.role.clone());
                row.verdict = Verdict::Short;
                "two roles want it".clone_into(&mut row.available);
                continue;
            }
            let what = format!("port {port}/{protocol}");
            let row = |available: &str, verdict| Row {
                what: what.clone(),
                needed: "one owner".to_owned(),
                available: available.to_owned(),
                verdict,
                by: vec![required.role.clone()],
                at: Vec::new(),
            };
            let holder = bound
                .iter()
                .find(|container: &&Container| container.bound.iter().any(|bound| (bound.host, &bound.protocol) == (*port, protocol)))
                .map(|container| format!("container `{}`", container.name))
                .or_else(|| listener(listening, *port, protocol, ""));
            let found = if published.contains(&(*port, protocol.as_str())) {
                row("published by its stack", Verdict::Ok)
            } else {
                match holder {
                    None => row("free", Verdict::Ok),
                    // After the first apply it is the role's own program that listens there.
                    Some(holder) if never_applied => row(&format!("taken by {holder}"), Verdict::Short),
                    Some(holder) => row(&format!("in use by {holder}"), Verdict::Ok),
                }
            };
            out.insert((*port, protocol.as_str()), found);
        }
    }
    out.into_values().collect()
}

/// Who in the plan is going to touch something.
fn planned(run: &HostRun, touches: impl Fn(&Effect) -> bool) -> Option<ResourceId> {
    for (index, plans) in &run.plans {
        for (resource, decision) in run.program.tasks[*index].resources.iter().zip(plans) {
            if let Decision::Known(plan) = decision
                && plan.effects.iter().any(&touches)
            {
                return Some(resource.id());
            }
        }
    }
    None
}

fn sysctls(run: &HostRun) -> Vec<Row> {
    let mut least: BTreeMap<&str, (u64, Vec<String>)> = BTreeMap::new();
    for required in &run.program.requires {
        for (name, value) in &required.needs.sysctl {
            let entry = least.entry(name).or_default();
            entry.0 = entry.0.max(*value);
            entry.1.push(required.role.clone());
        }
    }
    let row = |(name, (least, by)): (&str, (u64, Vec<String>))| {
        let value = match run.observed().get(&Question::Sysctl(name.to_owned())) {
            Some(Answer::Line(value)) => value.clone(),
            _ => None,
        };
        let number = value.as_deref().and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0);
        let setter = planned(run, |effect| matches!(effect, Effect::Sysctl(touched) if touched == name));
        let now = value.map_or_else(|| "absent now".to_owned(), |value| format!("{} now", value.trim()));
        let available = setter.as_ref().map_or_else(|| now.clone(), |id| format!("{now}, set by {id}"));
        Row {
            what: format!("sysctl {name}"),
            needed: format!("at least {least}"),
            available,
            verdict: verdict(number >= least || setter.is_some()),
            by,
            at: Vec::new(),
        }
    };
    least.into_iter().map(row).collect()
}

fn modules(run: &HostRun) -> Vec<Row> {
    let mut wanted: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for required in &run.program.requires {
        for name in &required.needs.modules {
            wanted.entry(name).or_default().push(required.role.clone());
        }
    }
    let row = |(name, by): (&str, Vec<String>)| {
        let state = match run.observed().get(&module(name)) {
            Some(Answer::Raw(output)) => output.stdout.trim(),
            _ => "unknown",
        };
        let loader = planned(run, |effect| matches!(effect, Effect::Module(touched) if touched == name));
        let verdict = match state {
            "loaded" | "loadable" => Verdict::Ok,
            "missing" if loader.is_none() => Verdict::Short,
            _ => Verdict::Warn,
        };
        Row { what: format!("module {name}"), needed: "loadable".to_owned(), available: state.to_owned(), verdict, by, at: Vec::new() }
    };
    wanted.into_iter().map(row).collect()
}

/// Subnets that roles ask for; those of stacks' networks are looked at by the stacks.
fn subnets(run: &HostRun) -> Vec<Row> {
    let routes = match run.observed().get(&crate::resource::compose_release::routes()) {
        Some(Answer::Raw(output)) => output.stdout.as_str(),
        _ => "",
    };
    let own: BTreeSet<String> = run
        .claims()
        .into_iter()
        .filter_map(|(_, claim)| match claim {
            Claim::Subnet { cidr, .. } => Some(cidr),
            _ => None,
        })
        .collect();
    let mut out = Vec::new();
    for required in &run.program.requires {
        for subnet in &required.needs.subnets {
            let clash = crate::resource::compose::preflight::clash(subnet, routes).filter(|_| !own.contains(subnet));
            out.push(Row {
                what: format!("subnet {subnet}"),
                needed: "free".to_owned(),
                available: clash.clone().map_or_else(|| "free".to_owned(), |route| format!("overlaps with {route}")),
                verdict: verdict(clash.is_none()),
                by: vec![required.role.clone()],
                at: Vec::new(),
            });
        }
    }
    out
}

/// A size for people.
fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let in_units = |unit: u64| (bytes as f64 / unit as f64 * 10.0).round() / 10.0;
    match bytes {
        0 => "0".to_owned(),
        bytes if bytes >= 1 << 40 => format!("{} TiB", in_units(1 << 40)),
        bytes if bytes >= 1 << 30 => format!("{} GiB", in_units(1 << 30)),
        _ => format!("{} MiB", in_units(1 << 20)),
    }
}

/// Processors for people.
fn cpus(milli: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let number = milli as f64 / 1000.0;
    format!("{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_for_people() {
        assert_eq!(
            (size(0), size(256 << 20), size(3 << 29), size(2 << 40)),
            ("0".into(), "256 MiB".into(), "1.5 GiB".into(), "2 TiB".into())
        );
        assert_eq!((cpus(500), cpus(16000)), ("0.5".into(), "16".into()));
    }

    #[test]
    fn a_path_lies_in_the_deepest_mount() {
        let mounts = [("/".to_owned(), 1, 1), ("/var/lib".to_owned(), 1, 1), ("/var/library".to_owned(), 1, 1)];
        assert_eq!(mount_of(&mounts, "/var/lib/docker").map(String::as_str), Some("/var/lib"));
        assert_eq!(mount_of(&mounts, "/var").map(String::as_str), Some("/"));
    }
}
