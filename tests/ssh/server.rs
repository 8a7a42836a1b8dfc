//! A private `sshd` on a free loopback port, with its own keys, gone when dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use soc_provision::transport::{Connector, Controller, HostKeyPolicy, Privilege, Target};

pub(crate) struct Server {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `None`, and a line on stderr, where there is no sshd; a failure in CI, where there must be one.
pub(crate) fn start() -> Option<Server> {
    start_with("")
}

pub(crate) fn start_with(extra: &str) -> Option<Server> {
    let sshd = Path::new("/usr/sbin/sshd");
    if !sshd.exists() {
        assert!(std::env::var_os("CI").is_none(), "CI must have /usr/sbin/sshd");
        eprintln!("skipped: there is no /usr/sbin/sshd (install openssh-server)");
        return None;
    }
    let _ = std::fs::create_dir_all("/run/sshd");
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["host", "user", "other"] {
        keygen(&at(name), "");
    }
    keygen(&at("locked"), "open sesame");
    let keys = ["user.pub", "locked.pub"].map(|name| std::fs::read_to_string(at(name)).unwrap()).concat();
    std::fs::write(at("authorized"), keys).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let subsystem = if extra.contains("Subsystem") { "" } else { "Subsystem sftp internal-sftp" };
    let config = format!(
        "{extra}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nPidFile none\nAuthorizedKeysFile {0}/authorized\nStrictModes no\n\
         UsePAM no\nPermitRootLogin yes\nMaxStartups 500:30:1000\nMaxSessions 10\n{subsystem}\nUseDNS no\nLogLevel VERBOSE\n",
        dir.path().display()
    );
    std::fs::write(at("config"), config).unwrap();
    let child = Command::new(sshd).args(["-D", "-f"]).arg(at("config")).arg("-E").arg(at("log")).stdin(Stdio::null()).spawn().unwrap();
    let server = Server { dir, port, child };
    let end = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "sshd did not start: {}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    server.pin("host");
    Some(server)
}

fn keygen(path: &Path, passphrase: &str) {
    let status = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f"]).arg(path).status().unwrap();
    assert!(status.success());
}

impl Server {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The public half of a key, as `known_hosts` has it.
    pub(crate) fn public(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        text.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn known(&self, text: &str) {
        std::fs::write(self.path("known_hosts"), text).unwrap();
    }

    fn pin(&self, name: &str) {
        self.known(&format!("[127.0.0.1]:{} {}\n", self.port, self.public(name)));
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            host: "test".into(),
            local: false,
            address: "127.0.0.1".into(),
            port: Some(self.port),
            user: Some(whoami()),
            identity_files: vec![self.path("user")],
            password: None,
            proxy_jump: None,
            proxy_command: None,
            known_hosts: vec![self.path("known_hosts")],
            host_keys: HostKeyPolicy::Strict,
            privilege: Privilege::AsLogin,
            connect_timeout: Duration::from_secs(20),
            use_ssh_config: false,
            legacy: false,
        }
    }

    /// A connector that sees nothing of this machine's own keys and configuration.
    pub(crate) fn connector(&self) -> Connector {
        self.connector_that_answers(None)
    }

    pub(crate) fn connector_that_answers(&self, passphrase: Option<&'static str>) -> Connector {
        Connector::new(Controller {
            home: self.path("home"),
            user: whoami(),
            agent: None,
            cache: None,
            ask: Arc::new(move |_| passphrase.map(|text| text.to_owned().into())),
        })
    }
}

pub(crate) fn whoami() -> String {
    String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap().trim().to_owned()
}
