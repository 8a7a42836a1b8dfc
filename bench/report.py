#!/usr/bin/env python3
"""report.py RESULTS.jsonl [VERIFY.txt [PAGE.json]] - docs/BENCHMARKS.md on stdout: medians of one sitting, ratios, what the bars ask."""
import json, os, platform, statistics, subprocess, sys, time
runs = {}
for line in open(sys.argv[1]):
    r = json.loads(line)
    if r["rc"] == 0: runs.setdefault(tuple(r["label"].split("/")), []).append(r)
def med(key, what="wall"):
    return statistics.median(r[what] for r in runs[key]) if key in runs else None
def fmt(x, digits=2): return "-" if x is None else f"{x:.{digits}f}"
sh = lambda c: subprocess.run(c, shell=True, text=True, capture_output=True).stdout.strip()
print("""# Benchmarks
Written by `make bench` (`bench/run`). One sitting, the tools in turn on the same hosts; medians of whole processes. Absolute times are those of
this machine, where the hosts share two cores with the controller: compare ratios. The hosts are real sshds over one Debian 13 root file
system each, in network namespaces (`bench/hosts.sh`); the workload is 50 tasks a host (`bench/gen.py`). Connections are cold.
""")
print(f"Machine: {platform.platform()}, {os.cpu_count()} cores. Date: {time.strftime('%Y-%m-%d', time.gmtime())}. Revision: {sh('git rev-parse --short HEAD')}.")
print("Peers: ansible-core 2.19.14 with pipelining and forks = hosts (`ansible-tuned`), the same with Mitogen 0.3.54, pyinfra 3.10.0, and `shbatch`: one ordinary `ssh`")
print("and one script that asks each kind of question once.\n")
print("| tool | hosts | RTT ms | phase | runs | wall s (median) | controller CPU s | hosts CPU s | peak MB | SSH sessions | others' cores |\n|---|---|---|---|---|---|---|---|---|---|---|")
for key in sorted(runs, key=lambda k: (int(k[1]), int(k[2]), k[3], k[0])):
    rs = runs[key]
    noise = statistics.median(max(0, r["other_cpu"] / r["wall"]) for r in rs)
    print(f"| {key[0]} | {key[1]} | {key[2]} | {key[3]} | {len(rs)} | {fmt(med(key))} | {fmt(med(key, 'ctl_cpu'))} | {fmt(med(key, 'hosts_cpu'))} | {fmt(max(r['peak_mb'] for r in rs), 0)} | {rs[-1]['sessions']} | {fmt(noise, 1)} |")
print("\n## Against the bars\n| bar | asked | measured |\n|---|---|---|")
def paired(n, rtt):
    a, b = runs.get(("soc", n, rtt, "again"), []), runs.get(("shbatch", n, rtt, "again"), [])
    k = min(len(a), len(b))
    return statistics.median(x["wall"] / y["wall"] for x, y in zip(a[:k], b[:k])) if k else None
for n, rtt in (("1", "0"), ("10", "0"), ("50", "0"), ("10", "20")):
    print(f"| unchanged, {n} hosts, {rtt} ms: wall against batched sh, pair by pair | at most 0.8 | {fmt(paired(n, rtt))} |")
def against(tool, phase, bar):
    a, b = med((tool, "10", "0", phase)), med(("soc", "10", "0", phase))
    print(f"| {phase}, 10 hosts: times faster than {tool} | at least {bar} | {fmt(a / b if a and b else None, 0)} |")
against("ansible-tuned", "again", 200); against("mitogen", "again", 80); against("pyinfra", "again", 15)
against("ansible-tuned", "cold", 80); against("pyinfra", "cold", 9)
fifty = ("soc", "50", "0", "again")
cpu = med(fifty, "ctl_cpu"); print(f"| controller CPU a host at 50 hosts, ms | at most 10 | {fmt(cpu * 20 if cpu else None, 1)} |")
mb = med(fifty, "peak_mb"); one = med(("soc", "1", "0", "again"), "peak_mb")
print(f"| controller memory a host at 50 hosts, MiB (beyond one host's run) | at most 1 | {fmt((mb - one) / 49 if mb and one else None)} |")
s = runs.get(fifty); print(f"| SSH sessions a host | 1 | {fmt(s[-1]['sessions'] / 50 if s else None, 1)} |")
if len(sys.argv) > 2 and os.path.isfile(sys.argv[2]): print("\n## End state\n" + "".join("- " + l for l in open(sys.argv[2])))
if len(sys.argv) > 3 and os.path.isfile(sys.argv[3]):
    page = json.load(open(sys.argv[3])); mib = page["bytes"] / 2**20
    print(f"\n## The page\n`report html` of {page['hosts']} hosts by {page['roles']} roles by {page['nights']} nights (`bench/page.py`), in headless Chromium over WebDriver; {len(page['paints'])} visits.\n")
    print(f"| what | asked | measured |\n|---|---|---|\n| size, MiB | under 5 | {mib:.1f} |\n| first contentful paint, s (median; slowest) | under 1 | {statistics.median(page['paints']):.2f}; {max(page['paints']):.2f} |\n| written in, s | - | {page['seconds']:.1f} |")
