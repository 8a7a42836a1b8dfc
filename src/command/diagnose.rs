//! `diagnose`: what is the matter with stacks. Looks and touches nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::cli::diagnose::DiagnoseArgs;
use crate::cli::{Format, RunArgs};
use crate::command::run::{JobOptions, load, prepare};
use crate::command::{adhoc, complain, drive, print};
use crate::diagnostic::{Exit, Failure, nearest, printable};
use crate::engine::Mode;
use crate::engine::apply::Walk;
use crate::engine::host::HostRun;
use crate::engine::operate::Operation;
use crate::report::{Paint, colour_on_stdout, paint};
use crate::resolve::HostProgram;
use crate::resource::compose::diagnosis::{self, Finding, FindingKind};

/// How long one stack may take.
const DEADLINE: Duration = Duration::from_secs(180);

/// Looks and shows.
pub(super) fn run(arguments: &DiagnoseArgs) -> Exit {
    let is_playbook = [arguments.target.clone(), format!("playbooks/{}", arguments.target), format!("playbooks/{}.yml", arguments.target)]
        .iter()
        .any(|path| std::path::Path::new(path).is_file());
    let loaded =
        if is_playbook { load(&arguments.target, &arguments.inventory) } else { adhoc::load(&arguments.target, &arguments.inventory) };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let format = arguments.connect.format;
    let mut connect = arguments.connect.clone();
    // The findings are the answer; there is no recap to them.
    connect.format = Format::Json;
    let run = RunArgs {
        playbook: arguments.target.clone(),
        inventory: arguments.inventory.clone(),
        connect,
        tags: Vec::new(),
        skip_tags: Vec::new(),
        shard: None,
    };
    let options = JobOptions { mode: Mode::Inspect, command: "diagnose", diff: false, break_lock: false, retry_release: true };
    let mut prepared = match prepare(&loaded, &run, &options) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let operation = Arc::new(Diagnose { stacks: arguments.stack.clone(), found: Mutex::default() });
    match Arc::get_mut(&mut prepared.job) {
        Some(job) => {
            job.operation = Some(operation.clone());
            // A project that cannot be resolved any more must not hide what is the matter.
            job.resolve = Box::new(|_, _| Ok(HostProgram::default()));
        }
        None => return Exit::Bug,
    }
    let (_, exit) = drive::run(&prepared, Format::Text, |_, exit| exit);
    let found = operation.found.lock().unwrap_or_else(PoisonError::into_inner);
    let ill = found.values().flat_map(|host| host.stacks.values()).flatten().any(|finding| finding.kind == FindingKind::Bad);
    let exit = if ill { exit.max(Exit::Failed) } else { exit };
    if format == Format::Text {
        print(&text(&found, colour_on_stdout()));
    } else {
        let hosts: BTreeMap<_, _> = found.iter().map(|(name, host)| (name, &host.stacks)).collect();
        print(&format!("{}\n", serde_json::to_string_pretty(&json!({ "exit": exit.code(), "hosts": hosts })).unwrap_or_default()));
    }
    exit.max(unknown(&arguments.stack, &found))
}

/// Stacks that were asked for and that no host has.
fn unknown(stacks: &[String], found: &BTreeMap<String, Found>) -> Exit {
    let mut exit = Exit::Fine;
    for stack in stacks.iter().filter(|stack| !found.is_empty() && found.values().all(|host| !host.there.contains(stack))) {
        let there: Vec<&str> = found.values().flat_map(|host| host.there.iter().map(String::as_str)).collect();
        let hint = match nearest(stack, there.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if there.is_empty() => "no host has any stack".to_owned(),
            None => format!("there are: {}", printable(&there.join(", "))),
        };
        complain(&format!("error: no host has a stack `{}`\nhint: {hint}", printable(stack)));
        exit = Exit::Usage;
    }
    exit
}

#[derive(Default)]
struct Found {
    /// Every stack that is on the host.
    there: Vec<String>,
    stacks: BTreeMap<String, Vec<Finding>>,
}

struct Diagnose {
    stacks: Vec<String>,
    found: Mutex<BTreeMap<String, Found>>,
}

impl Operation for Diagnose {
    fn run<'a>(&'a self, host: &'a mut HostRun) -> Walk<'a> {
        Box::pin(self.one(host))
    }
}

impl Diagnose {
    async fn one(&self, host: &mut HostRun) -> Result<(), Failure> {
        let listed = host.script("looking for stacks", diagnosis::projects(), DEADLINE).await?;
        let mut found = Found { there: String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect(), ..Found::default() };
        let wanted = if self.stacks.is_empty() { found.there.clone() } else { self.stacks.clone() };
        for stack in wanted.iter().filter(|stack| found.there.contains(stack)) {
            let output = host.script(&format!("diagnosing {stack}"), diagnosis::script(stack), DEADLINE).await?;
            let mut findings = diagnosis::parse(&String::from_utf8_lossy(&output.stdout));
            if output.status != 0 {
                let last = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
                let text = format!("the diagnosis ended early (status {}): {last}", output.status);
                findings.push(Finding { kind: FindingKind::Bad, subject: stack.clone(), text });
            }
            found.stacks.insert(stack.clone(), findings);
        }
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(host.name.clone(), found);
        Ok(())
    }
}

/// By host and stack: what each container is, then what is wrong, then what it said.
fn text(found: &BTreeMap<String, Found>, colour: bool) -> String {
    let mut out = String::new();
    for (host, found) in found {
        if found.there.is_empty() {
            out.push_str(&format!("{host}: no stacks\n"));
        }
        for (stack, findings) in &found.stacks {
            let wrong = findings.iter().filter(|finding| finding.kind == FindingKind::Bad).count();
            let verdict = match wrong {
                0 => paint(colour, Paint::Green, "nothing wrong"),
                1 => paint(colour, Paint::Red, "1 thing is wrong"),
                more => paint(colour, Paint::Red, &format!("{more} things are wrong")),
            };
            let head = findings.iter().find(|finding| finding.kind == FindingKind::Stack).map_or("", |finding| &finding.text);
            out.push_str(&format!("{host}: stack {stack}: {}{}{verdict}\n", printable(head), if head.is_empty() { "" } else { ": " }));
            let mut subjects: Vec<&str> = Vec::new();
            for finding in findings.iter().filter(|finding| finding.kind != FindingKind::Stack) {
                if !subjects.contains(&finding.subject.as_str()) {
                    subjects.push(&finding.subject);
                }
            }
            for subject in subjects {
                about(&mut out, subject, findings, colour);
            }
        }
    }
    out
}

fn about(out: &mut String, subject: &str, findings: &[Finding], colour: bool) {
    let of = |kind: FindingKind| findings.iter().filter(move |finding| finding.subject == subject && finding.kind == kind);
    let state = of(FindingKind::State).map(|finding| finding.text.as_str()).next().unwrap_or_default();
    out.push_str(format!("  {} {}", printable(subject), printable(state)).trim_end());
    out.push('\n');
    for finding in of(FindingKind::Bad) {
        out.push_str(&format!("    {}\n", paint(colour, Paint::Red, &format!("wrong: {}", printable(&finding.text)))));
    }
    for finding in of(FindingKind::Note) {
        out.push_str(&format!("    note: {}\n", printable(&finding.text)));
    }
    for finding in of(FindingKind::Log) {
        out.push_str(&format!("    {} {}\n", paint(colour, Paint::Dim, "|"), printable(&finding.text)));
    }
}
