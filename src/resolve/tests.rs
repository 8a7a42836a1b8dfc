//! Whole projects, resolved.

use super::*;
use crate::diagnostic::Diagnostic;
use crate::facts::Facts;
use crate::project::tests::Disk;
use crate::project::{LoadOptions, Project};

const INVENTORY: &str = "all:\n  vars: {site: lab, port: 80}\n  children:\n    web:\n      hosts:\n        web1: {ansible_host: 10.0.0.1, n: 1}\n        web2: {ansible_host: 10.0.0.2, n: 2}\n";

/// A project with one play of these lines, and further files.
fn disk(play: &str, files: &[(&str, &str)]) -> Disk {
    let mut all = vec![("inventory/prod.yml", INVENTORY), ("playbooks/prod.yml", play)];
    all.extend(files);
    Disk::new(&all)
}

fn tasks(play: &str) -> String {
    format!("- hosts: all\n  tasks:\n{}", play.lines().map(|line| format!("    {line}\n")).collect::<String>())
}

fn load(disk: &Disk) -> Project {
    disk.load().unwrap_or_else(|problems| panic!("{:#?}", shown(&problems)))
}

fn run_with(disk: &Disk, options: &RunOptions) -> Result<HostProgram, Vec<Diagnostic>> {
    resolve(&load(disk), "web1", &Facts::placeholder("web1"), options)
}

fn run(disk: &Disk) -> Result<HostProgram, Vec<Diagnostic>> {
    run_with(disk, &RunOptions::default())
}

/// Each task as `title: resources` or `title (reason)`.
fn outline(program: &HostProgram) -> Vec<String> {
    program
        .tasks()
        .map(|task| match &task.skipped {
            Some(reason) => format!("{} ({reason})", task.title),
            None => {
                format!("{}: {}", task.title, task.resources.iter().map(|resource| format!("{resource:?}")).collect::<Vec<_>>().join("; "))
            }
        })
        .collect()
}

fn shown(problems: &[Diagnostic]) -> Vec<String> {
    problems
        .iter()
        .map(|problem| {
            let at = problem.location.as_ref().map(|at| format!("{}:{}:{}: ", at.file.display(), at.line, at.column)).unwrap_or_default();
            format!("{at}{} [{}]", problem.message, problem.hint.as_deref().unwrap_or_default())
        })
        .collect()
}

/// The problems of one task.
fn problems(text: &str) -> Vec<String> {
    let disk = disk(&tasks(text), &[]);
    let mut problems = match disk.load() {
        Ok(project) => check(&project, &project.warnings, &RunOptions::default()),
        Err(problems) => problems,
    };
    problems.dedup();
    shown(&problems)
}

/// The names of resources that these tasks make.
fn made(text: &str) -> Vec<String> {
    let program = run(&disk(&tasks(text), &[])).unwrap_or_else(|problems| panic!("{:#?}", shown(&problems)));
    program.tasks().flat_map(|task| task.resources.iter().map(|resource| resource.id().name)).collect()
}

#[test]
fn roles_tasks_and_handlers_come_in_order() {
    let play = "- hosts: web\n  vars: {greeting: \"hello {{site}}\"}\n  pre_tasks:\n    - test_kind: first\n  roles:\n    - {role: app, size: 3, tags: app}\n  tasks:\n    - name: last\n      test_kind: \"{{greeting}}\"\n      notify: restart\n";
    let disk = disk(
        play,
        &[
            ("roles/app/defaults/main.yml", "size: 1\nport: 8080\n"),
            ("roles/app/vars/main.yml", "inner: \"{{size}}-{{port}}\"\n"),
            ("roles/app/meta/main.yml", "dependencies: [base]\n"),
            ("roles/app/tasks/main.yml", "- name: conf\n  test_kind: {name: \"{{inner}}\", template: conf.txt}\n  notify: [restart]\n"),
            ("roles/app/handlers/main.yml", "- name: restart it\n  listen: restart\n  test_kind: handler-{{role_name}}\n"),
            ("roles/app/templates/conf.txt.hbs", "n={{n}} & {{inventory_hostname}} {{#if (eq size 3)}}three{{/if}} {{from_base}}\n"),
            ("roles/app/verify/main.yml", "- tcp: {port: \"{{port}}\", from: outside}\n"),
            ("roles/base/tasks/main.yml", "- test_kind: base\n"),
            ("roles/base/defaults/main.yml", "from_base: \"{{site}}!\"\nsize: 9\n"),
        ],
    );
    let program = run(&disk).unwrap_or_else(|problems| panic!("{:#?}", shown(&problems)));
    let lines = outline(&program);
    let names: Vec<&str> = lines.iter().map(|line| line.split(" mode=").next().unwrap()).collect();
    assert_eq!(
        names,
        ["test_kind: first", "base : test_kind: base", "app : conf: 3-80", "last: hello lab", "app : restart it: handler-app"],
        "{lines:#?}"
    );
    assert!(lines[2].ends_with("text=n=1 & web1 three lab!\n"), "{}", lines[2]);
    let play = &program.plays[0];
    assert_eq!(play.handlers[0].names, ["restart", "restart it", "app : restart it"]);
    assert!(matches!(play.nodes[1], Node::FlushHandlers));
    assert_eq!(play.checks[0].check.id, "tcp[10.0.0.1:80]");
}

