//! Types of arguments that several kinds share, and checks of names.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::resource::BuildError;

/// Permission bits: octal digits in quotes, as `chmod` takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Octal;
        impl Visitor<'_> for Octal {
            type Value = FileMode;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("octal digits in quotes, as in \"0644\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<FileMode, E> {
                let fine = (3..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
                let mode = u32::from_str_radix(text, 8).ok().filter(|_| fine);
                mode.map(FileMode).ok_or_else(|| E::custom(format!("`{text}` is not a mode: write octal digits in quotes, as in \"0644\"")))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<FileMode, E> {
                Err(E::custom(format!("the mode is the number {number}, which YAML may have changed: put it in quotes, as in \"0644\"")))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<FileMode, E> {
                self.visit_u64(number.unsigned_abs())
            }
        }
        deserializer.deserialize_any(Octal)
    }
}

impl JsonSchema for FileMode {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "FileMode".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-7]{3,4}$" })
    }
}

/// A user or group: a name, or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account(pub String);

impl Account {
    /// The superuser, or its group.
    #[must_use]
    pub fn root() -> Self {
        Self("root".to_owned())
    }

    /// Whether this is the one with the name and the number.
    #[must_use]
    pub fn is(&self, name: &str, number: u32) -> bool {
        self.0 == name || self.0.parse() == Ok(number)
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Named;
        impl Visitor<'_> for Named {
            type Value = Account;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name or a number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Account, E> {
                check_account(text).map_err(E::custom)?;
                Ok(Account(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Account, E> {
                Ok(Account(number.to_string()))
            }
        }
        deserializer.deserialize_any(Named)
    }
}

impl JsonSchema for Account {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Account".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"] })
    }
}

/// Whether something is to be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// To be there.
    #[default]
    Present,
    /// To be gone.
    Absent,
}

/// What to do on a host whose kernel has not what a resource needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IfMissing {
    /// Refuse it.
    #[default]
    Fail,
    /// Say so and go on.
    Warn,
}

/// Seconds that a host waits for the confirming login of a guarded change before it puts the old
/// state back (DESIGN 8.1).
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct GuardTimeout(u64);

impl Default for GuardTimeout {
    fn default() -> Self {
        Self(60)
    }
}

impl GuardTimeout {
    /// The window.
    ///
    /// # Errors
    /// It is shorter than a login takes, or longer than anybody would stay locked out.
    pub fn window(self) -> Result<Duration, BuildError> {
        let fine = (10..=3600).contains(&self.0);
        fine.then(|| Duration::from_secs(self.0)).ok_or_else(|| BuildError::field("guard_timeout", "must be from 10 to 3600 seconds"))
    }
}

/// One string or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Words;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Words, E> {
                Ok(Words(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element()? {
                    words.push(word);
                }
                Ok(Words(words))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl Words {
    /// The words with those that hold several, separated by commas or blanks, taken apart.
    #[must_use]
    pub fn split(&self) -> Vec<String> {
        self.0.iter().flat_map(|word| word.split([',', ' ', '\n'])).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }
}

impl JsonSchema for Words {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Words".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "array"], "items": { "type": "string" } })
    }
}

/// Checks a path on a host, and takes off slashes at its end.
///
/// # Errors
/// A sentence if it is not absolute, has `..` in it or has control characters.
pub fn absolute(field: &str, path: &str) -> Result<String, BuildError> {
    let plain = path.trim_end_matches('/');
    let plain = if plain.is_empty() && path.starts_with('/') { "/" } else { plain };
    if !plain.starts_with('/') {
        return Err(BuildError::field(field, format!("`{}` is not an absolute path", path.escape_debug())));
    }
    if plain.split('/').any(|part| part == ".." || part == ".") || plain.contains("//") || plain.chars().any(char::is_control) {
        return Err(BuildError::field(field, format!("`{}` is not a plain path", path.escape_debug()))
            .hint("leave out `.`, `..`, doubled slashes and control characters"));
    }
    Ok(plain.to_owned())
}

/// The directory that a path is in.
#[must_use]
pub fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// Checks a name against the characters that it may have.
///
/// # Errors
/// A sentence that says what it is not the name of.
pub fn check_name(field: &str, what: &str, name: &str, more: &str) -> Result<(), BuildError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
    if name.is_empty() || name.starts_with('-') || !name.chars().all(fine) {
        return Err(BuildError::field(field, format!("`{}` is not the name of a {what}", name.escape_debug()))
            .hint(format!("use letters, digits and any of `{more}`")));
    }
    Ok(())
}

/// Checks a user's or a group's name.
///
/// # Errors
/// A sentence.
pub fn check_account(name: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_-.$".contains(c);
    if name.is_empty() || name.len() > 32 || name.starts_with('-') || !name.chars().all(fine) {
        return Err(format!("`{}` is not the name of a user or group", name.escape_debug()));
    }
    Ok(())
}

/// A mode as people read it.
#[must_use]
pub fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_digits_in_quotes() {
        let read = |value: serde_json::Value| serde_json::from_value::<FileMode>(value);
        assert_eq!(read("0644".into()).unwrap(), FileMode(0o644));
        assert_eq!(read("4755".into()).unwrap(), FileMode(0o4755));
        assert!(read(644.into()).unwrap_err().to_string().contains("put it in quotes"));
        assert!(read("u=rw".into()).is_err());
        assert!(read("0o644".into()).is_err());
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        assert_eq!(absolute("path", "/etc/x/").unwrap(), "/etc/x");
        assert_eq!(absolute("path", "/").unwrap(), "/");
        for wrong in ["etc/x", "/etc/../x", "/etc//x", "/a\nb", ""] {
            assert!(absolute("path", wrong).is_err(), "{wrong}");
        }
        assert_eq!((parent("/etc/x"), parent("/x")), ("/etc", "/"));
    }
}
