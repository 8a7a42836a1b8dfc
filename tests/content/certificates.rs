//! What stands around the stacks' certificates: which files services read, and who is restarted when they are renewed.

use std::process::Command;

use crate::render::{Host, STACKS, read, root, yaml};

/// Every task that lays certificates down, with its role.
fn certificates() -> Vec<(&'static str, serde_json::Value)> {
    let tasks = STACKS.iter().flat_map(|role| {
        let tasks = yaml(format!("roles/{role}/tasks/main.yml"));
        tasks
            .as_array()
            .unwrap()
            .iter()
            .filter(|task| task.get("tls_certificate").is_some())
            .map(|task| (*role, task.clone()))
            .collect::<Vec<_>>()
    });
    tasks.collect()
}

#[test]
fn certificates_come_from_the_project_s_authority_and_somebody_takes_new_ones() {
    let tasks = certificates();
    let roles: Vec<&str> = tasks.iter().map(|(role, _)| *role).collect();
    assert_eq!(roles, ["siem", "soar", "waf"]);
    for (role, task) in &tasks {
        let arguments = &task["tls_certificate"];
        assert_eq!(arguments["authority"], "{{soc_tls_authority}}", "{role}");
        assert!(arguments["owner"].is_string(), "{role}: a key belongs to its consumer alone");
        let handlers = yaml(format!("roles/{role}/handlers/main.yml"));
        let notified = task["notify"].as_str().unwrap();
        assert!(handlers.as_array().unwrap().iter().any(|handler| handler["name"] == notified), "{role}: `{notified}`");
    }
    assert!(!root().join("roles/soc_common/files/soc-cert").exists());
}

/// OpenSearch knows nodes by the subject, which is the first of the names.
#[test]
fn nodes_and_admins_are_known_by_the_first_name_of_their_certificates() {
    for (role, node) in [("siem", "wazuh-indexer"), ("soar", "shuffle-opensearch")] {
        let settings = read(format!("roles/{role}/templates/opensearch.yml"));
        let tasks = yaml(format!("roles/{role}/tasks/main.yml"));
        let tasks = tasks.as_array().unwrap();
        let issued = tasks.iter().find(|task| task.get("tls_certificate").is_some()).unwrap()["loop"].as_array().unwrap();
        for name in [node.to_owned(), format!("{node}-admin")] {
            assert!(settings.contains(&format!("\"CN={name}\"")), "{role}");
            assert!(issued.iter().any(|item| item["names"][0] == name.as_str()), "{role}: {name}");
        }
    }
}

/// Whatever path a service reads below a mounted directory of certificates is one that is laid down there.
#[test]
fn services_read_the_files_that_are_laid_down() {
    let host = Host::all();
    let mut seen = 0;
    for role in ["siem", "soar", "waf"] {
        let text: String = std::fs::read_dir(root().join(format!("roles/{role}/templates")))
            .unwrap()
            .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
            .chain([read(format!("roles/{role}/tasks/main.yml"))])
            .collect();
        let compose = host.compose(role);
        let volumes = compose["services"].as_object().unwrap().values().filter_map(|service| service["volumes"].as_array()).flatten();
        for volume in volumes.filter_map(|volume| volume.as_str()).filter(|volume| volume.contains("/tls/")) {
            let mut parts = volume.split(':');
            let (source, target) = (parts.next().unwrap(), parts.next().unwrap());
            let files = if source.ends_with("/trust") { ["ca.crt", "truststore.p12", ""] } else { ["tls.crt", "tls.key", "tls-ca.crt"] };
            for rest in text.split(&format!("{target}/")).skip(1) {
                let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).collect();
                assert!(files.contains(&name.as_str()), "{role}: {target}/{name} is not laid down in {source}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 12, "{seen}");
}

/// Restarted is what started before the file was written, and nothing else.
#[test]
fn a_renewed_certificate_restarts_only_who_has_the_old_one() {
    let site = tempfile::tempdir().unwrap();
    let bin = site.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let docker = "#!/bin/sh\ncase \"$1 $3\" in\n'inspect {{.State.StartedAt}}') case $4 in old) echo 2020-01-01T00:00:00Z ;; new) echo 2090-01-01T00:00:00Z ;; *) exit 1 ;; esac ;;\n\
                  inspect*) echo healthy ;;\nrestart*) echo \"$2\" >>\"$LOG\" ;;\nesac\n";
    std::fs::write(bin.join("docker"), docker).unwrap();
    std::os::unix::fs::symlink("/bin/true", bin.join("sleep")).unwrap();
    assert!(Command::new("chmod").arg("755").arg(bin.join("docker")).status().unwrap().success());
    let (file, log) = (site.path().join("tls.crt"), site.path().join("log"));
    std::fs::write(&file, "new").unwrap();
    let out = Command::new("sh")
        .arg(root().join("roles/soc_common/files/soc-renew"))
        .arg(&file)
        .args(["old", "new", "gone"])
        .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
        .env("LOG", &log)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(std::fs::read_to_string(log).unwrap(), "old\n");
}
