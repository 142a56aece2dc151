//! Whether an answer reached its client, as far as a server can know: for operations that hand something out once.

use std::sync::{Arc, Mutex};

/// Told once what became of an answer: that it was handed to a live connection, or (dropped) that it was not.
pub struct Handover {
    tell: Option<Box<dyn FnOnce(bool) + Send>>,
}

/// Where an operation puts what it wants to have told, and where the transport finds it.
pub type HandoverSlot = Arc<Mutex<Option<Handover>>>;

impl Handover {
    /// Calls `tell` with the outcome.
    pub fn new(tell: impl FnOnce(bool) + Send + 'static) -> Handover {
        Handover { tell: Some(Box::new(tell)) }
    }
    /// The answer was handed over.
    pub fn handed(mut self) {
        if let Some(tell) = self.tell.take() {
            tell(true);
        }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(false);
        }
    }
}
