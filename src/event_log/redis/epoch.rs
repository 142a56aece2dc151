//! Which epoch a channel is in, and what happens when Redis has lost something.
//!
//! Readers see an event only when it is in the history under its number (`settle.rs`), so Redis can lose nothing that
//! anybody has seen. When it has nothing, or less than MongoDB or this process knows of, a new *generation* begins:
//! numbering goes on behind the last number of the history, in the same epoch, and readers notice nothing. What had
//! a number and was not in the history yet still is in its outbox, or its publisher waits for it, and it gets another
//! one; if the publisher has gone it was never acknowledged, and may be lost. A counter in MongoDB makes all instances
//! agree on the latest generation.
//!
//! A new *epoch* begins only when MongoDB itself knows less than readers were shown: it was restored from a backup. All
//! channels begin in the same one, which a reader may hold of a channel that has not begun: that takes no more than a look,
//! since a channel begins with its first event, and ends when it is empty and old (`ends.rs`).

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use futures::TryStreamExt;
use mongodb::options::ReturnDocument;

use super::history::{History, number};
use super::known::{Known, Memory};
use super::stream::{Redis, State};
use super::{clock, ends};
use crate::error::{Error, Kind, Result};
use crate::model::EventTime;
use crate::store::mongo::document::integer;
use crate::store::mongo::errors::{self, call, call_on, is_duplicate};
use crate::store::mongo::stored::Stored;

/// How often a look is repeated while other instances change the same channel.
const TRIES: u64 = 20;

/// All channels, and what this process remembers of them.
pub(crate) struct Channels {
    pub(crate) redis: Redis,
    pub(crate) history: History,
    pub(super) memory: Memory,
    /// The epoch of every channel that has lost nothing, those included that have not begun.
    first_epoch: Arc<str>,
    pub(super) ages: Ages,
}

/// How old things get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    /// How long events are kept.
    pub(crate) retention_seconds: u64,
    /// How often it is looked for what is older.
    pub(crate) prune_every: Duration,
}

impl Channels {
    pub(crate) fn new(redis: Redis, history: History, first_epoch: &str, ages: Ages) -> Channels {
        Channels { redis, history, memory: Memory::default(), first_epoch: first_epoch.into(), ages }
    }

    /// The channel's epoch. Looked up once; [`Channels::verify`] looks again. A channel that has not begun stays so, and
    /// is not remembered.
    pub(crate) async fn known(&self, channel: &str) -> Result<Arc<Known>> {
        match self.memory.get(channel) {
            Some(known) => Ok(known),
            None => self.verify(channel).await,
        }
    }

    /// As [`Channels::known`], of a channel that begins now if it has not: somebody publishes.
    pub(crate) async fn begun(&self, channel: &str) -> Result<Arc<Known>> {
        match self.memory.get(channel) {
            Some(known) => Ok(known),
            None => self.verified(channel, true).await,
        }
    }

    /// Whether Redis is where `known` says; `floor` is the highest number that was known before `state` was asked for.
    pub(crate) fn agrees(&self, known: &Arc<Known>, state: Option<&State>, floor: u64) -> bool {
        self.memory.agrees(known, state, floor)
    }

    /// Compares Redis with MongoDB and with what this process has seen, and starts a new generation if something was
    /// lost.
    pub(crate) async fn verify(&self, channel: &str) -> Result<Arc<Known>> {
        self.verified(channel, false).await
    }

    /// See [`Channels::verify`]; begins the channel if that is wanted.
    async fn verified(&self, channel: &str, begin: bool) -> Result<Arc<Known>> {
        for attempt in 0..TRIES {
            // Redis comes last: it only grows, so it must be at or above everything read before.
            let written = self.written(channel).await?;
            let in_history = self.history.highest(channel).await?;
            let highest = written.highest(in_history);
            let seen = self.seen(channel, &written);
            let state = self.redis.state(channel).await?;
            match &state {
                Some(state)
                    if state.generation == written.generation
                        && state.epoch == written.epoch
                        && state.is_whole()
                        && state.given >= highest
                        && state.head >= seen =>
                {
                    self.make_room().await?;
                    return Ok(self.memory.put(channel, state));
                }
                // It has not begun, or has ended. Nothing is left behind by a look at it.
                None if written.generation == 0 && seen <= highest && !begin => {
                    self.memory.forget(channel);
                    return Ok(Known::unborn(channel, &self.first_epoch, highest, in_history > 0));
                }
                // MongoDB's generation is being started: help, or the other instance is about to do it.
                Some(state) if state.generation < written.generation && !written.seeded => {
                    self.start(channel, &written).await?;
                }
                None if written.generation > 0 && !written.seeded => self.start(channel, &written).await?,
                // Redis is ahead for a moment, or something was lost.
                _ => self.declare(channel, &written, state.as_ref()).await?,
            }
            tokio::time::sleep(Duration::from_millis(attempt * 5)).await;
        }
        let cause = anyhow::anyhow!("channel {channel}: instances keep changing its epoch");
        Err(Error::new(Kind::Unavailable, "the log is being repaired, try again")
            .because(cause)
            .retry_after(1000))
    }

