//! The interview against this machine's shells and recorded output.

use super::*;
use crate::resource::observe::{PathKind, RawOutput};
use crate::secret::Vault;

const NONCE: &str = "n0123456789abcdef";

fn run(shell: &str, questions: &[Question]) -> Observations {
    let code = script(questions, NONCE).fill(&Vault::default()).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), code.as_bytes()).unwrap();
    let output = std::process::Command::new(shell).arg(file.path()).stdin(std::process::Stdio::null()).output().unwrap();
    parse(questions, NONCE, &output.stdout)
}

fn both(questions: &[Question], check: impl Fn(&Observations)) {
    for shell in ["/bin/sh", "/bin/bash"] {
        check(&run(shell, questions));
    }
}

#[test]
fn paths_digests_and_contents_of_the_strangest_names() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["plain", "a b", "new\nline", "quote'\"$(id)`", "-dash", "glob*?[", "back\\slash", "\u{e4}\u{f6}", " -> arrow"];
    let path = |name: &str| format!("{}/{name}", dir.path().display());
    let body = |index: usize| format!("\nn0123/ stat0 0\nn0123 end\n\0 {index}\n").into_bytes();
    for (index, name) in names.iter().enumerate() {
        std::fs::write(path(name), body(index)).unwrap();
    }
    std::os::unix::fs::symlink("to -> \n there", path("link -> x")).unwrap();
    std::fs::create_dir(path("dir")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    std::fs::write(path("large"), vec![0; (1 << 20) + 1]).unwrap();
    let others = ["link -> x", "dir", "fifo", "large", "nowhere", "plain/below", "nowhere\n'x"];
    let mut questions = Vec::new();
    for name in names.iter().chain(&others) {
        questions.extend([Question::Path(path(name)), Question::Digest(path(name)), Question::Content(path(name))]);
    }
    both(&questions, |seen| {
        for (index, name) in names.iter().enumerate() {
            let Some(Answer::Path(Some(state))) = seen.get(&Question::Path(path(name))) else { panic!("{name}") };
            assert_eq!((state.kind, state.size), (PathKind::File, body(index).len() as u64));
            assert_eq!(seen.get(&Question::Digest(path(name))), Some(&Answer::Digest(Some(sha256(&body(index))))), "{name}");
            assert_eq!(seen.get(&Question::Content(path(name))), Some(&Answer::Content(Some(body(index)))), "{name}");
        }
        let Some(Answer::Path(Some(link))) = seen.get(&Question::Path(path("link -> x"))) else { panic!() };
        assert_eq!((link.kind, link.target.as_deref()), (PathKind::Link, Some("to -> \n there")));
        let Some(Answer::Path(Some(fifo))) = seen.get(&Question::Path(path("fifo"))) else { panic!() };
        assert_eq!(fifo.kind, PathKind::Other);
        for name in ["nowhere", "plain/below", "nowhere\n'x"] {
            assert_eq!(seen.get(&Question::Path(path(name))), Some(&Answer::Path(None)), "{name}");
            assert_eq!(seen.get(&Question::Content(path(name))), Some(&Answer::Content(None)), "{name}");
        }
        for name in ["dir", "fifo", "nowhere", "link -> x"] {
            assert_eq!(seen.get(&Question::Digest(path(name))), Some(&Answer::Digest(None)), "{name}");
        }
        for name in ["dir", "fifo", "large"] {
            assert!(matches!(seen.get(&Question::Content(path(name))), Some(Answer::Failed(_))), "{name}");
        }
    });
}

#[test]
fn what_cannot_be_told_is_not_absent() {
    // A link to itself cannot be looked through: ELOOP.
    let dir = tempfile::tempdir().unwrap();
    let own = format!("{}/own", dir.path().display());
    std::os::unix::fs::symlink(&own, &own).unwrap();
    let below = format!("{own}/below");
    let nowhere = format!("{}/nowhere", dir.path().display());
    let questions = [
        Question::Path(nowhere.clone()),
        Question::Path(below.clone()),
        Question::Digest(below.clone()),
        Question::Digest(nowhere.clone()),
    ];
    both(&questions, |seen| {
        assert_eq!(seen.get(&Question::Path(nowhere.clone())), Some(&Answer::Path(None)));
        assert_eq!(seen.get(&Question::Digest(nowhere.clone())), Some(&Answer::Digest(None)));
        assert!(matches!(seen.get(&Question::Path(below.clone())), Some(Answer::Failed(_))));
        assert!(matches!(seen.get(&Question::Digest(below.clone())), Some(Answer::Failed(_))));
    });
}

