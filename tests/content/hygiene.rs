//! What must not be in any shipped file: known passwords, `latest`, security switched off, sockets
//! without need; and that roles say what they do differently.

use serde_json::Value;

use crate::compare::words;
use crate::render::{Host, STACKS, read, roles, shipped, stack_task};

/// Files that quote the seeds' flaws on purpose, to say that they are not carried over.
fn quotes(name: &str) -> bool {
    name.ends_with("README.md") || name.starts_with("docs/") || name == "CHANGELOG.md"
}

#[test]
fn no_known_password_is_shipped() {
    let known = [
        "SecurePassword",
        "SecretPassword",
        "minioadmin",
        "kibanaserver\" #",
        "admin123",
        "Admin123",
        "changeme",
        "secure_password",
        "SecureRandomPassword123",
        "AnotherSecurePassword456",
        "ThehiveTestPassword",
        "CortexTestPassword",
        "your-secure-password",
        "StrongPassword",
    ];
    for (name, text) in shipped().iter().filter(|(name, _)| !quotes(name) && !name.starts_with("src/")) {
        for word in known {
            assert!(!text.contains(word), "{name} has the known password `{word}`");
        }
        for line in text.lines() {
            let line = line.trim_start_matches(['-', ' ', '"', '\'']);
            let Some((key, value)) = line.split_once([':', '=']) else { continue };
            let key = key.trim().to_lowercase();
            let secretish = ["password", "passwd", "api_key", "apikey"].iter().any(|word| key.ends_with(word));
            let value = value.trim().trim_matches(['"', '\'']);
            let harmless = value.is_empty()
                || value.contains("secret")
                || value.starts_with(['$', '{', '<', '(', '|', '>'])
                // The name of a secret, a path, a switch, a user's word for "none".
                || value.contains('/')
                || ["yes", "no", "true", "false", "truststore", "str", "dict"].contains(&value.trim_end_matches(','));
            if name.starts_with("roles/") || name.starts_with("inventory/") || name.starts_with("playbooks/") {
                assert!(!secretish || harmless, "{name}: `{line}` looks like a password");
            }
        }
    }
}

#[test]
fn every_image_has_a_version() {
    let host = Host::all();
    for role in STACKS {
        let images = stack_task(role)["images"].clone();
        assert!(images.is_string(), "{role}: images come from a variable");
        for (name, service) in host.compose(role)["services"].as_object().unwrap() {
            let image = service["image"].as_str().unwrap();
            let tag = image.rsplit('/').next().unwrap().split_once(':').unwrap_or_else(|| panic!("{role}/{name}: `{image}` has no tag")).1;
            assert!(tag.chars().any(|c| c.is_ascii_digit()) && tag != "latest", "{role}/{name}: `{image}`");
        }
    }
    for (name, text) in shipped()
        .iter()
        .filter(|(name, _)| ["roles/", "playbooks/", "inventory/"].iter().any(|start| name.starts_with(start)) && !quotes(name))
    {
        assert!(!text.contains(":latest"), "{name} names an image `latest`");
    }
}

#[test]
fn stand_ins_have_the_very_names_that_the_stacks_use() {
    let groups = ["siem", "soar", "ai", "monitoring", "sensors", "edge"];
    for front in ["nginx", "traefik"] {
        let host = Host::new(&groups, &serde_json::json!({"soc_stand_ins": true, "waf_front": front}));
        for role in STACKS {
            let images = host.render(&stack_task(role)["images"], role);
            let compose = host.compose(role);
            let mut used: Vec<&str> =
                compose["services"].as_object().unwrap().values().map(|service| service["image"].as_str().unwrap()).collect();
            let mut made: Vec<&str> = images.as_object().unwrap().keys().map(String::as_str).collect();
            used.sort_unstable();
            used.dedup();
            made.sort_unstable();
            assert_eq!(used, made, "{role} ({front})");
            for (name, service) in compose["services"].as_object().unwrap() {
                let stand_in = &images[service["image"].as_str().unwrap()]["stand_in"];
                let user = service["user"].as_str().unwrap().split(':').next().unwrap().replace("root", "0");
                assert_eq!(stand_in["user"].to_string(), user, "{role}/{name}: the stand-in's user");
                let listens = words(stand_in.get("listen").unwrap_or(&Value::Null));
                for port in words(service.get("ports").unwrap_or(&Value::Null)) {
                    let inside = port.rsplit(':').next().unwrap().to_owned();
                    assert!(listens.contains(&inside), "{role}/{name}: the stand-in does not listen on {inside}");
                }
                // Programs of health checks are there, but those that busybox has itself.
                let test = words(service.pointer("/healthcheck/test").unwrap_or(&Value::Null));
                let tools = words(stand_in.get("tools").unwrap_or(&Value::Null));
                if let Some(program) = (test.first().map(String::as_str) == Some("CMD")).then(|| test[1].clone()) {
                    assert!(program == "wget" || tools.contains(&program), "{role}/{name}: the stand-in has no `{program}`");
                }
            }
        }
    }
}

