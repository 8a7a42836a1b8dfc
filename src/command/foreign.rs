//! Words of Ansible's command line that are not this one's: what to write instead.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Flags, and what to do instead.
const FLAGS: &[(&[&str], &str)] = &[
    (&["--start-at-task"], "a second `apply` does only what is left to do; `--tags` narrows it"),
    (&["--step"], "`apply --ask` shows the plan and asks; `--tags` narrows it"),
    (&["--syntax-check"], "use `soc-provision check PLAYBOOK`"),
    (&["--list-hosts"], "use `soc-provision check PLAYBOOK --list-hosts`"),
    (&["--list-tasks"], "use `soc-provision check PLAYBOOK --list-tasks`"),
    (&["--list-tags"], "use `soc-provision check PLAYBOOK --list-tags`"),
    (&["--flush-cache"], "facts are gathered anew in every run"),
    (&["--force-handlers"], "a handler that is owed is run by the next run if this one fails"),
    (
        &["--ask-vault-pass", "--ask-vault-password", "--vault-password-file", "--vault-pass-file", "--vault-id", "-J"],
        "secrets are kept with age: `soc-provision secrets --help`; `--identity` opens them",
    ),
    (
        &["--ssh-common-args", "--ssh-extra-args", "--sftp-extra-args", "--scp-extra-args"],
        "set `ansible_ssh_common_args` in the inventory (ProxyJump, ProxyCommand), or write it into ~/.ssh/config",
    ),
    (&["-c", "--connection"], "write `connection: local` on the play, or set `ansible_connection` in the inventory"),
    (&["--become-user"], "write `become_user` in the playbook"),
    (&["--become-method"], "sudo is the only one"),
    (&["-m", "--module-name", "-a", "--args"], "use `soc-provision exec PATTERN COMMAND`"),
    (&["-M", "--module-path", "--playbook-dir"], "kinds are built in; roles are found beside the playbook"),
    (&["-B", "--background", "-P", "--poll"], "long steps survive a lost connection by themselves"),
    (&["--accept-new-host-keys"], "use `--host-keys accept-new`"),
    (&["-y"], "use `--yes`"),
    (&["--dry-run"], "use `soc-provision plan PLAYBOOK`"),
];

/// Commands of other tools, and this one's.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["playbook", "run", "deploy", "up", "converge"], "use `soc-provision apply PLAYBOOK`"),
    (&["lint", "validate", "syntax-check"], "use `soc-provision check PLAYBOOK`"),
    (&["vault", "secret"], "use `soc-provision secrets`"),
    (&["setup", "ping", "gather"], "use `soc-provision facts PATTERN`"),
    (&["adhoc", "shell", "command", "ssh"], "use `soc-provision exec PATTERN COMMAND`"),
    (&["doc", "reference", "modules", "kinds"], "use `soc-provision docs`"),
    (&["galaxy"], "roles are directories under `roles/`"),
    (&["destroy", "teardown"], "use `soc-provision rebuild PLAYBOOK`"),
    (&["diff", "dry-run"], "use `soc-provision plan PLAYBOOK --diff`"),
    (&["hosts", "list"], "use `soc-provision inventory`"),
];

/// Advice for an error of the command line, where it is a word of another tool's.
#[must_use]
pub(super) fn advice(error: &clap::Error) -> Option<String> {
    let text = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let typed = text(ContextKind::InvalidArg)?;
            let flag = typed.split(['=', ' ']).next().unwrap_or(&typed);
            find(FLAGS, flag)
        }
        ErrorKind::InvalidSubcommand => {
            let typed = text(ContextKind::InvalidSubcommand)?;
            if [".yml", ".yaml"].iter().any(|ending| typed.ends_with(ending)) {
                return Some(format!("a command comes first: `soc-provision plan {typed}`, `soc-provision apply {typed}`"));
            }
            find(COMMANDS, &typed)
        }
        _ => None,
    }
}

fn find(table: &[(&[&str], &str)], typed: &str) -> Option<String> {
    table.iter().find(|(names, _)| names.contains(&typed)).map(|(_, hint)| (*hint).to_owned())
}
