//! Whatever text comes, it is a request or an answer that a JSON-RPC client understands.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::*;
use crate::fuzz::{Fuzz, corpus, json as texts};

const FOUND: &[&[u8]] = &[
    // A string of 128 bytes, which is 130 with its quotes.
    br#"{"jsonrpc":"2.0","id":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","method":"a"}"#,
    // Two that are no JSON.
    b"\"\"x",
    b"[1",
];
const NAMES: &[&str] = &["jsonrpc", "id", "method", "params", "i\\u0064", "more", "filter", "node"];
const WORDS: &[&str] =
    &["2.0", "node.get", "session.hello", "event.subscribe", "node.create", "7", "2\\u002e0"];

fn requests() -> BoxedStrategy<String> {
    let member = |name: &'static str, value: BoxedStrategy<String>| {
        proptest::option::weighted(0.9, value.prop_map(move |value| (format!("\"{name}\""), value)))
    };
    let or = |good: BoxedStrategy<String>| prop_oneof![9 => good, 1 => texts::any_json(NAMES, WORDS)].boxed();
    let version = or(select(vec!["\"2.0\"", "\"2\\u002e0\"", "\"1.0\""]).prop_map(str::to_owned).boxed());
    let method = or(texts::string(WORDS));
    let params = or(texts::any_json(NAMES, WORDS));
    let more = proptest::option::weighted(0.1, (texts::string(NAMES), texts::any_json(NAMES, WORDS)));
    let members = (
        member("jsonrpc", version),
        member("id", or(texts::scalar(WORDS))),
        member("method", method),
        member("params", params),
        more,
    );
    members
        .prop_map(|(a, b, c, d, e)| [a, b, c, d, e].into_iter().flatten().collect::<Vec<_>>())
        .prop_shuffle()
        .prop_map(texts::object)
        .boxed()
}

/// Whether this is a request, said in another way: for JSON without members twice.
fn is_request(message: &Value) -> bool {
    let Some(members) = message.as_object() else { return false };
    let known = members.keys().all(|name| ["jsonrpc", "id", "method", "params"].contains(&name.as_str()));
    known && message["jsonrpc"] == "2.0" && message["method"].is_string() && can_be_echoed(&message["id"])
}

fn can_be_echoed(id: &Value) -> bool {
    id.is_null() || id.is_number() || id.as_str().is_some_and(|text| text.len() <= LONGEST_ID)
}

/// The error answer to this id, as a client reads it.
fn error_code(id: &str, error: Error) -> i64 {
    let answer: Value = serde_json::from_str(&answer(id, Err(error))).unwrap();
    assert_eq!(answer["id"], serde_json::from_str::<Value>(id).unwrap());
    assert_eq!((&answer["jsonrpc"], answer.get("result")), (&json!("2.0"), None));
    let code = answer["error"]["code"].as_i64().unwrap();
    assert!(Kind::ALL.iter().any(|kind| i64::from(kind.row().code) == code));
    assert!(answer["error"]["data"]["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    code
}

fn read_and_answer(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let value = serde_json::from_str::<Value>(&text).ok();
    if let Some(value) = &value {
        let plain = value.to_string();
        let flat = json::check(&plain).is_ok();
        assert_eq!(read(&plain).is_ok(), flat && is_request(value), "{plain}");
    }
    match read(&text) {
        Ok(request) => {
            assert_eq!(json::check(&text), Ok(()));
            let params = serde_json::from_str::<serde::de::IgnoredAny>(&request.params);
            assert!(params.is_ok(), "parameters are JSON, or a parser says what is wrong with them");
            let id = request.id.as_deref().unwrap_or("null");
            let read_id: Value = serde_json::from_str(id).unwrap();
            assert!(can_be_echoed(&read_id));
            if let Some(value) = value {
                assert_eq!(value.get("id"), request.id.as_ref().map(|_| &read_id));
            }
            let method = Value::from(&*request.method);
            let id_member = request.id.as_ref().map(|id| format!(",\"id\":{id}")).unwrap_or_default();
            let again = format!(
                "{{\"jsonrpc\":\"2.0\"{id_member},\"method\":{method},\"params\":{}}}",
                request.params
            );
            let again = read(&again).unwrap();
            assert_eq!(
                (&again.id, &again.method, &again.params),
                (&request.id, &request.method, &request.params)
            );
            error_code(id, Error::new(Kind::UnknownMethod, format!("there is no {}", request.method)));
            let answered: Value = serde_json::from_str(&answer(id, Ok("{\"a\":1}".into()))).unwrap();
            assert_eq!(answered, json!({"jsonrpc": "2.0", "id": read_id, "result": {"a": 1}}));
            true
        }
        Err(unreadable) => {
            assert!(matches!(unreadable.error.kind(), Kind::Parse | Kind::InvalidRequest));
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            let flat = json::check(&text).is_ok();
            assert_eq!(unreadable.error.kind() == Kind::Parse, flat && !is_json, "{}", unreadable.error);
            error_code(&unreadable.id, unreadable.error);
            let id = value.as_ref().filter(|_| text.matches("\"id\"").count() == 1 && !text.contains('\\'));
            let long_number = text.split(|c: char| !c.is_ascii_digit()).any(|run| run.len() > LONGEST_ID / 2);
            let id = id.and_then(|value| value.get("id")).filter(|id| can_be_echoed(id) && !long_number);
            if let Some(id) = id {
                assert_eq!(serde_json::from_str::<Value>(&unreadable.id).unwrap(), *id, "it is told which");
            }
            false
        }
    }
}

#[test]
fn any_text_is_a_request_or_a_mistake_that_is_told() {
    Fuzz::new("JSON-RPC", 6000)
        .corpus(FOUND)
        .corpus(corpus::messages())
        .corpus(corpus::answers())
        .words(["\"id\":", "\"jsonrpc\":\"2.0\"", "\"method\":", "\"params\":", ",\"id\":1"])
        .grammar(requests())
        .run(read_and_answer);
}

/// What is counted without parsing is what a parser sees.
#[test]
fn depth_is_what_a_parser_sees() {
    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }
    let nested =
        vec(select(vec!["[", "{\"a\":", "[\"]\",", "{\"\\\"[\":1,\"b\":"]), 0..90).prop_map(|open| {
            let close = open.iter().rev().map(|open| if open.starts_with('[') { "]" } else { "}" });
            open.iter().copied().chain(["\"\\\\\""]).chain(close).collect::<String>()
        });
    Fuzz::new("depth", 6000).corpus(corpus::messages()).grammar(nested).run(|input| {
        let text = String::from_utf8_lossy(input);
        let Ok(value) = serde_json::from_str::<Value>(&text) else { return false };
        let depth = depth(&value);
        // A member that comes twice hides what the first one held.
        assert!(depth == 0 || json::within(&text, depth - 1, usize::MAX).is_err());
        let plain = value.to_string();
        assert_eq!(json::within(&plain, depth, usize::MAX), Ok(()));
        true
    });
}
