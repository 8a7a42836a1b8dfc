//! `soc-provision rebuild`: clap structs only.

use clap::Args;

use crate::cli::RunArgs;

#[derive(Debug, Args, Clone)]
pub struct RebuildArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Volumes go too, with the data in them
    #[arg(long)]
    pub wipe_data: bool,
    /// Images go too, and are fetched or made again
    #[arg(long)]
    pub images: bool,
    /// Docker's packages go too
    #[arg(long)]
    pub docker: bool,
    /// Tear down even where an interrupted rebuild had come further
    #[arg(long)]
    pub fresh: bool,
    /// This host was made anew: learn the key that it shows, once, and pin it; may be repeated
    #[arg(long, value_name = "HOST")]
    pub expect_new_host_key: Vec<String>,
    /// Show differences of files
    #[arg(short = 'D', long)]
    pub diff: bool,
    /// Take the lock away from whoever holds it
    #[arg(long)]
    pub break_lock: bool,
    /// Rebuild hosts that are on hold, too
    #[arg(long)]
    pub override_hold: bool,
    /// Bring up a release that was rolled back and pinned
    #[arg(long)]
    pub retry_release: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}
