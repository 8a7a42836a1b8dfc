#!/bin/bash
# hosts.sh up N | down | reset N | status
# N light test hosts for benchmarks: each its own network, mount, pid, uts and ipc namespace, an overlay
# (upper on tmpfs) over one shared Debian trixie rootfs, and a real OpenSSH sshd as pid 1 on port 22.
# All hosts hang on one bridge in a private controller namespace "sbctl" without any uplink.
# Host i has three addresses (the same machine, another round-trip time):
#   198.18.0.i  direct veth+bridge        198.18.5.i  RTT 5 ms        198.18.20.i  RTT 20 ms
# Run a controller inside the namespace:  nsenter --net=/run/netns/sbctl COMMAND   (or: hosts.sh exec COMMAND)
# Needs root, iproute2, util-linux, gcc (delay.c) and, for the first `up`, mmdebstrap.
set -u
HERE=$(cd "$(dirname "$0")" && pwd); SB=${SB:-$(dirname "$HERE")/.bench/sb}
CG=/sys/fs/cgroup/cpuacct CPU=/sys/fs/cgroup/cpu
SHARES=${SHARES:-4096} # scheduler weight of hosts + controller together; others have 1024 each (autogroup)
PKGS=openssh-server,python3,python3-apt,sudo,procps,iproute2,cron,rsync,curl,vim-tiny,less,logrotate,nftables,ca-certificates

