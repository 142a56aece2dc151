//! What a group knows: which events are out, in whose hands, since when. A pure state machine without I/O or clock.
//!
//! ```text
//!             fetch                    take                        ack
//! the log ───────────→ Free ──────────────────────────→ Held ──────────────→ done
//!                       ↑  nack, leave, lease ended        │
//!                       └──────────────────────────────────┤ tried too often
//!                                                          └────────────────→ Dead ──buried──→ done
//! ```
//!
//! Every operation is total: whatever it is called with, the state stays sound. `now` may jump: a jump forward ends
//! leases early, so events come a second time; after a jump back no lease lasts longer than a whole one from then
//! on ([`Group::expire`]). Nothing is lost either way, since only [`Group::ack`], [`Group::buried`] and [`Group::missed`]
//! take an event out.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

pub use super::item::{Item, Place};
use super::missed::Missed;

/// Events that are out at a time: in somebody's hands, or ready to be. Those that are held back do not count …
pub const MOST_ITEMS: usize = 1024;
/// … but with those there are no more than this.
pub const MOST_KEPT: usize = 4 * MOST_ITEMS;
/// Members of one group.
pub const MOST_MEMBERS: usize = 1024;
/// The longest that an event that was given back can be held back, in milliseconds.
pub const LONGEST_DELAY: i64 = 12 * 3600 * 1000;
/// Whoever had an event last gets it again only if nobody else has taken it for so long, in milliseconds.
const OTHERS_FIRST: i64 = 2_000;
/// An agent that says nothing for so long is gone, in milliseconds. What its members hold stays on lease.
const LAPSE: i64 = 30_000;
/// How old an agent's sign of life may get before it has to be renewed, in milliseconds.
pub const RENEW: u64 = 10_000;

/// How a group works; the same for all its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Events of one partition are worked on one after the other, in the order of their numbers.
    pub ordered: bool,
    /// How long a member has for an event, in milliseconds.
    pub ack_wait: i64,
    /// How often an event is given to a member before it is dead.
    pub max_deliveries: u32,
}

/// The state of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    #[serde(skip, default = "no_rules")]
    rules: Rules,
    /// What the numbers count in.
    epoch: String,
    /// Everything up to here was looked at: what matches and is not done with is in `items`.
    fetched: u64,
    /// In the order of their numbers.
    items: Vec<Item>,
    /// Numbers of members are never given twice.
    last_member: u64,
    agents: Vec<Agent>,
    /// How many ranges the group has missed, and the last one.
    gaps: u64,
    gap: Option<(u64, u64)>,
    #[serde(default)]
    missed: Missed,
}

/// A group that has nothing to give for a while, because events were given back with a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// How many are held back.
    pub delayed: usize,
    /// In how many milliseconds the first of them is due.
    pub in_ms: i64,
}

/// One instance that has members of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Chosen by chance when it began.
    pub id: u64,
    /// The instance.
    pub instance: String,
    /// Its members.
    pub members: Vec<u64>,
    /// When it was last heard of.
    pub seen: i64,
    /// Counts what it has written, so that it can tell whether a write whose answer was lost has come through.
    pub batch: u64,
}

/// An event for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The member.
    pub member: u64,
    /// The event.
    pub seq: u64,
    /// How often it has been given to somebody, this time included.
    pub deliveries: u32,
}

/// How many more events a member wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The member.
    pub member: u64,
    /// So many.
    pub count: usize,
}

fn no_rules() -> Rules {
    Rules { ordered: true, ack_wait: 0, max_deliveries: 1 }
}

impl Group {
    /// One that begins behind this place.
    pub fn new(rules: Rules, epoch: &str, seq: u64) -> Group {
        Group {
            rules,
            epoch: epoch.to_owned(),
            fetched: seq,
            items: Vec::new(),
            last_member: 0,
            agents: Vec::new(),
            gaps: 0,
            gap: None,
            missed: Missed::default(),
        }
    }

