//! Frames on a real `/bin/sh` of this machine: what a script does, and what its caller sees.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::*;
use crate::secret::{SecretName, Text, Vault};

fn here() -> Target {
    Target {
        host: "here".into(),
        local: true,
        address: String::new(),
        port: None,
        user: None,
        identity_files: Vec::new(),
        password: None,
        proxy_jump: None,
        proxy_command: None,
        known_hosts: Vec::new(),
        host_keys: HostKeyPolicy::Strict,
        privilege: Privilege::AsLogin,
        connect_timeout: Duration::from_secs(20),
        use_ssh_config: false,
        legacy: false,
    }
}

async fn session() -> Session {
    Connector::default().connect(&here()).await.unwrap()
}

fn code(code: &str) -> Frame {
    Frame::new(Script::new().user_code(code))
}

async fn run(session: &Session, script: &str) -> (i32, String, String) {
    let output = session.run(code(script)).await.unwrap();
    (output.status, String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn output_status_and_streams_are_exact() {
    let session = session().await;
    assert_eq!(run(&session, "printf 'a\\n\\n'; printf b >&2").await, (0, "a\n\n".into(), "b".into()));
    assert_eq!(run(&session, "false").await.0, 1);
    assert_eq!(run(&session, "").await, (0, String::new(), String::new()));
    let every_byte = "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done";
    let output = session.run(code(every_byte)).await.unwrap();
    assert_eq!(output.stdout, (0..=255).collect::<Vec<u8>>());
    assert_eq!(run(&session, "echo 'it'\"'\"'s' \"$PWD $LC_ALL\"").await.1, "it's / C\n");
}

#[tokio::test]
async fn nothing_a_script_does_ends_or_skews_the_session() {
    let session = session().await;
    assert_eq!(run(&session, "exit 7").await.0, 7);
    assert_eq!(run(&session, "if then").await.0, 2);
    assert_eq!(run(&session, "echo 'open").await.0, 2);
    assert_eq!(run(&session, "read line; echo \"got $line\"; cat").await.1, "got \n");
    assert_eq!(run(&session, "kill -9 $(exec sh -c 'echo $PPID')").await.0, 137);
    assert_eq!(run(&session, "cd /tmp; set -e; x=1; false; echo no").await.0, 1);
    assert_eq!(run(&session, "echo $PWD${x-}").await.1, "/\n");
    assert_eq!(run(&session, "sleep 30 & echo back").await.1, "back\n");
}

#[tokio::test]
async fn frames_in_flight_together_are_one_round_trip() {
    let session = session().await;
    let first = session.submit(code("echo 1")).await.unwrap();
    let second = session.submit(code("echo 2")).await.unwrap();
    assert_eq!(first.wait().await.unwrap().stdout, b"1\n");
    let third = session.submit(code("echo 3")).await.unwrap();
    assert_eq!(second.wait().await.unwrap().stdout, b"2\n");
    assert_eq!(session.round_trips(), 1);
    assert_eq!(third.wait().await.unwrap().stdout, b"3\n");
    assert_eq!(session.round_trips(), 2);
}

#[tokio::test]
async fn a_first_frame_travels_with_the_shell() {
    let (session, reply) = Connector::default().connect_with(&here(), code("echo facts")).await.unwrap();
    assert_eq!(reply.wait().await.unwrap().stdout, b"facts\n");
    assert_eq!(run(&session, "echo more").await.1, "more\n");
    assert_eq!(session.round_trips(), 2);
    session.close().await;
    assert!(!session.is_open());
}

#[tokio::test]
async fn sending_ahead_is_bounded() {
    let session = session().await;
    let mut replies = Vec::new();
    for _ in 0..8 {
        replies.push(session.submit(code("sleep 0.05")).await.unwrap());
    }
    let ninth = tokio::time::timeout(Duration::from_millis(20), session.submit(code("echo 9"))).await;
    assert!(ninth.is_err(), "eight are unanswered");
    assert_eq!(run(&session, "echo 10").await.1, "10\n");
    for reply in replies {
        reply.wait().await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_block_is_skipped_and_others_are_not() {
    let session = session().await;
    let (one, two) = (session.new_block(), session.new_block());
    let mut replies = Vec::new();
    for (block, script) in [(Some(one), "echo a"), (Some(one), "exit 3"), (Some(two), "echo b"), (Some(one), "echo c"), (None, "echo d")] {
        replies.push(session.submit(Frame { block, ..code(script) }).await.unwrap());
    }
    let mut seen = Vec::new();
    for reply in replies {
        let output = reply.wait().await.unwrap();
        seen.push((output.status, String::from_utf8(output.stdout).unwrap(), output.skipped));
    }
    let expected = [(0, "a\n", false), (3, "", false), (0, "b\n", false), (0, "", true), (0, "d\n", false)];
    assert_eq!(seen, expected.map(|(status, out, skipped)| (status, out.to_owned(), skipped)));
}

#[tokio::test]
async fn stop_skips_what_has_not_started() {
    let session = session().await;
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("started");
    let first = session.submit(code(&format!(": >{}; sleep 1; echo done", mark.display()))).await.unwrap();
    let second = session.submit(code("echo second")).await.unwrap();
    let last = session.submit(Frame { unstoppable: true, ..code("echo last") }).await.unwrap();
    while !mark.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    session.stop().await;
    assert_eq!(first.wait().await.unwrap().stdout, b"done\n");
    let second = second.wait().await.unwrap();
    assert!(second.skipped && second.stdout.is_empty());
    assert_eq!(last.wait().await.unwrap().stdout, b"last\n");
    assert!(session.run(code("echo later")).await.unwrap().skipped);
    let flag = session.run(Frame { unstoppable: true, ..code("ls -- \"$__soc_s\"") }).await.unwrap();
    let flag = String::from_utf8(flag.stdout).unwrap().trim().to_owned();
    assert!(std::path::Path::new(&flag).exists());
    session.close().await;
    assert!(!std::path::Path::new(&flag).exists(), "the flag's file is removed");
}

#[tokio::test]
async fn a_deadline_kills_what_runs() {
    let session = session().await;
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let script = format!("( sleep 3; : >{} ) & wait", mark.display());
    let late = session.submit(Frame { deadline: Duration::from_millis(300), ..code(&script) }).await.unwrap();
    let after = session.submit(code("echo after")).await.unwrap();
    assert!(matches!(late.wait().await, Err(SessionError::Deadline(_))));
    assert!(matches!(after.wait().await, Err(SessionError::Lost(_))));
    assert!(matches!(session.run(code("echo x")).await, Err(SessionError::Lost(_))));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!mark.exists(), "its children were killed");
}

#[tokio::test]
async fn a_deadline_runs_from_the_frames_turn() {
    let session = session().await;
    let slow = session.submit(code("sleep 1")).await.unwrap();
    let quick = session.submit(Frame { deadline: Duration::from_millis(700), ..code("echo quick") }).await.unwrap();
    slow.wait().await.unwrap();
    assert_eq!(quick.wait().await.unwrap().stdout, b"quick\n");
}

#[tokio::test]
async fn a_shell_that_dies_is_a_lost_session() {
    let session = session().await;
    let start = Instant::now();
    let lost = session.run(Frame { in_shell: true, ..code("exit 9") }).await;
    assert!(matches!(lost, Err(SessionError::Lost(ref why)) if why.contains('9')), "{lost:?}");
    assert!(start.elapsed() < Duration::from_secs(3));
    assert!(!session.is_open());
}

#[tokio::test]
async fn the_shell_itself_can_hold_a_lock_that_scripts_do_not_inherit() {
    let session = session().await;
    let dir = tempfile::tempdir().unwrap();
    let take = format!("exec 9>{}/lock && flock -n 9", dir.path().display());
    let output = session.run(Frame { in_shell: true, ..code(&take) }).await.unwrap();
    assert_eq!(output.status, 0);
    assert_eq!(run(&session, "ls /proc/self/fd | grep -c '^9$'").await.1, "0\n");
    assert_eq!(run(&session, &format!("flock -n {}/lock true", dir.path().display())).await.0, 1);
    let bad = session.run(Frame { in_shell: true, ..code("if then") }).await.unwrap();
    assert_eq!(bad.status, 2);
    assert_eq!(run(&session, "echo alive").await.1, "alive\n");
}

#[tokio::test]
async fn large_scripts_and_large_output_meet_without_a_deadlock() {
    let session = session().await;
    let text = "0123456789abcdef".repeat(200_000);
    let echo = Frame { keep: 8 << 20, ..code(&format!("printf %s '{text}'")) };
    let replies = [session.submit(echo.clone()).await.unwrap(), session.submit(echo).await.unwrap()];
    for reply in replies {
        assert_eq!(reply.wait().await.unwrap().stdout, text.as_bytes());
    }
}

#[tokio::test]
async fn a_hundred_megabytes_of_output_are_drained() {
    let session = session().await;
    let output = session.run(Frame { keep: 1000, ..code("yes | head -c 100000000; echo END") }).await.unwrap();
    assert!(output.truncated && output.stdout.len() < 1200 && output.stdout.ends_with(b"END\n"));
}

#[tokio::test]
async fn secrets_reach_the_script_and_come_back_as_stars() {
    let session = session().await;
    let name = SecretName::parse("db").unwrap();
    let script = || Script::new().payload(&Text::secret(name.clone())).then("; printf '\\377'", &[]);
    assert!(matches!(session.run(Frame::new(script())).await, Err(SessionError::Missing(_))));
    let mut vault = Vault::default();
    vault.insert(name.clone(), Zeroizing::new("hunter2'hunter2".into()));
    let masker = vault.masker();
    session.set_vault(Arc::new(vault), masker);
    let output = session.run(Frame::new(script())).await.unwrap();
    assert_eq!(output.stdout, b"********\xff");
    let length = session.run(Frame::new(script().then("| wc -c", &[]))).await.unwrap();
    assert_eq!(length.status, 0);
}

#[tokio::test]
async fn another_user_gets_the_script_by_a_pipe() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let session = session().await;
    let script = "id -un; echo \"$HOME $USER it's\"; read x; tr '\\0' ' ' </proc/$PPID/cmdline; exit 4";
    let output = session.run(Frame { user: Some("nobody".into()), ..code(script) }).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status, 4, "{text}");
    assert!(text.starts_with("nobody\n/nonexistent nobody it's\n"), "{text}");
    assert!(!text.contains("exit 4"), "{text}");
    let missing = session.run(Frame { user: Some("no-such'user".into()), ..code("id") }).await.unwrap();
    assert_ne!(missing.status, 0);
}

#[tokio::test]
async fn five_hundred_frames_in_order() {
    let session = Arc::new(session().await);
    let start = Instant::now();
    let mut replies = Vec::new();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
    let submitting = session.clone();
    tokio::spawn(async move {
        for number in 0..500 {
            sender.send(submitting.submit(code(&format!("echo {number}"))).await.unwrap()).await.unwrap();
        }
    });
    while let Some(reply) = receiver.recv().await {
        replies.push(String::from_utf8(reply.wait().await.unwrap().stdout).unwrap());
    }
    assert_eq!(replies, (0..500).map(|number| format!("{number}\n")).collect::<Vec<_>>());
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn an_upload_is_verified_and_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let session = session().await;
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("a 'source'");
    std::fs::write(&source, b"content").unwrap();
    let destination = dir.path().join("it's there");
    let upload = |sha256: String| crate::resource::plan::Upload {
        source: source.clone(),
        destination: destination.to_str().unwrap().to_owned(),
        sha256,
    };
    session.upload(&upload(crate::secret::sha256(b"content")), &|_| ()).await.unwrap();
    assert_eq!(std::fs::read(&destination).unwrap(), b"content");
    assert_eq!(destination.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let wrong = session.upload(&upload(crate::secret::sha256(b"other")), &|_| ()).await.unwrap_err();
    assert!(wrong.message.contains("another content"), "{wrong:?}");
    assert!(!destination.exists());
}
