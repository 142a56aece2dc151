//! The relay: from the outboxes into the logs.
//!
//! After a commit its events go to a queue in this process; the relay has Redis give them numbers, brings them into the
//! history and before the readers ([`Channels::settle`]), and only then removes them from the outbox. Nobody waits for
//! it except `publish`, whose events are in no outbox as long as it does. What a full queue, a dead process or a Redis
//! outage left behind is found by the [`sweep`](super::sweep) that every instance makes.
//!
//! * Once: `append.lua` recognises an event for an hour. Whatever may be older (a second try, somebody else's entry)
//!   is first looked for in the history, which takes no event and no number twice.
//! * In order: an outbox is always relayed from its oldest entry on.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::clean::Cleaner;
use super::epoch::Channels;
use super::outbox::{Job, Outboxes, Pending};
use super::settle::Settled;
use super::stream::Item;
use super::sweep::Sweep;
use crate::background;
use crate::error::{Error, Result};
use crate::model::ObjectId;
use crate::model::event::stamp;

/// Events that are appended, persisted and cleaned up in one step.
const BATCH: usize = 256;
/// Bytes of them, or one that is larger: Redis has to answer within seconds, or it is all done again.
const BATCH_BYTES: usize = 8 << 20;
/// Commits whose events wait in this process.
const QUEUE: usize = 4096;
/// Bytes of events that wait in this process, in units of [`UNIT`]. The rest stays in the outboxes for the sweep.
const QUEUE_UNITS: usize = 64 * 1024;
const UNIT: usize = 1024;
/// How often events are given new numbers in one go.
const ROUNDS: usize = 5;
/// How long an orderly end may take.
const DRAIN: Duration = Duration::from_secs(5);

/// What the relay does; anything but `Run` is for tests of crashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelayMode {
    /// Everything.
    #[default]
    Run,
    /// Nothing, as if the process had died after the commit.
    Off,
    /// Appends to Redis and then forgets, as if the process had died there.
    AppendOnly,
}

/// Hands events to the relay.
#[derive(Clone)]
pub(crate) struct Relay {
    outboxes: Outboxes,
    queue: mpsc::Sender<(Vec<Job>, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
    /// Commits that have entered the queue, and that have left it.
    taken: Arc<AtomicU64>,
    relayed: Arc<watch::Sender<u64>>,
    stop: CancellationToken,
    done: watch::Receiver<bool>,
}

impl Relay {
    /// Queues events, oldest first; if there is no room, the sweep will find them.
    pub(crate) fn submit(&self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let permit = self.room.clone().try_acquire_many_owned(units(&jobs));
        if let (Ok(permit), Ok(place)) = (permit, self.queue.try_reserve()) {
            self.taken.fetch_add(1, SeqCst);
            return place.send((jobs, permit));
        }
        tracing::debug!("the relay's queue is full; the events stay in their outboxes for now");
    }

    /// Queues an event when there is room; it is dropped if the relay has ended.
    pub(crate) async fn stand_in_line(&self, job: Job) {
        let Ok(permit) = self.room.clone().acquire_many_owned(units(std::slice::from_ref(&job))).await else {
            return;
        };
        if let Ok(place) = self.queue.reserve().await {
            self.taken.fetch_add(1, SeqCst);
            place.send((vec![job], permit));
        }
    }

    /// Waits until what is in the queue now has been relayed.
    pub(crate) async fn settled(&self) {
        // Counted before it enters the queue: at least as many as stand before the last one that the caller knows of.
        let taken = self.taken.load(SeqCst);
        let mut relayed = self.relayed.subscribe();
        // The sender lives as long as `self`.
        drop(relayed.wait_for(|relayed| *relayed >= taken).await);
    }

    /// The events of a node's outbox with what stands beside it; `None` if they are left to the sweep.
    pub(crate) async fn whole(&self, node: ObjectId, pending: Vec<Pending>) -> Option<Vec<Pending>> {
        let whole = self.outboxes.whole(node, pending).await;
        whole.inspect_err(|error| tracing::debug!(%error, "events stay in their outbox for now")).ok()
    }

    /// How many events wait in the outboxes of all instances.
    pub(crate) async fn pending(&self) -> Result<u64> {
        self.outboxes.pending().await
    }