#[test]
fn nothing_protective_is_switched_off() {
    let off = [
        "DISABLE_SECURITY_PLUGIN",
        "plugins.security.disabled",
        "ssl.http.enabled: false",
        "ssl.http.enabled=false",
        "SERVER_SSL_ENABLED=false",
        "SSL_VERIFICATION_MODE=none",
        "verificationMode: none",
        "xpack.security.enabled=false",
        "--web.enable-admin-api",
        "--web.enable-lifecycle",
        "web.enable-lifecycle",
        "strict.perms=false",
        "api.insecure=true",
        "StrictHostKeyChecking no",
        "iptables\": false",
    ];
    for (name, text) in shipped().iter().filter(|(name, _)| name.starts_with("roles/") && !quotes(name)) {
        for word in off {
            assert!(!text.contains(word), "{name} has `{word}`");
        }
    }
}

#[test]
fn sockets_and_privileges_are_where_the_exceptions_say() {
    let host = Host::all();
    for role in STACKS {
        let stack = stack_task(role);
        let exceptions = host.render(stack.get("exceptions").unwrap_or(&Value::Null), role);
        assert_eq!(stack["hardening"], "{{soc_hardening}}", "{role}");
        let services = host.compose(role)["services"].as_object().unwrap().clone();
        for (name, exception) in exceptions.as_object().into_iter().flatten() {
            assert!(services.contains_key(name), "{role}: an exception for `{name}`, which is no service");
            assert!(exception["reason"].as_str().unwrap().len() > 20, "{role}/{name}");
        }
        for (name, service) in &services {
            let allowed = words(exceptions.get(name).and_then(|exception| exception.get("allow")).unwrap_or(&Value::Null));
            let may = |word: &str| allowed.iter().any(|allowed| allowed == word);
            let volumes = words(service.get("volumes").unwrap_or(&Value::Null));
            assert!(!volumes.iter().any(|volume| volume.contains("docker.sock")) || may("docker-socket"), "{role}/{name} has the socket");
            assert!(service.get("privileged").is_none() || may("privileged"), "{role}/{name} is privileged");
            assert!(service.get("network_mode").is_none() || may("host-network"), "{role}/{name}");
            assert!(service.get("pid").is_none() || may("host-pid"), "{role}/{name}");
            let user = service["user"].as_str().unwrap_or_else(|| panic!("{role}/{name} does not say its user"));
            assert!(!(user.starts_with("0:") || user == "root") || may("root"), "{role}/{name} runs as root");
        }
    }
    let holders: Vec<&str> = STACKS
        .iter()
        .filter_map(|role| read(format!("roles/{role}/templates/compose.yml")).contains("docker.sock").then_some(*role))
        .collect();
    assert_eq!(holders, ["soar"], "only Orborus needs Docker's socket");
}

#[test]
fn secrets_are_files_named_in_the_stack_and_never_in_the_compose_file() {
    let host = Host::all();
    for role in STACKS {
        let rendered = host.template(role, "compose.yml");
        assert!(!soc_provision::secret::Text::is_marked(&rendered), "{role}: a secret in the Compose file");
        let stack = host.render(&stack_task(role), role);
        let defined: Vec<String> =
            stack.get("secrets").and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.clone()).collect();
        let mut used: Vec<String> = Vec::new();
        for service in host.compose(role)["services"].as_object().unwrap().values() {
            used.extend(words(service.get("secrets").unwrap_or(&Value::Null)));
        }
        used.sort();
        used.dedup();
        let mut sorted = defined.clone();
        sorted.sort();
        assert_eq!(used, sorted, "{role}");
        // Files that hold secrets are readable by their consumer alone.
        for file in stack["files"].as_array().unwrap() {
            let text = host.template(role, file["template"].as_str().unwrap());
            if soc_provision::secret::Text::is_marked(&text) {
                assert_eq!(file["mode"], "0400", "{role}: {} holds secrets", file["template"]);
            }
        }
    }
}

#[test]
fn every_role_explains_itself_and_its_deviations() {
    for role in roles() {
        if role == "lab" {
            continue;
        }
        let text = read(format!("roles/{role}/README.md"));
        assert!(text.starts_with(&format!("# {role}\n")), "{role}");
        if STACKS.contains(&role.as_str()) {
            let table = text.split("## Deviations from the seeds").nth(1).unwrap_or_else(|| panic!("{role} lists no deviations"));
            let rows = table.lines().filter(|line| line.starts_with("| ")).count();
            assert!(rows > 5, "{role} lists {rows} deviations");
            for part in ["meta/main.yml", "verify/main.yml", "defaults/main.yml"] {
                assert!(crate::render::root().join("roles").join(&role).join(part).exists(), "{role}/{part}");
            }
        }
    }
}
