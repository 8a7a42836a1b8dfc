//! An AppArmor profile's text, read as far as the lint needs it: statements with their lines, the
//! profile that is meant, its file rules. The real compiler is on the host.

/// A statement: a rule, or the head of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// From 1.
    pub(super) line: usize,
    /// White space collapsed, without the final comma or brace.
    pub(super) text: String,
    /// How many blocks are open around it.
    pub(super) depth: usize,
    /// It opens a block.
    pub(super) opens: bool,
    /// Where it ends in the text, in bytes: at its comma or brace.
    end: usize,
}

/// A file rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileRule {
    pub(super) line: usize,
    pub(super) deny: bool,
    /// `**` for the bare `file,`.
    pub(super) path: String,
    pub(super) permissions: String,
}

/// A profile of the text.
#[derive(Clone, Debug)]
pub(super) struct ProfileText {
    /// The head's statement.
    pub(super) head: Statement,
    /// Attached to a program's path, rather than to be named by a container.
    pub(super) attached: bool,
    pub(super) flags: Vec<String>,
    /// The rules in it, those of nested profiles left out.
    pub(super) rules: Vec<Statement>,
}

/// Splits a text into statements.
pub(super) fn statements(text: &str) -> Vec<Statement> {
    let mut scanner = Scanner { out: Vec::new(), current: String::new(), start: 1, line: 1, depth: 0, braces: 0, quoted: false };
    let mut comment = false;
    for (at, c) in text.char_indices() {
        if c == '\n' {
            scanner.line += 1;
            // `#include` is a statement of its own, ended by its line.
            if scanner.current.trim_start().starts_with("#include") || scanner.current.trim_start().starts_with("include ") {
                scanner.finish(at, false);
            }
            comment = false;
        }
        if comment {
            continue;
        }
        if c == '#' && !scanner.quoted && !text[at..].starts_with("#include") {
            comment = true;
            continue;
        }
        scanner.take(at, c);
    }
    scanner.finish(text.len(), false);
    scanner.out
}

struct Scanner {
    out: Vec<Statement>,
    current: String,
    start: usize,
    line: usize,
    depth: usize,
    /// Open braces and parentheses of alternations and lists.
    braces: usize,
    quoted: bool,
}

impl Scanner {
    fn take(&mut self, at: usize, c: char) {
        // A block's brace stands after white space or `)`; an alternation's inside a word.
        let block = self.current.is_empty() || self.current.ends_with([' ', '\n', '\t', ')']);
        match c {
            '"' => self.quoted = !self.quoted,
            _ if self.quoted => {}
            '{' if block => {
                self.finish(at, true);
                self.depth += 1;
                return;
            }
            '{' | '(' => self.braces += 1,
            '}' if self.braces == 0 => {
                self.finish(at, false);
                self.depth = self.depth.saturating_sub(1);
                return;
            }
            '}' | ')' => self.braces = self.braces.saturating_sub(1),
            ',' if self.braces == 0 => {
                self.finish(at, false);
                return;
            }
            _ => {}
        }
        if self.current.trim().is_empty() {
            self.start = self.line;
            self.current.clear();
        }
        if !(self.current.is_empty() && c.is_whitespace()) {
            self.current.push(c);
        }
    }

    fn finish(&mut self, end: usize, opens: bool) {
        let text = self.current.split_whitespace().collect::<Vec<_>>().join(" ");
        self.current.clear();
        self.braces = 0;
        if !text.is_empty() {
            self.out.push(Statement { line: self.start, text, depth: self.depth, opens, end });
        }
    }
}

impl ProfileText {
    /// The profile of this name at the top level of the text.
    pub(super) fn find(statements: &[Statement], name: &str) -> Option<Self> {
        let at =
            statements.iter().position(|statement| statement.depth == 0 && statement.opens && head_name(&statement.text) == Some(name))?;
        let head = statements[at].clone();
        let inside = statements[at + 1..].iter().take_while(|statement| statement.depth > 0);
        let rules = inside.filter(|statement| statement.depth == 1 && !statement.opens).cloned().collect();
        let (before, flags) = head.text.split_once("flags=(").unwrap_or((&head.text, ""));
        let flags =
            flags.split(')').next().unwrap_or_default().split([',', ' ']).filter(|flag| !flag.is_empty()).map(str::to_owned).collect();
        let attached = before.split(' ').filter(|word| *word != "profile").any(|word| word.starts_with(['/', '@', '"']));
        Some(Self { head, attached, flags, rules })
    }

    /// File rules, in order.
    pub(super) fn file_rules(&self) -> Vec<FileRule> {
        self.rules.iter().filter_map(file_rule).collect()
    }

    /// The text with the `complain` flag on this profile.
    pub(super) fn complaining(&self, text: &str) -> String {
        if self.flags.iter().any(|flag| flag == "complain") {
            return text.to_owned();
        }
        let (head, rest) = text.split_at(self.head.end);
        match head.rfind("flags=(") {
            Some(at) if !self.flags.is_empty() => {
                let inside = at + "flags=(".len();
                format!("{}complain,{}{rest}", &head[..inside], &head[inside..])
            }
            _ => format!("{}flags=(complain) {rest}", head.trim_end().to_owned() + " "),
        }
    }
}

