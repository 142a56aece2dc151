//! Queues: items that go to one client each (contract 5.9).
//!
//! An item is kept until it was handed over. A plain pop gives it away when its answer was handed to a live connection; with
//! `lease_ms` the client says itself when it is done. What was handed to nobody is offered again, at once if the
//! connection is known to be gone and after the lease otherwise.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep, sleep_until};

use super::events::{EVENT_TYPE, MOST_DATA, channel_name};
use super::nodes::idempotency_key;
use super::schema::types;
use super::subscriptions::Done;
use super::{Context, Handover, Object};
use crate::app::App;
use crate::background;
use crate::error::{Error, Kind, Result};
use crate::model::Timestamp;
use crate::store::queues::{Lease, Leased, MOST_BYTES, MOST_ITEMS, MOST_LISTS, NewItem, Pushed};

/// How long a pop waits if it does not say. Less than the minute after which KernelCI's clients give up, and they ask again
/// after the answer that they get then (503).
const WAIT: Duration = Duration::from_secs(50);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The lease of an item while its answer is on the way.
const ON_THE_WAY: Duration = Duration::from_secs(30);
const SHORTEST_LEASE: Duration = Duration::from_secs(1);
const LONGEST_LEASE: Duration = Duration::from_secs(12 * 3600);
/// How often a pop that waits looks by itself: leases end without a signal, and signals may get lost.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// An item to append.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// The queue: 1 to 128 bytes of any characters but control characters and `/`.
    list: String,
    /// `data`, the payload, and attributes of the CloudEvent beside it. Without attributes, `type` and `source` are the
    /// server's.
    event: Object,
    /// Repeated with the same key (1 to 128 characters) within a day, the item is appended once.
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// Which queue, and how.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pop {
    /// The queue.
    list: String,
    /// How many milliseconds to wait for an item, at most 300,000; default 50,000. Then the error is temporary (503).
    #[serde(default)]
    wait_ms: Option<u64>,
    /// Keeps the item for so many milliseconds, 1,000 to 43,200,000: without a `queue.ack` by then it is offered
    /// again.
    #[serde(default)]
    lease_ms: Option<u64>,
}

/// An item.
#[derive(Serialize, JsonSchema)]
pub struct Popped {
    /// The CloudEvent.
    #[schemars(with = "types::QueueItem")]
    event: Object,
    /// For `queue.ack`, if a lease was asked for.
    lease: Option<String>,
    /// How often it was given to somebody, this time included.
    deliveries: u64,
}

/// What is done with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The `lease` of `queue.pop`.
    lease: String,
    /// True: it could not be done; the item is offered again at once.
    #[serde(default)]
    release: bool,
}

/// What takes longer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    /// The `lease` of `queue.pop`.
    lease: String,
    /// For how many milliseconds from now on, 1,000 to 43,200,000.
    lease_ms: u64,
}

/// Appends an item.
pub async fn push(context: Context, params: Push) -> Result<Done> {
    let user = context.caller.user()?;
    channel_name("list", &params.list)?;
    let key = idempotency_key(params.idempotency_key.as_deref())?;
    let key = key.map(|key| format!("{}:{}:{key}", user.id.to_hex(), params.list));
    let event = cloud_event(params.event, &context.app.config.cloud_events_source)?;
    let json = Value::Object(event).to_string();
    if json.len() > MOST_DATA {
        return Err(Error::new(Kind::TooLarge, format!("an item has at most {MOST_DATA} bytes")));
    }
    let full = |detail: String| Error::new(Kind::TooMany, detail).retry_after(5_000);
    let (app, share) = (&context.app, Some(context.share()?));
    match app
        .store
        .push_item(&NewItem {
            list: params.list.clone(),
            json,
            key,
            fingerprint: context.fingerprint().to_owned(),
            share,
        })
        .await?
    {
        Pushed::Done => {
            app.signals.send(&topic(&params.list)).await;
            Ok(Done {})
        }
        Pushed::Full => {
            Err(full(format!("the queue is full: at most {MOST_ITEMS} items and {MOST_BYTES} bytes")))
        }
        Pushed::Over(over) => Err(over.into()),
        Pushed::TooManyLists => Err(full(format!("there are {MOST_LISTS} queues with items already"))),
    }
}

/// The CloudEvent of an item. Attributes are as given; `type` and `source` are null if others are given and they are not.
fn cloud_event(mut given: Object, source: &str) -> Result<Object> {
    let missing = || Error::invalid("event", "missing field `data`");
    let data = given.shift_remove("data").ok_or_else(missing)?;
    if given.is_empty() {
        given.insert("type".into(), EVENT_TYPE.into());
        given.insert("source".into(), source.into());
    }
    let mut event = Map::new();
    let mut put = |name: &str, default: Value| {
        event.insert(name.to_owned(), given.shift_remove(name).unwrap_or(default));
    };
    put("specversion", "1.0".into());
    put("id", uuid::Uuid::new_v4().to_string().into());
    put("source", Value::Null);
    put("type", Value::Null);
    put("time", Timestamp::now().to_event_time().into());
    put("data", data);
    event.extend(given);
    Ok(event)
}

