//! What the kind asks of a host's AppArmor and runs there.

use crate::resource::observe::Question;
use crate::resource::own_file::OwnFile;
use crate::secret::Text;
use crate::shell::Script;

/// Prints whether AppArmor is on, what the kernel holds under the name, and the digest that the
/// text comes to when the host's own parser compiles it (the kernel keeps the same digest of what
/// was loaded, so that the comparison is exact).
pub(super) fn probe(name: &str, text: &str) -> Script {
    Script::sh(
        r#"export LC_ALL=C
on=; [ ! -r /sys/module/apparmor/parameters/enabled ] || IFS= read -r on </sys/module/apparmor/parameters/enabled
printf '##enabled %s\n' "$on"
name={}
for d in /sys/kernel/security/apparmor/policy/profiles/"$name".*; do
[ -r "$d/name" ] && IFS= read -r n <"$d/name" && [ "$n" = "$name" ] && IFS= read -r m <"$d/mode" || continue
s=-; [ ! -r "$d/raw_sha256" ] || IFS= read -r s <"$d/raw_sha256"
printf '##loaded %s %s\n' "$m" "$s"
done
command -v apparmor_parser >/dev/null 2>&1 || { echo '##parser missing'; exit 0; }
want=$("#,
        &[name],
    )
    .payload(&Text::plain(text))
    .then(" | apparmor_parser -QTKS 2>/dev/null | sha256sum)\nprintf '##want %s\\n' \"${want%% *}\"\n", &[])
}

/// Prints the label of every confined process; one question, shared by all profiles.
pub(super) fn labels() -> Question {
    let script = Script::sh("grep -Hsv '^unconfined' /proc/[0-9]*/attr/current || :\n", &[]);
    Question::Raw { key: "apparmor labels".to_owned(), script }
}

/// What the kernel holds under the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) mode: String,
    /// Of the compiled policy; a kernel may be built not to tell.
    pub(super) digest: Option<String>,
}

/// What the two questions brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Probed {
    pub(super) enabled: bool,
    pub(super) parser_missing: bool,
    pub(super) loaded: Option<Loaded>,
    /// The digest that the wanted text compiles to; that of nothing if it does not compile.
    pub(super) wanted: String,
    labels: Vec<(u64, String)>,
}

impl Probed {
    pub(super) fn parse(output: &str, labels: &str) -> Self {
        let mut probed = Self { labels: labels.lines().filter_map(label).collect(), ..Self::default() };
        for line in output.lines().filter_map(|line| line.strip_prefix("##")) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["enabled", on] => probed.enabled = on == "Y",
                ["parser", "missing"] => probed.parser_missing = true,
                ["want", digest] => digest.clone_into(&mut probed.wanted),
                ["loaded", mode, digest] => {
                    probed.loaded = Some(Loaded { mode: mode.to_owned(), digest: (digest != "-").then(|| digest.to_owned()) });
                }
                _ => {}
            }
        }
        probed
    }

    /// What a process runs under, without the mode.
    pub(super) fn label(&self, pid: u64) -> String {
        self.labels.iter().find(|(known, _)| *known == pid).map_or_else(|| "unconfined".to_owned(), |(_, label)| label.clone())
    }

    /// Processes under a profile.
    pub(super) fn pids_under(&self, name: &str) -> Vec<u64> {
        self.labels
            .iter()
            .filter(|(_, label)| label.split("//").any(|part| part.trim_start_matches('&') == name))
            .map(|(pid, _)| *pid)
            .collect()
    }
}

/// `/proc/12/attr/current:docker-waf (enforce)`.
fn label(line: &str) -> Option<(u64, String)> {
    let (path, label) = line.split_once(':')?;
    let pid = path.strip_prefix("/proc/")?.strip_suffix("/attr/current")?.parse().ok()?;
    let name = label.rsplit_once(" (").map_or(label, |(name, _)| name);
    Some((pid, name.trim_end_matches('\0').to_owned()))
}

/// Compiles the text, and loads nothing.
pub(super) fn validate(text: &str) -> Script {
    Script::new().payload(&Text::plain(text)).then(" | apparmor_parser -QTK >/dev/null\n", &[])
}

/// Swaps the file in and loads it; puts the old one back if the kernel does not take it.
pub(super) fn load(file: &OwnFile, write: Script) -> Script {
    Script::sh(
        "old=; if [ -e {} ]; then old=$(mktemp /etc/apparmor.d/.soc-provision.XXXXXX) && cp -p -- {} \"$old\" || exit 1; fi\ntrap 'rm -f -- \"$old\"' EXIT\n",
        &[&file.path, &file.path],
    )
    .append(write)
    .then(
        r#"f={}
if ! apparmor_parser -r -W "$f"; then
if [ -n "$old" ]; then mv -fT -- "$old" "$f" && apparmor_parser -r -W "$f"; else rm -f -- "$f"; fi
exit 96
fi
"#,
        &[&file.path],
    )
}

/// Takes the policy out of the kernel and removes its file, unless something came to run under it.
pub(super) fn unload(name: &str, file: &OwnFile) -> Script {
    Script::sh("name={}\n", &[name])
        .then(
            r#"if grep -qsE "^$name( |\$|//)" /proc/[0-9]*/attr/current; then echo "something runs under $name" >&2; exit 97; fi
for n in /sys/kernel/security/apparmor/policy/profiles/"$name".*/name; do
[ -r "$n" ] && IFS= read -r have <"$n" && [ "$have" = "$name" ] || continue
printf %s "$name" >/sys/kernel/security/apparmor/.remove || exit 1
done
"#,
            &[],
        )
        .append(file.remove())
}
