//! Inventories in all their formats, and patterns.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::harness::{HOSTS, Project};

fn vars(project: &Project, inventory: &str, host: &str) -> Value {
    let run = project.run(&["inventory", "-i", inventory, "--host", host]);
    assert_eq!(run.code, 0, "{}", run.err);
    serde_json::from_str(&run.out).unwrap()
}

#[test]
fn a_yaml_inventory_with_everything() {
    let project = Project::new(&[
        (
            "inventory/prod/hosts.yml",
            "all:\n  vars: {a: all, b: all}\n  children:\n    web:\n      hosts:\n        web[01:03].example.com:\n          http_port: 80\n        web02.example.com: {http_port: 81}\n      vars: {b: web}\n    db:\n      hosts: {db-a: , db-b: {ansible_host: 10.0.0.9}}\n    prod:\n      vars: {a: prod, c: prod}\n      children: {web: , db: }\n",
        ),
        ("inventory/prod/group_vars/all.yml", "d: all\n"),
        ("inventory/prod/group_vars/web/10-x.yml", "d: web\ne: first\n"),
        ("inventory/prod/group_vars/web/20-y.yml", "e: second\n"),
        ("inventory/prod/host_vars/web02.example.com.yml", "e: host\nurl: \"http://{{inventory_hostname}}:{{http_port}}/\"\n"),
    ]);
    let two = vars(&project, "inventory/prod", "web02.example.com");
    let wanted =
        json!({"a": "prod", "b": "web", "c": "prod", "d": "web", "e": "host", "http_port": 81, "url": "http://web02.example.com:81/"});
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&two[name], value, "{name}: {two}");
    }
    assert_eq!(vars(&project, "inventory/prod", "web03.example.com")["e"], "second");
    assert_eq!(vars(&project, "inventory/prod", "db-b")["ansible_host"], "10.0.0.9");
    insta::assert_snapshot!(project.run(&["inventory", "-i", "inventory/prod", "--graph"]).out, @r"
    @all:
      |--@ungrouped:
      |--@prod:
      |  |--@web:
      |  |  |--web01.example.com
      |  |  |--web02.example.com
      |  |  |--web03.example.com
      |  |--@db:
      |  |  |--db-a
      |  |  |--db-b
    ");
    let list: Value = serde_json::from_str(&project.run(&["inventory", "-i", "inventory/prod", "--list"]).out).unwrap();
    assert_eq!(list["all"]["children"], json!(["ungrouped", "prod"]));
    assert_eq!(list["db"]["hosts"], json!(["db-a", "db-b"]));
    assert_eq!(list["_meta"]["hostvars"]["web01.example.com"]["http_port"], 80);
}

#[test]
fn an_ini_inventory_with_everything() {
    let project = Project::new(&[(
        "hosts",
        "# a comment\nlone ansible_host=10.0.0.1   # and another\n[web]\nweb[1:2]:2222 a='x y' flag=True\n[2001:db8::5]:2200\nx1 ansible_host=2001:db8::1 e= f=\"x#y\"\n[db]\ndb[a:b]\n[prod:children]\nweb\ndb\n[web:vars]\nn=7\nmode=0644\nlist=['a', 'b']\npassword = p@ss # kept\nnumber = 5 # dropped\ntext = yes\n",
    )]);
    let web = vars(&project, "hosts", "web2");
    let wanted = json!({"ansible_port": 2222, "a": "x y", "flag": true, "n": 7, "mode": "0644", "list": ["a", "b"], "password": "p@ss # kept", "number": 5, "text": "yes"});
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&web[name], value, "{name}: {web}");
    }
    assert_eq!(vars(&project, "hosts", "2001:db8::5")["ansible_port"], 2200);
    assert_eq!(vars(&project, "hosts", "x1")["f"], "x#y");
    assert_eq!(vars(&project, "hosts", "lone"), json!({"ansible_host": "10.0.0.1"}));
}

