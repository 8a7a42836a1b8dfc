//! Answers about files, packages, units, accounts and the kernel.

use std::collections::{BTreeMap, HashMap};

use super::ask::batches;
use super::{Section, Sections, Topics};
use crate::resource::observe::{
    Answer, GroupState, Mark, Observations, PackageState, PathKind, PathState, Question, RawOutput, SecretFileState, UnitState, UserState,
};
use crate::secret::sha256;

pub(super) fn answer(topics: &Topics<'_>, sections: &Sections<'_>, out: &mut Observations) {
    for (question, reason) in &topics.unfit {
        out.insert((*question).clone(), Answer::Failed(reason.clone()));
    }
    let each = [
        ("stat", &topics.paths, paths as Reader),
        ("marks", &topics.paths, marks),
        ("digest", &topics.digests, digests),
        ("content", &topics.contents, contents),
        ("secret", &topics.secret_files, secret_files),
        ("dpkg", &topics.packages, packages),
        ("unit", &topics.units, units),
    ];
    for (name, all, read) in each {
        for (index, names) in batches(all).into_iter().enumerate() {
            if let Some(section) = sections.get(&format!("{name}{index}")) {
                read(section, names, out);
            }
        }
    }
    accounts(topics, sections, out);
    kernel(topics, sections, out);
    if let Some(section) = sections.get("ss") {
        let lines = String::from_utf8_lossy(section.stdout).into_owned();
        let answer = if section.status == 0 { Answer::Line(Some(lines)) } else { Answer::Failed(section.reason("`ss` failed")) };
        out.insert(Question::Listening, answer);
    }
    for (index, (question, _)) in topics.raw.iter().enumerate() {
        if let Some(section) = sections.get(&format!("raw{index}")) {
            let stdout = String::from_utf8_lossy(section.stdout).trim_end_matches('\n').to_owned();
            out.insert((*question).clone(), Answer::Raw(RawOutput { status: section.status, stdout }));
        }
    }
}

