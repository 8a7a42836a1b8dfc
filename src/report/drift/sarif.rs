//! Drift as SARIF 2.1.0, for pages that show the results of scanners. A rule is a kind of resource;
//! the place of a result is the playbook, and the host and resource as a logical location.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{DriftReport, lines, severity_word, state_word};
use crate::event::Finding;
use crate::resource::Severity;

/// The report as SARIF.
#[must_use]
pub fn sarif(report: &DriftReport) -> String {
    let kinds: BTreeSet<&str> =
        report.hosts.values().flat_map(|host| host.findings.iter().map(|finding| finding.id.kind.as_str())).collect();
    let rules: Vec<Value> = kinds.iter().map(|kind| rule(kind)).collect();
    let mut results = Vec::new();
    for (name, host) in &report.hosts {
        results.extend(host.findings.iter().map(|finding| result(&report.run.playbook, name, finding)));
    }
    let blind: Vec<Value> = report
        .hosts
        .iter()
        .filter_map(|(name, host)| host.failure().map(|failure| (name, failure)))
        .map(|(name, failure)| json!({"level": "error", "message": {"text": format!("{name}: {}", failure.message)}}))
        .collect();
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "soc-provision", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "invocations": [{"executionSuccessful": blind.is_empty(), "toolExecutionNotifications": blind}],
            "results": results,
        }],
    });
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn rule(kind: &str) -> Value {
    json!({
        "id": format!("drift/{kind}"),
        "name": format!("Drift{}", kind.split('_').map(capital).collect::<String>()),
        "shortDescription": {"text": format!("{kind} differs from the repository")},
    })
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

fn result(playbook: &str, host: &str, finding: &Finding) -> Value {
    let level = match finding.severity {
        Severity::Security | Severity::Availability => "error",
        Severity::Config => "warning",
        Severity::Info => "note",
    };
    let text = format!("{host}: {} ({}): {}", finding.id, state_word(finding.state), lines(finding).join("; "));
    let key = crate::diagnostic::printable(&format!("{host}/{}", finding.id));
    let mut result = json!({
        "ruleId": format!("drift/{}", finding.id.kind),
        "level": level,
        "message": {"text": text},
        "locations": [{
            "physicalLocation": {"artifactLocation": {"uri": playbook.replace(' ', "%20")}, "region": {"startLine": 1}},
            "logicalLocations": [{"name": finding.id.to_string(), "fullyQualifiedName": key, "kind": "resource"}],
        }],
        "partialFingerprints": {"resource/v1": key},
        "properties": {"severity": severity_word(finding.severity), "host": host, "role": finding.role},
    });
    if let Some(why) = &finding.accepted {
        result["suppressions"] = json!([{"kind": "external", "justification": why}]);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::super::testing::report;
    use super::*;

    #[test]
    fn results_have_rules_places_and_suppressions() {
        let document: Value = serde_json::from_str(&sarif(&report())).unwrap();
        let run = &document["runs"][0];
        let results = run["results"].as_array().unwrap();
        assert_eq!(results.len(), 6);
        let rules: Vec<&str> = run["tool"]["driver"]["rules"].as_array().unwrap().iter().map(|rule| rule["id"].as_str().unwrap()).collect();
        assert!(results.iter().all(|result| rules.contains(&result["ruleId"].as_str().unwrap())));
        assert_eq!(results[0]["level"], "error");
        assert_eq!(results[2]["suppressions"][0]["kind"], "external");
    }
}
