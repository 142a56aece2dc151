//! Consumers: cursors that outlive connections, restarts and instances.
//!
//! A consumer is a place in one channel that belongs to a user. One with a name (`subscriber_id` of the long-poll API,
//! `durable` of the WebSocket) stays until nobody has used it for long; one without ends with its subscription. Who
//! reads for it holds its subscription id: taking a name over gives it a new id, and whatever still comes with
//! the old one finds no consumer. So the id is the fence, and it is unique over all instances.
//!
//! # Names
//!
//! Users choose names, and each has names of their own: nobody can take what a daemon of somebody else will be called. The
//! first user of a name has it plain, as KernelCI's own server stores it, and so has whom it is reserved for
//! ([`Consumers::reserve_consumer`]). What others call the same is stored as `<user>/<name>` ([`Owner::apart`]), with the
//! user's id: the names of users change. No other name looks like that ([`is_apart`]).
//!
//! Within one subscription a long poll offers one event at a time. Every change of the cursor names the `turn` that it
//! was read at and raises it, so of two polls at once only one offers an event. What is offered becomes acknowledged by
//! the next poll, if it is known to have been handed to a live connection.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{ObjectId, Timestamp};
use crate::quota::{Over, Share};

/// Where consumers are kept.
#[async_trait]
pub trait Consumers {
    /// Gives a new subscription id to the owner's consumer of `new.name`, or to a new one that begins at `new.cursor`. What
    /// was offered under the old id and not acknowledged will be offered again.
    async fn open_consumer(&self, new: &NewConsumer) -> Result<Opened>;
    /// The consumer with this key.
    async fn consumer(&self, key: ConsumerKey<'_>) -> Result<Option<Consumer>>;
    /// Consumers in the order of their making, at most `limit`; of one user or of all.
    async fn consumers(&self, user: Option<&Owner>, limit: usize) -> Result<Vec<Consumer>>;
    /// How many a user has, with a name and without.
    async fn count_consumers(&self, user: ObjectId) -> Result<(u64, u64)>;
    /// Writes the cursor if the subscription still is at this turn, which becomes the next one, and notes that it was
    /// used now. Whether it was.
    async fn move_consumer(&self, id: u64, turn: u64, cursor: &Cursor) -> Result<bool>;
    /// What became of the event that was offered at this turn: it was handed over, or it was not and is taken back.
    /// Without effect when the consumer has moved on.
    async fn settle_consumer(&self, id: u64, turn: u64, handed: bool) -> Result<()>;
    /// Acknowledges everything up to `seq` in `epoch`: the position only moves forward. Notes that the consumer was
    /// used now. Whether there is such a subscription.
    async fn ack_consumer(&self, id: u64, epoch: &str, seq: u64) -> Result<bool>;
    /// Notes that the subscription is used now. Whether there is one.
    async fn touch_consumer(&self, id: u64) -> Result<bool>;
    /// Ends a subscription: a consumer with a name stays, without an id. Whether there was one.
    async fn close_consumer(&self, id: u64) -> Result<bool>;
    /// Puts the consumer that is stored under this name to another place; whoever reads for it is fenced off. Whether there is one.
    async fn seek_consumer(&self, name: &str, cursor: &Cursor) -> Result<bool>;
    /// Removes the consumer that is stored under this name. Whether there was one.
    async fn delete_consumer(&self, name: &str) -> Result<bool>;
    /// Removes all consumers of a user, and what is reserved for them.
    async fn delete_consumers_of(&self, user: &Owner) -> Result<()>;
    /// From now on a new consumer of this name is stored plain only if it is this user's; `None`: whoever comes first.
    async fn reserve_consumer(&self, name: &str, user: Option<ObjectId>) -> Result<Reserved>;
    /// The names that are reserved, in their order, and for whom.
    async fn reserved_consumers(&self) -> Result<Vec<(String, ObjectId)>>;
    /// Removes consumers that were not used for so many seconds: those without a name, and those with one. How many of
    /// each.
    async fn expire_consumers(&self, unnamed_after: u64, named_after: u64) -> Result<(u64, u64)>;
}

/// Whose a consumer is. Consumers of KernelCI's own server know the name only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user; `None` in old documents.
    pub id: Option<ObjectId>,
    /// The name that the user had when the consumer was last opened.
    pub name: String,
}

impl Owner {
    /// Whether these are the same user: by id where both are known, since names may pass from one user to another.
    pub fn is(&self, other: &Owner) -> bool {
        match (self.id, other.id) {
            (Some(one), Some(another)) => one == another,
            _ => self.name == other.name,
        }
    }

    /// What the owner's consumer of this name is stored as if another user has the name.
    pub fn apart(&self, name: &str) -> String {
        self.id.map_or_else(|| name.to_owned(), |id| format!("{id}/{name}"))
    }
}

/// Bytes that [`Owner::apart`] adds to a name.
pub const APART: usize = 25;

/// Names that may be reserved.
pub const MOST_RESERVED: u64 = 1000;

/// Whether a name looks as if it was stored apart, or, with a dot, as its channel of dead letters does.
pub fn is_apart(name: &str) -> bool {
    owner_in_name(name).is_some()
}

