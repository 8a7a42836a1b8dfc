//! Drift for people: worst first, one entry for all hosts that have it in common, short.

use super::{DriftReport, SEVERITIES, lines, state_word, when};
use crate::event::{Finding, FindingState};
use crate::report::recap::Summary;
use crate::report::{Paint, diff_rows, paint};

/// How many hosts are named before the rest is counted.
const NAMED: usize = 8;
/// How many findings that wait for another one are told before the rest is counted.
const LATER: usize = 3;

/// The report as text.
#[must_use]
pub fn text(report: &DriftReport, colour: bool) -> String {
    let mut out = String::new();
    acted(report, colour, &mut out);
    for (severity, word) in SEVERITIES {
        let groups = grouped(report, |finding| finding.severity == severity && finding.accepted.is_none());
        if groups.is_empty() {
            continue;
        }
        let shade = match word {
            "security" | "availability" => Paint::Red,
            "config" => Paint::Yellow,
            _ => Paint::Cyan,
        };
        out.push_str(&format!("\n{}\n", paint(colour, shade, &word.to_uppercase())));
        let (later, now): (Vec<_>, Vec<_>) = groups.into_iter().partition(|(finding, _)| finding.state == FindingState::Later);
        for (finding, hosts) in &now {
            entry(finding, hosts, colour, &mut out);
        }
        for (finding, hosts) in later.iter().take(LATER) {
            entry(finding, hosts, colour, &mut out);
        }
        if later.len() > LATER {
            out.push_str(&format!("  and {} more that are known only once others are as declared\n", later.len() - LATER));
        }
    }
    let accepted = grouped(report, |finding| finding.accepted.is_some());
    if !accepted.is_empty() {
        out.push_str(&format!("\n{}\n", paint(colour, Paint::Dim, "ACCEPTED")));
        for (finding, hosts) in accepted {
            let why = crate::diagnostic::printable(finding.accepted.as_deref().unwrap_or_default());
            out.push_str(&format!("  {} [{}]: {why}\n", finding.id, named(&hosts)));
        }
    }
    hosts(report, colour, &mut out);
    out
}

/// What `--fix` and `--prune` did.
fn acted(report: &DriftReport, colour: bool, out: &mut String) {
    for (host, id) in &report.fixed {
        out.push_str(&format!("{}: [{host}] {id}\n", paint(colour, Paint::Green, "fixed")));
    }
    for removal in &report.removed {
        match &removal.failure {
            None => out.push_str(&format!(
                "{}: [{}] {}, kept in {} on the host\n",
                paint(colour, Paint::Yellow, "removed"),
                removal.host,
                removal.id,
                removal.kept
            )),
            Some(why) => {
                out.push_str(&format!("{}: [{}] {}: {why}\n", paint(colour, Paint::Red, "not removed"), removal.host, removal.id));
            }
        }
    }
}

type Group<'a> = (&'a Finding, Vec<&'a str>);

/// Findings that several hosts have in common, word by word, once.
fn grouped(report: &DriftReport, wanted: impl Fn(&Finding) -> bool) -> Vec<Group<'_>> {
    let mut out: Vec<Group<'_>> = Vec::new();
    for (name, host) in &report.hosts {
        for finding in host.findings.iter().filter(|finding| wanted(finding)) {
            let same = |other: &Finding| Finding { since: None, ..other.clone() } == Finding { since: None, ..finding.clone() };
            match out.iter_mut().find(|(other, _)| other.id == finding.id && same(other)) {
                Some((_, hosts)) => hosts.push(name),
                None => out.push((finding, vec![name])),
            }
        }
    }
    out
}

