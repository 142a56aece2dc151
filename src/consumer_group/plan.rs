//! One step of a group, thought through before it is written: what the members have asked, what they are given.

use std::collections::HashMap;
use std::sync::Arc;

use super::member::{Ask, READY_BYTES, Shared, Verdict};
use super::state::{Given, Group, Want};
use crate::error::Result;
use crate::event_log::EventLog;
use crate::filter::Filter;
use crate::hub::Channel;
use crate::model::event::Entry;

/// Events that are looked at in one read.
const SCAN: usize = 256;
/// Bytes of events that are looked at before others get their turn: filters may have patterns.
const SCAN_BYTES: usize = 1 << 20;
/// Reads of one step.
const READS: usize = 8;

/// Where events come from.
pub(super) struct Source {
    pub(super) log: Arc<dyn EventLog>,
    pub(super) channel: Arc<Channel>,
    pub(super) filter: Option<Filter>,
    pub(super) ordered: bool,
}

/// A step.
pub(super) struct Plan {
    /// The state as it will be.
    pub(super) next: Group,
    /// What comes of each thing that was asked.
    pub(super) outcomes: Vec<Outcome>,
    /// What members get.
    pub(super) given: Vec<(Given, Arc<Entry>)>,
    /// Up to here nothing more matches than what the state has.
    pub(super) looked: u64,
    /// There may be more to give at once.
    pub(super) more: bool,
    /// Events could not be read.
    pub(super) failed: bool,
}

/// What comes of something that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The number of the new member, if there is room for one.
    Joined(Option<u64>),
    Left,
    /// Whether the event was in the member's hands.
    Settled(bool),
}

/// Applies what was asked.
pub(super) fn apply(next: &mut Group, asks: &[Ask], shared: &Shared, now: i64) -> Vec<Outcome> {
    let outcome = |ask: &Ask| match ask {
        Ask::Join { .. } => Outcome::Joined(next.join()),
        Ask::Leave(member) => {
            let inner = shared.lock();
            let local = inner.locals.get(member);
            let unsent: Vec<u64> = local.into_iter().flat_map(|local| local.unsent()).collect();
            let all = local.is_some_and(|local| local.excused);
            next.leave(*member, |seq| all || unsent.contains(&seq), now);
            Outcome::Left
        }
        Ask::Settle { member, seq, delivery, verdict, .. } => Outcome::Settled(match verdict {
            Verdict::Done => next.ack(*member, *seq, *delivery),
            Verdict::Extend => next.extend(*member, *seq, *delivery, now),
            Verdict::Retry(delay, reason) => {
                let reason = reason.as_deref().unwrap_or("it was given back");
                next.nack(*member, *seq, *delivery, *delay, reason, now)
            }
        }),
    };
    asks.iter().map(outcome).collect()
}

/// What these members of this instance want: how many events, and how many bytes their sessions can hold.
pub(super) struct Wants {
    counts: Vec<Want>,
    bytes: HashMap<u64, usize>,
}

impl Wants {
    pub(super) fn of(group: &Group, shared: &Shared, members: &[u64], now: i64) -> Wants {
        let held = group.held(now);
        let mut wants = Wants { counts: Vec::new(), bytes: HashMap::new() };
        let inner = shared.lock();
        for (&member, local) in inner.locals.iter().filter(|(member, _)| members.contains(member)) {
            let count = local.window.saturating_sub(held.get(&member).copied().unwrap_or(0));
            let bytes = READY_BYTES.saturating_sub(local.bytes());
            if count > 0 && bytes > 0 {
                wants.counts.push(Want { member, count });
                wants.bytes.insert(member, bytes);
            }
        }
        wants
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn left(&self) -> usize {
        self.counts.iter().map(|want| want.count).sum()
    }

    /// Whether a member's session can hold an event; it takes the last one whatever its size is.
    fn hold(&mut self, member: u64, bytes: usize) -> bool {
        let left = self.bytes.get(&member).copied().unwrap_or(0);
        let rest = left.saturating_sub(bytes);
        self.bytes.insert(member, rest);
        if rest == 0 {
            self.counts.retain(|want| want.member != member);
        }
        left > 0
    }
}

impl Plan {
    /// Gives out what is free, and what the log has, to those who want it.
    pub(super) async fn give(&mut self, source: &Source, mut wants: Wants, now: i64) -> Result<()> {
        let (mut found, mut retracted) = (HashMap::new(), false);
        for reads in 0.. {
            for given in self.next.take(&mut wants.counts, now) {
                match self.entry(source, given.seq, &mut found).await? {
                    Some(entry) if wants.hold(given.member, entry.json.len()) => {
                        self.given.push((given, entry))
                    }
                    Some(entry) => {
                        found.insert(given.seq, entry);
                        self.next.retract(given);
                        retracted = true;
                    }
                    // It was out for longer than events are kept.
                    None => self.next.missed(given.seq, given.seq),
                }
            }
            let missing = wants.left();
            if missing == 0 || self.next.room(now) == 0 || !self.may_have_more(source) {
                break;
            }
            if reads == READS {
                self.more = true;
                break;
            }
            if !self.scan(source, missing, &mut found, now).await? {
                break;
            }
        }
        // Somebody else may have room for it.
        self.more |= retracted && wants.left() > 0;
        Ok(())
    }

