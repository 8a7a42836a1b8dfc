//! Removing what nobody declared, for who asks for it (`drift --prune`). What goes may be evidence,
//! so it is saved on the host before, for root's eyes only; what cannot be saved stays.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::diagnostic::{Failure, FailureClass, printable};
use crate::engine::apply::Walk;
use crate::engine::findings;
use crate::engine::host::HostRun;
use crate::engine::lockout;
use crate::engine::operate::Operation;
use crate::engine::undeclared::{self, Target, Undeclared};
use crate::event::Outcome;
use crate::resource::Place;
use crate::resource::plan::{Change, Effect, Plan, Step};
use crate::shell::Script;

/// Where a host keeps what was removed, one directory a run.
pub const KEPT: &str = "/var/lib/soc-provision/removed";

/// How long one removal may take: a container's file system is saved first.
const DEADLINE: Duration = Duration::from_secs(900);

/// Something that was removed, or why it was not.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Removed {
    pub host: String,
    pub id: String,
    /// Where on the host it is kept.
    pub kept: String,
    /// Why it is still there, if it is.
    pub failure: Option<String>,
}

/// Removes what nobody declared in some of the places that the project owns.
pub struct Prune {
    /// Words of places; `all` stands for every one.
    pub places: Vec<String>,
    /// What was done, by everybody.
    pub done: Mutex<Vec<Removed>>,
}

impl Operation for Prune {
    fn run<'a>(&'a self, host: &'a mut HostRun) -> Walk<'a> {
        Box::pin(self.on(host))
    }
}

impl Prune {
    fn note(&self, host: &HostRun, item: &Undeclared, kept: &str, failure: Option<String>) {
        let removed = Removed { host: host.name.clone(), id: item.id.to_string(), kept: kept.to_owned(), failure };
        self.done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(removed);
    }

    async fn on(&self, host: &mut HostRun) -> Result<(), Failure> {
        let seen = host.ask(&undeclared::questions(&host.claims())).await?;
        let (found, _) = host.undeclared(&seen);
        let mut weighed = findings::of_places(&found, &[]);
        host.weigh(&mut weighed, &found);
        let accepted = |item: &Undeclared| weighed.iter().any(|finding| finding.id == item.id && finding.accepted.is_some());
        let kept = format!("{KEPT}/{}", host.run_id());
        let mut failures = Vec::new();
        let mut removed = 0;
        for item in found {
            let word = item.place.word();
            let wanted = self.places.iter().any(|place| place == "all" || place == word);
            if !wanted || accepted(&item) {
                continue;
            }
            let Some(step) = step(&item, &kept) else { continue };
            let started = Instant::now();
            let outcome = remove(host, &item, step, removed).await;
            removed += 1;
            let failure = match outcome {
                Ok(()) => None,
                Err(failure) if failure.class.is_unreachable() || failure.class == FailureClass::Interrupted => return Err(failure),
                // Back as it was: the message is the whole reason.
                Err(failure) if failure.class == FailureClass::Reverted => {
                    self.note(host, &item, &kept, Some(failure.message.clone()));
                    return Err(failure);
                }
                Err(failure) => Some(told(&failure)),
            };
            if let Some(why) = &failure {
                failures.push(format!("{}: {why}", item.id));
                host.new_block()?;
            } else {
                host.report(format!("remove {}", item.id), Outcome::Changed, started);
            }
            self.note(host, &item, &kept, failure);
        }
        if failures.is_empty() {
            return Ok(());
        }
        let mut failure = Failure::new(FailureClass::StepFailed, "not everything could be removed");
        failure.causes = failures;
        Err(failure)
    }
}

/// Removes one thing; what a login depends on goes under a guard like any other change of it (DESIGN 8.1). `number`
/// tells the guards of a run apart, and from those of tasks.
async fn remove(host: &mut HostRun, item: &Undeclared, step: Step, number: usize) -> Result<(), Failure> {
    let mut plan = Plan::default().change(Change::remove("file", &item.id.name)).step(step);
    if let Target::Path(path) = &item.target {
        plan = plan.effect(Effect::Path(path.clone()));
    }
    let weighed = if host.target.local { Ok(plan) } else { lockout::weigh(&item.id, plan, &host.facts) };
    let mut plan = weighed.map_err(|reason| Failure::new(FailureClass::StepFailed, reason))?;
    match plan.guard.take() {
        Some(guard) => host.apply_guarded(usize::MAX - number, &item.id, &guard, plan, &[]).await,
        None => host.steps(&item.id, &plan.steps).await,
    }
}

