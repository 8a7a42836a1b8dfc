//! A release: the Compose file with content-addressed paths and labels, the files and secrets it
//! needs, and its name, the digest of all of it.
//!
//! Compose's own hash sees neither the content of what a service mounts nor a changed secret
//! (tried with Compose 2.26). Here both are in the path that is mounted, and in the label
//! [`INPUTS`], so a change recreates exactly the services that use it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::interpolate;
use super::model::{canonical, items, named_volume, names};
use super::service::{Service, host_name};
use super::stack::{FileContent, Stack, StackFile, StackSecret};
use crate::secret::{Fingerprint, SecretName, Text, sha256};

/// Label: what the service was made from besides its definition, `file:nginx.conf=DIGEST ...`.
pub const INPUTS: &str = "soc.inputs";
/// Label: digest of the service's definition.
pub const CONFIG: &str = "soc.config-sha256";

/// Label: the service ends by itself, and is well when it has ended with 0.
pub const ONE_SHOT: &str = "soc.one-shot";

/// A release of a stack.
#[derive(Clone, Debug)]
pub struct Release {
    /// 16 hex digits: the digest of all inputs.
    pub id: String,
    /// The Compose file as it is written. JSON, which is YAML.
    pub compose: String,
    /// Files by path below the stack's directory (`files/DIGEST/nginx.conf`).
    pub files: BTreeMap<String, StackFile>,
    /// SHA-256 of each of the files, or its fingerprint where it holds secrets. Those lie below
    /// `secrets/`, where the host itself compares and no digest of a secret travels.
    pub digests: BTreeMap<String, String>,
    /// Files of services that reload: path below the stack's directory (`live/web/conf.d/x`), and
    /// the path in `files` that it is copied from.
    pub live: BTreeMap<String, String>,
    /// Secrets by path below the stack's directory.
    pub secrets: BTreeMap<String, StackSecret>,
    /// Environment variables of `docker compose`, and the path in `secrets` that fills each.
    pub environment: BTreeMap<String, String>,
    /// What each service's containers must carry: [`CONFIG`] and [`INPUTS`].
    pub labels: BTreeMap<String, (String, String)>,
}

/// Renders while it collects what the paths turn out to need.
struct Renderer<'a> {
    stack: &'a Stack,
    on_host: &'a BTreeMap<String, String>,
    fingerprint: &'a dyn Fn(&Text) -> Result<Fingerprint, String>,
    release: Release,
}

impl Release {
    /// Renders a stack. `fingerprint` identifies texts with secrets; `on_host` are digests of
    /// seccomp profiles that other resources lay at absolute paths ([`Stack::host_profiles`]).
    ///
    /// # Errors
    /// What `fingerprint` says, for example that a secret is not known.
    pub fn render(
        stack: &Stack,
        on_host: &BTreeMap<String, String>,
        fingerprint: &dyn Fn(&Text) -> Result<Fingerprint, String>,
    ) -> Result<Self, String> {
        let release = Self {
            id: String::new(),
            compose: String::new(),
            files: BTreeMap::new(),
            digests: BTreeMap::new(),
            live: BTreeMap::new(),
            secrets: BTreeMap::new(),
            environment: BTreeMap::new(),
            labels: BTreeMap::new(),
        };
        Renderer { stack, on_host, fingerprint, release }.render()
    }
}

