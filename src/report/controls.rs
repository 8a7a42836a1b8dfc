//! Controls of public benchmarks, and the resources that keep them. A control is as good as the
//! worst of its resources; whether a declaration satisfies a control is what this table claims.

use serde::Serialize;

use crate::report::findings::State;
use crate::report::json::Document;
use crate::resource::pattern::fits;

/// A control and what keeps it: patterns of resource ids, `kind[name]`, where `*` is any text, and
/// of health checks, `check[title]`.
pub struct Control {
    pub framework: &'static str,
    pub id: &'static str,
    pub title: &'static str,
    pub kept_by: &'static [&'static str],
}

const DOCKER: &str = "CIS Docker 1.6";
const DEBIAN: &str = "CIS Debian 12";
const NIST: &str = "NIST SP 800-53";

const fn control(framework: &'static str, id: &'static str, title: &'static str, kept_by: &'static [&'static str]) -> Control {
    Control { framework, id, title, kept_by }
}

const DAEMON: &[&str] = &["docker_daemon[*]"];
const STACKS: &[&str] = &["compose_stack[*]"];
const FIREWALL: &[&str] = &["firewall[*]"];
const SSHD: &[&str] = &["sshd_config[*]"];
const AUDIT: &[&str] = &["audit_rules[*]"];
const AUDITD: &[&str] = &["audit_rules[*]", "package[*auditd*]", "service[auditd*]"];
const SUDO: &[&str] = &["sudoers[*]"];
const SECRETS: &[&str] = &["secret[*]"];

/// All controls, by framework and id.
pub const CONTROLS: &[Control] = &[
    control(DOCKER, "1.1.3", "auditing is configured for the Docker daemon and its files (1.1.3 to 1.1.18)", AUDIT),
    control(DOCKER, "2.2", "network traffic is restricted between containers on the default bridge", DAEMON),
    control(DOCKER, "2.3", "the logging level is `info`", DAEMON),
    control(DOCKER, "2.4", "Docker may change iptables", DAEMON),
    control(DOCKER, "2.5", "no insecure registries", DAEMON),
    control(DOCKER, "2.7", "the daemon listens on no network without TLS", DAEMON),
    control(DOCKER, "2.13", "logs are kept centrally or with limits", DAEMON),
    control(DOCKER, "2.14", "containers get no new privileges", DAEMON),
    control(DOCKER, "2.15", "live restore is on", DAEMON),
    control(DOCKER, "2.16", "the userland proxy is off", DAEMON),
    control(
        DOCKER,
        "3.1",
        "Docker's files have the owners and modes that they should (3.1 to 3.22)",
        &["file[/etc/docker*", "directory[/etc/docker*", "file[*docker.s*", "docker_daemon[*]"],
    ),
    control(DOCKER, "4.6", "images or services have a health check", STACKS),
    control(DOCKER, "5.2", "an AppArmor profile is enforced", &["apparmor_profile[*]"]),
    control(DOCKER, "5.4", "capabilities are restricted", STACKS),
    control(DOCKER, "5.5", "no privileged containers", STACKS),
    control(DOCKER, "5.9", "only needed ports are open", &["compose_stack[*]", "firewall[*]"]),
    control(DOCKER, "5.11", "memory is limited", STACKS),
    control(DOCKER, "5.12", "processors are limited", STACKS),
    control(DOCKER, "5.13", "root file systems are read-only", STACKS),
    control(DOCKER, "5.22", "seccomp is not switched off", &["seccomp_profile[*]", "compose_stack[*]"]),
    control(DOCKER, "5.26", "containers get no new privileges", STACKS),
    control(DOCKER, "5.27", "containers are healthy", &["check[container_healthy*", "check[*is healthy*"]),
    control(DOCKER, "5.29", "processes are limited", STACKS),
    control(DEBIAN, "3.3", "kernel settings of the network", &["sysctl[net.*"]),
    control(DEBIAN, "4.2", "a host firewall denies by default", FIREWALL),
    control(DEBIAN, "5.1", "the SSH server is configured", SSHD),
    control(DEBIAN, "5.2", "rights through sudo are configured", SUDO),
    control(DEBIAN, "6.1", "logs are kept and bounded", &["*[/etc/systemd/journald*"]),
    control(DEBIAN, "6.2", "auditing is on", AUDITD),
    control(NIST, "AC-6", "least privilege", &["sudoers[*]", "compose_stack[*]", "user[*]"]),
    control(NIST, "AC-17", "remote access", &["sshd_config[*]", "authorized_key[*]"]),
    control(NIST, "AU-12", "audit records are made", AUDIT),
    control(NIST, "CM-6", "configuration settings are as declared", &["*"]),
    control(NIST, "CM-7", "least functionality", &["firewall[*]", "kernel_module[*]", "docker_daemon[*]"]),
    control(NIST, "CP-9", "backups are made", &["backup[*]", "timer[*backup*", "copy[*soc-backup*", "check[*backup*"]),
    control(NIST, "CP-10", "a restore is tried", &["timer[*restore*", "check[*restore*"]),
    control(NIST, "SC-7", "boundary protection", FIREWALL),
    control(NIST, "SC-8", "transmissions are protected", &["tls_certificate[*]", "*.crt]", "*.pem]"]),
    control(NIST, "SC-28", "secrets are protected where they lie", SECRETS),
    control(NIST, "SC-39", "processes are isolated", &["apparmor_profile[*]", "seccomp_profile[*]"]),
    control(NIST, "SI-7", "integrity is watched", &["docker_image[*]", "copy[*", "template[*"]),
];

/// How a control stands on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    pub framework: &'static str,
    pub id: &'static str,
    pub title: &'static str,
    pub host: String,
    /// `None`: nothing on the host keeps it.
    pub state: Option<State>,
    /// How many resources keep it.
    pub resources: usize,
    /// Those that are not as declared.
    pub bad: Vec<String>,
}

