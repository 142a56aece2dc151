//! Whom an event concerns.
//!
//! Readers with the same filter share it, and it is evaluated once per event for all of them. A reader whose filter
//! demands a certain string somewhere (`data.kind` is `job`) stands in an index under that string: an event visits
//! only the readers that stand under one of its own strings, not all the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use serde_json::Value;

use super::pump::{Direct, Fresh};
use crate::error::Result;
use crate::filter::{Demand, EVENT, Filter, PATTERN_COST, strings_at};
use crate::model::event::Entry;
use crate::quota::Holder;
use crate::sync::{Bell, lock};

/// Longer filters are nobody else's; texts of filters that are used no more may stay for a while, and must not weigh much.
const LONGEST_SHARED: usize = 1024;

/// What a filter may cost that a channel tries itself: everybody who reads the channel waits for it.
const CHEAP: usize = 32;

/// How much more work a regular expression is than looking at the event at all.
const PATTERN_WORK: usize = 4;
/// Bytes that are looked at in the time of one comparison with a value of a list.
const COMPARISON: usize = 32;

/// A filter that readers share.
#[derive(Debug)]
pub struct SharedFilter {
    number: u64,
    filter: Filter,
    is_cheap: bool,
    cost: usize,
}

impl SharedFilter {
    /// A filter that nobody else has.
    pub fn new(filter: Filter) -> Arc<SharedFilter> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let is_cheap = filter.cost() <= CHEAP;
        let cost = filter.cost();
        Arc::new(SharedFilter { number: NEXT.fetch_add(1, Relaxed), filter, is_cheap, cost })
    }

    /// Whether a channel may try it while others wait.
    pub fn is_cheap(&self) -> bool {
        self.is_cheap
    }

    /// See [`Filter::weight`].
    pub fn weight(&self) -> usize {
        self.filter.weight()
    }

    /// What looking at an event of so many bytes counts as, in bytes that are looked at without a pattern.
    pub fn work(&self, bytes: usize) -> usize {
        // (Thousands of values count as patterns, which they take as long as.)
        let (patterns, others) = (self.cost / PATTERN_COST, self.cost % PATTERN_COST);
        bytes.saturating_mul(1 + PATTERN_WORK * patterns) + COMPARISON * others
    }

    /// Whether the event matches.
    pub fn matches(self: &Arc<Self>, entry: &Entry) -> bool {
        match Arc::strong_count(self) {
            // Nobody else will ask: a subscription holds it, and what it lends to its channel.
            ..=2 => self.filter.matches(entry.value()),
            _ => entry.verdict(self.number, || self.filter.matches(entry.value())),
        }
    }

    /// What every event that matches has.
    pub(super) fn demands(&self) -> Vec<Demand> {
        self.filter.demands()
    }
}

/// The filters in use, by their text.
#[derive(Default)]
pub(super) struct Filters {
    known: Mutex<HashMap<String, Weak<SharedFilter>>>,
}

impl Filters {
    /// The filter that this JSON describes: the same one for everybody who says the same. 422 if it is none.
    pub(super) fn read(&self, json: &Value) -> Result<Arc<SharedFilter>> {
        let text = json.to_string();
        if text.len() > LONGEST_SHARED {
            return Ok(SharedFilter::new(Filter::from_json(json, &EVENT)?));
        }
        if let Some(known) = lock(&self.known).get(&text).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let filter = SharedFilter::new(Filter::from_json(json, &EVENT)?);
        let mut known = lock(&self.known);
        if known.len() == known.capacity() {
            known.retain(|_, filter| filter.strong_count() > 0);
        }
        known.insert(text, Arc::downgrade(&filter));
        Ok(filter)
    }
}

/// No event.
const NONE: u64 = u64::MAX;

/// One reader as its channel knows it.
pub(super) struct Mark {
    /// For whom it reads.
    pub(super) holder: Holder,
    pub(super) wake: Arc<Bell>,
    /// Up to where it has looked, for the metrics.
    pub(super) seen: AtomicU64,
    /// The first event since it last asked that may concern it ([`NONE`]: no event). Only of readers in the index.
    next: AtomicU64,
    /// Up to here it looks at every event.
    until: AtomicU64,
    /// Takes events without being woken.
    pub(super) direct: OnceLock<Arc<dyn Direct>>,
}

