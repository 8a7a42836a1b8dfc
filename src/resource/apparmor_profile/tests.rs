//! The kind's plans, and the parser where it is installed.

use super::*;
use crate::resource::observe::Answer;
use crate::resource::observe::RawOutput;
use crate::resource::own_file::testing::{bare, plan, present, run};
use crate::resource::source_text::testing::{build, refusal};

const WAF: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/roles/apparmor/files/docker-waf"));
const PATH: &str = "/etc/apparmor.d/docker-waf";

fn resource(extra: &serde_json::Value) -> Box<dyn Resource> {
    let mut arguments = serde_json::json!({ "name": "docker-waf", "content": WAF });
    arguments.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    if arguments["state"] == "absent" {
        arguments.as_object_mut().unwrap().remove("content");
    }
    build::<AppArmorProfile>(arguments).unwrap()
}

fn with_labels(observed: &mut crate::resource::observe::Observations, labels: &str) {
    observed.insert(host::labels(), Answer::Raw(RawOutput { status: 0, stdout: labels.to_owned() }));
}

#[test]
fn the_shipped_profile_passes_and_the_circulating_one_does_not() {
    let content = WAF.replace("  /tmp/** rwk,\n", "  /tmp/** rwk,\n  deny /** w,\n");
    assert!(
        refusal::<AppArmorProfile>(serde_json::json!({ "name": "docker-waf", "content": content }))
            .contains("takes away what others allow")
    );
    let accepted = serde_json::json!({ "name": "docker-waf", "content": content, "accept": ["deny-beats-allow"] });
    assert!(build::<AppArmorProfile>(accepted).is_ok());
    let lax = WAF.replace("flags=(", "flags=(complain,");
    assert!(
        refusal::<AppArmorProfile>(serde_json::json!({ "name": "docker-waf", "content": lax }))
            .contains("keeps profile `docker-waf` from being enforced")
    );
    assert!(refusal::<AppArmorProfile>(serde_json::json!({ "name": "other", "content": WAF })).contains("no `profile other"));
}

#[test]
fn drift_is_file_policy_and_mode() {
    let resource = resource(&serde_json::json!({}));
    let fields = |raw: &str| {
        let mut observed = bare(&*resource, raw);
        present(&mut observed, PATH, 0o644, WAF);
        with_labels(&mut observed, "");
        plan(&*resource, &observed).unwrap().changes.into_iter().map(|change| change.field).collect::<Vec<_>>()
    };
    assert_eq!(fields("##enabled Y\n##loaded enforce aa\n##want aa\n"), Vec::<String>::new());
    assert_eq!(fields("##enabled Y\n##loaded complain aa\n##want aa\n"), ["mode"]);
    assert_eq!(fields("##enabled Y\n##loaded enforce bb\n##want aa\n"), ["loaded policy"]);
    assert_eq!(fields("##enabled Y\n##want aa\n"), ["loaded"]);
    let planned = plan(&*resource, &bare(&*resource, "##enabled Y\n##want aa\n")).unwrap();
    assert!(planned.validate.is_some() && planned.changes.iter().any(|change| change.field == PATH));
}

#[test]
fn a_host_without_apparmor_fails_closed() {
    let fail = resource(&serde_json::json!({}));
    let Err(Undecided::Refused(reason)) = plan(&*fail, &bare(&*fail, "##enabled \n")) else { panic!("must be refused") };
    assert!(reason.contains("unconfined, and say nothing"), "{reason}");
    let warn = resource(&serde_json::json!({ "if_missing": "warn" }));
    let planned = plan(&*warn, &bare(&*warn, "##enabled N\n")).unwrap();
    assert!(planned.is_in_sync() && planned.notes.len() == 1);
}

#[test]
fn a_container_that_lost_its_profile_is_restarted() {
    let resource = resource(&serde_json::json!({}));
    let mut observed = bare(&*resource, "##enabled Y\n##loaded enforce aa\n##want aa\n");
    present(&mut observed, PATH, 0o644, WAF);
    with_labels(&mut observed, "/proc/7/attr/current:docker-waf (enforce)\n/proc/9/attr/current:docker-default (enforce)\n");
    let container = |id: &str, pid: u64| serde_json::json!({ "Id": id, "Name": id, "State": { "Pid": pid }, "HostConfig": { "SecurityOpt": ["apparmor=docker-waf"] } });
    observed.insert(Question::Containers, Answer::Json(Some(serde_json::json!([container("a7", 7), container("a8", 8)]))));
    let planned = plan(&*resource, &observed).unwrap();
    assert_eq!(planned.changes, [Change::of("container a8", "unconfined", "docker-waf")]);
}

#[test]
fn removal_is_refused_while_in_use() {
    let gone = resource(&serde_json::json!({ "state": "absent" }));
    let mut observed = bare(&*gone, "##enabled Y\n##loaded enforce aa\n");
    with_labels(&mut observed, "/proc/7/attr/current:docker-waf (enforce)\n");
    let Err(Undecided::Refused(reason)) = plan(&*gone, &observed) else { panic!("must be refused") };
    assert!(reason.contains("in use by process 7"), "{reason}");
    with_labels(&mut observed, "/proc/7/attr/current:docker-wafer (enforce)\n");
    assert_eq!(plan(&*gone, &observed).unwrap().changes, [Change::remove("loaded", "enforce")]);
}

#[test]
fn the_parser_takes_the_shipped_profile_and_refuses_a_broken_one() {
    if std::process::Command::new("apparmor_parser").arg("-V").output().is_err() {
        eprintln!("skipped: needs apparmor_parser");
        return;
    }
    assert_eq!(run(&host::validate(WAF)).0, 0);
    assert_ne!(run(&host::validate(&WAF.replace("network unix,", "netwrok unix,"))).0, 0);
    let digest = |text: &str| Probed::parse(&run(&host::probe("docker-waf", text)).1, "").wanted;
    let complaining = checked(WAF, "docker-waf", Mode::Complain, &[]).unwrap();
    assert_eq!(run(&host::validate(&complaining)).0, 0);
    assert!(digest(WAF).len() == 64 && digest(WAF) != digest(&complaining));
}
