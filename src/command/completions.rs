//! `completions`: for shells, and the manual page.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::{Cli, CompletionsArgs, CompletionsFor};
use crate::command::{complain, print};
use crate::diagnostic::Exit;

/// Prints what was asked for.
pub(super) fn run(arguments: &CompletionsArgs) -> Exit {
    let mut command = Cli::command();
    let mut out = Vec::new();
    let shell = match arguments.shell {
        CompletionsFor::Bash => Shell::Bash,
        CompletionsFor::Zsh => Shell::Zsh,
        CompletionsFor::Fish => Shell::Fish,
        CompletionsFor::Elvish => Shell::Elvish,
        CompletionsFor::Man => {
            if let Err(error) = clap_mangen::Man::new(command).render(&mut out) {
                complain(&format!("error: {error}"));
                return Exit::Bug;
            }
            print(&String::from_utf8_lossy(&out));
            return Exit::Fine;
        }
    };
    clap_complete::generate(shell, &mut command, "soc-provision", &mut out);
    print(&String::from_utf8_lossy(&out));
    Exit::Fine
}
