//! End to end: the real binary against real hosts of the lab. Containers need root; a test that
//! cannot run says why, and fails where CI could have run it.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod absent;
mod apply;
mod bad_input;
#[path = "../support/canary.rs"]
mod canary;
#[path = "canary.rs"]
mod canary_run;
mod firewall;
mod fleet;
mod guard;
mod harness;
mod keep;
mod page;
mod rebuild;
mod soc;
mod soc_prod;
mod stacks;
mod tls;
