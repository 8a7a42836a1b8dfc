//! Files of packages that were altered in place, by the digests that dpkg keeps. It owns the
//! question, which only drift asks since it reads every file of a package that was touched, and the way back: the
//! same version once more. It leaves alone configuration files (`package_config`) and what systems
//! leave out on purpose, such as documentation.

use super::DEADLINE;
use crate::resource::Severity;
use crate::resource::observe::Question;
use crate::resource::plan::{Change, Effect, Plan, Step};
use crate::shell::Script;

/// Prints `altered PATH` or `missing PATH`. dpkg(1), `--verify-format rpm`: a `c` before the path
/// marks configuration files.
const VERIFY: &str = r#"dpkg --verify --verify-format rpm -- "$@" 2>/dev/null | while IFS= read -r l; do
  case $l in
  '??5'*' c /'* | 'missing'*' c /'*) continue ;;
  '??5'*' /'*) w=altered ;;
  'missing'*' /'*) w=missing ;;
  *) continue ;;
  esac
  f=/${l#*/}; f=${f%" (Permission denied)"}
  case $w:$f in missing:/usr/share/doc/* | missing:/usr/share/man/* | missing:/usr/share/locale/* | missing:/usr/share/info/* | \
    missing:/usr/share/lintian/* | missing:/usr/share/linda/* | missing:/usr/share/groff/* | missing:/usr/share/i18n/* | \
    missing:/usr/share/gnome/* | missing:/usr/share/help/* | missing:/usr/share/bug/* | missing:/usr/share/doc-base/*) continue ;; esac
  printf '%s %s\n' $w "$f"
done
"#;

/// Prints `diverted PATH` for files of the packages that somebody moved aside by dpkg-divert(1), which
/// dpkg then verifies where they are now. `:` stands where the package that diverts would.
const DIVERTED: &str = r#"while IFS= read -r f && IFS= read -r t && IFS= read -r p; do
  [ "$p" = : ] || continue
  for n; do for l in /var/lib/dpkg/info/$n.list /var/lib/dpkg/info/$n:*.list; do
    if [ -r "$l" ] && grep -qxF -e "$f" -e "${f#/usr}" -- "$l"; then printf 'diverted %s\n' "$f"; fi
  done; done
done </var/lib/dpkg/diversions
"#;

/// Keeps only the packages with a file that was touched since dpkg unpacked it, or that is gone: changing a file in any
/// way sets its ctime (inode(7)), and the list of a package is written once its files are there.
const TOUCHED: &str = r#"for n; do
  shift
  l=/var/lib/dpkg/info/$n.list
  if [ ! -r "$l" ]; then for l in /var/lib/dpkg/info/$n:*.list; do :; done; fi
  if [ -r "$l" ] && t=$(xargs -d '\n' -a "$l" sh -c 'find "$@" -maxdepth 0 ! -type d -newercc "$0" -print -quit' "$l" 2>&1) && [ -z "$t" ]; then continue; fi
  set -- "$@" "$n"
done
[ $# -gt 0 ] || exit 0
"#;

/// Prints the same of a unit's file, if a package brought it. Files from before the merge of `/usr`
/// are listed without it.
const UNIT: &str = r#"f=$(systemctl show -p FragmentPath --value -- "$u" 2>/dev/null)
[ -n "$f" ] || f=/usr/lib/systemd/system/$u
case $f in /lib/*) f=/usr$f ;; /usr/lib/systemd/*) ;; *) exit 0 ;; esac
w=; e=${f#/usr/}
set -- /var/lib/dpkg/info/*.md5sums
w=$(grep -hF -e "  ${f#/}" -e "  $e" -- "$@" 2>/dev/null | while read -r h p; do
  if [ "$p" = "${f#/}" ] || [ "$p" = "$e" ]; then echo "$h"; break; fi; done)
[ -n "$w" ] || exit 0
if [ ! -e "$f" ]; then echo "missing $f"; else h=$(md5sum <"$f"); [ "${h%% *}" = "$w" ] || echo "altered $f"; fi
:
"#;

/// The question about packages.
pub(in crate::resource) fn of_packages(names: &[&str]) -> Question {
    let script = names.iter().fold(Script::sh("export LC_ALL=C; set --", &[]), |script, name| script.then(" {}", &[name]));
    let script = script.then("\n", &[]).then(DIVERTED, &[]).then(TOUCHED, &[]).then(VERIFY, &[]).then(":\n", &[]);
    Question::Raw { key: format!("dpkg-verify {}", names.join(" ")), script }
}

/// The question about a unit's file.
pub(in crate::resource) fn of_unit(unit: &str) -> Question {
    Question::Raw { key: format!("dpkg-unit {unit}"), script: Script::sh("export LC_ALL=C; u={}\n", &[unit]).then(UNIT, &[]) }
}

/// What to do about files that one of the questions told of; nothing if it told of none.
pub(in crate::resource) fn plan(told: &str) -> Plan {
    let files: Vec<(&str, &str)> = told.lines().filter_map(|line| line.split_once(' ')).collect();
    if files.is_empty() {
        return Plan::in_sync();
    }
    let changes = files.iter().map(|(how, path)| Change::of(*path, *how, "as its package brought it")).collect();
    let list = files.iter().fold(Script::new(), |script, (_, path)| script.then(" {}", &[path]));
    let script = Script::sh(include_str!("apt.sh"), &[]).then("repair\nset --", &[]).append(list).then("\n", &[]).then(REINSTALL, &[]);
    let step = Step::new("install packages whose files were altered once more", script).deadline(DEADLINE).surviving();
    let effects = files.iter().map(|(_, path)| Effect::Path((*path).to_owned())).collect();
    Plan { changes, steps: vec![step], effects, severity: Some(Severity::Security), ..Plan::default() }
}

/// Installs the version that is there: nothing is upgraded behind anybody's back.
const REINSTALL: &str = r#"for f in "$@"; do
  chattr -i -a -- "$f" 2>/dev/null
  if d=$(dpkg-divert --listpackage "$f" 2>/dev/null) && [ "$d" = LOCAL ]; then rm -f -- "$f" && dpkg-divert --quiet --rename --remove "$f" || exit 1; fi
done
names=$(for f in "$@"; do dpkg -S -- "$f" 2>/dev/null || dpkg -S -- "${f#/usr}" 2>/dev/null; done | grep -v '^diversion ' | sed 's|: /.*||; s|,||g' | tr ' ' '\n' | sort -u)
files=$*; set --
for p in $names; do set -- "$@" "$p=$(dpkg-query -W -f '${Version}' -- "$p")" || exit 1; done
held=$(apt-mark showhold $names)
[ $# -gt 0 ] || { echo "no package knows $files" >&2; exit 1; }
install_all 3600 --reinstall --no-install-recommends "$@" || { echo "the version that is installed cannot be had any more: upgrade $names" >&2; exit 1; }
[ -z "$held" ] || apt-mark hold $held >/dev/null || exit 1
systemctl daemon-reload 2>/dev/null || :
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::{run, shown};

    #[test]
    fn altered_programs_are_told_and_configuration_is_not() {
        let dpkg = "dpkg() { printf '%s\\n' '??5??????   /usr/bin/less' '??5?????? c /etc/less' 'missing     /usr/share/doc/less/x' 'missing     /usr/bin/lessecho' 'missing   c /etc/y'; }\n";
        let (status, told, _) = run(&Script::sh(dpkg, &[]).then(VERIFY, &[]), &crate::secret::Vault::default());
        let told = String::from_utf8(told).unwrap();
        assert_eq!((status, told.trim()), (0, "altered /usr/bin/less\nmissing /usr/bin/lessecho"));
        let plan = plan(&told);
        assert_eq!(
            shown(&plan),
            ["/usr/bin/less: altered -> as its package brought it", "/usr/bin/lessecho: missing -> as its package brought it"]
        );
        assert_eq!(plan.severity, Some(Severity::Security));
        assert!(super::plan("").is_in_sync());
    }
}
