//! Hosts without a playbook: a play with no tasks over a pattern, so that everything else is the
//! same as for a run.

use crate::cli::InventoryOptions;
use crate::command::run::{Loaded, What, load_what};
use crate::diagnostic::Exit;

/// Loads the project that one stands in, with a play over the pattern.
pub(super) fn load(pattern: &str, inventory: &InventoryOptions) -> Result<Loaded, Exit> {
    load_what(&What::Hosts(pattern), inventory)
}
