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
