//! Signals: waking whoever waits for something, on whichever instance.
//!
//! A signal says "look again" and carries nothing: what has changed is in the store. It may get lost while Redis is away;
//! so who waits looks again by itself from time to time. Within a process ([`Local`]) signals are calls; in production
//! they also go through Redis ([`redis`]).

pub mod redis;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::sync::{Bell, lock};

/// See the module's documentation for what every implementation promises.
#[async_trait]
pub trait Signals: Send + Sync + 'static {
    /// Wakes everybody who listens for `topic`, on every instance.
    async fn send(&self, topic: &str);
    /// Listens from now on.
    fn listen(&self, topic: &str) -> Listener {
        self.listen_with(topic, Arc::default())
    }
    /// Listens from now on for somebody who waits for other things as well: `wake` is notified, and
    /// [`Listener::take`] tells whether it was this.
    fn listen_with(&self, topic: &str, wake: Arc<Bell>) -> Listener;
    /// Stops background work.
    fn close(&self);
}

/// The signals of one process.
#[derive(Clone, Default)]
pub struct Local {
    topics: Arc<Mutex<HashMap<String, Listeners>>>,
}

/// By their address: a topic may have as many as there are sessions, and they leave one by one.
type Listeners = HashMap<usize, Arc<Ear>>;

/// Where a signal arrives.
#[derive(Default)]
struct Ear {
    heard: AtomicBool,
    wake: Arc<Bell>,
}

impl Ear {
    fn ring(&self) {
        self.heard.store(true, Ordering::Release);
        self.wake.call();
    }
}

fn address(ear: &Arc<Ear>) -> usize {
    Arc::as_ptr(ear).addr()
}

impl Local {
    /// Wakes the listeners of `topic` in this process.
    pub fn wake(&self, topic: &str) {
        for listener in lock(&self.topics).get(topic).into_iter().flat_map(HashMap::values) {
            listener.ring();
        }
    }

    /// Wakes all listeners: something may have been missed.
    pub fn wake_all(&self) {
        for listener in lock(&self.topics).values().flat_map(HashMap::values) {
            listener.ring();
        }
    }
}

#[async_trait]
impl Signals for Local {
    async fn send(&self, topic: &str) {
        self.wake(topic);
    }

    fn listen_with(&self, topic: &str, wake: Arc<Bell>) -> Listener {
        let ear = Arc::new(Ear { heard: AtomicBool::new(false), wake });
        lock(&self.topics).entry(topic.to_owned()).or_default().insert(address(&ear), ear.clone());
        Listener { topics: self.clone(), topic: topic.to_owned(), ear }
    }

    fn close(&self) {}
}

/// Somebody who waits for a topic, until this is dropped.
pub struct Listener {
    topics: Local,
    topic: String,
    ear: Arc<Ear>,
}

impl Listener {
    /// Whether a signal came since the last time.
    pub fn take(&self) -> bool {
        self.ear.heard.swap(false, Ordering::AcqRel)
    }
    /// Returns after the next signal, or at once if one came since the last time.
    pub async fn heard(&self) {
        while !self.take() {
            self.ear.wake.rung().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut topics = lock(&self.topics.topics);
        let Some(listeners) = topics.get_mut(&self.topic) else { return };
        listeners.remove(&address(&self.ear));
        if listeners.is_empty() {
            topics.remove(&self.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_signal_is_kept_until_it_is_heard_and_reaches_its_topic_only() {
        let signals = Local::default();
        let (one, two, other) = (signals.listen("a"), signals.listen("a"), signals.listen("b"));
        signals.send("a").await;
        one.heard().await;
        two.heard().await;
        assert!(other.heard().now_or_never().is_none());
        signals.wake_all();
        other.heard().await;
        // Several may wake the same one, who then looks which it was.
        let wake = Arc::new(Bell::default());
        let [here, there] = ["a", "b"].map(|topic| signals.listen_with(topic, wake.clone()));
        let again = signals.listen_with("a", wake.clone());
        drop(here);
        signals.send("a").await;
        wake.rung().await;
        assert_eq!((again.take(), again.take(), there.take()), (true, false, false));
        drop((one, two, other, there, again));
        assert!(lock(&signals.topics).is_empty(), "nothing is left behind");
    }
}
