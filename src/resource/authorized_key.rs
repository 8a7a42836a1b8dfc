//! `authorized_key`: who may log in as a user by SSH key.
//!
//! Reads the user's `~/.ssh/authorized_keys` and compares keys by their data, so that comments do
//! not count. Writes the file as the user, so that no link in a home directory leads root astray.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::{Presence, Words, check_account};
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Change, Effect, MOVED_ON, Plan, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Resource, ResourceId, Severity};
use crate::secret::{Text, sha256};
use crate::shell::Script;

/// Adds or removes SSH keys that may log in as a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthorizedKey {
    /// The user.
    user: String,
    /// One key or several, as lines of `authorized_keys`; options before the key are kept.
    #[serde(alias = "keys")]
    key: Words,
    /// Options for every key, such as `restrict,from="10.0.0.0/8"`.
    #[serde(default, alias = "options")]
    key_options: Option<String>,
    /// Remove every other key.
    #[serde(default)]
    exclusive: bool,
    /// `absent` removes these keys.
    #[serde(default)]
    state: Presence,
}

impl Kind for AuthorizedKey {
    const NAME: &'static str = "authorized_key";
    const EXAMPLE: &'static str = "authorized_key:
  user: analyst
  key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0ZSAl2nXnwbYfqBSVyR5PjZ7Q8xyUq3aV7Vw1vYd3d analyst@laptop
  exclusive: true
";

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        check_account(&self.user).map_err(|reason| BuildError::field("user", reason))?;
        let mut keys = Vec::new();
        for line in self.key.0.iter().flat_map(|text| text.lines()).map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut key = Key::parse(line)
                .ok_or_else(|| BuildError::field("key", format!("`{}` is not a public key", line.chars().take(40).collect::<String>())))?;
            if let Some(options) = &self.key_options {
                key.options.clone_from(options);
            }
            if key.options.chars().any(char::is_control) {
                return Err(BuildError::field("key_options", "options cannot contain control characters"));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(BuildError::field("key", "`key` is empty"));
        }
        if self.exclusive && self.state == Presence::Absent {
            return Err(BuildError::field("exclusive", "`exclusive` and `state: absent` exclude each other"));
        }
        Ok(vec![Box::new(Keys { spec: self, keys })])
    }
}

/// A line of `authorized_keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    options: String,
    algorithm: String,
    data: String,
    comment: String,
}

impl Key {
    /// Options may contain blanks inside quotes, so the algorithm is looked for outside of them.
    fn parse(line: &str) -> Option<Self> {
        let mut quoted = false;
        let mut escaped = false;
        let mut starts = vec![0];
        for (at, c) in line.char_indices() {
            match c {
                '"' if !escaped => quoted = !quoted,
                ' ' | '\t' if !quoted => starts.push(at + 1),
                _ => {}
            }
            escaped = c == '\\' && !escaped;
        }
        let known = |word: &str| ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|start| word.starts_with(start));
        let at = starts.into_iter().find(|at| known(&line[*at..]))?;
        let mut words = line[at..].split_whitespace();
        let (algorithm, data) = (words.next()?, words.next()?);
        let fine = data.starts_with("AAAA") && data.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        fine.then(|| Self {
            options: line[..at].trim().to_owned(),
            algorithm: algorithm.to_owned(),
            data: data.to_owned(),
            comment: words.collect::<Vec<_>>().join(" "),
        })
    }

    fn line(&self) -> String {
        let parts = [&self.options, &self.algorithm, &self.data, &self.comment];
        parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" ")
    }

    /// For people: the algorithm, the end of the data, and whose it says it is.
    fn short(&self) -> String {
        let tail: String = self.data.chars().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect();
        format!("{} ...{tail} {}", self.algorithm, self.comment).trim_end().to_owned()
    }
}

/// A user's keys.
#[derive(Debug)]
struct Keys {
    spec: AuthorizedKey,
    keys: Vec<Key>,
}

impl Keys {
    /// Prints `absent`, or `there` and the file; with the file's mode, if others may write to it,
    /// for which sshd refuses all keys in it. Exit status 3 without the user.
    fn question(&self) -> Question {
        let script = Script::sh(
            "l=$(getent passwd -- {}) || exit 3; h=${l%:*}; h=${h##*:}; f=$h/.ssh/authorized_keys; if [ -f \"$f\" ]; then m=$(stat -Lc %a -- \"$f\"); case $m in *[2367] | *[2367]?) echo \"there $m\" ;; *) echo there ;; esac; cat -- \"$f\"; else echo absent; fi\n",
            &[&self.spec.user],
        );
        Question::Raw { key: format!("authorized-keys:{}", self.spec.user), script }
    }

