//! The functions that templates and conditions can call. Pure: JSON in, JSON out.
//!
//! Each is one entry of [`FUNCTIONS`], from which the docs are made. Blocks (`if`, `each`, ...)
//! and the wiring to Handlebars are in `engine.rs`.

use base64::Engine as _;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::project::files::hex;
use crate::secret::{SecretName, Text};

/// A function of templates.
pub struct Function {
    pub name: &'static str,
    /// Fewest and most arguments.
    pub arity: (usize, usize),
    /// How it is written, for the docs and for messages.
    pub usage: &'static str,
    pub call: fn(&[Option<&Value>]) -> Result<Value, String>,
    /// What secrets in its arguments are to it.
    pub secrets: Secrets,
    /// Whether arguments may be undefined.
    pub takes_undefined: bool,
}

/// What a function may do with text that contains a secret, which it sees as a marker only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// Passes it on as it is.
    Keep,
    /// Would compute something of the marker, not of the value: refused.
    Refuse,
}

const fn strict(
    name: &'static str,
    arity: (usize, usize),
    usage: &'static str,
    call: fn(&[Option<&Value>]) -> Result<Value, String>,
) -> Function {
    Function { name, arity, usage, call, secrets: Secrets::Refuse, takes_undefined: false }
}

const fn keeping(
    name: &'static str,
    arity: (usize, usize),
    usage: &'static str,
    call: fn(&[Option<&Value>]) -> Result<Value, String>,
) -> Function {
    Function { name, arity, usage, call, secrets: Secrets::Keep, takes_undefined: false }
}

const MANY: usize = 64;

