//! What a `compose_stack` is given besides its Compose file, each read into what the release is made of.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::resource::compose::stack::{FileContent, Job, Migration, Reload, Requirements, StackFile};
use crate::resource::compose::units;
use crate::resource::docker_image::ImageSource;
use crate::resource::{BuildContext, BuildError};
use crate::secret::{Text, sha256};

/// Files up to this size, in bytes, travel inside a script; larger and binary ones are uploaded.
const INLINE: usize = 256 << 10;

/// A file of a stack; one of `template`, `src`, `content`, `tree`.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileArgument {
    #[serde(default)]
    pub template: Option<String>,
    #[serde(default)]
    pub src: Option<String>,
    #[serde(default)]
    pub content: Option<String>,
    /// A directory of the role's `files/`, whole.
    #[serde(default)]
    pub tree: Option<String>,
    /// Path below `files/`; by default the source's name.
    #[serde(default)]
    pub dest: Option<String>,
    /// `"0644"` unless said otherwise.
    #[serde(default)]
    pub mode: Option<String>,
    /// uid inside the container.
    #[serde(default)]
    pub owner: u32,
    /// gid inside the container; by default the uid.
    #[serde(default)]
    pub group: Option<u32>,
}

/// A Compose secret.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretArgument {
    /// The secret's name in the project.
    pub secret: String,
    /// uid inside the container that reads it.
    #[serde(default)]
    pub uid: u32,
    /// By default the uid.
    #[serde(default)]
    pub gid: Option<u32>,
    /// `"0400"` unless said otherwise.
    #[serde(default)]
    pub mode: Option<String>,
    /// Where a `secret` task has put it (`at_rest: encrypted`), instead of the stack itself.
    #[serde(default)]
    pub path: Option<String>,
}

/// Where an image of a stack comes from.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum ImageArgument {
    /// `registry`: pulled.
    Registry(Registry),
    Source(ImageSource),
}

/// The word `registry`.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Registry {
    Registry,
}

/// Whether Compose may pull.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    Never,
    #[default]
    Missing,
    Always,
}

/// How long a service may take to become healthy.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// `300s`, `5m`.
    pub timeout: Value,
}

impl Default for Health {
    fn default() -> Self {
        Self { timeout: json!("300s") }
    }
}

/// How a service takes new files: one of both.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReloadArgument {
    /// `HUP`.
    #[serde(default)]
    pub signal: Option<String>,
    /// `[nginx, -s, reload]`, run in the container.
    #[serde(default)]
    pub command: Option<Vec<String>>,
}

/// A change of data that goes with a release; commands are run by `sh` in the service's image.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrateArgument {
    /// Runs once for each value.
    pub id: String,
    pub service: String,
    /// Before it.
    #[serde(default)]
    pub backup: Option<String>,
    pub run: String,
    /// After it.
    #[serde(default)]
    pub verify: Option<String>,
    /// Puts the backup back before an older release may start.
    #[serde(default)]
    pub restore: Option<String>,
    /// Older releases cannot read the data afterwards: without `restore` there is no way back.
    #[serde(default)]
    pub incompatible: bool,
}

/// A one-off job, run by `sh` in a running service; again when its text changes.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InitArgument {
    pub name: String,
    pub service: String,
    pub command: String,
    /// Succeeds if there is nothing to do.
    #[serde(default)]
    pub unless: Option<String>,
}

/// What the host must have.
#[derive(Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequiresArgument {
    /// `8G`.
    #[serde(default)]
    pub memory: Option<Value>,
    /// `4`.
    #[serde(default)]
    pub cpus: Option<Value>,
    /// Free space by path.
    #[serde(default)]
    pub disk: BTreeMap<String, Value>,
    /// Kernel settings and their least values.
    #[serde(default)]
    pub sysctl: BTreeMap<String, u64>,
}

impl PullPolicy {
    /// As Compose has it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Missing => "missing",
            Self::Always => "always",
        }
    }
}

impl Health {
    /// In seconds.
    pub(super) fn seconds(&self) -> Result<u64, BuildError> {
        units::seconds(&self.timeout)
            .filter(|&seconds| seconds > 0)
            .ok_or_else(|| BuildError::field("health.timeout", format!("`{}` is not a duration, such as `300s`", self.timeout)))
    }
}

impl ReloadArgument {
    pub(super) fn read(&self, service: &str) -> Result<Reload, BuildError> {
        match (&self.signal, &self.command) {
            (Some(signal), None) if signal.chars().all(|c| c.is_ascii_alphanumeric()) && !signal.is_empty() => {
                Ok(Reload::Signal(signal.clone()))
            }
            (None, Some(command)) if !command.is_empty() => Ok(Reload::Command(command.clone())),
            _ => Err(BuildError::field(&format!("reload.{service}"), "give either a `signal` or a `command`")),
        }
    }
}

