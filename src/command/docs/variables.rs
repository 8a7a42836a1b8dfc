//! Where variables come from, and which source wins.

use super::{cell, generated};
use crate::project::variables::PRECEDENCE;

const HEAD: &str = include_str!("variables.md");

/// The page.
pub(super) fn page() -> String {
    let mut out = generated("variables");
    out.push_str(HEAD);
    out.push_str("\n| | source |\n|---|---|\n");
    for (number, (_, about)) in PRECEDENCE.iter().enumerate() {
        out.push_str(&format!("| {} | {} |\n", number + 1, cell(about)));
    }
    out
}
