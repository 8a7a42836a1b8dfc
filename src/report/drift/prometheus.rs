//! Drift as a text file for a Prometheus node exporter.

use super::{DriftReport, SEVERITIES};

/// The report as metrics. Names of hosts and severities only: a resource's name may be anything.
#[must_use]
pub fn prometheus(report: &DriftReport) -> String {
    let playbook = label(&report.run.playbook);
    let mut out = String::new();
    let mut family = |name: &str, help: &str, samples: Vec<(String, f64)>| {
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
        for (labels, value) in samples {
            out.push_str(&format!("{name}{{playbook=\"{playbook}\"{labels}}} {value}\n"));
        }
    };
    #[expect(clippy::cast_precision_loss, reason = "numbers of findings")]
    let count = |number: usize| number as f64;
    let mut findings = Vec::new();
    let (mut sync, mut reachable, mut checked, mut accepted, mut seconds) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, host) in &report.hosts {
        let host_label = format!(",host=\"{}\"", label(name));
        let seen = host.failure().is_none();
        reachable.push((host_label.clone(), f64::from(u8::from(seen))));
        sync.push((host_label.clone(), f64::from(u8::from(host.is_in_sync()))));
        checked.push((host_label.clone(), count(host.checked)));
        accepted.push((host_label.clone(), count(host.findings.len() - host.open().count())));
        seconds.push((host_label.clone(), host.report.seconds));
        for (severity, word) in SEVERITIES {
            let found = host.open().filter(|finding| finding.severity == severity).count();
            if seen {
                findings.push((format!("{host_label},severity=\"{word}\""), count(found)));
            }
        }
    }
    family("soc_provision_drift_findings", "Ways in which the host differs from the repository.", findings);
    family("soc_provision_drift_in_sync", "1 if the host is as the repository says.", sync);
    family("soc_provision_drift_looked_at", "1 if the host could be looked at.", reachable);
    family("soc_provision_drift_accepted", "Ways in which it differs that the project accepts.", accepted);
    family("soc_provision_drift_resources", "Resources that were compared.", checked);
    family("soc_provision_drift_seconds", "Seconds that the host took.", seconds);
    #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch")]
    family("soc_provision_drift_timestamp_seconds", "When the run began.", vec![(String::new(), report.run.started as f64)]);
    out
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::testing::report;
    use super::*;

    #[test]
    fn each_severity_has_its_sample() {
        let text = prometheus(&report());
        assert!(
            text.contains("soc_provision_drift_findings{playbook=\"playbooks/lab.yml\",host=\"h1\",severity=\"security\"} 1\n"),
            "{text}"
        );
        assert!(text.contains("soc_provision_drift_findings{playbook=\"playbooks/lab.yml\",host=\"h3\",severity=\"security\"} 0\n"));
        assert!(text.contains("soc_provision_drift_in_sync{playbook=\"playbooks/lab.yml\",host=\"h3\"} 1\n"));
        assert!(text.contains("soc_provision_drift_accepted{playbook=\"playbooks/lab.yml\",host=\"h2\"} 1\n"));
        assert_eq!(label("a\"b\\\n"), "a\\\"b\\\\\\n");
    }
}
