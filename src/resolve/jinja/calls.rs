//! What Jinja's filters, methods and functions are called here.

use super::Term;

/// Several terms as one call; a single one stays itself.
pub(super) fn joined(name: &str, mut all: Vec<Term>) -> Term {
    if all.len() == 1 {
        return all.remove(0);
    }
    Term::call(name, &all.iter().collect::<Vec<_>>())
}

/// Text after text.
pub(super) fn concat(left: Term, right: &Term) -> Term {
    match left {
        Term::Call(text) if text.starts_with("concat ") => Term::Call(format!("{text} {}", right.argument())),
        left => Term::call("concat", &[&left, right]),
    }
}

/// An entry of a mapping or list.
pub(super) fn entry(left: Term, name: &str) -> Option<Term> {
    match left {
        Term::Call(text) if text.starts_with("hostvar ") && !text["hostvar ".len()..].contains(' ') => {
            Some(Term::Call(format!("{text} \"{name}\"")))
        }
        Term::Atom(text) if text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => {
            let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            // A number alone is not a name of the template language.
            let plain = plain && (!name.starts_with(|c: char| c.is_ascii_digit()) || name.bytes().all(|byte| byte.is_ascii_digit()));
            if name.contains([']', '[']) {
                return None;
            }
            Some(Term::Atom(if plain { format!("{text}.{name}") } else { format!("{text}.[{name}]") }))
        }
        Term::Call(text) => Some(Term::Call(format!("lookup ({text}) \"{name}\""))),
        Term::Atom(_) => None,
    }
}

/// Filters of the same name and the same arguments.
const SAME: &[&str] = &[
    "upper",
    "lower",
    "trim",
    "join",
    "replace",
    "to_json",
    "to_nice_json",
    "to_yaml",
    "indent",
    "quote",
    "int",
    "string",
    "first",
    "last",
    "sort",
    "unique",
    "basename",
    "dirname",
    "b64encode",
    "b64decode",
    "split",
    "regex_replace",
    "ternary",
];

/// `left | name(arguments)`.
pub(super) fn filter(name: &str, left: Term, arguments: &[Term]) -> Option<Term> {
    let bare = name.rsplit('.').next().unwrap_or(name);
    let with = |function: &str| {
        let all: Vec<&Term> = std::iter::once(&left).chain(arguments).collect();
        Term::call(function, &all)
    };
    match (bare, arguments.len()) {
        ("default" | "d", 0) => Some(Term::call("default", &[&left, &Term::Atom("\"\"".to_owned())])),
        ("default" | "d", _) => Some(Term::call("default", &[&left, &arguments[0]])),
        ("bool" | "list" | "mandatory", 0) => Some(left),
        ("length" | "count", 0) => Some(with("len")),
        ("to_nice_yaml", _) => Some(Term::call("to_yaml", &[&left])),
        ("combine", 1) => Some(with("merge")),
        ("hash", 1) if matches!(&arguments[0], Term::Atom(text) if text == "\"sha256\"") => Some(Term::call("sha256", &[&left])),
        _ if SAME.contains(&bare) => {
            let (fewest, most) = crate::resolve::helpers::find(bare)?.arity;
            (fewest..=most).contains(&(arguments.len() + 1)).then(|| with(bare))
        }
        _ => None,
    }
}

/// `left.name(arguments)`.
pub(super) fn method(name: &str, left: Term, arguments: &[Term]) -> Option<Term> {
    let with = |function: &str| {
        let all: Vec<&Term> = std::iter::once(&left).chain(arguments).collect();
        Term::call(function, &all)
    };
    match (name, arguments.len()) {
        ("startswith", 1) => Some(with("starts_with")),
        ("endswith", 1) => Some(with("ends_with")),
        ("split", 1) => Some(with("split")),
        ("replace", 2) => Some(with("replace")),
        ("upper" | "lower" | "keys" | "values", 0) => Some(with(name)),
        ("strip", 0) => Some(with("trim")),
        ("get", 2) => match &arguments[0] {
            Term::Atom(key) if key.starts_with('"') => {
                Some(Term::call("default", &[&entry(left.clone(), key.trim_matches('"'))?, &arguments[1]]))
            }
            _ => None,
        },
        _ => None,
    }
}

/// `name(arguments)`.
pub(super) fn function(name: &str, arguments: &[Term]) -> Option<Term> {
    let number = |term: &Term| match term {
        Term::Atom(text) => text.parse::<i64>().ok(),
        Term::Call(_) => None,
    };
    match (name, arguments) {
        // Jinja's range leaves the last out.
        ("range", [to]) => Some(Term::Call(format!("range 0 {}", number(to)? - 1))),
        ("range", [from, to]) => Some(Term::Call(format!("range {} {}", from.argument(), number(to)? - 1))),
        _ => None,
    }
}
