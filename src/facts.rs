//! Facts: what a host says about itself, under Ansible's names, gathered by one script.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A host's facts: a small, immutable set, known before anything is resolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    vars: Map<String, Value>,
}

impl Facts {
    /// Facts from variables under Ansible's names; for tests and recorded facts.
    #[must_use]
    pub fn from_vars(vars: Map<String, Value>) -> Self {
        Self { vars }
    }

    /// Placeholder facts for offline checks: a Debian 13 host on amd64.
    #[must_use]
    pub fn placeholder(host: &str) -> Self {
        let recorded = include_str!("facts/placeholder.txt");
        let mut facts = Self::parse(recorded).unwrap_or_default();
        facts.vars.insert("ansible_hostname".into(), json!(host));
        facts
    }

    /// All facts, for templates.
    #[must_use]
    pub fn vars(&self) -> &Map<String, Value> {
        &self.vars
    }

    /// A fact that is text, or an empty string.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.vars.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A fact that is a whole number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.vars.get(name).and_then(Value::as_u64)
    }

    /// A fact that is true or false; false where it is not known.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.vars.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    /// With a flag that is not the host's but the run's.
    #[must_use]
    pub fn with_flag(mut self, name: &str) -> Self {
        self.vars.insert(name.to_owned(), json!(true));
        self
    }

    /// `Debian` or `Ubuntu`.
    #[must_use]
    pub fn distribution(&self) -> &str {
        self.text("ansible_distribution")
    }

    /// `13`, `24.04`.
    #[must_use]
    pub fn version(&self) -> &str {
        self.text("ansible_distribution_version")
    }

    /// `trixie`, `noble`.
    #[must_use]
    pub fn codename(&self) -> &str {
        self.text("ansible_distribution_release")
    }

    /// dpkg's architecture, `amd64`, `arm64`.
    #[must_use]
    pub fn deb_architecture(&self) -> &str {
        self.text("soc_deb_architecture")
    }

    /// Whether systemd is pid 1.
    #[must_use]
    pub fn has_systemd(&self) -> bool {
        self.text("ansible_service_mgr") == "systemd"
    }

    /// Whether the kernel enforces AppArmor.
    #[must_use]
    pub fn has_apparmor(&self) -> bool {
        self.flag("soc_apparmor")
    }

    /// Tools that every Debian has, that the work needs, and that this host does not have.
    #[must_use]
    pub fn missing_tools(&self) -> Vec<&str> {
        let tools = self.vars.get("soc_missing_tools").and_then(Value::as_array);
        tools.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The kernel's word for this boot.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        self.text("soc_boot_id")
    }

    /// Identifies this boot; changes with every reboot, also of a container, which shares the
    /// kernel's id with its machine.
    #[must_use]
    pub fn boot(&self) -> String {
        format!("{} {}", self.text("soc_boot_id"), self.text("soc_init_started"))
    }

    /// Reads what [`SCRIPT`] printed.
    ///
    /// # Errors
    /// A sentence if the output is not the script's.
    pub fn parse(output: &str) -> Result<Self, String> {
        let mut sections: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut current = None;
        for line in output.lines() {
            if let Some(name) = line.strip_prefix("##") {
                current = Some(name);
                sections.entry(name).or_default();
            } else if let Some(name) = current {
                sections.entry(name).or_default().push(line);
            }
        }
        if !sections.contains_key("end") {
            return Err("the facts script did not finish".to_owned());
        }
        Ok(Self { vars: parse::vars(&sections) })
    }
}

/// Prints everything that [`Facts::parse`] reads. Mostly builtins: a fork costs the host a
/// millisecond, and this runs on every host in every run.
pub const SCRIPT: &str = include_str!("facts/gather.sh");

mod parse {
    use super::{BTreeMap, Map, Value, json};

    type Sections<'a> = BTreeMap<&'a str, Vec<&'a str>>;

