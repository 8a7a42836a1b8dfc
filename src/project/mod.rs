//! Loading: files -> a [`Project`], typed, located, still unrendered. No network.
//!
//! Every problem of the files is reported in one run. What can be judged only with a host's
//! variables and facts is left to `resolve/`.

pub mod ansible;
pub mod files;
mod free_form;
pub mod hosts;
pub mod images;
pub mod inventory;
mod inventory_ini;
mod inventory_script;
pub mod leaks;
mod locate;
pub mod lower;
pub mod playbook;
pub mod role;
pub mod settings;
pub mod source;
pub mod task;
#[cfg(test)]
pub(crate) mod tests;
pub mod variables;
pub mod vault;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::diagnostic::{Diagnostic, Level, nearest};
use files::Files;
use inventory::{Inventory, VarMap};
use lower::Problems;
use playbook::Play;
use role::Role;
use settings::Settings;
use task::Item;
use variables::Source;

/// What to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where the user is; paths on the command line are relative to it.
    pub cwd: PathBuf,
    /// The playbook as typed: looked up as given, then under `playbooks/`; `.yml` may be left out.
    pub playbook: String,
    /// Instead of a playbook: a pattern of hosts, for what is done without one.
    pub pattern: Option<String>,
    /// `-i`, in order; empty for the one of the playbook's name, or the settings'.
    pub inventories: Vec<String>,
    /// `-l`.
    pub limit: Option<String>,
    /// `-e`, in order.
    pub extra_vars: Vec<String>,
}

/// A role, or why it cannot be used.
pub type Loaded<T> = Result<Arc<T>, Vec<Diagnostic>>;

/// A project with its inventory and one playbook.
#[derive(Debug)]
pub struct Project {
    /// The project's directory, absolute.
    pub root: PathBuf,
    /// The playbook, absolute.
    pub playbook: PathBuf,
    pub settings: Settings,
    /// Which images stacks may run.
    pub images: images::Images,
    pub inventory: Inventory,
    pub plays: Vec<Play>,
    /// Variables of `-e`.
    pub extra: Arc<VarMap>,
    /// Problems that do not stop a run.
    pub warnings: Vec<Diagnostic>,
    /// `known_hosts` files beside the inventories, whether they exist or not.
    pub known_hosts: Vec<PathBuf>,
    /// The files that were read, for templates and messages.
    pub files: Files,
    vars: BTreeMap<String, Vec<Source>>,
    roles: Mutex<HashMap<String, Loaded<Role>>>,
    task_files: Mutex<HashMap<PathBuf, Loaded<Vec<Item>>>>,
}

impl Project {
    /// Loads a project.
    ///
    /// # Errors
    /// Every problem of its files, warnings included.
    pub fn load(options: &LoadOptions) -> Result<Self, Vec<Diagnostic>> {
        let (mut project, problems) = Self::open(options).map_err(|diagnostic| vec![diagnostic])?;
        if !Self::only_warnings(&problems) {
            return Err(problems);
        }
        project.warnings = problems;
        Ok(project)
    }

    /// Loads what can be loaded of a project, and says what is wrong with it. With an error among
    /// the problems the project is good for messages about it, not for a run.
    ///
    /// # Errors
    /// If there is no such playbook.
    pub fn open(options: &LoadOptions) -> Result<(Self, Vec<Diagnostic>), Diagnostic> {
        let playbook = match options.pattern {
            None => locate::playbook(&options.cwd, &options.playbook)?,
            Some(_) => locate::project(&options.cwd).join("playbooks").join("(ad hoc)"),
        };
        let root = locate::root(&playbook, &options.cwd);
        let files = Files::new(root.clone());
        let mut problems = Problems::default();
        let mut settings = settings::load(&files, &mut problems);
        let mut images = std::mem::take(&mut settings.images);
        images::lock(&files, &mut images, &mut problems);
        let extra = Arc::new(variables::extra(&files, &absolute(&options.cwd, &options.extra_vars), &mut problems));
        let plays = match &options.pattern {
            None => playbook::load(&files, &playbook, &extra, &mut problems),
            Some(pattern) => playbook::of_pattern(pattern, &extra, &mut problems),
        };
        let search = locate::Search {
            root: &root,
            cwd: &options.cwd,
            playbook: &playbook,
            needed: !is_local(&plays),
            adhoc: options.pattern.is_some(),
        };
        let inventories = search.inventories(&options.inventories, &settings, &mut problems);
        let mut inventory = Inventory::load(&files, &inventories, &mut problems);
        for name in LOCAL.iter().filter(|name| plays.iter().any(|play| names_host(&play.pattern, name))) {
            if inventory.host(name).is_none() {
                inventory.add_implicit(name);
            }
        }
        let playbook_dir = playbook.parent().unwrap_or(&root).to_path_buf();
        let vars = variables::of_hosts(&files, &inventory, &playbook_dir, &mut problems);
        let known_hosts = locate::known_hosts(&inventory);
        let mut project = Self {
            root,
            playbook,
            settings,
            images,
            inventory,
            plays,
            extra,
            warnings: Vec::new(),
            known_hosts,
            files,
            vars,
            roles: Mutex::default(),
            task_files: Mutex::default(),
        };
        project.select(&options.cwd, options.limit.as_deref(), &mut problems);
        walk::everything(&project, &mut problems);
        Ok((project, problems.into_vec()))
    }

