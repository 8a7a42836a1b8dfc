//! The backup's programs, run for real, with a `docker` that knows volumes as directories.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::render::root;

struct Site {
    dir: tempfile::TempDir,
}

const DOCKER: &str = r#"#!/bin/sh
# Stands for docker: volumes are directories, containers one line each in a file.
echo "$*" >>"$SITE/calls"
case "$1 $2" in
  "volume inspect") [ -d "$SITE/volumes/$5/_data" ] || exit 1; echo "local|||$SITE/volumes/$5/_data" ;;
  "ps -q" | "ps -aq") echo c1 ;;
  "inspect -f") case $3 in *Health*) echo "running $(cat "$SITE/health")" ;; *) echo running ;; esac ;;
  *) : ;;
esac
"#;

impl Site {
    fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        for directory in ["bin", "conf", "contained", "volumes/data/_data/deep", "backups", "stacks/demo/files", "stacks/demo/secrets"] {
            fs::create_dir_all(site.path(directory)).unwrap();
        }
        site.write("bin/docker", DOCKER);
        fs::set_permissions(site.path("bin/docker"), fs::Permissions::from_mode(0o755)).unwrap();
        site.write("conf/settings", &format!("dir='{}'\nwait_seconds=5\n", site.path("backups").display()));
        site.write("conf/plan", "# stack\tvolume\tmethod\tcontainers\tdays\ndemo\tdata\tpause\tc1\t30\nbare\t-\tlive\t-\t7\n");
        site.write("health", "healthy");
        site.write("stacks/demo/files/app.conf", "x=1");
        site.write("stacks/demo/secrets/password", "must not be saved");
        site.write("volumes/data/_data/one", "first");
        site.write("volumes/data/_data/deep/two words", "second");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn run(&self, program: &str, arguments: &[&str], stamp: &str) -> Output {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        Command::new("sh")
            .arg(root().join("roles/backup/files").join(program))
            .args(arguments)
            .env("PATH", path)
            .env("SITE", self.dir.path())
            .env("SOC_BACKUP_CONF", self.path("conf"))
            .env("SOC_STACKS", self.path("stacks"))
            .env("SOC_BACKUP_STATE", self.path("state"))
            .env("SOC_CONTAINED", self.path("contained"))
            .env("SOC_BACKUP_STAMP", stamp)
            .env("SOC_BACKUP_RECORD", self.path("record.json"))
            .output()
            .unwrap()
    }

    fn backup(&self, stamp: &str) {
        let output = self.run("soc-backup", &[], stamp);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A date stamp of today, so that nothing is too old.
fn now() -> String {
    let output = Command::new("date").args(["-u", "+%Y%m%dT%H%M%SZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn backup_wipe_restore_gives_the_same_content() {
    let site = Site::new();
    let stamp = now();
    site.backup(&stamp);
    let calls = site.read("calls");
    let (pause, unpause) = (calls.find("pause c1").unwrap(), calls.find("unpause c1").unwrap());
    assert!(pause < unpause, "{calls}");
    fs::remove_file(site.path("volumes/data/_data/one")).unwrap();
    site.write("volumes/data/_data/deep/two words", "changed");
    site.write("volumes/data/_data/new", "made since");
    let output = site.run("soc-restore", &["demo"], &stamp);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        (site.read("volumes/data/_data/one").as_str(), site.read("volumes/data/_data/deep/two words").as_str()),
        ("first", "second")
    );
    assert!(!site.path("volumes/data/_data/new").exists());
    assert!(!site.path("volumes/data/_data.before").exists() && !site.path("volumes/data/_data.restore").exists());
}

#[test]
fn the_release_is_saved_without_its_secrets() {
    let site = Site::new();
    let stamp = now();
    site.backup(&stamp);
    let archive = site.path(&format!("backups/{stamp}/demo/release.tar.gz"));
    let output = Command::new("tar").arg("-tzf").arg(archive).output().unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    assert!(names.contains("demo/files/app.conf") && !names.contains("password"), "{names}");
    assert!(site.path(&format!("backups/{stamp}/bare/MANIFEST")).exists(), "a stack without volumes is saved too");
    assert!(!names.contains("volumes"));
}

#[test]
fn a_damaged_archive_is_refused_and_nothing_is_lost() {
    let site = Site::new();
    let stamp = now();
    site.backup(&stamp);
    let archive = site.path(&format!("backups/{stamp}/demo/data.tar.gz"));
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&archive, bytes).unwrap();
    site.write("volumes/data/_data/one", "the living content");
    site.write("calls", "");
    let output = site.run("soc-restore", &["demo"], &stamp);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("is damaged; nothing was touched"), "{}", stderr(&output));
    assert_eq!(site.read("volumes/data/_data/one"), "the living content");
    assert!(!site.read("calls").contains("stop"), "nothing is stopped for a damaged backup");
    let output = site.run("soc-restore-test", &[], &stamp);
    assert!(!output.status.success());
    assert!(site.read("record.json").contains("\"ok\":false") && site.read("record.json").contains("damaged"));
}

#[test]
fn a_stack_that_does_not_get_healthy_has_its_old_content_back() {
    let site = Site::new();
    let stamp = now();
    site.backup(&stamp);
    site.write("volumes/data/_data/one", "newer");
    site.write("health", "unhealthy");
    let output = site.run("soc-restore", &["demo", "data", &stamp], &stamp);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("the old content is back"), "{}", stderr(&output));
    assert_eq!(site.read("volumes/data/_data/one"), "newer");
    assert!(!site.path("volumes/data/_data.before").exists());
}

