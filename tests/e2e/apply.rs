//! The main job: bare to healthy, unchanged, interrupted, refused.

use crate::bare::become_healthy;
use crate::harness::{Lab, Project, command, recap, soc};

#[test]
fn two_bare_hosts_become_healthy_and_stay_as_they_are() {
    let Some(lab) = Lab::containers(2, &[]) else { return };
    become_healthy(&lab, &[]);
}

fn many_files(count: usize) -> String {
    let mut play = String::from("- hosts: lab\n  tasks:\n    - directory: {path: /etc/many}\n");
    for number in 0..count {
        play.push_str(&format!("    - copy: {{dest: /etc/many/f{number}, content: \"file {number}\\n\"}}\n"));
    }
    play
}

#[test]
fn ten_tasks_and_five_hundred_cost_three_round_trips() {
    let Some(lab) = Lab::containers(1, &[]) else { return };
    let project = Project::new(&[]);
    for count in [10, 500] {
        project.write("playbooks/many.yml", &many_files(count));
        let inventory = lab.inventory();
        let arguments = ["apply", "many.yml", "-i", inventory.to_str().unwrap(), "-l", "h1", "--format", "json"];
        let first = soc(project.dir.path(), &arguments).ok().json();
        assert!(recap(&first, "h1", "changed") > 0);
        let again = soc(project.dir.path(), &arguments).ok().json();
        assert_eq!(recap(&again, "h1", "changed"), 0);
        let trips = again["hosts"]["h1"]["round_trips"].as_u64().unwrap();
        assert!(trips <= 3, "{count} tasks cost {trips} round trips");
    }
}

#[test]
fn every_login_shell_and_every_way_to_root_works() {
    let Some(lab) = Lab::containers(2, &[]) else { return };
    let project = Project::new(&[(
        "playbooks/p.yml",
        "- hosts: all\n  tasks:\n    - copy: {dest: \"/root/from-{{ansible_user}}\", content: \"x\\n\"}\n",
    )]);
    project.write("pass", "lab-sudo-pw\n");
    let inventory = lab.inventory();
    for user in ["root", "ops", "deploy", "fishy", "tcshy", "dashy", "noisy"] {
        let extra = format!("ansible_user={user}");
        let mut arguments = vec!["apply", "p.yml", "-i", inventory.to_str().unwrap(), "-l", "h1", "-e", &extra];
        if user == "deploy" {
            arguments.extend(["--become-password-file", "pass"]);
        }
        soc(project.dir.path(), &arguments).ok();
        assert_eq!(lab.sh("h1", &format!("cat /root/from-{user}")), "x");
    }
    // Through a jump host that is the only way there.
    soc(project.dir.path(), &["apply", "p.yml", "-i", inventory.to_str().unwrap(), "-l", "j2", "-e", "ansible_user=ops"]).ok();
    assert_eq!(lab.sh("h2", "cat /root/from-ops"), "x");
    project.write("wrong", "not-the-password\n");
    let wrong = soc(
        project.dir.path(),
        &["apply", "p.yml", "-i", inventory.to_str().unwrap(), "-l", "h1", "-e", "ansible_user=deploy", "--become-password-file", "wrong"],
    );
    assert_eq!(wrong.code, 2, "{}", wrong.all());
    let none = soc(project.dir.path(), &["apply", "p.yml", "-i", inventory.to_str().unwrap(), "-l", "h1", "-e", "ansible_user=plain"]);
    assert_eq!(none.code, 2, "{}", none.all());
    assert!(none.stderr.contains("sudo"), "{}", none.stderr);
}

#[test]
fn a_killed_controller_is_finished_by_the_next_run() {
    let Some(lab) = Lab::containers(2, &[]) else { return };
    let project = Project::new(&[("playbooks/many.yml", &many_files(60))]);
    let inventory = lab.inventory();
    let on = |host: &'static str| ["apply", "many.yml", "-i", inventory.to_str().unwrap(), "-l", host].map(str::to_owned);
    let run = |host| soc(project.dir.path(), &on(host).iter().map(String::as_str).collect::<Vec<_>>());
    run("h2").ok();
    for milliseconds in [150, 250, 350] {
        let arguments = on("h1");
        let mut child = command(project.dir.path(), &arguments.iter().map(String::as_str).collect::<Vec<_>>())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    run("h1").ok();
    let print = "cd /etc/many && find . -printf '%p %m %u %g\\n' | sort && cat f* | sha256sum; ls -A | wc -l";
    assert_eq!(lab.sh("h1", print), lab.sh("h2", print));
}

#[test]
fn hosts_that_fail_do_not_keep_others_from_being_served() {
    let Some(lab) = Lab::containers(1, &[]) else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().port();
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let project = Project::new(&[(
        "playbooks/p.yml",
        "- hosts: all\n  tasks:\n    - copy: {dest: /root/served, content: \"{{inventory_hostname}}\\n\"}\n",
    )]);
    let address = lab.sh("h1", "hostname -I").split(' ').next().unwrap().to_owned();
    let key = lab.key();
    let known = std::fs::read_to_string(lab.inventory().with_file_name("known_hosts")).unwrap();
    project.write("inventory/p.yml", &format!(
        "all:\n  vars: {{ansible_user: root, ansible_ssh_private_key_file: {}}}\n  hosts:\n    good: {{ansible_host: {address}}}\n    silent: {{ansible_host: 127.0.0.1, ansible_port: {silent}}}\n    refused: {{ansible_host: 127.0.0.1, ansible_port: {refused}}}\n    nowhere: {{ansible_host: no-such-host.invalid}}\n",
        key.display()
    ));
    project.write("inventory/known_hosts", &known);
    let run = soc(project.dir.path(), &["apply", "p.yml", "-T", "3", "--format", "json"]);
    assert_eq!(run.code, 4, "{}", run.all());
    let document = run.json();
    assert_eq!(recap(&document, "good", "changed"), 1);
    let class = |host: &str| document["hosts"][host]["failure"]["class"].as_str().unwrap_or_default().to_owned();
    assert_eq!((class("silent"), class("refused"), class("nowhere")), ("tcp".into(), "tcp".into(), "dns".into()));
    assert_eq!(lab.sh("h1", "cat /root/served"), "good");
    // A changed host key: the same address under another host's key.
    project.write(
        "inventory/known_hosts",
        &format!("{address} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGh3Y4cC4E8x3+6m8kXo6s0H1uGQk6w5VxM6mB1sBv5t\n"),
    );
    let changed = soc(project.dir.path(), &["apply", "p.yml", "-l", "good"]);
    assert_eq!(changed.code, 4, "{}", changed.all());
    assert!(changed.stderr.contains("known_hosts"), "{}", changed.stderr);
}
