//! How a session shows an event. Nothing goes out that is longer than the client takes: its library would close the
//! connection, and again each time it comes back. What does not fit is left out, and it is said how to get it.

use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use super::frame::Frame;
use crate::model::event::Entry;
use crate::rpc;

/// More than a frame has besides event and nodes: the method, the numbers, a header.
const AROUND: usize = 256;

/// What is included with an event.
pub(super) struct Included {
    /// Its members of the frame, each with a comma before it.
    pub(super) members: String,
    /// The same if they are left out.
    pub(super) without: &'static str,
}

/// An event as it stands, and what is included with it. What is longer than `longest` is left out: first the nodes, then
/// the event's data.
pub(super) fn event_frame(sub: u32, entry: &Entry, longest: usize) -> Frame {
    match entry.json.len() + AROUND <= longest {
        true => Frame::from_bytes(entry.frame(sub, || frame(sub, entry.seq, &entry.json, "").bytes())),
        false => frame(sub, entry.seq, &without_data(entry), &omitted(entry, None)),
    }
}

/// As [`event_frame`], with further members: `more`, which are few, and what is included.
pub(super) fn event_frame_with(
    sub: u32,
    entry: &Entry,
    more: &str,
    included: Option<&Included>,
    longest: usize,
) -> Frame {
    let (members, without) = included.map_or(("", ""), |included| (&*included.members, included.without));
    let (json, nodes) = (entry.json.len() + more.len() + AROUND, members.len());
    if json + nodes <= longest {
        return frame(sub, entry.seq, &entry.json, &format!("{more}{members}"));
    }
    let left_out = (nodes > 0).then_some(nodes);
    if json <= longest {
        let omitted = nodes_omitted(entry, nodes);
        return frame(sub, entry.seq, &entry.json, &format!("{more}{without}{omitted}"));
    }
    frame(sub, entry.seq, &without_data(entry), &format!("{more}{without}{}", omitted(entry, left_out)))
}

fn frame(sub: u32, seq: u64, event: &str, more: &str) -> Frame {
    rpc::notification("event", &format!("{{\"sub\":{sub},\"seq\":{seq},\"event\":{event}{more}}}")).into()
}

/// How much was left out, and where it is.
#[derive(Serialize)]
struct LeftOut {
    bytes: usize,
    get: String,
}

fn nodes_left_out(entry: &Entry, bytes: usize) -> LeftOut {
    let node = entry.subject().map_or_else(String::new, |id| id.to_hex());
    LeftOut { bytes, get: format!("/latest/node/{node}") }
}

fn nodes_omitted(entry: &Entry, bytes: usize) -> String {
    format!(",\"omitted\":{}", json!({"node": nodes_left_out(entry, bytes)}))
}

fn omitted(entry: &Entry, nodes: Option<usize>) -> String {
    let id = entry.value().get("id").and_then(Value::as_str).unwrap_or_default();
    let event = LeftOut { bytes: entry.json.len(), get: format!("/latest/events?id={id}") };
    let mut omitted = json!({"event": event});
    if let Some(bytes) = nodes {
        omitted["node"] = json!(nodes_left_out(entry, bytes));
    }
    format!(",\"omitted\":{omitted}")
}

/// The event's attributes.
fn without_data(entry: &Entry) -> String {
    let attributes = entry.value().as_object().into_iter().flatten().filter(|(name, _)| *name != "data");
    let attributes: serde_json::Map<String, Value> =
        attributes.map(|(name, value)| (name.clone(), value.clone())).collect();
    Value::Object(attributes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: usize) -> Entry {
        let event = json!({"specversion": "1.0", "id": "5f00", "subject": "5f0000000000000000000abc", "data": "x".repeat(bytes)});
        Entry::new(7, &event.to_string())
    }

    fn params(frame: &Frame, longest: usize) -> Value {
        let text = frame.payload();
        assert!(text.len() <= longest, "{} of {longest}", text.len());
        serde_json::from_str::<Value>(&text).unwrap()["params"].take()
    }

    #[test]
    fn what_is_too_long_is_left_out_and_said_where_it_is() {
        let included = Included {
            members: format!(",\"node\":{{\"x\":\"{}\"}}", "n".repeat(3000)),
            without: ",\"node\":null",
        };
        let longest = 4096;
        for (bytes, with_nodes, whole_event, whole_nodes) in [
            (100, true, true, true),
            (2000, true, true, false),
            (5000, true, false, false),
            (2000, false, true, true),
            (5000, false, false, true),
        ] {
            let entry = entry(bytes);
            let frame = match with_nodes {
                true => event_frame_with(1, &entry, ",\"deliveries\":1", Some(&included), longest),
                false => event_frame(1, &entry, longest),
            };
            let params = params(&frame, longest);
            assert_eq!(
                (&params["sub"], &params["seq"], &params["event"]["id"]),
                (&json!(1), &json!(7), &json!("5f00"))
            );
            let omitted = &params["omitted"];
            assert_eq!(params["event"]["data"].is_string(), whole_event);
            assert_eq!(omitted["event"]["get"].is_null(), whole_event);
            assert_eq!(omitted["node"]["get"].is_null(), whole_nodes || !with_nodes);
            assert_eq!(params["node"]["x"].is_string(), with_nodes && whole_nodes);
            if !whole_event {
                assert_eq!(
                    omitted["event"],
                    json!({"bytes": entry.json.len(), "get": "/latest/events?id=5f00"})
                );
                assert_eq!(params["event"]["sequence"], format!("{:020}", 7));
            }
            if with_nodes {
                assert_eq!(params["deliveries"], 1);
            }
        }
    }
}
