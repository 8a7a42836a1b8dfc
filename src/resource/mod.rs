//! Resources: what a host should be like, one kind a file.
//!
//! A resource is pure and synchronous. It says what to read ([`Resource::questions`]) and, given
//! what was read, what to change ([`Resource::plan`]); it never talks to a host. Adding a kind is
//! one file beside this one and one line in the `kinds!` list below.

pub mod apparmor_profile;
pub mod argument;
pub mod audit_rules;
pub mod authorized_key;
pub mod check;
pub mod claims;
pub mod command;
pub mod compose;
pub mod compose_release;
pub mod copy;
pub mod cron;
pub mod directory;
pub mod docker_archive;
pub mod docker_daemon;
pub mod docker_image;
pub mod docker_network;
pub mod docker_volume;
pub mod file;
#[cfg(test)]
mod file_tests;
pub mod firewall;
pub mod fragment;
pub mod group;
pub mod hostname;
pub mod image_name;
pub mod interview;
pub mod kernel_module;
pub mod lineinfile;
pub mod managed;
pub mod marks;
pub mod names;
pub mod observe;
pub mod openpgp;
mod own_file;
pub mod owned;
pub mod package;
pub mod pattern;
pub mod plan;
pub mod reboot;
pub mod registry_login;
pub mod repository;
pub mod requirement;
mod running;
pub mod seccomp_profile;
pub mod secret;
pub mod service;
mod source_text;
pub mod sshd_config;
pub mod sudoers;
pub mod sysctl;
pub mod systemd_unit;
pub mod teardown;
pub mod template;
#[cfg(test)]
pub(crate) mod testing;
pub mod timer;
pub mod tls_certificate;
pub mod user;

use std::fmt;

use crate::facts::Facts;
use crate::secret::{SecretName, Text};

pub use check::Check;
pub use observe::{Question, View};
pub use plan::{Change, Effect, Guard, Plan, Step, Undecided};
pub use teardown::Teardown;

/// A resource's name in plans, messages and `requires`: `file[/etc/docker/daemon.json]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ResourceId {
    /// The kind's name, as in YAML.
    pub kind: String,
    /// What tells it from others of its kind: a path, a package's name, ...
    pub name: String,
}

impl ResourceId {
    /// An id of a kind and a name.
    #[must_use]
    pub fn new(kind: &str, name: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), name: name.into() }
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.kind, self.name)
    }
}

/// One thing on a host that can be read, planned, changed and reported on its own.
pub trait Resource: fmt::Debug + Send + Sync {
    /// The resource's name.
    fn id(&self) -> ResourceId;

    /// What must be read from the host before [`Resource::plan`] can decide.
    fn questions(&self, facts: &Facts) -> Vec<Question>;

    /// What only drift asks besides, and `drift --fix`: too dear for every run. `plan` sees the
    /// answers by [`View::asked`].
    fn drift_questions(&self, _facts: &Facts) -> Vec<Question> {
        Vec::new()
    }

    /// What to change, given what was read. Changes for people and steps for the host are made
    /// here together, so that they cannot disagree.
    ///
    /// # Errors
    /// [`Undecided`]: known only after another resource was applied, not to be determined, or
    /// refused with a reason.
    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided>;

    /// Health checks that come with the resource, besides the role's own.
    fn checks(&self) -> Vec<Check> {
        Vec::new()
    }

    /// Secrets that applying the resource needs.
    fn secrets(&self) -> Vec<SecretName> {
        Vec::new()
    }

    /// How bad it is if the host differs.
    fn severity(&self) -> Severity {
        Severity::Config
    }

    /// What takes the resource off the host again, for `rebuild`; `None` if it stays there.
    fn teardown(&self, _wish: Teardown) -> Option<Box<dyn Resource>> {
        None
    }

    /// What the resource declares to be its own on the host; see [`Claim`].
    fn claims(&self) -> Vec<Claim> {
        Vec::new()
    }
}

/// How bad drift of a resource is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A protection is off or weakened.
    Security,
    /// A service is, or may soon be, down.
    Availability,
    /// The host is not as declared.
    Config,
    /// Worth knowing.
    Info,
}

