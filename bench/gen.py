#!/usr/bin/env python3
"""gen.py OUTDIR - writes the reference workload W (50 tasks a host) for every peer.

W: 2 groups + 3 users, 5 directories, 20 templated files (content + mode + owner), 5 lines in a
sysctl-like file, 10 packages that are already installed, 5 commands with `creates`.
Host variable: host_id. Output: ansible.yml, templates/app.conf.j2, pyinfra_w.py, w.sh (naive sh),
wb.sh (batched sh) and expected.py (what a host must look like after a run, see verify.sh)."""
import os, sys
out = sys.argv[1]; os.makedirs(out + "/templates", exist_ok=True)
GROUPS = ["wgrp0", "wgrp1"]; USERS = ["wusr0", "wusr1", "wusr2"]
DIRS = [("/etc/w", "0755", "root", "root"), ("/etc/w/d0", "0755", "root", "wgrp0"), ("/etc/w/d1", "0750", "wusr0", "wgrp0"),
        ("/var/lib/w", "0755", "root", "root"), ("/var/log/w", "0770", "wusr1", "wgrp1")]
FILES = [("/etc/w/d%d/f%02d.conf" % (i % 2, i), "0640" if i % 2 else "0644", "wusr%d" % (i % 3), "wgrp%d" % (i % 2), i) for i in range(20)]
LINES = [("net.w.k%d" % i, "net.w.k%d = %d" % (i, i * 10 + 1)) for i in range(5)]
PKGS = ["openssh-server", "python3", "sudo", "procps", "iproute2", "cron", "rsync", "curl", "logrotate", "nftables"]
CMDS = [("echo ready > /var/lib/w/c%d" % i, "/var/lib/w/c%d" % i) for i in range(5)]
TPL = ("# managed file {{ idx }} of host {{ host_id }}\n" + "".join("option_%02d = value-%02d-{{ host_id }}-{{ idx }}\n" % (k, k * 7) for k in range(20)))

y = ["- hosts: sb", "  tasks:"]
def t(title, mod, **kw):
    y.append("    - name: %s" % title); y.append("      %s:" % mod)
    y.extend("        %s: %s" % (k, v) for k, v in kw.items())
for g in GROUPS: t("group " + g, "ansible.builtin.group", name=g, state="present")
for u in USERS: t("user " + u, "ansible.builtin.user", name=u, state="present", shell="/bin/sh", home="/home/" + u)
for p, m, o, g in DIRS: t("dir " + p, "ansible.builtin.file", path=p, state="directory", mode="'%s'" % m, owner=o, group=g)
for p, m, o, g, i in FILES:
    t("file " + p, "ansible.builtin.template", src="templates/app.conf.j2", dest=p, mode="'%s'" % m, owner=o, group=g)
    y.append("      vars: {idx: %d}" % i)
for k, l in LINES: t("line " + k, "ansible.builtin.lineinfile", path="/etc/sysctl.d/90-w.conf", create="true", regexp="'^%s\\s*='" % k.replace(".", "\\."), line="'%s'" % l)
for p in PKGS: t("package " + p, "ansible.builtin.apt", name=p, state="present")
for c, f in CMDS: t("command " + f, "ansible.builtin.shell", cmd="'%s'" % c, creates=f)
open(out + "/ansible.yml", "w").write("\n".join(y) + "\n"); open(out + "/templates/app.conf.j2", "w").write(TPL)

p = ["from pyinfra import host", "from pyinfra.facts.files import File", "from pyinfra.operations import apt, files, server", ""]
for g in GROUPS: p.append("server.group(name='group %s', group='%s')" % (g, g))
for u in USERS: p.append("server.user(name='user %s', user='%s', shell='/bin/sh', home='/home/%s', ensure_home=True)" % (u, u, u))
for d, m, o, g in DIRS: p.append("files.directory(name='dir %s', path='%s', mode='%s', user='%s', group='%s')" % (d, d, m[1:], o, g))
for f, m, o, g, i in FILES: p.append("files.template(name='file %s', src='templates/app.conf.j2', dest='%s', mode='%s', user='%s', group='%s', idx=%d, host_id=host.data.host_id)" % (f, f, m[1:], o, g, i))
for k, l in LINES: p.append("files.line(name='line %s', path='/etc/sysctl.d/90-w.conf', line=r'^%s\\s*=.*', replace='%s')" % (k, k.replace(".", "\\."), l))
for q in PKGS: p.append("apt.packages(name='package %s', packages=['%s'])" % (q, q))
for c, f in CMDS: p.append("if not host.get_fact(File, path='%s'):\n    server.shell(name='command %s', commands=['%s'])" % (f, f, c))
open(out + "/pyinfra_w.py", "w").write("\n".join(p) + "\n")

