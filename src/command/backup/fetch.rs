//! Backups away from their host: brought to the controller, digest by digest, and sent to a host
//! that does not have them any more. A transfer that was cut off goes on where it stopped.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::diagnostic::{Failure, FailureClass, printable};
use crate::engine::host::HostRun;
use crate::resource::plan::Upload;
use crate::secret::hex;
use crate::shell::{Script, quote};
use crate::transport::DownloadError;

const IDLE: Duration = Duration::from_secs(120);
/// Longest list of a backup's files, in bytes.
const MANIFEST: u64 = 4 << 20;

/// Files of a backup: name and SHA-256.
type Files = BTreeMap<String, String>;

fn local(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FailureClass::StepFailed, format!("`{}` cannot be written or read here: {error}", path.display()))
}

/// Brings a backup of a stack (`from`, on the host) into a directory of the controller.
pub(super) async fn fetch(host: &mut HostRun, from: &str, into: &Path) -> Result<u64, Failure> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(into).map_err(|error| local(into, &error))?;
    let mut text = Vec::new();
    let list = format!("{from}/MANIFEST");
    let mut download = host.session()?.open_download().await?;
    let script = Script::sh("cat {}", &[&list]);
    let mut take = |bytes: &[u8]| {
        text.extend_from_slice(bytes);
        Ok(())
    };
    let received = download.fetch(&script, MANIFEST, IDLE, &mut take).await.map_err(|error| broken(&list, &error))?;
    download.close().await;
    if received.status != 0 {
        return Err(Failure::new(FailureClass::StepFailed, format!("`{list}` on the host cannot be read")).because(received.stderr));
    }
    let files = parse(&text, &list)?;
    let mut bytes = 0;
    for (name, sha256) in &files {
        bytes += fetch_file(host, &format!("{from}/{name}"), &into.join(name), sha256).await?;
    }
    // Last, so that a directory with it is whole.
    let path = into.join("MANIFEST");
    std::fs::write(&path, &text).map_err(|error| local(&path, &error))?;
    Ok(bytes)
}

/// Names and digests of a `MANIFEST`. A host's names are names and nothing else.
fn parse(text: &[u8], place: &str) -> Result<Files, Failure> {
    let mut files = Files::new();
    for line in String::from_utf8_lossy(text).lines() {
        let (digest, name) = line.split_once("  ").unwrap_or((line, ""));
        let fine = digest.len() == 64
            && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !name.is_empty()
            && !name.starts_with('.')
            && name.len() <= 255
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if !fine {
            return Err(Failure::new(FailureClass::StepFailed, format!("`{}` is no list of a backup's files", printable(place)))
                .because(printable(line)));
        }
        files.insert(name.to_owned(), digest.to_owned());
    }
    Ok(files)
}

async fn fetch_file(host: &mut HostRun, from: &str, to: &Path, sha256: &str) -> Result<u64, Failure> {
    if digest_of(to).is_some_and(|(_, digest)| hex(&digest.finalize()) == sha256) {
        return Ok(0);
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut tries = 0;
    loop {
        let (have, mut hash) = digest_of(&part).unwrap_or_default();
        let size = size_of(host, from).await?;
        room(to, size.saturating_sub(have))?;
        host.doing(format!("fetching {from}, {have} of {size} bytes"));
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(&part);
        let mut file = opened.map_err(|error| local(&part, &error))?;
        let mut download = host.session()?.open_download().await?;
        let script = Script::sh("tail -c +{} {}", &[&(have + 1).to_string(), from]);
        let outcome = download
            .fetch(&script, size.saturating_sub(have), IDLE, &mut |bytes| {
                hash.update(bytes);
                file.write_all(bytes)
            })
            .await;
        match outcome {
            Ok(received) => {
                download.close().await;
                file.sync_all().map_err(|error| local(&part, &error))?;
                if received.status == 0 && hex(&hash.finalize()) == sha256 {
                    std::fs::rename(&part, to).map_err(|error| local(to, &error))?;
                    return Ok(received.bytes);
                }
                let _ = std::fs::remove_file(&part);
                return Err(Failure::new(FailureClass::StepFailed, format!("`{from}` is not what its MANIFEST says; it was not kept"))
                    .because(printable(&received.stderr))
                    .hint("the backup on the host is damaged, or changed: make another one"));
            }
            Err(DownloadError::Lost(why)) if tries < 3 && !host.interrupted() => {
                tries += 1;
                host.reconnect(&why).await?;
            }
            Err(error) => return Err(broken(from, &error)),
        }
    }
}

fn broken(what: &str, error: &DownloadError) -> Failure {
    let class = match error {
        DownloadError::Lost(_) => FailureClass::Tcp,
        DownloadError::Idle(_) => FailureClass::Deadline,
        DownloadError::NoDigest => FailureClass::MissingTool,
        _ => FailureClass::StepFailed,
    };
    Failure::new(class, format!("`{what}` could not be fetched")).because(printable(&error.to_string()))
}

async fn size_of(host: &mut HostRun, path: &str) -> Result<u64, Failure> {
    let output = host.script("measuring", Script::sh("wc -c <{}", &[path]), IDLE).await?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    text.parse().map_err(|_| {
        let said = printable(String::from_utf8_lossy(&output.stderr).trim());
        Failure::new(FailureClass::StepFailed, format!("`{path}` on the host cannot be read")).because(said)
    })
}

/// Whether there is room for a file here.
fn room(path: &Path, bytes: u64) -> Result<(), Failure> {
    let Some(stat) = path.parent().and_then(|parent| rustix::fs::statvfs(parent).ok()) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free > bytes {
        return Ok(());
    }
    Err(Failure::new(FailureClass::StepFailed, format!("no room here for `{}`", path.display()))
        .because(format!("{bytes} bytes are needed, {free} are free")))
}

/// Length and running digest of a file that is there.
fn digest_of(path: &Path) -> Option<(u64, Sha256)> {
    let mut file = File::open(path).ok()?;
    let (mut hash, mut len, mut buffer) = (Sha256::new(), 0, vec![0_u8; 256 << 10]);
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some((len, hash)),
            read => {
                hash.update(&buffer[..read]);
                len += read as u64;
            }
        }
    }
}

