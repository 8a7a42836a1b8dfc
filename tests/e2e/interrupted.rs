//! Runs that do not come to their end: a controller that is killed, a connection that dies, a user
//! who has seen enough, somebody else's dpkg. The next run finishes, and the host is as if nothing
//! had happened.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::fingerprint;
use crate::harness::{Lab, Project, command, recap, series, soc};

/// Of everything that a bare host gets: packages, accounts, files, units, settings, handlers.
const COLD: &str = r##"- hosts: lab
  vars:
    names: [a, b, c, d, e, f, g, h, i, j, k, l]
  tasks:
    - package: {name: [tree, jq, cron]}
    - group: {name: cold, gid: 3100}
    - user: {name: cold, uid: 3100, group: cold, comment: Cold start, shell: /bin/sh}
    - directory: {path: /etc/cold, owner: cold, group: cold, mode: "0750"}
    - copy: {dest: "/etc/cold/{{item}}.conf", content: "# {{item}}\n", mode: "0640", group: cold}
      loop: "{{names}}"
      notify: cold again
    - lineinfile: {path: /etc/cold/level, line: "level = 3", create: true}
      notify: cold again
    - copy: {dest: /usr/local/bin/cold, mode: "0755", content: "#!/bin/sh\nexec sleep infinity\n"}
    - systemd_unit:
        name: cold
        content: |
          [Unit]
          Description=Cold start
          [Service]
          User=cold
          ExecStart=/usr/local/bin/cold
          [Install]
          WantedBy=multi-user.target
        enabled: true
        state: started
    - sysctl: {name: net.ipv4.conf.all.log_martians, value: 1}
    - cron: {name: cold, minute: "15", hour: "3", job: "true"}
    - copy: {dest: "/srv/{{item}}", content: "{{item}}\n"}
      loop: "{{names}}"
  handlers:
    - name: cold again
      service: {name: cold, state: restarted}
"##;

/// A project with a playbook, and a lab.
struct Stage {
    lab: Lab,
    project: Project,
}

impl Stage {
    fn new(hosts: u32, playbook: &str) -> Option<Self> {
        let lab = Lab::containers(hosts, &[])?;
        Some(Self { lab, project: Project::new(&[("playbooks/p.yml", playbook)]) })
    }

    fn arguments(&self, host: &str) -> Vec<String> {
        let inventory = self.lab.inventory().display().to_string();
        ["apply", "p.yml", "-i", &inventory, "-l", host, "--format", "json"].map(str::to_owned).to_vec()
    }

