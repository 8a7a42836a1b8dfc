//! A secret that must turn up nowhere, and the detector that looks for it.
//!
//! The detector shares no code with the masker: it undoes encodings (base64, hex, URL, JSON, HTML,
//! shell quotes) of whatever it is given and looks for pieces of the value, so it finds forms that
//! the masker never thought of, and values that were cut.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::Path;

use base64::Engine as _;

/// Undoes an encoding: the texts that the bytes may stand for.
type Undo = fn(&[u8]) -> Vec<Vec<u8>>;

/// Length of the pieces that are looked for, in bytes: a value that was cut is still found.
const PIECE: usize = 10;

/// A value to plant.
#[derive(Clone, Debug)]
pub(crate) struct Canary {
    pub(crate) value: String,
}

/// A place where the value turned up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    /// What was searched: `stdout of plan`, a file's path.
    pub(crate) place: String,
    /// How the value was encoded there.
    pub(crate) form: &'static str,
}

impl Canary {
    /// A new value with every character that an encoding may change.
    pub(crate) fn new() -> Self {
        let mut random = [0_u8; 9];
        getrandom::fill(&mut random).expect("randomness");
        let unique = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random);
        Self { value: format!("cAnarY{unique}\"'&/<$(id) %{}", unique.chars().rev().collect::<String>()) }
    }

    /// Every place among the outputs (what they are called, and their bytes) that shows the value.
    pub(crate) fn hits<'a>(&self, outputs: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<Hit> {
        outputs.into_iter().filter_map(|(place, bytes)| self.form_in(bytes).map(|form| Hit { place: place.to_owned(), form })).collect()
    }

    /// Every file below a directory that shows the value.
    pub(crate) fn hits_below(&self, dir: &Path) -> Vec<Hit> {
        let mut hits = Vec::new();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                hits.extend(self.hits_below(&path));
            } else if kind.is_file() {
                let bytes = std::fs::read(&path).unwrap_or_default();
                hits.extend(
                    self.hits([(path.to_string_lossy().as_ref(), bytes.as_slice()), ("a file's name", path.to_string_lossy().as_bytes())]),
                );
            }
        }
        hits
    }

    /// The encoding under which the bytes show the value.
    pub(crate) fn form_in(&self, bytes: &[u8]) -> Option<&'static str> {
        let forms: [(&str, Undo); 7] = [
            ("plain", |bytes| vec![bytes.to_vec()]),
            ("base64", base64_runs),
            ("hex", hex_runs),
            ("URL", |bytes| vec![percent(bytes)]),
            ("JSON", |bytes| vec![json(bytes), json(&json(bytes))]),
            ("HTML", |bytes| vec![html(bytes)]),
            ("shell", |bytes| vec![replace(bytes, b"'\\''", b"'"), bytes.iter().copied().filter(|&byte| byte != b'\\').collect()]),
        ];
        forms.into_iter().find(|(_, undo)| undo(bytes).iter().any(|text| self.shows(text))).map(|(form, _)| form)
    }

    fn shows(&self, text: &[u8]) -> bool {
        // The first and last pieces hold the random part; the middle may be ordinary text.
        let value = self.value.as_bytes();
        let pieces = [&value[..6 + PIECE], &value[value.len() - PIECE..]];
        pieces.iter().any(|piece| text.windows(piece.len()).any(|window| window == *piece))
    }
}

/// What each run of base64 digits decodes to, at each offset in a group, with line breaks joined.
fn base64_runs(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for joined in [bytes.to_vec(), bytes.iter().copied().filter(|byte| !b"\r\n\\ ".contains(byte)).collect()] {
        let digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
        for run in joined.split(|byte| !digit(byte)).filter(|run| run.len() >= PIECE) {
            let text: Vec<u8> = run
                .iter()
                .map(|byte| match byte {
                    b'-' => b'+',
                    b'_' => b'/',
                    other => *other,
                })
                .collect();
            for offset in 0..4.min(text.len()) {
                let whole = &text[offset..offset + (text.len() - offset) / 4 * 4];
                let engine = base64::engine::GeneralPurpose::new(
                    &base64::alphabet::STANDARD,
                    base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
                );
                out.extend(engine.decode(whole));
            }
        }
    }
    out
}

fn hex_runs(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for run in bytes.split(|byte| !byte.is_ascii_hexdigit()).filter(|run| run.len() >= 2 * PIECE) {
        for offset in 0..2 {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
            out.push(run[offset..].chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect());
        }
    }
    out
}

fn percent(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        out.push(code.unwrap_or(if first == b'+' { b' ' } else { first }));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    out
}

fn json(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail.first()) {
            (b'\\', Some(b'u')) => {
                let code = tail
                    .get(1..5)
                    .and_then(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
                    .and_then(char::from_u32);
                out.extend(code.unwrap_or('?').to_string().bytes());
                rest = tail.get(5..).unwrap_or_default();
            }
            (b'\\', Some(&escaped)) => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    other => other,
                });
                rest = &tail[1..];
            }
            _ => out.push(first),
        }
    }
    out
}

fn html(bytes: &[u8]) -> Vec<u8> {
    let pairs: [(&[u8], &[u8]); 8] = [
        (b"&lt;", b"<"),
        (b"&gt;", b">"),
        (b"&quot;", b"\""),
        (b"&#39;", b"'"),
        (b"&#x27;", b"'"),
        (b"&#34;", b"\""),
        (b"&#47;", b"/"),
        (b"&amp;", b"&"),
    ];
    pairs.into_iter().fold(bytes.to_vec(), |text, (from, to)| replace(&text, from, to))
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        if rest.starts_with(from) {
            out.extend_from_slice(to);
            rest = &rest[from.len()..];
        } else {
            out.push(rest[0]);
            rest = &rest[1..];
        }
    }
    out
}
