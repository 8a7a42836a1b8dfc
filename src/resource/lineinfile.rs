//! `lineinfile`: one line of a file that something else owns.
//!
//! Reads the file's content (up to 1 MiB), works out the new content here, with Ansible's rules,
//! and writes it as a whole, only over what was read. Leaves every other line alone.

use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::{Account, FileMode, Presence, absolute, octal, parent};
use crate::resource::directory::attribute_changes;
use crate::resource::fragment::{self, Expect, Write};
use crate::resource::managed::{Body, check_parent};
use crate::resource::marks;
use crate::resource::observe::{PathKind, PathState, Question, View};
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Kind, Resource, ResourceId};
use crate::secret::{Text, sha256};
use crate::shell::Script;

/// Makes sure that a line is in a file, or is not.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "they are Ansible's arguments")]
pub struct LineInFile {
    /// Absolute path on the host.
    #[serde(alias = "dest", alias = "name")]
    path: String,
    /// The line. May be left out with `state: absent` and `regexp`.
    #[serde(default, alias = "value")]
    line: Option<String>,
    /// Regular expression: the last line that matches is replaced, or all that match are removed.
    #[serde(default, alias = "regex")]
    regexp: Option<String>,
    /// As `regexp`, but plain text that the line contains.
    #[serde(default)]
    search_string: Option<String>,
    /// `absent` removes the lines that match, or that equal `line`.
    #[serde(default)]
    state: Presence,
    /// A new line goes after the last line that matches this; `EOF` is the end.
    #[serde(default)]
    insertafter: Option<String>,
    /// A new line goes before the last line that matches this; `BOF` is the beginning.
    #[serde(default)]
    insertbefore: Option<String>,
    /// Use the first match instead of the last.
    #[serde(default)]
    firstmatch: bool,
    /// `$1` and `\1` in `line` stand for groups of `regexp`; without a match nothing is done.
    #[serde(default)]
    backrefs: bool,
    /// Create the file if it is not there.
    #[serde(default)]
    create: bool,
    /// Permission bits, in quotes. As they are unless given.
    #[serde(default)]
    mode: Option<FileMode>,
    /// Owner. As it is unless given.
    #[serde(default)]
    owner: Option<Account>,
    /// Group. As it is unless given.
    #[serde(default)]
    group: Option<Account>,
    /// A command that must accept the new file before it replaces the old one; `%s` stands for it.
    #[serde(default)]
    validate: Option<String>,
    /// Keep the old file beside the new one, with the time in its name.
    #[serde(default)]
    backup: bool,
}

impl Kind for LineInFile {
    const NAME: &'static str = "lineinfile";
    const EXAMPLE: &'static str = "lineinfile:
  path: /etc/ssh/sshd_config
  regexp: '^#?PermitRootLogin '
  line: PermitRootLogin no
  validate: sshd -t -f %s
";

    fn build(mut self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        self.path = absolute("path", &self.path)?;
        if self.line.as_deref().is_some_and(|line| line.contains('\n')) {
            return Err(BuildError::field("line", "a line has no line breaks")
                .hint("use several tasks, or `copy` or `template` for the whole file"));
        }
        if self.regexp.is_some() && self.search_string.is_some() {
            return Err(BuildError::field("search_string", "`regexp` and `search_string` exclude each other"));
        }
        if self.insertafter.is_some() && self.insertbefore.is_some() {
            return Err(BuildError::field("insertbefore", "`insertafter` and `insertbefore` exclude each other"));
        }
        if self.state == Presence::Present && self.line.is_none() {
            return Err(BuildError::field("line", "`line` is missing"));
        }
        if self.line.is_none() && self.regexp.is_none() && self.search_string.is_none() {
            return Err(BuildError::field("line", "`line`, `regexp` or `search_string` is needed"));
        }
        if self.backrefs && self.regexp.is_none() {
            return Err(BuildError::field("backrefs", "`backrefs` needs `regexp`"));
        }
        let marker = |text: &String| text != "EOF" && text != "BOF";
        let pattern = |field: &str, text: Option<&String>| text.map(|text| compile(field, text)).transpose();
        let edit = Edit {
            search: pattern("regexp", self.regexp.as_ref())?,
            after: pattern("insertafter", self.insertafter.as_ref().filter(|text| marker(text)))?,
            before: pattern("insertbefore", self.insertbefore.as_ref().filter(|text| marker(text)))?,
            at_start: self.insertbefore.as_deref() == Some("BOF"),
        };
        Ok(vec![Box::new(LineResource { spec: self, edit })])
    }
}

