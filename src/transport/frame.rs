//! The frame protocol's text: what is written to the shell, and how its answers are told apart
//! from what scripts print. Pure; `session.rs` moves the bytes.
//!
//! ```text
//! ( eval 'SCRIPT' ) </dev/null 9>&-; __r=$?; printf '\nNONCE 7 %s\n' "$__r"; printf '\nNONCE 7\n' >&2
//! ```
//!
//! The subshell and `eval` contain whatever a script does: a syntax error, `exit`, `cd`, a script
//! that kills itself, or one that reads standard input. The first newline of a trailer is ours, so
//! output without a final newline and binary output arrive exactly.

use zeroize::Zeroizing;

use super::capture::Capture;
use super::{Frame, Output, RECORDS};

/// Status word of a frame that was not run.
const SKIPPED: &str = "skip";
/// Longest status word with its newline.
const STATUS_LEN: usize = 12;

/// 128 random bits in hex: what no output can contain by accident or by guessing.
pub(super) fn nonce() -> String {
    use std::io::Read as _;
    let mut bytes = [0_u8; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    assert!(read.is_ok(), "no random numbers: {read:?}");
    crate::secret::hex(&bytes)
}

/// Quotes any text, newlines and all, as one word.
fn quoted(out: &mut Zeroizing<String>, text: &str) {
    out.push('\'');
    for (index, part) in text.split('\'').enumerate() {
        if index > 0 {
            out.push_str(r"'\''");
        }
        out.push_str(part);
    }
    out.push('\'');
}

fn capacity(text: &str) -> usize {
    text.len() + 3 * text.matches('\'').count() + 1024
}

/// What the shell is told once, before the first frame. `stop` is the name of the stop flag's
/// file, which exists only once someone stops the run.
pub(super) fn prologue(stop: &str) -> String {
    format!(
        "LC_ALL=C; export LC_ALL; unset ENV BASH_ENV CDPATH; umask 022; cd /; \
         case $PATH in *:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin) ;; \
         *) PATH=\"$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"; export PATH;; esac; {}\n",
        stop_path(stop)
    )
}

/// The trailer of a frame number 0: all that came before it is noise of the login.
pub(super) fn mark(nonce: &str, merged: bool) -> String {
    let mut out = "__r=0; ".to_owned();
    trailer(&mut out, nonce, 0, merged);
    out
}

fn trailer(out: &mut String, nonce: &str, seq: u64, merged: bool) {
    use std::fmt::Write as _;
    let _ = write!(out, "printf '\\n{nonce} {seq} %s\\n' \"$__r\"");
    if !merged {
        let _ = write!(out, "; printf '\\n{nonce} {seq} 0\\n' >&2");
    }
    out.push('\n');
}

/// Code that sets `__soc_s` to the stop flag's path: in memory where the user may write there.
fn stop_path(stop: &str) -> String {
    format!("if [ -w /run ]; then __soc_s=/run/soc-stop-{stop}; else __soc_s=/tmp/soc-stop-{stop}; fi")
}

/// What sets the stop flag, in another shell of the same user.
pub(super) fn set_stop(stop: &str) -> String {
    format!("{}; set -C; : >\"$__soc_s\"\n", stop_path(stop))
}

/// What removes it again.
pub(super) const CLEAR_STOP: &str = "rm -f -- \"$__soc_s\"\n";

/// What kills everything that a shell of this process id started, and the shell, in another one.
pub(super) fn kill_group(pid: u32) -> String {
    format!(
        "g={pid}; if read -r l </proc/{pid}/stat 2>/dev/null; then l=${{l##*) }}; set -- $l; g=$3; fi; \
         kill -TERM -$g 2>/dev/null || kill -TERM {pid}; sleep 1; kill -KILL -$g 2>/dev/null; kill -KILL {pid} 2>/dev/null; exit 0\n"
    )
}

/// Runs a script as another user. It reaches that user's shell by a pipe from a builtin, so it is
/// in nobody's argument list.
fn as_user(user: &str, script: &str) -> Zeroizing<String> {
    let mut inner = Zeroizing::new(String::with_capacity(capacity(script)));
    inner.push_str("cd ~ 2>/dev/null || cd /; ( eval ");
    quoted(&mut inner, script);
    inner.push_str(" ) </dev/null\n");
    let mut out = Zeroizing::new(String::with_capacity(capacity(&inner) + 4 * user.len()));
    let user = crate::shell::quote(user);
    out.push_str("printf %s ");
    quoted(&mut out, &inner);
    out.push_str(" | ( h=$(getent passwd ");
    out.push_str(&user);
    out.push_str(" | cut -d: -f6); HOME=${h:-/}; USER=");
    out.push_str(&user);
    out.push_str("; LOGNAME=$USER; export HOME USER LOGNAME; exec runuser -u \"$USER\" -- /bin/sh )");
    out
}

/// The text of one frame. `merged`: the shell's stdout and stderr are one stream (a terminal).
pub(super) fn text(frame: &Frame, script: &str, nonce: &str, seq: u64, merged: bool) -> Zeroizing<String> {
    use std::fmt::Write as _;
    let wrapped = frame.user.as_deref().map(|user| as_user(user, script));
    let script = wrapped.as_ref().map_or(script, |text| text.as_str());
    let mut out = Zeroizing::new(String::with_capacity(capacity(script)));
    let mut tests = Vec::new();
    if !frame.unstoppable {
        tests.push("[ -e \"$__soc_s\" ]".to_owned());
    }
    if let Some(block) = frame.block {
        tests.push(format!("[ -n \"$__soc_b{block}\" ]"));
    }
    if !tests.is_empty() {
        let _ = write!(out, "if {}; then __r={SKIPPED}; else ", tests.join(" || "));
    }
    if let Some(name) = &frame.record {
        let _ =
            write!(out, "{{ [ -d {RECORDS} ] || ( umask 077; mkdir -p {RECORDS} ); printf '' >{RECORDS}/{name}.begun; }} 2>/dev/null; ");
    }
    out.push_str(if frame.in_shell { "command eval " } else { "( eval " });
    quoted(&mut out, script);
    out.push_str(if frame.in_shell { " </dev/null; __r=$?" } else { " ) </dev/null 9>&-; __r=$?" });
    if let Some(name) = &frame.record {
        let _ = write!(out, "; printf '%s\\n' \"$__r\" 2>/dev/null >{RECORDS}/{name}.rc");
    }
    out.push_str(if tests.is_empty() { "; " } else { "; fi; " });
    if let Some(block) = frame.block {
        let _ = write!(out, "[ \"$__r\" = 0 ] || __soc_b{block}=1; ");
    }
    trailer(&mut out, nonce, seq, merged);
    out
}

/// Splits one of the shell's streams into the output of frames.
#[derive(Debug)]
pub(super) struct Scanner {
    nonce: String,
    /// The mark of frames 0 and 1, if they have another.
    public: Option<String>,
    seq: u64,
    needle: Vec<u8>,
    /// Bytes that may be the beginning of a trailer.
    carry: Vec<u8>,
    capture: Option<Capture>,
}

/// One frame's output on one stream.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) seq: u64,
    pub(super) status: String,
    pub(super) capture: Capture,
}

