//! `docs`.

use clap::Args;

#[derive(Debug, Args, Clone)]
#[command(
    after_help = "Pages: kinds, functions, ansible, variables. Any kind, check or template function is a page too.\n\nExamples:\n  soc-provision docs template        # one kind: its arguments and an example\n  soc-provision docs functions       # what templates and `when` can call\n  soc-provision docs ansible         # which of Ansible's words work here"
)]
pub struct DocsArgs {
    /// A page, or the name of a kind, a check or a template function
    #[arg(default_value = "kinds")]
    pub page: String,
    /// Write the pages of the reference into this directory (`docs/` of the source)
    #[arg(long, value_name = "DIR", hide = true)]
    pub write: Option<std::path::PathBuf>,
}
