//! `docker_engine`: Docker and Compose from the distribution or from Docker's own repository, and
//! the daemon with a hardened configuration. Refuses, before anything is touched, distributions
//! that were never tried and configurations that would not do what they seem to.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::diagnostic::nearest;
use crate::facts::Facts;
use crate::resource::argument::Presence;
use crate::resource::docker_daemon::{AbsentDaemon, DockerDaemon};
use crate::resource::package::Package;
use crate::resource::repository::Repository;
use crate::resource::{BuildContext, BuildError, Kind, KindEntry, Resource};

/// Keys of `daemon.json`, from dockerd's documentation.
const KEYS: &[&str] = &[
    "allow-nondistributable-artifacts",
    "api-cors-header",
    "authorization-plugins",
    "bip",
    "bridge",
    "builder",
    "cgroup-parent",
    "containerd",
    "containerd-namespace",
    "containerd-plugin-namespace",
    "data-root",
    "debug",
    "default-address-pools",
    "default-cgroupns-mode",
    "default-gateway",
    "default-gateway-v6",
    "default-network-opts",
    "default-runtime",
    "default-shm-size",
    "default-ulimits",
    "dns",
    "dns-opts",
    "dns-search",
    "exec-opts",
    "exec-root",
    "experimental",
    "features",
    "firewall-backend",
    "fixed-cidr",
    "fixed-cidr-v6",
    "group",
    "host-gateway-ip",
    "hosts",
    "http-proxy",
    "https-proxy",
    "icc",
    "init",
    "init-path",
    "insecure-registries",
    "ip",
    "ip-forward",
    "ip-masq",
    "ip6tables",
    "iptables",
    "ipv6",
    "labels",
    "live-restore",
    "log-driver",
    "log-format",
    "log-level",
    "log-opts",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "metrics-addr",
    "mtu",
    "no-new-privileges",
    "no-proxy",
    "node-generic-resources",
    "oom-score-adjust",
    "pidfile",
    "proxies",
    "raw-logs",
    "registry-mirrors",
    "runtimes",
    "seccomp-profile",
    "selinux-enabled",
    "shutdown-timeout",
    "storage-driver",
    "storage-opts",
    "tls",
    "tlscacert",
    "tlscert",
    "tlskey",
    "tlsverify",
    "userland-proxy",
    "userland-proxy-path",
    "userns-remap",
    "validate",
];
/// Keys whose value is true or false.
const FLAGS: &[&str] = &[
    "debug",
    "experimental",
    "icc",
    "init",
    "ip-forward",
    "ip-masq",
    "ip6tables",
    "iptables",
    "ipv6",
    "live-restore",
    "no-new-privileges",
    "selinux-enabled",
    "tls",
    "tlsverify",
    "userland-proxy",
];

/// Docker and Compose, installed, configured and running.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerEngine {
    #[serde(default)]
    pub source: Source,
    /// With `source: docker`: the repository's URL for this distribution, as its vendor gives it.
    #[serde(default)]
    pub repository_url: Option<String>,
    /// With `source: docker`: its key, a file of the role.
    #[serde(default)]
    pub repository_key: Option<String>,
    /// With `source: docker`: the key's fingerprint, 40 hex digits; another key is refused.
    #[serde(default)]
    pub repository_fingerprint: Option<String>,
    /// Keys of `daemon.json` (`live-restore` or `live_restore`), over safe defaults: live-restore
    /// and no-new-privileges on, userland-proxy and icc off, `json-file` logs of three times 10
    /// MB, 65536 open files. `null` takes a default away.
    #[serde(default)]
    pub daemon: BTreeMap<String, Value>,
    /// Keys of `daemon.json` that this version does not know; passed on as they are.
    #[serde(default)]
    pub extra: BTreeMap<String, Value>,
    /// Switch user namespaces although there is data, which then is out of sight.
    #[serde(default)]
    pub allow_remap_change: bool,
    /// `absent` removes Docker's packages and `daemon.json`; refused while there is a container.
    /// The data below `/var/lib/docker` stays.
    #[serde(default)]
    pub state: Presence,
}

/// Where Docker comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The distribution's own packages.
    #[default]
    Distribution,
    /// Docker's own repository.
    Docker,
}

