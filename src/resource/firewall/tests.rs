//! The kind's plans, and the rule set under a real kernel where namespaces can be made.

use super::host::{persist, rule_changes};
use super::*;
use crate::resource::own_file::testing;

fn build(arguments: serde_json::Value) -> Result<Box<dyn Resource>, BuildError> {
    crate::resource::source_text::testing::build::<Firewall>(arguments)
}

fn example() -> serde_json::Value {
    serde_json::json!({
        "ssh": { "from": ["10.0.0.0/8", "fd00::/8"] },
        "published": [{ "port": 443 }, { "port": "8000-8010" }, { "port": 9200, "from": ["10.0.0.0/8", "fd00::/8"], "interface": "eth0" }, { "port": 514, "protocol": "udp" }],
        "host": [{ "port": 9100, "from": ["10.0.0.5"] }, { "port": 7000 }],
        "flows": [{ "chain": "host", "in_interface": "br-*", "port": 7001 }, { "from": ["192.0.2.0/24"], "to": ["198.51.100.0/24"] }],
    })
}

fn rules(arguments: serde_json::Value) -> String {
    let resource = build(arguments).unwrap();
    let Question::Raw { script, .. } = &resource.questions(&Facts::placeholder("h"))[0] else { panic!("a raw question comes first") };
    let shown = script.shown();
    let (_, rest) = shown.split_once("payload <<").unwrap();
    rest.split_once(">> | unshare").unwrap().0.to_owned()
}

const IDLE: &str = "##ssh 10.1.2.3 50000 192.0.2.1 22\n##want\ntable inet soc_provision {\n\t\taccept\n}\n##live\n";

#[test]
fn the_example_decodes_and_is_guarded() {
    let resource = build(example()).unwrap();
    let plan = testing::plan(&*resource, &testing::bare(&*resource, IDLE)).unwrap();
    assert!(matches!(plan.guard.as_ref().unwrap().kind, GuardKind::Runtime { .. }));
    assert!(plan.validate.is_some() && plan.notes.is_empty(), "{plan:?}");
    assert_eq!(plan.changes[0], Change::add("table", "inet soc_provision (1 rules)"));
    assert!(resource.claims().contains(&Claim::AllowedPort { port: 8010, protocol: "tcp".into() }));
    assert!(!resource.claims().contains(&Claim::AllowedPort { port: 7000, protocol: "tcp".into() }));
}

#[test]
fn in_sync_means_rules_file_and_unit() {
    let resource = build(example()).unwrap();
    let same = "##unit soc-provision-firewall.service enabled active\n##want\ntable\n##live\ntable\n";
    let mut observed = testing::bare(&*resource, same);
    let plan = testing::plan(&*resource, &observed).unwrap();
    assert!(!plan.is_in_sync() && plan.guard.is_none(), "only the files are missing: {plan:?}");
    testing::present(&mut observed, host::RULE_FILE, 0o644, &rules(example()));
    testing::present(&mut observed, host::UNIT_FILE, 0o644, &host::unit_file().content);
    assert!(testing::plan(&*resource, &observed).unwrap().is_in_sync());
    testing::present(&mut observed, host::RULE_FILE, 0o644, "table x");
    assert_eq!(testing::plan(&*resource, &observed).unwrap().changes.len(), 1);
}

