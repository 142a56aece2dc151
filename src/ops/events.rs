//! Events of one's own: publishing them. The history is [`super::history`].

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::attributes::Attributes;
use super::channels::may_publish;
use super::{Context, Object};
use crate::app::App;
use crate::auth::rights::EDIT_ANY;
use crate::error::{Error, Kind, Result};
use crate::event_log::{self, EventLog, HistoryQuery};
use crate::filter::{EVENT, Filter, Test};
use crate::health::Part;
use crate::model::event::stamp;
use crate::model::node::check_event;
use crate::model::{Event, EventTime, NODE_CHANNEL, ObjectId, User};
use crate::ops::nodes::{editable, idempotency_key};
use crate::store::other_request;

/// CloudEvent `type` where nobody says another.
pub const EVENT_TYPE: &str = "api.kernelci.org";
/// Bytes of a channel's name.
const LONGEST_CHANNEL: usize = 128;
/// Bytes of JSON in an event's payload: what a message on the WebSocket may have, whatever way it comes.
pub(super) const MOST_DATA: usize = 1 << 20;
/// How long publishing may take: 504 after that. (That the number comes later is known before.)
const PATIENCE: Duration = Duration::from_secs(10);

/// An event to publish.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// 1 to 128 bytes of any characters but control characters and `/`. Channels of the server (`tree`, `artifact`, and what
    /// begins with `dead.` or `node.`) are written by the server alone: 403 for everybody else.
    channel: String,
    /// The payload: any JSON of at most 1 MiB; left out it is null. On the channel `node` an object with `op, id, kind,
    /// name, state, result, data`, about a node that the caller may edit; what is named as a field of nodes is as nodes have it.
    #[serde(default, deserialize_with = "present")]
    data: Option<Value>,
    /// 422 for what Python takes for no payload: null, false, 0, "", [] and {}.
    #[serde(default)]
    refuse_empty: bool,
    /// CloudEvent `type`; default `api.kernelci.org`.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    /// CloudEvent `source`; default: the server's.
    #[serde(default)]
    source: Option<String>,
    /// Further extension attributes; values are strings, booleans or integers. Those that the server sets (`type`,
    /// `owner`, `id`, `time`, …) are passed over. Of a name what matters is its letters and digits in lower case
    /// (`foobar` of `Foo_bar`), and no two may be left with the same; `/listen` shows it as it was written.
    /// `partitionkey` (on other channels than `node`): ordered groups work on events that have the same one after the
    /// other.
    #[serde(default)]
    attributes: Option<Object>,
    /// Repeated with the same key (1 to 128 characters), the first answer is given again.
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// Where the event stands.
#[derive(Serialize, JsonSchema)]
pub struct Published {
    /// Its sequence number; null if the event is safe and gets its number when the log can be reached again.
    seq: Option<u64>,
    /// Its CloudEvent id.
    id: String,
}

/// 422 unless it can be the name of a channel or a queue. KernelCI's server takes whatever a path can hold.
pub fn channel_name(field: &str, name: &str) -> Result<()> {
    let bad = |c: char| c.is_control() || c == '/';
    if name.is_empty()
        || name.len() > LONGEST_CHANNEL
        || name.chars().any(bad)
        || event_log::is_own_name(name)
    {
        return Err(Error::invalid(field, "expected 1 to 128 bytes without control characters and /"));
    }
    Ok(())
}

/// Also when it is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Whether a channel is there. While the log cannot be asked none is, as far as anybody knows: events wait, and whoever
/// sends one answers for the channel.
async fn has_begun(app: &App, channel: &str) -> Result<bool> {
    match app.health.serve(&[Part::Log], app.log.exists(channel)).await {
        Err(error) if error.kind() == Kind::Unavailable => Ok(false),
        known => known,
    }
}

