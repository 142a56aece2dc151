//! A subscription as its reader sees it: a stream of deliveries and the position that it has reached.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::{Group, Inner, wire};
use crate::model::Position;

/// How many deliveries wait for a reader. When they are that many, the client leaves the subscription on the
/// server and takes it up again, from the right place, once half of them have been read. So a slow reader costs
/// bounded memory, loses nothing, and holds up nobody else on the connection.
pub(super) const QUEUE: usize = 1024;

/// What to subscribe to.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The channel, `node` for everything that happens to nodes.
    pub channel: String,
    /// A filter on the CloudEvent as a JSON object, e.g. `{"data.kind":"job","data.state":"done"}`.
    pub filter: Option<Value>,
    /// Where to begin.
    pub from: Start,
    /// What to add to each event: `node`, `ancestors`.
    pub include: Vec<String>,
    /// What happens when this reader is slow.
    pub on_slow: OnSlow,
    /// The name under which the server keeps this reader's place. It begins at `from` only if it is new; else behind what
    /// was acknowledged ([`Subscription::ack`]).
    pub durable: Option<String>,
    /// How many events of a durable subscription may come before the first of them is acknowledged.
    pub window: Option<u32>,
    /// Share the durable name with others.
    pub group: Option<Group>,
}

impl Subscribe {
    /// Everything on a channel, from now on.
    pub fn to(channel: impl Into<String>) -> Self {
        Subscribe {
            channel: channel.into(),
            filter: None,
            from: Start::Now,
            include: Vec::new(),
            on_slow: OnSlow::CatchUp,
            durable: None,
            window: None,
            group: None,
        }
    }
    /// Only events that this filter matches.
    pub fn filter(mut self, filter: Value) -> Self {
        self.filter = Some(filter);
        self
    }
    /// Begin here.
    pub fn from(mut self, from: Start) -> Self {
        self.from = from;
        self
    }
    /// Keep the place under this name.
    pub fn durable(mut self, name: impl Into<String>) -> Self {
        self.durable = Some(name.into());
        self
    }
    /// So many events of a durable subscription may wait to be acknowledged.
    pub fn window(mut self, events: u32) -> Self {
        self.window = Some(events);
        self
    }
    /// Be a member of the group of the durable name.
    pub fn group(mut self, group: Group) -> Self {
        self.group = Some(group);
        self
    }
    /// Add `node` or `ancestors` to each event.
    pub fn include(mut self, part: impl Into<String>) -> Self {
        self.include.push(part.into());
        self
    }
}

/// Where a subscription begins.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the next event.
    Now,
    /// With the oldest event that is still kept.
    Earliest,
    /// Behind this position.
    #[serde(untagged)]
    At(Position),
    /// With the first event that happened at this time (ISO 8601) or later.
    #[serde(untagged)]
    Time {
        /// E.g. `2026-11-24T12:00:00`; without an offset it is UTC.
        time: String,
    },
}

/// What happens to a reader who cannot keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSlow {
    /// It reads everything, later.
    CatchUp,
    /// It skips to the present and is told what it missed ([`Delivery::Gap`]).
    Latest,
}

/// What a subscription delivers.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// An event.
    Event(Box<EventDelivery>),
    /// The events with these numbers (both included) are lost for this reader.
    Gap {
        /// The first one.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// The server's history was lost and begins anew: whatever was built from events has to be built again.
    Reset {
        /// Where this subscription stands in the new history.
        position: Position,
    },
}

/// An event with what was asked to come with it.
#[derive(Clone, Debug)]
pub struct EventDelivery {
    /// Its number in the channel.
    pub seq: u64,
    /// The CloudEvent.
    pub event: cloudevents::Event,
    /// The CloudEvent exactly as it came.
    pub raw: Box<RawValue>,
    /// The node as it stood at delivery, with `include: node`.
    pub node: Option<Value>,
    /// Its parents, with `include: ancestors`.
    pub ancestors: Option<Vec<Value>>,
    /// In a group: how often it has been given to a member, this time included.
    pub deliveries: Option<u32>,
}

/// What travels from the connection to the reader.
#[derive(Debug)]
pub(super) enum Item {
    Event(wire::EventParams),
    Gap(wire::Range),
    Reset(Position),
    Progress(u64),
}

/// What the reader and the connection both know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The queue ran full and the subscription waits for the reader.
    pub(super) parked: AtomicBool,
    /// Whether anybody wants to know what is acknowledged.
    durable: bool,
    /// Everything up to here is acknowledged by the reader.
    pub(super) acked: AtomicU64,
    /// Its number.
    pub(super) sub: AtomicU32,
    /// Why it ended.
    ended: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn new(durable: bool) -> Shared {
        Shared { durable, ..Shared::default() }
    }
    pub(super) fn end(&self, reason: &str) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

/// Why the server has ended a subscription for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Somebody else subscribed under its durable name.
    TakenOver,
    /// Its consumer was put to another place: subscribe again to go on from there.
    Moved,
    /// Its consumer was removed.
    Deleted,
    /// Anything else, in the server's words.
    Other(String),
}

impl Ended {
    fn read(reason: &str) -> Ended {
        match reason.split(':').next().unwrap_or_default() {
            "taken over" => Ended::TakenOver,
            "moved" => Ended::Moved,
            "deleted" => Ended::Deleted,
            _ => Ended::Other(reason.to_owned()),
        }
    }
}

