# What the steps of a Compose stack share; POSIX sh. Set before: stack, dir, wait (seconds).
umask 022
say() { printf '%s\n' "$*" >&2; }
why() { say "reason: $*"; } # the engine shows these lines first
now() { date +%s; }
# Docker under userns-remap maps a container's uid 0 to this uid of the host.
offset() { docker info -f '{{.DockerRootDir}}' 2>/dev/null | sed -n 's|.*/\([0-9][0-9]*\)\.[0-9][0-9]*$|\1|p'; }

# A container of the stack that somebody contained (`capture --contain`): nothing may touch it until it is released.
refuse_contained() {
  for m in /var/lib/soc-provision/contained/*; do
    [ -f "$m" ] && grep -qx "project $stack" "$m" || continue
    say "container $(sed -n 's/^name //p' "$m") was contained by $(sed -n 's/^who //p' "$m") at $(date -u -d "@$(sed -n 's/^when //p' "$m")" +%Y-%m-%dT%H:%M:%SZ) ($(sed -n 's/^reason //p' "$m")): nothing was touched; release it first with \`capture HOST --container $(sed -n 's/^name //p' "$m") --release\`"
    exit 1
  done
  return 0
}

# put PATH MODE UID GID [SHA256]: stdin becomes the file, whole or not at all, with its owner from the start.
put() {
  mkdir -p "${1%/*}" || return 1
  rm -f "$1.new"
  (umask 077; cat >"$1.new") || { rm -f "$1.new"; return 1; }
  own "$1.new" "$2" "$3" "$4" || return 1
  if [ -n "${5:-}" ] && [ "$(sha256sum <"$1.new")" != "$5  -" ]; then rm -f "$1.new"; say "$1: what arrived is not what was sent"; return 1; fi
  sync "$1.new"
  mv -f "$1.new" "$1"
}
own() { # PATH MODE UID GID
  o=$(offset); o=${o:-0}
  chown "$((o + $3)):$((o + $4))" "$1" && chmod "$2" "$1"
}
# Remembers on the host alone what a file with secrets was when it was written.
seal() {
  mkdir -p "$dir/secrets"
  (cd "$dir" && umask 077 && { grep -vF "  $1" secrets/.sums 2>/dev/null; sha256sum "$1"; } >secrets/.sums.new && mv -f secrets/.sums.new secrets/.sums)
}

compose() { # RELEASE ARGUMENT...
  rel=$1; shift
  (
    if [ -f "$dir/releases/$rel/env.sh" ]; then . "$dir/releases/$rel/env.sh"; fi
    COMPOSE_ANSI=never; export COMPOSE_ANSI
    exec timeout -k 10 "$((wait + 120))" docker compose --progress quiet -p "$stack" --project-directory "$dir" -f "$dir/releases/$rel/compose.yml" "$@"
  ) </dev/null
}
ids() { # SERVICE: its containers, long ids
  docker ps -aq --no-trunc --filter "label=com.docker.compose.project=$stack" --filter "label=com.docker.compose.service=$1" --filter "label=com.docker.compose.oneoff=False"
}
in_list() { # WORD LIST...: whether the word is one of the list
  w=$1; shift
  for i in "$@"; do [ "$i" = "$w" ] && return 0; done
  return 1
}

# wait_ids ONE_SHOT ID...: until each is healthy (or has ended well), or one cannot become so any more.
# A container without a health check must be seen running twice, so that one that dies at once is noticed.
wait_ids() {
  one=$1; shift
  until=$(($(now) + wait)) calm=0
  while :; do
    good=1
    for id in "$@"; do
      # shellcheck disable=SC2046
      set_state $(docker inspect -f '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}} {{.State.ExitCode}} {{.RestartCount}} {{.HostConfig.RestartPolicy.Name}}' "$id" 2>/dev/null)
      case $status/$health in
        running/healthy) ;;
        running/none) [ "$one" = 0 ] || good=0 ;;
        # shellcheck disable=SC2086
        */unhealthy) if in_list "$id" ${stale:-}; then good=0; else return 1; fi ;;
        exited/*)
          if [ "$one" = 1 ] && [ "$code" = 0 ]; then :; elif [ "$policy" = no ] || [ -z "$policy" ] || [ "$one" = 1 ]; then return 1; else good=0; fi ;;
        dead/* | gone/*) return 1 ;;
        *) good=0 ;;
      esac
      if [ "$restarts" -gt 3 ]; then return 1; fi
    done
    if [ $good = 1 ]; then calm=$((calm + 1)); [ $calm -ge 2 ] && return 0; else calm=0; fi
    if [ "$(now)" -ge $until ]; then why "not healthy after $wait seconds"; return 1; fi
    sleep 0.5
  done
}
set_state() { status=${1:-gone} health=${2:-none} code=${3:-0} restarts=${4:-0} policy=${5:-no}; }
wait_service() { # SERVICE ONE_SHOT COUNT
  # shellcheck disable=SC2046
  set -- "$1" "$2" "$3" $(ids "$1")
  if [ $(($# - 3)) -lt "$3" ]; then why "$(($# - 3)) of $3 containers of service $1 exist"; return 1; fi
  svc=$1 one=$2; shift 3
  wait_ids "$one" "$@" || { report "$svc"; return 1; }
}
# What the containers of a service say about themselves, for whoever reads why it failed; the most
# telling comes last, since only the last lines are shown.
report() {
  for id in $(ids "$1"); do
    sick "$id" || continue
    docker logs --tail 10 "$id" 2>&1 | cut -c1-300 | sed 's/^/  | /' >&2
    docker inspect -f '{{if .State.Health}}{{range .State.Health.Log}}{{.ExitCode}} {{json .Output}}
{{end}}{{end}}' "$id" 2>/dev/null | grep . | tail -3 | uniq | cut -c1-300 | sed 's/^/  health check: exit /' >&2
    say "service $1, container $(docker inspect -f '{{.Name}}: {{.State.Status}}{{if .State.Health}} ({{.State.Health.Status}}){{end}}, exit code {{.State.ExitCode}}{{if .State.OOMKilled}}, killed for lack of memory{{end}}{{if .State.Error}}, {{.State.Error}}{{end}}, restarts {{.RestartCount}}' "$id" | cut -c2-)"
  done
}
sick() { # ID: whether the container is not as it should be
  case $(docker inspect -f '{{.State.Status}}/{{if .State.Health}}{{.State.Health.Status}}{{end}}/{{.State.ExitCode}}' "$1" 2>/dev/null) in
    running/healthy/* | running//* | exited/*/0) return 1 ;;
  esac
}

