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
    /// Bring the backup here too, into DIR/HOST/STAMP/STACK, every digest verified
    #[arg(long, value_name = "DIR")]
    pub fetch: Option<std::path::PathBuf>,
    /// With `--fetch`: make no backup, bring one that is there: a stamp, a time, or `latest`
    #[arg(long, value_name = "WHEN", requires = "fetch")]
    pub from: Option<String>,
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
    /// From a directory that `backup --fetch` filled, sent to the host first
    #[arg(long, value_name = "DIR")]
    pub from_dir: Option<std::path::PathBuf>,
    /// Only show which backups there are
    #[arg(long)]
    pub list: bool,
    /// Take the lock away from whoever holds it
    #[arg(long)]
    pub break_lock: bool,
}