/// Something on a host that a resource declares, so that what nobody declared can be told apart,
/// and so that resources can be checked against each other (a port published twice, a published
/// port that the firewall does not list).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// A file or directory.
    Path(String),
    /// A place of which the project knows everything: what is there and not declared is drift.
    Owns(Place),
    /// What is in a place that is owned when the project takes the host over is accepted.
    Inherits(Place),
    /// Something undeclared that is known and accepted: `user[ubuntu]`.
    Accepts { what: String, reason: String, until: Option<String> },
    /// How bad drift of a resource is on this host, against its kind's own opinion.
    Weighs { what: String, severity: Severity },
    /// A public key that may log in as a user: the base64 part.
    AuthorizedKey { user: String, key: String },
    /// A user account.
    User(String),
    /// A user's membership in a group.
    Member { user: String, group: String },
    /// A Docker network or volume by name.
    DockerObject(String),
    /// A Compose project's containers, networks and volumes.
    ComposeProject(String),
    /// A port that a container publishes on the host: address (`0.0.0.0`), port, `tcp` or `udp`, owner.
    PublishedPort { address: String, port: u16, protocol: String, owner: String },
    /// A published port that the firewall lets in, from anywhere or from where its rule says.
    AllowedPort { port: u16, protocol: String },
    /// A subnet of a Docker network.
    Subnet { cidr: String, owner: String },
    /// An nftables table, `inet soc_provision`.
    NftTable(String),
    /// A systemd timer.
    Timer(String),
    /// A kernel setting's value, and the file that sets it at boot.
    KernelSetting { name: String, value: String, path: String },
    /// A line of a file in `sysctl.d` that is declared whole.
    KernelLine { name: String, value: String, path: String },
    /// A reservation on the host, for preflight: CPUs in thousandths, memory in bytes.
    Reservation { owner: String, milli_cpus: u64, memory: u64 },
    /// A limit of memory in bytes, for preflight: it may exceed what the host has.
    Limit { owner: String, memory: u64 },
    /// What a stack says that it needs in all, for preflight; see [`Claim::Reservation`].
    Needs { owner: String, milli_cpus: u64, memory: u64 },
    /// An image that a service runs, by reference.
    Image { reference: String, owner: String },
    /// An archive that brings an image: what its manifest says of the ids, and where it is on the
    /// controller.
    Archive { reference: String, ids: Vec<String>, path: std::path::PathBuf },
    /// An image that comes from a registry, by reference, and the digest by which it is pulled.
    Pulled { reference: String, digest: Option<String> },
    /// Space that a stack needs at a path, in bytes.
    Disk { owner: String, path: String, bytes: u64 },
}

/// A place on a host that a project may own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Docker containers.
    Containers,
    /// Docker networks, but Docker's own three.
    Networks,
    /// Docker volumes.
    Volumes,
    /// Sockets that listen on more than loopback, TCP and UDP, IPv4 and IPv6.
    Ports,
    /// Users with a login shell, users without a password, and members of groups that are as good as root.
    Users,
    /// Keys in users' `authorized_keys`, wherever sshd looks for them.
    AuthorizedKeys,
    /// Jobs of cron and at, that no package brought: `/etc/cron.*`, users' crontabs, `/etc/crontab`.
    Cron,
    /// Timers that no package brought: in `/etc/systemd`, `/run/systemd` and users' homes.
    Timers,
    /// Other units and drop-ins that no package brought.
    Units,
    /// nftables tables, but Docker's.
    NftTables,
    /// Files in `/etc/sudoers.d`, and `/etc/sudoers` if it is not its package's.
    Sudoers,
    /// Package sources and their keys in `/etc/apt`.
    Repositories,
    /// Files in `/etc` that a package brought and somebody changed.
    PackageConfig,
    /// Programs that run as another user than who starts them, that no package brought.
    Setuid,
    /// Other files by which code starts by itself, that no package brought: `/etc/profile.d`,
    /// `/etc/ld.so.preload`, `/etc/init.d`, rules of udev and PAM.
    Startup,
    /// Files below a directory.
    Directory(String),
}

impl Place {
    /// The word for it on the command line and in YAML.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::Networks => "networks",
            Self::Volumes => "volumes",
            Self::Ports => "ports",
            Self::Users => "users",
            Self::AuthorizedKeys => "authorized_keys",
            Self::Cron => "cron",
            Self::Timers => "timers",
            Self::Units => "units",
            Self::NftTables => "nft_tables",
            Self::Sudoers => "sudoers",
            Self::Repositories => "repositories",
            Self::PackageConfig => "package_config",
            Self::Setuid => "setuid",
            Self::Startup => "startup",
            Self::Directory(_) => "files",
        }
    }

    /// A file's name for what is known of the place.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Directory(path) => format!("files-{}", &crate::secret::sha256(path.as_bytes())[..12]),
            other => other.word().to_owned(),
        }
    }
}

