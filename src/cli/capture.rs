//! Command line of `capture`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ConnectOptions, InventoryOptions};

#[derive(Debug, Args, Clone)]
#[command(
    after_help = "Example:\n  soc-provision capture siem1 -i prod\n\nThe archive is a tar in gzip in age, encrypted to the project's recipients: `capture --verify FILE --extract DIR`,\nor `age -d -i KEY FILE | tar -xz`."
)]
pub struct CaptureArgs {
    /// The host, by its name in the inventory
    #[arg(required_unless_present = "verify")]
    pub host: Option<String>,
    /// Containers of this stack only (and the host itself)
    #[arg(long, value_name = "NAME", conflicts_with = "container")]
    pub stack: Option<String>,
    /// This container only (and the host itself); may be repeated
    #[arg(long, value_name = "NAME")]
    pub container: Vec<String>,
    /// The volumes of these containers too
    #[arg(long)]
    pub volumes: bool,
    /// This volume too; may be repeated
    #[arg(long, value_name = "NAME")]
    pub volume: Vec<String>,
    /// What to take of containers' file systems; `export` if containers or a stack are named, else `diff`
    #[arg(long, value_enum)]
    pub filesystem: Option<FileSystem>,
    /// How far back logs of the host go, such as 48h or 7d; logs of containers are taken whole
    #[arg(long, value_name = "TIME", default_value = "48h")]
    pub since: String,
    /// Longest part of the archive, such as 500M or 20G; longer ones are cut and said to be
    #[arg(long, value_name = "SIZE", default_value = "20G")]
    pub max_size: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// The archive, or a directory for it; never overwritten
    #[arg(short, long, value_name = "DIR|FILE", default_value = ".")]
    pub output: PathBuf,
    /// Take the containers off their networks and leave them running; apply, rollback and `drift --fix` leave them alone until released
    #[arg(long, conflicts_with = "release")]
    pub contain: bool,
    /// Undo `--contain`: back on their networks; nothing is captured
    #[arg(long, conflicts_with_all = ["output", "volumes", "volume", "filesystem"])]
    pub release: bool,
    /// Check every digest of an archive instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "stack", "container", "contain", "release", "volumes", "volume"])]
    pub verify: Option<PathBuf>,
    /// With `--verify`: unpack into this new directory
    #[arg(long, value_name = "DIR", requires = "verify")]
    pub extract: Option<PathBuf>,
    /// Take the lock away from whoever holds it (with `--contain` and `--release`)
    #[arg(long)]
    pub break_lock: bool,
    #[command(flatten)]
    pub inventory: InventoryOptions,
    #[command(flatten)]
    pub connect: ConnectOptions,
}

/// What to take of a container's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileSystem {
    /// All of it, as a tar
    Export,
    /// Which paths differ from the image
    Diff,
}
