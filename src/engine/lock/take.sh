# The host's lock, taken in the privileged shell itself, which keeps it open as its descriptor 9. The caller sets
# mine, as (the name of the host), force, by (the run, in words), who, from and since.
d=/var/lib/soc-provision
b=/run/soc-provision/broken/"$mine"
if ! command -v flock >/dev/null; then echo noflock
elif [ -e "$b" ]; then read -r l <"$b"; echo "broken $l"
elif ! e=$( (umask 077; mkdir -p $d/owed $d/journal && : >>$d/lock) 2>&1); then echo "nostate $(printf %s "$e" | tr '\n' ' ')"
else
  # Nobody but root may change what root runs and believes.
  stat -Lc '%u %a %n' $d /etc/soc-provision 2>/dev/null | while read -r o m f; do
    case "$o $m" in "0 "*[0145][0145]) continue ;; esac
    case $f in /var/*) m=0700 ;; *) m=0755 ;; esac
    chown 0:0 "$f" && chmod $m "$f"
  done
  exec 9>>$d/lock
  t=held
  if flock -n 9; then t=taken
  else
    while read -r k v; do case $k in run) hrun=$v;; pid) hpid=$v;; as) has=$v;; stop) hstop=$v;; esac; done <$d/lock.holder
    case $hstop in /run/soc-stop-* | /tmp/soc-stop-*) ;; *) hstop= ;; esac
    under=; for u in /run/soc-provision/steps/"$mine"-*.begun; do if [ -e "$u" ] && ! [ -s "${u%.begun}.rc" ]; then under=$u; fi; done
    if [ "$hrun" = "$mine" ] && [ "$has" != "$as" ]; then t="twin $has"
    elif [ "$hrun" = "$mine" ] && [ "$force" != yes ] && [ -n "$under" ] && [ -n "$hstop" ] && kill -0 "$hpid" 2>/dev/null; then
      (set -C; : >"$hstop") 2>/dev/null; t=finishing
    elif [ "$hrun" = "$mine" ] || [ "$force" = yes ]; then g=$(read -r s <"/proc/$hpid/stat" && { s=${s##*) }; set -- $s; echo "$3"; }) 2>/dev/null
      if [ "$hrun" != "$mine" ]; then
        case $hrun in ''|*[!A-Za-z0-9-]*) ;; *) (umask 077; mkdir -p /run/soc-provision/broken; echo "$by" >/run/soc-provision/broken/$hrun);; esac
      fi
      [ -n "$g" ] && kill -9 "-$g" 2>/dev/null; [ -n "$hpid" ] && kill -9 "$hpid" 2>/dev/null; [ -n "$hstop" ] && rm -f "$hstop"; flock -w 5 9 && t=taken
    elif flock -w 2 9; then t=taken
    else
      # Nobody above the holder's shell but init: its controller is gone, and it ends with the step under way.
      p=$hpid
      while [ "${p:-0}" -gt 1 ] && read -r c <"/proc/$p/comm"; do
        case $c in sh | dash | bash | sudo | su | runuser | env) ;; *) break ;; esac
        q=; while read -r k v; do [ "$k" = PPid: ] && q=$v; done <"/proc/$p/status"; p=$q
      done 2>/dev/null
      # It may have ended while we looked.
      if [ "$p" = 1 ]; then t=orphan; elif flock -n 9; then t=taken; fi
    fi
  fi
  if [ "$t" = taken ]; then
    for u in /run/soc-provision/steps/*.unit; do
      [ -e "$u" ] || continue
      read -r urun uname <"$u"
      [ "$urun" != "$mine" ] || continue
      if systemctl is-active --quiet "$uname"; then t="busy $uname"; else rm -f "${u%.unit}".*; fi
    done
    for u in /run/soc-provision/steps/*.begun; do
      case $u in */"$mine"-*) ;; *) rm -f "${u%.begun}".* ;; esac
    done
  fi
  case $t in
    taken) r=$(printf 'run %s\nas %s\nwho %s\nfrom %s\nsince %s\npid %s\nstop %s\n' "$mine" "$as" "$who" "$from" "$since" $$ "$__soc_s")
           put() { (umask 077; printf '%s\n' "$r" | cat >$d/lock.holder) 2>&1; }
           e=$(put) || { rm -f $d/reserve; e=$(put); } || t="nostate $e"
           [ -e $d/reserve ] || (umask 077; head -c 262144 /dev/zero >$d/reserve) 2>/dev/null ;;
  esac
  [ "$t" = taken ] || exec 9>&-
  echo "$(printf %s "$t" | tr '\n' ' ')"
fi
