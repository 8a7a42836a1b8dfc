//! One task on one host: condition, loop, arguments, resources.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::checks::{self, CheckContext};
use super::decode;
use super::helpers;
use super::host::HostRun;
use super::order::{self, Inherit};
use super::sources::TaskSources;
use super::variables::{Frame, Scope, Sourced, Values};
use super::{CheckTask, Task, condition};
use crate::diagnostic::{Diagnostic, Location};
use crate::project::inventory::VarMap;
use crate::project::source::{Key, Node, Val};
use crate::project::task::{Action, Flavour, Loop, TaskDef};
use crate::project::variables::{self, Layer};
use crate::resource::{BuildContext, Resource};
use crate::secret::SecretName;

/// Resolves a task. `None` if there is nothing of it to show: its problems were recorded.
pub(super) fn resolve(run: &HostRun<'_, '_>, task: &TaskDef, inner: &Inherit, frame: &Rc<Frame>) -> Option<Task> {
    let scope = run.scope(frame, &inner.own);
    let mut out = Task {
        title: title(task, &scope, frame),
        role: frame.role.clone(),
        location: task.common.at.clone(),
        resources: Vec::new(),
        notify: notify(run, inner, &scope),
        skipped: None,
        tags: inner.tags.clone(),
        ignore_errors: false,
        timeout: None,
    };
    let Some(looped) = &task.looped else {
        match run.keep(condition::holds(&inner.when, &scope))? {
            Some(reason) => out.skipped = Some(skipped(&reason)),
            None => perform(run, task, inner, &scope, &mut out)?,
        }
        return Some(out);
    };
    let items = match loop_items(looped, &scope) {
        Ok(items) => items,
        // As in Ansible, a loop that cannot be made does not matter if the condition does not hold.
        Err(diagnostic) => match condition::holds(&inner.when, &scope) {
            Ok(Some(reason)) => {
                out.skipped = Some(skipped(&reason));
                return Some(out);
            }
            _ => {
                run.report(diagnostic);
                return None;
            }
        },
    };
    let mut reason = (items.is_empty()).then(|| "the loop has no items".to_owned());
    let mut performed = false;
    let mut failed = false;
    for (index, item) in items.into_iter().enumerate() {
        let mut own = inner.own.clone();
        own.push(loop_layer(looped, index, item));
        let scope = run.scope(frame, &own);
        match run.keep(condition::holds(&inner.when, &scope)) {
            None => failed = true,
            Some(Some(why)) => reason = Some(skipped(&why)),
            Some(None) => {
                performed = true;
                failed |= perform(run, task, inner, &scope, &mut out).is_none();
            }
        }
    }
    if failed {
        return None;
    }
    if !performed {
        out.skipped = reason;
    }
    Some(out)
}

fn skipped(reason: &str) -> String {
    format!("`when: {reason}` does not hold")
}

/// `role : name`, or the module where there is no name.
fn title(task: &TaskDef, scope: &Scope<'_>, frame: &Frame) -> String {
    let name = match &task.common.name {
        // A name that mentions a loop's item stays as it is written, as in Ansible.
        Some(node) => match scope.render(node) {
            Ok(value) if !helpers::has_secret(&value) => helpers::text(&value).unwrap_or_default(),
            _ => node.as_str().unwrap_or_default().to_owned(),
        },
        None => module_name(task).to_owned(),
    };
    frame.role.as_ref().map_or_else(|| name.clone(), |role| format!("{role} : {name}"))
}

fn module_name(task: &TaskDef) -> &str {
    match &task.action {
        Action::Module { candidates, .. } => candidates.first().map_or("task", |(key, _)| &key.name),
        Action::SetFact(_) => "set_fact",
        Action::IncludeVars(_) => "include_vars",
        Action::Assert { .. } => "assert",
        Action::Fail(_) => "fail",
        Action::Debug { .. } => "debug",
        Action::Meta(_) => "meta",
        Action::IncludeTasks(_) => "include_tasks",
        Action::IncludeRole(_) => "include_role",
        Action::Nothing => "task",
    }
}

