//! Commits, relays, crashes between their steps and a Redis that forgets, in an order by chance: a model says what has
//! to be in the log in the end, and readers follow all the while.
//!
//! `RELAY_SEED` repeats a run, `RELAY_RUNS` does more of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kernelci_live::event_log::EventLog;
use kernelci_live::event_log::redis::RelayMode;
use kernelci_live::model::{Event, Node, ObjectId};
use kernelci_live::store::{Committed, Store};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::task::JoinHandle;

use super::support::{Instance, Servers, commit, event, node, revisions};
use crate::support::{PATIENCE, eventually_within};

/// Steps of a run.
const STEPS: usize = 60;
const CHANNEL: &str = "ch";

/// What must be so in the end.
#[derive(Default)]
struct Model {
    /// Every node with the revision that was acknowledged last.
    nodes: Vec<Node>,
    /// Every event that was published, with its number if one was told.
    published: Vec<(Event, Option<u64>)>,
}

/// What Redis had at some time: keys and their dumps.
type Snapshot = Vec<(String, Vec<u8>)>;

struct Run {
    servers: Servers,
    instances: Vec<Instance>,
    model: Model,
    snapshot: Option<Snapshot>,
    rng: StdRng,
}

impl Run {
    async fn step(&mut self) {
        let one = self.rng.random_range(0..self.instances.len());
        match self.rng.random_range(0..20) {
            0..=2 => self.create(one).await,
            3..=9 => self.update(one).await,
            10..=11 => self.publish(one).await,
            12..=13 => self.repeat(one).await,
            14..=15 => self.die().await,
            16 => {
                let what = ["*", "{node}:*", "*:stream", "*:state", "*:pending", "*:seen:*"];
                self.servers.forget(what.choose(&mut self.rng).unwrap()).await;
            }
            17 => self.snapshot = Some(self.take_snapshot().await),
            18 => self.go_back().await,
            // Others get on as far as chance wants it.
            _ => tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..400))).await,
        }
    }

    async fn create(&mut self, one: usize) {
        let new = node(&format!("n{}", self.model.nodes.len()));
        assert_eq!(self.instances[one].store.commit(commit([&new])).await.unwrap(), Committed::Done);
        self.model.nodes.push(new);
    }

    /// Of one or two nodes, in one commit.
    async fn update(&mut self, one: usize) {
        let count = self.rng.random_range(1..=2);
        let chosen: Vec<usize> =
            rand::seq::index::sample(&mut self.rng, self.model.nodes.len(), count).into_vec();
        let next = chosen
            .iter()
            .map(|&at| Node { revision: self.model.nodes[at].revision + 1, ..self.model.nodes[at].clone() });
        let next: Vec<Node> = next.collect();
        assert_eq!(self.instances[one].store.commit(commit(&next)).await.unwrap(), Committed::Done);
        chosen.into_iter().zip(next).for_each(|(at, node)| self.model.nodes[at] = node);
    }

    async fn publish(&mut self, one: usize) {
        let event = event(CHANNEL, json!(self.model.published.len()));
        let number = self.instances[one].log.publish(event.clone()).await.unwrap();
        self.model.published.push((event, number));
    }

    /// Publishes something again, as a client does that got no answer.
    async fn repeat(&mut self, one: usize) {
        let Some(at) = (0..self.model.published.len()).collect::<Vec<_>>().choose(&mut self.rng).copied()
        else {
            return;
        };
        let (event, told) = &mut self.model.published[at];
        let number = self.instances[one].log.publish(event.clone()).await.unwrap();
        if let (Some(before), Some(now)) = (*told, number) {
            assert_eq!(before, now, "one event has one place");
        }
        *told = told.or(number);
    }

    /// An instance writes something and dies before, or in the middle of, relaying it.
    async fn die(&mut self) {
        let mode = if self.rng.random() { RelayMode::Off } else { RelayMode::AppendOnly };
        self.instances.push(self.servers.open_with(mode).await);
        let one = self.instances.len() - 1;
        for _ in 0..self.rng.random_range(1..4) {
            self.update(one).await;
        }
        if self.rng.random() {
            self.create(one).await;
        }
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..100))).await;
        let dead = self.instances.pop().unwrap();
        dead.store.close().await;
    }

    fn redis(&self) -> redis::aio::MultiplexedConnection {
        self.servers.redis.clone()
    }

    async fn take_snapshot(&self) -> Snapshot {
        let mut redis = self.redis();
        let pattern = format!("{}*", self.servers.options.key_prefix);
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
        let mut snapshot = Vec::new();
        for key in keys {
            let dump: Option<Vec<u8>> = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.unwrap();
            snapshot.extend(dump.map(|dump| (key, dump)));
        }
        snapshot
    }

    /// Redis is what it was at the last snapshot. (Not in one moment, as with a restart: worse.)
    async fn go_back(&mut self) {
        let Some(snapshot) = self.snapshot.take() else { return };
        self.servers.forget("*").await;
        let mut redis = self.redis();
        for (key, dump) in snapshot {
            let mut restore = redis::cmd("RESTORE");
            restore.arg(key).arg(0).arg(dump).arg("REPLACE").query_async::<()>(&mut redis).await.unwrap();
        }
    }

    /// What is in the log now is what the model says.
    async fn check(&self) {
        let events = self.instances[0].events_after("node", 0).await;
        for node in &self.model.nodes {
            assert_eq!(revisions(&events, node.id), (1..=node.revision).collect::<Vec<_>>(), "{}", node.name);
        }
        let expected: u64 = self.model.nodes.iter().map(|node| node.revision).sum();
        assert_eq!(events.len() as u64, expected, "nothing else is there");
        let published = self.instances[0].events_after(CHANNEL, 0).await;
        let places: HashMap<String, u64> = published
            .iter()
            .map(|entry| (entry.value()["id"].as_str().unwrap().to_owned(), entry.seq))
            .collect();
        assert_eq!(published.len(), self.model.published.len());
        for (event, told) in &self.model.published {
            let place = places.get(&event.id.to_hex()).copied();
            assert!(
                place.is_some() && (told.is_none() || *told == place),
                "{event:?}: told {told:?}, at {place:?}"
            );
        }
    }
}