/// Python's named groups are written `(?P<x>)` here too; look-around is not to be had.
fn compile(field: &str, text: &str) -> Result<Regex, BuildError> {
    Regex::new(text).map_err(|error| {
        let message = error.to_string();
        let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        BuildError::field(field, format!("`{text}` is not a regular expression: {last}"))
            .hint("look-ahead, look-behind and back-references inside the pattern are not supported")
    })
}

#[derive(Debug)]
struct Edit {
    search: Option<Regex>,
    after: Option<Regex>,
    before: Option<Regex>,
    at_start: bool,
}

/// One line in one file.
#[derive(Debug)]
struct LineResource {
    spec: LineInFile,
    edit: Edit,
}

/// What becomes of the lines.
struct Edited {
    text: String,
    changes: Vec<Change>,
}

impl LineResource {
    fn matches(&self, line: &str) -> bool {
        match (&self.edit.search, &self.spec.search_string) {
            (Some(regex), _) => regex.is_match(line),
            (None, Some(text)) => line.contains(text.as_str()),
            (None, None) => self.spec.line.as_deref() == Some(line),
        }
    }

    fn pick<'l>(&self, lines: &[&'l str], test: impl Fn(&'l str) -> bool) -> Option<usize> {
        if self.spec.firstmatch { lines.iter().position(|line| test(line)) } else { lines.iter().rposition(|line| test(line)) }
    }

    /// Ansible's rules: replace the match; else leave an equal line; else insert.
    fn edit(&self, text: &str) -> Edited {
        let mut lines: Vec<&str> = text.split('\n').collect();
        if lines.last() == Some(&"") {
            lines.pop();
        }
        let unchanged = || Edited { text: text.to_owned(), changes: Vec::new() };
        let join = |lines: &[&str]| lines.iter().flat_map(|line| [line, "\n"]).collect::<String>();
        if self.spec.state == Presence::Absent {
            let gone: Vec<&str> = lines.iter().copied().filter(|line| self.matches(line)).collect();
            if gone.is_empty() {
                return unchanged();
            }
            let changes = gone.iter().map(|line| Change::remove("line", *line)).collect();
            lines.retain(|line| !self.matches(line));
            return Edited { text: join(&lines), changes };
        }
        let wanted = self.spec.line.as_deref().unwrap_or_default();
        if let Some(index) = self.pick(&lines, |line| self.matches(line)) {
            let replaced = self.expand(lines[index], wanted);
            if replaced == lines[index] {
                return unchanged();
            }
            let changes = vec![Change::of("line", lines[index], &replaced)];
            lines[index] = &replaced;
            return Edited { text: join(&lines), changes };
        }
        if self.spec.backrefs || lines.contains(&wanted) {
            return unchanged();
        }
        let after = self.edit.after.as_ref().and_then(|regex| self.pick(&lines, |line| regex.is_match(line))).map(|index| index + 1);
        let before = self.edit.before.as_ref().and_then(|regex| self.pick(&lines, |line| regex.is_match(line)));
        let at = if self.edit.at_start { 0 } else { after.or(before).unwrap_or(lines.len()) };
        lines.insert(at, wanted);
        Edited { text: join(&lines), changes: vec![Change::add("line", wanted)] }
    }

    /// Groups in the new line: Python's `\1` and `\g<x>` are `$1` and `${x}` here.
    fn expand(&self, old: &str, wanted: &str) -> String {
        let Some(captures) = self.edit.search.as_ref().filter(|_| self.spec.backrefs).and_then(|regex| regex.captures(old)) else {
            return wanted.to_owned();
        };
        let mut template = String::new();
        let mut rest = wanted.chars().peekable();
        while let Some(c) = rest.next() {
            match (c, rest.peek().copied()) {
                ('\\', Some(digit)) if digit.is_ascii_digit() => {
                    rest.next();
                    template.extend(['$', '{', digit, '}']);
                }
                ('\\', Some('g')) => {
                    rest.next();
                    rest.next_if_eq(&'<');
                    let name: String = std::iter::from_fn(|| rest.next_if(|c| *c != '>')).collect();
                    rest.next();
                    template.extend(["${", name.as_str(), "}"]);
                }
                _ => template.push(c),
            }
        }
        let mut line = String::new();
        captures.expand(&template, &mut line);
        line
    }

    fn write(&self, edited: Edited, old: Option<(&PathState, &[u8])>) -> Plan {
        let state = old.map(|(state, _)| state);
        let (uid, gid) =
            state.map_or_else(|| ("root".to_owned(), "root".to_owned()), |state| (state.uid.to_string(), state.gid.to_string()));
        let body = Body::Text(Text::plain(edited.text));
        let expect = old.map_or(Expect::Absent, |(_, bytes)| Expect::Digest(sha256(bytes)));
        let owner = self.spec.owner.as_ref().map_or(uid.as_str(), |owner| owner.0.as_str());
        let group = self.spec.group.as_ref().map_or(gid.as_str(), |group| group.0.as_str());
        let root = |name: &'static str, number: &str| if number == "0" { name.to_owned() } else { number.to_owned() };
        let write = Write {
            path: &self.spec.path,
            body: &body,
            mode: self.spec.mode.map_or_else(|| state.map_or(0o644, |state| state.mode), |mode| mode.0),
            owner: &root("root", owner),
            group: Some(&root("root", group)),
            expect: &expect,
            validate: self.spec.validate.as_deref(),
            backup: self.spec.backup,
            make_parent: false,
            record: None,
        };
        let unlock = state.map_or_else(Script::new, |state| marks::unlock(&self.spec.path, state));
        Plan { changes: edited.changes, ..Plan::default() }
            .step(Step::new(format!("edit {}", self.spec.path), unlock.append(write.script())))
            .effect(Effect::Path(self.spec.path.clone()))
    }
}

