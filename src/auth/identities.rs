//! Who the bearers of tokens are now: active or not, with which rights, with a token that still counts.
//!
//! What the store said is believed for a second, and no longer than until somebody signals a change of that user:
//! so a revocation acts at once on every instance, and within a second where the signal got lost.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Caller;
use super::tokens::Token;
use crate::error::Result;
use crate::model::{ObjectId, Scope, Timestamp, User};
use crate::signals::{Listener, Signals};
use crate::store::{Store, UserKey};
use crate::sync::{Bell, lock};

/// How long the store's word is believed.
const MEMORY: Duration = Duration::from_secs(1);
/// How often who waits for a token's end looks by themselves.
const RECHECK: Duration = Duration::from_secs(25);
const MOST_REMEMBERED: usize = 10_000;

/// See the module's documentation.
pub struct Identities {
    store: Arc<dyn Store>,
    signals: Arc<dyn Signals>,
    users: Memory<ObjectId, Option<Arc<User>>>,
    tokens: Memory<Arc<str>, Option<Scope>>,
    /// Uses of named tokens that the store has not been told of.
    used: Mutex<HashMap<ObjectId, Timestamp>>,
}

impl Identities {
    /// Knows nobody yet.
    pub fn new(store: Arc<dyn Store>, signals: Arc<dyn Signals>) -> Identities {
        let (users, tokens) = (Memory::default(), Memory::default());
        Identities { store, signals, users, tokens, used: Mutex::default() }
    }

    /// Who this token speaks for; `None` if its user is not active or it does not count any more.
    pub async fn caller(&self, token: &Arc<Token>) -> Result<Option<Caller>> {
        if token.expires.is_some_and(|end| end <= Timestamp::now()) {
            return Ok(None);
        }
        let Some(user) = self.user(token.user).await?.filter(|user| token.is_current(user)) else {
            return Ok(None);
        };
        let Some(scope) = self.scope(token).await? else { return Ok(None) };
        Ok(Some(Caller { user: Some(user), token: Some(token.clone()), scope }))
    }

    /// An active user.
    async fn user(&self, id: ObjectId) -> Result<Option<Arc<User>>> {
        if let Some(user) = self.users.get(&id) {
            return Ok(user);
        }
        // Listening comes first, so that no change falls between.
        let changes = self.changes(id);
        let user = self.store.user(UserKey::Id(id)).await?.filter(|user| user.is_active).map(Arc::new);
        self.users.put(id, user.clone(), changes);
        Ok(user)
    }

    /// What the token may do; `None` if it has been revoked.
    async fn scope(&self, token: &Token) -> Result<Option<Scope>> {
        if let Some(scope) = self.tokens.get(&token.key) {
            return Ok(scope);
        }
        let changes = self.changes(token.user);
        let scope = match token.named {
            None => (!self.store.is_ended(&token.key).await?).then_some(Scope::Full),
            Some(id) => {
                let named = self.store.token(id).await?.filter(|named| named.user == token.user);
                named.map(|named| named.scope)
            }
        };
        if let (Some(id), Some(_)) = (token.named, &scope) {
            lock(&self.used).insert(id, Timestamp::now());
        }
        self.tokens.put(token.key.clone(), scope.clone(), changes);
        Ok(scope)
    }

    /// Hears of changes of this user or of their tokens, from now on.
    pub fn changes(&self, user: ObjectId) -> Listener {
        self.signals.listen(&topic(user))
    }

    /// As [`Identities::changes`], for somebody who waits for other things as well.
    pub fn changes_with(&self, user: ObjectId, wake: Arc<Bell>) -> Listener {
        self.signals.listen_with(&topic(user), wake)
    }

    /// Returns when this token does not count any more.
    pub async fn lost(&self, token: &Arc<Token>) {
        let changes = self.changes(token.user);
        while !matches!(self.caller(token).await, Ok(None)) {
            self.news(token, &changes).await;
        }
    }

    /// Returns when something may have changed about this token and its user, of whose changes one hears.
    pub async fn news(&self, token: &Token, changes: &Listener) {
        let left = token.expires.map_or(RECHECK, |end| {
            Duration::from_millis((end.millis() - Timestamp::now().millis()).max(1) as u64).min(RECHECK)
        });
        let _ = tokio::time::timeout(left, changes.heard()).await;
    }

    /// This user or one of their tokens has changed in the store: tells everybody, on every instance.
    pub async fn changed(&self, user: ObjectId) {
        self.signals.send(&topic(user)).await;
    }

    /// When a named token was last used, as far as this instance knows and the store does not.
    pub fn last_used(&self, token: ObjectId) -> Option<Timestamp> {
        lock(&self.used).get(&token).copied()
    }

    /// Tells the store when named tokens were used: now and then, not with every request.
    pub async fn note_uses(&self) {
        let used: Vec<_> = std::mem::take(&mut *lock(&self.used)).into_iter().collect();
        if let Err(error) = self.store.touch_tokens(&used).await {
            tracing::warn!(%error, "uses of named tokens were not noted");
        }
    }
}

fn topic(user: ObjectId) -> String {
    format!("user:{user}")
}

/// What was known a moment ago.
struct Memory<K, V> {
    entries: Mutex<HashMap<K, Entry<V>>>,
}

struct Entry<V> {
    value: V,
    at: Instant,
    changes: Listener,
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Memory { entries: Mutex::default() }
    }
}

impl<V> Entry<V> {
    fn is_good(&self) -> bool {
        self.at.elapsed() < MEMORY && !self.changes.take()
    }
}

impl<K: Hash + Eq, V: Clone> Memory<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let mut entries = lock(&self.entries);
        let entry = entries.get(key)?;
        if entry.is_good() {
            return Some(entry.value.clone());
        }
        entries.remove(key);
        None
    }

    fn put(&self, key: K, value: V, changes: Listener) {
        let mut entries = lock(&self.entries);
        if entries.len() >= MOST_REMEMBERED {
            entries.retain(|_, entry| entry.at.elapsed() < MEMORY);
        }
        if entries.len() >= MOST_REMEMBERED {
            entries.clear();
        }
        entries.insert(key, Entry { value, at: Instant::now(), changes });
    }
}