fn notify(run: &HostRun<'_, '_>, inner: &Inherit, scope: &Scope<'_>) -> Vec<String> {
    inner.notify.iter().filter_map(|node| run.keep(scope.render(node))).flat_map(|value| order::names(&value)).collect()
}

/// The items of a loop.
pub(super) fn loop_items(looped: &Loop, scope: &Scope<'_>) -> Result<Vec<Value>, Diagnostic> {
    let wrong = |value: &Value, wanted: &str| {
        Err(Diagnostic::error(format!("a loop needs {wanted}, not {}", helpers::sort(value))).at(looped.items.at.clone()))
    };
    match (scope.render(&looped.items)?, looped.flavour) {
        (Value::Array(items), Flavour::List) => Ok(items),
        (Value::Array(items), Flavour::Flattened) => Ok(items
            .into_iter()
            .flat_map(|item| match item {
                Value::Array(inner) => inner,
                other => vec![other],
            })
            .collect()),
        (Value::Object(map), Flavour::Dict) => Ok(map.into_iter().map(|(key, value)| json!({"key": key, "value": value})).collect()),
        (value @ (Value::Object(_) | Value::Null), Flavour::Flattened | Flavour::List) => {
            wrong(&value, "a list (`with_dict` takes a mapping)")
        }
        (value, Flavour::Flattened) => Ok(vec![value]),
        (value, Flavour::List) => wrong(&value, "a list"),
        (value, Flavour::Dict) => wrong(&value, "a mapping"),
    }
}

/// The variables that one turn of a loop brings.
pub(super) fn loop_layer(looped: &Loop, index: usize, item: Value) -> Sourced {
    let mut values = Values::from([(Arc::clone(&looped.var), Arc::new(item))]);
    if let Some(name) = &looped.index_var {
        values.insert(Arc::clone(name), Arc::new(index.into()));
    }
    Sourced::values(Layer::Loop, values)
}

/// Does what the task says, once. `None` if that failed.
fn perform(run: &HostRun<'_, '_>, task: &TaskDef, inner: &Inherit, scope: &Scope<'_>, out: &mut Task) -> Option<()> {
    out.ignore_errors |= flag(run, inner.ignore_errors.as_ref(), scope, "ignore_errors").unwrap_or_default();
    if let Some(node) = &inner.timeout {
        let value = run.keep(scope.render(node))?;
        let seconds = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
        out.timeout = run
            .keep(seconds.map(Some).ok_or_else(|| Diagnostic::error("`timeout` is a number of seconds").at(node.at.clone())))?
            .filter(|&seconds| seconds > 0);
    }
    match &task.action {
        Action::Module { candidates, args } => {
            let resources = module(run, candidates, args.as_ref(), inner, scope)?;
            out.resources.extend(resources);
        }
        Action::SetFact(node) => set_fact(run, node, scope)?,
        Action::IncludeVars(node) => include_vars(run, node, scope)?,
        Action::Assert { that, message } => assert(run, that, message.as_ref(), scope)?,
        Action::Fail(message) => {
            let text = said(run, message.as_ref(), scope)?.unwrap_or_else(|| "failed as requested".to_owned());
            if !run.resolver.options.offline || inner.when.is_empty() {
                run.report(Diagnostic::error(text).at(task.common.at.clone()));
                return None;
            }
        }
        Action::Debug { message, var } => {
            let text = match (message, var) {
                (_, Some(name)) => {
                    let source = name.as_str().unwrap_or_default();
                    let value = run.keep(scope.expression(source, &name.at))?;
                    Some(format!("{source} = {}", if helpers::has_secret(&value) { "[secret]".to_owned() } else { value.to_string() }))
                }
                (message, None) => said(run, message.as_ref(), scope)?,
            };
            if let Some(text) = text {
                out.title = format!("{}: {text}", out.title);
            }
        }
        Action::Meta(_) | Action::IncludeTasks(_) | Action::IncludeRole(_) | Action::Nothing => {}
    }
    Some(())
}

