//! One hop of the way to a host with everything that is needed to take it: the inventory's word
//! and the user's ssh configuration put together. The inventory wins; checking of host keys is
//! only ever made stricter.

use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::ssh_config::{Query, SshConfig, SshConfigs};
use super::{HostKeyPolicy, Target};
use crate::diagnostic::{Failure, FailureClass};

/// Key files that are tried without being named.
const DEFAULT_KEYS: &[&str] = &["id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk", "id_dsa", "id_xmss"];
/// Those of them that this program can use, most likely first.
const USABLE_KEYS: usize = 3;

/// Keepalives, half again as far apart as connecting may take: a user who is patient with a slow
/// host (`-T`) is so throughout.
const KEEPALIVE_MIN: Duration = Duration::from_secs(3);
const KEEPALIVE_MAX: Duration = Duration::from_secs(15);

/// What is the same for all hosts of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub(super) home: PathBuf,
    pub(super) local_user: String,
    /// The agent's socket.
    pub(super) agent: Option<PathBuf>,
}

/// One connection of the way: a jump host, or the host itself.
#[derive(Clone, Debug)]
pub(super) struct Hop {
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) user: String,
    /// The name under which its key is known.
    pub(super) key_name: String,
    /// Keys that somebody named.
    pub(super) named_keys: Vec<PathBuf>,
    /// Keys that may be there.
    pub(super) usual_keys: Vec<PathBuf>,
    pub(super) certificates: Vec<PathBuf>,
    /// Of the agent's keys, only those that are also named.
    pub(super) named_keys_only: bool,
    pub(super) agent: Option<PathBuf>,
    pub(super) password: Option<Zeroizing<String>>,
    pub(super) known_hosts: Vec<PathBuf>,
    pub(super) host_keys: HostKeyPolicy,
    pub(super) legacy: bool,
    /// How long a silent host is left in peace: three times that, and it counts as lost.
    pub(super) keepalive: Duration,
}

impl std::fmt::Display for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.user, self.address)?;
        if self.port == 22 { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// How the first hop is reached.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// A command that is the connection to the first hop.
    pub(super) command: Option<String>,
    /// The jump hosts in order, then the host.
    pub(super) hops: Vec<Hop>,
}

/// Works out the way to a host.
///
/// # Errors
/// The ssh configuration cannot be read, or a jump host cannot be understood.
pub(super) async fn route(target: &Target, around: &Surroundings, configs: &SshConfigs) -> Result<Route, Failure> {
    let asked = Asked { host: target.address.clone(), user: target.user.clone(), port: target.port };
    let config = ask(target, configs, &asked).await?;
    let (jumps, command) = match (&target.proxy_jump, &target.proxy_command) {
        (Some(jumps), command) => (jumps.clone(), command.clone()),
        (None, Some(command)) => (Vec::new(), Some(command.clone())),
        (None, None) => {
            let jumps = config.proxy_jump.as_deref().map(|list| list.split(',').map(|jump| jump.trim().to_owned()).collect());
            (jumps.unwrap_or_default(), config.proxy_command.clone())
        }
    };
    let mut hops = Vec::new();
    for jump in jumps.iter().filter(|jump| jump.as_str() != "none") {
        let asked = parse_jump(jump)?;
        let config = ask(target, configs, &asked).await?;
        // The password is the host's, not its bastion's.
        let mut jump = hop(target, around, &asked, &config, None);
        // It is the host that was made anew, not the way to it.
        if jump.host_keys == HostKeyPolicy::ExpectNew {
            jump.host_keys = HostKeyPolicy::Strict;
        }
        hops.push(jump);
    }
    let last = hop(target, around, &asked, &config, target.password.clone());
    let first = hops.first().unwrap_or(&last);
    let command = command.filter(|_| hops.is_empty()).map(|command| tokens(&command, first, &asked.host, around));
    hops.push(last);
    Ok(Route { command, hops })
}

/// A host as somebody wrote it.
struct Asked {
    host: String,
    user: Option<String>,
    port: Option<u16>,
}

async fn ask(target: &Target, configs: &SshConfigs, asked: &Asked) -> Result<SshConfig, Failure> {
    if !target.use_ssh_config {
        return Ok(SshConfig::default());
    }
    let query = Query { host: asked.host.clone(), user: asked.user.clone(), port: asked.port };
    configs.of(query).await.map_err(|why| {
        Failure::new(FailureClass::Project, "the ssh configuration cannot be read")
            .because(why)
            .hint("correct ~/.ssh/config on the controller")
    })
}

