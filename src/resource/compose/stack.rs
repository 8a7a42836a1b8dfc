//! A stack as declared, whole: the model with everything that belongs to it. What `render.rs`
//! turns into a release once secrets' digests are known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::model::{Model, items};
use super::service::{Service, host_name};
use crate::secret::{SecretName, Text};

/// Where stacks live on a host.
pub const ROOT: &str = "/var/lib/soc-provision/stacks";

/// A stack.
#[derive(Clone, Debug)]
pub struct Stack {
    /// The Compose project's name.
    pub name: String,
    pub model: Model,
    /// In dependency order.
    pub services: Vec<Service>,
    /// Files that services mount, by their path below `files/`.
    pub files: BTreeMap<String, StackFile>,
    /// Compose secrets by name.
    pub secrets: BTreeMap<String, StackSecret>,
    /// Secrets in environments: service, variable, secret. Exceptions, listed in every plan.
    pub env_secrets: BTreeMap<String, BTreeMap<String, SecretName>>,
    /// Services that take new files without being recreated.
    pub reload: BTreeMap<String, Reload>,
    /// Ids of images where the controller knows them (archives), by reference.
    pub images: BTreeMap<String, String>,
    /// References that the stack's own `docker_image` resources provide.
    pub provided: BTreeSet<String>,
    /// Whether Compose may pull: `never`, `missing`, `always`.
    pub pull: String,
    /// Seconds that a service may take to become healthy.
    pub wait: u64,
    /// Releases to keep.
    pub keep: usize,
    pub migrate: Option<Migration>,
    /// One-off jobs in running services, in order.
    pub init: Vec<Job>,
    /// Said in every plan: exceptions and warnings.
    pub notes: Vec<String>,
    /// What the host must have.
    pub requires: Requirements,
    /// AppArmor profiles that services ask for, and whether a host without AppArmor may go on.
    pub apparmor: BTreeSet<String>,
    pub apparmor_if_available: bool,
    /// Images that the project has locked, by reference.
    pub locked: BTreeMap<String, Locked>,
}

/// An image as `images.lock` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// The registry's digest.
    pub digest: Option<String>,
    /// Ids that it may have on a host.
    pub ids: Vec<String>,
    /// `images.lock:5`.
    pub at: String,
}

impl Locked {
    /// Whether what a host has under the name is the image.
    #[must_use]
    pub fn fits(&self, inspect: &Value) -> bool {
        let id = inspect.get("Id").and_then(Value::as_str).unwrap_or_default();
        let digests = inspect.get("RepoDigests").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let mut digests = digests.filter_map(|digest| digest.split_once('@').map(|(_, digest)| digest));
        self.ids.iter().any(|known| known == id)
            || self.digest.as_deref().is_some_and(|wanted| wanted == id || digests.any(|digest| digest == wanted))
    }
}

/// A file of a stack.
#[derive(Clone, Debug)]
pub struct StackFile {
    pub content: FileContent,
    pub mode: u32,
    /// As seen inside containers; shifted on hosts with user namespaces.
    pub uid: u32,
    pub gid: u32,
}

/// A file's bytes.
#[derive(Clone, Debug)]
pub enum FileContent {
    /// Sent inside a script.
    Text(Text),
    /// Sent as an upload: binary or large. Path on the controller, SHA-256.
    Upload(PathBuf, String),
}

/// A file secret of a stack.
#[derive(Clone, Debug)]
pub struct StackSecret {
    pub secret: SecretName,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Laid by another resource at this path, instead of by the stack.
    pub path: Option<String>,
}

/// How a service takes new files.
#[derive(Clone, Debug)]
pub enum Reload {
    /// To its first process.
    Signal(String),
    /// A command in the container.
    Command(Vec<String>),
}

/// A change of data that goes with a release.
#[derive(Clone, Debug)]
pub struct Migration {
    /// Runs once for each value.
    pub id: String,
    /// The service whose image runs the commands.
    pub service: String,
    pub backup: Option<String>,
    pub run: String,
    pub verify: Option<String>,
    pub restore: Option<String>,
    /// Older releases cannot read the data afterwards.
    pub incompatible: bool,
}

