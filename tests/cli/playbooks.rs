//! What works works as in Ansible. `debug` shows what a place sees: its message is in the title.

use std::os::unix::fs::PermissionsExt as _;

use crate::harness::Project;

#[test]
fn roles_with_defaults_vars_dependencies_and_parameters() {
    let project = Project::with_playbook(
        "- hosts: web
  vars: {who: play}
  pre_tasks: [{debug: msg=first}]
  roles:
    - common
    - {role: app, size: 3, tags: [app], when: \"eq n 1\"}
  tasks: [{debug: msg=third}]
  post_tasks: [{debug: msg=last}]
",
        &[
            ("roles/common/tasks/main.yml", "- debug: {msg: \"common {{who}} {{role_name}}\"}\n"),
            ("roles/common/defaults/main.yml", "who: nobody\n"),
            (
                "roles/app/meta/main.yml",
                "galaxy_info: {author: me}\ndependencies:\n  - role: base\n    vars: {level: low}\n  - {role: base, level: high}\n",
            ),
            ("roles/app/defaults/main.yml", "size: 1\ncolour: red\n"),
            ("roles/app/vars/main.yml", "both: \"{{size}}-{{colour}}\"\n"),
            ("roles/app/tasks/main.yml", "- debug: {msg: \"app {{both}}\"}\n- import_tasks: more.yml\n"),
            ("roles/app/tasks/more.yml", "- debug: {msg: \"more {{size}}\"}\n"),
            ("roles/base/tasks/main.yml", "- debug: {msg: \"base {{level}}\"}\n"),
            ("inventory/group_vars/web.yml", "colour: blue\n"),
        ],
    );
    assert_eq!(
        project.tasks("w1", &[]),
        [
            "debug: first",
            "common : debug: common play common",
            "base : debug: base low",
            "base : debug: base high",
            "app : debug: app 3-blue",
            "app : debug: more 3",
            "debug: third",
            "debug: last"
        ]
    );
    // A role whose condition does not hold is listed, and skipped.
    assert_eq!(project.tasks("w2", &[]).len(), 8);
    assert_eq!(
        project.tasks("w1", &["-t", "app"]),
        ["base : debug: base low", "base : debug: base high", "app : debug: app 3-blue", "app : debug: more 3"]
    );
}

#[test]
fn arguments_of_roles_are_checked() {
    let role = [
        (
            "roles/app/meta/argument_specs.yml",
            "argument_specs:\n  main:\n    options:\n      port: {type: int, required: true}\n      mode: {type: str, choices: [fast, safe], default: safe}\n      users: {type: list, elements: dict, options: {name: {required: true}, admin: {type: bool}}}\n",
        ),
        ("roles/app/tasks/main.yml", "- debug: {msg: \"{{port}} {{mode}}\"}\n"),
    ];
    let play = |vars: &str| format!("- hosts: w1\n  roles:\n    - role: app\n      vars: {vars}\n");
    let fine = Project::with_playbook(&play("{port: 80}"), &role);
    assert_eq!(fine.tasks("w1", &[]), ["app : debug: 80 safe"]);
    for (vars, expected) in [
        ("{port: many}", "`port` of role `app`: it must be a whole number, not `many`"),
        ("{port: 1, mode: fats}", "it cannot be `fats`|did you mean `fast`?"),
        ("{port: 1, users: [{nmae: x}]}", "unknown key `nmae`; did you mean `name`?"),
        ("{port: 1, users: [{name: x, admin: perhaps}]}", "`users[0].admin`"),
    ] {
        let problems = Project::with_playbook(&play(vars), &role).problems();
        assert!(expected.split('|').all(|part| problems.contains(part)), "{vars}: {problems}");
    }
    let missing = Project::with_playbook(
        "- hosts: w1\n  roles: [app]\n",
        &[("roles/app/meta/main.yml", "argument_specs: {main: {options: {need: {required: true}}}}\n")],
    );
    assert!(missing.problems().contains("role `app` needs `need`"));
}

#[test]
fn conditions_loops_and_their_variables() {
    let project = Project::with_tasks(
        "- debug: msg=one
  when: eq n 1
- debug: msg=both
  when:
    - gte n 1
    - eq tier \"front\"
- debug: {msg: \"{{item.name}}={{item.mode}}\"}
  loop:
    - {name: a, mode: '0755'}
    - {name: b, mode: \"0700\"}
  loop_control: {label: \"{{item.name}}\"}
- debug: {msg: \"{{i}}:{{x}}\"}
  loop: \"{{groups.web}}\"
  when: ne x \"w2\"
  loop_control: {loop_var: x, index_var: i}
- debug: {msg: \"{{item.key}}={{item.value.uid}}\"}
  with_dict: {ann: {uid: 7}, bob: {uid: 8}}
- debug: {msg: \"{{item}}\"}
  with_items: [[p, q], r]
- debug: {msg: \"{{item}}\"}
  loop: \"{{range 1 3}}\"
- debug: msg={{nope}}
  when: eq n 99
",
        &[],
    );
    assert_eq!(
        project.tasks("w1", &[]),
        [
            "debug: one",
            "debug: both",
            "debug: a=0755: b=0700",
            "debug: 0:w1: 2:w3",
            "debug: ann=7: bob=8",
            "debug: p: q: r",
            "debug: 1: 2: 3",
            "debug"
        ]
    );
}

#[test]
fn tags_select_by_ansibles_rules() {
    let project = Project::with_playbook(
        "- hosts: w1
  tags: play
  tasks:
    - {debug: msg=a, tags: [x]}
    - {debug: msg=b, tags: 'y,z'}
    - {debug: msg=c, tags: always}
    - {debug: msg=d, tags: [never, deep]}
    - block: [{debug: msg=e}]
      tags: x
    - {include_tasks: {file: inner.yml, apply: {tags: applied}}, tags: [inc]}
    - import_role: {name: r}
      tags: role
",
        &[("playbooks/inner.yml", "- debug: msg=f\n"), ("roles/r/tasks/main.yml", "- debug: msg=g\n")],
    );
    let run = |arguments: &[&str]| {
        project.tasks("w1", arguments).iter().map(|title| title.rsplit(' ').next().unwrap().to_owned()).collect::<String>()
    };
    assert_eq!(run(&[]), "abcefg");
    assert_eq!(run(&["-t", "x"]), "ace");
    assert_eq!(run(&["-t", "y,role"]), "bcg");
    assert_eq!(run(&["-t", "deep"]), "cd");
    assert_eq!(run(&["-t", "applied"]), "cf");
    assert_eq!(run(&["-t", "play"]), "abcdefg");
    assert_eq!(run(&["--skip-tags", "x,always"]), "bfg");
    assert_eq!(run(&["-t", "x", "--skip-tags", "x"]), "c");
    let odd = project.run(&["check", "site.yml", "-t", "rolee"]);
    assert!(odd.code == 0 && odd.err.contains("nothing has the tag `rolee`") && odd.err.contains("did you mean `role`?"), "{}", odd.err);
    let list = project.run(&["check", "site.yml", "--list-tags"]);
    assert!(list.out.contains("TASK TAGS: [always, applied, inc, play, role, x, y, z]"), "{}", list.out);
}

#[test]
fn blocks_includes_and_what_they_hand_down() {
    let project = Project::with_tasks(
        "- block:
    - debug: {msg: \"{{v}}\"}
    - include_tasks: more.yml
      loop: [1, 2]
      vars: {w: \"w{{item}}\"}
  rescue: [{debug: msg=rescue}]
  always: [{debug: msg=always}]
  vars: {v: block}
  when: eq n 1
- include_role: {name: r, tasks_from: other}
  vars: {x: 5}
- import_role: name=r tasks_from=other.yml
  vars: {x: 6}
- ansible.builtin.include_role:
    name: \"{{item}}\"
  loop: [r]
- include_vars: extra.yml
- set_fact: {later: \"{{from_file}}!\"}
- debug: {msg: \"{{later}}\"}
- meta: flush_handlers
- meta: end_host
  when: eq n 1
- debug: msg=unreached
",
        &[
            ("playbooks/more.yml", "- debug: {msg: \"{{w}}-{{v}}\"}\n"),
            ("playbooks/vars/extra.yml", "from_file: yes it is\n"),
            ("roles/r/tasks/other.yml", "- debug: {msg: \"r{{x}}\"}\n"),
            ("roles/r/tasks/main.yml", "- debug: msg=main\n"),
        ],
    );
    assert_eq!(
        project.tasks("w1", &[]),
        [
            "debug: block",
            "debug: w1-block",
            "debug: w2-block",
            "debug: rescue",
            "debug: always",
            "r : debug: r5",
            "r : debug: r6",
            "r : debug: main",
            "include_vars",
            "set_fact",
            "debug: yes it is!"
        ]
    );
    assert_eq!(project.tasks("w2", &[]).last().unwrap(), "debug: unreached");
}

#[test]
fn playbooks_import_each_other() {
    let project = Project::with_playbook(
        "- import_playbook: sub/web.yml
  vars: {target: db, v: outer}
  tags: imported
  when: ne inventory_hostname \"d2\"
- ansible.builtin.import_playbook: sub/web.yml
- hosts: localhost
  tasks: [{debug: {var: ansible_connection}}]
",
        &[("playbooks/sub/web.yml", "- hosts: '{{default target \"web\"}}'\n  vars: {v: inner}\n  tasks:\n    - debug: msg={{v}}\n")],
    );
    assert_eq!(project.tasks("d1", &["-t", "imported"]), ["debug: outer"]);
    assert_eq!(project.tasks("w1", &[]), ["debug: inner"]);
    assert_eq!(project.tasks("localhost", &[]), ["debug: ansible_connection = \"local\""]);
    project.write("playbooks/sub/web.yml", "- import_playbook: ../site.yml\n");
    assert!(project.problems().contains("imports itself"));
    project.write("playbooks/site.yml", "- import_playbook: gone.yml\n- import_playbook: sub/web.yml\n  froks: 1\n");
    let problems = project.problems();
    assert!(problems.contains("there is no playbook `playbooks/gone.yml`") && problems.contains("unknown key `froks`"), "{problems}");
}

#[test]
fn localhost_needs_no_inventory() {
    let project =
        Project::new(&[("only.yml", "- hosts: localhost\n  connection: local\n  gather_facts: no\n  tasks: [{debug: msg=here}]\n")]);
    let run = project.run(&["check", "only.yml", "--list-tasks"]);
    assert!(run.code == 0 && run.out.contains("debug: here"), "{}{}", run.out, run.err);
    // The implicit one is not among `all`.
    let both = Project::with_playbook("- hosts: all\n  tasks: []\n- hosts: localhost\n  tasks: []\n", &[]);
    let run = both.run(&["check", "site.yml", "--list-hosts"]);
    assert!(run.out.contains("hosts (5)") && run.out.contains("hosts (1)"), "{}", run.out);
}

#[test]
fn extra_variables_come_in_every_form() {
    let project = Project::with_tasks(
        "- debug: {msg: \"{{a}} {{b}} {{c.d}} {{e}}\"}\n  vars: {a: weak, e: weak}\n",
        &[("more.yml", "e: file\n"), ("more.json", "{\"e\": \"json\"}")],
    );
    for (arguments, expected) in [
        (&["-e", "a=1 b='x y'", "-e", "{\"c\": {\"d\": [2]}}", "-e", "@more.yml"][..], None),
        (&["-e", "a=1 b='x y'", "-e", "{\"c\": {\"d\": 2}}", "-e", "@more.yml"][..], Some("debug: 1 x y 2 file")),
        (&["-e", "a=1", "-e", "b: yes", "-e", "{c: {d: 3}}", "-e", "@more.json", "-e", "a=last"][..], Some("debug: last true 3 json")),
    ] {
        let run = project.run(&[&["check", "site.yml", "--list-tasks", "-l", "w1"], arguments].concat());
        match expected {
            Some(title) => assert!(run.out.contains(title), "{}{}", run.out, run.err),
            None => assert!(run.code == 1 && run.err.contains("`c.d` is a list, not text"), "{}{}", run.out, run.err),
        }
    }
    for (argument, message) in [("novalue", "is not `name=value`"), ("a='open", "quotes"), ("@gone.yml", "gone.yml"), ("{a: [}", "-e:1:")] {
        let run = project.run(&["check", "site.yml", "-e", argument]);
        assert!(run.code == 1 && run.err.contains(message), "{argument}: {}", run.err);
    }
}

#[test]
fn files_of_variables() {
    let project = Project::with_playbook(
        "- hosts: w1
  vars_files:
    - vars/common.yml
    - [\"vars/{{ansible_distribution}}.yml\", vars/default.yml]
  tasks:
    - debug: {msg: \"{{x}} {{y}}\"}
",
        &[("playbooks/vars/common.yml", "x: 1\ny: weak\n"), ("playbooks/vars/default.yml", "y: 2\n")],
    );
    assert_eq!(project.tasks("w1", &[]), ["debug: 1 2"]);
    std::fs::remove_file(project.path().join("playbooks/vars/common.yml")).unwrap();
    assert!(project.problems().contains("vars/common.yml"));
}

#[test]
fn modules_by_long_names_and_arguments_on_one_line() {
    let project = Project::with_tasks(
        "- ansible.builtin.copy: src=motd dest=/etc/motd mode=0644
  notify: restart it
- ansible.builtin.file: {path: /srv, state: directory, mode: 0755}
- ansible.builtin.package: name={{pkg}} state=present
- ansible.builtin.command: make install creates=/usr/bin/x chdir=/src
  environment: {PREFIX: /usr, N: 1}
- ansible.posix.sysctl: {key: vm.swappiness, val: 10}
- file: {dest: /srv/x, state: directory}
- lineinfile: path=/etc/x line=\"a b\" regexp=^a
- template: {src: t.j2, dest: /etc/t, owner: 1000}
- user: {name: bob, groups: [sudo], append: yes, shell: /bin/bash}
- systemd: {name: cron, state: started, enabled: yes, daemon_reload: yes}
",
        &[
            ("playbooks/files/motd", "hi\n"),
            ("playbooks/templates/t.j2", "{{inventory_hostname}} {{#each groups.web as |h|}}{{h}} {{/each}}\n"),
            ("playbooks/group_vars/all.yml", "pkg: curl\n"),
        ],
    );
    project.write(
        "playbooks/site.yml",
        &format!(
            "{}  handlers:\n    - name: restart it\n      service: name=cron state=restarted\n",
            std::fs::read_to_string(project.path().join("playbooks/site.yml")).unwrap()
        ),
    );
    let run = project.run(&["check", "site.yml"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""), "{}", run.err);
}

#[test]
fn plays_say_how_to_log_in_unless_the_inventory_does() {
    let two = "- {hosts: w1, remote_user: ann, tasks: []}\n- {hosts: w1, remote_user: bob, tasks: []}\n";
    let problems = Project::with_playbook(two, &[]).problems();
    assert!(problems.contains("host `w1` has `remote_user: ann` in an earlier play") && problems.contains("ansible_user"), "{problems}");
    let odd = Project::with_playbook("- {hosts: w1, connection: winrm, tasks: []}\n", &[]).problems();
    assert!(odd.contains("`connection: winrm` is not supported"), "{odd}");
    let known = Project::with_playbook(two, &[("inventory/host_vars/w1.yml", "ansible_user: root\n")]);
    assert_eq!(known.run(&["check", "site.yml"]).code, 0);
}

#[test]
fn a_check_covers_every_playbook_and_executable_files_are_no_inventories_by_chance() {
    let project = Project::with_playbook(
        "- hosts: all\n  tasks: []\n",
        &[("playbooks/two.yml", "- hosts: web\n  tasks: [{debg: {}}]\n"), ("inventory/two.yml", crate::harness::HOSTS)],
    );
    // An inventory that happens to be executable is still YAML.
    std::fs::set_permissions(project.path().join("inventory/site.yml"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = project.run(&["check"]);
    assert_eq!(run.code, 1);
    assert!(
        run.out.contains("site.yml: 5 hosts, no errors")
            && run.err.contains("unknown module `debg`")
            && run.err.contains("two.yml: 1 error"),
        "{}{}",
        run.out,
        run.err
    );
}
