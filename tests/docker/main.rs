//! Compose stacks against a real Docker on a lab host: `lab/up --docker --name NAME 1`, then
//! `SOC_LAB_SSH=.lab/NAME/ssh_config cargo test --test docker -- --test-threads 1`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod harness;

use std::collections::BTreeMap;

use harness::Host;

/// Says visibly that a test could not run.
fn host(test: &str) -> Option<Host> {
    let host = Host::from_environment();
    if host.is_none() {
        assert!(std::env::var_os("CI_DOCKER").is_none(), "{test}: CI_DOCKER is set and SOC_LAB_SSH is not");
        eprintln!("{test}: skipped, SOC_LAB_SSH names no lab with Docker");
    }
    host
}

const STACK: &str = r#"
compose_stack:
  name: exact
  pull: never
  health: {timeout: 60s}
  compose:
    services:
      web: {image: "exact-web:1", user: "1000", ports: ["127.0.0.1:18080:8080"], volumes: ["./files/conf:/etc/web:ro"], depends_on: {app: {condition: service_healthy}}, deploy: {resources: {limits: {memory: 64M, cpus: "0.5"}}}}
      app: {image: "exact-app:1", user: "1000", volumes: ["./files/app.conf:/etc/app.conf:ro"], secrets: [token]}
      db: {image: "exact-db:1", user: "1000", secrets: [token], configs: [tuning], volumes: ["data:/data"]}
      env: {image: "exact-db:1", user: "1000"}
    volumes: {data: {}}
    configs: {tuning: {content: "size=TUNING"}}
  files:
    - {content: "web=WEB", dest: conf/web.conf}
    - {content: "app=APP", dest: app.conf}
  secrets:
    token: {secret: token, uid: 1000}
  env_secrets:
    env: {PASSWORD: password}
  seccomp: {db: seccomp.json}
  images:
    "exact-web:1": {stand_in: {listen: [8080], user: 1000}}
    "exact-app:1": {stand_in: {listen: [8000], user: 1000, health: "true APPHEALTH"}}
    "exact-db:1": {stand_in: {listen: [5432], user: 1000, writes: [/data]}}
"#;

const SECCOMP: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]}"#;

fn ready(test: &str, project: &str) -> Option<Host> {
    let mut host = host(test)?;
    host.files.insert("seccomp.json".to_owned(), SECCOMP.into());
    host.secrets.insert("token".to_owned(), "first-token".to_owned());
    host.secrets.insert("password".to_owned(), "it's a \"$pass\" `word`".to_owned());
    host.apply(&format!("compose_stack: {{name: {project}, state: absent, wipe_data: true}}"));
    Some(host)
}

fn recreated(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    before
        .iter()
        .filter(|(name, id)| after.get(*name) != Some(id))
        .map(|(name, _)| name.trim_start_matches("exact-").trim_end_matches("-1").to_owned())
        .collect()
}

#[test]
fn each_change_recreates_exactly_the_services_that_use_it() {
    let Some(mut host) = ready("exact", "exact") else { return };
    let first = host.apply(STACK);
    assert!(first.contains(&"release".to_owned()), "{first:?}");
    assert_eq!(host.drift(STACK), Vec::<String>::new(), "second time");
    assert_eq!(host.ask("docker exec exact-app-1 cat /run/secrets/token"), "first-token");
    assert_eq!(host.ask("docker exec exact-env-1 sh -c 'echo \"$PASSWORD\"'"), host.secrets["password"]);
    assert_eq!(host.ask("cat /proc/$(docker inspect -f '{{.State.Pid}}' exact-db-1)/status | grep ^Seccomp:"), "Seccomp:\t2");

    let mut task = STACK.to_owned();
    let step = |host: &mut Host, what: &str, task: &str, expected: &[&str]| {
        let before = host.containers("exact");
        let changes = host.apply(task);
        assert!(!changes.is_empty(), "{what}: nothing planned");
        assert_eq!(recreated(&before, &host.containers("exact")), expected, "{what}: {changes:?}");
        assert_eq!(host.drift(task), Vec::<String>::new(), "{what}, again");
    };
    task = task.replace("web=WEB", "web=two");
    step(&mut host, "mounted file of web", &task, &["web"]);
    task = task.replace("app=APP", "app=two");
    step(&mut host, "mounted file of app", &task, &["app"]);
    task = task.replace("TUNING", "9");
    step(&mut host, "inline config", &task, &["db"]);
    host.secrets.insert("token".to_owned(), "second-token".to_owned());
    step(&mut host, "secret", &task, &["app", "db"]);
    assert_eq!(host.ask("docker exec exact-app-1 cat /run/secrets/token"), "second-token");
    host.secrets.insert("password".to_owned(), "another-word".to_owned());
    step(&mut host, "secret in the environment", &task, &["env"]);
    host.files.insert("seccomp.json".to_owned(), SECCOMP.replace("acct", "swapon").into());
    step(&mut host, "seccomp profile", &task, &["db"]);
    task = task.replace("memory: 64M", "memory: 96M");
    step(&mut host, "compose file", &task, &["web"]);
    task = task.replace("APPHEALTH", "another image under the same tag");
    step(&mut host, "retagged image", &task, &["app"]);
}

