//! The shipped content against the seeds: services field by field with each difference's reason,
//! networks, volumes, ports, flows; no known password, no `latest`, no security switched off.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "content/backup.rs"]
mod backup;
#[path = "content/books.rs"]
mod books;
#[path = "content/certificates.rs"]
mod certificates;
#[path = "content/compare.rs"]
mod compare;
#[path = "content/hygiene.rs"]
mod hygiene;
#[path = "content/limits.rs"]
mod limits;
#[path = "content/networks.rs"]
mod networks;
#[path = "content/project.rs"]
mod project;
#[path = "content/render.rs"]
mod render;
#[path = "content/services.rs"]
mod services;
#[path = "content/wiring.rs"]
mod wiring;
