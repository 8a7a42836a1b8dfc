//! Bad input of the security kinds, and bad keys: each is found, and named, before the host is
//! changed, although a harmless change stands before it.

use crate::harness::{Lab, Project, command, soc};

const BEFORE: &str = "- hosts: h1\n  tasks:\n    - copy: {dest: /etc/before, content: x}\n";

/// A task, and what must be said about it.
const BAD: &[(&str, &str)] = &[
    ("    - firewall: {published: [{port: 70000}]}\n", "70000"),
    ("    - firewall: {published: [{prot: 80}]}\n", "prot"),
    ("    - firewall: {ssh: {from: [10.0.0.1/8]}}\n", "10.0.0.0/8"),
    ("    - firewall: {docker_bridges: ['br0\"; drop']}\n", "docker_bridges"),
    ("    - firewall: {ssh: {ports: []}}\n", "nobody could log in"),
    ("    - sudoers: {name: bad, content: 'ops ALL=(ALL NOPASSWD'}\n", "sudoers[/etc/sudoers.d/bad] is invalid"),
    ("    - sshd_config: {options: {PermitRootLogins: false}}\n", "PermitRootLogins"),
    ("    - sshd_config: {options: {MaxAuthTries: many}}\n", "10-soc-provision.conf line 2: MaxAuthTries integer value invalid"),
    ("    - sshd_config: {options: {AllowTcpForwarding: false}}\n", "AllowTcpForwarding"),
    ("    - docker_engine: {daemon: {audit-log: {}}}\n", "audit-log"),
    ("    - docker_engine: {daemon: {log-levl: info}}\n", "did you mean `log-level`"),
    ("    - docker_engine: {daemon: {iptables: false}}\n", "is no firewall"),
    ("    - docker_engine: {daemon: {hosts: ['tcp://0.0.0.0:2375']}}\n", "without `tlsverify`"),
    ("    - audit_rules: {name: x, paths: [etc/passwd]}\n", "etc/passwd"),
    ("    - apparmor_profile: {name: web, src: seed.profile}\n", "takes away what others allow"),
    ("    - apparmor_profile: {name: web, src: nowhere}\n", "nowhere"),
    ("    - seccomp_profile: {name: web, src: seed.json}\n", "64-bit ARM is `SCMP_ARCH_AARCH64`"),
    ("    - seccomp_profile: {name: web, src: typo.json}\n", "did you mean `accept4`"),
    ("    - seccomp_profile: {name: web, content: '{'}\n", "seccomp_profile"),
    ("    - secret: {name: nothere, path: /etc/x}\n", "secrets set nothere"),
    ("    - secret: {name: token, path: /etc/x, mode: '0644'}\n", "lets everybody"),
    ("    - tls_certificate: {name: web, names: [web.example]}\n", "secrets ca soc-ca"),
    ("    - tls_certificate: {name: web, names: [web.example], authority: token}\n", "secrets ca"),
    ("    - tls_certificate: {name: web, names: ['not..one']}\n", "neither a DNS name nor an address"),
];

/// The profile that circulates: a deny rule that beats every allow, and no rule to run anything.
const SEED_APPARMOR: &str = "#include <tunables/global>

