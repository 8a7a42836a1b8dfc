//! Which of the files of kernel settings wins at boot, as sysctl.d(5) has it: they are read in the
//! order of their names, wherever they are, and the last one to name a setting has its way.

use std::collections::BTreeMap;

use crate::resource::observe::Question;
use crate::shell::Script;

/// Where the files are; of two with one name that in the first directory counts.
const DIRECTORIES: &[&str] = &["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"];

/// Each file's path, then `PATH:LINE` for each line that sets something.
const FILES: &str = "set --; for f in /etc/sysctl.d/*.conf /run/sysctl.d/*.conf /usr/local/lib/sysctl.d/*.conf /usr/lib/sysctl.d/*.conf; do
  if [ -e \"$f\" ]; then printf '%s\\n' \"$f\"; set -- \"$@\" \"$f\"; fi; done\n[ $# = 0 ] || grep -asHE '^[^#;]*=' -- \"$@\"; :\n";

/// One question for all settings of a host.
pub(super) fn question() -> Question {
    Question::Raw { key: "sysctl-files".to_owned(), script: Script::sh(FILES, &[]) }
}

/// A name with its first separator a dot.
pub(in crate::resource) fn dotted(name: &str) -> String {
    let path = crate::resource::interview::sysctl_path(name);
    path.strip_prefix("/proc/sys/").unwrap_or(&path).to_owned()
}

/// The settings that a file's text names, with their values; patterns are none.
pub(in crate::resource) fn lines(text: &str) -> Vec<(String, String)> {
    let setting = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let key = key.trim().trim_start_matches('-').trim();
        let plain = !key.is_empty() && !key.starts_with(['#', ';']) && !key.contains(['*', '?', '[']);
        plain.then(|| (dotted(key), value.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    text.lines().filter_map(setting).collect()
}

/// Whether systemd reads a path at boot as a file of kernel settings.
pub(in crate::resource) fn is_read(path: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(parent, name)| DIRECTORIES.contains(&parent) && name.strip_suffix(".conf").is_some())
}

/// The file that has its way with a setting, and the value in it. Patterns give way to names.
pub(super) fn winner(listing: &str, name: &str) -> Option<(String, String)> {
    let wanted = dotted(name);
    let mut files: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    let place = |path: &str| DIRECTORIES.iter().position(|directory| path.rsplit_once('/').is_some_and(|(parent, _)| parent == *directory));
    for path in listing.lines().filter(|line| line.starts_with('/') && !line.contains([':', '='])) {
        let (Some(place), Some((_, base))) = (place(path), path.rsplit_once('/')) else { continue };
        let best = files.entry(base).or_insert((place, path));
        if place < best.0 {
            *best = (place, path);
        }
    }
    let mut out = None;
    for (_, path) in files.values() {
        for line in listing.lines().filter_map(|line| line.strip_prefix(path)?.strip_prefix(':')) {
            let Some((key, value)) = line.split_once('=') else { continue };
            let key = key.trim().trim_start_matches('-').trim();
            if !key.is_empty() && dotted(key) == wanted {
                out = Some(((*path).to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")));
            }
        }
    }
    out
}

/// Code that makes a file say nothing of a setting any more.
pub(super) fn silence(path: &str, name: &str) -> Script {
    let pattern: String = dotted(name).chars().map(|c| if c == '/' || c == '.' { "[./]".to_owned() } else { c.to_string() }).collect();
    let edit = format!("s|^[[:space:]]*-?[[:space:]]*{pattern}[[:space:]]*=|# not soc-provision's: &|");
    Script::sh("( f=$(readlink -f -- {}) || exit 1; t=$f.soc-new\n", &[path])
        .then("cp -p -- \"$f\" \"$t\" && sed -E {} \"$f\" >\"$t\" && sync -- \"$t\" && mv -f -- \"$t\" \"$f\" ) || exit 1\n", &[&edit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::testing::run;
    use crate::secret::Vault;

    #[test]
    fn the_last_name_wins_wherever_it_is() {
        let files = "/etc/sysctl.d/60-a.conf\n/etc/sysctl.d/99-b.conf\n/run/sysctl.d/99-b.conf\n/usr/lib/sysctl.d/50-c.conf\n/run/sysctl.d/70-d.conf\n";
        let told = |lines: &str, name: &str| winner(&format!("{files}{lines}"), name);
        let own = "/etc/sysctl.d/60-a.conf:vm.swappiness = 1\n";
        assert_eq!(told(own, "vm.swappiness"), Some(("/etc/sysctl.d/60-a.conf".into(), "1".into())));
        let package = "/usr/lib/sysctl.d/50-c.conf:vm.swappiness=9\n";
        assert_eq!(told(&format!("{package}{own}"), "vm.swappiness").unwrap().1, "1");
        for late in ["/etc/sysctl.d/99-b.conf:-vm/swappiness =  3", "/run/sysctl.d/70-d.conf:vm.swappiness=3"] {
            assert_eq!(told(&format!("{own}{late}\n"), "vm.swappiness").unwrap().1, "3", "{late}");
        }
        // Hidden by the file of that name in /etc, another name, a pattern.
        for not in ["/run/sysctl.d/99-b.conf:vm.swappiness=3", "/etc/sysctl.d/99-b.conf:vm.swap=3", "/etc/sysctl.d/99-b.conf:vm.*=3"] {
            assert_eq!(told(&format!("{own}{not}\n"), "vm.swappiness").unwrap().1, "1", "{not}");
        }
        let dotted = "/etc/sysctl.d/60-a.conf:net/ipv4/conf/eth0.1/rp_filter = 1\n";
        assert_eq!(told(dotted, "net.ipv4.conf.eth0/1.rp_filter").unwrap().1, "1");
        assert_eq!(told("", "vm.swappiness"), None);
    }

    #[test]
    fn one_line_is_silenced_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("99-x.conf");
        std::fs::write(&path, "# head\nvm.swappiness = 3\n-vm/swappiness=4\nvm.swappiness2 = 5\n").unwrap();
        assert_eq!(run(&silence(path.to_str().unwrap(), "vm.swappiness"), &Vault::default()).0, 0);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "# head\n# not soc-provision's: vm.swappiness = 3\n# not soc-provision's: -vm/swappiness=4\nvm.swappiness2 = 5\n");
    }
}
