//! Random histories of a group against a model that knows nothing but what was given and taken.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn rules(ordered: bool) -> Rules {
    Rules { ordered, ack_wait: 1000, max_deliveries: 3 }
}

fn take_one(group: &mut Group, member: u64, now: i64) -> Option<(u64, u32)> {
    let given = group.take(&mut [Want { member, count: 1 }], now);
    given.first().map(|given| (given.seq, given.deliveries))
}

/// A group with these events (number, partition) and two members, 1 and 2.
fn group(ordered: bool, events: &[(u64, u64)]) -> Group {
    let mut group = Group::new(rules(ordered), "e", 0);
    assert_eq!((group.join(), group.join()), (Some(1), Some(2)));
    group.present(7, "here", &[1, 2], 0, RENEW);
    group.fetch("e", events, 100, 0);
    group
}

#[test]
fn an_event_goes_to_one_member_until_its_lease_ends() {
    let mut group = group(false, &[(5, 0), (9, 0)]);
    assert_eq!(take_one(&mut group, 1, 0), Some((5, 1)));
    assert_eq!(take_one(&mut group, 2, 0), Some((9, 1)));
    assert_eq!(take_one(&mut group, 2, 999), None);
    assert_eq!(group.floor(), 4);
    assert!(group.extend(1, 5, None, 900) && group.extend(2, 9, None, 950));
    assert_eq!(take_one(&mut group, 2, 1000), None, "both were extended");
    assert_eq!(take_one(&mut group, 1, 1900), None, "others come first");
    assert_eq!(take_one(&mut group, 2, 1900), Some((5, 2)));
    assert!(!group.ack(1, 5, None), "somebody else has it now");
    assert!(!group.ack(2, 5, Some(1)) && group.ack(2, 5, Some(2)));
    assert_eq!(group.floor(), 8);
    assert!(group.ack(2, 9, None), "late, but nobody else has had it");
    assert_eq!(group.floor(), 100);
}

#[test]
fn what_is_given_back_goes_to_others_first_and_after_its_delay() {
    let mut group = group(false, &[(1, 0)]);
    assert_eq!(take_one(&mut group, 1, 0), Some((1, 1)));
    assert!(group.nack(1, 1, None, 500, "", 0));
    assert_eq!((take_one(&mut group, 2, 499), group.next_change(0)), (None, Some(500)));
    assert_eq!(take_one(&mut group, 1, 500), None);
    assert_eq!(take_one(&mut group, 1, 1500), Some((1, 2)), "nobody else wanted it");
    group.present(7, "here", &[1], 1500, RENEW);
    assert!(group.nack(1, 1, None, 0, "", 1500));
    assert_eq!(take_one(&mut group, 1, 1500), Some((1, 3)), "there is nobody else");
}

#[test]
fn what_was_tried_too_often_is_dead_but_for_tries_that_say_nothing() {
    let mut group = group(true, &[(1, 4), (2, 4)]);
    for (member, n) in [(1, 1), (2, 2), (1, 3), (2, 4)] {
        assert_eq!(take_one(&mut group, member, n * 10), Some((1, n as u32)));
        match n {
            1 => group.leave(1, |_| true, n * 10),
            2 => assert!(group.nack(2, 1, None, 0, "no board", n * 10)),
            3 => group.leave(1, |_| false, n * 10),
            _ => group.expire(n * 10 + 1000),
        }
    }
    let dead: Vec<_> = group.dead().map(|(item, why)| (item.seq, item.deliveries, why.to_owned())).collect();
    assert_eq!(dead, [(1, 4, "its lease ended".to_owned())]);
    assert_eq!(
        (group.floor(), take_one(&mut group, 1, 2000)),
        (0, Some((2, 1))),
        "the next one of its partition"
    );
    group.buried(2);
    group.buried(1);
    assert_eq!((group.floor(), group.items().len()), (1, 1));
}

#[test]
fn a_partition_is_in_one_hand_and_in_order() {
    let mut group = group(true, &[(1, 4), (2, 4), (3, 5), (4, 0), (5, 0)]);
    let mut wants = [Want { member: 1, count: 9 }, Want { member: 2, count: 8 }];
    let seqs = |given: Vec<Given>| given.iter().map(|given| given.seq).collect::<Vec<_>>();
    assert_eq!(seqs(group.take(&mut wants, 0)), [1, 3, 4, 5]);
    assert_eq!((group.free(0), wants[0].count + wants[1].count), (0, 13));
    let first = group.items()[0].clone();
    assert!(first.is_held(0));
    let Place::Held { member, .. } = first.place else { panic!("{first:?}") };
    assert!(group.nack(member, 1, None, 300, "", 0));
    assert_eq!(group.free(0), 0, "2 waits for 1");
    assert_eq!(seqs(group.take(&mut wants, 2300)).first(), Some(&1));
}

