//! A roll-out over several hosts: batches, limits of failure, rescue, other users, reboots, locks.

use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Lab, Project, command, recap, soc};

/// A playbook on a lab's hosts.
fn apply(lab: &Lab, project: &Project, playbook: &str, more: &[&str]) -> crate::harness::Run {
    project.write("playbooks/p.yml", playbook);
    let inventory = lab.inventory();
    soc(project.dir.path(), &[&["apply", "p.yml", "-i", inventory.to_str().unwrap(), "--format", "json"], more].concat())
}

fn has(lab: &Lab, host: &str, path: &str) -> bool {
    lab.ssh(host, "root", &format!("test -e {path}")).status.success()
}

#[test]
fn a_roll_out_over_several_hosts() {
    let Some(lab) = Lab::containers(3, &[]) else { return };
    a_block_is_rescued_and_always_ends(&lab);
    a_host_reboots_and_the_run_goes_on(&lab);
    two_controllers_never_change_one_host_at_once(&lab);
    batches_come_one_after_another_and_too_many_failures_stop_the_rest(&lab);
}

fn batches_come_one_after_another_and_too_many_failures_stop_the_rest(lab: &Lab) {
    let project = Project::new(&[]);
    let time = "    - command: \"date +%s%N >/root/began; sleep 1; date +%s%N >/root/ended\"\n";
    apply(lab, &project, &format!("- hosts: lab\n  serial: [1, 100%]\n  tasks:\n{time}"), &[]).ok();
    let at = |host: &str, what: &str| lab.sh(host, &format!("cat /root/{what}")).parse::<u128>().unwrap();
    assert!(at("h1", "ended") <= at("h2", "began") && at("h1", "ended") <= at("h3", "began"), "the first batch is h1 alone");
    assert!(at("h2", "began") < at("h3", "ended") && at("h3", "began") < at("h2", "ended"), "the second is h2 and h3 at once");
    // One of two fails: half of a batch is more than 40 %, and not more than 50 %.
    let failing = |limit: u32| {
        format!(
            "- hosts: lab\n  serial: 2\n  max_fail_percentage: {limit}\n  tasks:\n    - command: \"[ $(hostname) != h1 ]\"\n    - command: touch /root/{limit}\n"
        )
    };
    let stopped = apply(lab, &project, &failing(40), &[]);
    assert_eq!(stopped.code, 2, "{}", stopped.all());
    assert!(
        stopped.stderr.contains("1 of 2 hosts failed, more than 40 %") && stopped.stderr.contains("the roll-out stops"),
        "{}",
        stopped.stderr
    );
    assert_eq!(["h1", "h2", "h3"].map(|host| has(lab, host, "/root/40")), [false, true, false]);
    let on = apply(lab, &project, &failing(50), &[]);
    assert_eq!(on.code, 2, "{}", on.all());
    assert_eq!(["h1", "h2", "h3"].map(|host| has(lab, host, "/root/50")), [false, true, true]);
    // A host that is not there counts as unreachable, never as failed.
    lab.power("h1", "off");
    let gone = |limit: u32| {
        format!(
            "- hosts: lab\n  serial: 2\n  max_unreachable: {limit}\n  max_fail_percentage: 0\n  tasks:\n    - command: touch /root/gone{limit}\n"
        )
    };
    let stopped = apply(lab, &project, &gone(0), &["-T", "2"]);
    assert_eq!(stopped.code, 4, "{}", stopped.all());
    assert!(stopped.stderr.contains("1 hosts were unreachable, more than 0"), "{}", stopped.stderr);
    assert_eq!(["h2", "h3"].map(|host| has(lab, host, "/root/gone0")), [true, false]);
    let on = apply(lab, &project, &gone(1), &["-T", "2"]);
    assert_eq!(on.code, 4, "{}", on.all());
    assert_eq!(["h2", "h3"].map(|host| has(lab, host, "/root/gone1")), [true; 2]);
}

const RESCUE: &str = "- hosts: lab
  tasks:
    - block:
        - command: touch /root/body
        - command: \"[ $(hostname) != h1 ]\"
        - command: touch /root/after
      rescue:
        - command: touch /root/rescued
          notify: later
      always:
        - command: id -un >/root/always-by; touch /root/always
    - command: id -un >/tmp/by; echo $HOME >>/tmp/by
      become_user: ops
    - command: \"false\"
      ignore_errors: true
    - command: touch /root/end
  handlers:
    - name: later
      command: touch /root/handled
