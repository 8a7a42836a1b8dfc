//! What is kept: backups and their restore, evidence and containment, the runbooks, on real Docker.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Lab, Project, Run, command, root, soc};

const STACK: &str = r#"- hosts: h1
  become: true
  tasks:
    - name: notes
      compose_stack:
        name: notes
        pull: never
        health: {timeout: 60s}
        compose:
          services:
            db: {image: "keep-db:1", user: "1000", volumes: ["data:/data"], networks: {back: {aliases: [store]}}, restart: unless-stopped}
            web: {image: "keep-web:1", user: "1000", ports: ["18090:8080"], volumes: ["more:/more"], networks: [front, back], restart: unless-stopped}
          networks: {front: {}, back: {internal: true}}
          volumes: {data: {}, more: {}}
        images:
          "keep-db:1": {stand_in: {listen: [5432], user: 1000, writes: [/data], health: "test ! -e /data/poison"}}
          "keep-web:1": {stand_in: {listen: [8080], user: 1000, writes: [/more]}}
"#;

/// A lab host with Docker, a project with a stack and secrets, applied.
struct Site {
    lab: Lab,
    project: Project,
    /// Holds the identity, which is no part of a project.
    keys: tempfile::TempDir,
}

impl Site {
    fn new() -> Option<Self> {
        let lab = Lab::containers(1, &["--docker"])?;
        let project = Project::new(&[("playbooks/prod.yml", STACK)]);
        let site = Self { lab, project, keys: tempfile::tempdir().unwrap() };
        let inventory = std::fs::read_to_string(site.lab.inventory().with_file_name("inventory-direct.yml")).unwrap();
        site.project.write("inventory/prod.yml", &inventory);
        site.project.write("inventory/known_hosts", &std::fs::read_to_string(site.lab.inventory().with_file_name("known_hosts")).unwrap());
        let identity = site.keys.path().join("identity");
        site.soc(&["secrets", "keygen", "-o", identity.to_str().unwrap()]).ok();
        site.project.write("soc-provision.yml", &format!("identity: {}\n", identity.display()));
        site.soc(&["secrets", "init"]).ok();
        site.soc(&["apply", "prod.yml"]).ok();
        Some(site)
    }

    fn dir(&self) -> &Path {
        self.project.dir.path()
    }

    fn soc(&self, arguments: &[&str]) -> Run {
        soc(self.dir(), arguments)
    }

    fn sh(&self, script: &str) -> String {
        self.lab.sh("h1", script)
    }

    /// Names, kinds, modes, owners, links and contents of the stack's volumes.
    fn content(&self) -> String {
        self.sh(
            "for v in notes_data notes_more; do cd /var/lib/docker/volumes/$v/_data && find . -printf '%p %y %m %U:%G %l\\n' | sort && find . -type f -exec sha256sum {} + | sort; done",
        )
    }

    /// Everything on the host that somebody may have changed, but logs and what a login itself writes.
    fn fingerprint(&self) -> String {
        self.sh(
            "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log -o -path /var/lib/systemd -o -path /var/lib/docker/containers -o -path '/var/lib/containerd/*' -o -path /dev \\) -prune -o -printf '%p %y %m %U:%G %s %l %C@\\n' | sort; \
             docker ps -a --no-trunc --format '{{.ID}} {{.Names}} {{.State}}' | sort; \
             docker inspect -f '{{.Id}} {{.State.Pid}} {{.State.StartedAt}} {{json .NetworkSettings.Networks}} {{json .HostConfig}}' $(docker ps -aq) | sort; \
             docker volume ls -q | sort; docker network ls -q | sort; nft list ruleset | grep -v counter; cat /etc/passwd",
        )
    }
}

/// Bytes of all sorts in both volumes.
const FILL: &str = "cd /var/lib/docker/volumes/notes_data/_data && head -c 3000000 /dev/urandom >big && mkdir -p 'deep/two words' && echo one >'deep/two words/file' && \
     ln -s ../big deep/link && printf 'a\\nb' >\"$(printf 'line\\nbreak')\" && chmod 640 big && chown 1000:1000 big deep && : >empty && mkdir -p hollow && \
     echo other >/var/lib/docker/volumes/notes_more/_data/x";
const WIPE: &str = "rm -rf /var/lib/docker/volumes/notes_data/_data/* /var/lib/docker/volumes/notes_more/_data/*; echo intruder >/var/lib/docker/volumes/notes_data/_data/new";

