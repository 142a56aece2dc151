//! Which epoch a channel is in, and what happens when Redis has lost something.
//!
//! Readers see an event only when it is in the history under its number (`settle.rs`), so Redis can lose nothing that
//! anybody has seen. When it has nothing, or less than MongoDB or this process knows of, a new *generation* begins:
//! numbering goes on behind the last number of the history, in the same epoch, and readers notice nothing. What had
//! a number and was not in the history yet still is in its outbox, or its publisher waits for it, and it gets another
//! one; if the publisher has gone it was never acknowledged, and may be lost. A counter in MongoDB makes all instances
//! agree on the latest generation.
//!
//! A new *epoch* begins only when MongoDB itself knows less than readers were shown: it was restored from a backup.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::options::ReturnDocument;

use super::history::{History, number};
use super::stream::{Redis, State};
use crate::error::{Error, Kind, Result};
use crate::model::Timestamp;
use crate::store::mongo::document::integer;
use crate::store::mongo::errors::{self, call, is_duplicate};

/// So many channels are remembered; a server has a handful.
const MAX_CHANNELS: usize = 10_000;
/// How often a look is repeated while other instances change the same channel.
const TRIES: u64 = 20;

/// A channel as this process last saw it, in one epoch.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) epoch: Arc<str>,
    /// Events of this epoch have higher numbers than this.
    pub(crate) base: u64,
    generation: AtomicU64,
    /// The highest number that this process has seen.
    high: AtomicU64,
    /// The highest number that this process has shown and not yet written down ([`Channels::remember_shown`]); or 0.
    shown: AtomicU64,
}

impl Known {
    /// The generation that numbers are given in, as far as this process knows.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }
    /// The highest number that this process has seen in this epoch.
    pub(crate) fn high(&self) -> u64 {
        self.high.load(Relaxed)
    }
    /// Remembers that event `seq` was seen.
    pub(crate) fn saw(&self, seq: u64) {
        self.high.fetch_max(seq, Relaxed);
    }
    /// This process has brought the events up to `seq` into the history and before the readers.
    pub(crate) fn showed(&self, seq: u64) {
        self.saw(seq);
        self.shown.fetch_max(seq, Relaxed);
    }
    /// Whether Redis still is where it was and nothing is missing. `floor` is [`Known::high`] from before `state` was
    /// asked for: what others saw in the meantime may well be above it.
    pub(crate) fn agrees(&self, state: &State, floor: u64) -> bool {
        let agrees = state.epoch == *self.epoch && state.is_whole() && state.head >= floor;
        if agrees {
            self.saw(state.head);
        }
        agrees
    }
}

/// All channels that this process has touched.
pub(crate) struct Channels {
    pub(crate) redis: Redis,
    pub(crate) history: History,
    known: Mutex<HashMap<String, Arc<Known>>>,
    /// How long events are kept.
    retention_seconds: u64,
}

impl Channels {
    pub(crate) fn new(redis: Redis, history: History, retention_seconds: u64) -> Channels {
        Channels { redis, history, known: Mutex::default(), retention_seconds }
    }

    /// The channel's epoch. Looked up once; [`Channels::verify`] looks again.
    pub(crate) async fn known(&self, channel: &str) -> Result<Arc<Known>> {
        match self.remembered(channel) {
            Some(known) => Ok(known),
            None => self.verify(channel).await,
        }
    }