/// Whose it is by its name, if the name looks as if it was stored apart, or as its channel of dead letters.
pub fn owner_in_name(name: &str) -> Option<ObjectId> {
    let (id, rest) = name.split_at_checked(APART - 1)?;
    if rest.starts_with(['/', '.']) { id.parse().ok() } else { None }
}

/// A place in a channel, and what is on its way from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// What the numbers count in when they were written; empty: in that of KernelCI's own server.
    pub epoch: String,
    /// Everything up to here is acknowledged.
    pub seq: u64,
    /// This event was offered and is not acknowledged.
    pub offered: Option<u64>,
    /// What was offered was handed to a live connection.
    pub handed: bool,
}

impl Cursor {
    /// Behind `seq`, with nothing on its way.
    pub fn at(epoch: &str, seq: u64) -> Cursor {
        Cursor { epoch: epoch.to_owned(), seq, offered: None, handed: false }
    }
    /// Whether it is not known yet what became of the offered event.
    pub fn is_pending(&self) -> bool {
        self.offered.is_some() && !self.handed
    }
    /// Where the next event is looked for by somebody who has got what was handed over.
    pub fn acknowledged(&self) -> u64 {
        match self.offered {
            Some(offered) if self.handed => offered.max(self.seq),
            _ => self.seq,
        }
    }
}

/// A consumer to open.
#[derive(Clone, Debug)]
pub struct NewConsumer {
    /// What its owner calls it, if it shall outlive its subscription.
    pub name: Option<String>,
    /// The channel.
    pub channel: String,
    /// Whose it is.
    pub owner: Owner,
    /// Whether it gets events of other owners, too.
    pub promiscuous: bool,
    /// Where it begins if it is new.
    pub cursor: Cursor,
    /// How many consumers the owner may have; `None`: as many as they like.
    pub share: Option<Share>,
    /// The session that reads for it, if one does.
    pub session: Option<String>,
}

/// How opening ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is open under this id. `taken_over`: the id that the consumer had before.
    Open {
        /// The consumer as it stands now.
        consumer: Box<Consumer>,
        /// The subscription that this one ends.
        taken_over: Option<u64>,
    },
    /// The owner has as many as they may have.
    Over(Over),
    /// The name belongs to a consumer of this channel.
    OtherChannel(String),
    /// The name belongs to a group ([`super::ConsumerGroups`]).
    Group,
}

/// How reserving a name ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It is.
    Done,
    /// Nothing was changed: there is a consumer of this name, of this user.
    Taken(Owner),
    /// Nothing was changed: there are [`MOST_RESERVED`].
    TooMany,
}

/// How to look a consumer up.
#[derive(Clone, Copy, Debug)]
pub enum ConsumerKey<'a> {
    /// By its present subscription.
    Id(u64),
    /// By what it is stored as.
    Name(&'a str),
    /// By what its owner calls it.
    Own(&'a Owner, &'a str),
}

/// A consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The present subscription, if there is one.
    pub id: Option<u64>,
    /// What it is stored as.
    pub name: Option<String>,
    /// The channel.
    pub channel: String,
    /// Whose it is.
    pub owner: Owner,
    /// Whether it gets events of other owners, too.
    pub promiscuous: bool,
    /// Where it stands.
    pub cursor: Cursor,
    /// Raised by every change of the cursor.
    pub turn: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last used.
    pub last_poll: Option<Timestamp>,
    /// What it was made with, if it is a group ([`super::ConsumerGroups`]).
    pub group: Option<String>,
    /// The session that opened it last, if one did.
    pub session: Option<String>,
}

impl Consumer {
    /// What its owner calls it.
    pub fn own_name(&self) -> Option<&str> {
        let name = self.name.as_deref()?;
        let id = self.owner.id.map(ObjectId::to_hex).unwrap_or_default();
        Some(name.strip_prefix(&*id).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name))
    }
}

/// Of the consumers that are stored under a name and apart from it, the owner's: the plain one if there should be two.
pub(super) fn own(found: Vec<Consumer>, owner: &Owner, name: &str) -> Option<Consumer> {
    let mut own: Vec<Consumer> = found.into_iter().filter(|one| one.owner.is(owner)).collect();
    own.sort_by_key(|one| one.name.as_deref() != Some(name));
    own.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_stored_apart_cannot_be_chosen() {
        let owner = Owner { id: Some(ObjectId::new()), name: "a/b".to_owned() };
        let apart = owner.apart("lab/1");
        assert_eq!(apart.len(), "lab/1".len() + APART);
        assert!(is_apart(&apart) && is_apart(&apart.replace('/', ".")) && is_apart(&apart.to_uppercase()));
        for name in ["", "lab", "a/b/c", "staging.kernelci.org/scheduler:node", &"0".repeat(24), "0123/x"] {
            assert!(!is_apart(name), "{name}");
        }
        assert!(!is_apart(&format!("{}x/y", "0".repeat(24))) && !is_apart(&"ü/".repeat(13)));
    }
}
