//! A lab that comes back, and nights that run by themselves.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::{Lab, Project, command, series, soc};

const PLAY: &str = "- hosts: lab
  tasks:
    - package: {name: nftables}
    - firewall: {published: [{port: 8080}]}
    - docker_image: {name: \"app:1\", stand_in: {listen: [8080], user: 65534, writes: [/data]}}
    - docker_volume: {name: kept}
    - docker_network: {name: shared}
    - compose_stack:
        name: app
        hardening: baseline
        health: {timeout: 60}
        exceptions:
          web: {allow: [writable-root], reason: it writes}
        compose:
          services:
            web: {image: \"app:1\", volumes: [\"own:/data\", \"kept:/kept\"], networks: [shared], ports: [\"8080:8080\"]}
          volumes: {own: {}, kept: {external: true}}
          networks: {shared: {external: true}}
";

/// What a rebuild must bring back: containers by image and state, volumes, networks, rules.
fn shape(lab: &Lab, host: &str) -> String {
    lab.sh(
        host,
        "docker ps -a --format '{{.Names}} {{.Image}} {{.State}} {{.Ports}}' | sort; docker volume ls -q | sort; docker network ls --format '{{.Name}}' | sort; nft -s list table inet soc_provision | sed 's/counter.*//'; ls /var/lib/soc-provision/stacks/app",
    )
}

#[test]
fn a_lab_is_rebuilt_also_when_it_is_killed_at_any_moment() {
    let Some(lab) = Lab::containers(3, &["--docker"]) else { return };
    let project = Project::new(&[("playbooks/p.yml", PLAY)]);
    let dir = project.dir.path();
    let inventory = lab.inventory().display().to_string();
    let on = |words: &[&str]| soc(dir, &[words, &["-i", &inventory, "-l", "lab"]].concat());
    on(&["apply", "p.yml"]).ok();
    for host in ["h1", "h2", "h3"] {
        lab.sh(host, "echo mine >$(docker volume inspect -f '{{.Mountpoint}}' app_own)/x; echo kept >$(docker volume inspect -f '{{.Mountpoint}}' kept)/x");
    }
    let before = shape(&lab, "h1");
    // Nothing happens by mistake.
    let asked = on(&["rebuild", "p.yml"]);
    assert!(asked.code == 1 && asked.stderr.contains("type the playbook's name"), "{}", asked.all());
    let protected = on(&["rebuild", "p.yml", "--yes", "-e", "protected=true"]);
    assert!(protected.code == 1 && protected.stderr.contains("protected"), "{} {}", protected.code, protected.all());
    let started = lab.sh("h1", "docker inspect -f '{{.State.StartedAt}}' $(docker ps -q)");
    // Volumes stay; the firewall stays up throughout.
    lab.sh("h1", "(while :; do nft list table inet soc_provision >/dev/null 2>&1 || echo down >>/root/gaps; sleep 0.05; done) >/dev/null 2>&1 & echo $! >/root/watch");
    let rebuilt = on(&["rebuild", "p.yml", "--yes"]).ok();
    assert!(rebuilt.stdout.contains("3 of 3 hosts from bare to healthy in "), "{}", rebuilt.stdout);
    assert_eq!(lab.sh("h1", "kill $(cat /root/watch); cat /root/gaps 2>/dev/null | wc -l"), "0", "the firewall was down");
    assert_ne!(lab.sh("h1", "docker inspect -f '{{.State.StartedAt}}' $(docker ps -q)"), started, "it is a new container");
    assert_eq!(shape(&lab, "h1"), before);
    let kept = "for v in app_own kept; do cat $(docker volume inspect -f '{{.Mountpoint}}' $v)/x; done";
    assert_eq!(lab.sh("h1", kept), "mine\nkept");
    // Killed at any moment, and run again: the same lab.
    for round in 0..series(2, 10) {
        let mut child = command(dir, &["rebuild", "p.yml", "--yes", "-i", &inventory, "-l", "lab"]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(700 + 1300 * u64::from(round)));
        child.kill().unwrap();
        child.wait().unwrap();
        on(&["rebuild", "p.yml", "--yes"]).ok();
        for host in ["h1", "h2", "h3"] {
            assert_eq!(shape(&lab, host), before, "round {round}, {host}");
        }
    }
    assert_eq!(lab.sh("h1", kept), "mine\nkept");
    // With the data, and images.
    on(&["rebuild", "p.yml", "--yes", "--wipe-data", "--images"]).ok();
    assert_eq!(shape(&lab, "h2"), before);
    assert_eq!(lab.sh("h1", "ls $(docker volume inspect -f '{{.Mountpoint}}' app_own kept | tr '\\n' ' ') | grep -c x || :"), "0");
    a_host_made_anew(&lab, &project, &inventory);
}

/// Its key is learnt once, on demand, and pinned; without being asked for it is refused.
fn a_host_made_anew(lab: &Lab, project: &Project, inventory: &str) {
    let dir = project.dir.path();
    let on = |words: &[&str]| soc(dir, &[words, &["-i", inventory, "-l", "lab"]].concat());
    let address = lab.sh("h2", "hostname -I").split(' ').next().unwrap().to_owned();
    lab.sh("h2", "rm /etc/ssh/ssh_host_*; ssh-keygen -A >/dev/null; systemctl restart ssh");
    let refused = on(&["rebuild", "p.yml", "--yes", "--fresh"]);
    assert!(refused.code == 4 && refused.stdout.contains("2 of 3 hosts"), "{} {}", refused.code, refused.all());
    assert_eq!(on(&["rebuild", "p.yml", "--yes", "--expect-new-host-key", "h9"]).code, 1);
    on(&["rebuild", "p.yml", "--yes", "--expect-new-host-key", "h2"]).ok();
    on(&["verify", "p.yml"]).ok();
    let pinned = std::fs::read_to_string(std::path::Path::new(inventory).with_file_name("known_hosts")).unwrap();
    assert_eq!(pinned.lines().filter(|line| line.split(' ').next() == Some(address.as_str())).count(), 1, "{pinned}");
}

/// A web address that takes what is posted to it.
fn receiver() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/news", listener.local_addr().unwrap());
    let posted = Arc::new(Mutex::new(Vec::new()));
    let into = posted.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while stream.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            into.lock().unwrap().push(String::from_utf8(body).unwrap());
            stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
        }
    });
    (address, posted)
}