#[test]
fn conditions_and_loops() {
    let text = "- test_kind: \"{{item}}\"\n  loop: [a, b, c]\n  when: ne item \"b\"\n- test_kind: \"{{i}}-{{x.key}}={{x.value}}\"\n  with_dict: {k: v}\n  loop_control: {loop_var: x, index_var: i}\n- test_kind: \"{{item}}\"\n  with_items: [[p], q]\n- test_kind: never\n  when: [false, \"eq nope 1\"]\n- test_kind: yes-{{n}}\n  when:\n    - eq ansible_distribution \"Debian\"\n    - gte n 1\n- test_kind: none\n  loop: \"{{nope}}\"\n  when: eq n 5\n";
    assert_eq!(made(text), ["a", "c", "0-k=v", "p", "q", "yes-1"]);
    let program = run(&disk(&tasks(text), &[])).unwrap();
    let skipped: Vec<&str> = program.tasks().filter_map(|task| task.skipped.as_deref()).collect();
    assert_eq!(skipped, ["`when: false` does not hold", "`when: eq n 5` does not hold"]);
}

#[test]
fn values_keep_their_type_and_omit_drops_the_field() {
    let text = "- test_kind:\n    name: x\n    enabled: \"{{eq n 1}}\"\n    count: \"{{n}}\"\n    mode: \"{{default nothing omit}}\"\n    nested: {ports: \"{{range 1 3}}\"}\n- test_kind: {name: y, enabled: \"yes\", count: \"7\"}\n";
    let lines = outline(&run(&disk(&tasks(text), &[])).unwrap());
    assert_eq!(lines[0], "test_kind: x mode=None enabled=true count=Some(1) nested=[1, 2, 3] user=None");
    assert!(lines[1].contains("enabled=true count=Some(7)"));
}

#[test]
fn precedence_is_ansibles() {
    let play = "- hosts: all\n  vars: {a: play}\n  vars_files: [more.yml]\n  roles:\n    - {role: r, e: param}\n  tasks:\n    - set_fact: {f: \"{{a}}-fact\"}\n    - test_kind: \"{{f}}\"\n      vars: {f: task}\n";
    let files = [
        ("playbooks/more.yml", "b: file\na2: file\n"),
        ("inventory/group_vars/all.yml", "a: all\nc: all\nd: all\n"),
        ("inventory/group_vars/web.yml", "c: web\nd: web\n"),
        ("inventory/host_vars/web1.yml", "d: host\nb: host\n"),
        ("roles/r/defaults/main.yml", "c: default\ng: default\n"),
        ("roles/r/vars/main.yml", "a2: role\n"),
        (
            "roles/r/tasks/main.yml",
            "- test_kind: \"{{a}} {{a2}} {{b}} {{c}} {{d}} {{e}} {{g}}\"\n- test_kind: \"{{e}} {{h}}\"\n  vars: {e: task, h: \"{{g}}\"}\n",
        ),
    ];
    let disk = disk(play, &files);
    let project = Project::load(&LoadOptions { extra_vars: vec!["g=extra".to_owned()], ..disk.options() }).unwrap();
    let program = resolve(&project, "web1", &Facts::placeholder("web1"), &RunOptions::default()).unwrap();
    let names: Vec<String> = program.tasks().flat_map(|task| task.resources.iter().map(|resource| resource.id().name)).collect();
    assert_eq!(names, ["play role file web host param extra", "param extra", "play-fact"]);
}

