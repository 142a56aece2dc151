//! What the server says unasked. The frames themselves are written as text, in `session`, because there are many.

// They describe frames and are never made.
#![allow(dead_code)]

use schemars::JsonSchema;

use super::Described;
use super::types::CloudEvent;
use crate::model::Node;

/// A kind of notification.
pub(super) struct Notification {
    /// Its JSON-RPC `method`.
    pub(super) name: &'static str,
    pub(super) meaning: &'static str,
    pub(super) params: Described,
}

/// The table of notifications.
pub(super) fn notifications() -> Vec<Notification> {
    fn row<P: JsonSchema>(name: &'static str, meaning: &'static str) -> Notification {
        Notification { name, meaning, params: Described::of::<P>() }
    }
    vec![
        row::<Event>("event", "An event of a subscription."),
        row::<Progress>("progress", "Nothing that matches lies between the last event and this place."),
        row::<Gap>(
            "gap",
            "These sequence numbers cannot be read any more. With `epoch`, history was lost and numbers count in the \
             new epoch from here on.",
        ),
        row::<Stalled>(
            "stalled",
            "To the members of a group: so many events were given back with a delay (4,096, with those that are out) that \
             nothing comes until the first of them is due.",
        ),
        row::<Unsubscribed>(
            "unsubscribed",
            "The server has ended the subscription. The place of a durable one is kept, unless it was deleted.",
        ),
        row::<Expiring>("session.expiring", "The token ends soon: `session.refresh` renews it."),
        row::<Degraded>(
            "session.degraded",
            "Parts of the server are away: requests that need them fail at once with a temporary error, and events may \
             come late. None is lost.",
        ),
        row::<Recovered>("session.recovered", "All parts are there again."),
        row::<Closing>(
            "session.closing",
            "The server will close the session. Reconnect after a random part of `jitter_ms`, and resume.",
        ),
    ]
}

#[derive(JsonSchema)]
#[schemars(rename = "event")]
struct Event {
    /// The number of the subscription.
    sub: u32,
    /// The event's number in the channel: the subscription's new position.
    seq: u64,
    /// The event.
    #[schemars(with = "CloudEvent")]
    event: (),
    /// In a group: how often the event has been given to a member, this time included.
    #[schemars(with = "u32", default)]
    deliveries: (),
    /// The node as it stands now, if the subscription includes it; null if there is none.
    #[schemars(with = "Option<Node>", default)]
    node: (),
    /// The nodes above it, from the root down, if the subscription includes them.
    #[schemars(with = "Vec<Node>", default)]
    ancestors: (),
    /// What is left out because the message would be longer than the client takes (`max_message` of `session.hello`):
    /// the event's `data`, or `node` and `ancestors`, which are null then.
    #[schemars(with = "Omitted", default)]
    omitted: (),
}

#[derive(JsonSchema)]
struct Omitted {
    /// The event has come without `data`.
    event: Option<LeftOut>,
    /// The nodes have not come.
    node: Option<LeftOut>,
}

#[derive(JsonSchema)]
struct LeftOut {
    /// How much it is.
    bytes: usize,
    /// Where it can be got: a path of the REST API.
    get: String,
}

#[derive(JsonSchema)]
#[schemars(rename = "progress")]
struct Progress {
    /// The number of the subscription.
    sub: u32,
    /// Its new position.
    seq: u64,
}

#[derive(JsonSchema)]
#[schemars(rename = "gap")]
struct Gap {
    /// The number of the subscription.
    sub: u32,
    /// First number that is missing.
    from: u64,
    /// Last number that is missing: the subscription's new position. A durable subscription is told again until this or
    /// a later number is acknowledged.
    to: u64,
    /// The new epoch, if history was lost.
    #[schemars(with = "String", default)]
    epoch: (),
}

#[derive(JsonSchema)]
#[schemars(rename = "stalled")]
struct Stalled {
    /// The number of the subscription.
    sub: u32,
    /// How many events are held back.
    delayed: usize,
    /// In how many milliseconds the first of them is due.
    in_ms: u64,
}

#[derive(JsonSchema)]
#[schemars(rename = "unsubscribed")]
struct Unsubscribed {
    /// The number of the subscription.
    sub: u32,
    /// Why. `taken over`: another connection reads under this durable name now. `moved: subscribe again`: the consumer
    /// was put to another place (`consumer.seek`). `deleted`: it was removed (`consumer.delete`). Otherwise the session
    /// has lost the user that the subscription needs.
    reason: String,
    /// The `session` that has taken it over (`session.hello`). A client that was cut off while it subscribed finds one of
    /// its own here, and subscribes again.
    #[schemars(with = "String", default)]
    by: (),
}

#[derive(JsonSchema)]
#[schemars(rename = "session.expiring")]
struct Expiring {
    /// Milliseconds until the session goes on without a user.
    in_ms: u64,
}

#[derive(JsonSchema)]
#[schemars(rename = "session.degraded")]
struct Degraded {
    /// What is away: `store` (nodes, users, writes), `log` (new events and subscriptions), `writes` (the disk is full:
    /// all can be read, nothing written).
    parts: Vec<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "session.recovered")]
struct Recovered {}

#[derive(JsonSchema)]
#[schemars(rename = "session.closing")]
struct Closing {
    /// The close code that will follow.
    code: u16,
    /// Milliseconds until then.
    after_ms: u64,
    /// Clients spread their return over so many milliseconds.
    jitter_ms: u64,
    /// Whether subscriptions can be resumed.
    resume: bool,
}