impl Renderer<'_> {
    fn render(mut self) -> Result<Release, String> {
        let mut model = self.stack.model.clone();
        let mut secret_digests = BTreeMap::new();
        for (name, secret) in &self.stack.secrets {
            let (path, digest) = self.place_secret(name, secret)?;
            model.section_mut("secrets").insert(name.clone(), json!({ "file": path }));
            secret_digests.insert(name.clone(), digest);
        }
        let mut config_digests = BTreeMap::new();
        let configs: Vec<(String, Value)> = model.section("configs").iter().map(|(key, entry)| (key.clone(), entry.clone())).collect();
        for (key, mut entry) in configs {
            if let Some(source) = entry.get("file").and_then(Value::as_str).map(str::to_owned) {
                let (path, digest) = self.place(&source)?;
                entry["file"] = json!(path);
                config_digests.insert(key.clone(), digest);
            } else if let Some(content) = entry.get("content").and_then(Value::as_str) {
                let path = format!("configs/{key}");
                let file = StackFile { content: FileContent::Text(Text::plain(content)), mode: 0o444, uid: 0, gid: 0 };
                let (path, digest) = self.place_tree(&path, &[("", &file)])?;
                entry = json!({ "file": path });
                config_digests.insert(key.clone(), digest);
            }
            model.section_mut("configs").insert(key, entry);
        }
        let services: Vec<String> = model.services().map(|(name, _)| name.clone()).collect();
        for name in services {
            let Some(mut map) = model.service(&name).cloned() else { continue };
            let mut inputs = self.service_inputs(&name, &mut map)?;
            for (kind, digests) in [("secret", &secret_digests), ("config", &config_digests)] {
                for used in sources(map.get(&format!("{kind}s"))) {
                    if let Some(digest) = digests.get(&used) {
                        inputs.insert(format!("{kind}:{used}"), digest.clone());
                    }
                }
            }
            self.label(&name, &mut map, &inputs);
            model.section_mut("services").insert(name, Value::Object(map));
        }
        let mut value = model.to_value();
        interpolate::escape(&mut value);
        self.environment(&mut value)?;
        self.release.compose = serde_json::to_string_pretty(&value).map_err(|error| error.to_string())? + "\n";
        self.release.id = self.identify()?;
        Ok(self.release)
    }

    /// Rewrites a service's own sources; returns what they are: `file:nginx.conf` and a digest.
    fn service_inputs(&mut self, name: &str, map: &mut Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
        let mut inputs = BTreeMap::new();
        if let Some(Value::Array(entries)) = map.get_mut("volumes") {
            for entry in entries {
                let source = entry.get("source").and_then(Value::as_str).filter(|source| source.starts_with("./")).map(str::to_owned);
                let Some(source) = source else { continue };
                let (path, digest) = self.place(&source)?;
                if self.stack.reloads(name) && !self.stack.files.contains_key(&source[2..]) {
                    entry["source"] = json!(self.go_live(name, &source[2..], &path));
                } else {
                    entry["source"] = json!(path);
                    inputs.insert(format!("file:{}", &source[2..]), digest);
                }
            }
        }
        if let Some(Value::Array(options)) = map.get_mut("security_opt") {
            for option in options {
                let profile = option.as_str().and_then(|text| text.strip_prefix("seccomp:")).map(str::to_owned);
                if let Some(digest) = profile.as_ref().and_then(|profile| self.on_host.get(profile)) {
                    inputs.insert(format!("seccomp:{}", profile.unwrap_or_default()), digest.chars().take(16).collect());
                } else if let Some(profile) = profile.as_deref().and_then(|profile| profile.strip_prefix("./")) {
                    let (path, digest) = self.place(&format!("./{profile}"))?;
                    *option = json!(format!("seccomp:{path}"));
                    inputs.insert(format!("seccomp:{profile}"), digest);
                }
            }
        }
        for slot in env_files(map.get_mut("env_file")) {
            if slot.starts_with("./") {
                let (path, digest) = self.place(slot)?;
                inputs.insert(format!("env_file:{}", &slot[2..]), digest);
                *slot = path;
            }
        }
        if let Some(variables) = self.stack.env_secrets.get(name) {
            for (variable, secret) in variables {
                inputs.insert(format!("env_secret:{variable}"), self.secret_digest(secret)?);
            }
        }
        Ok(inputs)
    }

    /// A file or directory of the stack: its path on the host, and its digest.
    fn place(&mut self, source: &str) -> Result<(String, String), String> {
        let path = source.trim_start_matches("./");
        if path.starts_with('/') {
            return Ok((path.to_owned(), String::new()));
        }
        let stack = self.stack;
        let tree: Vec<_> = stack.files_below(path).collect();
        self.place_tree(path, &tree)
    }

    fn place_tree(&mut self, path: &str, tree: &[(&str, &StackFile)]) -> Result<(String, String), String> {
        let mut lines = String::new();
        let mut prints = Vec::with_capacity(tree.len());
        for (rest, file) in tree {
            let print = match &file.content {
                FileContent::Text(text) => (self.fingerprint)(text)?.as_str().to_owned(),
                FileContent::Upload(_, digest) => digest.clone(),
            };
            let _ = writeln!(lines, "{rest} {print} {:o} {} {}", file.mode, file.uid, file.gid);
            prints.push(print);
        }
        let digest = short(&lines);
        let base = path.rsplit('/').next().unwrap_or(path);
        let sealed = tree.iter().any(|(_, file)| matches!(&file.content, FileContent::Text(text) if text.as_plain().is_none()));
        let place = format!("{}/{digest}/{base}", if sealed { "secrets" } else { "files" });
        for ((rest, file), print) in tree.iter().zip(prints) {
            let at = format!("{place}{rest}");
            self.release.files.insert(at.clone(), (*file).clone());
            self.release.digests.insert(at, print);
        }
        Ok((format!("{}/{place}", self.stack.directory()), digest))
    }

    /// Where a service that reloads finds a directory: always the same path.
    fn go_live(&mut self, service: &str, path: &str, placed: &str) -> String {
        let root = format!("{}/", self.stack.directory());
        let placed = placed.strip_prefix(&root).unwrap_or(placed).to_owned();
        let live = format!("live/{service}/{}", path.replace('/', "_"));
        let copies: Vec<(String, String)> = self
            .release
            .files
            .keys()
            .filter_map(|file| Some((format!("{live}{}", file.strip_prefix(&placed).filter(|rest| rest.starts_with('/'))?), file.clone())))
            .collect();
        self.release.live.extend(copies);
        format!("{root}{live}")
    }

    fn secret_digest(&self, secret: &SecretName) -> Result<String, String> {
        Ok(short((self.fingerprint)(&Text::secret(secret.clone()))?.as_str()))
    }

    /// A secret's path on the host, and the digest that stands for it: of its value, owner and mode.
    fn place_secret(&mut self, name: &str, secret: &StackSecret) -> Result<(String, String), String> {
        let digest = self.secret_digest(&secret.secret)?;
        let digest =
            short(&format!("{digest} {:o} {} {} {}", secret.mode, secret.uid, secret.gid, secret.path.as_deref().unwrap_or_default()));
        if let Some(path) = &secret.path {
            return Ok((path.clone(), digest));
        }
        let place = format!("secrets/{digest}/{name}");
        self.release.secrets.insert(place.clone(), secret.clone());
        Ok((format!("{}/{place}", self.stack.directory()), digest))
    }

    /// Secrets in environments: Compose fills `${SOC_SECRET_0}` from its own environment, so that
    /// no file of the release holds a value.
    fn environment(&mut self, compose: &mut Value) -> Result<(), String> {
        let mut number = 0_usize;
        for (service, variables) in &self.stack.env_secrets {
            for (variable, secret) in variables {
                let slot = format!("SOC_SECRET_{number}");
                number += 1;
                let laid = StackSecret { secret: secret.clone(), uid: 0, gid: 0, mode: 0o400, path: None };
                let (path, _) = self.place_secret(&slot, &laid)?;
                self.release.environment.insert(slot.clone(), path);
                let Some(map) = compose.pointer_mut(&format!("/services/{service}")).and_then(Value::as_object_mut) else { continue };
                match map.entry("environment").or_insert_with(|| json!({})) {
                    Value::Array(list) => {
                        list.retain(|item| item.as_str().is_none_or(|item| item.split('=').next() != Some(variable)));
                        list.push(json!(format!("{variable}=${{{slot}}}")));
                    }
                    other => other[variable.as_str()] = json!(format!("${{{slot}}}")),
                }
            }
        }
        Ok(())
    }

    fn label(&mut self, name: &str, map: &mut Map<String, Value>, inputs: &BTreeMap<String, String>) {
        let inputs = inputs.iter().map(|(input, digest)| format!("{input}={digest}")).collect::<Vec<_>>().join(" ");
        let config = self.definition(name, map, &inputs);
        let mut labels: Map<String, Value> = match map.remove("labels") {
            Some(Value::Object(labels)) => labels,
            Some(Value::Array(list)) => list
                .iter()
                .filter_map(Value::as_str)
                .map(|label| label.split_once('=').unwrap_or((label, "")))
                .map(|(key, value)| (key.to_owned(), json!(value)))
                .collect(),
            _ => Map::new(),
        };
        labels.insert(CONFIG.to_owned(), json!(config));
        if self.stack.services.iter().any(|service| service.name == name && service.one_shot) {
            labels.insert(ONE_SHOT.to_owned(), json!("true"));
        }
        if !inputs.is_empty() {
            labels.insert(INPUTS.to_owned(), json!(inputs));
        }
        map.insert("labels".to_owned(), Value::Object(labels));
        self.release.labels.insert(name.to_owned(), (config, inputs));
    }

    /// Digest of what Compose would recreate a container for, and of the networks and volumes it
    /// uses: without what only concerns how many there are and in which order they start.
    fn definition(&self, name: &str, map: &Map<String, Value>, inputs: &str) -> String {
        let mut own = map.clone();
        for key in ["build", "pull_policy", "scale", "depends_on", "profiles"] {
            own.remove(key);
        }
        if let Some(deploy) = own.get_mut("deploy").and_then(Value::as_object_mut) {
            deploy.remove("replicas");
            if let Some(resources) = deploy.get_mut("resources").and_then(Value::as_object_mut) {
                // Compose sets no reservation of processors outside of a swarm.
                resources.retain(|key, _| key == "limits" || key == "reservations");
            }
        }
        own.retain(|key, _| !key.starts_with("x-"));
        let declared = |section: &str, key: &String| json!({"name": host_name(&self.stack.name, key, self.stack.model.section(section).get(key)), "is": self.stack.model.section(section).get(key)});
        let mut networks = names(map.get("networks"));
        if networks.is_empty() && !map.contains_key("network_mode") {
            networks.insert("default".to_owned());
        }
        let networks: Vec<Value> = networks.iter().map(|key| declared("networks", key)).collect();
        let volumes: Vec<Value> = items(map.get("volumes")).iter().filter_map(named_volume).map(|key| declared("volumes", &key)).collect();
        let known = self.stack.services.iter().find(|service| service.name == name);
        // A digest out of images.lock is not part of the definition: the container's own image is compared,
        // and locking what runs must not recreate it.
        let is_locked =
            |reference: &str, id: &String| self.stack.locked.get(reference).is_some_and(|lock| lock.digest.as_ref() == Some(id));
        let image = known.and_then(|service: &Service| self.stack.images.get(&service.image).filter(|id| !is_locked(&service.image, id)));
        sha256(canonical(&json!([own, networks, volumes, inputs, image])).to_string().as_bytes())
    }

    /// The release's name: everything that, changed, makes another release.
    fn identify(&self) -> Result<String, String> {
        let mut all = self.release.compose.clone();
        for (live, file) in &self.release.live {
            let _ = writeln!(all, "{live} {file}");
        }
        for (service, variables) in &self.stack.env_secrets {
            for (variable, secret) in variables {
                let _ = writeln!(all, "{service} {variable} {}", self.secret_digest(secret)?);
            }
        }
        for (reference, id) in &self.stack.images {
            let _ = writeln!(all, "{reference} {id}");
        }
        if let Some(migration) = &self.stack.migrate {
            let _ = writeln!(all, "{migration:?}");
        }
        Ok(short(&all))
    }
}

