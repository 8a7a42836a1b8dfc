# shellcheck shell=bash
# Hosts as QEMU machines: one qcow2 overlay over the base disk, the seed as a second disk, no root needed.
# NIC 1: QEMU's user network; port 22 is a free port on 127.0.0.1, kept in h<i>/port.
# NIC 2: a wire between the lab's hosts (multicast on loopback); host i is 10.77.0.i there.

# shellcheck disable=SC2034
SSH_WAIT=900

host_addr() { echo 127.0.0.1; }
host_port() { cat "$DIR/h$1/port"; }
inner_addr() { echo "10.77.0.$1"; }

check_kind() {
  need qemu-system-x86_64 qemu-img ssh ssh-keygen ss mke2fs
  local v
  v=$(qemu-system-x86_64 --version | sed -n 's/.*version \([0-9]*\)\..*/\1/p;q')
  # QEMU 7.2 without KVM panics Debian 13's kernel sooner or later
  [ "${v:-0}" -ge 9 ] || die "QEMU $v is too old: run $LAB_SRC/install-deps"
  [ "$N" -le 100 ] || die "at most 100 machines a lab"
  MEMORY=${MEMORY:-2048}
}

lab_start() {
  ACCEL=$(vm_accel "$BASE")
  save_lab
}
lab_stop() { :; }

host_create() { # fresh disk, with its seed
  local h=$DIR/h$1
  mkdir -p "$h"
  make_seed "$1"
  qemu-img create -q -f qcow2 -b "$BASE/disk.img" -F raw "$h/disk.qcow2"
}
host_erase() { rm -f "$DIR/h$1/disk.qcow2"; }

seed_network() {
  local n=$2/etc/systemd/network
  mkdir -p "$n"
  printf '[Match]\nMACAddress=%s\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n[DHCPv4]\nUseDNS=no\n' "$(mac 76 "$1")" > "$n/10-outer.network"
  printf '[Match]\nMACAddress=%s\n[Network]\nAddress=%s/24\nLinkLocalAddressing=no\n' "$(mac 77 "$1")" "$(inner_addr "$1")" > "$n/10-inner.network"
  echo 'nameserver 10.0.2.3' > "$2/etc/resolv.conf"
}
mac() { printf '52:54:00:00:%s:%02x' "$1" "$2"; }

host_on() {
  local i=$1 h=$DIR/h$1 try port pid
  for try in $(seq 20); do
    port=$(cat "$h/port" 2>/dev/null || free_port)
    # the wire between the hosts is named after the first host's port, which no other lab has
    [ -f "$DIR/wire" ] || echo $((port + 10000)) > "$DIR/wire"
    # shellcheck disable=SC2046  # words
    setsid qemu-system-x86_64 -name "soc-lab-$NAME-h$i" $(vm_machine "$ACCEL") -m "$MEMORY" -nodefaults -display none \
      -kernel "$BASE/vmlinuz" -initrd "$BASE/initrd" \
      -append "$VM_CMDLINE systemd.machine_id=$(cat "$h/machine-id")" \
      -drive "file=$h/disk.qcow2,format=qcow2,if=virtio,cache=unsafe,discard=unmap" \
      -drive "file=$h/seed.tar,format=raw,if=virtio,readonly=on" \
      -netdev "user,id=outer,ipv6=off,hostfwd=tcp:127.0.0.1:$port-:22" -device "virtio-net-pci,netdev=outer,mac=$(mac 76 "$i"),romfile=" \
      -netdev "socket,id=inner,mcast=230.0.0.77:$(cat "$DIR/wire"),localaddr=127.0.0.1" -device "virtio-net-pci,netdev=inner,mac=$(mac 77 "$i"),romfile=" \
      -device virtio-rng-pci -serial "file:$h/console.log" </dev/null >"$h/qemu.log" 2>&1 9>&- &
    pid=$!
    write_pid "$h/pid" $pid
    sleep 0.5
    if kill -0 $pid 2>/dev/null; then echo "$port" > "$h/port"; return; fi
    # somebody took the port between looking and binding; a host that had one already waits for it
    grep -q 'host forwarding' "$h/qemu.log" || die "h$i does not start: $(cat "$h/qemu.log")"
  done
  die "h$i: no free port after $try tries"
}
host_running() { live_pid "$DIR/h$1/pid" >/dev/null; }
host_off() { kill_pid "$DIR/h$1/pid"; }

free_port() {
  local port
  while :; do
    port=$((22000 + RANDOM % 10000))
    if grep -qsx "$port" "$LAB_ROOT"/*/h*/port; then continue; fi # a host of ours that is switched off
    [ -n "$(ss -Hltn "sport = :$port")" ] || { echo $port; return; }
  done
}
