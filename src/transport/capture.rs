//! What is kept of a stream that may be far too long: its head and its tail. Cuts never leave half
//! a secret standing. Does not know about frames.

use crate::secret::Masker;

/// Kept on each side of the cut beyond what was asked for, in bytes, so that a secret that
/// straddles the cut is seen whole. Longer than any line of a key and any value a person types.
const MARGIN: usize = 16 << 10;

/// The head and the tail of a stream; what lies between is counted and dropped.
#[derive(Debug)]
pub(super) struct Capture {
    keep: usize,
    head: Vec<u8>,
    /// At most twice its limit long, so that trimming it costs amortised constant time.
    tail: Vec<u8>,
    total: u64,
}

impl Capture {
    /// Keeps about `keep` bytes: half of them from the beginning, half from the end.
    pub(super) fn new(keep: usize) -> Self {
        Self { keep, head: Vec::new(), tail: Vec::new(), total: 0 }
    }

    fn side(&self) -> usize {
        self.keep.div_ceil(2) + MARGIN
    }

    /// Takes the next bytes of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let side = self.side();
        let (first, rest) = bytes.split_at(bytes.len().min(side.saturating_sub(self.head.len())));
        self.head.extend_from_slice(first);
        if rest.len() >= side {
            self.tail.clear();
            self.tail.extend_from_slice(&rest[rest.len() - side..]);
            return;
        }
        self.tail.extend_from_slice(rest);
        if self.tail.len() > 2 * side {
            let excess = self.tail.len() - side;
            self.tail.drain(..excess);
        }
    }

    /// The stream with secrets masked, and whether bytes are missing from its middle. A line
    /// stands where they were.
    pub(super) fn finish(self, masker: &Masker) -> (Vec<u8>, bool) {
        let whole = self.total == (self.head.len() + self.tail.len()) as u64;
        if whole && self.total <= self.keep as u64 {
            let mut all = self.head;
            all.extend_from_slice(&self.tail);
            return (masker.mask_bytes(&all), false);
        }
        let half = self.keep.div_ceil(2);
        let all: Vec<u8> = if whole { [self.head.as_slice(), &self.tail].concat() } else { Vec::new() };
        let (front, back) = if whole { (all.as_slice(), all.as_slice()) } else { (self.head.as_slice(), self.tail.as_slice()) };
        let head_end = masker.cut_before(front, half.min(front.len()));
        let tail_start = masker.cut_after(back, back.len() - (self.keep - half).min(back.len()));
        let mut out = masker.mask_bytes(&front[..head_end]);
        let dropped = self.total - (head_end + back.len() - tail_start) as u64;
        out.extend_from_slice(format!("\n[{dropped} bytes left out]\n").as_bytes());
        out.extend_from_slice(&masker.mask_bytes(&back[tail_start..]));
        (out, true)
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::secret::{SecretName, Vault};

    fn captured(keep: usize, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut capture = Capture::new(keep);
        for piece in pieces {
            capture.push(piece);
        }
        capture.finish(&Masker::default())
    }

    #[test]
    fn short_streams_are_exact() {
        assert_eq!(captured(10, &[b"ab\0", b"\xff\n"]), (b"ab\0\xff\n".to_vec(), false));
        let long: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(captured(1 << 20, &[&long]).0, long);
    }

    #[test]
    fn long_streams_keep_head_and_tail_and_little_memory() {
        let mut capture = Capture::new(100);
        capture.push(b"BEGIN");
        for _ in 0..1000 {
            capture.push(&[b'x'; 10_000]);
        }
        capture.push(b"END");
        assert!(capture.head.capacity() + capture.tail.capacity() < 300_000);
        let (out, truncated) = capture.finish(&Masker::default());
        let text = String::from_utf8(out).unwrap();
        assert!(truncated && text.starts_with("BEGINxxx") && text.ends_with("xxEND"), "{text}");
        assert!(text.contains("[9999908 bytes left out]"), "{text}");
    }

    #[test]
    fn a_cut_never_leaves_half_a_secret() {
        let mut vault = Vault::default();
        vault.insert(SecretName::parse("k").unwrap(), Zeroizing::new("hunter2-hunter2".into()));
        let masker = vault.masker();
        for shift in 0..40 {
            for len in [200, 100_000] {
                let mut capture = Capture::new(60);
                capture.push(&vec![b'.'; shift]);
                capture.push(b"hunter2-hunter2");
                capture.push(&vec![b'.'; len]);
                capture.push(b"hunter2-hunter2");
                capture.push(&vec![b'.'; shift]);
                let out = String::from_utf8(capture.finish(&masker).0).unwrap();
                assert!(!out.contains("hunt") && !out.contains("ter2"), "{shift} {out}");
            }
        }
    }
}