    /// All channels that this process remembers.
    pub(crate) fn all_known(&self) -> Vec<(String, Arc<Known>)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(channel, known)| (channel.clone(), known.clone())).collect()
    }

    fn remembered(&self, channel: &str) -> Option<Arc<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(channel).cloned()
    }

    fn remember(&self, channel: &str, state: &State) -> Arc<Known> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(channel).filter(|known| *known.epoch == *state.epoch) {
            known.saw(state.head);
            known.generation.fetch_max(state.generation, Relaxed);
            return known.clone();
        }
        if all.len() >= MAX_CHANNELS {
            all.clear();
        }
        let known = Arc::new(Known {
            epoch: state.epoch.as_str().into(),
            base: state.base,
            generation: state.generation.into(),
            high: state.head.into(),
            shown: AtomicU64::new(0),
        });
        all.insert(channel.to_owned(), known.clone());
        known
    }

    /// Compares Redis with MongoDB and with what this process has seen, and starts a new generation if something was
    /// lost.
    pub(crate) async fn verify(&self, channel: &str) -> Result<Arc<Known>> {
        for attempt in 0..TRIES {
            // Redis comes last: it only grows, so it must be at or above everything read before.
            let written = self.written(channel).await?;
            let highest = self.highest(channel, &written).await?;
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
                    return Ok(self.remember(channel, state));
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
        let known = self.remembered(channel).filter(|known| *known.epoch == *written.epoch);
        known.map_or(0, |known| known.high())
    }

    /// The highest number that MongoDB knows of.
    async fn highest(&self, channel: &str, written: &Written) -> Result<u64> {
        Ok(self.history.highest(channel).await?.max(written.head).max(written.base))
    }

    /// What MongoDB says of the channel; a channel that it does not know has generation 0.
    async fn written(&self, channel: &str) -> Result<Written> {
        let found = call(self.history.channels.find_one(doc! {"_id": channel})).await?;
        Ok(found.map_or_else(Written::default, |found| Written::read(&found)))
    }

    /// Writes a new generation into MongoDB, if it still says what was read there, and starts it in Redis.
    async fn declare(&self, channel: &str, was: &Written, state: Option<&State>) -> Result<()> {
        let state = state.filter(|state| state.epoch == was.epoch);
        let shown = state.map_or(0, |state| state.head).max(self.seen(channel, was));
        // After `shown`: all of that must be there.
        let highest = self.highest(channel, was).await?;
        let lost = was.generation > 0 && shown > highest;
        let (epoch, base) = match was.generation > 0 && !lost {
            true => (was.epoch.clone(), was.base),
            false => (uuid::Uuid::new_v4().simple().to_string(), shown.max(highest)),
        };
        let generation = state.map_or(0, |state| state.generation).max(was.generation) + 1;
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
        call(self.history.channels.update_one(filter, doc! {"$set": {"seeded": true}})).await.map(drop)
    }

    /// Writes down the highest numbers that this process has given since the last time. The history has them as well,
    /// but its events expire some day; so there is time.
    pub(crate) async fn remember_shown(&self) -> Result<()> {
        for (channel, known) in self.all_known() {
            let shown = known.shown.load(Relaxed);
            if shown == 0 {
                continue;
            }
            // Not more than is there: if MongoDB has been set back, that must stay visible.
            let there = self.history.highest(&channel).await?;
            self.history.remember(&channel, shown.min(there)).await?;
            // Fails if more has been shown meanwhile, which is written down the next time.
            _ = known.shown.compare_exchange(shown, 0, Relaxed, Relaxed);
        }
        Ok(())
    }

    /// Removes from the streams what is as old as MongoDB removes from the history.
    pub(crate) async fn expire(&self) -> Result<()> {
        let age = i64::try_from(self.retention_seconds).unwrap_or(i64::MAX);
        let before = Timestamp::now().plus_seconds(age.saturating_neg());
        for (channel, _) in self.all_known() {
            // Usually one look at the oldest event is enough.
            let mut look = 1;
            loop {
                let oldest = self.redis.range(&channel, 0, u64::MAX, look).await?;
                let expired =
                    oldest.iter().take_while(|item| item.time().is_some_and(|time| time < before)).count();
                if let Some(last) = expired.checked_sub(1).and_then(|last| oldest.get(last)) {
                    self.redis.trim(&channel, last.seq).await?;
                }
                if expired < look {
                    break;
                }
                look = 1000;
            }
        }
        Ok(())
    }
}

/// What MongoDB has of a channel.
#[derive(Debug, Default)]
struct Written {
    epoch: String,
    /// Events of this epoch have higher numbers than this.
    base: u64,
    generation: u64,
    /// Whether Redis has been told of this generation.
    seeded: bool,
    /// The highest number in the history, also after the events have expired.
    head: u64,
}

impl Written {
    fn read(document: &Document) -> Written {
        let number =
            |key| document.get(key).and_then(integer).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        Written {
            epoch: document.get_str("epoch").unwrap_or_default().to_owned(),
            base: number("base"),
            generation: number("generation"),
            seeded: document.get_bool("seeded").unwrap_or(true),
            head: number("head"),
        }
    }
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
