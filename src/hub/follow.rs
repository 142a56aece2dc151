//! One filtered reader at its own pace, for the feeds (CloudEvents over WebSocket, SSE).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::{Follower, Hub, SharedFilter};
use crate::error::Result;
use crate::filter::Filter;
use crate::model::Position;
use crate::model::event::Entry;
use crate::quota::Holder;
use crate::sync::Bell;

const BATCH: usize = 256;
/// Bytes of events that are looked at before others get their turn.
const LOOK: usize = 1 << 20;
/// How long to wait for the channel's tail, where the log is in another epoch already.
const TAIL: Duration = Duration::from_millis(100);

/// What a reader gets.
#[derive(Debug)]
pub enum Item {
    /// An event that matches, and the epoch that it counts in.
    Event(Arc<str>, Arc<Entry>),
    /// The reader does not get what lies here.
    Gap(Gap),
}

/// Sequence numbers that a reader does not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first.
    pub from: u64,
    /// The last; less than `from` where nothing is known to be missing.
    pub to: u64,
    /// History was lost, or the reader came from another epoch: what follows counts in this one.
    pub epoch: Option<Arc<str>>,
}

/// A channel's events that match, then the new ones as they come.
pub struct Feed {
    follower: Follower,
    wake: Arc<Bell>,
    filter: Arc<SharedFilter>,
    epoch: Arc<str>,
    /// Everything up to here has been looked at.
    seq: u64,
    /// What matches of that and was not handed out yet.
    ready: VecDeque<Item>,
}

/// A channel that is followed for a feed, which begins where [`Registered::at`] says.
pub struct Registered {
    follower: Follower,
    wake: Arc<Bell>,
}

impl Registered {
    /// Follows the channel for `holder` from now on.
    pub async fn follow(hub: &Arc<Hub>, channel: &str, holder: Holder) -> Result<Registered> {
        let wake = Arc::new(Bell::default());
        let follower = hub.follow(channel, holder, wake.clone()).await?;
        Ok(Registered { follower, wake })
    }

    /// The channel.
    pub fn channel(&self) -> &super::Channel {
        &self.follower.channel
    }

    /// The events behind this position that match.
    pub fn at(self, position: &Position, filter: Filter) -> Feed {
        let Registered { follower, wake } = self;
        follower.saw(position.seq);
        let (epoch, seq) = (position.epoch.as_str().into(), position.seq);
        Feed { follower, wake, filter: SharedFilter::new(filter), epoch, seq, ready: VecDeque::new() }
    }
}

impl Feed {
    /// What comes next; waits for it. May be dropped and called again. After an error there is nothing more.
    pub async fn next(&mut self) -> Result<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(item);
            }
            let channel = self.follower.channel.clone();
            if !channel.share(&mut self.epoch) {
                return Ok(Item::Gap(self.skip_to_head()));
            }
            let read = channel.read(self.seq, BATCH).await?;
            if read.epoch != self.epoch {
                // The tail is about to hear of it.
                _ = tokio::time::timeout(TAIL, self.wake.rung()).await;
                continue;
            }
            if read.gap.is_none() && read.entries.is_empty() {
                self.wake.rung().await;
                continue;
            }
            if let Some((from, to)) = read.gap {
                self.ready.push_back(Item::Gap(Gap { from, to, epoch: None }));
                self.seq = self.seq.max(to);
            }
            let mut looked = 0;
            for entry in read.entries {
                if looked > LOOK {
                    break;
                }
                looked += self.filter.work(entry.json.len());
                self.seq = entry.seq;
                if self.filter.matches(&entry) {
                    self.ready.push_back(Item::Event(read.epoch.clone(), entry));
                }
            }
            self.follower.saw(self.seq);
            if looked > LOOK {
                tokio::task::yield_now().await;
            }
        }
    }

    /// The epoch and the number up to which everything that matches has been handed out.
    pub fn position(&self) -> (&Arc<str>, u64) {
        let seq = match self.ready.front() {
            None => self.seq,
            Some(Item::Event(_, entry)) => entry.seq.saturating_sub(1),
            Some(Item::Gap(gap)) => gap.from.saturating_sub(1),
        };
        (&self.epoch, seq)
    }

    /// History was lost: it goes on at the head, as subscriptions do.
    fn skip_to_head(&mut self) -> Gap {
        let channel = &self.follower.channel;
        let (epoch, head) = (channel.epoch(), channel.head());
        let gap = Gap { from: self.seq.saturating_add(1), to: head, epoch: Some(epoch.clone()) };
        (self.epoch, self.seq) = (epoch, head);
        self.follower.saw(head);
        gap
    }
}
