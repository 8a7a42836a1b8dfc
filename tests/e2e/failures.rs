//! A host that fails says why, in its class, within its time, and keeps nobody else from being
//! served. One lab of two wards: in each one host is ill and one is well.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Lab, Project, Run, recap, soc};

/// Two hosts of a lab, and a project of their own.
struct Ward<'a> {
    lab: &'a Lab,
    project: Project,
    ill: &'static str,
    well: &'static str,
}

impl<'a> Ward<'a> {
    fn new(lab: &'a Lab, ill: &'static str, well: &'static str) -> Self {
        Self { lab, project: Project::new(&[]), ill, well }
    }

    fn apply(&self, tasks: &str, more: &[&str]) -> Run {
        self.project.write("playbooks/p.yml", &format!("- hosts: lab\n  tasks:\n{tasks}\n{SERVED}"));
        let (inventory, limit) = (self.lab.inventory(), format!("{},{}", self.ill, self.well));
        let on = ["apply", "p.yml", "-i", inventory.to_str().unwrap(), "-l", &limit];
        soc(self.project.dir.path(), &[&on[..], more].concat())
    }

    /// The file of a host's variables.
    fn vars(&self, host: &str) -> String {
        format!("playbooks/host_vars/{host}.yml")
    }

    /// Code as root on the host that is ill.
    fn sh(&self, code: &str) -> String {
        self.lab.sh(self.ill, code)
    }

    /// A command that only the host that is ill runs.
    fn command(&self, code: &str) -> String {
        format!("    - command: \"{code}\"\n      when: eq inventory_hostname \"{}\"\n", self.ill)
    }

    /// Applies, and asserts that only the ill host failed, in this class, and that the other was served.
    fn fails(&self, tasks: &str, more: &[&str], class: &str) -> (Value, String) {
        let mark = format!("served-{}", std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos());
        let extra = format!("mark={mark}");
        let run = self.apply(tasks, &[&["--format", "json", "-e", &extra], more].concat());
        let exit = match class {
            "tcp" | "auth" | "dns" | "host_key" => 4,
            _ => 2,
        };
        assert_eq!(run.code, exit, "{}", run.all());
        let document = run.json();
        assert_eq!(document["exit"], exit);
        let failure = document["hosts"][self.ill]["failure"].clone();
        assert_eq!(failure["class"], class, "{failure}");
        assert!(document["hosts"][self.well]["failure"].is_null(), "{}", run.all());
        assert_eq!(self.lab.sh(self.well, "cat /root/served"), mark, "the other host was not served");
        let word = if exit == 4 { "unreachable" } else { "failed" };
        assert_eq!(recap(&document, self.ill, word), 1);
        (failure, run.stderr)
    }
}

/// What every healthy host gets.
const SERVED: &str = "    - copy: {dest: /root/served, content: \"{{default mark \\\"x\\\"}}\\n\"}\n";
const FILE: &str = "    - directory: {path: /mnt/small}\n    - copy: {dest: /mnt/small/a, content: \"{{text}}\\n\"}\n";

fn has(failure: &Value, parts: &[&str]) {
    let all = failure.to_string();
    for part in parts {
        assert!(all.contains(part), "`{part}` is not in {all}");
    }
}

#[test]
fn a_host_that_fails_says_why_and_keeps_nobody_else_from_being_served() {
    let Some(lab) = Lab::containers(4, &[]) else { return };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let ward = Ward::new(&lab, "h1", "h2");
            no_right_to_sudo_and_a_wrong_password(&ward);
            a_full_disk_loses_nothing(&ward);
            an_upload_that_has_no_room_fails_its_task(&ward);
            a_missing_tool_is_named_before_anything_is_touched(&ward);
        });
        scope.spawn(|| {
            let ward = Ward::new(&lab, "h3", "h4");
            output_is_bounded_and_harmless(&ward);
            a_variable_that_one_host_lacks_stops_that_host(&ward);
            a_task_ends_at_its_deadline(&ward);
            a_check_that_hangs_has_failed_in_its_time(&ward);
            a_host_that_falls_silent_midway_ends_in_time(&ward);
        });
    });
}

