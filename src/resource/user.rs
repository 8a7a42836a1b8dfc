//! `user`: an account, its groups, shell, home and password hash.
//!
//! Reads `getent passwd` and `getent group`. A password hash is compared on the host with a record
//! of what was set; it travels on `chpasswd`'s stdin. Keys are `authorized_key`'s.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::facts::Facts;
use crate::resource::argument::{Account, Presence, Words, check_account};
use crate::resource::interview::{SECRET_RECORDS, secret_record};
use crate::resource::observe::{Question, UserState, View};
use crate::resource::plan::{Change, Effect, Plan, Shown, Step, Undecided};
use crate::resource::{BuildContext, BuildError, Claim, Kind, Resource, ResourceId, Severity};
use crate::secret::{SecretName, Text};
use crate::shell::Script;

/// Creates, changes or removes a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "they are Ansible's arguments")]
pub struct User {
    /// The user's name.
    name: String,
    /// The user's number.
    #[serde(default)]
    uid: Option<u32>,
    /// The primary group, which must exist. A new user gets one of its own unless given.
    #[serde(default)]
    group: Option<Account>,
    /// Supplementary groups: all of them, unless `append`. A list, or names separated by commas.
    #[serde(default)]
    groups: Option<Words>,
    /// Only add to `groups`; others stay.
    #[serde(default)]
    append: bool,
    /// The login shell.
    #[serde(default)]
    shell: Option<String>,
    /// The home directory.
    #[serde(default)]
    home: Option<String>,
    /// Create a new user's home directory.
    #[serde(default = "yes", alias = "createhome")]
    create_home: bool,
    /// A new user gets its number from the system's range.
    #[serde(default)]
    system: bool,
    /// The full name.
    #[serde(default)]
    comment: Option<String>,
    /// The password's hash, as in `/etc/shadow`; never the password. May be a secret.
    #[serde(default, alias = "password")]
    #[schemars(with = "Option<String>")]
    password_hash: Option<Text>,
    /// `on_create` sets the password of a new user only.
    #[serde(default)]
    update_password: UpdatePassword,
    /// The day from which nobody can log in as it: `2027-01-31`, `never`, or Ansible's seconds since
    /// 1970. Unless given, a day to come is left alone; one that has come is taken away.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    expires: Option<Expiry>,
    /// `absent` removes the user.
    #[serde(default)]
    state: Presence,
    /// With `absent`: remove the home directory too.
    #[serde(default)]
    remove: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum UpdatePassword {
    #[default]
    Always,
    OnCreate,
}

/// When an account ends: a day counted from 1970-01-01, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expiry(Option<i64>);

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if text == "never" {
            return Ok(Self(None));
        }
        if let Ok(date) = text.parse::<jiff::civil::Date>() {
            let days = date.since(EPOCH).map(|span| i64::from(span.get_days()));
            return days.map(|days| Self(Some(days))).map_err(serde::de::Error::custom);
        }
        match text.split('.').next().unwrap_or_default().parse::<i64>() {
            Ok(seconds) => Ok(Self((seconds >= 0).then_some(seconds / 86_400))),
            Err(_) => Err(serde::de::Error::custom(format!("`{text}` is not a day: write it as in `2027-01-31`, or `never`"))),
        }
    }
}

const EPOCH: jiff::civil::Date = jiff::civil::date(1970, 1, 1);

impl Expiry {
    /// As people write it.
    fn day(self) -> String {
        let date = self.0.and_then(|days| EPOCH.checked_add(jiff::Span::new().try_days(days).ok()?).ok());
        date.map_or_else(|| "never".to_owned(), |date| date.to_string())
    }

    /// As `usermod -e` takes it.
    fn argument(self) -> String {
        if self.0.is_some() { self.day() } else { String::new() }
    }
}

fn yes() -> bool {
    true
}

