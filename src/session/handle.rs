//! What operations see of the session that they run in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::acks::Acks;
use super::limits::{self, Limits};
use super::subscription::Subscription;
use crate::app::App;
use crate::auth::Caller;
use crate::auth::tokens::Token;
use crate::error::{Error, Kind, Result};
use crate::model::Timestamp;
use crate::ops::Peer;
use crate::signals::Listener;
use crate::sync::{Bell, lock};

/// Shared by the session's task and its requests.
pub struct Handle {
    id: String,
    peer: Arc<Peer>,
    limits: Arc<Limits>,
    state: Mutex<State>,
    large: Arc<Semaphore>,
    /// Bytes of the longest message that the client takes; 0: it has not said so.
    longest: AtomicUsize,
    /// Wakes the session's task: the log has moved, or the state here has changed.
    pub(super) wake: Arc<Bell>,
}

#[derive(Default)]
struct State {
    caller: Caller,
    /// Hears of changes of the caller.
    changes: Option<Listener>,
    client: String,
    said_hello: bool,
    subs: BTreeSet<u32>,
    unsubscribed: BTreeSet<u32>,
    /// Bytes of filters of subscriptions.
    filters: usize,
    /// What acknowledgements go to; also of subscriptions that the server has ended, until their number is taken again.
    acks: BTreeMap<u32, Acks>,
}

/// What has happened to a session's shared state since its task looked last.
pub(super) struct News {
    /// Something about the caller may have changed.
    pub(super) changed: bool,
    /// Subscriptions to let go of.
    pub(super) unsubscribed: BTreeSet<u32>,
}

impl Handle {
    pub(super) fn new(id: String, peer: Arc<Peer>, limits: Arc<Limits>) -> Handle {
        let large = Arc::new(Semaphore::new(limits.large_answers));
        Handle {
            id,
            peer,
            limits,
            state: Mutex::default(),
            large,
            longest: AtomicUsize::new(0),
            wake: Arc::default(),
        }
    }

    /// Identifies the session in logs.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// What the session may have.
    pub fn limits(&self) -> &Limits {
        &self.limits
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
    /// The client takes messages of so many bytes.
    pub fn takes(&self, bytes: usize) {
        self.longest.store(bytes, Relaxed);
    }
    /// Bytes of the longest answer that the client takes, as far as it has said so.
    pub fn longest_answer(&self) -> usize {
        match self.longest.load(Relaxed) {
            0 => usize::MAX,
            longest => longest,
        }
    }
    /// Whose session it is now; anonymous after the token's end.
    pub fn caller(&self) -> Caller {
        let caller = lock(&self.state).caller.clone();
        match caller.expires() {
            Some(end) if end <= Timestamp::now() => Caller::default(),
            _ => caller,
        }
    }
    /// Whose session it is now, with the user and the token as the store knows them: who has been deactivated or
    /// logged out has no rights.
    pub async fn fresh_caller(&self, app: &App) -> Result<Caller> {
        match self.caller().token {
            Some(token) => Ok(app.known(&token).await?.unwrap_or_default()),
            None => Ok(Caller::default()),
        }
    }
    /// Sets whose session it is, and listens for their changes from now on.
    pub fn set_caller(&self, app: &App, caller: Caller) {
        let listen = |token: &Arc<Token>| app.identities.changes_with(token.user, self.wake.clone());
        let changes = caller.token.as_ref().map(listen);
        let mut state = lock(&self.state);
        (state.caller, state.changes) = (caller, changes);
        drop(state);
        self.wake.call();
    }
    /// What has happened since the last time.
    pub(super) fn news(&self) -> News {
        let state = lock(&self.state);
        let changed = state.changes.as_ref().is_some_and(Listener::take);
        News { changed, unsubscribed: state.unsubscribed.clone() }
    }
    /// Subscriptions to let go of.
    pub(super) fn unsubscribed(&self) -> BTreeSet<u32> {
        lock(&self.state).unsubscribed.clone()
    }
    /// When the token ends, if there is one that has not ended.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        lock(&self.state).caller.expires()
    }
    pub(super) fn downgrade(&self) {
        let mut state = lock(&self.state);
        (state.caller, state.changes) = (Caller::default(), None);
    }
    /// The user with this token may do less, or more, than they might.
    pub(super) fn renew(&self, caller: &Caller) {
        let mut state = lock(&self.state);
        let (now, before) = (caller.user.as_deref(), state.caller.user.as_deref());
        let is_news = now.map(|user| user.is_superuser) != before.map(|user| user.is_superuser);
        if is_news && state.caller.token == caller.token {
            state.caller = caller.clone();
            drop(state);
            self.wake.call();
        }
    }
    /// Takes the rights of this token away, if it still is the session's.
    pub(super) fn dismiss(&self, token: &Token) {
        let is_current = lock(&self.state).caller.token.as_deref() == Some(token);
        if is_current {
            self.downgrade();
            self.wake.call();
        }
    }
    /// The session has said who it is, or that it is nobody.
    pub fn said_hello(&self) {
        lock(&self.state).said_hello = true;
    }
    pub(super) fn has_said_hello(&self) -> bool {
        lock(&self.state).said_hello
    }

