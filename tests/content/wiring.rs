//! Each link is a rendered configuration; flows, targets, published ports and firewall say the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::compare::words;
use crate::render::{Host, STACKS, parse, yaml};

const GROUPS: [&str; 6] = ["siem", "soar", "ai", "monitoring", "sensors", "edge"];

/// A host of its own for a group, with peers at known addresses.
fn apart(group: &str) -> Host {
    let peers: Value = json!({
        "siem": "192.0.2.11", "soar": "192.0.2.12", "ai": "192.0.2.13", "monitoring": "192.0.2.14", "sensors": "192.0.2.15", "edge": "192.0.2.16",
    });
    Host::new(&[group], &json!({"soc_peer": peers, "soc_bind_flow": "0.0.0.0"}))
}

/// Services of all stacks: name -> (role, service).
fn services(host: &Host) -> BTreeMap<String, Value> {
    STACKS.iter().flat_map(|role| host.compose(role)["services"].as_object().unwrap().clone()).collect()
}

/// A service's ports: container's port and protocol -> address and port on the host.
fn published(service: &Value) -> BTreeMap<(String, String), (String, String)> {
    words(service.get("ports").unwrap_or(&Value::Null))
        .iter()
        .map(|port| {
            let (port, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            let parts: Vec<&str> = port.split(':').collect();
            ((parts[2].to_owned(), protocol.to_owned()), (parts[0].to_owned(), parts[1].to_owned()))
        })
        .collect()
}

#[test]
fn flows_name_real_services_networks_and_ports() {
    let host = Host::all();
    let services = services(&host);
    for flow in host.var("soc_flows").as_array().unwrap() {
        let id = flow["id"].as_str().unwrap();
        let (from, to) = (&services[flow["from"].as_str().unwrap()], &services[flow["to"].as_str().unwrap()]);
        let on = |service: &Value| -> BTreeSet<String> {
            crate::compare::names(service.get("networks").unwrap_or(&Value::Null)).into_iter().collect()
        };
        let network = flow["network"].as_str().unwrap();
        if !network.is_empty() {
            assert!(on(from).contains(network) && on(to).contains(network), "{id}: both must be on {network}");
        }
        if flow["published"] != 0 {
            let key = (flow["port"].to_string(), flow["protocol"].as_str().unwrap().to_owned());
            let (_, port) = published(to).get(&key).unwrap_or_else(|| panic!("{id}: {} does not publish {key:?}", flow["to"])).clone();
            assert_eq!(port, flow["published"].to_string(), "{id}");
        }
    }
    for link in words(&yaml("tests/content/seeds.yml")["integrations"]) {
        let (from, to) = link.split_once(" -> ").unwrap();
        let known = host.var("soc_flows");
        let first = |text: &str| text.split([',', ' ']).next().unwrap().replace("shuffle", "shuffle-backend");
        let there = ["suricata", "alertmanager"].contains(&first(from).as_str())
            || known
                .as_array()
                .unwrap()
                .iter()
                .any(|flow| flow["from"] == first(from) && (flow["to"] == first(to) || first(to) == "ml-inference"));
        assert!(there, "the seeds' link `{link}` is no flow");
    }
}

#[test]
fn wazuh_reaches_thehive_and_triage_on_one_host_and_across() {
    let conf = Host::all().template("siem", "ossec.conf");
    assert!(conf.contains("<hook_url>http://thehive:9000/api/v1/alert</hook_url>"), "{conf}");
    assert!(conf.contains("<hook_url>http://alert-triage:8000/analyze</hook_url>"), "{conf}");
    let conf = apart("siem").template("siem", "ossec.conf");
    assert!(conf.contains("<hook_url>http://192.0.2.12:9010/api/v1/alert</hook_url>"), "{conf}");
    assert!(conf.contains("<hook_url>http://192.0.2.13:8100/analyze</hook_url>"), "{conf}");
    assert!(!conf.contains("api_key"), "a key in the configuration would be an argument of the script");
    let script = Host::all().template("siem", "custom-thehive");
    assert!(script.contains("/run/secrets/thehive_api_key") && !script.contains("sys.argv[2]"));
}

#[test]
fn thehive_reaches_cortex_shuffle_and_its_stores() {
    let conf = Host::all().template("soar", "thehive.conf");
    for part in ["hostname = [\"cassandra\"]", "http://minio:9000", "http://cortex:9001", "http://shuffle-backend:5001/api/v1/hooks/"] {
        assert!(conf.contains(part), "{part}");
    }
    assert!(Host::all().template("soar", "cortex.conf").contains("https://shuffle-opensearch:9200"));
}

#[test]
fn suricata_and_zeek_arrive_at_wazuh() {
    let host = apart("sensors");
    let compose = host.compose("network_analysis");
    assert_eq!(compose["services"]["filebeat"]["logging"]["options"]["syslog-address"], "udp://192.0.2.11:514");
    assert!(compose["services"]["suricata"]["command"].as_str().unwrap().contains("ens3"));
    let beat = parse(&host.template("network_analysis", "filebeat.yml"), "filebeat.yml");
    let sources: Vec<&str> =
        beat["filebeat.inputs"].as_array().unwrap().iter().map(|input| input["fields"]["soc_source"].as_str().unwrap()).collect();
    let rules = host.template("siem", "soc_rules.xml");
    for source in sources {
        assert!(rules.contains(&format!("<field name=\"soc_source\">^{source}$</field>")), "no rule of Wazuh's for {source}");
    }
    let ossec = host.template("siem", "ossec.conf");
    assert!(ossec.contains("<connection>syslog</connection>\n    <port>514</port>\n    <protocol>udp</protocol>"));
    // What filebeat reads is where Suricata and Zeek write.
    for (service, volume) in [("suricata", "suricata-logs"), ("zeek", "zeek-logs")] {
        let mounts = |name: &str| words(&compose["services"][name]["volumes"]);
        assert!(mounts(service).iter().any(|mount| mount.starts_with(&format!("{volume}:"))));
        assert!(mounts("filebeat").iter().any(|mount| mount.starts_with(&format!("{volume}:")) && mount.ends_with(":ro")));
    }
}

/// Jobs of a rendered prometheus.yml: name -> (targets, metrics path, module).
fn jobs(host: &Host) -> BTreeMap<String, (Vec<String>, String, String)> {
    let conf = parse(&host.template("monitoring", "prometheus.yml"), "prometheus.yml");
    conf["scrape_configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| {
            let targets = job["static_configs"].as_array().unwrap().iter().flat_map(|config| words(&config["targets"])).collect();
            let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
            (text(job.get("job_name")), (targets, text(job.get("metrics_path")), text(job.pointer("/params/module/0"))))
        })
        .collect()
}

