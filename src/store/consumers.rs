//! Consumers: cursors that outlive connections, restarts and instances.
//!
//! A consumer is a place in one channel that belongs to a user. One with a name (`subscriber_id` of the long-poll API,
//! `durable` of the WebSocket) stays until nobody has used it for long; one without ends with its subscription. Who
//! reads for it holds its subscription id: taking a name over gives it a new id, and whatever still comes with
//! the old one finds no consumer. So the id is the fence, and it is unique over all instances.
//!
//! Within one subscription a long poll offers one event at a time. Every change of the cursor names the `turn` that it
//! was read at and raises it, so of two polls at once only one offers an event. What is offered becomes acknowledged by
//! the next poll, if it is known to have been handed to a live connection.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{ObjectId, Timestamp};

/// Where consumers are kept.
#[async_trait]
pub trait Consumers {
    /// Gives a new subscription id to the consumer of `new.name`, or to a new one that begins at `new.cursor`. What was
    /// offered under the old id and not acknowledged will be offered again.
    async fn open_consumer(&self, new: &NewConsumer) -> Result<Opened>;
    /// The consumer with this key.
    async fn consumer(&self, key: ConsumerKey<'_>) -> Result<Option<Consumer>>;
    /// Consumers in the order of their making, at most `limit`; of one user or of all.
    async fn consumers(&self, user: Option<&Owner>, limit: usize) -> Result<Vec<Consumer>>;
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
    /// Puts the consumer of this name to another place; whoever reads for it is fenced off. Whether there is one.
    async fn seek_consumer(&self, name: &str, cursor: &Cursor) -> Result<bool>;
    /// Removes the consumer of this name. Whether there was one.
    async fn delete_consumer(&self, name: &str) -> Result<bool>;
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
    /// What it is called, if it shall outlive its subscription; unique among all users.
    pub name: Option<String>,
    /// The channel.
    pub channel: String,
    /// Whose it is.
    pub owner: Owner,
    /// Whether it gets events of other owners, too.
    pub promiscuous: bool,
    /// Where it begins if it is new.
    pub cursor: Cursor,
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
    /// The name belongs to somebody else.
    Foreign,
    /// The name belongs to a consumer of this channel.
    OtherChannel(String),
    /// The name belongs to a group ([`super::ConsumerGroups`]).
    Group,
}

/// How to look a consumer up.
#[derive(Clone, Copy, Debug)]
pub enum ConsumerKey<'a> {
    /// By its present subscription.
    Id(u64),
    /// By its name.
    Name(&'a str),
}

/// A consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The present subscription, if there is one.
    pub id: Option<u64>,
    /// Its name.
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
}
