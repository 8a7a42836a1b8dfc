//! The whole SOC with stand-in images on real Docker: six stacks on one host, apart from each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Lab, Project, Run, recap, root, series, soc};

/// The six stacks' Compose projects.
const STACKS: [&str; 6] = ["ai-services", "monitoring", "network-analysis", "siem", "soar", "waf"];

fn apply(lab: &Lab, verb: &str, more: &[&str]) -> Run {
    let inventory = lab.inventory();
    soc(root(), &[&[verb, "soc-lab.yml", "-i", inventory.to_str().unwrap(), "--format", "json"], more].concat())
}

fn yaml(path: &str) -> Value {
    serde_yaml::from_str(&std::fs::read_to_string(root().join(path)).unwrap()).unwrap()
}

/// What `docker inspect` says of every container.
fn containers(lab: &Lab) -> Vec<Value> {
    let text = lab.sh("h1", "docker inspect $(docker ps -aq)");
    serde_json::from_str::<Value>(&text).unwrap().as_array().unwrap().clone()
}

fn label(container: &Value, name: &str) -> String {
    container["Config"]["Labels"][format!("com.docker.compose.{name}")].as_str().unwrap_or_default().to_owned()
}

/// Stack/service -> every container's id and start, which change if anybody touches one.
fn lives(lab: &Lab) -> BTreeMap<String, BTreeSet<String>> {
    let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for container in containers(lab) {
        let key = format!("{}/{}", label(&container, "project"), label(&container, "service"));
        out.entry(key).or_default().insert(format!("{} {}", container["Id"], container["State"]["StartedAt"]));
    }
    out
}

#[test]
fn six_stacks_on_one_host_are_green_and_stay_apart() {
    let Some(lab) = Lab::containers(1, &["--docker", "--soc", "--memory", "8192"]) else { return };
    let first = apply(&lab, "apply", &[]).ok().json();
    every_check_is_green(&first);
    every_service_of_the_seeds_runs(&lab);
    let again = apply(&lab, "apply", &[]).ok().json();
    assert_eq!(recap(&again, "h1", "changed"), 0, "{:#}", again["hosts"]["h1"]["tasks"]);
    assert_eq!(again["hosts"]["h1"]["round_trips"], 3);
    every_check_is_green(&again);
    smoke_is_green(&lab);
    networks_are_apart(&lab);
    only_declared_ports_answer_from_outside(&lab);
    a_failing_stack_touches_no_other(&lab);
    a_reload_leaves_containers_that_come_back(&lab);
    if series(0, 1) == 1 {
        renewed_certificates_reach_their_services(&lab);
        a_power_cut_is_survived(&lab);
        real_programs_take_what_was_rendered(&lab);
    }
}

fn every_check_is_green(document: &Value) {
    let checks = document["hosts"]["h1"]["checks"].as_array().unwrap();
    let red: Vec<&Value> = checks.iter().filter(|check| check["passed"] != true).collect();
    assert!(red.is_empty(), "{red:#?}");
    // Every check that the roles declare was made.
    let made: BTreeSet<&str> = checks.iter().filter_map(|check| check["title"].as_str()).collect();
    for role in ["siem", "ai_services", "soar", "monitoring", "network_analysis", "waf", "backup", "docker"] {
        for check in yaml(&format!("roles/{role}/verify/main.yml")).as_array().unwrap() {
            let name = check["name"].as_str().unwrap();
            assert!(made.iter().any(|title| title.contains(name)), "`{name}` was not checked: {made:?}");
        }
    }
}

/// What goes in at one end comes out at the other, by the rendered configurations.
fn smoke_is_green(lab: &Lab) {
    let smoke = apply(lab, "verify", &["--smoke"]).ok().json();
    every_check_is_green(&smoke);
    let titles: Vec<&str> = smoke["hosts"]["h1"]["checks"].as_array().unwrap().iter().filter_map(|check| check["title"].as_str()).collect();
    assert!(titles.iter().filter(|title| title.contains(".smoke ")).count() >= 12, "{titles:?}");
    // Nobody but `--smoke` leaves anything behind.
    let marks = "docker exec wazuh-manager grep -c smoke /var/ossec/logs/alerts/alerts.json";
    let before = lab.sh("h1", marks);
    every_check_is_green(&apply(lab, "verify", &[]).ok().json());
    assert_eq!(lab.sh("h1", marks), before);
}

