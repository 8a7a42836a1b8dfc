//! `directory`: a directory with its owner and mode.
//!
//! Reads its status; with `recurse`, looks for the first path below that has another owner or
//! group. Creates parents too. Leaves alone what is in the directory, unless it is to go.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::{Account, FileMode, Presence, absolute, octal};
use crate::resource::file::remove_tree;
use crate::resource::fragment;
use crate::resource::marks;
use crate::resource::observe::{Mark, PathKind, PathState, Question, View};
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Resource, ResourceId};
use crate::shell::Script;

/// Creates a directory, with its parents.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Absolute path on the host.
    #[serde(alias = "dest", alias = "name")]
    path: String,
    /// Permission bits, in quotes. A new directory has `"0755"` unless given.
    #[serde(default)]
    mode: Option<FileMode>,
    /// Owner.
    #[serde(default)]
    owner: Option<Account>,
    /// Group.
    #[serde(default)]
    group: Option<Account>,
    /// Give everything below the same owner and group. The mode is the directory's own.
    #[serde(default)]
    recurse: bool,
    /// `keep` leaves an access list (`setfacl`) alone; otherwise, where `mode` is given, it goes.
    #[serde(default)]
    acl: AccessList,
    /// `absent` removes the directory with all that is in it.
    #[serde(default)]
    state: Presence,
}

/// What becomes of an access list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum AccessList {
    #[default]
    Remove,
    Keep,
}

impl Kind for Directory {
    const NAME: &'static str = "directory";
    const EXAMPLE: &'static str = "directory:
  path: /srv/waf
  mode: \"0750\"
  owner: root
  group: adm
";
    const SHORTHAND: Option<&'static str> = Some("path");

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let path = absolute("path", &self.path)?;
        if self.recurse && self.owner.is_none() && self.group.is_none() {
            return Err(BuildError::field("recurse", "`recurse` has nothing to set").hint("give `owner` or `group`"));
        }
        let with = DirectoryResource::with(path, self.mode, self.owner, self.group);
        Ok(vec![Box::new(DirectoryResource { recurse: self.recurse, acl: self.acl, state: self.state, ..with })])
    }
}

/// One directory.
#[derive(Debug)]
pub(super) struct DirectoryResource {
    path: String,
    mode: Option<FileMode>,
    owner: Option<Account>,
    group: Option<Account>,
    recurse: bool,
    acl: AccessList,
    state: Presence,
}

impl DirectoryResource {
    pub(super) fn with(path: String, mode: Option<FileMode>, owner: Option<Account>, group: Option<Account>) -> Self {
        Self { path, mode, owner, group, recurse: false, acl: AccessList::Remove, state: Presence::Present }
    }

    fn owner(&self) -> Option<&str> {
        self.owner.as_ref().map(|owner| owner.0.as_str())
    }

    fn group(&self) -> Option<&str> {
        self.group.as_ref().map(|group| group.0.as_str())
    }

    /// Prints the first path below with another owner or group. A link counts by itself.
    fn strangers(&self) -> Question {
        let mut script = Script::sh("find {} -xdev \\(", &[&self.path]);
        for (index, (test, account)) in [("user", self.owner()), ("group", self.group())].into_iter().enumerate() {
            let Some(account) = account else { continue };
            let or = index > 0 && self.owner.is_some();
            script = script.then(if or { " -o ! -{} {}" } else { " ! -{} {}" }, &[test, account]);
        }
        let script = script.then(" \\) -print -quit\n", &[]);
        Question::Raw { key: format!("owners-below:{}", self.path), script }
    }

