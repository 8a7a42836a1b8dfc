//! What the firewall asks of a host and runs there.
//!
//! The question whether the loaded rules are the wanted ones is not answered by guessing at nft's
//! spelling: the wanted rules are loaded into a private network namespace on the host and listed
//! by the same nft, and the two listings are compared byte for byte. That also sees rules added by
//! hand.

use std::net::IpAddr;

use crate::resource::firewall::rules::TABLE;
use crate::resource::observe::View;
use crate::resource::own_file::OwnFile;
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::secret::{Text, sha256};
use crate::shell::Script;

/// Where the rules lie for the next boot.
pub(super) const RULE_FILE: &str = "/etc/soc-provision/firewall.nft";
/// The unit that loads them.
pub(super) const UNIT: &str = "soc-provision-firewall.service";
/// Its file.
pub(super) const UNIT_FILE: &str = "/etc/systemd/system/soc-provision-firewall.service";

/// At most so many changed rules are listed.
const SHOWN_RULES: usize = 40;

/// The unit: before the network, and before Docker, so that no port is ever open too early.
pub(super) fn unit_file() -> OwnFile {
    let content = "\
[Unit]
Description=Firewall rules of soc-provision
Documentation=man:nft(8)
DefaultDependencies=no
Wants=network-pre.target
After=local-fs.target systemd-modules-load.service
Before=network-pre.target docker.service shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f /etc/soc-provision/firewall.nft
ExecReload=/usr/sbin/nft -f /etc/soc-provision/firewall.nft

[Install]
WantedBy=sysinit.target
";
    OwnFile::readable(UNIT_FILE, content)
}

/// Prints `##name value` lines, and the two listings. `SSH_CONNECTION` is taken from the shell's
/// parent where `sudo` dropped it from the environment.
pub(super) fn probe(rules: &str) -> Script {
    Script::sh(
        r#"export LC_ALL=C
c=${SSH_CONNECTION:-}
[ -n "$c" ] || c=$(tr '\0' '\n' 2>/dev/null <"/proc/$PPID/environ" | sed -n 's/^SSH_CONNECTION=//p')
printf '##ssh %s\n' "$c"
{ systemctl show -p Id,UnitFileState,ActiveState nftables.service firewalld.service soc-provision-firewall.service 2>/dev/null; echo; } | while IFS== read -r k v; do
case $k in Id) id=$v;; UnitFileState) file=$v;; ActiveState) active=$v;; '') printf '##unit %s %s %s\n' "$id" "${file:--}" "${active:--}"; file=; active=;; esac
[ "$k" != Id ] || id=$v
done
grep -qis '^ENABLED=yes' /etc/ufw/ufw.conf && [ -x /usr/sbin/ufw ] && echo '##ufw active'
command -v nft >/dev/null 2>&1 || { echo '##nft missing'; exit 0; }
want=$("#,
        &[],
    )
    .payload(&Text::plain(rules))
    .then(
        r#" | unshare -n sh -c 'nft -f /dev/stdin && nft -s list table inet soc_provision' 2>&1) && echo '##want' || echo '##invalid'
printf '%s\n' "$want"
echo '##live'
nft -s list table inet soc_provision 2>/dev/null || :
"#,
        &[],
    )
}

/// What [`probe`] printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probed {
    /// Where this connection comes from, and the host's port that it goes to.
    pub(super) ssh: Option<(IpAddr, u16)>,
    pub(super) nft_missing: bool,
    pub(super) unit_enabled: bool,
    ufw_active: bool,
    /// Units that would flush or contradict the table.
    rivals: Vec<String>,
    /// The wanted rules as nft lists them, or what it says against them.
    want: Result<String, String>,
    /// The loaded rules as nft lists them; empty if there are none.
    pub(super) live: String,
}

impl Probed {
    /// Reads the probe's output.
    pub(super) fn parse(output: &str) -> Result<Self, Undecided> {
        let mut probed = Self {
            ssh: None,
            nft_missing: false,
            unit_enabled: false,
            ufw_active: false,
            rivals: Vec::new(),
            want: Err(String::new()),
            live: String::new(),
        };
        let (mut want, mut live, mut invalid, mut section) = (Vec::new(), Vec::new(), false, "");
        for line in output.lines() {
            let Some(mark) = line.strip_prefix("##") else {
                match section {
                    "want" | "invalid" => want.push(line),
                    "live" => live.push(line),
                    _ => {}
                }
                continue;
            };
            section = mark;
            match mark.split(' ').collect::<Vec<_>>()[..] {
                ["ssh", from, _, _, port] => probed.ssh = from.parse().ok().zip(port.parse().ok()),
                ["unit", id, file, active] => probed.unit(id, file, active),
                ["ufw", "active"] => probed.ufw_active = true,
                ["nft", "missing"] => probed.nft_missing = true,
                ["invalid"] => invalid = true,
                _ => {}
            }
        }
        if !probed.nft_missing && section != "live" {
            return Err(Undecided::Unknown("the firewall's probe did not finish".to_owned()));
        }
        let want = want.join("\n");
        probed.want = if invalid { Err(want) } else { Ok(want) };
        probed.live = live.join("\n");
        Ok(probed)
    }

    fn unit(&mut self, id: &str, file: &str, active: &str) {
        if id == UNIT {
            self.unit_enabled = file == "enabled";
        } else if file == "enabled" || active == "active" {
            self.rivals.push(id.to_owned());
        }
    }

