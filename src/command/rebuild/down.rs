//! Taking one host down, and remembering on it how far that came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::diagnostic::{Failure, FailureClass, printable};
use crate::engine::apply::Walk;
use crate::engine::host::HostRun;
use crate::engine::operate::Operation;
use crate::event::Outcome;
use crate::resource::{Resource, Teardown, teardown};
use crate::shell::Script;

/// Takes hosts down.
pub(super) struct Down {
    wish: Teardown,
    fresh: bool,
    /// Digest of the project: a rebuild goes on only with the same.
    project: String,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    /// Hosts that an earlier rebuild had taken down already.
    continued: BTreeSet<String>,
    seconds: BTreeMap<String, f64>,
}

impl Down {
    pub(super) fn new(wish: Teardown, fresh: bool, project: String) -> Self {
        Self { wish, fresh, project, said: Mutex::default() }
    }

    /// Hosts that were down already.
    pub(super) fn continued(&self) -> BTreeSet<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).continued.clone()
    }

    /// How long a host took.
    pub(super) fn seconds(&self, host: &str) -> Option<f64> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).seconds.get(host).copied()
    }

    /// What was asked for, in a word: a rebuild that was to take more down does not go on with one
    /// that took less.
    fn wanted(&self) -> String {
        let wish = self.wish;
        format!(
            "{}:{}{}{}",
            &self.project[..16.min(self.project.len())],
            u8::from(wish.wipe_data),
            u8::from(wish.images),
            u8::from(wish.docker)
        )
    }

    async fn take_down(&self, host: &mut HostRun) -> Result<(), Failure> {
        let since = Instant::now();
        if !self.fresh && self.was_down(host).await? {
            self.said.lock().unwrap_or_else(PoisonError::into_inner).continued.insert(host.name.clone());
            host.report("torn down by an earlier rebuild", Outcome::Ok, since);
            return Ok(());
        }
        // A host that could not be brought up again is not taken down.
        host.can_apply().await?;
        let goes = teardown::of(host.resources(), self.wish);
        for resource in goes {
            if host.interrupted() {
                return Err(Failure::new(FailureClass::Interrupted, "interrupted; run `rebuild` again to go on"));
            }
            take_one(host, resource.as_ref()).await?;
        }
        note(host, "noting that the host is down", remember(&self.wanted())).await?;
        self.said.lock().unwrap_or_else(PoisonError::into_inner).seconds.insert(host.name.clone(), since.elapsed().as_secs_f64());
        Ok(())
    }

    /// Whether a rebuild of the same project and the same wish took the host down, and nothing was
    /// applied to its end since.
    async fn was_down(&self, host: &mut HostRun) -> Result<bool, Failure> {
        let output = host.script("looking for an earlier rebuild", look(), Duration::from_secs(30)).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut words = text.split_whitespace();
        let (Some(wanted), Some(last)) = (words.next(), words.next()) else { return Ok(false) };
        Ok(wanted == self.wanted() && last == host.state.last.get("run").map_or("none", String::as_str))
    }
}

impl Operation for Down {
    fn run<'a>(&'a self, host: &'a mut HostRun) -> Walk<'a> {
        Box::pin(self.take_down(host))
    }
}

async fn take_one(host: &mut HostRun, resource: &dyn Resource) -> Result<(), Failure> {
    let since = Instant::now();
    let plan = host.plan_alone(resource).await?;
    if plan.is_in_sync() {
        return Ok(());
    }
    host.steps(&resource.id(), &plan.steps).await?;
    host.report(format!("take down {}", resource.id()), Outcome::Changed, since);
    Ok(())
}

async fn note(host: &mut HostRun, title: &str, script: Script) -> Result<(), Failure> {
    let output = host.script(title, script, Duration::from_secs(30)).await?;
    if output.status == 0 {
        return Ok(());
    }
    Err(Failure::new(FailureClass::StepFailed, format!("{title} failed")).because(printable(&String::from_utf8_lossy(&output.stderr))))
}

/// The note holds what was wanted and the last run that was applied to its end; a later apply
/// makes it void by being a later one.
fn remember(wanted: &str) -> Script {
    Script::sh(
        "cd /var/lib/soc-provision && umask 077 && l=none && if [ -r last ]; then while read -r k v; do [ \"$k\" = run ] && l=$v; done <last; fi; printf '%s %s\\n' {} \"$l\" >rebuild.new && sync rebuild.new && mv -f rebuild.new rebuild\n",
        &[wanted],
    )
}

fn look() -> Script {
    Script::sh("cat /var/lib/soc-provision/rebuild 2>/dev/null || :\n", &[])
}
