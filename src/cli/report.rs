//! `soc-provision report`: clap structs only.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Args, Clone)]
pub struct ReportArgs {
    /// The history to read [default: that of the project's settings, or $XDG_STATE_HOME/soc-provision/history.db]
    #[arg(long, global = true, value_name = "FILE", env = "SOC_PROVISION_HISTORY")]
    pub history: Option<PathBuf>,
    #[command(subcommand)]
    pub command: ReportCommand,
}

/// How to print what is known of earlier runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Plain {
    /// For people
    #[default]
    Text,
    /// One JSON document
    Json,
    /// One JSON object a line
    Jsonl,
}

/// What to do with earlier runs.
#[derive(Debug, Subcommand, Clone)]
pub enum ReportCommand {
    /// List runs, newest first
    #[command(after_help = "Examples:\n  soc-provision report list --newest 5\n  soc-provision report list --host web1")]
    List(ListArgs),
    /// Show one run: an id or a part of it, `last`, `last~2`
    #[command(
        after_help = "Examples:\n  soc-provision report show -D                          # the last run, with differences of files\n  soc-provision report show last~2"
    )]
    Show(ShowArgs),
    /// What is new, gone and still there from one run to another
    #[command(
        after_help = "Examples:\n  soc-provision report compare                          # the last run against the one before that did the same\n  soc-provision report compare last~7 last --exit-code"
    )]
    Compare(CompareArgs),
    /// Join the JSON documents of runs on parts of the fleet into one
    #[command(after_help = "Example:\n  soc-provision report merge part*.json --out all.json")]
    Merge(MergeArgs),
    /// Forget old runs
    #[command(after_help = "Example:\n  soc-provision report prune --keep 90d")]
    Prune(PruneArgs),
    /// One self-contained page: hosts by roles, drift over time, what is behind each cell
    #[command(after_help = "Example:\n  soc-provision report html -o fleet.html")]
    Html(HtmlArgs),
    /// Ids of the CIS benchmarks and NIST SP 800-53, the resources that keep them, and how these stand
    #[command(after_help = "Example:\n  soc-provision report controls --framework docker")]
    Controls(ControlsArgs),
}

/// Which runs are meant.
#[derive(Debug, Args, Clone, Default)]
pub struct Which {
    /// Only runs on this playbook
    #[arg(short, long, value_name = "NAME")]
    pub playbook: Option<String>,
    /// Only runs of this command: apply, plan, drift, ...
    #[arg(short, long, value_name = "NAME")]
    pub command: Option<String>,
    /// Only runs on this host
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
}

#[derive(Debug, Args, Clone)]
pub struct ListArgs {
    #[command(flatten)]
    pub which: Which,
    /// How many; 0 for all
    #[arg(short, long, default_value_t = 20, value_name = "N")]
    pub newest: usize,
    /// How to print them
    #[arg(long, value_enum, default_value_t = Plain::Text)]
    pub format: Plain,
}

#[derive(Debug, Args, Clone)]
pub struct ShowArgs {
    /// An id or a part of it, `last`, `last~2`
    #[arg(default_value = "last")]
    pub run: String,
    #[command(flatten)]
    pub which: Which,
    /// With differences of files, where the run had them
    #[arg(short = 'D', long)]
    pub diff: bool,
    /// How to print it; `json` is the document that the run printed
    #[arg(long, value_enum, default_value_t = Plain::Text)]
    pub format: Plain,
}

#[derive(Debug, Args, Clone)]
pub struct CompareArgs {
    /// The earlier run [default: the one before the later that did the same]
    pub before: Option<String>,
    /// The later run [default: the last on a playbook]
    pub after: Option<String>,
    #[command(flatten)]
    pub which: Which,
    /// Exit with 3 if something is new
    #[arg(long)]
    pub exit_code: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Plain::Text)]
    pub format: Plain,
}

#[derive(Debug, Args, Clone)]
pub struct MergeArgs {
    /// Documents that runs printed with `--format json`
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Write the joined document here
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Keep the joined run in the history
    #[arg(long)]
    pub keep: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Plain::Text)]
    pub format: Plain,
}

#[derive(Debug, Args, Clone)]
pub struct HtmlArgs {
    #[command(flatten)]
    pub which: Which,
    /// How many runs to show, the newest
    #[arg(long, default_value_t = 90, value_name = "N")]
    pub nights: usize,
    /// Write the page here instead of to stdout
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args, Clone)]
pub struct ControlsArgs {
    /// The run to look at [default: the last that looked at a whole playbook]
    pub run: Option<String>,
    #[command(flatten)]
    pub which: Which,
    /// Only this framework: `docker`, `debian`, `nist`
    #[arg(long, value_name = "NAME")]
    pub framework: Option<String>,
    /// Exit with 3 if a control is not kept
    #[arg(long)]
    pub exit_code: bool,
    /// How to print them
    #[arg(long, value_enum, default_value_t = Plain::Text)]
    pub format: Plain,
}

#[derive(Debug, Args, Clone)]
pub struct PruneArgs {
    /// What to keep: the newest N runs (`200`), or those of some time (`90d`, `12w`)
    #[arg(long, value_name = "N|TIME")]
    pub keep: String,
    /// Only say what would go
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}