#[test]
fn prometheus_looks_at_everything_that_runs() {
    let host = Host::all();
    let (jobs, services) = (jobs(&host), services(&host));
    for (job, (targets, path, module)) in &jobs {
        for target in targets {
            let bare = target.trim_start_matches("https://").trim_start_matches("http://");
            let (name, rest) = bare.split_once(':').unwrap_or_else(|| panic!("{job}: {target}"));
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            if name == "localhost" || name.starts_with("192.0.2.") {
                continue;
            }
            // An alias that both of the WAF's fronts have.
            let name = if name == "waf-front" { "nginx-ssl" } else { name };
            let service = services.get(name).unwrap_or_else(|| panic!("{job}: `{name}` is no service"));
            let reached: BTreeSet<String> = crate::compare::names(&service["networks"]).into_iter().collect();
            // What is probed is reached by the blackbox exporter, the rest by Prometheus itself.
            let asker = if module.is_empty() { "prometheus" } else { "blackbox-exporter" };
            let from: BTreeSet<String> = crate::compare::names(&services[asker]["networks"]).into_iter().collect();
            assert!(reached.intersection(&from).next().is_some(), "{job}: {asker} and `{name}` share no network");
            assert!(!port.is_empty(), "{job}: {target}");
        }
        assert_eq!(path == "/probe", !module.is_empty(), "{job}");
    }
    for name in yaml("tests/content/seeds.yml")["scrape_targets"].as_object().unwrap().keys() {
        let job = if name == "cadvisor" { "docker" } else { name };
        assert!(jobs.contains_key(job), "the seeds' target `{name}` is not scraped");
    }
    // Those have no metrics, and would be red for ever if they were scraped.
    for name in ["wazuh-manager", "thehive", "cortex"] {
        assert_eq!(jobs[name].1, "/probe", "{name}");
    }
    let modules = parse(&host.template("monitoring", "blackbox.yml"), "blackbox.yml");
    for (_, _, module) in jobs.values().filter(|(_, _, module)| !module.is_empty()) {
        assert!(modules["modules"].get(module).is_some(), "no module `{module}`");
    }
}

