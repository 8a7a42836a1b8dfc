//! Stdout: what was asked for. That its reader went away (`| head`) is no reason to stop a run; that
//! it could not be kept (a full disk) must not pass for success.

use std::io::Write as _;
use std::sync::OnceLock;

/// Why something was not written.
static LOST: OnceLock<String> = OnceLock::new();

/// Writes text as it is.
pub fn write(text: &str) {
    note(std::io::stdout().lock().write_all(text.as_bytes()));
}

/// What was not written until now, and why: said once, at the end.
#[must_use]
pub fn lost() -> Option<&'static str> {
    note(std::io::stdout().lock().flush());
    LOST.get().map(String::as_str)
}

fn note(outcome: std::io::Result<()>) {
    if let Err(error) = outcome
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        let _ = LOST.set(error.to_string());
    }
}
