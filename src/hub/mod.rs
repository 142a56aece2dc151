//! From the log to the sessions.
//!
//! One task per channel and instance tails the log and keeps the newest events in a bounded [`ring`]. A reader holds
//! nothing but a position: it asks [`Channel::read`] for what comes after, which is answered from the ring when the
//! reader is live and from the log when it is behind. Nothing is queued per reader, so a slow one costs nothing,
//! loses nothing, and is live again when it has caught up.

mod follow;
mod ring;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use follow::{Item, follow};

use crate::error::{Error, Kind, Result};
use crate::event_log::{EventLog, Read};
use crate::model::NODE_CHANNEL;
use ring::Ring;

/// Channels that one instance follows at a time.
const MOST_CHANNELS: usize = 256;
/// Events that a tail takes at once.
const TAIL_BATCH: usize = 512;
/// A channel that nobody reads is followed this much longer.
const IDLE: Duration = Duration::from_secs(60);

/// All channels that this instance follows.
pub struct Hub {
    log: Arc<dyn EventLog>,
    channels: Mutex<HashMap<String, Arc<Channel>>>,
    closing: CancellationToken,
}

/// One channel as this instance sees it.
pub struct Channel {
    /// Its name.
    pub name: String,
    log: Arc<dyn EventLog>,
    ring: Mutex<Ring>,
    head: AtomicU64,
    readers: Mutex<Readers>,
}

#[derive(Default)]
struct Readers {
    next: u64,
    all: HashMap<u64, Reader>,
}

struct Reader {
    wake: Arc<Notify>,
    /// Up to where it has looked, for the metrics.
    seen: Arc<AtomicU64>,
}

/// A reader's registration with a channel: wakes it when there is something new, until it is dropped.
pub struct Follower {
    /// The channel.
    pub channel: Arc<Channel>,
    id: u64,
    seen: Arc<AtomicU64>,
}

impl Follower {
    /// The reader has looked at everything up to `seq`.
    pub fn saw(&self, seq: u64) {
        self.seen.store(seq, Ordering::Relaxed);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        lock(&self.channel.readers).all.remove(&self.id);
    }
}

impl Hub {
    /// A hub over this log.
    pub fn new(log: Arc<dyn EventLog>) -> Hub {
        Hub { log, channels: Mutex::new(HashMap::new()), closing: CancellationToken::new() }
    }

    /// Follows a channel; `wake` is notified whenever its head has moved. Starts the channel's tail if this is the
    /// first reader; 503 if the log is away then, 429 if too many channels are followed.
    pub async fn follow(self: &Arc<Self>, name: &str, wake: Arc<Notify>) -> Result<Follower> {
        if let Some(channel) = lock(&self.channels).get(name) {
            return Ok(channel.register(wake));
        }
        let head = self.log.head(name).await?;
        let mut channels = lock(&self.channels);
        if let Some(channel) = channels.get(name) {
            return Ok(channel.register(wake));
        }
        if channels.len() >= MOST_CHANNELS && name != NODE_CHANNEL {
            return Err(
                Error::new(Kind::TooMany, "too many channels are followed at once").retry_after(10_000)
            );
        }
        let channel = Arc::new(Channel {
            name: name.to_owned(),
            log: self.log.clone(),
            ring: Mutex::new(Ring::new(Arc::from(head.epoch.as_str()), head.seq)),
            head: AtomicU64::new(head.seq),
            readers: Mutex::default(),
        });
        let follower = channel.register(wake);
        channels.insert(name.to_owned(), channel.clone());
        tokio::spawn(self.clone().tail(channel));
        Ok(follower)
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
        while !self.closing.is_cancelled() {
            let seq = channel.head();
            let tail = self.log.tail(&channel.name, seq).await;
            let error = match tail {
                Ok(mut tail) => loop {
                    let read = tokio::select! {
                        read = tail.next(TAIL_BATCH) => read,
                        () = self.closing.cancelled() => return,
                    };
                    match read {
                        Ok(read) => {
                            failures = 0;
                            channel.advance(read);
                        }
                        Err(error) => break error,
                    }
                    if channel.has_readers() {
                        quiet_since = Instant::now();
                    } else if quiet_since.elapsed() > IDLE && self.forget(&channel) {
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
                () = self.closing.cancelled() => return,
            }
        }
    }

    /// Stops following a channel that nobody reads. False if somebody came in the meantime.
    fn forget(&self, channel: &Arc<Channel>) -> bool {
        let mut channels = lock(&self.channels);
        if channel.has_readers() {
            return false;
        }
        channels.remove(&channel.name);
        true
    }
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

    fn register(self: &Arc<Self>, wake: Arc<Notify>) -> Follower {
        let mut readers = lock(&self.readers);
        let id = readers.next;
        readers.next += 1;
        let seen = Arc::new(AtomicU64::new(self.head()));
        readers.all.insert(id, Reader { wake, seen: seen.clone() });
        Follower { channel: self.clone(), id, seen }
    }

    /// How many readers there are.
    pub fn readers(&self) -> usize {
        lock(&self.readers).all.len()
    }

    /// Up to where the slowest reader has looked.
    pub fn slowest(&self) -> Option<u64> {
        lock(&self.readers).all.values().map(|reader| reader.seen.load(Ordering::Relaxed)).min()
    }

    fn has_readers(&self) -> bool {
        !lock(&self.readers).all.is_empty()
    }

    fn advance(&self, read: Read) {
        let head = {
            let mut ring = lock(&self.ring);
            if !ring.advance(read) {
                return;
            }
            ring.head()
        };
        self.head.store(head, Ordering::Release);
        for reader in lock(&self.readers).all.values() {
            reader.wake.notify_one();
        }
    }
}

/// Locks; the data behind our locks is consistent between any two statements, so a poisoned lock is still good.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
