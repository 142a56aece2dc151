//! The time that ages are measured by: leases, idle consumers, idempotency keys.

use std::time::Instant;

use crate::model::Timestamp;
use crate::model::timestamp::WallClock;

/// The wall clock as it was when the process began, and what has passed since: when somebody sets the machine's clock,
/// no lease ends early or lasts for a day, and nothing is taken for old. Events and nodes carry the wall clock's time.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    began: Timestamp,
    at: Instant,
    /// The wall clock.
    pub(super) wall: WallClock,
}

impl Clock {
    /// Begins now.
    pub(super) fn start(wall: WallClock) -> Clock {
        Clock { began: Timestamp::now(), at: Instant::now(), wall }
    }
    /// Never goes back.
    pub(super) fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.at.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.began.millis().saturating_add(passed))
    }
}