impl Scanner {
    pub(super) fn new(nonce: &str, public: Option<&str>) -> Self {
        let public = public.map(str::to_owned);
        let mut scanner = Self { nonce: nonce.to_owned(), public, seq: 0, needle: Vec::new(), carry: Vec::new(), capture: None };
        scanner.expect(0);
        scanner
    }

    fn expect(&mut self, seq: u64) {
        self.seq = seq;
        let nonce = self.public.as_ref().filter(|_| seq < 2).unwrap_or(&self.nonce);
        self.needle = format!("\n{nonce} {seq} ").into_bytes();
    }

    /// Takes bytes of the stream. `keep` says how much to keep of a frame, `None` if no frame of
    /// that number was sent: what comes then is nobody's and is dropped.
    pub(super) fn push(&mut self, bytes: &[u8], keep: impl Fn(u64) -> Option<usize>) -> Vec<Part> {
        let mut parts = Vec::new();
        self.carry.extend_from_slice(bytes);
        let mut from = 0;
        while let Some((start, status, end)) = self.trailer(from) {
            self.keep_bytes(from, start, &keep);
            let capture = self.capture.take().unwrap_or_else(|| Capture::new(0));
            parts.push(Part { seq: self.seq, status, capture });
            self.expect(self.seq + 1);
            from = end;
        }
        let tail = self.needle.len() + STATUS_LEN;
        let until = self.carry.len().saturating_sub(tail).max(from);
        self.keep_bytes(from, until, &keep);
        self.carry.drain(..until);
        parts
    }

