//! What needs a kernel of its own: AppArmor enforcing, real reboots.

use crate::harness::{Lab, recap, root, soc};

#[test]
fn a_virtual_machine_becomes_healthy_and_stays_so_over_a_reboot() {
    let lab = Lab::machines(1, &["--docker"]);
    let inventory = lab.inventory();
    // A login to an emulated machine takes its time.
    let on = ["lab.yml", "-i", inventory.to_str().unwrap(), "-l", "h1", "-T", "60", "--format", "json"];
    let run = |verb: &str| soc(root(), &[&[verb], &on[..]].concat()).ok().json();
    run("apply");
    let again = run("apply");
    assert_eq!(recap(&again, "h1", "changed"), 0, "{again:#}");
    assert_eq!(again["hosts"]["h1"]["round_trips"], 3);
    let container = "docker inspect --format '{{.AppArmorProfile}} {{.State.Pid}}' $(docker ps -q | head -n 1)";
    let said = lab.sh("h1", container);
    let (profile, pid) = said.split_once(' ').unwrap();
    assert_eq!(profile, "docker-default");
    assert_eq!(lab.sh("h1", &format!("cat /proc/{pid}/attr/current")), "docker-default (enforce)");
    assert!(lab.sh("h1", &format!("grep ^Seccomp: /proc/{pid}/status")).ends_with('2'));
    lab.power("h1", "reset");
    run("verify");
    assert_eq!(recap(&run("apply"), "h1", "changed"), 0);
}
