//! `backup` and `restore`: the volumes of stacks. The programs are those of role `backup`, which a
//! host's timers run too: one format, one place, whoever starts them. They run as units that go on
//! if the connection dies.

mod fetch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::backup::{BackupArgs, RestoreArgs};
use crate::cli::{Format, RunArgs};
use crate::command::run::{JobOptions, load, prepare};
use crate::command::{complain, drive, print};
use crate::diagnostic::{Exit, Failure, FailureClass, nearest, printable};
use crate::engine::Mode;
use crate::engine::apply::Walk;
use crate::engine::host::HostRun;
use crate::engine::operate::Operation;
use crate::event::Outcome;
use crate::resource::plan::Step;
use crate::resource::{Claim, ResourceId};
use crate::shell::Script;
use crate::transport::Output;

const BACKUP: &str = include_str!("../../../roles/backup/files/soc-backup");
const RESTORE: &str = include_str!("../../../roles/backup/files/soc-restore");
/// As long as the role's timers give them.
const DEADLINE: Duration = Duration::from_secs(6 * 3600);

/// What is to be done with each host's stacks.
enum Work {
    Backup { volume: Option<String>, fetch: Option<PathBuf> },
    Fetch { from: String, into: PathBuf },
    Restore { volume: Option<String>, from: String, directory: Option<PathBuf> },
    List,
}

struct Errand {
    work: Work,
    /// All if empty.
    stacks: Vec<String>,
    /// Every stack that some host declares.
    declared: Mutex<BTreeSet<String>>,
    /// Hosts that had something to do.
    met: Mutex<BTreeSet<String>>,
    /// Lines for stdout, by host.
    told: Mutex<BTreeMap<String, Vec<String>>>,
}

/// Saves volumes.
pub(super) fn run(arguments: &BackupArgs) -> Exit {
    let work = match (&arguments.fetch, &arguments.from) {
        _ if arguments.list => Work::List,
        (Some(into), Some(from)) => match when(Some(from)) {
            Ok(from) => Work::Fetch { from, into: into.clone() },
            Err(why) => {
                complain(&format!("error: {why}"));
                return Exit::Usage;
            }
        },
        _ => Work::Backup { volume: arguments.volume.clone(), fetch: arguments.fetch.clone() },
    };
    carry_out(&arguments.run, "backup", work, arguments.stack.clone(), arguments.break_lock)
}

/// Puts volumes back.
pub(super) fn restore(arguments: &RestoreArgs) -> Exit {
    let work = if arguments.list {
        Work::List
    } else {
        match when(arguments.from.as_deref()) {
            Ok(from) => Work::Restore { volume: arguments.volume.clone(), from, directory: arguments.from_dir.clone() },
            Err(why) => {
                complain(&format!("error: {why}"));
                return Exit::Usage;
            }
        }
    };
    carry_out(&arguments.run, "restore", work, arguments.stack.iter().cloned().collect(), arguments.break_lock)
}

