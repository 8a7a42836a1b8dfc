//! Names of images as Docker reads them: registry, repository, tag, digest (distribution's reference
//! grammar; names without a registry are the Hub's, and Docker shows them short).

use serde_json::Value;

/// The registries that names without one mean.
const HUB: &[&str] = &["docker.io/", "index.docker.io/", "registry-1.docker.io/"];

/// Takes a reference and gives it without tag and digest.
#[must_use]
pub fn bare(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    let from = name.rfind('/').map_or(0, |at| at + 1);
    name[from..].find(':').map_or(name, |at| &name[..from + at])
}

/// Takes a reference and gives its repository as Docker shows it: `nginx` for `docker.io/library/nginx:1`.
#[must_use]
pub fn repository(reference: &str) -> &str {
    let name = bare(reference);
    let hub = HUB.iter().find_map(|hub| name.strip_prefix(hub));
    let short = hub.unwrap_or(name);
    short.strip_prefix("library/").filter(|rest| !rest.contains('/')).unwrap_or(short)
}

/// Takes what `docker image inspect` says and gives the digests by which the reference's own
/// repository has the image: one from another repository could not be pulled there.
pub fn digests<'a>(inspect: &'a Value, reference: &str) -> impl Iterator<Item = &'a str> {
    let wanted = repository(reference).to_owned();
    let all = inspect.get("RepoDigests").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    all.filter_map(move |entry| entry.split_once('@').filter(|(name, _)| repository(name) == wanted).map(|(_, digest)| digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_they_mean_to_docker() {
        for (reference, name, repo) in [
            ("nginx", "nginx", "nginx"),
            ("docker.io/library/nginx:1.28", "docker.io/library/nginx", "nginx"),
            ("library/nginx:1", "library/nginx", "nginx"),
            ("prom/prometheus:v2@sha256:aa", "prom/prometheus", "prom/prometheus"),
            ("r.example:5000/a/b:1", "r.example:5000/a/b", "r.example:5000/a/b"),
            ("r.example:5000/library/b", "r.example:5000/library/b", "r.example:5000/library/b"),
        ] {
            assert_eq!((bare(reference), repository(reference)), (name, repo), "{reference}");
        }
        let inspect = serde_json::json!({"RepoDigests": ["other:5000/web@sha256:aa", "r:5000/web@sha256:bb"]});
        assert_eq!(digests(&inspect, "r:5000/web:1").collect::<Vec<_>>(), ["sha256:bb"]);
        assert_eq!(digests(&inspect, "web:1").count(), 0);
    }
}