    /// Starts a new generation because numbers of `known`'s turned out to be given twice.
    pub(crate) async fn renew(&self, channel: &str, generation: u64) -> Result<()> {
        let written = self.written(channel).await?;
        if written.generation == generation {
            let state = self.redis.state(channel).await?;
            self.declare(channel, &written, state.as_ref()).await?;
        }
        self.verify(channel).await.map(drop)
    }

    /// The highest number that this process has seen in the epoch that MongoDB names.
    fn seen(&self, channel: &str, written: &Written) -> u64 {
        let known = self.memory.get(channel).filter(|known| *known.epoch == *written.epoch);
        known.map_or(0, |known| known.high())
    }

    /// The highest number that MongoDB knows of.
    async fn highest(&self, channel: &str, written: &Written) -> Result<u64> {
        Ok(written.highest(self.history.highest(channel).await?))
    }

    /// What MongoDB says of the channel, or of those that have ended.
    pub(super) async fn written(&self, channel: &str) -> Result<Written> {
        let ended = ends::key(channel);
        let find = self.history.channels.find(doc! {"_id": {"$in": [channel, &ended]}});
        let found: Vec<Stored> = call(async { find.await?.try_collect().await }).await?;
        match found.iter().find(|found| found.get_str("_id").is_ok_and(|id| id == channel)) {
            Some(found) => Ok(Written::read(found)),
            None => Ok(Written::none(&self.first_epoch, found.first().map(|found| &**found))),
        }
    }

    /// Writes a new generation into MongoDB, if it still says what was read there, and starts it in Redis.
    async fn declare(&self, channel: &str, was: &Written, state: Option<&State>) -> Result<()> {
        let last = state.map_or(0, |state| state.generation).max(was.generation).max(was.ended);
        let state = state.filter(|state| state.epoch == was.epoch);
        let shown = state.map_or(0, |state| state.head).max(self.seen(channel, was));
        // After `shown`: all of that must be there.
        let mut highest = self.highest(channel, was).await?;
        if shown > highest {
            let in_history = self.history.highest_of_majority(channel).await?;
            highest = was.highest(in_history).max(self.written(channel).await?.highest(0));
        }
        let lost = shown > highest;
        let (epoch, base) = match was.generation {
            _ if lost => (uuid::Uuid::new_v4().simple().to_string(), shown),
            0 => (was.epoch.clone(), highest),
            _ => (was.epoch.clone(), was.base),
        };
        let generation = last + 1;
        let filter = match was.generation {
            0 => doc! {"_id": channel, "generation": {"$exists": false}},
            generation => doc! {"_id": channel, "generation": number(generation)},
        };
        let update = doc! {
            "$set": {
                "epoch": &epoch, "base": number(base), "generation": number(generation), "seeded": false,
            },
            "$currentDate": {"since": true},
            "$max": {"head": number(highest.max(base))},
        };
        let write = self.history.channels.find_one_and_update(filter, update);
        let write = write.upsert(was.generation == 0).return_document(ReturnDocument::After);
        match errors::raw(write).await {
            Ok(Some(document)) => {
                if lost {
                    tracing::error!(
                        channel,
                        epoch,
                        shown,
                        highest,
                        "MongoDB has lost history: a new epoch begins"
                    );
                } else if was.generation == 0 {
                    tracing::debug!(channel, epoch, base, "a channel begins");
                } else {
                    tracing::info!(
                        channel,
                        epoch,
                        generation,
                        highest,
                        "numbering goes on behind the history"
                    );
                }
                self.start(channel, &Written::read(&document)).await
            }
            // Another instance was first.
            Ok(None) => Ok(()),
            Err(error) if is_duplicate(&error) => Ok(()),
            Err(error) => Err(errors::translate(error)),
        }
    }

