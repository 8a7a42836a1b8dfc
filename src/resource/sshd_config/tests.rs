//! The kind's plans, and the probe with a real sshd where there is one.

use super::*;
use crate::resource::own_file::testing::{bare, plan, present, run};
use crate::resource::source_text::testing::{build, refusal};

fn resource(options: Value) -> Box<dyn Resource> {
    build::<SshdConfig>(serde_json::json!({ "options": options })).unwrap()
}

const OPTIONS: &str =
    "##now\nport 22\npermitrootlogin yes\n##then\nport 22\npermitrootlogin no\n##ours\nport 22\npermitrootlogin no\n##set\n##end";

#[test]
fn a_change_is_guarded_and_reloads() {
    let resource = resource(serde_json::json!({ "PermitRootLogin": "no" }));
    let planned = plan(&*resource, &bare(&*resource, OPTIONS)).unwrap();
    assert_eq!(planned.changes[0], Change::of("permitrootlogin", "yes", "no"));
    assert!(planned.validate.is_some() && planned.steps.len() == 2);
    assert!(matches!(&planned.guard.unwrap().kind, GuardKind::Files { paths, .. } if paths == &[PATH]));
}

#[test]
fn in_sync_by_effect_and_file() {
    let resource = resource(serde_json::json!({ "PermitRootLogin": "no" }));
    let same = OPTIONS.replace("login yes", "login no");
    let mut observed = bare(&*resource, &same);
    assert_eq!(plan(&*resource, &observed).unwrap().changes.len(), 1, "the file is missing");
    let content = options::render(serde_json::json!({ "PermitRootLogin": "no" }).as_object().unwrap()).unwrap();
    present(&mut observed, PATH, 0o644, &content);
    assert!(plan(&*resource, &observed).unwrap().is_in_sync());
}

#[test]
fn its_absence_is_guarded_and_says_what_becomes_of_the_options() {
    let gone = build::<SshdConfig>(serde_json::json!({ "state": "absent" })).unwrap();
    assert!(plan(&*gone, &bare(&*gone, OPTIONS)).unwrap().is_in_sync());
    let mut observed = bare(&*gone, OPTIONS);
    present(&mut observed, PATH, 0o644, "PermitRootLogin yes\n");
    let planned = plan(&*gone, &observed).unwrap();
    assert_eq!(planned.changes, [Change::remove("file", PATH), Change::of("permitrootlogin", "yes", "no")]);
    assert!(planned.guard.is_some() && planned.validate.is_some());
    assert!(refusal::<SshdConfig>(serde_json::json!({ "state": "absent", "options": { "Port": 22 } })).contains("cannot go with"));
}

#[test]
fn an_option_that_another_file_sets_first_is_refused_by_name() {
    let resource = resource(serde_json::json!({ "PermitRootLogin": "no" }));
    let shadowed = OPTIONS.replace("##then\nport 22\npermitrootlogin no", "##then\nport 22\npermitrootlogin yes");
    let shadowed = shadowed.replace("##set\n", "##set\n/etc/ssh/sshd_config.d/01-cloud.conf:3:PermitRootLogin yes\n");
    let Err(Undecided::Refused(reason)) = plan(&*resource, &bare(&*resource, &shadowed)) else { panic!("must be refused") };
    assert!(reason.contains("/etc/ssh/sshd_config.d/01-cloud.conf:3; take it out"), "{reason}");
    let invalid = OPTIONS.replace("##then\nport 22\n", "##then\nline 1: Bad option\n##invalid\n");
    assert!(matches!(plan(&*resource, &bare(&*resource, &invalid)), Err(Undecided::Refused(reason)) if reason.contains("Bad option")));
    assert!(matches!(plan(&*resource, &bare(&*resource, "##now\nmount: denied")), Err(Undecided::Unknown(_))));
}

#[test]
fn a_real_sshd_answers_the_probe() {
    let possible = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program).args(arguments).output().is_ok_and(|out| out.status.success())
    };
    if !possible("unshare", &["-m", "true"])
        || !std::path::Path::new("/etc/ssh/sshd_config.d").is_dir()
        || !std::path::Path::new("/usr/sbin/sshd").exists()
    {
        eprintln!("skipped: needs root, unshare and sshd");
        return;
    }
    let options = serde_json::json!({ "PermitRootLogin": "prohibit-password", "MaxAuthTries": 2, "AcceptEnv": ["FOO"] });
    let content = options::render(options.as_object().unwrap()).unwrap();
    let (status, printed) = run(&with_candidate(&content, PROBE));
    assert_eq!(status, 0, "{printed}");
    let probed = Probed::parse(&printed).unwrap();
    assert_eq!(probed.section("then").unwrap()["maxauthtries"], ["2"]);
    assert_eq!(probed.section("ours").unwrap()["permitrootlogin"], ["without-password"]);
    assert!(!std::path::Path::new(PATH).exists(), "the probe writes nothing");
    let drop_in = SshdDropIn {
        file: OwnFile::readable(PATH, content.clone()),
        keys: vec!["maxauthtries".into()],
        wanted: true,
        window: Duration::from_secs(60),
    };
    assert_eq!(drop_in.effective_changes(&probed).unwrap(), [Change::of("maxauthtries", "6", "2")]);
    assert_eq!(run(&with_candidate(&content, VALIDATE)).0, 0);
    assert_ne!(run(&with_candidate("MaxAuthTries many\n", VALIDATE)).0, 0);
}
