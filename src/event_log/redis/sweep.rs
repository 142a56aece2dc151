//! The sweep: what nobody relays any more, because a queue was full, a process has died, or Redis was away.
//!
//! Every instance looks through the outboxes every other second, beside the relay, so that no event waits for a look.
//! What two looks in a row find is overdue and goes to the relay, which recognises what has been relayed meanwhile.
//! (Clocks are not compared.) Then it looks after the channels in which something has happened: finishes what was numbered
//! and not shown, trims the streams, and writes down how far they are. The others are looked at seldom.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bson::doc;
use futures::TryStreamExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::epoch::Channels;
use super::known::Known;
use super::outbox::{Job, Outboxes, Pending, Source};
use super::settle::Settled;
use crate::error::{Error, Result};
use crate::model::ObjectId;
use crate::store::mongo::errors::{QUERY_TIME, call};
use crate::store::mongo::stored::Stored;

/// The pause between two looks, to which as much is added by chance, so that instances do not act in step.
const EVERY: Duration = Duration::from_secs(1);
/// The same before the first one, and while there is more than one look takes in.
const SOON: Duration = Duration::from_millis(200);
/// How many outboxes a look takes in.
const MOST_NODES: i64 = 1000;
/// How many events of the collection it takes in.
const MOST_EVENTS: i64 = 256;
/// Nodes whose events are read at a time.
const NODES: usize = 16;
/// Bytes of events that are handed over at a time, about.
const BYTES: usize = 8 << 20;

/// See the module's documentation.
pub(super) struct Sweep {
    channels: Arc<Channels>,
    outboxes: Outboxes,
    relay: mpsc::Sender<Vec<Job>>,
    /// The events that the last look saw.
    seen: HashSet<ObjectId>,
    /// Channels that had events which were not shown at the last look, and the number up to which others were.
    unshown: HashMap<String, u64>,
    /// Channels that had events on their way at the last look, and since when.
    in_flight: Vec<(String, f64)>,
}

