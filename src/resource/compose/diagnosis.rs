//! What is the matter with a stack: the script that looks (`diagnose.sh`), and its findings.

use super::stack::ROOT;
use crate::shell::Script;

/// The shell functions; `diagnose` runs them all.
pub const FUNCTIONS: &str = include_str!("diagnose.sh");
/// How many findings of a host are kept.
const MOST: usize = 2000;

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    pub kind: FindingKind,
    /// A container, the stack, or `docker`.
    pub subject: String,
    pub text: String,
}

/// What sort of finding it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingKind {
    /// The stack as a whole.
    Stack,
    /// A container's state.
    State,
    /// Something is wrong.
    Bad,
    /// Worth knowing.
    Note,
    /// What a container or its health check said.
    Log,
}

/// The script that looks at a project, read-only.
#[must_use]
pub fn script(stack: &str) -> Script {
    Script::sh("stack={} dir={} full=1\n", &[stack, &format!("{ROOT}/{stack}")]).then(FUNCTIONS, &[]).then("diagnose\n", &[])
}

/// The projects on a host: Compose's label and the stacks' directories.
#[must_use]
pub fn projects() -> Script {
    Script::sh(
        "{ docker ps -a --format {} 2>/dev/null; ls {} 2>/dev/null; } | grep . | sort -u\n",
        &["{{.Label \"com.docker.compose.project\"}}", ROOT],
    )
}

/// Reads what the script printed; lines that are not its own are left out.
#[must_use]
pub fn parse(output: &str) -> Vec<Finding> {
    let finding = |line: &str| {
        let mut parts = line.splitn(3, '\t');
        let kind = match parts.next()? {
            "stack" => FindingKind::Stack,
            "state" => FindingKind::State,
            "bad" => FindingKind::Bad,
            "note" => FindingKind::Note,
            "log" => FindingKind::Log,
            _ => return None,
        };
        Some(Finding { kind, subject: parts.next()?.to_owned(), text: parts.next()?.to_owned() })
    };
    output.lines().filter_map(finding).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_posix_sh() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/resource/compose/diagnose.sh");
        let out = std::process::Command::new("sh").args(["-n", file]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    #[test]
    fn findings_are_read_and_rubbish_left_out() {
        let found = parse("state\tweb-1\trunning\nrubbish\nbad\tweb-1\tcannot\twrite\nmad\tx\ty");
        assert_eq!(found.len(), 2);
        assert_eq!((found[1].kind, found[1].text.as_str()), (FindingKind::Bad, "cannot\twrite"));
    }
}