    fn apply(&self, host: &str) -> crate::harness::Run {
        let arguments = self.arguments(host);
        soc(self.project.dir.path(), &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn start(&self, host: &str) -> Child {
        let arguments = self.arguments(host);
        let mut run = command(self.project.dir.path(), &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn fingerprint(&self, host: &str) -> fingerprint::Fingerprint {
        fingerprint::take(|script| self.lab.feed(host, script))
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Numbers that look random and are the same in every run of the tests.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

#[test]
fn a_controller_killed_at_any_moment_of_a_cold_apply_leaves_no_trace() {
    let Some(stage) = Stage::new(4, COLD) else { return };
    let started = Instant::now();
    stage.apply("h1").ok();
    let whole = started.elapsed();
    let reference = stage.fingerprint("h1");
    let mut next = random(0x5eed);
    let rounds = series(3, 20);
    for round in (0..rounds).step_by(3) {
        let hosts = &["h2", "h3", "h4"][..usize::try_from(rounds - round).unwrap().min(3)];
        if round > 0 {
            hosts.iter().for_each(|host| stage.lab.reset(host));
        }
        std::thread::scope(|scope| {
            for host in hosts {
                let moment = Duration::from_millis(200 + next() % u64::try_from(whole.as_millis()).unwrap());
                let (stage, reference) = (&stage, &reference);
                scope.spawn(move || killed_after(stage, host, moment, reference));
            }
        });
    }
    assert_eq!(recap(&stage.apply("h2").ok().json(), "h2", "changed"), 0);
    the_fingerprint_detects(&stage, &reference);
    dies_inside_dpkg(&stage, &reference);
}

/// Kills the controller of a cold apply at this moment; the next apply makes the host as any other.
fn killed_after(stage: &Stage, host: &str, moment: Duration, reference: &fingerprint::Fingerprint) {
    let child = stage.start(host);
    std::thread::sleep(moment);
    kill(child);
    // What still runs on the host by itself (apt) is waited for, never doubled.
    let finished = stage.apply(host).ok();
    let differences = fingerprint::differences(reference, &stage.fingerprint(host));
    assert!(differences.is_empty(), "{host}, killed after {moment:?}: {differences:#?}");
    eprintln!("{host}: killed after {moment:?}; the next run changed {}", recap(&finished.json(), host, "changed"));
}

/// The control: each kind of difference is seen, and nothing else.
fn the_fingerprint_detects(stage: &Stage, reference: &fingerprint::Fingerprint) {
    for (spoil, mend, place) in [
        ("chmod 600 /etc/cold/b.conf", "chmod 640 /etc/cold/b.conf", "file /etc/cold/b.conf"),
        ("chown root:root /etc/cold/b.conf", "chown root:cold /etc/cold/b.conf", "file /etc/cold/b.conf"),
        ("printf x >/srv/a; printf 'x\\n' >/srv/a", "printf 'a\\n' >/srv/a", "content /srv/a"),
        ("touch /etc/cold/new", "rm /etc/cold/new", "file /etc/cold/new"),
        ("dpkg --remove tree", "apt-get -y -q install tree", "package tree:amd64"),
        ("usermod -s /bin/bash cold", "usermod -s /bin/sh cold", "user cold"),
        ("systemctl disable cold", "systemctl enable cold", "enabled cold.service"),
        ("systemctl stop cold", "systemctl start cold", "unit cold.service"),
        (
            "sysctl -w net.ipv4.conf.all.log_martians=0",
            "sysctl -w net.ipv4.conf.all.log_martians=1",
            "sysctl net.ipv4.conf.all.log_martians",
        ),
        ("nft add table inet odd", "nft delete table inet odd", "nft inet odd"),
    ] {
        stage.lab.sh("h2", spoil);
        let seen = fingerprint::differences(reference, &stage.fingerprint("h2"));
        assert!(seen.iter().any(|line| line.starts_with(place)), "`{spoil}` is not seen: {seen:?}");
        stage.lab.sh("h2", mend);
    }
}

/// Inside dpkg: a connection that dies is made again by the same run, which picks the step up; a
/// controller that is killed is another matter, and the next run waits for what it left.
fn dies_inside_dpkg(stage: &Stage, reference: &fingerprint::Fingerprint) {
    // However fast the machine is, dpkg takes long enough to be met at work.
    let slow = "/etc/dpkg/dpkg.cfg.d/slow";
    let slow_down = format!("echo 'post-invoke=\"sleep 4\"' >{slow}");
    stage.lab.reset("h2");
    stage.lab.sh("h2", &slow_down);
    let child = stage.start("h2");
    stage.lab.until("h2", "pgrep -x dpkg");
    // Our own session on the host, not the lab's: the one whose shell the steps follow.
    stage.lab.sh("h2", CUT);
    let out = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(0), "{said}");
    stage.lab.sh("h2", &format!("rm {slow}"));
    let differences = fingerprint::differences(reference, &stage.fingerprint("h2"));
    assert!(differences.is_empty(), "{differences:#?}");
    stage.lab.reset("h2");
    stage.lab.sh("h2", &slow_down);
    let child = stage.start("h2");
    stage.lab.until("h2", "pgrep -x dpkg");
    kill(child);
    let next = stage.apply("h2").ok();
    assert!(next.stderr.contains("waiting for"), "{}", next.stderr);
    stage.lab.sh("h2", &format!("rm {slow}"));
    let differences = fingerprint::differences(reference, &stage.fingerprint("h2"));
    assert!(differences.is_empty(), "{differences:#?}");
}

/// Commands whose effect nothing can observe, and handlers owed for them.
const ONCE: &str = "- hosts: lab
  tasks:
    - command: echo before >>/root/log
    - command: {cmd: \"echo began >>/root/log; sleep 6; echo ended >>/root/log; exit 0\"}
      notify: told
    - command: {cmd: \"echo mine >>/var/tmp/mine\", user: nobody}
    - command: echo after >>/root/log
  handlers:
    - name: told
      command: echo told >>/root/log
";

/// The connection of our own session dies: not the lab's.
const CUT: &str = "for p in $(pgrep -f '[s]shd.*ops'); do kill -KILL $p; done; true";

#[test]
fn a_command_is_never_run_twice_because_a_connection_died() {
    let Some(stage) = Stage::new(1, ONCE) else { return };
    let cut = |at: &str| {
        let child = stage.start("h1");
        stage.lab.until("h1", "pgrep -fx 'sleep 6'");
        stage.lab.sh("h1", at);
        let out = child.wait_with_output().unwrap();
        (out.status.code(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
    };
    let log = || stage.lab.sh("h1", "cat /root/log /var/tmp/mine | xargs; rm -f /root/log /var/tmp/mine");
    let (code, said) = cut(CUT);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(log(), "before began ended after told mine", "each once, what was behind the cut included");
    assert_eq!(stage.lab.sh("h1", "ls /run/soc-provision/steps"), "");
    // The shell dies with the connection, so that nobody saw the end.
    let (code, said) = cut(&format!("pkill -KILL -f '[b]egan >>/root/log'; pkill -KILL -x sh; {CUT}"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("whether it was done is not known") && said.contains("unless"), "{said}");
    assert_eq!(stage.lab.sh("h1", "pkill -fx 'sleep 6' || :; cat /root/log | xargs; rm -f /root/log"), "before began");
    // A failure behind the cut is one, and what stood behind it is not begun.
    stage.project.write("playbooks/p.yml", &ONCE.replace("exit 0", "exit 3"));
    let (code, said) = cut(CUT);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("failed with status 3; what it printed was lost with the connection"), "{said}");
    assert_eq!(stage.lab.sh("h1", "cat /root/log | xargs"), "before began ended");
}

const SLOW: &str = "- hosts: lab
  tasks:
    - command: sleep 9; touch /root/first
    - command: touch /root/second
      notify: later
    - copy: {dest: /root/third, content: \"x\\n\"}
  handlers:
    - name: later
      command: touch /root/handled
";

/// Presses Ctrl-C this often, the first time during the first step.
fn interrupted(stage: &Stage, host: &str, times: u32) -> (i32, String, Duration) {
    let child = stage.start(host);
    stage.lab.until(host, "pgrep -fx 'sleep 9'");
    let pressed = Instant::now();
    for _ in 0..times {
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    let out = child.wait_with_output().unwrap();
    (
        out.status.code().unwrap(),
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)),
        pressed.elapsed(),
    )
}

#[test]
fn ctrl_c_once_finishes_the_step_and_twice_stops_at_once() {
    let Some(stage) = Stage::new(1, SLOW) else { return };
    let there = "ls /root | grep -E 'first|second|third|handled' | xargs";
    let (code, said, _) = interrupted(&stage, "h1", 1);
    assert_eq!(code, 99, "{said}");
    assert!(said.contains("finishing the step under way") && said.contains("interrupted"), "{said}");
    assert_eq!(stage.lab.sh("h1", there), "first", "the step under way is finished, and nothing after it is begun");
    stage.apply("h1").ok();
    assert_eq!(stage.lab.sh("h1", there), "first handled second third");
    stage.lab.sh("h1", "rm -f /root/first /root/second /root/third /root/handled");
    let (code, said, spent) = interrupted(&stage, "h1", 2);
    assert_eq!(code, 99, "{said}");
    assert!(said.contains("stopping at once"), "{said}");
    assert!(spent < Duration::from_secs(8), "{spent:?}");
    std::thread::sleep(Duration::from_secs(9));
    assert_eq!(stage.lab.sh("h1", there), "", "it was killed");
    stage.apply("h1").ok();
    assert_eq!(stage.lab.sh("h1", there), "first handled second third");
    somebody_elses_dpkg_is_waited_for_and_named(&stage);
}

fn somebody_elses_dpkg_is_waited_for_and_named(stage: &Stage) {
    stage.project.write("playbooks/p.yml", "- hosts: lab\n  tasks:\n    - package: {name: tree}\n");
    stage.lab.sh(
        "h1",
        "(setsid perl -e 'use Fcntl; open(F, \">>/var/lib/dpkg/lock-frontend\"); $l = pack(\"s s l! l! i\", F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $l) or die; $0 = \"unattended-upgr\"; sleep 12' >/dev/null 2>&1 &)",
    );
    let started = Instant::now();
    let run = stage.apply("h1").ok();
    assert!(started.elapsed() > Duration::from_secs(8), "it did not wait: {}", run.all());
    assert!(
        run.stderr.contains("waiting for the package lock, held by process") && run.stderr.contains("(unattended-upgr)"),
        "{}",
        run.stderr
    );
    assert_eq!(stage.lab.sh("h1", "command -v tree"), "/usr/bin/tree");
}
