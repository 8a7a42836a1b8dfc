//! Loading: files -> a [`Project`], typed, located, still unrendered. No network.

pub mod ansible;
pub mod files;
pub mod hosts;
pub mod inventory;
mod inventory_ini;
mod inventory_script;
pub mod lower;
pub mod source;