#[test]
fn the_clock_may_jump() {
    let mut group = group(false, &[(1, 0)]);
    assert_eq!(take_one(&mut group, 1, 1_000_000), Some((1, 1)));
    // Set back by a lot: the lease does not last for ages.
    assert_eq!(take_one(&mut group, 2, 5_000), None);
    assert_eq!(take_one(&mut group, 2, 6_000), Some((1, 2)));
}

#[test]
fn a_full_group_looks_no_further() {
    let mut group = Group::new(rules(false), "e", 0);
    let many: Vec<(u64, u64)> = (1..=2000).map(|seq| (seq * 2, 0)).collect();
    group.fetch("e", &many, 4100, 0);
    let most = MOST_ITEMS as u64;
    assert_eq!((group.room(0), group.fetched().1), (0, most * 2 + 1), "up to before the one that is not in");
    group.fetch("e", &many, 4100, 0);
    assert_eq!(group.fetched().1, most * 2 + 1);
    let text = group.to_text().unwrap();
    assert!(text.len() < 100 << 10, "{}", text.len());
    group.missed(1, 4096);
    assert_eq!((group.items().len(), group.floor(), group.gaps()), (0, 4096, (1, 0)));
    assert_eq!(group.gaps_after(0), [(1, 4096)]);
}

#[test]
fn what_is_held_back_does_not_count_until_it_is_too_much() {
    let mut group = Group::new(rules(false), "e", 0);
    let (most, hour) = (MOST_ITEMS as u64, 3_600_000);
    let mut looked = 0;
    for round in 0..4 {
        assert_eq!((group.room(0), group.stalled(0)), (MOST_ITEMS, None), "round {round}");
        let more: Vec<(u64, u64)> = (looked + 1..=looked + most).map(|seq| (seq, 0)).collect();
        looked += most;
        group.fetch("e", &more, looked, 0);
        let given = group.take(&mut [Want { member: 1, count: MOST_ITEMS }], 0);
        assert_eq!(given.len(), MOST_ITEMS);
        for one in given {
            assert!(group.nack(1, one.seq, None, hour, "not now", 0));
        }
    }
    assert_eq!(group.room(0), 0);
    assert_eq!(group.stalled(0), Some(Stalled { delayed: MOST_KEPT, in_ms: hour }));
    group.fetch("e", &[(looked + 1, 0)], looked + 1, 0);
    assert_eq!(group.fetched().1, looked, "it stands, and says so");
    let text = group.to_text().unwrap();
    assert!(text.len() < 300 << 10, "{}", text.len());
    assert_eq!((group.stalled(hour), group.room(hour)), (None, 0), "all are due");
    assert!(group.ack(1, 1, None) || take_one(&mut group, 1, hour).is_some());
}

#[test]
fn ranges_that_were_told_are_not_told_again_after_a_restart() {
    let mut group = group(false, &[(1, 0), (3, 0)]);
    group.missed(1, 1);
    group.missed(3, 3);
    assert_eq!((group.gaps(), group.gaps_after(0)), ((2, 0), vec![(1, 1), (3, 3)]));
    group.told(1);
    let text = group.to_text().unwrap();
    let read = Group::from_text(rules(false), &text).unwrap();
    assert_eq!((read.gaps(), read.gaps_after(read.gaps().1)), ((2, 1), vec![(3, 3)]));
    // An older version told what it knew of.
    let mut old: serde_json::Value = serde_json::from_str(&text).unwrap();
    old.as_object_mut().unwrap().remove("missed");
    let mut old = Group::from_text(rules(false), &old.to_string()).unwrap();
    assert_eq!(old.gaps(), (2, 2));
    old.missed(7, 9);
    assert_eq!((old.gaps(), old.gaps_after(2)), ((3, 2), vec![(7, 9)]));
}

#[test]
fn agents_that_are_silent_are_forgotten_and_their_events_stay_on_lease() {
    let mut group = group(false, &[(1, 0)]);
    assert_eq!(take_one(&mut group, 1, 0), Some((1, 1)));
    group.present(7, "here", &[1, 2], 100, RENEW);
    assert_eq!(group.agents()[0].seen, 0, "not written for every batch");
    group.expire(LAPSE - 1);
    assert_eq!(group.members(), 2);
    group.expire(LAPSE);
    assert_eq!((group.members(), group.items().len()), (0, 1));
    assert_eq!(group.join(), Some(3), "numbers are not given again");
}

