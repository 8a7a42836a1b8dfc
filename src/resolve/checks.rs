//! Health checks as users write them in `verify/main.yml`: arguments -> [`Check`].

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::resource::check::{CheckKind, Vantage};
use crate::resource::{BuildError, Check, Sources};
use crate::shell::Script;

/// How long a check keeps trying unless it says otherwise.
const WITHIN: Duration = Duration::from_secs(60);
/// How long between tries.
const EVERY: Duration = Duration::from_secs(2);
/// How long one try of a command may take unless it says otherwise.
const COMMAND: Duration = Duration::from_secs(30);
/// The least that one try may be given.
const SHORTEST: Duration = Duration::from_secs(1);

/// What a check may look at while it is built.
pub struct CheckContext<'a> {
    pub sources: &'a dyn Sources,
    /// The host's address as the inventory has it.
    pub address: &'a str,
}

/// A kind of check, with its type erased.
pub struct CheckEntry {
    pub name: &'static str,
    /// A check for the reference; a test decodes it.
    pub example: &'static str,
    /// See [`crate::resource::Kind::SHORTHAND`].
    pub shorthand: Option<&'static str>,
    pub schema: fn() -> schemars::Schema,
    pub decode: fn(Value, &CheckContext<'_>) -> Result<Check, BuildError>,
}

/// All checks.
pub const CHECKS: &[CheckEntry] = &[
    CheckEntry {
        name: "http",
        example: "http:\n  url: https://127.0.0.1:9200/_cluster/health\n  status: [200, 401]\n  verify_tls: false\n  within: 5m\n",
        shorthand: Some("url"),
        schema: || schemars::schema_for!(Http),
        decode: decode::<Http>,
    },
    CheckEntry {
        name: "tcp",
        example: "tcp:\n  port: 1514\n  from: outside\n",
        shorthand: Some("port"),
        schema: || schemars::schema_for!(Tcp),
        decode: decode::<Tcp>,
    },
    CheckEntry {
        name: "port_closed",
        example: "port_closed:\n  port: 9200\n  from: outside\n",
        shorthand: Some("port"),
        schema: || schemars::schema_for!(PortClosed),
        decode: decode::<PortClosed>,
    },
    CheckEntry {
        name: "command",
        example: "command:\n  cmd: docker compose version\n  contains: v2\n",
        shorthand: Some("cmd"),
        schema: || schemars::schema_for!(Command),
        decode: decode::<Command>,
    },
    CheckEntry {
        name: "container_healthy",
        example: "container_healthy:\n  project: wazuh\n",
        shorthand: Some("project"),
        schema: || schemars::schema_for!(ContainerHealthy),
        decode: decode::<ContainerHealthy>,
    },
];

/// A check by name.
#[must_use]
pub fn find(name: &str) -> Option<&'static CheckEntry> {
    CHECKS.iter().find(|entry| entry.name == name)
}

/// Names of all checks.
pub fn names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|entry| entry.name)
}

trait CheckSpec: serde::de::DeserializeOwned {
    fn check(self, context: &CheckContext<'_>) -> Result<Check, BuildError>;
}

fn decode<C: CheckSpec>(arguments: Value, context: &CheckContext<'_>) -> Result<Check, BuildError> {
    let spec: C = serde_path_to_error::deserialize(arguments).map_err(|error| {
        let path = error.path().to_string();
        BuildError { message: error.inner().to_string(), field: (path != ".").then_some(path), hint: None }
    })?;
    spec.check(context)
}

/// Where a check connects from.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum From {
    /// From the host itself, through the SSH connection.
    Host,
    /// From where soc-provision runs.
    Outside,
}

impl From {
    fn vantage(self) -> Vantage {
        match self {
            Self::Host => Vantage::Host,
            Self::Outside => Vantage::Outside,
        }
    }
}

/// A GET that must answer with an accepted status.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Http {
    /// What to get.
    url: String,
    /// The accepted status code, or a list of them. Default: 200.
    #[serde(default)]
    status: Option<Value>,
    /// Text that the body must contain.
    contains: Option<String>,
    /// Whether the certificate is verified. Default: true.
    verify_tls: Option<bool>,
    /// A file of the role's `files/` with the CA's certificate in PEM.
    ca: Option<String>,
    /// `host` (default) or `outside`.
    from: Option<From>,
    /// How long to keep trying, as `30s`, `5m` or seconds. Default: 60s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    within: Option<Duration>,
    /// How long between tries. Default: 2s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    every: Option<Duration>,
    /// How long one try may take; then it is ended and has failed. Default: 15s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    timeout: Option<Duration>,
}

