//! Tests of what is told apart in owned places.

use super::*;
use crate::resource::observe::RawOutput;

fn found(place: Place, stdout: &str, more: Vec<Claim>) -> Vec<Undeclared> {
    let mut seen = Observations::default();
    let answer = match place {
        Place::Containers => Answer::Json(serde_json::from_str(stdout).ok()),
        Place::Ports => Answer::Line(Some(stdout.to_owned())),
        _ => Answer::Raw(RawOutput { status: 0, stdout: stdout.to_owned() }),
    };
    seen.insert(question(&place), answer);
    let mut claims = vec![(ResourceId::new("owned", "host"), Claim::Owns(place))];
    claims.extend(more.into_iter().map(|claim| (ResourceId::new("x", "y"), claim)));
    find(&claims, &seen, &Login { user: "ops".into(), port: 22 }).0
}

fn names(place: Place, stdout: &str, more: Vec<Claim>) -> Vec<String> {
    found(place, stdout, more).iter().map(|item| item.id.to_string()).collect()
}

#[test]
fn a_rogue_user_is_found_and_the_login_is_not() {
    let passwd = "u:root:0:/bin/bash:/root:set\nu:ops:1000:/bin/bash:/home/ops:set\nu:eve:1005:/bin/sh:/home/eve of many:set\nu:toor:0:/bin/sh:/root:set\nu:postgres:110:/bin/bash:/var/lib/postgresql:locked\nu:ann:1001:/bin/sh:/home/ann:locked\nu:www-data:33:/bin/bash:/var/www:locked\nu:bin:2:/usr/sbin/nologin:/bin:locked";
    assert_eq!(names(Place::Users, passwd, vec![Claim::User("ann".into())]), ["user[eve]", "user[toor]", "user[www-data]"]);
}

#[test]
fn who_is_as_good_as_root_is_named() {
    let text = "u:ops:1000:/bin/sh:/home/ops:set\nu:ann:1001:/bin/sh:/home/ann:none\ng sudo ops\ng sudo ann\ng docker ann\ng docker root";
    let claims = vec![Claim::User("ann".into()), Claim::Member { user: "ann".into(), group: "sudo".into() }];
    assert_eq!(names(Place::Users, text, claims), ["group_member[docker: ann]", "user[ann]"]);
}

#[test]
fn a_rogue_port_is_found_whatever_its_family() {
    let ss = "tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:((\"sshd\",pid=1,fd=3))\ntcp LISTEN 0 5 *:4444 *:* users:((\"nc\",pid=9,fd=3))\ntcp LISTEN 0 5 127.0.0.1:631 0.0.0.0:*\ntcp LISTEN 0 5 0.0.0.0:8080 0.0.0.0:*\nudp UNCONN 0 0 [fe80::1%eth0]:5555 [::]:* users:((\"x\",pid=2,fd=3))\ntcp LISTEN 0 128 0.0.0.0:2222 0.0.0.0:* users:((\"sshd\",pid=7,fd=3))\ntcp LISTEN 0 5 [::1]:25 [::]:*";
    let published = Claim::PublishedPort { address: "0.0.0.0".into(), port: 8080, protocol: "tcp".into(), owner: "web".into() };
    assert_eq!(names(Place::Ports, ss, vec![published]), ["port[2222/tcp]", "port[4444/tcp]", "port[5555/udp]"]);
}

#[test]
fn a_key_in_another_file_counts_too() {
    let text = "ann\t/home/ann/.ssh/authorized_keys\tssh-ed25519 AAAAone ann\nann\t/etc/ssh/keys/ann\tssh-ed25519 AAAAone ann\nops\t/home/ops/.ssh/authorized_keys\tssh-ed25519 AAAAtwo ops\nops\t/home/ops/.ssh/authorized_keys2\tssh-ed25519 AAAAthree";
    let found = found(Place::AuthorizedKeys, text, vec![Claim::AuthorizedKey { user: "ann".into(), key: "AAAAone".into() }]);
    let paths: Vec<_> = found.iter().map(|item| item.detail.split(' ').nth(3).unwrap().to_owned()).collect();
    assert_eq!(paths, ["/etc/ssh/keys/ann", "/home/ops/.ssh/authorized_keys2"]);
}

