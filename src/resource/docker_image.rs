//! A Docker image on the host: pulled, shipped as an archive, built there, or a stand-in that the
//! host makes of its own busybox where no registry has the real one (DESIGN 8.20).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::facts::Facts;
use crate::resource::argument::Presence;
use crate::resource::package::Package;
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided, Upload};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Question, Resource, ResourceId, Teardown, View};
use crate::resource::{docker_archive, image_name};
use crate::secret::sha256;
use crate::shell::Script;

/// Makes a stand-in; see its own comments.
const STAND_IN: &str = include_str!("docker_image/standin.sh");
/// The package whose program stand-ins consist of.
pub const BUSYBOX: &str = "busybox-static";
/// `pull IMAGE [OPTION...]`: and what to do about it where the registry refuses.
pub const PULL: &str = include_str!("docker_image/pull.sh");
/// Label of a built image: the digest of its context.
const BUILD: &str = "soc.build-sha256";
/// Label of a stand-in: the digest of what it was made from.
const STANDS: &str = "soc.stand-in";
/// Where uploads land on the host.
const INCOMING: &str = "/var/lib/soc-provision/incoming";

/// A Docker image.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerImage {
    /// `NAME:TAG`, or `NAME@sha256:DIGEST` to pull.
    pub name: String,
    /// A `docker save` archive below the role's `files/`, plain or gzipped; sent only where the
    /// image is missing.
    #[serde(default)]
    pub archive: Option<String>,
    /// Built on the host.
    #[serde(default)]
    pub build: Option<BuildSource>,
    /// A stand-in for labs. With `pull: true`, only if the registry does not have the image.
    #[serde(default)]
    pub stand_in: Option<StandIn>,
    /// The digest that the registry must give it: `sha256:...`.
    #[serde(default)]
    pub digest: Option<String>,
    /// Ask the registry first, and take the stand-in only if that fails.
    #[serde(default)]
    pub pull: Option<bool>,
    /// Whether it must be there.
    #[serde(default)]
    pub state: Presence,
}

/// Where an image comes from: one of these; without any it is pulled from its registry. The same
/// words as in [`DockerImage`], for the `images` of a stack.
#[derive(Clone, Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSource {
    /// A `docker save` archive below the role's `files/`, plain or gzipped; sent only where the
    /// image is missing.
    #[serde(default)]
    pub archive: Option<String>,
    /// Built on the host.
    #[serde(default)]
    pub build: Option<BuildSource>,
    /// A stand-in for labs. With `pull: true`, only if the registry does not have the image.
    #[serde(default)]
    pub stand_in: Option<StandIn>,
    /// The digest that the registry must give it: `sha256:...`.
    #[serde(default)]
    pub digest: Option<String>,
    /// Ask the registry first, and take the stand-in only if that fails.
    #[serde(default)]
    pub pull: Option<bool>,
}

/// A build on the host.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildSource {
    /// Directory below the role's `files/`.
    pub context: String,
    /// Name of the Dockerfile in it.
    #[serde(default = "dockerfile")]
    pub dockerfile: String,
    /// Build arguments. Never secrets: they stay in the image's history.
    #[serde(default)]
    pub args: BTreeMap<String, String>,
}

fn dockerfile() -> String {
    "Dockerfile".to_owned()
}

/// A stand-in image: listens on the real one's ports, answers HTTP with 200, is healthy, runs as
/// the real one's user, writes where that writes.
#[derive(Clone, Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandIn {
    /// Ports: `8080`, `"514/udp"`.
    #[serde(default)]
    pub listen: Vec<Value>,
    /// The uid it runs as.
    #[serde(default)]
    pub user: u32,
    /// The gid; by default the uid.
    #[serde(default)]
    pub group: Option<u32>,
    /// Directories that it writes to at its start.
    #[serde(default)]
    pub writes: Vec<String>,
    /// Programs that the health checks of stacks call (`curl`, `cqlsh`); each says what the
    /// stand-in's own health check says.
    #[serde(default)]
    pub tools: Vec<String>,
    /// A further command that must succeed for it to be healthy.
    #[serde(default)]
    pub health: Option<String>,
    /// Answers to HTTP requests by path, on one line each; other paths get `ok`.
    #[serde(default)]
    pub answers: BTreeMap<String, String>,
    /// Shell code that runs beside the listeners, for what the real program does on its own.
    #[serde(default)]
    pub runs: Option<String>,
}

