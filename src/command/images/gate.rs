//! The image gate: any command that prints SARIF, and the severity from which it refuses an image.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Images, Used};
use crate::command::{complain, print};
use crate::diagnostic::printable;
use crate::project::images::{Gate, Severity};

/// How long the gate may look at one image.
pub(super) const DEADLINE: Duration = Duration::from_secs(1800);
/// Where its reports are kept, below the project.
const REPORTS: &str = "reports/images";
/// How many findings of an image are shown.
const SHOWN: usize = 5;

/// Puts every image to the gate; whether all of them pass.
pub(super) fn pass(root: &Path, gate: &Gate, images: &Images) -> bool {
    let mut fine = true;
    for (reference, used) in images {
        let (status, sarif, said) = match &used.sarif {
            Some(printed) => printed.clone(),
            None if gate.on_host && used.archive.is_some() => {
                complain(&format!(
                    "error: {}: it comes in an archive, which only a gate on the controller can look at",
                    printable(reference)
                ));
                complain("hint: `run_on: controller`; the gate finds the archive's path in `$ARCHIVE`");
                fine = false;
                continue;
            }
            None if gate.on_host => {
                complain(&format!("error: {}: no host looked at it", printable(reference)));
                fine = false;
                continue;
            }
            None => match local(root, gate, reference, used) {
                Ok(printed) => printed,
                Err(error) => {
                    complain(&format!("error: {}:{}: the image gate cannot run: {error}", gate.at.file.display(), gate.at.line));
                    return false;
                }
            },
        };
        fine &= judge(root, gate, reference, status, &sarif, &said);
    }
    fine
}

fn local(root: &Path, gate: &Gate, reference: &str, used: &Used) -> std::io::Result<(i32, Vec<u8>, String)> {
    let out = Command::new("sh")
        .args(["-c", &gate.command])
        .current_dir(root)
        .env("IMAGE", reference)
        .env("ARCHIVE", used.archive.as_deref().unwrap_or(Path::new("")))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()?;
    Ok((out.status.code().unwrap_or(-1), out.stdout, String::from_utf8_lossy(&out.stderr).into_owned()))
}

fn judge(root: &Path, gate: &Gate, reference: &str, status: i32, sarif: &[u8], said: &str) -> bool {
    let name = printable(reference);
    let document: Value = match serde_json::from_slice(sarif) {
        Ok(document) => document,
        Err(error) => {
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("and nothing on stderr");
            complain(&format!("error: {name}: the image gate printed no SARIF ({error}), status {status}: {}", printable(last)));
            return false;
        }
    };
    match keep(root, reference, sarif) {
        Ok(path) => print(&format!("report       {name} {}\n", path.display())),
        Err(error) => {
            complain(&format!("error: {name}: the report cannot be kept: {error}"));
            return false;
        }
    }
    let Some(mut findings) = findings(&document) else {
        complain(&format!("error: {name}: the image gate printed JSON that is not SARIF: it has no `runs`"));
        return false;
    };
    findings.retain(|(severity, _)| *severity >= gate.severity);
    findings.sort_by(|a, b| b.cmp(a));
    if findings.is_empty() {
        return true;
    }
    complain(&format!("error: {name}: {} findings at or above the gate's severity ({:?})", findings.len(), gate.severity).to_lowercase());
    for (severity, text) in findings.iter().take(SHOWN) {
        complain(&format!("  {}: {}", format!("{severity:?}").to_lowercase(), printable(text)));
    }
    if findings.len() > SHOWN {
        complain(&format!("  and {} more", findings.len() - SHOWN));
    }
    false
}

fn keep(root: &Path, reference: &str, sarif: &[u8]) -> std::io::Result<PathBuf> {
    let fine = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    let path = Path::new(REPORTS).join(format!("{}.sarif", reference.chars().map(fine).collect::<String>()));
    std::fs::create_dir_all(root.join(REPORTS))?;
    std::fs::write(root.join(&path), sarif)?;
    Ok(path)
}

/// Every finding of a SARIF document; nothing if it is none.
fn findings(document: &Value) -> Option<Vec<(Severity, String)>> {
    let mut out = Vec::new();
    for run in document.get("runs")?.as_array()? {
        let rules = run.pointer("/tool/driver/rules").and_then(Value::as_array);
        for result in run.get("results").and_then(Value::as_array).into_iter().flatten() {
            let id = result.get("ruleId").and_then(Value::as_str).unwrap_or("a finding");
            let by_index = result.get("ruleIndex").and_then(Value::as_u64).and_then(|index| rules?.get(usize::try_from(index).ok()?));
            let by_id = || rules?.iter().find(|rule| rule.get("id").and_then(Value::as_str) == Some(id));
            let rule = by_index.or_else(by_id);
            let message = result.pointer("/message/text").and_then(Value::as_str).unwrap_or_default();
            let first = message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            out.push((severity(result, rule), format!("{id}: {first}").chars().take(200).collect()));
        }
    }
    Some(out)
}

/// `security-severity` is CVSS; without it, the level.
fn severity(result: &Value, rule: Option<&Value>) -> Severity {
    let score = |value: Option<&Value>| match value?.pointer("/properties/security-severity")? {
        Value::String(text) => text.parse::<f64>().ok(),
        other => other.as_f64(),
    };
    if let Some(score) = score(Some(result)).or_else(|| score(rule)) {
        return match score {
            score if score >= 9.0 => Severity::Critical,
            score if score >= 7.0 => Severity::High,
            score if score >= 4.0 => Severity::Medium,
            _ => Severity::Low,
        };
    }
    let default = rule.and_then(|rule| rule.pointer("/defaultConfiguration/level"));
    match result.get("level").or(default).and_then(Value::as_str).unwrap_or("warning") {
        "error" => Severity::High,
        "warning" => Severity::Medium,
        _ => Severity::Low,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn findings_have_the_rules_or_their_own_severity() {
        let document = json!({"runs": [{
            "tool": {"driver": {"rules": [{"id": "CVE-1", "properties": {"security-severity": "9.8"}}, {"id": "CVE-2", "defaultConfiguration": {"level": "error"}}]}},
            "results": [
                {"ruleId": "CVE-1", "ruleIndex": 0, "message": {"text": "bad\nmore"}},
                {"ruleId": "CVE-2", "message": {"text": "x"}},
                {"ruleId": "CVE-3", "level": "note", "message": {"text": "y"}},
                {"ruleId": "CVE-4", "message": {"text": "z"}},
            ]
        }]});
        let found: Vec<_> = findings(&document).unwrap().into_iter().map(|(severity, _)| severity).collect();
        assert_eq!(found, [Severity::Critical, Severity::High, Severity::Low, Severity::Medium]);
        assert!(findings(&json!({"ok": true})).is_none());
    }
}