#[test]
fn drift_is_seen_and_repaired() {
    let Some(host) = ready("drift", "exact") else { return };
    host.apply(STACK);
    let cases: &[(&str, &str, &[&str])] = &[
        ("docker stop -t 1 exact-app-1", "app.state", &[]),
        ("docker update --memory 32M --memory-swap 64M exact-web-1", "web.memory", &["web"]),
        ("docker update --restart always exact-db-1", "db.restart", &["db"]),
        ("docker network disconnect exact_default exact-db-1", "db.networks", &["db"]),
        ("f=$(ls /var/lib/soc-provision/stacks/exact/files/*/app.conf); echo x >>$f", "app.conf.content", &["app"]),
        ("f=$(ls /var/lib/soc-provision/stacks/exact/secrets/*/token); echo xxxxxxx >$f", "token.content", &["app", "db"]),
        (
            "docker run -d --name exact-rogue --label com.docker.compose.project=exact --label com.docker.compose.service=rogue exact-db:1",
            "container exact-rogue",
            &[],
        ),
        ("docker tag exact-db:1 exact-web:1", "image", &[]),
        ("echo ' ' >>/var/lib/soc-provision/stacks/exact/current/compose.yml", "compose.yml.content", &[]),
        ("docker rm -f exact-web-1; docker run -d --name exact-web-1 exact-web:1", "container exact-web-1", &["web"]),
    ];
    for (damage, field, expected) in cases {
        let before = host.containers("exact");
        host.ask(&format!("{{ {damage}; }} >/dev/null"));
        let found = host.drift(STACK);
        assert!(found.iter().any(|change| change == field), "{damage}: {found:?}");
        host.apply(STACK);
        assert_eq!(host.drift(STACK), Vec::<String>::new(), "after {damage}");
        assert_eq!(recreated(&before, &host.containers("exact")), *expected, "{damage}");
    }
}

/// A stack of one service with a setting that makes it ill, and a scaled one.
const FRAIL: &str = r#"
compose_stack:
  name: exact
  pull: never
  health: {timeout: 40s}
  compose:
    services:
      web: {image: "exact-web:1", user: "1000", environment: {VERSION: "1", FAIL: "0"}, volumes: ["data:/data"]}
      side: {image: "exact-web:1", user: "1000"}
    volumes: {data: {}}
  images:
    "exact-web:1": {stand_in: {listen: [8080], user: 1000, writes: [/data]}}
"#;

/// Applies a task whose last resource is expected to fail; its outcome.
fn fails(host: &Host, task: &str) -> harness::Ran {
    let resources = host.build(task).unwrap();
    let plan = host.plan(resources.last().unwrap().as_ref()).unwrap();
    host.run(&plan)
}

#[test]
fn a_release_that_is_never_healthy_goes_back_and_a_rollback_is_pinned() {
    let Some(mut host) = ready("frail", "exact") else { return };
    host.apply(FRAIL);
    host.ask("docker exec exact-web-1 sh -c 'echo precious >/data/file'");
    let before = host.containers("exact");
    let current = host.ask("readlink /var/lib/soc-provision/stacks/exact/current");
    let bad = FRAIL.replace("FAIL: \"0\"", "FAIL: \"1\"");
    let ran = fails(&host, &bad);
    assert_eq!(ran.status, 96, "{}", ran.stderr);
    for part in ["service web, container exact-web-1", "FAIL=1", "is back and healthy"] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    assert_eq!(host.ask("readlink /var/lib/soc-provision/stacks/exact/current"), current);
    assert_eq!(host.ask("docker exec exact-web-1 cat /data/file"), "precious");
    let after = host.containers("exact");
    assert_eq!(before["exact-side-1"], after["exact-side-1"]);
    assert_eq!(host.drift(FRAIL), Vec::<String>::new());

    let second = FRAIL.replace("VERSION: \"1\"", "VERSION: \"2\"");
    host.apply(&second);
    let back = host.steps(&soc_provision::resource::compose_release::rollback_steps("exact", None, "ann@laptop", 60)).unwrap();
    assert_eq!(back.status, 0, "{}", back.stderr);
    assert_eq!(host.ask("readlink /var/lib/soc-provision/stacks/exact/current"), current);
    assert_eq!(host.drift(FRAIL), Vec::<String>::new());
    let resources = host.build(&second).unwrap();
    let refused = format!("{:?}", host.plan(resources.last().unwrap().as_ref()).unwrap_err());
    assert!(refused.contains("was rolled back by ann@laptop") && refused.contains("--retry-release"), "{refused}");
    let serde_json::Value::Object(mut vars) = serde_json::json!(host.facts.vars()) else { panic!() };
    vars.insert("soc_retry_release".into(), true.into());
    host.facts = soc_provision::facts::Facts::from_vars(vars);
    host.apply(&second);
    assert_eq!(host.drift(&second), Vec::<String>::new());
}