fn every_service_of_the_seeds_runs(lab: &Lab) {
    let running: BTreeSet<String> = lives(lab).into_keys().collect();
    let seeds = yaml("tests/content/seeds.yml");
    let mut count = 0;
    for (stack, listed) in seeds["stacks"].as_object().unwrap() {
        let project = stack.replace('_', "-");
        for service in listed["services"].as_object().unwrap().keys() {
            // The guide's Prometheus and Grafana are those of monitoring; of its two fronts one is chosen.
            let elsewhere = project == "waf" && ["prometheus", "grafana", "traefik"].contains(&service.as_str());
            if !elsewhere {
                assert!(running.contains(&format!("{project}/{service}")), "{project}/{service} does not run: {running:?}");
                count += 1;
            }
        }
    }
    assert!(count >= 30, "{count} services");
    let projects: BTreeSet<&str> = running.iter().filter_map(|name| name.split('/').next()).collect();
    assert_eq!(projects, BTreeSet::from(STACKS));
}

/// Networks that a container is on, with its address on each.
fn addresses(container: &Value) -> BTreeMap<String, String> {
    let networks = container["NetworkSettings"]["Networks"].as_object().unwrap();
    networks.iter().map(|(name, network)| (name.clone(), network["IPAddress"].as_str().unwrap().to_owned())).collect()
}

/// From a container of each kind of attachment, exactly what shares a network with it answers.
fn networks_are_apart(lab: &Lab) {
    let all: Vec<Value> = containers(lab).into_iter().filter(|container| container["HostConfig"]["NetworkMode"] != "host").collect();
    let mut targets: Vec<(String, String)> = Vec::new();
    for container in &all {
        let ports: Vec<&String> = container["Config"]["ExposedPorts"].as_object().map(|ports| ports.keys().collect()).unwrap_or_default();
        for (network, address) in addresses(container) {
            for port in ports.iter().filter_map(|port| port.strip_suffix("/tcp")) {
                targets.push((network.clone(), format!("{address}/{port}")));
            }
        }
    }
    assert!(targets.len() > 40, "{targets:?}");
    let mut seen = BTreeSet::new();
    for container in &all {
        let (own, name) = (addresses(container), container["Name"].as_str().unwrap());
        let networks: BTreeSet<&String> = own.keys().collect();
        if !seen.insert(networks.into_iter().cloned().collect::<Vec<_>>()) {
            continue;
        }
        let expected: BTreeSet<String> =
            targets.iter().filter(|(network, ..)| own.contains_key(network)).map(|(_, at)| at.clone()).collect();
        let every = targets.iter().map(|(_, at)| at.clone()).collect();
        let mut answers = answering_from(lab, container, &every);
        // A busy machine may not answer in time what it could; what must not answer never does.
        let late: BTreeSet<String> = expected.difference(&answers).cloned().collect();
        answers.extend(answering_from(lab, container, &late));
        assert_eq!(answers, expected, "from {name} ({own:?})");
    }
    assert!(seen.len() >= 10, "{seen:?}");
    // What is only on internal networks has no way out.
    for name in ["wazuh-indexer", "waf-redis", "waf-application", "filebeat-shipper"] {
        let script = format!("nsenter -t $(docker inspect -f '{{{{.State.Pid}}}}' {name}) -n ip route show default");
        assert_eq!(lab.sh("h1", &script), "", "{name} has a way out");
    }
}