/// An image on a host, with its source resolved.
#[derive(Debug)]
pub struct Image {
    pub name: String,
    pub state: Presence,
    pub origin: Origin,
    notes: Vec<String>,
}

/// Where an image comes from, resolved.
#[derive(Debug)]
pub enum Origin {
    Registry { digest: Option<String> },
    Archive { path: PathBuf, archive: docker_archive::Archive },
    Build { digest: String, files: Vec<(String, PathBuf)>, dockerfile: String, args: BTreeMap<String, String> },
    StandIn { digest: String, spec: StandIn, pull_first: bool },
}

impl Kind for DockerImage {
    const NAME: &'static str = "docker_image";
    const EXAMPLE: &'static str = "docker_image:\n  name: web:1\n  stand_in: {listen: [8080], user: 1000}\n";
    const SHORTHAND: Option<&'static str> = Some("name");

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        let Self { name, archive, build, stand_in, digest, pull, state } = self;
        let image = Image::resolve(name, ImageSource { archive, build, stand_in, digest, pull }, state, context)?;
        let mut out: Vec<Box<dyn Resource>> = Vec::new();
        if image.needs_busybox() {
            out.push(Box::new(Package::present(&[BUSYBOX])));
        }
        out.push(Box::new(image));
        Ok(out)
    }
}

