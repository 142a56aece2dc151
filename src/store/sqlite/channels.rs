//! What is known of each channel without asking the file, and how its readers are woken.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::event_log::ended::{PLACES, place};
use crate::sync::lock;

/// Events, and their bytes, that are kept for readers who are up to date: they need not read the file.
const NEWEST: usize = 1024;
const NEWEST_BYTES: usize = 4 << 20;

/// All channels that have begun and not ended.
pub(crate) struct Channels {
    by_name: RwLock<HashMap<String, Arc<Channel>>>,
    /// By place, the highest number of the channels that have ended.
    ended: Box<[AtomicU64]>,
    /// How many there are: wakes readers who wait for a channel that does not exist yet. (So waiting leaves nothing
    /// behind, whatever name somebody waits for.)
    count: watch::Sender<usize>,
    newest: Mutex<Newest>,
}

/// The newest events of all channels, which are durable.
#[derive(Default)]
struct Newest {
    events: VecDeque<Placed>,
    bytes: usize,
}

/// An event at its place.
pub(super) struct Placed {
    /// Number of its channel.
    pub(super) channel: i64,
    pub(super) seq: u64,
    /// The CloudEvent without `sequence`.
    pub(super) json: Arc<str>,
}

/// One channel as readers see it: only what is durable.
pub(crate) struct Channel {
    /// Its number in the file.
    pub(crate) number: i64,
    head: watch::Sender<u64>,
    floor: AtomicU64,
}

impl Default for Channels {
    fn default() -> Self {
        Channels {
            by_name: RwLock::default(),
            ended: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            count: watch::Sender::new(0),
            newest: Mutex::default(),
        }
    }
}

impl Channel {
    /// Sequence number of the newest event.
    pub(crate) fn head(&self) -> u64 {
        *self.head.borrow()
    }
    /// The lowest sequence number that is retained; head + 1 if none is.
    pub(crate) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }
}

impl Channels {
    /// The channel, if it has begun and not ended.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Channel>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Names of channels that are wanted, at most so many.
    pub(crate) fn names(&self, wanted: impl Fn(&str) -> bool, most: usize) -> Vec<String> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.keys().filter(|name| wanted(name)).take(most).cloned().collect()
    }

    /// The number behind which the channel begins, if it has not.
    pub(crate) fn base(&self, name: &str) -> u64 {
        self.ended.get(usize::from(place(name))).map_or(0, |ended| ended.load(Ordering::Acquire))
    }

    /// Returns when the channel has an event behind `seq`, or at the deadline; whether it has.
    pub(crate) async fn wait(&self, name: &str, seq: u64, deadline: Instant) -> bool {
        let mut count = self.count.subscribe();
        loop {
            if let Some(channel) = self.get(name) {
                let mut head = channel.head.subscribe();
                let newer = tokio::time::timeout_at(deadline, head.wait_for(|head| *head > seq)).await;
                return matches!(newer, Ok(Ok(_)));
            }
            if self.base(name) > seq {
                return true;
            }
            if !matches!(tokio::time::timeout_at(deadline, count.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
    }

    /// Events of a channel behind `seq`, `limit` at most; `None` if they do not reach back that far.
    pub(crate) fn newest(&self, channel: i64, seq: u64, limit: usize) -> Option<Vec<(u64, Arc<str>)>> {
        let newest = lock(&self.newest);
        let mut behind = newest.events.iter().filter(|event| event.channel == channel && event.seq > seq);
        let first = behind.next().filter(|first| first.seq == seq + 1)?;
        let events = std::iter::once(first).chain(behind).take(limit);
        Some(events.map(|event| (event.seq, event.json.clone())).collect())
    }

    /// Keeps what a transaction has written, for [`Channels::newest`]. Called before the heads are shown.
    pub(super) fn keep(&self, events: impl IntoIterator<Item = Placed>) {
        let mut newest = lock(&self.newest);
        let Newest { events: kept, bytes } = &mut *newest;
        for event in events {
            *bytes += event.json.len();
            kept.push_back(event);
        }
        while kept.len() > NEWEST || *bytes > NEWEST_BYTES {
            let Some(oldest) = kept.pop_front() else { break };
            *bytes -= oldest.json.len();
        }
    }

    /// Shows where the channel stands now and wakes its readers. Only the writer calls this, after COMMIT.
    pub(super) fn publish(&self, name: &str, number: i64, head: u64, floor: u64) {
        if let Some(channel) = self.get(name).filter(|channel| channel.number == number) {
            channel.floor.store(floor, Ordering::Release);
            channel.head.send_if_modified(|old| std::mem::replace(old, head) != head);
            return;
        }
        let channel = Channel { number, head: watch::Sender::new(head), floor: AtomicU64::new(floor) };
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        by_name.insert(name.to_owned(), Arc::new(channel));
        self.count.send_replace(by_name.len());
    }

    /// Channels at this place have ended, up to this number. Called before the change of each of them is shown.
    pub(super) fn ended(&self, place: u16, head: u64) {
        if let Some(ended) = self.ended.get(usize::from(place)) {
            ended.fetch_max(head, Ordering::AcqRel);
        }
    }

    /// The channel has ended.
    pub(super) fn end(&self, name: &str) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}
