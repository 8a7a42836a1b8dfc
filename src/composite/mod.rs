//! Kinds that only expand into base kinds. Adding one is one file here and one line below.

use crate::resource::KindEntry;

/// All composite kinds.
pub const KINDS: &[KindEntry] = &[];