/// One lab for all: each part leaves the stack healthy and as declared.
#[test]
fn backup_and_restore_evidence_and_containment_and_the_runbooks() {
    let Some(site) = Site::new() else { return };
    backup_wipe_restore_and_what_is_refused(&site);
    evidence_of_a_running_and_of_a_contained_container(&site);
    every_command_of_the_runbooks_works(&site);
}

fn backup_wipe_restore_and_what_is_refused(site: &Site) {
    site.sh(FILL);
    let before = site.content();
    let saved = site.soc(&["backup", "prod.yml", "--stack", "notes"]).ok();
    assert!(saved.stdout.contains("saved in /var/backups/soc/") && saved.stdout.contains("notes/notes_data: 5 files"), "{}", saved.stdout);
    assert_eq!(site.sh("docker ps --filter status=paused -q"), "", "nothing stays paused");
    site.sh(WIPE);
    let restored = site.soc(&["restore", "prod.yml", "--stack", "notes"]).ok();
    assert!(restored.stdout.contains("restored notes from"), "{}", restored.stdout);
    assert_eq!(site.content(), before, "content, modes, owners and links are what they were");
    assert_eq!(site.sh("ls -d /var/lib/docker/volumes/*/_data.* 2>/dev/null; ls -A /var/backups/soc | grep -v ^2 | grep -v .lock; :"), "");
    let again = site.soc(&["apply", "prod.yml"]).ok();
    assert!(again.stdout.contains("changed=0"), "{}", again.stdout);
    copies(site, &before);

    // A damaged archive, a wrong name, a wrong time: refused before anything stops, nothing lost.
    site.sh("sleep 1; echo living >/var/lib/docker/volumes/notes_more/_data/x");
    let (living, started) = (site.content(), site.sh("docker inspect -f '{{.State.StartedAt}}' notes-db-1 notes-web-1"));
    let unknown = site.soc(&["restore", "prod.yml", "--stack", "nodes"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("did you mean `notes`"), "{}", unknown.all());
    for (arguments, code, words) in [
        (&["--stack", "notes", "--from", "last tuesday"][..], 1, "neither a backup nor a time"),
        (&["--stack", "notes", "--from", "20010101T000000Z"], 2, "there are: 2"),
        (&["--stack", "notes", "--from", "2001-01-01"], 2, "or before"),
        (&["--stack", "notes", "--volume", "mroe"], 2, "with volume `mroe`"),
    ] {
        let run = site.soc(&[&["restore", "prod.yml"], arguments].concat());
        assert!(run.code == code && run.all().contains(words), "{arguments:?}: {} {}", run.code, run.all());
    }
    let part = site.soc(&["backup", "prod.yml", "--stack", "notes", "--volume", "notes_more"]).ok();
    assert!(!part.stdout.contains("notes_data"), "{}", part.stdout);
    let list = site.soc(&["restore", "prod.yml", "--list"]).ok();
    assert!(list.stdout.contains("  whole  plain") && list.stdout.contains("  partial  plain"), "{}", list.stdout);
    let archive = site.sh("ls /var/backups/soc/2*/notes/notes_data.tar.gz");
    site.sh(&format!("cp {archive} /root/good; printf X | dd of={archive} bs=1 seek=1000 conv=notrunc 2>/dev/null"));
    let damaged = site.soc(&["restore", "prod.yml", "--stack", "notes"]);
    assert!(damaged.code == 2 && damaged.stderr.contains("is damaged; nothing was touched"), "{}", damaged.all());
    // Whoever forges the manifest too still meets the digests of the files within.
    site.sh(&format!(
        "cd $(dirname {archive}) && mkdir /root/f && tar -xzf /root/good -C /root/f && echo forged >/root/f/empty && tar -czf {archive} -C /root/f . && \
         sha256sum $(ls | grep -v MANIFEST) >MANIFEST"
    ));
    let forged = site.soc(&["restore", "prod.yml", "--stack", "notes"]);
    assert!(forged.code == 2 && forged.stderr.contains("is not what went in; nothing was touched"), "{}", forged.all());
    assert_eq!(site.content(), living);
    assert_eq!(site.sh("docker inspect -f '{{.State.StartedAt}}' notes-db-1 notes-web-1"), started, "nothing was stopped");

    // A backup on which the stack does not get healthy: the content from before it is back.
    site.sh("mkdir -p /etc/soc-provision/backup; echo wait_seconds=12 >/etc/soc-provision/backup/settings; touch /var/lib/docker/volumes/notes_data/_data/poison");
    site.soc(&["backup", "prod.yml", "--stack", "notes"]).ok();
    site.sh("rm /var/lib/docker/volumes/notes_data/_data/poison");
    let ill = site.soc(&["restore", "prod.yml", "--stack", "notes"]);
    assert!(ill.code == 2 && ill.stderr.contains("did not get healthy") && ill.stderr.contains("the old content is back"), "{}", ill.all());
    assert_eq!(site.content(), living);
    site.soc(&["verify", "prod.yml"]).ok();
}

/// Away from the host and back to one that has lost everything.
fn copies(site: &Site, before: &str) {
    let fetch = || site.soc(&["backup", "prod.yml", "--stack", "notes", "--fetch", "copies", "--from", "latest"]);
    fetch().ok();
    let find = |name: &str| {
        let out = Command::new("find").arg(site.dir().join("copies")).args(["-name", name]).output().unwrap();
        std::path::PathBuf::from(String::from_utf8(out.stdout).unwrap().trim())
    };
    let archive = find("notes_data.tar.gz");
    let whole = std::fs::read(&archive).unwrap();
    // Cut off: it goes on where it stopped. Damaged meanwhile: noticed, not kept.
    std::fs::remove_file(&archive).unwrap();
    let part = archive.with_file_name("notes_data.tar.gz.part");
    std::fs::write(&part, &whole[..1_000_000]).unwrap();
    let rest = fetch().ok();
    assert!(rest.stdout.contains(&format!("({} bytes", whole.len() - 1_000_000)), "{}", rest.stdout);
    assert!(std::fs::read(&archive).unwrap() == whole && !part.exists());
    std::fs::remove_file(&archive).unwrap();
    std::fs::write(&part, vec![0_u8; 1000]).unwrap();
    let damaged = fetch();
    assert!(damaged.code == 2 && damaged.stderr.contains("not what its MANIFEST says") && !part.exists(), "{}", damaged.all());
    fetch().ok();
    site.sh(&format!("{WIPE}; rm -rf /var/backups/soc"));
    std::fs::write(&archive, &whole[..whole.len() - 1]).unwrap();
    let restore = || site.soc(&["restore", "prod.yml", "--stack", "notes", "--from-dir", "copies"]);
    let refused = restore();
    assert!(refused.code == 2 && refused.stderr.contains("nothing was touched"), "{}", refused.all());
    std::fs::write(&archive, &whole).unwrap();
    restore().ok();
    assert_eq!(site.content(), before);
}

fn manifest(site: &Site, archive: &str, to: &str) -> Value {
    let verified = site.soc(&["capture", "--verify", archive, "--extract", to]).ok();
    assert!(verified.stdout.contains("every digest holds"), "{}", verified.stdout);
    serde_json::from_slice(&std::fs::read(site.dir().join(to).join("manifest.json")).unwrap()).unwrap()
}

fn evidence_of_a_running_and_of_a_contained_container(site: &Site) {
    site.sh("docker exec -d notes-web-1 sh -c 'echo dropped >/tmp/dropper; exec sleep 4321'; echo secret-in-volume >/var/lib/docker/volumes/notes_more/_data/x; sleep 2");
    let capture = |arguments: &[&str]| site.soc(&[&["capture", "h1", "-i", "prod"], arguments].concat());
    // Of a running one: everything is there, every digest holds, and the host is as it was.
    let before = site.fingerprint();
    let taken = capture(&["--stack", "notes", "--volumes", "--reason", "case 7", "-o", "running.age"]).ok();
    assert!(taken.stdout.contains("manifest: sha256 "), "{}", taken.stdout);
    let after = site.fingerprint();
    let changed: Vec<_> = after.lines().filter(|line| !before.lines().any(|other| other == *line)).collect();
    assert!(changed.is_empty(), "the capture changed the host: {changed:#?}");
    let facts = manifest(site, "running.age", "open");
    assert_eq!((facts["complete"].as_bool(), facts["host"].as_str(), facts["reason"].as_str()), (Some(true), Some("h1"), Some("case 7")));
    assert!(!facts["signed_off"]["who"].as_str().unwrap().is_empty());
    let open = site.dir().join("open");
    let text = |name: &str| {
        String::from_utf8_lossy(&std::fs::read(open.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))).into_owned()
    };
    assert!(
        text("containers/notes-web-1/top.txt").contains("sleep 4321") && text("containers/notes-web-1/diff.txt").contains("/tmp/dropper")
    );
    assert!(
        text("containers/notes-web-1/processes.txt").contains("sleep\u{0}4321")
            && text("containers/notes-web-1/sockets.txt").contains("1F90")
    );
    assert!(text("host/journal.txt").lines().count() > 10 && text("host/facts.json").contains("ansible_distribution"));
    for (archive, file, content) in
        [("containers/notes-web-1/filesystem.tar", "tmp/dropper", "dropped\n"), ("volumes/notes_more.tar", "./x", "secret-in-volume\n")]
    {
        let out = Command::new("tar").arg("-xOf").arg(open.join(archive)).arg(file).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), content, "{archive}");
    }
    let sealed = std::fs::read(site.dir().join("running.age")).unwrap();
    assert!(sealed.starts_with(b"age-encryption.org/v1\n") && !sealed.windows(16).any(|window| window == b"secret-in-volume"));

    // Damage, another's key, and an archive that is there already.
    let mut broken = sealed.clone();
    let middle = broken.len() / 2;
    broken[middle] ^= 1;
    std::fs::write(site.dir().join("broken.age"), broken).unwrap();
    std::fs::write(site.dir().join("short.age"), &sealed[..sealed.len() - 100]).unwrap();
    for name in ["broken.age", "short.age"] {
        let run = site.soc(&["capture", "--verify", name]);
        assert!(run.code == 2 && run.stderr.contains("damaged"), "{name}: {}", run.all());
    }
    site.soc(&["secrets", "keygen", "-o", "stranger"]).ok();
    let stranger = site.soc(&["capture", "--verify", "running.age", "--identity", "stranger"]);
    assert!(stranger.code == 1 && stranger.stderr.contains("not encrypted to any of your identities"), "{}", stranger.all());
    for (arguments, code, words) in [
        (&["-o", "running.age"][..], 1, "never overwritten"),
        (&["--container", "notes-wep-1"], 2, "did you mean `notes-web-1`"),
        (&["--contain"], 1, "which containers?"),
        (&["--container", "notes-wep-1", "--release"], 2, "no container `notes-wep-1` is on the host"),
        (&["--container", "notes-web-1", "--release"], 0, "was not contained; nothing was touched"),
    ] {
        let run = capture(arguments);
        assert!(run.code == code && run.all().contains(words), "{arguments:?}: {} {}", run.code, run.all());
    }
    contained(site);
}

