//! `soc-provision check`: everything that can be judged without a host, in one run.
//!
//! First what holds for every host (modules, names of arguments, syntax of templates, also in
//! tasks whose condition does not hold), then each host resolved with placeholder facts.

use std::collections::HashSet;

use super::checks;
use super::decode;
use super::place;
use super::resolver::{Resolver, RunOptions};
use super::template;
use crate::diagnostic::{Diagnostic, Level, nearest};
use crate::facts::Facts;
use crate::project::Project;
use crate::project::lower::Problems;
use crate::project::source::{Node, VAULT_HEADER, VAULT_HINT, Val};
use crate::project::task::{Action, Common, Item, TaskDef};

/// All problems of a project, warnings included, each once. `found` is what loading it found.
#[must_use]
pub fn check(project: &Project, found: &[Diagnostic], options: &RunOptions) -> Vec<Diagnostic> {
    let mut problems = Problems::default();
    problems.extend(found.iter().cloned());
    problems.extend(lint(project));
    let broken = problems.has_errors();
    let registered = if broken { registered(project) } else { HashSet::new() };
    // Of what follows from errors that are shown already, nothing is said.
    let follows = |diagnostic: &Diagnostic| {
        let name = diagnostic.message.strip_prefix('`').and_then(|rest| rest.split_once("` is not defined"));
        name.is_some_and(|(name, _)| registered.contains(name.split(['.', '[']).next().unwrap_or(name)))
    };
    let options = RunOptions { offline: true, ..options.clone() };
    let resolver = Resolver::new(project, &options);
    for host in project.hosts() {
        problems.extend(super::connection(project, host).err().unwrap_or_default());
        let found = match resolver.resolve(host, &Facts::placeholder(host)) {
            Ok(program) => program.conflicts(),
            Err(found) => found,
        };
        problems.extend(found.into_iter().filter(|diagnostic| !follows(diagnostic)));
    }
    sorted(problems.into_vec())
}

/// The errors of a run in which no host can be resolved, seen before any is connected to. None if
/// one of them can: what only some hosts meet is theirs, and the others are served.
#[must_use]
pub fn errors_everywhere(project: &Project, hosts: &[String], options: &RunOptions) -> Vec<Diagnostic> {
    let options = RunOptions { offline: true, ..options.clone() };
    let resolver = Resolver::new(project, &options);
    let mut problems = Problems::default();
    for host in hosts {
        match resolver.resolve(host, &Facts::placeholder(host)) {
            Ok(_) => return Vec::new(),
            Err(found) => problems.extend(found.into_iter().filter(|problem| problem.level == Level::Error)),
        }
    }
    sorted(problems.into_vec())
}

/// Problems in the order in which people read them: errors first, file by file.
#[must_use]
pub fn sorted(mut all: Vec<Diagnostic>) -> Vec<Diagnostic> {
    all.sort_by_key(|diagnostic| {
        let place = diagnostic.location.as_ref().map(|at| (at.file.as_ref().clone(), at.line, at.column));
        (diagnostic.level == Level::Warning, place)
    });
    all
}

/// Names that tasks give to results.
fn registered(project: &Project) -> HashSet<String> {
    fn walk(items: &[Item], out: &mut HashSet<String>) {
        for item in items {
            match item {
                Item::Task(task) => out.extend(task.registered.iter().cloned()),
                Item::Block(block) => [&block.body, &block.rescue, &block.always].into_iter().for_each(|list| walk(list, out)),
            }
        }
    }
    let mut out = HashSet::new();
    for play in &project.plays {
        [&play.pre_tasks, &play.tasks, &play.post_tasks, &play.handlers].into_iter().for_each(|list| walk(list, &mut out));
    }
    for role in project.used_roles() {
        walk(&role.tasks, &mut out);
        walk(&role.handlers, &mut out);
    }
    project.used_task_files().iter().for_each(|items| walk(items, &mut out));
    out
}

/// Problems that do not depend on a host.
#[must_use]
pub fn lint(project: &Project) -> Vec<Diagnostic> {
    let mut lint = Lint { project, problems: Problems::default(), seen: HashSet::new() };
    for play in &project.plays {
        lint.common(&play.common);
        for list in [&play.pre_tasks, &play.tasks, &play.post_tasks, &play.handlers] {
            lint.items(list, false);
        }
        for used in &play.roles {
            lint.common(&used.common);
        }
    }
    for role in project.used_roles() {
        lint.items(&role.tasks, false);
        lint.items(&role.handlers, false);
        lint.items(&role.verify, true);
        lint.items(&role.smoke, true);
        for vars in [&role.defaults, &role.vars] {
            vars.values().for_each(|node| lint.variable(node));
        }
    }
    for items in project.used_task_files() {
        lint.items(&items, false);
    }
    for (name, _) in project.inventory.iter() {
        for source in project.host_vars(name) {
            // Hosts of a group share its variables.
            if lint.seen.insert(std::sync::Arc::as_ptr(&source.vars) as usize) {
                source.vars.values().for_each(|node| lint.variable(node));
            }
        }
    }
    lint.problems.into_vec()
}