impl CheckSpec for Http {
    fn check(self, context: &CheckContext<'_>) -> Result<Check, BuildError> {
        if !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            return Err(BuildError::field("url", format!("`{}` does not start with `http://` or `https://`", self.url)));
        }
        let code = |value: &Value| value.as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| (100..600).contains(code));
        let status = match &self.status {
            None => Some(vec![200]),
            Some(Value::Array(items)) => items.iter().map(code).collect(),
            Some(one) => code(one).map(|code| vec![code]),
        };
        let status = status.ok_or_else(|| BuildError::field("status", "it must be a status code such as 200, or a list of them"))?;
        let ca_pem = match &self.ca {
            None => None,
            Some(name) => {
                let bytes = context.sources.file(name).map_err(|message| BuildError::field("ca", message))?;
                Some(String::from_utf8(bytes).map_err(|_| BuildError::field("ca", "the file is not PEM"))?)
            }
        };
        let kind = CheckKind::Http {
            url: self.url.clone(),
            status,
            contains: self.contains,
            verify_tls: self.verify_tls.unwrap_or(true),
            ca_pem,
            from: self.from.unwrap_or(From::Host).vantage(),
        };
        check(format!("http[{}]", self.url), kind, Times { within: self.within, every: self.every, timeout: self.timeout })
    }
}

/// A port that must accept connections.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tcp {
    port: u16,
    /// Default: 127.0.0.1 from the host, the host's own address from outside.
    address: Option<String>,
    /// `host` (default) or `outside`.
    from: Option<From>,
    /// How long to keep trying, as `30s`, `5m` or seconds. Default: 60s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    within: Option<Duration>,
    /// How long between tries. Default: 2s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    every: Option<Duration>,
    /// How long one try may take; then it is ended and has failed. Default: 15s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    timeout: Option<Duration>,
}

impl CheckSpec for Tcp {
    fn check(self, context: &CheckContext<'_>) -> Result<Check, BuildError> {
        let from = self.from.unwrap_or(From::Host).vantage();
        let address = self.address.unwrap_or_else(|| default_address(from, context));
        let times = Times { within: self.within, every: self.every, timeout: self.timeout };
        check(format!("tcp[{address}:{}]", self.port), CheckKind::Tcp { address, port: self.port, from }, times)
    }
}

/// A port that must not accept connections.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PortClosed {
    port: u16,
    /// Default: the host's own address.
    address: Option<String>,
    /// `outside` (default) or `host`.
    from: Option<From>,
    /// How long to keep trying, as `30s`, `5m` or seconds. Default: 10s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    within: Option<Duration>,
    /// How long between tries. Default: 2s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    every: Option<Duration>,
    /// How long one try may take; then it is ended and has failed. Default: 15s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    timeout: Option<Duration>,
}

impl CheckSpec for PortClosed {
    fn check(self, context: &CheckContext<'_>) -> Result<Check, BuildError> {
        let from = self.from.unwrap_or(From::Outside).vantage();
        let address = self.address.unwrap_or_else(|| default_address(from, context));
        let within = self.within.or(Some(Duration::from_secs(10)));
        let times = Times { within, every: self.every, timeout: self.timeout };
        check(format!("port_closed[{address}:{}]", self.port), CheckKind::PortClosed { address, port: self.port, from }, times)
    }
}

/// A command on the host that must exit 0.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Command {
    /// Run by `sh`; must change nothing.
    cmd: String,
    /// Text that it must print.
    contains: Option<String>,
    /// How long to keep trying, as `30s`, `5m` or seconds. Default: 60s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    within: Option<Duration>,
    /// How long between tries. Default: 2s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    every: Option<Duration>,
    /// How long one try may take; then it is ended and has failed. Default: 30s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    timeout: Option<Duration>,
}

impl CheckSpec for Command {
    fn check(self, _: &CheckContext<'_>) -> Result<Check, BuildError> {
        let id = format!("command[{}]", self.cmd.lines().next().unwrap_or_default());
        let kind = CheckKind::Command { script: Script::new().user_code(&self.cmd), contains: self.contains };
        check(id, kind, Times { within: self.within, every: self.every, timeout: self.timeout.or(Some(COMMAND)) })
    }
}

/// Containers that must run and, where they have a health check, be healthy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ContainerHealthy {
    /// A Compose project: all of its services.
    project: Option<String>,
    /// One container by name.
    container: Option<String>,
    /// How long to keep trying, as `30s`, `5m` or seconds. Default: 60s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    within: Option<Duration>,
    /// How long between tries. Default: 2s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    every: Option<Duration>,
    /// How long one try may take; then it is ended and has failed. Default: 15s.
    #[serde(default, deserialize_with = "duration")]
    #[schemars(with = "Option<String>")]
    timeout: Option<Duration>,
}

