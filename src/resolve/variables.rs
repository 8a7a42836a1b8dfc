//! Variables of one place in one play on one host: which layer wins, rendered when first used.
//!
//! A [`Frame`] is what all tasks of a role (or of the play itself) share; a [`Scope`] adds what a
//! block, a task or a loop brings. Values that do not depend on the latter are kept in the frame.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::place;
use super::template::{self, Compiled, Names, Trouble, Undefined};
use crate::diagnostic::{Diagnostic, Location};
use crate::project::Project;
use crate::project::inventory::VarMap;
use crate::project::source::{Node, VAULT_HEADER, VAULT_HINT, Val};
use crate::project::variables::Layer;

/// Values by name.
pub(super) type Values = HashMap<Arc<str>, Arc<Value>>;
/// Deepest chain of variables that need each other.
const MAX_CHAIN: usize = 48;

/// Variables of one layer.
#[derive(Clone, Debug)]
pub(super) enum Vars {
    /// As written.
    Nodes(Arc<VarMap>),
    /// Known values.
    Values(Arc<Values>),
}

/// One layer of a scope.
#[derive(Clone, Debug)]
pub(super) struct Sourced {
    pub(super) layer: Layer,
    pub(super) vars: Vars,
}

impl Sourced {
    pub(super) fn nodes(layer: Layer, vars: &Arc<VarMap>) -> Self {
        Self { layer, vars: Vars::Nodes(Arc::clone(vars)) }
    }

    pub(super) fn values(layer: Layer, vars: Values) -> Self {
        Self { layer, vars: Vars::Values(Arc::new(vars)) }
    }
}

/// What other hosts' variables and partials are looked up in.
pub(super) trait World {
    fn project(&self) -> &Project;
    fn hostvars(&self, host: Option<&str>, name: Option<&str>) -> Value;
    fn partial(&self, name: &str, role: Option<&str>) -> Result<Arc<Compiled>, Trouble>;
}

type Cached = (Result<Arc<Value>, Undefined>, Touched);

/// What a value depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// On what a block, task or loop brings.
    local: bool,
    /// On facts.
    pub(super) facts: bool,
}

/// What the tasks of a role share.
pub(super) struct Frame {
    /// Sorted, the weakest first.
    pub(super) layers: Vec<Sourced>,
    pub(super) role: Option<String>,
    cache: RefCell<HashMap<Arc<str>, Cached>>,
}

impl Frame {
    pub(super) fn new(mut layers: Vec<Sourced>, role: Option<String>) -> Self {
        layers.sort_by_key(|sourced| sourced.layer);
        Self { layers, role, cache: RefCell::default() }
    }

    /// Forgets what was rendered: a layer changed.
    pub(super) fn forget(&self) {
        self.cache.borrow_mut().clear();
    }
}

/// Variables as seen from one place.
pub(super) struct Scope<'w> {
    pub(super) world: &'w dyn World,
    pub(super) frame: Rc<Frame>,
    /// Frame and own layers, sorted, with whether they are own.
    layers: Vec<(Sourced, bool)>,
    cache: RefCell<HashMap<Arc<str>, Cached>>,
    open: RefCell<Vec<Arc<str>>>,
    touched: Cell<Touched>,
}

impl<'w> Scope<'w> {
    /// The frame's variables with further layers on top. Layers that changed since the frame was
    /// made (`include_vars`, `set_fact`) come in `shared`.
    pub(super) fn new(world: &'w dyn World, frame: &Rc<Frame>, shared: &[Sourced], own: &[Sourced]) -> Self {
        let mut layers: Vec<(Sourced, bool)> = frame.layers.iter().chain(shared).map(|sourced| (sourced.clone(), false)).collect();
        layers.extend(own.iter().map(|sourced| (sourced.clone(), true)));
        layers.sort_by_key(|(sourced, _)| sourced.layer);
        Self { world, frame: Rc::clone(frame), layers, cache: RefCell::default(), open: RefCell::default(), touched: Cell::default() }
    }