fn head_name(head: &str) -> Option<&str> {
    let name = head.strip_prefix("profile ").unwrap_or(head).split(' ').next()?;
    Some(name.trim_matches('"')).filter(|name| !name.is_empty())
}

fn file_rule(statement: &Statement) -> Option<FileRule> {
    let mut words: Vec<&str> = statement.text.split(' ').collect();
    let mut deny = false;
    while let Some(word) = words.first().copied() {
        match word {
            "deny" => deny = true,
            "audit" | "allow" | "owner" | "other" | "file" if words.len() > 1 => {}
            _ => break,
        }
        words.remove(0);
    }
    let is_path = |word: &str| word.trim_start_matches('"').starts_with(['/', '@']);
    let (path, permissions) = match words[..] {
        ["file" | "all"] => ("**", "rwklmx"),
        [path, permissions, ..] if is_path(path) => (path, permissions),
        [permissions, path, ..] if is_path(path) && permissions.chars().all(|c| "rwaklmixpPcCuU".contains(c)) => (path, permissions),
        _ => return None,
    };
    Some(FileRule { line: statement.line, deny, path: path.trim_matches('"').to_owned(), permissions: permissions.to_owned() })
}

impl FileRule {
    /// Whether the rule's pattern takes in all that another path or pattern stands for, as far as
    /// the endings `*` and `**` tell.
    pub(super) fn covers(&self, path: &str) -> bool {
        if let Some(start) = self.path.strip_suffix("**") {
            path.starts_with(start)
        } else if let Some(start) = self.path.strip_suffix('*') {
            path.strip_prefix(start).is_some_and(|rest| !rest.contains('/') && rest != "**")
        } else {
            self.path == path
        }
    }

    /// Whether two rules are about a permission in common; `w` has `a` in it.
    pub(super) fn shares(&self, other: &Self) -> bool {
        let letters = |permissions: &str| permissions.to_ascii_lowercase().replace('w', "wa");
        letters(&self.permissions).chars().any(|c| "rwaklmx".contains(c) && letters(&other.permissions).contains(c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "abi <abi/3.0>,\n#include <tunables/global>\n# a comment, {\nprofile waf flags=(attach_disconnected) {\n  include <abstractions/base>\n  /app/{a,b}/** rw, # trailing\n  @{PROC}/@{pid}/** r,\n  deny /x w,\n  signal (send, receive) peer=waf,\n  profile child { /y r, }\n  owner file /z rix,\n}\n";

    #[test]
    fn statements_have_their_lines() {
        let list: Vec<_> = statements(TEXT).iter().map(|statement| (statement.line, statement.depth, statement.text.clone())).collect();
        assert_eq!(list[0], (1, 0, "abi <abi/3.0>".to_owned()));
        assert_eq!(list[1], (2, 0, "#include <tunables/global>".to_owned()));
        assert_eq!(list[2], (4, 0, "profile waf flags=(attach_disconnected)".to_owned()));
        assert_eq!(list[3], (5, 1, "include <abstractions/base>".to_owned()));
        assert_eq!(list[4], (6, 1, "/app/{a,b}/** rw".to_owned()));
        assert_eq!(list[7], (9, 1, "signal (send, receive) peer=waf".to_owned()));
        assert_eq!(list.last().unwrap(), &(11, 1, "owner file /z rix".to_owned()));
    }

    #[test]
    fn file_rules_are_read() {
        let profile = ProfileText::find(&statements(TEXT), "waf").unwrap();
        assert!(!profile.attached && profile.flags == ["attach_disconnected"]);
        let rules = profile.file_rules();
        assert_eq!(rules.iter().map(|rule| rule.path.as_str()).collect::<Vec<_>>(), ["/app/{a,b}/**", "@{PROC}/@{pid}/**", "/x", "/z"]);
        assert!(rules[2].deny && rules[3].permissions == "rix");
        assert!(ProfileText::find(&statements("profile x /usr/bin/x {\n}"), "x").unwrap().attached);
        assert!(ProfileText::find(&statements(TEXT), "child").is_none());
    }

    #[test]
    fn complaining_changes_the_head_only() {
        let complaining = |text: &str, name: &str| ProfileText::find(&statements(text), name).unwrap().complaining(text);
        assert!(complaining(TEXT, "waf").contains("profile waf flags=(complain,attach_disconnected) {\n"));
        assert_eq!(complaining("profile a {\n /x r,\n}\n", "a"), "profile a flags=(complain) {\n /x r,\n}\n");
        let twice = complaining(&complaining(TEXT, "waf"), "waf");
        assert_eq!(twice, complaining(TEXT, "waf"));
    }

    #[test]
    fn patterns_cover() {
        let rule = |path: &str| FileRule { line: 1, deny: true, path: path.into(), permissions: "w".into() };
        assert!(rule("/**").covers("/tmp/**") && rule("/tmp/*").covers("/tmp/x") && rule("/x").covers("/x"));
        assert!(!rule("/tmp/*").covers("/tmp/a/b") && !rule("/tmp/*").covers("/tmp/**") && !rule("/a/**").covers("/b"));
    }
}