impl Mark {
    /// A reader that comes when the channel's head is at `head`.
    pub(super) fn new(holder: Holder, wake: Arc<Bell>, head: u64) -> Mark {
        let (seen, next, until) = (head.into(), NONE.into(), head.into());
        Mark { holder, wake, seen, next, until, direct: OnceLock::new() }
    }

    /// Takes the events at once, if it can.
    pub(super) fn take(&self, fresh: &Fresh) -> bool {
        let taken = self.direct.get().is_some_and(|direct| direct.take(fresh));
        if taken {
            self.seen.fetch_max(fresh.last(), Relaxed);
        }
        taken
    }

    /// Event `seq` may concern it.
    pub(super) fn concerns(&self, seq: u64) {
        self.next.fetch_min(seq, Relaxed);
    }

    /// Where to read on from `seq`: events that cannot concern the reader are passed over. Events up to `head` have
    /// been marked.
    pub(super) fn skip(&self, seq: u64, head: u64) -> u64 {
        if seq < self.until.load(Relaxed) {
            return seq;
        }
        match self.next.swap(NONE, Relaxed) {
            NONE => seq.max(head),
            next => {
                // Further ones up to the head were not kept apart.
                self.until.store(head.max(next), Relaxed);
                seq.max(next.saturating_sub(1).min(head))
            }
        }
    }

    /// Up to where nothing is left for it, given the channel's head and whether it is in the index.
    pub(super) fn done(&self, head: u64, indexed: bool) -> u64 {
        let seen = self.seen.load(Relaxed);
        match indexed && seen >= self.until.load(Relaxed) && self.next.load(Relaxed) == NONE {
            true => head.max(seen),
            false => seen,
        }
    }
}

/// The readers of a channel.
#[derive(Default)]
pub(super) struct Readers {
    next: u64,
    /// Those who look at every event: their numbers are their places here.
    broad: Vec<Option<Arc<Mark>>>,
    broad_count: usize,
    /// Places that are free, and some that there are no more.
    free: Vec<u64>,
    /// Those who do not.
    indexed: HashMap<u64, Arc<Mark>>,
    /// By path and string.
    index: HashMap<String, HashMap<String, HashMap<u64, Arc<Mark>>>>,
}

impl Readers {
    /// Adds a reader; the demand that it stands under, if it is in the index: the one that fewest others have.
    pub(super) fn add(&mut self, mark: &Arc<Mark>, demands: Vec<Demand>) -> (u64, Option<Demand>) {
        let Some(demand) = demands.into_iter().min_by_key(|demand| self.crowd(demand)) else {
            return (self.add_broad(mark), None);
        };
        let id = self.next;
        self.next += 1;
        let by_string = self.index.entry(demand.path.clone()).or_default();
        for string in &demand.strings {
            by_string.entry(string.clone()).or_default().insert(id, mark.clone());
        }
        self.indexed.insert(id, mark.clone());
        (id, Some(demand))
    }

    fn add_broad(&mut self, mark: &Arc<Mark>) -> u64 {
        self.broad_count += 1;
        while let Some(number) = self.free.pop() {
            if let Some(place @ None) = self.broad.get_mut(number as usize) {
                *place = Some(mark.clone());
                return number;
            }
        }
        self.broad.push(Some(mark.clone()));
        self.broad.len() as u64 - 1
    }

    /// Takes the `count` places from `from` on into `some`, those that are not free; false if there are none.
    pub(super) fn some_broad(&self, from: usize, count: usize, some: &mut Vec<Arc<Mark>>) -> bool {
        let places = self.broad.get(from..).unwrap_or_default();
        some.extend(places.iter().take(count).flatten().cloned());
        !places.is_empty()
    }

    fn crowd(&self, demand: &Demand) -> usize {
        let Some(by_string) = self.index.get(&demand.path) else { return 0 };
        demand.strings.iter().filter_map(|string| by_string.get(string)).map(HashMap::len).sum()
    }

