//! Against a lab's hosts (`lab/up 2`): real `sudo`, login shells of all kinds, a jump host.
//! `SOC_LAB` names the lab's directory, `.lab/demo`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use soc_provision::diagnostic::FailureClass;
use soc_provision::resource::plan::Upload;
use soc_provision::transport::{Connector, Controller, Frame, HostKeyPolicy, Privilege, SessionError, Target};

use super::{code, echo, words};

struct Lab {
    dir: PathBuf,
    /// `h1`, and `h2`'s address that only `h1` reaches.
    address: String,
    inner: Option<String>,
}

fn lab() -> Option<Lab> {
    let Some(dir) = std::env::var_os("SOC_LAB") else {
        eprintln!("skipped: SOC_LAB names no lab");
        return None;
    };
    let dir = std::fs::canonicalize(dir).unwrap();
    let inventory = std::fs::read_to_string(dir.join("inventory.yml")).unwrap();
    let hosts: Vec<_> = inventory.lines().filter_map(|line| line.trim().strip_prefix("ansible_host: ")).map(str::to_owned).collect();
    let inner = hosts.last().filter(|_| inventory.contains("behind_jump")).cloned();
    Some(Lab { dir, address: hosts[0].clone(), inner })
}

impl Lab {
    fn target(&self, user: &str, privilege: Privilege) -> Target {
        Target {
            host: "h1".into(),
            local: false,
            address: self.address.clone(),
            port: None,
            user: Some(user.to_owned()),
            identity_files: vec![self.dir.join("id_ed25519")],
            password: None,
            proxy_jump: None,
            proxy_command: None,
            known_hosts: vec![self.dir.join("known_hosts")],
            host_keys: HostKeyPolicy::Strict,
            privilege,
            connect_timeout: Duration::from_secs(20),
            use_ssh_config: false,
            legacy: false,
        }
    }

    fn connector(&self) -> Connector {
        let home = self.dir.join("nobody's home");
        Connector::new(Controller { home, user: "nobody".into(), agent: None, cache: None, ask: Arc::new(|_| None) })
    }
}

fn sudo(password: Option<&str>) -> Privilege {
    Privilege::Sudo { password: password.map(|text| text.to_owned().into()) }
}

#[tokio::test]
async fn every_login_shell_becomes_root() {
    let Some(lab) = lab() else { return };
    let connector = lab.connector();
    // No login shell may choke on a long command.
    let long = "x".repeat(28 << 10);
    for (user, password) in [
        ("root", None),
        ("ops", None),
        ("ops", Some("not needed")),
        ("deploy", Some("lab-sudo-pw")),
        ("fishy", None),
        ("tcshy", None),
        ("dashy", None),
        ("noisy", None),
    ] {
        let target = lab.target(user, sudo(password));
        let (session, first) = connector.connect_with(&target, code(&format!("id -u; echo \"it's $HOME\" >&2; : {long}"))).await.unwrap();
        let first = first.wait().await.unwrap();
        assert_eq!((first.stdout.as_slice(), first.stderr.as_slice()), (&b"0\n"[..], &b"it's /root\n"[..]), "{user}");
        let odd = session.run(code("printf 'a\\0b\\377'; exit 5")).await.unwrap();
        assert_eq!((odd.status, odd.stdout.as_slice()), (5, &b"a\0b\xff"[..]), "{user}");
        session.close().await;
        let plain = connector.connect_with(&lab.target(user, Privilege::AsLogin), code(&format!("id -un; : {long}"))).await.unwrap();
        assert_eq!(plain.1.wait().await.unwrap().stdout, format!("{user}\n").into_bytes());
        assert_eq!(echo(&plain.0, "more").await, "more");
    }
}

#[tokio::test]
async fn refusals_of_sudo_are_told_apart() {
    let Some(lab) = lab() else { return };
    for (user, password, part) in [
        ("deploy", None, "none was given"),
        ("deploy", Some("wrong-password"), "did not accept the password"),
        ("plain", Some("lab-plain-pw"), "may not use `sudo`"),
    ] {
        let failure = lab.connector().connect(&lab.target(user, sudo(password))).await.err().unwrap();
        assert!(failure.class == FailureClass::Sudo && words(&failure).contains(part), "{user}: {} {}", words(&failure), failure.stderr);
    }
}

