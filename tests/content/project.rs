//! The shipped playbooks load, and every host of their inventories resolves.

use soc_provision::diagnostic::{Diagnostic, Level};
use soc_provision::facts::Facts;
use soc_provision::project::{LoadOptions, Project};
use soc_provision::resolve::{HostProgram, RunOptions, resolve};

use crate::render::root;

fn load(playbook: &str, inventory: Option<&str>) -> Project {
    let inventories = inventory.map(|path| root().join(path).display().to_string()).into_iter().collect();
    let options = LoadOptions { cwd: root(), playbook: format!("playbooks/{playbook}"), inventories, ..LoadOptions::default() };
    Project::load(&options).unwrap_or_else(|problems| panic!("{playbook}:\n{}", told(&problems)))
}

fn told(problems: &[Diagnostic]) -> String {
    problems
        .iter()
        .map(|problem| {
            let at = problem.location.as_ref().map(|at| format!("{}:{}:{}: ", at.file.display(), at.line, at.column)).unwrap_or_default();
            format!("{at}{} ({})\n", problem.message, problem.hint.clone().unwrap_or_default())
        })
        .collect()
}

fn programs(playbook: &str, inventory: Option<&str>) -> Vec<(String, HostProgram)> {
    let project = load(playbook, inventory);
    let options = RunOptions { offline: true, ..RunOptions::default() };
    let hosts: Vec<String> = project.hosts().into_iter().map(std::string::ToString::to_string).collect();
    hosts
        .into_iter()
        .map(|host| {
            let program = resolve(&project, &host, &Facts::placeholder(&host), &options);
            let program = program.unwrap_or_else(|problems| panic!("{playbook} on {host}:\n{}", told(&problems)));
            (host, program)
        })
        .collect()
}

/// Ids of all resources of a program.
fn resources(program: &HostProgram) -> Vec<String> {
    program.tasks().flat_map(|task| task.resources.iter().map(|resource| resource.id().to_string())).collect()
}

#[test]
fn every_playbook_is_free_of_problems() {
    for (playbook, inventory) in [("lab.yml", None), ("soc-lab.yml", None), ("prod.yml", None), ("waf.yml", Some("inventory/prod"))] {
        let project = load(playbook, inventory);
        let options = RunOptions { offline: true, ..RunOptions::default() };
        let problems: Vec<Diagnostic> = soc_provision::resolve::check(&project, &project.warnings, &options)
            .into_iter()
            .filter(|problem| problem.level == Level::Error)
            .collect();
        assert!(problems.is_empty(), "{playbook}:\n{}", told(&problems));
    }
}

#[test]
fn lab_is_small_and_quick() {
    let programs = programs("lab.yml", None);
    let ids = resources(&programs[0].1);
    assert!(ids.contains(&"compose_stack[hello]".to_owned()), "{ids:?}");
    assert_eq!(ids.iter().filter(|id| id.starts_with("compose_stack")).count(), 1);
    assert!(programs[0].1.secrets().is_empty(), "the quick lab needs no secret");
}

#[test]
fn soc_lab_brings_all_six_stacks_to_one_host() {
    let programs = programs("soc-lab.yml", None);
    assert_eq!(programs.len(), 1);
    let ids = resources(&programs[0].1);
    for stack in ["siem", "ai-services", "soar", "monitoring", "network-analysis", "waf"] {
        assert_eq!(ids.iter().filter(|id| **id == format!("compose_stack[{stack}]")).count(), 1, "{stack}");
    }
    let mut sorted = ids.clone();
    sorted.sort();
    // Stand-ins bring their own tool with them, each the same; an image may serve two stacks; each
    // role owns places of its own.
    sorted.retain(|id| !id.starts_with("docker_image") && id != "package[busybox-static]" && id != "owned[places]");
    let twice: Vec<&String> = sorted.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    assert!(twice.is_empty(), "declared twice: {twice:?}");
}

#[test]
fn prod_spreads_the_stacks_by_group_and_watches_every_host() {
    let programs = programs("prod.yml", None);
    assert_eq!(programs.len(), 3);
    let wanted = [("soc-a", vec!["siem", "soar"]), ("soc-b", vec!["ai-services"]), ("soc-c", vec!["network-analysis", "waf"])];
    for (host, stacks) in wanted {
        let program = &programs.iter().find(|(name, _)| name == host).unwrap().1;
        let here: Vec<String> = resources(program).into_iter().filter(|id| id.starts_with("compose_stack[")).collect();
        let mut expected: Vec<String> = stacks.iter().chain(&["monitoring"]).map(|stack| format!("compose_stack[{stack}]")).collect();
        expected.sort();
        let mut sorted = here.clone();
        sorted.sort();
        assert_eq!(sorted, expected, "{host}");
        assert!(program.plays.iter().flat_map(|play| &play.checks).count() > 5, "{host} has checks");
    }
}

#[test]
fn every_check_of_a_role_has_a_name_that_says_whose_it_is() {
    for role in crate::render::STACKS {
        for check in crate::render::yaml(format!("roles/{role}/verify/main.yml")).as_array().unwrap() {
            let name = check["name"].as_str().unwrap();
            assert!(name.starts_with(role), "{role}: `{name}`");
        }
    }
}
