//! Compose stacks as releases, on real Docker: what a change recreates, going back by itself and by
//! hand, updates that are cut off, preflight, diagnosis.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;

use crate::harness::{Lab, Project, Run, command, recap, series, soc};

/// A lab with Docker and a project on it.
pub(super) struct Site {
    pub(super) lab: Lab,
    pub(super) project: Project,
    inventory: String,
}

impl Site {
    pub(super) fn new() -> Option<Self> {
        let lab = Lab::containers(1, &["--docker"])?;
        let inventory = lab.inventory().display().to_string();
        Some(Self { lab, project: Project::new(&[]), inventory })
    }

    /// A playbook of one stack.
    pub(super) fn write(&self, stack: &str) {
        let indented = stack.trim_end().replace('\n', "\n      ");
        self.project.write("playbooks/p.yml", &format!("- hosts: h1\n  tasks:\n    - {indented}\n"));
    }

    pub(super) fn run(&self, words: &[&str]) -> Run {
        soc(self.project.dir.path(), &[words, &["-i", &self.inventory, "-l", "h1"]].concat())
    }

    /// Applies, which must succeed; the number of changed tasks and the round trips.
    pub(super) fn apply(&self) -> (u64, u64) {
        let run = self.run(&["apply", "p.yml", "--format", "json"]).ok().json();
        (recap(&run, "h1", "changed"), run["hosts"]["h1"]["round_trips"].as_u64().unwrap())
    }

    pub(super) fn sh(&self, script: &str) -> String {
        self.lab.sh("h1", script)
    }

    pub(super) fn secret(&self, name: &str, value: &str) {
        let mut child =
            command(self.project.dir.path(), &["secrets", "set", name]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    /// Containers of a project: name without the project, and id.
    pub(super) fn containers(&self, project: &str) -> BTreeMap<String, String> {
        let lines = self.sh(&format!(
            "docker ps -a --no-trunc --filter label=com.docker.compose.project={project} --format '{{{{.Names}}}} {{{{.ID}}}}'"
        ));
        let pair = |line: &str| {
            let (name, id) = line.split_once(' ').unwrap();
            (name.trim_start_matches(&format!("{project}-")).to_owned(), id.to_owned())
        };
        lines.lines().map(pair).collect()
    }

    pub(super) fn current(&self, project: &str) -> String {
        self.sh(&format!("readlink /var/lib/soc-provision/stacks/{project}/current"))
    }

    /// Every container of the project runs and is healthy, and there are as many as that.
    pub(super) fn healthy(&self, project: &str, count: usize) {
        let states = self.sh(&format!(
            "docker inspect -f '{{{{.State.Status}}}}/{{{{.State.Health.Status}}}}' $(docker ps -aq --filter label=com.docker.compose.project={project})"
        ));
        assert_eq!(states.lines().filter(|line| *line == "running/healthy").count(), count, "{states}");
        assert_eq!(states.lines().count(), count, "{states}");
    }
}

const EXACT: &str = r#"compose_stack:
  name: exact
  pull: never
  health: {timeout: 60s}
  compose:
    services:
      web: {image: "exact-web:1", user: "1000", ports: ["127.0.0.1:18080:8080"], volumes: ["./files/conf:/etc/web:ro"], deploy: {resources: {limits: {memory: 64M, cpus: "0.5"}}}}
      app: {image: "exact-app:1", user: "1000", volumes: ["./files/app.conf:/etc/app.conf:ro"], secrets: [token]}
      db: {image: "exact-db:1", user: "1000", secrets: [token], configs: [tuning], volumes: ["data:/data"]}
      live: {image: "exact-db:1", user: "1000", volumes: ["./files/live:/etc/live:ro"], tmpfs: ["/tmp:mode=1777"], healthcheck: {test: [CMD, "true"]},
        entrypoint: [sh, -c, "trap 'echo hup >>/tmp/hups' HUP; while :; do sleep 1 & wait; done"]}
    volumes: {data: {}}
    configs: {tuning: {content: "size=TUNING"}}
  files:
    - {content: "web=WEB", dest: conf/web.conf}
    - {content: "app=APP", dest: app.conf}
    - {content: "live=LIVE", dest: live/live.conf}
  secrets:
    token: {secret: token, uid: 1000}
  reload:
    live: {signal: HUP}
  seccomp: {db: seccomp.json}
  images:
    "exact-web:1": {stand_in: {listen: [8080], user: 1000}}
    "exact-app:1": {stand_in: {listen: [8000], user: 1000, health: "true APPHEALTH"}}
    "exact-db:1": {stand_in: {listen: [5432], user: 1000, writes: [/data]}}
"#;

const SECCOMP: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]}"#;