impl Sweep {
    /// Overdue events go to `relay`.
    pub(super) fn new(channels: Arc<Channels>, outboxes: Outboxes, relay: mpsc::Sender<Vec<Job>>) -> Sweep {
        Sweep {
            channels,
            outboxes,
            relay,
            seen: HashSet::new(),
            unshown: HashMap::new(),
            in_flight: Vec::new(),
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let relay = self.relay.clone();
        let work = async {
            let mut pause = SOON;
            let mut pruned = Instant::now();
            loop {
                tokio::time::sleep(pause.mul_f32(rand::random_range(1.0..2.0))).await;
                pause = match self.look().await {
                    Ok(true) => SOON,
                    Ok(false) => EVERY,
                    Err(error) => {
                        tracing::debug!(%error, "a sweep of the outboxes failed");
                        EVERY
                    }
                };
                if let Err(error) = self.look_at_flights().await {
                    tracing::debug!(%error, "it is not known which events are on their way");
                }
                self.look_after_busy().await;
                if pruned.elapsed() > self.channels.ages.prune_every {
                    if let Err(error) = self.channels.prune().await {
                        tracing::debug!(%error, "what is old could not be removed; trying again later");
                    }
                    pruned = Instant::now();
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
            () = relay.closed() => {}
        }
    }

    /// Hands over what was pending at the last look already. Whether there may be more than it has seen.
    async fn look(&mut self) -> Result<bool> {
        let mut pending = HashSet::new();
        if *self.outboxes.indexed.borrow() {
            let overdue = self.overdue_nodes(&mut pending).await?;
            for ids in overdue.chunks(NODES) {
                let find =
                    self.outboxes.nodes.find(doc! {"_id": {"$in": ids}}).projection(doc! {"outbox": 1});
                let nodes: Vec<Stored> =
                    call(async { find.max_time(QUERY_TIME).await?.try_collect().await }).await?;
                let (mut jobs, mut bytes) = (Vec::new(), 0);
                for id in ids {
                    let node = nodes.iter().find(|node| node.get_object_id("_id").ok() == Some(*id));
                    let Some(node) = node else { continue };
                    let events = self.outboxes.whole(*id, Pending::outbox(node)).await?;
                    bytes += events.iter().map(|event| event.json.len()).sum::<usize>();
                    jobs.extend(events.into_iter().map(|event| Job::foreign(Source::Node(*id), event)));
                    if bytes > BYTES {
                        self.hand_over(std::mem::take(&mut jobs)).await;
                        bytes = 0;
                    }
                }
                self.hand_over(jobs).await;
            }
        }
        let find = self.outboxes.events.find(doc! {}).sort(doc! {"_id": 1}).limit(MOST_EVENTS);
        let events: Vec<Stored> =
            call(async { find.max_time(QUERY_TIME).await?.try_collect().await }).await?;
        let events: Vec<Pending> = events.iter().filter_map(|event| Pending::from_document(event)).collect();
        pending.extend(events.iter().map(|event| event.id));
        let more = events.len() as i64 >= MOST_EVENTS;
        let overdue = events.into_iter().filter(|event| self.seen.contains(&event.id));
        self.hand_over(overdue.map(|event| Job::foreign(Source::Collection, event)).collect()).await;
        self.seen = pending;
        Ok(more)
    }

    /// Waits until the relay has room.
    async fn hand_over(&self, jobs: Vec<Job>) {
        if !jobs.is_empty() {
            // Fails when the relay has ended.
            _ = self.relay.send(jobs).await;
        }
    }

    /// The nodes with overdue events, those with the oldest event first; all pending events go to `pending`.
    async fn overdue_nodes(&self, pending: &mut HashSet<ObjectId>) -> Result<Vec<ObjectId>> {
        let find =
            self.outboxes.nodes.find(doc! {"outbox.id": {"$exists": true}}).sort(doc! {"outbox.id": 1});
        let find = find.projection(doc! {"outbox.id": 1}).limit(MOST_NODES).max_time(QUERY_TIME);
        let nodes: Vec<Stored> = call(async { find.await?.try_collect().await }).await?;
        let mut overdue = Vec::new();
        for node in &nodes {
            let Ok(id) = node.get_object_id("_id") else { continue };
            let entries =
                node.get_array("outbox").into_iter().flatten().filter_map(|entry| entry.as_document());
            let events: Vec<ObjectId> = entries.filter_map(|entry| entry.get_object_id("id").ok()).collect();
            if events.iter().any(|event| self.seen.contains(event)) {
                overdue.push(id);
            }
            pending.extend(events);
        }
        Ok(overdue)
    }

    /// Finds the channels whose events have been on their way for more than a look: the instance that gave them numbers may
    /// have died, and nobody who reads by time sees what came later ([`super::clock`]).
    async fn look_at_flights(&mut self) -> Result<()> {
        let now = self.channels.redis.in_flight().await?;
        for (channel, since) in &now {
            if self.in_flight.contains(&(channel.clone(), *since)) {
                let known = self.channels.known(channel).await?;
                self.channels.memory.attend(&known);
                self.channels.redis.land(channel).await?;
            }
        }
        self.in_flight = now;
        Ok(())
    }

    /// Looks after the channels in which something has happened since the last time, or was left then.
    async fn look_after_busy(&mut self) {
        let mut unshown = HashMap::new();
        for known in self.channels.memory.take_busy() {
            let look = async {
                let left = self.finish(&known).await?;
                self.channels.expire(&known.channel).await?;
                self.channels.write_down(&known).await?;
                Ok::<_, Error>(left)
            };
            match look.await {
                Ok(None) => continue,
                Ok(Some(head)) => _ = unshown.insert(known.channel.clone(), head),
                Err(error) => tracing::debug!(channel = known.channel, %error, "something is left to do"),
            }
            self.channels.memory.attend(&known);
        }
        self.unshown = unshown;
    }

    /// Up to where a channel's events are shown, if not all of them are. What was unshown at the last look already is
    /// shown: its publishers have died with their instance, or given up.
    async fn finish(&self, known: &Arc<Known>) -> Result<Option<u64>> {
        let channel = &known.channel;
        let Some(state) = self.channels.redis.state(channel).await? else { return Ok(None) };
        let (generation, head) = (state.generation, state.head);
        if generation != known.generation() {
            // The next look knows it.
            self.channels.verify(channel).await?;
            return Ok(None);
        }
        if state.given <= head {
            return Ok(None);
        }
        if self.unshown.get(channel) == Some(&head) {
            let shown =
                self.channels.settle(channel, generation, &BTreeMap::new(), head, state.given).await?;
            if shown == Settled::Done {
                self.channels.memory.showed(known, state.given);
            }
        }
        Ok(Some(head))
    }
}