    fn first<'a>(sections: &Sections<'a>, name: &str) -> &'a str {
        sections.get(name).and_then(|lines| lines.first().copied()).unwrap_or_default()
    }

    fn lines<'a, 'b>(sections: &'b Sections<'a>, name: &str) -> &'b [&'a str] {
        sections.get(name).map_or(&[], Vec::as_slice)
    }

    /// The variables of all sections.
    pub(super) fn vars(sections: &Sections<'_>) -> Map<String, Value> {
        let mut vars = Map::new();
        system(sections, &mut vars);
        hardware(sections, &mut vars);
        network(sections, &mut vars);
        mounts(sections, &mut vars);
        vars.insert("soc_missing_tools".into(), json!(lines(sections, "lacks")));
        vars
    }

    fn key_values<'a>(lines: &[&'a str]) -> BTreeMap<&'a str, String> {
        lines
            .iter()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key, value.trim_matches(|c| c == '"' || c == '\'').to_owned()))
            .collect()
    }

    fn system(sections: &Sections<'_>, vars: &mut Map<String, Value>) {
        let release = key_values(lines(sections, "os-release"));
        let get = |key: &str| release.get(key).cloned().unwrap_or_default();
        let id = get("ID");
        let distribution = match id.as_str() {
            "debian" => "Debian".to_owned(),
            "ubuntu" => "Ubuntu".to_owned(),
            other => other.to_owned(),
        };
        let version = get("VERSION_ID");
        let family = if id == "debian" || get("ID_LIKE").contains("debian") { "Debian" } else { distribution.as_str() };
        vars.insert("ansible_os_family".into(), json!(family));
        vars.insert("ansible_distribution".into(), json!(distribution));
        vars.insert("ansible_distribution_major_version".into(), json!(version.split('.').next().unwrap_or_default()));
        vars.insert("ansible_distribution_version".into(), json!(version));
        vars.insert("ansible_distribution_release".into(), json!(get("VERSION_CODENAME")));
        let uname: Vec<&str> = first(sections, "uname").split(' ').collect();
        let word = |index: usize| uname.get(index).copied().unwrap_or_default();
        vars.insert("ansible_system".into(), json!(word(0)));
        vars.insert("ansible_nodename".into(), json!(word(1)));
        vars.insert("ansible_hostname".into(), json!(word(1).split('.').next().unwrap_or_default()));
        vars.insert("ansible_fqdn".into(), json!(word(1)));
        vars.insert("ansible_domain".into(), json!(word(1).split_once('.').map_or("", |(_, domain)| domain)));
        vars.insert("ansible_kernel".into(), json!(word(2)));
        vars.insert("ansible_architecture".into(), json!(word(3)));
        vars.insert("ansible_machine".into(), json!(word(3)));
        let deb = match word(3) {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "armv7l" => "armhf",
            other => other,
        };
        vars.insert("soc_deb_architecture".into(), json!(deb));
        let init = first(sections, "init");
        vars.insert("ansible_service_mgr".into(), json!(if init == "systemd" { "systemd" } else { init }));
        vars.insert("ansible_pkg_mgr".into(), json!(if first(sections, "apt").is_empty() { "unknown" } else { "apt" }));
        vars.insert("soc_boot_id".into(), json!(first(sections, "boot_id")));
        vars.insert("soc_init_started".into(), json!(first(sections, "started")));
        let apparmor = first(sections, "apparmor") == "Y";
        vars.insert("soc_apparmor".into(), json!(apparmor));
        vars.insert("ansible_apparmor".into(), json!({ "status": if apparmor { "enabled" } else { "disabled" } }));
        vars.insert("soc_cgroup_version".into(), json!(if first(sections, "cgroup") == "2" { 2 } else { 1 }));
        vars.insert("ansible_user_id".into(), json!(first(sections, "user")));
        vars.insert("ansible_user_dir".into(), json!(sections.get("user").and_then(|said| said.get(1)).copied().unwrap_or_default()));
        vars.insert("ansible_virtualization_type".into(), json!(first(sections, "virtualization")));
    }

    fn hardware(sections: &Sections<'_>, vars: &mut Map<String, Value>) {
        let memory = |key: &str| {
            lines(sections, "meminfo")
                .iter()
                .find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
                .unwrap_or_default()
        };
        vars.insert("ansible_memtotal_mb".into(), json!(memory("MemTotal:") / 1024));
        vars.insert("ansible_memfree_mb".into(), json!(memory("MemAvailable:") / 1024));
        vars.insert("ansible_swaptotal_mb".into(), json!(memory("SwapTotal:") / 1024));
        let cpus = first(sections, "cpus").parse::<u64>().unwrap_or(1);
        vars.insert("ansible_processor_vcpus".into(), json!(cpus));
        vars.insert("ansible_processor_nproc".into(), json!(cpus));
    }

    /// From `/proc/net/route`, `/proc/net/fib_trie` and `ip -o addr` where there is one.
    fn network(sections: &Sections<'_>, vars: &mut Map<String, Value>) {
        let mut interfaces: Vec<String> = Vec::new();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let mut first_v4: BTreeMap<String, String> = BTreeMap::new();
        for line in lines(sections, "addr") {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, name, family, address, ..] = words[..] else { continue };
            if !interfaces.iter().any(|known| known == name) {
                interfaces.push(name.to_owned());
            }
            let Some((ip, _)) = address.split_once('/') else { continue };
            if name == "lo" {
                continue;
            }
            if family == "inet" {
                v4.push(ip.to_owned());
                first_v4.entry(name.to_owned()).or_insert_with(|| ip.to_owned());
            } else if family == "inet6" && !ip.starts_with("fe80") {
                v6.push(ip.to_owned());
            }
        }
        // /proc/net/route: interface, destination, gateway, ... in little-endian hex; 00000000 is the default route.
        let default = lines(sections, "route").iter().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words.get(1) == Some(&"00000000")).then(|| (words[0].to_owned(), words.get(2).map(|gateway| hex_address(gateway))))
        });
        let (interface, gateway) = default.unwrap_or_else(|| (first_v4.keys().next().cloned().unwrap_or_default(), None));
        let address = first_v4.get(&interface).cloned().unwrap_or_default();
        vars.insert("ansible_default_ipv4".into(), json!({ "interface": interface, "address": address, "gateway": gateway }));
        vars.insert("ansible_all_ipv4_addresses".into(), json!(v4));
        vars.insert("ansible_all_ipv6_addresses".into(), json!(v6));
        vars.insert("ansible_interfaces".into(), json!(interfaces));
    }

    fn hex_address(hex: &str) -> String {
        u32::from_str_radix(hex, 16).map(|raw| std::net::Ipv4Addr::from(raw.swap_bytes()).to_string()).unwrap_or_default()
    }

    /// From `df -Pk`: device, size, used, available, capacity, mount point.
    fn mounts(sections: &Sections<'_>, vars: &mut Map<String, Value>) {
        let kib = |word: &str| word.parse::<u64>().unwrap_or_default() * 1024;
        let mounts: Vec<Value> = lines(sections, "df")
            .iter()
            .filter_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let [device, size, _, available, _, mount, ..] = words[..] else { return None };
                size.parse::<u64>().ok()?;
                Some(json!({ "device": device, "mount": mount, "size_total": kib(size), "size_available": kib(available) }))
            })
            .collect();
        vars.insert("ansible_mounts".into(), json!(mounts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_placeholder_is_a_debian_13() {
        let facts = Facts::placeholder("web1");
        assert_eq!((facts.distribution(), facts.version(), facts.codename()), ("Debian", "13", "trixie"));
        assert_eq!(facts.text("ansible_hostname"), "web1");
        assert_eq!(facts.vars()["ansible_default_ipv4"]["address"], "10.0.2.15");
        assert_eq!(facts.vars()["ansible_default_ipv4"]["gateway"], "10.0.2.2");
        assert!(facts.has_systemd());
        assert!(facts.number("ansible_memtotal_mb").unwrap() > 1000);
    }

    #[test]
    fn the_script_runs_here() {
        let out = std::process::Command::new("/bin/sh").arg("-c").arg(SCRIPT).output().unwrap();
        let facts = Facts::parse(&String::from_utf8_lossy(&out.stdout)).unwrap();
        assert!(!facts.distribution().is_empty());
        assert!(facts.number("ansible_processor_vcpus").unwrap() > 0);
        assert!(!facts.text("soc_boot_id").is_empty() && facts.text("soc_init_started").parse::<u64>().is_ok());
        assert!(facts.missing_tools().is_empty());
    }

    #[test]
    fn a_cut_output_is_an_error() {
        assert!(Facts::parse("##uname\nLinux x\n").is_err());
    }
}
