//! How a person or an intruder changes a provisioned host behind the tool's back: one entry each.
//! `project/playbooks/site.yml` is what the host was made from.

/// How a host gets back to what it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cure {
    /// By `drift --fix --prune all`.
    Tool,
    /// Told, and not undone by the tool: this undoes it.
    Hand(&'static str),
}

/// One way to change a host.
pub(super) struct Mutation {
    pub(super) name: &'static str,
    /// Run as root on the host.
    pub(super) act: &'static str,
    /// What must be found: resource and severity. A `*` at the end stands for anything.
    pub(super) expect: &'static [(&'static str, &'static str)],
    /// What may be found besides.
    pub(super) also: &'static [&'static str],
    pub(super) cure: Cure,
    /// Not together with others: it stops what they need.
    pub(super) alone: bool,
}

const fn m(name: &'static str, act: &'static str, expect: &'static [(&'static str, &'static str)]) -> Mutation {
    Mutation { name, act, expect, also: &[], cure: Cure::Tool, alone: false }
}

impl Mutation {
    const fn also(mut self, also: &'static [&'static str]) -> Self {
        self.also = also;
        self
    }

    const fn by_hand(mut self, undo: &'static str) -> Self {
        self.cure = Cure::Hand(undo);
        self
    }

    const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }
}

const STACK: &[(&str, &str)] = &[("compose_stack[mut]", "availability")];
const ANALYST: &[(&str, &str)] = &[("user[analyst]", "security")];
const COLLECTOR: &[(&str, &str)] = &[("user[collector]", "security")];
const AGENT: &[(&str, &str)] = &[("copy[/etc/soc/agent.conf]", "config")];
const SECRET: &[(&str, &str)] = &[("secret[/etc/soc/agent.key]", "security")];
const PROBE: &[(&str, &str)] = &[("systemd_unit[probe.service]", "availability")];
const CRON: &[(&str, &str)] = &[("service[cron.service]", "availability")];
const CRON_UNIT: &[(&str, &str)] = &[("service[cron.service]", "security"), ("package[acl*", "security")];
const FIREWALL: &[(&str, &str)] = &[("firewall[inet soc_provision]", "security")];
const MARTIANS: &[(&str, &str)] = &[("sysctl[net.ipv4.conf.all.log_martians]", "security")];
const SSHD: &[(&str, &str)] = &[("sshd_config[/etc/ssh/sshd_config.d/10-soc-provision.conf]", "security")];
const KEYS: &[(&str, &str)] = &[("authorized_key[root: ssh-ed25519 ...3aV7Vw1vYd3d analyst@laptop]", "security")];
const DAEMON: &[(&str, &str)] = &[("docker_daemon[/etc/docker/daemon.json]", "security")];
const PURGE: &[(&str, &str)] = &[("timer[soc-purge]", "availability")];

/// Where the stack's files are.
macro_rules! stack {
    ($code:literal) => {
        concat!("cd /var/lib/soc-provision/stacks/mut && ", $code)
    };
}

/// A file by which code starts by itself.
macro_rules! starts {
    ($dir:literal, $name:literal) => {
        m(
            concat!("a file in ", $dir),
            concat!("mkdir -p ", $dir, " && echo '# x' >", $dir, "/", $name),
            &[(concat!("startup[", $dir, "/", $name, "]"), "security")],
        )
    };
}

/// A drop-in of systemd's.
macro_rules! dropin {
    ($dir:literal) => {
        m(
            concat!("a drop-in in ", $dir),
            concat!("mkdir -p ", $dir, " && printf '[Service]\nNice=1\n' >", $dir, "/evil.conf && systemctl daemon-reload"),
            &[(concat!("systemd_unit[", $dir, "/evil.conf]"), "security")],
        )
    };
}

/// Makes `web` anew from a changed copy of the release's Compose file.
macro_rules! made_from {
    ($edit:literal) => {
        concat!(
            "cd /var/lib/soc-provision/stacks/mut && sed '",
            $edit,
            "' current/compose.yml >/root/evil.yml && docker compose -p mut --project-directory $PWD -f /root/evil.yml up -d --force-recreate --no-deps web && rm /root/evil.yml"
        )
    };
}

/// Makes `web` anew by hand, with the labels of the real one.
macro_rules! made_by_hand {
    ($options:literal) => {
        concat!(
            "l=$(docker inspect -f '{{range $k, $v := .Config.Labels}}{{println (printf \"%s=%s\" $k $v)}}{{end}}' mut-web-1) && printf '%s\\n' \"$l\" | grep = >/root/labels && docker rm -f mut-web-1 && ",
            "docker run -d --name mut-web-1 --label-file /root/labels --user 1000 --read-only --restart unless-stopped --cap-drop ALL --security-opt no-new-privileges:true ",
            "--security-opt seccomp=/etc/soc-provision/seccomp/web.json --tmpfs /tmp:size=4m -p 18080:8080 -e MODE=strict --memory 64m --cpus 0.5 --pids-limit 64 --network mut_front ",
            "-v $(echo /var/lib/soc-provision/stacks/mut/files/*/web.conf):/etc/web.conf:ro ",
            $options,
            " mut-web:1 && docker network connect soc-shared mut-web-1; rm -f /root/labels"
        )
    };
}