#[test]
fn a_stack_killed_in_the_middle_ends_in_one_release() {
    let Some(host) = ready("killed", "exact") else { return };
    host.apply(FRAIL);
    for (round, delay) in ["0.3", "1", "2", "4"].iter().enumerate() {
        let next = FRAIL
            .replace("VERSION: \"1\"", &format!("VERSION: \"r{round}\""))
            .replace("side: {image", "side: {hostname: sRND, image")
            .replace("RND", &round.to_string());
        let resources = host.build(&next).unwrap();
        let plan = host.plan(resources.last().unwrap().as_ref()).unwrap();
        let (last, rest) = plan.steps.split_last().unwrap();
        assert_eq!(host.steps(rest).map_or(0, |ran| ran.status), 0);
        let script = last.script.fill(&soc_provision::secret::Vault::default()).unwrap();
        let killed = host
            .sh(&format!("cat >/tmp/up.sh <<'END_OF_STEP'\n{}\nEND_OF_STEP\ntimeout -s KILL {delay} sh /tmp/up.sh; sleep 0.2", &*script));
        assert!(!killed.stderr.contains("cannot"), "{}", killed.stderr);
        host.apply(&next);
        assert_eq!(host.drift(&next), Vec::<String>::new());
        assert_eq!(host.containers("exact").len(), 2);
        assert_eq!(host.ask("docker inspect -f '{{.State.Health.Status}}' exact-web-1 exact-side-1 | sort -u"), "healthy");
        assert_eq!(host.ask("docker exec exact-web-1 sh -c 'echo $VERSION'"), format!("r{round}"));
    }
}

/// A scaled service behind nothing; each replica's replacement is healthy before it goes.
const SCALED: &str = r#"
compose_stack:
  name: exact
  pull: never
  health: {timeout: 60s}
  scale: {web: 3}
  compose:
    services:
      web: {image: "exact-web:1", user: "1000", environment: {VERSION: "1"}}
  images:
    "exact-web:1": {stand_in: {listen: [8080], user: 1000}}
"#;

#[test]
fn scaled_services_are_replaced_one_by_one() {
    let Some(host) = ready("scaled", "exact") else { return };
    host.apply(SCALED);
    assert_eq!(host.containers("exact").len(), 3);
    host.ask("(while [ -d /var/lib/soc-provision/stacks/exact ]; do docker ps -q --filter label=com.docker.compose.service=web --filter health=healthy | wc -l; sleep 0.3; done >/tmp/healthy.log 2>&1 &) ; :");
    let second = SCALED.replace("VERSION: \"1\"", "VERSION: \"2\"");
    let before = host.containers("exact");
    host.apply(&second);
    let after = host.containers("exact");
    assert_eq!(after.len(), 3);
    assert!(before.values().all(|id| !after.values().any(|other| other == id)));
    assert_eq!(host.drift(&second), Vec::<String>::new());
    host.apply(&second.replace("web: 3", "web: 1"));
    assert_eq!(host.containers("exact").len(), 1);
    host.apply("compose_stack: {name: exact, state: absent}");
    let least = host.ask("head -n -1 /tmp/healthy.log | head -c 100000 | sort -n | head -1");
    let during = host.ask("wc -l </tmp/healthy.log");
    assert!(during.parse::<u32>().unwrap() > 10, "{during}");
    // Three while they were replaced; one after the scaling down; never fewer.
    assert!(least.parse::<u32>().unwrap() >= 1, "{least}");
}

