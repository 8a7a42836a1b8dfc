#!/usr/bin/env python3
"""measure.py LABEL RESULTS.jsonl -- COMMAND...
Runs COMMAND inside the controller namespace (sbctl) and its own cpuacct cgroup, and appends one JSON line:
wall s; controller CPU s (all its processes, daemonised ssh masters too); CPU s of all hosts together; CPU s of
everything else on the machine (noise); peak memory of the controller's processes (sum of PSS, sampled); SSH
connections and sessions (exec/sftp requests) that the hosts' sshd logged. QUIET=seconds: wait up to that long
for a second in which the rest of the machine uses under 0.3 core, before starting. Then ends what the controller left
running (ssh masters), so the next run starts without open connections (KEEP=1: leave them)."""
import glob, json, os, subprocess, sys, threading, time
CG = "/sys/fs/cgroup/cpuacct"; SB = os.environ.get("SB", os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".bench/sb"))
label, res = sys.argv[1:3]; cmd = sys.argv[sys.argv.index("--") + 1:]
def usage(g): return int(open(f"{CG}/{g}/cpuacct.usage").read()) / 1e9
def stat():
    f = open("/proc/stat").read().split("\n"); c = [int(x) for x in f[0].split()[1:9]]
    return (sum(c) - c[3] - c[4]) / 100.0, int([l for l in f if l.startswith("processes")][0].split()[1])
def ssh_counts():
    c = s = 0
    for p in glob.glob(SB + "/h/*/sshd.log"):
        t = open(p, errors="replace").read(); c += t.count("Accepted publickey"); s += t.count("Starting session:")
    return c, s
def pids(): return [int(x) for x in open(f"{CG}/sb-ctl/cgroup.procs").read().split()]
peak = 0; nproc = 0; stop = threading.Event()
def sampler():
    global peak, nproc
    while not stop.is_set():
        t = time.monotonic(); tot = 0; n = 0
        for p in pids():
            try:
                for l in open(f"/proc/{p}/smaps_rollup"):
                    if l.startswith("Pss:"): tot += int(l.split()[1]); n += 1; break
            except (OSError, ValueError): pass
        peak = max(peak, tot); nproc = max(nproc, n)
        stop.wait(max(0.1, 20 * (time.monotonic() - t)))  # at most 5 % of one core
def child():
    if os.path.exists("/sys/fs/cgroup/cpu/sb-bench"): open("/sys/fs/cgroup/cpu/sb-bench/tasks", "w").write(str(os.getpid()))
    open(f"{CG}/sb-ctl/tasks", "w").write(str(os.getpid()))
q = time.monotonic() + float(os.environ.get("QUIET", 0))
while time.monotonic() < q:
    b = stat()[0]; time.sleep(1)
    if stat()[0] - b < 0.3: break
out = open(os.environ.get("OUT", "/dev/null"), "ab")
c0, s0 = ssh_counts(); u0, h0, (b0, f0) = usage("sb-ctl"), usage("sb-hosts"), stat(); t0 = time.monotonic()
p = subprocess.Popen(["nsenter", "--net=/run/netns/sbctl"] + cmd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=child)
th = threading.Thread(target=sampler, daemon=True); th.start(); rc = p.wait()
wall = time.monotonic() - t0; u1, h1, (b1, f1) = usage("sb-ctl"), usage("sb-hosts"), stat(); stop.set(); th.join()
if not os.environ.get("KEEP"):
    for q in pids():
        try: os.kill(q, 15)
        except OSError: pass
time.sleep(0.3); c1, s1 = ssh_counts()
r = dict(label=label, rc=rc, wall=round(wall, 3), ctl_cpu=round(u1 - u0, 3), hosts_cpu=round(h1 - h0, 3), other_cpu=round(b1 - b0 - (u1 - u0) - (h1 - h0), 2),
         peak_mb=round(peak / 1024, 1), procs=nproc, conns=c1 - c0, sessions=s1 - s0, forks=f1 - f0)
print(json.dumps(r)); open(res, "a").write(json.dumps(r) + "\n")
