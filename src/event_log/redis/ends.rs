//! The end of channels: one that has no event any more and had none for long is removed from MongoDB and Redis.
//!
//! Of what has ended a number is kept (`event_log/ended.rs`), and the last generation, so that an instance that still
//! remembers the channel cannot take a new one for it. Readers notice nothing: a channel that has ended stands where it
//! stood. What is done, and in which order, is right whenever an event comes and whoever dies:
//!
//! 1. number and generation are written down,
//! 2. Redis forgets the channel, unless a number has been given meanwhile,
//! 3. MongoDB does, unless another generation has begun: Redis had nothing, and somebody has published.

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use futures::TryStreamExt;

use super::super::ended::place;
use super::epoch::{Channels, Written};
use super::history::{History, number};
use super::known::Known;
use super::stream::Glance;
use crate::error::{Error, Result};
use crate::model::{NODE_CHANNEL, Timestamp};
use crate::store::mongo::errors::{self, QUERY_TIME, call, call_on, is_duplicate};
use crate::store::mongo::stored::Stored;

/// The youngest age to end at, whatever the retention is: Redis recognises events for so long.
const YOUNGEST: Duration = Duration::from_secs(3600);
/// How many channels a look ends.
const MOST: i64 = 1000;
/// Channels that Redis is asked about at once.
const AT_ONCE: usize = 16;
/// Where the epoch is kept that channels begin in. No channel has this name ([`is_own_name`]).
///
/// [`is_own_name`]: crate::event_log::is_own_name
pub(crate) const FIRST_EPOCH: &str = "first epoch";
/// How the names begin under which it is kept what is remembered of channels after their end; no channel's begins so.
pub(crate) const ENDED: &str = "ended ";

/// Where it is kept what is remembered of a channel after its end.
pub(super) fn key(channel: &str) -> String {
    format!("{ENDED}{}", place(channel))
}

/// The epoch that the channels of this database begin in.
pub(crate) async fn first_epoch(history: &History) -> Result<String> {
    let filter = doc! {"_id": FIRST_EPOCH};
    let made = doc! {"$setOnInsert": {"epoch": uuid::Uuid::new_v4().simple().to_string()}};
    match errors::raw(history.channels.update_one(filter.clone(), made).upsert(true)).await {
        // Another instance was first.
        Err(error) if !is_duplicate(&error) => return Err(errors::translate(error)),
        _ => {}
    }
    let kept = call(history.channels.find_one(filter)).await?;
    let epoch = kept.and_then(|kept| kept.get_str("epoch").ok().map(str::to_owned));
    epoch.ok_or_else(|| Error::internal(anyhow::anyhow!("the first epoch is not in the collection channel")))
}

/// What cannot be done for one channel is tried again later, and does not hold up the others.
fn note(channel: &str, done: Result<()>) {
    if let Err(error) = done {
        tracing::debug!(channel, %error, "a channel cannot be looked after");
    }
}

impl Channels {
    /// What is seldom done: looks after the channels that this process remembers and that nothing happens in, and ends
    /// those that are empty and old.
    pub(super) async fn prune(&self) -> Result<()> {
        for some in self.memory.idle().chunks(AT_ONCE) {
            let names: Vec<&str> = some.iter().map(|known| &*known.channel).collect();
            for (known, glance) in some.iter().zip(self.redis.glance(&names).await?) {
                note(&known.channel, self.look_after_idle(known, glance).await);
            }
        }
        self.end_old().await
    }

    async fn look_after_idle(&self, known: &Arc<Known>, (numbers, oldest): Glance) -> Result<()> {
        match numbers {
            Some((generation, head, given)) if generation == known.generation() => {
                // The publisher has died, and so have all who knew of it.
                if given > head {
                    self.memory.attend(known);
                }
            }
            _ => _ = self.verify(&known.channel).await?,
        }
        if oldest.and_then(|oldest| oldest.time()).is_some_and(|time| time < self.oldest_kept()) {
            self.expire(&known.channel).await?;
        }
        Ok(())
    }

    /// Events from before this time are removed.
    fn oldest_kept(&self) -> Timestamp {
        let age = i64::try_from(self.ages.retention_seconds).unwrap_or(i64::MAX);
        self.redis.clock.wall().to_millis().plus_seconds(age.saturating_neg())
    }

