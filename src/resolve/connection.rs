//! How to reach a host: its `ansible_*` variables, rendered, before there are facts.

use std::path::PathBuf;
use std::rc::Rc;

use serde_json::Value;
use zeroize::Zeroizing;

use super::helpers;
use super::resolver::{Resolver, RunOptions};
use super::variables::{Frame, Scope, Sourced, World};
use crate::diagnostic::{Diagnostic, Location};
use crate::project::Project;
use crate::project::lower::{Problems, boolean_word};
use crate::project::playbook::{Login, Play};
use crate::project::settings::relative;
use crate::project::source::{Node, Val};
use crate::project::task::Item;
use crate::project::variables::Layer;
use crate::secret::{SecretName, Text};

/// What the inventory says about connecting to a host. What it leaves open is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectionVars {
    /// The host's name in the inventory.
    pub host: String,
    /// `ansible_host`; `None` for the host's name.
    pub address: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub password: Option<Password>,
    /// Absolute.
    pub private_key_file: Option<PathBuf>,
    /// Jump hosts in order, `user@host:port`, from the ssh arguments; `Some` and empty for
    /// `ProxyJump=none`.
    pub proxy_jump: Option<Vec<String>>,
    /// A command whose stdin and stdout are the connection.
    pub proxy_command: Option<String>,
    /// `UserKnownHostsFile` of the ssh arguments, absolute.
    pub known_hosts: Vec<PathBuf>,
    /// `ansible_connection: local`.
    pub local: bool,
    /// Whether to become root. Everything that matters on a host needs it: without a word to the
    /// contrary it is true, unless the inventory's login is root already.
    pub r#become: bool,
    pub become_password: Option<Password>,
    /// `soc_ssh_legacy`: allow old algorithms.
    pub legacy: bool,
    /// Seconds.
    pub timeout: Option<u64>,
    /// `rebuild` refuses the host.
    pub protected: bool,
}

/// A password as the inventory gives it.
#[derive(Clone, PartialEq)]
pub enum Password {
    /// In plain text; callers warn about it.
    Plain(Zeroizing<String>),
    /// The name of a secret of the project.
    Secret(SecretName),
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain(..)"),
            Self::Secret(name) => write!(f, "Secret({name})"),
        }
    }
}

impl Password {
    /// The password, if it is not a secret of the project.
    #[must_use]
    pub fn plain(&self) -> Option<&Zeroizing<String>> {
        match self {
            Self::Plain(text) => Some(text),
            Self::Secret(_) => None,
        }
    }
}

impl ConnectionVars {
    /// See [`connection`].
    ///
    /// # Errors
    /// What is wrong with the variables, each with its place.
    pub fn of(project: &Project, host: &str) -> Result<Self, Vec<Diagnostic>> {
        connection(project, host)
    }
}

/// Renders the connection variables of a host.
///
/// # Errors
/// What is wrong with them, each with its place.
pub fn connection(project: &Project, host: &str) -> Result<ConnectionVars, Vec<Diagnostic>> {
    let options = RunOptions::default();
    let resolver = Resolver::new(project, &options);
    let world = Alone(&resolver);
    let mut layers = resolver.inventory_layers(host);
    let play = project.plays.iter().find(|play| play.hosts.iter().any(|name| name == host));
    if let Some(play) = play {
        layers.push(Sourced::nodes(Layer::PlayVars, &play.common.vars));
    }
    layers.push(Sourced::values(Layer::Magic, resolver.magic(host)));
    let scope = Scope::new(&world, &Rc::new(Frame::new(layers, None)), &[], &[]);
    let mut reader = Reader { project, host, scope, problems: Problems::default() };
    let vars = reader.read();
    if reader.problems.has_errors() { Err(reader.problems.into_vec()) } else { Ok(vars) }
}

struct Alone<'a, 'p>(&'a Resolver<'p>);

impl World for Alone<'_, '_> {
    fn project(&self) -> &Project {
        self.0.project
    }

    fn hostvars(&self, host: Option<&str>, name: Option<&str>) -> Value {
        self.0.hostvars(host, name, 0)
    }

    fn partial(&self, name: &str, role: Option<&str>) -> Result<std::sync::Arc<super::template::Compiled>, super::template::Trouble> {
        self.0.partial(name, role)
    }
}

