//! Reading YAML: text -> [`Node`], a tree in which every key and value knows where it stands.
//!
//! The only file that knows the YAML library. It decides what YAML means here: booleans are
//! Ansible's (plain `yes`, `no`, `on`, `off` count, `y` and `n` do not), `0644` stays text, a key
//! given twice is an error, aliases and merges work, and size and depth are bounded.

mod complaint;
mod raw;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Number;
use serde_yaml::Spanned;

use crate::diagnostic::{Diagnostic, Location};
use complaint::convert;
use raw::Raw;

/// Deepest nesting that is read; real projects stay under 20. The library needs 33 KiB of stack a
/// level in debug builds, and threads have 2 MiB.
const MAX_DEPTH: usize = 40;
/// Most values in a file, aliases expanded: what makes a YAML bomb harmless.
const MAX_NODES: usize = 250_000;
/// Largest file that is read, in bytes.
pub const MAX_BYTES: usize = 8 << 20;
/// What a value that `ansible-vault` encrypted starts with.
pub const VAULT_HEADER: &str = "$ANSIBLE_VAULT;";

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// The value.
    pub value: Val,
    /// Where it was written; for an alias, where its anchor is.
    pub at: Location,
}

/// A YAML value.
#[derive(Clone, Debug)]
pub enum Val {
    Null,
    Bool(bool),
    Number(Number),
    Str(Arc<str>),
    Seq(Vec<Node>),
    Map(Map),
}

/// A key with its place.
#[derive(Clone, Debug)]
pub struct Key {
    pub name: Arc<str>,
    pub at: Location,
}

/// A mapping, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Map {
    pub entries: Vec<(Key, Node)>,
}

impl Map {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, node)| node)
    }

    /// A key with its place, and its value.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<(&Key, &Node)> {
        self.entries.iter().find(|(key, _)| &*key.name == name).map(|(key, node)| (key, node))
    }

    /// All keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Node)> {
        self.entries.iter().map(|(key, node)| (key, node))
    }
}

impl Node {
    /// The mapping, if it is one.
    #[must_use]
    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Val::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The list, if it is one.
    #[must_use]
    pub fn as_seq(&self) -> Option<&[Node]> {
        match &self.value {
            Val::Seq(items) => Some(items),
            _ => None,
        }
    }

    /// The text, if it is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Val::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.value, Val::Null)
    }

    /// What sort of value it is, in words.
    #[must_use]
    pub fn sort(&self) -> &'static str {
        match &self.value {
            Val::Null => "nothing",
            Val::Bool(_) => "a boolean",
            Val::Number(_) => "a number",
            Val::Str(_) => "text",
            Val::Seq(_) => "a list",
            Val::Map(_) => "a mapping",
        }
    }

    /// As JSON, templates unrendered.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.value {
            Val::Null => Value::Null,
            Val::Bool(flag) => Value::Bool(*flag),
            Val::Number(number) => Value::Number(number.clone()),
            Val::Str(text) => Value::String(text.to_string()),
            Val::Seq(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Val::Map(map) => Value::Object(map.iter().map(|(key, node)| (key.name.to_string(), node.to_json())).collect()),
        }
    }

    /// A tree from JSON, every part of it at one place.
    #[must_use]
    pub fn from_json(json: &serde_json::Value, at: &Location) -> Self {
        use serde_json::Value;
        let value = match json {
            Value::Null => Val::Null,
            Value::Bool(flag) => Val::Bool(*flag),
            Value::Number(number) => Val::Number(number.clone()),
            Value::String(text) => Val::Str(text.as_str().into()),
            Value::Array(items) => Val::Seq(items.iter().map(|item| Self::from_json(item, at)).collect()),
            Value::Object(map) => Val::Map(Map {
                entries: map
                    .iter()
                    .map(|(name, item)| (Key { name: name.as_str().into(), at: at.clone() }, Self::from_json(item, at)))
                    .collect(),
            }),
        };
        Self { value, at: at.clone() }
    }
}

