//! Drift: every way in which somebody changes a host behind the tool's back is found, named and put
//! right; and nothing else is ever found.

mod ansible;
mod mutations;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{Lab, Project, Run, command, root, series, soc};
use mutations::{Cure, MUTATIONS, Mutation};

/// What a host is, as far as mutations may reach. Times and counters are left out; so is what a
/// login or a package tool writes for itself.
const FINGERPRINT: &str = r"export LC_ALL=C
find /etc /srv /root /home /usr/local /var/spool/cron /var/lib/soc-provision/stacks /var/lib/soc-provision/secret-files -xdev \
  ! -path '/etc/*-' ! -name .updated ! -path '/etc/ld.so.cache' ! -path '/home/*/.cache*' ! -path '/etc/apt/*' ! -path '/etc/runit/*' ! -name '.sums*' ! -name history ! -name images \
  ! -path '/root/.docker*' ! -path '*/.local/share*' ! -name 'adjtime' ! -path '/etc/systemd/system/soc-provision-guard*' -printf '%y %m %u %g %p %l\n' | sort
find /etc /srv /root /home /usr/local -xdev -type f ! -path '/etc/*-' ! -name shadow ! -path '/etc/sub?id' ! -path '/etc/ld.so.cache' ! -name .updated ! -path '/home/*/.cache*' ! -name adjtime -exec sha256sum {} + | sort -k 2
cut -d: -f1,2,8 /etc/shadow | sort; sort /etc/subuid /etc/subgid
dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\n' | grep -v '^rc'
systemctl list-unit-files --no-pager --no-legend | awk '{print $1, $2}' | grep -v -e soc-provision-guard -e transient
for u in cron probe docker ssh soc-purge.timer soc-provision-firewall; do printf '%s ' $u; systemctl is-active $u; done
cat /proc/sys/kernel/hostname /proc/sys/net/ipv4/conf/all/log_martians
find /usr/bin /usr/sbin /usr/local -xdev -type f -perm /6000 -printf '%m %p\n' | sort; find /usr/bin /usr/sbin /usr/local /etc /srv -xdev -type f -perm /111 -print0 | xargs -0 getcap
getfacl -Rsp /etc /srv /root /home /usr/local; find /etc /srv -xdev \( -type f -o -type d \) -print0 | xargs -0 lsattr -d 2>/dev/null | grep '^[^ /]*[ia]'
nft -s list tables; nft -s list table inet soc_provision
docker ps -a --format '{{.Names}} {{.Image}} {{.State}}' | sort
docker network ls --format '{{.Name}} {{.Driver}}' | sort; docker volume ls -q | sort
docker inspect mut-web-1 mut-db-1 --format '{{.Name}} {{.Image}} {{.Config.Env}} {{.Config.User}} {{.Config.Cmd}} {{.HostConfig.Privileged}} {{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.CapAdd}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.RestartPolicy}} {{.HostConfig.PortBindings}} {{range $k, $v := .NetworkSettings.Networks}}{{$k}} {{end}}' | sort
docker inspect mut-web-1 mut-db-1 --format '{{$n := .Name}}{{range .Mounts}}{{println $n .Source .Destination .RW}}{{end}}' | sort
docker images --format '{{.Repository}}:{{.Tag}} {{.ID}}' | sort
";

/// The host that is mutated, its project, and where the secrets' identity is: drift runs without it.
struct Field {
    lab: Lab,
    project: Project,
    inventory: PathBuf,
    keys: tempfile::TempDir,
}

impl Field {
    /// A host with everything of the project applied, twice; `None` where labs cannot run.
    fn ready() -> Option<Self> {
        let lab = Lab::containers(1, &["--docker"])?;
        let project = Project::new(&[]);
        for name in ["playbooks/site.yml", "files/web.json"] {
            project.write(name, &std::fs::read_to_string(root().join("tests/e2e/drift/project").join(name)).unwrap());
        }
        let inventory = lab.inventory();
        let field = Self { lab, project, inventory, keys: tempfile::tempdir().unwrap() };
        field.with_identity(&["secrets", "keygen"]);
        field.with_identity(&["secrets", "init"]);
        for name in ["agent/key", "stack/token"] {
            field.with_identity(&["secrets", "set", name, "--generate"]);
        }
        field.with_identity(&["apply", "site.yml"]);
        field.lab.sh("h1", "install -d -o analyst -g analyst -m 0700 /home/analyst/.ssh");
        Some(field)
    }