#[test]
fn each_change_recreates_exactly_the_services_that_use_it() {
    let Some(site) = Site::new() else { return };
    for words in [&["secrets", "keygen"][..], &["secrets", "init"]] {
        soc(site.project.dir.path(), words).ok();
    }
    site.secret("token", "first-token");
    site.project.write("playbooks/files/seccomp.json", SECCOMP);
    let mut text = EXACT.to_owned();
    site.write(&text);
    assert_eq!(site.apply().0, 1);
    assert_eq!(site.apply(), (0, 3), "an unchanged stack is left alone");
    assert_eq!(site.sh("docker exec exact-app-1 cat /run/secrets/token"), "first-token");
    assert_eq!(site.sh("cat /proc/$(docker inspect -f '{{.State.Pid}}' exact-db-1)/status | grep ^Seccomp:"), "Seccomp:\t2");
    let step = |what: &str, text: &str, expected: &[&str]| {
        site.write(text);
        let before = site.containers("exact");
        assert_eq!(site.apply().0, 1, "{what}");
        let after = site.containers("exact");
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "{what}");
        let recreated: Vec<&str> =
            before.iter().filter(|(name, id)| after[*name] != **id).map(|(name, _)| name.trim_end_matches("-1")).collect();
        assert_eq!(recreated, expected, "{what}");
    };
    let mut change = |what: &str, from: &str, to: &str, expected: &[&str]| {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
        step(what, &text, expected);
    };
    change("a mounted file", "web=WEB", "web=two", &["web"]);
    change("an inline config", "TUNING", "9", &["db"]);
    change("the compose file", "memory: 64M", "memory: 96M", &["web"]);
    change("an image under the same tag", "APPHEALTH", "another", &["app"]);
    change("a file of a service that reloads", "LIVE", "second", &[]);
    assert_eq!(site.sh("docker exec exact-live-1 cat /etc/live/live.conf"), "live=second");
    let signals = site.sh("docker events --since 5m --until $(date +%s) --filter event=kill --filter container=exact-live-1 --format '{{.Actor.Attributes.signal}}'");
    assert_eq!(signals, "", "the process is signalled: to Docker a kill is a stop by hand, after which nothing starts it again");
    assert_eq!(site.sh("docker exec exact-live-1 sh -c 'wc -l </tmp/hups'"), "1", "SIGHUP, once");
    site.secret("token", "second-token");
    step("a secret", &text, &["app", "db"]);
    assert_eq!(site.sh("docker exec exact-app-1 cat /run/secrets/token"), "second-token");
    site.project.write("playbooks/files/seccomp.json", &SECCOMP.replace("acct", "swapon"));
    step("a seccomp profile", &text, &["db"]);
    assert_eq!(site.apply(), (0, 3));
    site.healthy("exact", 4);
    assert!(!site.sh("journalctl -b --no-pager 2>/dev/null | grep -c second-token || :").starts_with(|c: char| ('1'..='9').contains(&c)));
}

const FRAIL: &str = r#"compose_stack:
  name: frail
  pull: never
  health: {timeout: 15s}
  compose:
    services:
      web: {image: "frail-web:1", user: "1000", environment: {VERSION: "1", FAIL: "0"}, volumes: ["data:/data"]}
      side: {image: "frail-web:1", user: "1000", environment: {SIDE: "1"}}
    volumes: {data: {}}
  images:
    "frail-web:1": {stand_in: {listen: [8080], user: 1000, writes: [/data]}}
"#;

