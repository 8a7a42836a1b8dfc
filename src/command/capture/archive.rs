//! An archive of evidence: a tar in gzip in age, written and read as a stream. Nothing of it is
//! ever on a disk in clear, and reading never trusts a name in it.

use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::project::vault::{Recipients, Sealing, Spool};
use crate::secret::hex;

const BLOCK: usize = 512;
/// Longest part of a name that comes from a host: all names fit into a tar header.
const LONGEST: usize = 60;
/// Largest size that a header holds in octal digits.
const OCTAL: u64 = 0o777_7777_7777;

type Stream = GzEncoder<Sealing<BufWriter<tempfile::NamedTempFile>>>;

/// An archive under way. It has its name only once it is whole.
pub(super) struct Writer {
    stream: Stream,
    path: PathBuf,
}

impl Writer {
    /// Starts an archive that will be at `path`, which must not exist.
    pub(super) fn create(path: &Path, recipients: &Recipients, recipients_file: &Path) -> Result<Self, String> {
        let fail = |error: std::io::Error| format!("`{}` cannot be written: {error}", path.display());
        let file = tempfile::Builder::new().prefix(".capture-").tempfile_in(directory_of(path)).map_err(fail)?;
        let sealing = recipients.seal(BufWriter::new(file), recipients_file).map_err(|error| error.to_string())?;
        Ok(Self { stream: GzEncoder::new(sealing, Compression::fast()), path: path.to_owned() })
    }

    /// A spool on the same disk.
    pub(super) fn spool(&self) -> std::io::Result<Spool> {
        Spool::new(directory_of(&self.path))
    }

    /// Adds a spool's content as a member.
    pub(super) fn add_spool(&mut self, name: &str, spool: Spool) -> std::io::Result<()> {
        let len = spool.len();
        self.header(name, len)?;
        let copied = std::io::copy(&mut spool.read_back()?, &mut self.stream)?;
        if copied != len {
            return Err(std::io::Error::other("the spool changed"));
        }
        self.pad(len)
    }

    /// Adds a member from memory.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> std::io::Result<()> {
        self.header(name, content.len() as u64)?;
        self.stream.write_all(content)?;
        self.pad(content.len() as u64)
    }

    fn header(&mut self, name: &str, len: u64) -> std::io::Result<()> {
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        if name.len() >= 100 {
            return Err(std::io::Error::other(format!("`{name}` is too long a name")));
        }
        put(0, name.as_bytes());
        put(100, b"0000600\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        if len <= OCTAL {
            put(124, format!("{len:011o}\0").as_bytes());
        } else {
            // GNU's way for large members: the high bit, then the number itself.
            put(124, &[0x80, 0, 0, 0]);
            put(128, &len.to_be_bytes());
        }
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
        put(136, format!("{now:011o}\0").as_bytes());
        put(148, b"        ");
        put(156, b"0");
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.stream.write_all(&header)
    }

    fn pad(&mut self, len: u64) -> std::io::Result<()> {
        let over = usize::try_from(len % BLOCK as u64).unwrap_or_default();
        if over > 0 { self.stream.write_all(&[0_u8; BLOCK][over..]) } else { Ok(()) }
    }

    /// Ends the archive and gives it its name.
    pub(super) fn finish(mut self) -> Result<PathBuf, String> {
        let path = self.path.clone();
        let fail = |error: std::io::Error| format!("`{}` cannot be written: {error}", path.display());
        self.stream.write_all(&[0_u8; 2 * BLOCK]).map_err(fail)?;
        let buffered = self.stream.finish().and_then(Sealing::finish).map_err(fail)?;
        let file = buffered.into_inner().map_err(|error| fail(error.into_error()))?;
        file.as_file().sync_all().map_err(fail)?;
        file.persist_noclobber(&self.path).map_err(|error| fail(error.error))?;
        Ok(self.path)
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A member that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// Reads every member of an archive; `take` is told each name and gives where its bytes go.
/// The content of the member named `keep` (at most 64 MiB) is returned too.
pub(super) fn read(
    stream: impl Read,
    keep: &str,
    mut take: impl FnMut(&str) -> Result<Box<dyn Write>, String>,
) -> Result<(Vec<Member>, Option<Vec<u8>>), String> {
    let mut stream = flate2::read::GzDecoder::new(stream);
    let damaged = |error: std::io::Error| format!("the archive is damaged: {error}");
    let (mut members, mut kept) = (Vec::new(), None);
    loop {
        let mut header = [0_u8; BLOCK];
        stream.read_exact(&mut header).map_err(damaged)?;
        if header.iter().all(|byte| *byte == 0) {
            // The rest must open too: age and gzip have their own ends.
            std::io::copy(&mut stream, &mut std::io::sink()).map_err(damaged)?;
            return Ok((members, kept));
        }
        let (name, len) = parse(&header)?;
        let mut sink: Box<dyn Write> = if name == keep { Box::new(std::io::sink()) } else { take(&name)? };
        let (mut hash, mut left, mut copy) = (Sha256::new(), len, Vec::new());
        let mut buffer = vec![0_u8; 64 << 10];
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            stream.read_exact(&mut buffer[..want]).map_err(damaged)?;
            hash.update(&buffer[..want]);
            sink.write_all(&buffer[..want]).map_err(|error| format!("`{name}` cannot be written: {error}"))?;
            if name == keep && copy.len() < 64 << 20 {
                copy.extend_from_slice(&buffer[..want]);
            }
            left -= want as u64;
        }
        sink.flush().map_err(|error| format!("`{name}` cannot be written: {error}"))?;
        let over = usize::try_from(len % BLOCK as u64).unwrap_or_default();
        if over > 0 {
            stream.read_exact(&mut header[over..]).map_err(damaged)?;
        }
        if name == keep {
            kept = Some(copy);
        }
        members.push(Member { name, bytes: len, sha256: hex(&hash.finalize()) });
    }
}