/// `user@host:port`, `ssh://user@host:port`, `[address]:port`.
fn parse_jump(text: &str) -> Result<Asked, Failure> {
    let bad = || {
        Failure::new(FailureClass::Project, format!("`{text}` is not a jump host"))
            .hint("write `user@host:port`; user and port may be left out")
    };
    let rest = text.strip_prefix("ssh://").unwrap_or(text).trim_end_matches('/');
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user.to_owned()), rest),
        None => (None, rest),
    };
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(bad)?;
            (host, after.strip_prefix(':'))
        }
        None if rest.matches(':').count() == 1 => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        None => (rest, None),
    };
    let port = port.map(|port| port.parse().map_err(|_| bad())).transpose()?;
    if host.is_empty() || host.starts_with('-') || user.as_deref() == Some("") {
        return Err(bad());
    }
    Ok(Asked { host: host.to_owned(), user, port })
}

fn hop(target: &Target, around: &Surroundings, asked: &Asked, config: &SshConfig, password: Option<Zeroizing<String>>) -> Hop {
    let address = config.hostname.clone().unwrap_or_else(|| asked.host.clone());
    let mut hop = Hop {
        key_name: config.host_key_alias.clone().unwrap_or_else(|| address.clone()),
        port: asked.port.or(config.port).unwrap_or(22),
        user: asked.user.clone().or_else(|| config.user.clone()).unwrap_or_else(|| around.local_user.clone()),
        address,
        named_keys: target.identity_files.iter().map(|path| expand_home(path, &around.home)).collect(),
        usual_keys: Vec::new(),
        certificates: Vec::new(),
        named_keys_only: config.identities_only,
        agent: around.agent.clone(),
        password,
        known_hosts: target.known_hosts.clone(),
        host_keys: match target.host_keys {
            // Asked for by name, on the command line, for this very run.
            HostKeyPolicy::ExpectNew => HostKeyPolicy::ExpectNew,
            _ if config.strict => HostKeyPolicy::Strict,
            policy => policy,
        },
        legacy: target.legacy,
        keepalive: (target.connect_timeout * 3 / 2).clamp(KEEPALIVE_MIN, KEEPALIVE_MAX),
    };
    let expand = |text: &String| expand_home(Path::new(&tokens(text, &hop, &asked.host, around)), &around.home);
    let files: Vec<PathBuf> = config.identity_files.iter().map(&expand).collect();
    let certificates = config.certificate_files.iter().map(&expand).collect();
    let known: Vec<PathBuf> = config.known_hosts.iter().map(&expand).collect();
    let usual = |name: &&str| around.home.join(".ssh").join(name);
    let all_usual: Vec<PathBuf> = DEFAULT_KEYS.iter().map(usual).collect();
    // `ssh -G` lists the usual files where none are named.
    let (named, listed): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| !all_usual.contains(file));
    hop.certificates = certificates;
    hop.usual_keys = if named.is_empty() || !listed.is_empty() { all_usual[..USABLE_KEYS].to_vec() } else { Vec::new() };
    hop.named_keys.extend(named);
    hop.known_hosts.extend(if known.is_empty() { usual_known_hosts(&around.home) } else { known });
    match config.identity_agent.as_deref() {
        None | Some("SSH_AUTH_SOCK") => {}
        Some("none") => hop.agent = None,
        Some(path) if path.starts_with('$') => {}
        Some(path) => hop.agent = Some(expand_home(Path::new(path), &around.home)),
    }
    hop
}

fn usual_known_hosts(home: &Path) -> Vec<PathBuf> {
    vec![home.join(".ssh/known_hosts"), home.join(".ssh/known_hosts2"), PathBuf::from("/etc/ssh/ssh_known_hosts")]
}

fn expand_home(path: &Path, home: &Path) -> PathBuf {
    path.strip_prefix("~").map_or_else(|_| path.to_owned(), |rest| home.join(rest))
}

/// Replaces the tokens of `ssh_config(5)` that need no connection.
fn tokens(text: &str, hop: &Hop, original: &str, around: &Surroundings) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('h') => out.push_str(&hop.address),
            Some('p') => out.push_str(&hop.port.to_string()),
            Some('r') => out.push_str(&hop.user),
            Some('n') => out.push_str(original),
            Some('u') => out.push_str(&around.local_user),
            Some('d') => out.push_str(&around.home.to_string_lossy()),
            Some('%') | None => out.push('%'),
            Some(other) => out.extend(['%', other]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jump_hosts_in_all_their_forms() {
        for (text, expected) in [
            ("bastion", ("bastion", None, None)),
            ("bob@bastion:2222", ("bastion", Some("bob"), Some(2222))),
            ("ssh://bob@bastion:2222/", ("bastion", Some("bob"), Some(2222))),
            ("[fe80::1]:22", ("fe80::1", None, Some(22))),
            ("fe80::1", ("fe80::1", None, None)),
        ] {
            let asked = parse_jump(text).unwrap();
            assert_eq!((asked.host.as_str(), asked.user.as_deref(), asked.port), expected);
        }
        for text in ["", "@x", "x:port", "-oProxyCommand=id"] {
            assert!(parse_jump(text).is_err(), "{text}");
        }
    }
}