#[test]
fn rivals_are_refused_with_the_reason() {
    let refusal = |arguments: serde_json::Value, line: &str| {
        let resource = build(arguments).unwrap();
        match testing::plan(&*resource, &testing::bare(&*resource, &format!("{line}\n{IDLE}"))) {
            Err(Undecided::Refused(reason)) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(refusal(example(), "##unit nftables.service enabled inactive").contains("flush ruleset"));
    assert!(refusal(example(), "##unit firewalld.service disabled active").contains("firewalld.service"));
    assert!(refusal(example(), "##ufw active").contains("ufw_input: keep"));
    let keep = build(serde_json::json!({ "ufw_input": "keep" })).unwrap();
    assert!(testing::plan(&*keep, &testing::bare(&*keep, &format!("##ufw active\n{IDLE}"))).is_ok());
    assert!(!rules(serde_json::json!({ "ufw_input": "keep" })).contains("hook input"));
    assert!(refusal(example(), "##nft missing").contains("install package `nftables`"));
}

#[test]
fn a_connection_that_would_be_cut_is_noted_not_refused() {
    let note = |arguments: serde_json::Value, from: &str, port: u16| {
        let resource = build(arguments).unwrap();
        let raw = IDLE.replace("10.1.2.3", from).replace("192.0.2.1 22", &format!("192.0.2.1 {port}"));
        testing::plan(&*resource, &testing::bare(&*resource, &raw)).unwrap().notes
    };
    assert!(note(example(), "203.0.113.9", 22)[0].contains("from 203.0.113.9 to port 22"));
    assert_eq!(note(example(), "fd00::1", 22), Vec::<String>::new());
    assert_eq!(note(example(), "10.1.2.3", 2222).len(), 1);
    assert_eq!(note(serde_json::json!({}), "203.0.113.9", 22), Vec::<String>::new());
}

#[test]
fn bad_arguments_name_their_field() {
    let error = |arguments| build(arguments).unwrap_err();
    let bad = error(serde_json::json!({ "published": [{ "port": 443, "from": ["10.0.0.1/8"] }] }));
    assert_eq!((bad.field.as_deref(), bad.message.contains("10.0.0.0/8")), (Some("published[0].from[0]"), true));
    assert_eq!(error(serde_json::json!({ "host": [{ "port": 0 }] })).field.as_deref(), Some("host[0].port"));
    assert_eq!(error(serde_json::json!({ "docker_bridges": ["br\" accept"] })).field.as_deref(), Some("docker_bridges[0]"));
    assert_eq!(error(serde_json::json!({ "flows": [{}] })).field.as_deref(), Some("flows[0]"));
    assert!(error(serde_json::json!({ "ssh": { "ports": [] } })).message.contains("nobody could log in"));
}

#[test]
fn changes_are_the_lines_that_differ() {
    let changes = rule_changes("a\n\tb\nc", "a\n\tx\nc");
    assert_eq!(changes, [Change::remove("rule", "b"), Change::add("rule", "x")]);
}

/// Loads a rule set and lists it, in a namespace of its own; `None` where that is not possible.
fn listed(rules: &str, then: &str) -> Option<String> {
    let possible =
        std::process::Command::new("unshare").args(["-n", "sh", "-c", "nft list ruleset"]).output().is_ok_and(|out| out.status.success());
    if !possible {
        eprintln!("skipped: needs root, unshare and nft");
        return None;
    }
    let script = crate::shell::Script::sh("exec unshare -n sh -c {}", &[&format!("printf %s \"$RULES\" | nft -f /dev/stdin && {then}")]);
    let code = script.fill(&crate::secret::Vault::default()).unwrap();
    let out = std::process::Command::new("sh").arg("-c").arg(&*code).env("RULES", rules).output().unwrap();
    assert!(out.status.success(), "{rules}\n{}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn nft_takes_every_rule_set_and_the_listing_is_stable() {
    let list = "nft -s list table inet soc_provision";
    for arguments in [
        serde_json::json!({}),
        example(),
        serde_json::json!({ "policy": "accept", "log_dropped": true, "allow_icmp": false, "ssh": { "from": ["0.0.0.0/0"] }, "docker_bridges": [] }),
        serde_json::json!({ "ufw_input": "keep", "published": [{ "port": 1, "from": ["::/0"] }] }),
    ] {
        let text = rules(arguments);
        let Some(once) = listed(&text, list) else { return };
        let twice = listed(&format!("{text}{text}"), list).unwrap();
        assert_eq!(once, twice);
        assert!(once.contains("hook forward priority"), "{once}");
    }
}

#[test]
fn the_probe_sees_a_rule_added_by_hand() {
    let text = rules(example());
    let probe = host::probe(&text).fill(&crate::secret::Vault::default()).unwrap();
    let quoted = crate::shell::quote(&probe);
    let Some(same) = listed(&text, &format!("sh -c {quoted}")) else { return };
    let probed = Probed::parse(&same).unwrap();
    assert_eq!(probed.live, probed.wanted().unwrap());
    let tampered = listed(&text, &format!("nft add rule inet soc_provision input tcp dport 31337 accept && sh -c {quoted}")).unwrap();
    let probed = Probed::parse(&tampered).unwrap();
    assert_eq!(rule_changes(&probed.live, probed.wanted().unwrap()), [Change::remove("rule", "tcp dport 31337 accept")]);
    let persist = persist(&[], probed.wanted().unwrap()).fill(&crate::secret::Vault::default()).unwrap();
    let refused = listed(&text, &format!("nft add rule inet soc_provision input accept && ! sh -c {} 2>&1", crate::shell::quote(&persist)));
    assert!(refused.unwrap().contains("not the wanted ones"));
}

/// The claims of the module's documentation, under a real kernel.
#[test]
fn the_rules_mean_what_they_say() {
    let text = rules(serde_json::json!({
        "published": [{ "port": 8080 }, { "port": 9300, "from": ["10.9.0.3"], "interface": "vout" }],
        "host": [{ "port": 7001 }],
    }));
    if listed(&text, "command -v python3 ip || :").is_none_or(|tools| tools.lines().count() < 2) {
        eprintln!("skipped: needs python3 and ip");
        return;
    }
    let out = std::process::Command::new("unshare")
        .args(["-n", "-m", "sh", "-c", include_str!("netns_test.sh")])
        .env("RULES", &text)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{printed}\n{}", String::from_utf8_lossy(&out.stderr));
    let (without, with) = printed.split_once("# with\n").unwrap();
    assert!(!without.contains("closed"), "the control must be open everywhere: {without}");
    let closed: Vec<&str> = with.lines().filter_map(|line| line.strip_suffix(" closed")).collect();
    assert_eq!(closed, ["unlisted", "limited-from-other", "host-unlisted", "straight-to-container", "container-to-host"], "{with}");
    assert!(with.ends_with("nat kept\n"));
}
