//! One host on its way through all plays: what it has gathered so far.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};

use super::resolver::{Resolver, fact_values};
use super::template::{Compiled, Trouble};
use super::variables::{Frame, Scope, Sourced, Values, Vars, World};
use super::{HostPlay, HostProgram};
use crate::diagnostic::Diagnostic;
use crate::facts::Facts;
use crate::project::Project;
use crate::project::inventory::VarMap;
use crate::project::lower::Problems;
use crate::project::playbook::Play;
use crate::project::role::Role;
use crate::project::source::Node;
use crate::project::task::RoleUse;
use crate::project::variables::Layer;

/// One host's run through the project.
pub(super) struct HostRun<'r, 'p> {
    pub(super) resolver: &'r Resolver<'p>,
    pub(super) host: &'r str,
    pub(super) facts: &'r Facts,
    fact_values: Arc<Values>,
    pub(super) problems: RefCell<Problems>,
    /// `include_vars` and `set_fact` so far; they last to the end of the run.
    shared: RefCell<Vec<Sourced>>,
    /// Frames of the present play.
    frames: RefCell<Vec<Rc<Frame>>>,
    /// Layers that all frames of the present play have.
    play_layers: RefCell<Vec<Sourced>>,
    /// Roles that ran in the present play, with their parameters: a role runs once with the same.
    pub(super) done: RefCell<HashSet<String>>,
    /// `meta: end_host` was met in the present play.
    pub(super) ended: std::cell::Cell<bool>,
}

impl<'r, 'p> HostRun<'r, 'p> {
    pub(super) fn new(resolver: &'r Resolver<'p>, host: &'r str, facts: &'r Facts) -> Self {
        Self {
            resolver,
            host,
            facts,
            fact_values: Arc::new(fact_values(facts)),
            problems: RefCell::default(),
            shared: RefCell::default(),
            frames: RefCell::default(),
            play_layers: RefCell::default(),
            done: RefCell::default(),
            ended: std::cell::Cell::new(false),
        }
    }

    /// Resolves every play that the host is in.
    pub(super) fn run(self) -> Result<HostProgram, Vec<Diagnostic>> {
        let mut program = HostProgram::default();
        for (index, play) in self.resolver.project.plays.iter().enumerate() {
            if play.hosts.iter().any(|host| host == self.host) {
                program.plays.push(self.play(index, play));
            }
        }
        let problems = self.problems.into_inner();
        if problems.has_errors() { Err(problems.into_vec()) } else { Ok(program) }
    }

    fn play(&self, index: usize, play: &'p Play) -> HostPlay {
        self.frames.borrow_mut().clear();
        self.done.borrow_mut().clear();
        self.ended.set(false);
        *self.play_layers.borrow_mut() = self.layers_of(play);
        super::order::play(self, index, play)
    }

    /// Layers of a play for this host, without any role's own.
    fn layers_of(&self, play: &'p Play) -> Vec<Sourced> {
        let mut layers = self.resolver.inventory_layers(self.host);
        layers.push(Sourced { layer: Layer::Facts, vars: Vars::Values(Arc::clone(&self.fact_values)) });
        layers.push(Sourced::nodes(Layer::PlayVars, &play.common.vars));
        let mut magic = self.resolver.magic(self.host);
        let mut set = |name: &str, value: Value| drop(magic.insert(name.into(), Arc::new(value)));
        set("ansible_play_name", json!(play.name));
        set("ansible_play_hosts", json!(play.hosts));
        set("ansible_play_hosts_all", json!(play.hosts_all));
        set("ansible_play_batch", json!(play.hosts));
        layers.push(Sourced::values(Layer::Magic, magic));
        self.play_layers.borrow_mut().clone_from(&layers);
        let files = self.vars_files(play);
        layers.extend(files.iter().map(|vars| Sourced::nodes(Layer::VarsFiles, vars)));
        // Ansible shows the defaults and vars of all of a play's roles to all of its tasks.
        for role in play.roles.iter().filter_map(|used| used.name.as_str()).filter_map(|name| self.resolver.project.role(name).ok()) {
            for role in self.with_dependencies(&role) {
                layers.push(Sourced::nodes(Layer::PlayRoleDefaults, &role.defaults));
                layers.push(Sourced::nodes(Layer::PlayRoleVars, &role.vars));
            }
        }
        layers
    }

