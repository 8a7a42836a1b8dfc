#!/usr/bin/env python3
"""limits.py [REPS] - physical limits on host 1 (and 50 hosts at once when they are up). Run as root on the lab.
Prints, per row: wall min / median / max ms over REPS runs, controller CPU ms and host CPU ms per run (means)."""
import os, statistics, subprocess, sys, time
SB = os.environ.get("SB", os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".bench/sb")); W = os.environ.get("BENCH", os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".bench")) + "/w"; REPS = int(sys.argv[1]) if len(sys.argv) > 1 else 15
HERE = os.path.dirname(os.path.abspath(__file__)); CA = "/sys/fs/cgroup/cpuacct"; N = int(open(SB + "/n").read())
subprocess.run(["gcc", "-O2", "-static", "-o", SB + "/check", HERE + "/check.c"], check=True)
use = lambda g: int(open(f"{CA}/{g}/cpuacct.usage").read()) / 1e6
def child():
    open(f"{CA}/sb-ctl/tasks", "w").write(str(os.getpid())); open("/sys/fs/cgroup/cpu/sb-bench/tasks", "w").write(str(os.getpid()))
def sh(c): return subprocess.run(["nsenter", "--net=/run/netns/sbctl", "sh", "-c", c], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=child)
def row(name, c, reps=REPS):
    sh(c); w = []; u, h = use("sb-ctl"), use("sb-hosts")
    for _ in range(reps):
        t = time.monotonic(); r = sh(c); w.append((time.monotonic() - t) * 1e3)
        if r.returncode: print("FAILED", name, r.stdout[-300:]); return
    time.sleep(0.3)
    print("| %s | %.0f / %.0f / %.0f | %.0f | %.0f |" % (name, min(w), statistics.median(w), max(w), (use("sb-ctl") - u) / reps, (use("sb-hosts") - h) / reps), flush=True)
F = f"ssh -F {SB}/ssh_config"; M = F + " -o ControlMaster=auto -o ControlPersist=600 -o ControlPath=/tmp/bench/cm-%h"
A = "198.18.0.1"
for m in "0",: sh(f"{F} 198.18.{m}.1 'sh -s 1' <{W}/w.sh"); sh(f"{F} 198.18.0.1 'cat >/root/check; chmod +x /root/check' <{SB}/check")
print("| what | wall ms min / median / max | controller CPU ms | host CPU ms |\n|---|---|---|---|")
row("spawn only (nsenter sh -c true)", "true")
row("ssh -V (client start only)", "ssh -V")
for r in (0, 5, 20): row(f"cold `ssh host true`, RTT {r} ms", f"{F} 198.18.{r}.1 true")
row("cold `ssh host true`, curve25519-sha256 kex", f"{F} -o KexAlgorithms=curve25519-sha256 {A} true")
row("cold, RTT 0: naive sh W (no change)", f"{F} {A} 'sh -s 1' <{W}/w.sh"); row("cold, RTT 0: batched sh", f"{F} {A} 'sh -s 1' <{W}/wb.sh"); row("cold, RTT 0: native check", f"{F} {A} /root/check")
row("cold, RTT 20: batched sh", f"{F} 198.18.20.1 'sh -s 1' <{W}/wb.sh")
for r in (0, 5, 20):
    sh(f"{M} 198.18.{r}.1 true >/dev/null 2>&1"); B = f"198.18.{r}.1"
    row(f"warm `ssh host true`, RTT {r} ms", f"{M} {B} true")
    if r != 5: row(f"warm, RTT {r}: naive sh W", f"{M} {B} 'sh -s 1' <{W}/w.sh"); row(f"warm, RTT {r}: batched sh", f"{M} {B} 'sh -s 1' <{W}/wb.sh"); row(f"warm, RTT {r}: native check", f"{M} {B} /root/check")
    sh(f"{M} -O exit {B}")
row("host only: 20x native check in one session", f"{F} {A} 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do /root/check; done'", 5)
if N >= 50:
    P = f"xargs -a {SB}/hosts0.txt -P 50 -I{{}} sh -c"
    sh(f"xargs -a {SB}/hosts0.txt -P 10 -I{{}} sh -c \"{F} {{}} 'sh -s 1' <{W}/w.sh; {F} {{}} 'cat >/root/check; chmod +x /root/check' <{SB}/check\"")
    row(f"{N} hosts at once, cold `true`", f"{P} '{F} {{}} true'", 5); row(f"{N} hosts, cold batched sh", f"{P} '{F} {{}} \"sh -s 1\" <{W}/wb.sh'", 5)
    row(f"{N} hosts, cold native check", f"{P} '{F} {{}} /root/check'", 5)
    sh(f"{P} '{M} {{}} true >/dev/null 2>&1'")
    row(f"{N} hosts, warm `true`", f"{P} '{M} {{}} true'", 5); row(f"{N} hosts, warm naive sh W", f"{P} '{M} {{}} \"sh -s 1\" <{W}/w.sh'", 5); row(f"{N} hosts, warm batched sh", f"{P} '{M} {{}} \"sh -s 1\" <{W}/wb.sh'", 5)
    sh(f"{P} '{M} -O exit {{}}'")
