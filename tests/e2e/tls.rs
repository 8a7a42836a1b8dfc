//! Certificates by the project's own authority: made for one host, compared without a key, renewed
//! when the host's clock says so.

use std::path::Path;

use crate::harness::{Lab, Project, command, recap, soc};

const PLAY: &str = "
- hosts: lab
  roles:
    - role: tls
      vars:
        tls_certificates:
          - {name: web, names: [web.example, '10.0.0.5'], owner: 1000, group: 1000}
";

fn roles_of_the_house(project: &Project) {
    let link = project.dir.path().join("roles");
    std::os::unix::fs::symlink(crate::harness::root().join("roles"), link).unwrap();
}

/// Whether any file below a directory has these bytes.
fn holds(dir: &Path, needle: &str) -> bool {
    std::fs::read_dir(dir).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_symlink() {
            return false;
        }
        if path.is_dir() {
            return holds(&path, needle);
        }
        String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).contains(needle)
    })
}

#[test]
fn a_certificate_is_its_host_s_alone_and_is_renewed() {
    let Some(lab) = Lab::containers(2, &[]) else { return };
    let project = Project::new(&[("playbooks/tls.yml", PLAY)]);
    roles_of_the_house(&project);
    let (dir, inventory) = (project.dir.path(), lab.inventory());
    let run = |verb: &str, more: &[&str]| soc(dir, &[&[verb, "tls.yml", "-i", inventory.to_str().unwrap()], more].concat());
    // Without the authority: refused, and by what name it is made.
    soc(dir, &["secrets", "keygen"]).ok();
    soc(dir, &["secrets", "init"]).ok();
    let refused = run("apply", &[]);
    assert!(refused.code == 1 && refused.all().contains("soc-provision secrets ca soc-ca"), "{}", refused.all());
    let made = soc(dir, &["secrets", "ca"]).ok();
    assert!(made.stdout.starts_with("-----BEGIN CERTIFICATE-----") && !made.all().contains("PRIVATE"), "{}", made.all());
    assert_eq!(soc(dir, &["secrets", "ca", "--print"]).ok().stdout, made.stdout);
    assert!(soc(dir, &["secrets", "ca"]).all().contains("--replace"));

    let applied = run("apply", &["-D", "-vvvv"]).ok();
    let key = |host: &str| lab.sh(host, "cat /etc/soc-provision/tls/web.key");
    let (one, two) = (key("h1"), key("h2"));
    assert!(one.starts_with("-----BEGIN PRIVATE KEY-----") && one != two);
    assert_eq!(lab.sh("h1", "stat -c '%a %u %g' /etc/soc-provision/tls/web.key /etc/soc-provision/tls/web.crt"), "400 1000 1000\n444 0 0");
    let facts = "openssl x509 -in /etc/soc-provision/tls/web.crt -noout -ext subjectAltName | tail -1; openssl verify -CAfile /etc/soc-provision/tls/web-ca.crt /etc/soc-provision/tls/web.crt; [ \"$(openssl pkey -in /etc/soc-provision/tls/web.key -pubout)\" = \"$(openssl x509 -in /etc/soc-provision/tls/web.crt -noout -pubkey)\" ] && echo fits";
    assert_eq!(lab.sh("h1", facts).trim(), "DNS:web.example, IP Address:10.0.0.5\n/etc/soc-provision/tls/web.crt: OK\nfits");
    let line = one.lines().nth(1).unwrap();
    assert!(!applied.all().contains(line) && !holds(dir, line), "the key is on the controller");
    assert_eq!(lab.sh("h2", &format!("grep -rlF -- '{line}' /etc /var/lib/soc-provision /tmp /root || echo none")), "none");

    let again = run("apply", &["--format", "json"]).ok().json();
    assert_eq!((recap(&again, "h1", "changed"), recap(&again, "h2", "changed")), (0, 0));
    // Comparing takes no key of anybody.
    let blind = command(dir, &["drift", "tls.yml", "-i", inventory.to_str().unwrap()]).env("HOME", "/nonexistent").output().unwrap();
    assert_eq!(blind.status.code(), Some(0), "{}{}", String::from_utf8_lossy(&blind.stdout), String::from_utf8_lossy(&blind.stderr));

    // Each hand on it is seen and put right, key and certificate together.
    let serial = |host: &str| lab.sh(host, "openssl x509 -in /etc/soc-provision/tls/web.crt -noout -serial");
    for tamper in
        ["echo x >>/etc/soc-provision/tls/web.key", "rm /etc/soc-provision/tls/web.crt", "chmod 0644 /etc/soc-provision/tls/web.key"]
    {
        let before = serial("h1");
        lab.sh("h1", tamper);
        assert_eq!(run("drift", &[]).code, 3, "{tamper}");
        run("apply", &[]).ok();
        assert!(lab.sh("h1", facts).ends_with("fits"), "{tamper}");
        assert_eq!(before == serial("h1"), tamper.starts_with("chmod"), "{tamper}");
        assert_eq!(run("drift", &[]).code, 0, "{tamper}");
    }
    // A year on, by the host's clock.
    lab.sh("h1", "printf '#!/bin/sh\\n[ \"$1\" = +%%s ] && exec /usr/bin/date -d \"375 days\" +%%s\\nexec /usr/bin/date \"$@\"\\n' >/usr/local/sbin/date; chmod 755 /usr/local/sbin/date");
    let (before, drift) = (serial("h1"), run("drift", &[]));
    assert!(drift.code == 3 && drift.all().contains("ends on 20"), "{}", drift.all());
    run("apply", &[]).ok();
    assert_ne!(serial("h1"), before);
    lab.sh("h1", "rm /usr/local/sbin/date");
    assert_eq!(run("drift", &[]).code, 0);
    // A new authority, and everything is issued anew.
    soc(dir, &["secrets", "ca", "--replace"]).ok();
    assert_eq!(run("drift", &[]).code, 3);
    run("apply", &[]).ok();
    assert!(lab.sh("h1", facts).ends_with("fits"));
}
