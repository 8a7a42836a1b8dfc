//! `compose_stack`: a Compose stack as users write it. Reads the Compose file and what belongs to
//! it on the controller, applies the hardening overlay, and expands into the images that the stack
//! brings and one release.

pub mod arguments;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::diagnostic::nearest;
use crate::resource::argument::Presence;
use crate::resource::compose::harden::{Exception, Level, harden};
use crate::resource::compose::model::Model;
use crate::resource::compose::service::Service;
use crate::resource::compose::stack::{FileContent, Stack, StackFile, StackSecret, normalise};
use crate::resource::compose_release::{AbsentStack, ComposeRelease};
use crate::resource::docker_image::{BUSYBOX, Image, ImageSource};
use crate::resource::package::Package;
use crate::resource::{BuildContext, BuildError, Kind, Resource};
use crate::secret::{SecretName, Text};
use arguments::{
    FileArgument, Health, ImageArgument, InitArgument, MigrateArgument, PullPolicy, Registry, ReloadArgument, RequiresArgument,
    SecretArgument,
};

/// A Compose stack, brought up as a release: validated first, waited for until healthy, put back
/// if it does not get there.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComposeStack {
    /// The Compose project's name; always passed to Compose.
    pub name: String,
    /// The Compose file: a template of the role.
    #[serde(default)]
    pub template: Option<String>,
    /// The Compose file: a file of the role, as it is.
    #[serde(default)]
    pub src: Option<String>,
    /// The Compose file, written here.
    #[serde(default)]
    pub compose: Option<Value>,
    /// What `${NAME}` in the Compose file stands for. A name that is not here is an error.
    #[serde(default)]
    pub env: BTreeMap<String, Value>,
    /// Active profiles.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// Files that services mount as `./files/DEST`. A changed file recreates exactly the services
    /// that mount it, or makes them reload.
    #[serde(default)]
    pub files: Vec<FileArgument>,
    /// Compose secrets: files with the owner and mode that their consumer needs.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretArgument>,
    /// For images that read secrets only from their environment: service, variable, secret. Docker
    /// keeps these in clear, so every plan lists them.
    #[serde(default)]
    pub env_secrets: BTreeMap<String, BTreeMap<String, String>>,
    /// Images that the stack brings with it, by reference: `registry`, or as in `docker_image`.
    #[serde(default)]
    pub images: BTreeMap<String, ImageArgument>,
    /// Whether Compose may pull what is not listed under `images`: `never`, `missing`, `always`.
    #[serde(default)]
    pub pull: PullPolicy,
    /// `strict`, `baseline` or `off`.
    #[serde(default, deserialize_with = "crate::resource::compose::harden::level")]
    #[schemars(with = "Level")]
    pub hardening: Level,
    /// What services may do although the level forbids it.
    #[serde(default)]
    pub exceptions: BTreeMap<String, Exception>,
    /// Seccomp profiles by service (`default` is for all others): a file of the role, or an
    /// absolute path on the host.
    #[serde(default)]
    pub seccomp: BTreeMap<String, String>,
    /// AppArmor profiles by service (`default` is for all others), loaded by `apparmor_profile`.
    #[serde(default)]
    pub apparmor: BTreeMap<String, String>,
    /// Go on, without confinement, on a host whose kernel has no AppArmor.
    #[serde(default)]
    pub apparmor_if_available: bool,
    #[serde(default)]
    pub health: Health,
    /// How many releases the host keeps.
    #[serde(default = "five")]
    pub keep: usize,
    /// Containers of a service.
    #[serde(default)]
    pub scale: BTreeMap<String, u32>,
    /// Services that take new files without being recreated. They mount a directory, not a file.
    #[serde(default)]
    pub reload: BTreeMap<String, ReloadArgument>,
    #[serde(default)]
    pub migrate: Option<MigrateArgument>,
    /// One-off jobs in running services, once the stack is healthy.
    #[serde(default)]
    pub init: Vec<InitArgument>,
    #[serde(default)]
    pub requires: RequiresArgument,
    #[serde(default)]
    pub state: Presence,
    /// With `state: absent`: the stack's volumes go too.
    #[serde(default)]
    pub wipe_data: bool,
}

