//! nginx itself in front of a rolling update: the configuration that `ai_services` ships for
//! ml-inference, constant requests with and without a body, replicas replaced one by one.
//!
//! The distribution's nginx is older than `resolve` in an upstream (1.27.3), so there the name is a
//! variable instead. `SOC_NGINX=PATH` gives a newer program (x86-64), which then takes the
//! configuration as it is shipped.

use std::process::{Command, Stdio};

use crate::harness::{root, series};
use crate::stacks::Site;

/// Answers after a while, so that whatever stops a container cuts off what it was asked.
const STACK: &str = r##"compose_stack:
  name: behind
  pull: never
  health: {timeout: 60s}
  scale: {ml-inference: 3}
  compose:
    services:
      ml-inference:
        image: "ml:1"
        user: "1000"
        environment: {VERSION: "@VERSION@"}
        volumes: ["./files/slow:/slow:ro"]
        entrypoint: [sh, -c, "trap 'exit 0' TERM; nc -ll -p 8000 -e /slow/slow.sh & while :; do sleep 3600 & wait $$!; done"]
      nginx:
        image: "nginx-real:1"
        user: "101:101"
        ports: ["127.0.0.1:18090:8080"]
        volumes: ["./files/nginx:/etc/nginx/soc:ro"]
        tmpfs: ["/tmp:mode=1777"]
        command: ["nginx", "-c", "/etc/nginx/soc/nginx.conf", "-g", "daemon off;"]
        depends_on: {ml-inference: {condition: service_healthy}}
        healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:8080/nginx-health"], interval: 10s, start_period: 30s, start_interval: 1s}
  files:
    - {src: nginx.conf, dest: nginx/nginx.conf, mode: "0444", owner: 101}
    - {dest: slow/slow.sh, mode: "0755", content: "#!/bin/sh\nsleep 0.2\nexec /bin/standin-reply\n"}
  images:
    "ml:1": {stand_in: {listen: [8000], user: 1000}}
"##;

/// Makes the image of nginx; whether it is new enough for the configuration as it is.
fn image(site: &Site) -> bool {
    let mut given = "";
    if let Some(path) = std::env::var_os("SOC_NGINX") {
        let program = std::fs::File::open(path).unwrap();
        let name = &site.lab.name;
        let mut copy = Command::new(root().join("lab/ssh"));
        copy.args(["--name", name, "--user", "root", "h1", "cat >/root/nginx && chmod 755 /root/nginx"]).stdin(Stdio::from(program));
        assert!(copy.status().unwrap().success());
        given = "/root/nginx";
    }
    let said = site.lab.feed("h1", &format!("nginx={given}\n{}", include_str!("nginx_image.sh")));
    eprintln!("{}", said.trim());
    let version = said.rsplit_once('/').expect("its version").1.trim().to_owned();
    let numbers: Vec<u32> = version.split('.').filter_map(|number| number.parse().ok()).collect();
    numbers >= vec![1, 27, 3]
}

/// What `ai_services` ships; for an older nginx with the name in a variable.
fn configuration(is_new: bool) -> String {
    let shipped = std::fs::read_to_string(root().join("roles/ai_services/templates/nginx.conf")).unwrap();
    assert!(!shipped.contains("{{"), "nothing in it is rendered");
    if is_new {
        return shipped;
    }
    let (before, upstream) = shipped.split_once("  upstream ml_inference_backend {").unwrap();
    let after = upstream.split_once("\n  }\n").unwrap().1;
    let by_name = "set $ml http://ml-inference:8000;\n      proxy_pass $ml;";
    format!("{before}{}", after.replace("proxy_pass http://ml_inference_backend;", by_name))
}

/// Replaces all replicas under constant requests; how many were asked, and those that failed.
fn roll(site: &Site, version: &str) -> (u32, Vec<String>) {
    site.sh("rm -f /run/out.*; setsid perl /root/hammer.pl /run/hammer /run/out >/dev/null 2>&1 </dev/null & sleep 1");
    let before = site.containers("behind");
    site.write(&STACK.replace("@VERSION@", version));
    site.apply();
    let after = site.containers("behind");
    assert_eq!(before.values().filter(|id| after.values().any(|other| other == *id)).count(), 1, "nginx stays, the three go");
    let lines = site.sh("rm /run/hammer; sleep 3; cat /run/out.*");
    let asked = lines.lines().filter_map(|line| line.strip_prefix("ASKED ")?.parse::<u32>().ok()).sum();
    (asked, lines.lines().filter(|line| line.starts_with("FAILED")).map(str::to_owned).collect())
}

#[test]
fn nginx_loses_no_request_while_what_is_behind_it_is_replaced() {
    if series(0, 1) == 0 {
        eprintln!("not run: part of the long series (SOC_PROVE=1)");
        return;
    }
    let Some(site) = Site::new() else { return };
    let shipped = configuration(image(&site));
    site.lab.feed("h1", &format!("cat >/root/hammer.pl <<'END'\n{}END\n", include_str!("hammer.pl")));
    site.project.write("playbooks/files/nginx.conf", &shipped);
    site.write(&STACK.replace("@VERSION@", "1"));
    site.apply();
    for version in ["2", "3", "4"] {
        let (asked, failed) = roll(&site, version);
        assert!(asked > 100, "{asked} requests");
        assert!(failed.is_empty(), "of {asked} requests {failed:?}");
        eprintln!("{asked} requests, none failed");
    }
    // That requests can fail at all: without the next container being asked.
    site.project.write("playbooks/files/nginx.conf", &shipped.replace("proxy_next_upstream error timeout", "proxy_next_upstream off; #"));
    site.apply();
    let lost: usize = ["5", "6", "7"].map(|version| roll(&site, version).1.len()).iter().sum();
    assert!(lost > 0, "the control lost nothing");
    eprintln!("{lost} failed where nginx asks nobody else");
}