impl Kind for DockerEngine {
    const NAME: &'static str = "docker_engine";
    const EXAMPLE: &'static str =
        "docker_engine:\n  source: distribution\n  daemon:\n    live-restore: true\n    log-opts: {max-size: 20m, max-file: \"5\"}\n";

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let packages = packages(self.source, context.facts)?;
        if self.state == Presence::Absent {
            return self.absent(&packages, context);
        }
        let (config, notes) = self.config()?;
        let mut out: Vec<Box<dyn Resource>> = Vec::new();
        if self.source == Source::Docker {
            out.extend(self.repository(context)?);
        } else if self.repository_url.is_some() || self.repository_key.is_some() || self.repository_fingerprint.is_some() {
            return Err(BuildError::field("repository_url", "a repository is given, and Docker comes from the distribution")
                .hint("say `source: docker`"));
        }
        out.push(Box::new(Package::present(&packages)));
        let foreign: &[&str] = match self.source {
            Source::Distribution => &["docker-ce"],
            Source::Docker => &["docker.io", "containerd", "runc"],
        };
        out.push(Box::new(DockerDaemon {
            config,
            allow_remap_change: self.allow_remap_change,
            foreign: foreign.iter().map(|name| (*name).to_owned()).collect(),
            notes,
        }));
        Ok(out)
    }
}

/// Packages by source and distribution.
fn packages(source: Source, facts: &Facts) -> Result<Vec<&'static str>, BuildError> {
    let (distribution, version) = (facts.distribution(), facts.version());
    let known = matches!((distribution, version), ("Debian", "12" | "13") | ("Ubuntu", "22.04" | "24.04"));
    if !known {
        return Err(BuildError::from(format!("`docker_engine` does not know {distribution} {version}"))
            .hint("supported are Debian 12 and 13, Ubuntu 22.04 and 24.04"));
    }
    let mut packages = match (source, distribution, version) {
        (Source::Docker, ..) => vec!["docker-ce", "docker-ce-cli", "containerd.io", "docker-compose-plugin", "docker-buildx-plugin"],
        (Source::Distribution, "Debian", "12") => {
            return Err(BuildError::field(
                "source",
                "Debian 12's own Compose is 1.29, which is too old: stacks need Compose 2.20 or newer",
            )
            .hint("say `source: docker` with `repository_url`, `repository_key` and `repository_fingerprint`"));
        }
        (Source::Distribution, "Debian", _) => vec!["docker.io", "docker-cli", "docker-compose"],
        (Source::Distribution, ..) => vec!["docker.io", "docker-compose-v2"],
    };
    packages.push("iptables");
    if facts.has_apparmor() {
        packages.push("apparmor");
    }
    Ok(packages)
}

/// Packages that other things on a host use too: they stay when Docker goes.
const SHARED: &[&str] = &["iptables", "apparmor"];

impl DockerEngine {
    /// Docker taken away: first the daemon's file, which is refused while there are containers.
    fn absent(&self, packages: &[&str], context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        if !self.daemon.is_empty() || !self.extra.is_empty() {
            return Err(BuildError::field("daemon", "configures a daemon that `state: absent` takes away"));
        }
        let own: Vec<&str> = packages.iter().copied().filter(|name| !SHARED.contains(name)).collect();
        let mut out: Vec<Box<dyn Resource>> = vec![Box::new(AbsentDaemon), Box::new(Package::absent(&own))];
        if self.source == Source::Docker {
            out.extend((KindEntry::of::<Repository>().decode)(json!({"name": "docker", "state": "absent"}), context)?);
        }
        Ok(out)
    }

    fn repository(&self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let need = |field: &str, value: &Option<String>| {
            value.clone().ok_or_else(|| BuildError::field(field, format!("`source: docker` needs `{field}`")))
        };
        let url = need("repository_url", &self.repository_url)?;
        let key = need("repository_key", &self.repository_key)?;
        let fingerprint = need("repository_fingerprint", &self.repository_fingerprint)?;
        let arguments = json!({"name": "docker", "uris": url, "components": "stable", "signed_by": key, "fingerprint": fingerprint});
        (KindEntry::of::<Repository>().decode)(arguments, context)
    }

    /// `daemon.json` whole, and what is to be said about it.
    fn config(&self) -> Result<(Map<String, Value>, Vec<String>), BuildError> {
        let mut config = defaults();
        for (key, value) in &self.daemon {
            let key = key.replace('_', "-");
            if !KEYS.contains(&key.as_str()) {
                let hint = nearest(&key, KEYS.iter().copied())
                    .map_or_else(|| "keys of newer versions go into `extra`".to_owned(), |near| format!("did you mean `{near}`?"));
                return Err(
                    BuildError::field(&format!("daemon.{key}"), format!("dockerd has no key `{key}`: it would not start")).hint(hint)
                );
            }
            if FLAGS.contains(&key.as_str()) && !value.is_boolean() && !value.is_null() {
                return Err(BuildError::field(&format!("daemon.{key}"), format!("`{key}` is true or false, not `{value}`")));
            }
            if value.is_null() {
                config.remove(&key);
            } else {
                config.insert(key, value.clone());
            }
        }
        if self.daemon.keys().any(|key| key.replace('_', "-") == "log-driver")
            && !self.daemon.keys().any(|key| key.replace('_', "-") == "log-opts")
        {
            // Options belong to a driver: those of the default one may be unknown to another.
            let files = matches!(config.get("log-driver").and_then(Value::as_str), Some("json-file" | "local"));
            if !files {
                config.remove("log-opts");
            }
        }
        config.extend(self.extra.iter().map(|(key, value)| (key.clone(), value.clone())));
        refuse(&config)?;
        Ok((config.clone(), warnings(&config)))
    }
}

