//! What acts for the members of one group on one instance.
//!
//! ```text
//! members ask ─┐
//! the log moves ├→ plan (on a copy of the state) → write it, if nobody else has written → tell the members
//! time passes ──┘        ↑                               │ somebody has: read, and plan anew
//!                        └───────────────────────────────┘
//! ```
//!
//! Everything that was asked meanwhile goes into one write. The coordinators of several instances know nothing of each
//! other: whoever is overtaken reads the state and goes on from there. A signal wakes the others when there is something
//! that nobody here can take; they also look by themselves, since signals may get lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::dead_letter::{self, Dead};
use super::member::{Ask, Ended, Gap, Local, Shared};
use super::plan::{Outcome, Plan, Source, Wants, apply};
use super::state::{Group, Rules, Stalled};
use crate::background::guarded;
use crate::error::{Error, Result};
use crate::hub::Follower;
use crate::metrics;
use crate::quota::Share;
use crate::signals::{Listener, Signals};
use crate::store::Store;
use crate::store::consumer_groups::KeptGroup;
use crate::store::consumers::{ConsumerKey, Cursor};

/// A place that moves without a match is written down this often, or after so many events.
const SAVE: Duration = Duration::from_secs(10);
const SAVE_EVENTS: u64 = 4096;
/// How often it looks what others have written: a part of the lease, within these.
const LOOK: std::ops::RangeInclusive<u64> = 500..=10_000;
/// Other instances are woken at most this often.
const SIGNAL: Duration = Duration::from_millis(20);
/// How long to rest while the store or the log is away.
const REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(500);
/// Dead letters that are written at the same time.
const BURIALS: usize = 4;

/// The run of the group is over: why.
struct Over(Ended);

/// See the module's documentation.
pub(super) struct Coordinator {
    store: Arc<dyn Store>,
    signals: Arc<dyn Signals>,
    source: Arc<Source>,
    follower: Follower,
    shared: Arc<Shared>,
    listener: Listener,
    about: Arc<About>,
    /// The state as it was last read or written.
    group: Group,
    turn: u64,
    clock: Clock,
    /// Up to here nothing matches but what the state has.
    looked: u64,
    batch: u64,
    asks: Vec<Ask>,
    burials: JoinSet<Option<(u64, bool)>>,
    burying: HashSet<u64>,
    buried: Vec<u64>,
    written: Instant,
    loaded: Instant,
    /// How many gaps the members know of, and the epoch.
    told: (u64, Arc<str>),
    /// Others were told that there is something for them, and when.
    signalled: (bool, Instant),
    signal_at: Option<Instant>,
    /// Events could not be read.
    retry_at: Option<Instant>,
    /// So many events are held back that nothing is given.
    is_stalled: bool,
}

/// What does not change during a run.
pub(super) struct About {
    /// The run: the consumer's id.
    pub(super) id: u64,
    /// What the consumer is stored as, and what its owner calls it.
    pub(super) name: String,
    pub(super) own_name: String,
    pub(super) owner: String,
    pub(super) channel: String,
    /// How much the owner may have: the channel of dead letters is theirs. `None`: it counts for nobody.
    pub(super) share: Option<Share>,
    pub(super) rules: Rules,
    /// This agent, and the instance that it is on.
    pub(super) agent: u64,
    pub(super) instance: String,
    /// How old a sign of life may get.
    pub(super) renew: u64,
    /// CloudEvent `source` of dead letters.
    pub(super) source: String,
}

/// What is signalled when a group has something for other instances, or has changed.
pub fn topic(name: &str) -> String {
    format!("group:{name}")
}

/// What a coordinator works with.
pub(super) struct Tools {
    pub(super) store: Arc<dyn Store>,
    pub(super) signals: Arc<dyn Signals>,
    pub(super) source: Source,
    pub(super) follower: Follower,
    pub(super) shared: Arc<Shared>,
}

/// Reads what is kept of a group.
pub fn read(kept: &KeptGroup, rules: Rules) -> Group {
    let cursor = &kept.consumer.cursor;
    let begin = || Group::new(rules, &cursor.epoch, cursor.seq);
    let Some(text) = &kept.state else { return begin() };
    Group::from_text(rules, text).unwrap_or_else(|error| {
        // Nothing is lost: everything behind the place comes again.
        tracing::error!(id = kept.consumer.id, %error, "the state of a group cannot be read");
        begin()
    })
}

