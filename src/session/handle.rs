//! What operations see of the session that they run in.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::limits;
use super::subscription::Subscription;
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Error, Kind, Result};
use crate::hub::lock;
use crate::model::{ObjectId, Timestamp};
use crate::ops::Peer;

/// Shared by the session's task and its requests.
pub struct Handle {
    id: String,
    peer: Arc<Peer>,
    /// Whether credentials may be taken from where the page came from.
    origin_allowed: bool,
    state: Mutex<State>,
    large: Arc<Semaphore>,
    /// Wakes the session's task: the log has moved, or the state here has changed.
    pub(super) wake: Arc<Notify>,
}

#[derive(Default)]
struct State {
    caller: Caller,
    client: String,
    said_hello: bool,
    subs: BTreeSet<u32>,
    unsubscribed: BTreeSet<u32>,
}

impl Handle {
    pub(super) fn new(id: String, peer: Arc<Peer>, origin_allowed: bool, caller: Option<Caller>) -> Handle {
        let said_hello = caller.is_some();
        let state = State { said_hello, caller: caller.unwrap_or_default(), ..State::default() };
        let large = Arc::new(Semaphore::new(limits::LARGE));
        Handle { id, peer, origin_allowed, state: Mutex::new(state), large, wake: Arc::default() }
    }

    /// Identifies the session in logs.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// Where the client is.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
    /// What the client calls itself.
    pub fn client(&self) -> String {
        lock(&self.state).client.clone()
    }
    /// Keeps what the client calls itself, shortened.
    pub fn set_client(&self, name: &str) {
        lock(&self.state).client = name.chars().filter(|c| !c.is_control()).take(64).collect();
    }
    /// 403 if credentials are not accepted from this web origin.
    pub fn check_origin(&self) -> Result<()> {
        if self.origin_allowed {
            return Ok(());
        }
        Err(Error::new(Kind::Forbidden, "credentials are not accepted from this web origin"))
    }
    /// Whose session it is now; anonymous after the token's end.
    pub fn caller(&self) -> Caller {
        let caller = lock(&self.state).caller.clone();
        match caller.expires {
            Some(end) if end <= Timestamp::now() => Caller::default(),
            _ => caller,
        }
    }
    /// Whose session it is now, with the user as the store knows them: a deactivated one has no rights.
    pub async fn fresh_caller(&self, app: &App) -> Result<Caller> {
        let caller = self.caller();
        let Some(user) = &caller.user else { return Ok(caller) };
        let Some(user) = app.user(user.id).await? else { return Ok(Caller::default()) };
        Ok(Caller { user: Some(user), expires: caller.expires })
    }
    /// Sets whose session it is.
    pub fn set_caller(&self, caller: Caller) {
        lock(&self.state).caller = caller;
        self.wake.notify_one();
    }
    /// When the token ends, if there is one that has not ended.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        lock(&self.state).caller.expires
    }
    pub(super) fn downgrade(&self) {
        lock(&self.state).caller = Caller::default();
    }
    /// Takes this user's rights away, if it still is their session.
    pub(super) fn dismiss(&self, user: ObjectId) {
        let mut state = lock(&self.state);
        if state.caller.user.as_ref().is_some_and(|current| current.id == user) {
            state.caller = Caller::default();
            self.wake.notify_one();
        }
    }
    /// The session has said who it is, or that it is nobody.
    pub fn said_hello(&self) {
        lock(&self.state).said_hello = true;
    }
    pub(super) fn has_said_hello(&self) -> bool {
        lock(&self.state).said_hello
    }

    /// Waits for a place among the requests with large answers. It is given back when the answer goes out.
    pub(super) async fn place_for_large(&self) -> Option<OwnedSemaphorePermit> {
        self.large.clone().acquire_owned().await.ok()
    }

    /// Takes the number for a new subscription: 400 if it is in use, 429 if there are too many.
    pub fn reserve(self: &Arc<Self>, sub: u32) -> Result<Reserved> {
        let mut state = lock(&self.state);
        if state.subs.contains(&sub) {
            return Err(Error::bad_request(format!("sub: {sub} is in use in this session")));
        }
        if state.subs.len() >= limits::SUBSCRIPTIONS {
            let detail = format!("a session has at most {} subscriptions", limits::SUBSCRIPTIONS);
            return Err(Error::new(Kind::TooMany, detail));
        }
        state.subs.insert(sub);
        Ok(Reserved { handle: self.clone(), sub })
    }
    /// Ends a subscription: 404 if there is none. Its number is free again once the session has let go of it.
    pub fn unsubscribe(&self, sub: u32) -> Result<()> {
        let mut state = lock(&self.state);
        if !state.subs.contains(&sub) || !state.unsubscribed.insert(sub) {
            return Err(Error::not_found(format!("sub: there is no subscription {sub} in this session")));
        }
        self.wake.notify_one();
        Ok(())
    }
    /// Subscriptions to let go of.
    pub(super) fn unsubscribed(&self) -> BTreeSet<u32> {
        lock(&self.state).unsubscribed.clone()
    }
}

/// A number that is taken until this is dropped.
pub struct Reserved {
    handle: Arc<Handle>,
    /// The number.
    pub sub: u32,
}

impl Reserved {
    /// What to notify when the log has moved.
    pub fn wake(&self) -> Arc<Notify> {
        self.handle.wake.clone()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut state = lock(&self.handle.state);
        state.subs.remove(&self.sub);
        state.unsubscribed.remove(&self.sub);
    }
}

/// Where an operation puts the subscription that begins once its answer is on the way.
pub type Slot = Arc<Mutex<Option<Subscription>>>;
