//! The main job: bare hosts become healthy, by exactly what the plan said, and stay as they are. On
//! containers in `apply`, on virtual machines in tests/vm.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Lab, recap, root, soc};

/// Resources of a host's tasks whose outcome is one of these.
pub(crate) fn resources(document: &Value, host: &str, outcomes: &[&str]) -> BTreeSet<String> {
    let tasks = document["hosts"][host]["tasks"].as_array().cloned().unwrap_or_default();
    tasks
        .iter()
        .flat_map(|task| task["resources"].as_array().cloned().unwrap_or_default())
        .filter(|resource| outcomes.contains(&resource["outcome"].as_str().unwrap_or_default()))
        .map(|resource| format!("{}[{}]", resource["id"]["kind"].as_str().unwrap(), resource["id"]["name"].as_str().unwrap()))
        .collect()
}

/// Takes h1 and h2 through `lab.yml`; `more` are words of the command line.
pub(crate) fn become_healthy(lab: &Lab, more: &[&str]) {
    let inventory = lab.inventory();
    let on = ["lab.yml", "-i", inventory.to_str().unwrap(), "-l", "lab"];
    let run = |verb: &str| soc(root(), &[&[verb], &on[..], &["--format", "json"], more].concat()).ok().json();
    let plan = run("plan");
    let applied = run("apply");
    for host in ["h1", "h2"] {
        let planned = resources(&plan, host, &["would_change"]);
        let later = resources(&plan, host, &["known_after"]);
        let changed = resources(&applied, host, &["changed"]);
        assert!(!planned.is_empty(), "a bare host needs nothing?");
        let extra: Vec<_> = changed.iter().filter(|id| !planned.contains(*id) && !later.contains(*id)).collect();
        assert!(extra.is_empty(), "{host}: changed but not planned: {extra:?}");
        let missing: Vec<_> = planned.iter().filter(|id| !changed.contains(*id)).collect();
        assert!(missing.is_empty(), "{host}: planned but not changed: {missing:?}");
    }
    stay_as_they_are(lab, more);
    // A third way to look at it: nothing is pending.
    assert_eq!(soc(root(), &[&["plan"], &on[..], &["--exit-code"], more].concat()).code, 0);
}

/// Another apply of `lab.yml` changes nothing on h1 and h2, in three round trips.
pub(crate) fn stay_as_they_are(lab: &Lab, more: &[&str]) {
    let inventory = lab.inventory();
    let on = ["apply", "lab.yml", "-i", inventory.to_str().unwrap(), "-l", "lab", "--format", "json"];
    let again = soc(root(), &[&on[..], more].concat()).ok().json();
    for host in ["h1", "h2"] {
        assert_eq!(recap(&again, host, "changed"), 0, "{host}: {:?}", resources(&again, host, &["changed"]));
        assert_eq!(again["hosts"][host]["round_trips"], 3, "{host}");
    }
}
