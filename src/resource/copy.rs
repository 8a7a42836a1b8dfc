//! `copy`: a file, or a tree of files, from the role's `files/`, or with content given in place.
//!
//! Reads the status and digest of each destination. Writes atomically. Leaves alone whatever else
//! is in a directory that a tree is copied to.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::{Account, FileMode, Presence, absolute};
use crate::resource::directory::DirectoryResource;
use crate::resource::managed::{Body, ManagedFile, remove_file};
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Plan, Undecided};
use crate::resource::sysctl::boot;
use crate::resource::{BuildContext, BuildError, Claim, Kind, Resource, ResourceId, Severity};
use crate::secret::{SecretName, Text};

/// Files up to this size travel in the script; larger ones on a channel of their own (DESIGN 8.5).
const MAX_INLINE: u64 = 1 << 20;

/// Copies a file or a tree of files to the host.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// File or directory in the role's `files/`. A directory is copied with all that is in it; one
    /// that ends in `/` gives its contents instead of itself.
    #[serde(default)]
    src: Option<String>,
    /// The content itself, instead of `src`. May hold secrets.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    content: Option<Text>,
    /// Absolute path on the host. One that ends in `/` is a directory for the file.
    #[serde(alias = "path")]
    dest: String,
    /// Permission bits, in quotes. `"0644"` unless given.
    #[serde(default)]
    mode: Option<FileMode>,
    /// Permission bits of directories of a copied tree. `"0755"` unless given.
    #[serde(default)]
    directory_mode: Option<FileMode>,
    /// Owner. `root`, or the user of `become_user`, unless given.
    #[serde(default)]
    owner: Option<Account>,
    /// Group. `root` unless given.
    #[serde(default)]
    group: Option<Account>,
    /// A command that must accept the new file before it replaces the old one; `%s` stands for it.
    #[serde(default)]
    validate: Option<String>,
    /// Keep the old file beside the new one, with the time in its name.
    #[serde(default)]
    backup: bool,
    /// `absent` removes the file.
    #[serde(default)]
    state: Presence,
}

impl Kind for Copy {
    const NAME: &'static str = "copy";
    const EXAMPLE: &'static str = "copy:
  src: sshd_config
  dest: /etc/ssh/sshd_config.d/10-soc.conf
  mode: \"0600\"
  validate: sshd -t -f %s
";
    const SECRET_FIELDS: &'static [&'static str] = &["content"];

    fn build(mut self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let into = self.dest.ends_with('/').then(|| absolute("dest", &self.dest)).transpose()?;
        match (self.src.take(), self.content.take()) {
            (None, None) if self.state == Presence::Absent => Ok(vec![self.file(context, &self.dest, None)?]),
            (Some(_), Some(_)) => Err(BuildError::field("content", "`copy` has both `src` and `content`").hint("leave one of them out")),
            (None, None) => Err(BuildError::from("`copy` needs `src` or `content`".to_owned())),
            (None, Some(_)) if into.is_some() => {
                Err(BuildError::field("dest", format!("`{}` is a directory, and `content` has no name", self.dest))
                    .hint("add the file's name"))
            }
            (None, Some(text)) => Ok(vec![self.file(context, &self.dest, Some(Body::Text(text)))?]),
            (Some(src), None) => match context.sources.file_digest(&src) {
                Ok(seen) => {
                    let name = src.rsplit('/').next().unwrap_or_default();
                    let dest = into.map_or_else(|| self.dest.clone(), |into| format!("{}/{name}", into.trim_end_matches('/')));
                    Ok(vec![self.file(context, &dest, Some(body(context, &src, seen)?))?])
                }
                Err(reason) => self.tree(context, &src, &reason),
            },
        }
    }
}

/// A file of the role.
fn body(context: &BuildContext<'_>, src: &str, (size, sha256): (u64, String)) -> Result<Body, BuildError> {
    let wrong = |reason| BuildError::field("src", reason);
    if size > MAX_INLINE {
        return Ok(Body::Upload { source: context.sources.file_path(src).map_err(wrong)?, sha256, size });
    }
    Ok(Body::of(context.sources.file(src).map_err(wrong)?))
}

impl Copy {
    fn file(&self, context: &BuildContext<'_>, dest: &str, body: Option<Body>) -> Result<Box<dyn Resource>, BuildError> {
        let options = Options {
            mode: self.mode,
            owner: self.owner.clone(),
            group: self.group.clone(),
            validate: self.validate.clone(),
            backup: self.backup,
            state: self.state,
        };
        Ok(Box::new(FileResource::build(Self::NAME, context, dest, body, options)?))
    }

