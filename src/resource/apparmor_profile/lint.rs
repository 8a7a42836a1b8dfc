//! What is wrong with an AppArmor profile although it compiles, found without a host.

use crate::resource::apparmor_profile::text::{ProfileText, Statement, statements};

/// A finding that a playbook may accept by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Code {
    /// A deny rule takes away what another rule allows.
    DenyBeatsAllow,
    /// No `abi` line: what the rules mean depends on the host's configuration.
    NoAbi,
    /// Docker's stop signal does not get through.
    NoSignal,
    /// Compose's secrets cannot be read.
    NoSecrets,
    /// No program may be executed.
    NoExec,
    /// IPv4 is allowed, IPv6 is not.
    NoInet6,
    /// Files of an overlay file system may look disconnected and are then denied.
    NoAttachDisconnected,
}

/// A reason to refuse a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) code: Code,
    pub(super) message: String,
}

/// Everything that is wrong with the profile of this name.
///
/// # Errors
/// If the text has no such profile.
pub(super) fn lint(text: &str, name: &str) -> Result<Vec<Finding>, String> {
    let statements = statements(text);
    let profile = ProfileText::find(&statements, name).ok_or_else(|| format!("the text has no `profile {name} {{ ... }}`"))?;
    let mut findings = Vec::new();
    if !statements.iter().any(|statement| statement.depth == 0 && statement.text.starts_with("abi ")) {
        let message = "there is no `abi <abi/3.0>,` line, so that what the rules mean depends on the host's parser configuration";
        findings.push(Finding { code: Code::NoAbi, message: message.to_owned() });
    }
    deny_beats_allow(&profile, &mut findings);
    if !profile.attached {
        container(&profile, &mut findings);
    }
    Ok(findings)
}

fn deny_beats_allow(profile: &ProfileText, findings: &mut Vec<Finding>) {
    let rules = profile.file_rules();
    for deny in rules.iter().filter(|rule| rule.deny) {
        let beaten: Vec<String> = rules
            .iter()
            .filter(|rule| !rule.deny && rule.path != "**" && deny.covers(&rule.path) && deny.shares(rule))
            .map(|rule| format!("line {}, `{} {}`", rule.line, rule.path, rule.permissions))
            .collect();
        if !beaten.is_empty() {
            let message = format!(
                "line {}, `deny {} {}`, takes away what others allow ({}): a deny rule beats every allow, and all else is denied anyway; leave it out",
                deny.line,
                deny.path,
                deny.permissions,
                beaten.join("; ")
            );
            findings.push(Finding { code: Code::DenyBeatsAllow, message });
        }
    }
}

/// What a profile needs that containers run under, rather than programs of the host.
fn container(profile: &ProfileText, findings: &mut Vec<Finding>) {
    let mut find = |bad: bool, code: Code, message: &str| {
        if bad {
            findings.push(Finding { code, message: message.to_owned() });
        }
    };
    let files = profile.file_rules();
    let allows = |path: &str, permission: char| {
        files.iter().any(|rule| !rule.deny && rule.permissions.contains(permission) && (rule.path == "**" || rule.covers(path)))
    };
    for peer in ["unconfined", "runc"] {
        let message = format!(
            "there is no `signal (receive) peer={peer},`: {}",
            if peer == "runc" {
                "where runc has a profile of its own (Ubuntu 24.04 and later), containers cannot be stopped"
            } else {
                "containers cannot be stopped"
            }
        );
        find(!profile.rules.iter().any(|rule| receives_signals_of(rule, peer)), Code::NoSignal, &message);
    }
    let executes = files.iter().any(|rule| !rule.deny && rule.permissions.to_ascii_lowercase().contains('x'));
    find(!executes, Code::NoExec, "no rule lets a program be executed (`/bin/** mrix,`), so that no container can start");
    find(!allows("/run/secrets/x", 'r'), Code::NoSecrets, "there is no `/run/secrets/** r,`: a service cannot read its secrets");
    let network = |family: &str| profile.rules.iter().any(|rule| allows_network(rule, family));
    find(network("inet") && !network("inet6"), Code::NoInet6, "`network inet` is allowed and `network inet6` is not");
    let disconnected = profile.flags.iter().any(|flag| flag == "attach_disconnected");
    find(!disconnected, Code::NoAttachDisconnected, "`flags=(attach_disconnected)` is missing: files on an overlay may be denied");
}

/// The rule's words after `allow` and `audit`; nothing for deny rules.
fn words(rule: &Statement) -> Vec<&str> {
    let words: Vec<&str> = rule.text.split([' ', ',', '(', ')']).filter(|word| !word.is_empty()).collect();
    if words.contains(&"deny") { Vec::new() } else { words.into_iter().skip_while(|word| matches!(*word, "allow" | "audit")).collect() }
}

fn receives_signals_of(rule: &Statement, peer: &str) -> bool {
    let words = words(rule);
    if words.first() != Some(&"signal") {
        return false;
    }
    let limited = words.iter().any(|word| matches!(*word, "send" | "receive" | "r" | "w" | "rw" | "read" | "write"));
    let receives = !limited || words.iter().any(|word| matches!(*word, "receive" | "r" | "rw" | "read"));
    let peers: Vec<&str> = words.iter().filter_map(|word| word.strip_prefix("peer=")).collect();
    receives
        && (peers.is_empty()
            || peers.iter().any(|name| matches!(name.trim_matches('"'), name if name == peer || name == "*" || name == "**")))
}

fn allows_network(rule: &Statement, family: &str) -> bool {
    let words = words(rule);
    words.first() == Some(&"network") && (words.len() == 1 || words.contains(&family))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The profile that circulates.
    const CIRCULATING: &str = "#include <tunables/global>\n\nprofile docker-waf flags=(attach_disconnected,mediate_deleted) {\n  #include <abstractions/base>\n\n  # Allow network access\n  network inet tcp,\n  network inet udp,\n\n  /app/** r,\n\n  /app/data/parsed/** rw,\n  /app/logs/** rw,\n  /tmp/** rw,\n\n  # Deny everything else\n  deny /** w,\n}\n";

    fn codes(text: &str, name: &str) -> Vec<Code> {
        lint(text, name).unwrap().into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn the_circulating_example_is_refused_with_the_reasons() {
        use Code::{DenyBeatsAllow, NoAbi, NoExec, NoInet6, NoSecrets, NoSignal};
        assert_eq!(codes(CIRCULATING, "docker-waf"), [NoAbi, DenyBeatsAllow, NoSignal, NoSignal, NoExec, NoSecrets, NoInet6]);
        let findings = lint(CIRCULATING, "docker-waf").unwrap();
        let deny = &findings[1].message;
        assert!(deny.starts_with("line 17, `deny /** w`") && deny.contains("line 13, `/app/logs/** rw`"), "{deny}");
    }

    #[test]
    fn a_host_programs_profile_needs_no_container_rules() {
        assert_eq!(codes("abi <abi/3.0>,\nprofile x /usr/bin/x {\n  /usr/bin/x mr,\n}\n", "x"), []);
        assert!(lint("profile y { }", "x").unwrap_err().contains("no `profile x"));
    }

    #[test]
    fn bare_rules_allow_everything() {
        let text = "abi <abi/3.0>,\nprofile x flags=(attach_disconnected) {\n file,\n network,\n signal,\n deny /etc/shadow rw,\n}\n";
        assert_eq!(codes(text, "x"), []);
    }
}
