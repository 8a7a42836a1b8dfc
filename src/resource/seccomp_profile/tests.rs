//! The kind's checks and plans.

use super::*;
use crate::resource::observe::Answer;
use crate::resource::own_file::testing::{bare, plan, present};
use crate::resource::source_text::testing::{build, refusal};

const WAF: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/roles/seccomp/files/waf.json"));

/// The example that circulates: 40 system calls, and a made-up architecture.
const CIRCULATING: &str = r#"{ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_ARM64"],
  "syscalls": [{ "names": ["accept", "accept4", "bind", "brk", "clone", "close", "connect", "dup", "dup2", "epoll_create", "epoll_ctl",
    "epoll_wait", "execve", "exit", "exit_group", "fcntl", "fstat", "futex", "getcwd", "getdents", "getpid", "getsockname", "getsockopt",
    "listen", "lseek", "mmap", "mprotect", "munmap", "open", "openat", "poll", "read", "recvfrom", "rt_sigaction", "rt_sigprocmask", "sendto",
    "setsockopt", "socket", "stat", "write"], "action": "SCMP_ACT_ALLOW" }] }"#;

fn findings(json: &str) -> String {
    Profile::parse(json).map(|_| ()).unwrap_err().join("\n")
}

/// A valid profile with something replaced.
fn spoilt(from: &str, to: &str) -> String {
    assert!(WAF.contains(from), "{from}");
    WAF.replacen(from, to, 1)
}

#[test]
fn the_circulating_example_is_refused_with_the_reasons() {
    let reasons = refusal::<SeccompProfile>(serde_json::json!({ "name": "x", "content": CIRCULATING }));
    for reason in [
        "64-bit ARM is `SCMP_ARCH_AARCH64`",
        "runc itself needs `capget`",
        "`fstatfs`",
        "`arch_prctl`",
        "`clone3` must be allowed",
        "`rseq`",
    ] {
        assert!(reasons.contains(reason), "{reason}: {reasons}");
    }
}

#[test]
fn mistakes_are_found_and_named() {
    assert!(
        findings(&spoilt("\"accept4\"", "\"acept4\""))
            .contains("no architecture has a system call `acept4`, and it would be ignored in silence; did you mean `accept4`?")
    );
    assert!(findings(&spoilt("\"accept4\"", "\"accept\"")).contains("`accept` is listed twice"));
    assert!(findings(&spoilt("\"clone3\"", "\"read\"")).contains("`read` has two actions"));
    assert!(findings(&spoilt("\"errnoRet\": 38", "\"errnoRet\": 1")).contains("glibc fails instead of falling back"));
    assert!(findings(&spoilt("\"SCMP_ACT_ALLOW\"", "\"SCMP_ACT_ALOW\"")).contains("did you mean `SCMP_ACT_ALLOW`"));
    assert!(findings(&spoilt("\"index\": 0", "\"index\": 6")).contains("arguments 0 to 5"));
    assert!(findings(&spoilt("\"SCMP_CMP_EQ\"", "\"SCMP_CMP_IS\"")).contains("`SCMP_CMP_IS` is not known"));
    assert!(
        findings(&spoilt("\"defaultAction\": \"SCMP_ACT_ERRNO\"", "\"defaultAction\": \"SCMP_ACT_ALLOW\"")).contains("deny by default")
    );
    assert!(findings(&spoilt("\"defaultErrnoRet\": 1,", "\"defaultErrnoRet\": 1, \"architectures\": [],")).contains("exclude each other"));
    assert!(findings(&spoilt("\"defaultErrnoRet\"", "\"defaultErrno\"")).contains("unknown field `defaultErrno`"));
    assert!(findings(&spoilt("\"defaultErrnoRet\": 1", "\"defaultErrnoRet\": 1, \"defaultErrnoRet\": 1")).contains("duplicate field"));
    assert!(findings(&format!("{WAF}}}")).contains("trailing"));
    assert!(findings("{").contains("EOF"));
}

#[test]
fn the_difference_to_docker_is_shown() {
    let amd64 = Container { architecture: "amd64", capabilities: &[] };
    let difference = Difference::of(&Profile::parse(WAF).unwrap(), amd64);
    assert!(difference.denied.iter().any(|name| name == "mknod") && !difference.denied.iter().any(|name| name == "semop"));
    let wider = spoilt("\"accept4\"", "\"accept4\", \"userfaultfd\"");
    assert_eq!(Difference::of(&Profile::parse(&wider).unwrap(), amd64).opened, ["userfaultfd"]);
    assert!(docker::docker_default(Container { architecture: "arm64", capabilities: &["CAP_SYS_CHROOT"] }).contains_key("chroot"));
    assert!(!docker::docker_default(amd64).contains_key("chroot"));
}

#[test]
fn an_unfiltered_container_of_the_profile_is_restarted() {
    let resource = build::<SeccompProfile>(serde_json::json!({ "name": "waf", "content": WAF })).unwrap();
    let mut observed = bare(&*resource, "/proc/7/status:Seccomp:\t2\n/proc/8/status:Seccomp:\t0\n");
    assert!(plan(&*resource, &observed).unwrap().notes[0].starts_with("`waf` denies "));
    present(&mut observed, "/etc/soc-provision/seccomp/waf.json", 0o644, WAF);
    let container = |id: &str, pid: u64, inline: &str| serde_json::json!({ "Id": id, "Name": id, "State": { "Pid": pid }, "HostConfig": { "SecurityOpt": [format!("seccomp={inline}")] } });
    let list = serde_json::json!([container("a7", 7, &compact(WAF)), container("a8", 8, &compact(WAF)), container("a9", 8, "unconfined")]);
    observed.insert(Question::Containers, Answer::Json(Some(list)));
    let planned = plan(&*resource, &observed).unwrap();
    assert_eq!(planned.changes, [Change::of("container a8", "not filtered", "filtered")]);
    assert_eq!(planned.steps.len(), 1);
}

#[test]
fn compacting_keeps_strings() {
    assert_eq!(compact("{ \"a b\": [1,\n 2], \"c\": \"\\\" d\" }"), "{\"a b\":[1,2],\"c\":\"\\\" d\"}");
}
