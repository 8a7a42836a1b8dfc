//! Names of hosts: ranges in the inventory (`web[01:10]`) and patterns (`web:&prod:!web3`).

use globset::GlobBuilder;

/// Most hosts that one range may stand for.
const MAX_RANGE: usize = 100_000;

/// The hosts that a name with ranges stands for: `web[01:03:2].x` is `web01.x`, `web03.x`.
///
/// # Errors
/// A sentence about the range.
pub fn expand(name: &str) -> Result<Vec<String>, String> {
    let Some(open) = name.find('[') else { return Ok(vec![name.to_owned()]) };
    let Some(length) = name[open..].find(']') else { return Err(format!("`{name}` has a `[` without `]`")) };
    let (head, range, tail) = (&name[..open], &name[open + 1..open + length], &name[open + length + 1..]);
    if !range.contains(':') {
        // An IPv6 address in brackets, or nonsense; addresses have colons, so it is the latter.
        return Err(format!("`[{range}]` in `{name}` is not a range: write `[1:5]` or `[a:e]`"));
    }
    let rest = expand(tail)?;
    let items = range_items(range)
        .ok_or_else(|| format!("`[{range}]` in `{name}` is not a range: write `[1:5]`, `[01:10]`, `[1:9:2]` or `[a:e]`"))?;
    if items.len().saturating_mul(rest.len()) > MAX_RANGE {
        return Err(format!("`{name}` stands for more than {MAX_RANGE} hosts"));
    }
    Ok(items.iter().flat_map(|item| rest.iter().map(move |tail| format!("{head}{item}{tail}"))).collect())
}

fn range_items(range: &str) -> Option<Vec<String>> {
    let parts: Vec<&str> = range.split(':').collect();
    let (first, last, step) = match parts[..] {
        [first, last] => (first, last, 1),
        [first, last, step] => (first, last, step.parse::<usize>().ok().filter(|&step| step > 0)?),
        _ => return None,
    };
    let first = if first.is_empty() { "0" } else { first };
    if let (Ok(from), Ok(to)) = (first.parse::<usize>(), last.parse::<usize>()) {
        let width = if first.len() > 1 && first.starts_with('0') { first.len() } else { 0 };
        if width > 0 && last.len() != width {
            return None;
        }
        let count = to.checked_sub(from)? / step + 1;
        return (count <= MAX_RANGE).then(|| (from..=to).step_by(step).map(|number| format!("{number:0width$}")).collect());
    }
    let letter = |text: &str| text.chars().next().filter(|c| text.len() == 1 && c.is_ascii_alphabetic());
    let (from, to) = (letter(first)?, letter(last)?);
    (from <= to && from.is_ascii_lowercase() == to.is_ascii_lowercase()).then(|| (from..=to).step_by(step).map(String::from).collect())
}

/// What a pattern is matched against.
pub trait Names {
    /// All hosts, in the inventory's order.
    fn hosts(&self) -> Vec<&str>;
    /// Whether the host is in the group or in one of its children.
    fn members(&self, group: &str) -> Option<Vec<&str>>;
    /// All groups.
    fn groups(&self) -> Vec<&str>;
    /// A host that only its own name stands for.
    fn implicit(&self) -> Option<&str> {
        None
    }
}

/// The hosts that a pattern stands for, in the inventory's order.
///
/// # Errors
/// The part of the pattern that stands for nothing, and why.
pub fn select(pattern: &str, names: &dyn Names) -> Result<Vec<String>, Unmatched> {
    let mut chosen: Option<Vec<String>> = None;
    let parts = split(pattern);
    // Ansible's order: unions first, then intersections, then exclusions.
    let rank = |part: &&str| match part.as_bytes().first() {
        Some(b'&') => 1,
        Some(b'!') => 2,
        _ => 0,
    };
    let mut sorted: Vec<&str> = parts.iter().map(String::as_str).collect();
    sorted.sort_by_key(rank);
    for part in sorted {
        match (part.strip_prefix('&'), part.strip_prefix('!')) {
            (Some(part), _) => {
                let found = matches(part, names)?;
                chosen.get_or_insert_with(|| owned(&names.hosts())).retain(|host| found.contains(host));
            }
            (_, Some(part)) => {
                let found = matches(part, names)?;
                chosen.get_or_insert_with(|| owned(&names.hosts())).retain(|host| !found.contains(host));
            }
            _ => {
                let found = matches(part, names)?;
                let list = chosen.get_or_insert_default();
                list.extend(found.into_iter().filter(|host| !list.contains(host)).collect::<Vec<_>>());
            }
        }
    }
    Ok(chosen.unwrap_or_default())
}

