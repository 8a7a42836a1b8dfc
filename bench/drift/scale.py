#!/usr/bin/env python3
"""scale.py HOSTS TIMES - drift of HOSTS hosts with 200 resources each against the floor: one ordinary ssh a host and one
script that asks each kind of question once (it compares nothing). In turn, TIMES each, and the same once more with 14
owned places. Needs bench/hosts.sh's hosts; leaves .bench/drift-scale.json."""
import json, os, statistics, subprocess, sys
here = os.path.dirname(os.path.dirname(os.path.abspath(__file__))); bench = os.environ["BENCH"]; sb = os.environ["SB"]
soc = os.environ.get("SOC", os.path.join(os.path.dirname(here), "target/release/soc-provision"))
hosts, times = int(sys.argv[1]), int(sys.argv[2]); w = bench + "/drift-w"; res = bench + "/drift-scale.jsonl"
for d in ("/playbooks", "/roles/d/tasks", "/home"): os.makedirs(w + d, exist_ok=True)
DIRS = ["/etc/d%02d" % i for i in range(24)]; FILES = ["/etc/d%02d/f%03d.conf" % (i % 24, i) for i in range(116)]
USERS = ["dusr%d" % i for i in range(8)]; GROUPS = ["dgrp%d" % i for i in range(6)]; LINES = ["/etc/d%02d/lines" % i for i in range(10)]
CRON = ["djob%d" % i for i in range(8)]; GONE = ["/etc/gone%d" % i for i in range(4)]; LINKS = ["/etc/d%02d/link" % i for i in range(4)]
PKGS = "openssh-server python3 python3-apt sudo procps iproute2 cron rsync curl vim-tiny less logrotate nftables ca-certificates apt bash coreutils sed grep tar".split()
t = ["- group: {name: %s}" % g for g in GROUPS] + ["- user: {name: %s, shell: /bin/sh, create_home: false}" % u for u in USERS]
t += ["- directory: {path: %s, mode: '0755', owner: root}" % d for d in DIRS]
t += ["- copy: {dest: %s, mode: '0644', content: \"%s\"}" % (f, "".join("option_%d = %d\\n" % (k, i + k) for k in range(20))) for i, f in enumerate(FILES)]
t += ["- lineinfile: {path: %s, create: true, regexp: '^a=', line: 'a=1'}" % f for f in LINES]
t += ["- cron: {name: %s, minute: '5', job: /bin/true}" % c for c in CRON] + ["- file: {path: %s, state: absent}" % f for f in GONE]
t += ["- file: {path: %s, state: link, src: f000.conf, force: true}" % f for f in LINKS] + ["- package: {name: %s}" % p for p in PKGS]
assert len(t) == 200
open(w + "/roles/d/tasks/main.yml", "w").write("\n".join(t) + "\n")
open(w + "/playbooks/d.yml", "w").write("- hosts: sb\n  roles: [d]\n")
places = "users, authorized_keys, cron, timers, units, sudoers, nft_tables, repositories, package_config, setuid, startup, ports, {directory: /etc/sudoers.d}, {directory: /etc/d00}"
open(w + "/playbooks/o.yml", "w").write("- hosts: sb\n  tasks:\n    - owned: {places: [%s], baseline: true}\n  roles: [d]\n" % places)
quoted = " ".join
open(w + "/floor.sh", "w").write("\n".join(["getent group %s; getent passwd %s" % (quoted(GROUPS), quoted(USERS)),
    "stat -c '%%n %%a %%U %%G' %s" % quoted(DIRS + FILES + LINES + GONE + LINKS + ["/etc/cron.d/" + c for c in CRON]),
    "sha256sum " + quoted(FILES + LINES + ["/etc/cron.d/" + c for c in CRON]), "dpkg-query -W -f='${Package} ${Status}\\n' " + quoted(PKGS)]) + "\n")
run = "cd %s && HOME=%s/home XDG_STATE_HOME=%s/home %s" % (w, w, w, soc)
inv = "-i %s/soc0.yml" % sb
def measure(label, command, out="/dev/null"):
    env = dict(os.environ, OUT=out); open(out, "w") if out != "/dev/null" else None
    line = subprocess.run(["python3", here + "/measure.py", label, res, "--", "sh", "-c", command], env=env, text=True, capture_output=True, check=True).stdout
    return json.loads(line.strip().splitlines()[-1])
def apply(book):
    r = measure("apply", f"{run} apply {book}.yml {inv} >{bench}/drift-apply.log 2>&1"); assert r["rc"] == 0, open(f"{bench}/drift-apply.log").read()[-3000:]
floor = "xargs -a %s/hosts0.txt -P 64 -I{} sh -c 'ssh -F %s/ssh_config {} \"sh -s >/dev/null 2>&1\" <%s/floor.sh'" % (sb, sb, w)
result = {"hosts": hosts, "resources": 200}
apply("d")
ours, shell = [], []
for _ in range(times):
    ours.append(measure("drift", f"{run} drift d.yml {inv} --format json >{bench}/drift.json 2>{bench}/drift.err")); shell.append(measure("floor", floor))
    assert ours[-1]["rc"] == 0, open(bench + "/drift.err").read()[-3000:] + open(bench + "/drift.json").read()[:3000]
seen = json.load(open(bench + "/drift.json"))["hosts"]
result["round_trips"] = sorted({h["round_trips"] for h in seen.values()}); assert len(seen) == hosts
med = lambda rs, what: statistics.median(r[what] for r in rs)
result.update(times=times, wall=med(ours, "wall"), floor=med(shell, "wall"), ratio=statistics.median(a["wall"] / b["wall"] for a, b in zip(ours, shell)),
              controller_cpu=med(ours, "ctl_cpu"), hosts_cpu=med(ours, "hosts_cpu"), floor_hosts_cpu=med(shell, "hosts_cpu"), peak_mb=max(r["peak_mb"] for r in ours), sessions=ours[-1]["sessions"])
apply("o")
owned = [measure("owned", f"{run} drift o.yml {inv} --format json >{bench}/drift.json 2>{bench}/drift.err") for _ in range(times)]
assert all(r["rc"] == 0 for r in owned), open(bench + "/drift.err").read()[-3000:] + open(bench + "/drift.json").read()[:3000]
result["owned"] = dict(wall=med(owned, "wall"), hosts_cpu=med(owned, "hosts_cpu"), round_trips=sorted({h["round_trips"] for h in json.load(open(bench + "/drift.json"))["hosts"].values()}))
json.dump(result, open(bench + "/drift-scale.json", "w"), indent=1); print(json.dumps(result))
