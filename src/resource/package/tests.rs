//! Plans from dpkg's states, and the script with recording tools in apt's place.

use super::*;
use crate::resource::observe::{Answer, Observations};
use crate::resource::testing::{Bench, absent, raw, run, shown};

fn dpkg(observed: &mut Observations, name: &str, version: &str, abbrev: &str) {
    let state = PackageState { version: version.into(), abbrev: abbrev.into() };
    observed.insert(Question::Package(name.into()), Answer::Package(Some(state)));
}

/// The changes that a task has to make, with these packages on the host.
fn changes(yaml: &str, packages: &[(&str, &str, &str)]) -> Vec<String> {
    let bench = Bench::default();
    let resource = bench.build(yaml);
    let mut observed = absent(&*resource);
    for (name, version, abbrev) in packages {
        dpkg(&mut observed, name, version, abbrev);
    }
    shown(&bench.plan(&*resource, &observed).unwrap())
}

#[test]
fn states_and_versions() {
    let good = [("nginx", "1.26.0-1", "ii ")];
    assert_eq!(changes("package: nginx", &[]), ["package nginx: - -> installed"]);
    assert_eq!(changes("package: nginx", &good), Vec::<String>::new());
    assert_eq!(changes("package: nginx", &[("nginx", "1.26.0-1", "iF ")]), ["package nginx: 1.26.0-1 half-configured (iF) -> installed"]);
    assert_eq!(changes("package: nginx", &[("nginx", "1.26.0-1", "rc ")]), ["package nginx: - -> installed"]);
    assert_eq!(changes("package: nginx=1.26*", &good), Vec::<String>::new());
    assert_eq!(changes("package: nginx=1.27*", &good), ["package nginx: 1.26.0-1 -> 1.27*"]);
    assert_eq!(changes("package: {name: nginx, state: hold}", &good), ["package nginx: 1.26.0-1 -> 1.26.0-1 held"]);
    assert_eq!(changes("package: {name: nginx, state: hold}", &[("nginx", "1", "hi ")]), Vec::<String>::new());
    assert_eq!(changes("package: {name: nginx, state: absent}", &good), ["package nginx: 1.26.0-1 -> -"]);
    assert_eq!(changes("package: {name: nginx, state: absent}", &[("nginx", "1", "rc ")]), Vec::<String>::new());
    assert_eq!(changes("package: {name: nginx, state: absent, purge: true}", &[("nginx", "1", "rc ")]), ["package nginx: 1 -> -"]);
    assert_eq!(changes("package: [nginx, curl]", &good), ["package curl: - -> installed"]);
}

#[test]
fn latest_and_old_lists() {
    let bench = Bench::default();
    let resource = bench.build("package: {name: nginx, state: latest, update_cache: true}");
    let mut observed = absent(&*resource);
    dpkg(&mut observed, "nginx", "1", "ii ");
    let policy = "other:\n  Candidate: 9\nnginx:\n  Installed: 1\n  Candidate: 2\n";
    raw(&mut observed, &*resource, "apt-policy", 0, policy);
    raw(&mut observed, &*resource, "apt-lists-age", 0, "60");
    assert_eq!(shown(&bench.plan(&*resource, &observed).unwrap()), ["package nginx: 1 -> 2"]);
    raw(&mut observed, &*resource, "apt-policy", 0, &policy.replace("Candidate: 2", "Candidate: 1"));
    assert!(bench.plan(&*resource, &observed).unwrap().is_in_sync());
    raw(&mut observed, &*resource, "apt-lists-age", 0, "900000");
    assert_eq!(shown(&bench.plan(&*resource, &observed).unwrap()), ["package lists: 250 hours old -> fetched"]);
    let later = Bench::default().pending(Effect::Raw(LISTS.into()));
    assert!(matches!(later.plan(&*resource, &observed), Err(Undecided::After(_))));
    let later = Bench::default().pending(Effect::Package("nginx".into()));
    assert!(matches!(later.plan(&*resource, &observed), Err(Undecided::After(_))));
}

#[test]
fn names_that_apt_would_read_otherwise_are_refused() {
    for name in ["nginx-", "-y", "a b;c", "$(id)", "nginx=", "Nginx"] {
        let yaml = serde_json::json!({ "package": { "name": [name] } }).to_string();
        assert!(Bench::default().try_build(&yaml).is_err(), "{name}");
    }
    assert!(Bench::default().try_build("package: {}").is_err());
}

/// The script, with tools that record how they are called instead of acting.
#[test]
fn the_script_waits_repairs_and_fetches_only_what_it_must() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let tool = |name: &str, body: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho \"{name} $*\" >>{}\n{body}\n", log.display())).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let go = |yaml: &str| {
        std::fs::write(&log, "").unwrap();
        let bench = Bench::default();
        let resource = bench.build(yaml);
        let mut observed = absent(&*resource);
        dpkg(&mut observed, "gone", "1", "ii ");
        let plan = bench.plan(&*resource, &observed).unwrap();
        let path = Script::sh("PATH={}:$PATH\n", &[dir.path().to_str().unwrap()]);
        let (status, _, stderr) = run(&path.append(plan.steps[0].script.clone()), &bench.vault);
        let calls = std::fs::read_to_string(&log).unwrap();
        let short = |line: &str| {
            line.split(" -o ").next().unwrap().to_owned() + line.rsplit("--force-confold").next().filter(|tail| *tail != line).unwrap_or("")
        };
        (status, stderr, calls.lines().map(short).collect::<Vec<_>>())
    };
    tool("dpkg", "");
    tool("apt-get", "");
    tool("apt-mark", "");
    tool("apt-cache", "");
    let (status, stderr, calls) = go("package: {name: [curl, \"jq=1*\"], state: hold}");
    assert_eq!((status, stderr.as_str()), (0, ""));
    let install = "apt-get -y -q install --no-remove --allow-downgrades --allow-change-held-packages --no-install-recommends curl jq=1*";
    assert_eq!(calls.last().unwrap(), "apt-mark hold curl jq");
    assert!(calls.iter().any(|call| call == install), "{calls:?}");
    let (_, _, calls) = go("package: {name: gone, state: absent, purge: true}");
    assert_eq!(calls.last().unwrap(), "apt-get -y -q --allow-change-held-packages purge -y gone");
    tool("apt-cache", "exit 100");
    let (_, _, calls) = go("package: curl");
    assert!(calls.contains(&"apt-get -y -q update".to_owned()), "{calls:?}");
    tool("dpkg", "[ \"$1\" != --audit ] || echo broken");
    let (_, stderr, calls) = go("package: curl");
    assert!(stderr.contains("repairing") && calls.iter().any(|call| call.contains("dpkg --force-confdef")), "{calls:?}");
    tool("apt-get", "exit 100");
    assert_eq!(go("package: curl").0, 1);
    // What must go for it is said; without sshd nobody would come back.
    tool("apt-get", "case \"$*\" in *-s\\ -q*) echo \"Remv exim4 [4]\" ;; *--no-remove*) exit 100 ;; esac");
    let (status, stderr, _) = go("package: curl");
    assert_eq!((status, stderr.contains("for it apt removes exim4")), (0, true), "{stderr}");
    tool("apt-get", "case \"$*\" in *-s\\ -q*) printf 'Remv openssh-server [4]\\n' ;; *--no-remove*) exit 100 ;; esac");
    let (status, stderr, _) = go("package: curl");
    assert!(status == 1 && stderr.contains("nobody could work on this host"), "{stderr}");
}