    /// Renders a tree.
    ///
    /// # Errors
    /// What is wrong, with its place.
    pub(super) fn render(&self, node: &Node) -> Result<Value, Diagnostic> {
        self.try_render(node).map_err(|undefined| undefined.diagnostic)
    }

    /// Renders a tree, and tells whether it failed only because a name is not defined.
    pub(super) fn try_render(&self, node: &Node) -> Result<Value, Undefined> {
        Ok(match &node.value {
            Val::Null => Value::Null,
            Val::Bool(flag) => Value::Bool(*flag),
            Val::Number(number) => Value::Number(number.clone()),
            Val::Str(text) => self.text(text, &node.at)?,
            Val::Seq(items) => Value::Array(items.iter().map(|item| self.try_render(item)).collect::<Result<_, _>>()?),
            Val::Map(map) => {
                let mut out = serde_json::Map::with_capacity(map.entries.len());
                for (key, node) in map.iter() {
                    let name = if template::is_template(&key.name) { self.key(&key.name, &key.at)? } else { key.name.to_string() };
                    out.insert(name, self.try_render(node)?);
                }
                Value::Object(out)
            }
        })
    }

    fn key(&self, text: &str, at: &Location) -> Result<String, Undefined> {
        super::helpers::text(&self.text(text, at)?).map_err(|message| certain(Diagnostic::error(message).at(at.clone())))
    }

    fn text(&self, text: &str, at: &Location) -> Result<Value, Undefined> {
        if !template::is_template(text) {
            if text.starts_with(VAULT_HEADER) {
                return Err(certain(Diagnostic::error("this value is encrypted with ansible-vault").at(at.clone()).hint(VAULT_HINT)));
            }
            return Ok(Value::String(text.to_owned()));
        }
        template::compile(text).and_then(|compiled| template::value(&compiled, self)).map_err(|trouble| self.located(trouble, at))
    }

    /// Renders text that was made of a file, as text.
    pub(super) fn file(&self, compiled: &Compiled, start: &Location) -> Result<String, Diagnostic> {
        template::text(compiled, self).map_err(|trouble| place::in_file(self.world.project(), &trouble, start, self.frame.role.as_deref()))
    }

    fn located(&self, trouble: Trouble, at: &Location) -> Undefined {
        let lazy = trouble.undefined;
        Undefined { diagnostic: place::in_value(self.world.project(), trouble, at, self.frame.role.as_deref()), lazy }
    }

    /// Evaluates an expression as it stands in `when`.
    pub(super) fn expression(&self, text: &str, at: &Location) -> Result<Value, Diagnostic> {
        let source = format!("{{{{{text}}}}}");
        let shift = |mut trouble: Trouble| {
            // The two braces are not in the file.
            trouble.place = (trouble.place.0, trouble.place.1.saturating_sub(2).max(1));
            self.located(trouble, at).diagnostic
        };
        template::compile(&source).and_then(|compiled| template::value(&compiled, self)).map_err(shift)
    }

