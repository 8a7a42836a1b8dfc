//! The command line offline: projects as users of Ansible write them, and mistakes in them. What
//! needs hosts is in `tests/e2e`.

mod arguments;
mod fuzz;
mod harness;
mod inventories;
mod json;
mod mistakes;
mod playbooks;
mod reference;
mod words;