impl Migration {
    /// How an older release gets data that it can read: `compatible`, `restore`, `incompatible`.
    #[must_use]
    pub fn undone(&self) -> &'static str {
        match &self.restore {
            Some(_) => "restore",
            None if self.incompatible => "incompatible",
            None => "compatible",
        }
    }
}

/// A one-off job in a running service, run again when its text changes.
#[derive(Clone, Debug)]
pub struct Job {
    pub name: String,
    pub service: String,
    pub command: String,
    /// Succeeds inside the service if there is nothing to do.
    pub unless: Option<String>,
}

/// What the host must have: sums are the preflight's, single figures are compared in every plan.
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    /// Bytes.
    pub memory: Option<u64>,
    /// Thousand-millionths.
    pub nano_cpus: Option<u64>,
    /// Free bytes by path.
    pub disk: BTreeMap<String, u64>,
    /// Kernel settings and their least values.
    pub sysctl: BTreeMap<String, u64>,
}

impl Stack {
    /// The stack's directory on the host.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("{ROOT}/{}", self.name)
    }

    /// Whether new files of a service are put where it finds them, without recreating it.
    #[must_use]
    pub fn reloads(&self, service: &str) -> bool {
        self.reload.contains_key(service)
    }

    /// Files at or below a path.
    pub fn files_below<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a str, &'a StackFile)> {
        self.files.iter().filter_map(move |(dest, file)| {
            let rest = dest.strip_prefix(path)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((rest, file))
        })
    }

    /// Seccomp profiles that other resources lay on the host, by absolute path. Docker's client reads
    /// them once, when it makes a container, so their content belongs to the service's inputs.
    #[must_use]
    pub fn host_profiles(&self) -> BTreeSet<String> {
        let options = self.model.services().flat_map(|(_, service)| items(service.get("security_opt")));
        options
            .filter_map(|option| Some(option.as_str()?.strip_prefix("seccomp:")?.to_owned()))
            .filter(|path| path.starts_with('/'))
            .collect()
    }

    /// Names on the host of its networks and volumes.
    #[must_use]
    pub fn objects(&self) -> BTreeSet<String> {
        let declared = ["networks", "volumes"]
            .into_iter()
            .flat_map(|section| self.model.section(section))
            .map(|(key, declared)| host_name(&self.name, key, Some(declared)));
        self.services.iter().flat_map(|service| service.networks.iter().cloned()).chain(declared).collect()
    }

    /// Absolute paths on the host that services mount and the stack does not make: service, path.
    #[must_use]
    pub fn host_paths(&self) -> BTreeSet<(String, String)> {
        let mut out = BTreeSet::new();
        for (name, service) in self.model.services() {
            for entry in binds(service) {
                if let Some(source) = entry.get("source").and_then(Value::as_str)
                    && source.starts_with('/')
                {
                    out.insert((name.clone(), source.to_owned()));
                }
            }
        }
        for (key, volume) in self.model.section("volumes") {
            let options = volume.get("driver_opts");
            let bind =
                options.and_then(|options| options.get("o")).and_then(Value::as_str).is_some_and(|o| o.split(',').any(|o| o == "bind"));
            if let Some(device) = options.and_then(|options| options.get("device")).and_then(Value::as_str)
                && bind
            {
                out.insert((format!("volume {key}"), device.to_owned()));
            }
        }
        out
    }
}