    /// Starts MongoDB's generation in Redis, behind everything that is in the history now.
    async fn start(&self, channel: &str, written: &Written) -> Result<()> {
        let head = self.highest(channel, written).await?;
        self.set_clock().await?;
        // A write that a majority has, after that read: what was read will not be rolled back.
        self.history.remember(channel, head).await?;
        if !self.redis.seed(channel, &written.epoch, written.generation, head, written.base).await? {
            // Redis shows more than there was a moment ago. If it is still more, MongoDB has lost something.
            let state = self.redis.state(channel).await?;
            let shown =
                state.as_ref().filter(|state| state.epoch == written.epoch).map_or(0, |state| state.head);
            if shown > self.highest(channel, written).await? {
                return Box::pin(self.declare(channel, written, state.as_ref())).await;
            }
            return Ok(());
        }
        let filter = doc! {"_id": channel, "generation": number(written.generation)};
        call_on(
            &self.history.channels,
            self.history.channels.update_one(filter, doc! {"$set": {"seeded": true}}),
        )
        .await
        .map(drop)
    }

    /// From now on this process has no time given that is not later than those of the history.
    pub(crate) async fn set_clock(&self) -> Result<()> {
        let now = self.redis.clock.wall().micros().saturating_add(clock::AHEAD.as_micros() as i64);
        if let Some(latest) = self.history.latest(EventTime::from_micros(now)).await? {
            self.redis.clock.saw(latest);
        }
        Ok(())
    }

    /// Writes down the highest number that this process has given in a channel since the last time. The history has it
    /// as well, but its events expire some day; so there is time.
    pub(super) async fn write_down(&self, known: &Known) -> Result<()> {
        let shown = known.shown();
        if shown > 0 {
            // Not more than is there: if MongoDB has been set back, that must stay visible.
            let there = self.history.highest(&known.channel).await?;
            self.history.remember(&known.channel, shown.min(there)).await?;
            known.wrote_down(shown);
        }
        Ok(())
    }

    /// The same for all channels.
    pub(super) async fn write_all_down(&self) -> Result<()> {
        for known in self.memory.take_busy() {
            self.write_down(&known).await?;
        }
        Ok(())
    }

    /// Where all that is remembered has something left to do, the oldest are saved now, and then forgotten.
    async fn make_room(&self) -> Result<()> {
        let crowd = self.memory.crowd();
        let saved = crowd.iter().map(async |known| {
            self.write_down(known).await?;
            self.memory.forget_saved(known);
            Ok(())
        });
        futures::future::try_join_all(saved).await.map(drop)
    }
}

/// What MongoDB has of a channel.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) epoch: String,
    /// Events of this epoch have higher numbers than this.
    pub(super) base: u64,
    /// 0: it has not begun, or has ended.
    pub(super) generation: u64,
    /// Whether Redis has been told of this generation.
    pub(super) seeded: bool,
    /// The highest number in the history, also after the events have expired.
    pub(super) head: u64,
    /// The last generation of channels that have ended: never used again.
    ended: u64,
}

impl Written {
    pub(super) fn read(document: &Document) -> Written {
        let number = |key| unsigned(document, key);
        Written {
            ended: 0,
            epoch: document.get_str("epoch").unwrap_or_default().to_owned(),
            base: number("base"),
            generation: number("generation"),
            seeded: document.get_bool("seeded").unwrap_or(true),
            head: number("head"),
        }
    }

    /// A channel that MongoDB does not know begins behind those that have ended.
    fn none(epoch: &str, ended: Option<&Document>) -> Written {
        let [head, ended] = ["head", "generation"].map(|key| ended.map_or(0, |ended| unsigned(ended, key)));
        Written { epoch: epoch.to_owned(), base: head, generation: 0, seeded: true, head, ended }
    }

    /// The highest number that MongoDB knows of, given the highest one in the history.
    fn highest(&self, in_history: u64) -> u64 {
        in_history.max(self.head).max(self.base)
    }
}

fn unsigned(document: &Document, key: &str) -> u64 {
    document.get(key).and_then(integer).and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}

/// The ranges within `after + 1 ..= to` that are not in `present` (ascending).
pub(crate) fn holes(after: u64, to: u64, present: &[u64]) -> Vec<(u64, u64)> {
    let mut holes = Vec::new();
    let mut expected = after + 1;
    for &seq in present {
        if seq > expected {
            holes.push((expected, seq - 1));
        }
        expected = seq.max(expected - 1) + 1;
    }
    if expected <= to {
        holes.push((expected, to));
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::holes;

    #[test]
    fn holes_are_what_is_not_there() {
        assert_eq!(holes(3, 9, &[4, 5, 8]), [(6, 7), (9, 9)]);
        assert_eq!(holes(3, 9, &[]), [(4, 9)]);
        assert_eq!(holes(3, 5, &[4, 5]), []);
        assert_eq!(holes(3, 3, &[]), []);
    }
}
