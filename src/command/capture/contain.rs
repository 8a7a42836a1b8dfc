//! Taking containers off their networks and putting them back, with a mark on the host from before
//! the first change until after the last.

use std::time::Duration;

use super::parts::Target;
use crate::diagnostic::{Failure, FailureClass, printable};
use crate::engine::host::HostRun;
use crate::resource::compose::contained::{self, DIRECTORY, Mark};
use crate::secret::Text;
use crate::shell::Script;

const DEADLINE: Duration = Duration::from_secs(120);

/// The marks that the host has.
pub(super) async fn marks(host: &mut HostRun) -> Result<Vec<Mark>, Failure> {
    let script = Script::sh("[ \"$(id -u)\" = 0 ] || exit 77\n", &[]).append(contained::list(""));
    let output = host.script("reading what is contained", script, DEADLINE).await?;
    if output.status == 77 {
        return Err(Failure::new(FailureClass::Sudo, "evidence is taken as root, and the login user is not")
            .hint("become root with `-b`, or set `ansible_become: true` for the host"));
    }
    Ok(Mark::parse(&String::from_utf8_lossy(&output.stdout)))
}

/// Why a container cannot be taken off its networks, if it cannot.
pub(super) fn obstacle(target: &Target) -> Option<String> {
    let mode = target.network_mode.as_str();
    if mode == "host" {
        return Some(format!(
            "`{0}` is on the host's own network, of which it cannot be taken off alone; stop its processes with `docker pause {0}`, or cut the host off",
            target.name
        ));
    }
    mode.strip_prefix("container:").map(|other| {
        format!(
            "`{}` shares the network of container {}: contain that one, which takes both off",
            target.name,
            &other[..other.len().min(12)]
        )
    })
}

/// Takes a container off its networks; it goes on running. So that a restart does not bring it
/// back on one, its restart policy is off meanwhile.
pub(super) fn contain(mark: &Mark) -> Script {
    let (id, file) = (mark.id.as_str(), format!("{DIRECTORY}/{}", mark.id));
    let mut script = Script::sh("umask 077; mkdir -p {} || exit 1\n", &[DIRECTORY])
        .payload(&Text::plain(mark.text()))
        .then(" >{} && mv -f {} {} && sync {} || exit 1\n", &[&format!("{file}.new"), &format!("{file}.new"), &file, &file]);
    if mark.restart != "no" {
        script = script.then("docker update --restart no {} >/dev/null || exit 1\n", &[id]);
    }
    for network in &mark.networks {
        script = script.then("docker network disconnect -f {} {} || failed=1\n", &[&network.name, id]);
    }
    script.then(
        r#"left=$(docker inspect -f '{{range $name, $e := .NetworkSettings.Networks}}{{$name}} {{end}}' {}) || exit 1
[ -z "$left" ] || { echo "it is still on: $left" >&2; exit 1; }
pid=$(docker inspect -f '{{.State.Pid}}' {}) && [ "$pid" != 0 ] || exit 0
left=$(sed -n 's/^ *\([^ :]*\):.*/\1/p' "/proc/$pid/net/dev" | grep -vx -e lo -e 'tunl0' -e 'sit0' -e 'ip6tnl0' -e 'gre0' -e 'gretap0' -e 'erspan0' -e 'ip_vti0' -e 'ip6_vti0' -e 'ip6gre0')
[ -z "$left" ] || { echo "it still has: $left" >&2; exit 1; }
"#,
        &[id, id],
    )
}

/// Puts a container back on its networks and removes the mark. A container that is gone has
/// nothing to go back to.
pub(super) fn release(mark: &Mark) -> Script {
    let id = mark.id.as_str();
    let mut script = Script::sh("if docker inspect {} >/dev/null 2>&1; then\n", &[id])
        .then("on=\" $(docker inspect -f '{{range $name, $e := .NetworkSettings.Networks}}{{$name}} {{end}}' {})\"\n", &[id]);
    for network in &mark.networks {
        script = script.then("case $on in *\" \"{}\" \"*) ;; *) docker network connect", &[&network.name]);
        for (flag, value) in [("--ip", &network.ipv4), ("--ip6", &network.ipv6)] {
            if !value.is_empty() {
                script = script.then(" {} {}", &[flag, value]);
            }
        }
        for alias in &network.aliases {
            script = script.then(" --alias {}", &[alias]);
        }
        script = script.then(" {} {} || exit 1 ;; esac\n", &[&network.name, id]);
    }
    if mark.restart != "no" && !mark.restart.is_empty() {
        script = script.then("docker update --restart {} {} >/dev/null || exit 1\n", &[&mark.restart, id]);
    }
    script.then("else echo gone; fi\nrm -f {}; rmdir {} 2>/dev/null; :\n", &[&format!("{DIRECTORY}/{}", mark.id), DIRECTORY])
}

/// Runs one of the two.
pub(super) async fn run(host: &mut HostRun, title: &str, script: Script) -> Result<String, Failure> {
    let output = host.script(title, script, DEADLINE).await?;
    if output.status == 0 && !output.skipped {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = printable(String::from_utf8_lossy(&output.stderr).trim());
    Err(Failure::new(FailureClass::StepFailed, format!("{title} failed")).because(said))
}

/// The mark of a container that is to be contained now.
pub(super) fn mark(target: &Target, who: &str, from: &str, reason: &str) -> Mark {
    Mark {
        id: target.id.clone(),
        name: target.name.clone(),
        project: target.project.clone(),
        service: target.service.clone(),
        who: who.to_owned(),
        from: from.to_owned(),
        when: jiff::Timestamp::now().as_second(),
        reason: reason.to_owned(),
        restart: target.restart.clone(),
        networks: target.networks.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Vault;

    #[test]
    fn scripts_are_shell_whatever_the_names() {
        let network = contained::Network { name: "a'b".into(), aliases: vec!["x y".into()], ipv4: "10.0.0.1".into(), ipv6: String::new() };
        let mark = Mark { id: "f00".into(), restart: "always".into(), networks: vec![network], ..Mark::default() };
        for script in [contain(&mark), release(&mark)] {
            let code = script.fill(&Vault::default()).unwrap();
            let out = std::process::Command::new("/bin/sh").args(["-n", "-c"]).arg(&*code).output().unwrap();
            assert!(out.status.success(), "{}\n{}", &*code, String::from_utf8_lossy(&out.stderr));
        }
        let shared = Target { name: "b".into(), network_mode: "container:0123456789abcdef".into(), ..Target::default() };
        assert!(obstacle(&shared).unwrap().contains("0123456789ab:") || obstacle(&shared).unwrap().contains("0123456789ab"));
    }
}
