//! What an operation knows of its surroundings.

use std::sync::Arc;

use crate::app::App;
use crate::auth::Caller;
use crate::error::{Error, Kind, Result};
use crate::hub::lock;
use crate::session::subscription::Subscription;
use crate::session::{Handle, Slot};

/// Handed to every operation: the server, who asks, and the session if there is one that lives on.
#[derive(Clone)]
pub struct Context {
    /// The server's shared parts.
    pub app: Arc<App>,
    /// Who asks.
    pub caller: Caller,
    session: Option<(Arc<Handle>, Slot)>,
}

impl Context {
    /// For a request; with the session and the slot for what it opens where subscriptions can be held.
    pub fn new(app: Arc<App>, caller: Caller, session: Option<(Arc<Handle>, Slot)>) -> Context {
        Context { app, caller, session }
    }

    /// The session that subscriptions and credentials live in; a clear error for requests that have none.
    pub fn session(&self) -> Result<&Arc<Handle>> {
        self.here().map(|(handle, _)| handle)
    }

    /// Lets a subscription begin as soon as this request's answer is on its way.
    pub fn open(&self, subscription: Subscription) -> Result<()> {
        let (_, slot) = self.here()?;
        *lock(slot) = Some(subscription);
        Ok(())
    }

    fn here(&self) -> Result<&(Arc<Handle>, Slot)> {
        self.session.as_ref().ok_or_else(|| {
            Error::new(Kind::NotAllowed, "this method needs a session that stays: call it on the WebSocket")
        })
    }
}
