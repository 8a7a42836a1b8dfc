//! Ansible's arguments on one line: `copy: src=a dest=b`, `command: make creates=/x`.

use std::sync::Arc;

use super::source::{Key, Map, Node, Val};
use crate::diagnostic::Location;

/// What `command` takes out of the line it runs.
const OF_COMMAND: &[&str] = &["creates", "removes", "chdir", "stdin"];

/// The arguments of a module as a mapping, if they are written as `name=value` words; for
/// `command` those of its own words that are. `None` where the text is something else.
pub(super) fn spread(module: &str, node: &Node) -> Option<Node> {
    let text = node.as_str()?;
    let words = words(text)?;
    let pairs: Vec<(&Word, &str, &str)> =
        words.iter().filter_map(|word| pair(word.text(text)).map(|(name, value)| (word, name, value))).collect();
    let command = module == "command";
    let own: Vec<&(&Word, &str, &str)> = pairs.iter().filter(|(_, name, _)| !command || OF_COMMAND.contains(name)).collect();
    if own.is_empty() || (!command && own.len() != words.len()) {
        return None;
    }
    let shift = u32::from(node.at.length as usize == text.chars().count() + 2);
    let at = |byte: usize, length: usize| Location {
        column: node.at.column + shift + count(&text[..byte]),
        length: count(&text[byte..byte + length]).max(1),
        ..node.at.clone()
    };
    let mut entries = Vec::new();
    if command {
        let rest = without(text, &own);
        if !rest.is_empty() {
            entries.push((Key { name: "cmd".into(), at: node.at.clone() }, Node { value: Val::Str(rest.into()), at: node.at.clone() }));
        }
    }
    for (word, name, value) in own {
        let key = Key { name: Arc::from(*name), at: at(word.start, name.len()) };
        let value = Node { value: Val::Str(unquoted(value).into()), at: at(word.start + name.len() + 1, value.len()) };
        entries.push((key, value));
    }
    Some(Node { value: Val::Map(Map { entries }), at: node.at.clone() })
}

/// The text without some of its words.
fn without(text: &str, gone: &[&(&Word, &str, &str)]) -> String {
    let mut out = String::new();
    let mut from = 0;
    for (word, _, _) in gone {
        out.push_str(&text[from..word.start]);
        from = word.end;
    }
    out.push_str(&text[from..]);
    out.trim().to_owned()
}

fn count(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

struct Word {
    start: usize,
    end: usize,
}

impl Word {
    fn text<'a>(&self, whole: &'a str) -> &'a str {
        &whole[self.start..self.end]
    }
}

/// Words separated by blanks; quotes and `{{...}}` hold together. `None` if one is not closed.
fn words(text: &str) -> Option<Vec<Word>> {
    let mut out = Vec::new();
    let (mut start, mut quote, mut braces) = (None, None, 0_u32);
    let bytes = text.as_bytes();
    for (index, c) in text.char_indices() {
        if c.is_whitespace() && quote.is_none() && braces == 0 {
            if let Some(start) = start.take() {
                out.push(Word { start, end: index });
            }
            continue;
        }
        start.get_or_insert(index);
        match c {
            '{' if bytes.get(index + 1) == Some(&b'{') => braces += 1,
            '}' if bytes.get(index + 1) == Some(&b'}') => braces = braces.saturating_sub(1),
            '"' | '\'' if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() && braces == 0 => quote = Some(c),
            _ => {}
        }
    }
    if quote.is_some() || braces > 0 {
        return None;
    }
    out.extend(start.map(|start| Word { start, end: text.len() }));
    Some(out)
}

/// `name=value`, where the name could be an argument's.
fn pair(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let fine = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    fine.then_some((name, value))
}

fn unquoted(value: &str) -> &str {
    let inner = |mark: char| value.strip_prefix(mark).and_then(|value| value.strip_suffix(mark));
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn spread_of(module: &str, text: &str) -> Option<serde_json::Value> {
        let at = Location { file: Arc::new(PathBuf::from("x.yml")), line: 3, column: 9, length: count(text) };
        spread(module, &Node { value: Val::Str(text.into()), at }).map(|node| node.to_json())
    }

    #[test]
    fn words_with_names_are_arguments() {
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(spread_of("copy", "src=a dest=/b mode=0644").unwrap(), json(r#"{"src": "a", "dest": "/b", "mode": "0644"}"#));
        assert_eq!(spread_of("debug", "msg=\"hello {{ a }}\"").unwrap(), json(r#"{"msg": "hello {{ a }}"}"#));
        assert_eq!(spread_of("package", "name={{ pkg }} state=present").unwrap(), json(r#"{"name": "{{ pkg }}", "state": "present"}"#));
        assert_eq!(
            spread_of("command", "make -C 'a b' X=1 creates=/x chdir=/src").unwrap(),
            json(r#"{"cmd": "make -C 'a b' X=1", "creates": "/x", "chdir": "/src"}"#)
        );
        for (module, text) in [("package", "nginx"), ("command", "env A=b true"), ("copy", "src=a dest"), ("debug", "msg='open")] {
            assert!(spread_of(module, text).is_none(), "{text}");
        }
    }

    #[test]
    fn each_word_has_its_place() {
        let at = Location { file: Arc::new(PathBuf::from("x.yml")), line: 3, column: 9, length: 12 };
        let node = spread("copy", &Node { value: Val::Str("src=a dset=b".into()), at }).unwrap();
        let (key, value) = node.as_map().unwrap().entry("dset").unwrap();
        assert_eq!((key.at.column, key.at.length, value.at.column), (15, 4, 20));
    }
}