/// Contained, left alone by everybody, released.
fn contained(site: &Site) {
    let capture = |arguments: &[&str]| site.soc(&[&["capture", "h1", "-i", "prod"], arguments].concat());
    // Contained: off its networks, running on, the rest as it was.
    let pid = site.sh("docker inspect -f '{{.State.Pid}}' notes-web-1");
    let contained = capture(&["--container", "notes-web-1", "--contain", "--reason", "case 7: it beacons", "-o", "contained.age"]).ok();
    assert!(contained.stdout.contains("contained: notes-web-1 is off notes_back, notes_front and runs on"), "{}", contained.stdout);
    assert_eq!(site.sh("docker inspect -f '{{.State.Pid}} {{len .NetworkSettings.Networks}}' notes-web-1"), format!("{pid} 0"));
    assert_eq!(site.sh("docker exec notes-web-1 wget -T 3 -qO- http://store:5432/ >/dev/null 2>&1; echo $?"), "1");
    let facts = manifest(site, "contained.age", "open2");
    assert_eq!(facts["contained"][0]["networks"], serde_json::json!(["notes_back", "notes_front"]));
    let sockets = std::fs::read_to_string(site.dir().join("open2/containers/notes-web-1/sockets.txt")).unwrap();
    assert!(sockets.contains("eth0"), "its sockets were recorded before: {sockets}");
    // Nothing touches it: plan and apply say by whom it was contained, changes of its stack are refused.
    let plan = site.soc(&["plan", "prod.yml", "--exit-code"]).ok();
    assert!(plan.stdout.contains("case 7: it beacons"), "{}", plan.all());
    let apply = site.soc(&["apply", "prod.yml"]).ok();
    assert!(apply.stdout.contains("changed=0"), "{}", apply.all());
    site.project.write("playbooks/other.yml", &STACK.replace("test ! -e /data/poison", "true changed"));
    site.project.write("inventory/other.yml", &std::fs::read_to_string(site.dir().join("inventory/prod.yml")).unwrap());
    let other = site.soc(&["apply", "other.yml"]);
    assert!(other.code == 2 && other.stderr.contains("was contained by") && other.stderr.contains("--release"), "{}", other.all());
    assert!(other.stderr.contains("the plan was refused; nothing was touched"), "{}", other.all());
    site.soc(&["backup", "prod.yml", "--stack", "notes"]).ok();
    let restore = site.soc(&["restore", "prod.yml", "--stack", "notes"]);
    assert!(restore.code == 2 && restore.stderr.contains("was contained by"), "{}", restore.all());
    let rollback = site.soc(&["rollback", "prod.yml", "--stack", "notes"]);
    assert!(rollback.code == 2 && rollback.stderr.contains("case 7: it beacons); nothing was touched"), "{}", rollback.all());
    assert_eq!(
        site.sh("docker inspect -f '{{.State.Pid}} {{len .NetworkSettings.Networks}}' notes-web-1"),
        format!("{pid} 0"),
        "untouched"
    );
    // Released: as declared again, without being made anew.
    capture(&["--stack", "notes", "--release"]).ok();
    assert_eq!(site.sh("docker inspect -f '{{.State.Pid}} {{len .NetworkSettings.Networks}}' notes-web-1"), format!("{pid} 2"));
    assert_eq!(site.sh("docker exec notes-web-1 wget -T 3 -qO- http://store:5432/; docker inspect -f '{{.HostConfig.RestartPolicy.Name}}' notes-web-1; ls -d /var/lib/soc-provision/contained 2>/dev/null; :"), "ok\nunless-stopped");
    // Health comes back with the next check.
    let mut plan = site.soc(&["plan", "prod.yml", "--exit-code"]);
    for _ in 0..20 {
        if plan.code == 0 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_secs(2));
        plan = site.soc(&["plan", "prod.yml", "--exit-code"]);
    }
    plan.ok();
}