    fn keep_bytes(&mut self, from: usize, until: usize, keep: impl Fn(u64) -> Option<usize>) {
        if let Some(keep) = keep(self.seq) {
            self.capture.get_or_insert_with(|| Capture::new(keep)).push(&self.carry[from..until]);
        }
    }

    /// The next trailer: where it starts, its status, where it ends.
    fn trailer(&self, from: usize) -> Option<(usize, String, usize)> {
        let mut at = from;
        loop {
            at += self.carry[at..].iter().position(|byte| *byte == b'\n')?;
            let rest = &self.carry[at..];
            if rest.len() < self.needle.len() {
                return None;
            }
            if rest.starts_with(&self.needle) {
                let word = &rest[self.needle.len()..];
                let end = word.iter().take(STATUS_LEN).position(|byte| *byte == b'\n')?;
                let status = String::from_utf8_lossy(&word[..end]).trim_end_matches('\r').to_owned();
                return Some((at, status, at + self.needle.len() + end + 1));
            }
            at += 1;
        }
    }
}

/// A frame's answer, before its output is masked.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) status: String,
    pub(super) stdout: Capture,
    pub(super) stderr: Capture,
}

impl Raw {
    /// The answer with secrets masked.
    pub(super) fn finish(self, masker: &crate::secret::Masker) -> Output {
        let (stdout, truncated) = self.stdout.finish(masker);
        let (stderr, _) = self.stderr.finish(masker);
        let skipped = self.status == SKIPPED;
        Output {
            status: self.status.parse().unwrap_or(if skipped { 0 } else { -1 }),
            stdout,
            stderr,
            truncated,
            skipped,
            unfit_to_show: masker.is_blind(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Masker;

    fn outputs(scanner: &mut Scanner, stream: &[u8], chunk: usize) -> Vec<(u64, String, Vec<u8>)> {
        let mut out = Vec::new();
        for bytes in stream.chunks(chunk) {
            for part in scanner.push(bytes, |_| Some(1 << 20)) {
                out.push((part.seq, part.status, part.capture.finish(&Masker::default()).0));
            }
        }
        out
    }

    #[test]
    fn frames_are_found_however_the_stream_is_cut() {
        let nonce = nonce();
        let mut stream = Vec::new();
        let bodies: [&[u8]; 4] = [b"", b"\n\n", b"no newline", b"\0\xff\nabc\n\n"];
        for (seq, body) in bodies.iter().enumerate() {
            stream.extend_from_slice(body);
            stream.extend_from_slice(format!("\n{nonce} {seq} {}\n", 10 * seq).as_bytes());
        }
        for chunk in [1, 2, 3, 7, 40, 1000] {
            let got = outputs(&mut Scanner::new(&nonce, None), &stream, chunk);
            let bodies: Vec<_> = bodies.iter().enumerate().map(|(seq, body)| (seq as u64, (10 * seq).to_string(), body.to_vec())).collect();
            assert_eq!(got, bodies, "in chunks of {chunk}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

        /// Whatever a host prints, and however it arrives: the same frames with the same output.
        #[test]
        fn any_stream_is_read_the_same_in_any_chunks(
            pieces in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::strategy::Just(b"\nabc 0 0\n".to_vec()),
                    proptest::strategy::Just(b"\nabc 1 12\n".to_vec()),
                    proptest::strategy::Just(b"\nabc ".to_vec()),
                    proptest::strategy::Just(b"\n".to_vec()),
                    proptest::collection::vec(proptest::prelude::any::<u8>(), 0..20),
                ],
                0..20,
            ),
            chunk in 1_usize..50,
        ) {
            let stream = pieces.concat();
            let whole = outputs(&mut Scanner::new("abc", None), &stream, stream.len().max(1));
            proptest::prop_assert_eq!(outputs(&mut Scanner::new("abc", None), &stream, chunk), whole);
        }
    }

    #[test]
    fn a_trailer_of_another_session_is_output() {
        let nonce = nonce();
        let stream = format!("\n{} 0 0\n\n{nonce} 1 0\n\n{nonce} 0 7\n", super::nonce());
        let got = outputs(&mut Scanner::new(&nonce, None), stream.as_bytes(), 5);
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].1, "7");
    }

    #[test]
    fn what_nobody_asked_for_is_dropped() {
        let mut scanner = Scanner::new("n", None);
        assert!(scanner.push(&[b'x'; 10_000], |_| None).is_empty());
        assert!(scanner.capture.is_none() && scanner.carry.len() < 100);
    }
}
