//! A seccomp profile as Docker reads it, and what is wrong with one, found without a host.
//!
//! Docker and runc report such mistakes late or never: a misspelt system call is ignored in silence,
//! which takes away what it was meant to allow, and a filter that denies what runc itself needs
//! stops every container with a message about something else.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::nearest;

/// A profile. Field names are those of the file.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Profile {
    pub default_action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architectures: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch_map: Option<Vec<ArchMap>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    pub syscalls: Vec<Rule>,
}

/// An architecture and those whose programs it also runs.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ArchMap {
    pub architecture: String,
    pub sub_architectures: Option<Vec<String>>,
}

/// What happens to some system calls, perhaps only with some arguments or on some hosts.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rule {
    pub names: Vec<String>,
    pub action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<Argument>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub includes: Option<Filter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excludes: Option<Filter>,
}

/// A comparison with one argument of a system call.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Argument {
    pub index: u32,
    pub value: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_two: Option<u64>,
    pub op: String,
}

/// On which hosts and containers a rule counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Filter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caps: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arches: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_kernel: Option<String>,
}

/// System calls of x86_64 and aarch64, up to Linux 6.17.
const NAMES_64: &str = include_str!("names_64bit.txt");
/// Names that only other architectures have, or 32-bit programs.
const NAMES_OTHER: &str = include_str!("names_other.txt");

/// Actions of the runtime specification (config-linux.md, "seccomp").
const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// Architectures of the runtime specification.
const ARCHITECTURES: &[&str] = &[
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

/// Comparisons of the runtime specification.
const OPERATORS: &[&str] =
    &["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"];

/// Flags of the runtime specification.
const FLAGS: &[&str] =
    &["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"];

/// What runc 1.1.15 calls once the filter is on, found by taking one away at a time.
const RUNC_NEEDS: &[&str] = &[
    "brk",
    "capget",
    "capset",
    "chdir",
    "close",
    "execve",
    "exit_group",
    "fcntl",
    "fstatfs",
    "futex",
    "getdents64",
    "getppid",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "openat",
    "prctl",
    "read",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "setgid",
    "setgroups",
    "setuid",
    "write",
];

/// The same on x86_64 only.
const RUNC_NEEDS_X86_64: &[&str] = &["arch_prctl"];

/// What every program that is linked with a present C library calls before its first own line.
const LIBC_NEEDS: &[&str] = &["getrandom", "prlimit64", "rseq", "set_robust_list", "set_tid_address", "wait4"];

/// `ENOSYS`: makes glibc fall back from `clone3` to `clone`.
const ENOSYS: u32 = 38;

/// Whether any architecture has a system call of this name.
#[must_use]
pub fn is_known(name: &str) -> bool {
    names_64().any(|known| known == name) || NAMES_OTHER.split_whitespace().any(|known| known == name)
}

/// System calls of x86_64 and aarch64.
pub fn names_64() -> impl Iterator<Item = &'static str> {
    NAMES_64.split_whitespace()
}

