//! Images from a real registry: the distribution's `docker-registry` on the host itself, behind TLS and
//! a password. What is locked is what the registry has, and only that runs, whatever happens to tags.

use std::collections::BTreeMap;

use crate::harness::{recap, series};
use crate::stacks::Site;

/// Quotes, blanks and a backslash, so that nothing that passes it on may take it for its own syntax.
const PASSWORD: &str = "s3cr\"et \\w'ord";

const LOGIN: &str = "registry_login:\n  registries:\n    registry.lab:5000: {username: puller, password: registry_password}\n";

/// Two services from the registry; nothing else brings their images.
const STACK: &str = r#"compose_stack:
  name: pulled
  health: {timeout: 60s}
  compose:
    services:
      web: {image: "registry.lab:5000/soc/web:1", user: "1000"}
      app: {image: "registry.lab:5000/soc/app:1", user: "1000"}
"#;

/// A host with a registry, a project with its password, and the images in the registry only.
fn site() -> Option<Site> {
    let site = Site::new()?;
    for words in [&["secrets", "keygen"][..], &["secrets", "init"]] {
        crate::harness::soc(site.project.dir.path(), words).ok();
    }
    site.secret("registry_password", PASSWORD);
    let quoted = PASSWORD.replace('\'', "'\\''");
    site.lab.feed("h1", &format!("PASSWORD='{quoted}'\n{}", include_str!("registry.sh")));
    push(&site, "web", "first");
    push(&site, "app", "first");
    Some(site)
}

/// Makes an image of the host's busybox under a name of the registry, pushes it, and takes it off the
/// host; gives the digest that the registry has.
fn push(site: &Site, name: &str, words: &str) -> String {
    let reference = format!("registry.lab:5000/soc/{name}:1");
    site.project.write(
        "playbooks/make.yml",
        &format!("- hosts: h1\n  tasks:\n    - docker_image: {{name: \"made-{name}:1\", stand_in: {{listen: [8080], user: 1000, health: \"true {words}\"}}}}\n"),
    );
    site.run(&["apply", "make.yml"]).ok();
    let quoted = PASSWORD.replace('\'', "'\\''");
    let pushed = site.sh(&format!(
        "set -e; before=$(docker image inspect -f '{{{{.Id}}}}' {reference} 2>/dev/null) || before=; \
         docker tag made-{name}:1 {reference}; export DOCKER_CONFIG=/tmp/pusher; printf %s '{quoted}' | docker login -u puller --password-stdin registry.lab:5000 >/dev/null 2>&1; \
         docker push -q {reference} >/dev/null; docker image inspect -f '{{{{index .RepoDigests 0}}}}' {reference}; \
         docker image rm {reference} made-{name}:1 >/dev/null; rm -r /tmp/pusher; [ -z \"$before\" ] || docker tag $before {reference}"
    ));
    pushed.rsplit('@').next().unwrap().to_owned()
}

/// Digest by image, as images.lock has it.
fn locked(site: &Site) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(site.project.dir.path().join("images.lock")).unwrap();
    let mut out = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        if let Some(digest) = line.trim().strip_prefix("digest: ") {
            out.insert(name.to_owned(), digest.to_owned());
        } else if let Some(key) = line.trim().strip_suffix(':') {
            name = key.trim_matches('"');
        }
    }
    out
}

