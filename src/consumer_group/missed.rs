//! What a group has missed: events that can no longer be read.

use serde::{Deserialize, Serialize};

/// Ranges that are remembered one by one: as many as events can be kept.
const MOST: usize = super::state::MOST_KEPT;

/// The last ranges, so that every instance can tell its members those that it has not told yet. How many there were in all
/// is counted beside it, and says which those are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Missed {
    /// The last ones (first and last number), oldest first.
    recent: Vec<(u64, u64)>,
    /// What all before them lies within.
    older: Option<(u64, u64)>,
    /// So many have been told to members on some instance.
    told: Option<u64>,
}

impl Missed {
    pub(super) fn add(&mut self, range: (u64, u64)) {
        self.recent.push(range);
        if self.recent.len() > MOST {
            let oldest = self.recent.remove(0);
            let (from, to) = self.older.unwrap_or(oldest);
            self.older = Some((from.min(oldest.0), to.max(oldest.1)));
        }
    }

    /// The last `count` of them. If that is more than are remembered, the first range has what came before.
    pub(super) fn last(&self, count: u64) -> Vec<(u64, u64)> {
        let remembered = self.recent.len().min(usize::try_from(count).unwrap_or(usize::MAX));
        let older = self.older.filter(|_| count > self.recent.len() as u64);
        older.into_iter().chain(self.recent[self.recent.len() - remembered..].iter().copied()).collect()
    }

    /// How many of `all` have been told.
    pub(super) fn told(&self, all: u64) -> u64 {
        // An older version counted them only.
        self.told.unwrap_or(all).min(all)
    }

    pub(super) fn tell(&mut self, count: u64) {
        self.told = Some(self.told.unwrap_or(0).max(count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_remembered_and_of_too_many_where_they_lay() {
        let mut missed = Missed::default();
        for n in 0..MOST as u64 + 10 {
            missed.add((2 * n, 2 * n));
        }
        assert_eq!(
            missed.last(2),
            [(2 * MOST as u64 + 16, 2 * MOST as u64 + 16), (2 * MOST as u64 + 18, 2 * MOST as u64 + 18)]
        );
        assert_eq!(missed.last(MOST as u64).len(), MOST);
        let all = missed.last(MOST as u64 + 10);
        assert_eq!((all.len(), all[0], all[1]), (MOST + 1, (0, 18), (20, 20)));
        assert!(missed.last(0).is_empty());
    }
}
