//! Places of a host of which the project knows everything: what is there and not declared is
//! reported by `drift`. Changes nothing and removes nothing.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::observe::View;
use crate::resource::plan::{Plan, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Place, Question, Resource, ResourceId, Severity};

/// Places of which the project knows everything.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Owned {
    /// `containers`, `networks`, `volumes`, `ports`, `users`, `authorized_keys`, `cron`, `timers`, `units`, `nft_tables`,
    /// `sudoers`, `repositories`, `package_config`, `setuid`, `startup`, or `directory: PATH`.
    #[serde(default)]
    places: Vec<Place>,
    /// What is there when the project is first applied to a host came with the host: it is accepted, and listed as such.
    /// Only what comes later is drift.
    #[serde(default)]
    baseline: bool,
    /// Drift that is known and accepted.
    #[serde(default)]
    ignore: Vec<Ignore>,
    /// How bad drift of a resource is, where its kind's opinion does not fit: `"file[/etc/motd]": info`.
    #[serde(default)]
    severity: BTreeMap<String, Severity>,
}

/// Drift that is accepted.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ignore {
    /// As drift names it: `user[ubuntu]`; `*` stands for anything.
    what: String,
    /// Why it is there.
    reason: String,
    /// The last day on which it is accepted, `2027-01-31`.
    until: Option<String>,
}

impl Kind for Owned {
    const NAME: &'static str = "owned";
    const EXAMPLE: &'static str = "owned:\n  places: [containers, users, sudoers]\n  ignore:\n    - {what: \"user[ubuntu]\", reason: the image brings it, until: 2027-01-31}\n  severity: {\"file[/etc/motd]\": info}\n";

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let day = |until: &String| {
            until.len() == 10
                && until.bytes().enumerate().all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() })
        };
        if let Some(wrong) = self.ignore.iter().filter_map(|ignore| ignore.until.as_ref()).find(|until| !day(until)) {
            return Err(BuildError::field("ignore", format!("`{}` is not a date", wrong.escape_debug())).hint("write it as 2027-01-31"));
        }
        for what in self.ignore.iter().map(|ignore| &ignore.what).chain(self.severity.keys()) {
            if !what.contains('[') || !what.ends_with(']') {
                return Err(BuildError::field("ignore", format!("`{}` names no resource", what.escape_debug()))
                    .hint("write it as drift prints it, such as `user[ubuntu]`"));
            }
        }
        if let Some(Place::Directory(path)) =
            self.places.iter().find(|place| matches!(place, Place::Directory(path) if !path.starts_with('/') || path == "/"))
        {
            return Err(BuildError::field("places", format!("`{}` is not an absolute path of a directory", path.escape_debug())));
        }
        Ok(vec![Box::new(self)])
    }
}

impl Resource for Owned {
    fn id(&self) -> ResourceId {
        ResourceId::new("owned", "places")
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        Vec::new()
    }

    fn plan(&self, _: &View<'_>) -> Result<Plan, Undecided> {
        Ok(Plan::in_sync())
    }

    fn claims(&self) -> Vec<Claim> {
        let accepted =
            self.ignore.iter().cloned().map(|ignore| Claim::Accepts { what: ignore.what, reason: ignore.reason, until: ignore.until });
        let weighed = self.severity.iter().map(|(what, severity)| Claim::Weighs { what: what.clone(), severity: *severity });
        let inherited = self.places.iter().filter(|_| self.baseline).cloned().map(Claim::Inherits);
        self.places.iter().cloned().map(Claim::Owns).chain(inherited).chain(accepted).chain(weighed).collect()
    }
}