#[test]
fn the_monthly_test_records_that_all_is_well() {
    let site = Site::new();
    site.backup(&now());
    let output = site.run("soc-restore-test", &[], "");
    assert!(output.status.success(), "{}", stderr(&output));
    let record: serde_json::Value = serde_json::from_str(&site.read("record.json")).unwrap();
    assert_eq!(record["ok"], true);
    assert_eq!(record["results"].as_array().unwrap().len(), 2);
    let left: Vec<PathBuf> =
        fs::read_dir(site.path("backups")).unwrap().map(|entry| entry.unwrap().path()).filter(|path| is_scratch(path)).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn is_scratch(path: &Path) -> bool {
    path.file_name().unwrap().to_string_lossy().starts_with(".scratch")
}

#[test]
fn old_backups_go_by_their_stack_s_days() {
    let site = Site::new();
    let ago = |days: u32| {
        let output = Command::new("date").args(["-u", "-d", &format!("{days} days ago"), "+%Y%m%dT%H%M%SZ"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (month, fortnight, today) = (ago(31), ago(14), now());
    site.backup(&month);
    site.backup(&fortnight);
    site.backup(&today);
    assert!(!site.path(&format!("backups/{month}")).exists(), "31 days are too old for both");
    assert!(site.path(&format!("backups/{fortnight}/demo")).exists(), "14 of 30 days");
    assert!(!site.path(&format!("backups/{fortnight}/bare")).exists(), "14 of 7 days");
    assert!(site.path(&format!("backups/{today}/demo/MANIFEST")).exists());
}

#[test]
fn a_failed_backup_leaves_nothing_half_done_and_no_container_paused() {
    let site = Site::new();
    site.write("conf/plan", "demo\tdata\tpause\tc1\t30\ndemo\tmissing\tlive\t-\t30\n");
    let output = site.run("soc-backup", &[], &now());
    assert!(!output.status.success());
    assert!(stderr(&output).contains("volume `missing` of stack `demo` is not there"), "{}", stderr(&output));
    let calls = site.read("calls");
    assert_eq!(
        calls.matches("\npause c1").count() + usize::from(calls.starts_with("pause c1")),
        calls.matches("unpause c1").count(),
        "{calls}"
    );
    let left: Vec<String> = fs::read_dir(site.path("backups"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".lock")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn one_volume_alone_is_partial_and_never_stands_for_the_stack() {
    let site = Site::new();
    fs::create_dir_all(site.path("volumes/more/_data")).unwrap();
    site.write("volumes/more/_data/x", "kept");
    site.write("conf/plan", "demo\tdata\tpause\tc1\t30\ndemo\tmore\tlive\t-\t30\n");
    site.backup("20990101T000000Z");
    let output = site.run("soc-backup", &["--volume", "more", "demo"], "20990102T000000Z");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!site.path("backups/20990102T000000Z/demo/data.tar.gz").exists());
    let whole = String::from_utf8(site.run("soc-restore", &["demo"], "").stdout).unwrap();
    assert!(whole.contains("from 20990101T000000Z: data more"), "{whole}");
    let one = String::from_utf8(site.run("soc-restore", &["demo", "more"], "").stdout).unwrap();
    assert!(one.contains("from 20990102T000000Z: more"), "{one}");
    let before = String::from_utf8(site.run("soc-restore", &["demo", "more", "before:20990101T120000Z"], "").stdout).unwrap();
    assert!(before.contains("from 20990101T000000Z: more"), "{before}");
    let listed = String::from_utf8(site.run("soc-restore", &["--list", "demo"], "").stdout).unwrap();
    assert!(listed.contains("20990102T000000Z\tdemo\tmore\t") && listed.contains("\tpartial\t"), "{listed}");
    let unknown = site.run("soc-backup", &["--volume", "mroe", "demo"], "20990103T000000Z");
    assert!(!unknown.status.success() && stderr(&unknown).contains("demo/more"), "{}", stderr(&unknown));
    assert!(site.read("state/last-backup.json").contains("\"ok\":false"), "a failed backup is on record");
}

#[test]
fn a_restore_that_was_killed_is_undone_by_the_next() {
    let site = Site::new();
    let stamp = now();
    site.backup(&stamp);
    // As a power cut leaves it: swapped, and not found healthy yet.
    site.write("volumes/data/_data/one", "half restored");
    fs::create_dir_all(site.path("volumes/data/_data.before")).unwrap();
    site.write("volumes/data/_data.before/one", "living");
    site.write("backups/.restoring-demo", "volume data\ncontainer c1\n");
    site.write("contained/none", "project other\n");
    let refused = site.run("soc-restore", &["demo", "-", "20010101T000000Z"], "");
    assert!(!refused.status.success() && stderr(&refused).contains("is back"), "{}", stderr(&refused));
    assert_eq!(site.read("volumes/data/_data/one"), "living");
    assert!(site.read("calls").contains("start c1"));
    site.write("contained/abc", "name demo-app\nproject demo\nwho ann\nreason case 7\n");
    site.write("calls", "");
    let contained = site.run("soc-restore", &["demo"], "");
    assert!(!contained.status.success() && stderr(&contained).contains("demo-app was contained by ann (case 7)"), "{}", stderr(&contained));
    assert!(!site.read("calls").contains("stop"));
}
