//! `--tags` and `--skip-tags`, by Ansible's rules.

/// Whether a task with these tags runs.
pub(super) fn selected(tags: &[String], only: &[String], skip: &[String]) -> bool {
    let has = |list: &[String], name: &str| list.iter().any(|tag| tag == name);
    let tagged = !tags.is_empty();
    let common = |list: &[String]| list.iter().any(|tag| has(tags, tag));
    let never = has(tags, "never");
    let run = if only.is_empty() || has(only, "all") {
        !never || common(only)
    } else {
        has(tags, "always") || common(only) || (has(only, "tagged") && tagged && !never) || (has(only, "untagged") && !tagged)
    };
    let skipped = if has(skip, "all") {
        !has(tags, "always") || has(skip, "always")
    } else {
        common(skip) || (has(skip, "tagged") && tagged) || (has(skip, "untagged") && !tagged)
    };
    run && !skipped
}

#[cfg(test)]
mod tests {
    use super::selected;

    #[test]
    fn ansibles_rules() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (tags, only, skip, expected) in [
            ("", "", "", true),
            ("a", "", "", true),
            ("a", "b", "", false),
            ("a b", "b", "", true),
            ("always", "b", "", true),
            ("always", "b", "always", false),
            ("never", "", "", false),
            ("never a", "a", "", true),
            ("never a", "all", "", false),
            ("", "tagged", "", false),
            ("a", "tagged", "", true),
            ("", "untagged", "", true),
            ("a", "", "a", false),
            ("", "", "untagged", false),
        ] {
            assert_eq!(selected(&list(tags), &list(only), &list(skip)), expected, "{tags:?} {only:?} {skip:?}");
        }
    }
}
