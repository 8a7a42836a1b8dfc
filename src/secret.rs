//! Secrets: their names, text with holes for them, and the one type that holds their values.
//!
//! Everything before the transport deals in [`Text`]: plain text with named holes. Only the
//! transport asks the [`Vault`] to fill the holes, while it writes a script to a shell's stdin.
//! Plans, events, logs and reports therefore cannot leak what they never held.

pub mod certificate;
pub mod login;
mod mask;

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use mask::Masker;

/// Shortest value that is accepted and masked, in characters (DESIGN 8.11): shorter ones would
/// turn ordinary output into rows of stars.
pub const MIN_SECRET_LEN: usize = 6;

/// Opens a hole in rendered text. Private-use code points cannot be typed by accident, and
/// templates that contain them are refused.
const OPEN: char = '\u{F8F0}';
/// Closes a hole in rendered text.
const CLOSE: char = '\u{F8F1}';
/// Parts the name of something that is made of a stored secret; no name that a user writes has it.
const MADE_OF: char = '\u{1F}';

/// The name of a secret, such as `db_password` or `waf/admin`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct SecretName(String);

impl SecretName {
    /// Takes a name of letters, digits, `_`, `-`, `.` and `/`.
    ///
    /// # Errors
    /// A sentence for the user if the name has another character or is empty.
    pub fn parse(name: &str) -> Result<Self, String> {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
        if name.is_empty() || !name.chars().all(fine) {
            return Err(format!("`{}` is not a secret's name: use letters, digits, `_`, `-`, `.`, `/`", name.escape_debug()));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name of something that is made of this secret on the controller whenever a host needs
    /// it, and is stored nowhere: `label` for people, `recipe` for whoever makes it.
    #[must_use]
    pub fn made(&self, label: &str, recipe: &str) -> Self {
        Self(format!("{}{MADE_OF}{label}{MADE_OF}{recipe}", self.0))
    }

    /// The stored secret, and the recipe if this name is of something made of it.
    #[must_use]
    pub fn origin(&self) -> (Self, Option<&str>) {
        match self.0.split_once(MADE_OF) {
            Some((stored, rest)) => (Self(stored.to_owned()), rest.split_once(MADE_OF).map(|(_, recipe)| recipe)),
            None => (self.clone(), None),
        }
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the `{{secret "x"}}` helper puts into rendered text; [`Text::parse`] finds it again.
    #[must_use]
    pub fn marker(&self) -> String {
        format!("{OPEN}{}{CLOSE}", self.0)
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split(MADE_OF).collect::<Vec<_>>()[..] {
            [stored, label, _] => write!(f, "{label} by {stored}"),
            _ => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Plain(String),
    Hole(SecretName),
}

/// Plain text with named holes where secrets belong.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text {
    parts: Vec<Part>,
}

impl Text {
    /// Text without secrets.
    #[must_use]
    pub fn plain(text: impl Into<String>) -> Self {
        Self { parts: vec![Part::Plain(text.into())] }
    }

    /// Text that is exactly one secret.
    #[must_use]
    pub fn secret(name: SecretName) -> Self {
        Self { parts: vec![Part::Hole(name)] }
    }

    /// This text and then another.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// Turns rendered text, with the markers that the `secret` helper left, into text with holes.
    #[must_use]
    pub fn parse(rendered: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = rendered;
        while let Some(open) = rest.find(OPEN) {
            let after = &rest[open + OPEN.len_utf8()..];
            let Some(close) = after.find(CLOSE) else { break };
            let Ok(name) = SecretName::parse(&after[..close]) else { break };
            if open > 0 {
                parts.push(Part::Plain(rest[..open].to_owned()));
            }
            parts.push(Part::Hole(name));
            rest = &after[close + CLOSE.len_utf8()..];
        }
        if !rest.is_empty() {
            parts.push(Part::Plain(rest.to_owned()));
        }
        Self { parts }
    }

    /// Whether rendered text contains a secret's marker.
    #[must_use]
    pub fn is_marked(rendered: &str) -> bool {
        rendered.contains(OPEN)
    }

    /// The text if it has no holes.
    #[must_use]
    pub fn as_plain(&self) -> Option<String> {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Plain(text) => Some(text.as_str()),
                Part::Hole(_) => None,
            })
            .collect()
    }

    /// Names of the secrets that belong into the text, each once, sorted. With a login goes its
    /// password, which the login tells and which must be masked.
    #[must_use]
    pub fn secrets(&self) -> Vec<SecretName> {
        let holes = self.parts.iter().filter_map(|part| match part {
            Part::Hole(name) => Some(name),
            Part::Plain(_) => None,
        });
        let with_password = |name: &SecretName| match name.origin() {
            (password, Some(recipe)) if login::user(recipe).is_some() => vec![name.clone(), password],
            _ => vec![name.clone()],
        };
        let mut names: Vec<_> = holes.flat_map(with_password).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Identifies what the text will be, without knowing the secrets: the SHA-256 of plain text;
    /// with holes, that of the text with each hole replaced by its secret's keyed digest (and by
    /// the recipe, if it is made of one).
    ///
    /// # Errors
    /// The name of a secret that has no keyed digest.
    pub fn fingerprint(&self, digests: &KeyedDigests) -> Result<Fingerprint, MissingSecret> {
        let mut hash = Sha256::new();
        for part in &self.parts {
            match part {
                Part::Plain(text) => hash.update(text.as_bytes()),
                Part::Hole(name) => {
                    let (stored, recipe) = name.origin();
                    let digest = digests.get(&stored).ok_or(MissingSecret(stored))?;
                    hash.update([0]);
                    hash.update(digest.as_bytes());
                    hash.update(recipe.unwrap_or_default().as_bytes());
                    hash.update([0]);
                }
            }
        }
        Ok(Fingerprint(hex(&hash.finalize())))
    }

    /// The parts for the vault and for rendering with names.
    fn render(&self, mut hole: impl FnMut(&SecretName) -> Option<Zeroizing<String>>) -> Result<Zeroizing<String>, MissingSecret> {
        let mut values = Vec::new();
        let mut len = 0;
        for part in &self.parts {
            let value = match part {
                Part::Plain(text) => Zeroizing::new(text.clone()),
                Part::Hole(name) => hole(name).ok_or_else(|| MissingSecret(name.clone()))?,
            };
            len += value.len();
            values.push(value);
        }
        // Sized up front: a growing string would leave copies behind that nobody zeroes.
        let mut out = Zeroizing::new(String::with_capacity(len));
        for value in &values {
            out.push_str(value);
        }
        Ok(out)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Plain(text) => f.write_str(text)?,
                Part::Hole(name) => write!(f, "[secret {name}]")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl<'de> serde::Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|rendered| Self::parse(&rendered))
    }
}

/// What a text will be once filled, as 64 hex digits; see [`Text::fingerprint`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The 64 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A secret that a text needs and nobody has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("secret `{0}` is not known")]
pub struct MissingSecret(pub SecretName);

/// HMAC-SHA-256 of each secret under the project's key, in hex: says whether a secret is the same
/// as another without saying what it is (DESIGN 8.11).
#[derive(Clone, Debug, Default)]
pub struct KeyedDigests(BTreeMap<SecretName, String>);

impl KeyedDigests {
    /// Records a secret's keyed digest.
    pub fn insert(&mut self, name: SecretName, digest: String) {
        self.0.insert(name, digest);
    }

    /// A secret's keyed digest, if there is one.
    #[must_use]
    pub fn get(&self, name: &SecretName) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &SecretName> {
        self.0.keys()
    }
}

/// The values of secrets: filled by `project/vault.rs`, read by `transport/` only (tidy checks).
#[derive(Default)]
pub struct Vault {
    values: BTreeMap<SecretName, Zeroizing<String>>,
}

impl Vault {
    /// Adds a secret.
    pub fn insert(&mut self, name: SecretName, value: Zeroizing<String>) {
        self.values.insert(name, value);
    }

    /// Whether the secret is known.
    #[must_use]
    pub fn contains(&self, name: &SecretName) -> bool {
        self.values.contains_key(name)
    }

    /// Fills a text's holes. For the transport only.
    ///
    /// # Errors
    /// The name of a secret that the vault does not hold.
    pub fn fill(&self, text: &Text) -> Result<Zeroizing<String>, MissingSecret> {
        text.render(|name| self.values.get(name).cloned())
    }

    /// A masker for the vault's present values.
    #[must_use]
    pub fn masker(&self) -> Masker {
        Masker::new(self.values.values().map(|value| value.as_str()))
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// Keeps this process's memory, which may come to hold secrets, out of core dumps and from other
/// processes of the same user. Called first thing; what the system refuses is not an error, since
/// nothing worse than the default follows.
pub fn harden_process() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Lower-case hex of bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// SHA-256 of bytes in hex.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(name: &str, value: &str) -> Vault {
        let mut vault = Vault::default();
        vault.insert(SecretName(name.into()), Zeroizing::new(value.into()));
        vault
    }

    #[test]
    fn holes_are_found_filled_and_never_shown() {
        let name = SecretName::parse("db").unwrap();
        let text = Text::parse(&format!("password={}\n", name.marker()));
        assert_eq!(text.to_string(), "password=[secret db]\n");
        assert_eq!(text.as_plain(), None);
        assert_eq!(&**vault("db", "pa'ss$(id)").fill(&text).unwrap(), "password=pa'ss$(id)\n");
        assert_eq!(Vault::default().fill(&text), Err(MissingSecret(name)));
    }

    #[test]
    fn a_fingerprint_of_plain_text_is_its_sha256() {
        assert_eq!(Text::plain("abc").fingerprint(&KeyedDigests::default()).unwrap().as_str(), sha256(b"abc"));
    }
}
