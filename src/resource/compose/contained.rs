//! Containers that somebody took off their networks during an incident (`capture --contain`): the
//! marks that the host keeps of them, so that nothing touches them until they are released.

use crate::shell::Script;

/// Where the marks are: one file a container, named by its long id, `key value` a line.
pub const DIRECTORY: &str = "/var/lib/soc-provision/contained";

/// Who contained which container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The container's long id.
    pub id: String,
    pub name: String,
    /// Its Compose project and service; empty if it has none.
    pub project: String,
    pub service: String,
    pub who: String,
    pub from: String,
    /// Seconds since 1970.
    pub when: i64,
    pub reason: String,
    /// `docker run --restart`'s word for what it had.
    pub restart: String,
    pub networks: Vec<Network>,
}

/// A network that a container was on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    pub name: String,
    pub aliases: Vec<String>,
    /// Addresses that were asked for, if any.
    pub ipv4: String,
    pub ipv6: String,
}

impl Mark {
    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let line = |text: &str| text.replace(['\n', '\r'], " ");
        let mut out = String::new();
        for (key, value) in [
            ("id", &self.id),
            ("name", &self.name),
            ("project", &self.project),
            ("service", &self.service),
            ("who", &self.who),
            ("from", &self.from),
            ("when", &self.when.to_string()),
            ("reason", &self.reason),
            ("restart", &self.restart),
        ] {
            out.push_str(&format!("{key} {}\n", line(value)));
        }
        for network in &self.networks {
            out.push_str(&format!("network {}|{}|{}|{}\n", network.name, network.aliases.join(","), network.ipv4, network.ipv6));
        }
        out
    }

    /// Takes one line of a file.
    pub(super) fn take(&mut self, line: &str) {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        let slot = match key {
            "id" => &mut self.id,
            "name" => &mut self.name,
            "project" => &mut self.project,
            "service" => &mut self.service,
            "who" => &mut self.who,
            "from" => &mut self.from,
            "reason" => &mut self.reason,
            "restart" => &mut self.restart,
            "when" => {
                self.when = value.parse().unwrap_or_default();
                return;
            }
            "network" => {
                let mut parts = value.split('|').map(str::to_owned);
                let mut part = || parts.next().unwrap_or_default();
                let (name, aliases) = (part(), part());
                let aliases = aliases.split(',').filter(|alias| !alias.is_empty()).map(str::to_owned).collect();
                self.networks.push(Network { name, aliases, ipv4: part(), ipv6: part() });
                return;
            }
            _ => return,
        };
        value.clone_into(slot);
    }

    /// Reads what [`list`] printed.
    #[must_use]
    pub fn parse(output: &str) -> Vec<Self> {
        let mut out: Vec<Self> = Vec::new();
        for line in output.lines() {
            if line == "##mark" {
                out.push(Self::default());
            } else if let Some(mark) = out.last_mut() {
                mark.take(line);
            }
        }
        out
    }

    /// By whom and when, for people.
    #[must_use]
    pub fn by(&self) -> String {
        let when = jiff::Timestamp::from_second(self.when).map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string());
        let reason = if self.reason.is_empty() { String::new() } else { format!(" ({})", self.reason) };
        format!("by {} from {} at {when}{reason}", self.who, self.from)
    }

    /// What to tell somebody whose change would touch it.
    #[must_use]
    pub fn notice(&self) -> String {
        crate::diagnostic::printable(&format!("container `{}` was contained {}", self.name, self.by()))
    }
}

/// Prints the marks of a Compose project, or all with an empty name, each behind a line `##mark`.
#[must_use]
pub fn list(project: &str) -> Script {
    Script::sh(
        "for m in /var/lib/soc-provision/contained/*; do [ -f \"$m\" ] || continue; [ -z {} ] || grep -qx {} \"$m\" || continue; echo '##mark'; cat \"$m\"; done\n",
        &[project, &format!("project {project}")],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back() {
        let mark = Mark {
            id: "ab".repeat(32),
            name: "waf-application".into(),
            project: "waf".into(),
            service: "application".into(),
            who: "ann".into(),
            from: "desk".into(),
            when: 1_700_000_000,
            reason: "case 7: it beacons".into(),
            restart: "on-failure:5".into(),
            networks: vec![Network {
                name: "waf_net".into(),
                aliases: vec!["app".into(), "application".into()],
                ipv4: "10.0.0.9".into(),
                ipv6: String::new(),
            }],
        };
        assert_eq!(Mark::parse(&format!("##mark\n{}", mark.text())), std::slice::from_ref(&mark));
        assert_eq!(
            mark.notice(),
            "container `waf-application` was contained by ann from desk at 2023-11-14T22:13:20Z (case 7: it beacons)"
        );
        assert_eq!(Mark::parse("noise\n"), []);
    }
}
