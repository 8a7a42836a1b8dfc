//! What else goes when packages go: those that need them, and with `autoremove` those that nothing
//! needs any more. apt decides that, so apt is asked, without acting and without its caches, which
//! it would write.

use super::Wanted;
use crate::resource::observe::{Question, RawOutput};
use crate::resource::plan::{Change, Effect, Plan};
use crate::shell::Script;

/// Prints `NAME VERSION` for each package that apt would remove. `Remv` and `Purg` are the words of
/// apt-get(8)'s simulation and not translated. Packages that are not there are no names to apt.
const SIMULATE: &str = r#"for p; do shift; case $(dpkg-query -W -f '${db:Status-Abbrev}' -- "$p" 2>/dev/null) in ?[!nc]*) set -- "$@" "$p" ;; esac; done
[ $# -gt 0 ] || exit 0
told=$(LC_ALL=C apt-get -s -q --allow-change-held-packages -o Debug::NoLocking=1 -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= $how "$@" 2>/dev/null) || exit 1
printf '%s\n' "$told" | sed -n 's/^\(Remv\|Purg\) \([^ ]*\) \[\([^]]*\)\].*/\2 \3/p'
"#;

/// The question; it costs nothing where none of the packages is there.
pub(super) fn question(wanted: &[Wanted], purge: bool, autoremove: bool) -> Question {
    let verb = if purge { "purge" } else { "remove" };
    let how = if autoremove { format!("{verb} --auto-remove") } else { verb.to_owned() };
    let names: Vec<&str> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
    let script = names.iter().fold(Script::sh("how={}; set --", &[&how]), |script, name| script.then(" {}", &[name]));
    Question::Raw { key: format!("apt-removal:{how} {}", names.join(" ")), script: script.then("\n", &[]).then(SIMULATE, &[]) }
}

/// Adds what goes with the packages to a plan that removes them.
pub(super) fn add(plan: Plan, wanted: &[Wanted], told: &RawOutput) -> Plan {
    if told.status != 0 {
        return plan.note("apt cannot say what else goes with it");
    }
    // Packages of another architecture are told as NAME:ARCHITECTURE.
    let named = |name: &str| wanted.iter().any(|wanted| wanted.name == name || name.split(':').next() == Some(&wanted.name));
    let others: Vec<_> = told.stdout.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| !named(name)).collect();
    if others.is_empty() {
        return plan;
    }
    let names: Vec<&str> = others.iter().map(|(name, _)| *name).collect();
    let note = format!("apt removes {} with it", names.join(", "));
    let gone = |plan: Plan, (name, version): &(&str, &str)| {
        plan.change(Change::remove(format!("package {name}"), *version)).effect(Effect::Package((*name).to_owned()))
    };
    others.iter().fold(plan, gone).note(note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::shown;

    #[test]
    fn what_goes_with_it_is_part_of_the_plan() {
        let wanted = [Wanted { name: "openssh-sftp-server".into(), version: None }];
        let told = |status, stdout: &str| RawOutput { status, stdout: stdout.to_owned() };
        let plan = || Plan::in_sync().change(Change::remove("package openssh-sftp-server", "10"));
        let more = add(plan(), &wanted, &told(0, "openssh-server 10.1\nopenssh-sftp-server:amd64 10"));
        assert_eq!(shown(&more), ["package openssh-sftp-server: 10 -> -", "package openssh-server: 10.1 -> -"]);
        assert!(more.notes.iter().any(|note| note.contains("apt removes openssh-server with it")), "{:?}", more.notes);
        assert_eq!(shown(&add(plan(), &wanted, &told(0, "openssh-sftp-server 10"))).len(), 1);
        assert!(!add(plan(), &wanted, &told(1, "")).notes.is_empty());
    }
}
