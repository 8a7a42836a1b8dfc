//! Command line: clap structs only, no logic. Flags are Ansible's where one exists.

pub mod backup;
pub mod capture;
pub mod diagnose;
pub mod docs;
pub mod drift;
pub mod hold;
pub mod images;
pub mod rebuild;
pub mod report;
pub mod rollback;
pub mod schedule;
pub mod secrets;
pub mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Provision Linux hosts over SSH: plan, apply, verify, and see drift into Docker.
#[derive(Debug, Parser)]
#[command(
    name = "soc-provision",
    version,
    about,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start with `soc-provision init`, then `soc-provision plan lab.yml`.\nExit codes: 0 fine, 1 nothing was touched, 2 a host failed, 3 drift or changes pending, 4 a host was unreachable,\n5 a guarded change was reverted, 99 interrupted, 250 a bug."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Plan, apply and verify a playbook (or a saved plan)
    #[command(
        after_help = "Examples:\n  soc-provision apply prod.yml                 # plan, change, check health, recap\n  soc-provision apply prod.yml -l web --ask    # show the plan of some hosts and ask\n  soc-provision apply plan.json                # exactly what `plan --out plan.json` showed\n\nNothing is touched if the project has an error. A second apply reports changed=0."
    )]
    Apply(ApplyArgs),
    /// Show what apply would do, with diffs (`-D`)
    #[command(
        after_help = "Examples:\n  soc-provision plan prod.yml -D               # with diffs of files\n  soc-provision plan prod.yml --exit-code      # 3 if anything would change\n  soc-provision plan prod.yml --out plan.json  # to be applied later, or refused if a host moved on"
    )]
    Plan(PlanArgs),
    /// Look for drift: what differs from the repository, and what nobody declared; read-only
    Drift(drift::DriftArgs),
    /// Run the playbook's health checks, changing nothing
    #[command(
        after_help = "Examples:\n  soc-provision verify prod.yml                # every health check of every role\n  soc-provision verify prod.yml -l siem -v     # of some hosts, passed ones too"
    )]
    Verify(verify::VerifyArgs),
    /// Compare what the roles require with what the hosts have, and name every reason to refuse; touches nothing
    #[command(after_help = "Example:\n  soc-provision preflight prod.yml             # what the roles require against what the hosts have")]
    Preflight(RunArgs),
    /// Put a stack back to the release before, or to another that its hosts still have
    #[command(after_help = "Example:\n  soc-provision rollback prod.yml --stack wazuh")]
    Rollback(rollback::RollbackArgs),
    /// Say what is the matter with stacks: exits, memory, health, names, networks, owners, ports
    #[command(after_help = "Example:\n  soc-provision diagnose prod.yml --stack wazuh")]
    Diagnose(diagnose::DiagnoseArgs),
    /// Lock the images that stacks use by digest
    #[command(
        after_help = "Examples:\n  soc-provision images list prod.yml\n  soc-provision images lock prod.yml           # pin what the hosts run by digest"
    )]
    Images(images::ImagesArgs),
    /// Check the whole project offline, all errors at once
    #[command(
        after_help = "Examples:\n  soc-provision check                          # every playbook under playbooks/\n  soc-provision check prod.yml --list-tasks -t docker\n\nNo host is connected to. Facts are placeholders."
    )]
    Check(CheckArgs),
    /// Save the volumes of stacks on their hosts, verified by digest
    #[command(
        after_help = "Examples:\n  soc-provision backup prod.yml                     # every stack of the playbook\n  soc-provision backup prod.yml --stack wazuh --list"
    )]
    Backup(backup::BackupArgs),
    /// Put volumes back from a backup; the old content stays until the stack is healthy
    #[command(
        after_help = "Example:\n  soc-provision restore prod.yml --stack wazuh      # the newest backup; --help says how to name another"
    )]
    Restore(backup::RestoreArgs),
    /// Take evidence of a host and its containers into an encrypted archive; contain and release containers
    Capture(capture::CaptureArgs),
    /// Show the inventory: hosts, groups, variables
    #[command(
        after_help = "Examples:\n  soc-provision inventory prod.yml --graph     # the inventory of a playbook, as a tree\n  soc-provision inventory -i hosts.ini --host web1\n  soc-provision inventory -i cloud.py --list   # Ansible's JSON"
    )]
    Inventory(InventoryArgs),
    /// Show facts of hosts
    #[command(after_help = "Examples:\n  soc-provision facts web1\n  soc-provision facts all | jq '.[].ansible_memtotal_mb'")]
    Facts(FactsArgs),
    /// Run a command on hosts, ad hoc
    #[command(
        after_help = "Examples:\n  soc-provision exec web uptime\n  soc-provision exec 'all:!db' -- 'df -h / && docker ps'\n\nRuns as root if the login becomes root, under the hosts' locks."
    )]
    Exec(ExecArgs),
    /// Start a new project that works
    #[command(
        after_help = "Examples:\n  soc-provision init my-project && cd my-project && soc-provision check\n\nWrites an inventory, a playbook and a role that work, and never over a file that is there."
    )]
    Init(InitArgs),
    /// Keep secrets: encrypted in the project, opened only for the hosts that need them
    #[command(
        after_help = "Examples:\n  soc-provision secrets keygen && soc-provision secrets init   # once a project\n  soc-provision secrets set db_password --generate 32\n  soc-provision secrets list\n\nTemplates use them as {{secret \"db_password\"}}; see docs/secrets.md."
    )]
    Secrets(secrets::SecretsArgs),
    /// Tear down what Docker runs, apply again, and say how long it took
    #[command(after_help = "Example:\n  soc-provision rebuild lab.yml -l lab1        # tear down, apply again; refuses protected hosts")]
    Rebuild(rebuild::RebuildArgs),
    /// Where each host stands: last apply, health, backup, certificates, hold; read-only
    #[command(after_help = "Example:\n  soc-provision status prod.yml                # where each host stands")]
    Status(RunArgs),
    /// Put hosts on hold, so that apply leaves them alone, or release them
    #[command(
        after_help = "Examples:\n  soc-provision hold siem1 -i prod --reason \"incident 42\"\n  soc-provision hold siem1 -i prod --release"
    )]
    Hold(hold::HoldArgs),
    /// Drift every night: a systemd timer on the controller, news when the state changes, metrics
    #[command(
        after_help = "Examples:\n  soc-provision schedule prod.yml --at 02:30   # drift every night, by a systemd timer of this machine\n  soc-provision schedule prod.yml --print      # only show what would be installed"
    )]
    Schedule(schedule::ScheduleArgs),
    /// Earlier runs: list, show, compare, merge, prune, a page, controls
    #[command(
        after_help = "Examples:\n  soc-provision report list\n  soc-provision report --help                  # show, compare, merge, html and others"
    )]
    Report(report::ReportArgs),
    /// First login to a new host: pin its key, make a sudo user with your key
    #[command(
        after_help = "Examples:\n  soc-provision bootstrap root@203.0.113.7 --name web1\n  soc-provision bootstrap admin@host:2222 --private-key cloud.pem --fingerprint SHA256:... < password-file\n\nAsks for the password on a terminal, else reads it from stdin. Nothing is sent before the key is agreed to."
    )]
    Bootstrap(BootstrapArgs),
    /// Print the reference: kinds, template functions, Ansible's words, variables
    Docs(docs::DocsArgs),
    /// Print shell completions, or the manual page with `man`
    #[command(
        after_help = "Examples:\n  soc-provision completions bash > /etc/bash_completion.d/soc-provision\n  soc-provision completions zsh > ~/.zfunc/_soc-provision\n  soc-provision completions fish > ~/.config/fish/completions/soc-provision.fish\n  soc-provision completions man | man -l -"
    )]
    Completions(CompletionsArgs),
}

