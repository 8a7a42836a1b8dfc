//! `soc-provision diagnose`: clap structs only.

use clap::Args;

use super::{ConnectOptions, InventoryOptions};

#[derive(Debug, Args, Clone)]
pub struct DiagnoseArgs {
    /// A playbook, or hosts: a pattern
    #[arg(value_name = "PLAYBOOK|HOST")]
    pub target: String,
    /// The stack; may be repeated. Without it: every stack that is on the hosts
    #[arg(long, value_name = "NAME")]
    pub stack: Vec<String>,
    #[command(flatten)]
    pub inventory: InventoryOptions,
    #[command(flatten)]
    pub connect: ConnectOptions,
}
