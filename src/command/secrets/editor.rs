//! The user's editor, kept from leaving copies of what it edits.

use std::ffi::OsStr;
use std::path::Path;

/// Editors whose swap, backup, undo and history files can be turned off by arguments.
const QUIET: &[(&[&str], &[&str])] = &[
    (
        &["vim", "nvim", "vim.basic", "vim.tiny", "vim.nox", "vim.gtk3", "gvim", "view"],
        &["-n", "-i", "NONE", "-c", "set nobackup nowritebackup noundofile noswapfile viminfo="],
    ),
    (&["nano", "rnano"], &["--ignorercfiles"]),
    (
        &["emacs", "emacs-nox", "emacs-gtk"],
        &[
            "--eval",
            "(setq make-backup-files nil auto-save-default nil auto-save-list-file-prefix nil create-lockfiles nil recentf-save-file nil)",
        ],
    ),
    (&["micro"], &["-backup", "off", "-savehistory", "off", "-saveundo", "off"]),
    (&["mg", "ed", "hx", "helix", "sed", "joe"], &[]),
];

/// The program, its arguments, and whether it is known to keep no copies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Editor {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
    pub(super) known: bool,
}

impl Editor {
    /// The editor that `$VISUAL` or `$EDITOR` names, as a program with arguments; else `vi`.
    pub(super) fn from_environment() -> Result<Self, String> {
        let given = ["VISUAL", "EDITOR"].into_iter().filter_map(|name| std::env::var(name).ok()).find(|value| !value.trim().is_empty());
        Self::parse(given.as_deref().unwrap_or("vi"))
    }

    /// Splits a command as a shell would, and adds what keeps the editor quiet.
    pub(super) fn parse(command: &str) -> Result<Self, String> {
        let words = shlex::split(command)
            .filter(|words| !words.is_empty())
            .ok_or_else(|| format!("the editor `{command}` cannot be understood"))?;
        let (program, given) = words.split_first().ok_or("no editor is named")?;
        let name = real_name(program);
        let quiet = QUIET.iter().find(|(names, _)| names.contains(&name.as_str()));
        let extra = quiet.map_or(&[][..], |(_, arguments)| arguments).iter().map(|&argument| argument.to_owned());
        Ok(Self { program: program.clone(), arguments: given.iter().cloned().chain(extra).collect(), known: quiet.is_some() })
    }
}

/// What a program's name stands for: `vi` and `editor` are links on most systems.
fn real_name(program: &str) -> String {
    let found = if program.contains('/') {
        Some(Path::new(program).to_owned())
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
    };
    let real = found.and_then(|path| path.canonicalize().ok());
    let name = real.as_deref().unwrap_or(Path::new(program)).file_name().unwrap_or(OsStr::new(program));
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_editors_are_kept_quiet() {
        let editor = Editor::parse("/nowhere/nvim --clean").unwrap();
        assert_eq!((editor.program.as_str(), editor.known), ("/nowhere/nvim", true));
        assert_eq!(editor.arguments[..3], ["--clean", "-n", "-i"]);
        assert!(editor.arguments.iter().any(|argument| argument.contains("noundofile")));
        assert!(!Editor::parse("code --wait").unwrap().known);
        assert!(Editor::parse("'unclosed").is_err());
        assert!(Editor::parse("").is_err());
    }
}
