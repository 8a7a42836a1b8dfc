//! Kinds for the tests of this directory, so that they do not depend on the real ones.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::{BuildContext, BuildError, Kind, KindEntry, Plan, Question, Resource, ResourceId, Undecided, View};
use crate::secret::{SecretName, Text};

/// All of them.
pub(super) const KINDS: &[KindEntry] = &[KindEntry::of::<TestKind>()];

/// Records what it was given.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TestKind {
    name: String,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    count: Option<u32>,
    #[serde(default)]
    template: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    content: Option<Text>,
    #[serde(default)]
    nested: Option<Nested>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nested {
    #[serde(default)]
    ports: Vec<u16>,
}

impl Kind for TestKind {
    const NAME: &'static str = "test_kind";
    const EXAMPLE: &'static str = "test_kind: x";
    const SHORTHAND: Option<&'static str> = Some("name");
    const SECRET_FIELDS: &'static [&'static str] = &["content"];

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let text = match &self.template {
            Some(name) => Some(context.sources.template(name).map_err(|message| BuildError::field("template", message))?),
            None => self.content.clone(),
        };
        if self.name == "bad" {
            return Err(BuildError::field("name", "it is bad").hint("be good"));
        }
        let nested = self.nested.map(|nested| nested.ports).unwrap_or_default();
        let summary = format!(
            "{} mode={:?} enabled={} count={:?} nested={nested:?} user={:?}",
            self.name, self.mode, self.enabled, self.count, context.become_user
        );
        Ok(vec![Box::new(TestResource { name: self.name, summary, text })])
    }
}

pub(super) struct TestResource {
    name: String,
    summary: String,
    text: Option<Text>,
}

impl std::fmt::Debug for TestResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.summary)?;
        self.text.as_ref().map_or(Ok(()), |text| write!(f, " text={text}"))
    }
}

impl Resource for TestResource {
    fn id(&self) -> ResourceId {
        ResourceId::new("test_kind", &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        Vec::new()
    }

    fn plan(&self, _: &View<'_>) -> Result<Plan, Undecided> {
        Ok(Plan::in_sync())
    }

    fn secrets(&self) -> Vec<SecretName> {
        self.text.as_ref().map(Text::secrets).unwrap_or_default()
    }
}
