//! Every kind that can be taken away again is: as if it had never been there.

use crate::harness::{Lab, Project, recap, soc};

/// Each kind: its arguments, and what is added for its absence (instead of the first, if it begins with `=`).
const KINDS: &[(&str, &str, &str)] = &[
    ("group", "name: absentees, gid: 4242", "=name: absentees"),
    ("user", "name: absentee, uid: 4243, shell: /bin/sh", "=name: absentee"),
    ("authorized_key", "user: ops, key: \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGlJ2F6pR5T0gPQkF0GsYvPY0rDdXrm8RLTl1hk3Yz5f absent\"", ""),
    ("directory", "path: /etc/absent, mode: \"0750\"", "=path: /etc/absent"),
    ("copy", "dest: /etc/absent-copy, content: \"x\\n\"", ""),
    ("template", "src: t, dest: /etc/absent-template", ""),
    ("file", "path: /etc/absent-link, src: /etc/hostname, state: link", "=path: /etc/absent-link"),
    ("lineinfile", "path: /etc/hosts, line: \"192.0.2.9 absent\"", ""),
    ("cron", "name: absent, job: \"true\", minute: \"5\"", "=name: absent"),
    ("package", "name: tree", ""),
    ("sudoers", "name: absent, content: \"ops ALL=(ALL) NOPASSWD: /bin/true\\n\"", "=name: absent"),
    ("sysctl", "name: net.ipv4.conf.all.log_martians, value: \"1\"", "=name: net.ipv4.conf.all.log_martians"),
    ("systemd_unit", "name: absent, content: \"[Service]\\nExecStart=/bin/sleep infinity\\n\"", "=name: absent"),
    ("timer", "name: absent-timer, command: /bin/true, on_calendar: daily", "=name: absent-timer"),
    ("seccomp_profile", "name: absent, src: s.json", "=name: absent"),
];

fn play(state: bool) -> String {
    let mut out = String::from("- hosts: h1\n  roles: [r]\n");
    let mut tasks = String::new();
    for (kind, arguments, away) in KINDS {
        let line = match (state, away.strip_prefix('=')) {
            (true, _) => (*arguments).to_owned(),
            (false, Some(instead)) => format!("{instead}, state: absent"),
            (false, None) => format!("{arguments}{away}, state: absent"),
        };
        tasks.push_str(&format!("- {kind}: {{{line}}}\n"));
    }
    if !state {
        out = out.replace("[r]", "[gone]");
    }
    out + "#TASKS\n" + &tasks
}

/// What of these kinds is on a host, but a setting's value at run time, which stays until the next boot.
const LOOK: &str = "{ getent passwd; getent group; cat /home/ops/.ssh/authorized_keys /etc/hosts; ls -A /etc /etc/cron.d /etc/sudoers.d /etc/systemd/system /etc/sysctl.d /etc/seccomp /etc/soc-provision/seccomp 2>/dev/null; crontab -l 2>/dev/null; systemctl list-timers --all --no-legend | grep -c absent; dpkg -l tree 2>/dev/null | grep -c ^ii; } | grep -v -e soc-provision -e '^$'";

#[test]
fn what_is_absent_leaves_nothing_behind() {
    let Some(lab) = Lab::containers(1, &[]) else { return };
    let project = Project::new(&[("roles/r/templates/t", "x\n"), ("roles/r/files/s.json", include_str!("drift/project/files/web.json"))]);
    let dir = project.dir.path();
    for (name, state) in [("r", true), ("gone", false)] {
        let play = play(state);
        let (play, tasks) = play.split_once("#TASKS\n").unwrap();
        project.write(&format!("roles/{name}/tasks/main.yml"), tasks);
        project.write(&format!("playbooks/{name}.yml"), play);
    }
    let inventory = lab.inventory().display().to_string();
    let run = |book: &str| soc(dir, &["apply", book, "-i", &inventory, "--format", "json"]).ok().json();
    lab.sh("h1", "mkdir -p /home/ops/.ssh /etc/cron.d; : >/etc/cron.d/kept");
    let before = lab.sh("h1", LOOK);
    let count = u64::try_from(KINDS.len()).unwrap();
    let absent_before = run("gone.yml");
    assert_eq!(recap(&absent_before, "h1", "changed"), 0, "{absent_before:#}");
    assert_eq!(recap(&run("r.yml"), "h1", "changed"), count);
    assert_ne!(lab.sh("h1", LOOK), before);
    let gone = run("gone.yml");
    assert_eq!(recap(&gone, "h1", "changed"), count, "{gone:#}");
    assert_eq!(recap(&run("gone.yml"), "h1", "changed"), 0);
    assert_eq!(lab.sh("h1", LOOK), before);
}