fn flag(run: &HostRun<'_, '_>, node: Option<&Node>, scope: &Scope<'_>, what: &str) -> Option<bool> {
    let node = node?;
    let value = run.keep(scope.render(node))?;
    let flag = match &value {
        Value::Bool(flag) => Some(*flag),
        Value::String(word) => crate::project::lower::boolean_word(word),
        _ => None,
    };
    run.keep(flag.ok_or_else(|| Diagnostic::error(format!("`{what}` must be `true` or `false`")).at(node.at.clone())))
}

/// A message, with secrets shown by name.
fn said(run: &HostRun<'_, '_>, node: Option<&Node>, scope: &Scope<'_>) -> Option<Option<String>> {
    let Some(node) = node else { return Some(None) };
    let value = run.keep(scope.render(node))?;
    let text = helpers::text(&value).unwrap_or_else(|_| value.to_string());
    Some(Some(crate::secret::Text::parse(&text).to_string()))
}

fn module(
    run: &HostRun<'_, '_>,
    candidates: &[(Key, Node)],
    args: Option<&Node>,
    inner: &Inherit,
    scope: &Scope<'_>,
) -> Option<Vec<Box<dyn Resource>>> {
    let known = |name: &str| decode::kind(name).is_some();
    let (key, node) = match decode::choose(candidates, &known) {
        Ok(chosen) => chosen,
        Err(diagnostics) => {
            run.problems.borrow_mut().extend(diagnostics);
            return None;
        }
    };
    let kind = decode::kind(&key.name)?;
    let mut arguments = collect(run, decode::arguments(kind.name, kind.shorthand, node, args, scope))?;
    if kind.name == "command" {
        environment(run, inner, scope, &mut arguments)?;
    }
    let options = run.resolver.options;
    let wrong = decode::secrets(kind.name, kind.secret_fields, &arguments, node, options.known_secrets.as_deref());
    if !wrong.is_empty() {
        run.problems.borrow_mut().extend(wrong);
        return None;
    }
    decode::coerce_for(kind.name, &mut arguments);
    let user = become_user(run, inner, scope)?;
    let sources = TaskSources { project: run.resolver.project, scope, problem: RefCell::default() };
    let context = BuildContext {
        facts: run.facts,
        sources: &sources,
        host: run.host,
        role: scope.frame.role.as_deref(),
        become_user: user.as_deref(),
    };
    match (kind.decode)(Value::Object(arguments), &context) {
        Ok(resources) => {
            // All of them at once: in templates, in files, for the environment.
            let needed: BTreeSet<SecretName> = resources.iter().flat_map(|resource| resource.secrets()).collect();
            let mut told = BTreeSet::new();
            for name in needed.iter().filter(|name| told.insert(name.origin().0)) {
                if let Some(diagnostic) = decode::missing(name, options.known_secrets.as_deref()) {
                    run.report(diagnostic.at(node.at.clone()));
                }
            }
            Some(resources)
        }
        Err(error) => {
            // A problem within a template has its own place, which says more than the task's.
            let diagnostic = sources.problem.take().unwrap_or_else(|| decode::complaint(kind.name, &error, key, node));
            run.report(diagnostic);
            None
        }
    }
}

/// Adds the `environment` of the task and of what it is in, outer ones first.
fn environment(run: &HostRun<'_, '_>, inner: &Inherit, scope: &Scope<'_>, arguments: &mut Map<String, Value>) -> Option<()> {
    let mut all = Map::new();
    for node in &inner.environment {
        let value = run.keep(scope.render(node))?;
        let maps = match value {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            other => vec![other],
        };
        for map in maps {
            let Value::Object(map) = map else {
                run.report(Diagnostic::error(format!("`environment` is a mapping, not {}", helpers::sort(&map))).at(node.at.clone()));
                return None;
            };
            all.extend(map.into_iter().map(|(name, value)| (name, helpers::text(&value).map_or(value, Value::String))));
        }
    }
    if all.is_empty() {
        return Some(());
    }
    if let Some(Value::Object(own)) = arguments.remove("environment") {
        all.extend(own);
    }
    arguments.insert("environment".to_owned(), Value::Object(all));
    Some(())
}

