//! Image archives (`docker save`) on the controller: which image is inside, without unpacking.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Ids that Docker may give the image: its configuration's digest, or, with the containerd
    /// image store, its manifest's.
    pub ids: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// Largest `manifest.json` that is read, in bytes.
const MAX_MANIFEST: u64 = 4 << 20;

/// Reads an archive's manifest.
///
/// # Errors
/// A sentence that names the file.
pub fn read(path: &Path) -> Result<Archive, String> {
    let fail = |what: String| format!("`{}` {what}", path.display());
    let mut file = File::open(path).map_err(|error| fail(format!("cannot be read: {error}")))?;
    let mut magic = [0_u8; 2];
    let compressed = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    file.seek(SeekFrom::Start(0)).map_err(|error| fail(error.to_string()))?;
    let found =
        if compressed { members(&mut Skipping(flate2::read::GzDecoder::new(BufReader::new(file)))) } else { members(&mut Seeking(file)) };
    let (manifest, index) = found.map_err(|error| fail(format!("is not a tar archive: {error}")))?;
    let manifest: Value = manifest
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| fail("is not an image archive: it has no `manifest.json`; make it with `docker save`".to_owned()))?;
    let images = manifest.as_array().filter(|images| images.len() == 1);
    let image = images.and_then(|images| images.first()).ok_or_else(|| fail("does not hold exactly one image".to_owned()))?;
    let config = image.get("Config").and_then(Value::as_str).unwrap_or_default();
    let digest = config.trim_end_matches(".json").rsplit('/').next().unwrap_or_default();
    if digest.len() != 64 || !digest.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(fail(format!("has an unknown layout: its configuration is `{}`", config.escape_debug())));
    }
    let mut ids = vec![format!("sha256:{digest}")];
    let index: Option<Value> = index.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    ids.extend(index.and_then(|index| Some(index.pointer("/manifests/0/digest")?.as_str()?.to_owned())));
    let tags = image.get("RepoTags").and_then(Value::as_array).into_iter().flatten();
    Ok(Archive { ids, tags: tags.filter_map(|tag| tag.as_str().map(str::to_owned)).collect() })
}

/// SHA-256 of a file, read in pieces.
///
/// # Errors
/// A sentence that names the file.
pub fn sha256_of(path: &Path) -> Result<String, String> {
    let fail = |error: std::io::Error| format!("`{}` cannot be read: {error}", path.display());
    let mut file = File::open(path).map_err(fail)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0_u8; 256 << 10];
    loop {
        let len = file.read(&mut buffer).map_err(fail)?;
        if len == 0 {
            return Ok(crate::secret::hex(&hash.finalize()));
        }
        hash.update(&buffer[..len]);
    }
}

/// A stream that can leave bytes out.
trait Skip: Read {
    fn skip(&mut self, bytes: u64) -> std::io::Result<()>;
}

struct Seeking(File);
struct Skipping<R>(R);

impl Read for Seeking {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Skip for Seeking {
    fn skip(&mut self, bytes: u64) -> std::io::Result<()> {
        self.0.seek_relative(i64::try_from(bytes).map_err(std::io::Error::other)?)
    }
}

impl<R: Read> Read for Skipping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Skip for Skipping<R> {
    fn skip(&mut self, bytes: u64) -> std::io::Result<()> {
        let skipped = std::io::copy(&mut (&mut self.0).take(bytes), &mut std::io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    }
}

type Members = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The contents of `manifest.json` and `index.json`. Only the fields of ustar headers that are
/// needed: name at 0, size at 124 in octal; members are padded to 512 bytes.
fn members(stream: &mut dyn Skip) -> std::io::Result<Members> {
    let mut out: Members = (None, None);
    let mut header = [0_u8; 512];
    loop {
        match stream.read_exact(&mut header) {
            Ok(()) if header.iter().any(|&byte| byte != 0) => {}
            Ok(()) => return Ok(out),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && out.0.is_some() => return Ok(out),
            Err(error) => return Err(error),
        }
        if &header[257..262] != b"ustar" {
            return Err(std::io::Error::other("no tar header where one should be"));
        }
        let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim_matches(['\0', ' ']).to_owned();
        let size = u64::from_str_radix(&text(124..136), 8).map_err(std::io::Error::other)?;
        let padded = size.div_ceil(512) * 512;
        let name = text(0..100);
        let slot = match name.trim_start_matches("./") {
            "manifest.json" => Some(&mut out.0),
            "index.json" => Some(&mut out.1),
            _ => None,
        };
        match slot {
            Some(slot) if size <= MAX_MANIFEST => {
                let mut bytes = vec![0; usize::try_from(size).map_err(std::io::Error::other)?];
                stream.read_exact(&mut bytes)?;
                *slot = Some(bytes);
                stream.skip(padded - size)?;
            }
            _ => stream.skip(padded)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn an_archive_is_read_plain_and_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let digest = "a".repeat(64);
        std::fs::write(dir.path().join("manifest.json"), format!(r#"[{{"Config":"{digest}.json","RepoTags":["web:1"],"Layers":[]}}]"#))
            .unwrap();
        std::fs::write(dir.path().join("a-layer"), vec![7_u8; 3000]).unwrap();
        for flags in ["-cf", "-czf"] {
            let archive = dir.path().join("image.tar");
            let status =
                Command::new("tar").arg(flags).arg(&archive).arg("-C").arg(dir.path()).args(["a-layer", "manifest.json"]).status().unwrap();
            assert!(status.success());
            let found = read(&archive).unwrap();
            assert_eq!((found.ids, found.tags), (vec![format!("sha256:{digest}")], vec!["web:1".to_owned()]));
        }
        std::fs::write(dir.path().join("text"), "hello".repeat(400)).unwrap();
        assert!(read(&dir.path().join("text")).unwrap_err().contains("is not a tar archive"));
        assert!(read(&dir.path().join("none")).unwrap_err().contains("cannot be read"));
    }
}
