//! What `plan` and `drift` report of a host, which is changed by neither.

use std::collections::BTreeSet;

use super::{HostRun, READ_DEADLINE, session_failure};
use crate::diagnostic::{Failure, FailureClass};
use crate::engine::plan::{self, Diffs};
use crate::engine::undeclared::{self, Undeclared};
use crate::engine::{condition, findings};
use crate::event::{EventKind, Finding, Outcome, TaskReport};
use crate::resource::observe::{Answer, Observations};
use crate::resource::{Place, interview};
use crate::transport::Frame;

impl HostRun {
    /// What nobody declared in places that the project owns, and places that could not be looked at.
    #[must_use]
    pub fn undeclared(&self, seen: &Observations) -> (Vec<Undeclared>, Vec<(Place, String)>) {
        if self.job.partial {
            return (Vec::new(), Vec::new());
        }
        undeclared::find(&self.claims(), seen, &self.login())
    }

    /// Marks what is accepted, and weighs what is weighed; worst first.
    pub fn weigh(&self, findings: &mut [Finding], found: &[Undeclared]) {
        self.accept_inherited(findings, found);
        findings::weigh(findings, &self.claims(), &jiff::Zoned::now().date().to_string());
    }

    /// Reports the plan and everything else in which the host differs from the repository.
    ///
    /// # Errors
    /// If the host is lost while contents are read, or the project contradicts itself.
    pub async fn report_drift(&mut self) -> Result<(), Failure> {
        self.report_plan().await?;
        let (found, blind) = self.undeclared(&self.observations);
        let mut all = findings::of_plans(&self.program, &self.plans, &self.diffs);
        all.extend(findings::of_places(&found, &blind));
        all.extend(condition::find(&self.observations, &self.state.owed));
        let ailing = self.ailing().await?;
        all.extend(ailing.into_iter().map(|(title, role, why)| Finding { role, ..condition::finding("health", &title, why) }));
        self.weigh(&mut all, &found);
        for finding in &all {
            self.emit(EventKind::Finding(finding.clone()));
        }
        self.findings = all;
        if let Some(holder) = &self.state.held_by {
            let get = |key: &str| holder.get(key).map_or("unknown", String::as_str);
            let text = format!(
                "{}: run {} of {} from {} is under way, so what drift says may be old already",
                self.name,
                get("run"),
                get("who"),
                get("from")
            );
            self.emit(EventKind::Warning { text });
        }
        let reasons = self.job.cross_check(self);
        if reasons.is_empty() {
            return Ok(());
        }
        let mut failure = Failure::new(FailureClass::Refused, "what the playbook declares contradicts itself");
        failure.causes = reasons.into_iter().map(|reason| self.with_place(reason)).collect();
        Err(failure)
    }

    /// Reports the plan, with the old contents of files read first if diffs are wanted.
    ///
    /// # Errors
    /// If the host is lost while contents are read.
    pub async fn report_plan(&mut self) -> Result<(), Failure> {
        let diffs = self.read_for_diffs().await?;
        let mut notified = BTreeSet::new();
        for (play, index) in self.program.straight() {
            let Some(plan) = self.plans.get(&index) else { continue };
            let report = plan::report(&self.program, play, index, plan, &diffs);
            self.count_planned(&report.outcome);
            if report.outcome.is_pending() {
                notified.extend(self.program.tasks[index].notify.iter().cloned());
            }
            self.emit(EventKind::Task(report));
        }
        notified.extend(self.state.owed.iter().cloned());
        for play in &self.program.plays {
            for handler in play.handlers.iter().filter(|handler| handler.names.iter().any(|name| notified.contains(name))) {
                let task = &self.program.tasks[handler.task];
                self.emit(EventKind::Task(TaskReport {
                    play: play.index,
                    title: task.title.clone(),
                    role: task.role.clone(),
                    place: Some(task.place()),
                    handler: true,
                    outcome: Outcome::WouldChange,
                    resources: task.resources.iter().map(|resource| plan::notified(resource.as_ref())).collect(),
                    milliseconds: 0,
                }));
            }
        }
        self.diffs = diffs;
        Ok(())
    }

    fn count_planned(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Skipped { .. } => self.recap.skipped += 1,
            Outcome::Failed { .. } => {}
            Outcome::WouldChange => {
                self.recap.ok += 1;
                self.recap.changed += 1;
            }
            _ => self.recap.ok += 1,
        }
        if outcome.is_pending() {
            self.pending += 1;
        }
    }

    async fn read_for_diffs(&self) -> Result<Diffs, Failure> {
        if !self.job.diff {
            return Ok(Diffs::new());
        }
        self.contents(&plan::paths_for_diffs(self.plans.values())).await
    }

    /// Reads files for diffs, up to 1 MiB each, in one round trip.
    pub(in crate::engine) async fn contents(&self, paths: &[String]) -> Result<Diffs, Failure> {
        if paths.is_empty() {
            return Ok(Diffs::new());
        }
        let secret = |path: &String| crate::resource::Question::SecretFile(path.clone());
        let mut questions: Vec<_> = paths.iter().cloned().map(crate::resource::Question::Content).collect();
        questions.extend(paths.iter().map(secret));
        let nonce = self.job.nonce();
        let frame = Frame { deadline: READ_DEADLINE, keep: 64 << 20, ..Frame::new(interview::script(&questions, &nonce)) };
        let output = self.session()?.run(frame).await.map_err(|error| session_failure("reading files for diffs", &error))?;
        let seen = interview::parse(&questions, &nonce, &output.stdout);
        let held_secret =
            |path: &String| matches!(seen.get(&secret(path)), Some(Answer::SecretFile(Some(state))) if state.recorded.is_some());
        let content = |(path, question): (&String, &crate::resource::Question)| match seen.get(question) {
            Some(Answer::Content(Some(_))) if held_secret(path) => Some(b"(held a secret: not shown)\n".to_vec()),
            Some(Answer::Content(content)) => content.clone(),
            _ => None,
        };
        Ok(paths.iter().cloned().zip(paths.iter().zip(&questions).map(content)).collect())
    }
}
