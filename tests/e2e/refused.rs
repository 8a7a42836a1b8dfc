//! What a project gets wrong is said before any host is asked: message, place, exit code 1.

use crate::harness::{Project, soc};

/// A project of one play with these tasks.
fn project(tasks: &str) -> Project {
    Project::new(&[
        ("inventory/p.yml", "all:\n  hosts:\n    h1: {ansible_host: 192.0.2.1}\n  children:\n    empty:\n      hosts: {}\n"),
        ("playbooks/p.yml", &format!("- hosts: all\n  tasks:\n{tasks}")),
    ])
}

/// `check` and `apply` both refuse, with exit code 1 and these parts, and never speak of a bug.
fn refused(project: &Project, parts: &[&str]) {
    refused_by(&["check", "apply"], project, parts);
}

/// What depends on a host's facts is known to `apply` only host by host: see `failures.rs`.
fn refused_by(verbs: &[&str], project: &Project, parts: &[&str]) {
    for verb in verbs {
        let started = std::time::Instant::now();
        let run = soc(project.dir.path(), &[*verb, "p.yml"]);
        assert_eq!(run.code, 1, "{verb}: {}", run.all());
        for part in parts {
            assert!(run.stderr.contains(part), "{verb}: `{part}` is not in {}", run.all());
        }
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        assert!(started.elapsed().as_secs() < 10, "{verb} took {:?}", started.elapsed());
    }
}

#[test]
fn names_that_nobody_declared() {
    let undefined = "    - copy: {dest: /a, content: \"{{nmae}}\"}\n      vars: {name: x}\n";
    refused_by(&["check"], &project(undefined), &["nmae", "did you mean `name`", "playbooks/p.yml:3:"]);
    refused(&project("    - cpoy: {dest: /a}\n"), &["cpoy", "playbooks/p.yml:3:7", "did you mean `copy`"]);
    refused(&project("    - copy: {dest: /a, contnet: x}\n"), &["contnet", "playbooks/p.yml:3:", "did you mean `content`"]);
}

#[test]
fn cycles_and_depths() {
    let cycle = project("    - copy: {dest: /a, content: \"{{a}}\"}\n      vars: {a: \"{{b}}\", b: \"{{c}}\", c: \"x{{a}}\"}\n");
    refused_by(&["check"], &cycle, &["playbooks/p.yml:", "a"]);
    let deep =
        project(&format!("    - copy: {{dest: /a, content: x}}\n      vars: {{deep: {}{}}}\n", "[".repeat(20_000), "]".repeat(20_000)));
    refused(&deep, &["playbooks/p.yml:4:"]);
    let opens = "{{#if a}}".repeat(5_000);
    let opens = format!("    - copy: {{dest: /a, content: \"{opens}\"}}\n      vars: {{a: true}}\n");
    refused_by(&["check"], &project(&opens), &["playbooks/p.yml:3:"]);
}

#[test]
fn yaml_that_is_a_trap() {
    let mut bomb = String::from("    - copy: {dest: /a, content: \"{{j}}\"}\n      vars:\n        a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (name, of) in "bcdefghij".chars().zip("abcdefghi".chars()) {
        bomb.push_str(&format!("        {name}: &{name} [{}]\n", vec![format!("*{of}"); 10].join(", ")));
    }
    refused(&project(&bomb), &["playbooks/p.yml"]);
    refused(&project("    - copy:\n        dest: /a\n        content: x\n        dest: /b\n"), &["dest", "playbooks/p.yml:6:9"]);
}

#[test]
fn hosts_that_are_not_there() {
    let good = project("    - copy: {dest: /a, content: x}\n");
    let unknown = soc(good.dir.path(), &["apply", "p.yml", "-l", "h2"]);
    assert_eq!(unknown.code, 1, "{}", unknown.all());
    assert!(unknown.stderr.contains("h2"), "{}", unknown.stderr);
    good.write("playbooks/p.yml", "- hosts: empty\n  tasks:\n    - copy: {dest: /a, content: x}\n");
    let empty = soc(good.dir.path(), &["apply", "p.yml"]);
    assert_eq!(empty.code, 0, "{}", empty.all());
    assert!(empty.all().contains("no hosts matched"), "{}", empty.all());
    good.write("playbooks/p.yml", "- hosts: nowhere\n  tasks:\n    - copy: {dest: /a, content: x}\n");
    let nowhere = soc(good.dir.path(), &["apply", "p.yml"]);
    assert!(nowhere.all().contains("nowhere"), "{}", nowhere.all());
}
