//! What a host's stack directory looks like: the probe that reads it, and its answer.

use std::collections::{BTreeMap, BTreeSet};

use super::contained::Mark;
use super::stack::ROOT;
use crate::resource::observe::Question;
use crate::shell::Script;

/// A stack's directory on a host. Nothing at all where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// Whether the directory exists.
    pub exists: bool,
    /// The release that `current` points to.
    pub current: Option<String>,
    /// SHA-256 of the current release's Compose file.
    pub compose: Option<String>,
    /// A release that was rolled back by hand, by whom and when.
    pub pin: Option<Pin>,
    /// A release that did not get healthy last time it was tried, and when (seconds since 1970).
    pub failed: Option<(String, u64)>,
    /// Releases that are kept.
    pub releases: BTreeSet<String>,
    /// Which release became current when (seconds since 1970), the oldest first.
    pub history: Vec<(u64, String)>,
    /// Migrations that each kept release's data went through.
    pub went_through: BTreeMap<String, BTreeSet<String>>,
    /// Files below `files/`, `live/` and `secrets/`.
    pub files: BTreeMap<String, FileState>,
    /// Files below `live/` that are what the current release put there, and where it took them from.
    pub live: BTreeMap<String, String>,
    /// Jobs that were done: name and digest.
    pub jobs: BTreeMap<String, String>,
    /// Migrations that were done, and how each is undone: `compatible`, `restore`, `incompatible`.
    pub migrations: BTreeMap<String, String>,
    /// Containers that somebody contained and nobody may touch.
    pub contained: Vec<Mark>,
}

impl HostState {
    /// When a release last became current, in seconds since 1970.
    #[must_use]
    pub fn since(&self, release: &str) -> Option<u64> {
        self.history.iter().rev().find(|(_, id)| id == release).map(|(when, _)| *when)
    }

    /// The releases that are kept, the latest to become current first.
    #[must_use]
    pub fn by_time(&self) -> Vec<&str> {
        let mut out: Vec<&str> = self.releases.iter().map(String::as_str).collect();
        out.sort_by_key(|release| std::cmp::Reverse(self.since(release)));
        out
    }

    /// Migrations that stand between the data as they are and a release, and how each is undone.
    #[must_use]
    pub fn in_the_way(&self, release: &str) -> Vec<(&str, &str)> {
        let fine = self.went_through.get(release);
        let between = self.migrations.iter().filter(|(id, how)| *how != "compatible" && !fine.is_some_and(|fine| fine.contains(*id)));
        between.map(|(id, how)| (id.as_str(), how.as_str())).collect()
    }
}

/// A release that must not come back by itself (DESIGN 8.19).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub release: String,
    /// Seconds since 1970.
    pub when: u64,
    pub who: String,
}

/// A file of the stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileState {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// SHA-256; of a file below `secrets/`, `ok` if it is as it was written.
    pub digest: String,
}