#[test]
fn five_hundred_paths_are_one_stat_and_a_cut_output_is_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<String> = (0..500).map(|index| format!("{}/{index:0>40}", dir.path().display())).collect();
    for path in &paths {
        std::fs::write(path, path).unwrap();
    }
    let questions: Vec<Question> = paths.iter().flat_map(|path| [Question::Path(path.clone()), Question::Digest(path.clone())]).collect();
    let shown = script(&questions, NONCE).shown();
    assert_eq!((shown.matches("stat --printf").count(), shown.matches("sha256sum").count()), (1, 1));
    both(&questions, |seen| {
        for path in &paths {
            assert_eq!(seen.get(&Question::Digest(path.clone())), Some(&Answer::Digest(Some(sha256(path.as_bytes())))));
        }
    });
    let cut = parse(&questions, NONCE, format!("\n{NONCE} stat0\nx\n{NONCE}/ digest0 0\n\n{NONCE} end\n").as_bytes());
    assert!(questions.iter().all(|question| matches!(cut.get(question), Some(Answer::Failed(_)))));
    let many: Vec<Question> = (0..6000).map(|index| Question::Path(format!("/nowhere/{index:0>50}"))).collect();
    assert!(script(&many, NONCE).shown().matches("stat --printf").count() > 1);
    let seen = run("/bin/sh", &many);
    assert!(many.iter().all(|question| seen.get(question) == Some(&Answer::Path(None))));
}

#[test]
fn raw_fragments_cannot_disturb_each_other() {
    let raw = |key: &str, code: &str| Question::Raw { key: key.to_owned(), script: Script::new().user_code(code) };
    let questions = [
        raw("syntax", "if then"),
        raw("exit", "echo one; exit 7"),
        raw("stdin", "cat; echo two"),
        raw("fd", "echo fake >&3"),
        raw("fine", "printf 'three\\n\\n'"),
        Question::Path("/".to_owned()),
    ];
    both(&questions, |seen| {
        let told = |question: &Question| match seen.get(question) {
            Some(Answer::Raw(RawOutput { status, stdout })) => (*status, stdout.clone()),
            other => panic!("{question:?}: {other:?}"),
        };
        assert_ne!(told(&questions[0]).0, 0);
        assert_eq!(told(&questions[1]), (7, "one".to_owned()));
        assert_eq!(told(&questions[2]), (0, "two".to_owned()));
        assert_eq!(told(&questions[3]).1, "");
        assert_eq!(told(&questions[4]), (0, "three".to_owned()));
        assert!(matches!(seen.get(&questions[5]), Some(Answer::Path(Some(_)))));
    });
}

#[test]
fn the_system_answers() {
    let questions = [
        Question::Package("dpkg".into()),
        Question::Package("no-such-package".into()),
        Question::User("root".into()),
        Question::User("no-such-user".into()),
        Question::Group("root".into()),
        Question::Group("no-such-group".into()),
        Question::Sysctl("kernel.ostype".into()),
        Question::Sysctl("net.no.such".into()),
        Question::Module("no_such_module".into()),
        Question::Package("$(id)".into()),
        Question::Path("relative".into()),
        Question::Listening,
    ];
    both(&questions, |seen| {
        let Some(Answer::Package(Some(dpkg))) = seen.get(&questions[0]) else { panic!("{:?}", seen.get(&questions[0])) };
        assert!(dpkg.is_installed());
        assert_eq!(seen.get(&questions[1]), Some(&Answer::Package(None)));
        let Some(Answer::User(Some(root))) = seen.get(&questions[2]) else { panic!("{:?}", seen.get(&questions[2])) };
        assert_eq!((root.uid, root.group.as_str(), root.home.as_str()), (0, "root", "/root"));
        assert_eq!(seen.get(&questions[3]), Some(&Answer::User(None)));
        assert!(matches!(seen.get(&questions[4]), Some(Answer::Group(Some(group))) if group.gid == 0));
        assert_eq!(seen.get(&questions[5]), Some(&Answer::Group(None)));
        assert_eq!(seen.get(&questions[6]), Some(&Answer::Line(Some("Linux".into()))));
        assert_eq!(seen.get(&questions[7]), Some(&Answer::Line(None)));
        assert_eq!(seen.get(&questions[8]), Some(&Answer::Line(None)));
        assert!(matches!(seen.get(&questions[9]), Some(Answer::Failed(_))));
        assert!(matches!(seen.get(&questions[10]), Some(Answer::Failed(_))));
    });
}

#[test]
fn secret_files_are_compared_on_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("{}/{name}", dir.path().display());
    for name in ["same", "differs", "unknown"] {
        std::fs::write(path(name), "hunter2").unwrap();
    }
    let print = "f".repeat(64);
    let names = ["same", "differs", "unknown", "nowhere"];
    let questions: Vec<Question> = names.iter().map(|name| Question::SecretFile(path(name))).collect();
    let records = path("records");
    std::fs::create_dir(&records).unwrap();
    let record = |name: &str, sum: &str| {
        std::fs::write(secret_record(&path(name)).replace(SECRET_RECORDS, &records), format!("{print}\n{sum}\n")).unwrap();
    };
    record("same", &sha256(b"hunter2"));
    record("differs", &sha256(b"hunter3"));
    let code = script(&questions, NONCE).fill(&Vault::default()).unwrap().replace(SECRET_RECORDS, &records);
    for shell in ["/bin/sh", "/bin/bash"] {
        let output = std::process::Command::new(shell).arg("-c").arg(&code).output().unwrap().stdout;
        assert!(!String::from_utf8_lossy(&output).contains(&sha256(b"hunter2")));
        let seen = parse(&questions, NONCE, &output);
        let state = |index: usize| match seen.get(&questions[index]) {
            Some(Answer::SecretFile(state)) => state.clone().map(|state| (state.recorded, state.intact)),
            other => panic!("{other:?}"),
        };
        assert_eq!(state(0), Some((Some(print.clone()), true)));
        assert_eq!(state(1), Some((Some(print.clone()), false)));
        assert_eq!(state(2), Some((None, false)));
        assert_eq!(state(3), None);
    }
}

