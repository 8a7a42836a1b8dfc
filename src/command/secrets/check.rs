//! `secrets check`: secrets in clear anywhere in the repository, and anything wrong in the store.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Outcome, Session, access};
use crate::diagnostic::Diagnostic;
use crate::project::leaks::{Allow, scan};
use crate::project::vault::{LAB_IDENTITY, LAB_MARKER, stanzas};

/// Exceptions, in the secrets' directory.
const ALLOW: &str = "allow.yml";
/// Larger files are data, not configuration.
const MAX_FILE: u64 = 1 << 20;

pub(super) fn run(session: &Session, root: &Path) -> Outcome {
    let store = session.store();
    let keyring = session.keyring(&store);
    let opens = keyring.identities().is_ok();
    if !opens {
        crate::command::complain("note: no identity found: values and digests are not looked at, headers and records are");
    }
    let mut found = store.audit(opens.then(|| access(&keyring)));
    let files = list(root)?;
    let leaks = leaks(root, &session.dir, &files)?;
    found.extend(leaks);
    if found.is_empty() {
        crate::command::complain(&format!("looked at {} files and {} secrets: nothing wrong", files.len(), store.names().len()));
        return Ok(());
    }
    Err(found)
}

/// What looks like a secret in the files, but for the exceptions.
pub(super) fn leaks(root: &Path, dir: &Path, files: &[String]) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let path = dir.join(ALLOW);
    let allow = match std::fs::read_to_string(&path) {
        Ok(text) => Allow::parse(&text).map_err(|reason| vec![Diagnostic::error(format!("`{}`: {reason}", path.display()))])?,
        Err(_) => Vec::new(),
    };
    let mut used = vec![false; allow.len()];
    let mut found = Vec::new();
    for file in files {
        let path = root.join(file);
        if is_lab_identity(&path) || std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > MAX_FILE) {
            continue;
        }
        let Ok(bytes) = std::fs::read(&path) else { continue };
        if Path::new(file).extension().is_some_and(|extension| extension == "age") {
            if stanzas(&bytes, Path::new(file)).is_err() && !path.starts_with(dir) {
                found.push(Diagnostic::error(format!("`{file}` is called an age file and is none")));
            }
            continue;
        }
        let Ok(text) = std::str::from_utf8(&bytes) else { continue };
        for leak in scan(file, text) {
            let line = text.lines().nth(leak.line - 1).unwrap_or_default();
            if let Some(index) = allow.iter().position(|allow| allow.covers(file, &leak, line)) {
                used[index] = true;
            } else {
                let hint = format!(
                    "store it with `soc-provision secrets set NAME`, or, if it is none, list it in `{}` with a reason",
                    dir.join(ALLOW).display()
                );
                found.push(Diagnostic::error(format!("`{file}:{}` looks like {}", leak.line, leak.what)).hint(hint));
            }
        }
    }
    let unused = allow.iter().zip(used).filter(|(_, used)| !used);
    found.extend(unused.map(|(allow, _)| {
        Diagnostic::error(format!("the exception for `{}` in `{}` covers nothing", allow.pattern, path.display())).hint("remove it")
    }));
    Ok(found)
}

/// The committed key of a lab-only store, which is known and meant to be there.
fn is_lab_identity(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == LAB_IDENTITY) && path.with_file_name(LAB_MARKER).exists()
}

/// Files of the repository: those that git tracks or would add, else all below the root but for
/// what a top `.gitignore` names.
pub(super) fn list(root: &Path) -> Result<Vec<String>, Vec<Diagnostic>> {
    let git = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .stderr(Stdio::null())
        .output();
    if let Ok(output) = git
        && output.status.success()
    {
        let mut files: Vec<String> = output
            .stdout
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        files.sort();
        files.dedup();
        return Ok(files);
    }
    let ignored = ignored(root).map_err(|error| vec![Diagnostic::error(format!("cannot read `.gitignore`: {error}"))])?;
    let mut files = Vec::new();
    walk(root, "", &ignored, &mut files).map_err(|error| vec![Diagnostic::error(format!("cannot list `{}`: {error}", root.display()))])?;
    files.sort();
    Ok(files)
}

fn ignored(root: &Path) -> Result<globset::GlobSet, globset::Error> {
    let text = std::fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
    let mut set = globset::GlobSetBuilder::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!'])) {
        let line = line.trim_end_matches('/');
        let pattern = if line.contains('/') { line.trim_start_matches('/').to_owned() } else { format!("**/{line}") };
        set.add(globset::GlobBuilder::new(&pattern).literal_separator(true).build()?);
    }
    set.build()
}

fn walk(dir: &Path, prefix: &str, ignored: &globset::GlobSet, files: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let relative = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        if ignored.is_match(&relative) || relative == ".git" {
            continue;
        }
        if kind.is_dir() {
            walk(&entry.path(), &format!("{relative}/"), ignored, files)?;
        } else if kind.is_file() {
            files.push(relative);
        }
    }
    Ok(())
}
