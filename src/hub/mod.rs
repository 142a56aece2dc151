//! From the log to the sessions.
//!
//! One task per channel and instance tails the log and keeps the newest events in a bounded [`ring`]. A reader holds
//! nothing but a position: it asks [`Channel::read`] for what comes after, which is answered from the ring when the
//! reader is live and from the log when it is behind. One that is live and waits may be handed what is new on the spot
//! ([`Direct`]). Nothing is queued per reader, so a slow one costs nothing, loses nothing, and is live again when it has
//! caught up. What all of it may cost, and each reader: [`Limits`].

mod follow;
mod holders;
mod interest;
mod pump;
mod ring;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use follow::{Feed, Gap, Item, Registered};
pub use interest::SharedFilter;
use interest::{Filters, Mark, Readers};
pub use pump::{Direct, Fresh};

use crate::background;
use crate::error::{Kind, Result};
use crate::event_log::{EventLog, Read};
use crate::filter::Demand;
use crate::model::NODE_CHANNEL;
use crate::model::footprint::Account;
use crate::quota::{Binding, Holder, Place, Pool};
use crate::sync::{Bell, lock};
use holders::Holders;
use ring::{Budget, Ring};

/// Events that a tail takes at once.
const TAIL_BATCH: usize = 512;
/// A channel that nobody reads is followed this much longer.
const IDLE: Duration = Duration::from_secs(60);

/// How much an instance keeps and follows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Channels that it follows at a time, the nodes' own aside.
    pub channels: crate::quota::Limits,
    /// Bytes of events that it keeps in memory for readers who are up to date.
    pub ring_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        let (binding, full) = (Binding::UsersAlways, Kind::TooMany);
        let channels = crate::quota::Limits { server: 1024, user: 128, address: 64, binding, full };
        Limits { channels, ring_bytes: 256 << 20 }
    }
}

/// All channels that this instance follows.
pub struct Hub {
    log: Arc<dyn EventLog>,
    channels: Mutex<HashMap<String, Arc<Channel>>>,
    places: Arc<Pool>,
    budget: Budget,
    filters: Filters,
    closing: CancellationToken,
}

/// One channel as this instance sees it.
pub struct Channel {
    /// Its name.
    pub name: String,
    log: Arc<dyn EventLog>,
    ring: Mutex<Ring>,
    /// What the ring keeps.
    kept: Arc<Account>,
    head: AtomicU64,
    /// Where the name of the epoch lies, see [`Channel::share`].
    epoch: AtomicUsize,
    readers: Mutex<Readers>,
    /// For whom it is followed; `None`: that counts for nobody.
    holders: Option<Mutex<Holders>>,
    /// Rung when the last reader has left a channel without events.
    left: Bell,
    /// It is not followed any more.
    over: CancellationToken,
}

/// A reader's registration with a channel: wakes it when there is something new, until it is dropped.
pub struct Follower {
    /// The channel.
    pub channel: Arc<Channel>,
    id: u64,
    mark: Arc<Mark>,
    /// What it stands under in the index, if it does.
    demand: Option<Demand>,
}

impl Follower {
    /// The reader has looked at everything up to `seq`.
    pub fn saw(&self, seq: u64) {
        self.mark.seen.store(seq, Ordering::Relaxed);
    }

    /// Where to read on from `seq`: behind what cannot match the reader's filter, without looking at it.
    pub fn skip(&self, seq: u64) -> u64 {
        match self.demand {
            // The head first: what came up to there has been marked.
            Some(_) => self.mark.skip(seq, self.channel.head()),
            None => seq,
        }
    }
}

impl Follower {
    /// Whether the reader looks at every event.
    pub fn is_broad(&self) -> bool {
        self.demand.is_none()
    }

    /// From now on offers new events to `direct` before it wakes the reader; for one that looks at every event.
    pub fn deliver_to(&self, direct: Arc<dyn Direct>) {
        // Once is enough.
        _ = self.mark.direct.set(direct);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let channel = &self.channel;
        lock(&channel.readers).remove(self.id, self.demand.as_ref());
        if let Some(holders) = &channel.holders {
            lock(holders).remove(self.mark.holder);
        }
        if channel.is_useless() {
            channel.left.ring();
        }
    }
}

