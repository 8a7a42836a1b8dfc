//! What is wrong with YAML, in the product's words.

use std::path::PathBuf;
use std::sync::Arc;

use super::{MAX_DEPTH, MAX_NODES, is_tag_error, located, to_u32};
use crate::diagnostic::{Diagnostic, Location};

/// The library's error in the product's words.
pub(super) fn convert(error: &serde_yaml::Error, text: &str, file: &Arc<PathBuf>) -> Diagnostic {
    use serde_yaml::Error;
    let mut error = error.without_snippet();
    while let Error::AliasError { error: inner, .. } = error {
        error = inner.without_snippet();
    }
    let mut at = error
        .location()
        .map_or_else(|| Location { file: Arc::clone(file), line: 1, column: 1, length: 1 }, |location| located(location, file));
    if at.line == 0 {
        (at.line, at.column) = (1, 1);
    }
    let (message, hint) = match error {
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.clone().unwrap_or_default();
            at.length = to_u32(key.chars().count()).max(1);
            (
                format!("key `{key}` is given twice"),
                Some("keep one of the two: which of them would win is not for the reader to guess".to_owned()),
            )
        }
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => (
            format!("the file is too deep or too large once its aliases are expanded (limits: {MAX_DEPTH} levels, {MAX_NODES} values)"),
            Some("split it, or write fewer aliases of aliases".to_owned()),
        ),
        Error::MultipleDocuments { .. } => (
            "the file holds more than one YAML document".to_owned(),
            Some("remove the second `---`, or move what follows it to its own file".to_owned()),
        ),
        Error::UnknownAnchor { .. } => ("an alias has no anchor of this name in the file".to_owned(), None),
        other if other.to_string().contains("recursion limit") => (
            format!("the file is too deep or too large (limit: {MAX_DEPTH} levels)"),
            Some("look for brackets that are never closed".to_owned()),
        ),
        other if is_tag_error(other) => (
            "this YAML tag is not supported".to_owned(),
            Some("leave it out; text that must not be rendered is written with `\\{{`".to_owned()),
        ),
        other => return syntax(&other.to_string(), at, text),
    };
    let diagnostic = Diagnostic::error(message).at(at);
    match hint {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

/// A syntax error, with the usual reason where the line shows it.
fn syntax(message: &str, mut at: Location, text: &str) -> Diagnostic {
    let message = message.lines().next().unwrap_or_default().trim();
    let message = message.rsplit_once(" at line ").map_or(message, |(head, _)| head);
    let message = message.split(": at line").next().unwrap_or(message).trim_end_matches(['.', ':']);
    let index = at.line as usize;
    let lines: Vec<&str> = text.lines().skip(index.saturating_sub(2)).take(2).collect();
    let hint = if message.contains("non-finite") {
        "put it in quotes: it is no number that JSON has"
    } else if let Some(found) = lines.iter().position(|line| line.trim_start_matches(' ').starts_with('\t')) {
        // The reader may stop at the end of the line before.
        (at.line, at.column) = (to_u32(index.saturating_sub(1).max(1) + found), 1);
        "YAML indents with spaces, not tabs"
    } else if lines.iter().any(|line| line.contains(": {{") || line.trim_start().starts_with("- {{")) {
        "a value that starts with `{{` must be quoted: `\"{{name}}\"`"
    } else if lines.iter().any(|line| line.matches(": ").count() > 1) {
        "text that contains `: ` must be quoted"
    } else {
        "check the indentation and the quotes of this line and the one before"
    };
    Diagnostic::error(format!("not YAML: {message}")).at(at).hint(hint)
}
