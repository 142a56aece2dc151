//! When a session has to act without being asked: hello, ping and pong, progress, the end of its token.

use std::time::Duration;

use tokio::time::Instant;

use super::handle::Handle;

use super::limits::EXPIRY_NOTICE;
use crate::model::Timestamp;

const NOTICE_MS: i64 = EXPIRY_NOTICE.as_millis() as i64;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// No hello came in time.
    NoHello,
    /// Two pings went unanswered.
    NoPong,
    /// Time to ping, and to tell how far subscriptions are.
    Ping,
    /// The token will end soon: in so many milliseconds.
    Expiring(i64),
    /// The token has ended.
    Expired,
}

/// The deadlines of one session.
pub(super) struct Timers {
    hello: Option<Instant>,
    interval: Duration,
    ping: Instant,
    /// Pings since something was heard. Counted, not timed: a server that stood still has heard nobody for a while.
    unanswered: u8,
    /// The end of token that the client has been warned of.
    warned: Option<Timestamp>,
}

impl Timers {
    pub(super) fn new(hello_timeout: Duration, interval: Duration) -> Timers {
        let now = Instant::now();
        // Sessions that arrive together after a restart shall not ping together ever after.
        let first = interval.mul_f64(rand::random_range(0.5..1.0));
        Timers { hello: Some(now + hello_timeout), interval, ping: now + first, unanswered: 0, warned: None }
    }

    /// Something came from the peer.
    pub(super) fn heard(&mut self) {
        self.unanswered = 0;
    }

    /// When [`Timers::due`] has to be asked next.
    pub(super) fn next(&mut self, handle: &Handle) -> Instant {
        if handle.has_said_hello() {
            self.hello = None;
        }
        let mut next = self.ping;
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
    pub(super) fn due(&mut self, handle: &Handle) -> Option<Due> {
        let now = Instant::now();
        if self.hello.is_some_and(|hello| now >= hello) && !handle.has_said_hello() {
            return Some(Due::NoHello);
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
            if self.unanswered >= 2 {
                return Some(Due::NoPong);
            }
            self.unanswered += 1;
            self.ping = now + self.interval;
            return Some(Due::Ping);
        }
        None
    }
}
