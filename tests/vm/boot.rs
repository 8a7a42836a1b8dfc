//! The main job on machines with kernels of their own: AppArmor enforcing, real reboots.

use crate::bare::{become_healthy, stay_as_they_are};
use crate::harness::{Lab, root, soc};

/// A login to an emulated machine takes its time.
const PATIENT: [&str; 2] = ["-T", "60"];

#[test]
fn two_bare_machines_become_healthy_and_stay_so_over_a_reboot() {
    let lab = Lab::machines(2, &[]);
    become_healthy(&lab, &PATIENT);
    let container = "docker inspect --format '{{.AppArmorProfile}} {{.State.Pid}}' $(docker ps -q | head -n 1)";
    for host in ["h1", "h2"] {
        let said = lab.sh(host, container);
        let (profile, pid) = said.split_once(' ').unwrap();
        assert_eq!(profile, "docker-default");
        assert_eq!(lab.sh(host, &format!("cat /proc/{pid}/attr/current")), "docker-default (enforce)");
        assert!(lab.sh(host, &format!("grep ^Seccomp: /proc/{pid}/status")).ends_with('2'));
        lab.power(host, "reset");
    }
    let inventory = lab.inventory();
    soc(root(), &[&["verify", "lab.yml", "-i", inventory.to_str().unwrap(), "-l", "lab"], &PATIENT[..]].concat()).ok();
    stay_as_they_are(&lab, &PATIENT);
}
