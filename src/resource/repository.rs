//! `repository`: a Debian package repository, signed by a key whose fingerprint is pinned.
//!
//! Reads the digests of `/etc/apt/sources.list.d/NAME.sources` and of the key's file. The key is
//! checked on the controller, before any host is touched. Lists are fetched by the next `package`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::{Presence, Words, check_name};
use crate::resource::managed::{Body, ManagedFile, remove_file};
use crate::resource::observe::{Question, View};
use crate::resource::openpgp;
use crate::resource::package::LISTS;
use crate::resource::plan::{Effect, Plan, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Resource, ResourceId, Severity};
use crate::secret::Text;

/// Declares a package repository.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// Name of the file: `/etc/apt/sources.list.d/NAME.sources`.
    name: String,
    /// Addresses of the repository.
    #[serde(default, alias = "uri")]
    uris: Words,
    /// Suites: the host's release unless given.
    #[serde(default, alias = "suite")]
    suites: Option<Words>,
    /// Components, such as `main`; none for a suite that ends in `/`.
    #[serde(default)]
    components: Words,
    /// `deb`, `deb-src`.
    #[serde(default)]
    types: Option<Words>,
    /// Architectures: the host's unless given.
    #[serde(default)]
    architectures: Option<Words>,
    /// The key: a file in the role's `files/`, or an absolute path on the host.
    #[serde(default)]
    signed_by: Option<String>,
    /// The key's fingerprint, or those of all keys in the file: 40 hex digits, blanks allowed.
    #[serde(default)]
    fingerprint: Words,
    /// `absent` removes the repository's definition and key.
    #[serde(default)]
    state: Presence,
}

impl Kind for Repository {
    const NAME: &'static str = "repository";
    const EXAMPLE: &'static str = "repository:
  name: example
  uris: https://packages.example.org/debian
  components: main
  signed_by: example.asc
  fingerprint: 2542 5FD9 40ED E3D5 42EB 8894 BAF6 241C D56D 828C
";

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        check_name("name", "repository", &self.name, "_-.")?;
        let sources = format!("/etc/apt/sources.list.d/{}.sources", self.name);
        let key_paths = ["asc", "gpg"].map(|end| format!("/etc/apt/keyrings/{}.{end}", self.name));
        if self.state == Presence::Absent {
            let [armored, binary] = key_paths;
            return Ok(vec![Box::new(RepositoryResource { name: self.name, files: Vec::new(), gone: vec![sources, armored, binary] })]);
        }
        if self.uris.split().is_empty() {
            return Err(BuildError::field("uris", "`uris` is missing"));
        }
        let signed_by = self.signed_by.as_deref().ok_or_else(|| {
            BuildError::field("signed_by", "`signed_by` is missing: an unsigned repository is not accepted")
                .hint("put the repository's public key in the role's `files/` and name it")
        })?;
        let mut files = Vec::new();
        let key = if signed_by.starts_with('/') {
            signed_by.to_owned()
        } else {
            let bytes = context.sources.file(signed_by).map_err(|reason| BuildError::field("signed_by", reason))?;
            self.check_key(signed_by, &bytes)?;
            let armored = bytes.starts_with(b"-----BEGIN");
            let path = key_paths[usize::from(!armored)].clone();
            files.push(ManagedFile { make_parent: true, ..ManagedFile::new(path.clone(), Body::of(bytes)) });
            path
        };
        let text = self.deb822(context, &key)?;
        files.push(ManagedFile::new(sources, Body::Text(Text::plain(text))));
        Ok(vec![Box::new(RepositoryResource { name: self.name, files, gone: Vec::new() })])
    }
}

impl Repository {
    /// Every key in the file must be pinned: an extra one could sign as well.
    fn check_key(&self, file: &str, bytes: &[u8]) -> Result<(), BuildError> {
        let found = openpgp::fingerprints(bytes).map_err(|reason| BuildError::field("signed_by", format!("`{file}`: {reason}")))?;
        let pinned: Vec<String> =
            self.fingerprint.0.iter().map(|text| text.split_whitespace().collect::<String>().to_uppercase()).collect();
        let pinned: Vec<&str> = pinned.iter().map(|text| text.strip_prefix("0X").unwrap_or(text)).collect();
        if pinned.is_empty() {
            return Err(BuildError::field("fingerprint", format!("`{file}` is not pinned by a `fingerprint`"))
                .hint(format!("compare {} with what the repository's owner publishes, and write it down here", found.join(", "))));
        }
        match found.iter().find(|fingerprint| !pinned.contains(&fingerprint.as_str())) {
            Some(other) => Err(BuildError::field("fingerprint", format!("`{file}` holds the key {other}, which is not the one pinned"))
                .hint("if the key was replaced, check the new one with the repository's owner before changing `fingerprint`")),
            None => Ok(()),
        }
    }

