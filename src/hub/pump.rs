//! The pump: brings new events to the readers of a channel who look at every event.
//!
//! A reader that is up to date and whose socket takes more is written to on the spot; waking its task would cost as much
//! again. Everybody else is woken, and reads on by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Channel;
use super::interest::Mark;
use crate::background::watched;
use crate::model::event::Entry;

/// Readers that are served before other tasks get their turn.
const AT_ONCE: usize = 64;
/// With fewer readers one core is enough.
const CROWD: usize = 512;

/// What is new in a channel.
pub struct Fresh {
    /// The epoch that it counts in.
    pub epoch: Arc<str>,
    /// The sequence number before the first of the events.
    pub after: u64,
    /// At least one, without a hole.
    pub entries: Vec<Arc<Entry>>,
}

impl Fresh {
    /// The sequence number of the last of the events.
    pub fn last(&self) -> u64 {
        self.entries.last().map_or(self.after, |entry| entry.seq)
    }
}

/// A reader that may take events at once.
pub trait Direct: Send + Sync {
    /// Takes the events, if the reader stands right before them and nothing is in the way. False: it has to be woken.
    fn take(&self, fresh: &Fresh) -> bool;
}

/// Brings `fresh` to everybody who looks at every event. `None`: something has broken off, and all are to look.
pub(super) async fn bring(channel: &Arc<Channel>, fresh: Option<Fresh>) {
    let fresh = Arc::new(fresh);
    let next = Arc::new(AtomicUsize::new(0));
    let mut others = tokio::task::JoinSet::new();
    if channel.readers() > CROWD {
        // Half of the cores, so that the readers' own tasks go on.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 1..cores.div_ceil(2) {
            others.spawn(watched("pump", serve(channel.clone(), fresh.clone(), next.clone())));
        }
    }
    serve(channel.clone(), fresh, next).await;
    while others.join_next().await.is_some() {}
}

/// Serves some readers after the other, those whom nobody else serves.
async fn serve(channel: Arc<Channel>, fresh: Arc<Option<Fresh>>, next: Arc<AtomicUsize>) {
    let mut marks: Vec<Arc<Mark>> = Vec::with_capacity(AT_ONCE);
    loop {
        let from = next.fetch_add(AT_ONCE, Ordering::Relaxed);
        if !channel.some_broad(from, AT_ONCE, &mut marks) {
            return;
        }
        for mark in marks.drain(..) {
            match &*fresh {
                Some(fresh) if mark.take(fresh) => {}
                _ => mark.wake.ring(),
            }
        }
        tokio::task::yield_now().await;
    }
}
