//! Running containers as `docker inspect` shows them, for kinds that look at what they are really
//! confined by.

use crate::resource::observe::View;
use crate::resource::plan::{Step, Undecided};
use crate::shell::Script;

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    /// Its first process, as the host numbers it.
    pub(super) pid: u64,
    /// `NAME=VALUE` or `NAME:VALUE`, as given when it was created.
    options: Vec<String>,
}

impl Container {
    /// The value of one of its security options.
    pub(super) fn security_option(&self, name: &str) -> Option<&str> {
        self.options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix(['=', ':']))
    }

    /// Stops and starts it: confinement is decided when a process starts.
    pub(super) fn restart(&self) -> Step {
        let script = Script::sh("docker restart {} >/dev/null\n", &[&self.id]);
        Step::new(format!("restart container {}", self.name), script)
    }
}

/// All running containers.
///
/// # Errors
/// As [`View::containers`].
pub(super) fn containers(view: &View<'_>) -> Result<Vec<Container>, Undecided> {
    Ok(view.containers()?.iter().filter_map(parse).collect())
}

fn parse(inspect: &serde_json::Value) -> Option<Container> {
    let pid = inspect["State"]["Pid"].as_u64().filter(|&pid| pid > 0)?;
    let id = inspect["Id"].as_str().filter(|id| id.chars().all(|c| c.is_ascii_hexdigit()))?;
    let options = inspect["HostConfig"]["SecurityOpt"].as_array().map_or(&[][..], Vec::as_slice);
    Some(Container {
        id: id.to_owned(),
        name: inspect["Name"].as_str().unwrap_or(id).trim_start_matches('/').to_owned(),
        pid,
        options: options.iter().filter_map(|option| option.as_str().map(str::to_owned)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_running_containers_count() {
        let running = serde_json::json!({
            "Id": "abc1", "Name": "/web", "State": { "Pid": 12 }, "HostConfig": { "SecurityOpt": ["no-new-privileges:true", "apparmor=docker-waf"] },
        });
        let container = parse(&running).unwrap();
        assert_eq!((container.name.as_str(), container.security_option("apparmor")), ("web", Some("docker-waf")));
        assert_eq!(container.security_option("seccomp"), None);
        assert_eq!(container.restart().script.shown(), "docker restart abc1 >/dev/null\n");
        assert!(parse(&serde_json::json!({ "Id": "abc1", "State": { "Pid": 0 } })).is_none());
    }
}
