//! `soc-provision secrets`: keeps the project's secrets. Values go to stdout only where `get` is
//! asked for one; everything else said is names.

mod ca;
mod check;
mod edit;
mod editor;
mod opener;
mod run;
mod set;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::cli::secrets::{InitArgs, KeygenArgs, SecretsArgs, SecretsCommand};
use crate::diagnostic::{Diagnostic, Exit, Level};
use crate::project::vault::{
    Access, Ask, IdentitySources, InitKeys, Keyring, LAB_IDENTITY, RekeyDigests, Store, VaultError, configured_identity, generate,
    write_atomically,
};
use crate::secret::SecretName;

pub(super) use opener::Opener;
pub(super) use run::run_command;

/// What went wrong: told, and exit code 1.
type Outcome = Result<(), Vec<Diagnostic>>;

/// Runs the command.
#[must_use]
pub(super) fn run(arguments: &SecretsArgs) -> Exit {
    match dispatch(arguments, Path::new(".")) {
        Ok(()) => Exit::Fine,
        Err(diagnostics) => {
            diagnostics.iter().for_each(tell);
            Exit::Usage
        }
    }
}

fn dispatch(arguments: &SecretsArgs, root: &Path) -> Outcome {
    let session = Session::new(arguments, root)?;
    match &arguments.command {
        SecretsCommand::Keygen(arguments) => session.keygen(arguments),
        SecretsCommand::Init(arguments) => session.init(arguments),
        SecretsCommand::Set(arguments) => set::run(&session, arguments),
        SecretsCommand::Get { name } => session.get(name),
        SecretsCommand::Edit { file } => edit::run(&session, file),
        SecretsCommand::List => {
            super::print(&session.list());
            session.report_problems();
            Ok(())
        }
        SecretsCommand::Ca(arguments) => ca::run(&session, arguments),
        SecretsCommand::Rekey(arguments) => session.rekey(arguments.new_digest_key),
        SecretsCommand::Check => check::run(&session, root),
    }
}

/// The store and the means to open it.
struct Session {
    dir: PathBuf,
    sources: IdentitySources,
}

impl Session {
    fn new(arguments: &SecretsArgs, root: &Path) -> Result<Self, Vec<Diagnostic>> {
        let config = configured_identity(root).map_err(one)?;
        let dir = root.join(&arguments.dir);
        // `./secrets` reads worse than `secrets` in every message.
        let dir = dir.strip_prefix("./").map(Path::to_owned).unwrap_or(dir);
        Ok(Self { dir, sources: IdentitySources::from_environment(&arguments.identity, config.as_deref()) })
    }

    fn store(&self) -> Store {
        Store::open_dir(&self.dir)
    }

    /// The store, if it has been started and nothing is wrong with it.
    fn sound_store(&self) -> Result<Store, Vec<Diagnostic>> {
        let store = self.store();
        let errors: Vec<_> = store.problems().into_iter().filter(|problem| problem.level == Level::Error).collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        if store.recipients().is_empty() {
            let text = format!("`{}` has no recipients", self.dir.display());
            return Err(vec![Diagnostic::error(text).hint("start it with `soc-provision secrets init`, or name another with `--dir`")]);
        }
        Ok(store)
    }

    fn keyring(&self, store: &Store) -> Keyring {
        store.keyring(self.sources.clone(), Some(ask_terminal()))
    }

    fn report_problems(&self) {
        self.store().problems().iter().for_each(tell);
    }

    fn keygen(&self, arguments: &KeygenArgs) -> Outcome {
        let path = arguments.output.clone().or_else(|| self.sources.default_file());
        let path = path
            .ok_or_else(|| vec![Diagnostic::error("there is no home directory to put the key into").hint("name a file with `--output`")])?;
        if path.exists() {
            let text = format!("`{}` is there already and is not overwritten", path.display());
            return Err(vec![
                Diagnostic::error(text).hint("name another file with `--output`; without its key, secrets encrypted to it are lost"),
            ]);
        }
        let (text, public) = generate(&jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string());
        write_atomically(&path, &text, 0o600).map_err(one)?;
        super::complain(&format!("wrote the private key to `{}`; keep a copy where it is safe. Its public half:", path.display()));
        super::print(&format!("{public}\n"));
        Ok(())
    }