# fetch IMAGE [OPTION...]: what Compose may pull comes before anything is stopped.
fetch() {
  [ "$pull" = always ] || ! docker image inspect "$1" >/dev/null 2>&1 || return 0
  pull "$@" || { why "image $1 cannot be had; nothing was touched"; return 1; }
}

# ---- one service; ups RELEASE SERVICE ARGUMENT... --------------------------------------------------------------
ups() { r=$1 s=$2; shift 2; compose "$r" up -d --no-deps --no-build --pull "$pull" "$@" "$s"; }
start() { # SERVICE ONE_SHOT COUNT
  stale=''
  for id in $(ids "$1"); do
    case $(docker inspect -f '{{.State.Paused}} {{if .State.Health}}{{.State.Health.Status}}{{end}}' "$id") in
      # Compose leaves a paused container as it is. Its health checks failed meanwhile, which says nothing.
      true*) docker unpause "$id" >/dev/null; stale="$stale $id" ;;
      # One that is ill does not get well by being left alone.
      'false unhealthy') docker restart "$id" >/dev/null ;;
    esac
  done
  ups "$new" "$1" --no-recreate --scale "$1=$3" && wait_service "$@" || { report_once "$1"; return 1; }
}
recreate() { # SERVICE ONE_SHOT COUNT
  ups "$new" "$1" --force-recreate --scale "$1=$3" && wait_service "$@" || { report_once "$1"; return 1; }
}
report_once() { [ "${reported:-}" = "$1" ] || why "service \`$1\` of release $new did not get healthy"; reported=$1; }
# roll SERVICE COUNT OLD...: each new container is healthy before an old one goes.
roll() {
  svc=$1 count=$2; shift 2
  for old_one in "$@"; do
    # shellcheck disable=SC2046
    before=$(ids "$svc") && have=$(set -- $before; echo $#)
    ups "$new" "$svc" --no-recreate --scale "$svc=$((have + 1))" || { report_once "$svc"; return 1; }
    fresh=''
    # shellcheck disable=SC2086
    for id in $(ids "$svc"); do in_list "$id" $before || fresh="$fresh $id"; done
    # shellcheck disable=SC2086
    wait_ids 0 $fresh || { report "$svc"; report_once "$svc"; return 1; }
    docker stop "$old_one" >/dev/null && docker rm "$old_one" >/dev/null || return 1
  done
  start "$svc" 0 "$count"
}
reload_signal() { # SERVICE SIGNAL
  # Not `docker kill -s`: to Docker that is a stop by hand, whatever the signal, and a container that is
  # `unless-stopped` would stay down after the host's next boot.
  for id in $(ids "$1"); do
    pid=$(docker inspect -f '{{.State.Pid}}' "$id") && [ "$pid" -gt 1 ] && kill -s "${2#SIG}" "$pid" || return 1
  done
}
reload_command() { svc=$1; shift; for id in $(ids "$svc"); do docker exec "$id" "$@" </dev/null >&2 || return 1; done; }
drop_network() { # NAME: with this project's containers on it
  for id in $(docker ps -aq --filter "network=$1" --filter "label=com.docker.compose.project=$stack"); do
    docker stop "$id" >/dev/null; docker rm "$id" >/dev/null || return 1
  done
  docker network rm "$1" >/dev/null
}

# ---- releases -------------------------------------------------------------------------------------------
current() { c=$(readlink "$dir/current" 2>/dev/null) && echo "${c#releases/}"; }
switch() { # RELEASE: from now on this one is current; atomically
  ln -sfn "releases/$1" "$dir/current.new" && mv -fT "$dir/current.new" "$dir/current" && sync "$dir" || return 1
  [ "$(tail -n 1 "$dir/history" 2>/dev/null | cut -d' ' -f2)" = "$1" ] || echo "$(now) $1" >>"$dir/history"
}
# Puts the files of services that reload where they find them.
sync_live() { # RELEASE
  [ -f "$dir/releases/$1/live" ] || return 0
  while read -r to from; do
    cmp -s "$dir/$from" "$dir/$to" && continue
    mkdir -p "$dir/${to%/*}" && cp -p "$dir/$from" "$dir/$to.new" && mv -f "$dir/$to.new" "$dir/$to" || return 1
  done <"$dir/releases/$1/live"
}
# Which images a release runs on, so that it can come back after a tag has moved.
remember_images() { # RELEASE
  for id in $(docker ps -aq --filter "label=com.docker.compose.project=$stack"); do docker inspect -f '{{.Config.Image}} {{.Image}}' "$id"; done | sort -u >"$dir/releases/$1/images"
}
retag() { # RELEASE
  [ -f "$dir/releases/$1/images" ] || return 0
  while read -r ref id; do
    case $ref in *@* | sha256:*) continue ;; esac
    [ "$(docker image inspect -f '{{.Id}}' "$ref" 2>/dev/null)" = "$id" ] || docker tag "$id" "$ref" || { why "image $ref of release $1 is not on this host any more"; return 1; }
  done <"$dir/releases/$1/images"
}
# go_to RELEASE: everything as that release has it; Compose's own hash finds what differs, since all
# inputs are in paths and labels.
go_to() {
  retag "$1" && sync_live "$1" || return 1
  scale=''
  while read -r s one count; do scale="$scale --scale $s=$count"; done <"$dir/releases/$1/services"
  # shellcheck disable=SC2086
  compose "$1" up -d --no-build --pull never --remove-orphans $scale || return 1
  # shellcheck disable=SC2013
  while read -r s one count; do wait_service "$s" "$one" "$count" || return 1; done <"$dir/releases/$1/services"
}
# ---- data and jobs ----------------------------------------------------------------------------------------
one_off() { svc=$1; shift; compose "$new" run --rm -T --no-deps --entrypoint sh "$svc" -c "$1" >&2; } # SERVICE COMMAND
# migrate ID SERVICE HOW BACKUP RUN VERIFY RESTORE: once for each id, with the service stopped; empty
# commands are left out. `migrations/ID` says `begun` or `done`, when, by which release, for which
# service and how it is undone. One that was cut off is done anew, on the data from before it if
# they can be put back.
migrated=''
migrate() {
  state='' ; [ ! -f "$dir/migrations/$1" ] || read -r state rest <"$dir/migrations/$1"
  [ "$state" != done ] || return 0
  migrated=1
  for id in $(ids "$2"); do docker stop "$id" >/dev/null; done
  if [ "$state" = begun ]; then
    say "migration $1 was cut off the last time"
    if [ -n "$6" ] && one_off "$2" "$6"; then note_migration done "$@"; return; fi
    if [ -n "$7" ]; then one_off "$2" "$7" || { say "the data from before migration $1 could not be put back"; return 1; }; fi
  elif [ -n "$4" ]; then
    one_off "$2" "$4" || { why "the backup before migration $1 failed; the data were not touched"; return 1; }
  fi
  note_migration begun "$@" || return 1
  one_off "$2" "$5" || { why "migration $1 failed"; return 1; }
  if [ -n "$6" ]; then one_off "$2" "$6" || { why "migration $1 is not as it should be"; return 1; }; fi
  note_migration done "$@"
}
note_migration() { # STATE ID SERVICE HOW BACKUP RUN VERIFY RESTORE
  mkdir -p "$dir/migrations" "$dir/restore" && printf '%s\n' "$8" >"$dir/restore/$2" || return 1
  printf '%s %s %s %s %s\n' "$1" "$(now)" "$new" "$3" "$4" >"$dir/migrations/$2.new" || return 1
  mv -f "$dir/migrations/$2.new" "$dir/migrations/$2" && sync "$dir/migrations" "$dir/restore/$2"
}
# Which migrations a release's data went through, so that the way back to it is known.
remember_migrations() { (cd "$dir/migrations" 2>/dev/null && ls) >"$dir/releases/$1/done"; return 0; } # RELEASE
# undo TO FROM: the data as release TO can read them. Nothing is stopped if that cannot be had.
undo() {
  undone=''
  for m in $( (cd "$dir/migrations" 2>/dev/null && ls -t) ); do
    grep -qsxF "$m" "$dir/releases/$1/done" && continue
    read -r state when by svc how <"$dir/migrations/$m"
    case $how in
      compatible) continue ;;
      restore) undone="$undone $m" ;;
      *) why "release $1 cannot read the data: migration $m (by release $by) cannot be undone; declare \`restore\` to be able to go back"; return 1 ;;
    esac
  done
  for m in $undone; do
    read -r state when by svc how <"$dir/migrations/$m"
    say "putting back the data from before migration $m"
    [ -f "$dir/releases/$by/compose.yml" ] || by=$2
    for id in $(ids "$svc"); do docker stop "$id" >/dev/null; done
    compose "$by" run --rm -T --no-deps --entrypoint sh "$svc" -c "$(cat "$dir/restore/$m")" >&2 || { why "the backup could not be put back; no older release is started on data that it cannot read"; return 1; }
    rm -f "$dir/migrations/$m" "$dir/restore/$m"
  done
}
# job NAME DIGEST SERVICE COMMAND UNLESS: in the first container of a running service.
job() {
  id=$(ids "$3" | head -n 1)
  if [ -n "$5" ] && docker exec "$id" sh -c "$5" </dev/null >/dev/null 2>&1; then :
  else docker exec "$id" sh -c "$4" </dev/null >&2 || { why "job $1 in service $3 failed"; return 1; }; fi
  mkdir -p "$dir/jobs" && echo "$2" >"$dir/jobs/$1"
}
# What a look at the whole stack finds, in a few lines, while it is still as it failed.
short() {
  (full=0; diagnose) 2>/dev/null | awk -F'\t' '$1 == "bad" && $3 !~ /^health check:/ && n++ < 5 { print "reason: " $2 ": " $3 }' >&2
}
# back: after the new release failed. 96 says that what ran before runs again.
back() {
  echo "$new $(now)" >"$dir/failed"
  short
  if [ -z "${old:-}" ] || [ ! -d "$dir/releases/$old" ]; then why "there is no earlier release to go back to"; exit 1; fi
  if [ "$old" = "$new" ]; then why "release $new was current already; it stays"; exit 1; fi
  undo "$old" "$new" || exit 1
  say "going back to release $old"
  if go_to "$old"; then why "release $old is back and healthy"; exit 96; fi
  why "release $old did not come back either"
  exit 1
}
# Keeps the last releases; files and secrets that neither they nor a container use go.
prune() { # KEEP
  keep=$(tac "$dir/history" 2>/dev/null | awk -v n="$1" '!seen[$2]++ && n-- > 0 { print $2 }')
  for r in "$dir"/releases/*/; do
    r=${r%/}; r=${r##*/}
    # shellcheck disable=SC2086
    in_list "$r" "$(current)" $keep || rm -rf "${dir:?}/releases/$r"
  done
  used=$(docker ps -aq | xargs -r docker inspect -f '{{range .Mounts}}{{.Source}} {{end}}' 2>/dev/null)
  for d in "$dir"/files/*/ "$dir"/secrets/*/; do
    [ -d "$d" ] || continue
    p=${d#"$dir"/}
    grep -qsF "$p" "$dir"/releases/*/compose.yml "$dir"/releases/*/env.sh "$dir"/releases/*/live && continue
    case $used in *"$d"*) continue ;; esac
    rm -rf "$d"
    if [ -f "$dir/secrets/.sums" ]; then grep -vF "  $p" "$dir/secrets/.sums" >"$dir/secrets/.sums.new"; mv -f "$dir/secrets/.sums.new" "$dir/secrets/.sums"; fi
  done
  return 0
}