/// A service's bind mounts in the long form.
pub fn binds(service: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    service
        .get("volumes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|entry| entry.get("type").and_then(Value::as_str) == Some("bind"))
}

/// Brings bind mounts, seccomp profiles and files of a model into one form: sources are absolute,
/// or `./PATH` of one of the stack's files. Docker makes a directory of a source that is missing;
/// the long form says that it must not.
///
/// # Errors
/// Sources that nobody makes, as sentences.
pub fn normalise(model: &mut Model, files: &BTreeMap<String, StackFile>) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    let mut own = |what: &str, source: &str| match relative(source) {
        None => source.to_owned(),
        Some(path) => {
            let below = format!("{path}/");
            if !files.keys().any(|dest| *dest == path || dest.starts_with(&below)) {
                problems.push(format!("`{source}` of {what} is nobody's: add it to the stack's `files`, or give an absolute path"));
            }
            format!("./{path}")
        }
    };
    for (name, service) in model.services_mut() {
        let what = format!("service `{name}`");
        if let Some(Value::Array(entries)) = service.get_mut("volumes") {
            for entry in entries.iter_mut() {
                *entry = long_bind(entry, |source| own(&what, source));
            }
        }
        if let Some(Value::Array(options)) = service.get_mut("security_opt") {
            for option in options.iter_mut() {
                let profile = option.as_str().and_then(|text| text.strip_prefix("seccomp:").or_else(|| text.strip_prefix("seccomp=")));
                if let Some(profile) = profile.filter(|profile| *profile != "unconfined").map(str::to_owned) {
                    *option = json!(format!("seccomp:{}", own(&what, &profile)));
                }
            }
        }
        match service.get_mut("env_file") {
            Some(Value::String(path)) => *path = own(&what, path),
            Some(Value::Array(entries)) => {
                for entry in entries.iter_mut() {
                    let slot = if entry.is_object() { entry.get_mut("path") } else { Some(entry) };
                    if let Some(Value::String(path)) = slot {
                        *path = own(&what, path);
                    }
                }
            }
            _ => {}
        }
    }
    for section in ["configs", "secrets"] {
        for (key, entry) in model.section_mut(section).iter_mut() {
            if let Some(Value::String(path)) = entry.get_mut("file") {
                *path = own(&format!("`{section}.{key}`"), path);
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// The path below `files/` that a relative source means: `./files/x`, `files/x`, `./x`.
fn relative(source: &str) -> Option<String> {
    if source.starts_with('/') {
        return None;
    }
    let path = source.trim_start_matches("./").trim_end_matches('/');
    Some(path.strip_prefix("files/").unwrap_or(path).to_owned())
}

fn long_bind(entry: &Value, own: impl FnOnce(&str) -> String) -> Value {
    if let Some(text) = entry.as_str() {
        let mut parts = text.splitn(3, ':');
        let (Some(source), Some(target)) = (parts.next(), parts.next()) else { return entry.clone() };
        if !source.starts_with(['/', '.', '~']) {
            return entry.clone();
        }
        let mut long = json!({"type": "bind", "source": own(source), "target": target, "bind": {"create_host_path": false}});
        for option in parts.next().unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => long["read_only"] = json!(true),
                "z" | "Z" => long["bind"]["selinux"] = json!(option),
                "rw" | "cached" | "delegated" | "consistent" => {}
                propagation => long["bind"]["propagation"] = json!(propagation),
            }
        }
        return long;
    }
    let mut long = entry.clone();
    if long.get("type").and_then(Value::as_str) == Some("bind") {
        if let Some(source) = entry.get("source").and_then(Value::as_str) {
            long["source"] = json!(own(source));
        }
        if !long.get("bind").is_some_and(Value::is_object) {
            long["bind"] = json!({});
        }
        long["bind"]["create_host_path"] = json!(false);
    }
    long
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_the_stack_s_own_or_absolute() {
        let mut model = Model::parse(
            "services:\n  web:\n    image: x\n    volumes: ['./files/nginx.conf:/etc/nginx.conf:ro', '/:/host:ro,rslave', 'data:/d', './nowhere:/n']\n    security_opt: ['seccomp=./strict.json']\nvolumes: {data: {}}\n",
            &BTreeMap::new(),
            &[],
        )
        .unwrap();
        let file = |_: &str| StackFile { content: FileContent::Text(Text::plain("")), mode: 0o644, uid: 0, gid: 0 };
        let files = ["nginx.conf", "strict.json"].map(|dest| (dest.to_owned(), file(dest))).into();
        let problems = normalise(&mut model, &files).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("`./nowhere` of service `web` is nobody's"), "{problems:?}");
        let web = model.service("web").unwrap();
        assert_eq!(
            web["volumes"][0],
            json!({"type": "bind", "source": "./nginx.conf", "target": "/etc/nginx.conf", "bind": {"create_host_path": false}, "read_only": true})
        );
        assert_eq!(web["volumes"][1]["bind"]["propagation"], "rslave");
        assert_eq!(web["volumes"][2], "data:/d");
        assert_eq!(web["security_opt"][0], "seccomp:./strict.json");
    }
}
