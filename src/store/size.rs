//! How large a write is as MongoDB would store it, found without making it: the same nodes fit on both back ends.

use serde_json::{Map, Value};

use super::Write;
use crate::error::{Error, Kind, Result};
use crate::model::{Event, Node};

/// Bytes of a document of MongoDB.
const DOCUMENT: usize = 16 << 20;
/// Bytes of it that are kept for what stands in it besides: the idempotency key, the marks of pending events, the number
/// of an event.
const BESIDES: usize = 2 << 10;
/// Bytes that a node may have as a document, and an event that tells of one.
pub(crate) const MOST: usize = DOCUMENT - BESIDES;
/// Bytes of a document besides its members, and of one of those besides its name and its value.
const FRAME: usize = 5;
const MEMBER: usize = 2;

/// 413 if the node, or an event of it, cannot be stored.
pub(crate) fn check(write: &Write) -> Result<()> {
    let size = node(&write.node);
    if size > MOST {
        return Err(too_large("a node", size));
    }
    match write.events.iter().map(event).max() {
        Some(size) if size > MOST => Err(too_large("the event of a node, which has its data again,", size)),
        _ => Ok(()),
    }
}

fn too_large(what: &str, size: usize) -> Error {
    Error::new(
        Kind::TooLarge,
        format!("{what} has at most {MOST} bytes as it is stored, this one has {size}"),
    )
}

/// Bytes of a node's document, without what is kept besides its fields.
pub(crate) fn node(node: &Node) -> usize {
    const ID: usize = 12;
    const DATE: usize = 8;
    let of_text = |given: &Option<String>| given.as_deref().map_or(0, text);
    let of_map = |map: &Option<Map<String, Value>>| map.as_ref().map_or(0, object);
    let of_list = |list: &Option<Vec<String>>| list.as_deref().map_or(0, texts);
    let of_integer = |number: i64| if i32::try_from(number).is_ok() { 4 } else { 8 };
    let members = [
        ("_id", ID),
        ("kind", text(&node.kind)),
        ("name", text(&node.name)),
        ("path", texts(&node.path)),
        ("group", of_text(&node.group)),
        ("parent", node.parent.map_or(0, |_| ID)),
        ("state", text(node.state.as_str())),
        ("result", node.result.map_or(0, |result| text(result.as_str()))),
        ("artifacts", of_map(&node.artifacts)),
        ("data", of_map(&node.data)),
        ("debug", of_map(&node.debug)),
        ("jobfilter", of_list(&node.jobfilter)),
        ("platform_filter", of_list(&node.platform_filter)),
        ("created", DATE),
        ("updated", DATE),
        ("timeout", DATE),
        ("holdoff", node.holdoff.map_or(0, |_| DATE)),
        ("owner", of_text(&node.owner)),
        ("submitter", of_text(&node.submitter)),
        ("treeid", of_text(&node.treeid)),
        ("user_groups", texts(&node.user_groups)),
        ("processed_by_kcidb_bridge", 1),
        ("retry_counter", of_integer(node.retry_counter)),
        ("revision", 8),
    ];
    FRAME + members.iter().map(|(name, size)| MEMBER + name.len() + size).sum::<usize>()
}

/// About how many bytes an event's document in the history has: what is not counted is short.
pub(crate) fn event(event: &Event) -> usize {
    let texts = [&event.channel, &event.source, &event.kind];
    let or_null = [&event.subject, &event.owner, &event.partitionkey];
    let attributes = texts.into_iter().map(String::len).sum::<usize>()
        + or_null.into_iter().flatten().map(String::len).sum::<usize>();
    value(&event.data) + object(&event.extensions) + attributes + BESIDES / 4
}

/// Bytes of a value.
// Recursion: nodes are about a hundred levels deep at most.
fn value(given: &Value) -> usize {
    match given {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(number) if number.as_i64().is_some_and(|whole| i32::try_from(whole).is_ok()) => 4,
        Value::Number(_) => 8,
        Value::String(given) => text(given),
        Value::Array(items) => array(items.iter().map(value)),
        Value::Object(members) => object(members),
    }
}

fn object(members: &Map<String, Value>) -> usize {
    FRAME + members.iter().map(|(name, member)| MEMBER + name.len() + value(member)).sum::<usize>()
}

/// A list has its numbers as names.
fn array(sizes: impl Iterator<Item = usize>) -> usize {
    let digits = |index: usize| index.checked_ilog10().unwrap_or(0) as usize + 1;
    FRAME + sizes.enumerate().map(|(index, size)| MEMBER + digits(index) + size).sum::<usize>()
}

fn texts(list: &[String]) -> usize {
    array(list.iter().map(|item| text(item)))
}

fn text(given: &str) -> usize {
    FRAME + given.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{ObjectId, Timestamp};
    use crate::store::mongo::document::fields;

    fn made(body: Value) -> Node {
        Node::create(&body, Timestamp::from_millis(0)).unwrap()
    }

    #[test]
    fn a_node_is_as_large_as_its_document() {
        let list: Vec<Value> =
            (0..1234).map(|n| json!([n, n as f64, null, "é\u{0}", i64::MAX, {"k.": true}])).collect();
        let full = made(json!({
            "kind": "job", "name": "nämé", "path": ["a", "b"], "group": "g", "parent": ObjectId::new().to_hex(),
            "state": "done", "result": "incomplete", "artifacts": {"a": "http://x/"}, "data": {"list": list},
            "debug": {"": {}, "n": -7_000_000_000_i64}, "jobfilter": ["x"], "platform_filter": null,
            "holdoff": "2026-01-01", "submitter": "s", "treeid": "t", "user_groups": ["u"], "retry_counter": 5_000_000_000_i64,
        }));
        let empty = made(json!({"kind": "process", "name": "", "path": [], "data": null, "artifacts": null}));
        for given in [full, empty] {
            let mut document = bson::doc! {"_id": given.id};
            document.extend(fields(&given).unwrap());
            assert_eq!(node(&given), bson::serialize_to_vec(&document).unwrap().len());
        }
    }
}