/// Which of these `ADDRESS/PORT` take a connection from where a container stands.
fn answering_from(lab: &Lab, container: &Value, targets: &BTreeSet<String>) -> BTreeSet<String> {
    let one = |at: &String| format!("(timeout 2 bash -c '</dev/tcp/{at}' 2>/dev/null && echo {at}) &\n");
    let tries: String = targets.iter().map(one).collect();
    let script = format!("nsenter -t {} -n bash <<'END'\n{tries}wait\nEND", container["State"]["Pid"]);
    lab.sh("h1", &script).lines().map(str::to_owned).collect()
}

/// Of all ports that the project knows, and some that nobody should offer, exactly those for people.
fn only_declared_ports_answer_from_outside(lab: &Lab) {
    let defaults = yaml("roles/soc_common/defaults/main.yml");
    let port = |name: &str| u16::try_from(defaults[name].as_u64().unwrap()).unwrap();
    let known: BTreeSet<u16> =
        defaults.as_object().unwrap().iter().filter(|(name, _)| name.ends_with("_port")).map(|(name, _)| port(name)).collect();
    let tried: BTreeSet<u16> = known.into_iter().chain([22, 80, 2375, 2376, 5000, 5601, 6379, 8000, 9200, 9115, 9080]).collect();
    let open = ["siem_dashboard_port", "siem_agent_port", "siem_enrollment_port", "soar_thehive_port", "soar_cortex_port"];
    let open = open.into_iter().chain(["soar_shuffle_frontend_port", "monitoring_grafana_port", "waf_https_port"]);
    let expected: BTreeSet<u16> = open.map(port).chain([22]).collect();
    let answers = answering(&lab.address("h1"), &tried);
    assert_eq!(answers, expected);
}

/// Which of these ports accept a connection from here.
fn answering(address: &str, ports: &BTreeSet<u16>) -> BTreeSet<u16> {
    let tries: Vec<_> = ports
        .iter()
        .map(|&port| {
            let to = SocketAddr::new(address.parse().unwrap(), port);
            std::thread::spawn(move || TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok().then_some(port))
        })
        .collect();
    tries.into_iter().filter_map(|one| one.join().unwrap()).collect()
}

/// A release that does not get healthy is taken back, and no container of another stack notices.
fn a_failing_stack_touches_no_other(lab: &Lab) {
    let before = lives(lab);
    let mut sources = yaml("roles/soar/defaults/main.yml")["soar_image_sources"].clone();
    sources["stand_in"]["thehiveproject/cortex:3.1.7"]["stand_in"]["health"] = json!("echo told to fail; false");
    let broken = json!({"soar_image_sources": sources, "soc_health_timeout": "25s"}).to_string();
    let run = apply(lab, "apply", &["-e", &broken]);
    assert_eq!(run.code, 2, "{}", run.all());
    assert!(run.stdout.contains("cortex"), "{}", run.stdout);
    let after = lives(lab);
    let others = |lives: &BTreeMap<String, BTreeSet<String>>| -> BTreeMap<String, BTreeSet<String>> {
        lives.iter().filter(|(name, _)| !name.starts_with("soar/")).map(|(name, ids)| (name.clone(), ids.clone())).collect()
    };
    assert_eq!(others(&before), others(&after), "another stack was touched");
    let ill = lab.sh("h1", "docker ps -a --format '{{.Names}} {{.Status}}' | grep -v '(healthy)' || true");
    assert_eq!(ill, "", "not back to health");
    // The next ordinary run finds the rest of the way.
    every_check_is_green(&apply(lab, "apply", &[]).ok().json());
}

/// A reload by signal is not a stop by hand in Docker's books: such containers stay down after a boot.
fn a_reload_leaves_containers_that_come_back(lab: &Lab) {
    let before = lives(lab);
    let run = apply(lab, "apply", &["-e", "monitoring_slack_channel=#elsewhere"]).ok().json();
    assert_eq!(recap(&run, "h1", "changed"), 1);
    assert_eq!(lives(lab), before, "a reload made a container anew");
    let channel = "docker exec monitoring-alertmanager grep channel: /etc/alertmanager/alertmanager.yml";
    assert!(lab.sh("h1", channel).contains("#elsewhere"));
    let stopped = "grep -l '\"HasBeenManuallyStopped\":true' /var/lib/docker/containers/*/config.v2.json || true";
    assert_eq!(lab.sh("h1", stopped), "");
}

