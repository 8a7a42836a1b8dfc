//! Secrets in clear: what a text file of the repository holds that looks like one.
//!
//! Rules that are sure (private keys, cloud keys, `ansible-vault` blocks, passwords in URLs) and
//! one that weighs (assignments to something called password, token, secret or key). Findings name
//! the place and never the value. `allow.yml` in the secrets' directory lists what is meant to be
//! there, each with a reason. Which files are looked at is the caller's choice.

use globset::GlobMatcher;

/// One place that looks like a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// From 1.
    pub line: usize,
    /// Which rule found it.
    pub rule: Rule,
    /// What it is, without the value.
    pub what: String,
}

/// What makes a place look like a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    PrivateKey,
    CloudKey,
    AnsibleVault,
    UrlPassword,
    Assignment,
}

/// An exception: a place that looks like a secret and is meant to be there.
#[derive(Clone, Debug)]
pub struct Allow {
    path: GlobMatcher,
    /// The pattern as written.
    pub pattern: String,
    rule: Option<Rule>,
    contains: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowEntry {
    path: String,
    rule: Option<Rule>,
    contains: Option<String>,
    reason: String,
}

impl Allow {
    /// Reads a list of `{path: GLOB, rule: RULE, contains: TEXT, reason: TEXT}`.
    ///
    /// # Errors
    /// What is wrong with it; an entry without a reason is.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        let entries: Option<Vec<AllowEntry>> = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        let one = |entry: AllowEntry| {
            if entry.reason.trim().len() < 8 {
                return Err(format!("the exception for `{}` gives no reason: say why it is no secret", entry.path));
            }
            let glob = globset::GlobBuilder::new(&entry.path).literal_separator(true).build().map_err(|error| error.to_string())?;
            Ok(Self { path: glob.compile_matcher(), pattern: entry.path, rule: entry.rule, contains: entry.contains })
        };
        entries.unwrap_or_default().into_iter().map(one).collect()
    }

    /// Whether the exception is for this leak.
    #[must_use]
    pub fn covers(&self, path: &str, leak: &Leak, line: &str) -> bool {
        self.path.is_match(path)
            && self.rule.is_none_or(|rule| rule == leak.rule)
            && self.contains.as_ref().is_none_or(|text| line.contains(text.as_str()))
    }
}

/// Everything in a text that looks like a secret; one finding a line.
#[must_use]
pub fn scan(path: &str, text: &str) -> Vec<Leak> {
    let bare = bare_values(path);
    let lines: Vec<&str> = text.lines().collect();
    let mut leaks = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let next = lines.get(index + 1).map_or("", |next| next.trim());
        let found = private_key(line, next)
            .or_else(|| cloud_key(line))
            .or_else(|| ansible_vault(line))
            .or_else(|| url_password(line))
            .or_else(|| assignment(line, bare));
        leaks.extend(found.map(|(rule, what)| Leak { line: index + 1, rule, what }));
    }
    leaks
}

/// Whether values without quotes count: in configuration they do, in program code they are names.
fn bare_values(path: &str) -> bool {
    const CODE: &[&str] = &["rs", "py", "js", "ts", "tsx", "jsx", "go", "c", "h", "cpp", "java", "rb", "php", "lua", "zeek"];
    !CODE.contains(&path.rsplit_once('.').map_or("", |(_, extension)| extension))
}

type Found = Option<(Rule, String)>;

fn private_key(line: &str, next: &str) -> Found {
    let line = line.trim().trim_matches(['"', '\'', ',']);
    if let Some(at) = line.find("AGE-SECRET-KEY-1") {
        let digits = line[at + 16..].chars().take_while(char::is_ascii_alphanumeric).count();
        return (digits >= 50).then(|| (Rule::PrivateKey, "an age private key".to_owned()));
    }
    let begins = line.find("-----BEGIN ").is_some_and(|at| line[at..].contains("PRIVATE KEY"));
    // The words alone stand in documentation and program code; the key's first line does not.
    let base64 = |text: &str| text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    let body = base64(next)
        || next.starts_with("Proc-Type:")
        || next.starts_with("Version:")
        || line.contains("\\nMII")
        || line.contains("\\nb3Bl");
    (begins && body).then(|| (Rule::PrivateKey, "a private key".to_owned()))
}

fn cloud_key(line: &str) -> Found {
    for prefix in ["AKIA", "ASIA"] {
        for (at, _) in line.match_indices(prefix) {
            let starts = !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric());
            let id: String = line[at..].chars().take_while(char::is_ascii_alphanumeric).collect();
            let well = id.len() == 20 && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
            if starts && well && !id.contains("EXAMPLE") {
                return Some((Rule::CloudKey, "an AWS access key".to_owned()));
            }
        }
    }
    None
}

