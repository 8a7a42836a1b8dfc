//! Shell fragments that several kinds share: above all the atomic write of a file.
//!
//! Every process that a fragment starts costs the host about a millisecond, so builtins do what
//! they can. Writing a new, public, root-owned file starts four: the payload's pipe (two), the
//! sync and the rename.

use crate::resource::argument::{octal, parent};
use crate::resource::interview::{SECRET_RECORDS, secret_record};
use crate::resource::managed::Body;
use crate::secret::Fingerprint;
use crate::shell::Script;

/// What must still be true of a file when its new content is about to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Anything,
    /// It is not there.
    Absent,
    /// Its SHA-256.
    Digest(String),
    /// It holds secrets, and is as it was last written.
    AsRecorded,
}

/// A file to write, whole or not at all.
#[derive(Debug)]
pub struct Write<'a> {
    /// Where.
    pub path: &'a str,
    /// What.
    pub body: &'a Body,
    /// Permission bits.
    pub mode: u32,
    /// Name or number of the owner.
    pub owner: &'a str,
    /// Name or number of the group; `None`: the owner's own, or what creating it gives.
    pub group: Option<&'a str>,
    /// The precondition.
    pub expect: &'a Expect,
    /// A command that must accept the new file, `%s` in it.
    pub validate: Option<&'a str>,
    /// Keep the old file beside the new one.
    pub backup: bool,
    /// Create the directory if need be.
    pub make_parent: bool,
    /// The new content holds secrets: what to record.
    pub record: Option<&'a Fingerprint>,
}

/// The name that an upload for a file has until it is moved there.
#[must_use]
pub fn upload_path(path: &str) -> String {
    format!("{}/.{}.soc-upload", parent(path).trim_end_matches('/'), short_name(path))
}

/// A file's name, shortened so that a longer one can be made of it.
fn short_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or_default();
    let mut end = name.len().min(180);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