    /// Runs a command that may open secrets.
    fn with_identity(&self, words: &[&str]) -> Run {
        let mut command = command(self.project.dir.path(), words);
        if words[0] != "secrets" {
            command.args(["-i", self.inventory.to_str().unwrap()]);
        }
        let out = command.env("HOME", self.keys.path()).output().unwrap();
        let run = Run {
            code: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        };
        assert!(run.code == 0 || words[0] == "drift", "{words:?}: {}", run.all());
        run
    }

    /// Drift as a nightly job runs it: it holds no identity.
    fn drift(&self, more: &[&str]) -> Run {
        soc(self.project.dir.path(), &[&["drift", "site.yml", "-i", self.inventory.to_str().unwrap()], more].concat())
    }

    fn found(&self) -> (i32, Vec<Finding>) {
        let run = self.drift(&["--format", "json"]);
        (run.code, findings(&run.json()))
    }
}

#[derive(Debug)]
struct Finding {
    id: String,
    severity: String,
    text: String,
}

/// What drift found on h1 and nobody accepts.
fn findings(document: &Value) -> Vec<Finding> {
    let list = document["hosts"]["h1"]["findings"].as_array().cloned().unwrap_or_default();
    list.into_iter()
        .filter(|finding| finding["accepted"].is_null())
        .map(|finding| Finding {
            id: format!("{}[{}]", finding["id"]["kind"].as_str().unwrap(), finding["id"]["name"].as_str().unwrap()),
            severity: finding["severity"].as_str().unwrap().to_owned(),
            text: format!("{} {}", finding["state"].as_str().unwrap(), finding["detail"].as_str().unwrap()),
        })
        .collect()
}

fn fits(pattern: &str, id: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == id, |start| id.starts_with(start))
}

/// Mutations that do not meet: each resource at most once in a group.
fn groups(mut chosen: Vec<&'static Mutation>) -> Vec<Vec<&'static Mutation>> {
    let mut out: Vec<Vec<&'static Mutation>> = Vec::new();
    chosen.sort_by_key(|mutation| mutation.alone);
    for mutation in chosen {
        let touches = |mutation: &Mutation| -> BTreeSet<&'static str> {
            mutation.expect.iter().map(|(id, _)| *id).chain(mutation.also.iter().copied()).collect()
        };
        let mine = touches(mutation);
        let free = |group: &&mut Vec<&'static Mutation>| {
            !mutation.alone && group.iter().all(|other| !other.alone && touches(other).is_disjoint(&mine) && !meet(mutation, other))
        };
        match out.iter_mut().find(free) {
            Some(group) => group.push(mutation),
            None => out.push(vec![mutation]),
        }
    }
    out
}

/// Mutations that touch the same thing under two names.
fn meet(a: &Mutation, b: &Mutation) -> bool {
    let cron = |mutation: &Mutation| {
        ["stop cron", "disable cron", "mask cron", "mask --runtime cron", "cron.service"].iter().any(|word| mutation.act.contains(word))
    };
    if cron(a) && cron(b) {
        return true;
    }
    ["analyst", "collector", "/root/.ssh", "/etc/hosts", "systemctl restart docker", "dpkg", "apt-get", "chown -h root", "soc-shared"]
        .iter()
        .any(|word| a.act.contains(word) && b.act.contains(word))
}

/// A sample that is another one each time, and says which it was.
fn sample(count: usize) -> Vec<&'static Mutation> {
    let seed = std::env::var("SOC_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        // The sample of `make test` is the same each time; `make prove` draws anew.
        if std::env::var_os("SOC_PROVE").is_some() { u64::from(std::process::id()) } else { 11477 }
    });
    eprintln!("SOC_SEED={seed}");
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut all: Vec<&Mutation> = MUTATIONS.iter().collect();
    let mut out = Vec::new();
    while out.len() < count && !all.is_empty() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.push(all.swap_remove(usize::try_from(state % all.len() as u64).unwrap()));
    }
    out
}

fn chosen() -> Vec<&'static Mutation> {
    if let Ok(words) = std::env::var("SOC_MUTATIONS") {
        return MUTATIONS.iter().filter(|mutation| words.split(',').any(|word| mutation.name.contains(word))).collect();
    }
    sample(usize::try_from(series(25, 1000)).unwrap())
}

