//! What of Jinja has no counterpart here, and what to do instead.

use super::jinja::{Token, tokens};

/// Filters, tests and lookups of Jinja's that have no counterpart, and what to do instead.
const WITHOUT: &[(&str, &str)] = &[
    ("dict2items", "`with_dict` loops over a mapping: `item.key`, `item.value`"),
    ("items2dict", "write the mapping in a variable"),
    ("subelements", "use `include_tasks` in a loop"),
    ("selectattr", "put a `when` into the loop, or the list into a variable"),
    ("rejectattr", "put a `when` into the loop, or the list into a variable"),
    ("select", "put a `when` into the loop, or the list into a variable"),
    ("reject", "put a `when` into the loop, or the list into a variable"),
    ("map", "put the list into a variable; in templates `{{#each list}}{{this.name}}{{/each}}`"),
    ("flatten", "`with_items` opens lists within the list"),
    ("zip", "write one list of mappings"),
    ("product", "use `include_tasks` in a loop"),
    ("difference", "write the list in a variable; `contains list item` asks"),
    ("intersect", "write the list in a variable; `contains list item` asks"),
    ("union", "write the list in a variable"),
    ("regex_search", "`matches text pattern` asks, `regex_replace text pattern new` takes a part"),
    ("regex_findall", "write the list in a variable"),
    ("from_json", "put the values into a file of variables (`vars_files`, `include_vars`)"),
    ("from_yaml", "put the values into a file of variables (`vars_files`, `include_vars`)"),
    ("password_hash", "make the hash once and keep it: `soc-provision secrets set NAME`"),
    ("vault", "`soc-provision secrets set NAME`, then `secret \"NAME\"`"),
    ("random", "a plan must not depend on chance"),
    ("shuffle", "a plan must not depend on chance"),
    ("strftime", "a plan must not depend on the time of day: pass it with `-e`"),
    ("to_datetime", "a plan must not depend on the time of day: pass it with `-e`"),
    ("ipaddr", "write the address in a variable"),
    ("version", "compare numbers: `gte (int ansible_distribution_major_version) 12`"),
    ("version_compare", "compare numbers: `gte (int ansible_distribution_major_version) 12`"),
    (
        "lookup",
        "`copy` and `template` read files (`src`); a value of the environment comes with `-e NAME=\"$NAME\"`; a password is a secret",
    ),
    ("query", "write the list in a variable"),
    ("now", "a plan must not depend on the time of day: pass it with `-e`"),
    ("failed", "no task can look at another's result: use `creates`, `unless` or `onlyif`, or `block` and `rescue`"),
    ("succeeded", "no task can look at another's result: use `creates`, `unless` or `onlyif`, or `block` and `rescue`"),
    ("success", "no task can look at another's result: use `creates`, `unless` or `onlyif`, or `block` and `rescue`"),
    ("changed", "no task can look at another's result: `notify` a handler"),
    ("skipped", "no task can look at another's result: write the condition again"),
];

/// What to do instead of a filter, test or lookup that has no counterpart here, if the text has one.
#[must_use]
pub(super) fn without_counterpart(text: &str) -> Option<&'static str> {
    let tokens = tokens(text)?;
    let name = |index: usize| match tokens.get(index) {
        Some(Token::Name(name)) => Some(name.as_str()),
        _ => None,
    };
    tokens.iter().enumerate().find_map(|(index, token)| {
        let word = match token {
            Token::Mark("|") => name(index + 1)?,
            Token::Name(is) if is == "is" && index > 0 => name(index + 1).filter(|word| *word != "not").or_else(|| name(index + 2))?,
            Token::Name(call) if tokens.get(index + 1) == Some(&Token::Mark("(")) => call,
            _ => return None,
        };
        WITHOUT.iter().find(|(known, _)| *known == word).map(|(_, hint)| *hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_counterpart_has_advice() {
        for (text, expected) in [
            ("users | dict2items", "with_dict"),
            ("x is version('12', '>=')", "gte (int"),
            ("result is not failed", "rescue"),
            ("lookup('env', 'HOME')", "-e NAME"),
            ("a | selectattr('b') | list", "when"),
        ] {
            assert!(without_counterpart(text).is_some_and(|hint| hint.contains(expected)), "{text}");
        }
        assert_eq!(without_counterpart("lookup m k"), None);
        assert_eq!(without_counterpart("a | upper"), None);
    }
}
