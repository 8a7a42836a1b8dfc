#!/usr/bin/env bash
# verify.sh TOOL...: applies the workload to a fresh host with each tool and compares the end states, byte for byte.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd); BENCH=${BENCH:-$(dirname "$HERE")/.bench}; export BENCH SB=${SB:-$BENCH/sb} RES=/dev/null
first=''
for tool; do
  "$HERE/peers.sh" "$tool" 1 0 cold > "$BENCH/verify.log" 2>&1
  # The state directory of soc-provision is its own; everything that the workload names is compared.
  "$HERE/hosts.sh" exec ssh -F "$SB/ssh_config" 198.18.0.1 sh < "$BENCH/w/verify.sh" > "$BENCH/state-$tool"
  if [ -z "$first" ]; then first=$tool; continue; fi
  if cmp -s "$BENCH/state-$first" "$BENCH/state-$tool"; then echo "end state of $tool equals that of $first"; else echo "end state of $tool DIFFERS from that of $first"; diff "$BENCH/state-$first" "$BENCH/state-$tool" | head -5; fi
done
