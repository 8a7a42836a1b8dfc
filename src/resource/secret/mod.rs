//! `secret`: a secret laid down on a host for the one who reads it.
//!
//! `at_rest: plain` is a file with the owner and mode of its consumer. `at_rest: encrypted` keeps
//! only ciphertext on disk (`systemd-creds`: TPM where there is one, else the host's key); a boot
//! unit puts the plaintext into memory before Docker starts. Both compare by keyed digest on the
//! host and never bring a value back. It leaves alone how a container takes the file: that is the
//! stack's declaration, and restarting it is what `notify` is for.

mod encrypted;
mod plain;

use crate::resource::argument::{Account, FileMode, Presence, absolute, octal};
use crate::resource::managed::{Body, ManagedFile};
use crate::resource::observe::PathState;
use crate::resource::{BuildContext, BuildError, Change, Kind, Resource};
use crate::secret::{SecretName, Text};

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
    #[serde(default = "Account::root")]
    owner: Account,
    /// Group that owns the file: a name or a number.
    #[serde(default = "Account::root")]
    group: Account,
    /// Permission bits, in quotes: `"0400"`.
    #[serde(default = "mode")]
    mode: FileMode,
    /// `plain`: the file lies on disk. `encrypted`: only ciphertext does; the file is in memory.
    #[serde(default)]
    at_rest: AtRest,
    /// What `encrypted` encrypts with: `auto` (the TPM if there is one, else the host's key),
    /// `host` or `tpm2`.
    #[serde(default)]
    with_key: WithKey,
    /// `present` or `absent`.
    #[serde(default)]
    state: Presence,
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

fn mode() -> FileMode {
    FileMode(0o400)
}

/// Who may read the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Access {
    owner: Account,
    group: Account,
    mode: u32,
}

impl Access {
    /// `owner:group`.
    fn who(&self) -> String {
        format!("{}:{}", self.owner.0, self.group.0)
    }

    /// How a file's owner, group and mode differ.
    fn changes(&self, state: &PathState) -> Vec<Change> {
        let mut changes = Vec::new();
        for (field, wanted, name, id) in [("owner", &self.owner, &state.owner, state.uid), ("group", &self.group, &state.group, state.gid)]
        {
            if !wanted.is(name, id) {
                changes.push(Change::of(field, if name.is_empty() { id.to_string() } else { name.clone() }, &wanted.0));
            }
        }
        if state.mode != self.mode {
            changes.push(Change::of("mode", octal(state.mode), octal(self.mode)));
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
        let mode = self.mode.0;
        if mode & !0o770 != 0 {
            let text = format!("`{}` lets everybody at the secret, or sets more than permissions", octal(mode));
            return Err(BuildError::field("mode", text).hint("give the file to its consumer with `owner` or `group`"));
        }
        let resource: Box<dyn Resource> = match self.at_rest {
            AtRest::Plain => {
                let path =
                    self.path.ok_or_else(|| BuildError::field("path", "`path` is missing: where does the consumer read the secret?"))?;
                let file = ManagedFile::new(absolute("path", &path)?, Body::Text(Text::secret(name)));
                Box::new(plain::SecretFile {
                    file: ManagedFile { mode, owner: self.owner, group: Some(self.group), ..file },
                    state: self.state,
                })
            }
            AtRest::Encrypted => {
                let path = self.path.unwrap_or_else(|| format!("{}/{}", encrypted::RAM, name.as_str().replace('/', ".")));
                let file = encrypted::file_in_memory(&absolute("path", &path)?)?;
                let access = Access { owner: self.owner, group: self.group, mode };
                Box::new(encrypted::EncryptedSecret { file, name, access, with_key: self.with_key, state: self.state })
            }
        };
        Ok(vec![resource])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::Bench;

    #[test]
    fn the_example_decodes_and_names_what_it_needs() {
        let resource = Bench::default().build(Secret::EXAMPLE);
        assert_eq!(resource.id().to_string(), "secret[/etc/app/db_password]");
        assert_eq!(resource.secrets(), [SecretName::parse("db_password").unwrap()]);
        let encrypted = Bench::default().build("secret: {name: waf/admin, at_rest: encrypted, owner: 1000}");
        assert_eq!(encrypted.id().to_string(), "secret[/run/soc-secrets/waf.admin]");
    }

    #[test]
    fn bad_arguments_are_named() {
        for (field, arguments) in [
            ("name", "{name: a b, path: /x}"),
            ("path", "{name: a}"),
            ("path", "{name: a, path: x}"),
            ("path", "{name: a, path: /x/../y}"),
            ("path", "{name: a, at_rest: encrypted, path: /etc/x}"),
            ("path", "{name: a, at_rest: encrypted, path: /run/soc-secrets/.x}"),
            ("mode", "{name: a, path: /x, mode: '0644'}"),
            ("mode", "{name: a, path: /x, mode: '4700'}"),
            ("owner", "{name: a, path: /x, owner: '$(id)'}"),
            ("modee", "{name: a, path: /x, modee: '0400'}"),
        ] {
            let error = Bench::default().try_build(&format!("secret: {arguments}")).unwrap_err();
            assert!(error.field.as_deref() == Some(field) || error.message.contains(field), "{arguments}: {error:?}");
        }
    }
}
