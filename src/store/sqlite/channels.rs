//! What is known of each channel without asking the file, and how its readers are woken.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;
use tokio::time::Instant;

/// All channels that ever had an event.
pub(crate) struct Channels {
    by_name: RwLock<HashMap<String, Arc<Channel>>>,
    /// How many there are: wakes readers who wait for a channel that does not exist yet. (So waiting leaves nothing
    /// behind, whatever name somebody waits for.)
    count: watch::Sender<usize>,
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
        Channels { by_name: RwLock::default(), count: watch::Sender::new(0) }
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
    /// The channel, if it ever had an event.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Channel>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
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
            if !matches!(tokio::time::timeout_at(deadline, count.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
    }

    /// Shows where the channel stands now and wakes its readers. Only the writer calls this, after COMMIT.
    pub(super) fn publish(&self, name: &str, number: i64, head: u64, floor: u64) {
        if let Some(channel) = self.get(name) {
            channel.floor.store(floor, Ordering::Release);
            channel.head.send_if_modified(|old| std::mem::replace(old, head) != head);
            return;
        }
        let channel = Channel { number, head: watch::Sender::new(head), floor: AtomicU64::new(floor) };
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        by_name.insert(name.to_owned(), Arc::new(channel));
        self.count.send_replace(by_name.len());
    }
}