impl Image {
    /// Finds an image's source on the controller.
    ///
    /// # Errors
    /// What is wrong with the arguments or the files they name.
    pub fn resolve(name: String, source: ImageSource, state: Presence, context: &BuildContext<'_>) -> Result<Self, BuildError> {
        check_name(&name)?;
        let given = [source.archive.is_some(), source.build.is_some(), source.stand_in.is_some()];
        if given.iter().filter(|given| **given).count() > 1 {
            return Err(BuildError::from(format!("image `{name}` has more than one source: give one of `archive`, `build`, `stand_in`")));
        }
        let mut notes = Vec::new();
        let origin = if let Some(file) = source.archive {
            let path = context.sources.file_path(&file).map_err(|error| BuildError::field("archive", error))?;
            let archive = docker_archive::read(&path).map_err(|error| BuildError::field("archive", error))?;
            Origin::Archive { path, archive }
        } else if let Some(build) = source.build {
            resolve_build(&name, build, context, &mut notes)?
        } else if let Some(spec) = source.stand_in {
            spec.check()?;
            notes.push(format!("image `{name}` is a stand-in made on the host, not the real one"));
            Origin::StandIn { digest: spec.digest(), spec, pull_first: source.pull == Some(true) }
        } else {
            if let Some(digest) = &source.digest
                && !digest.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit()))
            {
                return Err(BuildError::field("digest", format!("`{digest}` is not `sha256:` and 64 hex digits")));
            }
            Origin::Registry { digest: source.digest }
        };
        Ok(Self { name, state, origin, notes })
    }

    /// Whether it is pulled, by whatever its tag means today.
    #[must_use]
    pub fn is_pulled_by_tag(&self) -> bool {
        matches!(self.origin, Origin::Registry { digest: None })
    }

    /// An image that must not be on the host.
    #[must_use]
    pub fn absent(name: &str) -> Self {
        Self { name: name.to_owned(), state: Presence::Absent, origin: Origin::Registry { digest: None }, notes: Vec::new() }
    }

    /// Whether the host must have [`BUSYBOX`] to make the image.
    #[must_use]
    pub fn needs_busybox(&self) -> bool {
        self.state == Presence::Present && matches!(self.origin, Origin::StandIn { .. })
    }

    /// The image's id, where the controller knows it before anything is sent.
    #[must_use]
    pub fn known_id(&self) -> Option<&str> {
        match &self.origin {
            Origin::Archive { archive, .. } => archive.ids.first().map(String::as_str),
            Origin::Build { digest, .. } | Origin::StandIn { digest, .. } => Some(digest),
            Origin::Registry { digest } => digest.as_deref().or_else(|| self.name.split_once('@').map(|(_, digest)| digest)),
        }
    }

    /// Whether what the host has under the name is the image; if not, what it is.
    fn matches(&self, inspect: &Value) -> Result<(), String> {
        let id = inspect.get("Id").and_then(Value::as_str).unwrap_or_default();
        let label =
            |key: &str| inspect.pointer("/Config/Labels").and_then(|labels| labels.get(key)).and_then(Value::as_str).unwrap_or_default();
        let fine = match &self.origin {
            Origin::Archive { archive, .. } => archive.ids.iter().any(|known| known == id),
            Origin::Build { digest, .. } => label(BUILD) == digest,
            Origin::StandIn { digest, pull_first, .. } => label(STANDS) == digest || (*pull_first && label(STANDS).is_empty()),
            Origin::Registry { digest: None } => true,
            Origin::Registry { digest: Some(digest) } => {
                let digests = inspect.get("RepoDigests").and_then(Value::as_array).into_iter().flatten();
                id == digest || digests.filter_map(Value::as_str).any(|known| known.ends_with(digest.as_str()))
            }
        };
        if fine { Ok(()) } else { Err(short(id)) }
    }

    fn steps(&self, facts: &Facts) -> Result<Vec<Step>, String> {
        let name = &self.name;
        let long = Duration::from_secs(1800);
        Ok(match &self.origin {
            Origin::Registry { digest } => {
                vec![Step::new(format!("pull {name}"), pull(name, digest.as_deref())).deadline(long).surviving()]
            }
            Origin::Archive { path, archive } => {
                let sha256 = docker_archive::sha256_of(path)?;
                let destination = format!("{INCOMING}/{sha256}.tar");
                let script = Script::sh("out=$(docker load -i {}) || exit 1\nrm -f {}\n", &[&destination, &destination])
                    .then("have=$(docker image inspect -f '{{.Id}}' {} 2>/dev/null)\n", &[name])
                    .then("for id in", &[]);
                let script = archive.ids.iter().fold(script, |script, id| script.then(" {}", &[id]));
                let script = script
                    .then("; do if docker image inspect \"$id\" >/dev/null 2>&1; then [ \"$have\" = \"$id\" ] || docker tag \"$id\" {} || exit 1; exit 0; fi; done\n", &[name])
                    .then("printf '%s\\n' \"$out\" >&2; echo 'the archive did not bring the image that its manifest names' >&2; exit 1\n", &[]);
                vec![
                    Step::new("make room for an archive", Script::sh("mkdir -p {} && chmod 700 {}\n", &[INCOMING, INCOMING])),
                    Step::new(format!("load {name}"), script).deadline(long).upload(Upload { source: path.clone(), destination, sha256 }),
                ]
            }
            Origin::Build { digest, files, dockerfile, args } => build_steps(name, digest, files, dockerfile, args)?,
            Origin::StandIn { digest, spec, pull_first } => {
                let make = spec.script(name, digest, facts.deb_architecture());
                let script = if *pull_first {
                    Script::sh("timeout 60 docker pull --quiet {} >/dev/null 2>&1 && exit 0\n", &[name]).append(make)
                } else {
                    make
                };
                vec![Step::new(format!("make a stand-in for {name}"), script).deadline(Duration::from_secs(180))]
            }
        })
    }
}

impl Resource for Image {
    fn id(&self) -> ResourceId {
        ResourceId::new("docker_image", &self.name)
    }

    fn teardown(&self, wish: Teardown) -> Option<Box<dyn Resource>> {
        wish.images.then(|| Box::new(Self::absent(&self.name)) as Box<dyn Resource>)
    }

    fn questions(&self, _facts: &Facts) -> Vec<Question> {
        vec![Question::DockerInfo, Question::Image(self.name.clone())]
    }

