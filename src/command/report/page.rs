//! `report html`: the fleet over its nights, as one page.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::cli::report::HtmlArgs;
use crate::command::report::{compare, filter, latest, local_time, wrong};
use crate::command::{complain, print, whole_file};
use crate::diagnostic::Exit;
use crate::history::{Filter, History, HistoryError, RunRow};
use crate::report::findings::{Finding, State};
use crate::report::html::{self, Night, Page, Span};
use crate::report::json::Document;

/// Longest difference of a file on the page, and all of them together, in bytes.
const ONE_DIFF: usize = 4 << 10;
const ALL_DIFFS: usize = 1 << 20;

/// Writes the page.
pub(super) fn run(history: &History, arguments: &HtmlArgs) -> Exit {
    let last = match latest(history, None, &arguments.which) {
        Ok(last) => last,
        Err(why) => return wrong(why),
    };
    let page = runs(history, arguments, &last).and_then(|runs| page(history, &runs));
    let text = match page {
        Ok(page) => html::render(&page),
        Err(error) => return wrong(error),
    };
    match &arguments.out {
        None => print(&text),
        Some(path) => {
            if let Err(error) = whole_file(path, text.as_bytes()) {
                return wrong(format!("`{}` cannot be written: {error}", path.display()));
            }
            complain(&format!("{}: {} KiB", path.display(), text.len().div_ceil(1024)));
        }
    }
    Exit::Fine
}

/// The runs of the page, oldest first: of the same command on the same playbook as the last.
fn runs(history: &History, arguments: &HtmlArgs, last: &RunRow) -> Result<Vec<RunRow>, HistoryError> {
    let wanted =
        Filter { playbook: Some(last.info.playbook.clone()), command: Some(last.info.command.clone()), ..filter(&arguments.which) };
    let mut runs = history.runs(&wanted)?;
    runs.retain(|run| run.exit.is_some() && !run.info.partial && run.info.root == last.info.root);
    runs.truncate(arguments.nights.max(1));
    runs.reverse();
    Ok(runs)
}

