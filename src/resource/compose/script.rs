//! The steps that bring a stack to a release, back to another one, or off the host. What they
//! share is `lib.sh`; here are only the calls, with the plan's decisions as words.

use std::collections::BTreeSet;
use std::time::Duration;

use super::compare::{Action, Difference};
use super::diagnosis;
use super::host::HostState;
use super::render::Release;
use super::stack::{FileContent, Job, Migration, ROOT, Reload, Stack, StackFile};
use crate::resource::docker_image::PULL;
use crate::resource::plan::{Step, Upload};
use crate::secret::{Text, sha256};
use crate::shell::Script;

/// Shell functions that all steps share.
const LIBRARY: &str = include_str!("lib.sh");

/// The steps to a release, and the id of the release that the host is at.
#[must_use]
pub fn apply(stack: &Stack, release: &Release, difference: &Difference, state: &HostState) -> Vec<Step> {
    let mut steps = lay_down(stack, release, state);
    let old = state.current.as_deref().unwrap_or_default();
    let script = header(&stack.name, stack.wait, &stack.pull, &release.id, old)
        .then("refuse_contained\n", &[])
        .then("[ \"$(current)\" = \"$old\" ] || { say \"the current release is $(current), not ${old:-none}\"; exit 97; }\n", &[])
        .then("compose \"$new\" config -q || exit 95\n", &[])
        .append(fetch(stack, difference))
        .append(body(stack, difference))
        .append(finish(stack, release, state));
    let changed = difference.actions.len();
    let title = match changed {
        0 => format!("make release {} of {} current", release.id, stack.name),
        _ => format!("bring {} to release {}: {}", stack.name, release.id, services(difference)),
    };
    // Each service has its time, and as long again is needed to go back.
    let limit = (stack.wait + 120) * 2 * (changed as u64 + 2);
    steps.push(Step::new(title, script).deadline(Duration::from_secs(limit)).surviving());
    steps
}

/// The steps that take a stack off the host. Named volumes stay unless `wipe_data`.
#[must_use]
pub fn remove(stack: &str, wipe_data: bool) -> Vec<Step> {
    let volumes = if wipe_data { "--volumes" } else { "" };
    let script = header(stack, 60, "never", "", "").then("v={}\nrefuse_contained\n", &[volumes]).then(
        "if c=$(current) && [ -f \"$dir/releases/$c/compose.yml\" ]; then compose \"$c\" down --remove-orphans $v || exit 1\n\
             else docker compose -p \"$stack\" down --remove-orphans $v </dev/null || exit 1; fi\n\
             rm -rf \"$dir\"\n",
        &[],
    );
    vec![Step::new(format!("take {stack} down"), script).deadline(Duration::from_secs(600)).surviving()]
}

/// The steps of `soc-provision rollback`: to a release that the host still has, or to the one
/// before the current one. The release that is left is pinned: it does not come back by itself.
/// `wait` is how many seconds a service may take to become healthy.
#[must_use]
pub fn rollback(stack: &str, to: Option<&str>, who: &str, wait: u64) -> Vec<Step> {
    let script = header(stack, wait, "never", "", "").then("to={} who={}\n", &[to.unwrap_or_default(), who]).then(
        r#"refuse_contained
docker version -f '{{.Server.Version}}' >/dev/null 2>&1 || { why "Docker does not answer; nothing was touched"; exit 1; }
old=$(current) || { why "no release of $stack is current"; exit 1; }
[ -n "$to" ] || to=$(tac "$dir/history" | awk -v c="$old" '$2 != c { print $2; exit }')
[ -n "$to" ] || { why "there is no release before $old"; exit 1; }
[ "$to" != "$old" ] || { why "release $to is current already"; exit 1; }
[ -f "$dir/releases/$to/compose.yml" ] || { why "release $to is not on this host; it has: $(ls "$dir/releases" | tr '\n' ' ')"; exit 1; }
new=$to
undo "$to" "$old" || exit 1
if go_to "$to"; then
  switch "$to" && echo "$old $(now) $who" >"$dir/pin" && sync "$dir/pin" || exit 1
  say "release $to is current and healthy; $old does not come back without --retry-release"
else
  why "release $to did not get healthy; going back to $old"
  go_to "$old" && { why "release $old is back and healthy"; exit 96; }
  why "release $old did not come back either"
  exit 1
fi
"#,
        &[],
    );
    let title = to.map_or_else(|| format!("roll {stack} back"), |to| format!("roll {stack} back to release {to}"));
    vec![Step::new(title, script).deadline(Duration::from_secs((wait + 120) * 4)).surviving()]
}