profile web flags=(attach_disconnected,mediate_deleted) {
  #include <abstractions/base>

  # Allow network access
  network inet tcp,
  network inet udp,

  # Allow read access to app files
  /app/** r,

  # Allow write to specific paths
  /app/data/parsed/** rw,
  /app/logs/** rw,
  /tmp/** rw,

  # Deny everything else
  deny /** w,
}
";
/// The filter that circulates, shortened: an architecture that does not exist, and less than runc needs.
const SEED_SECCOMP: &str = r#"{ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_ARM64"],
  "syscalls": [{ "names": ["accept", "bind", "clone", "close", "execve", "exit", "futex", "mmap", "openat", "read", "write"], "action": "SCMP_ACT_ALLOW" }] }"#;

#[test]
fn bad_input_is_found_before_the_host_is_changed() {
    let Some(lab) = Lab::containers(1, &["--docker"]) else { return };
    let seccomp = std::fs::read_to_string(crate::harness::root().join("roles/seccomp/files/waf.json")).unwrap();
    let mut files: Vec<(String, String)> =
        BAD.iter().enumerate().map(|(number, (task, _))| (format!("playbooks/bad{number}.yml"), format!("{BEFORE}{task}"))).collect();
    files.push(("playbooks/good.yml".into(), format!("{BEFORE}    - secret: {{name: token, path: /etc/token}}\n")));
    files.push(("playbooks/files/typo.json".into(), seccomp.replacen("\"accept4\"", "\"acept4\"", 1)));
    files.push(("playbooks/files/seed.json".into(), SEED_SECCOMP.into()));
    files.push(("playbooks/files/seed.profile".into(), SEED_APPARMOR.into()));
    let project = Project::new(&files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>());
    let (dir, inventory) = (project.dir.path(), lab.inventory());
    soc(dir, &["secrets", "keygen"]).ok();
    soc(dir, &["secrets", "init"]).ok();
    soc(dir, &["secrets", "set", "token", "--generate"]).ok();
    lab.sh("h1", "command -v auditctl >/dev/null || { apt-get -qq update && apt-get -qq install -y nftables auditd >/dev/null; }");
    let untouched = |what: &str| {
        assert_eq!(
            lab.sh("h1", "test ! -e /etc/before && test ! -e /etc/token && echo fine"),
            "fine",
            "{what}: something was changed first"
        )
    };
    let mut wrong = Vec::new();
    for (number, (task, word)) in BAD.iter().enumerate() {
        let run = soc(dir, &["apply", &format!("bad{number}.yml"), "-i", inventory.to_str().unwrap()]);
        if !matches!(run.code, 1 | 2) || !run.all().contains(word) {
            wrong.push(format!("{task}: code {}, `{word}` wanted:\n{}", run.code, run.all()));
        }
        untouched(task);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n----\n"));

    // Keys and files of secrets.
    let good = |more: &[&str]| soc(dir, &[&["apply", "good.yml", "-i", inventory.to_str().unwrap()], more].concat());
    let bad = |what: &str, more: &[&str], word: &str| {
        let run = good(more);
        assert!(matches!(run.code, 1 | 2) && run.all().contains(word), "{what}: code {}, `{word}` wanted: {}", run.code, run.all());
        untouched(what);
    };
    let other = dir.join("other.txt");
    soc(dir, &["secrets", "keygen", "--output", other.to_str().unwrap()]).ok();
    bad("another identity", &["--identity", other.to_str().unwrap()], "is not encrypted to any of your identities");
    bad("no such identity", &["--identity", "/nonexistent"], "/nonexistent");
    let garbage = dir.join("garbage");
    std::fs::write(&garbage, "AGE-SECRET-KEY-1NOTAKEY\n").unwrap();
    let run = good(&["--identity", garbage.to_str().unwrap()]);
    assert!(run.all().contains("line 1 is no age identity") && !run.all().contains("1NOTAKEY"), "{}", run.all());
    untouched("a spoilt identity");
    let file = dir.join("secrets/token.age");
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (what, bytes) in
        [("truncated", &whole[..whole.len() - 20]), ("empty", &[][..]), ("changed by a bit", &flipped[..]), ("text", b"token\n")]
    {
        std::fs::write(&file, bytes).unwrap();
        bad(what, &[], "corrupted or truncated");
    }
    std::fs::write(&file, &whole).unwrap();
    // Nobody may be left out in silence: a recipient that the files are not encrypted to.
    let recipients = dir.join("secrets/recipients.txt");
    let list = std::fs::read_to_string(&recipients).unwrap();
    let newcomer = String::from_utf8(command(dir, &["secrets", "keygen", "--output", "new.txt"]).output().unwrap().stdout).unwrap();
    std::fs::write(&recipients, format!("{list}{newcomer}")).unwrap();
    let check = soc(dir, &["secrets", "check"]);
    assert!(check.code == 1 && check.all().contains("rekey"), "{}", check.all());
    std::fs::write(&recipients, "age1nonsense\n").unwrap();
    let nonsense = soc(dir, &["secrets", "set", "more", "--generate"]);
    assert!(nonsense.code == 1 && nonsense.all().contains("recipients.txt"), "{}", nonsense.all());
    std::fs::write(&recipients, list).unwrap();
    good(&[]).ok();
}
