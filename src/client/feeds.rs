//! The connection's side of subscriptions: which are open, how far each has come, which wait for their reader.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::error::{Error, Result};
use super::requests::{Purpose, Requests};
use super::subscription::{Item, OnSlow, QUEUE, Shared, Start, Subscribe};
use super::wire::{EventParams, GapParams, Range, Subscribed};
use crate::model::Position;

/// A subscription that somebody has asked for.
pub(super) struct NewFeed {
    pub(super) subscribe: Subscribe,
    pub(super) items: mpsc::Sender<Item>,
    pub(super) shared: Arc<Shared>,
    /// Told the position where it begins, or why there is no subscription.
    pub(super) opened: oneshot::Sender<Result<Position>>,
}

/// Sessions of this client that are remembered.
const KNOWN_SESSIONS: usize = 16;

enum Phase {
    /// `event.subscribe` is on its way. Events that overtake its answer wait here.
    Opening(Vec<EventParams>),
    /// Events come.
    Live,
    /// `event.unsubscribe` is on its way; what still comes is not wanted.
    Leaving,
    /// Not subscribed on the server until the reader has caught up.
    Parked,
}

struct Feed {
    subscribe: Subscribe,
    items: mpsc::Sender<Item>,
    shared: Arc<Shared>,
    opened: Option<oneshot::Sender<Result<Position>>>,
    /// Up to here everything is in the reader's queue. `None` until the first answer.
    position: Option<Position>,
    phase: Phase,
    acks: AckState,
}

/// What a durable subscription has acknowledged.
#[derive(Default)]
struct AckState {
    /// The last number that the server of this session has shown, also of events that were here already: nothing beyond
    /// may be acknowledged to it.
    shown: u64,
    /// What was sent in this session, or was its place to begin with.
    sent: u64,
    /// What the server has confirmed in any session.
    confirmed: u64,
    /// An acknowledgement is on its way.
    under_way: bool,
}

/// What became of an attempt to put something in a reader's queue.
enum Queued {
    Yes,
    Full,
    Gone,
}

impl Feed {
    fn queue(&mut self, item: Item) -> Queued {
        match self.items.try_send(item) {
            Ok(()) => Queued::Yes,
            Err(TrySendError::Full(_)) => Queued::Full,
            Err(TrySendError::Closed(_)) => Queued::Gone,
        }
    }
    fn advance(&mut self, seq: u64) {
        if let Some(position) = &mut self.position {
            position.seq = position.seq.max(seq);
        }
    }
    fn has_seen(&self, seq: u64) -> bool {
        // What a group gives comes in any order, and again.
        self.subscribe.group.is_none() && self.position.as_ref().is_some_and(|position| seq <= position.seq)
    }
    /// The server knows of no such subscription: it begins where it stood, as soon as the reader has room.
    fn begin_again(&mut self) {
        self.phase = Phase::Parked;
        if !self.half_read() {
            self.shared.parked.store(true, Ordering::SeqCst);
        }
    }
    fn half_read(&self) -> bool {
        self.items.capacity() >= QUEUE / 2
    }
    /// The reader who asked to skip is behind: it begins anew with what happens now.
    fn skips(&self) -> bool {
        self.subscribe.on_slow == OnSlow::Latest && self.shared.parked.load(Ordering::SeqCst)
    }
    /// What is to be acknowledged now, if anything is.
    fn due_ack(&self) -> Option<u64> {
        let seq = self.shared.acked.load(Ordering::SeqCst).min(self.acks.shown);
        let is_due = self.subscribe.durable.is_some()
            && self.subscribe.group.is_none()
            && matches!(self.phase, Phase::Live)
            && seq > self.acks.sent;
        is_due.then_some(seq)
    }
    /// Where the server has this durable subscription begin.
    fn begin_acks(&mut self, answer: &Subscribed) {
        let place = answer.missed.map_or(answer.position.seq, |missed| missed.from.saturating_sub(1));
        let shown = answer.position.seq;
        let is_lost = self.position.as_ref().is_some_and(|known| known.epoch != answer.position.epoch);
        if is_lost {
            // Numbers mean something else now.
            self.shared.acked.store(place, Ordering::SeqCst);
        } else if place < self.acks.confirmed {
            // Somebody has moved it back, or the server has lost what it had confirmed: all of it is done again.
            self.position = None;
            self.shared.acked.store(place, Ordering::SeqCst);
        }
        self.acks = AckState { shown, sent: place, confirmed: place, under_way: false };
    }
    /// What the answer of `event.subscribe` means for the reader: the range or the history that it lost.
    fn begin(&mut self, answer: &Subscribed) {
        if self.subscribe.group.is_some() && self.position.is_some() {
            // The group goes on by itself.
            return;
        }
        if self.subscribe.durable.is_some() {
            self.begin_acks(answer);
        }
        let Some(known) = self.position.clone() else {
            self.position = Some(answer.position.clone());
            if let Some(missed) = answer.missed {
                let _ = self.queue(Item::Gap(missed));
                self.advance(missed.to);
            }
            return;
        };
        if known.epoch != answer.position.epoch {
            let _ = self.queue(Item::Reset(answer.position.clone()));
            self.position = Some(answer.position.clone());
            return;
        }
        let lost = match answer.missed {
            Some(missed) => Some(missed),
            None if answer.recovered && !self.skips() => None,
            None => Some(Range { from: known.seq.saturating_add(1), to: answer.position.seq }),
        };
        if let Some(mut lost) = lost.filter(|lost| lost.to > known.seq) {
            lost.from = lost.from.max(known.seq.saturating_add(1));
            let _ = self.queue(Item::Gap(lost));
            self.advance(lost.to);
        }
    }
}

