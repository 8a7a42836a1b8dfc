//! The lines of the table: one figure of the host each, against what is needed of it.

use std::collections::{BTreeMap, BTreeSet};

use super::consumers::{Consumer, shares};
use super::{Row, Verdict};
use crate::engine::host::HostRun;
use crate::engine::plan::Decision;
use crate::resource::compose::container::Container;
use crate::resource::compose::preflight::listener;
use crate::resource::observe::Answer;
use crate::resource::plan::Effect;
use crate::resource::{Claim, Question, ResourceId};
use crate::shell::Script;

/// What a kernel keeps of a machine's memory: one that was bought with 8 GiB reports a little less.
const KERNEL_SHARE: u64 = 16;

/// Whether a kernel module is loaded or can be: prints `loaded`, `loadable`, `missing`, or `unknown`
/// where the host has no modules to look at (a container).
pub(super) fn module(name: &str) -> Question {
    let script = Script::sh("m={}\n", &[&name.replace('-', "_")]).then(
        r#"if [ -d "/sys/module/$m" ] || grep -q "^$m " /proc/modules 2>/dev/null || { [ "$m" = af_packet ] && [ -e /proc/net/packet ]; }; then echo loaded
elif [ ! -d "/lib/modules/$(uname -r)" ] || ! command -v modprobe >/dev/null; then echo unknown
elif modprobe -nq "$m"; then echo loadable
else echo missing; fi"#,
        &[],
    );
    Question::Raw { key: format!("preflight/module/{name}"), script }
}

fn verdict(enough: bool) -> Verdict {
    if enough { Verdict::Ok } else { Verdict::Short }
}

pub(super) fn cpu(run: &HostRun, consumers: &[Consumer]) -> Row {
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

pub(super) fn memory(run: &HostRun, consumers: &[Consumer]) -> Row {
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
pub(super) fn limits(run: &HostRun, consumers: &[Consumer]) -> Option<Row> {
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
pub(super) fn disks(run: &HostRun, consumers: &[Consumer]) -> Vec<Row> {
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
pub(super) fn ports(run: &HostRun) -> Vec<Row> {
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
                row("its stack publishes it", Verdict::Ok)
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

pub(super) fn sysctls(run: &HostRun) -> Vec<Row> {
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

pub(super) fn modules(run: &HostRun) -> Vec<Row> {
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
pub(super) fn subnets(run: &HostRun) -> Vec<Row> {
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
