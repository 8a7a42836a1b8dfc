//! `when:`: bare expressions, a list is "and", the result must be a boolean.

use serde_json::Value;

use super::variables::Scope;
use super::{helpers, jinja, jinja_only};
use crate::diagnostic::Diagnostic;
use crate::project::source::{Node, Val};

/// Whether all conditions hold; if not, the one that does not, as written.
///
/// # Errors
/// What is wrong with one of them. Conditions after one that does not hold are not looked at.
pub(super) fn holds(conditions: &[Node], scope: &Scope<'_>) -> Result<Option<String>, Diagnostic> {
    for node in conditions {
        if !one(node, scope)? {
            return Ok(Some(match &node.value {
                Val::Str(text) => text.trim().to_string(),
                other => {
                    if matches!(other, Val::Bool(false)) {
                        "false".to_owned()
                    } else {
                        "when".to_owned()
                    }
                }
            }));
        }
    }
    Ok(None)
}

/// One condition.
///
/// # Errors
/// What is wrong with it.
pub(super) fn one(node: &Node, scope: &Scope<'_>) -> Result<bool, Diagnostic> {
    let text = match &node.value {
        Val::Bool(flag) => return Ok(*flag),
        Val::Str(text) => text.trim(),
        _ => return Err(Diagnostic::error(format!("a condition is an expression, not {}", node.sort())).at(node.at.clone())),
    };
    match text {
        "true" | "True" => return Ok(true),
        "false" | "False" => return Ok(false),
        _ => {}
    }
    if let Some(hint) = self::jinja(text) {
        return Err(Diagnostic::error("this is not a Handlebars expression").at(node.at.clone()).hint(hint));
    }
    let inner = text.strip_prefix("{{").and_then(|text| text.strip_suffix("}}")).map_or(text, str::trim);
    match scope.expression(inner, &node.at)? {
        Value::Bool(flag) => Ok(flag),
        other => {
            let hint = match &other {
                Value::String(word) if crate::project::lower::boolean_word(word).is_some() => {
                    format!("the value is the text `{word}`: write it without quotes, or pass it as `-e '{{\"name\": true}}'`")
                }
                Value::String(_) | Value::Array(_) | Value::Object(_) => format!("write `gt (len {inner}) 0`"),
                _ => format!("write `ne {inner} 0`"),
            };
            Err(Diagnostic::error(format!("the condition is {}, not true or false", helpers::sort(&other))).at(node.at.clone()).hint(hint))
        }
    }
}

/// Advice for what is plainly Jinja, translated where that is possible.
pub(super) fn jinja(text: &str) -> Option<String> {
    let inner = text.strip_prefix("{{").and_then(|text| text.strip_suffix("}}")).map_or(text, str::trim);
    if let Some(translated) = jinja::translate(inner).filter(|translated| translated != inner) {
        return Some(format!("write `{translated}`"));
    }
    let wrong = || super::template::compile(&format!("{{{{{inner}}}}}")).is_err();
    if let Some(hint) = jinja_only::without_counterpart(inner).filter(|_| wrong()) {
        return Some(hint.to_owned());
    }
    let outside: String = text.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let outside: String = outside.split('\'').step_by(2).collect::<Vec<_>>().join(" ");
    let quoted = |word: &str| word.trim().replace('\'', "\"");
    for (operator, function) in [("==", "eq"), ("!=", "ne"), (">=", "gte"), ("<=", "lte"), (" > ", "gt"), (" < ", "lt")] {
        if outside.contains(operator) {
            let simple =
                text.split_once(operator).filter(|(a, b)| !a.trim().contains(' ') && !b.trim().trim_matches(['\'', '"']).contains(' '));
            return Some(match simple {
                Some((a, b)) => format!("write `{function} {} {}`", quoted(a), quoted(b)),
                None => format!("write `{function} a b`; `and a b`, `or a b` join conditions"),
            });
        }
    }
    let words: Vec<&str> = outside.split_whitespace().collect();
    if let Some(at) = words.iter().position(|word| *word == "is") {
        return Some(match words.get(at + 1..) {
            Some(["defined", ..]) => format!("write `defined {}`", words[at.saturating_sub(1)]),
            Some(["not", "defined", ..] | ["undefined", ..]) => format!("write `not (defined {})`", words[at.saturating_sub(1)]),
            _ => "write a function in front: `eq a b`, `contains a b`, `defined a`".to_owned(),
        });
    }
    if words.len() > 2
        && (words[1..].contains(&"and") || words[1..].contains(&"or"))
        && !matches!(words[0], "and" | "or")
        && !text.contains('(')
    {
        return Some("write a list of conditions, or `and (a) (b)`, `or (a) (b)`".to_owned());
    }
    if words.len() > 2 && words[1..].contains(&"in") {
        return Some(format!("write `contains {} {}`", words[words.len() - 1], quoted(text.split_whitespace().next().unwrap_or_default())));
    }
    outside.contains('|').then(|| "this is a Jinja filter: write the function first, `default a \"b\"`".to_owned())
}
