# Run on a host with all six stacks: the distribution's own programs, where it has them, against the configuration
# that was rendered there. Prints one line for each proof; any failure ends it.
set -eu
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
apt-get update -qq >/dev/null
apt-get install -y -qq --no-install-recommends prometheus prometheus-alertmanager prometheus-blackbox-exporter nginx-light \
  redis-server suricata >/dev/null 2>&1
# The host's path of what a container has at a path.
source_of() {
  docker inspect "$1" -f '{{range .Mounts}}{{println .Source .Destination}}{{end}}' | awk -v at="$2" '$2 == at { print $1 }'
}
real=$(mktemp -d)
chmod 711 "$real"

rm -rf /etc/prometheus && mkdir -p /etc/prometheus
cp -r "$(source_of monitoring-prometheus /etc/prometheus)"/* /etc/prometheus/
promtool check config /etc/prometheus/prometheus.yml >/dev/null
echo "prometheus takes its configuration"

cat >"$real/rules.yml" <<'Y'
rule_files: [/etc/prometheus/alerts/soc.yml]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - {series: 'container_memory_usage_bytes{name="waf-application"}', values: '3.1e9x20'}
      - {series: 'container_memory_usage_bytes{name="waf-redis"}', values: '9e9x20'}
      - {series: 'up{job="docker", host="a"}', values: '1x5 0x20'}
      - {series: 'up{job="thehive"}', values: '0x20'}
    alert_rule_test:
      - {eval_time: 4m, alertname: HighMemoryUsage, exp_alerts: []}
      - eval_time: 6m
        alertname: HighMemoryUsage
        exp_alerts: [{exp_labels: {severity: warning, name: waf-application}, exp_annotations: {summary: High memory usage in WAF container}}]
      - {eval_time: 3m, alertname: ContainerDown, exp_alerts: []}
      - eval_time: 5m
        alertname: ContainerDown
        exp_alerts: [{exp_labels: {severity: critical, job: docker, host: a}, exp_annotations: {summary: Container is down}}]
      - eval_time: 5m
        alertname: ServiceDown
        exp_alerts: [{exp_labels: {severity: critical, job: thehive}, exp_annotations: {summary: thehive does not answer}}]
Y
promtool test rules "$real/rules.yml" >/dev/null
echo "the guide's rules fire at their numbers and not before"

prometheus-blackbox-exporter --config.check --config.file="$(source_of monitoring-blackbox-exporter /etc/blackbox/blackbox.yml)" 2>/dev/null
echo "blackbox exporter takes its configuration"

mkdir -p /etc/nginx/certs && cp "$(source_of waf-nginx /etc/nginx/certs)"/* /etc/nginx/certs/
grep -q ' waf$' /etc/hosts || echo "127.0.0.1 waf" >>/etc/hosts
nginx -t -c "$(source_of waf-nginx /etc/nginx/soc)/nginx.conf" 2>/dev/null
echo "nginx takes the WAF's configuration"
# `resolve` came with nginx 1.27; the image has 1.28, this host 1.26.
sed 's/ resolve / /' "$(source_of ml-inference-lb /etc/nginx/soc)/nginx.conf" >"$real/nginx.conf"
grep -q ' ml-inference$' /etc/hosts || echo "127.0.0.1 ml-inference" >>/etc/hosts
nginx -t -c "$real/nginx.conf" 2>/dev/null
echo "nginx takes the configuration in front of ml-inference"

for name in rag-redis-cache waf-redis; do
  conf=$(source_of $name /etc/redis/redis.conf)
  redis-server "$conf" --port 16379 >/dev/null 2>&1 &
  redis=$!
  for _ in 1 2 3 4 5 6 7 8 9 10; do redis-cli -p 16379 ping >/dev/null 2>&1 && break; sleep 0.3; done
  redis-cli -p 16379 ping 2>&1 | grep -q NOAUTH
  REDISCLI_AUTH=$(sed -n 's/^requirepass //p' "$conf"); export REDISCLI_AUTH
  [ "$(redis-cli -p 16379 ping)" = PONG ]
  [ -z "$(redis-cli -p 16379 config get save | tail -n +2)" ]
  kill $redis && wait $redis || true
  unset REDISCLI_AUTH
  echo "$name asks for its password and writes nothing to disk"
done

cp "$(source_of suricata-ids /etc/suricata/soc.rules)" /etc/suricata/soc.rules
mkdir -p /var/lib/suricata/rules && : >/var/lib/suricata/rules/suricata.rules
suricata -T -c "$(source_of suricata-ids /etc/suricata/suricata.yaml)" -l "$real" >/dev/null 2>&1
echo "suricata takes its configuration and rules"

# Alertmanager with the shipped route and receivers; receivers of ours stand at the addresses in its secrets.
mkdir -p /run/secrets
echo http://127.0.0.1:9199/webhook >/run/secrets/webhook_url
echo http://127.0.0.1:9199/slack >/run/secrets/slack_url
echo none >/run/secrets/smtp_password
cat >"$real/receiver.pl" <<'P'
use IO::Socket::INET;
my $listener = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1", LocalPort => 9199, ReuseAddr => 1) or die;
while (my $peer = $listener->accept) {
  my ($length, $request) = (0, scalar <$peer>);
  while (<$peer>) { $length = $1 if /^content-length: (\d+)/i; last if /^\r?\n$/ }
  read($peer, my $body, $length);
  open(my $out, ">>", "$ARGV[0]/received") or die; print $out "$request$body\n"; close $out;
  print $peer "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"; close $peer;
}
P
perl "$real/receiver.pl" "$real" >/dev/null 2>&1 &
receiver=$!
sed 's/group_wait: 30s/group_wait: 1s/' "$(source_of monitoring-alertmanager /etc/alertmanager)/alertmanager.yml" >"$real/alertmanager.yml"
prometheus-alertmanager --config.file="$real/alertmanager.yml" --storage.path="$real/am" --web.listen-address=127.0.0.1:19093 \
  --cluster.listen-address= >/dev/null 2>&1 &
manager=$!
for _ in 1 2 3 4 5 6 7 8 9 10; do
  amtool --alertmanager.url=http://127.0.0.1:19093 alert add SocProvisionSmoke severity=critical >/dev/null 2>&1 && break
  sleep 1
done
for _ in 1 2 3 4 5 6 7 8 9 10; do grep -q '^POST /slack' "$real/received" 2>/dev/null && grep -q '^POST /webhook' "$real/received" && break; sleep 1; done
kill $manager $receiver
grep -A1 '^POST /webhook' "$real/received" | grep -q '"alertname":"SocProvisionSmoke"'
grep -A1 '^POST /slack' "$real/received" | grep -q SocProvisionSmoke
echo "alertmanager delivers a test alert to the webhook and to Slack"
