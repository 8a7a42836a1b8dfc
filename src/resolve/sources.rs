//! A role's files and templates, as kinds ask for them.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::place;
use super::template;
use super::variables::Scope;
use crate::diagnostic::Diagnostic;
use crate::project::Project;
use crate::resource::compose::stack::Locked;
use crate::resource::{ImageRule, Sources};
use crate::secret::Text;

/// Looks up what one task refers to.
pub(super) struct TaskSources<'a, 'w> {
    pub(super) project: &'a Project,
    pub(super) scope: &'a Scope<'w>,
    /// The last problem, with its place; the kinds pass on only its text.
    pub(super) problem: RefCell<Option<Diagnostic>>,
}

/// Directories that are searched for a part (`files`, `templates`).
fn directories(project: &Project, role: Option<&str>, part: &str) -> Vec<PathBuf> {
    let role = role.and_then(|role| project.role(role).ok());
    let mut out = Vec::new();
    if let Some(role) = role {
        out.push(role.directory.join(part));
    }
    for directory in [project.playbook_dir(), &project.root] {
        let path = directory.join(part);
        if !out.contains(&path) {
            out.push(path);
        }
    }
    out
}

/// Where a partial's file is.
pub(super) fn find_partial(project: &Project, name: &str, role: Option<&str>) -> Option<PathBuf> {
    let directories = directories(project, role, "templates");
    directories.iter().flat_map(|directory| template_names(directory, name)).find(|path| path.is_file())
}

fn template_names(directory: &Path, name: &str) -> [PathBuf; 3] {
    ["", ".hbs", ".j2"].map(|ending| directory.join(format!("{name}{ending}")))
}

impl TaskSources<'_, '_> {
    fn find(&self, part: &str, name: &str) -> Result<PathBuf, String> {
        let role = self.scope.frame.role.as_deref();
        if name.is_empty() || name.contains('\0') {
            return Err(format!("`{}` is not the name of a file", name.escape_debug()));
        }
        let absolute = Path::new(name);
        if absolute.is_absolute() {
            return if absolute.exists() { Ok(absolute.to_path_buf()) } else { Err(format!("there is no file `{name}` on this machine")) };
        }
        let directories = directories(self.project, role, part);
        let endings: &[&str] = if part == "templates" { &["", ".hbs", ".j2"] } else { &[""] };
        for directory in &directories {
            for ending in endings {
                let path = directory.join(format!("{name}{ending}"));
                if path.exists() {
                    return Ok(path);
                }
            }
        }
        let places: Vec<String> =
            directories.iter().map(|directory| format!("`{}`", self.project.files.shown(&directory.join(name)).display())).collect();
        let near = nearest_file(&directories, name).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        Err(format!("there is no file {}{near}", places.join(" or ")))
    }

    fn remember(&self, diagnostic: Diagnostic) -> String {
        let at = diagnostic.location.as_ref().map(|at| format!("{}:{}:{}: ", at.file.display(), at.line, at.column)).unwrap_or_default();
        let text = format!("{at}{}", diagnostic.message);
        *self.problem.borrow_mut() = Some(diagnostic);
        text
    }
}

fn nearest_file(directories: &[PathBuf], name: &str) -> Option<String> {
    let wanted = Path::new(name).file_name()?.to_string_lossy().into_owned();
    let inside = Path::new(name).parent().unwrap_or(Path::new(""));
    let names: Vec<String> = directories
        .iter()
        .flat_map(|directory| std::fs::read_dir(directory.join(inside)).into_iter().flatten().flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    crate::diagnostic::nearest(&wanted, names.iter().map(String::as_str)).map(|near| inside.join(near).display().to_string())
}

impl Sources for TaskSources<'_, '_> {
    fn image(&self, reference: &str) -> ImageRule {
        let images = &self.project.images;
        let place = |at: &crate::diagnostic::Location| format!("{}:{}", at.file.display(), at.line);
        let locked =
            images.locked.get(reference).map(|lock| Locked { digest: lock.digest.clone(), ids: lock.ids.clone(), at: place(&lock.at) });
        let allowed = images.allow.is_empty() || images.allow.iter().any(|allowed| allowed.matcher.is_match(reference));
        let refused = match images.allow.first() {
            Some(first) if !allowed => Some(format!("is not on the allow-list ({})", place(&first.at))),
            _ if images.required && locked.is_none() => Some("is not in images.lock: add it with `soc-provision images lock`".to_owned()),
            _ => None,
        };
        ImageRule { unlocked: !images.locked.is_empty() && locked.is_none(), locked, refused }
    }

    fn file(&self, name: &str) -> Result<Vec<u8>, String> {
        let path = self.find("files", name)?;
        self.project.files.bytes(&path).map_err(|diagnostic| diagnostic.message)
    }

    fn file_path(&self, name: &str) -> Result<PathBuf, String> {
        self.find("files", name)
    }

    fn tree(&self, name: &str) -> Result<Vec<String>, String> {
        let root = self.find("files", name).or_else(|missing| self.find("templates", name).map_err(|_| missing))?;
        if !root.is_dir() {
            return Err(format!("`{name}` is not a directory"));
        }
        let relative = |path: PathBuf| path.strip_prefix(&root).ok().map(|path| path.to_string_lossy().into_owned());
        Ok(self.project.files.below(&root).into_iter().filter_map(relative).collect())
    }

    fn template(&self, name: &str) -> Result<Text, String> {
        let path = self.find("templates", name)?;
        let source = self.project.files.text(&path).map_err(|diagnostic| diagnostic.message)?;
        let start = self.project.files.start(&path);
        let role = self.scope.frame.role.as_deref();
        let compiled = template::compile(&source).map_err(|mut trouble| {
            if path.extension().is_some_and(|ending| ending == "j2") {
                "this is a Jinja template".clone_into(&mut trouble.message);
                trouble.hint = Some(format!("translate it to Handlebars and name it `.hbs`: {}", trouble.hint.unwrap_or_default()));
            }
            self.remember(place::in_file(self.project, &trouble, &start, role))
        })?;
        let rendered = self.scope.file(&compiled, &start).map_err(|diagnostic| self.remember(diagnostic))?;
        Ok(Text::parse(&rendered))
    }
}