fn ansible_vault(line: &str) -> Found {
    let what = "an `ansible-vault` block, which soc-provision cannot open: decrypt it with `ansible-vault view` and store it with `soc-provision secrets set`";
    line.trim().starts_with("$ANSIBLE_VAULT;").then(|| (Rule::AnsibleVault, what.to_owned()))
}

fn url_password(line: &str) -> Found {
    for (at, _) in line.match_indices("://") {
        let end = |c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '`' | '>' | '?' | '#');
        let authority = line[at + 3..].split(end).next().unwrap_or_default();
        let Some((user, host)) = authority.rsplit_once('@') else { continue };
        let Some((_, password)) = user.split_once(':') else { continue };
        let placeholder = password.starts_with(['$', '{', '<', '[', '*', '%']) || password.len() < 3 || is_placeholder(password);
        if !placeholder && !host.is_empty() {
            return Some((Rule::UrlPassword, "a password in a URL".to_owned()));
        }
    }
    None
}

/// Names that a person chose for a password: any value that could be one counts.
const PASSWORDS: &[&str] = &["password", "passwd", "passphrase", "pwd"];
/// Names that often stand for something public too: only values that look random count.
const OTHERS: &[&str] = &[
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "secretkey",
    "encryptionkey",
    "authkey",
    "authd.pass",
    "key",
    "credential",
    "credentials",
];

/// Defaults that attackers try first; they are no secrets, which is the trouble with them.
const DEFAULTS: &[&str] = &[
    "changeme",
    "admin",
    "password",
    "secret",
    "minioadmin",
    "cassandra",
    "elastic",
    "wazuh",
    "postgres",
    "grafana",
    "kibana",
    "letmein",
    "default",
];

fn assignment(line: &str, bare: bool) -> Found {
    let name_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    for (at, c) in line.char_indices().filter(|(_, c)| matches!(c, ':' | '=' | '>')) {
        let left = line[..at].trim_end_matches(['"', '\'', ' ', ':', ']']);
        let start = left.rfind(|c: char| !name_char(c)).map_or(0, |index| index + left[index..].chars().next().map_or(1, char::len_utf8));
        let name = &left[start..];
        if c == '>' && !left[..start].ends_with('<') {
            continue;
        }
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        let plain = plain.trim_end_matches(|c: char| c.is_ascii_digit());
        let strong = PASSWORDS.iter().any(|word| plain.ends_with(word));
        if !strong && !OTHERS.iter().any(|word| plain.ends_with(word)) {
            continue;
        }
        let rest = &line[at + c.len_utf8()..];
        if left[..start].ends_with('$') || left[..start].ends_with("${") {
            // `${NAME:-default}`: the default is in clear.
            let default = rest.strip_prefix('-').and_then(|rest| rest.split('}').next());
            if default.is_some_and(|default| looks_secret(default, strong)) {
                return Some((Rule::Assignment, format!("a default of `{name}`")));
            }
            continue;
        }
        let Some(value) = value(rest.trim_start_matches(['=', '>', ' ', '\t']), c, bare) else { continue };
        if looks_secret(&value, strong) {
            return Some((Rule::Assignment, format!("a value of `{name}`")));
        }
    }
    None
}

/// The literal after an assignment; `None` where it is an expression, a reference or prose.
fn value(rest: &str, after: char, bare: bool) -> Option<String> {
    if after == '>' {
        return rest.split_once('<').map(|(value, _)| value.trim().to_owned());
    }
    if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        return rest[1..].split_once(quote).map(|(value, _)| value.to_owned());
    }
    if !bare {
        return None;
    }
    let value = rest.split(" #").next().unwrap_or_default().trim().trim_end_matches([',', ';', '"', '\'', '`']);
    (!value.contains([' ', '(', '`'])).then(|| value.to_owned())
}

fn looks_secret(value: &str, strong: bool) -> bool {
    if strong && DEFAULTS.contains(&value.to_lowercase().as_str()) {
        return true;
    }
    let reference = value.starts_with(['$', '<', '%', '!', '&', '*', '[', '{', '(', '|', '>', '/', '~', '.', '@', '-'])
        || ["{{", "${", "$(", "://", "{}", "::"].iter().any(|mark| value.contains(mark));
    // Pass phrases have a few blanks, prose and tables have more.
    let prose = value.matches(' ').count() > 5;
    if reference || prose || is_placeholder(value) || value.starts_with("age1") || value.starts_with("ssh-") {
        return false;
    }
    let has = |class: fn(&char) -> bool| usize::from(value.chars().any(|c| class(&c)));
    let classes = has(char::is_ascii_lowercase)
        + has(char::is_ascii_uppercase)
        + has(char::is_ascii_digit)
        + has(|c| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-' | '.' | '/'));
    let name_like = value.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '_' | '-' | '.' | '/' | ' '));
    if strong {
        return value.chars().count() >= 6 && !name_like && classes >= 2 && entropy(value) >= 2.3;
    }
    let dense = !value.contains(' ') && value.chars().count() >= 16 && entropy(value) >= 3.2;
    let mixed = classes >= 3 || (value.len() >= 24 && !value.contains('_'));
    dense && mixed && has(char::is_ascii_digit) == 1
}

