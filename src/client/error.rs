//! What can go wrong with a request, as its caller needs to know it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The result of a request.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with an error.
    #[error("{0}")]
    Rpc(Box<RpcError>),
    /// The connection was lost after the request went out: it may or may not have been carried out. Requests that
    /// may be repeated safely do not end like this, they are repeated.
    #[error(
        "the connection was lost before the answer came; whether the request was carried out is not known"
    )]
    Disconnected,
    /// The client has ended for good (closed, or the server refuses it); the request was not carried out.
    #[error("not connected: {0}")]
    Closed(String),
    /// The server could not be reached, or it does not speak this protocol.
    #[error("cannot connect to {url}: {reason}")]
    Connect {
        /// Where.
        url: String,
        /// Why not.
        reason: String,
        /// How long the server asks to wait before the next try.
        retry_after_ms: Option<u64>,
    },
    /// The request is larger than what the server accepts in one message; it was not sent.
    #[error("the request has {size} bytes, the server accepts {limit} in one message")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The server's limit in bytes.
        limit: usize,
    },
    /// Parameters that are not JSON, or an answer that is not what was expected.
    #[error("{0}")]
    Protocol(String),
}

/// The `error` member of a JSON-RPC answer.
#[derive(Clone, Debug, Deserialize)]
pub struct RpcError {
    /// JSON-RPC code.
    pub code: i64,
    /// Name of the error.
    #[serde(default)]
    pub message: String,
    /// Further facts, see [`ErrorData`].
    #[serde(default)]
    pub data: ErrorData,
}

/// The `data` of an error.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ErrorData {
    /// The HTTP status that REST would answer with; 0 if the server does not say.
    #[serde(default)]
    pub status: u16,
    /// What to tell a human: a sentence, or a list of items for invalid parameters.
    #[serde(default)]
    pub detail: Value,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub temporary: bool,
    /// When it may.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
    /// What else the server says, e.g. the current `revision` of a conflict.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl std::fmt::Display for RpcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.data.detail, self.data.status) {
            (Value::Null, _) => write!(f, "{} ({})", self.message, self.code),
            (Value::String(text), 0) => write!(f, "{} ({}): {text}", self.message, self.code),
            (Value::String(text), status) => write!(f, "{status} {}: {text}", self.message),
            (other, status) => write!(f, "{status} {}: {other}", self.message),
        }
    }
}

impl Error {
    /// The server's error, if that is what it is.
    pub fn rpc(&self) -> Option<&RpcError> {
        match self {
            Error::Rpc(error) => Some(error),
            _ => None,
        }
    }
    /// JSON-RPC code of the server's error.
    pub fn code(&self) -> Option<i64> {
        self.rpc().map(|error| error.code)
    }
    /// HTTP status of the server's error.
    pub fn status(&self) -> Option<u16> {
        self.rpc().map(|error| error.data.status).filter(|status| *status != 0)
    }
    /// What the server says about it.
    pub fn detail(&self) -> Option<&Value> {
        self.rpc().map(|error| &error.data.detail)
    }
    /// Whether the same request may succeed later.
    pub fn temporary(&self) -> bool {
        match self {
            Error::Rpc(error) => error.data.temporary,
            Error::Disconnected | Error::Connect { .. } => true,
            Error::Closed(_) | Error::TooLarge { .. } | Error::Protocol(_) => false,
        }
    }
    /// How long the server asks to wait before another try.
    pub fn retry_after(&self) -> Option<Duration> {
        let ms = match self {
            Error::Rpc(error) => error.data.retry_after_ms,
            Error::Connect { retry_after_ms, .. } => *retry_after_ms,
            _ => None,
        };
        ms.map(Duration::from_millis)
    }
}

impl From<RpcError> for Error {
    fn from(error: RpcError) -> Self {
        Error::Rpc(Box::new(error))
    }
}
