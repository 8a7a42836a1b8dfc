//! The firewall beside Docker: what is listed answers, nothing else does, for outsiders and for
//! neighbours, now, after Docker restarted and after a power cut; over both families.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{Lab, Project, soc};

const STACK: &str = "
    - docker_engine: {daemon: {default-ulimits: null}}
    - docker_image: {name: 'soc/page:1', stand_in: {listen: [8080], user: 65534}}
    - docker_image: {name: 'soc/host:1', stand_in: {listen: [7000], user: 65534}}
    - compose_stack:
        name: pages
        hardening: 'off'
        compose:
          services:
            open: {image: 'soc/page:1', restart: unless-stopped, ports: ['8080:8080'], networks: [pages]}
            shut: {image: 'soc/page:1', restart: unless-stopped, ports: ['9200:8080'], networks: [pages]}
            host: {image: 'soc/host:1', restart: unless-stopped, network_mode: host}
          networks:
            pages: {ipam: {config: [{subnet: 172.29.77.0/28}]}}
";
const FIREWALL: &str = "
    - package: {name: nftables}
    - firewall: {published: [{port: 8080}], guard_timeout: 30}
";

/// Whether something serves at an address, as seen from this machine.
fn answers(address: &str) -> bool {
    let address: SocketAddr = address.parse().unwrap();
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    stream.read(&mut [0; 16]).is_ok_and(|count| count > 0)
}

struct Bed {
    lab: Lab,
    address: String,
}

impl Bed {
    /// Whether the neighbour gets a connection.
    fn neighbour(&self, address: &str, port: u16) -> bool {
        self.lab.ssh("h2", "root", &format!("timeout 2 bash -c '</dev/tcp/{address}/{port}'")).status.success()
    }

    fn outside(&self, port: u16) -> bool {
        answers(&format!("{}:{port}", self.address))
    }

    fn container(&self, service: &str) -> String {
        self.lab.sh(
            "h1",
            &format!("docker inspect -f '{{{{range .NetworkSettings.Networks}}}}{{{{.IPAddress}}}}{{{{end}}}}' pages-{service}-1"),
        )
    }

