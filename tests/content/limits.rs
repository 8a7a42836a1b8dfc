//! Values that no stack could run with are refused offline, where they are written.

use std::process::Command;

use crate::render::{read, roles, root, yaml};

/// What `check` says of the whole SOC on one host with these variables in its inventory.
fn check(vars: &str) -> (Option<i32>, String) {
    let site = tempfile::tempdir().unwrap();
    for name in ["roles", "playbooks", "secrets"] {
        std::os::unix::fs::symlink(root().join(name), site.path().join(name)).unwrap();
    }
    let indented: String = vars.lines().map(|line| format!("    {line}\n")).collect();
    let inventory =
        format!("all:\n  vars:\n    soc_secrets: lab\n{indented}  hosts:\n    soc1: {{ansible_host: 192.0.2.10, ansible_user: ops}}\n");
    std::fs::create_dir(site.path().join("inventory")).unwrap();
    std::fs::write(site.path().join("inventory/soc-lab.yml"), inventory).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_soc-provision"))
        .args(["check", "soc-lab.yml"])
        .current_dir(site.path())
        .env("HOME", site.path())
        .output()
        .unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn nonsense_is_refused_where_it_is_written() {
    let (code, said) = check("waf_https_port: 8444");
    assert_eq!(code, Some(0), "{said}");
    for (vars, expected) in [
        ("ai_ml_replicas: 0", "`ai_ml_replicas` of role `ai_services`: it must be 1 at least, not `0`"),
        ("ai_ml_replicas: -1", "not `-1`"),
        ("ai_ml_replicas: lots", "it must be a whole number, not `lots`"),
        ("siem_dashboard_port: 70000", "`siem_dashboard_port` of role `soc_common`: it must be a port (1 to 65535), not `70000`"),
        ("soc_health_timeout: soon", "`soc_health_timeout` of role `soc_common`: it cannot be `soon`"),
        ("backup_days: 0", "`backup_days` of role `backup`: it must be 1 at least, not `0`"),
        ("monitoring_retention: ever", "`monitoring_retention` of role `monitoring`: it cannot be `ever`"),
        (
            "siem_size: {indexer: {heap: 0g, cpus: 1, memory: 1G, reserve_cpus: 1, reserve_memory: 1G}}",
            "`siem_size.indexer.heap` of role `siem`: it must be a size",
        ),
        (
            "siem_size: {indexer: {haep: 1g, cpus: 1, memory: 1G, reserve_cpus: 1, reserve_memory: 1G}}",
            "unknown key `haep`; did you mean `heap`?",
        ),
    ] {
        let (code, said) = check(vars);
        assert_eq!(code, Some(1), "{vars}: {said}");
        assert!(said.contains(expected) && said.contains("inventory/soc-lab.yml:4:"), "{vars}: {said}");
    }
}

#[test]
fn a_port_for_two_is_named_with_both_and_a_place() {
    let (code, said) = check("waf_https_port: 443");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("host port 443/tcp of `waf/nginx-ssl` is already published by `siem/wazuh-dashboard`"), "{said}");
    assert!(said.contains("roles/waf/tasks/main.yml:"), "{said}");
}

/// Every default of a role that takes people's wishes has its type on record.
#[test]
fn every_port_replica_and_size_is_typed() {
    let text: String = roles().iter().map(|role| read(format!("roles/{role}/meta/main.yml"))).collect();
    for role in roles() {
        let path = format!("roles/{role}/defaults/main.yml");
        if !root().join(&path).exists() {
            continue;
        }
        for name in yaml(path).as_object().into_iter().flat_map(|map| map.keys()) {
            let typed = name.ends_with("_port")
                || name.ends_with("_replicas")
                || name.ends_with("_size")
                || name.ends_with("_days")
                || name.ends_with("_needs");
            assert!(!typed || text.contains(&format!("      {name}:")), "{role}: `{name}` is in no argument specification");
        }
    }
}