    fn claims(&self) -> Vec<Claim> {
        match &self.origin {
            Origin::Archive { path, archive } if self.state == Presence::Present => {
                vec![Claim::Archive { reference: self.name.clone(), ids: archive.ids.clone(), path: path.clone() }]
            }
            Origin::Registry { digest } if self.state == Presence::Present && !self.name.contains('@') => {
                vec![Claim::Pulled { reference: self.name.clone(), digest: digest.clone() }]
            }
            _ => Vec::new(),
        }
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let mut plan = Plan { notes: self.notes.clone(), ..Plan::default() };
        let found = view.image(&self.name)?;
        if self.state == Presence::Absent {
            if let Some(found) = found {
                let id = short(found.get("Id").and_then(Value::as_str).unwrap_or_default());
                let step = Step::new(format!("remove {}", self.name), Script::sh("docker image rm {} >/dev/null\n", &[&self.name]));
                plan = plan.change(Change::remove("image", id)).step(step).effect(Effect::Image(self.name.clone()));
            }
            return Ok(plan);
        }
        let wanted = self.known_id().map_or_else(|| self.name.clone(), short);
        let change = match found.map(|found| self.matches(found)) {
            Some(Ok(())) => return Ok(plan),
            Some(Err(other)) => Change::of("image", other, wanted),
            None => Change::add("image", wanted),
        };
        if matches!(view.docker_info(), Ok(None)) {
            return Err(Undecided::Refused(format!(
                "Docker does not run here, so image `{}` cannot be had: add `docker_engine` before it",
                self.name
            )));
        }
        plan.changes.push(change);
        plan.steps = self.steps(view.facts).map_err(Undecided::Refused)?;
        Ok(plan.effect(Effect::Image(self.name.clone())))
    }
}

impl StandIn {
    fn check(&self) -> Result<(), BuildError> {
        for port in &self.listen {
            if parse_port(port).is_none() {
                return Err(BuildError::field("stand_in.listen", format!("`{port}` is not a port: write `8080` or `\"514/udp\"`")));
            }
        }
        let fine =
            |word: &String| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '.'));
        if let Some(bad) = self.writes.iter().chain(&self.tools).find(|word| !fine(word)) {
            return Err(BuildError::field("stand_in", format!("`{}` is not a path or program's name", bad.escape_debug())));
        }
        if let Some(bad) = self.writes.iter().find(|path| !path.starts_with('/')) {
            return Err(BuildError::field("stand_in.writes", format!("`{bad}` is not absolute")));
        }
        let single = |text: &String| !text.contains(['\n', '\t']);
        if let Some((path, _)) = self.answers.iter().find(|(path, body)| !path.starts_with('/') || !single(path) || !single(body)) {
            let message = format!("`{}`: a path starts with `/`, and it and its answer are one line without tabs", path.escape_debug());
            return Err(BuildError::field("stand_in.answers", message));
        }
        Ok(())
    }

    fn digest(&self) -> String {
        sha256(format!("{self:?} {STAND_IN}").as_bytes())[..32].to_owned()
    }

    fn script(&self, name: &str, digest: &str, arch: &str) -> Script {
        let ports = |wanted: &str| {
            let ports = self.listen.iter().filter_map(parse_port).filter(|(_, protocol)| *protocol == wanted);
            ports.map(|(port, _)| port.to_string()).collect::<Vec<_>>().join(" ")
        };
        let (user, group) = (self.user.to_string(), self.group.unwrap_or(self.user).to_string());
        let answers = self.answers.iter().map(|(path, body)| format!("{path}\t{body}\n")).collect::<String>();
        let arch = if arch.is_empty() { "amd64" } else { arch };
        Script::sh("name={} digest={} arch={} user={} group={}\n", &[name, digest, arch, &user, &group])
            .then("tcp={} udp={} writes={} tools={}\n", &[&ports("tcp"), &ports("udp"), &self.writes.join(" "), &self.tools.join(" ")])
            .then(
                "extra={} runs={} answers={}\n",
                &[self.health.as_deref().unwrap_or_default(), self.runs.as_deref().unwrap_or_default(), &answers],
            )
            .then(STAND_IN, &[])
    }
}

fn parse_port(value: &Value) -> Option<(u16, &'static str)> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let (port, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
    let protocol = match protocol {
        "tcp" => "tcp",
        "udp" => "udp",
        _ => return None,
    };
    port.parse().ok().filter(|&port| port > 0).map(|port| (port, protocol))
}

