//! `file`: a path's existence and attributes: a file, a directory, a link, or nothing.
//!
//! Reads its status. Never touches content: that is `copy`'s and `template`'s.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::{Account, FileMode, absolute};
use crate::resource::directory::{Directory, attribute_changes};
use crate::resource::fragment::{self, Expect, Write};
use crate::resource::managed::{Body, check_parent};
use crate::resource::marks;
use crate::resource::observe::{PathKind, PathState, Question, View};
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Resource, ResourceId};
use crate::secret::Text;
use crate::shell::Script;

/// Sets what a path is, and its owner and mode.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Absolute path on the host.
    #[serde(alias = "dest", alias = "name")]
    path: String,
    /// `file`: must be there already; `directory`; `link`; `touch`: created empty if need be;
    /// `absent`: removed, a directory with all that is in it.
    #[serde(default)]
    state: State,
    /// Permission bits, in quotes.
    #[serde(default)]
    mode: Option<FileMode>,
    /// Owner.
    #[serde(default)]
    owner: Option<Account>,
    /// Group.
    #[serde(default)]
    group: Option<Account>,
    /// What a link points to.
    #[serde(default)]
    src: Option<String>,
    /// For a link: replace a file that is in the way.
    #[serde(default)]
    force: bool,
    /// For a directory: give everything below the same owner and group.
    #[serde(default)]
    recurse: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    File,
    Directory,
    Link,
    Touch,
    Absent,
}

/// Places that no task removes: a slip of a variable would take the host with it.
const KEPT: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/local",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/lib",
    "/var/lib/dpkg",
    "/var/lib/docker",
    "/var/lib/soc-provision",
    "/var/log",
];

impl Kind for File {
    const NAME: &'static str = "file";
    const EXAMPLE: &'static str = "file:
  path: /etc/localtime
  state: link
  src: /usr/share/zoneinfo/Etc/UTC
  force: true
";

    fn build(mut self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        self.path = absolute("path", &self.path)?;
        if self.state == State::Directory {
            let mut arguments = serde_json::json!({ "path": self.path, "recurse": self.recurse });
            let account = |account: &Option<Account>| account.as_ref().map(|account| account.0.clone());
            arguments["mode"] = self.mode.map(|mode| crate::resource::argument::octal(mode.0)).into();
            arguments["owner"] = account(&self.owner).into();
            arguments["group"] = account(&self.group).into();
            let directory: Directory = serde_json::from_value(arguments).map_err(|error| BuildError::from(error.to_string()))?;
            return directory.build(context);
        }
        let wrong = |field: &str, message: &str| Err(BuildError::field(field, message));
        match (self.state, &self.src) {
            (State::Link, None) => return wrong("src", "a link needs `src`: what it points to"),
            (State::Link, Some(src)) if src.is_empty() || src.contains('\0') => return wrong("src", "a link cannot point to this"),
            (State::Link, _) | (_, None) => {}
            (_, Some(_)) => return wrong("src", "`src` is for `state: link`; `copy` copies a file"),
        }
        if self.recurse {
            return wrong("recurse", "`recurse` is for `state: directory`");
        }
        if self.state == State::Absent && KEPT.contains(&self.path.as_str()) {
            return Err(BuildError::field("path", format!("`{}` is not removed by any task", self.path)).hint("name something in it"));
        }
        Ok(vec![Box::new(self)])
    }
}

impl File {
    fn names(&self) -> (Option<&str>, Option<&str>) {
        (self.owner.as_ref().map(|owner| owner.0.as_str()), self.group.as_ref().map(|group| group.0.as_str()))
    }

    fn adjust(&self, state: &PathState) -> Plan {
        let changes = attribute_changes(state, self.owner.as_ref(), self.group.as_ref(), self.mode);
        if changes.is_empty() {
            return Plan::in_sync();
        }
        let (owner, group) = self.names();
        let script = marks::clear(&self.path, state).append(fragment::attributes(&self.path, owner, group, self.mode.map(|mode| mode.0)));
        Plan { changes, ..Plan::default() }.step(Step::new(format!("set owner and mode of {}", self.path), script))
    }