impl Kind for User {
    const NAME: &'static str = "user";
    const EXAMPLE: &'static str = "user:
  name: analyst
  comment: SOC analyst
  groups: [adm, systemd-journal]
  append: true
  shell: /bin/bash
";
    const SHORTHAND: Option<&'static str> = Some("name");
    const SECRET_FIELDS: &'static [&'static str] = &["password_hash", "password"];

    fn build(self, _: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        check_account(&self.name).map_err(|reason| BuildError::field("name", reason))?;
        for (field, text) in [("comment", &self.comment), ("shell", &self.shell), ("home", &self.home)] {
            if text.as_ref().is_some_and(|text| text.contains([':', '\n', '\0'])) {
                return Err(BuildError::field(field, format!("`{field}` cannot contain colons or line breaks")));
            }
        }
        for group in self.groups() {
            check_account(&group).map_err(|reason| BuildError::field("groups", reason))?;
        }
        if self.state == Presence::Absent && self.name == "root" {
            return Err(BuildError::field("name", "`root` is not removed by any task"));
        }
        if let Some(plain) = self.password_hash.as_ref().and_then(Text::as_plain)
            && !plain.starts_with(['$', '!', '*'])
        {
            return Err(BuildError::field("password_hash", "`password_hash` is not a hash").hint("make one with `mkpasswd -m yescrypt`"));
        }
        Ok(vec![Box::new(self)])
    }
}

impl User {
    fn groups(&self) -> Vec<String> {
        let mut groups = self.groups.as_ref().map(Words::split).unwrap_or_default();
        groups.sort();
        groups.dedup();
        groups
    }

    /// The name under which the password's record is kept.
    fn record(&self) -> String {
        secret_record(&format!("shadow:{}", self.name))
    }

    /// Prints `same` or `differs` and the fingerprint of what was set: the hash stays on the host.
    fn password_question(&self) -> Option<Question> {
        self.password_hash.as_ref()?;
        let script = Script::sh(
            "r={}; f=; s=; if [ -r \"$r\" ]; then { read -r f && read -r s; } <\"$r\" || s=; fi; l=$(getent shadow -- {}); h=${l#*:}; h=${h%%:*}\n",
            &[&self.record(), &self.name],
        )
        .then("n=$(printf %s \"$h\" | sha256sum); if [ \"${n%% *}\" = \"$s\" ]; then echo \"same $f\"; else echo \"differs $f\"; fi\n", &[]);
        Some(Question::Raw { key: format!("password:{}", self.name), script })
    }

    fn set_password(&self, view: &View<'_>, hash: &Text) -> Result<Step, Undecided> {
        let fingerprint = view.fingerprint(hash)?;
        let script = Script::sh("h=$(", &[])
            .payload(hash)
            .then(")\ncase $h in '$'*|'!'*|'*'*) ;; *) echo 'the secret is a password and not its hash: make one with `mkpasswd -m yescrypt` and store that' >&2; exit 1;; esac\n", &[])
            .then("printf '%s:%s\\n' {} \"$h\" | chpasswd -e || exit 1\n", &[&self.name])
            .then("umask 077; [ -d {} ] || mkdir -p {} || exit 1\n", &[SECRET_RECORDS, SECRET_RECORDS])
            .then("l=$(getent shadow -- {}); h=${l#*:}; h=${h%%:*}; n=$(printf %s \"$h\" | sha256sum)\n", &[&self.name])
            .then("printf '%s\\n%s\\n' {} \"${n%% *}\" >{}\n", &[fingerprint.as_str(), &self.record()]);
        Ok(Step::new(format!("set password of {}", self.name), script))
    }

    fn password(&self, view: &View<'_>, new: bool) -> Result<Plan, Undecided> {
        let Some(hash) = self.password_hash.as_ref().filter(|_| new || self.update_password == UpdatePassword::Always) else {
            return Ok(Plan::in_sync());
        };
        if !new && let Some(question) = self.password_question() {
            let wanted = format!("same {}", view.fingerprint(hash)?.as_str());
            if view.raw(&question)?.stdout == wanted {
                return Ok(Plan::in_sync());
            }
        }
        let before = if new { Shown::Absent } else { Shown::Hidden };
        let change = Change { field: "password".to_owned(), before, after: Shown::Hidden };
        Ok(Plan::in_sync().change(change).step(self.set_password(view, hash)?))
    }

    /// What only drift asks: whether an account that is declared without a password has one by now.
    /// Prints `created` if this tool made it without one, `set` if it has one.
    fn by_hand_question(&self) -> Option<Question> {
        let script =
            Script::sh("l=$(getent shadow -- {}); h=${l#*:}; h=${h%%:*}; [ -r {} ] && echo created\n", &[&self.name, &self.made()])
                .then("case $h in '$'* | [./A-Za-z0-9]*) echo set ;; esac; :\n", &[]);
        (self.password_hash.is_none() && self.state == Presence::Present)
            .then(|| Question::Raw { key: format!("password-by-hand:{}", self.name), script })
    }

    /// The record of an account that was made without a password.
    fn made(&self) -> String {
        secret_record(&format!("made:{}", self.name))
    }

