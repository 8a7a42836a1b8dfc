//! What every command on a playbook shares: from arguments to a job for the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::cli::{ConnectOptions, Format, HostKeys, InventoryOptions, RunArgs};
use crate::command::complain;
use crate::diagnostic::{Diagnostic, Exit, Level, render};
use crate::engine::journal::Last;
use crate::engine::lock::Holder;
use crate::engine::{Cancel, Job, Limit, Mode, PlayPlan};
use crate::event::{Events, Listener, RunInfo};
use crate::facts::Facts;
use crate::project::playbook::Size;
use crate::project::vault::Store;
use crate::project::{LoadOptions, Project};
use crate::report::capture::Captured;
use crate::report::terminal::{Terminal, Verbosity};
use crate::resolve::connection::Password;
use crate::resolve::{ConnectionVars, HostProgram, RunOptions, connection, resolve};
use crate::secret::SecretName;
use crate::transport::{Connector, HostKeyPolicy, Privilege, Target};

/// How many hosts are worked on at a time unless the user says.
const FORKS: usize = 64;
/// Seconds for connecting and logging in unless the user says; Ansible's default.
const CONNECT_TIMEOUT: u64 = 10;

/// A loaded project, with what its hosts' passwords and secrets need.
pub(super) struct Loaded {
    pub(super) project: Arc<Project>,
    pub(super) store: Arc<Store>,
    pub(super) cwd: PathBuf,
}

impl Loaded {
    /// The same, with images that are not locked: for whoever is about to lock them.
    pub(super) fn unrequired(mut self) -> Self {
        if let Some(project) = Arc::get_mut(&mut self.project) {
            project.images.required = false;
        }
        self
    }
}