fn five() -> usize {
    5
}

impl Kind for ComposeStack {
    const NAME: &'static str = "compose_stack";
    const EXAMPLE: &'static str = "compose_stack:\n  name: hello\n  compose:\n    services:\n      web:\n        image: hello-web:1\n        user: \"1000\"\n        ports: [\"8080:8080\"]\n        volumes: [\"./files/conf:/etc/web:ro\"]\n        secrets: [token]\n  files:\n    - {content: \"greeting=hello\", dest: conf/web.conf}\n  secrets:\n    token: {secret: hello_token, uid: 1000}\n  images:\n    hello-web:1: {stand_in: {listen: [8080], user: 1000}}\n  reload:\n    web: {signal: HUP}\n";
    const SECRET_FIELDS: &'static [&'static str] = &["files"];

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if !self.name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) || !self.name.chars().all(fine) {
            let message = format!("`{}` is not a Compose project's name", self.name.escape_debug());
            return Err(BuildError::field("name", message).hint("use lower-case letters, digits, `-` and `_`"));
        }
        if self.state == Presence::Absent {
            return Ok(vec![Box::new(AbsentStack { name: self.name, wipe_data: self.wipe_data })]);
        }
        if self.wipe_data {
            return Err(BuildError::field("wipe_data", "`wipe_data` is for `state: absent`"));
        }
        let file = self.template.clone().map(|name| ("template", name)).or_else(|| self.src.clone().map(|name| ("src", name)));
        self.expand(context).map_err(|error| super::located::relocate(error, file, context))
    }
}

impl ComposeStack {
    fn expand(mut self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let mut files = self.read_files(context)?;
        let mut model = self.read_model(context)?;
        self.scale_services(&mut model)?;
        self.confine(&mut model, &mut files, context)?;
        if let Some(name) = self.secrets.keys().find(|name| model.section("secrets").contains_key(*name)) {
            let why = format!("`secrets.{name}` of the Compose file is the stack's own secret `{name}` too");
            return Err(BuildError::field("secrets", why).hint("leave it out of the Compose file: the stack declares it there by itself"));
        }
        normalise(&mut model, &files).map_err(|problems| listed("compose", &problems))?;
        let mut notes = harden(&mut model, self.hardening, &self.exceptions).map_err(|problems| listed("hardening", &problems))?;
        for service in self
            .reload
            .keys()
            .chain(self.env_secrets.keys())
            .chain(self.init.iter().map(|job| &job.service))
            .chain(self.migrate.iter().map(|migrate| &migrate.service))
        {
            known_service(&model, service)?;
        }
        notes.extend(super::located::unused_files(&model, &files));
        let secrets = self.read_secrets(&model)?;
        let services = Service::all(&self.name, &model).map_err(|problems| listed("compose", &problems))?;
        let (locked, remarks) = super::images::policy(&services, context)?;
        notes.extend(remarks);
        let mut images = self.resolve_images(&services, context)?;
        super::images::by_digest(&mut images, &locked, self.pull == PullPolicy::Never, context)?;
        let known = images.iter().filter_map(|image| Some((image.name.clone(), image.known_id()?.to_owned()))).collect();
        let apparmor = self.apparmor.values().cloned().collect();
        let stack = Stack {
            model,
            services,
            files,
            secrets,
            env_secrets: self.read_env_secrets()?,
            reload: self
                .reload
                .iter()
                .map(|(service, given)| Ok((service.clone(), given.read(service)?)))
                .collect::<Result<_, BuildError>>()?,
            images: known,
            provided: images.iter().map(|image| image.name.clone()).collect(),
            pull: self.pull.word().to_owned(),
            wait: self.health.seconds()?,
            keep: self.keep.max(2),
            migrate: self.migrate.as_ref().map(MigrateArgument::read).transpose()?,
            init: self.init.iter().map(InitArgument::read).collect::<Result<_, _>>()?,
            notes,
            requires: self.requires.read()?,
            apparmor,
            apparmor_if_available: self.apparmor_if_available,
            locked,
            name: self.name,
        };
        let mut out: Vec<Box<dyn Resource>> = Vec::new();
        if images.iter().any(Image::needs_busybox) {
            out.push(Box::new(Package::present(&[BUSYBOX])));
        }
        out.extend(images.into_iter().map(|image| Box::new(image) as Box<dyn Resource>));
        out.push(Box::new(ComposeRelease { stack }));
        Ok(out)
    }