#[test]
fn a_night_tells_only_what_changed() {
    let Some(lab) = Lab::containers(1, &[]) else { return };
    let project = Project::new(&[("playbooks/p.yml", "- hosts: h1\n  tasks:\n    - copy: {dest: /etc/night, content: \"x\\n\"}\n")]);
    let dir = project.dir.path();
    let inventory = lab.inventory().display().to_string();
    let schedule = |words: &[&str]| soc(dir, &[&["schedule", "p.yml", "-i", &inventory], words].concat());
    let shown = schedule(&["--print", "--at", "Mon..Fri 03:00", "--units", "user"]).ok().stdout;
    assert!(shown.contains("OnCalendar=Mon..Fri 03:00") && shown.contains("schedule --now --installed \"p\""), "{shown}");
    let news = dir.join("news");
    let (address, posted) = receiver();
    let night = || {
        let hook = format!("cat >>{}; echo >>{}", news.display(), news.display());
        schedule(&["--now", "--notify-command", &hook, "--notify-webhook", &address, "--metrics", "p.prom"])
    };
    let told = || {
        let lines = std::fs::read_to_string(&news).unwrap_or_default();
        assert_eq!(*posted.lock().unwrap(), lines.lines().collect::<Vec<_>>(), "the web address and the command are told the same");
        lines.lines().count()
    };
    assert_eq!((night().code, told()), (3, 1), "the first night differs, which is news");
    assert_eq!((night().code, told()), (3, 1), "the same again is none");
    soc(dir, &["apply", "p.yml", "-i", &inventory]).ok();
    assert_eq!((night().code, told()), (0, 2), "in sync again is news");
    assert_eq!((night().code, told()), (0, 2));
    // As the timer calls it: what was installed counts, also where a playbook has the same name.
    let place = dir.join(".local/state/soc-provision/schedules");
    let settings = serde_json::json!({"name": "p", "root": dir, "arguments": [dir.join("playbooks/p.yml"), "-i", inventory], "command": format!("echo installed >{}", dir.join("installed").display()),
        "webhook": null, "mail": null, "metrics": null});
    std::fs::write(place.join("p.json"), settings.to_string()).unwrap();
    lab.sh("h1", "echo y >/etc/night");
    assert_eq!(soc(dir, &["schedule", "p", "--now", "--installed"]).code, 3);
    assert!(dir.join("installed").exists());
    assert_eq!(soc(dir, &["schedule", "q", "--now", "--installed"]).code, 1);
    soc(dir, &["apply", "p.yml", "-i", &inventory]).ok();
    assert_eq!(soc(dir, &["schedule", "p", "--now", "--installed"]).code, 0);
    let last: serde_json::Value = serde_json::from_str(std::fs::read_to_string(&news).unwrap().lines().last().unwrap()).unwrap();
    assert_eq!((last["exit"].as_u64(), last["exit_before"].as_u64(), last["gone"].as_array().unwrap().len()), (Some(0), Some(3), 1));
    let metrics = || std::fs::read_to_string(dir.join("p.prom")).unwrap();
    let success = |text: &str| text.lines().find(|line| line.starts_with("soc_provision_last_success")).unwrap().to_owned();
    assert!(metrics().contains("soc_provision_hosts{schedule=\"p\",state=\"ok\"} 1"), "{}", metrics());
    // A night without an answer is not a success, and is news.
    assert_eq!(night().code, 0, "once more, for the metrics");
    let answered = success(&metrics());
    lab.power("h1", "off");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((night().code, told()), (4, 3));
    assert_eq!(success(&metrics()), answered);
    assert!(metrics().contains("soc_provision_hosts{schedule=\"p\",state=\"unreachable\"} 1"), "{}", metrics());
    lab.power("h1", "on");
}

