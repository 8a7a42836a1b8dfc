//! Command line of `backup` and `restore`.

use clap::Args;

use super::RunArgs;

#[derive(Debug, Args, Clone)]
pub struct BackupArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// This stack; all that the playbook declares unless given; may be repeated
    #[arg(long, value_name = "NAME")]
    pub stack: Vec<String>,
    /// This volume of the stack only
    #[arg(long, value_name = "VOLUME", requires = "stack")]
    pub volume: Option<String>,
    /// Only show which backups there are
    #[arg(long)]
    pub list: bool,
    /// Take the lock away from whoever holds it
    #[arg(long)]
    pub break_lock: bool,
}

#[derive(Debug, Args, Clone)]
pub struct RestoreArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// The stack
    #[arg(long, value_name = "NAME", required_unless_present = "list")]
    pub stack: Option<String>,
    /// This volume of the stack only
    #[arg(long, value_name = "VOLUME", requires = "stack")]
    pub volume: Option<String>,
    /// A backup's stamp, or a time: the newest backup made by then; the newest of all unless given
    #[arg(long, value_name = "WHEN")]
    pub from: Option<String>,
    /// Only show which backups there are
    #[arg(long)]
    pub list: bool,
    /// Take the lock away from whoever holds it
    #[arg(long)]
    pub break_lock: bool,
}
