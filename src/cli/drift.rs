//! The words of `drift`.

use clap::Args;

use super::RunArgs;

#[derive(Debug, Args, Clone)]
#[command(
    after_help = "Read-only unless --fix or --prune is given. Formats: text, json, jsonl, junit, sarif, prometheus.\nExit codes: 0 in sync, 3 drift, 4 a host was unreachable, 2 a host failed.\n\nExamples:\n  soc-provision drift lab.yml\n  soc-provision drift prod.yml -l 'siem*' -D --format sarif >drift.sarif\n  soc-provision drift lab.yml --fix --prune users,cron"
)]
pub struct DriftArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Show differences of files
    #[arg(short = 'D', long)]
    pub diff: bool,
    /// Put right what differs from the repository, under the same guards as `apply`
    #[arg(long)]
    pub fix: bool,
    /// Remove what nobody declared in these places, after keeping it on the host: `containers`, `users`, ..., or `all`
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub prune: Vec<String>,
    /// Take the lock away from whoever holds it (with --fix or --prune)
    #[arg(long)]
    pub break_lock: bool,
}