/// What is worked on.
pub(super) enum What<'a> {
    Playbook(&'a str),
    /// A pattern, without a playbook.
    Hosts(&'a str),
}

/// Loads what can be loaded of a project, and says what is wrong with it.
pub(super) fn open(what: &What<'_>, inventory: &InventoryOptions) -> Result<(Project, Vec<Diagnostic>, PathBuf), Exit> {
    let cwd = std::env::current_dir().map_err(|error| {
        complain(&format!("error: no current directory: {error}"));
        Exit::Usage
    })?;
    let options = LoadOptions {
        cwd: cwd.clone(),
        playbook: if let What::Playbook(name) = what { (*name).to_owned() } else { String::new() },
        pattern: if let What::Hosts(pattern) = what { Some((*pattern).to_owned()) } else { None },
        inventories: inventory.inventory.clone(),
        limit: inventory.limit.clone(),
        extra_vars: inventory.extra_vars.clone(),
    };
    let (project, problems) = Project::open(&options).map_err(|diagnostic| {
        show(&[diagnostic], None);
        Exit::Usage
    })?;
    Ok((project, problems, cwd))
}

/// Loads the project of a playbook and shows its problems. An error that can be seen without a
/// host is found before any is connected to.
pub(super) fn load(playbook: &str, inventory: &InventoryOptions) -> Result<Loaded, Exit> {
    load_what(&What::Playbook(playbook), inventory)
}

/// The same for a playbook or a pattern of hosts.
pub(super) fn load_what(what: &What<'_>, inventory: &InventoryOptions) -> Result<Loaded, Exit> {
    let (mut project, mut problems, cwd) = open(what, inventory)?;
    problems.extend(crate::resolve::lint(&project).into_iter().filter(|problem| problem.level == Level::Error));
    problems = crate::resolve::sorted(problems);
    problems.dedup();
    show(&problems, Some(&project));
    if !Project::only_warnings(&problems) {
        return Err(Exit::Usage);
    }
    project.warnings = problems;
    let store = store(&project)?;
    Ok(Loaded { project: Arc::new(project), store: Arc::new(store), cwd })
}

/// The project's secrets.
pub(super) fn store(project: &Project) -> Result<Store, Exit> {
    let soc_secrets = secrets_choice(project);
    let store = Store::select(&project.root, soc_secrets.as_deref()).map_err(|error| {
        complain(&format!("error: {error}{}", error.hint().map_or_else(String::new, |hint| format!("\nhint: {hint}"))));
        Exit::Usage
    })?;
    let problems = store.problems();
    show(&problems, Some(project));
    if problems.iter().any(|problem| problem.level == Level::Error) {
        return Err(Exit::Usage);
    }
    Ok(store)
}

/// The inventory's `soc_secrets`, where every host of the playbook agrees on it.
fn secrets_choice(project: &Project) -> Option<String> {
    let hosts: BTreeSet<&str> = project.plays.iter().flat_map(|play| play.hosts.iter().map(String::as_str)).collect();
    let mut choices = hosts.iter().map(|host| crate::resolve::plain_variable(project, host, "soc_secrets"));
    let first = choices.next().flatten()?;
    choices.all(|choice| choice.as_deref() == Some(first.as_str())).then_some(first)
}

/// Prints diagnostics to stderr, in colour on a terminal.
pub(super) fn show(diagnostics: &[Diagnostic], project: Option<&Project>) {
    if diagnostics.is_empty() {
        return;
    }
    let source = |path: &Path| match project {
        Some(project) => project.files.seen(path),
        None => None,
    };
    complain(render(diagnostics, &source, crate::report::colour_on_stderr()).trim_end());
}

/// What a job still needs beyond the project.
pub(super) struct JobOptions {
    pub(super) mode: Mode,
    pub(super) command: &'static str,
    pub(super) diff: bool,
    pub(super) break_lock: bool,
    pub(super) retry_release: bool,
}

/// A job, and what its listeners caught.
pub(super) struct Prepared {
    pub(super) job: Arc<Job>,
    pub(super) captured: Arc<Mutex<Captured>>,
}

/// Before anything else: where messages go, and arguments that do not fit.
fn begin(project: &Project, run: &RunArgs, options: &JobOptions) -> Result<(), Exit> {
    crate::report::log::start(run.connect.verbose);
    if options.command != "drift" && matches!(run.connect.format, Format::Sarif | Format::Prometheus) {
        complain("error: this format is for `drift`; choose `text`, `json`, `jsonl` or `junit`");
        return Err(Exit::Usage);
    }
    let wanted: Vec<String> = run.tags.iter().chain(&run.skip_tags).cloned().collect();
    show(&crate::resolve::unknown_tags(project, &wanted), Some(project));
    Ok(())
}

/// Makes the job of a run on a playbook.
pub(super) fn prepare(loaded: &Loaded, run: &RunArgs, options: &JobOptions) -> Result<Prepared, Exit> {
    begin(&loaded.project, run, options)?;
    let project = &loaded.project;
    let shard = run.shard.clone().or_else(shard_from_environment);
    let hosts: Vec<String> = hosts_of(project, shard.as_deref())?;
    if hosts.is_empty() {
        complain("warning: no hosts matched");
    }
    sound(loaded, run, options, &hosts)?;
    let opener = Arc::new(super::secrets::Opener::new(project, &run.connect.identity));
    let targets = targets(loaded, &run.connect, &hosts, &opener)?;
    let info = RunInfo {
        partial: !run.tags.is_empty() || !run.skip_tags.is_empty(),
        shard,
        ..run_info(loaded, options.command, if run.playbook.is_empty() { None } else { Some(&loaded.project.playbook) }, &hosts)
    };
    let captured = Arc::new(Mutex::new(Captured::default()));
    let mut listeners = listeners(&run.connect, options, &captured);
    if let Some(recorder) = super::report::recorder(&run.connect, &project.settings, options.command, &captured) {
        listeners.push(recorder);
    }
    let events = Events::new(listeners);
    let forks = run.connect.forks.or(project.settings.forks).unwrap_or(FORKS).max(1);
    let (digests, warnings) = opener.digests(&loaded.store);
    show(&warnings, Some(project));
    let job = Job {
        mode: options.mode,
        plays: plays(project, &hosts),
        hosts: targets,
        forks: Arc::new(Semaphore::new(forks)),
        live: Mutex::new(BTreeMap::new()),
        diff: options.diff,
        fix: false,
        partial: !run.tags.is_empty() || !run.skip_tags.is_empty(),
        break_lock: options.break_lock,
        retry_release: options.retry_release,
        wait: run.connect.wait.unwrap_or_default(),
        override_hold: false,
        holder: Holder { run: info.run.clone(), who: info.who.clone(), from: info.from.clone(), since: info.started },
        last: Last {
            run: info.run.clone(),
            who: info.who.clone(),
            when: info.started,
            revision: info.revision.clone().unwrap_or_default(),
            playbook: info.playbook.clone(),
            result: String::new(),
        },
        digests,
        resolve: resolver(loaded, run, options),
        unlock: unlocker(loaded, opener.clone()),
        masker: masker(loaded, opener),
        cross_check: Box::new(crate::resource::claims::cross_check),
        remarks: remarks(run),
        connector: Connector::default(),
        events,
        cancel: Arc::new(Cancel::default()),
        seed: seed(),
        counter: AtomicU64::new(0),
        only: None,
        exec: None,
        operation: None,
        info,
    };
    Ok(Prepared { job: Arc::new(job), captured })
}

/// A mistake that every host would meet is told once, and before any is connected to.
fn sound(loaded: &Loaded, run: &RunArgs, options: &JobOptions, hosts: &[String]) -> Result<(), Exit> {
    let problems = crate::resolve::errors_everywhere(&loaded.project, hosts, &run_options(loaded, run, options));
    if problems.is_empty() {
        return Ok(());
    }
    show(&problems, Some(&loaded.project));
    complain("\nnothing was touched; `soc-provision check` shows every error of the project, also of hosts that are left out here");
    Err(Exit::Usage)
}

/// Where the hosts are and how to get in.
fn targets(
    loaded: &Loaded,
    connect: &ConnectOptions,
    hosts: &[String],
    opener: &super::secrets::Opener,
) -> Result<Vec<(String, Target)>, Exit> {
    let project = &loaded.project;
    let passwords = Passwords::ask(connect)?;
    let mut problems = Vec::new();
    let mut targets = Vec::new();
    for host in hosts {
        match connection(project, host) {
            Ok(vars) => match passwords_of(loaded, &vars, opener) {
                Ok(own) => targets.push((host.clone(), target(project, &vars, connect, &passwords, &own))),
                Err(diagnostic) => problems.push(diagnostic),
            },
            Err(diagnostics) => problems.extend(diagnostics),
        }
    }
    if problems.is_empty() {
        return Ok(targets);
    }
    problems.dedup();
    show(&problems, Some(project));
    Err(Exit::Usage)
}

fn hosts_of(project: &Project, shard: Option<&str>) -> Result<Vec<String>, Exit> {
    let hosts: Vec<String> = project.hosts().into_iter().map(str::to_owned).collect();
    let Some(shard) = shard else { return Ok(hosts) };
    let parsed = shard.split_once('/').and_then(|(k, n)| Some((k.parse::<u64>().ok()?, n.parse::<u64>().ok()?)));
    let Some((part, of)) = parsed.filter(|(part, of)| *of > 0 && (1..=*of).contains(part)) else {
        complain(&format!("error: `{shard}` is not a shard: write K/N with K from 1 to N, such as 2/5"));
        return Err(Exit::Usage);
    };
    // Stable by name: adding a host moves no other between shards.
    let number = |host: &str| u64::from_str_radix(&crate::secret::sha256(host.as_bytes())[..15], 16).unwrap_or_default();
    Ok(hosts.into_iter().filter(|host| number(host) % of == part - 1).collect())
}

/// `JOB_COMPLETION_INDEX` of a Kubernetes Indexed Job with `SOC_PROVISION_SHARDS` of them.
fn shard_from_environment() -> Option<String> {
    let index: u64 = std::env::var("JOB_COMPLETION_INDEX").ok()?.parse().ok()?;
    let of = std::env::var("SOC_PROVISION_SHARDS").ok()?;
    Some(format!("{}/{of}", index + 1))
}

fn plays(project: &Project, hosts: &[String]) -> Vec<PlayPlan> {
    let here: BTreeSet<&String> = hosts.iter().collect();
    let limit = |size: Size| match size {
        Size::Hosts(count) => Limit::Hosts(count),
        Size::Percent(share) => Limit::Percent(share),
    };
    project
        .plays
        .iter()
        .enumerate()
        .map(|(index, play)| {
            let mine: Vec<String> = play.hosts.iter().filter(|host| here.contains(host)).cloned().collect();
            PlayPlan {
                index,
                name: play.name.clone(),
                batches: play.rollout.batches(&mine).into_iter().map(<[String]>::to_vec).collect(),
                max_fail_percentage: play.rollout.max_fail_percentage,
                max_unreachable: play.rollout.max_unreachable.map(limit),
                any_errors_fatal: play.rollout.any_errors_fatal,
                gate: play.rollout.gate,
            }
        })
        .collect()
}

fn run_options(loaded: &Loaded, run: &RunArgs, options: &JobOptions) -> RunOptions {
    RunOptions {
        tags: run.tags.clone(),
        skip_tags: run.skip_tags.clone(),
        check_mode: !matches!(options.mode, Mode::Apply | Mode::Operate),
        known_secrets: Some(loaded.store.names()),
        offline: false,
        retry_release: options.retry_release,
        smoke: options.command == super::verify::SMOKE,
    }
}

fn resolver(loaded: &Loaded, run: &RunArgs, options: &JobOptions) -> crate::engine::Resolve {
    let project = loaded.project.clone();
    let options = run_options(loaded, run, options);
    Box::new(move |host: &str, facts: &Facts| -> Result<HostProgram, String> {
        resolve(&project, host, facts, &options).map_err(|diagnostics| {
            let source = |path: &Path| project.files.seen(path);
            render(&diagnostics, &source, false).trim_end().to_owned()
        })
    })
}

/// Published ports against the firewall's list. Only of a whole run: tags may have left out either.
fn remarks(run: &RunArgs) -> crate::engine::CrossCheck {
    if run.tags.is_empty() && run.skip_tags.is_empty() {
        Box::new(crate::resource::firewall::cross_check)
    } else {
        Box::new(|_| Vec::new())
    }
}

/// Opens secrets when a host's changes need them, each file once a run.
fn unlocker(loaded: &Loaded, opener: Arc<super::secrets::Opener>) -> crate::engine::Unlock {
    let store = loaded.store.clone();
    Box::new(move |names: &[SecretName]| opener.open(&store, names))
}

/// Masks what hosts send back, whether or not this run needs the secret for a change.
fn masker(loaded: &Loaded, opener: Arc<super::secrets::Opener>) -> crate::engine::MaskerOf {
    let store = loaded.store.clone();
    Box::new(move |names: &[SecretName]| opener.masker(&store, names))
}

/// Passwords that the user typed once, for all hosts.
pub(super) struct Passwords {
    login: Option<Zeroizing<String>>,
    sudo: Option<Zeroizing<String>>,
}

impl Passwords {
    pub(super) fn ask(connect: &ConnectOptions) -> Result<Self, Exit> {
        let ask = |wanted: bool, prompt: &str| -> Result<Option<Zeroizing<String>>, Exit> {
            if !wanted {
                return Ok(None);
            }
            rpassword::prompt_password(prompt).map(|password| Some(Zeroizing::new(password))).map_err(|error| {
                complain(&format!("error: the password cannot be asked for: {error}"));
                Exit::Usage
            })
        };
        let login = ask(connect.ask_pass, "SSH password: ")?;
        let mut sudo = ask(connect.ask_become_pass, "BECOME password: ")?;
        if let Some(file) = &connect.become_password_file {
            let text = std::fs::read_to_string(file).map_err(|error| {
                complain(&format!("error: {}: {error}", file.display()));
                Exit::Usage
            })?;
            sudo = Some(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()));
        }
        Ok(Self { login, sudo })
    }
}

