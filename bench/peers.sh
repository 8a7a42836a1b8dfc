#!/bin/bash
# peers.sh TOOL HOSTS RTT(0|5|20) PHASES("cold again"|"cold"|"again") [REPS] - measures one peer on W, appends to $RES.
# TOOL: soc ansible-default ansible-tuned mitogen pyinfra sh shbatch true. "again" alone: W is applied by w.sh first.
set -u
HERE=$(cd "$(dirname "$0")" && pwd); BENCH=${BENCH:-$(dirname "$HERE")/.bench}; export SB=${SB:-$BENCH/sb}; W=$BENCH/w; SOC=${SOC:-$(dirname "$HERE")/target/release/soc-provision}; RES=${RES:-$BENCH/results.jsonl}
tool=$1 n=$2 rtt=$3 phases=$4 reps=${5:-1}
mkdir -p $BENCH/log $BENCH/home; [ -f $W/w.sh ] || python3 $HERE/gen.py $W
printf '[defaults]\nforks = 50\ngathering = explicit\n[ssh_connection]\npipelining = True\nssh_args = -o ControlMaster=auto -o ControlPersist=300s\n' > $BENCH/ans-tuned.cfg
printf '[defaults]\nforks = 50\ngathering = explicit\nstrategy_plugins = %s\nstrategy = mitogen_linear\n' "$(echo $BENCH/v-ansible/lib/python3*/site-packages/ansible_mitogen/plugins/strategy)" > $BENCH/ans-mitogen.cfg
ap="env ANSIBLE_HOME=$BENCH/ah %s $BENCH/v-ansible/bin/ansible-playbook -i $SB/inv$rtt.ini $W/ansible.yml"
par="xargs -a $SB/hosts$rtt.txt -P 50 -I{} sh -c 'h={}; ssh -F $SB/ssh_config {} \"%s\" <%s'"
case $tool in
soc) CMD="cd $W/soc && HOME=$BENCH/home XDG_STATE_HOME=$BENCH/home $SOC apply w.yml -i $SB/soc$rtt.yml";;
ansible-default) CMD=$(printf "$ap" X=1);;
ansible-tuned) CMD=$(printf "$ap" ANSIBLE_CONFIG=$BENCH/ans-tuned.cfg);;
mitogen) CMD=$(printf "$ap" ANSIBLE_CONFIG=$BENCH/ans-mitogen.cfg);;
pyinfra) CMD="$BENCH/v-pyinfra/bin/pyinfra -y --user root --key $SB/id --data ssh_known_hosts_file=$SB/known_hosts --data ssh_strict_host_key_checking=yes $SB/inv$rtt.py $W/pyinfra_w.py";;
true) CMD=$(printf "$par" true /dev/null);;
sh) CMD=$(printf "$par" "sh -s \${h##*.}" $W/w.sh);;
shbatch) CMD=$(printf "$par" "sh -s \${h##*.} >/dev/null" $W/wb.sh);;
*) echo "unknown tool $tool"; exit 2;;
esac
cd $W
for r in $(seq $reps); do
  case "$phases" in
  *cold*) $HERE/hosts.sh reset $n >/dev/null || exit 1;;
  *) [ "$(cat $SB/n)" = $n ] || $HERE/hosts.sh reset $n >/dev/null
     $HERE/hosts.sh exec xargs -a $SB/hosts0.txt -P 10 -I{} sh -c "h={}; ssh -F $SB/ssh_config {} sh -s \${h##*.} <$W/w.sh" >/dev/null;;
  esac
  for k in $phases; do OUT=$BENCH/log/$tool-$n-$rtt-$k.log; : > $OUT; OUT=$OUT python3 $HERE/measure.py $tool/$n/$rtt/$k $RES -- sh -c "$CMD"; done
done