impl Coordinator {
    pub(super) fn new(tools: Tools, about: About, kept: &KeptGroup) -> Coordinator {
        let group = read(kept, about.rules);
        let now = Instant::now();
        Coordinator {
            listener: tools.signals.listen(&topic(&about.name)),
            store: tools.store,
            signals: tools.signals,
            source: Arc::new(tools.source),
            follower: tools.follower,
            shared: tools.shared,
            about: Arc::new(about),
            turn: kept.consumer.turn,
            clock: Clock::at(kept.now),
            looked: group.fetched().1,
            told: (group.gaps().1, Arc::from(group.fetched().0)),
            group,
            batch: 0,
            asks: Vec::new(),
            burials: JoinSet::new(),
            burying: HashSet::new(),
            buried: Vec::new(),
            written: now,
            loaded: now,
            signalled: (false, now),
            signal_at: None,
            retry_at: None,
            is_stalled: false,
        }
    }

    /// Until nobody is a member any more, or the group has ended.
    pub(super) async fn run(mut self, closing: CancellationToken) {
        let ended = tokio::select! {
            ended = self.work() => ended,
            () = closing.cancelled() => Err(Over(Ended::Closing)),
        };
        if let Err(Over(why)) = ended {
            tracing::debug!(group = self.about.name, ?why, "a group ends here");
            self.shared.end(why);
        }
    }

