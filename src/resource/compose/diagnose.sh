# What is the matter with a Compose project; POSIX sh, read-only. Set before: stack, dir, and full (1: logs and
# whole health logs too). Prints tab-separated lines: KIND SUBJECT TEXT, KIND one of stack, state, bad, note, log.
out() { k=$1 s=$2; shift 2; printf '%s\t%s\t%s\n' "$k" "$s" "$(printf '%s' "$*" | tr '\t\n' '  ' | cut -c1-500)"; }
# Values of the stack's secrets are taken out of everything that containers say.
mask() {
  find "$dir/secrets" -type f ! -name '.*' -size -64k 2>/dev/null >"$work/secrets"
  awk -v list="$work/secrets" 'BEGIN { while ((getline f <list) > 0) while ((getline l <f) > 0) if (length(l) >= 6) value[++n] = l }
    { for (i = 1; i <= n; i++) while ((p = index($0, value[i])) > 0) $0 = substr($0, 1, p - 1) "********" substr($0, p + length(value[i])); print }'
}

diagnose() {
  work=$(mktemp -d -p /run) || return 1
  trap 'rm -rf "$work"' EXIT
  docker version -f '{{.Server.Version}}' >/dev/null 2>"$work/err" || { out bad docker "Docker does not answer: $(tail -n 1 "$work/err")"; return 0; }
  f='{{.ID}}|{{.Name}}|{{index .Config.Labels "com.docker.compose.service"}}|{{.State.Status}}|{{.State.ExitCode}}|{{.State.OOMKilled}}|{{.State.Pid}}|{{.RestartCount}}|{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}|{{.Config.User}}|{{.HostConfig.Memory}}|{{.HostConfig.RestartPolicy.Name}}|{{index .Config.Labels "com.docker.compose.depends_on"}}|{{.State.FinishedAt}}|{{index .Config.Labels "soc.config-sha256"}}|{{index .Config.Labels "soc.one-shot"}}|{{.State.Error}}'
  all=$(docker ps -aq --no-trunc --filter "label=com.docker.compose.project=$stack" --filter label=com.docker.compose.oneoff=False)
  if [ -z "$all" ]; then out bad "$stack" "the stack has no containers on this host"; return 0; fi
  # shellcheck disable=SC2086
  docker inspect -f "$f" $all 2>/dev/null | tr '\t' ' ' | sort -t'|' -k2 >"$work/containers"
  current=$(readlink "$dir/current" 2>/dev/null)
  out stack "$stack" "${current:+release ${current#releases/}, }$(grep -c . "$work/containers") containers"
  [ -f "$dir/failed" ] && { read -r r w <"$dir/failed"; out note "$stack" "release $r was tried and did not get healthy, $(date -u -d "@$w" '+%F %TZ' 2>/dev/null)"; }
  root=$(docker info -f '{{.DockerRootDir}}' 2>/dev/null)
  df -P "$root" 2>/dev/null | awk 'NR == 2 && $5 + 0 >= 95 { print $5, $6 }' | while read -r used at; do out bad docker "the file system of $root ($at) is $used full"; done
  docker events --since 24h --until "$(date +%s)" --filter event=oom --filter "label=com.docker.compose.project=$stack" --format '{{index .Actor.Attributes "com.docker.compose.service"}}' 2>/dev/null | sort | uniq -c >"$work/ooms"
  while IFS='|' read -r id name svc status code oom pid restarts health user memory policy needs finished ours once error; do
    name=${name#/}
    state_of
    mounts_of
    [ "$status" = running ] || ports_of
    if [ "$ill" = 1 ]; then says "$id"; fi
  done <"$work/containers"
  while read -r n svc; do out bad "${svc:-$stack}" "was killed for lack of memory $n times in the last day"; done <"$work/ooms"
  net_of
}

state_of() {
  ill=1 word=$status
  [ "$health" = none ] || [ "$status" != running ] || word="$status ($health)"
  [ "$status" != exited ] || word="exited ($code)"
  case $status/$health in
    running/healthy | running/none) ill=0 ;;
    running/starting) ill=0 ;;
    exited/*)
      # Of containers that stacks made it is known which end by themselves; of others it is guessed.
      guess=0; if [ -z "$ours" ]; then case $policy in no | on-failure | '') guess=1 ;; esac; fi
      if [ "$code" = 0 ] && { [ -n "$once" ] || [ $guess = 1 ]; }; then ill=0; fi ;;
  esac
  out state "$name" "$word"
  case $status in
    exited | dead | restarting)
      if [ $ill = 1 ]; then
        case $code in
          0) m='ended, although it should run' ;;
          126) m='its command cannot be run (exit 126)' ;;
          127) m='its command does not exist in the image (exit 127)' ;;
          137) m='was killed (SIGKILL)' ;;
          139) m='crashed (segmentation fault)' ;;
          143) m='was stopped (SIGTERM)' ;;
          *) m="ended with exit code $code" ;;
        esac
        case $finished in 0001*) at='' ;; *) at=" at ${finished%%.*}Z" ;; esac
        out bad "$name" "$m$at"
      fi ;;
    created) out bad "$name" 'was made and never started' ;;
    paused) out bad "$name" 'is paused' ;;
  esac
  [ "$oom" != true ] || out bad "$name" "was killed for lack of memory; its limit is $([ "${memory:-0}" = 0 ] && echo none || echo "$((memory / 1048576)) MiB")"
  [ -z "$error" ] || out bad "$name" "Docker says: $error"
  if [ "${restarts:-0}" -gt 0 ]; then out note "$name" "was restarted $restarts times by Docker"; fi
  if [ "$status" = running ] && [ "$health" != none ] && [ "$health" != healthy ]; then
    docker inspect -f '{{range .State.Health.Log}}{{.ExitCode}} {{json .Output}}
{{end}}' "$id" 2>/dev/null | grep . | mask >"$work/health"
    last=$(tail -n 1 "$work/health")
    [ -z "$last" ] || out "$([ "$health" = unhealthy ] && echo bad || echo note)" "$name" "health check: exit $last"
    if [ "$full" = 1 ]; then tail -n 5 "$work/health" | sort -u | while IFS= read -r l; do out log "$name" "health: exit $l"; done; fi
  fi
}
says() { # ID: its last lines
  [ "$full" = 1 ] || return 0
  docker logs --tail 20 "$1" 2>&1 | mask | while IFS= read -r l; do out log "$name" "$l"; done
}
# Whether the process may write where it is given a place to write.
mounts_of() {
  uid='' gids='' all_powerful=0
  if [ "$status" = running ] && [ -r "/proc/$pid/status" ]; then
    uid=$(awk '/^Uid:/ { print $3 }' "/proc/$pid/status") gids=$(awk '/^Gid:/ { print $3 } /^Groups:/ { $1 = ""; print }' "/proc/$pid/status" | tr '\n' ' ')
    caps=$(awk '/^CapEff:/ { print $2 }' "/proc/$pid/status")
    [ $((0x$caps >> 1 & 1)) = 0 ] || all_powerful=1
  else
    case ${user%%:*} in '' | 0 | root | *[!0-9]*) return 0 ;; esac
    o=$(printf '%s' "$root" | sed -n 's|.*/\([0-9][0-9]*\)\.[0-9][0-9]*$|\1|p'); o=${o:-0}
    g=${user#*:}; case $g in '' | *[!0-9]*) g=0 ;; esac; [ "$g" != "$user" ] || g=0
    uid=$((o + ${user%%:*})) gids=$((o + g))
  fi
  [ $all_powerful = 0 ] || return 0
  docker inspect -f '{{range .Mounts}}{{.RW}}|{{.Source}}|{{.Destination}}
{{end}}' "$id" 2>/dev/null | grep . >"$work/mounts"
  while IFS='|' read -r rw source dest; do
    [ -n "$source" ] || continue
    if [ ! -e "$source" ]; then out bad "$name" "$source, mounted at $dest, does not exist on the host"; continue; fi
    # shellcheck disable=SC2046
    set -- $(stat -c '%u %g %a' "$source")
    m=$((0$3)) need=4; [ "$rw" != true ] || need=2
    if [ "$1" = "$uid" ]; then m=$((m >> 6)); else case " $gids " in *" $2 "*) m=$((m >> 3)) ;; esac; fi
    [ $((m & need)) = 0 ] || continue
    case $need in 2) w=write ;; *) w=read ;; esac
    k=note; [ $ill = 0 ] || k=bad
    out $k "$name" "cannot $w $dest: $source belongs to $1:$2, mode $3, and the process is $uid:$(printf '%s' "$gids" | awk '{ print $1 }') (as the host counts)"
  done <"$work/mounts"
}
# Host ports that a container which does not run wants, and who has them.
ports_of() {
  docker inspect -f '{{range $p, $b := .HostConfig.PortBindings}}{{range $b}}{{$p}} {{.HostPort}}
{{end}}{{end}}' "$id" 2>/dev/null | grep . | while read -r p port; do
    who=$(ss -Hlnp "--${p#*/}" "sport = :$port" 2>/dev/null | sed -n 's/.*(("\([^"]*\)",pid=\([0-9]*\).*/\1 (pid \2)/p' | head -n 1)
    other=$(docker ps --filter "publish=$port" --format '{{.Names}}' | grep -vxF "$name" | head -n 1)
    [ -z "$who$other" ] || out bad "$name" "host port $port/${p#*/} is in use by ${other:+container $other}${other:+${who:+, }}$who"
  done
}
# From each running container to each other that it shares a network with: its name, and its ports.
net_of() {
  f='{{.Name}}|{{index .Config.Labels "com.docker.compose.service"}}|{{.State.Pid}}|{{.ResolvConfPath}}|{{index .Config.Labels "com.docker.compose.depends_on"}}|{{range $n, $v := .NetworkSettings.Networks}}{{$n}}={{$v.IPAddress}} {{end}}|{{range $p, $v := .Config.ExposedPorts}}{{$p}} {{end}}|{{.State.Status}}'
  # shellcheck disable=SC2086
  docker inspect -f "$f" $all 2>/dev/null >"$work/net"
  count=$(cut -d'|' -f2 "$work/net" | sort -u | wc -l)
  while IFS='|' read -r name svc pid resolv needs nets ports status; do
    [ "$status" = running ] && [ "${pid:-0}" -gt 0 ] || continue
    name=${name#/} seen=" $svc "
    [ -n "$nets" ] || out note "$name" 'is on no network of its own'
    while IFS='|' read -r other osvc opid oresolv oneeds onets oports ostatus; do
      case $seen in *" $osvc "*) continue ;; esac
      wanted=0; case ",$needs" in *",$osvc:"*) wanted=1 ;; esac
      [ $wanted = 1 ] || [ "$count" -le 8 ] || continue
      seen="$seen$osvc "
      if [ "$ostatus" != running ]; then
        [ $wanted = 0 ] || case ",$needs" in *",$osvc:service_completed_successfully"*) ;; *) out bad "$name" "depends on $osvc, which is $ostatus" ;; esac
        continue
      fi
      ip=''; for n in $nets; do for o in $onets; do [ "${n%%=*}" != "${o%%=*}" ] || ip=${o#*=}; done; done
      if [ -z "$ip" ]; then
        case "$nets$onets" in *host=* | '') ;; *) [ $wanted = 0 ] || out bad "$name" "shares no network with $osvc, on which it depends" ;; esac
        continue
      fi
      reach
    done <"$work/net"
  done <"$work/net"
}
reach() {
  # shellcheck disable=SC2016
  got=$(nsenter -n -t "$pid" -- unshare -m sh -c 'mount --bind "$1" /etc/resolv.conf && timeout 5 getent ahostsv4 "$2" | awk "NR == 1 { print \$1 }"' sh "$resolv" "$osvc" 2>/dev/null </dev/null)
  [ -n "$got" ] || out bad "$name" "the name $osvc does not resolve in its network"
  command -v bash >/dev/null || return 0
  open='' shut=''
  for p in $oports; do
    case $p in */tcp) p=${p%/tcp} ;; *) continue ;; esac
    # shellcheck disable=SC2016
    if nsenter -n -t "$pid" -- timeout 2 bash -c ': <"/dev/tcp/$1/$2"' bash "$ip" "$p" 2>/dev/null </dev/null; then open="$open $p"; else shut="$shut $p"; fi
  done
  [ -n "$shut" ] || return 0
  k=note; [ -n "$open" ] || k=bad
  out $k "$name" "cannot reach $osvc ($ip) at port$shut${open:+, can at$open}"
}