struct Reader<'a> {
    project: &'a Project,
    host: &'a str,
    scope: Scope<'a>,
    problems: Problems,
}

impl Reader<'_> {
    fn read(&mut self) -> ConnectionVars {
        let mut vars = ConnectionVars { host: self.host.to_owned(), ..ConnectionVars::default() };
        vars.address = self.text(&["ansible_host", "ansible_ssh_host"]);
        vars.port = self.number(&["ansible_port", "ansible_ssh_port"]).and_then(|port| {
            let fits = u16::try_from(port).ok().filter(|&port| port > 0);
            if fits.is_none() {
                self.wrong("ansible_port", format!("`{port}` is not a port"), "ports go from 1 to 65535");
            }
            fits
        });
        vars.user = self.text(&["ansible_user", "ansible_ssh_user"]);
        vars.password = self.text(&["ansible_password", "ansible_ssh_password", "ansible_ssh_pass"]).map(password);
        vars.private_key_file =
            self.text(&["ansible_private_key_file", "ansible_ssh_private_key_file"]).map(|path| relative(&self.project.root, &path));
        self.ssh_arguments(&mut vars);
        self.of_plays(&mut vars);
        match self.text(&["ansible_connection"]).as_deref() {
            Some("local") => vars.local = true,
            None | Some("ssh" | "smart" | "paramiko" | "paramiko_ssh") => {}
            Some(other) => self.wrong("ansible_connection", format!("`{other}` is not supported"), "write `ssh` or `local`"),
        }
        let project = self.project;
        let host = self.host;
        let wanted = || project.plays.iter().any(|play| play.hosts.iter().any(|name| name == host) && wants_root(play));
        let said = self.flag("ansible_become").or_else(|| self.flag("ansible_sudo"));
        vars.r#become = said.unwrap_or_else(|| wanted() || vars.user.as_deref() != Some("root"));
        vars.legacy = self.flag("soc_ssh_legacy").unwrap_or_default();
        if let Some(method) = self.text(&["ansible_become_method"]).filter(|method| method != "sudo") {
            self.wrong("ansible_become_method", format!("`{method}` is not supported"), "only `sudo` is");
        }
        for name in ["ansible_become_exe", "ansible_become_flags"] {
            if self.text(&[name]).is_some_and(|text| !matches!(text.as_str(), "" | "sudo" | "-H -S -n" | "-H -S")) {
                self.wrong(name, "it is not supported".to_owned(), "sudo is called as `sudo`, without further flags");
            }
        }
        vars.become_password =
            self.text(&["ansible_become_password", "ansible_become_pass", "ansible_sudo_pass", "ansible_sudo_password"]).map(password);
        vars.timeout = self.number(&["ansible_timeout", "ansible_ssh_timeout", "ansible_connection_timeout"]);
        vars.protected = self.flag("protected").unwrap_or_default();
        if self.flag("ansible_host_key_checking") == Some(false) || self.flag("ansible_ssh_host_key_checking") == Some(false) {
            let name = "ansible_host_key_checking";
            self.wrong(
                name,
                "host keys are always checked".to_owned(),
                "pin the host's key with `soc-provision bootstrap`, or use `--host-keys accept-new`",
            );
        }
        vars
    }

    /// What the plays say about logging in, where the host's variables do not. A host is logged
    /// into once for all of its plays, so they must agree.
    fn of_plays(&mut self, vars: &mut ConnectionVars) {
        let (project, host) = (self.project, self.host);
        let plays: Vec<&Play> = project.plays.iter().filter(|play| play.hosts.iter().any(|name| name == host)).collect();
        if vars.user.is_none() {
            vars.user = self.agreed(&plays, "remote_user", |login| login.remote_user.as_ref());
        }
        if vars.port.is_none() {
            vars.port = self.agreed(&plays, "port", |login| login.port.as_ref()).and_then(|text| text.parse().ok());
        }
        if self.value("ansible_connection").is_none() {
            match self.agreed(&plays, "connection", |login| login.connection.as_ref()).as_deref() {
                Some("local") => vars.local = true,
                None | Some("ssh" | "smart" | "paramiko" | "paramiko_ssh") => {}
                Some(other) => {
                    let at = plays.iter().find_map(|play| play.login.connection.as_ref()).map(|node| node.at.clone());
                    let diagnostic = Diagnostic::error(format!("`connection: {other}` is not supported")).hint("write `ssh` or `local`");
                    self.problems.push(match at {
                        Some(at) => diagnostic.at(at),
                        None => diagnostic,
                    });
                }
            }
        }
    }

    fn agreed(&mut self, plays: &[&Play], name: &str, of: impl Fn(&Login) -> Option<&Node>) -> Option<String> {
        let mut found: Option<String> = None;
        for node in plays.iter().filter_map(|play| of(&play.login)) {
            let value = self.problems.keep(self.scope.render(node))?;
            let text = helpers::text(&value).map_err(|message| Diagnostic::error(message).at(node.at.clone()));
            let text = self.problems.keep(text)?;
            match &found {
                Some(first) if *first != text => {
                    let message = format!("host `{}` has `{name}: {first}` in an earlier play, and is logged into once a run", self.host);
                    let hint = format!("set it in the inventory (`ansible_{}`)", name.trim_start_matches("remote_"));
                    self.problems.push(Diagnostic::error(message).at(node.at.clone()).hint(hint));
                    return None;
                }
                _ => found = Some(text),
            }
        }
        found
    }

    fn value(&mut self, name: &str) -> Option<Value> {
        let value = self.scope.variable(name).map_err(|undefined| {
            let diagnostic = undefined.diagnostic;
            let hint = diagnostic.hint.clone();
            let diagnostic = Diagnostic { message: format!("`{name}` of host `{}`: {}", self.host, diagnostic.message), ..diagnostic };
            // A fact is the usual reason, and a hint about `-e` would mislead.
            diagnostic.hint(hint.unwrap_or_else(|| "facts are not known before the host is reached".to_owned()))
        });
        self.problems.keep(value)?.map(|value| Value::clone(&value)).filter(|value| !value.is_null())
    }

    fn text(&mut self, names: &[&str]) -> Option<String> {
        let (name, value) = names.iter().find_map(|name| self.value(name).map(|value| (*name, value)))?;
        match helpers::text(&value) {
            Ok(text) => Some(text),
            Err(message) => {
                self.wrong(name, message, "write text");
                None
            }
        }
    }

    fn number(&mut self, names: &[&str]) -> Option<u64> {
        let text = self.text(names)?;
        let number = text.parse().ok();
        if number.is_none() {
            self.wrong(names[0], format!("`{text}` is not a whole number"), "write a number");
        }
        number
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.value(name)?;
        let flag = value.as_bool().or_else(|| value.as_str().and_then(boolean_word));
        if flag.is_none() {
            self.wrong(name, format!("{} is not true or false", helpers::sort(&value)), "write `true` or `false`");
        }
        flag
    }

    fn wrong(&mut self, name: &str, message: String, hint: &str) {
        let diagnostic = Diagnostic::error(format!("`{name}` of host `{}`: {message}", self.host)).hint(hint);
        self.problems.push(match self.place(name) {
            Some(at) => diagnostic.at(at),
            None => diagnostic,
        });
    }

    fn place(&self, name: &str) -> Option<Location> {
        let extra = self.project.extra.get(name);
        let written = self.project.host_vars(self.host).iter().rev().find_map(|source| source.vars.get(name));
        extra.or(written).map(|node| node.at.clone())
    }

    /// Understands the ways around; everything else is refused by name, because to drop an ssh
    /// argument in silence may mean to connect to another machine.
    fn ssh_arguments(&mut self, vars: &mut ConnectionVars) {
        for name in ["ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"] {
            let Some(text) = self.text(&[name]) else { continue };
            let Some(words) = shlex::split(&text) else {
                self.wrong(name, "its quotes do not match".to_owned(), "quote it as for a shell");
                continue;
            };
            let mut words = words.into_iter();
            while let Some(word) = words.next() {
                let (flag, joined) = if word.len() > 2 && word.starts_with('-') { word.split_at(2) } else { (word.as_str(), "") };
                let mut argument = || if joined.is_empty() { words.next().unwrap_or_default() } else { joined.to_owned() };
                match flag {
                    "-J" => vars.proxy_jump = Some(jump_hosts(&argument())),
                    "-i" => vars.private_key_file = Some(relative(&self.project.root, &argument())),
                    "-p" => vars.port = argument().parse().ok(),
                    "-l" => vars.user = Some(argument()),
                    "-4" | "-6" | "-C" | "-q" | "-T" => {}
                    "-o" => {
                        let option = argument();
                        self.ssh_option(name, &option, vars);
                    }
                    _ => self.refuse(name, &word),
                }
            }
        }
    }

    fn ssh_option(&mut self, name: &str, option: &str, vars: &mut ConnectionVars) {
        let (key, value) = option.split_once(['=', ' ']).unwrap_or((option, ""));
        let value = value.trim().trim_matches('"');
        match key.trim().to_ascii_lowercase().as_str() {
            "proxyjump" if value == "none" => vars.proxy_jump = Some(Vec::new()),
            "proxyjump" => vars.proxy_jump = Some(jump_hosts(value)),
            "proxycommand" => vars.proxy_command = Some(value.to_owned()).filter(|value| value != "none"),
            "userknownhostsfile" if value == "/dev/null" => {
                self.wrong(name, "host keys are always checked".to_owned(), "remove `UserKnownHostsFile=/dev/null`");
            }
            "userknownhostsfile" => {
                vars.known_hosts.extend(value.split_whitespace().map(|path| relative(&self.project.root, path)));
            }
            "stricthostkeychecking" if matches!(value, "yes" | "true" | "accept-new" | "ask") => {}
            "stricthostkeychecking" => {
                self.wrong(
                    name,
                    "host keys are always checked".to_owned(),
                    "remove `StrictHostKeyChecking=no`, and pin the keys in `known_hosts`",
                );
            }
            // How connections are shared, kept alive and timed is this tool's own business.
            "controlmaster"
            | "controlpersist"
            | "controlpath"
            | "serveraliveinterval"
            | "serveralivecountmax"
            | "connecttimeout"
            | "connectionattempts"
            | "compression"
            | "batchmode"
            | "loglevel"
            | "forwardagent"
            | "tcpkeepalive" => {}
            "user" => vars.user = Some(value.to_owned()),
            "port" => vars.port = value.parse().ok(),
            "identityfile" => vars.private_key_file = Some(relative(&self.project.root, value)),
            "identitiesonly" | "preferredauthentications" | "pubkeyauthentication" | "passwordauthentication" => {}
            _ => self.refuse(name, &format!("-o {option}")),
        }
    }

    fn refuse(&mut self, name: &str, argument: &str) {
        let hint = "supported: ProxyJump (`-J`), ProxyCommand, UserKnownHostsFile; the rest belongs into ~/.ssh/config";
        self.wrong(name, format!("the ssh argument `{argument}` is not supported"), hint);
    }
}

