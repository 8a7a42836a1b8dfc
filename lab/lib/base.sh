# shellcheck shell=bash
# The cached base images: what is in them, how they are built, under which name they are kept.
# A base holds no key and no address; guest-seed adds those to each host.
#   CACHE/<sha256>/root/                      container: a root file system, the lower layer of every host
#   CACHE/<sha256>/{disk.img,vmlinuz,initrd}  vm: an ext4 disk, the backing file of every host, and its kernel

PACKAGES_ALL="systemd-sysv,dbus,libpam-systemd,openssh-server,sudo,nftables,iptables,iproute2,ca-certificates,kmod,procps,tcsh,libpcre2-32-0"
PACKAGES_VM="linux-image-cloud-amd64,apparmor,e2fsprogs,udev"

base_packages() { # KIND SUITE DOCKER
  local p=$PACKAGES_ALL
  if [ "$1" = vm ]; then p=$p,$PACKAGES_VM; fi
  if [ -n "$3" ]; then
    # Debian 12 has no docker-cli package and only Compose v1, which is of no use here
    case $2 in bookworm) p=$p,docker.io ;; *) p=$p,docker.io,docker-cli,docker-compose ;; esac
  fi
  echo "$p"
}

# The name of a base is the digest of everything that decides what it holds, so an edit here makes a new one.
base_key() { # KIND SUITE DOCKER
  { echo "$1 $2 ${3:-bare} $(uname -m)"; base_packages "$@"; declare -f build_base warm_base
    cat "$LAB_SRC/lib/guest-setup" "$LAB_SRC/lib/guest-seed"; echo "$LAB_USERS"; } | sha256sum | cut -d' ' -f1
}

# The machine's own archive, as lines for SUITE; nothing if the machine has no Debian archive configured
# (mmdebstrap then uses the one it knows).
apt_sources() { # SUITE
  local uri sec
  uri=$(repo_uri '^Debian\|Debian\|') sec=$(repo_uri '^Debian\|Debian-Security\|')
  [ -n "$uri" ] || return 0
  echo "deb $uri $1 main"
  echo "deb $uri $1-updates main"
  if [ -n "$sec" ]; then echo "deb $sec $1-security main"; fi
}
repo_uri() {
  command -v apt-get >/dev/null || return 0
  # shellcheck disable=SC2016  # apt's own variables
  apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -E "$1" | head -1 | cut -d'|' -f3
}

# The machine's settings that decide whether apt can reach its archive: proxy, date checks, retries.
apt_settings() {
  if command -v apt-config >/dev/null; then
    apt-config dump | grep -E '^Acquire::(Check-Valid-Until|Check-Date|Retries|ForceIPv4|(http|https|ftp)::?(Proxy|Timeout|Verify-Peer|Verify-Host|Pipeline-Depth|No-Cache)[^ ]*) ' | grep -vE '"";$' || true
  fi
  if [ -n "${http_proxy:-}" ]; then echo "Acquire::http::Proxy \"$http_proxy\";"; fi
  if [ -n "${https_proxy:-}" ]; then echo "Acquire::https::Proxy \"$https_proxy\";"; fi
}

# ensure_base KIND SUITE DOCKER: sets BASE; builds it first if nobody has yet. Two builders: the second waits.
ensure_base() {
  local cache key t0=$SECONDS
  cache=$(cache_dir); mkdir -p "$cache"; chmod 700 "$cache" # it holds old setuid programs
  key=$(base_key "$@")
  BASE=$cache/$key
  [ -f "$BASE/ready" ] && return 0
  need mmdebstrap
  (
    flock 8
    if [ ! -f "$BASE/ready" ]; then
      say "lab: building the $1 base ($2${3:+, with docker}); this happens once"
      rm -rf --one-file-system "$BASE" "$BASE.new"
      mkdir -p "$BASE.new"
      # in the background, because `set -e` sleeps inside a condition
      build_base "$BASE.new" "$@" </dev/null > "$cache/$key.log" 2>&1 &
      if ! wait $!; then tail -20 "$cache/$key.log" >&2; die "the base did not build; see $cache/$key.log"; fi
      echo "$1 $2 ${3:-bare} $(base_packages "$@")" > "$BASE.new/ready"
      mv "$BASE.new" "$BASE"
      say "lab: base ready after $((SECONDS - t0)) s: $BASE"
    fi
  ) 8> "$cache/$key.lock" 9>&-
}

