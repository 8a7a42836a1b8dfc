//! Kinds that only expand into base kinds. Adding one is one file here and one line below.

pub mod compose_stack;
pub mod docker_engine;
mod images;
mod located;

use crate::resource::KindEntry;

/// All composite kinds.
pub const KINDS: &[KindEntry] = &[KindEntry::of::<compose_stack::ComposeStack>(), KindEntry::of::<docker_engine::DockerEngine>()];
