//! Named consumers: seeing where they stand, moving them, removing them. One belongs to the user who opened it first;
//! superusers may do all of this with anybody's.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use super::polling::{owner, topic};
use super::stats::lag;
use super::subscriptions::{Done, From, start};
use crate::app::App;
use crate::consumer_group::state::Group;
use crate::consumer_group::{self, Settings};
use crate::error::{Error, Kind, Result};
use crate::model::{Position, Timestamp};
use crate::store::consumers::{Consumer, ConsumerKey, Cursor};

const LONGEST_NAME: usize = 128;
/// Consumers of one answer.
const MOST: usize = 10_000;

/// Which consumer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Its name: the `subscriber_id` of a long poll, the `durable` of `event.subscribe`.
    name: String,
}

/// Which consumers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Those of all users; for superusers.
    #[serde(default)]
    all: bool,
}

/// Where to put a consumer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Seek {
    /// Its name.
    name: String,
    /// `"now"`, `"earliest"`, `{"epoch", "seq"}` (events after it) or `{"time"}` (events since then).
    to: From,
}

/// A named consumer.
#[derive(Serialize, JsonSchema)]
pub struct Shown {
    /// Its name.
    name: String,
    /// The channel.
    channel: String,
    /// Whose it is.
    user: String,
    /// Whether events of other owners come to its long polls.
    promiscuous: bool,
    /// Everything up to here is acknowledged.
    position: Position,
    /// The subscription that reads for it now, if there is one; null for a group.
    subscription: Option<u64>,
    /// When it was made.
    created: String,
    /// When it was last used; null: never.
    last_used: Option<String>,
    /// How many events of the channel stand behind its position, wanted or not.
    lag_events: u64,
    /// How old the first of these is.
    lag_seconds: f64,
    /// Of a group: how it works, and what is out.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<ShownGroup>,
}

/// How a group works, and what is out.
#[derive(Serialize, JsonSchema)]
pub struct ShownGroup {
    /// Which events it gets; null: all.
    filter: Option<Value>,
    /// Whether events of one tree are worked on one after the other.
    ordered: bool,
    /// How many milliseconds a member has for an event.
    ack_wait_ms: u64,
    /// How often an event is given to a member before it goes to the dead letters.
    max_deliveries: u32,
    /// How many members there are, over all instances.
    members: usize,
    /// How many events are out: in their hands, or waiting for somebody (again). Those before are done.
    outstanding: usize,
    /// How many of these are in their hands.
    held: usize,
}

/// Named consumers.
#[derive(Serialize, JsonSchema)]
pub struct Listed {
    /// In the order of their making.
    items: Vec<Shown>,
}

/// 422 unless a consumer may be called this.
pub(super) fn name_check(field: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return Err(Error::invalid(
            field,
            format!("expected 1 to {LONGEST_NAME} bytes without control characters"),
        ));
    }
    Ok(())
}

/// The caller's consumers.
pub async fn list(context: Context, params: List) -> Result<Listed> {
    let own = owner(&context.caller)?;
    if params.all && !context.caller.user()?.is_superuser {
        return Err(Error::forbidden());
    }
    let mut heads = HashMap::new();
    let mut items = Vec::new();
    for consumer in context.app.store.consumers((!params.all).then_some(&own), MOST).await? {
        if consumer.name.is_some() {
            items.push(shown(&context, consumer, &mut heads).await?);
        }
    }
    Ok(Listed { items })
}

/// One of the caller's consumers.
pub async fn get(context: Context, params: Named) -> Result<Shown> {
    let consumer = own(&context, &params.name).await?;
    shown(&context, consumer, &mut HashMap::new()).await
}

/// Puts a consumer to another place. Whoever reads for it has to subscribe again; what a group has out comes again only if
/// it stands behind the new place.
pub async fn seek(context: Context, params: Seek) -> Result<Shown> {
    let consumer = own(&context, &params.name).await?;
    let app = &context.app;
    let start = start(&*app.log, &consumer.channel, &params.to).await?;
    let cursor = Cursor::at(&start.position.epoch, start.position.seq);
    if !app.store.seek_consumer(&params.name, &cursor).await? {
        return Err(unknown(&params.name));
    }
    tell(&context, &consumer).await;
    let moved = own(&context, &params.name).await?;
    shown(&context, moved, &mut HashMap::new()).await
}

/// Removes a consumer with its place.
pub async fn delete(context: Context, params: Named) -> Result<Done> {
    let consumer = own(&context, &params.name).await?;
    if !context.app.store.delete_consumer(&params.name).await? {
        return Err(unknown(&params.name));
    }
    tell(&context, &consumer).await;
    Ok(Done {})
}

async fn own(context: &Context, name: &str) -> Result<Consumer> {
    name_check("name", name)?;
    let user = context.caller.user()?;
    let consumer = context.app.store.consumer(ConsumerKey::Name(name)).await?;
    let consumer = consumer.ok_or_else(|| unknown(name))?;
    if !user.is_superuser && !consumer.owner.is(&owner(&context.caller)?) {
        return Err(Error::new(Kind::Forbidden, "name: it belongs to another user"));
    }
    Ok(consumer)
}

/// Whoever reads for the consumer learns that something has changed.
async fn tell(context: &Context, consumer: &Consumer) {
    let topic = match (consumer.id, &consumer.name) {
        (_, Some(name)) if consumer.group.is_some() => consumer_group::topic(name),
        (Some(id), _) => topic(id),
        (None, _) => return,
    };
    context.app.signals.send(&topic).await;
}

/// How a group stands; without members it may have no state.
pub(crate) async fn group(app: &App, consumer: &Consumer) -> Result<Option<(Settings, Group)>> {
    let Some(text) = &consumer.group else { return Ok(None) };
    let settings = Settings::from_text(text)?;
    let kept = match consumer.id {
        Some(id) => app.store.consumer_group(id).await?,
        None => None,
    };
    let group = match kept {
        Some(kept) => consumer_group::read(&kept, settings.rules()),
        None => Group::new(settings.rules(), &consumer.cursor.epoch, consumer.cursor.seq),
    };
    Ok(Some((settings, group)))
}

async fn shown_group(app: &App, consumer: &Consumer) -> Result<Option<ShownGroup>> {
    let Some((settings, mut group)) = group(app, consumer).await? else { return Ok(None) };
    let now = Timestamp::now().millis();
    group.expire(now);
    Ok(Some(ShownGroup {
        filter: settings.filter,
        ordered: settings.ordered,
        ack_wait_ms: settings.ack_wait_ms,
        max_deliveries: settings.max_deliveries,
        members: group.members(),
        outstanding: group.items().len(),
        held: group.held(now).values().sum(),
    }))
}

async fn shown(context: &Context, consumer: Consumer, heads: &mut HashMap<String, u64>) -> Result<Shown> {
    let lag = lag(&context.app, &consumer, heads).await?;
    let group = shown_group(&context.app, &consumer).await?;
    Ok(Shown {
        name: consumer.name.unwrap_or_default(),
        position: Position { epoch: consumer.cursor.epoch.clone(), seq: consumer.cursor.acknowledged() },
        channel: consumer.channel,
        user: consumer.owner.name,
        promiscuous: consumer.promiscuous,
        subscription: consumer.id.filter(|_| group.is_none()),
        created: consumer.created.to_wire(),
        last_used: consumer.last_poll.map(Timestamp::to_wire),
        lag_events: lag.events,
        lag_seconds: lag.seconds,
        group,
    })
}

fn unknown(name: &str) -> Error {
    let shown: String = name.chars().take(64).collect();
    Error::not_found(format!("name: there is no consumer {shown:?}"))
}
