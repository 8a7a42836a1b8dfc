//! `soc-provision verify`: clap structs only.

use clap::Args;

use super::RunArgs;

#[derive(Debug, Args, Clone)]
pub struct VerifyArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// The smoke tests of the roles too (`verify/smoke.yml`): they send events and alerts through the stacks
    #[arg(long)]
    pub smoke: bool,
}
