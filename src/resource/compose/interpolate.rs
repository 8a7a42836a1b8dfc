//! Compose's `${NAME}` interpolation, done on the controller, so that nothing depends on the
//! environment or on a forgotten `.env` of the host. Compose takes an unset variable for an empty
//! one and only warns; here it is an error.

use std::collections::BTreeMap;

use serde_json::Value;

/// Replaces variables in every string of a tree.
pub fn tree(value: &mut Value, variables: &BTreeMap<String, String>, path: &str, problems: &mut Vec<String>) {
    match value {
        Value::String(text) => match interpolate(text, variables) {
            Ok(done) => *text = done,
            Err(problem) => problems.push(format!("{problem}, in `{path}`")),
        },
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                tree(item, variables, &format!("{path}[{index}]"), problems);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                tree(item, variables, &path, problems);
            }
        }
        _ => {}
    }
}

/// Doubles every `$` of a tree's values: the reverse, for what is written for Compose.
pub fn escape(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Value::Array(items) => items.iter_mut().for_each(escape),
        Value::Object(map) => map.values_mut().for_each(escape),
        _ => {}
    }
}

/// Replaces variables in one string.
fn interpolate(text: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(inner) = after.strip_prefix('{') {
            let end = closing(inner).ok_or_else(|| format!("`${{` without `}}` in `{text}`"))?;
            out.push_str(&braced(&inner[..end], variables)?);
            rest = &inner[end + 1..];
        } else {
            let len = name_length(after);
            if len == 0 {
                return Err(format!("a lone `$` in `{text}`; write `$$` for a dollar sign"));
            }
            out.push_str(lookup(&after[..len], variables)?);
            rest = &after[len..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// What stands between `${` and its `}`.
fn braced(inner: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let (name, operator) = inner.split_at(name_length(inner));
    if name.is_empty() {
        return Err(format!("`${{{inner}}}` names no variable"));
    }
    let value = variables.get(name).map(String::as_str);
    let (value, operator) = match operator.strip_prefix(':') {
        Some(operator) => (value.filter(|value| !value.is_empty()), operator),
        None => (value, operator),
    };
    match (operator.chars().next(), operator.get(1..).unwrap_or_default()) {
        (None, _) => lookup(name, variables).map(str::to_owned),
        (Some('-'), default) => value.map_or_else(|| interpolate(default, variables), |value| Ok(value.to_owned())),
        (Some('+'), other) => value.map_or_else(|| Ok(String::new()), |_| interpolate(other, variables)),
        (Some('?'), message) => value.map(str::to_owned).ok_or_else(|| format!("variable `{name}` is not set: {message}")),
        _ => Err(format!("`${{{inner}}}` is not an interpolation that Compose knows")),
    }
}

fn lookup<'a>(name: &str, variables: &'a BTreeMap<String, String>) -> Result<&'a str, String> {
    variables.get(name).map(String::as_str).ok_or_else(|| format!("variable `{name}` is not set (add it to the stack's `env`)"))
}

/// Length of the variable's name that a text begins with.
fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Where the `}` is that closes what was opened before the text.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(index),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_compose_does_but_for_unset_ones() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("E".to_owned(), String::new())]);
        let done = |text| interpolate(text, &variables);
        assert_eq!(done("x$A ${A}y $$A ${N:-d${A}} ${E-x}${E:-z} ${A:+yes}").unwrap(), "x1 1y $A d1 z yes");
        assert!(done("${N}").unwrap_err().contains("`N` is not set"));
        assert_eq!(done("${N:?give one}").unwrap_err(), "variable `N` is not set: give one");
        assert!(done("50$").is_err());
        assert!(done("${A").is_err());
    }
}