/// The question that reads a stack's directory. Digests of secrets never leave the host.
#[must_use]
pub fn question(stack: &str) -> Question {
    let script = Script::sh("cd {} 2>/dev/null || exit 0\n", &[&format!("{ROOT}/{stack}")]).then(
        r#"echo E
c=$(readlink current) && printf 'C %s\n' "${c#releases/}"
for f in pin failed; do [ -f $f ] && { IFS= read -r l <$f; printf '%s %s\n' $f "$l"; }; done
for r in releases/*/; do [ -d "$r" ] && { r=${r%/}; printf 'R %s\n' "$r"; [ -f "$r/done" ] && while read -r m; do printf 'M %s %s\n' "$r" "$m"; done <"$r/done"; }; done
[ -f history ] && tail -n 64 history | while read -r w r; do printf 'H %s %s\n' "$w" "$r"; done
for d in jobs migrations; do for j in $d/*; do [ -f "$j" ] && { IFS= read -r l <"$j"; printf 'J %s %s\n' "$j" "$l"; }; done; done
find files live secrets ! -type d -printf 'F %m %U %G %p\n' 2>/dev/null
find files ${c:+"$c/compose.yml"} -type f -exec sha256sum {} + 2>/dev/null | while read -r s p; do printf 'D %s %s\n' "$s" "$p"; done
[ -f secrets/.sums ] && sha256sum -c secrets/.sums 2>/dev/null | while IFS= read -r l; do [ "${l%: OK}" != "$l" ] && printf 'D ok %s\n' "${l%: OK}"; done
[ -n "$c" ] && [ -f "$c/live" ] && while read -r to from; do cmp -s "$to" "$from" && printf 'L %s %s\n' "$to" "$from"; done <"$c/live"
for m in /var/lib/soc-provision/contained/*; do [ -f "$m" ] && grep -qx {} "$m" && { echo X; while IFS= read -r l; do printf 'x %s\n' "$l"; done <"$m"; }; done
exit 0
"#,
        &["{}", &format!("project {stack}")],
    );
    Question::Raw { key: format!("compose_stack/{stack}"), script }
}

/// Reads the answer.
///
/// # Errors
/// A sentence with the line that is not the probe's.
pub fn parse(output: &str) -> Result<HostState, String> {
    let mut state = HostState::default();
    for line in output.lines() {
        let strange = || format!("the stack's probe printed `{}`", line.escape_debug());
        let (tag, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = rest.split(' ');
        let mut word = || words.next().unwrap_or_default();
        match tag {
            "E" => state.exists = true,
            "C" => state.current = Some(rest.to_owned()),
            "R" => {
                state.releases.insert(rest.trim_start_matches("releases/").to_owned());
            }
            "pin" => {
                let (release, when) = (word().to_owned(), word().parse().map_err(|_| strange())?);
                state.pin = Some(Pin { release, when, who: rest.splitn(3, ' ').nth(2).unwrap_or_default().to_owned() });
            }
            "failed" => state.failed = Some((word().to_owned(), word().parse().map_err(|_| strange())?)),
            "M" => {
                let release = word().trim_start_matches("releases/").to_owned();
                state.went_through.entry(release).or_default().insert(word().to_owned());
            }
            "H" => state.history.push((word().parse().map_err(|_| strange())?, word().to_owned())),
            "J" => {
                let (path, digest) = (word(), word());
                if let Some(job) = path.strip_prefix("jobs/") {
                    state.jobs.insert(job.to_owned(), digest.to_owned());
                } else if let Some(migration) = path.strip_prefix("migrations/") {
                    state.migrations.insert(migration.to_owned(), rest.rsplit(' ').next().unwrap_or_default().to_owned());
                }
            }
            "F" => {
                let (mode, uid, gid) = (word(), word(), word());
                let entry = state.files.entry(rest.splitn(4, ' ').nth(3).ok_or_else(strange)?.to_owned()).or_default();
                entry.mode = u32::from_str_radix(mode, 8).map_err(|_| strange())?;
                entry.uid = uid.parse().map_err(|_| strange())?;
                entry.gid = gid.parse().map_err(|_| strange())?;
            }
            "D" => {
                let (digest, path) = rest.split_once(' ').ok_or_else(strange)?;
                if path.starts_with("releases/") {
                    state.compose = Some(digest.to_owned());
                } else {
                    digest.clone_into(&mut state.files.entry(path.to_owned()).or_default().digest);
                }
            }
            "X" => state.contained.push(Mark::default()),
            "x" => {
                if let Some(mark) = state.contained.last_mut() {
                    mark.take(rest);
                }
            }
            "L" => {
                state.live.insert(word().to_owned(), word().to_owned());
            }
            _ => return Err(strange()),
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_and_garbage_refused() {
        let state = parse("E\nC 1a\npin 2b 1700000000 ann@laptop by hand\nfailed 3c 5\nR releases/1a\nR releases/0f\nM releases/1a m1\nH 100 0f\nH 200 1a\nJ jobs/admin d1\nJ migrations/m1 done 150 1a db restore\nF 644 0 0 files/aa/web.conf\nD abcd files/aa/web.conf\nF 400 1000 1000 secrets/bb/db\nD ok secrets/bb/db\nD ffff releases/1a/compose.yml\nL live/web/x files/aa/x\nX\nx name app\nx who ann").unwrap();
        assert_eq!((state.contained.len(), state.contained[0].name.as_str(), state.contained[0].who.as_str()), (1, "app", "ann"));
        assert_eq!(state.current.as_deref(), Some("1a"));
        assert_eq!(state.pin, Some(Pin { release: "2b".into(), when: 1_700_000_000, who: "ann@laptop by hand".into() }));
        assert_eq!(state.files["files/aa/web.conf"], FileState { mode: 0o644, uid: 0, gid: 0, digest: "abcd".into() });
        assert_eq!(state.files["secrets/bb/db"].digest, "ok");
        assert_eq!(state.compose.as_deref(), Some("ffff"));
        assert_eq!((state.live["live/web/x"].as_str(), state.jobs["admin"].as_str(), state.migrations.len()), ("files/aa/x", "d1", 1));
        assert_eq!(state.by_time(), ["1a", "0f"]);
        assert_eq!((state.in_the_way("1a"), state.in_the_way("0f")), (vec![], vec![("m1", "restore")]));
        assert_eq!(parse("").unwrap(), HostState::default());
        assert!(parse("rubbish").is_err());
    }
}