/// Looks up what a task refers to on the controller: its role's files and templates.
pub trait Sources {
    /// The bytes of `files/NAME` of the task's role (or beside the playbook).
    ///
    /// # Errors
    /// A sentence that names the places that were searched.
    fn file(&self, name: &str) -> Result<Vec<u8>, String>;

    /// The absolute path on the controller of `files/NAME`, for uploads too large to hold.
    ///
    /// # Errors
    /// As for [`Sources::file`].
    fn file_path(&self, name: &str) -> Result<std::path::PathBuf, String>;

    /// Size in bytes and SHA-256 in hex of `files/NAME`, without holding it in memory.
    ///
    /// # Errors
    /// As for [`Sources::file`].
    fn file_digest(&self, name: &str) -> Result<(u64, String), String> {
        use sha2::Digest as _;
        let Ok(path) = self.file_path(name) else {
            let bytes = self.file(name)?;
            return Ok((bytes.len() as u64, crate::secret::sha256(&bytes)));
        };
        let mut hash = sha2::Sha256::new();
        let copied = std::fs::File::open(&path).and_then(|mut file| {
            let mut buffer = vec![0; 1 << 16];
            let mut size = 0;
            loop {
                let read = std::io::Read::read(&mut file, &mut buffer)?;
                if read == 0 {
                    return Ok(size);
                }
                hash.update(&buffer[..read]);
                size += read as u64;
            }
        });
        copied
            .map(|size| (size, crate::secret::hex(&hash.finalize())))
            .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))
    }

    /// Paths of all files below `files/NAME` or `templates/NAME`, relative to it, sorted.
    ///
    /// # Errors
    /// As for [`Sources::file`].
    fn tree(&self, name: &str) -> Result<Vec<String>, String>;

    /// `templates/NAME` rendered with the task's variables.
    ///
    /// # Errors
    /// What is wrong with the template, with its file, line and column.
    fn template(&self, name: &str) -> Result<Text, String>;

    /// What the project says of an image: `images.lock` and the allow-list.
    fn image(&self, _reference: &str) -> ImageRule {
        ImageRule::default()
    }
}

/// What a project says of an image.
#[derive(Clone, Debug, Default)]
pub struct ImageRule {
    /// As it is locked.
    pub locked: Option<compose::stack::Locked>,
    /// Why it must not be used; continues a sentence about it.
    pub refused: Option<String>,
    /// There is a lock file, and it is not in it.
    pub unlocked: bool,
}

/// What a kind may look at while it is built from its arguments.
pub struct BuildContext<'a> {
    /// The host's facts.
    pub facts: &'a Facts,
    /// The role's files and templates.
    pub sources: &'a dyn Sources,
    /// The host's name in the inventory.
    pub host: &'a str,
    /// The role that the task belongs to, if any.
    pub role: Option<&'a str>,
    /// The user that `become_user` names, if not root.
    pub become_user: Option<&'a str>,
}

/// A kind of resource as users write it.
pub trait Kind: serde::de::DeserializeOwned + schemars::JsonSchema {
    /// The key in YAML.
    const NAME: &'static str;
    /// A task for the reference; a test decodes it.
    const EXAMPLE: &'static str;
    /// The field that a bare string fills: `package: nginx` is `package: {name: nginx}`.
    const SHORTHAND: Option<&'static str> = None;
    /// Fields that may hold secrets. A secret anywhere else is refused.
    const SECRET_FIELDS: &'static [&'static str] = &[];

    /// The resources that a task with these arguments stands for: one for a base kind, several
    /// for a composite.
    ///
    /// # Errors
    /// A sentence for the user about the arguments.
    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError>;
}

/// What is wrong with a task's arguments.
#[derive(Debug, PartialEq, Eq)]
pub struct BuildError {
    /// The sentence.
    pub message: String,
    /// The argument it is about (a path such as `services.web.ports`), if one.
    pub field: Option<String>,
    /// What to do now.
    pub hint: Option<String>,
}

