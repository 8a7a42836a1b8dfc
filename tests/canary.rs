//! The canary: the detector fires on every form, masking stops it, and `secrets` shows no value.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/canary.rs"]
mod canary;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use canary::Canary;
use soc_provision::secret::{SecretName, Vault};
use zeroize::Zeroizing;

/// The value as it may come back, each with what surrounds it.
fn planted(value: &str) -> Vec<(&'static str, String)> {
    let standard = &base64::engine::general_purpose::STANDARD;
    let percent = |keep: &[u8]| {
        value
            .bytes()
            .map(|b| if b.is_ascii_alphanumeric() || keep.contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect::<String>()
    };
    let mut forms = vec![
        ("plain", format!("before {value} after")),
        ("json", serde_json::json!({ "k": value }).to_string()),
        ("url", format!("https://x/?q={}&y", percent(b"-_.~"))),
        ("shell", format!("echo '{}'", value.replace('\'', r"'\''"))),
    ];
    for prefix in ["", "a", "ab"] {
        forms.push(("base64", format!("x {} y", standard.encode(format!("{prefix}{value} tail")))));
        forms.push(("base64 url", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{prefix}{value}"))));
    }
    forms
}

#[test]
fn the_detector_fires_on_every_form_and_on_nothing_else() {
    let canary = Canary::new();
    let other = Canary::new();
    for (form, text) in planted(&canary.value) {
        assert_eq!(canary.hits([("out", text.as_bytes())]).len(), 1, "{form}: {text}");
        assert_eq!(other.hits([("out", text.as_bytes())]), [], "{form}: {text}");
    }
    let escaped = canary.value.replace('&', "&amp;").replace('"', "&quot;").replace('\'', "&#39;").replace('<', "&lt;");
    let hex = soc_provision::secret::hex(canary.value.as_bytes());
    let cut = &canary.value[..20];
    for text in [escaped, hex, cut.to_owned()] {
        assert_eq!(canary.hits([("out", text.as_bytes())]).len(), 1, "{text}");
    }
    let wrapped = base64::engine::general_purpose::STANDARD
        .encode(&canary.value)
        .as_bytes()
        .chunks(8)
        .map(|chunk| String::from_utf8_lossy(chunk).into_owned())
        .collect::<Vec<_>>()
        .join("\n");
    assert_eq!(canary.hits([("wrapped", wrapped.as_bytes())]).len(), 1);
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("deep")).unwrap();
    std::fs::write(dir.path().join("deep/file"), &canary.value).unwrap();
    assert_eq!(canary.hits_below(dir.path()).len(), 1);
    assert!(other.hits_below(dir.path()).is_empty());
}

#[test]
fn masking_leaves_nothing_that_the_detector_finds() {
    for _ in 0..50 {
        let canary = Canary::new();
        let mut vault = Vault::default();
        vault.insert(SecretName::parse("canary").unwrap(), Zeroizing::new(canary.value.clone()));
        for (form, text) in planted(&canary.value) {
            let masked = vault.masker().mask(&text);
            assert_eq!(canary.hits([("masked", masked.as_bytes())]), [], "{form}: {masked}");
        }
    }
}

/// Runs `soc-provision secrets` in a project, with a value on stdin.
fn secrets(root: &Path, words: &[&str], stdin: &str) -> Output {
    use std::io::Write as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_soc-provision"))
        .arg("secrets")
        .args(words)
        .current_dir(root)
        .env("HOME", root.parent().unwrap())
        .env_remove("SOC_PROVISION_IDENTITY")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads no value may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn no_secrets_command_but_get_shows_a_value() {
    let canary = Canary::new();
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("project");
    std::fs::create_dir(&root).unwrap();
    let fine = |words: &[&str], stdin: &str| {
        let output = secrets(&root, words, stdin);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(canary.hits([("stdout", &output.stdout[..]), ("stderr", &output.stderr[..])]), [], "{words:?}");
    };
    let value = format!("{}\n", canary.value);
    fine(&["keygen"], "");
    fine(&["init"], "");
    fine(&["set", "canary"], &value);
    fine(&["set", "other/canary", "--into", "all.yml.age"], &value);
    fine(&["list"], "");
    fine(&["check"], "");
    fine(&["rekey"], "");
    // Failures: too short elsewhere, twice, broken file.
    let broken = std::fs::read(root.join("secrets/canary.age")).unwrap();
    std::fs::write(root.join("secrets/canary.age"), &broken[..broken.len() - 40]).unwrap();
    for words in [
        &["set", "canary", "--into", "all.yml.age"][..],
        &["get", "canary"],
        &["check"],
        &["rekey"],
        &["get", "canar"],
        &["set", "bad name"],
    ] {
        let output = secrets(&root, words, &value);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert_eq!(canary.hits([("stdout", &output.stdout[..]), ("stderr", &output.stderr[..])]), [], "{words:?}");
    }
    assert_eq!(canary.hits_below(home.path()), []);
    // The control: the value is there, and the detector sees it.
    let output = secrets(&root, &["get", "other/canary"], "");
    assert_eq!(canary.hits([("stdout", &output.stdout[..])]).len(), 1);
}