/// Waits for an item.
pub async fn pop(context: Context, params: Pop) -> Result<Popped> {
    channel_name("list", &params.list)?;
    let wait = bounded("wait_ms", params.wait_ms, Duration::ZERO, LONGEST_WAIT)?.unwrap_or(WAIT);
    let lease = bounded("lease_ms", params.lease_ms, SHORTEST_LEASE, LONGEST_LEASE)?;
    let app = &context.app;
    let place = app.quotas.polls.take(context.holder(), 1)?;
    let taken = take(app, &params.list, Instant::now() + wait, lease.unwrap_or(ON_THE_WAY)).await?;
    drop(place);
    let (app, list, held) = (app.clone(), params.list, taken.lease.clone());
    context.hand_over(Handover::new(move |handed| {
        background::spawn("items", settle(app, list, held, handed, lease.is_some()));
    }));
    let event: Object = serde_json::from_str(&taken.json).map_err(Error::internal)?;
    let lease = lease.map(|_| taken.lease.to_string());
    Ok(Popped { event, lease, deliveries: taken.deliveries })
}

async fn take(app: &Arc<App>, list: &str, deadline: Instant, lease: Duration) -> Result<Leased> {
    let signal = app.signals.listen(&topic(list));
    loop {
        if let Some(taken) = take_once(app, list, lease).await? {
            return Ok(taken);
        }
        if Instant::now() >= deadline || app.draining.is_cancelled() {
            return Err(Error::new(Kind::Unavailable, "the queue is empty, try again").retry_after(1000));
        }
        tokio::select! {
            () = signal.heard() => {}
            () = sleep(LOOK_AGAIN.mul_f64(rand::random_range(0.8..1.2))) => {}
            () = sleep_until(deadline) => {}
            () = app.draining.cancelled() => {}
        }
    }
}

/// Takes an item; if the caller stops waiting in that very moment, the item is given back.
async fn take_once(app: &Arc<App>, list: &str, lease: Duration) -> Result<Option<Leased>> {
    let (answer, taken) = tokio::sync::oneshot::channel();
    let (app, list) = (app.clone(), list.to_owned());
    background::spawn("items", async move {
        let taken = app.store.take_item(&list, lease).await;
        if let Err(Ok(Some(unwanted))) = answer.send(taken) {
            settle(app, list, unwanted.lease, false, false).await;
        }
    });
    taken.await.map_err(Error::internal)?
}

/// After the answer: an item that was handed over is gone (unless it is held on a lease), another one is offered again.
async fn settle(app: Arc<App>, list: String, lease: Lease, handed: bool, held: bool) {
    if handed && held {
        return;
    }
    for pause in [50, 500, 0] {
        let settled = match handed {
            true => app.store.remove_item(&lease).await.map(drop),
            false => release(&app, &lease).await.map(drop),
        };
        match settled {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, list, "an item may be offered a second time"),
        }
        sleep(Duration::from_millis(pause)).await;
    }
}

/// Gives an item back. False if the lease had ended.
async fn release(app: &App, lease: &Lease) -> Result<bool> {
    let Some(list) = app.store.release_item(lease).await? else { return Ok(false) };
    app.signals.send(&topic(&list)).await;
    Ok(true)
}

/// Removes an item that was popped with a lease, or gives it back.
pub async fn ack(context: Context, params: Ack) -> Result<Done> {
    let lease: Lease = params.lease.parse()?;
    let done = match params.release {
        false => context.app.store.remove_item(&lease).await?,
        true => release(&context.app, &lease).await?,
    };
    settled(done)
}

/// Lets the lease of an item that was popped with one begin anew.
pub async fn extend(context: Context, params: Extend) -> Result<Done> {
    let lease: Lease = params.lease.parse()?;
    let for_so_long = bounded("lease_ms", Some(params.lease_ms), SHORTEST_LEASE, LONGEST_LEASE)?;
    settled(context.app.store.extend_item(&lease, for_so_long.unwrap_or(SHORTEST_LEASE)).await?)
}

fn settled(done: bool) -> Result<Done> {
    match done {
        true => Ok(Done {}),
        false => {
            Err(Error::new(Kind::Conflict, "lease: it has ended, and the item was given to somebody else"))
        }
    }
}

fn bounded(field: &str, ms: Option<u64>, least: Duration, most: Duration) -> Result<Option<Duration>> {
    let given = ms.map(Duration::from_millis);
    if given.is_some_and(|given| given < least || given > most) {
        let (least, most) = (least.as_millis(), most.as_millis());
        return Err(Error::invalid(field, format!("expected {least} to {most}")));
    }
    Ok(given)
}

/// What is signalled when a list has an item.
fn topic(list: &str) -> String {
    format!("queue:{list}")
}