#[test]
fn what_would_not_come_up_is_named_before_anything_is_touched() {
    let Some(host) = ready("preflight", "exact") else { return };
    host.ask("docker rm -f blocker >/dev/null 2>&1; docker network rm taken >/dev/null 2>&1; docker network create --subnet 172.29.77.0/24 taken >/dev/null");
    host.apply("docker_image: {name: 'exact-web:1', stand_in: {listen: [8080], user: 1000}}");
    host.ask("docker run -d --name blocker -p 18081:8080 exact-web:1 >/dev/null");
    let task = r#"
compose_stack:
  name: exact
  pull: never
  requires: {memory: 900G}
  compose:
    services:
      a: {image: "exact-web:1", user: "1000", ports: ["18081:8080", "22:22"], volumes: ["/nowhere/at/all:/x"], platform: linux/s390x}
      b: {image: "nobody-has:1", user: "1000", ports: ["18082:1"], networks: [n, ext]}
      c: {image: "exact-web:1", user: "1000", ports: ["18082:2"]}
    networks:
      n: {ipam: {config: [{subnet: 172.29.77.128/25}]}}
      ext: {external: true}
"#;
    let resources = host.build(task).unwrap();
    let refused = format!("{:?}", host.plan(resources.last().unwrap().as_ref()).unwrap_err());
    for part in [
        "18081/tcp of service `a` is published by container `blocker`",
        "port 22/tcp of service `a` is taken by `sshd`",
        "port 18082/tcp is published twice",
        "`/nowhere/at/all`, which `a` mounts",
        "`nobody-has:1` of service `b` is not on the host",
        "overlaps with 172.29.77.0/24",
        "external network `ext` does not exist",
        "is for linux/s390x",
    ] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    host.ask("docker rm -f blocker >/dev/null; docker network rm taken >/dev/null; [ ! -e /var/lib/soc-provision/stacks/exact ]");
}

/// Needs a bare host, `SOC_LAB_BARE`: it gets Docker.
#[test]
fn docker_is_installed_hardened_and_put_back_if_it_does_not_come_up() {
    let Some(host) = Host::bare() else { return eprintln!("docker_engine: skipped, SOC_LAB_BARE names no bare lab") };
    let task = "docker_engine: {daemon: {log-opts: {max-size: 5m, max-file: '2'}}}";
    host.apply(task);
    assert_eq!(host.drift(task), Vec::<String>::new());
    assert_eq!(host.ask("docker info -f '{{.LiveRestoreEnabled}} {{.LoggingDriver}}'"), "true json-file");
    assert!(host.ask("docker info -f '{{.SecurityOptions}}'").contains("no-new-privileges"));
    host.ask("docker compose version");
    let config = host.ask("cat /etc/docker/daemon.json");

    // Found by dockerd itself, before anything is swapped.
    let invalid = "docker_engine: {extra: {audit-log: true}}";
    let ran = fails(&host, invalid);
    assert_eq!(ran.status, 95, "{}", ran.stderr);
    assert!(ran.stderr.contains("audit-log"), "{}", ran.stderr);
    // Valid, and the daemon does not start with it.
    let broken = "docker_engine: {daemon: {bip: 10.99.0.1/24, bridge: none}}";
    let ran = fails(&host, broken);
    assert_eq!(ran.status, 96, "{}", ran.stderr);
    assert!(ran.stderr.contains("the old configuration is back"), "{}", ran.stderr);
    assert_eq!(host.ask("cat /etc/docker/daemon.json"), config);
    assert_eq!(host.drift(task), Vec::<String>::new());

    // A hand edit without a restart, and one with.
    host.ask("sed -i s/5m/6m/ /etc/docker/daemon.json");
    assert_eq!(host.drift(task), ["content"]);
    host.apply(task);
    host.ask("sed 's/\"live-restore\": true/\"live-restore\": false/' /etc/docker/daemon.json >/tmp/d && cp /tmp/d /etc/docker/daemon.json && systemctl restart docker");
    host.apply(task);
    assert_eq!(host.drift(task), Vec::<String>::new());
    assert_eq!(host.ask("docker info -f '{{.LiveRestoreEnabled}}'"), "true");

    // Switching user namespaces hides data: not without being told to.
    host.apply("docker_image: {name: 'here:1', stand_in: {listen: [8080], user: 1000}}");
    let remap = "docker_engine: {daemon: {userns-remap: default}}";
    let refused = format!("{:?}", host.plan(host.build(remap).unwrap().last().unwrap().as_ref()).unwrap_err());
    assert!(refused.contains("out of sight"), "{refused}");
}