build_base() { # OUT KIND SUITE DOCKER
  local out=$1 kind=$2 suite=$3 docker=$4 sources
  local -a opts=(--variant=apt "--include=$(base_packages "$kind" "$suite" "$docker")")
  sources=$(apt_sources "$suite")
  apt_settings > "$out/apt.conf"
  while read -r line; do opts+=("--aptopt=$line"); done < "$out/apt.conf"
  # shellcheck disable=SC2016  # expanded by the hooks' own shell
  opts+=('--customize-hook=cd "$1/tmp" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download fish fish-common'
    "--customize-hook=copy-in $LAB_SRC/lib/guest-setup $LAB_SRC/lib/guest-seed /root"
    "--customize-hook=chroot \"\$1\" sh /root/guest-setup $kind '$(echo "$LAB_USERS" | tr '\n' ' ')'"
    '--customize-hook=rm -f "$1"/root/guest-setup "$1"/root/guest-seed')
  if [ -n "$sources" ]; then echo "$sources" | mmdebstrap "${opts[@]}" "$suite" "$out/root.tar" -
  else mmdebstrap "${opts[@]}" "$suite" "$out/root.tar"; fi
  rm "$out/apt.conf"
  if [ "$kind" = container ]; then
    mkdir "$out/root"
    tar -C "$out/root" --numeric-owner --xattrs --xattrs-include='*' --exclude='./dev/*' -xf "$out/root.tar"
  else
    # shellcheck disable=SC2016  # expanded by that shell
    as_root sh -euc '
      w=$(mktemp -d); trap "rm -rf $w" EXIT
      mkdir "$w/root"; tar -C "$w/root" --numeric-owner --exclude="./dev/*" -x
      cp "$w"/root/boot/vmlinuz-* "$w/vmlinuz"; cp "$w"/root/boot/initrd.img-* "$w/initrd"
      truncate -s 8G "$w/disk.img"
      mke2fs -q -F -t ext4 -E lazy_itable_init=1 -L root -d "$w/root" "$w/disk.img" >&2
      tar -C "$w" -cS --mode=644 disk.img vmlinuz initrd' < "$out/root.tar" | tar -C "$out" --no-same-owner -xS
    warm_base "$out"
  fi
  rm "$out/root.tar"
}
# One boot of the new base, for what a first boot does slowly and once: above all compiling the AppArmor
# profiles (75 s of 120 when emulated). soc-lab-warm.service (guest-setup) tidies up and powers off.
warm_base() { # OUT
  local accel
  accel=$(vm_accel "$1")
  # shellcheck disable=SC2046  # words
  timeout 900 qemu-system-x86_64 $(vm_machine "$accel") -m 1024 -nodefaults -display none -no-reboot -nic none \
    -kernel "$1/vmlinuz" -initrd "$1/initrd" -append "$VM_CMDLINE systemd.machine_id=$(tr -d - < /proc/sys/kernel/random/uuid) \
systemd.wants=soc-lab-warm.service systemd.mask=soc-lab-seed.service systemd.mask=ssh.service systemd.mask=docker.service systemd.mask=docker.socket systemd.mask=containerd.service" \
    -drive "file=$1/disk.img,format=raw,if=virtio,cache=unsafe" -device virtio-rng-pci -serial "file:$1/console.log"
  grep -q 'soc-lab: base is warm' "$1/console.log"
}

