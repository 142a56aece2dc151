//! The frames of `kernelci.v1.json`: JSON-RPC 2.0 requests out, answers and notifications in.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::error::{Result, RpcError};
use crate::model::Position;

/// The WebSocket subprotocol that this client speaks.
pub(super) const SUBPROTOCOL: &str = "kernelci.v1.json";

/// One frame from the server: an answer (`id`) or a notification (`method`).
#[derive(Deserialize)]
pub(super) struct Incoming<'a> {
    #[serde(default)]
    pub(super) id: Option<u64>,
    #[serde(borrow, default)]
    pub(super) method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) error: Option<RpcError>,
}

impl Incoming<'_> {
    /// What an answer says. `null` is a result.
    pub(super) fn outcome(self) -> Result<Box<RawValue>> {
        match self.error {
            Some(error) => Err(error.into()),
            None => Ok(self.result.unwrap_or(RawValue::NULL).to_owned()),
        }
    }
}

/// The text of a request.
pub(super) fn request(id: u64, method: &str, params: &RawValue) -> Utf8Bytes {
    let method = serde_json::Value::from(method);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#).into()
}

/// `session.closing`: the server is about to close, and says when to come back.
#[derive(Debug, Deserialize)]
pub(super) struct Closing {
    /// The close code that will follow.
    #[serde(default)]
    pub(super) code: u16,
    /// The least wait before connecting again.
    #[serde(default)]
    pub(super) after_ms: u64,
    /// Up to so much more, by chance, so that not everybody comes back at once.
    #[serde(default)]
    pub(super) jitter_ms: u64,
    /// `false`: do not come back.
    #[serde(default = "yes")]
    pub(super) resume: bool,
}

fn yes() -> bool {
    true
}

/// The result of `event.subscribe`.
#[derive(Debug, Deserialize)]
pub(super) struct Subscribed {
    pub(super) position: Position,
    #[serde(default = "yes")]
    pub(super) recovered: bool,
    #[serde(default)]
    pub(super) missed: Option<Range>,
}

/// A range of sequence numbers, both ends included.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Range {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// Notification `event`.
#[derive(Debug, Deserialize)]
pub(super) struct EventParams {
    pub(super) sub: u32,
    pub(super) seq: u64,
    pub(super) event: Box<RawValue>,
    #[serde(default)]
    pub(super) deliveries: Option<u32>,
    #[serde(default)]
    pub(super) node: Option<serde_json::Value>,
    #[serde(default)]
    pub(super) ancestors: Option<Vec<serde_json::Value>>,
}

/// Notification `progress`.
#[derive(Debug, Deserialize)]
pub(super) struct ProgressParams {
    pub(super) sub: u32,
    pub(super) seq: u64,
}

/// Notification `gap`.
#[derive(Debug, Deserialize)]
pub(super) struct GapParams {
    pub(super) sub: u32,
    #[serde(flatten)]
    pub(super) range: Range,
    /// There if history was lost: the new epoch, in which the subscription stands at `range.to`.
    #[serde(default)]
    pub(super) epoch: Option<String>,
}

/// Notification `session.degraded`.
#[derive(Debug, Deserialize)]
pub(super) struct DegradedParams {
    pub(super) parts: Vec<String>,
}

/// Notification `unsubscribed`.
#[derive(Debug, Deserialize)]
pub(super) struct UnsubscribedParams {
    pub(super) sub: u32,
    #[serde(default)]
    pub(super) reason: String,
    /// The session that has taken it over.
    #[serde(default)]
    pub(super) by: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_notifications_are_told_apart() {
        let answer: Incoming<'_> = serde_json::from_str(r#"{"jsonrpc":"2.0","id":7,"result":null}"#).unwrap();
        assert_eq!(answer.id, Some(7));
        assert!(answer.method.is_none());
        assert_eq!(answer.outcome().unwrap().get(), "null");
        let text = r#"{"jsonrpc":"2.0","method":"gap","params":{"sub":1,"from":3,"to":9}}"#;
        let note: Incoming<'_> = serde_json::from_str(text).unwrap();
        assert_eq!(note.method.as_deref(), Some("gap"));
        let gap: GapParams = serde_json::from_str(note.params.unwrap().get()).unwrap();
        assert_eq!((gap.sub, gap.range.from, gap.range.to), (1, 3, 9));
    }

    #[test]
    fn errors_keep_what_the_server_says() {
        let text = r#"{"jsonrpc":"2.0","id":4,"error":{"code":-32009,"message":"conflict",
            "data":{"status":409,"detail":"changed","revision":8,"retry_after_ms":5}}}"#;
        let answer: Incoming<'_> = serde_json::from_str(text).unwrap();
        let error = answer.outcome().unwrap_err();
        assert_eq!((error.code(), error.status(), error.temporary()), (Some(-32009), Some(409), false));
        assert_eq!(error.detail().unwrap(), "changed");
        assert_eq!(error.rpc().unwrap().data.extra["revision"], 8);
        assert_eq!(error.retry_after().unwrap().as_millis(), 5);
    }
}