fn defaults() -> Map<String, Value> {
    let defaults = json!({
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 65536, "Hard": 65536}},
        "icc": false,
        "live-restore": true,
        "log-driver": "json-file",
        "log-level": "info",
        "log-opts": {"max-size": "10m", "max-file": "3"},
        "no-new-privileges": true,
        "userland-proxy": false,
    });
    match defaults {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// What must not be, whatever the daemon thinks of it.
fn refuse(config: &Map<String, Value>) -> Result<(), BuildError> {
    if config.get("iptables").and_then(Value::as_bool) == Some(false) {
        return Err(BuildError::field(
            "daemon.iptables",
            "`iptables: false` is no firewall: it breaks published ports, the way out and the isolation of networks",
        )
        .hint("use the `firewall` resource, which works beside Docker's own tables"));
    }
    let hosts = config.get("hosts").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let hosts: Vec<&str> = hosts.collect();
    let verified = config.get("tlsverify").and_then(Value::as_bool) == Some(true);
    if let Some(open) = hosts.iter().find(|host| host.starts_with("tcp://") && !verified) {
        return Err(BuildError::field("daemon.hosts", format!("`{open}` without `tlsverify` makes everybody who reaches it root"))
            .hint("use ssh (`DOCKER_HOST=ssh://...`), or set `tlsverify` with certificates"));
    }
    if !hosts.is_empty() {
        return Err(BuildError::field(
            "daemon.hosts",
            "the packaged unit starts dockerd with `-H fd://`, beside which `hosts` keeps it from starting",
        )
        .hint("override ExecStart with `systemd_unit` and leave `hosts` out of `daemon`"));
    }
    Ok(())
}

fn warnings(config: &Map<String, Value>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(driver) = config.get("log-driver").and_then(Value::as_str).filter(|driver| !matches!(*driver, "json-file" | "journald")) {
        notes.push(format!("log driver `{driver}`: log shippers that read /var/lib/docker/containers find nothing"));
    }
    if config.get("insecure-registries").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        notes.push("`insecure-registries`: images from there are not authenticated".to_owned());
    }
    for (key, safe) in [("live-restore", true), ("no-new-privileges", true), ("userland-proxy", false), ("icc", false)] {
        if config.get(key).and_then(Value::as_bool) != Some(safe) {
            notes.push(format!("`{key}` is not {safe}, which would be safer"));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(daemon: Value) -> Result<(Map<String, Value>, Vec<String>), BuildError> {
        serde_json::from_value::<DockerEngine>(json!({"daemon": daemon})).unwrap().config()
    }

    fn facts(distribution: &str, version: &str) -> Facts {
        let Value::Object(vars) = json!({"ansible_distribution": distribution, "ansible_distribution_version": version}) else {
            unreachable!()
        };
        Facts::from_vars(vars)
    }

    #[test]
    fn safe_defaults_may_be_changed_and_taken_away() {
        let (config, notes) = config(json!({"live_restore": false, "log-level": null, "log-driver": "journald"})).unwrap();
        assert_eq!((&config["live-restore"], &config["icc"]), (&json!(false), &json!(false)));
        assert!(!config.contains_key("log-level") && !config.contains_key("log-opts"));
        assert_eq!(notes, ["`live-restore` is not true, which would be safer"]);
    }

    #[test]
    fn what_would_break_or_open_the_host_is_refused() {
        let says = |daemon, part: &str| {
            let error = config(daemon).unwrap_err();
            assert!(error.message.contains(part), "{error:?}");
        };
        says(json!({"iptables": false}), "is no firewall");
        says(json!({"hosts": ["tcp://0.0.0.0:2375"]}), "without `tlsverify`");
        says(json!({"hosts": ["unix:///x"]}), "-H fd://");
        says(json!({"audit-log": {}}), "no key `audit-log`");
        says(json!({"icc": "no"}), "is true or false");
    }

    #[test]
    fn distributions_that_were_not_tried_are_refused() {
        assert_eq!(
            packages(Source::Distribution, &facts("Debian", "13")).unwrap(),
            ["docker.io", "docker-cli", "docker-compose", "iptables"]
        );
        assert!(packages(Source::Distribution, &facts("Debian", "12")).unwrap_err().message.contains("1.29"));
        assert!(packages(Source::Docker, &facts("Debian", "12")).is_ok());
        assert!(packages(Source::Distribution, &facts("Fedora", "42")).unwrap_err().message.contains("Fedora 42"));
    }
}