#[test]
fn every_change_behind_the_tools_back_is_found_named_and_put_right() {
    assert!(MUTATIONS.len() >= 80);
    let Some(field) = Field::ready() else { return };
    let (code, before) = field.found();
    assert!(code == 0 && before.is_empty(), "drift after apply: {before:#?}");
    let mut fresh = field.lab.sh("h1", FINGERPRINT);
    let mut wrong: Vec<String> = Vec::new();
    for group in groups(chosen()) {
        let problems = one_group(&field, &group, &mut fresh);
        problems.iter().for_each(|problem| eprintln!("{problem}"));
        wrong.extend(problems);
    }
    assert!(wrong.is_empty(), "{} problems:\n{}", wrong.len(), wrong.join("\n"));
}

fn one_group(field: &Field, group: &[&Mutation], fresh: &mut String) -> Vec<String> {
    let mut wrong = Vec::new();
    let names: Vec<&str> = group.iter().map(|mutation| mutation.name).collect();
    for mutation in group {
        let out = field.lab.ssh("h1", "root", &format!("( {}\n) </dev/null", mutation.act));
        if !out.status.success() {
            wrong.push(format!("`{}` could not be done: {}", mutation.name, String::from_utf8_lossy(&out.stderr)));
        }
    }
    let (code, found) = field.found();
    if code != 3 {
        wrong.push(format!("{names:?}: drift ended with {code}"));
    }
    for mutation in group {
        for (id, severity) in mutation.expect {
            match found.iter().find(|finding| fits(id, &finding.id)) {
                None => wrong.push(format!(
                    "`{}` was missed: no {id} in {:?}",
                    mutation.name,
                    found.iter().map(|one| &one.id).collect::<Vec<_>>()
                )),
                Some(finding) if finding.severity != *severity => {
                    wrong.push(format!("`{}`: {id} is {}, not {severity}", mutation.name, finding.severity));
                }
                Some(_) => {}
            }
        }
    }
    let expected = |finding: &Finding| {
        group.iter().any(|mutation| {
            mutation.expect.iter().map(|(id, _)| *id).chain(mutation.also.iter().copied()).any(|pattern| fits(pattern, &finding.id))
        })
    };
    // What is changed may make a health check fail besides.
    for finding in found.iter().filter(|finding| !expected(finding) && !finding.id.starts_with("health[")) {
        wrong.push(format!("{names:?}: a false alarm: {} {}", finding.id, finding.text));
    }
    for mutation in group {
        if let Cure::Hand(undo) = mutation.cure {
            field.lab.sh("h1", undo);
        }
    }
    let fixed = field.with_identity(&["drift", "site.yml", "--fix", "--prune", "all"]);
    if fixed.code != 0 {
        wrong.push(format!("{names:?}: not put right, exit {}: {}", fixed.code, fixed.all()));
        field.lab.ssh("h1", "root", "rm -f /srv/soc");
        field.with_identity(&["drift", "site.yml", "--fix", "--prune", "all"]);
    }
    let after = field.lab.sh("h1", FINGERPRINT);
    if after != *fresh {
        wrong.push(format!("{names:?}: the host is not as before:\n{}", difference(fresh, &after)));
        // Told once, and not of each group that follows.
        *fresh = after;
    }
    wrong
}

fn difference(a: &str, b: &str) -> String {
    let (left, right): (BTreeSet<&str>, BTreeSet<&str>) = (a.lines().collect(), b.lines().collect());
    let gone = left.difference(&right).map(|line| format!("  - {line}"));
    let come = right.difference(&left).map(|line| format!("  + {line}"));
    gone.chain(come).take(30).collect::<Vec<_>>().join("\n")
}

