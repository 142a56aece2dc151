//! What this process remembers of channels: so many of them, those that were used last.
//!
//! A channel that is *busy* has something left to do (numbers that are not written down, or not shown): it stands on a
//! list that the sweep works off, and is not forgotten before. Where there are too many of those, the oldest are saved at
//! once and go then.

use std::collections::HashMap;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Relaxed},
};
use std::sync::{Arc, Mutex};

use super::stream::State;
use crate::sync::lock;

/// So many channels are remembered; a server has a handful.
const MOST: usize = 10_000;
/// So many of them are saved at once where all are busy.
const SAVED: usize = 16;

/// A channel as this process last saw it, in one epoch.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) channel: String,
    pub(crate) epoch: Arc<str>,
    /// Events of this epoch have higher numbers than this.
    pub(crate) base: u64,
    /// Whether there was an event: of a channel that has not begun, by KernelCI's own server.
    pub(crate) exists: bool,
    /// 0: it has not begun, or has ended.
    generation: AtomicU64,
    /// The highest number that this process has seen.
    high: AtomicU64,
    /// The highest number that this process has shown and not yet written down; or 0.
    shown: AtomicU64,
    /// Whether it stands on the list of the busy ones.
    busy: AtomicBool,
    /// When it was used last: a count of uses.
    used: AtomicU64,
}

impl Known {
    fn of(channel: &str, state: &State) -> Known {
        Known {
            channel: channel.to_owned(),
            epoch: state.epoch.as_str().into(),
            base: state.base,
            exists: true,
            generation: state.generation.into(),
            high: state.head.into(),
            shown: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            used: AtomicU64::new(0),
        }
    }
    /// A channel that has not begun: readers stand behind `base`. `exists`: KernelCI's own server had it.
    pub(super) fn unborn(channel: &str, epoch: &Arc<str>, base: u64, exists: bool) -> Arc<Known> {
        Arc::new(Known {
            channel: channel.to_owned(),
            epoch: epoch.clone(),
            base,
            exists,
            generation: AtomicU64::new(0),
            high: base.into(),
            shown: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            used: AtomicU64::new(0),
        })
    }
    /// Whether numbers are given in it.
    pub(crate) fn has_begun(&self) -> bool {
        self.generation() > 0
    }
    /// The generation that numbers are given in, as far as this process knows.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }
    /// The highest number that this process has seen in this epoch.
    pub(crate) fn high(&self) -> u64 {
        self.high.load(Relaxed)
    }
    /// Remembers that event `seq` was seen.
    pub(crate) fn saw(&self, seq: u64) {
        self.high.fetch_max(seq, Relaxed);
    }
    /// The highest number that is to be written down; 0 if none is.
    pub(super) fn shown(&self) -> u64 {
        self.shown.load(Relaxed)
    }
    /// That number is written down.
    pub(super) fn wrote_down(&self, shown: u64) {
        // Fails if more has been shown meanwhile, which is written down the next time.
        _ = self.shown.compare_exchange(shown, 0, Relaxed, Relaxed);
    }
    /// Whether Redis still is where it was and nothing is missing. `floor` is [`Known::high`] from before `state` was
    /// asked for: what others saw in the meantime may well be above it.
    fn agrees(&self, state: &State, floor: u64) -> bool {
        let agrees = state.epoch == *self.epoch && state.is_whole() && state.head >= floor;
        if agrees {
            self.saw(state.head);
        }
        agrees
    }
}

/// All channels that this process remembers.
#[derive(Default)]
pub(super) struct Memory {
    known: Mutex<HashMap<String, Arc<Known>>>,
    busy: Mutex<Vec<Arc<Known>>>,
    uses: AtomicU64,
}

impl Memory {
    pub(super) fn get(&self, channel: &str) -> Option<Arc<Known>> {
        let known = lock(&self.known).get(channel).cloned()?;
        known.used.store(self.uses.fetch_add(1, Relaxed), Relaxed);
        Some(known)
    }

    /// Remembers what Redis says of a channel.
    pub(super) fn put(&self, channel: &str, state: &State) -> Arc<Known> {
        let mut all = lock(&self.known);
        let same = |known: &&Arc<Known>| *known.epoch == *state.epoch && known.base == state.base;
        if let Some(known) = all.get(channel).filter(same) {
            known.saw(state.head);
            known.generation.fetch_max(state.generation, Relaxed);
            return known.clone();
        }
        if all.len() >= MOST {
            forget_some(&mut all);
        }
        let known = Arc::new(Known::of(channel, state));
        known.used.store(self.uses.fetch_add(1, Relaxed), Relaxed);
        all.insert(channel.to_owned(), known.clone());
        known
    }

    /// If there is no room for another channel and none that is idle: the busy ones that were used longest ago, which can
    /// be forgotten when they are saved ([`Memory::forget_saved`]).
    pub(super) fn crowd(&self) -> Vec<Arc<Known>> {
        let mut all = lock(&self.known);
        if all.len() < MOST {
            return Vec::new();
        }
        forget_some(&mut all);
        if all.len() < MOST {
            return Vec::new();
        }
        let mut crowd: Vec<Arc<Known>> = all.values().cloned().collect();
        crowd.select_nth_unstable_by_key(SAVED, |known| known.used.load(Relaxed));
        crowd.truncate(SAVED);
        crowd
    }

    /// Forgets a channel whose numbers are written down, unless more of them have been shown since. (What it still has to
    /// do stays on the list.)
    pub(super) fn forget_saved(&self, known: &Arc<Known>) {
        let mut all = lock(&self.known);
        if known.shown() == 0 && all.get(&known.channel).is_some_and(|now| Arc::ptr_eq(now, known)) {
            all.remove(&known.channel);
        }
    }

