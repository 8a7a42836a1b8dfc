//! The run as people follow it: bars on a terminal, plain lines elsewhere, on stderr; the plan's
//! and the tasks' lines on stdout in Ansible's words.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::diagnostic::{printable, printable_line as line};
use crate::event::{CheckReport, Event, EventKind, FailureReport, HostReport, Listener, Outcome, ResourceReport, TaskReport};
use crate::report::recap::{Summary, heading};
use crate::report::{Paint, diff_rows, paint};

/// How much is said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verbosity {
    /// `-v` up to `-vvvv`.
    pub level: u8,
    pub diff: bool,
    pub colour: bool,
    /// Show bars: stderr is a terminal.
    pub bars: bool,
    /// Say nothing on stdout but errors (`--format json` prints its own).
    pub quiet: bool,
    /// A plan: words are `would change`.
    pub planning: bool,
}

/// Shows a run.
pub struct Terminal {
    verbosity: Verbosity,
    bars: MultiProgress,
    hosts: BTreeMap<String, ProgressBar>,
    uploads: HashMap<(String, String), ProgressBar>,
    summary: Summary,
    /// Heading and place of the task that was shown last.
    last_task: (String, Option<String>),
    /// Hosts whose failure was shown with its task, to people who see both streams.
    shown: BTreeSet<String>,
    /// What goes to stdout and to stderr is read as one.
    one_stream: bool,
}

/// Whether stdout and stderr end up in front of the same eyes: on a terminal, or in one file.
fn one_stream() -> bool {
    let place = |stat: rustix::io::Result<rustix::fs::Stat>| stat.ok().map(|stat| (stat.st_dev, stat.st_ino));
    let (out, err) = (place(rustix::fs::fstat(std::io::stdout())), place(rustix::fs::fstat(std::io::stderr())));
    std::io::stdout().is_terminal() || (out.is_some() && out == err)
}

