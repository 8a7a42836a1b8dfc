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
        host.ask(&format!("{damage} >/dev/null"));
        let found = host.drift(STACK);
        assert!(found.iter().any(|change| change == field), "{damage}: {found:?}");
        host.apply(STACK);
        assert_eq!(host.drift(STACK), Vec::<String>::new(), "after {damage}");
        assert_eq!(recreated(&before, &host.containers("exact")), *expected, "{damage}");
    }
}
