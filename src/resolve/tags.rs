//! `--tags` and `--skip-tags`, by Ansible's rules.

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, nearest};
use crate::project::Project;
use crate::project::task::Item;

/// Words that are no tags of anyone's.
const SPECIAL: &[&str] = &["all", "tagged", "untagged", "always", "never"];

/// A warning for each wanted tag that nothing in the project has: a typing error would otherwise
/// pass for a run in which there was nothing to do.
#[must_use]
pub fn unknown(project: &Project, wanted: &[String]) -> Vec<Diagnostic> {
    let known = all(project);
    let missing = wanted.iter().filter(|tag| !SPECIAL.contains(&tag.as_str()) && !known.contains(tag.as_str()));
    let warning = |tag: &String| {
        let diagnostic = Diagnostic::warning(format!("nothing has the tag `{tag}`"));
        match nearest(tag, known.iter().map(String::as_str)) {
            Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
            None => diagnostic.hint("`soc-provision check PLAYBOOK --list-tags` lists them"),
        }
    };
    missing.map(warning).collect()
}

/// Every tag of plays, roles, blocks and tasks.
fn all(project: &Project) -> BTreeSet<String> {
    fn walk(items: &[Item], out: &mut BTreeSet<String>) {
        for item in items {
            match item {
                Item::Task(task) => {
                    out.extend(task.common.tags.iter().cloned());
                    out.extend(task.apply.iter().flat_map(|apply| apply.tags.iter().cloned()));
                }
                Item::Block(block) => {
                    out.extend(block.common.tags.iter().cloned());
                    [&block.body, &block.rescue, &block.always].into_iter().for_each(|list| walk(list, out));
                }
            }
        }
    }
    let mut out = BTreeSet::new();
    for play in &project.plays {
        out.extend(play.common.tags.iter().chain(play.roles.iter().flat_map(|used| &used.common.tags)).cloned());
        [&play.pre_tasks, &play.tasks, &play.post_tasks, &play.handlers].into_iter().for_each(|list| walk(list, &mut out));
    }
    for role in project.used_roles() {
        out.extend(role.dependencies.iter().flat_map(|used| &used.common.tags).cloned());
        walk(&role.tasks, &mut out);
    }
    project.used_task_files().iter().for_each(|items| walk(items, &mut out));
    out
}

/// Whether a task with these tags runs.
pub(super) fn selected(tags: &[String], only: &[String], skip: &[String]) -> bool {
    let has = |list: &[String], name: &str| list.iter().any(|tag| tag == name);
    let tagged = !tags.is_empty();
    let common = |list: &[String]| list.iter().any(|tag| has(tags, tag));
    let never = has(tags, "never");
    let run = if only.is_empty() || has(only, "all") {
        !never || common(only)
    } else {
        has(tags, "always") || common(only) || (has(only, "tagged") && tagged && !never) || (has(only, "untagged") && !tagged)
    };
    let skipped = if has(skip, "all") {
        !has(tags, "always") || has(skip, "always")
    } else {
        common(skip) || (has(skip, "tagged") && tagged) || (has(skip, "untagged") && !tagged)
    };
    run && !skipped
}

#[cfg(test)]
mod tests {
    use super::selected;

    #[test]
    fn ansibles_rules() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (tags, only, skip, expected) in [
            ("", "", "", true),
            ("a", "", "", true),
            ("a", "b", "", false),
            ("a b", "b", "", true),
            ("always", "b", "", true),
            ("always", "b", "always", false),
            ("never", "", "", false),
            ("never a", "a", "", true),
            ("never a", "all", "", false),
            ("", "tagged", "", false),
            ("a", "tagged", "", true),
            ("", "untagged", "", true),
            ("a", "", "a", false),
            ("", "", "untagged", false),
        ] {
            assert_eq!(selected(&list(tags), &list(only), &list(skip)), expected, "{tags:?} {only:?} {skip:?}");
        }
    }
}