impl Terminal {
    /// A terminal that says this much.
    #[must_use]
    pub fn new(verbosity: Verbosity) -> Self {
        let target = if verbosity.bars { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        Self {
            verbosity,
            bars: MultiProgress::with_draw_target(target),
            hosts: BTreeMap::new(),
            uploads: HashMap::new(),
            summary: Summary::default(),
            last_task: (String::new(), None),
            shown: BTreeSet::new(),
            one_stream: one_stream(),
        }
    }

    /// Prints lines to stdout above the bars.
    fn say(&self, text: &str) {
        if self.verbosity.quiet {
            return;
        }
        self.bars.suspend(|| super::output::write(&format!("{text}\n")));
    }

    /// Prints lines to stderr above the bars.
    fn note(&self, text: &str) {
        self.bars.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        });
    }

    fn bar(&mut self, host: &str) -> &ProgressBar {
        let bars = &self.bars;
        self.hosts.entry(host.to_owned()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template(if self.verbosity.colour {
                "{spinner} {prefix:.bold} {wide_msg} {elapsed}"
            } else {
                "{spinner} {prefix} {wide_msg} {elapsed}"
            }) {
                bar.set_style(style);
            }
            bar.set_prefix(host.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        })
    }

    fn doing(&mut self, host: &str, what: &str, at_ms: u64) {
        if self.verbosity.bars {
            // More bars than lines would scroll the screen away.
            if self.hosts.len() < 30 || self.hosts.contains_key(host) {
                self.bar(host).set_message(line(what));
            }
        } else if self.verbosity.level >= 2 {
            let when = match self.verbosity.level {
                2 => String::new(),
                _ => format!("[{:8.3}] ", Duration::from_millis(at_ms).as_secs_f64()),
            };
            self.note(&format!("{when}{}: {}", line(host), line(what)));
        }
    }

    fn upload(&mut self, host: &str, name: &str, done: u64, total: u64) {
        if !self.verbosity.bars {
            if done >= total && self.verbosity.level >= 1 {
                self.note(&format!("{host}: sent {name}, {total} bytes"));
            }
            return;
        }
        let bars = &self.bars;
        let key = (host.to_owned(), name.to_owned());
        let bar = self.uploads.entry(key.clone()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(total));
            if let Ok(style) = ProgressStyle::with_template("  {prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
                bar.set_style(style);
            }
            bar.set_prefix(format!("{host} {name}"));
            bar
        });
        bar.set_position(done);
        if done >= total {
            bar.finish_and_clear();
            self.uploads.remove(&key);
        }
    }

    fn task(&mut self, host: &str, task: &TaskReport) {
        let boring = matches!(task.outcome, Outcome::Ok | Outcome::Skipped { .. });
        let notes: Vec<&String> = task.resources.iter().flat_map(|resource| &resource.notes).collect();
        // A container that is left alone for an incident's sake is told in every run.
        let told = self.verbosity.planning || notes.iter().any(|note| note.contains("was contained by"));
        if boring && self.verbosity.level == 0 && (notes.is_empty() || !told) {
            return;
        }
        let title = if task.handler {
            heading(&format!("RUNNING HANDLER [{}]", line(&task.title)))
        } else {
            heading(&format!("TASK [{}]", line(&task.title)))
        };
        let mut out = String::new();
        // Two tasks may have one title; one task has many hosts.
        let of = (title, task.place.clone());
        if of != self.last_task {
            out.push_str(&format!("\n{}\n", paint(self.verbosity.colour, Paint::Bold, &of.0)));
            self.last_task = of;
        }
        let colour = self.verbosity.colour;
        let failed = matches!(task.outcome, Outcome::Failed { .. } | Outcome::Ignored { .. });
        let (word, shade) = word(&task.outcome);
        out.push_str(&paint(colour, shade, &format!("{word}: [{}]{}", line(host), detail(&task.outcome))));
        if let Some(place) = task.place.as_ref().filter(|_| failed || self.verbosity.level >= 2) {
            out.push_str(&paint(colour, Paint::Dim, &format!("\n  at {}", line(place))));
        }
        for resource in &task.resources {
            self.resource(&mut out, resource);
        }
        if let Outcome::Failed { failure } | Outcome::Ignored { failure } = &task.outcome {
            out.push_str(&failure_text(failure, colour));
            if !self.verbosity.quiet && self.one_stream {
                self.shown.insert(host.to_owned());
            }
        }
        if matches!(task.outcome, Outcome::Ignored { .. }) {
            out.push_str("\n...ignoring");
        }
        self.say(&out);
    }

    fn resource(&self, out: &mut String, resource: &ResourceReport) {
        let colour = self.verbosity.colour;
        let id = line(&resource.id.to_string());
        for change in &resource.changes {
            let side = |value: &Option<String>| value.as_ref().map_or_else(|| "absent".to_owned(), |value| line(value));
            let text = format!("\n  {id} {}: {} -> {}", line(&change.field), side(&change.before), side(&change.after));
            out.push_str(&paint(colour, Paint::Yellow, &text));
            if let (true, Some(diff)) = (self.verbosity.diff, &change.diff) {
                let part = if change.field == "content" { String::new() } else { format!(" {}", change.field) };
                out.push_str(&format!("\n--- before: {0}\n+++ after: {0}\n", line(&format!("{}{part}", resource.id.name))));
                diff_rows(diff, colour).for_each(|row| out.push_str(&format!("{row}\n")));
            }
        }
        if let Outcome::KnownAfter { resource: other } = &resource.outcome {
            out.push_str(&paint(colour, Paint::Cyan, &format!("\n  {id}: known after {}", line(other))));
        }
        if let Outcome::Unknown { reason } = &resource.outcome {
            out.push_str(&paint(colour, Paint::Red, &format!("\n  {id}: unknown: {}", printable(reason))));
        }
        if let (Outcome::Failed { failure }, true) = (&resource.outcome, self.verbosity.planning) {
            out.push_str(&paint(colour, Paint::Red, &format!("\n  {id}: refused: {}", printable(&failure.message))));
        }
        if resource.unchecked && !matches!(resource.outcome, Outcome::Ok) {
            out.push_str(&format!("\n  {id}: not checkable: it runs every time (add `creates`, `unless` or `onlyif`)"));
        }
        for note in &resource.notes {
            out.push_str(&paint(colour, Paint::Cyan, &format!("\n  note: {id}: {}", printable(note))));
        }
    }

    fn check(&self, host: &str, check: &CheckReport) {
        let colour = self.verbosity.colour;
        let seconds = Duration::from_millis(check.milliseconds).as_secs_f64();
        let what = format!("[{}] {}", line(host), line(&check.title));
        if check.passed {
            if self.verbosity.level >= 1 || self.verbosity.planning {
                self.say(&paint(colour, Paint::Green, &format!("healthy: {what} ({}, {seconds:.1} s)", printable(&check.detail))));
            }
        } else {
            self.say(&paint(colour, Paint::Red, &format!("unhealthy: {what}: {} ({seconds:.1} s)", printable(&check.detail))));
        }
    }

    fn host_finished(&mut self, host: &str, report: &HostReport) {
        if let Some(bar) = self.hosts.remove(host) {
            bar.finish_and_clear();
        }
        let Some(failure) = &report.failure else { return };
        let colour = self.verbosity.colour;
        let mut failure = failure.clone();
        if self.shown.contains(host) {
            failure.stdout.clear();
            failure.stderr.clear();
            failure.causes.clear();
            failure.hint = None;
        }
        let word = if failure.class.is_unreachable() { "UNREACHABLE" } else { "FAILED" };
        self.note(&format!(
            "{}{}",
            paint(colour, Paint::Red, &format!("\nfatal: [{}]: {word}! => {}", line(host), printable(&failure.message))),
            failure_text(&failure, colour)
        ));
    }
}

