//! The interview: all of a host's questions as one script, and the answers out of its output.
//!
//! Pure: the engine runs what [`script`] returns and hands the output to [`parse`]. Each kind of
//! question is one process on the host however many there are (500 paths are one `stat`); a
//! kernel setting is read by the shell itself. Nothing is written on the host.
//!
//! The output is cut into sections by a nonce that the host learns only with the script, so no
//! file name and no content can pretend to be another answer.

mod ask;
mod docker;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use crate::resource::observe::{Answer, Observations, Question};
use crate::secret::sha256;
use crate::shell::Script;

/// How much of the script's output the engine should keep, in bytes: one `docker inspect` of some
/// hundred containers is several megabytes, and a cut answer is no answer.
pub const KEEP: usize = 64 << 20;

/// Largest file that [`Question::Content`] reads, in bytes.
pub const MAX_CONTENT: u64 = 1 << 20;

/// Where the records of files with secrets are, for root's eyes only: one file each, named
/// [`secret_record`], with two lines: the fingerprint and the SHA-256 of what was written.
pub const SECRET_RECORDS: &str = "/var/lib/soc-provision/secret-files";

/// The path of the record that belongs to a file with secrets.
#[must_use]
pub fn secret_record(path: &str) -> String {
    format!("{SECRET_RECORDS}/{}", sha256(path.as_bytes()))
}

pub use ask::sysctl_path;

/// One script that asks everything. `nonce` is letters and digits that nobody can guess.
#[must_use]
pub fn script(questions: &[Question], nonce: &str) -> Script {
    ask::script(&Topics::sort(questions), nonce)
}

/// Reads the script's output. Every question gets an answer: what the output does not tell is
/// [`Answer::Failed`].
#[must_use]
pub fn parse(questions: &[Question], nonce: &str, output: &[u8]) -> Observations {
    let topics = Topics::sort(questions);
    let sections = Sections::cut(nonce, output);
    let mut observations = Observations::default();
    parse::answer(&topics, &sections, &mut observations);
    docker::answer(&topics, &sections, &mut observations);
    for question in questions {
        if observations.get(question).is_none() {
            observations.insert(question.clone(), Answer::Failed("the host's answer is missing or cut off".to_owned()));
        }
    }
    observations
}

/// The questions by kind, each once, in the order first asked.
#[derive(Default)]
struct Topics<'a> {
    paths: Vec<&'a str>,
    digests: Vec<&'a str>,
    contents: Vec<&'a str>,
    secret_files: Vec<&'a str>,
    packages: Vec<&'a str>,
    units: Vec<&'a str>,
    users: Vec<&'a str>,
    groups: Vec<&'a str>,
    sysctls: Vec<&'a str>,
    modules: Vec<&'a str>,
    images: Vec<&'a str>,
    networks: Vec<&'a str>,
    volumes: Vec<&'a str>,
    docker_info: bool,
    containers: bool,
    listening: bool,
    raw: Vec<(&'a Question, &'a Script)>,
    /// Questions that cannot be asked, and why.
    unfit: Vec<(&'a Question, String)>,
}

impl<'a> Topics<'a> {
    fn sort(questions: &'a [Question]) -> Self {
        let mut topics = Self::default();
        let mut seen = HashSet::new();
        for question in questions.iter().filter(|question| seen.insert(*question)) {
            if let Some(reason) = unfit(question) {
                topics.unfit.push((question, reason));
            } else {
                topics.add(question);
            }
        }
        topics
    }

    fn add(&mut self, question: &'a Question) {
        match question {
            Question::Path(path) => self.paths.push(path),
            Question::Digest(path) => self.digests.push(path),
            Question::Content(path) => self.contents.push(path),
            Question::SecretFile(path) => self.secret_files.push(path),
            Question::Package(name) => self.packages.push(name),
            Question::Unit(name) => self.units.push(name),
            Question::User(name) => self.users.push(name),
            Question::Group(name) => self.groups.push(name),
            Question::Sysctl(name) => self.sysctls.push(name),
            Question::Module(name) => self.modules.push(name),
            Question::Image(reference) => self.images.push(reference),
            Question::Network(name) => self.networks.push(name),
            Question::Volume(name) => self.volumes.push(name),
            Question::DockerInfo => self.docker_info = true,
            Question::Containers => self.containers = true,
            Question::Listening => self.listening = true,
            Question::Raw { script, .. } => self.raw.push((question, script)),
        }
    }
}

