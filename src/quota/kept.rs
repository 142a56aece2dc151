//! What stays until somebody removes it, or until its time is over: how much of it one user may have, on all instances
//! together. It is counted where it is kept, with what it counts, so a count is never wrong for long.

use std::hash::{BuildHasher, Hash, RandomState};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

use crate::config;
use crate::error::{Error, Kind};
use crate::metrics;
use crate::model::{ObjectId, User};

/// A superuser has so many times as much: somebody's mistake still does not take everything.
const SUPERUSERS: u64 = 10;

/// Something for each thing that stays: how much of it somebody has, or may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Kept_of_{T}")]
pub struct Kept<T> {
    /// Queues that hold items of the user's.
    pub queues: T,
    /// Bytes of these items.
    pub queued_bytes: T,
    /// Named consumers: durable subscriptions, groups, long polls with a `subscriber_id`.
    pub consumers: T,
    /// Long-poll subscriptions without a name.
    pub unnamed_consumers: T,
    /// Channels that began with an event of the user's, or a dead letter of a group of theirs, and have not ended.
    pub channels: T,
    /// Keys whose values the user has set.
    pub keys: T,
    /// Bytes of these keys and values.
    pub key_bytes: T,
    /// Named tokens.
    pub tokens: T,
}

/// A thing that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// [`Kept::queues`].
    Queues,
    /// [`Kept::queued_bytes`].
    QueuedBytes,
    /// [`Kept::consumers`].
    Consumers,
    /// [`Kept::unnamed_consumers`].
    UnnamedConsumers,
    /// [`Kept::channels`].
    Channels,
    /// [`Kept::keys`].
    Keys,
    /// [`Kept::key_bytes`].
    KeyBytes,
    /// [`Kept::tokens`].
    Tokens,
}

/// How a refusal speaks of a thing.
struct Words {
    name: &'static str,
    what: &'static str,
    /// When there is room again.
    hint: &'static str,
    /// It goes without the user's doing, and after how many milliseconds that may be: the refusal is temporary.
    goes_after_ms: Option<u64>,
}

impl Thing {
    const fn words(self) -> Words {
        const fn words(name: &'static str, what: &'static str, hint: &'static str) -> Words {
            Words { name, what, hint, goes_after_ms: None }
        }
        const fn goes(ms: u64, words: Words) -> Words {
            Words { goes_after_ms: Some(ms), ..words }
        }
        match self {
            Thing::Queues => {
                goes(5_000, words("queues", "queues with items", "until one of them has been emptied"))
            }
            Thing::QueuedBytes => {
                goes(5_000, words("queued_bytes", "bytes of items in queues", "until some have been taken"))
            }
            Thing::Consumers => words("consumers", "named consumers", "delete one that is not needed"),
            Thing::UnnamedConsumers => goes(
                60_000,
                words(
                    "unnamed_consumers",
                    "subscriptions without a subscriber_id",
                    "end one, or wait until one that nobody polls is dropped",
                ),
            ),
            Thing::Channels => {
                words("channels", "channels", "one ends when its events are older than is kept")
            }
            Thing::Keys => words("keys", "keys", "remove some"),
            Thing::KeyBytes => words("key_bytes", "bytes of keys and values", "remove some"),
            Thing::Tokens => words("tokens", "tokens", "revoke one"),
        }
    }
}

impl<T: Copy> Kept<T> {
    /// That of one thing.
    pub fn of(&self, thing: Thing) -> T {
        match thing {
            Thing::Queues => self.queues,
            Thing::QueuedBytes => self.queued_bytes,
            Thing::Consumers => self.consumers,
            Thing::UnnamedConsumers => self.unnamed_consumers,
            Thing::Channels => self.channels,
            Thing::Keys => self.keys,
            Thing::KeyBytes => self.key_bytes,
            Thing::Tokens => self.tokens,
        }
    }