fn told(failure: &Failure) -> String {
    let last = failure.stderr.lines().last().unwrap_or_default();
    if last.is_empty() { failure.message.clone() } else { printable(last) }
}

/// Shared by all removals: `keep NAME` prints nothing and stores stdin; `file PATH` stores a file
/// with its owner, mode and times.
const SHARED: &str = r#"export LC_ALL=C; umask 077
mkdir -p "$kept" || exit 1
say() { printf '%s\n' "$*" >&2; }
keep() { cat >"$kept/$1.new" && sync "$kept/$1.new" && mv -f "$kept/$1.new" "$kept/$1"; }
file() { tar -C / --xattrs --acls -rpf "$kept/files.tar" -- "${1#/}" 2>/dev/null || tar -C / -rpf "$kept/files.tar" -- "${1#/}"; }
room() { # KIB: that much and a gigabyte must be free
  free=$(df -Pk "$kept" | awk 'NR == 2 { print $4 }')
  [ "$free" -gt $(($1 + 1048576)) ] || { say "no room to keep it: $1 KiB and a gigabyte to spare are needed in $kept"; return 1; }
}
"#;

/// A control character in a name is told as `?`: the name that it may be, if there is one.
const NAMED: &str = r#"named() {
  case $f in *\?*) ;; *) return ;; esac
  IFS=
  for o in $(printf %s "$f" | sed 's/[[*]/[&]/g'); do
    if [ "$(printf %s "$o" | tr '[:cntrl:]' '?')" = "$f" ]; then f=$o; break; fi
  done
  unset IFS
}
[ -e "$f" ] || [ -L "$f" ] || named
"#;

const FILE: &str = r#"[ -e "$f" ] || [ -L "$f" ] || { say "$f is not there any more"; exit 97; }
[ ! -d "$f" ] || { say "$f is a directory"; exit 97; }
file "$f" || { say "$f could not be kept, so it stays"; exit 1; }
u=${f##*/}
case $f in
  *.d/*) u=${f%/*}; u=${u##*/}; u=${u%.d} ;;
