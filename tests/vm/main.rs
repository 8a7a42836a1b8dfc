//! What needs a kernel of its own, on an emulated machine: run by `make vm`; `kernel` by `make test` too.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../support/bare.rs"]
mod bare;
mod boot;
mod cis;
mod confined;
mod hardened;
#[path = "../e2e/harness.rs"]
#[expect(dead_code, reason = "the container tests use the rest")]
mod harness;
mod kernel;
mod stacks;
