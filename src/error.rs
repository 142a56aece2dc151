//! One error type and its faces: HTTP status and body, JSON-RPC code and data.
//!
//! Every operation, store and log returns [`Error`]. What the caller may read is in `detail`; what only the log
//! may read is in `cause`, which is written once, where the error leaves the server, and never sent.
//! (`anyhow` serves the command line, where an error's reader is the person who typed the command.)

use std::sync::Arc;

use serde_json::{Map, Value, json};

/// The result of everything that can be asked over the network.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a row of the table in [`Kind::row`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The text is not JSON.
    Parse,
    /// JSON, but not a JSON-RPC request.
    InvalidRequest,
    /// No operation has this name.
    UnknownMethod,
    /// A parameter is missing, unknown or of the wrong type.
    InvalidParams,
    /// The request is well formed and says something that cannot be.
    BadRequest,
    /// No credentials, bad credentials, or not allowed on this node (KernelCI says 401 there too).
    Unauthorized,
    /// Known user without the needed right.
    Forbidden,
    /// No such thing.
    NotFound,
    /// The operation does not exist on this transport or path.
    NotAllowed,
    /// Somebody else changed it first, or it stands against what is there already.
    Conflict,
    /// The request or its result is larger than the limit.
    TooLarge,
    /// The caller asks too much at once.
    TooMany,
    /// A bug or a broken part; the cause is in the log.
    Internal,
    /// The store or the log is away; try again.
    Unavailable,
    /// The query took longer than its budget.
    Timeout,
}

/// One row of the error table: how a [`Kind`] looks on each transport.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// HTTP status of the REST answer and `data.status` of the JSON-RPC error.
    pub status: u16,
    /// JSON-RPC `code`.
    pub code: i32,
    /// JSON-RPC `message`: the name of the row.
    pub message: &'static str,
    /// Whether the same request may succeed later.
    pub temporary: bool,
}

impl Kind {
    /// All kinds, in the order in which the documentation shows them.
    pub const ALL: [Kind; 15] = [
        Kind::Parse,
        Kind::InvalidRequest,
        Kind::UnknownMethod,
        Kind::InvalidParams,
        Kind::BadRequest,
        Kind::Unauthorized,
        Kind::Forbidden,
        Kind::NotFound,
        Kind::NotAllowed,
        Kind::Conflict,
        Kind::TooLarge,
        Kind::TooMany,
        Kind::Internal,
        Kind::Unavailable,
        Kind::Timeout,
    ];

    /// The table. Protocol faults have JSON-RPC's own codes; applications' errors have
    /// `-(32000 + status - 400)` for 400 to 499 and -32099 for the rest.
    pub const fn row(self) -> Row {
        const fn row(status: u16, code: i32, message: &'static str, temporary: bool) -> Row {
            Row { status, code, message, temporary }
        }
        match self {
            Kind::Parse => row(422, -32700, "parse error", false),
            Kind::InvalidRequest => row(400, -32600, "invalid request", false),
            Kind::UnknownMethod => row(404, -32601, "method not found", false),
            Kind::InvalidParams => row(422, -32602, "invalid params", false),
            Kind::BadRequest => row(400, -32000, "bad request", false),
            Kind::Unauthorized => row(401, -32001, "unauthorized", false),
            Kind::Forbidden => row(403, -32003, "forbidden", false),
            Kind::NotFound => row(404, -32004, "not found", false),
            Kind::NotAllowed => row(405, -32005, "method not allowed", false),
            Kind::Conflict => row(409, -32009, "conflict", false),
            Kind::TooLarge => row(413, -32013, "too large", false),
            Kind::TooMany => row(429, -32029, "too many requests", true),
            Kind::Internal => row(500, -32099, "internal error", false),
            Kind::Unavailable => row(503, -32099, "unavailable", true),
            Kind::Timeout => row(504, -32099, "timeout", true),
        }
    }
}

/// An error with what its receiver may read (`detail`) and what only the log may (`cause`).
///
/// A copy goes to each of those who have waited for the same thing.
#[derive(Clone, Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    kind: Kind,
    detail: Value,
    extra: Map<String, Value>,
    retry_after_ms: Option<u64>,
    cause: Option<Arc<anyhow::Error>>,
}

