//! The reference is what the program goes by, and as fresh.

use crate::harness::{Project, run};

fn docs() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

#[test]
fn the_pages_are_not_stale() {
    for (page, file) in
        [("kinds", "reference.md"), ("functions", "functions.md"), ("ansible", "ansible-words.md"), ("variables", "variables.md")]
    {
        let printed = run(&docs(), &["docs", page]).out;
        let written = std::fs::read_to_string(docs().join(file)).unwrap_or_default();
        assert!(printed == written, "docs/{file} is stale: run `make docs`");
    }
}

#[test]
fn one_thing_is_a_page_too() {
    let project = Project::new(&[]);
    for (name, expected) in
        [("copy", "| `dest` |"), ("tcp", "| `port` |"), ("command", "As a check"), ("upper", "upper text"), ("delegate_to", "refused")]
    {
        let run = project.run(&["docs", name]);
        assert!(run.code == 0 && run.out.contains(expected), "{name}: {}{}", run.out, run.err);
    }
    let near = project.run(&["docs", "templat"]);
    assert!(near.code == 1 && near.err.contains("did you mean `template`?"), "{}", near.err);
}

#[test]
fn links_between_pages_lead_somewhere() {
    let root = docs();
    for entry in std::fs::read_dir(&root).unwrap().flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "md")) {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            assert!(file.is_empty() || file.starts_with("http") || root.join(file).exists(), "{}: {link}", entry.path().display());
        }
    }
}