impl Profile {
    /// Reads a profile and lists everything that is wrong with it.
    ///
    /// # Errors
    /// The findings, at least one.
    pub fn parse(json: &str) -> Result<Self, Vec<String>> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let profile: Self = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            vec![if path == "." { error.inner().to_string() } else { format!("`{path}`: {}", error.inner()) }]
        })?;
        deserializer.end().map_err(|error| vec![error.to_string()])?;
        let findings = profile.findings();
        if findings.is_empty() { Ok(profile) } else { Err(findings) }
    }

    fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        self.check_header(&mut findings);
        for (index, rule) in self.syscalls.iter().enumerate() {
            rule.check(&format!("syscalls[{index}]"), &mut findings);
        }
        self.check_conflicts(&mut findings);
        self.check_needs(&mut findings);
        findings
    }

    fn check_header(&self, findings: &mut Vec<String>) {
        known("defaultAction", &self.default_action, ACTIONS, findings);
        if self.default_action == "SCMP_ACT_ALLOW" {
            findings.push("`defaultAction` allows every system call that is not named; deny by default with `SCMP_ACT_ERRNO`".to_owned());
        }
        let mut named: Vec<(String, &String)> = Vec::new();
        match (&self.architectures, &self.arch_map) {
            (Some(_), Some(_)) => findings.push("`architectures` and `archMap` exclude each other".to_owned()),
            (None, None) => findings.push("neither `architectures` nor `archMap` is given".to_owned()),
            (Some(list), None) => named.extend(list.iter().enumerate().map(|(index, name)| (format!("architectures[{index}]"), name))),
            (None, Some(list)) => {
                for (index, entry) in list.iter().enumerate() {
                    named.push((format!("archMap[{index}].architecture"), &entry.architecture));
                    let below = entry.sub_architectures.iter().flatten();
                    named.extend(below.enumerate().map(|(sub, name)| (format!("archMap[{index}].subArchitectures[{sub}]"), name)));
                }
            }
        }
        for (place, name) in named {
            if name == "SCMP_ARCH_ARM64" {
                findings.push(format!("`{place}`: there is no `SCMP_ARCH_ARM64`; 64-bit ARM is `SCMP_ARCH_AARCH64`"));
            } else {
                known(&place, name, ARCHITECTURES, findings);
            }
        }
        for flag in &self.flags {
            known("flags", flag, FLAGS, findings);
        }
        let notifies = self.syscalls.iter().any(|rule| rule.action == "SCMP_ACT_NOTIFY");
        if notifies != self.listener_path.is_some() {
            findings.push("`SCMP_ACT_NOTIFY` and `listenerPath` need each other".to_owned());
        }
    }

    /// One system call twice under the same condition.
    fn check_conflicts(&self, findings: &mut Vec<String>) {
        let mut seen: BTreeMap<(&str, String), &str> = BTreeMap::new();
        for rule in &self.syscalls {
            let condition = format!("{:?}{:?}{:?}", rule.args, rule.includes, rule.excludes);
            for name in &rule.names {
                match seen.insert((name, condition.clone()), &rule.action) {
                    Some(action) if action != rule.action => {
                        findings.push(format!("`{name}` has two actions under the same condition: `{action}` and `{}`", rule.action));
                    }
                    Some(_) => findings.push(format!("`{name}` is listed twice under the same condition")),
                    None => {}
                }
            }
        }
    }

    fn check_needs(&self, findings: &mut Vec<String>) {
        if !denies(&self.default_action) {
            return;
        }
        let allowed: BTreeSet<&str> =
            self.syscalls.iter().filter(|rule| !denies(&rule.action)).flat_map(|rule| rule.names.iter().map(String::as_str)).collect();
        let missing =
            |needs: &[&str]| needs.iter().filter(|name| !allowed.contains(**name)).map(|name| format!("`{name}`")).collect::<Vec<_>>();
        let mut runc = missing(RUNC_NEEDS);
        if self.covers("SCMP_ARCH_X86_64") {
            runc.extend(missing(RUNC_NEEDS_X86_64));
        }
        if !runc.is_empty() {
            findings.push(format!("no container can start: runc itself needs {}", runc.join(", ")));
        }
        let libc = missing(LIBC_NEEDS);
        if !libc.is_empty() {
            findings.push(format!("ordinary programs cannot start: the C library needs {}", libc.join(", ")));
        }
        let answer = self.syscalls.iter().find(|rule| rule.names.iter().any(|name| name == "clone3"));
        let answered =
            answer.map_or(self.default_errno_ret == Some(ENOSYS), |rule| !denies(&rule.action) || rule.errno_ret == Some(ENOSYS));
        if !answered {
            findings.push(format!(
                "`clone3` must be allowed, or answered with `\"action\": \"SCMP_ACT_ERRNO\", \"errnoRet\": {ENOSYS}`: with any other error glibc fails instead of falling back to `clone`"
            ));
        }
    }

    fn covers(&self, architecture: &str) -> bool {
        let listed = self.architectures.iter().flatten().any(|name| name == architecture);
        listed || self.arch_map.iter().flatten().any(|entry| entry.architecture == architecture)
    }
}

impl Rule {
    fn check(&self, place: &str, findings: &mut Vec<String>) {
        known(&format!("{place}.action"), &self.action, ACTIONS, findings);
        if self.names.is_empty() {
            findings.push(format!("`{place}.names` is empty"));
        }
        for name in self.names.iter().filter(|name| !is_known(name)) {
            let near = nearest(name, names_64().chain(NAMES_OTHER.split_whitespace()));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            findings.push(format!(
                "`{place}`: no architecture has a system call `{}`, and it would be ignored in silence{hint}",
                name.escape_debug()
            ));
        }
        let mut indexes = BTreeSet::new();
        for argument in self.args.iter().flatten() {
            known(&format!("{place}.args.op"), &argument.op, OPERATORS, findings);
            if argument.index > 5 {
                findings.push(format!("`{place}.args.index` is {}: a system call has arguments 0 to 5", argument.index));
            }
            if !indexes.insert(argument.index) {
                findings
                    .push(format!("`{place}.args` compares argument {} twice, which runc takes as *either*, not *both*", argument.index));
            }
            if argument.value_two.is_some() && argument.op != "SCMP_CMP_MASKED_EQ" {
                findings.push(format!("`{place}.args`: `valueTwo` has a meaning for `SCMP_CMP_MASKED_EQ` only"));
            }
        }
        let filters = self.includes.iter().chain(&self.excludes);
        for cap in filters.flat_map(|filter| filter.caps.iter().flatten()).filter(|cap| !cap.starts_with("CAP_")) {
            findings.push(format!("`{place}`: `{}` is not a capability such as `CAP_SYS_CHROOT`", cap.escape_debug()));
        }
    }
}

/// Whether an action keeps the system call from happening.
pub(super) fn denies(action: &str) -> bool {
    !matches!(action, "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "SCMP_ACT_NOTIFY" | "SCMP_ACT_TRACE")
}

fn known(place: &str, value: &str, values: &[&str], findings: &mut Vec<String>) {
    if !values.contains(&value) {
        let hint = nearest(value, values.iter().copied()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        findings.push(format!("`{place}`: `{}` is not known{hint}", value.escape_debug()));
    }
}
