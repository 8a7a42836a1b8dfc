//! Loading: files -> a [`Project`], typed, located, still unrendered. No network.

pub mod leaks;
pub mod vault;