    /// Waits until the listed port answers: the containers are back.
    fn wait(&self, when: &str) {
        let until = Instant::now() + Duration::from_secs(60);
        while !self.outside(8080) {
            assert!(Instant::now() < until, "{when}: the listed port does not answer");
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn is_closed_but_for_the_list(&self, when: &str) {
        self.wait(when);
        assert_eq!(self.lab.sh("h1", "docker ps -q | wc -l"), "3", "{when}");
        assert!(!self.outside(9200), "{when}: a published port that is not listed answers");
        assert!(!self.outside(7000), "{when}: a port of a container on the host's network answers");
        for service in ["open", "shut"] {
            assert!(!self.neighbour(&self.container(service), 8080), "{when}: a neighbour reaches `{service}` by its own address");
        }
        assert!(self.neighbour(&self.address, 8080) && !self.neighbour(&self.address, 9200), "{when}");
        // The way out, and between containers, stays open.
        assert_eq!(
            self.lab.sh(
                "h1",
                &format!(
                    "docker exec pages-shut-1 /bin/busybox wget -q -T 3 -O /dev/null http://{}:8080/ && echo fine",
                    self.container("open")
                )
            ),
            "fine",
            "{when}"
        );
    }
}

#[test]
fn only_what_is_listed_answers() {
    let Some(lab) = Lab::containers(2, &["--docker"]) else { return };
    let project = Project::new(&[
        ("playbooks/open.yml", &format!("- hosts: h1\n  tasks:{STACK}")),
        ("playbooks/closed.yml", &format!("- hosts: h1\n  tasks:{STACK}{FIREWALL}")),
        ("playbooks/other.yml", &format!("- hosts: h1\n  tasks:{STACK}{}", FIREWALL.replace("8080", "8443"))),
    ]);
    let inventory = lab.inventory();
    let run = |verb: &str, playbook: &str| soc(project.dir.path(), &[verb, playbook, "-i", inventory.to_str().unwrap()]);
    let address = lab.sh("h1", "ip -4 -o addr show eth0 | tr -s ' ' | cut -d' ' -f4 | cut -d/ -f1");
    let bed = Bed { lab, address };
    let host = |script: &str| bed.lab.sh("h1", script);

    // Without it everything is open: the later refusals are the firewall's.
    let open = run("apply", "open.yml").ok();
    assert!(open.all().contains("port 9200/tcp") && open.all().contains("is open to everybody"), "{}", open.all());
    bed.wait("without a firewall");
    bed.lab.sh("h2", &format!("ip route add 172.29.77.0/28 via {}", bed.address));
    let direct = bed.container("open");
    assert!(bed.outside(9200) && bed.outside(7000) && bed.neighbour(&direct, 8080), "the control failed");

    // The plan says what the list and the stacks disagree about.
    let plan = run("plan", "other.yml").ok();
    assert!(plan.all().contains("port 8080/tcp") && plan.all().contains("is closed from outside"), "{}", plan.all());
    assert!(plan.all().contains("lists 8443/tcp, which no stack"), "{}", plan.all());
    run("apply", "closed.yml").ok();
    bed.is_closed_but_for_the_list("applied");
    assert!(run("apply", "closed.yml").ok().stdout.contains("changed=0"));
    host("systemctl restart docker");
    bed.is_closed_but_for_the_list("Docker restarted");
    bed.lab.power("h1", "reset");
    bed.is_closed_but_for_the_list("after a power cut");
    let again = run("apply", "closed.yml").ok();
    assert!(again.stdout.contains("changed=0"), "{}", again.stdout);

    // The other family: ssh answers, the port on the host's network does not.
    for (name, own) in [("h1", "1"), ("h2", "2")] {
        bed.lab.sh(name, &format!("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip addr add fd5c::{own}/64 dev eth0 nodad"));
    }
    host("docker exec pages-host-1 true; ss -Hltn | grep -q ':7000'");
    assert!(bed.neighbour("fd5c::1", 22), "ssh over IPv6");
    assert!(!bed.neighbour("fd5c::1", 7000) && !bed.neighbour("fd5c::1", 9200), "IPv6 is open");

    // Rules by hand are drift, and go; so does a table that somebody flushed come back.
    for hand in [
        "nft add rule inet soc_provision input tcp dport 7000 accept",
        "nft insert rule inet soc_provision forward accept",
        "nft delete table inet soc_provision",
        "systemctl disable -q soc-provision-firewall.service",
        "echo '# more' >>/etc/soc-provision/firewall.nft",
    ] {
        host(hand);
        let drift = run("drift", "closed.yml");
        assert_eq!(drift.code, 3, "{hand}: {}", drift.all());
        run("apply", "closed.yml").ok();
        assert_eq!(run("drift", "closed.yml").code, 0, "{hand}");
    }
    bed.is_closed_but_for_the_list("put right");

    // What would fight it is named before anything is touched.
    for (rival, back, word) in [
        ("systemctl enable -q nftables.service", "systemctl disable -q nftables.service", "flush ruleset"),
        (
            "mkdir -p /etc/ufw; echo ENABLED=yes >/etc/ufw/ufw.conf; cp /bin/true /usr/sbin/ufw",
            "rm -r /etc/ufw /usr/sbin/ufw",
            "ufw_input: keep",
        ),
    ] {
        host(rival);
        let refused = run("apply", "closed.yml");
        assert_eq!(refused.code, 2, "{}", refused.all());
        assert!(refused.all().contains(word) && refused.all().contains("nothing was touched"), "{}", refused.all());
        host(back);
    }
    assert!(run("apply", "closed.yml").ok().stdout.contains("changed=0"));
}