/// What a reader was shown: number and id.
type Seen = Arc<Mutex<Vec<(u64, String)>>>;

/// Follows the nodes' channel from its beginning; whatever happens, it must not notice.
fn follow(instance: &Instance) -> (Seen, JoinHandle<()>) {
    let (seen, log) = (Seen::default(), instance.log.clone());
    let shown = seen.clone();
    let task = tokio::spawn(async move {
        let mut epoch = None;
        loop {
            let last = shown.lock().unwrap().last().map_or(0, |(seq, _)| *seq);
            let Ok(mut tail) = log.tail("node", last).await else { continue };
            while let Ok(read) = tail.next(7).await {
                assert_eq!(read.gap, None);
                assert_eq!(*epoch.get_or_insert(read.epoch.clone()), read.epoch, "no history was lost");
                let mut shown = shown.lock().unwrap();
                for entry in read.entries {
                    assert_eq!(entry.seq, shown.last().map_or(0, |(seq, _)| *seq) + 1);
                    shown.push((entry.seq, entry.value()["id"].to_string()));
                }
            }
        }
    });
    (seen, task)
}

async fn run(seed: u64) {
    println!("RELAY_SEED={seed}");
    let servers = Servers::new().await;
    let instances = vec![servers.open().await, servers.open().await];
    let readers: Vec<_> = instances.iter().map(follow).collect();
    let (model, snapshot, rng) = (Model::default(), None, StdRng::seed_from_u64(seed));
    let mut run = Run { servers, instances, model, snapshot, rng };
    for _ in 0..2 {
        run.create(0).await;
    }
    for _ in 0..STEPS {
        run.step().await;
    }
    run.servers.settled().await;
    run.check().await;
    let events = run.instances[1].events_after("node", 0).await;
    let expected: Vec<_> = events.iter().map(|entry| (entry.seq, entry.value()["id"].to_string())).collect();
    for (seen, task) in readers {
        eventually_within(2 * PATIENCE, "the reader has seen all", async || {
            assert!(!task.is_finished(), "the reader's assertions hold");
            seen.lock().unwrap().len() >= expected.len()
        })
        .await;
        assert_eq!(*seen.lock().unwrap(), expected);
        task.abort();
    }
    let ids: Vec<ObjectId> = run.model.nodes.iter().map(|node| node.id).collect();
    assert_eq!(run.instances[0].store.nodes(&ids).await.unwrap().len(), ids.len());
    for instance in run.instances {
        instance.store.close().await;
    }
    run.servers.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_dies_or_forgets_and_when_the_log_is_what_was_committed() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("RELAY_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    for seed in first..first + number("RELAY_RUNS").unwrap_or(2) {
        run(seed).await;
    }
}
