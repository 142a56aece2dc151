//! Events: publishing one's own, and the history.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::schema::types;
use super::{Context, Object};
use crate::error::{Error, Kind, Result};
use crate::event_log::{After, HistoryQuery, Logged};
use crate::filter::{EVENT, Filter};
use crate::model::{Event, ObjectId, Timestamp};
use crate::ops::nodes::idempotency_key;

/// CloudEvent `type` where nobody says another.
pub const EVENT_TYPE: &str = "api.kernelci.org";
const LONGEST_CHANNEL: usize = 64;
const MOST_ATTRIBUTES: usize = 32;
/// Most events of one answer; recursive ones carry their nodes.
const MOST_FOUND: usize = 1000;
/// How long a publisher waits for its sequence number before it is told that it comes later.
const PATIENCE: Duration = Duration::from_secs(10);

/// An event to publish.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// 1 to 64 of letters, digits and `_ . : -`.
    channel: String,
    /// The payload: any JSON.
    data: Value,
    /// CloudEvent `type`; default `api.kernelci.org`.
    #[serde(default, rename = "type")]
    kind: Option<String>,
    /// CloudEvent `source`; default: the server's.
    #[serde(default)]
    source: Option<String>,
    /// Further extension attributes: names of lower-case letters and digits, values strings, booleans or integers.
    #[serde(default)]
    attributes: Object,
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

/// Which events.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Find {
    /// One channel, in the order of its sequence; without it all, in the order of time.
    #[serde(default)]
    channel: Option<String>,
    /// A condition on the CloudEvent, e.g. `{"data.kind":"job"}`.
    #[serde(default)]
    #[schemars(with = "Option<types::Filter>")]
    filter: Option<Value>,
    /// `next` of the page before.
    #[serde(default)]
    after: Option<String>,
    /// 1 to 1,000; default 50.
    #[serde(default)]
    limit: Option<u64>,
    /// Adds to each event the node that it is about.
    #[serde(default)]
    recursive: bool,
}

/// A page of the history, oldest first.
#[derive(Serialize, JsonSchema)]
pub struct Found {
    /// `timestamp, sequence_id, channel, owner, data, id`, the whole CloudEvent as `event`, and `node` if recursive.
    items: Vec<Object>,
    /// Pass as `after` for what follows; null when this was all for now.
    next: Option<String>,
}

/// 422 unless it is a channel's name.
pub fn channel_name(field: &str, name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_.:-".contains(c);
    if name.is_empty() || name.len() > LONGEST_CHANNEL || !name.chars().all(good) {
        return Err(Error::invalid(field, "expected 1 to 64 of letters, digits and _ . : -"));
    }
    Ok(())
}

/// Puts an event on a channel; its owner is the caller.
pub async fn publish(context: Context, params: Publish) -> Result<Published> {
    let user = context.caller.user()?;
    channel_name("channel", &params.channel)?;
    check_attributes(&params.attributes)?;
    let text = |field: &str, value: Option<String>, default: &str| match value {
        Some(text) if text.is_empty() || text.len() > 256 => {
            Err(Error::invalid(field, "expected 1 to 256 characters"))
        }
        other => Ok(other.unwrap_or_else(|| default.to_owned())),
    };
    let id = match idempotency_key(params.idempotency_key.as_deref())? {
        None => ObjectId::new(),
        Some(key) => repeatable_id(user.id, &params.channel, key),
    };
    let event = Event {
        id,
        source: text("source", params.source, &context.app.config.cloud_events_source)?,
        kind: text("type", params.kind, EVENT_TYPE)?,
        channel: params.channel,
        subject: None,
        time: Timestamp::now(),
        owner: Some(user.username.clone()),
        partitionkey: None,
        extensions: params.attributes,
        data: params.data,
    };
    let published = tokio::time::timeout(PATIENCE, context.app.log.publish(event)).await;
    let seq = published.map_err(|_| Error::new(Kind::Timeout, "the event was not confirmed in time"))??;
    Ok(Published { seq, id: id.to_hex() })
}

/// The same key of the same user makes the same event, which stands in a log only once.
fn repeatable_id(user: ObjectId, channel: &str, key: &str) -> ObjectId {
    let name = format!("{}\0{channel}\0{key}", user.to_hex());
    let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes());
    let mut bytes = [0; 12];
    bytes.copy_from_slice(&hash.as_bytes()[..12]);
    ObjectId::from_bytes(bytes)
}

