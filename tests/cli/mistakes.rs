//! Mistakes: each named, at its place, with its line and what to do now; all of them in one run.

use crate::harness::{HOSTS, Project};

fn says(problems: &str, expected: &str, context: &str) {
    for part in expected.split('|') {
        assert!(problems.contains(part), "{context}\nexpected: {part}\n{problems}");
    }
}

#[test]
fn every_problem_of_a_project_is_told_at_once() {
    let project = Project::with_playbook(
        "- hosts: web
  rolse: [app]
  roles: [ap]
  tasks:
    - name: one
      copy: {dset: /x}
      when: port == 80
    - shell: echo
      register: out
    - debug: msg={{prot}}
    - debug: msg={{out.stdout}}
      notify: gone
  handlers:
    - name: kept
      apt: name=x
",
        &[("roles/app/tasks/main.yml", "- tempalte: {src: a, dest: /b}\n"), ("inventory/group_vars/wbe.yml", "a: 1\n")],
    );
    assert_eq!(project.problems().trim_end(), include_str!("fixtures/problems.txt").trim_end());
}

#[test]
fn yaml_mistakes_have_the_usual_reason() {
    for (text, expected) in [
        ("- hosts: all\n\ttasks: []\n", "site.yml:2|spaces, not tabs"),
        ("- hosts: all\n  vars:\n    a: {{ b }}\n", "must be quoted"),
        ("- hosts: all\n  hosts: web\n", "site.yml:2:3|key `hosts` is given twice"),
        ("- hosts: all\n  name: a: b\n", "site.yml:2|must be quoted"),
        ("- hosts: all\n  tasks:\n  - name: x\n   debug: {}\n", "indentation"),
        ("- hosts: \"all\n", "site.yml:|quotes"),
        ("hosts: all\n", "a playbook must be a list"),
        ("", "the playbook is empty"),
        ("- hosts: all\n---\n- hosts: all\n", "more than one YAML document"),
        ("- hosts: all\n  vars: {a: *nope}\n", "anchor"),
        ("- hosts: all\n  vars: {a: !secret x}\n", "tag is not supported"),
    ] {
        says(&Project::with_playbook(text, &[]).problems(), expected, text);
    }
}

#[test]
fn bombs_and_depth_are_refused() {
    let bomb: String = (0..12)
        .map(|level| {
            format!("a{level}: &a{level} [{}]\n", vec![if level == 0 { "x".to_owned() } else { format!("*a{}", level - 1) }; 9].join(", "))
        })
        .collect();
    let project = Project::with_playbook("- hosts: all\n  vars_files: [bomb.yml]\n  tasks: []\n", &[("playbooks/bomb.yml", &bomb)]);
    says(&project.problems(), "bomb.yml:|too deep or too large", "bomb");
    let deep = format!("- hosts: all\n  vars:\n    a: {}1{}\n", "[".repeat(500), "]".repeat(500));
    says(&Project::with_playbook(&deep, &[]).problems(), "too deep or too large", "deep");
    let nested = format!("- debug: {{msg: '{}x{}'}}", "{{#if a}}".repeat(60), "{{/if}}".repeat(60));
    says(&Project::with_tasks(&nested, &[]).problems(), "nested deeper than 40 levels", "nested");
}

