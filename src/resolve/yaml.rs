//! Writes JSON as block YAML, for the helper `to_yaml`.

use serde_json::Value;

/// Block YAML, without a final newline.
#[must_use]
pub(super) fn block(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, &mut out);
    out.trim_start_matches('\n').to_owned()
}

fn write(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                newline(indent, out);
                out.push_str(&scalar(&Value::from(key.as_str())));
                out.push(':');
                nested(value, indent + 2, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                newline(indent, out);
                out.push('-');
                nested(item, indent + 2, out);
            }
        }
        other => out.push_str(&scalar(other)),
    }
}

fn nested(value: &Value, indent: usize, out: &mut String) {
    let empty = value.as_object().is_some_and(serde_json::Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
    if !value.is_object() && !value.is_array() || empty {
        out.push(' ');
    }
    write(value, indent, out);
}

fn newline(indent: usize, out: &mut String) {
    out.push('\n');
    out.push_str(&" ".repeat(indent));
}

/// Text is plain where no reader of YAML could take it for something else, else as JSON writes it.
fn scalar(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let first = text.chars().next();
    let plain = first.is_some_and(|c| c.is_ascii_alphabetic() || c == '/' || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@' | '+'))
        && crate::project::lower::boolean_word(text).is_none()
        && !matches!(text.to_ascii_lowercase().as_str(), "null" | "nan" | "inf");
    if plain { text.clone() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let value = json!({"a": {"b": [1, {"c": "yes", "d": null}, []], "e": {}}, "f": "x: y", "g": "plain", "h": true, "i": "1.10", "j": [[1, 2]]});
        let text = block(&value);
        let node = crate::project::source::parse(&text, &std::sync::Arc::new("x".into())).unwrap();
        assert_eq!(node.to_json(), value, "{text}");
        assert!(text.contains("\ng: plain\n"));
        assert_eq!(block(&json!("a b")), "\"a b\"");
    }
}
