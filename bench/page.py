#!/usr/bin/env python3
"""page.py OUT.json - the page of `report html` for a large fleet: its size, and its first paint in headless Chromium, driven over
WebDriver. Needs chromium and chromedriver. Both are made anew: history of 90 nights, then the page, then five visits."""
import json, os, shutil, statistics, subprocess, sys, tempfile, time, urllib.request
HOSTS, ROLES, NIGHTS, VISITS = 200, 30, 90, 5
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
soc = root + "/target/release/soc-provision"


def night(number):
    """What a `drift` run printed: about one role in eight differs, and a little changes every night."""
    def task(host, role):
        drifts = (host * 7 + role * 3 + (number // 10 if host % 9 == 0 else 0)) % 8 == 0
        outcome = "would_change" if drifts else "ok"
        diff = f"--- a/etc/role{role}.conf\n+++ b/etc/role{role}.conf\n-answer={host}\n+answer={role}\n"
        changes = [{"field": "content", "before": "(differs)", "after": "(9 bytes)", "diff": diff}] if drifts else []
        return {"play": 0, "title": f"role{role} : file", "role": f"role{role}", "handler": False, "outcome": {"outcome": outcome}, "milliseconds": 20,
            "resources": [{"id": {"kind": "copy", "name": f"/etc/role{role}.conf"}, "severity": "config", "outcome": outcome, "changes": changes, "notes": [], "unchecked": False}]}
    def host(h):
        recap = dict.fromkeys(["ok", "changed", "unreachable", "failed", "skipped", "rescued", "ignored"], 0)
        return {"recap": recap, "failure": None, "pending": 0, "round_trips": 3, "seconds": 1.5, "roles": {}, "tasks": [task(h, r) for r in range(ROLES)], "checks": []}
    started = 1_767_234_600 + number * 86_400
    return {"schema": "1.0", "exit": 3, "seconds": 2.0, "warnings": [], "hosts": {f"host{h:03}": host(h) for h in range(HOSTS)},
        "run": {"run": time.strftime("%Y%m%d-%H%M%S-", time.gmtime(started)) + f"{number:06x}", "command": "drift", "playbook": "playbooks/p.yml", "root": "/srv/soc", "project": "p",
            "inventory": "i", "revision": "abc", "who": "timer", "from": "desk", "started": started, "hosts": []}}


def first_paint(page):
    """Seconds to the first contentful paint, by the browser's own clock, for each visit with a browser of its own."""
    with tempfile.TemporaryFile() as log:
        driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            port = next(line.rsplit(" ", 1)[1].strip(". \n") for line in driver.stdout if "started successfully on port" in line)
            def ask(method, path, body=None):
                request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, data=None if body is None else json.dumps(body).encode())
                request.add_header("Content-Type", "application/json")
                return json.load(urllib.request.urlopen(request, timeout=60))["value"]
            paints = []
            for _ in range(VISITS):
                options = {"args": ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"]}
                session = "/session/" + ask("POST", "/session", {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}})["sessionId"]
                ask("POST", session + "/url", {"url": "file://" + page})
                script = "return [performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)[0], document.querySelectorAll('#matrix td').length]"
                until = time.time() + 30
                while (seen := ask("POST", session + "/execute/sync", {"script": script, "args": []}))[0] is None and time.time() < until: time.sleep(0.1)
                assert seen[0] is not None and seen[1] == HOSTS * ROLES, f"no paint, or not every cell: {seen}"
                paints.append(seen[0] / 1000)
                ask("DELETE", session)
            return paints
        finally:
            driver.kill(); driver.wait()


def main():
    for tool in ("chromium", "chromedriver"):
        if not shutil.which(tool): sys.exit(f"bench: the page is not measured: no {tool} (lab/install-deps)")
    with tempfile.TemporaryDirectory() as work:
        os.makedirs(work + "/playbooks")
        environment = {**os.environ, "HOME": work, "XDG_STATE_HOME": work + "/state"}
        call = lambda *words: subprocess.run([soc, *words], cwd=work, env=environment, capture_output=True, text=True)
        for number in range(NIGHTS):
            with open(work + "/night.json", "w") as file: json.dump(night(number), file)
            kept = call("report", "merge", "night.json", "--keep", "--format", "json")
            assert kept.returncode == 3, kept.stderr
        began = time.time()
        made = call("report", "html", "-o", "fleet.html")
        assert made.returncode == 0, made.stderr
        seconds, size = time.time() - began, os.path.getsize(work + "/fleet.html")
        paints = first_paint(work + "/fleet.html")
    json.dump({"hosts": HOSTS, "roles": ROLES, "nights": NIGHTS, "bytes": size, "seconds": seconds, "paints": paints}, open(sys.argv[1], "w"))
    print(f"page: {size / 2**20:.1f} MiB, written in {seconds:.1f} s, first paint {statistics.median(paints):.2f} s")


main()