fn collect(run: &HostRun<'_, '_>, result: Result<Map<String, Value>, Vec<Diagnostic>>) -> Option<Map<String, Value>> {
    result.map_err(|diagnostics| run.problems.borrow_mut().extend(diagnostics)).ok()
}

/// The user that steps run as, if it is not root.
fn become_user(run: &HostRun<'_, '_>, inner: &Inherit, scope: &Scope<'_>) -> Option<Option<String>> {
    let text = |name: &str| match scope.variable(name) {
        Ok(value) => Some(value.and_then(|value| value.as_str().map(str::to_owned))),
        Err(undefined) => {
            run.report(undefined.diagnostic);
            None
        }
    };
    let user = match (&inner.r#become, &inner.become_user) {
        // `become: false` is the login user, where the inventory names one.
        (Some(node), _) if flag(run, Some(node), scope, "become") == Some(false) => text("ansible_user")?,
        (_, Some(node)) => {
            let value = run.keep(scope.render(node))?;
            Some(run.keep(helpers::text(&value).map_err(|message| Diagnostic::error(message).at(node.at.clone())))?)
        }
        (_, None) => text("ansible_become_user")?,
    };
    Some(user.filter(|user| user != "root" && !user.is_empty()))
}

fn set_fact(run: &HostRun<'_, '_>, node: &Node, scope: &Scope<'_>) -> Option<()> {
    let mut values = Values::new();
    for (key, node) in node.as_map()?.iter().filter(|(key, _)| &*key.name != "cacheable") {
        values.insert(Arc::clone(&key.name), Arc::new(run.keep(scope.render(node))?));
    }
    run.share(Sourced::values(Layer::SetFact, values));
    Some(())
}

fn include_vars(run: &HostRun<'_, '_>, node: &Node, scope: &Scope<'_>) -> Option<()> {
    let field = |name: &str| node.as_map().and_then(|map| map.get(name));
    let text = |node: &Node| -> Option<String> { run.keep(scope.render(node)).and_then(|value| helpers::text(&value).ok()) };
    let project = run.resolver.project;
    let role = scope.frame.role.as_deref().and_then(|role| project.role(role).ok());
    let places = [
        role.map(|role| role.directory.join("vars")),
        Some(project.playbook_dir().join("vars")),
        Some(project.playbook_dir().to_path_buf()),
        Some(project.root.clone()),
    ];
    let name = text(field("dir").or_else(|| field("file")).unwrap_or(node))?;
    let found = places.iter().flatten().map(|place| place.join(&name)).find(|path| path.exists());
    let Some(path) = found else {
        run.report(
            Diagnostic::error(format!("there is no file of variables `{name}`"))
                .at(node.at.clone())
                .hint("it is searched in the role's `vars/`, then beside the playbook"),
        );
        return None;
    };
    let paths = if path.is_dir() { project.files.below(&path) } else { vec![path] };
    let mut vars = VarMap::new();
    for path in paths {
        let file = variables::from_file(&project.files, &path, &mut run.problems.borrow_mut());
        vars.extend(file.iter().map(|(name, node)| (Arc::clone(name), Arc::clone(node))));
    }
    if let Some(name) = field("name") {
        let at: Location = name.at.clone();
        let entries = vars.iter().map(|(name, node)| (Key { name: Arc::clone(name), at: node.at.clone() }, Node::clone(node))).collect();
        let whole = Node { value: Val::Map(crate::project::source::Map { entries }), at };
        vars = VarMap::from_iter([(Arc::from(text(name)?.as_str()), Arc::new(whole))]);
    }
    run.share(Sourced::nodes(Layer::IncludeVars, &Arc::new(vars)));
    Some(())
}