/// Puts an event on a channel; its owner is the caller.
pub async fn publish(context: Context, params: Publish) -> Result<Published> {
    let user = context.caller.user()?;
    channel_name("channel", &params.channel)?;
    may_publish(&params.channel)?;
    if params.refuse_empty && params.data.as_ref().is_some_and(is_nothing) {
        return Err(Error::invalid("data", "None is not allowed as event payload"));
    }
    let data = params.data.unwrap_or_default();
    if weigh("data", &data)? > MOST_DATA {
        return Err(Error::new(Kind::TooLarge, format!("data: an event holds at most {MOST_DATA} bytes")));
    }
    let mut subject = None;
    let is_of_node = params.channel == NODE_CHANNEL;
    if is_of_node {
        subject = Some(node_of(&context, user, &data).await?.to_hex());
    }
    let attributes = Attributes::read(params.attributes.unwrap_or_default())?;
    let text = |field: &str, value: Option<String>, default: &str| match value {
        Some(text) if text.is_empty() || text.len() > 256 => {
            Err(Error::invalid(field, "expected 1 to 256 characters"))
        }
        other => Ok(other.unwrap_or_else(|| default.to_owned())),
    };
    let key = idempotency_key(params.idempotency_key.as_deref())?;
    let id = key.map_or_else(ObjectId::new, |key| repeatable_id(user.id, &params.channel, key));
    let event = Event {
        id,
        source: text("source", params.source, &context.app.config.cloud_events_source)?,
        kind: text("type", params.kind, EVENT_TYPE)?,
        channel: params.channel,
        subject,
        time: EventTime::now(),
        owner: Some(user.username.clone()),
        // On `node` it is the tree's, which only writes of nodes tell.
        partitionkey: attributes.partitionkey.filter(|_| !is_of_node),
        extensions: attributes.extensions,
        data,
    };
    let (app, log) = (&context.app, &context.app.log);
    let asked = key.map(|_| event.clone());
    if event.channel != NODE_CHANNEL && !has_begun(app, &event.channel).await? {
        app.store.claim_channel(&event.channel, &context.share()?).await??;
    }
    let publishing = if key.is_some() { log.publish(event) } else { log.publish_new(event) };
    let published = tokio::time::timeout(PATIENCE, publishing).await;
    let seq = published.map_err(|_| Error::new(Kind::Timeout, "the event was not confirmed in time"))??;
    if let Some(asked) = asked {
        is_as_asked(&**log, &asked).await?;
    }
    Ok(Published { seq, id: id.to_hex() })
}

/// About how many bytes of JSON a payload is; 422 naming the `field` for what not every store can keep.
// Recursion: bodies are about a hundred levels deep at most.
pub(super) fn weigh(field: &str, data: &Value) -> Result<usize> {
    Ok(match data {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(number) if number.is_u64() && !number.is_i64() => {
            return Err(Error::invalid(field, "expected whole numbers below 2^63"));
        }
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => {
            items.iter().try_fold(2, |sum, item| weigh(field, item).map(|more| sum + more))?
        }
        Value::Object(members) => {
            members.iter().try_fold(2, |sum, (key, value)| match key.contains('\0') {
                true => Err(Error::invalid(field, "a key must not contain NUL")),
                false => weigh(field, value).map(|more| sum + key.len() + 3 + more),
            })?
        }
    })
}

/// 422 if the event that stands in the log under an idempotency key is another one than was asked for now.
async fn is_as_asked(log: &dyn EventLog, asked: &Event) -> Result<()> {
    let id = Test::Eq(asked.id.to_hex().into());
    let filter = Filter::Field { path: "id".to_owned(), kind: EVENT.type_of("id"), test: id };
    let query = HistoryQuery { channel: Some(asked.channel.clone()), filter, after: None, skip: 0, limit: 1 };
    let found = log.find(&query).await?;
    let Some(stands) = found.first() else { return Ok(()) };
    let mut wanted = asked.to_text();
    // The time is when it came into the log.
    if let Some(time) = stands.entry.value().get("time").and_then(Value::as_str)
        && let Ok(time) = EventTime::parse_iso(time)
    {
        stamp(&mut wanted, time);
    }
    let mut stands = stands.entry.value().clone();
    if let Some(members) = stands.as_object_mut() {
        members.shift_remove("sequence");
    }
    match serde_json::from_str::<Value>(&wanted).is_ok_and(|wanted| wanted == stands) {
        true => Ok(()),
        false => Err(other_request()),
    }
}

/// The same key of the same user makes the same event, which stands in a log only once.
fn repeatable_id(user: ObjectId, channel: &str, key: &str) -> ObjectId {
    let name = format!("{}\0{channel}\0{key}", user.to_hex());
    let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes());
    let mut bytes = [0; 12];
    bytes.copy_from_slice(&hash.as_bytes()[..12]);
    ObjectId::from_bytes(bytes)
}

/// What Python takes for false (contract 5.8).
fn is_nothing(data: &Value) -> bool {
    match data {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// The node that an event on the channel `node` speaks of. Its readers take it for a change of the node (contract 9.3, D-26):
/// so only who may change the node may say so.
async fn node_of(context: &Context, user: &User, data: &Value) -> Result<ObjectId> {
    check_event(data)?;
    let id = data["id"].as_str().and_then(|id| id.parse().ok());
    let id = id.ok_or_else(|| Error::invalid("data.id", "expected the id of a node"))?;
    if !user.is_superuser && !user.in_group(EDIT_ANY) {
        editable(context, id).await?;
    }
    Ok(id)
}