    pub(super) fn remove(&mut self, id: u64, demand: Option<&Demand>) {
        let Some(demand) = demand else {
            if let Some(place) = self.broad.get_mut(id as usize)
                && place.take().is_some()
            {
                self.free.push(id);
                self.broad_count -= 1;
            }
            // What a crowd leaves behind is not to be walked through for ever.
            while self.broad.last().is_some_and(Option::is_none) {
                self.broad.pop();
            }
            if self.broad.is_empty() {
                (self.broad, self.free) = (Vec::new(), Vec::new());
            }
            return;
        };
        self.indexed.remove(&id);
        let Some(by_string) = self.index.get_mut(&demand.path) else { return };
        for string in &demand.strings {
            if let Some(readers) = by_string.get_mut(string) {
                readers.remove(&id);
                if readers.is_empty() {
                    by_string.remove(string);
                }
            }
        }
        if by_string.is_empty() {
            self.index.remove(&demand.path);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.broad_count + self.indexed.len()
    }

    /// Marks those in the index whom these events may concern; they are to be woken.
    pub(super) fn mark(&self, entries: &[Arc<Entry>]) -> Vec<Arc<Mark>> {
        let mut concerned = Vec::new();
        if self.index.is_empty() {
            return concerned;
        }
        for entry in entries {
            for (path, by_string) in &self.index {
                strings_at(entry.value(), path, &mut |string| {
                    for mark in by_string.get(string).into_iter().flat_map(HashMap::values) {
                        mark.concerns(entry.seq);
                        concerned.push(mark.clone());
                    }
                });
            }
        }
        concerned
    }

    /// What was has come to an end: everybody in the index has to look again.
    pub(super) fn mark_all(&self) -> Vec<Arc<Mark>> {
        self.indexed.values().inspect(|mark| mark.concerns(0)).cloned().collect()
    }

    /// Up to where the slowest reader has looked.
    pub(super) fn slowest(&self, head: u64) -> Option<u64> {
        let broad = self.broad.iter().flatten().map(|mark| mark.done(head, false));
        broad.chain(self.indexed.values().map(|mark| mark.done(head, true))).min()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HERE: Holder = Holder::Address(1);

    fn event(seq: u64, kind: &str) -> Arc<Entry> {
        Arc::new(Entry::new(seq, &json!({"data": {"kind": kind, "list": [kind, "all"]}}).to_string()))
    }
    fn demands(filter: Value) -> Vec<Demand> {
        SharedFilter::new(Filter::from_json(&filter, &EVENT).unwrap()).demands()
    }

    #[test]
    fn an_event_marks_those_whom_it_may_concern() {
        let mut readers = Readers::default();
        let marks: Vec<_> = (0..4).map(|_| Arc::new(Mark::new(HERE, Arc::default(), 0))).collect();
        readers.add(&marks[0], demands(json!({"data.kind": "job"})));
        readers.add(&marks[1], demands(json!({"data.list__in": ["all", "x"]})));
        let (_, narrow) = readers.add(&marks[2], demands(json!({"data.kind": "job", "data.name": "n"})));
        assert_eq!(narrow.as_ref().unwrap().path, "data.name", "where it is less crowded");
        let (broad, none) = readers.add(&marks[3], demands(json!({"data.n__gt": 1})));
        let mut some = Vec::new();
        assert!(none.is_none() && readers.some_broad(0, 9, &mut some) && some.len() == 1);
        assert!(!readers.some_broad(1, 9, &mut some));

        readers.mark(&[event(1, "test"), event(2, "job")]);
        assert_eq!(marks[0].skip(0, 2), 1, "reads on at 2");
        assert_eq!(marks[1].skip(0, 2), 0);
        assert_eq!(marks[2].skip(0, 2), 2, "nothing for it");
        assert_eq!(readers.slowest(2), Some(0));
        readers.remove(broad, None);
        readers.remove(2, narrow.as_ref());
        assert_eq!((readers.len(), readers.index.len()), (2, 2));
    }

    #[test]
    fn events_that_come_while_a_reader_looks_are_not_passed_over() {
        let mark = Mark::new(HERE, Arc::default(), 5);
        assert_eq!(mark.skip(3, 5), 3, "it began behind the head");
        assert_eq!(mark.skip(5, 9), 9);
        mark.concerns(11);
        mark.concerns(13);
        assert_eq!(mark.skip(9, 14), 10);
        mark.concerns(16);
        assert_eq!(mark.skip(12, 16), 12, "13 is still to be looked at");
        assert_eq!(mark.skip(14, 15), 15, "16 has been marked and is not there yet");
        assert_eq!(mark.skip(15, 16), 15);
        assert_eq!(mark.skip(16, 20), 20);
        mark.concerns(0);
        assert_eq!(mark.skip(20, 30), 20, "after a break everything is looked at");
    }
}
