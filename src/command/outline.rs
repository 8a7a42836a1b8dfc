//! What of a playbook would run where, in the words of `ansible-playbook --list-hosts`,
//! `--list-tasks` and `--list-tags`. Offline: with placeholder facts.

use std::collections::BTreeSet;

use crate::diagnostic::Diagnostic;
use crate::facts::Facts;
use crate::project::Project;
use crate::project::playbook::Play;
use crate::resolve::{HostPlay, Node, Resolver, RunOptions, Task};

/// What is asked for.
pub(super) struct Parts {
    pub(super) hosts: bool,
    pub(super) tasks: bool,
    pub(super) tags: bool,
}

/// A task as it is listed.
#[derive(Clone, PartialEq)]
struct Line {
    title: String,
    tags: Vec<String>,
}

/// The listing of a playbook.
pub(super) fn render(playbook: &str, project: &Project, parts: &Parts, options: &RunOptions) -> Result<String, Vec<Diagnostic>> {
    let mut lines: Vec<Vec<Line>> = project.plays.iter().map(|_| Vec::new()).collect();
    if parts.tasks || parts.tags {
        let resolver = Resolver::new(project, options);
        for host in project.hosts() {
            for play in &resolver.resolve(host, &Facts::placeholder(host))?.plays {
                if let Some(list) = lines.get_mut(play.index) {
                    merge(list, of_play(play));
                }
            }
        }
    }
    let mut out = format!("\nplaybook: {playbook}\n");
    for (index, (play, lines)) in project.plays.iter().zip(&lines).enumerate() {
        out.push_str(&one(index, play, lines, parts));
    }
    Ok(out)
}

fn one(index: usize, play: &Play, lines: &[Line], parts: &Parts) -> String {
    let mut out = format!("\n  play #{} ({}): {}\tTAGS: [{}]\n", index + 1, play.pattern, play.name, play.common.tags.join(", "));
    if parts.hosts {
        out.push_str(&format!("    hosts ({}):\n", play.hosts.len()));
        play.hosts.iter().for_each(|host| out.push_str(&format!("      {host}\n")));
    }
    if parts.tasks {
        out.push_str("    tasks:\n");
        lines.iter().for_each(|line| out.push_str(&format!("      {}\tTAGS: [{}]\n", line.title, line.tags.join(", "))));
    }
    if parts.tags {
        let tags: BTreeSet<&str> = lines.iter().flat_map(|line| line.tags.iter().map(String::as_str)).collect();
        out.push_str(&format!("      TASK TAGS: [{}]\n", tags.into_iter().collect::<Vec<_>>().join(", ")));
    }
    out
}

fn of_play(play: &HostPlay) -> Vec<Line> {
    fn walk<'a>(nodes: &'a [Node], out: &mut Vec<&'a Task>) {
        for node in nodes {
            match node {
                Node::Task(task) => out.push(task),
                Node::Block(block) => [&block.body, &block.rescue, &block.always].into_iter().for_each(|list| walk(list, out)),
                Node::FlushHandlers | Node::Gate(_) => {}
            }
        }
    }
    let mut tasks = Vec::new();
    walk(&play.nodes, &mut tasks);
    let line = |task: &Task| {
        let tags: BTreeSet<&String> = task.tags.iter().collect();
        Line { title: task.title.clone(), tags: tags.into_iter().cloned().collect() }
    };
    tasks.into_iter().map(line).collect()
}

/// Adds one host's tasks to those of others, each where it comes in the host's order.
fn merge(list: &mut Vec<Line>, more: Vec<Line>) {
    let mut at = 0;
    for line in more {
        match list[at..].iter().position(|known| *known == line) {
            Some(found) => at += found + 1,
            None => {
                list.insert(at, line);
                at += 1;
            }
        }
    }
}