/// Which hosts, and with which variables.
#[derive(Debug, Args, Clone, Default)]
pub struct InventoryOptions {
    /// Inventory file, directory, executable, or `host1,host2,`; may be repeated
    #[arg(short, long, value_name = "PATH", value_hint = clap::ValueHint::AnyPath)]
    pub inventory: Vec<String>,
    /// Only these hosts: a pattern (`web:!web2`), or `@FILE`
    #[arg(short, long, value_name = "PATTERN")]
    pub limit: Option<String>,
    /// Extra variables: `key=value`, JSON, YAML, or `@FILE`; always win
    #[arg(short, long, value_name = "VARS")]
    pub extra_vars: Vec<String>,
}

/// How to connect.
#[derive(Debug, Args, Clone, Default)]
pub struct ConnectOptions {
    /// How many hosts at a time
    #[arg(short, long, value_name = "N")]
    pub forks: Option<usize>,
    /// Log in as this user
    #[arg(short, long)]
    pub user: Option<String>,
    /// Become root by sudo
    #[arg(short, long = "become")]
    pub r#become: bool,
    /// Ask for the sudo password
    #[arg(short = 'K', long)]
    pub ask_become_pass: bool,
    /// Read the sudo password from a file
    #[arg(long, value_name = "FILE")]
    pub become_password_file: Option<PathBuf>,
    /// Ask for the login password
    #[arg(short = 'k', long)]
    pub ask_pass: bool,
    /// Private key to log in with
    #[arg(long, visible_alias = "key-file", value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// Seconds for connecting and logging in
    #[arg(short = 'T', long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// What to do about unknown host keys
    #[arg(long, value_enum, default_value_t = HostKeys::Strict)]
    pub host_keys: HostKeys,
    /// Identity file for the project's secrets
    #[arg(long, value_name = "FILE", env = "SOC_PROVISION_IDENTITY", hide_env_values = true)]
    pub identity: Vec<PathBuf>,
    /// Wait this long for another run on the same host to end (`10m`) instead of refusing
    #[arg(long, value_name = "TIME", value_parser = length)]
    pub wait: Option<std::time::Duration>,
    /// Where runs are remembered, or `none` [default: $XDG_STATE_HOME/soc-provision/history.db]
    #[arg(long, value_name = "FILE", env = "SOC_PROVISION_HISTORY")]
    pub history: Option<PathBuf>,
    /// Say more; up to -vvvv
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How to print the outcome
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// A length of time: `90s`, `30m`, `2h`, `3d`, `12w`, and sums (`1d12h`).
///
/// # Errors
/// A sentence for the user.
pub fn length(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("`{text}` is not a length of time such as `30m`, `2h`, `3d` or `1w`");
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].chars().next().ok_or_else(wrong)?;
        let each = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return Err(wrong()),
        };
        seconds = number.checked_mul(each).and_then(|part| seconds.checked_add(part)).ok_or_else(wrong)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    // A hundred years: what is longer is a slip.
    if text.is_empty() || seconds > 100 * 366 * 86_400 { Err(wrong()) } else { Ok(std::time::Duration::from_secs(seconds)) }
}

