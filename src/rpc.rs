//! JSON-RPC 2.0 framing, shared by the WebSocket and `POST /rpc`: what a request is, what answers look like.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Error, Kind, Result};
use crate::quota::json;

const LONGEST_ID: usize = 128;

/// One request. Without `id` it is a notification, which gets no answer.
#[derive(Debug)]
pub struct Request {
    /// JSON text of the id: a number, a string of at most 128 bytes, or null.
    pub id: Option<String>,
    /// Name of the operation.
    pub method: String,
    /// JSON text of the parameters; `{}` if there were none.
    pub params: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a JSON-RPC request")]
struct Frame<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// `null` is an id, too: only a missing one makes a notification.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A request that could not be read: the error, and the id to answer with as far as it could be seen.
#[derive(Debug)]
pub struct Unreadable {
    /// JSON text of the id, `null` if unknown.
    pub id: String,
    /// What is wrong.
    pub error: Error,
}

/// Reads one request.
pub fn read(text: &str) -> Result<Request, Unreadable> {
    let refuse = |id: Option<&RawValue>, kind, detail: String| {
        let id = id.filter(|id| is_id(id));
        Unreadable { id: id.map_or("null", RawValue::get).to_owned(), error: Error::new(kind, detail) }
    };
    if let Err(excess) = json::check(text) {
        return Err(refuse(only_id(text), Kind::InvalidRequest, format!("the message: {excess}")));
    }
    if text.trim_start().starts_with('[') {
        let (kind, detail) = no_request(text, &"batches are not supported: one request a message");
        return Err(refuse(None, kind, detail));
    }
    let frame: Frame<'_> = serde_json::from_str(text).map_err(|error| {
        let (kind, detail) = no_request(text, &error);
        refuse(only_id(text), kind, detail)
    })?;
    if frame.jsonrpc != "2.0" {
        return Err(refuse(frame.id, Kind::InvalidRequest, "jsonrpc: expected \"2.0\"".into()));
    }
    if frame.id.is_some_and(|id| !is_id(id)) {
        let expected = format!("id: expected a number, null or a string of at most {LONGEST_ID} bytes");
        return Err(refuse(None, Kind::InvalidRequest, expected));
    }
    Ok(Request {
        id: frame.id.map(|id| id.get().to_owned()),
        method: frame.method.into_owned(),
        params: frame.params.map_or("{}", RawValue::get).to_owned(),
    })
}

/// What is wrong with a text that is no request for this reason: that, unless it is not even JSON.
fn no_request(text: &str, reason: &dyn std::fmt::Display) -> (Kind, String) {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => (Kind::InvalidRequest, reason.to_string()),
        Err(error) => (Kind::Parse, error.to_string()),
    }
}

/// The id of a request that is no good otherwise. (What is not wanted is skipped without recursion.)
fn only_id(text: &str) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct OnlyId<'a> {
        #[serde(borrow, default)]
        id: Option<&'a RawValue>,
    }
    serde_json::from_str::<OnlyId<'_>>(text).ok()?.id
}

/// Whether an id can be repeated in an answer. It is parsed, because a raw value may still be what no parser reads
/// (`1e999`, a lone surrogate).
fn is_id(id: &RawValue) -> bool {
    let text = id.get();
    if text.starts_with(['{', '[', 't', 'f']) {
        return false;
    }
    match serde_json::from_str(text) {
        Ok(Value::String(id)) => id.len() <= LONGEST_ID,
        Ok(_) => text.len() <= LONGEST_ID,
        Err(_) => false,
    }
}

/// Bytes that an answer usually has around its result.
pub const ENVELOPE: usize = 64;

/// The text of an answer.
pub fn answer(id: &str, result: Result<String, Error>) -> String {
    match result {
        // In place: it may have megabytes.
        Ok(mut text) => {
            let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":");
            text.reserve_exact(head.len() + 1);
            text.insert_str(0, &head);
            text.push('}');
            text
        }
        Err(error) => format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{}}}", error.to_rpc()),
    }
}

/// The text of a notification; `params` is JSON text.
pub fn notification(method: &str, params: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"params\":{params}}}")
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_faults_are_named() {
        let ok = read(r#"{"jsonrpc":"2.0","id":7,"method":"node.get","params":{"id":"x"}}"#).unwrap();
        assert_eq!((ok.id.as_deref(), &*ok.method, &*ok.params), (Some("7"), "node.get", r#"{"id":"x"}"#));
        let ok = read(r#"{"jsonrpc":"2.0","method":"a"}"#).unwrap();
        assert_eq!((ok.id, &*ok.params), (None, "{}"));
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#).unwrap().id.as_deref(), Some("null"));

        for (text, kind, id) in [
            ("", Kind::Parse, "null"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"a""#, Kind::Parse, "null"),
            ("[]", Kind::InvalidRequest, "null"),
            ("[1", Kind::Parse, "null"),
            ("3x", Kind::Parse, "null"),
            ("3", Kind::InvalidRequest, "null"),
            (r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#, Kind::InvalidRequest, "1"),
            (r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#, Kind::InvalidRequest, "null"),
            (r#"{"jsonrpc":"2.0","id":"q","methods":"a"}"#, Kind::InvalidRequest, "\"q\""),
            (r#"{"jsonrpc":"2.0","id":4,"method":5}"#, Kind::InvalidRequest, "4"),
        ] {
            let refused = read(text).unwrap_err();
            assert_eq!((refused.error.kind(), &*refused.id), (kind, id), "{text}");
        }
    }

    #[test]
    fn an_id_of_128_bytes_is_repeated_and_a_longer_one_is_not() {
        let read = |id: &str| read(&format!("{{\"jsonrpc\":\"2.0\",\"id\":\"{id}\",\"method\":\"a\"}}"));
        for id in ["x".repeat(128), "\\u00e9".repeat(64)] {
            assert_eq!(read(&id).unwrap().id, Some(format!("\"{id}\"")));
            assert_eq!(read(&format!("{id}x")).unwrap_err().id, "null");
        }
    }

    #[test]
    fn the_caller_is_told_which_message_is_too_deep() {
        let deep = "[".repeat(100_000);
        assert_eq!(read(&deep).unwrap_err().error.kind(), Kind::InvalidRequest);
        let params = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let deep = read(&format!("{{\"jsonrpc\":\"2.0\",\"params\":{params},\"id\":9}}")).unwrap_err();
        assert_eq!((deep.error.kind(), &*deep.id), (Kind::InvalidRequest, "9"));
    }
}