#[test]
fn targets_of_other_hosts_are_published_there_and_let_in() {
    let monitoring = apart("monitoring");
    let jobs = jobs(&monitoring);
    assert_eq!(jobs["alert-triage"].0, ["192.0.2.13:8100"]);
    assert_eq!(jobs["thehive"].0, ["http://192.0.2.12:9010/api/v1/status/public"]);
    assert!(!jobs.contains_key("rag-redis-cache"), "what is not published cannot be asked from elsewhere");
    for (group, role) in [("siem", "siem"), ("ai", "ai_services"), ("soar", "soar"), ("edge", "waf")] {
        let there = apart(group);
        let compose = there.compose(role);
        let open = there.var("soc_open");
        let let_in: BTreeMap<String, Vec<String>> = open[group]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| (port["port"].to_string(), words(port.get("from").unwrap_or(&Value::Null))))
            .collect();
        let addresses: BTreeMap<String, String> = compose["services"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|service| published(service).into_values().map(|(address, port)| (port, address)))
            .collect();
        let address = there.var("soc_peer")[group].as_str().unwrap().to_owned();
        for (job, (targets, ..)) in &jobs {
            for target in targets.iter().filter(|target| target.contains(&format!("{address}:"))) {
                let port: String = target.split(&format!("{address}:")).nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
                assert_eq!(addresses.get(&port).map(String::as_str), Some("0.0.0.0"), "{job}: {target} is not published for others");
                let from = let_in.get(&port).unwrap_or_else(|| panic!("{job}: the firewall of `{group}` does not list {port}"));
                assert!(from.is_empty() || from.contains(&"192.0.2.14".to_owned()), "{job}: {port} is not open to Prometheus");
            }
        }
    }
}

#[test]
fn the_firewall_lists_what_flows_across_hosts_need_and_nothing_that_is_not_published() {
    for flow in Host::all().var("soc_flows").as_array().unwrap() {
        if flow["from_group"] == flow["to_group"] {
            continue;
        }
        let (group, peer) = (flow["to_group"].as_str().unwrap(), flow["from_group"].as_str().unwrap());
        let host = apart(group);
        let caller = host.var("soc_peer")[peer].as_str().unwrap().to_owned();
        let open = host.var("soc_open");
        let entry = open[group].as_array().unwrap().iter().find(|port| port["port"] == flow["published"]);
        let entry = entry.unwrap_or_else(|| panic!("{}: the firewall of `{group}` does not list {}", flow["id"], flow["published"]));
        let from = words(entry.get("from").unwrap_or(&Value::Null));
        assert!(from.is_empty() || from.contains(&caller), "{}: {caller} is not let in", flow["id"]);
    }
    for group in GROUPS {
        let host = apart(group);
        let mut published_here: BTreeSet<String> = BTreeSet::new();
        let role = match group {
            "ai" => "ai_services",
            "sensors" => "network_analysis",
            "edge" => "waf",
            same => same,
        };
        for role in [role, "monitoring"] {
            for service in host.compose(role)["services"].as_object().unwrap().values() {
                published_here.extend(published(service).into_values().filter(|(address, _)| address == "0.0.0.0").map(|(_, port)| port));
            }
        }
        let open = host.var("soc_open");
        let listed: BTreeSet<String> =
            open[group].as_array().unwrap().iter().chain(open["agents"].as_array().unwrap()).map(|port| port["port"].to_string()).collect();
        assert_eq!(published_here, listed, "{group}: published for others, and let in");
    }
}

#[test]
fn both_rules_of_the_hardening_guide_are_there_by_their_numbers() {
    let rules = parse(&Host::all().template("monitoring", "alerts.yml"), "alerts.yml");
    let all: Vec<&Value> = rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    for wanted in yaml("tests/content/seeds.yml")["alert_rules"].as_array().unwrap() {
        let found = all.iter().find(|rule| rule["alert"] == wanted["alert"]).unwrap_or_else(|| panic!("{}", wanted["alert"]));
        assert_eq!(
            (&found["expr"], &found["for"], &found["annotations"]["summary"]),
            (&wanted["expr"], &wanted["for"], &wanted["summary"])
        );
    }
    let docker = rules["groups"].as_array().unwrap().iter().find(|group| group["name"] == "docker").unwrap();
    assert_eq!(docker["interval"], "30s");
    // The first rule's container exists, the second's job too.
    assert_eq!(Host::all().compose("waf")["services"]["waf"]["container_name"], "waf-application");
    assert!(jobs(&Host::all()).contains_key("docker"));
    assert!(all.iter().any(|rule| rule["expr"].as_str().unwrap().contains("falcosecurity_falco")), "Falco raises no alert");
}

