//! `group`: a group and its number. Members are `user`'s.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::{Presence, check_account};
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Kind, Resource, ResourceId};
use crate::shell::Script;

/// Creates, changes or removes a group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The group's name.
    name: String,
    /// The group's number.
    #[serde(default)]
    gid: Option<u32>,
    /// A new group gets its number from the system's range.
    #[serde(default)]
    system: bool,
    /// `absent` removes it.
    #[serde(default)]
    state: Presence,
}

impl Kind for Group {
    const NAME: &'static str = "group";
    const EXAMPLE: &'static str = "group:
  name: soc
  gid: 3000
";
    const SHORTHAND: Option<&'static str> = Some("name");

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        check_account(&self.name).map_err(|reason| BuildError::field("name", reason))?;
        if self.state == Presence::Absent && matches!(self.name.as_str(), "root" | "sudo" | "shadow" | "adm") {
            return Err(BuildError::field("name", format!("the group `{}` is not removed by any task", self.name)));
        }
        Ok(vec![Box::new(self)])
    }
}

impl Resource for Group {
    fn id(&self) -> ResourceId {
        ResourceId::new(Self::NAME, &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        vec![Question::Group(self.name.clone())]
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let seen = view.group(&self.name)?;
        let plan = match (self.state, seen) {
            (Presence::Absent, None) => return Ok(Plan::in_sync()),
            (Presence::Absent, Some(seen)) => Plan::in_sync()
                .change(Change::remove("group", format!("{} ({})", self.name, seen.gid)))
                .step(Step::new(format!("remove group {}", self.name), Script::sh("groupdel -- {}\n", &[&self.name]))),
            (Presence::Present, None) => {
                let mut script = Script::sh("groupadd", &[]);
                if let Some(gid) = self.gid {
                    script = script.then(" -g {}", &[&gid.to_string()]);
                }
                let script = script.then(if self.system { " -r -- {}\n" } else { " -- {}\n" }, &[&self.name]);
                let plan = Plan::in_sync().change(Change::add("group", &self.name));
                let plan = if let Some(gid) = self.gid { plan.change(Change::add("gid", gid.to_string())) } else { plan };
                plan.step(Step::new(format!("add group {}", self.name), script))
            }
            (Presence::Present, Some(seen)) => {
                let Some(gid) = self.gid.filter(|gid| *gid != seen.gid) else { return Ok(Plan::in_sync()) };
                let script = Script::sh("groupmod -g {} -- {}\n", &[&gid.to_string(), &self.name]);
                Plan::in_sync()
                    .change(Change::of("gid", seen.gid.to_string(), gid.to_string()))
                    .note(format!("files keep the number {}; they are not changed", seen.gid))
                    .step(Step::new(format!("change group {}", self.name), script))
            }
        };
        Ok(plan.effect(Effect::Group(self.name.clone())))
    }
}
