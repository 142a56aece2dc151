//! Nodes as MongoDB documents (contract 7.5): the layout that KernelCI's own server reads and writes, plus
//! `revision`, `outbox` and `idempotency`.
//!
//! Reading is lenient: databases hold documents of many ages, and one odd document must never spoil a page.

use bson::{Bson, DateTime, Document, doc};
use serde_json::{Map, Value};

use super::bson_json::{from_map, to_json};
use crate::error::Result;
use crate::model::{Node, ObjectId, Timestamp, node::Outcome, node::State};
use crate::store::Wire;

/// How long a node may take when its document does not say: the default of new nodes.
const TIMEOUT_SECONDS: i64 = 6 * 3600;

/// The fields of a node that a write sets, without `_id`: fields of others in the same document stay as they are.
pub(crate) fn fields(node: &Node) -> Result<Document> {
    let map = |name: &str, map: &Option<Map<String, Value>>| match map {
        None => Ok(Bson::Null),
        Some(map) => from_map(name, map),
    };
    let text = |text: &Option<String>| text.clone().map_or(Bson::Null, Bson::String);
    Ok(doc! {
        "kind": &node.kind,
        "name": &node.name,
        "path": &node.path,
        "group": text(&node.group),
        "parent": node.parent.map_or(Bson::Null, Bson::ObjectId),
        "state": state_name(node.state),
        "result": node.result.map_or(Bson::Null, |result| outcome_name(result).into()),
        "artifacts": map("artifacts", &node.artifacts)?,
        "data": map("data", &node.data)?,
        "debug": map("debug", &node.debug)?,
        "jobfilter": node.jobfilter.clone().map_or(Bson::Null, Bson::from),
        "platform_filter": node.platform_filter.clone().map_or(Bson::Null, Bson::from),
        "created": date(node.created),
        "updated": date(node.updated),
        "timeout": date(node.timeout),
        "holdoff": node.holdoff.map_or(Bson::Null, |time| date(time).into()),
        "owner": text(&node.owner),
        "submitter": text(&node.submitter),
        "treeid": text(&node.treeid),
        "user_groups": &node.user_groups,
        "processed_by_kcidb_bridge": node.processed_by_kcidb_bridge,
        "retry_counter": number(node.retry_counter),
        "revision": i64::try_from(node.revision).unwrap_or(i64::MAX),
    })
}

/// A moment as a BSON date.
pub(crate) fn date(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.millis())
}

fn number(value: i64) -> Bson {
    i32::try_from(value).map_or(Bson::Int64(value), Bson::Int32)
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Running => "running",
        State::Available => "available",
        State::Closing => "closing",
        State::Done => "done",
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::Skip => "skip",
        Outcome::Incomplete => "incomplete",
    }
}

/// The revision that a document stands at; documents of an older server have none, which is 0.
pub(crate) fn revision(doc: &Document) -> u64 {
    doc.get("revision").and_then(integer).and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}

/// The wire form of a stored node: the 23 keys of contract 2.1 in their order, then `revision`. A field that is
/// missing or cannot be understood gets its default; other fields are left out.
pub(crate) fn wire(doc: &Document) -> Wire {
    let id = match doc.get("_id") {
        Some(Bson::ObjectId(id)) => Some(*id),
        _ => None,
    };
    let born = id.map_or(0, |id| id.timestamp().timestamp_millis());
    let created = moment(doc.get("created")).unwrap_or(Timestamp::from_millis(born));
    let updated = moment(doc.get("updated")).unwrap_or(created);
    let timeout = moment(doc.get("timeout")).unwrap_or(created.plus_seconds(TIMEOUT_SECONDS));

    let mut wire = Wire::new();
    let mut put = |key: &str, value: Value| {
        wire.insert(key.to_owned(), value);
    };
    put("id", doc.get("_id").map_or(Value::Null, hex));
    put("kind", text(doc, "kind").unwrap_or_else(|| "node".into()));
    put("name", text(doc, "name").unwrap_or_else(|| "".into()));
    put("path", texts(doc.get("path")).unwrap_or_default().into());
    put("group", text(doc, "group").unwrap_or_default());
    put("parent", doc.get("parent").map_or(Value::Null, hex));
    put(
        "state",
        one_of(doc, "state", &["running", "available", "closing", "done"]).unwrap_or("running".into()),
    );
    put("result", one_of(doc, "result", &["pass", "fail", "skip", "incomplete"]).unwrap_or_default());
    put("artifacts", artifacts(doc.get("artifacts")));
    put("data", object(doc.get("data")));
    put("debug", object(doc.get("debug")));
    put("jobfilter", texts(doc.get("jobfilter")).map_or(Value::Null, Value::from));
    put(
        "platform_filter",
        nullable(doc.get("platform_filter"), |list| texts(list).unwrap_or_default().into()),
    );
    put("created", created.to_wire().into());
    put("updated", updated.to_wire().into());
    put("timeout", timeout.to_wire().into());
    put("holdoff", moment(doc.get("holdoff")).map_or(Value::Null, |time| time.to_wire().into()));
    put("owner", text(doc, "owner").unwrap_or_default());
    put("submitter", text(doc, "submitter").unwrap_or_default());
    put("treeid", text(doc, "treeid").unwrap_or_default());
    put("user_groups", texts(doc.get("user_groups")).unwrap_or_default().into());
    put("processed_by_kcidb_bridge", flag(doc.get("processed_by_kcidb_bridge")).into());
    put("retry_counter", doc.get("retry_counter").and_then(integer).unwrap_or(0).into());
    put("revision", revision(doc).into());
    wire
}