#[test]
fn alerts_go_to_mail_slack_and_a_webhook_whose_secrets_are_files() {
    let conf = parse(&Host::all().template("monitoring", "alertmanager.yml"), "alertmanager.yml");
    let receiver = &conf["receivers"][0];
    assert_eq!(receiver["slack_configs"][0]["api_url_file"], "/run/secrets/slack_url");
    assert_eq!(receiver["webhook_configs"][0]["url_file"], "/run/secrets/webhook_url");
    assert_eq!(conf["global"]["smtp_auth_password_file"], "/run/secrets/smtp_password");
    assert_eq!(receiver["slack_configs"][0]["title"], "{{ .CommonLabels.alertname }}");
    let none = Host::new(&["monitoring"], &json!({"monitoring_mail": false, "monitoring_slack": false, "monitoring_webhook": true}));
    let conf = parse(&none.template("monitoring", "alertmanager.yml"), "alertmanager.yml");
    assert!(conf["receivers"][0].get("slack_configs").is_none() && conf["receivers"][0].get("webhook_configs").is_some());
    assert_eq!(words(&none.compose("monitoring")["services"]["alertmanager"]["secrets"]), ["webhook_url"]);
}

#[test]
fn metrics_and_logs_are_kept_ninety_days() {
    let host = Host::all();
    assert!(
        words(&host.compose("monitoring")["services"]["prometheus"]["command"]).contains(&"--storage.tsdb.retention.time=90d".to_owned())
    );
    let loki = parse(&host.template("monitoring", "loki-config.yaml"), "loki-config.yaml");
    assert_eq!((&loki["limits_config"]["retention_period"], &loki["compactor"]["retention_enabled"]), (&json!("90d"), &json!(true)));
    assert!(loki.get("table_manager").is_none());
}

#[test]
fn the_dashboard_is_made_of_what_is_deployed() {
    let host = Host::all();
    let board: Value = serde_json::from_str(&host.template("monitoring", "dashboard.json")).unwrap();
    let titles: Vec<&str> = board["panels"].as_array().unwrap().iter().map(|panel| panel["title"].as_str().unwrap()).collect();
    for target in host.var("soc_targets").as_array().unwrap() {
        assert!(titles.contains(&target["job"].as_str().unwrap()), "no tile for {}", target["job"]);
    }
    let mut ids: Vec<u64> = board["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn every_other_configuration_parses() {
    let host = Host::all();
    for (role, name) in [
        ("siem", "opensearch.yml"),
        ("siem", "internal_users.yml"),
        ("siem", "opensearch_dashboards.yml"),
        ("soar", "opensearch.yml"),
        ("soar", "internal_users.yml"),
        ("monitoring", "promtail-config.yaml"),
        ("monitoring", "grafana-datasources.yml"),
        ("monitoring", "grafana-dashboards.yml"),
        ("waf", "falco.yaml"),
        ("waf", "falco_rules.yaml"),
        ("waf", "traefik.yml"),
    ] {
        let text = host.template(role, name);
        assert!(parse(&text, name).is_object() || parse(&text, name).is_array(), "{role}/{name}");
    }
    for name in ["opensearch.yml"] {
        for role in ["siem", "soar"] {
            let conf = parse(&host.template(role, name), name);
            assert_eq!(conf["plugins.security.ssl.http.enabled"], true);
        }
    }
    // Suricata's has a directive line in front, which YAML readers of this kind do not take.
    let suricata = host.template("network_analysis", "suricata.yaml");
    assert!(suricata.starts_with("%YAML 1.1\n---\n") && suricata.contains("interface: ens3"));
    let braces = |text: &str| text.matches('{').count() == text.matches('}').count();
    for (role, name) in [("waf", "nginx.conf"), ("ai_services", "nginx.conf"), ("soar", "thehive.conf"), ("soar", "cortex.conf")] {
        assert!(braces(&host.template(role, name)), "{role}/{name}");
    }
    for name in ["ossec.conf", "soc_rules.xml"] {
        let text = host.template("siem", name);
        assert_eq!(text.matches("<!--").count(), text.matches("-->").count());
        for tag in ["integration", "remote", "rule", "group", "ruleset", "cluster"] {
            assert_eq!(
                text.matches(&format!("<{tag}>")).count() + text.matches(&format!("<{tag} ")).count(),
                text.matches(&format!("</{tag}>")).count(),
                "{name}: {tag}"
            );
        }
    }
}

#[test]
fn every_role_with_a_stack_has_smoke_tests_that_say_whose_they_are() {
    for role in crate::render::STACKS {
        for check in yaml(format!("roles/{role}/verify/smoke.yml")).as_array().unwrap() {
            let name = check["name"].as_str().unwrap();
            assert!(name.starts_with(&format!("{role}.smoke ")), "{role}: `{name}`");
            assert!(check["command"]["cmd"].is_string(), "{name}");
        }
    }
}
