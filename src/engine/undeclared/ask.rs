//! What is asked of a host about the places that the project owns. Read-only; one process for each
//! kind of question, however many things there are.

use crate::resource::Place;
use crate::resource::observe::Question;
use crate::shell::Script;

/// What the fragments share. `list` prints each file that no package brought, one a line; a name
/// with a control character in it is printed with `?` for it, so that one name stays one line.
/// `homes` prints `USER HOME` of every account.
const SHARED: &str = r#"export LC_ALL=C; nl='
'
show() { case $1 in *[[:cntrl:]]*) printf %s "$1" | tr '[:cntrl:]' '?'; echo ;; *) printf '%s\n' "$1" ;; esac; }
list() {
  [ $# -gt 0 ] || return 0
  # Packages from before the merge of /usr name files without it.
  owned=$nl$( { dpkg -S -- "$@"; for f in "$@"; do case $f in /usr/lib/* | /usr/bin/* | /usr/sbin/*) set -- "$@" "${f#/usr}" ;; esac; shift; done
    [ $# = 0 ] || dpkg -S -- "$@"; } 2>/dev/null)$nl
  for f in "$@"; do case $owned in *": $f$nl"* | *": ${f#/usr}$nl"*) ;; *) show "$f" ;; esac; done
}
homes() { while IFS=: read -r n x u g c h s; do case $h in /*) printf '%s %s\n' "$n" "$h" ;; esac; done </etc/passwd | sort -u; }
conffile() { # PATH PACKAGE: prints the path if it is not what the package brought
  w=$(dpkg-query -W -f '${Conffiles}\n' "$2" 2>/dev/null | sed -n "s|^ *$1 \([0-9a-f]*\).*|\1|p")
  [ -n "$w" ] || return 0
  if [ ! -e "$1" ]; then echo "$1"; else h=$(md5sum <"$1"); [ "${h%% *}" = "$w" ] || echo "$1"; fi
}
"#;

/// Ends here unless Docker's daemon runs: asking its socket might start it.
const DOCKER: &str = r#"command -v docker >/dev/null || exit 0
p=; if [ -r /run/docker.pid ]; then read -r p </run/docker.pid || :; fi
if [ -d /run/systemd/system ]; then [ -n "$p" ] && [ -d "/proc/$p" ] || exit 0; fi
"#;
/// `NAME`, whatever its labels say: whoever makes one can copy them.
const NETWORKS: &str = "docker network ls --format '{{.Name}}'";
/// `NAME`, and `m PROJECT VOLUMES` for what containers mount: volumes without a name of their own are those of their containers.
const VOLUMES: &str =
    r#"docker volume ls --format '{{.Name}}' && docker ps -a --no-trunc --format 'm {{.Label "com.docker.compose.project"}} {{.Mounts}}'"#;

/// `u:NAME:UID:SHELL:HOME:PASSWORD`, with `locked`, `set` or `none` for the password; `g GROUP NAME`
/// for members of groups that are as good as root, `p GROUP NAME` for those whose first group it
/// is; `f PATH MODE OWNER` for a file of accounts that others than root may change, or read hashes in.
const USERS: &str = r#"[ -r /etc/shadow ] || exit 9
p=$(while IFS=: read -r n h x; do case $h in '') k=none ;; '!'* | '*'*) k=locked ;; *) k=set ;; esac; printf ' %s=%s ' "$n" $k; done </etc/shadow)
while IFS=: read -r n x u g c h s; do
  case $p in *" $n=set "*) k=set ;; *" $n=none "*) k=none ;; *) k=locked ;; esac
  [ -n "$x" ] || k=none
  printf 'u:%s:%s:%s:%s:%s\n' "$n" "$u" "${s:-/bin/sh}" "${h:-/}" $k
done </etc/passwd
while IFS=: read -r n x g m; do
  case $n in root | sudo | wheel | admin | docker | lxd | disk | shadow | kmem) ;; *) continue ;; esac
  IFS=,; for one in $m; do printf 'g %s %s\n' "$n" "$one"; done; unset IFS
  while IFS=: read -r u x i q c; do [ "$q" != "$g" ] || [ "$u" = root ] || printf 'p %s %s\n' "$n" "$u"; done </etc/passwd
done </etc/group
for f in /etc/passwd /etc/group /etc/shadow /etc/gshadow; do
  [ -e "$f" ] || continue
  set -- $(stat -c '%a %U' "$f"); m=$((0$1))
  case $f in *shadow) w=$((m & 037)) ;; *) w=$((m & 022)) ;; esac
  [ $w = 0 ] && [ "$2" = root ] || printf 'f %s %s %s\n' "$f" "$1" "$2"
done
:
"#;

/// `USER FILE LINE`, tabs between; the path of a file of sshd's configuration that no package
/// brought: whom sshd lets in, and by which keys, is said there.
const KEYS: &str = r#"tab=$(printf '\t')
set --; for f in /etc/ssh/sshd_config.d/*.conf; do [ -f "$f" ] && set -- "$@" "$f"; done; list "$@"
pat=$(cat /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf 2>/dev/null | while read -r k v; do case $k in [Aa]uthorized[Kk]eys[Ff]ile) printf '%s ' "$v" ;; esac; done)
set -f; set -- .ssh/authorized_keys .ssh/authorized_keys2 $pat; set +f
homes | while read -r n h; do
  for one in "$@"; do
    case $one in none) continue ;; esac
    f=$(printf %s "$one" | sed "s|%h|$h|g; s|%u|$n|g; s|%%|%|g")
    case $f in /*) ;; *) f=$h/$f ;; esac
    case " $did " in *" $n:$f "*) continue ;; esac; did="$did $n:$f"
    [ -r "$f" ] && [ -f "$f" ] || continue
    while IFS= read -r l || [ -n "$l" ]; do case $l in '' | '#'*) ;; *) printf '%s%s%s%s%s\n' "$n" "$tab" "$f" "$tab" "$l" ;; esac; done <"$f"
  done
done
:
"#;

const CRON: &str = r#"set --
for f in /etc/cron.d/* /etc/cron.hourly/* /etc/cron.daily/* /etc/cron.weekly/* /etc/cron.monthly/* /etc/cron.yearly/* /etc/anacrontab \
  /var/spool/cron/crontabs/* /var/spool/cron/atjobs/[!.]* /var/spool/cron/[!ac]*; do [ -f "$f" ] && set -- "$@" "$f"; done
list "$@"
[ ! -e /etc/crontab ] || conffile /etc/crontab 'cron*'
:
"#;

/// Timers, if the first word is `t`; else all other units and drop-ins. Links that only enable or
/// mask a packaged unit are none.
const UNITS: &str = r#"want=$1; set --
each() {
  for f in "$1"/* "$1"/*.d/*; do
    [ -f "$f" ] || [ -L "$f" ] || continue
    case $1 in /usr/lib/*) [ ! -L "$f" ] || continue ;; esac
    case $f in *.wants/* | *.requires/* | *.upholds/*) continue ;; esac
    b=${f##*/}; case $f in *.d/*) b=${f%/*}; b=${b##*/}; b=${b%.d} ;; esac
    case $want:$b in t:*.timer | t:timer) ;; t:*) continue ;; o:*.timer | o:timer) continue ;; esac
    if [ -L "$f" ]; then
      case $(readlink -f "$f") in /usr/lib/* | /lib/* | /etc/systemd/* | /run/systemd/* | /dev/null) continue ;; esac
    fi
    # The tool's own, if it is as the tool wrote it.
    case $f in */soc-provision-guard.service) [ "$(sha256sum <"$f")" != "$own  -" ] || continue ;; esac
    found=$found$nl$f
  done
}
found=
for d in /etc/systemd/system /etc/systemd/user /etc/systemd/system.control /run/systemd/system /run/systemd/system.control \
  /usr/local/lib/systemd/system /usr/local/lib/systemd/user /usr/lib/systemd/system /usr/lib/systemd/user; do each "$d"; done