/// Reads one YAML document. An empty one is [`Val::Null`].
///
/// # Errors
/// What is wrong with it, with its place; a document has at most one such error.
pub fn parse(text: &str, file: &Arc<PathBuf>) -> Result<Node, Diagnostic> {
    let start = Location { file: Arc::clone(file), line: 1, column: 1, length: 1 };
    if text.len() > MAX_BYTES {
        return Err(Diagnostic::error(format!("the file is larger than {} MiB", MAX_BYTES >> 20)).at(start));
    }
    if let Some(found) = text.char_indices().find(|&(_, c)| is_reserved(c)) {
        return Err(Diagnostic::error(format!("character `{}` is reserved", found.1.escape_unicode())).at(place(text, found.0, file)));
    }
    if text.trim_start().starts_with(VAULT_HEADER) {
        return Err(vault_file(start));
    }
    match read(text) {
        Ok(raw) => Ok(lower(raw, text, file)),
        Err(error) => match blank_vault_tags(text) {
            // Only tags differ, and blanks stand in their place: all positions stay.
            Some(blanked) if is_tag_error(&error) => {
                read(&blanked).map(|raw| lower(raw, text, file)).map_err(|error| convert(&error, text, file))
            }
            _ => Err(convert(&error, text, file)),
        },
    }
}

/// Code points that stand for holes and omitted fields in rendered text; see `secret.rs`.
#[must_use]
pub fn is_reserved(c: char) -> bool {
    ('\u{F8F0}'..='\u{F8F7}').contains(&c)
}

/// The message for a file that `ansible-vault` encrypted.
fn vault_file(at: Location) -> Diagnostic {
    let name = at.file.display().to_string();
    Diagnostic::error("the file is encrypted with ansible-vault").at(at).hint(format!(
        "run `ansible-vault decrypt {name}`, move each secret with `soc-provision secrets set NAME`, and write `{{{{secret \"NAME\"}}}}` in its place"
    ))
}

/// The advice for a value that `ansible-vault` encrypted.
pub const VAULT_HINT: &str = "run `ansible-vault decrypt` (or `ansible localhost -m debug -a var=NAME`), then `soc-provision secrets set NAME`, and write `{{secret \"NAME\"}}` here";

fn read(text: &str) -> Result<Spanned<Raw>, serde_yaml::Error> {
    let options = serde_yaml::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        with_snippet: false,
        budget: serde_yaml::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES },
    };
    serde_yaml::from_str_with_options(text, options)
}

fn is_tag_error(error: &serde_yaml::Error) -> bool {
    error.without_snippet().to_string().contains("tag")
}

/// The text with each `!vault` tag replaced by blanks, if there is one.
fn blank_vault_tags(text: &str) -> Option<String> {
    const TAG: &str = "!vault";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut found = false;
    while let Some(at) = rest.find(TAG) {
        let (before, after) = (&rest[..at], &rest[at + TAG.len()..]);
        out.push_str(before);
        let is_tag = before.ends_with([' ', '\t']) && after.starts_with([' ', '\n', '\r']);
        if is_tag {
            found = true;
            out.push_str("      ");
        } else {
            out.push_str(TAG);
        }
        rest = after;
    }
    out.push_str(rest);
    found.then_some(out)
}

