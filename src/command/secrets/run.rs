//! Runs the command that prints a secret, on the controller.

use std::io::Read as _;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

/// Longest value a command may print, in bytes.
const MAX_VALUE: usize = 1 << 20;

/// Runs a program with its arguments, without a shell, and returns its stdout. Its stderr goes to
/// the user's terminal, where it may ask for a touch of a key.
///
/// # Errors
/// Why there is no value; never with what the command printed on stdout.
pub(in crate::command) fn run_command(command: &[String]) -> Result<Zeroizing<Vec<u8>>, String> {
    let [program, arguments @ ..] = command else { return Err("it is empty".to_owned()) };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start `{program}`: {error}"))?;
    // Sized up front and never grown: no copy of the value is left behind.
    let mut value = Zeroizing::new(Vec::with_capacity(MAX_VALUE + 1));
    let read = match child.stdout.take() {
        Some(stdout) => stdout.take(MAX_VALUE as u64 + 1).read_to_end(&mut value),
        None => Ok(0),
    };
    let status = child.wait().map_err(|error| format!("cannot wait for `{program}`: {error}"))?;
    read.map_err(|error| format!("cannot read what `{program}` prints: {error}"))?;
    if value.len() > MAX_VALUE {
        return Err(format!("`{program}` prints more than {MAX_VALUE} bytes"));
    }
    if !status.success() {
        return Err(format!("`{program}` ended with {status}"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn stdout_is_the_value_and_failures_say_why() {
        assert_eq!(&**run_command(&words(&["printf", "%s\\n", "a value"])).unwrap(), b"a value\n");
        assert_eq!(run_command(&words(&["sh", "-c", "echo hidden; exit 3"])).unwrap_err(), "`sh` ended with exit status: 3");
        assert!(run_command(&words(&["/no/such/program"])).unwrap_err().contains("cannot start"));
        assert!(run_command(&words(&["head", "-c", "2000000", "/dev/zero"])).unwrap_err().contains("more than"));
    }
}