#[derive(Clone, Debug)]
enum Op {
    Join,
    Fetch(u8),
    Take(u8, u8),
    Ack(u8, u8, bool),
    Nack(u8, u8, u16),
    Extend(u8, u8),
    Leave(u8, bool),
    /// The member's process is gone, and nobody says so.
    Crash(u8),
    Tick(i16),
    Bury,
    Miss(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => Just(Op::Join),
        3 => any::<u8>().prop_map(Op::Fetch),
        8 => (any::<u8>(), 1..4_u8).prop_map(|(member, n)| Op::Take(member, n)),
        6 => (any::<u8>(), any::<u8>(), any::<bool>()).prop_map(|(m, n, exact)| Op::Ack(m, n, exact)),
        3 => (any::<u8>(), any::<u8>(), 0..2000_u16).prop_map(|(m, n, delay)| Op::Nack(m, n, delay)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(m, n)| Op::Extend(m, n)),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(m, excused)| Op::Leave(m, excused)),
        1 => any::<u8>().prop_map(Op::Crash),
        4 => (-1500..2500_i16).prop_map(Op::Tick),
        2 => Just(Op::Bury),
        1 => any::<u8>().prop_map(Op::Miss),
    ]
}

/// What the model knows of an event that is not done with.
#[derive(Clone, Debug, Default)]
struct Known {
    partition: u64,
    deliveries: u32,
    excused: u32,
    /// Who has it, and the end of the lease.
    hand: Option<(u64, i64)>,
    not_before: i64,
}

struct Model {
    rules: Rules,
    group: Group,
    now: i64,
    live: Vec<u64>,
    open: BTreeMap<u64, Known>,
    /// How each event that matched has ended.
    ended: BTreeMap<u64, &'static str>,
    next: u64,
}

impl Model {
    fn new(ordered: bool) -> Model {
        let rules = rules(ordered);
        Model {
            rules,
            group: Group::new(rules, "e", 0),
            now: 10_000,
            live: Vec::new(),
            open: BTreeMap::new(),
            ended: BTreeMap::new(),
            next: 1,
        }
    }

    fn member(&self, choice: u8) -> Option<u64> {
        self.live.get(usize::from(choice) % self.live.len().max(1)).copied()
    }

    fn event(&self, choice: u8) -> u64 {
        let open: Vec<_> = self.open.keys().collect();
        open.get(usize::from(choice) % open.len().max(1)).map_or(u64::from(choice), |seq| **seq)
    }

    fn end(&mut self, seq: u64, how: &'static str) {
        assert!(self.open.remove(&seq).is_some(), "{seq} was not open");
        assert_eq!(self.ended.insert(seq, how), None, "{seq} ended twice");
    }

    fn has(&self, member: u64, seq: u64) -> bool {
        self.open.get(&seq).is_some_and(|known| known.hand.is_some_and(|(hand, _)| hand == member))
            && self.group.dead().all(|(item, _)| item.seq != seq)
    }

    fn clamp(&mut self) {
        for known in self.open.values_mut() {
            known.not_before = known.not_before.min(self.now + LONGEST_DELAY);
            if let Some((_, until)) = &mut known.hand {
                *until = (*until).min(self.now + self.rules.ack_wait);
            }
        }
    }