/// What the validator runs before any step: Compose's own opinion of the file. Without Compose
/// (it is still to be installed), or with `env_file`s, which are not there yet, only the step
/// itself asks, before it stops anything.
#[must_use]
pub fn validate(stack: &Stack, release: &Release) -> Option<Script> {
    if stack.model.services().any(|(_, service)| service.contains_key("env_file")) {
        return None;
    }
    let script = Script::sh("if docker compose version >/dev/null 2>&1; then ", &[])
        .payload(&Text::plain(release.compose.clone()))
        .then(" | { env COMPOSE_ANSI=never", &[])
        .append(release.environment.keys().fold(Script::new(), |script, variable| script.then(" {}", &[&format!("{variable}=x")])))
        .then(" docker compose -p {} --project-directory / -f - config -q", &[&stack.name])
        .then("; }; fi\n", &[]);
    Some(script)
}

/// Digest of a job, recorded on the host once it was done.
#[must_use]
pub fn job_digest(job: &Job) -> String {
    sha256(format!("{job:?}").as_bytes())[..16].to_owned()
}

fn header(stack: &str, wait: u64, pull: &str, new: &str, old: &str) -> Script {
    let dir = format!("{ROOT}/{stack}");
    Script::sh("stack={} dir={} wait={} pull={} new={} old={}\n", &[stack, &dir, &wait.to_string(), pull, new, old])
        .then(PULL, &[])
        .then(LIBRARY, &[])
        .then(diagnosis::FUNCTIONS, &[])
}

/// Files, secrets and the release's own directory. What is right already is not sent.
fn lay_down(stack: &Stack, release: &Release, state: &HostState) -> Vec<Step> {
    let dir = stack.directory();
    let mut script = header(&stack.name, stack.wait, &stack.pull, &release.id, "")
        .then("mkdir -p \"$dir\" && chmod 0711 \"$dir\" && mkdir -p \"$dir/files\" \"$dir/secrets\" || exit 1\nchmod 0711 \"$dir/files\" \"$dir/secrets\"\n", &[]);
    let mut uploads = Vec::new();
    for (path, file) in &release.files {
        let digest = release.digests.get(path).map(String::as_str).unwrap_or_default();
        if !is_laid(state, path, digest) {
            script = put_file(script, &dir, path, file, digest, &mut uploads);
        } else if !is_owned(state, path, (file.mode, file.uid, file.gid)) {
            script = own(script, &format!("{dir}/{path}"), (file.mode, file.uid, file.gid));
        }
    }
    for (path, secret) in &release.secrets {
        if is_laid(state, path, "") {
            if !is_owned(state, path, (secret.mode, secret.uid, secret.gid)) {
                script = own(script, &format!("{dir}/{path}"), (secret.mode, secret.uid, secret.gid));
            }
            continue;
        }
        script = script.payload(&Text::secret(secret.secret.clone())).then(
            " | put {} {} {} {} && seal {} || exit 1\n",
            &[&format!("{dir}/{path}"), &format!("{:o}", secret.mode), &secret.uid.to_string(), &secret.gid.to_string(), path],
        );
    }
    for (name, text) in records(stack, release) {
        let digest = sha256(text.as_bytes());
        let path = format!("{dir}/releases/{}/{name}", release.id);
        script = script.payload(&Text::plain(text)).then(" | put {} 600 0 0 {} || exit 1\n", &[&path, &digest]);
    }
    let mut steps = Vec::new();
    if !uploads.is_empty() {
        steps.push(Step::new(format!("make room for files of {}", stack.name), Script::sh("mkdir -p {}\n", &[&format!("{dir}/incoming")])));
    }
    let mut step = Step::new(format!("lay down release {} of {}", release.id, stack.name), script);
    step.uploads = uploads;
    steps.push(step);
    steps
}

