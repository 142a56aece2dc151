//! The event log on Redis Streams, with MongoDB as its history.
//!
//! Redis gives the order and holds the hot window; MongoDB is the record. An event comes here from the outbox that was
//! written with its node, or from who publishes it (`relay`; `sweep` finds what is left over), is given a number by
//! Redis, enters the history under it, and is then shown to readers (`settle`), who read it from the stream while that
//! still has it (`stream`), else from the history (`history`). `epoch` notices when Redis has lost something; `known` is
//! what a process remembers of channels, `ends` how they end.

mod clean;
mod clock;
pub(crate) mod connection;
pub(crate) mod ends;
pub(crate) mod epoch;
pub(crate) mod history;
pub(crate) mod known;
pub(crate) mod outbox;
pub(crate) mod relay;
mod settle;
pub(crate) mod stream;
mod sweep;
mod tail;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bson::{Document, doc};
use mongodb::Collection;
use tokio::sync::oneshot;

pub(crate) use self::ends::{ENDED, FIRST_EPOCH};
use self::epoch::{Channels, holes};
use self::history::{Span, number};
use self::outbox::{Job, Pending, Source};
use self::relay::Relay;
pub use self::relay::RelayMode;
use super::{After, EventLog, HISTORY_BYTES, HistoryQuery, Logged, Read, Tail};
use crate::error::{Error, Result};
use crate::model::event::Entry;
use crate::model::{Event, EventTime, Position};
use crate::store::mongo::bson_json::from_json;
use crate::store::mongo::errors::{self, QUERY_TIME, call, call_on, is_duplicate};
use crate::store::mongo::stored::Stored;
use crate::store::mongo::{filter, moment};
use crate::sync::{HEAVY, Pauses, in_place_if};

/// How long `publish` waits for the event's number before it puts the event into the outbox.
const PUBLISH: Duration = Duration::from_secs(5);
/// The longest that [`EventLog::settled`] waits.
const SETTLED: Duration = Duration::from_secs(1);
/// How many of the oldest events [`EventLog::floor`] checks for holes that expiry has made.
const FLOOR_WINDOW: usize = 1000;

/// The log of a production server. Made by [`crate::store::mongo::open`].
pub struct RedisLog {
    inner: Arc<Inner>,
    relay: Relay,
    outbox: Collection<Stored>,
}

/// What reading needs: shared with tails.
pub(crate) struct Inner {
    pub(crate) channels: Arc<Channels>,
}

impl RedisLog {
    pub(crate) fn new(channels: Arc<Channels>, relay: Relay, outbox: Collection<Stored>) -> RedisLog {
        RedisLog { inner: Arc::new(Inner { channels }), relay, outbox }
    }
}

#[async_trait]
impl EventLog for RedisLog {
    async fn ping(&self) -> Result<()> {
        self.inner.channels.redis.takes_writes().await
    }

    async fn head(&self, channel: &str) -> Result<Position> {
        let (epoch, head) = self.inner.head(channel).await?;
        Ok(Position { epoch: epoch.to_string(), seq: head })
    }

    async fn exists(&self, channel: &str) -> Result<bool> {
        let known = self.inner.channels.known(channel).await?;
        Ok(known.exists && (known.high() > 0 || self.inner.head(channel).await?.1 > 0))
    }

    async fn head_again(&self, channel: &str) -> Result<Position> {
        self.inner.channels.verify(channel).await?;
        self.head(channel).await
    }

    async fn floor(&self, channel: &str) -> Result<u64> {
        let known = self.inner.channels.known(channel).await?;
        let (_, head) = self.inner.head(channel).await?;
        let span = Span { channel, epoch: &known.epoch, after: known.base, to: head };
        let oldest = self.inner.channels.history.numbers_in(span, FLOOR_WINDOW).await?;
        // What is in the stream can be read, whether expiry has taken it from the history already or not.
        let stream = self.inner.channels.redis.first(channel).await?.unwrap_or(head + 1);
        let (Some(&first), Some(&last)) = (oldest.first(), oldest.last()) else { return Ok(stream) };
        if stream < first {
            return Ok(stream);
        }
        // Expiry follows the time of events, which is not exactly their order.
        let gone = holes(first - 1, last, &oldest).into_iter().rfind(|(low, _)| *low < stream);
        Ok(gone.map_or(first, |(_, high)| stream.min(high + 1)))
    }

    async fn seq_before(&self, channel: &str, time: EventTime) -> Result<u64> {
        let (epoch, head) = self.inner.head(channel).await?;
        let first = self.inner.channels.history.first_since(channel, &epoch, time).await?;
        Ok(first.map_or(head, |first| first.saturating_sub(1)))
    }

    async fn read_after(&self, channel: &str, seq: u64, limit: usize) -> Result<Read> {
        self.inner.read_after(channel, seq, limit).await
    }