esac
unit=; case $f in /etc/systemd/system* | /run/systemd/* | /usr/local/lib/systemd/system/*) unit=$u ;; esac
case $f in
  *.d/*) ;;
  *) if [ -n "$unit" ]; then systemctl disable --now -- "$unit" >/dev/null 2>&1; systemctl stop -- "$unit" >/dev/null 2>&1; fi ;;
esac
[ -L "$f" ] || ! command -v chattr >/dev/null || chattr -i -a -- "$f" 2>/dev/null
rm -f -- "$f" || exit 1
# A directory that was only there for the drop-in goes with it.
case $f in */systemd/*.d/* | */systemd/*-generators/*) rmdir -- "${f%/*}" 2>/dev/null; rmdir /etc/systemd/system.control /run/systemd/system.control 2>/dev/null ;; esac
case $f in
  /etc/systemd/* | /run/systemd/* | /usr/local/lib/systemd/*)
    systemctl daemon-reload
    case $f in
      *.d/*) [ -z "$unit" ] || systemctl try-restart -- "$unit" >/dev/null 2>&1 ;;
      *) [ -z "$unit" ] || systemctl reset-failed -- "$unit" >/dev/null 2>&1 ;;
    esac ;;
  */systemd/user/*) # a user's own manager, if it runs
    o=${f%%/.config/*}; o=${o%%/.local/*}; o=$(stat -c %U -- "$o" 2>/dev/null) && id=$(id -u -- "$o") && [ -d "/run/user/$id" ] && {
      runuser -u "$o" -- env XDG_RUNTIME_DIR="/run/user/$id" systemctl --user stop -- "${f##*/}"
      runuser -u "$o" -- env XDG_RUNTIME_DIR="/run/user/$id" systemctl --user daemon-reload
    } >/dev/null 2>&1 ;;
  /etc/ssh/*)
    if systemctl is-active --quiet ssh.service; then systemctl reload ssh.service; fi ;;
esac
for w in "${f%/*}"/*.wants "${f%/*}"/*.requires; do
  case $f in */systemd/*) [ -L "$w/${f##*/}" ] && [ ! -e "$w/${f##*/}" ] && rm -f -- "$w/${f##*/}" && rmdir -- "$w" 2>/dev/null ;; esac
done
exit 0
"#;

/// A package's program stays, without what it must not have.
const PROGRAM: &str = r#"if [ -f "$f" ] && { dpkg -S -- "$f" || dpkg -S -- "${f#/usr}"; } >/dev/null 2>&1; then
  { stat -c '%A %U:%G %n' -- "$f"; PATH=$PATH:/usr/sbin:/sbin getcap "$f"; } 2>/dev/null | keep "program-${f##*/}"
  if PATH=$PATH:/usr/sbin:/sbin getcap "$f" 2>/dev/null | grep -q .; then PATH=$PATH:/usr/sbin:/sbin setcap -r "$f" || exit 1; fi
  chmod u-s,g-s -- "$f"; exit
fi
"#;

const CONTAINER: &str = r#"mark=/var/lib/soc-provision/contained/$(docker container inspect -f '{{.Id}}' "$i") || exit 97
if [ -f "$mark" ]; then say "it was contained by $(sed -n 's/^who //p' "$mark") ($(sed -n 's/^reason //p' "$mark")) and stays until it is released"; exit 1; fi
docker container inspect -s "$i" | keep "container-$i.json" || exit 1
name=$(docker container inspect -f '{{.Name}}' "$i") || exit 97
size=$(docker container inspect -s -f '{{.SizeRootFs}}' "$i")
room $((${size:-0} / 1024)) || exit 1
docker logs --timestamps --tail 100000 "$i" 2>&1 </dev/null | gzip -n | keep "container-$i.log.gz"
docker diff "$i" 2>/dev/null | keep "container-$i.diff"
docker top "$i" -eo pid,ppid,user,lstart,args 2>/dev/null | keep "container-$i.top"
docker pause "$i" >/dev/null 2>&1
docker export "$i" | gzip -1 -n | keep "container-$i.tar.gz" || { docker unpause "$i" >/dev/null 2>&1; say "its file system could not be kept, so it stays"; exit 1; }
docker rm -f "$i" >/dev/null || exit 1
"#;

const USER: &str = r#"l=$(getent passwd -- "$n") || exit 97
[ "$n" != root ] || { say "root stays"; exit 1; }
{ printf '%s\n' "$l"; getent shadow -- "$n"; getent group -- "$n"; id -- "$n"; } | keep "user-$n" || exit 1
IFS=: read -r name x uid gid comment home shell <<.
$l
.
own=; case $home in
  "/home/$n") [ "$(stat -c %u -- "$home" 2>/dev/null)" = "$uid" ] && [ "$(awk -F: -v h="$home" '$6 == h' /etc/passwd | wc -l)" = 1 ] && own=1 ;;
esac
if [ -n "$own" ]; then
  room "$(du -sk -- "$home" | cut -f1)" && tar -C / -cpf - -- "${home#/}" | gzip -1 -n | keep "home-$n.tar.gz" || { say "the home directory could not be kept, so the user stays"; exit 1; }
fi
if [ "$uid" -ge 1000 ] && [ "$(awk -F: -v u="$uid" '$3 == u' /etc/passwd | wc -l)" = 1 ]; then
  loginctl terminate-user -- "$n" 2>/dev/null; pkill -KILL -u "$uid" 2>/dev/null
  i=0; while [ $i -lt 20 ] && pgrep -u "$uid" >/dev/null; do sleep 0.1; i=$((i + 1)); done
