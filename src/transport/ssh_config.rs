//! What the user's own ssh configuration says about a host: `ssh -G` is asked, since it alone
//! knows `Match`, canonical names and tokens. Where no configuration says anything that matters,
//! or the answer of an earlier run still holds, no process is started.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::secret::sha256;

/// How long `ssh -G` may take: a `Match exec` may run anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keywords that make a difference here.
const MATTER: &[&str] = &[
    "hostname",
    "port",
    "user",
    "identityfile",
    "certificatefile",
    "identitiesonly",
    "identityagent",
    "proxyjump",
    "proxycommand",
    "userknownhostsfile",
    "globalknownhostsfile",
    "stricthostkeychecking",
    "hostkeyalias",
    "match",
    "include",
    "canonicalizehostname",
];

/// The part of a host's configuration that is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SshConfig {
    pub(super) hostname: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) user: Option<String>,
    pub(super) identity_files: Vec<String>,
    pub(super) certificate_files: Vec<String>,
    pub(super) identities_only: bool,
    pub(super) identity_agent: Option<String>,
    pub(super) proxy_jump: Option<String>,
    pub(super) proxy_command: Option<String>,
    pub(super) known_hosts: Vec<String>,
    pub(super) host_key_alias: Option<String>,
    /// `StrictHostKeyChecking yes`, in so many words.
    pub(super) strict: bool,
}

/// What `ssh -G` is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Query {
    pub(super) host: String,
    pub(super) user: Option<String>,
    pub(super) port: Option<u16>,
}

/// Asks `ssh -G`, once a run for each question.
pub(super) struct SshConfigs {
    home: PathBuf,
    /// The system's configuration.
    system: PathBuf,
    cache: Option<PathBuf>,
    answers: Mutex<HashMap<Query, Arc<OnceCell<SshConfig>>>>,
    files: OnceCell<Files>,
}

/// What the configuration files look like.
#[derive(Debug)]
struct Files {
    /// Whether anything in them matters.
    matter: bool,
    /// Identifies their state; `None` if files that are not known here have a say too.
    state: Option<String>,
}

impl SshConfigs {
    pub(super) fn new(home: &Path, cache: Option<&Path>) -> Self {
        Self {
            home: home.to_owned(),
            system: PathBuf::from("/etc/ssh"),
            cache: cache.map(|dir| dir.join("soc-provision/ssh-config")),
            answers: Mutex::default(),
            files: OnceCell::new(),
        }
    }

    /// The configuration of a host.
    ///
    /// # Errors
    /// What `ssh` says about a configuration that it cannot read.
    pub(super) async fn of(&self, query: Query) -> Result<SshConfig, String> {
        let files = self.files.get_or_init(async || self.look()).await;
        if !files.matter {
            return Ok(SshConfig::default());
        }
        let cell = self.answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).entry(query.clone()).or_default().clone();
        cell.get_or_try_init(async || self.ask(&query, files).await).await.cloned()
    }

    /// Reads the files, without understanding them, for whether they matter and for their state.
    fn look(&self) -> Files {
        let drop_ins = self.system.join("ssh_config.d");
        let mut paths = vec![self.home.join(".ssh/config"), self.system.join("ssh_config")];
        let mut entries: Vec<_> = std::fs::read_dir(&drop_ins).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        paths.extend(entries);
        let stock = format!("include {}/*.conf", drop_ins.display()).to_ascii_lowercase();
        let (mut matter, mut whole, mut state) = (false, true, String::new());
        for path in paths {
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            state.extend([path.to_string_lossy().as_ref(), "\0", &sha256(text.as_bytes()), "\0"]);
            for line in text.lines() {
                let line = line.trim().replace('=', " ").to_ascii_lowercase();
                let Some(word) = line.split_ascii_whitespace().next() else { continue };
                if line == stock || !MATTER.contains(&word) {
                    continue;
                }
                matter = true;
                whole &= !["match", "include"].contains(&word);
            }
        }
        Files { matter, state: whole.then_some(state) }
    }

    async fn ask(&self, query: &Query, files: &Files) -> Result<SshConfig, String> {
        let cached = self.cache.as_ref().zip(files.state.as_ref()).map(|(dir, state)| {
            let key = format!("1\0{state}\0{query:?}\0{}", self.home.display());
            dir.join(format!("{}.json", sha256(key.as_bytes())))
        });
        if let Some(path) = &cached
            && let Ok(text) = std::fs::read(path)
            && let Ok(config) = serde_json::from_slice(&text)
        {
            return Ok(config);
        }
        let Some(text) = ssh_g(query).await? else { return Ok(SshConfig::default()) };
        let config = parse(&text);
        if let Some(path) = cached {
            store(&path, &config);
        }
        Ok(config)
    }
}

/// Keeps an answer for the next run. A cache that cannot be written is no cache.
fn store(path: &Path, config: &SshConfig) {
    use std::io::Write as _;
    let work = || -> std::io::Result<()> {
        let dir = path.parent().ok_or_else(|| std::io::Error::other("no directory"))?;
        std::fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&serde_json::to_vec(config)?)?;
        file.persist(path)?;
        Ok(())
    };
    if let Err(error) = work() {
        tracing::debug!("cannot keep the answer of `ssh -G`: {error}");
    }
}

