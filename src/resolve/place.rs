//! Puts problems of templates where they are in the user's file.

use std::sync::Arc;

use super::template::Trouble;
use crate::diagnostic::{Diagnostic, Location};
use crate::project::Project;

/// A problem of a template that is a value in YAML: its place within the value, added to the
/// value's place in the file.
pub(super) fn in_value(project: &Project, trouble: Trouble, at: &Location, role: Option<&str>) -> Diagnostic {
    if let Some(inner) = trouble.inner {
        return *inner;
    }
    if trouble.partial.is_some() {
        return in_partial(project, &trouble, role).unwrap_or_else(|| plain(&trouble).at(at.clone()));
    }
    let located = project.files.seen(&at.file).map_or_else(|| at.clone(), |text| inside(&text, at, trouble.place));
    plain(&trouble).at(located)
}

/// A problem of a file under `templates/`, whose first character is `start`.
pub(super) fn in_file(project: &Project, trouble: &Trouble, start: &Location, role: Option<&str>) -> Diagnostic {
    if let Some(inner) = &trouble.inner {
        return Diagnostic::clone(inner);
    }
    if trouble.partial.is_some() {
        if let Some(diagnostic) = in_partial(project, trouble, role) {
            return diagnostic;
        }
    }
    let place = Location { line: to_u32(trouble.place.0), column: to_u32(trouble.place.1), ..start.clone() };
    let length = project.files.seen(&start.file).map_or(1, |text| expression_length(&text, &place));
    plain(trouble).at(Location { length, ..place })
}

fn in_partial(project: &Project, trouble: &Trouble, role: Option<&str>) -> Option<Diagnostic> {
    let path = super::sources::find_partial(project, trouble.partial.as_deref()?, role)?;
    let inner = Trouble { partial: None, ..trouble.clone() };
    Some(in_file(project, &inner, &project.files.start(&path), role))
}

fn plain(trouble: &Trouble) -> Diagnostic {
    let diagnostic = Diagnostic::error(trouble.message.clone());
    match &trouble.hint {
        Some(hint) => diagnostic.hint(hint.clone()),
        None => diagnostic,
    }
}

/// Where a place within a scalar is in the file, for plain, quoted and block scalars.
fn inside(text: &str, at: &Location, (line, column): (usize, usize)) -> Location {
    let Some(source) = text.lines().nth(at.line as usize - 1) else { return at.clone() };
    let rest: String = source.chars().skip(at.column as usize - 1).collect();
    // The reader puts a block scalar where its content starts, on a line after the `|`.
    let block = text.lines().take(at.line as usize - 1).filter(|line| !line.trim().is_empty()).last().is_some_and(opens_literal);
    let place = match rest.chars().next() {
        Some('"' | '\'') if line == 1 && !block => Location { column: at.column + to_u32(column), length: 1, ..at.clone() },
        _ if line == 1 => Location { column: at.column + to_u32(column) - 1, length: 1, ..at.clone() },
        _ if block => {
            Location { line: at.line + to_u32(line) - 1, column: at.column + to_u32(column) - 1, length: 1, file: Arc::clone(&at.file) }
        }
        _ => return at.clone(),
    };
    Location { length: expression_length(text, &place), ..place }
}

/// Whether a line ends with the header of a literal block: `key: |`, `- |2-`.
fn opens_literal(line: &str) -> bool {
    let line = line.split(" #").next().unwrap_or(line).trim_end();
    line.rsplit([' ', '-']).next().is_some_and(|word| word.starts_with('|')) || line.trim_end_matches(['+', '-']).ends_with('|')
}

/// The length of the `{{...}}` at a place.
fn expression_length(text: &str, at: &Location) -> u32 {
    let Some(line) = text.lines().nth(at.line as usize - 1) else { return 1 };
    let rest: String = line.chars().skip(at.column as usize - 1).collect();
    let end = rest.find("}}").filter(|_| rest.starts_with("{{")).map(|end| rest[..end].chars().count() + 2);
    to_u32(end.unwrap_or(1))
}

fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