#[test]
fn releases_go_back_by_themselves_and_by_hand() {
    let Some(site) = Site::new() else { return };
    site.write(FRAIL);
    site.apply();
    let first = site.current("frail");
    site.sh("docker exec frail-web-1 sh -c 'echo precious >/data/file'");
    let before = site.containers("frail");

    // Never healthy: back by itself, nothing else touched, and why is said.
    site.write(&FRAIL.replace("FAIL: \"0\"", "FAIL: \"1\""));
    let bad = site.run(&["apply", "p.yml"]);
    assert_eq!(bad.code, 2, "{}", bad.all());
    for part in ["service `web` of release", "did not get healthy", "health check: exit 1 \"FAIL=1", "is back and healthy"] {
        assert!(bad.stderr.contains(part) && bad.stdout.contains(part), "{part}: {}", bad.all());
    }
    assert_eq!(site.current("frail"), first);
    assert_eq!(site.containers("frail")["side-1"], before["side-1"]);
    assert_eq!(site.sh("docker exec frail-web-1 cat /data/file"), "precious");
    site.write(FRAIL);
    assert_eq!(site.apply().0, 0, "the old release is whole");

    // By hand: back, pinned, refused, and let in again.
    let second = FRAIL.replace("VERSION: \"1\"", "VERSION: \"2\"");
    site.write(&second);
    site.apply();
    for (words, part) in [(&["--to", "zz"][..], "no release `zz`"), (&["--to", ""], "no release ``")] {
        let refused = site.run(&[&["rollback", "p.yml", "--stack", "frail"], words].concat());
        assert_eq!(refused.code, 2, "{}", refused.all());
        assert!(refused.stderr.contains(part), "{}", refused.all());
    }
    let unknown = site.run(&["rollback", "p.yml", "--stack", "frial"]);
    assert_eq!(unknown.code, 1, "{}", unknown.all());
    assert!(unknown.stderr.contains("did you mean `frail`?"), "{}", unknown.stderr);
    site.run(&["rollback", "p.yml", "--stack", "frail"]).ok();
    assert_eq!(site.current("frail"), first);
    assert_eq!(site.sh("docker exec frail-web-1 sh -c 'echo $VERSION'"), "1");
    site.healthy("frail", 2);
    let listed = site.run(&["rollback", "p.yml", "--stack", "frail", "--list"]).ok();
    assert!(listed.stdout.contains("  current\n") && listed.stdout.contains("needs --retry-release"), "{}", listed.stdout);
    let refused = site.run(&["apply", "p.yml"]);
    assert_eq!(refused.code, 2, "{}", refused.all());
    assert!(refused.stderr.contains("was rolled back by") && refused.stderr.contains("p.yml:3"), "{}", refused.stderr);
    assert_eq!(site.current("frail"), first);
    site.run(&["apply", "p.yml", "--retry-release"]).ok();
    assert_eq!(site.sh("docker exec frail-web-1 sh -c 'echo $VERSION'"), "2");
    assert_eq!(site.apply().0, 0, "the pin is gone");
}

/// The second version of the data, which the first release cannot read.
const MIGRATE: &str = r#"  migrate: {id: m2, service: web, backup: "cp /data/file /data/file.before", run: "echo two >/data/file", verify: "grep two /data/file", RESTORE incompatible: true}
"#;

#[test]
fn a_release_comes_back_only_with_the_data_that_it_can_read() {
    let Some(site) = Site::new() else { return };
    site.write(FRAIL);
    site.apply();
    let first = site.current("frail");
    site.sh("docker exec frail-web-1 sh -c 'echo one >/data/file'");
    let second = FRAIL.replace("VERSION: \"1\"", "VERSION: \"2\"");
    site.write(&format!("{second}{}", MIGRATE.replace("RESTORE", "")));
    site.apply();
    assert_eq!(site.sh("docker exec frail-web-1 cat /data/file"), "two");
    let refused = site.run(&["rollback", "p.yml", "--stack", "frail"]);
    assert_eq!(refused.code, 2, "{}", refused.all());
    assert!(refused.stderr.contains("migration `m2` stands in between"), "{}", refused.stderr);
    assert_ne!(site.current("frail"), first, "nothing was touched");
    site.sh("rm /var/lib/soc-provision/stacks/frail/migrations/m2; docker exec frail-web-1 sh -c 'cp /data/file.before /data/file'");

    let second = format!("{second}{}", MIGRATE.replace("RESTORE", "restore: \"cp /data/file.before /data/file\","));
    site.write(&second);
    site.apply();
    assert_eq!(site.sh("docker exec frail-web-1 cat /data/file"), "two");
    // Both of these went through the migration: their data are the same, and stay.
    site.write(&second.replace("SIDE: \"1\"", "SIDE: \"2\""));
    site.apply();
    site.sh("docker exec frail-web-1 sh -c 'echo two and more >/data/file'");
    site.run(&["rollback", "p.yml", "--stack", "frail"]).ok();
    assert_eq!(site.sh("docker exec frail-web-1 cat /data/file"), "two and more");
    // The first release only with its backup.
    let to = first.trim_start_matches("releases/");
    site.run(&["rollback", "p.yml", "--stack", "frail", "--to", to]).ok();
    assert_eq!(site.sh("docker exec frail-web-1 cat /data/file"), "one");
    assert_eq!(site.sh("docker exec frail-web-1 sh -c 'echo $VERSION'"), "1");
    site.healthy("frail", 2);
}

