//! How fast bytes have to move: somebody slow is waited for as long as they like, somebody who stands still is not.

use std::time::Duration;

use tokio::time::Instant;

/// How often, in the time that bytes may stand still, it is looked whether they do.
const LOOKS: u32 = 12;

/// The slowest that bytes may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long they may stand still.
    pub patience: Duration,
    /// Fewer than so many a second are as good as none.
    pub bytes_per_second: u64,
}

impl Pace {
    /// Bytes that have to move within the patience.
    pub fn least(&self) -> u64 {
        (self.bytes_per_second as f64 * self.patience.as_secs_f64()).ceil().max(1.0) as u64
    }

    /// When to look again.
    pub fn look_after(&self) -> Duration {
        self.patience / LOOKS
    }
}

/// Bytes that are on their way.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// How many had moved, ever, and when.
    moved: u64,
    since: Instant,
}

impl Progress {
    /// From now on they have to move; so many have moved before.
    pub fn begin(moved: u64, now: Instant) -> Progress {
        Progress { moved, since: now }
    }

    /// Whether they have stood still for too long; `moved` counts as in [`Progress::begin`].
    pub fn is_stuck(&mut self, pace: &Pace, moved: u64, now: Instant) -> bool {
        if moved.saturating_sub(self.moved) >= pace.least() {
            *self = Progress::begin(moved, now);
        }
        now.saturating_duration_since(self.since) >= pace.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_moves_slowly_is_waited_for_and_who_stands_still_is_not() {
        let pace = Pace { patience: Duration::from_secs(60), bytes_per_second: 100 };
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut slow = Progress::begin(7, begin);
        assert!((1..1000).all(|look| !slow.is_stuck(&pace, 7 + look * 1000, at(look * 10))));
        let mut dripping = Progress::begin(0, begin);
        assert!((1..12).all(|look| !dripping.is_stuck(&pace, look, at(look * 5))));
        assert!(dripping.is_stuck(&pace, 12, at(60)));
        let mut stops = Progress::begin(0, begin);
        assert!(!stops.is_stuck(&pace, 6000, at(50)));
        assert!(!stops.is_stuck(&pace, 6000, at(109)));
        assert!(stops.is_stuck(&pace, 6000, at(110)));
    }
}
