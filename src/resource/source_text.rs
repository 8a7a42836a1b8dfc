//! The text of a policy file, from one of `content`, `src` and `template`.
//!
//! It owns the choice between the three; the role's files and templates are looked up by [`Sources`].

use crate::resource::{BuildError, Sources};

/// The text, from whichever of the three is given.
///
/// # Errors
/// If not exactly one is given, if it cannot be read, is not UTF-8, or holds a secret.
pub(super) fn text(
    content: Option<String>,
    src: Option<&str>,
    template: Option<&str>,
    sources: &dyn Sources,
) -> Result<String, BuildError> {
    match (content, src, template) {
        (Some(content), None, None) => Ok(content),
        (None, Some(src), None) => {
            let bytes = sources.file(src).map_err(|message| BuildError::field("src", message))?;
            String::from_utf8(bytes).map_err(|_| BuildError::field("src", format!("`{src}` is not UTF-8 text")))
        }
        (None, None, Some(template)) => {
            let text = sources.template(template).map_err(|message| BuildError::field("template", message))?;
            text.as_plain()
                .ok_or_else(|| BuildError::field("template", format!("`{template}` holds a secret, which does not belong into a policy")))
        }
        (None, None, None) => Err(BuildError::from("none of `content`, `src` and `template` is given".to_owned())),
        _ => Err(BuildError::from("only one of `content`, `src` and `template` may be given".to_owned())),
    }
}

/// Checks a name that becomes a file's name: letters, digits, `_` and `-`, no more than 64.
///
/// # Errors
/// A sentence about the field `name`.
pub(super) fn file_name(name: &str) -> Result<(), BuildError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || name.len() > 64 || name.starts_with('-') || !name.chars().all(fine) {
        return Err(BuildError::field(
            "name",
            format!("`{}` cannot be the name of a file here: use letters, digits, `_`, `-`", name.escape_debug()),
        ));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod testing {
    //! Building a kind in tests.

    use crate::facts::Facts;
    use crate::resource::{BuildContext, BuildError, Kind, KindEntry, Resource, Sources};
    use crate::secret::Text;

    /// A role without files.
    pub(in crate::resource) struct NoSources;

    impl Sources for NoSources {
        fn file(&self, name: &str) -> Result<Vec<u8>, String> {
            Err(format!("no file `{name}`"))
        }
        fn file_path(&self, name: &str) -> Result<std::path::PathBuf, String> {
            Err(format!("no file `{name}`"))
        }
        fn tree(&self, name: &str) -> Result<Vec<String>, String> {
            Err(format!("no file `{name}`"))
        }
        fn template(&self, name: &str) -> Result<Text, String> {
            Err(format!("no template `{name}`"))
        }
    }

    /// The first resource of a task with these arguments.
    pub(in crate::resource) fn build<K: Kind>(arguments: serde_json::Value) -> Result<Box<dyn Resource>, BuildError> {
        let facts = Facts::placeholder("h");
        let context = BuildContext { facts: &facts, sources: &NoSources, host: "h", role: None, become_user: None };
        (KindEntry::of::<K>().decode)(arguments, &context).map(|mut list| list.remove(0))
    }

    /// The sentences of a refusal to build.
    pub(in crate::resource) fn refusal<K: Kind>(arguments: serde_json::Value) -> String {
        let error = build::<K>(arguments).err().map(|error| format!("{}: {}", error.field.unwrap_or_default(), error.message));
        error.unwrap_or_else(|| panic!("must be refused"))
    }
}

#[cfg(test)]
mod tests {
    use super::testing::NoSources;
    use super::*;

    #[test]
    fn exactly_one_source_is_taken() {
        assert_eq!(text(Some("x".into()), None, None, &NoSources).unwrap(), "x");
        assert!(text(Some("x".into()), Some("y"), None, &NoSources).unwrap_err().message.contains("only one"));
        assert!(text(None, None, None, &NoSources).unwrap_err().message.contains("none of"));
        assert_eq!(text(None, Some("y"), None, &NoSources).unwrap_err().field.as_deref(), Some("src"));
    }

    #[test]
    fn names_stay_in_their_directory() {
        assert!(file_name("docker-waf").is_ok());
        for bad in ["", "../x", "a b", ".x", "-r", "a/b"] {
            assert!(file_name(bad).is_err(), "{bad}");
        }
    }
}