/// The place of a byte of the text.
fn place(text: &str, byte: usize, file: &Arc<PathBuf>) -> Location {
    let before = &text[..byte];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Location { file: Arc::clone(file), line: to_u32(line), column: to_u32(column), length: 1 }
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn located(location: serde_yaml::Location, file: &Arc<PathBuf>) -> Location {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Location {
        file: Arc::clone(file),
        line: number(location.line()).max(1),
        column: number(location.column()).max(1),
        length: number(location.span().len()).max(1),
    }
}

fn lower(raw: Spanned<Raw>, text: &str, file: &Arc<PathBuf>) -> Node {
    let mut at = located(raw.defined, file);
    let value = match raw.value {
        Raw::Null => Val::Null,
        Raw::Bool(flag) => Val::Bool(flag),
        Raw::Number(number) => Val::Number(number),
        Raw::Str(word) => match plain_boolean(&word, raw.defined, text) {
            Some(flag) => Val::Bool(flag),
            None => Val::Str(word.into()),
        },
        Raw::Seq(items) => {
            at.length = 1;
            Val::Seq(items.into_iter().map(|item| lower(item, text, file)).collect())
        }
        Raw::Map(entries) => {
            at.length = 1;
            let entries = entries
                .into_iter()
                .map(|(key, node)| (Key { name: key.value.into(), at: located(key.defined, file) }, lower(node, text, file)))
                .collect();
            Val::Map(Map { entries })
        }
    };
    Node { value, at }
}

/// PyYAML's booleans besides `true` and `false`, if they stand there without quotes.
fn plain_boolean(word: &str, location: serde_yaml::Location, text: &str) -> Option<bool> {
    let flag = match word {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => true,
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => false,
        _ => return None,
    };
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    text.get(start..)?.starts_with(word).then_some(flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<PathBuf> {
        Arc::new(PathBuf::from("x.yml"))
    }

    fn problem(text: &str) -> (String, u32, u32) {
        let diagnostic = parse(text, &file()).unwrap_err();
        let at = diagnostic.location.unwrap();
        (diagnostic.message, at.line, at.column)
    }

    #[test]
    fn values_mean_what_they_mean_to_ansible() {
        let text = "a: yes\nb: 'yes'\nc: y\nd: 0644\ne: 1_000\nf: 12\ng: 1.5\nh: ~\ni: off\nj: |\n  yes\n";
        let node = parse(text, &file()).unwrap();
        let expected = serde_json::json!({
            "a": true, "b": "yes", "c": "y", "d": "0644", "e": "1_000", "f": 12, "g": 1.5, "h": null, "i": false, "j": "yes\n"
        });
        assert_eq!(node.to_json(), expected);
    }

    #[test]
    fn every_key_and_value_has_its_place() {
        let node = parse("# é\na:\n  - b: 'ü'\n    c: [1, 2]\n", &file()).unwrap();
        let item = &node.as_map().unwrap().get("a").unwrap().as_seq().unwrap()[0];
        let (key, value) = item.as_map().unwrap().entry("c").unwrap();
        assert_eq!((key.at.line, key.at.column, key.at.length), (4, 5, 1));
        let second = &value.as_seq().unwrap()[1];
        assert_eq!((second.at.line, second.at.column), (4, 12));
    }

    #[test]
    fn aliases_and_merges_are_expanded() {
        let node = parse("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n", &file()).unwrap();
        assert_eq!(node.to_json()["use"], serde_json::json!({"y": 3, "x": 1}));
    }

    #[test]
    fn a_key_given_twice_is_an_error_at_the_second() {
        assert_eq!(problem("a: 1\nb: 2\na: 3\n"), ("key `a` is given twice".to_owned(), 3, 1));
    }

    #[test]
    fn bombs_and_depth_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let list = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        assert!(problem(&bomb).0.contains("too deep or too large"), "{:?}", problem(&bomb));
        let deep = "[".repeat(20_000);
        assert!(problem(&deep).0.contains("too deep"), "{:?}", problem(&deep));
        let block: String = (0..200).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert!(problem(&block).0.contains("too deep"), "{:?}", problem(&block));
    }

    #[test]
    fn vault_values_load_and_vault_files_do_not() {
        let node = parse("a: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  3132\nb: 1\n", &file()).unwrap();
        assert!(node.as_map().unwrap().get("a").unwrap().as_str().unwrap().starts_with(VAULT_HEADER));
        assert_eq!(node.as_map().unwrap().get("b").unwrap().at.line, 4);
        let diagnostic = parse("$ANSIBLE_VAULT;1.1;AES256\n3132\n", &file()).unwrap_err();
        assert!(diagnostic.hint.unwrap().contains("soc-provision secrets set"));
    }

    #[test]
    fn usual_mistakes_get_their_reason() {
        let unquoted = parse("a: {{ b }}\nc: d\n", &file()).map(|node| node.to_json());
        if let Err(diagnostic) = &unquoted {
            assert!(diagnostic.hint.as_deref().unwrap_or_default().contains("quoted"), "{diagnostic:?}");
        } else {
            panic!("{unquoted:?}");
        }
        let tab = parse("a:\n\tb: 1\n", &file()).unwrap_err();
        assert!(tab.hint.unwrap().contains("tabs"));
        let tag = parse("a: !unsafe 'x'\n", &file()).unwrap_err();
        assert!(tag.message.contains("tag"), "{tag:?}");
        assert!(parse("a: \u{F8F0}x\n", &file()).unwrap_err().message.contains("reserved"));
        assert_eq!(problem("a: [1\nb: 2\n").1, 2);
    }

    #[test]
    fn an_empty_file_is_nothing() {
        assert!(parse("# only a comment\n", &file()).unwrap().is_null());
        assert!(parse("---\n", &file()).unwrap().is_null());
    }
}
