# Makes the image nginx-real:1 of the nginx that this host has: the program, its libraries, and busybox for
# the health check. Set before: nginx, the program's path; empty for the distribution's, installed here.
set -eu
export DEBIAN_FRONTEND=noninteractive
packages=busybox-static
[ -n "$nginx" ] || packages="$packages nginx-light"
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
apt-get update -qq >/dev/null
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $packages >/dev/null 2>&1
rm /usr/sbin/policy-rc.d
nginx=${nginx:-/usr/sbin/nginx}
root=$(mktemp -d)
mkdir -p "$root/bin" "$root/tmp" "$root/etc" "$root/var/log/nginx" "$root/var/lib/nginx"
for lib in $(ldd "$nginx" 2>/dev/null | grep -o '/[^ ]*'); do mkdir -p "$root${lib%/*}" && cp -L "$lib" "$root$lib"; done
cp -L "$nginx" "$root/bin/nginx" && chmod 755 "$root/bin/nginx"
cp -L "$(command -v busybox)" "$root/bin/busybox"
for tool in sh wget; do ln -s busybox "$root/bin/$tool"; done
printf 'root:x:0:0::/:/bin/sh\nnginx:x:101:101::/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnginx:x:101:\n' >"$root/etc/group"
chmod 1777 "$root/tmp"
tar -C "$root" -c . | docker import -c 'ENV PATH=/bin' - nginx-real:1 >/dev/null
rm -r "$root"
docker run --rm nginx-real:1 nginx -v 2>&1
