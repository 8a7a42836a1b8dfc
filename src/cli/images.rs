//! `soc-provision images`: clap structs only.

use clap::{Args, Subcommand};

use super::RunArgs;

#[derive(Debug, Args, Clone)]
pub struct ImagesArgs {
    #[command(subcommand)]
    pub command: ImagesCommand,
}

/// What to do about images.
#[derive(Debug, Subcommand, Clone)]
pub enum ImagesCommand {
    /// Write `images.lock`: the digests of the images that the playbook's stacks use, as the hosts have them, or with `--pull` as the registries have them now
    #[command(
        after_help = "Examples:\n  soc-provision images lock prod.yml                    # what the hosts have\n  soc-provision images lock prod.yml --pull             # what the registries have now"
    )]
    Lock(LockArgs),
    /// List the images that the playbook's stacks use: who, which, locked or not
    #[command(after_help = "Example:\n  soc-provision images list prod.yml")]
    List(RunArgs),
}

#[derive(Debug, Args, Clone)]
pub struct LockArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Only say what would be written; exit with 3 if it differs from what is there
    #[arg(short = 'C', long)]
    pub check: bool,
    /// Have the hosts ask the registries what the tags mean now, so that an image is locked before
    /// any host runs it and a tag that has moved is followed; what runs, runs on
    #[arg(long)]
    pub pull: bool,
}