#[test]
fn images_from_a_registry_are_locked_pulled_by_digest_and_never_exchanged() {
    let Some(site) = site() else { return };
    // The login: a file of root's, made of the secret, which is nowhere else.
    site.write(LOGIN);
    let planned = site.run(&["plan", "p.yml", "--diff", "-vv"]).ok();
    assert!(planned.stdout.contains("(holds a secret: not shown)") && !planned.all().contains("s3cr"), "{}", planned.stdout);
    assert_eq!(site.apply().0, 1);
    assert_eq!(site.apply().0, 0);
    assert_eq!(site.sh("stat -c '%U %a' /root/.docker /root/.docker/config.json"), "root 700\nroot 600");
    let told = "journalctl -b --no-pager 2>/dev/null | grep -cF -e 's3cr' -e \"$(sed -n 's/.*\"auth\": \"\\(.*\\)\".*/\\1/p' /root/.docker/config.json)\" || :";
    assert_eq!(site.sh(told), "0", "the password in the journal");

    by_tag_what_cannot_be_had_stops_nothing_either(&site);

    // Locked before any host runs it, although the project insists on the lock.
    site.project.write("soc-provision.yml", "images: {lock: required, allow: [\"registry.lab:5000/soc/*\"]}\n");
    site.write(STACK);
    let refused = site.run(&["apply", "p.yml"]);
    assert!(refused.code != 0 && refused.stderr.contains("images lock"), "{}", refused.all());
    site.run(&["images", "lock", "p.yml", "--pull"]).ok();
    let first = locked(&site);
    assert_eq!(first.len(), 2, "{first:?}");
    site.sh("docker image rm -f $(docker images -q) >/dev/null; [ -z \"$(docker images -q)\" ]");

    // By digest, on a host that has no such image.
    assert_eq!(site.apply().0, 1);
    assert_eq!(site.apply(), (0, 3));
    site.healthy("pulled", 2);
    // Both are the same image at first, so it has a digest from each repository.
    let digests = |name: &str| {
        site.sh(&format!(
            "docker image inspect -f '{{{{join .RepoDigests \"\\n\"}}}}' $(docker inspect -f '{{{{.Image}}}}' pulled-{name}-1)"
        ))
    };
    for name in ["web", "app"] {
        let reference = format!("registry.lab:5000/soc/{name}");
        let wanted = format!("{reference}@{}", first[&format!("{reference}:1")]);
        assert!(digests(name).lines().any(|line| line == wanted), "{wanted}: {}", digests(name));
    }
    site.run(&["images", "lock", "p.yml", "--check"]).ok();
    site.run(&["images", "lock", "p.yml", "--check", "--pull"]).ok();

    // Somebody pushes another image under the same tag.
    let before = site.containers("pulled");
    let second = push(&site, "web", "second");
    assert_ne!(second, first["registry.lab:5000/soc/web:1"]);
    assert_eq!(site.apply(), (0, 3), "the lock holds");
    site.run(&["images", "lock", "p.yml", "--check"]).ok();
    let moved = site.run(&["images", "lock", "p.yml", "--check", "--pull"]);
    assert!(moved.code == 3 && moved.stdout.contains("differs: registry.lab:5000/soc/web:1"), "{}", moved.all());
    assert_eq!(site.apply(), (0, 3), "looking changes nothing");
    site.run(&["images", "lock", "p.yml", "--pull"]).ok();
    assert_eq!(locked(&site)["registry.lab:5000/soc/web:1"], second);
    assert_eq!(site.apply().0, 1);
    let after = site.containers("pulled");
    assert_ne!(after["web-1"], before["web-1"]);
    assert_eq!(after["app-1"], before["app-1"], "only the service that uses it");
    assert_eq!(digests("web"), format!("registry.lab:5000/soc/web@{second}"));
    assert_eq!(site.apply(), (0, 3));
    what_cannot_be_had_stops_nothing(&site);
}

/// A wrong password, a registry that is down, a digest that it does not have.
fn what_cannot_be_had_stops_nothing(site: &Site) {
    let running = site.containers("pulled");
    let fails = |what: &str, parts: &[&str]| {
        let run = site.run(&["apply", "p.yml"]);
        assert_eq!(run.code, 2, "{what}: {}", run.all());
        for part in parts {
            assert!(run.stderr.contains(part), "{what}: {part}: {}", run.all());
        }
        assert_eq!(site.containers("pulled"), running, "{what}: what ran, runs on");
        site.healthy("pulled", 2);
    };
    let lock = std::fs::read_to_string(site.project.dir.path().join("images.lock")).unwrap();
    let third = push(site, "web", "third");
    let second = locked(site)["registry.lab:5000/soc/web:1"].clone();
    let ids = lock.lines().map(|line| if line.trim().starts_with("ids:") { "" } else { line }).collect::<Vec<_>>().join("\n");
    site.project.write("images.lock", &ids.replace(&second, &format!("sha256:{}", "ab".repeat(32))));
    fails("no such digest", &["registry.lab:5000/soc/web", "not found"]);
    site.project.write("images.lock", &ids.replace(&second, &third));
    site.sh("systemctl stop registry-real");
    fails("registry down", &["registry.lab:5000/soc/web", "refused"]);
    let pull = site.run(&["images", "lock", "p.yml", "--pull"]);
    assert!(pull.code == 2 && pull.stderr.contains("cannot be pulled") && pull.stderr.contains("refused"), "{}", pull.all());
    site.sh("systemctl start registry-real; sleep 1");
    site.secret("registry_password", "of another");
    let stack = STACK.trim_end().replace('\n', "\n      ");
    let login = LOGIN.trim_end().replace('\n', "\n      ");
    site.project.write("playbooks/p.yml", &format!("- hosts: h1\n  tasks:\n    - {login}\n    - {stack}\n"));
    fails("wrong password", &["registry.lab:5000/soc/web", "registry_login"]);
    site.secret("registry_password", PASSWORD);
    let run = site.run(&["apply", "p.yml", "--format", "json"]).ok().json();
    assert_eq!(recap(&run, "h1", "changed"), 2, "login and stack");
    assert_ne!(site.containers("pulled")["web-1"], running["web-1"]);
    assert_eq!(site.apply(), (0, 3));
}

