//! Whatever is in a file, it is read or refused; nothing panics, and quoting holds.

use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use soc_provision::project::files::Files;
use soc_provision::project::hosts::expand;
use soc_provision::project::inventory::Inventory;
use soc_provision::project::lower::Problems;
use soc_provision::project::source;
use soc_provision::resolve::template;

/// Text that is nearly YAML, Jinja and Handlebars.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("- ".to_owned()),
        Just(": ".to_owned()),
        Just("\n".to_owned()),
        Just("  ".to_owned()),
        Just("{{".to_owned()),
        Just("}}".to_owned()),
        Just("{{#if a}}".to_owned()),
        Just("{{/if}}".to_owned()),
        Just("{% if a %}".to_owned()),
        Just("&a ".to_owned()),
        Just("*a ".to_owned()),
        Just("<<: ".to_owned()),
        Just("!vault |".to_owned()),
        Just("| default('x')".to_owned()),
        Just("['a']".to_owned()),
        Just("\"".to_owned()),
        Just("'".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just("{".to_owned()),
        Just("\t".to_owned()),
        Just("[web]\n".to_owned()),
        Just("[web:vars]\n".to_owned()),
        Just("a=b ".to_owned()),
        Just("[1:3]".to_owned()),
        "[a-z0-9_.]{1,6}",
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if std::env::var_os("SOC_PROVE").is_some() { 20_000 } else { 400 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn yaml_is_read_or_refused(text in nearly()) {
        if let Err(problem) = source::parse(&text, &Arc::new(PathBuf::from("x.yml"))) {
            prop_assert!(problem.location.is_some());
        }
    }

    #[test]
    fn templates_are_compiled_or_refused(text in nearly()) {
        if let Err(trouble) = template::compile(&text) {
            prop_assert!(trouble.place.0 >= 1);
        }
    }

    #[test]
    fn inventories_are_read_or_refused(text in nearly(), ini in any::<bool>()) {
        let directory = tempfile::tempdir().unwrap();
        let name = if ini { "hosts.ini" } else { "hosts.yml" };
        std::fs::write(directory.path().join(name), text).unwrap();
        let files = Files::new(directory.path().to_path_buf());
        let _ = Inventory::load(&files, &[name.to_owned()], &mut Problems::default());
    }

    #[test]
    fn ranges_are_read_or_refused(text in "[a-z0-9\\[\\]:]{0,20}") {
        let _ = expand(&text);
    }

    #[test]
    fn quoted_text_is_one_word(text in "[^\0]{0,60}") {
        let quoted = soc_provision::shell::quote(&text);
        prop_assert_eq!(shlex::split(&quoted), Some(vec![text]));
    }
}

#[test]
fn a_shell_reads_quoted_text_back() {
    for text in ["", "it's", "a b\n\tc", "$(id) `id` \\ \"", "-n", "é\u{1f600}", "'''", "!history", "a;b&c|d>e"] {
        let script = format!("printf %s {}", soc_provision::shell::quote(text));
        let out = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), text);
    }
}
