//! `reboot`: restarts the host, if it must be or always.
//!
//! Reads `/run/reboot-required` and whether a newer kernel is installed than the one that runs.
//! The step only schedules the restart; the engine waits for the new boot and logs in again.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Kind, Resource, ResourceId, Severity};
use crate::shell::Script;

/// Restarts the host.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reboot {
    /// `if_required`: if a package asks for it or a newer kernel is installed; `always` is for
    /// handlers.
    #[serde(default)]
    when: When,
    /// Seconds until the host must be back.
    #[serde(default = "ten_minutes", alias = "reboot_timeout")]
    timeout: u64,
    /// What users who are logged in are told.
    #[serde(default = "message", alias = "msg")]
    message: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum When {
    #[default]
    IfRequired,
    Always,
}

fn ten_minutes() -> u64 {
    600
}

fn message() -> String {
    "soc-provision restarts this host".to_owned()
}

/// Prints why a restart is due. The newest kernel is the last by version among those with modules.
const REASON: &str = "if [ -e /run/reboot-required ]; then echo 'a package asks for it'; fi; read -r k </proc/sys/kernel/osrelease\n\
    n=$(for f in /boot/vmlinuz-*; do [ ! -e \"$f\" ] || printf '%s\\n' \"${f#/boot/vmlinuz-}\"; done | sort -V | tail -n 1)\n\
    if [ -n \"$n\" ] && [ \"$n\" != \"$k\" ] && [ -e \"/boot/vmlinuz-$k\" ]; then printf 'kernel %s runs and %s is installed\\n' \"$k\" \"$n\"; fi\n\
    if [ -n \"$n\" ] && [ ! -d \"/lib/modules/$k\" ]; then printf 'the modules of the kernel that runs, %s, are gone\\n' \"$k\"; fi\n";

impl Kind for Reboot {
    const NAME: &'static str = "reboot";
    const EXAMPLE: &'static str = "reboot:
  when: if_required
  timeout: 900
";

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        if !(30..=7200).contains(&self.timeout) {
            return Err(BuildError::field("timeout", "`timeout` is between 30 and 7200 seconds"));
        }
        if self.message.chars().any(char::is_control) {
            return Err(BuildError::field("message", "`message` must be one line"));
        }
        Ok(vec![Box::new(self)])
    }
}

impl Reboot {
    fn question() -> Question {
        Question::Raw { key: "reboot-required".to_owned(), script: Script::sh(REASON, &[]) }
    }
}

impl Resource for Reboot {
    fn id(&self) -> ResourceId {
        ResourceId::new(Self::NAME, if self.when == When::Always { "always" } else { "if required" })
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        if self.when == When::Always { Vec::new() } else { vec![Self::question()] }
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let reason = match self.when {
            When::Always => "asked for".to_owned(),
            When::IfRequired => {
                if let Some(id) = view.pending(|effect| matches!(effect, Effect::Package(_) | Effect::Raw(_))) {
                    return Err(Undecided::After(id.clone()));
                }
                let seen = view.raw(&Self::question())?;
                if seen.status > 1 {
                    return Err(Undecided::Unknown("whether a restart is due cannot be told".to_owned()));
                }
                if seen.stdout.is_empty() {
                    return Ok(Plan::in_sync());
                }
                seen.stdout.lines().collect::<Vec<_>>().join("; ")
            }
        };
        // A moment later, so that this step's answer still arrives.
        let script = Script::sh("m={}; command -v wall >/dev/null && printf '%s\\n' \"$m\" | wall 2>/dev/null\n", &[&self.message]).then(
            "if [ -d /run/systemd/system ]; then systemd-run --quiet --collect --on-active=2 --timer-property=AccuracySec=100ms -- systemctl reboot\n\
             else setsid sh -c 'sleep 2; exec reboot' </dev/null >/dev/null 2>&1 & fi\n",
            &[],
        );
        let mut step = Step::new("reboot", script).deadline(Duration::from_secs(self.timeout));
        step.reboots = true;
        Ok(Plan::in_sync().change(Change::of("boot", reason, "restarted")).step(step).effect(Effect::Raw("reboot-required".to_owned())))
    }

    fn severity(&self) -> Severity {
        Severity::Availability
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::{Bench, absent, raw, run, shown};

    #[test]
    fn only_if_required_or_always() {
        let bench = Bench::default();
        let resource = bench.build(Reboot::EXAMPLE);
        let mut observed = absent(&*resource);
        raw(&mut observed, &*resource, "reboot", 0, "");
        assert!(bench.plan(&*resource, &observed).unwrap().is_in_sync());
        raw(&mut observed, &*resource, "reboot", 0, "a package asks for it");
        let plan = bench.plan(&*resource, &observed).unwrap();
        assert_eq!(shown(&plan), ["boot: a package asks for it -> restarted"]);
        assert!(plan.steps[0].reboots && plan.steps[0].deadline == Duration::from_secs(900));
        let later = Bench::default().pending(Effect::Package("linux-image".into()));
        assert!(matches!(later.plan(&*resource, &observed), Err(Undecided::After(_))));
        let always = bench.build("reboot: {when: always}");
        assert_eq!(bench.plan(&*always, &absent(&*always)).unwrap().steps.len(), 1);
        assert!(bench.try_build("reboot: {timeout: 1}").is_err());
    }

    #[test]
    fn the_probe_is_sound_shell() {
        let (status, _, stderr) = run(&Script::sh(REASON, &[]), &crate::secret::Vault::default());
        assert!(status <= 1 && stderr.is_empty(), "{status} {stderr}");
    }
}
