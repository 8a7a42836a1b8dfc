//! `package`: Debian packages, through apt.
//!
//! Reads each package's state from dpkg; for `latest` and for old lists also apt's. A list of
//! packages is one resource and one run of apt. It waits for dpkg's lock and says who holds it,
//! repairs what an interrupted run left half-configured, keeps changed configuration files, and
//! fetches lists only if it must. It never kills dpkg: the step goes on without the connection.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::Words;
use crate::resource::observe::{PackageState, Question, View};
use crate::resource::pattern::fits;
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::teardown::{Teardown, is_docker};
use crate::resource::{BuildContext, BuildError, Kind, Resource, ResourceId};
use crate::shell::Script;

/// Installs, upgrades or removes packages.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "they are Ansible's arguments")]
pub struct PackageSpec {
    /// A package or a list of them. A version follows `=` and may end in `*`: `nginx=1.26*`.
    #[serde(default, alias = "pkg")]
    name: Words,
    /// `present`, `absent`, `latest` (of what the host's lists offer), or `hold` (installed, and
    /// held back from upgrades).
    #[serde(default)]
    state: State,
    /// Fetch old lists even if there is nothing to install.
    #[serde(default)]
    update_cache: bool,
    /// Seconds for which fetched lists are good enough to install from. An hour unless given.
    #[serde(default = "an_hour")]
    cache_valid_time: u64,
    /// Install recommended packages too.
    #[serde(default)]
    install_recommends: bool,
    /// With `absent`: remove configuration files too.
    #[serde(default)]
    purge: bool,
    /// With `absent`: remove packages that nothing needs any more.
    #[serde(default)]
    autoremove: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    #[serde(alias = "installed")]
    Present,
    #[serde(alias = "removed")]
    Absent,
    Latest,
    Hold,
}

fn an_hour() -> u64 {
    3600
}

/// What `survives` gives up waiting for; dpkg itself is never killed.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// The key of what apt's lists hold; a changed repository has this effect.
pub(super) const LISTS: &str = "apt-lists";

/// Which version each held package had when it was held: `PATH:VERSION`, one file each.
const HELD: &str = "/var/lib/soc-provision/held";
const HELD_VERSIONS: &str = "grep -asH '' /var/lib/soc-provision/held/*; :\n";

/// Prints the seconds since the lists were fetched; nothing if they never were.
const LISTS_AGE: &str = "n=0; for f in /var/lib/apt/periodic/update-success-stamp /var/lib/soc-provision/apt-lists /var/lib/apt/lists; do \
    [ -e \"$f\" ] || continue; for l in /var/lib/apt/lists/*_Packages*; do [ -e \"$l\" ] || n=1; break; done; [ $n = 0 ] || break; \
    s=$(stat -c %Y -- \"$f\"); t=$(date +%s); a=$((t - s)); [ -z \"$b\" ] || [ $a -lt $b ] || continue; b=$a; done; printf '%s\\n' \"$b\"\n";

impl Kind for PackageSpec {
    const NAME: &'static str = "package";
    const EXAMPLE: &'static str = "package:
  name: [nftables, \"auditd=1:4.*\", curl]
  state: present
";
    const SHORTHAND: Option<&'static str> = Some("name");

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let mut wanted = Vec::new();
        for word in self.name.split() {
            let (name, version) = match word.split_once('=') {
                Some((name, version)) => (name.to_owned(), Some(version.to_owned())),
                None => (word.clone(), None),
            };
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.:".contains(c);
            let bad = name.len() < 2 || name.starts_with(['-', '+', '.']) || name.ends_with('-') || !name.chars().all(fine);
            if bad {
                return Err(BuildError::field("name", format!("`{}` is not the name of a package", name.escape_debug())));
            }
            let odd = |version: &String| version.is_empty() || !version.chars().all(|c| c.is_ascii_alphanumeric() || "+-.:~*".contains(c));
            if version.as_ref().is_some_and(odd) {
                return Err(BuildError::field("name", format!("`{word}` has no version behind `=`"))
                    .hint("write `nginx=1.26.0-1` or `nginx=1.26*`"));
            }
            if version.is_some() && matches!(self.state, State::Absent | State::Latest) {
                return Err(BuildError::field("name", format!("`{word}` names a version, which `state` contradicts")));
            }
            wanted.push(Wanted { name, version });
        }
        if wanted.is_empty() && !self.update_cache {
            return Err(BuildError::field("name", "`name` is missing"));
        }
        Ok(vec![Box::new(Package { spec: self, wanted })])
    }
}

