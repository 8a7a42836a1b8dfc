//! Telling people what changed: a command, a web address, mail.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Serialize;

use crate::command::schedule::Schedule;
use crate::command::schedule::night::Memory;
use crate::diagnostic::printable;
use crate::engine::http;
use crate::report::findings::Finding;

/// How long each way of telling may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What changed. Names and words for people; no values of secrets, as in every report.
#[derive(Debug, Serialize)]
pub(super) struct News {
    schedule: String,
    subject: String,
    exit: u8,
    exit_before: Option<u8>,
    new: Vec<String>,
    gone: Vec<String>,
    findings: Vec<Finding>,
}

impl News {
    pub(super) fn new(schedule: &Schedule, before: Option<&Memory>, after: &Memory, found: &[Finding]) -> Self {
        let none = Memory::default();
        let was = before.unwrap_or(&none);
        let new: Vec<String> = after.bad.difference(&was.bad).cloned().collect();
        let gone: Vec<String> = was.bad.difference(&after.bad).cloned().collect();
        let word = match after.exit {
            0 => "in sync".to_owned(),
            3 => format!("{} not as declared", after.bad.len()),
            4 => "hosts are unreachable".to_owned(),
            code => format!("the run failed (exit {code})"),
        };
        Self {
            schedule: schedule.name.clone(),
            subject: format!("soc-provision: {}: {word} ({} new, {} gone)", schedule.name, new.len(), gone.len()),
            exit: after.exit,
            exit_before: before.map(|before| before.exit),
            new,
            gone,
            findings: found.iter().filter(|found| found.state.is_bad()).cloned().collect(),
        }
    }

    fn text(&self) -> String {
        let mut out = format!("{}\n\n", self.subject);
        for (word, list) in [("new", &self.new), ("gone", &self.gone)] {
            list.iter().for_each(|line| out.push_str(&format!("{word}: {}\n", printable(line))));
        }
        out.push('\n');
        for found in &self.findings {
            out.push_str(&format!("[{}] {} {}: {}\n", found.host, found.state.word(), printable(&found.resource), found.summary));
        }
        out
    }
}

/// Tells everybody; gives what went wrong.
pub(super) fn tell(schedule: &Schedule, news: &News) -> Vec<String> {
    let body = serde_json::to_string(news).unwrap_or_default();
    let mut problems = Vec::new();
    if let Some(command) = &schedule.command {
        problems.extend(feed(Command::new("/bin/sh").arg("-c").arg(command), &body, "the notification command").err());
    }
    if let Some(url) = &schedule.webhook {
        problems.extend(post(url, body).err());
    }
    if let Some(address) = &schedule.mail {
        let mail = format!(
            "To: {address}\nSubject: {}\nContent-Type: text/plain; charset=utf-8\nAuto-Submitted: auto-generated\n\n{}",
            printable(&news.subject).replace('\n', " "),
            news.text()
        );
        problems.extend(feed(Command::new("sendmail").env("PATH", "/usr/sbin:/usr/lib:/usr/bin:/bin").arg("-t"), &mail, "sendmail").err());
    }
    problems
}

/// Runs a command with text on its stdin; one that does not end in time is stopped.
fn feed(command: &mut Command, text: &str, what: &str) -> Result<(), String> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(|error| format!("{what} did not start: {error}"))?;
    let stdin = child.stdin.take();
    let text = text.to_owned();
    // A command that reads nothing must not hold us up.
    let writer = std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(text.as_bytes())));
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let _ = writer.join();
                return if status.success() { Ok(()) } else { Err(format!("{what} failed: {status}")) };
            }
            Ok(None) if std::time::Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{what} did not end within {} s and was stopped", PATIENCE.as_secs()));
            }
            Err(error) => return Err(format!("{what}: {error}")),
        }
    }
}

/// The address itself is not shown: it may hold a token.
fn post(url: &str, body: String) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let outcome = runtime.block_on(async { tokio::time::timeout(PATIENCE, http::post_json(url, body)).await });
    let response = outcome.map_err(|_| format!("the webhook gave no answer within {} s", PATIENCE.as_secs()))?;
    let response = response.map_err(|why| format!("the webhook cannot be reached: {}", why.replace(url, "(its address)")))?;
    if (200..300).contains(&response.status) { Ok(()) } else { Err(format!("the webhook answered with status {}", response.status)) }
}
