//! What the acknowledgements of a subscription go to, for those that are acknowledged.

use std::sync::Arc;

use super::durable::{Durable, Receipt};
use crate::error::Result;
use crate::store::consumers::Owner;

/// Where acknowledgements go. Shared by the session's task and its requests.
#[derive(Clone)]
pub enum Acks {
    /// To a consumer that this subscription alone reads for.
    Durable(Arc<Durable>),
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
    /// Acknowledges everything up to `seq`. Takes no time: it is written down afterwards.
    pub fn ack(&self, seq: u64) -> Result<Receipt> {
        match self {
            Acks::Durable(durable) => durable.ack(seq),
        }
    }
    /// Waits until an acknowledgement is written down.
    pub async fn written(&self, receipt: Receipt) -> Result<()> {
        match self {
            Acks::Durable(durable) => durable.written(receipt).await,
        }
    }
    /// Waits, not for ever, until a subscription that was let go of has left its place.
    pub async fn left(&self) {
        match self {
            Acks::Durable(durable) => durable.left().await,
        }
    }
    /// Why the server ended the subscription, if it has.
    pub fn end(&self) -> Option<End> {
        match self {
            Acks::Durable(durable) => durable.end(),
        }
    }
    /// Whose the consumer is.
    pub(super) fn owner(&self) -> &Owner {
        match self {
            Acks::Durable(durable) => durable.owner(),
        }
    }
    /// Follows up what was heard of the consumer.
    pub(super) fn listen(&self) {
        match self {
            Acks::Durable(durable) => durable.listen(),
        }
    }
    /// How many more events may be delivered now.
    pub(super) fn room(&self) -> usize {
        match self {
            Acks::Durable(durable) => durable.room(),
        }
    }
    /// Notes what was delivered.
    pub(super) fn delivered(&self, delivered: Delivered<'_>) {
        match self {
            Acks::Durable(durable) => durable.delivered(delivered),
        }
    }
    /// The client was told that there is nothing more up to `seq`.
    pub(super) fn told(&self, seq: u64) {
        match self {
            Acks::Durable(durable) => durable.told(seq),
        }
    }
    /// Regularly: the consumer is in use, and its place moves past what is not for it.
    pub(super) fn keep(&self) {
        match self {
            Acks::Durable(durable) => durable.keep(),
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
        }
    }
}
