//! Masking: secrets' values in what hosts send back, in every form in which a program may print them.

use std::fmt;

use zeroize::Zeroizing;

use super::MIN_SECRET_LEN;

/// Replaces values of secrets in text that hosts send back.
#[derive(Default, Clone)]
pub struct Masker {
    patterns: Vec<Zeroizing<String>>,
    /// A secret could not be opened, so that it cannot be masked.
    blind: bool,
}

impl Masker {
    /// Masks these values in every form in which they may come back, the longest first.
    pub(super) fn new<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut patterns: Vec<Zeroizing<String>> = values.flat_map(encodings).collect();
        patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.len()));
        Self { patterns, blind: false }
    }

    /// What stands in a masked value's place.
    pub const STARS: &'static str = "********";

    /// One that masks what either does.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut patterns = self.patterns.clone();
        patterns.extend(other.patterns.iter().filter(|pattern| !self.patterns.contains(pattern)).cloned());
        patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.len()));
        Self { patterns, blind: self.blind || other.blind }
    }

    /// One that lacks a secret: what it has masked must not be shown.
    #[must_use]
    pub fn blinded(self) -> Self {
        Self { blind: true, ..self }
    }

    /// Whether it lacks a secret.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.blind
    }

    /// The text with every form of every secret replaced. The input must be whole: callers mask
    /// a frame's output once it is complete, so a value never straddles two calls.
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for pattern in &self.patterns {
            if out.contains(pattern.as_str()) {
                out = out.replace(pattern.as_str(), Self::STARS);
            }
        }
        out
    }

    /// As [`Masker::mask`], for bytes of any kind: what is not UTF-8 stays as it is. No value can
    /// hide across an invalid byte, since values are UTF-8 themselves.
    #[must_use]
    pub fn mask_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            out.extend_from_slice(self.mask(chunk.valid()).as_bytes());
            out.extend_from_slice(chunk.invalid());
        }
        out
    }

    /// Where to cut bytes at or before `at`, so that what stays before the cut ends in no
    /// beginning of a secret.
    #[must_use]
    pub fn cut_before(&self, bytes: &[u8], at: usize) -> usize {
        self.straddling(bytes, at, |span, cut| span.start.min(cut))
    }

    /// Where to cut bytes at or after `at`, so that what stays after the cut begins with no end of
    /// a secret.
    #[must_use]
    pub fn cut_after(&self, bytes: &[u8], at: usize) -> usize {
        self.straddling(bytes, at, |span, cut| span.end.max(cut))
    }

    /// Moves a cut until no secret lies across it.
    fn straddling(&self, bytes: &[u8], at: usize, moved: impl Fn(&std::ops::Range<usize>, usize) -> usize) -> usize {
        let mut cut = at;
        loop {
            let before = cut;
            for pattern in &self.patterns {
                let pattern = pattern.as_bytes();
                let from = cut.saturating_sub(pattern.len() - 1);
                let until = (cut + pattern.len() - 1).min(bytes.len());
                for (index, window) in bytes[from..until].windows(pattern.len()).enumerate() {
                    let span = from + index..from + index + pattern.len();
                    if window == pattern && span.start < cut && cut < span.end {
                        cut = moved(&span, cut);
                        break;
                    }
                }
            }
            if cut == before {
                return cut;
            }
        }
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masker({} patterns)", self.patterns.len())
    }
}

/// The forms in which a value may come back: itself, each long line of it (PEM), JSON- and
/// URL-escaped, shell-quoted, and base64 at its three alignments.
fn encodings(value: &str) -> Vec<Zeroizing<String>> {
    let mut forms = vec![Zeroizing::new(value.to_owned())];
    let json = serde_json::Value::from(value).to_string();
    forms.push(Zeroizing::new(json[1..json.len() - 1].to_owned()));
    forms.push(Zeroizing::new(value.replace('\'', r"'\''")));
    for keep in [&b"-_.~"[..], &b"-_.~/:"[..]] {
        forms.push(Zeroizing::new(url_escape(value, keep)));
    }
    for engine in [&base64::engine::general_purpose::STANDARD_NO_PAD, &base64::engine::general_purpose::URL_SAFE_NO_PAD] {
        for shift in 0..3 {
            forms.push(base64_inside(value.as_bytes(), shift, engine));
            // With its last digits, where the value, or its line, ends the text.
            for end in ["", "\n"] {
                forms.push(base64_to_the_end(&Zeroizing::new(format!("{value}{end}")), shift, engine));
            }
        }
    }
    if value.contains('\n') {
        let lines = value.lines().filter(|line| line.len() >= 16 && !line.starts_with("-----"));
        forms.extend(lines.map(|line| Zeroizing::new(line.to_owned())));
    }
    forms.retain(|form| form.len() >= MIN_SECRET_LEN);
    forms.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    forms.dedup();
    forms
}

/// The base64 digits of a value that starts `shift` bytes into a group of three and ends the text.
fn base64_to_the_end(value: &str, shift: usize, engine: &impl base64::Engine) -> Zeroizing<String> {
    let mut padded = Zeroizing::new(vec![0_u8; shift]);
    padded.extend_from_slice(value.as_bytes());
    let text = Zeroizing::new(engine.encode(&*padded));
    Zeroizing::new(text[[0, 2, 3][shift].min(text.len())..].to_owned())
}

fn url_escape(value: &str, keep: &[u8]) -> String {
    value
        .bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() || keep.contains(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            },
        )
        .collect()
}

/// The base64 digits that depend on nothing but `value` when it starts `shift` bytes into a
/// group of three: what must appear in any base64 text that contains it.
fn base64_inside(value: &[u8], shift: usize, engine: &impl base64::Engine) -> Zeroizing<String> {
    let mut padded = Zeroizing::new(vec![0_u8; shift]);
    padded.extend_from_slice(value);
    let text = Zeroizing::new(engine.encode(&*padded));
    let skip = [0, 2, 3][shift];
    let whole = (padded.len() / 3) * 4;
    let end = whole.max(skip).min(text.len());
    Zeroizing::new(text[skip.min(end)..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_masked_at_every_alignment() {
        let value = "s3cr&t/\"x\" value";
        let masker = Masker::new([value].into_iter());
        for prefix in ["", "a", "ab", "abc"] {
            let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{prefix}{value} and more"));
            assert!(masker.mask(&encoded).contains(Masker::STARS), "{prefix}: {encoded}");
        }
        for form in [value.to_owned(), serde_json::json!(value).to_string(), url_escape(value, b"-_.~")] {
            assert!(masker.mask(&form).contains(Masker::STARS), "{form}");
        }
        assert_eq!(masker.mask("nothing here"), "nothing here");
    }
}