type Reader = fn(&Section<'_>, &[&str], &mut Observations);

/// NUL-terminated fields.
fn fields(bytes: &[u8]) -> Vec<String> {
    let body = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if body.is_empty() && bytes.is_empty() {
        return Vec::new();
    }
    body.split(|&byte| byte == 0).map(|field| String::from_utf8_lossy(field).into_owned()).collect()
}

/// Whether a tool's message says that a path is not there.
fn says_absent(line: &str) -> bool {
    line.ends_with(": No such file or directory") || line.ends_with(": Not a directory")
}

/// Why a path that a tool left out was left out: `None` if because it is absent (or of another
/// sort), else the message about it. A message that fits no name, because the tool quoted it, is
/// taken for all.
fn left_out(section: &Section<'_>, path: &str, all: &[&str]) -> Option<String> {
    let real = || section.stderr.lines().filter(|line| !line.trim().is_empty() && !says_absent(line));
    real()
        .find(|line| line.contains(path))
        .or_else(|| real().find(|line| !all.iter().any(|path| line.contains(path))))
        .map(|line| format!("`{}` cannot be read: {line}", path.escape_debug()))
        .or_else(|| (section.status > 1).then(|| section.reason("the host's tools failed")))
}

fn paths(section: &Section<'_>, names: &[&str], out: &mut Observations) {
    let found = fields(section.stdout);
    let states: HashMap<&str, &[String]> = found.as_chunks::<9>().0.iter().map(|record| (record[6].as_str(), record.as_slice())).collect();
    let missing: Vec<&str> = names.iter().copied().filter(|name| !states.contains_key(name)).collect();
    // `stat` complains in the order asked, once for each path that it cannot tell.
    let complaints: Vec<&str> = section.stderr.lines().filter(|line| line.starts_with("stat: ")).collect();
    let paired = complaints.len() == missing.len();
    for name in names {
        let answer = if let Some(record) = states.get(name) {
            path_state(record)
                .map_or_else(|| Answer::Failed(format!("`stat` told nonsense about `{name}`")), |state| Answer::Path(Some(state)))
        } else {
            let index = missing.iter().position(|other| other == name).unwrap_or_default();
            match complaints.get(index) {
                Some(line) if paired && says_absent(line) => Answer::Path(None),
                Some(line) if paired => Answer::Failed((*line).to_owned()),
                _ => Answer::Failed(section.reason("`stat` failed")),
            }
        };
        out.insert(Question::Path((*name).to_owned()), answer);
    }
}

fn path_state(record: &[String]) -> Option<PathState> {
    let raw = u32::from_str_radix(&record[0], 16).ok()?;
    let kind = match raw & 0o170_000 {
        0o100_000 => PathKind::File,
        0o040_000 => PathKind::Directory,
        0o120_000 => PathKind::Link,
        _ => PathKind::Other,
    };
    let target = record[7].strip_prefix(&record[6]).and_then(|rest| rest.strip_prefix(" -> ")).map(str::to_owned);
    Some(PathState {
        kind,
        mode: raw & 0o7777,
        owner: record[4].clone(),
        group: record[5].clone(),
        uid: record[1].parse().ok()?,
        gid: record[2].parse().ok()?,
        size: record[3].parse().ok()?,
        target: target.filter(|_| kind == PathKind::Link),
        names: record[8].parse().ok()?,
        marks: Vec::new(),
    })
}

/// Adds to what `stat` told, which has been read.
fn marks(section: &Section<'_>, names: &[&str], out: &mut Observations) {
    let text = String::from_utf8_lossy(section.stdout);
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, mark) = if word.starts_with('/') {
            let of = |name: &&&str| line.strip_prefix(**name).is_some_and(|rest| rest.starts_with(' '));
            let Some(name) = names.iter().filter(of).max_by_key(|name| name.len()) else { continue };
            (*name, Mark::Capabilities(line[name.len()..].trim_start_matches([' ', '=']).to_owned()))
        } else if word.ends_with('+') {
            let quoted = rest.find('"').map_or("", |at| &rest[at..]);
            let Some(name) = names.iter().find(|name| quoted == c_quoted(name)) else { continue };
            (*name, Mark::Acl)
        } else {
            let Some(name) = names.iter().find(|name| **name == rest) else { continue };
            (*name, if word.contains('i') { Mark::Immutable } else { Mark::AppendOnly })
        };
        if let Some(Answer::Path(Some(state))) = out.get_mut(&Question::Path(name.to_owned()))
            && matches!(state.kind, PathKind::File | PathKind::Directory)
        {
            state.marks.push(mark);
        }
    }
}

/// A name as `ls --quoting-style=c` prints it in the C locale.
fn c_quoted(name: &str) -> String {
    let mut out = String::from('"');
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let named = [(7, 'a'), (8, 'b'), (9, 't'), (10, 'n'), (11, 'v'), (12, 'f'), (13, 'r')];
                match named.iter().find(|(code, _)| *code == byte) {
                    Some((_, letter)) => out.extend(['\\', *letter]),
                    None => out.push_str(&format!("\\{byte:03o}")),
                }
            }
        }
    }
    out.push('"');
    out
}

fn digests(section: &Section<'_>, names: &[&str], out: &mut Observations) {
    let lines = fields(section.stdout);
    let found: HashMap<&str, &str> = lines.iter().filter_map(|line| line.split_once("  ")).map(|(sum, path)| (path, sum)).collect();
    for name in names {
        let answer = match found.get(name) {
            Some(sum) => Answer::Digest(Some((*sum).to_owned())),
            None => left_out(section, name, names).map_or(Answer::Digest(None), Answer::Failed),
        };
        out.insert(Question::Digest((*name).to_owned()), answer);
    }
}

