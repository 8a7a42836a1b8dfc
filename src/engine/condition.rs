//! The condition of a host that no resource declares and that drift tells of all the same: a reboot
//! that is due, units that failed, backups that are late. Pure: a question and what its answer means.

use crate::diagnostic::printable;
use crate::event::{Finding, FindingState};
use crate::resource::observe::{Answer, Observations, Question};
use crate::resource::{ResourceId, Severity};
use crate::shell::Script;

/// A backup that is older is late: they are made every day.
const BACKUP_HOURS: i64 = 50;
/// A restore test that is older is late: they are made every month.
const RESTORE_TEST_DAYS: i64 = 40;

const ASK: &str = r#"export LC_ALL=C
if [ -e /run/reboot-required ] || [ -e /var/run/reboot-required ]; then
  printf 'reboot'; [ ! -r /run/reboot-required.pkgs ] || sort -u /run/reboot-required.pkgs | head -n 20 | while read -r p; do printf ' %s' "$p"; done; echo
fi
if [ -d /run/systemd/system ]; then
  systemctl list-units --failed --plain --no-legend --no-pager 2>/dev/null | while read -r u x; do
    # A login's own manager is not the host's.
    case $u in user@* | user-runtime-dir@* | session-*) ;; *) printf 'failed %s\n' "$u" ;; esac
  done
fi
# What lies in them is run and believed by root.
for d in /var/lib/soc-provision /etc/soc-provision; do
  [ ! -d $d ] || case $(stat -Lc '%u %a' $d) in "0 "*[0145][0145]) ;; *) printf 'open %s %s\n' $d "$(stat -Lc '%U %a' $d)" ;; esac
done
c=/etc/soc-provision/backup
if [ -r $c/plan ] && [ -r $c/settings ]; then
  dir=$(sed -n "s/^dir=//p" $c/settings | tr -d "'\""); dir=${dir:-/var/backups/soc}
  now=$(date +%s); set_up=$(stat -c %Y $c/plan)
  for s in $(grep -v '^#' $c/plan | cut -f 1 | sort -u); do
    t=; for m in "$dir"/2*/"$s"/MANIFEST; do [ -f "$m" ] && t=$(stat -c %Y "$m"); done
    printf 'backup %s %s %s\n' "$s" $((now - ${t:-$set_up})) ${t:+made}
  done
  r=/var/lib/soc-provision/backup/restore-test.json
  if [ -f $r ]; then
    if grep -q '"result" *: *"[^"]*\(fail\|damage\|differ\|error\)' $r; then echo 'restore failed'; fi
    printf 'restore %s\n' $((now - $(stat -c %Y $r)))
  fi
fi
:
"#;

/// The question.
#[must_use]
pub fn question() -> Question {
    Question::Raw { key: "condition".to_owned(), script: Script::sh(ASK, &[]) }
}

/// What is not as it should be. `owed`: handlers that an earlier run left undone.
#[must_use]
pub fn find(seen: &Observations, owed: &[String]) -> Vec<Finding> {
    let mut out: Vec<Finding> =
        owed.iter().map(|name| finding("handler", name, "an earlier run owes this handler: the next apply runs it".to_owned())).collect();
    match seen.get(&question()) {
        Some(Answer::Raw(output)) if output.status == 0 => out.extend(output.stdout.lines().filter_map(line)),
        Some(Answer::Failed(reason)) => out.push(unknown(reason)),
        Some(Answer::Raw(output)) => out.push(unknown(&format!("the probe ended with status {}", output.status))),
        _ => out.push(unknown("it was not asked")),
    }
    out
}

fn unknown(reason: &str) -> Finding {
    Finding { state: FindingState::Unknown, ..finding("host", "condition", reason.to_owned()) }
}

/// A finding about availability.
pub(super) fn finding(kind: &str, name: &str, detail: String) -> Finding {
    Finding {
        id: ResourceId::new(kind, printable(name)),
        severity: Severity::Availability,
        state: FindingState::Condition,
        role: None,
        task: None,
        changes: Vec::new(),
        detail: printable(&detail),
        prune: None,
        since: None,
        accepted: None,
    }
}

fn line(line: &str) -> Option<Finding> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let words: Vec<&str> = rest.split(' ').collect();
    let number = |index: usize| words.get(index).and_then(|word| word.parse::<i64>().ok());
    match word {
        "reboot" => {
            let why = if rest.is_empty() { String::new() } else { format!(" for {rest}") };
            Some(finding("host", "reboot", format!("a reboot is due{why}")))
        }
        "failed" => Some(finding("failed_unit", rest, "systemd says that it failed".to_owned())),
        "open" => {
            let [path, owner, mode] = words[..] else { return None };
            let detail = format!("mode {mode}, owner {owner}: others than root may change what root runs; the next apply closes it");
            Some(Finding { severity: Severity::Security, ..finding("tool_state", path, detail) })
        }
        "backup" => {
            let hours = number(1)? / 3600;
            let made = words.get(2) == Some(&"made");
            (hours > BACKUP_HOURS).then(|| {
                let detail = if made {
                    format!("the newest backup is {hours} hours old")
                } else {
                    format!("no backup was made in the {hours} hours since it was set up")
                };
                finding("backup", words[0], detail)
            })
        }
        "restore" if rest == "failed" => Some(finding("backup", "restore-test", "the last restore test failed".to_owned())),
        "restore" => {
            let days = number(0)? / 86_400;
            (days > RESTORE_TEST_DAYS).then(|| finding("backup", "restore-test", format!("the last restore test was {days} days ago")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::observe::RawOutput;

    fn told(stdout: &str, owed: &[&str]) -> Vec<String> {
        let mut seen = Observations::default();
        seen.insert(question(), Answer::Raw(RawOutput { status: 0, stdout: stdout.to_owned() }));
        let owed: Vec<String> = owed.iter().map(|name| (*name).to_owned()).collect();
        find(&seen, &owed).iter().map(|finding| format!("{}: {}", finding.id, finding.detail)).collect()
    }

    #[test]
    fn only_what_is_late_is_told() {
        let text = "reboot linux-image\nfailed x.service\nopen /etc/soc-provision root 777\nbackup siem 7200 made\nbackup soar 360000 made\nbackup waf 360000 \nrestore 100\nrestore failed";
        assert_eq!(
            told(text, &["restart x"]),
            [
                "handler[restart x]: an earlier run owes this handler: the next apply runs it",
                "host[reboot]: a reboot is due for linux-image",
                "failed_unit[x.service]: systemd says that it failed",
                "tool_state[/etc/soc-provision]: mode 777, owner root: others than root may change what root runs; the next apply closes it",
                "backup[soar]: the newest backup is 100 hours old",
                "backup[waf]: no backup was made in the 100 hours since it was set up",
                "backup[restore-test]: the last restore test failed"
            ]
        );
        assert!(told("", &[]).is_empty());
        assert_eq!(find(&Observations::default(), &[])[0].state, FindingState::Unknown);
    }

    #[test]
    fn the_question_is_posix_sh() {
        let mut child = std::process::Command::new("sh").arg("-n").stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), ASK.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}