impl Error {
    /// An error of `kind` whose `detail` the receiver reads.
    pub fn new(kind: Kind, detail: impl Into<Value>) -> Self {
        let inner =
            Inner { kind, detail: detail.into(), extra: Map::new(), retry_after_ms: None, cause: None };
        Error { inner: Box::new(inner) }
    }
    /// 400: well formed, but it says something that cannot be.
    pub fn bad_request(detail: impl Into<Value>) -> Self {
        Error::new(Kind::BadRequest, detail)
    }
    /// 422: parameter `field` is not what was `expected`; both are named in the detail.
    pub fn invalid(field: impl std::fmt::Display, expected: impl std::fmt::Display) -> Self {
        Error::new(Kind::InvalidParams, format!("{field}: {expected}"))
    }
    /// 404 with a sentence.
    pub fn not_found(detail: impl Into<Value>) -> Self {
        Error::new(Kind::NotFound, detail)
    }
    /// 401 without a word about why, as KernelCI answers.
    pub fn unauthorized() -> Self {
        Error::new(Kind::Unauthorized, "Unauthorized")
    }
    /// 403.
    pub fn forbidden() -> Self {
        Error::new(Kind::Forbidden, "Forbidden")
    }
    /// 409 because the node stands at `current` and not at the revision that the caller expected.
    pub fn revision_conflict(current: u64) -> Self {
        Error::new(Kind::Conflict, format!("revision conflict: the node is at revision {current}"))
            .with("revision", current)
    }
    /// 500; the cause goes to the log and the receiver learns nothing of it.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Error::new(Kind::Internal, "Internal server error, check container logs").because(cause)
    }
    /// 503: `part` ("store", "log") cannot be reached now.
    pub fn unavailable(part: &str, cause: impl Into<anyhow::Error>) -> Self {
        Error::away(part).because(cause)
    }
    /// 503: `part` ("writes" is one, too) has not been reachable for a while, as everybody knows.
    pub fn away(part: &str) -> Self {
        let detail = match part {
            "writes" => "nothing can be written now, try again".to_owned(),
            part => format!("the {part} is not reachable, try again"),
        };
        Error::new(Kind::Unavailable, detail).retry_after(1000)
    }
    /// Attaches the cause that the log shows.
    pub fn because(mut self, cause: impl Into<anyhow::Error>) -> Self {
        self.inner.cause = Some(Arc::new(cause.into()));
        self
    }
    /// Adds a member to the JSON-RPC `data` (e.g. the current revision of a conflict).
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.inner.extra.insert(key.to_owned(), value.into());
        self
    }
    /// Tells the caller after how many milliseconds another try makes sense.
    pub fn retry_after(mut self, ms: u64) -> Self {
        self.inner.retry_after_ms = Some(ms);
        self
    }
    /// After how many milliseconds another try makes sense, if that was said.
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.inner.retry_after_ms
    }
    /// The row of the table that this error is.
    pub fn kind(&self) -> Kind {
        self.inner.kind
    }
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.inner.kind.row().status
    }
    /// What the receiver reads: usually a sentence; for REST's 422 a list of items.
    pub fn detail(&self) -> &Value {
        &self.inner.detail
    }
    /// The cause, for the log.
    pub fn cause(&self) -> Option<&anyhow::Error> {
        self.inner.cause.as_deref()
    }
    /// Writes to the log what its readers must know: what went wrong on our side, with the cause. Called once, where
    /// the error leaves the server. (A place in the code for each level: lines that repeat are braked by place.)
    pub fn log(&self, operation: &str) {
        match self.kind() {
            Kind::Internal => tracing::error!(operation, error = %self, "request failed"),
            // A part that has just gone. Once it counts as away that is said once, and requests fail without a cause.
            Kind::Unavailable if self.inner.cause.is_some() => {
                tracing::warn!(operation, error = %self, "request failed: a part of the server is not reachable");
            }
            Kind::Timeout => tracing::warn!(operation, error = %self, "request failed: it took too long"),
            // The client's doing, or nothing is broken: a queue that is empty, a server that drains.
            _ => tracing::debug!(operation, error = %self, "request refused"),
        }
    }
    /// The `error` member of a JSON-RPC answer.
    pub fn to_rpc(&self) -> Value {
        let row = self.inner.kind.row();
        let mut data = Map::new();
        data.insert("status".into(), row.status.into());
        data.insert("detail".into(), self.inner.detail.clone());
        data.insert("temporary".into(), row.temporary.into());
        if let Some(ms) = self.inner.retry_after_ms {
            data.insert("retry_after_ms".into(), ms.into());
        }
        data.extend(self.inner.extra.clone());
        json!({"code": row.code, "message": row.message, "data": data})
    }
    /// The body of a REST answer: `{"detail": …}`, but `{"message": …}` for 500, as KernelCI answers.
    pub fn to_rest(&self) -> Value {
        match self.inner.kind {
            Kind::Internal => json!({"message": self.inner.detail}),
            _ => json!({"detail": self.inner.detail}),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let row = self.inner.kind.row();
        match &self.inner.detail {
            Value::String(text) => write!(f, "{} {}: {text}", row.status, row.message)?,
            other => write!(f, "{} {}: {other}", row.status, row.message)?,
        }
        match &self.inner.cause {
            Some(cause) => write!(f, " ({cause:#})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
