//! `registry_login`: what Docker's client on a host needs to pull from registries that want a
//! password. Writes the client's `config.json` whole, readable by root alone; the logins are made on
//! the controller and travel as any secret. Runs no `docker login`: a wrong password shows when
//! something is pulled, before anything is stopped.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::resource::argument::{FileMode, Presence, absolute};
use crate::resource::copy::{FileResource, Options};
use crate::resource::directory::DirectoryResource;
use crate::resource::managed::Body;
use crate::resource::{BuildContext, BuildError, Kind, Resource};
use crate::secret::{SecretName, Text, login};

/// Logs a host's Docker in to registries. The file is the task's: name every registry in one task.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryLogin {
    /// Who logs in, by registry as images name it (`registry.example.com:5000`); `docker.io` for
    /// images without one.
    registries: BTreeMap<String, Account>,
    /// Where Docker's client looks for it. Root's, unless given.
    #[serde(default = "default_path")]
    path: String,
    /// `absent` removes the file.
    #[serde(default)]
    state: Presence,
}

/// A user of a registry.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Account {
    username: String,
    /// The name of the secret that holds the password, or an access token.
    password: String,
}

fn default_path() -> String {
    "/root/.docker/config.json".to_owned()
}

/// The key under which Docker's client keeps the login of images that name no registry.
const HUB: &str = "https://index.docker.io/v1/";

impl Kind for RegistryLogin {
    const NAME: &'static str = "registry_login";
    const EXAMPLE: &'static str =
        "registry_login:\n  registries:\n    registry.example.com:5000: {username: puller, password: registry_password}\n";

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let path = absolute("path", &self.path)?;
        let text = render(&self.registries)?;
        let options = Options { mode: Some(FileMode(0o600)), owner: None, group: None, validate: None, backup: false, state: self.state };
        let file = FileResource::build(Self::NAME, context, &path, Some(Body::Text(text)), options)?;
        let mut out: Vec<Box<dyn Resource>> = Vec::new();
        if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| self.state == Presence::Present && !parent.is_empty()) {
            out.push(Box::new(DirectoryResource::with(parent.to_owned(), Some(FileMode(0o700)), None, None)));
        }
        out.push(Box::new(file));
        Ok(out)
    }
}

/// The file, with holes for the logins.
fn render(registries: &BTreeMap<String, Account>) -> Result<Text, BuildError> {
    let mut text = Text::plain("{\n  \"auths\": {");
    for (index, (registry, account)) in registries.iter().enumerate() {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        if registry.is_empty() || !registry.chars().all(fine) {
            let message = format!("`{}` is not a registry as images name it", registry.escape_debug());
            return Err(BuildError::field(&format!("registries.{registry}"), message).hint("write `HOST` or `HOST:PORT`, without a scheme"));
        }
        let user = &account.username;
        if user.is_empty() || user.contains(':') || user.chars().any(char::is_control) {
            let message = format!("`{}` is not a user's name: it must not be empty nor have a `:`", user.escape_debug());
            return Err(BuildError::field(&format!("registries.{registry}.username"), message));
        }
        let password =
            SecretName::parse(&account.password).map_err(|error| BuildError::field(&format!("registries.{registry}.password"), error))?;
        let key = if registry == "docker.io" { HUB } else { registry };
        let comma = if index == 0 { "" } else { "," };
        text = text
            .and(Text::plain(format!("{comma}\n    \"{key}\": {{\"auth\": \"")))
            .and(Text::secret(login::name(&password, user)))
            .and(Text::plain("\"}"));
    }
    Ok(text.and(Text::plain("\n  }\n}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(registry: &str, username: &str, password: &str) -> BTreeMap<String, Account> {
        [(registry.to_owned(), Account { username: username.to_owned(), password: password.to_owned() })].into()
    }

    #[test]
    fn the_file_names_secrets_and_holds_none() {
        let text = render(&accounts("docker.io", "me", "hub")).unwrap();
        assert_eq!(
            text.to_string(),
            "{\n  \"auths\": {\n    \"https://index.docker.io/v1/\": {\"auth\": \"[secret login of me by hub]\"}\n  }\n}\n"
        );
        let names: Vec<String> = text.secrets().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["hub", "login of me by hub"], "the password too, so that it is masked");
    }

    #[test]
    fn what_is_no_registry_no_user_and_no_secret_is_named() {
        for (registry, user, secret, part) in [
            ("https://r/v2/", "u", "s", "not a registry"),
            ("r:5000", "a:b", "s", "not a user"),
            ("r:5000", "u", "my pass", "not a secret's name"),
        ] {
            let error = render(&accounts(registry, user, secret)).unwrap_err();
            assert!(error.message.contains(part), "{error:?}");
        }
    }
}
