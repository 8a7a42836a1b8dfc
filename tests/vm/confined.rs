//! A container with everything that confines, which the tests on virtual machines share: an AppArmor
//! profile, a seccomp filter, a read-only root, no capabilities, and a secret that is encrypted on
//! the host's disk and read as another user.

use crate::harness::{Lab, Project, root, soc};

/// What lays it down; the play around it has the roles that a proof needs.
pub(crate) const TASKS: &str = "
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

const VALUE: &str = "a-value-for-uid-1000";

/// A project with one playbook, `hardened.yml`, the repository's roles, and the secret.
pub(crate) fn project(play: &str) -> Project {
    let project = Project::new(&[("playbooks/hardened.yml", play)]);
    let dir = project.dir.path();
    std::os::unix::fs::symlink(root().join("roles"), dir.join("roles")).unwrap();
    soc(dir, &["secrets", "keygen"]).ok();
    soc(dir, &["secrets", "init"]).ok();
    let value = dir.join("value");
    std::fs::write(&value, VALUE).unwrap();
    soc(dir, &["secrets", "set", "token", "--file", value.to_str().unwrap()]).ok();
    std::fs::remove_file(value).unwrap();
    project
}

/// Waits until the container is healthy, after its host was switched off and on.
pub(crate) fn back(lab: &Lab) {
    lab.sh("h1", "for n in $(seq 60); do [ \"$(docker inspect -f '{{.State.Health.Status}}' confined-web-1 2>/dev/null)\" = healthy ] && exit 0; sleep 5; done; exit 1");
}

/// What must hold of the running container and its host, each by a script that prints what is wanted.
pub(crate) fn confinement(lab: &Lab) {
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
        ("audit rules", "auditctl -l | grep -c -- '-k docker' | sed 's/^[1-9].*/some/'".to_owned(), "some"),
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