    fn create(&self) -> Plan {
        let mode = self.mode.map_or(0o755, |mode| mode.0);
        let mut script = Script::sh("umask 022; install -d -m {}", &[&octal(mode)]);
        if let Some(owner) = self.owner() {
            script = script.then(" -o {}", &[owner]);
        }
        if let Some(group) = self.group() {
            script = script.then(" -g {}", &[group]);
        }
        let script = script.then(" -- {}\n", &[&self.path]);
        let mut plan = Plan::in_sync().change(Change::add("directory", &self.path)).change(Change::add("mode", octal(mode)));
        for (field, account) in [("owner", self.owner()), ("group", self.group())] {
            plan.changes.extend(account.filter(|account| *account != "root").map(|account| Change::add(field, account)));
        }
        plan.step(Step::new(format!("create {}", self.path), script))
    }

    fn adjust(&self, state: &PathState, view: &View<'_>) -> Result<Plan, Undecided> {
        let mut state = state.clone();
        state.marks.retain(|mark| !(self.acl == AccessList::Keep && *mark == Mark::Acl));
        let state = &state;
        let mut plan = Plan { changes: attribute_changes(state, self.owner.as_ref(), self.group.as_ref(), self.mode), ..Plan::default() };
        if !plan.changes.is_empty() {
            let script = marks::clear(&self.path, state).append(fragment::attributes(
                &self.path,
                self.owner(),
                self.group(),
                self.mode.map(|mode| mode.0),
            ));
            plan = plan.step(Step::new(format!("set owner and mode of {}", self.path), script));
        }
        if self.recurse {
            let seen = view.raw(&self.strangers())?;
            if seen.status != 0 {
                return Err(Undecided::Unknown(format!("owners below `{}` cannot be listed", self.path)));
            }
            if !seen.stdout.is_empty() {
                let account =
                    format!("{}{}", self.owner().unwrap_or_default(), self.group().map(|group| format!(":{group}")).unwrap_or_default());
                let script = Script::sh("chown -R -P -h -- {} {}\n", &[&account, &self.path]);
                plan = plan
                    .change(Change::of("owner below", format!("another, of {} for one", seen.stdout), account))
                    .step(Step::new(format!("set owner below {}", self.path), script))
                    .effect(Effect::Tree(self.path.clone()));
            }
        }
        Ok(plan)
    }
}

/// How a path's owner, group and mode differ from those that are given.
pub(super) fn attribute_changes(
    state: &PathState,
    owner: Option<&Account>,
    group: Option<&Account>,
    mode: Option<FileMode>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    if let Some(owner) = owner.filter(|owner| !owner.is(&state.owner, state.uid)) {
        changes.push(Change::of("owner", &state.owner, &owner.0));
    }
    if let Some(group) = group.filter(|group| !group.is(&state.group, state.gid)) {
        changes.push(Change::of("group", &state.group, &group.0));
    }
    if let Some(mode) = mode.filter(|mode| mode.0 != state.mode) {
        changes.push(Change::of("mode", octal(state.mode), octal(mode.0)));
    }
    // A mode is declared to say who may do what.
    if mode.is_some() {
        changes.extend(marks::changes(state));
    }
    changes
}

impl Resource for DirectoryResource {
    fn id(&self) -> ResourceId {
        ResourceId::new("directory", &self.path)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let mut questions = vec![Question::Path(self.path.clone())];
        questions.extend(self.recurse.then(|| self.strangers()));
        questions
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let state = view.path(&self.path)?;
        let plan = match (self.state, state) {
            (Presence::Absent, state) => return remove_tree(&self.path, state),
            (Presence::Present, None) => self.create(),
            (Presence::Present, Some(state)) if state.kind == PathKind::Directory => self.adjust(state, view)?,
            (Presence::Present, Some(_)) => {
                return Err(Undecided::Refused(format!("`{}` is there and is not a directory: remove it first", self.path)));
            }
        };
        Ok(if plan.is_in_sync() { plan } else { plan.effect(Effect::Path(self.path.clone())) })
    }

    fn claims(&self) -> Vec<Claim> {
        if self.state == Presence::Present { vec![Claim::Path(self.path.clone())] } else { Vec::new() }
    }
}