/// The newest whole backup of a stack below `dir/HOST`, by then if a time is given: stamp and place.
pub(super) fn find(dir: &Path, host: &str, stack: &str, from: &str) -> Result<(String, PathBuf), String> {
    let below = dir.join(host);
    let mut stamps: Vec<String> = std::fs::read_dir(&below)
        .map_err(|error| format!("`{}` cannot be read: {error}\nhint: name the directory that `backup --fetch` filled", below.display()))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|stamp| super::is_stamp(stamp) && below.join(stamp).join(stack).join("MANIFEST").is_file())
        .collect();
    stamps.sort();
    let known = stamps.join(", ");
    let fits = |stamp: &&String| match from.strip_prefix("before:") {
        Some(limit) => stamp.as_str() <= limit,
        None => from == "latest" || *stamp == from,
    };
    let whole = |stamp: &&String| !below.join(stamp).join(stack).join("PARTIAL").exists() || *stamp == from;
    match stamps.iter().filter(fits).rfind(whole) {
        Some(stamp) => Ok((stamp.clone(), below.join(stamp).join(stack))),
        None => Err(format!(
            "there is no such backup of `{stack}` in `{}`; there are: {}",
            below.display(),
            if known.is_empty() { "none" } else { &known }
        )),
    }
}

/// Sends a backup to a host, where it will be at `to`. Its digests are verified here before and
/// there afterwards.
pub(super) async fn send(host: &mut HostRun, from: &Path, to: &str) -> Result<(), Failure> {
    let list = from.join("MANIFEST");
    let text = std::fs::read(&list).map_err(|error| local(&list, &error))?;
    let files = parse(&text, &list.display().to_string())?;
    for (name, sha256) in &files {
        let path = from.join(name);
        let found = digest_of(&path).map(|(_, hash)| hex(&hash.finalize()));
        if found.as_ref() != Some(sha256) {
            return Err(Failure::new(
                FailureClass::Refused,
                format!("`{}` is not what its MANIFEST says; nothing was touched", path.display()),
            )
            .hint("the copy is damaged: fetch it again, or take another"));
        }
    }
    let made = host.script("making room for a backup", Script::sh("umask 077; mkdir -p {}", &[to]), IDLE).await?;
    if made.status != 0 {
        return Err(Failure::new(FailureClass::StepFailed, format!("`{to}` cannot be made on the host"))
            .because(printable(&String::from_utf8_lossy(&made.stderr))));
    }
    let manifest = crate::secret::sha256(&text);
    for (name, sha256) in files.iter().chain([(&"MANIFEST".to_owned(), &manifest)]) {
        host.doing(format!("sending {}", quote(name)));
        let upload = Upload { source: from.join(name), destination: format!("{to}/{name}"), sha256: sha256.clone() };
        host.session()?.upload(&upload, &|_| ()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_list_names_no_other_place() {
        let digest = "a".repeat(64);
        assert_eq!(parse(format!("{digest}  data.tar.gz\n").as_bytes(), "x").unwrap().len(), 1);
        for name in ["../evil", "/etc/passwd", ".hidden", "a b", "", "a\u{1b}"] {
            assert!(parse(format!("{digest}  {name}\n").as_bytes(), "x").is_err(), "{name}");
        }
        assert!(parse(b"short  name\n", "x").is_err());
    }

    #[test]
    fn the_newest_whole_backup_is_found() {
        let dir = tempfile::tempdir().unwrap();
        for (stamp, partial) in [("20260101T000000Z", false), ("20260102T000000Z", false), ("20260103T000000Z", true)] {
            let place = dir.path().join("h1").join(stamp).join("notes");
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("MANIFEST"), "").unwrap();
            if partial {
                std::fs::write(place.join("PARTIAL"), "data").unwrap();
            }
        }
        let found = |from: &str| find(dir.path(), "h1", "notes", from).map(|found| found.0);
        assert_eq!(found("latest").unwrap(), "20260102T000000Z");
        assert_eq!(found("before:20260101T120000Z").unwrap(), "20260101T000000Z");
        assert_eq!(found("20260103T000000Z").unwrap(), "20260103T000000Z");
        assert!(found("20270101T000000Z").unwrap_err().contains("there are: 20260101T000000Z"));
    }
}
