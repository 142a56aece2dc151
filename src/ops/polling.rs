//! Long polls, for clients that have no WebSocket (contract 5.4 to 5.7): subscribe, listen again and again, unsubscribe.
//!
//! A subscription is a consumer in the store ([`crate::store::consumers`]), so any instance answers any poll and a restart
//! loses nothing. An event counts as delivered when the next poll comes, and only if it was handed to a live
//! connection; else it is offered again.

mod cleaning;
mod envelope;
mod listen;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use super::channels::may_read;
use super::consumers::new_name_check;
use super::events::channel_name;
use super::opening::open_consumer;
use super::subscriptions::Done;
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Error, Kind, Result};
use crate::store::consumers::{Consumer, ConsumerKey, Cursor, NewConsumer, Owner};
pub use cleaning::clean_up;
pub use envelope::Message;
#[cfg(test)]
pub(super) use envelope::python_json;

/// What to subscribe to.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// The channel.
    channel: String,
    /// Whether events of other owners come, too. Without it: the caller's own, and those without an owner.
    #[serde(default)]
    promisc: bool,
    /// A name under which the place is kept, also while nobody polls: opened again under this name, the subscription
    /// goes on behind the last event that was acknowledged, and the one before it ends. Each user has names of their own.
    #[serde(default)]
    subscriber_id: Option<String>,
}

/// A subscription.
#[derive(Serialize, JsonSchema)]
pub struct Subscription {
    /// What to poll.
    id: u64,
    /// The channel.
    channel: String,
    /// Whose it is.
    user: String,
    /// Whether events of other owners come.
    promiscuous: bool,
}

/// Which subscription.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// The `id` of `consumer.open`.
    sub_id: i64,
}

/// Opens a subscription. It begins now; one with a name that is known, where that stands.
pub async fn open(context: Context, params: Open) -> Result<Subscription> {
    let (app, user) = (&context.app, context.caller.user()?);
    channel_name("channel", &params.channel)?;
    may_read(app, &context.caller, &params.channel).await?;
    let name = params.subscriber_id.filter(|name| !name.is_empty());
    let owner = owner(&context.caller)?;
    if let Some(name) = &name {
        new_name_check("subscriber_id", name)?;
    }
    let head = app.log.head(&params.channel).await?;
    let cursor = Cursor::at(&head.epoch, head.seq);
    let (channel, promiscuous) = (params.channel, params.promisc);
    let share = Some(context.share()?);
    let new = NewConsumer { name, channel, owner, promiscuous, cursor, share, session: None };
    let consumer = open_consumer(app, "subscriber_id", new).await?.keep();
    Ok(Subscription {
        id: consumer.id.unwrap_or_default(),
        channel: consumer.channel,
        user: user.username.clone(),
        promiscuous: consumer.promiscuous,
    })
}

/// Waits for the next event, and acknowledges the one before. Of several polls at once the newest gets it. After a
/// while without one (setting `KEEP_ALIVE_PERIOD`) the answer is an event whose data is `BEEP`.
pub async fn next(context: Context, params: Which) -> Result<Message> {
    let user = context.caller.user()?.clone();
    let place = context.app.quotas.polls.take(context.holder(), 1)?;
    let heard = listen::listen(&context, &user, subscription_id(params.sub_id)?).await;
    drop(place);
    heard
}

/// Ends a subscription. The place of a named one is kept.
pub async fn close(context: Context, params: Which) -> Result<Done> {
    let (app, id) = (&context.app, subscription_id(params.sub_id)?);
    let not_owned = |consumer: &Consumer| {
        let name = context.caller.user.as_ref().map_or("", |user| &user.username);
        format!("Subscription {} not owned by {name}", consumer.id.unwrap_or_default())
    };
    let consumer = polled(app, id).await?;
    if !consumer.owner.is(&owner(&context.caller)?) {
        return Err(Error::new(Kind::Forbidden, not_owned(&consumer)));
    }
    if !app.store.close_consumer(id).await? {
        return Err(unknown(id));
    }
    app.signals.send(&topic(id)).await;
    Ok(Done {})
}

/// The consumer of a subscription; groups are not polled.
async fn polled(app: &App, id: u64) -> Result<Consumer> {
    let consumer = app.store.consumer(ConsumerKey::Id(id)).await?;
    consumer.filter(|consumer| consumer.group.is_none()).ok_or_else(|| unknown(id))
}

/// The caller as an owner of consumers.
pub(super) fn owner(caller: &Caller) -> Result<Owner> {
    let user = caller.user()?;
    Ok(Owner { id: Some(user.id), name: user.username.clone() })
}

/// What is signalled when something happens to this subscription.
pub(super) fn topic(id: u64) -> String {
    format!("consumer:{id}")
}

/// Numbers that no subscription can have are unknown ones.
fn subscription_id(id: i64) -> Result<u64> {
    u64::try_from(id)
        .map_err(|_| Error::not_found(format!("Subscription id not found: 'Subscription {id} not found'")))
}

fn unknown(id: u64) -> Error {
    Error::not_found(format!("Subscription id not found: 'Subscription {id} not found'"))
}
