//! The shared part of consumers that several connections read for: what a group knows is kept beside its consumer.
//!
//! The store does not look into it: what may happen is the business of [`crate::consumer_group::state`], which exists
//! once. It offers what makes that safe with many instances: whoever writes names the `turn` that it has read, and of
//! several at once one gets through. The consumer's `id` names the run of a group: moving it ([`seek_consumer`]) ends the
//! run, and what still comes with the old id finds nothing.
//!
//! [`seek_consumer`]: super::Consumers::seek_consumer

use async_trait::async_trait;

use super::consumers::{Consumer, Cursor, NewConsumer};
use crate::error::Result;
use crate::model::Timestamp;
use crate::quota::Over;

/// Where groups are kept.
#[async_trait]
pub trait ConsumerGroups {
    /// The owner's group of this name as it stands, or a new one with these settings. One that was moved begins a new run: with an
    /// id of its own and without a state.
    async fn open_consumer_group(&self, new: &NewConsumer, settings: &str) -> Result<OpenedGroup>;
    /// The group in this run; `None`: it has been moved or removed.
    async fn consumer_group(&self, id: u64) -> Result<Option<KeptGroup>>;
    /// Writes the state, and the place up to which everything is done, if the group still is at this turn, which
    /// becomes the next one. Notes that it was used now. Whether it was written.
    async fn move_consumer_group(&self, id: u64, turn: u64, cursor: &Cursor, state: &str) -> Result<bool>;
}

/// A group as it is kept.
#[derive(Clone, Debug)]
pub struct KeptGroup {
    /// Its consumer, with its place and turn.
    pub consumer: Consumer,
    /// What it was made with.
    pub settings: String,
    /// `None`: this run has not begun yet.
    pub state: Option<String>,
    /// The store's clock when this was read.
    pub now: Timestamp,
}

/// How opening ended.
#[derive(Clone, Debug)]
pub enum OpenedGroup {
    /// It is there.
    Open(Box<KeptGroup>),
    /// The owner has as many consumers as they may have.
    Over(Over),
    /// The name belongs to a consumer of this channel.
    OtherChannel(String),
    /// The name belongs to a consumer that is no group.
    NoGroup,
}
