//! A release of a Compose stack on a host (DESIGN 8.12): files at content-addressed paths, the
//! Compose file, containers as declared, `current` pointing at it, and the way back if it does not
//! get healthy. `composite/compose_stack.rs` is how users write it; what Compose means is in
//! `compose/`; this file puts both to the host's answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::facts::Facts;
use crate::resource::compose::compare::{Difference, Observed, compare, subnets};
use crate::resource::compose::contained::Mark;
use crate::resource::compose::container::Container;
use crate::resource::compose::host::{self, HostState};
use crate::resource::compose::render::Release;
use crate::resource::compose::service::{host_name, is_external};
use crate::resource::compose::stack::{FileContent, Stack};
use crate::resource::compose::{preflight, runtime, script};
use crate::resource::plan::{Change, Effect, Plan, Undecided};
use crate::resource::{Check, Claim, Question, Resource, ResourceId, Severity, Teardown, View, check::CheckKind};
use crate::secret::{SecretName, Text};
use crate::shell::Script;

pub use script::rollback as rollback_steps;

/// Fact that `--retry-release` sets: releases that were rolled back may be applied again.
pub const RETRY: &str = "soc_retry_release";

/// A stack's release on a host.
#[derive(Debug)]
pub struct ComposeRelease {
    pub stack: Stack,
}

/// A stack that must not be on a host.
#[derive(Debug)]
pub struct AbsentStack {
    pub name: String,
    /// Named volumes go too.
    pub wipe_data: bool,
}

fn id_of(name: &str) -> ResourceId {
    ResourceId::new("compose_stack", name)
}

/// Why a stack with contained containers must stay as it is.
fn held(contained: &[Mark], before: &str) -> Option<String> {
    let first = contained.first()?;
    let others = if contained.len() > 1 { format!(", and {} more", contained.len() - 1) } else { String::new() };
    Some(format!(
        "{}{others}: the stack stays as it is; release with `soc-provision capture HOST --container {} --release` before the stack `{}` {before}",
        first.notice(),
        first.name,
        first.project
    ))
}

/// The host's IPv4 routes; the same question for all stacks, so it is asked once.
#[must_use]
pub fn routes() -> Question {
    Question::Raw { key: "ipv4 routes".to_owned(), script: Script::sh("cat /proc/net/route", &[]) }
}

impl Resource for ComposeRelease {
    fn id(&self) -> ResourceId {
        id_of(&self.stack.name)
    }

    fn questions(&self, _facts: &Facts) -> Vec<Question> {
        let mut out = vec![
            Question::DockerInfo,
            Question::Containers,
            Question::Listening,
            host::question(&self.stack.name),
            routes(),
            runtime::changes_question(),
        ];
        out.extend(self.stack.services.iter().map(|service| Question::Image(service.image.clone())));
        out.extend(self.networks().into_keys().map(Question::Network));
        out.extend(self.external_volumes().into_iter().map(Question::Volume));
        out.extend(self.stack.host_profiles().into_iter().map(Question::Digest));
        out.extend(self.stack.host_paths().into_iter().map(|(_, path)| Question::Path(path)));
        out.extend(self.stack.requires.sysctl.keys().cloned().map(Question::Sysctl));
        out
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let stack = &self.stack;
        let state = self.state(view)?;
        let mut profiles = BTreeMap::new();
        for path in stack.host_profiles() {
            let digest = view.digest(&path)?.ok_or_else(|| {
                Undecided::Refused(format!(
                    "seccomp profile `{path}` of stack `{}` does not exist: add `seccomp_profile` before this stack",
                    stack.name
                ))
            })?;
            profiles.insert(path, digest.clone());
        }
        let release = Release::render(stack, &profiles, &|text| view.fingerprint(text).map_err(refusal)).map_err(Undecided::Refused)?;
        let retry = view.facts.flag(RETRY);
        if let Some(pin) = state.pin.as_ref().filter(|pin| pin.release == release.id && !retry) {
            return Err(Undecided::Refused(format!(
                "release {} of `{}` was rolled back by {} at {}; change it, or apply with --retry-release",
                pin.release,
                stack.name,
                pin.who,
                point_in_time(pin.when)
            )));
        }
        let containers: Vec<Container> = view.containers()?.iter().map(Container::read).collect();
        let fresh = state.current.is_none() && !containers.iter().any(|container| container.project() == stack.name);
        if !fresh {
            // What runs is touched only when it is known what will be there.
            view.docker_info()?;
        }
        let mut reasons = self.preflight(view, &containers)?;
        // With a contained container, what is about to change is refused before anything changes.
        let images = self.images(view, fresh, &mut reasons).map_err(|undecided| match held(&state.contained, "changes") {
            Some(reason) if matches!(undecided, Undecided::After(_)) => Undecided::Refused(reason),
            _ => undecided,
        })?;
        if !reasons.is_empty() {
            return Err(Undecided::Refused(format!("stack `{}` would not come up:\n- {}", stack.name, reasons.join("\n- "))));
        }
        let networks = self.existing_networks(view, fresh)?;
        let (files, reloads, tampered) = self.file_changes(&release, &state, offset(view));
        let inspected =
            stack.services.iter().filter_map(|service| Some((service.image.clone(), view.image(&service.image).ok()??))).collect();
        let written = runtime::parse_changes(&view.raw(&runtime::changes_question())?.stdout);
        let observed = Observed {
            containers: &containers,
            images: &images,
            networks: &networks,
            reloads: &reloads,
            tampered: &tampered,
            contained: &state.contained,
            inspected: &inspected,
            written: &written,
        };
        let difference = compare(stack, &release, &observed);
        let plan = self.decide(&release, &state, files, difference);
        if let (Some(reason), false) = (held(&state.contained, "changes"), plan.changes.is_empty()) {
            return Err(Undecided::Refused(reason));
        }
        Ok(state.contained.iter().fold(plan, |plan, mark| plan.note(format!("{}; it is left alone", mark.notice()))))
    }