/// The commands of a page: its indented lines.
fn commands(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/runbooks").join(page)).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("    ")).map(|line| line.trim().to_owned()).collect()
}

fn every_command_of_the_runbooks_works(site: &Site) {
    std::fs::remove_file(site.dir().join("stranger")).unwrap();
    std::os::unix::fs::symlink(root().join("roles"), site.dir().join("roles")).unwrap();
    site.project.write(
        "playbooks/prod.yml",
        &format!("{STACK}- hosts: h1\n  become: true\n  vars: {{soc_groups: [], soc_agents: false}}\n  roles: [backup]\n"),
    );
    site.soc(&["apply", "prod.yml"]).ok();
    std::fs::create_dir(site.dir().join("case-7")).unwrap();
    let bin = site.dir().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_soc-provision"), bin.join("soc-provision")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut count = 0;
    for page in ["first-keys.md", "detect.md", "contain.md", "investigate.md", "restore.md", "rebuild.md"] {
        for line in commands(page) {
            let mut ours = line.clone();
            for (name, here) in [
                ("playbooks/prod.yml", "prod.yml"),
                ("waf-application", "notes-web-1"),
                ("waf-data", "notes_data"),
                ("--stack waf", "--stack notes"),
                ("edge1", "h1"),
            ] {
                ours = ours.replace(name, here);
            }
            // Containing what is contained already is no error; each page begins with nothing contained.
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("echo a-value-for-secrets | {{ {ours}; }}")]).current_dir(site.dir());
            let environment = command(site.dir(), &[]);
            shell
                .envs(environment.get_envs().filter_map(|(key, value)| Some((key, value?))))
                .env("PATH", &path)
                .env_remove("SSH_AUTH_SOCK");
            let out = shell.output().unwrap();
            let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            let expected = match () {
                // While something is contained or was changed by hand, drift may have something to tell.
                () if ours.contains(" drift ") => [0, 3].contains(&out.status.code().unwrap_or(-1)),
                () => out.status.success(),
            };
            assert!(expected, "{page}: `{line}` as `{ours}` ended with {}:\n{said}", out.status);
            count += 1;
        }
        site.soc(&["capture", "h1", "-i", "prod", "--stack", "notes", "--release"]);
    }
    assert!(count > 25, "{count} commands");
    site.soc(&["verify", "prod.yml"]).ok();
}
