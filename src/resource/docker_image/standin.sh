# Makes a stand-in image on the host, without a registry: the host's own static busybox, a process
# that answers on the declared ports, a health check. Same busybox and arguments: the same image id.
# Set before: name, digest, arch, user, group, tcp, udp, writes, tools, extra (a health check's command).
umask 022
for busybox in /usr/bin/busybox /bin/busybox; do [ -x "$busybox" ] && break; done
[ -x "$busybox" ] || { echo "busybox is missing: install busybox-static" >&2; exit 1; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
fixed_tar() { tar --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner "$@"; }
root=$work/root
mkdir -p "$root/bin" "$root/etc" "$root/tmp" "$root/var" "$root/usr" "$root/home" "$root/data" || exit 1
cp "$busybox" "$root/bin/busybox" && chmod 755 "$root/bin/busybox" || exit 1
"$root/bin/busybox" true || exit 1
for applet in $("$busybox" --list); do [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"; done
ln -s ../bin "$root/usr/bin"
printf 'root:x:0:0::/:/bin/sh\nstandin:x:%s:%s::/:/bin/sh\n' "$user" "$group" >"$root/etc/passwd"
printf 'root:x:0:\nstandin:x:%s:\n' "$group" >"$root/etc/group"
cat >"$root/bin/standin-reply" <<'END'
#!/bin/sh
# One HTTP request on stdin, one answer on stdout.
cr=$(printf '\r')
while read -r line; do [ "$line" = "$cr" ] || [ -z "$line" ] && break; done
printf 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n'
END
cat >"$root/bin/standin-health" <<END
#!/bin/sh
# Healthy unless told otherwise, and unless a port, a directory or the given check fails.
[ ! -e /tmp/unhealthy ] || { echo "/tmp/unhealthy exists"; exit 1; }
[ "\${FAIL:-}" != 1 ] || { echo "FAIL=1"; exit 1; }
for port in $tcp; do wget -q -T 3 -O /dev/null "http://127.0.0.1:\$port/" || { echo "port \$port does not answer"; exit 1; }; done
for d in $writes; do [ -s "\$d/.standin" ] || { echo "\$d cannot be written"; exit 1; }; done
END
printf '%s\n' "$extra" >>"$root/bin/standin-health"
cat >"$root/bin/standin" <<END
#!/bin/sh
# Process 1: a listener a TCP port (busybox has none for UDP), a file in each directory that the real program writes to.
[ -z "\${EXIT:-}" ] || exit "\$EXIT"
trap 'exit 0' TERM INT
for d in $writes; do echo here >"\$d/.standin"; done
for port in $tcp; do nc -ll -p "\$port" -e /bin/standin-reply & done
while :; do sleep 3600 & wait \$!; done
END
for tool in $tools; do
  rm -f "$root/bin/$tool"
  printf '#!/bin/sh\n# Stands for the real program in health checks.\nexec /bin/standin-health\n' >"$root/bin/$tool"
  chmod 755 "$root/bin/$tool"
done
chmod 755 "$root/bin/standin" "$root/bin/standin-reply" "$root/bin/standin-health"
for d in $writes; do mkdir -p "$root$d" && chown "$user:$group" "$root$d" && chmod 777 "$root$d"; done
chmod 1777 "$root/tmp" "$root/data"
(cd "$root" && fixed_tar -cf "$work/layer.tar" -- *) || exit 1
layer=$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)
exposed=''
for port in $tcp; do exposed="$exposed${exposed:+,}\"$port/tcp\":{ }"; done
for port in $udp; do exposed="$exposed${exposed:+,}\"$port/udp\":{ }"; done
mkdir -p "$work/out/$layer"
printf '{"architecture":"%s","os":"linux","created":"1970-01-01T00:00:00Z","config":{"User":"%s:%s","ExposedPorts":{%s},"Env":["PATH=/bin"],"Entrypoint":["/bin/standin"],"WorkingDir":"/","Labels":{"soc.stand-in":"%s"},"Healthcheck":{"Test":["CMD","/bin/standin-health"],"Interval":10000000000,"Timeout":5000000000,"StartPeriod":30000000000,"StartInterval":1000000000,"Retries":3}},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"1970-01-01T00:00:00Z","created_by":"soc-provision stand-in"}]}' \
  "$arch" "$user" "$group" "$exposed" "$digest" "$layer" >"$work/config.json"
config=$(sha256sum <"$work/config.json" | cut -d' ' -f1)
mv "$work/config.json" "$work/out/$config.json"
mv "$work/layer.tar" "$work/out/$layer/layer.tar"
printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["%s/layer.tar"]}]\n' "$config" "$name" "$layer" >"$work/out/manifest.json"
(cd "$work/out" && fixed_tar -c -- *) | docker load >/dev/null || exit 1
[ "$(docker image inspect -f '{{index .Config.Labels "soc.stand-in"}}' "$name")" = "$digest" ]
