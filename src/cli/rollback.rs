//! `soc-provision rollback`: clap structs only.

use clap::Args;

use super::RunArgs;

#[derive(Debug, Args, Clone)]
pub struct RollbackArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// The stack
    #[arg(long, value_name = "NAME")]
    pub stack: String,
    /// Go to this release, or to the one whose name begins so; by default to the one before the current one
    #[arg(long, value_name = "RELEASE", conflicts_with = "list")]
    pub to: Option<String>,
    /// Only list the releases that each host has
    #[arg(long)]
    pub list: bool,
    /// Only show what would be done
    #[arg(short = 'C', long)]
    pub check: bool,
    /// Take the lock away from whoever holds it
    #[arg(long)]
    pub break_lock: bool,
}