/// What to do about unknown host keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum HostKeys {
    /// Refuse hosts that are in no known_hosts
    #[default]
    Strict,
    /// Learn keys of new hosts; changed keys are still refused
    AcceptNew,
}

/// How to print the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON document on stdout (docs/json.md)
    Json,
    /// Events as they happen, one JSON object a line
    Jsonl,
    /// A report for CI systems: a suite for each host, a case for each task and check
    Junit,
    /// For pages that show the results of scanners (drift)
    Sarif,
    /// Metrics for a text file collector (drift)
    Prometheus,
}

/// What every run on a playbook takes.
#[derive(Debug, Args, Clone)]
pub struct RunArgs {
    /// The playbook: a path, or a name under `playbooks/`
    #[arg(value_name = "PLAYBOOK", value_hint = clap::ValueHint::FilePath)]
    pub playbook: String,
    #[command(flatten)]
    pub inventory: InventoryOptions,
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// Only tasks with these tags
    #[arg(short, long, value_delimiter = ',')]
    pub tags: Vec<String>,
    /// Not tasks with these tags
    #[arg(long, value_delimiter = ',')]
    pub skip_tags: Vec<String>,
    /// Only a part of the hosts: K of N, stable by host name
    #[arg(long, value_name = "K/N")]
    pub shard: Option<String>,
}