    fn deb822(&self, context: &BuildContext<'_>, key: &str) -> Result<String, BuildError> {
        let list = |words: Option<&Words>, other: &str| words.map_or_else(|| vec![other.to_owned()], Words::split).join(" ");
        let suites = list(self.suites.as_ref(), context.facts.codename());
        let components = self.components.split().join(" ");
        let flat = suites.split(' ').all(|suite| suite.ends_with('/'));
        if flat != components.is_empty() {
            let message = if flat { "a suite that ends in `/` has no components" } else { "`components` is missing" };
            return Err(BuildError::field("components", message));
        }
        let fields = [
            ("Types", list(self.types.as_ref(), "deb")),
            ("URIs", self.uris.split().join(" ")),
            ("Suites", suites),
            ("Components", components),
            ("Architectures", list(self.architectures.as_ref(), context.facts.deb_architecture())),
            ("Signed-By", key.to_owned()),
        ];
        let mut text = "# Managed by soc-provision.\n".to_owned();
        for (name, value) in fields {
            if value.chars().any(char::is_control) {
                return Err(BuildError::from(format!("the repository's {name} contains control characters")));
            }
            if !value.is_empty() {
                text.extend([name, ": ", value.as_str(), "\n"]);
            }
        }
        Ok(text)
    }
}

/// A repository's files.
#[derive(Debug)]
struct RepositoryResource {
    name: String,
    files: Vec<ManagedFile>,
    gone: Vec<String>,
}

impl Resource for RepositoryResource {
    fn id(&self) -> ResourceId {
        ResourceId::new(Repository::NAME, &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let gone = self.gone.iter().cloned().map(Question::Path);
        self.files.iter().flat_map(ManagedFile::questions).chain(gone).collect()
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let mut plan = Plan::in_sync();
        for file in &self.files {
            let mut part = file.plan(view)?;
            for change in &mut part.changes {
                change.field = format!("{} {}", file.path, change.field);
            }
            plan = plan.and(part);
        }
        for path in &self.gone {
            plan = plan.and(remove_file(view, path)?);
        }
        Ok(if plan.is_in_sync() { plan } else { plan.effect(Effect::Raw(LISTS.to_owned())) })
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        self.files.iter().map(|file| Claim::Path(file.path.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::{Bench, absent};

    fn bench() -> Bench {
        let mut bench = Bench::default();
        bench.files.insert("example.asc".into(), include_bytes!("testdata/example.asc").to_vec());
        bench
    }

    #[test]
    fn a_key_that_is_not_the_pinned_one_is_refused_before_any_host_is_touched() {
        let bench = bench();
        assert!(bench.try_build(Repository::EXAMPLE).is_ok());
        let wrong = bench.try_build(&Repository::EXAMPLE.replace("2542", "2543")).unwrap_err();
        assert!(wrong.message.contains("25425FD940EDE3D542EB8894BAF6241CD56D828C"), "{wrong:?}");
        let unpinned = bench.try_build("repository: {name: x, uris: \"https://x\", components: main, signed_by: example.asc}").unwrap_err();
        assert!(unpinned.hint.unwrap().contains("25425FD940EDE3D542EB8894BAF6241CD56D828C"));
        let unsigned = bench.try_build("repository: {name: x, uris: \"https://x\", components: main}").unwrap_err();
        assert_eq!(unsigned.field.as_deref(), Some("signed_by"));
    }

    #[test]
    fn two_files_and_a_word_to_packages() {
        let bench = bench();
        let resource = bench.build(Repository::EXAMPLE);
        let plan = bench.plan(&*resource, &{
            let mut seen = absent(&*resource);
            let directory = crate::resource::observe::PathState {
                kind: crate::resource::observe::PathKind::Directory,
                mode: 0o755,
                owner: "root".into(),
                group: "root".into(),
                uid: 0,
                gid: 0,
                size: 0,
                target: None,
                names: 1,
                marks: Vec::new(),
            };
            seen.insert(Question::Path("/etc/apt/sources.list.d".into()), crate::resource::observe::Answer::Path(Some(directory)));
            seen
        });
        let plan = plan.unwrap();
        assert_eq!(plan.steps.len(), 2);
        assert!(plan.effects.contains(&Effect::Raw(LISTS.into())));
        assert!(plan.steps[1].script.shown().contains("Signed-By: /etc/apt/keyrings/example.asc"));
        assert!(plan.steps[1].script.shown().contains("Architectures: amd64"));
        let resource = bench.build("repository: {name: example, state: absent}");
        assert!(bench.plan(&*resource, &absent(&*resource)).unwrap().is_in_sync());
    }
}
