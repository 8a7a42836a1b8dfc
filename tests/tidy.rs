//! The house's rules as code: who may use whom, sizes, and words that must not stay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Module -> the modules it may use (docs/ARCHITECTURE.md, DESIGN "where code lives").
const LAYERS: &[(&str, &[&str])] = &[
    ("cli", &[]),
    (
        "command",
        &[
            "cli",
            "project",
            "resolve",
            "resource",
            "composite",
            "facts",
            "shell",
            "secret",
            "transport",
            "engine",
            "event",
            "history",
            "report",
            "diagnostic",
        ],
    ),
    ("project", &["secret", "diagnostic"]),
    ("resolve", &["project", "composite", "resource", "facts", "secret", "shell", "diagnostic"]),
    ("composite", &["resource", "facts", "secret", "shell", "diagnostic"]),
    ("resource", &["shell", "facts", "secret", "diagnostic"]),
    ("facts", &[]),
    ("shell", &["secret"]),
    ("secret", &[]),
    ("transport", &["shell", "secret", "diagnostic", "resource"]),
    ("engine", &["resolve", "resource", "transport", "facts", "secret", "shell", "event", "diagnostic"]),
    ("event", &["resource", "diagnostic"]),
    ("history", &["event", "report", "resource", "diagnostic"]),
    ("report", &["event", "resource", "diagnostic"]),
    ("diagnostic", &[]),
];

/// Stations that never do I/O on a host or a network, by the crates they must not name.
const PURE: &[&str] = &["project", "resolve", "resource", "composite", "facts", "shell", "secret", "report", "event"];
const IMPURE_CRATES: &[&str] = &["tokio::", "russh"];

/// Longest file, in lines; a longer one is two rooms in one.
const MAX_LINES: usize = 520;

fn sources() -> BTreeMap<PathBuf, String> {
    fn walk(directory: &Path, out: &mut BTreeMap<PathBuf, String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                out.insert(path.clone(), std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut out);
    out
}

fn station(path: &Path) -> String {
    let relative = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    relative.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// Whether a file is nothing but tests, or what tests share.
fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_string_lossy();
    name == "testing" || name == "tests" || name.ends_with("_tests")
}

/// The code before a file's tests, without comments.
fn code(text: &str) -> String {
    let tests = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub(super) mod testing {"];
    let end = tests.iter().filter_map(|start| text.find(start)).min().unwrap_or(text.len());
    let body = &text[..end];
    body.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_station_uses_only_those_it_may() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let from = station(&path);
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == from) else { continue };
        let text = code(&text);
        for (at, _) in text.match_indices("crate::") {
            let to: String = text[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let known = LAYERS.iter().any(|(name, _)| *name == to);
            if known && to != from && !allowed.contains(&to.as_str()) {
                wrong.push(format!("{} uses `{to}`", path.display()));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_stations_do_no_io() {
    for (path, text) in sources() {
        if PURE.contains(&station(&path).as_str()) {
            for name in IMPURE_CRATES {
                assert!(!code(&text).contains(name), "{} names `{name}`", path.display());
            }
        }
    }
}

#[test]
fn only_the_transport_and_the_shell_fill_holes() {
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        let fills = code(&text).contains(".fill(");
        let may = ["transport", "shell", "secret"].contains(&station(&path).as_str());
        assert!(!fills || may, "{} fills secrets into text", path.display());
    }
}

#[test]
fn files_are_of_a_size_that_can_be_read() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", path.display());
        assert!(text.starts_with("//!"), "{} does not say what it owns", path.display());
    }
}

#[test]
fn nothing_is_left_for_later() {
    for (path, text) in sources() {
        for word in ["todo!", "unimplemented!", "FIXME", "XXX:", "#[ignore", "dbg!"] {
            assert!(!text.contains(word), "{} has `{word}`", path.display());
        }
    }
}

#[test]
fn the_product_names_no_registry_and_no_tool_of_its_makers() {
    let output = std::process::Command::new("git").args(["ls-files"]).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    for name in String::from_utf8(output.stdout).unwrap().lines() {
        if name == "Cargo.lock" || name == "tests/tidy.rs" {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)) else { continue };
        for word in ["deb.debian.org", "archive.ubuntu.com", "download.docker.com", "../shared", ".library"] {
            assert!(!text.contains(word), "{name} names `{word}`");
        }
    }
}
