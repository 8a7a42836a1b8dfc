//! What a step that failed says to people: its class, its sentence, and the last lines of both
//! streams, which are a host's and so neither trusted nor unbounded.

use crate::diagnostic::{Failure, FailureClass, printable};
use crate::resource::ResourceId;
use crate::resource::plan::{INVALID, MOVED_ON, RESTORED};
use crate::transport::Output;

/// Stands for what a host said where a secret in it could not be masked.
pub(super) const NOT_SHOWN: &str =
    "what the host said is not shown: a secret of this host could not be opened to mask it; give an identity";
/// How many reasons a failed step may give.
const REASONS: usize = 12;
/// How many last lines of a failed step are shown.
const LAST_LINES: usize = 20;
/// How much of one of them is shown, in characters.
const LONGEST_LINE: usize = 500;
/// What says that a disk is full, in the words of the tools and of the kernel.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// What a step's exit status means.
pub(super) fn step_failure(title: &str, id: &ResourceId, output: &Output) -> Failure {
    let stdout = last_lines(&output.stdout);
    let (causes, rest) = reasons(&output.stderr);
    let stderr = last_lines(&rest);
    let failure = if FULL.iter().any(|words| stderr.contains(words) || stdout.contains(words)) {
        Failure::new(FailureClass::DiskFull, format!("{id}: the host's disk is full (`{title}`)"))
            .hint("free some space on the host and run again; what was there before is still there")
    } else {
        by_status(title, id, output.status, &stderr)
    };
    if output.unfit_to_show && !(stdout.is_empty() && stderr.is_empty()) {
        return Failure { stderr: NOT_SHOWN.to_owned(), ..failure };
    }
    Failure { causes, stdout, stderr, ..failure }
}

/// What a step itself says was the matter: its lines `reason: ...` on stderr; and the others.
fn reasons(stderr: &[u8]) -> (Vec<String>, Vec<u8>) {
    let (mut causes, mut rest) = (Vec::new(), Vec::new());
    for line in stderr.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(b"reason: ").filter(|_| causes.len() < REASONS) {
            Some(reason) => causes.push(printable(String::from_utf8_lossy(reason).trim_end())),
            None => rest.extend_from_slice(line),
        }
    }
    (causes, rest)
}

fn by_status(title: &str, id: &ResourceId, status: i32, stderr: &str) -> Failure {
    let step = |class, message: String| Failure::new(class, message);
    match status {
        MOVED_ON => step(FailureClass::MovedOn, format!("{id} is not as it was when the plan was made; nothing was written"))
            .hint("somebody else changed it meanwhile: look at the new plan and run again"),
        INVALID => step(FailureClass::StepFailed, format!("{id}: the new content is invalid; the old one is still in place")),
        RESTORED => step(FailureClass::StepFailed, format!("{id}: `{title}` failed, and the previous state was put back")),
        status => match missing_tool(stderr) {
            Some(tool) => step(FailureClass::MissingTool, format!("{id}: the host has no `{tool}`, which `{title}` needs"))
                .hint(format!("install what brings `{tool}` on the host, or correct its name")),
            None if status == 127 => step(FailureClass::MissingTool, format!("{id}: the host lacks a command that `{title}` needs")),
            None if status >= 128 => step(FailureClass::StepFailed, format!("{id}: `{title}` was ended by signal {}", status - 128)),
            None => step(FailureClass::StepFailed, format!("{id}: `{title}` failed with status {status}")),
        },
    }
}

/// The command that a shell did not find, as dash and bash say it: `sh: 1: eval: tool: not found`.
fn missing_tool(stderr: &str) -> Option<String> {
    let line = stderr.lines().last()?;
    let before = line.strip_suffix(": not found").or_else(|| line.strip_suffix(": command not found"))?;
    let tool = before.rsplit(": ").next()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '+');
    (!tool.is_empty() && tool.len() <= 64 && tool.chars().all(plain)).then(|| tool.to_owned())
}

/// The last lines of a stream, safe for a terminal; of a line too long to read, its beginning; of
/// what is no text, its size.
fn last_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let odd = text.chars().filter(|c| matches!(c, '\u{fffd}' | '\0')).count();
    if odd > 8 && odd * 10 > text.chars().count() {
        return format!("[{} bytes that are no text]", bytes.len());
    }
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LAST_LINES);
    let short = |line: &&str| match line.char_indices().nth(LONGEST_LINE) {
        Some((end, _)) => format!("{} [{} bytes more]", printable(&line[..end]), line.len() - end),
        None => printable(line),
    };
    lines[from..].iter().map(short).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(status: i32, stderr: &str) -> Failure {
        step_failure("do it", &ResourceId::new("command", "x"), &Output { status, stderr: stderr.into(), ..Output::default() })
    }

    #[test]
    fn classes_are_told_apart() {
        assert_eq!(failed(1, "base64: write error: No space left on device\n").class, FailureClass::DiskFull);
        assert_eq!(failed(MOVED_ON, "").class, FailureClass::MovedOn);
        for said in ["/bin/sh: 8: eval: base64: not found\n", "bash: line 1: base64: command not found\n"] {
            let missing = failed(1, said);
            assert_eq!((missing.class, missing.message.contains("no `base64`")), (FailureClass::MissingTool, true), "{missing}");
        }
        assert_eq!(failed(127, "").class, FailureClass::MissingTool);
        assert_eq!(failed(4, "curl: (22) The requested URL returned error: 404: not found at all\n").class, FailureClass::StepFailed);
        assert!(failed(137, "").message.contains("signal 9"));
    }

    #[test]
    fn what_a_host_prints_is_bounded_and_harmless() {
        let long = format!("{}\n\u{1b}[2J\u{9b}31mx\n", "y".repeat(100_000));
        let shown = failed(1, &long).stderr;
        assert!(shown.len() < 700 && shown.contains("[99500 bytes more]"), "{shown}");
        assert!(shown.ends_with("\\u{1b}[2J\\u{9b}31mx") && !shown.contains('\u{1b}'), "{shown}");
        let binary = Output { status: 1, stdout: (0..=255_u8).cycle().take(5000).collect(), ..Output::default() };
        assert_eq!(step_failure("x", &ResourceId::new("a", "b"), &binary).stdout, "[5000 bytes that are no text]");
    }
}