/// All functions.
pub const FUNCTIONS: &[Function] = &[
    strict("eq", (2, 2), "eq a b", |a| Ok(Value::Bool(equal(at(a, 0), at(a, 1))))),
    strict("ne", (2, 2), "ne a b", |a| Ok(Value::Bool(!equal(at(a, 0), at(a, 1))))),
    strict("gt", (2, 2), "gt a b", |a| compare(a).map(|order| Value::Bool(order.is_gt()))),
    strict("gte", (2, 2), "gte a b", |a| compare(a).map(|order| Value::Bool(order.is_ge()))),
    strict("lt", (2, 2), "lt a b", |a| compare(a).map(|order| Value::Bool(order.is_lt()))),
    strict("lte", (2, 2), "lte a b", |a| compare(a).map(|order| Value::Bool(order.is_le()))),
    keeping("and", (1, MANY), "and a b ...", |a| Ok(Value::Bool(a.iter().all(|value| value.is_some_and(truthy))))),
    keeping("or", (1, MANY), "or a b ...", |a| Ok(Value::Bool(a.iter().any(|value| value.is_some_and(truthy))))),
    keeping("not", (1, 1), "not a", |a| Ok(Value::Bool(!truthy(at(a, 0))))),
    Function {
        takes_undefined: true,
        ..keeping("default", (2, 2), "default name fallback", |a| Ok(a[0].filter(|value| !value.is_null()).unwrap_or(at(a, 1)).clone()))
    },
    Function { takes_undefined: true, ..keeping("defined", (1, 1), "defined name", |a| Ok(Value::Bool(a[0].is_some()))) },
    keeping("ternary", (3, 3), "ternary condition yes no", |a| Ok(at(a, if truthy(at(a, 0)) { 1 } else { 2 }).clone())),
    keeping("lookup", (2, 2), "lookup list-or-mapping key", lookup),
    keeping("concat", (1, MANY), "concat a b ...", concat),
    keeping("join", (1, 2), "join list \", \"", |a| {
        let parts: Result<Vec<String>, String> = list(a, 0)?.iter().map(text).collect();
        Ok(Value::String(parts?.join(&a.get(1).map_or(Ok(",".to_owned()), |_| string(a, 1))?)))
    }),
    keeping("to_json", (1, 1), "to_json value", |a| Ok(Value::String(at(a, 0).to_string()))),
    keeping("to_nice_json", (1, 1), "to_nice_json value", |a| {
        serde_json::to_string_pretty(at(a, 0)).map(Value::String).map_err(|error| error.to_string())
    }),
    keeping("to_yaml", (1, 1), "to_yaml value", |a| Ok(Value::String(super::yaml::block(at(a, 0))))),
    keeping("indent", (2, 2), "indent text 4", |a| indent(&string(a, 0)?, number(a, 1)?)),
    strict("quote", (1, 1), "quote text", |a| Ok(Value::String(crate::shell::quote(&string(a, 0)?)))),
    strict("upper", (1, 1), "upper text", |a| Ok(Value::String(string(a, 0)?.to_uppercase()))),
    strict("lower", (1, 1), "lower text", |a| Ok(Value::String(string(a, 0)?.to_lowercase()))),
    strict("trim", (1, 1), "trim text", |a| Ok(Value::String(string(a, 0)?.trim().to_owned()))),
    strict("replace", (3, 3), "replace text old new", |a| Ok(Value::String(string(a, 0)?.replace(&string(a, 1)?, &string(a, 2)?)))),
    strict("regex_replace", (3, 3), "regex_replace text pattern new", |a| {
        let pattern = regex(&string(a, 1)?)?;
        Ok(Value::String(pattern.replace_all(&string(a, 0)?, string(a, 2)?.as_str()).into_owned()))
    }),
    strict("matches", (2, 2), "matches text pattern", |a| Ok(Value::Bool(regex(&string(a, 1)?)?.is_match(&string(a, 0)?)))),
    strict("split", (2, 2), "split text \",\"", |a| {
        let (whole, separator) = (string(a, 0)?, string(a, 1)?);
        Ok(Value::Array(whole.split(&separator).map(Value::from).collect()))
    }),
    strict("contains", (2, 2), "contains list-or-text-or-mapping value", |a| match at(a, 0) {
        Value::Array(items) => Ok(Value::Bool(items.iter().any(|item| equal(item, at(a, 1))))),
        Value::Object(map) => Ok(Value::Bool(map.contains_key(&string(a, 1)?))),
        _ => Ok(Value::Bool(string(a, 0)?.contains(&string(a, 1)?))),
    }),
    strict("starts_with", (2, 2), "starts_with text start", |a| Ok(Value::Bool(string(a, 0)?.starts_with(&string(a, 1)?)))),
    strict("ends_with", (2, 2), "ends_with text end", |a| Ok(Value::Bool(string(a, 0)?.ends_with(&string(a, 1)?)))),
    strict("add", (2, 2), "add 1 2", |a| arithmetic(a, i64::checked_add, |x, y| x + y)),
    strict("sub", (2, 2), "sub 3 1", |a| arithmetic(a, i64::checked_sub, |x, y| x - y)),
    strict("mul", (2, 2), "mul 2 3", |a| arithmetic(a, i64::checked_mul, |x, y| x * y)),
    strict("div", (2, 2), "div 7 2 (whole numbers round down)", |a| arithmetic(a, i64::checked_div_euclid, |x, y| x / y)),
    strict("mod", (2, 2), "mod 7 2", |a| arithmetic(a, i64::checked_rem_euclid, f64::rem_euclid)),
    strict("int", (1, 1), "int \"42\"", |a| match at(a, 0) {
        Value::String(word) => word.trim().parse::<i64>().map(Value::from).map_err(|_| format!("`{word}` is not a whole number")),
        other => integer(other).map(Value::from),
    }),
    strict("string", (1, 1), "string 42", |a| string(a, 0).map(Value::String)),
    strict("basename", (1, 1), "basename \"/a/b\"", |a| {
        let path = string(a, 0)?;
        Ok(Value::from(path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()))
    }),
    strict("dirname", (1, 1), "dirname \"/a/b\"", |a| {
        let path = string(a, 0)?;
        Ok(Value::from(match path.trim_end_matches('/').rsplit_once('/') {
            Some(("", _)) => "/",
            Some((head, _)) => head,
            None => ".",
        }))
    }),
    strict("b64encode", (1, 1), "b64encode text", |a| Ok(Value::String(base64::engine::general_purpose::STANDARD.encode(string(a, 0)?)))),
    strict("b64decode", (1, 1), "b64decode text", |a| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(string(a, 0)?).map_err(|_| "it is not base64".to_owned())?;
        String::from_utf8(bytes).map(Value::String).map_err(|_| "it is not base64 of text".to_owned())
    }),
    strict("sha256", (1, 1), "sha256 text", |a| Ok(Value::String(hex(&Sha256::digest(string(a, 0)?))))),
    strict("range", (1, 3), "range from to step (the last is included)", range),
    strict("len", (1, 1), "len value", |a| match at(a, 0) {
        Value::Array(items) => Ok(items.len().into()),
        Value::Object(map) => Ok(map.len().into()),
        Value::String(word) => Ok(word.chars().count().into()),
        other => Err(format!("{} has no length", sort(other))),
    }),
    keeping("keys", (1, 1), "keys mapping", |a| Ok(object(a, 0)?.keys().map(String::as_str).collect())),
    keeping("values", (1, 1), "values mapping", |a| Ok(object(a, 0)?.values().cloned().collect())),
    keeping("first", (1, 1), "first list", |a| list(a, 0)?.first().cloned().ok_or_else(|| "the list is empty".to_owned())),
    keeping("last", (1, 1), "last list", |a| list(a, 0)?.last().cloned().ok_or_else(|| "the list is empty".to_owned())),
    strict("sort", (1, 1), "sort list", |a| {
        let mut items = list(a, 0)?.to_vec();
        items.sort_by(order);
        Ok(items.into())
    }),
    strict("unique", (1, 1), "unique list", |a| {
        let mut out: Vec<Value> = Vec::new();
        for item in list(a, 0)? {
            if !out.contains(item) {
                out.push(item.clone());
            }
        }
        Ok(out.into())
    }),
    keeping("merge", (2, 2), "merge mapping mapping", |a| {
        let mut out = object(a, 0)?.clone();
        out.extend(object(a, 1)?.clone());
        Ok(out.into())
    }),
    keeping("secret", (1, 1), "secret \"name\"", |a| SecretName::parse(&string(a, 0)?).map(|name| Value::String(name.marker()))),
];

