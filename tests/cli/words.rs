//! Every word of Ansible's that is refused is refused by name, where it stands, with what to
//! write instead.

use soc_provision::project::ansible::{Place, Support, WORDS};

use crate::harness::Project;

fn playbook(place: Place, word: &str) -> (String, &'static str) {
    match place {
        Place::Play => (format!("- hosts: web\n  {word}: x\n  tasks: []\n"), "2:3"),
        Place::Task => (format!("- hosts: web\n  tasks:\n    - command: ls\n      {word}: x\n"), "4:7"),
        Place::Block => (format!("- hosts: web\n  tasks:\n    - block: []\n      {word}: x\n"), "4:7"),
        Place::Role => (format!("- hosts: web\n  roles:\n    - role: r\n      {word}: x\n"), "4:7"),
        Place::Module => (format!("- hosts: web\n  tasks:\n    - {word}: {{}}\n"), "3:7"),
    }
}

#[test]
fn refused_words_name_their_substitute() {
    let project = Project::with_playbook("", &[("roles/r/tasks/main.yml", "[]\n")]);
    for word in WORDS {
        let Support::Refused(instead) = word.support else { continue };
        for place in word.places {
            let (text, at) = playbook(*place, word.name);
            project.write("playbooks/site.yml", &text);
            let problems = project.problems();
            let first = format!("`{}` is not supported", word.name);
            let shown = format!("playbooks/site.yml:{at}");
            assert!(problems.contains(&first) && problems.contains(&shown) && problems.contains(instead), "{text}\n{problems}");
            assert!(problems.contains(&"^".repeat(word.name.len())), "{problems}");
        }
    }
}

#[test]
fn words_that_may_stay_stay() {
    let project = Project::with_playbook("", &[("roles/r/tasks/main.yml", "[]\n")]);
    for word in WORDS {
        let Support::Ignored(_) = word.support else { continue };
        for place in word.places {
            let (text, _) = playbook(*place, word.name);
            project.write("playbooks/site.yml", &text);
            let run = project.run(&["check", "site.yml"]);
            assert_eq!(run.code, 0, "{text}\n{}", run.err);
        }
    }
}

#[test]
fn jinja_is_translated() {
    for (jinja, expected) in [
        ("- debug: {msg: \"{{ a | default('x') }}\"}", "{{default a \"x\"}}"),
        ("- debug: {msg: \"{{ groups['web'] | join(', ') }}\"}", "{{join groups.web \", \"}}"),
        ("- debug: {msg: \"{{ hostvars[inventory_hostname]['n'] }}\"}", "{{hostvar inventory_hostname \"n\"}}"),
        ("- debug: {msg: \"{{ 'x' if n == 1 else 'y' }}\"}", "{{ternary (eq n 1) \"x\" \"y\"}}"),
        ("- debug: {msg: hi}\n  when: ansible_os_family == 'Debian' and n > 1", "write `and (eq ansible_os_family \"Debian\") (gt n 1)`"),
        ("- debug: {msg: hi}\n  when: x is defined", "write `defined x`"),
        ("- debug: {msg: hi}\n  when: \"'db' not in group_names\"", "write `not (contains group_names \"db\")`"),
        ("- debug: {msg: hi}\n  with_items: \"{{ groups['web'] }}\"", "{{groups.web}}"),
        ("- debug: {msg: '{{item.key}}'}\n  loop: \"{{ users | dict2items }}\"", "with_dict"),
        ("- debug: {msg: hi}\n  when: ansible_distribution_version is version('12', '>=')", "gte (int"),
        ("- debug: {msg: \"{{ lookup('env', 'HOME') }}\"}", "-e NAME"),
        ("- copy: {content: \"{% if n %}x{% endif %}\", dest: /x}", "{{#if n}}"),
    ] {
        let problems = Project::with_tasks(jinja, &[]).problems();
        assert!(problems.contains(expected), "{jinja}\n{problems}");
    }
}