/// All subscriptions of a client by their number. The numbers are the smallest free ones, because the server
/// shares the frame of an event among everybody who chose the same number.
#[derive(Default)]
pub(super) struct Feeds {
    feeds: BTreeMap<u32, Feed>,
    /// The last sessions of this client, the newest first.
    sessions: VecDeque<String>,
}

impl Feeds {
    /// Takes a new subscription.
    pub(super) fn add(&mut self, new: NewFeed, requests: &mut Requests) {
        let sub = (1..).zip(self.feeds.keys()).find(|(free, taken)| free != *taken).map(|(free, _)| free);
        let sub = sub.unwrap_or(self.feeds.len() as u32 + 1);
        let position = match &new.subscribe.from {
            // The place that the server keeps may be another one.
            Start::At(position) if new.subscribe.durable.is_none() => Some(position.clone()),
            _ => None,
        };
        let feed = Feed {
            subscribe: new.subscribe,
            items: new.items,
            shared: new.shared,
            opened: Some(new.opened),
            position,
            phase: Phase::Parked,
            acks: AckState::default(),
        };
        feed.shared.sub.store(sub, Ordering::SeqCst);
        self.feeds.insert(sub, feed);
        self.open(sub, requests);
    }
    fn open(&mut self, sub: u32, requests: &mut Requests) {
        let Some(feed) = self.feeds.get_mut(&sub) else { return };
        let from = match &feed.position {
            _ if feed.skips() => Start::Now,
            Some(position) if feed.subscribe.group.is_none() => Start::At(position.clone()),
            _ => feed.subscribe.from.clone(),
        };
        let mut params = json!({"sub": sub, "channel": feed.subscribe.channel, "from": from});
        if let Some(filter) = &feed.subscribe.filter {
            params["filter"] = filter.clone();
        }
        if !feed.subscribe.include.is_empty() {
            params["include"] = json!(feed.subscribe.include);
        }
        if feed.subscribe.on_slow == OnSlow::Latest {
            params["on_slow"] = json!("latest");
        }
        if let Some(name) = &feed.subscribe.durable {
            params["durable"] = json!(name);
        }
        if let Some(window) = feed.subscribe.window {
            params["window"] = json!(window);
        }
        if let Some(group) = &feed.subscribe.group {
            params["group"] = json!(true);
            let wishes = serde_json::to_value(group).unwrap_or_default();
            wishes.as_object().into_iter().flatten().for_each(|(name, value)| params[name] = value.clone());
        }
        feed.phase = Phase::Opening(Vec::new());
        requests.own("event.subscribe", &params, Purpose::Open(sub));
    }
    fn leave(&mut self, sub: u32, requests: &mut Requests) {
        self.ack_now(sub, requests);
        if let Some(feed) = self.feeds.get_mut(&sub) {
            feed.phase = Phase::Leaving;
            requests.own("event.unsubscribe", &json!({"sub": sub}), Purpose::Leave(sub));
        }
    }
    fn park(&mut self, sub: u32, requests: &mut Requests) {
        if let Some(feed) = self.feeds.get(&sub) {
            feed.shared.parked.store(true, Ordering::SeqCst);
            self.leave(sub, requests);
        }
    }
    /// Acknowledges what is due; one acknowledgement of a subscription is on its way at a time.
    fn ack(&mut self, sub: u32, requests: &mut Requests) {
        if self.feeds.get(&sub).is_some_and(|feed| !feed.acks.under_way) {
            self.ack_now(sub, requests);
        }
    }
    fn ack_now(&mut self, sub: u32, requests: &mut Requests) {
        let Some(feed) = self.feeds.get_mut(&sub) else { return };
        let Some(seq) = feed.due_ack() else { return };
        (feed.acks.sent, feed.acks.under_way) = (seq, true);
        requests.own("event.ack", &json!({"sub": sub, "seq": seq}), Purpose::Ack(sub, seq));
    }
    /// The answer of `event.ack`. The server tries by itself again what it could not write down.
    pub(super) fn acked(&mut self, sub: u32, seq: u64, confirmed: bool, requests: &mut Requests) {
        let Some(feed) = self.feeds.get_mut(&sub) else { return };
        feed.acks.under_way = false;
        if confirmed {
            feed.acks.confirmed = feed.acks.confirmed.max(seq);
        }
        self.ack(sub, requests);
    }
    /// The client ends; what was acknowledged is still sent.
    pub(super) fn say_goodbye(&mut self, requests: &mut Requests) {
        let subs: Vec<u32> = self.feeds.keys().copied().collect();
        subs.into_iter().for_each(|sub| self.ack_now(sub, requests));
    }
    fn end(&mut self, sub: u32, reason: &str) {
        if let Some(feed) = self.feeds.remove(&sub) {
            feed.shared.end(reason);
        }
    }
    /// The answer of `event.subscribe`. An error that may pass is handed back: the connection starts anew then.
    pub(super) fn opened(
        &mut self,
        sub: u32,
        answer: Result<Subscribed>,
        requests: &mut Requests,
    ) -> Result<()> {
        let Some(feed) = self.feeds.get_mut(&sub) else { return Ok(()) };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if let Some(opened) = feed.opened.take() {
                    let _ = opened.send(Err(error));
                    self.feeds.remove(&sub);
                } else if error.temporary() {
                    return Err(error);
                } else {
                    self.end(sub, &error.to_string());
                }
                return Ok(());
            }
        };
        feed.begin(&answer);
        feed.shared.parked.store(false, Ordering::SeqCst);
        if let (Some(opened), Some(position)) = (feed.opened.take(), &feed.position) {
            // The reader's own position moves with what it reads, so it starts in front of a gap.
            let start = match &feed.subscribe.from {
                Start::At(start) if feed.subscribe.durable.is_none() => start.clone(),
                _ => position.clone(),
            };
            let _ = opened.send(Ok(start));
        }
        let early = match std::mem::replace(&mut feed.phase, Phase::Live) {
            Phase::Opening(early) => early,
            _ => Vec::new(),
        };
        if feed.items.is_closed() {
            self.leave(sub, requests);
        }
        for event in early {
            self.event(event, requests)?;
        }
        self.ack(sub, requests);
        Ok(())
    }
    /// The answer of `event.unsubscribe`.
    pub(super) fn left(&mut self, sub: u32, requests: &mut Requests) {
        if let Some(feed) = self.feeds.get_mut(&sub) {
            feed.phase = Phase::Parked;
            self.scan(requests);
        }
    }
    /// Looks for readers who have gone or have acknowledged something, and for parked ones who have caught up.
    pub(super) fn scan(&mut self, requests: &mut Requests) {
        let subs: Vec<u32> = self.feeds.keys().copied().collect();
        for sub in subs {
            let Some(feed) = self.feeds.get(&sub) else { continue };
            match (&feed.phase, feed.items.is_closed()) {
                (Phase::Parked, true) => drop(self.feeds.remove(&sub)),
                (Phase::Live, true) => self.leave(sub, requests),
                (Phase::Parked, false) if feed.half_read() => self.open(sub, requests),
                (Phase::Live, false) => self.ack(sub, requests),
                _ => {}
            }
        }
    }
    /// Notification `event`.
    pub(super) fn event(&mut self, params: EventParams, requests: &mut Requests) -> Result<()> {
        let (sub, seq) = (params.sub, params.seq);
        let Some(feed) = self.feeds.get_mut(&sub) else { return Ok(()) };
        let seen = feed.has_seen(seq);
        feed.acks.shown = feed.acks.shown.max(seq);
        match &mut feed.phase {
            Phase::Opening(early) if early.len() < QUEUE / 2 => early.push(params),
            Phase::Opening(_) => {
                return Err(Error::Protocol("events come, but no answer to event.subscribe".to_owned()));
            }
            Phase::Live if !seen => match feed.queue(Item::Event(params)) {
                Queued::Yes => feed.advance(seq),
                Queued::Full => self.park(sub, requests),
                Queued::Gone => self.leave(sub, requests),
            },
            // It was here already and may be done.
            Phase::Live => self.ack(sub, requests),
            _ => {}
        }
        Ok(())
    }
    /// Notification `gap`: numbers that are lost, or with an epoch the whole history.
    pub(super) fn gap(&mut self, params: GapParams, requests: &mut Requests) {
        let GapParams { sub, range, epoch } = params;
        let Some(feed) = self.feeds.get_mut(&sub) else { return };
        feed.acks.shown = feed.acks.shown.max(range.to);
        let reset = epoch.map(|epoch| Position { epoch, seq: range.to });
        if !matches!(feed.phase, Phase::Live) || (reset.is_none() && feed.has_seen(range.to)) {
            return;
        }
        let item = match &reset {
            Some(position) => Item::Reset(position.clone()),
            None => Item::Gap(range),
        };
        match (feed.queue(item), reset) {
            (Queued::Yes, None) => feed.advance(range.to),
            (Queued::Yes, reset) => feed.position = reset,
            (Queued::Full, _) => self.park(sub, requests),
            (Queued::Gone, _) => self.leave(sub, requests),
        }
    }
    /// Notification `progress`: nothing up to `seq` is for this reader. If its queue is full it does not get to
    /// know, and its stored position is merely older than it could be.
    pub(super) fn progress(&mut self, sub: u32, seq: u64) {
        let Some(feed) = self.feeds.get_mut(&sub) else { return };
        feed.acks.shown = feed.acks.shown.max(seq);
        if matches!(feed.phase, Phase::Live) && !feed.has_seen(seq) {
            let _ = feed.queue(Item::Progress(seq));
            feed.advance(seq);
        }
    }
    /// Notification `unsubscribed`; `by` is the session that has taken the subscription over, if one has.
    pub(super) fn unsubscribed(&mut self, sub: u32, reason: &str, by: &str, requests: &mut Requests) {
        let is_own = self.sessions.iter().any(|session| session == by);
        match self.feeds.get_mut(&sub).filter(|feed| !matches!(feed.phase, Phase::Leaving | Phase::Parked)) {
            // A request of a connection that was lost has come late: nobody else wants the subscription.
            Some(feed) if is_own => {
                feed.begin_again();
                self.scan(requests);
            }
            Some(_) => self.end(sub, reason),
            None => {}
        }
    }
    /// The server of the new session knows of no subscription: all begin again where they stood.
    pub(super) fn resume(&mut self, session: &str, requests: &mut Requests) {
        self.feeds.values_mut().for_each(Feed::begin_again);
        self.sessions.truncate(KNOWN_SESSIONS - 1);
        self.sessions.push_front(session.to_owned());
        self.scan(requests);
    }
    /// The client ends.
    pub(super) fn end_all(&mut self, reason: &str) {
        for (_, feed) in std::mem::take(&mut self.feeds) {
            feed.shared.end(reason);
            if let Some(opened) = feed.opened {
                let _ = opened.send(Err(Error::Closed(reason.to_owned())));
            }
        }
    }
}