fn check_attributes(attributes: &Map<String, Value>) -> Result<()> {
    const OURS: [&str; 11] = [
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "data",
        "datacontenttype",
        "owner",
        "partitionkey",
        "sequence",
    ];
    if attributes.len() > MOST_ATTRIBUTES {
        return Err(Error::invalid("attributes", format!("expected at most {MOST_ATTRIBUTES}")));
    }
    for (name, value) in attributes {
        let field = format!("attributes.{}", name.chars().take(32).collect::<String>());
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if name.is_empty() || name.len() > 20 || !name.chars().all(letters) {
            return Err(Error::invalid(field, "expected a name of 1 to 20 lower-case letters and digits"));
        }
        if OURS.contains(&name.as_str()) {
            return Err(Error::invalid(field, "this attribute is set by the server"));
        }
        if !(value.is_string() || value.is_boolean() || value.is_i64()) {
            return Err(Error::invalid(field, "expected a string, a boolean or an integer"));
        }
    }
    Ok(())
}

/// The history, oldest first.
pub async fn find(context: Context, params: Find) -> Result<Found> {
    if let Some(channel) = &params.channel {
        channel_name("channel", channel)?;
    }
    let limit = super::paging::limit(params.limit, MOST_FOUND as u64)? as usize;
    let filter = match &params.filter {
        Some(filter) => Filter::from_json(filter, &EVENT)?,
        None => Filter::all(),
    };
    let after =
        params.after.as_deref().map(|text| read_cursor(text, params.channel.is_some())).transpose()?;
    let query = HistoryQuery { channel: params.channel, filter, after, limit };
    let found = context.app.log.find(&query).await?;
    let next = match found.last() {
        Some(last) if found.len() == limit => Some(cursor(last, query.channel.is_some())),
        _ => None,
    };
    let mut items: Vec<Object> = found.iter().map(item).collect();
    if params.recursive {
        add_nodes(&context, &mut items).await?;
    }
    Ok(Found { items, next })
}

/// One event as KernelCI's history shows it (contract 5.1), and whole.
fn item(logged: &Logged) -> Object {
    let event = logged.entry.value();
    let time = event.get("time").and_then(Value::as_str).and_then(|text| Timestamp::parse_iso(text).ok());
    let mut item = Object::new();
    item.insert("timestamp".into(), time.map(Timestamp::to_wire).into());
    item.insert("sequence_id".into(), logged.entry.seq.into());
    item.insert("channel".into(), logged.channel.clone().into());
    for key in ["owner", "data", "id"] {
        item.insert(key.into(), event.get(key).cloned().unwrap_or(Value::Null));
    }
    item.insert("event".into(), event.clone());
    item
}

async fn add_nodes(context: &Context, items: &mut [Object]) -> Result<()> {
    let id = |item: &Object| item.get("data")?.get("id")?.as_str()?.parse::<ObjectId>().ok();
    let mut ids: Vec<ObjectId> = items.iter().filter_map(id).collect();
    ids.sort_unstable();
    ids.dedup();
    let nodes = context.app.store.nodes(&ids).await?;
    for item in items {
        let Some(id) = id(item).map(ObjectId::to_hex) else { continue };
        if let Some(node) = nodes.iter().find(|node| node.get("id").is_some_and(|other| *other == *id)) {
            item.insert("node".into(), Value::Object(node.clone()));
        }
    }
    Ok(())
}

fn cursor(last: &Logged, by_seq: bool) -> String {
    let event = last.entry.value();
    let place = if by_seq { json!([last.entry.seq]) } else { json!([event.get("time"), event.get("id")]) };
    BASE64_URL_SAFE_NO_PAD.encode(place.to_string())
}

fn read_cursor(text: &str, by_seq: bool) -> Result<After> {
    let read = || {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let place: Vec<Value> = serde_json::from_slice(&bytes).ok()?;
        match (by_seq, place.as_slice()) {
            (true, [seq]) => Some(After::Seq(seq.as_u64()?)),
            (false, [time, id]) => {
                Some(After::Time(Timestamp::parse_iso(time.as_str()?).ok()?, id.as_str()?.parse().ok()?))
            }
            _ => None,
        }
    };
    read().ok_or_else(|| Error::invalid("after", "expected `next` of the page before, of the same query"))
}
