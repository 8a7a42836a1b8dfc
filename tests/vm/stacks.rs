//! Each of the six stacks on a machine of its own with a real kernel: every process of every container is
//! under its AppArmor profile (enforce) and a seccomp filter, but for the exceptions that its role lists.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::harness::{Lab, Project, recap, root, soc};

/// A role, its group of hosts, and the memory in MiB of a machine that holds its stand-ins.
const STACKS: [(&str, &str, &str); 6] = [
    ("waf", "edge", "2048"),
    ("siem", "siem", "3072"),
    ("soar", "soar", "3072"),
    ("ai_services", "ai", "3072"),
    ("network_analysis", "sensors", "2048"),
    ("monitoring", "monitoring", "3072"),
];

/// What the role says of its stack: service -> profile, and the services without a filter, which must both be listed
/// among its exceptions.
struct Declared {
    profiles: BTreeMap<String, String>,
    unconfined: BTreeSet<String>,
    unfiltered: BTreeSet<String>,
}

impl Declared {
    fn of(role: &str) -> Self {
        let yaml = |file: String| -> Value { serde_yaml::from_str(&std::fs::read_to_string(root().join(file)).unwrap()).unwrap() };
        let tasks = yaml(format!("roles/{role}/tasks/main.yml"));
        let stack = tasks.as_array().unwrap().iter().find_map(|task| task.get("compose_stack")).expect("a compose_stack");
        let words = |key: &str| -> BTreeMap<String, String> {
            let map = stack[key].as_object().unwrap();
            map.iter().map(|(service, profile)| (service.clone(), profile.as_str().unwrap().to_owned())).collect()
        };
        // In place, or as a variable of the role: `{{NAME}}`.
        let exceptions = match stack["exceptions"].as_str() {
            Some(name) => yaml(format!("roles/{role}/vars/main.yml"))[name.trim_matches(['{', '}'])].clone(),
            None => stack["exceptions"].clone(),
        };
        let excepted = |word: &str| -> BTreeSet<String> {
            let all = exceptions.as_object().into_iter().flatten();
            let with = |one: &Value| one["allow"].as_array().unwrap().iter().any(|allowed| allowed == word);
            all.filter(|(_, one)| with(one)).map(|(service, _)| service.clone()).collect()
        };
        let without = |key: &str| -> BTreeSet<String> {
            words(key).into_iter().filter(|(_, profile)| profile == "unconfined").map(|(service, _)| service).collect()
        };
        let (unconfined, unfiltered) = (excepted("apparmor-unconfined"), excepted("seccomp-unconfined"));
        assert_eq!((&unconfined, &unfiltered), (&without("apparmor"), &without("seccomp")), "{role}: exceptions are what is used");
        Self { profiles: words("apparmor"), unconfined, unfiltered }
    }

    /// What the kernel must say of a process of this service: profile and seccomp mode (proc(5): 2 is a filter).
    fn wanted(&self, service: &str) -> String {
        let profile = self.profiles.get(service).unwrap_or(&self.profiles["default"]);
        let profile = if self.unconfined.contains(service) { "unconfined".to_owned() } else { format!("{profile} (enforce)") };
        format!("{profile}, seccomp {}", if self.unfiltered.contains(service) { 0 } else { 2 })
    }
}

/// Every process of every container, as `SERVICE: PROFILE (MODE), seccomp N`, by what the kernel says.
const PROCESSES: &str = r#"for id in $(docker ps -aq); do
  service=$(docker inspect -f '{{index .Config.Labels "com.docker.compose.service"}}' "$id")
  some=
  for pid in $(docker top "$id" -eo pid | tail -n +2); do
    mode=$(sed -n 's/^Seccomp:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null) profile=$(cat "/proc/$pid/attr/current" 2>/dev/null) || continue
    some=1
    echo "$service: $profile, seccomp $mode"
  done
  [ -n "$some" ] || echo "$service: no process"
done | sort -u"#;

fn confined(role: &str, group: &str, memory: &str) {
    let declared = Declared::of(role);
    let lab = Lab::machines(1, &["--docker", "--soc", "--memory", memory]);
    let play = format!(
        "- hosts: all\n  vars: {{soc_groups: [{group}], soc_agents: false, soc_profile: lab, soc_stand_ins: true}}\n  roles: [{role}]\n"
    );
    let project = Project::new(&[("playbooks/alone.yml", &play)]);
    for name in ["roles", "secrets"] {
        std::os::unix::fs::symlink(root().join(name), project.dir.path().join(name)).unwrap();
    }
    let inventory = lab.inventory();
    // A login to an emulated machine takes its time.
    let run = |verb: &str| {
        let arguments = [verb, "alone.yml", "-i", inventory.to_str().unwrap(), "-T", "60", "--format", "json"];
        soc(project.dir.path(), &arguments).ok().json()
    };
    run("apply");
    let services: BTreeSet<String> =
        lab.sh("h1", "docker ps -a --format '{{.Label \"com.docker.compose.service\"}}'").lines().map(str::to_owned).collect();
    assert!(services.len() > 2, "{role}: {services:?}");
    let wanted: BTreeSet<String> = services.iter().map(|service| format!("{service}: {}", declared.wanted(service))).collect();
    let seen = |when: &str| {
        let seen: BTreeSet<String> = lab.sh("h1", PROCESSES).lines().map(str::to_owned).collect();
        assert_eq!(seen, wanted, "{role} {when}");
    };
    seen("after apply");
    // No health check, no start was in the way of a profile: the kernel logged no denial.
    let denials = lab.sh("h1", "journalctl -k --no-pager | grep 'apparmor=\"DENIED\"' | grep -v 'profile=\"unconfined\"' | head -n 5");
    assert_eq!(denials, "", "{role}");
    let again = run("apply");
    assert_eq!(recap(&again, "h1", "changed"), 0, "{role}: {again:#}");
    lab.power("h1", "reset");
    lab.sh("h1", "until timeout 30 docker info >/dev/null 2>&1; do sleep 5; done");
    run("verify");
    seen("after a power cut");
    println!("{role}: {} services, {} lines as declared, before and after a power cut", services.len(), wanted.len());
}

macro_rules! stacks {
    ($($name:ident $at:literal)*) => {$(
        #[test]
        fn $name() {
            let (role, group, memory) = STACKS[$at];
            confined(role, group, memory);
        }
    )*};
}

stacks! {
    waf_is_confined 0
    siem_is_confined 1
    soar_is_confined 2
    ai_services_are_confined 3
    network_analysis_is_confined 4
    monitoring_is_confined 5
}
