# shellcheck shell=bash
# Hosts as systemd containers: one overlay over the base, one network namespace, one systemd-nspawn each.
# Everything on the machine carries the lab's number ID (100..199), which also makes its two networks:
#   198.18.ID.0/24  bridge soclabID    the machine is .254; host i is .i; masqueraded to the outside
#   198.19.ID.0/24  bridge soclabIDi   between the hosts only; the machine has no address and no route there
# A host is h<i>: netns soclabID-h<i>, veths slID-<i>o (outer) and slID-<i>i (inner), cgroup soclabID-h<i>.

ALLOCATION_LOCK=/run/soc-provision-lab.lock
FORWARD_BEFORE=/run/soc-provision-lab.ip_forward # what net.ipv4.ip_forward was before the first lab

host_addr() { echo "198.18.$ID.$1"; }
inner_addr() { echo "198.19.$ID.$1"; }
host_port() { echo 22; }
netns() { echo "soclab$ID-h$1"; }
# shellcheck disable=SC2034
SSH_WAIT=180

check_kind() {
  [ "$(id -u)" = 0 ] || die "containers need root; --kind vm does not"
  need systemd-nspawn nft ip ssh ssh-keygen findmnt
  [ "$N" -le 200 ] || die "at most 200 hosts a lab"
}

# ---- the lab's network on the machine -----------------------------------------------------------------

lab_start() {
  exec 7> "$ALLOCATION_LOCK"; flock 7
  [ -n "$ID" ] || ID=$(free_id) || die "no free network in 198.18.100-199"
  save_lab # from here on lab/down knows what to remove
  local mtu
  mtu=$(uplink_mtu)
  ip link add "soclab$ID" type bridge; ip link set "soclab$ID" mtu "$mtu"
  ip addr add "198.18.$ID.254/24" dev "soclab$ID"; ip link set "soclab$ID" up
  ip link add "soclab${ID}i" type bridge
  echo 1 > "/proc/sys/net/ipv6/conf/soclab${ID}i/disable_ipv6" 2>/dev/null || true
  ip link set "soclab${ID}i" mtu "$mtu" up
  # A command aimed at a host that is down, or at the inner network, must not leave by the machine's uplink.
  ip route add unreachable "198.18.$ID.0/24" metric 4294967295
  ip route add unreachable "198.19.$ID.0/24" metric 4294967295
  [ -f "$FORWARD_BEFORE" ] || cat /proc/sys/net/ipv4/ip_forward > "$FORWARD_BEFORE"
  echo 1 > /proc/sys/net/ipv4/ip_forward
  exec 7>&-
  # Out to the packages through the machine; nothing in from elsewhere, nothing to another lab.
  nft -f - <<EOF
table ip soclab$ID {
  chain forward {
    type filter hook forward priority filter - 5; policy accept;
    iifname "soclab$ID" ip daddr 198.18.0.0/15 oifname != "soclab$ID" drop
    oifname "soclab$ID" iifname != "soclab$ID" ct state != { established, related } drop
    oifname "soclab${ID}i" iifname != "soclab${ID}i" drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 198.18.$ID.0/24 oifname != "soclab$ID" masquerade
  }
}
EOF
  # a dockerd that ever ran on the machine leaves FORWARD at drop
  if nft list chain ip filter FORWARD 2>/dev/null | grep -q 'policy drop'; then
    iptables -w -I FORWARD -i "soclab$ID" -m comment --comment "soclab$ID" -j ACCEPT
    iptables -w -I FORWARD -o "soclab$ID" -m comment --comment "soclab$ID" -j ACCEPT
  fi
}
free_id() {
  local first i id
  first=$(echo "$DIR" | cksum | cut -d' ' -f1)
  for i in $(seq 0 99); do
    id=$((100 + (first + i) % 100))
    ip link show "soclab$id" >/dev/null 2>&1 || [ -n "$(ip route show "198.18.$id.0/24")$(ip route show "198.19.$id.0/24")" ] || { echo $id; return; }
  done
  return 1
}
uplink_mtu() {
  local dev
  dev=$(ip -4 route show default | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -1)
  awk '{ print ($1 > 1500 ? 1500 : $1) }' "/sys/class/net/${dev:-lo}/mtu"
}

lab_stop() {
  [ -n "$ID" ] || return 0
  local d
  nft delete table ip "soclab$ID" 2>/dev/null || true
  for d in i o; do
    if command -v iptables >/dev/null && nft list chain ip filter FORWARD 2>/dev/null | grep -q "soclab$ID"; then
      iptables -w -D FORWARD "-$d" "soclab$ID" -m comment --comment "soclab$ID" -j ACCEPT 2>/dev/null || true
    fi
  done
  ip link del "soclab$ID" 2>/dev/null || true
  ip link del "soclab${ID}i" 2>/dev/null || true
  ip route del unreachable "198.18.$ID.0/24" metric 4294967295 2>/dev/null || true
  ip route del unreachable "198.19.$ID.0/24" metric 4294967295 2>/dev/null || true
  (
    flock 7
    if [ -f "$FORWARD_BEFORE" ] && [ -z "$(ip -br link show type bridge | grep -E '^soclab[0-9]+ ' || true)" ]; then
      cat "$FORWARD_BEFORE" > /proc/sys/net/ipv4/ip_forward; rm -f "$FORWARD_BEFORE"
    fi
  ) 7> "$ALLOCATION_LOCK"
}

# ---- one host --------------------------------------------------------------------------------------------