#[test]
fn a_run_waits_for_another_if_it_is_told_to() {
    let Some(lab) = Lab::containers(1, &[]) else { return };
    let project = Project::new(&[
        ("playbooks/slow.yml", "- hosts: h1\n  tasks:\n    - command: {cmd: sleep 8}\n"),
        ("playbooks/p.yml", "- hosts: h1\n  tasks:\n    - copy: {dest: /etc/waits, content: \"x\\n\"}\n"),
    ]);
    let dir = project.dir.path();
    let inventory = lab.inventory().display().to_string();
    let on = |words: &[&str]| soc(dir, &[words, &["-i", &inventory]].concat());
    let mut slow = command(dir, &["apply", "slow.yml", "-i", &inventory]);
    let mut slow = slow.stdout(Stdio::null()).spawn().unwrap();
    lab.until("h1", "pgrep -fx 'sleep 8'");
    let refused = on(&["apply", "p.yml"]);
    assert!(refused.code == 2 && refused.stderr.contains("locked by run"), "{}", refused.all());
    let drift = on(&["drift", "p.yml"]);
    assert!(drift.code == 3 && drift.all().contains("is under way"), "{}", drift.all());
    let began = Instant::now();
    let waited = on(&["apply", "p.yml", "--wait", "1m"]).ok();
    assert!(waited.stderr.contains("waiting for it"), "{}", waited.stderr);
    assert!(began.elapsed() > Duration::from_secs(1) && slow.try_wait().unwrap().is_some(), "it went on before the other had ended");
    assert_eq!(on(&["apply", "p.yml", "--wait", "soon"]).code, 1);
}