    /// The file's lines afterwards, and what changes.
    fn edit(&self, old: &str) -> (Vec<String>, Vec<Change>) {
        let mut lines = Vec::new();
        let mut changes = Vec::new();
        let mut found = vec![false; self.keys.len()];
        for line in old.lines() {
            let Some(seen) = Key::parse(line.trim()).filter(|_| !line.trim().starts_with('#')) else {
                lines.push(line.to_owned());
                continue;
            };
            match self.keys.iter().position(|key| key.data == seen.data) {
                Some(_) if self.spec.state == Presence::Absent => changes.push(Change::remove("key", seen.short())),
                Some(index) if found[index] => changes.push(Change::remove("key", format!("{} (twice)", seen.short()))),
                Some(index) => {
                    found[index] = true;
                    let wanted = &self.keys[index];
                    if wanted.options == seen.options {
                        lines.push(line.to_owned());
                    } else {
                        changes.push(Change::of(format!("options of {}", wanted.short()), &seen.options, &wanted.options));
                        lines.push(wanted.line());
                    }
                }
                None if self.spec.exclusive => changes.push(Change::remove("key", seen.short())),
                None => lines.push(line.to_owned()),
            }
        }
        if self.spec.state == Presence::Present {
            for (key, _) in self.keys.iter().zip(&found).filter(|(_, found)| !**found) {
                changes.push(Change::add("key", key.short()));
                lines.push(key.line());
            }
        }
        (lines, changes)
    }

    /// Runs as the user. `$(cat)` drops the last newlines, as the question's answer does.
    fn write(&self, lines: &[String], old: Option<&str>) -> Step {
        let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        let home = "l=$(getent passwd -- \"$(id -un)\"); h=${l%:*}; h=${h##*:}; d=$h/.ssh; f=$d/authorized_keys; umask 077\n";
        let script =
            Script::sh(home, &[]).then("[ -d \"$h\" ] || { printf 'the home directory `%s` is not there\\n' \"$h\" >&2; exit 1; }\n", &[]);
        let script = match old {
            None => script.then("[ ! -e \"$f\" ] || exit {}\n", &[&MOVED_ON.to_string()]),
            Some(old) => script.then(
                "o=$(cat -- \"$f\"); s=$(printf %s \"$o\" | sha256sum); [ \"${s%% *}\" = {} ] || exit {}\n",
                &[&sha256(old.as_bytes()), &MOVED_ON.to_string()],
            ),
        };
        let script = script
            .then("mkdir -p -m 0700 -- \"$d\" || exit 1; read -r t </proc/sys/kernel/random/uuid; t=$d/.soc-tmp-$t\n", &[])
            .payload(&Text::plain(text))
            .then(" >\"$t\" && sync -- \"$t\" && mv -fT -- \"$t\" \"$f\" || { rm -f -- \"$t\"; exit 1; }\n", &[]);
        let mut step = Step::new(format!("write authorized_keys of {}", self.spec.user), script);
        step.user = (self.spec.user != "root").then(|| self.spec.user.clone());
        step
    }
}

