//! An archive of evidence: a tar in gzip in age, written and read as a stream. Nothing of it is
//! ever on a disk in clear, and reading never trusts a name in it.

use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::project::vault::{Recipients, Sealing, Spool};
use crate::secret::hex;

/// Longest part of a name that comes from a host.
const LONGEST: usize = 60;
/// Most of a member that is kept in memory, in bytes.
const KEPT: usize = 64 << 20;

type Stream = GzEncoder<Sealing<BufWriter<tempfile::NamedTempFile>>>;

/// An archive under way. It has its name only once it is whole.
pub(super) struct Writer {
    tar: tar::Builder<Stream>,
    path: PathBuf,
}

impl Writer {
    /// Starts an archive that will be at `path`, which must not exist.
    pub(super) fn create(path: &Path, recipients: &Recipients, recipients_file: &Path) -> Result<Self, String> {
        let fail = |error: std::io::Error| format!("`{}` cannot be written: {error}", path.display());
        let file = tempfile::Builder::new().prefix(".capture-").tempfile_in(directory_of(path)).map_err(fail)?;
        let sealing = recipients.seal(BufWriter::new(file), recipients_file).map_err(|error| error.to_string())?;
        Ok(Self { tar: tar::Builder::new(GzEncoder::new(sealing, Compression::fast())), path: path.to_owned() })
    }

    /// A spool on the same disk.
    pub(super) fn spool(&self) -> std::io::Result<Spool> {
        Spool::new(directory_of(&self.path))
    }

    /// Adds a spool's content as a member.
    pub(super) fn add_spool(&mut self, name: &str, spool: Spool) -> std::io::Result<()> {
        let len = spool.len();
        self.append(name, len, spool.read_back()?)
    }

    /// Adds a member from memory.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> std::io::Result<()> {
        self.append(name, content.len() as u64, content)
    }

    fn append(&mut self, name: &str, len: u64, content: impl Read) -> std::io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(len);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default());
        let mut counted = Counted { content, left: len };
        self.tar.append_data(&mut header, name, &mut counted)?;
        // A member that is shorter or longer than its header says would spoil all that follow.
        if counted.left == 0 && counted.content.read(&mut [0])? == 0 { Ok(()) } else { Err(std::io::Error::other("the spool changed")) }
    }

    /// Ends the archive and gives it its name.
    pub(super) fn finish(self) -> Result<PathBuf, String> {
        let path = self.path.clone();
        let fail = |error: std::io::Error| format!("`{}` cannot be written: {error}", path.display());
        let buffered = self.tar.into_inner().and_then(Stream::finish).and_then(Sealing::finish).map_err(fail)?;
        let file = buffered.into_inner().map_err(|error| fail(error.into_error()))?;
        file.as_file().sync_all().map_err(fail)?;
        file.persist_noclobber(&self.path).map_err(|error| fail(error.error))?;
        Ok(self.path)
    }
}

/// The first bytes of a reader, and how many of them are still to come.
struct Counted<R> {
    content: R,
    left: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.content.read(&mut buffer[..want])?;
        self.left -= read as u64;
        Ok(read)
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
    let damaged = |error: std::io::Error| format!("the archive is damaged: {error}");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(stream));
    let (mut members, mut kept) = (Vec::new(), None);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = name_of(&entry)?;
        let mut sink: Box<dyn Write> = if name == keep { Box::new(std::io::sink()) } else { take(&name)? };
        let (mut hash, mut bytes, mut copy) = (Sha256::new(), 0, Vec::new());
        let mut buffer = vec![0_u8; 64 << 10];
        loop {
            let read = entry.read(&mut buffer).map_err(damaged)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            sink.write_all(&buffer[..read]).map_err(|error| format!("`{name}` cannot be written: {error}"))?;
            if name == keep && copy.len() < KEPT {
                copy.extend_from_slice(&buffer[..read]);
            }
            bytes += read as u64;
        }
        sink.flush().map_err(|error| format!("`{name}` cannot be written: {error}"))?;
        if bytes != entry.size() {
            return Err(format!("the archive is damaged: `{name}` ends early"));
        }
        if name == keep {
            kept = Some(copy);
        }
        members.push(Member { name, bytes, sha256: hex(&hash.finalize()) });
    }
    // The rest must open too: age and gzip have their own ends.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map_err(damaged)?;
    Ok((members, kept))
}

/// A member's name, if it is one that we would write.
fn name_of<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, String> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    if entry.header().entry_type() != tar::EntryType::Regular || !is_safe(&name) {
        return Err(format!("the archive has a member `{}`, which is no name of ours", name.escape_debug()));
    }
    Ok(name)
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
