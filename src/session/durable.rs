//! A durable subscription's side of its consumer: what was delivered, what of it is acknowledged, and writing that down.
//!
//! Acknowledging takes no time: it moves a number here. One task at a time writes the newest of them to the store, so
//! however many come, one write is under way. It is also what notices that the consumer is another's now: every write
//! names the subscription id, which is the fence, and finds nothing once the name was taken over, moved or deleted. A
//! signal makes it look at once; if signals get lost, the write that every ping makes notices.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::acks::{Delivered, End};
use crate::app::App;
use crate::background::watched;
use crate::error::{Error, Kind, Result};
use crate::signals::Listener;
use crate::store::consumers::{Consumer, ConsumerKey, Owner};
use crate::sync::{Bell, lock};

/// How long a subscription that has ended tries to leave its place as it was acknowledged.
const FAREWELL: Duration = Duration::from_secs(5);
/// The first and the longest rest before a write that failed is tried again.
const REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub struct Durable {
    app: Arc<App>,
    id: u64,
    name: String,
    owner: Owner,
    window: usize,
    /// Hears of the consumer.
    listener: Listener,
    /// The session's.
    wake: Arc<Bell>,
    /// A write has ended.
    written: Notify,
    state: Mutex<State>,
}

/// An acknowledgement that is to be written down.
#[derive(Clone, Copy, Debug)]
pub struct Receipt {
    seq: u64,
    /// The failures before it.
    failures: u64,
}

struct State {
    /// Numbers of events that were delivered and are not acknowledged, ascending.
    open: VecDeque<u64>,
    /// A range that is missing was told, which ends here, and is not acknowledged.
    gap: Option<u64>,
    /// Everything up to here has been looked at.
    looked: u64,
    /// The last number that the client knows of.
    told: u64,
    /// What numbers count in.
    epoch: Arc<str>,
    /// Everything up to here is acknowledged, or not for this subscription.
    acked: u64,
    /// What the store knows of that.
    stored: u64,
    /// Ask the store whether the consumer still is ours.
    look: bool,
    /// The subscription has ended; the time by which its place has to be left.
    leaving: Option<Instant>,
    /// The place was left.
    left: bool,
    /// A task writes.
    working: bool,
    /// Writes that have failed.
    failures: u64,
    end: Option<End>,
    /// The session that has taken it over.
    taker: Option<String>,
}

/// What is to be written next.
enum Write {
    Place { epoch: Arc<str>, seq: u64 },
    Use,
    Leave,
}

impl Durable {
    /// Begins at `seq`, which is acknowledged as far as the store says. If that is less, the range between is missing and
    /// the client is told so.
    pub fn new(
        app: Arc<App>,
        consumer: &Consumer,
        window: usize,
        listener: Listener,
        wake: Arc<Bell>,
        (epoch, seq): (Arc<str>, u64),
    ) -> Arc<Durable> {
        let acked = consumer.cursor.seq.min(seq);
        let durable = Durable {
            app,
            id: consumer.id.unwrap_or_default(),
            name: consumer.name.clone().unwrap_or_default(),
            owner: consumer.owner.clone(),
            window,
            listener,
            wake,
            written: Notify::new(),
            state: Mutex::new(State {
                open: VecDeque::new(),
                gap: (acked < seq).then_some(seq),
                looked: seq,
                told: seq,
                epoch,
                acked,
                stored: acked,
                // It may have been taken over before the listener listened.
                look: true,
                leaving: None,
                left: false,
                working: false,
                failures: 0,
                end: None,
                taker: None,
            }),
        };
        let durable = Arc::new(durable);
        durable.work(&mut lock(&durable.state));
        durable
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(super) fn end(&self) -> Option<End> {
        lock(&self.state).end
    }

    pub(super) fn taker(&self) -> Option<String> {
        lock(&self.state).taker.clone()
    }

    /// Acknowledges everything up to `seq`: 422 beyond what was delivered, 409 if the consumer is another's now.
    pub(super) fn ack(self: &Arc<Self>, seq: u64) -> Result<Receipt> {
        let mut state = lock(&self.state);
        if let Some(end) = state.end {
            return Err(ended(end));
        }
        if seq > state.told {
            let expected = format!("expected at most {}, the last that was delivered", state.told);
            return Err(Error::invalid("seq", expected));
        }
        let was_full = state.open.len() >= self.window;
        while state.open.front().is_some_and(|first| *first <= seq) {
            state.open.pop_front();
        }
        state.gap = state.gap.filter(|gap| *gap > seq);
        state.acked = state.acked.max(seq);
        self.work(&mut state);
        if was_full {
            self.wake.ring();
        }
        Ok(Receipt { seq, failures: state.failures })
    }

    /// Waits until an acknowledgement is written down; 503 if that has failed for now, though it will be tried again.
    pub(super) async fn written(&self, receipt: Receipt) -> Result<()> {
        loop {
            let mut written = std::pin::pin!(self.written.notified());
            written.as_mut().enable();
            {
                let state = lock(&self.state);
                if state.stored >= receipt.seq {
                    return Ok(());
                }
                if let Some(end) = state.end {
                    return Err(ended(end));
                }
                if state.failures > receipt.failures || state.left {
                    let cause = anyhow::anyhow!("an acknowledgement of {} is not written yet", self.name);
                    return Err(Error::unavailable("store", cause));
                }
            }
            written.await;
        }
    }

    pub(super) async fn left(&self) {
        let left = async {
            loop {
                let mut written = std::pin::pin!(self.written.notified());
                written.as_mut().enable();
                let is_over = {
                    let state = lock(&self.state);
                    state.left || state.end.is_some()
                };
                if is_over {
                    return;
                }
                written.await;
            }
        };
        let _ = timeout(FAREWELL, left).await;
    }

    pub(super) fn listen(self: &Arc<Self>) {
        if self.listener.take() {
            let mut state = lock(&self.state);
            state.look = true;
            self.work(&mut state);
        }
    }

    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(lock(&self.state).open.len())
    }

