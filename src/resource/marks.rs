//! What a path carries besides owner and mode: access lists, file capabilities, and the flags that
//! keep even root from changing it. A declared mode says who may do what, so whatever says more is
//! a difference, and goes.

use crate::resource::observe::{Mark, PathState};
use crate::resource::plan::Change;
use crate::shell::Script;

/// One difference for each.
#[must_use]
pub fn changes(state: &PathState) -> Vec<Change> {
    state
        .marks
        .iter()
        .map(|mark| match mark {
            Mark::Acl => Change::remove("access list", "grants more than the mode (`getfacl` shows it)"),
            Mark::Capabilities(which) => Change::remove("capabilities", which),
            Mark::Immutable => Change::remove("attribute", "immutable (`lsattr` shows it)"),
            Mark::AppendOnly => Change::remove("attribute", "append-only (`lsattr` shows it)"),
        })
        .collect()
}

/// Lets a path be written again. A file that is then replaced loses the rest by that.
#[must_use]
pub fn unlock(path: &str, state: &PathState) -> Script {
    let locked = state.marks.iter().any(|mark| matches!(mark, Mark::Immutable | Mark::AppendOnly));
    if locked { Script::sh("chattr -i -a -- {} || exit 1\n", &[path]) } else { Script::new() }
}

/// Takes everything off a path that stays.
#[must_use]
pub fn clear(path: &str, state: &PathState) -> Script {
    let mut script = unlock(path, state);
    if state.marks.contains(&Mark::Acl) {
        let missing =
            "command -v setfacl >/dev/null || { echo 'an access list is taken off with `setfacl`: install package `acl`' >&2; exit 1; }\n";
        script = script.then(missing, &[]).then("setfacl -b -- {} || exit 1\n", &[path]);
    }
    if state.marks.iter().any(|mark| matches!(mark, Mark::Capabilities(_))) {
        script = script.then("PATH=$PATH:/usr/sbin:/sbin setcap -r {} || exit 1\n", &[path]);
    }
    script
}

#[cfg(test)]
mod tests {
    use crate::resource::testing::{Bench, run, shown};
    use crate::secret::Vault;
    use crate::shell::Script;

    /// Whether this machine can do it at all.
    fn can(code: &'static str, path: &str) -> bool {
        run(&Script::sh(code, &[path]), &Vault::default()).0 == 0
    }

    #[test]
    fn what_is_found_on_a_file_and_a_directory_goes_for_real() {
        let dir = tempfile::tempdir().unwrap();
        let (file, inner) =
            (dir.path().join("a \"b\u{e9}").to_str().unwrap().to_owned(), dir.path().join("d").to_str().unwrap().to_owned());
        let owner = rustix::process::getuid().as_raw();
        let copy = format!("copy: {{dest: {}, content: x, owner: {owner}}}", serde_json::json!(file));
        let directory = format!("directory: {{path: {inner}, mode: '0755'}}");
        let bench = Bench::default();
        bench.converge(&copy);
        bench.converge(&directory);
        for (yaml, path, code, told) in [
            (&copy, &file, "setfacl -m u:nobody:r {}", "access list: grants"),
            (&directory, &inner, "setfacl -d -m u:nobody:r {}", "access list: grants"),
            (&copy, &file, "PATH=$PATH:/usr/sbin:/sbin setcap cap_net_raw+ep {}", "capabilities: cap_net_raw"),
            (&copy, &file, "chattr +i -- {}", "attribute: immutable"),
            (&directory, &inner, "chattr +a -- {}", "attribute: append-only"),
        ] {
            if !can(code, path) {
                eprintln!("skipped: `{code}` cannot be done here");
                continue;
            }
            let plan = bench.converge(yaml);
            assert!(shown(&plan).iter().any(|line| line.starts_with(told)), "{code}: {:?}", shown(&plan));
        }
    }
}