impl Resource for Keys {
    fn id(&self) -> ResourceId {
        let first = self.keys.first().map(Key::short).unwrap_or_default();
        let more = if self.keys.len() > 1 { format!(" and {} more", self.keys.len() - 1) } else { String::new() };
        ResourceId::new(AuthorizedKey::NAME, format!("{}: {first}{more}", self.spec.user))
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        vec![self.question()]
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let coming = view.pending(|effect| *effect == Effect::User(self.spec.user.clone())).is_some();
        let seen = view.raw(&self.question())?;
        let old = match (seen.status, seen.stdout.split_once('\n')) {
            (0, Some((head, text))) if head.starts_with("there") => Some(text),
            (0, None) if seen.stdout.starts_with("there") => Some(""),
            (0, _) => None,
            (3, _) if coming => None,
            (3, _) if self.spec.state == Presence::Absent => return Ok(Plan::in_sync()),
            (3, _) => {
                let user = &self.spec.user;
                return Err(Undecided::Refused(format!("there is no user `{user}`: add a task `user: {user}` before this one")));
            }
            _ => return Err(Undecided::Unknown(format!("`authorized_keys` of `{}` cannot be read", self.spec.user))),
        };
        let (lines, mut changes) = self.edit(old.unwrap_or_default());
        let lax = seen.stdout.lines().next().and_then(|head| head.strip_prefix("there "));
        changes.extend(lax.filter(|_| self.spec.state == Presence::Present).map(|mode| Change::of("mode of authorized_keys", mode, "600")));
        if changes.is_empty() {
            return Ok(Plan::in_sync());
        }
        let Question::Raw { key, .. } = self.question() else { return Ok(Plan::in_sync()) };
        Ok(Plan { changes, ..Plan::default() }.step(self.write(&lines, old)).effect(Effect::Raw(key)))
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        if self.spec.state == Presence::Absent {
            return Vec::new();
        }
        self.keys.iter().map(|key| Claim::AuthorizedKey { user: self.spec.user.clone(), key: key.data.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::{Bench, absent, raw, run, shown};

    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIaaaaaaaaaaaa";
    const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIbbbbbbbbbbbb";

    fn plan(extra: &str, file: &str) -> Plan {
        let bench = Bench::default();
        let resource = bench.build(&format!("authorized_key: {{user: ana, key: \"{A} ana\"{extra}}}"));
        let mut observed = absent(&*resource);
        raw(&mut observed, &*resource, "authorized", 0, file);
        bench.plan(&*resource, &observed).unwrap()
    }

    #[test]
    fn keys_are_compared_by_their_data() {
        assert!(plan("", &format!("there\n# mine\n{A} another comment\n{B} bob")).is_in_sync());
        assert_eq!(plan("", "absent").changes.len(), 1);
        assert_eq!(shown(&plan(", exclusive: true", &format!("there\n{A}\n{B} bob"))), ["key: ssh-ed25519 ...bbbbbbbbbbbb bob -> -"]);
        assert_eq!(shown(&plan(", state: absent", &format!("there\n{A} x\n{B} bob"))), ["key: ssh-ed25519 ...aaaaaaaaaaaa x -> -"]);
        let options = format!("there\ncommand=\"echo ssh-rsa x\",no-pty {A} ana");
        assert_eq!(plan("", &options).changes.len(), 1);
        assert!(plan(", key_options: 'command=\"echo ssh-rsa x\",no-pty'", &options).is_in_sync());
        assert!(Bench::default().try_build("authorized_key: {user: ana, key: nonsense}").is_err());
    }

    #[test]
    fn a_user_that_is_on_its_way_gets_its_keys_planned() {
        let bench = Bench::default();
        let resource = bench.build(AuthorizedKey::EXAMPLE);
        let mut observed = absent(&*resource);
        raw(&mut observed, &*resource, "authorized", 3, "");
        assert!(matches!(bench.plan(&*resource, &observed), Err(Undecided::Refused(_))));
        let later = Bench::default().pending(Effect::User("analyst".into()));
        let plan = later.plan(&*resource, &observed).unwrap();
        assert_eq!((plan.changes.len(), plan.steps[0].user.as_deref()), (1, Some("analyst")));
    }

    /// With a `getent` that puts root's home into a temporary directory.
    #[test]
    fn the_file_is_written_for_real_and_only_over_what_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let path = format!("{home}/bin");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(format!("{path}/getent"), format!("#!/bin/sh\necho root:x:0:0::{home}:/bin/sh\n")).unwrap();
        std::fs::set_permissions(format!("{path}/getent"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let bench = Bench::default();
        let resource = bench.build(&format!("authorized_key: {{user: root, key: [\"{A} it's\", \"{B}\"]}}"));
        let with = |script: &Script| Script::sh("PATH={}:$PATH\n", &[&path]).append(script.clone());
        let look = || {
            let mut observed = absent(&*resource);
            let Some(Question::Raw { script, .. }) = resource.questions(&Facts::placeholder("h")).pop() else { panic!() };
            let (status, out, _) = run(&with(&script), &bench.vault);
            raw(&mut observed, &*resource, "authorized", status, String::from_utf8(out).unwrap().trim_end());
            bench.plan(&*resource, &observed).unwrap()
        };
        let first = look();
        assert_eq!(run(&with(&first.steps[0].script), &bench.vault).0, 0);
        let file = format!("{home}/.ssh/authorized_keys");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{A} it's\n{B}\n"));
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions()) & 0o777, 0o600);
        assert!(look().is_in_sync());
        assert_eq!(run(&with(&first.steps[0].script), &bench.vault).0, MOVED_ON);
        std::fs::write(&file, format!("{B}\n")).unwrap();
        let second = look();
        std::fs::write(&file, format!("{A}\n")).unwrap();
        assert_eq!(run(&with(&second.steps[0].script), &bench.vault).0, MOVED_ON);
    }
}
