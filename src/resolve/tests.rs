//! Whole projects, resolved.
