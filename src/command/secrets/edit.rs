//! `secrets edit`: plaintext in a private directory in memory, an editor on it, and back.
//!
//! Refuses where there is no file system in memory. What the editor may have left beside the file
//! is overwritten and removed with it, also when the editor or we are told to stop.

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::editor::Editor;
use super::{Outcome, Session, many, one, warn_if_locked_out};
use crate::diagnostic::Diagnostic;
use crate::project::vault::{Keyring, Store};
use crate::secret::SecretName;

/// Magic numbers of file systems that live in memory: statfs(2).
const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;

const NEW_MAP: &str = "# One secret a line, values in quotes:\n# db_password: \"...\"\n";

pub(super) fn run(session: &Session, file: &str) -> Outcome {
    let mut store = session.sound_store()?;
    let keyring = session.keyring(&store);
    let file = resolve(&store, &session.dir, file)?;
    let editor = Editor::from_environment().map_err(fail)?;
    if !editor.known {
        crate::command::complain(&format!("warning: `{}` is not known: make sure that it keeps no copies elsewhere", editor.program));
    }
    let places = [std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from), Some(PathBuf::from("/dev/shm"))];
    let places: Vec<_> = places.into_iter().flatten().collect();
    let again = || std::io::stdin().is_terminal() && ask_again();
    let written = edit(&mut store, &file, &keyring, &editor, &places, again)?;
    let path = session.dir.join(&file);
    if written {
        crate::command::complain(&format!("wrote `{}`", path.display()));
        warn_if_locked_out(&store, &keyring);
    } else {
        crate::command::complain(&format!("`{}` is unchanged", path.display()));
    }
    Ok(())
}

fn fail(text: impl Into<String>) -> Vec<Diagnostic> {
    vec![Diagnostic::error(text)]
}

/// What the user named, as a file relative to the store: a path, a file, or a secret's name.
fn resolve(store: &Store, dir: &Path, named: &str) -> Result<String, Vec<Diagnostic>> {
    let file = Path::new(named).strip_prefix(dir).ok().and_then(Path::to_str).unwrap_or(named);
    if is_age(file) {
        return Ok(file.to_owned());
    }
    match SecretName::parse(file).ok().and_then(|name| store.place(&name)) {
        Some(place) if is_age(&place) => Ok(place),
        Some(place) => Err(vec![
            Diagnostic::error(format!("`{file}` comes from a command in `{place}`"))
                .hint(format!("edit `{}` as it is", dir.join(&place).display())),
        ]),
        None => Err(vec![
            Diagnostic::error(format!("there is no file or secret `{file}` in `{}`", dir.display())).hint("name a new file `NAME.yml.age`"),
        ]),
    }
}

fn is_age(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|extension| extension == "age")
}

/// Edits one file of the store. Returns whether it changed.
pub(super) fn edit(
    store: &mut Store,
    file: &str,
    keyring: &Keyring,
    editor: &Editor,
    places: &[PathBuf],
    again: impl Fn() -> bool,
) -> Result<bool, Vec<Diagnostic>> {
    let exists = store.dir().join(file).exists();
    let old = match exists {
        true => store.plaintext(file, keyring).map_err(one)?,
        false if file.ends_with(".yml.age") => Zeroizing::new(NEW_MAP.as_bytes().to_vec()),
        false => Zeroizing::default(),
    };
    let scratch = Scratch::new(places)?;
    // The name's end tells the editor what it is.
    let name = if file.ends_with(".yml.age") { "secrets.yml" } else { "secret.txt" };
    let path = scratch.write(name, &old)?;
    loop {
        run_editor(editor, &path, scratch.dir.path()).map_err(fail)?;
        let new = std::fs::read(&path).map(Zeroizing::new).map_err(|error| fail(format!("cannot read what the editor wrote: {error}")))?;
        if *new == *old {
            return Ok(false);
        }
        match store.replace_file(file, &new, keyring) {
            Ok(()) => return Ok(true),
            Err(errors) => {
                let diagnostics = many(errors);
                if !again() {
                    return Err(diagnostics);
                }
                diagnostics.iter().for_each(super::tell);
            }
        }
    }
}

fn ask_again() -> bool {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "edit again? [Y/n] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok_and(|read| read > 0) && !answer.trim_start().starts_with(['n', 'N'])
}

/// A private directory in memory; what is in it is overwritten and removed in the end.
struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    fn new(places: &[PathBuf]) -> Result<Self, Vec<Diagnostic>> {
        let mut tried = Vec::new();
        for place in places {
            if !in_memory(place) {
                tried.push(format!("`{}`", place.display()));
                continue;
            }
            let made =
                tempfile::Builder::new().prefix("soc-provision-").permissions(std::fs::Permissions::from_mode(0o700)).tempdir_in(place);
            match made {
                Ok(dir) => return Ok(Self { dir }),
                Err(error) => tried.push(format!("`{}` ({error})", place.display())),
            }
        }
        let text = format!("refusing to edit: there is no file system in memory that I can write to; looked at {}", tried.join(", "));
        Err(vec![Diagnostic::error(text).hint("use `soc-provision secrets set NAME --into FILE`, which writes no plaintext anywhere")])
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, Vec<Diagnostic>> {
        let path = self.dir.path().join(name);
        let open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        open.and_then(|mut file| file.write_all(content)).map_err(|error| fail(format!("cannot write `{}`: {error}", path.display())))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        wipe(self.dir.path());
    }
}

/// Overwrites every file below a directory with zeros.
fn wipe(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            wipe(&entry.path());
        } else if kind.is_file() {
            let length = entry.metadata().map_or(0, |metadata| metadata.len());
            if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open(entry.path()) {
                let _ = std::io::copy(&mut std::io::Read::take(std::io::repeat(0), length), &mut file);
            }
        }
    }
}

fn in_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| {
        // The width and sign of this field differ between architectures.
        #[expect(clippy::cast_sign_loss, reason = "magic numbers fit 32 bits")]
        let magic = stat.f_type as u64 & 0xffff_ffff;
        magic == TMPFS_MAGIC || magic == RAMFS_MAGIC
    })
}

/// Runs the editor to its end. Ctrl-C is the editor's; a signal that ends us ends it first, so that
/// the plaintext is wiped.
fn run_editor(editor: &Editor, file: &Path, dir: &Path) -> Result<(), String> {
    // A thread of its own: this may be called from inside another runtime.
    std::thread::scope(|scope| {
        let handle = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
            runtime.block_on(supervise(editor, file, dir))
        });
        handle.join().unwrap_or_else(|_| Err("the editor's supervisor failed".to_owned()))
    })
}

async fn supervise(editor: &Editor, file: &Path, dir: &Path) -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let on = |kind| signal(kind).map_err(|error| error.to_string());
    let (mut interrupt, mut terminate, mut hangup) =
        (on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?);
    let mut child = tokio::process::Command::new(&editor.program)
        .args(&editor.arguments)
        .arg(file)
        .current_dir(dir)
        .env("TMPDIR", dir)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start the editor `{}`: {error}", editor.program))?;
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.map_err(|error| error.to_string())?;
                return if status.success() { Ok(()) } else { Err(format!("the editor `{}` ended with {status}; nothing was stored", editor.program)) };
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => break,
            _ = hangup.recv() => break,
        }
    }
    let _ = child.kill().await;
    Err("stopped by a signal; nothing was stored".to_owned())
}
