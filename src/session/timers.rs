//! When a session has to act without being asked: hello, ping and pong, bytes that stand still, the end of its token.
//!
//! Bytes that move are life. While some wait to go out, or a message is half there, it is they that tell whether the peer
//! is there: a ping would stand behind what waits, and its answer behind the rest of the message.

use std::time::Duration;

use tokio::time::Instant;

use super::handle::Handle;

use super::limits::EXPIRY_NOTICE;
use crate::config::Config;
use crate::http::PROBATION;
use crate::model::Timestamp;
use crate::quota::{Pace, Progress};

const NOTICE_MS: i64 = EXPIRY_NOTICE.as_millis() as i64;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// No hello came in time.
    NoHello,
    /// Two pings went unanswered.
    NoPong,
    /// What waits to go out does not leave.
    Stuck,
    /// A message has begun and does not go on.
    HalfMessage,
    /// Time to ping (if nothing waits), and to tell how far subscriptions are.
    Ping,
    /// The token will end soon: in so many milliseconds.
    Expiring(i64),
    /// The token has ended.
    Expired,
}

/// What is under way on the socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    /// Something waits to go out.
    pub(super) waits: bool,
    /// Bytes that went out, ever.
    pub(super) written: u64,
    /// The session takes what comes in.
    pub(super) reads: bool,
    /// Its credentials are being looked at.
    pub(super) greets: bool,
    /// A message has begun and not ended.
    pub(super) is_partial: bool,
    /// Bytes of messages that came in, ever.
    pub(super) arrived: u64,
}

/// How patient sessions are. Each is handed it when it looks at the clock: ten thousand copies would say the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a hello.
    pub(super) hello: Duration,
    /// Between two pings.
    pub(super) ping: Duration,
    /// For what goes out.
    pub(super) outgoing: Pace,
    /// For the rest of a message.
    pub(super) incoming: Pace,
}

impl Patience {
    pub(super) fn of(config: &Config) -> Patience {
        Patience {
            hello: Duration::from_millis(config.hello_timeout_ms),
            ping: config.ping_interval(),
            outgoing: config.quotas.outgoing(),
            incoming: config.quotas.incoming(),
        }
    }
}

/// Pings since something was heard. Counted, not timed: a server that stood still has heard nobody for a while.
#[derive(Debug, Default)]
pub(crate) struct Unanswered(u8);

impl Unanswered {
    /// Something came from the peer.
    pub(crate) fn heard(&mut self) {
        self.0 = 0;
    }

    /// It is time for another ping. False: the peer is given up, as two went unanswered. `busy`: bytes are on their way, and
    /// it is they that tell.
    pub(crate) fn ping(&mut self, busy: bool) -> bool {
        if busy {
            self.0 = 0;
            return true;
        }
        self.0 += 1;
        self.0 <= 2
    }
}

/// The deadlines of one session.
pub(super) struct Timers {
    hello: Option<Instant>,
    ping: Instant,
    pings: Unanswered,
    /// What waits to go out, if something does.
    outgoing: Option<Progress>,
    /// The message that comes in, if one does.
    incoming: Option<Progress>,
    /// The end of token that the client has been warned of.
    warned: Option<Timestamp>,
}

impl Timers {
    /// `on_probation`: the session has to say soon whose it is.
    pub(super) fn new(patience: &Patience, on_probation: bool) -> Timers {
        let now = Instant::now();
        let hello = if on_probation { patience.hello.min(PROBATION) } else { patience.hello };
        // Sessions that arrive together after a restart shall not ping together ever after.
        let first = patience.ping.mul_f64(rand::random_range(0.5..1.0));
        Timers {
            hello: Some(now + hello),
            ping: now + first,
            pings: Unanswered::default(),
            outgoing: None,
            incoming: None,
            warned: None,
        }
    }

    /// Something came from the peer.
    pub(super) fn heard(&mut self) {
        self.pings.heard();
    }

    /// Looks at what is under way. True if there is a new deadline.
    pub(super) fn watch(&mut self, traffic: &Traffic) -> bool {
        let incoming = traffic.is_partial && traffic.reads;
        let begins = watch(&mut self.outgoing, traffic.waits, traffic.written);
        watch(&mut self.incoming, incoming, traffic.arrived) || begins
    }

    /// When [`Timers::due`] has to be asked next.
    pub(super) fn next(&mut self, handle: &Handle, patience: &Patience) -> Instant {
        if handle.has_said_hello() {
            self.hello = None;
        }
        let mut next = self.ping;
        for (watched, pace) in [(&self.outgoing, patience.outgoing), (&self.incoming, patience.incoming)] {
            if watched.is_some() {
                next = next.min(Instant::now() + pace.look_after());
            }
        }
        if let Some(hello) = self.hello {
            next = next.min(hello);
        }
        if let Some(end) = handle.expires() {
            let at = if self.warned == Some(end) { 0 } else { NOTICE_MS };
            let in_ms = (end.millis() - Timestamp::now().millis() - at).max(0) as u64;
            // A token may end years from now; tokio's clock does not reach that far.
            next = next.min(Instant::now() + Duration::from_millis(in_ms.min(3_600_000)));
        }
        next
    }

    /// What is due now, one thing at a time.
    pub(super) fn due(&mut self, handle: &Handle, traffic: &Traffic, patience: &Patience) -> Option<Due> {
        let now = Instant::now();
        // One that is being looked at came in time.
        if self.hello.is_some_and(|hello| now >= hello) && !handle.has_said_hello() && !traffic.greets {
            return Some(Due::NoHello);
        }
        if self
            .outgoing
            .as_mut()
            .is_some_and(|bytes| bytes.is_stuck(&patience.outgoing, traffic.written, now))
        {
            return Some(Due::Stuck);
        }
        if self
            .incoming
            .as_mut()
            .is_some_and(|bytes| bytes.is_stuck(&patience.incoming, traffic.arrived, now))
        {
            return Some(Due::HalfMessage);
        }
        if let Some(end) = handle.expires() {
            let left = end.millis() - Timestamp::now().millis();
            if left <= 0 {
                return Some(Due::Expired);
            }
            if self.warned != Some(end) && left <= NOTICE_MS {
                self.warned = Some(end);
                return Some(Due::Expiring(left));
            }
        }
        if now >= self.ping {
            if !self.pings.ping(traffic.waits || traffic.is_partial || !traffic.reads) {
                return Some(Due::NoPong);
            }
            self.ping = now + patience.ping;
            return Some(Due::Ping);
        }
        None
    }
}

/// True if it begins to be watched.
fn watch(progress: &mut Option<Progress>, moves: bool, bytes: u64) -> bool {
    match (&progress, moves) {
        (None, true) => {
            *progress = Some(Progress::begin(bytes, Instant::now()));
            true
        }
        (Some(_), false) => {
            *progress = None;
            false
        }
        _ => false,
    }
}
