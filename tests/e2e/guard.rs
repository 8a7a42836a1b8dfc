//! No way to lock oneself out: whatever cuts the controller off is gone again within the window,
//! exit code 5, with the controller alive, killed, or the host rebooted inside the window.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Lab, Project, Run, command, soc};

/// A playbook that cuts its host off, and what its host must be like again afterwards.
struct Lockout {
    host: &'static str,
    playbook: &'static str,
    text: &'static str,
    /// What the message must name.
    hint: &'static str,
    /// Prints `fine` if nothing of the change is left.
    restored: &'static str,
}

const NO_TABLE: &str = "nft list tables | grep -q soc_provision || [ -e /etc/soc-provision/firewall.nft ] || echo fine";

const LOCKOUTS: [Lockout; 4] = [
    Lockout {
        host: "h1",
        playbook: "drop-ssh.yml",
        text: "- hosts: h1\n  tasks:\n    - package: {name: nftables}\n    - firewall: {ssh: {ports: [2222]}, guard_timeout: 12}\n",
        hint: "ssh.ports",
        restored: NO_TABLE,
    },
    Lockout {
        host: "h2",
        playbook: "wrong-source.yml",
        text: "- hosts: h2\n  tasks:\n    - package: {name: nftables}\n    - firewall: {ssh: {from: [\"192.0.2.0/24\"]}, guard_timeout: 12}\n",
        hint: "ssh.from",
        restored: NO_TABLE,
    },
    Lockout {
        host: "h3",
        playbook: "dead-port.yml",
        text: "- hosts: h3\n  tasks:\n    - sshd_config: {options: {Port: 2222}, guard_timeout: 12}\n",
        hint: "`Port`",
        restored: "[ -e /etc/ssh/sshd_config.d/10-soc-provision.conf ] || { sshd -T | grep -qx 'port 22' && ss -Hltn 'sport = 22' | grep -q . && echo fine; }",
    },
    Lockout {
        host: "h4",
        playbook: "no-sudo.yml",
        text: "- hosts: h4\n  tasks:\n    - sudoers: {name: zz-lockout, content: \"ops ALL=(ALL:ALL) PASSWD: ALL\", guard_timeout: 12}\n",
        hint: "become root",
        restored: "[ -e /etc/sudoers.d/zz-lockout ] || runuser -u ops -- sudo -n echo fine",
    },
];

const FINE: &str = "- hosts: lab\n  tasks:\n    - copy: {dest: /etc/fine, content: \"fine\\n\"}\n";
const GOOD_RULES: &str =
    "- hosts: h1\n  tasks:\n    - package: {name: nftables}\n    - firewall: {published: [{port: 8080}], guard_timeout: 30}\n";
const ALIAS: &str = "- hosts: h4\n  tasks:\n    - sudoers: {name: aa-one, content: \"User_Alias SOCX = ops\", guard_timeout: 40}\n";
/// Valid by itself and not with the file above: it fails inside the window.
const ALIAS_TWICE: &str = "- hosts: h4\n  tasks:\n    - sudoers: {name: bb-two, content: \"User_Alias SOCX = ops\", guard_timeout: 40}\n";