#[test]
fn a_file_of_sshds_is_told_once() {
    let text = "/etc/ssh/sshd_config.d/99-evil.conf\n/etc/ssh/sshd_config.d/10-ours.conf";
    let ours = || Claim::Path("/etc/ssh/sshd_config.d/10-ours.conf".into());
    assert_eq!(names(Place::AuthorizedKeys, text, vec![ours()]), ["sshd_config[/etc/ssh/sshd_config.d/99-evil.conf]"]);
    let owned = Claim::Owns(Place::Directory("/etc/ssh/sshd_config.d".into()));
    assert!(names(Place::AuthorizedKeys, text, vec![ours(), owned]).is_empty());
}

#[test]
fn a_directory_with_too_many_files_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("1/2/3/4/5/6/7/8/9");
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("hidden"), "x").unwrap();
    let place = Place::Directory(dir.path().to_str().unwrap().to_owned());
    let Question::Raw { script, .. } = question(&place) else { panic!() };
    let run = || std::process::Command::new("sh").arg("-c").arg(script.shown()).output().unwrap();
    assert!(String::from_utf8(run().stdout).unwrap().ends_with("/9/hidden\n"));
    for number in 0..10_000 {
        std::fs::write(dir.path().join(format!("f{number}")), "").unwrap();
    }
    let output = run();
    assert_eq!(output.status.code(), Some(TOO_MUCH));
    let mut seen = Observations::default();
    let stdout = String::from_utf8(output.stdout).unwrap();
    seen.insert(question(&place), Answer::Raw(RawOutput { status: TOO_MUCH, stdout }));
    let (_, blind) = find(&[(ResourceId::new("owned", "host"), Claim::Owns(place))], &seen, &Login::default());
    assert_eq!(blind[0].1, "it holds more than 10000 files");
}

#[test]
fn declared_networks_of_their_own_are_known() {
    let text = "bridge\nweb_default\nshared\nrogue\n";
    let claims = vec![Claim::ComposeProject("web".into()), Claim::DockerObject("web_default".into()), Claim::DockerObject("shared".into())];
    assert_eq!(names(Place::Networks, text, claims), ["docker_network[rogue]"]);
}

#[test]
fn a_container_of_no_service_is_nobodys_whatever_its_labels_say() {
    let one = |name: &str, labels: &str| format!("{{\"Id\": \"{name}\", \"Name\": \"/{name}\", \"Config\": {{\"Labels\": {{{labels}}}}}}}");
    let (web, run) = ("\"com.docker.compose.project\": \"web\"", "\"com.docker.compose.oneoff\": \"True\"");
    let list = format!("[{}, {}, {}]", one("web-app-1", web), one("sneaky", &format!("{web}, {run}")), one("rogue", ""));
    assert_eq!(names(Place::Containers, &list, vec![Claim::ComposeProject("web".into())]), ["container[rogue]", "container[sneaky]"]);
}

#[test]
fn volumes_without_a_name_are_those_of_their_containers() {
    let (ours, left) = ("a".repeat(64), "b".repeat(64));
    let text = format!("web_data\nweb_old\n{ours}\n{left}\nm web web_data,/srv/x,{ours}\nm  web_old\nm other {left}");
    let claims = || vec![Claim::ComposeProject("web".into()), Claim::DockerObject("web_data".into())];
    assert_eq!(names(Place::Volumes, &text, claims()), [format!("docker_volume[{left}]"), "docker_volume[web_old]".to_owned()]);
}

#[test]
fn what_could_not_be_asked_is_said() {
    let claims = vec![(ResourceId::new("owned", "host"), Claim::Owns(Place::Cron))];
    let (found, blind) = find(&claims, &Observations::default(), &Login::default());
    assert!(found.is_empty() && blind.len() == 1);
}

#[test]
fn the_fragments_are_posix_sh() {
    let places = [
        Place::Users,
        Place::AuthorizedKeys,
        Place::Cron,
        Place::Timers,
        Place::Units,
        Place::Sudoers,
        Place::Repositories,
        Place::PackageConfig,
        Place::Setuid,
        Place::Startup,
        Place::Directory("/etc/x".into()),
    ];
    for place in places {
        let Question::Raw { script, .. } = question(&place) else { panic!("{place:?}") };
        let mut child = std::process::Command::new("sh").arg("-n").stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.shown().as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{place:?}");
    }
}
