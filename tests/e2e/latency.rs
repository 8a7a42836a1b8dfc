//! How often a whole unchanged run waits for the line, login included (issue 2). Measured as a user
//! feels it: through a relay that makes each way late, against the same run without the relay.

use std::time::{Duration, Instant};

use crate::harness::{Lab, Project, recap, soc};
use crate::relay;

/// Each way; twice that is a round trip, and much longer than what a busy machine adds by chance.
const ONE_WAY: Duration = Duration::from_millis(300);

const PLAY: &str = "- hosts: far
  tasks:
    - directory: {path: /etc/latency}
    - copy: {dest: /etc/latency/a, content: \"a\\n\"}
    - template: {dest: /etc/latency/b, src: b.j2}
    - user: {name: latency}
    - service: {name: ssh, state: started}
";

/// The quickest of a few runs.
fn quickest(times: u32, mut run: impl FnMut()) -> Duration {
    let time = |_| {
        let started = Instant::now();
        run();
        started.elapsed()
    };
    (0..times).map(time).min().unwrap()
}

#[test]
fn an_unchanged_run_costs_nine_round_trips_and_ten_with_a_sudo_password() {
    let Some(lab) = Lab::containers(1, &[]) else { return };
    let inventory = std::fs::read_to_string(lab.inventory()).unwrap();
    let address = inventory.split_once("ansible_host: ").unwrap().1.lines().next().unwrap().trim().to_owned();
    let known = std::fs::read_to_string(lab.inventory().with_file_name("known_hosts")).unwrap();
    let key = known.lines().find_map(|line| line.strip_prefix(&format!("{address} "))).unwrap_or_else(|| panic!("{known}")).to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let relay = |delay| runtime.block_on(relay::start_to(format!("{address}:22").parse().unwrap(), delay));
    let (near, far) = (relay(Duration::ZERO), relay(ONE_WAY));
    let project = Project::new(&[("playbooks/p.yml", PLAY), ("playbooks/templates/b.j2", "b\n"), ("pass", "lab-sudo-pw\n")]);
    let pins: String = [near.port, far.port].map(|port| format!("[127.0.0.1]:{port} {key}\n")).concat();
    project.write("inventory/known_hosts", &pins);
    for (user, limit) in [("root", 9.0), ("ops", 9.0), ("deploy", 10.0)] {
        let run = |port: u16| {
            project.write("inventory/p.yml", &format!(
                "far:\n  hosts:\n    h1: {{ansible_host: 127.0.0.1, ansible_port: {port}, ansible_user: {user}, ansible_become: true, ansible_ssh_private_key_file: {}}}\n",
                lab.key().display()
            ));
            let mut arguments = vec!["apply", "p.yml", "-T", "20", "--format", "json"];
            if user == "deploy" {
                arguments.extend(["--become-password-file", "pass"]);
            }
            soc(project.dir.path(), &arguments).ok().json()
        };
        run(near.port);
        // The last word of a run is not waited for, and arrives all the same.
        for port in [near.port, far.port] {
            let id = run(port)["run"]["run"].as_str().unwrap().to_owned();
            lab.until("h1", &format!("grep -qx 'run {id}' /var/lib/soc-provision/last"));
        }
        let direct = quickest(3, || assert_eq!(recap(&run(near.port), "h1", "changed"), 0));
        let mut trips = f64::MAX;
        for _ in 0..3 {
            let late = quickest(1, || assert_eq!(recap(&run(far.port), "h1", "changed"), 0));
            // The relay accepts at once, so the connection's own round trip is added.
            trips = trips.min(late.saturating_sub(direct).as_secs_f64() / (2 * ONE_WAY).as_secs_f64() + 1.0);
            if trips < limit + 0.4 {
                break;
            }
        }
        eprintln!("{user}: {trips:.2} round trips, {direct:?} without the line");
        assert!(trips < limit + 0.5, "{user}: {trips:.2} round trips, at most {limit}");
        assert!(trips > 6.0, "{user}: {trips:.2} round trips cannot be: is the relay late at all?");
    }
}