    /// A password on an account that was made without one, or that is for no login at all.
    fn password_by_hand(&self, view: &View<'_>, seen: &UserState) -> Result<Plan, Undecided> {
        let told = self.by_hand_question().map(|question| view.asked(&question)).transpose()?.flatten();
        let told: Vec<&str> = told.map(|output| output.stdout.lines().collect()).unwrap_or_default();
        let shell = self.shell.as_deref().unwrap_or(&seen.shell);
        let no_login = self.system || ["/nologin", "/false"].iter().any(|end| shell.ends_with(end));
        if !told.contains(&"set") || !(no_login || told.contains(&"created")) {
            return Ok(Plan::in_sync());
        }
        if !no_login {
            // Somebody may log in, or become root, with it: the way back is not the tool's to choose.
            return Err(Undecided::Refused(format!(
                "`{}` was made without a password and has one by now: declare it as `password_hash`, or lock it (`passwd -l`)",
                self.name
            )));
        }
        let step = Step::new(format!("take the password of {} away", self.name), Script::sh("usermod -p '!' -- {}\n", &[&self.name]));
        Ok(Plan::in_sync().change(Change::of("password", "set by hand", "none, as it was made")).step(step))
    }

    fn create(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let mut script = Script::sh(if self.create_home { "useradd -m" } else { "useradd -M" }, &[]);
        let mut plan = Plan::in_sync().change(Change::add("user", &self.name));
        if self.system {
            script = script.then(" -r", &[]);
        }
        let groups = self.groups().join(",");
        let options = [
            ("uid", " -u {}", self.uid.map(|uid| uid.to_string())),
            ("group", " -g {}", self.group.as_ref().map(|group| group.0.clone())),
            ("groups", " -G {}", Some(groups).filter(|groups| !groups.is_empty())),
            ("shell", " -s {}", self.shell.clone()),
            ("home", " -d {}", self.home.clone()),
            ("comment", " -c {}", self.comment.clone()),
            ("expires", " -e {}", self.expires.filter(|expires| expires.0.is_some()).map(Expiry::argument)),
        ];
        for (field, option, value) in options {
            if let Some(value) = value {
                script = script.then(option, &[&value]);
                plan = plan.change(Change::add(field, value));
            }
        }
        script = script.then(" -- {} || exit $?\n", &[&self.name]);
        if self.password_hash.is_none() {
            script = script.then("umask 077; mkdir -p {} && : >{}\n", &[SECRET_RECORDS, &self.made()]);
        }
        Ok(plan.step(Step::new(format!("add user {}", self.name), script)).and(self.password(view, true)?))
    }

