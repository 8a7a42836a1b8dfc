//! What Docker's own default profile allows, and how a profile differs from it.
//!
//! The names are facts, taken from moby's profile of June 2026 (`moby/profiles` at cd3bed8); older
//! engines differ in a few: before 25 `io_uring_*` was allowed, and before 2026 `socket` was not
//! limited by family.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::resource::seccomp_profile::profile::{Filter, Profile, denies, names_64};

/// Allowed in every container.
const ALWAYS: &str = include_str!("docker_always.txt");

/// Allowed in every container, but only with some arguments.
const LIMITED: &[&str] = &["clone", "personality", "socket"];

/// Allowed since Linux 4.8, where a tracer cannot step around the filter.
const SINCE_4_8: &[&str] = &["process_vm_readv", "process_vm_writev", "ptrace"];

/// Allowed on one architecture, by Docker's name for it.
const BY_ARCHITECTURE: &[(&str, &[&str])] = &[
    ("amd64", &["arch_prctl", "modify_ldt"]),
    ("arm64", &["arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2"]),
];

/// Allowed where the container has a capability.
const BY_CAPABILITY: &[(&str, &[&str])] = &[
    ("CAP_BPF", &["bpf"]),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_PERFMON", &["perf_event_open"]),
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYSLOG", &["syslog"]),
];

/// How far a system call is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// With some arguments only.
    Limited,
    /// Always.
    Full,
}

/// What is allowed to a container on a host; everything else is denied.
pub type Allowed = BTreeMap<String, Access>;

/// The container that two profiles are compared for.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    /// dpkg's and Docker's name, `amd64` or `arm64`.
    pub architecture: &'a str,
    /// Capabilities that it has, `CAP_NET_RAW`.
    pub capabilities: &'a [&'a str],
}

/// What Docker's default allows, among system calls of 64-bit programs.
#[must_use]
pub fn docker_default(container: Container<'_>) -> Allowed {
    let mut allowed = Allowed::new();
    let mut add = |names: &[&str], access: Access| {
        for name in names.iter().filter(|name| names_64().any(|known| known == **name)) {
            let entry = allowed.entry((*name).to_owned()).or_insert(access);
            *entry = access.max(*entry);
        }
    };
    add(&ALWAYS.split_whitespace().collect::<Vec<_>>(), Access::Full);
    add(LIMITED, Access::Limited);
    add(SINCE_4_8, Access::Full);
    for (_, names) in BY_ARCHITECTURE.iter().filter(|(name, _)| *name == container.architecture) {
        add(names, Access::Full);
    }
    for (_, names) in BY_CAPABILITY.iter().filter(|(name, _)| container.capabilities.contains(name)) {
        add(names, Access::Full);
    }
    allowed
}

impl Profile {
    /// What the profile allows, among system calls of 64-bit programs.
    #[must_use]
    pub fn allowed(&self, container: Container<'_>) -> Allowed {
        let mut allowed = Allowed::new();
        let mut named = BTreeSet::new();
        for rule in &self.syscalls {
            let counts = rule.includes.as_ref().is_none_or(|filter| includes(filter, container))
                && !rule.excludes.as_ref().is_some_and(|filter| excludes(filter, container));
            if !counts {
                continue;
            }
            let access = if rule.args.as_ref().is_none_or(Vec::is_empty) { Access::Full } else { Access::Limited };
            for name in rule.names.iter().filter(|name| names_64().any(|known| known == **name)) {
                named.insert(name.clone());
                if !denies(&rule.action) {
                    let entry = allowed.entry(name.clone()).or_insert(access);
                    *entry = access.max(*entry);
                }
            }
        }
        if !denies(&self.default_action) {
            allowed.extend(names_64().filter(|name| !named.contains(*name)).map(|name| (name.to_owned(), Access::Full)));
        }
        allowed
    }
}

/// All conditions of `includes` must hold; a capability list must be had whole (moby, `setupSeccomp`).
fn includes(filter: &Filter, container: Container<'_>) -> bool {
    let has = |cap: &String| container.capabilities.contains(&cap.as_str());
    filter.caps.iter().flatten().all(has)
        && filter.arches.as_ref().is_none_or(|list| list.iter().any(|name| name == container.architecture))
}

/// One condition of `excludes` is enough.
fn excludes(filter: &Filter, container: Container<'_>) -> bool {
    let has = |cap: &String| container.capabilities.contains(&cap.as_str());
    filter.caps.iter().flatten().any(has) || filter.arches.iter().flatten().any(|name| name == container.architecture)
}

/// How a profile differs from Docker's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Denied here, allowed by Docker.
    pub denied: Vec<String>,
    /// Allowed here with some arguments only, by Docker with all.
    pub limited: Vec<String>,
    /// Allowed here, denied or limited by Docker.
    pub opened: Vec<String>,
}

impl Difference {
    /// Compares a profile with Docker's default for a container.
    #[must_use]
    pub fn of(profile: &Profile, container: Container<'_>) -> Self {
        let (ours, docker) = (profile.allowed(container), docker_default(container));
        let mut difference = Self::default();
        for (name, access) in &docker {
            match ours.get(name) {
                None => difference.denied.push(name.clone()),
                Some(own) if own < access => difference.limited.push(name.clone()),
                Some(_) => {}
            }
        }
        let opened = ours.iter().filter(|(name, access)| docker.get(*name).is_none_or(|theirs| theirs < *access));
        difference.opened.extend(opened.map(|(name, _)| name.clone()));
        difference
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "denies {} system calls that Docker's default allows", self.denied.len())?;
        for (what, names) in [(" (", &self.denied), ("; limits ", &self.limited), ("; opens ", &self.opened)] {
            if !names.is_empty() {
                write!(f, "{what}{}", names.join(" "))?;
                f.write_str(if what == " (" { ")" } else { "" })?;
            }
        }
        Ok(())
    }
}