fi
if [ "$uid" -lt 1000 ] && [ "$uid" -ne 0 ]; then
  # An account of the system's: it loses its shell, which is what makes it a login.
  usermod -s /usr/sbin/nologin -- "$n"; exit
fi
if [ -f "/var/spool/cron/crontabs/$n" ]; then file "/var/spool/cron/crontabs/$n" && rm -f "/var/spool/cron/crontabs/$n"; fi
if [ "$uid" -eq 0 ]; then
  # `userdel` would look for processes of uid 0.
  for f in /etc/passwd /etc/shadow /etc/subuid /etc/subgid; do
    [ -f $f ] || continue
    cp -p $f $f.soc-new && awk -F: -v n="$n" '$1 != n' $f >$f.soc-new && sync $f.soc-new && mv -f $f.soc-new $f || exit 1
  done
  getent group -- "$n" >/dev/null && [ "$(getent group -- "$n" | cut -d: -f3)" != 0 ] && groupdel -- "$n"
  exit 0
fi
userdel ${own:+-r} -- "$n" 2>/dev/null || userdel -f ${own:+-r} -- "$n" || exit 1
"#;

const KEY: &str = r#"[ -f "$f" ] && [ ! -L "$f" ] || { say "$f is not a file"; exit 97; }
file "$f" || exit 1
t=$f.soc-new
grep -vxF -e "$l" -- "$f" >"$t"; [ $? -le 1 ] || { rm -f -- "$t"; exit 1; }
chown --reference="$f" -- "$t" && chmod --reference="$f" -- "$t" && sync -- "$t" || exit 1
if [ -s "$t" ] && grep -q '[^[:space:]]' "$t"; then mv -f -- "$t" "$f"; else rm -f -- "$t" "$f"; fi
"#;

/// A package's own file comes back from the package.
const PACKAGE_FILE: &str = r#"p=$(dpkg -S -- "$f" 2>/dev/null | sed -n "s|: $f\$||p" | head -n 1 | cut -d, -f1)
[ -n "$p" ] || p=$(sed -n "s|^\([^[:space:]]*\)[[:space:]][[:space:]]*$f\$|\1|p" /var/lib/ucf/registry 2>/dev/null | head -n 1)
[ -n "$p" ] || { say "no package brings $f"; exit 1; }
w=$(dpkg-query -W -f '${Conffiles}\n' "$p" 2>/dev/null | sed -n "s|^ *$f \([0-9a-f]*\).*|\1|p")
# Put right already, as part of another place.
if [ -n "$w" ] && [ -e "$f" ] && [ "$(md5sum <"$f")" = "$w  -" ]; then exit 0; fi
if [ -e "$f" ]; then file "$f" || exit 1; fi
cp -p -- "$f" "$f.soc-old" 2>/dev/null
rm -f -- "$f"
if DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFMISS=1 apt-get -y -q --reinstall -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confmiss -o Dpkg::Options::=--force-confold install "$p" >&2 && [ -e "$f" ]; then
  rm -f -- "$f.soc-old"
else
  mv -f -- "$f.soc-old" "$f" 2>/dev/null; say "package $p could not be installed again, so $f stays as it is"; exit 1
fi
"#;

