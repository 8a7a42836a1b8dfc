//! Preflight: what the roles and stacks of a host require, summed, against what the host has. Pure;
//! `apply` and `plan` refuse on it before anything is touched, `soc-provision preflight` shows it.

mod consumers;
mod rows;

use serde::Serialize;

use crate::engine::host::HostRun;
use crate::engine::program::Program;
use crate::resource::Question;
use consumers::Consumer;
use rows::{cpu, disks, limits, memory, module, modules, ports, subnets, sysctls};

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

/// Compares. `run` was planned.
#[must_use]
pub fn compare(run: &HostRun) -> Preflight {
    let consumers = consumers::all(run);
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