host_create() { # fresh file system, with its seed
  local h=$DIR/h$1
  mkdir -p "$h/upper" "$h/work" "$h/root" "$h/docker" "$h/containerd"
  host_mount "$1"
  make_seed "$1"
  chroot "$h/root" /usr/local/sbin/soc-lab-seed < "$h/seed.tar"
}
host_mount() {
  local h=$DIR/h$1
  mountpoint -q "$h/root" || mount -t overlay "soclab$ID-h$1" -o "lowerdir=$BASE/root,upperdir=$h/upper,workdir=$h/work" "$h/root"
}
host_erase() { # its file system; keys and address stay
  local h=$DIR/h$1 d
  if mountpoint -q "$h/root" 2>/dev/null; then umount "$h/root"; fi
  for d in upper work docker containerd root; do remove_tree "$h/$d"; done
}

host_on() {
  local h=$DIR/h$1
  host_mount "$1"
  setsid "$LAB_SRC/lib/container-run" "$NAME" "$1" </dev/null >>"$h/console.log" 2>&1 9>&- &
  write_pid "$h/pid" $!
}
host_running() { live_pid "$DIR/h$1/pid" >/dev/null; }
host_off() { # as a power cut: SIGKILL for all, and what the kernel held for it (firewall, interfaces) is gone too
  [ -n "$ID" ] || return 0
  kill_pid "$DIR/h$1/pid"
  cgroup_kill "soclab$ID-h$1"
  net_down "$1"
}

# The machine's resolver, but not one that listens on the machine's own loopback.
seed_network() {
  local r=/etc/resolv.conf
  if grep -q '^nameserver 127\.' $r && [ -f /run/systemd/resolve/resolv.conf ]; then r=/run/systemd/resolve/resolv.conf; fi
  cat $r > "$2/etc/resolv.conf"
}

net_up() {
  local ns mtu i=$1
  ns=$(netns "$i"); mtu=$(cat "/sys/class/net/soclab$ID/mtu")
  ip netns add "$ns"
  ip link add "sl$ID-${i}o" mtu "$mtu" type veth peer name eth0 netns "$ns" address "$(printf '02:5c:%02x:00:00:%02x' "$ID" "$i")" mtu "$mtu"
  ip link add "sl$ID-${i}i" mtu "$mtu" type veth peer name eth1 netns "$ns" address "$(printf '02:5c:%02x:01:00:%02x' "$ID" "$i")" mtu "$mtu"
  ip link set "sl$ID-${i}o" master "soclab$ID" up
  ip link set "sl$ID-${i}i" master "soclab${ID}i" up
  # a new namespace inherits the machine's forwarding; a new host does not forward
  ip netns exec "$ns" sh -c 'echo 0 > /proc/sys/net/ipv4/ip_forward'
  ip -n "$ns" -batch - <<EOF
link set lo up
addr add $(host_addr "$i")/24 dev eth0
addr add $(inner_addr "$i")/24 dev eth1
link set eth0 up
link set eth1 up
route add default via 198.18.$ID.254
EOF
}
net_down() {
  ip link del "sl$ID-${1}o" 2>/dev/null || true
  ip link del "sl$ID-${1}i" 2>/dev/null || true
  ip netns del "$(netns "$1")" 2>/dev/null || true
}

# ---- cgroups: one of its own for each host, in every hierarchy, so that two systemds do not share one --------

cgroup_v2() { [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; }
cgroup_roots() { if cgroup_v2; then echo /sys/fs/cgroup; else findmnt -rno TARGET -t cgroup,cgroup2 | grep '^/sys/fs/cgroup/'; fi; }
cgroup_enter() { # NAME: this process and what it starts
  local r
  for r in $(cgroup_roots); do
    mkdir -p "$r/$1"
    # cpuset: a new group has no cpus, and takes nobody in, until it is told
    if [ -f "$r/$1/cpuset.cpus" ] && ! cgroup_v2; then cat "$r/cpuset.cpus" > "$r/$1/cpuset.cpus"; cat "$r/cpuset.mems" > "$r/$1/cpuset.mems"; fi
    if [ -n "$MEMORY" ] && [ -f "$r/$1/memory.limit_in_bytes" ]; then echo "${MEMORY}M" > "$r/$1/memory.limit_in_bytes"; fi
    if [ -n "$MEMORY" ] && [ -f "$r/$1/memory.max" ]; then echo "${MEMORY}M" > "$r/$1/memory.max"; fi
    echo $BASHPID > "$r/$1/cgroup.procs"
  done
}
cgroup_kill() { # NAME: everything in it, until it is empty; then the group itself
  local r pids try
  # What is in a paused container dies only once it may run.
  find /sys/fs/cgroup/freezer/"$1" -name freezer.state -exec sh -c 'for f; do echo THAWED >"$f"; done' _ {} + 2>/dev/null || true
  for try in $(seq 200); do
    pids=$(for r in $(cgroup_roots); do find "$r/$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true; done | sort -un | grep -vx 0 || true)
    [ -n "$pids" ] || break
    # shellcheck disable=SC2086
    kill -9 $pids 2>/dev/null || true
    sleep 0.05
  done
  [ -z "$pids" ] || die "processes of $1 do not die: $pids (try $try)"
  for r in $(cgroup_roots); do
    if [ -d "$r/$1" ]; then find "$r/$1" -depth -type d -exec rmdir {} + 2>/dev/null || true; fi
  done
}