/// The step that saves and removes one thing; nothing for what cannot be removed by itself.
fn step(item: &Undeclared, kept: &str) -> Option<Step> {
    let head = Script::sh("kept={}\n", &[kept]).then(SHARED, &[]);
    let script = match (&item.place, &item.target) {
        (Place::Containers, Target::Name(id)) => head.then("i={}\n", &[id]).then(CONTAINER, &[]),
        (Place::Networks, Target::Name(name)) => head.then("docker network inspect {} | keep {} || exit 97\n", &[name, &format!("network-{}", safe(name))]).then(
            "for c in $(docker network inspect -f '{{range $k, $v := .Containers}}{{$k}} {{end}}' {}); do docker network disconnect -f {} \"$c\" || exit 1; done\ndocker network rm {} >/dev/null\n",
            &[name, name, name],
        ),
        (Place::Volumes, Target::Name(name)) => head
            .then("v={} as={}\n", &[name, &format!("volume-{}", safe(name))])
            .then("docker volume inspect \"$v\" | keep \"$as.json\" || exit 97\nd=$(docker volume inspect -f '{{.Mountpoint}}' \"$v\")\nif [ -d \"$d\" ]; then\n  room \"$(du -sk -- \"$d\" | cut -f1)\" && tar -C \"$d\" --numeric-owner -cpf - . | gzip -1 -n | keep \"$as.tar.gz\" || { say 'its data could not be kept, so it stays'; exit 1; }\nfi\ndocker volume rm -- \"$v\" >/dev/null\n", &[]),
        (Place::Users, Target::Name(name)) => head.then("n={}\n", &[name]).then(USER, &[]),
        (Place::Users, Target::Member { user, group }) => head
            .then("getent group -- {} | keep {} || exit 97\ngpasswd -d {} {} >/dev/null\n", &[group, &format!("group-{}", safe(group)), user, group]),
        (Place::NftTables, Target::Name(name)) => {
            let (family, table) = name.split_once(' ')?;
            head.then("nft -s list table {} {} | keep {} || exit 97\nnft delete table {} {}\n", &[family, table, &format!("nft-{}", safe(name)), family, table])
        }
        (Place::AuthorizedKeys, Target::Line { path, line }) => head.then("f={} l={}\n", &[path, line]).then(KEY, &[]),
        (Place::PackageConfig, Target::Path(path)) => head.then("f={}\n", &[path]).then(PACKAGE_FILE, &[]),
        (_, Target::Path(path)) if matches!(path.as_str(), "/etc/sudoers" | "/etc/crontab") => head.then("f={}\n", &[path]).then(PACKAGE_FILE, &[]),
        (Place::Setuid, Target::Path(path)) => head.then("f={}\n", &[path]).then(PROGRAM, &[]).then(FILE, &[]),
        (_, Target::Path(path)) => head.then("f={}\n", &[path]).then(NAMED, &[]).then(FILE, &[]),
        _ => return None,
    };
    Some(Step::new(format!("remove {}", item.id), script).deadline(DEADLINE))
}

/// A name as part of a file's name.
fn safe(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{ResourceId, Severity};

    fn item(place: Place, target: Target) -> Undeclared {
        Undeclared { id: ResourceId::new("x", "y"), severity: Severity::Security, detail: String::new(), place, target }
    }

    #[test]
    fn a_name_with_a_control_character_is_found_by_how_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("a[b]*\nc d"), "x").unwrap();
        std::fs::write(at("a[b]*xc d"), "x").unwrap();
        for (told, meant) in [("a[b]*?c d", "a[b]*\nc d"), ("gone?", "gone?"), ("a[b]*xc d", "a[b]*xc d")] {
            let script = Script::sh("f={}\n", &[&at(told)]).then(NAMED, &[]).then("printf %s \"$f\"\n", &[]);
            let output = std::process::Command::new("sh").arg("-c").arg(script.shown()).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), at(meant));
        }
    }

    #[test]
    fn every_removal_is_posix_sh_and_saves_first() {
        let name = || Target::Name("inet evil".into());
        let all = [
            item(Place::Containers, name()),
            item(Place::Networks, name()),
            item(Place::Volumes, name()),
            item(Place::Users, name()),
            item(Place::Users, Target::Member { user: "eve".into(), group: "sudo".into() }),
            item(Place::NftTables, name()),
            item(Place::AuthorizedKeys, Target::Line { path: "/x".into(), line: "ssh-ed25519 AAAA 'q".into() }),
            item(Place::Cron, Target::Path("/etc/cron.d/x".into())),
            item(Place::Setuid, Target::Path("/usr/bin/find".into())),
            item(Place::Sudoers, Target::Path("/etc/sudoers".into())),
        ];
        for item in all {
            let script = step(&item, "/kept").unwrap().script.shown();
            assert!(script.contains("keep ") || script.contains("file \""), "{script}");
            let mut child = std::process::Command::new("sh").arg("-n").stdin(std::process::Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success(), "{script}");
        }
        assert!(step(&item(Place::Ports, Target::None), "/kept").is_none());
    }
}