    /// Decides which hosts each play runs on.
    fn select(&mut self, cwd: &Path, limit: Option<&str>, problems: &mut Problems) {
        if self.inventory.is_empty() {
            if !problems.has_errors() {
                problems.push(Diagnostic::error("the inventory has no hosts").hint("add one below `all: hosts:`"));
            }
            return;
        }
        let limit = match limit.map(|limit| self.limit(cwd, limit)) {
            None => None,
            Some(Ok(hosts)) => Some(hosts),
            Some(Err(diagnostic)) => return problems.push(diagnostic),
        };
        let mut plays = std::mem::take(&mut self.plays);
        for play in &mut plays {
            let at = &play.common.at;
            match hosts::select(&play.pattern, &self.inventory) {
                Err(unmatched) => {
                    let diagnostic = Diagnostic::error(format!("`hosts: {}`: `{}`: {}", play.pattern, unmatched.part, unmatched.reason));
                    problems.push(self.suggest(diagnostic, &unmatched.part).at(at.clone()));
                }
                Ok(hosts) => {
                    if hosts.is_empty() {
                        let message = format!("`hosts: {}` stands for no host: the play does nothing", play.pattern);
                        problems.push(Diagnostic::warning(message).at(at.clone()).hint("add hosts to the group, or remove the play"));
                    }
                    play.hosts =
                        hosts.iter().filter(|host| limit.as_ref().is_none_or(|limit| limit.contains(host.as_str()))).cloned().collect();
                    play.hosts_all = hosts;
                }
            }
        }
        if limit.is_some() && !problems.has_errors() && plays.iter().all(|play| play.hosts.is_empty()) {
            problems.push(
                Diagnostic::error("`--limit` leaves no host of the playbook")
                    .hint("the plays run on other hosts: compare `hosts:` with the limit"),
            );
        }
        self.plays = plays;
    }

    /// The hosts of `--limit`; `@FILE` holds one pattern a line.
    fn limit(&self, cwd: &Path, limit: &str) -> Result<std::collections::HashSet<String>, Diagnostic> {
        let pattern = match limit.strip_prefix('@') {
            None => limit.to_owned(),
            Some(path) => {
                let text = self.files.text(&cwd.join(path))?;
                let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
                lines.join(",")
            }
        };
        match hosts::select(&pattern, &self.inventory) {
            Ok(hosts) if hosts.is_empty() => {
                Err(Diagnostic::error(format!("`--limit {limit}` stands for no host"))
                    .hint("the group is empty, or everything is excluded"))
            }
            Ok(hosts) => Ok(hosts.into_iter().collect()),
            Err(unmatched) => {
                let diagnostic =
                    Diagnostic::error(format!("unknown host or group `{}` in `--limit`: {}", unmatched.part, unmatched.reason));
                Err(self.suggest(diagnostic, &unmatched.part))
            }
        }
    }

    fn suggest(&self, diagnostic: Diagnostic, part: &str) -> Diagnostic {
        let names = self.inventory.iter().map(|(name, _)| name).chain(self.inventory.iter_groups().map(|(name, _)| name));
        match nearest(part, names) {
            Some(name) => diagnostic.hint(format!("did you mean `{name}`?")),
            None if LOCAL.contains(&part) => diagnostic.hint("no play names it: write a play with `hosts: localhost`"),
            None => diagnostic.hint("`soc-provision inventory` lists hosts and groups"),
        }
    }

    /// All hosts that some play runs on, in the order of the inventory.
    #[must_use]
    pub fn hosts(&self) -> Vec<&str> {
        let wanted: std::collections::HashSet<&str> = self.plays.iter().flat_map(|play| play.hosts.iter().map(String::as_str)).collect();
        self.inventory.iter().map(|(name, _)| name).filter(|name| wanted.contains(name)).collect()
    }

    /// The inventory's variables of a host, weakest source first.
    #[must_use]
    pub fn host_vars(&self, host: &str) -> &[Source] {
        self.vars.get(host).map_or(&[], Vec::as_slice)
    }

