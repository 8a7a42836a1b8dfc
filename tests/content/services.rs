//! Every service that the seeds name is there, field by field as they list it, or with a reason.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::compare::{differences, flat};
use crate::render::{Host, STACKS, yaml};

/// A declared difference: which services and fields, and why.
struct Declared {
    service: String,
    field: String,
    reason: String,
}

impl Declared {
    fn covers(&self, service: &str, field: &str) -> bool {
        let field_fits = self.field.strip_suffix('*').map_or(self.field == field, |start| field.starts_with(start));
        field_fits && (self.service == "*" || self.service == service)
    }
}

fn declared(part: &str) -> Vec<Declared> {
    let book = yaml("tests/content/differences.yml");
    let mut out = Vec::new();
    for entry in book[part].as_array().unwrap() {
        let list = |key: &str| -> Vec<String> { crate::compare::words(&entry[key]) };
        for service in list("services") {
            for field in list("fields") {
                out.push(Declared { service: service.clone(), field, reason: entry["reason"].as_str().unwrap_or_default().to_owned() });
            }
        }
    }
    out
}

/// Our services by stack, from the rendered Compose files; Traefik is the WAF's other front.
fn ours() -> BTreeMap<String, BTreeMap<String, Value>> {
    let host = Host::all();
    let mut out: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    for role in STACKS {
        let services = host.compose(role)["services"].as_object().unwrap().clone();
        out.insert((*role).to_owned(), services.into_iter().collect());
    }
    let traefik = Host::new(&["edge"], &json!({"waf_front": "traefik", "waf_acme": true})).compose("waf");
    out.get_mut("waf").unwrap().insert("traefik".to_owned(), traefik["services"]["traefik"].clone());
    out
}

fn seeds() -> BTreeMap<String, BTreeMap<String, Value>> {
    let book = yaml("tests/content/seeds.yml");
    let stacks = book["stacks"].as_object().unwrap();
    stacks.iter().map(|(name, stack)| (name.clone(), stack["services"].as_object().unwrap().clone().into_iter().collect())).collect()
}

