//! The time that ages are measured by: leases, idle consumers, idempotency keys.

use std::time::Instant;

use crate::model::Timestamp;
use crate::model::timestamp::WallClock;

/// The wall clock as it was when the process began, and what has passed since: when somebody sets the machine's clock,
/// no lease ends early or lasts for a day, and nothing is taken for old. Where an earlier process was further, because the
/// clock was set back while none ran, it goes on from there. Events and nodes carry the wall clock's time.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    began: Timestamp,
    at: Instant,
    /// The wall clock.
    pub(super) wall: WallClock,
}

impl Clock {
    /// Begins now, but not before the latest time that an earlier process has noted. (If that is more than a day ahead, the
    /// clock was wrong then.)
    pub(super) fn start(wall: WallClock, noted: Option<Timestamp>) -> Clock {
        let now = wall.now().to_millis();
        let noted = noted.filter(|noted| *noted <= now.plus_seconds(24 * 3600));
        Clock { began: noted.map_or(now, |noted| noted.max(now)), at: Instant::now(), wall }
    }
    /// Never goes back.
    pub(super) fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.at.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.began.millis().saturating_add(passed))
    }
}
