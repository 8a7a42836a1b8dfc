//! `soc-provision schedule`: clap structs only.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::RunArgs;

#[derive(Debug, Args, Clone)]
pub struct ScheduleArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Name of the schedule [default: the playbook's]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// When, as systemd writes it (`man systemd.time`): `02:30`, `Mon..Fri 02:30`, `hourly`
    #[arg(long, value_name = "CALENDAR", default_value = "02:30")]
    pub at: String,
    /// Whose systemd [default: the system's for root, the user's own otherwise]
    #[arg(long, value_enum)]
    pub units: Option<Units>,
    /// When the state has changed, run this with the news on stdin (JSON)
    #[arg(long, value_name = "COMMAND")]
    pub notify_command: Option<String>,
    /// When the state has changed, POST the news there (JSON); `@FILE` to read the address from a file
    #[arg(long, value_name = "URL")]
    pub notify_webhook: Option<String>,
    /// When the state has changed, mail the news there, through `sendmail`
    #[arg(long, value_name = "ADDRESS")]
    pub notify_mail: Option<String>,
    /// Write metrics there after each run, for a Prometheus textfile collector
    #[arg(long, value_name = "FILE.prom")]
    pub metrics: Option<PathBuf>,
    /// Only show what would be installed
    #[arg(long, conflicts_with_all = ["remove", "now"])]
    pub print: bool,
    /// Take the schedule away again
    #[arg(long, conflicts_with = "now")]
    pub remove: bool,
    /// Do one night's work now; this is what the timer calls, and what a CI schedule may call
    #[arg(long)]
    pub now: bool,
    /// With `--now`: of the schedule of this name, as it was installed
    #[arg(long, requires = "now")]
    pub installed: bool,
}

/// Whose systemd runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Units {
    System,
    User,
}
