//! Named consumers: seeing where they stand, moving them, removing them. Each user has names of their own; superusers may
//! do all of this with anybody's, by what they are stored as ([`crate::store::consumers`]), and reserve names.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use super::operation::NoParams;
use super::polling::{owner, topic};
use super::stats::{AT_ONCE, Lag, lags};
use super::subscriptions::{Done, From, start};
use crate::app::App;
use crate::consumer_group::state::Group;
use crate::consumer_group::{self, Settings, dead_letter};
use crate::error::{Error, Kind, Result};
use crate::model::{ObjectId, Position, Timestamp};
use crate::store::UserKey;
use crate::store::consumers::{self, Consumer, ConsumerKey, Cursor, MOST_RESERVED, Reserved};

const LONGEST_NAME: usize = 128;
/// Consumers of one answer.
const MOST: usize = 10_000;

/// Which consumer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Its name: the `subscriber_id` of a long poll, the `durable` of `event.subscribe`. Superusers reach those of others
    /// by what `consumer.list` with `all` calls them.
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
    /// Its name, as in `consumer.get`.
    name: String,
    /// `"now"`, `"earliest"`, `{"epoch", "seq"}` (events after it) or `{"time"}` (events since then).
    to: From,
}

/// A named consumer.
#[derive(Serialize, JsonSchema)]
pub struct Shown {
    /// Its name. Superusers see those of others as they are stored: `<id of the user>/<name>` if another user had the
    /// name first, or it was reserved.
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
    /// How many of these are held back: they were given back with `delay_ms`.
    delayed: usize,
    /// The channel of its dead letters. It begins with the first one and is a channel of the user's; who may have no more
    /// channels gets them on `dead.<id of the user>.overflow` instead.
    dead_letters: String,
}

/// Named consumers.
#[derive(Serialize, JsonSchema)]
pub struct Listed {
    /// In the order of their making.
    items: Vec<Shown>,
}

/// For whom a name is kept.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// The name that a consumer will have.
    name: String,
    /// The username of whoever will have it; null: whoever comes first.
    user: Option<String>,
}

/// A name that is kept for somebody.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReservedConsumer")]
pub struct ReservedName {
    /// The name.
    name: String,
    /// The username; null if there is no such user any more.
    user: Option<String>,
}

/// Names that are kept for somebody.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReservedConsumers")]
pub struct ReservedNames {
    /// In their order.
    items: Vec<ReservedName>,
}

/// 422 unless a new consumer may be called this.
pub(super) fn new_name_check(field: &str, name: &str) -> Result<()> {
    name_check(field, name, LONGEST_NAME)?;
    if consumers::is_apart(name) {
        let detail =
            "a name does not begin with the id of a user and a slash or dot: such names are the server's";
        return Err(Error::invalid(field, detail));
    }
    Ok(())
}

