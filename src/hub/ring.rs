//! The newest events of a channel in memory, and what all channels may keep together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::event_log::Read;
use crate::model::event::Entry;
use crate::model::footprint::{self, Account};

const MOST_EVENTS: usize = 8192;
/// The part of the budget that one ring may have.
const PART: usize = 4;

/// What all rings of an instance may keep: events with all that is made of them.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: usize,
    kept: Arc<AtomicUsize>,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Budget {
        Budget { bytes, kept: Arc::default() }
    }

    /// How many bytes all rings keep.
    pub(super) fn kept(&self) -> usize {
        footprint::read(&self.kept)
    }

    /// How many are too many. It is more than there need be, so that there is some peace afterwards.
    pub(super) fn excess(&self) -> Option<usize> {
        let kept = self.kept();
        (kept > self.bytes).then(|| kept - (self.bytes - self.bytes / 16))
    }
}

/// Consecutive events up to the head.
pub(super) struct Ring {
    epoch: Arc<str>,
    head: u64,
    /// Ends with `head`, if it is not empty.
    entries: VecDeque<Arc<Entry>>,
    /// What they take: readers make more of them at any time.
    account: Arc<Account>,
    /// How much that may be.
    most: usize,
}

impl Ring {
    /// Nothing yet; the next event is `head + 1`.
    pub(super) fn new(epoch: Arc<str>, head: u64, budget: &Budget) -> Ring {
        let account = Account::part_of(&budget.kept);
        Ring { epoch, head, entries: VecDeque::new(), account, most: budget.bytes / PART }
    }

    pub(super) fn epoch(&self) -> Arc<str> {
        self.epoch.clone()
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// How many bytes it keeps, at any time.
    pub(super) fn account(&self) -> Arc<Account> {
        self.account.clone()
    }

    /// Takes what a tail has read. False if that was nothing.
    pub(super) fn advance(&mut self, read: Read) -> bool {
        let new_epoch = read.epoch != self.epoch;
        if new_epoch || read.gap.is_some() {
            // What is here no longer joins up with what comes: readers go to the log, which tells them their gap.
            self.clear();
        }
        if new_epoch {
            self.epoch = read.epoch;
        }
        if let Some((_, to)) = read.gap {
            self.head = self.head.max(to);
        }
        let moved = new_epoch || read.gap.is_some() || !read.entries.is_empty();
        for entry in read.entries {
            self.head = entry.seq;
            entry.keep(&self.account);
            self.entries.push_back(entry);
        }
        while self.entries.len() > MOST_EVENTS || self.account.bytes() > self.most {
            if !self.drop_oldest() {
                break;
            }
        }
        moved
    }

    /// Keeps so many bytes less, if it has them.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let aim = self.account.bytes().saturating_sub(bytes);
        while self.account.bytes() > aim && self.drop_oldest() {}
    }

    fn drop_oldest(&mut self) -> bool {
        self.entries.pop_front().inspect(|oldest| oldest.let_go()).is_some()
    }

    fn clear(&mut self) {
        while self.drop_oldest() {}
    }

