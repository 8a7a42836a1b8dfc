//! `known_hosts`: its lines, and what they say about a host's key (`sshd(8)`). Own code, because russh's reader accepts revoked keys and knows no authorities.
//! Nothing here decides what to do about a host that is unknown: `host_keys.rs` does.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};
use sha1::Sha1;

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Arc<PathBuf>,
    /// From 1.
    pub(super) line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    None,
    Authority,
    Revoked,
}

#[derive(Debug)]
struct Line {
    place: Place,
    marker: Marker,
    hosts: String,
    key: PublicKey,
}

/// The lines of one or more files, in their order.
#[derive(Debug, Default)]
pub(super) struct KnownHosts {
    lines: Vec<Line>,
}

/// What is known about a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Trusted,
    Revoked(Place),
    /// The host has another key there.
    Changed(Place),
    Unknown,
}

/// A host's name as these files have it.
#[derive(Clone, Debug)]
pub(super) struct HostName {
    host: String,
    port: u16,
}

impl HostName {
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_ascii_lowercase(), port }
    }
}

impl std::fmt::Display for HostName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.port == 22 { f.write_str(&self.host) } else { write!(f, "[{}]:{}", self.host, self.port) }
    }
}

impl KnownHosts {
    /// Reads files; those that are not there are empty. Lines that cannot be read are left out:
    /// they trust nobody.
    pub(super) fn load<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let mut lines = Vec::new();
        for file in files {
            match std::fs::read_to_string(file) {
                Ok(text) => lines.extend(parse(file, &text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!("cannot read `{}`: {error}", file.display()),
            }
        }
        Self { lines }
    }

    /// A file's text without what pins the host by its name. Lines for several names keep the
    /// others; authorities, revoked keys and wildcards stay.
    pub(super) fn without(text: &str, name: &HostName) -> String {
        let name = name.to_string();
        let keep = |line: &str| -> Option<String> {
            let whole = line.trim_end_matches(['\n', '\r']);
            let hosts = whole.split_ascii_whitespace().next().unwrap_or_default();
            if whole.trim_start().starts_with(['#', '@']) || hosts.is_empty() {
                return Some(line.to_owned());
            }
            if hosts.starts_with("|1|") {
                return (!matches_hosts(hosts, &name)).then(|| line.to_owned());
            }
            let others: Vec<&str> = hosts.split(',').filter(|host| !host.eq_ignore_ascii_case(&name)).collect();
            match others.len() {
                0 => None,
                count if count == hosts.split(',').count() => Some(line.to_owned()),
                _ => Some(line.replacen(hosts, &others.join(","), 1)),
            }
        };
        text.split_inclusive('\n').filter_map(keep).collect()
    }

    fn matching(&self, name: &HostName) -> impl Iterator<Item = &Line> {
        let name = name.to_string();
        self.lines.iter().filter(move |line| matches_hosts(&line.hosts, &name))
    }

    /// What is known about a host's plain key. As OpenSSH does, a key that is known for the host
    /// on port 22 is taken on other ports.
    pub(super) fn judge(&self, name: &HostName, key: &PublicKey) -> Verdict {
        let same = |line: &&Line| line.key.key_data() == key.key_data();
        let bare = HostName::new(&name.host, 22);
        let of = |marker: Marker| self.matching(name).filter(move |line| line.marker == marker);
        let revoked = self.matching(&bare).chain(self.matching(name)).filter(|line| line.marker == Marker::Revoked).find(same);
        if let Some(line) = revoked {
            return Verdict::Revoked(line.place.clone());
        }
        if of(Marker::None).any(|line| same(&line)) {
            return Verdict::Trusted;
        }
        if let Some(line) = of(Marker::None).next() {
            return Verdict::Changed(line.place.clone());
        }
        if self.matching(&bare).filter(|line| line.marker == Marker::None).any(|line| same(&line)) {
            return Verdict::Trusted;
        }
        Verdict::Unknown
    }

    /// Whether a host certificate is one that a trusted authority made for this host.
    ///
    /// # Errors
    /// What is wrong with it, and the line that revokes it, if one does.
    pub(super) fn judge_certificate(&self, name: &HostName, certificate: &Certificate) -> Result<(), (String, Option<Place>)> {
        let no = |why: &str| Err((why.to_owned(), None));
        for line in self.matching(name).filter(|line| line.marker == Marker::Revoked) {
            if line.key.key_data() == certificate.public_key() || line.key.key_data() == certificate.signature_key() {
                return Err(("its key or its authority is revoked".to_owned(), Some(line.place.clone())));
            }
        }
        let authorities: Vec<_> =
            self.matching(name).filter(|line| line.marker == Marker::Authority).map(|line| line.key.fingerprint(HashAlg::Sha256)).collect();
        if authorities.is_empty() {
            return no("no `@cert-authority` line is for this host");
        }
        if certificate.cert_type() != CertType::Host {
            return no("it is a user's certificate");
        }
        if let Err(error) = certificate.validate(&authorities) {
            return no(&format!("it is not valid: {error}"));
        }
        let principals = certificate.valid_principals();
        if !principals.iter().any(|pattern| wildcard(&pattern.to_ascii_lowercase(), &name.host)) {
            return no(&format!("it is for {}, not for `{}`", principals.join(", "), name.host));
        }
        if let Some((option, _)) = certificate.critical_options().iter().next() {
            return no(&format!("it has the critical option `{option}`, which is not understood"));
        }
        Ok(())
    }

    /// The algorithms of the host's known keys, for the server to choose from first: one that has
    /// several keys would else show one that is not known.
    pub(super) fn algorithms(&self, name: &HostName) -> Vec<Algorithm> {
        let bare = HostName::new(&name.host, 22);
        let known = self.matching(name).chain(self.matching(&bare)).filter(|line| line.marker == Marker::None);
        known.map(|line| line.key.algorithm()).collect()
    }

    /// Whether an authority may vouch for the host.
    pub(super) fn has_authority(&self, name: &HostName) -> bool {
        self.matching(name).any(|line| line.marker == Marker::Authority)
    }
}

fn parse(file: &Path, text: &str) -> Vec<Line> {
    let file = Arc::new(file.to_owned());
    let mut lines = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let place = Place { file: file.clone(), line: index + 1 };
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if let Some((marker, hosts, key)) = parse_line(text) {
            lines.push(Line { place, marker, hosts, key });
        } else {
            tracing::debug!("{place}: not a line that can be read");
        }
    }
    lines
}