/// Every control on every host of a run.
#[must_use]
pub fn standings(document: &Document) -> Vec<Standing> {
    let mut out = Vec::new();
    for (host, report) in &document.hosts {
        let reached = report.report.failure.as_ref().is_none_or(|failure| !failure.class.is_unreachable());
        let tasks = report.tasks.iter().filter(|task| !task.handler);
        let mut seen: Vec<(String, State)> =
            tasks.flat_map(|task| &task.resources).map(|resource| (resource.id.to_string(), State::of(&resource.outcome))).collect();
        let checks =
            report.checks.iter().map(|check| (format!("check[{}]", check.title), if check.passed { State::Ok } else { State::Failed }));
        seen.extend(checks);
        for control in CONTROLS {
            let mine: Vec<&(String, State)> =
                seen.iter().filter(|(id, _)| control.kept_by.iter().any(|pattern| fits(pattern, id))).collect();
            let state = if reached { mine.iter().map(|(_, state)| *state).max() } else { Some(State::Unreachable) };
            out.push(Standing {
                framework: control.framework,
                id: control.id,
                title: control.title,
                host: host.clone(),
                state,
                resources: mine.len(),
                bad: mine.iter().filter(|(_, state)| state.is_bad()).map(|(id, _)| id.clone()).collect(),
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Outcome;
    use crate::report::findings::testing::{document, task};

    #[test]
    fn patterns() {
        assert!(
            fits("copy[*", "copy[/etc/x]")
                && fits("*", "")
                && fits("*.crt]", "copy[/x/a.crt]")
                && fits("timer[*backup*", "timer[soc-backup]")
        );
        assert!(!fits("copy[*", "file[/etc/x]") && !fits("a[b]", "a[bc]") && !fits("*.crt]", "copy[/x/a.crt.old]"));
    }

    #[test]
    fn a_control_is_as_good_as_its_worst_resource() {
        let mut good = task("fw", "x", Outcome::Ok);
        good.resources[0].id = crate::resource::ResourceId::new("firewall", "host");
        let mut bad = good.clone();
        bad.resources[0].id.name = "other".to_owned();
        bad.resources[0].outcome = Outcome::WouldChange;
        let of = |tasks: Vec<crate::event::TaskReport>| {
            let all = standings(&document("r", 1, &[("h1", tasks)]));
            all.into_iter().find(|standing| standing.id == "SC-7").unwrap()
        };
        assert_eq!(of(vec![good.clone()]).state, Some(State::Ok));
        let both = of(vec![good, bad]);
        assert_eq!((both.state, both.resources, both.bad), (Some(State::Drift), 2, vec!["firewall[other]".to_owned()]));
        assert_eq!(of(Vec::new()).state, None);
    }

    #[test]
    fn controls_are_unique_and_in_order() {
        let keys: Vec<_> = CONTROLS.iter().map(|control| (control.framework, control.id)).collect();
        let mut once = keys.clone();
        once.dedup();
        assert_eq!(keys, once);
    }
}