    fn checks(&self) -> Vec<Check> {
        vec![Check {
            id: format!("container_healthy[{}]", self.stack.name),
            kind: CheckKind::ContainerHealthy { project: Some(self.stack.name.clone()), container: None },
            // Bringing it up waited for health already: what is ill now is told soon.
            within: Duration::from_secs(self.stack.wait.min(60)),
            every: Duration::from_secs(2),
            each: Check::EACH,
        }]
    }

    fn secrets(&self) -> Vec<SecretName> {
        let stack = &self.stack;
        let in_files = stack.files.values().flat_map(|file| match &file.content {
            FileContent::Text(text) => text.secrets(),
            FileContent::Upload(..) => Vec::new(),
        });
        let own = stack.secrets.values().filter(|secret| secret.path.is_none()).map(|secret| secret.secret.clone());
        let mut names: Vec<_> =
            in_files.chain(own).chain(stack.env_secrets.values().flat_map(|variables| variables.values().cloned())).collect();
        names.sort();
        names.dedup();
        names
    }

    fn severity(&self) -> Severity {
        Severity::Availability
    }

    fn teardown(&self, wish: Teardown) -> Option<Box<dyn Resource>> {
        Some(Box::new(AbsentStack { name: self.stack.name.clone(), wipe_data: wish.wipe_data }))
    }

    fn claims(&self) -> Vec<Claim> {
        let stack = &self.stack;
        let mut out = vec![Claim::ComposeProject(stack.name.clone()), Claim::Path(stack.directory())];
        out.extend(stack.objects().into_iter().map(Claim::DockerObject));
        for service in &stack.services {
            let owner = format!("{}/{}", stack.name, service.name);
            out.push(Claim::Image { reference: service.image.clone(), owner: service.name.clone() });
            if stack.pull != "never" && !stack.provided.contains(&service.image) && !service.image.contains('@') {
                out.push(Claim::Pulled { reference: service.image.clone(), digest: None });
            }
            for port in &service.ports {
                let address = if port.address.is_empty() { "0.0.0.0".to_owned() } else { port.address.clone() };
                out.push(Claim::PublishedPort { address, port: port.host, protocol: port.protocol.clone(), owner: owner.clone() });
            }
            let (memory, cpus) = (service.reserved_memory, service.reserved_nano_cpus);
            if memory > 0 || cpus > 0 {
                let count = u64::from(service.replicas);
                out.push(Claim::Reservation { owner: owner.clone(), milli_cpus: cpus / 1_000_000 * count, memory: memory * count });
            }
            if let Some(memory) = service.memory {
                out.push(Claim::Limit { owner, memory: memory * u64::from(service.replicas) });
            }
        }
        let (memory, cpus) = (stack.requires.memory.unwrap_or(0), stack.requires.nano_cpus.unwrap_or(0));
        if memory > 0 || cpus > 0 {
            out.push(Claim::Needs { owner: stack.name.clone(), milli_cpus: cpus / 1_000_000, memory });
        }
        let disk = stack.requires.disk.iter().map(|(path, &bytes)| Claim::Disk { owner: stack.name.clone(), path: path.clone(), bytes });
        out.extend(disk);
        for (key, declared) in stack.model.section("networks") {
            if !is_external(Some(declared)) {
                out.extend(
                    subnets(declared).into_iter().map(|cidr| Claim::Subnet { cidr, owner: host_name(&stack.name, key, Some(declared)) }),
                );
            }
        }
        out
    }
}

