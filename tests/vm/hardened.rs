//! Everything that hardens a host, together and enforced by a real kernel, seen from inside and from
//! a neighbour on the same wire; and all of it again after Docker restarted and after a power cut.

use crate::confined::{TASKS, back, confinement, project};
use crate::harness::{Lab, Project, recap, soc};

const ROLES: &str = "
- hosts: h1
  vars:
    firewall_published: [{port: 8080}]
    audit_if_missing: fail
    sshd_guard_timeout: 180
    firewall_guard_timeout: 180
    seccomp_profiles: [waf]
  roles: [docker, docker_hardening, apparmor, seccomp, audit, firewall, sshd]
  tasks:
    - docker_image: {name: 'soc/host:1', stand_in: {listen: [7000], user: 65534}}
    - compose_stack:
        name: onhost
        hardening: 'off'
        compose: {services: {web: {image: 'soc/host:1', pull_policy: never, restart: unless-stopped, network_mode: host}}}";

const GONE: &str = "
- hosts: h1
  tasks:
    - audit_rules: {name: docker, state: absent}
    - apparmor_profile: {name: docker-waf, state: absent}
";

/// h1's address on the wire between the hosts of a lab of machines.
const WIRE: &str = "10.77.0.1";

/// Whether the neighbour, h2, gets a connection; an emulated machine takes its time to answer.
fn reaches(lab: &Lab, address: &str, port: u16) -> bool {
    lab.ssh("h2", "root", &format!("timeout 10 bash -c '</dev/tcp/{address}/{port}'")).status.success()
}

/// What the neighbour reaches: the listed published port, one that is not listed, one on the host's
/// network, and the container by its own address, to which it has a route.
fn from_outside(lab: &Lab) -> [bool; 4] {
    let container = lab.sh("h1", "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' confined-web-1");
    lab.sh("h2", &format!("ip route replace {container}/32 via {WIRE}"));
    lab.sh("h1", "ss -Hltn | grep -q ':7000 '");
    [reaches(lab, WIRE, 8080), reaches(lab, WIRE, 9200), reaches(lab, WIRE, 7000), reaches(lab, &container, 8080)]
}

fn hardened(lab: &Lab, when: &str) {
    confinement(lab);
    let rules = "nft list table inet soc_provision | grep -c 'hook forward'; sshd -T | grep '^passwordauthentication'";
    assert_eq!(lab.sh("h1", rules), "1\npasswordauthentication no", "{when}");
    assert_eq!(from_outside(lab), [true, false, false, false], "{when}");
}

#[test]
fn a_hardened_host_stays_so_from_inside_and_outside() {
    let lab = Lab::machines(2, &["--docker"]);
    let project = project(&format!("{ROLES}{TASKS}"));
    // The lab's own drop-in lets passwords in, and comes first.
    lab.sh("h1", "rm /etc/ssh/sshd_config.d/10-soc-lab.conf; systemctl reload ssh");
    let inventory = lab.inventory();
    let run =
        |verb: &str| soc(project.dir.path(), &[verb, "hardened.yml", "-i", inventory.to_str().unwrap(), "-T", "60", "--format", "json"]);
    run("apply").ok();
    hardened(&lab, "applied");
    let again = run("apply").ok().json();
    assert_eq!(recap(&again, "h1", "changed"), 0, "{again:#}");
    lab.sh("h1", "systemctl restart docker");
    back(&lab);
    hardened(&lab, "Docker restarted");
    lab.power("h1", "reset");
    back(&lab);
    hardened(&lab, "after a power cut");
    run("verify").ok();
    let after = run("apply").ok().json();
    assert_eq!(recap(&after, "h1", "changed"), 0, "{after:#}");
    assert_eq!(run("drift").code, 0);
    // Without the table everything is open: what was shut was shut by it.
    lab.sh("h1", "nft delete table inet soc_provision");
    assert_eq!(from_outside(&lab), [true; 4], "the control");
    assert_eq!(run("drift").code, 3);
    gone_without_a_trace(&lab, &project);
}

/// What only a real kernel has is taken away, and is gone from the kernel too: refused while a
/// container runs under it.
fn gone_without_a_trace(lab: &Lab, project: &Project) {
    project.write("playbooks/gone.yml", GONE);
    let inventory = lab.inventory();
    let run = || soc(project.dir.path(), &["apply", "gone.yml", "-i", inventory.to_str().unwrap(), "-T", "60", "--format", "json"]);
    let refused = run();
    assert!(refused.code != 0 && refused.all().contains("is in use by container `confined-web-1`"), "{}", refused.all());
    lab.sh("h1", "docker stop -t 5 confined-web-1");
    run().ok();
    assert_eq!(recap(&run().ok().json(), "h1", "changed"), 0);
    let left = "ls /etc/apparmor.d/docker-waf /etc/audit/rules.d/50-soc-docker.rules 2>/dev/null; grep -c '^docker-waf ' /sys/kernel/security/apparmor/profiles; auditctl -l | grep -c -- '-k docker'; :";
    assert_eq!(lab.sh("h1", left), "0\n0");
}