fn named(hosts: &[&str]) -> String {
    let more = hosts.len().saturating_sub(NAMED);
    let list = hosts.iter().take(NAMED).copied().collect::<Vec<_>>().join(" ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

fn entry(finding: &Finding, hosts: &[&str], colour: bool, out: &mut String) {
    let role = finding.role.as_ref().map(|role| format!(", role {role}")).unwrap_or_default();
    let state = match finding.state {
        FindingState::Differs | FindingState::Condition => String::new(),
        other => format!(", {}", state_word(other)),
    };
    let since = finding.since.map(|seconds| format!(", since {}", when(seconds))).unwrap_or_default();
    out.push_str(&format!(
        "  {} [{}]{}\n",
        paint(colour, Paint::Bold, &finding.id.to_string()),
        named(hosts),
        paint(colour, Paint::Dim, &format!("{role}{state}{since}"))
    ));
    for line in lines(finding) {
        out.push_str(&format!("      {}\n", line.replace('\n', "\n      ")));
    }
    for diff in finding.changes.iter().filter_map(|change| change.diff.as_ref()) {
        diff_rows(diff, colour).for_each(|row| out.push_str(&format!("      {row}\n")));
    }
}

/// One line a host, the recap that scripts grep, and what to do now.
fn hosts(report: &DriftReport, colour: bool, out: &mut String) {
    out.push('\n');
    let (mut fine, mut fixable, mut prunable) = (0, false, std::collections::BTreeSet::new());
    for (name, host) in &report.hosts {
        if let Some(failure) = host.failure() {
            let word = if failure.class.is_unreachable() { "unreachable" } else { "failed" };
            out.push_str(&format!("{name}: {}: {}\n", paint(colour, Paint::Red, word), failure.message));
            for cause in &failure.causes {
                out.push_str(&format!("      {}\n", crate::diagnostic::printable(cause)));
            }
            continue;
        }
        if host.is_in_sync() {
            fine += 1;
            if report.hosts.len() <= 20 {
                out.push_str(&format!("{name}: {} ({} resources)\n", paint(colour, Paint::Green, "in sync"), host.checked));
            }
            continue;
        }
        let counts: Vec<String> = SEVERITIES
            .iter()
            .map(|(severity, word)| (host.open().filter(|finding| finding.severity == *severity).count(), word))
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        out.push_str(&format!("{name}: {}: {}\n", paint(colour, Paint::Red, "drift"), counts.join(", ")));
        fixable |= host.open().any(|finding| finding.state == FindingState::Differs);
        prunable.extend(host.open().filter_map(|finding| finding.prune.as_deref()));
    }
    let mut summary = Summary::default();
    for (name, host) in &report.hosts {
        summary.add(name, &host.report);
    }
    out.push_str(&summary.render(colour, true));
    let drifted = report.hosts.values().filter(|host| host.open().next().is_some()).count();
    let blind = report.hosts.len() - fine - drifted;
    let unseen = if blind > 0 { format!("; {blind} could not be looked at") } else { String::new() };
    if drifted > 0 {
        let mut hints = Vec::new();
        if fixable {
            hints.push("`--fix` puts right what differs".to_owned());
        }
        if !prunable.is_empty() {
            let list = prunable.into_iter().collect::<Vec<_>>().join(",");
            hints.push(format!("`--prune {list}` removes what nobody declared, after keeping it"));
        }
        let advice = if hints.is_empty() { String::new() } else { format!("\nhint: {}", hints.join("; ")) };
        out.push_str(&format!("drift: {drifted} of {} hosts differ from the repository{unseen}{advice}\n", report.hosts.len()));
    } else if fine == 0 && blind > 0 {
        out.push_str(&format!("drift: not known; none of {blind} hosts could be looked at\n"));
    } else {
        out.push_str(&format!("drift: none on {fine} hosts{unseen}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::report;
    use super::*;

    #[test]
    fn hosts_share_an_entry_and_the_worst_is_first() {
        let text = text(&report(), false);
        let security = text.find("SECURITY\n  user[eve] [h1 h2], role base, undeclared, since 1970-01-01 00:00 UTC\n").unwrap();
        let config = text.find("CONFIG\n  file[/etc/a] [h1 h2], role base\n      mode: is 0666, should be 0644\n").unwrap();
        let accepted = text.find("ACCEPTED\n  port[1/tcp] [h1 h2]: until 2027-01-01: known\n").unwrap();
        assert!(security < config && config < accepted, "{text}");
        assert!(text.contains("h1: drift: 1 security, 1 config\n") && text.contains("h3: in sync (7 resources)\n"), "{text}");
        assert!(text.contains("drift: 2 of 3 hosts differ") && text.contains("--prune users"), "{text}");
    }
    #[test]
    fn hosts_that_could_not_be_looked_at_are_not_in_sync() {
        let mut report = report();
        report.hosts.retain(|name, _| name == "h3");
        let failure = crate::event::FailureReport::from(&crate::diagnostic::Failure::new(crate::diagnostic::FailureClass::Sudo, "no sudo"));
        report.hosts.get_mut("h3").unwrap().report.failure = Some(failure);
        assert!(text(&report, false).contains("drift: not known; none of 1 hosts could be looked at\n"));
    }
}