    async fn read_across(&self, channel: &str, seq: u64, limit: usize) -> Result<Read> {
        let known = self.inner.channels.known(channel).await?;
        if seq >= known.base || limit == 0 {
            return self.inner.read_after(channel, seq.max(known.base), limit).await;
        }
        let (gap, earlier) =
            self.inner.channels.history.read_earlier(channel, seq, known.base, limit).await?;
        if !earlier.is_empty() {
            let entries = earlier.into_iter().map(Arc::new).collect();
            return Ok(Read { epoch: known.epoch.clone(), gap, entries });
        }
        let read = self.inner.read_after(channel, known.base, limit).await?;
        let last_gone = read.gap.map_or(known.base, |(_, to)| to);
        Ok(Read { gap: Some((seq + 1, last_gone)), ..read })
    }

    async fn tail(&self, channel: &str, seq: u64) -> Result<Box<dyn Tail>> {
        Ok(Box::new(tail::RedisTail::new(self.inner.clone(), channel, seq)))
    }

    async fn publish(&self, event: Event) -> Result<Option<u64>> {
        self.publish_or_keep(event, false).await
    }

    async fn publish_new(&self, event: Event) -> Result<Option<u64>> {
        self.publish_or_keep(event, true).await
    }

    async fn like(&self, names: &[&str], beginnings: &[&str]) -> Result<Vec<String>> {
        self.inner.channels.history.like(names, beginnings).await
    }

    async fn find(&self, query: &HistoryQuery) -> Result<Vec<Logged>> {
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        let translated = filter::to_mongo_event(&query.filter);
        let mut conditions = vec![translated.query];
        conditions.extend(query.channel.as_ref().map(|channel| doc! {"channel": channel}));
        conditions.extend(query.after.map(behind));
        if query.channel.is_none() && query.filter.ids().is_none() {
            conditions.push(moment::until(self.inner.channels.redis.horizon().await?));
        }
        // By number no second key: the index has none, and numbers of a channel do not repeat.
        let sort = if query.is_by_seq() {
            doc! {"sequence_id": 1}
        } else {
            moment::order()
        };
        let mut find = self.inner.channels.history.events.find(doc! {"$and": conditions}).sort(sort);
        let mut skip = query.skip;
        if translated.exact {
            find = find.limit(i64::try_from(query.limit).unwrap_or(i64::MAX)).skip(skip as u64);
            skip = 0;
        }
        call(async {
            let (mut found, mut bytes, mut pauses) = (Vec::new(), 0, Pauses::default());
            let mut cursor = find.max_time(QUERY_TIME).await?;
            while cursor.advance().await? {
                let size = cursor.current().as_bytes().len();
                pauses.after(size).await;
                let read =
                    || cursor.deserialize_current().map(|event| (Arc::new(history::entry(&event)), event));
                let (entry, document) = in_place_if(size > HEAVY, read)?;
                if !translated.exact && !query.filter.matches(entry.value()) {
                    continue;
                }
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                bytes += entry.json.len();
                let channel = document.get_str("channel").unwrap_or_default().to_owned();
                found.push(Logged { channel, entry });
                if found.len() >= query.limit || bytes >= HISTORY_BYTES {
                    break;
                }
            }
            Ok(found)
        })
        .await
    }

    async fn pending(&self) -> Result<u64> {
        self.relay.pending().await
    }

    async fn settled(&self) {
        tokio::select! {
            () = self.relay.settled() => {}
            () = self.inner.channels.redis.fails() => {}
            () = tokio::time::sleep(SETTLED) => {}
        }
    }

    async fn close(&self) {
        self.relay.close().await;
    }
}

impl RedisLog {
    /// An event is acknowledged when the history has it, and needs no outbox until then: whoever publishes it waits.
    /// Only where that takes too long does it go to the outbox.
    async fn publish_or_keep(&self, event: Event, fresh: bool) -> Result<Option<u64>> {
        from_json("data", &event.data)?;
        from_json("attributes", &event.extensions.clone().into())?;
        let event = Pending::new(&event);
        let (waiter, number) = oneshot::channel();
        let (source, waiter) = (Source::Publisher, Some(waiter));
        let job = Job { source, event: event.clone(), fresh, waiter };
        let relayed = async {
            self.relay.stand_in_line(job).await;
            number.await.ok()
        };
        let number = tokio::select! {
            biased;
            number = relayed => number,
            () = self.inner.channels.redis.fails() => None,
            () = tokio::time::sleep(PUBLISH) => None,
        };
        match number {
            Some(number) => Ok(Some(number)),
            None => self.keep(event).await,
        }
    }

