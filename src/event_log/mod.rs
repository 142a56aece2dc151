//! The event log: per channel an ordered, retained log of events with dense increasing sequence numbers.
//!
//! Everything that is realtime reads from here: a subscription is a position in a log, and being live just means
//! having caught up. Two implementations: [`sqlite`] (the store's own file, in-process wake-ups) and [`redis`]
//! (Streams for order and the hot window, MongoDB for history).
//!
//! * Order: an event's place is given once, atomically with its append; numbers are dense; nothing becomes visible
//!   behind a reader. With its place an event gets its time, later than that of every other one on any channel: who reads
//!   by time goes on behind the last time and misses nothing.
//! * Exactly once: an event id stands in a log at most once, however often its relay was repeated.
//! * No silent hole: a reader whose next event is no longer retained is told the exact range ([`Read::gap`]).
//! * A channel begins with its first event, and ends when it has none any more. Its numbers are not given again.

pub(crate) mod ended;
pub mod redis;
pub mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::filter::Filter;
use crate::model::event::Entry;
use crate::model::{Event, EventTime, ObjectId, Position};

/// See the module's documentation for what every implementation promises.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Fails with 503 when the log cannot be reached now, or takes no writes.
    async fn ping(&self) -> Result<()>;
    /// The position of the newest event of a channel. A channel begins with its first event: before that, and when it
    /// has ended, readers stand where the first event will follow. Asking leaves nothing behind.
    async fn head(&self, channel: &str) -> Result<Position>;
    /// Whether the channel has begun and not ended.
    async fn exists(&self, channel: &str) -> Result<bool>;
    /// The head after a closer look, for a reader who says that it has seen more than [`EventLog::head`] tells: the log
    /// may be about to find out that it has been set back.
    async fn head_again(&self, channel: &str) -> Result<Position> {
        self.head(channel).await
    }
    /// The lowest sequence number that can still be read; head + 1 when nothing is retained.
    async fn floor(&self, channel: &str) -> Result<u64>;
    /// The sequence number behind which the events that came at `time` or later begin.
    async fn seq_before(&self, channel: &str, time: EventTime) -> Result<u64>;
    /// Up to `limit` events after `seq`, without waiting; fewer if they are large ([`READ_BYTES`]).
    async fn read_after(&self, channel: &str, seq: u64, limit: usize) -> Result<Read>;
    /// As [`EventLog::read_after`], for a position of this or of an earlier epoch: numbers only grow from one epoch to
    /// the next, and events of earlier ones may still be in the history. What an epoch lost at its end is a gap.
    async fn read_across(&self, channel: &str, seq: u64, limit: usize) -> Result<Read> {
        self.read_after(channel, seq, limit).await
    }
    /// Follows a channel from behind `seq`.
    async fn tail(&self, channel: &str, seq: u64) -> Result<Box<dyn Tail>>;
    /// Makes an event durable and gives it its place. Repeating the same `event.id` gives the same place again.
    /// `None`: it is durable, and gets its place when the log is reachable again.
    async fn publish(&self, event: Event) -> Result<Option<u64>>;
    /// As [`EventLog::publish`], for an event whose id was made just now: nobody can have published it before.
    async fn publish_new(&self, event: Event) -> Result<Option<u64>> {
        self.publish(event).await
    }
    /// The history of one or all channels (contract 5.1).
    async fn find(&self, query: &HistoryQuery) -> Result<Vec<Logged>>;
    /// Channels that have events and one of these names, or a name that begins like one of `beginnings`: not more than a few
    /// hundred.
    async fn like(&self, names: &[&str], beginnings: &[&str]) -> Result<Vec<String>>;
    /// How many acknowledged events have no place in the log yet.
    async fn pending(&self) -> Result<u64>;
    /// Waits until what this process has acknowledged before has its place, or a second.
    async fn settled(&self) {}
    /// Stops background work after what was acknowledged is safe.
    async fn close(&self);
}

/// Names that no channel may have: a log keeps something of its own under them, beside its channels.
pub fn is_own_name(channel: &str) -> bool {
    channel == redis::FIRST_EPOCH || channel.starts_with(redis::ENDED)
}

/// One reader's way along a channel.
#[async_trait]
pub trait Tail: Send {
    /// The next events (at most `limit`, fewer if they are large); waits for the first one, but at most about a second:
    /// empty means nothing new yet. Safe to drop and call again.
    async fn next(&mut self, limit: usize) -> Result<Read>;
}

/// What a reader gets.
#[derive(Clone, Debug)]
pub struct Read {
    /// The epoch that the numbers count in.
    pub epoch: Arc<str>,
    /// The first and last sequence number that the reader missed, if retention has overtaken it.
    pub gap: Option<(u64, u64)>,
    /// Consecutive events; the first one follows the reader's position, or the gap.
    pub entries: Vec<Arc<Entry>>,
}

/// An event in a history answer.
#[derive(Clone, Debug)]
pub struct Logged {
    /// The channel.
    pub channel: String,
    /// The event at its place.
    pub entry: Arc<Entry>,
}

/// A read of the log ends with the event that brings it to this many bytes: however large events are, a reader holds no
/// more of them at a time, and goes on from there.
pub const READ_BYTES: usize = 256 << 10;

/// An answer of the history ends early when its events have this many bytes, so that it stays bounded whatever they
/// hold.
pub const HISTORY_BYTES: usize = 16 << 20;

/// Channels that [`EventLog::like`] tells.
pub const MOST_LIKE: usize = 200;

/// Which events of the history, oldest first. One channel is ordered by sequence, unless `after` is a time; all
/// channels are ordered by (time, id).
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// One channel, or all.
    pub channel: Option<String>,
    /// A condition on the CloudEvent (schema `filter::EVENT`).
    pub filter: Filter,
    /// Only events behind this place.
    pub after: Option<After>,
    /// So many of them are passed over.
    pub skip: usize,
    /// At most this many; see also [`HISTORY_BYTES`].
    pub limit: usize,
}

impl HistoryQuery {
    /// Whether the order is that of the channel's sequence.
    pub fn is_by_seq(&self) -> bool {
        self.channel.is_some() && !matches!(self.after, Some(After::Time(..)))
    }
}

/// A place in a history answer.
#[derive(Clone, Copy, Debug)]
pub enum After {
    /// In one channel: behind this sequence number.
    Seq(u64),
    /// Behind this time and event id. (Only events of KernelCI's own server have the same time.)
    Time(EventTime, ObjectId),
}
