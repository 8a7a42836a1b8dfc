//! Ansible's words: what is supported, what is accepted without effect, what is refused and what
//! to use instead. One table, from which messages and the docs are made (DESIGN 8.17).

/// Where a word stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Play,
    /// A task; blocks and handlers take the same words unless noted.
    Task,
    Block,
    /// An entry of `roles:`.
    Role,
    /// A module's name.
    Module,
}

/// What becomes of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It works.
    Supported,
    /// It may stay, and changes nothing: the reason.
    Ignored(&'static str),
    /// It is an error: what to use instead.
    Refused(&'static str),
}

/// One word of Ansible's.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    pub name: &'static str,
    pub places: &'static [Place],
    pub support: Support,
}

use Place::{Block, Module, Play, Role, Task};
use Support::{Ignored, Refused, Supported};

const ALL: &[Place] = &[Play, Task, Block, Role];
const INSIDE: &[Place] = &[Task, Block, Role];
const TASKS: &[Place] = &[Task, Block];
const TASK: &[Place] = &[Task];
const PLAY: &[Place] = &[Play];
const MODULE: &[Place] = &[Module];

const fn word(name: &'static str, places: &'static [Place], support: Support) -> Word {
    Word { name, places, support }
}

const NO_RESULTS: &str = "a plan is made before anything runs, so no task can look at another's output; use the facts, a variable, or `creates`/`unless`/`onlyif` of `command`";
const NO_DELEGATION: &str = "write a second play for the other host; `hostvar \"HOST\" \"NAME\"` reads its variables";

