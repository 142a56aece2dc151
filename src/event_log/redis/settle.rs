//! From a number to the readers: an event is shown when it is in the history under its number, and not before.
//!
//! Numbers enter the history one after the other, whichever instance has given them: a number is written when the
//! one before it is shown, which means that it is there. So the history never has a hole, and its last number is all
//! that has to be known when Redis has lost something. An instance whose turn does not come does the work of the one
//! that it waits for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::epoch::Channels;
use super::history::Inserted;
use super::stream::Item;
use crate::error::Result;

/// How long an instance waits for another one before it does that one's work.
const PATIENCE: Duration = Duration::from_millis(300);
/// The longest pause between two looks whether it is our turn.
const LOOK: Duration = Duration::from_millis(16);
/// Events that are written at once.
const BATCH: usize = 256;
/// Events of others that are read at once: each may have megabytes, and Redis has to answer within seconds.
const OF_OTHERS: usize = 16;

/// How that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Everything is shown.
    Done,
    /// Numbers are not what they were: the events have to be given new ones.
    Again,
}

impl Channels {
    /// Brings events that have numbers into the history and before the readers. `own`: those that the caller has, by
    /// number; `head`: what readers were shown when these were given; `target`: the number up to which
    /// everything is to be shown.
    pub(crate) async fn settle(
        &self,
        channel: &str,
        generation: u64,
        own: &BTreeMap<u64, Item>,
        mut head: u64,
        target: u64,
    ) -> Result<Settled> {
        let mut waiting = Instant::now();
        let mut pause = Duration::from_millis(1);
        while head < target {
            let mine = own.range(head + 1..).zip(head + 1..).take_while(|((seq, _), next)| *seq == next);
            let mut run: Vec<Item> = mine.map(|((_, item), _)| item.clone()).take(BATCH).collect();
            if run.is_empty() && waiting.elapsed() > PATIENCE {
                run = self.redis.pending(channel, head + 1, target, OF_OTHERS).await?;
                tracing::debug!(channel, head, count = run.len(), "doing the work of another instance");
                if run.first().is_some_and(|item| item.seq != head + 1) {
                    run.clear();
                }
            }
            if run.is_empty() {
                let overdue = waiting.elapsed() > 2 * PATIENCE;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK);
                let state = self.redis.state(channel).await?.filter(|state| state.generation == generation);
                let Some(state) = state.filter(|state| state.given >= target) else {
                    self.verify(channel).await?;
                    return Ok(Settled::Again);
                };
                if state.head > head {
                    (head, waiting) = (state.head, Instant::now());
                } else if overdue {
                    // What comes next is nowhere.
                    self.renew(channel, generation).await?;
                    return Ok(Settled::Again);
                }
                continue;
            }
            let inserted = self.history.insert(channel, &run).await?;
            let ids: Vec<_> = run.iter().filter_map(Item::id).collect();
            let shown = match inserted {
                Inserted::All => self.redis.confirm(channel, generation, head + 1, &ids).await?,
                Inserted::Taken => None,
            };
            let Some(shown) = shown else {
                self.renew(channel, generation).await?;
                return Ok(Settled::Again);
            };
            (head, waiting, pause) = (shown, Instant::now(), Duration::from_millis(1));
        }
        Ok(Settled::Done)
    }
}
