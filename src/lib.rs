//! An agentless provisioner. The way of the data is the way down this list:
//! arguments -> project (files, located, unrendered) -> resolve (per host, with facts) ->
//! resources -> engine (probe, plan, apply, guard, verify over the transport) -> events -> reports.

pub mod cli;
pub mod command;
pub mod composite;
pub mod diagnostic;
pub mod engine;
pub mod event;
pub mod facts;
pub mod history;
pub mod project;
pub mod report;
pub mod resolve;
pub mod resource;
pub mod secret;
pub mod shell;
pub mod transport;
