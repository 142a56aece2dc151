//! Events: CloudEvents 1.0 as they stand in a channel's log.

use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ObjectId, Timestamp};

/// The channel on which every write of a node appears.
pub const NODE_CHANNEL: &str = "node";

/// Where a reader stands in a channel: everything up to and including `seq` has been seen.
///
/// Sequence numbers of a channel are dense and increase within an epoch; the epoch changes only when history
/// was lost. `seq` 0 stands before the first event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Identifies the history that `seq` counts in.
    pub epoch: String,
    /// The last sequence number that has been seen.
    pub seq: u64,
}

/// An event before it has a place in a log: a CloudEvent without `sequence`.
#[derive(Clone, Debug)]
pub struct Event {
    /// Also the CloudEvent `id` (24 hex digits): made once, with the write, so redelivery keeps it.
    pub id: ObjectId,
    /// The channel that it is logged on.
    pub channel: String,
    /// CloudEvent `source`.
    pub source: String,
    /// CloudEvent `type`.
    pub kind: String,
    /// CloudEvent `subject`: the id of the node that it is about.
    pub subject: Option<String>,
    /// When it happened.
    pub time: Timestamp,
    /// Extension `owner`: the owner of the node, or the user who published.
    pub owner: Option<String>,
    /// Extension `partitionkey`: the tree id.
    pub partitionkey: Option<String>,
    /// Further extension attributes of a published event.
    pub extensions: Map<String, Value>,
    /// The payload.
    pub data: Value,
}

impl Event {
    /// The CloudEvent as JSON, without `sequence`, in the order of attributes that KernelCI sends
    /// (contract 5.4): `specversion, id, source, type, [subject], time, data, [owner, partitionkey, …]`.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        put("specversion", "1.0".into());
        put("id", self.id.to_hex().into());
        put("source", self.source.clone().into());
        put("type", self.kind.clone().into());
        if let Some(subject) = &self.subject {
            put("subject", subject.clone().into());
        }
        put("time", self.time.to_event_time().into());
        put("data", self.data.clone());
        if let Some(owner) = &self.owner {
            put("owner", owner.clone().into());
        }
        if let Some(key) = &self.partitionkey {
            put("partitionkey", key.clone().into());
        }
        for (key, value) in &self.extensions {
            put(key, value.clone());
        }
        map
    }
}

/// An event at its place in a channel's log. Shared by all readers, so everything derived from it is made once.
#[derive(Debug)]
pub struct Entry {
    /// Its sequence number in the channel.
    pub seq: u64,
    /// The CloudEvent as compact JSON text, with `sequence`.
    pub json: String,
    value: OnceLock<Value>,
    frames: Mutex<Vec<(u32, Bytes)>>,
}

/// Frames of an event that are kept: most readers choose the same few subscription numbers.
const KEPT_FRAMES: usize = 4;

impl Entry {
    /// Puts the `sequence` attribute into `event` (a CloudEvent as a JSON object without it).
    ///
    /// `sequence` is a fixed-width decimal string, because the CloudEvents extension compares it as a string.
    pub fn new(seq: u64, event: &str) -> Entry {
        let body = event.trim_end().strip_suffix('}').unwrap_or(event);
        Entry {
            seq,
            json: format!("{body},\"sequence\":\"{seq:020}\"}}"),
            value: OnceLock::new(),
            frames: Mutex::default(),
        }
    }
    /// The CloudEvent as a value, for filters: parsed at the first call.
    pub fn value(&self) -> &Value {
        self.value.get_or_init(|| serde_json::from_str(&self.json).unwrap_or(Value::Null))
    }
    /// The frame that shows this event under a subscription number: made once and shared by everybody who chose the
    /// same small number.
    pub fn frame(&self, sub: u32, make: impl FnOnce() -> Bytes) -> Bytes {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = frames.iter().find(|(number, _)| *number == sub) {
            return frame.clone();
        }
        let frame = make();
        if frames.len() < KEPT_FRAMES {
            frames.push((sub, frame.clone()));
        }
        frame
    }
    /// The CloudEvent's `subject`: the node that it is about.
    pub fn subject(&self) -> Option<ObjectId> {
        self.value().get("subject")?.as_str()?.parse().ok()
    }
}
