//! An example for each function, for the reference; a test evaluates all of them.

use super::helpers::FUNCTIONS;

/// What a function does, shown.
pub struct Example {
    pub name: &'static str,
    /// Without the braces.
    pub expression: &'static str,
    /// As JSON.
    pub result: &'static str,
}

const fn example(name: &'static str, expression: &'static str, result: &'static str) -> Example {
    Example { name, expression, result }
}

/// One for each function, in any order. Variables: see the test.
pub const EXAMPLES: &[Example] = &[
    example("eq", "eq env \"prod\"", "true"),
    example("ne", "ne env \"prod\"", "false"),
    example("gt", "gt workers 3", "true"),
    example("gte", "gte workers 4", "true"),
    example("lt", "lt workers 4", "false"),
    example("lte", "lte workers 4", "true"),
    example("and", "and (eq env \"prod\") (gt workers 9)", "false"),
    example("or", "or (eq env \"prod\") (gt workers 9)", "true"),
    example("not", "not (eq env \"prod\")", "false"),
    example("default", "default proxy \"none\"", "\"none\""),
    example("defined", "defined proxy", "false"),
    example("ternary", "ternary (eq env \"prod\") \"warn\" \"debug\"", "\"warn\""),
    example("lookup", "lookup ports \"syslog\"", "514"),
    example("concat", "concat env \"-\" workers", "\"prod-4\""),
    example("join", "join servers \", \"", "\"ntp1, ntp2\""),
    example("to_json", "to_json ports", "\"{\\\"syslog\\\":514}\""),
    example("to_nice_json", "to_nice_json servers", "\"[\\n  \\\"ntp1\\\",\\n  \\\"ntp2\\\"\\n]\""),
    example("to_yaml", "to_yaml ports", "\"syslog: 514\""),
    example("indent", "indent \"a\\nb\" 2", "\"a\\n  b\""),
    example("quote", "quote \"it's\"", "\"'it'\\\\''s'\""),
    example("upper", "upper env", "\"PROD\""),
    example("lower", "lower \"WEB\"", "\"web\""),
    example("trim", "trim \"  x \"", "\"x\""),
    example("replace", "replace \"a.b.c\" \".\" \"_\"", "\"a_b_c\""),
    example("regex_replace", "regex_replace \"web01\" \"[0-9]+\" \"N\"", "\"webN\""),
    example("matches", "matches \"web01\" \"^web\"", "true"),
    example("split", "split \"a,b\" \",\"", "[\"a\",\"b\"]"),
    example("contains", "contains servers \"ntp1\"", "true"),
    example("starts_with", "starts_with \"web01\" \"web\"", "true"),
    example("ends_with", "ends_with \"web01\" \"02\"", "false"),
    example("add", "add workers 1", "5"),
    example("sub", "sub workers 1", "3"),
    example("mul", "mul workers 2", "8"),
    example("div", "div 7 2", "3"),
    example("mod", "mod 7 2", "1"),
    example("int", "int \"42\"", "42"),
    example("string", "string 42", "\"42\""),
    example("basename", "basename \"/etc/ntp.conf\"", "\"ntp.conf\""),
    example("dirname", "dirname \"/etc/ntp.conf\"", "\"/etc\""),
    example("b64encode", "b64encode \"hi\"", "\"aGk=\""),
    example("b64decode", "b64decode \"aGk=\"", "\"hi\""),
    example("sha256", "sha256 \"\"", "\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\""),
    example("range", "range 1 3", "[1,2,3]"),
    example("len", "len servers", "2"),
    example("keys", "keys ports", "[\"syslog\"]"),
    example("values", "values ports", "[514]"),
    example("first", "first servers", "\"ntp1\""),
    example("last", "last servers", "\"ntp2\""),
    example("sort", "sort (split \"b,a\" \",\")", "[\"a\",\"b\"]"),
    example("unique", "unique (split \"a,b,a\" \",\")", "[\"a\",\"b\"]"),
    example("merge", "to_json (merge ports ports)", "\"{\\\"syslog\\\":514}\""),
    example("secret", "secret \"db_password\"", "the secret's value, on the host only"),
];

/// Every function's usage with its example, in the order of the functions.
pub fn for_all() -> impl Iterator<Item = (&'static str, &'static Example)> {
    FUNCTIONS.iter().filter_map(|function| find(function.name))
}

/// A function's usage with its example.
#[must_use]
pub fn find(name: &str) -> Option<(&'static str, &'static Example)> {
    let function = super::helpers::find(name)?;
    EXAMPLES.iter().find(|example| example.name == name).map(|example| (function.usage, example))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::resolve::template::{self, Compiled, Names, Trouble, Undefined};

    struct Fixed(Value);

    impl Names for Fixed {
        fn value(&self, name: &str) -> Result<Option<Arc<Value>>, Undefined> {
            Ok(self.0.get(name).map(|value| Arc::new(value.clone())))
        }

        fn hostvars(&self, _: Option<&str>, _: Option<&str>) -> Value {
            Value::Null
        }

        fn partial(&self, _: &str) -> Result<Arc<Compiled>, Trouble> {
            panic!("no partials here")
        }

        fn known(&self) -> Vec<String> {
            Vec::new()
        }
    }

    #[test]
    fn every_function_has_an_example_that_is_right() {
        let names = Fixed(json!({"env": "prod", "workers": 4, "servers": ["ntp1", "ntp2"], "ports": {"syslog": 514}}));
        for function in FUNCTIONS {
            let (_, example) = find(function.name).unwrap_or_else(|| panic!("`{}` has no example", function.name));
            if function.name == "secret" {
                continue;
            }
            let compiled = template::compile(&format!("{{{{{}}}}}", example.expression)).unwrap_or_else(|trouble| panic!("{trouble:?}"));
            let value = template::value(&compiled, &names).unwrap_or_else(|trouble| panic!("{}: {trouble:?}", example.expression));
            assert_eq!(value.to_string(), example.result, "{}", example.expression);
        }
        assert_eq!(EXAMPLES.len(), FUNCTIONS.len());
    }
}