";

fn a_block_is_rescued_and_always_ends(lab: &Lab) {
    let project = Project::new(&[]);
    let document = apply(lab, &project, RESCUE, &[]).ok().json();
    let there = |host: &str| ["body", "after", "rescued", "always", "end", "handled"].map(|name| has(lab, host, &format!("/root/{name}")));
    assert_eq!(there("h1"), [true, false, true, true, true, true]);
    assert_eq!(there("h2"), [true, true, false, true, true, false]);
    assert_eq!((recap(&document, "h1", "rescued"), recap(&document, "h2", "rescued")), (1, 0));
    assert_eq!((recap(&document, "h1", "failed"), recap(&document, "h1", "ignored")), (0, 1));
    assert_eq!(lab.sh("h1", "cat /root/always-by /tmp/by; stat -c %U /tmp/by"), "root\nops\n/home/ops\nops");
    // Without a rescue, `always` runs and the host has failed all the same.
    lab.sh("h1", "rm -f /root/always /root/end");
    let bare = RESCUE.replace("      rescue:\n        - command: touch /root/rescued\n          notify: later\n", "");
    let run = apply(lab, &project, &bare, &[]);
    assert_eq!(run.code, 2, "{}", run.all());
    assert!(has(lab, "h1", "/root/always") && !has(lab, "h1", "/root/end"));
}

fn a_host_reboots_and_the_run_goes_on(lab: &Lab) {
    let project = Project::new(&[]);
    let playbook = "- hosts: lab\n  tasks:\n    - copy: {dest: /run/before, content: \"x\\n\"}\n    - reboot: {when: always, timeout: 120}\n    - copy: {dest: /run/after, content: \"x\\n\"}\n";
    let before = lab.sh("h1", "cut -d' ' -f22 /proc/1/stat");
    let document = apply(lab, &project, playbook, &[]).ok().json();
    assert_eq!(recap(&document, "h1", "changed"), 3);
    assert_ne!(lab.sh("h1", "cut -d' ' -f22 /proc/1/stat"), before, "it did not reboot");
    for host in ["h1", "h2"] {
        assert!(!has(lab, host, "/run/before") && has(lab, host, "/run/after"), "{host}");
    }
}

fn two_controllers_never_change_one_host_at_once(lab: &Lab) {
    let project =
        Project::new(&[("playbooks/slow.yml", "- hosts: h1\n  tasks:\n    - command: touch /root/slow; sleep 12; touch /root/survived\n")]);
    let inventory = lab.inventory();
    let on = ["-i", inventory.to_str().unwrap()];
    let first = || {
        lab.sh("h1", "rm -f /root/slow /root/survived");
        let mut run = command(project.dir.path(), &[&["apply", "slow.yml"], &on[..]].concat());
        let child = run.env("USER", "ann").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while !has(lab, "h1", "/root/slow") {
            std::thread::sleep(Duration::from_millis(100));
        }
        child
    };
    let fast = "- hosts: lab\n  tasks:\n    - command: touch /root/fast\n";
    let holder = first();
    let refused = apply(lab, &project, fast, &[]);
    assert_eq!(refused.code, 2, "{}", refused.all());
    let failure = refused.json()["hosts"]["h1"]["failure"].clone();
    assert_eq!(failure["class"], "lock_held");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("is locked by run ") && message.contains(" of ann from "), "{message}");
    assert!(failure["hint"].as_str().unwrap().contains("--break-lock"), "{failure}");
    assert!(!has(lab, "h1", "/root/fast") && has(lab, "h2", "/root/fast"), "the other host is served");
    // A plan only looks, and may.
    soc(project.dir.path(), &[&["plan", "p.yml"], &on[..]].concat()).ok();
    assert!(holder.wait_with_output().unwrap().status.success());
    // Taken away: the first run ends, its step with it, and says so.
    let holder = first();
    apply(lab, &project, fast, &["--break-lock"]).ok();
    assert!(has(lab, "h1", "/root/fast"));
    let out = holder.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("the host's lock was taken away by run "), "{said}");
    assert!(!has(lab, "h1", "/root/survived"), "its step was to end with it");
    // A holder that died holds nothing.
    let mut holder = first();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let next = apply(lab, &project, fast, &[]).ok();
    assert!(next.stderr.contains("waiting for the step under way of a run whose controller is gone"), "{}", next.stderr);
    assert!(has(lab, "h1", "/root/survived"), "the step under way comes to its end first");
}
