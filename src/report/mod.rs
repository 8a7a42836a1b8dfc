//! Showing: every report is a fold over the engine's events, so they cannot disagree.

pub mod capture;
pub mod controls;
pub mod drift;
pub mod findings;
pub mod html;
pub mod json;
pub mod junit;
pub mod log;
pub mod output;
pub mod recap;
pub mod terminal;

use std::io::IsTerminal as _;

/// Whether to use colour on a stream: only on a terminal, and not against the user's wish
/// (`NO_COLOR`, <https://no-color.org>).
#[must_use]
pub fn colour_on_stdout() -> bool {
    std::io::stdout().is_terminal() && wants_colour()
}

/// As [`colour_on_stdout`], for stderr.
#[must_use]
pub fn colour_on_stderr() -> bool {
    std::io::stderr().is_terminal() && wants_colour()
}

/// Whether to show bars: on a terminal that can move its cursor, in whatever colour.
#[must_use]
pub fn bars_on_stderr() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// ANSI colours as Ansible uses them.
#[derive(Clone, Copy)]
pub enum Paint {
    Green,
    Yellow,
    Cyan,
    Red,
    Bold,
    Dim,
}

/// Text in a colour, if colours are wanted.
#[must_use]
pub fn paint(on: bool, paint: Paint, text: &str) -> String {
    if !on {
        return text.to_owned();
    }
    let code = match paint {
        Paint::Green => "32",
        Paint::Yellow => "33",
        Paint::Cyan => "36",
        Paint::Red => "31",
        Paint::Bold => "1",
        Paint::Dim => "2",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// The rows of a unified difference as a terminal shows them; it has no header, so that every row is text of the file.
pub(crate) fn diff_rows(diff: &str, colour: bool) -> impl Iterator<Item = String> {
    diff.lines().map(move |row| {
        let shade = match row.as_bytes().first() {
            Some(b'+') => Some(Paint::Green),
            Some(b'-') => Some(Paint::Red),
            Some(b'@') => Some(Paint::Cyan),
            _ => None,
        };
        let row = crate::diagnostic::printable(row);
        shade.map_or_else(|| row.clone(), |shade| paint(colour, shade, &row))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_row_of_a_difference_is_taken_for_a_header() {
        let rows: Vec<String> = super::diff_rows("@@ -1 +1 @@\n--- a comment of SQL\n+++ i\n", false).collect();
        assert_eq!(rows, ["@@ -1 +1 @@", "--- a comment of SQL", "+++ i"]);
    }
}
