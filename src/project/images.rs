//! `images.lock` and the `images:` part of `soc-provision.yml`: which images stacks may run, by
//! digest, and what must have looked at them first.

use std::collections::BTreeMap;

use globset::{Glob, GlobMatcher};

use super::files::Files;
use super::lower::Problems;
use super::source::Node;
use crate::diagnostic::Location;

/// The name of the lock file, in the project's directory.
pub const LOCK: &str = "images.lock";

/// A project's images.
#[derive(Debug, Default)]
pub struct Images {
    /// Locked images by reference; nothing where there is no lock file.
    pub locked: BTreeMap<String, Locked>,
    /// Only these references may be used; empty for all.
    pub allow: Vec<Allowed>,
    /// What looks at each image before it is locked.
    pub gate: Option<Gate>,
    /// An image that is not in the lock file is an error.
    pub required: bool,
}

/// A locked image.
#[derive(Clone, Debug)]
pub struct Locked {
    /// The registry's digest, `sha256:...`, if it came from one.
    pub digest: Option<String>,
    /// Ids that it may have on a host, one for each architecture.
    pub ids: Vec<String>,
    pub at: Location,
}

/// A pattern of the allow-list.
#[derive(Clone, Debug)]
pub struct Allowed {
    pub matcher: GlobMatcher,
    pub at: Location,
}

/// A command that judges an image: prints SARIF on stdout.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Run by `sh`; the image's reference is in `$IMAGE`.
    pub command: String,
    /// `low`, `medium`, `high` or `critical`: findings at least as bad refuse the image.
    pub severity: Severity,
    /// Run on the host, where the image is, instead of where soc-provision runs.
    pub on_host: bool,
    pub at: Location,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    /// By its word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "critical" => Self::Critical,
            _ => return None,
        })
    }
}

/// Reads `images.lock`, if there is one.
pub(super) fn lock(files: &Files, images: &mut Images, problems: &mut Problems) {
    let Some(path) = files.first(files.root(), &[LOCK]) else { return };
    let Some(node) = problems.keep(files.yaml(&path)) else { return };
    let Some(map) = problems.map(&node, LOCK) else { return };
    problems.only(map, &["images"], LOCK);
    let Some(list) = map.get("images").and_then(|node| problems.map(node, "`images`")) else { return };
    for (key, entry) in list.iter() {
        let Some(fields) = problems.map(entry, &format!("image `{}`", key.name)) else { continue };
        problems.only(fields, &["digest", "ids"], "a locked image");
        let digest = fields.get("digest").and_then(|node| sha256(node, problems));
        let ids: Vec<String> = fields
            .get("ids")
            .map(|node| problems.seq(node, "`ids`"))
            .unwrap_or_default()
            .iter()
            .filter_map(|node| sha256(node, problems))
            .collect();
        if digest.is_none() && ids.is_empty() {
            problems.error(&key.at, format!("image `{}` has neither a `digest` nor `ids`", key.name));
        }
        images.locked.insert(key.name.to_string(), Locked { digest, ids, at: key.at.clone() });
    }
}

fn sha256(node: &Node, problems: &mut Problems) -> Option<String> {
    let text = problems.text(node, "a digest")?;
    let fine = text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit()));
    if !fine {
        problems.error(&node.at, format!("`{}` is not `sha256:` and 64 hex digits", text.escape_debug()));
    }
    fine.then_some(text)
}

/// Reads `images:` of `soc-provision.yml`.
pub(super) fn settings(node: &Node, problems: &mut Problems) -> Images {
    let mut out = Images::default();
    let Some(map) = problems.map(node, "`images`") else { return out };
    problems.only(map, &["allow", "gate", "lock"], "`images`");
    for entry in map.get("allow").map(|node| problems.seq(node, "`allow`")).unwrap_or_default() {
        let Some(text) = problems.text(entry, "a pattern") else { continue };
        match Glob::new(&text) {
            Ok(glob) => out.allow.push(Allowed { matcher: glob.compile_matcher(), at: entry.at.clone() }),
            Err(error) => problems.error(&entry.at, format!("`{}` is not a pattern: {}", text.escape_debug(), error.kind())),
        }
    }
    if let Some(node) = map.get("lock") {
        match node.as_str() {
            Some("required") => out.required = true,
            Some("optional") => {}
            _ => problems.error(&node.at, "`lock` is `required` or `optional`"),
        }
    }
    if let Some(node) = map.get("gate") {
        out.gate = gate(node, problems);
    }
    out
}

fn gate(node: &Node, problems: &mut Problems) -> Option<Gate> {
    let map = problems.map(node, "`gate`")?;
    problems.only(map, &["command", "severity", "run_on"], "`gate`");
    let Some(command) = map.get("command") else {
        problems.error(&node.at, "`gate` needs a `command` that prints SARIF");
        return None;
    };
    let command = problems.text(command, "`command`")?;
    let severity = match map.get("severity") {
        None => Severity::High,
        Some(node) => node.as_str().and_then(Severity::parse).or_else(|| {
            problems.error(&node.at, "`severity` is `low`, `medium`, `high` or `critical`");
            None
        })?,
    };
    let on_host = match map.get("run_on").map(|node| (node, node.as_str())) {
        None | Some((_, Some("controller"))) => false,
        Some((_, Some("host"))) => true,
        Some((node, _)) => {
            problems.error(&node.at, "`run_on` is `controller` or `host`");
            false
        }
    };
    Some(Gate { command, severity, on_host, at: node.at.clone() })
}