/// Without a lock Compose pulls by tag; all of it before anything is stopped. A lock of what runs
/// changes nothing that runs.
fn by_tag_what_cannot_be_had_stops_nothing_either(site: &Site) {
    site.write(STACK);
    assert_eq!(site.apply().0, 1);
    assert_eq!(site.apply(), (0, 3));
    let running = site.containers("pulled");
    // The first service would be recreated, the second one's image is nowhere.
    site.write(&STACK.replace("soc/web:1\", user: \"1000\"", "soc/web:1\", user: \"1001\"").replace("soc/app:1", "soc/app:2"));
    let run = site.run(&["apply", "p.yml"]);
    for part in ["registry.lab:5000/soc/app:2 cannot be had; nothing was touched", "manifest unknown"] {
        assert!(run.code == 2 && run.stderr.contains(part), "{part}: {}", run.all());
    }
    assert_eq!(site.containers("pulled"), running);
    site.write(STACK);
    site.run(&["images", "lock", "p.yml"]).ok();
    assert_eq!(locked(site).len(), 2);
    assert!(site.apply().0 <= 1);
    assert_eq!(site.containers("pulled"), running, "what runs is what was locked");
    assert_eq!(site.apply(), (0, 3));
    std::fs::remove_file(site.project.dir.path().join("images.lock")).unwrap();
    site.sh("docker rm -f $(docker ps -aq) >/dev/null; docker image rm -f $(docker images -q) >/dev/null; rm -r /var/lib/soc-provision/stacks/pulled");
}

/// The Hub's images come from the mirror that `docker_engine` is told of, and from nowhere else: there
/// is no Hub here.
#[test]
fn an_image_without_a_registry_comes_from_the_mirror() {
    if series(0, 1) == 0 {
        eprintln!("not run: part of the long series (SOC_PROVE=1)");
        return;
    }
    let Some(site) = site() else { return };
    let image = "registry.lab:5000/soc/web:1";
    site.write(LOGIN);
    site.apply();
    site.sh(&format!("docker pull -q {image} >/dev/null && docker tag {image} 127.0.0.1:5001/library/mirrored:1 && docker push -q 127.0.0.1:5001/library/mirrored:1 >/dev/null && docker image rm -f $(docker images -q) >/dev/null"));
    let stack = STACK
        .replace("pulled", "fromhub")
        .replace("registry.lab:5000/soc/web:1", "mirrored:1")
        .replace("registry.lab:5000/soc/app:1", "mirrored:1");
    site.write(&stack);
    let without = site.run(&["apply", "p.yml"]);
    assert!(without.code == 2 && without.stderr.contains("image mirrored:1 cannot be had; nothing was touched"), "{}", without.all());
    site.write("docker_engine: {daemon: {registry-mirrors: [\"http://127.0.0.1:5001\"], default-ulimits: null}}\n");
    site.apply();
    site.write(&stack);
    site.run(&["images", "lock", "p.yml", "--pull"]).ok();
    let digest = locked(&site)["mirrored:1"].clone();
    site.sh("docker image rm -f $(docker images -q) >/dev/null");
    assert_eq!(site.apply().0, 1);
    assert_eq!(site.apply(), (0, 3));
    site.healthy("fromhub", 2);
    assert_eq!(site.sh("docker image inspect -f '{{index .RepoDigests 0}}' mirrored:1"), format!("mirrored@{digest}"));
    assert_ne!(
        site.sh("journalctl -u registry-mirror --no-pager -o cat | grep -c 'GET.*library/mirrored/manifests/sha256' || :"),
        "0",
        "asked the mirror"
    );
}
