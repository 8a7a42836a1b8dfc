//! Verifying: health checks, all of a host's at once. Commands and containers go in one script;
//! http and tcp checks go through tunnels of the same connection, or straight from outside.

use std::time::{Duration, Instant};

use crate::diagnostic::{Failure, FailureClass, printable};
use crate::engine::failure::NOT_SHOWN;
use crate::engine::host::{HostRun, session_failure, text};
use crate::engine::{http, journal};
use crate::event::{CheckReport, EventKind};
use crate::resource::Check;
use crate::resource::check::{CheckKind, Vantage};
use crate::shell::Script;
use crate::transport::{Frame, Output, PendingReply, Session, SessionError};

/// The least that one try of a check gets, however little is left of its time.
const LEAST: Duration = Duration::from_secs(5);
/// How much later than a check itself the session gives it up.
const GRACE: Duration = Duration::from_secs(15);
/// Said of checks that come after one that only the end of the session ended.
const NOT_LOOKED_AT: &str = "not looked at: a check before it could not be stopped";

struct Pending {
    title: String,
    role: Option<String>,
    check: Check,
    started: Instant,
    next: Instant,
}

impl Pending {
    /// How long the next try may take: as long as the check says, within what is left of its time.
    fn limit(&self) -> Duration {
        self.check.each.min(self.check.within.saturating_sub(self.started.elapsed()).max(LEAST))
    }
}

impl HostRun {
    /// Runs every check of every play of the host, and records the run's end on the host in the
    /// same round trip.
    ///
    /// # Errors
    /// [`FailureClass::Unhealthy`] with every failed check as a cause.
    pub async fn verify_all(&mut self) -> Result<(), Failure> {
        let plays: Vec<usize> = (0..self.program.plays.len()).collect();
        let mut checks = Vec::new();
        for play in plays {
            checks.extend(self.checks_of(play, |_| true));
        }
        self.take_over().await?;
        if checks.is_empty() && !self.changed {
            return self.part().await;
        }
        let recorded = self.record_end("ok").await?;
        let outcome = self.run_checks(checks).await;
        if let Some(reply) = recorded {
            reply.wait().await.map_err(|error| session_failure("recording the run", &error))?;
        }
        // A check that nothing ends takes the session along; what the host is told then is lost too.
        if outcome.is_err() && self.session()?.is_open() {
            if let Some(reply) = self.record_end("unhealthy").await? {
                reply.wait().await.map_err(|error| session_failure("recording the run", &error))?;
            }
        }
        outcome
    }

    /// Runs the checks of one play (`gate: health` on a play).
    ///
    /// # Errors
    /// As [`HostRun::verify_all`].
    pub async fn verify_play(&mut self, play: usize) -> Result<(), Failure> {
        match self.program.plays.iter().position(|candidate| candidate.index == play) {
            Some(position) => self.verify_where(position, |_| true).await,
            None => Ok(()),
        }
    }

    /// Runs the checks of one play whose role is wanted.
    pub(super) async fn verify_where(&mut self, play: usize, wanted: impl Fn(Option<&str>) -> bool) -> Result<(), Failure> {
        let checks = self.checks_of(play, wanted);
        self.run_checks(checks).await
    }

    /// Every check of the host, tried once: what is not well now is not waited for. Gives title,
    /// whether it passed, and what was seen.
    ///
    /// # Errors
    /// If the host is lost.
    pub async fn health_now(&self) -> Result<Vec<(String, bool, String)>, Failure> {
        let checks: Vec<Pending> = (0..self.program.plays.len()).flat_map(|play| self.checks_of(play, |_| true)).collect();
        if checks.is_empty() {
            return Ok(Vec::new());
        }
        self.doing(format!("checking health ({} checks)", checks.len()));
        let outcomes = try_all(&*self.session()?, &self.target.address, &checks).await?;
        let said = checks.into_iter().zip(outcomes).map(|(pending, outcome)| match outcome {
            Ok(detail) => (pending.title, true, detail),
            Err(detail) => (pending.title, false, detail),
        });
        Ok(said.collect())
    }

