//! What operators ask of the whole server.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
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
/// Questions about consumers at the same time.
pub(super) const AT_ONCE: usize = 8;

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
    let mut open = app.store.consumers(None, MOST).await?;
    open.retain(|consumer| consumer.id.is_some());
    let lags = lags(app, &open).await?;
    let items = open.into_iter().zip(lags).map(|(consumer, lag)| Item {
        id: consumer.id.unwrap_or_default(),
        channel: consumer.channel,
        user: consumer.owner.name,
        promiscuous: consumer.promiscuous,
        created: consumer.created.to_wire(),
        last_poll: consumer.last_poll.map(Timestamp::to_wire),
        subscriber_id: consumer.name,
        lag_events: lag.events,
        lag_seconds: lag.seconds,
    });
    Ok(Subscriptions { items: items.collect() })
}

/// How far each of these consumers is behind. Each channel is asked once where it stands, and each place once what follows.
pub(crate) async fn lags(app: &App, consumers: &[Consumer]) -> Result<Vec<Lag>> {
    let channels: HashSet<&str> = consumers.iter().map(|consumer| &*consumer.channel).collect();
    let heads: Vec<_> = channels.into_iter().map(|channel| head(app, channel)).collect();
    let heads: HashMap<&str, u64> = stream::iter(heads).buffer_unordered(AT_ONCE).try_collect().await?;
    let place = |consumer: &Consumer| {
        let (place, head) = (consumer.cursor.acknowledged(), heads.get(&*consumer.channel).copied());
        (place, head.unwrap_or_default().saturating_sub(place))
    };
    let behind = consumers.iter().filter(|consumer| place(consumer).1 > 0);
    let places: HashSet<(&str, u64)> =
        behind.map(|consumer| (&*consumer.channel, place(consumer).0)).collect();
    let seconds: Vec<_> = places.into_iter().map(|place| age_of_next(app, place)).collect();
    let seconds = stream::iter(seconds).buffer_unordered(AT_ONCE);
    let seconds: HashMap<(&str, u64), f64> = seconds.try_collect().await?;
    let lag = |consumer: &Consumer| {
        let (place, events) = place(consumer);
        let seconds = seconds.get(&(&*consumer.channel, place)).copied().unwrap_or_default();
        Lag { events, seconds }
    };
    Ok(consumers.iter().map(lag).collect())
}

async fn head<'c>(app: &App, channel: &'c str) -> Result<(&'c str, u64)> {
    Ok((channel, app.log.head(channel).await?.seq))
}

/// How many seconds ago the first event behind a place happened.
async fn age_of_next<'c>(app: &App, (channel, place): (&'c str, u64)) -> Result<((&'c str, u64), f64)> {
    let next = app.log.read_across(channel, place, 1).await?;
    let time = next.entries.first().and_then(|entry| entry.value().get("time")?.as_str().map(str::to_owned));
    let time = time.and_then(|time| Timestamp::parse_iso(&time).ok());
    let ms = time.map_or(0, |time| Timestamp::now().millis() - time.millis());
    Ok(((channel, place), ms.max(0) as f64 / 1000.0))
}
