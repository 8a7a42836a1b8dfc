//! The books: the images' table, the seeds' checklists against check ids, the runbooks.

use std::collections::{BTreeMap, BTreeSet};

use crate::render::{Host, STACKS, read, root, yaml};

/// Rows of all tables of a page: cells.
fn rows(page: &str) -> Vec<Vec<String>> {
    read(page)
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---") && !line.contains("|---"))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

#[test]
fn the_images_page_has_every_image_and_says_that_none_was_run() {
    let page = read("docs/images.md");
    assert!(page.contains("None of these images was run here"), "the page must say so plainly");
    let mut images = BTreeSet::new();
    for host in [Host::all(), Host::new(&["edge"], &serde_json::json!({"waf_front": "traefik"}))] {
        for role in STACKS {
            images.extend(
                host.compose(role)["services"].as_object().unwrap().values().map(|service| service["image"].as_str().unwrap().to_owned()),
            );
        }
    }
    let rows = rows("docs/images.md");
    for image in images {
        let row = rows.iter().find(|row| row[0] == format!("`{image}`")).unwrap_or_else(|| panic!("`{image}` is not in docs/images.md"));
        assert_eq!(row.len(), 7, "{image}: {row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{image}: {row:?}");
    }
}

/// Names of all checks in the roles' `verify/`.
fn check_ids() -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for role in crate::render::roles() {
        for part in ["main", "smoke"] {
            let path = format!("roles/{role}/verify/{part}.yml");
            if root().join(&path).exists() {
                out.extend(yaml(path).as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap().to_owned()));
            }
        }
    }
    out
}

/// Every line of the seeds' checklists, by list: sections 8.2 of the architecture document, before and
/// after, scanning, CIS and NIST of the hardening guide.
fn lines() -> BTreeMap<String, Vec<String>> {
    let book = yaml("tests/content/checklists.yml");
    book.as_object().unwrap().iter().map(|(list, lines)| (list.clone(), crate::compare::words(lines))).collect()
}

#[test]
fn every_line_of_the_seeds_checklists_is_a_check_or_manual() {
    let rows: BTreeMap<String, Vec<String>> = rows("docs/checklists.md").into_iter().map(|row| (row[0].clone(), row)).collect();
    let ids = check_ids();
    let tests = std::process::Command::new("grep").args(["-rhoE", "^fn [a-z_0-9]+", "tests", "src"]).current_dir(root()).output().unwrap();
    let tests: BTreeSet<String> = String::from_utf8(tests.stdout).unwrap().lines().map(|line| line[3..].to_owned()).collect();
    let mut count = 0;
    for (list, lines) in lines() {
        for line in lines {
            let row = rows.get(&line).unwrap_or_else(|| panic!("`{line}` of {list} is not in docs/checklists.md"));
            assert_eq!(row.len(), 3, "{row:?}");
            count += 1;
            let (kind, rest) = row[1].split_once(' ').unwrap_or((&row[1], ""));
            let named = rest.trim_matches('`');
            match kind {
                "manual" | "preflight" | "plan" => assert!(row[2].len() > 10, "`{line}`: say how"),
                "check" => assert!(ids.contains(named), "`{line}`: there is no check `{named}`"),
                "test" => assert!(tests.contains(named), "`{line}`: there is no test `{named}`"),
                other => panic!("`{line}`: `{other}` is none of check, test, preflight, plan, manual"),
            }
        }
    }
    assert!(count > 80, "{count} lines");
}

#[test]
fn runbooks_name_programs_and_files_that_exist() {
    let pages: Vec<String> = ["detect", "contain", "investigate", "rebuild", "restore", "first-keys"]
        .iter()
        .map(|name| format!("docs/runbooks/{name}.md"))
        .collect();
    let help = read("docs/runbooks/README.md");
    for page in &pages {
        assert!(help.contains(page.rsplit('/').next().unwrap()), "{page} is not in the list");
        let text = read(page);
        for word in text.split(|c: char| c.is_whitespace() || "`()|".contains(c)) {
            let word = word.trim_end_matches(['.', ',', ':']);
            if ["roles/", "playbooks/", "inventory/"].iter().any(|start| word.starts_with(start)) {
                assert!(root().join(word).exists(), "{page} names `{word}`, which is not there");
            }
        }
        for line in text.lines().filter(|line| line.starts_with("    ")) {
            let program = line.trim().trim_start_matches("sudo ").split_whitespace().next().unwrap_or_default();
            let known = [
                "soc-provision",
                "soc-backup",
                "soc-restore",
                "soc-restore-test",
                "cat",
                "docker",
                "curl",
                "grep",
                "jq",
                "age",
                "sha256sum",
                "tar",
                "journalctl",
                "printf",
            ];
            assert!(known.contains(&program), "{page}: `{}` starts with no known program", line.trim());
            if program.starts_with("soc-") && program != "soc-provision" {
                assert!(root().join("roles/backup/files").join(program).exists(), "{page}: {program}");
            }
        }
    }
}

#[test]
fn subcommands_in_the_runbooks_are_words_of_the_command_line() {
    let cli: String = std::fs::read_dir(root().join("src/cli"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default())
        .collect();
    for entry in std::fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let path = entry.unwrap().path();
        for line in std::fs::read_to_string(&path).unwrap().lines().filter(|line| line.trim().starts_with("soc-provision ")) {
            let word = line.split_whitespace().nth(1).unwrap();
            let variant: String = word.split('-').map(|part| part[..1].to_uppercase() + &part[1..]).collect();
            assert!(cli.contains(&variant), "{}: `{}`: no subcommand `{word}`", path.display(), line.trim());
        }
    }
}