[ "$want" = t ] && each /run/systemd/transient
homes | { while read -r n h; do
    for d in "$h/.config/systemd/user" "$h/.local/share/systemd/user"; do [ -d "$d" ] && each "$d"; done
  done
  IFS=$nl; set -f; list $found
}
:
"#;

const SUDOERS: &str = r#"set --
for f in /etc/sudoers.d/*; do [ -f "$f" ] || [ -L "$f" ] && set -- "$@" "$f"; done
list "$@"
[ ! -e /etc/sudoers ] || conffile /etc/sudoers sudo
:
"#;

const REPOSITORIES: &str = r#"set --
for f in /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/trusted.gpg /etc/apt/trusted.gpg.d/* /etc/apt/keyrings/* \
  /etc/apt/apt.conf /etc/apt/apt.conf.d/* /etc/apt/preferences /etc/apt/preferences.d/* /etc/apt/auth.conf /etc/apt/auth.conf.d/*; do
  [ -f "$f" ] && [ -s "$f" ] && set -- "$@" "$f"
done
list "$@"
:
"#;

/// Files that packages brought as configuration and that are not as they brought them. What is
/// missing counts too. Packages' own obsolete entries are left out.
const PACKAGE_CONFIG: &str = r#"{
  dpkg-query -W -f '${Conffiles}\n' | sed -n 's|^ *\(/[^ ]*\) \([0-9a-f]\{32\}\)$|\2  \1|p'
  [ ! -r /var/lib/ucf/hashfile ] || sed -n 's|^\([0-9a-f]\{32\}\)  *\(/etc/.*\)$|\1  \2|p' /var/lib/ucf/hashfile
} | sort -u | md5sum -c --quiet - 2>/dev/null | while IFS= read -r f; do f=${f%: FAILED*}; show "$f"; done
:
"#;

const STARTUP: &str = r#"set --
for f in /etc/init.d/* /etc/rc.local /etc/profile.d/* /etc/ld.so.preload /etc/systemd/*.conf.d/* \
  /run/systemd/*.conf.d/* /usr/lib/systemd/*.conf.d/* /usr/lib/systemd/*-generators/* /usr/lib/systemd/system-shutdown/* /usr/lib/systemd/system-sleep/* \
  /run/udev/rules.d/* /usr/lib/udev/rules.d/* /usr/lib/tmpfiles.d/* /usr/lib/modprobe.d/* /run/modprobe.d/* /usr/lib/modules-load.d/* \
  /run/modules-load.d/* /etc/polkit-1/rules.d/* /usr/share/polkit-1/rules.d/* /etc/dbus-1/system.d/* /usr/share/dbus-1/system.d/* \
  /usr/share/dbus-1/system-services/* /etc/ld.so.conf.d/* /etc/udev/rules.d/* /etc/modules-load.d/* \
  /etc/modprobe.d/* /etc/pam.d/* /etc/update-motd.d/* /etc/network/if-*.d/* /etc/NetworkManager/dispatcher.d/* /etc/dhcp/dhclient-*.d/* \
  /etc/environment.d/* /etc/networkd-dispatcher/*.d/* /etc/initramfs-tools/hooks/* /etc/initramfs-tools/scripts/*/* /etc/grub.d/* \
  /etc/sysusers.d/* /etc/rsyslog.d/* /etc/audit/plugins.d/* /etc/binfmt.d/* /etc/tmpfiles.d/* /etc/logrotate.d/* /etc/kernel/*.d/* /etc/xdg/autostart/* \
  /etc/systemd/*-generators/* /usr/local/lib/systemd/*-generators/* /run/systemd/*-generators/* /etc/ssh/sshrc; do
  # Debian makes PAM's common files itself, on each host anew.
  case $f in /etc/pam.d/common-*) continue ;; esac
  [ -f "$f" ] || [ -L "$f" ] && set -- "$@" "$f"
done
IFS=$nl; for f in $(homes | while read -r n h; do printf '%s\n' "$h/.ssh/rc"; done); do [ -f "$f" ] && set -- "$@" "$f"; done; unset IFS
list "$@"
pam
! grep -qE '^[[:space:]]*(export[[:space:]]+)?(LD_[A-Z]+|BASH_ENV|ENV|PYTHON[A-Z]+|PERL5[A-Z]+)=' /etc/environment 2>/dev/null || echo '! /etc/environment'
[ ! -e /etc/profile ] || [ ! -e /usr/share/base-files/profile ] || cmp -s /etc/profile /usr/share/base-files/profile || echo '! /etc/profile'
:
"#;

/// `pam` prints `! PATH` for each of PAM's common files in which there is a line that neither
/// Debian's template nor a profile which is switched on has; how far a line jumps is left out.
const PAM: &str = r#"norm() { sed 's/#.*//; s/[[:space:]]\{1,\}/ /g; s/^ //; s/ $//; s/=[0-9]\{1,\}/=end/g; /^$/d; /^\$/d'; }
pam() {
  for t in auth account password session session-noninteractive; do
    f=/etc/pam.d/common-$t; k=${t%-noninteractive}
    [ -f "$f" ] && [ -f "/var/lib/pam/$t" ] && [ -f "/usr/share/pam/common-$t" ] || continue
    a=$({ sed -n "/^Module:/d; /pam_/s/^/$k /p" "/var/lib/pam/$t"; cat "/usr/share/pam/common-$t"; } | norm)
    norm <"$f" | grep -vxFq -e "$a" && echo "! $f"
  done
}
"#;