    /// Removes from a stream what is as old as MongoDB removes from the history.
    pub(super) async fn expire(&self, channel: &str) -> Result<()> {
        let before = self.oldest_kept();
        // Usually one look at the oldest event is enough.
        let mut look = 1;
        loop {
            let oldest = self.redis.range(channel, 0, u64::MAX, look).await?;
            let expired =
                oldest.iter().take_while(|item| item.time().is_some_and(|time| time < before)).count();
            if let Some(last) = expired.checked_sub(1).and_then(|last| oldest.get(last)) {
                self.redis.trim(channel, last.seq).await?;
            }
            if expired < look {
                return Ok(());
            }
            look = 1000;
        }
    }

    async fn end_old(&self) -> Result<()> {
        let age = self.ages.retention_seconds.max(YOUNGEST.as_secs()).saturating_mul(1000);
        // By MongoDB's clock, which the dates are of.
        let before = doc! {"$subtract": ["$$NOW", number(age)]};
        let is_old = |date: &str| -> Document {
            doc! {"$lt": [date, before.clone()]}
        };
        let old = doc! {
            "_id": {"$ne": NODE_CHANNEL},
            "epoch": {"$exists": true},
            "generation": {"$exists": true},
            "seeded": {"$ne": false},
            "$expr": {"$and": [is_old("$since"), is_old("$used")]},
        };
        let find = self.history.channels.find(old).limit(MOST).max_time(QUERY_TIME);
        let found: Vec<Stored> = call(async { find.await?.try_collect().await }).await?;
        for channel in &found {
            if let Ok(name) = channel.get_str("_id") {
                note(name, self.end(name, &Written::read(channel)).await);
            }
        }
        self.release_old(&before).await
    }

    /// Forgets whose the channels are that were claimed long ago and never began, or have ended.
    async fn release_old(&self, before: &Document) -> Result<()> {
        let old = doc! {"$expr": {"$lt": ["$at", before]}};
        let find = self.history.owners.find(old).sort(doc! {"at": 1}).limit(MOST).max_time(QUERY_TIME);
        let old: Vec<Stored> = call(async { find.await?.try_collect().await }).await?;
        let names: Vec<&str> = old.iter().filter_map(|claim| claim.get_str("_id").ok()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let begun = doc! {"_id": {"$in": &names}, "generation": {"$exists": true}};
        let begun = self.history.channels.find(begun).projection(doc! {"_id": 1}).max_time(QUERY_TIME);
        let begun: Vec<Stored> = call(async { begun.await?.try_collect().await }).await?;
        let begun: Vec<&str> = begun.iter().filter_map(|channel| channel.get_str("_id").ok()).collect();
        let ended: Vec<&str> = names.into_iter().filter(|name| !begun.contains(name)).collect();
        let still_old = doc! {"_id": {"$in": ended}, "$expr": {"$lt": ["$at", before]}};
        call_on(&self.history.owners, self.history.owners.delete_many(still_old)).await?;
        // These are looked at again after as long.
        let look = doc! {"$currentDate": {"at": true}};
        call_on(&self.history.owners, self.history.owners.update_many(doc! {"_id": {"$in": begun}}, look))
            .await
            .map(drop)
    }

    /// Ends a channel that nothing has happened in for long, if it is empty.
    async fn end(&self, channel: &str, written: &Written) -> Result<()> {
        if self.history.highest(channel).await? > 0 {
            return Ok(());
        }
        self.expire(channel).await?;
        let state = self.redis.state(channel).await?;
        if state.as_ref().is_some_and(|state| state.generation != written.generation) {
            // It is being repaired, or has to be.
            return self.verify(channel).await.map(drop);
        }
        let shown = state.as_ref().map(|state| state.head);
        let head = shown.unwrap_or(0).max(written.head).max(written.base);
        let kept = doc! {"$max": {"head": number(head), "generation": number(written.generation)}};
        let key = doc! {"_id": key(channel)};
        call_on(&self.history.channels, self.history.channels.update_one(key, kept).upsert(true)).await?;
        if let Some(shown) = shown
            && !self.redis.end(channel, written.generation, shown).await?
        {
            return Ok(());
        }
        let same = doc! {"_id": channel, "generation": number(written.generation)};
        if call_on(&self.history.channels, self.history.channels.delete_one(same)).await?.deleted_count > 0 {
            tracing::debug!(channel, head, "a channel ends: it is empty and old");
            call_on(&self.history.owners, self.history.owners.delete_one(doc! {"_id": channel})).await?;
        }
        self.memory.forget(channel);
        Ok(())
    }
}
