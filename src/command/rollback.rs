//! `rollback`: a stack back to a release that its hosts still have. The release that is left is
//! pinned: apply refuses it until it is told otherwise.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use crate::cli::Format;
use crate::cli::rollback::RollbackArgs;
use crate::command::run::{JobOptions, Prepared, load, prepare};
use crate::command::{complain, drive, print};
use crate::diagnostic::{Exit, Failure, FailureClass, nearest, printable};
use crate::engine::Mode;
use crate::engine::apply::Walk;
use crate::engine::host::HostRun;
use crate::engine::operate::Operation;
use crate::event::Outcome;
use crate::resource::compose::host::{self as stack_host, HostState};
use crate::resource::compose_release::{point_in_time, rollback_steps};
use crate::resource::observe::Answer;
use crate::resource::{Resource, ResourceId};

/// Seconds that a service may take where no playbook says it.
const WAIT: u64 = 300;

/// Rolls a stack back, or lists its releases.
pub(super) fn run(arguments: &RollbackArgs) -> Exit {
    let loaded = match load(&arguments.run.playbook, &arguments.run.inventory) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let format = arguments.run.connect.format;
    let quiet = arguments.list;
    let mut run = arguments.run.clone();
    if quiet {
        // The list is the answer; there is no recap to it.
        run.connect.format = Format::Json;
    }
    let options = JobOptions {
        mode: if arguments.list || arguments.check { Mode::Inspect } else { Mode::Operate },
        command: "rollback",
        diff: false,
        break_lock: arguments.break_lock,
        retry_release: true,
    };
    let mut prepared = match prepare(&loaded, &run, &options) {
        Ok(prepared) => prepared,
        Err(exit) => return exit,
    };
    let operation = Arc::new(Rollback::new(arguments, &prepared));
    match Arc::get_mut(&mut prepared.job) {
        Some(job) => job.operation = Some(operation.clone()),
        None => return Exit::Bug,
    }
    let (_, exit) = drive::run(&prepared, if quiet { Format::Text } else { format }, |_, exit| exit);
    let found = operation.found.lock().unwrap_or_else(PoisonError::into_inner);
    if found.values().all(|found| found.state.is_none()) && !found.is_empty() {
        return exit.max(unknown(&arguments.stack, &found));
    }
    if arguments.list {
        print(&if format == Format::Text { text(&arguments.stack, &found) } else { document(&arguments.stack, &found) });
    }
    exit
}

