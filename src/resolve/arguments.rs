//! Argument specifications of roles: required, type, choices, checked on rendered values.

use serde_json::Value;

use super::helpers;
use super::host::HostRun;
use super::variables::Scope;
use crate::diagnostic::{Diagnostic, Location, printable};
use crate::project::lower::boolean_word;
use crate::project::role::{OptionKind, OptionSpec, Role, Spec};
use crate::project::task::RoleUse;
use crate::resource::compose::units;

/// Checks what a role is given.
pub(super) fn validate(run: &HostRun<'_, '_>, role: &Role, spec: &Spec, used: &RoleUse, scope: &Scope<'_>) {
    for option in &spec.options {
        let own = used.params.get(option.name.as_str()).map(|node| node.at.clone());
        let at = &own.or_else(|| scope.place(&option.name)).unwrap_or_else(|| used.name.at.clone());
        match scope.variable(&option.name) {
            Err(undefined) => run.report(undefined.diagnostic),
            Ok(None) if option.required => {
                let message = format!("role `{}` needs `{}`", role.name, option.name);
                run.report(
                    Diagnostic::error(message).at(at.clone()).hint("set it in the inventory, in `vars`, or as a parameter of the role"),
                );
            }
            Ok(None) => {}
            Ok(Some(value)) if value.is_null() && !option.required => {}
            Ok(Some(value)) => check(run, role, option, &option.name, &value, at),
        }
    }
}

fn check(run: &HostRun<'_, '_>, role: &Role, option: &OptionSpec, path: &str, value: &Value, at: &Location) {
    let wrong = |message: String, hint: Option<String>| {
        let diagnostic = Diagnostic::error(format!("`{path}` of role `{}`: {message}", role.name)).at(at.clone());
        run.report(match hint {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        });
    };
    if !fits(option.kind, value) {
        return wrong(format!("it must be {}, not {}", word(option.kind), seen(option.kind, value)), option.description.clone());
    }
    if !option.choices.is_empty() && !option.choices.contains(value) {
        let choices: Vec<String> = option.choices.iter().map(|choice| helpers::text(choice).unwrap_or_default()).collect();
        let text = helpers::text(value).unwrap_or_else(|_| value.to_string());
        let hint = match crate::diagnostic::nearest(&text, choices.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("choices: {}", choices.join(", ")),
        };
        return wrong(format!("it cannot be `{text}`"), Some(hint));
    }
    if let Some(message) = out_of_range(option, value) {
        return wrong(message, option.description.clone());
    }
    if let (Some(elements), Value::Array(items)) = (option.elements, value) {
        for (index, item) in items.iter().enumerate().filter(|(_, item)| !fits(elements, item)) {
            wrong(format!("item {index} must be {}, not {}", word(elements), seen(elements, item)), None);
        }
    }
    if let Some(spec) = &option.options {
        match value {
            Value::Object(_) => nested(run, role, spec, path, value, at),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, item)| nested(run, role, spec, &format!("{path}[{index}]"), item, at))
            }
            _ => {}
        }
    }
}

fn nested(run: &HostRun<'_, '_>, role: &Role, spec: &Spec, path: &str, value: &Value, at: &Location) {
    let Some(map) = value.as_object() else { return };
    let report = |message: String| run.report(Diagnostic::error(format!("`{path}` of role `{}`: {message}", role.name)).at(at.clone()));
    for name in map.keys().filter(|name| !spec.options.iter().any(|option| option.name == **name)) {
        let near = crate::diagnostic::nearest(name, spec.options.iter().map(|option| option.name.as_str()));
        report(format!("unknown key `{name}`{}", near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()));
    }
    for option in &spec.options {
        match map.get(&option.name) {
            Some(value) if value.is_null() && !option.required => {}
            Some(value) => check(run, role, option, &format!("{path}.{}", option.name), value, at),
            None if option.required => report(format!("it needs `{}`", option.name)),
            None => {}
        }
    }
}

fn fits(kind: OptionKind, value: &Value) -> bool {
    match kind {
        OptionKind::Raw => true,
        OptionKind::Str | OptionKind::Path => matches!(value, Value::String(_) | Value::Number(_)),
        OptionKind::Bool => value.is_boolean() || value.as_str().is_some_and(|text| boolean_word(text).is_some()),
        OptionKind::Int => value.is_i64() || value.is_u64() || value.as_str().is_some_and(|text| text.parse::<i64>().is_ok()),
        OptionKind::Float => value.is_number() || value.as_str().is_some_and(|text| text.parse::<f64>().is_ok()),
        OptionKind::Port => number(value).is_some_and(|port| (1.0..=65535.0).contains(&port) && port.fract() == 0.0),
        OptionKind::Size => units::bytes(value).is_some_and(|bytes| bytes > 0),
        OptionKind::List => value.is_array(),
        OptionKind::Dict => value.is_object(),
    }
}

/// A value that does not fit, in words: itself, where its sort alone would not tell.
fn seen(kind: OptionKind, value: &Value) -> String {
    match (kind, helpers::text(value)) {
        (OptionKind::Port | OptionKind::Size | OptionKind::Int | OptionKind::Float, Ok(text)) => format!("`{}`", printable(&text)),
        _ => helpers::sort(value).to_owned(),
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// What is wrong with a value of the right type.
fn out_of_range(option: &OptionSpec, value: &Value) -> Option<String> {
    let (least, most) = option.range;
    if let Some(number) = number(value) {
        if let Some(least) = least.filter(|least| number < *least) {
            return Some(format!("it must be {least} at least, not `{number}`"));
        }
        if let Some(most) = most.filter(|most| number > *most) {
            return Some(format!("it must be {most} at most, not `{number}`"));
        }
    }
    let pattern = option.pattern.as_ref()?;
    let text = helpers::text(value).unwrap_or_default();
    (!pattern.is_match(&text)).then(|| format!("it cannot be `{}`", printable(&text)))
}

fn word(kind: OptionKind) -> &'static str {
    match kind {
        OptionKind::Str => "text",
        OptionKind::Path => "a path",
        OptionKind::Bool => "true or false",
        OptionKind::Int => "a whole number",
        OptionKind::Float => "a number",
        OptionKind::Port => "a port (1 to 65535)",
        OptionKind::Size => "a size such as `512m` or `8G`",
        OptionKind::List => "a list",
        OptionKind::Dict => "a mapping",
        OptionKind::Raw => "anything",
    }
}
