//! Drift as JUnit: a suite for each host, a case for each resource, a failure for each finding.

use super::{DriftReport, lines, severity_word, state_word};
use crate::event::FindingState;

/// The report as JUnit's XML.
#[must_use]
pub fn junit(report: &DriftReport) -> String {
    let mut suites = String::new();
    let (mut all, mut bad, mut broken) = (0, 0, 0);
    for (name, host) in &report.hosts {
        let mut cases = String::new();
        let (mut failures, mut errors, mut skipped) = (0, 0, 0);
        for id in &host.in_sync {
            cases.push_str(&format!("    <testcase classname=\"{}\" name=\"{}\"/>\n", xml(name), xml(id)));
        }
        for finding in &host.findings {
            let head = format!("    <testcase classname=\"{}\" name=\"{}\">\n", xml(name), xml(&finding.id.to_string()));
            let body = lines(finding).join("\n");
            let kind = format!("{}: {}", severity_word(finding.severity), state_word(finding.state));
            cases.push_str(&head);
            if let Some(why) = &finding.accepted {
                skipped += 1;
                cases.push_str(&format!("      <skipped message=\"accepted {}\"/>\n", xml(why)));
            } else if finding.state == FindingState::Unknown {
                errors += 1;
                cases.push_str(&format!("      <error type=\"unknown\" message=\"{}\">{}</error>\n", xml(&kind), xml(&body)));
            } else {
                failures += 1;
                let word = severity_word(finding.severity);
                cases.push_str(&format!("      <failure type=\"{word}\" message=\"{}\">{}</failure>\n", xml(&kind), xml(&body)));
            }
            cases.push_str("    </testcase>\n");
        }
        if let Some(failure) = host.failure() {
            errors += 1;
            let causes = failure.causes.join("\n");
            cases.push_str(&format!(
                "    <testcase classname=\"{0}\" name=\"{0}\">\n      <error type=\"host\" message=\"{1}\">{2}</error>\n    </testcase>\n",
                xml(name),
                xml(&failure.message),
                xml(&causes)
            ));
        }
        let tests = host.in_sync.len() + host.findings.len() + usize::from(host.failure().is_some());
        (all, bad, broken) = (all + tests, bad + failures, broken + errors);
        suites.push_str(&format!(
            "  <testsuite name=\"{}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" time=\"{:.3}\">\n{cases}  </testsuite>\n",
            xml(name),
            host.report.seconds
        ));
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"drift {}\" tests=\"{all}\" failures=\"{bad}\" errors=\"{broken}\">\n{suites}</testsuites>\n",
        xml(&report.run.playbook)
    )
}

/// Text as XML 1.0 can hold it: the control characters that it cannot are left out.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            c if c.is_control() || c == '\u{fffe}' || c == '\u{ffff}' => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::testing::report;
    use super::*;

    #[test]
    fn findings_are_failures_and_the_rest_passes() {
        let text = junit(&report());
        assert!(text.contains("<testsuites name=\"drift playbooks/lab.yml\" tests=\"9\" failures=\"4\" errors=\"0\">"), "{text}");
        assert!(text.contains("<testsuite name=\"h1\" tests=\"4\" failures=\"2\" errors=\"0\" skipped=\"1\""), "{text}");
        assert!(text.contains("uid 0 &lt;&amp;&gt; &quot;x&quot;</failure>"), "{text}");
        assert_eq!(xml("a\u{1b}[31m\u{0}b"), "a[31mb");
    }
}