/// Programs that give more than their caller has. A path: no package brought it. `p PATH`: a package
/// did, which as far as is known does not set that bit. `c PATH CAPABILITIES`: no package brought
/// it; `k PATH CAPABILITIES`: one did.
const SETUID: &str = r#"set -f; IFS=$nl; PATH=$PATH:/usr/sbin:/sbin
programs() { find /usr /bin /sbin /opt /srv /etc /home /root /tmp /var/tmp /usr/local -xdev \( -path /var/lib/docker -o -path /usr/share \) -prune -o -type f "$@" 2>/dev/null; }
s=$(programs -perm /6000 -print | sort -u)
list $s
o=$nl$(dpkg-statoverride --list 2>/dev/null)$nl
for f in $s; do
  case $owned in *": $f$nl"* | *": ${f#/usr}$nl"*) ;; *) continue ;; esac
  case ${f##*/} in
    su | sudo | sudoedit | mount | umount | passwd | chsh | chfn | gpasswd | newgrp | chage | expiry | unix_chkpwd | pam_extrausers_chkpwd | \
    ssh-agent | ssh-keysign | dbus-daemon-launch-helper | polkit-agent-helper-1 | pkexec | fusermount | fusermount3 | ntfs-3g | crontab | \
    wall | write | write.ul | bsd-write | at | mount.* | umount.* | newuidmap | newgidmap | utempter | Xorg.wrap | chrome-sandbox | postdrop | \
    postqueue | postlog | exim4 | screen | mlocate | plocate | locate | snap-confine | dotlockfile | lockfile | procmail | pppd | ping | ping6 | \
    traceroute6* | arping | mtr-packet | mail-lock | mail-unlock | mail-touchlock | camel-lock-helper* | dma* | ssmtp | opensmtpd | sensible-mda | \
    ksu | vmware-user-suid-wrapper | spice-client-glib-usb-acl-helper | xterm | doas | sendmail | sg | login | telnetlogin | ecryptfs* | kppp) continue ;;
  esac
  case $o in *" $f$nl"* | *" ${f#/usr}$nl"*) continue ;; esac
  printf 'p '; show "$f"