#[derive(Debug)]
struct Wanted {
    name: String,
    version: Option<String>,
}

impl Wanted {
    /// As apt takes it.
    fn argument(&self) -> String {
        self.version.as_ref().map_or_else(|| self.name.clone(), |version| format!("{}={version}", self.name))
    }

    fn accepts(&self, version: &str) -> bool {
        self.version.as_deref().is_none_or(|pattern| fits(pattern, version))
    }
}

/// Packages that one run of apt deals with; for composites too.
#[derive(Debug)]
pub struct Package {
    spec: PackageSpec,
    wanted: Vec<Wanted>,
}

impl Package {
    /// Packages that must be installed.
    #[must_use]
    pub fn present(names: &[&str]) -> Self {
        let spec = PackageSpec {
            name: Words::default(),
            state: State::Present,
            update_cache: false,
            cache_valid_time: an_hour(),
            install_recommends: false,
            purge: false,
            autoremove: false,
        };
        let wanted = names.iter().map(|name| Wanted { name: (*name).to_owned(), version: None }).collect();
        Self { spec, wanted }
    }

    /// Packages that must not be installed; their configuration stays.
    #[must_use]
    pub fn absent(names: &[&str]) -> Self {
        let mut package = Self::present(names);
        package.spec.state = State::Absent;
        package
    }

    fn age(&self) -> Option<Question> {
        self.spec.update_cache.then(|| Question::Raw { key: "apt-lists-age".to_owned(), script: Script::sh(LISTS_AGE, &[]) })
    }

    /// The versions that held packages had; one question for all of a host.
    fn held(&self) -> Option<Question> {
        let script = Script::sh(HELD_VERSIONS, &[]);
        (self.spec.state == State::Hold).then(|| Question::Raw { key: "held-versions".to_owned(), script })
    }