impl Hub {
    /// A hub over this log.
    pub fn new(log: Arc<dyn EventLog>, limits: Limits) -> Hub {
        Hub {
            log,
            channels: Mutex::default(),
            places: Pool::new("followed channels", limits.channels),
            budget: Budget::new(limits.ring_bytes),
            filters: Filters::default(),
            closing: CancellationToken::new(),
        }
    }

    /// The filter that this JSON describes, shared with everybody who has the same one; 422 if it is none.
    pub fn filter(&self, json: &Value) -> Result<Arc<SharedFilter>> {
        self.filters.read(json)
    }

    /// Follows a channel for somebody; `wake` is notified whenever its head has moved. Starts the channel's tail if this
    /// is the first reader; 503 if the log is away then, 429 if too many channels are followed, by all or for them.
    pub async fn follow(self: &Arc<Self>, name: &str, holder: Holder, wake: Arc<Bell>) -> Result<Follower> {
        self.follow_demands(name, holder, wake, Vec::new()).await
    }

    /// As [`Hub::follow`], for a reader that wants events which match: others may not wake it, and it has to ask
    /// [`Follower::skip`] before it reads.
    pub async fn follow_matching(
        self: &Arc<Self>,
        name: &str,
        holder: Holder,
        wake: Arc<Bell>,
        filter: &SharedFilter,
    ) -> Result<Follower> {
        self.follow_demands(name, holder, wake, filter.demands()).await
    }

    async fn follow_demands(
        self: &Arc<Self>,
        name: &str,
        holder: Holder,
        wake: Arc<Bell>,
        demands: Vec<Demand>,
    ) -> Result<Follower> {
        if let Some(channel) = self.admitted(&mut lock(&self.channels), name, holder)? {
            return Ok(channel.register(holder, wake, demands));
        }
        let head = self.log.head(name).await?;
        let mut channels = lock(&self.channels);
        if let Some(channel) = self.admitted(&mut channels, name, holder)? {
            return Ok(channel.register(holder, wake, demands));
        }
        let holders = match name {
            NODE_CHANNEL => None,
            _ => {
                let place = self.place(&mut channels, holder);
                let mut holders = Holders::new(place?);
                holders.add(holder)?;
                Some(Mutex::new(holders))
            }
        };
        let epoch = Arc::from(head.epoch.as_str());
        let ring = Ring::new(Arc::clone(&epoch), head.seq, &self.budget);
        let channel = Arc::new(Channel {
            name: name.to_owned(),
            log: self.log.clone(),
            epoch: AtomicUsize::new(address(&epoch)),
            kept: ring.account(),
            ring: Mutex::new(ring),
            head: AtomicU64::new(head.seq),
            readers: Mutex::default(),
            holders,
            left: Bell::default(),
            over: self.closing.child_token(),
        });
        let follower = channel.register(holder, wake, demands);
        channels.insert(name.to_owned(), channel.clone());
        background::spawn("tail", self.clone().tail(channel));
        Ok(follower)
    }

    /// A place for one more channel, if need be that of one which nobody reads.
    fn place(&self, channels: &mut HashMap<String, Arc<Channel>>, holder: Holder) -> Result<Place> {
        let take = || self.places.take(holder, 1);
        take()
            .or_else(|_| {
                give_up_idle(channels, Some(holder));
                take()
            })
            .or_else(|error| {
                if self.places.taken_by(holder) >= self.places.share(holder) {
                    return Err(error);
                }
                give_up_idle(channels, None);
                take()
            })
    }

    /// The channel, if it is followed, with one more reader counted; 429 if only this one would read it, and may not.
    fn admitted(
        &self,
        channels: &mut HashMap<String, Arc<Channel>>,
        name: &str,
        holder: Holder,
    ) -> Result<Option<Arc<Channel>>> {
        let Some(channel) = channels.get(name).cloned() else { return Ok(None) };
        if let Some(holders) = &channel.holders {
            let added = lock(holders).add(holder);
            if added.is_err() {
                give_up_idle(channels, Some(holder));
                lock(holders).add(holder)?;
            }
        }
        Ok(Some(channel))
    }