impl CheckSpec for ContainerHealthy {
    fn check(self, _: &CheckContext<'_>) -> Result<Check, BuildError> {
        let id = match (&self.project, &self.container) {
            (Some(name), None) | (None, Some(name)) => format!("container_healthy[{name}]"),
            _ => return Err(BuildError::from("give one of `project` and `container`".to_owned())),
        };
        let kind = CheckKind::ContainerHealthy { project: self.project, container: self.container };
        check(id, kind, Times { within: self.within, every: self.every, timeout: self.timeout })
    }
}

/// How long a check and its tries may take, as the user says.
struct Times {
    within: Option<Duration>,
    every: Option<Duration>,
    timeout: Option<Duration>,
}

fn check(id: String, kind: CheckKind, times: Times) -> Result<Check, BuildError> {
    let each = times.timeout.unwrap_or(Check::EACH);
    if each < SHORTEST {
        return Err(BuildError::field("timeout", "a try needs a second at least"));
    }
    Ok(Check { id, kind, within: times.within.unwrap_or(WITHIN), every: times.every.unwrap_or(EVERY), each })
}

fn default_address(from: Vantage, context: &CheckContext<'_>) -> String {
    match from {
        Vantage::Host => "127.0.0.1".to_owned(),
        Vantage::Outside => context.address.to_owned(),
    }
}

/// `30`, `"30s"`, `"5m"`, `"1h"`, `"500ms"`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    let seconds = match &value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => {
            let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let unit = match &text[digits.len()..] {
                "ms" => Some(0.001),
                "" | "s" => Some(1.0),
                "m" => Some(60.0),
                "h" => Some(3600.0),
                _ => None,
            };
            digits.trim().parse::<f64>().ok().zip(unit).map(|(number, unit)| number * unit)
        }
        Some(_) => None,
    };
    match seconds.filter(|seconds| (0.0..=86_400.0).contains(seconds)) {
        Some(seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
        None => Err(serde::de::Error::custom("it must be a time such as `30s` or `5m`, of one day at most")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct NoSources;

    impl Sources for NoSources {
        fn file(&self, name: &str) -> Result<Vec<u8>, String> {
            Err(format!("there is no file `{name}`"))
        }
        fn file_path(&self, name: &str) -> Result<std::path::PathBuf, String> {
            Err(format!("there is no file `{name}`"))
        }
        fn tree(&self, name: &str) -> Result<Vec<String>, String> {
            Err(format!("there is no file `{name}`"))
        }
        fn template(&self, name: &str) -> Result<crate::secret::Text, String> {
            Err(format!("there is no file `{name}`"))
        }
    }

    fn build(name: &str, arguments: Value) -> Result<Check, BuildError> {
        (find(name).unwrap().decode)(arguments, &CheckContext { sources: &NoSources, address: "10.0.0.1" })
    }

    #[test]
    fn examples_decode() {
        for entry in CHECKS {
            let node = crate::project::source::parse(entry.example, &std::sync::Arc::new("x".into())).unwrap().to_json();
            let check = build(entry.name, node[entry.name].clone()).unwrap();
            assert!(check.id.starts_with(entry.name), "{check:?}");
        }
    }

    #[test]
    fn defaults_depend_on_where_the_check_stands() {
        assert_eq!(build("port_closed", json!({"port": 22})).unwrap().id, "port_closed[10.0.0.1:22]");
        let tcp = build("tcp", json!({"port": 22, "within": "2m", "every": 0.5})).unwrap();
        assert_eq!((tcp.id.as_str(), tcp.within, tcp.every), ("tcp[127.0.0.1:22]", Duration::from_secs(120), Duration::from_millis(500)));
        assert_eq!((tcp.each, build("command", json!({"cmd": "true"})).unwrap().each), (Check::EACH, COMMAND));
        assert_eq!(build("command", json!({"cmd": "true", "timeout": "90s"})).unwrap().each, Duration::from_secs(90));
        assert_eq!(build("http", json!({"url": "http://x", "timeout": 0})).unwrap_err().field.as_deref(), Some("timeout"));
        assert_eq!(build("tcp", json!({"port": 22, "within": "soon"})).unwrap_err().field.as_deref(), Some("within"));
        assert!(build("container_healthy", json!({})).is_err());
        assert!(build("http", json!({"url": "ftp://x"})).is_err());
    }
}