    /// The version that a package stays at: what it was when it was held, if what is declared still
    /// allows that.
    fn held_version(&self, view: &View<'_>, wanted: &Wanted) -> Result<Option<String>, Undecided> {
        let Some(question) = self.held() else { return Ok(None) };
        let seen = view.raw(&question)?;
        let start = format!("{HELD}/{}:", wanted.name);
        let version = seen.stdout.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned);
        Ok(version.filter(|version| wanted.accepts(version)))
    }

    /// What apt would install; asked without its caches, which it would write.
    fn policy(&self) -> Option<Question> {
        (self.spec.state == State::Latest).then(|| {
            let base = Script::sh("apt-cache -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= policy", &[]);
            let script = self.wanted.iter().fold(base, |script, wanted| script.then(" {}", &[&wanted.name]));
            Question::Raw { key: format!("apt-policy:{}", self.id().name), script }
        })
    }

    /// The version that the lists offer for a package.
    fn candidate(&self, view: &View<'_>, name: &str) -> Result<Option<String>, Undecided> {
        let Some(question) = self.policy() else { return Ok(None) };
        if let Some(id) = view.pending(|effect| *effect == Effect::Raw(LISTS.to_owned())) {
            return Err(Undecided::After(id.clone()));
        }
        let seen = view.raw(&question)?;
        if seen.status != 0 {
            return Err(Undecided::Unknown("`apt-cache policy` failed".to_owned()));
        }
        let mut lines = seen.stdout.lines().skip_while(|line| *line != format!("{name}:"));
        let found = lines.find_map(|line| line.trim().strip_prefix("Candidate: ").map(str::to_owned));
        Ok(found.filter(|version| version != "(none)"))
    }

    fn change(&self, wanted: &Wanted, state: Option<&PackageState>, view: &View<'_>) -> Result<Option<Change>, Undecided> {
        let installed = state.filter(|state| state.is_installed());
        let field = format!("package {}", wanted.name);
        let version = |state: &PackageState| state.version.clone();
        if self.spec.state == State::Absent {
            let gone = state.filter(|state| self.spec.purge || state.abbrev.as_bytes().get(1) != Some(&b'c'));
            return Ok(gone.map(|state| Change::remove(field, version(state))));
        }
        let held = self.held_version(view, wanted)?;
        let target = || held.clone().or_else(|| wanted.version.clone()).unwrap_or_else(|| "installed".to_owned());
        let Some(installed) = installed else {
            return Ok(Some(match state {
                Some(broken) if broken.abbrev.as_bytes().get(1) != Some(&b'c') => {
                    Change::of(field, format!("{} half-configured ({})", broken.version, broken.abbrev.trim()), target())
                }
                _ => Change::add(field, target()),
            }));
        };
        if !wanted.accepts(&installed.version) || held.as_ref().is_some_and(|held| *held != installed.version) {
            return Ok(Some(Change::of(field, version(installed), target())));
        }
        if self.spec.state == State::Hold && !installed.is_held() {
            return Ok(Some(Change::of(field, version(installed), format!("{} held", installed.version))));
        }
        let newer = self.candidate(view, &wanted.name)?.filter(|candidate| *candidate != installed.version);
        Ok(newer.map(|candidate| Change::of(field, version(installed), candidate)))
    }

    /// What only drift asks: whether files of the packages are as the packages brought them.
    fn altered(&self) -> Option<Question> {
        let names: Vec<&str> = self.wanted.iter().map(|wanted| wanted.name.as_str()).collect();
        (self.spec.state != State::Absent && !names.is_empty()).then(|| verify::of_packages(&names))
    }

    /// What else goes.
    fn removal(&self) -> Option<Question> {
        (self.spec.state == State::Absent).then(|| removal::question(&self.wanted, self.spec.purge, self.spec.autoremove))
    }

    /// How old the lists are, if they are too old.
    fn stale(&self, view: &View<'_>) -> Result<Option<Change>, Undecided> {
        let Some(question) = self.age() else { return Ok(None) };
        let seen = view.raw(&question)?;
        let age = seen.stdout.parse::<u64>().ok();
        let fresh = age.is_some_and(|age| age <= self.spec.cache_valid_time);
        let before = age.map_or_else(|| "never fetched".to_owned(), |age| format!("{} hours old", age / 3600));
        Ok((!fresh).then(|| Change::of("package lists", before, "fetched")))
    }

    fn script(&self, view: &View<'_>, update: bool) -> Result<Script, Undecided> {
        let mut script = Script::sh(include_str!("package/apt.sh"), &[]).then("repair\n", &[]);
        if update {
            script = script.then("update || exit 1\n", &[]);
        }
        if self.wanted.is_empty() {
            return Ok(script);
        }
        script = match self.spec.state {
            State::Absent => script.then(
                "apt --allow-change-held-packages {} {}",
                &[if self.spec.purge { "purge" } else { "remove" }, if self.spec.autoremove { "--auto-remove" } else { "-y" }],
            ),
            _ => script.then(
                "install_all {} {}",
                &[
                    &self.spec.cache_valid_time.to_string(),
                    if self.spec.install_recommends { "--install-recommends" } else { "--no-install-recommends" },
                ],
            ),
        };
        for wanted in &self.wanted {
            let held = self.held_version(view, wanted)?.map(|version| format!("{}={version}", wanted.name));
            script = script.then(" {}", &[&held.unwrap_or_else(|| wanted.argument())]);
        }
        script = script.then(" || exit 1\n", &[]);
        if self.spec.state == State::Hold {
            script = self.wanted.iter().fold(script.then("apt-mark hold", &[]), |script, wanted| script.then(" {}", &[&wanted.name]));
            script = script.then(" || exit 1\n", &[]);
            script = self
                .wanted
                .iter()
                .fold(script.then("mkdir -p {} || exit 1\nfor p in", &[HELD]), |script, wanted| script.then(" {}", &[&wanted.name]));
            script = script.then("; do dpkg-query -W -f '${Version}\n' -- \"$p\" >{}/\"$p\" || exit 1; done\n", &[HELD]);
        }
        Ok(script)
    }
}