    fn touch(&self) -> Plan {
        let (owner, group) = self.names();
        let mode = self.mode.map_or(0o644, |mode| mode.0);
        let body = Body::Text(Text::default());
        let write = Write {
            path: &self.path,
            body: &body,
            mode,
            owner: owner.unwrap_or("root"),
            group,
            expect: &Expect::Absent,
            validate: None,
            backup: false,
            make_parent: false,
            record: None,
        };
        Plan::in_sync().change(Change::add("file", &self.path)).step(Step::new(format!("create {}", self.path), write.script()))
    }

    fn link(&self, state: Option<&PathState>) -> Result<Plan, Undecided> {
        let target = self.src.as_deref().unwrap_or_default();
        let before = match state {
            None => None,
            Some(state) if state.kind == PathKind::Link && state.target.as_deref() == Some(target) => return Ok(Plan::in_sync()),
            Some(state) if state.kind == PathKind::Link => state.target.clone(),
            Some(state) if state.kind == PathKind::File && self.force => Some("a file".to_owned()),
            Some(state) => {
                let what = if state.kind == PathKind::Directory { "a directory" } else { "no link" };
                let hint = if state.kind == PathKind::File { "set `force: true` to replace it" } else { "remove it first" };
                return Err(Undecided::Refused(format!("`{}` is {what}: {hint}", self.path)));
            }
        };
        let change = match before {
            Some(before) => Change::of("link", before, target),
            None => Change::add("link", target),
        };
        let script = Script::sh("p={}; if [ -d \"$p\" ] && [ ! -L \"$p\" ]; then exit 97; fi\n", &[&self.path])
            .then("read -r t </proc/sys/kernel/random/uuid; t=${p%/*}/.soc-tmp-$t\n", &[])
            .then("ln -s -- {} \"$t\" && mv -fT -- \"$t\" \"$p\" || { rm -f -- \"$t\"; exit 1; }\n", &[target]);
        Ok(Plan::in_sync().change(change).step(Step::new(format!("link {}", self.path), script)))
    }
}

/// A plan that removes whatever is at a path.
///
/// # Errors
/// Refused for the places that no task removes.
pub(super) fn remove_tree(path: &str, state: Option<&PathState>) -> Result<Plan, Undecided> {
    let Some(state) = state else { return Ok(Plan::in_sync()) };
    if KEPT.contains(&path) {
        return Err(Undecided::Refused(format!("`{path}` is not removed by any task: name something in it")));
    }
    let what = match state.kind {
        PathKind::Directory => "directory and all that is in it",
        PathKind::Link => "link",
        PathKind::File | PathKind::Other => "file",
    };
    let script = Script::sh("rm -rf --one-file-system -- {}\n", &[path]);
    Ok(Plan::in_sync()
        .change(Change::remove("state", what))
        .step(Step::new(format!("remove {path}"), script))
        .effect(Effect::Path(path.to_owned()))
        .effect(Effect::Tree(path.to_owned())))
}

impl Resource for File {
    fn id(&self) -> ResourceId {
        ResourceId::new(Self::NAME, &self.path)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let mut questions = vec![Question::Path(self.path.clone())];
        if matches!(self.state, State::Link | State::Touch) {
            questions.push(Question::Path(crate::resource::argument::parent(&self.path).to_owned()));
        }
        questions
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let state = view.path(&self.path)?;
        if state.is_none() && matches!(self.state, State::Link | State::Touch) {
            check_parent(view, &self.path)?;
        }
        let plan = match (self.state, state) {
            (State::Absent, state) => return remove_tree(&self.path, state),
            (State::Link, state) => self.link(state)?,
            (State::Touch, None) => self.touch(),
            (_, Some(state)) if matches!(state.kind, PathKind::File | PathKind::Directory | PathKind::Other) => self.adjust(state),
            (_, Some(_)) => {
                return Err(Undecided::Refused(format!("`{}` is a link: name what it points to, or use `state: link`", self.path)));
            }
            (_, None) => {
                if let Some(id) = view.pending(|effect| matches!(effect, Effect::Package(_) | Effect::Raw(_))) {
                    return Err(Undecided::After(id.clone()));
                }
                return Err(Undecided::Refused(format!(
                    "there is no `{}`: `state: touch` creates a file, `state: directory` a directory",
                    self.path
                )));
            }
        };
        Ok(if plan.is_in_sync() { plan } else { plan.effect(Effect::Path(self.path.clone())) })
    }

    fn claims(&self) -> Vec<Claim> {
        if self.state == State::Absent { Vec::new() } else { vec![Claim::Path(self.path.clone())] }
    }
}