VM_CMDLINE="root=/dev/vda rw console=ttyS0 loglevel=4 apparmor=1 security=apparmor lsm=apparmor systemd.condition_first_boot=no"
vm_machine() { if [ "$1" = kvm ]; then echo "-accel kvm -cpu host -smp 2"; else echo "-accel tcg,thread=multi,tb-size=1024 -cpu max -smp 2"; fi; }
# KVM where it works, asked once a boot of the machine: a /dev/kvm that opens may still fail once a guest runs,
# so the base's kernel is started for a moment. Without a disk it gets as far as looking for its root.
vm_accel() { # DIRECTORY-WITH-vmlinuz
  local boot log seen pid try answer=tcg
  boot=$(cat /proc/sys/kernel/random/boot_id); seen=$(cache_dir)/accel
  if grep -qs "^$boot " "$seen"; then cut -d' ' -f2 "$seen"; return; fi
  if [ -w /dev/kvm ]; then
    log=$(mktemp)
    timeout -k 1 10 qemu-system-x86_64 -accel kvm -cpu host -m 512 -nodefaults -display none -no-reboot -serial "file:$log" \
      -kernel "$1/vmlinuz" -append "console=ttyS0 panic=-1" </dev/null >/dev/null 2>&1 9>&- 8>&- &
    pid=$!
    for try in $(seq 50); do
      kill -0 $pid 2>/dev/null || break
      if grep -qs 'Unable to mount root' "$log"; then break; fi
      sleep 0.2
    done
    kill -9 $pid 2>/dev/null || true
    wait $pid 2>/dev/null || true
    if grep -qs 'Unable to mount root' "$log"; then answer=kvm; else say "lab: KVM does not work here (tried $try times); emulating, which is slower"; fi
    rm -f "$log"
  fi
  echo "$boot $answer" > "$seen"
  echo $answer
}

# Root, or somebody who looks like root to tar and mke2fs: the user name space mmdebstrap itself builds in.
# There it cannot enter the caller's own directories, hence the pipes.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else mmdebstrap --unshare-helper "$@"; fi; }

# make_seed I: everything of one host that is not in its base, as one tar for guest-seed
make_seed() {
  local i=$1 s=$DIR/h$1/seed c
  rm -rf "$s"; mkdir -p "$s/etc/ssh" "$s/etc/apt/apt.conf.d" "$s/etc/soc-lab" "$s/usr/local/share/ca-certificates"
  echo "h$i" > "$s/etc/hostname"
  printf '127.0.0.1 localhost\n127.0.1.1 h%s\n::1 localhost ip6-localhost ip6-loopback\n' "$i" > "$s/etc/hosts"
  cp "$DIR/h$i"/keys/ssh_host_* "$s/etc/ssh/"; chmod 600 "$s"/etc/ssh/ssh_host_*_key
  cp "$DIR/id_ed25519.pub" "$s/etc/soc-lab/authorized_keys"
  [ -f "$DIR/h$i/machine-id" ] || tr -d - < /proc/sys/kernel/random/uuid > "$DIR/h$i/machine-id"
  cp "$DIR/h$i/machine-id" "$s/etc/machine-id"
  # shellcheck disable=SC2153  # set by select_lab
  apt_sources "$SUITE" > "$s/etc/apt/sources.list"; [ -s "$s/etc/apt/sources.list" ] || rm "$s/etc/apt/sources.list"
  apt_settings > "$s/etc/apt/apt.conf.d/90soc-lab"
  # certificate authorities the machine trusts beyond Debian's, e.g. those of a proxy in front of the archive
  for c in /usr/local/share/ca-certificates/*.crt; do
    if [ -f "$c" ]; then cp "$c" "$s/usr/local/share/ca-certificates/"; fi
  done
  seed_network "$i" "$s" # container.sh or vm.sh
  tar -C "$s" --owner=0 --group=0 --numeric-owner --sort=name -cf "$DIR/h$i/seed.tar" .
  rm -rf "$s"
}