fn assert(run: &HostRun<'_, '_>, that: &[Node], message: Option<&Node>, scope: &Scope<'_>) -> Option<()> {
    let mut fine = Some(());
    for node in that {
        scope.reset_touched();
        let holds = run.keep(condition::one(node, scope))?;
        // Placeholder facts prove nothing either way.
        if holds || (run.resolver.options.offline && scope.touched().facts) {
            continue;
        }
        let text = said(run, message, scope)?;
        let message = text.unwrap_or_else(|| format!("`{}` does not hold", node.as_str().unwrap_or("this")));
        run.report(Diagnostic::error(format!("{message} (host `{}`)", run.host)).at(node.at.clone()));
        fine = None;
    }
    fine
}

/// The health checks of an entry of `verify/main.yml`.
pub(super) fn checks(run: &HostRun<'_, '_>, task: &TaskDef, inner: &Inherit, frame: &Rc<Frame>) -> Vec<CheckTask> {
    let Action::Module { candidates, args } = &task.action else {
        let hint = format!("checks: {}", checks::names().collect::<Vec<_>>().join(", "));
        run.report(Diagnostic::error("only checks can stand in `verify/`").at(task.common.at.clone()).hint(hint));
        return Vec::new();
    };
    let (key, node) = match decode::choose(candidates, &|name| checks::find(name).is_some()) {
        Ok(chosen) => chosen,
        Err(diagnostics) => {
            run.problems.borrow_mut().extend(diagnostics);
            return Vec::new();
        }
    };
    let Some(entry) = checks::find(&key.name) else { return Vec::new() };
    let scope = run.scope(frame, &inner.own);
    let layers: Vec<Option<Sourced>> = match &task.looped {
        None => vec![None],
        Some(looped) => match run.keep(loop_items(looped, &scope)) {
            Some(items) => items.into_iter().enumerate().map(|(index, item)| Some(loop_layer(looped, index, item))).collect(),
            None => Vec::new(),
        },
    };
    drop(scope);
    let mut out = Vec::new();
    for layer in layers {
        let own: Vec<Sourced> = inner.own.iter().cloned().chain(layer).collect();
        let scope = run.scope(frame, &own);
        if run.keep(condition::holds(&inner.when, &scope)).is_none_or(|reason| reason.is_some()) {
            continue;
        }
        let title = title(task, &scope, frame);
        out.extend(check(run, entry, key, node, args.as_ref(), &scope).map(|check| CheckTask { title, role: frame.role.clone(), check }));
    }
    out
}

fn check(
    run: &HostRun<'_, '_>,
    entry: &checks::CheckEntry,
    key: &Key,
    node: &Node,
    args: Option<&Node>,
    scope: &Scope<'_>,
) -> Option<crate::resource::Check> {
    let mut arguments = collect(run, decode::arguments(entry.name, entry.shorthand, node, args, scope))?;
    let wrong = decode::secrets(entry.name, &[], &arguments, node, None);
    if !wrong.is_empty() {
        run.problems.borrow_mut().extend(wrong);
        return None;
    }
    decode::coerce_for_check(entry.name, &mut arguments);
    let sources = TaskSources { project: run.resolver.project, scope, problem: RefCell::default() };
    let address = match scope.variable("ansible_host") {
        Ok(value) => value.and_then(|value| helpers::text(&value).ok()).unwrap_or_else(|| run.host.to_owned()),
        Err(undefined) => {
            run.report(undefined.diagnostic);
            return None;
        }
    };
    let built = (entry.decode)(Value::Object(arguments), &CheckContext { sources: &sources, address: &address });
    run.keep(built.map_err(|error| sources.problem.take().unwrap_or_else(|| decode::complaint(entry.name, &error, key, node))))
}
