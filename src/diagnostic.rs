//! How things go wrong: located problems of a project, classes of failure, exit codes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where in a user's file something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file, relative to the project where it lies in it.
    pub file: Arc<PathBuf>,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// Length in characters of what is marked, at least 1.
    pub length: u32,
}

/// One problem of a project: what is wrong, where, and what to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it stops the run.
    pub level: Level,
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// Where, if in a file.
    pub location: Option<Location>,
    /// What to do now.
    pub hint: Option<String>,
}

/// Whether a problem stops the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It does.
    Error,
    /// It does not.
    Warning,
}

impl Diagnostic {
    /// An error without a place.
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        Self { level: Level::Error, message: message.into(), location: None, hint: None }
    }

    /// A warning without a place.
    #[must_use]
    pub fn warning(message: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::error(message) }
    }

    /// With a place.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }

    /// With advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What kind of failure a host had; kept apart in reports and exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The name does not resolve.
    Dns,
    /// No TCP connection, or it was lost and could not be made again.
    Tcp,
    /// The host key is unknown, changed or revoked.
    HostKey,
    /// No login.
    Auth,
    /// No privilege on the host.
    Sudo,
    /// Somebody else holds the host's lock.
    LockHeld,
    /// No space left on the host.
    DiskFull,
    /// The host lacks a tool that the work needs.
    MissingTool,
    /// It took too long.
    Deadline,
    /// The host is not as it was when the plan was made.
    MovedOn,
    /// A step failed.
    StepFailed,
    /// The plan refuses: the reason was given.
    Refused,
    /// The distribution, or something else about the host, is not supported.
    Unsupported,
    /// A health check failed.
    Unhealthy,
    /// A guarded change was reverted.
    Reverted,
    /// The project cannot be resolved for this host.
    Project,
    /// Preflight: the host does not have what the roles require.
    Preflight,
    /// The user interrupted the run.
    Interrupted,
    /// A bug in soc-provision.
    Bug,
}

impl FailureClass {
    /// Whether the host counts as unreachable rather than failed.
    #[must_use]
    pub fn is_unreachable(self) -> bool {
        matches!(self, Self::Dns | Self::Tcp | Self::HostKey | Self::Auth)
    }

    /// The exit code of a run in which this happened.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            class if class.is_unreachable() => Exit::Unreachable,
            Self::Reverted => Exit::Reverted,
            Self::Interrupted => Exit::Interrupted,
            Self::Bug => Exit::Bug,
            _ => Exit::Failed,
        }
    }
}

/// A failure on a host, in the words that the user sees.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind it is.
    pub class: FailureClass,
    /// What happened: one sentence.
    pub message: String,
    /// Causes, outermost first, each adding only its own fact.
    pub causes: Vec<String>,
    /// What to do now.
    pub hint: Option<String>,
    /// Last lines of a failed command, stdout.
    pub stdout: String,
    /// Last lines of a failed command, stderr.
    pub stderr: String,
}

impl Failure {
    /// A failure of a class.
    #[must_use]
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), causes: Vec::new(), hint: None, stdout: String::new(), stderr: String::new() }
    }

    /// With a cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// With advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Exit codes (DESIGN 5). The order is that in which the worst of several wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Fine, in sync.
    #[default]
    Fine,
    /// Nothing was touched: usage, project, identity.
    Usage,
    /// Drift, or changes pending.
    Drift,
    /// A host was unreachable.
    Unreachable,
    /// A host failed.
    Failed,
    /// A guarded change was reverted.
    Reverted,
    /// Interrupted.
    Interrupted,
    /// A bug in soc-provision.
    Bug,
}

impl Exit {
    /// The number for the shell.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Usage => 1,
            Self::Failed => 2,
            Self::Drift => 3,
            Self::Unreachable => 4,
            Self::Reverted => 5,
            Self::Interrupted => 99,
            Self::Bug => 250,
        }
    }
}

/// Text from a host made safe for a terminal: control characters but tab and newline are shown
/// as escapes, so that nothing a host prints can move the cursor, change a title or hide a line.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_printable(c) || c == '\n' || c == '\t' {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

/// As [`printable`], on one line.
#[must_use]
pub fn printable_line(text: &str) -> String {
    printable(text).replace('\n', "\\n")
}

/// Whether a terminal shows this character and does nothing else: no control character, and no
/// mark that turns the direction of text.
#[must_use]
pub fn is_printable(c: char) -> bool {
    let bidi = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}');
    !c.is_control() && !bidi
}