#[test]
fn blocks_hand_down_and_includes_are_static() {
    let play = "- hosts: all\n  tasks:\n    - block:\n        - test_kind: \"{{v}}\"\n        - include_tasks: more.yml\n          loop: [1, 2]\n          vars: {w: \"w{{item}}\"}\n      rescue:\n        - test_kind: rescue\n      always:\n        - test_kind: always\n      vars: {v: block}\n      when: eq n 1\n      become_user: app\n    - include_role: {name: r, tasks_from: other}\n      vars: {x: 5}\n    - meta: end_host\n      when: eq n 1\n    - test_kind: not reached\n";
    let disk =
        disk(play, &[("playbooks/more.yml", "- test_kind: \"{{w}}-{{v}}\"\n"), ("roles/r/tasks/other.yml", "- test_kind: \"r{{x}}\"\n")]);
    let program = run(&disk).unwrap_or_else(|problems| panic!("{:#?}", shown(&problems)));
    let names: Vec<String> = program.tasks().flat_map(|task| task.resources.iter().map(|resource| resource.id().name)).collect();
    assert_eq!(names, ["block", "w1-block", "w2-block", "rescue", "always", "r5"]);
    assert!(outline(&program)[0].ends_with("user=Some(\"app\")"));
    let Node::Block(block) = &program.plays[0].nodes[0] else { panic!("{:?}", program.plays[0].nodes) };
    assert_eq!((block.body.len(), block.rescue.len(), block.always.len()), (3, 1, 1));
}

#[test]
fn tags_select_and_are_handed_down() {
    let text = "- block:\n    - test_kind: a\n    - {test_kind: b, tags: [y]}\n  tags: x\n- {test_kind: c, tags: always}\n- {test_kind: d, tags: never}\n";
    let disk = disk(&tasks(text), &[]);
    let names = |only: &[&str], skip: &[&str]| -> String {
        let list = |tags: &[&str]| tags.iter().map(|&tag| tag.to_owned()).collect();
        let options = RunOptions { tags: list(only), skip_tags: list(skip), ..RunOptions::default() };
        let program = run_with(&disk, &options).unwrap();
        program.tasks().flat_map(|task| task.resources.iter().map(|resource| resource.id().name)).collect()
    };
    assert_eq!(names(&[], &[]), "abc");
    assert_eq!(names(&["x"], &[]), "abc");
    assert_eq!(names(&["y"], &[]), "bc");
    assert_eq!(names(&["x"], &["y"]), "ac");
    assert_eq!(names(&["never"], &[]), "cd");
}

#[test]
fn a_gate_follows_its_role() {
    let disk = disk(
        "- hosts: all\n  gate: health\n  roles:\n    - {role: r, gate: health}\n",
        &[("roles/r/tasks/main.yml", "- test_kind: x\n"), ("roles/r/verify/main.yml", "- container_healthy: db\n  loop: [1, 2]\n")],
    );
    let project = load(&disk);
    assert!(project.plays[0].rollout.gate);
    let program = run(&disk).unwrap();
    assert!(matches!(&program.plays[0].nodes[1], Node::Gate(role) if role == "r"));
    assert_eq!(program.plays[0].checks.len(), 2);
}

#[test]
fn other_hosts_are_seen_through_the_inventory() {
    let text = "- test_kind: \"{{hostvar \"web2\" \"ansible_host\"}}\"\n- test_kind: \"{{hostvars.web2.n}} {{#each groups.web}}{{this}}={{hostvar this \"n\"}} {{/each}}\"\n- test_kind: \"{{default (hostvar \"web2\" \"ansible_distribution\") \"no facts\"}}\"\n";
    assert_eq!(
        made(&text.replace("\"{{", "'{{").replace("}}\"", "}}'").replace("}} \"", "}} '")),
        ["10.0.0.2", "2 web1=1 web2=2 ", "no facts"]
    );
}