    pub(super) fn delivered(&self, delivered: Delivered<'_>) {
        let mut state = lock(&self.state);
        state.epoch = delivered.epoch.clone();
        state.looked = state.looked.max(delivered.looked);
        if let Some(gap) = delivered.gap {
            (state.gap, state.told) = (Some(gap), gap.max(state.told));
        }
        state.open.extend(delivered.events);
        state.told = state.open.back().map_or(state.told, |last| state.told.max(*last));
    }

    pub(super) fn told(&self, seq: u64) {
        let mut state = lock(&self.state);
        state.told = state.told.max(seq);
    }

    pub(super) fn keep(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.look = true;
        self.work(&mut state);
    }

    /// The subscription has ended: what was acknowledged is written down, and the consumer let go of.
    pub(super) fn leave(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.leaving = Some(Instant::now() + FAREWELL);
        self.work(&mut state);
    }

    /// Sees to it that somebody writes what there is to write.
    fn work(self: &Arc<Self>, state: &mut State) {
        if !state.working && state.has_work() {
            state.working = true;
            self.app.work.spawn(watched("places", self.clone().write()));
        }
    }

    async fn write(self: Arc<Self>) {
        let mut rest = REST;
        loop {
            let Some(write) = lock(&self.state).next() else { return };
            let done = self.write_once(&write).await;
            let late = lock(&self.state).wrote(&write, &done);
            match done {
                Ok(None) => rest = REST,
                // The session tells its client.
                Ok(Some(_)) => self.wake.call(),
                Err(error) => tracing::debug!(%error, name = self.name, "a place was not written down"),
            }
            self.written.notify_waiters();
            if late {
                sleep(rest).await;
                rest = (rest * 2).min(LONGEST_REST);
            }
        }
    }

    /// Writes to the store. Some: the consumer is not ours any more, and why.
    async fn write_once(&self, write: &Write) -> Result<Option<End>> {
        let store = &self.app.store;
        let is_ours = match write {
            Write::Place { epoch, seq } => store.ack_consumer(self.id, epoch, *seq).await?,
            Write::Use => store.touch_consumer(self.id).await?,
            Write::Leave => store.close_consumer(self.id).await?,
        };
        if is_ours {
            return Ok(None);
        }
        Ok(Some(match store.consumer(ConsumerKey::Name(&self.name)).await? {
            None => End::Deleted,
            Some(consumer) if consumer.id.is_none() => End::Moved,
            Some(consumer) => {
                lock(&self.state).taker = consumer.session;
                End::TakenOver
            }
        }))
    }
}

impl State {
    /// The place that may be written: past everything that was looked at while nothing waits to be acknowledged.
    fn place(&self) -> u64 {
        let is_clear = self.open.is_empty() && self.gap.is_none();
        if is_clear { self.acked.max(self.looked) } else { self.acked }
    }

    /// What is to be written. A place that merely moved past what is not wanted waits for the next occasion.
    fn due(&self) -> Option<Write> {
        if self.end.is_some() || self.left {
            return None;
        }
        let occasion = self.look || self.leaving.is_some();
        let place = self.place();
        if self.acked > self.stored || (occasion && place > self.stored) {
            return Some(Write::Place { epoch: self.epoch.clone(), seq: place });
        }
        if self.leaving.is_some() {
            return Some(Write::Leave);
        }
        self.look.then_some(Write::Use)
    }

    fn has_work(&self) -> bool {
        self.due().is_some()
    }

    /// Takes the next write; without one the writing has ended.
    fn next(&mut self) -> Option<Write> {
        let due = self.due();
        match &due {
            // Every write also tells whether the consumer is ours; what is heard from now on is asked for again.
            Some(_) => self.look = false,
            None => self.working = false,
        }
        due
    }

    /// Notes how a write ended. Whether it has to be tried again.
    fn wrote(&mut self, write: &Write, done: &Result<Option<End>>) -> bool {
        match (done, write) {
            (Ok(None), Write::Place { seq, .. }) => {
                (self.stored, self.acked) = (*seq, self.acked.max(*seq));
            }
            (Ok(None), Write::Use) => {}
            (Ok(None), Write::Leave) => self.left = true,
            (Ok(Some(end)), _) => self.end = Some(*end),
            (Err(_), _) => {
                self.failures += 1;
                self.look = true;
                self.left = self.leaving.is_some_and(|end| end <= Instant::now());
            }
        }
        done.is_err()
    }
}

fn ended(end: End) -> Error {
    Error::new(Kind::Conflict, format!("sub: {}", end.reason()))
}
