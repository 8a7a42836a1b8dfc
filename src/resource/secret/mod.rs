//! `secret`: a secret laid down on a host for the one who reads it.
//!
//! `at_rest: plain` is a file with the owner and mode of its consumer. `at_rest: encrypted` keeps
//! only ciphertext on disk (`systemd-creds`: TPM where there is one, else the host's key); a boot
//! unit puts the plaintext into memory before Docker starts. Both compare by keyed digest on the
//! host and never bring a value back. It leaves alone how a container takes the file: that is the
//! stack's declaration, and restarting it is what `notify` is for.

mod encrypted;
mod plain;

use crate::resource::{BuildContext, BuildError, Kind, Resource};
use crate::secret::SecretName;

/// A secret as a file on the host.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Name of the secret in the project's `secrets/`.
    name: String,
    /// Where the consumer reads it, absolute. With `at_rest: encrypted` it is directly in
    /// `/run/soc-secrets`, and that with the secret's name if none is given (`/` becomes `.`).
    path: Option<String>,
    /// User that owns the file: a name or a number, which may be one that exists only inside a
    /// container. Compose ignores `uid` and `mode` of file secrets, so this is what counts.
    #[serde(default = "root", deserialize_with = "word")]
    #[schemars(with = "String")]
    owner: String,
    /// Group that owns the file: a name or a number.
    #[serde(default = "root", deserialize_with = "word")]
    #[schemars(with = "String")]
    group: String,
    /// Permission bits, in quotes: `"0400"`.
    #[serde(default = "mode")]
    mode: String,
    /// `plain`: the file lies on disk. `encrypted`: only ciphertext does; the file is in memory.
    #[serde(default)]
    at_rest: AtRest,
    /// What `encrypted` encrypts with: `auto` (the TPM if there is one, else the host's key),
    /// `host` or `tpm2`.
    #[serde(default)]
    with_key: WithKey,
    /// `present` or `absent`.
    #[serde(default)]
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum AtRest {
    #[default]
    Plain,
    Encrypted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WithKey {
    #[default]
    Auto,
    Host,
    Tpm2,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    Present,
    Absent,
}

fn root() -> String {
    "root".to_owned()
}

fn mode() -> String {
    "0400".to_owned()
}

/// A word that YAML may have taken for a number.
fn word<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Word {
        Number(u32),
        Text(String),
    }
    Ok(match serde::Deserialize::deserialize(deserializer)? {
        Word::Number(number) => number.to_string(),
        Word::Text(text) => text,
    })
}

/// Who may read the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Access {
    owner: String,
    group: String,
    mode: u32,
}

impl Access {
    fn parse(owner: &str, group: &str, mode: &str) -> Result<Self, BuildError> {
        for (field, value) in [("owner", owner), ("group", group)] {
            let fine = !value.is_empty()
                && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
                && !value.starts_with('-');
            if !fine {
                return Err(BuildError::field(field, format!("`{}` is neither a name nor a number", value.escape_debug())));
            }
        }
        let bits = u32::from_str_radix(mode, 8).ok().filter(|bits| (3..=4).contains(&mode.len()) && *bits <= 0o777);
        let bits = bits.ok_or_else(|| BuildError::field("mode", format!("`{}` is not a mode such as \"0400\"", mode.escape_debug())))?;
        if bits & 0o007 != 0 {
            return Err(BuildError::field("mode", format!("`{mode}` lets everybody at the secret"))
                .hint("give the file to its consumer with `owner` or `group`"));
        }
        Ok(Self { owner: owner.to_owned(), group: group.to_owned(), mode: bits })
    }

    /// The mode as `chmod` takes it.
    fn mode(&self) -> String {
        format!("{:04o}", self.mode)
    }

    /// `owner:group`.
    fn who(&self) -> String {
        format!("{}:{}", self.owner, self.group)
    }

    /// How a file's owner, group and mode differ.
    fn changes(&self, state: &crate::resource::observe::PathState) -> Vec<crate::resource::Change> {
        let mut changes = Vec::new();
        let mut differ = |field: &str, wanted: &str, name: &str, id: u32| {
            if wanted != name && wanted.parse() != Ok(id) {
                changes.push(crate::resource::Change::of(field, if name.is_empty() { id.to_string() } else { name.to_owned() }, wanted));
            }
        };
        differ("owner", &self.owner, &state.owner, state.uid);
        differ("group", &self.group, &state.group, state.gid);
        if state.mode != self.mode {
            changes.push(crate::resource::Change::of("mode", format!("{:04o}", state.mode), self.mode()));
        }
        changes
    }
}

