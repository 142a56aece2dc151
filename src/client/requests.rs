//! Requests that wait to be sent and requests that wait for their answer.

use std::collections::{BTreeMap, VecDeque};

use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::error::{Error, Result};
use super::wire;

/// A request that was sent so often and lost its connection every time is taken to be what kills the connection.
const MAX_SENDS: u32 = 5;

/// A request of somebody who uses the client.
pub(super) struct Call {
    pub(super) method: String,
    pub(super) params: Box<RawValue>,
    /// Whether it may be carried out twice without harm.
    pub(super) repeatable: bool,
    pub(super) reply: oneshot::Sender<Result<Box<RawValue>>>,
}

/// For whom an answer is.
pub(super) enum Purpose {
    /// Somebody who waits.
    Call { reply: oneshot::Sender<Result<Box<RawValue>>>, repeatable: bool },
    /// `event.subscribe` of this feed.
    Open(u32),
    /// `event.unsubscribe` of this feed.
    Leave(u32),
    /// `event.ack` of this feed, up to this number.
    Ack(u32, u64),
    /// `user.login` for fresh credentials.
    Login,
    /// `session.refresh` with them.
    Refresh,
}

struct Request {
    id: u64,
    frame: Utf8Bytes,
    purpose: Purpose,
    sends: u32,
}

/// Both queues. Together they hold at most the server's limit of requests in flight, plus one request of its own
/// for each subscription.
pub(super) struct Requests {
    last_id: u64,
    backlog: VecDeque<Request>,
    pending: BTreeMap<u64, Request>,
    in_flight: usize,
    message: usize,
}

impl Requests {
    pub(super) fn new() -> Self {
        // Ids up to 9 belong to the handshake.
        Requests { last_id: 9, backlog: VecDeque::new(), pending: BTreeMap::new(), in_flight: 1, message: 0 }
    }
    /// What the server of the present session accepts.
    pub(super) fn set_limits(&mut self, limits: super::Limits) {
        self.in_flight = limits.inflight.max(1);
        self.message = limits.message;
    }
    /// Whether another caller's request may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.backlog.is_empty() && self.pending.len() < self.in_flight
    }
    /// Whether every request that was sent has its answer.
    pub(super) fn all_answered(&self) -> bool {
        self.pending.is_empty()
    }
    /// Takes a caller's request; one that is too large is refused at once, since it would cost the connection.
    pub(super) fn call(&mut self, call: Call) {
        let frame = self.frame(&call.method, &call.params);
        if self.message > 0 && frame.len() > self.message {
            let _ = call.reply.send(Err(Error::TooLarge { size: frame.len(), limit: self.message }));
            return;
        }
        self.push(frame, Purpose::Call { reply: call.reply, repeatable: call.repeatable });
    }
    /// Queues a request of the client's own.
    pub(super) fn own(&mut self, method: &str, params: &serde_json::Value, purpose: Purpose) {
        if let Ok(params) = serde_json::value::to_raw_value(params) {
            let frame = self.frame(method, &params);
            self.push(frame, purpose);
        }
    }
    fn frame(&mut self, method: &str, params: &RawValue) -> Utf8Bytes {
        self.last_id += 1;
        wire::request(self.last_id, method, params)
    }
    fn push(&mut self, frame: Utf8Bytes, purpose: Purpose) {
        self.backlog.push_back(Request { id: self.last_id, frame, purpose, sends: 0 });
    }
    /// The next frame to send, if the server's limit allows one.
    pub(super) fn next_frame(&mut self) -> Option<Utf8Bytes> {
        while self.pending.len() < self.in_flight {
            let mut request = self.backlog.pop_front()?;
            if let Purpose::Call { reply, .. } = &request.purpose
                && reply.is_closed()
            {
                continue;
            }
            request.sends += 1;
            let frame = request.frame.clone();
            self.pending.insert(request.id, request);
            return Some(frame);
        }
        None
    }
    /// For whom the answer with this id is.
    pub(super) fn answered(&mut self, id: u64) -> Option<Purpose> {
        self.pending.remove(&id).map(|request| request.purpose)
    }
    /// The connection is lost. What may be repeated will be sent again, in the old order; who asked for something
    /// else learns that its outcome is unknown. The client's own requests belong to a session and end with it.
    pub(super) fn connection_lost(&mut self) {
        let sent = std::mem::take(&mut self.pending).into_values();
        let unsent = std::mem::take(&mut self.backlog);
        for request in sent.chain(unsent) {
            let Purpose::Call { repeatable, .. } = &request.purpose else { continue };
            if request.sends == 0 || (*repeatable && request.sends < MAX_SENDS) {
                self.backlog.push_back(request);
            } else if let Purpose::Call { reply, .. } = request.purpose {
                let _ = reply.send(Err(Error::Disconnected));
            }
        }
    }
    /// The client ends.
    pub(super) fn fail_all(&mut self, reason: &str) {
        let sent = std::mem::take(&mut self.pending).into_values();
        for request in sent.chain(std::mem::take(&mut self.backlog)) {
            if let Purpose::Call { reply, .. } = request.purpose {
                let unknown = request.sends > 0;
                let error = if unknown { Error::Disconnected } else { Error::Closed(reason.to_owned()) };
                let _ = reply.send(Err(error));
            }
        }
    }
}
