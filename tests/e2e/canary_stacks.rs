//! A stack whose containers print their secrets wherever a container can: its log, its health check's log, its init
//! job, a check. Docker keeps some of it; nothing that we print, send or write may have it. (What is in a container's
//! environment is in Docker's state and in its processes: every plan says so of `env_secrets`.)

use crate::canary_run::{Bed, Sampler};
use crate::harness::{Lab, series};

/// The value in every form that `/bin/sh` of the stand-in can print.
const SAY: &str = "cat /run/secrets/token; base64 /run/secrets/token; cat /run/secrets/token >&2";

/// The stack: VERSION makes it another release, HEALTH ends its health check.
const STACK: &str = r#"
    - compose_stack:
        name: leaky
        hardening: off
        health: {timeout: 20}
        compose:
          volumes: {data: {}}
          services:
            web:
              image: soc/page:1
              user: "1000"
              environment: {VERSION: "1"}
              volumes: ["./files/conf:/conf:ro", "data:/data"]
              secrets: [token]
              entrypoint: [/bin/sh, -c, 'SAY; cat /conf/app.conf; exec /bin/standin']
              healthcheck: {test: [CMD, /bin/sh, -c, 'SAY; HEALTH'], interval: 1s, timeout: 5s, retries: 2, start_period: 1s}
        files:
          - {dest: conf/app.conf, mode: "0444", content: 'password={{secret "canary"}}'}
        secrets:
          token: {secret: canary, uid: 1000}
"#;

/// Compose takes `$` for its own.
fn in_compose() -> String {
    SAY.replace('$', "$$")
}

fn play(version: &str, health: &str, more: &str) -> String {
    let stack = STACK.replace("VERSION: \"1\"", &format!("VERSION: \"{version}\"")).replace("HEALTH", health).replace("SAY", &in_compose());
    format!("- hosts: h1\n  tasks:\n    - docker_image: {{name: 'soc/page:1', stand_in: {{listen: [8080], user: 1000}}}}{stack}{more}")
}

/// Every command that has to do with a running stack: its words, and the exit codes that it may have.
const RUNS: &[(&[&str], &[i32])] = &[
    (&["apply", "fine.yml", "-D"], &[0]),
    (&["apply", "fine.yml"], &[0]),
    (&["plan", "next.yml", "-D"], &[0, 3]),
    (&["verify", "fine.yml"], &[0]),
    (&["verify", "says.yml"], &[2]),
    (&["status", "fine.yml"], &[0]),
    (&["drift", "fine.yml", "-D"], &[0]),
    (&["drift", "next.yml", "-D"], &[3]),
    (&["diagnose", "h1"], &[0, 2]),
    (&["diagnose", "fine.yml", "--stack", "leaky"], &[0, 2]),
    (&["backup", "fine.yml"], &[0]),
    (&["backup", "fine.yml", "--list"], &[0]),
    (&["capture", "h1"], &[0]),
    // A release that prints it and is never healthy: its logs are shown, the one before comes back.
    (&["apply", "ill.yml", "-D"], &[2]),
    (&["apply", "job.yml", "-D"], &[2]),
    (&["apply", "next.yml", "-D"], &[0]),
    (&["rollback", "next.yml", "--stack", "leaky", "--list"], &[0]),
    (&["rollback", "next.yml", "--stack", "leaky"], &[0]),
    (&["apply", "fine.yml", "--retry-release"], &[0]),
    (&["restore", "fine.yml", "--stack", "leaky"], &[0, 2]),
    (&["preflight", "fine.yml"], &[0]),
    (&["drift", "fine.yml", "--fix"], &[0, 2]),
    (&["rebuild", "fine.yml", "--yes", "-D"], &[0, 2]),
];

/// Without the identity nothing can be masked, so nothing of what a host prints may be shown.
const BLIND: &[&[&str]] = &[
    &["diagnose", "h1"],
    &["drift", "fine.yml", "-D"],
    &["verify", "says.yml"],
    &["status", "fine.yml"],
    &["apply", "fine.yml", "-D"],
    &["apply", "ill.yml", "-D"],
    &["backup", "fine.yml"],
];

#[test]
fn a_stack_that_prints_its_secrets_shows_none() {
    let Some(lab) = Lab::containers(1, &["--docker"]) else { return };
    let job = "        init:\n          - {name: once, service: web, command: 'SAY; exit 3'}\n".replace("SAY", SAY);
    let says = play("1", "true", "  roles: [says]\n");
    let check = format!(
        "- name: fails\n  command: {{cmd: 'docker exec leaky-web-1 /bin/sh -c \"{}\"; docker logs leaky-web-1; exit 1', within: 1s}}\n",
        SAY.replace('"', "\\\"").replace('$', "\\$")
    );
    let bed = Bed::of(
        lab,
        &[
            ("playbooks/fine.yml", &play("1", "true", "")),
            ("playbooks/next.yml", &play("2", "true", "")),
            ("playbooks/ill.yml", &play("3", "exit 1", "")),
            ("playbooks/job.yml", &play("4", "true", &job)),
            ("playbooks/says.yml", &says),
            ("roles/says/verify/main.yml", &check),
        ],
    );
    bed.lab.sh("h1", "touch /soc-mark; sleep 0.1");
    let sampler = Sampler::start(&bed.lab);
    let formats = series(1, 9) as usize;
    let runs = running(&bed, formats) + blind(&bed, formats);
    bed.look_through_host("the host of a stack");
    let processes = sampler.finish();
    bed.no_hit(&processes, runs);
}

/// Every command, with the identity that masking needs.
fn running(bed: &Bed, formats: usize) -> u32 {
    let mut runs = 0;
    for (words, codes) in RUNS {
        let (name, more) = words.split_first().unwrap();
        // Each format is another way out (the long series takes them all) and finds the host as the one before left it.
        for (number, line) in bed.variants(name, more).into_iter().enumerate().take(formats) {
            let (code, stderr) = bed.run_line(&line);
            runs += 1;
            let other = stderr.contains("this format is for") || stderr.contains("not with `--fix`") || number > 0;
            assert!(codes.contains(&code) || other && code != 250, "{line:?} ended with {code}: {stderr}");
        }
    }
    assert_eq!(bed.run_line(&bed.variants("apply", &["fine.yml"])[0]).0, 0);
    // The container did say it, where only Docker keeps it.
    for said in ["docker logs leaky-web-1 2>&1", "docker inspect -f '{{json .State.Health.Log}}' leaky-web-1"] {
        assert!(bed.shows(bed.lab.sh("h1", said).as_bytes()), "{said} says nothing");
    }
    runs
}

/// What says what a host prints, without an identity.
fn blind(bed: &Bed, formats: usize) -> u32 {
    let mut runs = 0;
    for words in BLIND {
        for mut line in bed.variants(words[0], &words[1..]).into_iter().take(formats) {
            line.extend(["--identity".to_owned(), "/nonexistent".to_owned()]);
            bed.run_line(&line);
            runs += 1;
        }
    }
    runs
}
