//! Everything that refuses a host before anything is touched.

use super::HostRun;
use crate::diagnostic::{Failure, FailureClass, printable};
use crate::engine::plan::Decision;

impl HostRun {
    /// Refuses a distribution that nobody proved this on, before anything is touched.
    pub(super) fn check_supported(&self) -> Result<(), Failure> {
        const SUPPORTED: [(&str, &str); 4] = [("Debian", "12"), ("Debian", "13"), ("Ubuntu", "22.04"), ("Ubuntu", "24.04")];
        let (name, version) = (self.facts.distribution(), self.facts.version());
        if SUPPORTED.contains(&(name, version)) || !self.job.mode.changes() {
            return Ok(());
        }
        Err(Failure::new(FailureClass::Unsupported, format!("`{name} {version}` is not supported"))
            .hint("supported are Debian 12 and 13, Ubuntu 22.04 and 24.04; nothing was touched"))
    }

    /// Refuses a host without the tools that questions and steps are made of, before anything is touched.
    pub(super) fn check_tools(&self) -> Result<(), Failure> {
        let missing = self.facts.missing_tools();
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.iter().map(|tool| format!("`{}`", printable(tool))).collect::<Vec<_>>().join(", ");
        Err(Failure::new(FailureClass::MissingTool, format!("the host has no {names}; nothing was touched"))
            .hint("every Debian and Ubuntu has it: put it back (`apt-get install --reinstall coreutils findutils grep libc-bin`)"))
    }

    /// Whether the plan is exactly the saved one, if one is applied.
    pub(in crate::engine) fn as_saved(&self) -> Result<(), Failure> {
        let Some(only) = &self.job.only else { return Ok(()) };
        let now = self.planned();
        let saved = only.get(&self.name).cloned().unwrap_or_default();
        if now == saved {
            return Ok(());
        }
        let mut failure = Failure::new(FailureClass::MovedOn, "the host is not as it was when the plan was saved; nothing was touched")
            .hint("plan again, look at it, and apply that");
        let place = |entry: &(String, String)| entry.0.splitn(3, '/').nth(2).unwrap_or_default().to_owned();
        failure.causes.extend(
            now.iter().filter(|entry| !saved.contains(entry)).map(|entry| format!("{} would change otherwise than planned", place(entry))),
        );
        failure.causes.extend(
            saved
                .iter()
                .filter(|entry| !now.iter().any(|other| other.0 == entry.0))
                .map(|entry| format!("{} needs no change any more", place(entry))),
        );
        Err(failure)
    }

    /// Everything that refuses, before anything is touched: claims that exclude each other, what
    /// the host lacks, and resources that refuse.
    ///
    /// # Errors
    /// One failure that names each.
    pub fn refusals(&self) -> Result<(), Failure> {
        let conflicts = self.job.cross_check(self);
        let mut reasons: Vec<String> = conflicts.into_iter().map(|conflict| self.with_place(conflict)).collect();
        let short = if self.changed { Vec::new() } else { self.preflight.shortages() };
        let only_short = !short.is_empty() && reasons.is_empty();
        reasons.extend(short);
        let before = reasons.len();
        for (_, index) in self.program.straight() {
            let Some(plan) = self.plans.get(&index) else { continue };
            let task = &self.program.tasks[index];
            for (resource, decision) in task.resources.iter().zip(plan) {
                if let Decision::Refused(reason) = decision {
                    let at = &task.location;
                    reasons.push(format!("{} ({}:{}): {reason}", resource.id(), at.file.display(), at.line));
                }
            }
        }
        if reasons.is_empty() {
            return Ok(());
        }
        let mut failure = if only_short && before == reasons.len() {
            Failure::new(FailureClass::Preflight, "the host lacks what the playbook requires; nothing was touched")
                .hint("`soc-provision preflight` shows who needs what; give the host more, move roles to another, or lower `requires`")
        } else {
            Failure::new(FailureClass::Refused, "the plan was refused; nothing was touched")
        };
        failure.causes = reasons;
        Err(failure)
    }

    /// A sentence that begins with a resource's name, with the place of its task.
    pub(super) fn with_place(&self, sentence: String) -> String {
        let place = self.program.tasks.iter().find_map(|task| {
            let rest = task.resources.iter().find_map(|resource| sentence.strip_prefix(&resource.id().to_string())?.strip_prefix(": "))?;
            Some((task, sentence.len() - rest.len() - 2))
        });
        place.map_or(sentence.clone(), |(task, end)| {
            format!("{} ({}:{}){}", &sentence[..end], task.location.file.display(), task.location.line, &sentence[end..])
        })
    }
}
