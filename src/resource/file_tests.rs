//! Kinds of files, run for real in temporary directories.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::resource::observe::{Answer, Question};
use crate::resource::plan::{Effect, INVALID, MOVED_ON, Undecided};
use crate::resource::testing::{Bench, absent, shown};

fn dir() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    (dir, path)
}

fn left_overs(dir: &str) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("soc-")).collect()
}

#[test]
fn copy_creates_updates_and_adjusts() {
    let (_guard, dir) = dir();
    let bench = Bench::default();
    let path = format!("{dir}/a 'b' $(id)");
    let yaml = |content: &str, mode: &str| serde_json::json!({ "copy": { "dest": path, "content": content, "mode": mode } }).to_string();
    let plan = bench.converge(&yaml("one\n'two' $x\\n", "0644"));
    assert_eq!(shown(&plan), ["content: - -> \"one\\n'two' $x\\\\n\""]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n'two' $x\\n");
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.uid(), meta.gid()), (0o644, 0, 0));
    assert_eq!(shown(&bench.converge(&yaml("one\n'two' $x\\n", "0600"))), ["mode: 0644 -> 0600"]);
    let plan = bench.converge(&yaml("", "4750"));
    assert_eq!(shown(&plan), [format!("content: <{path}> -> \"\""), "mode: 0600 -> 4750".to_owned()]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o4750);
    let yaml = serde_json::json!({ "copy": { "dest": path, "content": "x", "owner": 65534, "group": "daemon" } }).to_string();
    bench.converge(&yaml);
    assert_eq!(std::fs::metadata(&path).unwrap().uid(), 65534);
    bench.converge(&serde_json::json!({ "copy": { "dest": path, "state": "absent" } }).to_string());
    assert!(std::fs::metadata(&path).is_err());
    assert_eq!(left_overs(&dir), Vec::<String>::new());
}

#[test]
fn a_write_is_refused_over_what_was_not_planned_on() {
    let (_guard, dir) = dir();
    let bench = Bench::default();
    let resource = bench.build(&format!("copy: {{dest: {dir}/x, content: new}}"));
    let plan = bench.plan(&*resource, &bench.observe(&*resource)).unwrap();
    std::fs::write(format!("{dir}/x"), "by hand").unwrap();
    assert_eq!(bench.apply(&plan).0, MOVED_ON);
    let plan = bench.plan(&*resource, &bench.observe(&*resource)).unwrap();
    std::fs::write(format!("{dir}/x"), "by hand again").unwrap();
    assert_eq!(bench.apply(&plan).0, MOVED_ON);
    assert_eq!(std::fs::read_to_string(format!("{dir}/x")).unwrap(), "by hand again");
}

#[test]
fn an_invalid_file_is_not_swapped_in_and_a_backup_is_kept() {
    let (_guard, dir) = dir();
    let bench = Bench::default();
    std::fs::write(format!("{dir}/x"), "good").unwrap();
    let yaml = |content: &str| format!("copy: {{dest: {dir}/x, content: {content}, validate: \"grep -q good '%s'\", backup: true}}");
    let resource = bench.build(&yaml("bad"));
    let plan = bench.plan(&*resource, &bench.observe(&*resource)).unwrap();
    assert_eq!(bench.apply(&plan).0, INVALID);
    assert_eq!(std::fs::read_to_string(format!("{dir}/x")).unwrap(), "good");
    bench.converge(&yaml("goodbye"));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
    assert_eq!(left_overs(&dir), Vec::<String>::new());
    assert!(bench.try_build(&format!("copy: {{dest: {dir}/x, content: x, validate: visudo}}")).is_err());
    let broken = bench.build(&format!("copy: {{dest: {dir}/y, content: x, validate: \"if then %s\"}}"));
    let plan = bench.plan(&*broken, &bench.observe(&*broken)).unwrap();
    assert_eq!(bench.apply(&plan).0, INVALID);
}

