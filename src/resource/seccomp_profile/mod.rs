//! The `seccomp_profile` kind: which system calls containers may make.
//!
//! It owns `/etc/soc-provision/seccomp/NAME.json`, which Compose files name in `security_opt`, and
//! sees whether containers that were started with it really run filtered. It leaves alone when
//! containers are recreated: the profile travels inline with a container's creation, so a stack's
//! digest of its inputs covers the file (`compose_stack`).

pub mod docker;
pub mod profile;

use crate::facts::Facts;
use crate::resource::argument::Presence;
use crate::resource::own_file::OwnFile;
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::seccomp_profile::docker::{Container, Difference};
use crate::resource::seccomp_profile::profile::Profile;
use crate::resource::{BuildContext, BuildError, Claim, Kind, Question, Resource, ResourceId, Severity, View, running, source_text};
use crate::shell::Script;

/// Where profiles lie on a host.
pub const DIRECTORY: &str = "/etc/soc-provision/seccomp";

/// A seccomp profile for containers, checked offline down to every system call's name. Containers
/// take it by `security_opt: [seccomp=/etc/soc-provision/seccomp/NAME.json]`.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeccompProfile {
    /// The file's name without `.json`.
    name: String,
    /// The profile as JSON.
    content: Option<String>,
    /// A file of the role.
    src: Option<String>,
    /// A template of the role.
    template: Option<String>,
    /// `absent` removes the file, unless a container runs with it.
    #[serde(default)]
    state: Presence,
}

impl Kind for SeccompProfile {
    const NAME: &'static str = "seccomp_profile";
    const EXAMPLE: &'static str = "seccomp_profile: {name: waf, src: waf.json}\n";

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        source_text::file_name(&self.name)?;
        if self.state == Presence::Absent {
            return Ok(vec![Box::new(SeccompFile::new(self.name, String::new(), None))]);
        }
        let json = source_text::text(self.content, self.src.as_deref(), self.template.as_deref(), context.sources)?;
        let profile = Profile::parse(&json).map_err(|findings| {
            BuildError::from(format!("seccomp profile `{}` is refused: {}", self.name, findings.join("; ")))
                .hint("start from one of the profiles in `roles/seccomp/files`")
        })?;
        Ok(vec![Box::new(SeccompFile::new(self.name, json, Some(profile)))])
    }
}

/// One profile on a host.
#[derive(Debug)]
struct SeccompFile {
    name: String,
    file: OwnFile,
    /// `None`: to be removed.
    profile: Option<Profile>,
}

impl SeccompFile {
    fn new(name: String, json: String, profile: Option<Profile>) -> Self {
        let file = OwnFile::readable(format!("{DIRECTORY}/{name}.json"), json);
        Self { name, file, profile }
    }

    fn plan_absent(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        if view.path(&self.file.path)?.is_none() {
            return Ok(Plan::in_sync());
        }
        let script = self.file.remove();
        Ok(Plan::in_sync()
            .change(Change::remove("file", &self.file.path))
            .step(Step::new(format!("remove {}", self.file.path), script))
            .effect(Effect::Path(self.file.path.clone())))
    }

    /// Containers that were started with this very profile, and run without a filter.
    fn unfiltered(&self, view: &View<'_>) -> Result<Vec<running::Container>, Undecided> {
        let wanted = compact(&self.file.content);
        let with_it = |container: &running::Container| container.security_option("seccomp").is_some_and(|inline| compact(inline) == wanted);
        let containers: Vec<_> = running::containers(view)?.into_iter().filter(with_it).collect();
        if containers.is_empty() {
            return Ok(containers);
        }
        let modes = &view.raw(&modes())?.stdout;
        // `2` is SECCOMP_MODE_FILTER, proc_pid_status(5).
        Ok(containers.into_iter().filter(|container| mode_of(modes, container.pid).is_some_and(|mode| mode != "2")).collect())
    }
}

/// Prints `/proc/PID/status:Seccomp: MODE` of every process; one question, shared by all profiles.
fn modes() -> Question {
    let script = Script::sh("grep -Hs '^Seccomp:' /proc/[0-9]*/status || :\n", &[]);
    Question::Raw { key: "seccomp".to_owned(), script }
}

fn mode_of(modes: &str, pid: u64) -> Option<&str> {
    let start = format!("/proc/{pid}/status:Seccomp:");
    modes.lines().find_map(|line| line.strip_prefix(start.as_str())).map(str::trim)
}

/// JSON without white space between its tokens: how Docker's client puts a profile into a
/// container's `SecurityOpt`.
#[must_use]
pub fn compact(json: &str) -> String {
    let (mut out, mut inside, mut escaped) = (String::with_capacity(json.len()), false, false);
    for c in json.chars() {
        if inside || !c.is_ascii_whitespace() {
            out.push(c);
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            _ => {}
        }
    }
    out
}

impl Resource for SeccompFile {
    fn id(&self) -> ResourceId {
        ResourceId::new(SeccompProfile::NAME, &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let mut questions = self.file.questions().to_vec();
        questions.extend([Question::Containers, modes()]);
        questions
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let Some(profile) = &self.profile else {
            return self.plan_absent(view);
        };
        let container = Container { architecture: view.facts.deb_architecture(), capabilities: &[] };
        let mut plan = Plan { changes: self.file.changes(view)?, ..Plan::default() };
        if !plan.changes.is_empty() {
            plan.notes.push(format!("`{}` {}", self.name, Difference::of(profile, container)));
            plan.steps.push(Step::new(format!("write {}", self.file.path), self.file.write(view)?));
            plan.effects.push(Effect::Path(self.file.path.clone()));
        }
        for container in self.unfiltered(view)? {
            plan.changes.push(Change::of(format!("container {}", container.name), "not filtered", "filtered"));
            plan.steps.push(container.restart());
            plan.effects.push(Effect::Raw("seccomp".to_owned()));
        }
        Ok(plan)
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        if self.profile.is_none() {
            return Vec::new();
        }
        vec![Claim::Path(self.file.path.clone()), Claim::Owns(crate::resource::Place::Directory(DIRECTORY.to_owned()))]
    }
}

#[cfg(test)]
mod stacks;
#[cfg(test)]
mod tests;