/// The passwords that a host's own variables name, secrets opened.
fn passwords_of(loaded: &Loaded, vars: &ConnectionVars, opener: &super::secrets::Opener) -> Result<Passwords, Diagnostic> {
    let open = |password: &Option<Password>| match password {
        None => Ok(None),
        Some(Password::Plain(text)) => Ok(Some(text.clone())),
        Some(Password::Secret(name)) => opener
            .reveal(&loaded.store, name)
            .map(Some)
            .map_err(|why| Diagnostic::error(format!("the password of `{}` cannot be had: {why}", vars.host))),
    };
    Ok(Passwords { login: open(&vars.password)?, sudo: open(&vars.become_password)? })
}

/// Where a host is and how to get in: its variables, then the flags.
fn target(project: &Project, vars: &ConnectionVars, connect: &ConnectOptions, typed: &Passwords, own: &Passwords) -> Target {
    let root = &project.root;
    let mut identity_files: Vec<PathBuf> = connect.private_key.iter().cloned().collect();
    identity_files.extend(vars.private_key_file.clone());
    identity_files.extend(project.settings.private_key.clone());
    let user = vars.user.clone().or_else(|| connect.user.clone()).or_else(|| project.settings.remote_user.clone());
    let sudo = connect.r#become || vars.r#become;
    let seconds = connect.timeout.or(vars.timeout).or(project.settings.connect_timeout).unwrap_or(CONNECT_TIMEOUT).max(1);
    Target {
        host: vars.host.clone(),
        local: vars.local,
        address: vars.address.clone().unwrap_or_else(|| vars.host.clone()),
        port: vars.port,
        identity_files,
        password: typed.login.clone().or_else(|| own.login.clone()),
        proxy_jump: vars.proxy_jump.clone(),
        proxy_command: vars.proxy_command.clone(),
        known_hosts: project.known_hosts.iter().chain(&vars.known_hosts).map(|path| root.join(path)).collect(),
        host_keys: match connect.host_keys {
            HostKeys::Strict => HostKeyPolicy::Strict,
            HostKeys::AcceptNew => HostKeyPolicy::AcceptNew,
        },
        privilege: if sudo && user.as_deref() != Some("root") {
            Privilege::Sudo { password: typed.sudo.clone().or_else(|| own.sudo.clone()) }
        } else {
            Privilege::AsLogin
        },
        user,
        connect_timeout: Duration::from_secs(seconds),
        use_ssh_config: true,
        legacy: vars.legacy,
    }
}