    /// Stops after what is queued has been relayed, or a few seconds.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        let mut done = self.done.clone();
        drop(tokio::time::timeout(DRAIN + Duration::from_secs(1), done.wait_for(|done| *done)).await);
    }
}

struct Worker {
    channels: Arc<Channels>,
    mode: RelayMode,
    queue: mpsc::Receiver<(Vec<Job>, OwnedSemaphorePermit)>,
    relayed: Arc<watch::Sender<u64>>,
    stop: CancellationToken,
    /// What the sweep has found.
    overdue: mpsc::Receiver<Vec<Job>>,
    cleaner: Cleaner,
}

/// Starts the relay of this process.
pub(crate) fn start(channels: Arc<Channels>, outboxes: Outboxes, mode: RelayMode) -> Relay {
    let (sender, queue) = mpsc::channel(QUEUE);
    let (finished, done) = watch::channel(false);
    let stop = CancellationToken::new();
    let relayed = Arc::new(watch::Sender::new(0));
    let relay = Relay {
        outboxes: outboxes.clone(),
        queue: sender,
        room: Arc::new(Semaphore::new(QUEUE_UNITS)),
        taken: Arc::default(),
        relayed: relayed.clone(),
        stop: stop.clone(),
        done,
    };
    let cleaner = Cleaner::start(outboxes.clone());
    let (found, overdue) = mpsc::channel(1);
    if mode == RelayMode::Run {
        background::spawn("sweep", Sweep::new(channels.clone(), outboxes, found).run(stop.clone()));
    }
    let worker = Worker { channels, mode, queue, relayed, stop, overdue, cleaner };
    background::spawn("relay", async move {
        worker.run().await;
        finished.send_replace(true);
    });
    relay
}

impl Worker {
    async fn run(mut self) {
        if self.mode == RelayMode::Off {
            self.queue.close();
            return self.stop.cancelled().await;
        }
        loop {
            tokio::select! {
                queued = self.queue.recv() => match queued {
                    Some(queued) => self.take(queued).await,
                    None => break,
                },
                Some(overdue) = self.overdue.recv() => self.relay_all(overdue).await,
                () = self.stop.cancelled() => break,
            }
        }
        let drain = async {
            while let Ok(queued) = self.queue.try_recv() {
                self.take(queued).await;
            }
            self.cleaner.close().await;
            self.channels.write_all_down().await
        };
        if tokio::time::timeout(DRAIN, drain).await.is_err() {
            tracing::warn!(
                "stopped with events in the outboxes; they are relayed by another instance or at the next start"
            );
        }
    }

    /// Relays one queued commit together with what else is queued, up to a batch.
    async fn take(&mut self, first: (Vec<Job>, OwnedSemaphorePermit)) {
        let (mut jobs, mut permits) = (first.0, vec![first.1]);
        while jobs.len() < BATCH {
            let Ok((more, permit)) = self.queue.try_recv() else { break };
            jobs.extend(more);
            permits.push(permit);
        }
        self.relay_all(jobs).await;
        self.relayed.send_modify(|relayed| *relayed += permits.len() as u64);
    }

    async fn relay_all(&mut self, jobs: Vec<Job>) {
        let mut jobs = VecDeque::from(jobs);
        while !jobs.is_empty() {
            let mut bytes = 0;
            let is_within = |job: &&Job| {
                let first = bytes == 0;
                bytes += job.event.json.len() + 1;
                first || bytes <= BATCH_BYTES
            };
            let count = jobs.iter().take(BATCH).take_while(is_within).count();
            let batch = jobs.drain(..count).collect();
            if !self.relay(batch).await {
                // What follows may be of the same nodes.
                return;
            }
        }
    }

    /// Relays a batch, again and again until it is done: what follows must not overtake it. False: it has to stop.
    async fn relay(&mut self, mut batch: Vec<Job>) -> bool {
        // Only before the first try: then they may have numbers, which others wait for.
        batch.retain(Job::is_wanted);
        let mut delay = 50;
        loop {
            let Err(error) = self.try_relay(&mut batch).await else { return true };
            // From now on nobody knows how far a try came.
            batch.iter_mut().for_each(|job| job.fresh = false);
            let temporary = error.kind().row().temporary;
            if !temporary && batch.len() > 1 {
                // One of them cannot be relayed; it must not hold up the others.
                for job in batch {
                    if !Box::pin(self.relay(vec![job])).await {
                        return false;
                    }
                }
                return true;
            }
            if !temporary {
                tracing::error!(%error, "an event cannot be relayed; it stays where it is");
                return true;
            }
            tracing::warn!(%error, events = batch.len(), "events wait to be relayed: will try again");
            let pause = Duration::from_millis(rand::random_range(delay / 2..=delay));
            tokio::select! {
                () = tokio::time::sleep(pause) => delay = (delay * 2).min(2000),
                // They are in their outboxes, or whoever publishes them puts them there.
                () = self.stop.cancelled() => return false,
            }
        }
    }