fn is_laid(state: &HostState, path: &str, digest: &str) -> bool {
    state.files.get(path).is_some_and(|file| file.digest == "ok" || (!digest.is_empty() && file.digest == digest))
}

/// Whether a file's mode and owners are right, whatever the shift of Docker's user namespaces.
fn is_owned(state: &HostState, path: &str, (mode, uid, gid): (u32, u32, u32)) -> bool {
    let shift = |seen: u32, wanted: u32| i64::from(seen) - i64::from(wanted);
    state.files.get(path).is_some_and(|file| {
        let (user, group) = (shift(file.uid, uid), shift(file.gid, gid));
        file.mode == mode && user == group && (user == 0 || user >= 65_536)
    })
}

fn own(script: Script, path: &str, (mode, uid, gid): (u32, u32, u32)) -> Script {
    script.then("own {} {} {} {} || exit 1\n", &[path, &format!("{mode:o}"), &uid.to_string(), &gid.to_string()])
}

fn put_file(script: Script, dir: &str, path: &str, file: &StackFile, digest: &str, uploads: &mut Vec<Upload>) -> Script {
    let (mode, uid, gid) = (format!("{:o}", file.mode), file.uid.to_string(), file.gid.to_string());
    let target = format!("{dir}/{path}");
    match &file.content {
        FileContent::Text(text) if text.as_plain().is_some() => {
            script.payload(text).then(" | put {} {} {} {} {} || exit 1\n", &[&target, &mode, &uid, &gid, digest])
        }
        FileContent::Text(text) => {
            script.payload(text).then(" | put {} {} {} {} && seal {} || exit 1\n", &[&target, &mode, &uid, &gid, path])
        }
        FileContent::Upload(source, sha256) => {
            let incoming = format!("{dir}/incoming/{sha256}");
            let known = uploads.iter().any(|upload| upload.destination == incoming);
            if !known {
                uploads.push(Upload { source: source.clone(), destination: incoming.clone(), sha256: sha256.clone() });
            }
            script.then("put {} {} {} {} {} <{} || exit 1\n", &[&target, &mode, &uid, &gid, digest, &incoming])
        }
    }
}

/// Small files that say how a release is brought up, so that it can come back without the controller.
fn records(stack: &Stack, release: &Release) -> Vec<(&'static str, String)> {
    let lines = |items: Vec<String>| items.into_iter().map(|line| line + "\n").collect::<String>();
    let services = stack.services.iter().map(|service| format!("{} {} {}", service.name, u8::from(service.one_shot), service.replicas));
    let mut out = vec![("compose.yml", release.compose.clone()), ("services", lines(services.collect()))];
    if !release.environment.is_empty() {
        // Names are ours, paths are digests: nothing here needs quoting.
        let exports = release.environment.iter().map(|(name, path)| format!("{name}=$(cat '{path}'); export {name}"));
        out.push(("env.sh", lines(exports.collect())));
    }
    if !release.live.is_empty() {
        out.push(("live", lines(release.live.iter().map(|(to, from)| format!("{to} {from}")).collect())));
    }
    out
}

/// What Compose may pull for the services that something is done about, each image once.
fn fetch(stack: &Stack, difference: &Difference) -> Script {
    let mut script = Script::new();
    if stack.pull == "never" {
        return script;
    }
    let mut seen = BTreeSet::new();
    for service in stack.services.iter().filter(|service| !stack.provided.contains(&service.image)) {
        let touched = difference.actions.iter().any(|action| action.service() == service.name && !matches!(action, Action::Reload(_)));
        if !touched || !seen.insert((&service.image, &service.platform)) {
            continue;
        }
        script = script.then("fetch {}", &[&service.image]);
        if let Some(platform) = &service.platform {
            script = script.then(" --platform {}", &[platform]);
        }
        script = script.then(" || exit 1\n", &[]);
    }
    script.then("pull=missing\n", &[])
}

