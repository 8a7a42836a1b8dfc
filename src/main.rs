//! The binary: parses arguments and hands over to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(soc_provision::command::main(std::env::args_os()).code())
}