#[test]
fn left_overs_of_a_killed_run_go_with_the_next_write() {
    let (_guard, dir) = dir();
    std::fs::write(format!("{dir}/.x.soc-tmp-1"), "half").unwrap();
    Bench::default().converge(&format!("copy: {{dest: {dir}/x, content: new}}"));
    assert_eq!(left_overs(&dir), Vec::<String>::new());
}

#[test]
fn bytes_trees_and_large_files() {
    let (_guard, dir) = dir();
    let mut bench = Bench::default();
    let binary: Vec<u8> = (0..=255).collect();
    bench.files.insert("bin".into(), binary.clone());
    bench.files.insert("large".into(), vec![7; (1 << 20) + 1]);
    bench.files.insert("tree/a/b.conf".into(), b"b".to_vec());
    bench.files.insert("tree/c".into(), b"c".to_vec());
    bench.converge(&format!("copy: {{src: bin, dest: {dir}/}}"));
    assert_eq!(std::fs::read(format!("{dir}/bin")).unwrap(), binary);
    let plan = bench.converge(&format!("copy: {{src: large, dest: {dir}/large, mode: \"0640\"}}"));
    assert_eq!(plan.steps[0].uploads.len(), 1);
    assert_eq!(std::fs::metadata(format!("{dir}/large")).unwrap().permissions().mode() & 0o7777, 0o640);
    let parts = bench.try_build(&format!("copy: {{src: tree, dest: {dir}}}")).unwrap();
    let ids: Vec<String> = parts.iter().map(|part| part.id().to_string().replace(&dir, "")).collect();
    assert_eq!(ids, ["directory[/tree]", "directory[/tree/a]", "copy[/tree/a/b.conf]", "copy[/tree/c]"]);
    for part in &parts {
        assert_eq!(bench.apply(&bench.plan(&**part, &bench.observe(&**part)).unwrap()), (0, String::new()));
    }
    assert_eq!(std::fs::read_to_string(format!("{dir}/tree/a/b.conf")).unwrap(), "b");
    assert!(bench.try_build(&format!("copy: {{src: nope, dest: {dir}}}")).unwrap_err().message.contains("no `nope`"));
}

#[test]
fn the_directory_must_be_there_or_on_its_way() {
    let bench = Bench::default();
    let yaml = "copy: {dest: /nowhere/x, content: new}";
    let resource = bench.build(yaml);
    let Err(Undecided::Refused(reason)) = bench.plan(&*resource, &absent(&*resource)) else { panic!() };
    assert!(reason.contains("directory: /nowhere"), "{reason}");
    for effect in [Effect::Path("/nowhere".into()), Effect::Package("nginx".into())] {
        let bench = Bench::default().pending(effect);
        assert_eq!(shown(&bench.plan(&*resource, &absent(&*resource)).unwrap()), ["content: - -> \"new\""]);
    }
    let bench = Bench::default().pending(Effect::Path("/nowhere/x".into()));
    assert!(matches!(bench.plan(&*resource, &absent(&*resource)), Err(Undecided::After(_))));
    let mut seen = absent(&*resource);
    seen.insert(Question::Path("/nowhere/x".into()), Answer::Failed("no way".into()));
    assert_eq!(Bench::default().plan(&*resource, &seen).unwrap_err(), Undecided::Unknown("no way".into()));
    let (_guard, dir) = dir();
    let resource = bench.build(&format!("copy: {{dest: {dir}, content: new}}"));
    assert!(matches!(Bench::default().plan(&*resource, &bench.observe(&*resource)), Err(Undecided::Refused(_))));
}