/// Nobody has or declares the stack.
fn unknown(stack: &str, found: &BTreeMap<String, Found>) -> Exit {
    let mut names: Vec<&str> = found.values().flat_map(|found| found.stacks.iter().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    complain(&format!("error: there is no stack `{}` on these hosts; nothing was touched", printable(stack)));
    complain(&match (nearest(stack, names.iter().copied()), names.is_empty()) {
        (Some(near), _) => format!("hint: did you mean `{near}`?"),
        (None, true) => "hint: the playbook declares no `compose_stack` for them".to_owned(),
        (None, false) => format!("hint: the playbook declares {}", names.join(", ")),
    });
    Exit::Usage
}

/// What was found on a host.
#[derive(Default)]
struct Found {
    state: Option<HostState>,
    /// Stacks that the playbook declares for it.
    stacks: Vec<String>,
}

struct Rollback {
    stack: String,
    to: Option<String>,
    who: String,
    list: bool,
    check: bool,
    found: Mutex<BTreeMap<String, Found>>,
}

impl Operation for Rollback {
    fn run<'a>(&'a self, host: &'a mut HostRun) -> Walk<'a> {
        Box::pin(self.one(host))
    }
}

impl Rollback {
    fn new(arguments: &RollbackArgs, prepared: &Prepared) -> Self {
        let holder = &prepared.job.holder;
        Self {
            stack: arguments.stack.clone(),
            to: arguments.to.clone(),
            who: format!("{}@{}", holder.who, holder.from),
            list: arguments.list,
            check: arguments.check,
            found: Mutex::default(),
        }
    }

    async fn one(&self, host: &mut HostRun) -> Result<(), Failure> {
        let started = Instant::now();
        let id = ResourceId::new("compose_stack", &self.stack);
        let declared = host.resources().find(|resource| resource.id() == id);
        let wait = declared.and_then(|stack| stack.checks().first().map(|check| check.within.as_secs())).unwrap_or(WAIT);
        let is_declared = declared.is_some();
        let stacks = host.resources().map(Resource::id).filter(|id| id.kind == "compose_stack").map(|id| id.name).collect();
        let state = self.state(host).await?;
        let exists = state.exists;
        let seen = Found { state: (exists || is_declared).then(|| state.clone()), stacks };
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(host.name.clone(), seen);
        if self.list {
            return Ok(());
        }
        if !exists && !is_declared {
            host.report(self.stack.clone(), Outcome::Skipped { reason: "the stack is not on this host".to_owned() }, started);
            return Ok(());
        }
        if let Some(mark) = state.contained.first() {
            let release = format!("release it first with `soc-provision capture {} --container {} --release`", host.name, mark.name);
            return Err(Failure::new(FailureClass::Refused, format!("{}; nothing was touched", mark.notice())).hint(printable(&release)));
        }
        let (from, to) = target(&self.stack, &state, self.to.as_deref())?;
        let title = format!("{} : release {from} -> {to}", self.stack);
        if self.check {
            host.report(title, Outcome::WouldChange, started);
            return Ok(());
        }
        host.steps(&id, &rollback_steps(&self.stack, Some(&to), &self.who, wait)).await?;
        host.report(title, Outcome::Changed, started);
        Ok(())
    }

    /// The stack's directory on the host, whether the playbook still declares the stack or not.
    async fn state(&self, host: &HostRun) -> Result<HostState, Failure> {
        let question = stack_host::question(&self.stack);
        let asked;
        let answer = if let Some(answer) = host.observed().get(&question) {
            Some(answer)
        } else {
            asked = host.ask(std::slice::from_ref(&question)).await?;
            asked.get(&question)
        };
        let failed = |why: String| Failure::new(FailureClass::StepFailed, "the stack's directory cannot be read").because(printable(&why));
        match answer {
            Some(Answer::Raw(output)) => stack_host::parse(&output.stdout).map_err(failed),
            Some(Answer::Failed(why)) => Err(failed(why.clone())),
            _ => Err(failed("the host did not answer".to_owned())),
        }
    }
}

/// The current release, and the one to go to.
fn target(stack: &str, state: &HostState, wanted: Option<&str>) -> Result<(String, String), Failure> {
    let refuse = |what: String| Failure::new(FailureClass::Refused, what);
    let Some(current) = &state.current else {
        return Err(refuse(format!("stack `{stack}` has no release on this host; nothing was touched")).hint("apply the playbook first"));
    };
    let kept: Vec<&str> = state.by_time().into_iter().filter(|release| state.since(release).is_some()).collect();
    let list = || {
        let others: Vec<&str> = kept.iter().copied().filter(|release| release != current).collect();
        if others.is_empty() { "it has no other".to_owned() } else { format!("it has {}", others.join(", ")) }
    };
    let to = match wanted {
        None => kept.iter().copied().find(|release| release != current).ok_or_else(|| {
            refuse(format!("stack `{stack}` has no release before {current} on this host; nothing was touched"))
                .hint("a host keeps the releases that it was at: change the playbook and apply it instead")
        })?,
        Some(wanted) => {
            let fits: Vec<&str> = kept.iter().copied().filter(|release| !wanted.is_empty() && release.starts_with(wanted)).collect();
            match fits[..] {
                [one] if one == current => {
                    return Err(refuse(format!("release {one} of `{stack}` is current already; nothing was touched")).hint(list()));
                }
                [one] => one,
                [] => {
                    let what = format!("stack `{stack}` has no release `{}` on this host; nothing was touched", printable(wanted));
                    return Err(refuse(what).hint(list()));
                }
                _ => {
                    let what = format!("`{}` is the beginning of several releases of `{stack}`; nothing was touched", printable(wanted));
                    return Err(refuse(what).hint(fits.join(", ")));
                }
            }
        }
    };
    if let Some((migration, _)) = state.in_the_way(to).into_iter().find(|(_, how)| *how != "restore") {
        return Err(refuse(format!(
            "release {to} of `{stack}` cannot read the data any more: migration `{migration}` stands in between; nothing was touched"
        ))
        .hint("declare how its backup is put back in `migrate.restore`, apply that, and roll back then"));
    }
    Ok((current.clone(), to.to_owned()))
}

/// What there is to say about one release.
fn remarks(state: &HostState, release: &str) -> Vec<String> {
    let mut out = Vec::new();
    if state.current.as_deref() == Some(release) {
        out.push("current".to_owned());
    }
    if let Some(pin) = state.pin.as_ref().filter(|pin| pin.release == release) {
        out.push(format!("rolled back by {} at {}, needs --retry-release", printable(&pin.who), point_in_time(pin.when)));
    }
    if let Some((_, when)) = state.failed.as_ref().filter(|(failed, _)| failed == release) {
        out.push(format!("did not get healthy at {}", point_in_time(*when)));
    } else if state.since(release).is_none() {
        out.push("was never current".to_owned());
    }
    for (migration, how) in state.in_the_way(release) {
        out.push(match how {
            "restore" => format!("comes back with the backup from before migration {migration}"),
            _ => format!("cannot read the data since migration {migration}"),
        });
    }
    out
}

fn text(stack: &str, found: &BTreeMap<String, Found>) -> String {
    let mut out = String::new();
    for (host, found) in found {
        let Some(state) = &found.state else {
            out.push_str(&format!("{host}: no stack {stack}\n"));
            continue;
        };
        out.push_str(&format!("{host}: {} releases of {stack}\n", state.releases.len()));
        for release in state.by_time() {
            let since = state.since(release).map_or_else(|| "-".to_owned(), point_in_time);
            let line = format!("  {:<18} {since:<21} {}", printable(release), remarks(state, release).join("; "));
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    out
}

fn document(stack: &str, found: &BTreeMap<String, Found>) -> String {
    let release = |state: &HostState, id: &str| {
        json!({
            "release": id,
            "current": state.current.as_deref() == Some(id),
            "since": state.since(id),
            "remarks": remarks(state, id),
        })
    };
    let hosts: BTreeMap<&String, Vec<Value>> = found
        .iter()
        .filter_map(|(host, found)| {
            let state = found.state.as_ref()?;
            Some((host, state.by_time().into_iter().map(|id| release(state, id)).collect()))
        })
        .collect();
    format!("{}\n", serde_json::to_string_pretty(&json!({"stack": stack, "hosts": hosts})).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> HostState {
        stack_host::parse("E\nC aa11\nR releases/aa11\nR releases/ab22\nR releases/cc33\nR releases/dd44\nH 10 cc33\nH 20 ab22\nH 30 aa11\nM releases/ab22 m1\nM releases/aa11 m1\nJ migrations/m1 done 15 ab22 db incompatible").unwrap()
    }

    #[test]
    fn the_target_is_the_one_before_or_the_one_that_is_meant() {
        let state = state();
        let to = |wanted| target("s", &state, wanted).map(|(_, to)| to).map_err(|failure| failure.message);
        assert_eq!(to(None).unwrap(), "ab22");
        assert_eq!(to(Some("ab2")).unwrap(), "ab22");
        assert!(to(Some("a")).unwrap_err().contains("several"));
        assert!(to(Some("")).unwrap_err().contains("no release ``"));
        assert!(to(Some("dd44")).unwrap_err().contains("no release `dd44`"), "never current");
        assert!(to(Some("aa11")).unwrap_err().contains("current already"));
        assert!(to(Some("cc33")).unwrap_err().contains("migration `m1` stands in between"));
        assert!(target("s", &HostState::default(), None).unwrap_err().message.contains("no release on this host"));
    }

    #[test]
    fn the_list_says_what_stands_in_the_way() {
        let found = BTreeMap::from([("h1".to_owned(), Found { state: Some(state()), stacks: Vec::new() })]);
        let text = text("s", &found);
        assert!(text.contains("aa11               1970-01-01 00:00:30Z  current\n"), "{text}");
        assert!(text.contains("cannot read the data since migration m1") && text.contains("was never current"), "{text}");
    }
}