/// Starts an apply and returns once it is inside the window, waiting for its new login.
fn inside_the_window(project: &Project, arguments: &[&str]) -> Child {
    let mut child =
        command(project.dir.path(), arguments).args(["--format", "jsonl"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let entered = lines.by_ref().map_while(Result::ok).any(|line| line.contains("\"confirming "));
    assert!(entered, "{arguments:?} ended before its window: {:?}", child.wait());
    // Whatever else it prints is read, so that it never waits for us.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

/// Waits until the host lets us in again, and says that it put the old state back.
fn wait_restored(lab: &Lab, lockout: &Lockout) {
    let until = Instant::now() + Duration::from_secs(45);
    loop {
        let out =
            lab.ssh(lockout.host, "root", &format!("ls /var/lib/soc-provision/guard/*/reverted >/dev/null && {{ {}; }}", lockout.restored));
        if out.status.success() && out.stdout == b"fine\n" {
            return;
        }
        assert!(
            Instant::now() < until,
            "{} is not back: {}{}",
            lockout.playbook,
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn all_at_once(work: impl Fn(&Lockout) + Sync) {
    std::thread::scope(|scope| {
        for lockout in &LOCKOUTS {
            scope.spawn(|| work(lockout));
        }
    });
}

#[test]
fn nobody_is_locked_out() {
    let Some(lab) = Lab::containers(4, &[]) else { return };
    let mut files: Vec<(String, &str)> = LOCKOUTS.iter().map(|lockout| (format!("playbooks/{}", lockout.playbook), lockout.text)).collect();
    files.extend(
        [("fine.yml", FINE), ("rules.yml", GOOD_RULES), ("alias.yml", ALIAS), ("twice.yml", ALIAS_TWICE)]
            .map(|(name, text)| (format!("playbooks/{name}"), text)),
    );
    let project = Project::new(&files.iter().map(|(name, text)| (name.as_str(), *text)).collect::<Vec<_>>());
    let inventory = lab.inventory();
    let apply = |playbook: &'static str| ["apply", playbook, "-i", inventory.to_str().unwrap()];
    let run = |playbook: &'static str| -> Run { soc(project.dir.path(), &apply(playbook)) };
    // The controller waits for the host to revert, and says what to change.
    all_at_once(|lockout| {
        let locked = run(lockout.playbook);
        assert_eq!(locked.code, 5, "{}: {}", lockout.playbook, locked.all());
        assert!(
            locked.stderr.contains("reverted, since no new login came within 12 s")
                || locked.stdout.contains("reverted, since no new login came within 12 s"),
            "{}",
            locked.all()
        );
        assert!(locked.all().contains(lockout.hint), "{}", locked.all());
        wait_restored(&lab, lockout);
    });
    // Killed inside the window: the host is back by itself all the same, and its lock is free.
    all_at_once(|lockout| {
        let mut child = inside_the_window(&project, &apply(lockout.playbook));
        child.kill().unwrap();
        child.wait().unwrap();
        wait_restored(&lab, lockout);
    });
    run("fine.yml").ok();
    // Rebooted inside the window: the old state is what it boots with.
    all_at_once(|lockout| {
        let mut child = inside_the_window(&project, &apply(lockout.playbook));
        lab.power(lockout.host, "reset");
        assert_eq!(child.wait().unwrap().code(), Some(5), "{}", lockout.playbook);
        wait_restored(&lab, lockout);
    });
    // A step that fails inside the window is undone at once.
    run("alias.yml").ok();
    let before = Instant::now();
    let failed = run("twice.yml");
    assert_eq!(failed.code, 2, "{}", failed.all());
    assert!(failed.all().contains("the old state was put back"), "{}", failed.all());
    assert!(before.elapsed() < Duration::from_secs(30), "it waited for the timer");
    assert_eq!(lab.sh("h4", "test ! -e /etc/sudoers.d/bb-two && visudo -cq && echo fine"), "fine");
    // Good rules stay, and load before the network at the next boot.
    run("rules.yml").ok();
    let again = run("rules.yml").ok();
    assert!(again.stdout.contains("changed=0"), "{}", again.stdout);
    lab.power("h1", "reset");
    assert_ne!(lab.sh("h1", "nft list tables | grep -c soc_provision || :"), "0");
}

/// Kinds that know nothing of logins, each on a host of its own: the task, what was guarded, and what prints `fine`
/// once it is as before.
const ORDINARY: [(&str, &str, &str, &str); 6] = [
    (
        "h1",
        "copy: {dest: /etc/ssh/sshd_config.d/99-x.conf, content: \"Port 2222\\n\"}",
        "sshd's configuration",
        "[ -e /etc/ssh/sshd_config.d/99-x.conf ] || { sshd -T | grep -qx 'port 22' && echo fine; }",
    ),
    ("h2", "user: {name: ops, shell: /usr/sbin/nologin}", "the user `ops`", "getent passwd ops | grep -q ':/bin/bash$' && echo fine"),
    ("h3", "service: {name: ssh, state: stopped}", "the unit `ssh.service`", "systemctl is-active --quiet ssh && echo fine"),
    (
        "h4",
        "file: {path: /home/ops/.ssh/authorized_keys, state: absent}",
        "keys of `ops`",
        "[ \"$(stat -c %U /home/ops/.ssh/authorized_keys)\" = ops ] && echo fine",
    ),
    (
        "h5",
        "copy: {dest: /home/ops/.bashrc, content: \"exit 0\\n\", owner: ops}",
        "what the shell of `ops` reads",
        "! grep -qx 'exit 0' /home/ops/.bashrc && echo fine",
    ),
    ("h6", "directory: {path: /home, mode: '0700'}", "the directory `/home`", "[ \"$(stat -c %a /home)\" = 755 ] && echo fine"),
];

/// What is missed for good, or only at the next boot: refused, and nothing touched.
const REFUSED: [(&str, &str); 5] = [
    (
        "package: {name: openssh-server, state: absent}",
        "package[openssh-server] (playbooks/refused.yml:3): without `openssh-server` nobody can log in any more",
    ),
    // apt would take openssh-server with it.
    (
        "package: {name: openssh-sftp-server, state: absent}",
        "package[openssh-sftp-server] (playbooks/refused.yml:5): without `openssh-server` nobody can log in any more",
    ),
    ("service: {name: ssh, enabled: false}", "after the next boot"),
    ("user: {name: ops, state: absent}", "this run logs in as `ops`"),
    ("file: {path: /home/ops, state: absent}", "holds what a login needs"),
];

#[test]
fn ordinary_kinds_lock_nobody_out_either() {
    let Some(lab) = Lab::containers(7, &[]) else { return };
    let tasks = |tasks: &mut dyn Iterator<Item = (&str, &str)>| -> String {
        tasks.map(|(host, task)| format!("    - {task}\n      when: eq inventory_hostname \"{host}\"\n")).collect()
    };
    let cut = tasks(&mut ORDINARY.iter().map(|(host, task, ..)| (*host, *task)));
    let refused = tasks(&mut REFUSED.iter().map(|(task, _)| ("h1", *task)));
    // A change that keeps us in is confirmed, and stays.
    let good = "- hosts: h1\n  tasks:\n    - copy: {dest: /etc/ssh/sshd_config.d/99-x.conf, content: \"MaxAuthTries 5\\n\"}\n    - user: {name: ops, comment: Operator}\n";
    let project = Project::new(&[
        ("playbooks/cut.yml", &format!("- hosts: lab:!h7\n  tasks:\n{cut}")),
        ("playbooks/own.yml", "- hosts: h7\n  tasks:\n    - owned: {places: [sudoers]}\n"),
        ("playbooks/refused.yml", &format!("- hosts: lab\n  tasks:\n{refused}")),
        ("playbooks/good.yml", good),
        ("playbooks/fine.yml", FINE),
    ]);
    let inventory = lab.inventory();
    let run = |playbook: &str| soc(project.dir.path(), &["apply", playbook, "-i", inventory.to_str().unwrap(), "--format", "json"]);
    let before = lab.sh("h1", "dpkg -s openssh-server; getent passwd ops; systemctl is-enabled ssh");
    let said = run("refused.yml");
    assert_eq!(said.code, 2, "{}", said.all());
    for (task, why) in REFUSED {
        assert!(said.stdout.contains(why), "{task}: {}", said.all());
    }
    assert_eq!(lab.sh("h1", "dpkg -s openssh-server; getent passwd ops; systemctl is-enabled ssh"), before);
    // What nobody declared may be what lets us in: it goes under a guard too.
    let prune = || soc(project.dir.path(), &["drift", "own.yml", "-i", inventory.to_str().unwrap(), "--prune", "sudoers"]);
    let (locked, pruned) = std::thread::scope(|scope| {
        let pruned = scope.spawn(prune);
        (run("cut.yml"), pruned.join().unwrap())
    });
    assert_eq!(pruned.code, 5, "{}", pruned.all());
    assert!(pruned.stdout.contains("not removed: [h7] sudoers[/etc/sudoers.d/90-soc-lab]: sudo's rules: reverted"), "{}", pruned.all());
    assert_eq!(lab.sh("h7", "runuser -u ops -- sudo -n echo fine"), "fine");
    assert_eq!(locked.code, 5, "{}", locked.all());
    let document = locked.json();
    for (host, _, what, restored) in ORDINARY {
        let failure = &document["hosts"][host]["failure"];
        assert_eq!(failure["class"], "reverted", "{host}: {failure}");
        assert!(failure["message"].as_str().unwrap().starts_with(what), "{host}: {failure}");
        assert_eq!(lab.sh(host, restored), "fine", "{host}");
    }
    run("fine.yml").ok();
    run("good.yml").ok();
    assert_eq!(lab.sh("h1", "sshd -T | grep -x 'maxauthtries 5'; getent passwd ops | cut -d: -f5"), "maxauthtries 5\nOperator");
    assert_eq!(crate::harness::recap(&run("good.yml").ok().json(), "h1", "changed"), 0);
}

const DOCKER: &str = "- hosts: h1\n  tasks:\n    - docker_engine: {daemon: {log-level: warn}}\n";
/// dockerd takes the key and the name for valid, and does not start.
const DEAD_DOCKER: &str = "- hosts: h1\n  tasks:\n    - docker_engine: {daemon: {log-level: warn, storage-driver: nonsense}}\n";
const UNKNOWN_KEY: &str = "- hosts: h1\n  tasks:\n    - docker_engine: {daemon: {log-level: warn}, extra: {audit-log: true}}\n";

#[test]
fn a_daemon_that_does_not_start_gets_its_old_configuration_back() {
    let Some(lab) = Lab::containers(1, &["--docker"]) else { return };
    let project =
        Project::new(&[("playbooks/docker.yml", DOCKER), ("playbooks/dead.yml", DEAD_DOCKER), ("playbooks/key.yml", UNKNOWN_KEY)]);
    let inventory = lab.inventory();
    let run = |playbook: &str| soc(project.dir.path(), &["apply", playbook, "-i", inventory.to_str().unwrap()]);
    run("docker.yml").ok();
    let state = || lab.sh("h1", "sha256sum /etc/docker/daemon.json; docker info -f '{{.LiveRestoreEnabled}}'; ls -A /etc/docker");
    let before = state();
    let dead = run("dead.yml");
    assert_eq!(dead.code, 2, "{}", dead.all());
    assert!(dead.all().contains("the previous state was put back") && dead.all().contains("nonsense"), "{}", dead.all());
    assert_eq!(state(), before);
    let started = lab.sh("h1", "systemctl show -p ActiveEnterTimestampMonotonic docker.service");
    let unknown = run("key.yml");
    assert_eq!(unknown.code, 2, "{}", unknown.all());
    assert!(unknown.all().contains("audit-log"), "{}", unknown.all());
    assert_eq!(state(), before);
    assert_eq!(
        lab.sh("h1", "systemctl show -p ActiveEnterTimestampMonotonic docker.service"),
        started,
        "the daemon was restarted for nothing"
    );
    assert!(run("docker.yml").ok().stdout.contains("changed=0"));
}