    /// A role after all that it depends on, each once: what they define is seen by it.
    fn with_dependencies(&self, role: &Arc<Role>) -> Vec<Arc<Role>> {
        fn visit(project: &Project, role: &Arc<Role>, out: &mut Vec<Arc<Role>>, depth: usize) {
            // Circles were reported when the project was loaded.
            if depth > 16 || out.iter().any(|known| known.name == role.name) {
                return;
            }
            let names = role.dependencies.iter().filter_map(|used| used.name.as_str());
            for dependency in names.filter_map(|name| project.role(name).ok()) {
                visit(project, &dependency, out, depth + 1);
            }
            out.push(Arc::clone(role));
        }
        let mut out = Vec::new();
        visit(self.resolver.project, role, &mut out, 0);
        out
    }

    fn vars_files(&self, play: &Play) -> Vec<Arc<VarMap>> {
        let frame = self.frame(None);
        let scope = self.scope(&frame, &[]);
        let mut out = Vec::new();
        for node in &play.vars_files {
            let names: Vec<&Node> = node.as_seq().map_or_else(|| vec![node], |items| items.iter().collect());
            let rendered: Vec<String> = names
                .iter()
                .filter_map(|name| self.keep(scope.render(name)))
                .filter_map(|value| super::helpers::text(&value).ok())
                .collect();
            let directories = [self.resolver.project.playbook_dir().to_path_buf(), self.resolver.project.root.clone()];
            let paths = rendered.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
            match paths.clone().find(|path| path.is_file()) {
                Some(path) => {
                    out.push(crate::project::variables::from_file(&self.resolver.project.files, &path, &mut self.problems.borrow_mut()));
                }
                None if rendered.is_empty() => {}
                None => self.report(Diagnostic::error(format!("there is no file `{}`", rendered.join("` or `"))).at(node.at.clone())),
            }
        }
        out
    }

    /// Layers for the frame of a role, or of the play.
    pub(super) fn frame(&self, role: Option<(&Arc<Role>, &RoleUse)>) -> Rc<Frame> {
        let mut layers = self.play_layers.borrow().clone();
        if let Some((role, used)) = role {
            if let Some(spec) = role.specs.get("main") {
                let defaults: VarMap = spec
                    .options
                    .iter()
                    .filter_map(|option| option.default.as_ref().map(|node| (Arc::from(option.name.as_str()), Arc::new(node.clone()))))
                    .collect();
                layers.push(Sourced::nodes(Layer::PlayRoleDefaults, &Arc::new(defaults)));
            }
            for role in self.with_dependencies(role) {
                layers.push(Sourced::nodes(Layer::RoleDefaults, &role.defaults));
                layers.push(Sourced::nodes(Layer::RoleVars, &role.vars));
            }
            layers.push(Sourced::nodes(Layer::RoleParams, &used.params));
            let magic =
                Values::from([("role_name".into(), Arc::new(json!(role.name))), ("role_path".into(), Arc::new(json!(role.directory)))]);
            layers.push(Sourced::values(Layer::Magic, magic));
        }
        let frame = Rc::new(Frame::new(layers, role.map(|(role, _)| role.name.clone())));
        self.frames.borrow_mut().push(Rc::clone(&frame));
        frame
    }

    /// A scope in a frame.
    pub(super) fn scope<'s>(&'s self, frame: &Rc<Frame>, own: &[Sourced]) -> Scope<'s> {
        Scope::new(self, frame, &self.shared.borrow(), own)
    }

    /// Adds what `include_vars` or `set_fact` brings.
    pub(super) fn share(&self, sourced: Sourced) {
        self.shared.borrow_mut().push(sourced);
        for frame in self.frames.borrow().iter() {
            frame.forget();
        }
    }

    /// Records a problem.
    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.problems.borrow_mut().push(diagnostic);
    }

    /// Keeps a value, or records why there is none.
    pub(super) fn keep<T>(&self, result: Result<T, Diagnostic>) -> Option<T> {
        self.problems.borrow_mut().keep(result)
    }
}

impl World for HostRun<'_, '_> {
    fn project(&self) -> &Project {
        self.resolver.project
    }

    fn hostvars(&self, host: Option<&str>, name: Option<&str>) -> Value {
        self.resolver.hostvars(host, name, 0)
    }

    fn partial(&self, name: &str, role: Option<&str>) -> Result<Arc<Compiled>, Trouble> {
        self.resolver.partial(name, role)
    }
}