    /// Bytes that a message may have now.
    pub fn longest_message(&self) -> usize {
        match self.caller().user {
            Some(_) => self.limits.message,
            None if self.has_said_hello() => self.limits.message_of_strangers,
            None => limits::MESSAGE_BEFORE_HELLO,
        }
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
        let most = self.limits.subscriptions;
        if state.subs.len() >= most {
            let detail = format!("a session has at most {most} subscriptions");
            return Err(Error::new(Kind::TooMany, detail));
        }
        state.subs.insert(sub);
        state.acks.remove(&sub);
        Ok(Reserved { handle: self.clone(), sub, filter: 0 })
    }
    /// Ends a subscription: 404 if there is none. Its number is free again once the session has let go of it.
    pub fn unsubscribe(&self, sub: u32) -> Result<()> {
        let mut state = lock(&self.state);
        if !state.subs.contains(&sub) || !state.unsubscribed.insert(sub) {
            return Err(unknown(sub));
        }
        self.wake.call();
        Ok(())
    }
    /// What acknowledgements of a subscription go to: 404 if there is none, 400 if it is not acknowledged.
    pub fn acks(&self, sub: u32) -> Result<Acks> {
        let state = lock(&self.state);
        match state.acks.get(&sub) {
            Some(acks) => Ok(acks.clone()),
            None if state.subs.contains(&sub) => {
                Err(Error::bad_request(format!("sub: subscription {sub} is not durable")))
            }
            None => Err(unknown(sub)),
        }
    }
}

fn unknown(sub: u32) -> Error {
    Error::not_found(format!("sub: there is no subscription {sub} in this session"))
}

/// A number that is taken until this is dropped.
pub struct Reserved {
    handle: Arc<Handle>,
    /// The number.
    pub sub: u32,
    /// Bytes of this subscription's filter.
    filter: usize,
}

impl Reserved {
    /// Counts the bytes of this subscription's filter: 429 if the session has too many.
    pub fn weigh(&mut self, filter: usize) -> Result<()> {
        let mut state = lock(&self.handle.state);
        let most = self.handle.limits.filters;
        if state.filters + filter > most {
            let detail = format!(
                "filter: the regular expressions and lists of a session's subscriptions have at most {most} bytes, compiled"
            );
            return Err(Error::new(Kind::TooMany, detail));
        }
        state.filters += filter;
        self.filter += filter;
        Ok(())
    }
    /// What to notify when the log has moved.
    pub fn wake(&self) -> Arc<Bell> {
        self.handle.wake.clone()
    }
    /// Bytes of the longest event that the client is sent: as long as a message may be that it sends, unless it has said
    /// otherwise.
    pub(super) fn longest_frame(&self) -> usize {
        match self.handle.longest.load(Relaxed) {
            0 => self.handle.limits.message,
            longest => longest,
        }
    }
    /// Says what acknowledgements of this subscription go to.
    pub fn acknowledged_to(&self, acks: Acks) {
        let mut state = lock(&self.handle.state);
        if state.acks.len() >= 2 * self.handle.limits.subscriptions {
            state.acks.retain(|_, acks| acks.end().is_none());
        }
        state.acks.insert(self.sub, acks);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut state = lock(&self.handle.state);
        state.subs.remove(&self.sub);
        state.unsubscribed.remove(&self.sub);
        state.filters -= self.filter;
        if state.acks.get(&self.sub).is_some_and(|acks| acks.end().is_none()) {
            state.acks.remove(&self.sub);
        }
    }
}

/// Where an operation puts the subscription that begins once its answer is on the way.
pub type Slot = Arc<Mutex<Option<Subscription>>>;