/// Records of all files, then their digests, then their bytes one after the other: each piece
/// counts only if its digest is right, so a file that grew meanwhile cannot pass for another.
fn contents(section: &Section<'_>, names: &[&str], out: &mut Observations) {
    let mut rest = section.stdout;
    let mut next = || {
        let end = rest.iter().position(|&byte| byte == 0)?;
        let field = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        Some(field)
    };
    let mut answers: HashMap<String, Answer> = HashMap::new();
    let mut files = Vec::new();
    let mut bodies = None;
    while let Some(word) = next() {
        if let Some((sum, _)) = word.split_once("  ") {
            bodies.get_or_insert_with(Vec::new).push(sum.to_owned());
            if bodies.as_ref().is_some_and(|sums| sums.len() == files.len()) {
                break;
            }
            continue;
        }
        let (Some(size), Some(path)) = (next(), next()) else { break };
        match word.as_str() {
            "file" => files.push((path, size.parse::<usize>().unwrap_or_default())),
            "large" => {
                let reason = format!("`{path}` has {size} bytes: more than 1 MiB is not read");
                answers.insert(path, Answer::Failed(reason));
            }
            _ => {
                let reason = format!("`{path}` is not a regular file");
                answers.insert(path, Answer::Failed(reason));
            }
        }
    }
    let sums = bodies.unwrap_or_default();
    for (index, (path, size)) in files.into_iter().enumerate() {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        let right = sums.get(index).is_some_and(|sum| *sum == sha256(piece));
        let reason = || Answer::Failed(format!("`{path}` changed while it was read"));
        let answer = if right { Answer::Content(Some(piece.to_vec())) } else { reason() };
        answers.insert(path, answer);
    }
    for name in names {
        let absent = || left_out(section, name, names).map_or(Answer::Content(None), Answer::Failed);
        let answer = answers.remove(*name).unwrap_or_else(absent);
        out.insert(Question::Content((*name).to_owned()), answer);
    }
}

fn secret_files(section: &Section<'_>, names: &[&str], out: &mut Observations) {
    let words = fields(section.stdout);
    for (name, pair) in names.iter().zip(words.as_chunks::<2>().0) {
        let recorded = Some(pair[1].clone()).filter(|text| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let answer = match pair[0].as_str() {
            "absent" if section.stderr.is_empty() => Answer::SecretFile(None),
            "absent" => Answer::Failed(format!("`{name}` cannot be told: {}", section.stderr.trim())),
            word => Answer::SecretFile(Some(SecretFileState { intact: word == "same" && recorded.is_some(), recorded })),
        };
        out.insert(Question::SecretFile((*name).to_owned()), answer);
    }
}

fn packages(section: &Section<'_>, names: &[&str], out: &mut Observations) {
    let text = String::from_utf8_lossy(section.stdout);
    let mut found: HashMap<&str, PackageState> = HashMap::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, '\t');
        let (Some(abbrev), Some(version), Some(full)) = (parts.next(), parts.next(), parts.next()) else { continue };
        // `un`: dpkg knows the name only because another package mentions it.
        if abbrev.as_bytes().get(1) == Some(&b'n') {
            continue;
        }
        let state = PackageState { version: version.to_owned(), abbrev: abbrev.to_owned() };
        let bare = full.split_once(':').map_or(full, |(name, _)| name);
        // Of several architectures the installed one counts.
        if !found.get(bare).is_some_and(PackageState::is_installed) {
            found.insert(bare, state.clone());
        }
        found.insert(full, state);
    }
    for name in names {
        let answer = match found.get(name) {
            _ if section.status > 1 || section.status < 0 => Answer::Failed(section.reason("`dpkg-query` failed")),
            state => Answer::Package(state.cloned()),
        };
        out.insert(Question::Package((*name).to_owned()), answer);
    }
}

fn units(section: &Section<'_>, names: &[&str], out: &mut Observations) {
    let text = String::from_utf8_lossy(section.stdout);
    let blocks: Vec<BTreeMap<&str, &str>> =
        text.split("\n\n").map(|block| block.lines().filter_map(|line| line.split_once('=')).collect()).collect();
    let told: Vec<&BTreeMap<&str, &str>> = blocks.iter().filter(|block| !block.is_empty()).collect();
    for (index, name) in names.iter().enumerate() {
        let answer = if text == "none" {
            Answer::Unit(None)
        } else if told.len() == names.len() {
            let get = |key: &str| told[index].get(key).copied().unwrap_or_default().to_owned();
            let state = UnitState {
                load: get("LoadState"),
                active: get("ActiveState"),
                sub: get("SubState"),
                file: get("UnitFileState"),
                needs_reload: get("NeedDaemonReload") == "yes",
            };
            Answer::Unit(Some(state).filter(|state| state.load != "not-found"))
        } else {
            Answer::Failed(section.reason("`systemctl show` failed"))
        };
        out.insert(Question::Unit((*name).to_owned()), answer);
    }
}