    /// Puts an event into the outbox; its number, if it has been relayed meanwhile.
    async fn keep(&self, event: Pending) -> Result<Option<u64>> {
        let stored = doc! {"_id": event.id, "channel": &event.channel, "event": &event.json};
        if let Err(error) = errors::raw(self.outbox.insert_one(Stored(stored))).await
            && !is_duplicate(&error)
        {
            return Err(errors::translate(error));
        }
        // After the insert, so that an event is in at least one of the two places whatever the relay does meanwhile.
        if let Some((_, seq)) = self.inner.channels.history.numbers(&[event.id]).await?.first() {
            call_on(&self.outbox, self.outbox.delete_one(doc! {"_id": event.id})).await?;
            return Ok(Some(*seq));
        }
        self.relay.submit(vec![Job::foreign(Source::Collection, event)]);
        Ok(None)
    }
}

fn behind(after: After) -> Document {
    match after {
        After::Seq(seq) => doc! {"sequence_id": {"$gt": number(seq)}},
        After::Time(time, id) => {
            let same = doc! {"$and": [moment::at(time), {"_id": {"$gt": id}}]};
            doc! {"timestamp": {"$gte": moment::parts(time).0}, "$or": [moment::after(time), same]}
        }
    }
}

impl Inner {
    /// The channel's epoch and the number of its newest event, after a look whether Redis still has everything.
    pub(crate) async fn head(&self, channel: &str) -> Result<(Arc<str>, u64)> {
        let mut known = self.channels.known(channel).await?;
        for _ in 0..3 {
            let floor = known.high();
            if !known.has_begun() {
                // Which has just been looked at.
                return Ok((known.epoch.clone(), floor));
            }
            let state = self.channels.redis.state(channel).await?;
            match state.filter(|state| self.channels.agrees(&known, Some(state), floor)) {
                Some(state) => return Ok((known.epoch.clone(), state.head)),
                None => known = self.channels.verify(channel).await?,
            }
        }
        Err(Error::unavailable("log", anyhow::anyhow!("the epoch of {channel} keeps changing")))
    }

    /// See [`EventLog::read_after`].
    pub(crate) async fn read_after(&self, channel: &str, seq: u64, limit: usize) -> Result<Read> {
        let mut known = self.channels.known(channel).await?;
        for _ in 0..3 {
            let floor = known.high();
            let (state, items) = self.channels.redis.look(channel, seq, limit).await?;
            if !self.channels.agrees(&known, state.as_ref(), floor) {
                known = self.channels.verify(channel).await?;
                continue;
            }
            let head = state.map_or(floor, |state| state.head);
            let in_stream =
                items.into_iter().map(|item| Entry::new(item.seq, &item.json)).collect::<Vec<_>>();
            let first = in_stream.first().map_or(head + 1, |entry| entry.seq);
            // What the stream no longer has; nothing of another epoch.
            let mut entries = Vec::new();
            if limit > 0 && first > seq.saturating_add(1) && head > seq {
                let span = Span { channel, epoch: &known.epoch, after: seq.max(known.base), to: first - 1 };
                entries = self.channels.history.read(span, limit).await?;
            }
            if entries.len() < limit {
                let room = limit - entries.len();
                entries.extend(in_stream.into_iter().take(room));
            }
            let head = if limit > 0 { head } else { seq };
            return Ok(consecutive(known.epoch.clone(), seq, head, entries));
        }
        Err(Error::unavailable("log", anyhow::anyhow!("the epoch of {channel} keeps changing")))
    }
}

/// A reader's share of `entries` (ascending, all behind `seq`): up to the first hole, which the next read reports.
fn consecutive(epoch: Arc<str>, seq: u64, head: u64, entries: Vec<Entry>) -> Read {
    let next = seq.saturating_add(1);
    let first = entries.first().map_or(head.saturating_add(1), |entry| entry.seq);
    let gap = (first > next).then(|| (next, first - 1));
    let run = entries.into_iter().zip(first..).take_while(|(entry, expected)| entry.seq == *expected);
    Read { epoch, gap, entries: run.map(|(entry, _)| Arc::new(entry)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(seq: u64, head: u64, seqs: &[u64]) -> (Option<(u64, u64)>, Vec<u64>) {
        let entries = seqs.iter().map(|&seq| Entry::new(seq, "{}")).collect();
        let read = consecutive("e".into(), seq, head, entries);
        (read.gap, read.entries.iter().map(|entry| entry.seq).collect())
    }

    #[test]
    fn a_hole_is_always_reported() {
        assert_eq!(read(3, 6, &[4, 5, 6]), (None, vec![4, 5, 6]));
        assert_eq!(read(3, 8, &[5, 7, 8]), (Some((4, 4)), vec![5]));
        assert_eq!(read(5, 8, &[7, 8]), (Some((6, 6)), vec![7, 8]));
        assert_eq!(read(3, 8, &[]), (Some((4, 8)), vec![]));
        assert_eq!(read(8, 8, &[]), (None, vec![]));
        assert_eq!(read(9, 8, &[]), (None, vec![]));
    }
}