fn word(outcome: &Outcome) -> (&'static str, Paint) {
    match outcome {
        Outcome::Ok => ("ok", Paint::Green),
        Outcome::Changed => ("changed", Paint::Yellow),
        Outcome::WouldChange => ("would change", Paint::Yellow),
        Outcome::KnownAfter { .. } => ("known after", Paint::Cyan),
        Outcome::Skipped { .. } => ("skipping", Paint::Cyan),
        Outcome::Failed { .. } | Outcome::Ignored { .. } => ("failed", Paint::Red),
        Outcome::Unknown { .. } => ("unknown", Paint::Red),
    }
}

fn detail(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Skipped { reason } => format!(" ({})", printable(reason)),
        Outcome::Failed { failure } | Outcome::Ignored { failure } => format!(" => {}", printable(&failure.message)),
        _ => String::new(),
    }
}

/// Causes, the last lines of both streams, told apart, and the hint.
fn failure_text(failure: &FailureReport, colour: bool) -> String {
    let mut out = String::new();
    for cause in &failure.causes {
        out.push_str(&format!("\n  caused by: {}", printable(cause)));
    }
    for (name, text) in [("stdout", &failure.stdout), ("stderr", &failure.stderr)] {
        for row in text.lines() {
            out.push_str(&format!("\n  {} {}", paint(colour, Paint::Dim, &format!("{name} |")), printable(row)));
        }
    }
    if let Some(hint) = &failure.hint {
        out.push_str(&format!("\n  {} {}", paint(colour, Paint::Bold, "hint:"), printable(hint)));
    }
    out
}

impl Listener for Terminal {
    fn event(&mut self, event: &Event) {
        self.summary.event(event);
        match (&event.host, &event.kind) {
            (None, EventKind::PlayStarted { name, hosts, .. }) if !self.verbosity.quiet => {
                self.say(&format!("\n{}", paint(self.verbosity.colour, Paint::Bold, &heading(&format!("PLAY [{}]", line(name))))));
                if hosts.is_empty() {
                    self.say("skipping: no hosts matched");
                }
            }
            (_, EventKind::Warning { text }) => {
                self.note(&paint(self.verbosity.colour, Paint::Yellow, &format!("warning: {}", printable(text))))
            }
            (Some(host), EventKind::Doing { what }) => self.doing(host, what, event.at_ms),
            (Some(host), EventKind::Upload { name, done, total }) => self.upload(host, name, *done, *total),
            (Some(host), EventKind::Task(task)) => self.task(host, task),
            (Some(host), EventKind::Check(check)) => self.check(host, check),
            (Some(host), EventKind::HostFinished(report)) => self.host_finished(host, report),
            (None, EventKind::RunFinished { .. }) => self.say(&self.summary.render(self.verbosity.colour, true)),
            _ => {}
        }
    }
}
