//! The words of the command line: help, completions, and words of other tools.

use std::process::Command;

use clap::CommandFactory as _;

use crate::harness::{Project, run};

#[test]
fn every_command_helps_with_an_example() {
    let project = Project::new(&[]);
    for command in soc_provision::cli::Cli::command().get_subcommands() {
        let parts = command.get_subcommands().map(|part| vec![command.get_name(), part.get_name()]);
        for words in std::iter::once(vec![command.get_name()]).chain(parts) {
            let run = project.run(&[&words[..], &["--help"]].concat());
            assert_eq!(run.code, 0);
            assert!(run.out.contains("Example"), "{words:?} has no example:\n{}", run.out);
        }
    }
}

#[test]
fn words_of_other_tools_are_answered() {
    let project = Project::new(&[]);
    for (arguments, expected) in [
        (&["apply", "x.yml", "--start-at-task", "y"][..], "a second `apply` does only what is left"),
        (&["apply", "x.yml", "--syntax-check"][..], "soc-provision check PLAYBOOK"),
        (&["plan", "x.yml", "--vault-password-file=x"][..], "soc-provision secrets"),
        (&["site.yml"][..], "soc-provision plan site.yml"),
        (&["playbook", "x"][..], "soc-provision apply PLAYBOOK"),
        (&["aply", "x"][..], "apply"),
        (&["apply"][..], "PLAYBOOK"),
        (&["apply", "nope.yml"][..], "there is no playbook `nope.yml`"),
    ] {
        let run = project.run(arguments);
        assert!(run.code == 1 && run.err.contains(expected), "{arguments:?}: {} {}", run.code, run.err);
        assert_eq!(run.out, "");
    }
}

#[test]
fn output_that_cannot_be_written_is_no_success() {
    let project = Project::new(&[]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let out =
        Command::new(env!("CARGO_BIN_EXE_soc-provision")).args(["docs", "copy"]).current_dir(project.path()).stdout(full).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("could not be written whole: No space left on device"), "{out:?}");
}

#[test]
fn a_panic_is_exit_250_with_a_message() {
    let out = Command::new(env!("CARGO_BIN_EXE_soc-provision")).arg("check").env("SOC_PROVISION_TEST_PANIC", "1").output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(250));
    assert!(err.contains("this is a bug in soc-provision") && err.contains("src/command/mod.rs") && err.contains("report"), "{err}");
}

#[test]
fn completions_and_the_manual_are_made() {
    let project = Project::new(&[]);
    for (shell, expected) in
        [("bash", "soc-provision"), ("zsh", "#compdef soc-provision"), ("fish", "complete -c soc-provision"), ("man", ".TH soc-provision")]
    {
        let run = project.run(&["completions", shell]);
        assert!(run.code == 0 && run.out.contains(expected), "{shell}: {}", run.out.lines().take(3).collect::<String>());
    }
}

#[test]
fn a_new_project_is_free_of_errors_and_nothing_is_overwritten() {
    let project = Project::new(&[]);
    assert_eq!(project.run(&["init", "new"]).code, 0);
    let check = run(&project.path().join("new"), &["check"]);
    assert_eq!((check.code, check.err.as_str()), (0, ""), "{}", check.err);
    let again = project.run(&["init", "new"]);
    assert!(again.code == 1 && again.err.contains("nothing was written"), "{}", again.err);
}
