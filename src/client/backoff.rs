//! How long to wait before the next try: exponential back-off with full jitter.

use std::time::Duration;

const BASE: Duration = Duration::from_millis(100);
const CAP: Duration = Duration::from_secs(10);

/// Counts failed tries. Full jitter (anything between nothing and the bound) spreads a crowd of clients that lost
/// the same server evenly, where equal waits would bring them all back in the same moment.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait, never shorter than what the server asked for.
    pub(super) fn next(&mut self, server_asks: Option<Duration>) -> Duration {
        let bound = BASE.saturating_mul(1 << self.failures.min(16)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        let wait = jitter(bound);
        match server_asks {
            Some(least) => least + wait,
            None => wait,
        }
    }
    /// A connection held: the next failure is the first one again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
    /// How many tries have failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

/// Anything between nothing and `bound`.
pub(super) fn jitter(bound: Duration) -> Duration {
    bound.mul_f64(rand::random_range(0.0..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_under_a_doubling_bound_and_the_cap() {
        for _ in 0..200 {
            let mut backoff = Backoff::default();
            for failure in 0..20 {
                let bound = Duration::from_millis(100 << failure.min(10)).min(CAP);
                assert!(backoff.next(None) <= bound, "failure {failure}");
            }
            assert_eq!(backoff.failures(), 20);
            backoff.reset();
            assert!(backoff.next(None) <= BASE);
        }
    }

    #[test]
    fn the_server_decides_the_least_wait() {
        let asked = Duration::from_secs(30);
        let wait = Backoff::default().next(Some(asked));
        assert!(wait >= asked && wait <= asked + BASE);
    }
}
