//! What is known about Compose, pure: reading a Compose file, what its services declare, the
//! hardening overlay and the lint, how a release is rendered and named, what containers are like,
//! and the shell that brings a release up. Nothing here is a resource; `compose_release.rs` is.

pub mod compare;
pub mod contained;
pub mod container;
pub mod diagnosis;
pub mod harden;
pub mod host;
pub mod interpolate;
pub mod model;
pub mod preflight;
pub mod render;
pub mod runtime;
pub mod script;
pub mod service;
mod settings;
pub mod stack;
pub mod units;