struct Lint<'a> {
    project: &'a Project,
    problems: Problems,
    seen: HashSet<usize>,
}

impl Lint<'_> {
    fn items(&mut self, items: &[Item], verify: bool) {
        for item in items {
            match item {
                Item::Task(task) => self.task(task, verify),
                Item::Block(block) => {
                    self.common(&block.common);
                    for list in [&block.body, &block.rescue, &block.always] {
                        self.items(list, verify);
                    }
                }
            }
        }
    }

    fn task(&mut self, task: &TaskDef, verify: bool) {
        self.common(&task.common);
        if let Some(looped) = &task.looped {
            self.node(&looped.items);
        }
        match &task.action {
            Action::Module { candidates, args } => {
                let known = |name: &str| if verify { checks::find(name).is_some() } else { decode::kind(name).is_some() };
                match decode::choose(candidates, &known) {
                    Err(diagnostics) => self.problems.extend(diagnostics),
                    Ok((key, node)) => {
                        if !verify {
                            self.arguments(&key.name, node);
                        }
                        self.node(node);
                        args.iter().for_each(|node| self.node(node));
                    }
                }
            }
            Action::SetFact(node) | Action::IncludeVars(node) | Action::IncludeTasks(node) => self.node(node),
            Action::Assert { that, message } => {
                that.iter().for_each(|node| self.expression(node));
                message.iter().for_each(|node| self.node(node));
            }
            Action::Fail(Some(node)) | Action::Debug { message: Some(node), .. } => self.node(node),
            Action::IncludeRole(used) => used.params.values().for_each(|node| self.node(node)),
            _ => {}
        }
    }

    /// Names of arguments, where the kind's schema lists them.
    fn arguments(&mut self, kind: &str, node: &Node) {
        let fields = decode::fields(kind);
        let Some(map) = node.as_map().filter(|_| !fields.is_empty()) else { return };
        for (key, _) in map.iter().filter(|(key, _)| !fields.contains(&&*key.name)) {
            let diagnostic = Diagnostic::error(format!("unknown key `{}` in `{kind}`", key.name)).at(key.at.clone());
            self.problems.push(match nearest(&key.name, fields.iter().copied()) {
                Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
                None => diagnostic.hint(format!("known keys: {}", fields.join(", "))),
            });
        }
    }

    fn common(&mut self, common: &Common) {
        common.when.iter().for_each(|node| self.expression(node));
        common.vars.values().for_each(|node| self.variable(node));
        common.notify.iter().for_each(|node| self.node(node));
        let flags = [&common.name, &common.r#become, &common.become_user, &common.ignore_errors, &common.environment];
        for node in flags.into_iter().flatten() {
            self.node(node);
        }
    }

    fn expression(&mut self, node: &Node) {
        if let Some(text) = node.as_str() {
            if let Some(hint) = super::condition::jinja(text.trim()) {
                return self.problems.push(Diagnostic::error("this is not a Handlebars expression").at(node.at.clone()).hint(hint));
            }
            let source = if text.starts_with("{{") { text.to_owned() } else { format!("{{{{{text}}}}}") };
            if let Err(mut trouble) = template::compile(&source) {
                trouble.place = (1, 1);
                trouble.hint = Some("a condition is an expression such as `eq ansible_distribution \"Debian\"`".to_owned());
                self.problems.push(place::in_value(self.project, trouble, &node.at, None));
            }
        }
    }

    fn node(&mut self, node: &Node) {
        self.walk(node, Level::Error);
    }

    /// Values that no task may ever use are only warned about.
    fn variable(&mut self, node: &Node) {
        self.walk(node, Level::Warning);
    }

    fn walk(&mut self, node: &Node, level: Level) {
        match &node.value {
            Val::Str(text) if text.starts_with(VAULT_HEADER) => {
                let diagnostic = Diagnostic { level, ..Diagnostic::error("this value is encrypted with ansible-vault") };
                self.problems.push(diagnostic.at(node.at.clone()).hint(VAULT_HINT));
            }
            Val::Str(text) if template::is_template(text) || text.contains("{%") => {
                let compiled = template::compile(text);
                if let Err(trouble) = compiled {
                    let diagnostic = place::in_value(self.project, trouble, &node.at, None);
                    self.problems.push(Diagnostic { level, ..diagnostic });
                }
            }
            Val::Seq(items) => items.iter().for_each(|item| self.walk(item, level)),
            Val::Map(map) => map.iter().for_each(|(_, node)| self.walk(node, level)),
            _ => {}
        }
    }
}