#[test]
fn an_executable_inventory() {
    let project = Project::new(&[(
        "dynamic.sh",
        "#!/bin/sh\necho '{\"web\": {\"hosts\": [\"a\", \"b\"], \"vars\": {\"x\": 1}}, \"db\": [\"c\"], \"_meta\": {\"hostvars\": {\"a\": {\"y\": 2}}}}'\n",
    )]);
    let path = project.path().join("dynamic.sh");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(vars(&project, "dynamic.sh", "a"), json!({"x": 1, "y": 2}));
    project.write("dynamic.sh", "#!/bin/sh\necho boom >&2\nexit 3\n");
    let run = project.run(&["inventory", "-i", "dynamic.sh"]);
    assert!(run.code == 1 && run.err.contains("exit status: 3") && run.err.contains("boom"), "{}", run.err);
    project.write("dynamic.sh", "#!/bin/sh\necho '{oops'\n");
    assert!(project.run(&["inventory", "-i", "dynamic.sh"]).err.contains("something else than JSON"));
}

#[test]
fn patterns_select_hosts() {
    let project = Project::with_playbook("- hosts: all\n  tasks: []\n", &[("picked", "w1\n# not this\nd2\n")]);
    let hosts = |limit: &str| {
        let run = project.run(&["check", "site.yml", "--list-hosts", "-l", limit]);
        assert_eq!(run.code, 0, "{limit}: {}", run.err);
        run.out.lines().skip(5).map(str::trim).collect::<Vec<_>>().join(" ")
    };
    for (limit, expected) in [
        ("w1", "w1"),
        ("web:!w2", "w1 w3"),
        ("web:&all:!w1", "w2 w3"),
        ("w*", "w1 w2 w3"),
        ("~[wd]1", "w1 d1"),
        ("web[0]", "w1"),
        ("web[1:]", "w2 w3"),
        ("w1,d2", "w1 d2"),
        ("!web", "d1 d2"),
        ("@picked", "w1 d2"),
    ] {
        assert_eq!(hosts(limit), expected, "{limit}");
    }
    for (limit, message) in [
        ("nosuch", "unknown host or group `nosuch`"),
        ("wbe", "did you mean `web`?"),
        ("web:&db", "stands for no host"),
        ("~(", "it is not a regular expression"),
        ("@missing", "missing"),
        ("localhost", "no play names it"),
    ] {
        let run = project.run(&["check", "site.yml", "-l", limit]);
        assert!(run.code == 1 && run.err.contains(message), "{limit}: {}", run.err);
    }
}

#[test]
fn mistakes_in_inventories_have_a_place() {
    for (name, text, expected) in [
        ("h.yml", "all:\n  hosts:\n    - w1\n", "h.yml:3:7|must be a mapping, not a list|write `web1:` on a line of its own"),
        ("h.yml", "all:\n  hsots:\n    w1:\n", "h.yml:2:3|unknown key `hsots`|did you mean `hosts`?"),
        ("h.yml", "all:\n  hosts:\n    \"w[9:1]\":\n", "h.yml:3:5|`[9:1]`"),
        ("h.yml", "all:\n  children:\n    a: {children: {b: {children: {a: }}}}\n", "group `a` is its own child"),
        ("h.yml", "all:\n\thosts:\n", "h.yml:2|tabs"),
        ("h.ini", "[web:foo]\nx\n", "h.ini:1:1|`[web:foo]` is not a section"),
        ("h.ini", "[web]\nx \"a\n", "h.ini:2:1|quotes"),
        ("h.ini", "[web:vars]\nnothing\n", "h.ini:2:1|is not `name=value`"),
        ("h.ini", "[prod:children]\nwbe\n[web]\nx\n", "h.ini:2:1|there is no group `wbe`|did you mean `web`?"),
        ("h.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n", "encrypted with ansible-vault|soc-provision secrets set"),
    ] {
        let project = Project::new(&[(name, text)]);
        let run = project.run(&["inventory", "-i", name, "--list"]);
        assert!(run.code == 1 && expected.split('|').all(|part| run.err.contains(part)), "{text}\nexpected {expected}\n{}", run.err);
    }
}

#[test]
fn a_list_of_hosts_and_a_near_miss() {
    let project = Project::new(&[("inventory/lab.yml", HOSTS)]);
    assert_eq!(project.run(&["inventory", "-i", "h1,h2,", "--graph"]).out, "@all:\n  |--@ungrouped:\n  |  |--h1\n  |  |--h2\n");
    let run = project.run(&["inventory", "--host", "w9"]);
    assert!(run.code == 1 && run.err.contains("`w9` is not in the inventory") && run.err.contains("did you mean"), "{}", run.err);
    assert!(project.run(&["inventory", "-i", "nope.yml"]).err.contains("there is no inventory `nope.yml`"));
}
