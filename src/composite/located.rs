//! Where in a stack's Compose file a problem is, and which of its files nothing refers to.

use std::collections::BTreeMap;

use crate::resource::compose::model::Model;
use crate::resource::compose::stack::StackFile;
use crate::resource::{BuildContext, BuildError};

/// Points an error about the Compose file at the argument that names it, and each of its problems at
/// a line of it. `file` is that argument (`template` or `src`) and its value.
pub(super) fn relocate(error: BuildError, file: Option<(&'static str, String)>, context: &BuildContext<'_>) -> BuildError {
    let (Some((argument, name)), Some("compose")) = (file, error.field.as_deref()) else { return error };
    let text = match argument {
        "template" => context.sources.template(&name).ok().and_then(|text| text.as_plain()),
        _ => context.sources.file(&name).ok().and_then(|bytes| String::from_utf8(bytes).ok()),
    };
    let text = text.unwrap_or_default();
    let lines: Vec<String> = error
        .message
        .lines()
        .map(|problem| match line_of(problem, &text) {
            Some(number) if argument == "template" => format!("{problem} (`{name}`, line {number} as rendered)"),
            Some(number) => format!("{problem} (`{name}`, line {number})"),
            None => problem.to_owned(),
        })
        .collect();
    BuildError { message: lines.join("\n"), field: Some(argument.to_owned()), hint: error.hint }
}

/// The first line that has one of the words that a sentence quotes; the sentence's first word first.
fn line_of(sentence: &str, text: &str) -> Option<usize> {
    let quoted = sentence.split('`').skip(1).step_by(2).map(|word| word.trim_matches('"')).filter(|word| !word.is_empty());
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let has = |line: &str, word: &str| {
        line.match_indices(word).any(|(at, _)| {
            let (before, after) = (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        })
    };
    quoted.into_iter().find_map(|word| text.lines().position(|line| has(line, word)).map(|index| index + 1))
}

/// Files that nothing in the Compose file refers to.
pub(super) fn unused_files(model: &Model, files: &BTreeMap<String, StackFile>) -> Vec<String> {
    let text = model.to_value().to_string();
    let used = |dest: &str| {
        let mut path = dest;
        loop {
            if text.contains(&format!("./{path}\"")) {
                return true;
            }
            match path.rsplit_once('/') {
                Some((parent, _)) => path = parent,
                None => return false,
            }
        }
    };
    files.keys().filter(|dest| !used(dest)).map(|dest| format!("file `{dest}` is mounted by no service")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_where_its_first_known_word_is() {
        let text = "services:\n  a:\n    networks: [nowhere-else, nowhere]\n    environment: {X: ${NOPE}}\n";
        assert_eq!(line_of("network `nowhere` of service `a` is not declared", text), Some(3));
        assert_eq!(line_of("variable `NOPE` is not set", text), Some(4));
        assert_eq!(line_of("`\"1:2\"` is not a port, in service `a`", text), Some(2));
        assert_eq!(line_of("nothing quoted", text), None);
    }
}
