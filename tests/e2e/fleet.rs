//! The controller's memory and what many hosts need: history, holds, shards, saved plans.

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Lab, Project, command, recap, series, soc};

/// Twenty files on every host.
fn project() -> Project {
    let mut play = String::from("- hosts: lab\n  tasks:\n    - directory: {path: /etc/fleet}\n");
    for number in 0..20 {
        play.push_str(&format!("    - copy: {{dest: /etc/fleet/f{number}, content: \"file {number}\\n\", mode: \"0644\"}}\n"));
    }
    Project::new(&[("playbooks/p.yml", &play)])
}

fn on<'a>(inventory: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    [words, &["-i", inventory, "-l", "lab"]].concat()
}

fn list(project: &Project) -> Vec<Value> {
    let runs = soc(project.dir.path(), &["report", "list", "--format", "json", "--newest", "0"]).ok().json();
    runs.as_array().unwrap().clone()
}

#[test]
fn runs_are_remembered_and_compared() {
    let Some(lab) = Lab::containers(2, &[]) else { return };
    let project = project();
    let dir = project.dir.path();
    let inventory = lab.inventory().display().to_string();
    assert_eq!(soc(dir, &["report", "list"]).code, 1, "no history yet");
    let applied = soc(dir, &on(&inventory, &["apply", "p.yml", "--format", "json"])).ok().json();
    let runs = list(&project);
    assert_eq!(runs.len(), 1);
    assert_eq!((runs[0]["command"].as_str(), runs[0]["exit"].as_u64(), &runs[0]["run"]), (Some("apply"), Some(0), &applied["run"]["run"]));
    for key in ["project", "inventory", "who", "from"] {
        assert!(!runs[0][key].as_str().unwrap().is_empty(), "{key}");
    }
    lab.sh("h1", "echo intruder >>/etc/fleet/f3");
    let drift = soc(dir, &on(&inventory, &["drift", "p.yml", "--format", "json"]));
    assert_eq!(drift.code, 3, "{}", drift.all());
    // What was printed is what is remembered, to the letter.
    let shown = soc(dir, &["report", "show", "last", "--format", "json"]).ok().json();
    assert_eq!(shown["hosts"]["h1"]["tasks"], drift.json()["hosts"]["h1"]["tasks"]);
    let compared = soc(dir, &["report", "compare", "last~1", "last", "--exit-code", "--format", "json"]);
    assert_eq!(compared.code, 3, "{}", compared.all());
    let new = compared.json()["comparison"]["new"].clone();
    assert_eq!(
        (new.as_array().unwrap().len(), new[0]["host"].as_str(), new[0]["resource"].as_str()),
        (1, Some("h1"), Some("copy[/etc/fleet/f3]"))
    );
    let text = soc(dir, &["report", "show"]).ok().stdout;
    assert!(text.contains("drift copy[/etc/fleet/f3]") && text.contains("(since "), "{text}");
    // Killed: it is in the list, and does not look like one that ended.
    project.write("playbooks/long.yml", "- hosts: lab\n  tasks:\n    - command: sleep 71\n");
    let mut child = command(dir, &on(&inventory, &["apply", "long.yml"])).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    lab.until("h1", "pgrep -fx 'sleep 71'");
    assert_eq!(list(&project)[0]["exit"], Value::Null, "it is still at work");
    child.kill().unwrap();
    child.wait().unwrap();
    let text = soc(dir, &["report", "list"]).ok().stdout;
    assert!(text.contains("killed"), "{text}");
    for host in ["h1", "h2"] {
        lab.sh(host, "pkill -fx 'sleep 71' || :");
    }
    soc(dir, &on(&inventory, &["apply", "p.yml"])).ok();
    // Many writers at once.
    let before = list(&project).len();
    let children: Vec<_> = (0..5)
        .map(|_| command(dir, &on(&inventory, &["plan", "p.yml"])).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in children {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    assert_eq!(list(&project).len(), before + 5);
    soc(dir, &["report", "prune", "--keep", "2"]).ok();
    assert_eq!(list(&project).len(), 2);
    unusable_histories(&project, &inventory);
}

/// A history that cannot be used warns, is left as it is, and never fails a run.
fn unusable_histories(project: &Project, inventory: &str) {
    let dir = project.dir.path();
    project.write("junk.db", &"this is a letter to my mother\n".repeat(50));
    for place in ["/proc/nowhere/history.db", "junk.db", "playbooks"] {
        let run = soc(dir, &on(inventory, &["verify", "p.yml", "--history", place]));
        assert_eq!(run.code, 0, "{}", run.all());
        assert!(run.stderr.contains("warning: this run is not kept in the history"), "{}", run.stderr);
    }
    assert!(std::fs::read_to_string(dir.join("junk.db")).unwrap().starts_with("this is a letter"));
    let before = list(project).len();
    let none = soc(dir, &on(inventory, &["verify", "p.yml", "--history", "none"])).ok();
    assert!(none.stderr.is_empty(), "{}", none.stderr);
    assert_eq!(list(project).len(), before);
}

#[test]
fn a_hold_keeps_apply_away_until_it_ends() {
    let Some(lab) = Lab::containers(2, &[]) else { return };
    let project = project();
    let dir = project.dir.path();
    let inventory = lab.inventory().display().to_string();
    let hold = |words: &[&str]| soc(dir, &[&["hold", "h1", "-i", &inventory], words].concat());
    for wrong in
        [&["--until", "2h"][..], &["--reason", "x", "--until", "yesterday"], &["--reason", "a\nb"], &["--reason", "x", "--release"]]
    {
        assert_eq!(hold(wrong).code, 1, "{wrong:?}");
    }
    hold(&["--reason", "disk is being swapped; $(reboot) 'x'", "--until", "3d"]).ok();
    let refused = soc(dir, &on(&inventory, &["apply", "p.yml"]));
    assert_eq!(refused.code, 2, "{}", refused.all());
    assert!(
        refused.stderr.contains("disk is being swapped; $(reboot) 'x'") && refused.stderr.contains("--override-hold"),
        "{}",
        refused.stderr
    );
    assert_eq!((lab.sh("h1", "ls /etc/fleet 2>/dev/null | wc -l"), lab.sh("h2", "ls /etc/fleet | wc -l")), ("0".into(), "20".into()));
    let plan = soc(dir, &on(&inventory, &["plan", "p.yml"])).ok();
    assert!(plan.stderr.contains("[h1] on hold by"), "{}", plan.stderr);
    let drift = soc(dir, &on(&inventory, &["drift", "p.yml"]));
    assert!(drift.code == 3 && drift.all().contains("[h1] on hold by"), "{}", drift.all());
    let status = soc(dir, &on(&inventory, &["status", "p.yml"])).ok();
    assert!(status.stdout.contains("[h1] on hold by"), "{}", status.stdout);
    soc(dir, &on(&inventory, &["apply", "p.yml", "--override-hold"])).ok();
    hold(&["--release"]).ok();
    soc(dir, &on(&inventory, &["apply", "p.yml"])).ok();
    // One whose time is over holds nobody.
    hold(&["--reason", "short", "--until", "1s"]).ok();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    soc(dir, &on(&inventory, &["apply", "p.yml"])).ok();
    let status = soc(dir, &on(&inventory, &["status", "p.yml", "--format", "json"])).ok().json();
    assert_eq!((&status["h1"]["hold"], &status["h1"]["pending"]), (&Value::Null, &Value::from(0)));
}

#[test]
fn shards_as_processes_of_their_own_are_the_whole_fleet() {
    let Some(lab) = Lab::containers(1, &[]) else { return };
    let project = project();
    let dir = project.dir.path();
    let address = lab.sh("h1", "hostname -I").split(' ').next().unwrap().to_owned();
    let hosts: String = (0..12).map(|number| format!("        web{number}: {{ansible_host: {address}}}\n")).collect();
    project.write(
        "inventory/p.yml",
        &format!(
            "all:\n  vars: {{ansible_user: root, ansible_ssh_private_key_file: {}}}\n  children:\n    lab:\n      hosts:\n{hosts}",
            lab.key().display()
        ),
    );
    project.write("inventory/known_hosts", &std::fs::read_to_string(lab.inventory().with_file_name("known_hosts")).unwrap());
    let whole = soc(dir, &["plan", "p.yml", "--format", "json"]).ok().json();
    let parts = 4;
    let children: Vec<_> = (0..parts)
        .map(|index| {
            let mut child = command(dir, &["plan", "p.yml", "--format", "json"]);
            child.env("JOB_COMPLETION_INDEX", index.to_string()).env("SOC_PROVISION_SHARDS", parts.to_string());
            child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut files = Vec::new();
    for (index, child) in children.into_iter().enumerate() {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let name = format!("part{index}.json");
        std::fs::write(dir.join(&name), out.stdout).unwrap();
        files.push(name);
    }
    let mut words = vec!["report", "merge"];
    words.extend(files.iter().map(String::as_str));
    let merged = soc(dir, &[&words[..], &["--format", "json", "--keep", "--out", "all.json"]].concat()).ok();
    assert!(merged.stderr.is_empty(), "{}", merged.stderr);
    let merged = merged.json();
    let names = |document: &Value| document["hosts"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&merged), names(&whole));
    for host in names(&whole) {
        assert_eq!(merged["hosts"][&host]["tasks"], whole["hosts"][&host]["tasks"]);
        assert_eq!(recap(&merged, &host, "changed"), 21);
    }
    assert!(soc(dir, &["report", "list", "--newest", "1"]).ok().stdout.contains("12 drift"));
    let gap = soc(dir, &["report", "merge", "part0.json", "part2.json"]).ok();
    assert!(gap.stderr.contains("parts are missing: 2/4, 4/4"), "{}", gap.stderr);
    let twice = soc(dir, &["report", "merge", "part0.json", "part0.json"]);
    assert!(twice.code == 1 && twice.stderr.contains("in an earlier file"), "{}", twice.all());
    std::fs::write(dir.join("cut.json"), &std::fs::read(dir.join("part0.json")).unwrap()[..300]).unwrap();
    let cut = soc(dir, &["report", "merge", "part1.json", "cut.json"]);
    assert!(cut.code == 1 && cut.stderr.contains("not a whole document"), "{}", cut.all());
    for wrong in ["0/3", "4/3", "x", "1/0", "1"] {
        assert_eq!(soc(dir, &["plan", "p.yml", "--shard", wrong]).code, 1, "{wrong}");
    }
}

/// `apply --ask` shows a plan and applies that one, or nothing: on a terminal of its own.
fn asked_on_a_terminal(lab: &Lab, project: &Project, inventory: &str) {
    let line = format!("{} apply p.yml --ask -i {inventory} -l h1", env!("CARGO_BIN_EXE_soc-provision"));
    let ask = |answer: &str, meanwhile: &str| {
        lab.sh("h1", "rm -f /etc/fleet/f1");
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).current_dir(project.dir.path()).env("HOME", project.dir.path());
        let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script, of bsdutils");
        let (mut said, mut byte) = (Vec::new(), [0]);
        let mut out = child.stdout.take().unwrap();
        while !String::from_utf8_lossy(&said).contains("apply this plan?") {
            assert_eq!(out.read(&mut byte).unwrap(), 1, "it does not ask: {}", String::from_utf8_lossy(&said));
            said.push(byte[0]);
        }
        lab.sh("h1", meanwhile);
        child.stdin.take().unwrap().write_all(format!("{answer}\n").as_bytes()).unwrap();
        out.read_to_end(&mut said).unwrap();
        let there = lab.sh("h1", "ls /etc/fleet/f1 2>/dev/null | wc -l");
        (child.wait().unwrap().code(), there, String::from_utf8_lossy(&said).into_owned())
    };
    let (code, there, said) = ask("n", ":");
    assert!(code == Some(1) && there == "0" && said.contains("nothing was touched"), "{said}");
    let (code, there, said) = ask("y", "chmod 600 /etc/fleet/f7");
    assert!(code == Some(2) && there == "0" && said.contains("copy[/etc/fleet/f7]"), "{said}");
    let (code, there, said) = ask("y", ":");
    assert!(code == Some(0) && there == "1", "{said}");
}

#[test]
fn a_saved_plan_is_done_exactly_or_refused() {
    let Some(lab) = Lab::containers(1, &[]) else { return };
    let project = project();
    let dir = project.dir.path();
    let inventory = lab.inventory().display().to_string();
    let on = |words: &[&str]| soc(dir, &[words, &["-i", &inventory, "-l", "h1"]].concat());
    let play = std::fs::read_to_string(dir.join("playbooks/p.yml")).unwrap();
    // A handler, and something that is known only after a package is there.
    project.write(
        "playbooks/p.yml",
        &format!(
            "{play}    - copy: {{dest: /etc/fleet/notifies, content: \"x\\n\"}}\n      notify: told\n    - package: {{name: cron}}\n    - service: {{name: cron, state: started, enabled: true}}\n  handlers:\n    - name: told\n      command: {{cmd: \"touch /root/told\", creates: /root/told}}\n"
        ),
    );
    on(&["plan", "p.yml", "--out", "plan.json"]).ok();
    let applied = soc(dir, &["apply", "plan.json", "--format", "json"]).ok().json();
    assert!(recap(&applied, "h1", "changed") >= 22, "{applied:#}");
    assert_eq!(lab.sh("h1", "ls /root/told; systemctl is-active cron"), "/root/told\nactive");
    // Done: a second time there is nothing of it left to do, and that is said.
    let again = soc(dir, &["apply", "plan.json"]);
    assert!(again.code == 2 && again.stderr.contains("needs no change any more"), "{}", again.all());
    for round in 0..series(2, 8) {
        lab.sh("h1", "rm /etc/fleet/f1; echo odd >/etc/fleet/f2");
        on(&["plan", "p.yml", "--out", "plan.json"]).ok();
        // Somebody else changes the host meanwhile: something more, or the same thing otherwise.
        lab.sh("h1", ["chmod 600 /etc/fleet/f7", "echo otherwise >/etc/fleet/f2"][usize::try_from(round % 2).unwrap()]);
        let refused = soc(dir, &["apply", "plan.json"]);
        let named = ["copy[/etc/fleet/f7]", "copy[/etc/fleet/f2]"][usize::try_from(round % 2).unwrap()];
        assert!(refused.code == 2 && refused.stderr.contains(named), "{named}: {}", refused.all());
        assert_eq!(lab.sh("h1", "ls /etc/fleet/f1 2>/dev/null | wc -l"), "0", "nothing was touched");
        on(&["apply", "p.yml"]).ok();
    }
    asked_on_a_terminal(&lab, &project, &inventory);
    // Tampered, cut off, of another version, of another project.
    lab.sh("h1", "rm /etc/fleet/f1");
    on(&["plan", "p.yml", "--out", "plan.json"]).ok();
    let text = std::fs::read_to_string(dir.join("plan.json")).unwrap();
    for (wrong, expected) in [
        (text.replace("/etc/fleet/f1]", "/etc/fleet/f9]"), "seal"),
        (text[..text.len() / 2].to_owned(), "not a whole plan"),
        (text.replace("soc-provision plan ", "soc-provision plan 9"), "another version"),
    ] {
        std::fs::write(dir.join("wrong.json"), wrong).unwrap();
        let run = soc(dir, &["apply", "wrong.json"]);
        assert!(run.code == 1 && run.stderr.contains(expected), "{expected}: {} {}", run.code, run.all());
    }
    project.write("playbooks/p.yml", &play);
    let moved = soc(dir, &["apply", "plan.json"]);
    assert!(moved.code == 2 && moved.stderr.contains("files of it changed"), "{}", moved.all());
    assert_eq!(lab.sh("h1", "ls /etc/fleet/f1 2>/dev/null | wc -l"), "0");
}