    fn init(&self, arguments: &InitArgs) -> Outcome {
        let keys = if arguments.lab {
            InitKeys::Lab
        } else {
            let keyring = Keyring::new(self.sources.clone(), None);
            let own = match keyring.identities() {
                Ok(identities) => identities.public_keys().map(str::to_owned).collect(),
                // Starting it for others takes no key of one's own.
                Err(VaultError::NoIdentity { .. }) if !arguments.recipients.is_empty() => Vec::new(),
                Err(error) => return Err(one(error)),
            };
            let mut lines: Vec<String> = arguments.recipients.clone();
            lines.extend(own.into_iter().filter(|key: &String| !arguments.recipients.iter().any(|line| line.starts_with(key.as_str()))));
            InitKeys::Recipients(lines)
        };
        let store = Store::init(&self.dir, keys).map_err(one)?;
        let count = store.recipients().iter().count();
        super::complain(&format!("started `{}`, encrypted to {count} {}", self.dir.display(), if count == 1 { "key" } else { "keys" }));
        if store.is_lab_only() {
            super::complain(&format!(
                "`{}` is to be committed: these secrets are for throw-away hosts",
                self.dir.join(LAB_IDENTITY).display()
            ));
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Outcome {
        let name = parse_name(name)?;
        let store = self.store();
        let keyring = self.keyring(&store);
        let value = store.reveal(&name, access(&keyring)).map_err(many)?;
        if std::io::stdout().is_terminal() {
            super::complain(&format!("warning: the value of `{name}` is now on your screen and in its scrollback"));
            super::print(&Zeroizing::new(format!("{}\n", value.trim_end_matches('\n'))));
        } else {
            super::print(&value);
        }
        Ok(())
    }

    /// A line a secret: name, file, whether plan and drift can compare it.
    fn list(&self) -> String {
        use std::fmt::Write as _;
        let store = self.store();
        let digests = store.digests();
        let names = store.names();
        let width = names.iter().map(|name| name.as_str().len()).max().unwrap_or_default();
        let mut out = String::new();
        for name in names {
            let place = store.place(&name).unwrap_or_default();
            let note = if digests.get(&name).is_some() { "" } else { "  (no digest: run `soc-provision secrets rekey`)" };
            let _ = writeln!(out, "{:width$}  {}{note}", name.as_str(), self.dir.join(place).display());
        }
        out
    }

    fn rekey(&self, new_digest_key: bool) -> Outcome {
        let mut store = self.sound_store()?;
        let keyring = self.keyring(&store);
        let digests = if new_digest_key { RekeyDigests::New } else { RekeyDigests::Keep };
        let count = store.rekey(access(&keyring), digests).map_err(many)?;
        super::complain(&format!("encrypted {count} files to {} keys", store.recipients().iter().count()));
        warn_if_locked_out(&store, &keyring);
        Ok(())
    }
}

fn access(keyring: &Keyring) -> Access<'_> {
    Access { keyring, run: &run_command }
}

/// Somebody who encrypts to others only will not read it again.
fn warn_if_locked_out(store: &Store, keyring: &Keyring) {
    let own = |identities: &crate::project::vault::Identities| identities.public_keys().any(|key| store.recipients().contains(key));
    if keyring.identities().is_ok_and(|identities| !own(identities)) {
        super::complain("warning: none of your keys is in `recipients.txt`: you can no longer open these secrets");
    }
}

/// Asks for passphrases on the terminal.
#[must_use]
pub(super) fn ask_terminal() -> Ask {
    Box::new(|prompt| rpassword::prompt_password(prompt).ok().map(Zeroizing::new))
}

fn parse_name(name: &str) -> Result<SecretName, Vec<Diagnostic>> {
    SecretName::parse(name).map_err(|reason| vec![Diagnostic::error(reason)])
}

fn one(error: VaultError) -> Vec<Diagnostic> {
    vec![error.into()]
}

fn many(errors: Vec<VaultError>) -> Vec<Diagnostic> {
    errors.into_iter().map(Diagnostic::from).collect()
}

/// Prints a diagnostic to stderr.
fn tell(diagnostic: &Diagnostic) {
    let level = match diagnostic.level {
        Level::Error => "error",
        Level::Warning => "warning",
    };
    let hint = diagnostic.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    super::complain(&format!("{level}: {}{hint}", diagnostic.message));
}
