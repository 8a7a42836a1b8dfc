# Makes a stand-in image on the host, without a registry: the host's own static busybox, a process
# that answers on the declared ports, a health check. Same busybox and arguments: the same image id.
# Set before: name, digest, arch, user, group, tcp, udp, writes, tools, extra (a health
# check's command), runs (code beside the listeners), answers (lines: path, tab, body).
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
printf '%s' "$answers" >"$root/etc/standin-answers"
printf '%s\n' "$runs" >"$root/etc/standin-runs"
cat >"$root/bin/standin-reply" <<'END'
#!/bin/sh
# One HTTP request on stdin, one answer on stdout. Requests with a body are noted, for those who ask what arrived.
cr=$(printf '\r')
length=0
read -r method path rest
while read -r line; do
  line=${line%"$cr"}
  [ -n "$line" ] || break
  case $line in [Cc]ontent-[Ll]ength:*) length=${line#*:} length=${length# } ;; esac
done
case $length in ''|*[!0-9]*) length=0 ;; esac
if [ "$length" -gt 0 ] && [ "$length" -le 65536 ]; then
  body=$(head -c "$length" | tr '\n\t' '  ')
  printf '%s %s %s\n' "$method" "$path" "$body" >>/tmp/standin-requests
fi
answer=ok
while IFS='	' read -r known text; do [ "$known" != "${path%%\?*}" ] || answer=$text; done </etc/standin-answers
printf 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %s\r\nConnection: close\r\n\r\n%s\n' $((${#answer} + 1)) "$answer"
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
if [ -n "$udp" ]; then
  # busybox listens on no UDP; Debian's essential perl does. Each datagram is a line of /tmp/standin-udp-PORT.
  perl=/usr/bin/perl
  [ -x "$perl" ] || { echo "perl is missing: a stand-in that listens on UDP needs it" >&2; exit 1; }
  for file in $perl $(ldd $perl | grep -o '/[^ ]*'); do
    target=$root$file
    [ "$file" != "$perl" ] || target=$root/bin/perl
    mkdir -p "${target%/*}" && cp -L "$file" "$target" || exit 1
  done
  cat >"$root/bin/standin-udp" <<'END'
# Without the module Socket: 2 is AF_INET and SOCK_DGRAM, 17 is UDP, the address is any.
socket(IN, 2, 2, 17) and bind(IN, pack("SnNx8", 2, $ARGV[0], 0)) or die "port $ARGV[0]: $!";
while (defined recv(IN, my $line, 65535, 0)) {
  my $file = "/tmp/standin-udp-$ARGV[0]";
  $line =~ s/\s+$//;
  open(my $out, (-s $file // 0) > 1048576 ? ">" : ">>", $file) or next;
  print $out "$line\n";
  close $out;
}
END
fi
cat >"$root/bin/standin" <<END
#!/bin/sh
# Process 1: a listener a port, a file in each directory that the real program writes to.
[ -z "\${EXIT:-}" ] || exit "\$EXIT"
trap 'exit 0' TERM INT
for d in $writes; do echo here >"\$d/.standin"; done
for port in $tcp; do nc -ll -p "\$port" -e /bin/standin-reply & done
for port in $udp; do /bin/perl /bin/standin-udp "\$port" & done
sh /etc/standin-runs &
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