prepare() {
  mkdir -p $SB
  [ -x $SB/delay ] || gcc -O2 -o $SB/delay $HERE/delay.c || exit 1
  [ -f $SB/id ] || ssh-keygen -q -t ed25519 -N '' -C sb -f $SB/id
  if [ ! -f $SB/rootfs/.ready ]; then
    [ -d $SB/rootfs ] || mmdebstrap --variant=minbase --skip=cleanup/apt/lists --include=$PKGS trixie $SB/rootfs || exit 1
    rm -f $SB/rootfs/etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -C sbhost -f $SB/rootfs/etc/ssh/ssh_host_ed25519_key
    mkdir -p $SB/rootfs/root/.ssh $SB/rootfs/run/sshd; chmod 700 $SB/rootfs/root/.ssh; cp $SB/id.pub $SB/rootfs/root/.ssh/authorized_keys
    # VERBOSE: one log line per connection and per session, which is how the runner counts them
    printf 'LogLevel VERBOSE\nMaxStartups 500:30:1000\n' > $SB/rootfs/etc/ssh/sshd_config.d/sb.conf
    chroot $SB/rootfs apt-cache gencaches >/dev/null 2>&1
    touch $SB/rootfs/.ready
  fi
}
netup() {
  ip route replace unreachable 198.18.0.0/16 # a command run outside sbctl by mistake must not leave by the machine's uplink
  ip netns add sbctl
  ip netns exec sbctl bash -c '
    ip link set lo up; ip link add br0 type bridge; ip addr add 198.18.0.254/24 dev br0; ip link set br0 up
    sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0'
  for ms in 5 20; do
    setsid ip netns exec sbctl $SB/delay tun$ms ${ms}000 >$SB/delay$ms.log 2>&1 & echo $! > $SB/delay$ms.pid
    for _ in $(seq 100); do ip -n sbctl link show tun$ms >/dev/null 2>&1 && break; sleep .02; done
    ip netns exec sbctl bash -c "
      ip addr add 198.18.$ms.254/24 dev tun$ms; ip link set tun$ms txqueuelen 10000 up; sysctl -qw net.ipv4.conf.tun$ms.accept_local=1 net.ipv4.conf.tun$ms.rp_filter=0
      ip rule add iif tun$ms lookup $((100+ms)); ip route add 198.18.$ms.0/24 dev br0 table $((100+ms))"
  done
}
hostup() { # i
  local i=$1 d=$SB/h/$1
  mkdir -p $d/m
  ip netns add sb$i
  ip link add v$i netns sbctl type veth peer name eth0 netns sb$i
  printf 'link set v%s master br0\nlink set v%s up\n' $i $i | ip -n sbctl -batch -
  printf 'link set lo up\naddr add 198.18.0.%s/24 dev eth0\naddr add 198.18.5.%s/24 dev eth0\naddr add 198.18.20.%s/24 dev eth0\nlink set eth0 up\n' $i $i $i | ip -n sb$i -batch -
  ( echo $BASHPID > $CG/sb-hosts/tasks 2>/dev/null; echo $BASHPID > $CPU/sb-bench/tasks 2>/dev/null
    exec setsid nsenter --net=/run/netns/sb$i unshare --mount --uts --ipc --pid --fork --kill-child bash -c '
      set -e; i=$1 d=$2 SB=$3; hostname sb$i
      mount -t tmpfs -o size=512m tmpfs $d/m; mkdir $d/m/{u,w,r}
      mount -t overlay overlay -o lowerdir=$SB/rootfs,upperdir=$d/m/u,workdir=$d/m/w $d/m/r; cd $d/m/r
      mount -t proc proc proc; mount -t sysfs -o ro sysfs sys; mount -t tmpfs -o mode=755 tmpfs run; mkdir run/sshd run/lock
      mount -t tmpfs -o mode=755 tmpfs dev; mkdir dev/pts dev/shm; mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts; ln -s pts/ptmx dev/ptmx
      for n in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do set -- $n; mknod -m 666 dev/$1 c $2 $3; done
      ln -s /proc/self/fd dev/fd; ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
      echo sb$i > etc/hostname; echo "127.0.0.1 localhost sb$i" > etc/hosts
      exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /usr/sbin/sshd -D -e' _ $i $d $SB
  ) </dev/null >$d/sshd.log 2>&1 &
  echo $! > $d/pid
}
hostdown() { local i=$1 d=$SB/h/$1; [ -f $d/pid ] && kill -9 $(cat $d/pid) 2>/dev/null; ip -n sbctl link del v$i 2>/dev/null; ip netns del sb$i 2>/dev/null; rm -rf $d; }
waitup() { local n=$1; for i in $(seq $n); do for _ in $(seq 500); do grep -q 'listening' $SB/h/$i/sshd.log 2>/dev/null && continue 2; sleep .02; done; echo "host $i not up" >&2; cat $SB/h/$i/sshd.log >&2; exit 1; done; }
inventory() { # for Ansible (ini), pyinfra (py) and anything else (list)
  local n=$1 hk; hk=$(cut -d' ' -f1,2 $SB/rootfs/etc/ssh/ssh_host_ed25519_key.pub)
  : > $SB/known_hosts; for m in 0 5 20; do for i in $(seq $n); do echo "198.18.$m.$i $hk"; done; done > $SB/known_hosts
  for m in 0 5 20; do
    { echo "[sb]"; for i in $(seq $n); do echo "sb$i ansible_host=198.18.$m.$i host_id=$i"; done
      printf '[sb:vars]\nansible_user=root\nansible_ssh_private_key_file=%s\nansible_python_interpreter=/usr/bin/python3\nansible_ssh_extra_args=-o UserKnownHostsFile=%s\n' $SB/id $SB/known_hosts; } > $SB/inv$m.ini
    { echo "sb = ["; for i in $(seq $n); do echo "  ('198.18.$m.$i', {'host_id': $i}),"; done; echo "]"; } > $SB/inv$m.py
    { echo "all:"; echo "  vars: {ansible_user: root, ansible_ssh_private_key_file: $SB/id}"; echo "  children: {sb: {hosts: {"
      for i in $(seq $n); do echo "    sb$i: {ansible_host: 198.18.$m.$i, host_id: $i},"; done; echo "  }}}"; } > $SB/soc$m.yml # host keys: known_hosts beside it
    for i in $(seq $n); do echo 198.18.$m.$i; done > $SB/hosts$m.txt
  done
  printf 'Host 198.18.*\n  User root\n  IdentityFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n  BatchMode yes\n' $SB/id $SB/known_hosts > $SB/ssh_config
}
case ${1:-} in
up) prepare; mkdir -p $CG/sb-hosts $CG/sb-ctl $CPU/sb-bench; echo $SHARES > $CPU/sb-bench/cpu.shares; netup; for i in $(seq $2); do hostup $i; done; waitup $2; echo $2 > $SB/n; inventory $2; echo "up: $2 hosts";;
reset) # fresh file systems and fresh sshd, same network
  for i in $(seq $(cat $SB/n)); do hostdown $i; done; for i in $(seq $2); do hostup $i; done; waitup $2; echo $2 > $SB/n; inventory $2; echo "reset: $2 hosts";;
down) for i in $(seq $(cat $SB/n 2>/dev/null || echo 0)); do hostdown $i; done; for m in 5 20; do kill $(cat $SB/delay$m.pid) 2>/dev/null; rm -f $SB/delay$m.pid; done; ip netns del sbctl 2>/dev/null; ip route del unreachable 198.18.0.0/16 2>/dev/null; echo 0 > $SB/n;;
exec) shift; exec nsenter --net=/run/netns/sbctl "$@";;
status) echo "$(cat $SB/n) hosts"; ip netns list;;
*) sed -n 2,12p "$0"; exit 2;;
esac