/// A function by name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

impl Function {
    /// Calls it.
    ///
    /// # Errors
    /// What is wrong with the arguments, in words.
    pub fn apply(&self, arguments: &[Option<&Value>]) -> Result<Value, String> {
        let (fewest, most) = self.arity;
        if arguments.len() < fewest || arguments.len() > most {
            return Err(format!("`{}` is written `{}`", self.name, self.usage));
        }
        if self.secrets == Secrets::Refuse && arguments.iter().flatten().any(|value| has_secret(value)) {
            return Err(format!("`{}` cannot be applied to a secret, whose value is known on the host only", self.name));
        }
        (self.call)(arguments).map_err(|message| format!("`{}`: {message}", self.name))
    }
}

/// Whether a secret's marker is anywhere in the value.
#[must_use]
pub fn has_secret(value: &Value) -> bool {
    match value {
        Value::String(text) => Text::is_marked(text),
        Value::Array(items) => items.iter().any(has_secret),
        Value::Object(map) => map.iter().any(|(key, value)| Text::is_marked(key) || has_secret(value)),
        _ => false,
    }
}

/// Handlebars' idea of truth: not false, 0, empty or null.
#[must_use]
pub fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// What sort of value it is, in words.
#[must_use]
pub fn sort(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn at<'a>(arguments: &[Option<&'a Value>], index: usize) -> &'a Value {
    arguments.get(index).copied().flatten().unwrap_or(&Value::Null)
}

/// Scalars as text.
///
/// # Errors
/// That it is not a scalar.
pub fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        other => Err(format!("{} is not text", sort(other))),
    }
}

fn string(arguments: &[Option<&Value>], index: usize) -> Result<String, String> {
    text(at(arguments, index))
}

fn integer(value: &Value) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("{} is not a whole number", sort(value)))
}

fn number(arguments: &[Option<&Value>], index: usize) -> Result<i64, String> {
    integer(at(arguments, index))
}

fn list<'a>(arguments: &[Option<&'a Value>], index: usize) -> Result<&'a [Value], String> {
    at(arguments, index).as_array().map(Vec::as_slice).ok_or_else(|| format!("{} is not a list", sort(at(arguments, index))))
}

fn object<'a>(arguments: &[Option<&'a Value>], index: usize) -> Result<&'a Map<String, Value>, String> {
    at(arguments, index).as_object().ok_or_else(|| format!("{} is not a mapping", sort(at(arguments, index))))
}

fn regex(pattern: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(pattern).size_limit(1 << 20).build().map_err(|_| format!("`{pattern}` is not a regular expression"))
}

/// Equal, where 1 and 1.0 are.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

fn compare(arguments: &[Option<&Value>]) -> Result<std::cmp::Ordering, String> {
    let (a, b) = (at(arguments, 0), at(arguments, 1));
    match (a, b) {
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_)) => Ok(order(a, b)),
        _ => Err(format!("{} and {} cannot be compared; `int` makes a number of text", sort(a), sort(b))),
    }
}

/// An order of all values: numbers by size, text by its characters with runs of digits by size
/// (`9` before `13`, as versions are meant).
fn order(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x.as_f64().partial_cmp(&y.as_f64()).unwrap_or(std::cmp::Ordering::Equal),
        (Value::String(x), Value::String(y)) => natural(x).cmp(&natural(y)).then_with(|| x.cmp(y)),
        _ => a.to_string().cmp(&b.to_string()),
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Piece {
    Number(u128),
    Word(String),
}

fn natural(text: &str) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digit = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(rest.len());
        let (piece, tail) = rest.split_at(end);
        out.push(match piece.parse() {
            Ok(number) if digit => Piece::Number(number),
            _ => Piece::Word(piece.to_owned()),
        });
        rest = tail;
    }
    out
}

fn lookup(arguments: &[Option<&Value>]) -> Result<Value, String> {
    let found = match at(arguments, 0) {
        Value::Array(items) => usize::try_from(number(arguments, 1)?).ok().and_then(|index| items.get(index)),
        Value::Object(map) => map.get(&string(arguments, 1)?),
        other => return Err(format!("{} has no entries", sort(other))),
    };
    found.cloned().ok_or_else(|| format!("there is no entry `{}`", string(arguments, 1).unwrap_or_default()))
}