fn env_files(value: Option<&mut Value>) -> Vec<&mut String> {
    match value {
        Some(Value::String(path)) => vec![path],
        Some(Value::Array(entries)) => entries
            .iter_mut()
            .filter_map(|entry| match entry {
                Value::String(path) => Some(path),
                Value::Object(map) => match map.get_mut("path") {
                    Some(Value::String(path)) => Some(path),
                    _ => None,
                },
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Names of the secrets or configs that a service uses, short or long.
fn sources(value: Option<&Value>) -> Vec<String> {
    let name = |item: &Value| item.as_str().or_else(|| item.get("source").and_then(Value::as_str)).map(str::to_owned);
    items(value).iter().filter_map(name).collect()
}

/// 64 bits of a SHA-256 in hex: enough to tell apart, short enough to read.
fn short(text: &str) -> String {
    sha256(text.as_bytes())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::compose::model::Model;
    use crate::resource::compose::stack::{Reload, Requirements, normalise};
    use crate::secret::KeyedDigests;

    const FILE: &str = "services:
  web: {image: web:1, volumes: ['./conf:/etc/web:ro'], networks: [front]}
  app: {image: app:1, volumes: ['./app.conf:/etc/app.conf'], secrets: [db], networks: [front, back]}
  db: {image: db:1, secrets: [db], security_opt: ['seccomp=./db.json'], networks: [back]}
  cfg: {image: cfg:1, configs: [inline], environment: [TOKEN]}
networks: {front: {}, back: {internal: true}}
configs: {inline: {content: 'a=1'}}
";

    /// What a test changes.
    #[derive(Clone)]
    struct Inputs {
        file: String,
        conf: &'static str,
        app: &'static str,
        db: &'static str,
        seccomp: &'static str,
        token: &'static str,
        web_image: &'static str,
        reload: bool,
    }

    fn start() -> Inputs {
        Inputs { file: FILE.to_owned(), conf: "c", app: "a", db: "d", seccomp: "{}", token: "t", web_image: "sha256:1", reload: false }
    }

    fn release(inputs: &Inputs) -> Release {
        let file = |text: &str| StackFile { content: FileContent::Text(Text::plain(text)), mode: 0o644, uid: 0, gid: 0 };
        let files = BTreeMap::from([
            ("conf/web.conf".to_owned(), file(inputs.conf)),
            ("app.conf".to_owned(), file(inputs.app)),
            ("db.json".to_owned(), file(inputs.seccomp)),
        ]);
        let mut model = Model::parse(&inputs.file, &BTreeMap::new(), &[]).unwrap();
        normalise(&mut model, &files).unwrap();
        let name = |name| SecretName::parse(name).unwrap();
        let stack = Stack {
            name: "demo".to_owned(),
            services: Service::all("demo", &model).unwrap(),
            model,
            files,
            secrets: [("db".to_owned(), StackSecret { secret: name("db_password"), uid: 1000, gid: 1000, mode: 0o400, path: None })].into(),
            env_secrets: [("cfg".to_owned(), [("TOKEN".to_owned(), name("token"))].into())].into(),
            reload: if inputs.reload { [("web".to_owned(), Reload::Signal("HUP".to_owned()))].into() } else { BTreeMap::new() },
            images: [("web:1".to_owned(), inputs.web_image.to_owned())].into(),
            provided: [].into(),
            pull: "never".to_owned(),
            wait: 60,
            keep: 5,
            migrate: None,
            init: Vec::new(),
            notes: Vec::new(),
            requires: Requirements::default(),
            apparmor: [].into(),
            apparmor_if_available: false,
            locked: BTreeMap::new(),
        };
        let mut digests = KeyedDigests::default();
        digests.insert(name("db_password"), inputs.db.to_owned());
        digests.insert(name("token"), inputs.token.to_owned());
        Release::render(&stack, &BTreeMap::new(), &|text| text.fingerprint(&digests).map_err(|error| error.to_string())).unwrap()
    }

    fn touched(change: impl FnOnce(&mut Inputs)) -> Vec<String> {
        let before = release(&start());
        let mut inputs = start();
        change(&mut inputs);
        let after = release(&inputs);
        assert_ne!(before.id, after.id);
        before.labels.iter().filter(|(name, labels)| after.labels.get(*name) != Some(labels)).map(|(name, _)| name.clone()).collect()
    }

    #[test]
    fn a_release_is_the_same_whatever_the_order_of_keys() {
        let mut inputs = start();
        assert_eq!(release(&inputs).id, release(&start()).id);
        inputs.file = inputs.file.replace("image: web:1, volumes: ['./conf:/etc/web:ro']", "volumes: ['./conf:/etc/web:ro'], image: web:1");
        assert_eq!(release(&inputs).id, release(&start()).id);
    }

    #[test]
    fn a_change_touches_exactly_the_services_that_use_it() {
        assert_eq!(touched(|inputs| inputs.conf = "x"), ["web"]);
        assert_eq!(touched(|inputs| inputs.app = "x"), ["app"]);
        assert_eq!(touched(|inputs| inputs.db = "x"), ["app", "db"]);
        assert_eq!(touched(|inputs| inputs.seccomp = "x"), ["db"]);
        assert_eq!(touched(|inputs| inputs.token = "x"), ["cfg"]);
        assert_eq!(touched(|inputs| inputs.web_image = "x"), ["web"]);
        assert_eq!(touched(|inputs| inputs.file = FILE.replace("a=1", "a=2")), ["cfg"]);
        assert_eq!(touched(|inputs| inputs.file = FILE.replace("internal: true", "internal: false")), ["app", "db"]);
        assert_eq!(touched(|inputs| inputs.file = FILE.replace("image: db:1", "image: db:2")), ["db"]);
        let none: [&str; 0] = [];
        assert_eq!(touched(|inputs| inputs.file = FILE.replace("image: db:1", "image: db:1, depends_on: [cfg]")), none);
    }

    #[test]
    fn a_service_that_reloads_keeps_its_path_and_the_release_changes() {
        let mut inputs = Inputs { reload: true, ..start() };
        let before = release(&inputs);
        inputs.conf = "x";
        let after = release(&inputs);
        assert_eq!(before.labels, after.labels);
        assert_ne!(before.id, after.id);
        assert_eq!(after.live.keys().collect::<Vec<_>>(), ["live/web/conf/web.conf"]);
        assert!(after.compose.contains("\"source\": \"/var/lib/soc-provision/stacks/demo/live/web/conf\""), "{}", after.compose);
    }

    #[test]
    fn no_value_of_a_secret_is_in_the_file() {
        let release = release(&start());
        assert!(release.compose.contains("TOKEN=${SOC_SECRET_0}"), "{}", release.compose);
        assert_eq!(release.secrets.len(), 2);
        assert!(release.environment["SOC_SECRET_0"].ends_with("/SOC_SECRET_0"));
    }
}