/// Names, numbered in the order in which they came.
#[derive(Default)]
struct Names {
    list: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Names {
    fn number(&mut self, name: &str) -> usize {
        *self.numbers.entry(name.to_owned()).or_insert_with(|| {
            self.list.push(name.to_owned());
            self.list.len() - 1
        })
    }
}

fn page(history: &History, runs: &[RunRow]) -> Result<Page, HistoryError> {
    let Some(last) = runs.last() else { return Ok(Page::default()) };
    let mut page = Page {
        title: format!("{} of {}", last.info.command, last.info.playbook),
        made: format!("{}, last run {} by {}@{}", last.info.root, local_time(last.info.started), last.info.who, last.info.from),
        ..Page::default()
    };
    let (mut hosts, mut roles) = (Names::default(), Names::default());
    let mut states: HashMap<(usize, usize), BTreeMap<usize, State>> = HashMap::new();
    let mut host_seconds: BTreeMap<usize, Vec<(usize, f64)>> = BTreeMap::new();
    let mut role_seconds: BTreeMap<usize, Vec<(usize, f64)>> = BTreeMap::new();
    let mut dark: BTreeSet<(usize, usize)> = BTreeSet::new();
    for (night, run) in runs.iter().enumerate() {
        for row in history.hosts(run.seq)? {
            let host = hosts.number(&row.host);
            host_seconds.entry(host).or_default().push((night, row.seconds));
            if row.state == State::Unreachable {
                dark.insert((host, night));
            }
        }
        let mut slowest: BTreeMap<usize, u64> = BTreeMap::new();
        for (host, cells) in history.cells(run.seq)? {
            let host = hosts.number(&host);
            for cell in cells {
                let role = roles.number(&cell.role);
                states.entry((host, role)).or_default().insert(night, cell.state);
                let most = slowest.entry(role).or_default();
                *most = (*most).max(cell.milliseconds);
            }
        }
        for (role, milliseconds) in slowest {
            #[expect(clippy::cast_precision_loss, reason = "times of a run")]
            role_seconds.entry(role).or_default().push((night, milliseconds as f64 / 1000.0));
        }
        page.nights.push(night_of(history, run)?);
    }
    page.findings = spans(history, runs, &mut hosts, &mut roles)?;
    page.cells = cells(hosts.list.len(), roles.list.len(), runs.len(), &states, &dark);
    let document = history.document(last)?;
    attach(&mut page, &hosts, &document, runs.len() - 1);
    if let [.., before, after] = runs {
        let comparison = compare::compare(history, before, after)?;
        let line = |found: &Finding| format!("[{}] {} {}: {}", found.host, found.state.word(), found.resource, found.summary);
        page.new = comparison.new.iter().chain(&comparison.other).map(line).collect();
        page.gone = comparison.gone.iter().map(line).collect();
    }
    page.host_times = times(&hosts, &host_seconds, runs.len());
    page.role_times = times(&roles, &role_seconds, runs.len());
    (page.hosts, page.roles) = (hosts.list, roles.list);
    Ok(page)
}

fn night_of(history: &History, run: &RunRow) -> Result<Night, HistoryError> {
    let found = history.findings(run.seq)?;
    Ok(Night {
        run: run.info.run.clone(),
        when: local_time(run.info.started),
        command: run.info.command.clone(),
        exit: run.exit.unwrap_or_default(),
        revision: run.info.revision.clone().unwrap_or_default(),
        seconds: run.seconds.unwrap_or_default(),
        bad: found.iter().filter(|found| found.state.is_bad()).count(),
        dark: run.states.get(State::Unreachable.word()).map_or(0, |count| usize::try_from(*count).unwrap_or_default()),
    })
}

/// Run lengths of every cell. A host that was not reached is dark in every role it has.
fn cells(
    hosts: usize,
    roles: usize,
    nights: usize,
    states: &HashMap<(usize, usize), BTreeMap<usize, State>>,
    dark: &BTreeSet<(usize, usize)>,
) -> Vec<Vec<u32>> {
    let mut out = Vec::with_capacity(hosts * roles);
    for host in 0..hosts {
        for role in 0..roles {
            let seen = states.get(&(host, role));
            let mut runs = Vec::new();
            for night in 0..nights {
                let state = match seen {
                    None => 9,
                    Some(_) if dark.contains(&(host, night)) => html::number(State::Unreachable),
                    Some(seen) => seen.get(&night).map_or(9, |state| html::number(*state)),
                };
                html::push(&mut runs, state);
            }
            // A host that was never reached has no role that anybody knows of: its first cell says so.
            if role == 0
                && seen.is_none()
                && dark.contains(&(host, nights - 1))
                && (0..roles).all(|role| !states.contains_key(&(host, role)))
            {
                runs = vec![html::number(State::Unreachable), u32::try_from(nights).unwrap_or(1)];
            }
            out.push(runs);
        }
    }
    out
}

/// Findings, each over the nights in which it was there and the same.
fn spans(history: &History, runs: &[RunRow], hosts: &mut Names, roles: &mut Names) -> Result<Vec<Span>, HistoryError> {
    type Key = (usize, usize, String, usize, String);
    let mut open: BTreeMap<Key, Span> = BTreeMap::new();
    let mut out = Vec::new();
    for (night, run) in runs.iter().enumerate() {
        let mut now = BTreeMap::new();
        for found in history.findings(run.seq)? {
            let (h, r, state) = (hosts.number(&found.host), roles.number(&found.role), html::number(found.state) as usize);
            let key: Key = (h, r, found.resource.clone(), state, found.summary.clone());
            let severity = format!("{:?}", found.severity).to_lowercase();
            let new = Span { h, r, what: found.resource, severity, state, summary: found.summary, diff: None, from: night, to: night };
            let span = match open.remove(&key) {
                Some(span) => Span { to: night, ..span },
                None => new,
            };
            now.insert(key, span);
        }
        out.extend(std::mem::replace(&mut open, now).into_values());
    }
    out.extend(open.into_values());
    Ok(out)
}

/// The differences of files, and why hosts failed, of the last night.
fn attach(page: &mut Page, hosts: &Names, document: &Document, last: usize) {
    let mut diffs: HashMap<(usize, String), String> = HashMap::new();
    page.failures = vec![None; hosts.list.len()];
    for (name, host) in &document.hosts {
        let Some(number) = hosts.numbers.get(name) else { continue };
        page.failures[*number] = host.report.failure.as_ref().map(crate::report::findings::failure_line);
        for resource in host.tasks.iter().flat_map(|task| &task.resources) {
            let text: String = resource.changes.iter().filter_map(|change| change.diff.as_deref()).collect::<Vec<_>>().join("\n");
            if !text.is_empty() {
                diffs.insert((*number, resource.id.to_string()), crate::diagnostic::printable(&text));
            }
        }
    }
    let mut left = ALL_DIFFS;
    for span in page.findings.iter_mut().filter(|span| span.to == last) {
        let Some(diff) = diffs.remove(&(span.h, span.what.clone())) else { continue };
        let cut = diff.char_indices().map(|(at, _)| at).take_while(|at| *at <= ONE_DIFF).last().unwrap_or(0);
        let diff = if diff.len() > ONE_DIFF { format!("{}\n(more is in `report show -D`)", &diff[..cut]) } else { diff };
        if diff.len() <= left {
            left -= diff.len();
            span.diff = Some(diff);
        }
    }
}

/// Seconds in the last night and the median of all, the slowest first.
fn times(names: &Names, seconds: &BTreeMap<usize, Vec<(usize, f64)>>, nights: usize) -> Vec<(String, f64, f64)> {
    let mut out: Vec<(String, f64, f64)> = seconds
        .iter()
        .map(|(number, list)| {
            let last = list.last().filter(|(night, _)| night + 1 == nights).map_or(0.0, |(_, seconds)| *seconds);
            let mut sorted: Vec<f64> = list.iter().map(|(_, seconds)| *seconds).collect();
            sorted.sort_by(f64::total_cmp);
            (names.list[*number].clone(), last, sorted[sorted.len() / 2])
        })
        .collect();
    out.sort_by(|a, b| b.1.total_cmp(&a.1));
    out
}