fn parse(header: &[u8; BLOCK]) -> Result<(String, u64), String> {
    let bad = || "the archive is damaged: no tar header where one should be".to_owned();
    if &header[257..262] != b"ustar" || header[156] != b'0' {
        return Err(bad());
    }
    let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim_matches(['\0', ' ']).to_owned();
    let len = if header[124] == 0x80 {
        u64::from_be_bytes(header[128..136].try_into().map_err(|_| bad())?)
    } else {
        u64::from_str_radix(&text(124..136), 8).map_err(|_| bad())?
    };
    let name = text(0..100);
    if !is_safe(&name) {
        return Err(format!("the archive has a member `{}`, which is no name of ours", name.escape_debug()));
    }
    Ok((name, len))
}

/// Whether a name stays below where it is unpacked.
fn is_safe(name: &str) -> bool {
    let fine = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed);
    !name.is_empty() && name.split('/').all(fine)
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// One part of a name, from whatever a host calls a thing.
pub(super) fn safe(name: &str) -> String {
    let out: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    let out = out.trim_start_matches('.');
    if out == name && !out.is_empty() && out.len() <= LONGEST {
        return out.to_owned();
    }
    // What was shortened or rewritten could be another's name.
    let digest = &crate::secret::sha256(name.as_bytes())[..8];
    format!("{}-{digest}", &out[..out.len().min(LONGEST - 9)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        assert!(safe("../../etc/passwd").starts_with("_.._etc_passwd-"));
        assert_eq!(safe("web-1.x_y"), "web-1.x_y");
        for odd in ["..", "", "ä", &"x".repeat(200)] {
            assert!(is_safe(&safe(odd)) && safe(odd).len() <= LONGEST, "{odd}: {}", safe(odd));
        }
        assert_ne!(safe(&"x".repeat(200)), safe(&"x".repeat(201)));
        for (name, fine) in
            [("a/b.txt", true), ("../a", false), ("/a", false), ("a//b", false), ("a/..", false), ("", false), ("a b", false)]
        {
            assert_eq!(is_safe(name), fine, "{name}");
        }
    }

    #[test]
    fn an_archive_is_a_tar_in_gzip_in_age_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let identity = age::x25519::Identity::generate();
        let recipients = Recipients::parse(&identity.to_public().to_string(), Path::new("recipients.txt")).unwrap();
        let path = dir.path().join("evidence.tar.gz.age");
        let mut writer = Writer::create(&path, &recipients, Path::new("recipients.txt")).unwrap();
        let mut spool = writer.spool().unwrap();
        spool.write_all(&[7_u8; 1000]).unwrap();
        writer.add_spool("host/a.bin", spool).unwrap();
        writer.add("manifest.json", b"{}").unwrap();
        assert!(!path.exists(), "it has its name only once it is whole");
        writer.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let open = || age::Decryptor::new(&bytes[..]).unwrap().decrypt(std::iter::once(&identity as &dyn age::Identity)).unwrap();
        let (members, kept) = read(open(), "manifest.json", |_| Ok(Box::new(std::io::sink()))).unwrap();
        assert_eq!(members[0], Member { name: "host/a.bin".into(), bytes: 1000, sha256: crate::secret::sha256(&[7_u8; 1000]) });
        assert_eq!((members.len(), kept.as_deref()), (2, Some(b"{}".as_slice())));
        let plain = dir.path().join("plain.tar.gz");
        std::io::copy(&mut open(), &mut std::fs::File::create(&plain).unwrap()).unwrap();
        let listed = std::process::Command::new("tar").arg("-tvzf").arg(&plain).output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.status.success() && text.contains("host/a.bin") && text.contains("-rw-------"), "{text}");
        let twice = Writer::create(&path, &recipients, Path::new("r")).unwrap().finish();
        assert!(twice.unwrap_err().contains("cannot be written"), "never overwritten");
    }
}