soc = out + "/soc"; os.makedirs(soc + "/playbooks", exist_ok=True); os.makedirs(soc + "/roles/w/tasks", exist_ok=True); os.makedirs(soc + "/roles/w/templates", exist_ok=True)
open(soc + "/playbooks/w.yml", "w").write("- hosts: sb\n  roles: [w]\n"); open(soc + "/roles/w/templates/app.conf", "w").write(TPL)
z = []
for g in GROUPS: z.append("- group: {name: %s}" % g)
for u in USERS: z.append("- user: {name: %s, shell: /bin/sh, home: /home/%s}" % (u, u))
for d, m, o, g in DIRS: z.append("- directory: {path: %s, mode: '%s', owner: %s, group: %s}" % (d, m, o, g))
for f, m, o, g, i in FILES: z.append("- template: {src: app.conf, dest: %s, mode: '%s', owner: %s, group: %s}\n  vars: {idx: %d}" % (f, m, o, g, i))
for k, l in LINES: z.append("- lineinfile: {path: /etc/sysctl.d/90-w.conf, create: true, regexp: '^%s\\s*=', line: '%s'}" % (k.replace(".", "\\."), l))
for q in PKGS: z.append("- package: {name: %s}" % q)
for c, f in CMDS: z.append("- command: {cmd: '%s', creates: %s}" % (c, f))
open(soc + "/roles/w/tasks/main.yml", "w").write("\n".join(z) + "\n")

def body(i): return TPL.replace("{{ idx }}", str(i)).replace("{{ host_id }}", "$H")
s = ["H=$1 C=0"]  # naive: every check on its own, external commands where a person would use them
for g in GROUPS: s.append("getent group %s >/dev/null || { groupadd %s; C=$((C+1)); }" % (g, g))
for u in USERS: s.append("getent passwd %s >/dev/null || { useradd -m -s /bin/sh %s; C=$((C+1)); }" % (u, u))
s.append('own() { [ "$(stat -c "%a %U %G" $1)" = "$2 $3 $4" ] || { chown $3:$4 $1; chmod $2 $1; C=$((C+1)); }; }')
for d, m, o, g in DIRS: s.append("[ -d %s ] || { mkdir %s; C=$((C+1)); }; own %s %s %s %s" % (d, d, d, m[1:], o, g))
s.append('put() { cat >$1.new; if cmp -s $1.new $1; then rm $1.new; else chown $3:$4 $1.new; chmod $2 $1.new; mv $1.new $1; C=$((C+1)); fi; own $1 $2 $3 $4; }')
for f, m, o, g, i in FILES: s.append("put %s %s %s %s <<E\n%sE" % (f, m[1:], o, g, body(i)))
for k, l in LINES: s.append("grep -qx '%s' /etc/sysctl.d/90-w.conf 2>/dev/null || { echo '%s' >>/etc/sysctl.d/90-w.conf; C=$((C+1)); }" % (l, l))
for q in PKGS: s.append("[ \"$(dpkg-query -W -f='${Status}' %s 2>/dev/null)\" = 'install ok installed' ] || { apt-get -y install %s; C=$((C+1)); }" % (q, q))
for c, f in CMDS: s.append("[ -e %s ] || { %s; C=$((C+1)); }" % (f, c))
s.append('echo "changed=$C"'); open(out + "/w.sh", "w").write("\n".join(s) + "\n")

# batched, no-change only: as few forks as sh can do the same 50 checks with; prints facts, compares as one blob
b = ["H=$1", "getent group %s; getent passwd %s" % (" ".join(GROUPS), " ".join(USERS)),
     "stat -c '%%n %%a %%U %%G' %s" % " ".join([d[0] for d in DIRS] + [f[0] for f in FILES] + [c[1] for c in CMDS]),
     "sha256sum " + " ".join([f[0] for f in FILES] + ["/etc/sysctl.d/90-w.conf"]),
     "dpkg-query -W -f='${Package} ${Status}\\n' " + " ".join(PKGS)]
open(out + "/wb.sh", "w").write("\n".join(b) + "\n")
open(out + "/verify.sh", "w").write("\n".join([
    "find /etc/w /var/lib/w /var/log/w -printf '%p %y %m %u %g\\n' | sort", "cat /etc/w/d*/f* /etc/sysctl.d/90-w.conf /var/lib/w/c*",
    "getent group %s | cut -d: -f1; getent passwd %s | cut -d: -f1,6,7" % (" ".join(GROUPS), " ".join(USERS)), "ls -d /home/wusr*"]) + "\n")