fn name_check(field: &str, name: &str, longest: usize) -> Result<()> {
    if name.is_empty() || name.len() > longest || name.chars().any(char::is_control) {
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
    let found = context.app.store.consumers((!params.all).then_some(&own), MOST).await?;
    let named: Vec<Consumer> = found.into_iter().filter(|consumer| consumer.name.is_some()).collect();
    let lags = lags(&context.app, &named).await?;
    let shown: Vec<_> =
        named.into_iter().zip(lags).map(|(consumer, lag)| shown(&context, consumer, lag)).collect();
    Ok(Listed { items: futures::stream::iter(shown).buffered(AT_ONCE).try_collect().await? })
}

/// One of the caller's consumers.
pub async fn get(context: Context, params: Named) -> Result<Shown> {
    show(&context, own(&context, &params.name).await?).await
}

/// Puts a consumer to another place. Whoever reads for it has to subscribe again; what a group has out comes again only if
/// it stands behind the new place.
pub async fn seek(context: Context, params: Seek) -> Result<Shown> {
    let consumer = own(&context, &params.name).await?;
    let app = &context.app;
    let start = start(&*app.log, &consumer.channel, &params.to).await?;
    let cursor = Cursor::at(&start.position.epoch, start.position.seq);
    if !app.store.seek_consumer(stored_name(&consumer), &cursor).await? {
        return Err(unknown(&params.name));
    }
    tell(&context, &consumer).await;
    let moved = app.store.consumer(ConsumerKey::Name(stored_name(&consumer))).await?;
    show(&context, moved.ok_or_else(|| unknown(&params.name))?).await
}

/// Removes a consumer with its place.
pub async fn delete(context: Context, params: Named) -> Result<Done> {
    let consumer = own(&context, &params.name).await?;
    if !context.app.store.delete_consumer(stored_name(&consumer)).await? {
        return Err(unknown(&params.name));
    }
    tell(&context, &consumer).await;
    Ok(Done {})
}

/// Keeps a name for a user, so that their consumer will be stored under it whoever else calls one of theirs the same.
pub async fn reserve(context: Context, params: Reserve) -> Result<Done> {
    new_name_check("name", &params.name)?;
    let store = &context.app.store;
    let user = match &params.user {
        None => None,
        Some(name) => {
            let unknown = || Error::not_found("user: there is no user of this name");
            Some(store.user(UserKey::Name(name)).await?.ok_or_else(unknown)?.id)
        }
    };
    match store.reserve_consumer(&params.name, user).await? {
        Reserved::Done => Ok(Done {}),
        Reserved::Taken(holder) => {
            let detail = format!("name: {} has a consumer of this name; delete it first", holder.name);
            Err(Error::new(Kind::Conflict, detail))
        }
        Reserved::TooMany => {
            let detail = format!("at most {MOST_RESERVED} names are reserved: give one up first");
            Err(Error::new(Kind::Conflict, detail))
        }
    }
}

/// The names that are kept for somebody.
pub async fn reserved(context: Context, _: NoParams) -> Result<ReservedNames> {
    let mut items = Vec::new();
    let mut known: HashMap<ObjectId, Option<String>> = HashMap::new();
    for (name, id) in context.app.store.reserved_consumers().await? {
        let user = match known.get(&id) {
            Some(user) => user.clone(),
            None => {
                let user = context.app.store.user(UserKey::Id(id)).await?.map(|user| user.username);
                known.entry(id).insert_entry(user).get().clone()
            }
        };
        items.push(ReservedName { name, user });
    }
    Ok(ReservedNames { items })
}

/// The caller's consumer of this name; for superusers also another user's that is stored under it.
async fn own(context: &Context, name: &str) -> Result<Consumer> {
    name_check("name", name, LONGEST_NAME + consumers::APART)?;
    let (store, user) = (&context.app.store, context.caller.user()?);
    let mut found = store.consumer(ConsumerKey::Own(&owner(&context.caller)?, name)).await?;
    if found.is_none() && user.is_superuser {
        found = store.consumer(ConsumerKey::Name(name)).await?;
    }
    found.ok_or_else(|| unknown(name))
}

fn stored_name(consumer: &Consumer) -> &str {
    consumer.name.as_deref().unwrap_or_default()
}

/// Whoever reads for the consumer learns that something has changed.
pub(super) async fn tell(context: &Context, consumer: &Consumer) {
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
        delayed: group.delayed(now),
        dead_letters: dead_letter::channel(consumer.name.as_deref().unwrap_or_default()),
    }))
}

async fn show(context: &Context, consumer: Consumer) -> Result<Shown> {
    let lag = lags(&context.app, std::slice::from_ref(&consumer)).await?.first().copied();
    shown(context, consumer, lag.unwrap_or_default()).await
}

async fn shown(context: &Context, consumer: Consumer, lag: Lag) -> Result<Shown> {
    let group = shown_group(&context.app, &consumer).await?;
    let is_own = consumer.owner.is(&owner(&context.caller)?);
    let name = if is_own { consumer.own_name() } else { consumer.name.as_deref() };
    Ok(Shown {
        name: name.unwrap_or_default().to_owned(),
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