fn body(stack: &Stack, difference: &Difference) -> Script {
    let mut script = Script::new();
    for id in &difference.strangers {
        script = script.then("docker stop {} >/dev/null; docker rm {} >/dev/null || back\n", &[id, id]);
    }
    for network in &difference.networks {
        script = script.then("drop_network {} || back\n", &[network]);
    }
    script = script.then("sync_live \"$new\" || back\n", &[]);
    if let Some(migration) = &stack.migrate {
        let text = |command: &Option<String>| command.clone().unwrap_or_default();
        let (backup, verify, restore) = (text(&migration.backup), text(&migration.verify), text(&migration.restore));
        let Migration { id, service, run, .. } = migration;
        script = script
            .then("migrate {} {} {}", &[id, service, migration.undone()])
            .then(" {} {} {} {} || back\n", &[&backup, run, &verify, &restore]);
    }
    for action in &difference.actions {
        let Some(service) = stack.services.iter().find(|service| service.name == action.service()) else { continue };
        let (name, count, one_shot) = (service.name.as_str(), service.replicas.to_string(), u8::from(service.one_shot).to_string());
        script = match action {
            Action::Start(_) => script.then("start {} {} {} || back\n", &[name, &one_shot, &count]),
            Action::Recreate(_) => script.then("recreate {} {} {} || back\n", &[name, &one_shot, &count]),
            Action::Roll(_, stale) => {
                let script = script.then("roll {} {}", &[name, &count]);
                stale.iter().fold(script, |script, id| script.then(" {}", &[id])).then(" || back\n", &[])
            }
            Action::Reload(_) => match stack.reload.get(name) {
                Some(Reload::Signal(signal)) => {
                    script.then("reload_signal {} {} && wait_service {} {} {} || back\n", &[name, signal, name, &one_shot, &count])
                }
                Some(Reload::Command(words)) => {
                    let script = words.iter().fold(script.then("reload_command {}", &[name]), |script, word| script.then(" {}", &[word]));
                    script.then(" && wait_service {} {} {} || back\n", &[name, &one_shot, &count])
                }
                None => script,
            },
        };
    }
    // A migration stops its service, whether that differs or not.
    let migrating = stack.migrate.as_ref().map(|migration| migration.service.as_str());
    let untouched = |name: &&str| !difference.actions.iter().any(|action| action.service() == *name);
    if let Some(service) = migrating.filter(untouched).and_then(|name| stack.services.iter().find(|service| service.name == name)) {
        let (one_shot, count) = (u8::from(service.one_shot).to_string(), service.replicas.to_string());
        script = script.then("[ -z \"$migrated\" ] || start {} {} {} || back\n", &[&service.name, &one_shot, &count]);
    }
    script
}

fn finish(stack: &Stack, release: &Release, state: &HostState) -> Script {
    let mut script = Script::new();
    for job in &stack.init {
        let digest = job_digest(job);
        if state.jobs.get(&job.name) != Some(&digest) {
            let unless = job.unless.clone().unwrap_or_default();
            script = script.then("job {} {} {} {} {} || back\n", &[&job.name, &digest, &job.service, &job.command, &unless]);
        }
    }
    if state.pin.as_ref().is_some_and(|pin| pin.release == release.id) {
        script = script.then("rm -f \"$dir/pin\"\n", &[]);
    }
    script
        .then(
            "remember_images \"$new\"; remember_migrations \"$new\"; switch \"$new\" || exit 1\nrm -rf \"$dir/failed\" \"$dir/incoming\"\n",
            &[],
        )
        .then("prune {}\n", &[&stack.keep.to_string()])
}

/// What happens to which service, for the step's title.
fn services(difference: &Difference) -> String {
    let word = |action: &Action| match action {
        Action::Start(name) => format!("start {name}"),
        Action::Recreate(name) => format!("recreate {name}"),
        Action::Roll(name, _) => format!("roll {name}"),
        Action::Reload(name) => format!("reload {name}"),
    };
    difference.actions.iter().map(word).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_posix_sh() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/resource/compose/lib.sh");
        let out = std::process::Command::new("sh").args(["-n", file]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    #[test]
    fn scripts_that_survive_hold_no_secrets() {
        for step in rollback("demo", None, "ann", 60).into_iter().chain(remove("demo", true)) {
            assert!(step.survives && step.script.secrets().is_empty());
        }
    }
}