#[test]
fn an_update_that_is_cut_off_is_finished_by_the_next_apply() {
    let Some(site) = Site::new() else { return };
    site.write(FRAIL);
    site.apply();
    for round in 0..series(1, 5) {
        for cut in ["controller", "connection", "docker", "host"] {
            let version = format!("{cut}{round}");
            site.write(
                &FRAIL
                    .replace("VERSION: \"1\"", &format!("VERSION: \"{version}\""))
                    .replace("SIDE: \"1\"", &format!("SIDE: \"{version}\"")),
            );
            let arguments = ["apply", "p.yml", "-i", &site.inventory, "-l", "h1"];
            let mut child = command(site.project.dir.path(), &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // In the middle: the release's files are there, the release is not current.
            let middle = "for i in $(seq 200); do ls -d /run/soc-provision/steps/*.run >/dev/null 2>&1 && exit 0; sleep 0.05; done; exit 1";
            site.sh(middle);
            std::thread::sleep(std::time::Duration::from_millis(u64::from(round) * 700 + 400));
            match cut {
                "controller" => child.kill().unwrap(),
                "connection" => drop(site.sh("pkill -KILL -f '^sshd-session: ops|^sshd: ops' || :")),
                "docker" => drop(site.sh("systemctl kill -s KILL docker; sleep 1; systemctl start docker")),
                _ => site.lab.power("h1", "reset"),
            }
            child.wait().unwrap();
            site.sh("for i in $(seq 100); do docker info >/dev/null 2>&1 && break; sleep 0.2; done");
            site.apply();
            site.healthy("frail", 2);
            assert_eq!(
                site.sh("docker exec frail-web-1 sh -c 'echo $VERSION'; docker exec frail-side-1 sh -c 'echo $SIDE'"),
                format!("{version}\n{version}")
            );
            assert_eq!(site.apply(), (0, 3), "{cut}");
        }
    }
}

/// A role that wants more than any lab has, and two stacks that cannot be.
const GREEDY: &str = "requires:\n  cpu: 400\n  memory: 9000G\n  disk: {/var/lib: 900T}\n  sysctl: {vm.max_map_count: 9999999999}\n  profile: huge\n  profiles:\n    huge: {cpus: 400, memory: 9000G, disk: 900T}\n    large: {cpus: 300, memory: 8000G, disk: 800T}\n    small: {cpus: 0.1, memory: 8M, disk: 1M}\n";
const IMPOSSIBLE: &str = r#"- hosts: h1
  roles: [greedy]
  tasks:
    - compose_stack:
        name: one
        pull: never
        compose:
          services:
            a: {image: "frail-web:1", user: "1000", ports: ["9100:8080", "22:8080"], platform: linux/s390x}
          networks: {default: {ipam: {config: [{subnet: 172.29.50.0/24}]}}}
    - compose_stack:
        name: two
        pull: never
        compose:
          services:
            a: {image: "nobody-has:1", user: "1000", ports: ["9100:8080"], volumes: ["/no/where:/x"], networks: [n]}
          networks: {n: {ipam: {config: [{subnet: 172.29.50.128/25}]}}}
"#;

#[test]
fn what_cannot_be_is_named_what_is_ill_is_explained_and_images_are_locked() {
    let Some(site) = Site::new() else { return };
    short_hosts_are_refused(&site);
    bad_stacks_are_located(&site);
    ill_stacks_are_explained(&site);
    images_are_locked(&site);
}

fn short_hosts_are_refused(site: &Site) {
    site.project.write("roles/greedy/meta/main.yml", GREEDY);
    site.project.write("roles/greedy/tasks/main.yml", "- file: {path: /root/touched, state: directory}\n");
    site.project.write("playbooks/p.yml", IMPOSSIBLE);
    let state = "ls -A /root; docker ps -aq; ls /var/lib/soc-provision/stacks 2>/dev/null; :";
    let before = site.sh(state);
    for verb in ["preflight", "plan", "apply"] {
        let run = site.run(&[verb, "p.yml"]);
        assert_eq!(run.code, 2, "{verb}: {}", run.all());
        for part in [
            "cpu: 400 needed, the host has",
            "memory: 8.8 TiB needed",
            " (profile `huge`; profile `small` fits)",
            "disk /: 900 TiB needed",
            "sysctl vm.max_map_count: at least 9999999999 needed",
            "(roles/greedy/meta/main.yml:2)",
            "(playbooks/p.yml:11): host port 9100/tcp of `two/a` is already published by `one/a`",
            "overlaps that of",
            "port 22/tcp of service `a` is taken by `sshd`",
            "is for linux/s390x",
            "`/no/where`, which `a` mounts",
            "`nobody-has:1` of service `a` is not on the host",
        ] {
            assert!(run.stderr.contains(part), "{verb}: {part}: {}", run.all());
        }
        assert_eq!(run.stdout.contains("SHORT"), verb == "preflight", "{}", run.stdout);
    }
    assert_eq!(site.sh(state), before, "nothing was touched");
}

fn bad_stacks_are_located(site: &Site) {
    for (wrong, part) in [
        ("memory: lots", "bad.yml:8:"),
        ("networks: [nowhere]", "network `nowhere` of service `a` is not declared"),
        ("environment: {X: \"${NOPE}\"}", "NOPE"),
        ("volumes: [\"nowhere:/x\"]", "volume `nowhere` of service `a` is not declared"),
    ] {
        let stack = if wrong.starts_with("memory") { format!("requires: {{{wrong}}}") } else { "requires: {}".to_owned() };
        let service = if wrong.starts_with("memory") { "" } else { wrong };
        site.project.write("playbooks/bad.yml", &format!("- hosts: h1\n  tasks:\n    - compose_stack:\n        name: bad\n        compose:\n          services:\n            a: {{image: \"x:1\", {service}}}\n        {stack}\n"));
        let run = site.run(&["preflight", "bad.yml"]);
        assert!(run.code == 1 || run.code == 2, "{wrong}: {}", run.all());
        assert!(run.stderr.contains(part) && run.stderr.contains("bad.yml:"), "{wrong}: {}", run.all());
    }
    site.project.write(
        "playbooks/templates/c.yml",
        "services:\n  a:\n    image: x:1\n    networks: [nowhere]\n    environment: {X: \"${NOPE}\"}\n",
    );
    site.project.write("playbooks/bad.yml", "- hosts: h1\n  tasks:\n    - compose_stack:\n        name: bad\n        template: c.yml\n");
    let run = site.run(&["preflight", "bad.yml"]);
    for part in ["`c.yml`, line 4 as rendered", "`c.yml`, line 5 as rendered", "bad.yml:5:"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.all());
    }
}