/// A part of a pattern that stands for nothing.
#[derive(Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// As written, without `&` and `!`.
    pub part: String,
    /// Why.
    pub reason: String,
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The parts of a pattern: separated by commas, or by colons where there is no comma.
pub(super) fn split(pattern: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    // Ansible: a regular expression may hold colons, so it ends at a comma only.
    let by_comma = pattern.contains(',') || pattern.starts_with('~');
    for c in pattern.chars() {
        depth += i32::from(c == '[') - i32::from(c == ']');
        if depth <= 0 && ((by_comma && c == ',') || (!by_comma && c == ':')) {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn matches(part: &str, names: &dyn Names) -> Result<Vec<String>, Unmatched> {
    let unmatched = |reason: String| Unmatched { part: part.to_owned(), reason };
    if let Some(expression) = part.strip_prefix('~') {
        return regex(expression, names).map_err(unmatched);
    }
    let (base, subscript) = subscript(part);
    let mut found = if base == "all" || base == "*" {
        owned(&names.hosts())
    } else if let Some(members) = names.members(base) {
        owned(&members)
    } else if base.contains(['*', '?', '[']) {
        glob(base, names).map_err(unmatched)?
    } else if names.hosts().contains(&base) || names.implicit() == Some(base) {
        vec![base.to_owned()]
    } else {
        return Err(unmatched("no host and no group has this name".to_owned()));
    };
    if let Some(subscript) = subscript {
        found = pick(&found, subscript).ok_or_else(|| unmatched(format!("`[{subscript}]` is outside of its {} hosts", found.len())))?;
    }
    Ok(found)
}

/// `web[0]`, `web[1:3]`, `web[-1]`: a pattern and which of its hosts.
fn subscript(part: &str) -> (&str, Option<&str>) {
    let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || matches!(c, ':' | '-'));
    match part.strip_suffix(']').and_then(|part| part.rsplit_once('[')) {
        Some((base, inner)) if plain(inner) => (base, Some(inner)),
        _ => (part, None),
    }
}

fn pick(hosts: &[String], subscript: &str) -> Option<Vec<String>> {
    let index = |text: &str| {
        let number: isize = text.parse().ok()?;
        let number = if number < 0 { number + isize::try_from(hosts.len()).ok()? } else { number };
        usize::try_from(number).ok()
    };
    match subscript.split_once(':') {
        None => Some(vec![hosts.get(index(subscript)?)?.clone()]),
        Some((from, to)) => {
            let from = if from.is_empty() { 0 } else { index(from)? };
            let to = if to.is_empty() { hosts.len().checked_sub(1)? } else { index(to)? };
            hosts.get(from..=to.min(hosts.len().saturating_sub(1))).map(<[String]>::to_vec)
        }
    }
}

fn glob(pattern: &str, names: &dyn Names) -> Result<Vec<String>, String> {
    let matcher = GlobBuilder::new(pattern).build().map_err(|error| error.kind().to_string())?.compile_matcher();
    Ok(matching(&|name| matcher.is_match(name), names))
}

fn regex(expression: &str, names: &dyn Names) -> Result<Vec<String>, String> {
    // Ansible matches from the start of the name.
    let matcher = regex::Regex::new(&format!("^(?:{expression})")).map_err(|_| "it is not a regular expression".to_owned())?;
    Ok(matching(&|name| matcher.is_match(name), names))
}

/// Hosts whose name, or one of whose groups, satisfies the test.
fn matching(test: &dyn Fn(&str) -> bool, names: &dyn Names) -> Vec<String> {
    let groups: Vec<Vec<&str>> = names.groups().into_iter().filter(|group| test(group)).filter_map(|group| names.members(group)).collect();
    names.hosts().into_iter().filter(|host| test(host) || groups.iter().any(|members| members.contains(host))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_expand() {
        assert_eq!(expand("web[01:03]").unwrap(), ["web01", "web02", "web03"]);
        assert_eq!(expand("db[a:c].x").unwrap(), ["dba.x", "dbb.x", "dbc.x"]);
        assert_eq!(expand("n[0:6:3]-[1:2]").unwrap(), ["n0-1", "n0-2", "n3-1", "n3-2", "n6-1", "n6-2"]);
        assert_eq!(expand("w[8:11]").unwrap(), ["w8", "w9", "w10", "w11"]);
        assert_eq!(expand("plain").unwrap(), ["plain"]);
        for bad in ["w[1", "w[3:1]", "w[x]", "w[01:100]", "w[1:5:0]", "w[a:3]", "w[0:9999999]"] {
            assert!(expand(bad).is_err(), "{bad}");
        }
    }

    struct Fixed;

    impl Names for Fixed {
        fn hosts(&self) -> Vec<&str> {
            vec!["web1", "web2", "web3", "db1", "db2"]
        }

        fn members(&self, group: &str) -> Option<Vec<&str>> {
            match group {
                "web" => Some(vec!["web1", "web2", "web3"]),
                "db" => Some(vec!["db1", "db2"]),
                "prod" => Some(vec!["web1", "db1"]),
                "empty" => Some(Vec::new()),
                _ => None,
            }
        }

        fn groups(&self) -> Vec<&str> {
            vec!["web", "db", "prod", "empty"]
        }
    }

    #[test]
    fn patterns_select() {
        for (pattern, expected) in [
            ("all", "web1 web2 web3 db1 db2"),
            ("web:&prod", "web1"),
            ("all:!web2", "web1 web3 db1 db2"),
            ("!web:all", "db1 db2"),
            ("web1,db1", "web1 db1"),
            ("w*1:db", "web1 db1 db2"),
            ("~web[12]", "web1 web2"),
            ("~(web|db)1", "web1 db1"),
            ("p*d", "web1 db1"),
            ("web[0]", "web1"),
            ("web[1:]", "web2 web3"),
            ("web[-1]", "web3"),
            ("empty", ""),
            ("!db", "web1 web2 web3"),
        ] {
            assert_eq!(select(pattern, &Fixed).unwrap().join(" "), expected, "{pattern}");
        }
        assert_eq!(select("web:nope", &Fixed).unwrap_err().part, "nope");
        assert!(select("web[7]", &Fixed).is_err());
        assert!(select("~(", &Fixed).is_err());
    }
}