#[test]
fn templates_are_strict_and_point_into_the_file() {
    let task = "- template: {src: t.conf, dest: /etc/t, mode: '0644'}";
    for (text, expected) in [
        ("a\nb {{nope}}\n", "playbooks/templates/t.conf:2:3|`nope` is not defined|default nope"),
        ("{{prot}}\n", "t.conf:1:1|did you mean `port`?"),
        ("x {{#if nope}}y{{/if}}\n", "t.conf:1:3|`nope` is not defined"),
        ("{{#unless nope}}y{{/unless}}\n", "`nope` is not defined"),
        ("{{#each nope}}y{{/each}}\n", "`nope` is not defined"),
        ("{{#each groups.web}}{{this}}{{site}}{{/each}}\n", "@root.site"),
        ("{{ansible_default_ipv4.adress}}\n", "did you mean `address`?"),
        ("a\n\n{{upper}}\n", "t.conf:3:1"),
        ("{{upper 1 2}}\n", "`upper` is written `upper text`"),
        ("{{uper site}}\n", "there is no function `uper`|did you mean `upper`?"),
        ("{{groups}}\n", "is a mapping, not text|to_json groups"),
        ("a {{#if (eq n 1)}}\nb\n", "t.conf:|needs its `{{/name}}`"),
        ("a\n{% for h in groups['web'] %}\n", "t.conf:2:1|{{#each groups.web as |h|}}"),
        ("{{ site | upper }}\n", "t.conf:1:1|{{upper site}}"),
        ("{{> part}}\n", "playbooks/templates/part:2:4|`gone` is not defined"),
        ("{{> missing}}\n", "there is no partial `missing`"),
        ("{{secret \"db\"}}\n", "there is no secret `db`|soc-provision secrets set db"),
    ] {
        let problems =
            Project::with_tasks(task, &[("playbooks/templates/t.conf", text), ("playbooks/templates/part", "1\n2 \u{20}{{gone}}\n")])
                .problems();
        says(&problems, expected, text);
    }
    let fine = Project::with_tasks(
        task,
        &[(
            "playbooks/templates/t.conf",
            "{{#if (defined nope)}}{{nope}}{{/if}}{{default nope 'x'}}{{{{raw}}}}{{ as it is }} {% if %}{{{{/raw}}}}\n",
        )],
    );
    assert_eq!(fine.run(&["check", "site.yml"]).code, 0, "{}", fine.run(&["check", "site.yml"]).err);
}

#[test]
fn mistakes_of_tasks() {
    for (text, expected) in [
        ("- copi: {src: a, dest: /b}", "unknown module `copi`|did you mean `copy`?"),
        ("- copy: {src: a, dest: /b}\n  wehn: true", "unknown key `wehn`|did you mean `when`?"),
        ("- copy: {content: a, dset: /b}", "unknown key `dset` in `copy`|did you mean `dest`?"),
        ("- copy: {content: a}", "`copy` needs `dest`"),
        ("- copy: {content: a, dest: /b, mode: 644}", "put it in quotes"),
        ("- copy: {content: a, dest: b}", "is not an absolute path"),
        ("- copy: {src: nowhere, dest: /b}", "nowhere"),
        ("- file: {path: /x, state: directroy}", "`directroy`|did you mean `directory`?"),
        ("- service: {name: x, enabled: perhaps}", "`enabled` of `service`"),
        ("- debug: {msg: x}\n  copy: {content: a, dest: /b}", "unknown key `copy` in a task with `debug`"),
        ("- file: {path: /x, state: touch}\n  copy: {content: a, dest: /b}", "a task has one module only"),
        ("- name: nothing", "this task has no module"),
        ("- just text", "a task must be a mapping, not text"),
        ("- debug: hello", "`debug` takes a mapping|msg"),
        ("- debug: {msg: x}\n  loop: 5", "a loop needs a list"),
        ("- debug: {msg: x}\n  loop: [1]\n  with_items: [2]", "a task has one loop only"),
        ("- debug: {msg: x}\n  when: site", "the condition is text, not true or false"),
        ("- debug: {msg: x}\n  when: {a: b}", "`when` must be an expression"),
        ("- debug: {msg: x}\n  loop: [1]\n  loop_control: {extended: true}", "`extended` is not supported|index_var"),
        ("- include_tasks: gone.yml", "there is no file of tasks"),
        ("- include_role: {name: gone}", "there is no role `gone`"),
        ("- include_role: {nmae: gone}", "unknown key `nmae`|needs `name`"),
        ("- meta: end_play", "`meta: end_play` is not supported|end_host"),
        ("- assert: {that: [eq site \"prod\"], fail_msg: wrong place}", "wrong place (host `w1`)"),
        ("- debug: {msg: '{{a}}'}\n  vars: {a: '{{b}}', b: '{{a}}'}", "variable `a` needs itself"),
        ("- command: 'true'\n  become_method: su", "only `sudo` is supported"),
        ("- package: {name: x1}\n  environment: {A: b}", "`environment` is read by `command` only"),
        (
            "- compose_stack:\n    name: x\n    health: {timeout: 9s}\n    secrets: {token: {secret: t}}\n    compose: {services: {web: {image: 'x:1', secrets: [token]}}, secrets: {token: {file: ./t}}}",
            "is the stack's own secret `token` too|leave it out of the Compose file",
        ),
        (
            "- compose_stack:\n    name: x\n    health: {timeout: 9s}\n    files: [{content: x, dest: a b}]\n    compose: {services: {web: {image: 'x:1'}}}",
            "`a b` is not a path below `files/`, of letters, digits and",
        ),
        ("- debug: {msg: x}\n  vars: [1]", "`vars` must be a mapping"),
    ] {
        says(&Project::with_tasks(text, &[]).problems(), expected, text);
    }
}