    fn modify(&self, view: &View<'_>, seen: &UserState) -> Result<Plan, Undecided> {
        let mut plan = Plan::in_sync();
        let mut script = Script::sh("usermod", &[]);
        let mut set = |field: &str, option: &'static str, before: String, after: Option<String>| {
            if let Some(after) = after.filter(|after| *after != before) {
                script = std::mem::take(&mut script).then(option, &[&after]);
                plan.changes.push(Change::of(field, before, after));
            }
        };
        set("uid", " -u {}", seen.uid.to_string(), self.uid.map(|uid| uid.to_string()));
        let group = self.group.as_ref().filter(|group| !group.is(&seen.group, seen.gid));
        set("group", " -g {}", seen.group.clone(), group.map(|group| group.0.clone()));
        set("shell", " -s {}", seen.shell.clone(), self.shell.clone());
        set("home", " -d {}", seen.home.clone(), self.home.clone());
        set("comment", " -c {}", seen.comment.clone(), self.comment.clone());
        if self.groups.is_some() {
            let mut wanted = self.groups();
            // The primary group may be listed again; it is no difference.
            let mut have = seen.groups.clone();
            have.retain(|group| *group != seen.group);
            wanted.retain(|group| *group != seen.group);
            if self.append {
                wanted.extend(have.iter().cloned());
                wanted.sort();
                wanted.dedup();
            }
            if wanted != have {
                set("groups", " -G {}", have.join(","), Some(wanted.join(",")));
            }
        }
        let (have, wanted) = (Expiry(seen.expires), self.expires.or(seen.expired.then_some(Expiry(None))));
        if let Some(wanted) = wanted.filter(|wanted| *wanted != have) {
            script = script.then(" -e {}", &[&wanted.argument()]);
            plan.changes.push(Change::of("expires", have.day(), wanted.day()));
        }
        if !plan.changes.is_empty() {
            plan = plan.step(Step::new(format!("change user {}", self.name), script.then(" -- {}\n", &[&self.name])));
        }
        Ok(plan.and(self.password(view, false)?).and(self.password_by_hand(view, seen)?))
    }

    /// Groups that neither are there nor may come with something earlier in the run.
    fn missing_groups(&self, view: &View<'_>) -> Result<(), Undecided> {
        for group in self.groups() {
            match view.group(&group) {
                Ok(None) if view.pending(|effect| matches!(effect, Effect::Package(_) | Effect::Docker | Effect::Raw(_))).is_none() => {
                    return Err(Undecided::Refused(format!(
                        "there is no group `{group}` for user `{}`: add a task `group: {group}` before this one",
                        self.name
                    )));
                }
                Ok(_) | Err(Undecided::After(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }
}

impl Resource for User {
    fn id(&self) -> ResourceId {
        ResourceId::new(Self::NAME, &self.name)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        let groups = self.groups().into_iter().map(Question::Group);
        std::iter::once(Question::User(self.name.clone())).chain(groups).chain(self.password_question()).collect()
    }

    fn drift_questions(&self, _: &Facts) -> Vec<Question> {
        self.by_hand_question().into_iter().collect()
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        let seen = view.user(&self.name)?;
        let plan = match (self.state, seen) {
            (Presence::Absent, None) => return Ok(Plan::in_sync()),
            (Presence::Absent, Some(seen)) => {
                let remove =
                    if self.remove { "userdel -r -- {} || exit $?\nrm -f -- {}\n" } else { "userdel -- {} || exit $?\nrm -f -- {}\n" };
                let script = Script::sh(remove, &[&self.name, &self.made()]);
                let plan = Plan::in_sync().change(Change::remove("user", &self.name));
                let plan = if self.remove { plan.change(Change::remove("home", &seen.home)) } else { plan };
                plan.step(Step::new(format!("remove user {}", self.name), script))
            }
            (Presence::Present, seen) => {
                self.missing_groups(view)?;
                match seen {
                    None => self.create(view)?,
                    Some(seen) => self.modify(view, seen)?,
                }
            }
        };
        Ok(if plan.is_in_sync() { plan } else { plan.effect(Effect::User(self.name.clone())) })
    }

    fn secrets(&self) -> Vec<SecretName> {
        self.password_hash.as_ref().map(Text::secrets).unwrap_or_default()
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        if self.state == Presence::Absent {
            return Vec::new();
        }
        let member = |group: String| Claim::Member { user: self.name.clone(), group };
        let primary = self.group.iter().map(|group| group.0.clone());
        std::iter::once(Claim::User(self.name.clone())).chain(self.groups().into_iter().chain(primary).map(member)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::observe::{Answer, GroupState};
    use crate::resource::testing::{Bench, absent, raw, run, shown};

    fn seen(groups: &[&str]) -> UserState {
        UserState {
            uid: 1001,
            gid: 1001,
            comment: String::new(),
            home: "/home/ana".into(),
            shell: "/bin/sh".into(),
            group: "ana".into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            expires: None,
            expired: false,
        }
    }

    fn changes(yaml: &str, groups: &[&str]) -> Vec<String> {
        let bench = Bench::default();
        let resource = bench.build(yaml);
        let mut observed = absent(&*resource);
        observed.insert(Question::User("ana".into()), Answer::User(Some(seen(groups))));
        for group in ["adm", "docker"] {
            observed.insert(Question::Group(group.into()), Answer::Group(Some(GroupState { gid: 1, members: vec![] })));
        }
        shown(&bench.plan(&*resource, &observed).unwrap())
    }

    #[test]
    fn groups_are_all_or_added_to() {
        assert_eq!(changes("user: {name: ana, groups: adm, append: true}", &["docker"]), ["groups: docker -> adm,docker"]);
        assert_eq!(changes("user: {name: ana, groups: \"adm,docker\"}", &["adm", "docker"]), Vec::<String>::new());
        assert_eq!(changes("user: {name: ana, groups: []}", &["docker"]), ["groups: docker -> "]);
        assert_eq!(changes("user: {name: ana, group: ana, uid: 1001, shell: /bin/sh}", &[]), Vec::<String>::new());
        assert_eq!(changes("user: {name: ana, uid: 5, shell: /bin/bash}", &[]), ["uid: 1001 -> 5", "shell: /bin/sh -> /bin/bash"]);
        assert_eq!(changes("user: {name: ana, state: absent, remove: true}", &[]), ["user: ana -> -", "home: /home/ana -> -"]);
    }

    #[test]
    fn an_account_that_has_ended_is_told_and_one_that_will_only_if_declared() {
        let bench = Bench::default();
        let plan = |yaml: &str, expires: Option<i64>, expired| {
            let resource = bench.build(yaml);
            let mut observed = absent(&*resource);
            observed.insert(Question::User("ana".into()), Answer::User(Some(UserState { expires, expired, ..seen(&[]) })));
            let plan = bench.plan(&*resource, &observed).unwrap();
            (shown(&plan), plan.steps.first().map(|step| step.script.shown()))
        };
        assert_eq!(plan("user: {name: ana}", Some(30_000), false).0, Vec::<String>::new());
        let (changes, script) = plan("user: {name: ana}", Some(1), true);
        assert_eq!(changes, ["expires: 1970-01-02 -> never"]);
        assert!(script.unwrap().contains("usermod -e ''"));
        assert_eq!(plan("user: {name: ana, expires: 2027-01-31}", None, false).0, ["expires: never -> 2027-01-31"]);
        assert_eq!(plan("user: {name: ana, expires: 2027-01-31}", Some(20_849), false).0, Vec::<String>::new());
        assert_eq!(plan("user: {name: ana, expires: never}", Some(20_849), false).0, ["expires: 2027-01-31 -> never"]);
        assert_eq!(plan("user: {name: ana, expires: -1}", None, false).0, Vec::<String>::new());
        assert!(bench.try_build("user: {name: ana, expires: soon}").is_err());
    }

    #[test]
    fn a_group_must_be_there_or_on_its_way() {
        let bench = Bench::default();
        let resource = bench.build("user: {name: ana, groups: docker}");
        assert!(matches!(bench.plan(&*resource, &absent(&*resource)), Err(Undecided::Refused(_))));
        for effect in [Effect::Group("docker".into()), Effect::Package("docker.io".into())] {
            let plan = Bench::default().pending(effect).plan(&*resource, &absent(&*resource)).unwrap();
            assert_eq!(shown(&plan), ["user: - -> ana", "groups: - -> docker"]);
        }
    }

    #[test]
    fn a_password_is_hidden_and_compared_by_its_record() {
        let mut bench = Bench::default();
        bench.secret("hash", "$y$j9T$abcdef$ghi");
        let marker = SecretName::parse("hash").unwrap().marker();
        let resource = bench.build(&serde_json::json!({ "user": { "name": "ana", "password_hash": marker } }).to_string());
        let mut observed = absent(&*resource);
        assert_eq!(shown(&bench.plan(&*resource, &observed).unwrap()), ["user: - -> ana", "password: - -> ***"]);
        observed.insert(Question::User("ana".into()), Answer::User(Some(seen(&[]))));
        raw(&mut observed, &*resource, "password", 0, "differs ");
        let plan = bench.plan(&*resource, &observed).unwrap();
        assert_eq!(shown(&plan), ["password: *** -> ***"]);
        assert!(!plan.steps[0].script.shown().contains("abcdef"));
        let fingerprint = Text::parse(&marker).fingerprint(&bench.digests).unwrap();
        raw(&mut observed, &*resource, "password", 0, &format!("same {}", fingerprint.as_str()));
        assert!(bench.plan(&*resource, &observed).unwrap().is_in_sync());
        assert!(bench.try_build("user: {name: ana, password_hash: hunter2}").is_err());
    }

    #[test]
    fn for_real_where_users_may_be_added() {
        let probe =
            run(&Script::sh("[ \"$(id -u)\" = 0 ] && command -v useradd && [ -w /etc/passwd ]", &[]), &crate::secret::Vault::default());
        if probe.0 != 0 {
            eprintln!("skipped: users cannot be added here");
            return;
        }
        let bench = Bench::default();
        bench.converge("group: {name: soctestgrp, gid: 61999}");
        bench.converge("user: {name: soctestusr, groups: soctestgrp, system: true, create_home: false, password_hash: \"!x\"}");
        bench.converge("user: {name: soctestusr, groups: [], comment: \"it's a test\", shell: /bin/false, password_hash: \"!y\"}");
        bench.converge("user: {name: soctestusr, state: absent}");
        bench.converge("group: {name: soctestgrp, state: absent}");
    }
}
