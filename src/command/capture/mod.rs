//! `capture`: evidence of an incident, streamed from a host into an encrypted archive with a
//! manifest of digests and times; containers taken off their networks, and put back.

mod archive;
mod contain;
mod manifest;
mod parts;
mod verify;
mod work;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cli::RunArgs;
use crate::cli::capture::{CaptureArgs, FileSystem};
use crate::command::run::{JobOptions, Loaded, prepare};
use crate::command::{adhoc, complain, drive, print};
use crate::diagnostic::Exit;
use crate::engine::Mode;
use crate::project::vault::RECIPIENTS;

/// What is to be done, decided before a host is asked anything.
struct Order {
    scope: Scope,
    host: String,
    export: bool,
    volumes: bool,
    named_volumes: Vec<String>,
    since: String,
    limit: u64,
    reason: String,
    contain: bool,
    release: bool,
    output: PathBuf,
    store: Arc<crate::project::vault::Store>,
    /// Lines for stdout.
    told: Mutex<Vec<String>>,
    /// What could not be had before anything was taken.
    lacking: Mutex<Vec<manifest::Missing>>,
    /// Something could not be had.
    incomplete: Mutex<bool>,
}

/// Which containers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Stack(String),
    Containers(Vec<String>),
}

/// Captures, contains, releases or verifies.
pub(super) fn run(arguments: &CaptureArgs) -> Exit {
    if let Some(file) = &arguments.verify {
        return verify::run(file, arguments);
    }
    let host = arguments.host.clone().unwrap_or_default();
    let loaded = match adhoc::load(&host, &arguments.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let order = match order(arguments, &loaded) {
        Ok(order) => Arc::new(order),
        Err(why) => {
            complain(&format!("error: {why}"));
            return Exit::Usage;
        }
    };
    let run = RunArgs {
        playbook: String::new(),
        inventory: arguments.inventory.clone(),
        connect: arguments.connect.clone(),
        tags: Vec::new(),
        skip_tags: Vec::new(),
        shard: None,
    };
    let mode = if order.contain || order.release { Mode::Operate } else { Mode::Inspect };
    let options = JobOptions { mode, command: "capture", diff: false, break_lock: arguments.break_lock, retry_release: false };
    let mut prepared = match prepare(&loaded, &run, &options) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    if let Some(job) = Arc::get_mut(&mut prepared.job) {
        job.operation = Some(order.clone());
    }
    let (_, exit) = drive::run(&prepared, arguments.connect.format, |_, exit| exit);
    for line in order.told.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let text = format!("{}\n", crate::diagnostic::printable(line));
        if arguments.connect.format == crate::cli::Format::Text { print(&text) } else { complain(text.trim_end()) }
    }
    let incomplete = *order.incomplete.lock().unwrap_or_else(PoisonError::into_inner);
    if incomplete { exit.max(Exit::Failed) } else { exit }
}

/// Checks everything that can be checked before a host is asked.
fn order(arguments: &CaptureArgs, loaded: &Loaded) -> Result<Order, String> {
    let hosts = loaded.project.hosts();
    let [host] = hosts.as_slice() else {
        return Err(format!(
            "evidence is taken of one host, and `{}` stands for {}",
            arguments.host.clone().unwrap_or_default(),
            hosts.len()
        ));
    };
    let scope = match (&arguments.stack, arguments.container.as_slice()) {
        (Some(stack), _) => Scope::Stack(stack.clone()),
        (None, []) => Scope::All,
        (None, names) => Scope::Containers(names.to_vec()),
    };
    if scope == Scope::All && (arguments.contain || arguments.release) {
        return Err("which containers? name a `--container` or a `--stack`".to_owned());
    }
    if scope == Scope::All && arguments.volumes {
        return Err("the volumes of which containers? name a `--container` or a `--stack`, or volumes by `--volume`".to_owned());
    }
    if !arguments.release && loaded.store.recipients().is_empty() {
        let file = loaded.store.dir().join(RECIPIENTS);
        return Err(format!(
            "evidence is encrypted to the project's recipients, and `{}` names none\nhint: start it with `soc-provision secrets init`",
            file.display()
        ));
    }
    Ok(Order {
        export: arguments.filesystem.map_or(scope != Scope::All, |how| how == FileSystem::Export),
        scope,
        host: (*host).to_owned(),
        volumes: arguments.volumes,
        named_volumes: arguments.volume.clone(),
        since: since(&arguments.since)?,
        limit: size(&arguments.max_size)?,
        reason: arguments.reason.replace(['\n', '\r'], " "),
        contain: arguments.contain,
        release: arguments.release,
        output: if arguments.release { PathBuf::new() } else { output(&arguments.output, host)? },
        store: loaded.store.clone(),
        told: Mutex::default(),
        lacking: Mutex::default(),
        incomplete: Mutex::default(),
    })
}

/// The archive's path: as given, or a name of its own in the directory that was given.
fn output(given: &Path, host: &str) -> Result<PathBuf, String> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    // Two of one second have two names.
    let name = |number: u32| {
        let more = if number > 1 { format!("-{number}") } else { String::new() };
        given.join(format!("evidence-{}-{stamp}{more}.tar.gz.age", archive::safe(host)))
    };
    let path = if given.is_dir() { (1..100).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(100)) } else { given.to_owned() };
    if path.exists() {
        return Err(format!("`{}` exists already, and evidence is never overwritten", path.display()));
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            Err(format!("there is no directory `{}` for the archive", parent.display()))
        }
        _ => Ok(path),
    }
}

/// A time such as `48h`, as `journalctl` and `docker events` both take it.
fn since(text: &str) -> Result<String, String> {
    let fail = || format!("`{text}` is no time to go back: write such as `90m`, `48h` or `7d`");
    let unit = text.chars().last().filter(|unit| "smhd".contains(*unit)).ok_or_else(fail)?;
    let count: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| fail())?;
    Ok(if unit == 'd' { format!("{}h", count.saturating_mul(24)) } else { format!("{count}{unit}") })
}

/// A size such as `20G`, in bytes.
fn size(text: &str) -> Result<u64, String> {
    let fail = || format!("`{text}` is no size: write such as `500M` or `20G`");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let count: u64 = digits.parse().map_err(|_| fail())?;
    let factor: u64 = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return Err(fail()),
    };
    count.checked_mul(factor).filter(|bytes| *bytes > 0).ok_or_else(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes() {
        assert_eq!((since("7d").unwrap().as_str(), since("90m").unwrap().as_str()), ("168h", "90m"));
        assert_eq!((size("20G").unwrap(), size("5MiB").unwrap(), size("7").unwrap()), (20 << 30, 5 << 20, 7));
        for bad in ["", "h", "-2h", "2 days", "2ä"] {
            assert!(since(bad).is_err(), "{bad}");
        }
        for bad in ["", "G", "0", "1X", "99999999T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
