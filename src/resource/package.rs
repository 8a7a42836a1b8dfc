//! Packages of the distribution (apt). Reads dpkg's status, never apt's cache; runs one
//! `apt-get install` for all names of a task; waits for dpkg's lock and says who holds it; repairs
//! half-configured packages first. Leaves repositories to `repository`.

use std::time::Duration;

use serde::Deserialize;

use crate::resource::argument::Words;
use crate::resource::observe::{PackageState, View};
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Kind, Question, Resource, ResourceId};
use crate::facts::Facts;
use crate::shell::Script;

/// How long an installation may take before the run stops waiting for it; dpkg itself goes on.
const INSTALL_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Packages of the distribution.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageSpec {
    /// One name or several; `name=version` pins a version (`nginx=1.22*`).
    name: Words,
    /// `present`, `absent`, or `hold` (present, and kept from upgrades).
    #[serde(default)]
    state: State,
    /// Read the repositories' lists anew before installing, if they are older than this many seconds.
    #[serde(default = "an_hour")]
    cache_valid_time: u64,
    /// Read the lists anew before installing, whatever their age.
    #[serde(default)]
    update_cache: bool,
    /// Install recommended packages too.
    #[serde(default)]
    install_recommends: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    Present,
    Absent,
    Hold,
}

fn an_hour() -> u64 {
    3600
}

impl Kind for PackageSpec {
    const NAME: &'static str = "package";
    const EXAMPLE: &'static str = "package:\n  name: [ca-certificates, chrony]\n";
    const SHORTHAND: Option<&'static str> = Some("name");

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let mut packages = Vec::new();
        for word in self.name.split() {
            let (name, version) = word.split_once('=').map_or((word.as_str(), None), |(name, version)| (name, Some(version.to_owned())));
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.:".contains(c);
            if name.len() < 2 || !name.chars().all(fine) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
                return Err(BuildError::field("name", format!("`{}` is not the name of a package", name.escape_debug())));
            }
            if packages.iter().any(|package: &Wanted| package.name == name) {
                return Err(BuildError::field("name", format!("`{name}` is named twice")));
            }
            packages.push(Wanted { name: name.to_owned(), version });
        }
        if packages.is_empty() {
            return Err(BuildError::field("name", "no package is named"));
        }
        let age = if self.update_cache { 0 } else { self.cache_valid_time };
        Ok(vec![Box::new(Package { packages, state: self.state, age, recommends: self.install_recommends })])
    }
}

#[derive(Debug)]
struct Wanted {
    name: String,
    version: Option<String>,
}

impl Wanted {
    fn argument(&self) -> String {
        self.version.as_ref().map_or_else(|| self.name.clone(), |version| format!("{}={version}", self.name))
    }

    fn has_version(&self, state: &PackageState) -> bool {
        match self.version.as_deref() {
            None => true,
            Some(pattern) => match pattern.strip_suffix('*') {
                Some(start) => state.version.starts_with(start),
                None => state.version == pattern,
            },
        }
    }
}

/// Packages that one task names; for composites too.
#[derive(Debug)]
pub struct Package {
    packages: Vec<Wanted>,
    state: State,
    age: u64,
    recommends: bool,
}

impl Package {
    /// Packages that must be installed.
    #[must_use]
    pub fn present(names: &[&str]) -> Self {
        let packages = names.iter().map(|name| Wanted { name: (*name).to_owned(), version: None }).collect();
        Self { packages, state: State::Present, age: an_hour(), recommends: false }
    }
}

impl Resource for Package {
    fn id(&self) -> ResourceId {
        ResourceId::new("package", self.packages.iter().map(|package| package.name.as_str()).collect::<Vec<_>>().join(","))
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        self.packages.iter().map(|package| Question::Package(package.name.clone())).collect()
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let mut plan = Plan::default();
        let (mut install, mut remove, mut hold, mut broken) = (Vec::new(), Vec::new(), Vec::new(), false);
        for package in &self.packages {
            let seen = view.package(&package.name)?;
            let installed = seen.filter(|state| state.is_installed());
            broken |= seen.is_some_and(|state| !state.is_installed() && !matches!(state.abbrev.as_bytes().get(1), Some(b'n' | b'c')));
            match (self.state, installed) {
                (State::Absent, Some(state)) => {
                    plan.changes.push(Change::remove(&package.name, &state.version));
                    remove.push(package.name.as_str());
                }
                (State::Absent, None) => {}
                (_, Some(state)) if package.has_version(state) => {
                    if self.state == State::Hold && !state.is_held() {
                        plan.changes.push(Change::of(format!("{} hold", package.name), "no", "yes"));
                        hold.push(package.name.as_str());
                    }
                }
                (_, seen) => {
                    let after = package.version.clone().unwrap_or_else(|| "installed".to_owned());
                    plan.changes.push(match seen {
                        Some(state) => Change::of(&package.name, &state.version, after),
                        None => Change::add(&package.name, after),
                    });
                    install.push(package.argument());
                    if self.state == State::Hold {
                        hold.push(&package.name);
                    }
                }
            }
        }
        if plan.changes.is_empty() {
            return Ok(plan);
        }
        plan.effects = self.packages.iter().map(|package| Effect::Package(package.name.clone())).collect();
        plan.steps.push(self.step(&install, &remove, &hold, broken));
        Ok(plan)
    }
}