#[tokio::test]
async fn a_password_opens_too() {
    let Some(lab) = lab() else { return };
    let password = Some("lab-plain-pw".to_owned().into());
    let target = Target { identity_files: Vec::new(), password, ..lab.target("plain", Privilege::AsLogin) };
    let session = lab.connector().connect(&target).await.unwrap();
    assert_eq!(echo(&session, "in").await, "in");
}

#[tokio::test]
async fn what_sudo_runs_can_be_stopped_killed_and_fed() {
    let Some(lab) = lab() else { return };
    let connector = lab.connector();
    for (user, password) in [("ops", None), ("deploy", Some("lab-sudo-pw"))] {
        let target = lab.target(user, sudo(password));
        let session = connector.connect(&target).await.unwrap();
        let mark = format!("/tmp/mark-{user}");
        let first = session.submit(code(&format!("rm -f {mark}; sleep 3; echo done"))).await.unwrap();
        let second = session.submit(code("echo second")).await.unwrap();
        session.stop().await;
        assert_eq!(first.wait().await.unwrap().stdout, b"done\n");
        assert!(second.wait().await.unwrap().skipped);
        session.close().await;

        let session = connector.connect(&target).await.unwrap();
        let content = vec![7_u8; 3 << 20];
        let source = lab.dir.join(format!("upload-{user}"));
        std::fs::write(&source, &content).unwrap();
        let destination = format!("/root/it's {user}");
        let upload = Upload { source, destination: destination.clone(), sha256: soc_provision::secret::sha256(&content) };
        session.upload(&upload, &|_| ()).await.unwrap();
        let seen = session
            .run(code(&format!("stat -c '%U %a %s' \"{destination}\"; ls -d /var/tmp/soc-* /run/soc-stop-* | wc -l")))
            .await
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&seen.stdout), "root 600 3145728\n0\n");
        let other = session.run(Frame { user: Some("plain".into()), ..code("id -un; pwd; echo $HOME") }).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&other.stdout), "plain\n/home/plain\n/home/plain\n");
        let script = format!("( sleep 3; : >{mark} ) & wait");
        let late = session.run(Frame { deadline: Duration::from_millis(300), ..code(&script) }).await;
        assert!(matches!(late, Err(SessionError::Deadline(_))), "{late:?}");
        tokio::time::sleep(Duration::from_secs(4)).await;
        let session = connector.connect(&target).await.unwrap();
        assert_ne!(session.run(code(&format!("ls {mark}"))).await.unwrap().status, 0, "{user}: its children were killed");
    }
}

#[tokio::test]
async fn a_host_behind_a_jump_host() {
    let Some(lab) = lab() else { return };
    let Some(inner) = lab.inner.clone() else { return };
    let target = Target { address: inner, proxy_jump: Some(vec![format!("ops@{}", lab.address)]), ..lab.target("ops", sudo(None)) };
    let session = lab.connector().connect(&target).await.unwrap();
    let host = session.run(code("hostname")).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&host.stdout), "h2\n");
    let direct = Target { proxy_jump: None, connect_timeout: Duration::from_secs(2), ..target };
    assert_eq!(lab.connector().connect(&direct).await.err().unwrap().class, FailureClass::Tcp);
}

#[tokio::test]
async fn requiretty_is_met_with_a_terminal() {
    let Some(lab) = lab() else { return };
    let root = lab.connector().connect(&lab.target("root", Privilege::AsLogin)).await.unwrap();
    for (user, password) in [("dashy", None), ("deploy", Some("lab-sudo-pw"))] {
        let rule = format!("echo 'Defaults:{user} requiretty' >/etc/sudoers.d/zz-tty && chmod 440 /etc/sudoers.d/zz-tty");
        assert_eq!(root.run(code(&rule)).await.unwrap().status, 0);
        let opened = lab.connector().connect_with(&lab.target(user, sudo(password)), code("id -u; echo err >&2")).await;
        let cleaned = root.run(code("rm -f /etc/sudoers.d/zz-tty")).await.unwrap();
        assert_eq!(cleaned.status, 0);
        let (session, first) = opened.unwrap();
        assert_eq!(first.wait().await.unwrap().stdout, b"0\nerr\n", "{user}");
        let long = "x".repeat(20_000);
        let output = session.run(code(&format!("printf '%s\\n\\377\\r' {long}"))).await.unwrap();
        assert_eq!(output.stdout, [long.as_bytes(), b"\n\xff\r"].concat(), "{user}");
    }
}
