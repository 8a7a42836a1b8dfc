//! The order of things in a play: pre_tasks, roles with their dependencies, tasks, post_tasks,
//! and what blocks, roles and includes hand down to what is in them.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::host::HostRun;
use super::variables::{Frame, Scope, Sourced};
use super::{Block, CheckTask, Handler, HostPlay, Node as Step, RoleRequirement, arguments, condition, helpers, tags, task};
use crate::diagnostic::Diagnostic;
use crate::project::playbook::Play;
use crate::project::role::Role;
use crate::project::source::Node;
use crate::project::task::{Action, Common, Item, Meta, RoleUse, TaskDef};
use crate::project::variables::Layer;
use crate::resource::requirement::Requirement;

/// Deepest nesting of includes.
const MAX_DEPTH: usize = 24;

/// What is handed down.
#[derive(Clone, Default)]
pub(super) struct Inherit {
    pub(super) when: Vec<Node>,
    pub(super) tags: Vec<String>,
    pub(super) own: Vec<Sourced>,
    pub(super) r#become: Option<Node>,
    pub(super) become_user: Option<Node>,
    pub(super) ignore_errors: Option<Node>,
    pub(super) timeout: Option<Node>,
    /// Outermost first.
    pub(super) environment: Vec<Node>,
    pub(super) notify: Vec<Node>,
    depth: usize,
}

impl Inherit {
    /// With what a block, a role or an include adds.
    fn with(&self, common: &Common, layer: Layer) -> Self {
        let or = |inner: &Option<Node>, outer: &Option<Node>| inner.clone().or_else(|| outer.clone());
        let mut out = self.clone();
        out.when.extend(common.when.iter().cloned());
        out.tags.extend(common.tags.iter().cloned());
        out.notify.extend(common.notify.iter().cloned());
        if !common.vars.is_empty() {
            out.own.push(Sourced::nodes(layer, &common.vars));
        }
        out.r#become = or(&common.r#become, &self.r#become);
        out.become_user = or(&common.become_user, &self.become_user);
        out.ignore_errors = or(&common.ignore_errors, &self.ignore_errors);
        out.timeout = or(&common.timeout, &self.timeout);
        out.environment.extend(common.environment.iter().cloned());
        out
    }
}

/// Resolves one play.
pub(super) fn play<'p>(run: &HostRun<'_, 'p>, index: usize, play: &'p Play) -> HostPlay {
    run.done.borrow_mut().clear();
    let mut walk = Walk { run, handlers: Vec::new(), checks: Vec::new(), requires: Vec::new(), notified: Vec::new(), open: Vec::new() };
    let frame = run.frame(None);
    // The play's variables are a layer of the frame already.
    let common = Common { vars: Arc::default(), notify: Vec::new(), ..play.common.clone() };
    let inherit = Inherit::default().with(&common, Layer::PlayVars);
    walk.handlers(&play.handlers, &inherit, &frame);
    let mut nodes = walk.items(&play.pre_tasks, &inherit, &frame);
    if !nodes.is_empty() {
        nodes.push(Step::FlushHandlers);
    }
    for used in &play.roles {
        if walk.first_time(used) {
            nodes.extend(walk.role(used, &inherit, &frame));
        }
    }
    nodes.extend(walk.items(&play.tasks, &inherit, &frame));
    let post = walk.items(&play.post_tasks, &inherit, &frame);
    if !post.is_empty() {
        nodes.push(Step::FlushHandlers);
        nodes.extend(post);
    }
    walk.check_notifications();
    HostPlay { index, nodes, handlers: walk.handlers, checks: walk.checks, requires: walk.requires }
}

struct Walk<'a, 'r, 'p> {
    run: &'a HostRun<'r, 'p>,
    handlers: Vec<Handler>,
    checks: Vec<CheckTask>,
    requires: Vec<RoleRequirement>,
    /// What tasks notify, with their places.
    notified: Vec<(String, crate::diagnostic::Location)>,
    /// Roles that are being resolved.
    open: Vec<String>,
}