    /// Events after `seq`; `None` if the ring does not reach back that far.
    pub(super) fn read_after(&self, seq: u64, limit: usize) -> Option<Read> {
        let empty = || Read { epoch: self.epoch.clone(), gap: None, entries: Vec::new() };
        if seq >= self.head {
            return Some(empty());
        }
        let first = self.entries.front()?.seq;
        let skip = (seq + 1).checked_sub(first)?;
        let entries = self.entries.iter().skip(skip as usize).take(limit).cloned().collect();
        Some(Read { entries, ..empty() })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    fn read(epoch: &str, gap: Option<(u64, u64)>, seqs: std::ops::RangeInclusive<u64>) -> Read {
        let entries = seqs.map(|seq| Arc::new(Entry::new(seq, "{}"))).collect();
        Read { epoch: epoch.into(), gap, entries }
    }
    fn seqs(read: Option<Read>) -> Option<Vec<u64>> {
        Some(read?.entries.iter().map(|entry| entry.seq).collect())
    }

    #[test]
    fn readers_get_what_follows_their_position_or_are_sent_to_the_log() {
        let budget = Budget::new(64 * MB);
        let mut ring = Ring::new("a".into(), 10, &budget);
        assert_eq!(seqs(ring.read_after(10, 9)), Some(vec![]));
        assert_eq!(seqs(ring.read_after(9, 9)), None, "older than the ring");
        assert!(ring.advance(read("a", None, 11..=14)));
        assert_eq!(seqs(ring.read_after(10, 9)), Some(vec![11, 12, 13, 14]));
        assert_eq!(seqs(ring.read_after(12, 1)), Some(vec![13]));
        assert_eq!(seqs(ring.read_after(14, 9)), Some(vec![]));
        assert_eq!(seqs(ring.read_after(99, 9)), Some(vec![]), "ahead of this instance");
        assert!(ring.advance(read("a", Some((15, 20)), 21..=22)));
        assert_eq!(seqs(ring.read_after(14, 9)), None, "the log tells the gap");
        assert_eq!(seqs(ring.read_after(20, 9)), Some(vec![21, 22]));
        assert!(ring.advance(read("b", None, 23..=23)));
        assert_eq!(&*ring.epoch(), "b");
        assert_eq!(seqs(ring.read_after(22, 9)), Some(vec![23]));
    }

    #[test]
    fn the_ring_is_bounded() {
        let budget = Budget::new(64 * MB);
        let mut ring = Ring::new("a".into(), 0, &budget);
        let many = MOST_EVENTS as u64 + 100;
        ring.advance(read("a", None, 1..=many));
        assert_eq!(ring.entries.len(), MOST_EVENTS);
        assert_eq!(seqs(ring.read_after(99, 1)), None);
        assert_eq!(seqs(ring.read_after(100, 1)), Some(vec![101]));
        assert!(budget.kept() > MOST_EVENTS * size_of::<Entry>());
        drop(ring);
        assert_eq!(budget.kept(), 0);
    }

    /// An event whose text is short and whose value is not.
    fn wide(seq: u64) -> Arc<Entry> {
        let members: Vec<String> = (0..129).map(|n| format!("\"k{n}\":{n}")).collect();
        Arc::new(Entry::new(seq, &format!("{{\"data\":{{{}}}}}", members.join(","))))
    }

    #[test]
    fn what_readers_make_of_events_counts() {
        let budget = Budget::new(64 * MB);
        let mut ring = Ring::new("a".into(), 0, &budget);
        let entries: Vec<_> = (1..=1000).map(wide).collect();
        ring.advance(Read { epoch: "a".into(), gap: None, entries: entries.clone() });
        assert_eq!(ring.entries.len(), 1000);
        let text = budget.kept();
        entries.iter().for_each(|entry| _ = entry.value());
        assert!(budget.kept() > 8 * text, "{} of {text}", budget.kept());
        assert!(budget.excess().is_none() && budget.kept() > budget.bytes / PART);
        ring.advance(read("a", None, 1001..=1001));
        assert!(budget.kept() <= budget.bytes / PART, "{}", budget.kept());
        assert!((10..1000).contains(&ring.entries.len()), "{}", ring.entries.len());
        let before = ring.account().bytes();
        ring.shrink(MB);
        assert!(ring.account().bytes() <= before - MB && !ring.entries.is_empty());
        entries.iter().for_each(|entry| _ = entry.frame(1, || vec![0; 1000].into()));
        ring.shrink(usize::MAX);
        assert_eq!(
            (budget.kept(), ring.entries.is_empty()),
            (0, true),
            "those who still use them keep them themselves"
        );
    }

    #[test]
    fn all_rings_have_one_budget() {
        let budget = Budget::new(8 * MB);
        let fill = |ring: &mut Ring| {
            let entries: Vec<_> = (1..=90).map(wide).collect();
            entries.iter().for_each(|entry| _ = entry.value());
            ring.advance(Read { epoch: "a".into(), gap: None, entries });
        };
        let mut rings: Vec<Ring> = (0..6).map(|_| Ring::new("a".into(), 0, &budget)).collect();
        rings.iter_mut().for_each(fill);
        let mut steps = 0;
        while let Some(excess) = budget.excess() {
            let largest = rings.iter_mut().max_by_key(|ring| ring.account().bytes()).unwrap();
            largest.shrink(excess);
            steps += 1;
        }
        assert!((1..=6).contains(&steps), "{steps}");
        assert!(budget.kept() > budget.bytes / 2, "{}", budget.kept());
    }
}
