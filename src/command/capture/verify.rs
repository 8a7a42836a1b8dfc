//! `capture --verify`: every digest of an archive against its manifest, and unpacking it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::archive::{self, Member};
use super::manifest::{FORMAT, Manifest};
use crate::cli::capture::CaptureArgs;
use crate::command::secrets::ask_terminal;
use crate::command::{complain, print};
use crate::diagnostic::{Exit, printable};
use crate::project::vault::{IdentitySources, LAB_IDENTITY, VaultError, configured_identity, describe, open_file};

/// Verifies an archive, and unpacks it if that is wanted.
pub(super) fn run(file: &Path, arguments: &CaptureArgs) -> Exit {
    let stream = match open(file, arguments) {
        Ok(stream) => stream,
        Err(error) => {
            complain(&format!("error: {}", describe(&[error])));
            return Exit::Usage;
        }
    };
    if let Some(directory) = &arguments.extract
        && let Err(error) = std::fs::DirBuilder::new().mode(0o700).create(directory)
    {
        complain(&format!("error: `{}` cannot be made: {error}\nhint: name a directory that does not exist yet", directory.display()));
        return Exit::Usage;
    }
    let extract = arguments.extract.as_deref();
    let read = archive::read(stream, "manifest.json", |name| match extract {
        None => Ok(Box::new(std::io::sink()) as Box<dyn Write>),
        Some(directory) => create(directory, name),
    });
    let (members, manifest) = match read {
        Ok(read) => read,
        Err(why) => {
            complain(&format!("error: {}: {}", file.display(), printable(&why)));
            return Exit::Failed;
        }
    };
    let manifest: Manifest = match manifest.as_deref().map(serde_json::from_slice) {
        Some(Ok(manifest)) => manifest,
        Some(Err(error)) => {
            complain(&format!("error: {}: its manifest cannot be read: {}", file.display(), printable(&error.to_string())));
            return Exit::Failed;
        }
        None => {
            complain(&format!("error: {}: it has no `manifest.json`", file.display()));
            return Exit::Failed;
        }
    };
    if let Some(directory) = extract {
        let text = serde_json::to_string_pretty(&manifest).unwrap_or_default();
        if let Err(why) =
            create(directory, "manifest.json").and_then(|mut out| out.write_all(text.as_bytes()).map_err(|error| error.to_string()))
        {
            complain(&format!("error: {why}"));
            return Exit::Failed;
        }
    }
    let problems = compare(&manifest, &members);
    print(&told(&manifest, &problems));
    if problems.is_empty() { Exit::Fine } else { Exit::Failed }
}

fn open(file: &Path, arguments: &CaptureArgs) -> Result<impl Read + use<>, VaultError> {
    let cwd = std::env::current_dir().unwrap_or_default();
    let root = cwd.ancestors().take(5).find(|path| path.join("secrets").is_dir()).unwrap_or(&cwd);
    let mut sources = IdentitySources::from_environment(&arguments.connect.identity, configured_identity(root)?.as_deref());
    // A lab's own key, wherever the lab is.
    let lab = std::fs::read_dir(root.join("secrets")).into_iter().flatten().flatten().map(|entry| entry.path().join(LAB_IDENTITY));
    sources.lab = lab.chain([root.join("secrets").join(LAB_IDENTITY)]).find(|path| path.is_file());
    open_file(file, &crate::project::vault::Keyring::new(sources, Some(ask_terminal())))
}

/// A new file below a directory; the name was checked when it was read.
fn create(directory: &Path, name: &str) -> Result<Box<dyn Write>, String> {
    let path = directory.join(name);
    let fail = |error: std::io::Error| format!("`{}` cannot be written: {error}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(fail)?;
    }
    let file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(fail)?;
    Ok(Box::new(BufWriter::new(file)))
}

/// Everything in which the archive is not what its manifest says.
fn compare(manifest: &Manifest, members: &[Member]) -> Vec<String> {
    let mut problems = Vec::new();
    if manifest.format != FORMAT {
        problems.push(format!("its format is `{}`, not `{FORMAT}`", manifest.format));
    }
    let mut left: BTreeMap<&str, &Member> = BTreeMap::new();
    for member in members.iter().filter(|member| member.name != "manifest.json") {
        if left.insert(&member.name, member).is_some() {
            problems.push(format!("`{}` is there twice", member.name));
        }
    }
    for part in &manifest.parts {
        match left.remove(part.name.as_str()) {
            None => problems.push(format!("`{}` is in the manifest and not in the archive", part.name)),
            Some(member) if member.sha256 != part.sha256 || member.bytes != part.bytes => problems.push(format!(
                "`{}` is not what the manifest says: sha256 {} ({} bytes), not {} ({} bytes)",
                part.name, member.sha256, member.bytes, part.sha256, part.bytes
            )),
            Some(_) => {}
        }
    }
    problems.extend(left.into_keys().map(|name| format!("`{name}` is in the archive and not in the manifest")));
    problems
}

fn told(manifest: &Manifest, problems: &[String]) -> String {
    let by = &manifest.signed_off;
    let mut out = format!(
        "evidence of {} ({}), {}\ntaken by {} from {} in run {}, {} to {}\n",
        manifest.host, manifest.hostname, manifest.scope, by.who, by.from, by.run, by.started, by.finished
    );
    if !manifest.reason.is_empty() {
        out.push_str(&format!("reason: {}\n", manifest.reason));
    }
    for contained in &manifest.contained {
        out.push_str(&format!("contained: {} {}, off {}\n", contained.container, contained.by, contained.networks.join(", ")));
    }
    for missing in &manifest.missing {
        out.push_str(&format!("missing: {}: {}\n", missing.name, missing.why));
    }
    for part in &manifest.parts {
        if let Some(cut) = &part.cut {
            out.push_str(&format!("not whole: {}: {cut}\n", part.name));
        }
    }
    for problem in problems {
        out.push_str(&format!("DIFFERS: {problem}\n"));
    }
    let bytes: u64 = manifest.parts.iter().map(|part| part.bytes).sum();
    out.push_str(&match problems.len() {
        0 => format!("verified: {} parts, {bytes} bytes, every digest holds\n", manifest.parts.len()),
        count => format!("not verified: {count} of {} parts differ\n", manifest.parts.len()),
    });
    printable(&out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::capture::manifest::Part;

    #[test]
    fn whatever_differs_is_named() {
        let member = |name: &str, sha256: &str| Member { name: name.into(), bytes: 1, sha256: sha256.into() };
        let part = |name: &str, sha256: &str| Part { name: name.into(), bytes: 1, sha256: sha256.into(), ..Part::default() };
        let manifest =
            Manifest { format: FORMAT.into(), parts: vec![part("a", "1"), part("b", "2"), part("c", "3")], ..Manifest::default() };
        let members = [member("a", "1"), member("b", "9"), member("d", "4"), member("d", "4"), member("manifest.json", "x")];
        let problems = compare(&manifest, &members).join("\n");
        for expected in ["`d` is there twice", "`b` is not what", "`c` is in the manifest and not", "`d` is in the archive and not"] {
            assert!(problems.contains(expected), "{problems}");
        }
        assert_eq!(compare(&manifest, &[member("a", "1"), member("b", "2"), member("c", "3")]), Vec::<String>::new());
    }
}
