//! The systemd units of a schedule.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::schedule::{ScheduleArgs, Units};
use crate::command::schedule::Schedule;
use crate::command::{complain, print, whole_file};
use crate::diagnostic::Exit;

/// Where a schedule's units go, and how systemd is called for them.
struct Home {
    units: Units,
    directory: PathBuf,
}

impl Home {
    fn of(arguments: &ScheduleArgs) -> Result<Self, String> {
        let root = rustix::process::geteuid().is_root();
        let units = arguments.units.unwrap_or(if root { Units::System } else { Units::User });
        let directory = match units {
            Units::System => PathBuf::from("/etc/systemd/system"),
            Units::User => {
                let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
                let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
                config.ok_or("neither XDG_CONFIG_HOME nor HOME is set")?.join("systemd/user")
            }
        };
        Ok(Self { units, directory })
    }

    fn systemctl(&self, words: &[&str]) -> Result<(), String> {
        let mut command = Command::new("systemctl");
        if self.units == Units::User {
            command.arg("--user");
        }
        let shown = format!("systemctl {}{}", if self.units == Units::User { "--user " } else { "" }, words.join(" "));
        let out = command.args(words).output().map_err(|error| format!("`{shown}`: {error}"))?;
        let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        if out.status.success() { Ok(()) } else { Err(format!("`{shown}` failed: {said}")) }
    }
}

fn unit(schedule: &Schedule) -> String {
    format!("soc-provision-{}", schedule.name)
}

/// A quoted word as systemd reads it; `%` doubled.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

/// A word of `ExecStart=`, where `$` stands for variables unless it is doubled.
fn word(text: &str) -> String {
    quoted(text).replace('$', "$$")
}

fn service(schedule: &Schedule, program: &Path) -> String {
    let root = schedule.root.display().to_string();
    format!(
        "# Written by `soc-provision schedule`; `soc-provision schedule {name} --remove` takes it away.
[Unit]
Description=Drift of {name}, by soc-provision
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
WorkingDirectory={root}
{home}ExecStart={program} schedule --now --installed {scheduled}
# 3: hosts differ; that is an answer, and not a failure of the night.
SuccessExitStatus=3
TimeoutStartSec=6h
Nice=5
UMask=0077
NoNewPrivileges=yes
",
        name = schedule.name,
        root = root.replace('%', "%%"),
        home = environment(),
        program = word(&program.display().to_string()),
        scheduled = word(&schedule.name),
    )
}

/// A system service has no home of its own: the history and the keys are where they are now.
fn environment() -> String {
    let line = |name: &str| std::env::var(name).ok().map(|value| format!("Environment={}\n", quoted(&format!("{name}={value}"))));
    ["HOME", "XDG_STATE_HOME", "SOC_PROVISION_HISTORY"].into_iter().filter_map(line).collect()
}

fn timer(schedule: &Schedule, at: &str) -> String {
    format!(
        "# Written by `soc-provision schedule`.
[Unit]
Description=Drift of {name}, by soc-provision

[Timer]
OnCalendar={at}
RandomizedDelaySec=5min
# A night that the controller slept through is made up for.
Persistent=true

[Install]
WantedBy=timers.target
",
        name = schedule.name
    )
}

/// Installs, or only shows, a schedule.
pub(super) fn install(schedule: &Schedule, place: &Path, arguments: &ScheduleArgs) -> Result<Exit, String> {
    let home = Home::of(arguments)?;
    check_calendar(&arguments.at)?;
    let program = std::env::current_exe().map_err(|error| format!("cannot find out where this program is: {error}"))?;
    let unit = unit(schedule);
    let files = [(format!("{unit}.service"), service(schedule, &program)), (format!("{unit}.timer"), timer(schedule, &arguments.at))];
    if arguments.print {
        for (name, text) in &files {
            print(&format!("# {}\n{text}\n", home.directory.join(name).display()));
        }
        return Ok(Exit::Fine);
    }
    make_directory(place)?;
    let settings = serde_json::to_string_pretty(schedule).map_err(|error| error.to_string())?;
    let written = |path: &Path, text: &str| {
        whole_file(path, text.as_bytes()).map_err(|error| format!("`{}` cannot be written: {error}", path.display()))
    };
    written(&place.join(format!("{}.json", schedule.name)), &format!("{settings}\n"))?;
    std::fs::create_dir_all(&home.directory).map_err(|error| format!("`{}` cannot be made: {error}", home.directory.display()))?;
    for (name, text) in &files {
        let path = home.directory.join(name);
        written(&path, text)?;
        readable(&path)?;
    }
    home.systemctl(&["daemon-reload"])?;
    home.systemctl(&["enable", "--now", &format!("{unit}.timer")])?;
    print(&format!("drift of {} runs at {} ({unit}.timer)\n", schedule.name, arguments.at));
    if home.units == Units::User {
        complain("note: a user's timers run while the user is logged in; `loginctl enable-linger` makes them run always");
    }
    Ok(Exit::Fine)
}

/// Units are everybody's to read, as systemd warns about others; they hold nothing secret.
fn readable(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).map_err(|error| format!("`{}`: {error}", path.display()))
}

/// A directory of the user's own.
pub(super) fn make_directory(place: &Path) -> Result<(), String> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(place);
    made.map_err(|error| format!("`{}` cannot be made: {error}", place.display()))
}

/// Asks systemd whether it understands the time, where systemd is.
fn check_calendar(at: &str) -> Result<(), String> {
    if at.contains(['\n', '\r']) {
        return Err("`--at` is one line".to_owned());
    }
    let Ok(out) = Command::new("systemd-analyze").args(["calendar", "--", at]).output() else { return Ok(()) };
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(format!(
        "systemd does not understand `--at {at}`: {said}\nhint: `02:30`, `Mon..Fri 02:30`, `*-*-01 04:00`, `hourly`; see `man systemd.time`"
    ))
}

/// Takes a schedule away.
pub(super) fn remove(schedule: &Schedule, place: &Path, arguments: &ScheduleArgs) -> Result<Exit, String> {
    let home = Home::of(arguments)?;
    let unit = unit(schedule);
    if home.directory.join(format!("{unit}.timer")).exists() {
        home.systemctl(&["disable", "--now", &format!("{unit}.timer")])?;
    }
    let mut paths: Vec<PathBuf> = ["service", "timer"].iter().map(|kind| home.directory.join(format!("{unit}.{kind}"))).collect();
    paths.extend(["json", "state", "lock"].iter().map(|kind| place.join(format!("{}.{kind}", schedule.name))));
    for path in paths {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("`{}` cannot be removed: {error}", path.display()));
            }
            _ => {}
        }
    }
    home.systemctl(&["daemon-reload"])?;
    print(&format!("{unit}.timer is gone\n"));
    Ok(Exit::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_quote_what_they_name() {
        let schedule = Schedule { name: "prod".to_owned(), root: PathBuf::from("/srv/soc 100%"), ..Schedule::default() };
        let text = service(&schedule, Path::new("/opt/a b/$x/soc-provision"));
        assert!(text.contains("ExecStart=\"/opt/a b/$$x/soc-provision\" schedule --now --installed \"prod\"\n"), "{text}");
        assert!(text.contains("WorkingDirectory=/srv/soc 100%%\n"), "{text}");
        assert!(timer(&schedule, "Mon 02:30").contains("OnCalendar=Mon 02:30\n"));
    }
}
