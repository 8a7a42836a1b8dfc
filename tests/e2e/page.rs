//! The page: one file, whose numbers are the history's, in a real browser where there is one.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Project, series, soc};

/// A document of one night over some hosts and roles, as `--format json` prints it.
fn night(number: u32, hosts: u32, roles: u32) -> Value {
    let mut all = serde_json::Map::new();
    for host in 0..hosts {
        let tasks: Vec<Value> = (0..roles)
            .map(|role| {
                let drifts = (host + role) % 5 == 0 && (role != 1 || number > 1);
                let outcome = if drifts { "would_change" } else { "ok" };
                let diff = "--- a\n+++ b\n-</script><img src=x onerror=alert(1)>\n+fine\n";
                let changes = if drifts { json!([{"field": "content", "before": "(differs)", "after": "(9 bytes)", "diff": diff}]) } else { json!([]) };
                json!({"play": 0, "title": format!("role{role} : file"), "role": format!("role{role}"), "handler": false, "outcome": {"outcome": outcome}, "milliseconds": 20,
                    "resources": [{"id": {"kind": "copy", "name": format!("/etc/{role}")}, "severity": "config", "outcome": outcome, "changes": changes, "notes": [], "unchecked": false}]})
            })
            .collect();
        let failure = (host == 3 && number == 2)
            .then(|| json!({"class": "tcp", "message": "no answer <b>", "causes": [], "hint": null, "stdout": "", "stderr": ""}));
        let tasks = if failure.is_some() { Vec::new() } else { tasks };
        all.insert(
            format!("host{host}"),
            json!({"recap": {"ok": roles, "changed": 0, "unreachable": 0, "failed": 0, "skipped": 0, "rescued": 0, "ignored": 0}, "failure": failure,
                "pending": 0, "round_trips": 3, "seconds": 1.5, "roles": {}, "tasks": tasks, "checks": []}),
        );
    }
    json!({"schema": "1.0", "exit": 3, "seconds": 2.0, "warnings": [], "hosts": all,
        "run": {"run": format!("2026010{number}-023000-00000{number}"), "command": "drift", "playbook": "playbooks/p.yml", "root": "/srv/soc", "project": "p", "inventory": "i",
            "revision": "abc", "who": "timer", "from": "desk", "started": 1_767_234_600 + i64::from(number) * 86_400, "hosts": []}})
}

fn remember(project: &Project, nights: u32, hosts: u32, roles: u32) {
    for number in 0..nights {
        project.write("night.json", &night(number, hosts, roles).to_string());
        let kept = soc(project.dir.path(), &["report", "merge", "night.json", "--keep", "--format", "json"]);
        assert_eq!(kept.code, 3, "{}", kept.all());
    }
}

/// What a browser makes of a page: its document after scripts ran. Nothing may be said on its console.
fn browse(page: &Path, width: u32) -> String {
    let out = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("--window-size={width},900"))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!said.contains("CONSOLE"), "{said}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn the_page_is_the_history() {
    let project = Project::new(&[]);
    let dir = project.dir.path();
    remember(&project, 4, 10, 6);
    soc(dir, &["report", "html", "-o", "fleet.html"]).ok();
    let html = std::fs::read_to_string(dir.join("fleet.html")).unwrap();
    for word in ["http://", "https://", "src=\"", "<link", "@import", "url("] {
        assert!(!html.contains(word), "it would fetch something: {word}");
    }
    assert!(!html.contains("<img"), "what was observed became markup");
    assert_eq!(html.matches("<td class=\"s").count(), 60, "the matrix is there without scripts");
    let compared = soc(dir, &["report", "compare", "--format", "json"]).ok().json();
    assert_eq!(html.matches("<b>new</b>").count(), compared["comparison"]["new"].as_array().unwrap().len());
    let shown = soc(dir, &["report", "show", "--format", "json"]).ok().json();
    let drifts = shown["hosts"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|host| host["tasks"].as_array().unwrap())
        .filter(|task| task["outcome"]["outcome"] == "would_change");
    let drifts = drifts.count();
    assert_eq!(html.matches("<td class=\"s2\"").count(), drifts);
    if Command::new("chromium").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI installs chromium (lab/install-deps)");
        eprintln!("not run: no chromium");
        return;
    }
    // A few strokes and clicks, as a person would make them; the page says what came of it.
    let strokes = "<script>
const cell = document.querySelector('#matrix td'); cell.click();
const said = [document.getElementById('shown').textContent];
document.getElementById('f-bad').click(); said.push(document.getElementById('shown').textContent);
document.getElementById('f-host').value = 'HOST3'; document.getElementById('f-host').dispatchEvent(new Event('input')); said.push(document.getElementById('shown').textContent);
document.getElementById('f-night').value = 2; document.getElementById('f-night').dispatchEvent(new Event('input'));
said.push(document.querySelectorAll('#matrix td.s5').length);
document.querySelector('#matrix td').dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true })); said.push(document.querySelector('#matrix td[tabindex=\"0\"]').cellIndex);
said.push(document.querySelector('#detail pre') ? document.querySelector('#detail pre').textContent.includes('onerror') : 'no diff');
said.push(document.documentElement.scrollWidth <= window.innerWidth);
document.body.append(Object.assign(document.createElement('p'), { id: 'said', textContent: JSON.stringify(said) }));
</script></html>";
    project.write("strokes.html", &html.replace("</html>", strokes));
    for width in [1280, 390] {
        let dom = browse(&dir.join("strokes.html"), width);
        let said = dom
            .split("<p id=\"said\">")
            .nth(1)
            .and_then(|rest| rest.split("</p>").next())
            .unwrap_or_else(|| panic!("the script did not end: {dom}"));
        let said: Value = serde_json::from_str(&said.replace("&quot;", "\"")).unwrap();
        let bad = (0..10_u32).filter(|host| (0..6).any(|role| (host + role) % 5 == 0)).count();
        assert_eq!(said, json!(["10 of 10 hosts", format!("{bad} of 10 hosts"), "1 of 10 hosts", 6, 1, true, true]), "at {width}");
    }
}

#[test]
fn a_large_fleet_is_one_small_page() {
    let project = Project::new(&[]);
    let (nights, hosts, roles) = (series(3, 9), series(60, 200), series(12, 30));
    remember(&project, nights.min(9), hosts, roles);
    soc(project.dir.path(), &["report", "html", "-o", "fleet.html"]).ok();
    let size = std::fs::metadata(project.dir.path().join("fleet.html")).unwrap().len();
    assert!(size < 5 << 20, "{size} bytes");
}
