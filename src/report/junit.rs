//! `--format junit`: a suite for each host, a case for each task and health check, as CI systems
//! read it.

use std::fmt::Write as _;

use crate::diagnostic::printable;
use crate::event::{FailureReport, Outcome};
use crate::report::json::{Document, Host};

/// The report as text.
#[must_use]
pub fn render(document: &Document) -> String {
    let suites: Vec<Suite> = document.hosts.iter().map(|(name, host)| suite(name, host)).collect();
    let sum = |of: fn(&Suite) -> usize| suites.iter().map(of).sum::<usize>();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\">\n",
        escape(&format!("soc-provision {} {}", document.run.command, document.run.playbook)),
        sum(|suite| suite.tests),
        sum(|suite| suite.failures),
        sum(|suite| suite.errors),
        sum(|suite| suite.skipped),
        document.seconds,
    );
    suites.iter().for_each(|suite| out.push_str(&suite.text));
    out.push_str("</testsuites>\n");
    out
}

#[derive(Default)]
struct Suite {
    text: String,
    tests: usize,
    failures: usize,
    errors: usize,
    skipped: usize,
}

fn suite(name: &str, host: &Host) -> Suite {
    let mut suite = Suite::default();
    let mut cases = String::new();
    // A task's failure is not said twice.
    let told = host.tasks.iter().any(|task| matches!(task.outcome, Outcome::Failed { .. }));
    let reach = host.report.failure.as_ref().filter(|failure| !told || failure.class.is_unreachable());
    suite.errors += usize::from(reach.is_some());
    case(&mut cases, "host", "reached and worked on", 0, &reach.map(error).unwrap_or_default());
    for task in &host.tasks {
        let inner = match &task.outcome {
            Outcome::Failed { failure } => {
                suite.failures += 1;
                failed(&failure.message, &details(failure))
            }
            Outcome::Unknown { reason } => {
                suite.failures += 1;
                failed(&format!("unknown: {reason}"), "")
            }
            Outcome::Skipped { reason } => {
                suite.skipped += 1;
                format!("<skipped message=\"{}\"/>", escape(reason))
            }
            Outcome::WouldChange => "<system-out>would change</system-out>".to_owned(),
            Outcome::KnownAfter { resource } => format!("<system-out>known after {}</system-out>", escape(resource)),
            Outcome::Ignored { failure } => format!("<system-out>failed, ignored: {}</system-out>", escape(&failure.message)),
            Outcome::Changed => "<system-out>changed</system-out>".to_owned(),
            Outcome::Ok => String::new(),
        };
        case(&mut cases, task.role.as_deref().unwrap_or("tasks"), &task.title, task.milliseconds, &inner);
    }
    for check in &host.checks {
        suite.failures += usize::from(!check.passed);
        let inner = if check.passed { String::new() } else { failed(&check.detail, "") };
        case(&mut cases, "health", &check.title, check.milliseconds, &inner);
    }
    suite.tests = 1 + host.tasks.len() + host.checks.len();
    suite.text = format!(
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\">\n{cases}  </testsuite>\n",
        escape(name),
        suite.tests,
        suite.failures,
        suite.errors,
        suite.skipped,
        host.report.seconds,
    );
    suite
}

fn case(out: &mut String, class: &str, name: &str, milliseconds: u64, inner: &str) {
    let time = std::time::Duration::from_millis(milliseconds).as_secs_f64();
    let _ = write!(out, "    <testcase classname=\"{}\" name=\"{}\" time=\"{time:.3}\"", escape(class), escape(name));
    let _ = if inner.is_empty() { writeln!(out, "/>") } else { writeln!(out, ">{inner}</testcase>") };
}

fn failed(message: &str, details: &str) -> String {
    format!("<failure message=\"{}\">{}</failure>", escape(message), escape(details))
}

fn error(failure: &FailureReport) -> String {
    format!("<error message=\"{}\">{}</error>", escape(&failure.message), escape(&details(failure)))
}

fn details(failure: &FailureReport) -> String {
    let mut lines: Vec<String> = failure.causes.iter().map(|cause| format!("caused by: {cause}")).collect();
    for (name, text) in [("stdout", &failure.stdout), ("stderr", &failure.stderr)] {
        lines.extend(text.lines().map(|line| format!("{name} | {line}")));
    }
    lines.extend(failure.hint.iter().map(|hint| format!("hint: {hint}")));
    lines.join("\n")
}

/// Text for XML; what XML cannot hold at all is shown as an escape.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::FailureClass;
    use crate::event::{CheckReport, Event, EventKind, TaskReport};

    fn task(title: &str, outcome: Outcome) -> EventKind {
        EventKind::Task(TaskReport {
            play: 0,
            title: title.to_owned(),
            role: Some("r".to_owned()),
            place: None,
            handler: false,
            outcome,
            resources: Vec::new(),
            milliseconds: 1500,
        })
    }

    #[test]
    fn outcomes_become_cases_and_hostile_text_stays_text() {
        let failure = FailureReport {
            class: FailureClass::StepFailed,
            message: "it <failed> & \"hard\"".to_owned(),
            causes: Vec::new(),
            hint: None,
            stdout: "\u{1b}[2J]]>".to_owned(),
            stderr: "last line".to_owned(),
        };
        let check = CheckReport { title: "port".to_owned(), role: None, passed: false, detail: "refused".to_owned(), milliseconds: 2 };
        let mut document = Document::default();
        let kinds = [
            task("fine", Outcome::Ok),
            task("bad", Outcome::Failed { failure }),
            task("not here", Outcome::Skipped { reason: "`when: x` does not hold".to_owned() }),
            EventKind::Check(check),
        ];
        for kind in kinds {
            document.event(&Event { at_ms: 0, host: Some("h1".to_owned()), kind });
        }
        let text = render(&document);
        assert!(text.contains("tests=\"5\" failures=\"2\" errors=\"0\" skipped=\"1\""), "{text}");
        assert!(
            text.contains("message=\"it &lt;failed&gt; &amp; &quot;hard&quot;\">stdout | \\u{1b}[2J]]&gt;\nstderr | last line</failure>"),
            "{text}"
        );
        assert!(text.contains("<testcase classname=\"r\" name=\"fine\" time=\"1.500\"/>"), "{text}");
    }
}
