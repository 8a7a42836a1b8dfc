//! Tools for lowering a tree into types: every getter reports what it cannot use, with its place,
//! and goes on, so that one run finds all problems.

use super::source::{Map, Node, Val};
use crate::diagnostic::{Diagnostic, Level, Location, nearest};

/// Problems found so far.
#[derive(Debug, Default)]
pub struct Problems {
    list: Vec<Diagnostic>,
}

impl Problems {
    /// Records a problem, once.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if !self.list.contains(&diagnostic) {
            self.list.push(diagnostic);
        }
    }

    /// Records several.
    pub fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        for diagnostic in diagnostics {
            self.push(diagnostic);
        }
    }

    /// Records an error at a place.
    pub fn error(&mut self, at: &Location, message: impl Into<String>) {
        self.push(Diagnostic::error(message).at(at.clone()));
    }

    /// Records an error at a place, with advice.
    pub fn error_hint(&mut self, at: &Location, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Diagnostic::error(message).at(at.clone()).hint(hint));
    }

    /// Keeps the value, or records why there is none.
    pub fn keep<T>(&mut self, result: Result<T, Diagnostic>) -> Option<T> {
        result.map_err(|diagnostic| self.push(diagnostic)).ok()
    }

    /// Whether one of them is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.level == Level::Error)
    }

    /// All of them.
    #[must_use]
    pub fn into_vec(self) -> Vec<Diagnostic> {
        self.list
    }

    /// A mapping; nothing at all counts as an empty one.
    pub fn map<'a>(&mut self, node: &'a Node, what: &str) -> Option<&'a Map> {
        match &node.value {
            Val::Map(map) => Some(map),
            Val::Null => None,
            _ => {
                self.error(&node.at, format!("{what} must be a mapping, not {}", node.sort()));
                None
            }
        }
    }

    /// A list; nothing at all counts as an empty one.
    pub fn seq<'a>(&mut self, node: &'a Node, what: &str) -> &'a [Node] {
        match &node.value {
            Val::Seq(items) => items,
            Val::Null => &[],
            _ => {
                self.error(&node.at, format!("{what} must be a list, not {}", node.sort()));
                &[]
            }
        }
    }

    /// Text or a number.
    pub fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.value {
            Val::Str(text) => Some(text.to_string()),
            Val::Number(number) => Some(number.to_string()),
            _ => {
                self.error(&node.at, format!("{what} must be text, not {}", node.sort()));
                None
            }
        }
    }

    /// True or false, also as text (`"yes"`).
    pub fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        match &node.value {
            Val::Bool(flag) => Some(*flag),
            Val::Str(text) if boolean_word(text).is_some() => boolean_word(text),
            _ => {
                self.error(&node.at, format!("{what} must be `true` or `false`, not {}", node.sort()));
                None
            }
        }
    }

    /// A whole number, not negative.
    pub fn number(&mut self, node: &Node, what: &str) -> Option<u64> {
        let number = match &node.value {
            Val::Number(number) => number.as_u64(),
            Val::Str(text) => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            self.error(&node.at, format!("{what} must be a whole number, not {}", node.sort()));
        }
        number
    }

    /// A list of texts; one text is a list of one, and commas separate if asked for.
    pub fn texts(&mut self, node: &Node, what: &str, commas: bool) -> Vec<String> {
        match &node.value {
            Val::Seq(items) => items.iter().filter_map(|item| self.text(item, &format!("each item of {what}"))).collect(),
            Val::Null => Vec::new(),
            Val::Str(text) if commas => text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect(),
            _ => self.text(node, what).into_iter().collect(),
        }
    }

    /// Reports every key that is not among the known ones, with the nearest that is.
    pub fn only(&mut self, map: &Map, known: &[&str], what: &str) {
        for (key, _) in map.iter() {
            if !known.contains(&&*key.name) {
                let diagnostic = Diagnostic::error(format!("unknown key `{}` in {what}", key.name)).at(key.at.clone());
                self.push(match nearest(&key.name, known.iter().copied()) {
                    Some(name) => diagnostic.hint(format!("did you mean `{name}`?")),
                    None => diagnostic.hint(format!("known keys: {}", known.join(", "))),
                });
            }
        }
    }
}

/// Ansible's words for true and false.
#[must_use]
pub fn boolean_word(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "t" | "1" | "1.0" => Some(true),
        "false" | "no" | "off" | "n" | "f" | "0" | "0.0" => Some(false),
        _ => None,
    }
}
