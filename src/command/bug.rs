//! A panic is a bug of soc-provision: it is said so, once, and the exit code is 250.

use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::command::complain;
use crate::diagnostic::{Exit, printable};

/// Whether any thread panicked; the engine goes on with the other hosts.
static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Runs a command; a panic of it, or of any thread it started, makes the exit code 250.
pub(super) fn guarded(command: impl FnOnce() -> Exit) -> Exit {
    std::panic::set_hook(Box::new(tell));
    let exit = std::panic::catch_unwind(AssertUnwindSafe(command)).unwrap_or(Exit::Bug);
    if HAPPENED.load(Ordering::SeqCst) { Exit::Bug } else { exit }
}

fn tell(info: &PanicHookInfo<'_>) {
    let first = !HAPPENED.swap(true, Ordering::SeqCst);
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = text.unwrap_or("no message");
    let message: String = printable(message).chars().take(600).collect();
    let place = info.location().map_or_else(String::new, |at| format!("\n  at {}:{}", at.file(), at.line()));
    let version = env!("CARGO_PKG_VERSION");
    complain(&format!("error: this is a bug in soc-provision {version}: {message}{place}"));
    if first {
        complain(
            "hint: hosts are before or after a step, never within one: the same command again finishes what was begun.\n      Please report the lines above with the command line and, if you can, the project.",
        );
    }
}
