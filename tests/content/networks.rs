//! Networks with their subnets, the access matrix, ports without clashes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::compare::{names, words};
use crate::render::{Host, STACKS, yaml};

/// One host a group, so that no stack meets another's network.
fn apart() -> Vec<(&'static str, Host)> {
    let of = |group: &str| Host::new(&[group], &json!({}));
    vec![
        ("siem", of("siem")),
        ("ai_services", of("ai")),
        ("soar", of("soar")),
        ("monitoring", of("monitoring")),
        ("network_analysis", of("sensors")),
        ("waf", of("edge")),
    ]
}

#[test]
fn subnets_are_the_seeds_and_overlap_nowhere() {
    let (host, book) = (Host::all(), yaml("tests/content/seeds.yml"));
    let here = host.var("soc_networks");
    for (name, network) in book["networks"].as_object().unwrap() {
        assert_eq!(here[name]["subnet"], network["subnet"], "{name}");
    }
    let mut subnets: Vec<&str> = here.as_object().unwrap().values().map(|network| network["subnet"].as_str().unwrap()).collect();
    subnets.push(host.raw_subnet());
    let all: BTreeSet<&str> = subnets.iter().map(|subnet| subnet.rsplit_once('.').unwrap().0).collect();
    assert_eq!(all.len(), subnets.len(), "two networks share a /24: {subnets:?}");
    for name in ["siem-backend", "waf-network", "network-analysis"] {
        assert_eq!(here[name]["internal"], true, "{name}");
    }
}

impl Host {
    fn raw_subnet(&self) -> &'static str {
        let subnet = self.var("hello_subnet");
        assert_eq!(subnet, "172.31.250.0/28");
        "172.31.250.0/28"
    }
}

/// What the matrix of section 3.2 says, but for the differences that the book lists.
fn expected() -> BTreeMap<String, BTreeSet<String>> {
    let book = yaml("tests/content/seeds.yml");
    let mut matrix: BTreeMap<String, BTreeSet<String>> = book["access_matrix"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(service, networks)| (service.clone(), words(networks).into_iter().collect()))
        .collect();
    for entry in yaml("tests/content/differences.yml")["matrix"].as_array().unwrap() {
        assert!(entry["reason"].as_str().unwrap().len() > 20);
        let row = matrix.get_mut(entry["service"].as_str().unwrap()).unwrap();
        row.extend(words(entry.get("plus").unwrap_or(&Value::Null)));
        for network in words(entry.get("minus").unwrap_or(&Value::Null)) {
            assert!(row.remove(&network), "{network} is not in the seeds' row");
        }
    }
    matrix
}

#[test]
fn the_access_matrix_holds_with_each_stack_on_a_host_of_its_own() {
    let mut expected = expected();
    // Prometheus reaches other stacks' networks where they are on its host; elsewhere, by ports.
    expected.insert("prometheus".to_owned(), BTreeSet::from(["monitoring".to_owned()]));
    for (role, host) in apart() {
        for (name, service) in host.compose(role)["services"].as_object().unwrap() {
            if let Some(row) = expected.remove(name) {
                let here: BTreeSet<String> = names(service.get("networks").unwrap_or(&Value::Null)).into_iter().collect();
                assert_eq!(here, row, "{name}");
            }
        }
    }
    assert!(expected.is_empty(), "services of the matrix that are nowhere: {expected:?}");
}

#[test]
fn the_access_matrix_holds_with_all_on_one_host() {
    let host = Host::all();
    let mut expected = expected();
    // The one addition on a shared host: the manager reaches the two peers that its flows name.
    expected.get_mut("wazuh-manager").unwrap().extend(["soar-frontend".to_owned(), "ai-network".to_owned()]);
    for role in STACKS {
        for (name, service) in host.compose(role)["services"].as_object().unwrap() {
            if let Some(row) = expected.remove(name) {
                let here: BTreeSet<String> = names(service.get("networks").unwrap_or(&Value::Null)).into_iter().collect();
                assert_eq!(here, row, "{name}");
            }
        }
    }
    assert!(expected.is_empty());
}

#[test]
fn each_stack_deploys_alone() {
    for (role, host) in apart() {
        let compose = host.compose(role);
        let networks = host.var("soc_networks");
        let declared: BTreeSet<String> = names(&compose["networks"]).into_iter().collect();
        for (name, network) in compose["networks"].as_object().unwrap() {
            assert_eq!((network["external"].as_bool(), network["name"].as_str()), (Some(true), Some(name.as_str())), "{role}/{name}");
            let group = networks[name]["groups"][0].as_str().unwrap();
            let own = host.var("soc_groups").as_array().unwrap().iter().any(|mine| mine == group);
            assert!(own || name == "monitoring", "{role} alone wants the network `{name}` of the group `{group}`");
        }
        for (name, service) in compose["services"].as_object().unwrap() {
            for network in names(service.get("networks").unwrap_or(&Value::Null)) {
                assert!(declared.contains(&network), "{role}/{name}: network `{network}` is not declared");
            }
            for needed in names(service.get("depends_on").unwrap_or(&Value::Null)) {
                assert!(compose["services"].get(&needed).is_some(), "{role}/{name} depends on `{needed}` of another stack");
            }
        }
    }
}

#[test]
fn no_port_of_a_host_is_taken_twice() {
    for front in ["nginx", "traefik"] {
        let host = Host::new(&["siem", "soar", "ai", "monitoring", "sensors", "edge"], &json!({"waf_front": front}));
        let mut taken: BTreeMap<(String, String), String> = BTreeMap::new();
        for role in STACKS {
            for (name, service) in host.compose(role)["services"].as_object().unwrap() {
                for port in words(service.get("ports").unwrap_or(&Value::Null)) {
                    let (port, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
                    let parts: Vec<&str> = port.split(':').collect();
                    assert_eq!(parts.len(), 3, "{role}/{name}: `{port}` is not bound to an address");
                    let other = taken.insert((parts[1].to_owned(), protocol.to_owned()), format!("{role}/{name}"));
                    assert!(other.is_none(), "{}/{protocol} is taken by {} and {role}/{name}", parts[1], other.unwrap_or_default());
                }
            }
        }
        // What no flow and nobody needs is not published at all.
        for port in ["9200", "6379", "5000"] {
            assert!(!taken.contains_key(&(port.to_owned(), "tcp".to_owned())), "{port} is published");
        }
        // Stores are for the host alone.
        let soar = host.compose("soar");
        for name in ["cassandra", "minio", "shuffle-opensearch", "shuffle-backend"] {
            assert!(words(&soar["services"][name]["ports"]).iter().all(|port| port.starts_with("127.0.0.1:")), "{name}");
        }
    }
}