fn ill_stacks_are_explained(site: &Site) {
    // A stack that is ill in several ways, and what is said of it.
    site.write(FRAIL);
    site.apply();
    let fine = site.run(&["diagnose", "p.yml", "--stack", "frail"]).ok();
    assert!(fine.stdout.contains("nothing wrong"), "{}", fine.stdout);
    site.sh("docker stop -t 1 frail-side-1 >/dev/null; docker exec frail-web-1 touch /tmp/unhealthy; chown 0:0 /var/lib/docker/volumes/frail_data/_data; chmod 755 /var/lib/docker/volumes/frail_data/_data; for i in $(seq 90); do [ $(docker inspect -f '{{.State.Health.Status}}' frail-web-1) = unhealthy ] && break; sleep 0.5; done");
    for target in ["p.yml", "h1"] {
        let ill = site.run(&["diagnose", target]);
        assert_eq!(ill.code, 2, "{}", ill.all());
        for part in [
            "frail-side-1 exited",
            "wrong: ended, although it should run",
            "frail-web-1 running (unhealthy)",
            "/tmp/unhealthy exists",
            "cannot write /data",
        ] {
            assert!(ill.stdout.contains(part), "{target}: {part}: {}", ill.stdout);
        }
    }
    let typo = site.run(&["diagnose", "h1", "--stack", "frial"]);
    assert_eq!((typo.code, typo.stderr.contains("did you mean `frail`?")), (1, true), "{}", typo.all());
    // What a stop leaves behind is no healthy stack.
    assert_eq!(site.run(&["verify", "p.yml"]).code, 2);
    site.sh("docker exec frail-web-1 rm /tmp/unhealthy; chmod 777 /var/lib/docker/volumes/frail_data/_data");
    site.apply();
}

