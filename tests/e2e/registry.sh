# Makes a host a registry of its own: the distribution's `docker-registry` twice, behind TLS and a password as
# registry.lab:5000, and in clear on loopback as a mirror of the Hub. The user is `puller`, the password stdin's line.
set -eu
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
apt-get update -qq >/dev/null
apt-get install -y -qq --no-install-recommends docker-registry apache2-utils openssl >/dev/null 2>&1
rm /usr/sbin/policy-rc.d
echo "127.0.0.1 registry.lab" >>/etc/hosts
at=/srv/registry
mkdir -p $at /etc/docker/certs.d/registry.lab:5000
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=registry.lab \
  -addext subjectAltName=DNS:registry.lab -keyout $at/key.pem -out $at/crt.pem 2>/dev/null
cp $at/crt.pem /etc/docker/certs.d/registry.lab:5000/ca.crt
htpasswd -Bbn puller "$PASSWORD" >$at/htpasswd
cat >$at/real.yml <<Y
version: 0.1
storage: {filesystem: {rootdirectory: $at/data}, delete: {enabled: true}}
http: {addr: "127.0.0.1:5000", tls: {certificate: $at/crt.pem, key: $at/key.pem}}
auth: {htpasswd: {realm: lab, path: $at/htpasswd}}
Y
cat >$at/mirror.yml <<Y
version: 0.1
storage: {filesystem: {rootdirectory: $at/mirrored}}
http: {addr: "127.0.0.1:5001"}
Y
for name in real mirror; do
  cat >/etc/systemd/system/registry-$name.service <<U
[Service]
ExecStart=/usr/bin/docker-registry serve $at/$name.yml
U
done
systemctl daemon-reload
systemctl start registry-real registry-mirror
for _ in 1 2 3 4 5 6 7 8 9 10; do ss -Hltn sport = :5000 | grep -q . && break; sleep 0.3; done
systemctl is-active registry-real registry-mirror >/dev/null
