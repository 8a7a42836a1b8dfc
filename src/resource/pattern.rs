//! Patterns in which `*` stands for anything: versions of packages, accepted findings, resources of controls.

/// Whether a text fits a pattern, from its first letter to its last.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_is_anything() {
        for (pattern, text, wanted) in [
            ("1.2", "1.2", true),
            ("1.2", "1.2.1", false),
            ("1.2*", "1.2.1-3", true),
            ("1.*-3", "1.2.1-3", true),
            ("1.*-3", "1.2-4", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, text), wanted, "{pattern} {text}");
        }
    }
}
