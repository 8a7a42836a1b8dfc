//! `images lock`: writes `images.lock`, whole or not at all.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::{Images, Used, gate, survey};
use crate::cli::images::LockArgs;
use crate::command::run::{Loaded, load};
use crate::command::{complain, print};
use crate::diagnostic::{Exit, printable};
use crate::project::images::{LOCK, Locked};

/// Looks, judges, writes.
pub(super) fn run(arguments: &LockArgs) -> Exit {
    let loaded = match load(&arguments.run.playbook, &arguments.run.inventory).map(Loaded::unrequired) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let project = &loaded.project;
    let gate = project.images.gate.clone();
    let on_host = gate.clone().filter(|gate| gate.on_host && !arguments.check);
    let (found, exit) = match survey(&loaded, &arguments.run, on_host, arguments.pull) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    if exit > Exit::Fine {
        complain(&format!("error: not every host could be asked; {LOCK} was not written"));
        return exit;
    }
    if found.is_empty() {
        complain("error: the playbook's stacks use no images on these hosts");
        return Exit::Usage;
    }
    let missing: Vec<String> = found
        .iter()
        .filter(|(_, used)| used.ids.is_empty())
        .map(|(reference, used)| {
            format!("`{}` (needed by {})", printable(reference), used.by.iter().cloned().collect::<Vec<_>>().join(", "))
        })
        .collect();
    if !missing.is_empty() {
        complain(&format!("error: no host has {}; {LOCK} was not written", missing.join(", ")));
        complain(
            "hint: `--pull` asks the registries; an `archive` is locked before any host has it; other images come with the first apply",
        );
        return Exit::Failed;
    }
    for (reference, used) in found.iter().filter(|(_, used)| used.digests.len() > 1) {
        let digests = used.digests.iter().cloned().collect::<Vec<_>>().join(", ");
        complain(&format!("warning: hosts have different images under `{}`: {digests}; the first is locked", printable(reference)));
    }
    if arguments.check {
        return compare(&found, &project.images.locked);
    }
    if let Some(gate) = &gate {
        if !gate::pass(&project.root, gate, &found) {
            complain(&format!("error: the image gate refused; {LOCK} was not written"));
            return Exit::Failed;
        }
    }
    let text = render(&arguments.run.playbook, &found, &project.images.locked);
    match write(&project.root, &text) {
        Ok(()) => {
            for (reference, used) in &found {
                let known = project.images.locked.get(reference);
                let word = match known {
                    None => "locked",
                    Some(known) if fits(known, used) => "as before",
                    Some(_) => "locked anew",
                };
                print(&format!("{word:<12} {} {}\n", printable(reference), used.ids.iter().cloned().collect::<Vec<_>>().join(" ")));
            }
            print(&format!("{LOCK}: {} images\n", found.len()));
            Exit::Fine
        }
        Err(error) => {
            complain(&format!("error: {LOCK} cannot be written: {error}"));
            Exit::Usage
        }
    }
}

fn fits(known: &Locked, used: &Used) -> bool {
    let digest = known.digest.as_ref().is_none_or(|digest| used.digests.is_empty() || used.digests.contains(digest));
    digest && used.ids.iter().all(|id| known.ids.contains(id) || (known.ids.is_empty() && known.digest.is_some()))
}

fn compare(found: &Images, locked: &BTreeMap<String, Locked>) -> Exit {
    let mut differs = false;
    for (reference, used) in found {
        match locked.get(reference) {
            Some(known) if fits(known, used) => {}
            Some(known) => {
                differs = true;
                let ids = used.ids.iter().cloned().collect::<Vec<_>>().join(" ");
                print(&format!("differs: {}: {ids}, not as in {}:{}\n", printable(reference), known.at.file.display(), known.at.line));
            }
            None => {
                differs = true;
                print(&format!("not locked: {}\n", printable(reference)));
            }
        }
    }
    print(if differs { "images: not as locked\n" } else { "images: as locked\n" });
    if differs { Exit::Drift } else { Exit::Fine }
}

/// The file: what was found, and what other playbooks locked before.
fn render(playbook: &str, found: &Images, before: &BTreeMap<String, Locked>) -> String {
    let mut entries: BTreeMap<&String, (Option<String>, Vec<String>)> =
        before.iter().map(|(reference, lock)| (reference, (lock.digest.clone(), lock.ids.clone()))).collect();
    for (reference, used) in found {
        entries.insert(reference, (used.digests.first().cloned(), used.ids.iter().cloned().collect()));
    }
    let mut out = format!("# Written by `soc-provision images lock {playbook}`: the images that stacks may run.\nimages:\n");
    for (reference, (digest, ids)) in entries {
        let _ = writeln!(out, "  {}:", serde_json::Value::from(reference.as_str()));
        if let Some(digest) = digest {
            let _ = writeln!(out, "    digest: {digest}");
        }
        if !ids.is_empty() {
            let _ = writeln!(out, "    ids: [{}]", ids.join(", "));
        }
    }
    out
}

fn write(root: &Path, text: &str) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(root)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.persist(root.join(LOCK)).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_keeps_what_other_playbooks_locked() {
        let used = Used { ids: ["sha256:bb".to_owned()].into(), digests: ["sha256:dd".to_owned()].into(), ..Used::default() };
        let found = Images::from([("web:1".to_owned(), used)]);
        let text = render("prod.yml", &found, &BTreeMap::new());
        assert!(text.ends_with("images:\n  \"web:1\":\n    digest: sha256:dd\n    ids: [sha256:bb]\n"), "{text}");
    }
}