impl Write<'_> {
    /// The script. Exit status 97 if the precondition does not hold, 95 if the new content is
    /// refused by its validator; then nothing has changed.
    #[must_use]
    pub fn script(&self) -> Script {
        let mut script = Script::sh("p={}; d={}; n={}\n", &[self.path, parent(self.path), short_name(self.path)]);
        if self.make_parent {
            script = script.then("[ -d \"$d\" ] || mkdir -p -- \"$d\" || exit 1\n", &[]);
        }
        script = script.then("[ -d \"$d\" ] || { printf 'there is no directory `%s`: a task `directory` for it, or a package that brings it, must come before\\n' \"$d\" >&2; exit 1; }\n", &[]);
        script = script.append(self.precondition()).append(self.temporary());
        if let Some(command) = self.validate {
            let command = ["'%s'", "\"%s\"", "%s"].iter().fold(command.to_owned(), |text, from| text.replace(from, "\"$t\""));
            script = script
                .then("( ", &[])
                .eval(Script::new().user_code(&command))
                .then(" ) </dev/null >&2 || { printf '`%s` would not be valid, and was left as it is\\n' \"$p\" >&2; f 95; }\n", &[]);
        }
        if self.backup {
            script = script.then("if [ -f \"$p\" ]; then cp -p -- \"$p\" \"$p.$(date +%Y-%m-%d@%H:%M:%S)~\" || f 1; fi\n", &[]);
        }
        if let Some(fingerprint) = self.record {
            script = script.then("umask 077; [ -d {} ] || mkdir -p {} || f 1\n", &[SECRET_RECORDS, SECRET_RECORDS]).then(
                "s=$(sha256sum <\"$t\") && printf '%s\\n%s\\n' {} \"${s%% *}\" >{} || f 1\n",
                &[fingerprint.as_str(), &secret_record(self.path)],
            );
        }
        // Something mounted over the file hides it, and cannot be renamed over.
        script.then("if mountpoint -q -- \"$p\" 2>/dev/null; then umount -- \"$p\" || f 1; fi\nmv -fT -- \"$t\" \"$p\" || f 1\n", &[])
    }

    fn precondition(&self) -> Script {
        let moved = "{ printf '`%s` is not what it was when this was planned\\n' \"$p\" >&2; exit 97; }\n";
        match self.expect {
            Expect::Anything => Script::new(),
            Expect::Absent => Script::sh("! [ -e \"$p\" ] && ! [ -L \"$p\" ] || ", &[]).then(moved, &[]),
            Expect::Digest(digest) => {
                Script::sh("s=; [ ! -f \"$p\" ] || [ -L \"$p\" ] || s=$(sha256sum <\"$p\"); [ \"${s%% *}\" = {} ] || ", &[digest]).then(moved, &[])
            }
            Expect::AsRecorded => Script::sh(
                "s=; [ ! -f \"$p\" ] || [ -L \"$p\" ] || s=$(sha256sum <\"$p\"); o=; { read -r o && read -r o; } <{}; [ \"${s%% *}\" = \"$o\" ] || ",
                &[&secret_record(self.path)],
            )
            .then(moved, &[]),
        }
    }

    /// Makes the new file under a name that nobody can guess, with its mode and owner before its
    /// content, on the disk. What a killed run left behind is removed first.
    fn temporary(&self) -> Script {
        let fail = "f() { rm -f -- \"$t\"; exit \"$1\"; }\n";
        let owner = self.group.map_or_else(|| format!("{}:", self.owner), |group| format!("{}:{group}", self.owner));
        if let Body::Upload { .. } = self.body {
            return Script::sh("t={}\n", &[&upload_path(self.path)])
                .then(fail, &[])
                .then("chown -h -- {} \"$t\" && chmod -- {} \"$t\" && sync -- \"$t\" || f 1\n", &[&owner, &octal(self.mode)]);
        }
        let script = Script::sh("for o in \"$d\"/.\"$n\".soc-tmp-*; do [ ! -f \"$o\" ] || rm -f -- \"$o\"; done\n", &[])
            .then("read -r t </proc/sys/kernel/random/uuid; t=${d%/}/.$n.soc-tmp-$t\n", &[])
            .then(fail, &[]);
        let public = self.mode == 0o644 && self.owner == "root" && self.group.is_none_or(|group| group == "root");
        let script = if public {
            self.content(script.then("umask 022; ", &[])).then(" >\"$t\" || f 1\n", &[])
        } else {
            let script = self.content(script.then("umask 077; ", &[])).then(" | install -m {} -o {}", &[&octal(self.mode), self.owner]);
            let script = if let Some(group) = self.group { script.then(" -g {}", &[group]) } else { script };
            let script = script.then(" -- /dev/stdin \"$t\" || f 1\n", &[]);
            if self.group.is_none() && self.owner != "root" {
                script.then("chgrp -- \"$(id -g -- {})\" \"$t\" || f 1\n", &[self.owner])
            } else {
                script
            }
        };
        script.then("sync -- \"$t\" || f 1\n", &[])
    }

    fn content(&self, script: Script) -> Script {
        match self.body {
            Body::Text(text) => script.payload(text),
            Body::Bytes(bytes) => script.bytes(bytes),
            Body::Upload { .. } => script,
        }
    }
}

/// Changes a path's owner, group and mode, as far as given, without following a link. Changing the
/// owner clears set-id bits, so the mode comes after.
#[must_use]
pub fn attributes(path: &str, owner: Option<&str>, group: Option<&str>, mode: Option<u32>) -> Script {
    let mut script = Script::sh("p={}; if [ -L \"$p\" ]; then printf '`%s` has become a link\\n' \"$p\" >&2; exit 97; fi\n", &[path]);
    match (owner, group) {
        (Some(owner), group) => {
            let both = group.map_or_else(|| owner.to_owned(), |group| format!("{owner}:{group}"));
            script = script.then("chown -h -- {} \"$p\" || exit 1\n", &[&both]);
        }
        (None, Some(group)) => script = script.then("chgrp -h -- {} \"$p\" || exit 1\n", &[group]),
        (None, None) => {}
    }
    if let Some(mode) = mode {
        // With five digits and more chmod takes away a directory's set-id bits too.
        script = script.then("chmod -- {} \"$p\" || exit 1\n", &[&format!("0{}", octal(mode))]);
    }
    script
}