impl Package {
    fn step(&self, install: &[String], remove: &[&str], hold: &[&str], broken: bool) -> Step {
        let mut script = Script::sh(PRELUDE, &[]);
        if broken {
            script = script.then("wait_dpkg; dpkg --configure -a --force-confdef --force-confold || exit\n", &[]);
        }
        let mut titles = Vec::new();
        if !install.is_empty() {
            titles.push(format!("install {}", install.join(" ")));
            script = script
                .then("refresh {}\ninstall() { wait_dpkg; apt-get -q -y -o DPkg::Lock::Timeout=600 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold ", &[&self.age.to_string()])
                .then(if self.recommends { "--install-recommends" } else { "--no-install-recommends" }, &[])
                .then(" --allow-downgrades install --", &[]);
            for name in install {
                script = script.then(" {}", &[name]);
            }
            // Lists that are too old name files that the repository no longer has.
            script = script.then("; }\ninstall || { refresh 0 && install; } || exit\n", &[]);
        }
        if !remove.is_empty() {
            titles.push(format!("remove {}", remove.join(" ")));
            script = script.then("wait_dpkg; apt-get -q -y -o DPkg::Lock::Timeout=600 remove --", &[]);
            for name in remove {
                script = script.then(" {}", &[name]);
            }
            script = script.then(" || exit\n", &[]);
        }
        if !hold.is_empty() {
            script = script.then("apt-mark hold --", &[]);
            for name in hold {
                script = script.then(" {}", &[name]);
            }
            script = script.then(" || exit\n", &[]);
        }
        let title = if titles.is_empty() { "hold packages".to_owned() } else { titles.join(", ") };
        Step::new(title, script).deadline(INSTALL_DEADLINE).surviving()
    }
}

/// Waits up to ten minutes for whoever holds dpkg's lock (unattended-upgrades on a fresh host),
/// and says who it is. The holder is found in /proc/locks by the lock file's inode.
const PRELUDE: &str = r#"export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l LC_ALL=C
wait_dpkg() {
  told=''; n=0
  while [ $n -lt 600 ]; do
    holder=''
    for f in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock; do
      [ -e $f ] || continue
      i=$(stat -c %i $f)
      while read -r x kind x x pid dev x; do case $dev in *:"$i") holder=$pid;; esac; done </proc/locks
    done
    [ -n "$holder" ] || return 0
    if [ "$holder" != "$told" ]; then
      told=$holder; c=$(tr '\0' ' ' 2>/dev/null </proc/$holder/cmdline)
      echo "waiting for dpkg's lock, held by process $holder: $c" >&2
    fi
    n=$((n+1)); sleep 1
  done
  echo "dpkg's lock is still held by process $told after 600 s" >&2; return 1
}
refresh() {
  newest=0
  for f in /var/lib/apt/lists/*_Packages* /var/lib/apt/lists/*_InRelease; do [ -e "$f" ] && { s=$(stat -c %Y /var/lib/apt/lists); newest=$s; break; }; done
  for f in /etc/apt/sources.list /etc/apt/sources.list.d/*; do [ -e "$f" ] && [ "$f" -nt /var/lib/apt/lists/partial ] && newest=0; done
  if [ $(( $(date +%s) - newest )) -ge "$1" ]; then apt-get -q -o DPkg::Lock::Timeout=600 update || return; touch /var/lib/apt/lists /var/lib/apt/lists/partial; fi
}
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::observe::{Answer, Observations, Pending};
    use crate::secret::{KeyedDigests, Vault};

    fn plan(abbrev: Option<&str>) -> Plan {
        let package = Package::present(&["chrony"]);
        let mut seen = Observations::default();
        let state = abbrev.map(|abbrev| PackageState { version: "4.3-1".into(), abbrev: abbrev.into() });
        seen.insert(Question::Package("chrony".into()), Answer::Package(state));
        package.plan(&View::new(&Facts::default(), &KeyedDigests::default(), &seen, &Pending::default())).unwrap()
    }

    #[test]
    fn only_what_is_missing_is_installed() {
        assert!(plan(Some("ii ")).is_in_sync());
        assert!(plan(Some("hi ")).is_in_sync());
        assert_eq!(plan(None).steps[0].title, "install chrony");
        assert_eq!(plan(Some("rc ")).steps[0].title, "install chrony");
    }

    #[test]
    fn a_half_configured_package_is_repaired_first() {
        assert!(plan(Some("iF ")).steps[0].script.shown().contains("dpkg --configure -a"));
        assert!(!plan(Some("un ")).steps[0].script.shown().contains("wait_dpkg; dpkg --configure -a"));
    }

    #[test]
    fn the_script_is_valid_shell() {
        let script = plan(None).steps[0].script.fill(&Vault::default()).unwrap();
        let out = std::process::Command::new("/bin/sh").args(["-n", "-c"]).arg(&*script).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}
