//! The transport against a real OpenSSH server on this machine's loopback.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod download;
mod lab;
mod relay;
mod server;

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use server::Server;
use soc_provision::diagnostic::{Failure, FailureClass};
use soc_provision::resource::plan::Upload;
use soc_provision::shell::Script;
use soc_provision::transport::{Frame, HostKeyPolicy, Session, SessionError, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A server, or the end of the test where there is none.
macro_rules! sshd {
    () => {{
        let Some(server) = server::start() else { return };
        server
    }};
}

fn code(text: &str) -> Frame {
    Frame::new(Script::new().user_code(text))
}

async fn echo(session: &Session, text: &str) -> String {
    let output = session.run(code(&format!("echo {text}"))).await.unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

async fn works(server: &Server, target: &Target) {
    let session = server.connector().connect(target).await.unwrap();
    assert_eq!(echo(&session, "hello").await, "hello");
    session.close().await;
}

async fn refused(server: &Server, target: &Target) -> Failure {
    match server.connector().connect(target).await {
        Ok(_) => panic!("connected"),
        Err(failure) => failure,
    }
}

fn words(failure: &Failure) -> String {
    format!("{failure} | {} | {}", failure.causes.join(" | "), failure.hint.clone().unwrap_or_default())
}

#[tokio::test]
async fn a_key_opens_and_frames_answer() {
    let server = sshd!();
    let session = server.connector().connect(&server.target()).await.unwrap();
    assert_eq!(echo(&session, "hello").await, "hello");
    let bytes = session
        .run(code("i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done; echo err >&2; exit 3"))
        .await
        .unwrap();
    assert_eq!((bytes.status, bytes.stdout, bytes.stderr), (3, (0..=255).collect(), b"err\n".to_vec()));
    assert_eq!(session.round_trips(), 2);
    session.close().await;
    assert!(matches!(session.run(code("id")).await, Err(SessionError::Lost(_))));
}

#[tokio::test]
async fn a_wrong_key_says_what_was_tried() {
    let server = sshd!();
    let target = Target { identity_files: vec![server.path("other"), server.path("nowhere")], ..server.target() };
    let failure = refused(&server, &target).await;
    assert_eq!(failure.class, FailureClass::Auth);
    let words = words(&failure);
    for part in ["other` (ssh-ed25519 SHA256:", "nowhere`, which is not there", "the server takes publickey", "--private-key"] {
        assert!(words.contains(part), "{part}: {words}");
    }
}

#[tokio::test]
async fn an_encrypted_key_is_asked_for_once_and_only_if_the_server_takes_it() {
    let server = sshd!();
    let target = Target { identity_files: vec![server.path("locked")], ..server.target() };
    let failure = refused(&server, &target).await;
    assert!(failure.class == FailureClass::Auth && words(&failure).contains("nobody to ask"), "{}", words(&failure));
    let connector = server.connector_that_answers(Some("open sesame"));
    assert_eq!(echo(&connector.connect(&target).await.unwrap(), "in").await, "in");
    assert_eq!(echo(&connector.connect(&target).await.unwrap(), "again").await, "again");
    let wrong = server.connector_that_answers(Some("wrong")).connect(&target).await.err().unwrap();
    assert!(words(&wrong).contains("passphrase was not right"), "{}", words(&wrong));
}

#[tokio::test]
async fn an_agent_holds_the_key() {
    let server = sshd!();
    let socket = server.path("agent");
    let agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).spawn();
    let mut agent = agent.unwrap();
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let added = Command::new("ssh-add").arg("-q").arg(server.path("user")).env("SSH_AUTH_SOCK", &socket).status().unwrap();
    assert!(added.success());
    let connector = soc_provision::transport::Connector::new(soc_provision::transport::Controller {
        home: server.path("home"),
        user: server::whoami(),
        agent: Some(socket),
        cache: None,
        ask: std::sync::Arc::new(|_| None),
    });
    let target = Target { identity_files: Vec::new(), ..server.target() };
    let (one, two) = tokio::join!(connector.connect(&target), connector.connect(&target));
    let result = (echo(&one.unwrap(), "1").await, echo(&two.unwrap(), "2").await);
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(result, ("1".to_owned(), "2".to_owned()));
}

#[tokio::test]
async fn host_keys_unknown_pinned_changed_revoked_hashed() {
    let server = sshd!();
    let (target, port) = (server.target(), server.port);
    let (host, other) = (server.public("host"), server.public("other"));
    server.known("# nobody\n");
    let failure = refused(&server, &target).await;
    assert_eq!(failure.class, FailureClass::HostKey);
    assert!(words(&failure).contains("is not known") && words(&failure).contains("ssh-keyscan -p"), "{}", words(&failure));

    let accept = Target { host_keys: HostKeyPolicy::AcceptNew, ..target.clone() };
    std::fs::remove_file(server.path("known_hosts")).unwrap();
    works(&server, &accept).await;
    assert_eq!(std::fs::read_to_string(server.path("known_hosts")).unwrap(), format!("[127.0.0.1]:{port} {host}\n"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(server.path("known_hosts")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    works(&server, &target).await;

    server.known(&format!("# line 1\n[127.0.0.1]:{port} {other}\n"));
    for policy in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew] {
        let failure = refused(&server, &Target { host_keys: policy, ..target.clone() }).await;
        assert_eq!(failure.class, FailureClass::HostKey);
        let place = format!("{}:2", server.path("known_hosts").display());
        assert!(words(&failure).contains(&place) && words(&failure).contains("ssh-keygen -R"), "{}", words(&failure));
    }
    server.known(&format!("[127.0.0.1]:{port} {host}\n@revoked * {host}\n"));
    let failure = refused(&server, &accept).await;
    assert!(failure.class == FailureClass::HostKey && words(&failure).contains("revoked"), "{}", words(&failure));

    server.known(&format!("[127.0.0.1]:{port} {host}\n"));
    let hashed = Command::new("ssh-keygen").arg("-q").arg("-H").arg("-f").arg(server.path("known_hosts")).output().unwrap();
    assert!(hashed.status.success());
    assert!(std::fs::read_to_string(server.path("known_hosts")).unwrap().starts_with("|1|"));
    works(&server, &target).await;
}

#[tokio::test]
async fn a_host_key_is_learnt_without_offering_anything() {
    let server = sshd!();
    std::fs::remove_file(server.path("known_hosts")).unwrap();
    let target = Target { host_keys: HostKeyPolicy::AcceptNew, identity_files: Vec::new(), ..server.target() };
    server.connector().learn_host_key(&target).await.unwrap();
    let line = std::fs::read_to_string(server.path("known_hosts")).unwrap();
    let shown = soc_provision::transport::fingerprint_of_line(&line).unwrap();
    let expected = Command::new("ssh-keygen").arg("-lf").arg(server.path("host.pub")).output().unwrap();
    assert!(String::from_utf8(expected.stdout).unwrap().contains(&shown), "{shown}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!server.log().contains("Failed") && !server.log().contains("Invalid user"), "{}", server.log());
}

#[tokio::test]
async fn certificates_of_hosts_and_users() {
    let server = sshd!();
    let dir = server.dir.path();
    let sign = |arguments: &[&str]| assert!(Command::new("ssh-keygen").current_dir(dir).args(arguments).status().unwrap().success());
    sign(&["-q", "-t", "ed25519", "-N", "", "-f", "ca"]);
    sign(&["-q", "-s", "ca", "-I", "good", "-h", "-n", "127.0.0.1", "-V", "+1h", "host.pub"]);
    sign(&["-q", "-s", "ca", "-I", "user", "-n", &server::whoami(), "-V", "+1h", "other.pub"]);
    let config = format!("HostCertificate {0}/host-cert.pub\nTrustedUserCAKeys {0}/ca.pub", dir.display());
    let Some(second) = server::start_with(&format!("{config}\nHostKey {}/host", dir.display())) else { return };
    let ca = server.public("ca");
    let target = Target { port: Some(second.port), identity_files: vec![server.path("other")], ..server.target() };
    server.known(&format!("@cert-authority 127.0.0.1,[127.0.0.1]:* {ca}\n"));
    works(&server, &target).await;
    server.known(&format!("@cert-authority [127.0.0.1]:* {ca}\n@revoked * {ca}\n"));
    let failure = refused(&server, &target).await;
    assert!(failure.class == FailureClass::HostKey && words(&failure).contains("revoked"), "{}", words(&failure));
}

#[tokio::test]
async fn five_hundred_frames_and_a_hundred_megabytes() {
    let server = sshd!();
    let session = std::sync::Arc::new(server.connector().connect(&server.target()).await.unwrap());
    let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
    let submitting = session.clone();
    tokio::spawn(async move {
        for number in 0..500 {
            sender.send(submitting.submit(code(&format!("echo {number}"))).await.unwrap()).await.unwrap();
        }
    });
    let mut number = 0;
    while let Some(reply) = receiver.recv().await {
        assert_eq!(reply.wait().await.unwrap().stdout, format!("{number}\n").into_bytes());
        number += 1;
    }
    assert_eq!(number, 500);
    let output = session.run(Frame { keep: 1000, ..code("yes | head -c 100000000; echo END") }).await.unwrap();
    assert!(output.truncated && output.stdout.len() < 1200 && output.stdout.ends_with(b"END\n"));
}

#[tokio::test]
async fn a_deadline_kills_on_the_host() {
    let server = sshd!();
    let session = server.connector().connect(&server.target()).await.unwrap();
    let mark = server.path("mark");
    let script = format!("( sleep 3; : >{} ) & wait", mark.display());
    let late = session.run(Frame { deadline: Duration::from_millis(300), ..code(&script) }).await;
    assert!(matches!(late, Err(SessionError::Deadline(_))), "{late:?}");
    assert!(!session.is_open());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!mark.exists());
}

#[tokio::test]
async fn stop_and_kill_from_a_second_channel() {
    let server = sshd!();
    let session = server.connector().connect(&server.target()).await.unwrap();
    let mark = server.path("started");
    let first = session.submit(code(&format!(": >{}; sleep 4; echo done", mark.display()))).await.unwrap();
    let second = session.submit(code("echo second")).await.unwrap();
    while !mark.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    session.stop().await;
    assert_eq!(first.wait().await.unwrap().stdout, b"done\n");
    assert!(second.wait().await.unwrap().skipped);
    let last = session.submit(Frame { unstoppable: true, ..code("sleep 60") }).await.unwrap();
    let start = Instant::now();
    session.kill().await;
    assert!(matches!(last.wait().await, Err(SessionError::Lost(_))));
    assert!(start.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn silence_and_refusal_end_in_time() {
    let server = sshd!();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { port: Some(silent.local_addr().unwrap().port()), connect_timeout: Duration::from_secs(1), ..server.target() };
    let start = Instant::now();
    let failure = refused(&server, &target).await;
    assert!(failure.class == FailureClass::Tcp && words(&failure).contains("says nothing"), "{}", words(&failure));
    assert!(start.elapsed() < Duration::from_millis(1500));
    drop(silent);
    let failure = refused(&server, &target).await;
    assert!(failure.class == FailureClass::Tcp && words(&failure).contains("refused"), "{}", words(&failure));
    let failure = refused(&server, &Target { address: "no-such-host.invalid".into(), ..server.target() }).await;
    assert_eq!(failure.class, FailureClass::Dns, "{}", words(&failure));
}

#[tokio::test]
async fn what_is_not_ssh_is_told_apart() {
    let server = sshd!();
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = other.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let failure = refused(&server, &Target { port: Some(port), ..server.target() }).await;
    assert_eq!(failure.class, FailureClass::Tcp, "{}", words(&failure));
}

#[tokio::test]
async fn a_peer_that_dies_midway_is_a_lost_session() {
    let server = sshd!();
    let relay = relay::start(server.port, Duration::ZERO).await;
    server.known(&format!("[127.0.0.1]:* {}\n", server.public("host")));
    let session = server.connector().connect(&Target { port: Some(relay.port), ..server.target() }).await.unwrap();
    let waiting = session.submit(code("sleep 30")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    relay.cut();
    let start = Instant::now();
    assert!(matches!(waiting.wait().await, Err(SessionError::Lost(_))));
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// Uploads a file of this content through a relay; gives what went over the line and what arrived.
async fn upload_over(server: &server::Server, relay: &relay::Relay, content: &[u8]) -> (u64, Vec<u8>) {
    let source = server.path("source");
    std::fs::write(&source, content).unwrap();
    let destination = server.path("it's here").to_str().unwrap().to_owned();
    let upload = Upload { source, destination, sha256: soc_provision::secret::sha256(content) };
    server.known(&format!("[127.0.0.1]:{} {}\n", relay.port, server.public("host")));
    let session = server.connector().connect(&Target { port: Some(relay.port), ..server.target() }).await.unwrap();
    let (seen, before) = (AtomicU64::new(0), relay.passed.load(Ordering::Relaxed));
    session.upload(&upload, &|sent| seen.store(sent, Ordering::Relaxed)).await.unwrap();
    assert_eq!(seen.load(Ordering::Relaxed), content.len() as u64);
    let passed = relay.passed.load(Ordering::Relaxed) - before;
    let wrong = Upload { sha256: soc_provision::secret::sha256(b"x"), ..upload.clone() };
    assert_eq!(session.upload(&wrong, &|_| ()).await.unwrap_err().class, FailureClass::MovedOn);
    (passed, std::fs::read(&upload.destination).unwrap_or_default())
}

#[tokio::test]
async fn megabytes_arrive_whole_and_are_compressed_only_where_the_line_is_slow() {
    let server = sshd!();
    let random: Vec<u8> =
        (0..4_000_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).rotate_left(number % 31).to_le_bytes()).collect();
    let words = b"the same words over and over again\n".repeat(500_000);
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], server.port));
    let wide = relay::start_to(to, Duration::ZERO).await;
    let (passed, arrived) = upload_over(&server, &wide, &words).await;
    assert!(passed >= words.len() as u64 && arrived == words, "{passed} of {}", words.len());
    let narrow = relay::start_narrow(to, Duration::ZERO, 4 << 20).await;
    let (passed, arrived) = upload_over(&server, &narrow, &words).await;
    assert!(passed < words.len() as u64 / 2 && arrived == words, "{passed} of {}", words.len());
    // What does not get smaller is sent as it is.
    let (passed, arrived) = upload_over(&server, &narrow, &random).await;
    assert!(passed >= random.len() as u64 && arrived == random, "{passed} of {}", random.len());
}

#[tokio::test]
async fn an_upload_that_does_not_fit_says_so() {
    let server = sshd!();
    let source = server.path("source");
    std::fs::write(&source, vec![7_u8; 20_000_000]).unwrap();
    let session = server.connector().connect(&server.target()).await.unwrap();
    let sha256 = soc_provision::secret::sha256(&vec![7_u8; 20_000_000]);
    for destination in ["/dev/full/x", "/nowhere/at all"] {
        let upload = Upload { source: source.clone(), destination: destination.to_owned(), sha256: sha256.clone() };
        let failure = session.upload(&upload, &|_| ()).await.unwrap_err();
        assert!(failure.message.contains(destination), "{failure:?}");
        assert!(!failure.causes.is_empty(), "{failure:?}");
    }
}

/// What is left of a transfer that was cut off is continued; what is no beginning of the file, or
/// where somebody else could put a file of theirs, is not.
#[tokio::test]
async fn a_transfer_that_was_cut_off_goes_on_where_it_stopped() {
    let server = sshd!();
    let content: Vec<u8> = (0..4_000_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let source = server.path("large");
    std::fs::write(&source, &content).unwrap();
    let part = server.path("part");
    let upload = Upload { source, destination: part.to_str().unwrap().to_owned(), sha256: soc_provision::secret::sha256(&content) };
    let first_told = async |session: &Session| {
        let first = AtomicU64::new(u64::MAX);
        session
            .upload(&upload, &|sent| {
                first.fetch_min(sent, Ordering::Relaxed);
            })
            .await
            .unwrap();
        assert!(std::fs::read(&part).unwrap() == content);
        first.load(Ordering::Relaxed)
    };
    let session = server.connector().connect(&server.target()).await.unwrap();
    // A real cut first: the connection goes while the bytes flow.
    let relay = relay::start(server.port, Duration::ZERO).await;
    server.known(&format!("[127.0.0.1]:{} {}\n[127.0.0.1]:{} {}\n", server.port, server.public("host"), relay.port, server.public("host")));
    let cut = server.connector().connect(&Target { port: Some(relay.port), ..server.target() }).await.unwrap();
    let failed = cut
        .upload(&upload, &|sent| {
            if sent > 2_000_000 {
                relay.cut()
            }
        })
        .await;
    assert!(failed.is_err());
    // The program on the host still writes down what it had been sent.
    let size = || std::fs::metadata(&part).map_or(0, |data| data.len());
    let mut left = u64::MAX;
    while left != size() {
        left = size();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let started = first_told(&session).await;
    assert!(started == left || left == 0 || started == content.len() as u64, "{left} bytes were there, it began with {started}");
    // Each kind of remains, made by hand.
    let private = std::os::unix::fs::PermissionsExt::from_mode;
    for (remains, mode, expected) in [
        (&content[..9_000_000], 0o600, 9_000_000),
        (&content[..], 0o600, 16_000_000),
        (&content[1..9_000_000], 0o600, 0),
        (&content[..9_000_000], 0o666, 0),
        (&[content.as_slice(), b"more"].concat()[..], 0o600, 0),
    ] {
        std::fs::write(&part, remains).unwrap();
        std::fs::set_permissions(&part, private(mode)).unwrap();
        assert_eq!(first_told(&session).await, expected, "{} bytes, {mode:o}", remains.len());
    }
    // A link to somebody else's file is not written through.
    let other = server.path("other");
    std::fs::write(&other, &content[..9_000_000]).unwrap();
    std::fs::remove_file(&part).unwrap();
    std::os::unix::fs::symlink(&other, &part).unwrap();
    assert_eq!(first_told(&session).await, 0);
    assert!(std::fs::read(&other).unwrap() == content[..9_000_000]);
}

#[tokio::test]
async fn tunnels_and_jump_hosts() {
    let server = sshd!();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"from the other side").await;
        }
    });
    let jump = format!("{}@127.0.0.1:{}", server::whoami(), server.port);
    let target = Target { proxy_jump: Some(vec![jump.clone(), jump]), ..server.target() };
    let session = server.connector().connect(&target).await.unwrap();
    assert_eq!(echo(&session, "far").await, "far");
    let mut text = String::new();
    session.tunnel("127.0.0.1", port).await.unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "from the other side");
    let failure = session.tunnel("127.0.0.1", 1).await.err().unwrap();
    assert_eq!(failure.class, FailureClass::Unhealthy);
    let proxy = Target { proxy_command: Some(format!("nc 127.0.0.1 {}", server.port)), ..server.target() };
    if Command::new("nc").arg("-h").output().is_ok() {
        works(&server, &proxy).await;
    }
}