#[test]
fn recorded_docker_and_systemd_output() {
    let image = |name: &str| Question::Image(name.to_owned());
    let questions = [
        Question::Containers,
        image("docker.io/library/nginx"),
        image("ghcr.io/x/y:1@sha256:abc"),
        image("nope"),
        Question::DockerInfo,
        Question::Unit("ssh.service".into()),
        Question::Unit("nope.service".into()),
        Question::Network("lab".into()),
    ];
    let section =
        |name: &str, stdout: &str, status: i32, stderr: &str| format!("\n{NONCE} {name}\n{stdout}\n{NONCE}/ {name} {status}\n{stderr}");
    let output = [
        section("unit0", "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nNeedDaemonReload=no\n\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\nNeedDaemonReload=no\n", 0, ""),
        section("docker-info", r#"{"ID":"","ServerErrors":["Cannot connect"]}"#, 1, "errors"),
        section("containers", r#"[{"Id":"1","Config":{"Env":["A=secret=1","B"]}}]"#, 0, ""),
        section("images0", r#"[{"Id":"sha256:1","RepoTags":["nginx:latest"]},{"Id":"sha256:2","RepoTags":[],"RepoDigests":["ghcr.io/x/y@sha256:abc"]}]"#, 1, "Error: No such image: nope"),
        section("networks0", "[]", 1, "Error response from daemon: permission denied"),
        format!("\n{NONCE} end\n"),
    ]
    .concat();
    let seen = parse(&questions, NONCE, output.as_bytes());
    let Some(Answer::Json(Some(containers))) = seen.get(&Question::Containers) else { panic!() };
    assert!(!containers.to_string().contains("secret"));
    assert_eq!(containers[0]["Config"]["Env"][0], format!("A=sha256:{}", sha256(b"secret=1")));
    assert!(matches!(seen.get(&questions[1]), Some(Answer::Json(Some(found))) if found["Id"] == "sha256:1"));
    assert!(matches!(seen.get(&questions[2]), Some(Answer::Json(Some(found))) if found["Id"] == "sha256:2"));
    assert_eq!(seen.get(&questions[3]), Some(&Answer::Json(None)));
    assert_eq!(seen.get(&questions[4]), Some(&Answer::Json(None)));
    assert!(matches!(seen.get(&questions[5]), Some(Answer::Unit(Some(unit))) if unit.active == "active" && unit.file == "enabled"));
    assert_eq!(seen.get(&questions[6]), Some(&Answer::Unit(None)));
    assert!(matches!(seen.get(&questions[7]), Some(Answer::Failed(_))));
}

#[test]
fn what_paths_carry_besides_is_told_of_the_right_one() {
    use crate::resource::observe::Mark;
    let names = ["/x/a", "/x/a b", "/x/\u{e4}\"\n", "/x/d", "/x/link"];
    let questions: Vec<Question> = names.iter().map(|name| Question::Path((*name).to_owned())).collect();
    let stat = names.iter().enumerate().fold(String::new(), |text, (index, name)| {
        let mode = ["81a4", "81a4", "81a4", "41ed", "a1ff"][index];
        format!("{text}{mode}\0{0}\0{0}\0{0}\0root\0root\0{name}\0{name}\0{1}\0", 0, 1)
    });
    let marks = "-rw-rw-r--+ 1 root root 0 Nov 28 04:18 \"/x/\\303\\244\\\"\\n\"\ndrwxr-xr-x+ 3 root root 4096 Nov 28 04:18 \"/x/d\"\n\
        ----i---------e------- /x/a b\n-----a--------e------- /x/d\n/x/a b cap_net_raw=ep\n/x/a = cap_setuid+ep\n/x/link cap_setuid=ep\n";
    let output = format!("\n{NONCE} stat0\n{stat}\n{NONCE}/ stat0 0\n\n{NONCE} marks0\n{marks}\n{NONCE}/ marks0 0\n\n{NONCE} end\n");
    let seen = parse(&questions, NONCE, output.as_bytes());
    let told: Vec<Vec<Mark>> = questions
        .iter()
        .map(|question| match seen.get(question) {
            Some(Answer::Path(Some(state))) => state.marks.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    let capable = |which: &str| Mark::Capabilities(which.to_owned());
    let wanted = [
        vec![capable("cap_setuid+ep")],
        vec![Mark::Immutable, capable("cap_net_raw=ep")],
        vec![Mark::Acl],
        vec![Mark::Acl, Mark::AppendOnly],
        Vec::new(),
    ];
    assert_eq!(told, wanted);
}