    async fn work(&mut self) -> Result<(), Over> {
        loop {
            let more = self.step().await?;
            self.bury();
            self.signal().await;
            let buried = self.buried.is_empty() && self.group.dead().next().is_none();
            if self.asks.is_empty() && buried && self.shared.end_if_empty() {
                return Ok(());
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            let (next_look, next) = (self.next_look(), self.next_time());
            let wake = self.shared.wake.clone();
            let look = tokio::select! {
                () = wake.rung() => false,
                () = self.listener.heard() => true,
                () = sleep_until(next_look) => true,
                () = sleep_until(next) => false,
                Some(Ok(Some((seq, buried)))) = self.burials.join_next() => {
                    self.buried(seq, buried);
                    false
                }
            };
            if look {
                self.load().await?;
            }
        }
    }

    /// Does everything that can be done now, in one write. Whether there is more.
    async fn step(&mut self) -> Result<bool, Over> {
        self.asks.append(&mut self.shared.lock().asks);
        for conflicts in 0_u32.. {
            let plan = self.plan().await;
            let idle = self.looked.max(plan.looked) <= self.group.fetched().1
                || (self.written.elapsed() < SAVE && plan.looked < self.group.fetched().1 + SAVE_EVENTS);
            if plan.next == self.group && idle {
                return Ok(self.finish(plan));
            }
            let mut next = plan.next.clone();
            let epoch = next.fetched().0.to_owned();
            next.fetch(&epoch, &[], plan.looked, self.clock.now());
            if self.write(next).await? {
                return Ok(self.finish(plan));
            }
            let most = 1 << conflicts.min(5);
            sleep(Duration::from_millis(rand::random_range(0..=most))).await;
        }
        Ok(false)
    }

    async fn plan(&self) -> Plan {
        let now = self.clock.now();
        let mut next = self.group.clone();
        next.expire(now);
        next.told(self.told.0);
        let outcomes = apply(&mut next, &self.asks, &self.shared, now);
        let members = self.members(&outcomes);
        next.present(self.about.agent, &self.about.instance, &members, now, self.about.renew);
        self.buried.iter().for_each(|seq| next.buried(*seq));
        let wants = Wants::of(&next, &self.shared, &members, now);
        let looked = self.looked;
        let mut plan = Plan { next, outcomes, given: Vec::new(), looked, more: false, failed: false };
        if !wants.is_empty() {
            let before = plan.next.clone();
            if let Err(error) = plan.give(&self.source, wants, now).await {
                tracing::debug!(group = self.about.name, %error, "events cannot be read; trying again");
                // What was asked is done nevertheless.
                plan = Plan { next: before, given: Vec::new(), looked, more: false, failed: true, ..plan };
            }
        }
        plan
    }

    /// The members here, after what was asked.
    fn members(&self, outcomes: &[Outcome]) -> Vec<u64> {
        let mut members: Vec<u64> = self.shared.lock().locals.keys().copied().collect();
        for (ask, outcome) in self.asks.iter().zip(outcomes) {
            match (ask, outcome) {
                (_, Outcome::Joined(Some(number))) => members.push(*number),
                (Ask::Leave(gone), _) => members.retain(|member| member != gone),
                _ => {}
            }
        }
        members
    }

    /// Writes the state. False: somebody else has, and that is read.
    async fn write(&mut self, mut next: Group) -> Result<bool, Over> {
        self.batch += 1;
        next.stamp(self.about.agent, self.batch);
        let cursor = Cursor::at(next.fetched().0, next.floor());
        let text = next.to_text().unwrap_or_default();
        match self.store.move_consumer_group(self.about.id, self.turn, &cursor, &text).await {
            Ok(true) => {
                (self.group, self.written) = (next, Instant::now());
                self.turn += 1;
                return Ok(true);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(group = self.about.name, %error, "a group cannot be written; trying again");
            }
        }
        self.load().await?;
        // It may have come through although its answer did not.
        let agents = self.group.agents().iter();
        let came_through =
            agents.filter(|agent| agent.id == self.about.agent).any(|agent| agent.batch == self.batch);
        if came_through {
            self.written = Instant::now();
        }
        Ok(came_through)
    }

    /// Reads the state, again and again while the store is away.
    async fn load(&mut self) -> Result<(), Over> {
        let mut rest = REST;
        loop {
            match self.store.consumer_group(self.about.id).await {
                Ok(Some(kept)) => {
                    (self.clock, self.loaded) = (Clock::at(kept.now), Instant::now());
                    if kept.consumer.turn != self.turn {
                        self.group = read(&kept, self.about.rules);
                        self.turn = kept.consumer.turn;
                        self.looked = self.looked.max(self.group.fetched().1);
                        self.tell_gaps();
                    }
                    return Ok(());
                }
                Ok(None) => {
                    let name = ConsumerKey::Name(&self.about.name);
                    let gone = matches!(self.store.consumer(name).await, Ok(None));
                    return Err(Over(match gone {
                        true => Ended::Deleted,
                        false => Ended::Moved,
                    }));
                }
                Err(error) => {
                    tracing::debug!(group = self.about.name, %error, "a group cannot be read; trying again");
                }
            }
            sleep(rest).await;
            rest = (rest * 2).min(LONGEST_REST);
        }
    }

    /// Tells the members what has come of a step that is written. Whether there is more to do.
    fn finish(&mut self, plan: Plan) -> bool {
        self.looked = self.looked.max(plan.looked);
        self.follower.saw(self.looked);
        self.buried.clear();
        self.retry_at = plan.failed.then(|| Instant::now() + RETRY);
        let redelivered = plan.given.iter().filter(|(given, _)| given.deliveries > 1).count();
        metrics::GROUP_REDELIVERIES.counter(&[]).increment(redelivered as u64);
        // Before what comes behind them.
        self.tell_gaps();
        let mut joined = Vec::new();
        let mut inner = self.shared.lock();
        let holds = |member: u64, seq: u64, deliveries: u32| {
            let items = self.group.items();
            let item = items.binary_search_by_key(&seq, |item| item.seq).ok().map(|index| &items[index]);
            item.is_some_and(|item| item.is_of(member, Some(deliveries)))
        };
        for (&number, local) in &mut inner.locals {
            local.keep(|seq, deliveries| holds(number, seq, deliveries));
        }
        for (given, entry) in plan.given {
            if let Some(local) = inner.locals.get_mut(&given.member) {
                local.deliver(entry, given.deliveries);
            }
        }
        for (ask, outcome) in self.asks.drain(..).zip(plan.outcomes) {
            match (ask, outcome) {
                (Ask::Join { window, session, reply }, Outcome::Joined(number)) => {
                    if let Some(number) = number {
                        inner.locals.insert(number, Local::new(window, session));
                    }
                    joined.push((number, reply));
                }
                (Ask::Leave(member), _) => {
                    inner.locals.remove(&member);
                }
                (Ask::Settle { reply, .. }, Outcome::Settled(done)) => {
                    let _ = reply.send(done);
                }
                _ => {}
            }
        }
        drop(inner);
        self.shared.have_left();
        let more = plan.more || !joined.is_empty();
        self.tell_stall();
        for (number, reply) in joined {
            // Whoever does not wait any more drops the member, and so leaves.
            let _ = reply.send(number.map(|number| self.shared.member(number)));
        }
        more
    }

    /// Tells the members what they will not get.
    fn tell_gaps(&mut self) {
        let (epoch, fetched) = self.group.fetched();
        let mut lost: Option<Arc<str>> = (*self.told.1 != *epoch).then(|| Arc::from(epoch));
        let mut ranges = self.group.gaps_after(self.told.0);
        if ranges.is_empty() && lost.is_some() {
            ranges.push((fetched.saturating_add(1), fetched));
        }
        let mut inner = self.shared.lock();
        // Who joins is told, if nobody is here now.
        if ranges.is_empty() || inner.locals.is_empty() {
            return;
        }
        for (from, to) in ranges {
            tracing::warn!(group = self.about.name, from, to, epoch, "a group has missed events");
            let lost = lost.take();
            for local in inner.locals.values_mut() {
                local.tell_gap(Gap { from, to, epoch: lost.clone() });
            }
        }
        drop(inner);
        self.told = (self.group.gaps().0, Arc::from(epoch));
    }

    /// Tells the members that nothing comes for a while, once each time.
    fn tell_stall(&mut self) {
        let stalled = self.group.stalled(self.clock.now());
        if let Some(stalled) = stalled {
            let begins = !std::mem::replace(&mut self.is_stalled, true);
            if begins {
                let Stalled { delayed, in_ms } = stalled;
                tracing::warn!(
                    group = self.about.name,
                    delayed,
                    in_ms,
                    "a group waits for what was given back"
                );
            }
            for local in self.shared.lock().locals.values_mut() {
                local.tell_stall(stalled);
            }
        } else if std::mem::take(&mut self.is_stalled) {
            self.shared.lock().locals.values_mut().for_each(Local::go_on);
        }
    }

    /// Puts dead events on their channel.
    fn bury(&mut self) {
        for (item, reason) in self.group.dead() {
            if self.burials.len() >= BURIALS {
                return;
            }
            if !self.burying.insert(item.seq) {
                continue;
            }
            let (store, source, about) = (self.store.clone(), self.source.clone(), self.about.clone());
            let (seq, deliveries, reason) = (item.seq, item.deliveries, reason.to_owned());
            let burial = async move {
                let buried = bury(&*store, &source, &about, seq, deliveries, &reason).await;
                if let Err(error) = &buried {
                    tracing::debug!(group = about.name, seq, %error, "a dead letter cannot be written");
                    sleep(LONGEST_REST).await;
                }
                (seq, buried.is_ok())
            };
            self.burials.spawn(guarded("burial", burial));
        }
    }

    fn buried(&mut self, seq: u64, done: bool) {
        self.burying.remove(&seq);
        if done && self.group.dead().any(|(item, _)| item.seq == seq) {
            self.buried.push(seq);
            metrics::GROUP_DEAD_LETTERS.counter(&[]).increment(1);
        }
    }

    /// Wakes the others when there is something that nobody here takes.
    async fn signal(&mut self) {
        let now = self.clock.now();
        let others = self.group.agents().len() > 1;
        let anything = self.group.free(now) > 0
            || (self.group.room(now) > 0 && self.source.channel.head() > self.looked);
        if !others || !anything {
            (self.signalled.0, self.signal_at) = (false, None);
        } else if !self.signalled.0 {
            let due = self.signalled.1 + SIGNAL;
            if due > Instant::now() {
                self.signal_at = Some(due);
                return;
            }
            (self.signalled, self.signal_at) = ((true, Instant::now()), None);
            self.signals.send(&topic(&self.about.name)).await;
        }
    }

    /// When to look what others have written.
    fn next_look(&self) -> Instant {
        let part = u64::try_from(self.about.rules.ack_wait / 4).unwrap_or(0);
        let every = Duration::from_millis(part.clamp(*LOOK.start(), *LOOK.end()));
        self.loaded + every
    }

    /// When time alone will change something.
    fn next_time(&self) -> Instant {
        let now = self.clock.now();
        let renew = self.written + Duration::from_millis(self.about.renew);
        let change = self.group.next_change(now).map(|time| self.clock.when(time));
        let times = [change, self.signal_at, self.retry_at].into_iter().flatten();
        times.fold(renew, Instant::min).max(Instant::now() + Duration::from_millis(1))
    }
}

/// The channel for a dead letter. It is claimed for the group's owner before it begins; where they have no room for it the
/// letter goes to the one that they have for that.
async fn burial_place(store: &dyn Store, source: &Source, about: &About) -> Result<String> {
    let own = dead_letter::channel(&about.name);
    let Some(share) = &about.share else { return Ok(own) };
    let room = match source.log.exists(&own).await? {
        true => Ok(()),
        false => store.claim_channel(&own, share).await?,
    };
    let overflow = dead_letter::overflow(share.user);
    match room {
        // Whoever had a group of this name before reads it.
        Ok(()) if store.channel_owner(&own).await?.is_some_and(|owner| owner != share.user) => Ok(overflow),
        Ok(()) => Ok(own),
        Err(over) => {
            let error = Error::from(over);
            tracing::warn!(group = about.name, %error, overflow, "a dead letter goes to another channel");
            Ok(overflow)
        }
    }
}

async fn bury(
    store: &dyn Store,
    source: &Source,
    about: &About,
    seq: u64,
    deliveries: u32,
    reason: &str,
) -> Result<()> {
    let to = burial_place(store, source, about).await?;
    let entry = source.entry(seq).await?;
    let dead = Dead {
        group: (&about.name, about.id),
        own_name: &about.own_name,
        owner: &about.owner,
        to,
        channel: &about.channel,
        seq,
        deliveries,
        reason,
        entry: entry.as_deref(),
        source: &about.source,
    };
    source.log.publish(dead_letter::letter(dead)).await?;
    tracing::info!(group = about.name, seq, deliveries, reason, "an event is dead");
    Ok(())
}
