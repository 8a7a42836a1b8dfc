//! Jinja -> Handlebars, for advice only: what a user of Ansible wrote, as it is written here.
//!
//! A small parser of Jinja's expressions. What it does not know it does not translate, so that
//! advice is right or absent.

mod calls;

use calls::{concat, entry, filter, function, joined, method};

/// Deepest nesting that is translated.
const MAX_DEPTH: usize = 24;

/// A Jinja expression as a Handlebars expression, without the braces.
#[must_use]
pub(super) fn translate(text: &str) -> Option<String> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let term = parser.ternary()?;
    (parser.at == parser.tokens.len()).then(|| term.top())
}

/// The first Jinja statement of a text (`{% if a %}`), its byte offset, and what to write instead.
#[must_use]
pub(super) fn statement(text: &str) -> Option<(usize, String)> {
    const WORDS: &[&str] = &[
        "if", "elif", "else", "endif", "for", "endfor", "set", "block", "endblock", "macro", "endmacro", "include", "import", "extends",
        "raw", "endraw", "filter", "call", "do", "with", "endwith",
    ];
    let mut from = 0;
    while let Some(open) = text[from..].find("{%").map(|at| at + from) {
        from = open + 2;
        let inside = text[from..].split("%}").next().unwrap_or_default();
        if from + inside.len() == text.len() {
            return None;
        }
        let inside = inside.trim_matches(['-', '+', ' ', '\t', '\n']);
        let (word, rest) = inside.split_once(char::is_whitespace).unwrap_or((inside, ""));
        if WORDS.contains(&word) {
            return Some((open, replacement(word, rest.trim())));
        }
    }
    None
}

fn replacement(word: &str, rest: &str) -> String {
    let argument = |text: &str| {
        let translated = translate(text)?;
        Some(if translated.contains(' ') { format!("({translated})") } else { translated })
    };
    let known = match word {
        "if" => argument(rest).map(|condition| format!("{{{{#if {condition}}}}}")),
        "elif" => argument(rest).map(|condition| format!("{{{{else if {condition}}}}}")),
        "else" => Some("{{else}}".to_owned()),
        "endif" => Some("{{/if}}".to_owned()),
        "endfor" => Some("{{/each}}".to_owned()),
        "raw" => Some("{{{{raw}}}}".to_owned()),
        "endraw" => Some("{{{{/raw}}}}".to_owned()),
        "include" => Some(format!("{{{{> {}}}}}", rest.trim_matches(['"', '\'']))),
        "for" => rest.split_once(" in ").and_then(|(name, list)| {
            let list = argument(list.trim_end_matches(".items()"))?;
            match name.split_once(',') {
                None => Some(format!("{{{{#each {list} as |{}|}}}}", name.trim())),
                Some((key, value)) => Some(format!("{{{{#each {list} as |{} {}|}}}}", value.trim(), key.trim())),
            }
        }),
        _ => None,
    };
    match known {
        Some(text) => format!("this is Jinja: write `{text}`"),
        None if word == "set" => "this is Jinja: put the value into a variable (`vars`, role defaults)".to_owned(),
        None => "this is Jinja: write `{{#if ...}}`, `{{#each ...}}`, `{{> partial}}`".to_owned(),
    }
}

/// A word of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Name(String),
    Text(String),
    Number(String),
    Mark(&'static str),
}

const MARKS: &[&str] =
    &["==", "!=", ">=", "<=", "//", "**", "|", ".", "[", "]", "(", ")", ",", "~", "+", "-", "*", "/", "%", ">", "<", "=", ":", "{", "}"];

/// The words of an expression; `None` if it is none.
pub(super) fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if first == '"' || first == '\'' {
            let inner = rest[1..].split(first).next()?;
            if inner.len() + 2 > rest.len() || inner.contains('\\') {
                return None;
            }
            out.push(Token::Text(inner.to_owned()));
            inner.len() + 2
        } else if first.is_ascii_digit() {
            let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            out.push(Token::Number(rest[..length].to_owned()));
            length
        } else if first.is_ascii_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            out.push(Token::Name(rest[..length].to_owned()));
            length
        } else {
            let mark = MARKS.iter().find(|mark| rest.starts_with(**mark))?;
            out.push(Token::Mark(mark));
            mark.len()
        };
        rest = rest[length..].trim_start();
    }
    Some(out)
}

