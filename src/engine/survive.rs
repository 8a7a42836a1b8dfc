//! Steps that must survive the connection: package installs and the like.
//!
//! The script goes to `/run/soc-provision/steps/ID.sh` and runs as a transient unit; the frame
//! only follows it. After a reconnect the same frame, sent again, picks up the unit that still
//! runs or the result that it left; it never starts the script twice. Where there is no systemd
//! the script runs in a session of its own.
//!
//! A frame that follows comes back now and then with what the step says meanwhile ([`Said`]), so
//! that people see what a long step waits for.

use crate::diagnostic::printable_line;
use crate::shell::Script;
use crate::transport::Output;

/// First lines of what a frame that follows says.
const STILL: &[u8] = b"##still\n";
const DONE: &[u8] = b"##done\n";

/// What a frame that followed a step came back with.
#[derive(Debug)]
pub enum Said {
    /// The step goes on; the last line that it printed.
    Still(String),
    /// The step has ended, or was not begun.
    Done(Output),
}

/// Reads a frame's answer.
#[must_use]
pub fn said(mut output: Output) -> Said {
    if let Some(line) = output.stdout.strip_prefix(STILL) {
        return Said::Still(printable_line(String::from_utf8_lossy(line).trim()));
    }
    if let Some(rest) = output.stdout.strip_prefix(DONE) {
        output.stdout = rest.to_vec();
    }
    Said::Done(output)
}

/// Wraps a script so that it survives. `id` is unique to the run and the step.
#[must_use]
pub fn wrap(run: &str, id: &str, script: &Script) -> Script {
    let name = format!("{run}-{id}");
    let unit = format!("soc-provision-step-{name}.service");
    Script::sh(
        "umask 077; d=/run/soc-provision/steps; mkdir -p $d; n={}; u={}\nif [ ! -e $d/$n.unit ]; then\n{ cat <<'SOC-PROVISION-STEP'\numask 022\n",
        &[&name, &unit],
    )
    .append(script.clone())
    .then(
        r#"
SOC-PROVISION-STEP
} >$d/$n.sh || exit 74
printf '%s %s\n' {} "$u" >$d/$n.unit
printf '%s\n' "sh $d/$n.sh >$d/$n.out 2>$d/$n.err </dev/null; r=\$?; echo \$r >$d/$n.rc.new; mv -f $d/$n.rc.new $d/$n.rc" >$d/$n.run
if [ -d /run/systemd/system ]; then
  systemd-run --quiet --collect --unit="$u" -p KillMode=process -p LimitCORE=0 --setenv=LC_ALL=C --setenv=PATH="$PATH" /bin/sh $d/$n.run || { rm -f $d/$n.unit; exit 1; }
else
  setsid sh $d/$n.run >/dev/null 2>&1 &
fi
fi
i=0
while [ ! -e $d/$n.rc ]; do
  i=$((i+1)); if [ $i -le 20 ]; then sleep 0.05; else sleep 0.5; fi
  if [ $i -ge 30 ]; then
    l=$d/$n.out; if [ $d/$n.err -nt $l ]; then l=$d/$n.err; fi
    echo '##still'; tail -n 1 $l | cut -c 1-300; exit 0
  fi
  if [ $i -gt 10 ] && [ -d /run/systemd/system ] && ! systemctl is-active --quiet "$u" && [ ! -e $d/$n.rc ]; then
    sleep 1; [ -e $d/$n.rc ] || { echo "the unit $u ended without a result" >&2; rm -f $d/$n.unit; exit 1; }
  fi
done
echo '##done'; tail -c 65536 $d/$n.out; tail -c 65536 $d/$n.err >&2
read -r r <$d/$n.rc; exit "$r"
"#,
        &[run],
    )
}

/// Removes what the run's surviving steps, and the records of others, left in `/run`.
#[must_use]
pub fn clean(run: &str) -> Script {
    Script::sh("rm -f /run/soc-provision/steps/{}-*\n", &[run])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Vault;

    #[test]
    fn a_wrapped_step_is_valid_shell() {
        let script = wrap("r1", "s1", &Script::sh("echo {}", &["it's"])).fill(&Vault::default()).unwrap();
        let out = std::process::Command::new("/bin/sh").args(["-n", "-c"]).arg(&*script).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    #[test]
    fn what_a_step_says_meanwhile_is_no_end() {
        let output = |text: &str| Output { stdout: text.into(), ..Output::default() };
        assert!(matches!(said(output("##still\nwaiting \u{1b}[2J\n")), Said::Still(line) if line == "waiting \\u{1b}[2J"));
        assert!(matches!(said(output("##done\n##still\n")), Said::Done(end) if end.stdout == b"##still\n"));
        assert!(matches!(said(output("")), Said::Done(_)));
    }
}
