//! `soc-provision hold`: clap structs only.

use clap::Args;

use crate::cli::{ConnectOptions, InventoryOptions};

#[derive(Debug, Args, Clone)]
pub struct HoldArgs {
    /// Hosts: a pattern. Without `--reason` and `--release` it only shows who holds them
    pub pattern: String,
    #[command(flatten)]
    pub inventory: InventoryOptions,
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// Why; shown to whoever wants to apply
    #[arg(long, value_name = "TEXT", conflicts_with = "release")]
    pub reason: Option<String>,
    /// Until when: `2h`, `3d`, `2026-12-01`, `2026-12-01T08:00Z` (UTC); until released if not given
    #[arg(long, value_name = "TIME", requires = "reason")]
    pub until: Option<String>,
    /// End the hold
    #[arg(long)]
    pub release: bool,
}