    /// Both for each thing.
    pub fn with<U, R>(self, other: Kept<U>, both: impl Fn(T, U) -> R) -> Kept<R> {
        Kept {
            queues: both(self.queues, other.queues),
            queued_bytes: both(self.queued_bytes, other.queued_bytes),
            consumers: both(self.consumers, other.consumers),
            unnamed_consumers: both(self.unnamed_consumers, other.unnamed_consumers),
            channels: both(self.channels, other.channels),
            keys: both(self.keys, other.keys),
            key_bytes: both(self.key_bytes, other.key_bytes),
            tokens: both(self.tokens, other.tokens),
        }
    }
}

/// A user, and how much they may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Whose things are counted.
    pub user: ObjectId,
    /// The most of each.
    pub most: Kept<u64>,
}

impl Share {
    /// That of this user.
    pub fn new(user: &User, settings: &config::Quotas) -> Share {
        let most = settings.kept();
        let times = if user.is_superuser { SUPERUSERS } else { 1 };
        Share { user: user.id, most: most.with(most, |most, _| most.saturating_mul(times)) }
    }

    /// Whether somebody who has `used` may have `more` of it.
    pub fn room(&self, thing: Thing, used: u64, more: u64) -> Result<(), Over> {
        let most = self.most.of(thing);
        match used.saturating_add(more) > most {
            true => Err(Over { thing, used, most }),
            false => Ok(()),
        }
    }
}

/// More is asked for than a user may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// Of what.
    pub thing: Thing,
    /// How much there is.
    pub used: u64,
    /// How much there may be.
    pub most: u64,
}

/// 409: it stands against what the user has already, who has to remove something first; asked again it is refused again.
/// (Not 403: it is no question of rights.) Where it frees itself, 429, which is worth another try.
impl From<Over> for Error {
    fn from(over: Over) -> Error {
        let Over { thing, used, most } = over;
        let Words { name, what, hint, goes_after_ms } = thing.words();
        metrics::QUOTA_REFUSALS.counter(&[name]).increment(1);
        let detail = format!("a user has at most {most} {what}, and you have {used}: {hint}");
        let error = match goes_after_ms {
            Some(ms) => Error::new(Kind::TooMany, detail).retry_after(ms),
            None => Error::new(Kind::Conflict, detail),
        };
        error.with("quota", json!({"name": name, "used": used, "most": most}))
    }
}

/// Lanes of users. Who shares one waits a little longer, no more.
const LANES: usize = 1 << 10;

/// One at a time for each user, or whatever it is for, on this instance, in the order in which they came.
///
/// Counting what there is and adding to it belong together, where the store does not see to that. So of many requests at
/// once as many get through as there are instances, at the most, beyond what a user may have.
pub struct Lanes {
    lanes: Box<[Mutex<()>]>,
    seed: RandomState,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes { lanes: (0..LANES).map(|_| Mutex::default()).collect(), seed: RandomState::new() }
    }
}

impl Lanes {
    /// Waits until nobody else is at work for this user.
    pub async fn of(&self, user: impl Hash) -> MutexGuard<'_, ()> {
        self.lanes[self.seed.hash_one(user) as usize % LANES].lock().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_what_there_is() {
        let most = Kept { consumers: 500, queues: 3, ..Kept::default() };
        let share = Share { user: ObjectId::new(), most };
        share.room(Thing::Consumers, 499, 1).unwrap();
        let error = Error::from(share.room(Thing::Consumers, 500, 1).unwrap_err());
        assert_eq!((error.status(), error.retry_after_ms()), (409, None));
        let detail =
            "a user has at most 500 named consumers, and you have 500: delete one that is not needed";
        assert_eq!(error.detail(), detail);
        assert_eq!(error.to_rpc()["data"]["quota"], json!({"name": "consumers", "used": 500, "most": 500}));
        assert_eq!(error.to_rpc()["data"]["temporary"], false);
        let error = Error::from(share.room(Thing::Queues, 3, 1).unwrap_err());
        assert_eq!((error.status(), error.retry_after_ms()), (429, Some(5_000)), "it frees itself");
    }
}