    /// A variable's value.
    pub(super) fn variable(&self, name: &str) -> Result<Option<Arc<Value>>, Undefined> {
        let found = {
            let cache = self.cache.borrow();
            cache.get(name).cloned().or_else(|| self.frame.cache.borrow().get(name).filter(|_| !self.shadows(name)).cloned())
        };
        if let Some((result, touched)) = found {
            self.touch(touched);
            return result.map(Some);
        }
        for (sourced, own) in self.layers.iter().rev() {
            match &sourced.vars {
                Vars::Values(values) => {
                    if let Some(value) = values.get(name) {
                        self.touch(Touched { local: *own, facts: sourced.layer == Layer::Facts });
                        return Ok(Some(Arc::clone(value)));
                    }
                }
                Vars::Nodes(nodes) => {
                    if let Some((name, node)) = nodes.get_key_value(name) {
                        return self.evaluate(name, node, *own).map(Some);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Where the variable that counts is written, if it is in a file.
    pub(super) fn place(&self, name: &str) -> Option<Location> {
        let strongest = self.layers.iter().rev().find_map(|(sourced, _)| match &sourced.vars {
            Vars::Values(values) => values.contains_key(name).then_some(None),
            Vars::Nodes(nodes) => nodes.get(name).map(|node| Some(node.at.clone())),
        });
        strongest.flatten()
    }

    /// Whether an own layer has the name, so that the frame's value does not count.
    fn shadows(&self, name: &str) -> bool {
        self.layers.iter().filter(|(_, own)| *own).any(|(sourced, _)| match &sourced.vars {
            Vars::Values(values) => values.contains_key(name),
            Vars::Nodes(nodes) => nodes.contains_key(name),
        })
    }

    fn touch(&self, touched: Touched) {
        let old = self.touched.get();
        self.touched.set(Touched { local: old.local || touched.local, facts: old.facts || touched.facts });
    }

    fn evaluate(&self, name: &Arc<str>, node: &Node, own: bool) -> Result<Arc<Value>, Undefined> {
        {
            let open = self.open.borrow();
            if let Some(start) = open.iter().position(|known| known == name) {
                let chain: Vec<&str> = open[start..].iter().map(|name| &**name).chain([&**name]).collect();
                let message = format!("variable `{name}` needs itself: `{}`", chain.join("` -> `"));
                return Err(certain(
                    Diagnostic::error(message).at(node.at.clone()).hint("give one of them a value that does not mention the others"),
                ));
            }
            if open.len() >= MAX_CHAIN {
                return Err(certain(
                    Diagnostic::error(format!("more than {MAX_CHAIN} variables need each other in a row")).at(node.at.clone()),
                ));
            }
        }
        let before = self.touched.replace(Touched { local: own, facts: false });
        self.open.borrow_mut().push(Arc::clone(name));
        let result = self.try_render(node).map(Arc::new).map_err(|mut undefined| {
            let diagnostic = &mut undefined.diagnostic;
            if undefined.lazy && !diagnostic.message.contains("(needed by") {
                diagnostic.message = format!("{} (needed by `{name}`)", diagnostic.message);
            }
            undefined
        });
        self.open.borrow_mut().pop();
        let touched = self.touched.replace(before);
        let target = if touched.local { &self.cache } else { &self.frame.cache };
        // Inside a circle every member fails; only the outermost tells the whole of it.
        if result.is_ok() || self.open.borrow().is_empty() {
            target.borrow_mut().insert(Arc::clone(name), (result.clone(), touched));
        }
        self.touch(touched);
        result
    }

    /// Forgets what was touched, before an evaluation that is to be judged by it.
    pub(super) fn reset_touched(&self) {
        self.touched.set(Touched::default());
    }

    /// What was touched since.
    pub(super) fn touched(&self) -> Touched {
        self.touched.get()
    }
}

fn certain(diagnostic: Diagnostic) -> Undefined {
    Undefined { diagnostic, lazy: false }
}

impl Names for Scope<'_> {
    fn value(&self, name: &str) -> Result<Option<Arc<Value>>, Undefined> {
        self.variable(name)
    }

    fn hostvars(&self, host: Option<&str>, name: Option<&str>) -> Value {
        self.world.hostvars(host, name)
    }

    fn partial(&self, name: &str) -> Result<Arc<Compiled>, Trouble> {
        self.world.partial(name, self.frame.role.as_deref())
    }

    fn known(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .layers
            .iter()
            .flat_map(|(sourced, _)| match &sourced.vars {
                Vars::Values(values) => values.keys().map(ToString::to_string).collect::<Vec<_>>(),
                Vars::Nodes(nodes) => nodes.keys().map(ToString::to_string).collect(),
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }
}
