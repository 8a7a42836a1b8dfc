//! A certificate that the TLS front gets by itself: what its state file says, and nothing of the
//! keys in it, which never leave the host.

use std::time::Duration;

use base64::Engine as _;

use super::{DAY, clock, date, now};
use crate::facts::Facts;
use crate::resource::check::{Check, CheckKind};
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{Claim, Resource, ResourceId, Severity, fragment};
use crate::secret::certificate::{Certificate, read};
use crate::shell::Script;

/// How long the front may take to get its first certificate.
const FIRST: Duration = Duration::from_secs(120);

/// The front's own business, watched.
#[derive(Debug)]
pub(super) struct Acme {
    pub(super) name: String,
    pub(super) names: Vec<String>,
    pub(super) file: String,
    pub(super) renew_before: u32,
}

/// Prints each certificate of the state file in base64, a line each. The keys beside them are left
/// where they are.
const CERTIFICATES: &str = r#"tr -d ' \t\n' <"$f" | grep -o '"certificate":"[^"]*"' | cut -d'"' -f4"#;

impl Acme {
    fn question(&self) -> Question {
        let script = Script::sh("f={}; [ -f \"$f\" ] || exit 0\n", &[&self.file]).then(CERTIFICATES, &[]).then("\n", &[]);
        Question::Raw { key: format!("acme {}", self.file), script }
    }

    /// The certificate for these names that lasts longest.
    fn best(&self, output: &str) -> Option<Certificate> {
        let decode = |line: &str| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(line.trim()).ok()?;
            read(std::str::from_utf8(&bytes).ok()?).ok()
        };
        let good = output.lines().filter_map(decode).filter(|found| self.names.iter().all(|name| found.covers(name)));
        good.max_by_key(|found| found.not_after)
    }
}

impl Resource for Acme {
    fn id(&self) -> ResourceId {
        ResourceId::new("tls_certificate", &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        vec![Question::Path(self.file.clone()), self.question(), clock()]
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let Some(state) = view.path(&self.file)? else {
            return Ok(Plan::in_sync().note(format!("`{}` is not there yet: the front makes it and asks for its certificate", self.file)));
        };
        let mut plan = Plan::in_sync();
        if state.mode & 0o077 != 0 {
            plan = plan
                .change(Change::of("mode", format!("{:04o}", state.mode), "0600"))
                .step(Step::new(format!("set the mode of {}", self.file), fragment::attributes(&self.file, None, None, Some(0o600))))
                .effect(Effect::Path(self.file.clone()));
        }
        let names = self.names.join(", ");
        let Some(found) = self.best(&view.raw(&self.question())?.stdout) else {
            return Ok(plan.note(format!("the front has no certificate for {names} yet")));
        };
        let left = found.not_after - now(view)?;
        if left <= 0 {
            return Err(Undecided::Unknown(format!(
                "the front's certificate for {names} ended on {}: it could not renew it, its log says why",
                date(found.not_after)
            )));
        }
        if left < i64::from(self.renew_before) * DAY {
            plan = plan.note(format!("the front's certificate for {names} ends on {}: it should have renewed it", date(found.not_after)));
        }
        Ok(plan)
    }

    fn checks(&self) -> Vec<Check> {
        let first = self.names.first().map_or("", String::as_str);
        let script = Script::sh("f={} n={}\ncommand -v openssl >/dev/null || { echo 'openssl is not on the host' >&2; exit 1; }\n", &[&self.file, first])
            .then(CERTIFICATES, &[])
            .then(
                " | while read -r c; do p=$(printf %s \"$c\" | base64 -d); if printf '%s\\n' \"$p\" | openssl x509 -noout -checkhost \"$n\" | grep -q 'does match' && printf '%s\\n' \"$p\" | openssl x509 -noout -checkend 0 >/dev/null; then echo good; fi; done\n",
                &[],
            );
        vec![Check {
            id: format!("{} is valid", self.id()),
            kind: CheckKind::Command { script, contains: Some("good".to_owned()) },
            within: FIRST,
            every: Duration::from_secs(5),
            each: Check::EACH,
        }]
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::Path(self.file.clone())]
    }
}
