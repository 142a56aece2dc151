//! Events: CloudEvents 1.0 as they stand in a channel's log.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::footprint::{Account, Footprint, heap};
use super::{EventTime, ObjectId};

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
    /// When it was made. In the log it has the time at which it came there ([`stamp`]).
    pub time: EventTime,
    /// Extension `owner`: the owner of the node, or the user who published.
    pub owner: Option<String>,
    /// Extension `partitionkey`: the tree id.
    pub partitionkey: Option<String>,
    /// Further extension attributes of a published event.
    pub extensions: Map<String, Value>,
    /// The payload.
    pub data: Value,
}

/// The CloudEvent without `sequence`, in the order of attributes that KernelCI sends (contract 5.4): `specversion, id,
/// source, type, [subject], time, data, [owner, partitionkey, …]`. An extension of the same name takes the place.
impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let put = |map: &mut S::SerializeMap, name: &str, value: Option<&str>| match (
            value,
            self.extensions.get(name),
        ) {
            (None, _) => Ok(()),
            (Some(_), Some(other)) => map.serialize_entry(name, other),
            (Some(value), None) => map.serialize_entry(name, value),
        };
        put(&mut map, "specversion", Some("1.0"))?;
        put(&mut map, "id", Some(&self.id.to_hex()))?;
        put(&mut map, "source", Some(&self.source))?;
        put(&mut map, "type", Some(&self.kind))?;
        put(&mut map, "subject", self.subject.as_deref())?;
        put(&mut map, "time", Some(&self.time.to_text()))?;
        map.serialize_entry("data", self.extensions.get("data").unwrap_or(&self.data))?;
        put(&mut map, "owner", self.owner.as_deref())?;
        put(&mut map, "partitionkey", self.partitionkey.as_deref())?;
        for (name, value) in self.extensions.iter().filter(|(name, _)| !self.has(name)) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Event {
    /// Whether it has an attribute of this name, extensions aside.
    fn has(&self, name: &str) -> bool {
        match name {
            "specversion" | "id" | "source" | "type" | "time" | "data" => true,
            "subject" => self.subject.is_some(),
            "owner" => self.owner.is_some(),
            "partitionkey" => self.partitionkey.is_some(),
            _ => false,
        }
    }
    /// The CloudEvent as JSON text, without `sequence`.
    pub fn to_text(&self) -> String {
        // Texts and JSON values can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Where the time stands in an event's text.
const TIME: &str = "\"time\":\"";

/// Gives an event ([`Event::to_text`]) the time at which it comes into the log. A text that does not have one at the place
/// and in the form that we write stays as it is.
pub fn stamp(event: &mut String, time: EventTime) {
    // Within other values quotes are escaped, so the first one is the attribute: `data` stands behind it.
    let Some(begin) = event.find(TIME).map(|at| at + TIME.len()) else { return };
    let (end, text) = (begin + EventTime::TEXT, time.to_text());
    if text.len() == EventTime::TEXT
        && event.as_bytes().get(end) == Some(&b'"')
        && event.is_char_boundary(end)
    {
        event.replace_range(begin..end, &text);
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
    verdicts: Mutex<Vec<(u64, bool)>>,
    /// Of all of that.
    footprint: Footprint,
}

/// Frames of an event that are kept: most readers choose the same few subscription numbers.
const KEPT_FRAMES: usize = 4;
/// Filters whose verdict on an event is kept; of more, those that come later decide anew.
const KEPT_VERDICTS: usize = 32;

impl Entry {
    /// Puts the `sequence` attribute into `event` (a CloudEvent as a JSON object without it).
    ///
    /// `sequence` is a fixed-width decimal string, because the CloudEvents extension compares it as a string.
    pub fn new(seq: u64, event: &str) -> Entry {
        let body = event.trim_end().strip_suffix('}').unwrap_or(event);
        let json = format!("{body},\"sequence\":\"{seq:020}\"}}");
        Entry {
            footprint: Footprint::of(size_of::<Entry>() + json.capacity()),
            seq,
            json,
            value: OnceLock::new(),
            frames: Mutex::default(),
            verdicts: Mutex::default(),
        }
    }
    /// The CloudEvent as a value, for filters: parsed at the first call.
    pub fn value(&self) -> &Value {
        self.value.get_or_init(|| {
            let value = serde_json::from_str(&self.json).unwrap_or(Value::Null);
            self.footprint.grew(heap(&value));
            value
        })
    }
    /// From now on all that is made of it is on this account; to be called before others have it.
    pub fn keep(&self, account: &Arc<Account>) {
        self.footprint.keep(account);
    }
    /// From now on it is on nobody's.
    pub fn let_go(&self) {
        self.footprint.let_go();
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
            self.footprint.grew(frame.len() + size_of::<(u32, Bytes)>());
            frames.push((sub, frame.clone()));
        }
        frame
    }
    /// What the filter of this number says of the event: asked once, and kept for the others who have that filter.
    pub fn verdict(&self, filter: u64, decide: impl FnOnce() -> bool) -> bool {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, verdict)) = verdicts.iter().find(|(number, _)| *number == filter) {
            return *verdict;
        }
        let verdict = decide();
        if verdicts.len() < KEPT_VERDICTS {
            self.footprint.grew(size_of::<(u64, bool)>());
            verdicts.push((filter, verdict));
        }
        verdict
    }
    /// The CloudEvent's `subject`: the node that it is about.
    pub fn subject(&self) -> Option<ObjectId> {
        self.value().get("subject")?.as_str()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_has_the_time_at_which_it_came() {
        let (made, came) =
            (EventTime::from_micros(1_700_000_000_123_456), EventTime::from_micros(1_800_000_000_000_001));
        let event = Event {
            id: ObjectId::new(),
            channel: "ch".into(),
            source: "a \"time\":\"b\"".into(),
            kind: "\"time\":\"".into(),
            subject: None,
            time: made,
            owner: Some("\"time\":\"".into()),
            partitionkey: None,
            extensions: Map::new(),
            data: json!({"time": made.to_text(), "ü": "\"time\":\""}),
        };
        let mut text = event.to_text();
        stamp(&mut text, came);
        assert_eq!(text, Event { time: came, ..event }.to_text());
        for other in ["{}", "{\"time\":\"", "{\"time\":\"2024\"}", "{\"time\":\"ääääääääääääääääääää\"}"]
        {
            let mut text = other.to_owned();
            stamp(&mut text, came);
            assert_eq!(text, other, "not ours");
        }
    }
}