    /// The channels that may be followed.
    pub fn places(&self) -> &Pool {
        &self.places
    }

    /// Bytes that are kept of events for readers who are up to date.
    pub fn ring_bytes(&self) -> usize {
        self.budget.kept()
    }

    /// Keeps less if all channels together keep too much: the oldest events of the one that has most.
    fn keep_less(&self) {
        // Readers make more of events meanwhile, so this ends whatever it finds.
        for _ in 0..16 {
            let Some(excess) = self.budget.excess() else { return };
            let largest = lock(&self.channels).values().max_by_key(|channel| channel.kept.bytes()).cloned();
            let Some(largest) = largest.filter(|largest| largest.kept.bytes() > 0) else { return };
            lock(&largest.ring).shrink(excess);
        }
    }

    /// The channels that are followed now.
    pub fn channels(&self) -> Vec<Arc<Channel>> {
        lock(&self.channels).values().cloned().collect()
    }

    /// Stops following.
    pub fn close(&self) {
        self.closing.cancel();
    }

    async fn tail(self: Arc<Self>, channel: Arc<Channel>) {
        let mut quiet_since = Instant::now();
        let mut failures: u32 = 0;
        while !channel.over.is_cancelled() {
            let seq = channel.head();
            let tail = self.log.tail(&channel.name, seq).await;
            let error = match tail {
                Ok(mut tail) => loop {
                    let read = tokio::select! {
                        read = tail.next(TAIL_BATCH) => Some(read),
                        () = channel.left.rung() => None,
                        () = channel.over.cancelled() => return,
                    };
                    match read {
                        Some(Ok(read)) => {
                            failures = 0;
                            channel.advance(read).await;
                        }
                        Some(Err(error)) => break error,
                        None if self.forget(&channel, Channel::is_useless) => return,
                        None => continue,
                    }
                    self.keep_less();
                    if channel.has_readers() {
                        quiet_since = Instant::now();
                    } else if quiet_since.elapsed() > IDLE && self.forget(&channel, |_| true) {
                        return;
                    }
                },
                Err(error) => error,
            };
            if failures == 0 {
                tracing::warn!(channel = channel.name, %error, "the log cannot be followed; trying again");
            }
            failures = failures.saturating_add(1);
            let pause = Duration::from_millis(50 << failures.min(5));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = channel.left.rung() => {
                    if self.forget(&channel, Channel::is_useless) {
                        return;
                    }
                }
                () = channel.over.cancelled() => return,
            }
        }
    }

    /// Stops following a channel that nobody reads, if that is so. False if somebody came in the meantime.
    fn forget(&self, channel: &Arc<Channel>, may: impl Fn(&Channel) -> bool) -> bool {
        let mut channels = lock(&self.channels);
        if channel.has_readers() || !may(channel) {
            return false;
        }
        // One that was given up may be followed anew.
        if channels.get(&channel.name).is_some_and(|followed| Arc::ptr_eq(followed, channel)) {
            channels.remove(&channel.name);
        }
        channel.give_up();
        true
    }
}

/// Stops following the channels that nobody reads: those that are on this holder, or all.
fn give_up_idle(channels: &mut HashMap<String, Arc<Channel>>, holder: Option<Holder>) {
    channels.retain(|_, channel| {
        let Some(holders) = &channel.holders else { return true };
        let concerned = holder.is_none_or(|holder| lock(holders).payer() == Some(holder));
        if channel.has_readers() || !concerned {
            return true;
        }
        channel.give_up();
        false
    });
}

impl Channel {
    /// The newest sequence number that this instance has seen.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// The epoch of the events that this instance has seen.
    pub fn epoch(&self) -> Arc<str> {
        lock(&self.ring).epoch()
    }

