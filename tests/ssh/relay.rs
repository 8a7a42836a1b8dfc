//! A TCP relay that delays bytes, as a long line does, or lets few through, and that can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

#[allow(dead_code, reason = "the end-to-end tests only delay")]
pub(crate) struct Relay {
    pub(crate) port: u16,
    cut: watch::Sender<bool>,
    /// Bytes that went to the far end.
    pub(crate) passed: Arc<AtomicU64>,
}

#[allow(dead_code, reason = "the end-to-end tests only delay")]
impl Relay {
    /// Closes every connection.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }
}

/// Passes connections on to a port of this machine, each way `delay` late.
#[allow(dead_code, reason = "the end-to-end tests have hosts elsewhere")]
pub(crate) async fn start(to: u16, delay: Duration) -> Relay {
    start_to(([127, 0, 0, 1], to).into(), delay).await
}

/// Passes connections on to an address, each way `delay` late.
pub(crate) async fn start_to(to: std::net::SocketAddr, delay: Duration) -> Relay {
    start_narrow(to, delay, u64::MAX).await
}

/// As [`start_to`], and no more than this many bytes a second go to the far end.
pub(crate) async fn start_narrow(to: std::net::SocketAddr, delay: Duration, rate: u64) -> Relay {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (cut, cuts) = watch::channel(false);
    let passed = Arc::new(AtomicU64::new(0));
    let count = passed.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(pass(near_in, far_out, delay, (rate, count.clone()), cuts.clone()));
            tokio::spawn(pass(far_in, near_out, delay, (u64::MAX, Arc::default()), cuts.clone()));
        }
    });
    Relay { port, cut, passed }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Duration,
    (rate, passed): (u64, Arc<AtomicU64>),
    mut cuts: watch::Receiver<bool>,
) {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let late = tokio::spawn(async move {
        while let Some((at, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
            passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if rate < u64::MAX {
                tokio::time::sleep(Duration::from_micros(bytes.len() as u64 * 1_000_000 / rate)).await;
            }
        }
    });
    let mut buffer = vec![0; 65_536];
    loop {
        tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(read) if read > 0 => drop(sender.send((Instant::now() + delay, buffer[..read].to_vec()))),
                _ => return,
            },
            _ = cuts.wait_for(|cut| *cut) => {
                late.abort();
                return;
            }
        }
    }
}
