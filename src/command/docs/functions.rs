//! The reference of templates: blocks, and functions with an example each.

use super::{cell, generated};
use crate::resolve::examples::{Example, find, for_all};

const HEAD: &str = include_str!("functions.md");

/// The page.
pub(super) fn page() -> String {
    let mut out = generated("functions");
    out.push_str(HEAD);
    out.push_str("\n| function | example | gives |\n|---|---|---|\n");
    for (usage, example) in for_all() {
        out.push_str(&row(usage, example));
    }
    out
}

/// One function.
pub(super) fn one(name: &str) -> Option<String> {
    let (usage, example) = find(name)?;
    Some(format!("{usage}\n\n  {{{{{}}}}}\n  {}\n", example.expression, example.result))
}

fn row(usage: &str, example: &Example) -> String {
    format!("| `{}` | `{{{{{}}}}}` | `{}` |\n", cell(usage), cell(example.expression), cell(example.result))
}
