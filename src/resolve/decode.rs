//! A task's arguments -> resources: finds the kind, renders, coerces, decodes, and puts the kind's
//! complaints where they belong in the user's file.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::helpers;
use super::template::{self, OMIT};
use super::variables::Scope;
use crate::composite;
use crate::diagnostic::{Diagnostic, Location, nearest};
use crate::project::ansible::{self, Place, Support};
use crate::project::lower::boolean_word;
use crate::project::source::{Key, Node};
use crate::resource::{self, BuildError, KindEntry};
use crate::secret::{SecretName, Text, login};

/// Every kind that tasks can name.
pub fn kinds() -> impl Iterator<Item = &'static KindEntry> {
    #[cfg(test)]
    let test: &'static [KindEntry] = super::testing::KINDS;
    #[cfg(not(test))]
    let test: &'static [KindEntry] = &[];
    composite::KINDS.iter().chain(resource::KINDS).chain(test)
}

/// A kind by name.
#[must_use]
pub fn kind(name: &str) -> Option<&'static KindEntry> {
    kinds().find(|entry| entry.name == name)
}

/// Which of a task's keys is its module; the others are mistakes.
///
/// # Errors
/// The mistakes.
pub fn choose<'a>(candidates: &'a [(Key, Node)], known: &dyn Fn(&str) -> bool) -> Result<&'a (Key, Node), Vec<Diagnostic>> {
    let mut found = candidates.iter().filter(|(key, _)| known(&key.name));
    match (found.next(), found.next()) {
        (Some(_), Some((second, _))) => Err(vec![
            Diagnostic::error(format!("a task has one module only, and `{}` is a second", second.name))
                .at(second.at.clone())
                .hint("make it a task of its own"),
        ]),
        (Some(chosen), None) if candidates.len() == 1 => Ok(chosen),
        (chosen, _) => Err(candidates
            .iter()
            .filter(|(key, _)| chosen.is_none_or(|(chosen, _)| chosen.at != key.at))
            .map(|(key, _)| unknown(key, chosen.is_some(), candidates.len()))
            .collect()),
    }
}

fn unknown(key: &Key, has_module: bool, keys: usize) -> Diagnostic {
    let modules = kinds().map(|entry| entry.name).chain(ansible::accepted(Place::Module)).chain(super::checks::names());
    let near = nearest(&key.name, modules);
    let keyword = nearest(&key.name, ansible::accepted(Place::Task));
    let (what, near) = if has_module || (near.is_none() && keyword.is_some() && keys > 1) {
        ("unknown key", keyword.or(near))
    } else {
        ("unknown module", near.or(keyword))
    };
    let diagnostic = Diagnostic::error(format!("{what} `{}`", key.name)).at(key.at.clone());
    match (near, ansible::lookup(Place::Block, &key.name)) {
        (Some(near), _) => diagnostic.hint(format!("did you mean `{near}`?")),
        (None, Some(Support::Supported)) => diagnostic.hint("this is a key of blocks"),
        _ => diagnostic.hint("`soc-provision docs kinds` lists all of them"),
    }
}

/// Renders the arguments of a module into a mapping.
///
/// # Errors
/// What is wrong with each of them.
pub(super) fn arguments(
    name: &str,
    shorthand: Option<&str>,
    node: &Node,
    more: Option<&Node>,
    scope: &Scope<'_>,
) -> Result<Map<String, Value>, Vec<Diagnostic>> {
    let mut out = Map::new();
    let mut problems = Vec::new();
    for node in [Some(node), more].into_iter().flatten() {
        match node.as_map() {
            Some(map) => {
                for (key, value) in map.iter() {
                    match scope.render(value) {
                        Ok(value) => drop(out.insert(key.name.to_string(), value)),
                        Err(diagnostic) => problems.push(diagnostic),
                    }
                }
            }
            None if node.is_null() => {}
            None => match (scope.render(node), shorthand) {
                (Err(diagnostic), _) => problems.push(diagnostic),
                (Ok(Value::Object(map)), _) => out.extend(map),
                (Ok(value), Some(field)) => drop(out.insert(field.to_owned(), value)),
                (Ok(_), None) => problems.push(
                    Diagnostic::error(format!("`{name}` takes a mapping, not {}", node.sort()))
                        .at(node.at.clone())
                        .hint("write one `key: value` a line below it"),
                ),
            },
        }
    }
    let mut whole = Value::Object(out);
    drop_omitted(&mut whole);
    match whole {
        Value::Object(map) if problems.is_empty() => Ok(map),
        _ => Err(problems),
    }
}

fn drop_omitted(value: &mut Value) {
    let omitted = |value: &Value| value.as_str() == Some(OMIT);
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !omitted(value));
            map.values_mut().for_each(drop_omitted);
        }
        Value::Array(items) => {
            items.retain(|value| !omitted(value));
            items.iter_mut().for_each(drop_omitted);
        }
        _ => {}
    }
}