    /// One try of every check that only looks, for drift: title, role, and why it failed. Commands
    /// are left out: they are their author's, and may write.
    ///
    /// # Errors
    /// If the host is lost.
    pub(super) async fn ailing(&mut self) -> Result<Vec<(String, Option<String>, String)>, Failure> {
        let plays = 0..self.program.plays.len();
        let mut checks: Vec<Pending> = plays.flat_map(|play| self.checks_of(play, |_| true)).collect();
        checks.retain(|pending| !matches!(pending.check.kind, CheckKind::Command { .. }));
        if checks.is_empty() {
            return Ok(Vec::new());
        }
        self.doing(format!("looking at health ({} checks)", checks.len()));
        let session = self.session()?;
        let outcomes = try_all(&session, &self.target.address, &checks).await?;
        let starting = |why: &str| why.split(", ").all(|one| one.ends_with("(starting)"));
        let failed = checks.into_iter().zip(outcomes).filter_map(|(pending, outcome)| match outcome {
            Err(why) if !starting(&why) => Some((pending.title, pending.role, why)),
            _ => None,
        });
        Ok(failed.collect())
    }

    fn checks_of(&self, play: usize, wanted: impl Fn(Option<&str>) -> bool) -> Vec<Pending> {
        let now = Instant::now();
        let play = &self.program.plays[play];
        let declared = play.checks.iter().map(|task| (task.title.clone(), task.role.clone(), task.check.clone()));
        let own = crate::engine::program::tasks_in(&play.nodes).into_iter().flat_map(|index| {
            let task = &self.program.tasks[index];
            task.resources.iter().flat_map(|resource| resource.checks()).map(|check| (check.id.clone(), task.role.clone(), check))
        });
        declared
            .chain(own)
            .filter(|(_, role, _)| wanted(role.as_deref()))
            .map(|(title, role, check)| Pending { title, role, check, started: now, next: now })
            .collect()
    }

    /// Nothing was changed and nothing is to be checked: the run's end is recorded on the host as
    /// a last word, which nobody waits for.
    async fn part(&self) -> Result<(), Failure> {
        if !self.job.mode.takes_lock() {
            return Ok(());
        }
        self.session()?.part(self.end_frame("ok")).await.map_err(|error| session_failure("recording the run", &error))
    }

    async fn record_end(&self, result: &str) -> Result<Option<PendingReply>, Failure> {
        if !self.job.mode.takes_lock() {
            return Ok(None);
        }
        let reply = self.session()?.submit(self.end_frame(result)).await;
        reply.map(Some).map_err(|error| session_failure("recording the run", &error))
    }

    fn end_frame(&self, result: &str) -> Frame {
        let last = journal::Last { result: result.to_owned(), ..self.job.last.clone() };
        let script = crate::engine::survive::clean(&last.run).append(journal::finish(&last));
        Frame { unstoppable: true, ..Frame::new(script) }
    }

    /// Tries all checks together until each has passed or its time is over.
    async fn run_checks(&mut self, mut checks: Vec<Pending>) -> Result<(), Failure> {
        let mut causes = Vec::new();
        if !checks.is_empty() {
            self.doing(format!("checking health ({} checks)", checks.len()));
        }
        while !checks.is_empty() {
            let now = Instant::now();
            let (due, later): (Vec<_>, Vec<_>) = checks.into_iter().partition(|pending| pending.next <= now);
            let session = self.session()?;
            let mut tried: Vec<(Pending, Outcome)> = Vec::new();
            let outcomes = try_all(&session, &self.target.address, &due).await?;
            tried.extend(due.into_iter().zip(outcomes));
            if session.is_open() {
                checks = later;
            } else {
                tried.extend(later.into_iter().map(|pending| (pending, Err(NOT_LOOKED_AT.to_owned()))));
                checks = Vec::new();
            }
            let over = self.job.interrupted() || !session.is_open();
            for (mut pending, outcome) in tried {
                if outcome.is_err() && !over && pending.started.elapsed() < pending.check.within {
                    pending.next = Instant::now() + pending.check.every;
                    checks.push(pending);
                } else {
                    causes.extend(self.checked(pending, outcome));
                }
            }
            if let Some(next) = checks.iter().map(|pending| pending.next).min() {
                tokio::time::sleep_until(next.into()).await;
            }
        }
        self.checked = true;
        if causes.is_empty() {
            return Ok(());
        }
        let mut failure = Failure::new(FailureClass::Unhealthy, format!("{} health checks failed", causes.len()));
        if causes.len() == 1 {
            "a health check failed".clone_into(&mut failure.message);
        }
        failure.causes = causes;
        Err(failure)
    }

