//! `secrets set`: a value from the terminal, stdin, a file, a generator, or a command to run.

use std::io::{IsTerminal as _, Read as _};

use zeroize::Zeroizing;

use super::{Outcome, Session, access, many, one, parse_name, warn_if_locked_out};
use crate::cli::secrets::SetArgs;
use crate::diagnostic::Diagnostic;
use crate::secret::{MIN_SECRET_LEN, SecretName};

/// Longest value, in bytes.
const MAX_VALUE: u64 = 1 << 20;

pub(super) fn run(session: &Session, arguments: &SetArgs) -> Outcome {
    let name = parse_name(&arguments.name)?;
    let mut store = session.sound_store()?;
    let keyring = session.keyring(&store);
    // Before anybody types a value that then cannot be stored.
    keyring.identities().map_err(one)?;
    let place = if arguments.from_command {
        store.set_command(&name, arguments.command.clone(), access(&keyring)).map_err(one)?;
        crate::project::vault::COMMANDS.to_owned()
    } else {
        let value = value(arguments, &name)?;
        store.set(&name, &value, arguments.into.as_deref(), &keyring).map_err(many)?
    };
    crate::command::complain(&format!("stored `{name}` in `{}`", store.dir().join(place).display()));
    warn_if_locked_out(&store, &keyring);
    Ok(())
}

fn value(arguments: &SetArgs, name: &SecretName) -> Result<Zeroizing<String>, Vec<Diagnostic>> {
    let fail = |text: String| vec![Diagnostic::error(text)];
    if let Some(length) = arguments.generate {
        return generate(length).map_err(fail);
    }
    if let Some(path) = &arguments.file {
        let read = std::fs::read(path).map(Zeroizing::new);
        let bytes = read.map_err(|error| fail(format!("cannot read `{}`: {error}", path.display())))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| fail(format!("`{}` is not UTF-8 text; store binary content as base64", path.display())))?;
        return Ok(Zeroizing::new(text.to_owned()));
    }
    if std::io::stdin().is_terminal() {
        return prompt(name).map_err(fail);
    }
    let mut value = Zeroizing::new(String::with_capacity(64 << 10));
    std::io::stdin()
        .lock()
        .take(MAX_VALUE)
        .read_to_string(&mut value)
        .map_err(|error| fail(format!("cannot read the value from stdin: {error}")))?;
    if value.ends_with('\n') {
        value.pop();
    }
    Ok(value)
}

fn prompt(name: &SecretName) -> Result<Zeroizing<String>, String> {
    let ask = |text: String| {
        rpassword::prompt_password(text).map(Zeroizing::new).map_err(|error| format!("cannot read from the terminal: {error}"))
    };
    let first = ask(format!("value of `{name}` (not shown): "))?;
    let second = ask("the same again: ".to_owned())?;
    if *first == *second { Ok(first) } else { Err("the two values differ; nothing was stored".to_owned()) }
}

/// A random value of letters and digits, which need no quoting anywhere: 5.95 bits a character.
pub(super) fn generate(length: usize) -> Result<Zeroizing<String>, String> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    if !(MIN_SECRET_LEN..=4096).contains(&length) {
        return Err(format!("cannot generate {length} characters: between {MIN_SECRET_LEN} and 4096"));
    }
    let mut value = Zeroizing::new(String::with_capacity(length));
    let mut random = Zeroizing::new([0_u8; 256]);
    while value.len() < length {
        getrandom::fill(&mut *random).map_err(|error| format!("no randomness: {error}"))?;
        // 248 is the largest multiple of 62 in a byte: above it some letters would come more often.
        let letters = random.iter().filter(|&&byte| byte < 248).map(|&byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
        for letter in letters.take(length - value.len()) {
            value.push(letter);
        }
    }
    Ok(value)
}
