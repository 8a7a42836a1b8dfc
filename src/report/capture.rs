//! Keeps what a run said, for the JSON document and for commands that decide by it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::event::{Event, Listener};
use crate::report::json::Document;

/// A run's events, folded.
#[derive(Default)]
pub struct Captured {
    /// The JSON document.
    pub document: Document,
    /// Every event but the ticking ones, for the history.
    pub events: Vec<Event>,
}

impl Listener for Arc<Mutex<Captured>> {
    fn event(&mut self, event: &Event) {
        use crate::event::EventKind::{Doing, Upload};
        if matches!(event.kind, Doing { .. } | Upload { .. }) {
            return;
        }
        let mut captured = self.lock().unwrap_or_else(PoisonError::into_inner);
        captured.document.event(event);
        captured.events.push(event.clone());
    }
}