/// Refuses secrets where they do not belong, and secrets that nobody has.
pub(super) fn secrets(
    name: &str,
    allowed: &[&str],
    arguments: &Map<String, Value>,
    node: &Node,
    known: Option<&[SecretName]>,
) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    for (field, value) in arguments {
        if !helpers::has_secret(value) {
            continue;
        }
        let at = node.as_map().and_then(|map| map.get(field)).map_or(&node.at, |node| &node.at);
        if !allowed.contains(&field.as_str()) {
            let hint = match allowed {
                [] => format!("`{name}` takes no secrets; `secret` writes one to a file"),
                fields => format!("`{name}` takes secrets in: {}", fields.join(", ")),
            };
            problems.push(Diagnostic::error(format!("a secret is not allowed here, in `{field}`")).at(at.clone()).hint(hint));
        }
        problems.extend(names_in(value).iter().filter_map(|name| missing(name, known)).map(|diagnostic| diagnostic.at(at.clone())));
    }
    problems
}

fn names_in(value: &Value) -> Vec<SecretName> {
    match value {
        Value::String(text) => Text::parse(text).secrets(),
        Value::Array(items) => items.iter().flat_map(names_in).collect(),
        Value::Object(map) => map.values().flat_map(names_in).collect(),
        _ => Vec::new(),
    }
}

/// The problem of a secret that is not among the known ones.
pub(super) fn missing(name: &SecretName, known: Option<&[SecretName]>) -> Option<Diagnostic> {
    let known = known?;
    // What is made of a secret (a certificate by an authority) is there if that is.
    let (name, recipe) = name.origin();
    if known.contains(&name) {
        return None;
    }
    if recipe.is_some_and(|recipe| login::user(recipe).is_none()) {
        let what = format!("there is no secret `{name}`, which should hold the certificate authority");
        return Some(Diagnostic::error(what).hint(format!("make one with `soc-provision secrets ca {name}`")));
    }
    let diagnostic = Diagnostic::error(format!("there is no secret `{name}`"));
    Some(match nearest(name.as_str(), known.iter().map(SecretName::as_str)) {
        Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
        None => diagnostic.hint(format!("run `soc-provision secrets set {name}`")),
    })
}

/// Types that a field's schema allows.
type Types = Vec<String>;

/// For each kind, its fields with the types they take.
static FIELDS: LazyLock<HashMap<&'static str, BTreeMap<String, Types>>> =
    LazyLock::new(|| kinds().map(|entry| (entry.name, fields_of(&(entry.schema)().to_value()))).collect());

/// The same for checks, some of which have the name of a kind.
static CHECK_FIELDS: LazyLock<HashMap<&'static str, BTreeMap<String, Types>>> =
    LazyLock::new(|| super::checks::CHECKS.iter().map(|entry| (entry.name, fields_of(&(entry.schema)().to_value()))).collect());

/// Names of a kind's fields, for checks before rendering. Empty if the schema does not tell.
#[must_use]
pub fn fields(kind: &str) -> Vec<&'static str> {
    self::kind(kind).map(|entry| (entry.names)().to_vec()).unwrap_or_default()
}

fn fields_of(schema: &Value) -> BTreeMap<String, Types> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let field = |(name, field): (&String, &Value)| {
        let mut types = Vec::new();
        types_of(field, schema, &mut types, 0);
        (name.clone(), types)
    };
    properties.into_iter().flatten().map(field).collect()
}

fn types_of(field: &Value, root: &Value, out: &mut Types, depth: usize) {
    match field.get("type") {
        Some(Value::String(name)) => out.push(name.clone()),
        Some(Value::Array(names)) => out.extend(names.iter().filter_map(Value::as_str).map(str::to_owned)),
        _ => {}
    }
    for list in ["anyOf", "oneOf"].iter().filter_map(|name| field.get(name)).filter_map(Value::as_array) {
        list.iter().for_each(|inner| types_of(inner, root, out, depth + 1));
    }
    let target = field.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
    if let Some(inner) = target.filter(|_| depth < 8).and_then(|path| root.pointer(path)) {
        types_of(inner, root, out, depth + 1);
    }
}

/// Makes the simple conversions that Ansible makes: `"yes"` where a boolean is wanted, `"80"`
/// where a number is, `1000` where text is. What could mean two things is left to fail.
fn coerce(fields: &BTreeMap<String, Types>, arguments: &mut Map<String, Value>) {
    for (name, value) in arguments.iter_mut() {
        let Some(types) = fields.get(name) else { continue };
        let takes = |kind: &str| types.iter().any(|known| known == kind);
        let converted = match &*value {
            Value::String(word) if !takes("string") => match () {
                () if takes("boolean") => boolean_word(word).map(Value::Bool),
                () if takes("integer") => word.trim().parse::<i64>().ok().map(Value::from),
                () if takes("number") => word.trim().parse::<f64>().ok().map(Value::from),
                () => None,
            },
            // `mode: 420` was `0644` once: whoever writes a number there must not be guessed at.
            Value::Number(number) if takes("string") && !takes("integer") && !takes("number") && number.is_i64() && name != "mode" => {
                Some(Value::String(number.to_string()))
            }
            _ => None,
        };
        if let Some(converted) = converted {
            *value = converted;
        }
    }
}

