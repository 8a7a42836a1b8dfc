//! Arguments of the command line: clap structs, no logic.
