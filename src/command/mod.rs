//! Commands: one file each, composing the phases.

mod adhoc;
mod apply;
mod backup;
mod bootstrap;
mod bug;
mod capture;
mod check;
mod completions;
mod diagnose;
mod docs;
mod drift;
mod drive;
mod enlist;
mod facts;
mod foreign;
mod hold;
mod images;
mod init;
mod inventory;
mod moment;
mod outline;
mod plan;
mod preflight;
mod rebuild;
mod report;
mod rollback;
mod run;
mod saved;
mod schedule;
mod secrets;
mod status;
mod verify;

use std::ffi::OsString;
use std::io::Write as _;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::diagnostic::Exit;

/// Parses the arguments, runs the command, and says how it ended.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    crate::secret::harden_process();
    let exit = bug::guarded(|| match Cli::try_parse_from(arguments) {
        Ok(cli) => dispatch(&cli.command),
        Err(error) => {
            let _ = error.print();
            if let Some(advice) = foreign::advice(&error) {
                complain(&format!("\nhint: {advice}"));
            }
            if error.use_stderr() { Exit::Usage } else { Exit::Fine }
        }
    });
    match crate::report::output::lost() {
        Some(why) => {
            complain(&format!("error: what this printed could not be written whole: {why}"));
            exit.max(Exit::Failed)
        }
        None => exit,
    }
}

fn dispatch(command: &Command) -> Exit {
    // For the tests of what happens then; not in what is released.
    #[cfg(debug_assertions)]
    assert!(std::env::var_os("SOC_PROVISION_TEST_PANIC").is_none(), "asked to panic");
    match command {
        Command::Apply(arguments) => apply::run(arguments),
        Command::Plan(arguments) => plan::run(arguments),
        Command::Drift(arguments) => drift::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Preflight(arguments) => preflight::run(arguments),
        Command::Rollback(arguments) => rollback::run(arguments),
        Command::Diagnose(arguments) => diagnose::run(arguments),
        Command::Images(arguments) => images::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Backup(arguments) => backup::run(arguments),
        Command::Restore(arguments) => backup::restore(arguments),
        Command::Capture(arguments) => capture::run(arguments),
        Command::Inventory(arguments) => inventory::run(arguments),
        Command::Facts(arguments) => facts::run(arguments),
        Command::Exec(arguments) => facts::exec(arguments),
        Command::Init(arguments) => init::run(arguments),
        Command::Rebuild(arguments) => rebuild::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Hold(arguments) => hold::run(arguments),
        Command::Schedule(arguments) => schedule::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Bootstrap(arguments) => bootstrap::run(arguments),
        Command::Secrets(arguments) => secrets::run(arguments),
        Command::Docs(arguments) => docs::run(arguments),
        Command::Completions(arguments) => completions::run(arguments),
    }
}

/// Writes a file, whole or not at all.
fn whole_file(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Prints data to stdout.
fn print(text: &str) {
    crate::report::output::write(text);
}

/// Prints a message to stderr.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