/// Coerces for a kind.
pub(super) fn coerce_for(kind: &str, arguments: &mut Map<String, Value>) {
    if let Some(fields) = FIELDS.get(kind) {
        coerce(fields, arguments);
    }
}

/// Coerces for a check.
pub(super) fn coerce_for_check(name: &str, arguments: &mut Map<String, Value>) {
    if let Some(fields) = CHECK_FIELDS.get(name) {
        coerce(fields, arguments);
    }
}

/// The kind's complaint, at the argument it is about.
pub(super) fn complaint(name: &str, error: &BuildError, key: &Key, node: &Node) -> Diagnostic {
    let path = error.field.as_deref().unwrap_or_default();
    let mut at = find(node, path).unwrap_or_else(|| key.at.clone());
    let mut hint = error.hint.clone();
    let mut message = match path {
        "" => format!("`{name}`: {}", error.message),
        path => format!("`{path}` of `{name}`: {}", error.message),
    };
    if let Some(field) = quoted_after(&error.message, "unknown field ") {
        let known: Vec<&str> = error.message.split('`').skip(3).step_by(2).collect();
        // The path may or may not end with the field itself.
        let parent = path.strip_suffix(field).map_or(path, |parent| parent.trim_end_matches('.'));
        let inside = if parent.is_empty() { name.to_owned() } else { format!("{name}.{parent}") };
        at = find_key(node, parent, field).unwrap_or_else(|| key.at.clone());
        message = format!("unknown key `{field}` in `{inside}`");
        hint = Some(match nearest(field, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "it takes no keys".to_owned(),
            None => format!("known keys: {}", known.join(", ")),
        });
    } else if let Some(field) = quoted_after(&error.message, "missing field ") {
        let inside = if path.is_empty() { name.to_owned() } else { format!("{name}.{path}") };
        message = format!("`{inside}` needs `{field}`");
    } else if let Some(variant) = quoted_after(&error.message, "unknown variant ") {
        let known: Vec<&str> = error.message.split('`').skip(3).step_by(2).collect();
        message = format!("`{}` cannot be `{variant}`", if path.is_empty() { name } else { path });
        hint = Some(match nearest(variant, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known: {}", known.join(", ")),
        });
    } else if path.ends_with("mode") && error.message.contains("invalid type: integer") {
        hint = Some("quote it, with the leading zero: `\"0644\"`".to_owned());
    } else if error.message.contains("expected a string") && error.message.starts_with("invalid type") {
        hint = hint.or_else(|| Some("quote it, so that it stays what you wrote".to_owned()));
    }
    let diagnostic = Diagnostic::error(message).at(at);
    match hint {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

fn quoted_after<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    message.strip_prefix(start)?.strip_prefix('`')?.split('`').next()
}

/// The place of the value that a path such as `services.web.ports[0]` leads to, or of the
/// innermost part of it that is written in the file.
fn find(node: &Node, path: &str) -> Option<Location> {
    let mut current = node;
    let mut at = None;
    for part in path.split(['.', '[', ']']).filter(|part| !part.is_empty() && *part != "?") {
        let next = match part.parse::<usize>() {
            Ok(index) if current.as_seq().is_some() => current.as_seq().and_then(|items| items.get(index)),
            _ => current.as_map().and_then(|map| map.get(part)),
        };
        let Some(next) = next else { break };
        at = Some(next.at.clone());
        current = next;
    }
    at
}

fn find_key(node: &Node, parent: &str, field: &str) -> Option<Location> {
    let mut current = node;
    for part in parent.split(['.', '[', ']']).filter(|part| !part.is_empty() && *part != "?") {
        let next = match part.parse::<usize>() {
            Ok(index) if current.as_seq().is_some() => current.as_seq().and_then(|items| items.get(index)),
            _ => current.as_map().and_then(|map| map.get(part)),
        };
        current = next?;
    }
    current.as_map().and_then(|map| map.entry(field)).map(|(key, _)| key.at.clone())
}

/// Whether a node mentions a template anywhere.
#[must_use]
pub(super) fn mentions_template(node: &Node) -> bool {
    match &node.value {
        crate::project::source::Val::Str(text) => template::is_template(text),
        crate::project::source::Val::Seq(items) => items.iter().any(mentions_template),
        crate::project::source::Val::Map(map) => map.iter().any(|(key, node)| template::is_template(&key.name) || mentions_template(node)),
        _ => false,
    }
}
