//! The profiles that the `seccomp` role ships, one a stack: what Docker's default allows, less what
//! the stack's programs have no use for. Kept as a program so that each tightening has its reason
//! next to it; a test holds the files in `roles/seccomp/files` to it
//! (`SOC_WRITE_PROFILES=1 cargo test seccomp` writes them anew).

use std::collections::BTreeSet;

use crate::resource::seccomp_profile::profile::{ArchMap, Argument, Filter, Profile, Rule, names_64};

const ALWAYS: &str = include_str!("docker_always.txt");

/// Taken from every stack: old or half-implemented calls, and calls that belong to debuggers,
/// sandboxes, file servers and system daemons.
const NOBODY: &[&str] = &[
    "cachestat",
    "epoll_ctl_old",
    "epoll_wait_old",
    "fanotify_mark",
    "get_thread_area",
    "kcmp",
    "listmount",
    "memfd_secret",
    "mq_getsetattr",
    "mq_notify",
    "mq_open",
    "mq_timedreceive",
    "mq_timedsend",
    "mq_unlink",
    "msgctl",
    "msgget",
    "msgrcv",
    "msgsnd",
    "name_to_handle_at",
    "process_mrelease",
    "remap_file_pages",
    "set_thread_area",
    "setfsgid",
    "setfsuid",
    "statmount",
    "tee",
    "uretprobe",
    "vmsplice",
];

/// System V shared memory and semaphores: Apache's and PostgreSQL's, hardly anyone else's.
const SYSV: &[&str] = &["semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt", "shmget"];

/// Kernel asynchronous I/O: databases, search engines and nginx.
const AIO: &[&str] = &["io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit"];

/// Device and FIFO nodes: supervision trees (s6) make FIFOs.
const NODES: &[&str] = &["mknod", "mknodat"];

/// Real-time and idle priorities: packet capture.
const PRIORITIES: &[&str] = &["sched_setattr", "sched_setparam", "sched_setscheduler"];

/// Reading the kernel clock's state: a metrics exporter.
const CLOCK: &[&str] = &["adjtimex", "clock_adjtime"];

/// Pinning memory: search engines, databases, model servers.
const PINNING: &[&str] = &["mlock", "mlock2", "mlockall", "munlock", "munlockall"];

/// A stack's profile in a few words.
struct Stack {
    name: &'static str,
    /// Groups that it has no use for.
    without: &'static [&'static [&'static str]],
    /// Groups of calls that it may make if a container has the capability.
    with_capability: &'static [(&'static str, &'static [&'static str])],
    /// Address families that it may open sockets of, besides local, IPv4, IPv6 and netlink.
    families: &'static [u64],
}

/// Java and model servers place memory on nodes where they may.
const NUMA: (&str, &[&str]) = ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy"]);
/// Wazuh's daemons change their root.
const CHROOT: (&str, &[&str]) = ("CAP_SYS_CHROOT", &["chroot"]);

/// `AF_UNIX`, `AF_INET`, `AF_INET6`, `AF_NETLINK` (socket(2)).
const FAMILIES: [u64; 4] = [1, 2, 10, 16];
/// `AF_PACKET`: capture.
const AF_PACKET: u64 = 17;

const STACKS: &[Stack] = &[
    Stack { name: "siem", without: &[SYSV, PRIORITIES, CLOCK], with_capability: &[CHROOT, NUMA], families: &[] },
    Stack { name: "ai_services", without: &[SYSV, NODES, PRIORITIES, CLOCK, AIO], with_capability: &[NUMA], families: &[] },
    Stack { name: "soar", without: &[SYSV, NODES, PRIORITIES, CLOCK], with_capability: &[NUMA], families: &[] },
    Stack { name: "monitoring", without: &[SYSV, NODES, PRIORITIES, AIO, PINNING], with_capability: &[], families: &[] },
    Stack { name: "network_analysis", without: &[SYSV, CLOCK, AIO], with_capability: &[NUMA], families: &[AF_PACKET] },
    Stack { name: "waf", without: &[NODES, PRIORITIES, CLOCK, PINNING], with_capability: &[], families: &[] },
];

