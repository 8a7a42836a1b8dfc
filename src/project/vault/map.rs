//! `*.yml.age` once decrypted: a map of names to values, read strictly and edited in place.
//!
//! Values must be text, so that `0123` or `yes` is never turned into something else in silence. The
//! YAML reader's error texts quote the input and are therefore never shown, only their place.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use crate::secret::{MIN_SECRET_LEN, SecretName};

/// Names and values of one file.
pub(super) type Values = BTreeMap<SecretName, Zeroizing<String>>;

/// What a key stands for.
enum Node {
    Text(Zeroizing<String>),
    Map(Vec<(String, Node)>),
    Other(&'static str),
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of names to values")
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(Zeroizing::new(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(Zeroizing::new(value)))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Other("true or false"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Other("a number"))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other("nothing"))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Other("nothing"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        while seq.next_element::<Node>()?.is_some() {}
        Ok(Node::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry::<String, Node>()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

impl<'de> serde::Deserialize<'de> for Node {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

/// Reads a file's names and values. Nested maps make names with `/`.
///
/// # Errors
/// Each thing wrong, in a sentence without any value.
pub(super) fn parse(text: &str) -> Result<Values, Vec<String>> {
    let root: Option<Node> = serde_yaml::from_str(text).map_err(|error| {
        vec![match error.location() {
            Some(place) => format!("line {}, column {}: not valid YAML, or a name that stands twice", place.line(), place.column()),
            None => "not valid YAML, or a name that stands twice".to_owned(),
        }]
    })?;
    let mut values = Values::new();
    let mut errors = Vec::new();
    match root {
        None | Some(Node::Other("nothing")) => {}
        Some(Node::Map(entries)) => flatten("", entries, &mut values, &mut errors),
        Some(Node::Text(_) | Node::Other(_)) => errors.push("must be a map of names to values".to_owned()),
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}

fn flatten(prefix: &str, entries: Vec<(String, Node)>, values: &mut Values, errors: &mut Vec<String>) {
    for (key, node) in entries {
        let full = if prefix.is_empty() { key } else { format!("{prefix}/{key}") };
        match (SecretName::parse(&full), node) {
            (_, Node::Map(inner)) => flatten(&full, inner, values, errors),
            (Err(reason), _) => errors.push(reason),
            (Ok(name), Node::Other(what)) => errors.push(format!("the value of `{name}` is {what}: write it in quotes")),
            (Ok(name), Node::Text(_)) if values.contains_key(&name) => errors.push(format!("`{name}` stands twice")),
            (Ok(name), Node::Text(value)) => {
                values.insert(name, value);
            }
        }
    }
}

/// Whether a value is long enough to be masked; see [`MIN_SECRET_LEN`].
pub(super) fn is_long_enough(value: &str) -> bool {
    value.trim_end_matches('\n').chars().count() >= MIN_SECRET_LEN
}

/// The text with one value set: only its own lines change where the file's shape allows it, so
/// that comments and order stay; otherwise the whole map is written anew, flat and sorted.
///
/// # Errors
/// As [`parse`], of the text as it was.
pub(super) fn with_value(text: &str, name: &SecretName, value: &str) -> Result<Zeroizing<String>, Vec<String>> {
    let mut wanted = parse(text)?;
    wanted.insert(name.clone(), Zeroizing::new(value.to_owned()));
    for entry in [block_entry(name, value), quoted_entry(name, value)].into_iter().flatten() {
        let edited = splice(text, name, &entry);
        if parse(&edited).is_ok_and(|found| found == wanted) {
            return Ok(edited);
        }
    }
    let entries: Vec<_> = wanted.iter().filter_map(|(name, value)| quoted_entry(name, value)).collect();
    let mut out = Zeroizing::new(String::with_capacity(entries.iter().map(|entry| entry.len()).sum()));
    for entry in &entries {
        out.push_str(entry);
    }
    match parse(&out) {
        Ok(found) if found == wanted => Ok(out),
        _ => Err(vec![format!("the value of `{name}` has characters that YAML cannot hold; store it as a file of its own")]),
    }
}

/// `name: "value"`.
fn quoted_entry(name: &SecretName, value: &str) -> Option<Zeroizing<String>> {
    let quoted = Zeroizing::new(serde_json::to_string(value).ok()?);
    Some(Zeroizing::new(format!("{}: {}\n", key(name), &**quoted)))
}

/// `name: |` and the lines, for keys and certificates.
fn block_entry(name: &SecretName, value: &str) -> Option<Zeroizing<String>> {
    let body = value.strip_suffix('\n')?;
    if !body.contains('\n') || body.starts_with([' ', '\n']) || body.ends_with('\n') || body.contains(|c: char| c.is_control() && c != '\n')
    {
        return None;
    }
    let mut out = Zeroizing::new(String::with_capacity(value.len() * 2 + 64));
    out.push_str(&key(name));
    out.push_str(": |\n");
    for line in body.split('\n') {
        if !line.is_empty() {
            out.push_str("  ");
            out.push_str(line);
        }
        out.push('\n');
    }
    Some(out)
}

/// A name as a YAML key: quoted unless it cannot be taken for anything but text.
fn key(name: &SecretName) -> String {
    let text = name.as_str();
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n");
    if plain { text.to_owned() } else { format!("\"{text}\"") }
}

/// Replaces the top-level entry of the name, or appends it.
fn splice(text: &str, name: &SecretName, entry: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(text.len() + entry.len() + 1));
    let starts = |line: &str| {
        [name.as_str().to_owned(), format!("\"{name}\""), format!("'{name}'")]
            .iter()
            .any(|key| line.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with(':')))
    };
    let mut replaced = false;
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        if inside && (line.starts_with([' ', '\t']) || line.trim().is_empty()) {
            // A blank line ends a plain value but may be part of a block; the caller compares.
            continue;
        }
        inside = !replaced && starts(line);
        if inside {
            out.push_str(entry);
            replaced = true;
        } else {
            out.push_str(line);
        }
    }
    if !replaced {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        out.push_str(entry);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SecretName {
        SecretName::parse(text).unwrap()
    }

    #[test]
    fn nested_maps_make_names_and_only_text_is_a_value() {
        let values = parse("a: 'first one'\nwaf:\n  admin: second one\nwaf2/x: third one\n").unwrap();
        assert_eq!(values.keys().map(SecretName::as_str).collect::<Vec<_>>(), ["a", "waf/admin", "waf2/x"]);
        let errors = parse("a: 12345678\nb: [x]\nc: true\n'd e': something\nf:\n").unwrap_err();
        assert_eq!(errors.len(), 5, "{errors:?}");
        assert!(errors[0].contains("`a` is a number"), "{errors:?}");
        assert!(parse("").unwrap().is_empty());
        assert!(parse("# only a comment\n").unwrap().is_empty());
    }

    #[test]
    fn errors_never_quote_the_input() {
        for text in ["a: hunter2hunter2\na: hunter2hunter2\n", "hunter2hunter2", "a: 'hunter2hunter2\nb: [", "\t- hunter2hunter2: {"] {
            let errors = parse(text).unwrap_err();
            assert!(!errors.concat().contains("hunter2"), "{errors:?}");
        }
    }

    #[test]
    fn one_value_is_set_and_the_rest_stays() {
        let text = "# databases\ndb: |\n  line one\n\n  line three\n\n# web\nweb: \"old value\" # why\n";
        let edited = with_value(text, &name("db"), "new value").unwrap();
        assert_eq!(&**edited, "# databases\ndb: \"new value\"\n# web\nweb: \"old value\" # why\n");
        let pem = "-----BEGIN X-----\nabc\n-----END X-----\n";
        let edited = with_value(text, &name("key"), pem).unwrap();
        assert!(edited.ends_with("# why\nkey: |\n  -----BEGIN X-----\n  abc\n  -----END X-----\n"), "{}", &**edited);
        let nested = with_value("waf:\n  admin: 'old one'\n  other: 'kept one'\n", &name("waf/admin"), "new: \"one\" \u{e9}").unwrap();
        assert_eq!(parse(&nested).unwrap()[&name("waf/admin")].as_str(), "new: \"one\" \u{e9}");
        assert_eq!(parse(&nested).unwrap()[&name("waf/other")].as_str(), "kept one");
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives(value in "\\PC{6,40}", other in "[ -~\n]{6,40}") {
            let text = with_value("", &name("a"), &value).unwrap();
            let text = with_value(&text, &name("b.c/d"), &other).unwrap();
            let values = parse(&text).unwrap();
            proptest::prop_assert_eq!(values[&name("a")].as_str(), value);
            proptest::prop_assert_eq!(values[&name("b.c/d")].as_str(), other);
        }
    }
}