    fn may_have_more(&self, source: &Source) -> bool {
        source.channel.head() > self.looked || *source.channel.epoch() != *self.next.fetched().0
    }

    /// Looks at what comes next in the log. False: nothing does.
    async fn scan(
        &mut self,
        source: &Source,
        missing: usize,
        found: &mut HashMap<u64, Arc<Entry>>,
        now: i64,
    ) -> Result<bool> {
        let channel = &source.channel;
        // The tail hears of a new epoch later than whoever asks the log; the group does not go back to the old one.
        let live = channel.read_live(self.looked, SCAN);
        let read = match live.filter(|read| *read.epoch == *self.next.fetched().0) {
            Some(read) => read,
            None => source.log.read_across(&channel.name, self.looked, SCAN).await?,
        };
        if let Some((from, to)) = read.gap {
            self.next.missed(from, to);
            self.looked = self.looked.max(to);
        } else if read.entries.is_empty() {
            return Ok(false);
        }
        let most = missing.min(self.next.room(now));
        let (mut matching, mut bytes) = (Vec::new(), 0);
        for entry in read.entries {
            self.looked = entry.seq;
            bytes += entry.json.len();
            if source.filter.as_ref().is_none_or(|filter| filter.matches(entry.value())) {
                let partition = if source.ordered { partition(&entry) } else { 0 };
                matching.push((entry.seq, partition));
                found.insert(entry.seq, entry);
            }
            if matching.len() >= most || bytes > SCAN_BYTES {
                break;
            }
        }
        let other_epoch = *read.epoch != *self.next.fetched().0;
        if other_epoch || !matching.is_empty() {
            self.next.fetch(&read.epoch, &matching, self.looked, now);
        }
        Ok(true)
    }

    async fn entry(
        &self,
        source: &Source,
        seq: u64,
        found: &mut HashMap<u64, Arc<Entry>>,
    ) -> Result<Option<Arc<Entry>>> {
        match found.remove(&seq) {
            Some(entry) => Ok(Some(entry)),
            None => source.entry(seq).await,
        }
    }
}

impl Source {
    /// The event with this number, if it can still be read.
    pub(super) async fn entry(&self, seq: u64) -> Result<Option<Arc<Entry>>> {
        let before = seq.saturating_sub(1);
        let live = self.channel.read_live(before, 1).filter(|read| !read.entries.is_empty());
        let read = match live {
            Some(read) => read,
            None => self.log.read_across(&self.channel.name, before, 1).await?,
        };
        Ok(read.entries.into_iter().next().filter(|entry| entry.seq == seq))
    }
}

/// Events of the same partition key have the same number. 0: an event is on its own.
fn partition(entry: &Entry) -> u64 {
    let Some(key) = entry.value().get("partitionkey").and_then(|key| key.as_str()) else { return 0 };
    let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, key.as_bytes());
    // As many bits as a number in JSON surely has; two keys that meet here only wait for each other.
    (hash.as_u64_pair().0 >> 12).max(1)
}
