//! The CIS Docker Benchmark, as docker-bench-security 1.6.0 measures it, on a host with `userns-remap`.
//! That program is not ours and not in the repository: `SOC_DOCKER_BENCH` names a checkout of it.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use crate::confined::{TASKS, project};
use crate::harness::{Lab, recap, root, soc};

const ROLES: &str = "
- hosts: h1
  vars:
    firewall_published: [{port: 8080}]
    audit_if_missing: fail
    firewall_guard_timeout: 180
    seccomp_profiles: [waf]
    docker_daemon:
      icc: false
      live-restore: true
      no-new-privileges: true
      userland-proxy: false
      userns-remap: default
      log-driver: json-file
      log-level: info
      log-opts: {max-size: 10m, max-file: '3'}
      default-ulimits: {nofile: {Name: nofile, Soft: 65536, Hard: 65536}}
  roles: [docker, docker_hardening, apparmor, seccomp, audit, firewall]
  tasks:
    - package: {name: jq}";

/// What it may warn of: a partition of Docker's own (1.1.1), an authorisation plugin (2.12), logs that stay on the host
/// (2.13), and every open port (5.9, which a person must judge).
const ACCEPTED: [&str; 4] = ["1.1.1", "2.12", "2.13", "5.9"];

#[test]
fn the_benchmark_of_docker_gives_at_least_68() {
    let Some(program) = std::env::var_os("SOC_DOCKER_BENCH") else {
        eprintln!("not run: SOC_DOCKER_BENCH names no checkout of docker-bench-security 1.6.0, which is not ours to ship");
        return;
    };
    let lab = Lab::machines(1, &["--docker"]);
    // The stack lays its secret down itself: it knows how uids are moved. One address, and an end to restarts (5.14, 5.15).
    let tasks = TASKS
        .replace("    - secret: {name: token, at_rest: encrypted, owner: 1000, group: 1000}\n", "")
        .replace(", path: /run/soc-secrets/token}", "}")
        .replace("unless-stopped", "on-failure:5")
        .replace("['0.0.0.0:8080:8080', '0.0.0.0:9200:8080']", "['10.77.0.1:8080:8080']");
    let project = project(&format!("{ROLES}{tasks}"));
    let inventory = lab.inventory();
    let run = || {
        soc(project.dir.path(), &["apply", "hardened.yml", "-i", inventory.to_str().unwrap(), "-T", "60", "--format", "json"]).ok().json()
    };
    run();
    assert_eq!(recap(&run(), "h1", "changed"), 0);
    let mut tar = Command::new("tar").arg("-C").arg(program).args(["-cf", "-", "."]).stdout(Stdio::piped()).spawn().unwrap();
    let unpack = ["--name", lab.name(), "--user", "root", "h1", "mkdir -p /root/bench && tar -C /root/bench --no-same-owner -xf -"];
    let unpacked = Command::new(root().join("lab/ssh")).args(unpack).stdin(tar.stdout.take().unwrap()).status().unwrap();
    assert!(unpacked.success() && tar.wait().unwrap().success());
    // bash and not sh: its tests are not dash's, and some would be read wrong. Content trust is 4.5.
    lab.sh("h1", "cd /root/bench && rm -f log/* && DOCKER_CONTENT_TRUST=1 bash ./docker-bench-security.sh -b >/root/bench.txt 2>&1");
    let said = |query: &str| lab.sh("h1", &format!("jq -r '{query}' /root/bench/log/docker-bench-security.log.json"));
    let score: i64 = said(".score").parse().unwrap();
    let warnings = said(".tests[].results[] | select(.result == \"WARN\") | .id");
    println!("score {score}, warnings {}", warnings.replace('\n', " "));
    let more: BTreeSet<&str> = warnings.lines().filter(|id| !ACCEPTED.contains(id)).collect();
    assert!(score >= 68 && more.is_empty(), "score {score}, warnings {more:?}\n{}", lab.sh("h1", "tail -n 200 /root/bench.txt"));
}