/// `getent passwd NAME...` ends with 2 if one of the names is unknown.
fn accounts(topics: &Topics<'_>, sections: &Sections<'_>, out: &mut Observations) {
    let Some(section) = sections.get("group") else { return };
    let text = String::from_utf8_lossy(section.stdout).into_owned();
    let groups: Vec<(&str, GroupState)> = text.lines().filter_map(group_line).collect();
    for name in &topics.groups {
        let answer = match groups.iter().find(|(group, _)| group == name) {
            Some((_, state)) => Answer::Group(Some(state.clone())),
            None if section.status == 0 => Answer::Group(None),
            None => Answer::Failed(section.reason("`getent group` failed")),
        };
        out.insert(Question::Group((*name).to_owned()), answer);
    }
    let Some(passwd) = sections.get("passwd") else { return };
    let text = String::from_utf8_lossy(passwd.stdout).into_owned();
    let expiry = sections.get("expiry").map_or_else(String::new, |section| String::from_utf8_lossy(section.stdout).into_owned());
    let today = expiry.lines().next().and_then(|line| line.parse::<i64>().ok()).map_or(0, |seconds| seconds / 86_400);
    for name in &topics.users {
        let answer = match text.lines().find_map(|line| user_line(line, name, &groups)) {
            Some(mut state) => {
                state.expires = expiry.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.parse().ok());
                state.expired = state.expires.is_some_and(|day| day <= today);
                Answer::User(Some(state))
            }
            None if matches!(passwd.status, 0 | 2) => Answer::User(None),
            None => Answer::Failed(passwd.reason("`getent passwd` failed")),
        };
        out.insert(Question::User((*name).to_owned()), answer);
    }
}

fn group_line(line: &str) -> Option<(&str, GroupState)> {
    let mut parts = line.split(':');
    let name = parts.next()?;
    let gid = parts.nth(1)?.parse().ok()?;
    let members = parts.next()?.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
    Some((name, GroupState { gid, members }))
}

fn user_line(line: &str, name: &str, all: &[(&str, GroupState)]) -> Option<UserState> {
    let parts: Vec<&str> = line.split(':').collect();
    let [user, _, uid, gid, comment, home, shell] = parts.as_slice() else { return None };
    if *user != name {
        return None;
    }
    let gid: u32 = gid.parse().ok()?;
    let group = all.iter().find(|(_, state)| state.gid == gid).map_or_else(|| gid.to_string(), |(name, _)| (*name).to_owned());
    let member = |state: &GroupState| state.members.iter().any(|member| member == name);
    let mut groups: Vec<String> = all.iter().filter(|(_, state)| member(state)).map(|(name, _)| (*name).to_owned()).collect();
    groups.sort();
    groups.dedup();
    Some(UserState {
        uid: uid.parse().ok()?,
        gid,
        comment: (*comment).to_owned(),
        home: (*home).to_owned(),
        shell: (*shell).to_owned(),
        group,
        groups,
        expires: None,
        expired: false,
    })
}

fn kernel(topics: &Topics<'_>, sections: &Sections<'_>, out: &mut Observations) {
    if let Some(section) = sections.get("sysctl") {
        let text = String::from_utf8_lossy(section.stdout);
        for name in &topics.sysctls {
            let path = super::ask::sysctl_path(name);
            let values: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(&path)?.strip_prefix(':')).collect();
            let answer = if text.lines().any(|line| line.strip_prefix("absent ") == Some(&path)) {
                Answer::Line(None)
            } else if values.is_empty() {
                Answer::Failed(format!("the kernel setting `{name}` cannot be read"))
            } else {
                Answer::Line(Some(values.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")))
            };
            out.insert(Question::Sysctl((*name).to_owned()), answer);
        }
    }
    if let Some(section) = sections.get("module") {
        let text = String::from_utf8_lossy(section.stdout);
        let plain = |name: &str| name.replace('-', "_");
        let file = |name: &str| name.strip_prefix('/').and_then(|name| name.strip_suffix(".ko")).map_or_else(|| plain(name), plain);
        let present: Vec<String> = text.split(['\0', '\n']).map(file).collect();
        for name in &topics.modules {
            let loaded = present.contains(&plain(name)).then(|| "loaded".to_owned());
            out.insert(Question::Module((*name).to_owned()), Answer::Line(loaded));
        }
    }
}