/// An identifier, whether it was stored as an ObjectId or as its digits.
fn hex(value: &Bson) -> Value {
    match value {
        Bson::ObjectId(id) => id.to_hex().into(),
        Bson::String(text) if text.parse::<ObjectId>().is_ok() => text.to_ascii_lowercase().into(),
        _ => Value::Null,
    }
}

fn text(doc: &Document, key: &str) -> Option<Value> {
    match doc.get(key)? {
        Bson::String(text) => Some(text.clone().into()),
        _ => None,
    }
}

fn one_of(doc: &Document, key: &str, names: &[&str]) -> Option<Value> {
    let name = doc.get_str(key).ok()?;
    names.contains(&name).then(|| name.into())
}

/// The strings of a list; `None` if it is not a list.
fn texts(value: Option<&Bson>) -> Option<Vec<Value>> {
    let Bson::Array(items) = value? else { return None };
    Some(items.iter().filter_map(|item| item.as_str().map(Value::from)).collect())
}

fn nullable(value: Option<&Bson>, read: impl Fn(Option<&Bson>) -> Value) -> Value {
    match value {
        Some(Bson::Null) => Value::Null,
        other => read(other),
    }
}

/// A JSON object; null stays null, a missing one is empty.
fn object(value: Option<&Bson>) -> Value {
    nullable(value, |value| match value {
        Some(document @ Bson::Document(_)) => to_json(document),
        _ => Value::Object(Map::new()),
    })
}

/// Artifacts: URLs are handed out in normalised form, since older servers stored some of them as they came.
fn artifacts(value: Option<&Bson>) -> Value {
    let mut artifacts = object(value);
    for (_, value) in artifacts.as_object_mut().into_iter().flatten() {
        if let Some(url) = value.as_str().and_then(|text| url::Url::parse(text).ok()) {
            *value = String::from(url).into();
        }
    }
    artifacts
}

fn moment(value: Option<&Bson>) -> Option<Timestamp> {
    match value? {
        Bson::DateTime(date) => Some(Timestamp::from_millis(date.timestamp_millis())),
        Bson::Timestamp(stamp) => Some(Timestamp::from_millis(i64::from(stamp.time) * 1000)),
        Bson::String(text) => Timestamp::parse_iso(text).ok(),
        _ => None,
    }
}

/// A boolean in any of the spellings that were once accepted (contract 2.1).
fn flag(value: Option<&Bson>) -> bool {
    match value {
        Some(Bson::Boolean(flag)) => *flag,
        Some(Bson::String(text)) => {
            matches!(text.to_ascii_lowercase().as_str(), "true" | "t" | "yes" | "y" | "on" | "1")
        }
        Some(other) => integer(other) == Some(1),
        None => false,
    }
}

/// A whole number, whatever numeric type it was stored as.
pub(crate) fn integer(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) if number.fract() == 0.0 && number.abs() < 9.0e15 => Some(*number as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_document_reads_as_defaults_and_its_ids_time() {
        let id = ObjectId::from_parts(1_700_000_000, [1; 5], [2; 3]);
        let wire = wire(&doc! {"_id": id});
        assert_eq!(wire.len(), 24);
        assert_eq!(wire["created"], "2023-11-14T22:13:20");
        assert_eq!(wire["timeout"], "2023-11-15T04:13:20");
        assert_eq!(wire["kind"], "node");
        assert_eq!(wire["data"], serde_json::json!({}));
        assert_eq!(wire["result"], Value::Null);
        assert_eq!(wire["revision"], 0);
    }

    #[test]
    fn odd_documents_read_as_something() {
        let id = ObjectId::new();
        let wire = wire(&doc! {
            "_id": id, "id": id, "name": 5, "path": ["a", 1], "state": "bogus", "result": 3,
            "artifacts": {"log": "HTTP://Ex.com:80/A b", "odd": 1}, "data": "text", "debug": Bson::Null,
            "created": "not a date at all".len() as i64, "retry_counter": 2.0, "processed_by_kcidb_bridge": "YES",
            "parent": id.to_hex().to_uppercase(), "platform_filter": Bson::Null, "extra": 1, "outbox": [],
        });
        assert_eq!(wire["path"], serde_json::json!(["a"]));
        assert_eq!(wire["state"], "running");
        assert_eq!(wire["artifacts"]["log"], "http://ex.com/A%20b");
        assert_eq!(wire["data"], serde_json::json!({}));
        assert_eq!(wire["debug"], Value::Null);
        assert_eq!(wire["platform_filter"], Value::Null);
        assert_eq!(wire["retry_counter"], 2);
        assert_eq!(wire["processed_by_kcidb_bridge"], true);
        assert_eq!(wire["parent"], id.to_hex());
        assert!(!wire.contains_key("extra") && !wire.contains_key("outbox"));
    }
}