    /// Reports how a check ended; what it failed of.
    fn checked(&self, pending: Pending, outcome: Outcome) -> Option<String> {
        let milliseconds = u64::try_from(pending.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (passed, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        let cause = (!passed).then(|| format!("{}: {detail}", pending.title));
        self.emit(EventKind::Check(CheckReport { title: pending.title, role: pending.role, passed, detail, milliseconds }));
        cause
    }
}

type Outcome = Result<String, String>;

/// One try of every check: one round trip for those on the host, tunnels all at once. A try that
/// does not end has failed, also where only the end of the session ends it.
async fn try_all(session: &Session, address: &str, checks: &[Pending]) -> Result<Vec<Outcome>, Failure> {
    let limits: Vec<Duration> = checks.iter().map(Pending::limit).collect();
    let mut replies = Vec::new();
    for (pending, limit) in checks.iter().zip(&limits) {
        replies.push(match host_script(&pending.check.kind) {
            Some(script) => {
                let script = script.within(limit.as_secs().max(1));
                Some(session.submit(Frame { deadline: *limit + GRACE, keep: 64 << 10, ..Frame::new(script) }).await)
            }
            None => None,
        });
    }
    let network = checks.iter().zip(&limits).map(|(pending, limit)| async {
        match tokio::time::timeout(*limit, network_check(session, address, &pending.check.kind)).await {
            Ok(outcome) => outcome,
            Err(_) => Some(Err(format!("no answer within {}", in_seconds(*limit)))),
        }
    });
    let network = futures::future::join_all(network).await;
    let mut outcomes = Vec::with_capacity(checks.len());
    let mut endless = false;
    for (((pending, limit), reply), network) in checks.iter().zip(limits).zip(replies).zip(network) {
        let Some(reply) = reply else {
            outcomes.push(network.unwrap_or_else(|| Err("nothing to check".to_owned())));
            continue;
        };
        let output = match reply {
            Ok(reply) => reply.wait().await,
            Err(error) => Err(error),
        };
        outcomes.push(match output {
            Ok(output) if output.status == Script::ENDED => Err(no_end(limit)),
            Ok(output) => answer(&pending.check.kind, &output),
            Err(SessionError::Deadline(_)) => {
                endless = true;
                Err(no_end(limit))
            }
            Err(SessionError::Lost(_)) if endless => Err(NOT_LOOKED_AT.to_owned()),
            Err(error) => return Err(session_failure("checking health", &error)),
        });
    }
    Ok(outcomes)
}

/// What the host's answer to a check says of it.
fn answer(kind: &CheckKind, output: &Output) -> Outcome {
    let outcome = host_outcome(kind, output.status, &text(output), &String::from_utf8_lossy(&output.stderr));
    match (kind, output.unfit_to_show) {
        (CheckKind::Command { .. }, true) => outcome.map(|_| String::new()).map_err(|why| not_shown(&why)),
        _ => outcome,
    }
}

fn no_end(limit: Duration) -> String {
    format!("no end within {}; it was stopped", in_seconds(limit))
}

fn in_seconds(limit: Duration) -> String {
    format!("{} s", limit.as_secs().max(1))
}

/// The script of a check that runs on the host.
fn host_script(kind: &CheckKind) -> Option<Script> {
    match kind {
        CheckKind::Command { script, .. } => Some(script.clone()),
        CheckKind::ContainerHealthy { project, container } => {
            let filter = match (project, container) {
                (Some(project), _) => format!("label=com.docker.compose.project={project}"),
                (None, Some(container)) => format!("name=^{container}$"),
                (None, None) => return None,
            };
            Some(Script::sh(
                "ids=$(docker ps -aq --no-trunc --filter {}) || exit 1; [ -n \"$ids\" ] || { echo 'no such container' >&2; exit 1; }\ndocker inspect --format '{{.Name}} {{.State.Status}} {{.State.ExitCode}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{if index .Config.Labels \"soc.config-sha256\"}}{{if index .Config.Labels \"soc.one-shot\"}}once{{else}}service{{end}}{{else}}foreign{{end}}/{{.HostConfig.RestartPolicy.Name}}' $ids",
                &[&filter],
            ))
        }
        _ => None,
    }
}

/// A failure without what the host said in it.
fn not_shown(why: &str) -> String {
    let start = why.split("; it starts").next().unwrap_or_default().split(": ").next().unwrap_or_default();
    format!("{start} ({NOT_SHOWN})")
}

fn host_outcome(kind: &CheckKind, status: i32, stdout: &str, stderr: &str) -> Outcome {
    let said = printable(stderr.lines().last().or_else(|| stdout.lines().last()).unwrap_or_default());
    if status != 0 {
        return Err(format!("status {status}: {said}"));
    }
    match kind {
        CheckKind::Command { contains: Some(wanted), .. } if !stdout.contains(wanted.as_str()) => {
            Err(format!("the output lacks `{wanted}`: {said}"))
        }
        CheckKind::ContainerHealthy { .. } => containers_outcome(stdout),
        _ => Ok(printable(stdout.lines().next().unwrap_or_default())),
    }
}

/// A service passes if it runs and is healthy where it has a health check; a one-shot that ended
/// well, and is not to be restarted, passes too.
fn containers_outcome(stdout: &str) -> Outcome {
    let mut bad = Vec::new();
    let mut count = 0;
    for line in stdout.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, state, code, health, restart] = words[..] else { continue };
        count += 1;
        // Of containers that stacks made it is known which end by themselves; of others it is guessed.
        let guessed =
            restart.starts_with("foreign") && (restart.ends_with("/no") || restart.ends_with("/on-failure") || restart.ends_with('/'));
        let one_shot = state == "exited" && code == "0" && (restart.starts_with("once") || guessed);
        let running = state == "running" && matches!(health, "healthy" | "none");
        if !one_shot && !running {
            bad.push(printable(&format!(
                "{} is {state}{}",
                name.trim_start_matches('/'),
                if health == "none" || state != "running" { String::new() } else { format!(" ({health})") }
            )));
        }
    }
    if bad.is_empty() { Ok(format!("{count} containers healthy")) } else { Err(bad.join(", ")) }
}