    /// The wanted rules in nft's own spelling.
    pub(super) fn wanted(&self) -> Result<&str, Undecided> {
        self.want.as_deref().map_err(|reason| Undecided::Refused(format!("nft on the host does not take the rules: {reason}")))
    }

    /// Refuses a host on which something else owns the rule set.
    pub(super) fn refuse_rivals(&self, keep_ufw: bool) -> Result<(), Undecided> {
        if let Some(rival) = self.rivals.first() {
            let why = if rival == "nftables.service" {
                "its file begins with `flush ruleset`, which removes these rules and Docker's"
            } else {
                "it has rules of its own that contradict these"
            };
            return Err(Undecided::Refused(format!(
                "`{rival}` is enabled or active, and {why}; run `systemctl disable --now {rival}` (then `systemctl restart docker`, if Docker runs), or declare it with `service`"
            )));
        }
        if self.ufw_active && !keep_ufw {
            return Err(Undecided::Refused(
                "ufw is active, and would decide about the host's own ports too; run `ufw disable`, or set `ufw_input: keep` to leave it the input side (it never governs published container ports)"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

/// The rules that go and come, one change a line.
pub(super) fn rule_changes(live: &str, wanted: &str) -> Vec<Change> {
    if live.is_empty() {
        let rules = wanted.lines().filter(|line| line.starts_with("\t\t") && !line.trim_start().starts_with("type ")).count();
        return vec![Change::add("table", format!("{TABLE} ({rules} rules)"))];
    }
    let diff = similar::TextDiff::from_lines(live, wanted);
    let mut changes: Vec<Change> = diff
        .iter_all_changes()
        .filter_map(|change| match change.tag() {
            similar::ChangeTag::Delete => Some(Change::remove("rule", change.value().trim())),
            similar::ChangeTag::Insert => Some(Change::add("rule", change.value().trim())),
            similar::ChangeTag::Equal => None,
        })
        .collect();
    if changes.len() > SHOWN_RULES {
        let rest = changes.len() - SHOWN_RULES;
        changes.truncate(SHOWN_RULES);
        changes.push(Change::add("rule", format!("and {rest} more")));
    }
    changes
}

/// Asks nft whether it takes the rules, and changes nothing.
pub(super) fn validate(rules: &str) -> Script {
    Script::new().payload(&Text::plain(rules)).then(" | nft -c -f /dev/stdin\n", &[])
}

/// Loads the rules in one transaction, if those observed are still the loaded ones.
pub(super) fn load(rules: &str, live: &str) -> Script {
    Script::sh(
        "have=$(nft -s list table inet soc_provision 2>/dev/null)\n[ \"$(printf %s \"$have\" | sha256sum)\" = \"{}  -\" ] || exit 97\n",
        &[&sha256(live.as_bytes())],
    )
    .payload(&Text::plain(rules))
    .then(" | nft -f /dev/stdin\n", &[])
}

/// Keeps what is loaded, as a file that puts it back; and proves that nft takes the file.
pub(super) fn save() -> Script {
    Script::sh(
        r#"{ printf 'table inet soc_provision\ndelete table inet soc_provision\n'; nft list table inet soc_provision 2>/dev/null; :; } >"$GUARD/firewall.nft" &&
nft -c -f "$GUARD/firewall.nft"
"#,
        &[],
    )
}

/// Puts back what [`save`] kept.
pub(super) fn revert() -> Script {
    Script::sh("nft -f \"$GUARD/firewall.nft\"\n", &[])
}

/// Writes the file and the unit for the next boot, if the wanted rules are the loaded ones: a timer
/// that fired between the confirming login and this must not be papered over.
pub(super) fn persist(files: &[OwnFile], wanted: &str) -> Script {
    let check = Script::sh(
        "[ \"$(nft -s list table inet soc_provision 2>/dev/null | sha256sum)\" = \"{}  -\" ] || { echo 'the loaded firewall rules are not the wanted ones: they were put back, or changed by somebody else' >&2; exit 1; }\n",
        &[&sha256(format!("{wanted}\n").as_bytes())],
    );
    files
        .iter()
        .fold(check, |script, file| script.append(file.overwrite()))
        .then("systemctl daemon-reload && systemctl enable --quiet soc-provision-firewall.service && systemctl start soc-provision-firewall.service || exit 1\n", &[])
}

/// Removes the table, the file and the unit. It only opens, so that it needs no guard.
pub(super) fn plan_absent(probed: &Probed, files: &[OwnFile], view: &View<'_>) -> Result<Plan, Undecided> {
    let mut plan = Plan::in_sync();
    if !probed.live.is_empty() {
        plan.changes.push(Change::remove("table", TABLE));
    }
    for file in files {
        if view.path(&file.path)?.is_some() {
            plan.changes.push(Change::remove("file", &file.path));
        }
    }
    if plan.changes.is_empty() {
        return Ok(plan);
    }
    let start = Script::sh("systemctl disable --quiet --now soc-provision-firewall.service 2>/dev/null\n", &[]);
    let script = files.iter().fold(start, |script, file| script.append(file.remove())).then(
        "systemctl daemon-reload\ncommand -v nft >/dev/null 2>&1 || exit 0\nprintf 'table inet soc_provision\\ndelete table inet soc_provision\\n' | nft -f /dev/stdin\n",
        &[],
    );
    plan.effects = vec![Effect::Raw("firewall".to_owned()), Effect::Path(RULE_FILE.to_owned()), Effect::Unit(UNIT.to_owned())];
    Ok(plan.step(Step::new("remove the firewall rules", script)))
}