    /// Whether the events that this instance has seen are of this epoch. Quick for an epoch that [`Channel::share`] has
    /// seen.
    pub fn is_in(&self, epoch: &Arc<str>) -> bool {
        self.epoch.load(Ordering::Acquire) == address(epoch) || self.epoch() == *epoch
    }

    /// As [`Channel::is_in`]; if it is, `epoch` becomes the very one that all readers share, which its address tells.
    pub fn share(&self, epoch: &mut Arc<str>) -> bool {
        if self.epoch.load(Ordering::Acquire) == address(epoch) {
            return true;
        }
        let ours = self.epoch();
        let is_same = ours == *epoch;
        if is_same {
            *epoch = ours;
        }
        is_same
    }

    /// Events after `seq` from the ring, at once, if it reaches back that far.
    pub fn read_live(&self, seq: u64, limit: usize) -> Option<Read> {
        lock(&self.ring).read_after(seq, limit)
    }

    /// Events after `seq`, from the ring or the log.
    pub async fn read(&self, seq: u64, limit: usize) -> Result<Read> {
        if let Some(read) = self.read_live(seq, limit) {
            return Ok(read);
        }
        self.log.read_after(&self.name, seq, limit).await
    }

    /// As [`Channel::read`], for a position of this or of an earlier epoch.
    pub async fn read_across(&self, seq: u64, limit: usize) -> Result<Read> {
        if let Some(read) = self.read_live(seq, limit) {
            return Ok(read);
        }
        self.log.read_across(&self.name, seq, limit).await
    }

    /// Adds a reader, who has been counted.
    fn register(self: &Arc<Self>, holder: Holder, wake: Arc<Bell>, demands: Vec<Demand>) -> Follower {
        let mut readers = lock(&self.readers);
        // Under the lock that events are marked under: those up to here are the reader's own to look at.
        let mark = Arc::new(Mark::new(holder, wake, self.head()));
        let (id, demand) = readers.add(&mark, demands);
        Follower { channel: self.clone(), id, mark, demand }
    }

    /// How many readers there are.
    pub fn readers(&self) -> usize {
        lock(&self.readers).len()
    }

    /// Up to where the slowest reader has looked.
    pub fn slowest(&self) -> Option<u64> {
        lock(&self.readers).slowest(self.head())
    }

    fn has_readers(&self) -> bool {
        self.readers() > 0
    }

    /// Whether nobody reads it, and there was no event that somebody might come back for.
    fn is_useless(&self) -> bool {
        self.head() == 0 && !self.has_readers()
    }

    /// It is not followed any more, and on nobody.
    fn give_up(&self) {
        if let Some(holders) = &self.holders {
            lock(holders).give_up();
        }
        self.over.cancel();
    }

    /// Some of the readers who look at every event, from that place on; false if there are none from there on.
    fn some_broad(&self, from: usize, count: usize, some: &mut Vec<Arc<Mark>>) -> bool {
        lock(&self.readers).some_broad(from, count, some)
    }

    async fn advance(self: &Arc<Self>, read: Read) {
        let entries = read.entries.clone();
        let (head, epoch, broken) = {
            let mut ring = lock(&self.ring);
            let broken = read.gap.is_some() || read.epoch != ring.epoch() || read.entries.is_empty();
            if !ring.advance(read) {
                return;
            }
            self.epoch.store(address(&ring.epoch()), Ordering::Release);
            (ring.head(), ring.epoch(), broken)
        };
        let concerned = {
            let readers = lock(&self.readers);
            let concerned = if broken { readers.mark_all() } else { readers.mark(&entries) };
            self.head.store(head, Ordering::Release);
            concerned
        };
        concerned.iter().for_each(|mark| mark.wake.ring());
        let fresh = entries.first().filter(|_| !broken).map(|first| first.seq.saturating_sub(1));
        let fresh = fresh.map(|after| Fresh { epoch, after, entries });
        pump::bring(self, fresh).await;
    }
}

/// Tells an epoch from all others that are held at the same time.
fn address(epoch: &Arc<str>) -> usize {
    Arc::as_ptr(epoch).cast::<u8>().addr()
}
