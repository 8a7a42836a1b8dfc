//! Bytes from a host arrive as they are, within bounds.

use std::time::{Duration, Instant};

use soc_provision::shell::Script;
use soc_provision::transport::{Download, DownloadError, Received};

use super::{code, server};

const IDLE: Duration = Duration::from_secs(10);

async fn fetch(download: &mut Download, script: &str, limit: u64, idle: Duration) -> Result<(Received, Vec<u8>), DownloadError> {
    let mut out = Vec::new();
    let script = Script::new().user_code(script);
    let received = download
        .fetch(&script, limit, idle, &mut |piece| {
            out.extend_from_slice(piece);
            Ok(())
        })
        .await?;
    Ok((received, out))
}

#[tokio::test]
async fn bytes_arrive_as_they_are_and_within_bounds() {
    let Some(server) = server::start() else { return };
    let session = server.connector().connect(&server.target()).await.unwrap();
    let content: Vec<u8> = (0..5_000_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let source = server.path("it's here");
    std::fs::write(&source, &content).unwrap();
    let mut download = session.open_download().await.unwrap();
    let start = Instant::now();
    let (received, out) = fetch(&mut download, &format!("cat \"{}\"", source.display()), 1 << 30, IDLE).await.unwrap();
    eprintln!("20 MB in {:?}", start.elapsed());
    assert!(out == content && received.status == 0 && received.sha256 == soc_provision::secret::sha256(&content));
    for (script, expected, status) in [
        ("printf 'no newline'", "no newline", 0),
        ("echo", "\n", 0),
        (":", "", 0),
        ("echo half; exit 7", "half\n", 7),
        ("cat; echo stdin was empty", "stdin was empty\n", 0),
        ("if then", "", 2),
        ("exec 4>&-; echo still here", "still here\n", 0),
    ] {
        let (received, out) = fetch(&mut download, script, 1 << 20, IDLE).await.unwrap_or_else(|error| panic!("{script}: {error}"));
        assert_eq!((String::from_utf8_lossy(&out).as_ref(), received.status), (expected, status), "{script}: {received:?}");
    }
    let (received, _) = fetch(&mut download, "echo 'why \u{1b}[31mnot' >&2; exit 1", 1 << 20, IDLE).await.unwrap();
    assert_eq!(received.stderr, "why \\u{1b}[31mnot");
    // Without end: cut off, killed on the host, and another one goes on.
    let endless = fetch(&mut download, "exec yes", 1 << 20, IDLE).await;
    assert!(matches!(endless, Err(DownloadError::TooLong(_))), "{endless:?}");
    let mut download = session.open_download().await.unwrap();
    let silent = fetch(&mut download, "exec sleep 987", 1 << 20, Duration::from_millis(300)).await;
    assert!(matches!(silent, Err(DownloadError::Idle(_))), "{silent:?}");
    let output = session.run(code("sleep 1.5; ! grep -sqx 'sleep.987.' /proc/[0-9]*/cmdline")).await.unwrap();
    assert_eq!(output.status, 0, "`sleep 987` still runs");
    let mut download = session.open_download().await.unwrap();
    let full = download.fetch(&Script::sh("echo x", &[]), 10, IDLE, &mut |_| Err(std::io::Error::other("disk full"))).await;
    assert!(matches!(full, Err(DownloadError::Sink(_))), "{full:?}");
    // Bytes that the host sends and does not count are noticed.
    let mut download = session.open_download().await.unwrap();
    let sneaked = fetch(&mut download, "echo counted; echo sneaked >/proc/$$/fd/4", 1 << 20, IDLE).await;
    assert!(matches!(sneaked, Err(DownloadError::Differs { .. })), "{sneaked:?}");
}