/// The same of what needs Docker, secrets or a guard, as tasks; `#` before what is there, `--`
/// before what takes it away. A container has neither AppArmor nor audit: those are in `tests/vm`.
const TASKS: &str = "
--- repository: {name: absent, state: absent}
#- secret: {name: token, path: /etc/absent-secret}
--- secret: {name: token, path: /etc/absent-secret, state: absent}
#- secret: {name: token, at_rest: encrypted}
--- secret: {name: token, at_rest: encrypted, state: absent}
#- tls_certificate: {name: absent, names: [absent.example], directory: /etc/absent-tls}
--- tls_certificate: {name: absent, names: [absent.example], directory: /etc/absent-tls, state: absent}
#- sshd_config: {options: {MaxAuthTries: 3}}
--- sshd_config: {state: absent}
#- firewall: {published: [{port: 18080}]}
--- firewall: {state: absent}
#- docker_engine: {daemon: {default-ulimits: {nofile: {Name: nofile, Soft: 20000, Hard: 20000}}}}
#- docker_network: absent-net
#- docker_volume: absent-vol
#- docker_image: {name: 'absent:1', stand_in: {listen: [8080], user: 1000}}
#- compose_stack: {name: absent, pull: never, hardening: 'off', compose: {services: {web: {image: 'absent:1', user: '1000', restart: always, volumes: ['data:/data']}}, volumes: {data: {}}}}
#- repository: {name: absent, uris: 'http://127.0.0.1:9', suites: x, components: main, signed_by: key.asc, fingerprint: 2542 5FD9 40ED E3D5 42EB 8894 BAF6 241C D56D 828C}
--- compose_stack: {name: absent, state: absent, wipe_data: true}
--- docker_image: {name: 'absent:1', state: absent}
--- docker_volume: {name: absent-vol, state: absent, wipe_data: true}
--- docker_network: {name: absent-net, state: absent}
--- docker_engine: {state: absent}
";

/// What of these is on a host. Docker's data and what its packages leave is not the tool's.
const LOOK_WITH_DOCKER: &str = "{ find /etc/apt/sources.list.d /etc/apt/keyrings /etc/ssh/sshd_config.d /etc/systemd/system /run/soc-secrets /etc/credstore.encrypted /etc/soc-provision /etc/absent-tls /var/lib/soc-provision/stacks /etc/docker/daemon.json ! -type d 2>/dev/null | grep -v soc-provision-guard | sort; find /etc -name '*absent*' ! -type d; sshd -T | grep -i maxauthtries; nft list tables | grep soc_; mount | grep soc-secrets; ls -A /var/lib/docker/volumes | grep absent; :; }";

#[test]
fn with_docker_secrets_and_guards_too() {
    let Some(lab) = Lab::containers(1, &["--docker"]) else { return };
    let project = Project::new(&[("files/key.asc", include_str!("../../src/resource/testdata/example.asc"))]);
    let (dir, inventory) = (project.dir.path(), lab.inventory().display().to_string());
    for words in [&["secrets", "keygen"][..], &["secrets", "init"], &["secrets", "set", "token", "--generate"], &["secrets", "ca"]] {
        soc(dir, words).ok();
    }
    for (book, mark) in [("there", "#"), ("gone", "--")] {
        let tasks: Vec<String> = TASKS.lines().filter_map(|line| Some(format!("    {}\n", line.strip_prefix(mark)?))).collect();
        project.write(&format!("playbooks/{book}.yml"), &format!("- hosts: h1\n  tasks:\n{}", tasks.concat()));
    }
    let run = |book: &str| soc(dir, &["apply", &format!("{book}.yml"), "-i", &inventory, "--format", "json"]);
    let changed = |book: &str| recap(&run(book).ok().json(), "h1", "changed");
    // Docker came with the lab; the comparison begins where all of it is gone.
    changed("gone");
    assert_eq!(changed("gone"), 0);
    let before = lab.sh("h1", LOOK_WITH_DOCKER);
    assert!(changed("there") > 8);
    assert_eq!(changed("there"), 0);
    assert_ne!(lab.sh("h1", LOOK_WITH_DOCKER), before);
    // A container of nobody's keeps Docker where it is; what is not in its way goes.
    lab.sh("h1", "docker tag absent:1 kept:1 && docker run -d --name stays kept:1");
    let refused = run("gone");
    assert!(refused.code != 0 && refused.all().contains("while it has containers (stays)"), "{}", refused.all());
    let of_docker = "docker network ls --format '{{.Name}}' | grep absent; docker volume ls -q | grep absent; docker ps -aq -f name=absent; docker images -q absent; :";
    assert_eq!(lab.sh("h1", of_docker), "");
    lab.sh("h1", "docker rm -f stays && docker rmi kept:1");
    changed("gone");
    assert_eq!(changed("gone"), 0);
    assert_eq!(lab.sh("h1", LOOK_WITH_DOCKER), before);
    assert_eq!(lab.sh("h1", "dpkg -l docker.io docker-compose 2>/dev/null | grep -c ^ii; systemctl is-active docker; :"), "0\ninactive");
}
