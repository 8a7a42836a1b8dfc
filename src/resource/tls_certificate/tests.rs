//! Plans of each issuer, arguments, and what runs on the host for ACME.

use super::*;
use crate::resource::observe::Answer;
use crate::resource::plan::Plan;
use crate::resource::testing::{Bench, absent, raw, shown};

const YAML: &str = "tls_certificate: {name: web, names: [a.example, 10.0.0.5], directory: /t}";
/// 2001-09-09.
const NOW: i64 = 1_000_000_000;

/// A certificate for these names, and no key that anybody has.
fn certificate(names: &[&str], not_after: (i32, u8, u8)) -> String {
    let mut params = rcgen::CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.not_after = rcgen::date_time_ymd(not_after.0, not_after.1, not_after.2);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

fn bench() -> Bench {
    let mut bench = Bench::default();
    bench.secret("soc-ca", "whatever it is");
    bench.secret("web/key", "-----BEGIN PRIVATE KEY-----");
    bench
}

fn plan(bench: &Bench, yaml: &str, content: Option<&str>, state: &str) -> Result<Plan, Undecided> {
    let resource = bench.build(yaml);
    let mut observed = absent(&*resource);
    raw(&mut observed, &*resource, "clock", 0, &NOW.to_string());
    observed.insert(Question::Content("/t/web.crt".into()), Answer::Content(content.map(|text| text.as_bytes().to_vec())));
    if !state.is_empty() {
        raw(&mut observed, &*resource, "acme", 0, state);
        let file = crate::resource::observe::PathState {
            kind: crate::resource::observe::PathKind::File,
            mode: 0o600,
            owner: "root".into(),
            group: "root".into(),
            uid: 0,
            gid: 0,
            size: 1,
            target: None,
            names: 1,
            marks: Vec::new(),
        };
        observed.insert(Question::Path("/acme.json".into()), Answer::Path(Some(file)));
    }
    bench.plan(&*resource, &observed)
}

#[test]
fn a_new_one_is_one_step_that_holds_names_only() {
    let bench = bench();
    let planned = plan(&bench, YAML, None, "").unwrap();
    assert_eq!(shown(&planned), ["certificate: - -> a.example, 10.0.0.5, for 397 days, by `soc-ca`"]);
    assert_eq!(planned.steps.len(), 1);
    let script = planned.steps[0].script.shown();
    assert!(script.contains("payload <<[secret key of a.example by soc-ca]>>"), "{script}");
    assert_eq!(bench.build(YAML).secrets().len(), 3);
    let none = plan(&Bench::default(), YAML, None, "").unwrap_err();
    assert!(matches!(&none, Undecided::Refused(why) if why.contains("secrets ca soc-ca")), "{none:?}");
}

#[test]
fn one_that_ends_soon_is_named_with_its_date() {
    let soon = certificate(&["a.example", "10.0.0.5"], (2001, 9, 20));
    assert_eq!(
        shown(&plan(&bench(), YAML, Some(&soon), "").unwrap()),
        ["certificate: ends on 2001-09-20 -> a.example, 10.0.0.5, for 397 days, by `soc-ca`"]
    );
    let other = certificate(&["b.example"], (2030, 1, 1));
    assert!(shown(&plan(&bench(), YAML, Some(&other), "").unwrap())[0].starts_with("certificate: b.example -> a.example"));
}

#[test]
fn a_given_one_is_checked_before_anything_is_written() {
    let mut bench = bench();
    bench.files.insert("web.pem".into(), certificate(&["a.example"], (2001, 9, 20)).into_bytes());
    bench.files.insert("old.pem".into(), certificate(&["a.example"], (2001, 9, 1)).into_bytes());
    let key = format!("'{}'", SecretName::parse("web/key").unwrap().marker());
    let yaml = |src: &str, names: &str| {
        format!("tls_certificate: {{name: web, issuer: given, names: [{names}], directory: /t, certificate_src: {src}, key: {key}}}")
    };
    let planned = plan(&bench, &yaml("web.pem", "a.example"), None, "").unwrap();
    assert_eq!(planned.steps.len(), 2);
    assert_eq!(planned.notes, ["the given certificate ends on 2001-09-20: give a new one"]);
    let ended = plan(&bench, &yaml("old.pem", "a.example"), None, "").unwrap_err();
    assert!(matches!(&ended, Undecided::Refused(why) if why.contains("ended on 2001-09-01")), "{ended:?}");
    let error = bench.try_build(&yaml("web.pem", "c.example")).unwrap_err();
    assert!(error.message.contains("not for `c.example` but for a.example"), "{error:?}");
    let clear = bench.try_build("tls_certificate: {name: web, issuer: given, names: [a], certificate_src: web.pem, key: MIG}").unwrap_err();
    assert!(clear.message.contains("not a secret"), "{clear:?}");
}

#[test]
fn the_front_s_state_is_read_without_its_keys() {
    let yaml = "tls_certificate: {name: web, issuer: acme, names: [a.example], state_file: /acme.json}";
    let line = |ends| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate(&["a.example"], ends));
    let planned = |state: &str| plan(&bench(), yaml, None, state);
    assert!(planned("").unwrap().notes[0].contains("not there yet"));
    assert!(planned("x").unwrap().notes[0].contains("no certificate for a.example yet"));
    assert!(planned(&line((2030, 1, 1))).unwrap().notes.is_empty());
    assert!(planned(&line((2001, 9, 20))).unwrap().notes[0].contains("should have renewed"));
    assert!(planned(&format!("{}\n{}", line((2001, 9, 1)), line((2030, 1, 1)))).unwrap().notes.is_empty());
    assert!(matches!(planned(&line((2001, 9, 1))).unwrap_err(), Undecided::Unknown(why) if why.contains("its log says why")));
    // What runs on the host prints certificates only, however the file is laid out.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("acme.json");
    std::fs::write(
        &file,
        "{\"le\": {\"Certificates\": [\n {\"certificate\": \"QUJD\",\n \"key\": \"S0VZ\"}, {\"certificate\":\"REVG\",\"key\":\"S0VZ\"}]}}",
    )
    .unwrap();
    let resource = bench().build(&yaml.replace("/acme.json", file.to_str().unwrap()));
    let Some(Question::Raw { script, .. }) = resource
        .questions(&crate::facts::Facts::placeholder("h"))
        .into_iter()
        .find(|question| matches!(question, Question::Raw { key, .. } if key.starts_with("acme")))
    else {
        panic!()
    };
    assert_eq!(crate::resource::testing::run(&script, &bench().vault).1, b"QUJD\nREVG\n");
}

#[test]
fn bad_arguments_are_named() {
    for (field, arguments) in [
        ("name", "{name: a/b, names: [a]}"),
        ("names", "{name: a, names: []}"),
        ("names", "{name: a, names: ['a b.c..d']}"),
        ("names", "{name: a, issuer: acme, names: [10.0.0.1], state_file: /x}"),
        ("mode", "{name: a, names: [a], mode: '0444'}"),
        ("days", "{name: a, names: [a], days: 20}"),
        ("authority", "{name: a, names: [a], authority: 'a b'}"),
        ("state_file", "{name: a, names: [a], issuer: acme}"),
        ("state_file", "{name: a, names: [a], state_file: /x}"),
        ("certificate", "{name: a, names: [a], issuer: given, key: x}"),
        ("directory", "{name: a, names: [a], directory: x}"),
    ] {
        let error = Bench::default().try_build(&format!("tls_certificate: {arguments}")).unwrap_err();
        assert_eq!(error.field.as_deref(), Some(field), "{arguments}: {error:?}");
    }
}
