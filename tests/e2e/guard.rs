//! No way to lock oneself out: rules that cut ssh are gone again within the window, exit code 5.

use crate::harness::{Lab, Project, command, soc};

const LOCKOUT: &str =
    "- hosts: h1\n  tasks:\n    - package: {name: nftables}\n    - firewall: {ssh: {from: [\"192.0.2.0/24\"]}, guard_timeout: 15}\n";
const FINE: &str =
    "- hosts: h1\n  tasks:\n    - package: {name: nftables}\n    - firewall: {published: [{port: 8080}], guard_timeout: 30}\n";

#[test]
fn a_rule_set_that_locks_us_out_is_reverted_and_a_good_one_stays() {
    let Some(lab) = Lab::containers(1, &[]) else { return };
    let project = Project::new(&[("playbooks/lockout.yml", LOCKOUT), ("playbooks/fine.yml", FINE)]);
    let inventory = lab.inventory();
    let on = ["-i", inventory.to_str().unwrap()];
    let locked = soc(project.dir.path(), &[&["apply", "lockout.yml"], &on[..]].concat());
    assert_eq!(locked.code, 5, "{}", locked.all());
    assert!(locked.stderr.contains("reverted") && locked.stderr.contains("ssh.from"), "{}", locked.stderr);
    assert_eq!(lab.sh("h1", "nft list tables | grep -c soc_provision || :"), "0");
    // Killed inside the window: the host is back by itself all the same.
    let mut child = command(project.dir.path(), &[&["apply", "lockout.yml"], &on[..]].concat()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(6));
    child.kill().unwrap();
    child.wait().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(20));
    assert_eq!(lab.sh("h1", "nft list tables | grep -c soc_provision || :"), "0");
    soc(project.dir.path(), &[&["apply", "fine.yml"], &on[..]].concat()).ok();
    let again = soc(project.dir.path(), &[&["apply", "fine.yml"], &on[..]].concat()).ok();
    assert!(again.stdout.contains("changed=0"), "{}", again.stdout);
    // It loads before the network at the next boot.
    lab.power("h1", "reset");
    assert_ne!(lab.sh("h1", "nft list tables | grep -c soc_provision || :"), "0");
}