/// A running subscription. It survives reconnects: it continues behind the last event that came, with no event
/// missing and none twice. What could not be recovered is a [`Delivery::Gap`] or [`Delivery::Reset`]. Dropping it
/// unsubscribes. A member of a group has no position: it gets what the group gives it, and what it had when a connection
/// was lost goes to any member.
pub struct Subscription {
    items: mpsc::Receiver<Item>,
    pub(super) shared: Arc<Shared>,
    position: Position,
    pub(super) client: Arc<Inner>,
}

impl Subscription {
    pub(super) fn new(
        items: mpsc::Receiver<Item>,
        shared: Arc<Shared>,
        position: Position,
        client: Arc<Inner>,
    ) -> Self {
        Subscription { items, shared, position, client }
    }
    /// The next delivery; `None` when the subscription has ended ([`Subscription::end_reason`]). Safe to drop and
    /// call again.
    pub async fn next(&mut self) -> Option<Delivery> {
        std::future::poll_fn(|cx| self.poll_delivery(cx)).await
    }
    /// Everything up to here has been handed out by [`Subscription::next`]. Store it and give it back as
    /// [`Start::At`] to continue in another process.
    pub fn position(&self) -> &Position {
        &self.position
    }
    /// Says that everything up to `seq` is done: the number of an event, or where a gap or a reset ends. A durable
    /// subscription that begins anew, in this process or another, goes on behind it. Returns at once; the newest number is
    /// sent as soon as the one before is written down, and once more after a reconnect if that was not known.
    pub fn ack(&self, seq: u64) {
        if self.shared.durable && self.shared.acked.fetch_max(seq, Ordering::SeqCst) < seq {
            self.client.wake.notify_one();
        }
    }
    /// Why the subscription has ended, if it has, for programs.
    pub fn ended(&self) -> Option<Ended> {
        self.end_reason().map(|reason| Ended::read(&reason))
    }
    /// Why the subscription has ended, if it has.
    pub fn end_reason(&self) -> Option<String> {
        self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        loop {
            let item = std::task::ready!(self.items.poll_recv(cx));
            if self.shared.parked.load(Ordering::SeqCst) && self.items.len() <= QUEUE / 2 {
                self.client.wake.notify_one();
            }
            match item {
                None => return Poll::Ready(None),
                Some(item) => {
                    if let Some(delivery) = self.deliver(item) {
                        return Poll::Ready(Some(delivery));
                    }
                }
            }
        }
    }
    fn deliver(&mut self, item: Item) -> Option<Delivery> {
        match item {
            Item::Progress(seq) => {
                self.position.seq = seq;
                None
            }
            Item::Gap(range) => {
                self.position.seq = range.to;
                Some(Delivery::Gap { from: range.from, to: range.to })
            }
            Item::Reset(position) => {
                self.position = position.clone();
                Some(Delivery::Reset { position })
            }
            Item::Event(params) => {
                let wire::EventParams { seq, event: raw, node, ancestors, deliveries, .. } = params;
                self.position.seq = seq;
                match parse_event(&raw) {
                    Ok(event) => {
                        let event = EventDelivery { seq, event, raw, node, ancestors, deliveries };
                        Some(Delivery::Event(Box::new(event)))
                    }
                    Err(error) => {
                        tracing::warn!(seq, %error, "not a CloudEvent, reported as a gap");
                        Some(Delivery::Gap { from: seq, to: seq })
                    }
                }
            }
        }
    }
}

/// Reads a CloudEvent. The SDK refuses the whole event for an extension that is neither text, bool nor integer;
/// the reader gets it without such an extension (it is still in `raw`).
fn parse_event(raw: &RawValue) -> serde_json::Result<cloudevents::Event> {
    match serde_json::from_str(raw.get()) {
        Ok(event) => Ok(event),
        Err(_) => {
            let mut map: serde_json::Map<String, Value> = serde_json::from_str(raw.get())?;
            map.retain(|key, value| {
                key == "data" || value.is_string() || value.is_boolean() || value.is_i64()
            });
            serde_json::from_value(Value::Object(map))
        }
    }
}

impl futures::Stream for Subscription {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.get_mut().poll_delivery(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // The connection looks for closed queues when it is woken.
        self.items.close();
        self.client.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_have_the_form_of_the_protocol() {
        let json = |start: Start| serde_json::to_value(start).unwrap();
        assert_eq!(json(Start::Now), "now");
        assert_eq!(json(Start::Earliest), "earliest");
        let position = Position { epoch: "e".into(), seq: 4 };
        assert_eq!(json(Start::At(position)), serde_json::json!({"epoch": "e", "seq": 4}));
        assert_eq!(json(Start::Time { time: "2026".into() }), serde_json::json!({"time": "2026"}));
    }

    #[test]
    fn an_extension_that_the_sdk_refuses_does_not_cost_the_event() {
        let text =
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"a":1},"odd":1.5,"ok":"x"}"#;
        let raw: Box<RawValue> = serde_json::from_str(text).unwrap();
        let event = parse_event(&raw).unwrap();
        assert!(event.extension("odd").is_none());
        assert!(event.extension("ok").is_some());
    }
}