/// Why a question cannot be asked at all, if it cannot.
fn unfit(question: &Question) -> Option<String> {
    let (what, name, fine): (&str, &str, fn(char) -> bool) = match question {
        Question::Path(path) | Question::Digest(path) | Question::Content(path) => {
            let reason = || format!("`{}` is not an absolute path", path.escape_debug());
            return (!path.starts_with('/') || path.contains('\0')).then(reason);
        }
        Question::SecretFile(path) => {
            let fine = path.starts_with('/') && !path.chars().any(|c| c.is_control() || c == '\\');
            return (!fine).then(|| format!("`{}` is not a path for a file with secrets", path.escape_debug()));
        }
        Question::Package(name) => ("package", name, |c| c.is_ascii_alphanumeric() || "+-.:_".contains(c)),
        Question::Unit(name) => ("unit", name, |c| c.is_ascii_alphanumeric() || "@:_.-\\".contains(c)),
        Question::User(name) => ("user", name, |c| !c.is_control() && c != ':'),
        Question::Group(name) => ("group", name, |c| !c.is_control() && c != ':'),
        Question::Sysctl(name) => ("kernel setting", name, |c| c.is_ascii_alphanumeric() || "_-./:@".contains(c)),
        Question::Module(name) => ("kernel module", name, |c| c.is_ascii_alphanumeric() || "_-".contains(c)),
        Question::Image(name) => ("image", name, |c| c.is_ascii_graphic()),
        Question::Network(name) => ("network", name, |c| c.is_ascii_graphic()),
        Question::Volume(name) => ("volume", name, |c| c.is_ascii_graphic()),
        _ => return None,
    };
    let bad = name.is_empty() || name.starts_with('-') || !name.chars().all(fine);
    bad.then(|| format!("`{}` is not the name of a {what}", name.escape_debug()))
}

/// What one section's command printed.
struct Section<'a> {
    stdout: &'a [u8],
    status: i32,
    stderr: String,
}

impl Section<'_> {
    /// The first line of stderr, or the exit status, as a reason.
    fn reason(&self, what: &str) -> String {
        match self.stderr.lines().find(|line| !line.trim().is_empty()) {
            Some(line) => format!("{what}: {}", line.trim()),
            None => format!("{what}: exit status {}", self.status),
        }
    }
}

/// The output, cut at the nonce.
struct Sections<'a>(HashMap<String, Section<'a>>);

impl<'a> Sections<'a> {
    /// A section is `\nNONCE name\n` stdout `\nNONCE/ name status\n` stderr, up to the next nonce.
    /// One without its second mark was cut off and is left out.
    fn cut(nonce: &str, output: &'a [u8]) -> Self {
        let mark = format!("\n{nonce}");
        let mut parts = Vec::new();
        let mut rest = output;
        while let Some(at) = find(rest, mark.as_bytes()) {
            parts.push(&rest[..at]);
            rest = &rest[at + mark.len()..];
        }
        parts.push(rest);
        let mut sections = HashMap::new();
        // The last part follows the end mark.
        for pair in parts[..parts.len() - 1].windows(2) {
            let (Some((name, stdout)), Some((ending, stderr))) =
                (pair[0].strip_prefix(b" ").and_then(line), pair[1].strip_prefix(b"/ ").and_then(line))
            else {
                continue;
            };
            if let Some((same, status)) = ending.split_once(' ')
                && same == name
            {
                let status = status.parse().unwrap_or(-1);
                let stderr = String::from_utf8_lossy(stderr).into_owned();
                sections.insert(name.to_owned(), Section { stdout, status, stderr });
            }
        }
        Self(sections)
    }

    fn get(&self, name: &str) -> Option<&Section<'a>> {
        self.0.get(name)
    }
}

/// The first line and what follows it.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|&byte| byte == first) {
        if haystack[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}