impl ComposeRelease {
    /// Declared networks by their name on the host, and whether they are somebody else's.
    fn networks(&self) -> BTreeMap<String, bool> {
        let declared = self.stack.model.section("networks");
        declared.iter().map(|(key, value)| (host_name(&self.stack.name, key, Some(value)), is_external(Some(value)))).collect()
    }

    fn external_volumes(&self) -> BTreeSet<String> {
        let declared = self.stack.model.section("volumes").iter().filter(|(_, value)| is_external(Some(value)));
        declared.map(|(key, value)| host_name(&self.stack.name, key, Some(value))).collect()
    }

    fn state(&self, view: &View<'_>) -> Result<HostState, Undecided> {
        host::parse(&view.raw(&host::question(&self.stack.name))?.stdout).map_err(Undecided::Unknown)
    }

    /// Every reason why the stack would not come up that can be seen beforehand.
    fn preflight(&self, view: &View<'_>, containers: &[Container]) -> Result<Vec<String>, Undecided> {
        let stack = &self.stack;
        let mut reasons = preflight::platforms(stack, view.facts);
        match view.docker_info() {
            Ok(Some(info)) => reasons.extend(preflight::versions(info)),
            Ok(None) => reasons.push("Docker does not run here: add `docker_engine` before this stack".to_owned()),
            Err(Undecided::After(_)) => {}
            Err(other) => return Err(other),
        }
        reasons.extend(preflight::ports(stack, containers, view.listening()?.map_or("", String::as_str)));
        let existing: BTreeSet<String> = self.existing_networks(view, true)?.into_keys().collect();
        reasons.extend(preflight::networks(stack, &existing, &view.raw(&routes())?.stdout));
        for (name, external) in self.networks() {
            if external
                && !existing.contains(&name)
                && view.pending(|effect| matches!(effect, Effect::Network(touched) if *touched == name)).is_none()
            {
                reasons.push(format!("external network `{name}` does not exist: add `docker_network` before this stack"));
            }
        }
        for name in self.external_volumes() {
            if matches!(view.volume(&name), Ok(None)) {
                reasons.push(format!("external volume `{name}` does not exist: add `docker_volume` before this stack"));
            }
        }
        for (service, path) in stack.host_paths() {
            if matches!(view.path(&path), Ok(None)) && !path.ends_with("docker.sock") {
                reasons.push(format!("`{path}`, which `{service}` mounts, does not exist: add `directory` or `copy` before this stack"));
            }
        }
        for (name, least) in &stack.requires.sysctl {
            if let Ok(value) = view.sysctl(name)
                && value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0) < *least
            {
                reasons
                    .push(format!("kernel setting `{name}` is {}, at least {least} is required", value.map_or("absent", String::as_str)));
            }
        }
        if !view.facts.has_apparmor() && !stack.apparmor.is_empty() && !stack.apparmor_if_available {
            reasons.push("services ask for AppArmor profiles and this host's kernel has no AppArmor: Docker would run them unconfined and say nothing; set `apparmor_if_available: true` to accept that".to_owned());
        }
        Ok(reasons)
    }

    /// Ids of the services' images that are on the host; what is nowhere to be had is a reason.
    fn images(&self, view: &View<'_>, fresh: bool, reasons: &mut Vec<String>) -> Result<BTreeMap<String, String>, Undecided> {
        let mut out = BTreeMap::new();
        for service in &self.stack.services {
            match view.image(&service.image) {
                Ok(Some(inspect)) => {
                    if let Some(id) = inspect.get("Id").and_then(Value::as_str) {
                        out.insert(service.image.clone(), id.to_owned());
                        if let Some(lock) = self.stack.locked.get(&service.image).filter(|lock| !lock.fits(inspect)) {
                            reasons.push(format!(
                                "image `{}` of service `{}` is {id} on the host, and {} has another: bring the locked one, or look at this one and lock it with `soc-provision images lock`",
                                service.image, service.name, lock.at
                            ));
                        }
                    }
                }
                Ok(None) if self.stack.pull == "never" && !self.stack.provided.contains(&service.image) => {
                    reasons.push(format!("image `{}` of service `{}` is not on the host and nothing brings it: list it under `images`, or set `pull: missing`", service.image, service.name));
                }
                Ok(None) => {}
                Err(Undecided::After(id)) if !fresh => return Err(Undecided::After(id)),
                Err(Undecided::After(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(out)
    }

    fn existing_networks<'a>(&self, view: &View<'a>, fresh: bool) -> Result<BTreeMap<String, &'a Value>, Undecided> {
        let mut out = BTreeMap::new();
        for name in self.networks().into_keys() {
            match view.network(&name) {
                Ok(Some(found)) => {
                    out.insert(name, found);
                }
                Ok(None) => {}
                Err(Undecided::After(_)) if fresh => {}
                Err(other) => return Err(other),
            }
        }
        Ok(out)
    }

    /// Differences in files: for people, for services that reload, and for those whose mounted
    /// files were changed behind their back.
    fn file_changes(
        &self,
        release: &Release,
        state: &HostState,
        offset: u32,
    ) -> (Vec<Change>, BTreeMap<String, String>, BTreeMap<String, String>) {
        let (mut changes, mut reloads, mut tampered) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let files = release.files.iter().map(|(path, file)| (path, file.mode, file.uid, file.gid));
        let secrets = release.secrets.iter().map(|(path, secret)| (path, secret.mode, secret.uid, secret.gid));
        for (path, mode, uid, gid) in files.chain(secrets) {
            let Some(found) = state.files.get(path) else { continue };
            let wanted = release.digests.get(path).map_or("ok", String::as_str);
            let right = found.digest == "ok" || found.digest == wanted;
            let owned = (found.mode, found.uid, found.gid) == (mode, uid + offset, gid + offset);
            if right && owned {
                continue;
            }
            let what = path.splitn(3, '/').nth(2).unwrap_or(path);
            if right {
                let shown = |mode: u32, uid: u32, gid: u32| format!("{mode:o} {uid}:{gid}");
                changes.push(Change::of(
                    format!("{what}.mode"),
                    shown(found.mode, found.uid, found.gid),
                    shown(mode, uid + offset, gid + offset),
                ));
            } else {
                changes.push(Change::of(format!("{what}.content"), "changed on the host", "as declared"));
            }
            for service in users(release, path) {
                tampered.insert(service, what.to_owned());
            }
        }
        for (live, from) in release.live.iter().filter(|(live, from)| state.live.get(*live) != Some(*from)) {
            if let Some(service) = live.split('/').nth(1) {
                reloads.insert(service.to_owned(), from.rsplit('/').next().unwrap_or(from).to_owned());
            }
        }
        (changes, reloads, tampered)
    }

    fn decide(&self, release: &Release, state: &HostState, files: Vec<Change>, difference: Difference) -> Plan {
        let stack = &self.stack;
        let mut plan = Plan { notes: stack.notes.clone(), ..Plan::default() };
        for (service, variables) in &stack.env_secrets {
            for (variable, secret) in variables {
                plan.notes.push(format!(
                    "exception: service `{service}` gets secret `{secret}` in its environment as `{variable}`; Docker keeps it in clear"
                ));
            }
        }
        if let Some((failed, _)) = state.failed.as_ref().filter(|(failed, _)| *failed == release.id) {
            plan.notes.push(format!("release {failed} did not get healthy the last time it was tried"));
        }
        let compose = crate::secret::sha256(release.compose.as_bytes());
        let mut changes = Vec::new();
        if state.current.as_deref() != Some(release.id.as_str()) {
            match &state.current {
                Some(current) => changes.push(Change::of("release", current.clone(), release.id.clone())),
                None => changes.push(Change::add("release", release.id.clone())),
            }
            if state.compose.as_ref() != Some(&compose) {
                let path = format!("{}/current/compose.yml", stack.directory());
                let content = Change::content(&path, state.current.is_some(), Text::plain(release.compose.clone()));
                changes.push(Change { field: "compose.yml".to_owned(), ..content });
            }
        } else if state.compose.as_ref() != Some(&compose) {
            changes.push(Change::of("compose.yml.content", "changed on the host", "as declared"));
        }
        changes.extend(files);
        changes.extend(difference.changes.iter().cloned());
        for job in &stack.init {
            if state.jobs.get(&job.name) != Some(&script::job_digest(job)) {
                changes.push(Change::add(format!("init.{}", job.name), format!("run in {}", job.service)));
            }
        }
        if changes.is_empty() {
            return plan;
        }
        plan.steps = script::apply(stack, release, &difference, state);
        plan.validate = script::validate(stack, release);
        plan.changes = changes;
        plan.effects = vec![
            Effect::Project(stack.name.clone()),
            Effect::Tree(stack.directory()),
            Effect::Raw(format!("compose_stack/{}", stack.name)),
        ];
        plan
    }
}

/// Seconds since 1970 as people read them.
#[must_use]
pub fn point_in_time(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| format!("{seconds} s since 1970"), |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// Services whose containers mount a file of the release.
fn users(release: &Release, path: &str) -> Vec<String> {
    let Some(directory) = path.split('/').nth(1) else { return Vec::new() };
    let Ok(compose) = serde_json::from_str::<Value>(&release.compose) else { return Vec::new() };
    let mut out = Vec::new();
    for (name, service) in compose.get("services").and_then(Value::as_object).into_iter().flatten() {
        let section = |kind: &str| compose.get(kind).cloned().unwrap_or_default();
        let named = |kind: &str| -> bool {
            let declared = section(kind);
            let used = service.get(kind).and_then(Value::as_array).into_iter().flatten();
            used.filter_map(|item| item.as_str().or_else(|| item.get("source")?.as_str())).any(|key| {
                declared
                    .pointer(&format!("/{key}/file"))
                    .and_then(Value::as_str)
                    .is_some_and(|file| file.contains(&format!("/{directory}/")))
            })
        };
        if service.to_string().contains(&format!("/{directory}/")) || named("secrets") || named("configs") {
            out.push(name.clone());
        }
    }
    out
}

/// How far Docker's user namespaces shift owners: part of its data directory's name.
fn offset(view: &View<'_>) -> u32 {
    let info = view.docker_info().ok().flatten();
    let root = info.and_then(|info| info.get("DockerRootDir")).and_then(Value::as_str).unwrap_or_default();
    let last = root.rsplit('/').next().unwrap_or_default();
    last.split_once('.').filter(|(_, gid)| gid.chars().all(|c| c.is_ascii_digit())).and_then(|(uid, _)| uid.parse().ok()).unwrap_or(0)
}

fn refusal(undecided: Undecided) -> String {
    match undecided {
        Undecided::Refused(reason) | Undecided::Unknown(reason) => reason,
        Undecided::After(id) => format!("known only after {id}"),
    }
}

impl Resource for AbsentStack {
    fn id(&self) -> ResourceId {
        id_of(&self.name)
    }

    fn questions(&self, _facts: &Facts) -> Vec<Question> {
        vec![Question::Containers, host::question(&self.name)]
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let state = host::parse(&view.raw(&host::question(&self.name))?.stdout).map_err(Undecided::Unknown)?;
        if let Some(reason) = held(&state.contained, "is taken down") {
            return Err(Undecided::Refused(reason));
        }
        let mut plan = Plan::in_sync();
        if let Some(current) = &state.current {
            plan = plan.change(Change::remove("release", current.clone()));
        } else if state.exists {
            plan = plan.change(Change::remove("directory", self.name.clone()));
        }
        for container in view.containers()?.iter().map(Container::read).filter(|container| container.project() == self.name) {
            plan = plan.change(Change::remove(format!("container {}", container.name), container.condition()));
        }
        if !plan.changes.is_empty() {
            if self.wipe_data {
                plan = plan.change(Change::remove("volumes", "all of the stack's named volumes, with their data"));
            }
            plan.steps = script::remove(&self.name, self.wipe_data);
            plan = plan.effect(Effect::Project(self.name.clone())).effect(Effect::Raw(format!("compose_stack/{}", self.name)));
        }
        Ok(plan)
    }
}