    /// The directory that `group_vars` and relative paths of the playbook are in.
    #[must_use]
    pub fn playbook_dir(&self) -> &Path {
        self.playbook.parent().unwrap_or(&self.root)
    }

    /// A role by name, loaded on first use.
    ///
    /// # Errors
    /// That there is none, or the problems of its files.
    pub fn role(&self, name: &str) -> Loaded<Role> {
        let mut roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(role) = roles.get(name) {
            return role.clone();
        }
        let loaded = self.load_role(name);
        roles.insert(name.to_owned(), loaded.clone());
        loaded
    }

    fn load_role(&self, name: &str) -> Loaded<Role> {
        let places = [self.root.join("roles"), self.playbook_dir().join("roles")];
        let strange = name.is_empty() || name.contains("..") || name.starts_with('/');
        let Some(directory) = places.iter().map(|place| place.join(name)).find(|path| !strange && path.is_dir()) else {
            let diagnostic = Diagnostic::error(format!("there is no role `{name}`"));
            let known: Vec<String> = places
                .iter()
                .flat_map(|place| std::fs::read_dir(place).into_iter().flatten().flatten())
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            let hint = match nearest(name, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it would be the directory `{}`", self.files.shown(&places[0].join(name)).display()),
            };
            return Err(vec![diagnostic.hint(hint)]);
        };
        let mut problems = Problems::default();
        let role = role::load(&self.files, name, &directory, &mut problems);
        if problems.has_errors() { Err(problems.into_vec()) } else { Ok(Arc::new(role)) }
    }

    /// A file of tasks, loaded on first use.
    ///
    /// # Errors
    /// The problems of the file.
    pub fn task_file(&self, path: &Path) -> Loaded<Vec<Item>> {
        let path = files::normal(path);
        let mut cache = self.task_files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(items) = cache.get(&path) {
            return items.clone();
        }
        let mut problems = Problems::default();
        let items = problems.keep(self.files.yaml(&path)).map(|node| task::items(&node, "a file of tasks", &mut problems));
        let loaded = if problems.has_errors() { Err(problems.into_vec()) } else { Ok(Arc::new(items.unwrap_or_default())) };
        cache.insert(path, loaded.clone());
        loaded
    }

    /// Roles that the plays use, so far as their names need no rendering, each once.
    #[must_use]
    pub fn used_roles(&self) -> Vec<Arc<Role>> {
        let roles = self.roles.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<Arc<Role>> = roles.values().filter_map(|role| role.as_ref().ok().cloned()).collect();
        list.sort_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// Files of tasks that were loaded so far.
    #[must_use]
    pub fn used_task_files(&self) -> Vec<Arc<Vec<Item>>> {
        let files = self.task_files.lock().unwrap_or_else(PoisonError::into_inner);
        files.values().filter_map(|items| items.as_ref().ok().cloned()).collect()
    }

    /// SHA-256, in hex, over everything that decides what a run does: all files that were read
    /// and all files of the used roles.
    #[must_use]
    pub fn digest(&self) -> String {
        for role in self.used_roles() {
            for path in self.files.below(&role.directory) {
                self.files.count(&path);
            }
        }
        self.files.digest()
    }

    /// SHA-256, in hex, over the inventory: its files and the variables of its groups and hosts.
    #[must_use]
    pub fn inventory_digest(&self) -> String {
        let sources: Vec<PathBuf> = self.inventory.sources.iter().map(|source| files::normal(source)).collect();
        self.files.digest_of(|path| {
            let variables = path.components().any(|part| part.as_os_str() == "group_vars" || part.as_os_str() == "host_vars");
            variables || sources.iter().any(|source| path.starts_with(source))
        })
    }

    /// Whether every diagnostic is a warning.
    #[must_use]
    pub fn only_warnings(diagnostics: &[Diagnostic]) -> bool {
        diagnostics.iter().all(|diagnostic| diagnostic.level == Level::Warning)
    }
}

/// Names of the controller that need no inventory.
const LOCAL: &[&str] = &["localhost", "127.0.0.1"];

/// Whether a pattern names a host, rather than matching it.
fn names_host(pattern: &str, name: &str) -> bool {
    hosts::split(pattern).iter().any(|part| part == name)
}

/// Whether the plays are about the controller alone.
fn is_local(plays: &[Play]) -> bool {
    !plays.is_empty() && plays.iter().all(|play| LOCAL.contains(&play.pattern.as_str()))
}

/// `@file` arguments are relative to where the user is, not to the project.
fn absolute(cwd: &Path, arguments: &[String]) -> Vec<String> {
    let resolve = |argument: &String| match argument.trim().strip_prefix('@') {
        Some(path) => format!("@{}", cwd.join(path).display()),
        None => argument.clone(),
    };
    arguments.iter().map(resolve).collect()
}