    /// One resource for each directory and file, so that each is planned and reported by itself.
    fn tree(&self, context: &BuildContext<'_>, src: &str, reason: &str) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let name = src.trim_end_matches('/');
        let files = context.sources.tree(name).unwrap_or_default();
        if files.is_empty() {
            return Err(BuildError::field("src", reason));
        }
        let dest = absolute("dest", &self.dest)?;
        let root = if src.ends_with('/') { dest } else { format!("{dest}/{}", name.rsplit('/').next().unwrap_or_default()) };
        let mut directories = vec![root.clone()];
        for file in &files {
            for (at, _) in file.match_indices('/') {
                directories.push(format!("{root}/{}", &file[..at]));
            }
        }
        directories.sort();
        directories.dedup();
        let mode = self.directory_mode.unwrap_or(FileMode(0o755));
        let mut out: Vec<Box<dyn Resource>> = Vec::new();
        for path in directories {
            out.push(Box::new(DirectoryResource::with(path, Some(mode), self.owner.clone(), self.group.clone())));
        }
        for file in files {
            let source = format!("{name}/{file}");
            let seen = context.sources.file_digest(&source).map_err(|reason| BuildError::field("src", reason))?;
            out.push(self.file(context, &format!("{root}/{file}"), Some(body(context, &source, seen)?))?);
        }
        Ok(out)
    }
}

/// What `copy` and `template` share besides the content.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) mode: Option<FileMode>,
    pub(super) owner: Option<Account>,
    pub(super) group: Option<Account>,
    pub(super) validate: Option<String>,
    pub(super) backup: bool,
    pub(super) state: Presence,
}

/// One file with declared content, or declared to be gone.
#[derive(Debug)]
pub(super) struct FileResource {
    kind: &'static str,
    path: String,
    file: Option<ManagedFile>,
}

impl FileResource {
    pub(super) fn build(
        kind: &'static str,
        context: &BuildContext<'_>,
        dest: &str,
        body: Option<Body>,
        options: Options,
    ) -> Result<Self, BuildError> {
        let path = absolute("dest", dest)?;
        if let Some(command) = options.validate.as_deref().filter(|command| !command.contains("%s")) {
            return Err(BuildError::field("validate", format!("`{command}` does not say where the file goes"))
                .hint("put `%s` where the command takes the file"));
        }
        let file = body.filter(|_| options.state == Presence::Present).map(|body| {
            let owner = options.owner.unwrap_or_else(|| Account(context.become_user.unwrap_or("root").to_owned()));
            let group = options.group.or_else(|| (owner == Account::root()).then(Account::root));
            ManagedFile {
                mode: options.mode.map_or(0o644, |mode| mode.0),
                owner,
                group,
                validate: options.validate,
                backup: options.backup,
                ..ManagedFile::new(path.clone(), body)
            }
        });
        Ok(Self { kind, path, file })
    }
}

impl Resource for FileResource {
    fn id(&self) -> ResourceId {
        ResourceId::new(self.kind, &self.path)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        self.file.as_ref().map_or_else(|| vec![Question::Path(self.path.clone())], ManagedFile::questions)
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        match &self.file {
            Some(file) => file.plan(view),
            None => remove_file(view, &self.path),
        }
    }

    fn secrets(&self) -> Vec<SecretName> {
        self.file.as_ref().map(|file| file.body.secrets()).unwrap_or_default()
    }

    fn severity(&self) -> Severity {
        let sensitive = ["/etc/ssh/", "/etc/sudoers", "/etc/pam.d/", "/etc/security/", "/etc/audit/", "/etc/apparmor.d/"];
        let secret = !self.secrets().is_empty();
        if secret || sensitive.iter().any(|place| self.path.starts_with(place)) { Severity::Security } else { Severity::Config }
    }

    fn claims(&self) -> Vec<Claim> {
        let Some(file) = &self.file else { return Vec::new() };
        let mut claims = vec![Claim::Path(self.path.clone())];
        if let Body::Text(text) = &file.body
            && boot::is_read(&self.path)
            && let Some(text) = text.as_plain()
        {
            let line = |(name, value)| Claim::KernelLine { name, value, path: self.path.clone() };
            claims.extend(boot::lines(&text).into_iter().map(line));
        }
        claims
    }
}
