//! End to end: the real binary against real hosts of the lab. Containers need root; a test that
//! cannot run says why, and fails where CI could have run it.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod absent;
mod apply;
mod backups;
mod bad_input;
#[path = "../support/bare.rs"]
mod bare;
#[path = "../support/canary.rs"]
mod canary;
#[path = "canary.rs"]
mod canary_run;
mod canary_stacks;
mod drift;
mod failures;
#[path = "../support/fingerprint.rs"]
mod fingerprint;
mod firewall;
mod fleet;
mod guard;
mod harness;
mod interrupted;
mod keep;
mod latency;
mod page;
mod rebuild;
mod refused;
mod registry;
#[path = "../ssh/relay.rs"]
mod relay;
mod rolling;
mod rolling_nginx;
mod soc;
mod soc_prod;
mod stacks;
mod start;
mod tls;
