//! A member of a group, as its session sees it: a bounded queue of events, and what to say about each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot};

use super::state::{MOST_KEPT, Stalled};
use crate::error::{Error, Kind, Result};
use crate::model::event::Entry;
use crate::sync::{Bell, lock};

/// Things that members have asked and that are not done yet, of one group on one instance.
const MOST_ASKS: usize = 4096;
/// Ranges of missed events that a session has yet to be told; more become one, of which parts were not missed.
const MOST_GAPS: usize = MOST_KEPT;
/// Bytes of events that wait for a session before its member gets more.
pub(super) const READY_BYTES: usize = 1 << 20;

/// What a member gets.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// An event, and how often it has been given to somebody, this time included.
    Event(Arc<Entry>, u32),
    /// These events can no longer be read by anybody in the group.
    Gap(Gap),
    /// Nothing comes until events are due that were given back.
    Stalled(Stalled),
}

/// A range of numbers that nobody in the group gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// First.
    pub from: u64,
    /// Last; before `from` if it is not known what is missing.
    pub to: u64,
    /// History was lost: what numbers count in from here on.
    pub epoch: Option<Arc<str>>,
}

/// What a member says about an event.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It is not, and somebody is to get it after so many milliseconds. Why, if the member knows.
    Retry(i64, Option<String>),
    /// It takes longer.
    Extend,
}

/// Why a group has ended for its members here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The consumer was put to another place.
    Moved,
    /// The consumer was removed.
    Deleted,
    /// Nobody was a member any more.
    Empty,
    /// The server shuts down.
    Closing,
}

/// A member; dropping it gives back what it holds.
pub struct Member {
    number: u64,
    shared: Arc<Shared>,
}

/// Something that a member has said and that is about to be written down.
pub struct Said {
    seq: u64,
    shared: Arc<Shared>,
    answer: oneshot::Receiver<bool>,
}

impl Said {
    /// Waits until it is written down: 409 if the event was not in the member's hands.
    pub async fn written(self) -> Result<()> {
        match self.answer.await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let detail = format!("seq: event {} is not in the hands of this member (any more)", self.seq);
                Err(Error::new(Kind::Conflict, detail))
            }
            Err(_) => Err(over(&self.shared)),
        }
    }
}

impl Member {
    /// Its number in the group.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What comes next, if it is there. Its session is woken when there is something.
    pub fn next(&self) -> Option<Delivery> {
        let mut inner = lock(&self.shared.inner);
        let local = inner.locals.get_mut(&self.number)?;
        if let Some(gap) = local.gaps.pop_front() {
            return Some(Delivery::Gap(gap));
        }
        if let Some(Stall::Untold(stalled)) = local.stall {
            local.stall = Some(Stall::Told);
            return Some(Delivery::Stalled(stalled));
        }
        let (entry, deliveries) = local.ready.pop_front()?;
        let was_full = local.is_full();
        local.bytes = local.bytes.saturating_sub(entry.json.len());
        if was_full && !local.is_full() {
            self.shared.wake.ring();
        }
        Some(Delivery::Event(entry, deliveries))
    }

    /// Whether [`Member::next`] has something.
    pub fn has_next(&self) -> bool {
        let inner = lock(&self.shared.inner);
        inner.locals.get(&self.number).is_some_and(Local::has_next)
    }

    /// Why it is no member any more, if so.
    pub fn ended(&self) -> Option<Ended> {
        lock(&self.shared.inner).ended
    }

    /// Says something about an event; `delivery` says at which delivery it was, in case it has come a second time
    /// meanwhile. Takes no time: it is written down afterwards.
    pub fn say(&self, seq: u64, delivery: Option<u32>, verdict: Verdict) -> Result<Said> {
        let (reply, answer) = oneshot::channel();
        self.shared.ask(Ask::Settle { member: self.number, seq, delivery, verdict, reply })?;
        Ok(Said { seq, shared: self.shared.clone(), answer })
    }

    /// Leaves, if it has not left: what it holds is given back.
    pub fn leave(&self) {
        let mut inner = lock(&self.shared.inner);
        if inner.ended.is_some() {
            return;
        }
        let staying = inner.locals.get_mut(&self.number).filter(|local| !local.leaving);
        let Some(local) = staying else { return };
        local.leaving = true;
        inner.asks.push(Ask::Leave(self.number));
        drop(inner);
        self.shared.wake.ring();
    }

    /// Waits until that is written down.
    pub async fn left(&self) {
        loop {
            let mut left = std::pin::pin!(self.shared.left.notified());
            left.as_mut().enable();
            if self.ended().is_some() || !lock(&self.shared.inner).locals.contains_key(&self.number) {
                return;
            }
            left.await;
        }
    }

    /// The server sends its session away: what it holds is given back as if it had not been tried.
    pub fn excuse(&self) {
        if let Some(local) = lock(&self.shared.inner).locals.get_mut(&self.number) {
            local.excused = true;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What the members of one group on one instance share with the task that acts for them.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// Wakes that task.
    pub(super) wake: Arc<Bell>,
    /// A member has left.
    left: Notify,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) locals: BTreeMap<u64, Local>,
    pub(super) asks: Vec<Ask>,
    /// Set when nothing will be done any more, with the reason.
    pub(super) ended: Option<Ended>,
}

/// One member of this instance.
pub(super) struct Local {
    pub(super) window: usize,
    session: Arc<Bell>,
    ready: VecDeque<(Arc<Entry>, u32)>,
    bytes: usize,
    gaps: VecDeque<Gap>,
    stall: Option<Stall>,
    pub(super) excused: bool,
    leaving: bool,
}

impl Local {
    pub(super) fn new(window: usize, session: Arc<Bell>) -> Local {
        Local {
            window,
            session,
            ready: VecDeque::new(),
            bytes: 0,
            gaps: VecDeque::new(),
            stall: None,
            excused: false,
            leaving: false,
        }
    }