fn no_right_to_sudo_and_a_wrong_password(ward: &Ward<'_>) {
    ward.project.write(&ward.vars(ward.ill), "ansible_user: plain\n");
    has(&ward.fails("", &[], "sudo").0, &["`sudo` asks for a password, and none was given", "-K"]);
    ward.project.write("right", "lab-plain-pw\n");
    has(&ward.fails("", &["--become-password-file", "right"], "sudo").0, &["may not use `sudo`", "sudoers.d"]);
    ward.project.write(&ward.vars(ward.ill), "ansible_user: deploy\n");
    ward.project.write("wrong", "not-the-password\n");
    has(&ward.fails("", &["--become-password-file", "wrong"], "sudo").0, &["did not accept the password", "tried once only"]);
    ward.project.write(&ward.vars(ward.ill), "{}\n");
}

fn a_full_disk_loses_nothing(ward: &Ward<'_>) {
    ward.apply(FILE, &["-e", "text=old"]).ok();
    // Where a file goes.
    ward.sh("mount -t tmpfs -o size=64k tmpfs /mnt/small; echo precious >/mnt/small/a; head -c 50000 /dev/zero >/mnt/small/fill");
    let big = format!("{{\"text\": \"{}\"}}", "y".repeat(300_000));
    ward.project.write("big.json", &big);
    let failure = ward.fails(FILE, &["-e", "@big.json"], "disk_full").0;
    has(&failure, &["copy[/mnt/small/a]: the host's disk is full", "what was there before is still there"]);
    assert_eq!(ward.sh("cat /mnt/small/a; ls /mnt/small; umount /mnt/small"), "precious\na\nfill");
    // Where the host's memory lives: full from the start, then too full for the journal.
    ward.sh("mount -t tmpfs -o size=8k tmpfs /var/lib/soc-provision; head -c 8192 /dev/zero >/var/lib/soc-provision/fill");
    let failure = ward.fails(FILE, &["-e", "text=new"], "disk_full").0;
    has(&failure, &["cannot write /var/lib/soc-provision; nothing was touched"]);
    assert_eq!(ward.sh("cat /mnt/small/a"), "old");
    ward.sh("cd /var/lib/soc-provision; rm fill; : >lock.holder; head -c 4096 /dev/zero >fill");
    let failure = ward.fails(FILE, &["-e", "text=newer"], "disk_full").0;
    has(&failure, &["disk is full"]);
    assert_eq!(ward.sh("cat /mnt/small/a"), "old");
    ward.sh("mount -o remount,ro /var/lib/soc-provision");
    let failure = ward.fails(FILE, &["-e", "text=newer"], "step_failed").0;
    has(&failure, &["cannot write /var/lib/soc-provision; nothing was touched", "Read-only file system"]);
    // Room again, and the next run does it all.
    ward.sh("umount /var/lib/soc-provision");
    ward.apply(FILE, &["-e", "text=newest"]).ok();
    assert_eq!(ward.sh("cat /mnt/small/a"), "newest");
}