fn carry_out(run: &RunArgs, command: &'static str, work: Work, stacks: Vec<String>, break_lock: bool) -> Exit {
    let loaded = match load(&run.playbook, &run.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let mode = if matches!(work, Work::List | Work::Fetch { .. }) { Mode::Inspect } else { Mode::Operate };
    let options = JobOptions { mode, command, diff: false, break_lock, retry_release: false };
    let mut prepared = match prepare(&loaded, run, &options) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let errand = Arc::new(Errand { work, stacks, declared: Mutex::default(), met: Mutex::default(), told: Mutex::default() });
    if let Some(job) = Arc::get_mut(&mut prepared.job) {
        job.operation = Some(errand.clone());
    }
    let (_, exit) = drive::run(&prepared, run.connect.format, |_, exit| exit);
    let told = errand.told.lock().unwrap_or_else(PoisonError::into_inner);
    for line in told.values().flatten() {
        if run.connect.format == Format::Text { print(&format!("{line}\n")) } else { complain(line) }
    }
    match errand.unknown() {
        Some(why) if exit == Exit::Fine => {
            complain(&format!("error: {why}"));
            Exit::Usage
        }
        _ => exit,
    }
}

/// `latest`, a backup's stamp, or `before:STAMP` for a time.
fn when(from: Option<&str>) -> Result<String, String> {
    let text = match from {
        None | Some("latest") => return Ok("latest".to_owned()),
        Some(text) => text.trim(),
    };
    if is_stamp(text) {
        return Ok(text.to_owned());
    }
    let local = |civil: jiff::civil::DateTime| civil.to_zoned(jiff::tz::TimeZone::system()).map(|zoned| zoned.timestamp());
    // A date alone means its whole day.
    let day = text.parse::<jiff::civil::Date>().ok().filter(|_| text.len() <= 10);
    let moment = match (text.parse::<jiff::Timestamp>(), day) {
        (Ok(timestamp), _) => Some(timestamp),
        (_, Some(date)) => local(date.at(23, 59, 59, 0)).ok(),
        _ => text.parse::<jiff::civil::DateTime>().ok().and_then(|civil| local(civil).ok()),
    };
    let moment = moment.ok_or_else(|| {
        format!(
            "`{text}` is neither a backup nor a time\nhint: write a stamp as `--list` shows it (20260131T023000Z), a day (2026-01-31) or a time (2026-01-31T02:30:00Z)"
        )
    })?;
    Ok(format!("before:{}", moment.strftime("%Y%m%dT%H%M%SZ")))
}

fn is_stamp(text: &str) -> bool {
    let shape = |(index, c): (usize, char)| match index {
        8 => c == 'T',
        15 => c == 'Z',
        _ => c.is_ascii_digit(),
    };
    text.len() == 16 && text.chars().enumerate().all(shape)
}

impl Operation for Errand {
    fn run<'a>(&'a self, host: &'a mut HostRun) -> Walk<'a> {
        Box::pin(async move {
            let wanted = self.stacks_of(host);
            if wanted.is_empty() {
                host.report(
                    "stacks",
                    Outcome::Skipped { reason: "none of these stacks is declared for this host".to_owned() },
                    Instant::now(),
                );
                return Ok(());
            }
            self.met.lock().unwrap_or_else(PoisonError::into_inner).insert(host.name.clone());
            match &self.work {
                Work::List => self.list(host, &wanted).await,
                Work::Backup { volume, fetch } => {
                    let place = self.backup(host, &wanted, volume.as_deref()).await?;
                    match fetch {
                        Some(into) => self.fetch(host, &wanted, &place, into).await,
                        None => Ok(()),
                    }
                }
                Work::Fetch { from, into } => {
                    for stack in &wanted {
                        let place = self.find(host, stack, from).await?;
                        self.fetch(host, std::slice::from_ref(stack), &place, into).await?;
                    }
                    Ok(())
                }
                Work::Restore { volume, from, directory } => {
                    for stack in &wanted {
                        let from = match directory {
                            Some(directory) => self.send(host, stack, from, directory).await?,
                            None => from.clone(),
                        };
                        self.restore(host, stack, volume.as_deref(), &from).await?;
                    }
                    Ok(())
                }
            }
        })
    }
}

impl Errand {
    fn tell(&self, host: &HostRun, line: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.entry(host.name.clone()).or_default().push(printable(&format!("{}: {line}", host.name)));
    }

    /// The host's stacks that are meant.
    fn stacks_of(&self, host: &HostRun) -> Vec<String> {
        let claims = host.resources().flat_map(crate::resource::Resource::claims);
        let declared: BTreeSet<String> = claims
            .filter_map(|claim| match claim {
                Claim::ComposeProject(name) => Some(name),
                _ => None,
            })
            .collect();
        let wanted = declared.iter().filter(|name| self.stacks.is_empty() || self.stacks.contains(name)).cloned().collect();
        self.declared.lock().unwrap_or_else(PoisonError::into_inner).extend(declared);
        wanted
    }

    /// Stacks that were named and no host has.
    fn unknown(&self) -> Option<String> {
        let declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = self.stacks.iter().find(|name| !declared.contains(*name));
        let hint = |name: &str| match nearest(name, declared.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if declared.is_empty() => "the playbook declares no stack for these hosts".to_owned(),
            None => format!("its stacks: {}", declared.iter().cloned().collect::<Vec<_>>().join(", ")),
        };
        match missing {
            Some(name) => Some(format!("the playbook has no stack `{name}`\nhint: {}", hint(name))),
            None if declared.is_empty() => Some("the playbook declares no stack for these hosts".to_owned()),
            None => None,
        }
    }

    /// What the program of restores prints for one of its questions.
    async fn asked(&self, host: &mut HostRun, question: &str) -> Result<String, Failure> {
        let script = Script::sh("set -- {}\n", &[question]).then(RESTORE, &[]);
        let output = host.script("listing backups", script, Duration::from_secs(120)).await?;
        if output.status != 0 {
            return Err(failure("listing backups", &output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Where the backup of a stack lies on the host that is meant: `DIR/STAMP`.
    async fn find(&self, host: &mut HostRun, stack: &str, from: &str) -> Result<String, Failure> {
        let text = self.asked(host, "--list").await?;
        let backups = text.lines().map(|line| line.split('\t').collect::<Vec<_>>()).filter(|fields| fields.get(1) == Some(&stack));
        let stamps: Vec<(&str, bool)> =
            backups.filter(|fields| is_stamp(fields[0])).map(|fields| (fields[0], fields.get(5) == Some(&"whole"))).collect();
        let fits = |(stamp, whole): &&(&str, bool)| match from.strip_prefix("before:") {
            Some(limit) => *whole && *stamp <= limit,
            None => (from == "latest" && *whole) || *stamp == from,
        };
        match stamps.iter().filter(fits).max() {
            Some((stamp, _)) => Ok(format!("{}/{stamp}", self.asked(host, "--where").await?.trim())),
            None => {
                let known: Vec<&str> = stamps.iter().map(|(stamp, _)| *stamp).collect();
                Err(Failure::new(
                    FailureClass::StepFailed,
                    format!("there is no such backup of `{stack}` on the host; there are: {}", known.join(", ")),
                ))
            }
        }
    }

    /// Brings backups here.
    async fn fetch(&self, host: &mut HostRun, stacks: &[String], place: &str, into: &Path) -> Result<(), Failure> {
        let since = Instant::now();
        let stamp = place.rsplit('/').next().filter(|stamp| is_stamp(stamp));
        let stamp =
            stamp.ok_or_else(|| Failure::new(FailureClass::StepFailed, format!("`{}` is no place of a backup", printable(place))))?;
        for stack in stacks {
            let to = into.join(&host.name).join(stamp).join(stack);
            let bytes = fetch::fetch(host, &format!("{place}/{stack}"), &to).await?;
            self.tell(host, &format!("fetched {} ({bytes} bytes, every digest holds)", to.display()));
        }
        host.report(format!("fetch {}", stacks.join(", ")), Outcome::Ok, since);
        Ok(())
    }

    /// Sends a backup that was fetched earlier back to the host; gives its stamp.
    async fn send(&self, host: &mut HostRun, stack: &str, from: &str, directory: &Path) -> Result<String, Failure> {
        let since = Instant::now();
        let (stamp, place) = fetch::find(directory, &host.name, stack, from).map_err(|why| {
            let (what, hint) = why.split_once("\nhint: ").unwrap_or((&why, "`backup --fetch` fills such a directory"));
            Failure::new(FailureClass::Refused, what).hint(hint)
        })?;
        let to = format!("{}/{stamp}/{stack}", self.asked(host, "--where").await?.trim());
        fetch::send(host, &place, &to).await?;
        host.report(format!("send backup {stamp} of {stack}"), Outcome::Changed, since);
        Ok(stamp)
    }

    async fn list(&self, host: &mut HostRun, wanted: &[String]) -> Result<(), Failure> {
        let since = Instant::now();
        let text = self.asked(host, "--list").await?;
        let mut count = 0;
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [stamp, stack, volumes, release, bytes, kind, sealed] = fields.as_slice() else { continue };
            if wanted.iter().any(|name| name == stack) {
                let volumes = if volumes.is_empty() { "no volumes" } else { volumes };
                self.tell(host, &format!("{stamp}  {stack}  {volumes}  release {release}  {bytes} bytes  {kind}  {sealed}"));
                count += 1;
            }
        }
        if count == 0 {
            self.tell(host, &format!("no backup of {}", wanted.join(", ")));
        }
        host.report(format!("{count} backups"), Outcome::Ok, since);
        Ok(())
    }

    /// Makes a backup; gives the place on the host.
    async fn backup(&self, host: &mut HostRun, wanted: &[String], volume: Option<&str>) -> Result<String, Failure> {
        let since = Instant::now();
        let mut script = Script::sh("set --", &[]);
        if let Some(volume) = volume {
            script = script.then(" --volume {}", &[volume]);
        }
        let script = wanted.iter().fold(script, |script, stack| script.then(" {}", &[stack])).then("\n", &[]).then(BACKUP, &[]);
        let title = format!("back up {}", wanted.join(", "));
        let id = ResourceId::new("backup", wanted.join(","));
        let output = host.step_output(&id, &Step::new(title.clone(), script).deadline(DEADLINE).surviving()).await?;
        if output.status != 0 || output.skipped {
            return Err(failure(&title, &output).hint("earlier backups are as they were"));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let (last, volumes) = lines.split_last().unwrap_or((&"", &[]));
        let place = last.split(':').next().unwrap_or_default().to_owned();
        for line in volumes {
            self.tell(host, line);
        }
        self.tell(host, &format!("saved in {place}"));
        for line in String::from_utf8_lossy(&output.stderr).lines().filter(|line| !line.trim().is_empty()) {
            self.tell(host, &format!("warning: {line}"));
        }
        host.report(title, Outcome::Changed, since);
        Ok(place)
    }

    async fn restore(&self, host: &mut HostRun, stack: &str, volume: Option<&str>, from: &str) -> Result<(), Failure> {
        let since = Instant::now();
        let script = Script::sh("set -- {} {} {}\n", &[stack, volume.unwrap_or("-"), from]).then(RESTORE, &[]);
        let title = format!("restore {stack}");
        let id = ResourceId::new("backup", stack);
        let output = host.step_output(&id, &Step::new(title.clone(), script).deadline(DEADLINE).surviving()).await?;
        if output.status != 0 || output.skipped {
            let failure = failure(&title, &output);
            let settled = ["nothing was touched", "nothing was changed", "old content is back", "there is no"];
            if failure.hint.is_some() || settled.iter().any(|words| failure.message.contains(words)) {
                return Err(failure);
            }
            return Err(failure.hint("run it again: it puts back the content from before first"));
        }
        for line in String::from_utf8_lossy(&output.stderr).lines().chain(String::from_utf8_lossy(&output.stdout).lines()) {
            self.tell(host, line);
        }
        host.report(title, Outcome::Changed, since);
        Ok(())
    }
}

/// The program's own last word is the message.
fn failure(title: &str, output: &Output) -> Failure {
    let said = printable(&String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let class =
        if said.contains("No space left") || said.contains("no space left") { FailureClass::DiskFull } else { FailureClass::StepFailed };
    let class = if said.contains("was contained by") { FailureClass::Refused } else { class };
    let Some((last, before)) = lines.split_last() else {
        return Failure::new(class, format!("`{title}` ended with status {}", output.status));
    };
    let mut failure = Failure::new(class, last.trim_start_matches("soc-backup: ").trim_start_matches("soc-restore: ").to_owned());
    failure.stderr = before[before.len().saturating_sub(12)..].join("\n");
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_stamps_or_moments() {
        assert_eq!(when(None).unwrap(), "latest");
        assert_eq!(when(Some("20260131T023000Z")).unwrap(), "20260131T023000Z");
        assert_eq!(when(Some("2026-01-31T02:30:00Z")).unwrap(), "before:20260131T023000Z");
        assert!(when(Some("2026-01-31")).unwrap().starts_with("before:2026"));
        for bad in ["yesterday-ish", "", "2026-13-01", "../../etc"] {
            assert!(when(Some(bad)).unwrap_err().contains("neither"), "{bad}");
        }
    }

    #[test]
    fn the_programs_fit_into_scripts() {
        for program in [BACKUP, RESTORE] {
            assert!(!program.contains("{}"), "a program of the role has a `{{}}`, which scripts fill");
            let script = Script::sh("set -- {}\n", &["it's"]).then(program, &[]);
            let code = script.fill(&crate::secret::Vault::default()).unwrap();
            let out = std::process::Command::new("/bin/sh").args(["-n", "-c"]).arg(&*code).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }
    }
}