#[test]
fn every_service_of_the_seeds_is_there_under_its_name() {
    let (seeds, ours) = (seeds(), ours());
    let mut missing = Vec::new();
    for (stack, services) in &seeds {
        let here = ours.get(stack).unwrap_or_else(|| panic!("no role for the stack `{stack}`"));
        missing.extend(services.keys().filter(|name| !here.contains_key(*name)).map(|name| format!("{stack}/{name}")));
    }
    assert!(missing.is_empty(), "missing: {missing:?}");
    let added: BTreeSet<String> = ours
        .iter()
        .flat_map(|(stack, services)| {
            services.keys().filter(|name| !seeds[stack].contains_key(*name)).map(move |name| format!("{stack}/{name}"))
        })
        .collect();
    let book = yaml("tests/content/differences.yml");
    let known: BTreeSet<String> = book["added_services"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(added, known, "services that the seeds do not name need a reason");
}

#[test]
fn every_field_is_the_seeds_or_has_a_reason() {
    let (seeds, ours, declared) = (seeds(), ours(), declared("differences"));
    let mut unexplained = Vec::new();
    let mut used = vec![false; declared.len()];
    for (stack, services) in &seeds {
        for (name, service) in services {
            for (field, seed, here) in differences(&flat(service), &flat(&ours[stack][name])) {
                let fitting: Vec<usize> = (0..declared.len()).filter(|&index| declared[index].covers(name, &field)).collect();
                if fitting.is_empty() {
                    unexplained.push(format!("{name}.{field}: seeds `{seed}`, here `{here}`"));
                }
                fitting.into_iter().for_each(|index| used[index] = true);
            }
        }
    }
    assert!(unexplained.is_empty(), "differences without a reason:\n{}", unexplained.join("\n"));
    let stale: Vec<String> =
        declared.iter().zip(&used).filter(|(_, used)| !**used).map(|(entry, _)| format!("{}.{}", entry.service, entry.field)).collect();
    assert!(stale.is_empty(), "reasons for differences that are not there: {stale:?}");
    assert!(declared.iter().all(|entry| entry.reason.len() > 20), "a reason is a sentence");
}

#[test]
fn the_ledger_counts_what_the_table_lists() {
    let book = yaml("tests/content/seeds.yml");
    let listed: u64 = book["stacks"]
        .as_object()
        .unwrap()
        .values()
        .filter(|stack| stack["file"].is_string())
        .map(|stack| stack["lists"].as_u64().unwrap())
        .sum();
    assert_eq!(listed, book["claims"]["services_listed"].as_u64().unwrap());
    for (name, stack) in book["stacks"].as_object().unwrap() {
        let uncounted = stack["services"].as_object().unwrap().values().filter(|service| service.get("source").is_some()).count();
        let services = stack["services"].as_object().unwrap().len() - uncounted;
        assert_eq!(services as u64, stack["lists"].as_u64().unwrap(), "{name}");
    }
    let volumes: usize = book["volumes"]["declared"].as_object().unwrap().values().map(|list| list.as_array().unwrap().len()).sum();
    let undeclared: usize = book["volumes"]["undeclared"].as_object().unwrap().values().map(|list| list.as_array().unwrap().len()).sum();
    assert_eq!((volumes, volumes + undeclared), (18, 22));
    let networks = book["networks"].as_object().unwrap();
    assert_eq!(networks.values().filter(|network| network["source"] == "A 3.1").count(), 6);
    assert_eq!(networks.len(), 7);
}

#[test]
fn volumes_are_declared_with_the_seeds_names_and_the_critical_ones_are_saved() {
    let book = yaml("tests/content/seeds.yml");
    let host = Host::all();
    let mut declared = BTreeSet::new();
    for role in STACKS {
        let compose = host.compose(role);
        for (name, volume) in compose.get("volumes").and_then(Value::as_object).into_iter().flatten() {
            assert_eq!(volume["name"], **name, "{role}: the volume's name on the host");
            declared.insert(name.clone());
        }
    }
    for part in ["declared", "undeclared"] {
        for list in book["volumes"][part].as_object().unwrap().values() {
            for name in crate::compare::words(list) {
                assert!(declared.contains(&name), "volume `{name}` of the seeds is not declared");
            }
        }
    }
    let plan = host.template("backup", "plan");
    for name in crate::compare::words(&book["volumes"]["critical"]) {
        assert!(
            plan.lines().any(|line| line.split('\t').nth(1) == Some(&name)),
            "critical volume `{name}` is not in the backup's plan:\n{plan}"
        );
    }
    let days =
        |stack: &str| plan.lines().find(|line| line.starts_with(&format!("{stack}\t"))).unwrap().split('\t').nth(4).unwrap().to_owned();
    assert_eq!((days("siem"), days("waf")), ("30".to_owned(), "7".to_owned()));
    // Containers that are paused exist under that name.
    let containers: BTreeSet<String> = ours()
        .values()
        .flat_map(|services| {
            services.values().filter_map(|service| service.get("container_name")?.as_str().map(str::to_owned)).collect::<Vec<_>>()
        })
        .collect();
    for line in plan.lines().filter(|line| !line.starts_with('#') && line.contains("\tpause\t")) {
        let container = line.split('\t').nth(3).unwrap();
        assert!(containers.contains(container), "`{container}` in the backup's plan is no container");
    }
}

#[test]
fn each_profile_renders_and_reservations_fit_its_needs() {
    let bytes = |text: &str| -> u64 {
        let (number, unit) = text.split_at(text.len() - 1);
        number.parse::<u64>().unwrap() << if unit == "G" { 30 } else { 20 }
    };
    let mut lab = 0;
    for profile in ["lab", "minimum", "recommended", "production"] {
        let host = Host::new(&["siem", "soar", "ai", "monitoring", "sensors", "edge"], &json!({"soc_profile": profile}));
        for role in STACKS {
            let compose = host.compose(role);
            let (mut reserved, mut cpus) = (0, 0.0);
            for (name, service) in compose["services"].as_object().unwrap() {
                let fields = flat(service);
                let get = |field: &str| fields.get(field).unwrap_or_else(|| panic!("{name}.{field} in profile {profile}")).clone();
                assert!(bytes(&get("reservations.memory")) <= bytes(&get("limits.memory")), "{profile} {name}");
                let scale = service.get("scale").and_then(Value::as_u64).unwrap_or(1);
                reserved += bytes(&get("reservations.memory")) * scale;
                #[expect(clippy::cast_precision_loss, reason = "a handful of replicas")]
                let scale = scale as f64;
                cpus += get("reservations.cpus").parse::<f64>().unwrap() * scale;
                assert!(get("limits.pids").parse::<u64>().unwrap() > 0);
            }
            let stack = crate::render::stack_task(role);
            let needs = host.render(&stack["requires"], role);
            let (memory, cores) = (bytes(needs["memory"].as_str().unwrap()), needs["cpus"].as_f64().unwrap());
            assert!(reserved <= memory, "{role} {profile}: reservations of {reserved} do not fit the {memory} it asks for");
            assert!(cpus <= cores, "{role} {profile}: reservations of {cpus} cores do not fit the {cores} it asks for");
            if profile == "lab" {
                lab += memory;
            }
        }
    }
    assert!(lab <= 8 << 30, "all six together must fit into 8 GiB in the lab");
    let host = |profile: &str| Host::new(&["siem"], &json!({"soc_profile": profile})).var("siem_needs");
    let sizing = &yaml("tests/content/seeds.yml")["sizing"]["siem"];
    for profile in ["minimum", "recommended", "production"] {
        let (needs, seed) = (host(profile), &sizing[profile]);
        assert_eq!((&needs["memory"], &needs["cpus"], &needs["disk"]), (&seed["memory"], &seed["cpu"], &seed["disk"]), "{profile}");
    }
}