#[tokio::test]
async fn thirty_logins_at_once_survive_a_strict_server() {
    let Some(server) = server::start_with("MaxStartups 3:80:6") else { return };
    let connector = server.connector();
    let mut joins = tokio::task::JoinSet::new();
    for number in 0..30 {
        let (connector, target) = (connector.clone(), server.target());
        joins.spawn(async move {
            let session = connector.connect(&target).await?;
            Ok::<_, Failure>((number.to_string(), echo(&session, &number.to_string()).await))
        });
    }
    while let Some(result) = joins.join_next().await {
        let (number, answer) = result.unwrap().unwrap();
        assert_eq!(number, answer);
    }
}

/// How long a run takes that changes nothing, over a line with this delay each way.
async fn unchanged_run(server: &Server, delay: Duration) -> Duration {
    let relay = relay::start(server.port, delay).await;
    let target = Target { port: Some(relay.port), ..server.target() };
    let start = Instant::now();
    let (session, facts) = server.connector().connect_with(&target, code("echo facts")).await.unwrap();
    assert_eq!(facts.wait().await.unwrap().stdout, b"facts\n");
    for answer in ["probes", "health"] {
        assert_eq!(echo(&session, answer).await, answer);
    }
    assert_eq!(session.round_trips(), 3);
    start.elapsed()
}