/// Every word, in the order of the docs.
pub const WORDS: &[Word] = &[
    word("name", ALL, Supported),
    word("hosts", PLAY, Supported),
    word("vars", ALL, Supported),
    word("vars_files", PLAY, Supported),
    word("roles", PLAY, Supported),
    word("tasks", PLAY, Supported),
    word("pre_tasks", PLAY, Supported),
    word("post_tasks", PLAY, Supported),
    word("handlers", PLAY, Supported),
    word("import_playbook", PLAY, Supported),
    word("serial", PLAY, Supported),
    word("max_fail_percentage", PLAY, Supported),
    word("max_unreachable", PLAY, Supported),
    word("gate", &[Play, Role], Supported),
    word("any_errors_fatal", PLAY, Supported),
    word("role", &[Role], Supported),
    word("tags", ALL, Supported),
    word("when", &[Task, Block, Role, Play], Supported),
    word("become", ALL, Supported),
    word("become_user", ALL, Supported),
    word("become_method", ALL, Supported),
    word("connection", PLAY, Supported),
    word("remote_user", PLAY, Supported),
    word("port", PLAY, Supported),
    word("environment", ALL, Supported),
    word("ignore_errors", ALL, Supported),
    word("loop", TASK, Supported),
    word("with_items", TASK, Supported),
    word("with_list", TASK, Supported),
    word("with_dict", TASK, Supported),
    word("loop_control", TASK, Supported),
    word("notify", TASKS, Supported),
    word("listen", TASK, Supported),
    word("args", TASK, Supported),
    word("timeout", ALL, Supported),
    word("block", &[Block], Supported),
    word("rescue", &[Block], Supported),
    word("always", &[Block], Supported),
    word("gather_facts", PLAY, Ignored("facts are always gathered, in one round trip")),
    word("gather_subset", PLAY, Ignored("facts are always gathered, in one round trip")),
    word("gather_timeout", PLAY, Ignored("facts are always gathered, in one round trip")),
    word("strategy", PLAY, Ignored("hosts never wait for each other but at plays and batches")),
    word("order", PLAY, Ignored("hosts run in parallel")),
    word("force_handlers", PLAY, Ignored("a handler that is owed is run by the next run if this one dies")),
    word("no_log", ALL, Ignored("secrets are never logged")),
    word("diff", ALL, Ignored("`--diff` decides for the whole run")),
    word("throttle", ALL, Ignored("`serial` and `--forks` limit parallel work")),
    word("collections", &[Play, Task, Block], Ignored("module names need no collection")),
    word("any_errors_fatal", &[Task, Block, Role], Ignored("it is read on the play only")),
    word("register", TASK, Refused(NO_RESULTS)),
    word("until", TASK, Refused("health checks in `verify/` retry by themselves (`within`, `every`)")),
    word("retries", TASK, Refused("health checks in `verify/` retry by themselves (`within`, `every`)")),
    word("delay", TASK, Refused("health checks in `verify/` retry by themselves (`within`, `every`)")),
    word("async", TASK, Refused("long steps already survive a lost connection; raise `timeout` if one needs longer")),
    word("poll", TASK, Refused("long steps already survive a lost connection; raise `timeout` if one needs longer")),
    word(
        "changed_when",
        TASK,
        Refused("whether something changed is decided from the host's state; for `command` use `creates`, `unless` or `onlyif`"),
    ),
    word(
        "failed_when",
        TASK,
        Refused("a step fails if its exit status is not 0: write `|| true` or `ignore_errors: true`, or put the test into the `command`"),
    ),
    word("delegate_to", ALL, Refused(NO_DELEGATION)),
    word("delegate_facts", ALL, Refused(NO_DELEGATION)),
    word("local_action", TASK, Refused("write a play with `hosts: localhost` and `ansible_connection: local`")),
    word("run_once", ALL, Refused("write a play whose `hosts` is one host, such as `web[0]`")),
    word("check_mode", ALL, Refused("plan and apply run the same code; use `plan` or `-C` for the whole run")),
    word("connection", INSIDE, Refused("write it on the play, or set `ansible_connection: local` for the host in the inventory")),
    word("remote_user", INSIDE, Refused("write it on the play, set `ansible_user` in the inventory, or use `become_user`")),
    word("port", INSIDE, Refused("write it on the play, or set `ansible_port` in the inventory")),
    word("become_flags", ALL, Refused("sudo is called without further flags")),
    word("become_exe", ALL, Refused("sudo is called as `sudo`")),
    word("module_defaults", ALL, Refused("put the values into variables or role defaults")),
    word("vars_prompt", PLAY, Refused("use `-e NAME=value`, or `soc-provision secrets set NAME` for secrets")),
    word("ignore_unreachable", ALL, Refused("use `max_unreachable` on the play")),
    word("debugger", ALL, Refused("use `plan -v`")),
    word("action", TASK, Refused("write the module's name as the key")),
    word("fact_path", PLAY, Refused("facts are a fixed set; put values into host_vars")),
    word("with_dict_items", TASK, Refused("use `with_dict`")),
    word("with_fileglob", TASK, Refused("`copy` takes a directory as `src`")),
    word("with_filetree", TASK, Refused("`copy` takes a directory as `src`")),
    word("with_first_found", TASK, Refused("list the files under `vars_files` as a list within the list, or use `when`")),
    word("with_sequence", TASK, Refused("use `loop: \"{{range 1 5}}\"`")),
    word("with_nested", TASK, Refused("use a list in a variable, or `include_tasks` in a loop")),
    word("with_together", TASK, Refused("use a list of mappings in a variable")),
    word("with_subelements", TASK, Refused("use `include_tasks` in a loop")),
    word("with_indexed_items", TASK, Refused("use `loop` with `loop_control: {index_var: i}`")),
    word("with_flattened", TASK, Refused("use `loop: \"{{concat a b}}\"`")),
    word("with_inventory_hostnames", TASK, Refused("use `loop: \"{{groups.NAME}}\"`")),
    word("with_lines", TASK, Refused("put the values into a variable")),
    word("with_random_choice", TASK, Refused("a plan must not depend on chance")),
    word("with_password", TASK, Refused("use `soc-provision secrets set NAME --generate`")),
    word("set_fact", MODULE, Supported),
    word("include_vars", MODULE, Supported),
    word("assert", MODULE, Supported),
    word("fail", MODULE, Supported),
    word("debug", MODULE, Supported),
    word("meta", MODULE, Supported),
    word("include_role", MODULE, Supported),
    word("import_role", MODULE, Supported),
    word("include_tasks", MODULE, Supported),
    word("import_tasks", MODULE, Supported),
    word("setup", MODULE, Ignored("facts are always gathered, in one round trip")),
    word("gather_facts", MODULE, Ignored("facts are always gathered, in one round trip")),
    word("ping", MODULE, Ignored("every run connects to the host first")),
    word("shell", MODULE, Refused("use `command`, whose `cmd` is run by `sh`, with `creates`, `unless` or `onlyif`")),
    word("raw", MODULE, Refused("use `command`")),
    word("script", MODULE, Refused("`copy` the script, then use `command`")),
    word("expect", MODULE, Refused("use `command` with the program's own options for unattended use")),
    word("include", MODULE, Refused("use `include_tasks` or `import_tasks`")),
    word("apt", MODULE, Refused("use `package`")),
    word("dnf", MODULE, Refused("use `package`; Debian and Ubuntu are supported")),
    word("yum", MODULE, Refused("use `package`; Debian and Ubuntu are supported")),
    word("pip", MODULE, Refused("use `package`, or put the tool into a container")),
    word("snap", MODULE, Refused("use `package`")),
    word("apt_repository", MODULE, Refused("use `repository`")),
    word("deb822_repository", MODULE, Refused("use `repository`")),
    word("apt_key", MODULE, Refused("use `repository`, whose key signs that repository only")),
    word("systemd_service", MODULE, Refused("use `service`, or `systemd_unit` to write a unit")),
    word("ufw", MODULE, Refused("use `firewall`, which cannot lock you out")),
    word("iptables", MODULE, Refused("use `firewall`, which cannot lock you out")),
    word("nftables", MODULE, Refused("use `firewall`, which cannot lock you out")),
    word("firewalld", MODULE, Refused("use `firewall`, which cannot lock you out")),
    word("iptables_state", MODULE, Refused("use `firewall`, which cannot lock you out")),
    word("docker_container", MODULE, Refused("use `compose_stack`")),
    word("docker_compose", MODULE, Refused("use `compose_stack`")),
    word("docker_compose_v2", MODULE, Refused("use `compose_stack`")),
    word("docker_login", MODULE, Refused("use `registry_login`")),
    word("docker_secret", MODULE, Refused("use `secret`")),
    word("modprobe", MODULE, Refused("use `kernel_module`")),
    word("blockinfile", MODULE, Refused("use `template` for the whole file, or `lineinfile`")),
    word("replace", MODULE, Refused("use `template` for the whole file, or `lineinfile`")),
    word("assemble", MODULE, Refused("use `template`")),
    word("synchronize", MODULE, Refused("use `copy` with a directory as `src`")),
    word("fetch", MODULE, Refused("use `soc-provision capture` or `backup`")),
    word("slurp", MODULE, Refused(NO_RESULTS)),
    word("stat", MODULE, Refused(NO_RESULTS)),
    word("find", MODULE, Refused(NO_RESULTS)),
    word("service_facts", MODULE, Refused(NO_RESULTS)),
    word("package_facts", MODULE, Refused(NO_RESULTS)),
    word("getent", MODULE, Refused(NO_RESULTS)),
    word("uri", MODULE, Refused("use the check `http` in the role's `verify/main.yml`")),
    word("wait_for", MODULE, Refused("use the check `tcp` in the role's `verify/main.yml`")),
    word("wait_for_connection", MODULE, Refused("`reboot` waits for the host by itself")),
    word("pause", MODULE, Refused("use `gate: health`, which waits for what matters")),
    word("get_url", MODULE, Refused("put the file into `files/` and use `copy`, so that its content is reviewed")),
    word("unarchive", MODULE, Refused("put the files into `files/` and use `copy`")),
    word("git", MODULE, Refused("put the files into `files/` and use `copy`")),
    word("tempfile", MODULE, Refused("files are written atomically; no temporary file is needed")),
    word("mount", MODULE, Refused("use `systemd_unit` with a `.mount` unit")),
    word("openssl_certificate", MODULE, Refused("use `tls_certificate`")),
    word("x509_certificate", MODULE, Refused("use `tls_certificate`")),
    word("openssl_privatekey", MODULE, Refused("use `tls_certificate`")),
    word("add_host", MODULE, Refused("the inventory is fixed for a run; use an executable inventory")),
    word("group_by", MODULE, Refused("use `when` with the fact")),
    word("set_stats", MODULE, Refused(NO_RESULTS)),
    word("async_status", MODULE, Refused(NO_RESULTS)),
    word("alternatives", MODULE, Refused("use `file` with `state: link`")),
];

