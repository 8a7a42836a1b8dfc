//! The maker of certificates, run for real.

use std::path::Path;
use std::process::{Command, Output};

use crate::render::root;

fn cert(dir: &Path, arguments: &[&str]) -> Output {
    Command::new("sh")
        .arg(root().join("roles/soc_common/files/soc-cert"))
        .args(arguments)
        .env("SOC_CERT_CA", dir.join("ca"))
        .output()
        .unwrap()
}

/// The uid that the tests run as, which keys can be given to without being root.
fn uid() -> String {
    String::from_utf8(Command::new("id").arg("-u").output().unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn a_certificate_is_made_once_and_again_when_names_change() {
    let site = tempfile::tempdir().unwrap();
    let (dir, uid) = (site.path().join("indexer"), uid());
    let dir = dir.to_str().unwrap();
    let names = "wazuh-indexer,localhost,127.0.0.1";
    assert!(!cert(site.path(), &["check", dir, "wazuh-indexer", &uid, names]).status.success());
    let made = cert(site.path(), &["make", dir, "wazuh-indexer", &uid, names]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let checked = cert(site.path(), &["check", dir, "wazuh-indexer", &uid, names]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    for other in [["wazuh-indexer", "wazuh-indexer,localhost"], ["other", names]] {
        assert!(!cert(site.path(), &["check", dir, other[0], &uid, other[1]]).status.success(), "{other:?}");
    }
    // OpenSearch knows nodes by this very form of the subject.
    let subject = Command::new("openssl")
        .args(["x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in"])
        .arg(format!("{dir}/cert.pem"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(subject.stdout).unwrap().trim(), "subject=CN=wazuh-indexer");
    assert!(crate::render::read("roles/siem/templates/opensearch.yml").contains("\"CN=wazuh-indexer\""));
    let key = std::fs::read_to_string(format!("{dir}/key.pem")).unwrap();
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "PKCS#8, which Java reads");
}

#[test]
fn a_new_authority_makes_old_certificates_bad() {
    let site = tempfile::tempdir().unwrap();
    let (dir, uid) = (site.path().join("a"), uid());
    let dir = dir.to_str().unwrap();
    assert!(cert(site.path(), &["make", dir, "a", &uid, "a"]).status.success());
    std::fs::remove_dir_all(site.path().join("ca")).unwrap();
    assert!(!cert(site.path(), &["check", dir, "a", &uid, "a"]).status.success());
    assert!(cert(site.path(), &["make", dir, "a", &uid, "a"]).status.success());
    assert!(cert(site.path(), &["check", dir, "a", &uid, "a"]).status.success());
}

#[test]
fn damage_to_a_certificate_is_noticed() {
    let site = tempfile::tempdir().unwrap();
    let (dir, uid) = (site.path().join("a"), uid());
    let dir = dir.to_str().unwrap();
    assert!(cert(site.path(), &["make", dir, "a", &uid, "a"]).status.success());
    let other = site.path().join("b");
    assert!(cert(site.path(), &["make", other.to_str().unwrap(), "a", &uid, "a"]).status.success());
    std::fs::remove_file(format!("{dir}/key.pem")).unwrap();
    std::fs::copy(other.join("key.pem"), format!("{dir}/key.pem")).unwrap();
    assert!(!cert(site.path(), &["check", dir, "a", &uid, "a"]).status.success(), "another certificate's key");
}
