//! Clients that write without a pause, and a ledger of what they were told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kernelci_live::client::{Auth, Client, Error, Options, Publish, Submit, UpdateNode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use crate::support::node;

/// The channel that the workload publishes on.
pub const CHANNEL: &str = "faults";

/// What the writers know.
#[derive(Default)]
pub struct Ledger {
    /// Acknowledged writes of nodes: node id and the number that was written into it.
    pub nodes: Vec<(String, u64)>,
    /// Acknowledged events: what was published.
    pub published: Vec<(String, Option<u64>)>,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// Answers that no writer should ever get.
    pub wrong: Vec<String>,
}

/// The ledger of all writers.
pub type Shared = Arc<Mutex<Ledger>>;

/// What writers and readers need to know of the cluster.
#[derive(Clone)]
pub struct Target {
    pub url: String,
    pub token: String,
    pub stop: Arc<AtomicBool>,
}

impl Target {
    /// A client, as soon as somebody answers.
    pub async fn client(&self, name: &str) -> Client {
        loop {
            let options = Options::new(&self.url).auth(Auth::Token(self.token.clone())).name(name);
            if let Ok(client) = Client::connect(options).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Writes until told to stop. Everything is random from `seed`, except for what time makes of it.
pub async fn write(number: usize, seed: u64, target: Target, ledger: Shared) {
    let client = target.client(&format!("writer {number}")).await;
    let mut writer = Writer { number, count: 0, client, ledger, rng: StdRng::seed_from_u64(seed) };
    let mut mine: Vec<String> = Vec::new();
    while !target.stopped() {
        match writer.rng.random_range(0..10) {
            0 => mine.extend(writer.create().await),
            1 => writer.publish().await,
            2 => {
                if let Some(id) = mine.last().cloned() {
                    writer.mark(&id).await;
                }
            }
            3 => {
                if let Some(id) = mine.last().cloned() {
                    writer.submit(&id).await;
                }
            }
            _ => {
                let newest = mine.len().saturating_sub(4)..mine.len();
                if !newest.is_empty() {
                    let id = mine[writer.rng.random_range(newest)].clone();
                    writer.update(&id).await;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(writer.rng.random_range(5..25))).await;
    }
}

struct Writer {
    number: usize,
    /// Goes into every write, so that its event shows which one it tells of.
    count: u64,
    client: Client,
    ledger: Shared,
    rng: StdRng,
}

impl Writer {
    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn named(&self, kind: &str, count: u64) -> Value {
        let mut node = node(kind, &format!("w{}-{count}", self.number));
        node["data"] = json!({"error_msg": count.to_string()});
        node
    }

    /// Tells whether a write was acknowledged; one that was not may have been done all the same.
    fn acknowledged<T>(&self, what: &str, outcome: &Result<T, Error>) -> bool {
        let mut ledger = self.ledger.lock().unwrap();
        match outcome {
            Ok(_) => return true,
            Err(error) if error.temporary() => ledger.unknown += 1,
            Err(error) => ledger.wrong.push(format!("{what}: {error}")),
        }
        false
    }

    async fn create(&mut self) -> Option<String> {
        let count = self.next();
        let made = self.client.node_create(&self.named("checkout", count), None).await;
        if !self.acknowledged("create", &made) {
            return None;
        }
        let id = made.ok()?["id"].as_str()?.to_owned();
        self.ledger.lock().unwrap().nodes.push((id.clone(), count));
        Some(id)
    }

    async fn update(&mut self, id: &str) {
        let count = self.next();
        let set = Map::from_iter([("data".to_owned(), json!({"error_msg": count.to_string()}))]);
        let update = UpdateNode { id: id.to_owned(), set, ..UpdateNode::default() };
        let done = self.client.node_update(&update).await;
        if self.acknowledged("update", &done) {
            self.ledger.lock().unwrap().nodes.push((id.to_owned(), count));
        }
    }

    async fn mark(&mut self, id: &str) {
        let value = Value::Bool(self.rng.random());
        let done = self.client.node_mark(&[id.to_owned()], "processed_by_kcidb_bridge", &value).await;
        self.acknowledged("mark", &done);
    }

    async fn submit(&mut self, id: &str) {
        let count = self.next();
        let mut root = self.named("checkout", count);
        root["id"] = id.into();
        let children: Vec<Value> = (0..2)
            .map(|child| {
                let mut node = self.named("kbuild", count);
                node["name"] = format!("w{}-{count}-{child}", self.number).into();
                json!({"node": node, "child_nodes": []})
            })
            .collect();
        let tree = json!({"node": root, "child_nodes": children});
        let submit = Submit { id: id.to_owned(), tree, events: Some("each".into()), ..Submit::default() };
        let done = self.client.node_submit(submit).await;
        if self.acknowledged("submit", &done) {
            let written = done.unwrap_or_default();
            let ids = written.iter().filter_map(|node| Some((node["id"].as_str()?.to_owned(), count)));
            self.ledger.lock().unwrap().nodes.extend(ids);
        }
    }

    async fn publish(&mut self) {
        let count = self.next();
        let what = format!("{}-{count}", self.number);
        let publish = Publish { channel: CHANNEL.into(), data: json!({"what": what}), ..Publish::default() };
        let done = self.client.event_publish(publish).await;
        if self.acknowledged("publish", &done) {
            self.ledger.lock().unwrap().published.push((what, done.unwrap_or_default()));
        }
    }
}