async fn network_check(session: &Session, address: &str, kind: &CheckKind) -> Option<Outcome> {
    Some(match kind {
        CheckKind::Http { url, status, contains, verify_tls, ca_pem, from } => {
            let request = http::Request { url, verify_tls: *verify_tls, ca_pem: ca_pem.as_deref() };
            let response = match from {
                Vantage::Host => {
                    http::get(&request, |host, port| async move { session.tunnel(&host, port).await.map_err(|failure| failure.message) })
                        .await
                }
                Vantage::Outside => http::get(&request, |host, port| async move { session.from_outside(&host, port).await }).await,
            };
            response.and_then(|response| {
                let masker = session.masker();
                let masked = http::Response { body: masker.mask_bytes(&response.body), ..response };
                masked.check(status, contains.as_deref()).map_err(|why| if masker.is_blind() { not_shown(&why) } else { why })
            })
        }
        CheckKind::Tcp { address: to, port, from } => match connect(session, to, *port, *from, address).await {
            Ok(()) => Ok(format!("port {port} accepts")),
            Err(why) => Err(why),
        },
        CheckKind::PortClosed { address: to, port, from } => match connect(session, to, *port, *from, address).await {
            Ok(()) => Err(format!("port {port} is open")),
            Err(_) => Ok(format!("port {port} is closed")),
        },
        CheckKind::Command { .. } | CheckKind::ContainerHealthy { .. } => return None,
    })
}

async fn connect(session: &Session, to: &str, port: u16, from: Vantage, host_address: &str) -> Result<(), String> {
    match from {
        Vantage::Host => session.tunnel(to, port).await.map(drop).map_err(|failure| failure.message),
        Vantage::Outside => {
            let to = if matches!(to, "localhost" | "127.0.0.1" | "") { host_address } else { to };
            session.from_outside(to, port).await.map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_must_run_and_be_healthy() {
        assert_eq!(
            containers_outcome("/web running 0 healthy service/always\n/job exited 0 none foreign/no\n/once exited 0 none once/no\n"),
            Ok("3 containers healthy".into())
        );
        assert_eq!(
            containers_outcome(
                "/web running 0 unhealthy service/always\n/db exited 1 none foreign/always\n/app exited 0 none service/no\n"
            ),
            Err("web is running (unhealthy), db is exited, app is exited".into())
        );
    }
}