fn concat(arguments: &[Option<&Value>]) -> Result<Value, String> {
    if arguments.iter().flatten().all(|value| value.is_array()) {
        return Ok(arguments.iter().flatten().filter_map(|value| value.as_array()).flatten().cloned().collect());
    }
    let parts: Result<String, String> = (0..arguments.len()).map(|index| string(arguments, index)).collect();
    parts.map(Value::String)
}

fn indent(text: &str, width: i64) -> Result<Value, String> {
    let width = usize::try_from(width).ok().filter(|&width| width <= 200).ok_or("the width must be from 0 to 200")?;
    // The first line stands where the template put it.
    Ok(Value::String(text.replace('\n', &format!("\n{}", " ".repeat(width)))))
}

fn arithmetic(arguments: &[Option<&Value>], whole: fn(i64, i64) -> Option<i64>, real: fn(f64, f64) -> f64) -> Result<Value, String> {
    let (a, b) = (at(arguments, 0), at(arguments, 1));
    if let (Some(x), Some(y)) = (a.as_i64(), b.as_i64()) {
        return whole(x, y).map(Value::from).ok_or_else(|| "the result is not a number".to_owned());
    }
    match (a.as_f64(), b.as_f64()) {
        (Some(x), Some(y)) => {
            serde_json::Number::from_f64(real(x, y)).map(Value::Number).ok_or_else(|| "the result is not a number".to_owned())
        }
        _ => Err(format!("{} and {} are not two numbers; `int` makes a number of text", sort(a), sort(b))),
    }
}

fn range(arguments: &[Option<&Value>]) -> Result<Value, String> {
    let (from, to) = if arguments.len() == 1 { (1, number(arguments, 0)?) } else { (number(arguments, 0)?, number(arguments, 1)?) };
    let step = if arguments.len() == 3 { number(arguments, 2)? } else { 1 };
    let step = usize::try_from(step).ok().filter(|&step| step > 0).ok_or("the step must be 1 or more")?;
    if to.saturating_sub(from) > 100_000 {
        return Err("more than 100000 numbers".to_owned());
    }
    Ok((from..=to).step_by(step).map(Value::from).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
        let arguments: Vec<Option<&Value>> = arguments.iter().map(Some).collect();
        find(name).unwrap().apply(&arguments)
    }

    #[test]
    fn functions_compute() {
        for (name, arguments, expected) in [
            ("eq", vec![json!(1), json!(1.0)], json!(true)),
            ("gt", vec![json!("24.10"), json!("24.4")], json!(true)),
            ("join", vec![json!(["a", 1]), json!("-")], json!("a-1")),
            ("indent", vec![json!("a\nb"), json!(2)], json!("a\n  b")),
            ("regex_replace", vec![json!("a1b2"), json!("[0-9]"), json!("x")], json!("axbx")),
            ("split", vec![json!("a,b"), json!(",")], json!(["a", "b"])),
            ("div", vec![json!(7), json!(2)], json!(3)),
            ("mod", vec![json!(-1), json!(5)], json!(4)),
            ("dirname", vec![json!("/a/b/")], json!("/a")),
            ("b64encode", vec![json!("hi")], json!("aGk=")),
            ("quote", vec![json!("a b")], json!("'a b'")),
            ("range", vec![json!(1), json!(3)], json!([1, 2, 3])),
            ("sort", vec![json!(["b10", "b9", "a"])], json!(["a", "b9", "b10"])),
            ("unique", vec![json!([1, 2, 1])], json!([1, 2])),
            ("concat", vec![json!([1]), json!([2])], json!([1, 2])),
            ("concat", vec![json!("a"), json!(1)], json!("a1")),
            ("lookup", vec![json!({"a": 1}), json!("a")], json!(1)),
            ("contains", vec![json!(["a"]), json!("a")], json!(true)),
            ("merge", vec![json!({"a": 1}), json!({"b": 2})], json!({"a": 1, "b": 2})),
        ] {
            assert_eq!(call(name, &arguments), Ok(expected), "{name} {arguments:?}");
        }
    }

    #[test]
    fn misuse_is_explained() {
        assert!(call("div", &[json!(1), json!(0)]).is_err());
        assert!(call("gt", &[json!("1"), json!(1)]).unwrap_err().contains("`int`"));
        assert!(call("first", &[json!([])]).is_err());
        assert!(call("eq", &[json!(1)]).unwrap_err().contains("eq a b"));
        let secret = call("secret", &[json!("db")]).unwrap();
        assert!(call("upper", std::slice::from_ref(&secret)).unwrap_err().contains("secret"));
        assert!(call("b64encode", &[json!("x"), secret]).is_err());
    }
}