fn images_are_locked(site: &Site) {
    // Images: the gate, the lock, and a host that has another image under the name.
    let settings = |severity: &str| {
        format!(
            "images:\n  lock: required\n  allow: [\"frail-*\"]\n  gate: {{command: 'printf \"%s\" \"$SARIF\"; cat gate.sarif', severity: {severity}}}\n"
        )
    };
    site.project.write(
        "gate.sarif",
        r#"{"runs": [{"tool": {"driver": {}}, "results": [{"ruleId": "CVE-1", "level": "error", "message": {"text": "a hole"}}]}]}"#,
    );
    site.project.write("soc-provision.yml", &settings("high").replace("lock: required", "lock: optional"));
    let refused = site.run(&["images", "lock", "p.yml"]);
    assert_eq!(refused.code, 2, "{}", refused.all());
    assert!(refused.stderr.contains("CVE-1: a hole") && !site.project.dir.path().join("images.lock").exists(), "{}", refused.all());
    site.project.write("soc-provision.yml", &settings("critical").replace("lock: required", "lock: optional"));
    site.run(&["images", "lock", "p.yml"]).ok();
    assert!(site.project.dir.path().join("reports/images/frail-web_1.sarif").exists());
    site.project.write("soc-provision.yml", &settings("critical"));
    assert_eq!(site.apply().0, 0);
    site.run(&["images", "lock", "p.yml", "--check"]).ok();
    site.write(&FRAIL.replace("writes: [/data]", "writes: [/data], health: \"true other\""));
    let other = site.run(&["apply", "p.yml"]);
    assert_eq!(other.code, 2, "{}", other.all());
    assert!(other.stderr.contains("images.lock:"), "{}", other.stderr);
    assert_eq!(site.run(&["images", "lock", "p.yml", "--check"]).code, 3);
    images_in_archives_are_locked(site);
    site.write(&FRAIL.replace("frail-web:1", "evil-web:1"));
    let evil = site.run(&["plan", "p.yml"]);
    assert!(evil.code != 0 && evil.stderr.contains("allow-list (soc-provision.yml:3)"), "{}", evil.all());
}

/// An image in an archive is locked before any host has it, looked at there by the gate, and refused
/// once the archive is another.
fn images_in_archives_are_locked(site: &Site) {
    let dir = site.project.dir.path();
    std::fs::create_dir_all(dir.join("playbooks/files")).unwrap();
    let save = |words: &str| {
        site.sh(&format!("printf 'FROM frail-web:1\\nLABEL is=\"{words}\"\\n' | docker build -q -t frail-boxed:1 - >/dev/null && docker save frail-boxed:1 | gzip >/root/boxed.tgz && docker image rm frail-boxed:1 >/dev/null"));
        let out = site.lab.ssh("h1", "root", "cat /root/boxed.tgz");
        std::fs::write(dir.join("playbooks/files/boxed.tgz"), out.stdout).unwrap();
    };
    let gate = |archive: &str| {
        format!(
            "images:\n  lock: required\n  allow: [\"frail-*\"]\n  gate: {{command: 'case $ARCHIVE in {archive}) cat gate.sarif ;; *) exit 1 ;; esac', severity: critical}}\n"
        )
    };
    site.write("compose_stack:\n  name: boxed\n  pull: never\n  compose:\n    services:\n      web: {image: \"frail-boxed:1\", user: \"1000\"}\n  images:\n    \"frail-boxed:1\": {archive: boxed.tgz}\n");
    save("first");
    // Unlocked it is an error; the gate sees the archive; then the lock says what is in it.
    let unlocked = site.run(&["apply", "p.yml"]);
    assert!(unlocked.code != 0 && unlocked.stderr.contains("images.lock"), "{}", unlocked.all());
    site.project.write("soc-provision.yml", &gate("/nowhere").replace("lock: required", "lock: optional"));
    assert_eq!(site.run(&["images", "lock", "p.yml"]).code, 2);
    site.project.write("soc-provision.yml", &gate("*/boxed.tgz").replace("lock: required", "lock: optional"));
    let locked = site.run(&["images", "lock", "p.yml"]).ok();
    assert!(locked.stdout.contains("frail-boxed:1 sha256:"), "{}", locked.all());
    assert_eq!(site.sh("docker images -q frail-boxed"), "", "no host has it yet");
    site.project.write("soc-provision.yml", &gate("*/boxed.tgz"));
    site.run(&["images", "lock", "p.yml", "--check"]).ok();
    assert_eq!(site.apply().0, 1);
    assert_eq!(site.apply(), (0, 3));
    site.run(&["images", "lock", "p.yml", "--check"]).ok();
    // Somebody exchanges the archive.
    save("second");
    assert_eq!(site.run(&["images", "lock", "p.yml", "--check"]).code, 3);
    let exchanged = site.run(&["apply", "p.yml"]);
    assert!(exchanged.code == 2 && exchanged.stderr.contains("images.lock:"), "{}", exchanged.all());
    assert!(site.sh("docker inspect -f '{{.Config.Labels.is}}' boxed-web-1").contains("first"), "what ran runs on");
    site.sh("docker rm -f boxed-web-1 >/dev/null; rm /root/boxed.tgz");
}

