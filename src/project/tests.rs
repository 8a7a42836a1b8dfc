//! Whole projects on disk, loaded.

use super::*;

/// A project of these files, in a directory that lives as long as the value.
pub(crate) struct Disk {
    pub(crate) directory: tempfile::TempDir,
}

impl Disk {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self { directory }
    }

    pub(crate) fn options(&self) -> LoadOptions {
        LoadOptions { cwd: self.directory.path().to_path_buf(), playbook: "prod.yml".to_owned(), ..LoadOptions::default() }
    }

    pub(crate) fn load(&self) -> Result<Project, Vec<Diagnostic>> {
        Project::load(&self.options())
    }
}

const INVENTORY: &str = "all:\n  children:\n    web:\n      hosts:\n        web[1:3]:\n    db:\n      hosts:\n        db1:\n    empty:\n";

fn project(play: &str) -> Disk {
    Disk::new(&[("inventory/prod.yml", INVENTORY), ("playbooks/prod.yml", play), ("roles/base/tasks/main.yml", "- package: nginx\n")])
}

fn messages(problems: &[Diagnostic]) -> Vec<String> {
    problems
        .iter()
        .map(|problem| {
            let at = problem.location.as_ref().map(|at| format!("{}:{}:{}: ", at.file.display(), at.line, at.column)).unwrap_or_default();
            format!("{at}{} ({})", problem.message, problem.hint.as_deref().unwrap_or_default())
        })
        .collect()
}

#[test]
fn the_inventory_of_the_playbooks_name_is_the_default() {
    let disk = project("- hosts: web:!web2\n  serial: [1, 50%]\n  roles: [base]\n");
    let project = disk.load().unwrap();
    assert_eq!(project.hosts(), ["web1", "web3"]);
    assert_eq!(project.plays[0].rollout.serial, [playbook::Size::Hosts(1), playbook::Size::Percent(50.0)]);
    assert_eq!(project.known_hosts, [disk.directory.path().join("inventory/known_hosts")]);
    assert_eq!(project.digest().len(), 64);
}

#[test]
fn all_problems_of_a_project_are_reported_at_once() {
    let disk = project(
        "- hosts: wbe\n  roles: [bsae]\n  tasks:\n    - register: x\n      shell: ls\n    - block: []\n      whne: x\n- hosts: all\n  sreial: 1\n  tasks:\n    - include_tasks: nope.yml\n",
    );
    let problems = messages(&disk.load().unwrap_err());
    for expected in [
        "playbooks/prod.yml:1:3: `hosts: wbe`: `wbe`: no host and no group has this name (did you mean `web`?)",
        "playbooks/prod.yml:2:11: there is no role `bsae` (did you mean `base`?)",
        "playbooks/prod.yml:4:7: `register` is not supported",
        "playbooks/prod.yml:5:7: `shell` is not supported (use `command`",
        "playbooks/prod.yml:7:7: unknown key `whne` in a block (did you mean `when`?)",
        "playbooks/prod.yml:9:3: unknown key `sreial` in a play (did you mean `serial`?)",
        "playbooks/prod.yml:11:22: there is no file of tasks `playbooks/nope.yml`",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected}\n{problems:#?}");
    }
    assert_eq!(problems.len(), 7, "{problems:#?}");
}

#[test]
fn limits_are_checked() {
    let disk = project("- hosts: web\n  roles: [base]\n");
    let limited = |limit: &str| Project::load(&LoadOptions { limit: Some(limit.to_owned()), ..disk.options() });
    assert_eq!(limited("web2,db1").unwrap().hosts(), ["web2"]);
    assert!(messages(&limited("web9").unwrap_err())[0].contains("unknown host or group `web9` in `--limit`"));
    assert!(messages(&limited("wbe1").unwrap_err())[0].contains("did you mean `web1`?"));
    assert!(messages(&limited("empty").unwrap_err())[0].contains("stands for no host"));
    assert!(messages(&limited("db1").unwrap_err())[0].contains("leaves no host"));
    std::fs::write(disk.directory.path().join("retry"), "web1\nweb3\n").unwrap();
    assert_eq!(limited("@retry").unwrap().hosts(), ["web1", "web3"]);
}

#[test]
fn an_empty_group_is_a_warning() {
    let project = project("- hosts: empty\n  roles: [base]\n").load().unwrap();
    assert!(project.warnings[0].message.contains("stands for no host"), "{:?}", project.warnings);
}

#[test]
fn roles_that_need_each_other_are_an_error() {
    let disk = Disk::new(&[
        ("inventory/prod.yml", INVENTORY),
        ("playbooks/prod.yml", "- hosts: all\n  roles: [a]\n"),
        ("roles/a/meta/main.yml", "dependencies: [b]\n"),
        ("roles/b/meta/main.yml", "dependencies:\n  - role: a\n"),
    ]);
    assert!(messages(&disk.load().unwrap_err())[0].contains("role `a` depends on itself: `a` -> `b` -> `a`"));
}

#[test]
fn a_host_list_is_an_inventory_and_imports_are_followed() {
    let disk = Disk::new(&[
        ("prod.yml", "- import_playbook: other.yml\n- hosts: a\n  tasks: []\n"),
        ("other.yml", "- hosts: '{{who}}'\n  tasks: []\n"),
    ]);
    let options = LoadOptions { inventories: vec!["a,b,".to_owned()], extra_vars: vec!["who=b".to_owned()], ..disk.options() };
    let project = Project::load(&options).unwrap();
    assert_eq!(project.plays.iter().map(|play| play.hosts.join(" ")).collect::<Vec<_>>(), ["b", "a"]);
    std::fs::write(disk.directory.path().join("other.yml"), "- import_playbook: prod.yml\n").unwrap();
    assert!(messages(&Project::load(&options).unwrap_err())[0].contains("imports itself"));
}

#[test]
fn variables_come_from_beside_inventory_and_playbook() {
    let disk = Disk::new(&[
        ("inventory/prod/hosts.yml", INVENTORY),
        ("inventory/prod/group_vars/all.yml", "a: 1\nb: 1\n"),
        ("inventory/prod/group_vars/web/one.yml", "b: 2\n"),
        ("inventory/prod/host_vars/web1.yaml", "c: 3\n"),
        ("playbooks/group_vars/wbe.yml", "d: 4\n"),
        ("playbooks/prod.yml", "- hosts: all\n  tasks: []\n"),
    ]);
    std::fs::write(disk.directory.path().join("playbooks/group_vars/webb.yml"), "x: 1\n").unwrap();
    let project = disk.load().unwrap();
    let names: Vec<String> =
        project.host_vars("web1").iter().flat_map(|source| source.vars.keys().map(|name| format!("{:?}.{name}", source.layer))).collect();
    assert_eq!(names, ["GroupVarsAllInventory.a", "GroupVarsAllInventory.b", "GroupVarsInventory.b", "HostVarsInventory.c"]);
    assert_eq!(project.warnings.len(), 1, "{:?}", project.warnings);
    assert_eq!(project.warnings[0].hint.as_deref(), Some("did you mean `web`?"));
}