fn jump_hosts(text: &str) -> Vec<String> {
    text.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()).collect()
}

fn password(text: String) -> Password {
    match Text::parse(&text).secrets().as_slice() {
        [name] if Text::secret(name.clone()) == Text::parse(&text) => Password::Secret(name.clone()),
        _ => Password::Plain(Zeroizing::new(text)),
    }
}

/// Whether the play, or a task of it, says `become: true`.
fn wants_root(play: &Play) -> bool {
    fn yes(node: Option<&Node>) -> bool {
        node.is_some_and(|node| match &node.value {
            Val::Bool(flag) => *flag,
            Val::Str(text) => boolean_word(text) == Some(true) || text.contains("{{"),
            _ => false,
        })
    }
    fn items(list: &[Item]) -> bool {
        list.iter().any(|item| match item {
            Item::Task(task) => yes(task.common.r#become.as_ref()),
            Item::Block(block) => {
                yes(block.common.r#become.as_ref()) || [&block.body, &block.rescue, &block.always].into_iter().any(|list| items(list))
            }
        })
    }
    yes(play.common.r#become.as_ref())
        || play.roles.iter().any(|used| yes(used.common.r#become.as_ref()))
        || [&play.pre_tasks, &play.tasks, &play.post_tasks, &play.handlers].into_iter().any(|list| items(list))
}
