//! A TCP relay that delays bytes, as a long line does, and that can be cut.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

#[allow(dead_code, reason = "the end-to-end tests only delay")]
pub(crate) struct Relay {
    pub(crate) port: u16,
    cut: watch::Sender<bool>,
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
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (cut, cuts) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(pass(near_in, far_out, delay, cuts.clone()));
            tokio::spawn(pass(far_in, near_out, delay, cuts.clone()));
        }
    });
    Relay { port, cut }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Duration,
    mut cuts: watch::Receiver<bool>,
) {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let late = tokio::spawn(async move {
        while let Some((at, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
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