/// The nearest of several names to what was typed, if it is near enough to be meant.
#[must_use]
pub fn nearest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (typed.chars().count() / 3).clamp(1, 3);
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(typed, name), name))
        .filter(|&(distance, _)| distance <= limit)
        // Of two as near, the one with more of the letters: `taks` is `tasks`, not `tags`.
        .min_by(|(a, one), (b, other)| {
            let alike = |name: &str| strsim::jaro_winkler(typed, name);
            a.cmp(b).then_with(|| alike(other).total_cmp(&alike(one))).then_with(|| one.cmp(other))
        })
        .map(|(_, name)| name)
}

/// Renders diagnostics for people, as rustc does: the sentence, the place with its source line
/// and a caret, the hint. `source` gives a file's text by the path that diagnostics show.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], source: &dyn Fn(&Path) -> Option<Arc<str>>, colour: bool) -> String {
    use annotate_snippets::renderer::DecorStyle;
    use annotate_snippets::{AnnotationKind, Group, Level as Title, Renderer, Snippet};
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
    let mut out = String::new();
    for diagnostic in diagnostics {
        let (level, message) = (
            match diagnostic.level {
                Level::Error => Title::ERROR,
                Level::Warning => Title::WARNING,
            },
            printable(&diagnostic.message),
        );
        let text = diagnostic.location.as_ref().and_then(|at| source(&at.file).map(|text| (at, text)));
        let excerpt = text.as_ref().and_then(|(at, text)| excerpt(text, at).map(|(line, span)| (*at, line, span)));
        let mut group = Group::with_title(level.primary_title(message));
        let path = diagnostic.location.as_ref().map(|at| printable(&at.file.display().to_string()));
        if let (Some((at, line, span)), Some(path)) = (&excerpt, &path) {
            let annotation = AnnotationKind::Primary.span(span.clone());
            group = group.element(Snippet::source(line.as_str()).line_start(at.line as usize).path(path.as_str()).annotation(annotation));
        } else if let (Some(at), Some(path)) = (&diagnostic.location, &path) {
            group = group.element(annotate_snippets::Origin::path(path.as_str()).line(at.line as usize).char_column(at.column as usize));
        }
        let hint = diagnostic.hint.as_ref().map(|hint| Group::with_title(Title::HELP.with_name("hint").secondary_title(printable(hint))));
        match (hint, &diagnostic.location) {
            (Some(hint), Some(_)) => out.push_str(&renderer.render(&[group, hint])),
            // Between groups comes a rule, which would belong to a place.
            (Some(hint), None) => out.push_str(&format!("{}\n{}", renderer.render(&[group]), renderer.render(&[hint]))),
            (None, _) => out.push_str(&renderer.render(&[group])),
        }
        out.push_str("\n\n");
    }
    out
}

/// The line that a location is in, safe for a terminal, and the bytes of it that are marked.
fn excerpt(text: &str, at: &Location) -> Option<(String, std::ops::Range<usize>)> {
    let line = text.lines().nth(at.line.checked_sub(1)? as usize)?;
    // Tabs would shift the caret.
    let line = printable(line).replace('\t', " ");
    let byte = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(byte, _)| byte);
    let column = at.column.saturating_sub(1) as usize;
    let (start, end) = (byte(column), byte(column.saturating_add(at.length.max(1) as usize)));
    Some((line, start..end.max(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_line_a_caret_and_a_hint() {
        let at = Location { file: Arc::new(PathBuf::from("roles/docker/tasks/main.yml")), line: 2, column: 5, length: 4 };
        let located = Diagnostic::error("unknown key `moed` in `file`").at(at).hint("did you mean `mode`?");
        let plain = Diagnostic::warning("nothing \u{1b}[2J to do").hint("rest");
        let text: Arc<str> = "- file:\n    moed: \"0644\"\n".into();
        let out = render(&[located, plain], &|_| Some(Arc::clone(&text)), false);
        let expected = "error: unknown key `moed` in `file`\n --> roles/docker/tasks/main.yml:2:5\n  |\n2 |     moed: \"0644\"\n  |     ^^^^\n  |\nhint: did you mean `mode`?\n\nwarning: nothing \\u{1b}[2J to do\nhint: rest\n\n";
        assert_eq!(out, expected, "\n{out}");
    }

    #[test]
    fn a_place_without_its_text_is_still_named() {
        let at = Location { file: Arc::new(PathBuf::from("x.yml")), line: 9, column: 3, length: 1 };
        let out = render(&[Diagnostic::error("odd").at(at)], &|_| None, false);
        assert!(out.contains("error: odd") && out.contains("x.yml:9:3"), "{out}");
        assert!(!out.contains('\u{1b}'));
    }

    #[test]
    fn colour_only_when_asked() {
        assert!(render(&[Diagnostic::error("odd")], &|_| None, true).contains('\u{1b}'));
    }
}
