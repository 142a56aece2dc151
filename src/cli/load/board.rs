//! Who has seen which event, and how long it took: the judge of a run.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::mark::Mark;

/// What is wrong with a run. Its figures mean nothing unless all of this is zero.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Faults {
    /// Events that somebody did not get.
    pub(super) lost: u64,
    /// Events that somebody got twice, or behind a later one.
    pub(super) doubled_or_disordered: u64,
    /// Events that were not what others got at the same place, or that the subscriber had not asked for.
    pub(super) wrong: u64,
    /// Connections that ended.
    pub(super) cut: u64,
    /// Requests that were refused, and what else the server said.
    pub(super) refused: u64,
    /// The first of them in words.
    pub(super) first: Option<String>,
}

impl Faults {
    /// Whether there are none.
    pub(super) fn none(&self) -> bool {
        self.lost + self.doubled_or_disordered + self.wrong + self.cut + self.refused == 0
    }

    /// Remembers the first in words.
    pub(super) fn say(&mut self, what: impl FnOnce() -> String) {
        self.first.get_or_insert_with(what);
    }

    /// Adds those of another part of the run.
    pub(super) fn add(&mut self, other: Faults) {
        self.lost += other.lost;
        self.doubled_or_disordered += other.doubled_or_disordered;
        self.wrong += other.wrong;
        self.cut += other.cut;
        self.refused += other.refused;
        if let Some(first) = other.first {
            self.say(|| first);
        }
    }
}

/// Times in microseconds, from 1 µs to an hour, with three digits.
pub(super) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 3_600_000_000, 3)?)
}

/// One subscriber's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    /// The place that it expects next.
    next: u64,
    /// Events that it has seen.
    seen: u64,
    /// It gets only events whose number falls into this lane.
    lane: u64,
}

impl Reader {
    /// It begins behind `seq`.
    pub(super) fn behind(seq: u64, lane: u64) -> Reader {
        Reader { next: seq + 1, seen: 0, lane }
    }

    /// Events that it has seen.
    pub(super) fn seen(self) -> u64 {
        self.seen
    }
}

/// An event as the first subscriber saw it.
#[derive(Clone, Copy)]
struct Slot {
    /// Its number; [`NOT_OURS`] without a mark.
    number: u32,
    /// How many have seen it.
    seen: u32,
}

const UNSEEN: u32 = u32::MAX;
const NOT_OURS: u32 = u32::MAX - 1;
/// Places that are kept.
const MOST: usize = 1 << 27;

/// The events of a run by their place in the order.
pub(super) struct Board {
    /// The place of the first slot.
    first: Option<u64>,
    slots: Vec<Slot>,
    /// Subscribers of each lane.
    lanes: Vec<u32>,
    /// Times are kept of events from this number on; those before are to warm up.
    timed_from: u64,
    /// From when an event should have been sent until a subscriber had it, for each of them.
    pub(super) delivery: Histogram<u64>,
    /// Until the last subscriber had it, for each event.
    pub(super) last: Histogram<u64>,
    pub(super) faults: Faults,
    /// Marked events that all have that should.
    pub(super) complete: u64,
    pub(super) deliveries: u64,
}

impl Board {
    /// With so many lanes, one is for everybody; times are kept of events from the number `timed_from` on.
    pub(super) fn new(lanes: u64, timed_from: u64) -> Result<Board> {
        Ok(Board {
            timed_from,
            first: None,
            slots: Vec::new(),
            lanes: vec![0; lanes.max(1) as usize],
            delivery: histogram()?,
            last: histogram()?,
            faults: Faults::default(),
            complete: 0,
            deliveries: 0,
        })
    }

    /// A subscriber is there, before the first event of the run.
    pub(super) fn join(&mut self, reader: Reader) {
        self.first.get_or_insert(reader.next);
        let lane = reader.lane as usize % self.lanes.len();
        self.lanes[lane] += 1;
    }

    /// A subscriber has seen an event, at the time `now`.
    pub(super) fn saw(&mut self, reader: &mut Reader, seq: u64, mark: Option<Mark>, now: u64) {
        let dense = self.lanes.len() == 1;
        let offset =
            self.first.and_then(|first| seq.checked_sub(first)).filter(|offset| *offset < MOST as u64);
        let (Some(offset), true) = (offset, seq >= reader.next) else {
            self.faults.doubled_or_disordered += 1;
            self.faults.say(|| format!("a subscriber got {seq} where it expected {}", reader.next));
            return;
        };
        if dense && seq > reader.next {
            self.faults.lost += seq - reader.next;
            self.faults.say(|| format!("a subscriber got {seq} where it expected {}", reader.next));
        }
        reader.next = seq + 1;
        reader.seen += 1;
        self.deliveries += 1;
        let offset = offset as usize;
        if offset >= self.slots.len() {
            self.slots.resize(offset + 1, Slot { number: UNSEEN, seen: 0 });
        }
        let number = mark.and_then(|mark| u32::try_from(mark.number).ok()).unwrap_or(NOT_OURS);
        let slot = &mut self.slots[offset];
        if slot.number == UNSEEN {
            slot.number = number;
        }
        let lane = u64::from(number) % self.lanes.len() as u64;
        if slot.number != number || (!dense && (lane != reader.lane || mark.is_none())) {
            self.faults.wrong += 1;
            self.faults.say(|| format!("a subscriber got another event at {seq} than was to be expected"));
            return;
        }
        let Some(mark) = mark else { return };
        slot.seen += 1;
        let took = now.saturating_sub(mark.at);
        let timed = mark.number >= self.timed_from;
        if timed {
            self.delivery.saturating_record(took);
        }
        if slot.seen == self.lanes[lane as usize] {
            self.complete += 1;
            if timed {
                self.last.saturating_record(took);
            }
        }
    }

