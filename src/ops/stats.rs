//! What operators ask of the whole server.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::Context;
use super::operation::NoParams;
use crate::app::App;
use crate::error::Result;
use crate::model::Timestamp;
use crate::store::consumers::Consumer;

/// Subscriptions of one answer.
const MOST: usize = 10_000;

/// All open subscriptions, of all instances.
#[derive(Serialize, JsonSchema)]
pub struct Subscriptions {
    /// In the order of their making.
    items: Vec<Item>,
}

/// One subscription.
#[derive(Serialize, JsonSchema)]
pub struct Item {
    /// What is polled.
    id: u64,
    /// The channel.
    channel: String,
    /// Whose it is.
    user: String,
    /// Whether events of other owners come.
    promiscuous: bool,
    /// When it was made.
    created: String,
    /// When it was last used; null: never.
    last_poll: Option<String>,
    /// The name under which its place is kept.
    subscriber_id: Option<String>,
    /// How many events of the channel stand behind its place, wanted or not.
    lag_events: u64,
    /// How old the first of these is.
    lag_seconds: f64,
}

/// How far a consumer is behind the newest event of its channel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lag {
    pub(crate) events: u64,
    pub(crate) seconds: f64,
}

/// Every subscription, and how far behind it is (contract 5.10).
pub async fn subscriptions(context: Context, _: NoParams) -> Result<Subscriptions> {
    let app = &context.app;
    let mut heads = HashMap::new();
    let mut items = Vec::new();
    for consumer in app.store.consumers(None, MOST).await? {
        let Some(id) = consumer.id else { continue };
        let lag = lag(app, &consumer, &mut heads).await?;
        items.push(Item {
            id,
            channel: consumer.channel,
            user: consumer.owner.name,
            promiscuous: consumer.promiscuous,
            created: consumer.created.to_wire(),
            last_poll: consumer.last_poll.map(Timestamp::to_wire),
            subscriber_id: consumer.name,
            lag_events: lag.events,
            lag_seconds: lag.seconds,
        });
    }
    Ok(Subscriptions { items })
}

/// Looks how far a consumer is behind; `heads` remembers the newest numbers of the channels.
pub(crate) async fn lag(app: &App, consumer: &Consumer, heads: &mut HashMap<String, u64>) -> Result<Lag> {
    let channel = &consumer.channel;
    let head = match heads.get(channel) {
        Some(head) => *head,
        None => {
            let head = app.log.head(channel).await?.seq;
            heads.insert(channel.clone(), head);
            head
        }
    };
    let place = consumer.cursor.acknowledged();
    if place >= head {
        return Ok(Lag::default());
    }
    let next = app.log.read_across(channel, place, 1).await?;
    let time = next.entries.first().and_then(|entry| entry.value().get("time")?.as_str().map(str::to_owned));
    let time = time.and_then(|time| Timestamp::parse_iso(&time).ok());
    let ms = time.map_or(0, |time| Timestamp::now().millis() - time.millis());
    Ok(Lag { events: head - place, seconds: ms.max(0) as f64 / 1000.0 })
}