    /// Bytes of events that its session has not sent.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_full(&self) -> bool {
        self.bytes >= READY_BYTES
    }

    /// The events that its session has not sent.
    pub(super) fn unsent(&self) -> impl Iterator<Item = u64> {
        self.ready.iter().map(|(entry, _)| entry.seq)
    }

    pub(super) fn deliver(&mut self, entry: Arc<Entry>, deliveries: u32) {
        self.bytes += entry.json.len();
        self.ready.push_back((entry, deliveries));
        self.session.call();
    }

    /// Forgets what its session has not sent and somebody else has got meanwhile.
    pub(super) fn keep(&mut self, is_its: impl Fn(u64, u32) -> bool) {
        self.ready.retain(|(entry, deliveries)| is_its(entry.seq, *deliveries));
        self.bytes = self.ready.iter().map(|(entry, _)| entry.json.len()).sum();
    }

    fn has_next(&self) -> bool {
        !self.ready.is_empty() || !self.gaps.is_empty() || matches!(self.stall, Some(Stall::Untold(_)))
    }

    /// Nothing comes for a while. Told once, until it goes on.
    pub(super) fn tell_stall(&mut self, stalled: Stalled) {
        if self.stall.is_none() {
            self.stall = Some(Stall::Untold(stalled));
            self.session.call();
        }
    }

    /// Something comes again.
    pub(super) fn go_on(&mut self) {
        self.stall = None;
    }

    pub(super) fn tell_gap(&mut self, gap: Gap) {
        let full = self.gaps.len() >= MOST_GAPS;
        let follows = |last: &Gap| gap.epoch.is_none() && last.to.checked_add(1) == Some(gap.from);
        match self.gaps.back_mut().filter(|last| full || follows(last)) {
            Some(last) => {
                (last.from, last.to) = (last.from.min(gap.from), last.to.max(gap.to));
                last.epoch = gap.epoch.or(last.epoch.take());
            }
            None => self.gaps.push_back(gap),
        }
        self.session.call();
    }
}

/// Whether a session knows that nothing comes.
enum Stall {
    Untold(Stalled),
    Told,
}

/// What is asked of a group's task.
pub(super) enum Ask {
    /// Somebody wants to be a member.
    Join {
        window: usize,
        session: Arc<Bell>,
        /// `None`: there are too many.
        reply: oneshot::Sender<Option<Member>>,
    },
    /// A member has gone.
    Leave(u64),
    /// A member says something about an event.
    Settle {
        member: u64,
        seq: u64,
        delivery: Option<u32>,
        verdict: Verdict,
        /// Whether the event was in its hands.
        reply: oneshot::Sender<bool>,
    },
}

impl Shared {
    pub(super) fn new() -> Arc<Shared> {
        Arc::new(Shared { inner: Mutex::default(), wake: Arc::default(), left: Notify::new() })
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    pub(super) fn member(self: &Arc<Self>, number: u64) -> Member {
        Member { number, shared: self.clone() }
    }

    /// Asks for something: 503 if too much was asked already.
    pub(super) fn ask(&self, ask: Ask) -> Result<()> {
        let mut inner = lock(&self.inner);
        if inner.ended.is_some() && matches!(ask, Ask::Join { .. }) {
            // Whoever waits for the answer finds that there will be none, and tries again.
            return Ok(());
        }
        if inner.ended.is_some() {
            drop(inner);
            return Err(over(self));
        }
        if inner.asks.len() >= MOST_ASKS {
            let cause = anyhow::anyhow!("{MOST_ASKS} requests of a group wait");
            return Err(Error::unavailable("store", cause).retry_after(1000));
        }
        inner.asks.push(ask);
        drop(inner);
        self.wake.ring();
        Ok(())
    }

    /// Nothing will be done any more: tells the sessions.
    pub(super) fn end(&self, why: Ended) {
        let mut inner = lock(&self.inner);
        inner.ended.get_or_insert(why);
        // Who waits for an answer gets none.
        inner.asks.clear();
        for local in inner.locals.values() {
            local.session.call();
        }
        self.left.notify_waiters();
    }

    /// Members that have left are noted.
    pub(super) fn have_left(&self) {
        self.left.notify_waiters();
    }

    /// Whether nothing will be done any more.
    pub(super) fn is_over(&self) -> bool {
        lock(&self.inner).ended.is_some()
    }

    /// Ends if nobody is or wants to be a member.
    pub(super) fn end_if_empty(&self) -> bool {
        let mut inner = lock(&self.inner);
        if !inner.locals.is_empty() || !inner.asks.is_empty() {
            return false;
        }
        inner.ended = Some(Ended::Empty);
        true
    }
}

fn over(shared: &Shared) -> Error {
    let why = lock(&shared.inner).ended;
    match why {
        Some(Ended::Moved) => Error::new(Kind::Conflict, "sub: the group was moved: subscribe again"),
        Some(Ended::Deleted) => Error::new(Kind::Conflict, "sub: the group was deleted"),
        Some(Ended::Empty | Ended::Closing) | None => {
            Error::new(Kind::Unavailable, "sub: the group is no longer served here: subscribe again")
                .retry_after(100)
        }
    }
}
