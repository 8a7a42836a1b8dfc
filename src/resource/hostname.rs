//! `hostname`: the host's name, now and after a reboot. `/etc/hosts` is left alone.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::managed::{Body, ManagedFile};
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Resource, ResourceId};
use crate::secret::Text;
use crate::shell::Script;

/// Names the host.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hostname {
    /// The name: letters, digits and `-`, in parts separated by dots.
    name: String,
}

impl Kind for Hostname {
    const NAME: &'static str = "hostname";
    const EXAMPLE: &'static str = "hostname: waf-1
";
    const SHORTHAND: Option<&'static str> = Some("name");

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let part = |part: &str| {
            let fine = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            !part.is_empty() && part.len() <= 63 && fine && !part.starts_with('-') && !part.ends_with('-')
        };
        if self.name.len() > 64 || !self.name.split('.').all(part) {
            return Err(BuildError::field("name", format!("`{}` is not a host's name", self.name.escape_debug()))
                .hint("use letters, digits and `-`, at most 64 in all"));
        }
        let file = ManagedFile::new("/etc/hostname", Body::Text(Text::plain(format!("{}\n", self.name))));
        Ok(vec![Box::new(Name { name: self.name, file })])
    }
}

#[derive(Debug)]
struct Name {
    name: String,
    file: ManagedFile,
}

impl Resource for Name {
    fn id(&self) -> ResourceId {
        ResourceId::new(Hostname::NAME, &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        self.file.questions().into_iter().chain([Question::Sysctl("kernel.hostname".to_owned())]).collect()
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let mut plan = self.file.plan(view)?;
        let seen = view.sysctl("kernel.hostname")?.map(String::as_str).unwrap_or_default();
        if seen != self.name {
            let script = Script::sh("printf '%s\\n' {} >/proc/sys/kernel/hostname\n", &[&self.name]);
            plan = plan
                .change(Change::of("name", seen, &self.name))
                .step(Step::new(format!("name the host {}", self.name), script))
                .effect(Effect::Sysctl("kernel.hostname".to_owned()));
        }
        Ok(plan)
    }

    fn claims(&self) -> Vec<Claim> {
        vec![Claim::Path(self.file.path.clone())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::observe::Answer;
    use crate::resource::testing::{Bench, absent, shown};

    #[test]
    fn now_and_on_disk() {
        let bench = Bench::default().pending(Effect::Path("/etc".into()));
        let resource = bench.build(Hostname::EXAMPLE);
        let mut observed = absent(&*resource);
        observed.insert(Question::Sysctl("kernel.hostname".into()), Answer::Line(Some("old".into())));
        assert_eq!(shown(&bench.plan(&*resource, &observed).unwrap()), ["content: - -> \"waf-1\\n\"", "name: old -> waf-1"]);
        for wrong in ["a b", "-a", "a..b", "x;id", ""] {
            assert!(bench.try_build(&serde_json::json!({ "hostname": wrong }).to_string()).is_err(), "{wrong}");
        }
    }
}
