//! Command line: clap structs only, no logic.