#[test]
fn mistakes_have_a_place_and_advice() {
    let mut wrong = Vec::new();
    for (text, expected) in [
        ("- test_kind: \"{{prot}}\"", "playbooks/prod.yml:3:19: `prot` is not defined [did you mean `port`?]"),
        (
            "- test_kind: x {{ansible_default_ipv4.adress}}",
            "playbooks/prod.yml:3:20: `ansible_default_ipv4.adress` is not defined [did you mean `address`?]",
        ),
        (
            "- test_kind: |\n    a\n    b {{nope}}",
            "playbooks/prod.yml:5:11: `nope` is not defined [define it, pass it with `-e`, or write `default nope \"...\"`]",
        ),
        ("- test_kind: '{{#if nope}}x{{/if}}'", "playbooks/prod.yml:3:19: `nope` is not defined"),
        ("- test_kind: 'x{{groups}}'", "playbooks/prod.yml:3:20: `groups` is a mapping, not text [write `{{to_json groups}}`"),
        (
            "- test_kind: '{{ port | default(1) }}'",
            "playbooks/prod.yml:3:19: this is not a Handlebars template [this is Jinja: write `{{default port 1}}`]",
        ),
        ("- test_kind: '{{#if port}}'", "playbooks/prod.yml:3:"),
        ("- test_kind: '{{uper site}}'", "playbooks/prod.yml:3:19: there is no function `uper` [did you mean `upper`?]"),
        ("- test_kind: x\n  when: port == 80", "playbooks/prod.yml:4:13: this is not a Handlebars expression [write `eq port 80`]"),
        ("- test_kind: x\n  when: site", "playbooks/prod.yml:4:13: the condition is text, not true or false"),
        ("- test_kind: x\n  when: eq site", "playbooks/prod.yml:4:13: `eq` is written `eq a b`"),
        ("- test_knd: x", "playbooks/prod.yml:3:7: unknown module `test_knd` [did you mean `test_kind`?]"),
        ("- test_kind: x\n  whn: true", "playbooks/prod.yml:4:7: unknown key `whn` [did you mean `when`?]"),
        ("- test_kind:\n    name: x\n    coutn: 1", "playbooks/prod.yml:5:9: unknown key `coutn` in `test_kind` [did you mean `count`?]"),
        (
            "- test_kind:\n    name: x\n    nested: {prots: []}",
            "playbooks/prod.yml:5:18: unknown key `prots` in `test_kind.nested` [did you mean `ports`?]",
        ),
        (
            "- test_kind:\n    name: x\n    nested: {ports: [1, z]}",
            "playbooks/prod.yml:5:29: `nested.ports[1]` of `test_kind`: invalid type",
        ),
        (
            "- test_kind:\n    name: x\n    mode: 0o644",
            "playbooks/prod.yml:5:15: `mode` of `test_kind`: invalid type: integer `420`, expected a string [quote it, with the leading zero: `\"0644\"`]",
        ),
        ("- test_kind: {count: 1}", "playbooks/prod.yml:3:7: `test_kind` needs `name`"),
        ("- test_kind: bad", "playbooks/prod.yml:3:7: `name` of `test_kind`: it is bad [be good]"),
        (
            "- test_kind: {name: x, template: nope}",
            "playbooks/prod.yml:3:38: `template` of `test_kind`: there is no file `playbooks/templates/nope` or `templates/nope`",
        ),
        (
            "- test_kind: '{{secret \"db\"}}'",
            "playbooks/prod.yml:3:18: a secret is not allowed here, in `name` [`test_kind` takes secrets in: content]",
        ),
        ("- test_kind: {name: x, content: '{{upper (secret \"db\")}}'}", "playbooks/prod.yml:3:38: `upper` cannot be applied to a secret"),
        ("- test_kind: x\n  notify: restrat", "playbooks/prod.yml:3:7: there is no handler `restrat`"),
        ("- test_kind: x\n  loop: 5", "playbooks/prod.yml:4:13: a loop needs a list, not a number"),
        ("- assert: {that: [eq site \"prod\"], msg: wrong site}", "playbooks/prod.yml:3:23: wrong site (host `web1`)"),
        ("- fail: {msg: stop}", "playbooks/prod.yml:3:7: stop []"),
        ("- test_kind: '{{a}}'\n  vars: {a: '{{b}}', b: '{{c}}', c: '{{a}}'}", "variable `a` needs itself: `a` -> `b` -> `c` -> `a`"),
        ("- test_kind: '{{a}}'\n  vars: {a: '{{nope}}'}", "playbooks/prod.yml:4:18: `nope` is not defined (needed by `a`)"),
        ("- test_kind: '{{#eq a b}}x{{/eq}}'", "playbooks/prod.yml:3:19: there is no block `eq` [write `{{#if (eq a b)}}`]"),
    ] {
        let found = problems(text);
        if !found.iter().any(|problem| problem.contains(expected)) {
            wrong.push(format!("{text}\nexpected {expected}\nfound {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unused_mistakes_in_branches_and_variables_do_not_stop() {
    assert_eq!(made("- test_kind: \"{{#if (eq n 1)}}one{{else}}{{nope}}{{/if}}\"\n"), ["one"]);
    assert_eq!(made("- test_kind: \"{{default a 'x'}}\"\n  vars: {a: '{{nope}}'}\n"), ["x"]);
    let found = problems("- test_kind: x\n  vars: {unused: '{{ a | b }}'}\n");
    assert!(found.iter().all(|problem| problem.contains("Jinja filter")), "{found:?}");
}

#[test]
fn partials_render_and_circles_are_refused() {
    let files = [
        ("templates/main.hbs", "a\n  {{> inner who=site}}\n"),
        ("templates/inner.hbs", "hi {{who}} {{n}}\n"),
        ("templates/one.hbs", "{{> two}}"),
        ("templates/two.hbs", "{{> one}}"),
        ("templates/broken.hbs", "x\n{{> bad}}"),
        ("templates/bad.hbs", "1\n2 {{nope}}"),
    ];
    let with = |name: &str| run(&disk(&tasks(&format!("- test_kind: {{name: x, template: {name}}}")), &files));
    assert!(outline(&with("main").unwrap())[0].ends_with("text=a\n  hi lab 1\n"), "{:?}", outline(&with("main").unwrap()));
    assert!(
        shown(&with("one").unwrap_err())[0].contains("partials include each other: `two` -> `one` -> `two`"),
        "{:?}",
        shown(&with("one").unwrap_err())
    );
    assert_eq!(shown(&with("broken").unwrap_err())[0].split(" [").next().unwrap(), "templates/bad.hbs:2:3: `nope` is not defined");
}

#[test]
fn secrets_stay_names_and_unknown_ones_are_errors() {
    let play = tasks("- test_kind: {name: x, template: t}\n- test_kind: {name: y, content: 'p={{secret \"db_pass\"}}'}");
    let disk = disk(&play, &[("templates/t.hbs", "pw={{secret \"api/key\"}}")]);
    let program = run(&disk).unwrap();
    assert_eq!(program.secrets().iter().map(ToString::to_string).collect::<Vec<_>>(), ["api/key", "db_pass"]);
    assert!(outline(&program)[0].ends_with("text=pw=[secret api/key]"));
    let known = ["db_pas", "api/key"].map(|name| crate::secret::SecretName::parse(name).unwrap()).to_vec();
    let found = shown(&run_with(&disk, &RunOptions { known_secrets: Some(known), ..RunOptions::default() }).unwrap_err());
    assert_eq!(found, ["playbooks/prod.yml:4:37: there is no secret `db_pass` [did you mean `db_pas`?]"]);
    // Each that is missing is named, those in templates too.
    let found = shown(&run_with(&disk, &RunOptions { known_secrets: Some(Vec::new()), ..RunOptions::default() }).unwrap_err());
    assert!(found.len() == 2 && found.iter().any(|line| line.contains("there is no secret `api/key`")), "{found:?}");
}

#[test]
fn facts_cannot_smuggle_secrets() {
    let disk = disk(&tasks("- test_kind: {name: x, content: '{{ansible_hostname}}'}"), &[]);
    let mut vars = Facts::placeholder("web1").vars().clone();
    vars.insert("ansible_hostname".into(), crate::secret::SecretName::parse("db").unwrap().marker().into());
    let program = resolve(&load(&disk), "web1", &Facts::from_vars(vars), &RunOptions::default()).unwrap();
    assert!(program.secrets().is_empty());
}

#[test]
fn argument_specs_are_checked() {
    let specs = "argument_specs:\n  main:\n    options:\n      level: {type: str, choices: [low, high], default: low}\n      users:\n        type: list\n        elements: dict\n        required: true\n        options:\n          name: {required: true}\n          uid: {type: int}\n";
    let files = [("roles/r/meta/main.yml", specs), ("roles/r/tasks/main.yml", "- test_kind: \"{{level}}\"\n")];
    let with = |params: &str| run(&disk(&format!("- hosts: all\n  roles:\n    - {{role: r{params}}}\n"), &files));
    let fine = with(", users: [{name: a, uid: 5}]").unwrap_or_else(|problems| panic!("{:#?}", shown(&problems)));
    assert!(outline(&fine)[0].starts_with("r : test_kind: low"));
    assert!(shown(&with("").unwrap_err())[0].contains("role `r` needs `users`"));
    let found = shown(&with(", level: hgih, users: [{uid: x, nmae: b}]").unwrap_err());
    for expected in [
        "`level` of role `r`: it cannot be `hgih` [did you mean `high`?]",
        "`users[0]` of role `r`: unknown key `nmae`; did you mean `name`?",
        "it needs `name`",
        "`users[0].uid` of role `r`: it must be a whole number",
    ] {
        assert!(found.iter().any(|problem| problem.contains(expected)), "{expected} {found:#?}");
    }
}

#[test]
fn arguments_out_of_range_are_refused_where_they_are_written() {
    let specs = "argument_specs:\n  main:\n    options:\n      copies: {type: int, min: 1, max: 8, description: How many there are}\n      port: {type: port}\n      heap: {type: size, pattern: '[0-9]+[mg]'}\n      ports: {type: list, elements: port}\n";
    let defaults = "copies: 2\nport: 80\nheap: 512m\nports: [80]\n";
    let files = |vars: &'static str| {
        [
            ("roles/r/meta/main.yml", specs),
            ("roles/r/defaults/main.yml", defaults),
            ("roles/r/tasks/main.yml", "- test_kind: x\n"),
            ("inventory/group_vars/all.yml", vars),
        ]
    };
    let with = |vars: &'static str| run(&disk("- hosts: all\n  roles: [r]\n", &files(vars)));
    with("copies: '8'\nheap: 4g\n").unwrap_or_else(|problems| panic!("{:#?}", shown(&problems)));
    let place = "inventory/group_vars/all.yml:1:";
    for (vars, expected) in [
        ("copies: 0\n", "`copies` of role `r`: it must be 1 at least, not `0`"),
        ("copies: -3\n", "not `-3`"),
        ("copies: 9\n", "it must be 8 at most, not `9`"),
        ("copies: many\n", "it must be a whole number, not `many`"),
        ("copies: 1.5\n", "it must be a whole number, not `1.5`"),
        ("port: 0\n", "`port` of role `r`: it must be a port (1 to 65535), not `0`"),
        ("port: 65536\n", "not `65536`"),
        ("port: http\n", "not `http`"),
        ("ports: [80, 70000]\n", "item 1 must be a port (1 to 65535), not `70000`"),
        ("heap: 0m\n", "it must be a size such as `512m` or `8G`, not `0m`"),
        ("heap: lots\n", "not `lots`"),
        ("heap: 4t\n", "it cannot be `4t`"),
    ] {
        let found = shown(&with(vars).unwrap_err());
        assert!(found.len() == 1 && found[0].contains(expected) && found[0].starts_with(place), "{vars}: {found:#?}");
    }
    let bad = "argument_specs:\n  main:\n    options:\n      a: {type: str, min: 1}\n      b: {pattern: '('}\n";
    let disk = disk("- hosts: all\n  roles: [r]\n", &[("roles/r/meta/main.yml", bad), ("roles/r/tasks/main.yml", "- test_kind: x\n")]);
    let found = shown(&disk.load().unwrap_err());
    assert!(
        found.iter().any(|line| line.contains("`min` must be a number"))
            && found.iter().any(|line| line.contains("not a regular expression")),
        "{found:#?}"
    );
}

#[test]
fn offline_checks_do_not_judge_by_placeholders() {
    let disk = disk(&tasks("- assert: {that: [gt ansible_memtotal_mb 999999999]}\n- test_kind: x"), &[]);
    assert_eq!(check(&load(&disk), &[], &RunOptions::default()), []);
    assert!(run(&disk).is_err());
}

#[test]
fn connection_variables_are_rendered_and_checked() {
    let inventory = "all:\n  vars:\n    bastion: b.example\n    ansible_ssh_common_args: '-o ProxyJump=me@{{bastion}}:22,second -o ControlMaster=auto'\n  hosts:\n    a: {ansible_host: '10.0.0.{{n}}', n: 7, ansible_port: '2222', ansible_become: yes, ansible_become_password: '{{secret \"sudo\"}}'}\n    b: {ansible_ssh_common_args: '-o ProxyCommand=\"nc %h %p\"', ansible_connection: local, protected: true}\n    c: {ansible_ssh_extra_args: '-o StrictHostKeyChecking=no -o Ciphers=x -X', ansible_become_method: su, ansible_port: 99999}\n";
    let disk = Disk::new(&[("inventory/prod.yml", inventory), ("playbooks/prod.yml", "- hosts: all\n  become: true\n  tasks: []\n")]);
    let project = load(&disk);
    let a = connection(&project, "a").unwrap();
    assert_eq!((a.address.as_deref(), a.port, a.r#become), (Some("10.0.0.7"), Some(2222), true));
    assert_eq!(a.proxy_jump, Some(vec!["me@b.example:22".to_owned(), "second".to_owned()]));
    assert!(matches!(&a.become_password, Some(connection::Password::Secret(name)) if name.as_str() == "sudo"));
    let b = connection(&project, "b").unwrap();
    assert_eq!((b.proxy_command.as_deref(), b.local, b.protected, b.r#become), (Some("nc %h %p"), true, true, true));
    let found = shown(&connection(&project, "c").unwrap_err());
    for expected in [
        "StrictHostKeyChecking=no",
        "`-o Ciphers=x` is not supported",
        "`-X` is not supported",
        "`su` is not supported",
        "`99999` is not a port",
    ] {
        assert!(found.iter().any(|problem| problem.contains(expected)), "{expected} {found:#?}");
    }
}

#[test]
fn deep_nesting_is_refused_without_a_crash() {
    let deep = format!("{}x{}", "{{#if port}}".repeat(20_000), "{{/if}}".repeat(20_000));
    assert!(template::compile(&deep).unwrap_err().message.contains("nested deeper"));
    let brackets = format!("{{{{eq {}1{} 1}}}}", "(eq ".repeat(20_000), ")".repeat(20_000));
    assert!(template::compile(&brackets).unwrap_err().message.contains("nested deeper"));
    let chained = format!("{{{{#if port}}}}{}{{{{/if}}}}", "{{else if port}}".repeat(20_000));
    assert!(template::compile(&chained).unwrap_err().message.contains("nested deeper"));
    let fits = format!("{}{}{}{}", "{{#if (eq port 80)}}".repeat(40), "x".repeat(3), "{{/if}}".repeat(40), "(((".repeat(40));
    assert_eq!(made(&format!("- test_kind: '{fits}'")), [format!("xxx{}", "(((".repeat(40))]);
    let chain: String = (0..500).map(|number| format!("v{number}: '{{{{v{}}}}}'\n", number + 1)).collect();
    let disk = disk(&tasks("- test_kind: '{{v0}}'"), &[("inventory/group_vars/all.yml", &format!("{chain}v500: x\n"))]);
    assert!(shown(&run(&disk).unwrap_err())[0].contains("need each other in a row"));
}

#[test]
fn no_kind_is_refused_as_a_word_of_ansibles() {
    use crate::project::ansible::{self, Place};
    for entry in decode::kinds() {
        assert!(ansible::lookup(Place::Module, entry.name).is_none(), "`{}` is a kind and in the table", entry.name);
        assert!(ansible::lookup(Place::Task, entry.name).is_none(), "`{}` is a kind and a key of tasks", entry.name);
    }
}