/// Namespaces: `CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET` (clone(2)).
const NAMESPACES: u64 = 0x7E02_0000;

fn allow(names: Vec<String>) -> Rule {
    Rule { names, action: "SCMP_ACT_ALLOW".into(), ..Rule::default() }
}

fn allow_if(name: &str, index: u32, op: &str, value: u64) -> Rule {
    let argument = Argument { index, value, value_two: (op == "SCMP_CMP_MASKED_EQ").then_some(0), op: op.into() };
    Rule { args: Some(vec![argument]), ..allow(vec![name.to_owned()]) }
}

impl Stack {
    fn profile(&self) -> Profile {
        let native: BTreeSet<&str> = names_64().collect();
        let dropped: BTreeSet<&str> = self.without.iter().flat_map(|group| group.iter()).chain(NOBODY).copied().collect();
        let kept = ALWAYS.split_whitespace().filter(|name| native.contains(name) && !dropped.contains(name)).map(str::to_owned).collect();
        let mut syscalls = vec![allow(kept)];
        let arches = Some(Filter { arches: Some(vec!["amd64".into()]), ..Filter::default() });
        syscalls.push(Rule { includes: arches, ..allow(vec!["arch_prctl".into()]) });
        for (capability, names) in self.with_capability {
            let caps = Some(Filter { caps: Some(vec![(*capability).into()]), ..Filter::default() });
            syscalls.push(Rule { includes: caps, ..allow(names.iter().map(|name| (*name).to_owned()).collect()) });
        }
        syscalls.extend(FAMILIES.iter().chain(self.families).map(|&family| allow_if("socket", 0, "SCMP_CMP_EQ", family)));
        // Linux's own personality, and asking for it.
        syscalls.extend([0, 0xFFFF_FFFF].map(|value| allow_if("personality", 0, "SCMP_CMP_EQ", value)));
        syscalls.push(allow_if("clone", 0, "SCMP_CMP_MASKED_EQ", NAMESPACES));
        let comment = Some("ENOSYS makes glibc fall back to clone, whose flags can be looked at".into());
        syscalls.push(Rule {
            names: vec!["clone3".into()],
            action: "SCMP_ACT_ERRNO".into(),
            errno_ret: Some(38),
            comment,
            ..Rule::default()
        });
        let native_only = |name: &str| ArchMap { architecture: name.into(), sub_architectures: Some(Vec::new()) };
        Profile {
            default_action: "SCMP_ACT_ERRNO".into(),
            default_errno_ret: Some(1),
            architectures: None,
            // No 32-bit programs: their entry points are a second set of system calls.
            arch_map: Some(vec![native_only("SCMP_ARCH_X86_64"), native_only("SCMP_ARCH_AARCH64")]),
            flags: Vec::new(),
            listener_path: None,
            listener_metadata: None,
            syscalls,
        }
    }
}

#[test]
fn the_shipped_profiles_are_these_and_pass_the_checks() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/roles/seccomp/files");
    for stack in STACKS {
        let json = serde_json::to_string_pretty(&stack.profile()).unwrap() + "\n";
        assert_eq!(Profile::parse(&json).map(|_| ()), Ok(()), "{}", stack.name);
        let path = format!("{directory}/{}.json", stack.name);
        if std::env::var_os("SOC_WRITE_PROFILES").is_some() {
            std::fs::write(&path, &json).unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap() == json, "{path} is not what the program above makes");
    }
}

#[test]
fn each_is_tighter_than_dockers_default_and_opens_nothing() {
    use crate::resource::seccomp_profile::docker::{Container, Difference};
    for stack in STACKS {
        for capabilities in [&[][..], &["CAP_SYS_NICE", "CAP_SYS_CHROOT", "CAP_SYS_ADMIN"][..]] {
            let difference = Difference::of(&stack.profile(), Container { architecture: "amd64", capabilities });
            assert!(difference.opened.is_empty(), "{}: {difference}", stack.name);
            assert!(difference.denied.len() > 30, "{}: {difference}", stack.name);
            assert!(difference.denied.iter().any(|name| name == "ptrace"), "{}", stack.name);
        }
    }
}
