//! `kernel_module`: a module of the kernel, loaded now and at every boot.
//!
//! Reads whether it is loaded or built in, and the digest of its file in `/etc/modules-load.d`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::{Presence, check_name};
use crate::resource::managed::{Body, ManagedFile, remove_file};
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Resource, ResourceId};
use crate::secret::Text;
use crate::shell::Script;

/// Loads a kernel module.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelModule {
    /// The module's name.
    name: String,
    /// `absent` unloads it and no longer loads it at boot.
    #[serde(default)]
    state: Presence,
    /// Load it at every boot too.
    #[serde(default = "yes")]
    persistent: bool,
}

fn yes() -> bool {
    true
}

impl Kind for KernelModule {
    const NAME: &'static str = "kernel_module";
    const EXAMPLE: &'static str = "kernel_module:
  name: br_netfilter
";
    const SHORTHAND: Option<&'static str> = Some("name");

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        check_name("name", "kernel module", &self.name, "_-")?;
        let path = format!("/etc/modules-load.d/soc-provision-{}.conf", self.name);
        let text = format!("# Managed by soc-provision.\n{}\n", self.name);
        let wanted = self.state == Presence::Present && self.persistent;
        let file = wanted.then(|| ManagedFile { make_parent: true, ..ManagedFile::new(path.clone(), Body::Text(Text::plain(text))) });
        Ok(vec![Box::new(Module { spec: self, path, file })])
    }
}

/// One module.
#[derive(Debug)]
struct Module {
    spec: KernelModule,
    path: String,
    file: Option<ManagedFile>,
}

impl Resource for Module {
    fn id(&self) -> ResourceId {
        ResourceId::new(KernelModule::NAME, &self.spec.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let file = self.file.as_ref().map_or_else(|| vec![Question::Path(self.path.clone())], ManagedFile::questions);
        file.into_iter().chain([Question::Module(self.spec.name.clone())]).collect()
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let name = &self.spec.name;
        let loaded = view.module(name)?;
        let wanted = self.spec.state == Presence::Present;
        let mut plan = Plan::in_sync();
        if loaded != wanted {
            let (change, script) = if wanted {
                (Change::add("module", "loaded"), Script::sh("modprobe -- {}\n", &[name]))
            } else {
                (Change::remove("module", "loaded"), Script::sh("modprobe -r -- {}\n", &[name]))
            };
            let title = format!("{} module {name}", if wanted { "load" } else { "unload" });
            plan = plan.change(change).step(Step::new(title, script)).effect(Effect::Module(name.clone()));
        }
        let mut file = match &self.file {
            Some(file) => file.plan(view)?,
            None => remove_file(view, &self.path)?,
        };
        for change in &mut file.changes {
            change.field = format!("at boot: {}", change.field);
        }
        Ok(plan.and(file))
    }

    fn claims(&self) -> Vec<Claim> {
        self.file.iter().map(|file| Claim::Path(file.path.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::observe::Answer;
    use crate::resource::testing::{Bench, absent, shown};

    #[test]
    fn loaded_now_and_at_boot() {
        let bench = Bench::default();
        let resource = bench.build("kernel_module: br_netfilter");
        let mut observed = absent(&*resource);
        let text = "at boot: content: - -> \"# Managed by soc-provision.\\nbr_netfilter\\n\"";
        assert_eq!(shown(&bench.plan(&*resource, &observed).unwrap()), ["module: - -> loaded", text]);
        observed.insert(Question::Module("br_netfilter".into()), Answer::Line(Some("loaded".into())));
        assert_eq!(shown(&bench.plan(&*resource, &observed).unwrap()), [text]);
        let gone = bench.build("kernel_module: {name: br_netfilter, state: absent}");
        let mut loaded = absent(&*gone);
        assert!(bench.plan(&*gone, &loaded).unwrap().is_in_sync());
        loaded.insert(Question::Module("br_netfilter".into()), Answer::Line(Some("loaded".into())));
        assert_eq!(shown(&bench.plan(&*gone, &loaded).unwrap()), ["module: loaded -> -"]);
        assert!(bench.try_build("kernel_module: \"a b\"").is_err());
    }
}
