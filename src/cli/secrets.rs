//! `soc-provision secrets`: clap structs only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args, Clone)]
pub struct SecretsArgs {
    /// Directory of the secrets
    #[arg(long, global = true, value_name = "DIR", default_value = "secrets")]
    pub dir: PathBuf,
    /// Private key to open them with: an age identity file or an ssh-ed25519 key; may be repeated
    #[arg(long, global = true, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    #[command(subcommand)]
    pub command: SecretsCommand,
}

/// What to do with the secrets.
#[derive(Debug, Subcommand, Clone)]
pub enum SecretsCommand {
    /// Make a private key for yourself and print its public half
    #[command(after_help = "Examples:\n  soc-provision secrets keygen\n  soc-provision secrets keygen -o ci-identity.txt")]
    Keygen(KeygenArgs),
    /// Start a directory of secrets, encrypted to your key
    #[command(
        after_help = "Examples:\n  soc-provision secrets init                            # encrypted to your own key\n  soc-provision secrets init -r age1... -r \"ssh-ed25519 AAAA...\""
    )]
    Init(InitArgs),
    /// Store a secret, read from the terminal (hidden) or from stdin
    #[command(
        after_help = "Examples:\n  soc-provision secrets set db_password                 # asks twice, hidden; or reads stdin\n  soc-provision secrets set waf/admin --generate 32 --into web.yml.age\n  soc-provision secrets set vault_token --from-command -- vault kv get -field=token secret/soc"
    )]
    Set(SetArgs),
    /// Print a secret's value
    #[command(after_help = "Example:\n  soc-provision secrets get db_password")]
    Get {
        /// Name of the secret
        name: String,
    },
    /// Edit a file of secrets in $VISUAL or $EDITOR, in memory only
    #[command(after_help = "Example:\n  soc-provision secrets edit web.yml.age")]
    Edit {
        /// `NAME.yml.age`, `NAME.age` or a secret's name
        file: String,
    },
    /// List the names of all secrets; needs no private key
    #[command(after_help = "Example:\n  soc-provision secrets list")]
    List,
    /// Make a certificate authority for `tls_certificate`, or print its certificate
    #[command(
        after_help = "Examples:\n  soc-provision secrets ca                              # once a project\n  soc-provision secrets ca --print >ca.crt              # for those who are to trust it"
    )]
    Ca(CaArgs),
    /// Encrypt everything to the present `recipients.txt`
    #[command(after_help = "Example:\n  soc-provision secrets rekey                           # after a change of secrets/recipients.txt")]
    Rekey(RekeyArgs),
    /// Look for secrets in clear in the whole repository, and for anything wrong in the store
    #[command(after_help = "Example:\n  soc-provision secrets check                           # before a commit")]
    Check,
}

#[derive(Debug, Args, Clone)]
pub struct KeygenArgs {
    /// Where to write it [default: where it is looked for: --identity, $SOC_PROVISION_IDENTITY, `identity:` of the project, ~/.config/soc-provision/identity.txt]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args, Clone)]
pub struct InitArgs {
    /// A public key that may open the secrets, besides your own: `age1...` or `ssh-ed25519 ...`
    #[arg(short, long = "recipient", value_name = "KEY")]
    pub recipients: Vec<String>,
    /// For throw-away hosts: the private key is made and committed too
    #[arg(long, conflicts_with = "recipients")]
    pub lab: bool,
}

#[derive(Debug, Args, Clone)]
pub struct SetArgs {
    /// Name of the secret
    pub name: String,
    /// Make a random value of this many letters and digits
    #[arg(long, value_name = "LENGTH", num_args = 0..=1, default_missing_value = "32")]
    pub generate: Option<usize>,
    /// Take the value from a file, as it is
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    pub file: Option<PathBuf>,
    /// Do not store a value but a command that prints it on the controller, after `--`
    #[arg(long, conflicts_with_all = ["generate", "file", "into"], requires = "command")]
    pub from_command: bool,
    /// Put it into this map of secrets instead of a file of its own
    #[arg(long, value_name = "NAME.yml.age")]
    pub into: Option<String>,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", requires = "from_command")]
    pub command: Vec<String>,
}

#[derive(Debug, Args, Clone)]
pub struct CaArgs {
    /// Name of the secret that holds its key and its certificate
    #[arg(default_value = "soc-ca")]
    pub name: String,
    /// Name in its certificate [default: the secret's name]
    #[arg(long, value_name = "NAME")]
    pub common_name: Option<String>,
    /// For how many days it is good
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(30..=36500))]
    pub days: u32,
    /// Put a new one in the place of the one that is there: every certificate is then issued anew
    #[arg(long)]
    pub replace: bool,
    /// Print the certificate of the one that is there, for those who are to trust it
    #[arg(long, conflicts_with_all = ["replace", "common_name"])]
    pub print: bool,
}

#[derive(Debug, Args, Clone)]
pub struct RekeyArgs {
    /// Also replace the key of the digests, as when somebody leaves; the next apply then writes
    /// every file that holds a secret again
    #[arg(long)]
    pub new_digest_key: bool,
}