fn pull(name: &str, digest: Option<&str>) -> Script {
    match digest {
        None => Script::new().then(PULL, &[]).then("pull {}\n", &[name]),
        Some(digest) => {
            let pinned = format!("{}@{digest}", image_name::bare(name));
            Script::new().then(PULL, &[]).then("pull {} && docker tag {} {}\n", &[&pinned, &pinned, name])
        }
    }
}

/// The files of a build's context, and the lint of its Dockerfile.
fn resolve_build(name: &str, build: BuildSource, context: &BuildContext<'_>, notes: &mut Vec<String>) -> Result<Origin, BuildError> {
    let fail = |error: String| BuildError::field("build.context", error);
    let mut files = Vec::new();
    let mut lines = format!("{} {:?}\n", build.dockerfile, build.args);
    for path in context.sources.tree(&build.context).map_err(fail)? {
        let source = context.sources.file_path(&format!("{}/{path}", build.context)).map_err(fail)?;
        lines += &format!("{} {path}\n", docker_archive::sha256_of(&source).map_err(fail)?);
        files.push((path, source));
    }
    let text = context.sources.file(&format!("{}/{}", build.context, build.dockerfile)).map_err(fail)?;
    notes.extend(lint(&String::from_utf8_lossy(&text)).into_iter().map(|finding| format!("image `{name}`: its Dockerfile {finding}")));
    Ok(Origin::Build { digest: sha256(lines.as_bytes()), files, dockerfile: build.dockerfile, args: build.args })
}

/// What a Dockerfile should say and does not.
fn lint(text: &str) -> Vec<String> {
    let instruction = |wanted: &str| {
        let wanted = wanted.to_owned();
        text.lines().filter_map(move |line| {
            let (word, rest) = line.trim().split_once(char::is_whitespace)?;
            word.eq_ignore_ascii_case(&wanted).then(|| rest.trim().to_owned())
        })
    };
    let mut out = Vec::new();
    let user = instruction("USER").next_back().unwrap_or_default();
    if matches!(user.split(':').next(), Some("" | "0" | "root")) {
        out.push("leaves the user at root: end it with `USER` and a uid".to_owned());
    }
    let stages: Vec<String> = instruction("FROM").filter_map(|from| from.split_whitespace().nth(2).map(str::to_owned)).collect();
    for from in instruction("FROM") {
        let base = from.split_whitespace().find(|word| !word.starts_with("--")).unwrap_or_default().to_owned();
        if base != "scratch" && !base.contains('@') && !stages.contains(&base) {
            out.push(format!("starts from `{base}` by tag: pin it by digest"));
        }
    }
    out
}

fn build_steps(
    name: &str,
    digest: &str,
    files: &[(String, PathBuf)],
    dockerfile: &str,
    args: &BTreeMap<String, String>,
) -> Result<Vec<Step>, String> {
    let dir = format!("{INCOMING}/build-{}", &digest[..16]);
    let mut room = Script::sh("rm -rf {} && mkdir -p {}\nchmod 700 {}\n", &[&dir, &dir, INCOMING]);
    let label = format!("{BUILD}={digest}");
    let mut script = Script::sh("cd {} && docker build --quiet -t {} --label {} -f {}", &[&dir, name, &label, dockerfile]);
    for (key, value) in args {
        script = script.then(" --build-arg {}", &[&format!("{key}={value}")]);
    }
    let mut step = Step::new(format!("build {name}"), script.then(" . >/dev/null && cd / && rm -rf {}\n", &[&dir]))
        .deadline(Duration::from_secs(1800))
        .surviving();
    for (path, source) in files {
        if let Some((parent, _)) = path.rsplit_once('/') {
            room = room.then("mkdir -p {}\n", &[&format!("{dir}/{parent}")]);
        }
        step = step.upload(Upload {
            source: source.clone(),
            destination: format!("{dir}/{path}"),
            sha256: docker_archive::sha256_of(source)?,
        });
    }
    Ok(vec![Step::new("make room for a build", room), step])
}

fn check_name(name: &str) -> Result<(), BuildError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@');
    if name.is_empty() || name.starts_with('-') || !name.chars().all(fine) {
        return Err(BuildError::field("name", format!("`{}` is not an image's name", name.escape_debug())));
    }
    Ok(())
}

fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(12).collect()
}