/// A file too large for its place is a task's failure like any other: told with its place, rescued, nothing half written.
fn an_upload_that_has_no_room_fails_its_task(ward: &Ward<'_>) {
    let bytes: Vec<u8> = (0..8_u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    std::fs::create_dir_all(ward.project.dir.path().join("playbooks/files")).unwrap();
    std::fs::write(ward.project.dir.path().join("playbooks/files/big.bin"), bytes).unwrap();
    ward.sh("mount -t tmpfs -o size=2m tmpfs /mnt/small; echo precious >/mnt/small/big");
    let copy = format!("copy: {{src: big.bin, dest: /mnt/small/big}}\n      when: eq inventory_hostname \"{}\"\n", ward.ill);
    let failure = ward.fails(&format!("    - {copy}"), &[], "disk_full").0;
    has(&failure, &["no space for", "8388608 bytes are needed"]);
    let run = ward.apply(&format!("    - {copy}"), &[]);
    assert!(run.all().contains("at playbooks/p.yml:3"), "{}", run.all());
    let rescued = format!(
        "    - block:\n        - {}      rescue:\n        - copy: {{dest: /mnt/small/rescued, content: saved}}\n",
        copy.replace("\n      when", "\n          when")
    );
    ward.apply(&rescued, &[]).ok();
    assert_eq!(ward.sh("cat /mnt/small/big /mnt/small/rescued; ls -A /mnt/small; umount /mnt/small"), "precious\nsavedbig\nrescued");
}

fn a_missing_tool_is_named_before_anything_is_touched(ward: &Ward<'_>) {
    ward.apply(FILE, &["-e", "text=old"]).ok();
    for tool in ["base64", "stat", "sha256sum", "flock", "mv"] {
        ward.sh(&format!("cp -a /usr/bin/{tool} /root/saved && rm /usr/bin/{tool}"));
        let failure = ward.fails(FILE, &["-e", &format!("text={tool}")], "missing_tool").0;
        has(&failure, &[&format!("the host has no `{tool}`"), "nothing was touched"]);
        ward.sh(&format!("cat /root/saved >/usr/bin/{tool}; chmod 755 /usr/bin/{tool}"));
        assert_eq!(ward.sh("cat /mnt/small/a"), "old");
    }
    // A command that the user names and the host does not have.
    let failure = ward.fails(&ward.command("frobnicate --now"), &[], "missing_tool").0;
    has(&failure, &["the host has no `frobnicate`"]);
}

fn output_is_bounded_and_harmless(ward: &Ward<'_>) {
    let flood = ward.command("head -c 100000000 /dev/zero | tr '\\\\0' x; echo the end; exit 4");
    let failure = ward.fails(&flood, &[], "step_failed").0;
    has(&failure, &["failed with status 4", "bytes left out", "the end"]);
    assert!(failure.to_string().len() < 8000, "{}", failure.to_string().len());
    let binary = ward.command("head -c 5000 /dev/urandom; head -c 700 /dev/urandom >&2; exit 5");
    let failure = ward.fails(&binary, &[], "step_failed").0;
    assert_eq!(failure["stdout"], "[5000 bytes that are no text]");
    assert_eq!(failure["stderr"], "[700 bytes that are no text]");
    // Titles, a cleared screen, C1 controls and turned text, in what a command says and in what a file holds.
    let hostile =
        ward.command("printf '\\\\033]0;owned\\\\007\\\\033[2J\\\\302\\\\23331m\\\\342\\\\200\\\\256x' | tee /dev/stderr; exit 3");
    let (failure, stderr) = ward.fails(&hostile, &[], "step_failed");
    for stream in ["stdout", "stderr"] {
        assert_eq!(failure[stream], "\\u{1b}]0;owned\\u{7}\\u{1b}[2J\\u{9b}31m\\u{202e}x");
    }
    let text = ward.apply(&hostile, &[]);
    ward.sh("printf 'a\\033[2Jb\\302\\23331m' >/root/served");
    let plan = soc(
        ward.project.dir.path(),
        &["plan", "p.yml", "-D", "-l", ward.ill, "-i", ward.lab.inventory().to_str().unwrap(), "--format", "json"],
    );
    for shown in [&stderr, &text.stdout, &text.stderr, &plan.stdout, &plan.stderr] {
        let odd: Vec<char> = shown.chars().filter(|c| c.is_control() && *c != '\n' && *c != '\t' || *c == '\u{202e}').collect();
        assert!(odd.is_empty(), "{odd:?} in {shown}");
    }
    assert!(plan.stdout.contains("u001b"), "the diff lacks the file's old content: {}", plan.stdout);
}

fn a_host_that_falls_silent_midway_ends_in_time(ward: &Ward<'_>) {
    // Stops every sshd, and wakes them up later, so that the lab can be asked again.
    let code = "(setsid sh -c 'sleep 1; pkill -STOP sshd; sleep 40; pkill -CONT sshd' &) >/dev/null 2>&1 </dev/null; sleep 5; echo over";
    let started = Instant::now();
    let failure = ward.fails(&ward.command(code), &["-T", "2"], "tcp").0;
    let spent = started.elapsed();
    assert!(spent < Duration::from_secs(38), "it took {spent:?}");
    has(&failure, &["could not be made again", "accepts connections and says nothing", "stopped answering"]);
    std::thread::sleep(Duration::from_secs(44).saturating_sub(spent));
    // What the run left undone, the next one does.
    ward.apply("", &["-e", "mark=again"]).ok();
    assert_eq!(ward.sh("cat /root/served"), "again");
}

fn a_variable_that_one_host_lacks_stops_that_host(ward: &Ward<'_>) {
    ward.project.write(&ward.vars(ward.well), "own: x\n");
    let undefined = ward.fails("    - copy: {dest: /root/own, content: \"{{own}}\"}", &[], "project").0;
    has(&undefined, &["cannot be resolved for this host", "playbooks/p.yml:3:", "own"]);
    ward.project.write(&ward.vars(ward.ill), "own: \"{{other}}\"\nother: \"{{own}}\"\n");
    let cycle = ward.fails("    - copy: {dest: /root/own, content: \"{{own}}\"}", &[], "project").0;
    ward.project.write(&ward.vars(ward.ill), "{}\n");
    has(&cycle, &["variable `own` needs itself", &format!("{}:1:6", ward.vars(ward.ill))]);
}

fn a_task_ends_at_its_deadline(ward: &Ward<'_>) {
    let slow = format!("{}      timeout: 2\n", ward.command("(sleep 30; touch /root/late) & sleep 30"));
    let started = Instant::now();
    has(&ward.fails(&slow, &[], "deadline").0, &["took longer than 2 s and was stopped", "timeout"]);
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!(ward.sh("pgrep -f '^sleep 30' | wc -l"), "0", "what it started still runs");
}

/// One of each kind: the one that hangs is named with its limit, the others are looked at all the same, and the host
/// is not said to be unreachable.
fn a_check_that_hangs_has_failed_in_its_time(ward: &Ward<'_>) {
    // A port that accepts and says nothing, and a `docker` that never answers.
    ward.sh("printf '#!/bin/sh\nexec sleep 300\n' >/usr/local/bin/docker; chmod +x /usr/local/bin/docker; \
             systemd-run --quiet --unit st-mute perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(LocalAddr => \"127.0.0.1:4321\", Listen => 5, ReuseAddr => 1) or die; my @c; while (1) { push @c, $s->accept }'");
    ward.lab.until(ward.ill, "grep -q ':10E1 ' /proc/net/tcp");
    let check = |name: &str, body: &str| {
        format!("- name: {name}\n  {body}, timeout: 2, within: 1}}\n  when: eq inventory_hostname \"{}\"\n", ward.ill)
    };
    ward.project.write(
        "roles/slow/verify/main.yml",
        &[
            check("the mute command", "command: {cmd: 'sleep 300 & echo begun; wait'"),
            check("the mute page", "http: {url: 'http://127.0.0.1:4321/'"),
            check("the mute container", "container_healthy: {project: none"),
            check("the open port", "tcp: {port: 4321"),
            check("the quick command", "command: {cmd: 'echo quick'"),
        ]
        .concat(),
    );
    ward.project.write("roles/slow/tasks/main.yml", "[]\n");
    ward.project.write("playbooks/slow.yml", "- hosts: lab\n  roles: [slow]\n");
    let (inventory, limit) = (ward.lab.inventory(), format!("{},{}", ward.ill, ward.well));
    for verb in ["verify", "apply"] {
        let started = Instant::now();
        let run = soc(ward.project.dir.path(), &[verb, "slow.yml", "-i", inventory.to_str().unwrap(), "-l", &limit, "--format", "json"]);
        assert!(started.elapsed() < Duration::from_secs(25), "{verb} took {:?}", started.elapsed());
        let document = run.json();
        assert_eq!(run.code, 2, "{}", run.all());
        let failure = &document["hosts"][ward.ill]["failure"];
        assert_eq!(failure["class"], "unhealthy", "{failure}");
        let stopped = "no end within 2 s; it was stopped";
        has(
            failure,
            &[&format!("the mute command: {stopped}"), &format!("the mute container: {stopped}"), "the mute page: no answer within 2 s"],
        );
        let passed = |title: &str| {
            let checks = document["hosts"][ward.ill]["checks"].as_array().unwrap();
            checks.iter().find(|check| check["title"].as_str().unwrap().contains(title)).unwrap()["passed"].clone()
        };
        assert_eq!(
            (passed("the open port"), passed("the quick command"), passed("the mute page")),
            (true.into(), true.into(), false.into())
        );
        assert_eq!(recap(&document, ward.ill, "unreachable"), 0);
        assert!(document["hosts"][ward.well]["failure"].is_null(), "{}", run.all());
    }
    assert_eq!(ward.sh("systemctl stop st-mute; rm /usr/local/bin/docker; pgrep -f '^sleep 300' | wc -l"), "0", "what hung still runs");
}
