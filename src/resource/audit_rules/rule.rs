//! Rules of the audit system: checked as users write them, and brought into one form so that they
//! can be found in what `auditctl -l` prints.

use std::collections::BTreeSet;

/// A watch on a file or a directory with all below it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Watch {
    /// Absolute.
    pub(super) path: String,
    /// Of `rwxa`: read, write, execute, attributes.
    #[serde(default = "all_permissions")]
    pub(super) permissions: String,
    /// Finds the records again with `ausearch -k`.
    pub(super) key: Option<String>,
}

pub(super) fn all_permissions() -> String {
    "rwxa".to_owned()
}

/// Longest key that the kernel takes, less its separators (`AUDIT_MAX_KEY_LEN` is 256; auditctl's
/// own limit for one key is 31, auditctl(8)).
const MAX_KEY: usize = 31;

impl Watch {
    /// Checks a watch.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(super) fn check(&self) -> Result<(), String> {
        let path = &self.path;
        let plain = path.chars().all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '\'' | '*' | '?'));
        if !path.starts_with('/') || path.len() < 2 || path.ends_with('/') || path.contains("/../") || !plain {
            return Err(format!(
                "`{}` cannot be watched: give an absolute path without wildcards, white space or a final `/`",
                path.escape_debug()
            ));
        }
        let letters: BTreeSet<char> = self.permissions.chars().collect();
        if letters.is_empty() || letters.len() != self.permissions.len() || !letters.iter().all(|c| "rwxa".contains(*c)) {
            return Err(format!("`{}` are not permissions: use letters of `rwxa`, each once", self.permissions.escape_debug()));
        }
        self.key.as_deref().map_or(Ok(()), check_key)
    }

    /// As a line of a rule file.
    pub(super) fn line(&self, default_key: &str) -> String {
        format!("-w {} -p {} -k {}", self.path, self.permissions, self.key.as_deref().unwrap_or(default_key))
    }
}

/// Checks a key.
///
/// # Errors
/// A sentence for the user.
pub(super) fn check_key(key: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if key.is_empty() || key.len() > MAX_KEY || !key.chars().all(fine) {
        return Err(format!("`{}` is not a key: use up to {MAX_KEY} letters, digits, `_`, `-`, `.`", key.escape_debug()));
    }
    Ok(())
}

/// Checks a rule that is written out.
///
/// # Errors
/// A sentence for the user.
pub(super) fn check_line(line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split(' ').collect();
    if line.contains(|c: char| c.is_control() || c == '#') || !matches!(words.first(), Some(&"-a" | &"-A" | &"-w")) {
        return Err(format!(
            "`{}` is not a rule: it begins with `-a` or `-w`; options that change the audit system as a whole have no place here",
            line.escape_debug()
        ));
    }
    let mut rest = words.iter().skip(1).step_by(2).zip(words.iter().skip(2).step_by(2));
    if let Some((_, option)) = rest.find(|(_, option)| !matches!(**option, "-F" | "-C" | "-S" | "-k" | "-p")) {
        return Err(format!("`{}` is not an option of a rule in `{line}`", option.escape_debug()));
    }
    if words.len() % 2 == 1 {
        return Err(format!("`{line}` ends in an option without a value"));
    }
    Ok(())
}

/// A rule as a set of conditions, equal for all spellings of the same rule.
pub(super) fn normal(line: &str) -> BTreeSet<String> {
    let mut conditions = BTreeSet::new();
    let mut words = line.split_whitespace();
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        match option {
            "-a" | "-A" => {
                let mut parts: Vec<&str> = value.split(',').collect();
                parts.sort_unstable();
                conditions.insert(parts.join(","));
            }
            "-w" => {
                conditions.insert("always,exit".to_owned());
                conditions.insert(format!("path={}", value.trim_end_matches('/')));
            }
            "-p" => {
                conditions.insert(permissions(value));
            }
            "-k" => {
                conditions.insert(format!("key={value}"));
            }
            "-S" => conditions.extend(value.split(',').filter(|name| *name != "all").map(|name| format!("-S {name}"))),
            "-F" => {
                conditions.insert(field(value));
            }
            other => {
                conditions.insert(format!("{other} {value}"));
            }
        }
    }
    conditions
}

fn permissions(letters: &str) -> String {
    let sorted: BTreeSet<char> = letters.chars().collect();
    format!("perm={}", sorted.into_iter().collect::<String>())
}

fn field(condition: &str) -> String {
    if let Some(letters) = condition.strip_prefix("perm=") {
        return permissions(letters);
    }
    let condition =
        condition.strip_prefix("dir=").map_or_else(|| condition.to_owned(), |path| format!("path={}", path.trim_end_matches('/')));
    // The kernel's "no login" is listed as `-1` or `unset`, and written as either or as a number.
    ["=-1", "=4294967295"].iter().find_map(|end| condition.strip_suffix(end)).map_or(condition.clone(), |start| format!("{start}=unset"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_rule_are_equal() {
        for (one, other) in [
            ("-w /etc/docker -p rwxa -k docker", "-a exit,always -F dir=/etc/docker/ -F perm=axwr -F key=docker"),
            (
                "-a always,exit -F arch=b64 -S adjtimex -S settimeofday -k time",
                "-a always,exit -F arch=b64 -S adjtimex,settimeofday -F key=time",
            ),
            ("-a always,exit -F auid!=4294967295 -k x", "-a always,exit -S all -F auid!=-1 -F key=x"),
        ] {
            assert_eq!(normal(one), normal(other));
        }
        assert_ne!(normal("-w /a -p r -k x"), normal("-w /a -p rw -k x"));
    }

    #[test]
    fn mistakes_are_refused() {
        let watch = |path: &str, permissions: &str| Watch { path: path.into(), permissions: permissions.into(), key: None };
        assert!(watch("/etc/docker", "wa").check().is_ok());
        for (path, permissions) in
            [("etc", "r"), ("/a b", "r"), ("/etc/", "r"), ("/etc/*", "r"), ("/x\n-D", "r"), ("/x", "rr"), ("/x", "q"), ("/x", "")]
        {
            assert!(watch(path, permissions).check().is_err(), "{path} {permissions}");
        }
        assert!(check_line("-a always,exit -F arch=b64 -S mount -k mounts").is_ok());
        for line in ["-D", "-e 2", "-a always,exit -D x", "-a always,exit -S", "-w /x -p r\n-D", "-a always,exit -e 0"] {
            assert!(check_line(line).is_err(), "{line}");
        }
    }
}