/// The key of a line.
pub(super) fn key_of_line(text: &str) -> Option<PublicKey> {
    parse_line(text.trim()).map(|(.., key)| key)
}

fn parse_line(text: &str) -> Option<(Marker, String, PublicKey)> {
    let mut words = text.split_ascii_whitespace();
    let mut hosts = words.next()?;
    let marker = match hosts {
        "@revoked" => Marker::Revoked,
        "@cert-authority" => Marker::Authority,
        _ if hosts.starts_with('@') => return None,
        _ => Marker::None,
    };
    if marker != Marker::None {
        hosts = words.next()?;
    }
    let (algorithm, key) = (words.next()?, words.next()?);
    let key = PublicKey::from_openssh(&format!("{algorithm} {key}")).ok()?;
    Some((marker, hosts.to_owned(), key))
}

/// Whether a line's first field names the host. One negated pattern that matches rules it out.
fn matches_hosts(patterns: &str, name: &str) -> bool {
    if let Some(hashed) = patterns.strip_prefix("|1|") {
        return matches_hash(hashed, name).unwrap_or(false);
    }
    let mut found = false;
    for pattern in patterns.split(',') {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_prefix('!') {
            Some(pattern) if wildcard(pattern, name) => return false,
            Some(_) => {}
            None => found |= wildcard(&pattern, name),
        }
    }
    found
}

fn matches_hash(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
    let mut mac = Hmac::<Sha1>::new_from_slice(&decode(salt)?).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&decode(hash)?).is_ok())
}