#[derive(Debug, Args, Clone)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Only show what would be done (same as `plan`)
    #[arg(short = 'C', long)]
    pub check: bool,
    /// Show differences of files
    #[arg(short = 'D', long)]
    pub diff: bool,
    /// Show the plan and ask before applying it
    #[arg(long)]
    pub ask: bool,
    /// Take the lock away from whoever holds it
    #[arg(long)]
    pub break_lock: bool,
    /// Apply to hosts that are on hold, too
    #[arg(long)]
    pub override_hold: bool,
    /// Apply a release that was rolled back and pinned
    #[arg(long)]
    pub retry_release: bool,
    /// Do not ask about protected hosts
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args, Clone)]
pub struct PlanArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Show differences of files
    #[arg(short = 'D', long)]
    pub diff: bool,
    /// Exit with 3 if there is anything to change
    #[arg(long)]
    pub exit_code: bool,
    /// Save the plan for `apply FILE`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args, Clone)]
pub struct CheckArgs {
    /// The playbooks; all under `playbooks/` if none is named
    pub playbooks: Vec<String>,
    #[command(flatten)]
    pub inventory: InventoryOptions,
    /// Only list the hosts of each play
    #[arg(long)]
    pub list_hosts: bool,
    /// Only list the tasks
    #[arg(long)]
    pub list_tasks: bool,
    /// Only list the tags
    #[arg(long)]
    pub list_tags: bool,
    /// Only tasks with these tags
    #[arg(short, long, value_delimiter = ',')]
    pub tags: Vec<String>,
    /// Not tasks with these tags
    #[arg(long, value_delimiter = ',')]
    pub skip_tags: Vec<String>,
}

#[derive(Debug, Args, Clone)]
pub struct InventoryArgs {
    /// The playbook whose inventory is meant, if `-i` is not given
    pub playbook: Option<String>,
    #[command(flatten)]
    pub inventory: InventoryOptions,
    /// All hosts and variables, as Ansible's JSON
    #[arg(long)]
    pub list: bool,
    /// Groups and hosts as a tree
    #[arg(long)]
    pub graph: bool,
    /// The variables of one host
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
}

#[derive(Debug, Args, Clone)]
pub struct FactsArgs {
    /// Hosts: a pattern
    #[arg(default_value = "all")]
    pub pattern: String,
    #[command(flatten)]
    pub inventory: InventoryOptions,
    #[command(flatten)]
    pub connect: ConnectOptions,
}

#[derive(Debug, Args, Clone)]
pub struct ExecArgs {
    /// Hosts: a pattern
    pub pattern: String,
    #[command(flatten)]
    pub inventory: InventoryOptions,
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// Seconds for the command
    #[arg(long, default_value_t = 300)]
    pub deadline: u64,
    /// The command, run by `sh`; several words are joined by blanks, as by `ssh`
    #[arg(trailing_var_arg = true, required = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args, Clone)]
pub struct InitArgs {
    /// Where; must be empty or new
    #[arg(default_value = ".")]
    pub directory: PathBuf,
}

#[derive(Debug, Args, Clone)]
pub struct BootstrapArgs {
    /// Address of the new host, `[user@]host[:port]`
    pub host: String,
    /// Name to give it in the inventory
    #[arg(long)]
    pub name: Option<String>,
    /// Inventory file to add it to
    #[arg(short, long, default_value = "inventory/lab.yml")]
    pub inventory: PathBuf,
    /// The sudo user to create
    #[arg(long, default_value = "deploy")]
    pub create_user: String,
    /// Public key for the sudo user
    #[arg(long, value_name = "FILE")]
    pub public_key: Option<PathBuf>,
    /// Log in with this key instead of a password
    #[arg(long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// The host key's fingerprint, to accept it without asking (`SHA256:...`)
    #[arg(long)]
    pub fingerprint: Option<String>,
}

#[derive(Debug, Args, Clone)]
pub struct CompletionsArgs {
    /// Shell, or `man` for the manual page
    #[arg(value_enum)]
    pub shell: CompletionsFor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompletionsFor {
    Bash,
    Zsh,
    Fish,
    Elvish,
    Man,
}