done
if command -v getcap >/dev/null; then
  c=$(programs -perm /111 -print0 | xargs -0 -r getcap 2>/dev/null)
  if [ -n "$c" ]; then
    set --
    for l in $c; do f=${l% *}; set -- "$@" "${f%" ="}"; done
    list "$@" >/dev/null
    for l in $c; do
      f=${l% *}; f=${f%" ="}; k=c
      case $owned in *": $f$nl"* | *": ${f#/usr}$nl"*) k=k ;; esac
      printf '%s ' $k; show "$f ${l##* }"
    done
  fi
fi
:
"#;

/// `r FAMILY TABLE CHAIN RULE` for each rule in the chains of Docker's tables to which Docker adds
/// nothing but the way into its own.
const RULES: &str = r#"for a in ip ip6; do
  for c in 'filter INPUT' 'filter OUTPUT' 'filter DOCKER-USER' 'nat PREROUTING' 'nat INPUT' 'nat OUTPUT' 'mangle PREROUTING' 'mangle INPUT'; do
    nft -s list chain $a $c 2>/dev/null | while IFS= read -r l; do
      l=$(printf %s "$l" | tr -s '[:space:]' ' '); l=${l# }
      case $l in '' | '#'* | 'table '* | 'chain '* | 'type '* | '}' | 'counter return' | 'return' | 'counter packets '*' return') continue ;; esac
      case $l in *' jump DOCKER' | *' jump DOCKER-'* | 'jump DOCKER'*) continue ;; esac
      printf 'r %s %s %s\n' "$a" "$c" "$l"
    done
  done