    /// Reads what [`Group::to_text`] has written.
    pub fn from_text(rules: Rules, text: &str) -> serde_json::Result<Group> {
        Ok(Group { rules, ..serde_json::from_str(text)? })
    }

    /// The state as text, at most some 300 KiB.
    pub fn to_text(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// The epoch and the number up to which everything was looked at.
    pub fn fetched(&self) -> (&str, u64) {
        (&self.epoch, self.fetched)
    }

    /// Everything up to here is done.
    pub fn floor(&self) -> u64 {
        self.items.first().map_or(self.fetched, |first| first.seq.saturating_sub(1))
    }

    /// The events that are out, in order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// How many more events can be out.
    pub fn room(&self, now: i64) -> usize {
        let out = self.items.len() - self.delayed(now);
        MOST_ITEMS.saturating_sub(out).min(MOST_KEPT.saturating_sub(self.items.len()))
    }

    /// How many events are held back: they were given back with a delay.
    pub fn delayed(&self, now: i64) -> usize {
        let is_delayed = |item: &&Item| matches!(item.place, Place::Free { from, .. } if from > now);
        self.items.iter().filter(is_delayed).count()
    }

    /// Whether the group looks no further because so many events are held back: nobody gets anything until they are due.
    pub fn stalled(&self, now: i64) -> Option<Stalled> {
        if self.items.len() < MOST_KEPT || self.free(now) > 0 {
            return None;
        }
        let due = self.items.iter().filter_map(|item| match item.place {
            Place::Free { from, .. } if from > now => Some(from),
            _ => None,
        });
        let in_ms = due.min()?.saturating_sub(now);
        Some(Stalled { delayed: self.delayed(now), in_ms })
    }

    /// The instances that have members.
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// How many members there are.
    pub fn members(&self) -> usize {
        self.agents.iter().map(|agent| agent.members.len()).sum()
    }

    /// How many ranges were missed, and how many of these have been told to members.
    pub fn gaps(&self) -> (u64, u64) {
        (self.gaps, self.missed.told(self.gaps))
    }

    /// The ranges that were missed after the first `known` ones.
    pub fn gaps_after(&self, known: u64) -> Vec<(u64, u64)> {
        self.missed.last(self.gaps.saturating_sub(known))
    }

    /// So many ranges have been told to members.
    pub fn told(&mut self, count: u64) {
        if count > self.missed.told(self.gaps) {
            self.missed.tell(count);
        }
    }

    // === members ===

    /// A number for a new member; `None` if there are too many. It is one when its agent [is present](Group::present)
    /// with it.
    pub fn join(&mut self) -> Option<u64> {
        if self.members() >= MOST_MEMBERS {
            return None;
        }
        self.last_member += 1;
        Some(self.last_member)
    }

    /// An agent with these members is there: notes it where that is news, or the last sign of life is older than `renew`.
    pub fn present(&mut self, id: u64, instance: &str, members: &[u64], now: i64, renew: u64) {
        let known = self.agents.iter_mut().find(|agent| agent.id == id);
        match known {
            Some(agent) => {
                if agent.members != members || now.abs_diff(agent.seen) >= renew {
                    (agent.members, agent.seen) = (members.to_vec(), now);
                }
            }
            None if members.is_empty() => {}
            None => self.agents.push(Agent {
                id,
                instance: instance.to_owned(),
                members: members.to_vec(),
                seen: now,
                batch: 0,
            }),
        }
        self.agents.retain(|agent| agent.id != id || !agent.members.is_empty());
    }

    /// Notes the number of an agent's write.
    pub fn stamp(&mut self, id: u64, batch: u64) {
        if let Some(agent) = self.agents.iter_mut().find(|agent| agent.id == id) {
            agent.batch = batch;
        }
    }

    /// A member has gone: what it had is free at once. It is excused for those events that `excused` names: they never
    /// reached its client, or the server has sent it away.
    pub fn leave(&mut self, member: u64, excused: impl Fn(u64) -> bool, now: i64) {
        for agent in &mut self.agents {
            agent.members.retain(|known| *known != member);
        }
        let most = self.rules.max_deliveries;
        for item in self.items.iter_mut().filter(|item| item.is_of(member, None)) {
            if excused(item.seq) {
                item.excused = item.excused.saturating_add(1);
            }
            give_back(item, most, now, 0, "its member has gone");
        }
    }

    // === the log ===

    /// Everything up to `up_to` was looked at: these events (numbers and partitions, in order) match. What there is no
    /// room for, and what follows it, counts as not looked at.
    pub fn fetch(&mut self, epoch: &str, matching: &[(u64, u64)], up_to: u64, now: i64) {
        if epoch != self.epoch {
            epoch.clone_into(&mut self.epoch);
        }
        for &(seq, partition) in matching.iter().filter(|(seq, _)| *seq <= up_to) {
            if seq <= self.fetched {
                continue;
            }
            if self.room(now) == 0 {
                // Behind the last one that is in.
                self.fetched = self.fetched.max(seq - 1);
                return;
            }
            self.items.push(Item::new(seq, partition));
            self.fetched = seq;
        }
        self.fetched = self.fetched.max(up_to);
    }

    /// Events that can no longer be read: nobody will get them.
    pub fn missed(&mut self, from: u64, to: u64) {
        self.missed.tell(self.missed.told(self.gaps));
        self.gaps += 1;
        self.gap = Some((from, to));
        self.missed.add((from, to));
        self.fetched = self.fetched.max(to);
        self.items.retain(|item| item.seq < from || item.seq > to);
    }

    // === giving and taking ===

    /// Gives out what is free, each event to the member that wants most. `wants` is what is left of it afterwards.
    pub fn take(&mut self, wants: &mut [Want], now: i64) -> Vec<Given> {
        self.expire(now);
        let others = self.others_first();
        let until = now.saturating_add(self.rules.ack_wait);
        let mut busy = HashSet::new();
        let mut given = Vec::new();
        for item in &mut self.items {
            if wants.iter().all(|want| want.count == 0) {
                break;
            }
            if !is_next(self.rules.ordered, item, &mut busy) {
                continue;
            }
            let Some((from, last)) = item.free_from().filter(|(from, _)| *from <= now) else { continue };
            let may = |want: &&mut Want| {
                want.count > 0 && (want.member != last || from.saturating_add(others) <= now)
            };
            let Some(want) = wants.iter_mut().filter(may).max_by_key(|want| want.count) else { continue };
            want.count -= 1;
            item.deliveries = item.deliveries.saturating_add(1);
            item.place = Place::Held { member: want.member, until };
            given.push(Given { member: want.member, seq: item.seq, deliveries: item.deliveries });
        }
        given
    }

    /// An event that was just given cannot be handed over: it is as before.
    pub fn retract(&mut self, given: Given) {
        if let Some(index) = self.find(given.member, given.seq, Some(given.deliveries)) {
            let item = &mut self.items[index];
            item.deliveries -= 1;
            item.place = Place::Free { from: 0, last: 0 };
        }
    }

    /// A member has done with an event. False: it does not have it (any more).
    pub fn ack(&mut self, member: u64, seq: u64, delivery: Option<u32>) -> bool {
        let Some(index) = self.find(member, seq, delivery) else { return false };
        self.items.remove(index);
        true
    }

    /// A member gives an event back, to be given out after `delay`. False: it does not have it (any more).
    pub fn nack(
        &mut self,
        member: u64,
        seq: u64,
        delivery: Option<u32>,
        delay: i64,
        reason: &str,
        now: i64,
    ) -> bool {
        let most = self.rules.max_deliveries;
        let Some(index) = self.find(member, seq, delivery) else { return false };
        let from = now.saturating_add(delay.clamp(0, LONGEST_DELAY));
        give_back(&mut self.items[index], most, from, member, reason);
        true
    }

    /// A member needs more time for an event: its lease begins anew. False: it does not have it (any more).
    pub fn extend(&mut self, member: u64, seq: u64, delivery: Option<u32>, now: i64) -> bool {
        let Some(index) = self.find(member, seq, delivery) else { return false };
        self.items[index].place = Place::Held { member, until: now.saturating_add(self.rules.ack_wait) };
        true
    }

    /// What time does: events whose last lease has ended are dead, agents that are silent are gone, and no time lies
    /// further ahead than it can.
    pub fn expire(&mut self, now: i64) {
        let (longest, most) = (now.saturating_add(self.rules.ack_wait), self.rules.max_deliveries);
        for item in &mut self.items {
            match &mut item.place {
                Place::Free { from, .. } => *from = (*from).min(now.saturating_add(LONGEST_DELAY)),
                Place::Held { until, .. } => *until = (*until).min(longest),
                Place::Dead { .. } => {}
            }
            if matches!(item.place, Place::Held { until, .. } if until <= now) && item.is_exhausted(most) {
                item.place = Place::Dead { reason: "its lease ended".to_owned() };
            }
        }
        self.agents.retain(|agent| agent.seen.saturating_add(LAPSE) > now);
    }

    /// Dead events, which have to be put on the channel of dead letters, and then be [`Group::buried`].
    pub fn dead(&self) -> impl Iterator<Item = (&Item, &str)> {
        self.items.iter().filter_map(|item| match &item.place {
            Place::Dead { reason } => Some((item, &**reason)),
            _ => None,
        })
    }

    /// A dead event was put on the channel of dead letters.
    pub fn buried(&mut self, seq: u64) {
        self.items.retain(|item| item.seq != seq || !matches!(item.place, Place::Dead { .. }));
    }

    // === looking ===

    /// How many events each member has on a lease that lasts.
    pub fn held(&self, now: i64) -> HashMap<u64, usize> {
        let mut held = HashMap::new();
        for item in self.items.iter().filter(|item| item.is_held(now)) {
            if let Place::Held { member, .. } = item.place {
                *held.entry(member).or_default() += 1;
            }
        }
        held
    }

    /// How many events could be given to somebody.
    pub fn free(&self, now: i64) -> usize {
        let mut busy = HashSet::new();
        let next = self.items.iter().filter(|item| is_next(self.rules.ordered, item, &mut busy));
        next.filter(|item| item.free_from().is_some_and(|(from, _)| from <= now)).count()
    }

    /// When time alone will change something next.
    pub fn next_change(&self, now: i64) -> Option<i64> {
        let others = self.others_first();
        let times = self.items.iter().filter_map(Item::free_from);
        let times =
            times.flat_map(|(from, last)| [Some(from), (last != 0).then_some(from.saturating_add(others))]);
        times.flatten().filter(|time| *time > now).min()
    }

    fn others_first(&self) -> i64 {
        if self.members() > 1 { OTHERS_FIRST.min(self.rules.ack_wait) } else { 0 }
    }

    fn find(&self, member: u64, seq: u64, delivery: Option<u32>) -> Option<usize> {
        let index = self.items.binary_search_by_key(&seq, |item| item.seq).ok()?;
        self.items[index].is_of(member, delivery).then_some(index)
    }
}

/// Whether an item is not behind another one of its partition; `busy` are the partitions of those before it.
fn is_next(ordered: bool, item: &Item, busy: &mut HashSet<u64>) -> bool {
    let dead = matches!(item.place, Place::Dead { .. });
    !dead && (!ordered || item.partition == 0 || busy.insert(item.partition))
}

/// A try has ended without success: the item is free `from` then on, or dead.
fn give_back(item: &mut Item, most: u32, from: i64, last: u64, reason: &str) {
    item.place = match item.is_exhausted(most) {
        true => Place::Dead { reason: reason.to_owned() },
        false => Place::Free { from, last },
    };
}

#[cfg(test)]
mod tests;
