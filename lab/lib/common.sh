# shellcheck shell=bash
# What every lab command shares: where things are, the record of a lab (lab.env), its ssh files and
# inventory, and killing a process only if it is still the one that was started.

set -euo pipefail
umask 022

LAB_SRC=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
LAB_ROOT=$(dirname "$LAB_SRC")/.lab
PATH=$PATH:/usr/sbin:/sbin

# Every login of a base image: name:shell:sudo. guest-setup makes the accounts, guest-seed gives them the key.
# shellcheck disable=SC2034
LAB_USERS="deploy:/bin/bash:password ops:/bin/bash:nopasswd plain:/bin/bash:none
fishy:/usr/bin/fish:nopasswd tcshy:/usr/bin/tcsh:nopasswd dashy:/bin/dash:nopasswd noisy:/bin/bash:nopasswd"

say() { printf '%s\n' "$*" >&2; }
die() { say "lab: $*"; exit 1; }
need() { local c; for c; do command -v "$c" >/dev/null || die "$c is missing: run $LAB_SRC/install-deps"; done; }

cache_dir() {
  if [ -n "${SOC_LAB_CACHE:-}" ]; then echo "$SOC_LAB_CACHE"
  elif [ "$(id -u)" = 0 ] && mkdir -p /var/cache/soc-provision-lab 2>/dev/null && [ -w /var/cache/soc-provision-lab ]; then
    echo /var/cache/soc-provision-lab
  else echo "$LAB_ROOT/cache"; fi
}

# ---- the record of a lab: .lab/NAME/lab.env ------------------------------------------------------------

check_name() { [[ $1 =~ ^[a-z0-9][a-z0-9_-]{0,30}$ && $1 != cache ]] || die "a lab's name is lower case letters, digits, - and _ (not 'cache'): $1"; }

# select_lab NAME: sets DIR, and KIND ID N DOCKER SUITE MEMORY BASE ACCEL if the lab exists.
select_lab() {
  check_name "$1"
  NAME=$1 DIR=$LAB_ROOT/$1
  # shellcheck disable=SC2034  # read by whoever sources this file
  KIND='' ID='' N=0 DOCKER='' SUITE='' MEMORY='' BASE='' ACCEL='' LOGIN=ops
  # shellcheck source=/dev/null
  if [ -f "$DIR/lab.env" ]; then . "$DIR/lab.env"; fi
}
require_lab() {
  select_lab "$1"
  [ -n "$KIND" ] || die "no lab '$1' here ($LAB_ROOT/$1); lab/up --name $1 makes one"
  load_kind
}
load_kind() {
  # shellcheck source=lib/base.sh
  . "$LAB_SRC/lib/base.sh"
  # shellcheck source=/dev/null
  . "$LAB_SRC/lib/$KIND.sh"
}
save_lab() {
  local v
  for v in NAME KIND ID N DOCKER SUITE MEMORY BASE ACCEL LOGIN SOC; do printf '%s=%q\n' "$v" "${!v}"; done > "$DIR/lab.env.new"
  mv "$DIR/lab.env.new" "$DIR/lab.env"
}
# One lab command at a time on one lab. Processes that stay must be started with 9>&-.
lock_lab() {
  mkdir -p "$LAB_ROOT"; chmod 700 "$LAB_ROOT"
  while :; do
    exec 9> "$LAB_ROOT/.$NAME.lock"
    flock -n 9 || { say "lab: waiting for another command on lab '$NAME'"; flock 9; }
    # lab/down removes the file: what was locked must still be what others will find
    [ /proc/self/fd/9 -ef "$LAB_ROOT/.$NAME.lock" ] && break
  done
}
check_host() { [[ $1 =~ ^h([0-9]+)$ && ${BASH_REMATCH[1]} -ge 1 && ${BASH_REMATCH[1]} -le $N ]] || die "lab '$NAME' has hosts h1..h$N, not '$1'"; }

# ---- processes --------------------------------------------------------------------------------------

