#!/usr/bin/env python3
"""report.py [--keep NEW] - puts the part about drift into docs/BENCHMARKS.md from .bench/drift-scale.json and
.bench/drift-ansible.json, as far as they are there; with --keep NEW, the part as it stands into a new page on its way."""
import json, os, re, subprocess, sys, time
root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))); page = root + "/docs/BENCHMARKS.md"; bench = root + "/.bench"
begin, end = "<!-- drift:begin -->", "<!-- drift:end -->"
old = open(page).read() if os.path.isfile(page) else ""
part = old[old.index(begin):old.index(end) + len(end)] if begin in old else ""
if sys.argv[1:2] == ["--keep"]:
    open(sys.argv[2], "a").write("\n" + part + "\n" if part else ""); sys.exit()
sh = lambda c: subprocess.run(c, shell=True, text=True, capture_output=True, cwd=root).stdout.strip()
load = lambda name: json.load(open(f"{bench}/{name}")) if os.path.isfile(f"{bench}/{name}") else None
scale, rows = load("drift-scale.json"), load("drift-ansible.json")
when = f"{time.strftime('%Y-%m-%d', time.gmtime())}, revision {sh('git rev-parse --short HEAD')}"
out = [begin, "## Drift", "Written by `bench/drift/run`."]
if scale:
    out += [f"\n### {scale['hosts']} hosts with {scale['resources']} resources each", f"{when}. Hosts as above; `drift` of unchanged hosts and, in turn, the floor: one `ssh` a host and one script "
        f"that asks each kind of question once and compares nothing; {scale['times']} runs each, medians. With owned places (14 of them) the same once more.\n",
        "| what | asked | measured |\n|---|---|---|", f"| round trips a host | 3 | {', '.join(map(str, scale['round_trips']))}; with owned places {', '.join(map(str, scale['owned']['round_trips']))} |",
        f"| wall s, against the floor's {scale['floor']:.2f}, pair by pair | at most 1.5 | {scale['wall']:.2f}, {scale['ratio']:.2f} |", f"| wall s with owned places | - | {scale['owned']['wall']:.2f} |",
        f"| CPU s of the controller; of all hosts (the floor's; with owned places) | - | {scale['controller_cpu']:.2f}; {scale['hosts_cpu']:.2f} ({scale['floor_hosts_cpu']:.2f}; {scale['owned']['hosts_cpu']:.2f}) |",
        f"| peak MB of the controller; SSH sessions | - | {scale['peak_mb']:.0f}; {scale['sessions']} |"]
elif kept := re.search(r"\n### \d+ hosts with .*?(?=\n\n### |\n<!-- drift:end)", part, re.S): out.append(kept.group(0))
if rows:
    versions = sh(f"{bench}/v-ansible-full/bin/pip list 2>/dev/null | grep -i -E '^ansible(-core)? ' | tr -s ' ' | paste -sd, -")
    ours, theirs = sum(r["ours"] for r in rows), sum(r["ansible"] for r in rows)
    out += ["\n### The mutation suite against Ansible's `--check`", f"{when}; {versions} (pip's `ansible`, with community.docker and ansible.posix). The host of `tests/e2e/drift`, applied by "
        "soc-provision; `bench/drift/site.yml` declares the same inputs with the modules that Ansible has, each task named after our resource, and found nothing to change on the "
        "unchanged host. Then each mutation: does `drift` name its resource, does `ansible-playbook --check` report a change or a failure in a task of that resource (in any task, where the "
        "mutation was alone on the host)? What nobody declared has no task in Ansible, so it cannot be found there.\n", "| what was changed | mutations | drift | Ansible `--check` |\n|---|---|---|---|"]
    total = len(re.findall(r"^    m\($|^    m\(\"", open(root + "/tests/e2e/drift/mutations.rs").read(), re.M))
    if len(rows) < total: out.insert(-1, f"This sitting was cut short: {len(rows)} of the suite's {total} mutations were counted; the others wait for a longer one.\n")
    name = lambda r: {"undeclared": "undeclared", "condition": "condition"}.get(r["state"] or "", "declared")
    for state, title in (("declared", "declared"), ("undeclared", "nobody declared it"), ("condition", "the host's condition")):
        for kind in sorted({r["kind"] for r in rows if name(r) == state}):
            some = [r for r in rows if name(r) == state and r["kind"] == kind]
            out.append(f"| {title}: {kind} | {len(some)} | {sum(r['ours'] for r in some)} | {sum(r['ansible'] for r in some)} |")
    out.append(f"| all | {len(rows)} | {ours} | {theirs} |")
    missed = [r["name"] for r in rows if name(r) == "declared" and not r["ansible"]]
    blind = [r["name"] for r in rows if not r["ours"]]
    if blind: out.append(f"\n`drift` did not see: {'; '.join(blind)}.")
    if missed: out.append(f"\nOf what was declared, Ansible did not see: {'; '.join(missed)}.")
part = "\n".join(out + [end])
new = re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: part, old, flags=re.S) if begin in old else old.rstrip("\n") + "\n\n" + part + "\n"
open(page, "w").write(new)
