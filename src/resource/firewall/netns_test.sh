# Runs in a network and a mount namespace of its own: this host, a neighbour `out`, a container
# `c1` behind a bridge, and the redirections that Docker would make. Prints what gets through.
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
ip link set lo up
for ns in out c1; do ip netns add $ns; ip -n $ns link set lo up; done
ip link add vout type veth peer name eth0 netns out
ip link add br-test type bridge
ip link add vc1 type veth peer name eth0 netns c1
ip link set vc1 master br-test
for link in vout br-test vc1; do ip link set $link up; done
for ns in out c1; do ip -n $ns link set eth0 up; done
ip addr add 10.9.0.1/24 dev vout
ip addr add fd09::1/64 dev vout nodad
ip addr add 172.30.0.1/24 dev br-test
ip -n out addr add 10.9.0.2/24 dev eth0
ip -n out addr add 10.9.0.3/24 dev eth0
ip -n out addr add fd09::2/64 dev eth0 nodad
ip -n c1 addr add 172.30.0.2/24 dev eth0
ip -n c1 route add default via 172.30.0.1
ip -n out route add 172.30.0.0/24 via 10.9.0.1
echo 1 >/proc/sys/net/ipv4/ip_forward
nft -f /dev/stdin <<'NAT'
table ip nat {
  chain pre { type nat hook prerouting priority dstnat; tcp dport { 8080, 9200, 9300 } dnat to 172.30.0.2:8000; }
  chain post { type nat hook postrouting priority srcnat; ip saddr 172.30.0.0/24 oifname "vout" masquerade; }
}
NAT
serve='import socket,sys,select
ls=[]
for p in sys.argv[1:]:
    s=socket.socket(socket.AF_INET6); s.setsockopt(socket.IPPROTO_IPV6,socket.IPV6_V6ONLY,0); s.bind(("::",int(p))); s.listen(); ls.append(s)
print("ready",flush=True)
while True:
    for s in select.select(ls,[],[])[0]: s.accept()[0].close()'
pids=
start() { fifo=/run/ready.$1; mkfifo $fifo; shift; "$@" >$fifo & pids="$pids $!"; read -r _ <$fifo; }
start h python3 -c "$serve" 22 7000 7001 8080
start c ip netns exec c1 python3 -c "$serve" 8000
start o ip netns exec out python3 -c "$serve" 9999
trap 'kill $pids 2>/dev/null' EXIT
try() { # name, namespace, source, address, port
    if ${2:+ip netns exec $2} python3 -c 'import socket,sys
socket.create_connection((sys.argv[2],int(sys.argv[3])),0.6,(sys.argv[1],0) if sys.argv[1] else None)' "$3" "$4" "$5" 2>/dev/null
    then echo "$1 open"; else echo "$1 closed"; fi
}
all() {
    try ssh out '' 10.9.0.1 22
    try ssh-v6 out '' fd09::1 22
    try published out '' 10.9.0.1 8080
    try published-v6-proxy out '' fd09::1 8080
    try unlisted out '' 10.9.0.1 9200
    try limited-from-listed out 10.9.0.3 10.9.0.1 9300
    try limited-from-other out 10.9.0.2 10.9.0.1 9300
    try host-listed out '' 10.9.0.1 7001
    try host-unlisted out '' 10.9.0.1 7000
    try straight-to-container out '' 172.30.0.2 8000
    try egress c1 '' 10.9.0.2 9999
    try container-to-host c1 '' 172.30.0.1 7000
    try loopback '' '' 127.0.0.1 7000
}
echo '# without'
all
printf %s "$RULES" | nft -f /dev/stdin
echo '# with'
all
nft list table ip nat >/dev/null && echo 'nat kept'
