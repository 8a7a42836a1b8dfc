show() { echo "##$1"; [ -r "$2" ] && while IFS= read -r l || [ -n "$l" ]; do printf '%s\n' "$l"; done <"$2"; }
show os-release /etc/os-release
echo '##uname'; uname -snrm
echo '##init'; IFS= read -r l </proc/1/comm && echo "$l"
echo '##apt'; [ -x /usr/bin/apt-get ] && echo apt
show boot_id /proc/sys/kernel/random/boot_id
echo '##started'; IFS= read -r l </proc/1/stat && { l=${l##*) }; set -- $l; echo "${20}"; }
show apparmor /sys/module/apparmor/parameters/enabled
echo '##cgroup'; [ -e /sys/fs/cgroup/cgroup.controllers ] && echo 2
echo '##user'; u=${SUDO_USER:-${USER:-${LOGNAME:-}}}; echo "$u"
while IFS=: read -r n l l l l h l; do [ "$n" != "$u" ] || echo "$h"; done </etc/passwd
echo '##virtualization'
if [ -e /run/systemd/container ]; then IFS= read -r l </run/systemd/container && echo container; elif [ -r /sys/class/dmi/id/sys_vendor ]; then IFS= read -r l </sys/class/dmi/id/sys_vendor && echo "$l"; fi
echo '##meminfo'; n=0; while [ $n -lt 20 ] && IFS= read -r l; do case $l in MemTotal:*|MemAvailable:*|SwapTotal:*) echo "$l";; esac; n=$((n+1)); done </proc/meminfo
echo '##cpus'; n=0; while IFS= read -r l; do case $l in processor*:*) n=$((n+1));; esac; done </proc/cpuinfo; [ $n -gt 0 ] || n=1; echo $n
show route /proc/net/route
echo '##addr'; ip -o addr 2>/dev/null
echo '##df'; df -Pk 2>/dev/null
echo '##lacks'; for l in base64 cat chmod chown cut find getent grep head id ln ls mkdir mv readlink rm sha256sum sort stat sync tail touch tr xargs; do command -v "$l" >/dev/null || echo "$l"; done
echo '##end'