impl Resource for LineResource {
    fn id(&self) -> ResourceId {
        let what = self.spec.regexp.as_deref().or(self.spec.search_string.as_deref()).or(self.spec.line.as_deref()).unwrap_or_default();
        ResourceId::new("lineinfile", format!("{}: {what}", self.spec.path))
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let path = &self.spec.path;
        let mut questions = vec![Question::Path(path.clone()), Question::Content(path.clone())];
        if self.spec.create {
            questions.push(Question::Path(parent(path).to_owned()));
        }
        questions
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let path = &self.spec.path;
        let Some(state) = view.path(path)? else {
            if let Some(id) = view.pending(|effect| matches!(effect, Effect::Package(_))) {
                return Err(Undecided::After(id.clone()));
            }
            if self.spec.state == Presence::Absent {
                return Ok(Plan::in_sync());
            }
            if !self.spec.create {
                return Err(Undecided::Refused(format!("there is no `{path}`: set `create: true` if it is to be made")));
            }
            check_parent(view, path)?;
            let mut edited = self.edit("");
            if let Some(mode) = self.spec.mode {
                edited.changes.push(Change::add("mode", octal(mode.0)));
            }
            return Ok(self.write(edited, None));
        };
        if state.kind == PathKind::Link {
            let target = state.target.as_deref().unwrap_or_default();
            return Err(Undecided::Refused(format!("`{path}` is a link to `{target}`: name the file itself")));
        }
        let Some(bytes) = view.content(path)? else { return Err(Undecided::Unknown(format!("`{path}` was there and is gone"))) };
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(Undecided::Refused(format!("`{path}` is not UTF-8 text")));
        };
        let mut edited = self.edit(text);
        let attributes = attribute_changes(state, self.spec.owner.as_ref(), self.spec.group.as_ref(), self.spec.mode);
        if edited.changes.is_empty() {
            if attributes.is_empty() {
                return Ok(Plan::in_sync());
            }
            let owner = self.spec.owner.as_ref().map(|owner| owner.0.as_str());
            let group = self.spec.group.as_ref().map(|group| group.0.as_str());
            let script = marks::clear(path, state).append(fragment::attributes(path, owner, group, self.spec.mode.map(|mode| mode.0)));
            return Ok(Plan { changes: attributes, ..Plan::default() }
                .step(Step::new(format!("set owner and mode of {path}"), script))
                .effect(Effect::Path(path.clone())));
        }
        edited.changes.extend(attributes);
        Ok(self.write(edited, Some((state, bytes))))
    }
}