fn listeners(connect: &ConnectOptions, options: &JobOptions, captured: &Arc<Mutex<Captured>>) -> Vec<Box<dyn Listener>> {
    let colour = crate::report::colour_on_stdout();
    let verbosity = Verbosity {
        level: connect.verbose,
        diff: options.diff,
        colour,
        bars: crate::report::bars_on_stderr() && connect.verbose < 2,
        // `facts` and `exec` print data, `drift` findings.
        quiet: connect.format != Format::Text || matches!(options.mode, Mode::Gather | Mode::Exec) || options.command == "drift",
        planning: options.mode != Mode::Apply,
    };
    let mut out: Vec<Box<dyn Listener>> = vec![Box::new(Terminal::new(verbosity)), Box::new(captured.clone())];
    if connect.format == Format::Jsonl {
        out.push(Box::new(crate::report::json::Lines));
    }
    out
}

fn run_info(loaded: &Loaded, command: &str, playbook: Option<&Path>, hosts: &[String]) -> RunInfo {
    let now = jiff::Timestamp::now();
    let who = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).or_else(|_| std::env::var("LOGNAME"));
    let suffix = &crate::secret::sha256(seed().to_string().as_bytes())[..6];
    // Commands on hosts without a playbook have one of their own, in a temporary file.
    let playbook = playbook.map(|playbook| playbook.strip_prefix(&loaded.project.root).unwrap_or(playbook));
    RunInfo {
        run: format!("{}-{suffix}", now.strftime("%Y%m%d-%H%M%S")),
        command: command.to_owned(),
        playbook: playbook.map_or_else(|| "-".to_owned(), |playbook| playbook.display().to_string()),
        root: loaded.project.root.display().to_string(),
        project: loaded.project.digest(),
        inventory: loaded.project.inventory_digest(),
        revision: revision(&loaded.project.root),
        who: who.unwrap_or_else(|_| user_by_number()),
        from: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        started: now.as_second(),
        hosts: hosts.to_vec(),
        ..RunInfo::default()
    }
}

/// Who runs this where the environment does not say (cron, containers): the account's name or number.
fn user_by_number() -> String {
    let number = rustix::process::getuid().as_raw().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut lines = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let name =
        lines.find(|fields| fields.get(2) == Some(&number.as_str())).and_then(|fields| fields.first().map(|name| (*name).to_owned()));
    name.unwrap_or(number)
}

/// The project's git revision, `-dirty` if files differ from it; none outside a repository.
fn revision(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let out = std::process::Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let head = git(&["rev-parse", "--short=12", "HEAD"])?;
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    Some(if dirty { format!("{head}-dirty") } else { head })
}

fn seed() -> u128 {
    let mut bytes = [0_u8; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u128::from_le_bytes(bytes),
        // Without randomness, time and process still differ from run to run.
        Err(_) => u128::from(std::process::id()) ^ u128::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default(),
    }
}