#[test]
fn a_template_with_secrets_is_compared_by_its_record() {
    let (_guard, dir) = dir();
    let mut bench = Bench::default();
    bench.secret("db", "hunter2-and-more");
    bench.templates.insert("t".into(), format!("password={}\n", crate::secret::SecretName::parse("db").unwrap().marker()));
    let yaml = format!("template: {{src: t, dest: {dir}/t, mode: \"0600\"}}");
    let resource = bench.build(&yaml);
    assert_eq!(resource.secrets().len(), 1);
    let plan = bench.converge(&yaml);
    assert!(shown(&plan)[0].contains("[secret db]"), "{:?}", shown(&plan));
    assert_eq!(std::fs::read_to_string(format!("{dir}/t")).unwrap(), "password=hunter2-and-more\n");
    bench.secret("db", "hunter3-and-more");
    bench.converge(&yaml);
    std::fs::write(format!("{dir}/t"), "by hand").unwrap();
    bench.converge(&yaml);
    assert_eq!(std::fs::read_to_string(format!("{dir}/t")).unwrap(), "password=hunter3-and-more\n");
    let error = bench.try_build(&format!("template: {{src: t, dest: {dir}/t}}")).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("mode"));
    std::fs::remove_file(crate::resource::interview::secret_record(&format!("{dir}/t"))).unwrap();
}

