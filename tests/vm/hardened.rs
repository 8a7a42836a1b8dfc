//! Everything that confines, together and enforced by a real kernel: hardened Docker, an AppArmor
//! profile, a seccomp filter, a read-only container without capabilities that reads its encrypted
//! secret as another user; and all of it again after a power cut.

use crate::harness::{Lab, Project, recap, soc};

const PLAY: &str = "
- hosts: h1
  vars:
    firewall_published: [{port: 8080}]
    audit_if_missing: fail
    sshd_guard_timeout: 180
    firewall_guard_timeout: 180
    seccomp_profiles: [waf]
  roles: [docker, docker_hardening, apparmor, seccomp, audit, firewall, sshd]
  tasks:
    - secret: {name: token, at_rest: encrypted, owner: 1000, group: 1000}
    - docker_image: {name: 'soc/page:1', stand_in: {listen: [8080], user: 1000}}
    - compose_stack:
        name: confined
        hardening: strict
        apparmor: {default: docker-waf}
        seccomp: {default: /etc/soc-provision/seccomp/waf.json}
        secrets:
          token: {secret: token, uid: 1000, path: /run/soc-secrets/token}
        health: {timeout: 600}
        compose:
          services:
            web:
              image: soc/page:1
              pull_policy: never
              restart: unless-stopped
              user: '1000:1000'
              read_only: true
              tmpfs: ['/tmp:mode=1777,size=4m', '/data:mode=1777,size=4m']
              cap_drop: [ALL]
              security_opt: ['no-new-privileges:true']
              ports: ['0.0.0.0:8080:8080', '0.0.0.0:9200:8080']
              secrets: [token]
              healthcheck:
                test: [CMD, /bin/sh, -c, 'test -s /run/secrets/token && /bin/standin-health']
                interval: 20s
                timeout: 15s
                retries: 5
                start_period: 60s
              deploy:
                resources:
                  limits: {cpus: '0.50', memory: 64M, pids: 64}
                  reservations: {cpus: '0.05', memory: 8M}
";

const GONE: &str = "
- hosts: h1
  tasks:
    - audit_rules: {name: docker, state: absent}
    - apparmor_profile: {name: docker-waf, state: absent}
";

const VALUE: &str = "a-value-for-uid-1000";

/// What must hold of the running container and its host, each a script that prints what is wanted.
fn confinement(lab: &Lab) {
    let sh = |script: &str| lab.sh("h1", script);
    let pid = sh("docker inspect -f '{{.State.Pid}}' confined-web-1");
    for (what, script, wanted) in [
        ("the secret as uid 1000", "docker exec -u 1000 confined-web-1 /bin/cat /run/secrets/token".to_owned(), VALUE),
        ("the secret's file", "stat -c '%a %u' /run/soc-secrets/token; stat -f -c %T /run/soc-secrets".to_owned(), "400 1000\nramfs"),
        ("AppArmor", format!("cat /proc/{pid}/attr/current"), "docker-waf (enforce)"),
        ("seccomp, privileges, capabilities", format!("sed -n 's/^\\(Seccomp\\|NoNewPrivs\\|CapEff\\|CapBnd\\):[[:space:]]*//p' /proc/{pid}/status | tr '\\n' ' '"), "0000000000000000 0000000000000000 1 2"),
        ("a read-only root", "docker exec confined-web-1 /bin/sh -c ': >/home/x' 2>&1 | grep -o 'Read-only file system'".to_owned(), "Read-only file system"),
        ("the profile's denial", "docker exec confined-web-1 /bin/sh -c ': >/data/x' 2>&1 | grep -o 'Permission denied'; docker exec confined-web-1 /bin/sh -c ': >/tmp/x && echo fine'".to_owned(), "Permission denied\nfine"),
        ("the port", "wget -q -O - http://127.0.0.1:8080/ 2>/dev/null || docker exec confined-web-1 /bin/wget -q -O - http://127.0.0.1:8080/".to_owned(), "ok"),
        ("rules", "nft list table inet soc_provision | grep -c 'hook forward'; auditctl -l | grep -c -- '-k docker' | sed 's/^[1-9].*/some/'; sshd -T | grep '^passwordauthentication'".to_owned(), "1\nsome\npasswordauthentication no"),
    ] {
        assert_eq!(sh(&script).trim(), wanted, "{what}");
    }
    // The denial is the profile's: without it the same write is fine.
    assert_eq!(
        sh(
            "docker run --rm --entrypoint /bin/sh --security-opt apparmor=unconfined --tmpfs /data:mode=1777 soc/page:1 -c ': >/data/x && echo fine'"
        ),
        "fine"
    );
    // Nothing on the disk has it in clear.
    assert_eq!(
        sh(&format!(
            "sync; grep -rlF --exclude-dir=proc --exclude-dir=sys --exclude-dir=run -- {VALUE} /etc /var /root /home /tmp 2>/dev/null || echo none"
        )),
        "none"
    );
}

#[test]
fn a_confined_container_is_confined_and_stays_so_over_a_power_cut() {
    let lab = Lab::vm(&["--docker"]);
    let project = Project::new(&[("playbooks/hardened.yml", PLAY)]);
    let dir = project.dir.path();
    std::os::unix::fs::symlink(crate::harness::root().join("roles"), dir.join("roles")).unwrap();
    soc(dir, &["secrets", "keygen"]).ok();
    soc(dir, &["secrets", "init"]).ok();
    let value = dir.join("value");
    std::fs::write(&value, VALUE).unwrap();
    soc(dir, &["secrets", "set", "token", "--file", value.to_str().unwrap()]).ok();
    std::fs::remove_file(value).unwrap();
    // The lab's own drop-in lets passwords in, and comes first.
    lab.sh("h1", "rm /etc/ssh/sshd_config.d/10-soc-lab.conf; systemctl reload ssh");
    let inventory = lab.inventory();
    let run =
        |verb: &str, more: &[&str]| soc(dir, &[&[verb, "hardened.yml", "-i", inventory.to_str().unwrap(), "-T", "60"], more].concat());
    run("apply", &[]).ok();
    confinement(&lab);
    let again = run("apply", &["--format", "json"]).ok().json();
    assert_eq!(recap(&again, "h1", "changed"), 0, "{again:#}");
    lab.power("h1", "reset");
    lab.sh("h1", "for n in $(seq 60); do [ \"$(docker inspect -f '{{.State.Health.Status}}' confined-web-1 2>/dev/null)\" = healthy ] && exit 0; sleep 5; done; exit 1");
    confinement(&lab);
    run("verify", &[]).ok();
    let after = run("apply", &["--format", "json"]).ok().json();
    assert_eq!(recap(&after, "h1", "changed"), 0, "{after:#}");
    assert_eq!(run("drift", &[]).code, 0);
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