done
:
"#;

/// What must be asked about a place.
pub(super) fn question(place: &Place) -> Question {
    let plain = |code: &'static str| Script::sh(SHARED, &[]).then(code, &[]);
    let script = match place {
        Place::Containers => return Question::Containers,
        Place::Ports => return Question::Listening,
        Place::Networks => Script::sh(DOCKER, &[]).then(NETWORKS, &[]),
        Place::Volumes => Script::sh(DOCKER, &[]).then(VOLUMES, &[]),
        Place::Users => Script::sh(USERS, &[]),
        Place::AuthorizedKeys => plain(KEYS),
        Place::Cron => plain(CRON),
        Place::Timers => Script::sh("set -- t\n", &[]).then(SHARED, &[]).then(UNITS, &[]),
        Place::Units => {
            let own = crate::secret::sha256(crate::engine::guard::BOOT_UNIT.as_bytes());
            Script::sh("set -- o; own={}\n", &[&own]).then(SHARED, &[]).then(UNITS, &[])
        }
        Place::NftTables => Script::sh("command -v nft >/dev/null || exit 0; nft -j list tables || exit 1\n", &[]).then(RULES, &[]),
        Place::Sudoers => plain(SUDOERS),
        Place::Repositories => plain(REPOSITORIES),
        Place::PackageConfig => plain(PACKAGE_CONFIG),
        Place::Setuid => plain(SETUID),
        Place::Startup => plain(PAM).then(STARTUP, &[]),
        Place::Directory(path) => plain("").then(
            // The tool's own temporary files are not told of while they are new.
            "[ -d {} ] || exit 0\nset -f; IFS=$nl\nset -- $(find {} -mindepth 1 ! -type d ! \\( -name '.*soc-*' -cmin -10 \\) -printf '%p\\0' | head -z -n 10001 | tr '\\1-\\37\\177' '?' | tr '\\0' '\\n')\nif [ $# -gt 10000 ]; then echo 'it holds more than 10000 files'; exit 7; fi\nlist \"$@\"\n",
            &[path, path],
        ),
    };
    Question::Raw { key: format!("undeclared/{}{}", place.word(), directory(place)), script }
}

fn directory(place: &Place) -> &str {
    match place {
        Place::Directory(path) => path,
        _ => "",
    }
}
