//! What is looked at on each host.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::command::status::expiry;
use crate::diagnostic::printable;
use crate::engine::apply::Walk;
use crate::engine::hold::Hold;
use crate::engine::host::HostRun;
use crate::engine::operate::Operation;
use crate::engine::plan::Decision;
use crate::resource::observe::Answer;
use crate::resource::{Claim, Question};
use crate::shell::Script;

/// Where a host stands.
#[derive(Debug, Default, Serialize)]
pub(super) struct Standing {
    /// Why nothing is known, if nothing is.
    pub(super) failure: Option<String>,
    /// The last apply: run, who, when, revision, playbook, result.
    pub(super) last: BTreeMap<String, String>,
    /// Resources that are not as declared now.
    pub(super) pending: usize,
    /// Stack -> the release that `current` points to.
    pub(super) releases: BTreeMap<String, String>,
    /// Stack -> who rolled it back and when.
    pub(super) pins: BTreeMap<String, String>,
    pub(super) checks: usize,
    /// Health checks that do not pass now, with what was seen.
    pub(super) unhealthy: Vec<String>,
    /// When the newest backup was finished, in seconds since the epoch.
    pub(super) backup: Option<i64>,
    /// Whether backups are made here at all.
    pub(super) backs_up: bool,
    /// The certificate that ends first: path and when, in seconds since the epoch.
    pub(super) certificate: Option<(String, i64)>,
    pub(super) hold: Option<Hold>,
    /// Whoever works on it now.
    pub(super) locked: Option<BTreeMap<String, String>>,
    /// Handlers that a run which died still owes.
    pub(super) owed: Vec<String>,
}

/// Looks at hosts.
#[derive(Default)]
pub(super) struct Look {
    pub(super) found: Mutex<BTreeMap<String, Standing>>,
}

impl Operation for Look {
    fn run<'a>(&'a self, host: &'a mut HostRun) -> Walk<'a> {
        Box::pin(async move {
            let mut standing = Standing {
                last: host.state.last.clone(),
                pins: host.state.pins.clone(),
                owed: host.state.owed.clone(),
                hold: host.hold(),
                locked: host.state.held_by.clone(),
                pending: pending(host),
                ..Standing::default()
            };
            let output = host.script("looking at releases and backups", script(), Duration::from_secs(60)).await?;
            read(&String::from_utf8_lossy(&output.stdout), &mut standing);
            standing.certificate = certificate(host).await?;
            let checks = host.health_now().await?;
            standing.checks = checks.len();
            standing.unhealthy =
                checks.into_iter().filter(|(_, passed, _)| !passed).map(|(title, _, detail)| format!("{title}: {detail}")).collect();
            self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(host.name.clone(), standing);
            Ok(())
        })
    }
}

fn pending(host: &HostRun) -> usize {
    let differs = |decision: &&Decision| !matches!(decision, Decision::Known(plan) if plan.is_in_sync() || plan.unchecked);
    host.plans.values().flatten().filter(differs).count()
}

/// Reads releases and the newest finished backup; runs nothing that is on the host.
fn script() -> Script {
    Script::sh(
        r#"for s in /var/lib/soc-provision/stacks/*/; do
  [ -d "$s" ] || continue
  c=$(readlink "${s}current") || continue
  n=${s%/}; printf 'release %s %s\n' "${n##*/}" "${c##*/}"
done
conf=/etc/soc-provision/backup/settings dir=/var/backups/soc
if [ -r $conf ]; then
  echo 'backs up'
  d=$(sed -n "s/^dir='\(.*\)'\$/\1/p" $conf | tail -n 1)
  [ -z "$d" ] || dir=$d
fi
new=
for b in "$dir"/2*T*Z; do [ -d "$b" ] && new=${b##*/}; done
[ -z "$new" ] || printf 'backup %s\n' "$new"
exit 0
"#,
        &[],
    )
}

fn read(output: &str, standing: &mut Standing) {
    for line in output.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("release"), Some(stack), Some(release)) => {
                standing.releases.insert(printable(stack), printable(release));
            }
            (Some("backs"), Some("up"), None) => standing.backs_up = true,
            (Some("backup"), Some(stamp), None) => standing.backup = stamp_time(stamp),
            _ => {}
        }
    }
}

/// `20261128T004836Z` in seconds since the epoch.
fn stamp_time(stamp: &str) -> Option<i64> {
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", stamp).ok()?;
    time.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_second())
}

/// Of the certificates that the playbook declares, the one that ends first.
async fn certificate(host: &HostRun) -> Result<Option<(String, i64)>, crate::diagnostic::Failure> {
    let is_certificate = |path: &String| [".crt", ".pem", ".cert", ".cer"].iter().any(|end| path.ends_with(end));
    let mut paths: Vec<String> = host
        .claims()
        .into_iter()
        .filter_map(|(_, claim)| if let Claim::Path(path) = claim { Some(path) } else { None })
        .chain(host.resources().map(|resource| resource.id().name).filter(|name| name.starts_with('/')))
        .filter(is_certificate)
        .collect();
    paths.sort();
    paths.dedup();
    if paths.is_empty() {
        return Ok(None);
    }
    let questions: Vec<Question> = paths.iter().cloned().map(Question::Content).collect();
    let answers = host.ask(&questions).await?;
    let ends = paths.iter().zip(&questions).filter_map(|(path, question)| match answers.get(question) {
        Some(Answer::Content(Some(bytes))) => expiry::first_end(bytes).map(|end| (path.clone(), end)),
        _ => None,
    });
    Ok(ends.min_by_key(|(_, end)| *end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_prints_is_read() {
        let mut standing = Standing::default();
        read("release siem r1\nbacks up\nbackup 20261128T004836Z\nodd\n", &mut standing);
        assert_eq!(standing.releases["siem"], "r1");
        assert!(standing.backs_up);
        assert_eq!(standing.backup, Some(1_795_826_916));
        assert_eq!(stamp_time("2x"), None);
    }
}
