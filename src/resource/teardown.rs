//! Tearing down: what `rebuild` takes off a host before it applies again. Only what Docker runs and
//! stores goes; files, packages, users and the deny-by-default firewall stay up throughout.

use crate::resource::Resource;

/// What is to go besides stacks and their networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Teardown {
    /// Volumes too, with the data in them.
    pub wipe_data: bool,
    /// Images too, so that they are fetched or made again.
    pub images: bool,
    /// Docker's packages too.
    pub docker: bool,
}

/// Packages that are Docker.
const DOCKER: &[&str] = &[
    "containerd",
    "containerd.io",
    "docker-buildx",
    "docker-buildx-plugin",
    "docker-ce",
    "docker-ce-cli",
    "docker-ce-rootless-extras",
    "docker-cli",
    "docker-compose",
    "docker-compose-plugin",
    "docker-compose-v2",
    "docker.io",
    "runc",
];

/// Whether a package is a part of Docker.
#[must_use]
pub fn is_docker(package: &str) -> bool {
    DOCKER.contains(&package)
}

/// What takes these resources down, in the order in which it must happen: whatever runs first,
/// then what it used; within a kind the last first.
#[must_use]
pub fn of<'a>(resources: impl Iterator<Item = &'a dyn Resource>, wish: Teardown) -> Vec<Box<dyn Resource>> {
    const ORDER: [&str; 5] = ["compose_stack", "docker_network", "docker_volume", "docker_image", "package"];
    let mut seen = std::collections::HashSet::new();
    let mut out: Vec<Box<dyn Resource>> = resources.filter_map(|resource| resource.teardown(wish)).collect();
    out.reverse();
    out.retain(|resource| seen.insert(resource.id()));
    out.sort_by_key(|resource| ORDER.iter().position(|kind| *kind == resource.id().kind).unwrap_or(ORDER.len()));
    out
}
