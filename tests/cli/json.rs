//! The JSON document is versioned: it equals a fixture, and the page about it names each field.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use soc_provision::diagnostic::{Failure, FailureClass};
use soc_provision::event::{
    ChangeReport, CheckReport, Event, EventKind, FailureReport, HostReport, Outcome, Recap, ResourceReport, RunInfo, TaskReport,
};
use soc_provision::report::json::Document;
use soc_provision::resource::{ResourceId, Severity};

fn task(title: &str, outcome: Outcome, resource: Outcome) -> EventKind {
    let change = ChangeReport { field: "mode".to_owned(), before: None, after: Some("0644".to_owned()), diff: None };
    EventKind::Task(TaskReport {
        place: Some("roles/base/tasks/main.yml:3".to_owned()),
        play: 0,
        title: title.to_owned(),
        role: Some("base".to_owned()),
        handler: false,
        outcome,
        resources: vec![ResourceReport {
            id: ResourceId::new("file", "/etc/x"),
            severity: Severity::Config,
            outcome: resource,
            changes: vec![change],
            notes: vec!["a note".to_owned()],
            unchecked: false,
        }],
        milliseconds: 12,
    })
}

fn events() -> Vec<EventKind> {
    let failure = Failure {
        stdout: "out".to_owned(),
        stderr: "err".to_owned(),
        ..Failure::new(FailureClass::StepFailed, "it failed").because("why").hint("what now")
    };
    let failure = FailureReport::from(&failure);
    let known = Outcome::KnownAfter { resource: "package[x]".to_owned() };
    let recap = Recap { ok: 3, changed: 1, failed: 1, ..Recap::default() };
    let report = HostReport {
        recap,
        failure: Some(failure.clone()),
        pending: 1,
        round_trips: 3,
        seconds: 1.5,
        roles: BTreeMap::from([("base".to_owned(), 1.0)]),
    };
    vec![
        EventKind::RunStarted(RunInfo {
            run: "20260101-000000-abcdef".to_owned(),
            command: "apply".to_owned(),
            playbook: "playbooks/prod.yml".to_owned(),
            project: "digest".to_owned(),
            revision: None,
            who: "ann".to_owned(),
            from: "controller".to_owned(),
            started: 1_767_225_600,
            hosts: vec!["web1".to_owned()],
            root: "/project".to_owned(),
            inventory: "digest".to_owned(),
            partial: false,
            shard: Some("1/2".to_owned()),
        }),
        EventKind::Warning { text: "careful".to_owned() },
        task("base : fine", Outcome::Ok, Outcome::Ok),
        task("base : later", known.clone(), known),
        task(
            "base : not here",
            Outcome::Skipped { reason: "`when: x` does not hold".to_owned() },
            Outcome::Unknown { reason: "no answer".to_owned() },
        ),
        task("base : bad", Outcome::Failed { failure: failure.clone() }, Outcome::Failed { failure }),
        EventKind::Check(CheckReport { title: "port".to_owned(), role: None, passed: true, detail: "accepts".to_owned(), milliseconds: 3 }),
        EventKind::HostFinished(report),
        EventKind::RunFinished { exit: 2, seconds: 2.0 },
    ]
}

fn document() -> Value {
    let mut document = Document::default();
    for kind in events() {
        let everywhere = matches!(kind, EventKind::RunStarted(_) | EventKind::Warning { .. } | EventKind::RunFinished { .. });
        document.event(&Event { at_ms: 0, host: (!everywhere).then(|| "web1".to_owned()), kind });
    }
    serde_json::from_str(&document.render()).unwrap()
}

#[test]
fn the_document_is_the_fixture() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/fixtures/document.json");
    let document = document();
    if std::env::var_os("SOC_UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&document).unwrap())).unwrap();
    }
    let fixture: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(document, fixture, "the schema changed: raise `SCHEMA`, docs/json.md, and run with SOC_UPDATE_FIXTURES=1");
}

#[test]
fn every_field_is_on_the_page() {
    fn names(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(name, value)| {
                // Names of hosts and roles are not fields.
                if !matches!(name.as_str(), "web1" | "base") {
                    out.push(name.clone());
                }
                names(value, out);
            }),
            Value::Array(items) => items.iter().for_each(|item| names(item, out)),
            _ => {}
        }
    }
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md")).unwrap();
    let mut all = Vec::new();
    names(&document(), &mut all);
    for name in all {
        assert!(page.contains(&format!("`{name}`")), "docs/json.md does not name `{name}`");
    }
}