/// What is known about a word at a place.
#[must_use]
pub fn lookup(place: Place, name: &str) -> Option<Support> {
    WORDS.iter().find(|word| word.name == name && word.places.contains(&place)).map(|word| word.support)
}

/// Advice about a variable of Ansible's that there is not.
#[must_use]
pub fn unknown_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "ansible_date_time" | "ansible_uptime_seconds" => "a plan must not depend on the time of day: pass it with `-e`",
        "ansible_env" => "the login's environment is not read: put the value into a variable",
        "ansible_failed_task" | "ansible_failed_result" | "ansible_run_tags" => NO_RESULTS,
        "ansible_loop" => "`loop_control: {index_var: i}` counts the items",
        "ansible_lsb" => "use `ansible_distribution` and `ansible_distribution_release`",
        "ansible_local" => "local facts are not read: put values into `host_vars`",
        "ansible_python" | "ansible_python_version" | "ansible_python_interpreter" | "ansible_selinux" => {
            "hosts need no Python, and there is no SELinux on them"
        }
        _ if name.starts_with("ansible_") => "`soc-provision facts HOST` shows the facts that there are",
        _ => return None,
    })
}

/// All words that may be written at a place.
pub fn accepted(place: Place) -> impl Iterator<Item = &'static str> {
    WORDS.iter().filter(move |word| word.places.contains(&place) && !matches!(word.support, Support::Refused(_))).map(|word| word.name)
}

/// A module's name without the collections that Ansible keeps the known ones in.
#[must_use]
pub fn bare_module(name: &str) -> &str {
    const PREFIXES: &[&str] =
        &["ansible.builtin.", "ansible.legacy.", "ansible.posix.", "community.general.", "community.docker.", "community.crypto."];
    PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_stands_once_for_each_place() {
        for (index, word) in WORDS.iter().enumerate() {
            for place in word.places {
                let twin = WORDS[..index].iter().find(|other| other.name == word.name && other.places.contains(place));
                assert!(twin.is_none(), "{} is listed twice for {place:?}", word.name);
            }
        }
    }

    #[test]
    fn substitutes_are_named() {
        assert!(matches!(lookup(Place::Module, "shell"), Some(Support::Refused(hint)) if hint.contains("command")));
        assert_eq!(bare_module("ansible.builtin.copy"), "copy");
        assert_eq!(bare_module("acme.custom.thing"), "acme.custom.thing");
    }
}