#[test]
fn mistakes_of_plays_and_roles() {
    let role = [
        ("roles/app/tasks/main.yml", "[]\n"),
        ("roles/loop/meta/main.yml", "dependencies: [loop]\n"),
        ("roles/odd/meta/main.yml", "dependancies: []\n"),
    ];
    for (text, expected) in [
        ("- hots: all\n", "unknown key `hots`|did you mean `hosts`?|this play has no `hosts`"),
        ("- hosts: all\n  taks: []\n", "did you mean `tasks`?"),
        ("- hosts: web\n  copy: {}\n", "unknown key `copy` in a play"),
        ("- hosts: wbe\n", "`wbe`|did you mean `web`?"),
        ("- hosts: \"{{target}}\"\n", "not known before there are hosts|-e"),
        ("- hosts: web\n  serial: [a, 200%]\n", "`serial` must be a number of hosts or a share"),
        ("- hosts: web\n  max_fail_percentage: 120\n", "a number from 0 to 100"),
        ("- hosts: web\n  gate: helth\n", "`gate` takes `health` only"),
        ("- hosts: web\n  roles: [ap]\n", "there is no role `ap`|did you mean `app`?"),
        ("- hosts: web\n  roles: [{tags: x}]\n", "this entry names no role"),
        ("- hosts: web\n  roles: [loop]\n", "role `loop` depends on itself"),
        ("- hosts: web\n  roles: [odd]\n", "roles/odd/meta/main.yml:1:1|did you mean `dependencies`?"),
        ("- hosts: web\n  roles: [{role: app, port: 1}]\n", "`port` is not supported|goes below `vars:`"),
        ("- 7\n", "a play must be a mapping"),
        ("- hosts: web\n  tasks: {a: b}\n", "`tasks` must be a list"),
    ] {
        says(&Project::with_playbook(text, &role).problems(), expected, text);
    }
}

#[test]
fn vault_content_says_how_to_convert_it() {
    let value = "- debug: {msg: '{{v}}'}\n  vars:\n    v: !vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      6162\n";
    says(&Project::with_tasks(value, &[]).problems(), "site.yml:|encrypted with ansible-vault|soc-provision secrets set NAME", value);
    // Unused, it only warns.
    let unused = Project::with_playbook(
        "- hosts: web\n  tasks: []\n",
        &[("inventory/group_vars/web.yml", "v: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n")],
    );
    let run = unused.run(&["check", "site.yml"]);
    assert!(run.code == 0 && run.err.contains("warning: this value is encrypted with ansible-vault"), "{}", run.err);
    let file = Project::with_playbook(
        "- hosts: web\n  vars_files: [s.yml]\n  tasks: []\n",
        &[("playbooks/s.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n")],
    );
    says(&file.problems(), "s.yml:1:1|ansible-vault decrypt", "file");
}

#[test]
fn an_empty_group_warns_and_an_empty_inventory_does_not_pass() {
    let project = Project::with_playbook("- hosts: none\n  tasks: []\n", &[("inventory/site.yml", &format!("{HOSTS}    none:\n"))]);
    let run = project.run(&["check", "site.yml"]);
    assert!(run.code == 0 && run.err.contains("stands for no host"), "{}", run.err);
    project.write("inventory/site.yml", "all:\n  hosts: {}\n");
    assert!(project.run(&["check", "site.yml"]).err.contains("the inventory has no hosts"));
    std::fs::remove_file(project.path().join("inventory/site.yml")).unwrap();
    says(&project.run(&["check", "site.yml"]).err, "there is no inventory `inventory/site.yml`|name one with `-i`", "no inventory");
}

#[test]
fn nothing_is_connected_to_before_the_project_is_right() {
    // The hosts' names do not resolve: what is wrong with the project is found before.
    let project = Project::with_tasks("- copy: {content: a, dset: /b}", &[]);
    for command in ["apply", "plan", "verify", "drift"] {
        let run = project.run(&[command, "site.yml"]);
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{command}: {}", run.err);
        says(&run.err, "site.yml:3:26|unknown key `dset`|did you mean `dest`?", command);
    }
}
