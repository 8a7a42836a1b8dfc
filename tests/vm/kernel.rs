//! One of each proof that needs a kernel of its own, on one machine, within minutes: part of `make test`.
//! `hardened.rs` has the whole.

use crate::confined::{TASKS, back, confinement, project};
use crate::harness::{Lab, recap, soc};

const ROLES: &str = "
- hosts: h1
  vars: {audit_if_missing: fail, seccomp_profiles: [waf]}
  roles: [docker, apparmor, seccomp, audit]
  tasks:";

#[test]
fn a_kernel_confines_what_the_playbook_says_also_after_a_power_cut() {
    let lab = Lab::machines(1, &["--docker"]);
    let project = project(&format!("{ROLES}{TASKS}"));
    let inventory = lab.inventory();
    // A login to an emulated machine takes its time.
    let run = |verb: &str| {
        soc(project.dir.path(), &[verb, "hardened.yml", "-i", inventory.to_str().unwrap(), "-T", "60", "--format", "json"]).ok().json()
    };
    run("apply");
    confinement(&lab);
    lab.power("h1", "reset");
    back(&lab);
    confinement(&lab);
    let again = run("apply");
    assert_eq!(recap(&again, "h1", "changed"), 0, "{again:#}");
    assert_eq!(again["hosts"]["h1"]["round_trips"], 3);
}