#[test]
fn drift_reads_only_and_an_unchanged_host_is_no_alarm() {
    let Some(field) = Field::ready() else { return };
    // Whatever a login itself writes.
    let login = "! -path '/var/log/*' ! -path '/run/*' ! -path '/var/lib/systemd/*' ! -path '/home/*/.cache*' ! -path '/var/lib/docker/*' ! -path '/var/lib/containerd/*' ! -path '/tmp/*' ! -path '/var/tmp/*'";
    field.lab.sh("h1", "touch /root/.mark && sleep 1.1 && rm -f /root/.mark2; touch -r /root/.mark /root/.mark; :");
    let document = field.drift(&["--format", "json"]).json();
    assert!(findings(&document).is_empty(), "{:#?}", findings(&document));
    assert!(document["hosts"]["h1"]["round_trips"].as_u64().unwrap() <= 3, "{}", document["hosts"]["h1"]["round_trips"]);
    let written = field.lab.sh("h1", &format!("find / -xdev -newer /root/.mark -type f {login} 2>/dev/null | head; find /var/lib/soc-provision /etc /srv -newer /root/.mark | head"));
    assert_eq!(written, "", "drift wrote to the host");
    field.lab.sh("h1", "rm -f /root/.mark");
    // No lock is taken: drift works, and says so, while somebody holds it.
    let holder = "printf 'run r1\\nwho ann\\nfrom desk\\nsince 0\\n' >/var/lib/soc-provision/lock.holder; flock /var/lib/soc-provision/lock sleep 20 >/dev/null 2>&1 & sleep 0.3";
    field.lab.sh("h1", holder);
    let run = field.drift(&[]);
    assert_eq!(run.code, 0, "{}", run.all());
    assert!(run.stderr.contains("run r1 of ann from desk is under way"), "{}", run.all());
    // The host lives: it reboots, logs, runs its timers; containers come back by themselves.
    for round in 0..series(5, 100) {
        match round % 5 {
            0 => field.lab.power("h1", "reset"),
            1 => drop(field.lab.sh("h1", "systemctl start soc-purge.service logrotate.service 2>/dev/null; logger -p auth.info hello; docker restart -t 1 mut-db-1 >/dev/null")),
            2 => drop(field.lab.sh("h1", "head -c 100000 /dev/zero | tr '\\0' x | logger; systemctl restart systemd-journald probe cron")),
            3 => drop(field.lab.sh("h1", "docker exec mut-db-1 /bin/busybox touch /data/x /tmp/y 2>/dev/null; systemctl daemon-reload; apt-get update >/dev/null 2>&1; :")),
            _ => {}
        }
        let mut last = (0, Vec::new());
        // What is starting up is not healthy yet; nothing else has an excuse.
        for _ in 0..if round % 5 < 3 { 20 } else { 1 } {
            last = field.found();
            if last.0 == 0 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        assert!(last.0 == 0, "round {round}: {:#?}", last.1);
    }
}

#[test]
fn formats_acceptances_and_bad_words() {
    let Some(field) = Field::ready() else { return };
    field.lab.sh("h1", "echo x >>/etc/soc/agent.conf; useradd -M -s /bin/sh 'eve'; echo y >/etc/soc/strange");
    let text = field.drift(&["-D"]);
    assert_eq!(text.code, 3);
    let place = |word: &str| text.stdout.find(word).unwrap_or_else(|| panic!("no `{word}` in {}", text.stdout));
    assert!(place("SECURITY\n  user[eve] [h1]") < place("CONFIG\n"), "{}", text.stdout);
    assert!(place("copy[/etc/soc/agent.conf]") < place("ACCEPTED\n") && text.stdout.contains("-x\n"), "{}", text.stdout);
    assert!(text.stdout.contains("h1: drift: 1 security, 2 config") && text.stdout.contains("--prune files,users"), "{}", text.stdout);
    let sarif: Value = serde_json::from_str(&field.drift(&["--format", "sarif"]).stdout).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let junit = field.drift(&["--format", "junit"]).stdout;
    assert!(junit.starts_with("<?xml") && junit.contains("failures=\"3\""), "{junit}");
    let metrics = field.drift(&["--format", "prometheus"]).stdout;
    assert!(metrics.contains("host=\"h1\",severity=\"config\"} 2\n") && metrics.contains("soc_provision_drift_in_sync"), "{metrics}");
    for line in field.drift(&["--format", "jsonl"]).stdout.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    let unknown = field.drift(&["--prune", "user"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("did you mean `users`"), "{}", unknown.stderr);
    // Only what was asked for goes, and what goes is kept.
    let pruned = field.drift(&["--prune", "users", "--format", "json"]).json();
    assert_eq!(pruned["removed"][0]["id"], "user[eve]");
    let kept = pruned["removed"][0]["kept"].as_str().unwrap().to_owned();
    assert!(field.lab.sh("h1", &format!("cat {kept}/user-eve; stat -c %a {kept}")).contains("eve:"));
    assert_eq!(findings(&pruned).len(), 2);
    // What differs is put right without touching what nobody declared.
    let fixed = field.with_identity(&["drift", "site.yml", "--fix", "--format", "json"]);
    assert_eq!(fixed.code, 3, "{}", fixed.all());
    let fixed = fixed.json();
    assert_eq!(fixed["fixed"][0][1], "copy[/etc/soc/agent.conf]");
    assert_eq!(findings(&fixed).iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["file[/etc/soc/strange]"]);
}
