//! Resolving: (project, host, facts) -> what to do on the host, in order. Pure.
//!
//! `order.rs` walks plays, roles and tasks; `variables.rs` knows which value a name has there;
//! `template.rs` and `condition.rs` render; `decode.rs` makes resources of arguments.

mod arguments;
pub mod checks;
mod condition;
pub mod connection;
pub mod decode;
mod engine;
pub mod examples;
pub mod helpers;
mod host;
mod inventory;
mod jinja;
mod jinja_only;
pub mod lint;
mod order;
mod place;
mod resolver;
mod scan;
mod sources;
mod tags;
mod task;
pub mod template;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod variables;
mod yaml;

pub use connection::{ConnectionVars, Password, connection};
pub use inventory::{host_json, inventory_json, plain_variable};
pub use lint::{check, errors_everywhere, lint, sorted};
pub use resolver::{Resolver, RunOptions, resolve};
pub use tags::unknown as unknown_tags;

use crate::diagnostic::{Diagnostic, Location};
use crate::resource::requirement::Requirement;
use crate::resource::{Check, Resource};
use crate::secret::SecretName;

/// Everything that a run does on one host, play by play.
#[derive(Debug, Default)]
pub struct HostProgram {
    /// In the playbook's order; a play that the host is not in is absent.
    pub plays: Vec<HostPlay>,
}

/// One play on one host.
#[derive(Debug)]
pub struct HostPlay {
    /// The play's index in the playbook.
    pub index: usize,
    pub nodes: Vec<Node>,
    pub handlers: Vec<Handler>,
    /// Health checks of the play's roles (`verify/`) and of `gate: health`.
    pub checks: Vec<CheckTask>,
    /// What the play's roles require of the host.
    pub requires: Vec<RoleRequirement>,
}

/// `requires` of a role, rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRequirement {
    pub role: String,
    pub at: Location,
    pub needs: Requirement,
}

/// A task or a group of tasks.
#[derive(Debug)]
pub enum Node {
    Task(Task),
    Block(Block),
    /// `meta: flush_handlers`: notified handlers run here.
    FlushHandlers,
    /// `gate: health` of a role: every host of the batch waits here until the role's checks pass
    /// on all of them. The string is the role's name.
    Gate(String),
}

/// `block` / `rescue` / `always`.
#[derive(Debug)]
pub struct Block {
    pub name: String,
    pub body: Vec<Node>,
    pub rescue: Vec<Node>,
    pub always: Vec<Node>,
}

/// One task: one line of the plan, one count in the recap, however many resources a loop or a
/// composite makes of it.
#[derive(Debug)]
pub struct Task {
    /// `role : name`, as Ansible shows it.
    pub title: String,
    pub role: Option<String>,
    pub location: Location,
    /// Empty when skipped.
    pub resources: Vec<Box<dyn Resource>>,
    /// Names of handlers (or what they listen to).
    pub notify: Vec<String>,
    /// Why it is skipped on this host.
    pub skipped: Option<String>,
    /// Its own tags and those of what it is in.
    pub tags: Vec<String>,
    pub ignore_errors: bool,
    /// Seconds for each step, if the task says so.
    pub timeout: Option<u64>,
}

impl Task {
    /// Where the task is written, for people and editors: `FILE:LINE`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.location.file.display(), self.location.line)
    }
}

/// A handler: runs once at the end of its play if one of its names was notified.
#[derive(Debug)]
pub struct Handler {
    pub task: Task,
    /// Its name and what it listens to.
    pub names: Vec<String>,
}

/// A health check as a task.
#[derive(Debug)]
pub struct CheckTask {
    pub title: String,
    pub role: Option<String>,
    pub check: Check,
}

/// The tasks below some nodes, in order; those of rescues too if they are wanted.
fn walk<'a>(nodes: &'a [Node], rescues: bool, out: &mut Vec<&'a Task>) {
    for node in nodes {
        match node {
            Node::Task(task) => out.push(task),
            Node::Block(block) => {
                walk(&block.body, rescues, out);
                if rescues {
                    walk(&block.rescue, rescues, out);
                }
                walk(&block.always, rescues, out);
            }
            Node::FlushHandlers | Node::Gate(_) => {}
        }
    }
}

impl HostProgram {
    /// Every task of the program, handlers too, in order.
    pub fn tasks(&self) -> impl Iterator<Item = &Task> {
        let mut out = Vec::new();
        for play in &self.plays {
            walk(&play.nodes, true, &mut out);
            out.extend(play.handlers.iter().map(|handler| &handler.task));
        }
        out.into_iter()
    }

    /// What the tasks that a run without failures goes through cannot have together: a host port
    /// published twice, subnets that overlap. With the place of the later one.
    #[must_use]
    pub fn conflicts(&self) -> Vec<Diagnostic> {
        let mut tasks = Vec::new();
        self.plays.iter().for_each(|play| walk(&play.nodes, false, &mut tasks));
        let resources = || tasks.iter().flat_map(|task| task.resources.iter().map(|resource| (resource, &task.location)));
        let claims: Vec<_> =
            resources().flat_map(|(resource, _)| resource.claims().into_iter().map(|claim| (resource.id(), claim))).collect();
        let located = |message: String| {
            let at = resources().find(|(resource, _)| message.starts_with(&format!("{}: ", resource.id())));
            let diagnostic = Diagnostic::error(message.clone());
            match at {
                Some((_, at)) => diagnostic.at(at.clone()),
                None => diagnostic,
            }
        };
        crate::resource::claims::cross_check(&claims).into_iter().map(located).collect()
    }

    /// Secrets that applying the program may need.
    #[must_use]
    pub fn secrets(&self) -> Vec<SecretName> {
        let mut names: Vec<_> = self.tasks().flat_map(|task| task.resources.iter().flat_map(|resource| resource.secrets())).collect();
        names.sort();
        names.dedup();
        names
    }
}
