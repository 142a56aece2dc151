//! The newest events of a channel in memory: bounded in number and in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::event_log::Read;
use crate::model::event::Entry;

const MOST_EVENTS: usize = 8192;
const MOST_BYTES: usize = 16 << 20;

/// Consecutive events up to the head.
pub(super) struct Ring {
    epoch: Arc<str>,
    head: u64,
    /// Ends with `head`, if it is not empty.
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

impl Ring {
    /// Nothing yet; the next event is `head + 1`.
    pub(super) fn new(epoch: Arc<str>, head: u64) -> Ring {
        Ring { epoch, head, entries: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn epoch(&self) -> Arc<str> {
        self.epoch.clone()
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Takes what a tail has read. False if that was nothing.
    pub(super) fn advance(&mut self, read: Read) -> bool {
        let new_epoch = read.epoch != self.epoch;
        if new_epoch || read.gap.is_some() {
            // What is here no longer joins up with what comes: readers go to the log, which tells them their gap.
            self.entries.clear();
            self.bytes = 0;
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
            self.bytes += entry.json.len();
            self.entries.push_back(entry);
        }
        while self.entries.len() > MOST_EVENTS || self.bytes > MOST_BYTES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.json.len();
        }
        moved
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(epoch: &str, gap: Option<(u64, u64)>, seqs: std::ops::RangeInclusive<u64>) -> Read {
        let entries = seqs.map(|seq| Arc::new(Entry::new(seq, "{}"))).collect();
        Read { epoch: epoch.into(), gap, entries }
    }
    fn seqs(read: Option<Read>) -> Option<Vec<u64>> {
        Some(read?.entries.iter().map(|entry| entry.seq).collect())
    }

    #[test]
    fn readers_get_what_follows_their_position_or_are_sent_to_the_log() {
        let mut ring = Ring::new("a".into(), 10);
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
        let mut ring = Ring::new("a".into(), 0);
        let many = MOST_EVENTS as u64 + 100;
        ring.advance(read("a", None, 1..=many));
        assert_eq!(ring.entries.len(), MOST_EVENTS);
        assert_eq!(seqs(ring.read_after(99, 1)), None);
        assert_eq!(seqs(ring.read_after(100, 1)), Some(vec![101]));
    }
}