/// New certificates, by the same authority: who serves with one is restarted, nobody else, and is healthy.
fn renewed_certificates_reach_their_services(lab: &Lab) {
    let before = lives(lab);
    let shorter = ["-e", r#"{"soc_tls_days": 300}"#];
    every_check_is_green(&apply(lab, "apply", &shorter).ok().json());
    let after = lives(lab);
    let restarted: BTreeSet<&str> = after.iter().filter(|(name, lives)| before[*name] != **lives).map(|(name, _)| name.as_str()).collect();
    let expected = ["siem/wazuh-indexer", "siem/wazuh-manager", "siem/wazuh-dashboard", "soar/shuffle-opensearch", "waf/nginx-ssl"];
    assert_eq!(restarted, BTreeSet::from(expected));
    let chain = "openssl verify -CAfile /etc/nginx/certs/tls-ca.crt /etc/nginx/certs/tls.crt";
    let chain = chain.replace("/etc/nginx/certs", "/var/lib/soc-provision/tls/waf/front");
    assert!(lab.sh("h1", &chain).ends_with("OK"));
    assert_eq!(recap(&apply(lab, "apply", &shorter).ok().json(), "h1", "changed"), 0);
}

/// After a power cut every stack comes back by itself, with the firewall, and nothing needs doing.
fn a_power_cut_is_survived(lab: &Lab) {
    apply(lab, "apply", &[]).ok();
    lab.power("h1", "reset");
    // While Docker loads three dozen containers it answers nobody.
    lab.sh("h1", "until timeout 5 docker info >/dev/null 2>&1; do sleep 2; done");
    every_check_is_green(&apply(lab, "verify", &[]).ok().json());
    assert!(lab.sh("h1", "nft list tables").contains("soc_provision"));
    assert_eq!(recap(&apply(lab, "apply", &[]).ok().json(), "h1", "changed"), 0);
}

/// Prometheus, Alertmanager, the blackbox exporter, nginx, Redis and Suricata as the distribution has them: no stand-ins.
fn real_programs_take_what_was_rendered(lab: &Lab) {
    let proofs = lab.sh("h1", include_str!("soc_real.sh"));
    assert_eq!(proofs.lines().count(), 9, "{proofs}");
}

/// Each stack alone on a bare host: one in the quick series, all in the long one.
#[test]
fn each_stack_deploys_alone() {
    let roles = [
        ("waf", "edge"),
        ("siem", "siem"),
        ("soar", "soar"),
        ("ai_services", "ai"),
        ("network_analysis", "sensors"),
        ("monitoring", "monitoring"),
    ];
    for (role, group) in roles.into_iter().take(series(1, 6) as usize) {
        let Some(lab) = Lab::containers(1, &["--docker", "--soc"]) else { return };
        let project = Project::new(&[(
            "playbooks/alone.yml",
            &format!(
                "- hosts: all\n  vars: {{soc_groups: [{group}], soc_agents: false, soc_profile: lab, soc_stand_ins: true, soc_apparmor_if_available: true}}\n  roles: [{role}]\n"
            ),
        )]);
        for name in ["roles", "secrets"] {
            std::os::unix::fs::symlink(root().join(name), project.dir.path().join(name)).unwrap();
        }
        let inventory = lab.inventory();
        let arguments = ["apply", "alone.yml", "-i", inventory.to_str().unwrap(), "--format", "json"];
        let first = soc(project.dir.path(), &arguments).ok().json();
        assert!(recap(&first, "h1", "changed") > 5, "{role}");
        let projects = lab.sh("h1", "docker ps --format '{{.Label \"com.docker.compose.project\"}}' | sort -u");
        assert_eq!(projects, role.replace('_', "-"), "{role}");
        let again = soc(project.dir.path(), &arguments).ok().json();
        assert_eq!((recap(&again, "h1", "changed"), &again["hosts"]["h1"]["round_trips"]), (0, &json!(3)), "{role}");
    }
}