/// Every mutation.
pub(super) const MUTATIONS: &[Mutation] = &[
    // Files and directories.
    m("a file is edited", "echo 'server = 203.0.113.9' >>/etc/soc/agent.conf", AGENT),
    m("a file is made writable by all", "chmod 0666 /etc/soc/agent.conf", AGENT),
    m("a file changes its owner", "chown nobody /etc/soc/agent.conf", AGENT),
    m("a file changes its group", "chgrp adm /etc/soc/agent.conf", AGENT),
    m("a file is deleted", "rm /etc/soc/agent.conf", AGENT),
    m("a file is replaced by a link", "cp /etc/soc/agent.conf /var/tmp/a && ln -sfn /var/tmp/a /etc/soc/agent.conf", AGENT),
    m("a file gets the setuid bit", "chmod 4755 /etc/soc/agent.conf", AGENT),
    m("a file is emptied", ": >/etc/soc/agent.conf", AGENT),
    m("a strict file is opened", "chmod 0644 /etc/soc/token.conf", &[("copy[/etc/soc/token.conf]", "config")]),
    m("a notice is edited", "echo hi >>/etc/soc/notice", &[("copy[/etc/soc/notice]", "info")]),
    m("an access list on a file", "setfacl -m u:nobody:rw /etc/soc/agent.conf", AGENT),
    m("an access list on a directory", "setfacl -m u:nobody:rwx /srv/soc", &[("directory[/srv/soc]", "config")]),
    m("an access list for what will be in a directory", "setfacl -d -m u:nobody:rwx /srv/soc", &[("directory[/srv/soc]", "config")]),
    m("a file gets capabilities", "setcap cap_setuid+ep /etc/soc/agent.conf", AGENT),
    m("a file is made immutable", "chattr +i /etc/soc/agent.conf", AGENT),
    m("a file is edited and made immutable", "echo x >>/etc/soc/agent.conf && chattr +i /etc/soc/agent.conf", AGENT),
    m("a directory is made immutable", "chattr +i /srv/soc", &[("directory[/srv/soc]", "config")]),
    m("a directory is replaced by a link", "mv /srv/soc /srv/other && ln -s other /srv/soc", &[("directory[/srv/soc]", "config")])
        .by_hand("rm /srv/soc && mv /srv/other /srv/soc"),
    m("another file is mounted over a file", "echo evil >/var/tmp/b && mount --bind /var/tmp/b /etc/soc/agent.conf", AGENT),
    m("another file is mounted over a secret", "echo evil >/var/tmp/c && mount --bind /var/tmp/c /etc/soc/agent.key", SECRET),
    m("a directory gets the setgid bit", "chmod g+s /srv/soc", &[("directory[/srv/soc]", "config")]),
    m("a link points elsewhere", "ln -sfn /etc/shadow /etc/soc/current", &[("file[/etc/soc/current]", "config")]),
    m("a link becomes a file", "rm /etc/soc/current && echo x >/etc/soc/current", &[("file[/etc/soc/current]", "config")]),
    m("a file that must not be there", "echo x >/srv/soc-old", &[("file[/srv/soc-old]", "config")]),
    m("a line in hosts goes", "sed '/siem.example/d' /etc/hosts >/root/h && cat /root/h >/etc/hosts; rm /root/h", &[("lineinfile[/etc/hosts*", "config")]),
    m(
        "a line in hosts points elsewhere",
        "sed 's/192.0.2.10/203.0.113.66/' /etc/hosts >/root/h && cat /root/h >/etc/hosts; rm /root/h",
        &[("lineinfile[/etc/hosts*", "config")],
    ),
    m("a file that nobody declared", "echo x >/etc/soc/evil.conf", &[("file[/etc/soc/evil.conf]", "config")]),
    m("an immutable file that nobody declared", "echo x >/etc/soc/fixed.conf && chattr +i /etc/soc/fixed.conf", &[("file[/etc/soc/fixed.conf]", "config")]),
    m("a hidden file, deep", "mkdir -p /etc/soc/.a/b && echo x >/etc/soc/.a/b/c", &[("file[/etc/soc/.a/b/c]", "config")])
        .by_hand("rm -rf /etc/soc/.a"),
    m("a directory is made writable by all", "chmod 0777 /etc/soc", &[("directory[/etc/soc]", "config")]),
    m("a directory changes its owner", "chown nobody:nogroup /srv/soc", &[("directory[/srv/soc]", "config")]),
    m("a directory is deleted", "rm -rf /srv/soc", &[("directory[/srv/soc]", "config")]),
    m("a directory becomes a file", "rm -rf /srv/soc && echo x >/srv/soc", &[("directory[/srv/soc]", "config")])
        .by_hand("rm -f /srv/soc && install -d -m 0750 -g adm /srv/soc"),
    // Secrets.
    m("a secret is edited", "echo x >>/etc/soc/agent.key", SECRET),
    m("a secret is opened", "chmod 0444 /etc/soc/agent.key", SECRET),
    m("a secret changes its owner", "chown nobody /etc/soc/agent.key", SECRET),
    m("a secret is deleted", "rm /etc/soc/agent.key", SECRET),
    m("a secret is replaced by a link", "mv /etc/soc/agent.key /var/tmp/k && ln -s /var/tmp/k /etc/soc/agent.key && chown -h root /etc/soc/agent.key", SECRET),
    m("a secret is readable by an access list", "setfacl -m u:nobody:r /etc/soc/agent.key", SECRET),
    m("a secret has another name", "ln /etc/soc/agent.key /var/tmp/k2", SECRET),
    // Packages.
    m("a held package is released", "apt-mark unhold less", &[("package[less]", "config")]),
    m("a package is removed", "apt-get -y --allow-change-held-packages remove less", &[("package[less]", "config")]),
    m(
        "a held package is replaced by another version",
        "mkdir -p /root/p/DEBIAN && printf 'Package: less\\nVersion: 600-1\\nArchitecture: all\\nMaintainer: x <x@example>\\nDescription: x\\n' >/root/p/DEBIAN/control && dpkg-deb -b /root/p /root/p.deb && dpkg -i --force-downgrade --force-hold /root/p.deb && rm -r /root/p /root/p.deb",
        &[("package[less]", "config")],
    ),
    m("a packaged program is replaced", "cat /usr/bin/true >/usr/bin/less", &[("package[less]", "security")]),
    m("a packaged program is altered and made immutable", "echo >>/usr/bin/lesspipe && chattr +i /usr/bin/lesspipe", &[("package[less]", "security")]),
    m(
        "a packaged program is diverted, and another in its place",
        "dpkg-divert --quiet --local --rename --add /usr/bin/lesspipe && printf '#!/bin/sh\\n' >/usr/bin/lesspipe && chmod 755 /usr/bin/lesspipe",
        &[("package[less]", "security")],
    ),
    m("a packaged program is deleted", "rm /usr/sbin/e2label", &[("package[acl*", "security")]),
    m("a forbidden package is installed", "apt-get -y install tree", &[("package[tree]", "config")]),
    // Services and units.
    m("a service is stopped", "systemctl stop cron", CRON),
    m("a service is disabled", "systemctl disable cron", CRON),
    m("a service is masked", "systemctl mask cron", CRON),
    m("a service is masked until the next boot", "systemctl mask --runtime cron", CRON),
    m("a unit file changes and systemd has not read it", "echo '# x' >>/usr/lib/systemd/system/cron.service", CRON_UNIT)
        .by_hand("sed -i '$d' /usr/lib/systemd/system/cron.service && systemctl daemon-reload")
        // Others make systemd read its files.
        .alone(),
    m("a packaged unit file is altered and read", "sed -i 's/^Description=.*/Description=x/' /usr/lib/systemd/system/cron.service && systemctl daemon-reload", CRON_UNIT).alone(),
    dropin!("/usr/lib/systemd/system/cron.service.d"),
    dropin!("/etc/systemd/system/service.d"),
    m(
        "a drop-in changes what a service runs",
        "mkdir -p /etc/systemd/system/cron.service.d && printf '[Service]\\nExecStartPost=/bin/true\\n' >/etc/systemd/system/cron.service.d/evil.conf && systemctl daemon-reload && systemctl restart cron",
        &[("systemd_unit[/etc/systemd/system/cron.service.d/evil.conf]", "security")],
    ),
    m(
        "a drop-in that is gone after a reboot",
        "mkdir -p /run/systemd/system/cron.service.d && printf '[Service]\\nExecStartPost=/bin/true\\n' >/run/systemd/system/cron.service.d/evil.conf && systemctl daemon-reload",
        &[("systemd_unit[/run/systemd/system/cron.service.d/evil.conf]", "security")],
    ),
    m(
        "a drop-in of our own unit",
        "mkdir -p /etc/systemd/system/probe.service.d && printf '[Service]\\nEnvironment=LD_PRELOAD=/x.so\\n' >/etc/systemd/system/probe.service.d/evil.conf && systemctl daemon-reload",
        &[("systemd_unit[/etc/systemd/system/probe.service.d/evil.conf]", "security")],
    ),
    m(
        "a drop-in of Docker's",
        "mkdir -p /run/systemd/system/docker.service.d && printf '[Service]\\nEnvironment=HTTPS_PROXY=http://203.0.113.9:3128\\n' >/run/systemd/system/docker.service.d/proxy.conf && systemctl daemon-reload",
        &[("systemd_unit[/run/systemd/system/docker.service.d/proxy.conf]", "security")],
    )
    .alone(),
    m(
        "a property is set that outlives reboots",
        "systemctl set-property cron.service CPUWeight=10",
        &[("systemd_unit[/etc/systemd/system.control/cron.service.d/50-CPUWeight.conf]", "security")],
    ),
    m("our unit is edited", "sed -i 's/infinity/1d/' /etc/systemd/system/probe.service", PROBE),
    m("our unit is edited, read and restarted", "sed -i 's/infinity/1d/' /etc/systemd/system/probe.service && systemctl daemon-reload && systemctl restart probe", PROBE),
    m("our unit is stopped", "systemctl stop probe", PROBE),
    m("our unit is disabled", "systemctl disable probe", PROBE),
    m("our unit is deleted", "systemctl stop probe; rm /etc/systemd/system/probe.service; systemctl daemon-reload", PROBE),
    m("our unit is masked", "systemctl stop probe; ln -sfn /dev/null /etc/systemd/system/probe.service; systemctl daemon-reload", PROBE),
    m(
        "a unit that nobody declared",
        "printf '[Unit]\\nDescription=x\\n[Service]\\nExecStart=/usr/bin/sleep 9999\\n[Install]\\nWantedBy=multi-user.target\\n' >/etc/systemd/system/evil.service && systemctl daemon-reload && systemctl enable --now evil",
        &[("systemd_unit[/etc/systemd/system/evil.service]", "security")],
    ),
    m(
        "a unit among those of packages",
        "printf '[Unit]\\nDescription=x\\n[Service]\\nExecStart=/usr/bin/sleep 9998\\n' >/usr/lib/systemd/system/evil4.service && systemctl daemon-reload && systemctl start evil4",
        &[("systemd_unit[/usr/lib/systemd/system/evil4.service]", "security")],
    ),
    m(
        "a generator of units",
        "mkdir -p /etc/systemd/system-generators && printf '#!/bin/sh\\n' >/etc/systemd/system-generators/evil && chmod 0755 /etc/systemd/system-generators/evil",
        &[("startup[/etc/systemd/system-generators/evil]", "security")],
    ),
    m("a unit failed", "systemd-run --unit=boom /bin/false; sleep 0.5; :", &[("failed_unit[boom.service]", "availability")])
        .by_hand("systemctl reset-failed boom.service"),
    // The kernel, the name, the boot.
    m("a kernel setting changes at run time", "echo 0 >/proc/sys/net/ipv4/conf/all/log_martians", MARTIANS),
    m("a kernel setting changes on disk", "sed -i 's/= 1/= 0/' /etc/sysctl.d/60-soc-provision-net.ipv4.conf.all.log_martians.conf", MARTIANS),
    m("a kernel setting's file is deleted", "rm /etc/sysctl.d/60-soc-provision-net.ipv4.conf.all.log_martians.conf", MARTIANS),
    m("another file of kernel settings wins at boot", "echo 'net.ipv4.conf.all.log_martians = 0' >/etc/sysctl.d/99-evil.conf", &[("file[/etc/sysctl.d/99-evil.conf]", "security"), ("sysctl[net.ipv4.conf.all.log_martians]", "security")]),
    m("a file of kernel settings elsewhere wins at boot", "mkdir -p /run/sysctl.d && echo 'net/ipv4/conf/all/log_martians=0' >/run/sysctl.d/99-evil.conf", MARTIANS),
    m("the host is renamed", "printf evil >/proc/sys/kernel/hostname", &[("hostname[soc-h1]", "config")]),
    m("the host is renamed for the next boot", "echo evil >/etc/hostname", &[("hostname[soc-h1]", "config")]),
    m("a reboot is due", "echo linux-image >/run/reboot-required.pkgs; touch /run/reboot-required", &[("host[reboot]", "availability")])
        .by_hand("rm -f /run/reboot-required /run/reboot-required.pkgs"),
    // Users and groups.
    m("a user is added", "useradd -m -s /bin/bash eve && echo 'eve:x-x-x-x' | chpasswd", &[("user[eve]", "security")]),
    m("a second root", "useradd -o -u 0 -g 0 -M -d /root -s /bin/bash toor", &[("user[toor]", "security")]).also(&["authorized_key[toor: *"]),
    m("a user's shell changes", "usermod -s /bin/sh analyst", ANALYST),
    m("a service user gets a shell", "usermod -s /bin/bash collector", COLLECTOR),
    m("a system account gets a shell", "usermod -s /bin/bash games", &[("user[games]", "security")]),
    m("a user is locked", "usermod -L analyst", ANALYST),
    m("a user's account ends", "usermod -e 2020-01-02 analyst", ANALYST),
    m("a service user's account ends", "chage -E 0 collector", COLLECTOR),
    m("root gets a password", "echo 'root:another-pw' | chpasswd", &[("user[root]", "security")]),
    m("a user's password changes", "echo 'analyst:another-pw' | chpasswd", ANALYST),
    m("a user's password is taken away", "passwd -d analyst", ANALYST),
    m("a user joins docker's group", "gpasswd -a analyst docker", &[("group_member[docker: analyst]", "security")]),
    m("a user joins a group that is not declared", "gpasswd -a collector games", COLLECTOR),
    m("a user leaves a group", "gpasswd -d analyst adm", ANALYST),
    m("a service user gets a password", "echo 'collector:another-pw' | chpasswd", COLLECTOR),
    m("a user's first group is docker's", "usermod -g docker analyst", &[("group_member[docker: analyst]", "security")]).by_hand("usermod -g analyst analyst"),
    m("accounts may be written by all", "chmod 0666 /etc/passwd", &[("account_file[/etc/passwd]", "security")]).by_hand("chmod 0644 /etc/passwd"),
    m("hashes may be read by all", "chmod 0644 /etc/shadow", &[("account_file[/etc/shadow]", "security")]).by_hand("chmod 0640 /etc/shadow"),
    m("a user is deleted", "userdel collector", COLLECTOR),
    m("a group's number changes", "groupmod -g 3333 soc", &[("group[soc]", "config")]),
    m("a user's number changes", "usermod -u 3999 analyst", ANALYST),
    // Keys, sudo, sshd.
    m(
        "a key is added for a user",
        "echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEvilEvilEvilEvilEvilEvilEvilEvilEvilEvilEvi evil@x' >>/home/analyst/.ssh/authorized_keys",
        &[("authorized_key[analyst: ...lEvilEvilEvi evil@x]", "security")],
    ),
    m(
        "a key is added for root",
        "echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIRootRootRootRootRootRootRootRootRootRootRoo' >>/root/.ssh/authorized_keys",
        &[("authorized_key[root: ...tRootRootRoo]", "security")],
    ),
    m(
        "a key in another file",
        "install -o analyst -g analyst -m 0600 /dev/null /home/analyst/.ssh/authorized_keys2 && echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAITwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTwoTwo' >/home/analyst/.ssh/authorized_keys2",
        &[("authorized_key[analyst: ...TwoTwoTwoTwo]", "security")],
    ),
    // sshd refuses the keys in it: the suite itself logs in by them.
    m("keys may be written by all", "chmod 0666 /root/.ssh/authorized_keys", KEYS).alone(),
    m("sshd's arguments are edited", "echo 'SSHD_OPTS=-oPermitRootLogin=yes' >>/etc/default/ssh", &[("package_config[/etc/default/ssh]", "config")]),
    m("a key is removed", "sed -i /analyst@laptop/d /root/.ssh/authorized_keys", KEYS),
    m("a key's options change", "sed -i 's/^restrict //' /root/.ssh/authorized_keys", KEYS),
    m("a sudo rule is edited", "chmod u+w /etc/sudoers.d/soc && echo '%soc ALL=(ALL) NOPASSWD: ALL' >>/etc/sudoers.d/soc && chmod u-w /etc/sudoers.d/soc", &[("sudoers[/etc/sudoers.d/soc]", "security")]),
    m("a sudo rule's file is opened", "chmod 0444 /etc/sudoers.d/soc", &[("sudoers[/etc/sudoers.d/soc]", "security")]),
    m("a sudo rule is added", "echo 'nobody ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/evil && chmod 0440 /etc/sudoers.d/evil", &[("sudoers[/etc/sudoers.d/evil]", "security")]),
    m(
        "sudoers itself is edited",
        "echo 'nobody ALL=(ALL) NOPASSWD: ALL' >>/etc/sudoers",
        &[("sudoers[/etc/sudoers]", "security"), ("package_config[/etc/sudoers]", "security")],
    ),
    m("a sudo rule is made immutable", "chattr +i /etc/sudoers.d/soc", &[("sudoers[/etc/sudoers.d/soc]", "security")]),
    m(
        "sudoers includes another directory",
        "mkdir -p /var/tmp/s && echo 'nobody ALL=(ALL) NOPASSWD: ALL' >/var/tmp/s/x && chmod 0440 /var/tmp/s/x && echo '@includedir /var/tmp/s' >>/etc/sudoers",
        &[("sudoers[/etc/sudoers]", "security"), ("package_config[/etc/sudoers]", "security")],
    ),
    m("sshd's options are edited", "sed -i 's/MaxAuthTries 4/MaxAuthTries 40/' /etc/ssh/sshd_config.d/10-soc-provision.conf && systemctl reload ssh", SSHD),
    m("sshd's options are deleted", "rm /etc/ssh/sshd_config.d/10-soc-provision.conf && systemctl reload ssh", SSHD),
    m(
        "a drop-in of sshd wins over ours",
        "echo 'PermitRootLogin yes' >/etc/ssh/sshd_config.d/00-evil.conf && systemctl reload ssh",
        &[("file[/etc/ssh/sshd_config.d/00-evil.conf]", "security"), ("sshd_config[/etc/ssh/sshd_config.d/10-soc-provision.conf]", "security")],
    ),
    m(
        "sshd's main file gets a match block",
        "printf 'Match User nobody\\n  PermitRootLogin yes\\n' >>/etc/ssh/sshd_config",
        &[("package_config[/etc/ssh/sshd_config]", "security")],
    ),
    // Cron and timers.
    m("a job in cron.d", "echo '* * * * * root /bin/true' >/etc/cron.d/evil", &[("cron[/etc/cron.d/evil]", "security")]),
    m("a user's crontab", "echo '* * * * * /bin/true' | crontab -u analyst -", &[("cron[/var/spool/cron/crontabs/analyst]", "security")]),
    m("root's crontab", "echo '* * * * * /bin/true' | crontab -", &[("cron[/var/spool/cron/crontabs/root]", "security")]),
    m("a daily job", "printf '#!/bin/sh\\n' >/etc/cron.daily/evil && chmod 0755 /etc/cron.daily/evil", &[("cron[/etc/cron.daily/evil]", "security")]),
    m(
        "crontab itself is edited",
        "echo '* * * * * root /bin/true' >>/etc/crontab",
        &[("cron[/etc/crontab]", "security"), ("package_config[/etc/crontab]", "security")],
    ),
    m("an hourly job that is a link", "ln -s /bin/true /etc/cron.hourly/evil", &[("cron[/etc/cron.hourly/evil]", "security")]),
    m("our job is edited", "sed -i 's,/bin/true,/bin/false,' /etc/cron.d/soc-rotate", &[("cron[soc-rotate]", "config")]),
    m("our job is deleted", "rm /etc/cron.d/soc-rotate", &[("cron[soc-rotate]", "config")]),
    m(
        "a timer that nobody declared",
        "printf '[Timer]\\nOnCalendar=daily\\n[Install]\\nWantedBy=timers.target\\n' >/etc/systemd/system/evil2.timer; printf '[Service]\\nExecStart=/bin/true\\n' >/etc/systemd/system/evil2.service; systemctl daemon-reload; systemctl enable --now evil2.timer",
        &[("timer[/etc/systemd/system/evil2.timer]", "security"), ("systemd_unit[/etc/systemd/system/evil2.service]", "security")],
    ),
    m("a timer that is gone after a reboot", "systemd-run --unit=evil3 --on-calendar=daily /bin/true", &[("timer[/run/systemd/transient/evil3.timer]", "security")]),
    m(
        "a user's own timer",
        "install -d -o analyst -g analyst /home/analyst/.config /home/analyst/.config/systemd /home/analyst/.config/systemd/user; printf '[Timer]\\nOnCalendar=daily\\n' >/home/analyst/.config/systemd/user/evil.timer",
        &[("timer[/home/analyst/.config/systemd/user/evil.timer]", "security")],
    )
    .by_hand("rm -rf /home/analyst/.config"),
    m("our timer is edited", "sed -i 's/03:10/04:10/' /etc/systemd/system/soc-purge.timer && systemctl daemon-reload", PURGE),
    m("our timer is disabled", "systemctl disable soc-purge.timer", PURGE),
    m("our timer is stopped", "systemctl stop soc-purge.timer", PURGE),
    m("what our timer runs is edited", "sed -i 's,/bin/true,/bin/false,' /etc/systemd/system/soc-purge.service", PURGE),
    // Firewall.
    m("a rule is added to our table", "nft insert rule inet soc_provision input tcp dport 4444 accept", FIREWALL),
    m("a chain of our table is emptied", "nft flush chain inet soc_provision forward", FIREWALL),
    m("our table lets in what no rule names", "nft chain inet soc_provision input '{ policy accept; }'", FIREWALL),
    m("a rule in a table of Docker's", "iptables -I DOCKER-USER -p tcp --dport 1 -j ACCEPT", &[("nft_rule[ip filter DOCKER-USER*", "security")])
        .by_hand("iptables -D DOCKER-USER -p tcp --dport 1 -j ACCEPT"),
    m(
        "a published port leads elsewhere",
        "iptables -t nat -I PREROUTING -p tcp --dport 18080 -j REDIRECT --to-ports 4444",
        &[("nft_rule[ip nat PREROUTING*", "security")],
    )
    .by_hand("iptables -t nat -D PREROUTING -p tcp --dport 18080 -j REDIRECT --to-ports 4444"),
    m("our table is deleted", "nft delete table inet soc_provision", FIREWALL),
    m("a table that nobody declared", "nft add table inet evil && nft add chain inet evil c '{ type filter hook input priority -300 ; }'", &[("nft_table[inet evil]", "security")]),
    m("the rules for the next boot are edited", "echo '# x' >>/etc/soc-provision/firewall.nft", FIREWALL),
    m("the rules are not loaded at the next boot", "systemctl disable soc-provision-firewall", FIREWALL),
    // What starts by itself, what runs as root, where packages come from.
    m("a setuid shell", "cp /bin/dash /usr/local/bin/x && chmod 4755 /usr/local/bin/x", &[("setuid[/usr/local/bin/x]", "security")]),
    m("a packaged program gets the setuid bit", "chmod u+s /usr/bin/find", &[("setuid[/usr/bin/find]", "security")]),
    m("a packaged program gets capabilities", "setcap cap_setuid+ep /usr/bin/xargs", &[("setuid[/usr/bin/xargs]", "security")]),
    m("a program with capabilities", "cp /bin/dash /usr/local/bin/y && setcap cap_dac_override+ep /usr/local/bin/y", &[("setuid[/usr/local/bin/y]", "security")]),
    m("a library in every process", "echo libm.so.6 >/etc/ld.so.preload", &[("startup[/etc/ld.so.preload]", "security")]),
    m("a profile for every login", "echo : >/etc/profile.d/evil.sh", &[("startup[/etc/profile.d/evil.sh]", "security")]),
    starts!("/root/.ssh", "rc"),
    starts!("/etc/systemd/system.conf.d", "evil.conf"),
    starts!("/usr/lib/systemd/system-generators", "evil"),
    starts!("/usr/lib/systemd/system-shutdown", "evil"),
    starts!("/run/udev/rules.d", "99-evil.rules"),
    starts!("/usr/lib/udev/rules.d", "99-evil.rules"),
    starts!("/usr/lib/tmpfiles.d", "evil.conf"),
    starts!("/run/modprobe.d", "evil.conf"),
    starts!("/etc/dbus-1/system.d", "evil.conf"),
    m("the environment of every login", "cp -p /etc/environment /root/e; echo LD_PRELOAD=/x.so >>/etc/environment", &[("startup[/etc/environment]", "security")])
        .by_hand("cp -p /root/e /etc/environment; rm /root/e"),
    m("the profile of every login is edited", "echo : >>/etc/profile", &[("startup[/etc/profile]", "security")]).by_hand("sed -i '$d' /etc/profile"),
    m("PAM lets everybody in", "sed -i '1i auth sufficient pam_permit.so' /etc/pam.d/common-auth", &[("startup[/etc/pam.d/common-auth]", "security")])
        .by_hand("sed -i 1d /etc/pam.d/common-auth"),
    m("PAM is edited", "echo 'auth sufficient pam_permit.so' >>/etc/pam.d/su", &[("package_config[/etc/pam.d/su]", "security")]),
    m("a source of packages", "echo 'deb [trusted=yes] http://203.0.113.9/ x main' >/etc/apt/sources.list.d/evil.list", &[("repository[/etc/apt/sources.list.d/evil.list]", "security")]),
    m("a hook of apt", "echo 'DPkg::Post-Invoke {\"true\";};' >/etc/apt/apt.conf.d/99evil", &[("repository[/etc/apt/apt.conf.d/99evil]", "security")]),
    m("a port that nobody declared", "systemd-run --unit=lst busybox nc -l -p 4444; sleep 0.5", &[("port[4444/tcp]", "security")]).by_hand("systemctl stop lst"),
    m("a UDP port on IPv6", "systemd-run --unit=lsu systemd-socket-activate -d -l '[::]:5555' /bin/true; sleep 0.5", &[("port[5555/udp]", "security")])
        .by_hand("systemctl stop lsu"),
    // Docker's daemon.
    m("daemon.json is edited", "sed -i 's/10m/99m/' /etc/docker/daemon.json", DAEMON),
    m("the daemon's socket is open to all", "chmod 0666 /run/docker.sock", DAEMON).also(&["compose_stack[mut]"]),
    m("the daemon does not start at boot", "systemctl disable docker.service docker.socket", DAEMON).also(&["compose_stack[mut]"]),
    m("daemon.json is deleted", "rm /etc/docker/daemon.json", DAEMON),
    m(
        "the daemon runs with another configuration",
        "cp -p /etc/docker/daemon.json /root/d && sed -i 's/\"live-restore\": true/\"live-restore\": false/' /etc/docker/daemon.json && systemctl reload docker && sleep 1 && cp -p /root/d /etc/docker/daemon.json && rm /root/d",
        DAEMON,
    ),
    m(
        "the daemon listens on the network",
        "mkdir -p /etc/systemd/system/docker.service.d && printf '[Service]\\nExecStart=\\nExecStart=/usr/sbin/dockerd -H fd:// -H tcp://0.0.0.0:2375\\n' >/etc/systemd/system/docker.service.d/evil.conf && systemctl daemon-reload && systemctl restart docker",
        &[("systemd_unit[/etc/systemd/system/docker.service.d/evil.conf]", "security"), ("port[2375/tcp]", "security")],
    )
    .alone(),
    m("the daemon is stopped", "systemctl stop docker.socket docker.service", DAEMON)
        .also(&["compose_stack[mut]", "docker_image[*", "docker_network[*", "docker_volume[*", "docker_engine*", "service[*", "port[*"])
        .alone(),
    // Containers and what belongs to them.
    m("a container is stopped", "docker stop -t 1 mut-web-1", STACK),
    m("a container is killed", "docker kill mut-db-1", STACK),
    m("a container is paused", "docker pause mut-db-1", STACK),
    m("a container is removed", "docker rm -f mut-db-1", STACK),
    m("a container is renamed", "docker rename mut-db-1 hidden", STACK),
    m("a container is replaced by another", "docker rm -f mut-web-1; docker run -d --name mut-web-1 mut-web:1", STACK).also(&["container[mut-web-1]"]),
    m("more memory", "docker update --memory 128m --memory-swap 256m mut-web-1", STACK),
    m("more processors", "docker update --cpus 2 mut-web-1", STACK),
    m("more processes", "docker update --pids-limit 4000 mut-web-1", STACK),
    m("other processors", "docker update --cpuset-cpus 0 mut-web-1", STACK),
    m("a share of the processors", "docker update --cpu-shares 2 mut-web-1", STACK),
    m(
        "a volume leads to the host's files",
        "docker rm -f mut-db-1 && docker volume rm soc-data && docker volume create -o type=none -o o=bind -o device=/etc soc-data",
        &[("docker_volume[soc-data]", "config")],
    )
    .also(&["compose_stack[mut]"])
    .by_hand("docker volume rm soc-data && docker volume create soc-data")
    .alone(),
    m("another restart policy", "docker update --restart no mut-web-1", STACK),
    m("a network is taken away", "docker network disconnect mut_front mut-web-1", STACK),
    m("a network is added", "docker network connect bridge mut-db-1", STACK),
    m("a container that nobody declared", "docker run -d --name evil mut-web:1", &[("container[evil]", "security")]),
    m("a privileged container that nobody declared", "docker run -d --privileged -v /:/host --name evil2 mut-web:1", &[("container[evil2]", "security")]),
    m("a container in the stack's name", "docker run -d --name mut-evil-1 -l com.docker.compose.project=mut -l com.docker.compose.service=evil mut-web:1", STACK),
    m(
        "a container that claims to be a job of the stack",
        "docker run -d --privileged -v /:/host --name evil3 -l com.docker.compose.project=mut -l com.docker.compose.service=web -l com.docker.compose.oneoff=True mut-web:1",
        &[("container[evil3]", "security")],
    ),
    m("a network that nobody declared", "docker network create --subnet 172.31.253.0/28 evilnet", &[("docker_network[evilnet]", "config")]),
    m("a volume that nobody declared", "docker volume create evilvol", &[("docker_volume[evilvol]", "config")]),
    m("a network with a stack's label", "docker network create --label com.docker.compose.project=mut --subnet 172.31.249.0/28 evilnet2", &[("docker_network[evilnet2]", "config")]),
    m("a volume with a stack's label", "docker volume create --label com.docker.compose.project=mut evilvol2", &[("docker_volume[evilvol2]", "config")]),
    m("an account whose home has a blank", "useradd -M -d '/home/e ve' -s /bin/bash eve2", &[("user[eve2]", "security")]),
    m("the tool's own state is open to all", "chmod 0777 /var/lib/soc-provision", &[("tool_state[/var/lib/soc-provision]", "security")]),
    m("an image's tag moves", "docker tag mut-db:1 mut-web:1", &[("docker_image[mut-web:1]", "config")]).also(&["compose_stack[mut]"]),
    m("a file is written into a read-only container", "echo x >$(docker inspect -f '{{.GraphDriver.Data.MergedDir}}' mut-web-1)/evil", STACK),
    m("a program is put into a container", "docker exec -u 0 mut-db-1 /bin/busybox cp /bin/busybox /bin/evil", STACK),
    m("a mounted file is edited in place", stack!("for f in files/*/web.conf; do echo 'mode = lax' >>$f; done"), STACK),
    m("a mounted file is replaced", stack!("for f in files/*/web.conf; do sed s/strict/lax/ $f >$f.x && chmod --reference=$f $f.x && mv $f.x $f; done"), STACK),
    m("an inline configuration is edited", stack!("for f in files/*/tuning; do chmod u+w $f; echo x >>$f; done"), STACK),
    m("a stack's secret is edited", stack!("for f in secrets/*/token; do echo x >>$f; done"), STACK),
    m("a stack's secret is opened", stack!("chmod 0444 secrets/*/token"), STACK),
    m("a stack's secret changes its owner", stack!("chown 0 secrets/*/token"), STACK),
    m("the Compose file on the host is edited", stack!("sed -i 's/64M/640M/' current/compose.yml"), STACK),
    m("`current` points elsewhere", stack!("cp -a releases/$(basename $(readlink current)) releases/0000000000000000 && ln -sfn releases/0000000000000000 current"), STACK)
        .by_hand(stack!("r=$(ls releases | grep -v ^00000 | head -n 1) && ln -sfn releases/$r current && rm -rf releases/0000000000000000")),
    m(
        "a seccomp profile is edited",
        "sed -i 's/\"SCMP_ACT_ERRNO\"/\"SCMP_ACT_ALLOW\"/' /etc/soc-provision/seccomp/web.json",
        &[("seccomp_profile[web]", "security")],
    )
    .also(&["compose_stack[mut]"]),
    m("made anew with another environment", made_from!("s/\"strict\"/\"lax\"/"), STACK),
    m("made anew with one more port", made_from!("s/\"18080:8080\"/\"18080:8080\", \"18081:8080\"/"), STACK).also(&["port[18081/tcp]"]),
    m("made anew without limits", made_from!("s/\"memory\": \"64M\"/\"memory\": \"999M\"/"), STACK),
    m("made by hand, privileged", made_by_hand!("--privileged"), STACK),
    m("made by hand, with a capability", made_by_hand!("--cap-add SYS_ADMIN"), STACK),
    m("made by hand, with the host's processes", made_by_hand!("--pid host"), STACK),
    m("made by hand, with the host's files", made_by_hand!("-v /:/host"), STACK),
    m("made by hand, without a filter of system calls", made_by_hand!("--security-opt seccomp=unconfined"), STACK),
    m("made by hand, with another variable", made_by_hand!("-e LD_PRELOAD=/x.so"), STACK),
    m("made by hand, as root", made_by_hand!("-u 0"), STACK),
    m("made by hand, with all of /proc and /sys", made_by_hand!("--security-opt systempaths=unconfined"), STACK),
    m("made by hand, with the name of another service", made_by_hand!("--network-alias db"), STACK),
    m("made by hand, with another address for a name", made_by_hand!("--add-host siem.example:203.0.113.9"), STACK),
    m("made by hand, with access to devices", made_by_hand!("--device-cgroup-rule 'b *:* rwm'"), STACK),
    m("made by hand, without a health check", made_by_hand!("--no-healthcheck"), STACK),
    m("a part of a second for the processors", "docker update --cpu-quota 2000 mut-db-1", STACK),
];