impl From<String> for BuildError {
    fn from(message: String) -> Self {
        Self { message, field: None, hint: None }
    }
}

impl BuildError {
    /// An error about one argument.
    #[must_use]
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self { message: message.into(), field: Some(field.to_owned()), hint: None }
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Makes resources of a task's arguments.
pub type Decode = fn(serde_json::Value, &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError>;

/// A registered kind, with its type erased.
pub struct KindEntry {
    /// The key in YAML.
    pub name: &'static str,
    /// A task for the reference.
    pub example: &'static str,
    /// See [`Kind::SHORTHAND`].
    pub shorthand: Option<&'static str>,
    /// See [`Kind::SECRET_FIELDS`].
    pub secret_fields: &'static [&'static str],
    /// Names of the arguments, other spellings included; empty if any name may be one.
    pub names: fn() -> &'static [&'static str],
    /// The arguments' JSON schema, with their documentation.
    pub schema: fn() -> schemars::Schema,
    /// Decodes and builds.
    pub decode: Decode,
}

impl KindEntry {
    /// The entry of a kind; used by the `kinds!` lists.
    #[must_use]
    pub const fn of<K: Kind>() -> Self {
        Self {
            name: K::NAME,
            example: K::EXAMPLE,
            shorthand: K::SHORTHAND,
            secret_fields: K::SECRET_FIELDS,
            names: names::of::<K>,
            schema: || schemars::schema_for!(K),
            decode: decode::<K>,
        }
    }
}

fn decode<K: Kind>(arguments: serde_json::Value, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
    use serde_json::Value;
    // Serde would fill a struct's fields from a list, one after the other.
    let arguments = match (arguments, K::SHORTHAND) {
        (map @ Value::Object(_), _) => map,
        (bare @ (Value::String(_) | Value::Array(_)), Some(field)) => Value::Object([(field.to_owned(), bare)].into_iter().collect()),
        _ => return Err(BuildError::from(format!("`{}` takes arguments, each with its name", K::NAME))),
    };
    let kind: K = serde_path_to_error::deserialize(arguments).map_err(|error| {
        let path = error.path().to_string();
        let field = (path != ".").then_some(path);
        BuildError { message: error.inner().to_string(), field, hint: None }
    })?;
    kind.build(context)
}

/// All base kinds. A new kind adds its module above and its line here.
pub const KINDS: &[KindEntry] = &[
    KindEntry::of::<apparmor_profile::AppArmorProfile>(),
    KindEntry::of::<audit_rules::AuditRules>(),
    KindEntry::of::<authorized_key::AuthorizedKey>(),
    KindEntry::of::<command::CommandSpec>(),
    KindEntry::of::<copy::Copy>(),
    KindEntry::of::<cron::Cron>(),
    KindEntry::of::<directory::Directory>(),
    KindEntry::of::<docker_image::DockerImage>(),
    KindEntry::of::<docker_network::DockerNetwork>(),
    KindEntry::of::<docker_volume::DockerVolume>(),
    KindEntry::of::<file::File>(),
    KindEntry::of::<firewall::Firewall>(),
    KindEntry::of::<group::Group>(),
    KindEntry::of::<hostname::Hostname>(),
    KindEntry::of::<kernel_module::KernelModule>(),
    KindEntry::of::<lineinfile::LineInFile>(),
    KindEntry::of::<owned::Owned>(),
    KindEntry::of::<package::PackageSpec>(),
    KindEntry::of::<reboot::Reboot>(),
    KindEntry::of::<registry_login::RegistryLogin>(),
    KindEntry::of::<repository::Repository>(),
    KindEntry::of::<seccomp_profile::SeccompProfile>(),
    KindEntry::of::<secret::Secret>(),
    KindEntry::of::<service::ServiceSpec>(),
    KindEntry::of::<sshd_config::SshdConfig>(),
    KindEntry::of::<sudoers::Sudoers>(),
    KindEntry::of::<sysctl::SysctlSpec>(),
    KindEntry::of::<service::SystemdSpec>(),
    KindEntry::of::<systemd_unit::SystemdUnit>(),
    KindEntry::of::<template::Template>(),
    KindEntry::of::<timer::Timer>(),
    KindEntry::of::<tls_certificate::TlsCertificate>(),
    KindEntry::of::<user::User>(),
];