    fn read_model(&mut self, context: &BuildContext<'_>) -> Result<Model, BuildError> {
        let mut variables = BTreeMap::from([("files".to_owned(), "./files".to_owned())]);
        for (name, value) in &self.env {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                _ => return Err(BuildError::field(&format!("env.{name}"), format!("`{name}` is neither text nor a number"))),
            };
            variables.insert(name.clone(), text);
        }
        let given = [self.template.is_some(), self.src.is_some(), self.compose.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            return Err(BuildError::from(format!("stack `{}` needs exactly one of `template`, `src`, `compose`", self.name)));
        }
        let parsed = if let Some(value) = self.compose.take() {
            Model::from_value(value, &variables, &self.profiles)
        } else if let Some(name) = &self.template {
            let text = context.sources.template(name).map_err(|error| BuildError::field("template", error))?;
            // With markers in the place of secrets, so that the model can say where one stands.
            let plain = text.as_plain().ok_or_else(|| {
                let names: Vec<String> = text.secrets().iter().map(|secret| format!("`{secret}`")).collect();
                BuildError::field("template", format!("the Compose file contains the secret {}", names.join(", ")))
                    .hint("give secrets as files (`secrets` of the stack) or, if an image reads only its environment, in `env_secrets`")
            })?;
            Model::parse(&plain, &variables, &self.profiles)
        } else {
            let name = self.src.as_deref().unwrap_or_default();
            let bytes = context.sources.file(name).map_err(|error| BuildError::field("src", error))?;
            let text = String::from_utf8(bytes).map_err(|_| BuildError::field("src", format!("`{name}` is not UTF-8 text")))?;
            Model::parse(&text, &variables, &self.profiles)
        };
        parsed.map_err(|problems| listed("compose", &problems))
    }

    fn read_files(&self, context: &BuildContext<'_>) -> Result<BTreeMap<String, StackFile>, BuildError> {
        let mut files = BTreeMap::new();
        for (index, argument) in self.files.iter().enumerate() {
            let at = |error: String| BuildError::field(&format!("files[{index}]"), error);
            for (dest, file) in argument.read(context).map_err(at)? {
                if files.insert(dest.clone(), file).is_some() {
                    return Err(at(format!("`{dest}` is given twice")));
                }
            }
        }
        Ok(files)
    }

    fn scale_services(&self, model: &mut Model) -> Result<(), BuildError> {
        for (name, count) in &self.scale {
            known_service(model, name)?;
            if let Some(service) = model.section_mut("services").get_mut(name).and_then(Value::as_object_mut) {
                service.insert("scale".to_owned(), json!(count));
                if let Some(deploy) = service.get_mut("deploy").and_then(Value::as_object_mut) {
                    deploy.remove("replicas");
                }
            }
        }
        Ok(())
    }

    /// Puts the profiles into the services' `security_opt`.
    fn confine(&self, model: &mut Model, files: &mut BTreeMap<String, StackFile>, context: &BuildContext<'_>) -> Result<(), BuildError> {
        let services: Vec<String> = model.section("services").keys().cloned().collect();
        for (kind, profiles) in [("seccomp", &self.seccomp), ("apparmor", &self.apparmor)] {
            for name in profiles.keys().filter(|name| *name != "default") {
                known_service(model, name)?;
            }
            for service in &services {
                let Some(profile) = profiles.get(service).or_else(|| profiles.get("default")) else { continue };
                let value = if kind == "apparmor" || profile.starts_with('/') || profile == "unconfined" {
                    profile.clone()
                } else {
                    let dest = format!("seccomp/{}", profile.rsplit('/').next().unwrap_or(profile));
                    if !files.contains_key(&dest) {
                        let bytes =
                            context.sources.file(profile).map_err(|error| BuildError::field(&format!("seccomp.{service}"), error))?;
                        let text = String::from_utf8(bytes)
                            .map_err(|_| BuildError::field(&format!("seccomp.{service}"), format!("`{profile}` is not text")))?;
                        files
                            .insert(dest.clone(), StackFile { content: FileContent::Text(Text::plain(text)), mode: 0o644, uid: 0, gid: 0 });
                    }
                    format!("./{dest}")
                };
                let Some(map) = model.section_mut("services").get_mut(service).and_then(Value::as_object_mut) else { continue };
                if let Value::Array(options) = map.entry("security_opt").or_insert_with(|| json!([])) {
                    options.retain(|option| !option.as_str().is_some_and(|option| option.starts_with(kind)));
                    options.push(json!(format!("{kind}:{value}")));
                }
            }
        }
        Ok(())
    }

    fn read_secrets(&self, model: &Model) -> Result<BTreeMap<String, StackSecret>, BuildError> {
        let mut used = BTreeSet::new();
        for (service, map) in model.services() {
            for item in map.get("secrets").and_then(Value::as_array).into_iter().flatten() {
                let name = item.as_str().or_else(|| item.get("source").and_then(Value::as_str)).unwrap_or_default();
                if !self.secrets.contains_key(name) && !model.section("secrets").contains_key(name) {
                    let hint = nearest(name, self.secrets.keys().map(String::as_str))
                        .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                    return Err(BuildError::field(
                        "secrets",
                        format!("secret `{name}` of service `{service}` is not under the stack's `secrets`{hint}"),
                    ));
                }
                used.insert(name.to_owned());
            }
        }
        let mut out = BTreeMap::new();
        for (name, argument) in &self.secrets {
            let field = format!("secrets.{name}");
            if !used.contains(name) {
                return Err(
                    BuildError::field(&field, format!("no service uses secret `{name}`")).hint("list it under the service's `secrets`")
                );
            }
            let secret = SecretName::parse(&argument.secret).map_err(|error| BuildError::field(&field, error))?;
            let mode = arguments::mode(argument.mode.as_deref(), 0o400).map_err(|error| BuildError::field(&field, error))?;
            let gid = argument.gid.unwrap_or(argument.uid);
            out.insert(name.clone(), StackSecret { secret, uid: argument.uid, gid, mode, path: argument.path.clone() });
        }
        Ok(out)
    }

    fn read_env_secrets(&self) -> Result<BTreeMap<String, BTreeMap<String, SecretName>>, BuildError> {
        let mut out: BTreeMap<String, BTreeMap<String, SecretName>> = BTreeMap::new();
        for (service, variables) in &self.env_secrets {
            for (variable, secret) in variables {
                let secret =
                    SecretName::parse(secret).map_err(|error| BuildError::field(&format!("env_secrets.{service}.{variable}"), error))?;
                out.entry(service.clone()).or_default().insert(variable.clone(), secret);
            }
        }
        Ok(out)
    }

    fn resolve_images(&mut self, services: &[Service], context: &BuildContext<'_>) -> Result<Vec<Image>, BuildError> {
        let mut out = Vec::new();
        for (name, argument) in std::mem::take(&mut self.images) {
            if !services.iter().any(|service| service.image == name) {
                let known: BTreeSet<&str> = services.iter().map(|service| service.image.as_str()).collect();
                let hint = nearest(&name, known).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                return Err(BuildError::field("images", format!("no service uses image `{name}`{hint}")));
            }
            let source = match argument {
                ImageArgument::Registry(Registry::Registry) => ImageSource::default(),
                ImageArgument::Source(source) => source,
            };
            out.push(Image::resolve(name, source, Presence::Present, context)?);
        }
        Ok(out)
    }
}

fn known_service(model: &Model, name: &str) -> Result<(), BuildError> {
    let services = model.section("services");
    if services.contains_key(name) {
        return Ok(());
    }
    let hint = nearest(name, services.keys().map(String::as_str)).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    Err(BuildError::from(format!("`{name}` is no service of the stack{hint}")))
}

/// Several problems as one error.
fn listed(field: &str, problems: &[String]) -> BuildError {
    match problems {
        [one] => BuildError::field(field, one.clone()),
        all => BuildError::field(field, format!("{} problems:\n- {}", all.len(), all.join("\n- "))),
    }
}