impl Walk<'_, '_, '_> {
    fn items(&mut self, items: &[Item], inherit: &Inherit, frame: &Rc<Frame>) -> Vec<Step> {
        let mut out = Vec::new();
        for item in items {
            if self.run.ended.get() {
                break;
            }
            match item {
                Item::Task(task) => out.extend(self.task(task, inherit, frame)),
                Item::Block(block) => {
                    let inner = inherit.with(&block.common, Layer::BlockVars);
                    let body = self.items(&block.body, &inner, frame);
                    if block.rescue.is_empty() && block.always.is_empty() {
                        out.extend(body);
                        continue;
                    }
                    let ended = self.run.ended.replace(false);
                    let rescue = self.items(&block.rescue, &inner, frame);
                    let always = self.items(&block.always, &inner, frame);
                    self.run.ended.set(ended);
                    let name = block.common.name.as_ref().and_then(Node::as_str).unwrap_or("block").to_owned();
                    out.push(Step::Block(Block { name, body, rescue, always }));
                }
            }
        }
        out
    }

    fn task(&mut self, task: &TaskDef, inherit: &Inherit, frame: &Rc<Frame>) -> Vec<Step> {
        let inner = inherit.with(&task.common, Layer::TaskVars);
        match &task.action {
            Action::IncludeTasks(_) | Action::IncludeRole(_) => return self.include(task, inherit, frame),
            Action::Nothing => return Vec::new(),
            _ => {}
        }
        let options = self.run.resolver.options;
        let flush = matches!(task.action, Action::Meta(_));
        if !tags::selected(&inner.tags, &options.tags, &options.skip_tags) && !(flush && inner.tags.is_empty()) {
            return Vec::new();
        }
        if let Action::Meta(meta) = &task.action {
            return self.meta(*meta, &inner, frame);
        }
        match task::resolve(self.run, task, &inner, frame) {
            Some(resolved) => {
                self.notified.extend(resolved.notify.iter().map(|name| (name.clone(), resolved.location.clone())));
                vec![Step::Task(resolved)]
            }
            None => Vec::new(),
        }
    }

    fn meta(&self, meta: Meta, inner: &Inherit, frame: &Rc<Frame>) -> Vec<Step> {
        let scope = self.run.scope(frame, &inner.own);
        match self.run.keep(condition::holds(&inner.when, &scope)) {
            Some(None) => {}
            _ => return Vec::new(),
        }
        match meta {
            Meta::FlushHandlers => vec![Step::FlushHandlers],
            Meta::EndHost => {
                self.run.ended.set(true);
                Vec::new()
            }
            Meta::Noop => Vec::new(),
        }
    }

    /// `include_tasks` and `include_role`, once for each item of a loop.
    fn include(&mut self, task: &TaskDef, inherit: &Inherit, frame: &Rc<Frame>) -> Vec<Step> {
        if inherit.depth >= MAX_DEPTH {
            let message = format!("files and roles include each other more than {MAX_DEPTH} levels deep");
            self.run.report(Diagnostic::error(message).at(task.common.at.clone()).hint("look for a file that includes itself"));
            return Vec::new();
        }
        let mut common = task.common.clone();
        if matches!(task.action, Action::IncludeRole(_)) {
            // These are the role's parameters.
            common.vars = Arc::default();
        }
        let mut inner = inherit.with(&common, Layer::RoleParams);
        inner.depth += 1;
        if let Some(apply) = &task.apply {
            inner = inner.with(apply, Layer::BlockVars);
        }
        let scope = self.run.scope(frame, &inner.own);
        let items = match &task.looped {
            None => vec![None],
            Some(looped) => match task::loop_items(looped, &scope) {
                Ok(items) => items.into_iter().map(Some).collect(),
                Err(diagnostic) => {
                    if !matches!(condition::holds(&inner.when, &scope), Ok(Some(_))) {
                        self.run.report(diagnostic);
                    }
                    Vec::new()
                }
            },
        };
        drop(scope);
        let mut out = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let mut inner = inner.clone();
            if let (Some(item), Some(looped)) = (item, &task.looped) {
                inner.own.push(task::loop_layer(looped, index, item));
            }
            let scope = self.run.scope(frame, &inner.own);
            // A condition that does not hold may be the very reason why a name cannot be rendered.
            if matches!(condition::holds(&inner.when, &scope), Ok(Some(_))) && self.is_templated(task) {
                continue;
            }
            out.extend(match &task.action {
                Action::IncludeTasks(file) => self.include_tasks(file, &inner, frame, &scope),
                Action::IncludeRole(used) => self.role(used, &inner, frame),
                _ => Vec::new(),
            });
        }
        out
    }

    fn is_templated(&self, task: &TaskDef) -> bool {
        match &task.action {
            Action::IncludeTasks(file) => super::decode::mentions_template(file),
            Action::IncludeRole(used) => super::decode::mentions_template(&used.name),
            _ => false,
        }
    }

    fn include_tasks(&mut self, file: &Node, inherit: &Inherit, frame: &Rc<Frame>, scope: &Scope<'_>) -> Vec<Step> {
        let Some(name) = self.name(file, scope) else { return Vec::new() };
        let project = self.run.resolver.project;
        let path = project.find_tasks(&name, &file.at.file, frame.role.as_deref());
        if !path.is_file() {
            let message = format!("there is no file of tasks `{}`", project.files.shown(&path).display());
            self.run.report(Diagnostic::error(message).at(file.at.clone()));
            return Vec::new();
        }
        match project.task_file(&path) {
            Ok(items) => self.items(&items, inherit, frame),
            Err(diagnostics) => {
                self.run.problems.borrow_mut().extend(diagnostics);
                Vec::new()
            }
        }
    }

    fn name(&self, node: &Node, scope: &Scope<'_>) -> Option<String> {
        let value = self.run.keep(scope.render(node))?;
        let text = helpers::text(&value).map_err(|message| Diagnostic::error(message).at(node.at.clone()));
        self.run.keep(text)
    }

    /// Whether the role, with these parameters, has not come yet on this host: as in Ansible, a
    /// role in `roles:` and in others' dependencies runs once.
    fn first_time(&self, used: &RoleUse) -> bool {
        let params: Vec<_> = used.params.iter().map(|(name, node)| (name, node.to_json())).collect();
        self.run.done.borrow_mut().insert(format!("{:?} {params:?}", used.name.as_str()))
    }

    /// A role with its dependencies.
    fn role(&mut self, used: &RoleUse, outer: &Inherit, frame: &Rc<Frame>) -> Vec<Step> {
        let scope = self.run.scope(frame, &outer.own);
        let Some(name) = self.name(&used.name, &scope) else { return Vec::new() };
        drop(scope);
        let project = self.run.resolver.project;
        let role = match project.role(&name) {
            Ok(role) => role,
            Err(diagnostics) => {
                let located = |diagnostic: Diagnostic| {
                    if diagnostic.location.is_none() { diagnostic.at(used.name.at.clone()) } else { diagnostic }
                };
                self.run.problems.borrow_mut().extend(diagnostics.into_iter().map(located));
                return Vec::new();
            }
        };
        if self.open.iter().filter(|open| **open == name).count() > MAX_DEPTH / 4 {
            self.run.report(Diagnostic::error(format!("role `{name}` includes itself")).at(used.name.at.clone()));
            return Vec::new();
        }
        let mut inherit = outer.with(&Common { vars: Arc::default(), ..used.common.clone() }, Layer::RoleParams);
        inherit.depth += 1;
        // What the include handed over reaches into the role as parameters.
        let mut out = Vec::new();
        self.open.push(name.clone());
        for dependency in &role.dependencies {
            if self.first_time(dependency) {
                out.extend(self.role(dependency, &inherit, frame));
            }
        }
        out.extend(self.role_body(&role, used, &inherit));
        self.open.pop();
        out
    }

    fn role_body(&mut self, role: &Arc<Role>, used: &RoleUse, inherit: &Inherit) -> Vec<Step> {
        let project = self.run.resolver.project;
        let frame = self.run.frame(Some((role, used)));
        let scope = self.run.scope(&frame, &inherit.own);
        let skipped = matches!(condition::holds(&inherit.when, &scope), Ok(Some(_)));
        let entry = match used.tasks_from.as_ref().map(|node| self.name(node, &scope)) {
            Some(Some(from)) => Some(from),
            Some(None) => return Vec::new(),
            None => None,
        };
        let options = self.run.resolver.options;
        if !skipped {
            let key = entry.as_deref().map_or("main", |entry| entry.trim_end_matches(".yml"));
            if let Some(spec) = role.specs.get(key) {
                arguments::validate(self.run, role, spec, used, &scope);
            }
        }
        drop(scope);
        let tasks = match &entry {
            None => Arc::clone(&role.tasks),
            Some(from) => match project.task_file(&project.role_tasks(role, from)) {
                Ok(tasks) => tasks,
                Err(diagnostics) => {
                    self.run.problems.borrow_mut().extend(diagnostics);
                    return Vec::new();
                }
            },
        };
        let first = self.run.done.borrow_mut().insert(format!("handlers of {}", role.name));
        if first {
            self.handlers(&role.handlers, &Inherit { when: Vec::new(), own: inherit.own.clone(), ..Inherit::default() }, &frame);
        }
        let mut out = self.items(&tasks, inherit, &frame);
        if !skipped && !out.is_empty() {
            self.requirement(role, inherit, &frame);
        }
        if !skipped && !self.run.ended.get() && tags::selected(&inherit.tags, &[], &options.skip_tags) {
            let smoke = if options.smoke { role.smoke.as_slice() } else { &[] };
            for item in role.verify.iter().chain(smoke) {
                self.checks_of(item, inherit, &frame);
            }
            if used.gate {
                out.push(Step::Gate(role.name.clone()));
            }
        }
        out
    }

    /// What the role requires, once for each different requirement.
    fn requirement(&mut self, role: &Role, inherit: &Inherit, frame: &Rc<Frame>) {
        let Some(node) = role.requires.as_ref().filter(|node| !node.is_null()) else { return };
        let scope = self.run.scope(frame, &inherit.own);
        let Some(value) = self.run.keep(scope.render(node)) else { return };
        let read = Requirement::read(&value).map_err(|(key, message)| {
            let at = node.as_map().and_then(|map| map.get(&key)).map_or(&node.at, |node| &node.at);
            Diagnostic::error(message).at(at.clone())
        });
        let Some(needs) = self.run.keep(read) else { return };
        let found = RoleRequirement { role: role.name.clone(), at: node.at.clone(), needs };
        if !self.requires.contains(&found) {
            self.requires.push(found);
        }
    }

    fn checks_of(&mut self, item: &Item, inherit: &Inherit, frame: &Rc<Frame>) {
        match item {
            Item::Task(task) => {
                let inner = inherit.with(&task.common, Layer::TaskVars);
                self.checks.extend(task::checks(self.run, task, &inner, frame));
            }
            Item::Block(block) => {
                let inner = inherit.with(&block.common, Layer::BlockVars);
                block.body.iter().for_each(|item| self.checks_of(item, &inner, frame));
            }
        }
    }

    fn handlers(&mut self, items: &[Item], inherit: &Inherit, frame: &Rc<Frame>) {
        for item in items {
            match item {
                Item::Block(block) => self.handlers(&block.body, &inherit.with(&block.common, Layer::BlockVars), frame),
                Item::Task(def) => {
                    let inner = inherit.with(&def.common, Layer::TaskVars);
                    if let Action::IncludeTasks(file) = &def.action {
                        let scope = self.run.scope(frame, &inner.own);
                        let name = self.name(file, &scope);
                        drop(scope);
                        let path = name.map(|name| self.run.resolver.project.find_tasks(&name, &file.at.file, frame.role.as_deref()));
                        if let Some(Ok(items)) = path.map(|path| self.run.resolver.project.task_file(&path)) {
                            self.handlers(&items, &inner, frame);
                        }
                        continue;
                    }
                    let Some(task) = task::resolve(self.run, def, &inner, frame) else { continue };
                    let mut names = def.listen.clone();
                    if let Some(name) = def.common.name.as_ref().and_then(Node::as_str) {
                        names.push(name.to_owned());
                        names.extend(frame.role.as_ref().map(|role| format!("{role} : {name}")));
                    }
                    self.notified.extend(task.notify.iter().map(|name| (name.clone(), task.location.clone())));
                    self.handlers.push(Handler { task, names });
                }
            }
        }
    }

    /// Every notification must reach a handler.
    fn check_notifications(&self) {
        let names: Vec<&str> = self.handlers.iter().flat_map(|handler| handler.names.iter().map(String::as_str)).collect();
        for (name, at) in &self.notified {
            if names.contains(&name.as_str()) {
                continue;
            }
            let diagnostic = Diagnostic::error(format!("there is no handler `{name}`")).at(at.clone());
            self.run.report(match crate::diagnostic::nearest(name, names.iter().copied()) {
                Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
                None => diagnostic.hint("add it to `handlers/main.yml` of the role, or to `handlers:` of the play"),
            });
        }
    }
}

/// A value as a list of names.
pub(super) fn names(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(names).collect(),
        other => helpers::text(other).into_iter().collect(),
    }
}
