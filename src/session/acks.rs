//! What the acknowledgements of a subscription go to, for those that are acknowledged.

use std::sync::Arc;

use super::durable::{self, Durable};
use super::group::Group;
use crate::consumer_group::{Said, Verdict};
use crate::error::{Error, Result};
use crate::store::consumers::Owner;

/// Where acknowledgements go. Shared by the session's task and its requests.
#[derive(Clone)]
pub enum Acks {
    /// To a consumer that this subscription alone reads for.
    Durable(Arc<Durable>),
    /// To a group of which this subscription is a member.
    Group(Arc<Group>),
}

/// An acknowledgement that is to be written down.
pub enum Receipt {
    /// Of all events up to one.
    Durable(durable::Receipt),
    /// Of one event.
    Group(Said),
}

/// Why the server ended such a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Another subscription has the name now.
    TakenOver,
    /// The consumer was put to another place.
    Moved,
    /// The consumer was removed.
    Deleted,
}

impl End {
    /// As clients are told.
    pub fn reason(self) -> &'static str {
        match self {
            End::TakenOver => "taken over",
            End::Moved => "moved: subscribe again",
            End::Deleted => "deleted",
        }
    }
}

impl Acks {
    /// Acknowledges everything up to `seq`, in a group this event alone. Takes no time: it is written down afterwards.
    pub fn ack(&self, seq: u64, delivery: Option<u32>) -> Result<Receipt> {
        match self {
            Acks::Durable(durable) if delivery.is_none() => durable.ack(seq).map(Receipt::Durable),
            Acks::Durable(_) => Err(Error::invalid("deliveries", "only events of a group are counted")),
            Acks::Group(_) => self.say(seq, delivery, Verdict::Done),
        }
    }
    /// Says something about one event of a group: 400 if it is none.
    pub fn say(&self, seq: u64, delivery: Option<u32>, verdict: Verdict) -> Result<Receipt> {
        match self {
            Acks::Durable(_) => Err(Error::bad_request("sub: the subscription is not a member of a group")),
            Acks::Group(group) => group.say(seq, delivery, verdict).map(Receipt::Group),
        }
    }
    /// Waits until an acknowledgement is written down.
    pub async fn written(&self, receipt: Receipt) -> Result<()> {
        match (self, receipt) {
            (Acks::Durable(durable), Receipt::Durable(receipt)) => durable.written(receipt).await,
            (_, Receipt::Group(said)) => said.written().await,
            (Acks::Group(_), Receipt::Durable(_)) => Ok(()),
        }
    }
    /// The session that reads now, of a subscription that was taken over by one.
    pub(super) fn taker(&self) -> Option<String> {
        match self {
            Acks::Durable(durable) => durable.taker(),
            Acks::Group(_) => None,
        }
    }
    /// Waits, not for ever, until a subscription that was let go of has left its place.
    pub async fn left(&self) {
        match self {
            Acks::Durable(durable) => durable.left().await,
            Acks::Group(group) => group.left().await,
        }
    }
    /// Why the server ended the subscription, if it has.
    pub fn end(&self) -> Option<End> {
        match self {
            Acks::Durable(durable) => durable.end(),
            Acks::Group(group) => group.end(),
        }
    }
    /// Whose the consumer is.
    pub(super) fn owner(&self) -> &Owner {
        match self {
            Acks::Durable(durable) => durable.owner(),
            Acks::Group(group) => group.owner(),
        }
    }
    /// Follows up what was heard of the consumer.
    pub(super) fn listen(&self) {
        match self {
            Acks::Durable(durable) => durable.listen(),
            // Its group wakes the session.
            Acks::Group(_) => {}
        }
    }
    /// How many more events may be delivered now.
    pub(super) fn room(&self) -> usize {
        match self {
            Acks::Durable(durable) => durable.room(),
            // The group gives no more than there is room for.
            Acks::Group(_) => usize::MAX,
        }
    }
    /// Notes what was delivered.
    pub(super) fn delivered(&self, delivered: Delivered<'_>) {
        match self {
            Acks::Durable(durable) => durable.delivered(delivered),
            Acks::Group(_) => {}
        }
    }
    /// The client was told that there is nothing more up to `seq`.
    pub(super) fn told(&self, seq: u64) {
        match self {
            Acks::Durable(durable) => durable.told(seq),
            Acks::Group(_) => {}
        }
    }
    /// Regularly: the consumer is in use, and its place moves past what is not for it.
    pub(super) fn keep(&self) {
        match self {
            Acks::Durable(durable) => durable.keep(),
            Acks::Group(_) => {}
        }
    }
}

/// What came of looking at some events.
pub(super) struct Delivered<'a> {
    /// Everything up to here has been looked at.
    pub(super) looked: u64,
    /// In this epoch.
    pub(super) epoch: &'a Arc<str>,
    /// A range that is missing was told, which ends here.
    pub(super) gap: Option<u64>,
    /// The numbers of the events that were delivered, ascending.
    pub(super) events: &'a mut dyn Iterator<Item = u64>,
}

/// The part of it that a subscription holds: when it is dropped the place is kept and the consumer let go of.
pub struct Held(pub Acks);

impl Drop for Held {
    fn drop(&mut self) {
        match &self.0 {
            Acks::Durable(durable) => durable.leave(),
            Acks::Group(group) => group.leave(),
        }
    }
}