impl Resource for Package {
    fn id(&self) -> ResourceId {
        let names: Vec<String> = self.wanted.iter().map(Wanted::argument).collect();
        ResourceId::new(PackageSpec::NAME, if names.is_empty() { "lists".to_owned() } else { names.join(" ") })
    }

    fn teardown(&self, wish: Teardown) -> Option<Box<dyn Resource>> {
        let names: Vec<&str> = self.wanted.iter().map(|wanted| wanted.name.as_str()).filter(|name| is_docker(name)).collect();
        (wish.docker && self.spec.state != State::Absent && !names.is_empty()).then(|| Box::new(Self::absent(&names)) as Box<dyn Resource>)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let names = self.wanted.iter().map(|wanted| Question::Package(wanted.name.clone()));
        names.chain(self.age()).chain(self.policy()).chain(self.held()).chain(self.removal()).collect()
    }

    fn drift_questions(&self, _: &Facts) -> Vec<Question> {
        self.altered().into_iter().collect()
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        if view.facts.text("ansible_pkg_mgr") == "unknown" {
            return Err(Undecided::Refused("the host has no apt: only Debian and its relatives are supported".to_owned()));
        }
        let mut plan = Plan::in_sync();
        for wanted in &self.wanted {
            if let Some(change) = self.change(wanted, view.package(&wanted.name)?, view)? {
                plan = plan.change(change).effect(Effect::Package(wanted.name.clone()));
            }
        }
        if let Some(question) = self.removal().filter(|_| !plan.changes.is_empty()) {
            plan = removal::add(plan, &self.wanted, view.raw(&question)?);
        }
        // What is installed anew anyway is not installed once more.
        let altered = if plan.changes.is_empty() { self.altered() } else { None };
        if let Some(told) = altered.map(|question| view.asked(&question)).transpose()?.flatten()
            && !told.stdout.trim().is_empty()
        {
            let effects = self.wanted.iter().map(|wanted| Effect::Package(wanted.name.clone()));
            return Ok(effects.fold(verify::plan(&told.stdout), Plan::effect));
        }
        // Old lists are no reason to act by themselves, unless lists or the latest are asked for.
        let stale = self.stale(view)?;
        let update = stale.is_some();
        if (self.wanted.is_empty() || self.spec.state == State::Latest || !plan.changes.is_empty())
            && let Some(stale) = stale
        {
            plan.changes.insert(0, stale);
        }
        if plan.changes.is_empty() {
            return Ok(plan);
        }
        if plan.effects.is_empty() && self.spec.state == State::Latest {
            plan.effects.extend(self.wanted.iter().map(|wanted| Effect::Package(wanted.name.clone())));
            plan = plan.note("what is the latest is known only once the lists are fetched");
        }
        let what = if self.spec.state == State::Absent { "remove" } else { "install" };
        let step = Step::new(format!("{what} {}", self.id().name), self.script(view, update)?);
        Ok(plan.step(step.deadline(DEADLINE).surviving()))
    }
}

#[path = "package/removal.rs"]
mod removal;
#[path = "package/verify.rs"]
pub(super) mod verify;

#[cfg(test)]
#[path = "package/tests.rs"]
mod tests;
