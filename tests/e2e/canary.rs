//! A secret shows up nowhere: every command, every format, highest verbosity, success and each way
//! to fail, on a real host. What is looked through: output, the project, temporary files, every
//! file that changed on the host, its journal, its processes and ours while it all ran.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::CommandFactory as _;

use crate::canary::{Canary, Hit};
use crate::harness::{Lab, Project, series};

/// Where the playbook itself lays the secret down, and what Docker keeps of a container that prints it.
const DECLARED: [&str; 6] =
    ["/etc/app", "/run/soc-secrets", "/etc/soc-provision/tls", "/var/lib/docker", "/run/docker", "/var/lib/soc-provision/stacks/*/secrets"];

/// What a playbook may do with a secret, then everything that makes a host send it back.
const TASKS: &str = "
    - directory: {path: /etc/app}
    - secret: {name: canary, path: /etc/app/plain, owner: 1000}
    - secret: {name: canary, at_rest: encrypted}
    - tls_certificate: {name: web, names: [a.example], authority: authority, directory: /etc/app}
    - copy: {dest: /etc/app/copy, content: 'is {{secret \"canary\"}}', mode: \"0640\"}
    - template: {src: conf, dest: /etc/app/conf, mode: \"0600\"}
      notify: say it
    - command: {cmd: cat >/etc/app/stdin, stdin: '{{secret \"canary\"}}', creates: /etc/app/stdin}
";
const HANDLERS: &str = "  handlers:\n    - name: say it\n      command: {cmd: \"cat /etc/app/plain; :\", unless: \"false\"}\n";
/// Prints the value in every form that a program may print it in.
const SAY: &str = "cat /etc/app/plain; base64 -w0 /etc/app/plain; printf x | cat - /etc/app/plain | base64 -w0; printf xy | cat - /etc/app/plain | base64 -w0; cat /etc/app/plain >&2";

/// Each fails in its own way, with the secret on the host's lips.
fn failures() -> Vec<(&'static str, String)> {
    let play = |tasks: &str| format!("- hosts: h1\n  tasks:{TASKS}{tasks}{HANDLERS}");
    vec![
        ("command", play(&format!("    - command: {{cmd: '{SAY}; exit 3'}}\n"))),
        ("ignored", play(&format!("    - command: {{cmd: '{SAY}; exit 3'}}\n      ignore_errors: true\n"))),
        ("validate", play("    - copy: {dest: /etc/app/bad, content: 'x {{secret \"canary\"}}', validate: 'cat %s; cat %s >&2; false'}\n")),
        ("owner", play("    - secret: {name: canary, path: /etc/app/other, owner: nobodyhere}\n")),
        (
            "parent",
            play(
                "    - command: {cmd: 'touch /etc/app/file', creates: /etc/app/file}\n    - secret: {name: canary, path: /etc/app/file/deep}\n",
            ),
        ),
        ("handler", format!("- hosts: h1\n  tasks:{TASKS}  handlers:\n    - name: say it\n      command: '{SAY}; exit 4'\n")),
        ("password", play("    - user: {name: app, password: '{{secret \"canary\"}}'}\n")),
        ("shell", play("    - command: {cmd: 'kill -9 $PPID'}\n")),
        (
            "rescue",
            format!(
                "- hosts: h1\n  tasks:{TASKS}    - block:\n        - command: '{SAY}; exit 3'\n      rescue:\n        - command: '{SAY}; exit 5'\n{HANDLERS}"
            ),
        ),
        ("unknown", play("    - secret: {name: nobody, path: /etc/app/none}\n")),
        ("plain", play("    - command: {cmd: 'echo {{secret \"canary\"}}'}\n")),
    ]
}

/// How a subcommand is covered.
enum Cover {
    /// These runs, each its words.
    Runs(Vec<Vec<&'static str>>),
    /// Not here, and why that is right.
    Elsewhere(&'static str),
}

/// Every subcommand. One that is missing fails the test: a new command says how it is covered.
fn cover(name: &str) -> Option<Cover> {
    use Cover::{Elsewhere, Runs};
    Some(match name {
        "apply" => Runs(vec![vec!["fine.yml"], vec!["fine.yml", "-D"], vec!["fine.yml", "--check", "-D"]]),
        "plan" => Runs(vec![vec!["fine.yml", "-D"], vec!["changed.yml", "-D", "--out", "saved-plan.json"]]),
        "drift" => Runs(vec![vec!["fine.yml", "-D"], vec!["changed.yml", "-D"], vec!["fine.yml", "--fix"]]),
        "verify" => Runs(vec![vec!["fine.yml"], vec!["says.yml"]]),
        "check" => Runs(vec![vec![], vec!["fine.yml"]]),
        "inventory" => Runs(vec![vec![]]),
        "facts" => Runs(vec![vec!["h1"]]),
        "exec" => Runs(vec![vec!["h1", "--", SAY]]),
        "status" => Runs(vec![vec!["fine.yml"]]),
        "hold" => Runs(vec![vec!["h1"], vec!["h1", "--reason", "canary"], vec!["h1", "--release"]]),
        "rebuild" => Runs(vec![vec!["fine.yml", "--yes", "-D"]]),
        "schedule" => Runs(vec![vec!["fine.yml", "--now", "--metrics", "night.prom"], vec!["fine.yml", "--print"]]),
        // The history itself is packed: what it holds is looked at by having it told.
        "report" => Runs(vec![
            vec!["list"],
            vec!["show", "last", "-D"],
            vec!["show", "last", "--format", "json"],
            vec!["show", "last~1", "--format", "json"],
            vec!["html"],
            vec!["controls"],
        ]),
        "backup" => Runs(vec![vec!["fine.yml"], vec!["fine.yml", "--list"]]),
        "restore" => Runs(vec![vec!["fine.yml", "--list"]]),
        "capture" => Runs(vec![vec!["h1"]]),
        "diagnose" => Runs(vec![vec!["h1"], vec!["fine.yml"]]),
        "preflight" => Runs(vec![vec!["fine.yml"]]),
        "rollback" => Runs(vec![vec!["fine.yml", "--stack", "none"], vec!["fine.yml", "--stack", "none", "--list"]]),
        "images" => Elsewhere("it tells of images and their digests, and no secret belongs to one"),
        "bootstrap" => Elsewhere("asks for a password on a terminal and takes no secret of the project"),
        "completions" | "docs" | "init" => Elsewhere("reads neither the project nor a host"),
        "secrets" => Elsewhere("tests/canary.rs goes through its own commands"),
        _ => return None,
    })
}

/// A host, a project that has the value in its store, and what was found so far.
pub(crate) struct Bed {
    pub(crate) lab: Lab,
    project: Project,
    canary: Canary,
    inventory: PathBuf,
    hits: Mutex<BTreeMap<String, Vec<Hit>>>,
    runs: Mutex<u32>,
}

impl Bed {
    fn new(lab: Lab) -> Self {
        let fine = format!("- hosts: h1\n  tasks:{TASKS}{HANDLERS}");
        let changed = fine.replace("'is {{secret \"canary\"}}'", "now in clear").replace("owner: 1000", "owner: 1001");
        let says = format!("- hosts: h1\n  tasks:{TASKS}{HANDLERS}  roles: [says]\n");
        let mut files = vec![
            ("playbooks/fine.yml".to_owned(), fine),
            ("playbooks/changed.yml".to_owned(), changed),
            ("playbooks/says.yml".to_owned(), says),
            ("playbooks/templates/conf".to_owned(), "a={{secret \"canary\"}}\nb={{secret \"canary\"}}\n".to_owned()),
            (
                "roles/says/verify/main.yml".to_owned(),
                format!(
                    "- name: fails\n  command: {{cmd: '{SAY}; exit 1', within: 1s}}\n- name: lacks\n  command: {{cmd: 'cat /etc/app/plain', contains: other, within: 1s}}\n"
                ),
            ),
        ];
        files.extend(failures().into_iter().map(|(name, text)| (format!("playbooks/fail-{name}.yml"), text)));
        Self::of(lab, &files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect::<Vec<_>>())
    }

    /// With these files; the store has the value as `canary` and an authority as `authority`.
    pub(crate) fn of(lab: Lab, files: &[(&str, &str)]) -> Self {
        let (canary, project, inventory) = (Canary::new(), Project::new(files), lab.inventory());
        let bed = Self { lab, project, canary, inventory, hits: Mutex::default(), runs: Mutex::new(0) };
        for (words, value) in
            [(&["keygen"][..], ""), (&["init"], ""), (&["set", "canary"], bed.canary.value.as_str()), (&["ca", "authority"], "")]
        {
            let mut child = bed
                .command(&[&["secrets"], words].concat())
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), value.as_bytes());
            assert!(child.wait().unwrap().success(), "secrets {words:?}");
        }
        bed
    }

    pub(crate) fn dir(&self) -> &Path {
        self.project.dir.path()
    }

    /// The command, with a private directory for its temporary files.
    fn command(&self, words: &[&str]) -> Command {
        let temporary = self.dir().join("tmp");
        std::fs::create_dir_all(&temporary).unwrap();
        let mut command = crate::harness::command(self.dir(), words);
        command.env("TMPDIR", temporary);
        command
    }

    fn record(&self, what: &str, hits: Vec<Hit>) {
        if !hits.is_empty() {
            self.hits.lock().unwrap().entry(what.to_owned()).or_default().extend(hits);
        }
    }

    /// Runs to the end and looks through what was said and what lies about on this machine.
    pub(crate) fn run(&self, words: &[&str]) -> (i32, String) {
        let out = self.command(words).output().unwrap();
        *self.runs.lock().unwrap() += 1;
        let what = words.join(" ");
        self.record(&what, self.canary.hits([("stdout", &out.stdout[..]), ("stderr", &out.stderr[..])]));
        self.record(&what, self.canary.hits_below(self.dir()));
        (out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stderr).into_owned())
    }

    /// Every format and the highest verbosity that a subcommand takes.
    pub(crate) fn variants(&self, name: &str, words: &[&'static str]) -> Vec<Vec<String>> {
        let cli = soc_provision::cli::Cli::command();
        let command = cli.find_subcommand(name).unwrap();
        let has = |id: &str| command.get_arguments().any(|argument| argument.get_long() == Some(id));
        let mut base = vec![name.to_owned()];
        if has("inventory") {
            base.extend(["-i".to_owned(), self.inventory.to_str().unwrap().to_owned()]);
        }
        if has("verbose") {
            base.push("-vvvv".to_owned());
        }
        let formats: Vec<String> = command
            .get_arguments()
            .find(|argument| argument.get_long() == Some("format"))
            .map(|argument| argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect())
            .unwrap_or_default();
        let finish = |mut line: Vec<String>| {
            line.extend(words.iter().map(|word| (*word).to_owned()));
            line
        };
        if formats.is_empty() {
            return vec![finish(base)];
        }
        formats.into_iter().map(|format| finish([base.clone(), vec!["--format".to_owned(), format]].concat())).collect()
    }

    pub(crate) fn run_line(&self, line: &[String]) -> (i32, String) {
        self.run(&line.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Back to a host that has nothing of ours but the accounts and the boot unit.
    fn wipe(&self) {
        self.lab.sh("h1", "rm -rf /etc/app /etc/soc-provision/credentials /run/soc-secrets/*");
    }

    /// Every file that changed on the host since the mark, but where the secret belongs, and the
    /// journal.
    pub(crate) fn look_through_host(&self, what: &str) {
        let copies = tempfile::tempdir().unwrap();
        let prune: String = DECLARED.iter().map(|path| format!("-path '.{path}' -o ")).collect();
        let script = format!(
            "cd / && find . -xdev \\( {prune} -path ./proc -o -path ./sys -o -path ./dev \\) -prune -o -type f -newer /soc-mark -size -8192k -print0 >/tmp/.soc-list; find ./run \\( {prune} -path ./run/systemd/ask-password \\) -prune -o -type f -size -8192k -print0 >>/tmp/.soc-list; tar -cf - --null --no-recursion -T /tmp/.soc-list 2>/dev/null; rm -f /tmp/.soc-list",
        );
        let out = self.lab.ssh("h1", "root", &script);
        let tar = copies.path().join("files.tar");
        std::fs::write(&tar, &out.stdout).unwrap();
        let files = copies.path().join("files");
        std::fs::create_dir(&files).unwrap();
        let unpacked = Command::new("tar").args(["-xf"]).arg(&tar).arg("-C").arg(&files).stderr(Stdio::null()).status().unwrap();
        let _ = unpacked;
        assert!(files.join("var/lib/soc-provision").is_dir(), "the host's files did not arrive");
        self.record(what, self.canary.hits_below(&files));
        let journal = self.lab.ssh("h1", "root", "journalctl --no-pager -o verbose -b");
        assert!(journal.status.success());
        self.record(what, self.canary.hits([("journal", &journal.stdout[..])]));
    }

    /// Whether the detector finds the value in these bytes.
    pub(crate) fn shows(&self, bytes: &[u8]) -> bool {
        !self.canary.hits([("", bytes)]).is_empty()
    }

    /// Nothing was found, in what the processes showed neither, and there were runs enough to find it in.
    pub(crate) fn no_hit(&self, processes: &[u8], at_least: u32) {
        self.record("processes", self.canary.hits([("arguments and environments", processes)]));
        let hits = self.hits.lock().unwrap().clone();
        assert!(hits.is_empty(), "the secret turned up:\n{hits:#?}");
        let runs = *self.runs.lock().unwrap();
        eprintln!("canary: {runs} runs, no hit");
        assert!(runs >= at_least, "{runs} runs only");
    }
}

/// Samples the arguments and environments of all processes, there and here, until it is stopped.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeSet<Vec<u8>>>>,
    remote: Child,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Sampler {
    pub(crate) fn start(lab: &Lab) -> Self {
        // The values are read one by one, so that this itself shows nothing.
        let script =
            "while :; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\n\\0' ' \\n' | sort -u; sleep 0.05; done";
        let mut remote = Command::new(crate::harness::root().join("lab/ssh"))
            .args(["--name", &lab.name, "--user", "root", "h1", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let (there, lines) = (seen.clone(), BufReader::new(remote.stdout.take().unwrap()));
        let (here, stopped) = (seen.clone(), stop.clone());
        let threads = vec![
            std::thread::spawn(move || {
                lines.split(b'\n').map_while(Result::ok).for_each(|line| {
                    there.lock().unwrap().insert(line);
                })
            }),
            std::thread::spawn(move || {
                while !stopped.load(Ordering::SeqCst) {
                    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                        for file in ["cmdline", "environ"] {
                            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
                            here.lock().unwrap().extend(bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec));
                        }
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }),
        ];
        Self { stop, seen, remote, threads }
    }

    /// Everything that was seen, as one text.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.remote.kill();
        let _ = self.remote.wait();
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
        let seen = self.seen.lock().unwrap();
        seen.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect()
    }
}

#[test]
fn a_secret_turns_up_nowhere() {
    let Some(lab) = Lab::containers(1, &[]) else { return };
    let bed = Bed::new(lab);
    bed.lab.sh("h1", "touch /soc-mark; sleep 0.1");
    let sampler = Sampler::start(&bed.lab);
    for round in 0..series(1, 2) {
        bed.wipe();
        every_command(&bed);
        bed.look_through_host(&format!("the host after every command, round {round}"));
        every_failure(&bed);
        bed.look_through_host(&format!("the host after every failure, round {round}"));
        killed(&bed, series(2, 12));
        bed.look_through_host(&format!("the host after killed runs, round {round}"));
    }
    let processes = sampler.finish();
    assert!(
        processes.windows(5).any(|window| window == b"-vvvv") && processes.windows(4).any(|window| window == b"sudo"),
        "the sampler saw nothing"
    );
    bed.no_hit(&processes, series(40, 200));
    control(&bed);
}

fn every_command(bed: &Bed) {
    let cli = soc_provision::cli::Cli::command();
    for subcommand in cli.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        let name = subcommand.get_name();
        let runs = match cover(name) {
            Some(Cover::Runs(runs)) => runs,
            Some(Cover::Elsewhere(why)) => {
                eprintln!("canary: `{name}` is not run here: {why}");
                continue;
            }
            None => panic!("`{name}` is new: say in `cover` how a secret could show in it"),
        };
        for words in runs {
            for line in bed.variants(name, &words) {
                let (code, stderr) = bed.run_line(&line);
                // Formats of one command only; a host without stacks; broken playbooks among all.
                let another = name == "rollback"
                    || stderr.contains("this format is for")
                    || (stderr.contains("no stack") && name != "apply")
                    || name == "check";
                let usage = code == 250 || (code == 1 && !another);
                assert!(!usage, "{line:?} ended with {code}, so that it covers nothing: {stderr}");
            }
        }
    }
}

fn every_failure(bed: &Bed) {
    let inventory = bed.inventory.to_str().unwrap();
    let apply = |playbook: &str, format: &str, more: &[&str]| {
        let (code, said) = bed.run(&[&["apply", playbook, "-i", inventory, "-vvvv", "-D", "--format", format], more].concat());
        if code == 1 {
            eprintln!("{playbook} {more:?}: {said}");
        }
        code
    };
    for (number, (name, _)) in failures().into_iter().enumerate() {
        let playbook = format!("fail-{name}.yml");
        // Each in one of the formats, in turn; in the long series in all of them.
        for format in ["text", "json", "jsonl"].into_iter().cycle().skip(number % 3).take(usize::try_from(series(1, 3)).unwrap()) {
            bed.wipe();
            let code = apply(&playbook, format, &[]);
            let wanted: &[i32] = match name {
                "ignored" => &[0],
                "plain" | "unknown" => &[1, 2],
                // The kill itself is done; what comes of it may come later.
                "shell" => &[0, 2, 4],
                _ => &[2, 4],
            };
            assert!(wanted.contains(&code), "{playbook}: {code}");
            // Once more where everything is in sync but what fails: nothing needs the secret then.
            if name == "command" {
                apply(&playbook, format, &[]);
            }
        }
    }
    bed.wipe();
    // No identity, another identity, no host, no sudo.
    let other = bed.dir().join("other.txt");
    // Of an earlier round: a key is never overwritten.
    let _ = std::fs::remove_file(&other);
    assert_eq!(bed.run(&["secrets", "keygen", "--output", other.to_str().unwrap()]).0, 0);
    assert_eq!(apply("fine.yml", "text", &["--identity", "/nonexistent"]), 2);
    assert_eq!(apply("fine.yml", "text", &["--identity", other.to_str().unwrap()]), 2);
    assert_eq!(apply("fine.yml", "text", &["-e", "ansible_port=9"]), 4);
    // In sync and without an identity: what fails is not shown, since nobody could mask it.
    assert_eq!(apply("fine.yml", "text", &[]), 0);
    assert_eq!(apply("fail-command.yml", "text", &["--identity", "/nonexistent"]), 2);
    assert_eq!(bed.run(&["verify", "says.yml", "-i", inventory, "-vvvv", "--identity", "/nonexistent"]).0, 2);
    let password = bed.dir().join("sudo-password");
    std::fs::write(&password, "wrong-password").unwrap();
    assert_eq!(apply("fine.yml", "text", &["-e", "ansible_user=deploy", "--become-password-file", password.to_str().unwrap()]), 2);
    bed.wipe();
    // A file of secrets that is cut short, and one of other bytes.
    let file = bed.dir().join("secrets/canary.age");
    let whole = std::fs::read(&file).unwrap();
    for broken in [&whole[..whole.len() - 20], b"age-encryption.org/v1\ngarbage"] {
        std::fs::write(&file, broken).unwrap();
        assert!(matches!(apply("fine.yml", "json", &[]), 1 | 2));
    }
    std::fs::write(&file, whole).unwrap();
}

/// Killed and interrupted in the middle, and the connection cut.
fn killed(bed: &Bed, times: u32) {
    let inventory = bed.inventory.to_str().unwrap();
    for number in 0..times {
        for how in ["KILL", "INT", "cut"] {
            bed.wipe();
            let mut child = bed
                .command(&["apply", "fine.yml", "-i", inventory, "-vvvv", "-D"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(400 + u64::from(number) * 170));
            if how == "cut" {
                // Our own session is another user's.
                bed.lab.ssh("h1", "root", "for p in $(pgrep -u ops sshd); do kill -9 $p; done");
            } else {
                let pid = child.id().to_string();
                let _ = Command::new("kill").args([&format!("-{how}"), &pid]).status();
            }
            let mut said = Vec::new();
            for stream in
                [child.stdout.take().map(|s| Box::new(s) as Box<dyn std::io::Read>), child.stderr.take().map(|s| Box::new(s) as _)]
                    .into_iter()
                    .flatten()
            {
                let _ = BufReader::new(stream).lines().map_while(Result::ok).map(|line| said.push(line)).count();
            }
            child.wait().unwrap();
            *bed.runs.lock().unwrap() += 1;
            bed.record(&format!("apply, {how}"), bed.canary.hits([("output", said.join("\n").as_bytes())]));
            bed.record(&format!("apply, {how}"), bed.canary.hits_below(bed.dir()));
        }
    }
}

/// What was looked through does find it where it is.
fn control(bed: &Bed) {
    bed.hits.lock().unwrap().clear();
    let quoted = bed.canary.value.replace('\'', r"'\''");
    let sampler = Sampler::start(&bed.lab);
    bed.lab.sh(
        "h1",
        &format!("printf %s '{quoted}' | base64 >/var/tmp/soc-control; logger '{quoted}'; sh -c 'sleep 1; :' '{quoted}'; sleep 0.2"),
    );
    bed.look_through_host("control");
    let seen = sampler.finish();
    bed.record("control", bed.canary.hits([("processes", &seen[..])]));
    let places: Vec<String> = bed.hits.lock().unwrap().values().flatten().map(|hit| hit.place.clone()).collect();
    for wanted in ["soc-control", "journal", "processes"] {
        assert!(places.iter().any(|place| place.contains(wanted)), "the detector is blind for {wanted}: {places:?}");
    }
}