impl Kind for Secret {
    const NAME: &'static str = "secret";
    const EXAMPLE: &'static str = "secret:\n  name: db_password\n  path: /etc/app/db_password\n  owner: \"1000\"\n  mode: \"0400\"\n";
    const SHORTHAND: Option<&'static str> = None;

    fn build(self, _context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let name = SecretName::parse(&self.name).map_err(|message| BuildError::field("name", message))?;
        let access = Access::parse(&self.owner, &self.group, &self.mode)?;
        let resource: Box<dyn Resource> = match self.at_rest {
            AtRest::Plain => {
                let path =
                    self.path.ok_or_else(|| BuildError::field("path", "`path` is missing: where does the consumer read the secret?"))?;
                Box::new(plain::SecretFile { path: checked(path)?, name, access, state: self.state })
            }
            AtRest::Encrypted => {
                let path = self.path.unwrap_or_else(|| format!("{}/{}", encrypted::RAM, name.as_str().replace('/', ".")));
                Box::new(encrypted::EncryptedSecret {
                    file: encrypted::file_in_memory(&checked(path)?)?,
                    name,
                    access,
                    with_key: self.with_key,
                    state: self.state,
                })
            }
        };
        Ok(vec![resource])
    }
}

/// An absolute path without steps back and control characters.
fn checked(path: String) -> Result<String, BuildError> {
    let fine = path.starts_with('/')
        && !path.ends_with('/')
        && !path.contains(char::is_control)
        && !path.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."));
    if fine { Ok(path) } else { Err(BuildError::field("path", format!("`{}` is not an absolute path of a file", path.escape_debug()))) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::facts::Facts;
    use crate::resource::{KindEntry, Sources};
    use crate::secret::Text;

    struct NoSources;

    impl Sources for NoSources {
        fn file(&self, name: &str) -> Result<Vec<u8>, String> {
            Err(name.to_owned())
        }
        fn file_path(&self, name: &str) -> Result<std::path::PathBuf, String> {
            Err(name.to_owned())
        }
        fn tree(&self, name: &str) -> Result<Vec<String>, String> {
            Err(name.to_owned())
        }
        fn template(&self, name: &str) -> Result<Text, String> {
            Err(name.to_owned())
        }
    }

    fn build(arguments: serde_json::Value) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let facts = Facts::placeholder("h");
        let context = BuildContext { facts: &facts, sources: &NoSources, host: "h", role: None, become_user: None };
        (KindEntry::of::<Secret>().decode)(arguments, &context)
    }

    #[test]
    fn the_example_decodes_and_names_what_it_needs() {
        let task: serde_json::Value = serde_yaml::from_str(Secret::EXAMPLE).unwrap();
        let resources = build(task["secret"].clone()).unwrap();
        assert_eq!(resources[0].id().to_string(), "secret[/etc/app/db_password]");
        assert_eq!(resources[0].secrets(), [SecretName::parse("db_password").unwrap()]);
        let encrypted = build(json!({"name": "waf/admin", "at_rest": "encrypted", "owner": 1000})).unwrap();
        assert_eq!(encrypted[0].id().to_string(), "secret[/run/soc-secrets/waf.admin]");
    }

    #[test]
    fn bad_arguments_are_named() {
        let field = |arguments| build(arguments).unwrap_err().field.unwrap_or_default();
        assert_eq!(field(json!({"name": "a b", "path": "/x"})), "name");
        assert_eq!(field(json!({"name": "a"})), "path");
        assert_eq!(field(json!({"name": "a", "path": "x"})), "path");
        assert_eq!(field(json!({"name": "a", "path": "/x/../y"})), "path");
        assert_eq!(field(json!({"name": "a", "path": "/x", "mode": "0644"})), "mode");
        assert_eq!(field(json!({"name": "a", "path": "/x", "mode": "4755"})), "mode");
        assert_eq!(field(json!({"name": "a", "path": "/x", "owner": "$(id)"})), "owner");
        assert_eq!(field(json!({"name": "a", "at_rest": "encrypted", "path": "/etc/x"})), "path");
        assert!(build(json!({"name": "a", "path": "/x", "modee": "0400"})).is_err());
    }
}