/// A proxy that, as nginx does, asks the next container where one does not answer.
const PROXY: &str = "#!/bin/sh\\nwhile read -r l; do [ ${#l} -gt 1 ] || break; done\\nfor i in 1 2 3 4 5; do b=$(wget -q -T 2 -O - http://web:8080/) && break; done\\n[ -n \\\"$b\\\" ] && printf 'HTTP/1.1 200 OK\\\\r\\\\nContent-Length: 3\\\\r\\\\nConnection: close\\\\r\\\\n\\\\r\\\\nok\\\\n' || printf 'HTTP/1.1 502 Bad\\\\r\\\\nContent-Length: 0\\\\r\\\\nConnection: close\\\\r\\\\n\\\\r\\\\n'\\n";
const SCALED: &str = r#"compose_stack:
  name: scaled
  pull: never
  health: {timeout: 60s}
  scale: {web: 3}
  compose:
    services:
      web: {image: "frail-web:1", user: "1000", environment: {VERSION: "1"}}
      proxy: {image: "frail-web:1", user: "1000", ports: ["127.0.0.1:18090:8080"], volumes: ["./files/proxy:/proxy:ro"], entrypoint: ["/bin/nc", "-ll", "-p", "8080", "-e", "/proxy/proxy.sh"]}
  files:
    - {dest: proxy/proxy.sh, mode: "0755", content: "PROXY"}
  images:
    "frail-web:1": {stand_in: {listen: [8080], user: 1000}}
"#;

#[test]
fn a_scaled_service_is_replaced_without_a_failed_request_and_many_containers_cost_three_round_trips() {
    let Some(site) = Site::new() else { return };
    let stack = SCALED.replace("PROXY", PROXY);
    site.write(&stack);
    site.apply();
    site.sh("setsid sh -c 'touch /run/hammer; while [ -e /run/hammer ]; do if busybox wget -q -T 20 -O /dev/null http://127.0.0.1:18090/; then echo ok; else echo FAILED; fi; done >/run/hammered 2>/dev/null' >/dev/null 2>&1 </dev/null & sleep 1");
    let before = site.containers("scaled");
    site.write(&stack.replace("VERSION: \"1\"", "VERSION: \"2\""));
    site.apply();
    site.sh("rm /run/hammer; sleep 1");
    let after = site.containers("scaled");
    assert_eq!(after.len(), 4);
    assert_eq!(before.values().filter(|id| after.values().any(|other| other == *id)).count(), 1, "the proxy stays, the three go");
    let (asked, failed) = (site.sh("wc -l </run/hammered"), site.sh("grep -c FAILED /run/hammered || :"));
    assert!(asked.parse::<u32>().unwrap() > 30, "{asked} requests");
    assert_eq!(failed, "0", "of {asked} requests");

    let mut play = "- hosts: h1\n  tasks:\n".to_owned();
    for stack in 0..series(2, 6) {
        play.push_str(&format!(
            "    - compose_stack:\n        name: many{stack}\n        pull: never\n        compose:\n          services:\n"
        ));
        for service in 0..series(3, 7) {
            play.push_str(&format!("            s{service}: {{image: \"frail-web:1\", user: \"1000\"}}\n"));
        }
    }
    site.project.write("playbooks/p.yml", &play);
    site.apply();
    assert_eq!(site.apply(), (0, 3));
    let verify = site.run(&["verify", "p.yml"]).ok();
    assert!(verify.stdout.contains("slowest checks: "), "{}", verify.stdout);
}