impl MigrateArgument {
    pub(super) fn read(&self) -> Result<Migration, BuildError> {
        is_word("migrate.id", &self.id)?;
        Ok(Migration {
            id: self.id.clone(),
            service: self.service.clone(),
            backup: self.backup.clone(),
            run: self.run.clone(),
            verify: self.verify.clone(),
            restore: self.restore.clone(),
            incompatible: self.incompatible,
        })
    }
}

impl InitArgument {
    pub(super) fn read(&self) -> Result<Job, BuildError> {
        is_word("init.name", &self.name)?;
        Ok(Job { name: self.name.clone(), service: self.service.clone(), command: self.command.clone(), unless: self.unless.clone() })
    }
}

impl RequiresArgument {
    pub(super) fn read(&self) -> Result<Requirements, BuildError> {
        let amount = |field: &str, value: &Value, read: fn(&Value) -> Option<u64>| {
            read(value).ok_or_else(|| BuildError::field(&format!("requires.{field}"), format!("`{value}` is not an amount")))
        };
        Ok(Requirements {
            memory: self.memory.as_ref().map(|value| amount("memory", value, units::bytes)).transpose()?,
            nano_cpus: self.cpus.as_ref().map(|value| amount("cpus", value, units::nano_cpus)).transpose()?,
            disk: self
                .disk
                .iter()
                .map(|(path, value)| Ok((path.clone(), amount("disk", value, units::bytes)?)))
                .collect::<Result<_, BuildError>>()?,
            sysctl: self.sysctl.clone(),
        })
    }
}

impl FileArgument {
    /// The files that it stands for, by their path below `files/`.
    pub(super) fn read(&self, context: &BuildContext<'_>) -> Result<Vec<(String, StackFile)>, String> {
        let mode = mode(self.mode.as_deref(), 0o644)?;
        let file = |content| StackFile { content, mode, uid: self.owner, gid: self.group.unwrap_or(self.owner) };
        let base = |name: &String| name.rsplit('/').next().unwrap_or(name).to_owned();
        let dest = |default: Option<String>| -> Result<String, String> {
            let dest = self.dest.clone().or(default).ok_or("a file with `content` needs a `dest`")?;
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '@' | '+' | ',');
            let path = dest.trim_start_matches("./").trim_end_matches('/').to_owned();
            if path.is_empty()
                || path.starts_with('/')
                || path.split('/').any(|part| part.is_empty() || part == "..")
                || !path.chars().all(fine)
            {
                let shown = dest.escape_debug();
                return Err(format!("`{shown}` is not a path below `files/`, of letters, digits and `._-/@+,` without `..`"));
            }
            Ok(path)
        };
        match (&self.template, &self.src, &self.content, &self.tree) {
            (Some(name), None, None, None) => Ok(vec![(dest(Some(base(name)))?, file(FileContent::Text(context.sources.template(name)?)))]),
            (None, Some(name), None, None) => Ok(vec![(dest(Some(base(name)))?, file(whole(context, name)?))]),
            (None, None, Some(text), None) => Ok(vec![(dest(None)?, file(FileContent::Text(Text::parse(text))))]),
            (None, None, None, Some(name)) => {
                let root = dest(Some(base(name)))?;
                let paths = context.sources.tree(name)?;
                paths.iter().map(|path| Ok((format!("{root}/{path}"), file(whole(context, &format!("{name}/{path}"))?)))).collect()
            }
            _ => Err("a file needs exactly one of `template`, `src`, `content`, `tree`".to_owned()),
        }
    }
}

/// A file of the role: inside a script if it is short text, uploaded otherwise.
fn whole(context: &BuildContext<'_>, name: &str) -> Result<FileContent, String> {
    let bytes = context.sources.file(name)?;
    if bytes.len() <= INLINE
        && let Ok(text) = String::from_utf8(bytes.clone())
        && !Text::is_marked(&text)
    {
        return Ok(FileContent::Text(Text::plain(text)));
    }
    Ok(FileContent::Upload(context.sources.file_path(name)?, sha256(&bytes)))
}

/// Permission bits in octal digits.
pub(super) fn mode(text: Option<&str>, default: u32) -> Result<u32, String> {
    let Some(text) = text else { return Ok(default) };
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(|| format!("`{text}` is not a mode, such as \"0644\""))
}

fn is_word(field: &str, text: &str) -> Result<(), BuildError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || !text.chars().all(fine) || text.starts_with('.') {
        return Err(BuildError::field(field, format!("`{}` is not a name: use letters, digits, `.`, `-`, `_`", text.escape_debug())));
    }
    Ok(())
}
