//! JSON schemas as tables for people.

use serde_json::{Map, Value};

use super::cell;

/// The table of a schema's fields, then those of the mappings within it.
pub(super) fn tables(schema: &Value, names: &[&str]) -> String {
    let mut pending: Vec<(String, Value)> = Vec::new();
    let mut out = table(schema, schema, "", &mut pending);
    let properties = schema.get("properties").and_then(Value::as_object);
    let other: Vec<String> =
        names.iter().filter(|name| properties.is_none_or(|all| !all.contains_key(**name))).map(|name| format!("`{name}`")).collect();
    if !other.is_empty() {
        out.push_str(&format!("\nAnsible's other spellings work too: {}.\n", other.join(", ")));
    }
    let mut done: Vec<Value> = Vec::new();
    while !pending.is_empty() {
        let (path, inner) = pending.remove(0);
        if !done.contains(&inner) {
            done.push(inner.clone());
            out.push_str(&format!("\nEach of `{path}`:\n\n"));
            out.push_str(&table(&inner, schema, &path, &mut pending));
        }
    }
    out
}

fn table(schema: &Value, root: &Value, path: &str, pending: &mut Vec<(String, Value)>) -> String {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return String::new() };
    let required: Vec<&str> = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut out = "| argument | takes | default | |\n|---|---|---|---|\n".to_owned();
    for (name, field) in properties {
        let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let takes = kind(field, root, &inner, pending, 0);
        let default = match field.get("default") {
            _ if required.contains(&name.as_str()) => "required".to_owned(),
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) if text.is_empty() => String::new(),
            Some(Value::Array(items)) if items.is_empty() => String::new(),
            Some(Value::Object(map)) if map.is_empty() => String::new(),
            Some(Value::String(text)) => format!("`{text}`"),
            Some(value) => format!("`{value}`"),
        };
        let about = field.get("description").and_then(Value::as_str).unwrap_or_default();
        out.push_str(&format!("| `{name}` | {} | {} | {} |\n", cell(&takes), cell(&default), cell(about)));
    }
    out
}

/// What a field takes, in words; mappings with fields of their own are put off.
fn kind(field: &Value, root: &Value, path: &str, pending: &mut Vec<(String, Value)>, depth: usize) -> String {
    if depth > 8 {
        return "a value".to_owned();
    }
    if let Some(target) = field.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#')) {
        return root.pointer(target).map_or_else(|| "a value".to_owned(), |inner| kind(inner, root, path, pending, depth + 1));
    }
    if let Some(text) = field.get("const") {
        return word(text);
    }
    if let Some(values) = field.get("enum").and_then(Value::as_array) {
        return values.iter().filter(|value| !value.is_null()).map(word).collect::<Vec<_>>().join(", ");
    }
    if let Some(list) = ["anyOf", "oneOf"].iter().find_map(|name| field.get(*name)).and_then(Value::as_array) {
        let mut words: Vec<String> = list
            .iter()
            .filter(|inner| inner.get("type") != Some(&Value::from("null")))
            .map(|inner| kind(inner, root, path, pending, depth + 1))
            .collect();
        words.dedup();
        return words.join(if words.iter().all(|word| word.starts_with('`')) { ", " } else { " or " });
    }
    let types: Vec<&str> = match field.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        _ => Vec::new(),
    };
    let words: Vec<String> = types.iter().map(|name| of_type(name, field, root, path, pending, depth)).collect();
    if words.is_empty() { "any value".to_owned() } else { words.join(" or ") }
}

fn of_type(name: &str, field: &Value, root: &Value, path: &str, pending: &mut Vec<(String, Value)>, depth: usize) -> String {
    let within = |name: &str, path: &str, pending: &mut Vec<(String, Value)>| {
        field.get(name).filter(|inner| inner.is_object()).map(|inner| kind(inner, root, path, pending, depth + 1))
    };
    match name {
        "string" => "text".to_owned(),
        "integer" => "a whole number".to_owned(),
        "number" => "a number".to_owned(),
        "boolean" => "`true`, `false`".to_owned(),
        "array" => match within("items", &format!("{path}[]"), pending) {
            Some(items) => format!("a list: {items}"),
            None => "a list".to_owned(),
        },
        "object" if field.get("properties").and_then(Value::as_object).is_some_and(|map: &Map<String, Value>| !map.is_empty()) => {
            pending.push((path.to_owned(), field.clone()));
            "a mapping, see below".to_owned()
        }
        "object" => match within("additionalProperties", &format!("{path}.*"), pending) {
            Some(values) => format!("a mapping of names to: {values}"),
            None => "a mapping".to_owned(),
        },
        other => other.to_owned(),
    }
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| format!("`{value}`"), |text| format!("`{text}`"))
}
