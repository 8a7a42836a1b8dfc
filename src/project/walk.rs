//! Loads whatever the plays refer to by plain names, so that problems of all files show at once.

use std::collections::HashSet;
use std::path::PathBuf;

use super::Project;
use super::lower::Problems;
use super::source::Node;
use super::task::{Action, Item, RoleUse};
use crate::diagnostic::Diagnostic;

/// Visits every role and file of tasks that can be named without rendering.
pub(super) fn everything(project: &Project, problems: &mut Problems) {
    let mut walk = Walk { project, problems, roles: HashSet::new(), files: HashSet::new(), open: Vec::new() };
    for play in &project.plays {
        for role in &play.roles {
            walk.role(role);
        }
        for list in [&play.pre_tasks, &play.tasks, &play.post_tasks, &play.handlers] {
            walk.items(list, None);
        }
    }
}

struct Walk<'a> {
    project: &'a Project,
    problems: &'a mut Problems,
    roles: HashSet<String>,
    files: HashSet<PathBuf>,
    /// Roles that are being visited, outermost first.
    open: Vec<String>,
}

impl Walk<'_> {
    fn role(&mut self, used: &RoleUse) {
        let Some(name) = plain(&used.name) else { return };
        if self.open.iter().any(|open| open == name) {
            let chain = [self.open.join("` -> `"), name.to_owned()].join("` -> `");
            return self.problems.error(&used.name.at, format!("role `{name}` depends on itself: `{chain}`"));
        }
        let role = match self.project.role(name) {
            Ok(role) => role,
            Err(diagnostics) => {
                // The role's own files have places; that it does not exist is a problem of this line.
                let at =
                    |diagnostic: Diagnostic| if diagnostic.location.is_none() { diagnostic.at(used.name.at.clone()) } else { diagnostic };
                return self.problems.extend(diagnostics.into_iter().map(at));
            }
        };
        if let Some(from) = used.tasks_from.as_ref().and_then(plain) {
            let path = project_tasks(&role.directory.join("tasks"), from);
            self.file(path, used.tasks_from.as_ref().unwrap_or(&used.name), Some(name));
        }
        if !self.roles.insert(name.to_owned()) {
            return;
        }
        self.open.push(name.to_owned());
        for dependency in &role.dependencies {
            self.role(dependency);
        }
        self.open.pop();
        self.items(&role.tasks, Some(name));
        self.items(&role.handlers, Some(name));
        self.items(&role.verify, Some(name));
    }

    fn items(&mut self, items: &[Item], role: Option<&str>) {
        for item in items {
            match item {
                Item::Block(block) => {
                    for list in [&block.body, &block.rescue, &block.always] {
                        self.items(list, role);
                    }
                }
                Item::Task(task) => match &task.action {
                    // An included role may include the one that included it, under a condition.
                    Action::IncludeRole(used) if !plain(&used.name).is_some_and(|name| self.roles.contains(name)) => {
                        let open = std::mem::take(&mut self.open);
                        self.role(used);
                        self.open = open;
                    }
                    Action::IncludeRole(used) if used.tasks_from.is_some() => self.role(used),
                    Action::IncludeTasks(file) => {
                        if let Some(name) = plain(file) {
                            let path = self.project.find_tasks(name, &file.at.file, role);
                            self.file(path, file, role);
                        }
                    }
                    _ => {}
                },
            }
        }
    }

    fn file(&mut self, path: PathBuf, node: &Node, role: Option<&str>) {
        if !path.is_file() {
            let shown = self.project.files.shown(&path).display().to_string();
            return self.problems.error(&node.at, format!("there is no file of tasks `{shown}`"));
        }
        if !self.files.insert(path.clone()) {
            return;
        }
        match self.project.task_file(&path) {
            Ok(items) => self.items(&items, role),
            Err(diagnostics) => self.problems.extend(diagnostics),
        }
    }
}

impl Project {
    /// Where an included file of tasks is: in the role's `tasks/`, else beside the file that
    /// includes it, else beside the playbook.
    #[must_use]
    pub fn find_tasks(&self, name: &str, from: &std::path::Path, role: Option<&str>) -> PathBuf {
        let role = role.and_then(|role| self.role(role).ok()).map(|role| role.directory.join("tasks"));
        let beside = self.root.join(from).parent().map(std::path::Path::to_path_buf);
        let places: Vec<PathBuf> = [role, beside, Some(self.playbook_dir().to_path_buf())].into_iter().flatten().collect();
        let mut paths = places.iter().map(|place| project_tasks(place, name));
        paths.find(|path| path.is_file()).unwrap_or_else(|| places.first().map_or_else(|| PathBuf::from(name), |place| place.join(name)))
    }

    /// The file of tasks `tasks_from` names in a role.
    #[must_use]
    pub fn role_tasks(&self, role: &super::role::Role, from: &str) -> PathBuf {
        project_tasks(&role.directory.join("tasks"), from)
    }
}

/// The file of a name whose ending may be left out.
fn project_tasks(directory: &std::path::Path, name: &str) -> PathBuf {
    let plain = directory.join(name);
    let with = |ending: &str| directory.join(format!("{name}{ending}"));
    [plain.clone(), with(".yml"), with(".yaml")].into_iter().find(|path| path.is_file()).unwrap_or(plain)
}

/// Text without templates.
fn plain(node: &Node) -> Option<&str> {
    node.as_str().filter(|text| !text.contains("{{"))
}
