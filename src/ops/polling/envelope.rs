//! What a long poll answers, as KernelCI's own server writes it (contract 5.4).

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::model::Timestamp;
use crate::model::event::{Entry, NODE_CHANNEL};
use crate::ops::attributes;
use crate::ops::events::EVENT_TYPE;

/// One event.
#[derive(Serialize, JsonSchema)]
pub struct Message {
    /// Always `message`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Always null.
    pattern: Option<String>,
    /// The channel.
    channel: String,
    /// The CloudEvent as JSON text.
    data: String,
}

impl Message {
    fn new(channel: &str, data: &Value) -> Message {
        Message { kind: "message", pattern: None, channel: channel.to_owned(), data: python_json(data) }
    }

    /// An event of the log: the attributes that KernelCI sends, in its order, with the number behind them.
    pub(super) fn event(channel: &str, entry: &Entry) -> Message {
        let mut event = entry.value().clone();
        if let Some(event) = event.as_object_mut() {
            // Ours, which its clients do not know; a key on another channel is its publisher's.
            let is_ours = |name: &str| {
                matches!(name, "subject" | "sequence") || (name == "partitionkey" && channel == NODE_CHANNEL)
            };
            event.retain(|name, _| !is_ours(name));
            attributes::restore(event);
            event.insert("_sequence_id".into(), entry.seq.into());
        }
        Message::new(channel, &event)
    }

    /// The keep-alive (contract 5.5).
    pub(super) fn beep(channel: &str, config: &Config) -> Message {
        let event = json!({
            "specversion": "1.0",
            "id": uuid::Uuid::new_v4().to_string(),
            "source": config.cloud_events_source,
            "type": EVENT_TYPE,
            "time": Timestamp::now().to_event_time(),
            "data": "BEEP",
        });
        Message::new(channel, &event)
    }
}

/// JSON as Python's `json.dumps` writes it: blanks behind commas and colons, nothing but ASCII.
pub(in crate::ops) fn python_json(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (at, (name, member)) in members.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                write_string(name, out);
                out.push_str(": ");
                write(member, out);
            }
            out.push('}');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='\u{7e}' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = json!({"a": [1, 2.5, null, true], "ü": "\"\\/\n\t\u{1}\u{7f}é😀", "e": {}, "l": []});
        // From Python 3.11: json.dumps({"a": [1, 2.5, None, True], "ü": "\"\\/\n\t\x01\x7fé😀", "e": {}, "l": []})
        let python = r#"{"a": [1, 2.5, null, true], "\u00fc": "\"\\/\n\t\u0001\u007f\u00e9\ud83d\ude00", "e": {}, "l": []}"#;
        assert_eq!(python_json(&value), python);
    }

    #[test]
    fn an_event_has_the_attributes_and_the_order_of_kernelci() {
        let json = r#"{"specversion":"1.0","id":"i","source":"s","type":"t","subject":"x","time":"z","data":{"k":1},"owner":"bob","partitionkey":"p","traceparent":"00"}"#;
        let message = Message::event("node", &Entry::new(7, json));
        assert_eq!(
            message.data,
            r#"{"specversion": "1.0", "id": "i", "source": "s", "type": "t", "time": "z", "data": {"k": 1}, "owner": "bob", "traceparent": "00", "_sequence_id": 7}"#
        );
        let written = r#"{"id":"i","data":1,"foobar":2,"x":3,"attributenames":"[\"Foo_bar\"]"}"#;
        let message = Message::event("a b", &Entry::new(7, written));
        assert_eq!(message.data, r#"{"id": "i", "data": 1, "Foo_bar": 2, "x": 3, "_sequence_id": 7}"#);
        assert_eq!(
            serde_json::to_string(&message).unwrap().split("\"data\"").next(),
            Some(r#"{"type":"message","pattern":null,"channel":"a b","#)
        );
    }
}