#[test]
fn directories_links_and_removal() {
    let (_guard, dir) = dir();
    let bench = Bench::default();
    bench.converge(&format!("directory: {dir}/a/b"));
    bench.converge(&format!("directory: {{path: {dir}/a/b, mode: \"2750\", group: daemon}}"));
    assert_eq!(std::fs::metadata(format!("{dir}/a/b")).unwrap().permissions().mode() & 0o7777, 0o2750);
    std::fs::write(format!("{dir}/a/b/c"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", format!("{dir}/a/b/l")).unwrap();
    let plan = bench.converge(&format!("directory: {{path: {dir}/a, owner: daemon, recurse: true}}"));
    assert_eq!(plan.changes.len(), 2);
    assert_eq!(std::fs::metadata("/etc/passwd").unwrap().uid(), 0);
    bench.converge(&format!("file: {{path: {dir}/l, state: link, src: a/b}}"));
    bench.converge(&format!("file: {{path: {dir}/l, state: link, src: a}}"));
    bench.converge(&format!("file: {{path: {dir}/t, state: touch, mode: \"0600\"}}"));
    bench.converge(&format!("file: {{path: {dir}/t, mode: \"0640\", group: daemon}}"));
    let refused = |yaml: String| {
        let resource = bench.build(&yaml);
        matches!(bench.plan(&*resource, &bench.observe(&*resource)), Err(Undecided::Refused(_)))
    };
    assert!(refused(format!("file: {{path: {dir}/t, state: link, src: a}}")));
    assert!(refused(format!("file: {{path: {dir}/a, state: link, src: b, force: true}}")));
    assert!(refused(format!("file: {{path: {dir}/nowhere}}")));
    assert!(refused(format!("directory: {dir}/t")));
    bench.converge(&format!("file: {{path: {dir}/t, state: link, src: a, force: true}}"));
    bench.converge(&format!("file: {{path: {dir}/a, state: absent}}"));
    bench.converge(&format!("file: {{path: {dir}/d, state: directory, mode: \"0700\"}}"));
    assert_eq!(left_overs(&dir), Vec::<String>::new());
    for path in ["/", "/etc", "/usr/", "/var/lib"] {
        assert!(bench.try_build(&format!("file: {{path: {path}, state: absent}}")).is_err(), "{path}");
    }
    let error = bench.try_build("file: {path: /x, mode: 644}").unwrap_err();
    assert!(error.message.contains("in quotes") && error.field.as_deref() == Some("mode"), "{error:?}");
}

#[test]
fn lines_are_replaced_inserted_and_removed_as_ansible_does() {
    let (_guard, dir) = dir();
    let bench = Bench::default();
    let path = format!("{dir}/sshd");
    let start = "# head\n#PermitRootLogin yes\nPort 22\nMatch all\n";
    let cases = [
        (r#"regexp: "^#?PermitRootLogin", line: PermitRootLogin no"#, "# head\nPermitRootLogin no\nPort 22\nMatch all\n"),
        ("line: UseDNS no", "# head\n#PermitRootLogin yes\nPort 22\nMatch all\nUseDNS no\n"),
        (r#"line: UseDNS no, insertbefore: "^Match""#, "# head\n#PermitRootLogin yes\nPort 22\nUseDNS no\nMatch all\n"),
        (r#"line: UseDNS no, insertafter: "^Port""#, "# head\n#PermitRootLogin yes\nPort 22\nUseDNS no\nMatch all\n"),
        ("line: top, insertbefore: BOF", "top\n# head\n#PermitRootLogin yes\nPort 22\nMatch all\n"),
        (
            r#"regexp: "^(Po)(?P<rest>rt) \\d+", line: '\1\g<rest> 2222', backrefs: true"#,
            "# head\n#PermitRootLogin yes\nPort 2222\nMatch all\n",
        ),
        (r#"regexp: "^#", state: absent"#, "Port 22\nMatch all\n"),
        ("search_string: Port, line: Port 1", "# head\n#PermitRootLogin yes\nPort 1\nMatch all\n"),
    ];
    for (arguments, wanted) in cases {
        std::fs::write(&path, start).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&path, Some(0), Some(1)).unwrap();
        bench.converge(&format!("lineinfile: {{path: {path}, {arguments}}}"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), wanted, "{arguments}");
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!((meta.permissions().mode() & 0o7777, meta.gid()), (0o640, 1));
    }
    bench.converge(&format!("lineinfile: {{path: {dir}/new, line: x, create: true, mode: \"0600\"}}"));
    assert_eq!(std::fs::read_to_string(format!("{dir}/new")).unwrap(), "x\n");
    let resource = bench.build(&format!("lineinfile: {{path: {dir}/nope, line: x}}"));
    assert!(matches!(bench.plan(&*resource, &bench.observe(&*resource)), Err(Undecided::Refused(_))));
    let resource = bench.build(&format!("lineinfile: {{path: {dir}/nope, line: x, state: absent}}"));
    assert!(bench.plan(&*resource, &bench.observe(&*resource)).unwrap().is_in_sync());
    let resource = bench.build(&format!("lineinfile: {{path: {path}, line: other}}"));
    let plan = bench.plan(&*resource, &bench.observe(&*resource)).unwrap();
    std::fs::write(&path, "meanwhile\n").unwrap();
    assert_eq!(bench.apply(&plan).0, MOVED_ON);
    let error = bench.try_build(&format!("lineinfile: {{path: {path}, line: other, regexp: \"(?=x)\"}}")).unwrap_err();
    assert!(error.message.contains("regular expression"), "{error:?}");
}

#[test]
fn a_full_disk_leaves_the_old_file_and_says_so() {
    let (_guard, dir) = dir();
    let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs", &dir]).status();
    if !mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this test needs to mount a tmpfs");
        return;
    }
    std::fs::write(format!("{dir}/x"), "old").unwrap();
    let bench = Bench::default();
    let mut outcomes = Vec::new();
    for mode in ["0644", "0600"] {
        let yaml = serde_json::json!({ "copy": { "dest": format!("{dir}/x"), "content": "y".repeat(100_000), "mode": mode } }).to_string();
        let resource = bench.build(&yaml);
        outcomes.push(bench.apply(&bench.plan(&*resource, &bench.observe(&*resource)).unwrap()));
    }
    let (content, rest) = (std::fs::read_to_string(format!("{dir}/x")), left_overs(&dir));
    assert!(std::process::Command::new("umount").arg(&dir).status().unwrap().success());
    for (status, stderr) in outcomes {
        assert_eq!(status, 1);
        assert!(stderr.contains("No space left on device"), "{stderr}");
    }
    assert_eq!((content.unwrap().as_str(), rest), ("old", Vec::new()));
}