#[tokio::test]
async fn an_unchanged_run_is_ten_round_trips() {
    let server = sshd!();
    server.known(&format!("[127.0.0.1]:* {}\n", server.public("host")));
    let rtt = Duration::from_millis(500);
    let without = unchanged_run(&server, Duration::ZERO).await;
    let with = unchanged_run(&server, rtt / 2).await;
    // The relay delays what is sent, not TCP's own handshake: nine of ten are left. The machine
    // may be busier the second time, so there is room for most of one more.
    let trips = (with.as_secs_f64() - without.as_secs_f64()) / rtt.as_secs_f64();
    eprintln!("{trips:.2} round trips besides TCP's");
    assert!(trips < 9.9, "{trips:.2} round trips");
}

#[tokio::test]
async fn secrets_are_in_no_argument_list() {
    let server = sshd!();
    let session = server.connector().connect(&server.target()).await.unwrap();
    let name = soc_provision::secret::SecretName::parse("s").unwrap();
    let mut vault = soc_provision::secret::Vault::default();
    vault.insert(name.clone(), "top-secret-value".to_owned().into());
    let masker = vault.masker();
    session.set_vault(std::sync::Arc::new(vault), masker);
    let encoded = base64::engine::general_purpose::STANDARD.encode("top-secret-value");
    let look = "; sleep 1; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' >{}";
    let script = Script::new().payload(&soc_provision::secret::Text::secret(name)).then(look, &[server.path("seen").to_str().unwrap()]);
    let output = session.run(Frame { user: Some(server::whoami()).filter(|user| user == "root"), ..Frame::new(script) }).await.unwrap();
    assert_eq!(output.status, 0, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"********");
    let seen = std::fs::read(server.path("seen")).unwrap();
    let has = |text: &str| seen.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("sshd") && !has("top-secret-value") && !has(&encoded));
}