    /// The channel has ended. (If there is something left to write down, the list has it.)
    pub(super) fn forget(&self, channel: &str) {
        lock(&self.known).remove(channel);
    }

    /// Whether Redis is where this process believes the channel to be; see [`Known::agrees`]. If something is not shown
    /// yet the sweep will look after it.
    pub(super) fn agrees(&self, known: &Arc<Known>, state: Option<&State>, floor: u64) -> bool {
        let Some(state) = state else { return !known.has_begun() };
        let agrees = known.has_begun() && known.agrees(state, floor);
        if agrees && state.given > state.head {
            self.attend(known);
        }
        agrees
    }

    /// This process has brought the events up to `seq` into the history and before the readers.
    pub(super) fn showed(&self, known: &Arc<Known>, seq: u64) {
        known.saw(seq);
        known.shown.fetch_max(seq, Relaxed);
        self.attend(known);
    }

    /// Puts a channel on the list of the busy ones.
    pub(super) fn attend(&self, known: &Arc<Known>) {
        if !known.busy.swap(true, AcqRel) {
            lock(&self.busy).push(known.clone());
        }
    }

    /// Takes the list of the busy ones. Whoever finds that something is left puts it there again.
    pub(super) fn take_busy(&self) -> Vec<Arc<Known>> {
        let busy = std::mem::take(&mut *lock(&self.busy));
        // What was done before somebody found it busy is seen after this.
        busy.iter().for_each(|known| _ = known.busy.swap(false, AcqRel));
        busy
    }

    /// Those that are remembered and have nothing left to do.
    pub(super) fn idle(&self) -> Vec<Arc<Known>> {
        lock(&self.known).values().filter(|known| is_idle(known)).cloned().collect()
    }
}

fn is_idle(known: &Known) -> bool {
    !known.busy.load(Relaxed) && known.shown() == 0
}

/// Forgets the eighth that was used longest ago, except what is busy: so this is seldom done.
fn forget_some(all: &mut HashMap<String, Arc<Known>>) {
    let mut uses: Vec<u64> =
        all.values().filter(|known| is_idle(known)).map(|known| known.used.load(Relaxed)).collect();
    uses.sort_unstable();
    let Some(&last) = uses.get(MOST / 8).or(uses.last()) else { return };
    all.retain(|_, known| !is_idle(known) || known.used.load(Relaxed) > last);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_down_is_not_forgotten() {
        let memory = Memory::default();
        let busy = memory.put("busy", &State::at("e", 1, 5));
        memory.showed(&busy, 7);
        memory.put("used", &State::at("e", 1, 5));
        for n in 0..3 * MOST {
            memory.put(&format!("ch-{n}"), &State::at("e", 1, 0));
            assert!(memory.get("used").is_some(), "it is used all the time");
        }
        assert!(lock(&memory.known).len() <= MOST);
        assert!(memory.get("ch-1").is_none());
        assert_eq!(memory.get("busy").unwrap().shown(), 7);
        let list = memory.take_busy();
        assert_eq!(list.iter().map(|known| &*known.channel).collect::<Vec<_>>(), ["busy"]);
        list[0].wrote_down(7);
        assert!(is_idle(&list[0]) && memory.take_busy().is_empty());
    }

    #[test]
    fn where_all_are_busy_the_oldest_are_saved_and_then_forgotten() {
        let memory = Memory::default();
        for n in 0..MOST {
            let known = memory.put(&format!("ch-{n}"), &State::at("e", 1, 0));
            memory.showed(&known, 1 + n as u64);
        }
        assert!(memory.get("ch-0").is_some(), "which is the newest now");
        let crowd = memory.crowd();
        let mut names: Vec<&str> = crowd.iter().map(|known| &*known.channel).collect();
        names.sort_unstable_by_key(|name| (name.len(), *name));
        assert_eq!(names, (1..=SAVED).map(|n| format!("ch-{n}")).collect::<Vec<_>>());
        crowd.iter().for_each(|known| memory.forget_saved(known));
        assert_eq!(lock(&memory.known).len(), MOST, "none of them is saved yet");
        crowd[1..].iter().for_each(|known| known.wrote_down(known.shown()));
        crowd.iter().for_each(|known| memory.forget_saved(known));
        assert_eq!(lock(&memory.known).len(), MOST + 1 - SAVED);
        assert!(memory.get(&crowd[0].channel).is_some() && memory.get(&crowd[1].channel).is_none());
        assert!(memory.crowd().is_empty(), "there is room");
    }

    #[test]
    fn what_is_not_shown_is_looked_after() {
        let memory = Memory::default();
        let known = memory.put("ch", &State::at("e", 1, 5));
        assert!(memory.agrees(&known, Some(&State::at("e", 1, 6)), 5));
        assert!(memory.take_busy().is_empty());
        let unshown = State::at("e", 1, 6).with_pending(8);
        assert!(memory.agrees(&known, Some(&unshown), 6));
        assert!(memory.agrees(&known, Some(&unshown), 6));
        assert_eq!(memory.take_busy().len(), 1, "once");
        assert!(!memory.agrees(&known, Some(&State::at("other", 1, 6)), 6));
        assert!(!memory.agrees(&known, None, 6), "Redis has forgotten it");
        let unborn = Known::unborn("new", &"e".into(), 0, false);
        assert!(memory.agrees(&unborn, None, 0));
        assert!(!memory.agrees(&unborn, Some(&State::at("e", 1, 1)), 0), "it has begun");
    }
}