/// What `ssh -G` prints; `None` where there is no `ssh`.
async fn ssh_g(query: &Query) -> Result<Option<String>, String> {
    let mut command = tokio::process::Command::new("ssh");
    command.arg("-G").stdin(std::process::Stdio::null()).kill_on_drop(true);
    if let Some(user) = &query.user {
        command.args(["-l", user]);
    }
    if let Some(port) = query.port {
        command.args(["-p", &port.to_string()]);
    }
    command.args(["--", &query.host]);
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(Err(error)) => return Err(format!("cannot run `ssh -G {}`: {error}", query.host)),
        Err(_) => return Err(format!("`ssh -G {}` gives no answer", query.host)),
    };
    if !output.status.success() {
        return Err(format!("`ssh -G {}`: {}", query.host, String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn parse(text: &str) -> SshConfig {
    let mut config = SshConfig::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(' ') else { continue };
        let value = value.trim();
        let given = || (!value.is_empty() && value != "none").then(|| value.to_owned());
        match key {
            "hostname" => config.hostname = given(),
            "port" => config.port = value.parse().ok(),
            "user" => config.user = given(),
            "identityfile" => config.identity_files.extend(given()),
            "certificatefile" => config.certificate_files.extend(given()),
            "identitiesonly" => config.identities_only = value == "yes",
            "identityagent" => config.identity_agent = Some(value.to_owned()),
            "proxyjump" => config.proxy_jump = given(),
            "proxycommand" => config.proxy_command = given(),
            "userknownhostsfile" | "globalknownhostsfile" => config.known_hosts.extend(value.split(' ').map(str::to_owned)),
            "hostkeyalias" => config.host_key_alias = given(),
            "stricthostkeychecking" => config.strict = value == "true" || value == "yes",
            _ => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(user: &str, system: &str, drop_in: Option<&str>) -> (tempfile::TempDir, SshConfigs) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".ssh")).unwrap();
        std::fs::create_dir_all(dir.path().join("etc/ssh_config.d")).unwrap();
        std::fs::write(dir.path().join(".ssh/config"), user).unwrap();
        let system = system.replace("STOCK", &format!("Include {}/etc/ssh_config.d/*.conf", dir.path().display()));
        std::fs::write(dir.path().join("etc/ssh_config"), system).unwrap();
        if let Some(text) = drop_in {
            std::fs::write(dir.path().join("etc/ssh_config.d/a.conf"), text).unwrap();
        }
        let mut configs = SshConfigs::new(dir.path(), None);
        configs.system = dir.path().join("etc");
        (dir, configs)
    }

    #[test]
    fn a_stock_configuration_does_not_matter() {
        let stock = "STOCK\nHost *\n    SendEnv LANG LC_*\n    HashKnownHosts yes\n";
        assert!(!configs("# Port 3\n", stock, None).1.look().matter);
        assert!(configs("", stock, Some("Host a\n  Port=3\n")).1.look().matter);
        let (_dir, with) = configs("Host a\n User b", stock, None);
        assert!(with.look().state.is_some());
        let (_dir, included) = configs("Include other\n", stock, None);
        let look = included.look();
        assert!(look.matter && look.state.is_none(), "its included files are not known: {look:?}");
    }

    #[test]
    fn the_answer_of_ssh_is_read() {
        let text = "hostname 10.0.0.1\nport 2222\nuser bob\nidentityfile ~/.ssh/a\nidentityfile ~/.ssh/b\nidentitiesonly yes\n\
                    proxyjump bastion\nuserknownhostsfile ~/.ssh/known_hosts ~/.ssh/known_hosts2\nstricthostkeychecking true\nproxycommand none\n";
        let config = parse(text);
        assert_eq!((config.hostname.as_deref(), config.port, config.user.as_deref()), (Some("10.0.0.1"), Some(2222), Some("bob")));
        assert_eq!(config.identity_files, ["~/.ssh/a", "~/.ssh/b"]);
        assert!(config.identities_only && config.strict && config.proxy_command.is_none());
        assert_eq!(config.known_hosts.len(), 2);
    }

    #[tokio::test]
    async fn a_real_ssh_is_asked_and_its_answer_kept() {
        let (dir, mut configs) = configs("Host *.lab.invalid\n  Port 2200\n", "STOCK\n", None);
        configs.cache = Some(dir.path().join("cache"));
        let query = Query { host: "web.lab.invalid".into(), user: Some("bob".into()), port: Some(2222) };
        let asked = configs.of(query.clone()).await.unwrap();
        if asked == SshConfig::default() {
            eprintln!("skipped: there is no ssh");
            return;
        }
        assert_eq!((asked.port, asked.user.as_deref(), asked.hostname.as_deref()), (Some(2222), Some("bob"), Some("web.lab.invalid")));
        let kept = std::fs::read_dir(dir.path().join("cache")).unwrap().next().unwrap().unwrap().path();
        std::fs::write(&kept, serde_json::to_vec(&SshConfig { port: Some(7), ..asked }).unwrap()).unwrap();
        configs.answers = Mutex::default();
        assert_eq!(configs.of(query.clone()).await.unwrap().port, Some(7), "no process is started for what is kept");
        std::fs::write(dir.path().join(".ssh/config"), "Host *\n  Port 2201\n").unwrap();
        configs.answers = Mutex::default();
        configs.files = OnceCell::new();
        assert_eq!(configs.of(query).await.unwrap().port, Some(2222), "another configuration, another question");
    }
}