/// A translated expression.
#[derive(Clone, Debug)]
enum Term {
    /// A path or literal: stands alone everywhere.
    Atom(String),
    /// A call: in parentheses where it is an argument.
    Call(String),
}

impl Term {
    fn top(self) -> String {
        match self {
            Self::Atom(text) | Self::Call(text) => text,
        }
    }

    fn argument(&self) -> String {
        match self {
            Self::Atom(text) => text.clone(),
            Self::Call(text) => format!("({text})"),
        }
    }

    fn call(name: &str, arguments: &[&Self]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|term| term.argument()).collect();
        Self::Call(format!("{name} {}", arguments.join(" ")))
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Atom(text) if text.starts_with(['"', '\''])) || matches!(self, Self::Call(text) if text.starts_with("concat "))
    }

    fn path(&self) -> Option<&str> {
        match self {
            Self::Atom(text) if text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => Some(text),
            _ => None,
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn mark(&mut self, mark: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Mark(found)) if *found == mark);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Name(found)) if found == word);
        self.at += usize::from(found);
        found
    }

    fn name(&mut self) -> Option<String> {
        match self.peek() {
            Some(Token::Name(name)) => {
                let name = name.clone();
                self.at += 1;
                Some(name)
            }
            _ => None,
        }
    }

    /// `a if c else b`.
    fn ternary(&mut self) -> Option<Term> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let yes = self.or()?;
        let out = if self.word("if") {
            let condition = self.or()?;
            if !self.word("else") {
                return None;
            }
            let no = self.ternary()?;
            Term::call("ternary", &[&condition, &yes, &no])
        } else {
            yes
        };
        self.depth -= 1;
        Some(out)
    }

    fn or(&mut self) -> Option<Term> {
        let mut all = vec![self.and()?];
        while self.word("or") {
            all.push(self.and()?);
        }
        Some(joined("or", all))
    }

    fn and(&mut self) -> Option<Term> {
        let mut all = vec![self.not()?];
        while self.word("and") {
            all.push(self.not()?);
        }
        Some(joined("and", all))
    }

    fn not(&mut self) -> Option<Term> {
        if self.word("not") {
            let inner = self.not()?;
            return Some(Term::call("not", &[&inner]));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Option<Term> {
        let left = self.sum()?;
        for (mark, function) in [("==", "eq"), ("!=", "ne"), (">=", "gte"), ("<=", "lte"), (">", "gt"), ("<", "lt")] {
            if self.mark(mark) {
                let right = self.sum()?;
                return Some(Term::call(function, &[&left, &right]));
            }
        }
        if self.word("in") {
            let list = self.sum()?;
            return Some(Term::call("contains", &[&list, &left]));
        }
        if matches!(self.tokens.get(self.at..self.at + 2), Some([Token::Name(a), Token::Name(b)]) if a == "not" && b == "in") {
            self.at += 2;
            let list = self.sum()?;
            return Some(Term::call("not", &[&Term::call("contains", &[&list, &left])]));
        }
        if self.word("is") {
            let negative = self.word("not");
            let test = self.test(&left)?;
            return Some(if negative { Term::call("not", &[&test]) } else { test });
        }
        Some(left)
    }

    /// What follows `is`.
    fn test(&mut self, left: &Term) -> Option<Term> {
        let name = self.name()?;
        let argument = if self.mark("(") {
            let argument = self.ternary()?;
            if !self.mark(")") {
                return None;
            }
            Some(argument)
        } else {
            None
        };
        match (name.as_str(), argument) {
            ("defined", None) => Some(Term::call("defined", &[left])),
            ("undefined", None) => Some(Term::call("not", &[&Term::call("defined", &[left])])),
            ("none", None) => Some(Term::call("eq", &[left, &Term::Atom("null".to_owned())])),
            ("truthy", None) => Some(Term::call("not", &[&Term::call("not", &[left])])),
            ("search" | "regex", Some(pattern)) => Some(Term::call("matches", &[left, &pattern])),
            ("match", Some(Term::Atom(pattern))) if pattern.len() > 1 && pattern.starts_with('"') => {
                let pattern = Term::Atom(format!("\"^{}", pattern[1..].trim_start_matches('^')));
                Some(Term::call("matches", &[left, &pattern]))
            }
            ("in", Some(list)) => Some(Term::call("contains", &[&list, left])),
            ("eq" | "equalto", Some(other)) => Some(Term::call("eq", &[left, &other])),
            _ => None,
        }
    }

    fn sum(&mut self) -> Option<Term> {
        let mut left = self.product()?;
        loop {
            if self.mark("~") {
                let right = self.product()?;
                left = concat(left, &right);
            } else if self.mark("+") {
                let right = self.product()?;
                left = if left.is_text() || right.is_text() { concat(left, &right) } else { Term::call("add", &[&left, &right]) };
            } else if self.mark("-") {
                let right = self.product()?;
                left = Term::call("sub", &[&left, &right]);
            } else {
                return Some(left);
            }
        }
    }

    fn product(&mut self) -> Option<Term> {
        let mut left = self.filtered()?;
        loop {
            let function = match self.peek() {
                Some(Token::Mark("*")) => "mul",
                Some(Token::Mark("/" | "//")) => "div",
                Some(Token::Mark("%")) => "mod",
                _ => return Some(left),
            };
            self.at += 1;
            let right = self.filtered()?;
            left = Term::call(function, &[&left, &right]);
        }
    }

    fn filtered(&mut self) -> Option<Term> {
        let mut left = self.postfix()?;
        while self.mark("|") {
            let name = self.name()?;
            let arguments = if self.mark("(") { self.arguments()? } else { Vec::new() };
            left = filter(&name, left, &arguments)?;
        }
        Some(left)
    }

    /// Arguments up to the closing parenthesis; named ones are not translated.
    fn arguments(&mut self) -> Option<Vec<Term>> {
        let mut out = Vec::new();
        while !self.mark(")") {
            out.push(self.ternary()?);
            if !self.mark(",") && !matches!(self.peek(), Some(Token::Mark(")"))) {
                return None;
            }
        }
        Some(out)
    }

    /// A value with `.name`, `[...]` and calls of methods behind it.
    fn postfix(&mut self) -> Option<Term> {
        let mut left = self.primary()?;
        loop {
            if self.mark(".") {
                let name = match self.peek()? {
                    Token::Name(name) | Token::Number(name) => name.clone(),
                    _ => return None,
                };
                self.at += 1;
                left = if self.mark("(") {
                    let arguments = self.arguments()?;
                    method(&name, left, &arguments)?
                } else {
                    entry(left, &name)?
                };
            } else if self.mark("[") {
                let index = self.ternary()?;
                if !self.mark("]") {
                    return None;
                }
                left = match &index {
                    Term::Atom(text) if text.starts_with('"') => entry(left, text.trim_matches('"'))?,
                    Term::Atom(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => entry(left, text)?,
                    // `hostvars[host].name` has a function of its own.
                    other if left.path() == Some("hostvars") => Term::Call(format!("hostvar {}", other.argument())),
                    other => Term::call("lookup", &[&left, other]),
                };
            } else {
                return Some(left);
            }
        }
    }

    fn primary(&mut self) -> Option<Term> {
        if self.mark("(") {
            let inner = self.ternary()?;
            return self.mark(")").then_some(inner);
        }
        if self.mark("-") {
            return match self.peek()?.clone() {
                Token::Number(number) => {
                    self.at += 1;
                    Some(Term::Atom(format!("-{number}")))
                }
                _ => None,
            };
        }
        let token = self.peek()?.clone();
        self.at += 1;
        match token {
            Token::Text(text) if text.contains('"') => (!text.contains('\'')).then(|| Term::Atom(format!("'{text}'"))),
            Token::Text(text) => Some(Term::Atom(format!("\"{text}\""))),
            Token::Number(number) => Some(Term::Atom(number)),
            Token::Name(name) => match name.as_str() {
                "true" | "True" => Some(Term::Atom("true".to_owned())),
                "false" | "False" => Some(Term::Atom("false".to_owned())),
                "none" | "None" => Some(Term::Atom("null".to_owned())),
                "and" | "or" | "not" | "in" | "is" | "if" | "else" => None,
                // A call of a function: `lookup(...)`, `range(...)`.
                _ if matches!(self.peek(), Some(Token::Mark("("))) => {
                    self.at += 1;
                    let arguments = self.arguments()?;
                    function(&name, &arguments)
                }
                _ => Some(Term::Atom(name)),
            },
            Token::Mark(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_translated() {
        for (jinja, expected) in [
            ("a", "a"),
            ("a | default('x')", "default a \"x\""),
            ("a.b|default(omit)", "default a.b omit"),
            ("http_port == 80", "eq http_port 80"),
            ("ansible_os_family == 'Debian' and not x", "and (eq ansible_os_family \"Debian\") (not x)"),
            ("a == 1 or b is defined or c is not defined", "or (eq a 1) (defined b) (not (defined c))"),
            ("groups['web']", "groups.web"),
            ("groups['web-x'][0]", "groups.web-x.0"),
            ("groups['all'] | length > 2", "gt (len groups.all) 2"),
            ("ansible_facts['default_ipv4']['address']", "ansible_facts.default_ipv4.address"),
            ("hostvars[inventory_hostname]['n']", "hostvar inventory_hostname \"n\""),
            ("hostvars['w1'].n", "hostvars.w1.n"),
            ("m[k]", "lookup m k"),
            ("x in ['a']", ""),
            ("'db' in group_names", "contains group_names \"db\""),
            ("'db' not in group_names", "not (contains group_names \"db\")"),
            ("'a' ~ b ~ 'c'", "concat \"a\" b \"c\""),
            ("a + 1", "add a 1"),
            ("'x' if a else 'y'", "ternary a \"x\" \"y\""),
            ("names | join(', ') | upper", "upper (join names \", \")"),
            ("ansible_memtotal_mb // 2", "div ansible_memtotal_mb 2"),
            ("v is match('^1')", "matches v \"^1\""),
            ("result is failed", ""),
            ("lookup('env', 'HOME')", ""),
            ("x.split(',')", "split x \",\""),
            ("d.get('k', 1)", "default d.k 1"),
            ("range(1, 5)", "range 1 4"),
            ("eq a b", ""),
            ("uper site", ""),
            ("a | selectattr('x')", ""),
            ("say 'it''s'", ""),
        ] {
            assert_eq!(translate(jinja).unwrap_or_default(), expected, "{jinja}");
            // Advice must be something that works.
            let compiled = super::super::template::compile(&format!("{{{{{expected}}}}}"));
            assert!(expected.is_empty() || compiled.is_ok(), "{expected}: {compiled:?}");
        }
        assert_eq!(translate(&"(".repeat(100)), None);
    }

    #[test]
    fn statements_are_translated() {
        assert_eq!(statement("a\n{% if a == 1 %}\n").unwrap(), (2, "this is Jinja: write `{{#if (eq a 1)}}`".to_owned()));
        assert_eq!(statement("{%- for h in groups['web'] -%}").unwrap().1, "this is Jinja: write `{{#each groups.web as |h|}}`");
        assert_eq!(statement("{% for k, v in m.items() %}").unwrap().1, "this is Jinja: write `{{#each m as |v k|}}`");
        assert_eq!(statement("date +{%Y} %{if} {%d%}"), None);
    }
}
