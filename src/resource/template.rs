//! `template`: a file rendered from the role's `templates/` with the task's variables.
//!
//! Reads the status and digest of the destination; a file with secrets is compared on the host.
//! Writes atomically. Rendering itself is done before, by the context that builds the resource.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::resource::argument::{Account, FileMode, Presence};
use crate::resource::copy::{FileResource, Options};
use crate::resource::managed::Body;
use crate::resource::{BuildContext, BuildError, Kind, Resource};

/// Writes a rendered template.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Template in the role's `templates/`.
    src: String,
    /// Absolute path on the host. One that ends in `/` is a directory for the file.
    #[serde(alias = "path")]
    dest: String,
    /// Permission bits, in quotes. `"0644"` unless given; a template with secrets must give it.
    #[serde(default)]
    mode: Option<FileMode>,
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

impl Kind for Template {
    const NAME: &'static str = "template";
    const EXAMPLE: &'static str = "template:
  src: nginx.conf
  dest: /etc/nginx/nginx.conf
  mode: \"0644\"
  validate: nginx -t -c %s
";

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let name = self.src.rsplit('/').next().unwrap_or_default();
        let name = name.strip_suffix(".hbs").or_else(|| name.strip_suffix(".j2")).unwrap_or(name);
        let dest = if self.dest.ends_with('/') { format!("{}{name}", self.dest) } else { self.dest };
        let text = match self.state {
            Presence::Present => Some(context.sources.template(&self.src).map_err(|reason| BuildError::field("src", reason))?),
            Presence::Absent => None,
        };
        if let (Some(text), None) = (&text, self.mode)
            && let Some(secret) = text.secrets().first()
        {
            return Err(BuildError::field("mode", format!("`{}` holds the secret `{secret}` and no `mode` is given", self.src))
                .hint("say who may read it, as in `mode: \"0600\"`"));
        }
        let options = Options {
            mode: self.mode,
            owner: self.owner,
            group: self.group,
            validate: self.validate,
            backup: self.backup,
            state: self.state,
        };
        Ok(vec![Box::new(FileResource::build(Self::NAME, context, &dest, text.map(Body::Text), options)?)])
    }
}
