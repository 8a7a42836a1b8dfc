//! The journal on the host: what a run was about to do, and handlers it owes.
//!
//! Write-ahead: the lines go in the same frame as the change, before it (DESIGN 8.14), so a run
//! that dies between a change and its handler leaves the handler owed, and the next run pays.

use crate::resource::ResourceId;
use crate::secret::sha256;
use crate::shell::Script;

/// Put before a step: notes what is about to change and which handlers that will notify. If the
/// disk is full the reserve makes room, so that the journal can always say what happened.
#[must_use]
pub fn before_step(run: &str, resource: &ResourceId, notify: &[String]) -> Script {
    let mut script = Script::sh(
        "(umask 077; d=/var/lib/soc-provision; w() { printf '%s\\n' \"$2\" >>\"$1\" || { rm -f $d/reserve; printf '%s\\n' \"$2\" | cat >>\"$1\"; }; }; w $d/journal/{} {}",
        &[run, &format!("begin {resource}")],
    );
    for handler in notify {
        script = script.then(" && w $d/owed/{} {}", &[&sha256(handler.as_bytes())[..16], handler]);
    }
    script.then(") || exit 74\n", &[])
}

/// Put after a handler that succeeded: it is owed no more.
#[must_use]
pub fn paid(handlers: &[String]) -> Script {
    let mut script = Script::new();
    for handler in handlers {
        script = script.then("\nrm -f /var/lib/soc-provision/owed/{}", &[&sha256(handler.as_bytes())[..16]]);
    }
    script
}

/// What a finished run leaves behind.
#[derive(Clone, Debug, Default)]
pub struct Last {
    pub run: String,
    pub who: String,
    /// Seconds since the epoch.
    pub when: i64,
    pub revision: String,
    pub playbook: String,
    pub result: String,
}

/// Records the run's end and keeps the journals of the last 50 runs.
#[must_use]
pub fn finish(last: &Last) -> Script {
    Script::sh(
        r#"umask 077; cd /var/lib/soc-provision || exit 0
printf 'run %s\nwho %s\nwhen %s\nrevision %s\nplaybook %s\nresult %s\n' {} {} {} {} {} {} >last.new && mv -f last.new last
[ -e journal/{} ] && printf 'end %s\n' {} >>journal/{}
set -- journal/*
if [ $# -gt 60 ]; then ls -t journal | tail -n +51 | while IFS= read -r f; do rm -f "journal/$f"; done; fi
exit 0
"#,
        &[&last.run, &last.who, &last.when.to_string(), &last.revision, &last.playbook, &last.result, &last.run, &last.result, &last.run],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_before_the_step() {
        let script = before_step("r1", &ResourceId::new("file", "/etc/x y"), &["restart it".to_owned()]).shown();
        assert!(script.contains("begin file[/etc/x y]"), "{script}");
        assert!(script.contains("'restart it'"), "{script}");
    }
}
