//! Ansible's recap to the letter, because scripts grep it; then what Ansible does not say: how
//! long each role took and how many round trips each host cost.

use std::collections::BTreeMap;

use crate::event::{Event, EventKind, HostReport, Outcome, Recap};
use crate::report::{Paint, paint};

/// Collects what the recap needs.
#[derive(Default)]
pub struct Summary {
    hosts: BTreeMap<String, HostReport>,
    /// Health checks: host, title, milliseconds, whether it passed.
    checks: Vec<(String, String, u64, bool)>,
    command: String,
    /// Milliseconds, host and title of tasks that took their time.
    slow: Vec<(u64, String, String)>,
    pending: Pending,
}

/// What a plan found to do.
#[derive(Default)]
struct Pending {
    change: usize,
    later: usize,
    unknown: usize,
}

/// Tasks that took less are not listed among the slowest.
const SLOW_MS: u64 = 1000;
/// How many of them are listed.
const SLOWEST: usize = 5;

impl Summary {
    /// Takes one event.
    pub fn event(&mut self, event: &Event) {
        match (&event.host, &event.kind) {
            (_, EventKind::RunStarted(info)) => self.command.clone_from(&info.command),
            (Some(host), EventKind::Check(check)) => {
                self.checks.push((host.clone(), check.title.clone(), check.milliseconds, check.passed));
            }
            (Some(host), EventKind::HostFinished(report)) => drop(self.hosts.insert(host.clone(), report.clone())),
            (Some(host), EventKind::Task(task)) => {
                if task.milliseconds >= SLOW_MS {
                    self.slow.push((task.milliseconds, host.clone(), task.title.clone()));
                }
                match task.outcome {
                    _ if task.handler => {}
                    Outcome::WouldChange => self.pending.change += 1,
                    Outcome::KnownAfter { .. } => self.pending.later += 1,
                    Outcome::Unknown { .. } => self.pending.unknown += 1,
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Takes a host's end.
    pub fn add(&mut self, host: &str, report: &HostReport) {
        self.hosts.insert(host.to_owned(), report.clone());
    }

    /// The recap, for stdout.
    #[must_use]
    pub fn render(&self, colour: bool, changes: bool) -> String {
        let mut out = format!("\n{}\n", paint(colour, Paint::Bold, &heading("PLAY RECAP")));
        for (host, report) in &self.hosts {
            out.push_str(&line(host, &report.recap, colour));
            out.push('\n');
        }
        if changes {
            out.push_str(&self.checks());
            out.push_str(&self.timings());
        }
        if self.command == "plan" && self.hosts.values().all(|report| report.failure.is_none()) {
            out.push_str(&self.planned());
        }
        out
    }

    /// How many checks passed, and which took longest.
    fn checks(&self) -> String {
        if self.checks.is_empty() {
            return String::new();
        }
        let mut slow: Vec<_> = self.checks.iter().collect();
        slow.sort_by_key(|check| std::cmp::Reverse(check.2));
        let shown: Vec<String> = slow
            .iter()
            .take(3)
            .map(|(host, title, milliseconds, _)| {
                format!("{host} {title} {:.1} s", std::time::Duration::from_millis(*milliseconds).as_secs_f64())
            })
            .collect();
        let passed = self.checks.iter().filter(|check| check.3).count();
        format!("\nhealth: {passed} of {} checks passed; slowest checks: {}\n", self.checks.len(), shown.join(", "))
    }

    /// The plan in one line.
    fn planned(&self) -> String {
        let Pending { change, later, unknown } = self.pending;
        let hosts = self.hosts.values().filter(|report| report.pending > 0).count();
        let mut parts = Vec::new();
        for (count, what) in [(change, "to change"), (later, "known only later"), (unknown, "unknown")] {
            if count > 0 {
                parts.push(format!("{count} task{} {what}", if count == 1 { "" } else { "s" }));
            }
        }
        match parts.is_empty() {
            true => "\nplan: nothing to change\n".to_owned(),
            false => format!("\nplan: {}; on {hosts} of {} hosts\n", parts.join(", "), self.hosts.len()),
        }
    }

    fn slowest(&self) -> String {
        let mut slow = self.slow.clone();
        slow.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let one = |(milliseconds, host, title): &(u64, String, String)| {
            format!("{title} {:.1} s on {host}", std::time::Duration::from_millis(*milliseconds).as_secs_f64())
        };
        let list: Vec<String> = slow.iter().take(SLOWEST).map(one).collect();
        if list.is_empty() { String::new() } else { format!("slowest tasks: {}\n", list.join(", ")) }
    }

    fn timings(&self) -> String {
        let mut roles: BTreeMap<&str, f64> = BTreeMap::new();
        for report in self.hosts.values() {
            for (role, seconds) in &report.roles {
                let slowest = roles.entry(role).or_default();
                *slowest = slowest.max(*seconds);
            }
        }
        let mut slow: Vec<(&str, f64)> = roles.into_iter().filter(|(_, seconds)| *seconds >= 0.05).collect();
        slow.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut out = String::new();
        if !slow.is_empty() {
            let list: Vec<String> = slow.iter().map(|(role, seconds)| format!("{role} {seconds:.1} s")).collect();
            out.push_str(&format!("\nroles, slowest host: {}\n", list.join(", ")));
        }
        out.push_str(&self.slowest());
        let trips: Vec<String> =
            self.hosts.iter().map(|(host, report)| format!("{host} {} in {:.1} s", report.round_trips, report.seconds)).collect();
        let shown = trips.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        let more = trips.len().saturating_sub(8);
        out.push_str(&format!(
            "round trips after login: {shown}{}\n",
            if more > 0 { format!(", and {more} more hosts") } else { String::new() }
        ));
        out
    }
}

/// A heading as Ansible pads it.
#[must_use]
pub fn heading(text: &str) -> String {
    let stars = 79_usize.saturating_sub(text.chars().count() + 1).max(3);
    format!("{text} {}", "*".repeat(stars))
}

/// One host's line: `host : ok=N changed=N unreachable=N failed=N skipped=N rescued=N ignored=N`.
#[must_use]
pub fn line(host: &str, recap: &Recap, colour: bool) -> String {
    let name = if recap.failed + recap.unreachable > 0 {
        Paint::Red
    } else if recap.changed > 0 {
        Paint::Yellow
    } else {
        Paint::Green
    };
    let field = |key: &str, value: u32, colour_of: Paint| {
        let text = format!("{key}={value:<4}");
        paint(colour && value > 0, colour_of, &text)
    };
    format!(
        "{} : {} {} {} {} {} {} {}",
        paint(colour, name, &format!("{host:<26}")),
        field("ok", recap.ok, Paint::Green),
        field("changed", recap.changed, Paint::Yellow),
        field("unreachable", recap.unreachable, Paint::Red),
        field("failed", recap.failed, Paint::Red),
        field("skipped", recap.skipped, Paint::Cyan),
        field("rescued", recap.rescued, Paint::Yellow),
        field("ignored", recap.ignored, Paint::Cyan),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_ansibles() {
        let recap = Recap { ok: 12, changed: 3, skipped: 1, ..Recap::default() };
        assert_eq!(
            line("web1", &recap, false),
            "web1                       : ok=12   changed=3    unreachable=0    failed=0    skipped=1    rescued=0    ignored=0   "
        );
        assert_eq!(heading("PLAY RECAP").len(), 79);
    }
}
