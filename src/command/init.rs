//! `init`: a new project that works.

use std::path::Path;

use crate::cli::InitArgs;
use crate::command::{complain, print};
use crate::diagnostic::Exit;

/// The new project's files: small, and everything in them is used.
const FILES: &[(&str, &str)] = &[
    ("soc-provision.yml", include_str!("init/soc-provision.yml")),
    ("inventory/lab.yml", include_str!("init/inventory.yml")),
    ("playbooks/lab.yml", include_str!("init/playbook.yml")),
    ("roles/hello/defaults/main.yml", include_str!("init/defaults.yml")),
    ("roles/hello/tasks/main.yml", include_str!("init/tasks.yml")),
    ("roles/hello/handlers/main.yml", include_str!("init/handlers.yml")),
    ("roles/hello/templates/motd", include_str!("init/motd")),
    ("roles/hello/verify/main.yml", include_str!("init/verify.yml")),
    (".gitignore", "*.retry\nidentity.txt\n"),
];

/// Writes the project; never over anything.
pub(super) fn run(arguments: &InitArgs) -> Exit {
    let directory = &arguments.directory;
    if let Some(there) = FILES
        .iter()
        .map(|(name, _)| directory.join(name))
        .find(|path| path.exists() && path.file_name().is_none_or(|name| name != ".gitignore"))
    {
        complain(&format!(
            "error: `{}` exists already; nothing was written\nhint: name an empty directory: `soc-provision init new-project`",
            there.display()
        ));
        return Exit::Usage;
    }
    for (name, text) in FILES {
        if let Err(error) = write(&directory.join(name), text) {
            complain(&format!("error: {}: {error}", directory.join(name).display()));
            return Exit::Usage;
        }
    }
    let cd = if directory == Path::new(".") { String::new() } else { format!("cd {}\n  ", directory.display()) };
    print(&format!(
        "a new project:\n  {}\n\nnext:\n  {cd}edit inventory/lab.yml            # name your hosts\n  soc-provision bootstrap ADDRESS   # first login to a new host\n  soc-provision check lab.yml\n  soc-provision plan lab.yml -D\n  soc-provision apply lab.yml\n",
        FILES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("\n  ")
    ));
    Exit::Fine
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, text)
}
