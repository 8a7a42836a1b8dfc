//! `cron`: a job in a file of its own in `/etc/cron.d`. Users' crontabs are left alone.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::{Presence, check_account, check_name};
use crate::resource::managed::{Body, ManagedFile, remove_file};
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Plan, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Resource, ResourceId};
use crate::secret::Text;

/// Runs a job at times, by cron.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cron {
    /// Name of the file in `/etc/cron.d`: letters, digits, `_` and `-`; cron ignores others.
    name: String,
    /// What to run. A `%` in it is a line break to cron unless written `\%`.
    #[serde(default)]
    job: Option<String>,
    /// User that it runs as.
    #[serde(default = "root")]
    user: String,
    /// Minute: `0` to `59`, `*/5`.
    #[serde(default = "every")]
    minute: String,
    /// Hour: `0` to `23`.
    #[serde(default = "every")]
    hour: String,
    /// Day of the month: `1` to `31`.
    #[serde(default = "every")]
    day: String,
    /// Month: `1` to `12`.
    #[serde(default = "every")]
    month: String,
    /// Day of the week: `0` (Sunday) to `6`.
    #[serde(default = "every")]
    weekday: String,
    /// Instead of times: `reboot`, `hourly`, `daily`, `weekly`, `monthly`, `yearly`.
    #[serde(default)]
    special_time: Option<SpecialTime>,
    /// Variables, such as `MAILTO`.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// `absent` removes the job.
    #[serde(default)]
    state: Presence,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum SpecialTime {
    Reboot,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

fn root() -> String {
    "root".to_owned()
}

fn every() -> String {
    "*".to_owned()
}

impl Kind for Cron {
    const NAME: &'static str = "cron";
    const EXAMPLE: &'static str = "cron:
  name: purge-captures
  minute: \"15\"
  hour: \"3\"
  job: find /srv/captures -mtime +30 -delete
";

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        check_name("name", "job", &self.name, "_-")?;
        check_account(&self.user).map_err(|reason| BuildError::field("user", reason))?;
        let path = format!("/etc/cron.d/{}", self.name);
        let file = match self.state {
            Presence::Absent => None,
            Presence::Present => Some(ManagedFile::new(path.clone(), Body::Text(Text::plain(self.table()?)))),
        };
        Ok(vec![Box::new(Job { name: self.name, path, file })])
    }
}

impl Cron {
    fn table(&self) -> Result<String, BuildError> {
        let job = self.job.as_deref().unwrap_or_default().trim();
        if job.is_empty() || job.chars().any(char::is_control) {
            return Err(BuildError::field("job", "`job` must be one line"));
        }
        let mut text = "# Managed by soc-provision.\n".to_owned();
        for (name, value) in &self.environment {
            check_name("environment", "variable", name, "_")?;
            if value.chars().any(char::is_control) {
                return Err(BuildError::field("environment", format!("`{name}` must be one line")));
            }
            text.extend([name.as_str(), "=", value.as_str(), "\n"]);
        }
        let when = if let Some(special) = self.special_time {
            format!("@{special:?}").to_lowercase()
        } else {
            let times =
                [("minute", &self.minute), ("hour", &self.hour), ("day", &self.day), ("month", &self.month), ("weekday", &self.weekday)];
            for (field, time) in times {
                if time.is_empty() || !time.chars().all(|c| c.is_ascii_alphanumeric() || "*/,-".contains(c)) {
                    return Err(BuildError::field(field, format!("`{}` is not a time for cron", time.escape_debug())));
                }
            }
            times.map(|(_, time)| time.as_str()).join(" ")
        };
        text.extend([when.as_str(), " ", self.user.as_str(), " ", job, "\n"]);
        Ok(text)
    }
}

/// One file in `/etc/cron.d`.
#[derive(Debug)]
struct Job {
    name: String,
    path: String,
    file: Option<ManagedFile>,
}

impl Resource for Job {
    fn id(&self) -> ResourceId {
        ResourceId::new(Cron::NAME, &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        self.file.as_ref().map_or_else(|| vec![Question::Path(self.path.clone())], ManagedFile::questions)
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        match &self.file {
            Some(file) => file.plan(view),
            None => remove_file(view, &self.path),
        }
    }

    fn claims(&self) -> Vec<Claim> {
        self.file.iter().map(|file| Claim::Path(file.path.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::plan::Effect;
    use crate::resource::testing::{Bench, absent, shown};

    #[test]
    fn the_table_is_one_line_and_a_head() {
        let bench = Bench::default().pending(Effect::Package("cron".into()));
        let text = |yaml: &str| {
            let resource = bench.build(yaml);
            shown(&bench.plan(&*resource, &absent(&*resource)).unwrap())
        };
        let head = "content: - -> \"# Managed by soc-provision.\\n";
        assert_eq!(text(Cron::EXAMPLE), [format!("{head}15 3 * * * root find /srv/captures -mtime +30 -delete\\n\"")]);
        let special = "cron: {name: x, job: \"true\", special_time: reboot, user: ana, environment: {MAILTO: ''}}";
        assert_eq!(text(special), [format!("{head}MAILTO=\\n@reboot ana true\\n\"")]);
        let gone = bench.build("cron: {name: x, state: absent}");
        assert!(bench.plan(&*gone, &absent(&*gone)).unwrap().is_in_sync());
        for wrong in ["name: a.b, job: x", "name: x, job: \"x\\ny\"", "name: x, job: x, minute: \"* * *\"", "name: x"] {
            assert!(bench.try_build(&format!("cron: {{{wrong}}}")).is_err(), "{wrong}");
        }
    }
}
