//! A host's program with its tasks in one list, so that plans, results and nodes can refer to
//! them by number.

use crate::resolve::{CheckTask, HostProgram, Node, RoleRequirement, Task};

/// A task's place in [`Program::tasks`].
pub type TaskIndex = usize;

/// A host's program, flattened.
#[derive(Debug, Default)]
pub struct Program {
    pub tasks: Vec<Task>,
    pub plays: Vec<Play>,
    /// What the host's roles require, each different requirement once.
    pub requires: Vec<RoleRequirement>,
}

/// One play of the host.
#[derive(Debug)]
pub struct Play {
    /// The play's index in the playbook.
    pub index: usize,
    pub nodes: Vec<Step>,
    pub handlers: Vec<Handler>,
    pub checks: Vec<CheckTask>,
}

/// A node of a play.
#[derive(Debug, Clone)]
pub enum Step {
    Task(TaskIndex),
    Block { name: String, body: Vec<Step>, rescue: Vec<Step>, always: Vec<Step> },
    FlushHandlers,
    Gate(String),
}

/// A handler and what notifies it.
#[derive(Debug, Clone)]
pub struct Handler {
    pub task: TaskIndex,
    pub names: Vec<String>,
}

impl Program {
    /// Takes a resolved program apart.
    #[must_use]
    pub fn new(resolved: HostProgram) -> Self {
        let mut program = Self::default();
        for play in resolved.plays {
            for requirement in play.requires {
                if !program.requires.contains(&requirement) {
                    program.requires.push(requirement);
                }
            }
            let nodes = program.flatten(play.nodes);
            let handlers = play
                .handlers
                .into_iter()
                .map(|handler| {
                    program.tasks.push(handler.task);
                    Handler { task: program.tasks.len() - 1, names: handler.names }
                })
                .collect();
            program.plays.push(Play { index: play.index, nodes, handlers, checks: play.checks });
        }
        program
    }

    fn flatten(&mut self, nodes: Vec<Node>) -> Vec<Step> {
        nodes
            .into_iter()
            .map(|node| match node {
                Node::Task(task) => {
                    self.tasks.push(task);
                    Step::Task(self.tasks.len() - 1)
                }
                Node::Block(block) => Step::Block {
                    name: block.name,
                    body: self.flatten(block.body),
                    rescue: self.flatten(block.rescue),
                    always: self.flatten(block.always),
                },
                Node::FlushHandlers => Step::FlushHandlers,
                Node::Gate(role) => Step::Gate(role),
            })
            .collect()
    }

    /// The tasks that a run without failures goes through, in order: no rescues, no handlers.
    #[must_use]
    pub fn straight(&self) -> Vec<(usize, TaskIndex)> {
        fn walk(play: usize, nodes: &[Step], out: &mut Vec<(usize, TaskIndex)>) {
            for node in nodes {
                match node {
                    Step::Task(index) => out.push((play, *index)),
                    Step::Block { body, always, .. } => {
                        walk(play, body, out);
                        walk(play, always, out);
                    }
                    Step::FlushHandlers | Step::Gate(_) => {}
                }
            }
        }
        let mut out = Vec::new();
        for play in &self.plays {
            walk(play.index, &play.nodes, &mut out);
        }
        out
    }
}

/// All tasks below some nodes, rescues too.
#[must_use]
pub fn tasks_in(nodes: &[Step]) -> Vec<TaskIndex> {
    let mut out = Vec::new();
    for node in nodes {
        match node {
            Step::Task(index) => out.push(*index),
            Step::Block { body, rescue, always, .. } => {
                for part in [body, rescue, always] {
                    out.extend(tasks_in(part));
                }
            }
            Step::FlushHandlers | Step::Gate(_) => {}
        }
    }
    out
}