    async fn try_relay(&mut self, batch: &mut [Job]) -> Result<()> {
        let mut channels: Vec<&str> = Vec::new();
        for job in batch.iter() {
            if !channels.contains(&job.event.channel.as_str()) {
                channels.push(&job.event.channel);
            }
        }
        let mut seqs = HashMap::new();
        for channel in channels {
            let jobs: Vec<&Job> = batch.iter().filter(|job| job.event.channel == channel).collect();
            self.relay_channel(channel, &jobs, &mut seqs).await?;
        }
        if self.mode == RelayMode::AppendOnly {
            return Ok(());
        }
        for job in batch.iter_mut() {
            if let (Some(waiter), Some(seq)) = (job.waiter.take(), seqs.get(&job.event.id)) {
                // The publisher may have stopped waiting.
                _ = waiter.send(*seq);
            }
        }
        self.cleaner.clean(batch).await;
        Ok(())
    }

    /// Brings events of one channel into its log, and their numbers into `seqs`.
    async fn relay_channel(
        &self,
        channel: &str,
        jobs: &[&Job],
        seqs: &mut HashMap<ObjectId, u64>,
    ) -> Result<()> {
        let ids: Vec<ObjectId> = jobs.iter().map(|job| job.event.id).collect();
        let mut fresh = jobs.iter().all(|job| job.fresh);
        for _ in 0..ROUNDS {
            let known = self.channels.begun(channel).await?;
            let mut events: Vec<&Pending> = jobs.iter().map(|job| &job.event).collect();
            if !fresh {
                seqs.extend(self.channels.history.numbers(&ids).await?);
                events.retain(|event| !seqs.contains_key(&event.id));
            }
            // Whatever goes wrong from here on, nobody knows how far it came.
            fresh = false;
            let (generation, floor) = (known.generation(), known.high());
            self.channels.memory.attend(&known);
            let Some(given) = self.channels.redis.append(channel, generation, floor, &events).await? else {
                self.channels.verify(channel).await?;
                continue;
            };
            if self.mode == RelayMode::AppendOnly {
                return Ok(());
            }
            let item = |(event, &seq): (&&Pending, &u64)| {
                let mut json = event.json.clone();
                stamp(&mut json, given.time_of(seq));
                (seq, Item { seq, epoch: known.epoch.to_string(), json })
            };
            let mut own: BTreeMap<u64, Item> = events.iter().zip(&given.numbers).map(item).collect();
            if let (Some(first), Some(last)) = (given.known.iter().min(), given.known.iter().max()) {
                // A second try may say something else, its time for one: the first one counts.
                let first_tries = self.channels.redis.pending(channel, *first, *last, BATCH).await?;
                own.retain(|seq, _| !given.known.contains(seq));
                own.extend(first_tries.into_iter().map(|item| (item.seq, item)));
            }
            let numbers = ids.iter().filter_map(|id| seqs.get(id)).chain(&given.numbers);
            let target = numbers.copied().max().unwrap_or(0);
            match self.channels.settle(channel, generation, &own, given.head, target).await? {
                Settled::Done => {
                    self.channels.memory.showed(&known, target);
                    seqs.extend(events.iter().zip(given.numbers).map(|(event, seq)| (event.id, seq)));
                    return Ok(());
                }
                Settled::Again => continue,
            }
        }
        Err(Error::unavailable("log", anyhow::anyhow!("the numbers of {channel} keep changing")))
    }
}

/// How much room events take in the queue.
fn units(jobs: &[Job]) -> u32 {
    let units = jobs.iter().map(|job| job.event.json.len() / UNIT + 1).sum::<usize>();
    u32::try_from(units.min(QUEUE_UNITS)).unwrap_or(u32::MAX)
}