/// Words that stand where a secret belongs.
fn is_placeholder(value: &str) -> bool {
    let lower = value.to_lowercase();
    let words = ["example", "placeholder", "redacted", "your-", "your_", "xxxx", "****", "..."];
    let whole = ["password", "passwd", "pass", "pwd", "secret", "token", "true", "false", "null", "none", "string", "required", "optional"];
    words.iter().any(|word| lower.contains(word)) || whole.contains(&lower.as_str()) || lower.is_empty()
}

/// Shannon entropy in bits a character.
fn entropy(value: &str) -> f64 {
    let mut counts = std::collections::BTreeMap::<char, u32>::new();
    value.chars().for_each(|c| *counts.entry(c).or_default() += 1);
    let total = f64::from(counts.values().sum::<u32>().max(1));
    counts.values().map(|&count| f64::from(count) / total).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<Rule> {
        scan(path, text).into_iter().map(|leak| leak.rule).collect()
    }

    #[test]
    fn real_ones_are_found() {
        for line in [
            "  INDEXER_PASSWORD: SecretPassword1",
            "OPENSEARCH_INITIAL_ADMIN_PASSWORD=Admin123!@#",
            "password = \"hunter2-and-more\"",
            "      - GF_SECURITY_ADMIN_PASSWORD=admin123",
            "MINIO_ROOT_PASSWORD: minioadmin",
            "play.http.secret.key = \"k3Fq9ZpLw2XvT7bNs8RdYh4JmC6uGeAa\"",
            "\"api_key\": \"9f8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d\",",
            "auth_token: ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "<password>S3cr3tKey!</password>",
            "      INDEXER_PASSWORD: ${INDEXER_PASSWORD:-Admin123!@#}",
            "{\"user\": \"x\", \"password\": \"Tr0ub4dor\"}",
        ] {
            assert_eq!(rules("a.yml", line), [Rule::Assignment], "{line}");
        }
        assert_eq!(rules("a.yml", "url: postgres://app:Tr0ub4dor@db:5432/x"), [Rule::UrlPassword]);
        assert_eq!(rules("a.yml", &format!("k: {}{}", "AKIA", "Q3EGRUQWXQ2J7YVH")), [Rule::CloudKey]);
        assert_eq!(rules("a.yml", &format!("  {};1.1;AES256\n  6162", "$ANSIBLE_VAULT")), [Rule::AnsibleVault]);
        let pem = format!("{} OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n", "-----BEGIN");
        assert_eq!(rules("id", &pem), [Rule::PrivateKey]);
        let age = format!("{}{}", "AGE-SECRET-KEY-1", "Q".repeat(58));
        assert_eq!(rules("identity.txt", &age), [Rule::PrivateKey]);
    }

    #[test]
    fn what_is_none_is_left_alone() {
        for line in [
            "password: \"{{ secret 'db' }}\"",
            "POSTGRES_PASSWORD=${DB_PASSWORD:?unset}",
            "POSTGRES_PASSWORD_FILE: /run/secrets/db_password",
            "password: /run/secrets/db",
            "secret: {name: db_password, path: /x}",
            "secret: db_password",
            "secret: waf/admin2_password",
            "public_key: age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq7",
            "The password: it is read from the terminal, twice",
            "password: <your-password>",
            "passwd = \"root 0 /bin/bash, ops 1000 /bin/bash, eve 1005 /bin/sh\"",
            "key: value",
            "sort_key: created_at",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "see https://example.com/a:b@c",
            "password_min_length: 12345678",
        ] {
            assert_eq!(rules("a.yml", line), [], "{line}");
        }
        assert_eq!(rules("a.rs", "let password = read_password2(Hidden)?;"), []);
        assert_eq!(rules("a.rs", "let password = \"Hunter2!value\";"), [Rule::Assignment]);
    }

    #[test]
    fn exceptions_need_a_reason_and_cover_only_what_they_name() {
        assert!(Allow::parse("- {path: x, reason: ''}").is_err());
        let allow = Allow::parse("- {path: 'tests/**', rule: assignment, contains: Hunter, reason: made up for a test}").unwrap();
        let leak = |rule| Leak { line: 1, rule, what: String::new() };
        assert!(allow[0].covers("tests/a/b.yml", &leak(Rule::Assignment), "password: Hunter2x"));
        assert!(!allow[0].covers("tests/a/b.yml", &leak(Rule::PrivateKey), "password: Hunter2x"));
        assert!(!allow[0].covers("tests/a/b.yml", &leak(Rule::Assignment), "password: Other2x"));
        assert!(!allow[0].covers("src/b.yml", &leak(Rule::Assignment), "password: Hunter2x"));
    }
}
