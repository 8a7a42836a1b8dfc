//! After a connection that died with answers outstanding: what was under way is observed again,
//! never repeated blindly. Of what cannot be observed the host's own record is asked.

use std::collections::HashMap;
use std::time::Duration;

use crate::diagnostic::{Failure, FailureClass};
use crate::engine::host::{HostRun, session_failure, text};
use crate::engine::program::TaskIndex;
use crate::resource::ResourceId;
use crate::shell::Script;
use crate::transport::{Frame, RECORDS};

/// A step within the run: task, resource of the task, step of the resource.
pub(super) type Moment = (TaskIndex, usize, usize);

/// A sent step whose effect cannot be observed.
pub(super) struct Once {
    pub(super) place: Moment,
    /// The name of its record on the host.
    pub(super) name: String,
    pub(super) deadline: Duration,
}

/// What became of such a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    With(i32),
    /// It began, and its shell died before it ended.
    Unknown,
}

/// What a lost connection left open.
#[derive(Default)]
pub(super) struct Lost {
    pub(super) tasks: Vec<TaskIndex>,
    pub(super) once: Vec<Once>,
    /// Steps of the first task whose answers had come.
    pub(super) answered: Vec<Moment>,
}

impl HostRun {
    /// Makes the connection again and finishes the tasks that were under way.
    pub(super) async fn recover(&mut self, lost: Lost, why: &str) -> Result<(), Failure> {
        if self.job.interrupted() {
            return Err(Failure::new(FailureClass::Interrupted, "interrupted"));
        }
        self.patience = lost.once.iter().map(|once| once.deadline).max();
        self.reconnect(why).await?;
        self.changed = true;
        self.recorded = self.read_records(&lost.once).await?;
        self.recorded.extend(lost.answered.into_iter().map(|place| (place, Ended::With(0))));
        self.replan(&lost.tasks).await?;
        let finished = self.again(lost.tasks).await;
        // Whatever came of it: a handler that runs again later is not what was recorded.
        self.recorded.clear();
        finished?;
        self.drain().await
    }

    async fn again(&mut self, tasks: Vec<TaskIndex>) -> Result<(), Failure> {
        for index in tasks {
            self.apply_task(index, false).await?;
        }
        Ok(())
    }

    async fn read_records(&self, once: &[Once]) -> Result<HashMap<Moment, Ended>, Failure> {
        if once.is_empty() {
            return Ok(HashMap::new());
        }
        let mut script = Script::sh("cd {} || exit 0\n", &[RECORDS]);
        for Once { name, .. } in once {
            script = script.then("n={}; r=; [ -e $n.rc ] && read -r r <$n.rc; [ -e $n.begun ] && echo \"$n ${r:-?}\"\n", &[name]);
        }
        let output = self.session()?.run(Frame::new(script.then("true\n", &[]))).await;
        let output = output.map_err(|error| session_failure("asking what was done", &error))?;
        let said = text(&output);
        let ended: HashMap<&str, Ended> = said
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, status)| (name, status.parse().map_or(Ended::Unknown, Ended::With)))
            .collect();
        Ok(once.iter().filter_map(|once| Some((once.place, *ended.get(once.name.as_str())?))).collect())
    }

    /// What is known of a step that was sent over a connection that died. `None`: it never began.
    /// `Some(Ok)`: it is done. Otherwise the failure to report.
    pub(super) fn settled(&mut self, place: Moment, id: &ResourceId, title: &str) -> Option<Result<(), Failure>> {
        let ended = self.recorded.remove(&place)?;
        self.changed = true;
        let failed = |what: String| Failure::new(FailureClass::StepFailed, format!("{id}: {what}"));
        Some(match ended {
            Ended::With(0) => Ok(()),
            Ended::With(status) => {
                Err(failed(format!("`{title}` failed with status {status}; what it printed was lost with the connection")))
            }
            Ended::Unknown => Err(failed(format!("the connection was lost while `{title}` ran, and whether it was done is not known"))
                .hint("look at the host and run again; with `creates`, `removes`, `unless` or `onlyif` the next run can tell")),
        })
    }
}