/// `*` is any text, `?` any character.
fn wildcard(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == name[n]) && pattern[p] != b'*' {
            p += 1;
            n += 1;
        } else if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, n));
            p += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            n = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGlJ2F6pR5T0gPQkF0GsYvPY0rDdXrm8RLTl1hk3Yz5f";
    const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDmnEs0jVzXUuXZCGOmR7nq5sx6C0sSzZ3pYVYGxbXyB";

    fn known(text: &str) -> KnownHosts {
        KnownHosts { lines: parse(Path::new("known_hosts"), text) }
    }

    fn judge(text: &str, host: &str, port: u16, key: &str) -> Verdict {
        known(text).judge(&HostName::new(host, port), &PublicKey::from_openssh(key).unwrap())
    }

    fn place(line: usize) -> Place {
        Place { file: Arc::new("known_hosts".into()), line }
    }

    #[test]
    fn names_ports_wildcards_and_negation() {
        assert_eq!(judge(&format!("web1,10.0.0.1\t{A} comment"), "WEB1", 22, A), Verdict::Trusted);
        assert_eq!(judge(&format!("[web1]:2222 {A}"), "web1", 2222, A), Verdict::Trusted);
        assert_eq!(judge(&format!("[web1]:2222 {A}"), "web1", 22, A), Verdict::Unknown);
        assert_eq!(judge(&format!("web1 {A}"), "web1", 2222, A), Verdict::Trusted);
        assert_eq!(judge(&format!("web1 {A}"), "web1", 2222, B), Verdict::Unknown);
        assert_eq!(judge(&format!("*.lab,!db.lab {A}"), "web.lab", 22, A), Verdict::Trusted);
        assert_eq!(judge(&format!("*.lab,!db.lab {A}"), "db.lab", 22, A), Verdict::Unknown);
        assert_eq!(judge(&format!("web? {A}"), "web12", 22, A), Verdict::Unknown);
    }

    #[test]
    fn revoked_beats_trusted_and_a_second_line_may_match() {
        assert_eq!(judge(&format!("# c\n\nweb {A}\n@revoked * {A}\n"), "web", 22, A), Verdict::Revoked(place(4)));
        assert_eq!(judge(&format!("web {B}\nweb {A}\n"), "web", 22, A), Verdict::Trusted);
        assert_eq!(judge(&format!("# c\nweb {B}\nbroken line\n"), "web", 22, A), Verdict::Changed(place(2)));
        assert_eq!(judge(&format!("@cert-authority web {A}"), "web", 22, A), Verdict::Unknown);
    }

    #[test]
    fn a_host_is_forgotten_and_nothing_else() {
        let text = format!("# web\nweb {A}\nweb,10.0.0.1 {B} c\n@revoked web {B}\n*.lab {A}\nother {A}\n[web]:2222 {A}");
        let expected = format!("# web\n10.0.0.1 {B} c\n@revoked web {B}\n*.lab {A}\nother {A}\n[web]:2222 {A}");
        assert_eq!(KnownHosts::without(&text, &HostName::new("web", 22)), expected);
        assert_eq!(KnownHosts::without(&text, &HostName::new("nowhere", 22)), text);
    }

    #[test]
    fn hashed_names_as_openssh_writes_them() {
        // ssh-keygen -H of `[127.0.0.1]:2222`, salt and all made by OpenSSH's algorithm.
        let salt = base64::engine::general_purpose::STANDARD.encode([7_u8; 20]);
        let mut mac = Hmac::<Sha1>::new_from_slice(&[7_u8; 20]).unwrap();
        mac.update(b"[127.0.0.1]:2222");
        let hash = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        let text = format!("|1|{salt}|{hash} {A}");
        assert_eq!(judge(&text, "127.0.0.1", 2222, A), Verdict::Trusted);
        assert_eq!(judge(&text, "127.0.0.1", 22, A), Verdict::Unknown);
    }

    #[test]
    fn wildcards_match_as_they_should() {
        for (pattern, name, expected) in
            [("*", "", true), ("a*c", "abbc", true), ("a*c", "abcd", false), ("*a*b*", "xaxbx", true), ("**", "x", true), ("?", "", false)]
        {
            assert_eq!(wildcard(pattern, name), expected, "{pattern} {name}");
        }
    }
}