    /// Judges at the end of a run of `events` events, numbered from 0.
    pub(super) fn judge(&mut self, readers: &[Reader], events: u64) {
        let mut places = vec![0_u32; events as usize];
        for slot in &self.slots {
            match places.get_mut(slot.number as usize) {
                Some(times) => *times += 1,
                None if slot.number < NOT_OURS => self.faults.wrong += 1,
                None => {}
            }
        }
        let nowhere = places.iter().filter(|times| **times == 0).count() as u64;
        let twice: u64 = places.iter().map(|times| u64::from(times.saturating_sub(1))).sum();
        if nowhere > 0 {
            self.faults.say(|| format!("{nowhere} of {events} events reached nobody"));
        }
        if twice > 0 {
            self.faults.say(|| format!("{twice} events stand in the order twice"));
        }
        self.faults.doubled_or_disordered += twice;
        let lanes = self.lanes.len() as u64;
        let end = self.end();
        for reader in readers {
            // The events that are to be seen up to the last one; what is missing in between was counted when it was seen.
            let missing = match lanes {
                1 => end.saturating_sub(reader.next),
                _ => (events + lanes - 1 - reader.lane).div_euclid(lanes).saturating_sub(reader.seen),
            };
            if missing > 0 {
                self.faults.say(|| format!("a subscriber did not get the last {missing} events"));
            }
            self.faults.lost += missing;
        }
        self.faults.lost += nowhere;
    }

    /// The place behind the last marked event.
    fn end(&self) -> u64 {
        let marked = self.slots.iter().rposition(|slot| slot.number < NOT_OURS);
        self.first.unwrap_or_default() + marked.map_or(0, |at| at as u64 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What two subscribers see, as places and numbers; the judgement of a run of three events.
    fn judged(first: &[(u64, u64)], second: &[(u64, u64)]) -> Faults {
        let mut board = Board::new(1, 0).unwrap();
        let mut readers = [Reader::behind(10, 0); 2];
        readers.iter().for_each(|reader| board.join(*reader));
        for (reader, seen) in readers.iter_mut().zip([first, second]) {
            for &(seq, number) in seen {
                board.saw(reader, seq, Some(Mark { number, at: 5 }), 7);
            }
        }
        board.judge(&readers, 3);
        board.faults
    }

    #[test]
    fn only_the_whole_in_order_and_once_is_good() {
        let good = [(11, 0), (12, 2), (13, 1)];
        assert!(judged(&good, &good).none(), "publishers may overtake each other, if all see the same");
        assert_eq!(judged(&good, &good[..2]).lost, 1);
        assert_eq!(judged(&good[..2], &good[..2]).lost, 1, "nobody got it");
        assert_eq!(judged(&good, &[(11, 0), (13, 1)]).lost, 1);
        assert_eq!(judged(&good, &[(11, 0), (12, 2), (12, 2), (13, 1)]).doubled_or_disordered, 1);
        assert!(judged(&good, &[(12, 2), (11, 0), (13, 1)]).doubled_or_disordered == 1);
        assert_eq!(judged(&good, &[(11, 2), (12, 0), (13, 1)]).wrong, 2);
        let twice = [(11, 0), (12, 1), (13, 2), (14, 1)];
        assert_eq!(judged(&twice, &twice).doubled_or_disordered, 1);
        assert_eq!(judged(&[], &[]).lost, 3);
    }

    #[test]
    fn lanes_get_their_own_and_nothing_else() {
        let run = |seen: [&[u64]; 2]| {
            let mut board = Board::new(2, 0).unwrap();
            let mut readers = [Reader::behind(0, 0), Reader::behind(0, 1)];
            readers.iter().for_each(|reader| board.join(*reader));
            for (reader, seen) in readers.iter_mut().zip(seen) {
                for &number in seen {
                    board.saw(reader, number + 1, Some(Mark { number, at: 0 }), 1);
                }
            }
            board.judge(&readers, 5);
            (board.faults, board.complete)
        };
        let (faults, complete) = run([&[0, 2, 4], &[1, 3]]);
        assert!(faults.none() && complete == 5);
        assert!(run([&[0, 2], &[1, 3]]).0.lost > 0);
        assert_eq!(run([&[0, 2, 3, 4], &[1, 3]]).0.wrong, 1);
    }
}