start_time() { local s; s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1; s=${s##*) }; echo "$s" | cut -d' ' -f20; }
write_pid() { echo "$2 $(start_time "$2")" > "$1"; } # FILE PID
# live_pid FILE: prints the pid if that very process (same start time, so not a recycled number) still runs
live_pid() {
  local pid start
  read -r pid start 2>/dev/null < "$1" || return 1
  [ "$(start_time "$pid" || true)" = "$start" ] && echo "$pid"
}
kill_pid() { # FILE: SIGKILL, wait until it is gone, remove the file
  local pid
  while pid=$(live_pid "$1"); do
    kill -9 "$pid" 2>/dev/null || true
    # a zombie of our own child has stopped running already, once its other threads (which hold its files) are gone
    if grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2>/dev/null && [ "$(ls "/proc/$pid/task" 2>/dev/null | wc -l)" -le 1 ]; then break; fi
    sleep 0.05
  done
  rm -f "$1"
}

# ---- keys, known_hosts, ssh_config, inventory ---------------------------------------------------------

make_keys() { # the client's key, and host keys that outlive `lab/reset`
  local i t
  [ -f "$DIR/id_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -C "soc-provision-lab-$NAME" -f "$DIR/id_ed25519"
  for i in $(seq "$N"); do
    mkdir -p "$DIR/h$i/keys"
    for t in ed25519 ecdsa rsa; do
      [ -f "$DIR/h$i/keys/ssh_host_${t}_key" ] || ssh-keygen -q -t $t -N '' -C "h$i" -f "$DIR/h$i/keys/ssh_host_${t}_key"
    done
  done
}
host_port_name() { if [ "$2" = 22 ]; then echo "$1"; else echo "[$1]:$2"; fi; }

# host_addr I, host_port I, inner_addr I come from container.sh or vm.sh
write_client_files() {
  local i a p f k=$DIR/id_ed25519 common
  for i in $(seq "$N"); do
    for f in "$DIR/h$i"/keys/*.pub; do
      echo "$(host_port_name "$(host_addr "$i")" "$(host_port "$i")") $(cut -d' ' -f1,2 "$f")"
      # only the machine that has a jump entry is pinned under its inner address
      if [ "$i" = 2 ]; then echo "$(inner_addr 2) $(cut -d' ' -f1,2 "$f")"; fi
    done
  done > "$DIR/known_hosts"

  {
    echo "# for plain ssh: ssh -F $DIR/ssh_config h1"
    for i in $(seq "$N"); do printf 'Host h%s\n  HostName %s\n  Port %s\n' "$i" "$(host_addr "$i")" "$(host_port "$i")"; done
    if [ "$N" -ge 2 ]; then printf 'Host j2\n  HostName %s\n  Port 22\n  ProxyJump h1\n' "$(inner_addr 2)"; fi
    printf 'Host *\n  User %s\n  IdentityFile "%s"\n  IdentitiesOnly yes\n  UserKnownHostsFile "%s"\n' "$LOGIN" "$k" "$DIR/known_hosts"
    printf '  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  LogLevel ERROR\n'
  } > "$DIR/ssh_config"

  a=$(host_addr 1) p=$(host_port 1)
  common="-o ProxyJump=$LOGIN@$a"; [ "$p" = 22 ] || common="$common:$p"
  inventory_lab > "$DIR/inventory-direct.yml"
  {
    cat "$DIR/inventory-direct.yml"
    if [ "$N" -ge 2 ]; then
      echo '    behind_jump: # j2 is h2 once more, by its inner address, through h1'
      echo '      hosts:'
      inventory_host j2 "$(inner_addr 2)" 22
      printf '          ansible_ssh_common_args: "%s"\n' "$common"
    fi
  } > "$DIR/inventory.yml"
}
inventory_lab() {
  local i
  printf '# Written by lab/up; lab/down removes it. Host keys: known_hosts beside this file.\nall:\n'
  printf '  vars:\n    ansible_become: %s\n' "$([ "$LOGIN" = root ] && echo false || echo true)"
  # A container may not open more files than this machine lets its root: see roles/docker.
  local limit
  limit=$(ulimit -Hn)
  if [ "$KIND" = container ] && [ "$limit" != unlimited ] && [ "$limit" -lt 65536 ]; then printf '    docker_nofile: %s\n' "$limit"; fi
  if [ -n "${SOC:-}" ]; then inventory_soc; fi
  printf '  children:\n    lab:\n      hosts:\n'
  for i in $(seq "$N"); do inventory_host "h$i" "$(host_addr "$i")" "$(host_port "$i")"; done
}
# What playbooks/soc-lab.yml needs: the committed secrets, and no higher limits than a container may have here.
inventory_soc() {
  local memlock
  memlock=$(ulimit -Hl)
  printf '    soc_secrets: lab\n'
  [ "$KIND" = container ] || return 0
  if [ "$limit" != unlimited ] && [ "$limit" -lt 65536 ]; then printf '    soc_nofile: %s\n' "$limit"; fi
  if [ "$memlock" != unlimited ]; then printf '    soc_memlock: %s\n' $((memlock * 1024)); fi
}
inventory_host() {
  printf '        %s:\n          ansible_host: %s\n          ansible_port: %s\n          ansible_user: %s\n          ansible_ssh_private_key_file: "%s"\n' \
    "$1" "$2" "$3" "$LOGIN" "$DIR/id_ed25519"
}

lab_ssh() { ssh -F "$DIR/ssh_config" "$@"; }

# wait_ssh SECONDS HOST...: until each host lets us in. Patient with each try: giving up on a slow host half-way
# through a login makes its sshd penalise us (PerSourcePenalties), and the next try fails too.
wait_ssh() {
  local until=$((SECONDS + $1)) h; shift
  for h; do
    until timeout 120 ssh -F "$DIR/ssh_config" -o BatchMode=yes -o ConnectTimeout=30 -l root "$h" true </dev/null 2>"$DIR/$h/ssh.err"; do
      [ $SECONDS -lt $until ] || die "$h does not answer: $(tail -1 "$DIR/$h/ssh.err"); see $DIR/$h/console.log"
      host_running "${h#h}" || die "$h stopped by itself; see $DIR/$h/console.log"
      sleep 0.3
    done
    rm -f "$DIR/$h/ssh.err"
  done
}

# Remove a tree, but never follow a mount that is still there.
remove_tree() {
  [ -e "$1" ] || return 0
  if findmnt -rno TARGET | grep -qF "$(realpath "$1")/"; then die "something is still mounted below $1"; fi
  rm -rf --one-file-system "$1"
}