    fn take(&mut self, member: u64, n: usize) -> usize {
        let given = self.group.take(&mut [Want { member, count: n }], self.now);
        self.clamp();
        assert!(given.len() <= n);
        for given in &given {
            let known = self.open[&given.seq].clone();
            assert!(known.not_before <= self.now, "{given:?} before its delay");
            assert!(
                known.hand.is_none_or(|(_, until)| until <= self.now),
                "{given:?} is in a hand: {known:?}"
            );
            assert_eq!(given.deliveries, known.deliveries + 1);
            assert!(known.deliveries - known.excused < self.rules.max_deliveries);
            if self.rules.ordered && known.partition != 0 {
                let dead: BTreeSet<u64> = self.group.dead().map(|(item, _)| item.seq).collect();
                for (seq, other) in &self.open {
                    if *seq != given.seq && other.partition == known.partition && !dead.contains(seq) {
                        assert!(*seq > given.seq, "{seq} comes before {given:?}");
                        assert!(other.hand.is_none_or(|(_, until)| until <= self.now), "{seq} and {given:?}");
                    }
                }
            }
            let known = self.open.entry(given.seq).or_default();
            known.deliveries += 1;
            (known.hand, known.not_before) = (Some((member, self.now + self.rules.ack_wait)), 0);
        }
        given.len()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Join => {
                let member = self.group.join().unwrap();
                assert!(!self.live.contains(&member));
                self.live.push(member);
                self.group.present(7, "here", &self.live, self.now, RENEW);
            }
            Op::Fetch(seed) => {
                let count = u64::from(seed % 8);
                let matching: Vec<_> = (self.next..self.next + count)
                    .filter(|seq| (seq + u64::from(seed)) % 3 != 0)
                    .map(|seq| (seq, (seq * 7 + u64::from(seed)) % 4))
                    .collect();
                self.next += count;
                self.group.fetch("e", &matching, self.next - 1, self.now);
                // A second time: no effect.
                self.group.fetch("e", &matching, self.next - 1, self.now);
                for (seq, partition) in matching {
                    self.open.insert(seq, Known { partition, ..Known::default() });
                }
            }
            Op::Take(member, n) => {
                if let Some(member) = self.member(member) {
                    self.take(member, n.into());
                }
            }
            Op::Ack(member, seq, exact) => {
                let (Some(member), seq) = (self.member(member), self.event(seq)) else { return };
                let delivery = self.open.get(&seq).map(|known| known.deliveries).filter(|_| exact);
                let expected = self.has(member, seq);
                assert_eq!(self.group.ack(member, seq, delivery), expected);
                if expected {
                    self.end(seq, "acknowledged");
                }
            }
            Op::Nack(member, seq, delay) => {
                let (Some(member), seq) = (self.member(member), self.event(seq)) else { return };
                let expected = self.has(member, seq);
                assert_eq!(self.group.nack(member, seq, None, delay.into(), "no", self.now), expected);
                if expected {
                    let known = self.open.entry(seq).or_default();
                    (known.hand, known.not_before) = (None, self.now + i64::from(delay));
                }
            }
            Op::Extend(member, seq) => {
                let (Some(member), seq) = (self.member(member), self.event(seq)) else { return };
                let expected = self.has(member, seq);
                assert_eq!(self.group.extend(member, seq, None, self.now), expected);
                if expected {
                    self.open.entry(seq).or_default().hand = Some((member, self.now + self.rules.ack_wait));
                }
            }
            Op::Leave(member, excused) => {
                let Some(member) = self.member(member) else { return };
                let dead: BTreeSet<u64> = self.group.dead().map(|(item, _)| item.seq).collect();
                self.group.leave(member, |_| excused, self.now);
                self.live.retain(|live| *live != member);
                for (seq, known) in &mut self.open {
                    if known.hand.is_some_and(|(hand, _)| hand == member) && !dead.contains(seq) {
                        (known.hand, known.not_before) = (None, self.now);
                        known.excused += u32::from(excused);
                    }
                }
            }
            Op::Crash(member) => {
                let member = self.member(member);
                self.live.retain(|live| Some(*live) != member);
                self.group.present(7, "here", &self.live, self.now, RENEW);
            }
            Op::Tick(ms) => {
                self.now += i64::from(ms);
                self.group.expire(self.now);
                self.clamp();
                self.group.present(7, "here", &self.live, self.now, RENEW);
            }
            Op::Bury => self.bury(),
            Op::Miss(seq) => {
                let seq = self.event(seq);
                if self.open.contains_key(&seq) {
                    self.group.missed(seq, seq);
                    self.end(seq, "missed");
                }
            }
        }
    }

    fn bury(&mut self) {
        let dead: Vec<_> = self.group.dead().map(|(item, _)| item.seq).collect();
        for seq in dead {
            let known = &self.open[&seq];
            assert!(
                known.deliveries - known.excused >= self.rules.max_deliveries,
                "{seq} died early: {known:?}"
            );
            self.group.buried(seq);
            self.end(seq, "dead");
        }
    }

    fn check(&self) {
        let items: Vec<_> = self.group.items().iter().map(|item| (item.seq, item.deliveries)).collect();
        let open: Vec<_> = self.open.iter().map(|(seq, known)| (*seq, known.deliveries)).collect();
        assert_eq!(items, open, "what is out is what was not ended");
        assert!(self.open.keys().all(|seq| *seq > self.group.floor()), "the floor is below what is open");
        assert!(self.group.floor() < self.next);
        let text = self.group.to_text().unwrap();
        assert_eq!(Group::from_text(self.rules, &text).unwrap(), self.group);
    }

    /// Whatever has happened, one member that works brings everything to an end.
    fn finish(&mut self) {
        self.apply(Op::Join);
        let member = *self.live.last().unwrap();
        for _ in 0..10_000 {
            if self.open.is_empty() {
                break;
            }
            self.now = self.group.next_change(self.now).unwrap_or(self.now);
            if self.group.free(self.now) > 0 {
                self.now += OTHERS_FIRST;
            }
            self.take(member, 16);
            for seq in self.open.keys().copied().collect::<Vec<_>>() {
                if self.group.ack(member, seq, None) {
                    self.end(seq, "acknowledged");
                }
            }
            self.bury();
        }
        assert!(self.open.is_empty(), "stuck: {:?}", self.group);
        assert_eq!(self.group.floor(), self.next - 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn no_event_is_lost_doubled_or_out_of_order(
        ordered in any::<bool>(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut model = Model::new(ordered);
        for op in ops {
            model.apply(op);
            model.check();
        }
        model.finish();
        model.check();
    }
}
